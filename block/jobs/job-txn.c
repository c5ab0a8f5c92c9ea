/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The end of jobs: all of a transaction take effect, or none.
 *
 * A job that has done its work waits for the others.  When all have, they are
 * pending, until one is finalized (at once, if all are auto-finalize); then all
 * are prepared, in the order they were started, and commit.  When one fails, or
 * is cancelled before the commit, all the others are cancelled, and when the
 * work of all is over, or given up, all abort.
 */
#include "block/jobs/job.h"

#include <errno.h>

#include "block/graph/graph-int.h"

struct JobTxn {
    /* Main context. */
    BlockGraph *graph;
    unsigned refs;
    GPtrArray *jobs;    /* BlockJob *, each with a reference, by age */
    bool aborting;
    bool pending;       /* all are, or have been */
    bool finalized;     /* prepare() may begin */
    bool final;         /* commit() or abort() has begun */
    bool committed;     /* commit() of all has returned */
    AioTimer *grace;    /* until that may not last any longer; or NULL */
    bool hurries;       /* nobody waits for abort() or clean() any more */
    bool settling;      /* the coroutine is there */
};

static BlockJob *job_at(const JobTxn *txn, guint i)
{
    return g_ptr_array_index(txn->jobs, i);
}

/* --- life ----------------------------------------------------------------- */

JobTxn *job_txn_new(BlockGraph *graph)
{
    JobTxn *txn = g_new0(JobTxn, 1);

    txn->graph = graph;
    txn->refs = 1;
    txn->jobs = g_ptr_array_new();
    return txn;
}

void job_txn_unref(JobTxn *txn)
{
    if (--txn->refs == 0) {
        g_ptr_array_free(txn->jobs, true);
        g_free(txn);
    }
}

void job_txn_add(JobTxn *txn, BlockJob *job)
{
    g_ptr_array_add(txn->jobs, block_job_ref(job));
    job->txn = txn;
    txn->refs++;
}

void job_txn_remove(JobTxn *txn, BlockJob *job)
{
    g_ptr_array_remove(txn->jobs, job);
    job->txn = NULL;
    block_job_unref(job);
    job_txn_unref(txn);
}

bool job_txn_is_final(const JobTxn *txn)
{
    return txn->final;
}

bool job_txn_any(const BlockJob *job,
                 bool (*is)(BlockJob *other, const void *opaque),
                 const void *opaque)
{
    for (guint i = 0; job->txn && i < job->txn->jobs->len; i++) {
        if (is(job_at(job->txn, i), opaque)) {
            return true;
        }
    }
    return false;
}

bool job_txn_close(BlockJob *job)
{
    if (!job->txn || job->prepare_given_up) {
        return false;
    }
    job->txn->final = !job->txn->aborting;
    return job->txn->final;
}

/* --- the end -------------------------------------------------------------- */

/* abort(), if it has failed, and clean() of a job, when no other method of it
 * runs (J3). */
static void coroutine_fn tear_down(void *opaque)
{
    BlockJob *job = opaque;
    BlockGraph *graph = job->graph;

    while (!job->run_over || job->preparing) {
        SIM_WAITS("the request that a job waits for", job->id);
        co_queue_wait(&job->changed, NULL);
    }
    if (job->ret < 0 && job->drv->abort) {
        job->drv->abort(job);
    }
    job->drv->clean(job);
    job->torn_down = true;
    co_queue_restart_all(&job->changed);
    block_job_unref(job);
    graph->nr_tear_downs--;
}

/* Whoever waits for one of the jobs looks again. */
static void hurry(void *opaque)
{
    JobTxn *txn = opaque;

    txn->hurries = true;
    for (guint i = 0; i < txn->jobs->len; i++) {
        co_queue_restart_all(&job_at(txn, i)->changed);
    }
}

/* From now on it takes no longer than for a cancelled job. */
static void begin_grace(JobTxn *txn)
{
    AioContext *ctx = block_graph_aio_context(txn->graph);

    if (!txn->grace && !txn->hurries) {
        txn->grace = aio_timer_new(ctx, hurry, txn);
        aio_timer_set(txn->grace, aio_clock_ns(ctx) + JOB_GRACE_NS);
    }
}

/* Last one first, as it may hold what an older one wants to take out; each
 * after the other, as long as none takes too long (J4). */
static void coroutine_fn tear_down_all(JobTxn *txn)
{
    AioContext *ctx = block_graph_aio_context(txn->graph);

    for (guint i = txn->jobs->len; i > 0; i--) {
        BlockJob *job = job_at(txn, i - 1);

        txn->graph->nr_tear_downs++;
        aio_co_schedule(ctx, coroutine_create(tear_down, block_job_ref(job)));
        while (!job->torn_down && !job->held_up && !txn->hurries) {
            SIM_WAITS("the nodes that are let go by job", job->id);
            co_queue_wait(&job->changed, NULL);
        }
    }
    aio_timer_free(txn->grace);
    txn->grace = NULL;
    txn->hurries = true; /* no timer any more, if a listener cancels one */
}

static void coroutine_fn abort_all(JobTxn *txn)
{
    for (guint i = 0; i < txn->jobs->len; i++) {
        BlockJob *job = job_at(txn, i);

        job->ret = job->ret < 0 ? job->ret : -ECANCELED;
        if (job->status != BLOCK_JOB_ABORTING) {
            job_set_status(job, BLOCK_JOB_ABORTING);
        }
    }
    begin_grace(txn);
    tear_down_all(txn);
}

static void coroutine_fn commit_all(JobTxn *txn)
{
    for (guint i = 0; i < txn->jobs->len; i++) {
        BlockJob *job = job_at(txn, i);

        if (job->drv->commit) {
            job->drv->commit(job);
        }
    }
    txn->committed = true;
    tear_down_all(txn);
}

static void coroutine_fn prepare_entry(void *opaque)
{
    BlockJob *job = opaque;
    GError *error = NULL;
    int ret = job->drv->prepare(job, &error);

    aio_timer_free(job->grace);
    job->grace = NULL;
    job->preparing = false;
    if (job->prepare_given_up) {
        g_clear_error(&error);
    } else if (ret < 0) {
        job->ret = ret;
        job->error = error;
    }
    co_queue_restart_all(&job->changed);
    block_job_unref(job);
}

/* Returns its result, or that it was cancelled meanwhile (J4). */
static int coroutine_fn prepare(BlockJob *job)
{
    job->preparing = true;
    aio_co_schedule(block_graph_aio_context(job->graph),
                    coroutine_create(prepare_entry, block_job_ref(job)));
    while (job->preparing && !job->prepare_given_up) {
        SIM_WAITS("the last step of job", job->id);
        co_queue_wait(&job->changed, NULL);
    }
    return job->ret;
}

/* Returns whether all may commit. */
static bool coroutine_fn prepare_all(JobTxn *txn)
{
    for (guint i = 0; i < txn->jobs->len && !txn->aborting; i++) {
        BlockJob *job = job_at(txn, i);
        int ret = SIM_FAULT("job.prepare", job->id);

        if (ret < 0) {
            block_error_errno(&job->error, -ret, "Job '%s' failed", job->id);
        } else if (job->drv->prepare) {
            ret = prepare(job);
        }
        if (ret < 0) {
            job->ret = ret;
            txn->aborting = true;
        }
    }
    return !txn->aborting;
}

static void make_pending(JobTxn *txn)
{
    bool manual = false;

    txn->pending = true;
    for (guint i = 0; i < txn->jobs->len; i++) {
        job_set_status(job_at(txn, i), BLOCK_JOB_PENDING);
    }
    for (guint i = 0; i < txn->jobs->len; i++) {
        BlockJobEvent event = { .type = BLOCK_JOB_EVENT_PENDING,
                                .job = job_at(txn, i) };

        if (!event.job->auto_finalize) {
            manual = true;
            job_tell(&event);
        }
    }
    txn->finalized = txn->finalized || !manual;
}

/* The jobs are nobody's any more but their users'. */
static void conclude_all(JobTxn *txn)
{
    while (txn->jobs->len > 0) {
        BlockJob *job = job_at(txn, 0);

        job_conclude(job);
        job_txn_remove(txn, job);
    }
}

static void coroutine_fn settle(void *opaque)
{
    JobTxn *txn = opaque;

    if (!txn->aborting && !txn->pending) {
        make_pending(txn);
    }
    if (txn->aborting || (txn->finalized && !prepare_all(txn))) {
        txn->final = true;
        abort_all(txn);
        conclude_all(txn);
    } else if (txn->finalized) {
        txn->final = true;
        commit_all(txn);
        conclude_all(txn);
    }
    txn->settling = false;
    job_txn_unref(txn);
}

/* Go on, if the work of all is over and nobody is at it. */
static void may_settle(JobTxn *txn)
{
    for (guint i = 0; i < txn->jobs->len; i++) {
        if (!job_at(txn, i)->ended) {
            return;
        }
    }
    if (!txn->settling) {
        txn->settling = true;
        txn->refs++;
        aio_co_schedule(block_graph_aio_context(txn->graph),
                        coroutine_create(settle, txn));
    }
}

/* --- what happens to jobs ------------------------------------------------- */

static void cancel_others(JobTxn *txn)
{
    txn->aborting = true;
    for (guint i = 0; i < txn->jobs->len; i++) {
        if (!job_at(txn, i)->ended || job_at(txn, i)->preparing) {
            job_cancel_hard(job_at(txn, i));
        }
    }
}

void job_txn_ended(BlockJob *job, int ret)
{
    JobTxn *txn = job->txn;

    job->ended = true;
    job->ret = ret;
    job_set_status(job, ret < 0 ? BLOCK_JOB_ABORTING : BLOCK_JOB_WAITING);
    if (ret < 0) {
        cancel_others(txn);
    }
    may_settle(txn);
}

void job_txn_cancelled(BlockJob *job)
{
    job->ret = -ECANCELED;
    cancel_others(job->txn);
    may_settle(job->txn);
}

void job_txn_finalize(JobTxn *txn)
{
    txn->finalized = true;
    may_settle(txn);
}

bool job_txn_hurry(JobTxn *txn)
{
    if (txn->committed) {
        begin_grace(txn);
    }
    return txn->committed;
}
