/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory of tables whose size images state.
 *
 * Each table has a limit of its own, in its driver.  But an image has several,
 * a chain has 64 images, and a table that is a hole in a file costs nobody but
 * us: so there is a sum for a node, and one for the graph.
 */
#include "block/graph/graph-int.h"

#include <errno.h>

#define NODE_BYTES_MAX (INT64_C(256) << 20)
#define GRAPH_BYTES_MAX (INT64_C(1) << 30)

int bdrv_count_table_memory(BlockDriverState *bs, int64_t bytes, GError **errp)
{
    BlockGraph *graph = bs->graph;

    g_assert(aio_context_in_home(graph->ctx) && bytes >= 0);
    if (bytes > NODE_BYTES_MAX - bs->table_bytes) {
        return block_error(errp, EFBIG, "Node '%s': the tables of image '%s' "
                           "need more than %" G_GINT64_FORMAT " bytes of "
                           "memory", bs->node_name, bdrv_filename(bs),
                           NODE_BYTES_MAX);
    }
    if (bytes > GRAPH_BYTES_MAX - graph->table_bytes) {
        return block_error(errp, EFBIG, "Node '%s': with the tables of image "
                           "'%s' those of all images need more than %"
                           G_GINT64_FORMAT " bytes of memory", bs->node_name,
                           bdrv_filename(bs), GRAPH_BYTES_MAX);
    }
    bs->table_bytes += bytes;
    graph->table_bytes += bytes;
    return 0;
}

void graph_forget_table_memory(BlockDriverState *bs)
{
    bs->graph->table_bytes -= bs->table_bytes;
    bs->table_bytes = 0;
}
