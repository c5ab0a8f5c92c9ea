/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory whose size the image states: counted before it is taken.
 *
 * All that lives as long as the image is open, and all that is large for a
 * moment, is counted for the node: tables, copies of them, snapshots, the map
 * of metadata, what a check knows of clusters.  What is not is bounded by
 * requests under way (buffers of a cluster or of a slice), by the first cluster
 * (header and extensions, 2 MiB), or is the table of one bitmap while that is
 * loaded or stored (8 MiB, and a list of what it names, 32 MiB).
 *
 * Where there is not enough the caches of the node give way.
 */
#include "block/formats/qcow2/qcow2.h"

#include <errno.h>

#include "block/graph/table-memory.h"

bool qcow2_memory_try(Qcow2 *q, int64_t bytes)
{
    return table_memory_take(bdrv_table_account(q->bs), bytes);
}

int qcow2_memory_take(Qcow2 *q, int64_t bytes, GError **errp)
{
    if (qcow2_memory_try(q, bytes)) {
        return 0;
    }
    if (q->reloads) {
        qcow2_memory_take_always(q, bytes);
        return 0;
    }
    if (q->l2_cache && q->refcount_cache &&
        bytes <= table_memory_node_max(bdrv_table_account(q->bs))) {
        qcow2_cache_shrink(q->l2_cache, bytes);
        qcow2_cache_shrink(q->refcount_cache, bytes);
    }
    return bdrv_count_table_memory(q->bs, bytes, errp);
}

void qcow2_memory_take_always(Qcow2 *q, int64_t bytes)
{
    table_memory_take_always(bdrv_table_account(q->bs), bytes);
}

void qcow2_memory_give(Qcow2 *q, int64_t bytes)
{
    table_memory_give(bdrv_table_account(q->bs), bytes);
}

void *qcow2_memory_new(Qcow2 *q, int64_t bytes, GError **errp)
{
    void *memory;

    if (qcow2_memory_take(q, bytes, errp) < 0) {
        return NULL;
    }
    memory = g_try_malloc0(MAX(bytes, 1));
    if (!memory) {
        qcow2_memory_give(q, bytes);
        block_error(errp, ENOMEM, "Node '%s': no memory for a table of %"
                    G_GINT64_FORMAT " bytes", bdrv_node_name(q->bs), bytes);
    }
    return memory;
}

void qcow2_memory_free(Qcow2 *q, void *memory, int64_t bytes)
{
    if (memory) {
        g_free(memory);
        qcow2_memory_give(q, bytes);
    }
}

/* --- L1 tables ------------------------------------------------------------ */

static int64_t l1_bytes(size_t entries)
{
    return sizeof(Qcow2L1) + (int64_t)entries * sizeof(uint64_t);
}

Qcow2L1 *qcow2_l1_new(Qcow2 *q, size_t entries, GError **errp)
{
    Qcow2L1 *l1 = qcow2_memory_new(q, l1_bytes(entries), errp);

    if (l1) {
        l1->nr = entries;
        l1->room = entries;
    }
    return l1;
}

void qcow2_l1_free(Qcow2 *q, Qcow2L1 *l1)
{
    qcow2_memory_free(q, l1, l1 ? l1_bytes(l1->room) : 0);
}

Qcow2L1 *qcow2_l1_reserve(Qcow2 *q, size_t entries, GError **errp)
{
    Qcow2L1 *l1 = atomic_load(&q->l1);

    return l1 && entries <= l1->room ? l1 : qcow2_l1_new(q, entries, errp);
}

void qcow2_l1_set(Qcow2 *q, Qcow2L1 *l1, const uint64_t *entry, size_t nr)
{
    Qcow2L1 *old = atomic_load(&q->l1);

    g_assert(nr <= l1->room);
    for (size_t i = 0; i < l1->room; i++) {
        atomic_store_explicit(&l1->entry[i], i < nr ? entry[i] : 0,
                              memory_order_relaxed);
    }
    l1->nr = nr;
    if (l1 != old) {
        l1->older = old;
        atomic_store(&q->l1, l1);
    }
}

/* --- refcount tables ------------------------------------------------------ */

/* A byte for each entry in Qcow2Reftable.full. */
static int64_t reftable_bytes(size_t entries)
{
    return (int64_t)entries * (sizeof(uint64_t) + 1);
}

int qcow2_reftable_init(Qcow2 *q, Qcow2Reftable *table, int64_t offset,
                        size_t entries, GError **errp)
{
    int ret = qcow2_memory_take(q, reftable_bytes(entries), errp);

    if (ret < 0) {
        *table = (Qcow2Reftable){ 0 };
        return ret;
    }
    *table = (Qcow2Reftable){
        .offset = offset,
        .nr = entries,
        .entry = g_try_new0(uint64_t, MAX(entries, 1)),
        .full = g_try_new0(uint8_t, MAX(entries, 1)),
    };
    if (!table->entry || !table->full) {
        qcow2_reftable_clear(q, table);
        return block_error(errp, ENOMEM, "Node '%s': no memory for %zu "
                           "refcount table entries", bdrv_node_name(q->bs),
                           entries);
    }
    return 0;
}

void qcow2_reftable_clear(Qcow2 *q, Qcow2Reftable *table)
{
    g_free(table->entry);
    g_free(table->full);
    qcow2_memory_give(q, reftable_bytes(table->nr));
    *table = (Qcow2Reftable){ 0 };
}
