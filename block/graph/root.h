/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * BlockRoot: where requests enter the graph, are counted, and are held back.
 */
#ifndef BLOCK_GRAPH_ROOT_H
#define BLOCK_GRAPH_ROOT_H

#include <blockgraph/block.h>
#include <stdatomic.h>

#include "util/list.h"
#include "util/lock.h"

#define ROOT_SHARDS 8

/** One count, alone on its cache line so that threads do not meet. */
typedef struct RootShard {
    _Alignas(64) _Atomic uint64_t word; /* bit 63: closed; the rest: count */
} RootShard;

/** Tells the main context that a count fell.  Outlives graph and roots. */
typedef struct DrainNotifier DrainNotifier;

/** A notifier with one reference whose BH calls drain_kick(@graph). */
DrainNotifier *drain_notifier_new(BlockGraph *graph);

/** Have drain_kick() called in the main context's next turn.  Any thread. */
void root_notify(DrainNotifier *notifier);

/** The graph goes away: no further call.  Drops its reference. */
void drain_notifier_retire(DrainNotifier *notifier);

typedef struct BlockRoot {
    /* Any thread. */
    RootShard shards[ROOT_SHARDS];

    /* Set by root_init(). */
    BlockGraph *graph;
    DrainNotifier *notifier;
    const char *what; /* for error texts: "block backend 'x'" */

    /* Guarded by @lock. */
    Lock lock;
    bool closed;
    struct RootWaiter *waiters_head;
    struct RootWaiter **waiters_tail;

    /* Main context. */
    BdrvChild *child;       /* the edge to the node; NULL without a node */
    BlockDriverState *work_of; /* background work of this node */
    unsigned nr_sections;   /* drained sections that cover the root */
    ListHead graph_link;
    ListHead work_link;     /* in work_of->works */
} BlockRoot;

/** Add a root to @graph.  @what must outlive it. */
void root_init(BlockRoot *root, BlockGraph *graph, const char *what);

/** Remove a root that has no child and nothing in flight. */
void root_destroy(BlockRoot *root);

/**
 * Count one request in.  Returns whether the gate is open; if it is not, the
 * caller goes on with root_pass() or root_leave().  Any thread with an
 * AioContext, in a coroutine or not.
 */
bool root_count(BlockRoot *root, unsigned *ret_ticket);

/**
 * Wait, counted with *@ticket, until the gate is open.  The count is given
 * back while waiting and may be another on return.
 */
void coroutine_fn root_pass(BlockRoot *root, unsigned *ticket);

/** root_count(), and root_pass() if need be.  Returns the ticket. */
unsigned coroutine_fn root_enter(BlockRoot *root);

/**
 * Count a request that waits elsewhere and is about to be woken: it goes on
 * with root_pass() or root_leave().  Any thread.
 */
void root_count_woken(BlockRoot *root, unsigned ticket);

/**
 * Count one request out.  @root may be gone when this returns, and is not
 * touched once the count has fallen.  Any thread.
 */
void root_leave(BlockRoot *root, unsigned ticket);

/** How many are counted in.  Exact when closed. */
int64_t root_in_flight(BlockRoot *root);

/** One section more covers @root.  Main context. */
void root_close(BlockRoot *root);

/** One section less; the last one lets the waiters go.  Main context. */
void root_open(BlockRoot *root);

#endif /* BLOCK_GRAPH_ROOT_H */
