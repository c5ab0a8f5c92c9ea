/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the tests of waiting coroutines share: a loop for the main thread, a
 * record of what happened, and threads full of coroutines.
 */
#ifndef TESTS_UNIT_CO_FIXTURE_H
#define TESTS_UNIT_CO_FIXTURE_H

#include "check-main.h"

#include <blockgraph/aio.h>
#include <stdatomic.h>
#include <string.h>

#define CO_THREADS_MAX 4

static AioContext *co_ctx;

/* What happened, in order.  Main thread. */
static char co_trace[256];

static inline void co_note(char c)
{
    size_t len = strlen(co_trace);

    ck_assert_uint_lt(len + 1, sizeof(co_trace));
    co_trace[len] = c;
    co_trace[len + 1] = '\0';
}

static inline void co_fixture_setup(void)
{
    co_trace[0] = '\0';
    co_ctx = aio_context_new(AIO_ENGINE_AUTO, NULL);
    ck_assert_ptr_nonnull(co_ctx);
    aio_context_bind(co_ctx);
}

static inline void co_fixture_teardown(void)
{
    aio_context_unref(co_ctx);
}

/** Start @entry(@opaque) in the loop of the main thread; runs to its yield. */
static inline Coroutine *co_start(CoroutineEntry *entry, void *opaque)
{
    Coroutine *co = coroutine_create(entry, opaque);

    aio_co_enter(co_ctx, co);
    return co;
}

/** Turn the loop of the main thread while something is ready. */
static inline void co_settle(void)
{
    while (aio_poll(co_ctx, false)) {
    }
}

/* One set of coroutines that run in several threads. */
typedef struct CoCrowd {
    void (*body)(void *opaque);
    void *opaque;
    _Atomic int nr_left;
    bool done;                 /* main thread */
} CoCrowd;

static inline void co_crowd_done(void *opaque)
{
    ((CoCrowd *)opaque)->done = true;
}

static inline void coroutine_fn co_crowd_entry(void *opaque)
{
    CoCrowd *crowd = opaque;

    crowd->body(crowd->opaque);
    if (atomic_fetch_sub(&crowd->nr_left, 1) == 1) {
        aio_bh_schedule_oneshot(co_ctx, co_crowd_done, crowd);
    }
}

/**
 * Run @body(@opaque) in @each coroutines of each of @threads threads, and
 * return when all have ended.
 */
static inline void co_crowd_run(int threads, int each,
                                void (*body)(void *opaque), void *opaque)
{
    IOThread *thread[CO_THREADS_MAX];
    CoCrowd crowd = { .body = body, .opaque = opaque };

    ck_assert_int_le(threads, CO_THREADS_MAX);
    atomic_init(&crowd.nr_left, threads * each);
    for (int i = 0; i < threads; i++) {
        thread[i] = iothread_new("crowd", AIO_ENGINE_AUTO, NULL);
        ck_assert_ptr_nonnull(thread[i]);
    }
    for (int i = 0; i < threads * each; i++) {
        aio_co_enter(iothread_get_aio_context(thread[i % threads]),
                     coroutine_create(co_crowd_entry, &crowd));
    }
    while (!crowd.done) {
        aio_poll(co_ctx, true);
    }
    for (int i = 0; i < threads; i++) {
        iothread_free(thread[i]);
    }
}

/** Go to the end of the queue of the loop this coroutine runs in. */
static inline void coroutine_fn co_step_aside(void)
{
    aio_co_schedule(aio_get_current(), coroutine_self());
    coroutine_yield();
}

#endif /* TESTS_UNIT_CO_FIXTURE_H */
