/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Refcounts of another width.
 *
 * A second set of refcount blocks and a table for them are written beside the
 * present ones, complete and durable, before the header names them; only then
 * the old set is given up.  A crash leaves one set or the other in force, and
 * the clusters of the other leaked at worst.
 *
 * The new set counts itself.  So it is allocated in the old one first, which
 * may need more new blocks than were counted before: count again until what
 * is allocated is enough.
 */
#include "block/formats/qcow2/image.h"

#include <errno.h>

#define ATTEMPTS_MAX 8

typedef struct Change {
    Qcow2 *q;
    Qcow2Geometry geo;    /* with the new width */
    uint8_t *needed;      /* by index of a new block */
    int64_t nr_indices;
    int64_t nr_needed;
    int64_t table_clusters;
    Qcow2Run run;         /* for table and blocks; bytes 0: none yet */
    Qcow2Reftable table;  /* the new one in memory */
    GError **errp;
} Change;

static int failed(const Change *c, int ret, const char *what)
{
    return block_error_errno(c->errp, -ret, "Node '%s': could not %s image "
                             "'%s' with refcounts of %u bits",
                             bdrv_node_name(c->q->bs), what,
                             bdrv_filename(c->q->bs),
                             1u << c->geo.refcount_order);
}

/* --- counting ------------------------------------------------------------- */

static int coroutine_fn count_block(Change *c, int64_t first, int64_t nr)
{
    Qcow2 *q = c->q;

    for (int64_t i = first; i < first + nr; i++) {
        int64_t index = i >> c->geo.refblock_bits;
        uint64_t value;
        int ret = qcow2_refcount_get(q, i, &value);

        if (ret < 0) {
            return failed(c, ret, "read the refcounts of");
        }
        if (value > c->geo.refcount_max) {
            return block_error(c->errp, ERANGE, "Node '%s': cluster %"
                               G_GINT64_FORMAT " of image '%s' is referenced %"
                               G_GUINT64_FORMAT " times, which does not fit in "
                               "%u bits", bdrv_node_name(q->bs), i,
                               bdrv_filename(q->bs), value,
                               1u << c->geo.refcount_order);
        }
        if (value > 0 && !c->needed[index]) {
            c->needed[index] = 1;
            c->nr_needed++;
        }
    }
    return 0;
}

static void forget_needed(Change *c)
{
    qcow2_memory_free(c->q, c->needed, c->nr_indices);
    c->needed = NULL;
}

/* Which blocks the new set has, and how large its table is. */
static int coroutine_fn count_needed(Change *c)
{
    Qcow2 *q = c->q;
    int64_t per_old = INT64_C(1) << q->geo.refblock_bits;
    int64_t clusters = (int64_t)q->reftable.nr << q->geo.refblock_bits;
    int64_t last = -1;
    GError *error = NULL;
    int ret = 0;

    forget_needed(c);
    c->nr_needed = 0;
    c->nr_indices = (clusters >> c->geo.refblock_bits) + 1;
    c->needed = qcow2_memory_new(q, c->nr_indices, &error);
    if (!c->needed) {
        return qcow2_pass_error(c->errp, error);
    }
    for (size_t i = 0; ret == 0 && i < q->reftable.nr; i++) {
        if (q->reftable.entry[i]) {
            ret = count_block(c, i * per_old, per_old);
        }
    }
    for (int64_t i = 0; i < c->nr_indices; i++) {
        last = c->needed[i] ? i : last;
    }
    c->table_clusters = qcow2_cluster_up(&q->geo, (last + 1) * 8) >>
                        q->geo.cluster_bits;
    if (ret == 0 && c->table_clusters << q->geo.cluster_bits >
                        QCOW2_MAX_REFTABLE_BYTES) {
        ret = failed(c, -EFBIG, "provide");
    }
    return ret;
}

static int coroutine_fn allocate(Change *c)
{
    Qcow2 *q = c->q;

    for (int i = 0; i < ATTEMPTS_MAX; i++) {
        int64_t need;
        int ret = count_needed(c);

        if (ret < 0) {
            return ret;
        }
        need = c->nr_needed + c->table_clusters;
        if (need <= c->run.bytes >> q->geo.cluster_bits) {
            return 0;
        }
        if (c->run.bytes > 0) {
            qcow2_unalloc(q, c->run.offset, c->run.bytes);
            c->run.bytes = 0;
        }
        /* One more: where they come to lie may need a block, too. */
        ret = qcow2_alloc_clusters(q, need + 1, true, &c->run);
        if (ret < 0) {
            c->run.bytes = 0;
            return failed(c, ret, "make room for");
        }
    }
    return failed(c, -ENOSPC, "make room for");
}

/* --- writing -------------------------------------------------------------- */

static int coroutine_fn write_block(Change *c, int64_t index, int64_t offset)
{
    Qcow2 *q = c->q;
    int64_t nr = INT64_C(1) << c->geo.refblock_bits;
    int64_t counted = (int64_t)q->reftable.nr << q->geo.refblock_bits;
    g_autofree uint8_t *buf = g_try_malloc0(q->geo.cluster_bytes);
    int ret = buf ? 0 : -ENOMEM;

    for (int64_t i = 0; ret == 0 && i < nr && index * nr + i < counted; i++) {
        uint64_t value;

        ret = qcow2_refcount_get(q, index * nr + i, &value);
        if (ret == 0 && value > c->geo.refcount_max) {
            ret = -EIO;         /* somebody else changes the file */
        }
        if (ret == 0) {
            qcow2_refcount_put(buf, c->geo.refcount_order, i, value);
        }
    }
    return ret < 0 ? ret
                   : bdrv_co_pwrite(qcow2_file(q), offset,
                                    q->geo.cluster_bytes, buf, 0);
}

/* The table first in the run, then the blocks. */
static int coroutine_fn write_set(Change *c)
{
    Qcow2 *q = c->q;
    int64_t cluster = q->geo.cluster_bytes;
    int64_t table_bytes = c->table_clusters * cluster;
    int64_t offset = c->run.offset + table_bytes;
    GError *error = NULL;
    uint8_t *table;
    int ret = qcow2_reftable_init(q, &c->table, c->run.offset,
                                  table_bytes / 8, c->errp);

    if (ret < 0) {
        return ret;
    }
    table = qcow2_memory_new(q, table_bytes, &error);
    if (!table) {
        return qcow2_pass_error(c->errp, error);
    }
    ret = qcow2_check_overlap(q, 0, c->run.offset, c->run.bytes, false);
    for (int64_t i = 0; ret == 0 && i < c->nr_indices; i++) {
        if (c->needed[i]) {
            c->table.entry[i] = offset;
            be_put64(table + i * 8, offset);
            ret = write_block(c, i, offset);
            offset += cluster;
        }
    }
    if (ret == 0) {
        ret = bdrv_co_pwrite(qcow2_file(q), c->run.offset, table_bytes, table,
                             0);
    }
    if (ret == 0) {
        ret = bdrv_co_flush(bdrv_child_bs(qcow2_file(q)));
    }
    qcow2_memory_free(q, table, table_bytes);
    return ret < 0 ? failed(c, ret, "write") : 0;
}

/* --- the switch ----------------------------------------------------------- */

static int coroutine_fn write_new_header(Change *c)
{
    Qcow2Header next = c->q->header;

    next.refcount_order = c->geo.refcount_order;
    next.reftable_offset = c->run.offset;
    next.reftable_clusters = c->table_clusters;
    return qcow2_header_replace(c->q, &next, c->errp);
}

static void coroutine_fn rebuild_metamap(Change *c)
{
    g_autoptr(GError) error = NULL;

    if (qcow2_metamap_build(c->q, &error) < 0) {
        g_warning("%s", error->message);
    }
}

/* The disk has the new set: so has memory from now on.  Nothing fails here: it
 * could neither be undone nor be left like that. */
static void coroutine_fn switch_sets(Change *c)
{
    Qcow2 *q = c->q;
    Qcow2Reftable old = q->reftable;
    int64_t cluster = q->geo.cluster_bytes;
    int64_t used = c->nr_needed + c->table_clusters;

    g_array_set_size(q->dirty_reftable, 0);
    qcow2_cache_reset(q->refcount_cache);
    q->geo = c->geo;
    q->reftable = c->table;
    c->table = (Qcow2Reftable){ 0 };
    q->free_hint = 0;
    q->compressed_next = 0;
    rebuild_metamap(c);
    for (size_t i = 0; i < old.nr; i++) {
        int64_t block = old.entry[i] & QCOW2_OFFSET_MASK;

        if (block) {
            qcow2_free_later(q, block, cluster, QCOW2_DISCARD_OTHER);
        }
    }
    qcow2_free_later(q, old.offset, old.nr * 8, QCOW2_DISCARD_OTHER);
    if (used * cluster < c->run.bytes) {
        qcow2_free_later(q, c->run.offset + used * cluster,
                         c->run.bytes - used * cluster, QCOW2_DISCARD_OTHER);
    }
    qcow2_reftable_clear(q, &old);
}

static int coroutine_fn change_locked(Change *c)
{
    int ret = allocate(c);

    if (ret == 0) {
        ret = write_set(c);
    }
    if (ret == 0) {
        ret = write_new_header(c);
    }
    if (ret < 0 && c->run.bytes > 0) {
        qcow2_unalloc(c->q, c->run.offset, c->run.bytes);
    }
    if (ret == 0) {
        switch_sets(c);
    }
    return ret;
}

int coroutine_fn qcow2_change_refcount_order(Qcow2 *q, unsigned order,
                                             GError **errp)
{
    Change c = { .q = q, .geo = q->geo, .errp = errp };
    int ret = qcow2_writeback_full(q);

    if (ret < 0) {
        return failed(&c, ret, "write back");
    }
    qcow2_geometry_init(&c.geo, q->geo.cluster_bits, order,
                        q->geo.extended_l2);
    c.geo.external_data = q->geo.external_data;
    co_mutex_lock(&q->writeback_lock);
    co_mutex_lock(&q->meta_lock);
    ret = change_locked(&c);
    co_mutex_unlock(&q->meta_lock);
    co_mutex_unlock(&q->writeback_lock);
    forget_needed(&c);
    qcow2_reftable_clear(q, &c.table);
    if (ret < 0) {
        return ret;
    }
    ret = qcow2_writeback_full(q);
    return ret < 0 ? failed(&c, ret, "write back") : 0;
}
