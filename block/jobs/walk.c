/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A walk of a job from the beginning of a disk to its end.
 *
 * One coroutine, the job's, finds and decides; each area has a coroutine of its
 * own that copies it.  What has failed comes back to the first one, which asks
 * the job's policy when it gets there.
 */
#include "block/jobs/walk.h"

#include <errno.h>

/* How long an area that has failed is left alone before it is tried again. */
#define RETRY_NS (INT64_C(100) * 1000 * 1000)

/* After so many areas without a copy others get a turn. */
#define SKIPS_IN_A_ROW 64

/* An area that is copied, or is to be. */
typedef struct JobTask {
    JobWalk *walk;
    JobArea area;
    int ret;       /* of the copy */
    bool read;
} JobTask;

int64_t job_walk_chunk(int64_t offset, int64_t bytes)
{
    return MIN(bytes, JOB_WALK_CHUNK - offset % JOB_WALK_CHUNK);
}

static JobTask *task_new(JobWalk *w, int64_t offset, int64_t bytes)
{
    JobTask *task = g_new0(JobTask, 1);

    task->walk = w;
    task->area = (JobArea){ .offset = offset, .bytes = bytes };
    return task;
}

/* --- copying -------------------------------------------------------------- */

static void coroutine_fn copy_entry(void *opaque)
{
    JobTask *task = opaque;
    JobWalk *w = task->walk;

    SIM_POINT("job.copy", w->job->id);
    task->ret = w->methods->copy(w, &task->area, &task->read);
    if (task->ret < 0) {
        g_queue_push_tail(&w->failed, task);
    } else {
        if (task->area.bytes <= JOB_WALK_CHUNK) { /* else it is no copy */
            copy_window_done(&w->window, task->area.bytes,
                             aio_clock_ns(aio_get_current()));
        }
        job_progress_done(w->job, task->area.bytes);
        g_free(task);
    }
    w->busy--;
    job_kick(w->job); /* the walk may end from here on */
}

/* Copy @task, as soon as the limit lets it go. */
static void coroutine_fn launch(JobWalk *w, JobTask *task)
{
    if (!job_limit(w->job, task->area.bytes)) {
        g_queue_push_head(&w->again, task);
        return;
    }
    w->busy++;                                                  /* K1 */
    aio_co_schedule(block_graph_aio_context(w->job->graph),
                    coroutine_create(copy_entry, task));
}

/* --- deciding ------------------------------------------------------------- */

static void note_error(JobWalk *w, const JobTask *task)
{
    if (w->error == 0) {
        w->error = task->ret;
        w->error_read = task->read;
    }
}

/* What becomes of an area that has failed. */
static int coroutine_fn judge(JobWalk *w, JobTask *task)
{
    BlockJobAction action = job_error_action(w->job, w->on_error, task->read,
                                             -task->ret);
    int ret = 0;

    if (action == BLOCK_JOB_ACTION_REPORT) {
        w->error = 0; /* this one is the result, whatever was left before */
        note_error(w, task);
        ret = task->ret;
    } else if (action == BLOCK_JOB_ACTION_IGNORE && w->skip_failed) {
        note_error(w, task);
        job_progress_done(w->job, task->area.bytes);
    } else {
        g_queue_push_tail(&w->again, task);
        if (action == BLOCK_JOB_ACTION_IGNORE) {
            job_sleep(w->job, RETRY_NS);
        }
        return 0;
    }
    g_free(task);
    return ret;
}

/* Look at what comes next. */
static void coroutine_fn advance(JobWalk *w)
{
    int64_t offset = w->at;
    int64_t bytes = 0;
    int ret = w->methods->find(w, offset, &bytes);

    if (ret >= 0 && bytes == 0) {
        w->at = w->length; /* the disk has become shorter */
        return;
    }
    if (ret < 0) {
        bytes = job_walk_chunk(offset, w->length - offset);
    }
    bytes = MIN(bytes, w->length - offset);
    w->at += bytes;
    if (ret < 0) {
        JobTask *task = task_new(w, offset, bytes);

        task->ret = ret;
        task->read = true;
        g_queue_push_tail(&w->failed, task);
    } else if (ret > 0) {
        w->skipped = 0;
        launch(w, task_new(w, offset, bytes));
    } else {
        job_progress_done(w->job, bytes);
        if (++w->skipped % SKIPS_IN_A_ROW == 0) {
            job_sleep(w->job, 0);
        }
    }
}

static bool is_over(JobWalk *w)
{
    return w->at >= w->length && w->busy == 0 &&
           g_queue_is_empty(&w->again) && g_queue_is_empty(&w->failed);
}

/* One step; nothing that was looked at before is believed after it. */
static int coroutine_fn step(JobWalk *w)
{
    bool more = w->at < w->length || !g_queue_is_empty(&w->again);

    if (!job_is_cancelled(w->job) && !g_queue_is_empty(&w->failed)) {
        return judge(w, g_queue_pop_head(&w->failed));
    }
    if (w->busy > 0 && (job_should_stop(w->job) || !more ||
                        w->busy >= w->window.workers)) {
        job_wait_kick(w->job);
    } else if (job_should_stop(w->job)) {
        job_pause_point(w->job);                                /* K2 */
        return job_is_cancelled(w->job) ? -ECANCELED : 0;
    } else if (!g_queue_is_empty(&w->again)) {
        launch(w, g_queue_pop_head(&w->again));
    } else {
        advance(w);
    }
    return 0;
}

int coroutine_fn job_walk(JobWalk *w)
{
    int ret = 0;

    copy_window_init(&w->window, w->max_workers);
    while (ret == 0 && !is_over(w)) {
        ret = step(w);
    }
    while (w->busy > 0) {                                       /* K1 */
        job_wait_kick(w->job);
    }
    g_queue_clear_full(&w->again, g_free);
    g_queue_clear_full(&w->failed, g_free);
    return ret;
}
