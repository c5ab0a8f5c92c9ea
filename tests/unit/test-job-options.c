/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Options of jobs, each by what it does.
 */
#include "mirror-fixture.h"

#define LARGE (8 << 20)

/* A disk of 'a' with a guest on it, and an empty one. */
static void large_disks(const char *driver)
{
    g_autofree char *from = g_strdup_printf("%s,node-name=source,size=8M",
                                            driver);
    g_autofree char *to = g_strdup_printf("%s,node-name=target,size=8M",
                                          driver);

    source = open_ok(from);
    target = open_ok(to);
    guest = backend_ok("guest", source, BLK_PERM_CONSISTENT_READ |
                       BLK_PERM_WRITE, BLK_PERM_ALL);
    job_fill(guest, 0, LARGE, 'a');
}

/* How many writes of a job are in the target at once, if none ends. */
static void expect_at_once(BlockJob *job, BlockDriverState *bs, unsigned n)
{
    for (int i = 0; i < 1000 && mem_disk(bs)->held < n; i++) {
        aio_poll(block_graph_aio_context(graph), true);
    }
    job_settle();
    ck_assert_uint_eq(mem_disk(bs)->held, n);
    hold(bs, MEM_WRITE, false);
}

START_TEST(so_many_copies_of_a_backup_at_once)
{
    BlockJob *job;

    large_disks("mem");
    hold(target, MEM_WRITE, true);
    job = job_ok(BLOCK_JOB_BACKUP, "device=source,target=target,sync=full,"
                 "max-workers=3,max-chunk=64k");
    expect_at_once(job, target, 3);
    job_end_ok(job);
    job_expect(target, 0, LARGE, 'a');
    no_disks();
}
END_TEST

START_TEST(so_many_copies_of_a_mirror_at_once)
{
    static const struct {
        const char *options;
        unsigned copies;
        int64_t bytes;
    } cases[] = {
        { ",max-workers=3", 3, 1 << 20 },
        { ",buf-size=2M", 2, 1 << 20 },
        { ",buf-size=128k,granularity=64k", 1, 128 << 10 },
        { ",buf-size=1,granularity=64k", 1, 64 << 10 },
    };
    g_autofree char *text = g_strdup_printf(MIRROR "%s", cases[_i].options);
    BlockJob *job;

    large_disks("mem");
    hold(target, MEM_WRITE, true);
    job = job_ok(BLOCK_JOB_MIRROR, text);
    expect_at_once(job, target, cases[_i].copies);
    job_reach(job, BLOCK_JOB_READY);
    ck_assert_int_eq(mem_disk(target)->last[MEM_WRITE].bytes, cases[_i].bytes);
    end_with_copy(job);
    job_expect(target, 0, LARGE, 'a');
    no_disks();
}
END_TEST

START_TEST(so_many_copies_of_a_stream_at_once)
{
    BlockJob *job;

    large_disks("mem");
    bdrv_unref(target);
    target = open_ok("clustermem,node-name=target,size=8M,backing=source");
    hold(target, MEM_WRITE, true);
    blk_unref(guest);
    guest = backend_ok("guest", target, BLK_PERM_CONSISTENT_READ,
                       BLK_PERM_ALL);
    job = job_ok(BLOCK_JOB_STREAM, "device=target,max-workers=3");
    expect_at_once(job, target, 3);
    job_end_ok(job);
    job_expect(target, 0, LARGE, 'a');
    no_disks();
}
END_TEST

/* An image of 'b' on one of 'a'; and another one on top, if not all of it is to
 * be committed. */
static BlockDriverState *large_chain(bool with_top)
{
    BlockDriverState *top;

    large_disks("mem");
    bdrv_unref(target);
    target = open_ok("clustermem,node-name=target,size=8M,backing=source");
    blk_unref(guest);
    guest = backend_ok("guest", target, BLK_PERM_CONSISTENT_READ |
                       BLK_PERM_WRITE, BLK_PERM_ALL);
    job_fill(guest, 0, LARGE, 'b');
    if (!with_top) {
        return NULL;
    }
    blk_unref(guest);
    top = open_ok("clustermem,node-name=top,size=8M,backing=target");
    guest = backend_ok("guest", top, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL);
    return top;
}

START_TEST(so_many_copies_of_a_commit_at_once)
{
    BlockDriverState *top = large_chain(_i == 0);
    BlockJob *job;

    hold(source, MEM_WRITE, true);
    if (top) {
        job = job_ok(BLOCK_JOB_COMMIT, "job-id=j,device=top,top=target,"
                     "base=source,max-workers=3");
        expect_at_once(job, source, 3);
    } else {
        job = job_ok(BLOCK_JOB_COMMIT, "job-id=j,device=target,base=source,"
                     "max-workers=3");
        expect_at_once(job, source, 3);
        job_reach(job, BLOCK_JOB_READY);
        ck_assert_int_eq(block_job_complete(job, NULL), 0);
    }
    job_end_ok(job);
    job_expect(source, 0, LARGE, 'b');
    bdrv_unref(top);
    no_disks();
}
END_TEST

START_TEST(zeroes_in_the_target_are_holes_unless_that_is_not_wanted)
{
    unsigned flags;

    disks();
    ck_assert_int_eq(blk_pwrite_zeroes(guest, 0, DISK, BDRV_REQ_MAY_UNMAP), 0);
    end_with_copy(ready_mirror(_i ? ",unmap=off" : ",unmap=on"));
    flags = mem_disk(target)->last[MEM_ZERO].flags;
    ck_assert_uint_gt(mem_disk(target)->count[MEM_ZERO], 0);
    ck_assert_int_eq(!!(flags & BDRV_REQ_MAY_UNMAP), !_i);
    job_expect(target, 0, DISK, 0);
    no_disks();
}
END_TEST

START_TEST(the_storage_copies_itself_unless_that_is_not_wanted)
{
    g_autofree char *text = g_strdup_printf(
        "device=source,target=target,sync=full,use-copy-range=%s",
        _i ? "on" : "off");
    unsigned reads;

    large_disks("copymem");
    reads = mem_disk(source)->count[MEM_READ];
    job_end_ok(job_ok(BLOCK_JOB_BACKUP, text));
    ck_assert_int_eq(mem_disk(source)->count[MEM_READ] == reads, _i);
    job_expect(target, 0, LARGE, 'a');
    no_disks();
}
END_TEST

/* What a job copies, and what guests do. */
START_TEST(a_compressed_backup_takes_less_room)
{
    BlockDriverState *image;
    BlockJob *job;
    int64_t length;

    disks();
    bdrv_unref(target);
    target = open_ok("mem,node-name=m,size=64k,grow=on");
    ck_assert_int_eq(bdrv_create(graph, opts("qcow2,file=m,size=512k"), NULL),
                     0);
    image = open_ok("qcow2,node-name=target,file=m");
    length = bdrv_length(target);
    job = job_ok(BLOCK_JOB_BACKUP, "job-id=j,device=source,target=target,"
                 "sync=none,compress=on");
    job_fill(guest, 0, CLUSTER, 'n');
    ck_assert_int_eq(block_job_cancel(job, false, NULL), 0);
    job_end_fails(job, ECANCELED, "cancelled");
    job_expect(image, 0, CLUSTER, 'a');
    job_end_ok(job_ok(BLOCK_JOB_BACKUP, "device=source,target=target,"
                      "sync=full,compress=on"));
    job_expect(image, 0, CLUSTER, 'n');
    job_expect(image, CLUSTER, DISK - CLUSTER, 'a');
    bdrv_unref(image);
    ck_assert_int_lt(bdrv_length(target), length + 4 * CLUSTER);
    no_disks();
}
END_TEST

static void add_tests(TCase *tcase)
{
    mem_register_copying();
    mem_register_clustered();
    PROMISE(tcase, so_many_copies_of_a_backup_at_once);
    tcase_add_loop_test(tcase, so_many_copies_of_a_mirror_at_once, 0, 4);
    PROMISE(tcase, so_many_copies_of_a_stream_at_once);
    tcase_add_loop_test(tcase, so_many_copies_of_a_commit_at_once, 0, 2);
    tcase_add_loop_test(
        tcase, zeroes_in_the_target_are_holes_unless_that_is_not_wanted, 0, 2);
    tcase_add_loop_test(
        tcase, the_storage_copies_itself_unless_that_is_not_wanted, 0, 2);
    PROMISE(tcase, a_compressed_backup_takes_less_room);
}

int main(void)
{
    return job_main("job-options", add_tests);
}
