/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Permissions: what each user of a node does, and lets others do.
 *
 * P1  For any two edges to one node, what one uses the other shares.
 * P2  A node's permissions are the union of what its edges use and the
 *     intersection of what they share.
 * P3  The permissions of an edge from a node follow from those of the node by
 *     its driver's rule (child_perm), those from a root are the root's wish.
 * P4  A node that is read-only gives no WRITE, WRITE_UNCHANGED or RESIZE.
 * P5  A node with copy-on-read=on writes when it is read: it is not read-only,
 *     and if it is used, a filter uses WRITE_UNCHANGED of what it filters, and
 *     a node with a backing file what it would use for such writes of users.
 *
 * P6  An edge that is unguarded shares everything: a job writes below it what
 *     its parent hides (commit.c).
 * P7  A filter may copy what is about to change (an edge without a role) to a
 *     node that shows what it filters, where that has nothing of its own yet.
 *     Such an edge, too, lets others write the backing file of that node: they
 *     do so through the filter, whose copies wait for who reads there.
 *
 * A refresh walks from the changed nodes down, parents first, computes all of
 * it on the new shape, lets drivers prepare (take file locks), and adds the
 * way back to the transaction.
 */
#include "block/graph/graph-int.h"

#include <errno.h>

#include "block/graph/transaction.h"

static const char *const perm_names[] = {
    "consistent read", "write", "write unchanged", "resize",
};

char *bdrv_perm_names(uint64_t perm)
{
    GString *text = g_string_new(NULL);

    for (unsigned i = 0; i < G_N_ELEMENTS(perm_names); i++) {
        if (perm & (1u << i)) {
            g_string_append_printf(text, "%s%s", text->len ? ", " : "",
                                   perm_names[i]);
        }
    }
    return g_string_free(text, FALSE);
}

/* --- the default rules ---------------------------------------------------- */

/* A backing file is only read, and must not change what we show through. */
static void default_perms_cow(const BlockPerm *parent, BlockPerm *child)
{
    child->used = parent->used & BLK_PERM_CONSISTENT_READ;
    child->shared = BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE_UNCHANGED;
    if (parent->shared & BLK_PERM_WRITE) {
        child->shared |= BLK_PERM_WRITE | BLK_PERM_RESIZE;
    }
}

static void default_perms_storage(BlockDriverState *bs, BdrvChildRole role,
                                  const BlockPerm *parent, BlockPerm *child)
{
    *child = *parent;
    if (role & BDRV_CHILD_METADATA) {
        /* The format updates its tables whenever it is writable, and no one
         * else may touch them. */
        if (!bdrv_is_read_only(bs)) {
            child->used |= BLK_PERM_WRITE | BLK_PERM_RESIZE;
        }
        child->used |= BLK_PERM_CONSISTENT_READ;
        child->shared &= ~(uint64_t)(BLK_PERM_WRITE | BLK_PERM_RESIZE);
    }
    if (role & BDRV_CHILD_DATA) {
        /* What changes nothing that we show, changes what the file has. */
        if (child->used & BLK_PERM_WRITE_UNCHANGED) {
            child->used |= BLK_PERM_WRITE;
        }
        /* A guest's write may grow the file; others must not resize it. */
        if (child->used & BLK_PERM_WRITE) {
            child->used |= BLK_PERM_RESIZE;
        }
        child->shared &= ~(uint64_t)BLK_PERM_RESIZE;
    }
}

void bdrv_default_perms(BlockDriverState *bs, BdrvChildRole role,
                        const BlockPerm *parent, BlockPerm *ret_child)
{
    if (role & BDRV_CHILD_FILTERED) {
        *ret_child = *parent;
    } else if (role & BDRV_CHILD_COW) {
        default_perms_cow(parent, ret_child);
    } else {
        default_perms_storage(bs, role, parent, ret_child);
    }
}

/* --- steps ---------------------------------------------------------------- */

typedef struct EdgePermStep {
    BdrvChild *child;
    BlockPerm old;
} EdgePermStep;

static void edge_perm_abort(void *opaque)
{
    EdgePermStep *step = opaque;

    step->child->perm = step->old;
}

static const TransactionStep edge_perm_step = { .abort = edge_perm_abort };

static void set_edge_perm(BdrvChild *child, const BlockPerm *perm,
                          Transaction *txn)
{
    EdgePermStep *step = g_new(EdgePermStep, 1);

    step->child = child;
    step->old = child->perm;
    child->perm = *perm;
    transaction_add(txn, &edge_perm_step, step);
}

typedef struct NodePermStep {
    BlockDriverState *bs;
    BlockPerm old;
    bool prepared;
} NodePermStep;

/* Whether reads of @bs may make writes that change nothing.  P5 */
static bool may_copy(const BlockDriverState *bs)
{
    return (bs->perm.used & (BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED)) ||
           ((bs->open_flags & BDRV_O_COPY_ON_READ) && bs->perm.used);
}

static void node_perm_commit(void *opaque)
{
    NodePermStep *step = opaque;
    BlockDriverState *bs = step->bs;

    atomic_store(&bs->may_copy, may_copy(bs));
    if (step->prepared && bs->drv->perm_commit) {
        bs->drv->perm_commit(bs, &bs->perm);
    }
}

static void node_perm_abort(void *opaque)
{
    NodePermStep *step = opaque;

    if (!SIM_PLANTED(14)) {
        step->bs->perm = step->old;
    }
    if (step->prepared && step->bs->drv->perm_abort) {
        step->bs->drv->perm_abort(step->bs);
    }
}

static const TransactionStep node_perm_step = {
    .commit = node_perm_commit,
    .abort = node_perm_abort,
};

/* --- checks --------------------------------------------------------------- */

/* P1 for one pair; the error names both sides and the permission. */
static int check_pair(const BdrvChild *a, const BdrvChild *b, GError **errp)
{
    uint64_t refused = a->perm.used & ~b->perm.shared;
    g_autofree char *user = NULL;
    g_autofree char *other = NULL;
    g_autofree char *names = NULL;

    if (!refused) {
        return 0;
    }
    user = bdrv_child_user(a);
    other = bdrv_child_user(b);
    names = bdrv_perm_names(refused);
    return block_error(errp, EPERM, "Permission conflict on node '%s': %s "
                       "uses '%s', which %s does not share",
                       a->bs->node_name, user, names, other);
}

/*
 * P1 over all edges.  Not quadratic where all goes well: only an edge that
 * conflicts with the sum of those before it is compared one by one.
 */
static int check_conflicts(BlockDriverState *bs, GError **errp)
{
    BlockPerm sum = { .used = 0, .shared = BLK_PERM_ALL };

    LIST_FOREACH(link, &bs->parents) {
        BdrvChild *child = LIST_ENTRY(link, BdrvChild, node_link);

        if (!(child->perm.used & ~sum.shared) &&
            !(sum.used & ~child->perm.shared)) {
            sum.used |= child->perm.used;
            sum.shared &= child->perm.shared;
            continue;
        }
        for (ListHead *p = bs->parents.next; p != link; p = p->next) {
            BdrvChild *before = LIST_ENTRY(p, BdrvChild, node_link);

            if (check_pair(child, before, errp) < 0 ||
                check_pair(before, child, errp) < 0) {
                return -EPERM;
            }
        }
        g_assert_not_reached();
    }
    return 0;
}

/* P2 */
static BlockPerm cumulative(BlockDriverState *bs)
{
    BlockPerm sum = { .used = 0, .shared = BLK_PERM_ALL };

    LIST_FOREACH(link, &bs->parents) {
        BdrvChild *child = LIST_ENTRY(link, BdrvChild, node_link);

        sum.used |= child->perm.used;
        sum.shared &= child->perm.shared;
    }
    return sum;
}

/* P4; the first writer found is named. */
static int check_read_only(BlockDriverState *bs, uint64_t used, GError **errp)
{
    uint64_t refused = used & (BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED |
                               BLK_PERM_RESIZE);

    if (!refused || !bdrv_is_read_only(bs)) {
        return 0;
    }
    LIST_FOREACH(link, &bs->parents) {
        BdrvChild *child = LIST_ENTRY(link, BdrvChild, node_link);
        g_autofree char *user = NULL;
        g_autofree char *names = NULL;

        if (child->perm.used & refused) {
            user = bdrv_child_user(child);
            names = bdrv_perm_names(child->perm.used & refused);
            return block_error(errp, EACCES, "Node '%s' is read-only, but %s "
                               "needs '%s'", bs->node_name, user, names);
        }
    }
    g_assert_not_reached();
}

/* P5 */
static int check_copy_on_read(BlockDriverState *bs, GError **errp)
{
    if (!(bs->open_flags & BDRV_O_COPY_ON_READ) || !bdrv_is_read_only(bs)) {
        return 0;
    }
    return block_error(errp, EACCES, "Node '%s' is read-only, so it cannot "
                       "have copy-on-read=on", bs->node_name);
}

/* --- the refresh ---------------------------------------------------------- */

/* P7: whether that is all that the users of @bs ask for. */
static bool backing_may_change(BlockDriverState *bs)
{
    LIST_FOREACH(link, &bs->parents) {
        BdrvChild *child = LIST_ENTRY(link, BdrvChild, node_link);

        if (!(child->perm.shared & BLK_PERM_WRITE) && !child->shows_source) {
            return false;
        }
    }
    return true;
}

/* The edges to the children of @bs, whose own are @sum. */
static void set_child_perms(BlockDriverState *bs, const BlockPerm *sum,
                            Transaction *txn)
{
    bool copies = (bs->open_flags & BDRV_O_COPY_ON_READ) && sum->used;
    BlockPerm own = *sum;

    if (copies && bs->cow) {
        own.used |= BLK_PERM_WRITE_UNCHANGED;                   /* P5 */
    }
    LIST_FOREACH(link, &bs->children) {
        BdrvChild *child = LIST_ENTRY(link, BdrvChild, parent_link);
        BlockPerm perm;

        if (bs->drv->child_perm) {
            bs->drv->child_perm(bs, child->role, &own, &perm);
        } else {
            bdrv_default_perms(bs, child->role, &own, &perm);
        }
        if (copies && (child->role & BDRV_CHILD_FILTERED)) {
            perm.used |= BLK_PERM_WRITE_UNCHANGED;              /* P5 */
        }
        if (child == bs->cow && backing_may_change(bs)) {
            perm.shared |= BLK_PERM_WRITE | BLK_PERM_RESIZE;    /* P7 */
        }
        if ((bs->open_flags & BDRV_O_FORCE_SHARE) || child->unguarded) {
            perm.shared = BLK_PERM_ALL;                         /* P6 */
        }
        set_edge_perm(child, &perm, txn);                       /* P3 */
    }
}

static int refresh_node(BlockDriverState *bs, Transaction *txn, GError **errp)
{
    BlockPerm sum;
    NodePermStep *step;
    int ret;

    if (check_conflicts(bs, errp) < 0) {
        return -EPERM;
    }
    sum = cumulative(bs);
    if (check_read_only(bs, sum.used, errp) < 0) {
        return -EACCES;
    }
    ret = check_copy_on_read(bs, errp);
    if (ret < 0) {
        return ret;
    }
    step = g_new0(NodePermStep, 1);
    step->bs = bs;
    step->old = bs->perm;
    bs->perm = sum;
    transaction_add(txn, &node_perm_step, step);
    if (bs->drv->perm_prepare) {
        ret = bs->drv->perm_prepare(bs, &sum, errp);
        if (ret < 0) {
            return ret;
        }
    }
    step->prepared = true;
    ret = SIM_REFUSE("graph.perm", bs->node_name);
    if (ret < 0) {
        return block_error_errno(errp, -ret, "Node '%s': could not change "
                                 "the permissions", bs->node_name);
    }
    set_child_perms(bs, &sum, txn);
    return 0;
}

int perm_refresh(GPtrArray *nodes, Transaction *txn, GError **errp)
{
    g_autoptr(GPtrArray) order = graph_below(nodes);

    for (guint i = 0; i < order->len; i++) {
        int ret = refresh_node(g_ptr_array_index(order, i), txn, errp);

        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

int perm_refresh_one(BlockDriverState *bs, Transaction *txn, GError **errp)
{
    g_autoptr(GPtrArray) nodes = g_ptr_array_new();

    g_ptr_array_add(nodes, bs);
    return perm_refresh(nodes, txn, errp);
}

/* The driver keeps what it has if it cannot give it back. */
static void release_node(BlockDriverState *bs, Transaction *txn)
{
    NodePermStep *step = g_new0(NodePermStep, 1);
    g_autoptr(GError) error = NULL;
    int ret = 0;

    step->bs = bs;
    step->old = bs->perm;
    bs->perm = cumulative(bs);
    transaction_add(txn, &node_perm_step, step);
    if (bs->drv->perm_prepare) {
        ret = bs->drv->perm_prepare(bs, &bs->perm, &error);
    }
    step->prepared = ret == 0;
    if (ret < 0) {
        g_warning("%s", error->message);
    }
    set_child_perms(bs, &bs->perm, txn);
}

void perm_release(BlockDriverState *bs, Transaction *txn)
{
    g_autoptr(GPtrArray) nodes = g_ptr_array_new();
    g_autoptr(GPtrArray) order = NULL;

    g_ptr_array_add(nodes, bs);
    order = graph_below(nodes);
    for (guint i = 0; i < order->len; i++) {
        release_node(g_ptr_array_index(order, i), txn);
    }
}

void edge_set_unguarded(BdrvChild *child, bool on)
{
    Transaction *txn = transaction_new();

    /* To share more conflicts with nobody, and who sets it back has ended what
     * it did under it. */
    child->unguarded = on;
    perm_release(child->parent, txn);
    transaction_commit(txn);
}
