/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The interval tree as tracked requests use it: nanoseconds an operation with
 * 10, 100 and 10,000 ranges in the tree.
 */
#include "util/interval-tree.h"

#include <stdio.h>

#define NODES_MAX 10000
#define OPERATIONS 1000000
#define DISK_BYTES (INT64_C(1) << 40)

static IntervalNode nodes[NODES_MAX];

/* A 64k range anywhere on the disk. */
static void random_node(IntervalNode *node, GRand *rand)
{
    int64_t slot = (int64_t)(g_rand_double(rand) * (DISK_BYTES >> 16));

    interval_node_init(node, slot << 16, 65536);
}

static double ns_each(int64_t since_us)
{
    return (g_get_monotonic_time() - since_us) * 1e3 / OPERATIONS;
}

/* One range goes, another comes: an insert and a remove. */
static double bench_replace(IntervalTree *tree, int nr_nodes, GRand *rand)
{
    int64_t start_us = g_get_monotonic_time();

    for (int i = 0; i < OPERATIONS; i++) {
        IntervalNode *node = &nodes[i % nr_nodes];

        interval_tree_remove(tree, node);
        random_node(node, rand);
        interval_tree_insert(tree, node);
    }
    return ns_each(start_us);
}

static double bench_find(IntervalTree *tree, GRand *rand, int64_t *found)
{
    int64_t start_us = g_get_monotonic_time();

    for (int i = 0; i < OPERATIONS; i++) {
        IntervalNode probe;

        random_node(&probe, rand);
        *found += interval_tree_first_overlap(tree, probe.start,
                                              probe.last) != NULL;
    }
    return ns_each(start_us);
}

/* What making up a random range costs by itself. */
static double bench_nothing(GRand *rand, int64_t *sum)
{
    int64_t start_us = g_get_monotonic_time();

    for (int i = 0; i < OPERATIONS; i++) {
        IntervalNode probe;

        random_node(&probe, rand);
        *sum += probe.start;
    }
    return ns_each(start_us);
}

int main(void)
{
    static const int counts[] = { 10, 100, 10000 };
    g_autoptr(GRand) rand = g_rand_new_with_seed(1);
    int64_t sum = 0;
    double base = bench_nothing(rand, &sum);

    printf("%8s %20s %12s\n", "ranges", "remove+insert ns", "find ns");
    for (size_t c = 0; c < G_N_ELEMENTS(counts); c++) {
        IntervalTree tree = { 0 };
        double replace, find;

        for (int i = 0; i < counts[c]; i++) {
            random_node(&nodes[i], rand);
            interval_tree_insert(&tree, &nodes[i]);
        }
        replace = bench_replace(&tree, counts[c], rand) - base;
        find = bench_find(&tree, rand, &sum) - base;
        printf("%8d %20.1f %12.1f\n", counts[c], replace, find);
    }
    return sum == 0;
}
