/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The actions of a transaction, drawn, and what they are to lead to.
 */
#include "sim/scenarios/qcow2-image.h"
#include "sim/scenarios/transactions.h"

#include <stdarg.h>
#include <string.h>

static void add_action(TxnTask *t, BlockActionType type, const char *format,
                       ...) G_GNUC_PRINTF(3, 4);

static void add_action(TxnTask *t, BlockActionType type, const char *format,
                       ...)
{
    g_autofree char *text = NULL;
    BlockOptions *options;
    va_list ap;

    va_start(ap, format);
    text = g_strdup_vprintf(format, ap);
    va_end(ap);
    g_assert(t->nr < TXN_ACTIONS);
    options = scenario_options("x%s%s", *text ? "," : "", text);
    block_options_remove(options, "driver");
    t->actions[t->nr++] = (BlockAction){ .type = type, .options = options };
}

static const char *layer_name(const TxnTask *t, int layer)
{
    return t->s->layers[layer].name;
}

static int draw_disk(const TxnTask *t)
{
    return bgsim_draw(t->s->sim, "txn.disk", TXN_DISKS);
}

/* --- jobs and snapshots --------------------------------------------------- */

/* The backup is of the same moment on either side of a new overlay. */
static void plan_backup(TxnTask *t, int d)
{
    BgSim *sim = t->s->sim;
    char id[8];
    int layer = t->top[d];

    if (t->backed_up[d]) {
        return;
    }
    if (t->overlays[d] && bgsim_chance(sim, "backup.below", 300)) {
        layer = txn_top(t->s, d);
    }
    t->backed_up[d] = true;
    t->source[d] = layer;
    add_action(t, BLOCK_ACTION_BACKUP,
               "job-id=%s,device=%s,target=%s,sync=full,auto-dismiss=off,"
               "auto-finalize=%s,on-source-error=%s,on-target-error=%s,"
               "max-workers=%d,speed=%s", txn_job_id(t, d, id),
               layer_name(t, layer), bdrv_node_name(t->targets[d]),
               bgsim_chance(sim, "job.finalize", 800) ? "on" : "off",
               scenario_policy(sim), scenario_policy(sim),
               1 + (int)bgsim_draw(sim, "job.workers", 4),
               bgsim_chance(sim, "job.slow", 200) ? "1M" : "0");
}

/* An empty image for an overlay of that length, open; or NULL. */
static BlockDriverState *coroutine_fn make_overlay(TxnTask *t, int64_t length)
{
    TxnWorld *s = t->s;
    TxnLayer *layer = &s->layers[s->nr_layers];
    const SimQcow2 how = {
        .version = 3, .refcount_order = 4, .size = length,
        .cluster_bits = bgsim_draw(s->sim, "image.cluster", 2) ? 9 : 12,
    };
    const BgSimDiskConfig config = {
        .size = length, .empty = true, .grows = true,
        .no_zero_write = bgsim_chance(s->sim, "disk.no-zero", 300),
        .discard = bgsim_draw(s->sim, "disk.discard", 4),
        .slow_permille = bgsim_draw(s->sim, "disk.slow", 2),
    };

    if (s->nr_layers == (int)G_N_ELEMENTS(s->layers)) {
        return NULL;
    }
    g_snprintf(layer->name, sizeof(layer->name), "o%d", s->nr_layers++);
    layer->disk = bgsim_disk_new(s->sim, layer->name, &config);
    sim_qcow2_make(layer->disk, &how);
    return bdrv_co_open(bgsim_graph(s->sim), scenario_options(
        "qcow2,node-name=%s,discard=unmap,file.driver=sim-disk,file.disk=%s",
        layer->name, layer->name), NULL);
}

static void coroutine_fn plan_snapshot(TxnTask *t, int d, int64_t length)
{
    if (t->overlays[d]) {
        return;
    }
    t->overlays[d] = make_overlay(t, length);
    if (!t->overlays[d]) {
        return;
    }
    add_action(t, BLOCK_ACTION_SNAPSHOT, "node=%s,overlay=%s",
               layer_name(t, t->top[d]), bdrv_node_name(t->overlays[d]));
    /* The filter of the backup is above the node, and held. */
    t->may_fail = t->may_fail || t->backed_up[d];
    t->top[d] = txn_layer_of(t->s, t->overlays[d]);
}

/* Only overlays are of a format that has them. */
static void plan_inside(TxnTask *t, int d)
{
    int i = t->nr_inside;
    char name[16];

    if (t->top[d] < TXN_DISKS || i == TXN_INSIDE) {
        return;
    }
    t->inside[i] = t->top[d];
    t->nr_inside++;
    add_action(t, BLOCK_ACTION_SNAPSHOT_INTERNAL, "device=%s,name=%s",
               layer_name(t, t->top[d]), txn_inside_name(t, i, name));
}

/* --- bitmaps -------------------------------------------------------------- */

void txn_add_bits(bool *to, int64_t grain, const bool *from)
{
    for (int64_t i = 0; i < TXN_SECTORS; i++) {
        if (from[i]) {
            memset(to + i / grain * grain, true, grain);
        }
    }
}

/* A bitmap that is there after the actions so far, or -1. */
static int draw_bitmap(const TxnTask *t)
{
    int there[TXN_BITMAPS];
    int nr = 0;

    for (int i = 0; i < TXN_BITMAPS; i++) {
        if (t->want[i].layer >= 0) {
            there[nr++] = i;
        }
    }
    return nr == 0 ? -1 : there[bgsim_draw(t->s->sim, "txn.bitmap", nr)];
}

/* "node=...,KEY=..." for bitmap @i. */
static void add_bitmap_action(TxnTask *t, BlockActionType type, int i,
                              const char *more)
{
    char name[8];

    add_action(t, type, "node=%s,name=%s%s",
               layer_name(t, t->want[i].layer), txn_bitmap_name(t, i, name),
               more);
}

static void plan_add(TxnTask *t)
{
    BgSim *sim = t->s->sim;
    int layer = t->top[draw_disk(t)];
    g_autofree char *more = NULL;
    TxnBitmap *b;
    int i = 0;

    while (i < TXN_BITMAPS && (t->want[i].layer >= 0 || t->removed[i])) {
        i++;
    }
    if (i == TXN_BITMAPS) {
        return;
    }
    b = &t->want[i];
    *b = (TxnBitmap){
        .layer = layer,
        .grain = INT64_C(1) << bgsim_draw(sim, "bitmap.grain", 5),
        .enabled = !bgsim_chance(sim, "bitmap.disabled", 200),
        .since = TXN_NEVER,
    };
    more = g_strdup_printf(
        ",granularity=%d,disabled=%s,persistent=%s",
        (int)b->grain * TXN_SECTOR, b->enabled ? "off" : "on",
        layer >= TXN_DISKS && bgsim_draw(sim, "bitmap.stored", 2) ? "on"
                                                                  : "off");
    add_bitmap_action(t, BLOCK_ACTION_BITMAP_ADD, i, more);
}

static void plan_clear(TxnTask *t, int i)
{
    TxnBitmap *b = &t->want[i];

    add_bitmap_action(t, BLOCK_ACTION_BITMAP_CLEAR, i, "");
    memset(b->must, 0, sizeof(b->must));
    memset(b->bits, 0, sizeof(b->bits));
    b->since = TXN_NEVER;
}

static void plan_enabled(TxnTask *t, int i, bool enabled)
{
    add_bitmap_action(t, enabled ? BLOCK_ACTION_BITMAP_ENABLE
                                 : BLOCK_ACTION_BITMAP_DISABLE, i, "");
    t->want[i].enabled = enabled;
    t->want[i].since = TXN_NEVER;
}

static void plan_merge(TxnTask *t, int to, int from)
{
    char target[8], name[8];

    add_action(t, BLOCK_ACTION_BITMAP_MERGE,
               "node=%s,target=%s,bitmaps.0.node=%s,bitmaps.0.name=%s",
               layer_name(t, t->want[to].layer), txn_bitmap_name(t, to, target),
               layer_name(t, t->want[from].layer),
               txn_bitmap_name(t, from, name));
    txn_add_bits(t->want[to].must, t->want[to].grain, t->want[from].must);
    txn_add_bits(t->want[to].bits, t->want[to].grain, t->want[from].bits);
}

static void plan_remove(TxnTask *t, int i)
{
    add_bitmap_action(t, BLOCK_ACTION_BITMAP_REMOVE, i, "");
    t->want[i].layer = -1;
    t->removed[i] = true;
}

static void plan_bitmap(TxnTask *t)
{
    int i = draw_bitmap(t);

    if (i < 0) {
        plan_add(t);
        return;
    }
    switch (bgsim_draw(t->s->sim, "txn.bitmap-op", 7)) {
    case 0:
    case 1:
        plan_clear(t, i);
        break;
    case 2:
        plan_enabled(t, i, true);
        break;
    case 3:
        plan_enabled(t, i, false);
        break;
    case 4:
        plan_merge(t, i, draw_bitmap(t));
        break;
    case 5:
        plan_remove(t, i);
        break;
    default:
        plan_add(t);
        break;
    }
}

/* --- all of them ---------------------------------------------------------- */

static void coroutine_fn plan_action(TxnTask *t)
{
    int d;

    switch (bgsim_draw(t->s->sim, "txn.action", 10)) {
    case 0:
    case 1:
        plan_backup(t, draw_disk(t));
        break;
    case 2:
        plan_backup(t, 0);
        plan_backup(t, 1);
        break;
    case 3:
    case 4:
        d = draw_disk(t);
        plan_snapshot(t, d, TXN_DISK_BYTES);
        break;
    case 5:
        plan_inside(t, draw_disk(t));
        break;
    default:
        plan_bitmap(t);
        break;
    }
}

/* One that cannot be done, sooner or later. */
static void coroutine_fn plan_failure(TxnTask *t)
{
    int d = draw_disk(t);

    t->fails = true;
    switch (bgsim_draw(t->s->sim, "txn.failure", 6)) {
    case 1:
        add_action(t, BLOCK_ACTION_BITMAP_CLEAR, "node=%s,name=nix",
                   layer_name(t, t->top[d]));
        break;
    case 2:
        add_action(t, BLOCK_ACTION_BITMAP_REMOVE, "node=nix,name=nix");
        break;
    case 3: /* a node that is in use */
        add_action(t, BLOCK_ACTION_SNAPSHOT, "node=%s,overlay=%s",
                   layer_name(t, t->top[d]), layer_name(t, !d));
        break;
    case 4: /* too short */
        add_action(t, BLOCK_ACTION_BACKUP, "job-id=short,device=%s,"
                   "target=short,sync=full", layer_name(t, t->top[d]));
        break;
    case 5: /* longer, and undone */
        plan_snapshot(t, d, TXN_DISK_BYTES + TXN_BLOCK);
        add_action(t, BLOCK_ACTION_ABORT, "%s", "");
        break;
    default:
        add_action(t, BLOCK_ACTION_ABORT, "%s", "");
        break;
    }
}

static void begin_plan(TxnTask *t)
{
    WITH_WORLD(t->s) {
        memcpy(t->want, t->bitmaps, sizeof(t->want));
    }
    memset(t->removed, 0, sizeof(t->removed));
    memset(t->backed_up, 0, sizeof(t->backed_up));
    memset(t->frozen, 0, sizeof(t->frozen));
    t->nr = t->nr_inside = 0;
    t->fails = t->may_fail = false;
    for (int d = 0; d < TXN_DISKS; d++) {
        t->top[d] = txn_top(t->s, d);
        t->overlays[d] = NULL;
    }
}

void coroutine_fn txn_plan(TxnTask *t)
{
    BgSim *sim = t->s->sim;
    int nr = bgsim_draw(sim, "txn.actions", 6);
    bool fails = bgsim_chance(sim, "txn.fails", 400);
    int at = fails ? (int)bgsim_draw(sim, "txn.fails-at", nr + 1) : -1;

    begin_plan(t);
    for (int i = 0; i <= nr; i++) {
        if (i == at) {
            plan_failure(t);
        }
        if (i < nr) {
            plan_action(t);
        }
    }
}
