/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Clusters of which only a part is staged (C6).
 *
 * A guest that changes 4 KiB needs 4 KiB of old content before it goes on, not
 * the 64 KiB around it.  So its call reads the units that it needs into the
 * memory of the cluster and hands the task to the writers; guests that come
 * meanwhile read what they need besides.  The writer reads what is missing when
 * it is the task's turn.
 *
 *   P1  Under the lock of the state, @missing only ever loses units, and a unit
 *       is taken out after its old content is in the memory.  So who has looked
 *       at @missing may read the others, and nobody writes them again.
 *   P2  Only who has set @loading reads units, so no unit is read twice, and
 *       none while another guest, whose call has returned, changes it.
 *   P3  A task in whose @missing something is does not end, but by the writer
 *       whose completing it failed; and that one waits for @loading, and does
 *       not take it back.  So a task stays while one has set @loading there.
 */
#include "block/copy/copy-int.h"

#include <errno.h>

#define PART_BYTES_MIN INT64_C(4096)
#define UNITS_MAX 64

void copy_part_init(BlockCopyState *s)
{
    const BlockLimits *limits = bdrv_limits(bdrv_child_bs(s->config.source));
    int64_t bytes = MAX(PART_BYTES_MIN, s->cluster / UNITS_MAX);

    bytes = MAX(bytes, (int64_t)limits->request_alignment);
    s->part_bytes = s->config.staged_whole ? MIN(bytes, s->cluster)
                                           : s->cluster;
}

/* --- units ---------------------------------------------------------------- */

/* The units [@first, @end) of a task, both at most UNITS_MAX. */
static uint64_t unit_mask(int64_t first, int64_t end)
{
    uint64_t below_end = end == UNITS_MAX ? ~UINT64_C(0)
                                          : (UINT64_C(1) << end) - 1;

    return first == UNITS_MAX ? 0
                              : below_end & ~((UINT64_C(1) << first) - 1);
}

static uint64_t all_units(const CopyTask *task)
{
    int64_t unit = task->s->part_bytes;

    return unit_mask(0, (reqlist_bytes(&task->req) + unit - 1) / unit);
}

/* The units of @task, which is one cluster, that @call needs. */
static uint64_t needed_units(const BlockCopyCall *call, const CopyTask *task)
{
    int64_t unit = task->s->part_bytes;
    int64_t start = reqlist_offset(&task->req);
    int64_t bytes = reqlist_bytes(&task->req);
    int64_t from = CLAMP(call->how.need_offset - start, 0, bytes);
    int64_t to = CLAMP(call->how.need_offset + call->how.need_bytes - start,
                       from, bytes);

    return from == to ? 0 : unit_mask(from / unit, (to + unit - 1) / unit);
}

void copy_part_cut(const BlockCopyCall *call, CopyArea *area)
{
    const BlockCopyState *s = call->s;
    int64_t need_end = call->how.need_offset + call->how.need_bytes;
    int64_t whole_end = need_end & ~(s->cluster - 1);

    if (s->part_bytes == s->cluster ||
        (area->offset >= call->how.need_offset &&
         area->offset + area->bytes <= need_end)) {
        return;
    }
    if (area->offset < call->how.need_offset || area->offset >= whole_end) {
        area->bytes = MIN(area->bytes, s->cluster);
    } else {
        area->bytes = MIN(area->bytes, whole_end - area->offset);
    }
}

uint64_t copy_part_unneeded(const BlockCopyCall *call, const CopyTask *task)
{
    const BlockCopyState *s = call->s;

    if (s->part_bytes == s->cluster || task->method >= COPY_METHOD_ZERO ||
        reqlist_bytes(&task->req) > s->cluster) {
        return 0;
    }
    return all_units(task) & ~needed_units(call, task);
}

bool copy_part_suffices(const BlockCopyCall *call, const CopyTask *task)
{
    return task->staged &&
           (!task->missing || !(task->missing & needed_units(call, task)));
}

bool copy_part_status(const CopyTask *task, int64_t offset,
                      int64_t *ret_bytes)
{
    int64_t unit = task->s->part_bytes;
    int64_t at = offset - reqlist_offset(&task->req);
    int64_t bytes = reqlist_bytes(&task->req);
    int64_t i = at / unit;
    bool missing;

    if (!task->missing) {
        *ret_bytes = bytes - at;
        return true;
    }
    missing = task->missing >> i & 1;
    do {
        i++;
    } while (i * unit < bytes && (task->missing >> i & 1) == missing);
    *ret_bytes = MIN(i * unit, bytes) - at;
    return !missing;
}

/* --- reading -------------------------------------------------------------- */

int coroutine_fn copy_part_read(CopyTask *task, const BlockCopyStaged *staged,
                                uint64_t units)
{
    int64_t unit = task->s->part_bytes;
    int ret = 0;

    units &= all_units(task);
    while (ret == 0 && units) {
        int64_t first = __builtin_ctzll(units);
        uint64_t gap = ~units & ~unit_mask(0, first);
        int64_t end = gap ? __builtin_ctzll(gap) : UNITS_MAX;
        int64_t at = first * unit;

        ret = copy_read(task->s, staged->offset + at,
                        MIN(end * unit, staged->bytes) - at,
                        staged->data + at);
        units &= ~unit_mask(first, end);
    }
    return ret;
}

/* Read @units, of those that are missing; @loading is ours (P2), and stays so
 * if @ends: a failure is the end of the task. */
static int coroutine_fn load(CopyTask *task, uint64_t units, bool ends)
{
    int ret;

    SIM_POINT("copy.part", NULL);
    ret = copy_part_read(task, task->staged, units);
    WITH_LOCK(&task->s->lock) {
        if (ret == 0) {
            task->missing &= ~units;                            /* P1 */
        }
        task->loading = ret < 0 && ends;                        /* P3 */
        co_queue_restart_all(&task->req.waiters);
    }
    return ret;
}

/* Claim a task that lacks something of what @call needs. */
static CopyTask *claim_part(BlockCopyCall *call, uint64_t *ret_units)
{
    BlockCopyState *s = call->s;
    int64_t offset = call->how.need_offset;
    int64_t bytes = call->how.need_bytes;
    BlockReq *req;

    LOCK_GUARD(&s->lock);
    for (req = reqlist_find_conflict(&s->tasks, offset, bytes); req;
         req = reqlist_next_conflict(req, offset, bytes)) {
        CopyTask *task = LIST_ENTRY(req, CopyTask, req);

        if (task->staged && task->missing && !task->loading &&
            !copy_part_suffices(call, task)) {
            task->loading = true;
            *ret_units = task->missing & needed_units(call, task);
            return task;
        }
    }
    return NULL;
}

int coroutine_fn copy_part_load(BlockCopyCall *call)
{
    CopyTask *task;
    uint64_t units;
    int ret = 0;

    if (atomic_load(&call->s->nr_staged) == 0) {
        return 0;
    }
    while (ret == 0 && (task = claim_part(call, &units))) {
        ret = load(task, units, false);
        call->read_failed = ret < 0;
    }
    return ret;
}

int coroutine_fn copy_part_complete(CopyTask *task)
{
    BlockCopyState *s = task->s;
    int64_t offset = task->staged->offset;
    int64_t bytes = task->staged->bytes;
    uint64_t units;
    int ret;

    WITH_LOCK(&s->lock) {
        while (task->loading) {                                 /* P3 */
            SIM_WAITS("the rest of a staged cluster", task);
            co_queue_wait_locked(&task->req.waiters, &s->lock);
        }
        units = task->missing;
        task->loading = units != 0;
    }
    ret = units ? load(task, units, true) : 0;
    if (ret == 0) {
        s->config.staged_whole(s->config.opaque, offset, bytes);
    }
    return ret;
}
