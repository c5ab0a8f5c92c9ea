/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The bits of a dirty bitmap: by any thread, under the lock of the bitmaps.
 *
 * What is made dirty is rounded outwards to granules, what is made clean
 * inwards.  A bitmap may become inconsistent at any time (no memory to follow
 * a growing node); then it is empty for who looks, and who has to know asks
 * for its state.
 */
#include "block/bitmap/dirty-bitmap.h"

#include <errno.h>
#include <string.h>

/* --- changing ------------------------------------------------------------- */

/* Cut the range at the end; returns whether anything is left. */
static bool cut(const HBitmap *bits, int64_t offset, int64_t *bytes)
{
    g_assert(offset >= 0 && *bytes >= 0);
    if (!bits || offset >= hbitmap_size(bits)) {
        return false;
    }
    *bytes = MIN(*bytes, hbitmap_size(bits) - offset);
    return *bytes > 0;
}

void bdrv_set_dirty_bitmap(BdrvDirtyBitmap *bitmap, int64_t offset,
                           int64_t bytes)
{
    LOCK_GUARD(&bitmap->bs->dirty.lock);
    g_assert(!bitmap->readonly);
    if (cut(bitmap->bits, offset, &bytes)) {
        hbitmap_set(bitmap->bits, offset, bytes);
        bitmap->changed = true;
    }
}

static void reset_locked(BdrvDirtyBitmap *bitmap, int64_t offset,
                         int64_t bytes)
{
    int64_t mask = bitmap->granularity - 1;
    int64_t end = offset + bytes;

    /* The end of the bitmap ends its last granule. */
    if (end != hbitmap_size(bitmap->bits)) {
        end &= ~mask;
    }
    if (offset > INT64_MAX - mask) {
        return; /* inside the last granule that there can be */
    }
    offset = (offset + mask) & ~mask;
    if (offset < end) {
        hbitmap_reset(bitmap->bits, offset, end - offset);
        bitmap->changed = true;
    }
}

void bdrv_reset_dirty_bitmap(BdrvDirtyBitmap *bitmap, int64_t offset,
                             int64_t bytes)
{
    WITH_LOCK(&bitmap->bs->dirty.lock) {
        g_assert(!bitmap->readonly);
        if (cut(bitmap->bits, offset, &bytes)) {
            reset_locked(bitmap, offset, bytes);
        }
    }
    dirty_marks_order(bitmap->bs);
}

/* --- looking -------------------------------------------------------------- */

int64_t bdrv_dirty_bitmap_size(BdrvDirtyBitmap *bitmap)
{
    LOCK_GUARD(&bitmap->bs->dirty.lock);
    return bitmap->bits ? hbitmap_size(bitmap->bits) : 0;
}

bool bdrv_dirty_bitmap_get(BdrvDirtyBitmap *bitmap, int64_t offset)
{
    LOCK_GUARD(&bitmap->bs->dirty.lock);
    g_assert(offset >= 0);
    return bitmap->bits && offset < hbitmap_size(bitmap->bits) &&
           hbitmap_get(bitmap->bits, offset);
}

int64_t bdrv_get_dirty_count(BdrvDirtyBitmap *bitmap)
{
    LOCK_GUARD(&bitmap->bs->dirty.lock);
    return bitmap->bits ? hbitmap_count(bitmap->bits) : 0;
}

int64_t bdrv_dirty_bitmap_next_dirty(BdrvDirtyBitmap *bitmap, int64_t offset,
                                     int64_t bytes)
{
    LOCK_GUARD(&bitmap->bs->dirty.lock);
    return bitmap->bits ? hbitmap_next_dirty(bitmap->bits, offset, bytes) : -1;
}

int64_t bdrv_dirty_bitmap_next_zero(BdrvDirtyBitmap *bitmap, int64_t offset,
                                    int64_t bytes)
{
    LOCK_GUARD(&bitmap->bs->dirty.lock);
    return bitmap->bits ? hbitmap_next_zero(bitmap->bits, offset, bytes) : -1;
}

bool bdrv_dirty_bitmap_next_dirty_area(BdrvDirtyBitmap *bitmap, int64_t start,
                                       int64_t end, int64_t max_bytes,
                                       int64_t *ret_start, int64_t *ret_bytes)
{
    LOCK_GUARD(&bitmap->bs->dirty.lock);
    return bitmap->bits &&
           hbitmap_next_dirty_area(bitmap->bits, start, end, max_bytes,
                                   ret_start, ret_bytes);
}

bool bdrv_dirty_bitmap_status(BdrvDirtyBitmap *bitmap, int64_t offset,
                              int64_t bytes, int64_t *ret_bytes)
{
    LOCK_GUARD(&bitmap->bs->dirty.lock);
    *ret_bytes = bytes;
    return cut(bitmap->bits, offset, &bytes) &&
           hbitmap_status(bitmap->bits, offset, bytes, ret_bytes);
}

char *bdrv_dirty_bitmap_sha256(BdrvDirtyBitmap *bitmap)
{
    HBitmap *copy = NULL;
    char *digest;

    /* The digest takes much longer than a copy. */
    WITH_LOCK(&bitmap->bs->dirty.lock) {
        copy = bitmap->bits ? hbitmap_clone(bitmap->bits) : NULL;
        if (bitmap->bits && !copy) {
            return hbitmap_sha256(bitmap->bits);
        }
    }
    if (!copy) {
        copy = hbitmap_new(0, __builtin_ctzll(bitmap->granularity));
    }
    digest = hbitmap_sha256(copy);
    hbitmap_free(copy);
    return digest;
}

/* --- as bytes ------------------------------------------------------------- */

int64_t bdrv_dirty_bitmap_serialization_align(const BdrvDirtyBitmap *bitmap)
{
    return bitmap->granularity * 64;
}

/* Whether there is such a part. */
static bool is_part(const BdrvDirtyBitmap *bitmap, int64_t offset,
                    int64_t bytes)
{
    int64_t mask = bdrv_dirty_bitmap_serialization_align(bitmap) - 1;
    int64_t size = bitmap->bits ? hbitmap_size(bitmap->bits) : 0;

    return offset >= 0 && bytes >= 0 && offset <= size &&
           bytes <= size - offset && !(offset & mask) &&
           (!(bytes & mask) || offset + bytes == size) && bitmap->bits;
}

size_t bdrv_dirty_bitmap_serialization_size(BdrvDirtyBitmap *bitmap,
                                            int64_t offset, int64_t bytes)
{
    LOCK_GUARD(&bitmap->bs->dirty.lock);
    return is_part(bitmap, offset, bytes)
               ? hbitmap_serialization_size(bitmap->bits, offset, bytes)
               : 0;
}

int bdrv_dirty_bitmap_serialize_part(BdrvDirtyBitmap *bitmap, void *buf,
                                     int64_t offset, int64_t bytes)
{
    LOCK_GUARD(&bitmap->bs->dirty.lock);
    if (!is_part(bitmap, offset, bytes)) {
        return -EINVAL;
    }
    hbitmap_serialize_part(bitmap->bits, buf, offset, bytes);
    return 0;
}

int bdrv_dirty_bitmap_deserialize_part(BdrvDirtyBitmap *bitmap,
                                       const void *buf, int64_t offset,
                                       int64_t bytes)
{
    LOCK_GUARD(&bitmap->bs->dirty.lock);
    g_assert(!bitmap->readonly);
    if (!is_part(bitmap, offset, bytes)) {
        return -EINVAL;
    }
    if (bytes == 0) {
        return 0;
    }
    if (buf) {
        hbitmap_merge_part(bitmap->bits, buf, offset, bytes);
    } else {
        hbitmap_set(bitmap->bits, offset, bytes);
    }
    bitmap->changed = true;
    return 0;
}
