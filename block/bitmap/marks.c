/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests and bitmaps: what was changed is dirty before the request is
 * reported done.
 *
 * A request that ends takes the lock of its shard of tracked requests, as
 * always, and inside it looks whether the bits are set.  If so (a busy granule
 * is set nearly always), that was all.  If not, it takes the lock of the
 * bitmaps and sets them.  It looks at bits without that lock, so:
 *
 * M1  Who cleans bits, or publishes new marks, passes the lock of each shard
 *     afterwards (dirty_marks_order()), and only then relies on it: reads the
 *     data that the clean bits stand for, or frees the memory of old marks.
 * M2  Words change as a whole, and only under the lock of the bitmaps.
 *
 * No change is lost.  Let W write data and then hold the lock of its shard;
 * let C clean a bit, pass the locks, and then read the data.  The lock of W's
 * shard is held by one of the two first.
 *   - W first: what W wrote happens before C's read, so C has read it.
 *   - C first: the clean bit happens before W looks.  W sees it clean, and sets
 *     it; or sees it set by somebody later than C, and then that one is a
 *     change that C's successors have to deal with, like any.
 * The same holds for a bitmap that is made or enabled: either its maker sees
 * the data, or W sees the marks.
 *
 * No memory is used after it was freed: a look lies inside the lock of a
 * shard, so after M1 nobody has the old pointer.
 *
 * To mark after the end of the tracked request is early enough: the request is
 * counted at its root still, so a drained section waits for the mark, too.  A
 * truncate that came in between has cut the bitmaps; what is beyond is cut
 * here, too.
 */
#include "block/bitmap/dirty-bitmap.h"

#include <errno.h>

/* Shown while memory changes: no range has a size of at most 0, so whoever
 * looks goes and takes the lock. */
static const DirtyMarks closed = { .nr = 1, .bits = { { .size = 0 } } };

static BdrvDirtyBitmap *bitmap_of(ListHead *link)
{
    return LIST_ENTRY(link, BdrvDirtyBitmap, link);
}

void dirty_bitmaps_init(DirtyBitmaps *dirty)
{
    atomic_init(&dirty->marks, NULL);
    lock_init(&dirty->lock, LOCK_RANK_NODE_BITMAPS);
    list_init(&dirty->list);
}

/* --- publishing ----------------------------------------------------------- */

void dirty_marks_order(BlockDriverState *bs)
{
    tracked_pass_shards(&bs->tracked);
}

static void publish(BlockDriverState *bs, const DirtyMarks *marks)
{
    const DirtyMarks *old =
        atomic_load_explicit(&bs->dirty.marks, memory_order_relaxed);

    g_assert(lock_is_held(&bs->dirty.lock));
    atomic_store_explicit(&bs->dirty.marks, marks, memory_order_release);
    dirty_marks_order(bs);                                          /* M1 */
    if (old != &closed) {
        g_free((gpointer)old);
    }
}

void dirty_marks_close(BlockDriverState *bs)
{
    if (!list_empty(&bs->dirty.list)) {
        publish(bs, &closed);
    }
}

void dirty_marks_open(BlockDriverState *bs)
{
    DirtyMarks *marks = NULL;
    unsigned nr = 0;

    LIST_FOREACH(link, &bs->dirty.list) {
        nr += bitmap_of(link)->bits != NULL;
    }
    if (nr > 0) {
        marks = g_malloc(sizeof(*marks) + nr * sizeof(marks->bits[0]));
        marks->nr = 0;
    }
    LIST_FOREACH(link, &bs->dirty.list) {
        BdrvDirtyBitmap *bitmap = bitmap_of(link);
        HBitmapPeek peek;

        if (bitmap->bits) {
            peek = hbitmap_peek(bitmap->bits);
            peek.words = bitmap->enabled ? peek.words : NULL;
            marks->bits[marks->nr++] = peek;
        }
    }
    publish(bs, marks);
}

/* --- following the length ------------------------------------------------- */

/* False: the bitmap cannot follow, and would miss changes from now on. */
static bool resize_one(BdrvDirtyBitmap *bitmap, int64_t size)
{
    int64_t old = hbitmap_size(bitmap->bits);

    if (hbitmap_truncate(bitmap->bits, size) < 0) {
        g_clear_pointer(&bitmap->bits, hbitmap_free);
        bitmap->enabled = false;
        return false;
    }
    bitmap->changed |= size != old;
    if (bitmap->enabled && size > old) {
        hbitmap_set(bitmap->bits, old, size - old);
    }
    return true;
}

/* Make all at least, or with @exact precisely, @size long.  Returns whether
 * all could follow. */
static bool resize_locked(BlockDriverState *bs, int64_t size, bool exact)
{
    bool differs = false, all = true;

    LIST_FOREACH(link, &bs->dirty.list) {
        HBitmap *bits = bitmap_of(link)->bits;

        differs |= bits && (hbitmap_size(bits) < size ||
                            (exact && hbitmap_size(bits) != size));
    }
    if (!differs) {
        return true;
    }
    dirty_marks_close(bs);
    LIST_FOREACH(link, &bs->dirty.list) {
        BdrvDirtyBitmap *bitmap = bitmap_of(link);

        if (bitmap->bits && (exact || hbitmap_size(bitmap->bits) < size)) {
            all &= resize_one(bitmap, size);
        }
    }
    dirty_marks_open(bs);
    return all;
}

static void warn_lost(BlockDriverState *bs)
{
    g_warning("Node '%s': no memory for its dirty bitmaps at a length of %"
              G_GINT64_FORMAT " bytes; some are inconsistent from now on",
              bs->node_name, bdrv_length(bs));
}

void dirty_bitmaps_resize(BlockDriverState *bs)
{
    bool all = true;

    WITH_LOCK(&bs->dirty.lock) {
        /* Read inside: whoever changes it comes here, too, afterwards. */
        all = resize_locked(bs, bdrv_length(bs), true);
    }
    if (!all) {
        warn_lost(bs);
    }
}

static int reserve_locked(BlockDriverState *bs, int64_t size, GError **errp)
{
    LIST_FOREACH(link, &bs->dirty.list) {
        BdrvDirtyBitmap *bitmap = bitmap_of(link);
        int ret = bitmap->bits ? hbitmap_reserve(bitmap->bits, size) : 0;

        if (ret < 0) {
            return block_error_errno(errp, -ret, "Node '%s': no memory for "
                                     "bitmap '%s' at a length of %"
                                     G_GINT64_FORMAT " bytes", bs->node_name,
                                     bitmap->name ? bitmap->name : "", size);
        }
    }
    return 0;
}

int dirty_bitmaps_reserve(BlockDriverState *bs, int64_t size, GError **errp)
{
    int ret;

    LOCK_GUARD(&bs->dirty.lock);
    if (list_empty(&bs->dirty.list)) {
        return 0;
    }
    dirty_marks_close(bs);
    ret = reserve_locked(bs, size, errp);
    dirty_marks_open(bs);
    return ret;
}

/* --- marking -------------------------------------------------------------- */

static void mark_locked(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    LIST_FOREACH(link, &bs->dirty.list) {
        BdrvDirtyBitmap *bitmap = bitmap_of(link);
        int64_t end;

        if (!bitmap->bits || !bitmap->enabled) {
            continue;
        }
        end = MIN(offset + bytes, hbitmap_size(bitmap->bits));
        if (offset < end) {
            hbitmap_set(bitmap->bits, offset, end - offset);
            bitmap->changed = true;
        }
    }
}

void dirty_bitmaps_mark(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    bool all = true;

    WITH_LOCK(&bs->dirty.lock) {
        all = resize_locked(bs, MIN(offset + bytes, bdrv_length(bs)), false);
        mark_locked(bs, offset, bytes);
    }
    if (!all) {
        warn_lost(bs);
    }
}

void dirty_bitmaps_mark_all(BlockDriverState *bs)
{
    dirty_bitmaps_mark(bs, 0, BDRV_MAX_LENGTH);
}

/* --- the end -------------------------------------------------------------- */

void dirty_bitmaps_destroy(BlockDriverState *bs)
{
    LOCK_GUARD(&bs->dirty.lock);
    publish(bs, NULL);
    LIST_FOREACH_SAFE(link, &bs->dirty.list) {
        BdrvDirtyBitmap *bitmap = bitmap_of(link);

        list_remove(link);
        table_memory_give_apart(&bs->tables, bitmap->counted);
        hbitmap_free(bitmap->bits);
        g_free(bitmap->name);
        g_free(bitmap);
    }
}
