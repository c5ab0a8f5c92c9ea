/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The supervisor: failures are found, told, shrunk, stored and replayed;
 * children may crash or hang; all orders of a small scenario are tried.
 */
#include "check-main.h"

#include <blockgraph/error.h>
#include <errno.h>
#include <glib/gstdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim/scenarios/scenarios.h"
#include "sim/supervise.h"

#define MS (INT64_C(1000) * 1000)

/* --- small scenarios ------------------------------------------------------ */

static void coroutine_fn nothing_entry(BgSim *sim, void *opaque)
{
    bgsim_trace(sim, "nothing", GPOINTER_TO_UINT(opaque), 0);
}

static void spawn_nothing(BgSim *sim, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        g_autofree char *name = g_strdup_printf("task%u", i);

        bgsim_spawn(sim, name, NULL, nothing_entry, GUINT_TO_POINTER(i));
    }
}

static void three_setup(BgSim *sim, void *state)
{
    spawn_nothing(sim, 3);
}

static const BgSimScenario three = { .name = "three", .setup = three_setup };

/* Seed 5 aborts in a coroutine, seed 7 hangs in real time. */
static void bad_setup(BgSim *sim, void *state)
{
    bgsim_draw(sim, "something", 1000);
    if (bgsim_seed(sim) == 5) {
        g_error("seed 5 is a bad seed");
    }
    while (bgsim_seed(sim) == 7) {
        pause(); /* for ever: that it hangs is what is tested */
    }
    spawn_nothing(sim, 2);
}

static const BgSimScenario bad = { .name = "bad", .setup = bad_setup };

/* What a test must never do. */
static void address_setup(BgSim *sim, void *state)
{
    char on_stack = 0;

    bgsim_trace(sim, "address", (uintptr_t)&on_stack, 0);
}

static const BgSimScenario address = { .name = "address",
                                       .setup = address_setup };

/* A bug of order: the third must not be first. */
typedef struct Order {
    bool first_ran;
    bool third_was_first;
} Order;

static void coroutine_fn first_entry(BgSim *sim, void *opaque)
{
    Order *order = opaque;

    order->first_ran = true;
}

static void coroutine_fn third_entry(BgSim *sim, void *opaque)
{
    Order *order = opaque;

    if (!order->first_ran) {
        bgsim_violation(sim, "order", "the third ran before the first");
    }
}

static void order_setup(BgSim *sim, void *state)
{
    bgsim_spawn(sim, "first", NULL, first_entry, state);
    bgsim_spawn(sim, "second", NULL, nothing_entry, NULL);
    bgsim_spawn(sim, "third", NULL, third_entry, state);
}

static const BgSimScenario order = { .name = "order",
                                     .state_size = sizeof(Order),
                                     .setup = order_setup };

/* --- many runs ------------------------------------------------------------ */

static void run_batch(const BgSimScenario *scenario, uint64_t first,
                      uint64_t seeds, SimBatchResult *result)
{
    const BgSimScenario *list[] = { scenario, NULL };
    SimBatch batch = { .scenarios = list, .first = first, .seeds = seeds,
                       .jobs = 2,
                       .timeout_ns = scenario == &bad ? 1000 * MS : 0 };

    sim_batch_run(&batch, result);
}

static const BgSimResult *failure(const SimBatchResult *result, guint i)
{
    return &g_array_index(result->failures, SimFailure, i).result;
}

START_TEST(all_seeds_of_a_good_scenario_pass)
{
    SimBatchResult result;

    run_batch(&scenario_smoke, 100, 50, &result);
    ck_assert_uint_eq(result.passed, 50);
    ck_assert_uint_eq(result.failures->len, 0);
    ck_assert_uint_eq(result.stats.runs, 50);
    ck_assert_uint_gt(result.stats.guest_ops, 50);
    ck_assert_uint_gt(result.stats.steps, result.stats.guest_ops);
    sim_batch_clear(&result);
}
END_TEST

START_TEST(the_sums_do_not_depend_on_how_many_jobs_there_are)
{
    const BgSimScenario *list[] = { &scenario_smoke, &three, NULL };
    uint64_t hash = 0;

    for (unsigned jobs = 1; jobs <= 3; jobs++) {
        SimBatch batch = { .scenarios = list, .seeds = 30, .jobs = jobs };
        SimBatchResult result;

        sim_batch_run(&batch, &result);
        ck_assert_uint_eq(result.passed, 60);
        ck_assert(jobs == 1 || result.stats.hash == hash);
        hash = result.stats.hash;
        sim_batch_clear(&result);
    }
}
END_TEST

START_TEST(a_crash_and_a_hang_are_told_with_their_seeds_and_the_rest_goes_on)
{
    SimBatchResult result;
    const BgSimResult *crash;
    const BgSimResult *hang;

    run_batch(&bad, 0, 20, &result);
    ck_assert_uint_eq(result.passed, 18);
    ck_assert_uint_eq(result.failures->len, 2);
    crash = failure(&result, failure(&result, 0)->seed == 5 ? 0 : 1);
    hang = failure(&result, failure(&result, 0)->seed == 5 ? 1 : 0);
    ck_assert_uint_eq(crash->seed, 5);
    ck_assert_str_eq(crash->oracle, "crash");
    ck_assert_msg(strstr(crash->message, "seed 5 is a bad seed"), "%s",
                  crash->message);
    ck_assert_uint_eq(hang->seed, 7);
    ck_assert_str_eq(hang->oracle, "timeout");
    sim_batch_clear(&result);
}
END_TEST

/* All say something; seed 3 ends its process as if all were well. */
static void leaver_setup(BgSim *sim, void *state)
{
    if (bgsim_seed(sim) == 3) {
        exit(0);
    }
    fprintf(stderr, "seed %u was here\n", (unsigned)bgsim_seed(sim));
    if (bgsim_seed(sim) == 2) {
        abort();
    }
}

static const BgSimScenario leaver = { .name = "leaver",
                                      .setup = leaver_setup };

START_TEST(a_run_that_exits_has_failed_and_the_rest_goes_on)
{
    const BgSimScenario *list[] = { &leaver, NULL };
    SimBatch batch = { .scenarios = list, .first = 3, .seeds = 5 };
    SimBatchResult result;

    sim_batch_run(&batch, &result);
    ck_assert_uint_eq(result.passed, 4);
    ck_assert_uint_eq(result.failures->len, 1);
    ck_assert_uint_eq(failure(&result, 0)->seed, 3);
    ck_assert_str_eq(failure(&result, 0)->oracle, "crash");
    sim_batch_clear(&result);
}
END_TEST

START_TEST(the_message_of_a_crash_is_what_that_run_has_said)
{
    const BgSimScenario *list[] = { &leaver, NULL };
    SimBatch batch = { .scenarios = list, .seeds = 3 };
    SimBatchResult result;

    sim_batch_run(&batch, &result);
    ck_assert_uint_eq(result.failures->len, 1);
    ck_assert_msg(strstr(failure(&result, 0)->message, "seed 2") &&
                  !strstr(failure(&result, 0)->message, "seed 1"), "%s",
                  failure(&result, 0)->message);
    sim_batch_clear(&result);
}
END_TEST

#ifdef __SANITIZE_ADDRESS__
static void loser_setup(BgSim *sim, void *state)
{
    void *volatile lost = malloc(1000);

    memset(lost, 1, 1000);
    lost = NULL;
}

static const BgSimScenario loser = { .name = "loser", .setup = loser_setup };

START_TEST(memory_that_a_run_loses_is_told)
{
    SimBatchResult result;

    run_batch(&loser, 0, 40, &result);
    ck_assert_uint_ge(result.failures->len, 1);
    ck_assert_str_eq(failure(&result, 0)->oracle, "leak");
    sim_batch_clear(&result);
    run_batch(&scenario_smoke, 0, 40, &result);
    ck_assert_uint_eq(result.failures->len, 0);
    sim_batch_clear(&result);
}
END_TEST
#endif

static unsigned nondeterministic_runs(const BgSimScenario *scenario)
{
    const BgSimScenario *list[] = { scenario, NULL };
    SimBatch batch = { .scenarios = list, .seeds = 5,
                       .check_determinism = true };
    SimBatchResult result;
    unsigned n;

    sim_batch_run(&batch, &result);
    n = result.failures->len;
    for (unsigned i = 0; i < n; i++) {
        ck_assert_str_eq(failure(&result, i)->oracle, "determinism");
    }
    sim_batch_clear(&result);
    return n;
}

START_TEST(a_run_that_looks_at_an_address_is_noticed)
{
    ck_assert_uint_eq(nondeterministic_runs(&address), 5);
    ck_assert_uint_eq(nondeterministic_runs(&scenario_smoke), 0);
}
END_TEST

START_TEST(a_batch_stops_at_its_limit_of_failures)
{
    const BgSimScenario *list[] = { &address, &scenario_canary, NULL };
    SimBatch batch = { .scenarios = list + 1, .jobs = 1, .max_failures = 2 };
    SimBatchResult result;

    sim_batch_run(&batch, &result);
    ck_assert_uint_eq(result.failures->len, 2);
    ck_assert_uint_eq(result.passed + 2, result.stats.runs);
    sim_batch_clear(&result);
}
END_TEST

/* --- shrinking and files -------------------------------------------------- */

static uint64_t a_bad_seed(void)
{
    const BgSimScenario *list[] = { &scenario_canary, NULL };
    SimBatch batch = { .scenarios = list, .max_failures = 1 };
    SimBatchResult result;
    uint64_t seed;

    sim_batch_run(&batch, &result);
    seed = failure(&result, 0)->seed;
    sim_batch_clear(&result);
    return seed;
}

static char *in_new_dir(const char *name, char **ret_dir)
{
    *ret_dir = g_dir_make_tmp("bgsim-XXXXXX", NULL);
    ck_assert_ptr_nonnull(*ret_dir);
    return g_build_filename(*ret_dir, name, NULL);
}

START_TEST(about_one_seed_in_a_hundred_kills_the_canary)
{
    SimBatchResult result;

    run_batch(&scenario_canary, 0, 1000, &result);
    ck_assert_uint_gt(result.failures->len, 2);
    ck_assert_uint_lt(result.failures->len, 30);
    ck_assert_str_eq(failure(&result, 0)->oracle, "canary");
    sim_batch_clear(&result);
}
END_TEST

START_TEST(a_failure_is_shrunk_to_the_choices_that_matter)
{
    SimHow how = { .scenario = &scenario_canary, .seed = a_bad_seed() };
    SimShrunk shrunk;

    sim_shrink(&how, 0, NULL, &shrunk);
    ck_assert_ptr_nonnull(shrunk.tape);
    ck_assert_uint_gt(shrunk.choices_before, 10);
    ck_assert_uint_eq(shrunk.choices, 2);
    ck_assert_str_eq(shrunk.result.oracle, "canary");
    tape_free(shrunk.tape);
}
END_TEST

START_TEST(the_file_of_a_failure_fails_in_the_same_way)
{
    SimHow how = { .scenario = &scenario_canary, .seed = a_bad_seed() };
    SimTrierConfig config = { 0 };
    g_autofree char *dir = NULL;
    g_autofree char *path = in_new_dir("c.bgs", &dir);
    g_autofree char *notes = NULL;
    g_autoptr(SimRegress) regress = NULL;
    SimShrunk shrunk;
    BgSimResult result;

    sim_shrink(&how, 0, NULL, &shrunk);
    ck_assert_int_eq(sim_regress_save(&how, &shrunk, path, NULL), 0);
    regress = sim_regress_load(path, NULL);
    ck_assert_ptr_nonnull(regress);
    sim_regress_run(regress, &scenario_canary, &config, &result, &notes);
    ck_assert(sim_same_failure(&result, &shrunk.result));
    ck_assert_uint_eq(result.trace_hash, shrunk.result.trace_hash);
    ck_assert_str_eq(notes, "");
    tape_free(shrunk.tape);
    g_unlink(path);
    g_rmdir(dir);
}
END_TEST

/* A seed for which the scheduler finds the bug of order. */
static void shrink_order(SimHow *how, SimShrunk *shrunk)
{
    SimBatchResult result;

    run_batch(&order, 0, 50, &result);
    ck_assert_uint_gt(result.failures->len, 0);
    *how = (SimHow){ .scenario = &order, .seed = failure(&result, 0)->seed };
    sim_batch_clear(&result);
    sim_shrink(how, 0, NULL, shrunk);
    ck_assert_ptr_nonnull(shrunk->tape);
}

START_TEST(decisions_of_the_scheduler_are_kept_by_name)
{
    g_autofree char *dir = NULL;
    g_autofree char *path = in_new_dir("o.bgs", &dir);
    g_autofree char *text = NULL;
    SimShrunk shrunk;
    SimHow how;

    shrink_order(&how, &shrunk);
    ck_assert_int_eq(sim_regress_save(&how, &shrunk, path, NULL), 0);
    ck_assert(g_file_get_contents(path, &text, NULL, NULL));
    ck_assert_msg(strstr(text, "\nsched @0 2/3 third run\n"), "%s", text);
    tape_free(shrunk.tape);
    g_unlink(path);
    g_rmdir(dir);
}
END_TEST

static SimRegress *parse(const char *text, GError **errp)
{
    return sim_regress_parse(text, "x.bgs", errp);
}

#define HEAD "bgs 1\nscenario order\nlibrary 0.0.1\nstrategy fifo\nseed 3\ntape\n"

START_TEST(a_decision_applies_by_name_wherever_its_actor_stands)
{
    g_autoptr(SimRegress) regress =
        parse(HEAD "sched @0 1/2 third run\n", NULL);
    SimTrierConfig config = { 0 };
    g_autofree char *notes = NULL;
    BgSimResult result;

    ck_assert_ptr_nonnull(regress);
    sim_regress_run(regress, &order, &config, &result, &notes);
    ck_assert(result.failed);
    ck_assert_str_eq(result.oracle, "order");
    ck_assert_str_eq(notes, "");
}
END_TEST

START_TEST(what_no_longer_applies_is_listed)
{
    g_autoptr(SimRegress) regress =
        parse(HEAD "gone 1/2 x3\nsched @0 1/2 fourth run\n"
                   "sched @1 1/2 third timer\nsched @99 1/2 third run\n",
              NULL);
    SimTrierConfig config = { 0 };
    g_autofree char *notes = NULL;
    BgSimResult result;

    ck_assert_ptr_nonnull(regress);
    sim_regress_run(regress, &order, &config, &result, &notes);
    ck_assert(!result.failed);
    ck_assert_ptr_nonnull(strstr(notes, "'sched @0 1/2 fourth run': not ready"));
    ck_assert_ptr_nonnull(strstr(notes, "'sched @1 1/2 third timer': not ready"));
    ck_assert_ptr_nonnull(strstr(notes, "'sched @99 1/2 third run': the run "
                                        "ended"));
    ck_assert_ptr_nonnull(strstr(notes, "'gone': only 0 of its 3 choices"));
}
END_TEST

START_TEST(bad_files_are_refused_with_the_line)
{
    static const struct {
        const char *text;
        const char *message;
    } bad_files[] = {
        { "", "without the line 'bgs'" },
        { "hello\n", "x.bgs:1: a regression file begins" },
        { "bgs 2\n", "x.bgs:1: the file has format version 2, this program reads 1" },
        { "bgs one\n", "x.bgs:1: 'one'" },
        { "# why\nbgs 1\nfoo bar\n", "x.bgs:3: 'foo' is none of" },
        { "bgs 1\nscenario\n", "x.bgs:2: 'scenario' has no value" },
        { "bgs 1\nstrategy best\n", "x.bgs:2: 'best' is no strategy" },
        { "bgs 1\nseed 1x\n", "x.bgs:2: '1x' is no seed" },
        { "bgs 1\nscenario a\n", "without the line 'library'" },
        { HEAD "a 3/2\n", "x.bgs:7: the value of '3/2'" },
        { HEAD "a 1/2\nb 1\n", "x.bgs:8: '1' is no choice" },
        { HEAD "sched 1/2\n", "x.bgs:7: a decision is" },
        { HEAD "sched @5 1/2 a run\nsched @5 1/2 b run\n", "x.bgs:8: decisions are in order" },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(bad_files); i++) {
        g_autoptr(GError) error = NULL;

        ck_assert_ptr_null(parse(bad_files[i].text, &error));
        ck_assert_msg(strstr(error->message, bad_files[i].message),
                      "%s (wanted: %s)", error->message, bad_files[i].message);
    }
}
END_TEST

START_TEST(messages_that_differ_in_numbers_tell_of_one_failure)
{
    BgSimResult a = { .failed = true, .oracle = "x",
                      .message = "sector 17 is 3 but was 4 and more" };
    BgSimResult b = a;

    g_strlcpy(b.message, "sector 18 is 9 but had been", sizeof(b.message));
    ck_assert(sim_same_failure(&a, &b));
    g_strlcpy(b.message, "sector 18 was 9", sizeof(b.message));
    ck_assert(!sim_same_failure(&a, &b));
    b = a;
    g_strlcpy(b.oracle, "y", sizeof(b.oracle));
    ck_assert(!sim_same_failure(&a, &b));
    b = a;
    b.failed = false;
    ck_assert(!sim_same_failure(&a, &b));
}
END_TEST

START_TEST(a_crash_is_shrunk_too)
{
    SimHow how = { .scenario = &bad, .seed = 5 };
    SimShrunk shrunk;

    sim_shrink(&how, 0, NULL, &shrunk);
    ck_assert_ptr_nonnull(shrunk.tape);
    ck_assert_str_eq(shrunk.result.oracle, "crash");
    ck_assert_uint_eq(shrunk.choices, 0);
    tape_free(shrunk.tape);
}
END_TEST

/* --- all of something ----------------------------------------------------- */

START_TEST(all_orders_of_three_tasks_are_six)
{
    ck_assert_int_eq(bgsim_explore(&three, 0, 10, 0, NULL), 6);
}
END_TEST

START_TEST(the_bound_of_preemptions_cuts_the_tree)
{
    ck_assert_int_eq(bgsim_explore(&three, 0, 0, 0, NULL), 1);
    ck_assert_int_eq(bgsim_explore(&three, 0, 1, 0, NULL), 4);
    ck_assert_int_eq(bgsim_explore(&three, 0, 2, 0, NULL), 6);
    ck_assert_int_eq(bgsim_explore(&three, 0, 10, 5, NULL), 5);
}
END_TEST

START_TEST(exploring_finds_a_bug_of_order)
{
    g_autoptr(GError) error = NULL;

    ck_assert_int_gt(bgsim_explore(&order, 0, 0, 0, NULL), 0);
    ck_assert_int_lt(bgsim_explore(&order, 0, 1, 0, &error), 0);
    ck_assert_msg(strstr(error->message, "the third ran before the first"),
                  "%s", error->message);
}
END_TEST

/* A guest that reads four times, and takes errors or does not. */
typedef struct Reader {
    BlockBackend *blk;
    unsigned errors;
} Reader;

#define READS 4

static unsigned errors_allowed = G_MAXUINT;
static unsigned *nr_setups;  /* shared with children */

static void coroutine_fn reader_entry(BgSim *sim, void *opaque)
{
    Reader *reader = opaque;
    char buf[512];

    for (unsigned i = 0; i < READS; i++) {
        reader->errors += blk_co_pread(reader->blk, 0, sizeof(buf), buf, 0) < 0;
        if (reader->errors > errors_allowed) {
            bgsim_violation(sim, "guest", "too many errors");
        }
    }
}

static void reader_setup(BgSim *sim, void *state)
{
    Reader *reader = state;
    BlockDriverState *bs = scenario_open(sim, "null-co");

    *nr_setups += 1;
    reader->blk = scenario_backend(sim, "b", bs);
    bdrv_unref(bs);
    bgsim_spawn(sim, "reader", NULL, reader_entry, reader);
}

static void reader_verify(BgSim *sim, void *state)
{
    blk_unref(((Reader *)state)->blk);
}

static const BgSimScenario reader_scenario = {
    .name = "reader",
    .state_size = sizeof(Reader),
    .setup = reader_setup,
    .verify = reader_verify,
};

START_TEST(each_call_fails_until_none_is_left)
{
    nr_setups = sim_shared_new(sizeof(*nr_setups));
    ck_assert(bgsim_fail_each(&reader_scenario, "point:io.preadv", EIO, NULL));
    /* Each once and for good; then one that is not reached. */
    ck_assert_uint_eq(*nr_setups, 2 * READS + 1);
    sim_shared_free(nr_setups, sizeof(*nr_setups));
}
END_TEST

START_TEST(a_run_that_does_not_take_a_failure_is_told)
{
    g_autoptr(GError) error = NULL;

    nr_setups = sim_shared_new(sizeof(*nr_setups));
    errors_allowed = 1;  /* so only "and all after it" is too much */
    ck_assert(!bgsim_fail_each(&reader_scenario, "point:io.preadv", EIO,
                               &error));
    sim_shared_free(nr_setups, sizeof(*nr_setups));
    ck_assert_msg(strstr(error->message, "call 1 at 'point:io.preadv' fails, "
                                         "and all after it"), "%s",
                  error->message);
}
END_TEST

START_TEST(a_place_that_does_not_exist_is_an_error)
{
    g_autoptr(GError) error = NULL;

    ck_assert(!bgsim_fail_each(&three, "point:no.such", EIO, &error));
    ck_assert_ptr_nonnull(strstr(error->message, "names no place"));
}
END_TEST

/* --- for programs --------------------------------------------------------- */

START_TEST(one_run_in_this_process_has_a_result)
{
    BgSimResult first;
    BgSimResult second;

    bgsim_run_scenario(&scenario_smoke, 3, &first);
    bgsim_run_scenario(&scenario_smoke, 3, &second);
    ck_assert(!first.failed);
    ck_assert_uint_gt(first.guest_ops, 0);
    ck_assert_mem_eq(&first, &second, sizeof(first));
}
END_TEST

static void violating_setup(BgSim *sim, void *state)
{
    bgsim_violation(sim, "usage", "of seed %" G_GUINT64_FORMAT,
                    bgsim_seed(sim));
}

START_TEST(after_a_violation_in_this_process_other_worlds_are_made)
{
    static const BgSimScenario violating = { .name = "violating",
                                             .setup = violating_setup };
    BgSimResult result;

    bgsim_run_scenario(&violating, 5, &result);
    ck_assert(result.failed);
    ck_assert_str_eq(result.oracle, "usage");
    ck_assert_str_eq(result.message, "of seed 5");
    bgsim_run_scenario(&scenario_smoke, 5, &result);
    ck_assert(!result.failed);
    _exit(EXIT_SUCCESS); /* the first world is still in memory */
}
END_TEST

START_TEST(checking_seeds_tells_what_failed_and_leaves_a_file)
{
    g_autofree char *dir = g_dir_make_tmp("bgsim-XXXXXX", NULL);
    g_autofree char *report = NULL;

    ck_assert_int_eq(chdir(dir), 0);
    ck_assert(bgsim_check_seeds(&scenario_smoke, 0, 5, &report));
    ck_assert_ptr_null(report);
    ck_assert(!bgsim_check_seeds(&scenario_canary, a_bad_seed(), 1, &report));
    ck_assert_msg(strstr(report, "001-canary-canary.bgs"), "%s", report);
    ck_assert_int_eq(g_unlink("001-canary-canary.bgs"), 0);
    ck_assert_int_eq(g_rmdir(dir), 0);
}
END_TEST

/* The status of the command line in @words. */
static int run_main(const char *words)
{
    static const BgSimScenario *const list[] = { &scenario_smoke,
                                                 &scenario_canary, NULL };
    g_auto(GStrv) argv = g_strsplit(words, " ", 0);

    return bgsim_main(g_strv_length(argv), argv, list);
}

START_TEST(the_command_line_has_three_statuses)
{
    ck_assert_int_eq(run_main("bg-sim list"), 0);
    ck_assert_int_eq(run_main("bg-sim run --seeds 5"), 0);
    ck_assert_int_eq(run_main("bg-sim report --seeds 5 --jobs 2"), 0);
    ck_assert_int_eq(run_main("bg-sim hash smoke --seeds 2"), 0);
    ck_assert_int_eq(run_main("bg-sim replay --scenario smoke --seed 3"), 0);
    ck_assert_int_eq(run_main("bg-sim explain --scenario smoke --seed 3"), 0);
    ck_assert_int_eq(run_main("bg-sim run canary --seeds 500 --no-shrink "
                              "--failures 1"), 1);
    ck_assert_int_eq(run_main("bg-sim"), 2);
    ck_assert_int_eq(run_main("bg-sim dance"), 2);
    ck_assert_int_eq(run_main("bg-sim run nothing"), 2);
    ck_assert_int_eq(run_main("bg-sim run --seed x"), 2);
    ck_assert_int_eq(run_main("bg-sim run --strategy best"), 2);
    ck_assert_int_eq(run_main("bg-sim run canary --threads"), 2);
    ck_assert_int_eq(run_main("bg-sim replay"), 2);
    ck_assert_int_eq(run_main("bg-sim replay /nonexistent.bgs"), 2);
    ck_assert_int_eq(run_main("bg-sim replay --scenario smoke"), 2);
}
END_TEST

START_TEST(no_planted_bug_is_always_there_to_select)
{
    ck_assert(bgsim_plant(0));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sim-supervisor");
    TCase *runs = tcase_create("runs");
    TCase *files = tcase_create("files");
    TCase *all = tcase_create("all");
    TCase *programs = tcase_create("programs");

    PROMISE(runs, all_seeds_of_a_good_scenario_pass);
    PROMISE(runs, the_sums_do_not_depend_on_how_many_jobs_there_are);
    PROMISE(runs,
            a_crash_and_a_hang_are_told_with_their_seeds_and_the_rest_goes_on);
    PROMISE(runs, a_run_that_exits_has_failed_and_the_rest_goes_on);
    PROMISE(runs, the_message_of_a_crash_is_what_that_run_has_said);
#ifdef __SANITIZE_ADDRESS__
    PROMISE(runs, memory_that_a_run_loses_is_told);
#endif
    PROMISE(runs, a_run_that_looks_at_an_address_is_noticed);
    PROMISE(runs, a_batch_stops_at_its_limit_of_failures);
    suite_add_tcase(suite, runs);

    PROMISE(files, about_one_seed_in_a_hundred_kills_the_canary);
    PROMISE(files, a_failure_is_shrunk_to_the_choices_that_matter);
    PROMISE(files, a_crash_is_shrunk_too);
    PROMISE(files, the_file_of_a_failure_fails_in_the_same_way);
    PROMISE(files, decisions_of_the_scheduler_are_kept_by_name);
    PROMISE(files, a_decision_applies_by_name_wherever_its_actor_stands);
    PROMISE(files, what_no_longer_applies_is_listed);
    PROMISE(files, bad_files_are_refused_with_the_line);
    PROMISE(files, messages_that_differ_in_numbers_tell_of_one_failure);
    suite_add_tcase(suite, files);

    PROMISE(all, all_orders_of_three_tasks_are_six);
    PROMISE(all, the_bound_of_preemptions_cuts_the_tree);
    PROMISE(all, exploring_finds_a_bug_of_order);
    PROMISE(all, each_call_fails_until_none_is_left);
    PROMISE(all, a_run_that_does_not_take_a_failure_is_told);
    PROMISE(all, a_place_that_does_not_exist_is_an_error);
    suite_add_tcase(suite, all);

    PROMISE(programs, one_run_in_this_process_has_a_result);
    PROMISE(programs, after_a_violation_in_this_process_other_worlds_are_made);
    PROMISE(programs, checking_seeds_tells_what_failed_and_leaves_a_file);
    PROMISE(programs, the_command_line_has_three_statuses);
    PROMISE(programs, no_planted_bug_is_always_there_to_select);
    suite_add_tcase(suite, programs);
    tcase_set_timeout(runs, 60);
    tcase_set_timeout(files, 60);
    tcase_set_timeout(programs, 60);
    return check_main(suite);
}
