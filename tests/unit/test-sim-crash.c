/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Power cuts: the states that are shown are the legal ones, and the world goes
 * on as if nothing had been.
 *
 * One letter is one sector; '-' was never written.
 */
#include "check-main.h"

#include <blockgraph/driver.h>
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
    BlockBackend *new = blk_new(bgsim_graph(sim), bgsim_disk_name(on), &perm);

    if (!bs || blk_insert_bs(new, bs, &error) < 0) {
        ck_abort_msg("%s", error->message);
    }
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

/* Few assertions: libcheck notes each one in a file. */
static void show(char *text, const uint8_t *buf, int n)
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

static bool note_state(BgSim *world, const BgSimCrashState *state,
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

static void cut(Seen *seen, const BgSimCrashConfig *config)
{
    GError *error = NULL;

    ck_assert_msg(bgsim_crash_each(sim, note_state, seen, config, &error),
                  "%s", error ? error->message : "");
    ck_assert_uint_eq(seen->failed, 0);
}

/* Among the states are @texts, words divided by blanks.  Returns how many. */
static unsigned expect_shown(const Seen *seen, const char *texts)
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

/* The same for a file, of which two choices may look the same. */
static void expect_file_cut(const char *texts)
{
    Seen seen;

    seen_init(&seen);
    cut(&seen, NULL);
    ck_assert_uint_eq(g_hash_table_size(seen.texts),
                      expect_shown(&seen, texts));
    ck_assert(seen.exhaustive);
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
        if (!g_hash_table_contains(b, key)) {
            ck_abort_msg("%s: %s", how, (char *)key);
        }
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

/* --- files ---------------------------------------------------------------- */

/* A format of a fixed length on a file that is as long as it has to be. */
static int coroutine_fn grower_open(BlockDriverState *bs,
                                    BlockOptions *options, unsigned flags,
                                    GError **errp)
{
    return bdrv_co_open_child(bs, options, "file",
                              BDRV_CHILD_DATA | BDRV_CHILD_PRIMARY, true, errp)
               ? 0
               : -EINVAL;
}

static int coroutine_fn grower_preadv(BlockDriverState *bs, const BlockIO *io)
{
    return bdrv_co_preadv(bdrv_primary_child(bs), io->offset, io->bytes,
                          io->iov, 0);
}

static int coroutine_fn grower_pwritev(BlockDriverState *bs,
                                       const BlockIO *io)
{
    return bdrv_co_pwritev(bdrv_primary_child(bs), io->offset, io->bytes,
                           io->iov, io->flags);
}

/* To any length: that of the file, not of the node. */
static int coroutine_fn grower_truncate(BlockDriverState *bs,
                                        const BlockTruncate *how,
                                        GError **errp)
{
    return bdrv_co_truncate(bdrv_primary_child(bs), how, errp);
}

static int64_t coroutine_fn grower_getlength(BlockDriverState *bs)
{
    return SECTORS * 512;
}

static void grower_refresh_limits(BlockDriverState *bs, BlockLimits *limits)
{
    limits->write_flags = BDRV_REQ_FUA;
}

static const BlockOption grower_options[] = {
    { .name = "file", .type = BLOCK_OPTION_CHILD, .help = "the file" },
    { .type = BLOCK_OPTION_END },
};

static const BlockDriver grower = {
    .struct_size = sizeof(BlockDriver),
    .name = "grower",
    .kind = BLOCK_DRIVER_FORMAT,
    .options = grower_options,
    .open = grower_open,
    .refresh_limits = grower_refresh_limits,
    .preadv = grower_preadv,
    .pwritev = grower_pwritev,
    .truncate = grower_truncate,
    .getlength = grower_getlength,
};

static void given_file(uint64_t seed)
{
    BgSimDiskConfig file = { .grows = true, .empty = true };

    BlockPerm perm = { BLK_PERM_ALL, BLK_PERM_ALL };
    BlockDriverState *bs;

    sim = bgsim_new(seed, NULL);
    disk = bgsim_disk_new(sim, "disk0", &file);
    if (!bdrv_find_driver(grower.name)) {
        ck_assert_int_eq(bdrv_register(&grower, NULL), 0);
    }
    bs = bdrv_open(bgsim_graph(sim),
                   block_options_parse_keyval(
                       "grower,file.driver=sim-disk,file.disk=disk0",
                       "driver", NULL), NULL);
    blk = blk_new(bgsim_graph(sim), "guest", &perm);
    ck_assert_int_eq(blk_insert_bs(blk, bs, NULL), 0);
    bdrv_unref(bs);
}

START_TEST(a_file_may_have_any_size_it_had_since_the_last_flush)
{
    BlockTruncate shorter = { .offset = 512, .exact = true };

    given_file(1);
    put(0, "A", 0);
    ck_assert_int_eq(blk_flush(blk), 0);
    put(1, "B", 0);
    put(2, "C", 0);
    expect_file_cut("A A- AB A-- A-C AB- ABC");
    ck_assert_int_eq(blk_flush(blk), 0);
    expect_cut("ABC");
    ck_assert_int_eq(blk_truncate(blk, &shorter, NULL), 0);
    expect_file_cut("A ABC AB- A-C A--");
    ck_assert_int_eq(blk_flush(blk), 0);
    expect_cut("A");
    done();
}
END_TEST

/* The size that an unacknowledged neighbour made must not take it away. */
START_TEST(what_is_flushed_lies_inside_the_size)
{
    for (uint64_t seed = 1; seed <= 40; seed++) {
        Seen seen;
        GHashTableIter iter;
        gpointer text;

        given_file(seed);
        bgsim_spawn(sim, "flight", NULL, flight_entry, (void *)"3Z");
        put(1, "B", BDRV_REQ_FUA);
        seen_init(&seen);
        cut(&seen, NULL);
        g_hash_table_iter_init(&iter, seen.texts);
        while (g_hash_table_iter_next(&iter, &text, NULL)) {
            ck_assert(g_str_has_prefix(text, "-B"));
        }
        expect_shown(&seen, "-B-- -B-Z");
        seen_clear(&seen);
        ck_assert(bgsim_run(sim, -1, NULL));
        done();
    }
}
END_TEST

/* --- the world outside ---------------------------------------------------- */

typedef struct Guest {
    int left;
    uint64_t sum;      /* of what was read, and when */
} Guest;

static void coroutine_fn guest_entry(BgSim *world, void *opaque)
{
    Guest *guest = opaque;
    uint8_t buf[512];

    while (guest->left-- > 0) {
        int64_t at = bgsim_draw(world, "at", SECTORS) * 512;

        memset(buf, 'a' + bgsim_draw(world, "letter", 26), sizeof(buf));
        switch (bgsim_draw(world, "kind", 4)) {
        case 0:
            blk_co_pread(blk, at, sizeof(buf), buf, 0);
            guest->sum = guest->sum * 31 + buf[0];
            break;
        case 1:
            blk_co_flush(blk);
            break;
        default:
            blk_co_pwrite(blk, at, sizeof(buf), buf, 0);
            break;
        }
        guest->sum = guest->sum * 31 + bgsim_now_ns(world);
        bgsim_progress(world);
    }
}

static bool look_and_spoil(BgSim *world, const BgSimCrashState *state,
                           void *opaque, GError **errp)
{
    BlockBackend *own = backend_on(disk);
    uint8_t buf[512];
    int ret = blk_pread(own, 0, sizeof(buf), buf, 0);

    if (ret == 0) {
        memset(buf, '!', sizeof(buf));
        ret = blk_pwrite(own, 512, sizeof(buf), buf, 0);
    }
    blk_unref(own);
    return ret == 0;
}

static const uint64_t cut_steps[] = { 3, 40, 41, 100, 250 };

/* What three guests in three threads saw, and when. */
static uint64_t run_guests(uint64_t seed, bool cuts, uint64_t *ret_hash)
{
    BgSimDiskConfig small = { .size = SECTORS * 512 };
    BgSimCrashConfig some = { .sample = 10, .all_below = 20,
                              .second_every = 3 };
    Guest guests[3] = { { 0 } };
    uint64_t sum = 0;
    GError *error = NULL;

    sim = bgsim_new(seed, NULL);
    disk = bgsim_disk_new(sim, "disk0", &small);
    blk = backend_on(disk);
    for (int i = 0; i < 3; i++) {
        g_autofree char *name = g_strdup_printf("guest%d", i);

        guests[i].left = 30;
        bgsim_spawn(sim, name, bgsim_thread(sim, name), guest_entry,
                    &guests[i]);
    }
    for (size_t i = 0; cuts && i < G_N_ELEMENTS(cut_steps); i++) {
        bgsim_crash_at(sim, cut_steps[i], look_and_spoil, NULL, &some);
    }
    ck_assert_msg(bgsim_run(sim, -1, &error), "%s",
                  error ? error->message : "");
    for (int i = 0; i < 3; i++) {
        sum = sum * 31 + guests[i].sum;
    }
    ck_assert_uint_eq(bgsim_crash_states(sim, NULL) > 0, cuts);
    *ret_hash = bgsim_trace_hash(sim);
    done();
    return sum;
}

START_TEST(a_cut_leaves_the_world_as_it_was)
{
    for (uint64_t seed = 1; seed <= 40; seed++) {
        uint64_t hash, again;
        uint64_t plain = run_guests(seed, false, &hash);

        ck_assert_uint_eq(run_guests(seed, true, &hash), plain);
        run_guests(seed, true, &again);
        ck_assert_uint_eq(again, hash);
    }
}
END_TEST

/* Rules and faults of the run are not those of a recovery. */
START_TEST(a_check_finds_healthy_disks)
{
    BgSimRule *rule;
    GError *error = NULL;

    given();
    put(0, "A", 0);
    rule = bgsim_fail(sim, "disk0:any", EIO);
    ck_assert_msg(bgsim_crash_each(sim, look_and_spoil, NULL, NULL, &error),
                  "%s", error ? error->message : "");
    ck_assert_int_eq(put(0, "B", 0), -EIO);
    bgsim_rule_off(rule);
    done();
}
END_TEST

static bool always_bad(BgSim *world, const BgSimCrashState *state,
                       void *opaque, GError **errp)
{
    if (state->index == 1) {
        g_set_error(errp, g_quark_from_string("test"), 0, "I am unhappy");
        return false;
    }
    return true;
}

START_TEST(a_bad_state_is_told_with_what_survived)
{
    GError *error = NULL;

    given();
    put(2, "A", 0);
    ck_assert(!bgsim_crash_each(sim, always_bad, NULL, NULL, &error));
    ck_assert_ptr_nonnull(strstr(error->message, "I am unhappy"));
    ck_assert_ptr_nonnull(strstr(error->message, "disk0: at 1024 request 1"));
    g_clear_error(&error);
    bgsim_crash_at(sim, bgsim_steps(sim) + 2, always_bad, NULL, NULL);
    bgsim_spawn(sim, "flight", NULL, flight_entry, (void *)"0XX");
    ck_assert(!bgsim_run(sim, -1, &error));
    ck_assert_str_eq(bgsim_violated(sim, NULL), "crash");
    g_clear_error(&error);
    exit(EXIT_SUCCESS); /* the world is good for reports only */
}
END_TEST

/* --- cuts in cuts --------------------------------------------------------- */

typedef struct Nested {
    unsigned depth;
    unsigned max_depth;
    unsigned refused;
    GHashTable *texts;
} Nested;

static bool nested_check(BgSim *world, const BgSimCrashState *state,
                         void *opaque, GError **errp)
{
    Nested *n = opaque;
    uint8_t buf[SECTORS * 512];
    BlockBackend *own;
    bool good = true;

    n->depth++;
    n->max_depth = MAX(n->max_depth, n->depth);
    if (n->depth == 2) {
        char text[SECTORS + 1];

        bgsim_disk_peek(disk, 0, sizeof(buf), buf);
        show(text, buf, SECTORS);
        g_hash_table_add(n->texts, g_strdup(text));
        n->refused += !bgsim_crash_each(world, nested_check, n, NULL, NULL);
    } else {
        own = backend_on(disk);
        memset(buf, 'R', 512);
        good = blk_pwrite(own, 0, 512, buf, 0) == 0 &&
               bgsim_crash_each(world, nested_check, n, NULL, errp);
        blk_unref(own);
    }
    n->depth--;
    return good;
}

START_TEST(a_recovery_can_be_cut_but_not_its_own)
{
    Nested n = { .texts = g_hash_table_new_full(g_str_hash, g_str_equal,
                                                g_free, NULL) };
    Seen seen = { .texts = n.texts };
    uint64_t second;
    GError *error = NULL;

    given();
    put(0, "AB", 0);
    ck_assert_msg(bgsim_crash_each(sim, nested_check, &n, NULL, &error), "%s",
                  error ? error->message : "");
    /* The first cut: ---- A--- -B-- AB--; each with R or without. */
    ck_assert_uint_eq(expect_shown(&seen, "---- A--- -B-- AB-- R--- RB--"),
                      g_hash_table_size(n.texts));
    ck_assert_uint_eq(n.max_depth, 2);
    ck_assert_uint_eq(bgsim_crash_states(sim, &second), 4 + 8);
    ck_assert_uint_eq(second, 8);
    ck_assert_uint_eq(n.refused, 8);
    expect_cut("---- A--- -B-- AB--");
    g_hash_table_destroy(n.texts);
    done();
}
END_TEST

START_TEST(a_second_cut_comes_by_itself_when_asked_for)
{
    BgSimCrashConfig config = { .second_every = 2 };
    uint64_t second;

    given();
    put(0, "ABCD", 0);
    ck_assert(bgsim_crash_each(sim, look_and_spoil, NULL, &config, NULL));
    bgsim_crash_states(sim, &second);
    ck_assert_uint_gt(second, 0);
    done();
}
END_TEST

/* --- several disks, other atoms ------------------------------------------- */

static bool never_the_second_alone(BgSim *world, const BgSimCrashState *state,
                                   void *opaque, GError **errp)
{
    unsigned *seen = opaque;
    uint8_t first, second;

    bgsim_disk_peek(disk, 0, 1, &first);
    bgsim_disk_peek(bgsim_disk_find(world, "disk1"), 0, 1, &second);
    *seen |= 1u << (first == 'A' ? 1 : 0) << (second == 'A' ? 2 : 0);
    return true;
}

START_TEST(all_disks_are_cut_at_one_moment)
{
    unsigned seen = 0;
    BgSimDisk *other;
    BlockBackend *first, *second;

    given();
    first = blk;
    other = bgsim_disk_new(sim, "disk1", NULL);
    blk = backend_on(other);
    put(0, "A", 0);
    second = blk;
    blk = first;
    put(0, "A", 0);
    ck_assert(bgsim_crash_each(sim, never_the_second_alone, &seen, NULL,
                               NULL));
    ck_assert_uint_eq(seen, 1 | 2 | 4 | 8);     /* all four of them */
    ck_assert_int_eq(blk_flush(blk), 0);
    seen = 0;
    ck_assert(bgsim_crash_each(sim, never_the_second_alone, &seen, NULL,
                               NULL));
    ck_assert_uint_eq(seen, 2 | 8);
    blk_unref(second);
    done();
}
END_TEST

START_TEST(an_atom_is_never_torn)
{
    BgSimDiskConfig config = { .size = 8192, .atom = 4096 };

    given_seed(1, &config);
    put(1, "ABC", 0);
    put(9, "D", 0);
    expect_cut("---------------- -ABC------------ ---------D------ "
               "-ABC-----D------");
    done();
}
END_TEST

typedef struct Race {
    bool flush_ended, write_ended, write_ended_first;
} Race;

static void coroutine_fn race_flush(BgSim *world, void *opaque)
{
    Race *race = opaque;

    ck_assert_int_eq(blk_co_flush(blk), 0);
    race->flush_ended = true;
    race->write_ended_first = race->write_ended;
}

static void coroutine_fn race_write(BgSim *world, void *opaque)
{
    flight_entry(world, (void *)"1B");
    ((Race *)opaque)->write_ended = true;
}

/* A flush that began before a write ended promises nothing for it. */
START_TEST(a_flush_covers_only_what_ended_before_it)
{
    unsigned cases = 0;

    for (uint64_t seed = 1; seed <= 60; seed++) {
        Race race = { false, false, false };

        given_seed(seed, NULL);
        put(0, "A", 0);
        bgsim_spawn(sim, "flush", NULL, race_flush, &race);
        bgsim_spawn(sim, "write", NULL, race_write, &race);
        ck_assert(bgsim_run(sim, -1, NULL));
        expect_cut("A--- AB--");
        cases += race.write_ended_first;
        done();
    }
    ck_assert_uint_gt(cases, 5);
}
END_TEST

static void coroutine_fn read_entry(BgSim *world, void *opaque)
{
    uint8_t buf[SECTORS * 512];

    ck_assert_int_eq(blk_co_pread(blk, 0, sizeof(buf), buf, 0), 0);
    show(opaque, buf, SECTORS);
}

/* Nor is what a read has seen on its way gone from the game. */
START_TEST(what_was_seen_of_a_write_in_flight_may_still_be_lost)
{
    BgSimDiskConfig torn = { .size = SECTORS * 512,
                             .torn_read_permille = 500 };
    unsigned mixed = 0;

    for (uint64_t seed = 1; seed <= 60; seed++) {
        char text[SECTORS + 1] = "";

        given_seed(seed, &torn);
        bgsim_spawn(sim, "flight", NULL, flight_entry, (void *)"0XY");
        bgsim_spawn(sim, "read", NULL, read_entry, text);
        while (!text[0]) {
            bgsim_step(sim);
        }
        mixed += strcmp(text, "X---") == 0 || strcmp(text, "-Y--") == 0;
        expect_cut("---- X--- -Y-- XY--");
        ck_assert(bgsim_run(sim, -1, NULL));
        expect_cut("---- X--- -Y-- XY--");
        done();
    }
    ck_assert_uint_gt(mixed, 2);
}
END_TEST

START_TEST(a_flush_that_failed_and_forgot_never_makes_it_stable)
{
    BgSimDiskConfig config = { .size = SECTORS * 512,
                               .flush_mode = BGSIM_FLUSH_FORGET_CLEAN };
    BgSimRule *rule;

    given_seed(1, &config);
    put(0, "A", 0);
    rule = bgsim_fail(sim, "disk0:flush", EIO);
    ck_assert_int_eq(blk_flush(blk), -EIO);
    bgsim_rule_off(rule);
    ck_assert_int_eq(blk_flush(blk), 0);
    expect_cut("----");
    put(0, "B", 0);
    ck_assert_int_eq(blk_flush(blk), 0);
    expect_cut("B---");
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
    PROMISE(tcase, a_file_may_have_any_size_it_had_since_the_last_flush);
    PROMISE(tcase, what_is_flushed_lies_inside_the_size);
    PROMISE(tcase, a_cut_leaves_the_world_as_it_was);
    PROMISE(tcase, a_check_finds_healthy_disks);
    PROMISE(tcase, a_bad_state_is_told_with_what_survived);
    PROMISE(tcase, a_recovery_can_be_cut_but_not_its_own);
    PROMISE(tcase, a_second_cut_comes_by_itself_when_asked_for);
    PROMISE(tcase, all_disks_are_cut_at_one_moment);
    PROMISE(tcase, an_atom_is_never_torn);
    PROMISE(tcase, a_flush_covers_only_what_ended_before_it);
    PROMISE(tcase, what_was_seen_of_a_write_in_flight_may_still_be_lost);
    PROMISE(tcase, a_flush_that_failed_and_forgot_never_makes_it_stable);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
