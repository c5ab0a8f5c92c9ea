/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inside of an AioContext, shared by the files of the event loop.
 */
#ifndef UTIL_AIO_CONTEXT_H
#define UTIL_AIO_CONTEXT_H

#include "util/aio-engine.h"
#include "util/aio-polling.h"
#include "util/aio-timer.h"

#include <stdatomic.h>

/** A queue of bottom halves, first in first out. */
typedef struct AioBHList {
    AioBH *head;
    AioBH *tail;
} AioBHList;

/** A queue of coroutines linked by wake_next, first in first out. */
typedef struct AioCoList {
    Coroutine *head;
    Coroutine *tail;
} AioCoList;

struct AioContext {
    /* Set by aio_context_new(), never changed after. */
    const AioEngineOps *ops;
    void *state;                /* the engine's */
    WorkPool *pool;
    unsigned index;
    bool index_is_ours;

    /* Atomic: any thread.  On cache lines of their own. */
    _Atomic unsigned refs __attribute__((aligned(64)));
    _Atomic uint64_t home;      /* number of the home thread, 0 none yet */
    /*
     * The home thread waits, or is about to (see aio-context.c).  A waker
     * that turns it to false has the duty to call ops->wake().
     */
    _Atomic bool sleeping;
    _Atomic unsigned wakers;    /* other threads inside a wake-up of ours */
    _Atomic(AioBH *) remote_bhs;    /* last one first, linked by next */
    _Atomic(Coroutine *) remote_cos;    /* last one first, by wake_next */

    /* Touched only by the home thread. */
    AioBHList bhs __attribute__((aligned(64)));
    AioCoList cos;
    AioTimerHeap timers;
    uint64_t turn;              /* see aio_context_turn() */
    uint64_t copy_turn;         /* in which a read was last run at once */
    GPtrArray *fd_handlers;     /* AioFdHandler or NULL, indexed by fd */
    bool unbound;               /* the home thread has given it up */
    bool embedded;              /* another loop polls our descriptor */
    int poll_fd;                /* of aio_context_get_fd(), -1 before */
    int timer_fd;               /* wakes poll_fd for timers, -1 before */
    int64_t timer_fd_ns;        /* what timer_fd is set to, -1 not set */
    AioPolling polling;         /* but its settings: any thread */
};

/** Per thread; touched only by that thread. */
typedef struct AioThread {
    uint64_t number;            /* never used twice in a process */
    AioContext *first;          /* first context bound to this thread */
    AioContext *current;        /* whose callbacks run now, or NULL */
    bool in_loop;               /* inside aio_poll() */
} AioThread;

/** The state of the calling thread; do not keep it over a yield. */
AioThread *aio_thread(void);

/**
 * The home thread gives @ctx up before it ends.  Nobody can run @ctx any more;
 * it can be freed from any thread.
 */
void aio_context_unbind(AioContext *ctx);

/**
 * Brackets of a change by any thread that may need the loop's attention: @ctx
 * is not freed in between, even if the home thread handles the change and
 * drops the last reference at once.
 */
static inline void aio_context_wake_begin(AioContext *ctx)
{
    atomic_fetch_add_explicit(&ctx->wakers, 1, memory_order_relaxed);
}

/** End what aio_context_wake_begin() began, and wake the loop if it sleeps. */
void aio_context_wake_end(AioContext *ctx);

/**
 * Set ctx->sleeping unless there is work, and say for how long the engine may
 * wait (see AioEngineOps.turn()).  0 when there is work now: then
 * ctx->sleeping is false.  Thread: home.
 */
int64_t aio_context_announce_sleep(AioContext *ctx);

/*
 * For an engine with a poll() of its own: what is queued, and taking one thing
 * out of a queue to run it.  Thread: home.
 */

/** The first bottom half that is scheduled, or NULL. */
AioBH *aio_bhs_peek(AioContext *ctx);

/** Run the first bottom half that is scheduled. */
void aio_bhs_run_first(AioContext *ctx);

/** The first coroutine that is scheduled; the next by wake_next. */
Coroutine *aio_cos_peek(AioContext *ctx);

/** Enter @co, which is scheduled. */
void aio_cos_run_one(AioContext *ctx, Coroutine *co);

/** Run the bottom halves that are scheduled now.  Returns whether one ran. */
bool aio_bhs_run(AioContext *ctx);

/** Whether a bottom half is scheduled.  Thread: home. */
bool aio_bhs_any(AioContext *ctx);

/** Free deleted bottom halves that are still queued; assert no others are. */
void aio_bhs_clear(AioContext *ctx);

/** Enter the coroutines that are scheduled now.  Returns whether any ran. */
bool aio_cos_run(AioContext *ctx);

/** Whether a coroutine is scheduled.  Thread: home. */
bool aio_cos_any(AioContext *ctx);

#endif /* UTIL_AIO_CONTEXT_H */
