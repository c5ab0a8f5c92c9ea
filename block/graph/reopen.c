/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reopen: new options for several nodes, all or none.
 *
 * queue -> drain all -> prepare each -> [ flags, edges, permissions ] -> commit
 *                           |                      |
 *                           +------> abort <-------+
 *
 * Preparing may yield (a file is opened again); what is in brackets is one
 * transaction that does not.  Children that were opened from options nested in
 * those of their parent follow it, through filters: they inherit its new flags.
 */
#include "block/bitmap/dirty-bitmap.h"

#include <errno.h>
#include <string.h>

#include "block/graph/transaction.h"

/* One node of the queue. */
typedef struct ReopenNode {
    BdrvReopenState state;
    BlockOptions *given;      /* what the node will remember */
    bool computed;            /* state.options and state.flags are */
    GPtrArray *replace;       /* ReplaceChild *: children to redirect */
    BdrvDetectZeroes detect_zeroes;
    bool keep;
    bool prepared;
} ReopenNode;

/* A child that is to lead to another node. */
typedef struct ReplaceChild {
    BdrvChild *child;
    BlockDriverState *bs; /* counted */
} ReplaceChild;

struct BdrvReopenQueue {
    BlockGraph *graph;
    GPtrArray *nodes; /* ReopenNode * */
};

/* --- the queue ------------------------------------------------------------ */

BdrvReopenQueue *bdrv_reopen_queue_new(BlockGraph *graph)
{
    BdrvReopenQueue *queue = g_new0(BdrvReopenQueue, 1);

    queue->graph = graph;
    queue->nodes = g_ptr_array_new();
    return queue;
}

BlockGraph *bdrv_reopen_queue_graph(const BdrvReopenQueue *queue)
{
    return queue->graph;
}

static ReopenNode *queue_find(BdrvReopenQueue *queue, BlockDriverState *bs)
{
    for (guint i = 0; i < queue->nodes->len; i++) {
        ReopenNode *node = g_ptr_array_index(queue->nodes, i);

        if (node->state.bs == bs) {
            return node;
        }
    }
    return NULL;
}

static ReopenNode *queue_add(BdrvReopenQueue *queue, BlockDriverState *bs,
                             BlockOptions *options, bool keep)
{
    ReopenNode *node = queue_find(queue, bs);

    if (node) {
        /* Named twice: the later call wins where both speak. */
        block_options_merge(options, node->given);
        block_options_free(node->given);
        node->given = options;
        node->keep = node->keep && keep;
        return node;
    }
    node = g_new0(ReopenNode, 1);
    node->state.bs = bdrv_ref(bs);
    node->given = options;
    node->keep = keep;
    node->replace = g_ptr_array_new();
    g_ptr_array_add(queue->nodes, node);
    return node;
}

void bdrv_reopen_queue_add(BdrvReopenQueue *queue, BlockDriverState *bs,
                           BlockOptions *options, bool keep)
{
    queue_add(queue, bs, options, keep);
}

/* Free the queue but for the references, which are given to @held. */
static void queue_take_refs(BdrvReopenQueue *queue, GPtrArray *held)
{
    for (guint i = 0; i < queue->nodes->len; i++) {
        ReopenNode *node = g_ptr_array_index(queue->nodes, i);

        for (guint j = 0; j < node->replace->len; j++) {
            ReplaceChild *replace = g_ptr_array_index(node->replace, j);

            g_ptr_array_add(held, replace->bs);
            g_free(replace);
        }
        g_ptr_array_free(node->replace, true);
        block_options_free(node->given);
        block_options_free(node->state.options);
        g_ptr_array_add(held, node->state.bs);
        g_free(node);
    }
    g_ptr_array_free(queue->nodes, true);
    g_free(queue);
}

void bdrv_reopen_queue_free(BdrvReopenQueue *queue)
{
    g_autoptr(GPtrArray) held = g_ptr_array_new();

    if (!queue) {
        return;
    }
    queue_take_refs(queue, held);
    for (guint i = 0; i < held->len; i++) {
        BlockDriverState *bs = g_ptr_array_index(held, i);

        /* The caller holds its own references: ours are never the last. */
        g_assert(bs->refs > 1);
        bs->refs--;
    }
}

/* --- children ------------------------------------------------------------- */

static int plan_replacement(ReopenNode *node, BdrvChild *child,
                            const char *reference, GError **errp)
{
    BlockDriverState *bs = node->state.bs;
    BlockDriverState *target = bdrv_find_node(bs->graph, reference);
    ReplaceChild *replace;

    if (!target) {
        return block_error(errp, ENOENT, "Node '%s' (as '%s' of node '%s') not "
                           "found", reference, child->name, bs->node_name);
    }
    if (target == child->bs) {
        return 0;
    }
    replace = g_new(ReplaceChild, 1);
    replace->child = child;
    replace->bs = bdrv_ref(target);
    g_ptr_array_add(node->replace, replace);
    return 0;
}

/*
 * Options nested in those of @node are for the node that was opened from such,
 * also when filters were put above it since; never for a filter, which has
 * options of its own.  NULL: that node is reopened for what it inherits.
 */
static int plan_nested(BdrvReopenQueue *queue, ReopenNode *node,
                       BdrvChild *child, BlockOptions *tree, GError **errp)
{
    const char *parent = node->state.bs->node_name;

    if (child->nested && edge_reaches_nested(child)) {
        queue_add(queue, child->nested, tree ? tree : block_options_new(),
                  true);
        return 0;
    }
    if (!tree) {
        return 0;
    }
    block_options_free(tree);
    if (!child->nested) {
        return block_error(errp, EINVAL, "Node '%s': '%s' cannot be given new "
                           "nested options by reopen: node '%s' was not "
                           "opened from such; reopen it by its name", parent,
                           child->name, child->bs->node_name);
    }
    return block_error(errp, EINVAL, "Node '%s': '%s' cannot be given new "
                       "nested options by reopen: they belong to node '%s', "
                       "but '%s' leads to node '%s' now; reopen either by its "
                       "name", parent, child->name, child->nested->node_name,
                       child->name, child->bs->node_name);
}

/* What the new options say about one child; NONE leaves it as it is. */
static int plan_child(BdrvReopenQueue *queue, ReopenNode *node,
                      BdrvChild *child, GError **errp)
{
    BlockOptionsChild kind;
    g_autofree char *reference = NULL;
    BlockOptions *tree = NULL;
    int ret;

    ret = block_options_take_child(node->given, child->name, &kind, &reference,
                                   &tree, errp);
    if (ret < 0) {
        return ret;
    }
    if (kind == BLOCK_OPTIONS_CHILD_REFERENCE) {
        return plan_replacement(node, child, reference, errp);
    }
    if (kind == BLOCK_OPTIONS_CHILD_NULL) {
        return block_error(errp, EINVAL, "Node '%s': '%s' cannot be removed "
                           "by reopen", node->state.bs->node_name,
                           child->name);
    }
    return plan_nested(queue, node, child, tree, errp);
}

static int plan_children(BdrvReopenQueue *queue, GError **errp)
{
    /* The queue grows while we walk: nested children are added to it. */
    for (guint i = 0; i < queue->nodes->len; i++) {
        ReopenNode *node = g_ptr_array_index(queue->nodes, i);

        LIST_FOREACH(link, &node->state.bs->children) {
            int ret = plan_child(queue, node,
                                 LIST_ENTRY(link, BdrvChild, parent_link),
                                 errp);

            if (ret < 0) {
                return ret;
            }
        }
    }
    return 0;
}

/* --- options -------------------------------------------------------------- */

static int check_identity(BlockDriverState *bs,
                          const BdrvCommonOptions *common, GError **errp)
{
    if (strcmp(common->driver, bs->drv->name) != 0) {
        return block_error(errp, EINVAL, "Node '%s': cannot change the driver "
                           "from '%s' to '%s'", bs->node_name, bs->drv->name,
                           common->driver);
    }
    if (common->node_name && strcmp(common->node_name, bs->node_name) != 0) {
        return block_error(errp, EINVAL, "Node '%s': cannot change the node "
                           "name to '%s'", bs->node_name, common->node_name);
    }
    return 0;
}

/* The edge for which @bs was opened, if it is below it still; or NULL. */
static BdrvChild *nested_edge(BlockDriverState *bs)
{
    BdrvChild *child = bs->nested_in;

    return child && edge_reaches_nested(child) ? child : NULL;
}

static int compute_options(BdrvReopenQueue *queue, ReopenNode *node,
                           GError **errp);

/* What @node does not say itself comes from its parent as that will be. */
static int inherit_options(BdrvReopenQueue *queue, ReopenNode *node,
                           GError **errp)
{
    BdrvChild *edge = nested_edge(node->state.bs);
    ReopenNode *parent = edge ? queue_find(queue, edge->parent) : NULL;
    unsigned flags;

    if (!edge) {
        return 0;
    }
    flags = edge->parent->open_flags;
    if (parent) {
        /* Goes up, so no deeper than the graph is high. */
        int ret = compute_options(queue, parent, errp);

        if (ret < 0) {
            return ret;
        }
        flags = parent->state.flags;
    }
    bdrv_inherit_options(node->state.options, edge->role, edge->parent->drv,
                         flags);
    return 0;
}

/* A child that the node does not have; null says just that. */
static int take_no_child(ReopenNode *node, const char *name, GError **errp)
{
    BlockOptionsChild kind;
    g_autofree char *reference = NULL;
    g_autoptr(BlockOptions) tree = NULL;
    int ret = block_options_take_child(node->state.options, name, &kind,
                                       &reference, &tree, errp);

    if (ret == 0 && (reference || tree)) {
        ret = block_error(errp, EINVAL, "Node '%s': '%s' cannot be added by "
                          "reopen", node->state.bs->node_name, name);
    }
    return ret;
}

/* Those that it has were taken when the reopen was planned. */
static int take_no_children(ReopenNode *node, GError **errp)
{
    const BlockOption *option = node->state.bs->drv->options;
    int ret = 0;

    for (; ret == 0 && option && option->type != BLOCK_OPTION_END; option++) {
        if (option->type == BLOCK_OPTION_CHILD) {
            ret = take_no_child(node, option->name, errp);
        }
    }
    return ret;
}

/* From what was given to what the driver and we work with. */
static int compute_options(BdrvReopenQueue *queue, ReopenNode *node,
                           GError **errp)
{
    BlockDriverState *bs = node->state.bs;
    g_autofree char *what = g_strdup_printf("Node '%s' (driver '%s')",
                                            bs->node_name, bs->drv->name);
    BdrvCommonOptions common;
    int ret;

    if (node->computed) {
        return 0;
    }
    node->computed = true;
    if (!block_options_has(node->given, "driver")) {
        block_options_set_str(node->given, "driver", bs->drv->name);
    }
    if (node->keep) {
        block_options_merge(node->given, bs->options);
        LIST_FOREACH(link, &bs->children) {
            block_options_remove(
                node->given, LIST_ENTRY(link, BdrvChild, parent_link)->name);
        }
    }
    node->state.options = block_options_clone(node->given);
    ret = take_no_children(node, errp);
    if (ret == 0) {
        ret = inherit_options(queue, node, errp);
    }
    if (ret < 0) {
        return ret;
    }
    ret = block_options_absorb(node->state.options, bdrv_common_options,
                               &common, what, errp);
    if (ret < 0) {
        return ret;
    }
    node->detect_zeroes = common.detect_zeroes;
    ret = check_identity(bs, &common, errp);
    if (ret == 0) {
        ret = bdrv_flags_from_common(&common, what, &node->state.flags, errp);
    }
    block_options_clear(bdrv_common_options, &common);
    return ret;
}

/* A driver without reopen takes its options again only unchanged. */
static int check_unchanged(ReopenNode *node, const char *what, GError **errp)
{
    BlockDriverState *bs = node->state.bs;
    const BlockOption *option = bs->drv->options;

    for (; option && option->type != BLOCK_OPTION_END; option++) {
        if (option->type == BLOCK_OPTION_CHILD) {
            continue;
        }
        if (!block_options_same(node->given, bs->options, option->name)) {
            return block_error(errp, EINVAL, "%s: option '%s' cannot be "
                               "changed while the node is open", what,
                               option->name);
        }
        block_options_remove(node->state.options, option->name);
    }
    return 0;
}

static int coroutine_fn prepare_node(ReopenNode *node, GError **errp)
{
    BlockDriverState *bs = node->state.bs;
    const BlockOption *known[] = {
        bs->drv->options ? bs->drv->options : bdrv_common_options, NULL };
    g_autofree char *what = g_strdup_printf("Node '%s' (driver '%s')",
                                            bs->node_name, bs->drv->name);
    int ret;

    if (!bdrv_is_read_only(bs) && !(node->state.flags & BDRV_O_RDWR)) {
        ret = dirty_bitmaps_seal(bs, errp);
        if (ret < 0) {
            return ret;
        }
        ret = bdrv_co_flush(bs);
        if (ret < 0) {
            return block_error_errno(errp, -ret, "%s: flush before becoming "
                                     "read-only failed", what);
        }
    }
    ret = SIM_FAULT("graph.reopen", bs->node_name);
    if (ret < 0) {
        return block_error_errno(errp, -ret, "%s: could not reopen", what);
    }
    if (bs->drv->reopen_prepare) {
        ret = bs->drv->reopen_prepare(&node->state, errp);
        node->prepared = ret == 0;
    } else {
        ret = check_unchanged(node, what, errp);
    }
    if (ret == 0) {
        ret = block_options_check_empty(node->state.options, known, what,
                                        errp);
    }
    return ret;
}

/* --- the transaction ------------------------------------------------------ */

typedef struct FlagsStep {
    BlockDriverState *bs;
    unsigned old_flags;
} FlagsStep;

static void flags_abort(void *opaque)
{
    FlagsStep *step = opaque;

    step->bs->open_flags = step->old_flags;
}

static const TransactionStep flags_step = { .abort = flags_abort };

static void set_flags(BlockDriverState *bs, unsigned flags, Transaction *txn)
{
    FlagsStep *step = g_new(FlagsStep, 1);

    step->bs = bs;
    step->old_flags = bs->open_flags;
    bs->open_flags = flags;
    transaction_add(txn, &flags_step, step);
}

/* The planned change of an edge; the graph may have changed since the plan. */
static int change_edge(const ReplaceChild *replace, Transaction *txn,
                       GError **errp)
{
    BdrvChild *child = replace->child;
    BlockDriverState *bs = replace->bs;

    if (edge_check_thawed(child, errp) < 0) {
        return -EBUSY;
    }
    if (graph_reaches(bs, child->parent)) {
        return block_error(errp, ELOOP, "Making node '%s' a child of node '%s' "
                           "would create a cycle", bs->node_name,
                           child->parent->node_name);
    }
    edge_replace(child, bs, txn);
    return graph_check_height(bs, errp);
}

static int reopen_change(BdrvReopenQueue *queue, GError **errp)
{
    g_autoptr(GPtrArray) nodes = g_ptr_array_new();
    Transaction *txn = transaction_new();
    int ret = 0;

    for (guint i = 0; i < queue->nodes->len && ret == 0; i++) {
        ReopenNode *node = g_ptr_array_index(queue->nodes, i);

        set_flags(node->state.bs, node->state.flags, txn);
        g_ptr_array_add(nodes, node->state.bs);
        for (guint j = 0; j < node->replace->len && ret == 0; j++) {
            ReplaceChild *replace = g_ptr_array_index(node->replace, j);

            g_ptr_array_add(nodes, replace->child->bs);
            g_ptr_array_add(nodes, replace->bs);
            ret = change_edge(replace, txn, errp);
        }
    }
    if (ret == 0) {
        ret = perm_refresh(nodes, txn, errp);
    }
    return transaction_end(txn, ret);
}

static void coroutine_fn reopen_commit(BdrvReopenQueue *queue)
{
    for (guint i = 0; i < queue->nodes->len; i++) {
        ReopenNode *node = g_ptr_array_index(queue->nodes, i);
        BlockDriverState *bs = node->state.bs;

        if (node->prepared && bs->drv->reopen_commit) {
            bs->drv->reopen_commit(&node->state);
        }
        for (guint j = 0; j < node->replace->len; j++) {
            ReplaceChild *replace = g_ptr_array_index(node->replace, j);

            edge_set_nested(replace->child, NULL);
        }
        bs->detect_zeroes = node->detect_zeroes;
        block_options_free(bs->options);
        bs->options = node->given;
        node->given = NULL;
    }
    for (guint i = queue->nodes->len; i > 0; i--) {
        ReopenNode *node = g_ptr_array_index(queue->nodes, i - 1);
        int ret = bdrv_co_refresh_length(node->state.bs);

        if (ret < 0) {
            g_warning("Node '%s': could not get the length after reopen: %s",
                      node->state.bs->node_name, g_strerror(-ret));
        }
        bdrv_refresh_limits_above(node->state.bs);
        dirty_bitmaps_follow_mode(node->state.bs);
    }
}

static void reopen_abort(BdrvReopenQueue *queue)
{
    for (guint i = queue->nodes->len; i > 0; i--) {
        ReopenNode *node = g_ptr_array_index(queue->nodes, i - 1);

        if (node->prepared && node->state.bs->drv->reopen_abort) {
            node->state.bs->drv->reopen_abort(&node->state);
        }
        dirty_bitmaps_follow_mode(node->state.bs);
    }
}

static int coroutine_fn reopen_drained(BdrvReopenQueue *queue, GError **errp)
{
    int ret;

    for (guint i = 0; i < queue->nodes->len; i++) {
        ret = compute_options(queue, g_ptr_array_index(queue->nodes, i), errp);
        if (ret < 0) {
            return ret;
        }
    }
    ret = 0;
    for (guint i = 0; i < queue->nodes->len && ret == 0; i++) {
        ret = prepare_node(g_ptr_array_index(queue->nodes, i), errp);
    }
    if (ret == 0) {
        ret = reopen_change(queue, errp);
    }
    if (ret < 0) {
        reopen_abort(queue);
        return ret;
    }
    reopen_commit(queue);
    return 0;
}

/* All nodes that the queue touches, each with a reference. */
static void collect_nodes(BdrvReopenQueue *queue, GPtrArray *nodes)
{
    for (guint i = 0; i < queue->nodes->len; i++) {
        ReopenNode *node = g_ptr_array_index(queue->nodes, i);

        g_ptr_array_add(nodes, bdrv_ref(node->state.bs));
        for (guint j = 0; j < node->replace->len; j++) {
            ReplaceChild *replace = g_ptr_array_index(node->replace, j);

            g_ptr_array_add(nodes, bdrv_ref(replace->child->bs));
            g_ptr_array_add(nodes, bdrv_ref(replace->bs));
        }
    }
}

/*
 * Take the control lock at a moment when nobody else has drained a node of
 * @queue: drivers flush and read while they get ready.  Those nested below are
 * seen by the nodes above them: a section below covers what is above.
 */
static void coroutine_fn control_begin(BdrvReopenQueue *queue,
                                       GPtrArray *works)
{
    BlockGraph *graph = queue->graph;

    for (guint i = 0; i < queue->nodes->len; i++) {
        ReopenNode *node = g_ptr_array_index(queue->nodes, i);

        g_ptr_array_add(works, bdrv_work_new(node->state.bs));
    }
    drain_control_begin(graph, works, true);
}

static void control_work_free(void *opaque)
{
    drain_own_end(opaque);
    bdrv_work_free(opaque);
}

int coroutine_fn bdrv_co_reopen_multiple(BdrvReopenQueue *queue,
                                         GError **errp)
{
    BlockGraph *graph = queue->graph;
    g_autoptr(GPtrArray) drained = g_ptr_array_new();
    g_autoptr(GPtrArray) held = g_ptr_array_new();
    GPtrArray *works = g_ptr_array_new_with_free_func(control_work_free);
    int ret;

    control_begin(queue, works);
    ret = plan_children(queue, errp);
    if (ret == 0) {
        collect_nodes(queue, drained);
        for (guint i = 0; i < drained->len; i++) {
            bdrv_co_drained_begin(g_ptr_array_index(drained, i));
        }
        ret = reopen_drained(queue, errp);
        for (guint i = drained->len; i > 0; i--) {
            bdrv_drained_end(g_ptr_array_index(drained, i - 1));
        }
    }
    co_mutex_unlock(&graph->control_lock);
    g_ptr_array_unref(works);
    queue_take_refs(queue, held);
    for (guint i = 0; i < held->len; i++) {
        bdrv_co_unref(g_ptr_array_index(held, i));
    }
    for (guint i = 0; i < drained->len; i++) {
        bdrv_co_unref(g_ptr_array_index(drained, i));
    }
    return ret;
}
