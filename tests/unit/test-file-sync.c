/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The driver "file" when its requests fail, or wait.
 *
 * The requests go through an engine that can fail or hold them; for
 * aio=threads this program defines fdatasync().  Variants: the ring; epoll and
 * workers; the ring with aio=threads.
 */
#include "file-fixture.h"

#include "util/aio-engine.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <stdio.h>

/* What a file system may lack of fallocate. */
#define REFUSE_PUNCH 1
#define REFUSE_ZERO_RANGE 2
#define REFUSE_ALLOCATE 4

static struct Shim {
    AioEngineOps ops;
    const AioEngineOps *real;

    /* Any thread. */
    _Atomic int sync_error; /* errno of the next sync; 0 none */
    _Atomic int nr_syncs;

    /* Main thread. */
    int write_error;        /* errno of the next write; 0 none */
    int read_error;         /* errno of each read but the first; 0 none */
    int nr_reads;
    int nr_writes;
    unsigned refuse;        /* ways of fallocate: REFUSE_* */
    int nr_refused;
    unsigned hold;          /* bit for each AioOp that is held */
    AioRequest *held;       /* the last request that was */
    void *state;            /* of the engine */
} shim;

static int take_sync_error(void)
{
    atomic_fetch_add(&shim.nr_syncs, 1);
    return atomic_exchange(&shim.sync_error, 0);
}

int fdatasync(int fd)
{
    int (*real)(int fd) = (__typeof__(real))dlsym(RTLD_NEXT, "fdatasync");
    int err = take_sync_error();

    if (err) {
        errno = err;
        return -1;
    }
    return real(fd);
}

static bool is_refused(const AioRequest *req)
{
    unsigned way = req->flags & FALLOC_FL_PUNCH_HOLE   ? REFUSE_PUNCH
                   : req->flags & FALLOC_FL_ZERO_RANGE ? REFUSE_ZERO_RANGE
                                                       : REFUSE_ALLOCATE;

    shim.nr_refused += (shim.refuse & way) != 0;
    return shim.refuse & way;
}

static int planned_error(AioRequest *req)
{
    int err = 0;

    if (req->op == AIO_OP_FDATASYNC && shim.real != &aio_threads_ops) {
        err = take_sync_error();
    } else if (req->op == AIO_OP_WRITEV) {
        shim.nr_writes++;
        err = shim.write_error;
        shim.write_error = 0;
    } else if (req->op == AIO_OP_READV) {
        err = shim.nr_reads++ > 0 ? shim.read_error : 0;
    } else if (req->op == AIO_OP_FALLOCATE && is_refused(req)) {
        err = EOPNOTSUPP;
    }
    return err;
}

static bool shim_submit(AioContext *ctx, void *state, AioRequest *req)
{
    int err;

    if (shim.hold & (1u << req->op)) {
        g_assert(!shim.held);
        shim.held = req;
        shim.state = state;
        return true;
    }
    err = planned_error(req);
    if (err) {
        req->result = -err;
        return false;
    }
    return shim.real->submit(ctx, state, req);
}

/* The main context of the running test, if it has called shim_graph(). */
static AioContext *ctx;

/* Let the held request go, or fail with @err; others are not held then. */
static void let_go(int err)
{
    AioRequest *req = shim.held;

    ck_assert_ptr_nonnull(req);
    shim.hold = 0;
    shim.held = NULL;
    if (err) {
        req->result = -err;
        aio_co_wake(req->co);
    } else if (!shim.real->submit(ctx, shim.state, req)) {
        aio_co_wake(req->co);
    }
}

/* A graph on the engine of a variant; false: this system does not have it. */
static bool shim_graph(int variant)
{
    memset(&shim, 0, sizeof(shim));
    shim.real = variant == 1 ? &aio_threads_ops : &aio_uring_ops;
    shim.ops = *shim.real;
    shim.ops.submit = shim_submit;
    ctx = aio_context_new_with_ops(&shim.ops, NULL);
    if (ctx) {
        block_graph_free(graph);
        graph = block_graph_new(ctx, NULL);
    }
    return ctx != NULL;
}

static void teardown(void)
{
    file_teardown();
    g_clear_pointer(&ctx, aio_context_unref);
}

static const char *variant_aio(int variant)
{
    return variant == 2 ? "threads" : "io_uring";
}

/*
 * A file of 4 KiB on the graph of a variant, opened by @format: the directory,
 * then the way of I/O.  NULL: this system lacks the engine, or direct I/O.
 */
static BlockBackend *given(int variant, const char *format)
{
    if (!shim_graph(variant)) {
        return NULL;
    }
    make_file("disk", 4096);
    return file_backend(format, variant_aio(variant));
}

/* --- syncs that fail ------------------------------------------------------ */

START_TEST(after_a_failed_flush_none_succeeds_until_the_node_is_closed)
{
    const char *aio = variant_aio(_i);
    BlockBackend *blk = given(_i, "file,filename=%s/disk,aio=%s");

    if (!blk) {
        return; /* no io_uring here */
    }
    ck_assert_int_eq(blk_pwrite(blk, 0, 1, "a", 0), 0);
    ck_assert_int_eq(blk_flush(blk), 0);
    ck_assert_int_eq(blk_pwrite(blk, 0, 1, "b", 0), 0);
    atomic_store(&shim.sync_error, EIO);
    ck_assert_int_eq(blk_flush(blk), -EIO);
    atomic_store(&shim.nr_syncs, 0);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(blk_pwrite(blk, 0, 1, "c", 0), 0);
        ck_assert_int_eq(blk_flush(blk), -EIO);
        ck_assert_int_eq(blk_pwrite(blk, 0, 1, "d", BDRV_REQ_FUA), -EIO);
        ck_assert_int_eq(blk_pwrite_zeroes(blk, 0, 1, BDRV_REQ_FUA), -EIO);
    }
    ck_assert_int_eq(atomic_load(&shim.nr_syncs), 0);
    /* A new descriptor would not know; the node does. */
    reopen_fails(blk_bs(blk), "cache.direct=on", EIO, "could not flush");
    close_backend(blk);
    blk = file_backend("file,filename=%s/disk,aio=%s", aio);
    ck_assert_int_eq(blk_pwrite(blk, 0, 1, "e", 0), 0);
    ck_assert_int_eq(blk_flush(blk), 0);
    close_backend(blk);
}
END_TEST

START_TEST(after_a_failed_fua_write_no_flush_succeeds)
{
    BlockBackend *blk = given(_i, "file,filename=%s/disk,aio=%s");

    if (!blk) {
        return; /* no io_uring here */
    }
    atomic_store(&shim.sync_error, ENOSPC);
    ck_assert_int_eq(blk_pwrite(blk, 0, 1, "a", BDRV_REQ_FUA), -ENOSPC);
    ck_assert_int_eq(blk_flush(blk), -EIO);
    ck_assert_int_eq(blk_pwrite(blk, 0, 1, "a", BDRV_REQ_FUA), -EIO);
    close_backend(blk);
}
END_TEST

START_TEST(with_direct_io_a_failed_flush_may_be_tried_again)
{
    BlockBackend *blk =
        given(_i, "file,filename=%s/disk,cache.direct=on,aio=%s");

    if (!blk) {
        return; /* no io_uring, or no direct I/O here */
    }
    ck_assert_int_eq(blk_pwrite(blk, 0, 1, "a", 0), 0);
    atomic_store(&shim.sync_error, EIO);
    ck_assert_int_eq(blk_flush(blk), -EIO);
    ck_assert_int_eq(blk_flush(blk), 0);
    close_backend(blk);
}
END_TEST

/* What may go through the page cache although the file is open with O_DIRECT;
 * each of them between a good flush and one that fails. */
static int zero_part(BlockBackend *blk)
{
    return blk_pwrite_zeroes(blk, 0, 4096, 0);
}

static int discard_part(BlockBackend *blk)
{
    return blk_pdiscard(blk, 0, 4096);
}

static int make_longer(BlockBackend *blk)
{
    return blk_truncate(blk, &(BlockTruncate){ .offset = 12288 }, NULL);
}

START_TEST(direct_io_that_used_the_page_cache_remembers_a_failed_flush)
{
    static int (*const operations[])(BlockBackend *) = {
        zero_part, discard_part, make_longer,
    };
    BlockBackend *blk = given(_i % 3, "file,filename=%s/disk,cache.direct=on,"
                              "discard=unmap,aio=%s");

    if (!blk) {
        return; /* no io_uring, or no direct I/O here */
    }
    ck_assert_int_eq(blk_flush(blk), 0);
    ck_assert_int_eq(operations[_i / 3](blk), 0);
    atomic_store(&shim.sync_error, EIO);
    ck_assert_int_eq(blk_flush(blk), -EIO);
    atomic_store(&shim.nr_syncs, 0);
    ck_assert_int_eq(blk_flush(blk), -EIO);
    ck_assert_int_eq(blk_pwrite(blk, 0, 1, "b", BDRV_REQ_FUA), -EIO);
    ck_assert_int_eq(atomic_load(&shim.nr_syncs), 0);
    close_backend(blk);
}
END_TEST

START_TEST(without_flushes_nothing_is_synced)
{
    BlockBackend *blk =
        given(_i, "file,filename=%s/disk,cache.no-flush=on,aio=%s");

    if (!blk) {
        return; /* no io_uring here */
    }
    atomic_store(&shim.nr_syncs, 0);
    ck_assert_int_eq(blk_pwrite(blk, 0, 1, "a", BDRV_REQ_FUA), 0);
    ck_assert_int_eq(blk_flush(blk), 0);
    close_backend(blk);
    ck_assert_int_eq(atomic_load(&shim.nr_syncs), 0);
}
END_TEST

START_TEST(a_write_without_space_does_no_harm_to_flushes)
{
    BlockBackend *blk = given(_i, "file,filename=%s/disk");

    if (!blk) {
        return; /* no io_uring here */
    }
    shim.write_error = ENOSPC;
    ck_assert_int_eq(blk_pwrite(blk, 0, 1, "a", BDRV_REQ_FUA), -ENOSPC);
    ck_assert_int_eq(blk_pwrite(blk, 0, 1, "a", BDRV_REQ_FUA), 0);
    shim.write_error = EIO;
    ck_assert_int_eq(blk_pwrite(blk, 0, 1, "b", 0), -EIO);
    ck_assert_int_eq(blk_pwrite(blk, 0, 1, "b", 0), 0);
    ck_assert_int_eq(blk_flush(blk), 0);
    close_backend(blk);
}
END_TEST

/* --- requests that meet --------------------------------------------------- */

#define PENDING 1

static void done(void *opaque, int ret)
{
    *(int *)opaque = ret;
}

static void settle(void)
{
    while (aio_poll(ctx, false)) {
    }
}

static void wait_for(const int *ret)
{
    while (*ret == PENDING) {
        aio_poll(ctx, true);
    }
}

static void wait_until_held(void)
{
    while (!shim.held) {
        aio_poll(ctx, true);
    }
}

START_TEST(a_flush_beside_a_failing_fua_write_fails_too)
{
    BlockBackend *blk = given(_i, "file,filename=%s/disk");
    int fua = PENDING, flush = PENDING;
    BlockIOVec1 iov;

    if (!blk) {
        return; /* no io_uring here */
    }
    block_iov_buf(&iov, "a", 1);
    ck_assert_int_eq(blk_pwrite(blk, 1, 1, "b", 0), 0);
    shim.hold = 1u << AIO_OP_FDATASYNC;
    blk_aio_pwritev(blk, 0, &iov.vec, BDRV_REQ_FUA, done, &fua);
    wait_until_held();
    /* Held back until it is known how the other one ends: the kernel tells
     * of a failure once, and this one would be told that all is well. */
    blk_aio_flush(blk, done, &flush);
    settle();
    ck_assert_int_eq(flush, PENDING);
    let_go(EIO);
    wait_for(&fua);
    wait_for(&flush);
    ck_assert_int_eq(fua, -EIO);
    ck_assert_int_eq(flush, -EIO);
    close_backend(blk);
}
END_TEST

START_TEST(use_of_the_page_cache_begins_when_no_forgetful_sync_runs)
{
    BlockBackend *blk = given(_i, "file,filename=%s/disk,cache.direct=on");
    int flush = PENDING, zero = PENDING;

    if (!blk) {
        return; /* no io_uring, or no direct I/O here */
    }
    ck_assert_int_eq(blk_pwrite(blk, 0, 1, "a", 0), 0);
    shim.hold = 1u << AIO_OP_FDATASYNC;
    blk_aio_flush(blk, done, &flush);
    wait_until_held();
    /* Else this sync could be told of its failure and forget it. */
    blk_aio_pwrite_zeroes(blk, 0, 4096, 0, done, &zero);
    settle();
    ck_assert_int_eq(zero, PENDING);
    let_go(EIO);
    wait_for(&flush);
    wait_for(&zero);
    ck_assert_int_eq(flush, -EIO);
    ck_assert_int_eq(zero, 0);
    ck_assert_int_eq(blk_flush(blk), 0);
    close_backend(blk);
}
END_TEST

START_TEST(syncs_that_wait_together_share_one)
{
    enum { NR = 5 };
    BlockBackend *blk = given(_i, "file,filename=%s/disk");
    int ret[NR];
    BlockIOVec1 iov;

    if (!blk) {
        return; /* no io_uring here */
    }
    block_iov_buf(&iov, "a", 1);
    shim.hold = 1u << AIO_OP_FDATASYNC;
    for (int i = 0; i < NR; i++) {
        ret[i] = PENDING;
        blk_aio_pwritev(blk, i, &iov.vec, BDRV_REQ_FUA, done, &ret[i]);
    }
    while (shim.nr_writes < NR || !shim.held) {
        aio_poll(ctx, true);
    }
    settle();
    atomic_store(&shim.nr_syncs, 0);
    let_go(0);
    for (int i = 0; i < NR; i++) {
        wait_for(&ret[i]);
        ck_assert_int_eq(ret[i], 0);
    }
    /* The held one covers its own write; one more covers all the others,
     * unless a write ended after that one began. */
    ck_assert_int_ge(atomic_load(&shim.nr_syncs), 1);
    ck_assert_int_le(atomic_load(&shim.nr_syncs), NR - 1);
    close_backend(blk);
}
END_TEST

/* A call on an edge, as formats make them. */
typedef struct EdgeCall {
    BdrvChild *child;
    int64_t offset;
    bool zero;
    unsigned flags;
    int ret;
} EdgeCall;

static void coroutine_fn edge_entry(void *opaque)
{
    EdgeCall *call = opaque;

    call->ret = call->zero ? bdrv_co_pwrite_zeroes(call->child, call->offset,
                                                   4096, call->flags)
                           : bdrv_co_pwrite(call->child, call->offset, 4096,
                                            memset(g_alloca(4096), 'w', 4096),
                                            0);
}

START_TEST(R71_no_write_beyond_the_end_meets_an_allocation_there)
{
    BlockBackend *blk =
        given(_i, "pass,file.driver=file,file.filename=%s/disk");
    EdgeCall zero = { .offset = 4096, .zero = true, .ret = PENDING };
    EdgeCall beyond = { .offset = 8192, .ret = PENDING };
    EdgeCall inside = { .offset = 0, .ret = PENDING };

    if (!blk) {
        return; /* no io_uring here */
    }
    zero.child = beyond.child = inside.child =
        bdrv_find_child(blk_bs(blk), "file");
    shim.hold = 1u << AIO_OP_FALLOCATE;
    aio_co_enter(ctx, coroutine_create(edge_entry, &zero));
    wait_until_held();
    aio_co_enter(ctx, coroutine_create(edge_entry, &beyond));
    aio_co_enter(ctx, coroutine_create(edge_entry, &inside));
    /* Inside the file nothing waits. */
    wait_for(&inside.ret);
    settle();
    ck_assert_int_eq(shim.nr_writes, 1);
    ck_assert_int_eq(beyond.ret, PENDING);
    let_go(0);
    wait_for(&zero.ret);
    wait_for(&beyond.ret);
    ck_assert_int_eq(inside.ret | zero.ret | beyond.ret, 0);
    ck_assert_int_eq(file_length("disk"), 12288);
    close_backend(blk);
    expect_bytes("disk", 4096, 4096, 0);
    expect_bytes("disk", 8192, 4096, 'w');
}
END_TEST

/* --- file systems that cannot do much ------------------------------------- */

/* A zero write of 4 KiB at @offset by way of the filter's edge. */
static int zero_write(BlockBackend *blk, int64_t offset, unsigned flags)
{
    EdgeCall call = { .child = bdrv_find_child(blk_bs(blk), "file"),
                      .offset = offset, .zero = true, .flags = flags,
                      .ret = PENDING };

    aio_co_enter(ctx, coroutine_create(edge_entry, &call));
    wait_for(&call.ret);
    return call.ret;
}

/* Somebody else makes the file longer, with what is not zero. */
static void grow_with_junk(const char *name, int64_t bytes)
{
    g_autofree char *path = path_of(name);
    g_autofree char *junk = g_strnfill(bytes, 'j');
    FILE *file = fopen(path, "r+");

    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(junk, 1, bytes, file), bytes);
    ck_assert_int_eq(fclose(file), 0);
}

START_TEST(zero_writes_find_a_way_on_any_file_system)
{
    if (!shim_graph(0)) {
        return; /* no io_uring here */
    }
    for (shim.refuse = 0; shim.refuse < 8; shim.refuse++) {
        for (unsigned unmap = 0; unmap < 2; unmap++) {
            unsigned flags = unmap ? BDRV_REQ_MAY_UNMAP : 0;
            BlockBackend *blk;
            int ret;

            make_file("disk", 4096);
            grow_with_junk("disk", 4096);
            blk = file_backend("pass,discard=unmap,file.driver=file,"
                               "file.discard=unmap,file.filename=%s/disk");
            grow_with_junk("disk", 20480);
            shim.nr_refused = 0;
            ck_assert_int_eq(zero_write(blk, 0, flags), 0);
            ck_assert_int_eq(zero_write(blk, 2048, flags), 0);
            ck_assert_int_eq(zero_write(blk, 8192, flags), 0);
            ck_assert_int_eq(zero_write(blk, 30000, flags), 0);
            ck_assert_int_eq(zero_write(blk, 30001, flags), 0);
            /* What was refused once is not tried again. */
            ck_assert_int_le(shim.nr_refused,
                             __builtin_popcount(shim.refuse));
            ret = zero_write(blk, 0, flags | BDRV_REQ_NO_FALLBACK);
            ck_assert(ret == 0 || (ret == -ENOTSUP &&
                                   (shim.refuse || !has_fallocate())));
            ck_assert_int_eq(blk_pdiscard(blk, 0, 4096), 0);
            close_backend(blk);
            expect_bytes("disk", 0, 6144, 0);
            expect_bytes("disk", 6144, 2048, 'j');
            expect_bytes("disk", 8192, 4096, 0);
            expect_bytes("disk", 12288, 8192, 'j');
            expect_bytes("disk", 20480, 34097 - 20480, 0);
            ck_assert_int_eq(file_length("disk"), 34097);
        }
    }
    shim.refuse = 0;
}
END_TEST

START_TEST(a_read_that_is_refused_at_the_end_of_the_file_is_zeroes)
{
    BlockBackend *blk = given(_i, "file,filename=%s/disk");
    char buf[1024];

    if (!blk) {
        return; /* no io_uring here */
    }
    /* Direct I/O refuses to go on from an end that is no whole block. */
    make_file("disk", 1000);
    shim.read_error = EINVAL;
    memset(buf, 1, sizeof(buf));
    ck_assert_int_eq(blk_pread(blk, 512, sizeof(buf), buf, 0), 0);
    ck_assert_int_eq(shim.nr_reads, 2);
    ck_assert(block_buffer_is_zero(buf, sizeof(buf)));
    /* Anywhere else it is an error. */
    ck_assert_int_eq(blk_pread(blk, 0, 512, buf, 0), -EINVAL);
    close_backend(blk);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("file-sync");
    TCase *tc = tcase_create("file-sync");

    register_pass_driver();
    tcase_add_checked_fixture(tc, file_setup, teardown);
    tcase_set_timeout(tc, 100);
    suite_add_tcase(suite, tc);
    tcase_add_loop_test(
        tc, after_a_failed_flush_none_succeeds_until_the_node_is_closed, 0, 3);
    tcase_add_loop_test(tc, after_a_failed_fua_write_no_flush_succeeds, 0, 3);
    tcase_add_loop_test(tc, with_direct_io_a_failed_flush_may_be_tried_again,
                        0, 3);
    tcase_add_loop_test(
        tc, direct_io_that_used_the_page_cache_remembers_a_failed_flush, 0, 9);
    tcase_add_loop_test(
        tc, use_of_the_page_cache_begins_when_no_forgetful_sync_runs, 0, 2);
    tcase_add_loop_test(tc, without_flushes_nothing_is_synced, 0, 3);
    tcase_add_loop_test(tc, a_write_without_space_does_no_harm_to_flushes, 0,
                        2);
    tcase_add_loop_test(tc, a_flush_beside_a_failing_fua_write_fails_too, 0,
                        2);
    tcase_add_loop_test(tc, syncs_that_wait_together_share_one, 0, 2);
    tcase_add_loop_test(
        tc, R71_no_write_beyond_the_end_meets_an_allocation_there, 0, 2);
    tcase_add_loop_test(
        tc, a_read_that_is_refused_at_the_end_of_the_file_is_zeroes, 0, 2);
    PROMISE(tc, zero_writes_find_a_way_on_any_file_system);
    return check_main(suite);
}
