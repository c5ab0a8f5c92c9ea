/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inside of jobs: what the framework and the kinds of jobs share.
 *
 *   job-state.c   states, verbs, and which goes with which
 *   job.c         life of a job, its verbs, listeners
 *   job-run.c     what a running job calls: pause points, limit, progress
 *   job-txn.c     the end: all jobs of a transaction, or none
 *   job-sync.c    calls for those outside coroutines
 *   backup.c ...  the kinds
 *
 * A job runs in the main context.  Drain holds it like anybody else: its
 * requests are counted at roots, and wait at closed gates.
 *
 *   J1  The state changes along the table only, and each change is told.
 *   J2  run() sees a hold, a cancellation and a change of speed at its next
 *       pause point; kick() is called to bring it there.
 *   J3  Of a transaction either every job has prepare() and commit(), or every
 *       job has abort(); each then has clean(), last and once.  abort() and
 *       clean() of a job come after its run() and prepare() have returned.
 *   J4  A cancelled job whose run(), prepare(), abort() or clean() does not
 *       return in time is concluded without it; what is left of it is undone
 *       when it does.  So is a job that has taken effect whose clean() cannot
 *       end as others hold what is to go.
 */
#ifndef BLOCK_JOBS_JOB_H
#define BLOCK_JOBS_JOB_H

#include <blockgraph/backend.h>
#include <blockgraph/coroutine.h>
#include <blockgraph/job.h>

#include "util/list.h"
#include "util/sim-point.h"
#include "util/throttle.h"

/** How long a cancelled job may take for each of run() or prepare(), and
 * abort(); and how long any waits in clean() for others to let go. */
#define JOB_GRACE_NS (INT64_C(400) * 1000 * 1000)

/** Jobs that end together. */
typedef struct JobTxn JobTxn;

/**
 * A kind of job.  Main context; those not marked must not yield.  @job is the
 * beginning of a struct of instance_size bytes, zeroed but for that.
 */
typedef struct JobDriver JobDriver;
struct JobDriver {
    size_t instance_size;
    BlockJobType type;
    const BlockOption *options;
    /** The kind that such @options mean, if there are several of a type; the
     * nodes may be others when it starts.  Or NULL: this one. */
    const JobDriver *(*choose)(BlockGraph *graph, const BlockOptions *options);
    /** Take @options (all but the common ones), change the graph.  A failure
     * leaves the graph as it was; then no other method is called. */
    int coroutine_fn (*start)(BlockJob *job, BlockOptions *options,
                              GError **errp);
    /** Do it.  Returns 0 or a negative errno with @errp set. */
    int coroutine_fn (*run)(BlockJob *job, GError **errp);
    /** All have done their work: the last step that can fail.  What takes
     * effect in it does so after job_txn_close().  Or NULL. */
    int coroutine_fn (*prepare)(BlockJob *job, GError **errp);
    /** The result takes effect.  Or NULL. */
    void coroutine_fn (*commit)(BlockJob *job);
    /** It does not, also if prepare() has gone well.  Or NULL. */
    void coroutine_fn (*abort)(BlockJob *job);
    /** Let go of what start() has taken. */
    void coroutine_fn (*clean)(BlockJob *job);
    /** A hold or a cancellation is wanted, or the speed is another: run() has
     * to come to a pause point.  Or NULL: job_sleep() is enough. */
    void (*kick)(BlockJob *job);
    /** Somebody asks: bring the progress up to date.  Or NULL. */
    void (*look)(BlockJob *job);
    /** The verbs of ready jobs, or NULL.  soft_cancel() tells whether the job
     * ends by itself, with a result. */
    int (*complete)(BlockJob *job, GError **errp);
    bool (*soft_cancel)(BlockJob *job);
    /** Change what can be; takes @options over.  Or NULL. */
    int (*change)(BlockJob *job, BlockOptions *options, GError **errp);
};

struct BlockJob {
    /* Constant. */
    const JobDriver *drv;
    BlockGraph *graph;
    char *id;
    bool auto_finalize;
    bool auto_dismiss;

    /* Main context. */
    unsigned refs;            /* users, the list, the coroutine, txn */
    ListHead link;            /* in graph->jobs, until dismissed */
    BlockJobStatus status;
    JobTxn *txn;              /* until it has settled */
    bool started;             /* start() has returned */
    bool launched;            /* the coroutine is there */
    unsigned holds;           /* the user's among them */
    bool user_paused;
    bool cancelled;
    bool run_over;            /* run() has returned, or is never called */
    bool ended;               /* for the transaction: run_over, or given up */
    bool preparing;           /* prepare() has not returned, */
    bool prepare_given_up;    /* but nobody waits for it */
    bool held_up;             /* clean() waits for others, */
    bool torn_down;           /* or has returned */
    int ret;
    GError *error;
    AioTimer *grace;          /* until that, or run(), is given up; or NULL */
    int64_t speed;
    Throttle limit;
    int64_t current_progress, total_progress;
    BlockJobIoStatus io_status;
    CoSleep sleep;            /* of run() */
    CoQueue kicked;           /* run(), until somebody wants something */
    CoQueue changed;          /* waits for the end of run(), or of the job */
};

/* --- job.c ---------------------------------------------------------------- */

/**
 * A job as @options (taken over) say, started but not launched: it has changed
 * the graph, and does not run.
 *
 * @txn  the transaction that it becomes part of
 *
 * Returns it with a reference for the caller, or NULL with @errp set.
 */
BlockJob *coroutine_fn job_co_new(BlockGraph *graph, const JobDriver *kind,
                                  BlockOptions *options, JobTxn *txn,
                                  GError **errp);

/** Let a new job run. */
void job_launch(BlockJob *job);

/** Undo job_co_new(): nobody has launched @job.  Drops no reference. */
void coroutine_fn job_co_discard(BlockJob *job);

/** Go over to @status (J1). */
void job_set_status(BlockJob *job, BlockJobStatus status);

/** Tell the listeners. */
void job_tell(const BlockJobEvent *event);

/** The end of a job: for everybody but the framework it is over. */
void job_conclude(BlockJob *job);

/** End it, whatever it is and whether it likes to. */
void job_cancel_hard(BlockJob *job);

/** Bring run() to its next pause point. */
void job_kick(BlockJob *job);

/* --- job-run.c: inside run() ---------------------------------------------- */

/** Whether run() is to return. */
static inline bool job_is_cancelled(const BlockJob *job)
{
    return job->cancelled;
}

/** Whether run() has to come to a pause point soon. */
static inline bool job_should_stop(const BlockJob *job)
{
    return job->cancelled || job->holds > 0;
}

/** Wait while the job is held, unless it is cancelled. */
void coroutine_fn job_pause_point(BlockJob *job);

/** Sleep for @ns, or until the job is kicked; not at all if it should stop. */
void coroutine_fn job_sleep(BlockJob *job, int64_t ns);

/** Sleep until the job is kicked. */
void coroutine_fn job_wait_kick(BlockJob *job);

/**
 * Wait until the speed lets @bytes more go, and count them.  Returns false,
 * having counted nothing, when the job should stop.
 */
bool coroutine_fn job_limit(BlockJob *job, int64_t bytes);

/** The job can be completed from now on. */
void job_ready(BlockJob *job);

/** @bytes more are to be done. */
void job_progress_grow(BlockJob *job, int64_t bytes);

/** @bytes of them are done. */
void job_progress_done(BlockJob *job, int64_t bytes);

/** So many are left: what there was before less is done, what is more came. */
void job_progress_remaining(BlockJob *job, int64_t bytes);

/** "report", "ignore", "stop", "enospc", NULL: for option tables. */
extern const char *const job_on_error_names[];

/**
 * A request has failed with @err (positive errno): tell, and hold the job if
 * @policy says so.  The caller goes to a pause point unless it fails.
 *
 * @read  of the source, else of the target
 */
BlockJobAction job_error_action(BlockJob *job, BlockOnError policy, bool read,
                                int err);

/** Take @options, of which none may be left, into @ret as @table says.  0, or
 * -EINVAL with @errp and nothing to be freed in @ret. */
int job_take_options(const BlockJob *job, BlockOptions *options,
                     const BlockOption *table, void *ret, GError **errp);

/** The node that @key of a job's options names, or NULL with @errp set.  No
 * reference is taken. */
BlockDriverState *job_find_node(BlockJob *job, const char *key,
                                const char *name, GError **errp);

/** The two nodes of a job that copies one to the other, from its options
 * "device" and "target"; no references.  0 or a negative errno with @errp. */
int job_find_pair(BlockJob *job, const char *device, const char *target,
                  BlockDriverState **ret_source, BlockDriverState **ret_target,
                  GError **errp);

/** Whether they have the same length; 0 or -EINVAL with @errp.  To be asked
 * again when that cannot change any more. */
int job_check_lengths(BlockJob *job, BlockDriverState *source,
                      BlockDriverState *target, GError **errp);

/* --- job-txn.c ------------------------------------------------------------ */

/** An empty transaction, with one reference. */
JobTxn *job_txn_new(BlockGraph *graph);

/** Drop a reference. */
void job_txn_unref(JobTxn *txn);

/** @job ends with the others of @txn; holds references both ways. */
void job_txn_add(JobTxn *txn, BlockJob *job);

/** @job was not launched and is not part of it any more. */
void job_txn_remove(JobTxn *txn, BlockJob *job);

/** The work of @job is over with @ret, and job->error if that is < 0. */
void job_txn_ended(BlockJob *job, int ret);

/** @job, which has ended well and waits, is cancelled. */
void job_txn_cancelled(BlockJob *job);

/** Whether it is too late to cancel. */
bool job_txn_is_final(const JobTxn *txn);

/**
 * prepare() of @job goes on to what it cannot undo: from now on it is too late
 * to cancel.  Returns false if somebody has done so already.
 */
bool job_txn_close(BlockJob *job);

/**
 * Jobs that have taken effect are to be concluded soon, whether clean() returns
 * or not.  Returns false if they have not.
 */
bool job_txn_hurry(JobTxn *txn);

/** Whether @is says so of a job that ends together with @job, or of itself. */
bool job_txn_any(const BlockJob *job,
                 bool (*is)(BlockJob *other, const void *opaque),
                 const void *opaque);

/** All jobs of @txn may take effect. */
void job_txn_finalize(JobTxn *txn);

/* --- kinds ---------------------------------------------------------------- */

/** The kinds, by BlockJobType. */
extern const JobDriver *const job_drivers[BLOCK_JOB_TYPES];

extern const JobDriver job_driver_backup;
extern const JobDriver job_driver_stream;
extern const JobDriver job_driver_commit;
extern const JobDriver job_driver_mirror;
extern const JobDriver job_driver_create;

#endif /* BLOCK_JOBS_JOB_H */
