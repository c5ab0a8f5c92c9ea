/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What an L1 table refers to: L2 tables, and the clusters that these name.
 *
 * Tables are read from the file: whoever calls has brought all of the cache
 * there, and nothing else runs.  Neighbouring clusters are counted together.
 */
#include "block/formats/qcow2/refcount.h"
#include "block/formats/qcow2/snapshot.h"

#include <blockgraph/iov.h>
#include <errno.h>

/* Clusters in a row. */
typedef struct Run {
    int64_t offset;
    int64_t bytes;
} Run;

/* A walk over the tables. */
typedef struct Walk {
    Qcow2 *q;
    const Qcow2Refs *refs;
    Qcow2RefsChange change;
    uint8_t *l2;    /* one table */
    GArray *runs;   /* Run: what it refers to, and itself */
} Walk;

/* --- counting ------------------------------------------------------------- */

static int coroutine_fn check_counts(Qcow2 *q, int64_t offset, int64_t bytes)
{
    for (int64_t end = offset + bytes; offset < end;
         offset += q->geo.cluster_bytes) {
        uint64_t count;
        int ret = qcow2_refcount_get(q, offset >> q->geo.cluster_bits, &count);

        if (ret < 0) {
            return ret;
        }
        if (count == 0) {
            qcow2_signal_corruption(q, true, offset, q->geo.cluster_bytes,
                                    "a cluster that a table names has "
                                    "refcount 0");
            return -EIO;
        }
        if (count == q->geo.refcount_max) {
            return -ERANGE;
        }
    }
    return 0;
}

static int coroutine_fn count(Walk *w, int64_t offset, int64_t bytes)
{
    switch (w->change) {
    case QCOW2_REFS_CHECK:
        return check_counts(w->q, offset, bytes);
    case QCOW2_REFS_ADD:
        return qcow2_refcount_change(w->q, offset, bytes, 1);
    case QCOW2_REFS_DROP:
    default:
        return qcow2_drop_now(w->q, offset, bytes, QCOW2_DISCARD_SNAPSHOT);
    }
}

/* The clusters that [@offset, +@bytes) touches are referred to. */
static void add_run(Walk *w, int64_t offset, int64_t bytes)
{
    int64_t start = qcow2_cluster_down(&w->q->geo, offset);
    Run run = {
        .offset = start,
        .bytes = qcow2_cluster_up(&w->q->geo, offset + bytes) - start,
    };

    if (w->runs->len > 0) {
        Run *last = &g_array_index(w->runs, Run, w->runs->len - 1);

        if (last->offset + last->bytes == start) {
            last->bytes += run.bytes;
            return;
        }
    }
    g_array_append_val(w->runs, run);
}

/* Count all runs, or none of them. */
static int coroutine_fn count_runs(Walk *w)
{
    guint i;
    int ret = 0;

    for (i = 0; ret == 0 && i < w->runs->len; i++) {
        const Run *run = &g_array_index(w->runs, Run, i);

        ret = count(w, run->offset, run->bytes);
    }
    if (ret == 0 || w->change != QCOW2_REFS_ADD) {
        return ret;
    }
    for (i--; i-- > 0;) {
        const Run *run = &g_array_index(w->runs, Run, i);

        qcow2_unalloc(w->q, run->offset, run->bytes);
    }
    return ret;
}

/* --- tables --------------------------------------------------------------- */

static int coroutine_fn bad_entry(Qcow2 *q, int64_t table, size_t index,
                                  const char *what)
{
    qcow2_signal_corruption(q, true, table, 8, "entry %zu of an %s is invalid",
                            index, what);
    return -EIO;
}

/* The table of L1 entry @word, checked; 0: none. */
static int coroutine_fn l2_offset(Qcow2 *q, uint64_t word, size_t index,
                                  int64_t *ret)
{
    int64_t offset = word & QCOW2_OFFSET_MASK;

    *ret = offset;
    if ((word & QCOW2_L1_RESERVED) || qcow2_into_cluster(&q->geo, offset) ||
        offset >= q->fresh_from) {
        return bad_entry(q, 0, index, "L1 table");
    }
    return 0;
}

static Qcow2L2Entry l2_entry(const Qcow2 *q, const uint8_t *l2, unsigned i)
{
    return qcow2_l2_from_disk(&q->geo, l2 + i * q->geo.l2_entry_bytes);
}

/* The host clusters of @entry; @ret_bytes 0: none.  -EIO if it is invalid. */
static int entry_clusters(const Qcow2 *q, Qcow2L2Entry entry,
                          int64_t *ret_offset, int64_t *ret_bytes)
{
    Qcow2Compressed data;

    *ret_bytes = 0;
    switch (qcow2_l2_kind(&q->geo, entry, 0)) {
    case QCOW2_INVALID:
        return -EIO;
    case QCOW2_COMPRESSED:
        data = qcow2_compressed_decode(&q->geo, entry.word);
        *ret_offset = data.host_offset;
        *ret_bytes = data.bytes;
        return 0;
    default:
        /* Subclusters may be in a cluster even if the first is not. */
        if (qcow2_l2_host(entry)) {
            *ret_offset = qcow2_l2_host(entry);
            *ret_bytes = q->geo.cluster_bytes;
        }
        return 0;
    }
}

static int coroutine_fn find_runs(Walk *w, int64_t table)
{
    Qcow2 *q = w->q;

    for (unsigned i = 0; i < 1u << q->geo.l2_bits; i++) {
        int64_t offset, bytes;

        if (entry_clusters(q, l2_entry(q, w->l2, i), &offset, &bytes) < 0) {
            return bad_entry(q, table, i, "L2 table");
        }
        if (bytes > 0) {
            add_run(w, offset, bytes);
        }
    }
    /* Last: as long as it is there it says what else is. */
    add_run(w, table, q->geo.cluster_bytes);
    return 0;
}

static int coroutine_fn walk_table(Walk *w, size_t index)
{
    Qcow2 *q = w->q;
    int64_t table;
    int ret = l2_offset(q, w->refs->l1[index], index, &table);

    if (ret < 0 || table == 0) {
        return ret;
    }
    g_array_set_size(w->runs, 0);
    ret = bdrv_co_pread(qcow2_file(q), table, q->geo.cluster_bytes, w->l2, 0);
    if (ret == 0) {
        ret = find_runs(w, table);
    }
    return ret == 0 ? count_runs(w) : ret;
}

/* More tables than clusters: the same ones over and over, without end. */
static int coroutine_fn check_tables(Qcow2 *q, const Qcow2Refs *refs)
{
    int64_t tables = 0;

    for (size_t i = 0; i < refs->nr; i++) {
        tables += (refs->l1[i] & QCOW2_OFFSET_MASK) != 0;
    }
    if (tables > q->fresh_from >> q->geo.cluster_bits) {
        qcow2_signal_corruption(q, true, -1, 0, "%s names more tables than "
                                "the file has clusters", refs->what);
        return -EIO;
    }
    return 0;
}

static int walk_error(Qcow2 *q, const Qcow2Refs *refs, int ret, GError **errp)
{
    if (ret == -ERANGE) {
        return block_error(errp, ERANGE, "Node '%s': a refcount of image '%s' "
                           "would pass %" G_GUINT64_FORMAT ", the most that "
                           "its width holds", bdrv_node_name(q->bs),
                           bdrv_filename(q->bs), q->geo.refcount_max);
    }
    return block_error_errno(errp, -ret, "Node '%s': could not count what %s "
                             "of image '%s' refers to", bdrv_node_name(q->bs),
                             refs->what, bdrv_filename(q->bs));
}

int coroutine_fn qcow2_refs_change(Qcow2 *q, const Qcow2Refs *refs,
                                   Qcow2RefsChange change, GError **errp)
{
    Walk w = { .q = q, .refs = refs, .change = change };
    int ret = check_tables(q, refs);
    size_t i;

    g_assert(co_mutex_is_mine(&q->meta_lock));
    w.runs = g_array_new(false, false, sizeof(Run));
    w.l2 = block_aligned_try_alloc(4096, q->geo.cluster_bytes);
    if (ret == 0 && !w.l2) {
        ret = -ENOMEM;
    }
    for (i = 0; ret == 0 && i < refs->nr; i++) {
        ret = walk_table(&w, i);
    }
    g_array_unref(w.runs);
    block_aligned_free(w.l2);
    if (ret == 0) {
        return 0;
    }
    if (change == QCOW2_REFS_ADD && i > 1) {
        Qcow2Refs done = *refs;
        g_autoptr(GError) error = NULL;

        done.nr = i - 1;
        if (qcow2_refs_change(q, &done, QCOW2_REFS_DROP, &error) < 0) {
            g_warning("%s; clusters leak", error->message);
        }
    }
    return walk_error(q, refs, ret, errp);
}

/* --- COPIED --------------------------------------------------------------- */

/* Whether COPIED belongs into an entry that names @offset. */
static int coroutine_fn want_copied(Qcow2 *q, int64_t offset, bool clear,
                                    bool *ret)
{
    uint64_t count = 0;
    int err = 0;

    if (!clear) {
        err = qcow2_refcount_get(q, offset >> q->geo.cluster_bits, &count);
    }
    *ret = count == 1;
    return err;
}

static uint64_t with_copied(uint64_t word, bool copied)
{
    return copied ? word | QCOW2_OFLAG_COPIED : word & ~QCOW2_OFLAG_COPIED;
}

/* The entries of the table at @l2; @ret_changed: whether one is another. */
static int coroutine_fn fix_entries(Qcow2 *q, uint8_t *l2, bool clear,
                                    bool *ret_changed)
{
    for (unsigned i = 0; i < 1u << q->geo.l2_bits; i++) {
        uint8_t *p = l2 + i * q->geo.l2_entry_bytes;
        Qcow2L2Entry entry = l2_entry(q, l2, i);
        bool copied = false;
        uint64_t word;
        int ret = 0;

        if (!(entry.word & QCOW2_OFLAG_COMPRESSED) && qcow2_l2_host(entry)) {
            ret = want_copied(q, qcow2_l2_host(entry), clear, &copied);
        }
        if (ret < 0) {
            return ret;
        }
        word = with_copied(entry.word, copied);
        if (word != entry.word) {
            be_put64(p, word);
            *ret_changed = true;
        }
    }
    return 0;
}

static int coroutine_fn fix_table(Qcow2 *q, uint8_t *l2, uint64_t *word,
                                  bool clear)
{
    bool changed = false, copied;
    int64_t table;
    int ret = l2_offset(q, *word, 0, &table);

    if (ret < 0 || table == 0) {
        return ret;
    }
    ret = bdrv_co_pread(qcow2_file(q), table, q->geo.cluster_bytes, l2, 0);
    if (ret == 0) {
        ret = fix_entries(q, l2, clear, &changed);
    }
    if (ret == 0 && changed) {
        ret = qcow2_check_overlap(q, QCOW2_OL_ACTIVE_L2 | QCOW2_OL_INACTIVE_L2,
                                  table, q->geo.cluster_bytes, false);
        if (ret == 0) {
            ret = bdrv_co_pwrite(qcow2_file(q), table, q->geo.cluster_bytes,
                                 l2, 0);
        }
    }
    if (ret == 0) {
        ret = want_copied(q, table, clear, &copied);
    }
    if (ret == 0) {
        *word = with_copied(*word, copied);
    }
    return ret;
}

int coroutine_fn qcow2_refs_set_copied(Qcow2 *q, const Qcow2Refs *refs,
                                       bool clear, GError **errp)
{
    uint8_t *l2 = block_aligned_try_alloc(4096, q->geo.cluster_bytes);
    int ret = l2 ? 0 : -ENOMEM;

    g_assert(co_mutex_is_mine(&q->meta_lock));
    for (size_t i = 0; ret == 0 && i < refs->nr; i++) {
        ret = fix_table(q, l2, &refs->l1[i], clear);
    }
    block_aligned_free(l2);
    if (ret < 0) {
        return block_error_errno(errp, -ret, "Node '%s': could not set which "
                                 "clusters of image '%s' are shared",
                                 bdrv_node_name(q->bs), bdrv_filename(q->bs));
    }
    return 0;
}
