/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * on-error=stop: requests that failed wait until somebody resumes, or until
 * their node goes; drain does not wait for them, and none is lost.
 */
#include "sim/scenarios/scenarios.h"

#define STOP_BYTES (32 * 1024)

typedef struct Stop {
    BlockDriverState *bs;
    BlockBackend *blk;
    BgSimModel *model;
    BgSimDisk *disk;
} Stop;

static void coroutine_fn drainer_entry(BgSim *sim, void *opaque)
{
    Stop *s = opaque;

    for (int i = 0; i < 4; i++) {
        co_sleep_ns(1 + bgsim_range(sim, "drain.at", 0, 300 * 1000));
        blk_co_drained_begin(s->blk);
        co_sleep_ns(1 + bgsim_range(sim, "drain.ns", 0, 50 * 1000));
        blk_drained_end(s->blk);
    }
}

/* Space is found after a while, as by an administrator. */
static void coroutine_fn resumer_entry(BgSim *sim, void *opaque)
{
    Stop *s = opaque;

    for (int i = 0; i < 6; i++) {
        co_sleep_ns(1 + bgsim_range(sim, "resume.at", 0, 400 * 1000));
        if (i == 5 || bgsim_draw(sim, "space", 3) == 2) {
            bgsim_disk_set_quota(s->disk, -1);
        }
        blk_resume(s->blk);
    }
    while (bgsim_tasks(sim) > 1) {
        co_sleep_ns(100 * 1000);
        blk_resume(s->blk);
    }
}

static void stop_setup(BgSim *sim, void *state)
{
    Stop *s = state;
    BgSimDiskConfig disk = {
        .size = STOP_BYTES,
        .quota = 512 * (1 + bgsim_draw(sim, "quota", 40)),
    };
    BgSimGuestConfig guest = { .requests = 30, .depth = 4, .weight_write = 4,
                               .weight_read = 2, .weight_flush = 1,
                               .weight_zero = 1 };

    s->disk = bgsim_disk_new(sim, "disk0", &disk);
    s->bs = scenario_open(sim, "raw,file.driver=sim-disk,file.disk=disk0");
    s->blk = scenario_backend(sim, "guest", s->bs);
    s->model = bgsim_model_new(sim, s->blk, "guest", STOP_BYTES);
    blk_set_on_error(s->blk, BLOCK_ON_ERROR_REPORT, BLOCK_ON_ERROR_ENOSPC,
                     NULL, NULL);
    bgsim_guest_start(s->model, "guest0", scenario_thread(sim, 2), &guest);
    bgsim_guest_start(s->model, "guest1", scenario_thread(sim, 2), &guest);
    bgsim_spawn(sim, "drainer", NULL, drainer_entry, s);
    bgsim_spawn(sim, "resumer", NULL, resumer_entry, s);
}

static void stop_verify(BgSim *sim, void *state)
{
    Stop *s = state;

    scenario_check_content(sim, s->blk, s->model);
    scenario_check_rest(sim);
    blk_unref(s->blk);
    bdrv_unref(s->bs);
    scenario_check_empty(sim);
}

const BgSimScenario scenario_stop = {
    .name = "stop",
    .help = "a full disk, on-error=enospc, drain and resume",
    .state_size = sizeof(Stop),
    .setup = stop_setup,
    .verify = stop_verify,
    .threads_too = true,
};
