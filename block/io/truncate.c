/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Truncate: change the length of a node.
 *
 * Tracked as a serialising request from the smaller of the two lengths on, so
 * no write crosses the end while it moves.
 */
#include "block/io/io-int.h"

#include <errno.h>

const char *const prealloc_mode_names[] = { "off", "metadata", "falloc",
                                            "full", NULL };

/* Bytes of the new part that a backing file would show through. */
static int64_t backing_beyond(BlockDriverState *bs, int64_t old_length,
                              int64_t new_length)
{
    int64_t backing = bs->cow ? bdrv_length(bs->cow->bs) : 0;

    return MIN(backing, new_length) - old_length;
}

static int coroutine_fn driver_truncate(BlockDriverState *bs,
                                        const BlockTruncate *how,
                                        GError **errp)
{
    if (bs->drv->truncate) {
        int ret = SIM_FAULT("io.truncate", bs->node_name);

        return ret < 0 ? block_error_errno(errp, -ret, "Node '%s': could not "
                                           "change the length",
                                           bs->node_name)
                       : bs->drv->truncate(bs, how, errp);
    }
    if (bs->filtered) {
        return bdrv_co_truncate(bs->filtered, how, errp);
    }
    return block_error(errp, ENOTSUP, "Node '%s': driver '%s' cannot change "
                       "its length", bs->node_name, bs->drv->name);
}

static int coroutine_fn zero_new_part(BlockDriverState *bs, int64_t old_length,
                                      int64_t bytes, GError **errp)
{
    BlockIO io = { .offset = old_length, .bytes = bytes,
                   .flags = BDRV_REQ_ZERO_WRITE };
    int ret;

    if (io_is_aligned(bs, old_length, bytes)) {
        ret = io_zero_aligned(bs, &io);
    } else {
        ret = io_write_padded(bs, &io);
    }
    if (ret < 0) {
        return block_error_errno(errp, -ret, "Node '%s': could not zero the "
                                 "part that was added", bs->node_name);
    }
    return 0;
}

/*
 * The new part could not be zeroed (@ret, in @error): undo the growth, so that
 * nobody meets what lay there.  Best effort; the error says what is left.
 */
static int coroutine_fn shrink_back(BlockDriverState *bs, int64_t old_length,
                                    int ret, GError *error, GError **errp)
{
    BlockTruncate back = { .offset = old_length, .exact = true };
    g_autoptr(GError) why = NULL;

    if (driver_truncate(bs, &back, &why) == 0 &&
        bdrv_co_refresh_length(bs) == 0 && bdrv_length(bs) == old_length) {
        block_error(errp, -ret, "%s; the length is %" G_GINT64_FORMAT
                    " bytes as before", error->message, old_length);
    } else {
        bdrv_co_refresh_length(bs);
        block_error(errp, -ret, "%s; it could not be taken back either%s%s: "
                    "the length is %" G_GINT64_FORMAT " bytes now, and what "
                    "lies from %" G_GINT64_FORMAT " on is undefined",
                    error->message, why ? ": " : "", why ? why->message : "",
                    bdrv_length(bs), old_length);
    }
    g_error_free(error);
    return ret;
}

static int coroutine_fn truncate_tracked(BlockDriverState *bs,
                                         const BlockTruncate *how,
                                         GError **errp)
{
    int64_t old_length = bdrv_length(bs);
    int64_t visible = backing_beyond(bs, old_length, how->offset);
    BlockTruncate request = *how;
    bool zero_here = false;
    int ret;

    if (how->offset > old_length && visible > 0) {
        /* The new part is zero, whatever the backing file has there. */
        request.flags |= BDRV_REQ_ZERO_WRITE;
    }
    if ((request.flags & BDRV_REQ_ZERO_WRITE) &&
        !(bs->limits.truncate_flags & BDRV_REQ_ZERO_WRITE)) {
        request.flags &= ~BDRV_REQ_ZERO_WRITE;
        zero_here = how->offset > old_length;
    }
    ret = dirty_bitmaps_reserve(bs, how->offset, errp);
    if (ret < 0) {
        return ret;
    }
    ret = driver_truncate(bs, &request, errp);
    if (ret < 0) {
        return ret;
    }
    ret = bdrv_co_refresh_length(bs);
    if (ret < 0) {
        return block_error_errno(errp, -ret, "Node '%s': could not get the "
                                 "new length", bs->node_name);
    }
    if (zero_here) {
        GError *error = NULL;

        ret = zero_new_part(bs, old_length, how->offset - old_length, &error);
        if (ret < 0) {
            return shrink_back(bs, old_length, ret, error, errp);
        }
    }
    return ret;
}

/*
 * The new part is dirty since the length has changed; but who cleaned it may
 * have read it before it was zero.  After a failure (@changed_from is not
 * @old_length) what was to be cut may be given up in part and read otherwise,
 * and so may the block at the old end, part of which was to be zeroed.
 */
static void end_truncate(BlockDriverState *bs, TrackedRequest *req,
                         int64_t old_length, int64_t changed_from)
{
    int64_t start = old_length;
    int64_t end = MAX(old_length, bdrv_length(bs));

    if (changed_from != old_length) {
        start = MIN(changed_from, io_align_down(bs, old_length));
    }
    if (start < end) {
        io_end_write(bs, req, start, end - start);
    } else {
        tracked_end(&bs->tracked, req, true);
    }
}

int coroutine_fn bdrv_co_truncate(BdrvChild *child, const BlockTruncate *how,
                                  GError **errp)
{
    BlockDriverState *bs = child->bs;
    int64_t end = io_align_down(bs, BDRV_MAX_LENGTH);
    TrackedRequest req;
    int64_t start, old_length;
    int ret;

    if (how->offset < 0 || how->offset > BDRV_MAX_LENGTH) {
        return block_error(errp, EINVAL, "Node '%s': invalid length %"
                           G_GINT64_FORMAT, bs->node_name, how->offset);
    }
    if (bdrv_is_read_only(bs)) {
        return block_error(errp, EACCES, "Node '%s' is read-only",
                           bs->node_name);
    }
    for (;;) {
        start = io_align_down(bs, MIN(how->offset, bdrv_length(bs)));
        start = MIN(start, end - bs->limits.request_alignment); /* not empty */
        tracked_begin_serialising(&bs->tracked, &req, start, end - start,
                                  bs->limits.request_alignment, false);
        if (bdrv_length(bs) >= start) {
            break;
        }
        /* While we waited another truncate has cut the node below @start; what
         * we add, and may have to zero, begins there. */
        tracked_end(&bs->tracked, &req, false);
    }
    old_length = bdrv_length(bs);
    ret = truncate_tracked(bs, how, errp);
    end_truncate(bs, &req, old_length, ret < 0 ? how->offset : old_length);
    return ret;
}
