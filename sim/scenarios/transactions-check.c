/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What must be true after a transaction: all of it was done, or nothing.
 */
#include "sim/scenarios/transactions.h"

#include <blockgraph/driver.h>
#include <blockgraph/image.h>
#include <blockgraph/sim-fault.h>
#include <string.h>

/* --- bitmaps -------------------------------------------------------------- */

/* What is there in place of bitmap @i, or NULL; its node may have left the
 * chain. */
static BdrvDirtyBitmap *find_bitmap(const TxnTask *t, const TxnBitmap *b,
                                    int i)
{
    BlockDriverState *bs = b->layer < 0 ? NULL
        : bdrv_find_node(bgsim_graph(t->s->sim), t->s->layers[b->layer].name);
    char name[8];

    return bs ? bdrv_find_dirty_bitmap(bs, txn_bitmap_name(t, i, name)) : NULL;
}

static bool node_is_there(const TxnTask *t, int layer)
{
    return layer >= 0 && bdrv_find_node(bgsim_graph(t->s->sim),
                                        t->s->layers[layer].name);
}

static void get_bits(BdrvDirtyBitmap *bitmap, bool *ret)
{
    for (int64_t i = 0; i < TXN_SECTORS; i++) {
        ret[i] = bdrv_dirty_bitmap_get(bitmap, i * TXN_SECTOR);
    }
}

/* Bitmap @i is what @b says; with @exact, to the bit. */
static void check_bitmap(TxnTask *t, const TxnBitmap *b, int i, bool exact)
{
    BdrvDirtyBitmap *bitmap = find_bitmap(t, b, i);
    BgSim *sim = t->s->sim;
    bool must[TXN_SECTORS], bits[TXN_SECTORS];
    char name[8];

    txn_bitmap_name(t, i, name);
    if (!bitmap || bdrv_dirty_bitmap_enabled(bitmap) != b->enabled ||
        bdrv_dirty_bitmap_busy(bitmap)) {
        bgsim_violation(sim, "bitmap", "'%s' is %s", name,
                        !bitmap ? "gone"
                        : bdrv_dirty_bitmap_busy(bitmap) ? "busy"
                        : b->enabled ? "disabled" : "enabled");
        return;
    }
    WITH_WORLD(t->s) {
        memcpy(must, b->must, sizeof(must));
    }
    get_bits(bitmap, bits);
    for (int64_t s = 0; s < TXN_SECTORS; s++) {
        if ((must[s] && !bits[s]) || (exact && bits[s] != b->bits[s])) {
            bgsim_violation(sim, "bitmap", "'%s' at %d is %d", name,
                            (int)s * TXN_SECTOR, bits[s]);
        }
    }
}

/* Those that @want has are there, and no other. */
void txn_check_bitmaps(TxnTask *t, const TxnBitmap *want, bool exact)
{
    for (int i = 0; i < TXN_BITMAPS; i++) {
        const TxnBitmap *other = want == t->want ? &t->bitmaps[i]
                                                 : &t->want[i];

        if (node_is_there(t, want[i].layer)) {
            check_bitmap(t, &want[i], i, exact);
        }
        if (other->layer != want[i].layer && find_bitmap(t, other, i)) {
            bgsim_violation(t->s->sim, "bitmap", "bitmap %d of node '%s' is "
                            "there", i, t->s->layers[other->layer].name);
        }
    }
}

/* Nodes that have been closed took theirs with them. */
void txn_forget_bitmaps(TxnTask *t)
{
    for (int i = 0; i < TXN_BITMAPS; i++) {
        bool there = node_is_there(t, t->bitmaps[i].layer);

        WITH_WORLD(t->s) {
            t->bitmaps[i].layer = there ? t->bitmaps[i].layer : -1;
        }
    }
}

/* Nothing runs: note the bits. */
void txn_note_bits(TxnTask *t)
{
    for (int i = 0; i < TXN_BITMAPS; i++) {
        BdrvDirtyBitmap *bitmap = find_bitmap(t, &t->bitmaps[i], i);

        if (bitmap) {
            get_bits(bitmap, t->bitmaps[i].bits);
        }
    }
}

/* The transaction was done: what @t wants is so. */
static void take_bitmaps(TxnTask *t)
{
    WITH_WORLD(t->s) {
        memcpy(t->bitmaps, t->want, sizeof(t->bitmaps));
        t->s->clock++;
        for (int i = 0; i < TXN_BITMAPS; i++) {
            if (t->bitmaps[i].since == TXN_NEVER) {
                t->bitmaps[i].since = t->s->clock;
            }
        }
    }
}

/* --- all of it ------------------------------------------------------------ */

/* How often a change of permissions was refused.  When that happens to one
 * that takes a snapshot back, the overlay stays. */
static uint64_t refusals(void)
{
    BgSimSiteInfo info = { .name = "" };

    for (unsigned i = 0; i < bgsim_nr_sites(); i++) {
        bgsim_get_site(i, &info);
        if (g_str_equal(info.name, "graph.perm")) {
            return info.failed;
        }
    }
    return 0;
}

static void peek_targets(const TxnTask *t, TxnBefore *before)
{
    for (int d = 0; d < TXN_DISKS; d++) {
        bgsim_disk_peek(t->target_disks[d], 0, TXN_DISK_BYTES,
                        before->targets[d]);
    }
}

TxnBefore *txn_look(TxnTask *t, unsigned activity, bool quiet)
{
    TxnBefore *before = g_new0(TxnBefore, 1);
    TxnWorld *s = t->s;

    before->refusals = refusals();
    before->alone = txn_is_alone(s, activity);
    /* Guests, and snapshots inside images, change the lengths of files. */
    before->dump = before->alone && quiet && t->nr_inside == 0
                       ? bgsim_graph_dump(s->sim) : NULL;
    for (int d = 0; d < TXN_DISKS; d++) {
        before->top[d] = txn_top(s, d);
    }
    peek_targets(t, before);
    return before;
}

static void check_graph_undone(TxnTask *t, const TxnBefore *before)
{
    g_autofree char *dump = NULL;
    BgSim *sim = t->s->sim;

    for (int d = 0; d < TXN_DISKS; d++) {
        if (t->overlays[d] && bdrv_cow_child(t->overlays[d])) {
            bgsim_violation(sim, "transaction", "node '%s' has a backing node",
                            bdrv_node_name(t->overlays[d]));
        }
        if (before->alone && txn_top(t->s, d) != before->top[d]) {
            bgsim_violation(sim, "transaction", "guests of disk %d write to "
                            "another node", d);
        }
    }
    dump = before->dump ? bgsim_graph_dump(sim) : NULL;
    if (g_strcmp0(dump, before->dump) != 0) {
        bgsim_violation(sim, "transaction", "the graph has changed from %s to "
                        "%s", before->dump, dump);
    }
}

static void check_undone(TxnTask *t, const TxnBefore *before, bool quiet)
{
    g_autofree TxnBefore *after = g_new0(TxnBefore, 1);
    BgSim *sim = t->s->sim;

    for (int d = 0; d < TXN_DISKS; d++) {
        char id[8];

        if (block_job_find(bgsim_graph(sim), txn_job_id(t, d, id))) {
            bgsim_violation(sim, "transaction", "job '%s' is there", id);
        }
    }
    peek_targets(t, after);
    if (!t->s->given_up &&
        memcmp(before->targets, after->targets, sizeof(after->targets)) != 0) {
        bgsim_violation(sim, "transaction", "a target was written");
    }
    if (before->refusals == refusals()) {
        check_graph_undone(t, before);
    }
    txn_check_bitmaps(t, t->bitmaps, quiet);
}

static void check_done(TxnTask *t, const TxnBefore *before, bool quiet)
{
    TxnWorld *s = t->s;

    for (int d = 0; d < TXN_DISKS; d++) {
        char id[8];

        if (t->backed_up[d] &&
            !block_job_find(bgsim_graph(s->sim), txn_job_id(t, d, id))) {
            bgsim_violation(s->sim, "transaction", "job '%s' is not there",
                            id);
        }
        if (before->alone && txn_top(s, d) != t->top[d]) {
            bgsim_violation(s->sim, "transaction", "guests of disk %d write "
                            "to node '%s', not '%s'", d,
                            s->layers[txn_top(s, d)].name,
                            s->layers[t->top[d]].name);
        }
    }
    txn_check_bitmaps(t, t->want, quiet);
}

void txn_check(TxnTask *t, TxnBefore *before, bool quiet,
               const GError *error)
{
    TxnWorld *s = t->s;

    if (!error && t->fails) {
        bgsim_violation(s->sim, "transaction", "an action did not fail");
    }
    if (error && before->alone && !t->fails && !t->may_fail && !s->faults) {
        bgsim_violation(s->sim, "transaction", "%s", error->message);
    }
    if (error) {
        check_undone(t, before, quiet);
    } else {
        check_done(t, before, quiet);
        take_bitmaps(t);
    }
    g_free(before->dump);
    g_free(before);
}


/* --- snapshots inside images ---------------------------------------------- */

static bool has_name(const GPtrArray *list, const char *name)
{
    for (guint i = 0; i < list->len; i++) {
        const BdrvSnapshotInfo *info = g_ptr_array_index(list, i);

        if (g_str_equal(info->name, name)) {
            return true;
        }
    }
    return false;
}

static void coroutine_fn check_inside(TxnTask *t, int i, bool done)
{
    BlockDriverState *bs = bdrv_find_node(
        bgsim_graph(t->s->sim), t->s->layers[t->inside[i]].name);
    GPtrArray *list = NULL;
    char name[16];

    if (!bs) {
        return;
    }
    bdrv_ref(bs);
    txn_inside_name(t, i, name);
    if (bdrv_co_snapshot_list(bs, &list, NULL) == 0) {
        if (has_name(list, name) != done) {
            bgsim_violation(t->s->sim, "transaction", "snapshot '%s' of node "
                            "'%s' is %sthere", name, bdrv_node_name(bs),
                            done ? "not " : "");
        }
        g_ptr_array_unref(list);
    }
    bdrv_co_unref(bs);
}

/* An error may keep one from being deleted again. */
void coroutine_fn txn_check_inside(TxnTask *t, bool done)
{
    for (int i = 0; i < t->nr_inside && (done || !t->s->faults); i++) {
        check_inside(t, i, done);
    }
}
