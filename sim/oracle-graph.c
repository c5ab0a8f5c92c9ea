/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The graph oracle: a graph at rest, looked at from all sides.
 *
 * What the library keeps in two places is compared, and what it derives is
 * derived once more here: the rules of permissions are written down a second
 * time, so that an error in perm.c does not confirm itself.
 */
#include "block/backend/backend-int.h"
#include "sim/sim-int.h"

#include <errno.h>

/* What is wrong; checks return false when they have said so. */
static bool wrong(GError **errp, const char *format, ...)
    G_GNUC_PRINTF(2, 3);

static bool wrong(GError **errp, const char *format, ...)
{
    g_autofree char *text = NULL;
    va_list ap;

    va_start(ap, format);
    text = g_strdup_vprintf(format, ap);
    va_end(ap);
    block_error(errp, EILSEQ, "%s", text);
    return false;
}

static bool list_has(const ListHead *head, const ListHead *wanted)
{
    LIST_FOREACH(link, head) {
        if (link == wanted) {
            return true;
        }
    }
    return false;
}

static unsigned list_length(const ListHead *head)
{
    unsigned n = 0;

    LIST_FOREACH(link, head) {
        n++;
    }
    return n;
}

/* --- edges ---------------------------------------------------------------- */

static bool check_edge_up(const BlockDriverState *bs, const BdrvChild *child,
                          GError **errp)
{
    if (child->bs != bs) {
        return wrong(errp, "Node '%s' has a parent edge '%s' that leads "
                     "elsewhere", bs->node_name, child->name);
    }
    if (!child->parent == !child->root) {
        return wrong(errp, "Edge '%s' to node '%s' has not exactly one upper "
                     "end", child->name, bs->node_name);
    }
    if (child->parent
            ? !list_has(&child->parent->children, &child->parent_link)
            : child->root->child != child) {
        return wrong(errp, "Edge '%s' to node '%s' is unknown at its upper "
                     "end", child->name, bs->node_name);
    }
    return true;
}

static bool check_edge_down(const BlockDriverState *bs,
                            const BdrvChild *child, GError **errp)
{
    if (child->parent != bs || child->root) {
        return wrong(errp, "The child '%s' of node '%s' has another upper end",
                     child->name, bs->node_name);
    }
    if (!child->bs || !list_has(&bs->graph->nodes, &child->bs->graph_link)) {
        return wrong(errp, "The child '%s' of node '%s' is no node of the "
                     "graph", child->name, bs->node_name);
    }
    if (!list_has(&child->bs->parents, &child->node_link)) {
        return wrong(errp, "Node '%s' does not know its parent '%s'",
                     child->bs->node_name, bs->node_name);
    }
    return true;
}

static const BdrvChild *child_of_role(const BlockDriverState *bs,
                                      BdrvChildRole role)
{
    LIST_FOREACH(link, &bs->children) {
        const BdrvChild *child = LIST_ENTRY(link, BdrvChild, parent_link);

        if (child->role & role) {
            return child;
        }
    }
    return NULL;
}

static bool check_roles(const BlockDriverState *bs, GError **errp)
{
    const BdrvChild *length_from =
        bs->length_is_childs      ? bs->primary
        : bs->drv->getlength      ? NULL
                                  : bs->filtered;

    if (bs->primary != child_of_role(bs, BDRV_CHILD_PRIMARY) ||
        bs->filtered != child_of_role(bs, BDRV_CHILD_FILTERED) ||
        bs->cow != child_of_role(bs, BDRV_CHILD_COW)) {
        return wrong(errp, "Node '%s' remembers another child for a role",
                     bs->node_name);
    }
    if (bs->length_from != length_from) {
        return wrong(errp, "Node '%s' takes its length from the wrong place",
                     bs->node_name);
    }
    return true;
}

static bool check_edges(const BlockDriverState *bs, GError **errp)
{
    LIST_FOREACH(link, &bs->children) {
        if (!check_edge_down(bs, LIST_ENTRY(link, BdrvChild, parent_link),
                             errp)) {
            return false;
        }
    }
    LIST_FOREACH(link, &bs->parents) {
        if (!check_edge_up(bs, LIST_ENTRY(link, BdrvChild, node_link),
                           errp)) {
            return false;
        }
    }
    return check_roles(bs, errp);
}

/* Owners that are no edges are the program's: it knows, we do not. */
static bool check_identity(const BlockDriverState *bs, GError **errp)
{
    unsigned edges = list_length(&bs->parents);

    if (bs->state != BDRV_STATE_OPEN) {
        return wrong(errp, "Node '%s' is neither open nor gone",
                     bs->node_name);
    }
    if (g_hash_table_lookup(bs->graph->by_name, bs->node_name) != bs) {
        return wrong(errp, "Node '%s' is not found by its name",
                     bs->node_name);
    }
    if (bs->refs < MAX(edges, 1)) {
        return wrong(errp, "Node '%s' has %u references for %u edges",
                     bs->node_name, bs->refs, edges);
    }
    return true;
}

/* --- shape ---------------------------------------------------------------- */

static bool all_parents_placed(const BlockDriverState *bs,
                               GHashTable *placed)
{
    LIST_FOREACH(link, &bs->parents) {
        const BdrvChild *child = LIST_ENTRY(link, BdrvChild, node_link);

        if (child->parent && !g_hash_table_contains(placed, child->parent)) {
            return false;
        }
    }
    return true;
}

/* Layer by layer from above: what cannot be placed stands on a circle. */
static bool check_shape(const BlockGraph *graph, GError **errp)
{
    g_autoptr(GHashTable) placed = g_hash_table_new(NULL, NULL);
    unsigned layers = 0;

    while (g_hash_table_size(placed) < graph->nr_nodes) {
        g_autoptr(GPtrArray) layer = g_ptr_array_new();

        LIST_FOREACH(link, &graph->nodes) {
            BlockDriverState *bs = LIST_ENTRY(link, BlockDriverState,
                                              graph_link);

            if (!g_hash_table_contains(placed, bs) &&
                all_parents_placed(bs, placed)) {
                g_ptr_array_add(layer, bs);
            }
        }
        if (layer->len == 0) {
            return wrong(errp, "Some nodes stand on each other in a circle");
        }
        for (guint i = 0; i < layer->len; i++) {
            g_hash_table_add(placed, g_ptr_array_index(layer, i));
        }
        layers++;
    }
    return layers <= BDRV_HEIGHT_MAX ||
           wrong(errp, "%u nodes stand on top of each other", layers);
}

/* --- permissions ---------------------------------------------------------- */

#define CHANGE (BLK_PERM_WRITE | BLK_PERM_RESIZE)

/* What a node asks of its storage when its users ask @wish of it. */
static BlockPerm storage_perm(const BlockDriverState *bs, unsigned role,
                              BlockPerm wish)
{
    bool writable = bs->open_flags & BDRV_O_RDWR;
    uint64_t alone = 0;         /* what it lets nobody else do */

    if (role & BDRV_CHILD_METADATA) {
        wish.used |= BLK_PERM_CONSISTENT_READ | (writable ? CHANGE : 0);
        alone |= CHANGE;
    }
    if (role & BDRV_CHILD_DATA) {
        if (wish.used & (BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED)) {
            wish.used |= CHANGE; /* its bytes change all the same */
        }
        alone |= BLK_PERM_RESIZE;
    }
    wish.shared &= ~alone;
    return wish;
}

/* An overlay reads below it, and shows what it reads as its own content. */
static BlockPerm cow_perm(BlockPerm wish)
{
    bool may_change = wish.shared & BLK_PERM_WRITE;

    return (BlockPerm){
        .used = wish.used & BLK_PERM_CONSISTENT_READ,
        .shared = may_change ? BLK_PERM_ALL
                             : BLK_PERM_CONSISTENT_READ |
                                   BLK_PERM_WRITE_UNCHANGED,
    };
}

static BlockPerm expected_perm(BlockDriverState *bs, const BdrvChild *child)
{
    bool copies = (bs->open_flags & BDRV_O_COPY_ON_READ) && bs->perm.used;
    BlockPerm wish = bs->perm;
    BlockPerm perm;

    if (copies && bs->cow) {
        wish.used |= BLK_PERM_WRITE_UNCHANGED; /* as if users did it */
    }
    if (bs->drv->child_perm) {
        bs->drv->child_perm(bs, child->role, &wish, &perm);
    } else if (child->role & BDRV_CHILD_FILTERED) {
        perm = wish;
    } else if (child->role & BDRV_CHILD_COW) {
        perm = cow_perm(wish);
    } else {
        perm = storage_perm(bs, child->role, wish);
    }
    if (copies && child == bs->filtered) {
        perm.used |= BLK_PERM_WRITE_UNCHANGED;
    }
    if ((bs->open_flags & BDRV_O_FORCE_SHARE) || child->unguarded) {
        perm.shared = BLK_PERM_ALL;
    }
    return perm;
}

static bool same_perm(const BlockPerm *is, const BlockPerm *expected,
                      const char *whose, const char *name, GError **errp)
{
    g_autofree char *used = NULL;
    g_autofree char *shared = NULL;

    if (is->used == expected->used && is->shared == expected->shared) {
        return true;
    }
    used = bdrv_perm_names(is->used ^ expected->used);
    shared = bdrv_perm_names(is->shared ^ expected->shared);
    return wrong(errp, "The permissions of %s '%s' are not what they should "
                 "be: used differ in {%s}, shared in {%s}", whose, name, used,
                 shared);
}

/* All pairs, however slow: the library takes a short cut. */
static bool check_sharing(const BlockDriverState *bs, GError **errp)
{
    LIST_FOREACH(x, &bs->parents) {
        const BdrvChild *a = LIST_ENTRY(x, BdrvChild, node_link);

        LIST_FOREACH(y, &bs->parents) {
            const BdrvChild *b = LIST_ENTRY(y, BdrvChild, node_link);
            g_autofree char *names = NULL;

            if (a == b || !(a->perm.used & ~b->perm.shared)) {
                continue;
            }
            names = bdrv_perm_names(a->perm.used & ~b->perm.shared);
            return wrong(errp, "Node '%s': edge '%s' uses '%s', which edge "
                         "'%s' does not share", bs->node_name, a->name, names,
                         b->name);
        }
    }
    return true;
}

static bool check_perms(BlockDriverState *bs, GError **errp)
{
    BlockPerm sum = { 0, BLK_PERM_ALL };

    LIST_FOREACH(link, &bs->parents) {
        const BdrvChild *child = LIST_ENTRY(link, BdrvChild, node_link);

        sum.used |= child->perm.used;
        sum.shared &= child->perm.shared;
    }
    if (!same_perm(&bs->perm, &sum, "node", bs->node_name, errp) ||
        !check_sharing(bs, errp)) {
        return false;
    }
    if ((sum.used & (CHANGE | BLK_PERM_WRITE_UNCHANGED)) &&
        !(bs->open_flags & BDRV_O_RDWR)) {
        return wrong(errp, "Node '%s' is read-only and may be written",
                     bs->node_name);
    }
    LIST_FOREACH(link, &bs->children) {
        const BdrvChild *child = LIST_ENTRY(link, BdrvChild, parent_link);
        BlockPerm expected = expected_perm(bs, child);

        if (!same_perm(&child->perm, &expected, "the edge to node",
                       child->bs->node_name, errp)) {
            return false;
        }
    }
    return true;
}

/* --- rest ----------------------------------------------------------------- */

static bool check_tracked(BlockDriverState *bs, GError **errp)
{
    TrackedRequests *tracked = &bs->tracked;
    bool busy = false;

    for (unsigned i = 0; i < TRACKED_SHARDS; i++) {
        TrackedShard *shard = &tracked->shards[i];

        LOCK_GUARD(&shard->lock);
        busy |= shard->divert || !list_empty(&shard->plain);
    }
    WITH_LOCK(&tracked->lock) {
        busy |= tracked->nr_serialising > 0 ||
                !interval_tree_is_empty(&tracked->tree);
    }
    return !busy || wrong(errp, "Node '%s' has requests in flight",
                          bs->node_name);
}

static bool check_at_rest(BlockDriverState *bs, GError **errp)
{
    if (atomic_load(&bs->drain_count) > 0) {
        return wrong(errp, "Node '%s' is inside a drained section",
                     bs->node_name);
    }
    if (bs->own_work) {
        return wrong(errp, "Node '%s' has work of its opening or closing "
                     "left", bs->node_name);
    }
    if (co_mutex_holder(&bs->flush_lock)) {
        return wrong(errp, "Node '%s' is inside a flush", bs->node_name);
    }
    if (bs->flushed_writes > tracked_writes(&bs->tracked)) {
        return wrong(errp, "Node '%s' has flushed more writes than there "
                     "were", bs->node_name);
    }
    return check_tracked(bs, errp);
}

static bool check_root(BlockRoot *root, GError **errp)
{
    bool idle = false;

    if (root->child && (root->child->root != root ||
                        !list_has(&root->child->bs->parents,
                                  &root->child->node_link))) {
        return wrong(errp, "The edge of %s is unknown at its lower end",
                     root->what);
    }
    if (root_in_flight(root) != 0) {
        return wrong(errp, "%s has %" G_GINT64_FORMAT " requests in flight",
                     root->what, root_in_flight(root));
    }
    WITH_LOCK(&root->lock) {
        idle = !root->closed && !root->waiters_head;
    }
    return (idle && root->nr_sections == 0) ||
           wrong(errp, "The gate of %s is closed, or has a queue",
                 root->what);
}

static bool check_backend(BlockRoot *root, GError **errp)
{
    BlockBackend *blk = LIST_ENTRY(root, BlockBackend, root);

    if (root->work_of) {
        return true;            /* background work of a node: no backend */
    }
    if (blk_nr_stopped(blk) > 0) {
        return wrong(errp, "%s has requests that wait for blk_resume()",
                     blk->what);
    }
    if (atomic_load(&blk->perm_used) != blk->perm.used) {
        return wrong(errp, "%s checks its requests against other permissions "
                     "than it has", blk->what);
    }
    return !root->child || same_perm(&root->child->perm, &blk->perm, "backend",
                                     blk->name, errp);
}

static bool check_node(BlockDriverState *bs, GError **errp)
{
    return check_identity(bs, errp) && check_edges(bs, errp) &&
           check_perms(bs, errp) && check_at_rest(bs, errp);
}

bool bgsim_check_graph(BgSim *sim, GError **errp)
{
    BlockGraph *graph = bgsim_graph(sim);

    if (list_length(&graph->nodes) != graph->nr_nodes ||
        g_hash_table_size(graph->by_name) != graph->nr_nodes) {
        return wrong(errp, "The graph has %zu nodes, %u in its list and %u "
                     "names", graph->nr_nodes, list_length(&graph->nodes),
                     g_hash_table_size(graph->by_name));
    }
    LIST_FOREACH(link, &graph->nodes) {
        if (!check_node(LIST_ENTRY(link, BlockDriverState, graph_link),
                        errp)) {
            return false;
        }
    }
    LIST_FOREACH(link, &graph->roots) {
        BlockRoot *root = LIST_ENTRY(link, BlockRoot, graph_link);

        if (!check_root(root, errp) || !check_backend(root, errp)) {
            return false;
        }
    }
    if (!list_empty(&graph->sections)) {
        return wrong(errp, "%u drained sections are open",
                     list_length(&graph->sections));
    }
    if (co_mutex_holder(&graph->control_lock)) {
        return wrong(errp, "A change of the graph is under way");
    }
    return check_shape(graph, errp);
}
