/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The choice tape: what is drawn, given back, packed, and written as text.
 */
#include "check-main.h"

#include <string.h>

#include "sim/supervise.h"

/* Three labels, with a group; the same calls for any tape. */
static void draw_all(Tape *tape, uint64_t *ret)
{
    static const uint64_t bounds[] = { 5, 1000, 3 };

    for (unsigned i = 0; i < 4; i++) {
        *ret++ = tape_draw(tape, "a", 100);
        tape_draw_group(tape, "b", bounds, ret, 3);
        ret += 3;
        *ret++ = tape_draw(tape, "c", UINT64_MAX);
    }
}

#define DRAWN 20

START_TEST(a_seed_decides_all_that_is_drawn)
{
    uint64_t values[3][DRAWN];
    uint64_t seeds[] = { 1, 1, 2 };

    for (unsigned i = 0; i < 3; i++) {
        Tape *tape = tape_new(seeds[i]);

        draw_all(tape, values[i]);
        tape_free(tape);
    }
    ck_assert_mem_eq(values[0], values[1], sizeof(values[0]));
    ck_assert_mem_ne(values[0], values[2], sizeof(values[0]));
}
END_TEST

START_TEST(a_replay_gives_back_what_was_drawn_and_then_zeroes)
{
    Tape *tape = tape_new(7);
    Tape *again;
    uint64_t values[2][DRAWN];

    draw_all(tape, values[0]);
    again = tape_new_replay(tape);
    draw_all(again, values[1]);
    ck_assert_mem_eq(values[0], values[1], sizeof(values[0]));
    ck_assert_uint_eq(again->misfits, 0);
    for (unsigned i = 0; i < 5; i++) {
        ck_assert_uint_eq(tape_draw(again, "a", 100), 0);
        ck_assert_uint_eq(tape_draw(again, "new", 100), 0);
    }
    tape_free(tape);
    tape_free(again);
}
END_TEST

START_TEST(streams_do_not_shift_each_other)
{
    Tape *tape = tape_new(0);
    Tape *again;

    for (unsigned i = 0; i < 3; i++) {
        tape_put(tape, "a", i, 10, 0);
        tape_put(tape, "b", 5 + i, 10, 0);
    }
    again = tape_new_replay(tape);
    ck_assert_uint_eq(tape_draw(again, "b", 10), 5);
    ck_assert_uint_eq(tape_draw(again, "b", 10), 6);
    ck_assert_uint_eq(tape_draw(again, "a", 10), 0);
    ck_assert_uint_eq(tape_draw(again, "b", 10), 7);
    ck_assert_uint_eq(tape_draw(again, "a", 10), 1);
    tape_free(tape);
    tape_free(again);
}
END_TEST

START_TEST(a_value_that_no_longer_fits_is_counted_and_made_to_fit)
{
    Tape *tape = tape_new(0);
    Tape *again;

    tape_put(tape, "a", 17, 20, 0);
    tape_put(tape, "a", 3, 20, 0);
    again = tape_new_replay(tape);
    ck_assert_uint_lt(tape_draw(again, "a", 10), 10);
    ck_assert_uint_eq(again->misfits, 1);
    ck_assert_uint_eq(tape_draw(again, "a", 10), 3);
    ck_assert_uint_eq(again->misfits, 1);
    tape_free(tape);
    tape_free(again);
}
END_TEST

START_TEST(a_group_is_replayed_as_one_whatever_its_size_is_now)
{
    static const uint64_t bounds[] = { 10, 10, 10, 10 };
    static const uint64_t misfits[] = { [2] = 2, [3] = 0, [4] = 1 };
    Tape *tape = tape_new(3);
    uint64_t first[3];
    uint64_t second[3];
    uint64_t got[4];

    tape_draw_group(tape, "op", bounds, first, 3);
    tape_draw_group(tape, "op", bounds, second, 3);
    for (unsigned n = 2; n <= 4; n++) {
        Tape *again = tape_new_replay(tape);

        tape_draw_group(again, "op", bounds, got, n);
        ck_assert_mem_eq(got, first, MIN(n, 3) * sizeof(got[0]));
        ck_assert(n < 4 || got[3] == 0);
        tape_draw_group(again, "op", bounds, got, n);
        ck_assert_mem_eq(got, second, MIN(n, 3) * sizeof(got[0]));
        /* Too much is passed over; what is missing counts, but not at the
         * end of the stream. */
        ck_assert_uint_eq(again->misfits, misfits[n]);
        tape_free(again);
    }
    tape_free(tape);
}
END_TEST

START_TEST(the_bytes_of_a_fuzzer_are_choices_and_end_in_zeroes)
{
    static const uint8_t bytes[] = { 7, 1, 2, 200 };
    Tape *tape = tape_new_bytes(bytes, sizeof(bytes));

    ck_assert_uint_eq(tape_draw(tape, "a", 10), 7);
    ck_assert_uint_eq(tape_draw(tape, "b", 1), 0);      /* takes none */
    ck_assert_uint_eq(tape_draw(tape, "b", 1000), 0x102);
    ck_assert_uint_eq(tape_draw(tape, "a", 256), 200);
    ck_assert_uint_eq(tape_draw(tape, "a", 256), 0);
    tape_free(tape);
}
END_TEST

START_TEST(a_packed_tape_is_the_same_tape)
{
    g_autofree char *buf = g_malloc(4096);
    Tape *tape = tape_new(11);
    uint64_t values[2][DRAWN];
    Tape *again;
    size_t size;

    draw_all(tape, values[0]);
    size = tape_pack(tape, true, buf, 4096);
    ck_assert_uint_gt(size, 0);
    ck_assert_uint_eq(tape_pack(tape, true, buf, size - 1), 0);
    ck_assert_uint_eq(tape_pack(tape, true, buf, size), size);
    again = tape_unpack(buf, size);
    draw_all(again, values[1]);
    ck_assert_mem_eq(values[0], values[1], sizeof(values[0]));
    tape_free(tape);
    tape_free(again);
}
END_TEST

START_TEST(packing_leaves_out_what_the_run_has_not_asked_for)
{
    char buf[4096];
    Tape *tape = tape_new(0);
    Tape *again;
    size_t size;

    for (unsigned i = 0; i < 10; i++) {
        tape_put(tape, "a", 1, 2, 0);
        tape_put(tape, "b", 1, 2, 0);
    }
    again = tape_new_replay(tape);
    tape_draw(again, "a", 2);
    tape_draw(again, "a", 2);
    size = tape_pack(again, true, buf, sizeof(buf));
    tape_free(again);
    again = tape_unpack(buf, size);
    ck_assert_uint_eq(tape_length(again), 2);
    ck_assert_uint_eq(tape_nr_nonzero(again), 2);
    tape_free(tape);
    tape_free(again);
}
END_TEST

/* A tape as text, and from there. */
static Tape *through_text(const Tape *tape, char **ret_text)
{
    GString *text = g_string_new(NULL);
    Tape *again = tape_new(0);
    g_auto(GStrv) lines = NULL;

    tape_to_text(tape, text);
    lines = g_strsplit(text->str, "\n", 0);
    again->replay = true;
    for (unsigned i = 0; lines[i] && lines[i][0]; i++) {
        ck_assert_int_eq(tape_parse_line(again, lines[i], NULL), 0);
    }
    *ret_text = g_string_free(text, FALSE);
    return again;
}

START_TEST(a_tape_survives_the_way_through_text)
{
    Tape *tape = tape_new(5);
    uint64_t values[2][DRAWN];
    g_autofree char *text = NULL;
    Tape *again;

    tape_put(tape, "with blanks\n", 1, 2, 0);
    draw_all(tape, values[0]);
    again = through_text(tape, &text);
    ck_assert_uint_eq(tape_length(again), tape_length(tape));
    ck_assert_uint_eq(tape_draw(again, "with blanks\n", 2), 1);
    draw_all(again, values[1]);
    ck_assert_mem_eq(values[0], values[1], sizeof(values[0]));
    tape_free(tape);
    tape_free(again);
}
END_TEST

START_TEST(equal_lines_are_one_and_groups_have_a_line)
{
    static const uint64_t bounds[] = { 1, 1 };
    Tape *tape = tape_new(0);
    g_autofree char *text = NULL;
    uint64_t values[2];

    for (unsigned i = 0; i < 7; i++) {
        tape_put(tape, "a", 3, 9, 0);
    }
    tape_draw_group(tape, "b", bounds, values, 2);
    tape_draw_group(tape, "b", bounds, values, 2);
    tape_draw_group(tape, "b", bounds, values, 1);
    tape_put(tape, "sched", 1, 2, 0);  /* written by name, elsewhere */
    tape_free(through_text(tape, &text));
    ck_assert_str_eq(text, "a 3/9 x7\nb 0/1 0/1 x2\nb 0/1\n");
    tape_free(tape);
}
END_TEST

START_TEST(trimming_drops_zeroes_at_the_end_only)
{
    Tape *tape = tape_new(0);
    static const uint64_t values[] = { 0, 4, 0, 0 };

    for (unsigned i = 0; i < G_N_ELEMENTS(values); i++) {
        tape_put(tape, "a", values[i], 9, 0);
        tape_put(tape, "b", 0, 9, 0);
    }
    tape_trim(tape);
    ck_assert_uint_eq(tape->streams->len, 1);
    ck_assert_uint_eq(tape_length(tape), 2);
    ck_assert_uint_eq(tape_nr_nonzero(tape), 1);
    tape_free(tape);
}
END_TEST

START_TEST(bad_lines_are_refused_with_a_reason)
{
    static const char *const bad[] = {
        "", "a", "a 1", "a 1/", "a /2", "a 2/2", "a 0/0", "a -1/2", "a 1/2/3",
        "a x3", "a 1/2 x0", "a 1/2 x", "a 1/2 x9999999", "a 1/2  3/4",
        "a 1/99999999999999999999999", "%zz 1/2",
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        Tape *tape = tape_new(0);
        g_autoptr(GError) error = NULL;

        ck_assert_msg(tape_parse_line(tape, bad[i], &error) < 0, "'%s'",
                      bad[i]);
        ck_assert_ptr_nonnull(error);
        tape_free(tape);
    }
}
END_TEST

START_TEST(a_decision_survives_the_way_through_text)
{
    SimDecision decision = { .position = 41, .value = 1, .bound = 3,
                             .actor = (char *)"guest 1", .nth = 2,
                             .what = (char *)"run" };
    g_autofree char *text = sim_decision_to_text(&decision);
    g_autofree char *again_text = NULL;
    g_autoptr(GPtrArray) list = sim_decisions_new();
    SimDecision *again;

    ck_assert_str_eq(text, "sched @41 1/3 guest%201 run #2");
    again = sim_decision_parse(text + strlen("sched "), NULL);
    ck_assert_ptr_nonnull(again);
    g_ptr_array_add(list, again);
    again_text = sim_decision_to_text(again);
    ck_assert_str_eq(again_text, text);
    ck_assert_ptr_null(sim_decision_parse("41 1/3 guest run", NULL));
    ck_assert_ptr_null(sim_decision_parse("@41 3/3 guest run", NULL));
    ck_assert_ptr_null(sim_decision_parse("@41 1/3 guest", NULL));
    ck_assert_ptr_null(sim_decision_parse("@41 1/3 guest run 2", NULL));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sim-tape");
    TCase *tcase = tcase_create("tape");

    tcase_set_timeout(tcase, 120);
    PROMISE(tcase, a_seed_decides_all_that_is_drawn);
    PROMISE(tcase, a_replay_gives_back_what_was_drawn_and_then_zeroes);
    PROMISE(tcase, streams_do_not_shift_each_other);
    PROMISE(tcase, a_value_that_no_longer_fits_is_counted_and_made_to_fit);
    PROMISE(tcase, a_group_is_replayed_as_one_whatever_its_size_is_now);
    PROMISE(tcase, the_bytes_of_a_fuzzer_are_choices_and_end_in_zeroes);
    PROMISE(tcase, a_packed_tape_is_the_same_tape);
    PROMISE(tcase, packing_leaves_out_what_the_run_has_not_asked_for);
    PROMISE(tcase, a_tape_survives_the_way_through_text);
    PROMISE(tcase, equal_lines_are_one_and_groups_have_a_line);
    PROMISE(tcase, trimming_drops_zeroes_at_the_end_only);
    PROMISE(tcase, bad_lines_are_refused_with_a_reason);
    PROMISE(tcase, a_decision_survives_the_way_through_text);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
