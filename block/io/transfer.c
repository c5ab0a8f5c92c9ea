/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Aligned transfers: cut to the node's limits, bounce where memory demands it,
 * give each piece to the driver, emulate flags that the driver does not take.
 */
#include "block/io/io-int.h"

#include <errno.h>
#include <string.h>

/* Flags that mean something to the core only, or whose meaning is fulfilled
 * when the request has got here. */
#define FLAGS_OF_CORE                                                         \
    (BDRV_REQ_SERIALISING | BDRV_REQ_NO_WAIT | BDRV_REQ_WRITE_UNCHANGED)

int64_t io_max_piece(const BlockDriverState *bs, int64_t limit)
{
    int64_t max = io_align_down(bs, BDRV_REQUEST_MAX_BYTES);

    if (limit > 0 && limit < max) {
        max = io_align_down(bs, limit);
    }
    return MAX(max, (int64_t)bs->limits.request_alignment);
}

/* --- one piece ------------------------------------------------------------ */

IO_STEP int coroutine_fn driver_preadv(BlockDriverState *bs, const BlockIO *io)
{
    int ret;

    if (!bs->drv->preadv) {
        return bs->filtered ? bdrv_co_preadv(bs->filtered, io->offset,
                                             io->bytes, io->iov, io->flags)
                            : -ENOTSUP;
    }
    ret = SIM_FAULT("io.preadv", bs->node_name);
    ret = ret < 0 ? ret : bs->drv->preadv(bs, io);
    g_assert(ret <= 0);
    return ret;
}

IO_STEP int coroutine_fn driver_pwritev(BlockDriverState *bs, const BlockIO *io)
{
    int ret;

    if (!bs->drv->pwritev) {
        return bs->filtered ? bdrv_co_pwritev(bs->filtered, io->offset,
                                              io->bytes, io->iov, io->flags)
                            : -ENOTSUP;
    }
    ret = SIM_FAULT("io.pwritev", bs->node_name);
    ret = ret < 0 ? ret : bs->drv->pwritev(bs, io);
    g_assert(ret <= 0);
    return ret;
}

IO_STEP int coroutine_fn driver_transfer(BlockDriverState *bs,
                                         const BlockIO *io, bool write)
{
    return write ? driver_pwritev(bs, io) : driver_preadv(bs, io);
}

/* --- pieces --------------------------------------------------------------- */

/* Whether the driver can take the memory of @iov as it is. */
IO_STEP bool memory_fits(const BlockDriverState *bs, const BlockIOVec *iov)
{
    if (iov->niov > bs->limits.max_iov) {
        return false;
    }
    return bs->limits.min_mem_alignment <= 1 ||
           block_iov_is_aligned(iov, bs->limits.min_mem_alignment);
}

/* Transfer @io, at most IO_BOUNCE_MAX_BYTES, through @buf. */
static int coroutine_fn transfer_bounced_piece(BlockDriverState *bs,
                                               const BlockIO *io, void *buf,
                                               bool write)
{
    BlockIOVec1 iov;
    BlockIO bounced = *io;
    int ret;

    bounced.iov = block_iov_buf(&iov, buf, io->bytes);
    if (write) {
        block_iov_to_buf(io->iov, 0, buf, io->bytes);
    }
    ret = driver_transfer(bs, &bounced, write);
    if (ret == 0 && !write) {
        block_iov_from_buf(io->iov, 0, buf, io->bytes);
    }
    return ret;
}

IO_RARE int coroutine_fn transfer_bounced(BlockDriverState *bs,
                                          const BlockIO *io, bool write)
{
    int64_t max = MIN(io->bytes, MAX(io_align_down(bs, IO_BOUNCE_MAX_BYTES),
                                     (int64_t)bs->limits.request_alignment));
    void *buf = block_aligned_try_alloc(bs->limits.opt_mem_alignment, max);
    int64_t done = 0;
    int ret = SIM_REFUSE("io.bounce", bs->node_name);

    ret = buf ? ret : -ENOMEM;
    while (ret == 0 && done < io->bytes) {
        BlockIOVecSlice slice;
        BlockIO piece = { .offset = io->offset + done,
                          .bytes = MIN(max, io->bytes - done),
                          .flags = io->flags };

        piece.iov = block_iov_slice(&slice, io->iov, done, piece.bytes);
        ret = transfer_bounced_piece(bs, &piece, buf, write);
        block_iov_slice_clear(&slice);
        done += piece.bytes;
    }
    block_aligned_free(buf);
    return ret;
}

IO_STEP int coroutine_fn transfer_piece(BlockDriverState *bs,
                                        const BlockIO *io, bool write)
{
    if (G_LIKELY(!io->iov || !bs->drv->preadv || memory_fits(bs, io->iov))) {
        return driver_transfer(bs, io, write);
    }
    return transfer_bounced(bs, io, write);
}

IO_RARE int coroutine_fn transfer_split(BlockDriverState *bs,
                                        const BlockIO *io, int64_t max,
                                        bool write)
{
    int64_t done = 0;
    int ret = 0;

    while (ret == 0 && done < io->bytes) {
        BlockIOVecSlice slice;
        BlockIO piece = { .offset = io->offset + done,
                          .bytes = MIN(max, io->bytes - done),
                          .flags = io->flags };

        if (io->iov) {
            piece.iov = block_iov_slice(&slice, io->iov,
                                        SIM_PLANTED(3) ? 0 : done,
                                        piece.bytes);
        }
        ret = transfer_piece(bs, &piece, write);
        if (io->iov) {
            block_iov_slice_clear(&slice);
        }
        done += piece.bytes;
    }
    return ret;
}

IO_STEP int coroutine_fn transfer(BlockDriverState *bs, const BlockIO *io,
                                  bool write)
{
    int64_t max = io_max_piece(bs, bs->limits.max_transfer);

    if (G_LIKELY(io->bytes <= max)) {
        return transfer_piece(bs, io, write);
    }
    return transfer_split(bs, io, max, write);
}

/* --- reading -------------------------------------------------------------- */

/* A read that reaches beyond the end: the part inside, then zeroes. */
IO_RARE int coroutine_fn read_across_end(BlockDriverState *bs,
                                         const BlockIO *io, int64_t length)
{
    int64_t inside = MAX(0, io_align_up(bs, length) - io->offset);
    BlockIO part = { .offset = io->offset, .bytes = MIN(inside, io->bytes),
                     .flags = io->flags };
    BlockIOVecSlice slice;
    int ret = 0;

    if (part.bytes > 0) {
        if (io->iov) {
            part.iov = block_iov_slice(&slice, io->iov, 0, part.bytes);
        }
        ret = transfer(bs, &part, false);
        if (io->iov) {
            block_iov_slice_clear(&slice);
        }
    }
    if (ret == 0 && io->iov) {
        /* The driver may leave anything between the end and its alignment. */
        int64_t valid = CLAMP(length - io->offset, 0, io->bytes);

        block_iov_memset(io->iov, valid, 0, io->bytes - valid);
    }
    return ret;
}

int coroutine_fn io_read_aligned(BlockDriverState *bs, const BlockIO *io)
{
    int64_t length = bdrv_length(bs);
    BlockIO plain;

    if (G_UNLIKELY(io->flags & FLAGS_OF_CORE)) {
        plain = *io;
        plain.flags &= ~FLAGS_OF_CORE;
        io = &plain;
    }
    if (io->flags & ~bs->limits.read_flags) {
        return -ENOTSUP;
    }
    if (G_UNLIKELY(io->offset + io->bytes > length)) {
        return read_across_end(bs, io, length);
    }
    return transfer(bs, io, false);
}

/* --- writing -------------------------------------------------------------- */

/* Whether this write is to become a zero write (option detect-zeroes). */
static bool wants_zero_write(BlockDriverState *bs, const BlockIO *io)
{
    return bs->detect_zeroes != BDRV_DETECT_ZEROES_OFF &&
           !(io->flags & BDRV_REQ_WRITE_COMPRESSED) &&
           block_iov_is_zero(io->iov, 0, io->bytes);
}

static int coroutine_fn write_as_zeroes(BlockDriverState *bs,
                                        const BlockIO *io)
{
    /* Only flags that a zero write knows go with it. */
    BlockIO zero = { .offset = io->offset, .bytes = io->bytes };

    zero.flags = BDRV_REQ_ZERO_WRITE |
                 (io->flags & (BDRV_REQ_FUA | BDRV_REQ_WRITE_UNCHANGED));
    if (bs->detect_zeroes == BDRV_DETECT_ZEROES_UNMAP) {
        zero.flags |= BDRV_REQ_MAY_UNMAP;
    }
    return io_zero_aligned(bs, &zero);
}

IO_STEP int coroutine_fn write_data(BlockDriverState *bs, const BlockIO *io)
{
    unsigned takes = bs->limits.write_flags;
    unsigned drop = io->flags & ~takes & (FLAGS_OF_CORE | BDRV_REQ_FUA);
    BlockIO plain;
    int ret;

    if (G_UNLIKELY(drop)) {
        plain = *io;
        plain.flags &= ~drop;
        io = &plain;
    }
    if (io->flags & ~takes) {
        return -ENOTSUP;
    }
    io_debug_event(bs, "pwritev");
    ret = transfer(bs, io, true);
    io_debug_event(bs, "pwritev_done");
    if (ret == 0 && (drop & BDRV_REQ_FUA)) {
        ret = io_flush_write(bs);
    }
    return ret;
}

int coroutine_fn io_write_data(BlockDriverState *bs, const BlockIO *io)
{
    return write_data(bs, io);
}

int coroutine_fn io_write_aligned(BlockDriverState *bs, const BlockIO *io)
{
    if (G_UNLIKELY(wants_zero_write(bs, io))) {
        return write_as_zeroes(bs, io);
    }
    return write_data(bs, io);
}
