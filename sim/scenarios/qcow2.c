/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Guests on a qcow2 image with tiny clusters and tiny caches, so that tables
 * are made, evicted and written back all the time; power cuts at any step.
 *
 * Every state that a power cut leaves is checked by code of our own
 * (qcow2-check.c), opened, compared with what must have survived, written to,
 * closed and checked again.
 */
#include "sim/scenarios/qcow2-image.h"

#include <blockgraph/image.h>
#include <errno.h>
#include <string.h>

static const BgSimCrashConfig crash_config = {
    .all_below = 64, .sample = 24, .second_every = 8,
};

typedef struct Qcow2Sim {
    BgSim *sim;
    SimQcow2 image;
    BgSimDisk *disk;
    BlockDriverState *bs;
    BlockBackend *blk;
    BgSimModel *model;
    bool faults;
    bool backing;
    bool cleaner;       /* of caches, at any moment; guests take their time */
    char options[512];  /* cuts come until the very end */
} Qcow2Sim;

/* --- the image ------------------------------------------------------------ */

static void draw_image(BgSim *sim, SimQcow2 *image)
{
    static const unsigned cluster_bits[] = { 9, 9, 10, 12, 16 };
    static const unsigned orders[] = { 4, 6, 3, 6, 1, 0 };

    *image = (SimQcow2){
        .version = 3, .size = 64 * 1024,
        .cluster_bits = cluster_bits[bgsim_draw(sim, "image.cluster", 5)],
        .refcount_order = orders[bgsim_draw(sim, "image.refcount", 6)],
    };
    switch (bgsim_draw(sim, "image.kind", 6)) {
    case 1:
        image->extended_l2 = true;
        image->cluster_bits = 14 + bgsim_draw(sim, "image.extended", 2);
        break;
    case 2:
        image->version = 2;
        image->refcount_order = 4;
        break;
    case 3:
        image->lazy_refcounts = true;
        break;
    default:
        break;
    }
}

static void draw_options(BgSim *sim, Qcow2Sim *s)
{
    static const char *const discards[] = { "unmap", "ignore" };
    static const char *const overlaps[] = { "cached", "none", "all" };

    g_snprintf(
        s->options, sizeof(s->options), "qcow2,discard=%s,l2-cache-entry-size=512,l2-cache-size=%d,"
        "refcount-cache-size=4096,overlap-check=%s,discard-no-unref=%s,"
        "cache-clean-interval=%d,"
        "file.driver=sim-disk,file.disk=disk0%s",
        discards[bgsim_draw(sim, "open.discard", 2)],
        bgsim_draw(sim, "open.cache", 2) ? 4096 : 65536,
        overlaps[bgsim_draw(sim, "open.overlap", 3)],
        bgsim_chance(sim, "open.no-unref", 150) && s->image.version > 2
            ? "on" : "off",
        s->cleaner ? 1 : 0,
        s->backing ? ",backing.driver=raw,backing.file.driver=sim-disk,"
                     "backing.file.disk=base" : "");
}

static void make_disk(BgSim *sim, Qcow2Sim *s)
{
    BgSimDiskConfig config = {
        .grows = true, .empty = true, .dirty_start = false,
        .no_zero_write = bgsim_chance(sim, "disk.no-zero", 300),
        .no_fua = bgsim_chance(sim, "disk.no-fua", 300),
        .lying_zero_write = bgsim_chance(sim, "disk.lying-zero", 100),
        .discard = bgsim_draw(sim, "disk.discard", 4),
        .flush_mode = BGSIM_FLUSH_KEEP,
    };

    s->disk = bgsim_disk_new(sim, "disk0", &config);
    draw_image(sim, &s->image);
    sim_qcow2_make(s->disk, &s->image);
}

/* --- the backing file ----------------------------------------------------- */

static void coroutine_fn fill_entry(BgSim *sim, void *opaque)
{
    Qcow2Sim *s = opaque;

    for (int64_t at = 0; at < s->image.size; at += 8192) {
        bgsim_model_pwrite(s->model, at, 8192, 0);
        bgsim_progress(sim);
    }
    bgsim_model_flush(s->model);
}

/* Give the backing file content that the model knows. */
static void fill_backing(BgSim *sim, Qcow2Sim *s)
{
    BgSimDiskConfig config = { .size = s->image.size };
    BlockDriverState *bs;

    bgsim_disk_new(sim, "base", &config);
    bs = scenario_open(sim, "raw,file.driver=sim-disk,file.disk=base");
    scenario_fill(sim, bs, &s->model, s->image.size, fill_entry, s);
}

/* --- power cuts ----------------------------------------------------------- */

static bool use_image(BlockBackend *blk, void *opaque, GError **errp)
{
    Qcow2Sim *s = opaque;

    /* The write is where there may be nothing yet, so that tables change. */
    return bgsim_check_durable(blk, s->model, errp) &&
           scenario_rewrite(blk, s->image.size / 2 - 512, 1024, errp);
}

static bool check_state(BgSim *sim, const BgSimCrashState *cut, void *opaque,
                        GError **errp)
{
    Qcow2Sim *s = opaque;

    return sim_qcow2_recovers(&(SimQcow2Recovery){
        .sim = sim, .disk = s->disk, .options = s->options, .use = use_image,
        .opaque = s }, errp);
}

/* --- what is done to the image meanwhile ---------------------------------- */

static int coroutine_fn act_snapshot(Qcow2Sim *s)
{
    BdrvSnapshotInfo info = { .name = (char *)"some" };
    g_autoptr(GError) error = NULL;

    return bdrv_co_snapshot_create(s->bs, &info, &error);
}

static int coroutine_fn act_delete(Qcow2Sim *s)
{
    g_autoptr(GError) error = NULL;

    return bdrv_co_snapshot_delete(s->bs, NULL, "some", &error);
}

static int coroutine_fn act_resize(Qcow2Sim *s)
{
    BlockTruncate how = { .exact = true };
    g_autoptr(GError) error = NULL;

    /* Never below what the model covers. */
    how.offset = s->image.size +
                 4096 * (int64_t)bgsim_draw(s->sim, "actor.size", 32);
    return blk_co_truncate(s->blk, &how, &error);
}

static int coroutine_fn act_reopen(Qcow2Sim *s)
{
    BdrvReopenQueue *queue = bdrv_reopen_queue_new(bgsim_graph(s->sim));
    g_autoptr(GError) error = NULL;

    bdrv_reopen_queue_add(queue, s->bs, scenario_options(
        "qcow2,l2-cache-size=%d", bgsim_draw(s->sim, "actor.cache", 2)
                                      ? 4096 : 32768), true);
    return bdrv_co_reopen_multiple(queue, &error);
}

static void keep_line(const char *line, void *opaque)
{
    g_string_append_printf(opaque, "%s; ", line);
}

static int coroutine_fn act_check(Qcow2Sim *s)
{
    g_autoptr(GString) lines = g_string_new(NULL);
    BdrvCheck how = { .message = keep_line, .opaque = lines };
    g_autoptr(GError) error = NULL;
    BdrvCheckResult result;
    int ret = bdrv_co_check(s->bs, &how, &result, &error);

    /* After faults the image may need the repair of its next opening. */
    if (ret == 0 && result.corruptions > 0 && !s->faults) {
        bgsim_violation(s->sim, "check", "the image in use has %"
                        G_GINT64_FORMAT " corruptions: %s",
                        result.corruptions, lines->str);
    }
    return ret;
}

static int coroutine_fn act_drain(Qcow2Sim *s)
{
    bdrv_co_drained_begin(s->bs);
    bdrv_drained_end(s->bs);
    return 0;
}

static void coroutine_fn actor_entry(BgSim *sim, void *opaque)
{
    static int coroutine_fn (*const acts[])(Qcow2Sim *) = {
        act_drain, act_snapshot, act_resize, act_delete, act_reopen,
        act_check,
    };
    Qcow2Sim *s = opaque;

    for (int i = 0; i < 8; i++) {
        unsigned act = bgsim_draw(sim, "actor.act", G_N_ELEMENTS(acts));
        int ret;

        co_sleep_ns(1 + bgsim_range(sim, "actor.at", 0, 2000 * 1000));
        ret = acts[act](s);
        /* Narrow refcounts, no such snapshot, lengths that snapshots forbid. */
        if (ret < 0 && !s->faults && ret != -ERANGE && ret != -ENOENT &&
            ret != -ENOTSUP && ret != -EOVERFLOW) {
            bgsim_violation(sim, "actor", "act %u: %s", act,
                            g_strerror(-ret));
        }
        bgsim_progress(sim);
    }
}

/* --- the run -------------------------------------------------------------- */

static void start_guests(BgSim *sim, Qcow2Sim *s)
{
    BgSimGuestConfig guest = {
        .requests = 60, .depth = 1 + bgsim_draw(sim, "guest.depth", 6),
        .max_bytes = 512 << bgsim_draw(sim, "guest.bytes", 7),
        .weight_read = 4, .weight_write = 6, .weight_zero = 2,
        .weight_discard = 2, .weight_status = 1,
        .weight_flush = bgsim_draw(sim, "guest.flush", 4),
        .fua_permille = bgsim_draw(sim, "guest.fua", 3) * 100,
        .errors_expected = s->faults,
        .think_ns = s->cleaner ? 250 * 1000 * 1000 : 0,
    };

    for (unsigned i = 0; i < 1 + bgsim_draw(sim, "guests", 3); i++) {
        g_autofree char *name = g_strdup_printf("guest%u", i);

        bgsim_guest_start(s->model, name, scenario_thread(sim, 2), &guest);
    }
}

static void qcow2_setup(BgSim *sim, void *state)
{
    Qcow2Sim *s = state;

    s->sim = sim;
    make_disk(sim, s);
    s->backing = bgsim_chance(sim, "image.backing", 400) &&
                 !bgsim_is_threads(sim);
    if (s->backing) {
        fill_backing(sim, s);
    }
    /* With real threads time is real too. */
    s->cleaner = bgsim_chance(sim, "open.cleaner", 300) &&
                 !bgsim_is_threads(sim);
    draw_options(sim, s);
    s->bs = scenario_open(sim, "%s,node-name=top", s->options);
    if (!s->bs) {
        return;
    }
    s->blk = scenario_backend(sim, "guest", s->bs);
    if (s->model) {
        bgsim_model_set_backend(s->model, s->blk);
    } else {
        s->model = bgsim_model_new(sim, s->blk, "guest", s->image.size);
    }
    s->faults = scenario_faults(sim);
    start_guests(sim, s);
    if (bgsim_draw(sim, "actor", 2)) {
        bgsim_spawn(sim, "actor", NULL, actor_entry, s);
    }
    if (bgsim_draw(sim, "cuts", 2)) {
        for (unsigned i = 0; i < 2; i++) {
            bgsim_crash_at(sim, bgsim_steps(sim) + 1 +
                                    bgsim_draw(sim, "cut.step", 700),
                           check_state, s, &crash_config);
        }
    }
}

/* Nothing may be leaked by a run without faults and closed in order. */
static void check_closed(BgSim *sim, Qcow2Sim *s)
{
    g_autoptr(GError) error = NULL;
    SimQcow2Report report;

    if (!sim_qcow2_check(s->disk, &report, &error)) {
        bgsim_violation(sim, "metadata", "after close%s: %s",
                        s->faults ? " of a run with faults" : "",
                        error->message);
    } else if (!s->faults && (report.leaks > 0 || report.dirty)) {
        bgsim_violation(sim, "leak", "after close %" G_GUINT64_FORMAT
                        " clusters are leaked, dirty is %d", report.leaks,
                        report.dirty);
    }
}

static void qcow2_verify(BgSim *sim, void *state)
{
    Qcow2Sim *s = state;
    g_autoptr(GError) error = NULL;

    if (s->bs) {
        if (!bgsim_crash_each(sim, check_state, s, &crash_config, &error)) {
            bgsim_violation(sim, "durability", "%s", error->message);
        }
        scenario_check_content(sim, s->blk, s->model);
        scenario_check_rest(sim);
        blk_unref(s->blk);
        bdrv_unref(s->bs);
        check_closed(sim, s);
    }
    scenario_check_empty(sim);
}

const BgSimScenario scenario_qcow2 = {
    .name = "qcow2",
    .help = "guests on a qcow2 image with tiny clusters; power cuts",
    .state_size = sizeof(Qcow2Sim),
    .setup = qcow2_setup,
    .verify = qcow2_verify,
    .threads_too = true,
};
