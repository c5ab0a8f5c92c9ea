/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Messages from a stream of bytes.
 */
#include "check-main.h"

#include <errno.h>
#include <string.h>

#include "monitor/qmp-json.h"

static QmpParser *parser;

static void setup(void)
{
    parser = qmp_parser_new();
}

static void teardown(void)
{
    qmp_parser_free(parser);
}

/*
 * What the parser makes of @text when it comes in pieces of @piece bytes: each
 * message as it is written out again, each error as "!", one after the other.
 */
static char *parse_in_pieces(const char *text, size_t bytes, size_t piece)
{
    GString *seen = g_string_new(NULL);

    while (bytes > 0) {
        g_autoptr(GError) error = NULL;
        json_t *message;
        size_t used = qmp_parser_feed(parser, text, MIN(piece, bytes),
                                      &message, &error);

        ck_assert(!(message && error));
        if (message) {
            g_autofree char *shown = qmp_json_text(message);

            g_string_append_printf(seen, "%s ", shown);
            json_decref(message);
        } else if (error) {
            g_string_append(seen, "! ");
        } else {
            ck_assert_uint_eq(used, MIN(piece, bytes));
        }
        text += used;
        bytes -= used;
    }
    return g_string_free(seen, FALSE);
}

/* The same in whatever pieces it comes. */
static void expect(const char *text, const char *wanted)
{
    for (size_t piece = 1; piece < 40; piece += 6) {
        g_autofree char *seen = parse_in_pieces(text, strlen(text), piece);

        ck_assert_str_eq(seen, wanted);
        ck_assert(!qmp_parser_is_inside(parser));
    }
}

START_TEST(messages_follow_each_other_with_or_without_space)
{
    expect("{\"a\":1}{\"b\":[2,{}]}\n\n  [3]  ",
           "{\"a\":1} {\"b\":[2,{}]} [3] ");
}
END_TEST

START_TEST(brackets_in_strings_are_text)
{
    expect("{\"a\":\"}]\\\"{\"}", "{\"a\":\"}]\\\"{\"} ");
}
END_TEST

START_TEST(strings_may_be_in_single_quotes)
{
    expect("{'a':'it\\'s \"b\"'}", "{\"a\":\"it's \\\"b\\\"\"} ");
}
END_TEST

START_TEST(a_word_is_a_message_when_something_follows)
{
    expect("12 true \"x\"\n", "12 true \"x\" ");
}
END_TEST

START_TEST(a_word_at_the_end_is_a_message_too)
{
    json_t *message;
    GError *error = NULL;

    ck_assert_uint_eq(qmp_parser_feed(parser, "17", 2, &message, &error), 2);
    ck_assert_ptr_null(message);
    ck_assert(qmp_parser_is_inside(parser));
    qmp_parser_end(parser, &message, &error);
    ck_assert_int_eq(json_integer_value(message), 17);
    json_decref(message);
}
END_TEST

START_TEST(after_a_bad_byte_the_next_line_is_understood)
{
    expect("?\n{\"a\":1}\n", "! {\"a\":1} ");
    expect("{\"a\": ?}\n{\"b\":1}\n", "! ! {\"b\":1} ");
    expect("\"unclosed\n{\"a\":1}\n", "! {\"a\":1} ");
}
END_TEST

START_TEST(brackets_that_do_not_match_end_the_message)
{
    expect("{\"a\":1]\n{\"b\":1}", "! {\"b\":1} ");
    expect("}\n[1}\n[2]", "! ! [2] ");
}
END_TEST

START_TEST(a_reset_byte_ends_whatever_there_was)
{
    static const char text[] = "{\"half\": \"\xff{\"a\":1}";
    g_autofree char *seen = parse_in_pieces(text, strlen(text), 100);

    ck_assert_str_eq(seen, "! {\"a\":1} ");
}
END_TEST

START_TEST(keys_given_twice_are_refused)
{
    expect("{\"a\":1,\"a\":2}{\"b\":1}", "! {\"b\":1} ");
}
END_TEST

START_TEST(an_integer_that_is_too_large_is_a_real_number)
{
    /* What else there is stays as it was, the id above all. */
    expect("{\"id\":7,\"a\":[18446744073709551616,-5,{\"b\":2.5}]}[1]",
           "{\"id\":7,\"a\":[1.8446744073709552e19,-5,{\"b\":2.5}]} [1] ");
    expect("[99999999999999999999]", "[1e20] ");
    expect("[9223372036854775807,-9223372036854775808]",
           "[9223372036854775807,-9223372036854775808] ");
    expect("[9223372036854775808,9223372036854775807]",
           "[9.2233720368547758e18,9.2233720368547758e18] ");
}
END_TEST

START_TEST(what_is_no_json_between_good_brackets_is_refused)
{
    static const char *const texts[] = {
        "{\"a\"}", "{\"a\":}", "{,}", "[1 2]", "[1,]", "{\"a\":nul}",
        "[\"\\x\"]", "[\"\\u0000\"]", "[1e999]",
        "[\"\xc3\x28\"]", "[\"\\ud800\"]", "[--1]", "[01]", "{1:2}",
    };

    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
        g_autofree char *text = g_strconcat(texts[i], "{\"b\":1}", NULL);

        expect(text, "! {\"b\":1} ");
    }
}
END_TEST

START_TEST(deep_nesting_is_one_error_and_the_next_line_is_understood)
{
    GString *text = g_string_new(NULL);

    for (int i = 0; i < 100000; i++) {
        g_string_append(text, i % 2 ? "[" : "{\"a\":");
    }
    g_string_append(text, "\n{\"b\":1}");
    expect(text->str, "! {\"b\":1} ");
    g_string_free(text, TRUE);
}
END_TEST

START_TEST(as_deep_as_the_limit_is_fine)
{
    g_autofree char *open = g_strnfill(QMP_DEPTH_MAX, '[');
    g_autofree char *end = g_strnfill(QMP_DEPTH_MAX, ']');
    g_autofree char *text = g_strconcat(open, end, NULL);
    g_autofree char *shown = g_strconcat(text, " ", NULL);

    expect(text, shown);
}
END_TEST

/* A string of @bytes in all. */
static char *long_message(size_t bytes)
{
    char *text = g_strnfill(bytes, 'x');

    text[0] = text[bytes - 1] = '"';
    return text;
}

START_TEST(a_message_beyond_the_limit_is_one_error)
{
    g_autofree char *longest = long_message(QMP_MESSAGE_MAX);
    g_autofree char *longer = long_message(QMP_MESSAGE_MAX + 1);
    g_autofree char *text = g_strconcat(longer, "\n[1]", NULL);
    g_autofree char *seen = parse_in_pieces(text, strlen(text), 65536);
    g_autofree char *good = parse_in_pieces(longest, strlen(longest), 65536);

    ck_assert_str_eq(seen, "! [1] ");
    ck_assert_uint_eq(strlen(good), QMP_MESSAGE_MAX + 1);
}
END_TEST

START_TEST(too_many_values_are_one_error)
{
    GString *text = g_string_new("[1");
    g_autofree char *seen = NULL;

    for (int i = 0; i < QMP_TOKENS_MAX; i++) {
        g_string_append(text, ",1");
    }
    g_string_append(text, "]\n[2]");
    seen = parse_in_pieces(text->str, text->len, 65536);
    ck_assert_str_eq(seen, "! [2] ");
    g_string_free(text, TRUE);
}
END_TEST

START_TEST(any_bytes_become_a_string)
{
    json_t *json = qmp_json_string("a\xff" "b");

    ck_assert(json_is_string(json));
    json_decref(json);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("qmp-json");
    TCase *tcase = tcase_create("qmp-json");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 120);
    PROMISE(tcase, messages_follow_each_other_with_or_without_space);
    PROMISE(tcase, brackets_in_strings_are_text);
    PROMISE(tcase, strings_may_be_in_single_quotes);
    PROMISE(tcase, a_word_is_a_message_when_something_follows);
    PROMISE(tcase, a_word_at_the_end_is_a_message_too);
    PROMISE(tcase, after_a_bad_byte_the_next_line_is_understood);
    PROMISE(tcase, brackets_that_do_not_match_end_the_message);
    PROMISE(tcase, a_reset_byte_ends_whatever_there_was);
    PROMISE(tcase, keys_given_twice_are_refused);
    PROMISE(tcase, an_integer_that_is_too_large_is_a_real_number);
    PROMISE(tcase, what_is_no_json_between_good_brackets_is_refused);
    PROMISE(tcase,
            deep_nesting_is_one_error_and_the_next_line_is_understood);
    PROMISE(tcase, as_deep_as_the_limit_is_fine);
    PROMISE(tcase, a_message_beyond_the_limit_is_one_error);
    PROMISE(tcase, too_many_values_are_one_error);
    PROMISE(tcase, any_bytes_become_a_string);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
