/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Worker threads for calls that block.
 *
 * One pool serves all contexts of a process: it comes with the first user and
 * goes with the last one, so nothing is left behind at exit.  Threads start
 * when there is more work than idle threads, up to a limit, and exit when they
 * have been idle for a while.
 */
#ifndef UTIL_WORK_POOL_H
#define UTIL_WORK_POOL_H

#include <stdbool.h>

/** The most worker threads of a pool. */
#define WORK_POOL_THREADS_MAX 64

typedef struct WorkPool WorkPool;
typedef struct WorkItem WorkItem;
typedef void WorkFunc(WorkItem *item);

/** A piece of work, inside the caller's request. */
struct WorkItem {
    WorkFunc *func;     /* set by the caller */
    WorkItem *next;     /* guarded by the pool's lock while queued */
};

/** The pool of the process, with one more reference.  Thread: any. */
WorkPool *work_pool_get_shared(void);

/** A pool of its own with up to @threads_max threads.  Thread: any. */
WorkPool *work_pool_new(int threads_max, int idle_ms);

/**
 * Drop a reference; the last one waits for the threads to end and frees @pool,
 * in which nothing may be queued.  Thread: any but a worker.
 */
void work_pool_unref(WorkPool *pool);

/**
 * Run @item->func(@item) in a worker thread; in the calling thread when not
 * even one worker can be started.  Items start in the order of the calls.
 * @item must stay until the function has run; it may free it.
 *
 * Thread: any.
 */
void work_pool_submit(WorkPool *pool, WorkItem *item);

/** How many threads @pool has now.  Thread: any; for tests. */
int work_pool_threads(WorkPool *pool);

#endif /* UTIL_WORK_POOL_H */
