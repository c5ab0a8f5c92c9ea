/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Named dirty bitmaps: life and states.
 *
 * The list of a node's bitmaps, and all states, are changed by the main
 * context under the lock of the node's bitmaps; so the main context reads them
 * without.  Whatever changes what requests have to mark publishes new marks
 * (marks.c).  No drained section is needed.
 *
 * Two nodes' locks are never held at once: a merge between nodes copies the
 * bits first.
 */
#include "block/bitmap/dirty-bitmap.h"

#include <errno.h>
#include <string.h>

/* Cluster sizes below this make no sensible granularity. */
#define GRANULARITY_DEFAULT_MIN 4096
#define GRANULARITY_DEFAULT 65536

static BdrvDirtyBitmap *bitmap_of(ListHead *link)
{
    return LIST_ENTRY(link, BdrvDirtyBitmap, link);
}

static void assert_main(const BlockDriverState *bs)
{
    g_assert(aio_context_in_home(bs->graph->ctx));
}

/* How errors call it. */
static const char *shown_name(const BdrvDirtyBitmap *bitmap)
{
    return bitmap->name ? bitmap->name : "(anonymous)";
}

/* --- what can be made ----------------------------------------------------- */

int64_t bdrv_default_bitmap_granularity(BlockDriverState *bs)
{
    BlockDriverInfo info = { 0 };

    if (bdrv_get_info(bdrv_skip_filters(bs), &info) < 0 ||
        info.cluster_bytes <= 0 ||
        (info.cluster_bytes & (info.cluster_bytes - 1))) {
        return GRANULARITY_DEFAULT;
    }
    return CLAMP(info.cluster_bytes, GRANULARITY_DEFAULT_MIN,
                 BDRV_BITMAP_GRANULARITY_MAX);
}

int dirty_bitmap_check_granularity(BlockDriverState *bs, int64_t granularity,
                                   GError **errp)
{
    if (granularity < BDRV_BITMAP_GRANULARITY_MIN ||
        granularity > BDRV_BITMAP_GRANULARITY_MAX ||
        (granularity & (granularity - 1))) {
        return block_error(errp, EINVAL, "Node '%s': the granularity of a "
                           "bitmap must be a power of two from 512 bytes to 2 "
                           "GiB, not %" G_GINT64_FORMAT, bs->node_name,
                           granularity);
    }
    return 0;
}

int dirty_bitmap_check_name(BlockDriverState *bs, const char *name,
                            GError **errp)
{
    size_t bytes = strlen(name);

    if (bytes == 0 || bytes > BDRV_BITMAP_NAME_MAX) {
        return block_error(errp, EINVAL, "Node '%s': the name of a bitmap has "
                           "1 to %d bytes, not %zu", bs->node_name,
                           BDRV_BITMAP_NAME_MAX, bytes);
    }
    if (bdrv_find_dirty_bitmap(bs, name)) {
        return block_error(errp, EEXIST, "Node '%s' has a bitmap '%s' already",
                           bs->node_name, name);
    }
    return 0;
}

/* --- life ----------------------------------------------------------------- */

/* Takes @bits over. */
static BdrvDirtyBitmap *bitmap_new(BlockDriverState *bs, int64_t granularity,
                                   const char *name, HBitmap *bits)
{
    BdrvDirtyBitmap *bitmap = g_new0(BdrvDirtyBitmap, 1);

    assert_main(bs);
    bitmap->bs = bs;
    bitmap->granularity = granularity;
    bitmap->name = g_strdup(name);
    bitmap->bits = bits;
    list_init(&bitmap->link);
    return bitmap;
}

/* Put it on the list; requests mark it when that is published. */
static void bitmap_add(BdrvDirtyBitmap *bitmap)
{
    LOCK_GUARD(&bitmap->bs->dirty.lock);
    list_append(&bitmap->bs->dirty.list, &bitmap->link);
}

BdrvDirtyBitmap *bdrv_create_dirty_bitmap(BlockDriverState *bs,
                                          int64_t granularity,
                                          const char *name, GError **errp)
{
    int64_t length = bdrv_length(bs);
    BdrvDirtyBitmap *bitmap;
    HBitmap *bits;
    int shift;

    if (granularity == 0) {
        granularity = bdrv_default_bitmap_granularity(bs);
    }
    if (dirty_bitmap_check_granularity(bs, granularity, errp) < 0 ||
        (name && dirty_bitmap_check_name(bs, name, errp) < 0)) {
        return NULL;
    }
    shift = __builtin_ctzll(granularity);
    if (length >> shift >= HBITMAP_BITS_MAX) {
        block_error(errp, EFBIG, "Node '%s': a bitmap of %" G_GINT64_FORMAT
                    " bytes a bit is too large for a length of %"
                    G_GINT64_FORMAT " bytes", bs->node_name, granularity,
                    length);
        return NULL;
    }
    bits = hbitmap_new(length, shift);
    if (!bits) {
        block_error(errp, ENOMEM, "Node '%s': no memory for a bitmap of %"
                    G_GINT64_FORMAT " bits", bs->node_name, length >> shift);
        return NULL;
    }
    bitmap = bitmap_new(bs, granularity, name, bits);
    bitmap->enabled = true;
    bitmap->changed = true;
    bitmap_add(bitmap);
    dirty_bitmaps_loaded(bs);
    /* The node may have grown since we looked. */
    dirty_bitmaps_resize(bs);
    return bitmap;
}

BdrvDirtyBitmap *dirty_bitmap_new_inconsistent(BlockDriverState *bs,
                                               int64_t granularity,
                                               const char *name)
{
    BdrvDirtyBitmap *bitmap = bitmap_new(bs, granularity, name, NULL);

    bitmap->persistent = true;
    bitmap->stored = true;
    bitmap_add(bitmap);
    return bitmap;
}

BdrvDirtyBitmap *dirty_bitmap_new_loaded(BlockDriverState *bs,
                                         const char *name, HBitmap *bits,
                                         bool enabled)
{
    int64_t granularity = INT64_C(1) << hbitmap_granularity(bits);
    BdrvDirtyBitmap *bitmap = bitmap_new(bs, granularity, name, bits);

    bitmap->persistent = true;
    bitmap->stored = true;
    bitmap->enabled = enabled;
    bitmap->readonly = bdrv_is_read_only(bs);
    bitmap_add(bitmap);
    return bitmap;
}

BdrvDirtyBitmap *bdrv_find_dirty_bitmap(BlockDriverState *bs,
                                        const char *name)
{
    assert_main(bs);
    LIST_FOREACH(link, &bs->dirty.list) {
        BdrvDirtyBitmap *bitmap = bitmap_of(link);

        if (bitmap->name && g_str_equal(bitmap->name, name)) {
            return bitmap;
        }
    }
    return NULL;
}

BdrvDirtyBitmap *bdrv_dirty_bitmap_next(BlockDriverState *bs,
                                        BdrvDirtyBitmap *bitmap)
{
    ListHead *link = bitmap ? bitmap->link.next : bs->dirty.list.next;

    assert_main(bs);
    g_assert(!bitmap || bitmap->bs == bs);
    return link == &bs->dirty.list ? NULL : bitmap_of(link);
}

void bdrv_release_dirty_bitmap(BdrvDirtyBitmap *bitmap)
{
    BlockDriverState *bs;

    if (!bitmap) {
        return;
    }
    bs = bitmap->bs;
    assert_main(bs);
    g_assert(!bitmap->busy && !bitmap->successor);
    WITH_LOCK(&bs->dirty.lock) {
        list_remove(&bitmap->link);
        dirty_marks_open(bs);
    }
    table_memory_give_apart(&bs->tables, bitmap->counted);
    hbitmap_free(bitmap->bits);
    g_free(bitmap->name);
    g_free(bitmap);
}

/* --- facts ---------------------------------------------------------------- */

const char *bdrv_dirty_bitmap_name(const BdrvDirtyBitmap *bitmap)
{
    return bitmap->name;
}

BlockDriverState *bdrv_dirty_bitmap_bs(const BdrvDirtyBitmap *bitmap)
{
    return bitmap->bs;
}

int64_t bdrv_dirty_bitmap_granularity(const BdrvDirtyBitmap *bitmap)
{
    return bitmap->granularity;
}

bool bdrv_dirty_bitmap_enabled(BdrvDirtyBitmap *bitmap)
{
    LOCK_GUARD(&bitmap->bs->dirty.lock);
    return bitmap->successor ? bitmap->successor->enabled : bitmap->enabled;
}

bool bdrv_dirty_bitmap_busy(BdrvDirtyBitmap *bitmap)
{
    return bitmap->busy;
}

bool bdrv_dirty_bitmap_readonly(BdrvDirtyBitmap *bitmap)
{
    return bitmap->readonly;
}

bool bdrv_dirty_bitmap_inconsistent(BdrvDirtyBitmap *bitmap)
{
    LOCK_GUARD(&bitmap->bs->dirty.lock);
    return !bitmap->bits;
}

bool bdrv_dirty_bitmap_persistent(BdrvDirtyBitmap *bitmap)
{
    return bitmap->persistent;
}

bool bdrv_dirty_bitmap_has_successor(BdrvDirtyBitmap *bitmap)
{
    return bitmap->successor != NULL;
}

/* --- states --------------------------------------------------------------- */

int bdrv_dirty_bitmap_check(BdrvDirtyBitmap *bitmap, unsigned flags,
                            GError **errp)
{
    const char *node = bitmap->bs->node_name;

    assert_main(bitmap->bs);
    if ((flags & BDRV_BITMAP_BUSY) && bitmap->busy) {
        return block_error(errp, EBUSY, "Bitmap '%s' of node '%s' is in use "
                           "by another operation", shown_name(bitmap), node);
    }
    if ((flags & BDRV_BITMAP_RO) && bitmap->readonly) {
        return block_error(errp, EACCES, "Bitmap '%s' of node '%s' is "
                           "read-only, as the node is", shown_name(bitmap),
                           node);
    }
    if ((flags & BDRV_BITMAP_INCONSISTENT) &&
        bdrv_dirty_bitmap_inconsistent(bitmap)) {
        return block_error(errp, EINVAL, "Bitmap '%s' of node '%s' is "
                           "inconsistent and cannot be used; remove it",
                           shown_name(bitmap), node);
    }
    return 0;
}

void bdrv_dirty_bitmap_set_busy(BdrvDirtyBitmap *bitmap, bool busy)
{
    assert_main(bitmap->bs);
    g_assert(bitmap->busy != busy && !bitmap->successor);
    bitmap->busy = busy;
}

void bdrv_dirty_bitmap_set_readonly(BdrvDirtyBitmap *bitmap, bool readonly)
{
    assert_main(bitmap->bs);
    LOCK_GUARD(&bitmap->bs->dirty.lock);
    bitmap->readonly = readonly;
}

void bdrv_dirty_bitmap_set_inconsistent(BdrvDirtyBitmap *bitmap)
{
    HBitmap *bits = NULL;

    assert_main(bitmap->bs);
    g_assert(!bitmap->busy);
    WITH_LOCK(&bitmap->bs->dirty.lock) {
        bits = g_steal_pointer(&bitmap->bits);
        bitmap->enabled = false;
        dirty_marks_open(bitmap->bs);
    }
    hbitmap_free(bits);
}

static int set_enabled(BdrvDirtyBitmap *bitmap, bool enabled, GError **errp)
{
    BlockDriverState *bs = bitmap->bs;
    int ret = bdrv_dirty_bitmap_check(
        bitmap, BDRV_BITMAP_RO | BDRV_BITMAP_INCONSISTENT, errp);

    if (ret < 0) {
        return ret;
    }
    g_assert(!bitmap->successor);
    WITH_LOCK(&bs->dirty.lock) {
        if (bitmap->enabled != enabled && bitmap->bits) {
            bitmap->enabled = enabled;
            bitmap->changed = true;
            if (!SIM_PLANTED(36)) {
                dirty_marks_open(bs);
            }
        }
    }
    return 0;
}

int bdrv_enable_dirty_bitmap(BdrvDirtyBitmap *bitmap, GError **errp)
{
    return set_enabled(bitmap, true, errp);
}

int bdrv_disable_dirty_bitmap(BdrvDirtyBitmap *bitmap, GError **errp)
{
    return set_enabled(bitmap, false, errp);
}

int bdrv_clear_dirty_bitmap(BdrvDirtyBitmap *bitmap, GError **errp)
{
    BlockDriverState *bs = bitmap->bs;
    int ret = bdrv_dirty_bitmap_check(
        bitmap, BDRV_BITMAP_RO | BDRV_BITMAP_INCONSISTENT, errp);

    if (ret < 0) {
        return ret;
    }
    WITH_LOCK(&bs->dirty.lock) {
        if (bitmap->bits) {
            hbitmap_reset_all(bitmap->bits);
            bitmap->changed = true;
        }
    }
    dirty_marks_order(bs);
    return 0;
}

/* --- merge ---------------------------------------------------------------- */

void dirty_bitmap_merge_locked(BdrvDirtyBitmap *to,
                               const BdrvDirtyBitmap *from)
{
    g_assert(to->bs == from->bs);
    if (to != from && !hbitmap_is_empty(from->bits)) {
        hbitmap_merge(to->bits, from->bits);
        to->changed = true;
    }
}

/* One source of a merge: bits of the same node, or a copy of others. */
typedef struct MergeSource {
    BdrvDirtyBitmap *bitmap;
    HBitmap *copy; /* NULL: @bitmap is of the same node */
} MergeSource;

static int prepare_source(BdrvDirtyBitmap *dest, BdrvDirtyBitmap *bitmap,
                          MergeSource *ret, GError **errp)
{
    int err = bdrv_dirty_bitmap_check(bitmap, BDRV_BITMAP_ALLOW_RO, errp);

    ret->bitmap = bitmap;
    if (err < 0 || bitmap->bs == dest->bs) {
        return err;
    }
    WITH_LOCK(&bitmap->bs->dirty.lock) {
        ret->copy = bitmap->bits ? hbitmap_clone(bitmap->bits) : NULL;
    }
    if (!ret->copy) {
        return block_error(errp, ENOMEM, "No memory to merge bitmap '%s' of "
                           "node '%s'", shown_name(bitmap),
                           bitmap->bs->node_name);
    }
    return 0;
}

static const HBitmap *source_bits(const MergeSource *source)
{
    return source->copy ? source->copy : source->bitmap->bits;
}

/* Whether all can be merged; then they are. */
static int merge_locked(BdrvDirtyBitmap *dest, const MergeSource *sources,
                        size_t nr, GError **errp)
{
    for (size_t i = 0; i < nr; i++) {
        const HBitmap *bits = source_bits(&sources[i]);

        if (!bits || !dest->bits ||
            hbitmap_size(bits) != hbitmap_size(dest->bits)) {
            return block_error(
                errp, EINVAL, "Bitmap '%s' of node '%s' (%" G_GINT64_FORMAT
                " bytes) cannot be merged into bitmap '%s' of node '%s' (%"
                G_GINT64_FORMAT " bytes): the sizes differ",
                shown_name(sources[i].bitmap),
                sources[i].bitmap->bs->node_name,
                bits ? hbitmap_size(bits) : 0, shown_name(dest),
                dest->bs->node_name, dest->bits ? hbitmap_size(dest->bits)
                                                : 0);
        }
    }
    for (size_t i = 0; i < nr; i++) {
        if (!sources[i].copy) {
            dirty_bitmap_merge_locked(dest, sources[i].bitmap);
        } else if (!hbitmap_is_empty(sources[i].copy)) {
            hbitmap_merge(dest->bits, sources[i].copy);
            dest->changed = true;
        }
    }
    return 0;
}

int bdrv_merge_dirty_bitmaps(BdrvDirtyBitmap *dest,
                             BdrvDirtyBitmap *const *sources, size_t nr,
                             GError **errp)
{
    g_autofree MergeSource *prepared = g_new0(MergeSource, MAX(nr, 1));
    int ret = bdrv_dirty_bitmap_check(dest, BDRV_BITMAP_DEFAULT, errp);

    for (size_t i = 0; ret == 0 && i < nr; i++) {
        ret = prepare_source(dest, sources[i], &prepared[i], errp);
    }
    if (ret == 0) {
        LOCK_GUARD(&dest->bs->dirty.lock);
        ret = merge_locked(dest, prepared, nr, errp);
    }
    for (size_t i = 0; i < nr; i++) {
        hbitmap_free(prepared[i].copy);
    }
    return ret;
}

int bdrv_merge_dirty_bitmap(BdrvDirtyBitmap *dest, BdrvDirtyBitmap *source,
                            GError **errp)
{
    return bdrv_merge_dirty_bitmaps(dest, &source, 1, errp);
}
