/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The register oracle on simulated disks: what a bad disk may do is accepted,
 * what a lying one does is found, by power cuts or by reads.
 */
#include "check-main.h"

#include <blockgraph/driver.h>
#include <blockgraph/sim-fault.h>
#include <blockgraph/sim-oracle.h>
#include <errno.h>
#include <string.h>

#include "sim/sim-int.h"

#define DISK_BYTES (64 * 1024)
#define SEEDS 30

/* One run: a disk, guests on raw on it, cuts at some steps. */
typedef struct Plan {
    BgSimDiskConfig disk;
    BgSimGuestConfig guest;
    unsigned fail_permille;
    bool forgets;        /* the model knows that failed flushes forget */
    bool unknown;
    bool corrupt;
} Plan;

typedef struct Run {
    BgSim *sim;
    BgSimModel *model;
    BgSimDisk *disk;
    BlockBackend *blk;
} Run;

static BlockBackend *backend_on(BgSim *sim)
{
    BlockPerm perm = { BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                       BLK_PERM_ALL };
    BlockOptions *options = block_options_parse_keyval(
        "raw,discard=unmap,file.driver=sim-disk,file.disk=disk0,"
        "file.node-name=disk0,file.discard=unmap", "driver", NULL);
    BlockDriverState *bs = bdrv_open(bgsim_graph(sim), options, NULL);
    BlockBackend *blk = blk_new(bgsim_graph(sim), "guest", &perm);

    ck_assert_ptr_nonnull(bs);
    ck_assert_int_eq(blk_insert_bs(blk, bs, NULL), 0);
    bdrv_unref(bs);
    return blk;
}

static bool check_cut(BgSim *sim, const BgSimCrashState *state, void *opaque,
                      GError **errp)
{
    Run *run = opaque;
    BlockBackend *blk = backend_on(sim);
    bool ok = bgsim_check_durable(blk, run->model, errp);

    blk_unref(blk);
    return ok;
}

/* Run to the end, past all that is found.  Returns who found something. */
static const char *run_on(BgSim *sim)
{
    const char *oracle = NULL;

    while (!bgsim_run(sim, -1, NULL)) {
        oracle = bgsim_violated(sim, NULL);
        atomic_store(&sim->violated, false);
        g_clear_pointer(&sim->violation, g_free);
    }
    return oracle;
}

/* Returns who has found something, or NULL. */
static const char *run_plan(const Plan *plan, uint64_t seed)
{
    BgSimCrashConfig cuts = { .all_below = 64, .sample = 16 };
    BgSimDiskConfig disk = plan->disk;
    Run run = { .sim = bgsim_new(seed, NULL) };
    const char *oracle = NULL;

    disk.size = DISK_BYTES;
    run.disk = bgsim_disk_new(run.sim, "disk0", &disk);
    run.blk = backend_on(run.sim);
    run.model = bgsim_model_new(run.sim, run.blk, "disk", DISK_BYTES);
    if (plan->forgets) {
        bgsim_model_set_flush_forgets(run.model);
    }
    if (plan->unknown) {
        bgsim_model_set_unknown(run.model);
    }
    bgsim_fail_randomly(run.sim, plan->fail_permille, 1000);
    for (uint64_t step = 40; step < 400 && !plan->corrupt;
         step += 40) {
        bgsim_crash_at(run.sim, step, check_cut, &run, &cuts);
    }
    bgsim_guest_start(run.model, "g0", bgsim_thread(run.sim, "t0"),
                      &plan->guest);
    bgsim_guest_start(run.model, "g1", NULL, &plan->guest);
    oracle = run_on(run.sim);
    if (!oracle && plan->fail_permille == 0) {
        ck_assert(bgsim_check_map(run.sim, run.blk, NULL));
    }
    if (plan->corrupt) {
        ck_assert_ptr_null(oracle);
        bgsim_disk_corrupt(run.disk, 32 * 1024);
        ck_assert(!bgsim_check_equal(run.blk, run.model, NULL));
        oracle = "equal";
    }
    bgsim_settle(run.sim);
    blk_unref(run.blk);
    bgsim_free(run.sim);
    return oracle;
}

/* On all seeds nothing is found. */
static void accepted(const Plan *plan)
{
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        const char *oracle = run_plan(plan, seed);

        ck_assert_msg(!oracle, "seed %d: %s", (int)seed, oracle);
    }
}

/* On some seed something is found. */
static void found(const Plan *plan, const char *by)
{
    const char *oracle = NULL;

    for (uint64_t seed = 0; seed < SEEDS && !oracle; seed++) {
        oracle = run_plan(plan, seed);
    }
    ck_assert_msg(oracle != NULL, "nothing was found");
    ck_assert_str_eq(oracle, by);
}

/* --- maps ----------------------------------------------------------------- */

/* "astray" keeps its data where they are and says they are a sector on. */
static int coroutine_fn astray_open(BlockDriverState *bs,
                                    BlockOptions *options, unsigned flags,
                                    GError **errp)
{
    return bdrv_co_open_child(bs, options, "file",
                              BDRV_CHILD_DATA | BDRV_CHILD_PRIMARY, true, errp)
               ? 0
               : -EINVAL;
}

static int64_t coroutine_fn astray_getlength(BlockDriverState *bs)
{
    return bdrv_length(bdrv_child_bs(bdrv_primary_child(bs)));
}

static int coroutine_fn astray_preadv(BlockDriverState *bs, const BlockIO *io)
{
    return bdrv_co_preadv(bdrv_primary_child(bs), io->offset, io->bytes,
                          io->iov, io->flags);
}

static int coroutine_fn astray_block_status(BlockDriverState *bs,
                                            const BlockIO *io,
                                            BlockExtent *ret)
{
    bool last = io->offset == DISK_BYTES - 512;

    ret->bytes = last ? 512 : MIN(io->bytes, DISK_BYTES - 512 - io->offset);
    ret->status = BDRV_BLOCK_DATA | (last ? 0 : BDRV_BLOCK_OFFSET_VALID);
    ret->map = io->offset + 512;
    ret->file = bdrv_child_bs(bdrv_primary_child(bs));
    return 0;
}

static const BlockDriver astray = {
    .struct_size = sizeof(BlockDriver),
    .name = "astray",
    .kind = BLOCK_DRIVER_FORMAT,
    .open = astray_open,
    .getlength = astray_getlength,
    .preadv = astray_preadv,
    .block_status = astray_block_status,
};

START_TEST(a_map_that_leads_astray_is_found)
{
    BgSimDiskConfig config = { .size = DISK_BYTES };
    g_autoptr(GError) error = NULL;
    BgSim *sim = bgsim_new(1, NULL);
    BgSimDisk *disk = bgsim_disk_new(sim, "disk0", &config);
    BlockBackend *blk;

    blk = blk_open(bgsim_graph(sim),
                   block_options_parse_keyval(
                       "astray,read-only=on,file.driver=sim-disk,"
                       "file.disk=disk0,file.node-name=disk0", "driver", NULL),
                   &error);
    ck_assert_msg(blk != NULL, "%s", error ? error->message : "");
    ck_assert(bgsim_check_map(sim, blk, NULL));
    bgsim_disk_poke(disk, 1024, 5, "hello");
    ck_assert(!bgsim_check_map(sim, blk, &error));
    ck_assert_ptr_nonnull(strstr(error->message, "not at that place"));
    blk_unref(blk);
    bgsim_free(sim);
}
END_TEST

/* -------------------------------------------------------------------------- */

START_TEST(a_good_disk_is_good_at_every_cut)
{
    Plan plan = { .guest = { .fua_permille = 100 } };

    accepted(&plan);
    plan.disk.torn_read_permille = 500;
    plan.disk.slow_permille = 100;
    accepted(&plan);
    plan.disk.discard = BGSIM_DISCARD_ZEROES;
    accepted(&plan);
    plan.disk.discard = BGSIM_DISCARD_ANY;
    plan.disk.no_fua = true;
    plan.disk.no_zero_write = true;
    accepted(&plan);
}
END_TEST

START_TEST(noise_at_first_is_accepted_where_it_is_expected)
{
    Plan plan = { .disk = { .dirty_start = true }, .unknown = true };

    accepted(&plan);
}
END_TEST

START_TEST(noise_at_first_is_found_where_zeroes_were_promised)
{
    Plan plan = { .disk = { .dirty_start = true } };

    found(&plan, "register");
}
END_TEST

START_TEST(failures_are_accepted_where_they_are_expected)
{
    Plan plan = { .guest = { .fua_permille = 100, .errors_expected = true },
                  .fail_permille = 100 };

    accepted(&plan);
}
END_TEST

START_TEST(a_flush_that_lies_is_found_by_a_cut)
{
    Plan plan = { .disk = { .lying_flush = true } };

    found(&plan, "power-cut");
}
END_TEST

START_TEST(fua_that_lies_is_found_by_a_cut)
{
    Plan plan = { .disk = { .lying_fua = true },
                  .guest = { .fua_permille = 500 } };

    found(&plan, "power-cut");
}
END_TEST

START_TEST(a_disk_that_forgets_is_accepted_by_a_model_that_knows)
{
    Plan plan = { .disk = { .flush_mode = BGSIM_FLUSH_FORGET_CLEAN },
                  .guest = { .fua_permille = 100, .errors_expected = true,
                             .weight_write = 4, .weight_read = 4,
                             .weight_flush = 2 },
                  .fail_permille = 50, .forgets = true };

    accepted(&plan);
    plan.disk.flush_mode = BGSIM_FLUSH_FORGET_REVERT;
    accepted(&plan);
}
END_TEST

START_TEST(a_disk_that_forgets_is_found_by_a_model_that_does_not)
{
    Plan plan = { .disk = { .flush_mode = BGSIM_FLUSH_FORGET_CLEAN },
                  .guest = { .requests = 200, .errors_expected = true,
                             .weight_write = 4, .weight_flush = 3 },
                  .fail_permille = 200 };

    found(&plan, "power-cut");
}
END_TEST

START_TEST(one_flipped_bit_is_found)
{
    Plan plan = { .corrupt = true };

    found(&plan, "equal");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sim-oracle-disk");
    TCase *tcase = tcase_create("oracle-disk");

    if (bdrv_register(&astray, NULL) < 0) {
        return EXIT_FAILURE;
    }
    tcase_set_timeout(tcase, 300);
    PROMISE(tcase, a_good_disk_is_good_at_every_cut);
    PROMISE(tcase, noise_at_first_is_accepted_where_it_is_expected);
    PROMISE(tcase, noise_at_first_is_found_where_zeroes_were_promised);
    PROMISE(tcase, failures_are_accepted_where_they_are_expected);
    PROMISE(tcase, a_flush_that_lies_is_found_by_a_cut);
    PROMISE(tcase, fua_that_lies_is_found_by_a_cut);
    PROMISE(tcase, a_disk_that_forgets_is_accepted_by_a_model_that_knows);
    PROMISE(tcase, a_disk_that_forgets_is_found_by_a_model_that_does_not);
    PROMISE(tcase, one_flipped_bit_is_found);
    PROMISE(tcase, a_map_that_leads_astray_is_found);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
