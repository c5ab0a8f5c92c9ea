/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reference counts of host clusters, in slices of refcount blocks.
 *
 * Only who holds the meta lock may look, as counts change together with what
 * they count.
 */
#include "block/formats/qcow2/refcount.h"

#include <errno.h>

/* Clusters whose counts are in one slice. */
typedef struct Part {
    int64_t first;
    int64_t n;
    int64_t slice;     /* offset in the file; 0: they have no refcount block */
    uint64_t index;    /* of the first count in the slice */
} Part;

/* Bytes of counts that are changed at once. */
#define WINDOW_BYTES 512

/* The part of [@first, +@n) that @first is in. */
static int coroutine_fn find_part(Qcow2 *q, int64_t first, int64_t n,
                                  Part *ret)
{
    unsigned order = q->geo.refcount_order;
    int64_t slice_bytes = qcow2_cache_slice_bytes(q->refcount_cache);
    int64_t per_slice = slice_bytes * 8 >> order;
    int64_t in_block = first & ((INT64_C(1) << q->geo.refblock_bits) - 1);
    int64_t block;
    int err = qcow2_refblock_find(q, qcow2_refblock_index(q, first), &block);

    if (err < 0) {
        return err;
    }
    *ret = (Part){ .first = first, .index = in_block % per_slice };
    ret->n = MIN(n, per_slice - (int64_t)ret->index);
    if (block) {
        ret->slice = block + in_block / per_slice * slice_bytes;
    }
    return 0;
}

int coroutine_fn qcow2_refcount_get(Qcow2 *q, int64_t cluster, uint64_t *ret)
{
    Qcow2Slice *slice;
    Part part;
    int err;

    g_assert(co_mutex_is_mine(&q->meta_lock));
    g_assert(cluster >= 0);
    *ret = 0;
    err = find_part(q, cluster, 1, &part);
    if (err < 0 || !part.slice) {
        return err;
    }
    err = qcow2_cache_get(q->refcount_cache, part.slice, &slice);
    if (err < 0) {
        return err;
    }
    *ret = untrusted_bits(qcow2_refcount_at(qcow2_slice_data(slice),
                                            q->geo.refcount_order,
                                            part.index),
                          q->geo.refcount_max);
    qcow2_cache_put(q->refcount_cache, slice);
    return 0;
}

/* --- runs ----------------------------------------------------------------- */

/* How many counts of @data from @index on, at most @n, are 0 or not as the
 * first of them. */
static int64_t equal_counts(const uint8_t *data, unsigned order,
                            uint64_t index, int64_t n, bool free)
{
    uint64_t per_byte = order < 3 ? 8 >> order : 1;
    unsigned width = order < 3 ? 1 : 1 << (order - 3);
    int64_t i = 0;

    while (i < n) {
        uint64_t at = index + i;

        /* Bytes of nothing go in one step: most of a fresh image. */
        if (free && at % per_byte == 0 && n - i >= (int64_t)per_byte) {
            const uint8_t *p = data + at / per_byte * width;
            unsigned k = 0;

            while (k < width && p[k] == 0) {
                k++;
            }
            if (k == width) {
                i += per_byte;
                continue;
            }
        }
        if (untrusted_is(qcow2_refcount_at(data, order, at), 0) != free) {
            break;
        }
        i++;
    }
    return i;
}

int coroutine_fn qcow2_refcount_run(Qcow2 *q, int64_t first, int64_t n,
                                    int64_t enough, bool *ret_free,
                                    int64_t *ret_n)
{
    int64_t done = 0;

    g_assert(qcow2_refblock_index(q, first) ==
             qcow2_refblock_index(q, first + n - 1));
    while (done < n) {
        const uint8_t *data;
        Qcow2Slice *slice;
        int64_t equal;
        Part part;
        int ret = find_part(q, first + done, n - done, &part);

        if (ret < 0) {
            return ret;
        }
        g_assert(part.slice);
        ret = qcow2_cache_get(q->refcount_cache, part.slice, &slice);
        if (ret < 0) {
            return ret;
        }
        data = qcow2_slice_data(slice);
        if (done == 0) {
            *ret_free = untrusted_is(qcow2_refcount_at(data,
                                                       q->geo.refcount_order,
                                                       part.index), 0);
            n = *ret_free ? MIN(n, enough) : n;
            part.n = MIN(part.n, n);
        }
        equal = equal_counts(data, q->geo.refcount_order, part.index, part.n,
                             *ret_free);
        qcow2_cache_put(q->refcount_cache, slice);
        done += equal;
        if (equal < part.n) {
            break;
        }
    }
    *ret_n = done;
    return 0;
}

/* --- changes -------------------------------------------------------------- */

/* @count and @delta, if that is not below 0 nor above what the width holds. */
static bool add_to_count(const Qcow2 *q, Untrusted count, int64_t delta,
                         uint64_t *ret)
{
    Untrusted sum;
    bool fits = delta < 0
                    ? untrusted_subtract(count, untrusted(-(uint64_t)delta),
                                         &sum)
                    : untrusted_add(count, untrusted(delta), &sum);

    return fits && untrusted_at_most(sum, q->geo.refcount_max, ret);
}

/* Whether @delta can be added to all counts of @part: 0, -EINVAL, -ERANGE. */
static int check_counts(const Qcow2 *q, const uint8_t *data, const Part *part,
                        int64_t delta, int64_t *ret_bad)
{
    for (int64_t i = 0; i < part->n; i++) {
        Untrusted count = qcow2_refcount_at(data, q->geo.refcount_order,
                                            part->index + i);
        uint64_t sum;

        *ret_bad = part->first + i;
        if (!add_to_count(q, count, delta, &sum)) {
            return delta < 0 ? -EINVAL : -ERANGE;
        }
    }
    return 0;
}

/* @cluster has become free. */
static void note_free(Qcow2 *q, int64_t cluster)
{
    q->free_hint = MIN(q->free_hint, cluster);
    q->reftable.full[qcow2_refblock_index(q, cluster)] = 0;
    if (q->compressed_next &&
        (q->compressed_next - 1) >> q->geo.cluster_bits == cluster) {
        q->compressed_next = 0;
    }
}

/* Add @delta to all counts of @part, which check_counts() has found possible;
 * @delta 0: they become @value. */
static void change_counts(Qcow2 *q, Qcow2Slice *slice, const Part *part,
                          int64_t delta, uint64_t value)
{
    unsigned order = q->geo.refcount_order;
    uint64_t per_window = WINDOW_BYTES * 8 >> order;
    uint8_t window[WINDOW_BYTES];
    int64_t done = 0;

    while (done < part->n) {
        uint64_t index = part->index + done;
        uint64_t base = index / per_window * per_window;
        size_t pos = base << order >> 3;
        int64_t n = MIN(part->n - done, (int64_t)(base + per_window - index));
        size_t from = ((index - base) << order >> 3) & ~(size_t)7;
        size_t end = (((index - base + n) << order) + 63) / 64 * 8;

        memcpy(window, (const uint8_t *)qcow2_slice_data(slice) + pos,
               WINDOW_BYTES);
        for (int64_t i = 0; i < n; i++) {
            uint64_t at = index - base + i;
            uint64_t count = value;

            if (delta != 0 &&
                !add_to_count(q, qcow2_refcount_at(window, order, at), delta,
                              &count)) {
                g_assert_not_reached();
            }
            qcow2_refcount_put(window, order, at, count);
            if (count == 0) {
                note_free(q, part->first + done + i);
            }
        }
        qcow2_cache_change(q->refcount_cache, slice, pos + from,
                           window + from, end - from);
        done += n;
    }
}

static void coroutine_fn signal_count(Qcow2 *q, int64_t cluster, int64_t delta)
{
    qcow2_signal_corruption(q, true, cluster << q->geo.cluster_bits,
                            q->geo.cluster_bytes,
                            delta < 0 ? "a cluster that is in use has a "
                                        "refcount that is too low"
                                      : "a cluster that is in use has no "
                                        "refcount block");
}

static int coroutine_fn change_part(Qcow2 *q, const Part *part, int64_t delta)
{
    int64_t bad = part->first;
    Qcow2Slice *slice;
    int ret;

    if (!part->slice) {
        signal_count(q, bad, delta);
        return delta < 0 ? -EINVAL : -EIO;
    }
    ret = qcow2_cache_get(q->refcount_cache, part->slice, &slice);
    if (ret < 0) {
        return ret;
    }
    ret = check_counts(q, qcow2_slice_data(slice), part, delta, &bad);
    if (ret == 0) {
        change_counts(q, slice, part, delta, 0);
    }
    qcow2_cache_put(q->refcount_cache, slice);
    if (ret == -EINVAL) {
        signal_count(q, bad, delta);
    }
    return ret;
}

int coroutine_fn qcow2_refcount_set(Qcow2 *q, int64_t cluster, uint64_t value)
{
    Qcow2Slice *slice;
    Part part;
    int ret = find_part(q, cluster, 1, &part);

    g_assert(co_mutex_is_mine(&q->meta_lock));
    g_assert(value <= q->geo.refcount_max);
    if (ret < 0) {
        return ret;
    }
    g_assert(part.slice);
    ret = qcow2_cache_get(q->refcount_cache, part.slice, &slice);
    if (ret == 0) {
        change_counts(q, slice, &part, 0, value);
        qcow2_cache_put(q->refcount_cache, slice);
    }
    return ret;
}

/* Add @delta to the counts of [@first, +@n); @ret_n: how many were changed. */
static int coroutine_fn change_clusters(Qcow2 *q, int64_t first, int64_t n,
                                        int64_t delta, int64_t *ret_n)
{
    int ret = 0;

    *ret_n = 0;
    while (ret == 0 && *ret_n < n) {
        Part part;

        ret = find_part(q, first + *ret_n, n - *ret_n, &part);
        if (ret == 0) {
            ret = change_part(q, &part, delta);
        }
        if (ret == 0) {
            *ret_n += part.n;
        }
    }
    return ret;
}

int coroutine_fn qcow2_refcount_change(Qcow2 *q, int64_t offset, int64_t bytes,
                                       int64_t delta)
{
    int64_t first = offset >> q->geo.cluster_bits;
    int64_t n, done, undone;
    int ret;

    g_assert(co_mutex_is_mine(&q->meta_lock));
    g_assert(offset >= 0 && bytes > 0 && bytes - 1 <= INT64_MAX - offset);
    g_assert(delta != 0 && delta > INT32_MIN && delta <= INT32_MAX);
    n = ((offset + (bytes - 1)) >> q->geo.cluster_bits) - first + 1;
    ret = change_clusters(q, first, n, delta, &done);
    if (ret < 0 && done > 0 &&
        change_clusters(q, first, done, -delta, &undone) < 0) {
        /* Counts that are too high leak clusters.  Those that are too low
         * would let them serve twice. */
        if (delta > 0) {
            g_warning("Node '%s': %" G_GINT64_FORMAT " clusters of the image "
                      "leak", bdrv_node_name(q->bs), done - undone);
        } else {
            qcow2_signal_corruption(q, true, offset, bytes,
                                    "could not restore refcounts after an "
                                    "error");
        }
    }
    return ret;
}
