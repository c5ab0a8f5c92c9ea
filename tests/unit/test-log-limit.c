/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How often one source may log, on a clock of the test's own.
 */
#include "check-main.h"

#include "util/log-limit.h"

#define SEC INT64_C(1000000000)

static LogLimit limit;
static int64_t now_ns;
static uint64_t left_out;

/* How many of @nr messages at this moment are let through. */
static int burst(int nr)
{
    int passed = 0;

    for (int i = 0; i < nr; i++) {
        passed += log_limit_allows(&limit, now_ns, &left_out);
    }
    return passed;
}

static void setup(void)
{
    limit = (LogLimit){ 0 };
    now_ns = 0;
    left_out = 0;
}

START_TEST(ten_in_a_second_are_let_through)
{
    ck_assert_int_eq(burst(1000), LOG_LIMIT_PER_SEC);
    now_ns = SEC - 1;
    ck_assert_int_eq(burst(1000), 0);
    now_ns = SEC;
    ck_assert_int_eq(burst(1000), LOG_LIMIT_PER_SEC);
}
END_TEST

START_TEST(the_next_one_tells_how_many_were_left_out)
{
    burst(LOG_LIMIT_PER_SEC + 5);
    ck_assert_uint_eq(left_out, 0);
    now_ns += 3 * SEC;
    ck_assert_int_eq(burst(1), 1);
    ck_assert_uint_eq(left_out, 5);
    ck_assert_int_eq(burst(1), 1);
    ck_assert_uint_eq(left_out, 0);
}
END_TEST

START_TEST(who_logs_now_and_then_is_never_held_back)
{
    for (int i = 0; i < 1000; i++, now_ns += SEC / 5) {
        ck_assert_int_eq(burst(1), 1);
        ck_assert_uint_eq(left_out, 0);
    }
}
END_TEST

START_TEST(a_flood_is_ten_a_second_however_long)
{
    int passed = 0;

    for (int i = 0; i < 60 * 1000; i++, now_ns += SEC / 1000) {
        passed += burst(3);
    }
    ck_assert_int_eq(passed, 60 * LOG_LIMIT_PER_SEC);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("log-limit");
    TCase *tcase = tcase_create("log-limit");

    tcase_add_checked_fixture(tcase, setup, NULL);
    PROMISE(tcase, ten_in_a_second_are_let_through);
    PROMISE(tcase, the_next_one_tells_how_many_were_left_out);
    PROMISE(tcase, who_logs_now_and_then_is_never_held_back);
    PROMISE(tcase, a_flood_is_ten_a_second_however_long);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
