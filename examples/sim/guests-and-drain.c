/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A scenario in full: two random guests in threads of their own on one disk,
 * and a task that drains it now and then and looks that nothing moves.
 *
 *     cc guests-and-drain.c $(pkg-config --cflags --libs blockgraph-sim)
 *     ./a.out run --seeds 1000
 */
#include <blockgraph/sim-gen.h>

#define BYTES (64 * 1024)

typedef struct State {
    BgSimDisk *disk;
    BlockDriverState *bs;
    BlockBackend *blk;
    BgSimModel *model;
} State;

static uint64_t requests(State *s)
{
    BgSimDiskStats stats;

    bgsim_disk_get_stats(s->disk, &stats);
    return stats.reads + stats.writes + stats.flushes + stats.zeroes;
}

static void coroutine_fn drainer(BgSim *sim, void *opaque)
{
    State *s = opaque;

    for (int i = 0; i < 5; i++) {
        uint64_t before;

        co_sleep_ns(1 + bgsim_range(sim, "drain.at", 0, 1000 * 1000));
        blk_co_drained_begin(s->blk);
        before = requests(s);
        co_sleep_ns(100 * 1000);
        if (requests(s) != before) {
            bgsim_violation(sim, "drain", "the disk moves in a section");
        }
        blk_drained_end(s->blk);
    }
}

static void setup(BgSim *sim, void *opaque)
{
    State *s = opaque;
    BlockPerm perm = { .used = BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                       .shared = BLK_PERM_ALL };
    BgSimDiskConfig disk = { .size = BYTES, .request_alignment = 4096 };
    BgSimGuestConfig guest = { .requests = 50, .depth = 4 };

    s->disk = bgsim_disk_new(sim, "disk0", &disk);
    s->bs = bgsim_disk_open(s->disk, NULL, NULL);
    s->blk = blk_new(bgsim_graph(sim), "guest", &perm);
    blk_insert_bs(s->blk, s->bs, NULL);
    s->model = bgsim_model_new(sim, s->blk, "guest", BYTES);
    bgsim_guest_start(s->model, "guest0", bgsim_thread(sim, "io0"), &guest);
    bgsim_guest_start(s->model, "guest1", bgsim_thread(sim, "io1"), &guest);
    bgsim_spawn(sim, "drainer", NULL, drainer, s);
}

static void verify(BgSim *sim, void *opaque)
{
    State *s = opaque;
    GError *error = NULL;

    if (!bgsim_check_equal(s->blk, s->model, &error)) {
        bgsim_violation(sim, "content", "%s", error->message);
        g_error_free(error);
    }
    blk_unref(s->blk);
    bdrv_unref(s->bs);
}

static const BgSimScenario scenario = {
    .name = "guests-and-drain",
    .help = "two guests, and a drain now and then",
    .state_size = sizeof(State),
    .setup = setup,
    .verify = verify,
};

int main(int argc, char **argv)
{
    static const BgSimScenario *const scenarios[] = { &scenario, NULL };

    return bgsim_main(argc, argv, scenarios);
}
