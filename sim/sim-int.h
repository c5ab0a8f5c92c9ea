/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inside of a simulated world, shared by the files of sim/.
 *
 * Threads: in a simulation there is one.  With real threads (sim->threads) the
 * fields that other threads touch are guarded by sim->lock or atomic, and say
 * so.
 */
#ifndef SIM_INT_H
#define SIM_INT_H

#include <blockgraph/sim.h>
#include <blockgraph/sim-fault.h>
#include <blockgraph/sim-oracle.h>
#include <stdatomic.h>

#include "sim/tape.h"
#include "util/aio-context.h"
#include "util/coroutine-int.h"
#include "util/list.h"
#include "util/lock.h"
#include "util/sim-point.h"

/** Ids of actors: threads and devices are below, coroutines from here on. */
#define SIM_ACTOR_FIRST_CO 1024

/** A virtual I/O thread, or the main thread; threads[0] is the main one. */
typedef struct SimThread {
    BgSim *sim;
    unsigned index;
    char *name;
    AioContext *ctx;
    AioThread thread;      /* put into the real thread while it runs */
    IOThread *iothread;    /* of a real thread, else NULL */
    bool stopped;          /* by the swizzle strategy */
    uint64_t runs;         /* how often something of it has run */
} SimThread;

/** A coroutine as the scheduler sees it. */
typedef struct SimActor {
    uint32_t id;           /* by order of creation */
    uint32_t parent;       /* id of the actor that made it */
    const char *name;      /* of a task, owned by the task; else NULL */
    Coroutine *co;
    SimSite *site;         /* the point where others were let run; or NULL */
    ListHead link;         /* in sim->actors */
    GArray *mutexes;       /* of const void *: held; NULL before the first */
} SimActor;

/**
 * Something that happens at a virtual time on its own: the end of a disk
 * request, bytes that arrive.  In memory of the owner's.
 */
typedef struct SimEvent {
    int64_t at_ns;
    uint64_t seq;          /* order of setting */
    uint32_t actor;        /* the device, see sim_device_new() */
    const char *what;      /* for traces: a constant */
    AioCallback *cb;       /* in no thread's context: wakes coroutines */
    void *opaque;
    bool pending;
} SimEvent;

/** One thing that can run now. */
typedef enum SimReadyKind {
    SIM_READY_EVENT,
    SIM_READY_BH,
    SIM_READY_CO,
    SIM_READY_TIMER,
    SIM_READY_TICK,        /* let the clock go on although others could run */
} SimReadyKind;

typedef struct SimReady {
    SimReadyKind kind;
    uint32_t actor;
    SimThread *thread;     /* NULL: event, tick */
    void *what;            /* SimEvent, Coroutine */
} SimReady;

/** What a strategy remembers during a run. */
typedef struct SimScheduler {
    BgSimStrategy strategy;
    SimRandom random;      /* its own: what it chooses is on the tape */
    uint64_t priority_key; /* pct: priorities are a hash of this and the id */
    uint64_t demote_at[4]; /* pct: steps, 0 unused */
    GHashTable *demoted;   /* pct: id -> rank; looked up, never iterated */
    uint64_t swizzle_at;   /* the next step at which something stops or goes */
    uint32_t victim;       /* starve: id modulo victim_mod */
    uint32_t victim_mod;
    unsigned tick_permille;
    unsigned point_permille; /* points that yield */
    unsigned preemptions;  /* exhaustive: departures so far */
} SimScheduler;

/** A simulated device that may be stopped: a disk, a pipe. */
typedef struct SimDevice {
    uint32_t actor;
    char *name;
    bool stopped;
} SimDevice;

/** One thing that happened, kept for explaining the run. */
typedef struct SimTraceEntry {
    uint64_t step;
    int64_t at_ns;
    uint32_t actor;
    const char *what;
    uint64_t a;
    uint64_t b;
} SimTraceEntry;

/** Something that belongs to the world and is freed with it. */
typedef struct SimOwned {
    void (*free)(void *opaque);
    void *opaque;
} SimOwned;

/** Why a run ended early; the supervisor wants to know at once. */
typedef void SimViolationHook(BgSim *sim, void *opaque);

struct BgSim {
    /* Set by bgsim_new(). */
    uint64_t seed;
    BgSimConfig config;
    bool threads_mode;
    AioContext *main_ctx;  /* of threads[0] */
    BlockGraph *graph;
    SimViolationHook *on_violation; /* may end the process */
    void *on_violation_opaque;

    /* Simulation: the one thread.  Real threads: guarded by @lock. */
    Lock lock;
    Tape *tape;
    uint64_t trace_hash;
    char *violation;       /* "oracle: message"; NULL: none yet */
    const char *violation_oracle;

    /* Any thread. */
    _Atomic unsigned tasks;
    _Atomic bool settling;
    _Atomic bool violated;
    _Atomic uint64_t progress_step;
    _Atomic unsigned coroutines;
    _Atomic uint64_t clock; /* a counter for orders between requests */
    _Atomic uint32_t ops_active[BGSIM_OPS]; /* see ops.c */

    /* Simulation only. */
    int64_t now_ns;
    uint64_t steps;
    uint64_t settled_step; /* when bgsim_settle() was called */
    uint64_t next_seq;
    uint32_t next_co;
    uint32_t running;      /* id of the actor that runs, 0 outside steps */
    GPtrArray *threads;    /* SimThread */
    GPtrArray *devices;    /* SimDevice */
    GPtrArray *events;     /* SimEvent: a heap by time */
    GArray *ready;         /* SimReady, scratch */
    ListHead actors;       /* SimActor: coroutines that live */
    GPtrArray *oracles;    /* BgSimOracle, copies */
    GArray *order_edges;   /* see waits.c; NULL before the first */
    SimScheduler sched;
    AioContext *outer_first; /* thread->first before us */
    GArray *trace;         /* SimTraceEntry: the last ones, see trace.c */
    guint trace_next;      /* where the next one goes, once it is full */

    /* Faults; see fault.c.  Guarded by @lock with real threads. */
    GPtrArray *rules;      /* BgSimRule */
    _Atomic bool fail_maybe; /* there are rules, or a budget; a hint */
    _Atomic unsigned fail_permille;
    _Atomic unsigned fail_budget;
    _Atomic unsigned fail_class; /* 0: all fail; else a class of points only */

    /* Main thread. */
    GPtrArray *owned;      /* SimOwned, freed last first */
    GPtrArray *disks;      /* BgSimDisk, by age */
    GPtrArray *models;     /* BgSimModel, by age */
    GPtrArray *crash_plans; /* of bgsim_crash_at() */
    uint64_t crash_states;
    uint64_t second_crashes;
    unsigned crash_depth;  /* power cuts inside of which a check runs now */
    BlockGraph *crash_graph; /* what bgsim_graph() gives inside a check */
};

/** The world of this process, or NULL. */
extern BgSim *sim_world;

/** The tape of the next bgsim_new(), which takes it; NULL: a fresh one. */
extern Tape *sim_tape_preset;

/** Somebody who has a say in the schedule: replays by name, or explores. */
typedef struct SimChooser {
    /** Which of sim->ready, two or more; -1: as without a chooser. */
    int (*choose)(BgSim *sim, void *opaque);
    /** @index was chosen. */
    void (*chosen)(BgSim *sim, unsigned index, void *opaque);
    void *opaque;
} SimChooser;

/** The chooser of this process; its functions may be NULL.  NULL: none. */
extern const SimChooser *sim_chooser;

/* --- world.c -------------------------------------------------------------- */

/** The context of the thread that made the world. */
AioContext *bgbgsim_main_context(BgSim *sim);

/** Free @opaque with @free when the world ends; last registered first. */
void sim_own(BgSim *sim, void (*free)(void *), void *opaque);

/** Free what the world owns, last registered first. */
void sim_owned_clear(BgSim *sim);

/** Make the main thread and context of sim->threads, which is empty. */
void sim_main_thread_new(BgSim *sim);

/** Free all threads but the first @keep. */
void sim_threads_trim(BgSim *sim, guint keep);

/** Free all threads; the real one is as it was before. */
void sim_threads_free(BgSim *sim);

/** The actor id of a new device, which the swizzle strategy may stop. */
SimDevice *sim_device_new(BgSim *sim, const char *name);

/** The name of the actor @id, for reports.  g_free(). */
char *sim_actor_name(BgSim *sim, uint32_t id);

/* --- events.c ------------------------------------------------------------- */

/**
 * Have ev->cb(ev->opaque) called @delay_ns from now; cb, opaque, actor and what
 * are set.  With real threads: in the current context of the caller.
 */
void sim_event_add(BgSim *sim, SimEvent *ev, int64_t delay_ns);

/** Simulation: the earliest event, or NULL. */
SimEvent *sim_events_first(BgSim *sim);

/** Simulation: take @ev, which is pending, off. */
void sim_event_remove(BgSim *sim, SimEvent *ev);

/**
 * The running coroutine waits for @delay_ns of virtual time, as something that
 * device @actor does.
 */
void coroutine_fn sim_delay(BgSim *sim, uint32_t actor, const char *what,
                            int64_t delay_ns);

/* --- sched.c -------------------------------------------------------------- */

/** Choose the strategy of the run and draw its parameters. */
void sim_sched_init(BgSim *sim);

/** Free what the strategy remembers. */
void sim_sched_clear(BgSim *sim);

/** Which of sim->ready runs next: its index. */
unsigned sim_sched_choose(BgSim *sim);

/** What @ready is about to do: "run", "timer", the name of an event. */
const char *sim_ready_what(const SimReady *ready);

/** Whether a device's completion is to be delivered without any delay. */
bool sim_sched_eager(BgSim *sim);

/* --- engine.c ------------------------------------------------------------- */

/** The simulated engine. */
extern const AioEngineOps sim_engine_ops;

/* --- step.c --------------------------------------------------------------- */

/** One step.  Returns false if there is nothing to do at any time. */
bool sim_step(BgSim *sim, int64_t until_ns);

/** Nothing can run although tasks are left: a violation "hang". */
void sim_report_hang(BgSim *sim);

/**
 * A synchronous call cannot go on because of a violation, and cannot return
 * either: print it and end the process.
 */
void sim_give_up(BgSim *sim) G_GNUC_NORETURN;

/** Append what @co waits for, in detail, to @text. */
void sim_describe_object(BgSim *sim, GString *text, const Coroutine *co);

/** The hooks of the library's points. */
extern const SimHooks sim_hooks_virtual;
extern const SimHooks sim_hooks_threads;

/* --- fault.c -------------------------------------------------------------- */

/** What a rule or chance wants of a request or point. */
typedef struct SimVerdict {
    int err;            /* 0, or a positive errno */
    bool after;         /* fail after taking effect */
    BgSimRule *hold;    /* wait with sim_hold_wait() first; or NULL */
} SimVerdict;

/**
 * Ask for what is to happen to a request of @kind ("write") on disk @name at
 * [@offset, @offset + @bytes); chance included.
 */
SimVerdict sim_fault_disk(BgSim *sim, const char *name, const char *kind,
                          int64_t offset, int64_t bytes);

/** The same for a named point. */
SimVerdict sim_fault_point(BgSim *sim, SimSite *site, const char *node);

/** Wait until the hold of @rule is released. */
void coroutine_fn sim_hold_wait(BgSim *sim, BgSimRule *rule);

/** Release all holds and end all rules: the fault phase is over. */
void sim_faults_off(BgSim *sim);

/** Free the rules. */
void sim_faults_clear(BgSim *sim);

/** A power cut happens: note it at the points where somebody is now. */
void sim_sites_note_crash(BgSim *sim);

/* --- crash.c -------------------------------------------------------------- */

/** Do the cuts that bgsim_crash_at() has planned for this step. */
void sim_crash_run_plans(BgSim *sim);

/* --- oracles -------------------------------------------------------------- */

/** Lock order of CoMutexes; from the hooks. */
void sim_order_made(BgSim *sim, const void *mutex);
void sim_order_wanted(BgSim *sim, const void *mutex);
void sim_order_taken(BgSim *sim, const void *mutex);
void sim_order_dropped(BgSim *sim, const void *mutex);

/** The world of @model, and the length of its disk. */
BgSim *sim_model_world(const BgSimModel *model);
int64_t sim_model_length(const BgSimModel *model);

/**
 * Violation "progress" for a request of a model that has not ended although
 * the world settled long ago.  Simulation, at every step.
 */
void sim_models_check_progress(BgSim *sim);

/* --- trace.c -------------------------------------------------------------- */

/** Keep @entry among the last ones, unhashed. */
void sim_trace_keep(BgSim *sim, const SimTraceEntry *entry);

/** The last @n entries (all with config.record), oldest first.  g_free(). */
char *sim_trace_text(BgSim *sim, unsigned n);

#endif /* SIM_INT_H */
