/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Edges: made, removed and redirected as steps of a transaction.
 *
 * A step takes effect at once, so that permissions can be computed on the new
 * shape; abort restores the old one.  References move with the edges: each
 * edge counts one on its node, and a node that loses its last reference this
 * way is kept by the reference that the caller of the transaction holds.
 */
#include "block/graph/graph-int.h"

#include <errno.h>

#include "block/graph/transaction.h"

/* --- linking -------------------------------------------------------------- */

void graph_choose_length(BlockDriverState *bs)
{
    if (bs->length_is_childs) {
        bs->length_from = bs->primary;
    } else {
        bs->length_from = bs->drv->getlength ? NULL : bs->filtered;
    }
}

/* The quick pointers by role of a node. */
static void set_role_pointers(BdrvChild *child, bool present)
{
    BlockDriverState *bs = child->parent;

    if (!bs) {
        child->root->child = present ? child : NULL;
        return;
    }
    if (child->role & BDRV_CHILD_PRIMARY) {
        g_assert(!present || !bs->primary);
        bs->primary = present ? child : NULL;
    }
    if (child->role & BDRV_CHILD_FILTERED) {
        g_assert(!present || !bs->filtered);
        bs->filtered = present ? child : NULL;
    }
    if (child->role & BDRV_CHILD_COW) {
        g_assert(!present || !bs->cow);
        bs->cow = present ? child : NULL;
    }
    graph_choose_length(bs);
}

/*
 * Where an edge stands in the lists of its two ends: before these.  Steps are
 * undone in reverse order, so at abort the lists are as they were when the edge
 * was taken out, and it can go back to its place.
 */
typedef struct EdgePlace {
    ListHead *in_node;
    ListHead *in_parent;
} EdgePlace;

static EdgePlace edge_place(const BdrvChild *child)
{
    return (EdgePlace){ child->node_link.next, child->parent_link.next };
}

static EdgePlace edge_last_place(const BdrvChild *child)
{
    return (EdgePlace){ &child->bs->parents,
                        child->parent ? &child->parent->children : NULL };
}

static void edge_link(BdrvChild *child, EdgePlace place)
{
    list_append(place.in_node, &child->node_link);
    if (child->parent) {
        list_append(place.in_parent, &child->parent_link);
    }
    set_role_pointers(child, true);
}

static void edge_unlink(BdrvChild *child)
{
    set_role_pointers(child, false);
    list_remove(&child->node_link);
    list_remove(&child->parent_link);
}

void edge_set_nested(BdrvChild *child, BlockDriverState *bs)
{
    if (child->nested) {
        child->nested->nested_in = NULL;
    }
    g_assert(!bs || !bs->nested_in);
    child->nested = bs;
    if (bs) {
        bs->nested_in = child;
    }
}

bool edge_reaches_nested(const BdrvChild *child)
{
    BlockDriverState *bs = child->bs;

    while (bs != child->nested && bs->filtered) {
        bs = bs->filtered->bs;
    }
    return bs == child->nested;
}

static void edge_free(BdrvChild *child)
{
    g_assert(child->frozen == 0);
    edge_set_nested(child, NULL);
    g_free(child->name);
    g_free(child);
}

/*
 * An edge gives its reference back without closing the node: closing yields,
 * a transaction must not.  Somebody holds another reference; see the callers.
 */
static void drop_edge_ref(BlockDriverState *bs)
{
    g_assert(bs->refs > 1);
    bs->refs--;
}

/* --- attach --------------------------------------------------------------- */

typedef struct AttachStep {
    BdrvChild *child;
} AttachStep;

static void attach_abort(void *opaque)
{
    BdrvChild *child = ((AttachStep *)opaque)->child;

    edge_unlink(child);
    drop_edge_ref(child->bs);
    drain_graph_changed(child->bs->graph);
    edge_free(child);
}

static const TransactionStep attach_step = { .abort = attach_abort };

BdrvChild *edge_attach(BlockDriverState *parent, BlockRoot *root,
                       BlockDriverState *bs, const char *name,
                       BdrvChildRole role, Transaction *txn)
{
    BdrvChild *child = g_new0(BdrvChild, 1);
    AttachStep *step = g_new(AttachStep, 1);

    g_assert(!parent != !root);
    g_assert(!parent || !graph_reaches(bs, parent));
    child->name = g_strdup(name);
    child->role = role;
    child->parent = parent;
    child->root = root;
    child->bs = bdrv_ref(bs);
    child->perm.shared = BLK_PERM_ALL;
    list_init(&child->parent_link);
    list_init(&child->node_link);
    edge_link(child, edge_last_place(child));
    drain_graph_changed(bs->graph);
    step->child = child;
    transaction_add(txn, &attach_step, step);
    return child;
}

/* --- detach --------------------------------------------------------------- */

typedef struct DetachStep {
    BdrvChild *child;
    EdgePlace place;
} DetachStep;

static void detach_commit(void *opaque)
{
    BdrvChild *child = ((DetachStep *)opaque)->child;

    drop_edge_ref(child->bs);
    edge_free(child);
}

static void detach_abort(void *opaque)
{
    DetachStep *step = opaque;

    edge_link(step->child, step->place);
    drain_graph_changed(step->child->bs->graph);
}

static const TransactionStep detach_step = {
    .commit = detach_commit,
    .abort = detach_abort,
};

void edge_detach(BdrvChild *child, Transaction *txn)
{
    DetachStep *step = g_new(DetachStep, 1);

    g_assert(child->frozen == 0);
    step->child = child;
    step->place = edge_place(child);
    edge_unlink(child);
    drain_graph_changed(child->bs->graph);
    transaction_add(txn, &detach_step, step);
}

/* --- replace -------------------------------------------------------------- */

typedef struct ReplaceStep {
    BdrvChild *child;
    BlockDriverState *old_bs;
    EdgePlace old_place;
} ReplaceStep;

static void edge_redirect(BdrvChild *child, BlockDriverState *bs,
                          ListHead *before)
{
    list_remove(&child->node_link);
    child->bs = bs;
    list_append(before, &child->node_link);
    drain_graph_changed(bs->graph);
}

static void replace_commit(void *opaque)
{
    drop_edge_ref(((ReplaceStep *)opaque)->old_bs);
}

static void replace_abort(void *opaque)
{
    ReplaceStep *step = opaque;
    BlockDriverState *new_bs = step->child->bs;

    edge_redirect(step->child, step->old_bs, step->old_place.in_node);
    drop_edge_ref(new_bs);
}

static const TransactionStep replace_step = {
    .commit = replace_commit,
    .abort = replace_abort,
};

void edge_replace(BdrvChild *child, BlockDriverState *bs, Transaction *txn)
{
    ReplaceStep *step = g_new(ReplaceStep, 1);

    g_assert(child->frozen == 0);
    g_assert(!child->parent || !graph_reaches(bs, child->parent));
    step->child = child;
    step->old_bs = child->bs;
    step->old_place = edge_place(child);
    edge_redirect(child, bdrv_ref(bs), &bs->parents);
    transaction_add(txn, &replace_step, step);
}

/* --- freezing ------------------------------------------------------------- */

int edge_check_thawed(const BdrvChild *child, GError **errp)
{
    g_autofree char *user = NULL;

    if (child->frozen == 0) {
        return 0;
    }
    user = bdrv_child_user(child);
    return block_error(errp, EBUSY, "Cannot change the link from %s to node "
                       "'%s': it is frozen by a job, or by who uses it",
                       user, child->bs->node_name);
}

void bdrv_freeze_child(BdrvChild *child)
{
    child->frozen++;
}

void bdrv_unfreeze_child(BdrvChild *child)
{
    g_assert(child->frozen > 0);
    child->frozen--;
}

/* The edge by which a chain goes on below @bs. */
static BdrvChild *chain_child(BlockDriverState *bs)
{
    return bs->filtered ? bs->filtered : bs->cow;
}

int bdrv_freeze_chain(BlockDriverState *bs, BlockDriverState *base,
                      GError **errp)
{
    BlockDriverState *p;

    for (p = bs; p && p != base && chain_child(p); p = chain_child(p)->bs) {
        if (edge_check_thawed(chain_child(p), errp) < 0) {
            return -EBUSY;
        }
    }
    if (base && p != base) {
        return block_error(errp, EINVAL, "Node '%s' is not in the chain below "
                           "node '%s'", base->node_name, bs->node_name);
    }
    for (p = bs; p && p != base && chain_child(p); p = chain_child(p)->bs) {
        bdrv_freeze_child(chain_child(p));
    }
    return 0;
}

void bdrv_unfreeze_chain(BlockDriverState *bs, BlockDriverState *base)
{
    BlockDriverState *p;

    for (p = bs; p && p != base && chain_child(p); p = chain_child(p)->bs) {
        bdrv_unfreeze_child(chain_child(p));
    }
}

void bdrv_reduce_child_role(BdrvChild *child, BdrvChildRole role)
{
    /* The node's permissions are computed anew at the end of its open. */
    g_assert(child->parent && child->parent->state == BDRV_STATE_OPENING);
    g_assert(!(role & ~child->role));
    g_assert(!((role ^ child->role) &
               ~(BDRV_CHILD_DATA | BDRV_CHILD_METADATA)));
    child->role = role;
}
