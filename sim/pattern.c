/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the sectors of a model hold.
 *
 * Words are moved with memcpy(): buffers need not be aligned.
 */
#include "sim/pattern.h"

#include <blockgraph/iov.h>
#include <string.h>

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
    uint64_t words[SECTOR_WORDS];
    uint64_t next = checksum(id, place);

    words[0] = id;
    words[1] = place;
    for (unsigned i = 2; i < SECTOR_WORDS; i++, next += STEP) {
        words[i] = next;
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

static void read_noise(const uint64_t *words, Pattern *ret)
{
    uint64_t hash = 0;

    for (unsigned i = 0; i < SECTOR_WORDS; i++) {
        hash = (hash ^ words[i]) * STEP;
        hash ^= hash >> 31;
    }
    *ret = (Pattern){ .kind = PATTERN_NOISE, .id = hash | 2 };
}

void pattern_read(const void *sector, Pattern *ret)
{
    uint64_t words[SECTOR_WORDS];
    uint64_t different = 0;
    uint64_t next;

    memcpy(words, sector, sizeof(words));
    /* No writer has the number 0. */
    if (words[0] == 0 && block_buffer_is_zero(sector, SECTOR_BYTES)) {
        *ret = (Pattern){ .kind = PATTERN_ZERO };
        return;
    }
    next = checksum(words[0], words[1]);
    if (words[0] == 0 || words[2] != next) {
        read_noise(words, ret);
        return;
    }
    for (unsigned i = 2; i < SECTOR_WORDS; i++, next += STEP) {
        different |= words[i] ^ next;
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
