/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inside of the metadata cache.
 *
 *   cache.c          finding, loading, changing, writing slices
 *   cache-memory.c   which slices have memory, and which gives way
 */
#ifndef BLOCK_FORMATS_QCOW2_CACHE_INT_H
#define BLOCK_FORMATS_QCOW2_CACHE_INT_H

#include "block/formats/qcow2/cache.h"

#include <stdatomic.h>

#include "util/list.h"
#include "util/lock.h"

typedef enum SliceState {
    SLICE_EMPTY,
    SLICE_LOADING,
    SLICE_READY,
    SLICE_FAILED, /* not in its chain; those who waited for it learn why */
} SliceState;

/* A coroutine that waits; on its stack. */
typedef struct CacheWaiter {
    Coroutine *co;
    struct CacheWaiter *next;
} CacheWaiter;

struct Qcow2Slice {
    /* Read without the lock; see above. */
    _Atomic uint32_t seq;
    _Atomic uint32_t next;  /* in the chain of its bucket: number + 1 */
    _Atomic int64_t offset; /* in the file; 0: none */
    _Atomic bool used;      /* since the clock hand was here last */

    /* Set before it is held for the first time. */
    _Atomic uint64_t *words;

    /* Guarded by the cache's lock. */
    SliceState state;
    bool held;              /* it may have memory, which is counted */
    ListHead home;          /* in clock, empty or spare of the cache */
    int error;              /* of a FAILED one */
    unsigned pins;
    bool dirty;
    bool frozen;
    bool writing;           /* on its way to the disk */
    bool idle;              /* not used since the last cleaning */
    void *copy;             /* of the frozen bytes, if they have changed */
    ListHead link;          /* in cache->dirty, if dirty */
    ListHead frozen_link;   /* in cache->frozen, if frozen */
    CacheWaiter *waiters;   /* for LOADING to end */
};

struct Qcow2Cache {
    /* Set by qcow2_cache_new(). */
    Qcow2CacheConfig config;
    unsigned slice_shift;
    unsigned bucket_bits;
    _Atomic uint32_t *buckets; /* first of the chain: number + 1 */
    Qcow2Slice *slices;
    void *memory;
    size_t memory_bytes;

    Lock lock;
    /* Guarded by @lock. */
    size_t nr_touched;         /* slices behind them were never held */
    size_t nr_held;
    size_t reserved;           /* for changes; qcow2_cache_has_room() */
    ListHead clock;            /* held, not EMPTY */
    ListHead *hand;            /* of the clock; or its head */
    ListHead empty;            /* held, EMPTY */
    ListHead spare;            /* touched, not held */
    size_t nr_dirty;           /* dirty or frozen, each once */
    unsigned nr_writing;
    ListHead dirty;
    ListHead frozen;
    CacheWaiter *waiters;      /* for a slice to become free or written */
};

/* --- cache.c -------------------------------------------------------------- */

/** Slice @s, clean and not pinned, loses its place in the chain, and becomes
 * EMPTY.  Lock held. */
void qcow2_cache_make_empty(Qcow2Cache *cache, Qcow2Slice *s);

/* --- cache-memory.c; lock held -------------------------------------------- */

/** The cache is new: it has a few slices, whatever others take. */
void qcow2_cache_memory_init(Qcow2Cache *cache);

/** All its slices are EMPTY, and give back their memory. */
void qcow2_cache_memory_clear(Qcow2Cache *cache);

/** Whether @s may get another place in the file now, if it is written first
 * where it is dirty. */
bool qcow2_cache_can_be_victim(const Qcow2Cache *cache, const Qcow2Slice *s);

/** Whether some slice is EMPTY or can be a victim. */
bool qcow2_cache_has_victim(Qcow2Cache *cache);

/** A slice that is EMPTY, or can be a victim; NULL: there is none. */
Qcow2Slice *qcow2_cache_victim(Qcow2Cache *cache);

/** The EMPTY slice @s is in use from now on, and was used last of all. */
void qcow2_cache_enter(Qcow2Cache *cache, Qcow2Slice *s);

/** Slice @s is EMPTY now. */
void qcow2_cache_leave(Qcow2Cache *cache, Qcow2Slice *s);

/** How many slices are dirty, or are again if the write that is under way
 * fails. */
static inline size_t qcow2_cache_changed(const Qcow2Cache *cache)
{
    return cache->nr_dirty + cache->nr_writing;
}

/** Hold at least @nr slices.  False: there is no memory for them. */
bool qcow2_cache_hold(Qcow2Cache *cache, size_t nr);

/** A copy of a frozen slice is made, or freed (@count -1).  There are no more
 * of them than dirty slices. */
void qcow2_cache_count_copy(Qcow2Cache *cache, int count);

#endif /* BLOCK_FORMATS_QCOW2_CACHE_INT_H */
