/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reads and writes at one node: track, pad, and hand to the transfer below.
 *
 *   bdrv_co_preadv / bdrv_co_pwritev      any range
 *     -> tracked.c                        who else works on these bytes?
 *     -> copy-on-read.c                   reads that leave a copy
 *     -> pad.c                            if the range is not aligned
 *     -> transfer.c                       cut to the limits, call the driver
 */
#include "block/io/io-int.h"

#include <errno.h>

int io_check_range(int64_t offset, int64_t bytes)
{
    if (offset < 0 || bytes < 0 || bytes > BDRV_MAX_LENGTH ||
        offset > BDRV_MAX_LENGTH - bytes) {
        return -EIO;
    }
    return 0;
}

void coroutine_fn bdrv_co_debug_event(BlockDriverState *bs, const char *event)
{
    while (bs && !bs->drv->debug_event) {
        bs = bs->primary ? bs->primary->bs : NULL;
    }
    if (bs) {
        bs->drv->debug_event(bs, event);
    }
}

void io_note_end(BlockDriverState *bs, int64_t end)
{
    int64_t length = bdrv_length(bs);

    while (end > length &&
           !atomic_compare_exchange_weak(&bs->length, &length, end)) {
    }
}

void io_end_failed(BlockDriverState *bs, TrackedRequest *req, int64_t offset,
                   int64_t bytes)
{
    int64_t start = io_align_down(bs, offset);

    io_end_write(bs, req, start, io_align_up(bs, offset + bytes) - start);
}

int coroutine_fn io_begin(BlockDriverState *bs, TrackedRequest *req,
                          int64_t offset, int64_t bytes, unsigned flags)
{
    if (G_LIKELY(!(flags & BDRV_REQ_SERIALISING))) {
        tracked_begin(&bs->tracked, req, offset, bytes);
        return 0;
    }
    return tracked_begin_serialising(&bs->tracked, req, offset, bytes,
                                     bs->limits.request_alignment,
                                     flags & BDRV_REQ_NO_WAIT);
}

/* --- reading -------------------------------------------------------------- */

/*
 * Read the aligned range around an unaligned one.  Needs no order: a writer
 * that pads writes back what it read, so the bytes outside its range, which
 * we may read at the same time, do not change.
 */
IO_RARE int coroutine_fn read_padded(BlockDriverState *bs, const BlockIO *io)
{
    int64_t start = io_align_down(bs, io->offset);
    int64_t end = io_align_up(bs, io->offset + io->bytes);
    int64_t align = bs->limits.request_alignment;
    struct iovec head = { .iov_len = io->offset - start };
    struct iovec tail = { .iov_len = end - io->offset - io->bytes };
    BlockIOVecSlice slice;
    BlockIO padded;
    uint8_t *buf;
    int ret;

    buf = block_aligned_try_alloc(bs->limits.opt_mem_alignment, 2 * align);
    if (!buf) {
        return -ENOMEM;
    }
    head.iov_base = buf;
    tail.iov_base = buf + align;
    padded = (BlockIO){ .offset = start, .bytes = end - start,
                        .flags = io->flags };
    if (io->iov) {
        padded.iov = block_iov_slice_padded(&slice, &head, io->iov, 0,
                                            io->bytes, &tail);
    }
    ret = io_read_aligned(bs, &padded);
    if (io->iov) {
        block_iov_slice_clear(&slice);
    }
    block_aligned_free(buf);
    return ret;
}

IO_STEP int coroutine_fn read_any(BlockDriverState *bs, const BlockIO *io)
{
    return G_LIKELY(io_is_aligned(bs, io->offset, io->bytes))
               ? io_read_aligned(bs, io)
               : read_padded(bs, io);
}

IO_STEP int coroutine_fn read_tracked(BlockDriverState *bs, const BlockIO *io)
{
    TrackedRequest req;
    int ret = io_begin(bs, &req, io->offset, io->bytes, io->flags);

    if (ret == 0) {
        ret = read_any(bs, io);
        tracked_end(&bs->tracked, &req, false);
    }
    return ret;
}

int coroutine_fn io_read(BlockDriverState *bs, const BlockIO *io)
{
    return read_any(bs, io);
}

int coroutine_fn io_read_tracked(BlockDriverState *bs, const BlockIO *io)
{
    return read_tracked(bs, io);
}

/* Whether what this read takes from a backing file is to stay. */
static bool is_to_copy(const BlockDriverState *bs, unsigned flags)
{
    /* A filter of others that cannot pass the wish on has none. */
    return (flags & BDRV_REQ_COPY_ON_READ) ||
           (G_UNLIKELY(bs->open_flags & BDRV_O_COPY_ON_READ) &&
            (!bs->filtered ||
             (bs->limits.read_flags & BDRV_REQ_COPY_ON_READ)));
}

bool bdrv_expect_read(BdrvChild *child, int64_t offset, int64_t bytes)
{
    BlockDriverState *bs = child->bs;

    while (!bs->drv->expect_read) {
        if (!bs->filtered) {
            return false;
        }
        bs = bs->filtered->bs;
    }
    return bs->drv->expect_read(bs, offset, bytes);
}

int coroutine_fn bdrv_co_preadv(BdrvChild *child, int64_t offset,
                                int64_t bytes, BlockIOVec *iov, unsigned flags)
{
    BlockDriverState *bs = child->bs;
    BlockIO io = { .offset = offset, .bytes = bytes, .iov = iov,
                   .flags = flags };
    int ret = io_check_range(offset, bytes);

    if (ret < 0 || bytes == 0) {
        return ret;
    }
    g_assert(!(flags & ~BDRV_REQ_MASK));
    g_assert(iov ? iov->size == (size_t)bytes
                 : (flags & BDRV_REQ_PREFETCH) != 0);
    if (flags & BDRV_REQ_PREFETCH) {
        io.iov = NULL; /* nobody below fills it, or only parts of it */
    }
    if (G_UNLIKELY(is_to_copy(bs, flags))) {
        if (!bs->filtered) {
            return io_copy_on_read(bs, &io);
        }
        io.flags |= BDRV_REQ_COPY_ON_READ;
    }
    return read_tracked(bs, &io);
}

int coroutine_fn bdrv_co_pread(BdrvChild *child, int64_t offset, int64_t bytes,
                               void *buf, unsigned flags)
{
    BlockIOVec1 iov;

    if (bytes < 0) {
        return -EIO;
    }
    return bdrv_co_preadv(child, offset, bytes,
                          block_iov_buf(&iov, buf, bytes), flags);
}

/* --- writing -------------------------------------------------------------- */

/*
 * A write beyond the end has failed, but may have made the node longer.  What
 * is there then is read as it is from now on, and not as zeroes until another
 * write makes it longer still.
 */
static void coroutine_fn note_failed_growth(BlockDriverState *bs)
{
    int64_t length = bs->drv->getlength ? bs->drv->getlength(bs) : -ENOTSUP;

    if (length > 0) {
        io_note_end(bs, length);
    }
}

/* Data or zeroes: track, pad if need be, write, note what has changed. */
static int coroutine_fn write_request(BlockDriverState *bs, const BlockIO *io)
{
    bool aligned = io_is_aligned(bs, io->offset, io->bytes);
    TrackedRequest req;
    int ret;

    /* A padded write reads and writes back bytes that are not its own. */
    ret = io_begin(bs, &req, io->offset, io->bytes,
                   aligned || SIM_PLANTED(2)
                       ? io->flags
                       : io->flags | BDRV_REQ_SERIALISING);
    if (ret < 0) {
        return ret;
    }
    if (G_UNLIKELY(!aligned)) {
        ret = io_write_padded(bs, io);
    } else if (io->flags & BDRV_REQ_ZERO_WRITE) {
        ret = io_zero_aligned(bs, io);
    } else {
        ret = io_write_aligned(bs, io);
    }
    if (ret == 0) {
        io_note_end(bs, io->offset + io->bytes);
        io_note_write(bs, io->offset + io->bytes);
        io_end_write(bs, &req, io->offset, io->bytes);
        return 0;
    }
    if (io->offset + io->bytes > bdrv_length(bs)) {
        note_failed_growth(bs);
    }
    io_end_failed(bs, &req, io->offset, io->bytes);
    return ret;
}

int coroutine_fn bdrv_co_pwritev(BdrvChild *child, int64_t offset,
                                 int64_t bytes, BlockIOVec *iov,
                                 unsigned flags)
{
    BlockIO io = { .offset = offset, .bytes = bytes, .iov = iov,
                   .flags = flags };
    int ret = io_check_range(offset, bytes);

    if (ret < 0 || bytes == 0) {
        return ret;
    }
    if (bdrv_is_read_only(child->bs)) {
        return -EACCES;
    }
    g_assert(!(flags & ~BDRV_REQ_MASK) && !(flags & BDRV_REQ_ZERO_WRITE));
    g_assert(iov && iov->size == (size_t)bytes);
    return write_request(child->bs, &io);
}

int coroutine_fn bdrv_co_pwrite(BdrvChild *child, int64_t offset,
                                int64_t bytes, const void *buf, unsigned flags)
{
    BlockIOVec1 iov;

    if (bytes < 0) {
        return -EIO;
    }
    return bdrv_co_pwritev(child, offset, bytes,
                           block_iov_buf(&iov, buf, bytes), flags);
}

int coroutine_fn bdrv_co_pwrite_sync(BdrvChild *child, int64_t offset,
                                     int64_t bytes, const void *buf,
                                     unsigned flags)
{
    int ret = bdrv_co_pwrite(child, offset, bytes, buf, flags);

    return ret < 0 ? ret : bdrv_co_flush(child->bs);
}

int coroutine_fn bdrv_co_pwrite_zeroes(BdrvChild *child, int64_t offset,
                                       int64_t bytes, unsigned flags)
{
    BlockIO io = { .offset = offset, .bytes = bytes, .iov = NULL,
                   .flags = flags | BDRV_REQ_ZERO_WRITE };
    int ret = io_check_range(offset, bytes);

    if (ret < 0 || bytes == 0) {
        return ret;
    }
    if (bdrv_is_read_only(child->bs)) {
        return -EACCES;
    }
    g_assert(!(flags & ~BDRV_REQ_MASK));
    if (!(child->bs->open_flags & BDRV_O_UNMAP)) {
        io.flags &= ~BDRV_REQ_MAY_UNMAP;
    }
    return write_request(child->bs, &io);
}
