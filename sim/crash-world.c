/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The world of a check after a power cut: a clock, a tape, threads and a graph
 * of its own, in the same process and on the same disks.  The world outside
 * stands still: its threads, events and coroutines are out of the scheduler's
 * sight, and all of it is put back as it was.
 *
 * What outlives a check is named in keep_results(); every other field of the
 * world is restored.
 */
#include "sim/crash-int.h"

#include <errno.h>

static void hide_devices(BgSim *sim, SimOuter *outer)
{
    outer->nr_devices = sim->devices->len;
    outer->nr_disks = sim->disks->len;
    outer->stopped = g_array_new(FALSE, FALSE, sizeof(bool));
    for (guint i = 0; i < sim->devices->len; i++) {
        SimDevice *device = g_ptr_array_index(sim->devices, i);

        g_array_append_val(outer->stopped, device->stopped);
        device->stopped = false;
    }
}

/* Rules, oracles and what is owned are of the check that makes them. */
static void empty_world(BgSim *sim)
{
    sim->threads = g_ptr_array_new();
    sim->events = g_ptr_array_new();
    sim->ready = g_array_new(FALSE, FALSE, sizeof(SimReady));
    sim->oracles = g_ptr_array_new_with_free_func(g_free);
    sim->rules = g_ptr_array_new();
    sim->owned = g_ptr_array_new();
    sim->models = g_ptr_array_new();
    sim->crash_plans = g_ptr_array_new();
    sim->trace = g_array_new(FALSE, FALSE, sizeof(SimTraceEntry));
    sim->trace_next = 0;
    list_init(&sim->actors);
    sim->fail_maybe = false;
    sim->fail_permille = 0;
    sim->fail_budget = 0;
    sim->running = 0;
    atomic_store(&sim->tasks, 0);
    atomic_store(&sim->coroutines, 0);
    atomic_store(&sim->settling, false);
    for (size_t i = 0; i < G_N_ELEMENTS(sim->ops_active); i++) {
        atomic_store(&sim->ops_active[i], 0);
    }
}

void sim_outer_save(BgSim *sim, SimOuter *outer)
{
    g_assert(!lock_is_held(&sim->lock));
    *outer = (SimOuter){ .sim = *sim, .tape = tape_new(0) };
    outer->chooser = sim_chooser;
    sim_chooser = NULL; /* it knows the steps of the world outside */
    hide_devices(sim, outer);
    empty_world(sim);
    sim->tape = outer->tape;
    sim_main_thread_new(sim);
}

static void keep_results(BgSim *sim, const BgSim *inner)
{
    sim->trace_hash = inner->trace_hash;
    sim->violation = inner->violation;
    sim->violation_oracle = inner->violation_oracle;
    atomic_store(&sim->violated, atomic_load(&inner->violated));
    sim->crash_states = inner->crash_states;
    sim->second_crashes = inner->second_crashes;
    sim->order_edges = inner->order_edges;
}

/* The end of the trace of a bad check explains it. */
static void keep_trace(BgSim *sim, const BgSim *inner)
{
    guint len = inner->trace->len;

    for (guint i = 0; i < len; i++) {
        sim_trace_keep(sim, &g_array_index(inner->trace, SimTraceEntry,
                                           (inner->trace_next + i) % len));
    }
}

static void free_world(BgSim *sim)
{
    sim_threads_free(sim);
    g_ptr_array_unref(sim->threads);
    g_ptr_array_unref(sim->events);
    g_array_unref(sim->ready);
    g_ptr_array_unref(sim->oracles);
    g_ptr_array_unref(sim->rules);
    g_ptr_array_unref(sim->owned);
    g_ptr_array_unref(sim->models);
    g_ptr_array_unref(sim->crash_plans);
}

void sim_outer_restore(BgSim *sim, SimOuter *outer)
{
    BgSim inner = *sim;

    if (outer->abandoned) {
        aio_thread()->first = sim->outer_first;
    } else {
        free_world(sim);
    }
    *sim = outer->sim;
    keep_results(sim, &inner);
    keep_trace(sim, &inner);
    g_array_unref(inner.trace);
    for (guint i = 0; i < outer->nr_devices; i++) {
        ((SimDevice *)g_ptr_array_index(sim->devices, i))->stopped =
            g_array_index(outer->stopped, bool, i);
    }
    g_array_unref(outer->stopped);
    tape_free(outer->tape);
    sim_chooser = outer->chooser;
}

/* --- one check ------------------------------------------------------------ */

void sim_inner_begin(BgSim *sim, SimOuter *outer, uint64_t seed)
{
    sim->now_ns = outer->sim.now_ns;
    sim->steps = outer->sim.steps;
    sim->next_seq = outer->sim.next_seq;
    sim->next_co = outer->sim.next_co;
    atomic_store(&sim->clock, atomic_load(&outer->sim.clock));
    g_array_set_size(sim->trace, 0);
    sim->trace_next = 0;
    tape_restart(outer->tape, seed);
    sim_sched_init(sim);
    sim_random_init(&sim->sched.random, seed);
    bgsim_progress(sim);
    sim->crash_graph = block_graph_new(bgsim_main_context(sim), NULL);
}

static void free_inner_devices(BgSim *sim, const SimOuter *outer)
{
    g_ptr_array_set_size(sim->disks, outer->nr_disks);
    for (guint i = outer->nr_devices; i < sim->devices->len; i++) {
        SimDevice *device = g_ptr_array_index(sim->devices, i);

        g_free(device->name);
        g_free(device);
    }
    g_ptr_array_set_size(sim->devices, outer->nr_devices);
}

static bool is_at_rest(BgSim *sim, GError **errp)
{
    size_t nodes = block_graph_nr_nodes(sim->crash_graph);
    unsigned tasks = atomic_load(&sim->tasks);

    if (nodes > 0 || tasks > 0 || sim->events->len > 0) {
        block_error(errp, EBUSY, "the check left %zu nodes, %u tasks and %u "
                    "requests behind", nodes, tasks, sim->events->len);
        return false;
    }
    return true;
}

bool sim_inner_end(BgSim *sim, SimOuter *outer, bool good, GError **errp)
{
    sim_sched_clear(sim);
    sim_faults_off(sim);
    if (!is_at_rest(sim, good ? errp : NULL)) {
        /* Nobody can run what is left: it is lost, with its world. */
        outer->abandoned = true;
        g_ptr_array_set_size(sim->disks, outer->nr_disks);
        return false;
    }
    g_clear_pointer(&sim->crash_graph, block_graph_free);
    sim_threads_trim(sim, 1);
    sim_owned_clear(sim);
    sim_faults_clear(sim);
    g_ptr_array_set_size(sim->rules, 0);
    g_ptr_array_set_size(sim->oracles, 0);
    g_ptr_array_set_size(sim->models, 0);
    g_ptr_array_set_size(sim->crash_plans, 0);
    free_inner_devices(sim, outer);
    atomic_store(&sim->settling, false);
    return good;
}
