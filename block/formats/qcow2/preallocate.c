/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Host clusters for parts of the disk that have none, without data: what
 * preallocation needs.
 */
#include "block/formats/qcow2/qcow2.h"

#include <errno.h>

static bool has_cluster(const Qcow2 *q, Qcow2L2Entry entry)
{
    return entry.word & (QCOW2_OFFSET_MASK | QCOW2_OFLAG_COMPRESSED |
                         (q->has_data_file ? QCOW2_OFLAG_COPIED : 0));
}

/* How many entries from ref->index on, up to @max, are like the first. */
static unsigned count_alike(Qcow2 *q, const Qcow2L2Ref *ref, unsigned max)
{
    bool first = has_cluster(q, qcow2_l2_read(q, ref, ref->index));
    unsigned n = 1;

    max = MIN(max, ref->nr - ref->index);
    while (n < max && has_cluster(q, qcow2_l2_read(q, ref, ref->index + n)) ==
                          first) {
        n++;
    }
    return n;
}

/* An entry that has a cluster and reads as zero; version 2 cannot say so, its
 * clusters are zeroed. */
static Qcow2L2Entry reserved_entry(const Qcow2 *q, int64_t host)
{
    Qcow2L2Entry entry = { .word = host | QCOW2_OFLAG_COPIED };

    if (q->geo.extended_l2) {
        entry.bitmap = UINT64_C(0xffffffff) << 32;
    } else if (q->header.version >= 3) {
        entry.word |= QCOW2_OFLAG_ZERO;
    }
    return entry;
}

static int coroutine_fn take_run(Qcow2 *q, int64_t offset, unsigned max,
                                 Qcow2Run *run)
{
    int ret;

    if (q->has_data_file) {
        *run = (Qcow2Run){ .offset = offset,
                           .bytes = (int64_t)max << q->geo.cluster_bits };
        return 0;
    }
    ret = qcow2_alloc_clusters(q, max, false, run);
    if (ret == 0 && q->header.version < 3 && !run->fresh) {
        ret = bdrv_co_pwrite_zeroes(q->data_file, run->offset, run->bytes, 0);
        if (ret < 0) {
            qcow2_unalloc(q, run->offset, run->bytes);
        }
    }
    return ret;
}

static int coroutine_fn preallocate_locked(Qcow2 *q, int64_t offset,
                                           int64_t bytes, int64_t *ret_host,
                                           int64_t *ret_bytes)
{
    unsigned max = MIN(bytes + q->geo.cluster_bytes - 1, INT32_MAX) >>
                   q->geo.cluster_bits;
    Qcow2L2Ref ref;
    Qcow2Run run;
    unsigned n;
    int ret = qcow2_l2_get(q, offset, true, &ref);

    if (ret < 0) {
        return ret;
    }
    n = count_alike(q, &ref, max);
    if (has_cluster(q, qcow2_l2_read(q, &ref, ref.index))) {
        *ret_host = -1;
        *ret_bytes = (int64_t)n << q->geo.cluster_bits;
        qcow2_l2_put(q, &ref);
        return 0;
    }
    ret = take_run(q, offset, n, &run);
    for (int64_t at = 0; ret == 0 && at < run.bytes;
         at += q->geo.cluster_bytes) {
        qcow2_l2_write(q, &ref, ref.index + (at >> q->geo.cluster_bits),
                       reserved_entry(q, run.offset + at));
    }
    qcow2_l2_put(q, &ref);
    if (ret == 0) {
        *ret_host = run.offset;
        *ret_bytes = run.bytes;
    }
    return ret;
}

int coroutine_fn qcow2_preallocate_run(Qcow2 *q, int64_t offset, int64_t bytes,
                                       int64_t *ret_host, int64_t *ret_bytes)
{
    int ret;

    g_assert(qcow2_into_cluster(&q->geo, offset) == 0 && bytes > 0);
    ret = qcow2_meta_lock_range(q, offset, bytes);
    if (ret == 0) {
        ret = preallocate_locked(q, offset, bytes, ret_host, ret_bytes);
        qcow2_meta_unlock(q);
    }
    return ret;
}
