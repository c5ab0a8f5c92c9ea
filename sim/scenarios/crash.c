/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Power cuts under guests that write and flush through raw and filters: what
 * was flushed is there after the cut.
 */
#include "sim/scenarios/scenarios.h"

#include <errno.h>
#include <string.h>

#define CRASH_BYTES (16 * 1024)

static const BgSimCrashConfig crash_config = {
    .all_below = 256, .sample = 64, .second_every = 8,
};

typedef struct Crash {
    BlockDriverState *bs;
    BlockBackend *blk;
    BgSimModel *model;
} Crash;

/* Open what the power cut left, read all of it, write, flush. */
static bool check_state(BgSim *sim, const BgSimCrashState *cut, void *opaque,
                        GError **errp)
{
    Crash *s = opaque;
    BlockDriverState *bs = bdrv_open(
        bgsim_graph(sim), scenario_options("raw,file.driver=sim-disk,"
                                           "file.disk=disk0"), errp);
    BlockBackend *blk;
    bool ok;

    if (!bs) {
        return false;
    }
    blk = scenario_backend(sim, "recovery", bs);
    ok = bgsim_check_durable(blk, s->model, errp) &&
         scenario_rewrite(blk, 0, 4096, errp);
    blk_unref(blk);
    bdrv_unref(bs);
    return ok;
}

static void crash_setup(BgSim *sim, void *state)
{
    static const char *const filters[] = {
        "raw,node-name=top,file.driver=sim-disk,file.disk=disk0,"
            "discard=unmap",
        "blkdebug,node-name=top,align=4k,image.driver=raw,"
            "image.file.driver=sim-disk,image.file.disk=disk0",
    };
    Crash *s = state;
    unsigned cuts = 1 + bgsim_draw(sim, "cuts", 3);
    BgSimGuestConfig guest = {
        .requests = 24, .depth = 3, .max_bytes = 4096,
        .weight_write = 6, .weight_zero = 2, .weight_flush = 3,
        .weight_read = 1,
        .fua_permille = bgsim_draw(sim, "guest.fua", 4) * 150,
    };
    BgSimDiskConfig disk = {
        .size = CRASH_BYTES,
        .no_fua = bgsim_chance(sim, "disk.no-fua", 500),
        .no_zero_write = bgsim_chance(sim, "disk.no-zero", 500),
        .flush_mode = BGSIM_FLUSH_KEEP,
    };

    bgsim_disk_new(sim, "disk0", &disk);
    s->bs = scenario_open(sim, "%s",
                          filters[bgsim_draw(sim, "crash.filter",
                                             G_N_ELEMENTS(filters))]);
    s->blk = scenario_backend(sim, "guest", s->bs);
    s->model = bgsim_model_new(sim, s->blk, "guest", CRASH_BYTES);
    guest.errors_expected = scenario_faults(sim);
    bgsim_guest_start(s->model, "guest0", scenario_thread(sim, 2), &guest);
    if (bgsim_draw(sim, "two-guests", 2)) {
        bgsim_guest_start(s->model, "guest1", scenario_thread(sim, 2),
                          &guest);
    }
    for (unsigned i = 0; i < cuts; i++) {
        bgsim_crash_at(sim, 1 + bgsim_draw(sim, "cut.step", 400), check_state,
                       s, &crash_config);
    }
}

static void crash_verify(BgSim *sim, void *state)
{
    Crash *s = state;
    g_autoptr(GError) error = NULL;

    if (!bgsim_crash_each(sim, check_state, s, &crash_config, &error)) {
        bgsim_violation(sim, "durability", "%s", error->message);
    }
    scenario_check_content(sim, s->blk, s->model);
    scenario_check_rest(sim);
    blk_unref(s->blk);
    bdrv_unref(s->bs);
    scenario_check_empty(sim);
}

const BgSimScenario scenario_crash = {
    .name = "crash",
    .help = "power cuts: what was flushed is there, whatever else is not",
    .state_size = sizeof(Crash),
    .setup = crash_setup,
    .verify = crash_verify,
};
