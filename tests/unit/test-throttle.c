/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The arithmetic of rate limits, on a clock that the tests turn.
 */
#include "check-main.h"

#include <errno.h>
#include <string.h>

#include "util/clock.h"
#include "util/throttle.h"

#define SEC CLOCK_NS_PER_SEC
#define MS (SEC / 1000)

static Throttle t;

/* A config from "iops-total=10,..."; the one under test unless it is wrong. */
static int config_from(const char *text, ThrottleConfig *config,
                       GError **errp)
{
    g_autoptr(BlockOptions) options =
        block_options_parse_keyval(text, NULL, NULL);
    int ret;

    ck_assert_ptr_nonnull(options);
    ret = block_options_absorb(options, throttle_config_options, config,
                               "limits", errp);
    return ret < 0 ? ret : throttle_check_config(config, errp);
}

static void given(const char *text)
{
    g_autoptr(GError) error = NULL;
    ThrottleConfig config;

    ck_assert_msg(config_from(text, &config, &error) == 0, "%s",
                  error ? error->message : "no error set");
    throttle_configure(&t, &config, 0);
}

/* How many requests of @bytes a greedy guest gets done in [from, to) ns. */
static int64_t served(bool write, int64_t bytes, int64_t from, int64_t to)
{
    int64_t count = 0;

    while (from < to) {
        int64_t wait = throttle_wait_ns(&t, write, from);

        if (wait > 0) {
            from += wait;
            continue;
        }
        throttle_account(&t, write, bytes);
        count++;
    }
    return count;
}

START_TEST(the_long_run_rate_is_the_limit_exactly)
{
    /* 100 ms of the limit, the request at the brim, then 10 a second. */
    given("iops-total=10");
    ck_assert_int_eq(served(false, 512, 0, 1), 2);
    ck_assert_int_eq(served(false, 512, 1, 100 * SEC + 1), 1000);
    given("iops-write=7");
    ck_assert_int_eq(served(true, 512, 0, 1), 1);
    ck_assert_int_eq(served(true, 512, 1, 3600 * SEC), 7 * 3600);
    given("bps-read=1000000");
    ck_assert_int_eq(served(false, 4096, 0, 1), 25);
    ck_assert_int_eq(served(false, 4096, 1, 4096 * SEC), 1000000);
}
END_TEST

START_TEST(looking_often_does_not_change_the_rate)
{
    int64_t count = 0;

    given("iops-total=3");
    for (int64_t now = 0; now < 100 * SEC; now += 333 * 1000 + 7) {
        if (throttle_wait_ns(&t, true, now) == 0) {
            throttle_account(&t, true, 1);
            count++;
        }
    }
    ck_assert_int_ge(count, 300);
    ck_assert_int_le(count, 301);
}
END_TEST

START_TEST(a_burst_of_one_second_goes_at_once)
{
    given("iops-total=100,iops-total-max=1000");
    ck_assert_int_eq(served(false, 1, 0, 1), 1001);
    ck_assert_int_eq(served(false, 1, 1, 10 * SEC + 1), 1000);
    /* Ten idle seconds make room for the next one. */
    ck_assert_int_eq(served(false, 1, 21 * SEC, 21 * SEC + 1), 1001);
}
END_TEST

START_TEST(a_longer_burst_has_a_rate_of_its_own)
{
    int64_t first, second, fourth;

    given("iops-total=100,iops-total-max=1000,iops-total-max-length=3");
    first = served(false, 1, 0, SEC);
    second = served(false, 1, SEC, 2 * SEC);
    served(false, 1, 2 * SEC, 4 * SEC);
    fourth = served(false, 1, 4 * SEC, 5 * SEC);
    ck_assert_int_eq(first, 1100); /* with 100 ms at its start */
    ck_assert_int_eq(second, 1000);
    ck_assert_int_eq(fourth, 100);
}
END_TEST

START_TEST(reads_and_writes_are_limited_apart_or_together)
{
    given("iops-read=10");
    ck_assert_int_eq(served(false, 1, 0, 1), 2);
    ck_assert_int_gt(throttle_wait_ns(&t, false, 1), 0);
    ck_assert_int_eq(throttle_wait_ns(&t, true, 1), 0);
    given("iops-total=10");
    ck_assert_int_eq(served(false, 1, 0, 1), 2);
    ck_assert_int_gt(throttle_wait_ns(&t, true, 1), 0);
    given("bps-write=1000,iops-read=10");
    ck_assert_int_eq(served(true, 101, 0, 1), 1);
    ck_assert_int_eq(served(true, 101, 1, SEC), 10);
    ck_assert_int_eq(throttle_wait_ns(&t, false, SEC), 0);
}
END_TEST

START_TEST(the_stricter_of_two_limits_decides)
{
    given("iops-total=10,bps-total=1000");
    throttle_account(&t, true, 1100); /* a second over the brim */
    ck_assert_int_eq(throttle_wait_ns(&t, true, 0), SEC);
    given("iops-total=10,bps-total=1000000");
    throttle_account(&t, true, 1100);
    throttle_account(&t, true, 1100);
    ck_assert_int_eq(throttle_wait_ns(&t, true, 0), 100 * MS);
}
END_TEST

START_TEST(a_request_above_iops_size_counts_as_several)
{
    given("iops-total=10,iops-size=4096");
    throttle_account(&t, false, 4096);
    ck_assert_int_eq(throttle_wait_ns(&t, false, 0), 0);
    throttle_account(&t, false, 10 * 4096 + 2048);
    ck_assert_int_eq(throttle_wait_ns(&t, false, 0), 1050 * MS);
    given("iops-total=10");
    throttle_account(&t, false, 1 << 30);
    ck_assert_int_eq(throttle_wait_ns(&t, false, 0), 0);
}
END_TEST

START_TEST(time_that_runs_backwards_stands_still)
{
    given("iops-total=10");
    ck_assert_int_eq(served(false, 1, SEC, SEC + 1), 2);
    ck_assert_int_eq(throttle_wait_ns(&t, false, 0), 100 * MS);
    ck_assert_int_eq(throttle_wait_ns(&t, false, SEC + 50 * MS), 50 * MS);
    ck_assert_int_eq(throttle_wait_ns(&t, false, SEC), 50 * MS);
    ck_assert_int_eq(throttle_wait_ns(&t, false, SEC + 100 * MS), 0);
}
END_TEST

START_TEST(extreme_values_do_not_overflow)
{
    given("bps-total=1,bps-total-max=1000000000000000,iops-total=1");
    for (int i = 0; i < 100; i++) {
        throttle_account(&t, true, INT64_MAX);
    }
    ck_assert_int_eq(throttle_wait_ns(&t, true, 0), INT64_MAX / 4);
    ck_assert_int_gt(throttle_wait_ns(&t, true, INT64_MAX), 0);
    given("bps-total=1000000000000000,bps-total-max=1000000000000000");
    throttle_account(&t, true, INT64_MAX);
    ck_assert_int_gt(throttle_wait_ns(&t, true, 0), 0);
    ck_assert_int_eq(throttle_wait_ns(&t, true, INT64_MAX), 0);
}
END_TEST

START_TEST(no_limits_no_wait)
{
    given("");
    ck_assert(!throttle_is_limited(&t));
    throttle_account(&t, true, INT64_MAX);
    ck_assert_int_eq(throttle_wait_ns(&t, true, 0), 0);
}
END_TEST

START_TEST(nonsense_is_refused_with_the_name_of_the_option)
{
    static const struct { const char *config, *message; } cases[] = {
        { "iops-total=10,iops-read=5",
          "Limits 'iops-total' and 'iops-read' cannot be used together" },
        { "bps-total=10,bps-write=5",
          "Limits 'bps-total' and 'bps-write' cannot be used together" },
        { "bps-read-max=10", "Limit 'bps-read-max' (10) needs 'bps-read'" },
        { "iops-write=10,iops-write-max=9",
          "Limit 'iops-write-max' (9) must not be below 'iops-write' (10)" },
        { "iops-total=10,iops-total-max-length=2",
          "Limit 'iops-total-max-length' (2) needs 'iops-total-max'" },
        { "iops-total=1,iops-total-max=1000000,"
          "iops-total-max-length=1000000001",
          "Limit 'iops-total-max-length' (1000000001) is too long for "
          "'iops-total-max' (1000000)" },
        { "iops-size=4096",
          "Limit 'iops-size' (4096) needs a limit of requests a second" },
        { "bps-total=5,iops-size=4096", "'iops-size' (4096) needs" },
        { "bps-total=-1", "'bps-total'" },
        { "bps-total=1000000000000001", "'bps-total'" },
        { "iops-read=1,iops-read-max=2,iops-read-max-length=0",
          "'iops-read-max-length'" },
        { "iops-size=x", "'iops-size'" },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;
        ThrottleConfig config;

        ck_assert_int_eq(config_from(cases[i].config, &config, &error),
                         -EINVAL);
        ck_assert_ptr_nonnull(error);
        ck_assert_msg(strstr(error->message, cases[i].message) != NULL,
                      "'%s' lacks '%s'", error->message, cases[i].message);
    }
}
END_TEST

START_TEST(a_config_that_is_made_by_hand_is_checked_as_well)
{
    ThrottleConfig config = { .iops_size = -1 };

    ck_assert_int_eq(throttle_check_config(&config, NULL), -EINVAL);
    config = (ThrottleConfig){ .limits[THROTTLE_BPS_READ] = { .avg = -5 } };
    ck_assert_int_eq(throttle_check_config(&config, NULL), -EINVAL);
    config = (ThrottleConfig){ .limits[THROTTLE_BPS_READ] = {
        .avg = 5, .max = THROTTLE_VALUE_MAX + 1 } };
    ck_assert_int_eq(throttle_check_config(&config, NULL), -EINVAL);
    config = (ThrottleConfig){ .limits[THROTTLE_BPS_READ] = {
        .avg = 5, .max = 6 } }; /* a length of 0 stands for 1 */
    ck_assert_int_eq(throttle_check_config(&config, NULL), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("throttle");
    TCase *tcase = tcase_create("throttle");

    PROMISE(tcase, the_long_run_rate_is_the_limit_exactly);
    PROMISE(tcase, looking_often_does_not_change_the_rate);
    PROMISE(tcase, a_burst_of_one_second_goes_at_once);
    PROMISE(tcase, a_longer_burst_has_a_rate_of_its_own);
    PROMISE(tcase, reads_and_writes_are_limited_apart_or_together);
    PROMISE(tcase, the_stricter_of_two_limits_decides);
    PROMISE(tcase, a_request_above_iops_size_counts_as_several);
    PROMISE(tcase, time_that_runs_backwards_stands_still);
    PROMISE(tcase, extreme_values_do_not_overflow);
    PROMISE(tcase, no_limits_no_wait);
    PROMISE(tcase, nonsense_is_refused_with_the_name_of_the_option);
    PROMISE(tcase, a_config_that_is_made_by_hand_is_checked_as_well);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
