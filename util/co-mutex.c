/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * CoMutex: a lock that may be held over a yield.
 *
 * One word says whether the lock is held and whether somebody waits; a short
 * lock guards the list of those who wait.
 *
 *                 lock                       lock
 *          -------------------->      -------------------->
 *      FREE                     HELD                       HELD | WAITED
 *          <--------------------      <--------------------
 *                unlock                unlock, last waiter
 *
 * M1  WAITED is set and cleared only under @waiters_lock.
 * M2  Whenever @waiters_lock is free, WAITED is set if and only if the list
 *     is not empty.
 * M3  WAITED is never set without HELD: the list is empty in a free lock.
 *
 * Why the fast paths are right.  Locking is FREE -> HELD in one step: by M3
 * nobody waits then, so nobody is overtaken.  Unlocking is HELD -> FREE in one
 * step: the word says that nobody waits, and by M2 it is so; one who is just
 * about to wait has not set WAITED, so its own step (below) fails and it finds
 * the lock free.
 *
 * Why no wake-up is lost.  To wait, a coroutine takes @waiters_lock and turns
 * HELD into HELD | WAITED, or finds it so.  From that moment the fast unlock
 * fails, and the slow one takes @waiters_lock, which it gets after the waiter
 * is in the list.  If the holder was faster the step fails, and the coroutine
 * takes the lock as free.  Only the holder unlocks, so of two orders it is
 * one.
 *
 * Why first come is first served.  A slow unlock does not pass through FREE:
 * HELD stays set, and the longest waiter is the holder before it runs.
 * Whoever comes meanwhile sees HELD and queues behind.
 *
 * Why the wake-up is safe.  A waiter is in the list before it yields, and may
 * be handed the lock and woken at that very point by another thread.
 * aio_co_wake() then only queues it to its home thread, which is the one that
 * runs it and looks at the queue after it has yielded.  In the home thread
 * itself nothing else runs between the two.
 *
 * Memory order.  The step to HELD acquires what the fast unlock released; on
 * the slow way @waiters_lock and the queue of aio_co_wake() do the same.
 *
 * The next holder may free the lock: an unlocker does not touch it after its
 * step to FREE, or after @waiters_lock is released.
 */
#include "util/co-waiters.h"
#include "util/lock.h"
#include "util/sim-point.h"

#define HELD ((uintptr_t)1)
#define WAITED ((uintptr_t)2)

typedef struct Mutex {
    _Atomic uintptr_t word;

    /* Written by the holder; others may only compare it with themselves. */
    _Atomic(Coroutine *) holder;

    /* Guarded by @waiters_lock. */
    Lock waiters_lock;
    CoWaiters waiters;
} Mutex;

_Static_assert(sizeof(Mutex) <= sizeof(CoMutex), "the public words suffice");
_Static_assert(_Alignof(Mutex) <= _Alignof(CoMutex), "and are aligned");

static bool try_fast(Mutex *mutex)
{
    uintptr_t expected = 0;

    return atomic_compare_exchange_strong_explicit(
        &mutex->word, &expected, HELD, memory_order_acquire,
        memory_order_relaxed);
}

static void set_holder(Mutex *mutex, Coroutine *co)
{
    atomic_store_explicit(&mutex->holder, co, memory_order_relaxed);
}

static Coroutine *get_holder(Mutex *mutex)
{
    return atomic_load_explicit(&mutex->holder, memory_order_relaxed);
}

/*
 * Get into the list (true), or get the lock because it has become free
 * (false).
 */
static bool enqueue_locked(Mutex *mutex, Coroutine *self)
    LOCK_REQUIRES(mutex->waiters_lock);

static bool enqueue_locked(Mutex *mutex, Coroutine *self)
{
    uintptr_t word = atomic_load_explicit(&mutex->word, memory_order_relaxed);

    for (;;) {
        uintptr_t wanted = word ? HELD | WAITED : HELD;

        if (atomic_compare_exchange_weak_explicit(&mutex->word, &word, wanted,
                                                  memory_order_acquire,
                                                  memory_order_relaxed)) {
            break;
        }
    }
    if (word) {
        co_waiters_push(&mutex->waiters, self);                 /* M2 */
    }
    return word != 0;
}

static __attribute__((noinline)) coroutine_fn void lock_slow(Mutex *mutex,
                                                             Coroutine *self)
{
    bool wait;

    g_assert(get_holder(mutex) != self);    /* not recursive */
    lock_acquire(&mutex->waiters_lock);
    wait = enqueue_locked(mutex, self);
    lock_release(&mutex->waiters_lock);
    if (wait) {
        SIM_WAITS("CoMutex", mutex);
        coroutine_yield();
        g_assert(get_holder(mutex) == self);
    } else {
        set_holder(mutex, self);
    }
}

/* Somebody waits: make the longest waiter the holder. */
static __attribute__((noinline)) coroutine_fn void unlock_slow(Mutex *mutex)
{
    Coroutine *next;

    WITH_LOCK(&mutex->waiters_lock) {
        next = co_waiters_pop(&mutex->waiters);
        g_assert(next);                                         /* M2 */
        set_holder(mutex, next);
        if (!mutex->waiters.head || SIM_PLANTED(7)) {
            /* Nobody else changes the word while both bits are set. */
            atomic_store_explicit(&mutex->word, HELD, memory_order_relaxed);
        }
    }
    aio_co_wake(next);
}

void co_mutex_init(CoMutex *public_mutex)
{
    Mutex *mutex = (Mutex *)public_mutex;

    *public_mutex = (CoMutex) { { 0 } };
    lock_init(&mutex->waiters_lock, LOCK_RANK_CO_LOCK);
    SIM_HOOK(mutex_made(mutex));
}

void coroutine_fn co_mutex_lock(CoMutex *public_mutex)
{
    Mutex *mutex = (Mutex *)public_mutex;
    Coroutine *self = coroutine_self();

    g_assert(self);
    SIM_POINT("co-mutex.lock", NULL);
    SIM_HOOK(mutex_wanted(mutex));
    if (G_LIKELY(try_fast(mutex))) {
        set_holder(mutex, self);
    } else {
        lock_slow(mutex, self);
    }
    SIM_HOOK(mutex_taken(mutex));
}

bool coroutine_fn co_mutex_trylock(CoMutex *public_mutex)
{
    Mutex *mutex = (Mutex *)public_mutex;
    Coroutine *self = coroutine_self();

    g_assert(self);
    if (!try_fast(mutex)) {
        return false;
    }
    set_holder(mutex, self);
    SIM_HOOK(mutex_taken(mutex));
    return true;
}

void coroutine_fn co_mutex_unlock(CoMutex *public_mutex)
{
    Mutex *mutex = (Mutex *)public_mutex;
    uintptr_t expected = HELD;

    g_assert(get_holder(mutex) == coroutine_self());
    SIM_HOOK(mutex_dropped(mutex));
    set_holder(mutex, NULL);
    if (G_UNLIKELY(!atomic_compare_exchange_strong_explicit(
            &mutex->word, &expected, 0, memory_order_release,
            memory_order_relaxed))) {
        unlock_slow(mutex);
    }
}

bool co_mutex_is_mine(const CoMutex *public_mutex)
{
    Mutex *mutex = (Mutex *)public_mutex;
    Coroutine *self = coroutine_self();

    return self && get_holder(mutex) == self;
}

#ifdef BLOCK_SIM
Coroutine *co_mutex_holder(const void *mutex)
{
    return get_holder((Mutex *)mutex);
}
#endif
