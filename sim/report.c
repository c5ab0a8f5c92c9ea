/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is said of failures and of many runs.
 */
#include "sim/supervise.h"

#include <inttypes.h>
#include <string.h>

#include "config.h"
#include "util/sim-mutant.h"

/* How many seeds of one failure are named. */
#define LISTED_MAX 20

/* --- one failure ---------------------------------------------------------- */

static unsigned planted(void)
{
#ifdef BLOCK_PLANTED
    return sim_planted;
#else
    return 0;
#endif
}

/* What the replay line needs besides scenario and seed. */
static char *tell_options(const SimReport *report)
{
    GString *text = g_string_new(NULL);

    if (report->strategy != BGSIM_STRATEGY_ANY) {
        g_string_append_printf(text, " --strategy %s",
                               sim_strategy_name(report->strategy));
    }
    if (report->threads) {
        g_string_append(text, " --threads");
    }
    if (planted()) {
        g_string_append_printf(text, " --planted %u", planted());
    }
    return g_string_free(text, FALSE);
}

static void print_replay(const SimReport *report, const SimFailure *failure)
{
    g_autofree char *options = tell_options(report);

    fprintf(report->out, "replay: %s replay --scenario %s --seed %" PRIu64
            "%s\n", report->program, failure->scenario->name,
            failure->result.seed, options);
}

static char *oracle_in_name(const char *oracle)
{
    return g_strcanon(g_strdup(oracle),
                      G_CSET_a_2_z G_CSET_A_2_Z G_CSET_DIGITS "-", '-');
}

/* The first free DIR/NNN-scenario-oracle.bgs. */
static char *new_path(const char *dir, const SimFailure *failure)
{
    g_autofree char *oracle = oracle_in_name(failure->result.oracle);

    for (unsigned i = 1;; i++) {
        char *path = g_strdup_printf("%s/%03u-%s-%s.bgs", dir, i,
                                     failure->scenario->name, oracle);

        if (!g_file_test(path, G_FILE_TEST_EXISTS)) {
            return path;
        }
        g_free(path);
    }
}

static void store(const SimReport *report, const SimHow *how,
                  const SimFailure *failure, const SimShrunk *shrunk)
{
    g_autofree char *path = new_path(report->dir, failure);
    g_autoptr(GError) error = NULL;

    if (g_mkdir_with_parents(report->dir, 0777) < 0 ||
        sim_regress_save(how, shrunk, path, &error) < 0) {
        fprintf(report->out, "not stored: %s\n",
                error ? error->message : "the directory cannot be made");
        return;
    }
    fprintf(report->out, "stored: %s replay %s", report->program, path);
    if (planted()) {
        fprintf(report->out, " --planted %u", planted());
    }
    fputc('\n', report->out);
}

static void shrink_and_store(const SimReport *report,
                             const SimFailure *failure)
{
    SimHow how = { .scenario = failure->scenario,
                   .seed = failure->result.seed,
                   .strategy = report->strategy };
    SimShrunk shrunk;

    sim_shrink(&how, report->timeout_ns, &report->budget, &shrunk);
    if (!shrunk.tape) {
        fprintf(report->out, "not shrunk: alone, the run %s\n",
                shrunk.result.failed ? "leaves no tape" : "does not fail");
        return;
    }
    fprintf(report->out, "shrunk: %zu choices of %zu are left, after %u "
            "candidates in %.2f s\n", shrunk.choices, shrunk.choices_before,
            shrunk.candidates, shrunk.real_ns / 1e9);
    if (report->dir) {
        store(report, &how, failure, &shrunk);
    }
    tape_free(shrunk.tape);
}

/* The length of the tape is known only by running again. */
static size_t length_of(const SimReport *report, const SimFailure *failure)
{
    SimHow how = { .scenario = failure->scenario,
                   .seed = failure->result.seed,
                   .strategy = report->strategy };
    SimTrierConfig config = { .timeout_ns = report->timeout_ns };
    SimTrier *trier = sim_trier_new(&how, &config);
    SimTried tried;
    size_t length;

    sim_trier_run(trier, NULL, &tried);
    length = tried.tape ? tape_length(tried.tape) : 0;
    sim_tried_clear(&tried);
    sim_trier_free(trier);
    return length;
}

void sim_report_failure(const SimReport *report, const SimFailure *failure)
{
    const BgSimResult *r = &failure->result;

    fprintf(report->out, "\nFAILED: scenario '%s', seed %" PRIu64
            ", strategy %s, library %s\noracle: %s\nmessage: %s\n",
            failure->scenario->name, r->seed, sim_strategy_name(r->strategy),
            BLOCKGRAPH_VERSION, r->oracle, r->message);
    if (!report->threads) {
        fprintf(report->out, "at step %" PRIu64 ", trace hash %016" PRIx64
                ", tape of %zu choices\n", r->steps, r->trace_hash,
                length_of(report, failure));
    }
    print_replay(report, failure);
    /* A run that differs from itself, or with real threads, has no tape. */
    if (!report->threads && !report->no_shrink &&
        strcmp(r->oracle, "determinism") != 0) {
        shrink_and_store(report, failure);
    }
    fflush(report->out);
}

/* --- many runs ------------------------------------------------------------ */

static bool is_known(const SimBatchResult *result, guint i)
{
    const SimFailure *it = &g_array_index(result->failures, SimFailure, i);

    for (guint j = 0; j < i; j++) {
        const SimFailure *other =
            &g_array_index(result->failures, SimFailure, j);

        if (other->scenario == it->scenario &&
            sim_same_failure(&other->result, &it->result)) {
            return true;
        }
    }
    return false;
}

/* "and so did seeds 3 8 17 ... of scenario 'x'". */
static void list_like(const SimReport *report, const SimBatchResult *result,
                      guint i)
{
    const SimFailure *first = &g_array_index(result->failures, SimFailure, i);
    unsigned n = 0;

    for (guint j = i + 1; j < result->failures->len; j++) {
        const SimFailure *it = &g_array_index(result->failures, SimFailure, j);

        if (it->scenario == first->scenario &&
            sim_same_failure(&it->result, &first->result)) {
            if (n == 0) {
                fprintf(report->out, "also failed so, seeds:");
            }
            if (n++ < LISTED_MAX) {
                fprintf(report->out, " %" PRIu64, it->result.seed);
            }
        }
    }
    if (n > LISTED_MAX) {
        fprintf(report->out, " and %u more", n - LISTED_MAX);
    }
    if (n > 0) {
        fputc('\n', report->out);
    }
}

static void report_failures(const SimReport *report,
                            const SimBatchResult *result)
{
    for (guint i = 0; i < result->failures->len; i++) {
        if (!is_known(result, i)) {
            sim_report_failure(report, &g_array_index(result->failures,
                                                      SimFailure, i));
            list_like(report, result, i);
        }
    }
}

static void print_strategies(const SimStats *stats, FILE *out)
{
    fprintf(out, "strategies:");
    for (unsigned i = 1; i < SIM_STRATEGIES; i++) {
        if (stats->strategies[i]) {
            fprintf(out, " %s %.1f %%", sim_strategy_name(i),
                    100.0 * stats->strategies[i] / MAX(stats->runs, 1));
        }
    }
    fputc('\n', out);
}

void sim_report_batch(const SimReport *report, const SimBatch *batch,
                      const SimBatchResult *result)
{
    const SimStats *stats = &result->stats;
    double seconds = MAX(result->real_ns, 1) / 1e9;
    double core_seconds = seconds * MIN(MAX(batch->jobs, 1),
                                        g_get_num_processors());

    report_failures(report, result);
    fprintf(report->out, "\nruns %" PRIu64 " (%.0f a second), steps %" PRIu64
            ", operations %" PRIu64 " (%.0f a second and core)\n"
            "crash states %" PRIu64 ", of them second crashes %" PRIu64
            ", seconds %.2f\n", stats->runs, stats->runs / seconds,
            stats->steps, stats->guest_ops, stats->guest_ops / core_seconds,
            stats->crash_states, stats->second_crashes, seconds);
    print_strategies(stats, report->out);
    if (!batch->threads) {
        fprintf(report->out, "hash of all runs %016" PRIx64 "\n", stats->hash);
    }
}
