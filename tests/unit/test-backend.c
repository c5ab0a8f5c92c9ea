/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * BlockBackend: callbacks, threads, error policy, accounting, end of life.
 */
#include "graph-fixture.h"
#include "mem-driver.h"

#define READ BLK_PERM_CONSISTENT_READ
#define WRITE BLK_PERM_WRITE
#define ALL BLK_PERM_ALL

static BlockDriverState *disk;
static BlockBackend *blk;
static MemDisk *mem;
static AioContext *ctx;

static void setup(void)
{
    graph_setup();
    ctx = block_graph_aio_context(graph);
    disk = open_ok("mem,node-name=disk,size=1M,discard=unmap");
    blk = backend_ok("guest", disk, READ | WRITE, ALL);
    mem = mem_disk(disk);
}

static void teardown(void)
{
    blk_unref(blk);
    bdrv_unref(disk);
    graph_teardown();
}

static void settle(void)
{
    for (int i = 0; i < 50; i++) {
        aio_poll(ctx, false);
    }
}

typedef struct Count {
    _Atomic int done;
    _Atomic int failed;
    _Atomic int last;
} Count;

static void count_cb(void *opaque, int ret)
{
    Count *count = opaque;

    atomic_store(&count->last, ret);
    atomic_fetch_add(ret < 0 ? &count->failed : &count->done, 1);
}

START_TEST(a_callback_never_comes_before_the_call_returns)
{
    char buf[16];
    BlockIOVec1 iov;
    Count count = { 0 };

    block_iov_buf(&iov, buf, sizeof(buf));
    blk_aio_preadv(blk, 0, &iov.vec, 0, count_cb, &count);
    blk_aio_pwritev(blk, 0, &iov.vec, 0, count_cb, &count);
    blk_aio_pwrite_zeroes(blk, 0, 100, 0, count_cb, &count);
    blk_aio_pdiscard(blk, 0, 100, count_cb, &count);
    blk_aio_flush(blk, count_cb, &count);
    blk_aio_preadv(blk, -1, &iov.vec, 0, count_cb, &count);
    ck_assert_int_eq(count.done + count.failed, 0);
    ck_assert_int_eq(blk_in_flight(blk), 6);
    settle();
    ck_assert_int_eq(count.done, 5);
    ck_assert_int_eq(count.failed, 1);
    ck_assert_int_eq(blk_in_flight(blk), 0);
}
END_TEST

typedef struct Chain {
    BlockIOVec1 iov;
    char buf[512];
    int left;
} Chain;

static void chain_cb(void *opaque, int ret)
{
    Chain *chain = opaque;

    ck_assert_int_eq(ret, 0);
    if (--chain->left > 0) {
        blk_aio_pwritev(blk, 512 * (chain->left % 100), &chain->iov.vec, 0,
                        chain_cb, chain);
    }
}

START_TEST(a_callback_may_send_the_next_request)
{
    Chain chain = { .left = 10000 };

    block_iov_buf(&chain.iov, chain.buf, 512);
    blk_aio_pwritev(blk, 0, &chain.iov.vec, 0, chain_cb, &chain);
    while (chain.left > 0) {
        aio_poll(ctx, true);
    }
    settle();
    ck_assert_uint_eq(mem->count[MEM_WRITE], 10000);
}
END_TEST

START_TEST(unref_waits_for_the_requests_that_are_in_flight)
{
    BlockBackend *short_lived = backend_ok("short", disk, READ | WRITE, ALL);
    BlockIOVec1 iov;
    char buf[512];
    Count count = { 0 };

    for (int i = 0; i < 100; i++) {
        blk_aio_preadv(short_lived, 512 * i,
                       block_iov_buf(&iov, buf, 512), 0, count_cb, &count);
    }
    blk_unref(short_lived);
    ck_assert_int_eq(count.done, 100);
}
END_TEST

/* --- reads that are told before they begin -------------------------------- */

/* Send @nr reads of a sector each, the n-th of sector n. */
static void send_reads(BlockIOVec1 *iov, char *buf, int nr, Count *count)
{
    for (int i = 0; i < nr; i++) {
        blk_aio_preadv(blk, 512 * i, block_iov_buf(&iov[i], buf, 512), 0,
                       count_cb, count);
    }
}

START_TEST(reads_of_one_turn_begin_after_all_were_told_the_first_at_once)
{
    BlockIOVec1 iov[4];
    char buf[512];
    Count count = { 0 };

    mem->expects = true;
    for (int round = 1; round <= 2; round++) {
        send_reads(iov, buf, 4, &count);
        ck_assert_uint_eq(mem->told, 4 * round);
        ck_assert_uint_eq(mem->count[MEM_READ], 4 * round - 3);
        ck_assert_int_eq(mem->last[MEM_READ].offset, 0);
        ck_assert_int_eq(blk_in_flight(blk), 4);
        settle();
        ck_assert_int_eq(count.done, 4 * round);
        ck_assert_int_eq(mem->last[MEM_READ].offset, 3 * 512);
    }
}
END_TEST

START_TEST(a_section_waits_for_reads_that_were_told_and_not_begun)
{
    BlockIOVec1 iov[4];
    char buf[512];
    Count count = { 0 };

    mem->expects = true;
    send_reads(iov, buf, 4, &count);
    ck_assert_uint_eq(mem->count[MEM_READ], 1);
    bdrv_drained_begin(disk);
    ck_assert_int_eq(count.done, 4);
    /* One that finds the gate closed tells nobody: the node may change. */
    blk_aio_preadv(blk, 0, &iov[0].vec, 0, count_cb, &count);
    ck_assert_uint_eq(mem->told, 4);
    bdrv_drained_end(disk);
    settle();
    ck_assert_int_eq(count.done, 5);
}
END_TEST

START_TEST(only_reads_of_nodes_that_gain_by_it_are_put_off)
{
    BlockIOVec1 iov[4];
    char buf[512] = { 0 };
    Count count = { 0 };

    send_reads(iov, buf, 4, &count);
    ck_assert_uint_eq(mem->count[MEM_READ], 4);
    mem->expects = true;
    blk_aio_pwritev(blk, 0, &iov[0].vec, 0, count_cb, &count);
    blk_aio_pwritev(blk, 512, &iov[1].vec, 0, count_cb, &count);
    ck_assert_uint_eq(mem->count[MEM_WRITE], 2);
    blk_aio_preadv(blk, -1, &iov[0].vec, 0, count_cb, &count);
    ck_assert_uint_eq(mem->told, 0);
    settle();
    ck_assert_int_eq(count.done, 6);
    ck_assert_int_eq(count.failed, 1);
}
END_TEST

/* --- threads -------------------------------------------------------------- */

enum { THREADS = 4, EACH = 4000 };

typedef struct Worker {
    IOThread *iothread;
    Chain chain;
    _Atomic bool done;
    int index;
} Worker;

static void worker_cb(void *opaque, int ret)
{
    Worker *w = opaque;

    g_assert(ret == 0);
    g_assert(aio_get_current() == iothread_get_aio_context(w->iothread));
    if (--w->chain.left == 0) {
        atomic_store(&w->done, true);
        return;
    }
    if (w->chain.left % 2) {
        blk_aio_pwritev(blk, 4096 * w->index + w->chain.left % 3000,
                        &w->chain.iov.vec, 0, worker_cb, w);
    } else {
        blk_aio_preadv(blk, 4096 * w->index, &w->chain.iov.vec, 0, worker_cb,
                       w);
    }
}

static void worker_start(void *opaque)
{
    Worker *w = opaque;

    blk_aio_preadv(blk, 0, &w->chain.iov.vec, 0, worker_cb, w);
}

START_TEST(several_threads_use_one_node_each_called_back_in_its_own)
{
    Worker workers[THREADS] = { 0 };
    BlockAcctStats r, w;

    for (int i = 0; i < THREADS; i++) {
        workers[i].index = i;
        workers[i].chain.left = EACH;
        block_iov_buf(&workers[i].chain.iov, workers[i].chain.buf, 512);
        workers[i].iothread = iothread_new("worker", _i, NULL);
        ck_assert_ptr_nonnull(workers[i].iothread);
        aio_bh_schedule_oneshot(iothread_get_aio_context(workers[i].iothread),
                                worker_start, &workers[i]);
    }
    for (int i = 0; i < THREADS; i++) {
        while (!atomic_load(&workers[i].done)) {
            aio_poll(ctx, false);
        }
        iothread_free(workers[i].iothread);
    }
    blk_get_stats(blk, BLOCK_ACCT_READ, &r);
    blk_get_stats(blk, BLOCK_ACCT_WRITE, &w);
    ck_assert_uint_eq(r.operations + w.operations, THREADS * EACH);
    ck_assert_uint_eq(r.bytes + w.bytes, THREADS * EACH * 512);
}
END_TEST

/* --- accounting ----------------------------------------------------------- */

START_TEST(each_kind_of_operation_is_counted_apart)
{
    BlockAcctStats s;
    char buf[100] = { 0 };

    ck_assert_int_eq(blk_pread(blk, 0, 100, buf, 0), 0);
    ck_assert_int_eq(blk_pwrite(blk, 0, 60, buf, 0), 0);
    ck_assert_int_eq(blk_pwrite_zeroes(blk, 0, 50, 0), 0);
    ck_assert_int_eq(blk_pdiscard(blk, 0, 40), 0);
    ck_assert_int_eq(blk_flush(blk), 0);
    mem->fail[MEM_READ] = EIO;
    ck_assert_int_eq(blk_pread(blk, 0, 100, buf, 0), -EIO);
    ck_assert_int_eq(blk_pread(blk, -5, 100, buf, 0), -EIO);

    blk_get_stats(blk, BLOCK_ACCT_READ, &s);
    ck_assert_uint_eq(s.operations, 1);
    ck_assert_uint_eq(s.bytes, 100);
    ck_assert_uint_eq(s.failed, 1);
    ck_assert_uint_eq(s.invalid, 1);
    blk_get_stats(blk, BLOCK_ACCT_WRITE, &s);
    ck_assert_uint_eq(s.bytes, 60);
    blk_get_stats(blk, BLOCK_ACCT_ZERO, &s);
    ck_assert_uint_eq(s.bytes, 50);
    blk_get_stats(blk, BLOCK_ACCT_UNMAP, &s);
    ck_assert_uint_eq(s.bytes, 40);
    blk_get_stats(blk, BLOCK_ACCT_FLUSH, &s);
    ck_assert_uint_eq(s.operations, 1);
}
END_TEST

START_TEST(latencies_fill_a_histogram_once_asked_for)
{
    BlockAcctStats s;
    uint64_t in_buckets = 0;
    char byte;

    ck_assert_int_eq(blk_pread(blk, 0, 1, &byte, 0), 0);
    blk_set_latency_accounting(blk, true);
    for (int i = 0; i < 10; i++) {
        ck_assert_int_eq(blk_pread(blk, 0, 1, &byte, 0), 0);
    }
    blk_set_latency_accounting(blk, false);
    ck_assert_int_eq(blk_pread(blk, 0, 1, &byte, 0), 0);
    blk_get_stats(blk, BLOCK_ACCT_READ, &s);
    for (int i = 0; i < BLOCK_ACCT_BUCKETS; i++) {
        in_buckets += s.latency[i];
    }
    ck_assert_uint_eq(in_buckets, 10);
    ck_assert_uint_eq(s.operations, 12);
    ck_assert_uint_gt(s.total_ns, 0);
}
END_TEST

/* --- error policy --------------------------------------------------------- */

static BlockErrorEvent last_event;

static void listener(const BlockErrorEvent *event, void *opaque)
{
    last_event = *event;
    (*(int *)opaque)++;
}

static void write_async(Count *count)
{
    static char buf[512];
    static BlockIOVec1 iov;

    blk_aio_pwritev(blk, 512, block_iov_buf(&iov, buf, 512), 0, count_cb,
                    count);
    settle();
}

START_TEST(report_gives_the_error_ignore_hides_it_both_tell_the_listener)
{
    int events = 0;

    blk_set_on_error(blk, BLOCK_ON_ERROR_REPORT, BLOCK_ON_ERROR_IGNORE,
                     listener, &events);
    mem->fail[MEM_WRITE] = EIO;
    ck_assert_int_eq(blk_pwrite(blk, 512, 4, "abcd", 0), 0);
    ck_assert_int_eq(last_event.action, BLOCK_ON_ERROR_IGNORE);
    ck_assert_int_eq(last_event.error, EIO);
    ck_assert_int_eq(last_event.offset, 512);
    ck_assert_int_eq(last_event.bytes, 4);
    mem->fail[MEM_READ] = EIO;
    ck_assert_int_eq(blk_pread(blk, 0, 1, (char[1]){ 0 }, 0), -EIO);
    ck_assert_int_eq(last_event.action, BLOCK_ON_ERROR_REPORT);
    ck_assert_int_eq(events, 2);
}
END_TEST

START_TEST(a_stopped_request_is_not_in_flight_and_is_retried_on_resume)
{
    Count count = { 0 };
    int events = 0;

    blk_set_on_error(blk, BLOCK_ON_ERROR_REPORT, BLOCK_ON_ERROR_STOP,
                     listener, &events);
    mem->fail[MEM_WRITE] = ENOSPC;
    write_async(&count);
    ck_assert_int_eq(count.done + count.failed, 0);
    ck_assert_uint_eq(blk_nr_stopped(blk), 1);
    ck_assert_int_eq(blk_in_flight(blk), 0);
    bdrv_drained_begin(disk); /* does not wait for it ... */
    blk_resume(blk);
    settle();
    ck_assert_int_eq(count.done, 0); /* ... and it waits for the section */
    bdrv_drained_end(disk);
    settle();
    ck_assert_int_eq(count.done, 1);
    ck_assert_uint_eq(mem->count[MEM_WRITE], 2);
    ck_assert_int_eq(events, 1);
}
END_TEST

START_TEST(enospc_stops_for_a_full_disk_and_reports_the_rest)
{
    Count count = { 0 };
    int events = 0;

    blk_set_on_error(blk, BLOCK_ON_ERROR_REPORT, BLOCK_ON_ERROR_ENOSPC,
                     listener, &events);
    mem->fail[MEM_WRITE] = EIO;
    write_async(&count);
    ck_assert_int_eq(count.last, -EIO);
    mem->fail[MEM_WRITE] = ENOSPC;
    write_async(&count);
    ck_assert_uint_eq(blk_nr_stopped(blk), 1);
    blk_resume(blk);
    settle();
    ck_assert_int_eq(count.done, 1);
}
END_TEST

START_TEST(a_stopped_request_ends_with_its_error_when_the_node_goes)
{
    Count count = { 0 };
    int events = 0;

    blk_set_on_error(blk, BLOCK_ON_ERROR_STOP, BLOCK_ON_ERROR_STOP, listener,
                     &events);
    mem->fail[MEM_WRITE] = ENOSPC;
    write_async(&count);
    blk_remove_bs(blk);
    settle();
    ck_assert_int_eq(count.last, -ENOSPC);
    ck_assert_int_eq(count.failed, 1);
}
END_TEST

static void resume_at_once(const BlockErrorEvent *event, void *opaque)
{
    blk_resume(event->blk);
}

START_TEST(a_resume_from_inside_the_listener_is_not_lost)
{
    Count count = { 0 };

    blk_set_on_error(blk, BLOCK_ON_ERROR_STOP, BLOCK_ON_ERROR_STOP,
                     resume_at_once, NULL);
    mem->fail[MEM_WRITE] = EIO;
    write_async(&count);
    ck_assert_int_eq(count.done, 1);
}
END_TEST

static uint64_t kept;

/* A filter that does not give back what it has. */
static int keep_prepare(BlockDriverState *bs, const BlockPerm *perm,
                        GError **errp)
{
    if (kept & ~perm->used) {
        return block_error(errp, EIO, "kept");
    }
    kept = perm->used;
    return 0;
}

static int coroutine_fn keep_open(BlockDriverState *bs, BlockOptions *options,
                                  unsigned flags, GError **errp)
{
    return bdrv_co_open_child(bs, options, "file", BDRV_CHILD_FILTERED |
                              BDRV_CHILD_PRIMARY, false, errp) ? 0 : -EINVAL;
}

static void register_keep_driver(void)
{
    static const BlockDriver driver = {
        .struct_size = sizeof(BlockDriver),
        .name = "keep",
        .kind = BLOCK_DRIVER_FILTER,
        .open = keep_open,
        .perm_prepare = keep_prepare,
    };

    if (bdrv_register(&driver, NULL) < 0) {
        abort();
    }
}

START_TEST(a_backend_that_goes_leaves_no_permissions_below_who_keeps_his)
{
    BlockDriverState *below = open_ok("null-co,node-name=below");
    BlockDriverState *filter = open_ok("keep,file=below");
    BlockBackend *user = backend_ok("user", filter, READ | WRITE, READ);

    ck_assert_uint_eq(bdrv_get_perm(below).used, READ | WRITE);
    blk_unref(user);
    ck_assert_uint_eq(bdrv_get_perm(filter).used, 0);
    ck_assert_uint_eq(bdrv_get_perm(below).used, 0);
    ck_assert_uint_eq(bdrv_get_perm(below).shared, ALL);
    bdrv_unref(filter);
    bdrv_unref(below);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("backend");
    TCase *tcase = tcase_create("backend");

    register_pass_driver();
    register_keep_driver();
    mem_register();
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    PROMISE(tcase, a_callback_never_comes_before_the_call_returns);
    PROMISE(tcase, a_callback_may_send_the_next_request);
    PROMISE(tcase, unref_waits_for_the_requests_that_are_in_flight);
    PROMISE(tcase,
            reads_of_one_turn_begin_after_all_were_told_the_first_at_once);
    PROMISE(tcase, a_section_waits_for_reads_that_were_told_and_not_begun);
    PROMISE(tcase, only_reads_of_nodes_that_gain_by_it_are_put_off);
    tcase_add_loop_test(
        tcase, several_threads_use_one_node_each_called_back_in_its_own,
        AIO_ENGINE_AUTO, AIO_ENGINE_THREADS + 1);
    PROMISE(tcase, each_kind_of_operation_is_counted_apart);
    PROMISE(tcase, latencies_fill_a_histogram_once_asked_for);
    PROMISE(tcase,
            report_gives_the_error_ignore_hides_it_both_tell_the_listener);
    PROMISE(tcase,
            a_stopped_request_is_not_in_flight_and_is_retried_on_resume);
    PROMISE(tcase, enospc_stops_for_a_full_disk_and_reports_the_rest);
    PROMISE(tcase, a_stopped_request_ends_with_its_error_when_the_node_goes);
    PROMISE(tcase, a_resume_from_inside_the_listener_is_not_lost);
    PROMISE(tcase,
            a_backend_that_goes_leaves_no_permissions_below_who_keeps_his);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
