/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Power cuts: checks have a world of their own, and the one outside goes on as
 * if nothing had been.
 */
#include "check-main.h"
#include "crash-fixture.h"
#include "sim/sim-int.h"

#include <unistd.h>

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

/* What the last run has drawn. */
static Tape *last_tape;

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
    tape_free(last_tape);
    last_tape = tape_new_replay(sim->tape);
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
    g_clear_pointer(&last_tape, tape_free);
}
END_TEST

/* The choices of checks come from one number on the tape. */
START_TEST(a_tape_replays_the_checks_too)
{
    for (uint64_t seed = 1; seed <= 20; seed++) {
        uint64_t hash, again;

        run_guests(seed, true, &hash);
        sim_tape_preset = g_steal_pointer(&last_tape);
        run_guests(seed, true, &again);
        ck_assert_uint_eq(again, hash);
    }
    g_clear_pointer(&last_tape, tape_free);
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
    ck_assert_str_eq(bgsim_violated(sim, NULL), "power-cut");
    g_clear_error(&error);
    _exit(EXIT_SUCCESS); /* the world is good for reports only */
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

int main(void)
{
    Suite *suite = suite_create("sim-recovery");
    TCase *tcase = tcase_create("sim-recovery");

    tcase_set_timeout(tcase, 120);
    PROMISE(tcase, a_cut_leaves_the_world_as_it_was);
    PROMISE(tcase, a_tape_replays_the_checks_too);
    PROMISE(tcase, a_check_finds_healthy_disks);
    PROMISE(tcase, a_bad_state_is_told_with_what_survived);
    PROMISE(tcase, a_recovery_can_be_cut_but_not_its_own);
    PROMISE(tcase, a_second_cut_comes_by_itself_when_asked_for);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
