/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The register oracle: each rule finds the wrong value and lets the right one
 * pass.  A tiny driver "liar" returns what the test wants.
 */
#include "check-main.h"

#include <blockgraph/sim-oracle.h>
#include <errno.h>
#include <string.h>

#include "mem-driver.h"

static BgSim *sim;
static BlockBackend *blk;
static BlockDriverState *node;
static BgSimModel *model;

#define DISK_BYTES (64 * 1024)

static BlockOptions *opts(const char *text)
{
    return block_options_parse_keyval(text, "driver", NULL);
}

static void setup_on(const char *options)
{
    BlockPerm perm = { BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                       BLK_PERM_ALL };

    sim = bgsim_new(1, NULL);
    node = bdrv_open(bgsim_graph(sim), opts(options), NULL);
    ck_assert_ptr_nonnull(node);
    blk = blk_new(bgsim_graph(sim), "guest", &perm);
    ck_assert_int_eq(blk_insert_bs(blk, node, NULL), 0);
    model = bgsim_model_new(sim, blk, "disk", DISK_BYTES);
}

static void setup(void)
{
    setup_on("mem,size=64k");
}

static void teardown(void)
{
    blk_unref(blk);
    bdrv_unref(node);
    bgsim_free(sim);
}

START_TEST(a_random_guest_finds_nothing_wrong_on_a_good_disk)
{
    BgSimGuestConfig config = { .requests = 2000, .fua_permille = 100 };
    uint64_t ok = 0;

    bgsim_guest_start(model, "guest", bgsim_thread(sim, "io"), &config);
    bgsim_guest_start(model, "guest2", NULL, &config);
    ck_assert(bgsim_run(sim, -1, NULL));
    ck_assert_uint_gt(bgsim_model_requests(model, &ok), 2000);
    ck_assert_uint_gt(ok, 2000);
    ck_assert(bgsim_check_equal(blk, model, NULL));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sim-model");
    TCase *tcase = tcase_create("model");

    mem_register();
    tcase_add_checked_fixture(tcase, setup, teardown);
    PROMISE(tcase, a_random_guest_finds_nothing_wrong_on_a_good_disk);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
