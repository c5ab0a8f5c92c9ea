/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Points in time: guests write a disk, copy-before-write goes in under them,
 * readers read the snapshot.
 *
 * The oracle: the disk's model, frozen in the drained section in which the
 * filter goes in, says what readers may see; the model itself, what guests may.
 * A reader gets EACCES exactly where it must: outside the bitmap, where a
 * reader has discarded, and once the snapshot is broken.
 */
#include "sim/scenarios/scenarios.h"

#include <blockgraph/copy-before-write.h>
#include <blockgraph/dirty-bitmap.h>
#include <errno.h>
#include <stdatomic.h>

#define CLUSTER_BYTES (64 * 1024)
#define CLUSTERS 12
#define DISK_BYTES (CLUSTERS * CLUSTER_BYTES)

/* What readers may get of a cluster. */
typedef enum Access {
    ACCESS_YES,
    ACCESS_PERHAPS, /* a discard is under way */
    ACCESS_NO,
} Access;

typedef struct Fleecing {
    BgSim *sim;
    BlockDriverState *source, *target, *cbw, *snapshot;
    BlockBackend *guest, *reader;
    BgSimModel *model;
    BgSimModel *frozen;
    bool faults, breaks, staged, bitmap, discards;
    _Atomic int access[CLUSTERS]; /* Access */
    char options[300];
} Fleecing;

/* --- the graph ------------------------------------------------------------ */

static void draw_options(BgSim *sim, Fleecing *s)
{
    static const char *const staging[] = { "64k", "128k", "1M" };

    s->breaks = bgsim_chance(sim, "cbw.breaks", 500);
    s->staged = s->breaks && bgsim_chance(sim, "cbw.staged", 600);
    s->bitmap = bgsim_chance(sim, "cbw.bitmap", 300);
    s->discards = bgsim_chance(sim, "cbw.discards", 300);
    g_snprintf(s->options, sizeof(s->options),
               "copy-before-write,node-name=cbw,target=target,"
               "on-cbw-error=%s,cbw-timeout=%d,staging-size=%s%s",
               s->breaks ? "break-snapshot" : "break-guest-write",
               s->breaks && bgsim_chance(sim, "cbw.timeout", 200) ? 1 : 0,
               s->staged ? staging[bgsim_draw(sim, "cbw.staging", 3)] : "0",
               s->bitmap ? ",bitmap.node=source,bitmap.name=b" : "");
}

/* Some clusters are in the snapshot, the others not. */
static void draw_bitmap(Fleecing *s)
{
    BdrvDirtyBitmap *bitmap =
        bdrv_create_dirty_bitmap(s->source, CLUSTER_BYTES, "b", NULL);

    for (int i = 0; i < CLUSTERS; i++) {
        if (bgsim_chance(s->sim, "bitmap.bit", 600)) {
            bdrv_set_dirty_bitmap(bitmap, (int64_t)i * CLUSTER_BYTES, 1);
        } else {
            atomic_store(&s->access[i], ACCESS_NO);
        }
    }
    /* The guests' writes would make it dirty. */
    bdrv_disable_dirty_bitmap(bitmap, NULL);
}

static bool open_disks(BgSim *sim, Fleecing *s)
{
    s->source = scenario_open_raw(sim, "source", DISK_BYTES);
    s->target = scenario_open_raw(sim, "target", DISK_BYTES);
    if (!s->source || !s->target) {
        return false;
    }
    s->guest = scenario_backend(sim, "guest", s->source);
    s->model = bgsim_model_new(sim, s->guest, "guest", DISK_BYTES);
    return true;
}

/* --- readers -------------------------------------------------------------- */

static Access access_of(Fleecing *s, int64_t offset, int64_t bytes)
{
    Access worst = ACCESS_YES;

    for (int64_t i = offset / CLUSTER_BYTES;
         i <= (offset + bytes - 1) / CLUSTER_BYTES; i++) {
        worst = MAX(worst, (Access)atomic_load(&s->access[i]));
    }
    return worst;
}

static bool is_broken(Fleecing *s)
{
    return bdrv_cbw_snapshot_error(s->cbw) < 0;
}

static void judge(Fleecing *s, int ret, Access before, Access after,
                  int64_t offset, int64_t bytes)
{
    if (ret == 0 && before == ACCESS_NO) {
        bgsim_violation(s->sim, "access", "[%" G_GINT64_FORMAT ", +%"
                        G_GINT64_FORMAT ") was read, and must not be", offset,
                        bytes);
    }
    /* Injected errors may be EACCES, too. */
    if (ret == -EACCES && after == ACCESS_YES && !is_broken(s) &&
        !s->faults) {
        bgsim_violation(s->sim, "access", "[%" G_GINT64_FORMAT ", +%"
                        G_GINT64_FORMAT ") cannot be read, and must be",
                        offset, bytes);
    }
    if (ret < 0 && ret != -EACCES && !s->faults) {
        bgsim_violation(s->sim, "access", "a read of the snapshot: %s",
                        g_strerror(-ret));
    }
}

static void coroutine_fn read_some(Fleecing *s)
{
    int64_t offset = 512 * bgsim_range(s->sim, "reader.offset", 0,
                                       DISK_BYTES / 512 - 1);
    int64_t bytes = 512 * bgsim_range(s->sim, "reader.bytes", 1, 300);
    Access before;
    int ret;

    bytes = MIN(bytes, DISK_BYTES - offset);
    before = access_of(s, offset, bytes);
    ret = bgsim_model_pread(s->frozen, offset, bytes);
    judge(s, ret, before, access_of(s, offset, bytes), offset, bytes);
}

static void coroutine_fn discard_some(Fleecing *s)
{
    int64_t i = bgsim_draw(s->sim, "reader.cluster", CLUSTERS);
    int ret;

    atomic_store(&s->access[i], MAX(atomic_load(&s->access[i]),
                                    ACCESS_PERHAPS));
    ret = blk_co_pdiscard(s->reader, i * CLUSTER_BYTES, CLUSTER_BYTES);
    if (ret == 0) {
        atomic_store(&s->access[i], ACCESS_NO);
    } else if (!s->faults) {
        bgsim_violation(s->sim, "access", "a discard: %s", g_strerror(-ret));
    }
}

static void coroutine_fn reader_entry(BgSim *sim, void *opaque)
{
    Fleecing *s = opaque;

    for (int i = 0; i < 30; i++) {
        if (s->discards && bgsim_chance(sim, "reader.discard", 100)) {
            discard_some(s);
        } else if (bgsim_chance(sim, "reader.status", 150)) {
            bgsim_model_status(s->frozen, 0, DISK_BYTES);
        } else {
            read_some(s);
        }
        bgsim_progress(sim);
    }
}

/* --- the filter comes ----------------------------------------------------- */

static int coroutine_fn insert(Fleecing *s, GError **errp)
{
    int ret = bdrv_co_insert_node(s->source, scenario_options("%s", s->options),
                                  &s->cbw, errp);

    if (ret < 0) {
        return ret;
    }
    s->snapshot = bdrv_co_open(
        bgsim_graph(s->sim),
        scenario_options("snapshot-access,file=cbw,discard=unmap"), errp);
    if (!s->snapshot) {
        return -EINVAL;
    }
    return blk_co_insert_bs(s->reader, s->snapshot, errp);
}

static void coroutine_fn insert_entry(BgSim *sim, void *opaque)
{
    Fleecing *s = opaque;
    g_autoptr(GError) error = NULL;
    int ret;

    co_sleep_ns(1 + bgsim_range(sim, "insert.at", 0, 300 * 1000));
    bgsim_op_begin(sim, BGSIM_OP_INSERT);
    bdrv_co_drained_begin(s->source);
    ret = insert(s, &error);
    if (ret == 0) {
        s->frozen = bgsim_model_freeze(s->model);
        bgsim_model_set_backend(s->frozen, s->reader);
    }
    bdrv_drained_end(s->source);
    bgsim_op_end(sim, BGSIM_OP_INSERT);
    if (ret < 0) {
        if (!s->faults) {
            bgsim_violation(sim, "open", "%s", error->message);
        }
        return;
    }
    for (unsigned i = 0; i < 1 + bgsim_draw(sim, "readers", 3); i++) {
        bgsim_spawn(sim, "reader", scenario_thread(sim, 2), reader_entry, s);
    }
}

/* --- the run -------------------------------------------------------------- */

static void start_guests(BgSim *sim, Fleecing *s)
{
    for (unsigned i = 0; i < 1 + bgsim_draw(sim, "guests", 3); i++) {
        BgSimGuestConfig config = {
            .requests = 60,
            .depth = 1 + bgsim_draw(sim, "guest.depth", 6),
            .max_bytes = 4096 << bgsim_draw(sim, "guest.bytes", 6),
            .weight_read = 2, .weight_write = 6, .weight_zero = 2,
            .weight_discard = 2, .weight_flush = 1, .weight_status = 1,
            .think_ns = bgsim_draw(sim, "guest.think", 2) * 50000,
            .errors_expected = s->faults,
        };
        g_autofree char *name = g_strdup_printf("guest%u", i);

        bgsim_guest_start(s->model, name, scenario_thread(sim, 3), &config);
    }
}

static void fleecing_setup(BgSim *sim, void *state)
{
    Fleecing *s = state;
    BlockPerm perm = { .used = BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                       .shared = BLK_PERM_ALL };

    s->sim = sim;
    draw_options(sim, s);
    if (!open_disks(sim, s)) {
        return;
    }
    if (s->bitmap) {
        draw_bitmap(s);
    }
    s->reader = blk_new(bgsim_graph(sim), "reader", &perm);
    s->faults = scenario_faults(sim);
    start_guests(sim, s);
    bgsim_spawn(sim, "insert", NULL, insert_entry, s);
}

/* All of it once more, at rest. */
static void check_snapshot(BgSim *sim, Fleecing *s)
{
    g_autoptr(GError) error = NULL;

    if (s->frozen && !s->bitmap && !s->discards && !is_broken(s) &&
        !bgsim_check_equal(s->reader, s->frozen, &error)) {
        bgsim_violation(sim, "snapshot", "%s", error->message);
    }
    if (s->cbw && !s->breaks && is_broken(s)) {
        bgsim_violation(sim, "snapshot", "it is broken, and must never be");
    }
}

static void take_down(BgSim *sim, Fleecing *s)
{
    g_autoptr(GError) error = NULL;

    blk_unref(s->reader);
    bdrv_unref(s->snapshot);
    if (s->cbw && bdrv_drop_filter(s->cbw, &error) < 0) {
        bgsim_violation(sim, "graph", "%s", error->message);
    }
    bdrv_unref(s->cbw);
    scenario_check_content(sim, s->guest, s->model);
    blk_unref(s->guest);
    bdrv_unref(s->target);
    bdrv_unref(s->source);
}

static void fleecing_verify(BgSim *sim, void *state)
{
    Fleecing *s = state;

    if (s->guest) {
        /* What is staged is still on its way. */
        bdrv_drained_begin(s->source);
        bdrv_drained_end(s->source);
        check_snapshot(sim, s);
        scenario_check_content(sim, s->guest, s->model);
        scenario_check_rest(sim);
        take_down(sim, s);
    }
    scenario_check_empty(sim);
}

const BgSimScenario scenario_fleecing = {
    .name = "fleecing",
    .help = "guests, copy-before-write under them, readers of the snapshot",
    .state_size = sizeof(Fleecing),
    .setup = fleecing_setup,
    .verify = fleecing_verify,
    .threads_too = true,
};
