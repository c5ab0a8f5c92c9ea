/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Faults: by rule, or by chance.  And points where a run is held.
 *
 * A place is written
 *     disk0:write            a kind of request of a simulated disk: read,
 *                            write, zero, discard, flush, truncate; or "any"
 *     disk0:write@4096+512   one that touches the range
 *     point:io.pwritev       a named point of the library
 *     point:io.pwritev@node  one of that node
 */
#ifndef BLOCKGRAPH_SIM_FAULT_H
#define BLOCKGRAPH_SIM_FAULT_H

#include <blockgraph/sim.h>

G_BEGIN_DECLS

/** Something that happens at a place.  Lives until bgsim_free(). */
typedef struct BgSimRule BgSimRule;

/**
 * Fail with errno @err (positive) each time, unless told otherwise below.
 *
 * Returns the rule; a violation "usage" and NULL if @where has no meaning.
 */
BLOCK_API BgSimRule *bgsim_fail(BgSim *sim, const char *where, int err);

/** Only @count times, after the first @skip; @count 0: from then on. */
BLOCK_API void bgsim_rule_nth(BgSimRule *rule, unsigned skip, unsigned count);

/** Fail after taking effect: the disk did it, the answer was lost. */
BLOCK_API void bgsim_rule_after(BgSimRule *rule);

/** The rule has no effect any more. */
BLOCK_API void bgsim_rule_off(BgSimRule *rule);

/** How often the rule has applied. */
BLOCK_API uint64_t bgsim_rule_hits(const BgSimRule *rule);

/**
 * Whoever comes to @where waits there, until bgsim_release(@tag).  At a disk:
 * before the request has any effect.
 */
BLOCK_API BgSimRule *bgsim_hold(BgSim *sim, const char *where,
                                const char *tag);

/** How many wait under @tag. */
BLOCK_API unsigned bgsim_held(BgSim *sim, const char *tag);

/** Let them go on, in order; who comes later is not held any more. */
BLOCK_API void bgsim_release(BgSim *sim, const char *tag);

/**
 * Faults by chance: each request of a simulated disk and each point that may
 * fail does so with @permille, with an errno that is drawn.  At most @budget
 * times in all.  0 permille: none.
 *
 * Up to 250 permille, in half of the runs only points fail, and only those of
 * some names, and more often: so those are tried that a run rarely comes to.
 */
BLOCK_API void bgsim_fail_randomly(BgSim *sim, unsigned permille,
                                   unsigned budget);

/* --- places in the library ------------------------------------------------ */

/** One named point and what has happened there in this process. */
typedef struct BgSimSiteInfo {
    const char *name;
    const char *file;
    int line;
    bool can_fail;
    uint64_t executed;
    uint64_t failed_once; /* an injected failure, after which it went well */
    uint64_t failed;      /* injected failures */
    uint64_t yielded;     /* the scheduler let others run here */
    uint64_t crashed;     /* power cuts while somebody was here */
} BgSimSiteInfo;

/** How many named points the library has. */
BLOCK_API unsigned bgsim_nr_sites(void);

/** What is known of point @index. */
BLOCK_API void bgsim_get_site(unsigned index, BgSimSiteInfo *info);

G_END_DECLS

#endif /* BLOCKGRAPH_SIM_FAULT_H */
