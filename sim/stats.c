/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sums over runs: figures, what happened at the library's points, and which
 * operations overlapped.
 */
#include "sim/supervise.h"

#include <inttypes.h>
#include <string.h>

SimStats *sim_stats;

/* --- sums ----------------------------------------------------------------- */

static uint64_t scramble(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ x >> 27) * UINT64_C(0x94D049BB133111EB);
    return x ^ x >> 31;
}

/* The points count from the start of the process; only what is new is ours. */
static void add_sites(SimStats *stats)
{
    static SimSiteCounts seen[SIM_SITES_MAX];
    unsigned n = MIN(bgsim_nr_sites(), SIM_SITES_MAX);

    for (unsigned i = 0; i < n; i++) {
        SimSiteCounts *sum = &stats->sites[i];
        BgSimSiteInfo info;

        bgsim_get_site(i, &info);
        sum->executed += info.executed - seen[i].executed;
        sum->failed_once += info.failed_once - seen[i].failed_once;
        sum->failed += info.failed - seen[i].failed;
        sum->yielded += info.yielded - seen[i].yielded;
        sum->crashed += info.crashed - seen[i].crashed;
        seen[i] = (SimSiteCounts){ info.executed, info.failed_once,
                                   info.failed, info.yielded, info.crashed };
    }
}

void sim_stats_add_run(const BgSimResult *result)
{
    SimStats *stats = sim_stats;

    if (!stats) {
        return;
    }
    stats->runs++;
    stats->steps += result->steps;
    stats->guest_ops += result->guest_ops;
    stats->crash_states += result->crash_states;
    stats->second_crashes += result->second_crashes;
    stats->hash += scramble(result->trace_hash ^ scramble(result->seed));
    stats->strategies[result->strategy]++;
    add_sites(stats);
}

static void merge_ops(BgSimOpTable *to, const BgSimOpTable *from)
{
    for (unsigned a = 0; a < BGSIM_OPS; a++) {
        to->begun[a] += from->begun[a];
        for (unsigned b = 0; b < BGSIM_OPS; b++) {
            to->pairs[a][b] += from->pairs[a][b];
        }
    }
}

void sim_stats_merge(SimStats *to, const SimStats *from)
{
    to->runs += from->runs;
    to->steps += from->steps;
    to->guest_ops += from->guest_ops;
    to->crash_states += from->crash_states;
    to->second_crashes += from->second_crashes;
    to->hash += from->hash;
    for (unsigned i = 0; i < SIM_STRATEGIES; i++) {
        to->strategies[i] += from->strategies[i];
    }
    merge_ops(&to->ops, &from->ops);
    for (unsigned i = 0; i < SIM_SITES_MAX; i++) {
        const SimSiteCounts *add = &from->sites[i];
        SimSiteCounts *sum = &to->sites[i];

        sum->executed += add->executed;
        sum->failed_once += add->failed_once;
        sum->failed += add->failed;
        sum->yielded += add->yielded;
        sum->crashed += add->crashed;
    }
}

/* --- tables --------------------------------------------------------------- */

static bool is_same_site(unsigned i, unsigned j)
{
    BgSimSiteInfo a;
    BgSimSiteInfo b;

    bgsim_get_site(i, &a);
    bgsim_get_site(j, &b);
    return strcmp(a.name, b.name) == 0 && a.line == b.line &&
           strcmp(a.file, b.file) == 0;
}

/* A point in an inline function exists more than once. */
static bool is_first_of_site(unsigned i)
{
    for (unsigned j = 0; j < i; j++) {
        if (is_same_site(i, j)) {
            return false;
        }
    }
    return true;
}

static SimSiteCounts sum_of_site(const SimStats *stats, unsigned i, unsigned n)
{
    SimSiteCounts sum = { 0 };

    for (unsigned j = i; j < n; j++) {
        if (is_same_site(i, j)) {
            sum.executed += stats->sites[j].executed;
            sum.failed_once += stats->sites[j].failed_once;
            sum.failed += stats->sites[j].failed;
            sum.yielded += stats->sites[j].yielded;
            sum.crashed += stats->sites[j].crashed;
        }
    }
    return sum;
}

static void print_sites(const SimStats *stats, FILE *out)
{
    unsigned n = MIN(bgsim_nr_sites(), SIM_SITES_MAX);
    unsigned never_failed = 0;

    fprintf(out, "Points of the library:\n%-28s %12s %9s %9s %9s %9s\n",
            "name", "executed", "failed", "then well", "yielded", "crashed");
    for (unsigned i = 0; i < n; i++) {
        BgSimSiteInfo info;
        SimSiteCounts sum;

        if (!is_first_of_site(i)) {
            continue;
        }
        bgsim_get_site(i, &info);
        sum = sum_of_site(stats, i, n);
        never_failed += info.can_fail && sum.executed && !sum.failed;
        fprintf(out, "%-28s %12" PRIu64, info.name, sum.executed);
        if (info.can_fail) {
            fprintf(out, " %9" PRIu64 " %9" PRIu64, sum.failed,
                    sum.failed_once);
        } else {
            fprintf(out, " %9s %9s", "-", "-");
        }
        fprintf(out, " %9" PRIu64 " %9" PRIu64 "%s\n", sum.yielded,
                sum.crashed, sum.executed ? "" : "  (never reached)");
    }
    fprintf(out, "%u points were executed and can fail, but never did\n",
            never_failed);
}

static void print_pairs(const BgSimOpTable *ops, FILE *out)
{
    fprintf(out, "\nHow often the operation on top began while that on the "
            "left was under way:\n%-9s", "");
    for (unsigned b = 0; b < BGSIM_OPS; b++) {
        if (ops->begun[b]) {
            fprintf(out, " %9s", bgsim_op_name(b));
        }
    }
    fputc('\n', out);
    for (unsigned a = 0; a < BGSIM_OPS; a++) {
        if (!ops->begun[a]) {
            continue;
        }
        fprintf(out, "%-9s", bgsim_op_name(a));
        for (unsigned b = 0; b < BGSIM_OPS; b++) {
            if (ops->begun[b]) {
                fprintf(out, " %9" PRIu64, ops->pairs[a][b]);
            }
        }
        fputc('\n', out);
    }
}

/* Blind spots of the generator. */
static void print_blind_spots(const BgSimOpTable *ops, FILE *out)
{
    for (unsigned a = 0; a < BGSIM_OPS; a++) {
        if (!ops->begun[a]) {
            fprintf(out, "blind spot: no %s at all\n", bgsim_op_name(a));
        }
        for (unsigned b = 0; b < BGSIM_OPS && ops->begun[a]; b++) {
            if (ops->begun[b] && ops->pairs[a][b] == 0) {
                fprintf(out, "blind spot: no %s began during a %s\n",
                        bgsim_op_name(b), bgsim_op_name(a));
            }
        }
    }
}

void sim_stats_print(const SimStats *stats, FILE *out)
{
    print_sites(stats, out);
    print_pairs(&stats->ops, out);
    print_blind_spots(&stats->ops, out);
}
