/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Stored bitmaps while the image is open: loaded, kept, stored again.
 *
 * B1  Before the first change of the guest's data, each stored bitmap that is
 *     kept in memory, or that should have been (flag "auto"), is marked in use
 *     on the disk (qcow2_bitmaps_begin_write()).  So who finds it not in use
 *     finds it true.
 * B2  The mark is taken back only when the disk has the bits of the bitmap: by
 *     storing it, or in place if it has not changed.
 * B3  What changes in memory without a change of the guest's data (a merge,
 *     say) may be lost in a crash, as if it had never been; but not after the
 *     removal of another bitmap, which may be its source, has become durable.
 *
 * A bitmap that was in use when the image was opened, or is of no use for
 * another reason, is shown as inconsistent, and stays in the image as it is
 * until it is removed.
 */
#include "block/bitmap/dirty-bitmap.h"
#include "block/formats/qcow2/bitmap.h"

#include <errno.h>

/* --- loading -------------------------------------------------------------- */

static int64_t shown_granularity(const Qcow2Bitmap *bitmap)
{
    unsigned bits;

    if (!untrusted_at_most(bitmap->granularity_bits,
                           QCOW2_BITMAP_MAX_GRANULARITY_BITS, &bits)) {
        bits = QCOW2_BITMAP_MAX_GRANULARITY_BITS;
    }
    return INT64_C(1) << MAX(bits, QCOW2_BITMAP_MIN_GRANULARITY_BITS);
}

/* What all loads of one open share. */
typedef struct Load {
    Qcow2 *q;
    int64_t budget;
    unsigned lost; /* bitmaps that cannot be used */
} Load;

/* Load it, counted for the process as far as it can be used. */
static int coroutine_fn load_counted(Load *load, const Qcow2Bitmap *bitmap,
                                     int64_t need, GError **errp)
{
    Qcow2 *q = load->q;
    HBitmap *bits = NULL;
    int64_t counted = 0;
    int ret = 0;

    if (need <= load->budget && !(bitmap->flags & QCOW2_BME_IN_USE) &&
        !qcow2_bitmap_defect(q, bitmap)) {
        counted = need + need / 32; /* there are bits about the bits */
        ret = table_memory_take_apart(q->bs, counted, errp);
    }
    if (ret < 0) {
        return ret;
    }
    ret = qcow2_bitmap_load_entry(q, bitmap, &load->budget, &bits, errp);
    if (ret < 0) {
        table_memory_give_apart(bdrv_table_account(q->bs), counted);
        return ret;
    }
    dirty_bitmap_new_loaded(q->bs, bitmap->name, bits,
                            bitmap->flags & QCOW2_BME_AUTO)->counted = counted;
    return 0;
}

/*
 * The disk is worth more than its bitmaps: it opens whatever they are like.
 * But for want of memory it does not open, since the first write would make an
 * end of a bitmap that is good; if that is only what all images together may
 * have, a disk that is only read opens without, and cannot be reopened for
 * writing.
 */
static int coroutine_fn load_one(Load *load, const Qcow2Bitmap *bitmap,
                                 GError **errp)
{
    BlockDriverState *bs = load->q->bs;
    int64_t need = qcow2_bitmap_memory(load->q, bitmap);
    g_autoptr(GError) error = NULL;
    int ret = load_counted(load, bitmap, need, &error);

    if (ret == 0) {
        return 0;
    }
    if ((ret == -ENOMEM && need <= load->budget) ||
        (ret == -EFBIG && !bdrv_is_read_only(bs))) {
        g_propagate_error(errp, g_steal_pointer(&error));
        return ret;
    }
    load->q->bitmaps_without_room |= ret == -EFBIG;
    if (load->lost++ == 0) {
        g_warning("%s", error->message);
    }
    dirty_bitmap_new_inconsistent(bs, shown_granularity(bitmap),
                                  bitmap->name);
    return 0;
}

int coroutine_fn qcow2_load_bitmaps(BlockDriverState *bs, GError **errp)
{
    Load load = { .q = qcow2_of(bs), .budget = QCOW2_BITMAPS_MEMORY_MAX };
    g_autoptr(GPtrArray) bitmaps = NULL;
    g_autoptr(GError) error = NULL;
    int ret;

    if (load.q->snapshot_view) {
        return 0; /* they are of the disk, which is not shown */
    }
    ret = qcow2_bitmap_dir_read(load.q, &bitmaps, &error);
    if (ret == -EINVAL) {
        return 0; /* qcow2_bitmaps_open() has said it */
    }
    if (ret < 0) {
        g_propagate_error(errp, g_steal_pointer(&error));
        return ret;
    }
    for (guint i = 0; ret == 0 && i < bitmaps->len; i++) {
        ret = load_one(&load, g_ptr_array_index(bitmaps, i), errp);
    }
    if (load.lost > 1) {
        g_warning("Node '%s' ('%s'): %u more bitmaps cannot be used",
                  bdrv_node_name(bs), bdrv_filename(bs), load.lost - 1);
    }
    dirty_bitmaps_loaded(bs);
    return ret;
}

/* --- storing -------------------------------------------------------------- */

static int coroutine_fn store_one(Qcow2 *q, BdrvDirtyBitmap *bitmap,
                                  GError **errp)
{
    Qcow2BitmapContent content = { .name = bitmap->name };
    HBitmap *bits = dirty_bitmap_take_changes(bitmap);
    int ret;

    if (!bits) {
        return block_error(errp, ENOMEM, "Node '%s' ('%s'): no memory to "
                           "store bitmap '%s'", bdrv_node_name(q->bs),
                           bdrv_filename(q->bs), bitmap->name);
    }
    content.granularity_bits = hbitmap_granularity(bits);
    content.bits = bits;
    content.flags = bdrv_dirty_bitmap_enabled(bitmap) ? QCOW2_BME_AUTO : 0;
    ret = qcow2_bitmap_store(q, &content, errp);
    hbitmap_free(bits);
    if (ret < 0) {
        dirty_bitmap_note_changed(bitmap);
        return ret;
    }
    bitmap->stored = true;
    return 0;
}

/* A bitmap that has changed since it was stored, and was not @tried yet. */
static BdrvDirtyBitmap *next_changed(BlockDriverState *bs, GHashTable *tried)
{
    BdrvDirtyBitmap *bitmap = NULL;

    while ((bitmap = bdrv_dirty_bitmap_next(bs, bitmap))) {
        if (dirty_bitmap_must_be_stored(bitmap) &&
            g_hash_table_add(tried, bitmap)) {
            return bitmap;
        }
    }
    return NULL;
}

int coroutine_fn qcow2_store_bitmaps(BlockDriverState *bs, GError **errp)
{
    Qcow2 *q = qcow2_of(bs);
    g_autoptr(GHashTable) tried = g_hash_table_new(NULL, NULL);
    g_autoptr(GError) first = NULL;
    BdrvDirtyBitmap *bitmap;
    int ret = 0;

    if (q->snapshot_view) {
        return 0;
    }
    /* The list may change while one is stored, so it is walked anew; all are
     * tried, the first error is told. */
    while ((bitmap = next_changed(bs, tried))) {
        int err = store_one(q, bitmap, first ? NULL : &first);

        ret = ret < 0 ? ret : err;
    }
    if (atomic_load(&q->corrupt)) {
        ret = ret < 0 ? ret : 0; /* nothing is written any more */
    } else if (ret == 0) {
        ret = qcow2_bitmaps_release(q, &first);
    } else {
        qcow2_bitmaps_release(q, NULL);
    }
    if (first) {
        g_propagate_error(errp, g_steal_pointer(&first));
    }
    return ret;
}

/* --- limits --------------------------------------------------------------- */

/* Bytes that a bitmap takes of the memory for bitmaps, as the loader counts;
 * INT64_MAX: too many. */
static int64_t memory_of(const Qcow2 *q, int64_t size, int64_t granularity)
{
    int64_t entries = qcow2_bitmap_table_entries(
        &q->geo, size, __builtin_ctzll(granularity));

    return entries == INT64_MAX ? INT64_MAX : entries * q->geo.cluster_bytes;
}

static uint64_t dir_bytes_of(const char *name)
{
    return (QCOW2_BME_BYTES + strlen(name) + 7) & ~UINT64_C(7);
}

/* Whether the directory has room for @nr and @bytes more. */
static int check_dir(Qcow2 *q, unsigned nr, uint64_t bytes, GError **errp)
{
    bool valid = qcow2_bitmaps_valid(q);
    uint64_t all = (valid ? q->header.nb_bitmaps : 0) + (uint64_t)nr;

    bytes += valid ? q->header.bitmap_dir_bytes : 0;
    if (all <= QCOW2_MAX_BITMAPS &&
        bytes <= (uint64_t)QCOW2_MAX_BITMAP_DIR_BYTES) {
        return 0;
    }
    return block_error(errp, ENOSPC, "Node '%s' ('%s'): an image holds at "
                       "most %d bitmaps with a directory of %" G_GINT64_FORMAT
                       " bytes, these would be %" G_GUINT64_FORMAT " with %"
                       G_GUINT64_FORMAT, bdrv_node_name(q->bs),
                       bdrv_filename(q->bs), QCOW2_MAX_BITMAPS,
                       QCOW2_MAX_BITMAP_DIR_BYTES, all, bytes);
}

int qcow2_can_store_bitmap(BlockDriverState *bs, const char *name,
                           int64_t granularity, GError **errp)
{
    Qcow2 *q = qcow2_of(bs);
    int64_t size = atomic_load_explicit(&q->size, memory_order_relaxed);
    int64_t memory = memory_of(q, size, granularity);
    uint64_t bytes = dir_bytes_of(name);
    BdrvDirtyBitmap *bitmap = NULL;
    unsigned nr = 1;

    if (q->header.version < 3) {
        return block_error(errp, ENOTSUP, "Node '%s' ('%s'): images of "
                           "version 2 store no bitmaps; amend it to "
                           "compat=1.1", bdrv_node_name(bs),
                           bdrv_filename(bs));
    }
    /* Those that are not stored yet count, too. */
    while ((bitmap = bdrv_dirty_bitmap_next(bs, bitmap))) {
        if (bitmap->persistent && !bitmap->stored) {
            nr++;
            bytes += dir_bytes_of(bitmap->name);
        }
        if (bitmap->persistent && memory < INT64_MAX &&
            !bdrv_dirty_bitmap_inconsistent(bitmap)) {
            int64_t more = memory_of(q, size, bitmap->granularity);

            memory = more == INT64_MAX ? more : memory + more;
        }
    }
    if (memory > QCOW2_BITMAPS_MEMORY_MAX) {
        return block_error(errp, EFBIG, "Node '%s' ('%s'): with bitmap '%s', "
                           "the bitmaps of the image would take more than %"
                           G_GINT64_FORMAT " bytes; give it a larger "
                           "granularity", bdrv_node_name(bs),
                           bdrv_filename(bs), name, QCOW2_BITMAPS_MEMORY_MAX);
    }
    return check_dir(q, nr, bytes, errp);
}

/* --- another length ------------------------------------------------------- */

char *coroutine_fn qcow2_bitmaps_obstacle(Qcow2 *q, int64_t size)
{
    g_autoptr(GPtrArray) bitmaps = NULL;
    int64_t finest = dirty_bitmaps_finest(q->bs);
    int ret = qcow2_bitmap_dir_read(q, &bitmaps, NULL);

    if (finest > 0 && memory_of(q, size, finest) == INT64_MAX) {
        return g_strdup("its bitmaps would be too large; remove those with a "
                        "small granularity");
    }
    if (ret == -EINVAL) {
        return NULL; /* nonsense, which nobody uses */
    }
    if (ret < 0) {
        return g_strdup_printf("its bitmaps cannot be read: %s",
                               g_strerror(-ret));
    }
    for (guint i = 0; i < bitmaps->len; i++) {
        const Qcow2Bitmap *bitmap = g_ptr_array_index(bitmaps, i);

        /* What cannot be used does not become worse. */
        if (!dirty_bitmaps_track(q->bs, bitmap->name) &&
            !(bitmap->flags & QCOW2_BME_IN_USE) &&
            !qcow2_bitmap_defect(q, bitmap)) {
            return g_strdup_printf("bitmap '%s' is stored for a disk of the "
                                   "old size, and is not loaded; remove it "
                                   "first", bitmap->name);
        }
    }
    return NULL;
}
