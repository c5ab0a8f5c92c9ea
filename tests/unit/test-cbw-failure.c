/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * copy-before-write: write-behind, failures, bad input.
 */
#include "cbw-fixture.h"

#include <blockgraph/copy-before-write.h>

#include "block/copy/copy-int.h"
#include "block/filters/copy-before-write.h"

/* --- write-behind --------------------------------------------------------- */

#define STAGED ",on-cbw-error=break-snapshot,staging-size=128k"

START_TEST(a_guest_does_not_wait_for_the_target)
{
    cbw_start(STAGED);
    hold(target, MEM_WRITE, true);
    guest_write(0, 4096, 'X');
    guest_write(CLUSTER, 4096, 'Y');
    guest_write(4096, 4096, 'Z'); /* staged already */
    expect_snapshot(0, DISK);     /* from memory: the target has nothing */
    hold(target, MEM_WRITE, false);
    settle();
    ck_assert_uint_gt(mem_disk(target)->count[MEM_WRITE], 0);
    expect_snapshot(0, DISK);
    cbw_stop();
}
END_TEST

START_TEST(a_full_memory_makes_guests_wait)
{
    Flying third;

    cbw_start(STAGED);
    hold(target, MEM_WRITE, true);
    guest_write(0, 4096, 'X');
    guest_write(CLUSTER, 4096, 'Y');
    fly(&third, guest, 'w', 2 * CLUSTER, 4096, 'Z');
    settle();
    ck_assert(!third.ended);
    hold(target, MEM_WRITE, false);
    land(&third);
    expect_snapshot(0, DISK);
    cbw_stop();
}
END_TEST

START_TEST(a_large_write_takes_no_more_than_the_memory)
{
    Flying write;

    cbw_start(",on-cbw-error=break-snapshot,staging-size=64k");
    hold(target, MEM_WRITE, true);
    fly(&write, guest, 'w', 0, 2 * CLUSTER, 'X');
    settle();
    ck_assert(!write.ended);
    hold(target, MEM_WRITE, false);
    land(&write);
    ck_assert_int_eq(write.ret, 0);
    expect_snapshot(0, DISK);
    cbw_stop();
}
END_TEST

START_TEST(a_drain_waits_for_what_is_staged)
{
    cbw_start(STAGED);
    hold(target, MEM_WRITE, true);
    guest_write(0, 4096, 'X');
    aio_bh_schedule_oneshot(block_graph_aio_context(graph), release_writes,
                            target);
    bdrv_drained_begin(cbw);
    ck_assert_uint_gt(mem_disk(target)->count[MEM_WRITE], 0);
    ck_assert_uint_eq(mem_disk(target)->held, 0);
    bdrv_drained_end(cbw);
    expect_snapshot(0, DISK);
    cbw_stop();
}
END_TEST

START_TEST(a_staged_copy_that_fails_breaks_the_snapshot)
{
    cbw_start(STAGED);
    fail_next(target, MEM_WRITE, EIO);
    guest_write(0, 4096, 'X');
    settle();
    ck_assert_int_eq(bdrv_cbw_snapshot_error(cbw), -EIO);
    ck_assert_int_eq(read_status(0, 4096), -EACCES);
    ck_assert_int_eq(read_status(4 * CLUSTER, 4096), -EACCES);
    guest_write(CLUSTER, 4096, 'Y');
    cbw_stop();
}
END_TEST

/* --- clusters that are staged in part ------------------------------------- */

/* A guest has changed [8192, +4096); the rest is being read, and waits. */
static void stage_in_part(void)
{
    Flying write;

    cbw_start(STAGED);
    hold(target, MEM_WRITE, true);
    catch_read();
    fly(&write, guest, 'w', 8192, 4096, 'X');
    settle();
    ck_assert_int_eq(mem_disk(source)->last[MEM_READ].offset, 8192);
    ck_assert_int_eq(mem_disk(source)->last[MEM_READ].bytes, 4096);
    catch_read();
    release_read();
    land(&write);
    settle();
    ck_assert(mem_disk(source)->caught);
}

START_TEST(with_write_behind_a_guest_waits_only_for_what_it_changes)
{
    stage_in_part();
    expect_byte(guest, 8192, 4096, 'X');
    expect_snapshot(0, DISK);
    release_read();
    settle();
    expect_snapshot(0, DISK);
    hold(target, MEM_WRITE, false);
    settle();
    expect_snapshot(0, DISK);
    cbw_stop();
}
END_TEST

START_TEST(a_guest_that_changes_more_of_a_cluster_waits_for_its_old_content)
{
    Flying behind;

    stage_in_part();
    guest_write(8192 + 512, 1024, 'Y'); /* that is in memory */
    fly(&behind, guest, 'w', 20480, 4096, 'Z');
    settle();
    ck_assert(!behind.ended);
    release_read();
    land(&behind);
    expect_snapshot(0, DISK);
    hold(target, MEM_WRITE, false);
    settle();
    expect_snapshot(0, DISK);
    expect_byte(guest, 20480, 4096, 'Z');
    cbw_stop();
}
END_TEST

/* As many staged clusters as write to the target at a time; it takes none. */
static void keep_all_writers_busy(void)
{
    cbw_start(",on-cbw-error=break-snapshot,staging-size=1M");
    hold(target, MEM_WRITE, true);
    for (int i = 0; i < 8; i++) {
        guest_write(i * CLUSTER, 512, 'X');
    }
    settle();
}

static unsigned source_reads(void)
{
    return mem_disk(source)->count[MEM_READ];
}

START_TEST(what_is_in_memory_is_read_once)
{
    unsigned before;

    keep_all_writers_busy();
    before = source_reads();
    guest_write(DISK, 4096, 'X');
    guest_write(DISK, 4096, 'Y');
    guest_write(DISK + 512, 512, 'Y');
    ck_assert_uint_eq(source_reads(), before + 1);
    guest_write(DISK + 12288, 512, 'Z');
    ck_assert_uint_eq(source_reads(), before + 2);
    ck_assert_int_eq(mem_disk(source)->last[MEM_READ].bytes, 4096);
    guest_write(DISK, CLUSTER, 'W'); /* what lies between and behind */
    ck_assert_uint_eq(source_reads(), before + 4);
    expect_byte(reader, DISK, CLUSTER, 0);
    guest_write(DISK + 4096, 512, 'V');
    ck_assert_uint_eq(source_reads(), before + 4);
    hold(target, MEM_WRITE, false);
    settle();
    ck_assert_uint_eq(source_reads(), before + 4);
    expect_byte(reader, DISK, CLUSTER, 0);
    expect_snapshot(0, DISK);
    cbw_stop();
}
END_TEST

START_TEST(a_cluster_in_part_is_read_from_memory_and_source)
{
    keep_all_writers_busy();
    guest_write(DISK + 4096, 8192, 'X');
    expect_byte(reader, DISK, CLUSTER, 0);
    expect_byte(reader, DISK + 4096 + 512, 512, 0);
    expect_byte(reader, DISK + 8192, 8192, 0);
    hold(target, MEM_WRITE, false);
    settle();
    expect_byte(reader, DISK, CLUSTER, 0);
    expect_byte(guest, DISK + 4096, 8192, 'X');
    cbw_stop();
}
END_TEST

/* A reader of the source is not run over, in whatever part of the cluster. */
START_TEST(a_guest_waits_for_the_reader_of_a_cluster_that_is_staged_in_part)
{
    Flying read, write;

    keep_all_writers_busy();
    guest_write(DISK, 4096, 'X');
    catch_read();
    fly(&read, reader, 'r', DISK + 4096, 4096, 0);
    settle();
    fly(&write, guest, 'w', DISK + 4096, 512, 'Y');
    settle();
    ck_assert(!read.ended && !write.ended);
    release_read();
    land(&read);
    ck_assert(read.ret == 0 && read.buf[0] == 0);
    land(&write);
    hold(target, MEM_WRITE, false);
    settle();
    expect_byte(reader, DISK, CLUSTER, 0);
    cbw_stop();
}
END_TEST

/* Or readers that come one after the other would keep it for ever. */
START_TEST(a_guest_does_not_wait_for_readers_of_what_it_does_not_change)
{
    Flying read;

    if (_i == 0) {
        keep_all_writers_busy();
        guest_write(DISK, 4096, 'X');
    } else {
        cbw_start("");
    }
    catch_read();
    fly(&read, reader, 'r', DISK + 8192, 4096, 0);
    settle();
    guest_write(DISK + 4096, 4096, 'Y');
    guest_write(DISK + 12288, 512, 'Z');
    ck_assert(!read.ended);
    release_read();
    land(&read);
    ck_assert(read.ret == 0 && read.buf[0] == 0);
    hold(target, MEM_WRITE, false);
    settle();
    expect_byte(reader, DISK, CLUSTER, 0);
    cbw_stop();
}
END_TEST

START_TEST(a_rest_that_cannot_be_read_breaks_the_snapshot)
{
    uint8_t buf[512] = { 'Y' };

    keep_all_writers_busy();
    guest_write(DISK, 4096, 'X');
    fail_next(source, MEM_READ, EIO);
    if (_i) {
        ck_assert_int_eq(blk_pwrite(guest, DISK + 8192, 512, buf, 0), 0);
    } else {
        hold(target, MEM_WRITE, false);
        settle();
    }
    ck_assert_int_eq(bdrv_cbw_snapshot_error(cbw), -EIO);
    ck_assert_int_eq(read_status(DISK, 4096), -EACCES);
    ck_assert_int_eq(read_status(DISK + 8192, 4096), -EACCES);
    hold(target, MEM_WRITE, false);
    settle();
    guest_write(DISK + 4096, 4096, 'Z');
    cbw_stop();
}
END_TEST

/* What a writer does with the next task, step by step. */
static CopyTask *next_task(BlockCopyState *copy)
{
    CopyTask *task = LIST_ENTRY(copy->staged_queue.next, CopyTask, link);

    list_remove(&task->link);
    return task;
}

static int coroutine_fn complete_entry(void *opaque)
{
    return copy_part_complete(opaque);
}

static void end_task(BlockCopyState *copy, CopyTask *task, int ret)
{
    BlockCopyStaged *staged = task->staged;

    block_copy_break(copy, ret);
    copy->config.staged_failed(copy->config.opaque, ret);
    copy_task_end(task, ret);
    atomic_fetch_sub(&copy->nr_staged, 1);
    block_copy_staged_unref(staged);
}

/* A guest of another thread may come before the writer ends the task. */
START_TEST(a_task_whose_rest_could_not_be_read_is_nobody_elses)
{
    BlockCopyState *copy;
    unsigned reads;
    CopyTask *task;
    Flying f;

    keep_all_writers_busy();
    copy = cbw_block_copy(cbw);
    guest_write(DISK, 4096, 'X');
    task = next_task(copy);
    fail_next(source, MEM_READ, EIO);
    ck_assert_int_eq(aio_co_run(block_graph_aio_context(graph),
                                complete_entry, task), -EIO);
    reads = source_reads();
    fly(&f, guest, 'w', DISK + 8192, 512, 'Y');
    settle();
    ck_assert_uint_eq(source_reads(), reads);
    ck_assert(!f.ended);
    end_task(copy, task, -EIO);
    land(&f);
    ck_assert_int_eq(f.ret, 0);
    hold(target, MEM_WRITE, false);
    settle();
    cbw_stop();
}
END_TEST

/* --- failure -------------------------------------------------------------- */

START_TEST(break_guest_write_keeps_the_snapshot)
{
    uint8_t buf[512] = { 'X' };

    cbw_start("");
    fail_next(_i ? source : target, _i ? MEM_READ : MEM_WRITE, ENOSPC);
    ck_assert_int_eq(blk_pwrite(guest, 0, 512, buf, 0), -ENOSPC);
    ck_assert_int_eq(bdrv_cbw_snapshot_error(cbw), 0);
    expect_snapshot(0, DISK);
    guest_write(0, 512, 'Y'); /* tried again */
    expect_snapshot(0, DISK);
    cbw_stop();
}
END_TEST

START_TEST(break_snapshot_never_fails_the_guest)
{
    cbw_start(",on-cbw-error=break-snapshot");
    fail_next(_i ? source : target, _i ? MEM_READ : MEM_WRITE, ENOSPC);
    guest_write(0, 512, 'Y');
    expect_byte(guest, 0, 512, 'Y');
    ck_assert_int_eq(bdrv_cbw_snapshot_error(cbw), -ENOSPC);
    ck_assert_int_eq(read_status(0, 512), -EACCES);
    ck_assert_int_eq(read_status(CLUSTER, 512), -EACCES);
    cbw_stop();
}
END_TEST

START_TEST(a_reader_in_the_middle_when_the_snapshot_breaks_gets_no_data)
{
    Flying read;

    BlockDriverState *side;

    cbw_start(",on-cbw-error=break-snapshot");
    side = _i ? source : target;
    guest_write(CLUSTER, 512, 'X');
    mem_disk(side)->catch_next[MEM_READ] = true;
    fly(&read, reader, 'r', _i ? 0 : CLUSTER, 4096, 0);
    settle();
    ck_assert(mem_disk(side)->caught);
    fail_next(target, MEM_WRITE, EIO);
    guest_write(0, 512, 'Y');
    mem_disk(side)->caught = false;
    land(&read);
    ck_assert_int_eq(read.ret, -EACCES);
    cbw_stop();
}
END_TEST

START_TEST(a_copy_that_takes_too_long_has_failed)
{
    bool breaks = _i;
    Flying write;

    cbw_start(breaks ? ",cbw-timeout=1,on-cbw-error=break-snapshot"
                     : ",cbw-timeout=1");
    hold(target, MEM_WRITE, true);
    fly(&write, guest, 'w', 0, 4096, 'X');
    land(&write);
    ck_assert_int_eq(write.ret, breaks ? 0 : -ETIMEDOUT);
    ck_assert_int_eq(bdrv_cbw_snapshot_error(cbw), breaks ? -ETIMEDOUT : 0);
    hold(target, MEM_WRITE, false);
    settle();
    if (breaks) {
        ck_assert_int_eq(read_status(0, 512), -EACCES);
    } else {
        guest_write(0, 4096, 'Y'); /* the copy has gone on meanwhile */
        expect_snapshot(0, DISK);
    }
    cbw_stop();
}
END_TEST

static void fail_from_now(BlockDriverState *disk, int err)
{
    WITH_LOCK(&mem_disk(disk)->lock) {
        mem_disk(disk)->fail_forever[MEM_WRITE] = err;
        mem_disk(disk)->fail_forever[MEM_ZERO] = err;
    }
}

typedef struct Full {
    const char *options;
    bool breaks;
} Full;

static const Full full[] = {
    { "", false },
    { ",on-cbw-error=break-snapshot", true },
    { ",on-cbw-error=break-snapshot,staging-size=128k", true },
};

/* Guests write from cluster @first on; the target takes no more. */
static void write_to_full(const Full *f, int first)
{
    for (int i = first; i < DISK / CLUSTER; i++) {
        uint8_t buf[512] = { 'X' };
        int ret = blk_pwrite(guest, i * CLUSTER, 512, buf, 0);

        ck_assert_int_eq(ret, f->breaks ? 0 : -ENOSPC);
        settle();
        ck_assert_int_eq(read_status(i * CLUSTER, 512),
                         f->breaks ? -EACCES : 0);
        expect_byte(guest, i * CLUSTER, 1, f->breaks ? 'X'
                                                     : old_byte(i * CLUSTER));
    }
}

START_TEST(a_target_that_is_full_fails_the_guest_or_the_snapshot_never_both)
{
    const Full *f = &full[_i % 3];
    int first = _i / 3; /* clusters that find place */

    cbw_start(f->options);
    for (int i = 0; i < first; i++) {
        guest_write(i * CLUSTER, 512, 'W');
    }
    settle();
    fail_from_now(target, ENOSPC);
    write_to_full(f, first);
    ck_assert_int_eq(bdrv_cbw_snapshot_error(cbw), f->breaks ? -ENOSPC : 0);
    fail_from_now(target, 0);
    if (!f->breaks) {
        guest_write(0, DISK, 'Y');
        expect_snapshot(0, DISK);
    }
    cbw_stop();
}
END_TEST

/* What guests do while a read of the source fails. */
static const struct GuestOp {
    char op; /* w, z, d */
    int64_t offset, bytes;
} guest_ops[] = {
    { 'w', 0, 512 },
    { 'w', CLUSTER + 512, 2 * CLUSTER },
    { 'z', 3 * CLUSTER, 2 * CLUSTER },
    { 'd', 5 * CLUSTER, CLUSTER },
    { 'w', 6 * CLUSTER, 2 * CLUSTER },
};

/* Do it; @model follows if it goes well. */
static int do_guest_op(const struct GuestOp *op, uint8_t *model)
{
    uint8_t byte = op->op == 'w' ? 'X' : 0;
    g_autofree uint8_t *buf = g_malloc(op->bytes);
    int ret;

    memset(buf, byte, op->bytes);
    if (op->op == 'w') {
        ret = blk_pwrite(guest, op->offset, op->bytes, buf, 0);
    } else if (op->op == 'z') {
        ret = blk_pwrite_zeroes(guest, op->offset, op->bytes, 0);
    } else {
        ret = blk_pdiscard(guest, op->offset, op->bytes);
    }
    if (ret == 0) {
        memset(model + op->offset, byte, op->bytes);
    }
    return ret;
}

static unsigned do_guest_ops(uint8_t *model)
{
    unsigned errors = 0;

    for (size_t i = 0; i < G_N_ELEMENTS(guest_ops); i++) {
        int ret = do_guest_op(&guest_ops[i], model);

        ck_assert(ret == 0 || ret == -EIO);
        errors += ret < 0;
        settle();
    }
    return errors;
}

static void expect_model(const uint8_t *model)
{
    g_autofree uint8_t *buf = g_malloc(DISK);

    ck_assert_int_eq(blk_pread(guest, 0, DISK, buf, 0), 0);
    ck_assert_int_eq(memcmp(buf, model, DISK), 0);
}

/* Whether there was such a read. */
static bool with_failing_read(const Full *f, unsigned n)
{
    g_autofree char *options = g_strdup_printf("%s,discard=unmap", f->options);
    g_autofree uint8_t *model = g_malloc(DISK);
    unsigned errors;
    bool failed = false;

    cbw_start(options);
    ck_assert_int_eq(blk_pread(guest, 0, DISK, model, 0), 0);
    WITH_LOCK(&mem_disk(source)->lock) {
        mem_disk(source)->pass[MEM_READ] = n - 1;
        mem_disk(source)->fail[MEM_READ] = EIO;
    }
    errors = do_guest_ops(model);
    WITH_LOCK(&mem_disk(source)->lock) {
        failed = mem_disk(source)->fail[MEM_READ] == 0;
        mem_disk(source)->pass[MEM_READ] = 0;
        mem_disk(source)->fail[MEM_READ] = 0;
    }
    ck_assert_uint_eq(errors, failed && !f->breaks);
    ck_assert_int_eq(bdrv_cbw_snapshot_error(cbw),
                     failed && f->breaks ? -EIO : 0);
    expect_model(model);
    if (failed && f->breaks) {
        ck_assert_int_eq(read_status(0, DISK), -EACCES);
    } else {
        expect_snapshot(0, DISK);
        ck_assert_uint_eq(do_guest_ops(model), 0); /* tried again */
        expect_snapshot(0, DISK);
    }
    cbw_stop();
    return failed;
}

START_TEST(whichever_read_of_the_source_fails_guest_or_snapshot_has_the_error)
{
    unsigned n = 1;

    while (with_failing_read(&full[_i], n)) {
        n++;
    }
    ck_assert_uint_ge(n, G_N_ELEMENTS(guest_ops)); /* each has had one */
}
END_TEST

START_TEST(the_filter_goes_when_the_copies_under_way_have_ended)
{
    uint8_t buf[512] = { 'X' };

    cbw_start(_i ? ",cbw-timeout=1"
                 : ",on-cbw-error=break-snapshot,staging-size=128k");
    hold(target, MEM_WRITE, true);
    ck_assert_int_eq(blk_pwrite(guest, 0, 512, buf, 0), _i ? -ETIMEDOUT : 0);
    settle();
    ck_assert_uint_eq(mem_disk(target)->held, 1);
    aio_bh_schedule_oneshot(block_graph_aio_context(graph), release_writes,
                            target);
    cbw_stop_early();
    ck_assert_uint_eq(mem_disk(target)->held, 0);
    cbw_close_disks();
}
END_TEST

START_TEST(a_filter_that_was_taken_out_keeps_no_point_in_time)
{
    BlockExtent extent;

    cbw_disks();
    cbw = open_ok("copy-before-write,node-name=cbw,file=source,"
                  "target=target");
    ck_assert_int_eq(bdrv_drop_filter(cbw, NULL), 0);
    snapshot = open_ok("snapshot-access,node-name=snapshot,file=cbw");
    reader = any_backend("reader", snapshot, false);
    ck_assert_int_eq(read_status(0, 512), -EACCES);
    ck_assert_int_eq(blk_block_status(reader, 0, DISK, &extent), 0);
    ck_assert_uint_eq(extent.status & (BDRV_BLOCK_DATA | BDRV_BLOCK_ZERO), 0);
    blk_unref(reader);
    bdrv_unref(snapshot);
    bdrv_unref(cbw);
    cbw_close_disks();
}
END_TEST

START_TEST(a_target_that_does_not_fit_is_refused)
{
    g_autoptr(GError) error = NULL;

    cbw_disks();
    bdrv_unref(target);
    target = open_ok("mem,node-name=target,size=64k");
    ck_assert_int_lt(bdrv_insert_node(source, opts("copy-before-write,"
                                                   "target=target"), &cbw,
                                      &error), 0);
    expect_error(&error, EINVAL, "less than");
    cbw_close_disks();
}
END_TEST

START_TEST(a_target_that_somebody_writes_is_refused)
{
    BlockBackend *other;
    g_autoptr(GError) error = NULL;

    cbw_disks();
    other = any_backend("other", target, true);
    ck_assert_int_eq(bdrv_insert_node(source, opts("copy-before-write,"
                                                   "target=target"), &cbw,
                                      &error), -EPERM);
    expect_error(&error, EPERM, "other"); /* who it is */
    blk_unref(other);
    cbw_close_disks();
}
END_TEST

START_TEST(a_source_of_another_length_than_at_open_is_refused)
{
    BlockTruncate how = { .offset = DISK / 2, .exact = true };
    g_autoptr(GError) error = NULL;

    cbw_disks();
    cbw = open_ok("copy-before-write,node-name=cbw,file=source,"
                  "target=target");
    ck_assert_int_eq(blk_truncate(guest, &how, NULL), 0);
    ck_assert_int_lt(bdrv_replace_node(source, cbw, &error), 0);
    expect_error(&error, EINVAL, "262144 bytes");
    how.offset = DISK + CLUSTER;
    ck_assert_int_eq(blk_truncate(guest, &how, NULL), 0);
    ck_assert_int_eq(bdrv_replace_node(source, cbw, &error), 0);
    ck_assert_int_eq(bdrv_drop_filter(cbw, NULL), 0);
    bdrv_unref(cbw);
    cbw_close_disks();
}
END_TEST

START_TEST(options_that_make_no_sense_are_refused)
{
    cbw_disks();
    open_fails("copy-before-write,file=source,target=target,"
               "min-cluster-size=100k", EINVAL, "power of two");
    open_fails("copy-before-write,file=source,target=target,staging-size=1M",
               EINVAL, "break-snapshot");
    open_fails("copy-before-write,file=source,target=target,"
               "bitmap.name=b", EINVAL, "need each other");
    open_fails("copy-before-write,file=source,target=target,"
               "bitmap.name=b,bitmap.node=source", ENOENT, "no bitmap 'b'");
    open_fails("copy-before-write,file=source,target=target,"
               "bitmap.name=b,bitmap.node=none", ENOENT, "not found");
    open_fails("copy-before-write,file=source", EINVAL, "target");
    open_fails("snapshot-access,file=source", EINVAL, "no point in time");
    ck_assert_ptr_null(bdrv_snapshot_methods(source));
    cbw_close_disks();
}
END_TEST

static void add_tests(TCase *tcase)
{
    PROMISE(tcase, a_guest_does_not_wait_for_the_target);
    PROMISE(tcase, a_full_memory_makes_guests_wait);
    PROMISE(tcase, a_large_write_takes_no_more_than_the_memory);
    PROMISE(tcase, a_drain_waits_for_what_is_staged);
    PROMISE(tcase, a_staged_copy_that_fails_breaks_the_snapshot);
    PROMISE(tcase, with_write_behind_a_guest_waits_only_for_what_it_changes);
    PROMISE(tcase,
            a_guest_that_changes_more_of_a_cluster_waits_for_its_old_content);
    PROMISE(
        tcase,
        a_guest_waits_for_the_reader_of_a_cluster_that_is_staged_in_part);
    PROMISE(tcase, what_is_in_memory_is_read_once);
    PROMISE(tcase, a_cluster_in_part_is_read_from_memory_and_source);
    tcase_add_loop_test(
        tcase, a_guest_does_not_wait_for_readers_of_what_it_does_not_change,
        0, 2);
    tcase_add_loop_test(tcase, a_rest_that_cannot_be_read_breaks_the_snapshot,
                        0, 2);
    PROMISE(tcase, a_task_whose_rest_could_not_be_read_is_nobody_elses);
    tcase_add_loop_test(tcase, break_guest_write_keeps_the_snapshot, 0, 2);
    tcase_add_loop_test(tcase, break_snapshot_never_fails_the_guest, 0, 2);
    tcase_add_loop_test(
        tcase, a_reader_in_the_middle_when_the_snapshot_breaks_gets_no_data,
        0, 2);
    tcase_add_loop_test(tcase, a_copy_that_takes_too_long_has_failed, 0, 2);
    tcase_add_loop_test(
        tcase,
        a_target_that_is_full_fails_the_guest_or_the_snapshot_never_both, 0,
        3 * (DISK / CLUSTER));
    tcase_add_loop_test(
        tcase,
        whichever_read_of_the_source_fails_guest_or_snapshot_has_the_error, 0,
        G_N_ELEMENTS(full));
    tcase_add_loop_test(
        tcase, the_filter_goes_when_the_copies_under_way_have_ended, 0, 2);
    PROMISE(tcase, a_filter_that_was_taken_out_keeps_no_point_in_time);
    PROMISE(tcase, a_target_that_does_not_fit_is_refused);
    PROMISE(tcase, a_target_that_somebody_writes_is_refused);
    PROMISE(tcase, a_source_of_another_length_than_at_open_is_refused);
    PROMISE(tcase, options_that_make_no_sense_are_refused);
}

int main(void)
{
    mem_register();
    return graph_suite("cbw-failure", add_tests);
}
