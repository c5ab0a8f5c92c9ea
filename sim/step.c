/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One step of a simulated world: find out what can run, have one chosen, run
 * it in its thread.  And what the library's points do.
 *
 * Time goes on only when nothing can run, or when the scheduler takes the
 * "tick": real clocks go on while others work.
 */
#include "sim/sim-int.h"

#include <unistd.h>
#include <sched.h>

/* Actor ids of threads, for their bottom halves and timers. */
static uint32_t thread_actor(const SimThread *thread)
{
    return SIM_ACTOR_FIRST_CO / 2 + thread->index;
}

/* --- what can run --------------------------------------------------------- */

static void add_ready(BgSim *sim, SimReadyKind kind, uint32_t actor,
                      SimThread *thread, void *what)
{
    SimReady ready = { kind, actor, thread, what };

    g_array_append_val(sim->ready, ready);
}

static uint32_t co_actor(const Coroutine *co)
{
    return co->actor ? co->actor->id : 0;
}

static void gather_thread(BgSim *sim, SimThread *thread)
{
    AioContext *ctx = thread->ctx;
    int64_t deadline;

    if (aio_bhs_peek(ctx)) {
        add_ready(sim, SIM_READY_BH, thread_actor(thread), thread, NULL);
    }
    for (Coroutine *co = aio_cos_peek(ctx); co; co = co->wake_next) {
        add_ready(sim, SIM_READY_CO, co_actor(co), thread, co);
    }
    deadline = aio_timers_deadline_ns(&ctx->timers);
    if (deadline >= 0 && deadline <= sim->now_ns) {
        add_ready(sim, SIM_READY_TIMER, thread_actor(thread), thread, NULL);
    }
}

/* Of the events that are due any may come first. */
static void gather_events(BgSim *sim)
{
    for (guint i = 0; i < sim->events->len; i++) {
        SimEvent *ev = g_ptr_array_index(sim->events, i);

        if (ev->at_ns <= sim->now_ns) {
            add_ready(sim, SIM_READY_EVENT, ev->actor, NULL, ev);
        }
    }
}

/* When something will happen by itself, or -1. */
static int64_t next_time(BgSim *sim)
{
    SimEvent *first = sim_events_first(sim);
    int64_t next = first ? first->at_ns : -1;

    for (guint i = 0; i < sim->threads->len; i++) {
        SimThread *thread = g_ptr_array_index(sim->threads, i);
        int64_t deadline = aio_timers_deadline_ns(&thread->ctx->timers);

        if (deadline >= 0 && (next < 0 || deadline < next)) {
            next = deadline;
        }
    }
    return next;
}

static void gather(BgSim *sim)
{
    /* Round about, so that "the first" favours no thread. */
    guint start = sim->steps % sim->threads->len;

    g_array_set_size(sim->ready, 0);
    if (sim->events->len > 0 && sim_events_first(sim)->at_ns <= sim->now_ns) {
        gather_events(sim);
    }
    for (guint i = 0; i < sim->threads->len; i++) {
        guint index = (start + i) % sim->threads->len;

        gather_thread(sim, g_ptr_array_index(sim->threads, index));
    }
}

static bool may_tick(BgSim *sim)
{
    return sim->sched.tick_permille > 0 && !atomic_load(&sim->settling) &&
           next_time(sim) > sim->now_ns &&
           bgsim_chance(sim, "sched.tick", sim->sched.tick_permille);
}

/* --- running one ---------------------------------------------------------- */

static void run_in_thread(SimThread *thread, const SimReady *ready)
{
    AioThread *real = aio_thread();
    AioThread saved = *real;
    AioContext *ctx = thread->ctx;

    if (thread->index > 0) {
        *real = thread->thread;
    }
    real->current = ctx;
    real->in_loop = true;
    thread->runs++;
    switch (ready->kind) {
    case SIM_READY_BH:
        aio_bhs_run_first(ctx);
        break;
    case SIM_READY_TIMER:
        aio_timers_run_first(&ctx->timers);
        break;
    default:
        aio_cos_run_one(ctx, ready->what);
        break;
    }
    lock_assert_none_held();
    if (thread->index > 0) {
        thread->thread = *real;
        thread->thread.current = NULL;
        thread->thread.in_loop = false;
    }
    *real = saved;
}

static void run_event(BgSim *sim, SimEvent *ev)
{
    sim_event_remove(sim, ev);
    ev->cb(ev->opaque);
}

static const char *kind_name(SimReadyKind kind)
{
    static const char *const names[] = { "event", "bh", "run", "timer",
                                         "tick" };

    return names[kind];
}

static void run_ready(BgSim *sim, const SimReady *ready)
{
    sim->running = ready->actor;
    bgsim_trace(sim, kind_name(ready->kind), ready->actor, 0);
    if (ready->kind == SIM_READY_EVENT) {
        run_event(sim, ready->what);
    } else if (ready->kind == SIM_READY_TICK) {
        sim->now_ns = next_time(sim);
    } else {
        if (ready->kind == SIM_READY_CO) {
            Coroutine *co = ready->what;

            co->wait_what = NULL;
        }
        run_in_thread(ready->thread, ready);
    }
    sim->running = 0;
}

static void ask_oracles(BgSim *sim)
{
    if (sim->steps % 1024 == 0 && atomic_load(&sim->settling)) {
        sim_models_check_progress(sim);
    }
    for (guint i = 0; i < sim->oracles->len; i++) {
        const BgSimOracle *oracle = g_ptr_array_index(sim->oracles, i);

        if (oracle->step) {
            oracle->step(sim, oracle->opaque);
        }
    }
}

/* Nothing can run: let time go on.  Returns false if that changes nothing. */
static bool advance(BgSim *sim, int64_t until_ns)
{
    int64_t next = next_time(sim);

    if (next < 0 || (until_ns >= 0 && next > until_ns)) {
        sim->now_ns = MAX(sim->now_ns, until_ns);
        return false;
    }
    sim->now_ns = next;
    return true;
}

bool sim_step(BgSim *sim, int64_t until_ns)
{
    SimReady ready;

    g_assert(!in_coroutine());
    if (sim->crash_plans->len > 0) {
        sim_crash_run_plans(sim);
    }
    do {
        gather(sim);
    } while (sim->ready->len == 0 && advance(sim, until_ns));
    if (sim->ready->len == 0) {
        return false;
    }
    if (may_tick(sim)) {
        add_ready(sim, SIM_READY_TICK, 0, NULL, NULL);
    }
    sim->steps++;
    ready = g_array_index(sim->ready, SimReady, sim_sched_choose(sim));
    run_ready(sim, &ready);
    ask_oracles(sim);
    return true;
}

/* --- coroutines ----------------------------------------------------------- */

static void virtual_created(Coroutine *co)
{
    BgSim *sim = sim_world;
    SimActor *actor = g_new0(SimActor, 1);

    actor->id = sim->next_co++;
    actor->parent = sim->running;
    actor->co = co;
    co->actor = actor;
    co->wait_what = NULL;
    list_append(&sim->actors, &actor->link);
    atomic_fetch_add(&sim->coroutines, 1);
}

static void virtual_ended(Coroutine *co)
{
    SimActor *actor = co->actor;

    if (!actor) {
        return; /* older than the world */
    }
    list_remove(&actor->link);
    if (actor->mutexes) {
        g_array_unref(actor->mutexes);
    }
    g_free(actor);
    co->actor = NULL;
    atomic_fetch_sub(&sim_world->coroutines, 1);
}

static SimActor *find_actor(BgSim *sim, uint32_t id)
{
    LIST_FOREACH(link, &sim->actors) {
        SimActor *actor = LIST_ENTRY(link, SimActor, link);

        if (actor->id == id) {
            return actor;
        }
    }
    return NULL;
}

char *sim_actor_name(BgSim *sim, uint32_t id)
{
    SimActor *actor;

    if (id == 0) {
        return g_strdup("world");
    }
    if (id <= sim->devices->len) {
        return g_strdup(
            ((SimDevice *)g_ptr_array_index(sim->devices, id - 1))->name);
    }
    if (id < SIM_ACTOR_FIRST_CO) {
        guint i = id - SIM_ACTOR_FIRST_CO / 2;

        return g_strdup(
            ((SimThread *)g_ptr_array_index(sim->threads, i))->name);
    }
    actor = find_actor(sim, id);
    if (actor && actor->name) {
        return g_strdup(actor->name);
    }
    return g_strdup_printf("co%u", id - SIM_ACTOR_FIRST_CO);
}

/* --- points --------------------------------------------------------------- */

static void note_result(SimSite *site, int err)
{
    if (err) {
        atomic_fetch_add_explicit(&site->failed, 1, memory_order_relaxed);
        atomic_store_explicit(&site->last_failed, 1, memory_order_relaxed);
    } else if (atomic_exchange_explicit(&site->last_failed, 0,
                                        memory_order_relaxed)) {
        atomic_fetch_add_explicit(&site->failed_once, 1,
                                  memory_order_relaxed);
    }
}

/* Yields only at a site that can, and inside a coroutine. */
static int coroutine_fn virtual_point(SimSite *site, const char *node)
{
    BgSim *sim = sim_world;
    SimVerdict verdict;
    bool yields = site->can_yield && in_coroutine() && coroutine_self()->actor;

    atomic_fetch_add_explicit(&site->executed, 1, memory_order_relaxed);
    verdict = sim_fault_point(sim, site, node);
    if (yields) {
        Coroutine *self = coroutine_self();

        if (verdict.hold) {
            sim_hold_wait(sim, verdict.hold);
        }
        if (sim->sched.point_permille > 0 && !atomic_load(&sim->settling) &&
            bgsim_chance(sim, "point", sim->sched.point_permille)) {
            self->actor->site = site;
            atomic_fetch_add_explicit(&site->yielded, 1,
                                      memory_order_relaxed);
            bgsim_yield(sim);
            self->actor->site = NULL;
        }
    }
    if (site->can_fail) {
        note_result(site, verdict.err);
    }
    return -verdict.err;
}

/* --- real threads --------------------------------------------------------- */

static void threads_created(Coroutine *co)
{
    co->actor = NULL;
    atomic_fetch_add(&sim_world->coroutines, 1);
}

static void threads_ended(Coroutine *co)
{
    atomic_fetch_sub(&sim_world->coroutines, 1);
}

/* Noise: now and then a thread loses its turn, or sleeps a little. */
static void schedule_noise(void)
{
    static __thread uint64_t state;
    uint64_t x;

    if (!state) {
        state = sim_world->seed ^ (uintptr_t)&state;
    }
    state = state * UINT64_C(6364136223846793005) + 1442695040888963407;
    x = state >> 33;
    if (x % 64 == 0) {
        usleep(x / 64 % 200);
    } else if (x % 8 == 0) {
        sched_yield();
    }
}

static int coroutine_fn threads_point(SimSite *site, const char *node)
{
    SimVerdict verdict;

    atomic_fetch_add_explicit(&site->executed, 1, memory_order_relaxed);
    if (site->can_yield) {
        schedule_noise();
    }
    verdict = sim_fault_point(sim_world, site, node);
    if (verdict.hold && site->can_yield && in_coroutine()) {
        sim_hold_wait(sim_world, verdict.hold);
    }
    if (site->can_fail) {
        note_result(site, verdict.err);
    }
    return -verdict.err;
}

static void mutex_made(const void *mutex)
{
    if (!sim_world->threads_mode) {
        sim_order_made(sim_world, mutex);
    }
}

static void mutex_wanted(const void *mutex)
{
    sim_order_wanted(sim_world, mutex);
}

static void mutex_taken(const void *mutex)
{
    sim_order_taken(sim_world, mutex);
}

static void mutex_dropped(const void *mutex)
{
    sim_order_dropped(sim_world, mutex);
}

const SimHooks sim_hooks_virtual = {
    .point = virtual_point,
    .co_created = virtual_created,
    .co_ended = virtual_ended,
    .mutex_made = mutex_made,
    .mutex_wanted = mutex_wanted,
    .mutex_taken = mutex_taken,
    .mutex_dropped = mutex_dropped,
};

const SimHooks sim_hooks_threads = {
    .point = threads_point,
    .co_created = threads_created,
    .co_ended = threads_ended,
    .mutex_made = mutex_made,
    .mutex_wanted = mutex_wanted,
    .mutex_taken = mutex_taken,
    .mutex_dropped = mutex_dropped,
};
