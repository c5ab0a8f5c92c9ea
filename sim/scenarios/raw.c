/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Guests on a raw node over a simulated disk, in several threads.
 */
#include "sim/scenarios/scenarios.h"

#define RAW_BYTES (64 * 1024)

typedef struct Raw {
    BlockDriverState *bs;
    BlockBackend *blk;
    BgSimModel *model;
} Raw;

static void raw_open(BgSim *sim, Raw *s, BgSimDisk *disk)
{
    s->bs = scenario_open(sim, "raw,node-name=raw,discard=unmap,"
                          "file.driver=sim-disk,file.disk=%s",
                          bgsim_disk_name(disk));
    s->blk = scenario_backend(sim, "guest", s->bs);
    s->model = bgsim_model_new(sim, s->blk, "guest", RAW_BYTES);
}

static void raw_setup(BgSim *sim, void *state)
{
    unsigned guests = 1 + bgsim_draw(sim, "guests", 3);
    bool faults;

    raw_open(sim, state, scenario_disk(sim, "disk0", RAW_BYTES));
    faults = scenario_faults(sim);
    for (unsigned i = 0; i < guests; i++) {
        BgSimGuestConfig config = {
            .requests = 40,
            .depth = 1 + bgsim_draw(sim, "guest.depth", 6),
            .fua_permille = bgsim_draw(sim, "guest.fua", 3) * 100,
            .think_ns = bgsim_draw(sim, "guest.think", 2) * 50000,
            .errors_expected = faults,
        };
        g_autofree char *name = g_strdup_printf("guest%u", i);

        bgsim_guest_start(((Raw *)state)->model, name,
                          scenario_thread(sim, 3), &config);
    }
}

static void raw_verify(BgSim *sim, void *state)
{
    Raw *s = state;

    scenario_check_content(sim, s->blk, s->model);
    scenario_check_rest(sim);
    blk_unref(s->blk);
    bdrv_unref(s->bs);
    scenario_check_empty(sim);
}

const BgSimScenario scenario_raw = {
    .name = "raw",
    .help = "guests on a raw node in several threads, faults by chance",
    .state_size = sizeof(Raw),
    .setup = raw_setup,
    .verify = raw_verify,
    .threads_too = true,
};

/* --- speed ---------------------------------------------------------------- */

static void speed_setup(BgSim *sim, void *state)
{
    BgSimDiskConfig disk = { .size = RAW_BYTES };
    BgSimGuestConfig config = { .requests = 5000, .depth = 8,
                                .max_bytes = 4096 };

    raw_open(sim, state, bgsim_disk_new(sim, "disk0", &disk));
    bgsim_guest_start(((Raw *)state)->model, "guest", NULL, &config);
}

const BgSimScenario scenario_speed = {
    .name = "speed",
    .help = "one guest on a raw node, 5000 requests: how fast that is",
    .by_name_only = true,
    .state_size = sizeof(Raw),
    .setup = speed_setup,
    .verify = raw_verify,
};
