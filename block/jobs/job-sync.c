/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Calls on jobs for those outside coroutines: each runs its coroutine to the
 * end in the main context.
 */
#include "block/jobs/job.h"

#include <blockgraph/transaction.h>

#include "block/graph/graph-int.h"

/* How often somebody looks whether all is over. */
#define RETRY_NS (INT64_C(10) * 1000 * 1000)

/* The arguments of any of them. */
typedef struct JobCall {
    BlockGraph *graph;
    BlockJobType type;
    BlockOptions *options;
    BlockJob *job;
    const BlockAction *actions;
    size_t nr;
    bool grouped;
    GError **errp;
} JobCall;

static int coroutine_fn start_entry(void *opaque)
{
    JobCall *c = opaque;

    c->job = block_co_job_start(c->graph, c->type, c->options, c->errp);
    return 0;
}

BlockJob *block_job_start(BlockGraph *graph, BlockJobType type,
                          BlockOptions *options, GError **errp)
{
    JobCall c = { .graph = graph, .type = type, .options = options,
                  .errp = errp };

    aio_co_run(block_graph_aio_context(graph), start_entry, &c);
    return c.job;
}

static int coroutine_fn wait_entry(void *opaque)
{
    JobCall *c = opaque;

    return block_co_job_wait(c->job, c->errp);
}

int block_job_wait(BlockJob *job, GError **errp)
{
    JobCall c = { .job = job, .errp = errp };

    return aio_co_run(block_graph_aio_context(job->graph), wait_entry, &c);
}

/* What jobs that are over still hold goes when those have ended that had kept
 * it; but a request that hangs may do so for ever. */
static void coroutine_fn wait_for_tear_downs(BlockGraph *graph)
{
    const AioContext *ctx = block_graph_aio_context(graph);
    int64_t end_ns = aio_clock_ns(ctx) + JOB_GRACE_NS;

    while (graph->nr_tear_downs > 0 && aio_clock_ns(ctx) < end_ns) {
        SIM_WAITS("the nodes that jobs let go", NULL);
        co_sleep_ns(RETRY_NS);
    }
}

static int coroutine_fn cancel_all_entry(void *opaque)
{
    JobCall *c = opaque;
    BlockJob *job = NULL;

    while ((job = block_job_next(c->graph, job))) {
        block_job_cancel(job, true, NULL); /* or it is too late for that */
    }
    while ((job = block_job_next(c->graph, NULL))) {
        block_job_ref(job);
        block_co_job_wait(job, NULL);
        if (job->status == BLOCK_JOB_CONCLUDED) {
            block_job_dismiss(job, NULL);
        }
        block_job_unref(job);
    }
    wait_for_tear_downs(c->graph);
    return 0;
}

void block_job_cancel_all(BlockGraph *graph)
{
    JobCall c = { .graph = graph };

    aio_co_run(block_graph_aio_context(graph), cancel_all_entry, &c);
}

static int coroutine_fn transaction_entry(void *opaque)
{
    JobCall *c = opaque;

    return block_co_transaction(c->graph, c->actions, c->nr, c->grouped,
                                c->errp);
}

int block_transaction(BlockGraph *graph, const BlockAction *actions,
                      size_t nr, bool grouped, GError **errp)
{
    JobCall c = { .graph = graph, .actions = actions, .nr = nr,
                  .grouped = grouped, .errp = errp };

    return aio_co_run(block_graph_aio_context(graph), transaction_entry, &c);
}
