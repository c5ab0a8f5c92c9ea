/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The simulated world: determinism, time, choices, hangs, holds.
 */
#include "check-main.h"

#include <blockgraph/sim-fault.h>
#include <blockgraph/sim.h>
#include <errno.h>
#include <string.h>

static BlockOptions *opts(const char *text)
{
    return block_options_parse_keyval(text, "driver", NULL);
}

typedef struct Load {
    BlockBackend *blk;
    int left;
    int errors;
    int64_t ended_ns;
} Load;

static void coroutine_fn load_entry(BgSim *sim, void *opaque)
{
    Load *load = opaque;
    char buf[512];

    memset(buf, 0, sizeof(buf));
    while (load->left-- > 0) {
        int ret = blk_co_pread(load->blk, 0, sizeof(buf), buf, 0);

        bgsim_trace(sim, "read", load->left, -ret);
        load->errors += ret < 0;
        bgsim_progress(sim);
        if (bgsim_draw(sim, "pause", 4) == 3) {
            co_sleep_ns(1000);
        }
    }
    load->ended_ns = bgsim_now_ns(sim);
}

/* Three threads on one node; returns the trace hash. */
static uint64_t run_once(uint64_t seed, const BgSimConfig *config)
{
    BgSim *sim = bgsim_new(seed, config);
    BlockDriverState *bs = bdrv_open(
        bgsim_graph(sim), opts("null-co,size=64k,latency-ns=1000"), NULL);
    BlockPerm perm = { BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL };
    Load loads[3] = { { 0 } };
    uint64_t hash;

    ck_assert_ptr_nonnull(bs);
    for (int i = 0; i < 3; i++) {
        g_autofree char *name = g_strdup_printf("guest%d", i);

        loads[i].blk = blk_new(bgsim_graph(sim), name, &perm);
        loads[i].left = 20;
        ck_assert_int_eq(blk_insert_bs(loads[i].blk, bs, NULL), 0);
        bgsim_spawn(sim, name, bgsim_thread(sim, name), load_entry,
                    &loads[i]);
    }
    ck_assert(bgsim_run(sim, -1, NULL));
    hash = bgsim_trace_hash(sim);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(loads[i].errors, 0);
        blk_unref(loads[i].blk);
    }
    bdrv_unref(bs);
    bgsim_free(sim);
    return hash;
}

START_TEST(one_seed_makes_one_run)
{
    uint64_t seen[20];

    for (uint64_t seed = 0; seed < 20; seed++) {
        seen[seed] = run_once(seed, NULL);
        ck_assert_uint_eq(run_once(seed, NULL), seen[seed]);
    }
    ck_assert_uint_ne(seen[1], seen[2]);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sim");
    TCase *tcase = tcase_create("sim");

    PROMISE(tcase, one_seed_makes_one_run);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
