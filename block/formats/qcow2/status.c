/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Block status, and copies out of an image.
 */
#include "block/formats/qcow2/qcow2.h"

#include <errno.h>

static unsigned status_of(Qcow2Kind kind)
{
    switch (kind) {
    case QCOW2_NORMAL:
        return BDRV_BLOCK_DATA | BDRV_BLOCK_OFFSET_VALID;
    case QCOW2_COMPRESSED:
        return BDRV_BLOCK_DATA | BDRV_BLOCK_COMPRESSED;
    case QCOW2_ZERO_PLAIN:
        return BDRV_BLOCK_ZERO;
    case QCOW2_ZERO_ALLOC:
        return BDRV_BLOCK_ZERO | BDRV_BLOCK_OFFSET_VALID;
    case QCOW2_UNALLOCATED_ALLOC:
        return BDRV_BLOCK_OFFSET_VALID;
    default:
        return 0;
    }
}

int coroutine_fn qcow2_block_status(BlockDriverState *bs, const BlockIO *io,
                                    BlockExtent *ret)
{
    Qcow2 *q = qcow2_of(bs);
    /* Nothing is done with host clusters here, but to look into a table that
     * has become something else would fill the cache with nonsense. */
    unsigned ticket = qcow2_access_begin(q);
    Qcow2Mapping map;
    int code = qcow2_map(q, io->offset, io->bytes, false, &map);

    qcow2_access_end(q, ticket);
    if (code < 0) {
        return code;
    }
    ret->bytes = map.bytes;
    ret->status = status_of(map.kind);
    if (ret->status & BDRV_BLOCK_OFFSET_VALID) {
        ret->map = map.host_offset;
        ret->file = bdrv_child_bs(q->data_file);
    }
    return 0;
}

/* One run of a copy out of this image. */
static int coroutine_fn copy_run(Qcow2 *q, const BlockCopyRange *run,
                                 const Qcow2Mapping *map)
{
    BdrvChild *backing = bdrv_cow_child(q->bs);
    BlockCopyRange below = *run;

    switch (map->kind) {
    case QCOW2_NORMAL:
        below.src = q->data_file;
        below.src_offset = map->host_offset;
        return bdrv_co_copy_range_from(&below);
    case QCOW2_UNALLOCATED:
    case QCOW2_UNALLOCATED_ALLOC:
        if (backing) {
            below.src = backing;
            return bdrv_co_copy_range_from(&below);
        }
        /* fall through */
    default:
        /* Nothing that could be shared: zeroes, compressed data. */
        return -ENOTSUP;
    }
}

int coroutine_fn qcow2_copy_range_from(BlockDriverState *bs,
                                       const BlockCopyRange *copy)
{
    Qcow2 *q = qcow2_of(bs);
    unsigned ticket = qcow2_access_begin(q);
    BlockCopyRange run = *copy;
    int64_t left = copy->bytes;
    int ret = 0;

    while (ret == 0 && left > 0) {
        Qcow2Mapping map;

        ret = qcow2_map(q, run.src_offset, left, false, &map);
        if (ret == 0) {
            run.bytes = map.bytes;
            ret = copy_run(q, &run, &map);
            run.src_offset += map.bytes;
            run.dst_offset += map.bytes;
            left -= map.bytes;
        }
    }
    qcow2_access_end(q, ticket);
    return ret;
}
