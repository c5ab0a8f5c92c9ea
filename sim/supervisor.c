/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Many runs in a few children.
 *
 * Each child takes the next run from a counter in shared memory, makes it, adds
 * to its sums, and goes on; the supervisor only waits.  A child that fails ends
 * there, its slot says in which run, and a new child goes on in its place.  A
 * run that takes too long in real time is ended with its child.
 *
 * The runs are numbered: run i is seed first + i / n of scenario i % n.
 */
#include "sim/supervise.h"

#include <poll.h>
#include <string.h>
#include <unistd.h>

#define JOBS_MAX 256

/* How often the supervisor looks at the clocks of its children. */
#define TICK_MS 100

/* Written by the child of the slot, read by the supervisor when it is dead. */
typedef struct Slot {
    _Atomic int64_t started_ns;  /* of the run; 0: between two */
    _Atomic uint64_t index;      /* of the run */
    BgSimResult result;
    SimStats stats;
} Slot;

typedef struct Shared {
    _Atomic uint64_t next;       /* the run that nobody has taken yet */
    _Atomic bool stop;
    Slot slots[];
} Shared;

typedef struct Supervisor {
    const SimBatch *batch;
    SimBatchResult *ret;
    unsigned nr_scenarios;
    unsigned jobs;
    uint64_t total;
    int64_t timeout_ns;
    int64_t begin_ns;
    Shared *shared;
    size_t shared_bytes;
    SimChild children[JOBS_MAX];
} Supervisor;

/* --- the child ------------------------------------------------------------ */

static void publish_last(void *opaque)
{
    Slot *slot = opaque;
    BgSim *sim = sim_world;

    if (sim) {
        slot->result.trace_hash = sim->trace_hash;
        slot->result.steps = sim->steps;
        slot->result.strategy = sim->sched.strategy;
    }
}

static void count_failed(BgSim *sim, void *opaque)
{
    Slot *slot = opaque;

    if (slot->result.failed) {
        sim_stats_add_run(&slot->result);
    }
}

/* A second time, elsewhere in memory: all must be as it was. */
static void check_again(const SimHow *how, Slot *slot)
{
    BgSimResult first = slot->result;
    g_autofree char *message = NULL;

    sim_scenario_run_shifted(how, &slot->result);
    if (slot->result.trace_hash == first.trace_hash) {
        return;
    }
    message = g_strdup_printf("one seed, two runs: trace hash %016"
                              G_GINT64_MODIFIER "x, then %016"
                              G_GINT64_MODIFIER "x at other addresses",
                              first.trace_hash, slot->result.trace_hash);
    sim_result_fail(&slot->result, "determinism", message);
    sim_stats_add_run(&slot->result);
    _exit(SIM_EXIT_VIOLATION);
}

static void run_one(const Supervisor *sv, Slot *slot, uint64_t index)
{
    const SimBatch *batch = sv->batch;
    SimHow how = {
        .scenario = batch->scenarios[index % sv->nr_scenarios],
        .seed = batch->first + index / sv->nr_scenarios,
        .strategy = batch->strategy,
        .threads = batch->threads,
        .dies = true,
        .ended = count_failed,
        .opaque = slot,
    };

    if ((how.scenario->max_seeds &&
         index / sv->nr_scenarios >= how.scenario->max_seeds) ||
        (batch->threads && !how.scenario->threads_too)) {
        return;
    }
    memset(&slot->result, 0, sizeof(slot->result));
    sim_child_begin_run();
    atomic_store(&slot->index, index);
    atomic_store(&slot->started_ns, sim_real_ns());
    sim_scenario_run(&how, &slot->result);
    if (batch->check_determinism && !batch->threads) {
        check_again(&how, slot);
    }
    sim_stats_add_run(&slot->result);
    if (sv->ret->hashes) {
        sv->ret->hashes[how.seed - batch->first] = slot->result.trace_hash;
    }
    atomic_store(&slot->started_ns, 0);
}

static bool is_time_up(const Supervisor *sv)
{
    return sv->batch->real_ns > 0 &&
           sim_real_ns() - sv->begin_ns >= sv->batch->real_ns;
}

static void be_child(const Supervisor *sv, Slot *slot) G_GNUC_NORETURN;

static void be_child(const Supervisor *sv, Slot *slot)
{
    sim_stats = &slot->stats;
    bgsim_op_table_use(&slot->stats.ops);
    sim_child_catch(publish_last, slot);
    while (!is_time_up(sv) && !atomic_load(&sv->shared->stop)) {
        uint64_t index = atomic_fetch_add(&sv->shared->next, 1);

        if (index >= sv->total) {
            break;
        }
        run_one(sv, slot, index);
    }
    if (sim_child_find_leaks(&slot->result)) {
        atomic_store(&slot->started_ns, sim_real_ns());
        _exit(SIM_EXIT_VIOLATION);
    }
    _exit(0);
}

/* --- the supervisor ------------------------------------------------------- */

static void start(Supervisor *sv, unsigned i)
{
    if (!sim_child_start(&sv->children[i])) {
        be_child(sv, &sv->shared->slots[i]);
    }
}

static void note_failure(Supervisor *sv, unsigned i, int status,
                         int64_t limit_ns)
{
    Slot *slot = &sv->shared->slots[i];
    uint64_t index = atomic_load(&slot->index);
    SimFailure failure;
    bool counted = slot->result.failed;

    sim_child_explain(&sv->children[i], status, limit_ns, &slot->result);
    slot->result.seed = sv->batch->first + index / sv->nr_scenarios;
    failure.scenario = sv->batch->scenarios[index % sv->nr_scenarios];
    failure.result = slot->result;
    g_array_append_val(sv->ret->failures, failure);
    if (!counted) {
        /* It could not add itself to the sums. */
        slot->stats.runs++;
        slot->stats.strategies[slot->result.strategy]++;
    }
    atomic_store(&slot->started_ns, 0);
    if (sv->batch->max_failures &&
        sv->ret->failures->len >= sv->batch->max_failures) {
        atomic_store(&sv->shared->stop, true);
    }
}

static bool is_late(const Supervisor *sv, const Slot *slot)
{
    int64_t started_ns = atomic_load(&slot->started_ns);

    return started_ns > 0 && sim_real_ns() - started_ns > sv->timeout_ns;
}

/* The child of slot @i has ended, well or not. */
static void child_ended(Supervisor *sv, unsigned i, int status,
                        int64_t limit_ns)
{
    Slot *slot = &sv->shared->slots[i];

    if (status == 0 && limit_ns == 0 &&
        atomic_load(&slot->started_ns) == 0) {
        if (sv->children[i].err_fd >= 0) {
            close(sv->children[i].err_fd);
        }
        return;
    }
    if (atomic_load(&slot->started_ns) == 0) {
        g_error("A child of the supervisor has died between two runs");
    }
    note_failure(sv, i, status, limit_ns);
    if (!atomic_load(&sv->shared->stop)) {
        start(sv, i);
    }
}

static void look_at(Supervisor *sv, unsigned i)
{
    SimChild *child = &sv->children[i];
    int status;

    if (sim_child_poll(child, &status)) {
        child_ended(sv, i, status, 0);
    } else if (is_late(sv, &sv->shared->slots[i])) {
        status = sim_child_end(child, true);
        child_ended(sv, i, status, sv->timeout_ns);
    }
}

/* Until one of the children has ended, or a tick later. */
static void wait_for_children(Supervisor *sv)
{
    struct pollfd fds[JOBS_MAX];
    nfds_t n = 0;

    for (unsigned i = 0; i < sv->jobs; i++) {
        if (sv->children[i].pid) {
            fds[n++] = (struct pollfd){ sv->children[i].pidfd, POLLIN, 0 };
        }
    }
    poll(fds, n, TICK_MS);
}

static bool any_alive(const Supervisor *sv)
{
    for (unsigned i = 0; i < sv->jobs; i++) {
        if (sv->children[i].pid) {
            return true;
        }
    }
    return false;
}

static void supervise(Supervisor *sv)
{
    for (unsigned i = 0; i < sv->jobs; i++) {
        start(sv, i);
    }
    while (any_alive(sv)) {
        wait_for_children(sv);
        for (unsigned i = 0; i < sv->jobs; i++) {
            if (sv->children[i].pid) {
                look_at(sv, i);
            }
        }
    }
}

static void add_up(Supervisor *sv)
{
    for (unsigned i = 0; i < sv->jobs; i++) {
        sim_stats_merge(&sv->ret->stats, &sv->shared->slots[i].stats);
    }
    sv->ret->passed = sv->ret->stats.runs - sv->ret->failures->len;
    sv->ret->real_ns = sim_real_ns() - sv->begin_ns;
}

void sim_batch_run(const SimBatch *batch, SimBatchResult *ret)
{
    Supervisor sv = { .batch = batch, .ret = ret };

    memset(ret, 0, sizeof(*ret));
    ret->failures = g_array_new(FALSE, FALSE, sizeof(SimFailure));
    while (batch->scenarios[sv.nr_scenarios]) {
        sv.nr_scenarios++;
    }
    g_assert(sv.nr_scenarios > 0);
    sv.jobs = CLAMP(batch->jobs, 1, JOBS_MAX);
    sv.total = UINT64_MAX;
    if (batch->seeds > 0 && batch->seeds < UINT64_MAX / sv.nr_scenarios) {
        sv.total = batch->seeds * sv.nr_scenarios;
    }
    sv.timeout_ns = batch->timeout_ns > 0 ? batch->timeout_ns
                                          : SIM_TIMEOUT_DEFAULT_NS;
    sv.begin_ns = sim_real_ns();
    sv.shared_bytes = sizeof(Shared) + sv.jobs * sizeof(Slot);
    sv.shared = sim_shared_new(sv.shared_bytes);
    if (batch->hashes) {
        ret->hashes = sim_shared_new(batch->seeds * sizeof(uint64_t));
        ret->nr_hashes = batch->seeds;
    }
    supervise(&sv);
    add_up(&sv);
    sim_shared_free(sv.shared, sv.shared_bytes);
}

void sim_batch_clear(SimBatchResult *result)
{
    g_clear_pointer(&result->failures, g_array_unref);
    if (result->hashes) {
        sim_shared_free(result->hashes, result->nr_hashes * sizeof(uint64_t));
    }
}
