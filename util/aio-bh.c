/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Bottom halves.
 *
 * A bottom half is queued exactly while BH_SCHEDULED is set: who sets the flag
 * queues it, so it is never queued twice.  The home thread appends to a plain
 * list.  Other threads push onto a lock-free stack:
 *
 *   push:  next = head; compare-and-swap(head, next, bh), repeated on failure
 *   take:  list = exchange(head, NULL)
 *
 * Nobody ever removes a single element, so a head that is compared equal is
 * still the element that @next names (or a new life of it: then @next is as
 * right as before).  A taken list belongs to the taker.  It holds the last one
 * first and is turned around, so callbacks run in the order of scheduling.
 */
#include "util/aio-context.h"

enum {
    BH_SCHEDULED = 1 << 0,      /* in a queue */
    BH_DELETED = 1 << 1,        /* free it when it comes out of the queue */
    BH_ONESHOT = 1 << 2,        /* free it before the callback runs */
};

struct AioBH {
    /* Set by aio_bh_new(), never changed after. */
    AioContext *ctx;
    AioCallback *cb;
    void *opaque;

    /* Atomic: any thread. */
    _Atomic unsigned flags;

    /* Owned by whoever set BH_SCHEDULED, then by the queue. */
    AioBH *next;
};

static void list_append(AioBHList *list, AioBH *bh)
{
    bh->next = NULL;
    if (list->tail) {
        list->tail->next = bh;
    } else {
        list->head = bh;
    }
    list->tail = bh;
}

static AioBH *list_pop(AioBHList *list)
{
    AioBH *bh = list->head;

    if (bh) {
        list->head = bh->next;
        if (!list->head) {
            list->tail = NULL;
        }
    }
    return bh;
}

static void remote_push(AioContext *ctx, AioBH *bh)
{
    AioBH *head = atomic_load_explicit(&ctx->remote_bhs, memory_order_relaxed);

    do {
        bh->next = head;
    } while (!atomic_compare_exchange_weak(&ctx->remote_bhs, &head, bh));
}

/* Append what other threads have scheduled to our own list. */
static void take_remote(AioContext *ctx)
{
    AioBH *bh, *next, *first = NULL;

    if (!atomic_load_explicit(&ctx->remote_bhs, memory_order_relaxed)) {
        return;
    }
    /* Pairs with remote_push(): we see what was written before it. */
    bh = atomic_exchange_explicit(&ctx->remote_bhs, NULL, memory_order_acquire);
    for (; bh; bh = next) {
        next = bh->next;
        bh->next = first;
        first = bh;
    }
    for (bh = first; bh; bh = next) {
        next = bh->next;
        list_append(&ctx->bhs, bh);
    }
}

AioBH *aio_bh_new(AioContext *ctx, AioCallback *cb, void *opaque)
{
    AioBH *bh = g_new0(AioBH, 1);

    bh->ctx = ctx;
    bh->cb = cb;
    bh->opaque = opaque;
    return bh;
}

void aio_bh_schedule(AioBH *bh)
{
    AioContext *ctx = bh->ctx;

    if (aio_context_in_home(ctx)) {
        /* Acquire and release: see the loop in aio_bhs_run(). */
        if (!(atomic_fetch_or(&bh->flags, BH_SCHEDULED) & BH_SCHEDULED)) {
            list_append(&ctx->bhs, bh);
        }
        return;
    }
    aio_context_wake_begin(ctx);
    if (!(atomic_fetch_or(&bh->flags, BH_SCHEDULED) & BH_SCHEDULED)) {
        remote_push(ctx, bh);
    }
    aio_context_wake_end(ctx);
}

void aio_bh_schedule_oneshot(AioContext *ctx, AioCallback *cb, void *opaque)
{
    AioBH *bh = aio_bh_new(ctx, cb, opaque);

    atomic_store_explicit(&bh->flags, BH_ONESHOT, memory_order_relaxed);
    aio_bh_schedule(bh);
}

void aio_bh_delete(AioBH *bh)
{
    if (atomic_fetch_or(&bh->flags, BH_DELETED) & BH_SCHEDULED) {
        return;                 /* in a queue, or about to be */
    }
    g_free(bh);
}

bool aio_bhs_any(AioContext *ctx)
{
    return ctx->bhs.head || atomic_load(&ctx->remote_bhs);
}

/* Run @bh, just taken out of its queue; false: it was deleted meanwhile. */
static bool run_one(AioBH *bh)
{
    AioCallback *cb = bh->cb;
    void *opaque = bh->opaque;
    unsigned flags;

    /*
     * Cleared before the callback, so that what is scheduled from now on
     * runs once more.  Pairs with the fetch_or() of a thread that found
     * the flag set: the callback sees what that thread wrote before.
     */
    flags = atomic_fetch_and(&bh->flags, ~(unsigned)BH_SCHEDULED);
    if (flags & (BH_DELETED | BH_ONESHOT)) {
        g_free(bh);
    }
    if (flags & BH_DELETED) {
        return false;
    }
    cb(opaque);
    return true;
}

bool aio_bhs_run(AioContext *ctx)
{
    AioBHList batch;
    bool ran = false;
    AioBH *bh;

    take_remote(ctx);
    /* What callbacks schedule runs in the next turn. */
    batch = ctx->bhs;
    ctx->bhs = (AioBHList) { NULL, NULL };
    while ((bh = list_pop(&batch))) {
        ran |= run_one(bh);
    }
    return ran;
}

AioBH *aio_bhs_peek(AioContext *ctx)
{
    take_remote(ctx);
    return ctx->bhs.head;
}

void aio_bhs_run_first(AioContext *ctx)
{
    run_one(list_pop(&ctx->bhs));
}

void aio_bhs_clear(AioContext *ctx)
{
    AioBH *bh;

    take_remote(ctx);
    while ((bh = list_pop(&ctx->bhs))) {
        g_assert(atomic_load(&bh->flags) & BH_DELETED);
        g_free(bh);
    }
}
