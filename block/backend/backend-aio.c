/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests of a BlockBackend with a callback.
 *
 * Each runs in a coroutine of the calling thread.  A request that ends before
 * the call returns must not call back yet: it goes to a list of the thread,
 * which a bottom half empties in the next turn of the loop, all in one go.
 *
 * A read that would wait for memory first (the entry of a table that no cache
 * of the processor has) is told to the node before it begins.  If others were
 * sent in the same turn of the loop, it begins with the next turn: what they
 * all look at comes at the same time, not one after the other.  Alone it begins
 * at once.  It is counted from the start, so drain waits for it.
 */
#include "block/backend/backend-int.h"

#include "util/aio-engine.h"

/* One request.  Owned by its coroutine, then by the list of the thread. */
typedef struct BlkAio {
    BlkRequest req;
    BlockCompletion *cb;
    void *opaque;
    unsigned ticket;
    bool gate_open; /* when it was counted */
    bool returned;  /* the call has returned: the callback may run */
    int ret;
    struct BlkAio *next; /* in the thread's lists */
} BlkAio;

/* How many requests a thread keeps for later use. */
#define BLK_AIO_SPARE_MAX 256

/* Touched only by its own thread; freed when the thread ends. */
typedef struct BlkAioThread {
    BlkAio *spare;
    unsigned nr_spare;

    BlkAio *done_head; /* ended within the call, in order */
    BlkAio **done_tail;
    AioContext *done_ctx; /* whose bottom half will come; NULL: none */

    BlkAio *held_head; /* begin with the next turn, in order */
    BlkAio **held_tail;
    AioContext *held_ctx; /* as @done_ctx */
    uint64_t told_turn; /* in which the last read was told to its node */
} BlkAioThread;

static void aio_thread_free(gpointer opaque)
{
    BlkAioThread *thread = opaque;

    g_assert(!thread->done_head && !thread->held_head);
    while (thread->spare) {
        BlkAio *aio = thread->spare;

        thread->spare = aio->next;
        g_free(aio);
    }
    g_free(thread);
}

static GPrivate aio_thread_key = G_PRIVATE_INIT(aio_thread_free);

/* Not inlined: a coroutine may go on in another thread. */
static __attribute__((noinline)) BlkAioThread *aio_thread(void)
{
    BlkAioThread *thread = g_private_get(&aio_thread_key);

    if (G_UNLIKELY(!thread)) {
        thread = g_new0(BlkAioThread, 1);
        thread->done_tail = &thread->done_head;
        thread->held_tail = &thread->held_head;
        g_private_set(&aio_thread_key, thread);
    }
    return thread;
}

static BlkAio *aio_alloc(BlkAioThread *thread)
{
    BlkAio *aio = thread->spare;

    if (!aio) {
        return g_new(BlkAio, 1);
    }
    thread->spare = aio->next;
    thread->nr_spare--;
    return aio;
}

static void aio_release(BlkAioThread *thread, BlkAio *aio)
{
    if (thread->nr_spare == BLK_AIO_SPARE_MAX) {
        g_free(aio);
        return;
    }
    aio->next = thread->spare;
    thread->spare = aio;
    thread->nr_spare++;
}

/* The request counts until its callback has returned: drain covers that. */
static void aio_complete(BlkAioThread *thread, BlkAio *aio)
{
    aio->cb(aio->opaque, aio->ret);
    root_leave(&aio->req.blk->root, aio->ticket);
    aio_release(thread, aio);
}

static void aio_done_bh(void *opaque)
{
    BlkAioThread *thread = opaque;
    BlkAio *aio = thread->done_head;

    /* A new list: callbacks send new requests, for the next turn. */
    thread->done_head = NULL;
    thread->done_tail = &thread->done_head;
    thread->done_ctx = NULL;
    while (aio) {
        BlkAio *next = aio->next;

        aio_complete(thread, aio);
        aio = next;
    }
}

static void aio_alone_bh(void *opaque)
{
    aio_complete(aio_thread(), opaque);
}

/* Ended within the call: the callback comes with the next turn. */
static void aio_defer(BlkAio *aio)
{
    BlkAioThread *thread = aio_thread();
    AioContext *ctx = aio_get_current();

    if (G_UNLIKELY(thread->done_ctx && thread->done_ctx != ctx)) {
        /* A second context in this thread, before the first one's turn. */
        aio_bh_schedule_oneshot(ctx, aio_alone_bh, aio);
        return;
    }
    aio->next = NULL;
    *thread->done_tail = aio;
    thread->done_tail = &aio->next;
    if (!thread->done_ctx) {
        thread->done_ctx = ctx;
        aio_bh_schedule_oneshot(ctx, aio_done_bh, thread);
    }
}

static void coroutine_fn aio_entry(void *opaque)
{
    BlkAio *aio = opaque;

    if (G_UNLIKELY(!aio->gate_open)) {
        root_pass(&aio->req.blk->root, &aio->ticket);
    }
    aio->ret = blk_request_run(&aio->req, &aio->ticket);
    if (aio->returned) {
        aio_complete(aio_thread(), aio);
    } else {
        aio_defer(aio);
    }
}

static void aio_begin(BlkAio *aio)
{
    coroutine_enter(coroutine_create(aio_entry, aio));
}

static void aio_held_bh(void *opaque)
{
    BlkAioThread *thread = opaque;
    BlkAio *aio = thread->held_head;

    thread->held_head = NULL;
    thread->held_tail = &thread->held_head;
    thread->held_ctx = NULL;
    while (aio) {
        BlkAio *next = aio->next; /* gone when it has ended */

        aio_begin(aio);
        aio = next;
    }
}

/* Hold @aio, which is counted, until the next turn. */
static void aio_hold(BlkAioThread *thread, BlkAio *aio)
{
    AioContext *ctx = aio_get_current();

    aio->returned = true;
    aio->next = NULL;
    *thread->held_tail = aio;
    thread->held_tail = &aio->next;
    if (!thread->held_ctx) {
        thread->held_ctx = ctx;
        aio_bh_schedule_oneshot(ctx, aio_held_bh, thread);
    }
}

/* Whether a request of @child, whose gate is open, may have to be told. */
static inline bool aio_may_tell(const BdrvChild *child)
{
    return child && (child->bs->drv->expect_read || child->bs->filtered);
}

/* Tell the node of @aio; whether to hold it. */
static __attribute__((noinline)) bool aio_should_hold(BlkAioThread *thread,
                                                      const BlkAio *aio)
{
    const BlkRequest *req = &aio->req;
    AioContext *ctx;
    uint64_t turn;
    bool alone;

    if (req->type != BLOCK_ACCT_READ || req->offset < 0 ||
        !bdrv_expect_read(req->blk->root.child, req->offset, req->bytes)) {
        return false;
    }
    ctx = aio_get_current();
    turn = aio_context_turn(ctx);
    alone = thread->told_turn != turn;
    thread->told_turn = turn;
    /* A second context in this thread has its turns to itself. */
    return !alone && (!thread->held_ctx || thread->held_ctx == ctx);
}

static void aio_send(const BlkRequest *req, BlockCompletion *cb, void *opaque)
{
    BlkAioThread *thread = aio_thread();
    BlkAio *aio = aio_alloc(thread);

    aio->req = *req;
    aio->cb = cb;
    aio->opaque = opaque;
    aio->returned = false;
    /* Counted before it can run: whoever drains now sees it. */
    aio->gate_open = root_count(&req->blk->root, &aio->ticket);
    /* The node may change as long as the gate is not open for us. */
    if (aio->gate_open && aio_may_tell(req->blk->root.child) &&
        aio_should_hold(thread, aio)) {
        aio_hold(thread, aio);
        return;
    }
    aio_begin(aio);
    /* @aio lives: it is given back only by a callback in a later turn. */
    aio->returned = true;
}

void blk_aio_preadv(BlockBackend *blk, int64_t offset, BlockIOVec *iov,
                    unsigned flags, BlockCompletion *cb, void *opaque)
{
    BlkRequest req = { blk, BLOCK_ACCT_READ, offset, iov->size, iov, flags };

    aio_send(&req, cb, opaque);
}

void blk_aio_pwritev(BlockBackend *blk, int64_t offset, BlockIOVec *iov,
                     unsigned flags, BlockCompletion *cb, void *opaque)
{
    BlkRequest req = { blk, BLOCK_ACCT_WRITE, offset, iov->size, iov, flags };

    aio_send(&req, cb, opaque);
}

void blk_aio_pwrite_zeroes(BlockBackend *blk, int64_t offset, int64_t bytes,
                           unsigned flags, BlockCompletion *cb, void *opaque)
{
    BlkRequest req = { blk, BLOCK_ACCT_ZERO, offset, bytes, NULL, flags };

    aio_send(&req, cb, opaque);
}

void blk_aio_pdiscard(BlockBackend *blk, int64_t offset, int64_t bytes,
                      BlockCompletion *cb, void *opaque)
{
    BlkRequest req = { blk, BLOCK_ACCT_UNMAP, offset, bytes, NULL, 0 };

    aio_send(&req, cb, opaque);
}

void blk_aio_flush(BlockBackend *blk, BlockCompletion *cb, void *opaque)
{
    BlkRequest req = { blk, BLOCK_ACCT_FLUSH, 0, 0, NULL, 0 };

    aio_send(&req, cb, opaque);
}
