/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Coroutines, and the locks and helpers that wait inside them.
 *
 * A coroutine is a function with a stack of its own.  It belongs to the thread
 * of one AioContext at a time: it is entered there, and a wake-up from another
 * thread is queued to that thread (aio_co_wake()).
 */
#ifndef BLOCKGRAPH_COROUTINE_H
#define BLOCKGRAPH_COROUTINE_H

#include <blockgraph/common.h>

G_BEGIN_DECLS

/** The body of a coroutine; it ends when the function returns. */
typedef void CoroutineEntry(void *opaque);

/**
 * Make a coroutine that will run @entry(@opaque).  It does not run yet.
 *
 * Its stack comes from a pool of the calling thread.  The coroutine frees
 * itself when @entry returns; there is no other way to end it.
 *
 * Thread: any.  Never fails: the process is aborted when memory for a stack
 * cannot be had, as with g_malloc().
 */
BLOCK_API Coroutine *coroutine_create(CoroutineEntry *entry, void *opaque);

/**
 * Run @co in this thread until it yields or ends.
 *
 * May be called from inside another coroutine, which waits meanwhile.  @co
 * must not be running and must not have a wake-up pending.  Code outside the
 * event loop uses aio_co_enter(), which also says where the coroutine lives.
 *
 * Thread: the one @co belongs to; for a new coroutine, any.
 */
BLOCK_API void coroutine_enter(Coroutine *co);

/**
 * Leave the running coroutine; whoever entered it goes on.  Returns when the
 * coroutine is entered again.
 */
BLOCK_API void coroutine_fn coroutine_yield(void);

/** The running coroutine, or NULL outside one.  Thread: any. */
BLOCK_API Coroutine *coroutine_self(void);

/** Whether the caller runs inside a coroutine.  Thread: any. */
BLOCK_API bool in_coroutine(void);

/**
 * The deepest stack use of any coroutine since the process started, in bytes.
 * Only debug builds measure it; others return 0.  Thread: any.
 */
BLOCK_API size_t coroutine_stack_high_water(void);

/* ------------------------------------------------------------------------ */

/**
 * A lock that may be held over a yield.  First come, first served: unlocking
 * hands it to the longest waiter.  Usable from coroutines of several threads.
 * A zeroed CoMutex is unlocked.  Its fields are private.
 */
typedef struct CoMutex {
    uintptr_t reserved[5];
} CoMutex;

/** Make @mutex unlocked.  Thread: any, before first use. */
BLOCK_API void co_mutex_init(CoMutex *mutex);

/** Lock @mutex; waits for it in order of arrival.  Not recursive. */
BLOCK_API void coroutine_fn co_mutex_lock(CoMutex *mutex);

/** Lock @mutex if it is free.  Returns whether it is locked now. */
BLOCK_API bool coroutine_fn co_mutex_trylock(CoMutex *mutex);

/** Unlock @mutex and wake the longest waiter, who then holds it. */
BLOCK_API void coroutine_fn co_mutex_unlock(CoMutex *mutex);

/** Whether the running coroutine holds @mutex; for assertions. */
BLOCK_API bool co_mutex_is_mine(const CoMutex *mutex);

/**
 * Coroutines that wait for something.  The queue has no lock: all calls on one
 * queue are made under one CoMutex or one lock of the caller, or from one
 * thread.  A zeroed CoQueue is empty.
 */
typedef struct CoQueue {
    uintptr_t reserved[2];
} CoQueue;

/** Make @queue empty.  Thread: any, before first use. */
BLOCK_API void co_queue_init(CoQueue *queue);

/**
 * Wait in @queue until woken.  @mutex, if not NULL, is released while waiting
 * and held again on return.  What the caller knew before may have changed.
 */
BLOCK_API void coroutine_fn co_queue_wait(CoQueue *queue, CoMutex *mutex);

/**
 * Wake the longest waiter; it runs later, in its own thread.  Returns false
 * when none waits.  Thread: any that holds the queue's lock; in a coroutine
 * or not.
 */
BLOCK_API bool co_queue_next(CoQueue *queue);

/** Wake all that wait now.  Thread: as co_queue_next(). */
BLOCK_API void co_queue_restart_all(CoQueue *queue);

/** Whether nobody waits in @queue.  Thread: as co_queue_next(). */
BLOCK_API bool co_queue_empty(const CoQueue *queue);

/**
 * Many readers or one writer, served in order of arrival: a reader that comes
 * after a waiting writer waits behind it, so neither side starves.
 * A zeroed CoRwlock is unlocked.
 */
typedef struct CoRwlock {
    uintptr_t reserved[10];
} CoRwlock;

/** Make @lock unlocked.  Thread: any, before first use. */
BLOCK_API void co_rwlock_init(CoRwlock *lock);

/** Take @lock for reading.  Not recursive: a writer may wait in between. */
BLOCK_API void coroutine_fn co_rwlock_rdlock(CoRwlock *lock);

/** Take @lock for writing. */
BLOCK_API void coroutine_fn co_rwlock_wrlock(CoRwlock *lock);

/**
 * Turn a read lock into a write lock.  Others may have written in between:
 * read again what was read.
 */
BLOCK_API void coroutine_fn co_rwlock_upgrade(CoRwlock *lock);

/** Turn a write lock into a read lock, with nobody in between. */
BLOCK_API void coroutine_fn co_rwlock_downgrade(CoRwlock *lock);

/** Release @lock, in either mode. */
BLOCK_API void coroutine_fn co_rwlock_unlock(CoRwlock *lock);

/* ------------------------------------------------------------------------ */

/** A sleep that can be cut short.  A zeroed one is idle; fields private. */
typedef struct CoSleep {
    uintptr_t reserved[2];
} CoSleep;

/** Sleep for @ns nanoseconds (<= 0: yields once to the event loop). */
BLOCK_API void coroutine_fn co_sleep_ns(int64_t ns);

/**
 * Sleep for @ns nanoseconds or until co_sleep_wake(@sleep).  A wake-up that
 * comes before the sleep is not remembered.
 */
BLOCK_API void coroutine_fn co_sleep_ns_wakeable(CoSleep *sleep, int64_t ns);

/** End the sleep at @sleep, if there is one.  Thread: any. */
BLOCK_API void co_sleep_wake(CoSleep *sleep);

/* ------------------------------------------------------------------------ */

/** One task of a pool: 0, or a negative errno that stops the pool. */
typedef int CoTaskFn(void *opaque);

/** Up to a number of coroutines at once, that stop on the first error. */
typedef struct CoTaskPool CoTaskPool;

/**
 * A pool that runs up to @max_busy tasks at once (1 to 65536).
 *
 * Thread: the coroutine that makes a pool is the only one that starts tasks
 * in it, waits for it and frees it; tasks run in the same thread.
 */
BLOCK_API CoTaskPool *coroutine_fn co_task_pool_new(int max_busy);

/**
 * Run @task(@opaque) in a coroutine of its own; waits for a free place first.
 * After an error no further task is started: @task is then not called and
 * the error is returned, so that the caller can free @opaque.
 *
 * Returns 0 when the task was started, else the pool's first error.
 */
BLOCK_API int coroutine_fn co_task_pool_start(CoTaskPool *pool, CoTaskFn *task,
                                              void *opaque);

/** From the next start on up to @max_busy tasks run at once (1 to 65536); those
 * that do go on.  Thread: the owner's. */
BLOCK_API void co_task_pool_set_max_busy(CoTaskPool *pool, int max_busy);

/** The first error of the pool so far, or 0. */
BLOCK_API int co_task_pool_status(const CoTaskPool *pool);

/** Wait until no task runs.  Returns the first error, or 0. */
BLOCK_API int coroutine_fn co_task_pool_wait_all(CoTaskPool *pool);

/** Free @pool, which must be idle. */
BLOCK_API void co_task_pool_free(CoTaskPool *pool);

G_END_DECLS

#endif /* BLOCKGRAPH_COROUTINE_H */
