/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Copies between nodes without the data passing through this process.
 *
 *   bdrv_co_copy_range            the caller's two edges
 *     -> ..._from, down the source's side to the protocol node
 *          -> ..._to, down the target's side; the last driver does the copy
 *
 * -ENOTSUP at any level means: read and write instead.
 *
 * Only the target's side is tracked.  To hold an entry at a source while
 * entering a target would break the order that keeps requests from waiting for
 * each other (tracked.c, T3): two copies in opposite directions could close a
 * circle.  The source needs none: like any read that races with a write it
 * gets old or new bytes, and a padded write does not change its neighbours.
 */
#include "block/io/io-int.h"

#include <errno.h>

/* A filter passes a copy on unless it must see what is written. */
static bool passes_copies(BlockDriverState *bs)
{
    return bs->filtered && !(bs->drv->sees & BLOCK_SEES_WRITES) &&
           !bs->drv->preadv && !bs->drv->pwritev;
}

static int check_side(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    int ret = io_check_range(offset, bytes);

    if (ret < 0) {
        return ret;
    }
    return io_is_aligned(bs, offset, bytes) ? 0 : -ENOTSUP;
}

int coroutine_fn bdrv_co_copy_range_from(const BlockCopyRange *copy)
{
    BlockDriverState *bs = copy->src->bs;
    BlockCopyRange below = *copy;
    int ret = check_side(bs, copy->src_offset, copy->bytes);

    if (ret < 0) {
        return ret;
    }
    if (copy->src_offset + copy->bytes > bdrv_length(bs)) {
        return -ENOTSUP; /* zeroes beyond the end: not by copying */
    }
    if (bs->drv->copy_range_from) {
        ret = SIM_FAULT("io.copy_range_from", bs->node_name);
        return ret < 0 ? ret : bs->drv->copy_range_from(bs, copy);
    }
    if (passes_copies(bs)) {
        below.src = bs->filtered;
        return bdrv_co_copy_range_from(&below);
    }
    return -ENOTSUP;
}

int coroutine_fn bdrv_co_copy_range_to(const BlockCopyRange *copy)
{
    BlockDriverState *bs = copy->dst->bs;
    BlockCopyRange below = *copy;
    TrackedRequest req;
    int ret = check_side(bs, copy->dst_offset, copy->bytes);

    if (ret < 0) {
        return ret;
    }
    if (bdrv_is_read_only(bs)) {
        return -EACCES;
    }
    tracked_begin(&bs->tracked, &req, copy->dst_offset, copy->bytes);
    if (bs->drv->copy_range_to) {
        ret = SIM_FAULT("io.copy_range_to", bs->node_name);
        ret = ret < 0 ? ret : bs->drv->copy_range_to(bs, copy);
    } else if (passes_copies(bs)) {
        below.dst = bs->filtered;
        ret = bdrv_co_copy_range_to(&below);
    } else {
        ret = -ENOTSUP;
    }
    if (ret == 0) {
        io_note_end(bs, copy->dst_offset + copy->bytes);
        io_note_write(bs, copy->dst_offset + copy->bytes);
    }
    if (!bs->drv->copy_range_to && !passes_copies(bs)) {
        tracked_end(&bs->tracked, &req, false);
    } else {
        /* Even if not supported: perhaps not for the last part only. */
        io_end_write(bs, &req, copy->dst_offset, copy->bytes);
    }
    return ret;
}

int coroutine_fn bdrv_co_copy_range(const BlockCopyRange *copy)
{
    BlockDriverState *dst = copy->dst->bs;
    int ret;

    g_assert(!(copy->write_flags & ~BDRV_REQ_MASK));
    if (copy->bytes == 0) {
        return 0;
    }
    ret = bdrv_co_copy_range_from(copy);
    if (ret == 0 && (copy->write_flags & BDRV_REQ_FUA)) {
        ret = bdrv_co_flush(dst);
    }
    return ret;
}
