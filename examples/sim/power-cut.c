/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A program that keeps a number on a disk in two slots, written in turn, each
 * made stable before the other is touched.  After a power cut at any moment the
 * newest number that was acknowledged, or the one just being written, is there.
 * Take the flush away and the scenario says when it is lost.
 *
 *     ./a.out run --seeds 200
 */
#include <blockgraph/sim-gen.h>
#include <string.h>

typedef struct State {
    BlockDriverState *bs;
    BlockBackend *blk;
    uint64_t acknowledged;
    uint64_t writing;
} State;

static BlockBackend *open_disk(BgSim *sim, BlockDriverState **bs)
{
    BlockPerm perm = { .used = BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                       .shared = BLK_PERM_ALL };
    BlockBackend *blk = blk_new(bgsim_graph(sim), "program", &perm);

    *bs = bgsim_disk_open(bgsim_disk_find(sim, "disk0"), NULL, NULL);
    blk_insert_bs(blk, *bs, NULL);
    return blk;
}

static void coroutine_fn writer(BgSim *sim, void *opaque)
{
    State *s = opaque;
    uint64_t sector[64] = { 0 };

    for (uint64_t i = 1; i <= 10; i++) {
        s->writing = sector[0] = i;
        blk_co_pwrite(s->blk, i % 2 * 512, 512, sector, 0);
        blk_co_flush(s->blk);
        s->acknowledged = i;
        bgsim_progress(sim);
    }
}

/* The disk after a cut: which number is there? */
static bool check(BgSim *sim, const BgSimCrashState *cut, void *opaque,
                  GError **errp)
{
    State *s = opaque;
    BlockDriverState *bs;
    BlockBackend *blk = open_disk(sim, &bs);
    uint64_t slots[128] = { 0 };
    uint64_t found;

    blk_pread(blk, 0, sizeof(slots), slots, 0);
    found = MAX(slots[0], slots[64]);
    blk_unref(blk);
    bdrv_unref(bs);
    if (found < s->acknowledged || found > s->writing) {
        return block_error(errp, 5, "after a cut (%s) %d is there, %d was "
                           "acknowledged", cut->what, (int)found,
                           (int)s->acknowledged) == 0;
    }
    return true;
}

static void setup(BgSim *sim, void *opaque)
{
    State *s = opaque;
    BgSimDiskConfig disk = { .size = 4096 };

    bgsim_disk_new(sim, "disk0", &disk);
    s->blk = open_disk(sim, &s->bs);
    bgsim_spawn(sim, "writer", NULL, writer, s);
    for (int i = 0; i < 5; i++) {
        bgsim_crash_at(sim, 1 + bgsim_draw(sim, "cut", 60), check, s, NULL);
    }
}

static void verify(BgSim *sim, void *opaque)
{
    State *s = opaque;

    blk_unref(s->blk);
    bdrv_unref(s->bs);
}

static const BgSimScenario scenario = {
    .name = "power-cut", .help = "two slots, any power cut",
    .state_size = sizeof(State), .setup = setup, .verify = verify,
};

int main(int argc, char **argv)
{
    static const BgSimScenario *const scenarios[] = { &scenario, NULL };

    return bgsim_main(argc, argv, scenarios);
}
