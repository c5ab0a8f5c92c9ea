/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * BlockBackend: life, node, permissions.  Main context.
 */
#include "block/backend/backend-int.h"

#include <errno.h>
#include <string.h>

#include "block/graph/transaction.h"

BlockBackend *blk_new(BlockGraph *graph, const char *name,
                      const BlockPerm *perm)
{
    BlockBackend *blk = block_aligned_alloc(_Alignof(BlockBackend),
                                            sizeof(*blk));

    g_assert(name[0]);
    memset(blk, 0, sizeof(*blk));
    blk->graph = graph;
    blk->name = g_strdup(name);
    blk->what = g_strdup_printf("block backend '%s'", name);
    blk->perm = *perm;
    atomic_init(&blk->perm_used, perm->used);
    atomic_init(&blk->refs, 1);
    lock_init(&blk->stop_lock, LOCK_RANK_ROOT_GATE);
    root_init(&blk->root, graph, blk->what);
    return blk;
}

BlockBackend *blk_ref(BlockBackend *blk)
{
    unsigned before = atomic_fetch_add(&blk->refs, 1);

    g_assert(before > 0);
    return blk;
}

/* @blk is drained. */
static int insert_node(BlockBackend *blk, BlockDriverState *bs, GError **errp)
{
    Transaction *txn;
    BdrvChild *child;

    if (blk->root.child) {
        return block_error(errp, EBUSY, "Block backend '%s' already has node "
                           "'%s'", blk->name, blk->root.child->bs->node_name);
    }
    txn = transaction_new();
    child = edge_attach(NULL, &blk->root, bs, "root",
                        BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY, txn);
    child->perm = blk->perm;
    return transaction_end(txn, perm_refresh_one(bs, txn, errp));
}

int coroutine_fn blk_co_insert_bs(BlockBackend *blk, BlockDriverState *bs,
                                  GError **errp)
{
    int ret;

    bdrv_ref(bs);
    drain_root_begin(&blk->root);
    drain_revert_wait(bs);
    ret = insert_node(blk, bs, errp);
    drain_root_end(&blk->root);
    bdrv_co_unref(bs);
    return ret;
}

/*
 * Wait until nothing of @blk is in flight, nor at the gate.  A root without a
 * node is under no node's section, so its own gate is closed for that.
 */
static void coroutine_fn blk_wait_idle(BlockBackend *blk)
{
    do {
        root_close(&blk->root);
        while (root_in_flight(&blk->root) > 0) {
            co_queue_wait(&blk->graph->drain_waiters, NULL);
        }
        root_open(&blk->root);
        /* Opening has counted those that waited at the gate. */
    } while (root_in_flight(&blk->root) > 0);
}

/* Cut @blk, which is drained, off its node; returns that, or NULL. */
static BlockDriverState *detach_node(BlockBackend *blk)
{
    BdrvChild *child = blk->root.child;
    BlockDriverState *bs;
    Transaction *txn;

    if (!child) {
        return NULL;
    }
    bs = bdrv_ref(child->bs);
    txn = transaction_new();
    edge_detach(child, txn);
    /* One user less conflicts with nobody, and he goes in any case: also if a
     * driver keeps what it has, those below have one user less. */
    perm_release(bs, txn);
    transaction_commit(txn);
    return bs;
}

void coroutine_fn blk_co_remove_bs(BlockBackend *blk)
{
    BlockDriverState *bs;

    g_assert(aio_context_in_home(blk->graph->ctx));
    drain_root_begin(&blk->root);
    /* Only now: while we waited, others may have given us another node. */
    bs = detach_node(blk);
    drain_root_end(&blk->root);
    blk_abort_stopped(blk);
    bdrv_co_unref(bs);
}

static void coroutine_fn blk_co_free(BlockBackend *blk)
{
    blk_co_remove_bs(blk);
    blk_wait_idle(blk);
    root_destroy(&blk->root);
    blk_acct_destroy(blk);
    g_free(blk->name);
    g_free(blk->what);
    block_aligned_free(blk);
}

void coroutine_fn blk_co_unref(BlockBackend *blk)
{
    if (blk && atomic_fetch_sub(&blk->refs, 1) == 1) {
        blk_co_free(blk);
    }
}

BlockDriverState *blk_bs(BlockBackend *blk)
{
    return blk->root.child ? blk->root.child->bs : NULL;
}

const char *blk_name(const BlockBackend *blk)
{
    return blk->name;
}

int blk_set_perm_drained(BlockBackend *blk, const BlockPerm *perm,
                         GError **errp)
{
    BdrvChild *child = blk->root.child;
    BlockPerm old = blk->perm;
    Transaction *txn;
    int ret = 0;

    if (child) {
        txn = transaction_new();
        child->perm = *perm;
        ret = transaction_end(txn, perm_refresh_one(child->bs, txn, errp));
    }
    if (ret < 0) {
        child->perm = old;
        return ret;
    }
    blk->perm = *perm;
    atomic_store(&blk->perm_used, perm->used);
    return 0;
}

/* Until nobody has to find the node with the users that he has left it. */
static void coroutine_fn wait_for_undo(BlockBackend *blk)
{
    BlockDriverState *bs = NULL;

    while (blk_bs(blk) != bs) {
        bdrv_co_unref(bs);
        bs = blk_bs(blk) ? bdrv_ref(blk_bs(blk)) : NULL;
        if (bs) {
            drain_revert_wait(bs);
        }
    }
    bdrv_co_unref(bs);
}

int coroutine_fn blk_co_set_perm(BlockBackend *blk, const BlockPerm *perm,
                                 GError **errp)
{
    bool takes_away = blk->perm.used & ~perm->used;
    bool wants_more = (perm->used & ~blk->perm.used) ||
                      (blk->perm.shared & ~perm->shared);
    int ret;

    g_assert(aio_context_in_home(blk->graph->ctx));
    if (takes_away) {
        /* What was begun with a permission ends before others may have it. */
        drain_root_begin(&blk->root);
    }
    if (wants_more) {
        wait_for_undo(blk);
    }
    ret = blk_set_perm_drained(blk, perm, errp);
    if (takes_away) {
        drain_root_end(&blk->root);
    }
    return ret;
}

int64_t blk_getlength(BlockBackend *blk)
{
    int64_t length = -ENOMEDIUM;
    unsigned ticket;

    /* Outside the main context the node is safe only inside a request. */
    if (aio_context_in_home(blk->graph->ctx)) {
        return blk_bs(blk) ? bdrv_length(blk_bs(blk)) : -ENOMEDIUM;
    }
    if (!root_count(&blk->root, &ticket)) {
        root_leave(&blk->root, ticket);
        return -EAGAIN;
    }
    if (blk->root.child) {
        length = bdrv_length(blk->root.child->bs);
    }
    root_leave(&blk->root, ticket);
    return length;
}

void coroutine_fn blk_co_drained_begin(BlockBackend *blk)
{
    drain_root_begin(&blk->root);
}

void blk_drained_end(BlockBackend *blk)
{
    drain_root_end(&blk->root);
}

int64_t blk_in_flight(BlockBackend *blk)
{
    return root_in_flight(&blk->root);
}

void blk_set_write_through(BlockBackend *blk, bool on)
{
    atomic_store(&blk->write_through, on);
}
