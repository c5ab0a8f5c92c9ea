/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Persistent bitmaps: those that the image of a node keeps while the node is
 * closed.
 *
 *   open       the driver loads what it finds (load_bitmaps)
 *   change     before the first one, the driver marks in the image, durably,
 *              that what it stores is out of date; so after a crash nobody
 *              takes it for true
 *   close      the driver stores them, and takes the mark back (store_bitmaps)
 *
 * A node that becomes read-only stores them, too, and nobody changes them from
 * then on; a read-only node loads them read-only.
 */
#include "block/bitmap/dirty-bitmap.h"

#include <errno.h>

static BdrvDirtyBitmap *bitmap_of(ListHead *link)
{
    return LIST_ENTRY(link, BdrvDirtyBitmap, link);
}

/* --- what drivers ask ----------------------------------------------------- */

/* Persistent, and can be used. */
static bool is_kept_locked(const BdrvDirtyBitmap *bitmap)
{
    return bitmap->persistent && bitmap->bits;
}

static bool is_changed_locked(const BdrvDirtyBitmap *bitmap)
{
    return is_kept_locked(bitmap) && (bitmap->changed || bitmap->successor);
}

static BdrvDirtyBitmap *find_kept_locked(BlockDriverState *bs,
                                         const char *name)
{
    LIST_FOREACH(link, &bs->dirty.list) {
        BdrvDirtyBitmap *bitmap = bitmap_of(link);

        if (is_kept_locked(bitmap) && g_str_equal(bitmap->name, name)) {
            return bitmap;
        }
    }
    return NULL;
}

bool dirty_bitmaps_track(BlockDriverState *bs, const char *name)
{
    LOCK_GUARD(&bs->dirty.lock);
    return find_kept_locked(bs, name) != NULL;
}

bool dirty_bitmaps_as_stored(BlockDriverState *bs, const char *name)
{
    const BdrvDirtyBitmap *bitmap;

    LOCK_GUARD(&bs->dirty.lock);
    bitmap = find_kept_locked(bs, name);
    return bitmap && !is_changed_locked(bitmap);
}

bool dirty_bitmap_must_be_stored(BdrvDirtyBitmap *bitmap)
{
    LOCK_GUARD(&bitmap->bs->dirty.lock);
    return is_changed_locked(bitmap);
}

bool dirty_bitmaps_changed(BlockDriverState *bs)
{
    LOCK_GUARD(&bs->dirty.lock);
    LIST_FOREACH(link, &bs->dirty.list) {
        if (is_changed_locked(bitmap_of(link))) {
            return true;
        }
    }
    return false;
}

int64_t dirty_bitmaps_finest(BlockDriverState *bs)
{
    int64_t finest = 0;

    LOCK_GUARD(&bs->dirty.lock);
    LIST_FOREACH(link, &bs->dirty.list) {
        const BdrvDirtyBitmap *bitmap = bitmap_of(link);

        if (is_kept_locked(bitmap) &&
            (finest == 0 || bitmap->granularity < finest)) {
            finest = bitmap->granularity;
        }
    }
    return finest;
}

void dirty_bitmaps_loaded(BlockDriverState *bs)
{
    LOCK_GUARD(&bs->dirty.lock);
    dirty_marks_open(bs);
}

HBitmap *dirty_bitmap_take_changes(BdrvDirtyBitmap *bitmap)
{
    HBitmap *copy;

    LOCK_GUARD(&bitmap->bs->dirty.lock);
    copy = bitmap->bits ? hbitmap_clone(bitmap->bits) : NULL;
    if (copy && bitmap->successor && bitmap->successor->bits) {
        hbitmap_merge(copy, bitmap->successor->bits);
    }
    bitmap->changed = !copy;
    return copy;
}

void dirty_bitmap_note_changed(BdrvDirtyBitmap *bitmap)
{
    LOCK_GUARD(&bitmap->bs->dirty.lock);
    bitmap->changed = true;
}

/* --- life of the node ----------------------------------------------------- */

int coroutine_fn dirty_bitmaps_load(BlockDriverState *bs, GError **errp)
{
    return bs->drv->load_bitmaps ? bs->drv->load_bitmaps(bs, errp) : 0;
}

int coroutine_fn dirty_bitmaps_store(BlockDriverState *bs, GError **errp)
{
    return bs->drv->store_bitmaps ? bs->drv->store_bitmaps(bs, errp) : 0;
}

/*
 * From here to dirty_bitmaps_follow_mode() stored bitmaps are busy and
 * read-only, or a merge while others are stored, or while other nodes get
 * ready, would be in memory alone.  Requests cannot come in between: the node
 * is drained, and a request marks before it is counted as ended.  Operations
 * that change the content (image.c) wait for the section.
 */
static int seal(BlockDriverState *bs, GError **errp)
{
    g_assert(aio_context_in_home(bs->graph->ctx));
    LOCK_GUARD(&bs->dirty.lock);
    LIST_FOREACH(link, &bs->dirty.list) {
        const BdrvDirtyBitmap *bitmap = bitmap_of(link);

        if (is_kept_locked(bitmap) && bitmap->busy) {
            return block_error(errp, EBUSY, "Node '%s' cannot become "
                               "read-only: its bitmap '%s' is in use by "
                               "another operation", bs->node_name,
                               bitmap->name);
        }
    }
    bs->dirty.sealed = true;
    LIST_FOREACH(link, &bs->dirty.list) {
        BdrvDirtyBitmap *bitmap = bitmap_of(link);

        if (is_kept_locked(bitmap)) {
            bitmap->sealed = bitmap->busy = bitmap->readonly = true;
        }
    }
    return 0;
}

int coroutine_fn dirty_bitmaps_seal(BlockDriverState *bs, GError **errp)
{
    int ret = seal(bs, errp);

    return ret < 0 ? ret : dirty_bitmaps_store(bs, errp);
}

void dirty_bitmaps_follow_mode(BlockDriverState *bs)
{
    g_assert(aio_context_in_home(bs->graph->ctx));
    LOCK_GUARD(&bs->dirty.lock);
    bs->dirty.sealed = false;
    LIST_FOREACH(link, &bs->dirty.list) {
        BdrvDirtyBitmap *bitmap = bitmap_of(link);

        if (bitmap->sealed) {
            bitmap->sealed = bitmap->busy = false;
        }
        if (bitmap->persistent) {
            bitmap->readonly = bdrv_is_read_only(bs);
        }
    }
}

/* --- users ---------------------------------------------------------------- */

/* What the driver says; the name may be there already. */
static int check_storable(BlockDriverState *bs, const char *name,
                          int64_t granularity, GError **errp)
{
    int ret = dirty_bitmap_check_granularity(bs, granularity, errp);

    if (ret < 0) {
        return ret;
    }
    if (!bs->drv->can_store_bitmap) {
        return block_error(errp, ENOTSUP, "Node '%s': driver '%s' cannot "
                           "store bitmap '%s'", bs->node_name, bs->drv->name,
                           name);
    }
    if (bs->dirty.sealed) {
        return block_error(errp, EACCES, "Node '%s' becomes read-only: bitmap "
                           "'%s' cannot be stored", bs->node_name, name);
    }
    if (bdrv_is_read_only(bs)) {
        return block_error(errp, EACCES, "Node '%s' is read-only: bitmap '%s' "
                           "cannot be stored", bs->node_name, name);
    }
    return bs->drv->can_store_bitmap(bs, name, granularity, errp);
}

int bdrv_can_store_new_dirty_bitmap(BlockDriverState *bs, const char *name,
                                    int64_t granularity, GError **errp)
{
    int ret = dirty_bitmap_check_name(bs, name, errp);

    return ret < 0 ? ret : check_storable(bs, name, granularity, errp);
}

int bdrv_dirty_bitmap_set_persistence(BdrvDirtyBitmap *bitmap,
                                      bool persistent, GError **errp)
{
    BlockDriverState *bs = bitmap->bs;
    int ret;

    if (bitmap->persistent == persistent) {
        return 0;
    }
    ret = bdrv_dirty_bitmap_check(bitmap, BDRV_BITMAP_DEFAULT, errp);
    if (ret < 0) {
        return ret;
    }
    if (!bitmap->name) {
        return block_error(errp, EINVAL, "Node '%s': an anonymous bitmap "
                           "cannot be stored", bs->node_name);
    }
    if (bitmap->stored) {
        return block_error(errp, EBUSY, "Bitmap '%s' of node '%s' is stored "
                           "in the image; remove it to have it there no more",
                           bitmap->name, bs->node_name);
    }
    if (persistent) {
        ret = check_storable(bs, bitmap->name, bitmap->granularity, errp);
    }
    if (ret == 0) {
        LOCK_GUARD(&bs->dirty.lock);
        bitmap->persistent = persistent;
        bitmap->changed = true;
    }
    return ret;
}
