/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Discard: advice that a range is not needed.
 *
 * What is not aligned to the node's requests is left alone; what is not
 * aligned to its units of discard is passed in pieces of its own, which the
 * driver may refuse without harm.
 */
#include "block/io/io-int.h"

#include <errno.h>

static int coroutine_fn driver_pdiscard(BlockDriverState *bs,
                                        const BlockIO *io)
{
    int ret;

    if (bs->drv->pdiscard) {
        ret = SIM_FAULT("io.pdiscard", bs->node_name);
        ret = ret < 0 ? ret : bs->drv->pdiscard(bs, io);
        g_assert(ret <= 0);
        return ret;
    }
    if (bs->filtered) {
        return bdrv_co_pdiscard(bs->filtered, io->offset, io->bytes);
    }
    return 0;
}

/* One piece; advice that is not taken is no error. */
static int coroutine_fn discard_piece(BlockDriverState *bs, int64_t offset,
                                      int64_t bytes, int64_t unit)
{
    BlockIO io = { .offset = offset, .bytes = bytes };
    int ret = driver_pdiscard(bs, &io);

    if (ret == -ENOTSUP) {
        return 0;
    }
    if (ret == -EINVAL && (offset % unit || bytes % unit)) {
        return 0;
    }
    return ret;
}

static int coroutine_fn discard_aligned(BlockDriverState *bs, int64_t offset,
                                        int64_t end)
{
    int64_t unit = MAX(bs->limits.pdiscard_alignment,
                       bs->limits.request_alignment);
    int64_t max = bs->limits.max_pdiscard;
    int ret = 0;

    /* Carries no data, so it may be as long as the node. */
    max = max > 0 ? MAX(max - max % unit, unit)
                  : BDRV_MAX_LENGTH - BDRV_MAX_LENGTH % unit;
    while (ret == 0 && offset < end) {
        int64_t piece = MIN(end - offset, max);

        if (offset % unit) {
            piece = MIN(piece, unit - offset % unit);
        } else if (piece > unit) {
            piece -= piece % unit;
        }
        ret = discard_piece(bs, offset, piece, unit);
        offset += piece;
    }
    return ret;
}

int coroutine_fn bdrv_co_pdiscard(BdrvChild *child, int64_t offset,
                                  int64_t bytes)
{
    BlockDriverState *bs = child->bs;
    TrackedRequest req;
    int64_t end;
    int ret = io_check_range(offset, bytes);

    if (ret < 0) {
        return ret;
    }
    if (bdrv_is_read_only(bs)) {
        return -EACCES;
    }
    end = SIM_PLANTED(15) ? io_align_up(bs, offset + bytes)
                          : io_align_down(bs, offset + bytes);
    offset = SIM_PLANTED(15) ? io_align_down(bs, offset)
                             : io_align_up(bs, offset);
    if (!(bs->open_flags & BDRV_O_UNMAP) || offset >= end) {
        return 0;
    }
    tracked_begin(&bs->tracked, &req, offset, end - offset);
    io_debug_event(bs, "pdiscard");
    ret = discard_aligned(bs, offset, end);
    io_end_write(bs, &req, offset, end - offset);
    return ret;
}
