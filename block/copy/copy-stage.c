/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Staging: the old content waits in memory for the target.
 *
 * A staged task stays in the list of tasks until its content is in the target,
 * so a call that wants the range in the target waits for it like for any other
 * (C3).  A few coroutines write the queue, the oldest first; each is counted as
 * background work before it runs, on behalf of a request that is counted, so
 * that a drained section waits for the queue to be empty.
 */
#include "block/copy/copy-int.h"

#include <blockgraph/aio.h>
#include <errno.h>

#define STAGE_WRITERS_MAX 8

void block_copy_set_staging(BlockCopyState *s, int64_t bytes)
{
    g_assert(atomic_load(&s->nr_staged) == 0);
    mem_budget_init(&s->staging, bytes);
    stage_pool_destroy(&s->slots);
    stage_pool_init(&s->slots, s->cluster, bytes);
    copy_part_init(s);
}

/* --- the memory ----------------------------------------------------------- */

static void *staged_alloc(BlockCopyState *s, int64_t bytes)
{
    void *buf = bytes <= s->cluster ? stage_pool_get(&s->slots) : NULL;

    return buf ? buf : copy_alloc(s, bytes);
}

static void staged_free(BlockCopyState *s, void *buf)
{
    if (!stage_pool_put(&s->slots, buf)) {
        block_aligned_free(buf);
    }
}

void block_copy_staged_unref(BlockCopyStaged *staged)
{
    if (staged && atomic_fetch_sub(&staged->refs, 1) == 1) {
        if (staged->data) {
            staged_free(staged->s, staged->data);
            mem_budget_give(&staged->s->staging, staged->bytes);
        }
        g_free(staged);
    }
}

/* The content of @task, or NULL with *@ret_code.  The memory, as much as the
 * task needs of @taken, is part of it; the rest is given back. */
static BlockCopyStaged *coroutine_fn read_staged(CopyTask *task, int64_t taken,
                                                 uint64_t missing,
                                                 int *ret_code,
                                                 bool *ret_read_failed)
{
    BlockCopyState *s = task->s;
    BlockCopyStaged *staged = g_new0(BlockCopyStaged, 1);
    int64_t bytes = reqlist_bytes(&task->req);

    atomic_init(&staged->refs, 1);
    staged->offset = reqlist_offset(&task->req);
    staged->bytes = bytes;
    staged->s = s;
    if (task->method == COPY_METHOD_ZERO) {
        return staged;
    }
    if (taken > bytes) {
        mem_budget_give(&s->staging, taken - bytes);
    }
    staged->data = staged_alloc(s, bytes);
    *ret_code = !staged->data   ? -ENOMEM
                : task->in_part ? copy_part_read(task, staged, ~missing)
                                : copy_read(s, staged->offset, bytes,
                                            staged->data);
    *ret_read_failed = staged->data && *ret_code < 0;
    if (*ret_code < 0 ||
        (!task->in_part && block_buffer_is_zero(staged->data, bytes))) {
        staged_free(s, g_steal_pointer(&staged->data));
        mem_budget_give(&s->staging, bytes);
    }
    if (*ret_code < 0) {
        g_free(staged);
        return NULL;
    }
    return staged;
}

/* --- writing it ----------------------------------------------------------- */

static CopyTask *next_staged(BlockCopyState *s)
{
    LOCK_GUARD(&s->lock);
    if (list_empty(&s->staged_queue)) {
        s->nr_writers--;
        return NULL;
    }
    CopyTask *task = LIST_ENTRY(s->staged_queue.next, CopyTask, link);

    list_remove(&task->link);
    return task;
}

static void coroutine_fn write_staged(CopyTask *task)
{
    BlockCopyState *s = task->s;
    BlockCopyStaged *staged = task->staged;
    int ret;

    SIM_POINT("copy.staged", NULL);
    ret = task->in_part ? copy_part_complete(task) : 0;
    ret = ret < 0        ? ret
          : staged->data ? copy_write(s, staged->offset, staged->bytes,
                                    staged->data)
                         : copy_write_zeroes(s, staged->offset, staged->bytes);
    if (ret < 0) {
        block_copy_break(s, ret);
        if (s->config.staged_failed) {
            s->config.staged_failed(s->config.opaque, ret);
        }
    }
    copy_task_end(task, ret);
    atomic_fetch_sub(&s->nr_staged, 1);
    block_copy_staged_unref(staged);
}

typedef struct Writer {
    BlockCopyState *s;
    unsigned ticket;
} Writer;

static void coroutine_fn writer_entry(void *opaque)
{
    Writer *writer = opaque;
    BdrvWork *work = writer->s->config.work;
    unsigned ticket = writer->ticket;
    CopyTask *task;

    while ((task = next_staged(writer->s))) {
        write_staged(task);
    }
    g_free(writer);
    bdrv_work_end(work, ticket); /* the state may be gone from here on */
}

static void start_writer(BlockCopyState *s)
{
    Writer *writer = g_new(Writer, 1);

    g_assert(s->config.work);
    writer->s = s;
    writer->ticket = bdrv_work_fork(s->config.work);
    aio_co_schedule(aio_get_current(), coroutine_create(writer_entry, writer));
}

/* The content is safe: who only waits for that goes on. */
static void publish(CopyTask *task, BlockCopyStaged *staged, uint64_t missing)
{
    BlockCopyState *s = task->s;
    bool start = false;

    WITH_LOCK(&s->lock) {
        task->staged = staged;
        task->missing = missing;
        atomic_fetch_add(&s->nr_staged, 1);
        list_append(&s->staged_queue, &task->link);
        if (s->nr_writers < STAGE_WRITERS_MAX) {
            s->nr_writers++;
            start = true;
        }
        co_queue_restart_all(&task->req.waiters);
    }
    if (start) {
        start_writer(s);
    }
}

/* --- a call --------------------------------------------------------------- */

static int coroutine_fn stage_area(BlockCopyCall *call, const CopyArea *area)
{
    BlockCopyState *s = call->s;
    int64_t taken = area->method < COPY_METHOD_ZERO ? area->bytes : 0;
    BlockCopyStaged *staged;
    uint64_t missing;
    CopyTask *task;
    int ret = 0;

    if (taken > 0) {
        mem_budget_take(&s->staging, taken);
    }
    task = copy_task_claim(s, area);
    if (!task && taken > 0) {
        mem_budget_give(&s->staging, taken);
    }
    if (!task) {
        return 0;
    }
    if (task->method == COPY_METHOD_SKIP) {
        copy_task_end(task, 0);
        return 0;
    }
    missing = copy_part_unneeded(call, task);
    task->in_part = missing != 0;
    staged = read_staged(task, taken, missing, &ret, &call->read_failed);
    if (!staged) {
        copy_task_end(task, ret);
        return ret;
    }
    publish(task, staged, missing);
    return 0;
}

int coroutine_fn copy_stage_run(BlockCopyCall *call)
{
    int64_t end = call->how.offset + call->how.bytes;
    int64_t at = call->how.offset;
    CopyArea area;
    int ret = 0;

    call->how.max_chunk = CLAMP(call->s->staging.bytes, 1, COPY_BUFFER_BYTES);
    ret = copy_part_load(call);
    while (ret == 0 && at < end && !atomic_load(&call->cancelled) &&
           copy_find_area(call, at, &area)) {
        copy_part_cut(call, &area);
        ret = stage_area(call, &area);
        at = area.offset + area.bytes;
    }
    return ret;
}

/* --- a reader ------------------------------------------------------------- */

BlockCopyStaged *block_copy_staged_find(BlockCopyState *s, int64_t offset,
                                        int64_t bytes, int64_t *ret_bytes)
{
    BlockReq *req;

    *ret_bytes = bytes;
    if (atomic_load(&s->nr_staged) == 0) {
        return NULL;
    }
    LOCK_GUARD(&s->lock);
    req = reqlist_find_conflict(&s->tasks, offset, bytes);
    for (; req; req = reqlist_next_conflict(req, offset, bytes)) {
        CopyTask *task = LIST_ENTRY(req, CopyTask, req);
        int64_t at = MAX(offset, reqlist_offset(req));
        int64_t n;

        if (!task->staged) {
            continue;
        }
        if (!copy_part_status(task, at, &n)) {
            at += n; /* perhaps the end of the task, where it looks again */
        } else if (at == offset) {
            *ret_bytes = MIN(n, bytes);
            atomic_fetch_add(&task->staged->refs, 1);
            return task->staged;
        }
        *ret_bytes = MIN(at - offset, bytes);
        return NULL;
    }
    return NULL;
}

int64_t block_copy_next_part(BlockCopyState *s, int64_t offset, int64_t end)
{
    BlockReq *req;

    if (offset >= end || atomic_load(&s->nr_staged) == 0) {
        return end;
    }
    LOCK_GUARD(&s->lock);
    req = reqlist_find_conflict(&s->tasks, offset, end - offset);
    while (req && !LIST_ENTRY(req, CopyTask, req)->missing) {
        req = reqlist_next_conflict(req, offset, end - offset);
    }
    return req ? MAX(reqlist_offset(req), offset) : end;
}
