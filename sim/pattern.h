/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the sectors of a model hold: each says who wrote it, and where.
 *
 * A sector is 64 words: the writer, the place, a checksum of the two, then
 * words that follow from the checksum.  So a sector that is torn, shifted or
 * taken from elsewhere shows.
 */
#ifndef SIM_PATTERN_H
#define SIM_PATTERN_H

#include <glib.h>
#include <stdint.h>

#define SECTOR_BYTES 512
#define SECTOR_WORDS (SECTOR_BYTES / 8)

/** Where a sector belongs: the disk in the upper 16 bits. */
#define SECTOR_PLACE(disk, index) ((uint64_t)(disk) << 48 | (uint64_t)(index))

/** What a sector turns out to be. */
typedef enum PatternKind {
    PATTERN_ZERO,
    PATTERN_GOOD,  /* of the writer @id, at @place */
    PATTERN_TORN,  /* it begins so, but byte @bad is another */
    PATTERN_NOISE, /* anything; @id is a hash of it, above 1 */
} PatternKind;

typedef struct Pattern {
    PatternKind kind;
    uint64_t id;
    uint64_t place;
    unsigned bad;
} Pattern;

/** Fill the 512 bytes at @sector. */
void pattern_fill(void *sector, uint64_t id, uint64_t place);

/** Find out what the 512 bytes at @sector are. */
void pattern_read(const void *sector, Pattern *ret);

#endif /* SIM_PATTERN_H */
