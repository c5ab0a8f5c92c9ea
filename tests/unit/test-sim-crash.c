/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Power cuts: the states that are shown are the legal ones.
 *
 * One letter is one sector; '-' was never written.
 */
#include "check-main.h"
#include "crash-fixture.h"

#include <blockgraph/driver.h>

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

    tcase_set_timeout(tcase, 120);
    PROMISE(tcase, what_was_not_flushed_may_be_lost_sector_by_sector);
    PROMISE(tcase, fua_pins_what_it_writes_and_nothing_else);
    PROMISE(tcase, a_zero_write_is_a_write);
    PROMISE(tcase, what_is_on_its_way_may_have_arrived_in_parts);
    PROMISE(tcase, a_write_in_flight_is_newer_than_what_a_flush_has_pinned);
    PROMISE(tcase, the_states_are_those_of_an_independent_enumeration);
    PROMISE(tcase, a_sample_has_the_states_where_bugs_hide);
    PROMISE(tcase, a_file_may_have_any_size_it_had_since_the_last_flush);
    PROMISE(tcase, what_is_flushed_lies_inside_the_size);
    PROMISE(tcase, all_disks_are_cut_at_one_moment);
    PROMISE(tcase, an_atom_is_never_torn);
    PROMISE(tcase, a_flush_covers_only_what_ended_before_it);
    PROMISE(tcase, what_was_seen_of_a_write_in_flight_may_still_be_lost);
    PROMISE(tcase, a_flush_that_failed_and_forgot_never_makes_it_stable);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
