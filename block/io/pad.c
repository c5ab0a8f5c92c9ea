/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writes that are not aligned: read the blocks at the edges, put the new bytes
 * in, write whole blocks.
 *
 *      start      offset                    offset+bytes     end
 *        |  head    |   ......  middle  .....    |    tail    |
 *        +-- block --+                        +---- block ----+
 *
 * The request is tracked as serialising over [start, end): nobody else writes
 * these blocks between our read and our write.
 */
#include "block/io/io-int.h"

#include <errno.h>
#include <string.h>

/* The edges of one request. */
typedef struct Pad {
    int64_t start;
    int64_t end;
    int64_t align;
    bool has_head;  /* the first block is only partly ours */
    bool has_tail;  /* the last one, if it is another block */
    uint8_t *head;  /* one block */
    uint8_t *tail;  /* one block; the same as head if there is only one */
} Pad;

static int coroutine_fn read_block(BlockDriverState *bs, int64_t offset,
                                   uint8_t *buf)
{
    BlockIOVec1 iov;
    BlockIO io = { .offset = offset, .bytes = bs->limits.request_alignment };

    io.iov = block_iov_buf(&iov, buf, io.bytes);
    return io_read_aligned(bs, &io);
}

/* Compute the edges and read their blocks.  Free pad->head in any case. */
static int coroutine_fn pad_init(Pad *pad, BlockDriverState *bs,
                                 const BlockIO *io)
{
    int64_t io_end = io->offset + io->bytes;
    int ret = 0;

    pad->align = bs->limits.request_alignment;
    pad->start = io_align_down(bs, io->offset);
    pad->end = io_align_up(bs, io_end);
    pad->has_head = io->offset != pad->start;
    pad->has_tail = io_end != pad->end;
    pad->head = block_aligned_try_alloc(bs->limits.opt_mem_alignment,
                                        2 * pad->align);
    if (!pad->head) {
        return -ENOMEM;
    }
    if (pad->end - pad->start == pad->align) {
        /* One block for both edges: it is read once. */
        pad->has_head = true;
        pad->has_tail = false;
    }
    pad->tail = pad->head + pad->align;
    if (pad->has_head) {
        io_debug_event(bs, "pwritev_rmw_head");
        ret = read_block(bs, pad->start, pad->head);
        io_debug_event(bs, "pwritev_rmw_after_head");
    }
    if (ret == 0 && pad->has_tail) {
        io_debug_event(bs, "pwritev_rmw_tail");
        ret = read_block(bs, pad->end - pad->align, pad->tail);
        io_debug_event(bs, "pwritev_rmw_after_tail");
    }
    return ret;
}

/* Data: one write of head, the caller's pieces, and tail. */
static int coroutine_fn write_data(BlockDriverState *bs, const Pad *pad,
                                   const BlockIO *io)
{
    int64_t io_end = io->offset + io->bytes;
    bool one_block = pad->end - pad->start == pad->align;
    struct iovec head = { .iov_base = pad->head,
                          .iov_len = io->offset - pad->start };
    struct iovec tail = { .iov_len = pad->end - io_end };
    BlockIOVecSlice slice;
    BlockIO padded = { .offset = pad->start, .bytes = pad->end - pad->start,
                       .flags = io->flags };
    int ret;

    tail.iov_base = (one_block || SIM_PLANTED(17) ? pad->head : pad->tail) +
                    (pad->align - (pad->end - io_end));
    padded.iov = block_iov_slice_padded(&slice, &head, io->iov, 0, io->bytes,
                                        &tail);
    ret = io_write_aligned(bs, &padded);
    block_iov_slice_clear(&slice);
    return ret;
}

/* Write @block, whose memory is @buf, of which [from, to) becomes zero. */
static int coroutine_fn write_zero_block(BlockDriverState *bs,
                                         const BlockIO *block, uint8_t *buf,
                                         int64_t from, int64_t to)
{
    BlockIOVec1 iov;
    BlockIO io = *block;

    memset(buf + from, 0, to - from);
    io.iov = block_iov_buf(&iov, buf, io.bytes);
    return io_write_aligned(bs, &io);
}

/* Zeroes: the edges as data, what lies between as a zero write. */
static int coroutine_fn write_zeroes(BlockDriverState *bs, const Pad *pad,
                                     const BlockIO *io)
{
    int64_t io_end = io->offset + io->bytes;
    BlockIO middle = { .offset = pad->start, .flags = io->flags };
    BlockIO block = { .offset = pad->start, .bytes = pad->align,
                      .flags = io->flags & BDRV_REQ_WRITE_UNCHANGED };
    int64_t middle_end = pad->end;
    int ret = 0;

    if (pad->has_head) {
        ret = write_zero_block(bs, &block, pad->head, io->offset - pad->start,
                               MIN(io_end - pad->start, pad->align));
        middle.offset += pad->align;
    }
    if (ret == 0 && pad->has_tail) {
        middle_end -= pad->align;
        block.offset = middle_end;
        ret = write_zero_block(bs, &block, pad->tail, 0,
                               io_end - middle_end);
    }
    middle.bytes = middle_end - middle.offset;
    if (ret == 0 && middle.bytes > 0) {
        ret = io_zero_aligned(bs, &middle);
    }
    if (ret == 0 && (io->flags & BDRV_REQ_FUA)) {
        ret = io_flush_write(bs);
    }
    return ret;
}

int coroutine_fn io_write_padded(BlockDriverState *bs, const BlockIO *io)
{
    Pad pad;
    int ret;

    ret = pad_init(&pad, bs, io);
    if (ret == 0) {
        if (io->flags & BDRV_REQ_ZERO_WRITE) {
            ret = write_zeroes(bs, &pad, io);
        } else {
            ret = write_data(bs, &pad, io);
        }
    }
    block_aligned_free(pad.head);
    return ret;
}
