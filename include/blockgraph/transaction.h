/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Transactions: actions on several nodes at one moment, all or none.
 *
 * Names and arguments of actions are those of QEMU's command "transaction".
 */
#ifndef BLOCKGRAPH_TRANSACTION_H
#define BLOCKGRAPH_TRANSACTION_H

#include <blockgraph/block.h>

G_BEGIN_DECLS

/** What can be done. */
typedef enum BlockActionType {
    BLOCK_ACTION_ABORT,          /* fail, for tests */
    BLOCK_ACTION_BACKUP,         /* start a backup job */
    BLOCK_ACTION_SNAPSHOT,       /* put an overlay above a node */
    BLOCK_ACTION_BITMAP_ADD,
    BLOCK_ACTION_BITMAP_CLEAR,
    BLOCK_ACTION_BITMAP_DISABLE,
    BLOCK_ACTION_BITMAP_ENABLE,
    BLOCK_ACTION_BITMAP_MERGE,
    BLOCK_ACTION_BITMAP_REMOVE,
    BLOCK_ACTION_SNAPSHOT_INTERNAL, /* make one inside an image */
    BLOCK_ACTION_TYPES,
} BlockActionType;

/** "abort", "blockdev-backup", "blockdev-snapshot", "block-dirty-bitmap-add",
 * ..., NULL. */
BLOCK_API extern const char *const block_action_names[];

/** The arguments of actions of @type.  Thread: any. */
BLOCK_API const BlockOption *block_action_options(BlockActionType type);

/** One action. */
typedef struct BlockAction {
    BlockActionType type;
    BlockOptions *options; /* its arguments */
} BlockAction;

/**
 * Do the @nr @actions in their order while nothing is in flight at the nodes
 * that they name ("node", "device"): for requests they all happen at one
 * moment.  If one fails those before it are undone, last one first.  Without
 * actions, all nodes are drained, and go on.
 *
 * @actions  their options are taken over
 * @grouped  jobs that are started end together: all or none (the
 *           completion-mode of QEMU); else each by itself
 *
 * Returns 0, or a negative errno with @errp naming what has failed.
 *
 * Thread: main context.  Yields.
 */
BLOCK_API int coroutine_fn block_co_transaction(BlockGraph *graph,
                                                const BlockAction *actions,
                                                size_t nr, bool grouped,
                                                GError **errp);

/** block_co_transaction() for callers outside coroutines. */
BLOCK_API int block_transaction(BlockGraph *graph, const BlockAction *actions,
                                size_t nr, bool grouped, GError **errp);

G_END_DECLS

#endif /* BLOCKGRAPH_TRANSACTION_H */
