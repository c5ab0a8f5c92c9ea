/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Scenarios: run on many seeds, replayed, shrunk, kept as regression files.
 */
#ifndef BLOCKGRAPH_SIM_GEN_H
#define BLOCKGRAPH_SIM_GEN_H

#include <blockgraph/sim-oracle.h>

G_BEGIN_DECLS

/**
 * A scenario.  Each function may be NULL.  A violation, or a true failed check
 * in verify, fails the run.
 */
typedef struct BgSimScenario {
    const char *name;
    const char *help;     /* one line */
    size_t state_size;    /* of @state, zeroed before setup */
    BgSimConfig config;
    /** Make disks, nodes, backends, models; spawn tasks. */
    void (*setup)(BgSim *sim, void *state);
    /** Run; NULL: bgsim_run() until all tasks have ended. */
    void (*body)(BgSim *sim, void *state);
    /** Faults are off: what was begun must end. */
    void (*settle)(BgSim *sim, void *state);
    /** Check the end, take everything down. */
    void (*verify)(BgSim *sim, void *state);
    uint64_t max_seeds;   /* run on at most so many of a run of many; 0: all.
                           * For expensive ones */
    bool threads_too;     /* also makes sense with real threads */
    bool by_name_only;    /* not in the default set: fails on purpose, or
                           * measures */
} BgSimScenario;

/** What came of one run. */
typedef struct BgSimResult {
    bool failed;
    char oracle[32];      /* of the first violation; "crash" for a signal,
                           * "timeout" for no end in real time */
    char message[1024];
    uint64_t seed;
    uint64_t trace_hash;
    uint64_t steps;
    uint64_t guest_ops;   /* bgsim_op_begin() of requests, as models call it */
    uint64_t crash_states;
    uint64_t second_crashes;
    unsigned strategy;    /* BgSimStrategy */
} BgSimResult;

/**
 * Run @scenario once in this process.  A crash of it is a crash of ours, and
 * so is a violation while a synchronous call waits.  After any other violation
 * the world is left behind in memory: it cannot be taken down.
 */
BLOCK_API void bgsim_run_scenario(const BgSimScenario *scenario, uint64_t seed,
                                  BgSimResult *result);

/**
 * Select the planted bug @n of a library that was built with them (the option
 * planted_bugs), 0 for none.  Before bgsim_new().
 *
 * Returns false if this library has none.
 */
BLOCK_API bool bgsim_plant(unsigned n);

/**
 * The main function of a program that runs scenarios: seeds, replay, shrink,
 * report; see docs/testing-your-graph.md.  @scenarios ends with NULL.
 *
 * Returns the exit status: 0 well, 1 something failed, 2 wrong usage.
 */
BLOCK_API int bgsim_main(int argc, char **argv,
                         const BgSimScenario *const *scenarios);

/**
 * Run @count seeds of @scenario, each in a child process; on the first failure
 * shrink it and write the regression file to the current directory.
 *
 * Returns true if all went well; else false and *@ret_report (g_free()) tells
 * what failed and ends with the line that replays it.  For test frameworks.
 */
BLOCK_API bool bgsim_check_seeds(const BgSimScenario *scenario, uint64_t first,
                                 unsigned count, char **ret_report);

/**
 * Run @scenario with the first, second, ... call at @where failing, once each
 * and then from there on, until it is not reached any more.
 *
 * Returns false with @errp set if a run fails.
 */
BLOCK_API bool bgsim_fail_each(const BgSimScenario *scenario,
                               const char *where, int err, GError **errp);

/**
 * All orders of a small scenario, depth first over its choices, with at most
 * @preemptions departures from first come, first served.
 *
 * @max_runs  give up after so many; 0: no limit
 *
 * Returns how many runs were made, or a negative number with @errp set if one
 * failed.
 */
BLOCK_API int64_t bgsim_explore(const BgSimScenario *scenario, uint64_t seed,
                                unsigned preemptions, int64_t max_runs,
                                GError **errp);

/* --- drivers -------------------------------------------------------------- */

/** What the conformance suite of a driver has to know. */
typedef struct BgSimDriverSuite {
    const char *driver;     /* its name; registered already */
    const char *options;    /* of a node, as -o text; "%s" stands for the node
                             * name of a simulated disk below.  NULL for
                             * "driver=NAME,file=%s" */
    int64_t disk_size;      /* of that disk; 0: 256 KiB */
    uint64_t seeds;         /* how many; 0: 50 */
    bool read_only;         /* the driver cannot write */
    bool no_durability;     /* flush promises nothing (e.g. a null driver) */
    bool no_content;        /* what was written is not read back */
    /** Put an image on the new disk, durable (bgsim_disk_poke()); NULL: the
     * driver needs none. */
    void (*format)(BgSimDisk *disk);
} BgSimDriverSuite;

/**
 * Try a driver: data under random requests of several threads, drain, reopen,
 * alignment, zero and discard, length and truncate, block status, bad options,
 * faults at each place, durability over power cuts.
 *
 * Returns true if it passed; else false and *@ret_report (g_free()).
 */
BLOCK_API bool bgsim_driver_suite(const BgSimDriverSuite *suite,
                                  char **ret_report);

G_END_DECLS

#endif /* BLOCKGRAPH_SIM_GEN_H */
