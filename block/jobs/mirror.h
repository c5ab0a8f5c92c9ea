/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the files of the mirror job share.
 *
 *   mirror.c       options, start, and the end
 *   mirror-work.c  the work: what is dirty is copied, until it is enough
 *   active-commit.c  a mirror to a lower layer of the same chain
 *
 * The filter (block/filters/mirror-top.h) notes what guests change.  run() ends
 * when somebody has asked for the end and nothing is dirty; guests write both
 * sides from then on (MIRROR_FINISHING).  prepare() takes effect:
 *
 *   E1  In one drained section nothing is found to be dirty, in a copy or not
 *       flushed, and the target takes the place, or is left alone from then
 *       on.  No request is sent inside the section, so guests wait for nobody.
 *   E2  Otherwise the section ends, what is left is copied, and so on.  New
 *       work comes only from writes to the target that fail, which end it.
 */
#ifndef BLOCK_JOBS_MIRROR_H
#define BLOCK_JOBS_MIRROR_H

#include "block/copy/copy-window.h"
#include "block/filters/mirror-top.h"
#include "block/jobs/job.h"

/** What is copied beside what guests change. */
typedef enum MirrorSync {
    MIRROR_SYNC_FULL, /* everything */
    MIRROR_SYNC_TOP,  /* what the source's own layer has */
    MIRROR_SYNC_NONE, /* nothing */
} MirrorSync;

/** How it ends. */
typedef enum MirrorEnd {
    MIRROR_END_NOT,   /* nobody has asked */
    MIRROR_END_COPY,  /* with a copy */
    MIRROR_END_PIVOT, /* the target takes the source's place */
} MirrorEnd;

/** The options of a mirror. */
typedef struct MirrorOptions {
    char *device;
    char *target;
    int sync;                 /* MirrorSync */
    int copy_mode;            /* MirrorMode, less MIRROR_BACKGROUND */
    int64_t granularity;
    int64_t buf_size;
    int64_t max_workers;
    bool unmap;
    bool target_is_zero;
    bool use_copy_range;
    char *replaces;           /* or NULL */
    int on_source_error;      /* BlockOnError */
    int on_target_error;
    char *filter_node_name;   /* or NULL */
} MirrorOptions;

/** What was found the last time, and may be outdated. */
typedef struct MirrorKnown {
    int64_t offset;
    int64_t end;
    MirrorKind kind;
} MirrorKnown;

/** A mirror.  Main context. */
typedef struct MirrorJob {
    BlockJob job;
    MirrorOptions o;
    BlockDriverState *source; /* with a reference each */
    BlockDriverState *target;
    BlockDriverState *replaces; /* or NULL */
    BlockDriverState *filter;
    MirrorTop *top;           /* of @filter */
    int64_t granularity;
    int64_t chunk;            /* most that one copy reads */
    CopyWindow window;        /* how many copies at once */
    MirrorEnd end;
    bool switched;            /* guests are on the target */

    /* Of a commit: the target is a lower layer, "base".  Else NULL, 0. */
    BlockDriverState *above_target; /* whose edge leads there; a reference */
    bool unguarded;           /* that edge */
    bool made_writable;       /* the base was read-only */
    int64_t grown_from;       /* its length before; -1: as it is */

    /* Of the work. */
    int64_t cursor;           /* where to look next */
    MirrorKnown known;
    unsigned busy;            /* copies */
    int error[2];             /* the last failure of target and source */
} MirrorJob;

/* --- mirror.c ------------------------------------------------------------- */

/** Choose what follows from the options; the nodes are known. */
int mirror_choose_sizes(MirrorJob *m, GError **errp);

/** Take references, and put the filter above the source.  After a failure the
 * graph is as it was. */
int coroutine_fn mirror_begin(MirrorJob *m, GError **errp);

/** Have the layer above the target, if that is known, share its edge with our
 * writes (@on: no longer). */
void mirror_guard(MirrorJob *m, bool on);

/** The methods of JobDriver, for all that are mirrors. */
int coroutine_fn mirror_prepare(BlockJob *job, GError **errp);
void coroutine_fn mirror_commit(BlockJob *job);
void coroutine_fn mirror_abort(BlockJob *job);
void coroutine_fn mirror_clean(BlockJob *job);
void mirror_kick(BlockJob *job);
void mirror_look_progress(BlockJob *job);
int mirror_complete(BlockJob *job, GError **errp);
bool mirror_soft_cancel(BlockJob *job);

/* --- mirror-work.c -------------------------------------------------------- */

/** run() of the job. */
int coroutine_fn mirror_work(MirrorJob *m, GError **errp);

/** Copy what is left, and flush; no error is ignored, and no pause made. */
int coroutine_fn mirror_work_rest(MirrorJob *m, GError **errp);

/** Whether the target is, and keeps, what the source is (E1); drained. */
bool mirror_work_is_over(MirrorJob *m);

#endif /* BLOCK_JOBS_MIRROR_H */
