/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A hierarchical bitmap: which parts of a disk are dirty.
 *
 * I1  Bit i of levels[k], k > 0, is set if and only if word i of levels[k - 1]
 *     is not zero.
 * I2  Bits at and past the last one of a level are 0.
 * I3  nr_dirty is the number of bits that are set in levels[0].
 *
 * Upper levels are touched only when a word goes from zero or to zero, so a
 * random set or reset in a bitmap that is not sparse costs one cache miss.
 */
#include "util/hbitmap-int.h"

#include <errno.h>
#include <string.h>

/* --- shape ---------------------------------------------------------------- */

static int64_t words_for(int64_t nr_bits)
{
    return MAX((nr_bits + HBITMAP_WORD_BITS - 1) >> HBITMAP_WORD_SHIFT, 1);
}

/* How many granules of 1 << @granularity items cover @size items. */
static int64_t bits_for(int64_t size, int granularity)
{
    return size ? ((size - 1) >> granularity) + 1 : 0;
}

/* Fill in nr_words; returns how many levels @nr_bits bits need. */
static int shape_of(int64_t nr_bits, HBitmapLevel *levels)
{
    int nr_levels = 0;

    do {
        g_assert(nr_levels < HBITMAP_LEVELS_MAX);
        levels[nr_levels].nr_words = words_for(nr_bits);
        nr_bits = levels[nr_levels].nr_words;
        nr_levels++;
    } while (nr_bits > 1);
    return nr_levels;
}

static void free_levels(HBitmapLevel *levels, int first, int nr_levels)
{
    for (int k = first; k < nr_levels; k++) {
        g_free(levels[k].words);
        levels[k].words = NULL;
        levels[k].capacity = 0;
    }
}

/* Allocate zeroed words for all of @levels, or none. */
static bool alloc_levels(HBitmapLevel *levels, int nr_levels)
{
    for (int k = 0; k < nr_levels; k++) {
        levels[k].words = g_try_new0(uint64_t, levels[k].nr_words);
        if (!levels[k].words) {
            free_levels(levels, 0, k);
            return false;
        }
        levels[k].capacity = levels[k].nr_words;
    }
    return true;
}

HBitmap *hbitmap_new(int64_t size, int granularity)
{
    HBitmap *hb;
    int64_t nr_bits;

    g_assert(size >= 0);
    g_assert(granularity >= 0 && granularity <= HBITMAP_GRANULARITY_MAX);
    nr_bits = bits_for(size, granularity);
    if (nr_bits > HBITMAP_BITS_MAX) {
        return NULL;
    }
    hb = g_new0(HBitmap, 1);
    hb->granularity = granularity;
    hb->size = size;
    hb->nr_bits = nr_bits;
    hb->nr_levels = shape_of(nr_bits, hb->levels);
    if (!alloc_levels(hb->levels, hb->nr_levels)) {
        g_free(hb);
        return NULL;
    }
    return hb;
}

void hbitmap_free(HBitmap *hb)
{
    if (hb) {
        free_levels(hb->levels, 0, HBITMAP_LEVELS_MAX);
        g_free(hb);
    }
}

HBitmap *hbitmap_clone(const HBitmap *hb)
{
    HBitmap *clone;

    g_assert(!hb->loading);
    clone = hbitmap_new(hb->size, hb->granularity);
    if (!clone) {
        return NULL;
    }
    for (int k = 0; k < hb->nr_levels; k++) {
        memcpy(clone->levels[k].words, hb->levels[k].words,
               hb->levels[k].nr_words * sizeof(uint64_t));
    }
    clone->nr_dirty = hb->nr_dirty;
    return clone;
}

int64_t hbitmap_size(const HBitmap *hb)
{
    return hb->size;
}

int hbitmap_granularity(const HBitmap *hb)
{
    return hb->granularity;
}

bool hbitmap_is_empty(const HBitmap *hb)
{
    g_assert(!hb->loading);
    return hb->nr_dirty == 0;
}

/* --- set and reset -------------------------------------------------------- */

/* The bits from @first on, and those up to @last, of the word they are in. */
static uint64_t mask_from(int64_t first)
{
    return UINT64_MAX << (first & (HBITMAP_WORD_BITS - 1));
}

static uint64_t mask_upto(int64_t last)
{
    return UINT64_MAX >> (~last & (HBITMAP_WORD_BITS - 1));
}

static bool get_bit(const HBitmap *hb, int64_t bit)
{
    return hb->levels[0].words[bit >> HBITMAP_WORD_SHIFT] >>
           (bit & (HBITMAP_WORD_BITS - 1)) & 1;
}

/*
 * Set the bits @mask of a word.  Adds to *@changed the number of bits that
 * were 0; returns whether all were.
 */
static inline bool set_in_word(uint64_t *word, uint64_t mask,
                               int64_t *changed)
{
    uint64_t old = *word;

    hbitmap_put(word, old | mask);
    *changed += hbitmap_popcount(mask & ~old);
    return old == 0;
}

/* The same for clearing; returns whether the word became zero. */
static inline bool reset_in_word(uint64_t *word, uint64_t mask,
                                 int64_t *changed)
{
    uint64_t old = *word;

    hbitmap_put(word, old & ~mask);
    *changed += hbitmap_popcount(mask & old);
    return old != 0 && (old & ~mask) == 0;
}

/* Set bits @first..@last of one level; returns whether some word was zero. */
static bool set_in_level(HBitmapLevel *level, int64_t first, int64_t last,
                         int64_t *changed)
{
    int64_t w = first >> HBITMAP_WORD_SHIFT;
    int64_t last_word = last >> HBITMAP_WORD_SHIFT;
    uint64_t mask = mask_from(first);
    bool was_zero = false;

    for (; w < last_word; w++) {
        was_zero |= set_in_word(&level->words[w], mask, changed);
        mask = UINT64_MAX;
    }
    return set_in_word(&level->words[w], mask & mask_upto(last), changed) ||
           was_zero;
}

/* Clear bits @first..@last; returns whether some word became zero. */
static bool reset_in_level(HBitmapLevel *level, int64_t first, int64_t last,
                           int64_t *changed)
{
    int64_t w = first >> HBITMAP_WORD_SHIFT;
    int64_t last_word = last >> HBITMAP_WORD_SHIFT;
    uint64_t mask = mask_from(first);
    bool became_zero = false;

    for (; w < last_word; w++) {
        became_zero |= reset_in_word(&level->words[w], mask, changed);
        mask = UINT64_MAX;
    }
    return reset_in_word(&level->words[w], mask & mask_upto(last), changed) ||
           became_zero;
}

/* Set bits @first..@last (inclusive) and what follows from it above. */
static void set_bits(HBitmap *hb, int64_t first, int64_t last)
{
    int64_t ignored = 0;
    int64_t *changed = &hb->nr_dirty;

    /* In a sparse bitmap both are changed, and neither is in the cache. */
    if (hb->nr_levels > 1) {
        __builtin_prefetch(
            &hb->levels[1].words[first >> 2 * HBITMAP_WORD_SHIFT], 1);
    }
    for (int k = 0; k < hb->nr_levels; k++) {
        if (!set_in_level(&hb->levels[k], first, last, changed)) {
            return;
        }
        first >>= HBITMAP_WORD_SHIFT;
        last >>= HBITMAP_WORD_SHIFT;
        changed = &ignored;
    }
}

static void reset_bits(HBitmap *hb, int64_t first, int64_t last)
{
    int64_t cleared = 0, ignored = 0;
    int64_t *changed = &cleared;

    for (int k = 0; k < hb->nr_levels && first <= last; k++) {
        HBitmapLevel *level = &hb->levels[k];

        if (!reset_in_level(level, first, last, changed)) {
            break;
        }
        /* Only the words at the two ends can have kept bits. */
        first >>= HBITMAP_WORD_SHIFT;
        last >>= HBITMAP_WORD_SHIFT;
        if (first < last && level->words[last]) {
            last--;
        }
        if (level->words[first]) {
            first++;
        }
        changed = &ignored;
    }
    hb->nr_dirty -= cleared;
}

void hbitmap_set(HBitmap *hb, int64_t start, int64_t count)
{
    hbitmap_assert_range(hb, start, count);
    g_assert(!hb->loading);
    if (count > 0) {
        set_bits(hb, start >> hb->granularity,
                 (start + count - 1) >> hb->granularity);
    }
}

void hbitmap_reset(HBitmap *hb, int64_t start, int64_t count)
{
    int64_t mask = (INT64_C(1) << hb->granularity) - 1;
    int64_t end = start + count;

    hbitmap_assert_range(hb, start, count);
    g_assert(!hb->loading);
    g_assert(!(start & mask) && (!(end & mask) || end == hb->size));
    if (count > 0) {
        reset_bits(hb, start >> hb->granularity, (end - 1) >> hb->granularity);
    }
}

void hbitmap_reset_all(HBitmap *hb)
{
    g_assert(!hb->loading);
    for (int k = 0; k < hb->nr_levels; k++) {
        for (int64_t w = 0; w < hb->levels[k].nr_words; w++) {
            hbitmap_put(&hb->levels[k].words[w], 0);
        }
    }
    hb->nr_dirty = 0;
}

/* --- looking -------------------------------------------------------------- */

bool hbitmap_get(const HBitmap *hb, int64_t item)
{
    g_assert(item >= 0 && item < hb->size && !hb->loading);
    return get_bit(hb, item >> hb->granularity);
}

int64_t hbitmap_count(const HBitmap *hb)
{
    int64_t past_end;

    g_assert(!hb->loading);
    if (hb->nr_dirty == 0) {
        return 0;
    }
    /* The last granule counts only as far as the bitmap goes. */
    past_end = -hb->size & ((INT64_C(1) << hb->granularity) - 1);
    if (!get_bit(hb, hb->nr_bits - 1)) {
        past_end = 0;
    }
    /* Unsigned: the product alone may pass INT64_MAX, the result cannot. */
    return ((uint64_t)hb->nr_dirty << hb->granularity) - (uint64_t)past_end;
}

/* The first set bit from @bit on, or nr_bits. */
static int64_t find_set(const HBitmap *hb, int64_t bit)
{
    uint64_t word = 0;
    int k;

    /* Up to the first level that has something from here on ... */
    for (k = 0; k < hb->nr_levels; k++) {
        int64_t w = bit >> HBITMAP_WORD_SHIFT;

        if (w >= hb->levels[k].nr_words) {
            return hb->nr_bits;
        }
        word = hb->levels[k].words[w] & mask_from(bit);
        if (word) {
            bit = w;
            break;
        }
        bit = w + 1;
    }
    if (!word) {
        return hb->nr_bits;
    }
    /* ... and down again along the first bits. */
    for (;;) {
        bit = (bit << HBITMAP_WORD_SHIFT) + __builtin_ctzll(word);
        if (k-- == 0) {
            return bit;
        }
        word = hb->levels[k].words[bit];
        g_assert(word);                                         /* I1 */
    }
}

/* The first word from @w on that has a clear bit, or @end. */
static int64_t skip_full_words(const uint64_t *words, int64_t w, int64_t end)
{
    while (end - w >= 8) {
        const uint64_t *p = words + w;

        if ((p[0] & p[1] & p[2] & p[3] & p[4] & p[5] & p[6] & p[7]) !=
            UINT64_MAX) {
            break;
        }
        w += 8;
    }
    while (w < end && words[w] == UINT64_MAX) {
        w++;
    }
    return w;
}

/* The first clear bit from @bit on that is before @end, or @end. */
static int64_t find_clear(const HBitmap *hb, int64_t bit, int64_t end)
{
    const uint64_t *words = hb->levels[0].words;
    int64_t w = bit >> HBITMAP_WORD_SHIFT;
    int64_t end_word = words_for(end);
    uint64_t clear;

    if (bit >= end) {
        return end;
    }
    clear = ~words[w] & mask_from(bit);
    if (!clear) {
        w = skip_full_words(words, w + 1, end_word);
        if (w == end_word) {
            return end;
        }
        clear = ~words[w];
    }
    return MIN((w << HBITMAP_WORD_SHIFT) + __builtin_ctzll(clear), end);
}

/* Cut @start..@start+@count at the end; returns the end, -1 for nothing. */
static int64_t cut_range(const HBitmap *hb, int64_t start, int64_t count)
{
    g_assert(start >= 0 && count >= 0 && !hb->loading);
    if (start >= hb->size || count == 0) {
        return -1;
    }
    return start + MIN(count, hb->size - start);
}

int64_t hbitmap_next_dirty(const HBitmap *hb, int64_t start, int64_t count)
{
    int64_t end = cut_range(hb, start, count);
    int64_t bit;

    if (end < 0) {
        return -1;
    }
    bit = find_set(hb, start >> hb->granularity);
    if (bit > (end - 1) >> hb->granularity) {
        return -1;
    }
    return MAX(bit << hb->granularity, start);
}

int64_t hbitmap_next_zero(const HBitmap *hb, int64_t start, int64_t count)
{
    int64_t end = cut_range(hb, start, count);
    int64_t bit, end_bit;

    if (end < 0) {
        return -1;
    }
    end_bit = bits_for(end, hb->granularity);
    bit = find_clear(hb, start >> hb->granularity, end_bit);
    if (bit == end_bit) {
        return -1;
    }
    return MAX(bit << hb->granularity, start);
}

bool hbitmap_next_dirty_area(const HBitmap *hb, int64_t start, int64_t end,
                             int64_t max_count, int64_t *ret_start,
                             int64_t *ret_count)
{
    int64_t dirty, clean;

    g_assert(max_count > 0 && start >= 0 && end >= start);
    end = MIN(end, hb->size);
    if (start >= end) {
        return false;
    }
    dirty = hbitmap_next_dirty(hb, start, end - start);
    if (dirty < 0) {
        return false;
    }
    if (max_count < end - dirty) {
        end = dirty + max_count;
    }
    clean = hbitmap_next_zero(hb, dirty, end - dirty);
    *ret_start = dirty;
    *ret_count = (clean < 0 ? end : clean) - dirty;
    return true;
}

bool hbitmap_status(const HBitmap *hb, int64_t start, int64_t count,
                    int64_t *ret_count)
{
    bool dirty;
    int64_t change;

    hbitmap_assert_range(hb, start, count);
    g_assert(count > 0);
    dirty = hbitmap_get(hb, start);
    change = dirty ? hbitmap_next_zero(hb, start, count)
                   : hbitmap_next_dirty(hb, start, count);
    *ret_count = change < 0 ? count : change - start;
    return dirty;
}

void hbitmap_iter_init(HBitmapIter *iter, const HBitmap *hb, int64_t start)
{
    g_assert(start >= 0);
    iter->hb = hb;
    iter->next = start;
}

int64_t hbitmap_iter_next(HBitmapIter *iter)
{
    int granularity = iter->hb->granularity;
    int64_t item = hbitmap_next_dirty(iter->hb, iter->next, INT64_MAX);
    int64_t granule = item >> granularity;

    if (item < 0) {
        return -1;
    }
    /* Behind a last granule that is cut, 2^63 may come first. */
    if (granule + 1 < iter->hb->nr_bits) {
        iter->next = (granule + 1) << granularity;
    } else {
        iter->next = iter->hb->size;
    }
    return item;
}

/* --- whole bitmaps -------------------------------------------------------- */

/* Words @first..@end-1 of the lowest level; returns how many bits are new. */
static int64_t merge_run(uint64_t *to, const uint64_t *from, int64_t first,
                         int64_t end)
{
    int64_t added = 0;

    for (int64_t w = first; w < end; w++) {
        uint64_t add = from[w] & ~to[w];

        if (add) {
            hbitmap_put(&to[w], to[w] | add);
            added += hbitmap_popcount(add);
        }
    }
    return added;
}

static void merge_words(HBitmap *to, const HBitmap *from)
{
    int64_t nr_words = from->levels[0].nr_words;
    int64_t bit = 0;

    /* Visit the runs of 64 words of @from that are not all zero. */
    while ((bit = find_set(from, bit)) < from->nr_bits) {
        int64_t first = bit >> HBITMAP_WORD_SHIFT;
        int64_t end = MIN((first | (HBITMAP_WORD_BITS - 1)) + 1, nr_words);

        to->nr_dirty += merge_run(to->levels[0].words, from->levels[0].words,
                                  first, end);
        bit = end << HBITMAP_WORD_SHIFT;
    }
    /* Bitmaps of the same size and granularity have the same shape. */
    for (int k = 1; k < to->nr_levels; k++) {
        for (int64_t w = 0; w < to->levels[k].nr_words; w++) {
            to->levels[k].words[w] |= from->levels[k].words[w];
        }
    }
}

void hbitmap_merge(HBitmap *to, const HBitmap *from)
{
    int64_t start = 0, count = 0;

    g_assert(to->size == from->size && !to->loading && !from->loading);
    if (to->granularity == from->granularity) {
        merge_words(to, from);
        return;
    }
    while (hbitmap_next_dirty_area(from, start, from->size, INT64_MAX, &start,
                                   &count)) {
        hbitmap_set(to, start, count);
        start += count;
    }
}

/* Make the bitmap smaller, in place: this must not fail. */
static void shrink(HBitmap *hb, int64_t nr_bits)
{
    HBitmapLevel shape[HBITMAP_LEVELS_MAX] = { 0 };
    int nr_levels = shape_of(nr_bits, shape);

    if (nr_bits < hb->nr_bits) {
        reset_bits(hb, nr_bits, hb->nr_bits - 1);
    }
    for (int k = 0; k < nr_levels; k++) {
        HBitmapLevel *level = &hb->levels[k];

        if (shape[k].nr_words < level->nr_words) {
            uint64_t *smaller = g_try_renew(uint64_t, level->words,
                                            shape[k].nr_words);

            level->nr_words = shape[k].nr_words;
            if (smaller) {
                level->words = smaller;
                level->capacity = level->nr_words;
            }
        }
    }
    free_levels(hb->levels, nr_levels, HBITMAP_LEVELS_MAX);
    hb->nr_levels = nr_levels;
}

/* Memory for the shape @shape of @nr_levels levels, or nothing changes. */
static int provide(HBitmap *hb, HBitmapLevel *shape, int nr_levels)
{
    bool enough = true;

    for (int k = 0; k < nr_levels; k++) {
        enough &= shape[k].nr_words <= hb->levels[k].capacity;
    }
    if (enough) {
        return 0;
    }
    if (!alloc_levels(shape, nr_levels)) {
        return -ENOMEM;
    }
    for (int k = 0; k < hb->nr_levels; k++) {
        memcpy(shape[k].words, hb->levels[k].words,
               hb->levels[k].nr_words * sizeof(uint64_t));
        shape[k].nr_words = hb->levels[k].nr_words;
    }
    free_levels(hb->levels, 0, HBITMAP_LEVELS_MAX);
    memcpy(hb->levels, shape, sizeof(hb->levels));
    return 0;
}

int hbitmap_reserve(HBitmap *hb, int64_t size)
{
    HBitmapLevel shape[HBITMAP_LEVELS_MAX] = { 0 };
    int64_t nr_bits;

    g_assert(size >= 0 && !hb->loading);
    nr_bits = bits_for(size, hb->granularity);
    if (nr_bits > HBITMAP_BITS_MAX) {
        return -EFBIG;
    }
    if (nr_bits <= hb->nr_bits) {
        return 0;
    }
    return provide(hb, shape, shape_of(nr_bits, shape));
}

/* Make it larger; if there is no memory, nothing has changed. */
static int grow(HBitmap *hb, int64_t nr_bits)
{
    HBitmapLevel shape[HBITMAP_LEVELS_MAX] = { 0 };
    int nr_levels = shape_of(nr_bits, shape);
    int64_t spare = MIN(nr_bits + nr_bits / 8, HBITMAP_BITS_MAX);
    bool enough = shape[0].nr_words <= hb->levels[0].capacity;
    HBitmapLevel more[HBITMAP_LEVELS_MAX] = { 0 };

    /* A file grows by small steps: not each shall copy the bitmap. */
    if ((enough || provide(hb, more, shape_of(spare, more)) < 0) &&
        provide(hb, shape, nr_levels) < 0) {
        return -ENOMEM;
    }
    /* provide() may have used it. */
    nr_levels = shape_of(nr_bits, shape);
    /* The old top level was one word, so a new one has one bit to say so. */
    for (int k = hb->nr_levels; k < nr_levels; k++) {
        hb->levels[k].words[0] = hb->levels[k - 1].words[0] != 0;
    }
    for (int k = 0; k < nr_levels; k++) {
        hb->levels[k].nr_words = shape[k].nr_words;
    }
    hb->nr_levels = nr_levels;
    return 0;
}

int hbitmap_truncate(HBitmap *hb, int64_t size)
{
    int64_t nr_bits;
    int ret = 0;

    g_assert(size >= 0 && !hb->loading);
    nr_bits = bits_for(size, hb->granularity);
    if (nr_bits > HBITMAP_BITS_MAX) {
        return -EFBIG;
    }
    if (nr_bits < hb->nr_bits) {
        shrink(hb, nr_bits);
    } else if (nr_bits > hb->nr_bits) {
        ret = grow(hb, nr_bits);
    }
    if (ret == 0) {
        hb->nr_bits = nr_bits;
        hb->size = size;
    }
    return ret;
}

HBitmapPeek hbitmap_peek(const HBitmap *hb)
{
    g_assert(!hb->loading);
    return (HBitmapPeek){ .words = hb->levels[0].words, .size = hb->size,
                          .granularity = hb->granularity };
}
