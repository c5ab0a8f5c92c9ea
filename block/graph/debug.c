/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Break points: found at or below a node by walking down its main children.
 */
#include "block/graph/graph-int.h"

#include <errno.h>

/* The first node from @bs down whose driver has break points, or NULL. */
static BlockDriverState *find_debugger(BlockDriverState *bs)
{
    while (bs && !bs->drv->debug_breakpoint) {
        BdrvChild *child = bs->primary ? bs->primary : bs->filtered;

        bs = child ? child->bs : NULL;
    }
    g_assert(!bs || (bs->drv->debug_remove_breakpoint &&
                     bs->drv->debug_resume && bs->drv->debug_is_suspended));
    return bs;
}

int bdrv_debug_breakpoint(BlockDriverState *bs, const char *event,
                          const char *tag)
{
    bs = find_debugger(bs);
    return bs ? bs->drv->debug_breakpoint(bs, event, tag) : -ENOTSUP;
}

int bdrv_debug_remove_breakpoint(BlockDriverState *bs, const char *tag)
{
    bs = find_debugger(bs);
    return bs ? bs->drv->debug_remove_breakpoint(bs, tag) : -ENOTSUP;
}

int bdrv_debug_resume(BlockDriverState *bs, const char *tag)
{
    bs = find_debugger(bs);
    return bs ? bs->drv->debug_resume(bs, tag) : -ENOTSUP;
}

bool bdrv_debug_is_suspended(BlockDriverState *bs, const char *tag)
{
    bs = find_debugger(bs);
    return bs && bs->drv->debug_is_suspended(bs, tag);
}
