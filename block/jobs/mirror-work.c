/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The work of a mirror: copy what is dirty, several areas at once.
 *
 * The job's coroutine finds an area and claims it; a coroutine of its own
 * copies it.  Each copy is counted before it claims anything, since guests may
 * wait for it, and a gate that is shut would wait for them.
 */
#include "block/jobs/mirror.h"

#include <errno.h>

#include "util/sim-point.h"

/* How long a failure is left alone, and how long changes gather while nothing
 * else is to be done. */
#define RETRY_NS (INT64_C(100) * 1000 * 1000)
#define GATHER_NS (INT64_C(100) * 1000 * 1000)

/* Most zeroes that are written at once: a pause waits for them. */
#define ZERO_BYTES (INT64_C(16) << 20)

/* After so many looks without a wait others get a turn. */
#define LOOKS_IN_A_ROW 64

/* --- errors --------------------------------------------------------------- */

static int cancelled(MirrorJob *m, GError **errp)
{
    return block_error(errp, ECANCELED, "Job '%s' was cancelled", m->job.id);
}

static int failed(MirrorJob *m, bool read, int err, GError **errp)
{
    return block_error_errno(errp, err, "Job '%s': could not %s node '%s'",
                             m->job.id, read ? "read" : "write to",
                             read ? m->o.device : m->o.target);
}

static int check_lost(MirrorJob *m, GError **errp)
{
    return mirror_top_is_lost(m->top)
               ? block_error(errp, ENOMEM, "Job '%s': there was no memory to "
                             "note what was written to node '%s'", m->job.id,
                             m->o.device)
               : 0;
}

/* What becomes of a failure of one side. */
static int coroutine_fn judge_side(MirrorJob *m, bool read, GError **errp)
{
    int err = -m->error[read];
    int policy = read ? m->o.on_source_error : m->o.on_target_error;

    m->error[read] = 0;
    switch (err ? job_error_action(&m->job, policy, read, err)
                : BLOCK_JOB_ACTION_STOP) {
    case BLOCK_JOB_ACTION_REPORT:
        return failed(m, read, err, errp);
    case BLOCK_JOB_ACTION_IGNORE:
        job_sleep(&m->job, RETRY_NS);
        return 0;
    default:
        return 0;
    }
}

static int coroutine_fn judge(MirrorJob *m, GError **errp)
{
    int ret = judge_side(m, true, errp);

    return ret < 0 ? ret : judge_side(m, false, errp);
}

/* --- what is to be copied at first ---------------------------------------- */

/* The first layer that is not looked at with sync=top, or NULL. */
static BlockDriverState *first_below(const MirrorJob *m)
{
    BdrvChild *cow = bdrv_cow_child(bdrv_skip_filters(m->source));

    return m->above_target ? m->target : cow ? bdrv_child_bs(cow) : NULL;
}

static bool wants_all(const MirrorJob *m)
{
    if (m->o.sync == MIRROR_SYNC_TOP) {
        return !first_below(m);
    }
    return m->o.sync == MIRROR_SYNC_FULL && !m->o.target_is_zero;
}

/* Whether the beginning of [@offset, +*@bytes) is to be copied, and how much of
 * it is alike; a range that cannot be looked at is. */
static bool coroutine_fn is_wanted(MirrorJob *m, int64_t offset,
                                   int64_t *bytes)
{
    BlockDriverState *below = first_below(m);
    BlockExtent extent;
    int64_t found = 0;
    int ret;

    if (m->o.sync == MIRROR_SYNC_TOP && below) {
        ret = bdrv_co_is_allocated_above(m->source, below, false, offset,
                                         *bytes, &found);
    } else {
        ret = bdrv_co_block_status_above(m->source, NULL, offset, *bytes,
                                         &extent);
        if (ret == 0) {
            found = extent.bytes;
            ret = !(extent.status & BDRV_BLOCK_ZERO);
        }
    }
    if (ret < 0 || found == 0) {
        *bytes = MIN(*bytes, m->chunk);
        return true;
    }
    *bytes = found;
    return ret > 0;
}

/* What guests write meanwhile is noted by them. */
static void coroutine_fn scan(MirrorJob *m)
{
    int64_t length = bdrv_length(m->source);
    int64_t offset = 0;

    for (unsigned i = 1; offset < length && !job_is_cancelled(&m->job); i++) {
        int64_t bytes = length - offset;
        unsigned ticket = bdrv_co_work_begin(m->top->work);

        if (is_wanted(m, offset, &bytes)) {
            mirror_top_mark(m->top, offset, bytes);
        }
        bdrv_work_end(m->top->work, ticket);
        offset += bytes;
        if (i % LOOKS_IN_A_ROW == 0) {
            co_sleep_ns(0);
        }
        job_pause_point(&m->job);
    }
}

static void coroutine_fn choose_first(MirrorJob *m)
{
    if (wants_all(m)) {
        mirror_top_mark(m->top, 0, bdrv_length(m->source));
    } else if (m->o.sync != MIRROR_SYNC_NONE) {
        scan(m);
    }
}

/* --- copies --------------------------------------------------------------- */

typedef struct MirrorTask {
    MirrorJob *m;
    MirrorRange range;
    unsigned ticket;
    bool data;             /* was known to be some */
} MirrorTask;

static void coroutine_fn task_entry(void *opaque)
{
    MirrorTask *task = opaque;
    MirrorJob *m = task->m;
    int64_t bytes = reqlist_bytes(&task->range.req);
    bool data = task->data;
    bool read;
    int ret = mirror_top_copy(m->top, &task->range, &read);

    bdrv_work_end(m->top->work, task->ticket);
    g_free(task);
    if (ret < 0) {
        m->error[read] = ret;
    } else if (data) {
        copy_window_done(&m->window, bytes, aio_clock_ns(aio_get_current()));
    }
    m->busy--;
    co_queue_restart_all(&m->job.kicked); /* the job may end from here on */
}

/* Claim what is dirty there, and have it copied. */
static void coroutine_fn start_copy(MirrorJob *m, int64_t offset,
                                    int64_t bytes, bool data)
{
    MirrorTask *task = g_new0(MirrorTask, 1);

    task->m = m;
    task->data = data;
    task->ticket = bdrv_co_work_begin(m->top->work);
    SIM_POINT("mirror.claim", m->job.id);
    if (job_should_stop(&m->job) ||
        !mirror_top_claim(m->top, &task->range, offset, bytes)) {
        bdrv_work_end(m->top->work, task->ticket);
        g_free(task);
        return;
    }
    m->busy++;
    aio_co_schedule(block_graph_aio_context(m->job.graph),
                    coroutine_create(task_entry, task));
}

/* Look at the dirty area, which others may change. */
static void coroutine_fn look(MirrorJob *m, int64_t offset, int64_t bytes)
{
    unsigned ticket = bdrv_co_work_begin(m->top->work);

    m->known.kind = mirror_look(m->top, offset, bytes, &bytes);
    m->known.offset = offset;
    m->known.end = offset + bytes;
    bdrv_work_end(m->top->work, ticket);
}

/* How much of the area a copy takes: what is alike, whole granules of it, but
 * at least one. */
static int64_t part_of(const MirrorJob *m, int64_t offset, int64_t bytes,
                       MirrorKind *ret_kind)
{
    int64_t end = offset + bytes;
    int64_t alike = MIN(m->known.end, end);

    *ret_kind = m->known.kind;
    if (alike < end) {
        alike &= ~(m->granularity - 1);
    }
    if (alike <= offset) {
        *ret_kind = MIRROR_DATA;
        return MIN(bytes, m->granularity);
    }
    bytes = alike - offset;
    switch (*ret_kind) {
    case MIRROR_NOTHING:
        return bytes;
    case MIRROR_ZERO:
        return MIN(bytes, MAX(ZERO_BYTES, m->granularity));
    default:
        return MIN(bytes, m->chunk - offset % m->chunk);
    }
}

/* Find something dirty and copy it.  Returns whether there was any. */
static bool coroutine_fn launch(MirrorJob *m)
{
    int64_t offset;
    int64_t bytes = mirror_top_find(m->top, m->cursor, &offset);
    MirrorKind kind;

    if (bytes == 0) {
        m->cursor = 0;
        m->known.end = 0;
        bytes = mirror_top_find(m->top, 0, &offset);
    }
    if (bytes == 0) {
        return false;
    }
    if (offset < m->known.offset || offset >= m->known.end) {
        look(m, offset, bytes);
    }
    bytes = part_of(m, offset, bytes, &kind);
    if (kind != MIRROR_DATA || job_limit(&m->job, bytes)) {
        start_copy(m, offset, bytes, kind == MIRROR_DATA);
        /* A disk that ends inside a granule may grow there. */
        m->cursor = (offset + bytes) & ~(m->granularity - 1);
    }
    return true;
}

/* --- the loop ------------------------------------------------------------- */

static int coroutine_fn flush_target(MirrorJob *m)
{
    unsigned ticket = bdrv_co_work_begin(m->top->work);
    int ret;

    atomic_store(&m->top->unflushed, false); /* what comes now, is after it */
    ret = bdrv_co_flush(m->target);
    if (ret < 0) {
        atomic_store(&m->top->unflushed, true);
    }
    bdrv_work_end(m->top->work, ticket);
    return ret;
}

bool mirror_work_is_over(MirrorJob *m)
{
    return mirror_top_remaining(m->top) == 0 &&
           !atomic_load(&m->top->unflushed) && !mirror_top_is_lost(m->top);
}

/* Nothing is to be copied at the moment. */
static void coroutine_fn be_clean(MirrorJob *m)
{
    job_ready(&m->job);
    if (m->end == MIRROR_END_NOT) {
        job_sleep(&m->job, GATHER_NS);
    } else if (atomic_load(&m->top->unflushed)) {
        m->error[false] = flush_target(m);
    }
}

/* One step; nothing that was looked at before is believed after it. */
static int coroutine_fn step(MirrorJob *m, GError **errp)
{
    if (job_is_cancelled(&m->job)) {
        return cancelled(m, errp);
    }
    if (m->error[true] || m->error[false]) {
        return judge(m, errp);
    }
    if (job_should_stop(&m->job) && m->busy == 0) {
        job_pause_point(&m->job);
    } else if (job_should_stop(&m->job) || m->busy >= m->window.workers) {
        job_wait_kick(&m->job);
    } else if (!launch(m)) {
        if (m->busy > 0) {
            job_wait_kick(&m->job);
        } else if (mirror_top_remaining(m->top) == 0) {
            be_clean(m);
        }
    }
    return check_lost(m, errp);
}

int coroutine_fn mirror_work(MirrorJob *m, GError **errp)
{
    int ret = 0;

    choose_first(m);
    mirror_look_progress(&m->job); /* else nobody knows how much it was */
    while (ret == 0 &&
           (m->end == MIRROR_END_NOT || m->busy > 0 || m->error[true] ||
            m->error[false] || !mirror_work_is_over(m))) {
        ret = step(m, errp);
    }
    while (m->busy > 0) {
        job_wait_kick(&m->job);
    }
    return ret;
}

int coroutine_fn mirror_work_rest(MirrorJob *m, GError **errp)
{
    int64_t offset, bytes;
    MirrorRange range;
    bool read = false;
    int ret = 0;

    while (ret == 0 && !job_is_cancelled(&m->job) &&
           (bytes = mirror_top_find(m->top, 0, &offset)) > 0) {
        unsigned ticket = bdrv_co_work_begin(m->top->work);

        if (mirror_top_claim(m->top, &range, offset, MIN(bytes, m->chunk))) {
            ret = mirror_top_copy(m->top, &range, &read);
        }
        bdrv_work_end(m->top->work, ticket);
    }
    if (job_is_cancelled(&m->job)) {
        return cancelled(m, errp);
    }
    if (ret == 0 && atomic_load(&m->top->unflushed)) {
        read = false;
        ret = flush_target(m);
    }
    return ret < 0 ? failed(m, read, -ret, errp) : check_lost(m, errp);
}
