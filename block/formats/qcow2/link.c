/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Changes of the L1 table and of L2 tables; all under the meta lock.
 *
 * A table that is not ours alone (no COPIED in its L1 entry) is copied before
 * it is changed.  A new table is on the disk, as zeroes or as the copy, before
 * write-back lets an L1 entry name it (I3).
 */
#include "block/formats/qcow2/qcow2.h"

#include <blockgraph/iov.h>
#include <errno.h>

/* Entries of a table that has grown come in sectors. */
#define L1_UNIT (QCOW2_SIZE_UNIT / sizeof(uint64_t))

_Static_assert(QCOW2_MAX_L1_BYTES % QCOW2_SIZE_UNIT == 0,
               "the largest table has whole sectors");

/* --- L1 ------------------------------------------------------------------- */

/* Set an L1 entry in memory; it goes to the disk with write-back. */
static void set_l1_entry(Qcow2 *q, size_t index, uint64_t value)
{
    Qcow2L1 *l1 = atomic_load_explicit(&q->l1, memory_order_relaxed);
    Qcow2DirtyEntry dirty = { .index = index, .value = value };

    g_assert(co_mutex_is_mine(&q->meta_lock) && index < l1->nr);
    dirty.before = atomic_load_explicit(&l1->entry[index],
                                        memory_order_relaxed);
    g_array_append_val(q->dirty_l1, dirty);
    atomic_store_explicit(&l1->entry[index], value, memory_order_release);
}

/* Whether a table of @entries at @offset lies in the file; then its offset,
 * 0 if it is empty, and its length in entries. */
static bool l1_inside(Qcow2 *q, Untrusted offset, Untrusted entries,
                      int64_t *ret_offset, size_t *ret_nr)
{
    int64_t length = bdrv_length(bdrv_child_bs(qcow2_file(q)));

    if (!untrusted_at_most(entries, QCOW2_MAX_L1_BYTES / 8, ret_nr)) {
        return false;
    }
    *ret_offset = 0;
    return *ret_nr == 0
               ? !untrusted_above(offset, INT64_MAX)
               : untrusted_at_most(offset, length - (int64_t)*ret_nr * 8,
                                   ret_offset);
}

int coroutine_fn qcow2_l1_load(Qcow2 *q, Untrusted offset, Untrusted entries,
                               Qcow2L1 **ret, GError **errp)
{
    GError *error = NULL;
    Qcow2L1 *l1;
    int64_t at = 0;
    size_t nr = 0;
    int code;

    if (!l1_inside(q, offset, entries, &at, &nr)) {
        return block_error(errp, EINVAL, "Node '%s': an L1 table of %"
                           G_GUINT64_FORMAT " entries at 0x%"
                           G_GINT64_MODIFIER "x lies beyond the end of the "
                           "file", bdrv_node_name(q->bs),
                           untrusted_verbatim(entries),
                           untrusted_verbatim(offset));
    }
    code = bdrv_image_step(q->bs, errp);
    if (code < 0) {
        return code;
    }
    l1 = qcow2_l1_new(q, nr, &error);
    if (!l1) {
        return qcow2_pass_error(errp, error);
    }
    code = bdrv_co_pread(qcow2_file(q), at, nr * 8, (void *)l1->entry, 0);
    if (code < 0) {
        qcow2_l1_free(q, l1);
        return block_error_errno(errp, -code, "Node '%s': could not read the "
                                 "L1 table", bdrv_node_name(q->bs));
    }
    for (size_t i = 0; i < nr; i++) {
        uint64_t raw = atomic_load_explicit(&l1->entry[i],
                                            memory_order_relaxed);

        atomic_store_explicit(&l1->entry[i],
                              untrusted_word(untrusted_be64(&raw)),
                              memory_order_relaxed);
    }
    *ret = l1;
    return 0;
}

/* The table as it may be on the disk now: without entries that write-back has
 * not let go there. */
static uint64_t *l1_image(Qcow2 *q, size_t entries, GError **errp)
{
    Qcow2L1 *l1 = atomic_load(&q->l1);
    uint64_t *image = qcow2_memory_new(q, entries * 8, errp);

    for (size_t i = 0; image && i < l1->nr; i++) {
        image[i] = GUINT64_TO_BE(atomic_load(&l1->entry[i]));
    }
    for (guint i = q->dirty_l1->len; image && i-- > 0;) {
        Qcow2DirtyEntry *dirty = &g_array_index(q->dirty_l1, Qcow2DirtyEntry,
                                                i);

        image[dirty->index] = GUINT64_TO_BE(dirty->before);
    }
    return image;
}

/* Write @image to new clusters and make the header name them. */
static int coroutine_fn l1_move(Qcow2 *q, const uint64_t *image,
                                size_t entries)
{
    int64_t bytes = qcow2_cluster_up(&q->geo, (int64_t)entries * 8);
    uint8_t fields[12], before[12];
    Qcow2Run run;
    int ret;

    bdrv_co_debug_event(q->bs, "l1_grow_alloc_table");
    ret = qcow2_alloc_clusters(q, bytes >> q->geo.cluster_bits, true, &run);
    if (ret < 0) {
        return ret;
    }
    ret = qcow2_check_overlap(q, 0, run.offset, bytes, false);
    if (ret == 0) {
        ret = bdrv_co_pwrite_zeroes(qcow2_file(q), run.offset, bytes, 0);
    }
    if (ret == 0) {
        bdrv_co_debug_event(q->bs, "l1_grow_write_table");
        ret = bdrv_co_pwrite(qcow2_file(q), run.offset, (int64_t)entries * 8,
                             image, 0);
    }
    if (ret == 0) {
        ret = qcow2_secure_refcounts(q); /* I1 */
    }
    if (ret < 0) {
        qcow2_unalloc(q, run.offset, bytes);
        return ret;
    }
    be_put32(fields, entries);
    be_put64(fields + 4, run.offset);
    be_put32(before, q->header.l1_size);
    be_put64(before + 4, q->header.l1_offset);
    bdrv_co_debug_event(q->bs, "l1_grow_activate_table");
    ret = qcow2_header_switch(q, QCOW2_H_L1_SIZE, fields, before,
                              sizeof(fields));
    if (ret < 0) {
        qcow2_unalloc(q, run.offset, bytes);
        return ret;
    }
    qcow2_metamap_add(q, QCOW2_OL_ACTIVE_L1, run.offset, bytes);
    if (q->header.l1_size > 0) {
        int64_t old = qcow2_cluster_up(&q->geo, q->header.l1_size * 8ll);

        qcow2_metamap_remove(q, QCOW2_OL_ACTIVE_L1, q->header.l1_offset, old);
        qcow2_free_later(q, q->header.l1_offset, old, QCOW2_DISCARD_OTHER);
    }
    q->header.l1_size = entries;
    q->header.l1_offset = run.offset;
    return 0;
}

/* How many a table has that must grow from @now to @need: each is written, and
 * kept in memory, so there are only few on the way to any size. */
static size_t with_slack(size_t now, size_t need)
{
    need = MIN(MAX(need, now + now / 4), QCOW2_MAX_L1_BYTES / 8);
    return (need + L1_UNIT - 1) / L1_UNIT * L1_UNIT;
}

static int grow_failed(Qcow2 *q, int ret, int64_t entries, GError **errp)
{
    return block_error_errno(errp, -ret, "Node '%s': could not grow the L1 "
                             "table to %" G_GINT64_FORMAT " entries",
                             bdrv_node_name(q->bs), entries);
}

/* Both locks held. */
static int coroutine_fn l1_grow_locked(Qcow2 *q, size_t entries, GError **errp)
{
    Qcow2L1 *old = atomic_load(&q->l1);
    GError *error = NULL;
    uint64_t *image;
    Qcow2L1 *l1;
    int ret;

    if (entries <= old->nr) {
        return 0;
    }
    if (entries > QCOW2_MAX_L1_BYTES / 8) {
        return grow_failed(q, -EFBIG, entries, errp);
    }
    entries = with_slack(old->nr, entries);
    image = l1_image(q, entries, &error);
    l1 = image ? qcow2_l1_new(q, entries, &error) : NULL;
    if (!l1) {
        qcow2_memory_free(q, image, entries * 8);
        return qcow2_pass_error(errp, error);
    }
    for (size_t i = 0; i < old->nr; i++) {
        atomic_init(&l1->entry[i], atomic_load(&old->entry[i]));
    }
    ret = l1_move(q, image, entries);
    qcow2_memory_free(q, image, entries * 8);
    if (ret < 0) {
        qcow2_l1_free(q, l1);
        return grow_failed(q, ret, entries, errp);
    }
    l1->older = old;
    atomic_store(&q->l1, l1);
    return 0;
}

int coroutine_fn qcow2_l1_grow(Qcow2 *q, int64_t entries, GError **errp)
{
    int ret = qcow2_prepare_write(q);

    if (ret == 0) {
        /* Of tables that the refcount table names since, too. */
        ret = qcow2_writeback(q);
    }
    if (ret < 0) {
        return grow_failed(q, ret, entries, errp);
    }
    co_mutex_lock(&q->writeback_lock);
    co_mutex_lock(&q->meta_lock);
    ret = l1_grow_locked(q, entries, errp);
    co_mutex_unlock(&q->meta_lock);
    co_mutex_unlock(&q->writeback_lock);
    return ret;
}

/* --- L2 tables ------------------------------------------------------------ */

/* A cluster for a table of the active L1, empty in every respect. */
static int coroutine_fn alloc_table(Qcow2 *q, int64_t *ret_offset)
{
    Qcow2Run run;
    int ret = qcow2_alloc_clusters(q, 1, true, &run);

    if (ret < 0) {
        return ret;
    }
    ret = qcow2_check_overlap(q, 0, run.offset, run.bytes, false);
    if (ret < 0) {
        return ret; /* the image is corrupt; the cluster leaks */
    }
    /* Slices of a table that was here long ago. */
    qcow2_cache_forget(q->l2_cache, run.offset, run.bytes);
    qcow2_metamap_add(q, QCOW2_OL_ACTIVE_L2, run.offset, run.bytes);
    *ret_offset = run.offset;
    return 0;
}

/* @offset was never named. */
static void coroutine_fn unalloc_table(Qcow2 *q, int64_t offset)
{
    qcow2_cache_forget(q->l2_cache, offset, q->geo.cluster_bytes);
    qcow2_metamap_remove(q, QCOW2_OL_ACTIVE_L2, offset, q->geo.cluster_bytes);
    qcow2_unalloc(q, offset, q->geo.cluster_bytes);
}

static int coroutine_fn copy_table(Qcow2 *q, int64_t from, int64_t to)
{
    int64_t bytes = q->geo.cluster_bytes;
    void *buf = block_aligned_try_alloc(4096, bytes);
    int ret = buf ? 0 : -ENOMEM;

    if (from >= bdrv_length(bdrv_child_bs(qcow2_file(q)))) {
        qcow2_signal_corruption(q, true, from, bytes, "an L2 table lies "
                                "beyond the end of the file");
        ret = -EIO;
    }
    /* Shared tables do not change, so the disk has what the cache has. */
    if (ret == 0) {
        bdrv_co_debug_event(q->bs, "l2_alloc_cow_read");
        ret = bdrv_co_pread(qcow2_file(q), from, bytes, buf, 0);
    }
    if (ret == 0) {
        bdrv_co_debug_event(q->bs, "l2_alloc_write");
        ret = bdrv_co_pwrite(qcow2_file(q), to, bytes, buf, 0);
    }
    block_aligned_free(buf);
    return ret;
}

/* Make the table of L1 entry @index ours: a new one, or a copy of @shared. */
static int coroutine_fn make_table(Qcow2 *q, size_t index, int64_t shared,
                                   int64_t *ret_table)
{
    int64_t table;
    int ret = alloc_table(q, &table);

    if (ret < 0) {
        return ret;
    }
    ret = SIM_FAULT("qcow2.l2.make", bdrv_node_name(q->bs));
    if (ret == 0 && shared) {
        ret = copy_table(q, shared, table);
    } else if (ret == 0) {
        bdrv_co_debug_event(q->bs, "l2_alloc_write");
        ret = bdrv_co_pwrite_zeroes(qcow2_file(q), table,
                                    q->geo.cluster_bytes, 0);
    }
    if (ret < 0) {
        unalloc_table(q, table);
        return ret;
    }
    set_l1_entry(q, index, table | QCOW2_OFLAG_COPIED);
    if (shared) {
        qcow2_metamap_remove(q, QCOW2_OL_ACTIVE_L2, shared,
                             q->geo.cluster_bytes);
        qcow2_free_later(q, shared, q->geo.cluster_bytes,
                         QCOW2_DISCARD_OTHER);
    }
    *ret_table = table;
    return 0;
}

/* The table of L1 entry @index that may be changed; 0 if there is none and
 * @make does not ask for one. */
static int coroutine_fn writable_table(Qcow2 *q, size_t index, bool make,
                                       int64_t *ret_table)
{
    uint64_t entry = qcow2_l1_entry(q, index);
    int64_t table = entry & QCOW2_OFFSET_MASK;

    *ret_table = table;
    if (!table && !make) {
        return 0;
    }
    if ((entry & QCOW2_L1_RESERVED) || qcow2_into_cluster(&q->geo, table)) {
        qcow2_signal_corruption(q, true, table, q->geo.cluster_bytes,
                                "L1 entry %zu is not valid: 0x%"
                                G_GINT64_MODIFIER "x", index, entry);
        return -EIO;
    }
    if (table && (entry & QCOW2_OFLAG_COPIED)) {
        return 0;
    }
    return make_table(q, index, table, ret_table);
}

int coroutine_fn qcow2_l2_get(Qcow2 *q, int64_t offset, bool make,
                              Qcow2L2Ref *ret)
{
    int64_t slice_bytes = qcow2_cache_slice_bytes(q->l2_cache);
    unsigned entry = (offset >> q->geo.cluster_bits) &
                     ((1u << q->geo.l2_bits) - 1);
    int64_t pos = (int64_t)entry * q->geo.l2_entry_bytes;
    int64_t table;
    int code;

    g_assert(co_mutex_is_mine(&q->meta_lock));
    *ret = (Qcow2L2Ref){ .nr = slice_bytes / q->geo.l2_entry_bytes };
    ret->index = entry % ret->nr;
    code = writable_table(q, qcow2_l1_index(q, offset), make, &table);
    if (code < 0 || table == 0) {
        return code;
    }
    return qcow2_cache_get(q->l2_cache, table + pos - pos % slice_bytes,
                           &ret->slice);
}

void qcow2_l2_put(Qcow2 *q, Qcow2L2Ref *ref)
{
    qcow2_cache_put(q->l2_cache, ref->slice);
    ref->slice = NULL;
}

Qcow2L2Entry qcow2_l2_read(Qcow2 *q, const Qcow2L2Ref *ref, unsigned index)
{
    const uint8_t *p = (const uint8_t *)qcow2_slice_data(ref->slice) +
                       (size_t)index * q->geo.l2_entry_bytes;

    g_assert(index < ref->nr);
    return qcow2_l2_from_disk(&q->geo, p);
}

void qcow2_l2_write(Qcow2 *q, const Qcow2L2Ref *ref, unsigned index,
                    Qcow2L2Entry entry)
{
    uint64_t raw[2] = { GUINT64_TO_BE(entry.word),
                        GUINT64_TO_BE(entry.bitmap) };

    g_assert(co_mutex_is_mine(&q->meta_lock) && index < ref->nr);
    qcow2_cache_change(q->l2_cache, ref->slice,
                       (size_t)index * q->geo.l2_entry_bytes, raw,
                       q->geo.l2_entry_bytes);
}

int coroutine_fn qcow2_free_entry(Qcow2 *q, Qcow2L2Entry entry,
                                  Qcow2DiscardType type)
{
    Qcow2Compressed data;

    switch (qcow2_entry_kind(q, entry, 0)) {
    case QCOW2_INVALID:
        return -EIO;
    case QCOW2_COMPRESSED:
        data = qcow2_compressed_decode(&q->geo, entry.word);
        qcow2_free_later(q, data.host_offset, data.bytes, type);
        return 0;
    default:
        /* Without a host cluster of its own subcluster 0 may still share. */
        if (q->has_data_file) {
            if (entry.word & QCOW2_OFLAG_COPIED) {
                qcow2_discard_data(q, qcow2_l2_host(entry),
                                   q->geo.cluster_bytes, type);
            }
        } else if (qcow2_l2_host(entry)) {
            qcow2_free_later(q, qcow2_l2_host(entry), q->geo.cluster_bytes,
                             type);
        }
        return 0;
    }
}

int coroutine_fn qcow2_link_compressed(Qcow2 *q, int64_t offset, uint64_t word)
{
    Qcow2L2Ref ref;
    Qcow2L2Entry old;
    int ret;

    bdrv_co_debug_event(q->bs, "l2_update_compressed");
    ret = qcow2_meta_lock_range(q, offset, q->geo.cluster_bytes);
    if (ret < 0) {
        return ret;
    }
    ret = qcow2_l2_get(q, offset, true, &ref);
    if (ret == 0) {
        old = qcow2_l2_read(q, &ref, ref.index);
        /* First what may fail: after that the caller must not undo. */
        ret = qcow2_free_entry(q, old, QCOW2_DISCARD_OTHER);
        if (ret == 0) {
            qcow2_l2_write(q, &ref, ref.index, (Qcow2L2Entry){ .word = word });
        }
        qcow2_l2_put(q, &ref);
    }
    qcow2_meta_unlock(q);
    return ret;
}

/* --- allocations under way ------------------------------------------------ */

void qcow2_alloc_begin(Qcow2 *q, Qcow2Alloc *alloc, int64_t offset,
                       int64_t bytes)
{
    g_assert(co_mutex_is_mine(&q->meta_lock));
    g_assert(!interval_tree_first_overlap(&q->allocs, offset,
                                          offset + bytes - 1)); /* I5 */
    interval_node_init(&alloc->node, offset, bytes);
    co_queue_init(&alloc->waiters);
    interval_tree_insert(&q->allocs, &alloc->node);
}

void qcow2_alloc_end(Qcow2 *q, Qcow2Alloc *alloc)
{
    g_assert(co_mutex_is_mine(&q->meta_lock));
    interval_tree_remove(&q->allocs, &alloc->node);
    co_queue_restart_all(&alloc->waiters);
}

int coroutine_fn qcow2_meta_lock_range(Qcow2 *q, int64_t offset, int64_t bytes)
{
    for (;;) {
        IntervalNode *node;
        int ret = qcow2_meta_lock(q);

        if (ret < 0) {
            return ret;
        }
        node = interval_tree_first_overlap(&q->allocs, offset,
                                           offset + bytes - 1);
        if (!node || SIM_PLANTED(24)) {
            return 0;
        }
        SIM_WAITS("an allocation of the same cluster", q);
        co_queue_wait(&LIST_ENTRY(node, Qcow2Alloc, node)->waiters,
                      &q->meta_lock);
        /* Others may have used up the room in the cache. */
        qcow2_meta_unlock(q);
    }
}
