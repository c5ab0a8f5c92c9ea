/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Numbers as the tools print them: scripts parse these lines.
 */
#include "tools/tool-print.h"

#include <errno.h>

#include "tests/unit/check-main.h"

#define KIB 1024.0
#define SEC INT64_C(1000000000)

static void bytes_are(double bytes, const char *expected)
{
    char text[TOOL_TEXT_MAX];

    ck_assert_str_eq(tool_format_bytes(bytes, text), expected);
}

START_TEST(a_size_has_the_largest_unit_that_fits)
{
    bytes_are(0, "0 bytes");
    bytes_are(1, "1 bytes");
    bytes_are(1023, "1023 bytes");
    bytes_are(KIB, "1 KiB");
    bytes_are(1536, "1.500 KiB");
    bytes_are(2024, "1.977 KiB");
    bytes_are(KIB * KIB, "1 MiB");
    bytes_are(KIB * KIB * KIB, "1 GiB");
    bytes_are(KIB * KIB * KIB * KIB, "1 TiB");
    bytes_are((double)INT64_MAX, "8 EiB");
    bytes_are(1e30, "867361737988.404 EiB");
}
END_TEST

START_TEST(a_rate_below_a_kibibyte_keeps_its_fraction)
{
    bytes_are(0.5, "0.500000 bytes");
    bytes_are(574.308866, "574.308866 bytes");
}
END_TEST

static void time_is(int64_t ns, ToolTimeStyle style, const char *expected)
{
    char text[TOOL_TEXT_MAX];

    ck_assert_str_eq(tool_format_time(ns, style, text), expected);
}

START_TEST(a_short_time_is_in_seconds)
{
    time_is(0, TOOL_TIME_SHORT, "00.00 sec");
    time_is(SEC / 100, TOOL_TIME_SHORT, "00.01 sec");
    time_is(SEC * 123 / 10, TOOL_TIME_SHORT, "12.30 sec");
}
END_TEST

START_TEST(a_long_or_fixed_time_has_hours_and_minutes)
{
    time_is(SEC * 60, TOOL_TIME_SHORT, "0:01:00.00");
    time_is(SEC * 3661, TOOL_TIME_SHORT, "1:01:01.00");
    time_is(SEC / 100, TOOL_TIME_FIXED, "0:00:00.01");
    time_is(SEC * 3600 * 1000, TOOL_TIME_FIXED, "1000:00:00.00");
}
END_TEST

START_TEST(rounding_up_carries_into_the_seconds)
{
    time_is(SEC - 1, TOOL_TIME_SHORT, "01.00 sec");
    time_is(SEC * 60 - 1, TOOL_TIME_SHORT, "0:01:00.00");
    time_is(INT64_MAX, TOOL_TIME_FIXED, "2562047:47:16.85");
}
END_TEST

START_TEST(a_size_is_read_or_refused_with_its_reason)
{
    ck_assert_int_eq(tool_parse_size("64k"), 65536);
    ck_assert_int_eq(tool_parse_size("1.5k"), 1536);
    ck_assert_int_eq(tool_parse_size("0x10"), 16);
    ck_assert_int_eq(tool_parse_size(""), -EINVAL);
    ck_assert_int_eq(tool_parse_size("x"), -EINVAL);
    ck_assert_int_eq(tool_parse_size("-1"), -EINVAL);
    ck_assert_int_eq(tool_parse_size("9E"), -ERANGE);
}
END_TEST

START_TEST(a_pattern_is_one_byte)
{
    ck_assert_int_eq(tool_parse_byte("0"), 0);
    ck_assert_int_eq(tool_parse_byte("255"), 255);
    ck_assert_int_eq(tool_parse_byte("0xcd"), 0xcd);
    ck_assert_int_eq(tool_parse_byte("010"), 8);
    ck_assert_int_eq(tool_parse_byte("256"), -EINVAL);
    ck_assert_int_eq(tool_parse_byte("-1"), -EINVAL);
    ck_assert_int_eq(tool_parse_byte(""), -EINVAL);
    ck_assert_int_eq(tool_parse_byte("1x"), -EINVAL);
}
END_TEST

START_TEST(a_name_of_a_stranger_cannot_steer_a_terminal)
{
    static const char *const rows[][2] = {
        { "plain \303\244", "plain \303\244" },
        { "x\n\x1b]0;y\a", "x\\x0a\\x1b]0;y\\x07" },
        { "\302\233" "2J", "\\xc2\\x9b2J" },            /* CSI in C1 */
        { "a\342\200\256gpj", "a\\xe2\\x80\\xaegpj" }, /* bidi */
        { "\377", "\\xff" },
        { "", "" },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autofree char *safe = tool_safe_text(rows[i][0]);

        ck_assert_str_eq(safe, rows[i][1]);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tool-print");
    TCase *tcase = tcase_create("tool-print");

    PROMISE(tcase, a_size_has_the_largest_unit_that_fits);
    PROMISE(tcase, a_rate_below_a_kibibyte_keeps_its_fraction);
    PROMISE(tcase, a_short_time_is_in_seconds);
    PROMISE(tcase, a_long_or_fixed_time_has_hours_and_minutes);
    PROMISE(tcase, rounding_up_carries_into_the_seconds);
    PROMISE(tcase, a_size_is_read_or_refused_with_its_reason);
    PROMISE(tcase, a_pattern_is_one_byte);
    PROMISE(tcase, a_name_of_a_stranger_cannot_steer_a_terminal);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
