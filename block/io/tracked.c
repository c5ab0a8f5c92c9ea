/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Tracked requests.
 *
 * Most nodes never see a serialising request, so a plain one only links itself
 * into a list of its own thread's shard: one uncontended lock, no search.
 * Once a serialising request comes, new requests go to one tree of ranges.
 *
 * T1  A shard's @divert is set, under its lock, before the first serialising
 *     request looks for conflicts, and cleared after the last one has ended.
 *     So a request in a shard's list came before every serialising request
 *     there is.
 * T2  Requests in the tree are numbered in the order they entered, under one
 *     lock.  A range and its mark never change after that: mark and wait
 *     cannot come apart.
 * T3  A request waits only for requests that came before it (T1, T2), and only
 *     on entering, before it has sent anything to a node below.  So the
 *     oldest request of a node waits for nobody at this node, what it sends
 *     below meets only older requests of lower nodes, and since the graph has
 *     no cycle no two requests can wait for each other.
 */
#include "block/io/tracked.h"

#include "util/sim-point.h"

#include <blockgraph/aio.h>
#include <blockgraph/driver.h>
#include <errno.h>

/* Somebody who waits for a request to end; on the stack of its coroutine. */
typedef struct TrackedWaiter {
    Coroutine *co;
    struct TrackedWaiter *next;
} TrackedWaiter;

void tracked_init(TrackedRequests *tracked)
{
    for (unsigned i = 0; i < TRACKED_SHARDS; i++) {
        TrackedShard *shard = &tracked->shards[i];

        lock_init(&shard->lock, LOCK_RANK_NODE_SHARD);
        list_init(&shard->plain);
        shard->divert = false;
        shard->writes = 0;
    }
    lock_init(&tracked->lock, LOCK_RANK_NODE_TRACKED);
    tracked->tree = (IntervalTree){ .root = NULL };
    tracked->next_seq = 0;
    tracked->nr_serialising = 0;
}

void tracked_destroy(TrackedRequests *tracked)
{
    for (unsigned i = 0; i < TRACKED_SHARDS; i++) {
        g_assert(list_empty(&tracked->shards[i].plain));
    }
    g_assert(interval_tree_is_empty(&tracked->tree));
}

static unsigned current_shard(void)
{
    AioContext *ctx = aio_get_current();

    return ctx ? aio_context_index(ctx) % TRACKED_SHARDS : 0;
}

static TrackedRequest *from_node(IntervalNode *node)
{
    return (TrackedRequest *)((char *)node - offsetof(TrackedRequest, node));
}

static bool overlaps(const TrackedRequest *a, const TrackedRequest *b)
{
    return a->node.start <= b->node.last && b->node.start <= a->node.last;
}

static void wake_all(TrackedWaiter *waiter)
{
    while (waiter) {
        TrackedWaiter *next = waiter->next; /* gone when its thread runs */

        aio_co_wake(waiter->co);
        waiter = next;
    }
}

static void wait_on(TrackedRequest *req, TrackedWaiter *waiter)
{
    waiter->co = coroutine_self();
    waiter->next = req->waiters;
    req->waiters = waiter;
}

/* --- looking for conflicts ------------------------------------------------ */

/* T2: the first request in the tree that @req must wait for, or NULL. */
static TrackedRequest *find_older_locked(TrackedRequests *tracked,
                                         const TrackedRequest *req)
{
    int64_t start = req->node.start;
    int64_t last = req->node.last;
    IntervalNode *node;

    for (node = interval_tree_first_overlap(&tracked->tree, start, last); node;
         node = interval_tree_next_overlap(node, start, last)) {
        TrackedRequest *other = from_node(node);

        if (other->seq < req->seq &&
            (other->serialising || req->serialising)) {
            return other;
        }
    }
    return NULL;
}

/* T1: wait for an overlapping request in a shard's list, if there is one. */
static bool wait_in_shards(TrackedRequests *tracked, TrackedRequest *req,
                           TrackedWaiter *waiter)
{
    for (unsigned i = 0; i < TRACKED_SHARDS; i++) {
        TrackedShard *shard = &tracked->shards[i];

        LOCK_GUARD(&shard->lock);
        LIST_FOREACH(link, &shard->plain) {
            TrackedRequest *other = LIST_ENTRY(link, TrackedRequest, link);

            if (overlaps(other, req)) {
                wait_on(other, waiter);
                return true;
            }
        }
    }
    return false;
}

/* Register with whom we must wait for; false: with nobody. */
static bool wait_for_older(TrackedRequests *tracked, TrackedRequest *req,
                           TrackedWaiter *waiter)
{
    WITH_LOCK(&tracked->lock) {
        TrackedRequest *other = find_older_locked(tracked, req);

        if (other) {
            wait_on(other, waiter);
            return true;
        }
    }
    return req->serialising && wait_in_shards(tracked, req, waiter);
}

static void coroutine_fn wait_all_older(TrackedRequests *tracked,
                                        TrackedRequest *req)
{
    TrackedWaiter waiter;

    while (!SIM_PLANTED(1) && wait_for_older(tracked, req, &waiter)) {
        /* Whoever ends wakes us, through our thread's queue if it runs in
         * another: never before we have yielded. */
        SIM_WAITS("an older overlapping request", tracked);
        coroutine_yield();
    }
}

/* --- entering ------------------------------------------------------------- */

static void req_init(TrackedRequest *req, int64_t start, int64_t end,
                     bool serialising)
{
    interval_node_init(&req->node, start, end - start);
    req->serialising = serialising;
    req->shard = current_shard();
    req->waiters = NULL;
}

static void enter_tree_locked(TrackedRequests *tracked, TrackedRequest *req)
{
    req->in_tree = true;
    req->seq = tracked->next_seq++;
    interval_tree_insert(&tracked->tree, &req->node);
}

void coroutine_fn tracked_begin(TrackedRequests *tracked, TrackedRequest *req,
                                int64_t offset, int64_t bytes)
{
    TrackedShard *shard;

    req_init(req, offset, offset + bytes, false);
    shard = &tracked->shards[req->shard];
    lock_acquire(&shard->lock);
    if (G_LIKELY(!shard->divert)) {
        req->in_tree = false;
        list_append(&shard->plain, &req->link);
        lock_release(&shard->lock);
        return;
    }
    lock_release(&shard->lock);

    WITH_LOCK(&tracked->lock) {
        enter_tree_locked(tracked, req);
    }
    wait_all_older(tracked, req);
}

static void set_divert(TrackedRequests *tracked, bool divert)
{
    for (unsigned i = 0; i < TRACKED_SHARDS; i++) {
        WITH_LOCK(&tracked->shards[i].lock) {
            tracked->shards[i].divert = divert;
        }
    }
}

/* Whether somebody is in the way now; registers with nobody. */
static bool must_wait(TrackedRequests *tracked, TrackedRequest *req)
{
    WITH_LOCK(&tracked->lock) {
        if (find_older_locked(tracked, req)) {
            return true;
        }
    }
    for (unsigned i = 0; i < TRACKED_SHARDS; i++) {
        LOCK_GUARD(&tracked->shards[i].lock);
        LIST_FOREACH(link, &tracked->shards[i].plain) {
            if (overlaps(LIST_ENTRY(link, TrackedRequest, link), req)) {
                return true;
            }
        }
    }
    return false;
}

int coroutine_fn tracked_begin_serialising(TrackedRequests *tracked,
                                           TrackedRequest *req,
                                           int64_t offset, int64_t bytes,
                                           int64_t align, bool no_wait)
{
    int64_t start = offset & ~(align - 1);
    int64_t end = (offset + bytes + align - 1) & ~(align - 1);

    req_init(req, start, end, true);
    WITH_LOCK(&tracked->lock) {
        if (tracked->nr_serialising++ == 0) {
            set_divert(tracked, true);                          /* T1 */
        }
        enter_tree_locked(tracked, req);                        /* T2 */
    }
    if (no_wait && must_wait(tracked, req)) {
        tracked_end(tracked, req, false);
        return -EBUSY;
    }
    wait_all_older(tracked, req);                               /* T3 */
    return 0;
}

/* --- leaving -------------------------------------------------------------- */

static TrackedWaiter *leave_tree(TrackedRequests *tracked, TrackedRequest *req)
{
    LOCK_GUARD(&tracked->lock);

    interval_tree_remove(&tracked->tree, &req->node);
    if (req->serialising && --tracked->nr_serialising == 0) {
        set_divert(tracked, false);
    }
    return req->waiters;
}

/* @dirty may be NULL; else returns dirty_marks_have(). */
static inline __attribute__((always_inline)) bool
leave(TrackedRequests *tracked, TrackedRequest *req, bool wrote,
      const DirtyBitmaps *dirty, const BlockIO *io)
{
    TrackedShard *shard = &tracked->shards[req->shard];
    TrackedWaiter *waiters = NULL;
    bool marked;

    if (req->in_tree) {
        waiters = leave_tree(tracked, req);
    }
    lock_acquire(&shard->lock);
    if (!req->in_tree) {
        list_remove(&req->link);
        waiters = req->waiters;
    }
    shard->writes += wrote;
    marked = !dirty || dirty_marks_have(dirty, io->offset, io->bytes);
    lock_release(&shard->lock);
    if (G_UNLIKELY(waiters)) {
        wake_all(waiters);
    }
    return marked;
}

void tracked_end(TrackedRequests *tracked, TrackedRequest *req, bool wrote)
{
    leave(tracked, req, wrote, NULL, NULL);
}

bool tracked_end_write(TrackedRequests *tracked, TrackedRequest *req,
                       const DirtyBitmaps *dirty, int64_t offset,
                       int64_t bytes)
{
    BlockIO io = { .offset = offset, .bytes = bytes };

    return leave(tracked, req, true, dirty, &io);
}

void tracked_pass_shards(TrackedRequests *tracked)
{
    for (unsigned i = 0; i < TRACKED_SHARDS; i++) {
        lock_acquire(&tracked->shards[i].lock);
        lock_release(&tracked->shards[i].lock);
    }
}

void tracked_count_write(TrackedRequests *tracked)
{
    TrackedShard *shard = &tracked->shards[current_shard()];

    LOCK_GUARD(&shard->lock);
    shard->writes++;
}

uint64_t tracked_writes(TrackedRequests *tracked)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < TRACKED_SHARDS; i++) {
        WITH_LOCK(&tracked->shards[i].lock) {
            sum += tracked->shards[i].writes;
        }
    }
    return sum;
}
