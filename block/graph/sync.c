/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Control operations for callers outside coroutines: each runs its coroutine
 * to the end in the main context.
 */
#include <blockgraph/driver.h>

#include "block/graph/graph-int.h"

typedef struct SyncCall {
    BlockGraph *graph;
    BlockDriverState *bs;
    BlockDriverState *other;
    BlockOptions *options;
    BdrvReopenQueue *queue;
    BlockDriverState **ret_bs;
    GError **errp;
} SyncCall;

static int coroutine_fn open_entry(void *opaque)
{
    SyncCall *call = opaque;

    *call->ret_bs = bdrv_co_open(call->graph, call->options, call->errp);
    return 0;
}

BlockDriverState *bdrv_open(BlockGraph *graph, BlockOptions *options,
                            GError **errp)
{
    BlockDriverState *bs = NULL;
    SyncCall call = { .graph = graph, .options = options, .ret_bs = &bs,
                      .errp = errp };

    aio_co_run(graph->ctx, open_entry, &call);
    return bs;
}

static int coroutine_fn unref_entry(void *opaque)
{
    bdrv_co_unref(opaque);
    return 0;
}

void bdrv_unref(BlockDriverState *bs)
{
    if (bs) {
        aio_co_run(bs->graph->ctx, unref_entry, bs);
    }
}

static int coroutine_fn delete_entry(void *opaque)
{
    SyncCall *call = opaque;

    return bdrv_co_delete(call->bs, call->errp);
}

int bdrv_delete(BlockDriverState *bs, GError **errp)
{
    SyncCall call = { .bs = bs, .errp = errp };

    return aio_co_run(bs->graph->ctx, delete_entry, &call);
}

static int coroutine_fn insert_entry(void *opaque)
{
    SyncCall *call = opaque;

    return bdrv_co_insert_node(call->bs, call->options, call->ret_bs,
                               call->errp);
}

int bdrv_insert_node(BlockDriverState *bs, BlockOptions *options,
                     BlockDriverState **ret, GError **errp)
{
    SyncCall call = { .bs = bs, .options = options, .ret_bs = ret,
                      .errp = errp };

    return aio_co_run(bs->graph->ctx, insert_entry, &call);
}

static int coroutine_fn drop_entry(void *opaque)
{
    SyncCall *call = opaque;

    return bdrv_co_drop_filter(call->bs, call->errp);
}

int bdrv_drop_filter(BlockDriverState *bs, GError **errp)
{
    SyncCall call = { .bs = bs, .errp = errp };

    return aio_co_run(bs->graph->ctx, drop_entry, &call);
}

static int coroutine_fn replace_entry(void *opaque)
{
    SyncCall *call = opaque;

    return bdrv_co_replace_node(call->bs, call->other, call->errp);
}

int bdrv_replace_node(BlockDriverState *from, BlockDriverState *to,
                      GError **errp)
{
    SyncCall call = { .bs = from, .other = to, .errp = errp };

    return aio_co_run(from->graph->ctx, replace_entry, &call);
}

static int coroutine_fn set_backing_entry(void *opaque)
{
    SyncCall *call = opaque;

    return bdrv_co_set_backing(call->bs, call->other, call->errp);
}

int bdrv_set_backing(BlockDriverState *bs, BlockDriverState *backing,
                     GError **errp)
{
    SyncCall call = { .bs = bs, .other = backing, .errp = errp };

    return aio_co_run(bs->graph->ctx, set_backing_entry, &call);
}

static int coroutine_fn reopen_entry(void *opaque)
{
    SyncCall *call = opaque;

    return bdrv_co_reopen_multiple(call->queue, call->errp);
}

int bdrv_reopen_multiple(BdrvReopenQueue *queue, GError **errp)
{
    SyncCall call = { .queue = queue, .errp = errp };

    return aio_co_run(bdrv_reopen_queue_graph(queue)->ctx, reopen_entry,
                      &call);
}

int bdrv_reopen(BlockDriverState *bs, BlockOptions *options, GError **errp)
{
    BdrvReopenQueue *queue = bdrv_reopen_queue_new(bs->graph);

    bdrv_reopen_queue_add(queue, bs, options, true);
    return bdrv_reopen_multiple(queue, errp);
}

static int coroutine_fn drained_begin_entry(void *opaque)
{
    bdrv_co_drained_begin(opaque);
    return 0;
}

void bdrv_drained_begin(BlockDriverState *bs)
{
    aio_co_run(bs->graph->ctx, drained_begin_entry, bs);
}

static int coroutine_fn drain_all_entry(void *opaque)
{
    bdrv_co_drain_all_begin(opaque);
    return 0;
}

void bdrv_drain_all_begin(BlockGraph *graph)
{
    aio_co_run(graph->ctx, drain_all_entry, graph);
}
