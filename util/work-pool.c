/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Worker threads for calls that block.
 *
 * I1  Whoever changes what a thread waits for signals while it holds the lock,
 *     so the pool cannot be freed between the change and the signal.
 * I2  A pool is freed only when no worker is left and the last one is joined.
 *     A worker that exits joins the one that exited before it: at any time at
 *     most one thread waits to be joined.
 *
 * pthread locks rather than the library's own: the condition needs them, and
 * the thread sanitizer knows them.
 */
#include "util/work-pool.h"

#include "util/clock.h"

#include <glib.h>
#include <pthread.h>
#include <signal.h>

#define IDLE_MS 10000

struct WorkPool {
    /* Set by work_pool_new(), never changed after. */
    int threads_max;
    int idle_ms;

    /* Guarded by shared_lock for the shared pool; else only one is held. */
    int refs;

    /* Guarded by @lock. */
    pthread_mutex_t lock;
    pthread_cond_t wanted;      /* work is queued, or the pool stops */
    pthread_cond_t gone;        /* nr_threads has become 0 */
    WorkItem *head;
    WorkItem *tail;
    int nr_queued;
    int nr_threads;
    int nr_idle;                /* threads that wait for @wanted */
    bool stopping;
    bool have_exited;           /* @exited has to be joined */
    pthread_t exited;
};

static pthread_mutex_t shared_lock = PTHREAD_MUTEX_INITIALIZER;
static WorkPool *shared_pool;   /* guarded by shared_lock */

static WorkItem *queue_pop_locked(WorkPool *pool)
{
    WorkItem *item = pool->head;

    if (item) {
        pool->head = item->next;
        if (!pool->head) {
            pool->tail = NULL;
        }
        pool->nr_queued--;
    }
    return item;
}

static void queue_push_locked(WorkPool *pool, WorkItem *item)
{
    item->next = NULL;
    if (pool->tail) {
        pool->tail->next = item;
    } else {
        pool->head = item;
    }
    pool->tail = item;
    pool->nr_queued++;
}

/* Wait for work.  Returns false when the thread shall exit. */
static bool worker_wait_locked(WorkPool *pool)
{
    struct timespec until =
        clock_timespec(clock_monotonic_ns() + pool->idle_ms * INT64_C(1000000));
    int err = 0;

    pool->nr_idle++;
    while (!pool->head && !pool->stopping && err == 0) {
        err = pthread_cond_timedwait(&pool->wanted, &pool->lock, &until);
    }
    pool->nr_idle--;
    return pool->head != NULL;
}

static void *worker_main(void *opaque)
{
    WorkPool *pool = opaque;
    bool join_other;
    pthread_t other;

    pthread_mutex_lock(&pool->lock);
    do {
        WorkItem *item;

        while ((item = queue_pop_locked(pool))) {
            pthread_mutex_unlock(&pool->lock);
            item->func(item);           /* may free the item */
            pthread_mutex_lock(&pool->lock);
        }
    } while (worker_wait_locked(pool));

    join_other = pool->have_exited;
    other = pool->exited;
    pool->have_exited = true;
    pool->exited = pthread_self();
    if (--pool->nr_threads == 0) {
        pthread_cond_signal(&pool->gone);
    }
    pthread_mutex_unlock(&pool->lock);
    /* The pool is not touched from here on; it is freed after our join. */
    if (join_other) {
        pthread_join(other, NULL);
    }
    return NULL;
}

static bool start_worker_locked(WorkPool *pool)
{
    sigset_t all, old;
    pthread_t thread;
    int err;

    /* Signals are the business of the program's own threads. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    err = pthread_create(&thread, NULL, worker_main, pool);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (err) {
        return false;
    }
    pthread_setname_np(thread, "bg-worker");
    pool->nr_threads++;
    return true;
}

WorkPool *work_pool_new(int threads_max, int idle_ms)
{
    WorkPool *pool = g_new0(WorkPool, 1);
    pthread_condattr_t attr;

    g_assert(threads_max >= 1 && threads_max <= WORK_POOL_THREADS_MAX);
    pool->threads_max = threads_max;
    pool->idle_ms = idle_ms;
    pool->refs = 1;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&pool->wanted, &attr);
    pthread_cond_init(&pool->gone, NULL);
    pthread_condattr_destroy(&attr);
    return pool;
}

WorkPool *work_pool_get_shared(void)
{
    WorkPool *pool;

    pthread_mutex_lock(&shared_lock);
    if (shared_pool) {
        shared_pool->refs++;
    } else {
        shared_pool = work_pool_new(WORK_POOL_THREADS_MAX, IDLE_MS);
    }
    pool = shared_pool;
    pthread_mutex_unlock(&shared_lock);
    return pool;
}

static void work_pool_free(WorkPool *pool)
{
    pthread_mutex_lock(&pool->lock);
    g_assert(!pool->head);
    pool->stopping = true;
    pthread_cond_broadcast(&pool->wanted);
    while (pool->nr_threads > 0) {
        pthread_cond_wait(&pool->gone, &pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
    if (pool->have_exited) {
        pthread_join(pool->exited, NULL);
    }
    pthread_cond_destroy(&pool->gone);
    pthread_cond_destroy(&pool->wanted);
    pthread_mutex_destroy(&pool->lock);
    g_free(pool);
}

void work_pool_unref(WorkPool *pool)
{
    bool last;

    pthread_mutex_lock(&shared_lock);
    last = --pool->refs == 0;
    if (last && pool == shared_pool) {
        shared_pool = NULL;
    }
    pthread_mutex_unlock(&shared_lock);
    if (last) {
        work_pool_free(pool);
    }
}

void work_pool_submit(WorkPool *pool, WorkItem *item)
{
    bool run_here = false;

    pthread_mutex_lock(&pool->lock);
    g_assert(!pool->stopping);
    queue_push_locked(pool, item);
    if (pool->nr_queued <= pool->nr_idle) {
        pthread_cond_signal(&pool->wanted);
    } else if (pool->nr_threads < pool->threads_max &&
               !start_worker_locked(pool) && pool->nr_threads == 0) {
        /* Slow is better than never. */
        WorkItem *only = queue_pop_locked(pool);

        g_assert(only == item);
        run_here = true;
    }
    pthread_mutex_unlock(&pool->lock);
    if (run_here) {
        item->func(item);
    }
}

int work_pool_threads(WorkPool *pool)
{
    int nr;

    pthread_mutex_lock(&pool->lock);
    nr = pool->nr_threads;
    pthread_mutex_unlock(&pool->lock);
    return nr;
}
