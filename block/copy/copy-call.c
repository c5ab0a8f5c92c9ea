/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Calls: look for clusters, hand them to workers, wait for those of others.
 */
#include "block/copy/copy-int.h"

#include <blockgraph/aio.h>
#include <errno.h>

#define LIMIT_SLICE_NS (INT64_C(100) * 1000 * 1000)

/* How long background copies stay short after an urgent one. */
#define SHORT_NS (INT64_C(10) * 1000 * 1000)

/* --- the rate limit ------------------------------------------------------- */

static int64_t limit_wait_ns(BlockCopyState *s)
{
    int64_t now = aio_clock_ns(aio_get_current());

    LOCK_GUARD(&s->lock);
    return throttle_is_limited(&s->limit)
               ? throttle_wait_ns(&s->limit, true, now)
               : 0;
}

/* Wait until the limit lets a copy go, or the call is cancelled. */
static void coroutine_fn wait_for_limit(BlockCopyCall *call)
{
    int64_t ns;

    if (call->how.urgent) {
        return;
    }
    while (!atomic_load(&call->cancelled) &&
           (ns = limit_wait_ns(call->s)) > 0) {
        /* In slices: a wake-up that comes before the sleep is lost. */
        co_sleep_ns_wakeable(&call->sleep, MIN(ns, LIMIT_SLICE_NS));
    }
}

static void account(BlockCopyCall *call, const CopyTask *task)
{
    BlockCopyState *s = call->s;

    if (task->method < COPY_METHOD_ZERO && !call->how.urgent) {
        WITH_LOCK(&s->lock) {
            throttle_account(&s->limit, true, reqlist_bytes(&task->req));
        }
    }
}

/* --- one round over the range --------------------------------------------- */

static int coroutine_fn run_task(void *opaque)
{
    CopyTask *task = opaque;
    BlockCopyState *s = task->s;
    BlockCopyCall *call = task->call;
    bool read_failed;
    int ret = copy_task_run(task, &read_failed);

    if (ret == 0 && call->how.window && task->method < COPY_METHOD_ZERO) {
        copy_window_done(call->how.window, reqlist_bytes(&task->req),
                         aio_clock_ns(aio_get_current()));
    }
    if (ret < 0) {
        WITH_LOCK(&s->lock) {
            if (call->ret == 0) {
                call->ret = ret;
                call->read_failed = read_failed;
            }
        }
    }
    copy_task_end(task, ret);
    return ret;
}

static unsigned max_workers(const BlockCopyCall *call)
{
    return call->how.window        ? call->how.window->workers
           : call->how.max_workers ? call->how.max_workers
                                   : BLOCK_COPY_WORKERS_DEFAULT;
}

/* A pool when there is more than one thing to do. */
static int coroutine_fn start_task(BlockCopyCall *call, CopyTask *task,
                                   bool last, CoTaskPool **pool)
{
    int ret;

    task->call = call;
    account(call, task);
    if (!*pool && last) {
        return run_task(task);
    }
    if (!*pool) {
        *pool = co_task_pool_new(max_workers(call));
    }
    co_task_pool_set_max_busy(*pool, max_workers(call));
    ret = co_task_pool_start(*pool, run_task, task);
    if (ret < 0) {
        copy_task_end(task, ret); /* it was not begun */
    }
    return ret;
}

/* Nothing more is claimed for @call. */
static bool must_stop(BlockCopyCall *call)
{
    return atomic_load(&call->cancelled) || atomic_load(&call->s->broken);
}

/* Copy what is dirty now.  Returns 0 or the first error. */
static int coroutine_fn copy_dirty(BlockCopyCall *call)
{
    BlockCopyState *s = call->s;
    int64_t end = call->how.offset + call->how.bytes;
    int64_t at = call->how.offset;
    CoTaskPool *pool = NULL;
    CopyArea area;
    int ret = 0;

    while (ret == 0 && at < end && !must_stop(call) &&
           copy_find_area(call, at, &area)) {
        CopyTask *task;

        wait_for_limit(call);
        if (must_stop(call)) {
            break;
        }
        at = area.offset;
        task = copy_task_claim(s, &area);
        if (task) {
            at = reqlist_offset(&task->req) + reqlist_bytes(&task->req);
            ret = start_task(call, task, at >= end, &pool);
        }
    }
    if (pool) {
        int pool_ret = co_task_pool_wait_all(pool);

        ret = ret < 0 ? ret : pool_ret;
        co_task_pool_free(pool);
    }
    return ret;
}

static bool nothing_dirty_locked(BlockCopyCall *call)
{
    return hbitmap_next_dirty(call->s->dirty, call->how.offset,
                              call->how.bytes) < 0;
}

/* The first task of the range that is not all that @call wants. */
static CopyTask *task_to_wait_for(BlockCopyCall *call)
{
    BlockCopyState *s = call->s;
    int64_t offset = call->how.offset;
    int64_t bytes = call->how.bytes;
    BlockReq *req = reqlist_find_conflict(&s->tasks, offset, bytes);

    while (req && call->how.stage &&
           copy_part_suffices(call, LIST_ENTRY(req, CopyTask, req))) {
        req = reqlist_next_conflict(req, offset, bytes);
    }
    return req ? LIST_ENTRY(req, CopyTask, req) : NULL;
}

/*
 * Whether the range has neither a dirty cluster nor a task that is not staged;
 * waits for one such task if there is one.  For the end of calls (C3).
 */
static bool coroutine_fn is_settled(BlockCopyCall *call)
{
    BlockCopyState *s = call->s;
    CopyTask *task;
    LOCK_GUARD(&s->lock);

    task = task_to_wait_for(call);
    if (task && call->how.stage && task->staged && !task->loading) {
        return false; /* it is for us to read more of the cluster */
    }
    if (task) {
        SIM_WAITS("a copy by another", task);
        co_queue_wait_locked(&task->req.waiters, &s->lock);
        return false;
    }
    /* Without having let go of the lock: a task may have failed just now. */
    return nothing_dirty_locked(call);
}

/* --- a call --------------------------------------------------------------- */

static int coroutine_fn call_run(BlockCopyCall *call)
{
    BlockCopyState *s = call->s;
    bool stage = call->how.stage;
    int ret;

    do {
        ret = atomic_load(&s->broken);
        if (ret == 0) {
            ret = stage ? copy_stage_run(call) : copy_dirty(call);
        }
    } while (ret == 0 && !atomic_load(&call->cancelled) &&
             !is_settled(call));
    return ret < 0 ? ret : atomic_load(&s->broken);
}

static void check_how(const BlockCopyState *s, const BlockCopyHow *how)
{
    int64_t end = how->offset + how->bytes;

    g_assert(how->offset >= 0 && how->bytes >= 0 && end <= s->length);
    g_assert(!(how->offset & (s->cluster - 1)));
    g_assert(end == s->length || !(end & (s->cluster - 1)));
    g_assert(how->max_workers <= BLOCK_COPY_WORKERS_MAX);
    g_assert(how->need_bytes == 0 ||
             (how->need_offset >= how->offset &&
              how->need_offset + how->need_bytes <= end));
}

static BlockCopyCall *call_new(BlockCopyState *s, const BlockCopyHow *how)
{
    BlockCopyCall *call = g_new0(BlockCopyCall, 1);

    check_how(s, how);
    if (how->urgent) {
        atomic_store(&s->short_until,
                     aio_clock_ns(aio_get_current()) + SHORT_NS);
    }
    call->s = s;
    call->how = *how;
    if (how->need_bytes == 0) {
        call->how.need_offset = how->offset;
        call->how.need_bytes = how->bytes;
    }
    atomic_init(&call->refs, 1);
    co_queue_init(&call->waiters);
    WITH_LOCK(&s->lock) {
        list_append(&s->calls, &call->link);
    }
    return call;
}

static void call_unref(BlockCopyCall *call)
{
    if (atomic_fetch_sub(&call->refs, 1) == 1) {
        g_free(call);
    }
}

/* Nobody finds the call in the state any more: it may go before the call. */
static void call_finish(BlockCopyCall *call, int ret)
{
    BlockCopyState *s = call->s;

    WITH_LOCK(&s->lock) {
        /* A task that is left may fail, and its clusters be dirty again. */
        if (ret == 0 && atomic_load(&call->cancelled) &&
            ((task_to_wait_for(call) && !SIM_PLANTED(40)) ||
             !nothing_dirty_locked(call))) {
            ret = -ECANCELED;
        }
        call->ret = ret;
        call->finished = true;
        list_remove(&call->link);
        co_queue_restart_all(&call->waiters);
    }
}

static void coroutine_fn call_entry(void *opaque)
{
    BlockCopyCall *call = opaque;
    BdrvWork *work = call->counted ? call->s->config.work : NULL;
    unsigned ticket = call->ticket;

    call_finish(call, call_run(call));
    if (call->cb) {
        call->cb(call->opaque);
    }
    call_unref(call);
    if (work) {
        bdrv_work_end(work, ticket);
    }
}

/* Run @call in a coroutine of its own. */
static void call_start(BlockCopyCall *call)
{
    BdrvWork *work = call->s->config.work;

    atomic_fetch_add(&call->refs, 1);
    if (work) {
        call->ticket = bdrv_work_fork(work);
        call->counted = true;
    }
    aio_co_schedule(aio_get_current(), coroutine_create(call_entry, call));
}

/* --- in this coroutine ---------------------------------------------------- */

static void time_is_over(void *opaque)
{
    BlockCopyCall *call = opaque;

    WITH_LOCK(&call->s->lock) {
        call->timed_out = true;
        co_queue_restart_all(&call->waiters);
    }
}

static int coroutine_fn wait_with_limit(BlockCopyCall *call)
{
    BlockCopyState *s = call->s;
    AioContext *ctx = aio_get_current();
    AioTimer *timer = aio_timer_new(ctx, time_is_over, call);
    bool finished;

    aio_timer_set(timer, aio_clock_ns(ctx) + call->how.timeout_ns);
    WITH_LOCK(&s->lock) {
        while (!call->finished && !call->timed_out) {
            SIM_WAITS("a copy with a time limit", call);
            co_queue_wait_locked(&call->waiters, &s->lock);
        }
        finished = call->finished;
    }
    aio_timer_free(timer);
    if (!finished) {
        block_copy_call_cancel(call);
        return -ETIMEDOUT;
    }
    return call->ret;
}

int coroutine_fn block_copy(BlockCopyState *s, const BlockCopyHow *how,
                            bool *ret_read_failed)
{
    BlockCopyCall *call;
    int ret;

    if (how->bytes == 0) {
        return 0;
    }
    call = call_new(s, how);
    if (how->timeout_ns > 0) {
        call_start(call);
        ret = wait_with_limit(call);
    } else {
        ret = call_run(call);
        call_finish(call, ret);
    }
    if (ret_read_failed) {
        *ret_read_failed = ret != -ETIMEDOUT && call->read_failed;
    }
    call_unref(call);
    return ret;
}

/* --- in the background ---------------------------------------------------- */

BlockCopyCall *block_copy_async(BlockCopyState *s, const BlockCopyHow *how,
                                void (*cb)(void *opaque), void *opaque)
{
    BlockCopyCall *call = call_new(s, how);

    call->async = true;
    call->cb = cb;
    call->opaque = opaque;
    call_start(call);
    return call;
}

void block_copy_call_free(BlockCopyCall *call)
{
    if (call) {
        g_assert(call->finished);
        call_unref(call);
    }
}

bool block_copy_call_finished(BlockCopyCall *call)
{
    LOCK_GUARD(&call->s->lock);
    return call->finished;
}

int block_copy_call_status(BlockCopyCall *call, bool *ret_read_failed)
{
    LOCK_GUARD(&call->s->lock);
    g_assert(call->finished);
    if (ret_read_failed) {
        *ret_read_failed = call->read_failed;
    }
    return call->ret;
}

bool block_copy_call_cancelled(BlockCopyCall *call)
{
    return atomic_load(&call->cancelled);
}

void block_copy_call_cancel(BlockCopyCall *call)
{
    atomic_store(&call->cancelled, true);
    co_sleep_wake(&call->sleep);
}

void block_copy_cancel_async(BlockCopyState *s)
{
    g_autoptr(GPtrArray) calls = g_ptr_array_new();

    WITH_LOCK(&s->lock) {
        LIST_FOREACH(link, &s->calls) {
            BlockCopyCall *call = LIST_ENTRY(link, BlockCopyCall, link);

            if (call->async) {
                atomic_fetch_add(&call->refs, 1);
                g_ptr_array_add(calls, call);
            }
        }
    }
    for (guint i = 0; i < calls->len; i++) {
        block_copy_call_cancel(g_ptr_array_index(calls, i));
        call_unref(g_ptr_array_index(calls, i));
    }
}

void block_copy_call_kick(BlockCopyCall *call)
{
    co_sleep_wake(&call->sleep);
}
