/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A hierarchical bitmap as bytes: parts of it to and from little-endian words,
 * and its digest.
 *
 * While parts come in, only the lowest level is kept; upper levels, the count
 * and the bits past the end are put right once, at the end.
 */
#include "util/hbitmap-int.h"
#include "util/untrusted.h"

#include <string.h>

/* How much of the bitmap is hashed at a time. */
#define DIGEST_WORDS 512

int64_t hbitmap_serialization_align(const HBitmap *hb)
{
    return INT64_C(1) << (hb->granularity + HBITMAP_WORD_SHIFT);
}

/* The words of the part; checks that it consists of whole ones. */
static void part_words(const HBitmap *hb, int64_t start, int64_t count,
                       int64_t *ret_first, int64_t *ret_nr)
{
    int64_t mask = hbitmap_serialization_align(hb) - 1;
    int shift = hb->granularity + HBITMAP_WORD_SHIFT;
    int64_t end = start + count;

    hbitmap_assert_range(hb, start, count);
    g_assert(!(start & mask) && (!(end & mask) || end == hb->size));
    *ret_first = start >> shift;
    *ret_nr = count ? ((end - 1) >> shift) + 1 - *ret_first : 0;
}

size_t hbitmap_serialization_size(const HBitmap *hb, int64_t start,
                                  int64_t count)
{
    int64_t first, nr;

    part_words(hb, start, count, &first, &nr);
    return nr * sizeof(uint64_t);
}

/* @buf need not be aligned. */
static void words_to_le(void *buf, const uint64_t *from, int64_t nr)
{
    char *to = buf;

    for (int64_t i = 0; i < nr; i++) {
        uint64_t word = GUINT64_TO_LE(from[i]);

        memcpy(to + i * sizeof(word), &word, sizeof(word));
    }
}

void hbitmap_serialize_part(const HBitmap *hb, void *buf, int64_t start,
                            int64_t count)
{
    int64_t first, nr;

    g_assert(!hb->loading);
    part_words(hb, start, count, &first, &nr);
    words_to_le(buf, hb->levels[0].words + first, nr);
}

void hbitmap_deserialize_part(HBitmap *hb, const void *buf, int64_t start,
                              int64_t count)
{
    const char *from = buf;
    int64_t first, nr;

    part_words(hb, start, count, &first, &nr);
    hb->loading = true;
    for (int64_t i = 0; i < nr; i++) {
        hb->levels[0].words[first + i] =
            untrusted_word(untrusted_le64(from + i * sizeof(uint64_t)));
    }
}

/* Make dirty the runs of bits that are set in @word, the @w-th. */
static void set_runs(HBitmap *hb, int64_t w, uint64_t word)
{
    while (word) {
        int first = __builtin_ctzll(word);
        uint64_t clear = ~(word >> first);
        int nr = clear ? MIN(__builtin_ctzll(clear), 64 - first) : 64 - first;
        int64_t bit = (w << HBITMAP_WORD_SHIFT) + first;
        int64_t start = bit << hb->granularity;

        if (bit >= hb->nr_bits) {
            return;
        }
        nr = MIN(nr, hb->nr_bits - bit);
        hbitmap_set(hb, start, MIN((int64_t)nr << hb->granularity,
                                   hb->size - start));
        word = first + nr < 64 ? word & (UINT64_MAX << (first + nr)) : 0;
    }
}

void hbitmap_merge_part(HBitmap *hb, const void *buf, int64_t start,
                        int64_t count)
{
    const char *from = buf;
    int64_t first, nr;

    part_words(hb, start, count, &first, &nr);
    for (int64_t i = 0; i < nr; i++) {
        set_runs(hb, first + i,
                 untrusted_word(untrusted_le64(from + i * sizeof(uint64_t))));
    }
}

static void fill_part(HBitmap *hb, int byte, int64_t start, int64_t count)
{
    int64_t first, nr;

    part_words(hb, start, count, &first, &nr);
    hb->loading = true;
    memset(hb->levels[0].words + first, byte, nr * sizeof(uint64_t));
}

void hbitmap_deserialize_zeroes(HBitmap *hb, int64_t start, int64_t count)
{
    fill_part(hb, 0, start, count);
}

void hbitmap_deserialize_ones(HBitmap *hb, int64_t start, int64_t count)
{
    fill_part(hb, 0xff, start, count);
}

/* Make a level say which words of the one below are not zero. */
static void rebuild_level(HBitmapLevel *level, const HBitmapLevel *below)
{
    memset(level->words, 0, level->nr_words * sizeof(uint64_t));
    for (int64_t w = 0; w < below->nr_words; w++) {
        if (below->words[w]) {
            level->words[w >> HBITMAP_WORD_SHIFT] |=
                UINT64_C(1) << (w & (HBITMAP_WORD_BITS - 1));
        }
    }
}

void hbitmap_deserialize_finish(HBitmap *hb)
{
    HBitmapLevel *bits = &hb->levels[0];
    int used = hb->nr_bits & (HBITMAP_WORD_BITS - 1);

    /* Who wrote the words need not have cared for what is past the end. */
    if (used) {
        bits->words[bits->nr_words - 1] &= (UINT64_C(1) << used) - 1;
    }
    hb->nr_dirty = 0;
    for (int64_t w = 0; w < bits->nr_words; w++) {
        hb->nr_dirty += hbitmap_popcount(bits->words[w]);
    }
    for (int k = 1; k < hb->nr_levels; k++) {
        rebuild_level(&hb->levels[k], &hb->levels[k - 1]);
    }
    hb->loading = false;
}

char *hbitmap_sha256(const HBitmap *hb)
{
    g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
    int64_t nr_words = (hb->nr_bits + HBITMAP_WORD_BITS - 1) /
                       HBITMAP_WORD_BITS;
    uint64_t chunk[DIGEST_WORDS];

    g_assert(!hb->loading);
    for (int64_t w = 0; w < nr_words; w += DIGEST_WORDS) {
        int64_t nr = MIN(DIGEST_WORDS, nr_words - w);

        words_to_le(chunk, hb->levels[0].words + w, nr);
        g_checksum_update(sum, (const guchar *)chunk, nr * sizeof(uint64_t));
    }
    return g_strdup(g_checksum_get_string(sum));
}
