/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory whose size images state.
 *
 * Each table has a limit of its own, in its driver.  But an image has several,
 * a chain has 64 images, and a table that is a hole in a file costs nobody but
 * us: so there is a sum for a node, and one for the process.
 *
 * What a node has within what the operator states for it is its own, and is
 * not in the sum of the process: so nobody else can use it up.
 *
 * A sum is never passed by who may be refused, without a lock: it grows only by
 * a compare-and-swap from the very value that was seen to leave room.  (Where
 * something is stated, while it is refused, the sum of the process may be too
 * small for a moment, by what the node gives back at the same time.)
 *
 * The counters order nothing: no memory is reached through them, so all
 * accesses are relaxed.
 */
#include "block/graph/table-memory.h"

#include <errno.h>

#include "block/graph/graph-int.h"

#define NODE_BYTES_MAX (INT64_C(256) << 20)
#define PROCESS_BYTES_MAX (INT64_C(1) << 30)

/* All accounts.  Tests move the limits. */
static struct {
    _Alignas(64) _Atomic int64_t bytes;
    _Alignas(64) _Atomic int64_t node_max;
    _Atomic int64_t process_max;
} all = { .node_max = NODE_BYTES_MAX, .process_max = PROCESS_BYTES_MAX };

static int64_t get(const _Atomic int64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static void add(_Atomic int64_t *counter, int64_t bytes)
{
    atomic_fetch_add_explicit(counter, bytes, memory_order_relaxed);
}

/* --- limits --------------------------------------------------------------- */

static int64_t sum(int64_t max, int64_t stated)
{
    return stated > INT64_MAX - max ? INT64_MAX : max + stated;
}

/* Of @max, what caches may bring the sum to. */
static int64_t soft(int64_t max, int64_t stated)
{
    return sum(max - max / 4, stated);
}

int64_t table_memory_node_max(const TableAccount *account)
{
    return sum(get(&all.node_max), get(&account->stated));
}

int64_t table_memory_process_max(void)
{
    return get(&all.process_max);
}

/* Of @bytes of a node that states @stated, what is in the sum of all. */
static int64_t shared_part(int64_t bytes, int64_t stated)
{
    return MAX(bytes - stated, 0);
}

/* What that is more with @bytes more than @now. */
static int64_t shared_more(const TableAccount *account, int64_t now,
                           int64_t bytes)
{
    int64_t stated = get(&account->stated);

    return shared_part(now + bytes, stated) - shared_part(now, stated);
}

void table_memory_state(TableAccount *account, int64_t bytes)
{
    int64_t has = get(&account->bytes);
    int64_t before = shared_part(has, get(&account->stated));

    bytes = MAX(bytes, 0);
    atomic_store_explicit(&account->stated, bytes, memory_order_relaxed);
    add(&all.bytes, shared_part(has, bytes) - before);
}

void table_memory_set_max(int64_t node, int64_t process)
{
    atomic_store(&all.node_max, node ? node : NODE_BYTES_MAX);
    atomic_store(&all.process_max, process ? process : PROCESS_BYTES_MAX);
}

int64_t table_memory_of_node(const TableAccount *account)
{
    return get(&account->bytes);
}

int64_t table_memory_of_process(void)
{
    return get(&all.bytes);
}

/* --- taking --------------------------------------------------------------- */

/* Add @bytes to @counter, which had @ret_before, unless that would pass
 * @max. */
static bool grow(_Atomic int64_t *counter, int64_t bytes, int64_t max,
                 int64_t *ret_before)
{
    int64_t now = get(counter);

    do {
        /* Above @max is who could not be refused. */
        if (bytes > max - now) {
            return false;
        }
    } while (!atomic_compare_exchange_weak_explicit(counter, &now, now + bytes,
                                                    memory_order_relaxed,
                                                    memory_order_relaxed));
    *ret_before = now;
    return true;
}

/* Take @bytes off the account; returns what is less in the sum of all. */
static int64_t shrink(TableAccount *account, int64_t bytes)
{
    int64_t had = atomic_fetch_sub_explicit(&account->bytes, bytes,
                                            memory_order_relaxed);

    g_assert(had >= bytes);
    return shared_more(account, had - bytes, bytes);
}

static bool take(TableAccount *account, int64_t bytes, int64_t node_max,
                 int64_t process_max)
{
    int64_t before, more;

    g_assert(bytes >= 0);
    if (bytes == 0) {
        return true;
    }
    if (!grow(&account->bytes, bytes, node_max, &before)) {
        return false;
    }
    more = shared_more(account, before, bytes);
    if (more > 0 && !grow(&all.bytes, more, process_max, &before)) {
        /* Others may have come or gone since. */
        add(&all.bytes, more - shrink(account, bytes));
        return false;
    }
    return true;
}

bool table_memory_take(TableAccount *account, int64_t bytes)
{
    return !account || take(account, bytes, table_memory_node_max(account),
                            table_memory_process_max());
}

bool table_memory_take_soft(TableAccount *account, int64_t bytes)
{
    return !account ||
           take(account, bytes,
                soft(get(&all.node_max), get(&account->stated)),
                soft(get(&all.process_max), 0));
}

void table_memory_take_always(TableAccount *account, int64_t bytes)
{
    g_assert(bytes >= 0);
    if (account) {
        int64_t now = atomic_fetch_add_explicit(&account->bytes, bytes,
                                                memory_order_relaxed);

        add(&all.bytes, shared_more(account, now, bytes));
    }
}

void table_memory_give(TableAccount *account, int64_t bytes)
{
    g_assert(bytes >= 0);
    if (account) {
        add(&all.bytes, -shrink(account, bytes));
    }
}

void table_memory_give_apart(TableAccount *account, int64_t bytes)
{
    g_assert(bytes >= 0 && get(&account->apart) >= bytes);
    add(&account->apart, -bytes);
    add(&all.bytes, -bytes);
}

bool table_memory_is_short(const TableAccount *account)
{
    int64_t bytes, stated;

    if (!account) {
        return false;
    }
    bytes = get(&account->bytes);
    stated = get(&account->stated);
    return bytes > soft(get(&all.node_max), stated) ||
           (bytes > stated && get(&all.bytes) > soft(get(&all.process_max),
                                                     0));
}

/* --- nodes ---------------------------------------------------------------- */

TableAccount *bdrv_table_account(BlockDriverState *bs)
{
    return &bs->tables;
}

static int refused_by_process(BlockDriverState *bs, GError **errp)
{
    return block_error(errp, EFBIG, "Node '%s': with the tables of image '%s' "
                       "those of all images need more than %" G_GINT64_FORMAT
                       " bytes of memory", bs->node_name, bdrv_filename(bs),
                       table_memory_process_max());
}

static int refused(BlockDriverState *bs, int64_t bytes, GError **errp)
{
    int64_t node_max = table_memory_node_max(&bs->tables);

    if (!errp) {
        return -EFBIG; /* names are the main context's */
    }
    if (bytes > node_max - table_memory_of_node(&bs->tables)) {
        return block_error(errp, EFBIG, "Node '%s': the tables of image '%s' "
                           "need more than %" G_GINT64_FORMAT " bytes of "
                           "memory", bs->node_name, bdrv_filename(bs),
                           node_max);
    }
    return refused_by_process(bs, errp);
}

int table_memory_take_apart(BlockDriverState *bs, int64_t bytes, GError **errp)
{
    int64_t before;

    if (!grow(&all.bytes, bytes, table_memory_process_max(), &before)) {
        return refused_by_process(bs, errp);
    }
    add(&bs->tables.apart, bytes);
    return 0;
}

int bdrv_count_table_memory(BlockDriverState *bs, int64_t bytes, GError **errp)
{
    return table_memory_take(&bs->tables, bytes) ? 0
                                                 : refused(bs, bytes, errp);
}

void bdrv_return_table_memory(BlockDriverState *bs, int64_t bytes)
{
    table_memory_give(&bs->tables, bytes);
}

void graph_forget_table_memory(BlockDriverState *bs)
{
    table_memory_give(&bs->tables, table_memory_of_node(&bs->tables));
    table_memory_give_apart(&bs->tables, get(&bs->tables.apart));
    table_memory_state(&bs->tables, 0);
}
