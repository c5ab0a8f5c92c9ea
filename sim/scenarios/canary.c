/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * canary: a scenario that fails on one seed in a hundred, on purpose, to prove
 * that failures are reported, shrunk and stored.
 *
 * Of its operations only two matter: a write that makes it sick, and a later
 * flush that it then does not survive.  All others are there to be left out.
 */
#include "sim/scenarios/scenarios.h"

#define OPS 10

/* Of the kinds of operations, these two together are fatal. */
#define KINDS 68
#define KIND_SICK 61
#define KIND_FATAL 42

typedef struct Canary {
    BlockBackend *blk;
    bool sick;
} Canary;

static int coroutine_fn do_op(Canary *c, const uint64_t *op, char *buf)
{
    int64_t offset = op[1] * 512;
    int64_t bytes = 512 * (1 + op[2]);

    switch (op[0] % 4) {
    case 1:
        return blk_co_pwrite(c->blk, offset, bytes, buf, 0);
    case 2:
        return blk_co_flush(c->blk);
    default:
        return blk_co_pread(c->blk, offset, bytes, buf, 0);
    }
}

static void coroutine_fn canary_entry(BgSim *sim, void *opaque)
{
    static const uint64_t bounds[] = { KINDS, 64, 8 };
    Canary *c = opaque;
    char buf[8 * 512] = { 0 };

    for (unsigned i = 0; i < OPS; i++) {
        uint64_t op[3];
        int ret;

        bgsim_draw_group(sim, "op", bounds, op, G_N_ELEMENTS(op));
        ret = do_op(c, op, buf);
        if (ret < 0) {
            bgsim_violation(sim, "guest", "a request has failed: %d", ret);
        }
        bgsim_progress(sim);
        c->sick |= op[0] == KIND_SICK;
        if (c->sick && op[0] == KIND_FATAL) {
            bgsim_violation(sim, "canary", "the canary has died in operation "
                            "%u", i);
        }
    }
}

static void canary_setup(BgSim *sim, void *state)
{
    Canary *c = state;
    BlockDriverState *bs = scenario_open(sim, "null-co,size=64k,"
                                         "latency-ns=1000");

    c->blk = scenario_backend(sim, "canary", bs);
    bdrv_unref(bs);
    bgsim_spawn(sim, "canary", bgsim_thread(sim, "cage"), canary_entry, c);
}

static void canary_verify(BgSim *sim, void *state)
{
    Canary *c = state;

    blk_unref(c->blk);
}

const BgSimScenario scenario_canary = {
    .name = "canary",
    .help = "fails on one seed in a hundred, on purpose",
    .state_size = sizeof(Canary),
    .setup = canary_setup,
    .verify = canary_verify,
    .by_name_only = true,
};
