/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A small simulated disk, and what power cuts leave of it.
 *
 * One letter is one sector; '-' was never written.  A test does not use all of
 * this.
 */
#ifndef TESTS_UNIT_CRASH_FIXTURE_H
#define TESTS_UNIT_CRASH_FIXTURE_H

#include <blockgraph/sim-disk.h>
#include <blockgraph/sim-fault.h>
#include <check.h>
#include <errno.h>
#include <string.h>

#define SECTORS 4

static BgSim *sim;
static BgSimDisk *disk;
static BlockBackend *blk;

static inline BlockBackend *backend_on(BgSimDisk *on)
{
    BlockPerm perm = { BLK_PERM_ALL, BLK_PERM_ALL };
    GError *error = NULL;
    BlockDriverState *bs = bgsim_disk_open(on, NULL, &error);
    BlockBackend *new = blk_new(bgsim_graph(sim), bgsim_disk_name(on), &perm);

    if (!bs || blk_insert_bs(new, bs, &error) < 0) {
        ck_abort_msg("%s", error->message);
    }
    bdrv_unref(bs);
    return new;
}

static inline void given_seed(uint64_t seed, const BgSimDiskConfig *config)
{
    BgSimConfig world = { .strategy = BGSIM_STRATEGY_FIFO };
    BgSimDiskConfig small = { .size = SECTORS * 512 };

    sim = bgsim_new(seed, &world);
    disk = bgsim_disk_new(sim, "disk0", config ? config : &small);
    blk = backend_on(disk);
}

static inline void given(void)
{
    given_seed(1, NULL);
}

static inline void done(void)
{
    blk_unref(blk);
    bgsim_free(sim);
}

static inline uint8_t *sectors_of(const char *letters)
{
    size_t n = strlen(letters);
    uint8_t *buf = g_malloc(n * 512);

    for (size_t i = 0; i < n; i++) {
        memset(buf + i * 512, letters[i], 512);
    }
    return buf;
}

static inline int put(int64_t sector, const char *letters, unsigned flags)
{
    g_autofree uint8_t *buf = sectors_of(letters);

    return blk_pwrite(blk, sector * 512, strlen(letters) * 512, buf, flags);
}

/* Few assertions: libcheck notes each one in a file. */
static inline void show(char *text, const uint8_t *buf, int n)
{
    for (int i = 0; i < n; i++) {
        text[i] = buf[i * 512] ? buf[i * 512] : '-';
        if (memcmp(buf + i * 512, buf + i * 512 + 1, 511) != 0) {
            text[i] = '?';
        }
    }
    text[n] = '\0';
}

/* --- what is shown -------------------------------------------------------- */

typedef struct Seen {
    GHashTable *texts;   /* set of strings */
    GString *whats;
    unsigned states;
    unsigned failed;
    bool exhaustive;
    bool through_graph;  /* read through a graph of its own */
    bool spoil;          /* write over it */
} Seen;

static inline void seen_init(Seen *seen)
{
    *seen = (Seen){ .texts = g_hash_table_new_full(g_str_hash, g_str_equal,
                                                   g_free, NULL),
                    .whats = g_string_new(NULL) };
}

static inline void seen_clear(Seen *seen)
{
    g_hash_table_destroy(seen->texts);
    g_string_free(seen->whats, TRUE);
}

static inline void read_state(Seen *seen, uint8_t *buf, int64_t bytes)
{
    BlockBackend *own;

    bgsim_disk_peek(disk, 0, bytes, buf);
    if (seen->through_graph) {
        g_autofree uint8_t *again = g_malloc(bytes);

        own = backend_on(disk);
        seen->failed += blk_pread(own, 0, bytes, again, 0) != 0 ||
                        memcmp(again, buf, bytes) != 0;
        if (seen->spoil) {
            memset(again, '!', bytes);
            seen->failed += blk_pwrite(own, 0, bytes, again, 0) != 0 ||
                            blk_flush(own) != 0;
        }
        blk_unref(own);
    }
}

static inline bool note_state(BgSim *world, const BgSimCrashState *state,
                              void *opaque, GError **errp)
{
    Seen *seen = opaque;
    int64_t bytes = bgsim_disk_length(disk);
    g_autofree uint8_t *buf = g_malloc(bytes + 1);
    char *text = g_malloc(bytes / 512 + 1);

    seen->failed += state->index != seen->states;
    read_state(seen, buf, bytes);
    show(text, buf, bytes / 512);
    g_string_append_printf(seen->whats, "%s|", state->what);
    g_hash_table_add(seen->texts, text);
    seen->states++;
    seen->exhaustive = state->exhaustive;
    return true;
}

static inline void cut(Seen *seen, const BgSimCrashConfig *config)
{
    GError *error = NULL;

    ck_assert_msg(bgsim_crash_each(sim, note_state, seen, config, &error),
                  "%s", error ? error->message : "");
    ck_assert_uint_eq(seen->failed, 0);
}

/* Among the states are @texts, words divided by blanks.  Returns how many. */
static inline unsigned expect_shown(const Seen *seen, const char *texts)
{
    g_auto(GStrv) words = g_strsplit(texts, " ", 0);

    for (char **word = words; *word; word++) {
        if (!g_hash_table_contains(seen->texts, *word)) {
            g_autofree gpointer keys =
                g_hash_table_get_keys_as_array(seen->texts, NULL);
            g_autofree char *shown = g_strjoinv(" ", keys);

            ck_abort_msg("the state %s was not shown: %s", *word, shown);
        }
    }
    return g_strv_length(words);
}

static inline void expect_cut(const char *texts)
{
    Seen seen;

    seen_init(&seen);
    cut(&seen, NULL);
    ck_assert_uint_eq(g_hash_table_size(seen.texts),
                      expect_shown(&seen, texts));
    ck_assert(seen.exhaustive);
    ck_assert_uint_eq(seen.states, g_hash_table_size(seen.texts));
    seen_clear(&seen);
}

/* The same for a file, of which two choices may look the same. */
static inline void expect_file_cut(const char *texts)
{
    Seen seen;

    seen_init(&seen);
    cut(&seen, NULL);
    ck_assert_uint_eq(g_hash_table_size(seen.texts),
                      expect_shown(&seen, texts));
    ck_assert(seen.exhaustive);
    seen_clear(&seen);
}

static inline void coroutine_fn flight_entry(BgSim *world, void *opaque)
{
    const char *text = opaque; /* digit: sector; then letters */
    g_autofree uint8_t *buf = sectors_of(text + 1);

    blk_co_pwrite(blk, (text[0] - '0') * 512, strlen(text + 1) * 512, buf, 0);
}

#endif /* TESTS_UNIT_CRASH_FIXTURE_H */
