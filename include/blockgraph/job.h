/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Jobs: long operations on nodes that go on while guests use them.
 *
 * A job has an id, a state and verbs; it runs as a coroutine in the main
 * context of its graph.  Names of types, states, verbs and options are those of
 * QEMU's control commands.
 *
 *            created --> running <--> paused
 *                          |   \
 *                          |    ready <--> standby
 *                          |    /
 *                        waiting --> pending --> concluded --> null
 *                          |            |           ^
 *                          +-------> aborting ------+
 *
 * (A job may abort in every state before it is concluded.)
 *
 * All functions run in the thread of the graph's main context.
 */
#ifndef BLOCKGRAPH_JOB_H
#define BLOCKGRAPH_JOB_H

#include <blockgraph/block.h>

G_BEGIN_DECLS

typedef struct BlockJob BlockJob;

/** What a job does. */
typedef enum BlockJobType {
    BLOCK_JOB_BACKUP,
    BLOCK_JOB_STREAM,
    BLOCK_JOB_COMMIT,
    BLOCK_JOB_MIRROR,
    BLOCK_JOB_CREATE, /* makes an image; works on no node of the graph */
    BLOCK_JOB_TYPES,
} BlockJobType;

/** "backup", "stream", ..., NULL. */
BLOCK_API extern const char *const block_job_type_names[];

/** How far a job is. */
typedef enum BlockJobStatus {
    BLOCK_JOB_CREATED,   /* has not begun */
    BLOCK_JOB_RUNNING,
    BLOCK_JOB_PAUSED,    /* running, but held */
    BLOCK_JOB_READY,     /* can be completed; goes on keeping up */
    BLOCK_JOB_STANDBY,   /* ready, but held */
    BLOCK_JOB_WAITING,   /* has done its work; others of its transaction not */
    BLOCK_JOB_PENDING,   /* all have; finalize makes it so */
    BLOCK_JOB_ABORTING,  /* has failed or was cancelled, and is undone */
    BLOCK_JOB_CONCLUDED, /* over; dismiss makes it go */
    BLOCK_JOB_NULL,      /* gone */
    BLOCK_JOB_STATUSES,
} BlockJobStatus;

/** "created", "running", ..., NULL. */
BLOCK_API extern const char *const block_job_status_names[];

/** What can be asked of a job. */
typedef enum BlockJobVerb {
    BLOCK_JOB_CANCEL,
    BLOCK_JOB_PAUSE,
    BLOCK_JOB_RESUME,
    BLOCK_JOB_SET_SPEED,
    BLOCK_JOB_COMPLETE,
    BLOCK_JOB_FINALIZE,
    BLOCK_JOB_DISMISS,
    BLOCK_JOB_CHANGE,
    BLOCK_JOB_VERBS,
} BlockJobVerb;

/** "cancel", "pause", ..., NULL. */
BLOCK_API extern const char *const block_job_verb_names[];

/** Whether @verb is allowed in @status.  Thread: any. */
BLOCK_API bool block_job_verb_allowed(BlockJobVerb verb,
                                      BlockJobStatus status);

/** Whether a job may go from @from to @to.  Thread: any. */
BLOCK_API bool block_job_status_may_follow(BlockJobStatus from,
                                           BlockJobStatus to);

/* --- start ---------------------------------------------------------------- */

/** The options of jobs of @type, without the common ones.  Thread: any. */
BLOCK_API const BlockOption *block_job_options(BlockJobType type);

/**
 * The options of all jobs: "job-id" (1 to 63 of letters, digits, '-', '.', '_',
 * first a letter; default: the name of the node it works on), "speed" (bytes a
 * second, 0: no limit), "auto-finalize", "auto-dismiss".
 */
BLOCK_API extern const BlockOption block_job_common_options[];

/**
 * Start a job on "device" (a node name) as @options (taken over) say; see
 * docs/jobs.md.
 *
 * Returns the job with a reference for the caller, to be dropped with
 * block_job_unref(); or NULL with @errp set and the graph as it was.
 */
BLOCK_API BlockJob *coroutine_fn block_co_job_start(BlockGraph *graph,
                                                    BlockJobType type,
                                                    BlockOptions *options,
                                                    GError **errp);

/** block_co_job_start() for callers outside coroutines. */
BLOCK_API BlockJob *block_job_start(BlockGraph *graph, BlockJobType type,
                                    BlockOptions *options, GError **errp);

/* --- looking -------------------------------------------------------------- */

/** The job of that id, or NULL; no reference is taken. */
BLOCK_API BlockJob *block_job_find(BlockGraph *graph, const char *id);

/** The job after @job in the order of their start; the first for NULL. */
BLOCK_API BlockJob *block_job_next(BlockGraph *graph, BlockJob *job);

/** Take one more reference.  Returns @job. */
BLOCK_API BlockJob *block_job_ref(BlockJob *job);

/** Drop a reference; NULL is ignored.  A job goes on without any. */
BLOCK_API void block_job_unref(BlockJob *job);

/** Whether a request of a job has failed, and the job waits. */
typedef enum BlockJobIoStatus {
    BLOCK_JOB_IO_OK,
    BLOCK_JOB_IO_FAILED,
    BLOCK_JOB_IO_NOSPACE,
} BlockJobIoStatus;

/** "ok", "failed", "nospace", NULL. */
BLOCK_API extern const char *const block_job_io_status_names[];

/** What is known of a job. */
typedef struct BlockJobInfo {
    const char *id;
    BlockJobType type;
    BlockJobStatus status;
    BlockJobIoStatus io_status;
    int64_t current_progress; /* bytes; only grow, the first one not beyond */
    int64_t total_progress;   /* the second */
    int64_t speed;            /* bytes a second; 0: no limit */
    bool user_paused;
    bool cancelled;
    bool auto_finalize;
    bool auto_dismiss;
    int ret;                  /* once over: 0 or a negative errno */
    const char *error;        /* its text, or NULL */
} BlockJobInfo;

/** Fill @info; its texts belong to the job. */
BLOCK_API void block_job_query(BlockJob *job, BlockJobInfo *info);

/* --- verbs ---------------------------------------------------------------- */
/*
 * Return 0; or a negative errno with @errp set: -EPERM, not in this state.
 * None yields; what was asked for follows.
 */

/**
 * End the job without its result.  Of a ready mirror, without @force: end it
 * with a consistent copy, and leave the graph as it is.  Within a second the
 * job is concluded, whatever its nodes do; what a request that hangs holds goes
 * when that returns.  -EPERM, too, while it takes effect; once it has, it is
 * concluded well, within that second.
 */
BLOCK_API int block_job_cancel(BlockJob *job, bool force, GError **errp);

/** Hold it; it stops within 100 ms, unless a request of it hangs.  Not
 * twice. */
BLOCK_API int block_job_pause(BlockJob *job, GError **errp);

/** End what block_job_pause(), or an error that stops, has begun. */
BLOCK_API int block_job_resume(BlockJob *job, GError **errp);

/** @speed in bytes a second, 0: no limit. */
BLOCK_API int block_job_set_speed(BlockJob *job, int64_t speed,
                                  GError **errp);

/** Have a ready job do the last step. */
BLOCK_API int block_job_complete(BlockJob *job, GError **errp);

/** Let a pending job, and all of its transaction, take effect. */
BLOCK_API int block_job_finalize(BlockJob *job, GError **errp);

/** Forget a concluded job, whose id is free then. */
BLOCK_API int block_job_dismiss(BlockJob *job, GError **errp);

/** Change @options (taken over) that can be while it runs. */
BLOCK_API int block_job_change(BlockJob *job, BlockOptions *options,
                               GError **errp);

/**
 * Hold @job, apart from what the user does and as often as one likes; it goes
 * on after as many block_job_release().
 */
BLOCK_API void block_job_hold(BlockJob *job);

/** Undo one block_job_hold(). */
BLOCK_API void block_job_release(BlockJob *job);

/**
 * Wait until @job is concluded.  Returns its result: 0 or a negative errno with
 * @errp set.  The caller has a reference.
 */
BLOCK_API int coroutine_fn block_co_job_wait(BlockJob *job, GError **errp);

/** block_co_job_wait() for callers outside coroutines. */
BLOCK_API int block_job_wait(BlockJob *job, GError **errp);

/**
 * Cancel all jobs of @graph, by force, and wait until they are gone, and have
 * let go of their nodes if no request hangs; those that are concluded are
 * dismissed.  A filter below a node of the caller that holds it, as
 * snapshot-access does, stays: call again when that is gone.  Outside
 * coroutines.
 */
BLOCK_API void block_job_cancel_all(BlockGraph *graph);

/* --- events --------------------------------------------------------------- */

/** What has happened. */
typedef enum BlockJobEventType {
    BLOCK_JOB_EVENT_STATUS_CHANGE,
    BLOCK_JOB_EVENT_READY,     /* it can be completed */
    BLOCK_JOB_EVENT_PENDING,   /* it waits for finalize */
    BLOCK_JOB_EVENT_COMPLETED, /* it is over, well or with an error */
    BLOCK_JOB_EVENT_CANCELLED, /* it is over, as it was cancelled */
    BLOCK_JOB_EVENT_ERROR,     /* a request of it has failed */
} BlockJobEventType;

/** What a job does about a request that has failed. */
typedef enum BlockJobAction {
    BLOCK_JOB_ACTION_REPORT, /* fail */
    BLOCK_JOB_ACTION_IGNORE, /* go on, try again later if that is of use */
    BLOCK_JOB_ACTION_STOP,   /* wait for block_job_resume() */
} BlockJobAction;

/** An event. */
typedef struct BlockJobEvent {
    BlockJobEventType type;
    BlockJob *job;         /* block_job_query() tells all of it */
    bool read;             /* ERROR: of the source, else of the target */
    int error;             /* ERROR: positive errno */
    BlockJobAction action; /* ERROR */
} BlockJobEvent;

/** Called in the main context; must not yield, and ask no verb.  May remove
 * listeners. */
typedef void BlockJobListener(const BlockJobEvent *event, void *opaque);

/** Tell @listener what happens to jobs of @graph. */
BLOCK_API void block_job_add_listener(BlockGraph *graph,
                                      BlockJobListener *listener,
                                      void *opaque);

/** End that; both arguments as then. */
BLOCK_API void block_job_remove_listener(BlockGraph *graph,
                                         BlockJobListener *listener,
                                         void *opaque);

G_END_DECLS

#endif /* BLOCKGRAPH_JOB_H */
