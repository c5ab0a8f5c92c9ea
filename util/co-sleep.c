/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * CoSleep: a coroutine waits for a time, or for somebody in a hurry.
 *
 * The timer, in the home thread, and any number of wakers in any thread may
 * want to end the same sleep.  Whoever exchanges the pointer to the sleeper
 * for NULL wakes it, and nobody else does.  The sleeper is woken in its home
 * thread, which is the timer's too, and frees the timer there; a timer that
 * fires after a waker has won finds NULL.
 */
#include "util/coroutine-int.h"
#include "util/sim-point.h"

#include <blockgraph/aio.h>

typedef struct Sleep {
    _Atomic(Coroutine *) sleeper;
} Sleep;

_Static_assert(sizeof(Sleep) <= sizeof(CoSleep), "the words suffice");
_Static_assert(_Alignof(Sleep) <= _Alignof(CoSleep), "and are aligned");

static void wake(void *opaque)
{
    Sleep *sleep = opaque;
    /* Pairs with the store in co_sleep_ns_wakeable(). */
    Coroutine *co = atomic_exchange_explicit(&sleep->sleeper, NULL,
                                             memory_order_acq_rel);

    /* From here on the sleeper may free @sleep. */
    if (co) {
        aio_co_wake(co);
    }
}

void co_sleep_wake(CoSleep *sleep)
{
    wake(sleep);
}

void coroutine_fn co_sleep_ns(int64_t ns)
{
    CoSleep sleep = { { 0 } };

    co_sleep_ns_wakeable(&sleep, ns);
}

static coroutine_fn void yield_to_loop(AioContext *ctx)
{
    aio_co_schedule(ctx, coroutine_self());
    coroutine_yield();
}

void coroutine_fn co_sleep_ns_wakeable(CoSleep *public_sleep, int64_t ns)
{
    Sleep *sleep = (Sleep *)public_sleep;
    AioContext *ctx = aio_get_current();
    int64_t expire_ns;
    AioTimer *timer;

    g_assert(in_coroutine() && ctx);
    if (ns <= 0) {
        yield_to_loop(ctx);
        return;
    }
    expire_ns = aio_clock_ns(ctx);
    expire_ns = ns > INT64_MAX - expire_ns ? INT64_MAX : expire_ns + ns;
    timer = aio_timer_new(ctx, wake, sleep);
    aio_timer_set(timer, expire_ns);
    g_assert(!atomic_load_explicit(&sleep->sleeper, memory_order_relaxed));
    /* A waker in another thread may win before we have yielded: co-mutex.c. */
    atomic_store_explicit(&sleep->sleeper, coroutine_self(),
                          memory_order_release);
    SIM_WAITS("a time", NULL);
    coroutine_yield();
    aio_timer_free(timer);
}
