/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench-jobs: run one job to its end, on nodes of one's own.
 *
 *   bench-jobs TYPE JOB-OPTIONS [--blockdev OPTIONS]...
 *   bench-jobs stream device=top --blockdev qcow2,node-name=top,...
 *
 * Nodes are opened in the order given.  A job that gets ready is completed.
 * Prints seconds and bytes of progress.
 */
#include <blockgraph/job.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(const char *what, GError *error)
{
    fprintf(stderr, "bench-jobs: %s: %s\n", what,
            error ? error->message : "what is that?");
    g_clear_error(&error);
    return 1;
}

/* Which type has that name; BLOCK_JOB_TYPES: none. */
static BlockJobType find_type(const char *name)
{
    int type = 0;

    while (type < BLOCK_JOB_TYPES &&
           strcmp(block_job_type_names[type], name) != 0) {
        type++;
    }
    return type;
}

/* Open the nodes that the arguments name, each with a reference in @nodes. */
static int open_nodes(BlockGraph *graph, char **args, GPtrArray *nodes)
{
    for (; *args; args += 2) {
        GError *error = NULL;
        BlockOptions *options;
        BlockDriverState *bs;

        if (strcmp(*args, "--blockdev") != 0 || !args[1]) {
            return fail(*args, NULL);
        }
        options = block_options_parse_keyval(args[1], "driver", &error);
        bs = options ? bdrv_open(graph, options, &error) : NULL;
        if (!bs) {
            return fail(args[1], error);
        }
        g_ptr_array_add(nodes, bs);
    }
    return 0;
}

/* To the end; its result, and the last look at it in @info. */
static int run_job(BlockGraph *graph, BlockJob *job, BlockJobInfo *info,
                   GError **error)
{
    for (;;) {
        block_job_query(job, info);
        if (info->status >= BLOCK_JOB_CONCLUDED) {
            return block_job_wait(job, error);
        }
        if (info->status == BLOCK_JOB_READY) {
            block_job_complete(job, NULL); /* or it has been told already */
        }
        aio_poll(block_graph_aio_context(graph), true);
    }
}

static int bench(BlockGraph *graph, BlockJobType type, const char *text)
{
    GError *error = NULL;
    gint64 start = g_get_monotonic_time();
    BlockOptions *options = block_options_parse_keyval(text, NULL, &error);
    BlockJob *job = options ? block_job_start(graph, type, options, &error)
                            : NULL;
    BlockJobInfo info;
    int ret;

    if (!job) {
        return fail(text, error);
    }
    ret = run_job(graph, job, &info, &error);
    if (ret == 0) {
        printf("%.3f s, %" G_GINT64_FORMAT " bytes\n",
               (g_get_monotonic_time() - start) / 1e6, info.current_progress);
    }
    block_job_unref(job);
    return ret < 0 ? fail(text, error) : 0;
}

int main(int argc, char **argv)
{
    g_autoptr(GPtrArray) nodes = g_ptr_array_new();
    GError *error = NULL;
    BlockGraph *graph;
    int status;

    if (argc < 3 || find_type(argv[1]) == BLOCK_JOB_TYPES) {
        fprintf(stderr, "usage: bench-jobs TYPE JOB-OPTIONS "
                "[--blockdev OPTIONS]...\n");
        return 2;
    }
    graph = block_graph_new(NULL, &error);
    if (!graph) {
        return fail("graph", error);
    }
    status = open_nodes(graph, argv + 3, nodes);
    if (status == 0) {
        status = bench(graph, find_type(argv[1]), argv[2]);
    }
    while (nodes->len > 0) {
        bdrv_unref(g_ptr_array_steal_index(nodes, nodes->len - 1));
    }
    block_graph_free(graph);
    return status;
}
