/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Dirty bitmaps: which parts of a node were changed.
 *
 * A bitmap belongs to one node and has a bit for each granule of it.  While it
 * is enabled, each write, zero write, discard, copy and change of length that
 * reaches the node makes dirty what it touches, well or not, before it is
 * reported done.  So a bitmap is a superset of what has changed since it was
 * made, enabled or cleaned.
 *
 * See docs/dirty-bitmaps.md for its states, and for who may do what.
 *
 * Thread: bitmaps are made, found, released and change their state in the main
 * context of the graph; bits may be looked at and changed by any thread, while
 * the bitmap is not released.  Nothing here yields, but the calls marked so.
 * Functions that can fail return 0 or a negative errno with @errp set.
 */
#ifndef BLOCKGRAPH_DIRTY_BITMAP_H
#define BLOCKGRAPH_DIRTY_BITMAP_H

#include <blockgraph/common.h>
#include <blockgraph/error.h>

G_BEGIN_DECLS

/** A dirty bitmap of a node.  It goes with its node at the latest. */
typedef struct BdrvDirtyBitmap BdrvDirtyBitmap;

/** Limits of the granularity, in bytes; it is a power of two. */
#define BDRV_BITMAP_GRANULARITY_MIN INT64_C(512)
#define BDRV_BITMAP_GRANULARITY_MAX (INT64_C(1) << 31)

/** Longest name of a bitmap, in bytes without the closing NUL. */
#define BDRV_BITMAP_NAME_MAX 1023

/* --- life ----------------------------------------------------------------- */

/**
 * The granularity of a bitmap of @bs for which none is given: the cluster size
 * of the node below filters, but at least 4 KiB; 64 KiB if it has none.
 */
BLOCK_API int64_t bdrv_default_bitmap_granularity(BlockDriverState *bs);

/**
 * Make a bitmap of @bs, all clean and enabled.
 *
 * @granularity  bytes a bit; 0: bdrv_default_bitmap_granularity()
 * @name         1 to BDRV_BITMAP_NAME_MAX bytes; NULL: anonymous
 *
 * Returns the bitmap, owned by the node; or NULL with @errp set: -EINVAL
 * (granularity, name), -EEXIST, -EFBIG (more than 2^36 bits), -ENOMEM.
 *
 * Thread: main context.  Requests in flight are marked, or what they have
 * written can be read when this returns.
 */
BLOCK_API BdrvDirtyBitmap *bdrv_create_dirty_bitmap(BlockDriverState *bs,
                                                    int64_t granularity,
                                                    const char *name,
                                                    GError **errp);

/** The bitmap of @bs of that name, or NULL.  Thread: main context. */
BLOCK_API BdrvDirtyBitmap *bdrv_find_dirty_bitmap(BlockDriverState *bs,
                                                  const char *name);

/** The bitmap made after @bitmap (NULL: the first one of @bs), or NULL.
 * Anonymous ones are among them.  Thread: main context. */
BLOCK_API BdrvDirtyBitmap *bdrv_dirty_bitmap_next(BlockDriverState *bs,
                                                  BdrvDirtyBitmap *bitmap);

/**
 * Free @bitmap, which is not busy; NULL is ignored.  What an image stores under
 * its name stays there: see bdrv_remove_dirty_bitmap().
 *
 * Thread: main context; no other thread uses @bitmap.
 */
BLOCK_API void bdrv_release_dirty_bitmap(BdrvDirtyBitmap *bitmap);

/* --- facts ---------------------------------------------------------------- */

/** The name, or NULL.  Valid until the bitmap goes. */
BLOCK_API const char *bdrv_dirty_bitmap_name(const BdrvDirtyBitmap *bitmap);

/** The node of @bitmap. */
BLOCK_API BlockDriverState *bdrv_dirty_bitmap_bs(
    const BdrvDirtyBitmap *bitmap);

/** Bytes that a bit stands for. */
BLOCK_API int64_t bdrv_dirty_bitmap_granularity(
    const BdrvDirtyBitmap *bitmap);

/** Length that the bitmap covers, in bytes; 0 if it is inconsistent. */
BLOCK_API int64_t bdrv_dirty_bitmap_size(BdrvDirtyBitmap *bitmap);

/* --- states --------------------------------------------------------------- */

/** What a bitmap must not be for an operation; bits. */
typedef enum BdrvBitmapState {
    BDRV_BITMAP_BUSY = 1 << 0,         /* in use by an operation */
    BDRV_BITMAP_RO = 1 << 1,           /* the node cannot be written */
    BDRV_BITMAP_INCONSISTENT = 1 << 2, /* was not kept: can only be removed */
} BdrvBitmapState;

/** All of them, and all but read-only. */
#define BDRV_BITMAP_DEFAULT 7
#define BDRV_BITMAP_ALLOW_RO 5

/**
 * Check that @bitmap is in none of the states @flags.
 *
 * Returns 0; -EBUSY, -EACCES or -EINVAL with @errp naming bitmap, node and
 * what is the matter.  Thread: main context.
 */
BLOCK_API int bdrv_dirty_bitmap_check(BdrvDirtyBitmap *bitmap,
                                      unsigned flags, GError **errp);

/** Whether changes make bits dirty (in the successor, if there is one). */
BLOCK_API bool bdrv_dirty_bitmap_enabled(BdrvDirtyBitmap *bitmap);

/** Whether an operation uses the bitmap. */
BLOCK_API bool bdrv_dirty_bitmap_busy(BdrvDirtyBitmap *bitmap);

/** Whether the bitmap cannot be changed, as its node cannot. */
BLOCK_API bool bdrv_dirty_bitmap_readonly(BdrvDirtyBitmap *bitmap);

/** Whether the bitmap has missed changes, and can only be removed. */
BLOCK_API bool bdrv_dirty_bitmap_inconsistent(BdrvDirtyBitmap *bitmap);

/** Whether the bitmap is stored in the image when that is closed. */
BLOCK_API bool bdrv_dirty_bitmap_persistent(BdrvDirtyBitmap *bitmap);

/** Whether the bitmap is frozen, and a successor tracks in its place. */
BLOCK_API bool bdrv_dirty_bitmap_has_successor(BdrvDirtyBitmap *bitmap);

/**
 * Say that an operation uses @bitmap from now on, or no longer.  Whoever does
 * has checked that it was not busy.
 */
BLOCK_API void bdrv_dirty_bitmap_set_busy(BdrvDirtyBitmap *bitmap, bool busy);

/** Forbid or allow changes; for drivers, when their node changes its mode. */
BLOCK_API void bdrv_dirty_bitmap_set_readonly(BdrvDirtyBitmap *bitmap,
                                              bool readonly);

/** The bitmap has missed changes.  Its bits are freed.  Not if it is busy. */
BLOCK_API void bdrv_dirty_bitmap_set_inconsistent(BdrvDirtyBitmap *bitmap);

/**
 * Begin to track changes.  Fails if the bitmap is read-only or inconsistent;
 * so do the two below.  Whether it is busy is for the caller to check: who
 * made it so may change it.
 */
BLOCK_API int bdrv_enable_dirty_bitmap(BdrvDirtyBitmap *bitmap,
                                       GError **errp);

/** Track changes no more; the bits stay.  A request in flight may be either
 * before or after. */
BLOCK_API int bdrv_disable_dirty_bitmap(BdrvDirtyBitmap *bitmap,
                                        GError **errp);

/** Make all clean. */
BLOCK_API int bdrv_clear_dirty_bitmap(BdrvDirtyBitmap *bitmap,
                                      GError **errp);

/**
 * Make dirty in @dest what is in the @nr bitmaps @sources; of any node and any
 * granularity, outwards to whole granules.
 *
 * All or nothing.  -EBUSY, -EACCES (@dest), -EINVAL (inconsistent; or of
 * another size: the error says which), -ENOMEM.
 */
BLOCK_API int bdrv_merge_dirty_bitmaps(BdrvDirtyBitmap *dest,
                                       BdrvDirtyBitmap *const *sources,
                                       size_t nr, GError **errp);

/** bdrv_merge_dirty_bitmaps() of one. */
BLOCK_API int bdrv_merge_dirty_bitmap(BdrvDirtyBitmap *dest,
                                      BdrvDirtyBitmap *source,
                                      GError **errp);

/* --- successors ----------------------------------------------------------- */
/*
 * An operation that works on a bitmap while changes go on freezes it:
 *
 *               create_successor              abdicate (it went well)
 *    bitmap ----------------------> frozen -----------------------------+
 *      ^                            bitmap + successor                  |
 *      |        reclaim (it failed)   |                                 v
 *      +------------------------------+            successor, under the name
 */

/**
 * Freeze @bitmap, which becomes busy, and let an anonymous one of the same
 * granularity track in its place, if it was enabled.
 */
BLOCK_API int
bdrv_dirty_bitmap_create_successor(BdrvDirtyBitmap *bitmap, GError **errp);

/**
 * The successor takes the place and the name of @bitmap, which is freed.
 * Returns it; or NULL with @errp if there is none.
 */
BLOCK_API BdrvDirtyBitmap *bdrv_dirty_bitmap_abdicate(BdrvDirtyBitmap *bitmap,
                                                      GError **errp);

/**
 * What the successor has goes to @bitmap, which tracks again if the successor
 * did, and is not busy; the successor is freed.  Returns @bitmap; or NULL with
 * @errp, then both are as before.
 */
BLOCK_API BdrvDirtyBitmap *bdrv_reclaim_dirty_bitmap(BdrvDirtyBitmap *bitmap,
                                                     GError **errp);

/* --- bits: any thread ----------------------------------------------------- */
/*
 * Not of an inconsistent bitmap.  Offsets and lengths in bytes, any alignment,
 * not negative; what is beyond the end is cut.  Who changes bits elsewhere than
 * in the main context keeps the bitmap busy, so that it does not become
 * read-only meanwhile.
 */

/** Make each granule dirty that the range touches.  Not if read-only. */
BLOCK_API void bdrv_set_dirty_bitmap(BdrvDirtyBitmap *bitmap, int64_t offset,
                                     int64_t bytes);

/**
 * Make each granule clean that lies in the range as a whole: one that it only
 * touches keeps its bit, which may stand for the rest.  Not if read-only.
 *
 * What a request has written that was reported done, or that found the bit
 * dirty, can be read when this returns.
 */
BLOCK_API void bdrv_reset_dirty_bitmap(BdrvDirtyBitmap *bitmap,
                                       int64_t offset, int64_t bytes);

/** Whether the byte at @offset is dirty; false beyond the end. */
BLOCK_API bool bdrv_dirty_bitmap_get(BdrvDirtyBitmap *bitmap, int64_t offset);

/** How many bytes are dirty; exact at the end too. */
BLOCK_API int64_t bdrv_get_dirty_count(BdrvDirtyBitmap *bitmap);

/** The first dirty byte of the range, or -1; @bytes INT64_MAX: to the end. */
BLOCK_API int64_t bdrv_dirty_bitmap_next_dirty(BdrvDirtyBitmap *bitmap,
                                               int64_t offset, int64_t bytes);

/** The first clean byte of the range, or -1. */
BLOCK_API int64_t bdrv_dirty_bitmap_next_zero(BdrvDirtyBitmap *bitmap,
                                              int64_t offset, int64_t bytes);

/**
 * The first dirty area in [@start, @end), at most @max_bytes > 0 of it.
 * Returns false, results unchanged, if all is clean.
 */
BLOCK_API bool bdrv_dirty_bitmap_next_dirty_area(
    BdrvDirtyBitmap *bitmap, int64_t start, int64_t end, int64_t max_bytes,
    int64_t *ret_start, int64_t *ret_bytes);

/**
 * Whether the byte at @offset, which is inside, is dirty, and for how many of
 * the @bytes > 0 from there on the answer is the same (@ret_bytes > 0).
 */
BLOCK_API bool bdrv_dirty_bitmap_status(BdrvDirtyBitmap *bitmap,
                                        int64_t offset, int64_t bytes,
                                        int64_t *ret_bytes);

/** SHA-256 of the bits as they are serialized, in hexadecimal.  g_free(). */
BLOCK_API char *bdrv_dirty_bitmap_sha256(BdrvDirtyBitmap *bitmap);

/* --- as bytes: any thread ------------------------------------------------- */
/*
 * The bits as little-endian 64-bit words; parts begin and end at multiples of
 * the alignment, or end at the end of the bitmap.
 */

/** The multiple of which the ends of a part must be, in bytes of the node. */
BLOCK_API int64_t bdrv_dirty_bitmap_serialization_align(
    const BdrvDirtyBitmap *bitmap);

/** How many bytes of memory the part takes. */
BLOCK_API size_t bdrv_dirty_bitmap_serialization_size(
    BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes);

/** Write the part to @buf.  -EINVAL: no such part. */
BLOCK_API int bdrv_dirty_bitmap_serialize_part(BdrvDirtyBitmap *bitmap,
                                               void *buf, int64_t offset,
                                               int64_t bytes);

/**
 * Make dirty what the part in @buf says: what the bitmap has already stays.
 * Bits past its end are ignored.  @buf NULL: a part that is all dirty.
 * -EINVAL: no such part, -ENOMEM.
 */
BLOCK_API int bdrv_dirty_bitmap_deserialize_part(BdrvDirtyBitmap *bitmap,
                                                 const void *buf,
                                                 int64_t offset,
                                                 int64_t bytes);

/* --- stored bitmaps: main context ----------------------------------------- */

/**
 * Whether a new persistent bitmap could be made: the format stores bitmaps, and
 * has room for one more, counting those that are not stored yet.  -ENOTSUP,
 * -EACCES (read-only), -EEXIST, -EINVAL, -EFBIG, -ENOSPC.
 */
BLOCK_API int bdrv_can_store_new_dirty_bitmap(BlockDriverState *bs,
                                              const char *name,
                                              int64_t granularity,
                                              GError **errp);

/**
 * Say whether @bitmap is to be stored in the image when that is closed or
 * becomes read-only.  Fails as bdrv_can_store_new_dirty_bitmap() does; and with
 * -EBUSY if it is stored already and shall not be: remove it.
 */
BLOCK_API int bdrv_dirty_bitmap_set_persistence(BdrvDirtyBitmap *bitmap,
                                                bool persistent,
                                                GError **errp);

/**
 * Free @bitmap, which is not busy, and remove it from the image.  After a
 * failure it is there as before.  Yields.
 */
BLOCK_API int coroutine_fn bdrv_co_remove_dirty_bitmap(
    BdrvDirtyBitmap *bitmap, GError **errp);

/** bdrv_co_remove_dirty_bitmap() for callers outside coroutines. */
BLOCK_API int bdrv_remove_dirty_bitmap(BdrvDirtyBitmap *bitmap,
                                       GError **errp);

G_END_DECLS

#endif /* BLOCKGRAPH_DIRTY_BITMAP_H */
