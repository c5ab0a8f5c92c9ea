/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From a command line to the options of nodes: each test is the text a person
 * gives, and the tree that it stands for.
 */
#include "tools/tool-image.h"

#include <errno.h>

#include "tests/unit/check-main.h"

static bool guessed;

static void tree_is(const ToolImage *image, const char *name,
                    const char *extra_text, const char *expected)
{
    g_autoptr(BlockOptions) extra = extra_text ?
        block_options_parse_keyval(extra_text, NULL, NULL) : NULL;
    GError *error = NULL;
    g_autoptr(BlockOptions) tree = tool_image_options(image, name, extra,
                                                      &guessed, &error);
    g_autofree char *json = NULL;

    if (!expected) {
        ck_assert_ptr_null(tree);
        ck_assert_ptr_nonnull(error);
        g_error_free(error);
        return;
    }
    ck_assert_ptr_nonnull(tree);
    json = block_options_to_json(tree);
    ck_assert_str_eq(g_strdelimit(json, "\"", '\''), expected);
}

START_TEST(a_file_name_is_a_raw_disk_and_that_is_a_guess)
{
    tree_is(&(ToolImage) { 0 }, "x.img", NULL,
            "{'driver': 'raw', 'file': {'driver': 'file', "
            "'filename': 'x.img'}}");
    ck_assert(guessed);
}
END_TEST

START_TEST(a_format_that_is_named_is_no_guess)
{
    tree_is(&(ToolImage) { .format = "raw" }, "x.img", NULL,
            "{'driver': 'raw', 'file': {'driver': 'file', "
            "'filename': 'x.img'}}");
    ck_assert(!guessed);
    tree_is(&(ToolImage) { 0 }, "x.img", "driver=blkdebug",
            "{'driver': 'blkdebug', 'file': {'driver': 'file', "
            "'filename': 'x.img'}}");
    ck_assert(!guessed);
}
END_TEST

START_TEST(modes_become_options_of_the_top_node)
{
    ToolImage image = { .format = "raw", .read_only = true,
                        .force_share = true };

    ck_assert_int_eq(tool_image_set_cache(&image, "none"), 0);
    ck_assert_int_eq(tool_image_set_discard(&image, "unmap"), 0);
    tree_is(&image, "x", NULL,
            "{'cache': {'direct': true}, 'discard': 'unmap', "
            "'driver': 'raw', 'file': {'driver': 'file', 'filename': 'x'}, "
            "'force-share': true, 'read-only': true}");
}
END_TEST

START_TEST(what_the_text_says_itself_wins)
{
    ToolImage image = { .read_only = true, .nocache = true, .unmap = true };

    tree_is(&image, "json:{'driver': 'null-co', 'read-only': false, "
            "'cache.direct': false, 'discard': 'ignore'}", NULL, NULL);
    tree_is(&image, "json:{\"driver\": \"null-co\", \"read-only\": false, "
            "\"cache.direct\": false, \"discard\": \"ignore\"}", NULL,
            "{'cache': {'direct': false}, 'discard': 'ignore', "
            "'driver': 'null-co', 'read-only': false}");
}
END_TEST

START_TEST(a_default_does_not_hide_a_wrong_value)
{
    ToolImage image = { .nocache = true, .no_flush = true };

    tree_is(&image, "json:{\"driver\": \"null-co\", \"cache\": 5}", NULL,
            "{'cache': 5, 'driver': 'null-co'}");
}
END_TEST

START_TEST(the_aio_mode_reaches_the_file_at_the_end_of_the_chain)
{
    ToolImage image = { .image_opts = true };

    ck_assert_int_eq(tool_image_set_aio(&image, "native"), 0);
    tree_is(&image, "driver=raw,file.driver=blkdebug,"
            "file.file.filename=x", NULL,
            "{'driver': 'raw', 'file': {'driver': 'blkdebug', 'file': "
            "{'aio': 'io_uring', 'driver': 'file', 'filename': 'x'}}}");
    tree_is(&image, "driver=file,filename=x,aio=threads", NULL,
            "{'aio': 'threads', 'driver': 'file', 'filename': 'x'}");
    tree_is(&image, "driver=raw,file=disk0", NULL,
            "{'driver': 'raw', 'file': 'disk0'}");
}
END_TEST

START_TEST(two_different_drivers_are_refused)
{
    tree_is(&(ToolImage) { .format = "raw" },
            "json:{\"driver\": \"file\", \"filename\": \"x\"}", NULL, NULL);
}
END_TEST

START_TEST(nothing_at_all_is_refused)
{
    tree_is(&(ToolImage) { 0 }, NULL, NULL, NULL);
    tree_is(&(ToolImage) { 0 }, NULL, "read-only=on", NULL);
}
END_TEST

START_TEST(modes_that_do_not_exist_are_refused)
{
    ToolImage image = { 0 };

    ck_assert_int_eq(tool_image_set_cache(&image, "fast"), -EINVAL);
    ck_assert_int_eq(tool_image_set_discard(&image, "all"), -EINVAL);
    ck_assert_int_eq(tool_image_set_aio(&image, ""), -EINVAL);
}
END_TEST

START_TEST(each_cache_mode_is_three_switches)
{
    ToolImage image = { 0 };

    ck_assert_int_eq(tool_image_set_cache(&image, "directsync"), 0);
    ck_assert(image.nocache && image.write_through && !image.no_flush);
    ck_assert_int_eq(tool_image_set_cache(&image, "unsafe"), 0);
    ck_assert(!image.nocache && !image.write_through && image.no_flush);
    ck_assert_int_eq(tool_image_set_cache(&image, "writeback"), 0);
    ck_assert(!image.nocache && !image.write_through && !image.no_flush);
    ck_assert_int_eq(tool_image_set_cache(&image, "writethrough"), 0);
    ck_assert(!image.nocache && image.write_through && !image.no_flush);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tool-image");
    TCase *tcase = tcase_create("tool-image");

    PROMISE(tcase, a_file_name_is_a_raw_disk_and_that_is_a_guess);
    PROMISE(tcase, a_format_that_is_named_is_no_guess);
    PROMISE(tcase, modes_become_options_of_the_top_node);
    PROMISE(tcase, what_the_text_says_itself_wins);
    PROMISE(tcase, a_default_does_not_hide_a_wrong_value);
    PROMISE(tcase, the_aio_mode_reaches_the_file_at_the_end_of_the_chain);
    PROMISE(tcase, two_different_drivers_are_refused);
    PROMISE(tcase, nothing_at_all_is_refused);
    PROMISE(tcase, modes_that_do_not_exist_are_refused);
    PROMISE(tcase, each_cache_mode_is_three_switches);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
