/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench-nodes: what a node costs when many are open.
 *
 * Prints the time to open and close one node with 10, 1,000 and 10,000 others
 * open, and the memory of an idle node (resident set, by difference).
 */
#include <blockgraph/block.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { PAIRS = 2000, MOST = 10000 };

static BlockGraph *graph;

static BlockDriverState *open_one(void)
{
    BlockOptions *options = block_options_new();
    GError *error = NULL;
    BlockDriverState *bs;

    block_options_set_str(options, "driver", "null-co");
    bs = bdrv_open(graph, options, &error);
    if (!bs) {
        fprintf(stderr, "bench-nodes: %s\n", error->message);
        exit(EXIT_FAILURE);
    }
    return bs;
}

static long resident_bytes(void)
{
    long size, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");

    if (f && fscanf(f, "%ld %ld", &size, &resident) != 2) {
        resident = 0;
    }
    if (f) {
        fclose(f);
    }
    return resident * sysconf(_SC_PAGESIZE);
}

/* The best of five runs: the machine may have other things to do. */
static double pair_us(void)
{
    double best = 1e9;

    for (int run = 0; run < 5; run++) {
        int64_t start = g_get_monotonic_time();

        for (int i = 0; i < PAIRS; i++) {
            bdrv_unref(open_one());
        }
        best = MIN(best, (double)(g_get_monotonic_time() - start) / PAIRS);
    }
    return best;
}

int main(void)
{
    static BlockDriverState *nodes[MOST];
    static const int steps[] = { 10, 1000, MOST };
    GError *error = NULL;
    double at_ten = 0;
    long before;
    int n = 0;

    graph = block_graph_new(NULL, &error);
    if (!graph) {
        fprintf(stderr, "bench-nodes: %s\n", error->message);
        return EXIT_FAILURE;
    }
    pair_us(); /* the pools fill */
    before = resident_bytes();
    for (unsigned s = 0; s < G_N_ELEMENTS(steps); s++) {
        double us;

        while (n < steps[s]) {
            nodes[n++] = open_one();
        }
        us = pair_us();
        at_ten = at_ten > 0 ? at_ten : us;
        printf("open and close with %5d nodes open: %.2f us (%.2f times)\n", n,
               us, us / at_ten);
    }
    printf("memory of an idle node: %ld bytes\n",
           (resident_bytes() - before) / MOST);
    while (n > 0) {
        bdrv_unref(nodes[--n]);
    }
    block_graph_free(graph);
    return EXIT_SUCCESS;
}
