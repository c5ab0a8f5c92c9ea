/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the files of block/io share.
 *
 * All functions run inside a request that is counted at a root, in any thread.
 * "Aligned" means: to the request alignment of the node.
 */
#ifndef BLOCK_IO_INT_H
#define BLOCK_IO_INT_H

#include "block/graph/graph-int.h"

/** For the short steps that every request goes through: as one function they
 * cost half. */
#define IO_STEP static inline __attribute__((always_inline))

/** For what few requests need: it stays out of the frame of the others. */
#define IO_RARE static __attribute__((noinline))

/** Memory of one bounce buffer or zero buffer, in bytes. */
#define IO_BOUNCE_MAX_BYTES (1 << 20)

/** Whether a range is one that a request may have; -EIO if not. */
int io_check_range(int64_t offset, int64_t bytes);

/** Round down and up to the alignment of @bs. */
static inline int64_t io_align_down(const BlockDriverState *bs, int64_t x)
{
    return x & ~((int64_t)bs->limits.request_alignment - 1);
}

static inline int64_t io_align_up(const BlockDriverState *bs, int64_t x)
{
    return io_align_down(bs, x + bs->limits.request_alignment - 1);
}

/** Whether the range needs no padding at @bs. */
static inline bool io_is_aligned(const BlockDriverState *bs, int64_t offset,
                                 int64_t bytes)
{
    return ((offset | bytes) &
            ((int64_t)bs->limits.request_alignment - 1)) == 0;
}

/** The largest piece of a request: @limit rounded down, or a default. */
int64_t io_max_piece(const BlockDriverState *bs, int64_t limit);

/** Read a range of any alignment, inside a tracked request. */
int coroutine_fn io_read(BlockDriverState *bs, const BlockIO *io);

/** Read a range of any alignment as a tracked request. */
int coroutine_fn io_read_tracked(BlockDriverState *bs, const BlockIO *io);

/**
 * Read at @bs, which is no filter, and keep at @bs what comes from its backing
 * file.  Not inside a tracked request.
 */
int coroutine_fn io_copy_on_read(BlockDriverState *bs, const BlockIO *io);

/** Read an aligned range; beyond the end there are zeroes. */
int coroutine_fn io_read_aligned(BlockDriverState *bs, const BlockIO *io);

/** Write an aligned range; flags as the caller gave them. */
int coroutine_fn io_write_aligned(BlockDriverState *bs, const BlockIO *io);

/** io_write_aligned() without looking for zeroes in the data. */
int coroutine_fn io_write_data(BlockDriverState *bs, const BlockIO *io);

/** Make an aligned range zero; flags as the caller gave them. */
int coroutine_fn io_zero_aligned(BlockDriverState *bs, const BlockIO *io);

/** Write a range of any alignment that is tracked as serialising. */
int coroutine_fn io_write_padded(BlockDriverState *bs, const BlockIO *io);

/**
 * Flush as part of a write that has not ended: FUA where the driver has none.
 */
int coroutine_fn io_flush_write(BlockDriverState *bs);

/** The content of [.., @end) may have changed: the node is that long now. */
void io_note_end(BlockDriverState *bs, int64_t end);

/** No write of @bs has ended as far as @end before. */
void io_raise_highest(BlockDriverState *bs, int64_t end);

/** io_note_write() where there is a threshold. */
void io_pass_threshold(BlockDriverState *bs, int64_t end);

/** A write that ends at @end has gone well: it may have passed a threshold. */
static inline void io_note_write(BlockDriverState *bs, int64_t end)
{
    if (G_UNLIKELY(atomic_load_explicit(&bs->highest_write,
                                        memory_order_relaxed) < end)) {
        io_raise_highest(bs, end);
    }
    if (G_UNLIKELY(atomic_load_explicit(&bs->write_threshold,
                                        memory_order_relaxed) != 0)) {
        io_pass_threshold(bs, end);
    }
}

/**
 * Enter a request as its flags say.  Returns 0, or -EBUSY (NO_WAIT).
 */
int coroutine_fn io_begin(BlockDriverState *bs, TrackedRequest *req,
                          int64_t offset, int64_t bytes, unsigned flags);

/** End a request that may have changed the range, well or not, and tell the
 * dirty bitmaps. */
static inline void io_end_write(BlockDriverState *bs, TrackedRequest *req,
                                int64_t offset, int64_t bytes)
{
    if (G_UNLIKELY(!tracked_end_write(&bs->tracked, req, &bs->dirty, offset,
                                      bytes))) {
        dirty_bitmaps_mark(bs, offset, bytes);
    }
}

/** As io_end_write(), after a failure: what is in blocks of which a part was to
 * be written nobody knows. */
void io_end_failed(BlockDriverState *bs, TrackedRequest *req, int64_t offset,
                   int64_t bytes);

/** Tell the driver of @bs itself that @event happens. */
static inline void coroutine_fn io_debug_event(BlockDriverState *bs,
                                               const char *event)
{
    if (G_UNLIKELY(bs->drv->debug_event)) {
        bs->drv->debug_event(bs, event);
    }
}

#endif /* BLOCK_IO_INT_H */
