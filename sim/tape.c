/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The choice tape.
 */
#include "sim/tape.h"

#include <string.h>

/* --- random numbers ------------------------------------------------------- */

static uint64_t rotate_left(uint64_t x, int k)
{
    return x << k | x >> (64 - k);
}

/* SplitMix64 (Steele, Lea, Flood 2014), to fill the state from one word. */
static uint64_t splitmix(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9E3779B97F4A7C15);

    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

void sim_random_init(SimRandom *random, uint64_t seed)
{
    for (int i = 0; i < 4; i++) {
        random->s[i] = splitmix(&seed);
    }
}

/* xoshiro256** 1.0 (Blackman, Vigna 2018). */
uint64_t sim_random_next(SimRandom *random)
{
    uint64_t *s = random->s;
    uint64_t result = rotate_left(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return result;
}

uint64_t sim_random_below(SimRandom *random, uint64_t bound)
{
    return (unsigned __int128)sim_random_next(random) * bound >> 64;
}

/* --- tapes ---------------------------------------------------------------- */

static void stream_free(gpointer opaque)
{
    TapeStream *stream = opaque;

    g_array_unref(stream->entries);
    g_free(stream->label);
    g_free(stream);
}

Tape *tape_new(uint64_t seed)
{
    Tape *tape = g_new0(Tape, 1);

    sim_random_init(&tape->random, seed);
    tape->streams = g_ptr_array_new_with_free_func(stream_free);
    return tape;
}

Tape *tape_new_replay(const Tape *from)
{
    Tape *tape = tape_new(0);

    tape->replay = true;
    for (guint i = 0; i < from->streams->len; i++) {
        const TapeStream *old = g_ptr_array_index(from->streams, i);
        TapeStream *stream = tape_stream(tape, old->label);

        g_array_append_vals(stream->entries, old->entries->data,
                            old->entries->len);
    }
    return tape;
}

/*
 * The bytes become the entries of a stream under no label; a stream that is
 * made later takes from there.
 */
Tape *tape_new_bytes(const uint8_t *bytes, size_t size)
{
    Tape *tape = tape_new(0);
    TapeStream *all = tape_stream(tape, "");

    tape->replay = true;
    for (size_t i = 0; i < size; i++) {
        TapeEntry entry = { .value = bytes[i], .bound = 256 };

        g_array_append_val(all->entries, entry);
    }
    return tape;
}

void tape_restart(Tape *tape, uint64_t seed)
{
    for (guint i = 0; i < tape->streams->len; i++) {
        TapeStream *stream = g_ptr_array_index(tape->streams, i);

        g_array_set_size(stream->entries, 0);
        stream->position = 0;
    }
    sim_random_init(&tape->random, seed);
    tape->replay = seed == 0;
    tape->misfits = 0;
}

void tape_free(Tape *tape)
{
    if (tape) {
        g_ptr_array_unref(tape->streams);
        g_free(tape);
    }
}

static TapeStream *find_stream(Tape *tape, const char *label)
{
    TapeStream *stream;

    for (guint i = 0; i < tape->streams->len; i++) {
        stream = g_ptr_array_index(tape->streams, i);
        if (strcmp(stream->label, label) == 0) {
            return stream;
        }
    }
    stream = g_new0(TapeStream, 1);
    stream->label = g_strdup(label);
    stream->entries = g_array_new(FALSE, FALSE, sizeof(TapeEntry));
    g_ptr_array_add(tape->streams, stream);
    return stream;
}

TapeStream *tape_stream(Tape *tape, const char *label)
{
    unsigned slot = ((uintptr_t)label >> 2) % G_N_ELEMENTS(tape->cache);

    if (G_UNLIKELY(tape->cache_key[slot] != label)) {
        /* A look-up by address is good for constants only; a label in memory
         * that is used again for another text is found by the text. */
        tape->cache[slot] = find_stream(tape, label);
        tape->cache_key[slot] = label;
    } else if (G_UNLIKELY(strcmp(tape->cache[slot]->label, label) != 0)) {
        tape->cache[slot] = find_stream(tape, label);
    }
    return tape->cache[slot];
}

/* A fuzzer's number below @bound: as many bytes as that needs. */
static uint64_t take_bytes(Tape *tape, uint64_t bound)
{
    TapeStream *all = g_ptr_array_index(tape->streams, 0);
    uint64_t value = 0;

    for (uint64_t left = bound - 1; left > 0; left >>= 8) {
        if (all->position >= all->entries->len) {
            return 0;
        }
        value = value << 8 |
                g_array_index(all->entries, TapeEntry, all->position).value;
        all->position++;
    }
    return value % bound;
}

static bool is_bytes(const Tape *tape)
{
    const TapeStream *first = tape->streams->len > 0
                                  ? g_ptr_array_index(tape->streams, 0)
                                  : NULL;

    return first && !first->label[0];
}

/* A number for a stream that has nothing more to give back. */
static uint64_t fresh(Tape *tape, uint64_t bound)
{
    if (!tape->replay) {
        return bound > 1 ? sim_random_below(&tape->random, bound) : 0;
    }
    return is_bytes(tape) && bound > 1 ? take_bytes(tape, bound) : 0;
}

static uint64_t draw(Tape *tape, TapeStream *stream, uint64_t bound,
                     bool in_group)
{
    TapeEntry *old;
    TapeEntry entry = { .bound = bound, .in_group = in_group };

    if (stream->position < stream->entries->len) {
        old = &g_array_index(stream->entries, TapeEntry, stream->position);
        stream->position++;
        if (old->value >= bound) {
            tape->misfits++;
            old->value %= bound;
        }
        old->bound = bound;
        old->in_group = in_group;
        return old->value;
    }
    entry.value = fresh(tape, bound);
    g_array_append_val(stream->entries, entry);
    stream->position++;
    return entry.value;
}

uint64_t tape_draw(Tape *tape, const char *label, uint64_t bound)
{
    g_assert(bound > 0);
    return draw(tape, tape_stream(tape, label), bound, false);
}

/*
 * A recorded group may have been made by another version: what is missing is
 * drawn, what is too much is passed over.
 */
void tape_draw_group(Tape *tape, const char *label, const uint64_t *bounds,
                     uint64_t *values, unsigned n)
{
    TapeStream *stream = tape_stream(tape, label);

    for (unsigned i = 0; i < n; i++) {
        bool ended = i > 0 && stream->position < stream->entries->len &&
                     !g_array_index(stream->entries, TapeEntry,
                                    stream->position).in_group;

        g_assert(bounds[i] > 0);
        if (ended) {
            values[i] = 0;
            tape->misfits++;
        } else {
            values[i] = draw(tape, stream, bounds[i], i > 0);
        }
    }
    while (stream->position < stream->entries->len &&
           g_array_index(stream->entries, TapeEntry,
                         stream->position).in_group) {
        stream->position++;
        tape->misfits++;
    }
}

const TapeEntry *tape_peek(Tape *tape, const char *label)
{
    TapeStream *stream = tape_stream(tape, label);

    return stream->position < stream->entries->len
               ? &g_array_index(stream->entries, TapeEntry, stream->position)
               : NULL;
}

void tape_put(Tape *tape, const char *label, uint64_t value, uint64_t bound,
              uint32_t note)
{
    TapeStream *stream = tape_stream(tape, label);
    TapeEntry entry = { .value = value, .bound = bound, .note = note };

    if (stream->position < stream->entries->len) {
        g_array_index(stream->entries, TapeEntry, stream->position) = entry;
    } else {
        g_array_append_val(stream->entries, entry);
    }
    stream->position++;
}

size_t tape_length(const Tape *tape)
{
    size_t n = 0;

    for (guint i = 0; i < tape->streams->len; i++) {
        n += ((const TapeStream *)g_ptr_array_index(tape->streams, i))
                 ->entries->len;
    }
    return n;
}
