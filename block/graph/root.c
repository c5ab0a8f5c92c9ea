/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The gate of drain, and the count of what is inside.
 *
 * A root has one word per shard: bit 63 says that the gate is closed, the rest
 * counts requests.  Count and gate change in one atomic step, so:
 *
 * R1  A request that is counted while the bit is clear went in before the gate
 *     closed: the section sees its count and waits for it.
 * R2  A request that finds the bit set enters the queue, then takes its count
 *     back: in the queue it holds none, so no section waits for it.
 * R3  Who takes a request out of the queue counts it before it becomes
 *     runnable.  A section that begins after that sees the count, however
 *     late the request's thread runs.
 * R4  A root is not touched after its count has fallen, because the section
 *     that waited may free it at once.  What is needed to tell that section is
 *     in the notifier, to which the leaver takes a reference before.
 */
#include "block/graph/root.h"

#include "block/graph/graph-int.h"

#define ROOT_CLOSED (UINT64_C(1) << 63)

struct DrainNotifier {
    _Atomic unsigned refs;

    /* Guarded by @lock: the graph may be retired while a leaver notifies. */
    Lock lock;
    AioBH *bh; /* NULL once retired */
};

/* A request that waits at the gate; on the stack of its coroutine. */
typedef struct RootWaiter {
    Coroutine *co;
    AioContext *ctx;
    unsigned ticket;
    struct RootWaiter *next;
} RootWaiter;

static void notifier_bh(void *opaque)
{
    drain_kick(opaque);
}

DrainNotifier *drain_notifier_new(BlockGraph *graph)
{
    DrainNotifier *notifier = g_new0(DrainNotifier, 1);

    atomic_init(&notifier->refs, 1);
    lock_init(&notifier->lock, LOCK_RANK_UTIL);
    notifier->bh = aio_bh_new(graph->ctx, notifier_bh, graph);
    return notifier;
}

static void notifier_unref(DrainNotifier *notifier)
{
    if (atomic_fetch_sub(&notifier->refs, 1) == 1) {
        g_free(notifier);
    }
}

void drain_notifier_retire(DrainNotifier *notifier)
{
    AioBH *bh;

    WITH_LOCK(&notifier->lock) {
        bh = notifier->bh;
        notifier->bh = NULL;
    }
    aio_bh_delete(bh);
    notifier_unref(notifier);
}

void root_notify(DrainNotifier *notifier)
{
    LOCK_GUARD(&notifier->lock);

    if (notifier->bh) {
        aio_bh_schedule(notifier->bh);
    }
}

void root_init(BlockRoot *root, BlockGraph *graph, const char *what)
{
    for (unsigned i = 0; i < ROOT_SHARDS; i++) {
        atomic_init(&root->shards[i].word, 0);
    }
    root->graph = graph;
    root->notifier = graph->notifier;
    root->what = what;
    lock_init(&root->lock, LOCK_RANK_ROOT_GATE);
    root->closed = false;
    root->waiters_head = NULL;
    root->waiters_tail = &root->waiters_head;
    root->child = NULL;
    root->work_of = NULL;
    root->nr_sections = 0;
    list_init(&root->work_link);
    list_append(&graph->roots, &root->graph_link);
    drain_graph_changed(graph);
}

void root_destroy(BlockRoot *root)
{
    g_assert(!root->child);
    g_assert(root_in_flight(root) == 0);
    list_remove(&root->work_link);
    list_remove(&root->graph_link);
    drain_graph_changed(root->graph); /* no section covers us any more */
    g_assert(root->nr_sections == 0);
    g_assert(!root->waiters_head);
}

bool root_count(BlockRoot *root, unsigned *ret_ticket)
{
    AioContext *ctx = aio_get_current();
    unsigned ticket;
    uint64_t before;

    g_assert(ctx);
    ticket = aio_context_index(ctx) % ROOT_SHARDS;
    before = atomic_fetch_add(&root->shards[ticket].word, 1);
    *ret_ticket = ticket;
    return !(before & ROOT_CLOSED);                             /* R1 */
}

void root_count_woken(BlockRoot *root, unsigned ticket)
{
    atomic_fetch_add(&root->shards[ticket].word, 1);            /* R3 */
}

void coroutine_fn root_pass(BlockRoot *root, unsigned *ticket)
{
    RootWaiter waiter = { .co = coroutine_self(), .ctx = aio_get_current(),
                          .ticket = *ticket };

    WITH_LOCK(&root->lock) {
        if (!root->closed) {
            return;
        }
        *root->waiters_tail = &waiter;
        root->waiters_tail = &waiter.next;
    }
    /*
     * R2: only now, in the queue, do we give the count back: before, it kept
     * the root; from here on whoever frees it must let the queue go first.
     */
    root_leave(root, *ticket);
    /* Woken from the main context, which reaches our thread by its queue:
     * not before we have yielded. */
    SIM_WAITS("the gate of", root->what);
    coroutine_yield();
    if (SIM_PLANTED(5)) {
        root_count_woken(root, *ticket);
    }
}

unsigned coroutine_fn root_enter(BlockRoot *root)
{
    unsigned ticket;

    if (G_UNLIKELY(!root_count(root, &ticket))) {
        root_pass(root, &ticket);
    }
    return ticket;
}

void root_leave(BlockRoot *root, unsigned ticket)
{
    _Atomic uint64_t *word = &root->shards[ticket].word;
    uint64_t seen = atomic_load_explicit(word, memory_order_relaxed);
    DrainNotifier *notifier;

    while (!(seen & ROOT_CLOSED)) {
        g_assert(seen > 0);
        if (atomic_compare_exchange_weak(word, &seen, seen - 1)) {
            return;
        }
    }
    /* Somebody may wait for us.  Our count keeps the root until it falls. */
    notifier = root->notifier;
    atomic_fetch_add(&notifier->refs, 1);                       /* R4 */
    seen = atomic_fetch_sub(word, 1);
    g_assert((seen & ~ROOT_CLOSED) > 0);
    if (!SIM_PLANTED(6) || (seen & ~ROOT_CLOSED) > 1) {
        root_notify(notifier);
    }
    notifier_unref(notifier);
}

int64_t root_in_flight(BlockRoot *root)
{
    int64_t count = 0;

    for (unsigned i = 0; i < ROOT_SHARDS; i++) {
        count += atomic_load(&root->shards[i].word) & ~ROOT_CLOSED;
    }
    return count;
}

void root_close(BlockRoot *root)
{
    if (root->nr_sections++ > 0) {
        return;
    }
    WITH_LOCK(&root->lock) {
        root->closed = true;
    }
    for (unsigned i = 0; i < ROOT_SHARDS; i++) {
        atomic_fetch_or(&root->shards[i].word, ROOT_CLOSED);
    }
}

void root_open(BlockRoot *root)
{
    RootWaiter *waiter;

    g_assert(root->nr_sections > 0);
    if (--root->nr_sections > 0) {
        return;
    }
    for (unsigned i = 0; i < ROOT_SHARDS; i++) {
        atomic_fetch_and(&root->shards[i].word, ~ROOT_CLOSED);
    }
    WITH_LOCK(&root->lock) {
        root->closed = false;
        waiter = root->waiters_head;
        root->waiters_head = NULL;
        root->waiters_tail = &root->waiters_head;
    }
    for (RootWaiter *w = waiter; w && !SIM_PLANTED(5); w = w->next) {
        root_count_woken(root, w->ticket);
    }
    while (waiter) {
        RootWaiter *next = waiter->next; /* gone when its thread runs it */

        /* Through the queue even in this thread: the caller is in the middle
         * of a graph operation and must not run requests under its feet. */
        aio_co_schedule(waiter->ctx, waiter->co);
        waiter = next;
    }
}
