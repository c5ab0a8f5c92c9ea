/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Calls on jobs for those outside coroutines: each runs its coroutine to the
 * end in the main context.
 */
#include "block/jobs/job.h"

#include <blockgraph/transaction.h>

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
