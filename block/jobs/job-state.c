/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The state machine of jobs, as two tables, and the list of their kinds.
 */
#include "block/jobs/job.h"

const char *const block_job_type_names[] = {
    [BLOCK_JOB_BACKUP] = "backup",
    [BLOCK_JOB_STREAM] = "stream",
    [BLOCK_JOB_COMMIT] = "commit",
    [BLOCK_JOB_MIRROR] = "mirror",
    [BLOCK_JOB_CREATE] = "create",
    NULL,
};

const char *const block_job_status_names[] = {
    [BLOCK_JOB_CREATED] = "created",
    [BLOCK_JOB_RUNNING] = "running",
    [BLOCK_JOB_PAUSED] = "paused",
    [BLOCK_JOB_READY] = "ready",
    [BLOCK_JOB_STANDBY] = "standby",
    [BLOCK_JOB_WAITING] = "waiting",
    [BLOCK_JOB_PENDING] = "pending",
    [BLOCK_JOB_ABORTING] = "aborting",
    [BLOCK_JOB_CONCLUDED] = "concluded",
    [BLOCK_JOB_NULL] = "null",
    NULL,
};

const char *const block_job_verb_names[] = {
    [BLOCK_JOB_CANCEL] = "cancel",
    [BLOCK_JOB_PAUSE] = "pause",
    [BLOCK_JOB_RESUME] = "resume",
    [BLOCK_JOB_SET_SPEED] = "set-speed",
    [BLOCK_JOB_COMPLETE] = "complete",
    [BLOCK_JOB_FINALIZE] = "finalize",
    [BLOCK_JOB_DISMISS] = "dismiss",
    [BLOCK_JOB_CHANGE] = "change",
    NULL,
};

const char *const block_job_io_status_names[] = {
    [BLOCK_JOB_IO_OK] = "ok",
    [BLOCK_JOB_IO_FAILED] = "failed",
    [BLOCK_JOB_IO_NOSPACE] = "nospace",
    NULL,
};

#define S(status) (1u << BLOCK_JOB_##status)

/* Which states may follow one. */
static const unsigned followers[BLOCK_JOB_STATUSES] = {
    [BLOCK_JOB_CREATED] = S(RUNNING) | S(ABORTING) | S(NULL),
    [BLOCK_JOB_RUNNING] = S(PAUSED) | S(READY) | S(WAITING) | S(ABORTING),
    [BLOCK_JOB_PAUSED] = S(RUNNING) | S(ABORTING),
    [BLOCK_JOB_READY] = S(STANDBY) | S(WAITING) | S(ABORTING),
    [BLOCK_JOB_STANDBY] = S(READY) | S(ABORTING),
    [BLOCK_JOB_WAITING] = S(PENDING) | S(ABORTING),
    [BLOCK_JOB_PENDING] = S(CONCLUDED) | S(ABORTING),
    [BLOCK_JOB_ABORTING] = S(CONCLUDED),
    [BLOCK_JOB_CONCLUDED] = S(NULL),
    [BLOCK_JOB_NULL] = 0,
};

#define AT_WORK (S(CREATED) | S(RUNNING) | S(PAUSED) | S(READY) | S(STANDBY))

/* In which states a verb is allowed. */
static const unsigned allowed[BLOCK_JOB_VERBS] = {
    [BLOCK_JOB_CANCEL] = AT_WORK | S(WAITING) | S(PENDING),
    [BLOCK_JOB_PAUSE] = AT_WORK,
    [BLOCK_JOB_RESUME] = AT_WORK,
    [BLOCK_JOB_SET_SPEED] = AT_WORK,
    [BLOCK_JOB_COMPLETE] = S(READY),
    [BLOCK_JOB_FINALIZE] = S(PENDING),
    [BLOCK_JOB_DISMISS] = S(CONCLUDED),
    [BLOCK_JOB_CHANGE] = AT_WORK,
};

bool block_job_verb_allowed(BlockJobVerb verb, BlockJobStatus status)
{
    return allowed[verb] & (1u << status);
}

bool block_job_status_may_follow(BlockJobStatus from, BlockJobStatus to)
{
    return followers[from] & (1u << to);
}

const JobDriver *const job_drivers[BLOCK_JOB_TYPES] = {
    [BLOCK_JOB_BACKUP] = &job_driver_backup,
    [BLOCK_JOB_STREAM] = &job_driver_stream,
    [BLOCK_JOB_COMMIT] = &job_driver_commit,
    [BLOCK_JOB_MIRROR] = &job_driver_mirror,
    [BLOCK_JOB_CREATE] = &job_driver_create,
};

const BlockOption *block_job_options(BlockJobType type)
{
    return job_drivers[type]->options;
}
