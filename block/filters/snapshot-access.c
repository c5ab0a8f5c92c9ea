/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * snapshot-access: a disk that is the point in time that the node below keeps
 * (copy-before-write).
 *
 * Its requests go to the snapshot methods of that node, past the requests of
 * guests; the node stays below it for as long as it is open.  It takes no
 * writes.  Discards, which say that a part of the snapshot was fetched and is
 * not needed any more, need read-only=off and discard=unmap.
 */
#include <errno.h>

#include "block/drivers.h"

static const BlockOption snapshot_access_options[] = {
    { .name = "file", .type = BLOCK_OPTION_CHILD,
      .help = "node that keeps a point in time" },
    { .type = BLOCK_OPTION_END },
};

static BlockDriverState *kept_by(BlockDriverState *bs)
{
    return bdrv_child_bs(bdrv_primary_child(bs));
}

static const BlockSnapshotMethods *methods(BlockDriverState *bs)
{
    return bdrv_snapshot_methods(kept_by(bs));
}

static int coroutine_fn snapshot_access_open(BlockDriverState *bs,
                                             BlockOptions *options,
                                             unsigned flags, GError **errp)
{
    BdrvChild *file = bdrv_co_open_child(bs, options, "file",
                                         BDRV_CHILD_DATA | BDRV_CHILD_PRIMARY,
                                         true, errp);

    if (!file) {
        return -EINVAL;
    }
    if (!methods(bs)) {
        return block_error(errp, EINVAL, "Node '%s': node '%s' (driver '%s') "
                           "keeps no point in time", bdrv_node_name(bs),
                           bdrv_node_name(kept_by(bs)),
                           bdrv_driver_name(kept_by(bs)));
    }
    /* Another node there is another point in time, or none. */
    bdrv_freeze_child(file);
    return 0;
}

static void coroutine_fn snapshot_access_close(BlockDriverState *bs)
{
    bdrv_unfreeze_child(bdrv_primary_child(bs));
}

/* We read what others may change. */
static void snapshot_access_child_perm(BlockDriverState *bs,
                                       BdrvChildRole role,
                                       const BlockPerm *parent,
                                       BlockPerm *ret_child)
{
    ret_child->used = BLK_PERM_CONSISTENT_READ;
    ret_child->shared = BLK_PERM_ALL;
}

static int64_t coroutine_fn snapshot_access_getlength(BlockDriverState *bs)
{
    return methods(bs)->length(kept_by(bs));
}

static int coroutine_fn snapshot_access_preadv(BlockDriverState *bs,
                                               const BlockIO *io)
{
    return methods(bs)->preadv(kept_by(bs), io);
}

/* A point in time does not change. */
static int coroutine_fn snapshot_access_refuse(BlockDriverState *bs,
                                               const BlockIO *io)
{
    return -EACCES;
}

static int coroutine_fn snapshot_access_pdiscard(BlockDriverState *bs,
                                                 const BlockIO *io)
{
    return methods(bs)->pdiscard(kept_by(bs), io);
}

static int coroutine_fn snapshot_access_block_status(BlockDriverState *bs,
                                                     const BlockIO *io,
                                                     BlockExtent *ret)
{
    return methods(bs)->block_status(kept_by(bs), io, ret);
}

const BlockDriver block_driver_snapshot_access = {
    .struct_size = sizeof(BlockDriver),
    .name = "snapshot-access",
    .kind = BLOCK_DRIVER_FORMAT,
    .options = snapshot_access_options,
    .open = snapshot_access_open,
    .close = snapshot_access_close,
    .child_perm = snapshot_access_child_perm,
    .getlength = snapshot_access_getlength,
    .preadv = snapshot_access_preadv,
    .pwritev = snapshot_access_refuse,
    .pwrite_zeroes = snapshot_access_refuse,
    .pdiscard = snapshot_access_pdiscard,
    .block_status = snapshot_access_block_status,
};
