/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * AioContext: its life, its home thread, and the turn of the loop.
 *
 * How a wake-up from another thread is never lost, and costs no system call
 * while the loop is awake:
 *
 *   waker                              home thread
 *   W1 push onto a remote stack        H1 sleeping = true
 *   W2 if sleeping was true and        H2 look at the remote stacks
 *      we are the one who turns it     H3 if they are empty: wait in the
 *      to false: ops->wake()              engine until ops->wake()
 *                                      H4 sleeping = false
 *
 * W1, W2, H1 and H2 are sequentially consistent, so they stand in one order
 * that all threads agree on.  If W1 is before H2, the home thread sees the
 * work and does not wait.  Otherwise H1 < H2 < W1 < W2: the waker reads true,
 * or somebody else has turned it to false in between: another waker, who then
 * calls ops->wake(), or the home thread itself at H4, which looks at the stacks
 * again before it waits again.  A wake() that comes too late (the home thread
 * is awake already) ends the next wait early, which does no harm.
 */
#include "util/aio-context.h"

#include <blockgraph/iov.h>
#include <sched.h>
#include <unistd.h>

/* Which indexes are in use.  Only spreads counters; no graph depends on it. */
static _Atomic uint64_t indexes_used;
static _Atomic unsigned next_shared_index;

static _Atomic uint64_t next_thread_number = 1;
static __thread AioThread this_thread;

/*
 * A coroutine may go on in another thread after a yield, so the address of
 * this_thread must not be kept in a register over one: not inlined, and opaque
 * to the compiler.
 */
__attribute__((noinline)) AioThread *aio_thread(void)
{
    AioThread *thread = &this_thread;

    __asm__ volatile("" : "+r"(thread));
    if (G_UNLIKELY(thread->number == 0)) {
        thread->number = atomic_fetch_add(&next_thread_number, 1);
    }
    return thread;
}

/* --- life ---------------------------------------------------------------- */

static void index_take(AioContext *ctx)
{
    uint64_t used = atomic_load(&indexes_used);

    while (used != UINT64_MAX) {
        unsigned index = __builtin_ctzll(~used);

        if (atomic_compare_exchange_weak(&indexes_used, &used,
                                         used | UINT64_C(1) << index)) {
            ctx->index = index;
            ctx->index_is_ours = true;
            return;
        }
    }
    ctx->index = atomic_fetch_add(&next_shared_index, 1) % 64;
}

static void index_drop(AioContext *ctx)
{
    if (ctx->index_is_ours) {
        atomic_fetch_and(&indexes_used, ~(UINT64_C(1) << ctx->index));
    }
}

AioContext *aio_context_new_with_ops(const AioEngineOps *ops, GError **errp)
{
    AioContext *ctx = block_aligned_alloc(64, sizeof(*ctx));

    *ctx = (AioContext) {
        .ops = ops,
        .refs = 1,
        .turn = 1,
        .poll_fd = -1,
        .timer_fd = -1,
        .timer_fd_ns = -1,
    };
    if (ops->create(ctx, &ctx->state, errp) < 0) {
        block_aligned_free(ctx);
        return NULL;
    }
    ctx->pool = work_pool_get_shared();
    ctx->fd_handlers = g_ptr_array_new();
    index_take(ctx);
    return ctx;
}

AioContext *aio_context_new(AioEngine engine, GError **errp)
{
    AioContext *ctx;

    if (engine == AIO_ENGINE_THREADS) {
        return aio_context_new_with_ops(&aio_threads_ops, errp);
    }
    if (engine == AIO_ENGINE_IO_URING) {
        return aio_context_new_with_ops(&aio_uring_ops, errp);
    }
    ctx = aio_context_new_with_ops(&aio_uring_ops, NULL);
    return ctx ? ctx : aio_context_new_with_ops(&aio_threads_ops, errp);
}

AioContext *aio_context_ref(AioContext *ctx)
{
    unsigned old = atomic_fetch_add_explicit(&ctx->refs, 1,
                                             memory_order_relaxed);

    g_assert(old > 0);
    return ctx;
}

static void aio_context_free(AioContext *ctx)
{
    /*
     * A waker of another thread may be past its push but not out of
     * aio_context_wake_end() yet; it is there for no longer than one system
     * call.  Pairs with the release in aio_context_wake_end().
     */
    while (atomic_load_explicit(&ctx->wakers, memory_order_acquire) > 0) {
        sched_yield();
    }
    aio_bhs_clear(ctx);
    g_assert(!ctx->cos.head && !atomic_load(&ctx->remote_cos));
    for (guint i = 0; i < ctx->fd_handlers->len; i++) {
        g_assert(!g_ptr_array_index(ctx->fd_handlers, i));
    }
    if (aio_context_in_home(ctx)) {
        aio_context_unbind(ctx);
    }
    if (ctx->timer_fd >= 0) {
        close(ctx->timer_fd);
    }
    if (ctx->poll_fd >= 0) {
        close(ctx->poll_fd);
    }
    ctx->ops->destroy(ctx, ctx->state);
    aio_timers_clear(&ctx->timers);
    g_ptr_array_unref(ctx->fd_handlers);
    work_pool_unref(ctx->pool);
    index_drop(ctx);
    block_aligned_free(ctx);
}

void aio_context_unref(AioContext *ctx)
{
    if (atomic_fetch_sub_explicit(&ctx->refs, 1, memory_order_acq_rel) == 1) {
        aio_context_free(ctx);
    }
}

void *aio_context_engine_state(AioContext *ctx)
{
    return ctx->state;
}

AioEngine aio_context_engine(const AioContext *ctx)
{
    return ctx->ops->kind;
}

unsigned aio_context_index(const AioContext *ctx)
{
    return ctx->index;
}

uint64_t aio_context_turn(const AioContext *ctx)
{
    return ctx->turn;
}

int64_t aio_clock_ns(const AioContext *ctx)
{
    return ctx->ops->clock_ns(ctx);
}

/* --- the home thread ----------------------------------------------------- */

bool aio_context_in_home(const AioContext *ctx)
{
    /* Only the calling thread itself ever stores its own number. */
    return atomic_load_explicit(&ctx->home, memory_order_relaxed) ==
           aio_thread()->number;
}

void aio_context_bind(AioContext *ctx)
{
    AioThread *thread = aio_thread();
    uint64_t home = 0;

    if (aio_context_in_home(ctx)) {
        return;
    }
    g_assert(!ctx->unbound);
    if (!atomic_compare_exchange_strong(&ctx->home, &home, thread->number)) {
        g_error("an AioContext belongs to another thread");
    }
    if (!thread->first) {
        thread->first = ctx;
    }
    ctx->ops->bind(ctx, ctx->state);
}

void aio_context_unbind(AioContext *ctx)
{
    AioThread *thread = aio_thread();

    g_assert(aio_context_in_home(ctx) && thread->current != ctx);
    ctx->ops->unbind(ctx, ctx->state);
    if (thread->first == ctx) {
        thread->first = NULL;
    }
    ctx->unbound = true;
    atomic_store(&ctx->home, UINT64_MAX);
}

/* As aio_thread(), but that a thread without a number has no context. */
__attribute__((noinline)) AioContext *aio_get_current(void)
{
    AioThread *thread = &this_thread;

    __asm__ volatile("" : "+r"(thread));
    return thread->current ? thread->current : thread->first;
}

/* --- waking -------------------------------------------------------------- */

void aio_context_wake_end(AioContext *ctx)
{
    /* W2.  The load keeps the line shared while the loop is awake. */
    if (atomic_load(&ctx->sleeping) && atomic_exchange(&ctx->sleeping, false)) {
        ctx->ops->wake(ctx, ctx->state);
    }
    atomic_fetch_sub_explicit(&ctx->wakers, 1, memory_order_release);
}

/* --- the turn ------------------------------------------------------------ */

/* How long the engine may wait, as for AioEngineOps.turn(). */
static int64_t time_to_deadline(AioContext *ctx)
{
    int64_t deadline = aio_timers_deadline_ns(&ctx->timers);
    int64_t left;

    if (deadline < 0) {
        return -1;
    }
    /* MAX() would read the clock twice, and a wait below 0 has no end. */
    left = deadline - aio_clock_ns(ctx);
    return MAX(left, 0);
}

static void awake(AioContext *ctx)
{
    if (atomic_load_explicit(&ctx->sleeping, memory_order_relaxed)) {
        atomic_store_explicit(&ctx->sleeping, false, memory_order_relaxed);
    }
}

int64_t aio_context_announce_sleep(AioContext *ctx)
{
    int64_t timeout = time_to_deadline(ctx);

    if (timeout != 0) {
        atomic_store(&ctx->sleeping, true);             /* H1 */
        if (aio_bhs_any(ctx) || aio_cos_any(ctx)) {     /* H2 */
            timeout = 0;
        }
    }
    if (timeout == 0) {
        awake(ctx);
    }
    return timeout;
}

static bool turn_once(AioContext *ctx, bool blocking)
{
    int64_t timeout = 0;
    bool ran;

    awake(ctx);                 /* an outer loop has waited for us */
    ran = aio_bhs_run(ctx);
    ran |= aio_cos_run(ctx);
    if (blocking && !ran && !aio_polling_look(ctx)) {
        timeout = aio_context_announce_sleep(ctx);
    }
    ran |= ctx->ops->turn(ctx, ctx->state, timeout);
    awake(ctx);                                         /* H4 */
    if (aio_timers_any(&ctx->timers)) {
        ran |= aio_timers_run(&ctx->timers, aio_clock_ns(ctx));
    }
    return ran;
}

bool aio_poll(AioContext *ctx, bool blocking)
{
    AioThread *thread;
    bool ran;

    aio_context_bind(ctx);
    thread = aio_thread();
    g_assert(!thread->in_loop && !in_coroutine());
    if (ctx->ops->poll) {
        ctx->turn++;
        return ctx->ops->poll(ctx, ctx->state, blocking);
    }
    thread->in_loop = true;
    thread->current = ctx;
    do {
        ctx->turn++;
        ran = turn_once(ctx, blocking);
    } while (blocking && !ran);
    thread->current = NULL;
    thread->in_loop = false;
    return ran;
}
