/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The backup job: what is copied, and what becomes of errors and verbs.
 */
#include "job-fixture.h"

#include "faulty-fixture.h"

#include <blockgraph/copy-before-write.h>
#include <blockgraph/dirty-bitmap.h>

#define CLUSTER (64 << 10)
#define DISK (8 * CLUSTER)

static BlockDriverState *source, *target;
static BlockBackend *guest;

/* A disk of 'a', with a guest on it, and another one for its copy. */
static void disks(void)
{
    source = open_ok("mem,node-name=source,size=512k,discard=unmap");
    target = open_ok("mem,node-name=target,size=512k,discard=unmap");
    guest = backend_ok("guest", source, BLK_PERM_CONSISTENT_READ |
                       BLK_PERM_WRITE, BLK_PERM_ALL);
    job_fill(guest, 0, DISK, 'a');
}

static void no_disks(void)
{
    blk_unref(guest);
    bdrv_unref(target);
    bdrv_unref(source);
}

START_TEST(a_full_backup_is_the_disk)
{
    disks();
    job_end_ok(job_ok(BLOCK_JOB_BACKUP,
                      "device=source,target=target,sync=full"));
    job_expect(target, 0, DISK, 'a');
    ck_assert_str_eq(job_events->str, "created running waiting pending "
                     "COMPLETED concluded null ");
    ck_assert_ptr_null(block_job_next(graph, NULL));
    ck_assert_uint_eq(block_graph_nr_nodes(graph), 2);
    no_disks();
}
END_TEST

static int coroutine_fn co_backup_entry(void *opaque)
{
    BlockOptions *options = block_options_parse_keyval(
        "device=source,target=target,sync=full", NULL, NULL);
    BlockJob *job = block_co_job_start(graph, BLOCK_JOB_BACKUP, options, NULL);
    int ret = block_co_job_wait(job, NULL);

    block_job_unref(job);
    return ret;
}

START_TEST(a_coroutine_may_start_a_job_and_wait_for_it)
{
    disks();
    ck_assert_int_eq(aio_co_run(block_graph_aio_context(graph),
                                co_backup_entry, NULL), 0);
    job_expect(target, 0, DISK, 'a');
    no_disks();
}
END_TEST

START_TEST(the_options_of_a_job_have_a_help_text)
{
    g_autofree char *help =
        block_options_help(block_job_options(BLOCK_JOB_BACKUP));

    ck_assert_ptr_nonnull(strstr(help, "on-source-error"));
}
END_TEST

/* --- points in time ------------------------------------------------------- */

static void hold(BlockDriverState *disk, MemOp op, bool on)
{
    mem_disk(disk)->hold[op] = on;
}

/* A backup whose writes to the target wait. */
static BlockJob *held_backup(const char *more)
{
    g_autofree char *text =
        g_strdup_printf("job-id=j,device=source,target=target,sync=full%s",
                        more);
    BlockJob *job;

    hold(target, MEM_WRITE, true);
    job = job_ok(BLOCK_JOB_BACKUP, text);
    job_settle();
    return job;
}

static void let_go(void)
{
    hold(target, MEM_WRITE, false);
    job_settle();
}

typedef struct Flying {
    BlockIOVec1 iov;
    uint8_t buf[CLUSTER];
    bool ended;
    int ret;
} Flying;

static void flying_ended(void *opaque, int ret)
{
    Flying *f = opaque;

    f->ended = true;
    f->ret = ret;
}

/* A guest's write that nobody waits for. */
static void fly(Flying *f, int64_t offset, uint8_t byte)
{
    f->ended = false;
    memset(f->buf, byte, CLUSTER);
    blk_aio_pwritev(guest, offset, block_iov_buf(&f->iov, f->buf, CLUSTER), 0,
                    flying_ended, f);
    job_settle();
}

START_TEST(what_guests_write_meanwhile_is_not_in_the_backup)
{
    Flying first, second;
    BlockJob *job;

    disks();
    job = held_backup(",max-workers=1,max-chunk=64k");
    fly(&first, 0, 'n');
    fly(&second, 5 * CLUSTER, 'n');
    ck_assert(!first.ended && !second.ended);
    let_go();
    job_end_ok(job);
    ck_assert(first.ended && first.ret == 0);
    ck_assert(second.ended && second.ret == 0);
    job_expect(target, 0, DISK, 'a');
    job_expect(source, 0, CLUSTER, 'n');
    job_expect(source, 5 * CLUSTER, CLUSTER, 'n');
    no_disks();
}
END_TEST

START_TEST(sync_top_copies_the_nodes_own_layer)
{
    BlockDriverState *base = open_ok("mem,node-name=base,size=512k");

    source = open_ok("mem,node-name=source,size=512k,backing=base");
    target = open_ok("mem,node-name=target,size=512k");
    guest = backend_ok("guest", source, BLK_PERM_CONSISTENT_READ |
                       BLK_PERM_WRITE, BLK_PERM_ALL);
    job_fill(guest, 2 * CLUSTER, CLUSTER, 'n');
    memset(mem_disk(target)->data, 'x', DISK);
    job_end_ok(job_ok(BLOCK_JOB_BACKUP, "device=source,target=target,"
                      "sync=top"));
    job_expect(target, 0, 2 * CLUSTER, 'x');
    job_expect(target, 2 * CLUSTER, CLUSTER, 'n');
    job_expect(target, 3 * CLUSTER, 5 * CLUSTER, 'x');
    no_disks();
    bdrv_unref(base);
}
END_TEST

START_TEST(sync_none_holds_the_point_in_time_until_cancelled)
{
    BlockJob *job;

    disks();
    job = job_ok(BLOCK_JOB_BACKUP, "device=source,target=target,sync=none");
    job_fill(guest, CLUSTER, 512, 'n');
    job_reach(job, BLOCK_JOB_RUNNING);
    job_expect(target, CLUSTER, CLUSTER, 'a');
    job_expect(target, 0, CLUSTER, 0);
    ck_assert_int_eq(block_job_cancel(job, false, NULL), 0);
    job_end_fails(job, ECANCELED, "cancelled");
    ck_assert_uint_eq(block_graph_nr_nodes(graph), 2);
    job_fill(guest, 2 * CLUSTER, 512, 'n');
    job_expect(target, 2 * CLUSTER, CLUSTER, 0);
    no_disks();
}
END_TEST

START_TEST(sync_none_fails_when_the_point_in_time_is_lost)
{
    BlockJob *job;

    disks();
    job = job_ok(BLOCK_JOB_BACKUP, "job-id=j,device=source,target=target,"
                 "sync=none,on-cbw-error=break-snapshot");
    WITH_LOCK(&mem_disk(target)->lock) {
        mem_disk(target)->fail_forever[MEM_WRITE] = EIO;
    }
    job_fill(guest, CLUSTER, 512, 'n');
    job_end_fails(job, EIO, "lost before it was copied");
    no_disks();
}
END_TEST

/* R97 */
START_TEST(old_data_of_the_target_does_not_stay_in_holes)
{
    disks();
    ck_assert_int_eq(blk_pdiscard(guest, CLUSTER, 3 * CLUSTER), 0);
    ck_assert_int_eq(blk_pwrite_zeroes(guest, CLUSTER, 3 * CLUSTER,
                                       BDRV_REQ_MAY_UNMAP), 0);
    memset(mem_disk(target)->data, 'x', DISK);
    job_end_ok(job_ok(BLOCK_JOB_BACKUP,
                      "device=source,target=target,sync=full"));
    job_expect(target, 0, CLUSTER, 'a');
    job_expect(target, CLUSTER, 3 * CLUSTER, 0);
    job_expect(target, 4 * CLUSTER, 4 * CLUSTER, 'a');
    no_disks();
}
END_TEST

START_TEST(the_guests_write_after_the_backup_goes_past_the_target)
{
    disks();
    job_end_ok(job_ok(BLOCK_JOB_BACKUP,
                      "device=source,target=target,sync=full"));
    job_fill(guest, 0, DISK, 'n');
    job_expect(target, 0, DISK, 'a');
    no_disks();
}
END_TEST

START_TEST(a_disk_that_is_resized_meanwhile_is_backed_up_as_it_was)
{
    BlockTruncate how = { .offset = 4 * CLUSTER, .exact = true };
    BlockJob *job;

    disks();
    blk_unref(guest);
    guest = backend_ok("guest", source, BLK_PERM_CONSISTENT_READ |
                       BLK_PERM_WRITE | BLK_PERM_RESIZE, BLK_PERM_ALL);
    job = job_ok(BLOCK_JOB_BACKUP, "device=source,target=target,sync=full,"
                 "speed=64k,max-chunk=64k,max-workers=1");
    job_settle();
    how.offset = _i == 0 ? 4 * CLUSTER : 9 * CLUSTER;
    ck_assert_int_eq(blk_truncate(guest, &how, NULL), 0);
    ck_assert_int_eq(block_job_set_speed(job, 0, NULL), 0);
    job_end_ok(job);
    job_expect(target, 0, DISK, 'a');
    no_disks();
}
END_TEST

START_TEST(the_filter_has_the_name_that_was_asked_for)
{
    BlockJob *job;

    disks();
    job = held_backup(",filter-node-name=moment");
    ck_assert_ptr_nonnull(bdrv_find_node(graph, "moment"));
    let_go();
    job_end_ok(job);
    ck_assert_ptr_null(bdrv_find_node(graph, "moment"));
    no_disks();
}
END_TEST

START_TEST(what_was_copied_is_discarded_in_the_source_if_asked)
{
    BlockDriverState *temp, *cbw, *snapshot;

    disks();
    temp = open_ok("mem,node-name=temp,size=512k,discard=unmap");
    ck_assert_int_eq(bdrv_insert_node(source, opts("copy-before-write,"
                                                   "node-name=cbw,"
                                                   "target=temp"),
                                      &cbw, NULL), 0);
    snapshot = open_ok("snapshot-access,node-name=snapshot,file=cbw,"
                       "discard=unmap");
    job_fill(guest, 0, CLUSTER, 'n');
    job_end_ok(job_ok(BLOCK_JOB_BACKUP, "device=snapshot,target=target,"
                      "sync=full,discard-source=on"));
    job_expect(target, 0, DISK, 'a');
    ck_assert_uint_gt(mem_disk(temp)->count[MEM_DISCARD], 0);
    bdrv_unref(snapshot);
    ck_assert_int_eq(bdrv_drop_filter(cbw, NULL), 0);
    bdrv_unref(cbw);
    bdrv_unref(temp);
    no_disks();
}
END_TEST

/* --- verbs ---------------------------------------------------------------- */

START_TEST(a_paused_backup_copies_nothing)
{
    BlockJob *job;
    unsigned count;

    disks();
    job = job_ok(BLOCK_JOB_BACKUP, "job-id=j,device=source,target=target,"
                 "sync=full,max-chunk=64k,max-workers=1");
    ck_assert_int_eq(block_job_pause(job, NULL), 0);
    job_reach(job, BLOCK_JOB_PAUSED);
    count = mem_total(mem_disk(target));
    job_settle();
    ck_assert_uint_eq(mem_total(mem_disk(target)), count);
    ck_assert_int_eq(block_job_resume(job, NULL), 0);
    job_end_ok(job);
    job_expect(target, 0, DISK, 'a');
    no_disks();
}
END_TEST

START_TEST(a_backup_can_be_cancelled_at_any_turn_of_the_loop)
{
    bool ended = false;

    disks();
    for (int turns = 0; !ended; turns++) {
        BlockJob *job = job_ok(BLOCK_JOB_BACKUP, "job-id=j,device=source,"
                               "target=target,sync=full,max-chunk=64k,"
                               "max-workers=1");

        for (int i = 0; i < turns; i++) {
            aio_poll(block_graph_aio_context(graph), false);
        }
        ended = block_job_cancel(job, turns % 2, NULL) < 0;
        block_job_wait(job, NULL);
        block_job_unref(job);
        job_settle();
        ck_assert_ptr_null(block_job_next(graph, NULL));
        ck_assert_uint_eq(block_graph_nr_nodes(graph), 2);
        job_fill(guest, 0, 512, 'a');
    }
    job_expect(target, 0, DISK, 'a');
    no_disks();
}
END_TEST

/* R101 */
START_TEST(a_drained_section_waits_for_copies_and_holds_the_next)
{
    BlockJob *job;
    unsigned count;

    disks();
    job = job_ok(BLOCK_JOB_BACKUP, "job-id=j,device=source,target=target,"
                 "sync=full,max-chunk=64k,max-workers=1");
    for (int i = 0; i < _i; i++) {
        aio_poll(block_graph_aio_context(graph), false);
    }
    bdrv_drained_begin(source);
    count = mem_total(mem_disk(target));
    job_settle();
    ck_assert_uint_eq(mem_total(mem_disk(target)), count);
    bdrv_drained_end(source);
    job_end_ok(job);
    job_expect(target, 0, DISK, 'a');
    no_disks();
}
END_TEST

START_TEST(a_target_that_hangs_does_not_keep_a_backup_from_ending)
{
    BlockJob *job;
    Flying f;

    disks();
    job = held_backup("");
    fly(&f, 7 * CLUSTER, 'n');
    ck_assert_int_eq(block_job_cancel(job, true, NULL), 0);
    job_end_fails(job, ECANCELED, "cancelled");
    /* Its requests are still there, and so is the filter. */
    ck_assert_uint_eq(block_graph_nr_nodes(graph), 3);
    /* Nobody copies any more: what is not being copied can be written. */
    let_go();
    job_settle();
    ck_assert_uint_eq(block_graph_nr_nodes(graph), 2);
    ck_assert(f.ended && f.ret == 0);
    no_disks();
}
END_TEST

START_TEST(progress_reaches_its_total)
{
    BlockJobInfo info;
    BlockJob *job;

    disks();
    job = held_backup(",auto-dismiss=off,max-chunk=64k");
    block_job_query(job, &info);
    ck_assert_int_eq(info.current_progress, 0);
    ck_assert_int_eq(info.total_progress, DISK);
    let_go();
    ck_assert_int_eq(block_job_wait(job, NULL), 0);
    block_job_query(job, &info);
    ck_assert_int_eq(info.current_progress, DISK);
    ck_assert_int_eq(info.total_progress, DISK);
    ck_assert_int_eq(block_job_dismiss(job, NULL), 0);
    block_job_unref(job);
    no_disks();
}
END_TEST

/* R96 */
START_TEST(a_guest_may_write_at_any_turn_of_the_loop)
{
    bool ended = false;

    disks();
    for (int turns = 0; !ended; turns++) {
        BlockJobInfo info;
        BlockJob *job;

        job_fill(guest, 0, DISK, 'a');
        job = job_ok(BLOCK_JOB_BACKUP, "job-id=j,device=source,target=target,"
                     "sync=full,max-chunk=64k,max-workers=2");
        for (int i = 0; i < turns; i++) {
            aio_poll(block_graph_aio_context(graph), false);
        }
        block_job_query(job, &info);
        ended = info.status == BLOCK_JOB_NULL;
        job_fill(guest, turns % 8 * CLUSTER, CLUSTER, 'n');
        job_end_ok(job);
        job_expect(target, 0, DISK, 'a');
        job_expect(source, turns % 8 * CLUSTER, CLUSTER, 'n');
    }
    no_disks();
}
END_TEST

START_TEST(all_jobs_can_be_ended_at_any_turn_of_the_loop)
{
    bool ended = false;

    disks();
    for (int turns = 0; !ended; turns++) {
        BlockJob *job = job_ok(BLOCK_JOB_BACKUP, "job-id=j,device=source,"
                               "target=target,sync=full,max-chunk=64k,"
                               "max-workers=1,auto-dismiss=off");

        for (int i = 0; i < turns; i++) {
            aio_poll(block_graph_aio_context(graph), false);
        }
        block_job_cancel_all(graph);
        ck_assert_ptr_null(block_job_next(graph, NULL));
        ended = block_job_wait(job, NULL) == 0;
        block_job_unref(job);
        ck_assert_uint_eq(block_graph_nr_nodes(graph), 2);
    }
    no_disks();
}
END_TEST

START_TEST(nodes_of_a_job_cannot_be_deleted)
{
    GError *error = NULL;
    BlockJob *job;

    disks();
    job = job_ok(BLOCK_JOB_BACKUP, "job-id=j,device=source,target=target,"
                 "sync=full,filter-node-name=moment");
    ck_assert_int_eq(bdrv_delete(source, &error), -EBUSY);
    expect_error(&error, EBUSY, "moment");
    ck_assert_int_eq(bdrv_delete(target, &error), -EBUSY);
    expect_error(&error, EBUSY, "moment");
    ck_assert_int_lt(bdrv_drop_filter(bdrv_find_node(graph, "moment"), &error),
                     0);
    expect_error(&error, EBUSY, "frozen");
    job_end_ok(job);
    job_expect(target, 0, DISK, 'a');
    no_disks();
}
END_TEST

/* --- sizes ---------------------------------------------------------------- */

/* R89 */
START_TEST(a_backup_of_any_size_between_disks_of_any_limits)
{
    static const int64_t sizes[] = { 512, CLUSTER - 512, CLUSTER,
                                     3 * CLUSTER + 512, 20 * CLUSTER };
    static const char *const limits[] = { "512", "4k", "64k", "2M" };
    int64_t size = sizes[_i / 16];
    const char *from = limits[_i / 4 % 4], *to = limits[_i % 4];
    g_autofree char *source_text = g_strdup_printf(
        "mem,node-name=source,size=%" G_GINT64_FORMAT ",max-transfer=%s",
        size, from);
    g_autofree char *target_text = g_strdup_printf(
        "mem,node-name=target,size=%" G_GINT64_FORMAT ",max-transfer=%s",
        size, to);

    source = open_ok(source_text);
    target = open_ok(target_text);
    guest = backend_ok("guest", source, BLK_PERM_CONSISTENT_READ |
                       BLK_PERM_WRITE, BLK_PERM_ALL);
    job_fill(guest, 0, size, 'a');
    job_end_ok(job_ok(BLOCK_JOB_BACKUP,
                      "device=source,target=target,sync=full"));
    job_expect(target, 0, size, 'a');
    no_disks();
}
END_TEST

/* --- errors --------------------------------------------------------------- */

/* Resume a job that an error has stopped, if one has. */
static void resume_if_stopped(BlockJob *job)
{
    BlockJobInfo info = { 0 };

    while (info.status != BLOCK_JOB_NULL && !info.user_paused) {
        aio_poll(block_graph_aio_context(graph), true);
        block_job_query(job, &info);
    }
    if (info.user_paused) {
        job_reach(job, BLOCK_JOB_PAUSED);
        block_job_query(job, &info);
        ck_assert_int_eq(info.io_status, BLOCK_JOB_IO_FAILED);
        ck_assert_int_eq(block_job_resume(job, NULL), 0);
    }
}

/* The n-th request fails, once: the backup ends as the policy says. */
static void fail_nth(unsigned kinds, unsigned n, const char *policy)
{
    bool read = kinds == FAULTY_READS;
    g_autofree char *text = g_strdup_printf(
        "job-id=j,device=%s,target=%s,sync=full,on-%s-error=%s,"
        "max-chunk=64k,max-workers=2", read ? "fsource" : "source",
        read ? "target" : "ftarget", read ? "source" : "target", policy);
    BlockJob *job;

    faulty_set(kinds, n, 1);
    job = job_ok(BLOCK_JOB_BACKUP, text);
    if (g_str_equal(policy, "stop")) {
        resume_if_stopped(job);
    }
    block_job_wait(block_job_ref(job), NULL);
    if (faulty_has_failed() && g_str_equal(policy, "report")) {
        job_end_fails(job, EIO, read ? "could not read node"
                                     : "could not write to");
    } else {
        job_end_ok(job);
        job_expect(target, 0, DISK, 'a');
    }
    block_job_unref(job);
}

static const char *const policies[] = { "report", "ignore", "stop" };

START_TEST(an_error_at_any_request_is_treated_as_the_policy_says)
{
    static const unsigned kinds[] = { FAULTY_READS, FAULTY_WRITES,
                                      FAULTY_FLUSHES };
    const char *policy = policies[_i % 3];
    bool failed = true;

    for (unsigned n = 1; failed; n++) {
        BlockDriverState *fsource, *ftarget;

        disks();
        blk_remove_bs(guest); /* it would write past "fsource" */
        fsource = open_ok("faulty,node-name=fsource,file=source");
        ftarget = open_ok("faulty,node-name=ftarget,file=target");
        fail_nth(kinds[_i / 3], n, policy);
        failed = faulty_has_failed();
        faulty_clear();
        bdrv_unref(ftarget);
        bdrv_unref(fsource);
        ck_assert_uint_eq(block_graph_nr_nodes(graph), 2);
        no_disks();
        ck_assert_uint_lt(n, 40);
    }
}
END_TEST

START_TEST(a_full_target_stops_the_backup_if_asked)
{
    BlockJobInfo info;
    BlockJob *job;

    disks();
    WITH_LOCK(&mem_disk(target)->lock) {
        mem_disk(target)->fail_forever[MEM_WRITE] = ENOSPC;
    }
    job = job_ok(BLOCK_JOB_BACKUP, "job-id=j,device=source,target=target,"
                 "sync=full,on-target-error=enospc");
    job_reach(job, BLOCK_JOB_PAUSED);
    block_job_query(job, &info);
    ck_assert_int_eq(info.io_status, BLOCK_JOB_IO_NOSPACE);
    ck_assert_ptr_nonnull(strstr(job_events->str, "ERROR"));
    WITH_LOCK(&mem_disk(target)->lock) {
        mem_disk(target)->fail_forever[MEM_WRITE] = 0;
    }
    ck_assert_int_eq(block_job_resume(job, NULL), 0);
    job_end_ok(job);
    job_expect(target, 0, DISK, 'a');
    no_disks();
}
END_TEST

START_TEST(areas_that_a_guests_copy_failed_on_are_copied_again)
{
    BlockJob *job;
    Flying f;

    disks();
    job = job_ok(BLOCK_JOB_BACKUP, "job-id=j,device=source,target=target,"
                 "sync=full");
    ck_assert_int_eq(block_job_pause(job, NULL), 0);
    job_reach(job, BLOCK_JOB_PAUSED);
    WITH_LOCK(&mem_disk(target)->lock) {
        mem_disk(target)->fail[MEM_WRITE] = EIO;
    }
    fly(&f, 7 * CLUSTER, 'n');
    ck_assert(f.ended);
    ck_assert_int_eq(block_job_resume(job, NULL), 0);
    job_end_ok(job);
    job_expect(target, 0, DISK, 'a');
    no_disks();
}
END_TEST

/* --- bad input ------------------------------------------------------------ */

#define BACKUP "job-id=j,device=source,target=target,sync=full"

/* R89, R90 */
START_TEST(bad_options_are_refused_and_change_nothing)
{
    BlockDriverState *small, *frozen;

    disks();
    small = open_ok("mem,node-name=small,size=448k");
    frozen = open_ok("mem,node-name=frozen,size=512k,read-only=on");
    job_fails(BLOCK_JOB_BACKUP, "device=source,target=target", EINVAL, "sync");
    job_fails(BLOCK_JOB_BACKUP, "target=target,sync=full", EINVAL, "device");
    job_fails(BLOCK_JOB_BACKUP, "device=source,target=nix,sync=full", 0,
              "no node 'nix'");
    job_fails(BLOCK_JOB_BACKUP, "device=nix,target=target,sync=full", 0,
              "no node 'nix'");
    job_fails(BLOCK_JOB_BACKUP, "device=source,target=source,sync=full",
              EINVAL, "to itself");
    job_fails(BLOCK_JOB_BACKUP, "device=source,target=small,sync=full",
              EINVAL, "must be the same");
    job_fails(BLOCK_JOB_BACKUP, "device=small,target=target,sync=full",
              EINVAL, "must be the same");
    job_fails(BLOCK_JOB_BACKUP, "device=source,target=frozen,sync=full", 0,
              "frozen");
    job_fails(BLOCK_JOB_BACKUP, "device=source,target=target,sync=most",
              EINVAL, "most");
    job_fails(BLOCK_JOB_BACKUP, BACKUP ",max-workers=0", EINVAL,
              "max-workers");
    job_fails(BLOCK_JOB_BACKUP, BACKUP ",max-workers=2147483648", EINVAL,
              "max-workers");
    job_fails(BLOCK_JOB_BACKUP, BACKUP ",max-chunk=32k", EINVAL, "max-chunk");
    job_fails(BLOCK_JOB_BACKUP, BACKUP ",max-chunk=-1", EINVAL, "max-chunk");
    job_fails(BLOCK_JOB_BACKUP, BACKUP ",min-cluster-size=3", EINVAL,
              "min-cluster-size");
    job_fails(BLOCK_JOB_BACKUP, BACKUP ",staging-size=1M", EINVAL,
              "break-snapshot");
    job_fails(BLOCK_JOB_BACKUP, BACKUP ",compress=on", ENOTSUP, "compressed");
    job_fails(BLOCK_JOB_BACKUP, BACKUP ",speeed=1", EINVAL, "speeed");
    job_fails(BLOCK_JOB_BACKUP, BACKUP ",filter-node-name=0x", EINVAL, "0x");
    job_fails(BLOCK_JOB_BACKUP, BACKUP ",filter-node-name=small", 0, "small");
    job_fails(BLOCK_JOB_BACKUP, BACKUP ",on-source-error=panic", EINVAL,
              "panic");
    bdrv_unref(frozen);
    bdrv_unref(small);
    no_disks();
}
END_TEST

START_TEST(nodes_that_another_job_uses_are_refused)
{
    BlockDriverState *other;
    GError *error = NULL;
    BlockJob *job;

    disks();
    other = open_ok("mem,node-name=other,size=512k");
    job = job_ok(BLOCK_JOB_BACKUP, BACKUP);
    ck_assert_int_eq(block_job_pause(job, NULL), 0);
    job_reach(job, BLOCK_JOB_PAUSED);
    ck_assert_ptr_null(block_job_start(
        graph, BLOCK_JOB_BACKUP,
        block_options_parse_keyval("job-id=k,device=source,target=other,"
                                   "sync=full", NULL, NULL), &error));
    expect_error(&error, EBUSY, "source");
    ck_assert_ptr_null(block_job_start(
        graph, BLOCK_JOB_BACKUP,
        block_options_parse_keyval("job-id=k,device=other,target=target,"
                                   "sync=full", NULL, NULL), &error));
    expect_error(&error, 0, "target");
    ck_assert_int_eq(block_job_resume(job, NULL), 0);
    job_end_ok(job);
    bdrv_unref(other);
    no_disks();
}
END_TEST

START_TEST(the_lengths_are_the_same_when_nobody_can_change_them_any_more)
{
    disks();
    job_finds_length(BLOCK_JOB_BACKUP, BACKUP, _i ? target : source);
    no_disks();
}
END_TEST

START_TEST(a_writer_of_the_target_is_refused)
{
    disks();
    job_finds_writer(BLOCK_JOB_BACKUP, BACKUP, target);
    no_disks();
}
END_TEST

START_TEST(a_writer_of_the_source_past_the_filter_is_refused)
{
    const BlockPerm perm = {
        .used = _i ? BLK_PERM_RESIZE : BLK_PERM_WRITE,
        .shared = BLK_PERM_ALL,
    };
    BlockBackend *other = blk_new(graph, "other", &perm);
    g_autoptr(GError) error = NULL;
    BlockJob *job;

    disks();
    blk_remove_bs(guest); /* nobody has written it so far */
    job = job_ok(BLOCK_JOB_BACKUP, "device=source,target=target,sync=full,"
                 "auto-finalize=off,filter-node-name=cbw");
    ck_assert_int_lt(blk_insert_bs(other, source, &error), 0);
    expect_error(&error, 0, _i ? "resize" : "write");
    ck_assert_int_eq(blk_insert_bs(other, bdrv_find_node(graph, "cbw"), NULL),
                     0);
    job_reach(job, BLOCK_JOB_PENDING);
    ck_assert_int_eq(block_job_finalize(job, NULL), 0);
    job_end_ok(job);
    ck_assert_ptr_eq(blk_bs(other), source);
    blk_remove_bs(other);
    ck_assert_int_eq(blk_insert_bs(other, source, NULL), 0);
    blk_unref(other);
    no_disks();
}
END_TEST

/* Another backup, above, holds its edge to the filter of the first. */
START_TEST(a_backup_that_waits_for_who_is_above_it_can_be_cancelled)
{
    BlockDriverState *other;
    BlockJob *job, *above;

    disks();
    other = open_ok("mem,node-name=other,size=512k");
    job = job_ok(BLOCK_JOB_BACKUP, "device=source,target=target,sync=full,"
                 "auto-finalize=off,filter-node-name=cbw");
    above = job_ok(BLOCK_JOB_BACKUP, "job-id=above,device=cbw,target=other,"
                   "sync=none");
    job_reach(job, BLOCK_JOB_PENDING);
    ck_assert_int_eq(block_job_finalize(job, NULL), 0);
    ck_assert(!job_turns(job, 5));
    job_fill(guest, 0, CLUSTER, 'b');
    if (_i) {
        ck_assert_int_eq(block_job_cancel(job, true, NULL), 0);
        job_end_fails(job, ECANCELED, "cancelled");
    }
    ck_assert_int_eq(block_job_cancel(above, true, NULL), 0);
    job_end_fails(above, ECANCELED, "cancelled");
    if (!_i) {
        job_end_ok(job);
        job_expect(target, 0, DISK, 'a');
    }
    while (block_graph_nr_nodes(graph) > 3) {
        aio_poll(block_graph_aio_context(graph), true);
    }
    ck_assert_ptr_eq(blk_bs(guest), source);
    bdrv_unref(other);
    no_disks();
}
END_TEST

static void add_tests(TCase *tcase)
{
    tcase_add_loop_test(
        tcase, a_writer_of_the_source_past_the_filter_is_refused, 0, 2);
    tcase_add_loop_test(
        tcase, a_backup_that_waits_for_who_is_above_it_can_be_cancelled, 0, 2);
    PROMISE(tcase, a_full_backup_is_the_disk);
    PROMISE(tcase, a_coroutine_may_start_a_job_and_wait_for_it);
    PROMISE(tcase, the_options_of_a_job_have_a_help_text);
    PROMISE(tcase, what_guests_write_meanwhile_is_not_in_the_backup);
    PROMISE(tcase, sync_top_copies_the_nodes_own_layer);
    PROMISE(tcase, sync_none_holds_the_point_in_time_until_cancelled);
    PROMISE(tcase, sync_none_fails_when_the_point_in_time_is_lost);
    PROMISE(tcase, old_data_of_the_target_does_not_stay_in_holes);
    PROMISE(tcase, the_guests_write_after_the_backup_goes_past_the_target);
    tcase_add_loop_test(
        tcase, a_disk_that_is_resized_meanwhile_is_backed_up_as_it_was, 0, 2);
    PROMISE(tcase, the_filter_has_the_name_that_was_asked_for);
    PROMISE(tcase, what_was_copied_is_discarded_in_the_source_if_asked);
    PROMISE(tcase, a_paused_backup_copies_nothing);
    PROMISE(tcase, a_backup_can_be_cancelled_at_any_turn_of_the_loop);
    tcase_add_loop_test(
        tcase, a_drained_section_waits_for_copies_and_holds_the_next, 0, 30);
    PROMISE(tcase, a_guest_may_write_at_any_turn_of_the_loop);
    PROMISE(tcase, all_jobs_can_be_ended_at_any_turn_of_the_loop);
    PROMISE(tcase, nodes_of_a_job_cannot_be_deleted);
    tcase_add_loop_test(
        tcase, a_backup_of_any_size_between_disks_of_any_limits, 0, 80);
    PROMISE(tcase, a_target_that_hangs_does_not_keep_a_backup_from_ending);
    PROMISE(tcase, progress_reaches_its_total);
    tcase_add_loop_test(
        tcase, an_error_at_any_request_is_treated_as_the_policy_says, 0, 9);
    PROMISE(tcase, a_full_target_stops_the_backup_if_asked);
    PROMISE(tcase, areas_that_a_guests_copy_failed_on_are_copied_again);
    PROMISE(tcase, bad_options_are_refused_and_change_nothing);
    PROMISE(tcase, nodes_that_another_job_uses_are_refused);
    tcase_add_loop_test(
        tcase, the_lengths_are_the_same_when_nobody_can_change_them_any_more,
        0, 2);
    PROMISE(tcase, a_writer_of_the_target_is_refused);
}

int main(void)
{
    register_faulty_driver();
    return job_main("backup", add_tests);
}
