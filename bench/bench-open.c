/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench-open: how long it takes to open a node, and how much memory it has
 * then.
 *
 *   bench-open OPTIONS      e.g. qcow2,file.driver=file,file.filename=x
 *
 * Prints milliseconds and KiB of the best of several rounds, and of the first,
 * which meets cold caches and a fresh heap.
 */
#include <blockgraph/block.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define ROUNDS 10

static long resident_kib(void)
{
    FILE *f = fopen("/proc/self/statm", "r");
    long size = 0, resident = 0;

    if (f) {
        if (fscanf(f, "%ld %ld", &size, &resident) != 2) {
            resident = 0;
        }
        fclose(f);
    }
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

/* Open and close once; milliseconds, or a negative number. */
static double round_ms(BlockGraph *graph, const char *text, long *ret_kib)
{
    GError *error = NULL;
    BlockOptions *options = block_options_parse_keyval(text, "driver", &error);
    long before = resident_kib();
    gint64 start = g_get_monotonic_time();
    BlockDriverState *bs = options ? bdrv_open(graph, options, &error) : NULL;
    double ms = (g_get_monotonic_time() - start) / 1000.0;

    if (!bs) {
        fprintf(stderr, "bench-open: %s\n", error->message);
        g_error_free(error);
        return -1;
    }
    *ret_kib = resident_kib() - before;
    bdrv_unref(bs);
    return ms;
}

int main(int argc, char **argv)
{
    BlockGraph *graph = block_graph_new(NULL, NULL);
    double first = 0, best = 0;
    long kib = 0, first_kib = 0;

    if (argc != 2 || !graph) {
        fprintf(stderr, "usage: bench-open OPTIONS\n");
        return 2;
    }
    for (int i = 0; i < ROUNDS; i++) {
        double ms = round_ms(graph, argv[1], &kib);

        if (ms < 0) {
            return 1;
        }
        if (i == 0) {
            first = best = ms;
            first_kib = kib;
        }
        best = MIN(best, ms);
    }
    printf("%.2f ms, first %.2f ms and %ld KiB\n", best, first, first_kib);
    block_graph_free(graph);
    return 0;
}
