/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * All of something: all orders of a small scenario, a failure of each call.
 *
 * The runs are made one after the other in one child; what it knows when it
 * dies is in shared memory.
 */
#include "sim/supervise.h"

#include <blockgraph/error.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Written by the child. */
typedef struct Progress {
    int64_t runs;             /* those that have begun */
    _Atomic int64_t begun_ns;
    BgSimResult result;       /* of the run that is last */
    char what[512];           /* what is special about it */
} Progress;

typedef void Body(void *opaque, Progress *progress);

/* Wait for the child; returns false if it ended badly. */
static bool wait_child(SimChild *child, Progress *progress)
{
    int64_t late_ns = 0;
    int status;

    while (!sim_child_poll(child, &status)) {
        int64_t begun_ns = atomic_load(&progress->begun_ns);

        if (begun_ns > 0 &&
            sim_real_ns() - begun_ns > SIM_TIMEOUT_DEFAULT_NS) {
            late_ns = SIM_TIMEOUT_DEFAULT_NS;
            status = sim_child_end(child, true);
            break;
        }
        g_usleep(500);
    }
    if (status == 0 && late_ns == 0) {
        close(child->err_fd);
        return true;
    }
    sim_child_explain(child, status, late_ns, &progress->result);
    return false;
}

/* Have @body do its runs in a child.  How many, or negative with @errp set. */
static int64_t run_all(Body *body, void *opaque, const BgSimScenario *scenario,
                       GError **errp)
{
    Progress *progress = sim_shared_new(sizeof(*progress));
    SimChild child = { 0 };
    int64_t ret;

    if (!sim_child_start(&child)) {
        body(opaque, progress);
        _exit(0);
    }
    ret = progress->runs;
    if (wait_child(&child, progress)) {
        ret = progress->runs;
    } else {
        ret = block_error(errp, EILSEQ, "scenario '%s', run %" G_GINT64_FORMAT
                          " (%s): %s: %s", scenario->name, progress->runs,
                          progress->what, progress->result.oracle,
                          progress->result.message);
    }
    sim_shared_free(progress, sizeof(*progress));
    return ret;
}

static void begin_run(Progress *progress)
{
    progress->runs++;
    memset(&progress->result, 0, sizeof(progress->result));
    atomic_store(&progress->begun_ns, sim_real_ns());
}

/* --- all orders ----------------------------------------------------------- */

/* One choice on the way from the root of the tree. */
typedef struct Branch {
    unsigned chosen;
    unsigned n;
} Branch;

typedef struct Explore {
    const BgSimScenario *scenario;
    uint64_t seed;
    unsigned preemptions;
    int64_t max_runs;
    GArray *path;       /* Branch */
    guint position;     /* of the run, in @path */
} Explore;

/* The path as far as it goes, then always the first. */
static int choose_on_path(BgSim *sim, void *opaque)
{
    Explore *ex = opaque;
    Branch fresh = { 0, sim->ready->len };
    Branch *branch;

    if (atomic_load(&sim->settling)) {
        return 0;
    }
    if (ex->position == ex->path->len) {
        g_array_append_val(ex->path, fresh);
    }
    branch = &g_array_index(ex->path, Branch, ex->position);
    if (branch->n != sim->ready->len) {
        bgsim_violation(sim, "determinism", "choice %u among %u things is now "
                        "one among %u", ex->position, branch->n,
                        sim->ready->len);
        branch->n = sim->ready->len;
        branch->chosen = 0;
    }
    ex->position++;
    return branch->chosen;
}

static unsigned departures(const Explore *ex, guint len)
{
    unsigned n = 0;

    for (guint i = 0; i < len; i++) {
        n += g_array_index(ex->path, Branch, i).chosen > 0;
    }
    return n;
}

/* The next path, depth first.  Returns false after the last. */
static bool next_path(Explore *ex)
{
    while (ex->path->len > 0) {
        guint last = ex->path->len - 1;
        Branch *branch = &g_array_index(ex->path, Branch, last);

        if (branch->chosen + 1 < branch->n &&
            departures(ex, last) < ex->preemptions) {
            branch->chosen++;
            return true;
        }
        g_array_set_size(ex->path, last);
    }
    return false;
}

/* "choice 3 of 5 things, ..." */
static void tell_path(const Explore *ex, char *text, size_t size)
{
    g_autoptr(GString) words = g_string_new("in order");

    for (guint i = 0; i < ex->path->len; i++) {
        const Branch *branch = &g_array_index(ex->path, Branch, i);

        if (branch->chosen > 0) {
            g_string_append_printf(words, ", but at choice %u the %u of %u",
                                   i, branch->chosen, branch->n);
        }
    }
    g_strlcpy(text, words->str, size);
}

static void explore_body(void *opaque, Progress *progress)
{
    Explore *ex = opaque;
    SimChooser chooser = { choose_on_path, NULL, ex };
    SimHow how = { .scenario = ex->scenario, .seed = ex->seed,
                   .strategy = BGSIM_STRATEGY_EXHAUSTIVE, .dies = true };

    sim_chooser = &chooser;
    do {
        if (ex->max_runs > 0 && progress->runs >= ex->max_runs) {
            break;
        }
        ex->position = 0;
        begin_run(progress);
        tell_path(ex, progress->what, sizeof(progress->what));
        sim_scenario_run(&how, &progress->result);
        g_array_set_size(ex->path, ex->position);
    } while (next_path(ex));
    sim_chooser = NULL;
}

int64_t bgsim_explore(const BgSimScenario *scenario, uint64_t seed,
                      unsigned preemptions, int64_t max_runs, GError **errp)
{
    Explore ex = {
        .scenario = scenario,
        .seed = seed,
        .preemptions = preemptions,
        .max_runs = max_runs,
        .path = g_array_new(FALSE, FALSE, sizeof(Branch)),
    };
    int64_t ret = run_all(explore_body, &ex, scenario, errp);

    g_array_unref(ex.path);
    return ret;
}

/* --- each call fails ------------------------------------------------------ */

typedef struct FailEach {
    const BgSimScenario *scenario;
    const char *where;
    int err;
    unsigned skip;
    unsigned count;     /* 0: from then on */
    BgSimRule *rule;
    uint64_t hits;
} FailEach;

static void add_rule(BgSim *sim, void *opaque)
{
    FailEach *f = opaque;

    f->rule = bgsim_fail(sim, f->where, f->err);
    bgsim_rule_nth(f->rule, f->skip, f->count);
}

static void read_rule(BgSim *sim, void *opaque)
{
    FailEach *f = opaque;

    f->hits = f->rule ? bgsim_rule_hits(f->rule) : 0;
}

/* Returns whether the call was reached. */
static bool fail_one(FailEach *f, Progress *progress)
{
    SimHow how = { .scenario = f->scenario, .dies = true, .begin = add_rule,
                   .ended = read_rule, .opaque = f };

    begin_run(progress);
    g_snprintf(progress->what, sizeof(progress->what), "call %u at '%s' fails%s",
               f->skip + 1, f->where, f->count == 0 ? ", and all after it"
                                                    : "");
    f->hits = 0;
    sim_scenario_run(&how, &progress->result);
    return f->hits > 0;
}

static void fail_each_body(void *opaque, Progress *progress)
{
    FailEach *f = opaque;
    bool reached = true;

    for (f->skip = 0; reached; f->skip++) {
        f->count = 1;
        reached = fail_one(f, progress);
        f->count = 0;
        if (reached) {
            reached = fail_one(f, progress);
        }
    }
}

bool bgsim_fail_each(const BgSimScenario *scenario, const char *where, int err,
                     GError **errp)
{
    FailEach f = { .scenario = scenario, .where = where, .err = err };

    return run_all(fail_each_body, &f, scenario, errp) >= 0;
}
