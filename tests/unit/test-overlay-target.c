/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Targets that show the disk that is copied, where they have nothing of their
 * own: guests write what readers of the target may be looking at.
 */
#include "mirror-fixture.h"

/* A disk with a guest on it, which fills it with 'a' from @from on, and an
 * overlay of it. */
static void overlay_of(const char *disk, int64_t from)
{
    source = open_ok(disk);
    guest = backend_ok("guest", source, BLK_PERM_CONSISTENT_READ |
                       BLK_PERM_WRITE | BLK_PERM_RESIZE, BLK_PERM_ALL);
    job_fill(guest, from, DISK - from, 'a');
    target = open_ok("clustermem,node-name=target,size=512k,backing=source");
}

static void overlay_disks(void)
{
    overlay_of("mem,node-name=source,size=512k", 0);
}

static BlockBackend *reader_of_target(void)
{
    return backend_ok("reader", target, BLK_PERM_CONSISTENT_READ,
                      BLK_PERM_ALL);
}

static void fly_read(Flying *f, BlockBackend *reader, int64_t offset)
{
    f->ended = false;
    blk_aio_preadv(reader, offset, block_iov_buf(&f->iov, f->buf, CLUSTER), 0,
                   flying_ended, f);
}

/* R77: the overlay has nothing there, and what is below is about to change. */
START_TEST(an_overlay_of_the_disk_holds_the_point_in_time)
{
    BlockBackend *reader;
    Flying read, write;
    BlockJob *job;

    overlay_disks();
    job = job_ok(BLOCK_JOB_BACKUP, "job-id=j,device=source,target=target,"
                 "sync=none");
    reader = reader_of_target();
    mem_disk(source)->catch_next[MEM_READ] = true;
    fly_read(&read, reader, 0);
    while (!mem_disk(source)->caught) {
        aio_poll(block_graph_aio_context(graph), false);
    }
    fly(&write, 0, 'n');
    job_settle();
    ck_assert(!write.ended);
    mem_disk(source)->caught = false;
    while (!read.ended || !write.ended) {
        aio_poll(block_graph_aio_context(graph), true);
    }
    ck_assert_int_eq(read.ret, 0);
    ck_assert_int_eq(read.buf[0], 'a');
    ck_assert_int_eq(read.buf[CLUSTER - 1], 'a');
    ck_assert_int_eq(write.ret, 0);
    job_fill(guest, CLUSTER + 512, 512, 'n');
    job_expect(target, 0, DISK, 'a');
    job_expect(source, 0, CLUSTER, 'n');
    blk_unref(reader);
    ck_assert_int_eq(block_job_cancel(job, false, NULL), 0);
    job_end_fails(job, ECANCELED, "cancelled");
    no_disks();
}
END_TEST

/* What is staged is not there for who reads the overlay, nor waits for him. */
START_TEST(nothing_is_staged_for_an_overlay_of_the_disk)
{
    overlay_disks();
    job_fails(BLOCK_JOB_BACKUP, "job-id=j,device=source,target=target,"
              "sync=none,on-cbw-error=break-snapshot,staging-size=128k",
              EINVAL, "staging-size");
    no_disks();
}
END_TEST

START_TEST(a_full_backup_to_an_overlay_of_the_disk_is_the_disk)
{
    overlay_disks();
    job_end_ok(job_ok(BLOCK_JOB_BACKUP, "device=source,target=target,"
                      "sync=full"));
    job_fill(guest, 0, DISK, 'n');
    job_expect(target, 0, DISK, 'a');
    no_disks();
}
END_TEST

/* What guests may do is to write the disk, not its target. */
START_TEST(a_writer_of_an_overlay_that_is_a_target_is_refused)
{
    BlockBackend *writer;
    GError *error = NULL;
    BlockJob *job;
    const BlockPerm perm = { .used = BLK_PERM_WRITE,
                             .shared = BLK_PERM_ALL };

    overlay_disks();
    job_finds_writer(_i ? BLOCK_JOB_MIRROR : BLOCK_JOB_BACKUP,
                     "device=source,target=target,sync=none", target);
    job = job_ok(_i ? BLOCK_JOB_MIRROR : BLOCK_JOB_BACKUP,
                 "job-id=j,device=source,target=target,sync=none");
    writer = blk_new(graph, "writer", &perm);
    ck_assert_int_lt(blk_insert_bs(writer, target, &error), 0);
    expect_error(&error, EPERM, "target");
    blk_unref(writer);
    ck_assert_int_eq(block_job_cancel(job, true, NULL), 0);
    job_end_fails(job, ECANCELED, "cancelled");
    no_disks();
}
END_TEST

/* Who shows the disk from later on would be read past what is copied. */
START_TEST(a_target_that_gets_the_disk_as_backing_file_later_is_refused)
{
    GError *error = NULL;
    BlockJob *job;

    disks();
    bdrv_unref(target);
    target = open_ok("clustermem,node-name=target,size=512k");
    job = job_ok(BLOCK_JOB_BACKUP, "job-id=j,device=source,target=target,"
                 "sync=none");
    ck_assert_int_lt(bdrv_set_backing(target, source, &error), 0);
    expect_error(&error, EPERM, "does not share");
    ck_assert_int_eq(block_job_cancel(job, false, NULL), 0);
    job_end_fails(job, ECANCELED, "cancelled");
    no_disks();
}
END_TEST

static const char *const modes[] = { "", ",copy-mode=write-blocking" };

START_TEST(an_overlay_takes_what_guests_change_and_then_their_disks_place)
{
    g_autofree char *text = g_strdup_printf(
        "job-id=j,device=source,target=target,sync=none%s", modes[_i]);
    BlockJob *job;

    overlay_disks();
    job = job_ok(BLOCK_JOB_MIRROR, text);
    job_reach(job, BLOCK_JOB_READY);
    job_fill(guest, CLUSTER + 512, 512, 'n');
    complete_ok(job);
    ck_assert_ptr_eq(blk_bs(guest), target);
    ck_assert_ptr_eq(bdrv_child_bs(bdrv_find_child(target, "backing")),
                     source);
    job_fill(guest, 0, 512, 'm');
    job_expect(target, 0, 512, 'm');
    job_expect(target, 512, CLUSTER, 'a');
    job_expect(target, CLUSTER + 512, 512, 'n');
    job_expect(target, CLUSTER + 1024, DISK - CLUSTER - 1024, 'a');
    job_expect(source, 0, 512, 'a');
    no_disks();
}
END_TEST

/* Zeroes that the target shows are those of the disk, and go with them. */
START_TEST(a_mirror_leaves_a_copy_in_an_overlay_that_does_not_change)
{
    g_autofree char *text = g_strdup_printf(
        "job-id=j,device=source,target=target,sync=full%s", modes[_i]);
    BlockJob *job;

    overlay_of("clustermem,node-name=source,size=512k", 2 * CLUSTER);
    job = job_ok(BLOCK_JOB_MIRROR, text);
    job_reach(job, BLOCK_JOB_READY);
    end_with_copy(job);
    job_fill(guest, 0, DISK, 'n');
    job_expect(target, 0, 2 * CLUSTER, 0);
    job_expect(target, 2 * CLUSTER, DISK - 2 * CLUSTER, 'a');
    no_disks();
}
END_TEST

static void add_tests(TCase *tcase)
{
    mem_register_clustered();
    PROMISE(tcase, an_overlay_of_the_disk_holds_the_point_in_time);
    PROMISE(tcase, nothing_is_staged_for_an_overlay_of_the_disk);
    PROMISE(tcase, a_full_backup_to_an_overlay_of_the_disk_is_the_disk);
    tcase_add_loop_test(
        tcase, a_writer_of_an_overlay_that_is_a_target_is_refused, 0, 2);
    PROMISE(tcase,
            a_target_that_gets_the_disk_as_backing_file_later_is_refused);
    tcase_add_loop_test(
        tcase,
        an_overlay_takes_what_guests_change_and_then_their_disks_place, 0, 2);
    tcase_add_loop_test(
        tcase, a_mirror_leaves_a_copy_in_an_overlay_that_does_not_change, 0,
        2);
}

int main(void)
{
    return job_main("overlay-target", add_tests);
}
