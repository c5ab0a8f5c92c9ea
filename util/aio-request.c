/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One request: blocking execution in a worker thread, and waiting for it in a
 * coroutine.
 *
 * A worker sets the result and wakes the coroutine through the remote stack of
 * its context, which orders the two (aio-co.c).  The coroutine cannot be
 * entered before it has yielded, since its own thread does that.
 */
#include "util/aio-context.h"
#include "util/sim-point.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

/* The longest transfer that aio_request_run_inline() does itself. */
#define INLINE_BYTES_MAX (256 * 1024)

/* A write from the first on keeps others waiting for longer than it takes to
 * hand them over; what is longer than the second is a job's, which may wait. */
#define LONG_WRITE_BYTES (32 * 1024)
#define HANDED_BYTES_MAX (64 * 1024)

/* One piece without flags, as most requests are: spares the kernel a copy. */
static ssize_t rw_one_piece(const AioRequest *req)
{
    const struct iovec *iov = req->iov;

    return req->op == AIO_OP_READV
               ? pread(req->fd, iov->iov_base, iov->iov_len, req->offset)
               : pwrite(req->fd, iov->iov_base, iov->iov_len, req->offset);
}

static int64_t run_rw(const AioRequest *req)
{
    ssize_t ret;

    do {
        if (req->niov == 1 && !req->flags) {
            ret = rw_one_piece(req);
        } else if (req->op == AIO_OP_READV) {
            ret = preadv(req->fd, req->iov, req->niov, req->offset);
        } else if (req->flags) {
            ret = pwritev2(req->fd, req->iov, req->niov, req->offset,
                           req->flags);
        } else {
            ret = pwritev(req->fd, req->iov, req->niov, req->offset);
        }
    } while (ret < 0 && errno == EINTR);
    return ret < 0 ? -errno : ret;
}

void aio_request_run_blocking(AioRequest *req)
{
    int ret = 0;

    switch (req->op) {
    case AIO_OP_READV:
    case AIO_OP_WRITEV:
        req->result = run_rw(req);
        return;
    case AIO_OP_RECV:
    case AIO_OP_SEND:
        g_assert_not_reached(); /* not blocking: aio-socket.c */
    case AIO_OP_FDATASYNC:
        /* Not repeated: a second call may succeed although data is lost. */
        ret = fdatasync(req->fd);
        break;
    case AIO_OP_FALLOCATE:
        do {
            ret = fallocate(req->fd, req->flags, req->offset, req->bytes);
        } while (ret < 0 && errno == EINTR);
        break;
    }
    req->result = ret < 0 ? -errno : 0;
}

bool aio_request_is_copy(const AioRequest *req)
{
    return req->in_memory && req->op <= AIO_OP_FDATASYNC &&
           req->bytes <= INLINE_BYTES_MAX;
}

/* What never waits for a disk never makes the kernel start a second thread for
 * a ring: all reads and writes of files in memory would follow each other. */
bool aio_request_is_long_copy(const AioRequest *req)
{
    return req->in_memory && req->op == AIO_OP_READV &&
           req->bytes > INLINE_BYTES_MAX;
}

/*
 * The first short read of a turn does not even wait for the next one: who reads
 * a little before going on, as copy-before-write does, saves a round.  One a
 * turn, so that nobody keeps the thread for himself.
 */
bool aio_request_run_at_once(AioContext *ctx, AioRequest *req)
{
    if (req->op != AIO_OP_READV || ctx->copy_turn == ctx->turn ||
        !aio_request_is_copy(req)) {
        return false;
    }
    ctx->copy_turn = ctx->turn;
    aio_request_run_blocking(req);
    return true;
}

/* Count a long write, and tell whether it is to go to another thread as one
 * more has the file's lock, or soon will have. */
static bool begin_long_write(AioRequest *req)
{
    req->counted = req->long_writes && req->op == AIO_OP_WRITEV &&
                   req->bytes >= LONG_WRITE_BYTES;
    return req->counted && atomic_fetch_add(req->long_writes, 1) > 0 &&
           req->bytes <= HANDED_BYTES_MAX;
}

static void end_long_write(AioRequest *req)
{
    if (req->counted) {
        atomic_fetch_sub(req->long_writes, 1);
        req->counted = false;
    }
}

/*
 * The kernel has no way to read or write such a file without the right to
 * block, so io_uring hands each request to a thread of its own.  To copy a few
 * pages here takes less time than that hand-over.  The coroutine still waits
 * for the next turn, so that it cannot keep the thread for itself.
 *
 * The file has one lock for all writes.  A guest's copy-before-write that waits
 * for it, beside a backup to the same target, would keep all else waiting that
 * this thread has to do: so it is handed over.
 */
bool aio_request_run_inline(AioContext *ctx, AioRequest *req)
{
    bool waits = begin_long_write(req);

    if (waits || !aio_request_is_copy(req)) {
        return false;
    }
    aio_request_run_blocking(req);
    end_long_write(req);
    aio_co_schedule(ctx, req->co);
    return true;
}

static void request_work(WorkItem *item)
{
    AioRequest *req = (AioRequest *)((char *)item - offsetof(AioRequest, work));
    Coroutine *co = req->co;

    aio_request_run_blocking(req);
    aio_co_wake(co);            /* @req is gone from here on */
}

bool aio_request_submit_to_workers(AioContext *ctx, AioRequest *req)
{
    req->work.func = request_work;
    ctx->ops->work(ctx, ctx->state, &req->work);
    return true;
}

int64_t coroutine_fn aio_request_co_run(AioRequest *req, bool in_workers)
{
    AioContext *ctx = aio_get_current();
    bool pending;

    g_assert(ctx && in_coroutine());
    req->co = coroutine_self();
    if (in_workers) {
        pending = aio_request_submit_to_workers(ctx, req);
    } else {
        pending = ctx->ops->submit(ctx, ctx->state, req);
    }
    if (pending) {
        SIM_WAITS("a request of the engine", req);
        coroutine_yield();
    }
    end_long_write(req);
    return req->result;
}

/* --- other blocking work ------------------------------------------------- */

typedef struct CoWork {
    WorkItem item;
    int (*func)(void *opaque);
    void *opaque;
    int ret;
    Coroutine *co;
} CoWork;

static void co_work_func(WorkItem *item)
{
    CoWork *work = (CoWork *)((char *)item - offsetof(CoWork, item));
    Coroutine *co = work->co;

    work->ret = work->func(work->opaque);
    aio_co_wake(co);            /* @work is gone from here on */
}

int coroutine_fn aio_co_work(int (*func)(void *opaque), void *opaque)
{
    AioContext *ctx = aio_get_current();
    CoWork work = {
        .item.func = co_work_func,
        .func = func,
        .opaque = opaque,
        .co = coroutine_self(),
    };

    g_assert(ctx && work.co);
    ctx->ops->work(ctx, ctx->state, &work.item);
    SIM_WAITS("a worker thread", opaque);
    coroutine_yield();
    return work.ret;
}
