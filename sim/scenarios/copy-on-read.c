/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Copy-on-read: guests read and write a qcow2 image over a backing chain, and
 * what they read is kept: by the option of the node, by the filter, which comes
 * and goes, with and without a bottom, and by prefetchers.
 *
 * The content of the chain never changes through it: a read returns what a
 * guest wrote last, or what the chain held at the start.  Layers below stay as
 * they are.  And in the end, when all was prefetched, the image shows the same
 * without them.
 */
#include "sim/scenarios/qcow2-image.h"

#include <errno.h>

static const BgSimCrashConfig crash_config = {
    .all_below = 32, .sample = 12, .second_every = 8,
};

typedef struct CorSim {
    BgSim *sim;
    SimQcow2 image;
    BgSimDisk *disk;         /* with the image */
    BlockDriverState *top, *filter;
    BlockBackend *blk;
    BgSimModel *model;
    BgSimModel *below;       /* what the backing chain holds */
    bool faults, deep;
    int64_t base_bytes;
    char lower[300];         /* options of the backing chain */
    char options[600];       /* of the image, without copy-on-read */
} CorSim;

/* --- the chain ------------------------------------------------------------ */

static void draw_image(BgSim *sim, SimQcow2 *image)
{
    static const unsigned cluster_bits[] = { 12, 9, 10, 16 };

    *image = (SimQcow2){
        .version = 3, .size = 64 * 1024, .refcount_order = 4,
        .cluster_bits = cluster_bits[bgsim_draw(sim, "image.cluster", 4)],
    };
    switch (bgsim_draw(sim, "image.kind", 4)) {
    case 1:
        image->extended_l2 = true;
        image->cluster_bits = 14;
        break;
    case 2:
        image->version = 2;
        break;
    default:
        break;
    }
}

static void make_disks(BgSim *sim, CorSim *s)
{
    BgSimDiskConfig config = {
        .grows = true, .empty = true,
        .no_zero_write = bgsim_chance(sim, "disk.no-zero", 300),
        .no_fua = bgsim_chance(sim, "disk.no-fua", 300),
        .discard = bgsim_draw(sim, "disk.discard", 4),
        .flush_mode = BGSIM_FLUSH_KEEP,
    };
    BgSimDiskConfig base = { 0 };

    s->disk = bgsim_disk_new(sim, "disk0", &config);
    draw_image(sim, &s->image);
    sim_qcow2_make(s->disk, &s->image);
    s->base_bytes = s->image.size -
                    512 * (int64_t)bgsim_draw(sim, "base.short", 64);
    base.size = s->base_bytes;
    bgsim_disk_new(sim, "base", &base);
    s->deep = bgsim_chance(sim, "deep", 500);
    if (s->deep) {
        SimQcow2 mid;

        draw_image(sim, &mid);
        sim_qcow2_make(bgsim_disk_new(sim, "middle", &config), &mid);
    }
}

static void name_chain(BgSim *sim, CorSim *s)
{
    static const char *const base = "raw,node-name=base,file.driver=sim-disk,"
                                    "file.disk=base";
    static const char *const deep =
        "qcow2,node-name=mid,file.driver=sim-disk,file.disk=middle,"
        "backing.driver=raw,backing.node-name=base,"
        "backing.file.driver=sim-disk,backing.file.disk=base";
    const char *lower = s->deep ? deep : base;
    g_auto(GStrv) parts = g_strsplit(lower, ",", -1);
    g_autofree char *nested = g_strjoinv(",backing.", parts);

    g_strlcpy(s->lower, lower, sizeof(s->lower));
    g_snprintf(s->options, sizeof(s->options),
               "qcow2,discard=%s,l2-cache-entry-size=512,l2-cache-size=%d,"
               "file.driver=sim-disk,file.disk=disk0,backing.driver=%s",
               bgsim_draw(sim, "open.discard", 2) ? "unmap" : "ignore",
               bgsim_draw(sim, "open.cache", 2) ? 4096 : 65536, nested);
}

/* --- what the chain holds ------------------------------------------------- */

/* Data here and there; the rest stays as it is. */
static void coroutine_fn fill_entry(BgSim *sim, void *opaque)
{
    CorSim *s = opaque;
    int64_t end = s->base_bytes;

    for (int64_t at = 0; at < end; at += 4096) {
        int64_t bytes = MIN(4096, end - at);

        switch (bgsim_draw(sim, "fill", 4)) {
        case 0:
        case 1:
            bgsim_model_pwrite(s->model, at, bytes, 0);
            break;
        case 2:
            bgsim_model_zero(s->model, at, bytes, 0);
            break;
        default:
            break;
        }
        bgsim_progress(sim);
    }
    bgsim_model_flush(s->model);
}

/* Fill the layer that @options open. */
static void fill_layer(BgSim *sim, CorSim *s, const char *options)
{
    BlockDriverState *bs = scenario_open(sim, "%s", options);

    if (bs) {
        scenario_fill(sim, bs, &s->model, s->image.size, fill_entry, s);
    }
}

/* --- power cuts ----------------------------------------------------------- */

static bool use_image(BlockBackend *blk, void *opaque, GError **errp)
{
    CorSim *s = opaque;

    /* Reads all of it, so there is much to copy; then again from the copy. */
    return bgsim_check_durable(blk, s->model, errp) &&
           bgsim_check_durable(blk, s->model, errp) &&
           scenario_rewrite(blk, s->image.size / 2 - 512, 1024, errp);
}

static bool check_state(BgSim *sim, const BgSimCrashState *cut, void *opaque,
                        GError **errp)
{
    CorSim *s = opaque;
    g_autofree char *options = g_strdup_printf("%s,copy-on-read=on",
                                               s->options);

    return sim_qcow2_recovers(&(SimQcow2Recovery){
        .sim = sim, .disk = s->disk, .options = options, .use = use_image,
        .opaque = s }, errp);
}

/* --- what happens meanwhile ----------------------------------------------- */

static int coroutine_fn act_filter(CorSim *s)
{
    static const char *const bottoms[] = { "", ",bottom=base", ",bottom=mid" };
    unsigned bottom = bgsim_draw(s->sim, "filter.bottom", s->deep ? 3 : 2);
    g_autoptr(GError) error = NULL;
    int ret;

    if (!s->filter) {
        return bdrv_co_insert_node(
            s->top, scenario_options("copy-on-read,node-name=cor%s",
                                     bottoms[bottom]), &s->filter, &error);
    }
    ret = bdrv_co_drop_filter(s->filter, &error);
    if (ret == 0) {
        bdrv_co_unref(s->filter);
        s->filter = NULL;
    }
    return ret;
}

static int coroutine_fn act_option(CorSim *s)
{
    BdrvReopenQueue *queue = bdrv_reopen_queue_new(bgsim_graph(s->sim));
    g_autoptr(GError) error = NULL;

    bdrv_reopen_queue_add(queue, s->top, scenario_options(
        "qcow2,copy-on-read=%s", bgsim_draw(s->sim, "actor.option", 2)
                                     ? "on" : "off"), true);
    return bdrv_co_reopen_multiple(queue, &error);
}

static int coroutine_fn act_drain(CorSim *s)
{
    bdrv_co_drained_begin(s->top);
    bdrv_drained_end(s->top);
    return 0;
}

static void coroutine_fn actor_entry(BgSim *sim, void *opaque)
{
    static int coroutine_fn (*const acts[])(CorSim *) = {
        act_drain, act_filter, act_option,
    };
    CorSim *s = opaque;

    for (int i = 0; i < 8; i++) {
        unsigned act = bgsim_draw(sim, "actor.act", G_N_ELEMENTS(acts));
        int ret;

        co_sleep_ns(1 + bgsim_range(sim, "actor.at", 0, 2000 * 1000));
        ret = acts[act](s);
        if (ret < 0 && !s->faults) {
            bgsim_violation(sim, "actor", "act %u: %s", act,
                            g_strerror(-ret));
        }
        bgsim_progress(sim);
    }
}

static void coroutine_fn prefetch_entry(BgSim *sim, void *opaque)
{
    CorSim *s = opaque;

    for (int i = 0; i < 12; i++) {
        int64_t at = bgsim_range(sim, "prefetch.at", 0, s->image.size - 1);
        int64_t most = MIN(s->image.size - at, 16384);
        int64_t bytes = bgsim_range(sim, "prefetch.bytes", 1, most);
        int ret = blk_co_preadv(s->blk, at, bytes, NULL,
                                BDRV_REQ_COPY_ON_READ | BDRV_REQ_PREFETCH);

        if (ret < 0 && !s->faults) {
            bgsim_violation(sim, "prefetch", "%s", g_strerror(-ret));
        }
        co_sleep_ns(1 + bgsim_range(sim, "prefetch.pause", 0, 500 * 1000));
        bgsim_progress(sim);
    }
}

/* --- the run -------------------------------------------------------------- */

static void start_guests(BgSim *sim, CorSim *s)
{
    BgSimGuestConfig guest = {
        .requests = 50, .depth = 1 + bgsim_draw(sim, "guest.depth", 6),
        .max_bytes = 512 << bgsim_draw(sim, "guest.bytes", 7),
        .weight_read = 8, .weight_write = 5, .weight_zero = 2,
        .weight_discard = bgsim_draw(sim, "guest.discard", 3),
        .weight_status = 1, .weight_flush = bgsim_draw(sim, "guest.flush", 3),
        .fua_permille = bgsim_draw(sim, "guest.fua", 3) * 100,
        .errors_expected = s->faults,
    };

    for (unsigned i = 0; i < 1 + bgsim_draw(sim, "guests", 3); i++) {
        g_autofree char *name = g_strdup_printf("guest%u", i);

        bgsim_guest_start(s->model, name, scenario_thread(sim, 2), &guest);
    }
    for (unsigned i = bgsim_draw(sim, "prefetchers", 3); i > 0; i--) {
        bgsim_spawn(sim, "prefetch", scenario_thread(sim, 2), prefetch_entry,
                    s);
    }
    if (bgsim_draw(sim, "actor", 2)) {
        bgsim_spawn(sim, "actor", NULL, actor_entry, s);
    }
}

static bool open_chain(BgSim *sim, CorSim *s)
{
    name_chain(sim, s);
    fill_layer(sim, s, "raw,file.driver=sim-disk,file.disk=base");
    if (s->deep) {
        fill_layer(sim, s, s->lower);
    }
    s->below = bgsim_model_freeze(s->model);
    s->top = scenario_open(sim, "%s,node-name=top,copy-on-read=%s", s->options,
                           bgsim_chance(sim, "open.copy", 700) ? "on" : "off");
    if (!s->top) {
        return false;
    }
    s->blk = scenario_backend(sim, "guest", s->top);
    bgsim_model_set_backend(s->model, s->blk);
    return true;
}

static void cor_setup(BgSim *sim, void *state)
{
    CorSim *s = state;

    s->sim = sim;
    make_disks(sim, s);
    if (!open_chain(sim, s)) {
        return;
    }
    s->faults = scenario_faults(sim);
    start_guests(sim, s);
    if (bgsim_draw(sim, "cuts", 2)) {
        for (unsigned i = 0; i < 2; i++) {
            bgsim_crash_at(sim, bgsim_steps(sim) + 1 +
                                    bgsim_draw(sim, "cut.step", 700),
                           check_state, s, &crash_config);
        }
    }
}

/* All that is below comes up; then the image does without it. */
static void check_alone(BgSim *sim, CorSim *s)
{
    g_autoptr(GError) error = NULL;
    int ret = blk_preadv(s->blk, 0, s->image.size, NULL,
                         BDRV_REQ_COPY_ON_READ | BDRV_REQ_PREFETCH);

    if (ret < 0) {
        bgsim_violation(sim, "prefetch", "at the end: %s", g_strerror(-ret));
        return;
    }
    if (bdrv_set_backing(s->top, NULL, &error) < 0) {
        bgsim_violation(sim, "graph", "%s", error->message);
        return;
    }
    scenario_check_content(sim, s->blk, s->model);
}

/* The layers below are what they were. */
static void check_below(BgSim *sim, CorSim *s)
{
    BlockDriverState *bs = scenario_open(sim, "%s", s->lower);
    BlockBackend *blk;
    g_autoptr(GError) error = NULL;

    if (!bs) {
        return;
    }
    if (s->base_bytes == s->image.size || s->deep) {
        blk = scenario_backend(sim, "below", bs);
        if (!bgsim_check_equal(blk, s->below, &error)) {
            bgsim_violation(sim, "below", "%s", error->message);
        }
        blk_unref(blk);
    }
    bdrv_unref(bs);
}

static void check_closed(BgSim *sim, CorSim *s)
{
    g_autoptr(GError) error = NULL;
    SimQcow2Report report;

    if (!sim_qcow2_check(s->disk, &report, &error)) {
        bgsim_violation(sim, "metadata", "after close: %s", error->message);
    } else if (!s->faults && (report.leaks > 0 || report.dirty)) {
        bgsim_violation(sim, "leak", "after close %" G_GUINT64_FORMAT
                        " clusters are leaked, dirty is %d", report.leaks,
                        report.dirty);
    }
}

static void cor_verify(BgSim *sim, void *state)
{
    CorSim *s = state;
    g_autoptr(GError) error = NULL;

    if (s->top) {
        if (!bgsim_crash_each(sim, check_state, s, &crash_config, &error)) {
            bgsim_violation(sim, "durability", "%s", error->message);
        }
        scenario_check_content(sim, s->blk, s->model);
        scenario_check_rest(sim);
        if (s->filter && bdrv_drop_filter(s->filter, &error) < 0) {
            bgsim_violation(sim, "graph", "%s", error->message);
        }
        bdrv_unref(s->filter);
        check_alone(sim, s);
        scenario_check_rest(sim);
        blk_unref(s->blk);
        bdrv_unref(s->top);
        check_closed(sim, s);
        check_below(sim, s);
    }
    scenario_check_empty(sim);
}

const BgSimScenario scenario_copy_on_read = {
    .name = "copy-on-read",
    .help = "guests on an image that keeps what it reads from backing files",
    .state_size = sizeof(CorSim),
    .setup = cor_setup,
    .verify = cor_verify,
    .threads_too = true,
};
