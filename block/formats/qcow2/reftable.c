/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The refcount table, and refcount blocks that are made.
 *
 * A new block lies in the first cluster that lacks one, so it counts itself:
 *
 *   clusters   ... used | block | free free free ...
 *   counts of the block     1      0    0    0
 *
 * It goes to the disk at once, with its own count in it.  So wherever the disk
 * names a block its count is there, too (I1), and a table may name it as soon
 * as the file has been flushed (I3).  When the table is too small, a larger one
 * comes behind the blocks that count it:
 *
 *   ... used | block .. block | table .. table | free ...
 *
 * and all of that is on the disk before the header names it, and that is on the
 * disk before the old table is given up.  A write-back under way may still
 * write entries to the old one: the new one has them.
 */
#include "block/formats/qcow2/refcount.h"

#include <blockgraph/iov.h>
#include <errno.h>

/* What is to be made; numbers of clusters. */
typedef struct Growth {
    int64_t first;     /* where it begins: blocks, then the table */
    int64_t blocks;    /* for refcount table entries from that of @first on */
    int64_t table;     /* 0: the table is large enough */
    int64_t end;       /* of all, with what the caller wants */
} Growth;

#define TABLE_MEM_ALIGN 4096

/* --- open ----------------------------------------------------------------- */

/* Nothing was ever written from the returned offset on. */
static int64_t coroutine_fn file_end(Qcow2 *q, GError **errp)
{
    BlockDriverState *file = bdrv_child_bs(qcow2_file(q));
    int64_t length = bdrv_co_getlength(file);

    if (length < 0) {
        return block_error_errno(errp, -length, "Node '%s': could not get the "
                                 "length of '%s'", bdrv_node_name(q->bs),
                                 bdrv_filename(file));
    }
    if (length > BDRV_MAX_LENGTH - q->geo.cluster_bytes) {
        return block_error(errp, EFBIG, "Node '%s': '%s' is too long",
                           bdrv_node_name(q->bs), bdrv_filename(file));
    }
    return qcow2_cluster_up(&q->geo, length);
}

static int coroutine_fn read_table(Qcow2 *q, Qcow2Reftable *table,
                                   GError **errp)
{
    int ret;

    bdrv_co_debug_event(q->bs, "reftable_load");
    ret = bdrv_co_pread(qcow2_file(q), table->offset,
                        table->nr * sizeof(*table->entry), table->entry, 0);
    if (ret < 0) {
        return block_error_errno(errp, -ret, "Node '%s': could not read the "
                                 "refcount table at offset %" G_GINT64_FORMAT,
                                 bdrv_node_name(q->bs), table->offset);
    }
    for (size_t i = 0; i < table->nr; i++) {
        table->entry[i] = untrusted_word(untrusted_be64(&table->entry[i]));
    }
    return 0;
}

static void set_table(Qcow2 *q, const Qcow2Reftable *table, int64_t end)
{
    qcow2_refcount_close(q);
    q->reftable = *table;
    q->fresh_from = end;
    q->free_hint = 0;
    q->compressed_next = 0;
}

int coroutine_fn qcow2_refcount_open(Qcow2 *q, GError **errp)
{
    int64_t offset = q->header.reftable_offset;
    int64_t bytes = (int64_t)q->header.reftable_clusters
                    << q->geo.cluster_bits;
    int64_t end = file_end(q, errp);
    Qcow2Reftable table = { .offset = offset };
    int ret;

    if (end < 0) {
        return end;
    }
    /* So no more memory than the file is long. */
    if (bytes > QCOW2_MAX_REFTABLE_BYTES || offset < 0 || bytes > end ||
        offset > end - bytes) {
        if (q->read_only || q->options.for_repair) {
            /* Reading and repairing need none. */
            set_table(q, &table, end);
            return 0;
        }
        return block_error(errp, EINVAL, "Node '%s': the refcount table (%"
                           G_GINT64_FORMAT " bytes at offset %" G_GINT64_FORMAT
                           ") is too large or lies beyond the end of the file",
                           bdrv_node_name(q->bs), bytes, offset);
    }
    ret = qcow2_reftable_init(q, &table, offset, bytes / 8, errp);
    if (ret < 0) {
        return ret;
    }
    ret = read_table(q, &table, errp);
    if (ret < 0) {
        qcow2_reftable_clear(q, &table);
        return ret;
    }
    set_table(q, &table, end);
    return 0;
}

void qcow2_refcount_close(Qcow2 *q)
{
    qcow2_reftable_clear(q, &q->reftable);
}

/* --- looking -------------------------------------------------------------- */

int coroutine_fn qcow2_refblock_find(Qcow2 *q, int64_t index,
                                     int64_t *ret_offset)
{
    uint64_t entry = 0;

    g_assert(co_mutex_is_mine(&q->meta_lock));
    if ((uint64_t)index < q->reftable.nr) {
        entry = q->reftable.entry[index];
    }
    if (!qcow2_reftable_entry_valid(&q->geo, entry, q->fresh_from)) {
        qcow2_signal_corruption(q, true, q->reftable.offset + index * 8, 8,
                                "entry %" G_GINT64_FORMAT " of the refcount "
                                "table is invalid: 0x%" G_GINT64_MODIFIER "x",
                                index, entry);
        return -EIO;
    }
    *ret_offset = entry;
    return 0;
}

/* --- planning ------------------------------------------------------------- */

/* Entries of a table that has room for @need and for more; 0: too many. */
static int64_t table_entries(const Qcow2 *q, int64_t need)
{
    int64_t unit = q->geo.cluster_bytes / 8;
    int64_t most = QCOW2_MAX_REFTABLE_BYTES / 8;
    int64_t entries = need + need / 2;

    if (need > most) {
        return 0;
    }
    entries = (entries + unit - 1) / unit * unit;
    return MIN(entries, most);
}

/* Whether one of the blocks that @g would make, but the first, is there. */
static bool hits_block(const Qcow2 *q, const Growth *g)
{
    int64_t index = qcow2_refblock_index(q, g->first);
    int64_t end = MIN(index + g->blocks, (int64_t)q->reftable.nr);

    while (++index < end) {
        if (q->reftable.entry[index]) {
            return true;
        }
    }
    return false;
}

/* What must be made to have @want free clusters behind @first. */
static int plan(const Qcow2 *q, int64_t first, int64_t want, Growth *g)
{
    int64_t before;

    *g = (Growth){ .first = first, .blocks = 1 };
    do {
        int64_t last, need;

        before = g->blocks + g->table;
        last = first + before + want - 1;
        if (last >= qcow2_max_clusters(q)) {
            return -EFBIG;
        }
        need = qcow2_refblock_index(q, last) + 1;
        g->blocks = need - qcow2_refblock_index(q, first);
        if (need > (int64_t)q->reftable.nr) {
            int64_t entries = table_entries(q, need);

            if (entries == 0) {
                return -EFBIG;
            }
            g->table = entries * 8 >> q->geo.cluster_bits;
        }
        g->end = last + 1;
    } while (g->blocks + g->table > before);
    return 0;
}

/* --- making --------------------------------------------------------------- */

/* The counts of the new clusters that block number @i of @g holds. */
static void fill_block(const Qcow2 *q, const Growth *g, int64_t i, void *buf)
{
    int64_t counts = INT64_C(1) << q->geo.refblock_bits;
    int64_t base = (qcow2_refblock_index(q, g->first) + i) * counts;
    int64_t from = MAX(g->first, base);
    int64_t end = MIN(g->first + g->blocks + g->table, base + counts);

    memset(buf, 0, q->geo.cluster_bytes);
    for (int64_t c = from; c < end; c++) {
        qcow2_refcount_put(buf, q->geo.refcount_order, c - base, 1);
    }
}

static int coroutine_fn write_blocks(Qcow2 *q, const Growth *g)
{
    void *buf = block_aligned_try_alloc(TABLE_MEM_ALIGN, q->geo.cluster_bytes);
    const char *event = g->table > 0 ? "refblock_alloc_write_blocks"
                                     : "refblock_alloc_write";
    int ret = buf ? 0 : -ENOMEM;

    for (int64_t i = 0; ret == 0 && i < g->blocks; i++) {
        fill_block(q, g, i, buf);
        bdrv_co_debug_event(q->bs, event);
        ret = bdrv_co_pwrite(qcow2_file(q),
                             (g->first + i) << q->geo.cluster_bits,
                             q->geo.cluster_bytes, buf, 0);
    }
    block_aligned_free(buf);
    return ret;
}

/* Whose write fails for it sees only the error's number.  Once a node: he may
 * write again. */
static void tell_refusal(Qcow2 *q, int ret, int64_t entries)
{
    if (ret == -EFBIG && !q->refusal_told) {
        q->refusal_told = true;
        g_warning("Node '%s': image '%s' cannot grow: a refcount table of %"
                  G_GINT64_FORMAT " entries is more memory than the node, or "
                  "all together, may have for tables",
                  bdrv_node_name(q->bs), bdrv_filename(q->bs), entries);
    }
}

/* The new table in memory: the old one and the new blocks. */
static int table_init(Qcow2 *q, const Growth *g, Qcow2Reftable *table)
{
    int64_t index = qcow2_refblock_index(q, g->first);
    int ret = qcow2_reftable_init(q, table, (g->first + g->blocks)
                                                << q->geo.cluster_bits,
                                  (g->table << q->geo.cluster_bits) / 8, NULL);

    if (ret < 0) {
        tell_refusal(q, ret, (g->table << q->geo.cluster_bits) / 8);
        return ret;
    }
    memcpy(table->entry, q->reftable.entry, q->reftable.nr * 8);
    memcpy(table->full, q->reftable.full, q->reftable.nr);
    for (int64_t i = 0; i < g->blocks; i++) {
        table->entry[index + i] = (g->first + i) << q->geo.cluster_bits;
    }
    return 0;
}

static int coroutine_fn write_table(Qcow2 *q, const Qcow2Reftable *table)
{
    size_t bytes = table->nr * 8;
    int ret = qcow2_memory_take(q, bytes, NULL);
    uint64_t *buf;

    if (ret < 0) {
        tell_refusal(q, ret, table->nr);
        return ret;
    }
    buf = block_aligned_try_alloc(TABLE_MEM_ALIGN, bytes);
    if (!buf) {
        qcow2_memory_give(q, bytes);
        return -ENOMEM;
    }
    for (size_t i = 0; i < table->nr; i++) {
        buf[i] = GUINT64_TO_BE(table->entry[i]);
    }
    bdrv_co_debug_event(q->bs, "refblock_alloc_write_table");
    ret = bdrv_co_pwrite(qcow2_file(q), table->offset, bytes, buf, 0);
    block_aligned_free(buf);
    qcow2_memory_give(q, bytes);
    if (ret == 0) {
        ret = bdrv_co_flush(bdrv_child_bs(qcow2_file(q)));
    }
    return ret;
}

/* What the header says of a table of @clusters clusters at @offset. */
static void put_place(uint8_t *fields, int64_t offset, uint32_t clusters)
{
    be_put64(fields, offset);
    be_put32(fields + 8, clusters);
}

int coroutine_fn qcow2_reftable_switch(Qcow2 *q, int64_t offset,
                                       uint32_t clusters)
{
    Qcow2Header *h = &q->header;
    uint8_t fields[12], before[12];
    int ret;

    put_place(fields, offset, clusters);
    put_place(before, h->reftable_offset, h->reftable_clusters);
    ret = qcow2_header_switch(q, QCOW2_H_REFTABLE_OFFSET, fields, before,
                              sizeof(fields));
    if (ret == 0) {
        h->reftable_offset = offset;
        h->reftable_clusters = clusters;
    }
    return ret;
}

/* On the disk: the blocks, the table that names them, the header. */
static int coroutine_fn make_table(Qcow2 *q, const Growth *g)
{
    Qcow2Reftable old = q->reftable;
    Qcow2Reftable table;
    int ret = table_init(q, g, &table);

    if (ret == 0) {
        ret = write_table(q, &table);
    }
    if (ret == 0) {
        bdrv_co_debug_event(q->bs, "refblock_alloc_switch_table");
        ret = qcow2_reftable_switch(q, table.offset, g->table);
    }
    if (ret < 0) {
        qcow2_reftable_clear(q, &table);
        return ret;
    }
    q->reftable = table;
    qcow2_metamap_remove(q, QCOW2_OL_REFCOUNT_TABLE, old.offset, old.nr * 8);
    qcow2_metamap_add(q, QCOW2_OL_REFCOUNT_TABLE, q->reftable.offset,
                      q->reftable.nr * 8);
    qcow2_free_later(q, old.offset, old.nr * 8, QCOW2_DISCARD_OTHER);
    qcow2_reftable_clear(q, &old);
    return 0;
}

/* The table has room: write-back writes the entries. */
static void enter_blocks(Qcow2 *q, const Growth *g)
{
    int64_t index = qcow2_refblock_index(q, g->first);

    for (int64_t i = 0; i < g->blocks; i++) {
        Qcow2DirtyEntry dirty = {
            .index = index + i,
            .value = (g->first + i) << q->geo.cluster_bits,
        };

        g_assert(q->reftable.entry[dirty.index] == 0);
        q->reftable.entry[dirty.index] = dirty.value;
        g_array_append_val(q->dirty_reftable, dirty);
    }
}

int coroutine_fn qcow2_refblock_make(Qcow2 *q, int64_t cluster, int64_t want)
{
    unsigned bits = q->geo.cluster_bits;
    int64_t at;
    unsigned kinds;
    Growth g;
    int ret = plan(q, cluster, want, &g);

    g_assert(co_mutex_is_mine(&q->meta_lock));
    if (ret == 0 && hits_block(q, &g)) {
        ret = plan(q, cluster, 0, &g); /* only the one for now */
    }
    if (ret < 0) {
        return ret;
    }
    kinds = qcow2_metamap_find(q, ~0u, g.first << bits,
                               (g.blocks + g.table) << bits, &at);
    if (kinds) {
        qcow2_signal_corruption(q, true, at, q->geo.cluster_bytes,
                                "a cluster of the %s has no refcount",
                                qcow2_overlap_name(kinds));
        return -EIO;
    }
    q->fresh_from = MAX(q->fresh_from, (g.first + g.blocks + g.table) << bits);
    qcow2_cache_forget(q->refcount_cache, g.first << bits, g.blocks << bits);
    ret = SIM_FAULT("qcow2.refblock.make", bdrv_node_name(q->bs));
    if (ret == 0) {
        bdrv_co_debug_event(q->bs, "refblock_alloc");
        if (g.table > 0) {
            bdrv_co_debug_event(q->bs, "reftable_grow");
        }
        ret = write_blocks(q, &g);
    }
    if (ret == 0 && g.table > 0) {
        ret = make_table(q, &g);
    } else if (ret == 0) {
        enter_blocks(q, &g);
    }
    if (ret == 0) {
        qcow2_metamap_add(q, QCOW2_OL_REFCOUNT_BLOCK, g.first << bits,
                          g.blocks << bits);
    }
    return ret;
}
