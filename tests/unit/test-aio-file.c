/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Disk I/O through an AioFile: whole transfers, whatever the kernel returns.
 *
 * A test runs once for each engine and each mode.  Faults are injected at the
 * table of the engine: what the shim returns is what a kernel may return.
 */
#include "aio-fixture.h"

#include "util/aio-engine.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct Fixture {
    AioContext *ctx;
    AioFile *file;
    int fd;
} Fixture;

#define NR_VARIANTS 4           /* engine, mode */

static bool fixture_open(Fixture *f, int i, int flags)
{
    f->ctx = aio_fixture_context(i % 2);
    if (!f->ctx) {
        return false;
    }
    f->fd = open_tmp_in(g_get_tmp_dir(), flags);
    ck_assert_int_ge(f->fd, 0);
    f->file = aio_file_new(f->fd, i / 2 ? AIO_FILE_THREADS : AIO_FILE_ENGINE);
    ck_assert_int_eq(aio_file_fd(f->file), f->fd);
    return true;
}

static void fixture_close(Fixture *f)
{
    aio_file_free(f->file);
    close(f->fd);
    aio_context_unref(f->ctx);
}

/* One call of the API, so that aio_co_run() can make it. */
typedef struct Call {
    AioFile *file;
    const struct iovec *iov;
    int niov;
    int64_t offset;
    int64_t bytes;
    bool fua;
    int mode;
    int64_t ret;
} Call;

static int coroutine_fn call_read(void *opaque)
{
    Call *c = opaque;

    c->ret = aio_file_preadv(c->file, c->iov, c->niov, c->offset, c->bytes);
    return 0;
}

static int coroutine_fn call_write(void *opaque)
{
    Call *c = opaque;

    c->ret = aio_file_pwritev(c->file, c->iov, c->niov, c->offset, c->bytes,
                              c->fua);
    return 0;
}

static int coroutine_fn call_flush(void *opaque)
{
    Call *c = opaque;

    c->ret = aio_file_fdatasync(c->file);
    return 0;
}

static int coroutine_fn call_fallocate(void *opaque)
{
    Call *c = opaque;

    c->ret = aio_file_fallocate(c->file, c->mode, c->offset, c->bytes);
    return 0;
}

static int64_t do_rw(AioContext *ctx, AioFile *file, bool write, void *buf,
                     int64_t offset, int64_t bytes)
{
    struct iovec iov = { buf, bytes };
    Call c = {
        .file = file, .iov = &iov, .niov = 1, .offset = offset, .bytes = bytes,
    };

    aio_co_run(ctx, write ? call_write : call_read, &c);
    return c.ret;
}

static void fill(char *buf, size_t bytes, int seed)
{
    for (size_t i = 0; i < bytes; i++) {
        buf[i] = (char)(i * 7 + i / 256 + seed);
    }
}

/* --- without faults ------------------------------------------------------ */

START_TEST(what_is_written_is_read_back)
{
    char out[3000], in[3000];
    struct iovec piece[4] = {
        { out, 1 }, { out + 1, 0 }, { out + 1, 1999 }, { out + 2000, 1000 },
    };
    Fixture f;
    Call c;

    if (!fixture_open(&f, _i, 0)) {
        return;
    }
    fill(out, sizeof(out), 1);
    c = (Call) { .file = f.file, .iov = piece, .niov = 4, .offset = 777,
                 .bytes = 3000, .fua = true };
    aio_co_run(f.ctx, call_write, &c);
    ck_assert_int_eq(c.ret, 0);
    aio_co_run(f.ctx, call_flush, &c);
    ck_assert_int_eq(c.ret, 0);
    ck_assert_int_eq(pread(f.fd, in, sizeof(in), 777), sizeof(in));
    ck_assert_mem_eq(in, out, sizeof(in));

    memset(in, 0, sizeof(in));
    for (int i = 0; i < 4; i++) {
        piece[i].iov_base = in + ((char *)piece[i].iov_base - out);
    }
    aio_co_run(f.ctx, call_read, &c);
    ck_assert_int_eq(c.ret, 3000);
    ck_assert_mem_eq(in, out, sizeof(in));
    fixture_close(&f);
}
END_TEST

START_TEST(a_read_ends_at_the_end_of_the_file)
{
    char buf[100];
    Fixture f;

    if (!fixture_open(&f, _i, 0)) {
        return;
    }
    ck_assert_int_eq(ftruncate(f.fd, 60), 0);
    ck_assert_int_eq(do_rw(f.ctx, f.file, false, buf, 0, 100), 60);
    ck_assert_int_eq(do_rw(f.ctx, f.file, false, buf, 59, 100), 1);
    ck_assert_int_eq(do_rw(f.ctx, f.file, false, buf, 60, 100), 0);
    ck_assert_int_eq(do_rw(f.ctx, f.file, false, buf, 1000, 100), 0);
    ck_assert_int_eq(do_rw(f.ctx, f.file, false, buf, 0, 0), 0);
    fixture_close(&f);
}
END_TEST

START_TEST(a_direct_read_ends_at_an_unaligned_end_of_the_file)
{
    Fixture f;
    int64_t ret;
    char *buf;

    if (!fixture_open(&f, _i, 0)) {
        return;
    }
    ck_assert_int_eq(posix_memalign((void **)&buf, 4096, 8192), 0);
    fill(buf, 8192, 3);
    ck_assert_int_eq(pwrite(f.fd, buf, 5000, 0), 5000);
    if (fcntl(f.fd, F_SETFL, O_DIRECT) == 0) {
        memset(buf, 0, 8192);
        ck_assert_int_eq(do_rw(f.ctx, f.file, false, buf, 0, 8192), 5000);
        ck_assert_int_eq(buf[4999], (char)(4999 * 7 + 4999 / 256 + 3));
        /* A read that cannot be right is still refused, or done after all:
         * some file systems (btrfs) read through the page cache then. */
        ret = do_rw(f.ctx, f.file, false, buf + 1, 1, 100);
        ck_assert(ret == -EINVAL || ret == 100);
    }
    free(buf);
    fixture_close(&f);
}
END_TEST

START_TEST(offsets_beyond_four_gigabytes_are_kept)
{
    const int64_t far = INT64_C(5) << 30;
    char out[512], in[512];
    Fixture f;

    if (!fixture_open(&f, _i, 0)) {
        return;
    }
    fill(out, sizeof(out), 9);
    ck_assert_int_eq(do_rw(f.ctx, f.file, true, out, far + 1, 512), 0);
    ck_assert_int_eq(do_rw(f.ctx, f.file, false, in, far + 1, 512), 512);
    ck_assert_mem_eq(in, out, 512);
    ck_assert_int_eq(do_rw(f.ctx, f.file, false, in, far % (INT64_C(1) << 32),
                           512), 512);
    ck_assert(in[0] == 0 && memcmp(in, in + 1, 511) == 0);
    fixture_close(&f);
}
END_TEST

START_TEST(a_vector_may_have_more_pieces_than_one_call_takes)
{
    enum { N = 2 * IOV_MAX + 5 };
    struct iovec *iov = g_new(struct iovec, N);
    char *out = g_malloc(N * 3), *in = g_malloc0(N * 3);
    Fixture f;
    Call c;

    if (fixture_open(&f, _i, 0)) {
        fill(out, N * 3, 4);
        for (int i = 0; i < N; i++) {
            iov[i] = (struct iovec) { out + i * 3, 3 };
        }
        c = (Call) { .file = f.file, .iov = iov, .niov = N, .bytes = N * 3 };
        aio_co_run(f.ctx, call_write, &c);
        ck_assert_int_eq(c.ret, 0);
        for (int i = 0; i < N; i++) {
            iov[i].iov_base = in + i * 3;
        }
        aio_co_run(f.ctx, call_read, &c);
        ck_assert_int_eq(c.ret, N * 3);
        ck_assert_mem_eq(in, out, N * 3);
        fixture_close(&f);
    }
    g_free(iov);
    g_free(out);
    g_free(in);
}
END_TEST

START_TEST(fallocate_makes_room_and_holes)
{
    char buf[8192];
    struct stat st;
    Fixture f;
    Call c;

    if (!fixture_open(&f, _i, 0)) {
        return;
    }
    c = (Call) { .file = f.file, .offset = 0, .bytes = 8192 };
    aio_co_run(f.ctx, call_fallocate, &c);
    ck_assert_int_eq(c.ret, 0);
    ck_assert_int_eq(fstat(f.fd, &st), 0);
    ck_assert_int_eq(st.st_size, 8192);
    memset(buf, 'x', sizeof(buf));
    ck_assert_int_eq(do_rw(f.ctx, f.file, true, buf, 0, 8192), 0);
    c = (Call) { .file = f.file, .offset = 4096, .bytes = 4096,
                 .mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE };
    aio_co_run(f.ctx, call_fallocate, &c);
    ck_assert_int_eq(c.ret, 0);
    ck_assert_int_eq(do_rw(f.ctx, f.file, false, buf, 0, 8192), 8192);
    ck_assert(buf[4095] == 'x' && buf[4096] == 0 && buf[8191] == 0);
    c.mode = -1;
    aio_co_run(f.ctx, call_fallocate, &c);
    ck_assert_int_eq(c.ret, -EOPNOTSUPP);
    fixture_close(&f);
}
END_TEST

START_TEST(a_bad_descriptor_is_an_error_of_each_call)
{
    Fixture f;
    char c;

    if (!fixture_open(&f, _i, 0)) {
        return;
    }
    aio_file_free(f.file);
    f.file = aio_file_new(1 << 20, _i / 2 ? AIO_FILE_THREADS : AIO_FILE_ENGINE);
    ck_assert_int_eq(do_rw(f.ctx, f.file, false, &c, 0, 1), -EBADF);
    ck_assert_int_eq(do_rw(f.ctx, f.file, true, &c, 0, 1), -EBADF);
    ck_assert_int_eq(do_rw(f.ctx, f.file, true, &c, 0, 0), 0);
    fixture_close(&f);
}
END_TEST

/* --- many at once -------------------------------------------------------- */

/* More than both queues of the ring hold. */
#define NR_PARALLEL 3000
#define BLOCK 512

typedef struct Many {
    AioFile *file;
    int nr_running;
    int next;
} Many;

static void coroutine_fn write_and_read_one(void *opaque)
{
    Many *many = opaque;
    int number = many->next++;
    char out[BLOCK], in[BLOCK];
    struct iovec iov = { out, BLOCK };

    fill(out, BLOCK, number);
    ck_assert_int_eq(aio_file_pwritev(many->file, &iov, 1,
                                      (int64_t)number * BLOCK, BLOCK, false),
                     0);
    iov.iov_base = in;
    ck_assert_int_eq(aio_file_preadv(many->file, &iov, 1,
                                     (int64_t)number * BLOCK, BLOCK), BLOCK);
    ck_assert_mem_eq(in, out, BLOCK);
    many->nr_running--;
}

START_TEST(more_requests_than_the_ring_has_entries_run_at_once)
{
    Fixture f;
    Many many;

    if (!fixture_open(&f, _i, 0)) {
        return;
    }
    many = (Many) { .file = f.file, .nr_running = NR_PARALLEL };
    aio_context_bind(f.ctx);
    for (int i = 0; i < NR_PARALLEL; i++) {
        aio_co_enter(f.ctx, coroutine_create(write_and_read_one, &many));
    }
    while (many.nr_running > 0) {
        aio_poll(f.ctx, true);
    }
    fixture_close(&f);
}
END_TEST

#define NR_IOTHREADS 3

typedef struct Share {
    AioFile *file;
    int thread;
    _Atomic int *nr_running;
    AioContext *main_ctx;
} Share;

static void wake_main(void *opaque)
{
}

static void coroutine_fn use_shared_file(void *opaque)
{
    Share *s = opaque;

    for (int i = 0; i < 200; i++) {
        int64_t offset = ((int64_t)i * NR_IOTHREADS + s->thread) * BLOCK;
        char out[BLOCK], in[BLOCK];
        struct iovec iov = { out, BLOCK };

        fill(out, BLOCK, i + s->thread);
        ck_assert_int_eq(aio_file_pwritev(s->file, &iov, 1, offset, BLOCK,
                                          false), 0);
        iov.iov_base = in;
        ck_assert_int_eq(aio_file_preadv(s->file, &iov, 1, offset, BLOCK),
                         BLOCK);
        ck_assert_mem_eq(in, out, BLOCK);
    }
    atomic_fetch_sub(s->nr_running, 1);
    aio_bh_schedule_oneshot(s->main_ctx, wake_main, NULL);
}

START_TEST(three_threads_use_one_file)
{
    IOThread *thread[NR_IOTHREADS];
    Share share[NR_IOTHREADS];
    _Atomic int nr_running = NR_IOTHREADS;
    Fixture f;

    if (!fixture_open(&f, _i, 0)) {
        return;
    }
    aio_context_bind(f.ctx);
    for (int i = 0; i < NR_IOTHREADS; i++) {
        thread[i] = iothread_new("test", aio_engines[_i % 2], NULL);
        ck_assert_ptr_nonnull(thread[i]);
        share[i] = (Share) { f.file, i, &nr_running, f.ctx };
        aio_co_enter(iothread_get_aio_context(thread[i]),
                     coroutine_create(use_shared_file, &share[i]));
    }
    while (atomic_load(&nr_running) > 0) {
        aio_poll(f.ctx, true);
    }
    for (int i = 0; i < NR_IOTHREADS; i++) {
        iothread_free(thread[i]);
    }
    while (aio_poll(f.ctx, false)) {
        continue;
    }
    fixture_close(&f);
}
END_TEST

/* --- with faults --------------------------------------------------------- */

#define FAULTS_MAX 8

/* What the next requests return; the last step of the plan is repeated. */
static struct Shim {
    const AioEngineOps *real;
    int64_t plan[FAULTS_MAX];   /* > 0: move at most this; else the result */
    int nr_plan;
    int step;
    bool at_once;               /* complete inside submit */
    int nr_flushes;
    int nr_fua;
    bool refuse_fua;
} shim;

static void shim_wake(void *opaque)
{
    aio_co_wake(opaque);
}

static int64_t shim_result(AioRequest *req)
{
    int64_t most = shim.plan[MIN(shim.step, shim.nr_plan - 1)];
    struct iovec few[8];
    AioRequest part = *req;

    shim.step++;
    if (req->op == AIO_OP_FDATASYNC) {
        shim.nr_flushes++;
    }
    if (req->op == AIO_OP_WRITEV && req->flags) {
        shim.nr_fua++;
        if (shim.refuse_fua) {
            return -EOPNOTSUPP;
        }
    }
    if (most <= 0) {
        return most;
    }
    if (req->op == AIO_OP_READV || req->op == AIO_OP_WRITEV) {
        ck_assert_int_le(req->niov, 8);
        part.iov = few;
        for (int i = 0; i < req->niov; i++) {
            few[i] = req->iov[i];
            few[i].iov_len = MIN((int64_t)few[i].iov_len, most);
            most -= few[i].iov_len;
        }
    }
    aio_request_run_blocking(&part);
    return part.result;
}

static bool shim_submit(AioContext *ctx, void *state, AioRequest *req)
{
    req->result = shim_result(req);
    if (shim.at_once) {
        return false;
    }
    aio_bh_schedule_oneshot(ctx, shim_wake, req->co);
    return true;
}

static AioEngineOps shim_ops;

/* Variant 1 and 3 complete inside submit. */
static bool shim_open(Fixture *f, int i)
{
    shim.real = i / 2 ? &aio_threads_ops : &aio_uring_ops;
    shim.at_once = i % 2;
    shim_ops = *shim.real;
    shim_ops.submit = shim_submit;
    f->ctx = aio_context_new_with_ops(&shim_ops, NULL);
    if (!f->ctx) {
        return false;
    }
    f->fd = open_tmp_in(g_get_tmp_dir(), 0);
    f->file = aio_file_new(f->fd, AIO_FILE_ENGINE);
    return true;
}

static void plan(int nr, const int64_t *steps)
{
    memcpy(shim.plan, steps, nr * sizeof(*steps));
    shim.nr_plan = nr;
    shim.step = shim.nr_flushes = shim.nr_fua = 0;
}

#define PLAN(...)                                                             \
    plan(sizeof((int64_t[]) { __VA_ARGS__ }) / sizeof(int64_t),               \
         (int64_t[]) { __VA_ARGS__ })

#define VECTOR_BYTES 23

/* Pieces of 3, 0, 8, 1, 0 and 11 bytes. */
static void cut(struct iovec *iov, char *buf)
{
    const size_t len[6] = { 3, 0, 8, 1, 0, 11 };

    for (int i = 0; i < 6; i++) {
        iov[i] = (struct iovec) { buf, len[i] };
        buf += len[i];
    }
}

/*
 * Each first length, then each second length: every stop inside and between
 * pieces, twice in one transfer.
 */
START_TEST(a_transfer_goes_on_after_every_prefix)
{
    char out[VECTOR_BYTES], in[VECTOR_BYTES];
    struct iovec iov[6];
    Fixture f;
    Call c;

    if (!shim_open(&f, _i)) {
        return;
    }
    c = (Call) { .file = f.file, .iov = iov, .niov = 6, .bytes = VECTOR_BYTES };
    for (int first = 1; first < VECTOR_BYTES; first++) {
        for (int second = 1; second <= VECTOR_BYTES - first; second++) {
            c.offset = first * 100 + second;
            fill(out, VECTOR_BYTES, first * 31 + second);
            cut(iov, out);
            PLAN(first, -EINTR, second, -EAGAIN, VECTOR_BYTES);
            aio_co_run(f.ctx, call_write, &c);
            ck_assert_int_eq(c.ret, 0);
            ck_assert_int_eq(pread(f.fd, in, VECTOR_BYTES, c.offset),
                             VECTOR_BYTES);
            ck_assert_mem_eq(in, out, VECTOR_BYTES);

            memset(in, 0, VECTOR_BYTES);
            cut(iov, in);
            PLAN(-EAGAIN, first, -EINTR, -EINTR, second, VECTOR_BYTES);
            aio_co_run(f.ctx, call_read, &c);
            ck_assert_int_eq(c.ret, VECTOR_BYTES);
            ck_assert_mem_eq(in, out, VECTOR_BYTES);
        }
    }
    fixture_close(&f);
}
END_TEST

START_TEST(one_byte_at_a_time_is_enough)
{
    char out[VECTOR_BYTES], in[VECTOR_BYTES];
    struct iovec iov[6];
    Fixture f;
    Call c;

    if (!shim_open(&f, _i)) {
        return;
    }
    c = (Call) { .file = f.file, .iov = iov, .niov = 6, .bytes = VECTOR_BYTES };
    fill(out, VECTOR_BYTES, 5);
    cut(iov, out);
    PLAN(1);
    aio_co_run(f.ctx, call_write, &c);
    ck_assert_int_eq(c.ret, 0);
    memset(in, 0, VECTOR_BYTES);
    cut(iov, in);
    aio_co_run(f.ctx, call_read, &c);
    ck_assert_int_eq(c.ret, VECTOR_BYTES);
    ck_assert_mem_eq(in, out, VECTOR_BYTES);
    fixture_close(&f);
}
END_TEST

START_TEST(errors_end_a_transfer)
{
    char buf[20] = { 0 };
    Fixture f;

    if (!shim_open(&f, _i)) {
        return;
    }
    PLAN(7, -EIO);
    ck_assert_int_eq(do_rw(f.ctx, f.file, true, buf, 0, 20), -EIO);
    ck_assert_int_eq(shim.step, 2);
    PLAN(-ENOSPC);
    ck_assert_int_eq(do_rw(f.ctx, f.file, true, buf, 0, 20), -ENOSPC);
    PLAN(5, -EIO);
    ck_assert_int_eq(do_rw(f.ctx, f.file, false, buf, 0, 20), -EIO);
    PLAN(-EINVAL);
    ck_assert_int_eq(do_rw(f.ctx, f.file, false, buf, 0, 20), -EINVAL);
    fixture_close(&f);
}
END_TEST

START_TEST(zero_bytes_are_the_end_for_a_reader_and_an_error_for_a_writer)
{
    char buf[20] = { 0 };
    Fixture f;

    if (!shim_open(&f, _i)) {
        return;
    }
    PLAN(20);
    ck_assert_int_eq(do_rw(f.ctx, f.file, true, buf, 0, 20), 0);
    PLAN(6, 0);
    ck_assert_int_eq(do_rw(f.ctx, f.file, true, buf, 0, 20), -EIO);
    PLAN(6, 0);
    ck_assert_int_eq(do_rw(f.ctx, f.file, false, buf, 0, 20), 6);
    fixture_close(&f);
}
END_TEST

START_TEST(a_failed_flush_is_not_tried_again)
{
    Fixture f;
    Call c;

    if (!shim_open(&f, _i)) {
        return;
    }
    c = (Call) { .file = f.file };
    for (int i = 0; i < 3; i++) {
        const int errors[3] = { -EIO, -EINTR, -EAGAIN };

        PLAN(errors[i], 1);
        aio_co_run(f.ctx, call_flush, &c);
        ck_assert_int_eq(c.ret, errors[i]);
        ck_assert_int_eq(shim.nr_flushes, 1);
    }
    fixture_close(&f);
}
END_TEST

START_TEST(fallocate_is_tried_again_when_interrupted)
{
    Fixture f;
    Call c;

    if (!shim_open(&f, _i)) {
        return;
    }
    c = (Call) { .file = f.file, .bytes = 4096 };
    PLAN(-EINTR, -EAGAIN, 1);
    aio_co_run(f.ctx, call_fallocate, &c);
    ck_assert_int_eq(c.ret, 0);
    ck_assert_int_eq(shim.step, 3);
    PLAN(-ENOSPC);
    aio_co_run(f.ctx, call_fallocate, &c);
    ck_assert_int_eq(c.ret, -ENOSPC);
    fixture_close(&f);
}
END_TEST

START_TEST(fua_that_the_system_refuses_becomes_a_flush)
{
    char buf[20] = { 0 };
    struct iovec iov = { buf, 20 };
    Fixture f;
    Call c;

    if (!shim_open(&f, _i)) {
        return;
    }
    c = (Call) { .file = f.file, .iov = &iov, .niov = 1, .bytes = 20,
                 .fua = true };
    PLAN(20);
    aio_co_run(f.ctx, call_write, &c);
    ck_assert_int_eq(c.ret, 0);
    ck_assert_int_eq(shim.nr_fua, 1);
    ck_assert_int_eq(shim.nr_flushes, 0);

    shim.refuse_fua = true;
    PLAN(20);
    aio_co_run(f.ctx, call_write, &c);
    ck_assert_int_eq(c.ret, 0);
    ck_assert_int_eq(shim.nr_flushes, 1);

    PLAN(20, 20, -EIO);             /* refused, written, flush fails */
    aio_co_run(f.ctx, call_write, &c);
    ck_assert_int_eq(c.ret, -EIO);
    shim.refuse_fua = false;
    fixture_close(&f);
}
END_TEST

#define PROMISE_VARIANTS(tcase, test)                                         \
    tcase_add_loop_test(tcase, test, 0, NR_VARIANTS)

int main(void)
{
    Suite *suite = suite_create("aio-file");
    TCase *plain = new_tcase(suite, "plain");
    TCase *faults = new_tcase(suite, "faults");

    PROMISE_VARIANTS(plain, what_is_written_is_read_back);
    PROMISE_VARIANTS(plain, a_read_ends_at_the_end_of_the_file);
    PROMISE_VARIANTS(plain, a_direct_read_ends_at_an_unaligned_end_of_the_file);
    PROMISE_VARIANTS(plain, offsets_beyond_four_gigabytes_are_kept);
    PROMISE_VARIANTS(plain, a_vector_may_have_more_pieces_than_one_call_takes);
    PROMISE_VARIANTS(plain, fallocate_makes_room_and_holes);
    PROMISE_VARIANTS(plain, a_bad_descriptor_is_an_error_of_each_call);
    PROMISE_VARIANTS(plain,
                     more_requests_than_the_ring_has_entries_run_at_once);
    PROMISE_VARIANTS(plain, three_threads_use_one_file);
    PROMISE_VARIANTS(faults, a_transfer_goes_on_after_every_prefix);
    PROMISE_VARIANTS(faults, one_byte_at_a_time_is_enough);
    PROMISE_VARIANTS(faults, errors_end_a_transfer);
    PROMISE_VARIANTS(
        faults, zero_bytes_are_the_end_for_a_reader_and_an_error_for_a_writer);
    PROMISE_VARIANTS(faults, a_failed_flush_is_not_tried_again);
    PROMISE_VARIANTS(faults, fallocate_is_tried_again_when_interrupted);
    PROMISE_VARIANTS(faults, fua_that_the_system_refuses_becomes_a_flush);
    return check_main(suite);
}
