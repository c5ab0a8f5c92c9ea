/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Power cuts: the states that are shown are the legal ones, and the world goes
 * on as if nothing had been.
 *
 * One letter is one sector; '-' was never written.
 */
#include "check-main.h"

#include <blockgraph/sim-disk.h>
#include <blockgraph/sim-fault.h>
#include <errno.h>
#include <string.h>

#define SECTORS 4

static BgSim *sim;
static BgSimDisk *disk;
static BlockBackend *blk;

static BlockBackend *backend_on(BgSimDisk *on)
{
    BlockPerm perm = { BLK_PERM_ALL, BLK_PERM_ALL };
    GError *error = NULL;
    BlockDriverState *bs = bgsim_disk_open(on, NULL, &error);
    BlockBackend *new;

    ck_assert_msg(bs, "%s", error ? error->message : "");
    new = blk_new(bgsim_graph(sim), bgsim_disk_name(on), &perm);
    ck_assert_int_eq(blk_insert_bs(new, bs, &error), 0);
    bdrv_unref(bs);
    return new;
}

static void given_seed(uint64_t seed, const BgSimDiskConfig *config)
{
    BgSimConfig world = { .strategy = BGSIM_STRATEGY_FIFO };
    BgSimDiskConfig small = { .size = SECTORS * 512 };

    sim = bgsim_new(seed, &world);
    disk = bgsim_disk_new(sim, "disk0", config ? config : &small);
    blk = backend_on(disk);
}

static void given(void)
{
    given_seed(1, NULL);
}

static void done(void)
{
    blk_unref(blk);
    bgsim_free(sim);
}

static uint8_t *sectors_of(const char *letters)
{
    size_t n = strlen(letters);
    uint8_t *buf = g_malloc(n * 512);

    for (size_t i = 0; i < n; i++) {
        memset(buf + i * 512, letters[i], 512);
    }
    return buf;
}

static int put(int64_t sector, const char *letters, unsigned flags)
{
    g_autofree uint8_t *buf = sectors_of(letters);

    return blk_pwrite(blk, sector * 512, strlen(letters) * 512, buf, flags);
}

static void show(char *text, const uint8_t *buf, int n)
{
    for (int i = 0; i < n; i++) {
        text[i] = buf[i * 512] ? buf[i * 512] : '-';
        for (int k = 0; k < 512; k++) {
            ck_assert_uint_eq(buf[i * 512 + k], buf[i * 512]);
        }
    }
    text[n] = '\0';
}

/* --- what is shown -------------------------------------------------------- */

typedef struct Seen {
    GHashTable *texts;   /* set of strings */
    GString *whats;
    unsigned states;
    bool exhaustive;
    bool through_graph;  /* read through a graph of its own */
    bool spoil;          /* write over it */
} Seen;

static void seen_init(Seen *seen)
{
    *seen = (Seen){ .texts = g_hash_table_new_full(g_str_hash, g_str_equal,
                                                   g_free, NULL),
                    .whats = g_string_new(NULL) };
}

static void seen_clear(Seen *seen)
{
    g_hash_table_destroy(seen->texts);
    g_string_free(seen->whats, TRUE);
}

static void read_state(Seen *seen, uint8_t *buf, int64_t bytes)
{
    BlockBackend *own;

    bgsim_disk_peek(disk, 0, bytes, buf);
    if (seen->through_graph) {
        g_autofree uint8_t *again = g_malloc(bytes);

        own = backend_on(disk);
        ck_assert_int_eq(blk_pread(own, 0, bytes, again, 0), 0);
        ck_assert_mem_eq(again, buf, bytes);
        if (seen->spoil) {
            memset(again, '!', bytes);
            ck_assert_int_eq(blk_pwrite(own, 0, bytes, again, 0), 0);
            ck_assert_int_eq(blk_flush(own), 0);
        }
        blk_unref(own);
    }
}

static bool note_state(BgSim *world, const BgSimCrashState *state,
                       void *opaque, GError **errp)
{
    Seen *seen = opaque;
    int64_t bytes = bgsim_disk_length(disk);
    g_autofree uint8_t *buf = g_malloc(bytes + 1);
    char *text = g_malloc(bytes / 512 + 1);

    ck_assert_uint_eq(state->index, seen->states);
    read_state(seen, buf, bytes);
    show(text, buf, bytes / 512);
    g_string_append_printf(seen->whats, "%s|", state->what);
    g_hash_table_add(seen->texts, text);
    seen->states++;
    seen->exhaustive = state->exhaustive;
    return true;
}

static void cut(Seen *seen, const BgSimCrashConfig *config)
{
    GError *error = NULL;

    ck_assert_msg(bgsim_crash_each(sim, note_state, seen, config, &error),
                  "%s", error ? error->message : "");
}

/* Among the states are @texts, words divided by blanks.  Returns how many. */
static unsigned expect_shown(const Seen *seen, const char *texts)
{
    g_auto(GStrv) words = g_strsplit(texts, " ", 0);

    for (char **word = words; *word; word++) {
        ck_assert_msg(g_hash_table_contains(seen->texts, *word),
                      "the state %s was not shown", *word);
    }
    return g_strv_length(words);
}

static void expect_cut(const char *texts)
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

/* --- small cases ---------------------------------------------------------- */

START_TEST(what_was_not_flushed_may_be_lost_sector_by_sector)
{
    given();
    put(0, "AB", 0);
    expect_cut("---- A--- -B-- AB--");
    ck_assert_int_eq(blk_flush(blk), 0);
    expect_cut("AB--");
    put(1, "C", 0);
    put(1, "D", 0);
    expect_cut("AB-- AC-- AD--");
    done();
}
END_TEST

START_TEST(fua_pins_what_it_writes_and_nothing_else)
{
    given();
    put(0, "A", 0);
    put(1, "B", BDRV_REQ_FUA);
    expect_cut("-B-- AB--");
    put(0, "C", BDRV_REQ_FUA);
    expect_cut("CB--");
    done();
}
END_TEST

START_TEST(a_zero_write_is_a_write)
{
    given();
    put(0, "AA", BDRV_REQ_FUA);
    ck_assert_int_eq(blk_pwrite_zeroes(blk, 512, 1024, 0), 0);
    expect_cut("A--- AA--");
    ck_assert_int_eq(blk_flush(blk), 0);
    expect_cut("A---");
    done();
}
END_TEST

static void coroutine_fn flight_entry(BgSim *world, void *opaque)
{
    const char *text = opaque; /* digit: sector; then letters */
    g_autofree uint8_t *buf = sectors_of(text + 1);

    blk_co_pwrite(blk, (text[0] - '0') * 512, strlen(text + 1) * 512, buf, 0);
}

START_TEST(what_is_on_its_way_may_have_arrived_in_parts)
{
    given();
    put(0, "AA", BDRV_REQ_FUA);
    bgsim_spawn(sim, "flight", NULL, flight_entry, (void *)"1XY");
    ck_assert(bgsim_run(sim, bgsim_now_ns(sim), NULL));
    ck_assert_uint_eq(bgsim_tasks(sim), 1);
    expect_cut("AA-- AX-- AAY- AXY-");
    ck_assert(bgsim_run(sim, -1, NULL));
    expect_cut("AA-- AX-- AAY- AXY-");
    done();
}
END_TEST

/* What is flushed stays, although an older write may still arrive above. */
START_TEST(a_write_in_flight_is_newer_than_what_a_flush_has_pinned)
{
    given();
    bgsim_hold(sim, "disk0:write@1536+512", "late");
    bgsim_spawn(sim, "flight", NULL, flight_entry, (void *)"0XX");
    ck_assert(bgsim_run(sim, bgsim_now_ns(sim), NULL));
    expect_cut("---- X--- -X-- XX--");
    ck_assert(bgsim_run(sim, -1, NULL));
    ck_assert_int_eq(blk_flush(blk), 0);
    bgsim_spawn(sim, "held", NULL, flight_entry, (void *)"3Z");
    ck_assert(bgsim_run(sim, bgsim_now_ns(sim) + 1000 * 1000, NULL));
    ck_assert_uint_eq(bgsim_held(sim, "late"), 1);
    expect_cut("XX--"); /* not submitted to the disk yet */
    bgsim_release(sim, "late");
    ck_assert(bgsim_run(sim, -1, NULL));
    expect_cut("XX-- XX-Z");
    done();
}
END_TEST

/* --- against an enumeration of its own ------------------------------------ */

typedef struct Op {
    char letter;         /* of all its sectors */
    int first, n;
    bool fua;
    bool flushed;        /* a flush began and ended after it */
} Op;

/* All texts that the rules allow: per sector, independently. */
static void enumerate(const Op *ops, int nr_ops, GHashTable *texts)
{
    char candidates[SECTORS][64];
    unsigned total = 1;

    for (int s = 0; s < SECTORS; s++) {
        int n = 0;

        candidates[s][n++] = '-';
        for (int i = 0; i < nr_ops; i++) {
            if (s < ops[i].first || s >= ops[i].first + ops[i].n) {
                continue;
            }
            if (ops[i].fua || ops[i].flushed) {
                n = 0;
            }
            candidates[s][n++] = ops[i].letter;
        }
        candidates[s][n] = '\0';
        total *= n;
    }
    for (unsigned i = 0; i < total; i++) {
        char *text = g_malloc0(SECTORS + 1);
        unsigned rest = i;

        for (int s = 0; s < SECTORS; s++) {
            unsigned n = strlen(candidates[s]);

            text[s] = candidates[s][rest % n];
            rest /= n;
        }
        g_hash_table_add(texts, text);
    }
}

static void compare_sets(GHashTable *a, GHashTable *b, const char *how)
{
    GHashTableIter iter;
    gpointer key;

    g_hash_table_iter_init(&iter, a);
    while (g_hash_table_iter_next(&iter, &key, NULL)) {
        ck_assert_msg(g_hash_table_contains(b, key), "%s: %s", how,
                      (char *)key);
    }
}

static void run_random_ops(uint64_t seed)
{
    Op ops[6] = { { 0 } };
    GHashTable *legal = g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
                                              NULL);
    Seen seen;

    given_seed(seed, NULL);
    seen_init(&seen);
    seen.through_graph = seed % 2;
    seen.spoil = seed % 4 == 3;
    for (int i = 0; i < 6; i++) {
        char letters[SECTORS + 1] = { 0 };
        Op *op = &ops[i];

        op->letter = 'A' + i;
        op->first = bgsim_draw(sim, "first", SECTORS);
        op->n = 1 + bgsim_draw(sim, "n", SECTORS - op->first);
        op->fua = bgsim_draw(sim, "fua", 5) == 4;
        memset(letters, op->letter, op->n);
        put(op->first, letters, op->fua ? BDRV_REQ_FUA : 0);
        if (bgsim_draw(sim, "flush", 5) == 4) {
            blk_flush(blk);
            for (int k = 0; k <= i; k++) {
                ops[k].flushed = true;
            }
        }
        g_hash_table_remove_all(seen.texts);
        g_hash_table_remove_all(legal);
        seen.states = 0;
        cut(&seen, NULL);
        enumerate(ops, i + 1, legal);
        compare_sets(legal, seen.texts, "not shown");
        compare_sets(seen.texts, legal, "not legal");
        ck_assert_uint_eq(seen.states, g_hash_table_size(legal));
    }
    seen_clear(&seen);
    g_hash_table_destroy(legal);
    done();
}

START_TEST(the_states_are_those_of_an_independent_enumeration)
{
    for (uint64_t seed = 1; seed <= 60; seed++) {
        run_random_ops(seed);
    }
}
END_TEST

/* --- samples -------------------------------------------------------------- */

START_TEST(a_sample_has_the_states_where_bugs_hide)
{
    BgSimCrashConfig few = { .all_below = 4, .sample = 20 };
    Seen seen;

    given();
    seen_init(&seen);
    put(0, "AAAA", 0);
    put(1, "B", 0);
    put(2, "CC", 0);
    cut(&seen, &few);
    ck_assert(!seen.exhaustive);
    ck_assert_uint_eq(seen.states, g_hash_table_size(seen.texts));
    ck_assert_uint_ge(seen.states, 12);
    expect_shown(&seen, "---- ABCC "       /* nothing, everything */
                        "-BCC AACC ABAA "  /* each alone missing */
                        "AAAA -B-- --CC "  /* each alone present */
                        "A--- AA-- AAA- "  /* the first one torn */
                        "ABCA");           /* the last one torn */
    seen_clear(&seen);
    done();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sim-crash");
    TCase *tcase = tcase_create("sim-crash");

    PROMISE(tcase, what_was_not_flushed_may_be_lost_sector_by_sector);
    PROMISE(tcase, fua_pins_what_it_writes_and_nothing_else);
    PROMISE(tcase, a_zero_write_is_a_write);
    PROMISE(tcase, what_is_on_its_way_may_have_arrived_in_parts);
    PROMISE(tcase, a_write_in_flight_is_newer_than_what_a_flush_has_pinned);
    PROMISE(tcase, the_states_are_those_of_an_independent_enumeration);
    PROMISE(tcase, a_sample_has_the_states_where_bugs_hide);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
