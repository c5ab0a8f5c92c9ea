/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Drain: the write lock of the graph.
 *
 * A section covers all roots from which its node can be reached.  It closes
 * their gates (root.c), asks the drivers that their requests may pass to let
 * go of what they hold, and waits until the counts are zero.
 *
 * D1  The sections' covers fit the present edges: after each change of an edge
 *     they are computed again, so a root that comes above a drained node is
 *     closed at once, and one that goes is opened.
 * D2  A root that a change of edges brings under a section has nothing in
 *     flight: whoever changes an edge has drained what is above it.
 * D3  Covers are exchanged by adding the new ones of all sections before an old
 *     one is dropped, so what goes from one section to another, or stays, never
 *     opens in between.
 * D4  A section of a root covers that root for all its time, and what is above
 *     the node that the root has at the moment: the node may be exchanged, or
 *     go, inside the section.
 * D5  A node that opens, closes or is reopened sends requests of its own.  They
 *     are counted like background work, and first wait until no section of
 *     others covers the node.  Sections that the same coroutine has begun do
 *     not hold it up, and do not wait for it: it would wait for itself.  Nor
 *     do sections whose beginner waits here, too, hold up others: each would
 *     wait for the other's end.  The last one that comes to wait goes first;
 *     what it sends has ended when another one goes on in its section.
 * D6  A request may fork work of a node below before it ends: that is counted
 *     at a closed gate, too.  So a section that adds up the counts, one after
 *     the other, may see the work's before the fork and the request's after
 *     its end, both zero.  The work is counted first, then the number of forks
 *     grows, then the request ends; a sum during which that number has not
 *     grown has missed no fork.
 * D7  A section whose beginner may have to undo what it has changed is not
 *     passed (D5): until it ends nobody else opens, closes or reopens what it
 *     covers, changes or freezes an edge there, or wants more of a node there.
 *     Only one coroutine has such sections, and who waits for it lets it pass,
 *     so it waits for nobody.
 */
#include "block/graph/graph-int.h"

#include "util/coroutine-int.h"

typedef struct DrainSection {
    ListHead link;         /* in graph->sections */
    BlockDriverState *bs;  /* of this node, held by the caller; or NULL */
    BlockRoot *root;       /* of this root, or NULL; both NULL: all nodes */
    CoOwner owner;         /* who has begun it */
    bool owner_waits;      /* for sections of others; D5 */
    bool reverts;          /* D7 */
    GPtrArray *roots;      /* BlockRoot *: what is closed */
    GPtrArray *nodes;      /* BlockDriverState *: whose drivers were told */
    GPtrArray *old_roots;  /* while covers are exchanged */
    GPtrArray *old_nodes;
} DrainSection;

/* Background work, or the requests of a node that opens or closes. */
struct BdrvWork {
    BlockRoot root;
    char *what;

    /* Main context; of the node's own requests, see D5. */
    bool own_counted;
    unsigned own_ticket;
    CoOwner owner;         /* who sends them */
};

/* --- covers --------------------------------------------------------------- */

static void cover_all(DrainSection *section, BlockGraph *graph)
{
    LIST_FOREACH(link, &graph->roots) {
        g_ptr_array_add(section->roots,
                        LIST_ENTRY(link, BlockRoot, graph_link));
    }
    LIST_FOREACH(link, &graph->nodes) {
        g_ptr_array_add(section->nodes,
                        LIST_ENTRY(link, BlockDriverState, graph_link));
    }
}

static void add_roots_of(DrainSection *section, BlockDriverState *bs)
{
    LIST_FOREACH(link, &bs->parents) {
        BdrvChild *child = LIST_ENTRY(link, BdrvChild, node_link);

        if (child->root) {
            g_ptr_array_add(section->roots, child->root);
        }
    }
    LIST_FOREACH(link, &bs->works) {
        g_ptr_array_add(section->roots,
                        LIST_ENTRY(link, BlockRoot, work_link));
    }
}

/*
 * Requests of a root above the node may be anywhere below that root, so the
 * drivers of all those nodes are told.
 */
static void cover_node(DrainSection *section, BlockDriverState *bs)
{
    g_autoptr(GPtrArray) start = g_ptr_array_new();
    g_autoptr(GPtrArray) above = NULL;

    g_ptr_array_add(start, bs);
    above = graph_above(start);
    for (guint i = 0; i < above->len; i++) {
        add_roots_of(section, g_ptr_array_index(above, i));
    }
    g_ptr_array_unref(section->nodes);
    section->nodes = graph_below(above);
}

static void cover_root(DrainSection *section)
{
    BlockRoot *root = section->root;

    g_ptr_array_add(section->roots, root);                      /* D4 */
    if (root->child) {
        cover_node(section, root->child->bs);
    }
}

static void section_compute(DrainSection *section, BlockGraph *graph)
{
    section->roots = g_ptr_array_new();
    section->nodes = g_ptr_array_new();
    if (section->root) {
        cover_root(section);
    } else if (section->bs) {
        cover_node(section, section->bs);
    } else {
        cover_all(section, graph);
    }
}

/* A driver is told only between its open and its close. */
static bool may_tell_driver(const BlockDriverState *bs)
{
    return bs->state == BDRV_STATE_OPEN || bs->state == BDRV_STATE_CLOSING;
}

static void node_drain_begin(BlockDriverState *bs)
{
    if (atomic_fetch_add(&bs->drain_count, 1) == 0 && may_tell_driver(bs) &&
        bs->drv->drain_begin) {
        bs->drv->drain_begin(bs);
    }
}

static void node_drain_end(BlockDriverState *bs)
{
    if (atomic_fetch_sub(&bs->drain_count, 1) == 1 &&
        may_tell_driver(bs) && bs->drv->drain_end) {
        bs->drv->drain_end(bs);
    }
}

static void section_apply(DrainSection *section)
{
    for (guint i = 0; i < section->roots->len; i++) {
        root_close(g_ptr_array_index(section->roots, i));
    }
    for (guint i = 0; i < section->nodes->len; i++) {
        node_drain_begin(g_ptr_array_index(section->nodes, i));
    }
}

static void cover_release(GPtrArray *roots, GPtrArray *nodes)
{
    for (guint i = 0; i < nodes->len; i++) {
        node_drain_end(g_ptr_array_index(nodes, i));
    }
    for (guint i = 0; i < roots->len; i++) {
        root_open(g_ptr_array_index(roots, i));
    }
    g_ptr_array_unref(roots);
    g_ptr_array_unref(nodes);
}

/* Planted: the cover of before, whatever has changed. */
static inline void cover_copy(DrainSection *section)
{
    g_ptr_array_unref(section->roots);
    g_ptr_array_unref(section->nodes);
    section->roots = g_ptr_array_copy(section->old_roots, NULL, NULL);
    section->nodes = g_ptr_array_copy(section->old_nodes, NULL, NULL);
}

void drain_graph_changed(BlockGraph *graph)
{
    LIST_FOREACH(link, &graph->sections) {
        DrainSection *section = LIST_ENTRY(link, DrainSection, link);

        section->old_roots = section->roots;
        section->old_nodes = section->nodes;
        section_compute(section, graph);                        /* D1 */
        if (SIM_PLANTED(13) &&
            section->roots->len > section->old_roots->len) {
            cover_copy(section);
        }
        section_apply(section);                                 /* D3 */
    }
    LIST_FOREACH(link, &graph->sections) {
        DrainSection *section = LIST_ENTRY(link, DrainSection, link);

        cover_release(section->old_roots, section->old_nodes);
    }
}

/* --- sections ------------------------------------------------------------- */

static bool same_owner(CoOwner a, CoOwner b)
{
    return a.co == b.co && a.life == b.life;
}

/* D5: whether @root counts only what the beginner of @section itself does. */
static bool is_work_of_owner(const BlockRoot *root,
                             const DrainSection *section)
{
    const BdrvWork *work = (const BdrvWork *)root; /* its first member */

    return root->work_of && work->own_counted &&
           same_owner(work->owner, section->owner);
}

static int64_t section_sum(DrainSection *section)
{
    int64_t count = 0;

    for (guint i = 0; i < section->roots->len; i++) {
        BlockRoot *root = g_ptr_array_index(section->roots, i);

        if (!is_work_of_owner(root, section)) {
            count += root_in_flight(root);
        }
    }
    return count;
}

static int64_t section_in_flight(BlockGraph *graph, DrainSection *section)
{
    int64_t count;
    uint64_t forks;

    do {
        forks = atomic_load(&graph->forks);                     /* D6 */
        count = section_sum(section);
    } while (count == 0 && forks != atomic_load(&graph->forks));
    return count;
}

void drain_kick(BlockGraph *graph)
{
    co_queue_restart_all(&graph->drain_waiters);
}

static void section_remove(BlockGraph *graph, DrainSection *section)
{
    list_remove(&section->link);
    cover_release(section->roots, section->nodes);
    g_free(section);
    root_notify(graph->notifier); /* others may wait for its end, D5 */
}

/* @how: what the section is of; the rest is filled in here.  Returns whether
 * it has begun; @give_up (or NULL) may say that it is not to any more. */
static bool coroutine_fn section_begin(BlockGraph *graph,
                                       const DrainSection *how,
                                       const bool *give_up)
{
    DrainSection *section = g_memdup2(how, sizeof(*how));

    g_assert(aio_context_in_home(graph->ctx));
    section->owner = coroutine_owner();
    section_compute(section, graph);
    section_apply(section);
    list_append(&graph->sections, &section->link);
    SIM_POINT("drain.begin", how->bs ? how->bs->node_name : NULL);
    while (!SIM_PLANTED(18) && section_in_flight(graph, section) > 0) {
        if (give_up && *give_up) {
            section_remove(graph, section);
            return false;
        }
        /* The cover may have changed over the yield; it is read again. */
        co_queue_wait(&graph->drain_waiters, NULL);
    }
    return true;
}

static bool is_ours(const DrainSection *section)
{
    return same_owner(section->owner, coroutine_owner());
}

/* The newest section of @root and @bs, one of ours if there is one. */
static DrainSection *find_section(BlockGraph *graph, BlockRoot *root,
                                  BlockDriverState *bs)
{
    DrainSection *found = NULL;

    LIST_FOREACH(link, &graph->sections) {
        DrainSection *section = LIST_ENTRY(link, DrainSection, link);

        if (section->root == root && section->bs == bs &&
            (!found || is_ours(section) || !is_ours(found))) {
            found = section;
        }
    }
    return found;
}

static void section_end(BlockGraph *graph, BlockRoot *root,
                        BlockDriverState *bs)
{
    DrainSection *section = find_section(graph, root, bs);

    g_assert(aio_context_in_home(graph->ctx));
    g_assert(section);
    section_remove(graph, section);
}

void coroutine_fn bdrv_co_drained_begin(BlockDriverState *bs)
{
    section_begin(bs->graph, &(DrainSection){ .bs = bs }, NULL);
}

bool coroutine_fn drain_begin_unless(BlockDriverState *bs, const bool *give_up)
{
    return section_begin(bs->graph, &(DrainSection){ .bs = bs }, give_up);
}

void bdrv_drained_end(BlockDriverState *bs)
{
    section_end(bs->graph, NULL, bs);
}

void coroutine_fn bdrv_co_drain_all_begin(BlockGraph *graph)
{
    section_begin(graph, &(DrainSection){ .bs = NULL }, NULL);
}

void bdrv_drain_all_end(BlockGraph *graph)
{
    section_end(graph, NULL, NULL);
}

void coroutine_fn drain_root_begin(BlockRoot *root)
{
    section_begin(root->graph, &(DrainSection){ .root = root }, NULL);
}

void drain_root_end(BlockRoot *root)
{
    section_end(root->graph, root, NULL);
}

bool bdrv_is_drained(const BlockDriverState *bs)
{
    return atomic_load(&bs->drain_count) > 0;
}

/* --- background work of drivers ------------------------------------------- */

BdrvWork *bdrv_work_new(BlockDriverState *bs)
{
    BdrvWork *work = block_aligned_alloc(_Alignof(BdrvWork), sizeof(*work));

    work->what = g_strdup_printf("background work of node '%s'",
                                 bs->node_name);
    work->own_counted = false;
    root_init(&work->root, bs->graph, work->what);
    work->root.work_of = bs;
    list_append(&bs->works, &work->root.work_link);
    drain_graph_changed(bs->graph);
    return work;
}

unsigned coroutine_fn bdrv_co_work_begin(BdrvWork *work)
{
    return root_enter(&work->root);
}

unsigned bdrv_work_fork(BdrvWork *work)
{
    unsigned ticket;

    root_count(&work->root, &ticket);                           /* D6 */
    atomic_fetch_add(&work->root.graph->forks, 1);
    return ticket;
}

/* Whether a section that somebody else has begun, who does not wait himself,
 * covers @bs.  D5 */
static bool others_drain(const BlockDriverState *bs)
{
    unsigned sections = atomic_load(&bs->drain_count);

    if (sections == 0) {
        return false;
    }
    LIST_FOREACH(link, &bs->graph->sections) {
        DrainSection *section = LIST_ENTRY(link, DrainSection, link);

        if ((is_ours(section) ||
             (section->owner_waits && !section->reverts)) &&
            g_ptr_array_find(section->nodes, bs, NULL)) {
            sections--;
        }
    }
    return sections > 0;
}

static void own_count(BdrvWork *work)
{
    g_assert(!work->own_counted);
    root_count(&work->root, &work->own_ticket);
    work->own_counted = true;
    work->owner = coroutine_owner();
}

static bool others_hold_up(const BlockDriverState *bs,
                           const BlockDriverState *below)
{
    return others_drain(bs) || (below && others_drain(below));
}

/* The running coroutine waits for others, or not any more.  Returns whether it
 * has begun any section. */
static bool mark_ours(BlockGraph *graph, bool waits)
{
    bool any = false;

    LIST_FOREACH(link, &graph->sections) {
        DrainSection *section = LIST_ENTRY(link, DrainSection, link);

        if (is_ours(section)) {
            section->owner_waits = waits;
            any = true;
        }
    }
    return any;
}

static bool ours_are_quiet(BlockGraph *graph)
{
    LIST_FOREACH(link, &graph->sections) {
        DrainSection *section = LIST_ENTRY(link, DrainSection, link);

        if (is_ours(section) && section_in_flight(graph, section) > 0) {
            return false;
        }
    }
    return true;
}

static void coroutine_fn wait_for_others(BlockDriverState *bs,
                                         BlockDriverState *below)
{
    BlockGraph *graph = bs->graph;

    if (mark_ours(graph, true)) {
        drain_kick(graph); /* who waits for our sections need not any more */
    }
    while (others_hold_up(bs, below) || !ours_are_quiet(graph)) {
        co_queue_wait(&graph->drain_waiters, NULL);
    }
    mark_ours(graph, false);
}

void coroutine_fn drain_own_begin(BdrvWork *work, BlockDriverState *below)
{
    BlockDriverState *bs = work->root.work_of;

    if (others_hold_up(bs, below)) {
        wait_for_others(bs, below);
    }
    own_count(work); /* no yield since: a section that begins now sees it */
}

static bool others_hold_up_any(const GPtrArray *works)
{
    for (guint i = 0; i < works->len; i++) {
        const BdrvWork *work = g_ptr_array_index(works, i);

        if (others_drain(work->root.work_of)) {
            return true;
        }
    }
    return false;
}

void coroutine_fn drain_control_begin(BlockGraph *graph,
                                      const GPtrArray *works, bool lock)
{
    /* From here on: who has the lock may wait for our sections. */
    if (mark_ours(graph, true)) {
        drain_kick(graph);
    }
    for (;;) {
        if (lock) {
            co_mutex_lock(&graph->control_lock);
        }
        if (!others_hold_up_any(works) && ours_are_quiet(graph)) {
            break;
        }
        if (lock) {
            co_mutex_unlock(&graph->control_lock);
        }
        co_queue_wait(&graph->drain_waiters, NULL);
    }
    mark_ours(graph, false);
    for (guint i = 0; i < works->len; i++) {
        own_count(g_ptr_array_index(works, i));
    }
}

/* --- changes that may be undone ------------------------------------------- */

/* Whether @section covers @bs or anything below it. */
static bool covers_below(const DrainSection *section, BlockDriverState *bs)
{
    g_autoptr(GPtrArray) start = g_ptr_array_new();
    g_autoptr(GPtrArray) below = NULL;

    g_ptr_array_add(start, bs);
    below = graph_below(start);
    for (guint i = 0; i < below->len; i++) {
        if (g_ptr_array_find(section->nodes, g_ptr_array_index(below, i),
                             NULL)) {
            return true;
        }
    }
    return false;
}

/* Whether somebody else must find as he left it what is at @bs (NULL: any
 * node) or below.  D7 */
static bool others_revert(BlockGraph *graph, BlockDriverState *bs)
{
    LIST_FOREACH(link, &graph->sections) {
        DrainSection *section = LIST_ENTRY(link, DrainSection, link);

        if (section->reverts && !is_ours(section) &&
            (!bs || covers_below(section, bs))) {
            return true;
        }
    }
    return false;
}

void coroutine_fn drain_revert_begin(BlockGraph *graph)
{
    if (mark_ours(graph, true)) {
        drain_kick(graph);
    }
    while (others_revert(graph, NULL) || !ours_are_quiet(graph)) {
        SIM_WAITS("a change that may be undone", NULL);
        co_queue_wait(&graph->drain_waiters, NULL);
    }
    mark_ours(graph, false);
    LIST_FOREACH(link, &graph->sections) {
        DrainSection *section = LIST_ENTRY(link, DrainSection, link);

        section->reverts = section->reverts || is_ours(section);
    }
}

void coroutine_fn drain_revert_wait(BlockDriverState *bs)
{
    BlockGraph *graph = bs->graph;

    if (!others_revert(graph, bs)) {
        return;
    }
    if (mark_ours(graph, true)) {
        drain_kick(graph);
    }
    while (others_revert(graph, bs) || !ours_are_quiet(graph)) {
        SIM_WAITS("a change that may be undone", NULL);
        co_queue_wait(&graph->drain_waiters, NULL);
    }
    mark_ours(graph, false);
}

void coroutine_fn drain_change_begin(BlockDriverState *bs,
                                     BlockDriverState *other)
{
    BlockGraph *graph = bs->graph;

    co_mutex_lock(&graph->control_lock);
    while (others_revert(graph, bs) || (other && others_revert(graph, other))) {
        co_mutex_unlock(&graph->control_lock); /* it may be wanted for that */
        drain_revert_wait(bs);
        if (other) {
            drain_revert_wait(other);
        }
        co_mutex_lock(&graph->control_lock);
    }
}

void coroutine_fn drain_change_end(BlockGraph *graph)
{
    co_mutex_unlock(&graph->control_lock);
}

void drain_own_end(BdrvWork *work)
{
    if (work->own_counted) {
        work->own_counted = false;
        root_leave(&work->root, work->own_ticket);
    }
}

void bdrv_work_end(BdrvWork *work, unsigned ticket)
{
    root_leave(&work->root, ticket);
}

void bdrv_work_free(BdrvWork *work)
{
    if (!work) {
        return;
    }
    root_destroy(&work->root);
    g_free(work->what);
    block_aligned_free(work);
}
