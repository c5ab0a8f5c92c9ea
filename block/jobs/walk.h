/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A walk of a job from the beginning of a disk to its end: what is found to
 * need it is copied, several areas at once.
 *
 *   K1  An area is counted before its coroutine can run, and the walk returns
 *       when none is left: so what the methods use may go after it.
 *   K2  At a pause point nothing is under way.
 */
#ifndef BLOCK_JOBS_WALK_H
#define BLOCK_JOBS_WALK_H

#include "block/copy/copy-window.h"
#include "block/jobs/job.h"

/** Most areas at once, and the default. */
#define JOB_WALK_WORKERS_MAX 64
#define JOB_WALK_WORKERS_DEFAULT "16"

/** What is read into memory at once, and the most that is zeroed at once: a
 * pause does not wait for more (J2). */
#define JOB_WALK_CHUNK (INT64_C(1) << 20)
#define JOB_WALK_ZERO_CHUNK (INT64_C(16) << 20)

/** A range of the disk that is copied at once. */
typedef struct JobArea {
    int64_t offset;
    int64_t bytes;
} JobArea;

typedef struct JobWalk JobWalk;

/** What a job does on the way.  Main context. */
typedef struct JobWalkMethods {
    /**
     * What begins at @offset.  Returns 1: it is to be copied, 0: it is not, or
     * a negative errno; with its length in @ret_bytes, 0 beyond the end.
     */
    int coroutine_fn (*find)(JobWalk *walk, int64_t offset,
                             int64_t *ret_bytes);
    /** Copy @area, wherever find() has said so or has failed.  Returns 0 or a
     * negative errno; @ret_read: it was the source's. */
    int coroutine_fn (*copy)(JobWalk *walk, const JobArea *area,
                             bool *ret_read);
} JobWalkMethods;

/** A walk; zeroed, but for the first block.  Main context. */
struct JobWalk {
    /* Set by the job. */
    BlockJob *job;
    const JobWalkMethods *methods;
    int64_t length;
    unsigned max_workers;
    BlockOnError on_error;
    bool skip_failed;      /* IGNORE leaves it behind; else tries again */

    /* Private. */
    int64_t at;            /* all before has been found */
    unsigned busy;         /* areas that are being copied */
    CopyWindow window;     /* how many may be */
    unsigned skipped;      /* that needed no copy, in a row */
    GQueue again;          /* JobTask *: to be copied once more */
    GQueue failed;         /* JobTask *: nobody has decided about them */

    /* The first failure: of the walk, or that was left. */
    int error;             /* negative errno; 0: none */
    bool error_read;
};

/**
 * Go all the way, with pause points and the job's limit.
 *
 * Returns 0, -ECANCELED, or the error of the area that failed; 0 too, with
 * walk->error, when failures were left behind.
 */
int coroutine_fn job_walk(JobWalk *walk);

/** The part of [@offset, +@bytes) that does not reach over the next multiple of
 * the chunk, so that areas end where clusters do. */
int64_t job_walk_chunk(int64_t offset, int64_t bytes);

#endif /* BLOCK_JOBS_WALK_H */
