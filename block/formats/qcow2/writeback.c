/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Write-back: metadata reach the disk in an order that survives a crash.
 *
 * At one moment T0, under the meta lock, everything that is dirty is frozen:
 * slices, entries of the L1 and the refcount table, clusters given up.  Then,
 * without that lock, so that requests go on:
 *
 *   1  refcounts                                    more than there are
 *   -- flush, if the refcount table has changed --  references: I1
 *   2  entries of the refcount table                name blocks of step 1: I3
 *   -- flush of file and data file --               data and refcounts: I1, I2
 *   3  L2 slices, entries of the L1 table           name what is durable
 *   -- flush --
 *
 * An L1 entry needs no flush of its own: a new L2 table was written before T0,
 * empty or as a copy, so step 2 made it durable like data (I3); whether the
 * changes of step 3 are in it does not matter.
 *
 * What was given up before T0 is named by no table on the disk now, and its
 * refcounts may fall: the next write-back brings that to the disk (I1).
 *
 * If a step fails the rest stays dirty, and the clusters stay given up: the
 * next write-back does all of it again.
 *
 * With lazy refcounts step 1 and 2 are left to close; the image is marked
 * dirty, so that who opens it after a crash counts anew.
 */
#include "block/formats/qcow2/qcow2.h"

#include <errno.h>

/* What belongs to one write-back. */
typedef struct Writeback {
    GArray *l1;           /* Qcow2DirtyEntry */
    GArray *reftable;
    int64_t l1_offset;    /* of the tables at T0 */
    int64_t reftable_offset;
    ListHead pending;     /* Qcow2Pending */
    bool refcounts;
    bool refcount_slices; /* there are some to write */
    bool l2_slices;
} Writeback;

/* --- the caches' way to the file ------------------------------------------ */

/* A table lies inside the file; its last cluster may be cut by the end. */
static int coroutine_fn read_table(Qcow2 *q, int64_t offset, void *buf,
                                   int64_t bytes, const char *what)
{
    BdrvChild *file = qcow2_file(q);

    if (offset >= bdrv_length(bdrv_child_bs(file))) {
        qcow2_signal_corruption(q, false, offset, bytes,
                                "a piece of an %s lies beyond the end of the "
                                "file", what);
        return -EIO;
    }
    return bdrv_co_pread(file, offset, bytes, buf, 0);
}

static int coroutine_fn write_table(Qcow2 *q, unsigned kind, int64_t offset,
                                    const void *buf, int64_t bytes)
{
    int ret = qcow2_check_overlap(q, kind, offset, bytes, false);

    if (ret == 0 && atomic_load(&q->corrupt)) {
        ret = -EIO; /* what is in memory may not be what the disk has */
    }
    return ret < 0 ? ret
                   : bdrv_co_pwrite(qcow2_file(q), offset, bytes, buf, 0);
}

static int coroutine_fn l2_read(void *opaque, int64_t offset, void *buf,
                                int64_t bytes)
{
    Qcow2 *q = opaque;
    int ret = SIM_FAULT("qcow2.l2.read", bdrv_node_name(q->bs));

    bdrv_co_debug_event(q->bs, "l2_load");
    return ret < 0 ? ret : read_table(q, offset, buf, bytes, "L2 table");
}

static int coroutine_fn l2_write(void *opaque, int64_t offset, const void *buf,
                                 int64_t bytes)
{
    Qcow2 *q = opaque;
    int ret = SIM_FAULT("qcow2.l2.write", bdrv_node_name(q->bs));

    bdrv_co_debug_event(q->bs, "l2_update");
    return ret < 0 ? ret
                   : write_table(q, QCOW2_OL_ACTIVE_L2, offset, buf, bytes);
}

static int coroutine_fn refcount_read(void *opaque, int64_t offset, void *buf,
                                      int64_t bytes)
{
    Qcow2 *q = opaque;
    int ret = SIM_FAULT("qcow2.refcount.read", bdrv_node_name(q->bs));

    bdrv_co_debug_event(q->bs, "refblock_load");
    return ret < 0 ? ret
                   : read_table(q, offset, buf, bytes, "refcount block");
}

static int coroutine_fn refcount_write(void *opaque, int64_t offset,
                                       const void *buf, int64_t bytes)
{
    Qcow2 *q = opaque;
    int ret = SIM_FAULT("qcow2.refcount.write", bdrv_node_name(q->bs));

    bdrv_co_debug_event(q->bs, "refblock_update_part");
    return ret < 0 ? ret
                   : write_table(q, QCOW2_OL_REFCOUNT_BLOCK, offset, buf,
                                 bytes);
}

/* All L2 slices are dirty.  Who holds the meta lock has made sure of room and
 * only waits for readers. */
static int coroutine_fn l2_make_room(void *opaque)
{
    Qcow2 *q = opaque;

    if (co_mutex_is_mine(&q->meta_lock) ||
        co_mutex_is_mine(&q->writeback_lock)) {
        return -EAGAIN;
    }
    return qcow2_writeback(q);
}

static size_t nr_slices(int64_t bytes, int64_t slice_bytes)
{
    return CLAMP(bytes / slice_bytes, QCOW2_CACHE_MIN_SLICES,
                 QCOW2_CACHE_MAX_SLICES);
}

static Qcow2CacheConfig l2_config(Qcow2 *q)
{
    const Qcow2Options *o = &q->options;

    return (Qcow2CacheConfig){
        .slice_bytes = o->l2_slice_bytes,
        .nr_slices = nr_slices(o->l2_cache_bytes, o->l2_slice_bytes),
        .ordered = true,
        .account = bdrv_table_account(q->bs),
        .opaque = q,
        .read = l2_read,
        .write = l2_write,
        .make_room = l2_make_room,
    };
}

static Qcow2CacheConfig refcount_config(Qcow2 *q)
{
    int64_t slice_bytes = MIN(q->geo.cluster_bytes, 4096);

    return (Qcow2CacheConfig){
        .slice_bytes = slice_bytes,
        .nr_slices = nr_slices(q->options.refcount_cache_bytes, slice_bytes),
        .account = bdrv_table_account(q->bs),
        .opaque = q,
        .read = refcount_read,
        .write = refcount_write,
    };
}

void qcow2_caches_state(Qcow2 *q)
{
    Qcow2CacheConfig l2 = l2_config(q);
    Qcow2CacheConfig refcounts = refcount_config(q);
    int64_t bytes = 0;

    if (q->options.l2_cache_stated) {
        bytes += qcow2_cache_full_bytes(&l2);
    }
    if (q->options.refcount_cache_stated) {
        bytes += qcow2_cache_full_bytes(&refcounts);
    }
    table_memory_state(bdrv_table_account(q->bs), bytes);
}

int qcow2_caches_init(Qcow2 *q, GError **errp)
{
    Qcow2CacheConfig config = l2_config(q);

    q->l2_cache = qcow2_cache_new(&config);
    config = refcount_config(q);
    q->refcount_cache = qcow2_cache_new(&config);
    if (!q->l2_cache || !q->refcount_cache) {
        g_clear_pointer(&q->l2_cache, qcow2_cache_free);
        g_clear_pointer(&q->refcount_cache, qcow2_cache_free);
        return block_error(errp, ENOMEM, "Node '%s': no memory for the "
                           "metadata caches", bdrv_node_name(q->bs));
    }
    return 0;
}

/* --- T0 ------------------------------------------------------------------- */

/* Meta lock held. */
static void freeze(Qcow2 *q, Writeback *wb, bool full)
{
    wb->refcounts = full || !qcow2_is_dirty(q);
    wb->l2_slices = qcow2_cache_nr_dirty(q->l2_cache) > 0;
    wb->refcount_slices = wb->refcounts &&
                          qcow2_cache_nr_dirty(q->refcount_cache) > 0;
    qcow2_cache_freeze(q->l2_cache);
    wb->l1 = g_steal_pointer(&q->dirty_l1);
    q->dirty_l1 = g_array_new(false, false, sizeof(Qcow2DirtyEntry));
    if (wb->refcounts) {
        qcow2_cache_freeze(q->refcount_cache);
        wb->reftable = g_steal_pointer(&q->dirty_reftable);
        q->dirty_reftable = g_array_new(false, false,
                                        sizeof(Qcow2DirtyEntry));
    } else {
        wb->reftable = g_array_new(false, false, sizeof(Qcow2DirtyEntry));
    }
    wb->l1_offset = q->header.l1_offset;
    wb->reftable_offset = q->reftable.offset;
    list_init(&wb->pending);
    qcow2_pending_take(q, &wb->pending);
    qcow2_epoch_advance(q);
}

static bool nothing_to_do(const Writeback *wb)
{
    return !wb->l2_slices && !wb->refcount_slices && wb->l1->len == 0 &&
           wb->reftable->len == 0 && list_empty(&wb->pending);
}

/* The entries of a failed write-back come before those made since. */
static void put_back(GArray *now, GArray *old)
{
    g_array_prepend_vals(now, old->data, old->len);
}

/* Meta lock held. */
static void finish(Qcow2 *q, Writeback *wb, int ret)
{
    qcow2_pending_put(q, &wb->pending, ret == 0);
    if (ret < 0) {
        qcow2_cache_thaw(q->l2_cache);
        if (wb->refcounts) {
            qcow2_cache_thaw(q->refcount_cache);
        }
        put_back(q->dirty_l1, wb->l1);
        put_back(q->dirty_reftable, wb->reftable);
    }
    g_array_unref(wb->l1);
    g_array_unref(wb->reftable);
}

/* --- the steps ------------------------------------------------------------ */

/* All that is ever entered in the refcount table are new blocks. */
static void coroutine_fn tell_of_entries(Qcow2 *q, unsigned kind)
{
    if (kind == QCOW2_OL_ACTIVE_L1) {
        bdrv_co_debug_event(q->bs, "l1_update");
    } else {
        bdrv_co_debug_event(q->bs, "refblock_alloc_hookup");
        bdrv_co_debug_event(q->bs, "reftable_update");
    }
}

/* Write @entries into the table at @offset, neighbours in one request. */
static int coroutine_fn write_entries(Qcow2 *q, unsigned kind, int64_t offset,
                                      GArray *entries)
{
    uint64_t run[64];
    guint i = 0;

    while (i < entries->len) {
        Qcow2DirtyEntry *first = &g_array_index(entries, Qcow2DirtyEntry, i);
        unsigned n = 0;
        int ret;

        while (n < G_N_ELEMENTS(run) && i + n < entries->len &&
               first[n].index == first->index + n) {
            run[n] = GUINT64_TO_BE(first[n].value);
            n++;
        }
        tell_of_entries(q, kind);
        ret = write_table(q, kind, offset + (int64_t)first->index * 8, run,
                          n * 8);
        if (ret < 0) {
            return ret;
        }
        i += n;
    }
    return 0;
}

static int coroutine_fn flush_file(Qcow2 *q)
{
    return bdrv_co_flush(bdrv_child_bs(qcow2_file(q)));
}

static int coroutine_fn flush_all(Qcow2 *q)
{
    int ret = flush_file(q);

    if (ret == 0 && q->has_data_file) {
        ret = bdrv_co_flush(bdrv_child_bs(q->data_file));
    }
    return ret;
}

int coroutine_fn qcow2_secure_refcounts(Qcow2 *q)
{
    int ret;

    g_assert(co_mutex_is_mine(&q->writeback_lock));
    g_assert(co_mutex_is_mine(&q->meta_lock));
    if (atomic_load(&q->corrupt)) {
        return -EIO;
    }
    qcow2_cache_freeze(q->refcount_cache);
    ret = qcow2_cache_write_frozen(q->refcount_cache);
    if (ret == 0) {
        ret = flush_file(q);
    }
    if (ret == 0 && q->dirty_reftable->len > 0) {
        ret = write_entries(q, QCOW2_OL_REFCOUNT_TABLE, q->reftable.offset,
                            q->dirty_reftable);
        if (ret == 0) {
            g_array_set_size(q->dirty_reftable, 0);
            ret = flush_file(q);
        }
    }
    return ret;
}

static int coroutine_fn write_refcounts(Qcow2 *q, Writeback *wb)
{
    int ret;

    if (!wb->refcounts) {
        return 0;
    }
    ret = qcow2_cache_write_frozen(q->refcount_cache);
    if (ret == 0 && wb->reftable->len > 0) {
        ret = flush_file(q);
        if (ret == 0) {
            ret = write_entries(q, QCOW2_OL_REFCOUNT_TABLE,
                                wb->reftable_offset, wb->reftable);
        }
    }
    return ret;
}

static int coroutine_fn write_mappings(Qcow2 *q, Writeback *wb)
{
    int ret = SIM_PLANTED(19) ? 0 : flush_all(q);

    if (ret == 0) {
        ret = qcow2_cache_write_frozen(q->l2_cache);
    }
    if (ret == 0) {
        ret = write_entries(q, QCOW2_OL_ACTIVE_L1, wb->l1_offset, wb->l1);
    }
    return ret;
}

/* Writeback lock held. */
static int coroutine_fn writeback_locked(Qcow2 *q, bool full)
{
    Writeback wb;
    int ret = 0;

    co_mutex_lock(&q->meta_lock);
    freeze(q, &wb, full);
    co_mutex_unlock(&q->meta_lock);
    if (!nothing_to_do(&wb)) {
        ret = atomic_load(&q->corrupt) ? -EIO : write_refcounts(q, &wb);
        if (ret == 0 && (wb.l2_slices || wb.l1->len > 0)) {
            ret = write_mappings(q, &wb);
        }
    }
    if (ret == 0) {
        ret = flush_all(q); /* costs nothing where nothing was written */
    }
    co_mutex_lock(&q->meta_lock);
    finish(q, &wb, ret);
    co_mutex_unlock(&q->meta_lock);
    return ret;
}

int coroutine_fn qcow2_writeback(Qcow2 *q)
{
    int ret;

    co_mutex_lock(&q->writeback_lock);
    ret = writeback_locked(q, false);
    co_mutex_unlock(&q->writeback_lock);
    if (ret == 0) {
        qcow2_pending_release(q);
    }
    return ret;
}

int coroutine_fn qcow2_writeback_full(Qcow2 *q)
{
    int ret = 0;

    /* What is released in the first round is written in the second. */
    for (int round = 0; ret == 0 && round < 2; round++) {
        co_mutex_lock(&q->writeback_lock);
        ret = writeback_locked(q, true);
        co_mutex_unlock(&q->writeback_lock);
        if (ret == 0) {
            qcow2_pending_release(q);
        }
    }
    return ret;
}

int qcow2_writeback_failed(Qcow2 *q, int ret, GError **errp)
{
    return block_error_errno(errp, -ret, "Node '%s': could not write back the "
                             "metadata of image '%s'", bdrv_node_name(q->bs),
                             bdrv_filename(q->bs));
}

int coroutine_fn qcow2_flush(BlockDriverState *bs)
{
    Qcow2 *q = qcow2_of(bs);

    return q->read_only ? 0 : qcow2_writeback(q);
}

/* --- the meta lock -------------------------------------------------------- */

int coroutine_fn qcow2_meta_lock(Qcow2 *q)
{
    bool tried = false;
    int ret = qcow2_prepare_write(q);

    while (ret == 0) {
        bool room;

        co_mutex_lock(&q->meta_lock);
        room = qcow2_cache_has_room(q->l2_cache, QCOW2_META_SLICES);
        /* Requests may keep clusters from being released: no second try. */
        if (room && (tried || !qcow2_pending_wants_writeback(q))) {
            return 0;
        }
        co_mutex_unlock(&q->meta_lock);
        tried = true;
        ret = qcow2_writeback(q);
    }
    return ret;
}

void coroutine_fn qcow2_meta_unlock(Qcow2 *q)
{
    co_mutex_unlock(&q->meta_lock);
}
