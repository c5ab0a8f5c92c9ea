/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Copy-on-write: a host cluster is filled with the guest's data and, before
 * and behind them, with what the guest saw there so far.
 *
 *   cow_from      offset            offset + bytes      cow_to
 *      |-- head --|====== the guest's data ======|-- tail --|
 *
 * The old content is read through the entries that are still in place; nobody
 * else changes them (I5).  Head, data and tail go to the file in one request.
 * What reads as zero and lies in clusters that read as zero is not written.
 */
#include "block/formats/qcow2/write.h"

#include <blockgraph/iov.h>
#include <errno.h>
#include <string.h>

/* Up to so many bytes of data, head, data and tail are read in one request. */
#define READ_THROUGH_BYTES (16 << 10)

/* Zeroes beyond this are not written from memory if the file knows better. */
#define ZERO_BUFFER_BYTES (128 << 10)

/* Head or tail. */
typedef struct CowPart {
    int64_t offset; /* of the guest */
    int64_t bytes;  /* 0: nothing need be written */
    bool zero;
    uint8_t *buf;   /* inside the buffer of both */
} CowPart;

/* --- data ----------------------------------------------------------------- */

int coroutine_fn qcow2_write_data(Qcow2Write *w, int64_t host)
{
    BdrvChild *child = w->q->data_file;
    BlockIOVecSlice slice;
    int ret;

    if (w->copy) {
        BlockCopyRange below = *w->copy;

        below.src_offset += w->source_offset;
        below.dst = child;
        below.dst_offset = host;
        below.bytes = w->bytes;
        return bdrv_co_copy_range_to(&below);
    }
    if (G_LIKELY((int64_t)w->iov->size == w->bytes)) {
        return bdrv_co_pwritev(child, host, w->bytes, w->iov, 0);
    }
    ret = bdrv_co_pwritev(child, host, w->bytes,
                          block_iov_slice(&slice, w->iov, w->source_offset,
                                          w->bytes), 0);
    block_iov_slice_clear(&slice);
    return ret;
}

static int64_t host_of(const Qcow2Write *w, int64_t guest_offset)
{
    return w->host + (guest_offset - w->guest);
}

/* --- what was there ------------------------------------------------------- */

/* Whether the guest sees only zeroes in the range; > 0, 0, negative errno. */
static int coroutine_fn reads_as_zero(Qcow2 *q, int64_t offset, int64_t bytes)
{
    BdrvChild *backing = bdrv_cow_child(q->bs);
    int64_t shown = backing ? bdrv_length(bdrv_child_bs(backing)) : 0;

    while (bytes > 0) {
        Qcow2Mapping map;
        int ret = qcow2_map(q, offset, bytes, false, &map);

        if (ret < 0) {
            return ret;
        }
        switch (map.kind) {
        case QCOW2_ZERO_PLAIN:
        case QCOW2_ZERO_ALLOC:
            break;
        case QCOW2_UNALLOCATED:
        case QCOW2_UNALLOCATED_ALLOC:
            if (offset >= shown) {
                break;
            }
            return 0;
        default:
            return 0;
        }
        offset += map.bytes;
        bytes -= map.bytes;
    }
    return 1;
}

/* Look what @part is; large zeroes are left to the file. */
static int coroutine_fn look_at_part(Qcow2Write *w, CowPart *part)
{
    Qcow2 *q = w->q;
    int ret;

    if (part->bytes == 0) {
        return 0;
    }
    ret = reads_as_zero(q, part->offset, part->bytes);
    if (ret <= 0) {
        return ret;
    }
    part->zero = true;
    if (w->fresh) {
        part->bytes = 0;
        return 0;
    }
    if (part->bytes > ZERO_BUFFER_BYTES) {
        bdrv_co_debug_event(q->bs, "cluster_alloc_space");
        ret = bdrv_co_pwrite_zeroes(q->data_file, host_of(w, part->offset),
                                    part->bytes, BDRV_REQ_NO_FALLBACK);
        if (ret != -ENOTSUP) {
            part->bytes = ret < 0 ? part->bytes : 0;
            return ret;
        }
    }
    return 0;
}

static int coroutine_fn fill_part(Qcow2 *q, CowPart *part)
{
    BlockIOVec1 iov;

    if (part->bytes == 0 || part->zero) {
        memset(part->buf, 0, part->bytes);
        return 0;
    }
    bdrv_co_debug_event(q->bs, "cow_read");
    return qcow2_read_range(q, part->offset, part->bytes,
                            block_iov_buf(&iov, part->buf, part->bytes), 0);
}

/* --- writing -------------------------------------------------------------- */

static int coroutine_fn write_merged(Qcow2Write *w, const CowPart *head,
                                     const CowPart *tail)
{
    struct iovec before = { .iov_base = head->buf, .iov_len = head->bytes };
    struct iovec behind = { .iov_base = tail->buf, .iov_len = tail->bytes };
    BlockIOVecSlice slice;
    int ret;

    block_iov_slice_padded(&slice, &before, w->iov, w->source_offset, w->bytes,
                           &behind);
    bdrv_co_debug_event(w->q->bs, "cow_write");
    ret = bdrv_co_pwritev(w->q->data_file, host_of(w, w->offset) - head->bytes,
                          head->bytes + w->bytes + tail->bytes, &slice.vec, 0);
    block_iov_slice_clear(&slice);
    return ret;
}

/* Head and tail are to be copied from what the guest saw. */
static int coroutine_fn copy_and_write(Qcow2Write *w, CowPart *head,
                                       CowPart *tail)
{
    bool through = head->bytes > 0 && tail->bytes > 0 && !head->zero &&
                   !tail->zero && w->bytes <= READ_THROUGH_BYTES;
    int64_t between = through ? w->bytes : 0;
    int64_t bytes = head->bytes + between + tail->bytes;
    uint8_t *buf = block_aligned_try_alloc(4096, bytes);
    BlockIOVec1 iov;
    int ret;

    if (!buf) {
        return -ENOMEM;
    }
    head->buf = buf;
    tail->buf = buf + head->bytes + between;
    if (through) {
        bdrv_co_debug_event(w->q->bs, "cow_read");
        ret = qcow2_read_range(w->q, head->offset, bytes,
                               block_iov_buf(&iov, buf, bytes), 0);
    } else {
        ret = fill_part(w->q, head);
        ret = ret < 0 ? ret : fill_part(w->q, tail);
    }
    if (ret == 0) {
        ret = write_merged(w, head, tail);
    }
    block_aligned_free(buf);
    return ret;
}

int coroutine_fn qcow2_cow_write(Qcow2Write *w)
{
    Qcow2 *q = w->q;
    int64_t end = w->offset + w->bytes;
    CowPart head = { .offset = w->cow_from,
                     .bytes = w->offset - w->cow_from };
    CowPart tail = { .offset = end,
                     .bytes = SIM_PLANTED(23) ? 0 : w->cow_to - end };
    int ret = SIM_FAULT("qcow2.cow", bdrv_node_name(q->bs));

    if (ret == 0 && !q->has_data_file) {
        ret = qcow2_check_overlap(q, 0, host_of(w, w->cow_from),
                                  w->cow_to - w->cow_from, true);
    }
    if (ret == 0) {
        ret = look_at_part(w, &head);
    }
    if (ret == 0) {
        ret = look_at_part(w, &tail);
    }
    if (ret < 0) {
        return ret;
    }
    if (head.bytes == 0 && tail.bytes == 0) {
        return qcow2_write_data(w, host_of(w, w->offset));
    }
    /* A copy between files cannot be merged with what is in memory. */
    return w->copy ? -ENOTSUP : copy_and_write(w, &head, &tail);
}
