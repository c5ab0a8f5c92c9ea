/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A hierarchical bitmap: which parts of a disk are dirty.
 *
 * It covers @size items (bytes, clusters, ...).  One bit stands for 1 <<
 * @granularity items, a granule; the last granule may be cut by the end.  All
 * offsets and counts are in items.  A range given to a function must lie
 * inside the bitmap, unless it says that it cuts.
 *
 * Finding the next dirty bit takes a few memory accesses however sparse the
 * bitmap is.  Memory: a bit a granule and 1/63 of that on top.
 *
 * Not thread-safe: the caller's lock guards the bitmap.  Nothing here yields.
 */
#ifndef UTIL_HBITMAP_H
#define UTIL_HBITMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct HBitmap HBitmap;

/** Most bits a bitmap may have (8 GiB of memory). */
#define HBITMAP_BITS_MAX (INT64_C(1) << 36)

/** Largest granularity: log2 of items a bit. */
#define HBITMAP_GRANULARITY_MAX 48

/**
 * A bitmap of @size >= 0 items, all clean, one bit for 1 << @granularity.
 *
 * Returns NULL when it would need more than HBITMAP_BITS_MAX bits or there is
 * no memory.  Free with hbitmap_free().
 */
HBitmap *hbitmap_new(int64_t size, int granularity);

/** Free @hb; NULL is ignored. */
void hbitmap_free(HBitmap *hb);

/** A bitmap of its own with the same bits; NULL: no memory. */
HBitmap *hbitmap_clone(const HBitmap *hb);

/** How many items @hb covers. */
int64_t hbitmap_size(const HBitmap *hb);

/** log2 of the items that one bit stands for. */
int hbitmap_granularity(const HBitmap *hb);

/** How many items are dirty; exact at the end too.  O(1). */
int64_t hbitmap_count(const HBitmap *hb);

/** Whether nothing is dirty.  O(1). */
bool hbitmap_is_empty(const HBitmap *hb);

/** Make each granule dirty that @start..@start+@count touches. */
void hbitmap_set(HBitmap *hb, int64_t start, int64_t count);

/**
 * Make @start..@start+@count clean.  Both ends must be multiples of a granule,
 * or the end of the bitmap: a granule that is cleaned in part would forget
 * what is dirty in the rest.
 */
void hbitmap_reset(HBitmap *hb, int64_t start, int64_t count);

/** Make all clean. */
void hbitmap_reset_all(HBitmap *hb);

/** Whether @item is dirty. */
bool hbitmap_get(const HBitmap *hb, int64_t item);

/**
 * The first dirty item of @start..@start+@count, cut at the end of the bitmap;
 * INT64_MAX searches to the end.  Returns -1 if there is none.
 */
int64_t hbitmap_next_dirty(const HBitmap *hb, int64_t start, int64_t count);

/** As hbitmap_next_dirty(), but the first clean item. */
int64_t hbitmap_next_zero(const HBitmap *hb, int64_t start, int64_t count);

/**
 * The first run of dirty items in @start..@end-1, cut at the end of the
 * bitmap, and at most @max_count > 0 items of it.
 *
 * Returns false, results unchanged, if all is clean.
 */
bool hbitmap_next_dirty_area(const HBitmap *hb, int64_t start, int64_t end,
                             int64_t max_count, int64_t *ret_start,
                             int64_t *ret_count);

/**
 * Whether @start is dirty, and for how many of the @count > 0 items from there
 * on the answer is the same.
 */
bool hbitmap_status(const HBitmap *hb, int64_t start, int64_t count,
                    int64_t *ret_count);

/**
 * Make dirty in @to what is dirty in @from, which must be of the same size.
 * By words if the granularities are the same; else by areas, rounded outwards
 * to the granules of @to.
 */
void hbitmap_merge(HBitmap *to, const HBitmap *from);

/**
 * Change the size; items that come are clean, except those that fall into the
 * old last granule while it is dirty.
 *
 * Returns 0, -EFBIG (more than HBITMAP_BITS_MAX bits) or -ENOMEM, @hb
 * unchanged.  Shrinking never fails.
 */
int hbitmap_truncate(HBitmap *hb, int64_t size);

/**
 * Provide the memory of @size items, so that hbitmap_truncate() to that size,
 * or to less, cannot fail.  Returns 0, -EFBIG or -ENOMEM.
 */
int hbitmap_reserve(HBitmap *hb, int64_t size);

/**
 * A walk over the dirty granules.  It holds no more than a position: bits
 * that are set or reset ahead of it are seen as they are when it comes there,
 * those behind it are not seen, and @hb may be truncated.
 */
typedef struct HBitmapIter {
    const HBitmap *hb;
    int64_t next;           /* where to look next, an item */
} HBitmapIter;

/** Begin a walk at @start, which may be in the middle of a granule. */
void hbitmap_iter_init(HBitmapIter *iter, const HBitmap *hb, int64_t start);

/**
 * The next dirty granule, as its first item (the first time: not before the
 * start of the walk), or -1 at the end.  After the end it may be called again.
 */
int64_t hbitmap_iter_next(HBitmapIter *iter);

/* --- looking without the lock --------------------------------------------- */

/** Longest range that hbitmap_peek_is_dirty() looks at, in granules. */
#define HBITMAP_PEEK_BITS 1024

/**
 * What can be looked at without the lock of the caller, by any thread, while
 * others set and reset bits; not while they truncate, reserve, deserialize or
 * free.
 */
typedef struct HBitmapPeek {
    const uint64_t *words;
    int64_t size;
    int granularity;
} HBitmapPeek;

/** Look at @hb from now on, until its memory changes. */
HBitmapPeek hbitmap_peek(const HBitmap *hb);

/**
 * Whether all of @start..@start+@count is dirty, @count > 0.  Also false if it
 * is longer than HBITMAP_PEEK_BITS or passes the end.  Orders nothing: the
 * caller does.
 */
static inline bool hbitmap_peek_is_dirty(const HBitmapPeek *peek,
                                         int64_t start, int64_t count)
{
    int64_t first, last;

    if (start > peek->size || count > peek->size - start) {
        return false;
    }
    first = start >> peek->granularity;
    last = (start + count - 1) >> peek->granularity;
    if (last - first >= HBITMAP_PEEK_BITS) {
        return false;
    }
    for (int64_t w = first >> 6; w <= last >> 6; w++) {
        uint64_t mask = UINT64_MAX;

        mask &= w == first >> 6 ? UINT64_MAX << (first & 63) : UINT64_MAX;
        mask &= w == last >> 6 ? UINT64_MAX >> (~last & 63) : UINT64_MAX;
        if (~__atomic_load_n(&peek->words[w], __ATOMIC_RELAXED) & mask) {
            return false;
        }
    }
    return true;
}

/* --- serialization: the bits as little-endian 64-bit words --------------- */

/**
 * The multiple of which the start of a part must be, and its end too if that
 * is not the end of the bitmap.
 */
int64_t hbitmap_serialization_align(const HBitmap *hb);

/** How many bytes the part @start..@start+@count takes. */
size_t hbitmap_serialization_size(const HBitmap *hb, int64_t start,
                                  int64_t count);

/** Write the part @start..@start+@count to @buf; bits past the end are 0. */
void hbitmap_serialize_part(const HBitmap *hb, void *buf, int64_t start,
                            int64_t count);

/**
 * Replace the part @start..@start+@count by what @buf holds; bits past the end
 * of the bitmap are ignored.
 *
 * After this and the two functions below, only they and freeing are allowed
 * until hbitmap_deserialize_finish().
 */
void hbitmap_deserialize_part(HBitmap *hb, const void *buf, int64_t start,
                              int64_t count);

/**
 * Make dirty what @buf says of the part @start..@start+@count; bits past the
 * end of the bitmap are ignored.  It is a bitmap all the time.
 */
void hbitmap_merge_part(HBitmap *hb, const void *buf, int64_t start,
                        int64_t count);

/** As hbitmap_deserialize_part(), from a buffer that is all zero. */
void hbitmap_deserialize_zeroes(HBitmap *hb, int64_t start, int64_t count);

/** As hbitmap_deserialize_part(), from a buffer whose bits are all set. */
void hbitmap_deserialize_ones(HBitmap *hb, int64_t start, int64_t count);

/** End deserialization: @hb is a bitmap again.  O(bits / 64). */
void hbitmap_deserialize_finish(HBitmap *hb);

/**
 * SHA-256 of the serialized bitmap, in hexadecimal; two bitmaps with the same
 * bits have the same.  g_free() it.
 */
char *hbitmap_sha256(const HBitmap *hb);

#endif /* UTIL_HBITMAP_H */
