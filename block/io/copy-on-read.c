/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Copy-on-read: what a read takes from a backing file is written to the node
 * that was read, so that the next read finds it there.
 *
 *   offset..+bytes                   what is asked for
 *   all there, or nowhere? --------> a plain read
 *   widen to clusters                a serialising request
 *     for each extent:
 *       here, or in no layer         nothing to do
 *       zeroes in whole units        a zero write, if that costs no data
 *       else                         read all layers, write to this one
 *
 * C1  From before the chain is looked at until the copy is written, a
 *     serialising request covers it.  So a write of a guest has either ended,
 *     and its clusters are seen as allocated, or waits for us and has the last
 *     word.  Who reads meanwhile waits as well.
 * C2  The content does not change: only what this layer does not have is
 *     written, and with what is read there.
 * C3  A copy that fails does not fail the read: what is left of the read goes
 *     on without copying.  Except with PREFETCH, where the copy is all.
 * C4  Zeroes are not inflated.  What the format refuses to zero for free is
 *     left to the layers below.  With PREFETCH that would not do if those can
 *     change, when layers between are taken out: then data is written.
 */
#include "block/io/io-int.h"

#include <errno.h>

/* Memory of one copy; a multiple of the clusters of all common formats.  A
 * block of the node may be larger: then it is one block. */
#define PIECE_MAX (2 << 20)

typedef struct CopyOnRead {
    BlockDriverState *bs;
    const BlockIO *io;    /* what was asked for */
    int64_t at;           /* where the copy is: all before is done */
    int64_t end;          /* where it ends */
    int64_t given;        /* the caller has its bytes before this */
    int64_t wrote_start;  /* around all that was written */
    int64_t wrote_end;
    uint8_t *buf;         /* a piece, or what there is to copy; NULL yet */
    int64_t buf_bytes;    /* of it, and its alignment */
    size_t buf_align;
} CopyOnRead;

static bool is_prefetch(const CopyOnRead *c)
{
    return c->io->flags & BDRV_REQ_PREFETCH;
}

static int64_t piece_max(const CopyOnRead *c)
{
    return MAX(PIECE_MAX, (int64_t)c->bs->limits.request_alignment);
}

/* --- what the caller gets ------------------------------------------------- */

/* Read up to @end what the caller has asked for and not been given. */
static int coroutine_fn give_plain(CopyOnRead *c, int64_t end)
{
    BlockIO io = { .offset = c->given };
    BlockIOVecSlice slice;
    int ret;

    io.bytes = MIN(end, c->io->offset + c->io->bytes) - c->given;
    if (!c->io->iov || io.bytes <= 0) {
        return 0;
    }
    io.iov = block_iov_slice(&slice, c->io->iov, c->given - c->io->offset,
                             io.bytes);
    ret = io_read(c->bs, &io);
    block_iov_slice_clear(&slice);
    if (ret == 0) {
        c->given += io.bytes;
    }
    return ret;
}

/* @bytes from c->at on are those at @buf; NULL: zeroes. */
static int coroutine_fn give(CopyOnRead *c, const uint8_t *buf, int64_t bytes)
{
    int64_t end = MIN(c->at + bytes, c->io->offset + c->io->bytes);
    int ret = give_plain(c, c->at);

    if (ret < 0 || !c->io->iov || c->given >= end) {
        return ret;
    }
    if (buf) {
        block_iov_from_buf(c->io->iov, c->given - c->io->offset,
                           buf + (c->given - c->at), end - c->given);
    } else {
        block_iov_memset(c->io->iov, c->given - c->io->offset, 0,
                         end - c->given);
    }
    c->given = end;
    return 0;
}

/* --- what the node gets --------------------------------------------------- */

static void note_write(CopyOnRead *c, int64_t bytes)
{
    if (c->wrote_end == 0) {
        c->wrote_start = c->at;
    }
    c->wrote_end = c->at + bytes;
}

/* Whether layers below the backing file may hold what that hides.  C4 */
static bool hides_layers(const CopyOnRead *c)
{
    return bdrv_skip_filters(c->bs->cow->bs)->cow != NULL;
}

/* What a node shows as zeroes from c->at on is to be its own. */
static int coroutine_fn write_zeroes(CopyOnRead *c, int64_t bytes)
{
    BlockIO io = { .offset = c->at, .bytes = bytes,
                   .flags = BDRV_REQ_ZERO_WRITE | BDRV_REQ_NO_FALLBACK |
                            BDRV_REQ_WRITE_UNCHANGED };
    int ret;

    bdrv_co_debug_event(c->bs, "cor_write");
    note_write(c, bytes);
    ret = io_zero_aligned(c->bs, &io);
    if (ret == -ENOTSUP && is_prefetch(c) && hides_layers(c)) {
        io.flags &= ~BDRV_REQ_NO_FALLBACK;
        return io_zero_aligned(c->bs, &io);
    }
    return ret == -ENOTSUP ? 0 : ret;
}

static int coroutine_fn write_data(CopyOnRead *c, int64_t bytes)
{
    BlockIOVec1 iov;
    BlockIO io = { .offset = c->at, .bytes = bytes,
                   .flags = BDRV_REQ_WRITE_UNCHANGED };

    SIM_POINT("io.cor_write", c->bs->node_name);
    bdrv_co_debug_event(c->bs, "cor_write");
    note_write(c, bytes);
    io.iov = block_iov_buf(&iov, c->buf, bytes);
    return io_write_data(c->bs, &io);
}

/* Memory for all that is left, or a piece of it. */
static void get_buffer(CopyOnRead *c)
{
    c->buf_bytes = MIN(c->end - c->at, piece_max(c));
    c->buf_align = c->bs->limits.opt_mem_alignment;
    c->buf = spare_buffers_alloc(&c->bs->copy_buffers, c->buf_align,
                                 c->buf_bytes);
}

static void put_buffer(CopyOnRead *c)
{
    spare_buffers_free(&c->bs->copy_buffers, c->buf, c->buf_align,
                       c->buf_bytes);
}

/* Read [c->at, +bytes), at most a piece, and write it. */
static int coroutine_fn copy_piece(CopyOnRead *c, int64_t bytes)
{
    BlockIOVec1 iov;
    BlockIO io = { .offset = c->at, .bytes = bytes };
    int ret;

    if (!c->buf) {
        get_buffer(c);
    }
    if (!c->buf || SIM_REFUSE("io.bounce", c->bs->node_name) < 0) {
        return -ENOMEM;
    }
    io.iov = block_iov_buf(&iov, c->buf, bytes);
    ret = io_read_aligned(c->bs, &io);
    if (ret < 0) {
        return ret;
    }
    ret = block_buffer_is_zero(c->buf, bytes) ? write_zeroes(c, bytes)
                                              : write_data(c, bytes);
    return ret < 0 ? ret : give(c, c->buf, bytes);
}

/* --- one extent after the other ------------------------------------------- */

/*
 * The node does not have [c->at, +bytes), but some layer below has.  Returns
 * how much of it was dealt with; 0 if the node ends before.
 */
static int64_t coroutine_fn copy_extent(CopyOnRead *c, int64_t bytes)
{
    int64_t unit = MAX(c->bs->limits.pwrite_zeroes_alignment,
                       c->bs->limits.request_alignment);
    int64_t rest = c->at % unit; /* not a power of two with every driver */
    BlockExtent extent;
    int64_t end;
    int ret;

    ret = bdrv_co_block_status_above(c->bs, NULL, c->at, bytes, &extent);
    if (ret < 0 || extent.bytes == 0) {
        return ret;
    }
    end = c->at + extent.bytes;
    if ((extent.status & BDRV_BLOCK_ZERO) && rest == 0) {
        int64_t zero = end == c->end ? extent.bytes
                                     : extent.bytes - extent.bytes % unit;

        if (zero > 0) {
            ret = write_zeroes(c, zero);
            ret = ret < 0 ? ret : give(c, NULL, zero);
            return ret < 0 ? ret : zero;
        }
    }
    /* A unit is written as a whole, whatever its parts come from. */
    end = (end + unit - 1) / unit * unit;
    bytes = MIN(bytes, end - c->at);
    bytes = MIN(bytes, piece_max(c));
    ret = copy_piece(c, bytes);
    return ret < 0 ? ret : bytes;
}

/* Deal with what is at c->at; returns how much that was, 0 at the end. */
static int64_t coroutine_fn step(CopyOnRead *c)
{
    BlockDriverState *bs = c->bs;
    int64_t bytes;
    int64_t below;
    int ret;

    ret = bdrv_co_is_allocated(bs, c->at, c->end - c->at, &bytes);
    if (ret < 0) {
        return ret;
    }
    bytes = io_align_down(bs, bytes);
    if (bytes == 0) {
        /* No layer of ours has units as small as that; copies do no harm. */
        return copy_extent(c, bs->limits.request_alignment);
    }
    if (ret > 0) {
        return bytes;
    }
    ret = bdrv_co_is_allocated_above(bs->cow->bs, NULL, false, c->at, bytes,
                                     &below);
    if (ret < 0) {
        return ret;
    }
    if (below == 0 && is_prefetch(c) && hides_layers(c)) {
        return copy_extent(c, bytes); /* it ends before those below it */
    }
    below = below == 0 ? bytes : io_align_down(bs, below);
    if (ret == 0 && below > 0) {
        return below; /* zeroes that no layer has */
    }
    return copy_extent(c, bytes);
}

static int coroutine_fn copy_all(CopyOnRead *c)
{
    while (c->at < c->end) {
        int64_t done = step(c);

        if (done <= 0) {
            return done; /* 0: another length was found meanwhile */
        }
        c->at += done;
    }
    return 0;
}

/* --- requests ------------------------------------------------------------- */

/* Whether a plain read does: nothing of the range is in a layer below. */
static bool coroutine_fn nothing_to_copy(BlockDriverState *bs,
                                         const BlockIO *io)
{
    int64_t offset = io->offset;
    int64_t end = MIN(io->offset + io->bytes, bdrv_length(bs));

    while (offset < end) {
        int64_t bytes;
        int depth = bdrv_co_is_allocated_above(bs, NULL, false, offset,
                                               end - offset, &bytes);

        if (depth < 0 || depth > 1) {
            return false;
        }
        if (bytes == 0) {
            break; /* the node has become shorter */
        }
        offset += bytes;
    }
    return true;
}

static void tell_failure(BlockDriverState *bs, int ret)
{
    if (!atomic_exchange(&bs->copy_failed, true)) {
        g_warning("Node '%s': could not copy what was read: %s; this is told "
                  "once", bs->node_name, g_strerror(-ret));
    }
}

static int coroutine_fn copy_and_read(BlockDriverState *bs, const BlockIO *io)
{
    CopyOnRead c = { .bs = bs, .io = io, .given = io->offset };
    int64_t mask = bs->cluster_bytes - 1;
    TrackedRequest req;
    int copied;
    int ret;

    c.at = io->offset & ~mask;
    c.end = MIN(io->offset + io->bytes, BDRV_MAX_LENGTH - mask);
    c.end = MAX((c.end + mask) & ~mask, io->offset + io->bytes);
    ret = io_begin(bs, &req, c.at, c.end - c.at,
                   SIM_PLANTED(34) ? 0 : io->flags | BDRV_REQ_SERIALISING);
    if (ret < 0) {
        return ret;
    }
    /* The length may change only behind what we hold from now on.  A part of
     * a block at the end is not copied. */
    c.end = MIN(c.end, io_align_down(bs, bdrv_length(bs)));
    copied = copy_all(&c);                                      /* C1 */
    put_buffer(&c);
    if (copied < 0 && is_prefetch(&c)) {
        ret = copied;
    } else {
        ret = give_plain(&c, io->offset + io->bytes);           /* C3 */
        if (copied < 0 && ret == 0) {
            tell_failure(bs, copied);
        }
    }
    if (c.wrote_end > 0) {
        io_end_write(bs, &req, c.wrote_start, c.wrote_end - c.wrote_start);
    } else {
        tracked_end(&bs->tracked, &req, false);
    }
    return ret;
}

/* A user that has no permission may read; but who shares no writes with anybody
 * must not meet one since somebody reads.  What was given is not taken away
 * while we run: that would wait for us. */
static int check_copy(BlockDriverState *bs)
{
    if (bdrv_is_read_only(bs)) {
        return -EACCES;
    }
    return atomic_load_explicit(&bs->may_copy, memory_order_relaxed) ? 0
                                                                     : -EPERM;
}

int coroutine_fn io_copy_on_read(BlockDriverState *bs, const BlockIO *io)
{
    int ret = bs->cow ? check_copy(bs) : 0;
    BlockIO plain = *io;

    plain.flags &= ~BDRV_REQ_COPY_ON_READ;
    if (bs->cow && ret == 0 && !nothing_to_copy(bs, io)) {
        return copy_and_read(bs, &plain);
    }
    return io->flags & BDRV_REQ_PREFETCH ? ret : io_read_tracked(bs, &plain);
}
