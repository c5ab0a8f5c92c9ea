/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * BlockBackend: its calls inside coroutines, from other threads, and all that
 * is refused at its door.
 */
#include "mem-driver.h"
#include "request-fixture.h"

#define READ BLK_PERM_CONSISTENT_READ
#define WRITE BLK_PERM_WRITE
#define RESIZE BLK_PERM_RESIZE
#define ALL BLK_PERM_ALL

static BlockDriverState *disk;
static BlockBackend *blk;
static MemDisk *mem;
static AioContext *ctx;

static void setup(void)
{
    graph_setup();
    ctx = block_graph_aio_context(graph);
    disk = open_ok("mem,node-name=disk,size=64k,discard=unmap");
    blk = backend_ok("guest", disk, READ | WRITE | RESIZE, ALL);
    mem = mem_disk(disk);
}

static void teardown(void)
{
    blk_unref(blk);
    bdrv_unref(disk);
    graph_teardown();
}

/* --- life ----------------------------------------------------------------- */

static int coroutine_fn unref_entry(void *opaque)
{
    blk_co_unref(opaque);
    blk_co_unref(NULL);
    return 0;
}

START_TEST(the_last_reference_lets_go_of_the_node)
{
    BlockBackend *other = backend_ok("other", disk, READ, ALL);
    GError *error = NULL;

    ck_assert_str_eq(blk_name(other), "other");
    ck_assert_ptr_eq(blk_ref(other), other);
    ck_assert_int_eq(aio_co_run(ctx, unref_entry, other), 0);
    ck_assert_ptr_eq(blk_bs(other), disk);
    ck_assert_int_eq(blk_insert_bs(other, disk, &error), -EBUSY);
    expect_error(&error, EBUSY, "'other' already has node 'disk'");
    ck_assert_int_eq(aio_co_run(ctx, unref_entry, other), 0);

    blk_unref(blk);
    blk = NULL;
    ck_assert_int_eq(bdrv_delete(disk, &error), 0); /* nobody uses it */
    disk = NULL;
}
END_TEST

START_TEST(a_node_that_others_will_not_share_is_not_opened_for_use)
{
    BlockPerm greedy = { .used = READ, .shared = READ };
    size_t nodes = block_graph_nr_nodes(graph);
    GError *error = NULL;

    ck_assert_int_eq(blk_set_perm(blk, &greedy, &error), 0);
    ck_assert_ptr_null(blk_open(graph, opts("pass,file=disk"), &error));
    expect_error(&error, EPERM, "'guest'");
    ck_assert_uint_eq(block_graph_nr_nodes(graph), nodes);
    ck_assert_uint_eq(bdrv_get_perm(disk).used, READ);
}
END_TEST

/* --- requests in coroutines ----------------------------------------------- */

static int coroutine_fn requests_entry(void *opaque)
{
    BlockTruncate how = { .offset = 100000, .exact = true };
    char out[6] = "abcdef";
    char in[6];
    struct iovec pieces[] = { { in, 2 }, { in + 2, 4 } };
    BlockIOVec vec;
    BlockIOVec1 iov;
    int64_t bytes;

    ck_assert_int_eq(blk_co_pwritev(blk, 4094, 6, block_iov_buf(&iov, out, 6),
                                    BDRV_REQ_FUA), 0);
    ck_assert_uint_eq(mem->last[MEM_WRITE].flags, BDRV_REQ_FUA);
    block_iov_init_external(&vec, pieces, 2);
    ck_assert_int_eq(blk_co_preadv(blk, 4094, 6, &vec, 0), 0);
    ck_assert_mem_eq(in, "abcdef", 6);
    ck_assert_int_eq(blk_co_preadv(blk, 4094, 5, &vec, 0), -EINVAL);
    ck_assert_int_eq(blk_co_pwritev(blk, 65533, 6, &iov.vec, 0), -EIO);

    ck_assert_int_eq(blk_co_is_allocated(blk, 0, 65536, &bytes), 1);
    ck_assert_int_eq(bytes, 8192);
    ck_assert_int_eq(blk_co_is_allocated(blk, 8192, 4096, &bytes), 0);
    ck_assert_int_eq(bytes, 4096);

    ck_assert_int_eq(blk_co_truncate(blk, &how, NULL), 0);
    ck_assert_int_eq(mem->length, 100000);
    return blk_co_flush(blk);
}

START_TEST(a_coroutine_reads_writes_resizes_and_asks)
{
    ck_assert_int_eq(aio_co_run(ctx, requests_entry, NULL), 0);
    ck_assert_int_eq(blk_in_flight(blk), 0);
}
END_TEST

START_TEST(the_length_is_changed_only_by_who_may)
{
    BlockTruncate how = { .offset = 10, .exact = true };
    BlockDriverState *ro = open_ok("mem,node-name=ro,read-only=on");
    BlockPerm perm = { .used = READ, .shared = ALL };
    BlockBackend *other = blk_new(graph, "other", &perm);
    BlockExtent extent;
    int64_t bytes = 7;
    GError *error = NULL;

    ck_assert_int_eq(blk_truncate(other, &how, &error), -ENOMEDIUM);
    expect_error(&error, ENOMEDIUM, "'other' has no node");
    ck_assert_int_eq(blk_block_status(other, 0, 1, &extent), -ENOMEDIUM);
    ck_assert_int_eq(blk_is_allocated(other, 0, 1, &bytes), -ENOMEDIUM);
    ck_assert_int_eq(bytes, 7);
    ck_assert_int_eq(blk_getlength(other), -ENOMEDIUM);
    ck_assert_int_eq(blk_insert_bs(other, disk, &error), 0);
    ck_assert_int_eq(blk_truncate(other, &how, &error), -EPERM);
    expect_error(&error, EPERM, "no permission to resize node 'disk'");
    blk_remove_bs(other);
    ck_assert_int_eq(blk_insert_bs(other, ro, &error), 0);
    ck_assert_int_eq(blk_truncate(other, &how, &error), -EACCES);
    expect_error(&error, EACCES, "'ro' is read-only");
    ck_assert_int_eq(mem->length, 65536);
    ck_assert_int_eq(blk_in_flight(other), 0);
    blk_unref(other);
    bdrv_unref(ro);
}
END_TEST

/* --- copies --------------------------------------------------------------- */

typedef struct CopyCall {
    BlockBackend *src, *dst;
    int64_t src_offset, dst_offset;
    unsigned flags;
    bool done;
    int ret;
} CopyCall;

static void coroutine_fn copy_entry(void *opaque)
{
    CopyCall *call = opaque;

    call->ret = blk_co_copy_range(call->src, call->src_offset, call->dst,
                                  call->dst_offset, 512, call->flags);
    call->done = true;
}

static void copy_start(CopyCall *call)
{
    call->done = false;
    aio_co_enter(ctx, coroutine_create(copy_entry, call));
    settle();
}

static int copy(const CopyCall *call)
{
    CopyCall run = *call;

    copy_start(&run);
    ck_assert(run.done);
    return run.ret;
}

START_TEST(a_copy_is_checked_at_both_backends)
{
    BlockPerm perm = { .used = READ, .shared = ALL };
    BlockBackend *reader = backend_ok("reader", disk, READ, ALL);
    BlockBackend *empty = blk_new(graph, "empty", &perm);
    BlockDriverState *ro = open_ok("mem,node-name=ro,read-only=on");
    BlockBackend *stuck = backend_ok("stuck", ro, READ, ALL);

    ck_assert_int_eq(copy(&(CopyCall){ empty, blk }), -ENOMEDIUM);
    ck_assert_int_eq(copy(&(CopyCall){ blk, empty }), -ENOMEDIUM);
    ck_assert_int_eq(copy(&(CopyCall){ blk, reader }), -EPERM);
    ck_assert_int_eq(copy(&(CopyCall){ blk, stuck }), -EACCES);
    ck_assert_int_eq(copy(&(CopyCall){ reader, blk, 65025 }), -EIO);
    ck_assert_int_eq(copy(&(CopyCall){ reader, blk, 0, -1 }), -EIO);
    ck_assert_int_eq(copy(&(CopyCall){ reader, blk, .flags = 1u << 30 }),
                     -EINVAL);
    ck_assert_int_eq(copy(&(CopyCall){ reader, blk }), -ENOTSUP);
    ck_assert_int_eq(blk_in_flight(blk) + blk_in_flight(reader), 0);
    blk_unref(stuck);
    bdrv_unref(ro);
    blk_unref(empty);
    blk_unref(reader);
}
END_TEST

START_TEST(a_copy_waits_for_a_section_at_either_end_and_holds_up_none)
{
    BlockDriverState *other = open_ok("mem,node-name=other");
    BlockBackend *src = backend_ok("source", other, READ, ALL);
    CopyCall call = { .src = src, .dst = blk };

    for (int i = 0; i < 2; i++) {
        BlockDriverState *first = i ? disk : other;
        BlockDriverState *second = i ? other : disk;

        bdrv_drained_begin(first);
        copy_start(&call);
        ck_assert(!call.done);
        /* It waits at one gate, so it must not be counted at the other. */
        ck_assert_int_eq(blk_in_flight(src) + blk_in_flight(blk), 0);
        bdrv_drained_begin(second);
        bdrv_drained_end(first);
        settle();
        ck_assert(!call.done);
        ck_assert_int_eq(blk_in_flight(src) + blk_in_flight(blk), 0);
        bdrv_drained_end(second);
        settle();
        ck_assert(call.done);
        ck_assert_int_eq(call.ret, -ENOTSUP);
    }
    ck_assert_int_eq(blk_in_flight(src) + blk_in_flight(blk), 0);
    blk_unref(src);
    bdrv_unref(other);
}
END_TEST

/* --- other threads -------------------------------------------------------- */

/* Asks for the length in the thread that runs it. */
typedef struct LengthCall {
    int64_t length;
    _Atomic bool done;
} LengthCall;

static void length_bh(void *opaque)
{
    LengthCall *call = opaque;

    call->length = blk_getlength(blk);
    atomic_store(&call->done, true);
}

static int64_t length_in(IOThread *thread)
{
    LengthCall call = { .length = 0 };

    aio_bh_schedule_oneshot(iothread_get_aio_context(thread), length_bh,
                            &call);
    while (!atomic_load(&call.done)) {
        aio_poll(ctx, false);
    }
    return call.length;
}

START_TEST(another_thread_learns_the_length_but_not_in_a_section)
{
    IOThread *thread = iothread_new("asker", AIO_ENGINE_AUTO, NULL);

    ck_assert_ptr_nonnull(thread);
    ck_assert_int_eq(length_in(thread), 65536);
    bdrv_drained_begin(disk);
    ck_assert_int_eq(length_in(thread), -EAGAIN);
    ck_assert_int_eq(blk_getlength(blk), 65536); /* we hold the section */
    bdrv_drained_end(disk);
    ck_assert_int_eq(length_in(thread), 65536);
    blk_remove_bs(blk);
    ck_assert_int_eq(length_in(thread), -ENOMEDIUM);
    ck_assert_int_eq(blk_in_flight(blk), 0);
    iothread_free(thread);
}
END_TEST

/* --- callbacks ------------------------------------------------------------ */

static void count_cb(void *opaque, int ret)
{
    ck_assert_int_eq(ret, 0);
    (*(unsigned *)opaque)++;
}

START_TEST(more_requests_at_once_than_a_thread_keeps_all_end)
{
    enum { N = 1000 };
    unsigned ended = 0;

    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < N; i++) {
            blk_aio_flush(blk, count_cb, &ended);
        }
        ck_assert_int_eq(blk_in_flight(blk), N);
        settle();
        ck_assert_uint_eq(ended, N * (round + 1));
    }
}
END_TEST

/* Sends a request from the loop of a context. */
typedef struct Sender {
    unsigned ended;
    bool sent;
} Sender;

static void send_bh(void *opaque)
{
    Sender *sender = opaque;

    blk_aio_flush(blk, count_cb, &sender->ended);
    sender->sent = true;
}

START_TEST(each_context_of_one_thread_calls_back_in_its_own_turn)
{
    AioContext *second = aio_context_new(AIO_ENGINE_AUTO, NULL);
    Sender in_second = { 0 };
    unsigned ended = 0;

    ck_assert_ptr_nonnull(second);
    aio_context_bind(second);
    /* One that waits for the turn of the main context ... */
    blk_aio_flush(blk, count_cb, &ended);
    aio_bh_schedule_oneshot(second, send_bh, &in_second);
    while (in_second.ended == 0) {
        aio_poll(second, true);
    }
    /* ... is not called by that of the second. */
    ck_assert(in_second.sent);
    ck_assert_uint_eq(ended, 0);
    settle();
    ck_assert_uint_eq(ended, 1);
    ck_assert_uint_eq(in_second.ended, 1);
    ck_assert_int_eq(blk_in_flight(blk), 0);
    aio_context_unref(second);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("backend-calls");
    TCase *tcase = tcase_create("backend-calls");

    register_pass_driver();
    mem_register();
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    PROMISE(tcase, the_last_reference_lets_go_of_the_node);
    PROMISE(tcase, a_node_that_others_will_not_share_is_not_opened_for_use);
    PROMISE(tcase, a_coroutine_reads_writes_resizes_and_asks);
    PROMISE(tcase, the_length_is_changed_only_by_who_may);
    PROMISE(tcase, a_copy_is_checked_at_both_backends);
    PROMISE(tcase, a_copy_waits_for_a_section_at_either_end_and_holds_up_none);
    PROMISE(tcase, another_thread_learns_the_length_but_not_in_a_section);
    PROMISE(tcase, more_requests_at_once_than_a_thread_keeps_all_end);
    PROMISE(tcase, each_context_of_one_thread_calls_back_in_its_own_turn);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
