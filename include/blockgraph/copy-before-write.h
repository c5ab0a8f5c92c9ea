/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Points in time: the filter "copy-before-write" for those who drive it from
 * code, beyond what options and the driver "snapshot-access" give.
 */
#ifndef BLOCKGRAPH_COPY_BEFORE_WRITE_H
#define BLOCKGRAPH_COPY_BEFORE_WRITE_H

#include <blockgraph/block.h>

G_BEGIN_DECLS

/** A range that is held as it is. */
typedef struct BdrvFrozenRange BdrvFrozenRange;

/**
 * Hold @bytes at @offset of the source of the copy-before-write node @cbw: wait
 * for copies of it that are under way, and make guests that want to change it
 * wait until bdrv_cbw_thaw_range().  The caller may read the source and the
 * target meanwhile, and knows that what is in the one or the other stays there.
 * Ranges may overlap.  Freeze no range while holding another: a guest's write
 * may stand between them.
 *
 * Returns the range, or NULL with @errp set: -EINVAL, @cbw is no such node or
 * the range is not in it.
 *
 * Thread: any; inside a request or work that is counted at the node.  Yields.
 */
BLOCK_API BdrvFrozenRange *coroutine_fn
bdrv_co_cbw_freeze_range(BlockDriverState *cbw, int64_t offset, int64_t bytes,
                         GError **errp);

/** Let guests change the range again; frees @range.  Thread: any. */
BLOCK_API void bdrv_cbw_thaw_range(BdrvFrozenRange *range);

/**
 * Begin another point in time: nothing is copied, everything is read from the
 * source, an error that has broken the snapshot is forgotten.  What was outside
 * the bitmap stays outside.  The target keeps its content, which means nothing
 * any more.
 *
 * Returns 0, or -EINVAL with @errp set: @cbw is no such node, or its source has
 * another length than when it was opened.
 *
 * Thread: main context.  Drains the node, and so yields.
 */
BLOCK_API int coroutine_fn bdrv_co_cbw_checkpoint(BlockDriverState *cbw,
                                                  GError **errp);

/** bdrv_co_cbw_checkpoint() for callers outside coroutines. */
BLOCK_API int bdrv_cbw_checkpoint(BlockDriverState *cbw, GError **errp);

/**
 * The error (negative errno) that has broken the snapshot of @cbw, 0 if there
 * is none, or -EINVAL if @cbw is no copy-before-write node.  Thread: any.
 */
BLOCK_API int bdrv_cbw_snapshot_error(BlockDriverState *cbw);

G_END_DECLS

#endif /* BLOCKGRAPH_COPY_BEFORE_WRITE_H */
