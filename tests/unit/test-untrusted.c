/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Numbers from outside: what is read, and what leads out.
 */
#include "check-main.h"

#include "util/untrusted.h"

static const uint8_t bytes[] = { 0x00, 0x81, 0x02, 0x03, 0x04,
                                 0x05, 0x06, 0x07, 0x88 };

START_TEST(readers_know_the_order_of_bytes_at_any_address)
{
    ck_assert(untrusted_is(untrusted_byte(bytes + 1), 0x81));
    ck_assert(untrusted_is(untrusted_be16(bytes + 1), 0x8102));
    ck_assert(untrusted_is(untrusted_be32(bytes + 1), 0x81020304));
    ck_assert(untrusted_is(untrusted_be64(bytes + 1),
                           UINT64_C(0x8102030405060788)));
    ck_assert(untrusted_is(untrusted_le32(bytes + 1), 0x04030281));
    ck_assert(untrusted_is(untrusted_le64(bytes + 1),
                           UINT64_C(0x8807060504030281)));
}
END_TEST

START_TEST(what_we_have_sent_comes_back_as_it_was)
{
    uint64_t cookie = UINT64_C(0x8102030405060788);
    uint8_t sent[9];

    memcpy(sent + 1, &cookie, sizeof(cookie));
    ck_assert(untrusted_is(untrusted_raw64(sent + 1), cookie));
}
END_TEST

START_TEST(a_limit_may_have_any_type_and_none_is_passed_below_zero)
{
    ck_assert(untrusted_above(untrusted(6), 5));
    ck_assert(!untrusted_above(untrusted(5), 5u));
    ck_assert(!untrusted_above(untrusted(UINT64_MAX), UINT64_MAX));
    ck_assert(untrusted_above(untrusted(UINT64_MAX), INT64_MAX));
    ck_assert(untrusted_above(untrusted(0), -1));
    ck_assert(untrusted_above(untrusted(0), INT64_MIN));
}
END_TEST

START_TEST(what_is_at_most_its_limit_comes_out)
{
    uint64_t wide = 1;
    int64_t offset = 1;
    uint8_t narrow = 1;

    ck_assert(untrusted_at_most(untrusted(7), 7, &wide) && wide == 7);
    ck_assert(!untrusted_at_most(untrusted(8), 7, &wide));
    ck_assert(!untrusted_at_most(untrusted(0), -1, &wide));
    ck_assert_uint_eq(wide, 7);
    ck_assert(untrusted_at_most(untrusted(UINT64_MAX), UINT64_MAX, &wide));
    ck_assert_uint_eq(wide, UINT64_MAX);
    ck_assert(untrusted_at_most(untrusted(INT64_MAX), INT64_MAX, &offset));
    ck_assert_int_eq(offset, INT64_MAX);
    ck_assert(untrusted_at_most(untrusted(255), 1000, &narrow));
    ck_assert_uint_eq(narrow, 255);
}
END_TEST

START_TEST(what_its_place_cannot_hold_stays_out_whatever_the_limit)
{
    int64_t offset = 5;
    uint8_t narrow = 5;

    ck_assert(!untrusted_at_most(untrusted((uint64_t)INT64_MAX + 1),
                                 UINT64_MAX, &offset));
    ck_assert(!untrusted_at_most(untrusted(256), 1000, &narrow));
    ck_assert(offset == 5 && narrow == 5);
}
END_TEST

START_TEST(masks_bound_and_words_are_whole)
{
    Untrusted u = untrusted(UINT64_C(0xf00000000000000f));

    ck_assert_uint_eq(untrusted_bits(u, 0x3c), 0xc);
    ck_assert_uint_eq(untrusted_bits(u, 0), 0);
    ck_assert_uint_eq(untrusted_word(u), UINT64_C(0xf00000000000000f));
    ck_assert_uint_eq(untrusted_verbatim(u), UINT64_C(0xf00000000000000f));
}
END_TEST

START_TEST(results_that_do_not_fit_are_told_and_touch_nothing)
{
    Untrusted max = untrusted(UINT64_MAX), one = untrusted(1);
    Untrusted ret = untrusted(77);

    ck_assert(!untrusted_add(max, one, &ret));
    ck_assert(!untrusted_subtract(one, max, &ret));
    ck_assert(untrusted_is(ret, 77));
}
END_TEST

START_TEST(results_that_fit_are_right)
{
    Untrusted ret;

    ck_assert(untrusted_add(untrusted(UINT64_MAX - 1), untrusted(1), &ret));
    ck_assert(untrusted_is(ret, UINT64_MAX));
    ck_assert(untrusted_subtract(untrusted(5), untrusted(5), &ret));
    ck_assert(untrusted_is(ret, 0));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("untrusted");
    TCase *tcase = tcase_create("untrusted");

    PROMISE(tcase, readers_know_the_order_of_bytes_at_any_address);
    PROMISE(tcase, what_we_have_sent_comes_back_as_it_was);
    PROMISE(tcase, a_limit_may_have_any_type_and_none_is_passed_below_zero);
    PROMISE(tcase, what_is_at_most_its_limit_comes_out);
    PROMISE(tcase, what_its_place_cannot_hold_stays_out_whatever_the_limit);
    PROMISE(tcase, masks_bound_and_words_are_whole);
    PROMISE(tcase, results_that_do_not_fit_are_told_and_touch_nothing);
    PROMISE(tcase, results_that_fit_are_right);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
