/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How large an image would be, before it is made.
 */
#include "block/formats/qcow2/image.h"

#include <blockgraph/dirty-bitmap.h>
#include <errno.h>
#include <string.h>

/* Of a bitmap in the directory, before its name. */
#define DIRECTORY_ENTRY_BYTES 24

static int64_t div_up(int64_t a, int64_t b)
{
    return a / b + (a % b != 0);
}

/* Clusters of an image that has all its @guest clusters. */
static int64_t all_clusters(const Qcow2Geometry *geo, int64_t guest)
{
    int64_t l2 = div_up(guest, INT64_C(1) << geo->l2_bits);
    int64_t l1 = div_up(l2 * 8, geo->cluster_bytes);
    Qcow2RefcountSize counts = qcow2_refcount_size(geo, 1 + l1 + l2 + guest);

    return 1 + l1 + l2 + guest + counts.table_clusters + counts.blocks;
}

/* Bytes of whole clusters in which @source has data. */
static int64_t coroutine_fn data_bytes(BlockDriverState *source, int64_t size,
                                       int64_t cluster, GError **errp)
{
    int64_t next = 0; /* clusters before this offset are counted */
    int64_t sum = 0;

    for (int64_t at = 0; at < size;) {
        BlockExtent extent;
        int ret = bdrv_co_block_status_above(source, NULL, at, size - at,
                                             &extent);

        if (ret < 0 || extent.bytes == 0) {
            return block_error_errno(errp, ret < 0 ? -ret : EIO, "Node '%s': "
                                     "could not get the block status",
                                     bdrv_node_name(source));
        }
        if ((extent.status & BDRV_BLOCK_DATA) &&
            !(extent.status & BDRV_BLOCK_ZERO)) {
            int64_t start = MAX(at / cluster * cluster, next);
            int64_t end = div_up(at + extent.bytes, cluster) * cluster;

            sum += MAX(end - start, 0);
            next = MAX(next, end);
        }
        at += extent.bytes;
    }
    return sum;
}

/* The length of the disk that is to be measured. */
static int measured_size(const Qcow2CreateOptions *o, const Qcow2Geometry *geo,
                         BlockDriverState *source, int64_t *ret,
                         GError **errp)
{
    int64_t max = MIN(qcow2_max_size(geo), BDRV_MAX_LENGTH) -
                  geo->cluster_bytes;

    if (!o->has_size && !source) {
        return block_error(errp, EINVAL, "Measuring: option 'size' is "
                           "missing");
    }
    *ret = source ? bdrv_length(source) : o->size;
    if (*ret > max) {
        return block_error(errp, EFBIG, "Measuring: a size of %"
                           G_GINT64_FORMAT " bytes is above the limit for "
                           "clusters of %" G_GINT64_FORMAT, *ret,
                           geo->cluster_bytes);
    }
    *ret = div_up(*ret, QCOW2_SIZE_UNIT) * QCOW2_SIZE_UNIT;
    return 0;
}

/* Bytes that the bitmaps stored in @source take, as if all were allocated. */
static int64_t bitmap_bytes(BlockDriverState *source, int64_t cluster)
{
    BdrvDirtyBitmap *bitmap = NULL;
    int64_t clusters = 0, directory = 0;

    while ((bitmap = bdrv_dirty_bitmap_next(source, bitmap))) {
        int64_t bits, data;

        if (!bdrv_dirty_bitmap_persistent(bitmap) ||
            bdrv_dirty_bitmap_inconsistent(bitmap)) {
            continue;
        }
        bits = div_up(bdrv_dirty_bitmap_size(bitmap),
                      bdrv_dirty_bitmap_granularity(bitmap));
        data = div_up(div_up(bits, 8), cluster);
        clusters += data + div_up(data * 8, cluster);
        directory += div_up(DIRECTORY_ENTRY_BYTES +
                            strlen(bdrv_dirty_bitmap_name(bitmap)), 8) * 8;
    }
    return (clusters + div_up(directory, cluster)) * cluster;
}

static int coroutine_fn measure(const Qcow2CreateOptions *o,
                                BlockDriverState *source, BdrvMeasure *ret,
                                GError **errp)
{
    Qcow2Geometry geo;
    int64_t size = 0, guest, data = 0;
    int result;

    qcow2_create_geometry(o, &geo);
    result = measured_size(o, &geo, source, &size, errp);
    if (result < 0) {
        return result;
    }
    guest = qcow2_cluster_up(&geo, size);
    if (o->prealloc == PREALLOC_MODE_FULL ||
        o->prealloc == PREALLOC_MODE_FALLOC) {
        data = guest;
    } else if (source) {
        data = data_bytes(source, size, geo.cluster_bytes, errp);
    }
    if (data < 0) {
        return data;
    }
    ret->fully_allocated = all_clusters(&geo, guest >> geo.cluster_bits)
                           << geo.cluster_bits;
    /* Its tables are those of the full image. */
    ret->required = ret->fully_allocated - guest + data;
    ret->bitmaps = o->compat < 2 ? -1
                   : source ? bitmap_bytes(source, geo.cluster_bytes) : 0;
    return 0;
}

int coroutine_fn qcow2_measure(BlockOptions *options, BlockDriverState *source,
                               BdrvMeasure *ret, GError **errp)
{
    static const BlockOption *const known[] = { qcow2_create_options, NULL };
    Qcow2CreateOptions o;
    int result = qcow2_create_options_take(options, &o, errp);

    if (result < 0) {
        return result;
    }
    result = block_options_check_empty(options, known, "Image of format qcow2",
                                       errp);
    if (result == 0) {
        result = measure(&o, source, ret, errp);
    }
    qcow2_create_options_clear(&o);
    return result;
}
