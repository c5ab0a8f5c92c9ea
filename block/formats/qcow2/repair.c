/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Refcounts built anew, for images whose refcount table or blocks are of no
 * use; images that were not closed properly; loading what was repaired.
 *
 * The new structure lies behind the end of the file, where nothing of the
 * image can be:
 *
 *   ... the file ... | block .. block | table |
 *
 * It is on the disk before the header names it; until then the image is what
 * it was.
 */
#include "block/formats/qcow2/check.h"

#include <blockgraph/iov.h>
#include <errno.h>

/* The new structure; numbers of clusters. */
typedef struct Rebuild {
    Qcow2Check *c;
    GArray *index;     /* int64_t: refcount table entries with a block */
    int64_t first;     /* where it begins */
    int64_t table;     /* clusters of the table */
    int64_t end;
} Rebuild;

/* --- planning ------------------------------------------------------------- */

static int take_ref(Qcow2Check *c, int64_t cluster)
{
    uint64_t refs = qcow2_refmap_get(c->refs, cluster);

    g_assert(refs > 0);
    return qcow2_refmap_set(c->refs, cluster, refs - 1);
}

/* Nothing refers to the old structure any more. */
static int forget_old(Qcow2Check *c)
{
    const Qcow2Reftable *table = &c->q->reftable;
    unsigned bits = c->q->geo.cluster_bits;
    int64_t first = table->offset >> bits;
    int ret = 0;

    for (int64_t i = 0; ret == 0 && i < (int64_t)(table->nr * 8 >> bits); i++) {
        ret = take_ref(c, first + i);
    }
    for (size_t i = 0; ret == 0 && i < table->nr; i++) {
        if (qcow2_check_block_counted(c, table->entry[i])) {
            ret = take_ref(c, table->entry[i] >> bits);
        }
    }
    return ret;
}

static int add_index(Rebuild *r, int64_t index)
{
    /* The array grows by doubling. */
    int ret = qcow2_check_take(r->c, 2 * sizeof(index));

    if (ret == 0) {
        g_array_append_val(r->index, index);
    }
    return ret;
}

/* Blocks for what is in use in the file. */
static int find_blocks(Rebuild *r)
{
    Qcow2Check *c = r->c;
    int64_t cluster = 0;
    int ret = 0;

    while (ret == 0 && (cluster = qcow2_refmap_next(c->refs, cluster)) >= 0) {
        if (qcow2_refmap_get(c->refs, cluster) > 0) {
            int64_t index = qcow2_refblock_index(c->q, cluster);

            ret = add_index(r, index);
            cluster = (index + 1) << c->q->geo.refblock_bits;
        } else {
            cluster++;
        }
    }
    return ret;
}

/* Blocks for the new structure itself, which is larger with each of them. */
static int plan(Rebuild *r)
{
    const Qcow2 *q = r->c->q;

    for (;;) {
        int64_t end = r->first + r->index->len + r->table;
        int64_t need = qcow2_refblock_index(q, end - 1);
        int64_t last = g_array_index(r->index, int64_t, r->index->len - 1);

        if (end > qcow2_max_clusters(q) ||
            (need + 1) * 8 > QCOW2_MAX_REFTABLE_BYTES) {
            return -EFBIG;
        }
        if (last < need) {
            int64_t next = MAX(last + 1, qcow2_refblock_index(q, r->first));
            int ret = add_index(r, next);

            if (ret < 0) {
                return ret;
            }
            continue;
        }
        if (r->table == qcow2_cluster_up(&q->geo, (last + 1) * 8) >>
                            q->geo.cluster_bits) {
            r->end = end;
            return 0;
        }
        r->table = qcow2_cluster_up(&q->geo, (last + 1) * 8) >>
                   q->geo.cluster_bits;
    }
}

/* --- writing -------------------------------------------------------------- */

static int fill_block(Rebuild *r, int64_t index, uint8_t *buf)
{
    const Qcow2Geometry *geo = &r->c->q->geo;
    int64_t base = index << geo->refblock_bits;
    int64_t end = base + (INT64_C(1) << geo->refblock_bits);
    int64_t cluster = base;

    memset(buf, 0, geo->cluster_bytes);
    while ((cluster = qcow2_refmap_next(r->c->refs, cluster)) >= 0 &&
           cluster < end) {
        uint64_t refs = qcow2_refmap_get(r->c->refs, cluster);

        if (refs > geo->refcount_max) {
            return -ERANGE;
        }
        qcow2_refcount_put(buf, geo->refcount_order, cluster - base, refs);
        cluster++;
    }
    for (cluster = MAX(base, r->first); cluster < MIN(end, r->end);
         cluster++) {
        qcow2_refcount_put(buf, geo->refcount_order, cluster - base, 1);
    }
    return 0;
}

static int coroutine_fn write_blocks(Rebuild *r)
{
    Qcow2 *q = r->c->q;
    int ret = 0;

    for (guint i = 0; ret == 0 && i < r->index->len; i++) {
        ret = fill_block(r, g_array_index(r->index, int64_t, i), r->c->table);
        if (ret == 0) {
            ret = bdrv_co_pwrite(qcow2_file(q),
                                 (r->first + i) << q->geo.cluster_bits,
                                 q->geo.cluster_bytes, r->c->table, 0);
        }
    }
    return ret;
}

static int coroutine_fn write_table(Rebuild *r)
{
    Qcow2 *q = r->c->q;
    int64_t bytes = r->table << q->geo.cluster_bits;
    int64_t offset = (r->first + r->index->len) << q->geo.cluster_bits;
    int ret = qcow2_check_take(r->c, bytes);
    uint64_t *buf;

    if (ret < 0) {
        return ret;
    }
    buf = block_aligned_try_alloc(4096, bytes);
    if (!buf) {
        return -ENOMEM;
    }
    memset(buf, 0, bytes);
    for (guint i = 0; i < r->index->len; i++) {
        int64_t index = g_array_index(r->index, int64_t, i);

        buf[index] = GUINT64_TO_BE((r->first + i) << q->geo.cluster_bits);
    }
    ret = bdrv_co_pwrite(qcow2_file(q), offset, bytes, buf, 0);
    block_aligned_free(buf);
    if (ret == 0) {
        ret = bdrv_co_flush(bdrv_child_bs(qcow2_file(q)));
    }
    return ret;
}

int coroutine_fn qcow2_rebuild_refcounts(Qcow2Check *c)
{
    Rebuild r = { .c = c, .first = c->end, .table = 1 };
    Qcow2 *q = c->q;
    int ret = forget_old(c);

    g_assert(co_mutex_is_mine(&q->meta_lock));
    r.index = g_array_new(false, false, sizeof(int64_t));
    if (ret == 0) {
        ret = find_blocks(&r);
    }
    if (ret == 0) {
        g_assert(r.index->len > 0); /* the header is in use */
        ret = plan(&r);
    }
    SIM_POINT("qcow2.repair.rebuild", bdrv_node_name(q->bs));
    if (ret == 0) {
        ret = write_blocks(&r);
    }
    if (ret == 0) {
        ret = write_table(&r);
    }
    if (ret == 0) {
        ret = qcow2_reftable_switch(
            q, (r.first + r.index->len) << q->geo.cluster_bits, r.table);
    }
    g_array_unref(r.index);
    return ret;
}

/* --- afterwards ----------------------------------------------------------- */

static int coroutine_fn reload_l1(Qcow2 *q, GError **errp)
{
    Qcow2L1 *old = atomic_load(&q->l1);
    Qcow2L1 *l1;
    int ret = qcow2_l1_load(q, untrusted(q->header.l1_offset),
                            untrusted(q->header.l1_size), &l1, errp);

    if (ret == 0 && l1->nr <= old->room) {
        qcow2_l1_set(q, old, (const void *)l1->entry, l1->nr);
        qcow2_l1_free(q, l1);
    } else if (ret == 0) {
        l1->older = old;
        atomic_store(&q->l1, l1);
    }
    return ret;
}

int coroutine_fn qcow2_reload(Qcow2 *q, GError **errp)
{
    int ret;

    g_assert(!q->snapshot_view);
    q->reloads = q->is_open;
    qcow2_cache_reset(q->l2_cache);
    qcow2_cache_reset(q->refcount_cache);
    g_array_set_size(q->dirty_l1, 0);
    g_array_set_size(q->dirty_reftable, 0);
    qcow2_pending_drop(q);
    ret = qcow2_refcount_open(q, errp);
    if (ret == 0) {
        ret = qcow2_snapshots_read(q, errp);
    }
    if (ret == 0) {
        ret = reload_l1(q, errp);
    }
    if (ret == 0) {
        ret = qcow2_metamap_build(q, errp);
    }
    if (ret < 0) {
        atomic_store(&q->corrupt, true); /* memory and file may differ */
    }
    q->reloads = false;
    return ret;
}

int coroutine_fn qcow2_repair_dirty(Qcow2 *q, GError **errp)
{
    BdrvCheck how = { .flags = BDRV_CHECK_FIX_LEAKS | BDRV_CHECK_FIX_ERRORS };
    BdrvCheckResult res;
    int ret;

    co_mutex_lock(&q->writeback_lock);
    co_mutex_lock(&q->meta_lock);
    ret = qcow2_check_locked(q, &how, &res, errp);
    co_mutex_unlock(&q->meta_lock);
    co_mutex_unlock(&q->writeback_lock);
    if (ret < 0) {
        return ret;
    }
    if (res.corruptions || res.check_errors ||
        (q->header.incompatible & QCOW2_INCOMPAT_DIRTY)) {
        return block_error(errp, EIO, "Node '%s': image '%s' was not closed "
                           "properly and could not be repaired (%"
                           G_GINT64_FORMAT " errors are left, %"
                           G_GINT64_FORMAT " parts could not be read); check "
                           "it", bdrv_node_name(q->bs), bdrv_filename(q->bs),
                           res.corruptions, res.check_errors);
    }
    return 0;
}
