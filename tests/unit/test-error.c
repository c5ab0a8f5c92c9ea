/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "check-main.h"

#include <blockgraph/error.h>
#include <errno.h>

START_TEST(error_carries_errno_as_code_and_in_its_text)
{
    g_autoptr(GError) error = NULL;

    ck_assert_int_eq(block_error_errno(&error, ENOENT, "Could not open '%s'",
                                       "a.img"),
                     -ENOENT);
    ck_assert_int_eq(block_error_code(error), ENOENT);
    ck_assert_uint_eq(error->domain, block_error_quark());
    ck_assert_str_eq(g_quark_to_string(error->domain), "blockgraph-error");
    ck_assert_str_eq(error->message,
                     "Could not open 'a.img': No such file or directory");
}
END_TEST

START_TEST(control_characters_of_hostile_names_are_escaped)
{
    g_autoptr(GError) error = NULL;

    block_error(&error, EINVAL, "Bad name '%s'", "a\n\033[2Jb\x7f");
    ck_assert_str_eq(error->message, "Bad name 'a\\x0a\\x1b[2Jb\\x7f'");
}
END_TEST

/* One byte or several: a terminal obeys U+009B as it does "\033[", and the
 * others hide or turn round what stands beside them. */
START_TEST(what_cannot_be_seen_is_escaped_in_any_length)
{
    g_autoptr(GError) error = NULL;

    block_error(&error, EINVAL, "Bad name '%s'",
                "\xc2\x9b" "2J \xc3\xa9 \xe2\x80\xae" "a\xe2\x80\xa8");
    ck_assert_str_eq(error->message, "Bad name '\\xc2\\x9b2J \xc3\xa9 "
                     "\\xe2\\x80\\xaea\\xe2\\x80\\xa8'");
}
END_TEST

START_TEST(bytes_that_are_not_utf8_are_escaped)
{
    g_autoptr(GError) error = NULL;

    block_error(&error, EINVAL, "Bad name '%s'", "\xff\xc3\xa9\xe2\x82");
    ck_assert_str_eq(error->message,
                     "Bad name '\\xff\xc3\xa9\\xe2\\x82'");
}
END_TEST

START_TEST(a_caller_without_interest_passes_null)
{
    ck_assert_int_eq(block_error(NULL, EPERM, "no"), -EPERM);
}
END_TEST

START_TEST(an_error_of_another_domain_counts_as_eio)
{
    g_autoptr(GError) error = g_error_new(G_FILE_ERROR, 3, "x");

    ck_assert_int_eq(block_error_code(error), EIO);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("error");
    TCase *tcase = tcase_create("error");

    PROMISE(tcase, error_carries_errno_as_code_and_in_its_text);
    PROMISE(tcase, control_characters_of_hostile_names_are_escaped);
    PROMISE(tcase, what_cannot_be_seen_is_escaped_in_any_length);
    PROMISE(tcase, bytes_that_are_not_utf8_are_escaped);
    PROMISE(tcase, a_caller_without_interest_passes_null);
    PROMISE(tcase, an_error_of_another_domain_counts_as_eio);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
