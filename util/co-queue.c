/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * CoQueue: coroutines that wait for something that a lock guards.
 *
 * A waiter is in the list before the lock is released, so whoever changes
 * what it waits for, under the lock, finds it there.  It may be woken before
 * it has yielded; co-mutex.c says why that is safe.
 */
#include "util/co-queue.h"
#include "util/co-waiters.h"
#include "util/sim-point.h"

_Static_assert(sizeof(CoWaiters) <= sizeof(CoQueue), "the words suffice");
_Static_assert(_Alignof(CoWaiters) <= _Alignof(CoQueue), "and are aligned");

void co_queue_init(CoQueue *queue)
{
    *queue = (CoQueue) { { 0 } };
}

void coroutine_fn co_queue_wait(CoQueue *queue, CoMutex *mutex)
{
    Coroutine *self = coroutine_self();

    g_assert(self);
    co_waiters_push((CoWaiters *)queue, self);
    if (mutex) {
        co_mutex_unlock(mutex);
    }
    SIM_WAITS("CoQueue", queue);
    coroutine_yield();
    if (mutex) {
        co_mutex_lock(mutex);
    }
}

void coroutine_fn co_queue_wait_locked(CoQueue *queue, Lock *lock)
{
    Coroutine *self = coroutine_self();

    g_assert(self);
    co_waiters_push((CoWaiters *)queue, self);
    lock_release(lock);
    SIM_WAITS("CoQueue", queue);
    coroutine_yield();
    lock_acquire(lock);
}

bool co_queue_next(CoQueue *queue)
{
    Coroutine *co = co_waiters_pop((CoWaiters *)queue);

    if (!co) {
        return false;
    }
    co_wake_later(co);
    return true;
}

void co_queue_restart_all(CoQueue *queue)
{
    /* The woken run later, so none of them can queue again meanwhile. */
    while (co_queue_next(queue)) {
    }
}

bool co_queue_empty(const CoQueue *queue)
{
    return !((const CoWaiters *)queue)->head;
}
