/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writes.  A cluster that is ours alone is overwritten where it is, with no
 * lock taken.  Any other gets a host cluster first:
 *
 *   plan    under the meta lock: which clusters, where; Qcow2Alloc is entered,
 *           so that nobody else touches these entries (I5)
 *   data    without a lock: what the guest writes, and around it what was there
 *           before (cow.c), in as few requests as possible
 *   link    under the meta lock: the entries name the clusters, what they named
 *           before is given up
 *
 * A failure before link gives back what plan allocated, and only that.
 */
#include "block/formats/qcow2/write.h"

#include <errno.h>

/* --- what an entry needs -------------------------------------------------- */

/* Whether the host cluster of @entry may be written in place. */
static bool owns_host(const Qcow2 *q, Qcow2L2Entry entry)
{
    if ((entry.word & QCOW2_OFLAG_COMPRESSED) ||
        !(entry.word & QCOW2_OFLAG_COPIED)) {
        return false;
    }
    return q->has_data_file || qcow2_l2_host(entry) != 0;
}

/* Whether nothing but the data need be written for [@from, @to) of a cluster
 * (bytes in it). */
static bool is_written(const Qcow2 *q, Qcow2L2Entry entry, int64_t from,
                       int64_t to)
{
    unsigned first = q->geo.subclusters > 1 ? from >> q->geo.subcluster_bits
                                            : 0;
    unsigned last = q->geo.subclusters > 1
                        ? (to - 1) >> q->geo.subcluster_bits : 0;

    for (unsigned sc = first; sc <= last; sc++) {
        if (qcow2_entry_kind(q, entry, sc) != QCOW2_NORMAL) {
            return false;
        }
    }
    return true;
}

/* An entry that makes no sense must not be replaced by one that does. */
static int coroutine_fn check_entry(Qcow2 *q, int64_t offset,
                                    Qcow2L2Entry entry)
{
    Qcow2Kind kind = QCOW2_NORMAL;

    for (unsigned sc = 0; sc < q->geo.subclusters; sc++) {
        kind = qcow2_entry_kind(q, entry, sc);
        if (kind == QCOW2_INVALID) {
            break;
        }
    }
    if (kind != QCOW2_INVALID &&
        (kind == QCOW2_COMPRESSED ||
         !qcow2_into_cluster(&q->geo, qcow2_l2_host(entry)))) {
        return 0;
    }
    qcow2_signal_corruption(q, true, qcow2_l2_host(entry),
                            q->geo.cluster_bytes, "the L2 entry of guest "
                            "offset 0x%" G_GINT64_MODIFIER "x is not valid: "
                            "0x%" G_GINT64_MODIFIER "x", (uint64_t)offset,
                            entry.word);
    return -EIO;
}

/* --- plan ----------------------------------------------------------------- */

/* The part of the request in cluster number @i of the plan, in bytes from the
 * start of that cluster. */
static void part_of_cluster(const Qcow2Write *w, unsigned i, int64_t *ret_from,
                            int64_t *ret_to)
{
    const Qcow2Geometry *geo = &w->q->geo;
    int64_t start = w->guest + ((int64_t)i << geo->cluster_bits);

    *ret_from = MAX(w->offset - start, 0);
    *ret_to = MIN(w->offset + w->bytes - start, geo->cluster_bytes);
}

/*
 * Requests that looked before something was made zero may still read its place
 * in the file.  If that got new data now, they would see data of a write that
 * has not ended, and who reads next would see the zeroes again.
 */
static bool old_readers_left(Qcow2 *q)
{
    return !qcow2_epoch_over(q, q->zeroed_epoch);
}

/* With subclusters (their neighbours are being overwritten), and in an external
 * file, there is no other place. */
static bool has_one_place(const Qcow2 *q)
{
    return q->geo.extended_l2 || q->has_data_file;
}

/* Whether the host cluster of @entry is to get the new data. */
static bool may_reuse(Qcow2 *q, Qcow2L2Entry entry)
{
    return owns_host(q, entry) &&
           (!(entry.word & QCOW2_OFLAG_ZERO) || has_one_place(q) ||
            !old_readers_left(q));
}

/* Whether [@from, @to) of the cluster of @entry (bytes in it) is to get data
 * where old readers look. */
static bool must_wait(Qcow2 *q, Qcow2L2Entry entry, int64_t from, int64_t to)
{
    return has_one_place(q) && old_readers_left(q) &&
           (q->has_data_file || owns_host(q, entry)) &&
           !is_written(q, entry, from, to);
}

/* How many clusters, from the first on, can be planned together. */
static int coroutine_fn count_clusters(Qcow2Write *w, const Qcow2L2Ref *ref,
                                       unsigned max)
{
    Qcow2 *q = w->q;
    Qcow2L2Entry first = qcow2_l2_read(q, ref, ref->index);
    unsigned n = 0;

    w->reuse = may_reuse(q, first);
    w->host = w->reuse ? qcow2_l2_host(first) : 0;
    for (; n < MIN(max, ref->nr - ref->index); n++) {
        Qcow2L2Entry entry = qcow2_l2_read(q, ref, ref->index + n);
        int64_t from, to;
        int ret = check_entry(q, w->guest, entry);

        if (ret < 0) {
            return ret;
        }
        part_of_cluster(w, n, &from, &to);
        if (must_wait(q, entry, from, to)) {
            w->wait_for_readers = n == 0;
            w->epoch = q->zeroed_epoch;
            break;
        }
        if (may_reuse(q, entry) != w->reuse) {
            break;
        }
        if (w->reuse &&
            (is_written(q, entry, from, to) ||
             qcow2_l2_host(entry) !=
                 w->host + ((int64_t)n << q->geo.cluster_bits))) {
            break;
        }
        if (w->reuse && q->geo.extended_l2 && n > 0) {
            break; /* each has a bitmap of its own */
        }
    }
    w->clusters = n;
    return 0;
}

/* Take host clusters for those that need new ones; may make them fewer. */
static int coroutine_fn take_clusters(Qcow2Write *w)
{
    Qcow2 *q = w->q;
    Qcow2Run run;
    int ret;

    if (w->reuse) {
        return 0;
    }
    if (q->has_data_file) {
        w->host = w->guest;
        return 0;
    }
    ret = SIM_FAULT("qcow2.write.alloc", bdrv_node_name(q->bs));
    if (ret == 0) {
        ret = qcow2_alloc_clusters(q, w->clusters, false, &run);
    }
    if (ret < 0) {
        return ret;
    }
    w->owned = true;
    w->host = run.offset;
    w->fresh = run.fresh || SIM_PLANTED(25);
    w->clusters = run.bytes >> q->geo.cluster_bits;
    return 0;
}

/* The planned clusters may be fewer than the request: cut it. */
static void cut_request(Qcow2Write *w)
{
    int64_t end = w->guest + ((int64_t)w->clusters
                              << w->q->geo.cluster_bits);

    w->bytes = MIN(w->bytes, end - w->offset);
}

/* Which guest bytes are written beside the request's own: up to the borders
 * of what has one state. */
static void plan_cow(Qcow2Write *w, const Qcow2L2Ref *ref)
{
    Qcow2 *q = w->q;
    int64_t unit = q->geo.subcluster_bytes;
    int64_t end = w->offset + w->bytes;
    unsigned last = w->clusters - 1;
    int64_t last_guest = w->guest + ((int64_t)last << q->geo.cluster_bits);
    Qcow2L2Entry first_entry = qcow2_l2_read(q, ref, ref->index);
    Qcow2L2Entry last_entry = qcow2_l2_read(q, ref, ref->index + last);

    w->cow_from = w->offset & ~(unit - 1);
    w->cow_to = (end + unit - 1) & ~(unit - 1);
    if (w->reuse) {
        int64_t from = w->offset - w->guest, to = end - last_guest;

        if (is_written(q, first_entry, from, from + 1)) {
            w->cow_from = w->offset;
        }
        if (is_written(q, last_entry, to - 1, to)) {
            w->cow_to = end;
        }
        return;
    }
    /* What else is in the host cluster that is left has to come along. */
    if (first_entry.word) {
        w->cow_from = w->guest;
    }
    if (last_entry.word) {
        w->cow_to = last_guest + q->geo.cluster_bytes;
    }
}

/* Meta lock held; w->clusters is 0 when there is nothing to allocate. */
static int coroutine_fn plan_locked(Qcow2Write *w)
{
    Qcow2 *q = w->q;
    const Qcow2Geometry *geo = &q->geo;
    int64_t end = w->offset + w->bytes;
    unsigned max = (qcow2_cluster_up(geo, end) - w->guest) >>
                   geo->cluster_bits;
    Qcow2L2Ref ref;
    IntervalNode *next;
    int ret = qcow2_l2_get(q, w->offset, true, &ref);

    if (ret < 0) {
        return ret;
    }
    next = interval_tree_first_overlap(&q->allocs, w->guest, end - 1);
    if (next) {
        max = (next->start - w->guest) >> geo->cluster_bits;
    }
    ret = count_clusters(w, &ref, max);
    if (ret == 0 && w->clusters > 0) {
        ret = take_clusters(w);
    }
    if (ret == 0 && w->clusters > 0) {
        cut_request(w);
        plan_cow(w, &ref);
        qcow2_alloc_begin(q, &w->alloc, w->guest,
                          (int64_t)w->clusters << geo->cluster_bits);
    }
    qcow2_l2_put(q, &ref);
    return ret;
}

static int coroutine_fn plan(Qcow2Write *w)
{
    int ret = qcow2_meta_lock_range(w->q, w->guest, w->q->geo.cluster_bytes);

    if (ret == 0) {
        ret = plan_locked(w);
        qcow2_meta_unlock(w->q);
    }
    return ret;
}

/* --- link ----------------------------------------------------------------- */

static uint64_t low_bits(unsigned n)
{
    return (UINT64_C(1) << n) - 1;
}

/* The entry of cluster number @i once its data are written. */
static Qcow2L2Entry new_entry(const Qcow2Write *w, unsigned i,
                              Qcow2L2Entry old)
{
    const Qcow2Geometry *geo = &w->q->geo;
    int64_t start = w->guest + ((int64_t)i << geo->cluster_bits);
    Qcow2L2Entry entry = {
        .word = (w->host + ((int64_t)i << geo->cluster_bits)) |
                QCOW2_OFLAG_COPIED,
    };
    unsigned from, to;
    uint64_t written;

    if (!geo->extended_l2) {
        return entry;
    }
    from = MAX(w->cow_from - start, 0) >> geo->subcluster_bits;
    to = (MIN(w->cow_to - start, geo->cluster_bytes) +
          geo->subcluster_bytes - 1) >> geo->subcluster_bits;
    written = low_bits(to) & ~low_bits(from);
    entry.bitmap = old.word & QCOW2_OFLAG_COMPRESSED ? 0 : old.bitmap;
    entry.bitmap |= written;
    entry.bitmap &= ~(written << 32);
    return entry;
}

static int coroutine_fn link_locked(Qcow2Write *w)
{
    Qcow2 *q = w->q;
    Qcow2L2Ref ref;
    int ret = SIM_FAULT("qcow2.write.link", bdrv_node_name(q->bs));

    if (ret == 0) {
        ret = qcow2_l2_get(q, w->guest, true, &ref);
    }
    if (ret < 0) {
        return ret;
    }
    for (unsigned i = 0; i < w->clusters; i++) {
        Qcow2L2Entry old = qcow2_l2_read(q, &ref, ref.index + i);

        qcow2_l2_write(q, &ref, ref.index + i, new_entry(w, i, old));
        if (!w->reuse) {
            qcow2_free_entry(q, old, QCOW2_DISCARD_OTHER);
        }
    }
    qcow2_l2_put(q, &ref);
    return 0;
}

/* Link if the data were written (@ret is 0), else give back. */
static int coroutine_fn finish(Qcow2Write *w, int ret)
{
    Qcow2 *q = w->q;

    if (ret == 0) {
        ret = qcow2_meta_lock(q);
    }
    if (ret == 0) {
        ret = link_locked(w);
    } else if (!co_mutex_is_mine(&q->meta_lock)) {
        co_mutex_lock(&q->meta_lock);
    }
    if (ret < 0 && (w->owned || SIM_PLANTED(27))) {
        qcow2_unalloc(q, w->host,
                      (int64_t)w->clusters << q->geo.cluster_bits);
    }
    qcow2_alloc_end(q, &w->alloc);
    qcow2_meta_unlock(q);
    return ret;
}

/* --- requests ------------------------------------------------------------- */

/* Write as much as one plan covers; w->bytes says how much that was. */
static int coroutine_fn write_allocating(Qcow2Write *w)
{
    int ret;

    w->guest = qcow2_cluster_down(&w->q->geo, w->offset);
    ret = plan(w);
    if (ret < 0) {
        return ret;
    }
    if (w->clusters == 0) {
        w->bytes = 0; /* look again */
        return 0;
    }
    return finish(w, qcow2_cow_write(w));
}

static int coroutine_fn write_in_place(Qcow2Write *w, int64_t host)
{
    Qcow2 *q = w->q;

    if (!q->has_data_file) {
        int ret = qcow2_check_overlap(q, 0, host, w->bytes, true);

        if (ret < 0) {
            return ret;
        }
    }
    return qcow2_write_data(w, host);
}

/* The first run of what is left of a request. */
static int coroutine_fn write_run(Qcow2Write *w)
{
    Qcow2Mapping map;
    int ret = qcow2_map(w->q, w->offset, w->bytes, true, &map);

    if (ret < 0) {
        return ret;
    }
    if (map.kind == QCOW2_NORMAL && (map.word & QCOW2_OFLAG_COPIED)) {
        w->bytes = map.bytes;
        return write_in_place(w, map.host_offset);
    }
    return write_allocating(w);
}

/* @model: the whole request; its source is an iov or a copy. */
static int coroutine_fn write_runs(const Qcow2Write *model)
{
    Qcow2 *q = model->q;
    int64_t done = 0;
    unsigned ticket;
    int ret;

    if (model->offset + model->bytes > atomic_load(&q->size)) {
        return -ENOSPC;
    }
    ret = qcow2_prepare_write(q);
    ticket = qcow2_access_begin(q);
    while (ret == 0 && done < model->bytes) {
        Qcow2Write w = *model;

        w.offset += done;
        w.bytes -= done;
        w.source_offset += done;
        ret = write_run(&w);
        done += w.bytes;
        if (ret == 0 && w.wait_for_readers) {
            if (w.copy) {
                /* Who copies inside the image is such a reader himself; by way
                 * of memory he is not. */
                ret = -ENOTSUP;
                break;
            }
            qcow2_access_end(q, ticket);
            qcow2_epoch_wait(q, w.epoch);
            ticket = qcow2_access_begin(q);
        }
    }
    qcow2_access_end(q, ticket);
    return ret;
}

int coroutine_fn qcow2_pwritev(BlockDriverState *bs, const BlockIO *io)
{
    Qcow2Write w = { .q = qcow2_of(bs), .offset = io->offset,
                     .bytes = io->bytes, .iov = io->iov };

    if (io->flags & BDRV_REQ_WRITE_COMPRESSED) {
        return qcow2_pwritev_compressed(w.q, io);
    }
    return write_runs(&w);
}

int coroutine_fn qcow2_copy_range_to(BlockDriverState *bs,
                                     const BlockCopyRange *copy)
{
    Qcow2Write w = { .q = qcow2_of(bs), .offset = copy->dst_offset,
                     .bytes = copy->bytes, .copy = copy };

    return write_runs(&w);
}
