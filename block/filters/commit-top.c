/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * commit-top: passes reads on, and lets nobody write.
 *
 * It stands above a layer whose content a commit job brings to a lower one:
 * what were written to the layer meanwhile would be lost.  Who reads goes
 * through, at every moment.  At the end the job puts the lower layer in its
 * place.
 *
 * That writes are refused is a matter of permissions, so it is found out when
 * somebody asks for them and not when the first one comes; there is no state.
 */
#include <errno.h>

#include "block/drivers.h"

#define CHANGES (BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED | BLK_PERM_RESIZE)

static const BlockOption commit_top_options[] = {
    { .name = "file", .type = BLOCK_OPTION_CHILD,
      .help = "layer that nobody writes to" },
    { .type = BLOCK_OPTION_END },
};

static int coroutine_fn commit_top_open(BlockDriverState *bs,
                                        BlockOptions *options, unsigned flags,
                                        GError **errp)
{
    return bdrv_co_open_child(bs, options, "file",
                              BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY, true,
                              errp)
               ? 0
               : -EINVAL;
}

static int commit_top_perm_prepare(BlockDriverState *bs, const BlockPerm *perm,
                                   GError **errp)
{
    g_autofree char *names = NULL;

    if (!(perm->used & CHANGES)) {
        return 0;
    }
    names = bdrv_perm_names(perm->used & CHANGES);
    return block_error(errp, EPERM, "Node '%s' (driver 'commit-top') does not "
                       "allow '%s': what is below it is being committed",
                       bdrv_node_name(bs), names);
}

const BlockDriver block_driver_commit_top = {
    .struct_size = sizeof(BlockDriver),
    .name = "commit-top",
    .kind = BLOCK_DRIVER_FILTER,
    .options = commit_top_options,
    .open = commit_top_open,
    .perm_prepare = commit_top_perm_prepare,
};
