/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Named points: where a simulation may let others run, hold a coroutine, or
 * make a call fail.  They exist only in libblockgraph-sim (BLOCK_SIM); in
 * libblockgraph they are nothing.
 */
#ifndef UTIL_SIM_POINT_H
#define UTIL_SIM_POINT_H

#include "util/sim-mutant.h"

#include <blockgraph/coroutine.h>

#ifdef BLOCK_SIM

#include <stdatomic.h>

/** One point in the source. */
typedef struct SimSite {
    /* Constant. */
    const char *name;
    const char *file;
    int line;
    bool can_fail;
    bool can_yield;

    /* Any thread. */
    _Atomic uint64_t executed;
    _Atomic uint64_t failed;
    _Atomic uint64_t failed_once;
    _Atomic uint64_t yielded;
    _Atomic uint64_t crashed;
    _Atomic uint32_t last_failed; /* it failed when it was last executed */
} SimSite;

/** What a simulation does at the points; one at a time in a process. */
typedef struct SimHooks {
    /**
     * The running code is at @site, on behalf of the node of that name (or
     * NULL).  May yield inside a coroutine.  Returns 0 or a negative errno.
     */
    int coroutine_fn (*point)(SimSite *site, const char *node);

    /** Life of coroutines.  Any thread. */
    void (*co_created)(Coroutine *co);
    void (*co_ended)(Coroutine *co);

    /** A CoMutex is made; the running coroutine takes it, gives it back. */
    void (*mutex_made)(const void *mutex);
    void (*mutex_taken)(const void *mutex);
    void (*mutex_wanted)(const void *mutex);
    void (*mutex_dropped)(const void *mutex);
} SimHooks;

/** NULL outside simulations; changed only while no other thread runs. */
extern const SimHooks *sim_hooks;

/** Who holds a CoMutex, or NULL; for reports. */
Coroutine *co_mutex_holder(const void *mutex);

/** Note, before a yield, what the running coroutine waits for. */
void sim_note_wait(const char *what, const void *object);

#define SIM_SITE(name_, fail_, yield_)                                        \
    ({                                                                        \
        static SimSite site_ = { .name = (name_), .file = __FILE__,           \
                                 .line = __LINE__, .can_fail = (fail_),       \
                                 .can_yield = (yield_) };                     \
        static SimSite *const entry_                                          \
            __attribute__((section("bgsim_sites"), used)) = &site_;           \
        (void)entry_;                                                         \
        &site_;                                                               \
    })

#define SIM_AT(name, fail, yield, node)                                       \
    (G_UNLIKELY(sim_hooks)                                                    \
         ? sim_hooks->point(SIM_SITE(name, fail, yield), node)                \
         : 0)
#define SIM_POINT(name, node) ((void)SIM_AT(name, false, true, node))
#define SIM_FAULT(name, node) SIM_AT(name, true, true, node)
#define SIM_REFUSE(name, node) SIM_AT(name, true, false, node)
#define SIM_WAITS(what, object) sim_note_wait(what, object)
#define SIM_HOOK(call)                                                        \
    do {                                                                      \
        if (G_UNLIKELY(sim_hooks)) {                                          \
            sim_hooks->call;                                                  \
        }                                                                     \
    } while (0)

#else

/** A place, by name, in a coroutine; the scheduler may let others run. */
#define SIM_POINT(name, node) ((void)0)

/** A place before a call that can fail: 0, or the negative errno to give. */
#define SIM_FAULT(name, node) 0

/** As SIM_FAULT(), where nothing may yield. */
#define SIM_REFUSE(name, node) 0

/** What the running coroutine is going to wait for. */
#define SIM_WAITS(what, object) ((void)0)

/** Tell the simulation of an event. */
#define SIM_HOOK(call) ((void)0)

#endif /* BLOCK_SIM */

#endif /* UTIL_SIM_POINT_H */
