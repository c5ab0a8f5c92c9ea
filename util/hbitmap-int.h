/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inside of a hierarchical bitmap, for its core and its serialization.
 */
#ifndef UTIL_HBITMAP_INT_H
#define UTIL_HBITMAP_INT_H

#include "util/hbitmap.h"

#include <glib.h>

#define HBITMAP_WORD_SHIFT 6
#define HBITMAP_WORD_BITS (1 << HBITMAP_WORD_SHIFT)

/* 64^6 bits are HBITMAP_BITS_MAX. */
#define HBITMAP_LEVELS_MAX 6

G_STATIC_ASSERT(INT64_C(1) << (HBITMAP_LEVELS_MAX * HBITMAP_WORD_SHIFT) ==
                HBITMAP_BITS_MAX);

typedef struct HBitmapLevel {
    uint64_t *words;
    int64_t nr_words;
    int64_t capacity;       /* words there is memory for; the rest are 0 */
} HBitmapLevel;

struct HBitmap {
    /* Set by hbitmap_new(), never changed. */
    int granularity;

    /* Guarded by the lock of the caller. */
    int64_t size;           /* in items */
    int64_t nr_bits;        /* granules, the cut one included */
    int64_t nr_dirty;       /* bits that are set */
    bool loading;           /* between deserialize_...() and finish */

    /*
     * levels[0] has a bit for each granule; bit i of levels[k] says whether
     * word i of levels[k - 1] is not zero.  The last level has one word.  More
     * levels may have memory, all zero, for growth.
     */
    int nr_levels;
    HBitmapLevel levels[HBITMAP_LEVELS_MAX];
};

/** How many bits of @word are set; plain C beats the call on old x86. */
static inline int hbitmap_popcount(uint64_t word)
{
    word -= (word >> 1) & UINT64_C(0x5555555555555555);
    word = (word & UINT64_C(0x3333333333333333)) +
           ((word >> 2) & UINT64_C(0x3333333333333333));
    word = (word + (word >> 4)) & UINT64_C(0x0f0f0f0f0f0f0f0f);
    return (word * UINT64_C(0x0101010101010101)) >> 56;
}

/**
 * Words of the lowest level may be read by hbitmap_peek_is_dirty() while they
 * change; so they are written as a whole.
 */
static inline void hbitmap_put(uint64_t *word, uint64_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELAXED);
}

/** Assert that @start..@start+@count lies inside of @hb. */
static inline void hbitmap_assert_range(const HBitmap *hb, int64_t start,
                                        int64_t count)
{
    g_assert(start >= 0 && count >= 0 && start <= hb->size &&
             count <= hb->size - start);
}

#endif /* UTIL_HBITMAP_INT_H */
