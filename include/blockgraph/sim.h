/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A block graph in a simulated world: one operating system thread, a virtual
 * clock, virtual I/O threads, simulated disks, and one seed from which every
 * choice comes.  The same seed makes the same run, to the last request.
 *
 * Programs that use this link libblockgraph-sim instead of libblockgraph: it
 * is the whole library once more, with scheduling points compiled in.
 *
 * All calls belong to the thread that made the world, outside coroutines,
 * unless they say otherwise.
 */
#ifndef BLOCKGRAPH_SIM_H
#define BLOCKGRAPH_SIM_H

#include <blockgraph/backend.h>
#include <blockgraph/block.h>

G_BEGIN_DECLS

/** One world: the clock, the scheduler, its disks, and one block graph. */
typedef struct BgSim BgSim;

/** How the next step is chosen among all that could run. */
typedef enum BgSimStrategy {
    BGSIM_STRATEGY_ANY,        /* drawn for the run, with the weights below */
    BGSIM_STRATEGY_FIFO,       /* 5: first come, first served */
    BGSIM_STRATEGY_UNIFORM,    /* 30: any, with equal chance */
    BGSIM_STRATEGY_PCT,        /* 35: random priorities, a few demotions */
    BGSIM_STRATEGY_SWIZZLE,    /* 15: stop some threads and disks, restart */
    BGSIM_STRATEGY_STARVE,     /* 5: one actor runs only when nobody else can */
    BGSIM_STRATEGY_EAGER,      /* 10: completions at once, or all at the end */
    BGSIM_STRATEGY_EXHAUSTIVE, /* never drawn: what bgsim_explore() uses */
} BgSimStrategy;

/** The parameters of a world; zeroed, everything has its default. */
typedef struct BgSimConfig {
    BgSimStrategy strategy;
    bool threads;         /* real I/O threads and a real clock instead */
    uint64_t max_steps;   /* a run that takes more is a live-lock; 0: 10^7 */
    uint64_t stall_steps; /* so many without bgsim_progress(); 0: 10^6 */
    bool record;          /* keep names for explaining the run */
} BgSimConfig;

/* --- the world ------------------------------------------------------------ */

/**
 * Make a world with a main context and an empty graph.  One world at a time in
 * a process.
 *
 * @seed    what a fresh choice tape draws
 * @config  NULL for defaults
 */
BLOCK_API BgSim *bgsim_new(uint64_t seed, const BgSimConfig *config);

/**
 * End the world.  What must be gone by now (nodes, requests, coroutines,
 * timers) is checked by bgsim_check_graph() before.
 */
BLOCK_API void bgsim_free(BgSim *sim);

/** The graph of the world.  Its main context is a simulated one. */
BLOCK_API BlockGraph *bgsim_graph(BgSim *sim);

/** The main context. */
BLOCK_API AioContext *bgsim_main_context(BgSim *sim);

/** The seed of the world. */
BLOCK_API uint64_t bgsim_seed(const BgSim *sim);

/** Whether I/O threads and clock are real (BgSimConfig.threads). */
BLOCK_API bool bgsim_is_threads(const BgSim *sim);

/** A virtual I/O thread; the name must be new.  It lives until bgsim_free(). */
BLOCK_API AioContext *bgsim_thread(BgSim *sim, const char *name);

/** The context of bgsim_thread() with that name, made if there is none. */
BLOCK_API AioContext *bgsim_thread_get(BgSim *sim, const char *name);

/** Nanoseconds of the virtual clock, which starts at 0.  Any coroutine. */
BLOCK_API int64_t bgsim_now_ns(BgSim *sim);

/* --- running -------------------------------------------------------------- */

/** What a task does.  A coroutine_fn. */
typedef void coroutine_fn BgSimEntry(BgSim *sim, void *opaque);

/**
 * Start a task: @entry(@opaque) as a coroutine of @ctx (NULL: main).  It first
 * runs in a later step.
 *
 * @name  of the task in reports; copied
 */
BLOCK_API void bgsim_spawn(BgSim *sim, const char *name, AioContext *ctx,
                           BgSimEntry *entry, void *opaque);

/** How many tasks have not ended. */
BLOCK_API unsigned bgsim_tasks(const BgSim *sim);

/**
 * Run until all tasks have ended, or the virtual time @until_ns (-1: none).
 *
 * Returns false with @errp set on the first violation: an oracle has spoken, or
 * nothing can run although tasks are left (a hang), or nothing gets done (a
 * live-lock).  The world is then good for reports only.
 */
BLOCK_API bool bgsim_run(BgSim *sim, int64_t until_ns, GError **errp);

/** One step.  Returns whether anything was left to do. */
BLOCK_API bool bgsim_step(BgSim *sim);

/** How many steps were made. */
BLOCK_API uint64_t bgsim_steps(const BgSim *sim);

/** Something useful was done: the run is not a live-lock.  Any thread. */
BLOCK_API void bgsim_progress(BgSim *sim);

/** A scheduling point: others may run here, or nobody. */
BLOCK_API void coroutine_fn bgsim_yield(BgSim *sim);

/**
 * Faults and scheduling tricks off, everything that is stopped or held goes on:
 * from here on all that was begun must end.
 */
BLOCK_API void bgsim_settle(BgSim *sim);

/** Whether bgsim_settle() was called.  Any thread. */
BLOCK_API bool bgsim_is_settling(const BgSim *sim);

/* --- choices -------------------------------------------------------------- */

/**
 * A number in [0, @bound), @bound > 0, from the run's choice tape.  0 is by
 * convention the dullest choice.
 *
 * @label  a string constant: choices with one label are replayed in order,
 *         whatever happens to those of other labels
 */
BLOCK_API uint64_t bgsim_draw(BgSim *sim, const char *label, uint64_t bound);

/**
 * Several choices that make sense only together: a shrinker drops them as one.
 * @values has room for @n numbers; values[i] is in [0, bounds[i]).
 */
BLOCK_API void bgsim_draw_group(BgSim *sim, const char *label,
                                const uint64_t *bounds, uint64_t *values,
                                unsigned n);

/** true with a chance of @permille in a thousand. */
BLOCK_API bool bgsim_chance(BgSim *sim, const char *label, unsigned permille);

/** A number in [@lo, @hi]; lo is the dullest. */
BLOCK_API int64_t bgsim_range(BgSim *sim, const char *label, int64_t lo,
                              int64_t hi);

/* --- results -------------------------------------------------------------- */

/**
 * The hash of all that has happened: each scheduling choice, each request of a
 * simulated disk with its result and time, each bgsim_trace().
 */
BLOCK_API uint64_t bgsim_trace_hash(BgSim *sim);

/** Mix an event into the trace hash.  @what is a string constant. */
BLOCK_API void bgsim_trace(BgSim *sim, const char *what, uint64_t a,
                           uint64_t b);

/**
 * A violation.  The first one ends the run; later ones are dropped.  Any
 * thread.
 *
 * @oracle  who says so: "register", "graph", "hang", ...  A string constant.
 */
BLOCK_API void bgsim_violation(BgSim *sim, const char *oracle,
                               const char *format, ...) G_GNUC_PRINTF(3, 4);

/** The oracle of the first violation, or NULL.  @ret_message may be NULL. */
BLOCK_API const char *bgsim_violated(BgSim *sim, const char **ret_message);

/** Actors and what each waits for, one a line.  g_free(). */
BLOCK_API char *bgsim_describe_waits(BgSim *sim);

G_END_DECLS

#endif /* BLOCKGRAPH_SIM_H */
