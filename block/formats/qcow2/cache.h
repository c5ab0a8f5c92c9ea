/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The metadata cache: pieces ("slices") of L2 tables or refcount blocks.
 *
 * A slice is known by its offset in the file.  Its bytes are as on the disk,
 * big-endian.  Who only wants to look at a slice that is there takes no lock
 * (qcow2_cache_peek()); who changes one holds the image's meta lock.
 *
 * Dirty slices go to the disk in two ways.  An *ordered* cache (L2) never
 * writes a slice on its own: write-back (writeback.c) freezes all dirty slices
 * at one moment, makes durable what they depend on, then writes them as they
 * were at that moment; a change that comes meanwhile works on a copy.  Another
 * cache (refcounts) may write a dirty slice whenever it needs its place.
 *
 * Memory is taken slice by slice, and counted, as far as the node and the
 * process have some for caches.  A cache that gets no more is as good as one of
 * the size that it has; one that has more than there is for caches by now gives
 * up a slice with each that it loads.  What it has in any case, beyond all
 * sums: QCOW2_CACHE_MIN_SLICES, and copies of slices that change while they are
 * written, so no more of them than slices that were dirty.
 */
#ifndef BLOCK_FORMATS_QCOW2_CACHE_H
#define BLOCK_FORMATS_QCOW2_CACHE_H

#include <blockgraph/driver.h>

#include "block/graph/table-memory.h"

typedef struct Qcow2Cache Qcow2Cache;
typedef struct Qcow2Slice Qcow2Slice;

/** What a cache needs to know. */
typedef struct Qcow2CacheConfig {
    int64_t slice_bytes;    /* power of two, 512 to 2 MiB */
    size_t nr_slices;       /* QCOW2_CACHE_MIN_SLICES to .._MAX_SLICES */
    bool ordered;           /* see above */
    TableAccount *account;  /* where memory is counted; NULL: nowhere */
    void *opaque;
    /** Read, or write, @bytes of a slice at @offset in the file. */
    int coroutine_fn (*read)(void *opaque, int64_t offset, void *buf,
                             int64_t bytes);
    int coroutine_fn (*write)(void *opaque, int64_t offset, const void *buf,
                              int64_t bytes);
    /** Make slices clean, because all are dirty; only if @ordered. */
    int coroutine_fn (*make_room)(void *opaque);
} Qcow2CacheConfig;

#define QCOW2_CACHE_MIN_SLICES 8
#define QCOW2_CACHE_MAX_SLICES (INT64_C(1) << 30)

/** An empty cache; NULL if there is no memory.  Tables are not touched yet. */
Qcow2Cache *qcow2_cache_new(const Qcow2CacheConfig *config);

/** Free a cache, dirty or not; nothing is pinned.  NULL is ignored. */
void qcow2_cache_free(Qcow2Cache *cache);

/** The bytes of a slice. */
int64_t qcow2_cache_slice_bytes(const Qcow2Cache *cache);

/**
 * Copy @bytes bytes at @pos of the slice at @offset to @buf, if the slice is
 * there.  @pos and @bytes are multiples of 8.  What is copied is one moment's.
 * Takes no lock, does not yield.  Thread: any.
 */
bool qcow2_cache_peek(Qcow2Cache *cache, int64_t offset, size_t pos,
                      size_t bytes, void *buf);

/**
 * Have the word that qcow2_cache_peek() would copy brought into the processor's
 * caches.  Returns false if the slice is not there; may err.  Takes no lock,
 * waits for nothing.  Thread: any.
 */
bool qcow2_cache_prefetch(const Qcow2Cache *cache, int64_t offset, size_t pos);

/**
 * Pin the slice at @offset (a multiple of the slice), loading it if need be.
 * Slices load in parallel.  With the meta lock held there must be room
 * (qcow2_cache_has_room()) if the cache is ordered.
 *
 * Returns 0 with @ret set, to be given to qcow2_cache_put(); negative errno.
 *
 * Thread: any.  Yields.
 */
int coroutine_fn qcow2_cache_get(Qcow2Cache *cache, int64_t offset,
                                 Qcow2Slice **ret);

/** Unpin.  NULL is ignored.  Thread: any. */
void qcow2_cache_put(Qcow2Cache *cache, Qcow2Slice *slice);

/**
 * Copy @bytes at @pos (multiples of 8) of a pinned slice to @buf, as they are
 * at one moment.  Does not yield.  Thread: any.
 */
void qcow2_cache_read(Qcow2Cache *cache, const Qcow2Slice *slice, size_t pos,
                      size_t bytes, void *buf);

/** The bytes of a pinned slice; stable while the meta lock is held. */
const void *qcow2_slice_data(const Qcow2Slice *slice);

/**
 * Overwrite @bytes at @pos (multiples of 8) of a pinned slice, which becomes
 * dirty.  Meta lock held.  Does not yield.
 */
void qcow2_cache_change(Qcow2Cache *cache, Qcow2Slice *slice, size_t pos,
                        const void *buf, size_t bytes);

/**
 * Forget slices in [@offset, +@bytes) without writing them: the clusters that
 * held them were given up.  Meta lock held; none of them is pinned by the
 * caller.  Those that others use just now stay, clean.
 */
void qcow2_cache_forget(Qcow2Cache *cache, int64_t offset, int64_t bytes);

/** Whether @count more slices can become dirty, and be pinned for that: there
 * is memory for them, which stays until then. */
bool qcow2_cache_has_room(Qcow2Cache *cache, size_t count);

/** How many slices are dirty. */
size_t qcow2_cache_nr_dirty(Qcow2Cache *cache);

/** All that is dirty now belongs to the write-back that begins.  Meta lock. */
void qcow2_cache_freeze(Qcow2Cache *cache);

/**
 * Write what was frozen, as it was then.  What could not be written is dirty
 * still, and no longer frozen.  Without the meta lock; one at a time.
 */
int coroutine_fn qcow2_cache_write_frozen(Qcow2Cache *cache);

/** What was frozen is not written after all, merely dirty. */
void qcow2_cache_thaw(Qcow2Cache *cache);

/** What a cache of @config takes when all its slices are in use. */
int64_t qcow2_cache_full_bytes(const Qcow2CacheConfig *config);

/** Give back memory, @bytes or as much as can be: of clean slices, also of
 * those in use.  Thread: any; takes the cache's lock. */
void qcow2_cache_shrink(Qcow2Cache *cache, int64_t bytes);

/** Give back the memory of clean slices not used since the last call. */
void qcow2_cache_clean_unused(Qcow2Cache *cache);

/** Forget everything, dirty or not; nothing is pinned, nothing runs. */
void qcow2_cache_reset(Qcow2Cache *cache);

#endif /* BLOCK_FORMATS_QCOW2_CACHE_H */
