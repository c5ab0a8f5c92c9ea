/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Runs of scenarios, in this process and in children: what scenario.c,
 * trier.c, supervisor.c, shrink.c, regress.c, explore.c and main.c share.
 *
 * Threads: the supervisor has one, and forks; children are on their own.  What
 * lies in shared memory has one writer at a time, named at its struct.
 */
#ifndef SIM_SUPERVISE_H
#define SIM_SUPERVISE_H

#include <blockgraph/sim-gen.h>
#include <stdatomic.h>
#include <stdio.h>

#include "sim/sim-int.h"

/** How a child ends after a violation; it has written its result before. */
#define SIM_EXIT_VIOLATION 97

/** How long a run may take in real time before it is killed. */
#define SIM_TIMEOUT_DEFAULT_NS (INT64_C(60) * 1000 * 1000 * 1000)

/* --- scenario.c ----------------------------------------------------------- */

/** How one run is made; zeroed, all but the scenario has its default. */
typedef struct SimHow {
    const BgSimScenario *scenario;
    uint64_t seed;
    BgSimStrategy strategy;   /* ANY: that of the scenario */
    bool threads;
    bool record;              /* keep the whole trace */
    bool dies;                /* a violation ends the process, at once */
    Tape *tape;               /* taken over by the run; NULL: fresh from seed */
    /** Before setup.  May be NULL. */
    void (*begin)(BgSim *sim, void *opaque);
    /** The run is over, the world still there.  May be NULL. */
    void (*ended)(BgSim *sim, void *opaque);
    void *opaque;
} SimHow;

/** Run once.  @result is complete before how->ended is called. */
void sim_scenario_run(const SimHow *how, BgSimResult *result);

/** The same with other addresses and another filling of fresh memory. */
void sim_scenario_run_shifted(const SimHow *how, BgSimResult *result);

/** Call it a failure of @oracle unless it is one already. */
void sim_result_fail(BgSimResult *result, const char *oracle,
                     const char *message);

/** "pct" etc.; and the other way round, false if there is none. */
const char *sim_strategy_name(BgSimStrategy strategy);
bool sim_strategy_parse(const char *name, BgSimStrategy *ret);

/* --- stats.c -------------------------------------------------------------- */

#define SIM_SITES_MAX 1024
#define SIM_STRATEGIES (BGSIM_STRATEGY_EXHAUSTIVE + 1)

/** What happened at one point of the library. */
typedef struct SimSiteCounts {
    uint64_t executed, failed_once, failed, yielded, crashed;
} SimSiteCounts;

/** Sums over many runs.  Written by one process; read when it has ended. */
typedef struct SimStats {
    uint64_t runs;
    uint64_t steps;
    uint64_t guest_ops;
    uint64_t crash_states;
    uint64_t second_crashes;
    uint64_t hash;         /* of all runs, in whatever order they were made */
    uint64_t strategies[SIM_STRATEGIES];
    BgSimOpTable ops;
    SimSiteCounts sites[SIM_SITES_MAX];
} SimStats;

/** Where this process counts; NULL: nowhere. */
extern SimStats *sim_stats;

/** Add a run that is over to sim_stats, if there is one. */
void sim_stats_add_run(const BgSimResult *result);

/** Add @from to @to. */
void sim_stats_merge(SimStats *to, const SimStats *from);

/** Print the fault sites, the pairs of operations and the blind spots. */
void sim_stats_print(const SimStats *stats, FILE *out);

/* --- schedule.c ----------------------------------------------------------- */

/** A scheduling decision that survives changes of the code. */
typedef struct SimDecision {
    uint64_t position;  /* the how-manieth choice among several */
    uint64_t value;     /* which one it was, and among how many, then */
    uint64_t bound;
    char *actor;
    char *what;         /* "run", "timer", what a device has done */
    unsigned nth;       /* among those of the same actor and what, from 0 */
    bool applied;       /* in the last replay */
} SimDecision;

/** Decisions by position.  Free with g_ptr_array_unref(). */
GPtrArray *sim_decisions_new(void);

/** Have every decision other than the first in line noted in @into. */
void sim_decisions_record(GPtrArray *into);

/**
 * Have the next run take @decisions, by name.  What cannot be applied is noted
 * in @notes, one a line.
 */
void sim_decisions_replay(GPtrArray *decisions, GString *notes);

/** After the run: note the decisions that were not reached. */
void sim_decisions_finish(GPtrArray *decisions, GString *notes);

/** End recording or replay. */
void sim_decisions_stop(void);

/** "sched @41 1/3 guest1 run": a line of a regression file, without its end. */
char *sim_decision_to_text(const SimDecision *decision);

/** The other way, of what follows "sched".  NULL with @errp set. */
SimDecision *sim_decision_parse(const char *text, GError **errp);

/* --- tape-text.c ---------------------------------------------------------- */

/**
 * A tape in a buffer: all of it, or only what the run has asked for.  Returns
 * how many bytes it takes, 0 if @size is not enough.
 */
size_t tape_pack(const Tape *tape, bool only_used, void *buf, size_t size);

/** The tape, for replay. */
Tape *tape_unpack(const void *buf, size_t size);

/** How many choices differ from 0. */
size_t tape_nr_nonzero(const Tape *tape);

/** Drop the zeroes at the end of each stream, and empty streams. */
void tape_trim(Tape *tape);

/** Choices of all streams but "sched", as lines of a regression file. */
void tape_to_text(const Tape *tape, GString *text);

/** One such line.  Returns 0, or a negative errno with @errp set. */
int tape_parse_line(Tape *tape, const char *line, GError **errp);

/* --- trier.c -------------------------------------------------------------- */

/** What came of one run in a child. */
typedef struct SimTried {
    BgSimResult result;
    Tape *tape;            /* what it has asked for; NULL if it is lost */
    char *notes;           /* of decisions: made, or not applied */
} SimTried;

/**
 * A child that makes one run after the other of one scenario and seed, each
 * with the tape that it is given, and is replaced when a run has killed it.
 */
typedef struct SimTrier SimTrier;

/** What a trier does beyond running. */
typedef struct SimTrierConfig {
    int64_t timeout_ns;      /* of a run in real time; 0: the default */
    bool explain;            /* print the whole trace of each run */
    bool find_leaks;         /* of a sanitizer; a leak ends the child */
    bool record_decisions;   /* as lines of a file in SimTried.notes */
    GPtrArray *decisions;    /* to be replayed; lives as long as the trier */
} SimTrierConfig;

/** @how and @config are copied; how->tape is NULL. */
SimTrier *sim_trier_new(const SimHow *how, const SimTrierConfig *config);

/** Run with @tape, or a fresh one if it is NULL.  sim_tried_clear() @ret. */
void sim_trier_run(SimTrier *trier, const Tape *tape, SimTried *ret);

/** End the child. */
void sim_trier_free(SimTrier *trier);

/** Free what @tried holds. */
void sim_tried_clear(SimTried *tried);

/* --- child.c -------------------------------------------------------------- */

/** A child process; what it prints is kept. */
typedef struct SimChild {
    pid_t pid;        /* 0: none */
    int pidfd;        /* readable when it has ended; -1: not known */
    int err_fd;       /* what it has said, in memory */
} SimChild;

/**
 * Fork.  Returns true in the parent, false in the child, which is killed when
 * the parent dies.  A fork that fails ends the process.
 */
bool sim_child_start(SimChild *child);

/** In the child: what was said before belongs to another run. */
void sim_child_begin_run(void);

/**
 * In the child, after a run that is down: whether memory was lost since the
 * process began, told in @result.  Only the address sanitizer knows; in other
 * builds nothing is ever found.
 */
bool sim_child_find_leaks(BgSimResult *result);

/**
 * In the child: call @publish(@opaque) when a signal is about to end the
 * process, that of sim_child_end() included.  It may not allocate.
 */
void sim_child_catch(void (*publish)(void *opaque), void *opaque);

/** Whether it has ended; @status is that of waitpid(). */
bool sim_child_poll(SimChild *child, int *status);

/** Wait for its end.  @kill: ask it to, then make it. */
int sim_child_end(SimChild *child, bool do_kill);

/** Say in @result how it died: a crash, or out of time after @limit_ns. */
void sim_child_explain(SimChild *child, int status, int64_t limit_ns,
                       BgSimResult *result);

/** Memory that children share with us, zeroed; for good. */
void *sim_shared_new(size_t size);

/** Give it back. */
void sim_shared_free(void *memory, size_t size);

/** The real clock. */
int64_t sim_real_ns(void);

/* --- shrink.c ------------------------------------------------------------- */

/** How much a shrinker may do. */
typedef struct SimShrinkBudget {
    unsigned candidates;   /* 0: 20000 */
    int64_t real_ns;       /* 0: 60 s */
} SimShrinkBudget;

/** What it has done. */
typedef struct SimShrunk {
    BgSimResult result;    /* of the shrunk tape */
    Tape *tape;            /* NULL: the run did not fail */
    unsigned candidates;
    int64_t real_ns;
    size_t choices_before; /* that differ from 0 */
    size_t choices;
} SimShrunk;

/** Whether two failures are one: the oracle, and how the message begins. */
bool sim_same_failure(const BgSimResult *a, const BgSimResult *b);

/** Shrink the run that @how says.  tape_free() ret->tape. */
void sim_shrink(const SimHow *how, int64_t timeout_ns,
                const SimShrinkBudget *budget, SimShrunk *ret);

/* --- regress.c ------------------------------------------------------------ */

/** A regression file. */
typedef struct SimRegress {
    char *scenario;
    unsigned scenario_line; /* where the file names it */
    char *library;          /* the version that wrote it */
    BgSimStrategy strategy;
    uint64_t seed;
    char *reason;           /* lines of comment */
    Tape *tape;             /* all but the schedule */
    GPtrArray *decisions;   /* SimDecision: the schedule */
} SimRegress;

/** Free it; NULL is ignored. */
void sim_regress_free(SimRegress *regress);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(SimRegress, sim_regress_free)

/** Read.  NULL with @errp set; the message names the line. */
SimRegress *sim_regress_load(const char *path, GError **errp);

/** Read from text; @path is for messages. */
SimRegress *sim_regress_parse(const char *text, const char *path,
                              GError **errp);

/** The text of a file. */
char *sim_regress_to_text(const SimRegress *regress);

/**
 * Make a file of a failed run: run it once more for the names of what the
 * scheduler chose, write, read back, and see that the same failure comes.
 * Returns 0, or a negative errno with @errp set.
 */
int sim_regress_save(const SimHow *how, const SimShrunk *shrunk,
                     const char *path, GError **errp);

/**
 * Replay a file.  *@ret_notes (g_free()) lists what no longer applies.
 */
void sim_regress_run(const SimRegress *regress, const BgSimScenario *scenario,
                     const SimTrierConfig *config, BgSimResult *result,
                     char **ret_notes);

/* --- supervisor.c --------------------------------------------------------- */

/** Many runs. */
typedef struct SimBatch {
    const BgSimScenario *const *scenarios; /* ends with NULL */
    uint64_t first;
    uint64_t seeds;            /* of each scenario; 0: no limit */
    int64_t real_ns;           /* no new runs after that; 0: no limit */
    unsigned jobs;             /* children; 0: 1 */
    int64_t timeout_ns;        /* of a run; 0: the default */
    BgSimStrategy strategy;
    bool threads;
    bool check_determinism;    /* each run twice */
    bool hashes;               /* of one scenario: fill in the result's */
    unsigned max_failures;     /* stop after so many; 0: no limit */
} SimBatch;

/** A run that failed. */
typedef struct SimFailure {
    const BgSimScenario *scenario;
    BgSimResult result;
} SimFailure;

/** What came of it. */
typedef struct SimBatchResult {
    SimStats stats;
    uint64_t passed;
    GArray *failures;          /* SimFailure, by order of being noticed */
    uint64_t *hashes;          /* of seed first + i of the only scenario */
    uint64_t nr_hashes;
    int64_t real_ns;
} SimBatchResult;

/** Run.  sim_batch_clear() @ret. */
void sim_batch_run(const SimBatch *batch, SimBatchResult *ret);

/** Free what @result holds. */
void sim_batch_clear(SimBatchResult *result);

/* --- report.c ------------------------------------------------------------- */

/** How failures are reported and stored. */
typedef struct SimReport {
    FILE *out;
    const char *dir;           /* for regression files; NULL: none are made */
    const char *program;       /* for replay lines */
    int64_t timeout_ns;
    BgSimStrategy strategy;
    bool threads;
    bool no_shrink;
    SimShrinkBudget budget;
} SimReport;

/** Report one failure: print, shrink, store. */
void sim_report_failure(const SimReport *report, const SimFailure *failure);

/** Report all failures, each kind in full once; and the figures. */
void sim_report_batch(const SimReport *report, const SimBatch *batch,
                      const SimBatchResult *result);

#endif /* SIM_SUPERVISE_H */
