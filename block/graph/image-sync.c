/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Operations on images for callers outside coroutines: each runs its coroutine
 * to the end in the main context.
 */
#include "block/bitmap/dirty-bitmap.h"

/* The arguments of any of them. */
typedef struct ImageCall {
    BlockGraph *graph;
    BlockDriverState *bs;
    BlockOptions *options;
    const char *name;
    const char *other;
    int64_t number;
    const void *how;
    void *ret;
    GError **errp;
} ImageCall;

static int coroutine_fn create_entry(void *opaque)
{
    ImageCall *c = opaque;

    return bdrv_co_create(c->graph, c->options, c->errp);
}

int bdrv_create(BlockGraph *graph, BlockOptions *options, GError **errp)
{
    ImageCall c = { .graph = graph, .options = options, .errp = errp };

    return aio_co_run(graph->ctx, create_entry, &c);
}

static int coroutine_fn measure_entry(void *opaque)
{
    ImageCall *c = opaque;

    return bdrv_co_measure(c->options, c->bs, c->ret, c->errp);
}

int bdrv_measure(BlockGraph *graph, BlockOptions *options,
                 BlockDriverState *source, BdrvMeasure *ret, GError **errp)
{
    ImageCall c = { .bs = source, .options = options, .ret = ret,
                    .errp = errp };

    return aio_co_run(graph->ctx, measure_entry, &c);
}

static int coroutine_fn get_specific_info_entry(void *opaque)
{
    ImageCall *c = opaque;

    return bdrv_co_get_specific_info(c->bs, c->ret, c->errp);
}

int bdrv_get_specific_info(BlockDriverState *bs, BlockOptions **ret,
                           GError **errp)
{
    ImageCall c = { .bs = bs, .ret = ret, .errp = errp };

    return aio_co_run(bs->graph->ctx, get_specific_info_entry, &c);
}

static int coroutine_fn amend_entry(void *opaque)
{
    ImageCall *c = opaque;

    return bdrv_co_amend(c->bs, c->options, c->errp);
}

int bdrv_amend(BlockDriverState *bs, BlockOptions *options, GError **errp)
{
    ImageCall c = { .bs = bs, .options = options, .errp = errp };

    return aio_co_run(bs->graph->ctx, amend_entry, &c);
}

static int coroutine_fn change_backing_file_entry(void *opaque)
{
    ImageCall *c = opaque;

    return bdrv_co_change_backing_file(c->bs, c->name, c->other, c->errp);
}

int bdrv_change_backing_file(BlockDriverState *bs, const char *file,
                             const char *format, GError **errp)
{
    ImageCall c = { .bs = bs, .name = file, .other = format, .errp = errp };

    return aio_co_run(bs->graph->ctx, change_backing_file_entry, &c);
}

static int coroutine_fn make_empty_entry(void *opaque)
{
    ImageCall *c = opaque;

    return bdrv_co_make_empty(c->bs, c->errp);
}

int bdrv_make_empty(BlockDriverState *bs, GError **errp)
{
    ImageCall c = { .bs = bs, .errp = errp };

    return aio_co_run(bs->graph->ctx, make_empty_entry, &c);
}

static int coroutine_fn check_entry(void *opaque)
{
    ImageCall *c = opaque;

    return bdrv_co_check(c->bs, c->how, c->ret, c->errp);
}

int bdrv_check(BlockDriverState *bs, const BdrvCheck *how, BdrvCheckResult *ret,
               GError **errp)
{
    ImageCall c = { .bs = bs, .how = how, .ret = ret, .errp = errp };

    return aio_co_run(bs->graph->ctx, check_entry, &c);
}

static int coroutine_fn snapshot_list_entry(void *opaque)
{
    ImageCall *c = opaque;

    return bdrv_co_snapshot_list(c->bs, c->ret, c->errp);
}

int bdrv_snapshot_list(BlockDriverState *bs, GPtrArray **ret, GError **errp)
{
    ImageCall c = { .bs = bs, .ret = ret, .errp = errp };

    return aio_co_run(bs->graph->ctx, snapshot_list_entry, &c);
}

static int coroutine_fn snapshot_create_entry(void *opaque)
{
    ImageCall *c = opaque;

    return bdrv_co_snapshot_create(c->bs, c->how, c->errp);
}

int bdrv_snapshot_create(BlockDriverState *bs, const BdrvSnapshotInfo *info,
                         GError **errp)
{
    ImageCall c = { .bs = bs, .how = info, .errp = errp };

    return aio_co_run(bs->graph->ctx, snapshot_create_entry, &c);
}

static int coroutine_fn snapshot_goto_entry(void *opaque)
{
    ImageCall *c = opaque;

    return bdrv_co_snapshot_goto(c->bs, c->name, c->errp);
}

int bdrv_snapshot_goto(BlockDriverState *bs, const char *id_or_name,
                       GError **errp)
{
    ImageCall c = { .bs = bs, .name = id_or_name, .errp = errp };

    return aio_co_run(bs->graph->ctx, snapshot_goto_entry, &c);
}

static int coroutine_fn snapshot_delete_entry(void *opaque)
{
    ImageCall *c = opaque;

    return bdrv_co_snapshot_delete(c->bs, c->name, c->other, c->errp);
}

int bdrv_snapshot_delete(BlockDriverState *bs, const char *id, const char *name,
                         GError **errp)
{
    ImageCall c = { .bs = bs, .name = id, .other = name, .errp = errp };

    return aio_co_run(bs->graph->ctx, snapshot_delete_entry, &c);
}

static int coroutine_fn stored_bitmap_list_entry(void *opaque)
{
    ImageCall *c = opaque;

    return bdrv_co_stored_bitmap_list(c->bs, c->ret, c->errp);
}

int bdrv_stored_bitmap_list(BlockDriverState *bs, GPtrArray **ret,
                            GError **errp)
{
    ImageCall c = { .bs = bs, .ret = ret, .errp = errp };

    return aio_co_run(bs->graph->ctx, stored_bitmap_list_entry, &c);
}

static int coroutine_fn stored_bitmap_add_entry(void *opaque)
{
    ImageCall *c = opaque;

    return bdrv_co_stored_bitmap_add(c->bs, c->name, c->number, c->errp);
}

int bdrv_stored_bitmap_add(BlockDriverState *bs, const char *name,
                           int64_t granularity, GError **errp)
{
    ImageCall c = { .bs = bs, .name = name, .number = granularity,
                    .errp = errp };

    return aio_co_run(bs->graph->ctx, stored_bitmap_add_entry, &c);
}

static int coroutine_fn stored_bitmap_remove_entry(void *opaque)
{
    ImageCall *c = opaque;

    return bdrv_co_stored_bitmap_remove(c->bs, c->name, c->errp);
}

int bdrv_stored_bitmap_remove(BlockDriverState *bs, const char *name,
                              GError **errp)
{
    ImageCall c = { .bs = bs, .name = name, .errp = errp };

    return aio_co_run(bs->graph->ctx, stored_bitmap_remove_entry, &c);
}

typedef struct RemoveCall {
    BdrvDirtyBitmap *bitmap;
    GError **errp;
} RemoveCall;

static int coroutine_fn remove_bitmap_entry(void *opaque)
{
    RemoveCall *c = opaque;

    return bdrv_co_remove_dirty_bitmap(c->bitmap, c->errp);
}

int bdrv_remove_dirty_bitmap(BdrvDirtyBitmap *bitmap, GError **errp)
{
    RemoveCall c = { .bitmap = bitmap, .errp = errp };

    return aio_co_run(bdrv_graph(bdrv_dirty_bitmap_bs(bitmap))->ctx,
                      remove_bitmap_entry, &c);
}
