/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Successors: a bitmap that does not change while an operation uses it, and
 * another one that tracks meanwhile.
 *
 * Each change of hands is one critical section of the lock of the bitmaps, so
 * every request that ends marks one of the two, or the one that is left.
 */
#include "block/bitmap/dirty-bitmap.h"

#include <errno.h>

int bdrv_dirty_bitmap_create_successor(BdrvDirtyBitmap *bitmap, GError **errp)
{
    BlockDriverState *bs = bitmap->bs;
    g_autoptr(GError) error = NULL;
    BdrvDirtyBitmap *successor;
    int ret = bdrv_dirty_bitmap_check(bitmap, BDRV_BITMAP_DEFAULT, errp);

    if (ret < 0) {
        return ret;
    }
    g_assert(!bitmap->successor);
    successor = bdrv_create_dirty_bitmap(bs, bitmap->granularity, NULL,
                                         &error);
    if (!successor) {
        ret = -block_error_code(error);
        g_propagate_error(errp, g_steal_pointer(&error));
        return ret;
    }
    LOCK_GUARD(&bs->dirty.lock);
    successor->enabled = bitmap->enabled;
    /* What ended since it was made is in both; it was before this moment. */
    hbitmap_reset_all(successor->bits);
    bitmap->enabled = false;
    bitmap->successor = successor;
    bitmap->busy = true;
    dirty_marks_open(bs);
    return 0;
}

/* Or NULL, with @errp. */
static BdrvDirtyBitmap *successor_of(const BdrvDirtyBitmap *bitmap,
                                     GError **errp)
{
    if (!bitmap->successor) {
        block_error(errp, EINVAL, "Bitmap '%s' of node '%s' has no successor",
                    bitmap->name ? bitmap->name : "", bitmap->bs->node_name);
    }
    return bitmap->successor;
}

/* The operation has ended.  Under the lock. */
static void thaw_locked(BdrvDirtyBitmap *bitmap)
{
    bitmap->successor = NULL;
    bitmap->busy = false;
}

BdrvDirtyBitmap *bdrv_dirty_bitmap_abdicate(BdrvDirtyBitmap *bitmap,
                                            GError **errp)
{
    BdrvDirtyBitmap *successor = successor_of(bitmap, errp);

    if (!successor) {
        return NULL;
    }
    WITH_LOCK(&bitmap->bs->dirty.lock) {
        successor->name = g_steal_pointer(&bitmap->name);
        successor->counted = bitmap->counted; /* it is as large */
        bitmap->counted = 0;
        successor->persistent = bitmap->persistent;
        successor->stored = bitmap->stored;
        successor->readonly = bitmap->readonly;
        successor->changed = true;
        thaw_locked(bitmap);
    }
    bdrv_release_dirty_bitmap(bitmap);
    return successor;
}

BdrvDirtyBitmap *bdrv_reclaim_dirty_bitmap(BdrvDirtyBitmap *bitmap,
                                           GError **errp)
{
    BdrvDirtyBitmap *successor = successor_of(bitmap, errp);

    if (!successor) {
        return NULL;
    }
    WITH_LOCK(&bitmap->bs->dirty.lock) {
        if (!bitmap->bits || !successor->bits) {
            /* One of them has missed changes, so what they are together. */
            g_clear_pointer(&bitmap->bits, hbitmap_free);
        } else {
            if (!SIM_PLANTED(35)) {
                dirty_bitmap_merge_locked(bitmap, successor);
            }
            bitmap->enabled = successor->enabled;
        }
        successor->enabled = false;
        thaw_locked(bitmap);
        dirty_marks_open(bitmap->bs);
    }
    bdrv_release_dirty_bitmap(successor);
    return bitmap;
}
