/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Bring a range of a mirror's source to its target.
 *
 * Zeroes stay without room where the target has none; where it has old data
 * they are written, as holes if they may be.  What the storage copies itself
 * nobody looks at: zeroes among data are data then.
 */
#include "block/filters/mirror-top.h"

#include <errno.h>

#include "util/sim-point.h"

static BlockDriverState *source_of(const MirrorTop *s)
{
    return bdrv_child_bs(bdrv_filter_child(s->bs));
}

void *mirror_alloc(const MirrorTop *s, int64_t bytes)
{
    const BlockLimits *a = bdrv_limits(source_of(s));
    const BlockLimits *b = bdrv_limits(bdrv_child_bs(s->target));

    return block_aligned_try_alloc(MAX(a->opt_mem_alignment,
                                       b->opt_mem_alignment), bytes);
}

/* Whether the beginning of the range is known to read as zero, and how much
 * of it is alike. */
static bool coroutine_fn reads_zero(BlockDriverState *bs, int64_t offset,
                                    int64_t bytes, int64_t *ret_bytes)
{
    BlockExtent extent;
    int ret = bdrv_co_block_status_above(bs, NULL, offset, bytes, &extent);

    if (ret < 0 || extent.bytes == 0) {
        *ret_bytes = bytes; /* reading or writing will tell */
        return false;
    }
    *ret_bytes = extent.bytes;
    return extent.status & BDRV_BLOCK_ZERO;
}

/* The same of the target, by itself: what it shows of the source changes with
 * that, also when the mirror is over. */
static bool coroutine_fn target_reads_zero(MirrorTop *s, int64_t offset,
                                           int64_t bytes, int64_t *ret_bytes)
{
    *ret_bytes = bytes;
    return !s->target->shows_source &&
           reads_zero(bdrv_child_bs(s->target), offset, bytes, ret_bytes);
}

/* Whether the beginning of the range comes from the target, a layer of the
 * source, and how much of it is alike.  To copy it there would be a copy to
 * itself, which no storage does. */
static bool coroutine_fn is_of_target(MirrorTop *s, int64_t offset,
                                      int64_t *bytes)
{
    int64_t found = 0;
    int ret = s->commits ? bdrv_co_is_allocated_above(
                               source_of(s), bdrv_child_bs(s->target), false,
                               offset, *bytes, &found) : -ENOTSUP;

    if (ret < 0 || found == 0) {
        return false;
    }
    *bytes = found;
    return ret == 0;
}

MirrorKind coroutine_fn mirror_look(MirrorTop *s, int64_t offset,
                                    int64_t bytes, int64_t *ret_bytes)
{
    if (is_of_target(s, offset, &bytes)) {
        *ret_bytes = bytes;
        return MIRROR_NOTHING;
    }
    if (!reads_zero(source_of(s), offset, bytes, ret_bytes)) {
        return MIRROR_DATA;
    }
    return target_reads_zero(s, offset, *ret_bytes, ret_bytes)
               ? MIRROR_NOTHING
               : MIRROR_ZERO;
}

static int coroutine_fn write_zeroes(MirrorTop *s, int64_t offset,
                                     int64_t bytes)
{
    int ret = SIM_FAULT("mirror.zero", bdrv_node_name(s->bs));

    return ret < 0 ? ret
                   : bdrv_co_pwrite_zeroes(s->target, offset, bytes,
                                           s->unmap ? BDRV_REQ_MAY_UNMAP : 0);
}

/* Zeroes that were found among data. */
static int coroutine_fn write_found_zeroes(MirrorTop *s, int64_t offset,
                                           int64_t bytes)
{
    int64_t alike;

    return target_reads_zero(s, offset, bytes, &alike) && alike == bytes
               ? 0
               : write_zeroes(s, offset, bytes);
}

static int coroutine_fn copy_data(MirrorTop *s, int64_t offset, int64_t bytes,
                                  bool *ret_read)
{
    void *buf = spare_buffers_get(&s->buffers);
    int ret = SIM_FAULT("mirror.read", bdrv_node_name(s->bs));

    if (!buf) {
        return -ENOMEM;
    }
    if (ret == 0) {
        ret = bdrv_co_pread(bdrv_filter_child(s->bs), offset, bytes, buf, 0);
    }
    *ret_read = ret < 0;
    if (ret == 0 && block_buffer_is_zero(buf, bytes)) {
        ret = write_found_zeroes(s, offset, bytes);
    } else if (ret == 0) {
        ret = SIM_FAULT("mirror.write", bdrv_node_name(s->bs));
        ret = ret < 0 ? ret
                      : bdrv_co_pwrite(s->target, offset, bytes, buf, 0);
    }
    spare_buffers_put(&s->buffers, buf);
    return ret;
}

/* Without passing through our memory, as long as that works.  Returns false if
 * it has to be done the other way, which knows whose failure it is. */
static bool coroutine_fn copy_range(MirrorTop *s, int64_t offset,
                                    int64_t bytes)
{
    int64_t align = MAX(bdrv_request_alignment(source_of(s)),
                        bdrv_request_alignment(bdrv_child_bs(s->target)));
    const BlockCopyRange copy = {
        .src = bdrv_filter_child(s->bs), .src_offset = offset,
        .dst = s->target, .dst_offset = offset,
        .bytes = bytes,
    };

    if (!atomic_load(&s->copy_range) || ((offset | bytes) & (align - 1))) {
        return false;
    }
    if (bdrv_co_copy_range(&copy) < 0) {
        atomic_store(&s->copy_range, false);
        return false;
    }
    return true;
}

int coroutine_fn mirror_copy(MirrorTop *s, int64_t offset, int64_t bytes,
                             bool *ret_read)
{
    int64_t end = offset + bytes;
    int ret = 0;

    *ret_read = false;
    while (ret == 0 && offset < end) {
        MirrorKind kind = mirror_look(s, offset, end - offset, &bytes);

        if (kind == MIRROR_ZERO) {
            ret = write_zeroes(s, offset, bytes);
        } else if (kind == MIRROR_DATA) {
            bytes = MIN(bytes, MIRROR_BUFFER_BYTES);
            ret = copy_range(s, offset, bytes)
                      ? 0
                      : copy_data(s, offset, bytes, ret_read);
        }
        offset += bytes;
    }
    return ret;
}
