/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Zero writes on aligned ranges: by the driver where it can, else as data.
 *
 * The range is cut at the driver's alignment for zero writes, so that a large
 * unaligned one still zeroes its middle efficiently; each piece that the
 * driver refuses with ENOTSUP is written as a buffer of zeroes, unless the
 * caller forbids that.
 */
#include "block/io/io-int.h"

#include <errno.h>
#include <string.h>

/* How one zero write is to be done. */
typedef struct ZeroWrite {
    unsigned flags;     /* for the driver's pwrite_zeroes */
    unsigned data_flags; /* for zeroes written as data */
    bool no_fallback;
    bool flush;         /* FUA was asked and is done by a flush at the end */
    int64_t align;
    int64_t max;
} ZeroWrite;

static int coroutine_fn driver_pwrite_zeroes(BlockDriverState *bs,
                                             const BlockIO *io)
{
    int ret;

    if (bs->drv->pwrite_zeroes) {
        ret = SIM_FAULT("io.pwrite_zeroes", bs->node_name);
        ret = ret < 0 ? ret : bs->drv->pwrite_zeroes(bs, io);
        g_assert(ret <= 0);
        return ret;
    }
    if (bs->filtered && !bs->drv->pwritev) {
        return bdrv_co_pwrite_zeroes(bs->filtered, io->offset, io->bytes,
                                     io->flags & ~BDRV_REQ_ZERO_WRITE);
    }
    return -ENOTSUP;
}

/* Write zeroes as data; FUA is left to the flush at the end. */
static int coroutine_fn write_zero_buffer(BlockDriverState *bs, int64_t offset,
                                          int64_t bytes, unsigned flags)
{
    int64_t max = MIN(bytes, io_max_piece(bs, IO_BOUNCE_MAX_BYTES));
    void *buf = block_aligned_try_alloc(bs->limits.opt_mem_alignment, max);
    int ret = buf ? 0 : -ENOMEM;

    if (buf) {
        memset(buf, 0, max);
    }
    while (ret == 0 && bytes > 0) {
        BlockIOVec1 iov;
        BlockIO io = { .offset = offset, .bytes = MIN(max, bytes),
                       .flags = flags };

        io.iov = block_iov_buf(&iov, buf, io.bytes);
        ret = io_write_data(bs, &io);
        offset += io.bytes;
        bytes -= io.bytes;
    }
    block_aligned_free(buf);
    return ret;
}

static void zero_write_init(ZeroWrite *zero, BlockDriverState *bs,
                            const BlockIO *io)
{
    unsigned takes = bs->limits.zero_flags;

    zero->no_fallback = io->flags & BDRV_REQ_NO_FALLBACK;
    zero->flush = (io->flags & BDRV_REQ_FUA) && !(takes & BDRV_REQ_FUA) &&
                  !SIM_PLANTED(9);
    /* MAY_UNMAP permits and NO_FALLBACK is kept here: a driver that takes
     * neither does right by ignoring them. */
    zero->flags = BDRV_REQ_ZERO_WRITE | (io->flags & takes);
    zero->data_flags = io->flags & BDRV_REQ_WRITE_UNCHANGED;
    zero->align = MAX(bs->limits.pwrite_zeroes_alignment,
                      bs->limits.request_alignment);
    zero->max = io_max_piece(bs, bs->limits.max_pwrite_zeroes);
    if (zero->max > zero->align) {
        zero->max -= zero->max % zero->align;
    }
}

/* Length of the next piece: up to a boundary, then whole units. */
static int64_t next_piece(const ZeroWrite *zero, int64_t offset, int64_t bytes)
{
    int64_t into = offset % zero->align;
    int64_t piece = MIN(bytes, zero->max);

    if (into > 0) {
        return MIN(piece, zero->align - into);
    }
    if (piece > zero->align) {
        piece -= piece % zero->align;
    }
    return piece;
}

static int coroutine_fn zero_piece(BlockDriverState *bs, ZeroWrite *zero,
                                   int64_t offset, int64_t bytes)
{
    BlockIO io = { .offset = offset, .bytes = bytes, .flags = zero->flags };
    int ret = driver_pwrite_zeroes(bs, &io);

    if (ret != -ENOTSUP || zero->no_fallback) {
        return ret;
    }
    if (zero->flags & BDRV_REQ_FUA) {
        zero->flush = !SIM_PLANTED(9);
    }
    return write_zero_buffer(bs, offset, bytes, zero->data_flags);
}

int coroutine_fn io_zero_aligned(BlockDriverState *bs, const BlockIO *io)
{
    int64_t offset = io->offset;
    int64_t end = io->offset + io->bytes;
    ZeroWrite zero;
    int ret = 0;

    zero_write_init(&zero, bs, io);
    io_debug_event(bs, "pwritev_zero");
    while (ret == 0 && offset < end) {
        int64_t piece = next_piece(&zero, offset, end - offset);

        ret = zero_piece(bs, &zero, offset, piece);
        offset += piece;
    }
    io_debug_event(bs, "pwritev_done");
    if (ret == 0 && zero.flush) {
        ret = io_flush_write(bs);
    }
    return ret;
}
