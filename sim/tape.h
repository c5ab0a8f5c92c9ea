/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The choice tape: all chance of a run, by label.
 *
 * Each label has a stream of its own.  What was recorded in a stream is given
 * back in order when the tape is replayed; past its end a replayed stream gives
 * 0, the dullest choice, while a fresh one draws.  Streams do not shift each
 * other: a run whose third write is dropped keeps the latencies of the rest.
 */
#ifndef SIM_TAPE_H
#define SIM_TAPE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

/** xoshiro256**, seeded by SplitMix64. */
typedef struct SimRandom {
    uint64_t s[4];
} SimRandom;

/** Start @random from @seed. */
void sim_random_init(SimRandom *random, uint64_t seed);

/** 64 random bits. */
uint64_t sim_random_next(SimRandom *random);

/** A random number in [0, @bound), @bound > 0, nearly even. */
uint64_t sim_random_below(SimRandom *random, uint64_t bound);

/** One choice. */
typedef struct TapeEntry {
    uint64_t value;
    uint64_t bound;
    uint32_t note;   /* sched: the actor that was chosen; else 0 */
    bool in_group;   /* belongs to the entry before */
} TapeEntry;

/** The choices of one label. */
typedef struct TapeStream {
    char *label;
    GArray *entries; /* TapeEntry: replayed ones first, then drawn ones */
    guint position;  /* the next to be given back */
} TapeStream;

typedef struct Tape {
    SimRandom random;
    bool replay;          /* past the end: 0, nothing is drawn */
    GPtrArray *streams;   /* TapeStream, in order of first use */
    TapeStream *cache[64]; /* by address of the label */
    const char *cache_key[64];
    uint64_t misfits;     /* replayed values that were not below the bound */
} Tape;

/** An empty tape that draws from @seed. */
Tape *tape_new(uint64_t seed);

/** A tape that gives back what @from has recorded, then zeroes. */
Tape *tape_new_replay(const Tape *from);

/** A tape of bytes, from a fuzzer: each choice takes the next ones. */
Tape *tape_new_bytes(const uint8_t *bytes, size_t size);

/**
 * Make @tape empty again, to draw from @seed; 0: nothing is drawn, all choices
 * are the dullest.
 */
void tape_restart(Tape *tape, uint64_t seed);

/** Free @tape; NULL is ignored. */
void tape_free(Tape *tape);

/** The next choice of @label below @bound. */
uint64_t tape_draw(Tape *tape, const char *label, uint64_t bound);

/**
 * What the next choice of @label will be if it is replayed: its entry, or NULL
 * if it will be drawn (or 0).
 */
const TapeEntry *tape_peek(Tape *tape, const char *label);

/** Record @value, chosen by somebody else, as the next choice of @label. */
void tape_put(Tape *tape, const char *label, uint64_t value, uint64_t bound,
              uint32_t note);

/** A group; see bgsim_draw_group(). */
void tape_draw_group(Tape *tape, const char *label, const uint64_t *bounds,
                     uint64_t *values, unsigned n);

/** The stream of @label, made if need be. */
TapeStream *tape_stream(Tape *tape, const char *label);

/** How many choices the tape holds. */
size_t tape_length(const Tape *tape);

#endif /* SIM_TAPE_H */
