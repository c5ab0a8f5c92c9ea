/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which of the things that can run does run.
 *
 * A strategy draws from a random source of its own; what it has chosen goes
 * onto the tape.  A replayed tape gives the choices, and past its end the
 * first thing is chosen: first come, first served.
 */
#include "sim/sim-int.h"

const SimChooser *sim_chooser;

/* The order of BgSimStrategy. */
static const unsigned weights[] = { 0, 5, 30, 35, 15, 5, 10, 0 };

static BgSimStrategy draw_strategy(BgSim *sim)
{
    uint64_t x = bgsim_draw(sim, "sched.strategy", 100);

    /* 0 is dull: fifo is the first in the list. */
    for (unsigned i = 1; i < G_N_ELEMENTS(weights); i++) {
        if (x < weights[i]) {
            return i;
        }
        x -= weights[i];
    }
    return BGSIM_STRATEGY_FIFO;
}

static void init_pct(SimScheduler *s)
{
    unsigned depth = 1 + sim_random_below(&s->random, 4);

    s->priority_key = sim_random_next(&s->random);
    for (unsigned i = 0; i + 1 < depth; i++) {
        /* Runs differ in length by orders of magnitude. */
        uint64_t range = UINT64_C(1) << (5 + sim_random_below(&s->random, 10));

        s->demote_at[i] = 1 + sim_random_below(&s->random, range);
    }
}

void sim_sched_init(BgSim *sim)
{
    static const unsigned point_permilles[] = { 0, 20, 100, 300 };
    static const unsigned tick_permilles[] = { 0, 10, 100 };
    SimScheduler *s = &sim->sched;

    sim_random_init(&s->random, sim->seed ^ UINT64_C(0x5363686564756C65));
    s->demoted = g_hash_table_new(NULL, NULL);
    s->strategy = sim->config.strategy;
    if (s->strategy == BGSIM_STRATEGY_ANY) {
        s->strategy = draw_strategy(sim);
    }
    s->victim_mod = 2 + sim_random_below(&s->random, 6);
    s->victim = sim_random_below(&s->random, s->victim_mod);
    s->swizzle_at = 1 + sim_random_below(&s->random, 200);
    init_pct(s);
    if (s->strategy != BGSIM_STRATEGY_FIFO &&
        s->strategy != BGSIM_STRATEGY_EXHAUSTIVE) {
        s->point_permille =
            point_permilles[bgsim_draw(sim, "sched.points",
                                       G_N_ELEMENTS(point_permilles))];
        s->tick_permille =
            tick_permilles[bgsim_draw(sim, "sched.ticks",
                                      G_N_ELEMENTS(tick_permilles))];
    }
}

void sim_sched_clear(BgSim *sim)
{
    g_hash_table_destroy(sim->sched.demoted);
}

bool sim_sched_eager(BgSim *sim)
{
    return sim->sched.strategy == BGSIM_STRATEGY_EAGER &&
           !atomic_load(&sim->settling) &&
           bgsim_draw(sim, "sched.eager", 2) == 1;
}

static const SimReady *ready_at(BgSim *sim, unsigned i)
{
    return &g_array_index(sim->ready, SimReady, i);
}

const char *sim_ready_what(const SimReady *ready)
{
    static const char *const names[] = { "event", "bh", "run", "timer",
                                         "tick" };

    return ready->kind == SIM_READY_EVENT
               ? ((const SimEvent *)ready->what)->what
               : names[ready->kind];
}

/* --- strategies ----------------------------------------------------------- */

static uint64_t priority(SimScheduler *s, uint32_t actor)
{
    uint64_t x = (s->priority_key ^ actor) * UINT64_C(0xBF58476D1CE4E5B9);
    gpointer demoted = g_hash_table_lookup(s->demoted,
                                           GUINT_TO_POINTER(actor));

    x ^= x >> 29;
    /* Who was demoted stands below all others, the later the lower. */
    return demoted ? 16 - GPOINTER_TO_UINT(demoted) : x | 1 << 8;
}

static unsigned choose_pct(BgSim *sim)
{
    SimScheduler *s = &sim->sched;
    unsigned best = 0;

    for (unsigned i = 1; i < sim->ready->len; i++) {
        if (priority(s, ready_at(sim, i)->actor) >
            priority(s, ready_at(sim, best)->actor)) {
            best = i;
        }
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(s->demote_at); i++) {
        if (s->demote_at[i] && sim->steps == s->demote_at[i]) {
            g_hash_table_insert(s->demoted,
                                GUINT_TO_POINTER(ready_at(sim, best)->actor),
                                GUINT_TO_POINTER(i + 1));
        }
    }
    return best;
}

/* A thread or device stops, or one that was stopped goes on. */
static void swizzle(BgSim *sim)
{
    SimScheduler *s = &sim->sched;
    unsigned n = sim->threads->len + sim->devices->len;
    unsigned i = sim_random_below(&s->random, n);

    if (i < sim->threads->len) {
        SimThread *thread = g_ptr_array_index(sim->threads, i);

        thread->stopped = !thread->stopped;
    } else {
        SimDevice *device = g_ptr_array_index(sim->devices,
                                              i - sim->threads->len);

        device->stopped = !device->stopped;
    }
    s->swizzle_at = sim->steps + 1 + sim_random_below(&s->random, 200);
}

static bool is_stopped(BgSim *sim, const SimReady *r)
{
    if (r->thread) {
        return r->thread->stopped;
    }
    if (r->actor > 0 && r->actor <= sim->devices->len) {
        return ((SimDevice *)g_ptr_array_index(sim->devices, r->actor - 1))
            ->stopped;
    }
    return false;
}

/* Any one that @passes (or, if none does, any). */
static unsigned choose_among(BgSim *sim,
                             bool (*passes)(BgSim *, const SimReady *))
{
    unsigned n = 0;
    unsigned k;

    for (unsigned i = 0; i < sim->ready->len; i++) {
        n += passes(sim, ready_at(sim, i));
    }
    if (n == 0) {
        return sim_random_below(&sim->sched.random, sim->ready->len);
    }
    k = sim_random_below(&sim->sched.random, n);
    for (unsigned i = 0;; i++) {
        if (passes(sim, ready_at(sim, i)) && k-- == 0) {
            return i;
        }
    }
}

static bool not_stopped(BgSim *sim, const SimReady *r)
{
    return !is_stopped(sim, r);
}

static bool not_victim(BgSim *sim, const SimReady *r)
{
    return r->actor % sim->sched.victim_mod != sim->sched.victim;
}

static bool not_event(BgSim *sim, const SimReady *r)
{
    return r->kind != SIM_READY_EVENT && r->kind != SIM_READY_TICK;
}

static unsigned choose(BgSim *sim)
{
    SimScheduler *s = &sim->sched;

    if (atomic_load(&sim->settling)) {
        return 0;
    }
    switch (s->strategy) {
    case BGSIM_STRATEGY_UNIFORM:
        return sim_random_below(&s->random, sim->ready->len);
    case BGSIM_STRATEGY_PCT:
        return choose_pct(sim);
    case BGSIM_STRATEGY_SWIZZLE:
        if (sim->steps >= s->swizzle_at) {
            swizzle(sim);
        }
        return choose_among(sim, not_stopped);
    case BGSIM_STRATEGY_STARVE:
        return choose_among(sim, not_victim);
    case BGSIM_STRATEGY_EAGER:
        return choose_among(sim, not_event);
    default:
        return 0;
    }
}

/* What the tape says, or the strategy, which is then put onto the tape. */
static unsigned choose_next(BgSim *sim)
{
    unsigned n = sim->ready->len;
    int wanted = sim_chooser && sim_chooser->choose
                     ? sim_chooser->choose(sim, sim_chooser->opaque)
                     : -1;
    unsigned chosen;

    if (wanted < 0 && (tape_peek(sim->tape, "sched") || sim->tape->replay)) {
        return tape_draw(sim->tape, "sched", n);
    }
    chosen = wanted >= 0 ? (unsigned)wanted : choose(sim);
    tape_put(sim->tape, "sched", chosen, n, ready_at(sim, chosen)->actor);
    return chosen;
}

unsigned sim_sched_choose(BgSim *sim)
{
    unsigned chosen;

    if (sim->ready->len == 1) {
        return 0;
    }
    chosen = choose_next(sim);
    if (sim_chooser && sim_chooser->chosen) {
        sim_chooser->chosen(sim, chosen, sim_chooser->opaque);
    }
    return chosen;
}
