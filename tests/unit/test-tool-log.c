/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the library logs, as a tool prints it; on a clock of the test's own.
 */
#include "check-main.h"

#include <glib.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tools/tool-log.h"
#include "util/log-limit.h"

static int64_t now_ns;
static char *path;

static int64_t fake_clock_ns(void)
{
    return now_ns;
}

static void warn_of(const char *name)
{
    g_warning("what '%s' did", name);
}

/* What was printed so far, which is forgotten. */
static char *printed(void)
{
    char *text;

    fflush(stderr);
    ck_assert(g_file_get_contents(path, &text, NULL, NULL));
    ck_assert_int_eq(ftruncate(STDERR_FILENO, 0), 0);
    return text;
}

static unsigned nr_lines(const char *text)
{
    unsigned nr = 0;

    for (; *text; text++) {
        nr += *text == '\n';
    }
    return nr;
}

static void setup(void)
{
    path = g_build_filename(g_get_tmp_dir(), "tool-log-XXXXXX", NULL);
    close(g_mkstemp(path));
    ck_assert_ptr_nonnull(freopen(path, "a", stderr));
    g_set_prgname("my-tool");
    now_ns = 0;
    tool_log_begin(fake_clock_ns);
}

static void teardown(void)
{
    unlink(path);
    g_free(path);
}

START_TEST(a_warning_looks_like_one_of_the_tool)
{
    g_autofree char *text = NULL;

    warn_of("x");
    text = printed();
    ck_assert_str_eq(text, "my-tool: warning: what 'x' did\n");
}
END_TEST

START_TEST(names_do_not_steer_the_terminal_nor_make_lines)
{
    g_autofree char *text = NULL;

    warn_of("\033[2J\nmy-tool: all is well\r\007");
    text = printed();
    ck_assert_uint_eq(nr_lines(text), 1);
    ck_assert_ptr_null(strpbrk(text, "\033\r\007"));
}
END_TEST

START_TEST(a_flood_is_held_back_and_counted_and_hides_no_other)
{
    g_autofree char *flood = NULL, *later = NULL;

    for (int i = 0; i < 1000; i++) {
        warn_of("x");
    }
    g_warning("another");
    flood = printed();
    ck_assert_uint_eq(nr_lines(flood), LOG_LIMIT_PER_SEC + 1);
    ck_assert(strstr(flood, "my-tool: warning: another\n"));
    now_ns += INT64_C(1000000000);
    warn_of("y");
    later = printed();
    ck_assert_str_eq(later, "my-tool: warning: what 'y' did (990 like it were "
                     "left out)\n");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tool-log");
    TCase *tcase = tcase_create("tool-log");

    tcase_add_checked_fixture(tcase, setup, teardown);
    PROMISE(tcase, a_warning_looks_like_one_of_the_tool);
    PROMISE(tcase, names_do_not_steer_the_terminal_nor_make_lines);
    PROMISE(tcase, a_flood_is_held_back_and_counted_and_hides_no_other);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
