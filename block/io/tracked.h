/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Tracked requests: which ranges of a node are being worked on, and the order
 * of those that must not overlap.
 */
#ifndef BLOCK_IO_TRACKED_H
#define BLOCK_IO_TRACKED_H

#include <blockgraph/coroutine.h>

#include "block/bitmap/marks.h"
#include "util/interval-tree.h"
#include "util/list.h"
#include "util/lock.h"

#define TRACKED_SHARDS 8

/** Plain requests of some threads, and what they wrote. */
typedef struct TrackedShard {
    _Alignas(64) Lock lock;
    /* Guarded by @lock. */
    bool divert;     /* a serialising request exists: use the tree */
    ListHead plain;  /* TrackedRequest.link */
    uint64_t writes; /* writes that have ended */
} TrackedShard;

/** The requests at one node.  Any thread. */
typedef struct TrackedRequests {
    TrackedShard shards[TRACKED_SHARDS];

    Lock lock;
    /* Guarded by @lock. */
    IntervalTree tree; /* TrackedRequest.node */
    uint64_t next_seq;
    unsigned nr_serialising;
} TrackedRequests;

struct TrackedWaiter;

/** One request; on the stack of its coroutine. */
typedef struct TrackedRequest {
    /* Set by tracked_begin(). */
    IntervalNode node;   /* the range, aligned if serialising */
    uint64_t seq;        /* order of arrival; in the tree only */
    bool serialising;
    bool in_tree;
    unsigned shard;      /* where writes are counted; home of plain ones */

    ListHead link;       /* in the shard; guarded by its lock */

    /* Guarded by the lock of the shard, or of the tree. */
    struct TrackedWaiter *waiters;
} TrackedRequest;

/** Make @tracked empty. */
void tracked_init(TrackedRequests *tracked);

/** Check that @tracked is empty. */
void tracked_destroy(TrackedRequests *tracked);

/**
 * Enter a plain request for @bytes > 0 at @offset; waits for serialising ones
 * that overlap and came before.
 */
void coroutine_fn tracked_begin(TrackedRequests *tracked, TrackedRequest *req,
                                int64_t offset, int64_t bytes);

/**
 * Enter a serialising request for the range widened to @align; waits for all
 * that overlap and came before, and holds off all that come later.
 *
 * @no_wait  return -EBUSY, without having entered, rather than wait
 *
 * Returns 0 or -EBUSY.
 */
int coroutine_fn tracked_begin_serialising(TrackedRequests *tracked,
                                           TrackedRequest *req,
                                           int64_t offset, int64_t bytes,
                                           int64_t align, bool no_wait);

/** The request has ended; @wrote: it may have changed the content. */
void tracked_end(TrackedRequests *tracked, TrackedRequest *req, bool wrote);

/**
 * tracked_end() of a request that may have changed [@offset, +@bytes).
 *
 * Returns whether all bitmaps of @dirty are seen to know; if not, the caller
 * tells them.
 */
bool tracked_end_write(TrackedRequests *tracked, TrackedRequest *req,
                       const DirtyBitmaps *dirty, int64_t offset,
                       int64_t bytes);

/** Take and release the lock of each shard: who ends a request later sees what
 * came before this call, who has ended one is seen after it. */
void tracked_pass_shards(TrackedRequests *tracked);

/** Count a write that has reached the driver but not ended, before a flush. */
void tracked_count_write(TrackedRequests *tracked);

/** How many writes have been counted; grows with each. */
uint64_t tracked_writes(TrackedRequests *tracked);

#endif /* BLOCK_IO_TRACKED_H */
