/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * CoTaskPool: up to a number of coroutines at once, that stop on an error.
 *
 * Everything happens in one thread, so there is no lock.  The owner counts a
 * task before it runs; a task that ends takes its count off and, if the owner
 * waits for that, wakes it.  @wait_for is cleared by the one who wakes, so
 * there is at most one wake-up; and the owner runs only after the task's
 * coroutine has ended, so it may free the pool.
 */
#include <blockgraph/aio.h>

#include "util/sim-point.h"

#define CO_TASK_POOL_BUSY_MAX 65536

#define NOT_WAITING (-1)

struct CoTaskPool {
    /* Set by co_task_pool_new(), never changed after. */
    Coroutine *owner;

    /* Touched only by the thread of the owner. */
    int max_busy;
    int busy;                  /* tasks that have been started, not ended */
    int status;                /* the first error */
    int wait_for;              /* owner waits until @busy is at most this */
};

/* On the stack of the owner; a new task copies it before its first yield. */
typedef struct Start {
    CoTaskPool *pool;
    CoTaskFn *task;
    void *opaque;
} Start;

static void coroutine_fn task_main(void *opaque)
{
    const Start start = *(Start *)opaque;
    CoTaskPool *pool = start.pool;
    int ret = start.task(start.opaque);

    g_assert(ret <= 0 && pool->busy > 0);
    if (ret < 0 && pool->status == 0) {
        pool->status = ret;
    }
    pool->busy--;
    if (pool->wait_for != NOT_WAITING && pool->busy <= pool->wait_for) {
        pool->wait_for = NOT_WAITING;
        aio_co_wake(pool->owner);
    }
}

static void coroutine_fn wait_until_busy(CoTaskPool *pool, int max_busy)
{
    g_assert(pool->owner == coroutine_self());
    if (pool->busy > max_busy) {
        pool->wait_for = max_busy;
        SIM_WAITS("a place in a task pool", pool);
        coroutine_yield();
        g_assert(pool->wait_for == NOT_WAITING && pool->busy <= max_busy);
    }
}

void co_task_pool_set_max_busy(CoTaskPool *pool, int max_busy)
{
    g_assert(max_busy >= 1 && max_busy <= CO_TASK_POOL_BUSY_MAX);
    pool->max_busy = max_busy;
}

CoTaskPool *coroutine_fn co_task_pool_new(int max_busy)
{
    CoTaskPool *pool = g_new0(CoTaskPool, 1);

    pool->owner = coroutine_self();
    g_assert(pool->owner);
    co_task_pool_set_max_busy(pool, max_busy);
    pool->wait_for = NOT_WAITING;
    return pool;
}

int coroutine_fn co_task_pool_start(CoTaskPool *pool, CoTaskFn *task,
                                    void *opaque)
{
    Start start = { .pool = pool, .task = task, .opaque = opaque };

    if (pool->status == 0) {
        wait_until_busy(pool, pool->max_busy - 1);
    }
    if (pool->status < 0) {
        return pool->status;
    }
    pool->busy++;
    coroutine_enter(coroutine_create(task_main, &start));
    return 0;
}

int co_task_pool_status(const CoTaskPool *pool)
{
    return pool->status;
}

int coroutine_fn co_task_pool_wait_all(CoTaskPool *pool)
{
    wait_until_busy(pool, 0);
    return pool->status;
}

void co_task_pool_free(CoTaskPool *pool)
{
    if (pool) {
        g_assert(pool->busy == 0);
    }
    g_free(pool);
}
