/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One run of a scenario: setup, body, settle, verify, and the end of the
 * world.
 *
 * A violation may come from anywhere, deep inside a coroutine too, and then
 * the world cannot be taken down.  In a child the process ends on the spot; in
 * the process of a caller the world is left behind.
 */
#include "sim/supervise.h"

#include <alloca.h>
#include <malloc.h>
#include <string.h>
#include <unistd.h>

typedef struct Run {
    const SimHow *how;
    BgSimResult *result;
} Run;

static const char *const strategy_names[SIM_STRATEGIES] = {
    [BGSIM_STRATEGY_ANY] = "any",
    [BGSIM_STRATEGY_FIFO] = "fifo",
    [BGSIM_STRATEGY_UNIFORM] = "uniform",
    [BGSIM_STRATEGY_PCT] = "pct",
    [BGSIM_STRATEGY_SWIZZLE] = "swizzle",
    [BGSIM_STRATEGY_STARVE] = "starve",
    [BGSIM_STRATEGY_EAGER] = "eager",
    [BGSIM_STRATEGY_EXHAUSTIVE] = "exhaustive",
};

const char *sim_strategy_name(BgSimStrategy strategy)
{
    g_assert(strategy < SIM_STRATEGIES);
    return strategy_names[strategy];
}

bool sim_strategy_parse(const char *name, BgSimStrategy *ret)
{
    for (unsigned i = 0; i < SIM_STRATEGIES; i++) {
        if (strcmp(strategy_names[i], name) == 0) {
            *ret = i;
            return true;
        }
    }
    return false;
}

/* --- results -------------------------------------------------------------- */

void sim_result_fail(BgSimResult *result, const char *oracle,
                     const char *message)
{
    if (!result->failed) {
        result->failed = true;
        g_strlcpy(result->oracle, oracle, sizeof(result->oracle));
        g_strlcpy(result->message, message, sizeof(result->message));
    }
}

/* Requests of guests that this process has seen begin. */
static uint64_t count_requests(void)
{
    BgSimOpTable table;
    uint64_t n = 0;

    bgsim_op_table(&table);
    for (unsigned kind = BGSIM_OP_READ; kind <= BGSIM_OP_STATUS; kind++) {
        n += table.begun[kind];
    }
    return n;
}

static void fill_result(BgSim *sim, BgSimResult *result)
{
    const char *message = NULL;
    const char *oracle = bgsim_violated(sim, &message);

    result->trace_hash = bgsim_trace_hash(sim);
    result->steps = sim->steps;
    result->guest_ops = count_requests() - result->guest_ops;
    result->crash_states = sim->crash_states;
    result->second_crashes = sim->second_crashes;
    result->strategy = sim->sched.strategy;
    if (oracle) {
        /* The text of the world begins with the oracle. */
        sim_result_fail(result, oracle, message + strlen(oracle) + 2);
    }
}

static void end_run(BgSim *sim, Run *run)
{
    fill_result(sim, run->result);
    if (run->how->ended) {
        run->how->ended(sim, run->how->opaque);
    }
}

/* In the thread that has noticed, which may stand anywhere. */
static void on_violation(BgSim *sim, void *opaque)
{
    end_run(sim, opaque);
    _exit(SIM_EXIT_VIOLATION);
}

/* --- the run -------------------------------------------------------------- */

typedef void Part(BgSim *sim, void *state);

static bool is_fine(BgSim *sim)
{
    return !bgsim_violated(sim, NULL);
}

static bool do_part(BgSim *sim, Part *part, void *state)
{
    if (is_fine(sim) && part) {
        part(sim, state);
    }
    return is_fine(sim);
}

static void finish_oracles(BgSim *sim)
{
    for (guint i = 0; i < sim->oracles->len && is_fine(sim); i++) {
        const BgSimOracle *oracle = g_ptr_array_index(sim->oracles, i);

        if (oracle->finish) {
            oracle->finish(sim, oracle->opaque);
        }
    }
}

/* All that was begun ends with the faults off; then the end is judged. */
static void do_parts(BgSim *sim, const BgSimScenario *s, void *state)
{
    if (!do_part(sim, s->setup, state) || !do_part(sim, s->body, state) ||
        (!s->body && !bgsim_run(sim, -1, NULL))) {
        return;
    }
    bgsim_settle(sim);
    if (!do_part(sim, s->settle, state) || !bgsim_run(sim, -1, NULL)) {
        return;
    }
    finish_oracles(sim);
    do_part(sim, s->verify, state);
}

/*
 * Nothing of a world with a violation can be taken down: coroutines stand
 * somewhere and hold something.  It stays in memory, out of the way.
 */
static void abandon(BgSim *sim)
{
    aio_thread()->first = sim->outer_first;
    sim_hooks = NULL;
    sim_world = NULL;
}

void sim_scenario_run(const SimHow *how, BgSimResult *result)
{
    const BgSimScenario *scenario = how->scenario;
    g_autofree char *state = g_malloc0(MAX(scenario->state_size, 1));
    BgSimConfig config = scenario->config;
    Run run = { how, result };
    BgSim *sim;

    memset(result, 0, sizeof(*result));
    result->seed = how->seed;
    result->guest_ops = count_requests(); /* until the end of the run */
    if (how->strategy != BGSIM_STRATEGY_ANY) {
        config.strategy = how->strategy;
    }
    config.threads |= how->threads;
    config.record |= how->record;
    sim_tape_preset = how->tape;
    sim = bgsim_new(how->seed, &config);
    if (how->dies) {
        sim->on_violation = on_violation;
        sim->on_violation_opaque = &run;
    }
    if (how->begin) {
        how->begin(sim, how->opaque);
    }
    do_parts(sim, scenario, state);
    end_run(sim, &run);
    if (is_fine(sim)) {
        sim->on_violation = NULL;
        bgsim_free(sim);
    } else {
        abandon(sim);
    }
}

void bgsim_run_scenario(const BgSimScenario *scenario, uint64_t seed,
                        BgSimResult *result)
{
    SimHow how = { .scenario = scenario, .seed = seed };

    sim_scenario_run(&how, result);
}

/* --- other addresses ------------------------------------------------------ */

#define SHIFT_BLOCKS 64
#define SHIFT_COROUTINES 3

static void coroutine_fn hold_stack(void *opaque)
{
    coroutine_yield();
}

/*
 * What a run may not depend on is made different: the addresses of the stack,
 * of fresh memory and of coroutine stacks, and what fresh memory holds.
 */
void sim_scenario_run_shifted(const SimHow *how, BgSimResult *result)
{
    Coroutine *holders[SHIFT_COROUTINES];
    void *blocks[SHIFT_BLOCKS];
    size_t shift = 4096 + 272;
    char *volatile pad = alloca(shift);

    memset(pad, 0xd5, shift);
    for (unsigned i = 0; i < SHIFT_BLOCKS; i++) {
        blocks[i] = g_malloc(16 + 24 * i);
    }
    for (unsigned i = 0; i < SHIFT_COROUTINES; i++) {
        holders[i] = coroutine_create(hold_stack, NULL);
        coroutine_enter(holders[i]);
    }
    mallopt(M_PERTURB, 0x5a);
    sim_scenario_run(how, result);
    mallopt(M_PERTURB, 0);
    for (unsigned i = 0; i < SHIFT_COROUTINES; i++) {
        coroutine_enter(holders[i]);
    }
    for (unsigned i = 0; i < SHIFT_BLOCKS; i++) {
        g_free(blocks[i]);
    }
}
