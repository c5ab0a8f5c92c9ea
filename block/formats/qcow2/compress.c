/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Compressed clusters: reading one, and writing clusters compressed.
 *
 * Compressed data lies anywhere in the file, several clusters' in one host
 * cluster; each of them counts as a reference to the host clusters it touches.
 * It is never changed: who writes the guest cluster again gets new space.
 *
 * Workers compress several clusters of a request at once, and those of several
 * requests.  Only taking the space is under the meta lock, for a moment.  The
 * order is data, then entry (I2), so a failure before the entry is linked has
 * nothing to undo but the space.
 */
#include "block/formats/qcow2/qcow2.h"

#include <errno.h>

/* Clusters of one request that are compressed at once. */
#define QCOW2_COMPRESS_PARALLEL 8

/* --- reading -------------------------------------------------------------- */

/* The sectors that @word names, as far as the file has them; -EIO if it has
 * not even the sector where they are said to end. */
static int coroutine_fn compressed_range(Qcow2 *q, uint64_t word,
                                         Qcow2Compressed *ret)
{
    Qcow2Compressed c = qcow2_compressed_decode(&q->geo, word);
    int64_t length = bdrv_length(bdrv_child_bs(q->data_file));

    if (length < 0) {
        return length;
    }
    /* The last sector may be cut off by the end of the file. */
    if (c.bytes <= 0 || c.host_offset >= length ||
        c.bytes - 1 > (length - 1 - c.host_offset) + 511) {
        qcow2_signal_corruption(q, false, c.host_offset, c.bytes,
                                "compressed cluster of %" G_GINT64_FORMAT
                                " bytes at %" G_GINT64_FORMAT " ends behind "
                                "the file (%" G_GINT64_FORMAT " bytes)",
                                c.bytes, c.host_offset, length);
        return -EIO;
    }
    c.bytes = MIN(c.bytes, length - c.host_offset);
    *ret = c;
    return 0;
}

int coroutine_fn qcow2_read_compressed(Qcow2 *q, uint64_t word, int64_t into,
                                       int64_t bytes, BlockIOVec *iov,
                                       size_t iov_offset)
{
    Qcow2Compressed c = { 0, 0 };
    uint8_t *packed, *plain;
    int ret = compressed_range(q, word, &c);

    g_assert(into >= 0 && bytes > 0 && into + bytes <= q->geo.cluster_bytes);
    if (ret < 0) {
        return ret;
    }
    packed = block_aligned_try_alloc(q->buffer_align, c.bytes);
    plain = block_aligned_try_alloc(q->buffer_align, q->geo.cluster_bytes);
    if (!packed || !plain) {
        ret = -ENOMEM;
    } else {
        bdrv_co_debug_event(q->bs, "read_compressed");
        ret = bdrv_co_pread(q->data_file, c.host_offset, c.bytes, packed, 0);
    }
    if (ret == 0) {
        ret = qcow2_decompress(q->codecs, packed, c.bytes, plain,
                               q->geo.cluster_bytes);
    }
    if (ret == 0) {
        block_iov_from_buf(iov, iov_offset, plain + into, bytes);
    }
    block_aligned_free(packed);
    block_aligned_free(plain);
    return ret;
}

/* --- writing -------------------------------------------------------------- */

/* Give back space that nothing names. */
static void coroutine_fn drop_space(Qcow2 *q, int64_t host, int64_t bytes)
{
    /* Refcounts alone: this needs no room in the L2 cache, and must not fail
     * when write-back does. */
    co_mutex_lock(&q->meta_lock);
    qcow2_unalloc(q, host, bytes);
    co_mutex_unlock(&q->meta_lock);
}

static int coroutine_fn take_space(Qcow2 *q, int64_t bytes, int64_t *ret_host)
{
    int ret = qcow2_meta_lock(q);

    if (ret < 0) {
        return ret;
    }
    ret = qcow2_alloc_bytes(q, bytes, ret_host);
    qcow2_meta_unlock(q);
    return ret;
}

/* Store @bytes of compressed data as the cluster at @offset. */
static int coroutine_fn store_packed(Qcow2 *q, int64_t offset,
                                     const void *packed, int64_t bytes)
{
    int64_t host;
    int ret = take_space(q, bytes, &host);

    if (ret < 0) {
        return ret;
    }
    SIM_POINT("qcow2.compressed.space", bdrv_node_name(q->bs));
    ret = qcow2_check_overlap(q, 0, host, bytes, true);
    if (ret == 0) {
        bdrv_co_debug_event(q->bs, "write_compressed");
        ret = bdrv_co_pwrite(q->data_file, host, bytes, packed, 0);
    }
    if (ret == 0) {
        ret = qcow2_link_compressed(
            q, offset, qcow2_compressed_encode(&q->geo, host, bytes));
    }
    if (ret < 0) {
        drop_space(q, host, bytes);
    }
    return ret;
}

/* One cluster of a request. */
typedef struct PackTask {
    Qcow2 *q;
    const BlockIO *io;
    int64_t offset; /* of the cluster in the image */
    int64_t bytes;  /* less than a cluster only at the image's end */
} PackTask;

/* It does not get smaller: write it as it is. */
static int coroutine_fn write_plain(const PackTask *task)
{
    BlockIOVecSlice slice;
    BlockIO io = {
        .offset = task->offset,
        .bytes = task->bytes,
        .flags = task->io->flags & ~BDRV_REQ_WRITE_COMPRESSED,
    };
    int ret;

    io.iov = block_iov_slice(&slice, task->io->iov,
                             task->offset - task->io->offset, task->bytes);
    ret = qcow2_pwritev(task->q->bs, &io);
    block_iov_slice_clear(&slice);
    return ret;
}

static int coroutine_fn write_packed(const PackTask *task)
{
    Qcow2 *q = task->q;
    size_t cluster = q->geo.cluster_bytes;
    uint8_t *plain = block_aligned_try_alloc(q->buffer_align, cluster);
    uint8_t *packed = block_aligned_try_alloc(q->buffer_align, cluster);
    size_t bytes;
    int ret = -ENOMEM;

    if (plain && packed) {
        /* A copy, as the guest may change its memory while we look at it. */
        block_iov_to_buf(task->io->iov, task->offset - task->io->offset, plain,
                         task->bytes);
        memset(plain + task->bytes, 0, cluster - task->bytes);
        ret = qcow2_compress(q->codecs, plain, packed, &bytes);
    }
    if (ret == 0) {
        ret = store_packed(q, task->offset, packed, bytes);
    } else if (ret == -ENOSPC) {
        ret = write_plain(task);
    }
    block_aligned_free(plain);
    block_aligned_free(packed);
    return ret;
}

static int coroutine_fn pack_entry(void *opaque)
{
    PackTask *task = opaque;
    int ret = write_packed(task);

    g_free(task);
    return ret;
}

static int coroutine_fn pack_all(Qcow2 *q, const BlockIO *io)
{
    CoTaskPool *pool = co_task_pool_new(QCOW2_COMPRESS_PARALLEL);
    int64_t end = io->offset + io->bytes;
    int ret;

    for (int64_t at = io->offset; at < end; at += q->geo.cluster_bytes) {
        PackTask *task = g_new(PackTask, 1);

        *task = (PackTask){ q, io, at, MIN(q->geo.cluster_bytes, end - at) };
        if (co_task_pool_start(pool, pack_entry, task) < 0) {
            g_free(task);
            break;
        }
    }
    ret = co_task_pool_wait_all(pool);
    co_task_pool_free(pool);
    return ret;
}

int coroutine_fn qcow2_pwritev_compressed(Qcow2 *q, const BlockIO *io)
{
    int64_t end = io->offset + io->bytes;
    int64_t size = atomic_load_explicit(&q->size, memory_order_relaxed);
    int ret;

    if (q->has_data_file) {
        return -ENOTSUP; /* the other file shows guest data as it is */
    }
    if (qcow2_into_cluster(&q->geo, io->offset) ||
        (qcow2_into_cluster(&q->geo, end) && end < size)) {
        return -EINVAL;
    }
    ret = qcow2_prepare_write(q);
    if (ret < 0) {
        return ret;
    }
    if (io->bytes <= q->geo.cluster_bytes) {
        return write_packed(&(PackTask){ q, io, io->offset, io->bytes });
    }
    return pack_all(q, io);
}
