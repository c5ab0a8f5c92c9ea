/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a running job calls.
 */
#include "block/jobs/job.h"

#include <errno.h>

const char *const job_on_error_names[] = {
    [BLOCK_ON_ERROR_REPORT] = "report",
    [BLOCK_ON_ERROR_IGNORE] = "ignore",
    [BLOCK_ON_ERROR_STOP] = "stop",
    [BLOCK_ON_ERROR_ENOSPC] = "enospc",
    NULL,
};

/* --- holds ---------------------------------------------------------------- */

void coroutine_fn job_wait_kick(BlockJob *job)
{
    SIM_WAITS("a kick for job", job->id);
    co_queue_wait(&job->kicked, NULL);
}

void coroutine_fn job_pause_point(BlockJob *job)
{
    BlockJobStatus status = job->status;

    SIM_POINT("job.pause-point", job->id);
    if (job->holds == 0 || job->cancelled) {
        return;
    }
    job_set_status(job, status == BLOCK_JOB_READY ? BLOCK_JOB_STANDBY
                                                  : BLOCK_JOB_PAUSED);
    while (job->holds > 0 && !job->cancelled) {
        job_wait_kick(job);
    }
    /* Who was given up meanwhile is aborting. */
    if (!job->ended) {
        job_set_status(job, status);
    }
}

void coroutine_fn job_sleep(BlockJob *job, int64_t ns)
{
    if (!job_should_stop(job)) {
        co_sleep_ns_wakeable(&job->sleep, ns);
    }
}

bool coroutine_fn job_limit(BlockJob *job, int64_t bytes)
{
    const AioContext *ctx = block_graph_aio_context(job->graph);

    while (!job_should_stop(job) && throttle_is_limited(&job->limit)) {
        int64_t ns = throttle_wait_ns(&job->limit, true, aio_clock_ns(ctx));

        if (ns == 0) {
            throttle_account(&job->limit, true, bytes);
            break;
        }
        job_sleep(job, ns);
    }
    return !job_should_stop(job);
}

void job_ready(BlockJob *job)
{
    BlockJobEvent event = { .type = BLOCK_JOB_EVENT_READY, .job = job };

    if (!job->cancelled && job->status == BLOCK_JOB_RUNNING) {
        job_set_status(job, BLOCK_JOB_READY);
        job_tell(&event);
    }
}

/* --- progress ------------------------------------------------------------- */

void job_progress_grow(BlockJob *job, int64_t bytes)
{
    job->total_progress += bytes;
}

void job_progress_done(BlockJob *job, int64_t bytes)
{
    job->current_progress += bytes;
    job->total_progress = MAX(job->total_progress, job->current_progress);
}

void job_progress_remaining(BlockJob *job, int64_t bytes)
{
    int64_t left = job->total_progress - job->current_progress;

    if (bytes < left) {
        job->current_progress += left - bytes;
    } else {
        job->total_progress += bytes - left;
    }
}

/* --- errors --------------------------------------------------------------- */

static BlockJobAction action_for(BlockOnError policy, int err)
{
    switch (policy) {
    case BLOCK_ON_ERROR_IGNORE:
        return BLOCK_JOB_ACTION_IGNORE;
    case BLOCK_ON_ERROR_STOP:
        return BLOCK_JOB_ACTION_STOP;
    case BLOCK_ON_ERROR_ENOSPC:
        return err == ENOSPC ? BLOCK_JOB_ACTION_STOP : BLOCK_JOB_ACTION_REPORT;
    default:
        return BLOCK_JOB_ACTION_REPORT;
    }
}

BlockJobAction job_error_action(BlockJob *job, BlockOnError policy, bool read,
                                int err)
{
    BlockJobEvent event = { .type = BLOCK_JOB_EVENT_ERROR, .job = job,
                            .read = read, .error = err,
                            .action = action_for(policy, err) };

    if (event.action == BLOCK_JOB_ACTION_STOP && !job->cancelled) {
        job->io_status = err == ENOSPC ? BLOCK_JOB_IO_NOSPACE
                                       : BLOCK_JOB_IO_FAILED;
        if (!job->user_paused) {
            job->user_paused = true;
            job->holds++;
        }
    }
    job_tell(&event);
    return event.action;
}

/* --- options -------------------------------------------------------------- */

int job_take_options(const BlockJob *job, BlockOptions *options,
                     const BlockOption *table, void *ret, GError **errp)
{
    const BlockOption *known[] = { table, NULL };
    g_autofree char *what = g_strdup_printf(
        "Job '%s' (type '%s')", job->id, block_job_type_names[job->drv->type]);

    if (block_options_absorb(options, table, ret, what, errp) < 0) {
        return -EINVAL;
    }
    if (block_options_check_empty(options, known, what, errp) < 0) {
        block_options_clear(table, ret);
        return -EINVAL;
    }
    return 0;
}

BlockDriverState *job_find_node(BlockJob *job, const char *key,
                                const char *name, GError **errp)
{
    BlockDriverState *bs = bdrv_find_node(job->graph, name);

    if (!bs) {
        block_error(errp, ENOENT, "Job '%s': there is no node '%s' (option "
                    "'%s')", job->id, name, key);
    }
    return bs;
}

int job_find_pair(BlockJob *job, const char *device, const char *target,
                  BlockDriverState **ret_source, BlockDriverState **ret_target,
                  GError **errp)
{
    *ret_source = job_find_node(job, "device", device, errp);
    *ret_target = *ret_source ? job_find_node(job, "target", target, errp)
                              : NULL;
    if (!*ret_target) {
        return -ENOENT;
    }
    if (*ret_source == *ret_target) {
        return block_error(errp, EINVAL, "Job '%s': node '%s' cannot be copied "
                           "to itself", job->id, device);
    }
    return job_check_lengths(job, *ret_source, *ret_target, errp);
}

int job_check_lengths(BlockJob *job, BlockDriverState *source,
                      BlockDriverState *target, GError **errp)
{
    if (bdrv_length(source) == bdrv_length(target)) {
        return 0;
    }
    return block_error(errp, EINVAL, "Job '%s': node '%s' has %" G_GINT64_FORMAT
                       " bytes, its target '%s' has %" G_GINT64_FORMAT "; they "
                       "must be the same", job->id, bdrv_node_name(source),
                       bdrv_length(source), bdrv_node_name(target),
                       bdrv_length(target));
}
