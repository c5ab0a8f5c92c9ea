/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inside of a power cut, shared by sim/crash*.c.  Simulation only: the one
 * thread.
 */
#ifndef SIM_CRASH_INT_H
#define SIM_CRASH_INT_H

#include "sim/disk-int.h"

/* --- crash-cut.c: the states ---------------------------------------------- */

/** What an atom, or a size, may be after the cut. */
typedef struct SimChoice {
    SimValue value;   /* of an atom; counted */
    int64_t size;     /* of a disk */
    SimWrite *write;  /* that it comes from; NULL: the stable one.  Counted */
    bool again;       /* the same as an earlier choice */
} SimChoice;

/** Something that a power cut leaves open. */
typedef struct SimCutItem {
    BgSimDisk *disk;
    SimAtom *atom;    /* NULL: the size of @disk */
    int64_t index;    /* of the atom */
    guint first;      /* in choices: the stable one, then by order of effect */
    guint nr;
    guint distinct;   /* choices that differ */
} SimCutItem;

/** A disk at the cut. */
typedef struct SimDiskCut {
    BgSimDisk *disk;
    SimDiskState state;   /* as it was, and will be again */
    GArray *dirty;
    GArray *journal;
    uint64_t epoch;
    uint64_t stored;
    int64_t noise_end;
    int64_t max_size;     /* of all that it may have */
    guint items_touched;  /* journal entries of the cut's own atoms */
} SimDiskCut;

/** All disks of a world at one moment, and what a power cut may make of it. */
typedef struct SimCut {
    BgSim *sim;
    GArray *disks;     /* SimDiskCut */
    GArray *items;     /* SimCutItem */
    GArray *choices;   /* SimChoice */
    GPtrArray *writes; /* SimWrite that may be lost, by order of submission */
    guint *chosen;     /* of each item: which of its choices */
} SimCut;

/** Look at the disks of @sim, change nothing. */
SimCut *sim_cut_new(BgSim *sim);

/** Free what sim_cut_new() made; the disks are as they were. */
void sim_cut_free(SimCut *cut);

/** How many states are legal, at most @limit. */
uint64_t sim_cut_count(const SimCut *cut, uint64_t limit);

/** From here to sim_cut_leave() the disks show states of @cut. */
void sim_cut_enter(SimCut *cut);

/** The disks are as they were before. */
void sim_cut_leave(SimCut *cut);

/** The disks have the state cut->chosen. */
void sim_cut_apply(SimCut *cut);

/** Undo what a check has done to the disks. */
void sim_cut_undo(SimCut *cut);

/* --- crash-choose.c: which states ----------------------------------------- */

/** Goes through the states of a cut that are to be looked at. */
typedef struct SimStates {
    SimCut *cut;
    bool exhaustive;
    GArray *plan;       /* of a sample: what to try, see crash-choose.c */
    guint next;
    unsigned sample;
    unsigned given;
    GHashTable *seen;   /* hashes of cut->chosen; looked up only */
    SimRandom random;
    char what[120];
} SimStates;

/** Start with @config, whose defaults are filled in. */
void sim_states_init(SimStates *states, SimCut *cut,
                     const BgSimCrashConfig *config, uint64_t seed);

/** Free what sim_states_init() made. */
void sim_states_clear(SimStates *states);

/** The next state into cut->chosen and states->what; false: no more. */
bool sim_states_next(SimStates *states);

/** What has survived in cut->chosen, in some words.  g_free(). */
char *sim_cut_describe(const SimCut *cut);

/* --- crash-world.c: the world of a check ---------------------------------- */

/** The world outside, while a check has one of its own. */
typedef struct SimOuter {
    BgSim sim;       /* all of it, as it was */
    Tape *tape;      /* of the checks */
    const SimChooser *chooser;
    guint nr_devices;
    guint nr_disks;
    GArray *stopped; /* bool, of the devices */
    bool abandoned;  /* a check left something behind: its world stays */
} SimOuter;

/** Set the world outside aside; @seed is of the choices in checks. */
void sim_outer_save(BgSim *sim, SimOuter *outer);

/** The check's world is gone, the one outside is back. */
void sim_outer_restore(BgSim *sim, SimOuter *outer);

/** A fresh world for the check of one state. */
void sim_inner_begin(BgSim *sim, SimOuter *outer, uint64_t seed);

/** The check is done: false with @errp set if it left something behind. */
bool sim_inner_end(BgSim *sim, SimOuter *outer, bool good, GError **errp);

#endif /* SIM_CRASH_INT_H */
