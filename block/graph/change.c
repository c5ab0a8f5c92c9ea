/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Changes of the graph's shape.
 *
 * Each operation: hold the control lock, when nobody else has to find the graph
 * as it is (drain.c, D7), drain, then check and change in one transaction that
 * does not yield, then let requests go on.  What was found before the drain is
 * looked at again after it.
 */
#include "block/graph/graph-int.h"

#include <errno.h>

#include "block/graph/transaction.h"

/* End @txn, which has changed edges to @bs: both shape and permissions. */
static int end_change(Transaction *txn, GPtrArray *nodes, BlockDriverState *bs,
                      GError **errp)
{
    int ret = graph_check_height(bs, errp);

    if (ret == 0) {
        ret = perm_refresh(nodes, txn, errp);
    }
    transaction_end(txn, ret);
    if (ret == 0) {
        bdrv_refresh_limits_above(bs);
    }
    return ret;
}

/*
 * Which edges to @from are to lead to @to: all but those from @to itself and
 * from what is below @to, which would close a cycle.
 */
static int edges_to_move(BlockDriverState *from, BlockDriverState *to,
                         GPtrArray *edges, GError **errp)
{
    LIST_FOREACH(link, &from->parents) {
        BdrvChild *child = LIST_ENTRY(link, BdrvChild, node_link);

        if (child->parent && graph_reaches(to, child->parent)) {
            continue;
        }
        if (edge_check_thawed(child, errp) < 0) {
            return -EBUSY;
        }
        g_ptr_array_add(edges, child);
    }
    return 0;
}

/* @from and @to are drained. */
static int replace_node_drained(BlockDriverState *from, BlockDriverState *to,
                                GError **errp)
{
    g_autoptr(GPtrArray) edges = g_ptr_array_new();
    g_autoptr(GPtrArray) nodes = g_ptr_array_new();
    Transaction *txn;
    int ret;

    ret = edges_to_move(from, to, edges, errp);
    if (ret < 0) {
        return ret;
    }
    txn = transaction_new();
    for (guint i = 0; i < edges->len; i++) {
        edge_replace(g_ptr_array_index(edges, i), to, txn);
    }
    g_ptr_array_add(nodes, to);
    g_ptr_array_add(nodes, from);
    return end_change(txn, nodes, to, errp);
}

static void coroutine_fn drain_both(BlockDriverState *a, BlockDriverState *b)
{
    bdrv_co_drained_begin(a);
    bdrv_co_drained_begin(b);
}

static void end_both(BlockDriverState *a, BlockDriverState *b)
{
    bdrv_drained_end(b);
    bdrv_drained_end(a);
}

/* A node that takes others' place must show at least what they showed. */
static int check_length(BlockDriverState *from, BlockDriverState *to,
                        GError **errp)
{
    if (bdrv_length(to) >= bdrv_length(from)) {
        return 0;
    }
    return block_error(errp, EINVAL, "Node '%s' is shorter (%" G_GINT64_FORMAT
                       " bytes) than node '%s' (%" G_GINT64_FORMAT " bytes), "
                       "which it would replace", to->node_name,
                       bdrv_length(to), from->node_name, bdrv_length(from));
}

/* @back: @from has taken the place of @to, whatever their lengths. */
static int coroutine_fn replace_node(BlockDriverState *from,
                                     BlockDriverState *to, bool back,
                                     GraphCheck *check, void *opaque,
                                     GError **errp)
{
    int ret;

    bdrv_ref(from);
    bdrv_ref(to);
    drain_change_begin(from, to);
    drain_both(from, to);
    ret = back ? 0 : check_length(from, to, errp);
    if (ret == 0 && check) {
        ret = check(opaque, errp);
    }
    if (ret == 0) {
        ret = replace_node_drained(from, to, errp);
    }
    end_both(from, to);
    drain_change_end(from->graph);
    bdrv_co_unref(to);
    bdrv_co_unref(from);
    return ret;
}

int coroutine_fn graph_replace_node(BlockDriverState *from,
                                    BlockDriverState *to, GraphCheck *check,
                                    void *opaque, GError **errp)
{
    return replace_node(from, to, false, check, opaque, errp);
}

int coroutine_fn graph_put_back(BlockDriverState *from, BlockDriverState *to,
                                GError **errp)
{
    return replace_node(from, to, true, NULL, NULL, errp);
}

int coroutine_fn bdrv_co_replace_node(BlockDriverState *from,
                                      BlockDriverState *to, GError **errp)
{
    return graph_replace_node(from, to, NULL, NULL, errp);
}

/* The option by which the driver of @options takes its first child. */
static const char *first_child_key(const BlockOptions *options)
{
    const char *name = block_options_peek_str(options, "driver");
    const BlockDriver *drv = name ? bdrv_find_driver(name) : NULL;
    const BlockOption *option = drv ? drv->options : NULL;

    for (; option && option->type != BLOCK_OPTION_END; option++) {
        if (option->type == BLOCK_OPTION_CHILD) {
            return option->name;
        }
    }
    return "file";
}

/*
 * The child of @node whose place it takes, or NULL: @bs, or a filter that went
 * in between since @node was opened, which moved our edge up with all others.
 */
static BlockDriverState *insertion_point(BlockDriverState *node,
                                         BlockDriverState *bs)
{
    LIST_FOREACH(link, &node->children) {
        BlockDriverState *at = LIST_ENTRY(link, BdrvChild, parent_link)->bs;
        BlockDriverState *below = at;

        while (below != bs && below->filtered) {
            below = below->filtered->bs;
        }
        if (below == bs) {
            return at;
        }
    }
    return NULL;
}

/* @node, which is open above @bs, gets the parents of what it is above of, if
 * @check says 0 then. */
static int coroutine_fn insert_opened(BlockDriverState *node,
                                      BlockDriverState *bs, GraphCheck *check,
                                      void *opaque, GError **errp)
{
    BlockDriverState *at = insertion_point(node, bs);
    int ret;

    if (!at) {
        return block_error(errp, EINVAL, "Node '%s' does not have node '%s' as "
                           "a child, so it cannot be inserted above it",
                           node->node_name, bs->node_name);
    }
    bdrv_ref(at);
    drain_both(at, node);
    ret = check_length(at, node, errp);
    if (ret == 0 && check) {
        ret = check(opaque, errp);
    }
    if (ret == 0) {
        ret = replace_node_drained(at, node, errp);
    }
    end_both(at, node);
    bdrv_co_unref(at);
    return ret;
}

int coroutine_fn graph_insert_node(BlockDriverState *bs, BlockOptions *options,
                                   GraphCheck *check, void *opaque,
                                   BlockDriverState **ret_bs, GError **errp)
{
    const char *child_key = first_child_key(options);
    BlockGraph *graph = bs->graph;
    BlockDriverState *node;
    GError *error = NULL;
    int ret = 0;

    if (!block_options_has(options, "backing") &&
        !block_options_has(options, child_key)) {
        block_options_set_str(options, child_key, bs->node_name);
    }
    bdrv_ref(bs);
    /* Not under the lock: who has drained what it needs may want the lock. */
    node = bdrv_co_open(graph, options, &error);
    drain_change_begin(bs, node);
    if (!node) {
        ret = -block_error_code(error);
        g_propagate_error(errp, error);
    } else {
        ret = insert_opened(node, bs, check, opaque, errp);
    }
    drain_change_end(graph);
    if (ret < 0) {
        bdrv_co_unref(node);
    } else {
        *ret_bs = node;
    }
    bdrv_co_unref(bs);
    return ret;
}

int coroutine_fn bdrv_co_insert_node(BlockDriverState *bs,
                                     BlockOptions *options,
                                     BlockDriverState **ret_bs, GError **errp)
{
    return graph_insert_node(bs, options, NULL, NULL, ret_bs, errp);
}

/* The filter's parents move to what it filters, and it lets go of that. */
static int drop_filter_drained(BlockDriverState *bs, BlockDriverState *below,
                               GError **errp)
{
    g_autoptr(GPtrArray) edges = g_ptr_array_new();
    g_autoptr(GPtrArray) nodes = g_ptr_array_new();
    Transaction *txn;

    if (edge_check_thawed(bs->filtered, errp) < 0) {
        return -EBUSY;
    }
    LIST_FOREACH(link, &bs->parents) {
        BdrvChild *child = LIST_ENTRY(link, BdrvChild, node_link);

        if (edge_check_thawed(child, errp) < 0) {
            return -EBUSY;
        }
        g_ptr_array_add(edges, child);
    }
    txn = transaction_new();
    edge_detach(bs->filtered, txn);
    for (guint i = 0; i < edges->len; i++) {
        edge_replace(g_ptr_array_index(edges, i), below, txn);
    }
    g_ptr_array_add(nodes, below);
    g_ptr_array_add(nodes, bs);
    return end_change(txn, nodes, below, errp);
}

/* The caller's freeze ends where nobody can come before the change. */
static int drop_filter_held(BlockDriverState *bs, BlockDriverState *below,
                            bool held, GError **errp)
{
    int ret;

    if (held) {
        bdrv_unfreeze_child(bs->filtered);
    }
    ret = drop_filter_drained(bs, below, errp);
    if (held && ret < 0) {
        bdrv_freeze_child(bs->filtered);
    }
    return ret;
}

int coroutine_fn graph_drop_filter(BlockDriverState *bs, bool held,
                                   GError **errp)
{
    BlockDriverState *below;
    int ret;

    bdrv_ref(bs);
    drain_change_begin(bs, NULL);
    if (!bs->filtered) {
        ret = block_error(errp, EINVAL, "Node '%s' (driver '%s') is no filter",
                          bs->node_name, bs->drv->name);
        goto out;
    }
    below = bdrv_ref(bs->filtered->bs);
    drain_both(below, bs);
    ret = drop_filter_held(bs, below, held, errp);
    end_both(below, bs);
    bdrv_co_unref(below);
out:
    drain_change_end(bs->graph);
    bdrv_co_unref(bs);
    return ret;
}

int coroutine_fn bdrv_co_drop_filter(BlockDriverState *bs, GError **errp)
{
    return graph_drop_filter(bs, false, errp);
}

static int replace_child_drained(BdrvChild *child, BlockDriverState *bs,
                                 GError **errp)
{
    g_autoptr(GPtrArray) nodes = g_ptr_array_new();
    BlockDriverState *old = child->bs;
    Transaction *txn;

    if (edge_check_thawed(child, errp) < 0) {
        return -EBUSY;
    }
    if (child->parent && graph_reaches(bs, child->parent)) {
        return block_error(errp, ELOOP, "Making node '%s' a child of node "
                           "'%s' would create a cycle", bs->node_name,
                           child->parent->node_name);
    }
    txn = transaction_new();
    edge_replace(child, bs, txn);
    g_ptr_array_add(nodes, child->parent ? child->parent : bs);
    g_ptr_array_add(nodes, bs);
    g_ptr_array_add(nodes, old);
    return end_change(txn, nodes, bs, errp);
}

/* drain_change_begin() for @child; returns the node that it leads to then, with
 * a reference. */
static BlockDriverState *coroutine_fn
begin_at_child(BdrvChild *child, BlockDriverState *bs)
{
    BlockDriverState *old;

    for (;;) {
        old = bdrv_ref(child->bs);
        drain_change_begin(bs, old);
        if (child->bs == old) {
            return old;
        }
        /* It was moved while we waited: others may have to move it back. */
        drain_change_end(bs->graph);
        bdrv_co_unref(old);
    }
}

int coroutine_fn bdrv_co_replace_child(BdrvChild *child, BlockDriverState *bs,
                                       GError **errp)
{
    BlockDriverState *old;
    int ret;

    bdrv_ref(bs);
    old = begin_at_child(child, bs);
    drain_both(old, bs);
    ret = replace_child_drained(child, bs, errp);
    end_both(old, bs);
    drain_change_end(bs->graph);
    bdrv_co_unref(bs);
    bdrv_co_unref(old);
    return ret;
}

/* Attach or detach; a backing node that is exchanged is replaced. */
static int set_backing_drained(BlockDriverState *bs, BlockDriverState *backing,
                               GError **errp)
{
    g_autoptr(GPtrArray) nodes = g_ptr_array_new();
    Transaction *txn;

    if (bs->cow && backing) {
        return replace_child_drained(bs->cow, backing, errp);
    }
    if (bs->cow && edge_check_thawed(bs->cow, errp) < 0) {
        return -EBUSY;
    }
    if (backing && graph_reaches(backing, bs)) {
        return block_error(errp, ELOOP, "Making node '%s' a child of node "
                           "'%s' would create a cycle", backing->node_name,
                           bs->node_name);
    }
    txn = transaction_new();
    g_ptr_array_add(nodes, bs);
    if (bs->cow) {
        g_ptr_array_add(nodes, bs->cow->bs);
        edge_detach(bs->cow, txn);
    }
    if (backing) {
        edge_attach(bs, NULL, backing, "backing", BDRV_CHILD_COW, txn);
    }
    return end_change(txn, nodes, bs, errp);
}

/* The same for a link to a backing node. */
static int set_backing_held(BlockDriverState *bs, BlockDriverState *backing,
                            bool held, GError **errp)
{
    BdrvChild *edge = held ? bs->cow : NULL;
    int ret;

    if (edge) {
        bdrv_unfreeze_child(edge);
    }
    ret = set_backing_drained(bs, backing, errp);
    if (edge && ret < 0) {
        bdrv_freeze_child(edge);
    }
    return ret;
}

int coroutine_fn graph_set_backing(BlockDriverState *bs,
                                   BlockDriverState *backing,
                                   GraphCheck *check, void *opaque,
                                   GError **errp)
{
    BlockDriverState *old;
    int ret = 0;

    if (bs->drv->kind != BLOCK_DRIVER_FORMAT) {
        return block_error(errp, ENOTSUP, "Node '%s' (driver '%s') cannot have "
                           "a backing file", bs->node_name, bs->drv->name);
    }
    bdrv_ref(bs);
    if (backing) {
        bdrv_ref(backing);
    }
    drain_change_begin(bs, backing);
    bdrv_co_drained_begin(bs);
    old = bs->cow ? bdrv_ref(bs->cow->bs) : NULL;
    if (check) {
        ret = check(opaque, errp);
    }
    if (ret == 0) {
        ret = set_backing_held(bs, backing, check != NULL, errp);
    }
    bdrv_drained_end(bs);
    drain_change_end(bs->graph);
    bdrv_co_unref(old);
    bdrv_co_unref(backing);
    bdrv_co_unref(bs);
    return ret;
}

int coroutine_fn bdrv_co_set_backing(BlockDriverState *bs,
                                     BlockDriverState *backing, GError **errp)
{
    return graph_set_backing(bs, backing, NULL, NULL, errp);
}
