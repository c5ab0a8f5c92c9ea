/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Power cuts: call a check for each state that the disks may be in.
 */
#include "sim/crash-int.h"

#include <errno.h>

/* Cuts inside cuts: a recovery may be cut, a recovery of a recovery is not. */
#define DEPTH_MAX 2

/* How much of a second cut is looked at when it comes by itself. */
#define SECOND_ALL_BELOW 64
#define SECOND_SAMPLE 16

/* The steps of the check in which a second cut falls, before one is known. */
#define FIRST_CHECK_STEPS 64

typedef struct Crash {
    BgSim *sim;
    BgSimCrashCheck *check;
    void *opaque;
    BgSimCrashConfig config;
    SimCut *cut;
    SimStates states;
    SimOuter outer;
    uint64_t seed;
    uint64_t check_steps; /* that the last check has made */
    SimRandom random;
} Crash;

typedef struct CrashPlan {
    uint64_t step;
    BgSimCrashCheck *check;
    void *opaque;
    BgSimCrashConfig config;
} CrashPlan;

/* --- one state ------------------------------------------------------------ */

static void plan_second(Crash *c)
{
    static const BgSimCrashConfig second = { .all_below = SECOND_ALL_BELOW,
                                             .sample = SECOND_SAMPLE };
    unsigned every = c->config.second_every;

    if (every && c->sim->crash_depth == 1 && c->states.given % every == 0) {
        bgsim_crash_at(c->sim,
                       c->sim->steps + 1 +
                           sim_random_below(&c->random, c->check_steps),
                       c->check, c->opaque, &second);
    }
}

static void count(Crash *c)
{
    c->sim->crash_states++;
    c->sim->second_crashes += c->sim->crash_depth == 2;
}

static uint64_t state_seed(const Crash *c)
{
    /* 0 is the dullest tape: recovery runs first come, first served. */
    return c->seed ? c->seed + c->states.given * UINT64_C(0x9E3779B97F4A7C15)
                   : 0;
}

/* Whether all is well after the check of the present state. */
static bool check_state(Crash *c, GError **errp)
{
    BgSim *sim = c->sim;
    BgSimCrashState state = { .index = c->states.given - 1,
                              .exhaustive = c->states.exhaustive,
                              .what = c->states.what };
    g_autoptr(GError) error = NULL;
    g_autofree char *story = NULL;
    const char *message;
    bool good;

    sim_cut_apply(c->cut);
    sim_inner_begin(sim, &c->outer, state_seed(c));
    plan_second(c);
    good = c->check(sim, &state, c->opaque, &error);
    count(c);
    c->check_steps = MAX(sim->steps - c->outer.sim.steps, 1);
    good = sim_inner_end(sim, &c->outer, good, good ? &error : NULL);
    sim_cut_undo(c->cut);
    if (good && bgsim_violated(sim, &message)) {
        good = false;
        block_error(&error, EILSEQ, "%s", message);
    }
    if (!good) {
        story = sim_cut_describe(c->cut);
        block_error(errp, EILSEQ, "power cut, state %u (%s): %s; what survived:"
                    "%s", state.index, state.what,
                    error ? error->message : "the check said no", story);
    }
    return good;
}

static bool check_states(Crash *c, GError **errp)
{
    bool good = true;

    while (good && sim_states_next(&c->states)) {
        good = check_state(c, errp);
        if (good) {
            g_array_set_size(c->sim->trace, 0);
            c->sim->trace_next = 0;
        }
    }
    return good;
}

/*
 * Not drawn as other choices are: a run with a cut is to be the run that it
 * would have been without.  0 on a tape makes all choices of checks dull.
 */
static uint64_t draw_seed(BgSim *sim)
{
    SimRandom random;
    uint64_t seed;

    if (tape_peek(sim->tape, "crash.seed") || sim->tape->replay) {
        return bgsim_draw(sim, "crash.seed", UINT64_C(1) << 48);
    }
    sim_random_init(&random, sim->seed ^ sim->steps ^ sim->crash_states << 32);
    seed = sim_random_below(&random, UINT64_C(1) << 48);
    tape_put(sim->tape, "crash.seed", seed, UINT64_C(1) << 48, 0);
    return seed;
}

/* --- interface ------------------------------------------------------------ */

bool bgsim_crash_each(BgSim *sim, BgSimCrashCheck *check, void *opaque,
                      const BgSimCrashConfig *config, GError **errp)
{
    Crash c = { .sim = sim, .check = check, .opaque = opaque,
                .config = config ? *config : (BgSimCrashConfig){ 0 },
                .check_steps = FIRST_CHECK_STEPS };
    bool good;

    g_assert(!in_coroutine());
    if (sim->threads_mode) {
        return true;
    }
    if (sim->crash_depth == DEPTH_MAX) {
        block_error(errp, EINVAL, "the power is cut for a third time");
        return false;
    }
    sim_sites_note_crash(sim);
    c.seed = draw_seed(sim);
    sim_random_init(&c.random, c.seed);
    c.cut = sim_cut_new(sim);
    sim_states_init(&c.states, c.cut, config, c.seed);
    sim_cut_enter(c.cut);
    sim_outer_save(sim, &c.outer);
    sim->crash_depth++;
    good = check_states(&c, errp);
    sim_outer_restore(sim, &c.outer);
    sim_cut_leave(c.cut);
    bgsim_trace(sim, "power cut", c.states.given, c.cut->items->len);
    sim_states_clear(&c.states);
    sim_cut_free(c.cut);
    return good;
}

void bgsim_crash_at(BgSim *sim, uint64_t step, BgSimCrashCheck *check,
                    void *opaque, const BgSimCrashConfig *config)
{
    CrashPlan *plan = g_new(CrashPlan, 1);

    *plan = (CrashPlan){ step, check, opaque,
                         config ? *config : (BgSimCrashConfig){ 0 } };
    sim_own(sim, g_free, plan);
    g_ptr_array_add(sim->crash_plans, plan);
}

uint64_t bgsim_crash_states(const BgSim *sim, uint64_t *ret_second)
{
    if (ret_second) {
        *ret_second = sim->second_crashes;
    }
    return sim->crash_states;
}

void sim_crash_run_plans(BgSim *sim)
{
    for (guint i = 0; i < sim->crash_plans->len;) {
        CrashPlan *plan = g_ptr_array_index(sim->crash_plans, i);
        g_autoptr(GError) error = NULL;

        if (sim->steps + 1 < plan->step) {
            i++;
            continue;
        }
        g_ptr_array_remove_index(sim->crash_plans, i);
        if (!bgsim_crash_each(sim, plan->check, plan->opaque, &plan->config,
                              &error)) {
            bgsim_violation(sim, "power-cut", "before step %" G_GUINT64_FORMAT
                            ": %s", sim->steps + 1, error->message);
        }
    }
}
