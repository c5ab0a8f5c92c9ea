/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Free clusters: the first that fits.
 *
 * A search begins at q->free_hint, below which nothing is free, and goes over
 * slices of counts that are mostly cached; refcount blocks that are known to
 * be full are jumped over.  Where there is no refcount block yet all is free
 * but what the block itself takes: it is made first, and the search goes on
 * behind it.  So a cluster that was found is never taken by the block that
 * counts it.
 *
 * All of it under the meta lock, held over every yield: what was found free
 * stays so.  A count of 0 on a cluster that holds metadata is a lie of the
 * image: nothing is allocated then, and the image is marked corrupt.
 */
#include "block/formats/qcow2/refcount.h"

#include <errno.h>

typedef struct Search {
    int64_t want;       /* clusters */
    bool exact;
    int64_t at;         /* the next cluster to look at */
    int64_t first_free; /* the first free one that was seen; -1: none */
    int64_t run;        /* free clusters in a row, before @at */
} Search;

/* --- searching ------------------------------------------------------------ */

/* The counts say that [@first, +@n) is free: do we believe it? */
static int coroutine_fn check_free(Qcow2 *q, int64_t first, int64_t n)
{
    unsigned bits = q->geo.cluster_bits;
    int64_t at;
    unsigned kinds = qcow2_metamap_find(q, ~0u, first << bits, n << bits, &at);

    if (first == 0 && !kinds) {
        kinds = QCOW2_OL_MAIN_HEADER;
        at = 0;
    }
    if (kinds) {
        qcow2_signal_corruption(q, true, at, q->geo.cluster_bytes,
                                "refcount 0 of a cluster of the %s",
                                qcow2_overlap_name(kinds));
        return -EIO;
    }
    return 0;
}

/* Look at what s->at begins with, in a block that exists. */
static int coroutine_fn search_run(Qcow2 *q, Search *s, int64_t block_end)
{
    int64_t n;
    bool free;
    int ret = qcow2_refcount_run(q, s->at, block_end - s->at,
                                 s->want - s->run, &free, &n);

    if (ret < 0) {
        return ret;
    }
    if (free) {
        ret = check_free(q, s->at, n);
        if (ret < 0) {
            return ret;
        }
        if (s->first_free < 0) {
            s->first_free = s->at;
        }
        s->run += n;
    } else {
        s->run = 0;
        if (s->first_free < 0 && s->at + n == block_end) {
            /* Nothing is free in it: the search came from below. */
            q->reftable.full[qcow2_refblock_index(q, s->at)] = 1;
        }
    }
    s->at += n;
    return 0;
}

static int coroutine_fn search_step(Qcow2 *q, Search *s)
{
    int64_t index = qcow2_refblock_index(q, s->at);
    int64_t block_end = (index + 1) << q->geo.refblock_bits;
    int64_t block;
    int ret;

    if (s->at >= qcow2_max_clusters(q)) {
        return -EFBIG;
    }
    if (index < (int64_t)q->reftable.nr && q->reftable.full[index]) {
        s->run = 0;
        s->at = block_end;
        return 0;
    }
    ret = qcow2_refblock_find(q, index, &block);
    if (ret < 0) {
        return ret;
    }
    if (block) {
        return search_run(q, s, block_end);
    }
    if (s->at == 0) {
        return check_free(q, 0, 1);
    }
    s->run = 0;
    return qcow2_refblock_make(q, s->at, s->exact ? s->want : 1);
}

/* Find free clusters; @ret_first: the first of s->run. */
static int coroutine_fn search(Qcow2 *q, Search *s, int64_t *ret_first)
{
    while (s->run < (s->exact ? s->want : 1)) {
        int ret = search_step(q, s);

        if (ret < 0) {
            return ret;
        }
    }
    *ret_first = s->at - s->run;
    return 0;
}

/* --- clusters ------------------------------------------------------------- */

/* Take [@first, +@n), which is free. */
static int coroutine_fn take(Qcow2 *q, int64_t first, int64_t n, Qcow2Run *ret)
{
    int64_t offset = first << q->geo.cluster_bits;
    int64_t bytes = n << q->geo.cluster_bits;
    int err = qcow2_refcount_change(q, offset, bytes, 1);

    if (err < 0) {
        return err;
    }
    *ret = (Qcow2Run){
        .offset = offset,
        .bytes = bytes,
        .fresh = offset >= q->fresh_from,
    };
    q->fresh_from = MAX(q->fresh_from, offset + bytes);
    return 0;
}

int coroutine_fn qcow2_alloc_clusters(Qcow2 *q, int64_t max, bool exact,
                                      Qcow2Run *ret)
{
    Search s = { .want = max, .exact = exact, .at = q->free_hint,
                 .first_free = -1 };
    int64_t first;
    int err = SIM_FAULT("qcow2.alloc", bdrv_node_name(q->bs));

    g_assert(co_mutex_is_mine(&q->meta_lock));
    g_assert(max > 0);
    if (max > qcow2_max_clusters(q)) {
        return -EFBIG;
    }
    bdrv_co_debug_event(q->bs, "cluster_alloc");
    if (atomic_load(&q->corrupt)) {
        return -EIO; /* what is free in memory may be in use on the disk */
    }
    if (err == 0) {
        err = search(q, &s, &first);
    }
    if (err == 0) {
        err = take(q, first, s.run, ret);
    }
    if (err == 0) {
        g_assert(first > 0);
        q->free_hint = s.first_free == first ? first + s.run : s.first_free;
    }
    return err;
}

int coroutine_fn qcow2_alloc_clusters_at(Qcow2 *q, int64_t offset, int64_t max,
                                         Qcow2Run *ret)
{
    int64_t first = offset >> q->geo.cluster_bits;
    int64_t block_end = ((first >> q->geo.refblock_bits) + 1)
                        << q->geo.refblock_bits;
    int64_t block, n;
    bool free;
    int err;

    g_assert(co_mutex_is_mine(&q->meta_lock));
    g_assert(max > 0 && offset > 0 && !qcow2_into_cluster(&q->geo, offset));
    *ret = (Qcow2Run){ .offset = offset };
    if (first >= qcow2_max_clusters(q)) {
        return 0;
    }
    if (atomic_load(&q->corrupt)) {
        return -EIO;
    }
    err = qcow2_refblock_find(q, qcow2_refblock_index(q, first), &block);
    if (err < 0 || !block) {
        /* Without a block the cluster is where that would go. */
        return err;
    }
    err = qcow2_refcount_run(q, first, block_end - first, max, &free, &n);
    if (err < 0 || !free) {
        return err;
    }
    n = MIN(n, qcow2_max_clusters(q) - first);
    err = check_free(q, first, n);
    if (err == 0) {
        err = take(q, first, n, ret);
    }
    if (err == 0 && q->free_hint == first) {
        q->free_hint = first + n;
    }
    return err;
}

void coroutine_fn qcow2_unalloc(Qcow2 *q, int64_t offset, int64_t bytes)
{
    int ret;

    bdrv_co_debug_event(q->bs, "cluster_free");
    ret = qcow2_refcount_change(q, offset, bytes, -1);
    if (ret < 0) {
        g_warning("Node '%s': %" G_GINT64_FORMAT " bytes at offset %"
                  G_GINT64_FORMAT " of the image leak: %s",
                  bdrv_node_name(q->bs), bytes, offset, g_strerror(-ret));
    }
}

/* --- compressed data ------------------------------------------------------ */

/* Whether a compressed cluster's entry can name [@offset, +@bytes). */
static bool can_name(const Qcow2 *q, int64_t offset, int64_t bytes)
{
    return (uint64_t)(offset + bytes - 1) <= q->geo.coffset_mask;
}

/*
 * Go on behind the compressed data that was placed last, in the rest of its
 * cluster and, if that is too small, in the next one.  Returns 1 when that
 * cannot be: elsewhere, then.
 */
static int coroutine_fn continue_bytes(Qcow2 *q, int64_t bytes)
{
    int64_t offset = q->compressed_next;
    int64_t end = qcow2_cluster_up(&q->geo, offset);
    Qcow2Run next = { .bytes = 0 };
    uint64_t count;
    int ret;

    if (offset == 0 || !can_name(q, offset, bytes)) {
        return 1;
    }
    ret = qcow2_refcount_get(q, offset >> q->geo.cluster_bits, &count);
    if (ret < 0) {
        return ret;
    }
    if (count == 0 || count == q->geo.refcount_max) {
        return 1;
    }
    if (bytes > end - offset) {
        if (q->free_hint < end >> q->geo.cluster_bits) {
            return 1; /* there is room lower down: do not let the file grow */
        }
        ret = qcow2_alloc_clusters_at(q, end, 1, &next);
        if (ret < 0 || next.bytes == 0) {
            return ret < 0 ? ret : 1;
        }
    }
    ret = qcow2_refcount_change(q, offset, 1, 1);
    if (ret < 0 && next.bytes > 0) {
        qcow2_unalloc(q, next.offset, next.bytes);
    }
    return ret;
}

int coroutine_fn qcow2_alloc_bytes(Qcow2 *q, int64_t bytes,
                                   int64_t *ret_offset)
{
    Qcow2Run run = { .offset = q->compressed_next };
    int ret;

    g_assert(co_mutex_is_mine(&q->meta_lock));
    g_assert(bytes > 0 && bytes <= q->geo.cluster_bytes);
    bdrv_co_debug_event(q->bs, "cluster_alloc_bytes");
    ret = continue_bytes(q, bytes);
    if (ret > 0) {
        ret = qcow2_alloc_clusters(q, 1, true, &run);
        if (ret == 0 && !can_name(q, run.offset, bytes)) {
            qcow2_unalloc(q, run.offset, run.bytes);
            ret = -EFBIG;
        }
    }
    if (ret < 0) {
        return ret;
    }
    *ret_offset = run.offset;
    q->compressed_next = run.offset + bytes;
    if (!qcow2_into_cluster(&q->geo, q->compressed_next)) {
        q->compressed_next = 0; /* its cluster is full */
    }
    return 0;
}
