/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How far a node was written.
 *
 * Write thresholds: somebody is told when a node is written beyond a position,
 * to make it longer in time.
 *
 * The write that goes beyond takes the threshold away (so one is told once),
 * leaves what is to be told at the node, and wakes the main context.
 */
#include "block/io/io-int.h"

static void tell(BlockDriverState *bs, int64_t threshold)
{
    BlockGraph *graph = bs->graph;
    BlockThresholdEvent event = {
        .node_name = bs->node_name,
        .threshold = threshold,
        .exceeded = atomic_load(&bs->threshold_exceeded),
    };

    if (graph->threshold_listener) {
        graph->threshold_listener(&event, graph->threshold_opaque);
    }
}

static void threshold_bh(void *opaque)
{
    BlockGraph *graph = opaque;

    LIST_FOREACH(link, &graph->nodes) {
        BlockDriverState *bs = LIST_ENTRY(link, BlockDriverState, graph_link);
        int64_t threshold = atomic_exchange(&bs->threshold_passed, 0);

        if (threshold > 0) {
            tell(bs, threshold);
        }
    }
}

void io_pass_threshold(BlockDriverState *bs, int64_t end)
{
    int64_t threshold = atomic_load(&bs->write_threshold);

    if (threshold == 0 || end <= threshold ||
        !atomic_compare_exchange_strong(&bs->write_threshold, &threshold,
                                        0)) {
        return;     /* another write was first */
    }
    atomic_store(&bs->threshold_exceeded, end - threshold);
    atomic_store(&bs->threshold_passed, threshold);
    aio_bh_schedule(bs->graph->threshold_bh);
}

void io_raise_highest(BlockDriverState *bs, int64_t end)
{
    int64_t highest = atomic_load(&bs->highest_write);

    while (highest < end && !atomic_compare_exchange_weak(
                                &bs->highest_write, &highest, end)) {
        continue;
    }
}

int64_t bdrv_highest_write(const BlockDriverState *bs)
{
    return atomic_load_explicit(&bs->highest_write, memory_order_relaxed);
}

void bdrv_set_write_threshold(BlockDriverState *bs, int64_t bytes)
{
    BlockGraph *graph = bs->graph;

    g_assert(bytes >= 0);
    if (!graph->threshold_bh) {
        graph->threshold_bh = aio_bh_new(graph->ctx, threshold_bh, graph);
    }
    /* Whoever sees the threshold sees the bottom half. */
    atomic_store(&bs->write_threshold, bytes);
}

int64_t bdrv_write_threshold(const BlockDriverState *bs)
{
    return atomic_load(&bs->write_threshold);
}

void block_graph_set_threshold_listener(BlockGraph *graph,
                                        BlockThresholdListener *listener,
                                        void *opaque)
{
    graph->threshold_listener = listener;
    graph->threshold_opaque = opaque;
}
