/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The simulated world: determinism, time, choices, hangs, holds.
 */
#include "check-main.h"

#include <blockgraph/sim-fault.h>
#include <blockgraph/sim-oracle.h>
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

START_TEST(every_strategy_is_repeatable_and_another_one)
{
    uint64_t hashes[BGSIM_STRATEGY_EXHAUSTIVE + 1];

    for (int i = BGSIM_STRATEGY_FIFO; i <= BGSIM_STRATEGY_EXHAUSTIVE; i++) {
        BgSimConfig config = { .strategy = i };

        hashes[i] = run_once(7, &config);
        ck_assert_uint_eq(run_once(7, &config), hashes[i]);
    }
    ck_assert_uint_ne(hashes[BGSIM_STRATEGY_FIFO],
                      hashes[BGSIM_STRATEGY_UNIFORM]);
    ck_assert_uint_ne(hashes[BGSIM_STRATEGY_UNIFORM],
                      hashes[BGSIM_STRATEGY_PCT]);
}
END_TEST

START_TEST(real_threads_run_the_same_code)
{
    BgSimConfig config = { .threads = true };

    run_once(1, &config);
}
END_TEST

/* --- time and tasks ------------------------------------------------------- */

static void coroutine_fn sleeper_entry(BgSim *sim, void *opaque)
{
    co_sleep_ns(*(int64_t *)opaque);
    *(int64_t *)opaque = bgsim_now_ns(sim);
}

START_TEST(days_pass_in_no_time)
{
    BgSimConfig config = { .strategy = BGSIM_STRATEGY_FIFO };
    BgSim *sim = bgsim_new(1, &config);
    int64_t day = INT64_C(86400) * 1000000000;
    int64_t a = 3 * day, b = day;

    ck_assert_uint_eq(bgsim_seed(sim), 1);
    ck_assert(!bgsim_is_threads(sim));
    ck_assert_int_eq(bgsim_now_ns(sim), 0);
    bgsim_spawn(sim, "a", NULL, sleeper_entry, &a);
    bgsim_spawn(sim, "b", bgsim_thread(sim, "io"), sleeper_entry, &b);
    ck_assert_uint_eq(bgsim_tasks(sim), 2);
    ck_assert(bgsim_run(sim, 2 * day, NULL));
    ck_assert_int_eq(bgsim_now_ns(sim), 2 * day);
    ck_assert_uint_eq(bgsim_tasks(sim), 1);
    ck_assert(bgsim_run(sim, -1, NULL));
    ck_assert_int_eq(a, 3 * day);
    ck_assert_int_eq(b, day);
    ck_assert_uint_gt(bgsim_steps(sim), 0);
    ck_assert(!bgsim_step(sim));
    bgsim_free(sim);
}
END_TEST

static void coroutine_fn where_entry(BgSim *sim, void *opaque)
{
    AioContext **seen = opaque;

    seen[0] = aio_get_current();
    bgsim_yield(sim);
    aio_co_reschedule_self(bgsim_main_context(sim));
    seen[1] = aio_get_current();
}

START_TEST(a_task_runs_in_its_thread_and_can_move)
{
    BgSim *sim = bgsim_new(1, NULL);
    AioContext *io = bgsim_thread(sim, "io");
    AioContext *seen[2] = { NULL, NULL };

    ck_assert_ptr_eq(bgsim_thread_get(sim, "io"), io);
    ck_assert_ptr_ne(bgsim_thread_get(sim, "other"), io);
    ck_assert(!aio_context_in_home(io));
    ck_assert(aio_context_in_home(bgsim_main_context(sim)));
    bgsim_spawn(sim, "mover", io, where_entry, seen);
    ck_assert(bgsim_run(sim, -1, NULL));
    ck_assert_ptr_eq(seen[0], io);
    ck_assert_ptr_eq(seen[1], bgsim_main_context(sim));
    bgsim_free(sim);
}
END_TEST

/* --- choices -------------------------------------------------------------- */

START_TEST(choices_are_below_their_bound_and_never_is_never)
{
    static const uint64_t bounds[] = { 3, 1, 1000 };
    BgSim *sim = bgsim_new(5, NULL);
    int64_t sum = 0;

    for (int i = 0; i < 1000; i++) {
        uint64_t values[3];
        int64_t range = bgsim_range(sim, "range", -2, 2);

        ck_assert_uint_lt(bgsim_draw(sim, "a", 10), 10);
        bgsim_draw_group(sim, "group", bounds, values, 3);
        ck_assert(values[0] < 3 && values[1] == 0 && values[2] < 1000);
        ck_assert(range >= -2 && range <= 2);
        ck_assert(!bgsim_chance(sim, "never", 0));
        ck_assert(bgsim_chance(sim, "always", 1000));
        sum += bgsim_chance(sim, "half", 500);
    }
    ck_assert(sum > 400 && sum < 600);
    bgsim_free(sim);
}
END_TEST

/* --- violations ----------------------------------------------------------- */

static void coroutine_fn circle_entry(BgSim *sim, void *opaque)
{
    CoMutex *mutexes = opaque;

    co_mutex_lock(&mutexes[0]);
    co_sleep_ns(1000);
    co_mutex_lock(&mutexes[1]);
}

static void coroutine_fn other_way_entry(BgSim *sim, void *opaque)
{
    CoMutex *mutexes = opaque;

    co_mutex_lock(&mutexes[1]);
    co_sleep_ns(1000);
    co_mutex_lock(&mutexes[0]);
}

/* What failed is not taken down; each of these tests has its own process. */
START_TEST(a_deadlock_is_told_with_who_holds_what)
{
    BgSim *sim = bgsim_new(1, NULL);
    CoMutex mutexes[2];
    g_autoptr(GError) error = NULL;
    const char *message;
    g_autofree char *waits = NULL;

    co_mutex_init(&mutexes[0]);
    co_mutex_init(&mutexes[1]);
    bgsim_spawn(sim, "one", NULL, circle_entry, mutexes);
    bgsim_spawn(sim, "two", NULL, other_way_entry, mutexes);
    ck_assert(!bgsim_run(sim, -1, &error));
    /* The lock order speaks before the circle is closed. */
    ck_assert_str_eq(bgsim_violated(sim, &message), "lock-order");
    ck_assert_str_eq(error->message, message);
    waits = bgsim_describe_waits(sim);
    ck_assert_ptr_nonnull(strstr(waits, "waits for CoMutex, held by"));
}
END_TEST

static void coroutine_fn forever_entry(BgSim *sim, void *opaque)
{
    CoQueue queue;

    co_queue_init(&queue);
    co_queue_wait(&queue, NULL);
}

START_TEST(a_task_that_nobody_wakes_is_a_hang)
{
    BgSim *sim = bgsim_new(1, NULL);
    g_autoptr(GError) error = NULL;

    bgsim_spawn(sim, "lonely", NULL, forever_entry, NULL);
    ck_assert(!bgsim_run(sim, -1, &error));
    ck_assert_str_eq(bgsim_violated(sim, NULL), "hang");
    ck_assert_ptr_nonnull(strstr(error->message, "lonely (begun by world) "
                                                 "waits for CoQueue"));
}
END_TEST

static void coroutine_fn busy_entry(BgSim *sim, void *opaque)
{
    for (;;) {
        bgsim_yield(sim);
    }
}

START_TEST(a_task_that_gets_nothing_done_is_a_live_lock)
{
    BgSimConfig config = { .stall_steps = 1000 };
    BgSim *sim = bgsim_new(1, &config);

    bgsim_spawn(sim, "busy", NULL, busy_entry, NULL);
    ck_assert(!bgsim_run(sim, -1, NULL));
    ck_assert_str_eq(bgsim_violated(sim, NULL), "live-lock");
}
END_TEST

START_TEST(the_first_violation_counts)
{
    BgSim *sim = bgsim_new(1, NULL);
    const char *message = NULL;

    ck_assert_ptr_null(bgsim_violated(sim, &message));
    bgsim_violation(sim, "first", "%d", 1);
    bgsim_violation(sim, "second", "%d", 2);
    ck_assert_str_eq(bgsim_violated(sim, &message), "first");
    ck_assert_str_eq(message, "first: 1");
    bgsim_free(sim);
}
END_TEST

static int oracle_steps;

static void oracle_step(BgSim *sim, void *opaque)
{
    oracle_steps++;
}

/* --- places --------------------------------------------------------------- */

static BgSim *world;
static BlockDriverState *node;
static BlockBackend *blk;

static void open_null(void)
{
    BlockPerm perm = { BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                       BLK_PERM_ALL };

    world = bgsim_new(3, NULL);
    node = bdrv_open(bgsim_graph(world),
                     opts("null-co,node-name=node,size=64k"), NULL);
    blk = blk_new(bgsim_graph(world), "guest", &perm);
    ck_assert_int_eq(blk_insert_bs(blk, node, NULL), 0);
}

static void close_null(void)
{
    blk_unref(blk);
    bdrv_unref(node);
    bgsim_free(world);
}

static int read_one(void)
{
    char buf[512];

    return blk_pread(blk, 0, sizeof(buf), buf, 0);
}

START_TEST(a_rule_makes_the_calls_fail_that_it_names)
{
    BgSimRule *rule;

    open_null();
    rule = bgsim_fail(world, "point:io.preadv@node", ENOSPC);
    ck_assert_int_eq(read_one(), -ENOSPC);
    bgsim_rule_nth(rule, 1, 2);
    ck_assert_int_eq(read_one(), 0);
    ck_assert_int_eq(read_one(), -ENOSPC);
    ck_assert_int_eq(read_one(), -ENOSPC);
    ck_assert_int_eq(read_one(), 0);
    ck_assert_uint_eq(bgsim_rule_hits(rule), 3);
    bgsim_rule_nth(rule, 0, 0);
    bgsim_rule_after(rule);
    ck_assert_int_eq(read_one(), -ENOSPC);
    bgsim_rule_off(rule);
    ck_assert_int_eq(read_one(), 0);
    rule = bgsim_fail(world, "point:io.preadv@another", EIO);
    ck_assert_int_eq(read_one(), 0);
    ck_assert_uint_eq(bgsim_rule_hits(rule), 0);
    close_null();
}
END_TEST

START_TEST(a_place_that_does_not_exist_is_a_violation)
{
    static const char *const wrong[] = {
        "", "disk0", "disk0:fly", "disk0:read@x+1", "disk0:read@0+0",
        "point:no.such", "disk0:read@0",
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(wrong); i++) {
        BgSim *sim = bgsim_new(1, NULL);

        ck_assert_ptr_null(bgsim_fail(sim, wrong[i], EIO));
        ck_assert_str_eq(bgsim_violated(sim, NULL), "usage");
        bgsim_free(sim);
    }
}
END_TEST

static void coroutine_fn reader_entry(BgSim *sim, void *opaque)
{
    char buf[512];

    *(int *)opaque = blk_co_pread(blk, 0, sizeof(buf), buf, 0) < 0 ? -1 : 1;
}

START_TEST(a_hold_keeps_whoever_comes_until_the_release)
{
    int done[2] = { 0, 0 };

    open_null();
    bgsim_hold(world, "point:io.preadv", "here");
    bgsim_spawn(world, "r0", NULL, reader_entry, &done[0]);
    bgsim_spawn(world, "r1", bgsim_thread(world, "io"), reader_entry,
                &done[1]);
    while (bgsim_step(world)) {
    }
    ck_assert(!done[0] && !done[1]);
    ck_assert_uint_eq(bgsim_held(world, "here"), 2);
    bgsim_release(world, "here");
    ck_assert(bgsim_run(world, -1, NULL));
    ck_assert(done[0] == 1 && done[1] == 1);
    ck_assert_uint_eq(bgsim_held(world, "here"), 0);
    close_null();
}
END_TEST

START_TEST(settling_ends_faults_and_holds)
{
    int done = 0;

    open_null();
    bgsim_fail_randomly(world, 1000, 1000);
    ck_assert_int_lt(read_one(), 0);
    bgsim_hold(world, "point:io.preadv", "here");
    bgsim_spawn(world, "r", NULL, reader_entry, &done);
    while (bgsim_step(world)) {
    }
    ck_assert_int_eq(done, 0);
    ck_assert(!bgsim_is_settling(world));
    bgsim_settle(world);
    ck_assert(bgsim_is_settling(world));
    ck_assert(bgsim_run(world, -1, NULL));
    ck_assert_int_eq(read_one(), 0);
    close_null();
}
END_TEST

START_TEST(points_know_what_happened_there)
{
    bool seen = false;

    open_null();
    bgsim_rule_nth(bgsim_fail(world, "point:io.preadv", EIO), 0, 1);
    ck_assert_int_eq(read_one(), -EIO);
    ck_assert_int_eq(read_one(), 0);
    for (unsigned i = 0; i < bgsim_nr_sites(); i++) {
        BgSimSiteInfo info;

        bgsim_get_site(i, &info);
        ck_assert(info.name && info.file && info.line > 0);
        if (strcmp(info.name, "io.preadv") == 0) {
            seen = true;
            ck_assert(info.can_fail);
            ck_assert_uint_ge(info.executed, 2);
            ck_assert_uint_eq(info.failed, 1);
            ck_assert_uint_eq(info.failed_once, 1);
        }
    }
    ck_assert(seen);
    close_null();
}
END_TEST

START_TEST(an_oracle_looks_after_every_step)
{
    BgSimOracle oracle = { .name = "counter", .step = oracle_step };
    int done = 0;

    open_null();
    oracle_steps = 0;
    bgsim_add_oracle(world, &oracle);
    bgsim_spawn(world, "r", NULL, reader_entry, &done);
    ck_assert(bgsim_run(world, -1, NULL));
    ck_assert_int_gt(oracle_steps, 0);
    ck_assert_int_le(oracle_steps, bgsim_steps(world));
    close_null();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sim");
    TCase *tcase = tcase_create("sim");

    tcase_set_timeout(tcase, 120);
    PROMISE(tcase, one_seed_makes_one_run);
    PROMISE(tcase, every_strategy_is_repeatable_and_another_one);
    PROMISE(tcase, real_threads_run_the_same_code);
    PROMISE(tcase, days_pass_in_no_time);
    PROMISE(tcase, a_task_runs_in_its_thread_and_can_move);
    PROMISE(tcase, choices_are_below_their_bound_and_never_is_never);
    PROMISE(tcase, a_deadlock_is_told_with_who_holds_what);
    PROMISE(tcase, a_task_that_nobody_wakes_is_a_hang);
    PROMISE(tcase, a_task_that_gets_nothing_done_is_a_live_lock);
    PROMISE(tcase, the_first_violation_counts);
    PROMISE(tcase, a_rule_makes_the_calls_fail_that_it_names);
    PROMISE(tcase, a_place_that_does_not_exist_is_a_violation);
    PROMISE(tcase, a_hold_keeps_whoever_comes_until_the_release);
    PROMISE(tcase, settling_ends_faults_and_holds);
    PROMISE(tcase, points_know_what_happened_there);
    PROMISE(tcase, an_oracle_looks_after_every_step);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
