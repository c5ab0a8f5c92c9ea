/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Coroutines in event loops: entering, waking, moving, and running to the end.
 *
 * A coroutine has at most one pending wake-up, so its link wake_next can serve
 * whichever queue holds that wake-up: the list of the home thread, or the
 * lock-free stack of other threads.  That stack has the rules of the one in
 * aio-bh.c: single pushes, the whole of it is taken, and turned around.
 */
#include "util/aio-context.h"

#include "util/coroutine-int.h"

static void list_append(AioCoList *list, Coroutine *co)
{
    co->wake_next = NULL;
    if (list->tail) {
        list->tail->wake_next = co;
    } else {
        list->head = co;
    }
    list->tail = co;
}

static void remote_push(AioContext *ctx, Coroutine *co)
{
    Coroutine *head = atomic_load_explicit(&ctx->remote_cos,
                                           memory_order_relaxed);

    do {
        co->wake_next = head;
    } while (!atomic_compare_exchange_weak(&ctx->remote_cos, &head, co));
}

static void take_remote(AioContext *ctx)
{
    Coroutine *co, *next, *first = NULL;

    if (!atomic_load_explicit(&ctx->remote_cos, memory_order_relaxed)) {
        return;
    }
    /* Pairs with remote_push(): the coroutine sees what its waker wrote. */
    co = atomic_exchange_explicit(&ctx->remote_cos, NULL, memory_order_acquire);
    for (; co; co = next) {
        next = co->wake_next;
        co->wake_next = first;
        first = co;
    }
    for (co = first; co; co = next) {
        next = co->wake_next;
        list_append(&ctx->cos, co);
    }
}

bool aio_cos_any(AioContext *ctx)
{
    return ctx->cos.head || atomic_load(&ctx->remote_cos);
}

bool aio_cos_run(AioContext *ctx)
{
    Coroutine *co, *next;

    take_remote(ctx);
    /* What is scheduled meanwhile is entered in the next turn. */
    co = ctx->cos.head;
    ctx->cos = (AioCoList) { NULL, NULL };
    if (!co) {
        return false;
    }
    for (; co; co = next) {
        next = co->wake_next;
        co->wake_next = NULL;
        coroutine_enter(co);
    }
    return true;
}

Coroutine *aio_cos_peek(AioContext *ctx)
{
    take_remote(ctx);
    return ctx->cos.head;
}

void aio_cos_run_one(AioContext *ctx, Coroutine *co)
{
    Coroutine *before = NULL;

    for (Coroutine *c = ctx->cos.head; c != co; c = c->wake_next) {
        before = c;
    }
    *(before ? &before->wake_next : &ctx->cos.head) = co->wake_next;
    if (!co->wake_next) {
        ctx->cos.tail = before;
    }
    co->wake_next = NULL;
    coroutine_enter(co);
}

/* Enter @co here and now with @ctx as the current context. */
static void enter_in(AioContext *ctx, Coroutine *co)
{
    AioThread *thread = aio_thread();
    AioContext *outer = thread->current;

    thread->current = ctx;
    coroutine_enter(co);
    /* Not in a coroutine: we are in the thread where we were. */
    thread->current = outer;
}

void aio_co_schedule(AioContext *ctx, Coroutine *co)
{
    if (aio_context_in_home(ctx)) {
        list_append(&ctx->cos, co);
        return;
    }
    aio_context_wake_begin(ctx);
    remote_push(ctx, co);
    aio_context_wake_end(ctx);
}

void aio_co_enter(AioContext *ctx, Coroutine *co)
{
    if (!aio_context_in_home(ctx) || ctx->ops->poll) {
        aio_co_schedule(ctx, co);
    } else if (!in_coroutine()) {
        enter_in(ctx, co);
    } else if (ctx == aio_get_current() && co != coroutine_self()) {
        coroutine_enter_after_yield(co);
    } else {
        /* Another context of this thread, or ourselves: in its next turn. */
        aio_co_schedule(ctx, co);
    }
}

void aio_co_wake(Coroutine *co)
{
    AioContext *ctx = atomic_load_explicit(&co->ctx, memory_order_acquire);

    g_assert(ctx);
    aio_co_enter(ctx, co);
}

typedef struct Move {
    AioContext *to;
    Coroutine *co;
} Move;

static void move_cb(void *opaque)
{
    Move *move = opaque;

    /* @move lives on the stack of the coroutine, which may now run. */
    aio_co_schedule(move->to, move->co);
}

void coroutine_fn aio_co_reschedule_self(AioContext *ctx)
{
    AioContext *from = aio_get_current();
    Move move = { .to = ctx, .co = coroutine_self() };

    g_assert(move.co && from);
    if (ctx == from) {
        return;
    }
    /*
     * The other thread must not enter us before we have left our stack, so
     * the old loop hands us over, in its next turn.
     */
    aio_bh_schedule_oneshot(from, move_cb, &move);
    coroutine_yield();
    g_assert(aio_get_current() == ctx);
}

typedef struct Run {
    int (*entry)(void *opaque);
    void *opaque;
    int ret;
    bool done;
} Run;

static void coroutine_fn run_entry(void *opaque)
{
    Run *run = opaque;

    coroutine_self()->for_caller = true;
    run->ret = run->entry(run->opaque);
    run->done = true;
}

int aio_co_run(AioContext *ctx, int (*entry)(void *opaque), void *opaque)
{
    Run run = { .entry = entry, .opaque = opaque };

    aio_context_bind(ctx);
    g_assert(!in_coroutine() && !aio_thread()->in_loop);
    aio_co_enter(ctx, coroutine_create(run_entry, &run));
    while (!run.done) {
        aio_poll(ctx, true);
    }
    return run.ret;
}
