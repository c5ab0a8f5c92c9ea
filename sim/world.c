/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The world: its life, its threads and tasks, violations.
 */
#include "sim/sim-int.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

BgSim *sim_world;
Tape *sim_tape_preset;

#define MAX_STEPS_DEFAULT 10000000
#define STALL_STEPS_DEFAULT 1000000

/* --- threads -------------------------------------------------------------- */

static SimThread *thread_new(BgSim *sim, const char *name)
{
    SimThread *thread = g_new0(SimThread, 1);

    thread->sim = sim;
    thread->index = sim->threads->len;
    thread->name = g_strdup(name);
    g_ptr_array_add(sim->threads, thread);
    return thread;
}

/*
 * The home of the main context is the real thread; a virtual thread gets a
 * number of its own, so all that asks "is this my thread" works unchanged.
 */
static void thread_make_virtual(SimThread *thread)
{
    AioThread *real = aio_thread();
    AioThread saved = *real;

    thread->ctx = aio_context_new_with_ops(&sim_engine_ops, NULL);
    *real = (AioThread){ .number = 0 };
    aio_thread();                           /* takes a number */
    aio_context_bind(thread->ctx);
    thread->thread = *real;
    *real = saved;
}

/* With real threads: both engines, by turns. */
static AioEngine threads_engine(const BgSim *sim)
{
    return sim->seed % 2 ? AIO_ENGINE_THREADS : AIO_ENGINE_AUTO;
}

void sim_main_thread_new(BgSim *sim)
{
    SimThread *thread = thread_new(sim, "main");
    AioThread *real = aio_thread();

    sim->outer_first = real->first;
    real->first = NULL;
    thread->ctx = sim->threads_mode
                      ? aio_context_new(threads_engine(sim), NULL)
                      : aio_context_new_with_ops(&sim_engine_ops, NULL);
    g_assert(thread->ctx);
    sim->main_ctx = thread->ctx;
    aio_context_bind(thread->ctx);
    thread->thread = *real;
}

AioContext *bgsim_thread(BgSim *sim, const char *name)
{
    SimThread *thread = thread_new(sim, name);
    GError *error = NULL;

    if (!sim->threads_mode) {
        thread_make_virtual(thread);
        return thread->ctx;
    }
    thread->iothread = iothread_new(name, threads_engine(sim), &error);
    if (!thread->iothread) {
        g_error("%s", error->message);
    }
    thread->ctx = iothread_get_aio_context(thread->iothread);
    return thread->ctx;
}

AioContext *bgsim_thread_get(BgSim *sim, const char *name)
{
    for (guint i = 0; i < sim->threads->len; i++) {
        SimThread *thread = g_ptr_array_index(sim->threads, i);

        if (strcmp(thread->name, name) == 0) {
            return thread->ctx;
        }
    }
    return bgsim_thread(sim, name);
}

static void thread_free(SimThread *thread)
{
    AioThread *real = aio_thread();
    AioThread saved = *real;

    if (thread->iothread) {
        iothread_free(thread->iothread);
    } else if (thread->index > 0) {
        *real = thread->thread;
        aio_context_unref(thread->ctx);
        *real = saved;
    } else {
        aio_context_unref(thread->ctx);
    }
    g_free(thread->name);
    g_free(thread);
}

void sim_threads_trim(BgSim *sim, guint keep)
{
    for (guint i = sim->threads->len; i > keep; i--) {
        thread_free(g_ptr_array_index(sim->threads, i - 1));
    }
    g_ptr_array_set_size(sim->threads, keep);
}

void sim_threads_free(BgSim *sim)
{
    sim_threads_trim(sim, 0);
    aio_thread()->first = sim->outer_first;
}

/* --- life ----------------------------------------------------------------- */

BgSim *bgsim_new(uint64_t seed, const BgSimConfig *config)
{
    BgSim *sim = g_new0(BgSim, 1);

    g_assert(!sim_world);
    sim->seed = seed;
    sim->config = config ? *config : (BgSimConfig){ .max_steps = 0 };
    sim->threads_mode = sim->config.threads;
    if (!sim->config.max_steps) {
        sim->config.max_steps = MAX_STEPS_DEFAULT;
    }
    if (!sim->config.stall_steps) {
        sim->config.stall_steps = STALL_STEPS_DEFAULT;
    }
    lock_init(&sim->lock, LOCK_RANK_LEAF);
    sim->tape = sim_tape_preset ? sim_tape_preset : tape_new(seed);
    sim_tape_preset = NULL;
    sim->next_co = SIM_ACTOR_FIRST_CO;
    sim->threads = g_ptr_array_new();
    sim->devices = g_ptr_array_new();
    sim->events = g_ptr_array_new();
    sim->ready = g_array_new(FALSE, FALSE, sizeof(SimReady));
    sim->oracles = g_ptr_array_new_with_free_func(g_free);
    sim->rules = g_ptr_array_new();
    sim->owned = g_ptr_array_new();
    sim->disks = g_ptr_array_new();
    sim->models = g_ptr_array_new();
    sim->crash_plans = g_ptr_array_new();
    sim->trace = g_array_new(FALSE, FALSE, sizeof(SimTraceEntry));
    list_init(&sim->actors);
    sim_world = sim;
    sim_hooks = sim->threads_mode ? &sim_hooks_threads : &sim_hooks_virtual;
    sim_sched_init(sim);
    sim_main_thread_new(sim);
    sim->graph = block_graph_new(bgsim_main_context(sim), NULL);
    return sim;
}

void sim_own(BgSim *sim, void (*free_func)(void *), void *opaque)
{
    SimOwned *owned = g_new(SimOwned, 1);

    *owned = (SimOwned){ free_func, opaque };
    g_ptr_array_add(sim->owned, owned);
}

void sim_owned_clear(BgSim *sim)
{
    for (guint i = sim->owned->len; i > 0; i--) {
        SimOwned *owned = g_ptr_array_index(sim->owned, i - 1);

        owned->free(owned->opaque);
        g_free(owned);
    }
    g_ptr_array_set_size(sim->owned, 0);
}

static void free_devices(BgSim *sim)
{
    for (guint i = 0; i < sim->devices->len; i++) {
        SimDevice *device = g_ptr_array_index(sim->devices, i);

        g_free(device->name);
        g_free(device);
    }
    g_ptr_array_unref(sim->devices);
}

void bgsim_free(BgSim *sim)
{
    block_graph_free(sim->graph);
    sim_threads_free(sim);
    sim_hooks = NULL;
    sim_owned_clear(sim);
    g_ptr_array_unref(sim->owned);
    sim_faults_clear(sim);
    sim_sched_clear(sim);
    free_devices(sim);
    g_ptr_array_unref(sim->threads);
    g_ptr_array_unref(sim->events);
    g_array_unref(sim->ready);
    g_ptr_array_unref(sim->oracles);
    g_clear_pointer(&sim->order_edges, g_array_unref);
    g_ptr_array_unref(sim->rules);
    g_ptr_array_unref(sim->disks);
    g_ptr_array_unref(sim->models);
    g_ptr_array_unref(sim->crash_plans);
    g_array_unref(sim->trace);
    tape_free(sim->tape);
    g_free(sim->violation);
    g_free(sim);
    sim_world = NULL;
}

/* --- facts ---------------------------------------------------------------- */

BlockGraph *bgsim_graph(BgSim *sim)
{
    return sim->crash_graph ? sim->crash_graph : sim->graph;
}

AioContext *bgsim_main_context(BgSim *sim)
{
    return sim->main_ctx;
}

uint64_t bgsim_seed(const BgSim *sim)
{
    return sim->seed;
}

bool bgsim_is_threads(const BgSim *sim)
{
    return sim->threads_mode;
}

int64_t bgsim_now_ns(BgSim *sim)
{
    return sim->threads_mode ? aio_clock_ns(bgsim_main_context(sim))
                             : sim->now_ns;
}

uint64_t bgsim_steps(const BgSim *sim)
{
    return sim->steps;
}

unsigned bgsim_tasks(const BgSim *sim)
{
    return atomic_load(&sim->tasks);
}

void bgsim_progress(BgSim *sim)
{
    atomic_store_explicit(&sim->progress_step, sim->threads_mode ? 0
                                                                 : sim->steps,
                          memory_order_relaxed);
}

bool bgsim_is_settling(const BgSim *sim)
{
    return atomic_load(&sim->settling);
}

SimDevice *sim_device_new(BgSim *sim, const char *name)
{
    SimDevice *device = g_new0(SimDevice, 1);

    device->actor = 1 + sim->devices->len;
    g_assert(device->actor < SIM_ACTOR_FIRST_CO / 2);
    device->name = g_strdup(name);
    g_ptr_array_add(sim->devices, device);
    return device;
}

void bgsim_add_oracle(BgSim *sim, const BgSimOracle *oracle)
{
    g_ptr_array_add(sim->oracles, g_memdup2(oracle, sizeof(*oracle)));
}

/* --- choices -------------------------------------------------------------- */

uint64_t bgsim_draw(BgSim *sim, const char *label, uint64_t bound)
{
    LOCK_GUARD(&sim->lock);

    return tape_draw(sim->tape, label, bound);
}

void bgsim_draw_group(BgSim *sim, const char *label, const uint64_t *bounds,
                      uint64_t *values, unsigned n)
{
    LOCK_GUARD(&sim->lock);

    tape_draw_group(sim->tape, label, bounds, values, n);
}

bool bgsim_chance(BgSim *sim, const char *label, unsigned permille)
{
    /* The last ones of a thousand, so that 0 is "no". */
    return permille > 0 && bgsim_draw(sim, label, 1000) >= 1000 - permille;
}

int64_t bgsim_range(BgSim *sim, const char *label, int64_t lo, int64_t hi)
{
    return lo + (int64_t)bgsim_draw(sim, label, hi - lo + 1);
}

/* --- tasks ---------------------------------------------------------------- */

typedef struct Task {
    BgSim *sim;
    char *name;
    BgSimEntry *entry;
    void *opaque;
} Task;

static void task_free(void *opaque)
{
    Task *task = opaque;

    g_free(task->name);
    g_free(task);
}

static void coroutine_fn task_entry(void *opaque)
{
    Task *task = opaque;
    BgSim *sim = task->sim;

    task->entry(sim, task->opaque);
    bgsim_progress(sim);
    atomic_fetch_sub(&sim->tasks, 1);
}

void bgsim_spawn(BgSim *sim, const char *name, AioContext *ctx,
                 BgSimEntry *entry, void *opaque)
{
    Task *task = g_new(Task, 1);
    Coroutine *co;

    *task = (Task){ sim, g_strdup(name), entry, opaque };
    sim_own(sim, task_free, task);
    atomic_fetch_add(&sim->tasks, 1);
    co = coroutine_create(task_entry, task);
    if (co->actor) {
        co->actor->name = task->name;
    }
    aio_co_schedule(ctx ? ctx : bgsim_main_context(sim), co);
}

void coroutine_fn bgsim_yield(BgSim *sim)
{
    aio_co_schedule(aio_get_current(), coroutine_self());
    SIM_WAITS("its turn", NULL);
    coroutine_yield();
}

/* --- running -------------------------------------------------------------- */

static bool failed(BgSim *sim, GError **errp)
{
    if (!atomic_load(&sim->violated)) {
        return false;
    }
    block_error(errp, EILSEQ, "%s", sim->violation);
    return true;
}

static bool run_threads(BgSim *sim, int64_t until_ns)
{
    AioContext *ctx = bgsim_main_context(sim);
    int64_t end = until_ns < 0 ? INT64_MAX : aio_clock_ns(ctx) + until_ns;

    while (atomic_load(&sim->tasks) > 0 && aio_clock_ns(ctx) < end &&
           !atomic_load(&sim->violated)) {
        aio_poll(ctx, false);
    }
    return true;
}

static void check_live(BgSim *sim)
{
    uint64_t last = atomic_load_explicit(&sim->progress_step,
                                         memory_order_relaxed);

    if (sim->steps > sim->config.max_steps ||
        sim->steps - MIN(last, sim->steps) > sim->config.stall_steps) {
        g_autofree char *waits = bgsim_describe_waits(sim);

        bgsim_violation(sim, "live-lock",
                        "%" G_GUINT64_FORMAT " steps, %" G_GUINT64_FORMAT
                        " since something was done; who waits for what:\n%s",
                        sim->steps, sim->steps - MIN(last, sim->steps), waits);
    }
}

bool bgsim_run(BgSim *sim, int64_t until_ns, GError **errp)
{
    if (sim->threads_mode) {
        return run_threads(sim, until_ns) && !failed(sim, errp);
    }
    bgsim_progress(sim);
    while (!failed(sim, errp)) {
        if (atomic_load(&sim->tasks) == 0 && until_ns < 0) {
            return true;
        }
        if (!sim_step(sim, until_ns)) {
            if (atomic_load(&sim->tasks) > 0 && until_ns < 0) {
                sim_report_hang(sim);
                continue;
            }
            return !failed(sim, errp);
        }
        check_live(sim);
    }
    return false;
}

bool bgsim_step(BgSim *sim)
{
    return sim_step(sim, -1);
}

void bgsim_settle(BgSim *sim)
{
    atomic_store(&sim->settling, true);
    sim->settled_step = sim->steps;
    sim_faults_off(sim);
    for (guint i = 0; i < sim->threads->len; i++) {
        ((SimThread *)g_ptr_array_index(sim->threads, i))->stopped = false;
    }
    for (guint i = 0; i < sim->devices->len; i++) {
        ((SimDevice *)g_ptr_array_index(sim->devices, i))->stopped = false;
    }
}

/* --- violations ----------------------------------------------------------- */

/* What came through a GError of the library has its line ends escaped. */
static char *unescape_lines(char *text)
{
    GString *s = g_string_new(text);

    g_free(text);
    g_string_replace(s, "\\x0a", "\n", 0);
    return g_string_free(s, FALSE);
}

void bgsim_violation(BgSim *sim, const char *oracle, const char *format, ...)
{
    g_autofree char *message = NULL;
    va_list ap;

    va_start(ap, format);
    message = unescape_lines(g_strdup_vprintf(format, ap));
    va_end(ap);
    WITH_LOCK(&sim->lock) {
        if (sim->violation) {
            return;
        }
        sim->violation_oracle = oracle;
        sim->violation = g_strdup_printf("%s: %s", oracle, message);
    }
    atomic_store(&sim->violated, true);
    if (sim->on_violation) {
        sim->on_violation(sim, sim->on_violation_opaque);
    }
}

const char *bgsim_violated(BgSim *sim, const char **ret_message)
{
    if (!atomic_load(&sim->violated)) {
        return NULL;
    }
    if (ret_message) {
        *ret_message = sim->violation;
    }
    return sim->violation_oracle;
}

void sim_give_up(BgSim *sim)
{
    g_autofree char *trace = sim_trace_text(sim, 40);

    fprintf(stderr, "%s\nseed %" G_GUINT64_FORMAT ", step %" G_GUINT64_FORMAT
            "; the last things that happened:\n%s",
            sim->violation, sim->seed, sim->steps, trace);
    abort();
}

void sim_report_hang(BgSim *sim)
{
    g_autofree char *waits = bgsim_describe_waits(sim);

    bgsim_violation(sim, "hang", "nothing can run and no time will change "
                    "that; who waits for what:\n%s", waits);
}
