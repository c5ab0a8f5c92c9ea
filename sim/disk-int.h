/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inside of a simulated disk, shared by sim/disk*.c and sim/crash*.c.
 *
 * Threads: in a simulation there is one.  With real threads all that changes
 * is guarded by disk->lock.
 */
#ifndef SIM_DISK_INT_H
#define SIM_DISK_INT_H

#include <blockgraph/driver.h>
#include <blockgraph/sim-disk.h>

#include "sim/sim-int.h"

/** What kind of change a SimWrite is. */
typedef enum SimWriteKind {
    SIM_WRITE_DATA,
    SIM_WRITE_ZERO,
    SIM_WRITE_DISCARD,
    SIM_WRITE_TRUNCATE, /* offset is the new size */
    SIM_WRITE_FLUSH,    /* only in logs */
} SimWriteKind;

/**
 * A request that changes a disk, and the memory of its data.  Counted: values
 * of atoms point into it long after the request has ended.
 */
typedef struct SimWrite {
    unsigned refs;
    SimWriteKind kind;
    int64_t offset;
    int64_t bytes;
    unsigned flags;      /* BdrvRequestFlags */
    uint64_t id;         /* of the disk, by order of submission */
    uint64_t submitted;  /* by sim->clock, one for all disks */
    uint64_t acked;      /* 0: not yet, or failed */
    bool effective;      /* it has reached the disk, or will */
    bool took_effect;    /* all of it */
    uint8_t *early;      /* atoms that a torn read has seen; NULL: none */
    ListHead link;       /* in state.in_flight */
    uint8_t data[];      /* of SIM_WRITE_DATA */
} SimWrite;

/**
 * The content of one atom: @write->data + @at.  No write: never written.  The
 * write sim_zeroes: zeroes.
 */
typedef struct SimValue {
    SimWrite *write;
    size_t at;
} SimValue;

extern SimWrite sim_zeroes;

/** A value that a power cut may lose. */
typedef struct SimVersion {
    struct SimVersion *newer; /* that took effect next */
    SimValue value;
    SimWrite *write;   /* whose effect it is; counted */
    bool forgotten;    /* lost by a flush that failed: never stable */
} SimVersion;

typedef struct SimAtom {
    SimValue stable;   /* the newest pinned value */
    SimVersion *first; /* what came after it, by order of effect */
    SimVersion *last;
    uint64_t epoch;    /* of the journal that has its old state */
    uint32_t item;     /* while a cut is made up: its number + 1 */
    bool listed;       /* in store.dirty */
} SimAtom;

#define SIM_CHUNK_ATOMS 64

typedef struct SimChunk {
    SimAtom atoms[SIM_CHUNK_ATOMS];
} SimChunk;

typedef struct SimDirty {
    int64_t index;
    SimAtom *atom;
} SimDirty;

/** An atom as it was before a check of a power cut touched it. */
typedef struct SimSaved {
    SimAtom *atom;
    SimAtom old;
} SimSaved;

/** The atoms of a disk: a sparse array. */
typedef struct SimStore {
    /* Set by store_init(). */
    uint32_t atom;        /* bytes */
    bool noise;           /* never-written atoms are noise, not zero */
    uint64_t noise_key;

    GHashTable *chunks;   /* number -> SimChunk; never iterated unsorted */
    int64_t cached_number;
    SimChunk *cached;
    SimVersion *unused;   /* linked by newer */
    int64_t noise_end;    /* atoms from here on were cut off once: zero */
    GArray *dirty;        /* SimDirty: all atoms that have versions */
    uint64_t stored;      /* atoms that hold data now */

    /* Inside a check of a power cut. */
    uint64_t epoch;       /* 0: outside */
    uint64_t next_epoch;
    GArray *journal;      /* SimSaved; NULL outside */
} SimStore;

/** A size that the disk has had since the last stable one. */
typedef struct SimSize {
    int64_t size;
    SimWrite *write; /* counted */
} SimSize;

/** What a check of a power cut finds changed, and puts back. */
typedef struct SimDiskState {
    int64_t size;
    int64_t stable_size;
    GArray *sizes;        /* SimSize, by order of effect; NULL: none */
    ListHead in_flight;   /* SimWrite, by order of submission */
    int64_t reserved;     /* atoms that writes in flight will store */
    int64_t quota_atoms;  /* that may be stored; -1: no limit */
    uint64_t next_id;
    BgSimDiskStats stats;
    GPtrArray *log;       /* SimWrite or NULL (a flush that failed), counted;
                           * by order of completion; NULL: not kept */
} SimDiskState;

struct BgSimDisk {
    /* Set by bgsim_disk_new(). */
    BgSim *sim;
    char *name;
    BgSimDiskConfig config;
    SimDevice *device;

    /* Simulation: the one thread.  Real threads: guarded by @lock. */
    Lock lock;
    SimStore store;
    SimDiskState state;
};

/* --- disk.c --------------------------------------------------------------- */

/** The time of something that disks do; each is later than all before. */
uint64_t sim_disk_time(BgSim *sim);

/** A change, with one reference; with @bytes of room if it is data. */
SimWrite *sim_write_new(SimWriteKind kind, int64_t offset, int64_t bytes);

/** Take a reference. */
static inline SimWrite *sim_write_ref(SimWrite *write)
{
    write->refs++;
    return write;
}

/** Drop a reference.  Guarded by the lock of the disk. */
void sim_write_unref(SimWrite *write);

/** @write takes effect on size and atoms, but for what was seen early. */
void sim_disk_take_effect_locked(BgSimDisk *disk, SimWrite *write);

/** What was acknowledged before time @before becomes stable. */
void sim_disk_pin_locked(BgSimDisk *disk, uint64_t before);

/** @write, which has ended, becomes stable (FUA). */
void sim_disk_pin_write_locked(BgSimDisk *disk, SimWrite *write);

/** The range [@offset, @offset + @bytes) of @disk's atoms: the first one. */
static inline int64_t sim_atom_first(const SimStore *store, int64_t offset)
{
    return offset / store->atom;
}

/** And the one after the last. */
static inline int64_t sim_atom_end(const SimStore *store, int64_t offset,
                                   int64_t bytes)
{
    return (offset + bytes + store->atom - 1) / store->atom;
}

/* --- disk-store.c --------------------------------------------------------- */

/** Make an empty store of atoms of @atom bytes. */
void sim_store_init(SimStore *store, uint32_t atom);

/** Free what @store holds. */
void sim_store_clear(SimStore *store);

/** The atom @index, made if need be; or NULL if @make is false. */
SimAtom *sim_store_atom(SimStore *store, int64_t index, bool make);

/** The first atom in [@index, @end) that may exist, @end if there is none. */
int64_t sim_store_next(SimStore *store, int64_t index, int64_t end);

/** Whether the atom @index, which may not exist, reads as zeroes. */
bool sim_store_is_zero(SimStore *store, int64_t index);

/** Copy @bytes at @offset to @buf. */
void sim_store_read(SimStore *store, int64_t offset, int64_t bytes,
                    uint8_t *buf);

/** Copy what the atom of number @index would be with @value. */
void sim_store_read_value(SimStore *store, int64_t index,
                          const SimValue *value, uint8_t *buf);

/** The content that @write gives to the atom @index, now; a reference. */
SimValue sim_store_value(SimStore *store, int64_t index, SimWrite *write);

/** @write takes effect on the atom @index. */
void sim_store_effect(SimStore *store, int64_t index, SimWrite *write);

/** Whether the newest value is data that takes room. */
bool sim_atom_is_stored(const SimAtom *atom);

/** The atom holds @value, which is taken over, and nothing else. */
void sim_store_replace(SimStore *store, SimAtom *atom, SimValue value);

/** Which versions a flush is about. */
typedef bool SimVersionTest(const SimVersion *version, uint64_t arg);

/** The newest version of @atom that passes becomes its stable value. */
void sim_store_pin_atom(SimStore *store, SimAtom *atom, SimVersionTest *test,
                        uint64_t arg);

/** The same for all atoms that have versions. */
void sim_store_pin(SimStore *store, SimVersionTest *test, uint64_t arg);

/** Versions that pass are marked as forgotten, or dropped if @revert. */
void sim_store_forget(SimStore *store, SimVersionTest *test, uint64_t arg,
                      bool revert);

/** Take atoms without versions off the dirty list. */
void sim_store_tidy(SimStore *store);

/** Numbers of the chunks that exist, sorted.  g_array_unref(); int64_t. */
GArray *sim_store_chunks(SimStore *store);

/** Note the state of @atom in the journal, if that is kept. */
void sim_store_touch(SimStore *store, SimAtom *atom);

/** Put the atoms back that are in the journal from entry @from on. */
void sim_store_restore(SimStore *store, guint from);

/** Take a reference to what @value points into; returns @value. */
SimValue sim_value_ref(SimValue value);

/** Drop it. */
void sim_value_unref(SimValue value);

/** Whether both are the same by reference. */
bool sim_value_equal(SimValue a, SimValue b);

/* --- disk-driver.c -------------------------------------------------------- */

/** Register the driver "sim-disk", once in a process. */
void sim_disk_register(void);

#endif /* SIM_DISK_INT_H */
