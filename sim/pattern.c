/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the sectors of a model hold.
 *
 * Words are moved with memcpy(): buffers need not be aligned.
 */
#include "sim/pattern.h"

#include <string.h>

#define HEADER_WORDS 3
#define STEP UINT64_C(0x9E3779B97F4A7C15)

static uint64_t checksum(uint64_t id, uint64_t place)
{
    uint64_t x = (id ^ place << 20 ^ place >> 44) * STEP;

    x ^= x >> 29;
    x = (x + place) * UINT64_C(0xBF58476D1CE4E5B9);
    return x ^ x >> 32;
}

void pattern_fill(void *sector, uint64_t id, uint64_t place)
{
    uint64_t words[SECTOR_WORDS] = { id, place, checksum(id, place) };

    for (unsigned i = HEADER_WORDS; i < SECTOR_WORDS; i++) {
        words[i] = words[2] + i * STEP;
    }
    memcpy(sector, words, sizeof(words));
}

static unsigned first_difference(const void *a, const void *b)
{
    const uint8_t *x = a;
    const uint8_t *y = b;
    unsigned i = 0;

    while (i < SECTOR_BYTES && x[i] == y[i]) {
        i++;
    }
    return i;
}

static void read_other(const void *sector, const uint64_t *words,
                       Pattern *ret)
{
    uint64_t hash = 0;
    uint64_t any = 0;

    for (unsigned i = 0; i < SECTOR_WORDS; i++) {
        hash = (hash ^ words[i]) * STEP;
        hash ^= hash >> 31;
        any |= words[i];
    }
    *ret = (Pattern){ .kind = any ? PATTERN_NOISE : PATTERN_ZERO,
                      .id = any ? hash | 2 : 0 };
}

void pattern_read(const void *sector, Pattern *ret)
{
    uint64_t words[SECTOR_WORDS];
    uint64_t different = 0;

    memcpy(words, sector, sizeof(words));
    /* Zeroes have no valid checksum: no writer has the number 0. */
    if (words[0] == 0 || words[2] != checksum(words[0], words[1])) {
        read_other(sector, words, ret);
        return;
    }
    for (unsigned i = HEADER_WORDS; i < SECTOR_WORDS; i++) {
        different |= words[i] ^ (words[2] + i * STEP);
    }
    *ret = (Pattern){ .kind = PATTERN_GOOD, .id = words[0],
                      .place = words[1] };
    if (different) {
        uint8_t good[SECTOR_BYTES];

        pattern_fill(good, words[0], words[1]);
        ret->kind = PATTERN_TORN;
        ret->bad = first_difference(sector, good);
    }
}
