/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How long an image may keep us busy.
 *
 * What an image says of itself decides how much is looked at when it is opened
 * and checked: all of it is bounded by its file, but a file may be large.  So
 * drivers ask between two steps whether they may go on.
 */
#include "block/graph/image-step.h"

#include <errno.h>

#include "block/graph/graph-int.h"
#include "util/aio-socket.h"

void block_graph_set_image_timeout(BlockGraph *graph, int64_t ns)
{
    g_assert(ns >= 0);
    graph->image_timeout_ns = ns;
}

void block_graph_cancel_images(BlockGraph *graph, bool cancel)
{
    graph->images_cancelled = cancel;
}

void image_steps_begin(BlockDriverState *bs, const BlockDriverState *opener)
{
    BlockGraph *graph = bs->graph;

    bs->in_image_step = true;
    if (opener) {
        bs->image_end_ns = opener->image_end_ns;
    } else {
        bs->image_end_ns = graph->image_timeout_ns
                               ? aio_clock_ns(graph->ctx) +
                                     graph->image_timeout_ns
                               : 0;
    }
}

int bdrv_image_step(const BlockDriverState *bs, GError **errp)
{
    BlockGraph *graph = bs->graph;

    if (!bs->in_image_step) {
        return 0;
    }
    if (graph->images_cancelled) {
        return block_error(errp, ECANCELED, "Node '%s': '%s' is given up: all "
                           "that goes on with images is to end",
                           bs->node_name, bdrv_filename(bs));
    }
    if (bs->image_end_ns && aio_clock_ns(graph->ctx) >= bs->image_end_ns) {
        return block_error(errp, ETIMEDOUT, "Node '%s': '%s' takes longer to "
                           "open or to check than the limit allows",
                           bs->node_name, bdrv_filename(bs));
    }
    return 0;
}

int64_t image_step_deadline_ns(const BlockDriverState *bs)
{
    return bs->in_image_step && bs->image_end_ns ? bs->image_end_ns
                                                 : INT64_MAX;
}

int64_t image_request_deadline_ns(const BlockDriverState *bs)
{
    int64_t deadline_ns = 0;

    if (!bs->graph->image_timeout_ns) {
        return AIO_NO_DEADLINE; /* the usual case, without a walk */
    }
    if (bs->in_image_step) {
        return image_step_deadline_ns(bs);
    }
    LIST_FOREACH(link, &bs->parents) {
        BdrvChild *child = LIST_ENTRY(link, BdrvChild, node_link);

        deadline_ns = MAX(deadline_ns,
                          child->parent
                              ? image_request_deadline_ns(child->parent)
                              : AIO_NO_DEADLINE);
        if (deadline_ns == AIO_NO_DEADLINE) {
            return deadline_ns;
        }
    }
    return deadline_ns ? deadline_ns : AIO_NO_DEADLINE;
}

int image_steps_end(BlockDriverState *bs, int ret, GError **errp)
{
    GError *error = NULL;
    int step = ret < 0 ? bdrv_image_step(bs, &error) : 0;

    if (step < 0) {
        g_clear_error(errp);
        g_propagate_error(errp, error);
        ret = step;
    }
    bs->in_image_step = false;
    return ret;
}
