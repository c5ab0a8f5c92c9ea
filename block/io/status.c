/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Block status: what a range is made of.
 *
 * One layer (node_status) asks one driver, follows filters and raw files down
 * to where the answer is, and says whether this layer decides the content
 * (ALLOCATED).  The walk (status_above) goes from layer to layer down a chain
 * of backing files until one decides.
 */
#include "block/io/io-int.h"

#include <errno.h>

/* --- one node ------------------------------------------------------------- */

/* A driver that does not know: everything is data, here. */
static void status_unknown(BlockDriverState *bs, int64_t offset, int64_t bytes,
                           BlockExtent *ret)
{
    ret->bytes = bytes;
    ret->status = BDRV_BLOCK_DATA;
    if (bs->drv->kind == BLOCK_DRIVER_PROTOCOL) {
        ret->status |= BDRV_BLOCK_OFFSET_VALID;
        ret->map = offset;
        ret->file = bs;
    }
}

/*
 * The driver's answer for an aligned range around [offset, +bytes), cut back
 * to it.  @ret->status may hold RAW and RECURSE.
 */
static int coroutine_fn driver_status(BlockDriverState *bs, unsigned want,
                                      int64_t offset, int64_t bytes,
                                      BlockExtent *ret)
{
    int64_t start = io_align_down(bs, offset);
    int64_t end = io_align_up(bs, offset + bytes);
    BlockIO io = { .offset = start, .bytes = end - start, .flags = want };
    int ret_code;

    *ret = (BlockExtent){ .bytes = 0 };
    if (!bs->drv->block_status) {
        if (bs->filtered) {
            *ret = (BlockExtent){ .bytes = bytes, .map = offset,
                                  .file = bs->filtered->bs,
                                  .status = BDRV_BLOCK_RAW |
                                            BDRV_BLOCK_OFFSET_VALID };
        } else {
            status_unknown(bs, offset, bytes, ret);
        }
        return 0;
    }
    ret_code = SIM_FAULT("io.block_status", bs->node_name);
    ret_code = ret_code < 0 ? ret_code : bs->drv->block_status(bs, &io, ret);
    if (ret_code < 0) {
        return ret_code;
    }
    g_assert(ret->bytes > 0 && start + ret->bytes > offset);
    ret->bytes = MIN(ret->bytes - (offset - start), bytes);
    if (ret->status & BDRV_BLOCK_OFFSET_VALID) {
        ret->map += offset - start;
    }
    return 0;
}

/* A question about a chain. */
typedef struct StatusQuery {
    BlockDriverState *top;
    BlockDriverState *base; /* where to stop; not looked at */
    unsigned want;
    int64_t offset;
    int64_t bytes;
} StatusQuery;

static int coroutine_fn node_status(BlockDriverState *bs, unsigned want,
                                    int64_t offset, int64_t bytes,
                                    BlockExtent *ret);
static int coroutine_fn status_above(const StatusQuery *query,
                                     BlockExtent *ret, int *ret_depth);

/* The extent is stored as it is in ret->file, which may know it is zero. */
static void coroutine_fn refine_by_file(unsigned want, BlockExtent *ret)
{
    BlockExtent below;

    if (!(want & BDRV_WANT_ZERO) || (ret->status & BDRV_BLOCK_ZERO) ||
        node_status(ret->file, want, ret->map, ret->bytes, &below) < 0) {
        return; /* a better answer only; the first one is right as well */
    }
    if (below.bytes == 0) {
        /* The file ends before: what is not there reads as zero. */
        ret->status |= BDRV_BLOCK_ZERO;
    } else if (below.status & BDRV_BLOCK_ZERO) {
        ret->bytes = MIN(ret->bytes, below.bytes);
        ret->status |= BDRV_BLOCK_ZERO;
    } else if (below.bytes < ret->bytes) {
        ret->bytes = below.bytes;
    }
}

/*
 * A filter is of the layer that it filters.  Any other node is a layer of its
 * own and has all that its file shows, backing files included.
 */
static int coroutine_fn raw_status(BlockDriverState *bs,
                                   const StatusQuery *query, BlockExtent *ret)
{
    int depth;

    if (bs->filtered) {
        return node_status(query->top, query->want, query->offset,
                           query->bytes, ret);
    }
    return status_above(query, ret, &depth);
}

static int coroutine_fn follow_raw(BlockDriverState *bs, unsigned want,
                                   BlockExtent *ret)
{
    StatusQuery query = { .top = ret->file, .want = want, .offset = ret->map,
                          .bytes = ret->bytes };
    int64_t bytes = ret->bytes;
    int code = raw_status(bs, &query, ret);

    if (code == 0 && ret->bytes == 0) {
        /* Shorter below than here: the rest reads as zero. */
        *ret = (BlockExtent){ .bytes = bytes,
                              .status = BDRV_BLOCK_ZERO |
                                        BDRV_BLOCK_ALLOCATED };
    }
    ret->status &= ~BDRV_BLOCK_EOF;
    return code;
}

/* What this layer does not have: zero, unless a backing file shows through. */
static void unallocated_is_zero(BlockDriverState *bs, int64_t offset,
                                BlockExtent *ret)
{
    int64_t backing;

    if (!bs->cow) {
        ret->status |= BDRV_BLOCK_ZERO;
        return;
    }
    backing = bdrv_length(bs->cow->bs);
    if (offset >= backing) {
        ret->status |= BDRV_BLOCK_ZERO;
    }
}

static int coroutine_fn node_status(BlockDriverState *bs, unsigned want,
                                    int64_t offset, int64_t bytes,
                                    BlockExtent *ret)
{
    int64_t length = bdrv_length(bs);
    int code;

    *ret = (BlockExtent){ .status = BDRV_BLOCK_EOF };
    if (offset >= length || bytes == 0) {
        ret->status = offset >= length ? BDRV_BLOCK_EOF : 0;
        return 0;
    }
    bytes = MIN(bytes, length - offset);
    code = driver_status(bs, want, offset, bytes, ret);
    if (code < 0) {
        return code;
    }
    if (ret->status & BDRV_BLOCK_RAW) {
        g_assert(ret->status & BDRV_BLOCK_OFFSET_VALID);
        code = follow_raw(bs, want, ret);
        if (code < 0) {
            return code;
        }
    } else if (ret->status & (BDRV_BLOCK_DATA | BDRV_BLOCK_ZERO)) {
        ret->status |= BDRV_BLOCK_ALLOCATED;
        if ((ret->status & BDRV_BLOCK_RECURSE) &&
            (ret->status & BDRV_BLOCK_OFFSET_VALID) && ret->file != bs) {
            refine_by_file(want, ret);
        }
    } else if (!(ret->status & BDRV_BLOCK_ALLOCATED)) {
        unallocated_is_zero(bs, offset, ret);
    }
    ret->status &= ~(BDRV_BLOCK_RAW | BDRV_BLOCK_RECURSE);
    if (offset + ret->bytes == length) {
        ret->status |= BDRV_BLOCK_EOF;
    }
    return 0;
}

/* --- down a chain --------------------------------------------------------- */

/* The next node of a chain: what a filter filters, else the backing file. */
static BlockDriverState *next_in_chain(BlockDriverState *bs)
{
    BdrvChild *child = bs->filtered ? bs->filtered : bs->cow;

    return child ? child->bs : NULL;
}

/*
 * A filter decides nothing, but where its driver has a say it is asked: it may
 * fail, or know only about a shorter range than @bytes.
 */
static int coroutine_fn ask_filter(BlockDriverState *bs, unsigned want,
                                   int64_t offset, int64_t *bytes)
{
    int64_t left = bdrv_length(bs) - offset;
    int64_t inside = MIN(*bytes, left);
    BlockExtent extent;
    int code;

    if (!bs->drv->block_status || inside <= 0) {
        return 0;
    }
    code = driver_status(bs, want, offset, inside, &extent);
    if (code < 0) {
        return code;
    }
    if (extent.bytes < inside) {
        *bytes = extent.bytes;
    }
    return 0;
}

/*
 * The first layer that decides.  @ret_depth: how many backing links down it
 * lies plus one, 0 if none decides.
 */
static int coroutine_fn status_above(const StatusQuery *query,
                                     BlockExtent *ret, int *ret_depth)
{
    int64_t length = bdrv_length(query->top);
    int64_t left = length - query->offset;
    int64_t bytes = MIN(query->bytes, left);
    int depth = 0;

    *ret_depth = 0;
    *ret = (BlockExtent){ .status = left <= 0 ? BDRV_BLOCK_EOF : 0 };
    if (bytes <= 0) {
        return 0;
    }
    ret->bytes = bytes; /* if there is no layer above the base */
    for (BlockDriverState *p = query->top; p && p != query->base;
         p = next_in_chain(p)) {
        int code;

        if (p->filtered) {
            /* Shows what is below; counts as no layer. */
            code = ask_filter(p, query->want, query->offset, &bytes);
            if (code < 0) {
                return code;
            }
            ret->bytes = bytes;
            continue;
        }
        depth++;
        code = node_status(p, query->want, query->offset, bytes, ret);
        if (code < 0) {
            return code;
        }
        if (ret->bytes == 0) {
            /* Shorter than what is above: there it shows zeroes. */
            *ret = (BlockExtent){ .bytes = bytes, .file = p,
                                  .status = BDRV_BLOCK_ZERO |
                                            BDRV_BLOCK_ALLOCATED };
        }
        if (ret->status & BDRV_BLOCK_ALLOCATED) {
            *ret_depth = depth;
            break;
        }
        /* What the layers above left open, they left open for this much. */
        bytes = ret->bytes;
    }
    ret->status &= ~BDRV_BLOCK_EOF;
    if (query->offset + ret->bytes == length) {
        ret->status |= BDRV_BLOCK_EOF;
    }
    return 0;
}

int coroutine_fn bdrv_co_block_status_above(BlockDriverState *bs,
                                            BlockDriverState *base,
                                            int64_t offset, int64_t bytes,
                                            BlockExtent *ret)
{
    StatusQuery query = { .top = bs, .base = base, .offset = offset,
                          .bytes = bytes,
                          .want = BDRV_WANT_ZERO | BDRV_WANT_OFFSET };
    int code = io_check_range(offset, bytes);
    int depth;

    return code < 0 ? code : status_above(&query, ret, &depth);
}

int coroutine_fn bdrv_co_block_status(BlockDriverState *bs, int64_t offset,
                                      int64_t bytes, BlockExtent *ret)
{
    int code = io_check_range(offset, bytes);

    return code < 0 ? code
                    : node_status(bs, BDRV_WANT_ZERO | BDRV_WANT_OFFSET,
                                  offset, bytes, ret);
}

int coroutine_fn bdrv_co_is_allocated(BlockDriverState *bs, int64_t offset,
                                      int64_t bytes, int64_t *ret_bytes)
{
    BlockExtent extent;
    int ret = io_check_range(offset, bytes);

    if (ret == 0) {
        ret = node_status(bs, BDRV_WANT_ALLOCATED, offset, bytes, &extent);
    }
    if (ret < 0) {
        return ret;
    }
    *ret_bytes = extent.bytes;
    return (extent.status & BDRV_BLOCK_ALLOCATED) != 0;
}

int coroutine_fn bdrv_co_is_allocated_above(BlockDriverState *top,
                                            BlockDriverState *base,
                                            bool include_base, int64_t offset,
                                            int64_t bytes, int64_t *ret_bytes)
{
    StatusQuery query = { .top = top, .offset = offset, .bytes = bytes,
                          .want = BDRV_WANT_ALLOCATED };
    BlockExtent extent;
    int depth;
    int ret = io_check_range(offset, bytes);

    g_assert(!include_base || base);
    query.base = include_base ? next_in_chain(base) : base;
    if (ret == 0) {
        ret = status_above(&query, &extent, &depth);
    }
    if (ret < 0) {
        return ret;
    }
    *ret_bytes = extent.bytes;
    return depth;
}

int coroutine_fn bdrv_co_is_zero_fast(BlockDriverState *bs, int64_t offset,
                                      int64_t bytes)
{
    while (bytes > 0) {
        BlockExtent extent;
        int ret = bdrv_co_block_status_above(bs, NULL, offset, bytes, &extent);

        if (ret < 0) {
            return ret;
        }
        if (extent.bytes == 0) {
            return 1; /* beyond the end */
        }
        if (!(extent.status & BDRV_BLOCK_ZERO)) {
            return 0;
        }
        offset += extent.bytes;
        bytes -= extent.bytes;
    }
    return 1;
}
