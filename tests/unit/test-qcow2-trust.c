/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whom the user lets choose files: nobody but himself, or images beneath one
 * directory.
 */
#include "image-fixture.h"

#include <blockgraph/driver.h>
#include <fcntl.h>

#define BACKED "size=1M,backing_file=%s,backing_fmt=qcow2"

static void make_backed(const char *name, const char *below)
{
    g_autofree char *options = g_strdup_printf(BACKED, below);

    make_image_ok(name, options);
}

static void make_three(void)
{
    make_image_ok("base", "size=1M");
    make_backed("middle", "base");
    make_backed("top", "middle");
    make_image_ok("outside", "size=1M,data_file=data");
}

/* "backing" of an image, by its file; @more follows. */
static char *backing_given(const char *name, const char *more)
{
    g_autofree char *path = path_of(name);

    return g_strdup_printf("backing.driver=qcow2,backing.file.driver=file,"
                           "backing.file.filename=%s%s", path, more);
}

/* Without its backing file. */
static void open_alone(const char *name)
{
    g_autofree char *path = path_of(name);
    g_autofree char *json = g_strdup_printf(
        "{\"driver\": \"qcow2\", \"untrusted\": true, \"backing\": null, "
        "\"file\": {\"driver\": \"file\", \"filename\": \"%s\"}}", path);
    BlockOptions *options = block_options_parse_json(json, NULL);
    BlockDriverState *bs = bdrv_open(graph, options, NULL);

    ck_assert_ptr_nonnull(bs);
    bdrv_unref(bs);
}

START_TEST(an_image_that_is_not_trusted_opens_no_file_that_only_it_names)
{
    g_autofree char *given = NULL;

    make_three();
    bdrv_unref(image_open("top", NULL));
    image_fails("top", "untrusted=on", EPERM, "'middle', which it names as its "
                                              "backing file, is not opened");
    image_fails("outside", "untrusted=on", EPERM, "'data', which it names as "
                                                  "its data file");
    bdrv_unref(image_open("base", "untrusted=on"));
    open_alone("top");
    given = backing_given("middle", ",untrusted=on");
    image_fails("top", given, EPERM, "'base', which it names");
}
END_TEST

START_TEST(what_the_user_gives_is_not_trusted_either_unless_he_says_so)
{
    g_autofree char *given = NULL;

    make_three();
    given = backing_given("middle", ",untrusted=on,backing.untrusted=off");
    bdrv_unref(image_open("top", given));
}
END_TEST

START_TEST(a_graph_may_trust_no_image)
{
    make_three();
    block_graph_set_untrusted(graph, true);
    image_fails("top", NULL, EPERM, "'middle'");
    image_fails("top", "untrusted=off", EPERM, "'middle'");
    bdrv_unref(image_open("base", NULL));
    block_graph_set_untrusted(graph, false);
    bdrv_unref(image_open("top", NULL));
}
END_TEST

START_TEST(what_a_file_must_be_beneath_stays_as_it_is)
{
    g_autofree char *directory = path_of(""), *path = path_of("base");
    g_autofree char *same = NULL, *text = NULL;
    GError *error = NULL;
    BlockDriverState *bs;

    make_three();
    text = g_strdup_printf("file,filename=%s,beneath=%s", path, directory);
    same = g_strdup_printf("filename=%s,beneath=%s,read-only=on", path,
                           directory);
    bs = bdrv_open(graph, block_options_parse_keyval(text, "driver", NULL),
                   NULL);
    ck_assert_ptr_nonnull(bs);
    ck_assert_int_eq(bdrv_reopen(bs, block_options_parse_keyval(
                                         "beneath=/usr", NULL, NULL),
                                 &error), -EINVAL);
    expect_error(&error, EINVAL, "cannot change 'beneath'");
    ck_assert_int_eq(bdrv_reopen(bs, block_options_parse_keyval(
                                         same, NULL, NULL), &error), 0);
    ck_assert(bdrv_is_read_only(bs));
    bdrv_unref(bs);
}
END_TEST

START_TEST(drivers_ask_before_they_open_what_an_image_names)
{
    BlockDriverState *bs;
    const char *root = "unset";
    GError *error = NULL;

    make_three();
    bs = image_open("base", NULL);
    ck_assert_int_eq(bdrv_check_named_file(bs, "x", "backing", &root, NULL),
                     0);
    ck_assert_ptr_null(root);
    ck_assert_int_eq(block_graph_set_image_root(graph, "/usr/../usr", NULL), 0);
    ck_assert_int_eq(bdrv_check_named_file(bs, "x", "backing", &root, NULL),
                     0);
    ck_assert_str_eq(root, "/usr");
    block_graph_set_untrusted(graph, true);
    ck_assert_int_eq(bdrv_check_named_file(bs, "x", "data-file", &root,
                                           &error), -EPERM);
    expect_error(&error, EPERM, "give \"data-file\" explicitly");
    bdrv_unref(bs);
}
END_TEST

static void root_is(const char *name)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *path = path_of(name);

    ck_assert_int_eq(block_graph_set_image_root(graph, path, &error), 0);
}

START_TEST(files_that_images_name_are_beneath_the_image_root)
{
    g_autofree char *sub = path_of("sub"), *other = path_of("other");
    g_autofree char *link_in = path_of("sub/in"), *link_out = path_of("out");
    g_autofree char *base = path_of("base"), *within = path_of("sub/base");
    GError *error = NULL;

    ck_assert_int_eq(mkdir(sub, 0700), 0);
    make_three();
    make_image_ok("sub/base", "size=1M");
    make_backed("sub/within", "base");
    make_backed("sub/above", "../base");
    make_backed("far", within);
    make_backed("sub/far", base);
    make_image_ok("sub/data", "size=1M,data_file=d");
    ck_assert_int_eq(symlink(base, link_in), 0);
    ck_assert_int_eq(symlink(sub, link_out), 0);
    make_backed("sub/linked", "in");
    make_backed("around", "out/base");

    root_is("sub");
    bdrv_unref(image_open("sub/within", NULL));
    bdrv_unref(image_open("sub/data", NULL));
    bdrv_unref(image_open("base", NULL)); /* named by the user */
    bdrv_unref(image_open("far", NULL));
    image_fails("sub/above", NULL, EXDEV, "is not beneath directory '");
    image_fails("sub/far", NULL, EXDEV, "is not beneath directory '");
    image_fails("sub/linked", NULL, ELOOP, "a symbolic link on the way");
    image_fails("around", NULL, EXDEV, "is not beneath directory '");
    image_fails("top", NULL, EXDEV, "is not beneath directory '");
    image_fails("outside", NULL, EXDEV, "is not beneath directory '");

    root_is("");
    bdrv_unref(image_open("sub/above", NULL));
    image_fails("around", NULL, ELOOP, "a symbolic link on the way");

    ck_assert_int_eq(block_graph_set_image_root(graph, other, &error),
                     -ENOENT);
    expect_error(&error, ENOENT, "/other'");
    image_fails("around", NULL, ELOOP, "a symbolic link"); /* as before */
    ck_assert_int_eq(block_graph_set_image_root(graph, NULL, NULL), 0);
    bdrv_unref(image_open("around", NULL));
}
END_TEST

/* Have "link" be a link to @target. */
static void link_to(const char *target)
{
    g_autofree char *link = path_of("link");

    unlink(link);
    ck_assert_int_eq(symlink(target, link), 0);
}

START_TEST(no_link_leads_from_an_image_to_what_is_no_image)
{
    g_autofree char *fifo = path_of("fifo"), *base = path_of("base");
    g_autofree char *magic = NULL;
    int fd;

    make_image_ok("base", "size=1M");
    make_image_ok("raw", "size=1M,backing_file=link,backing_fmt=raw");
    make_backed("backed", "link");
    ck_assert_int_eq(mkfifo(fifo, 0600), 0);
    fd = open(base, O_RDONLY | O_CLOEXEC);
    magic = g_strdup_printf("/proc/self/fd/%d", fd);

    link_to(base);
    bdrv_unref(image_open("backed", NULL));
    link_to(magic);
    image_fails("backed", NULL, ELOOP, "leads through a link of /proc");
    link_to("/proc/self/maps");
    image_fails("raw", NULL, EINVAL, "is a file of the kernel's own");
    link_to("/proc/version");
    image_fails("raw", NULL, EINVAL, "is a file of the kernel's own");
    link_to("/sys/kernel/notes");
    image_fails("raw", NULL, access("/sys/kernel/notes", R_OK) == 0 ? EINVAL
                                                                   : ENOENT,
                "link'");
    link_to("/dev/zero");
    image_fails("raw", NULL, EINVAL, "a character device");
    link_to("/dev/ptmx");
    image_fails("raw", NULL, EINVAL, "a character device");
    link_to("fifo");
    image_fails("raw", NULL, EINVAL, "a FIFO");
    close(fd);
}
END_TEST

START_TEST(what_an_image_names_stays_so_over_a_reopen)
{
    g_autofree char *path = path_of("base"), *text = NULL;
    BlockDriverState *bs;
    GError *error = NULL;

    /* What the user names is his. */
    bdrv_unref(open_ok("file,filename=/proc/version,read-only=on"));
    open_fails("file,filename=/proc/version,read-only=on,from-image=on",
               EINVAL, "the kernel's own");

    make_image_ok("base", "size=1M");
    text = g_strdup_printf("file,filename=%s,from-image=on", path);
    bs = open_ok(text);
    g_clear_pointer(&text, g_free);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(symlink("/proc/version", path), 0);
    text = g_strdup_printf("filename=%s,read-only=on,from-image=off", path);
    ck_assert_int_eq(bdrv_reopen(bs, block_options_parse_keyval(text, NULL,
                                                                NULL),
                                 &error), -EINVAL);
    expect_error(&error, EINVAL, "the kernel's own");
    bdrv_unref(bs);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("qcow2-trust");
    TCase *tcase = tcase_create("qcow2-trust");

    tcase_add_checked_fixture(tcase, file_setup, file_teardown);
    tcase_set_timeout(tcase, 60);
    PROMISE(tcase,
            an_image_that_is_not_trusted_opens_no_file_that_only_it_names);
    PROMISE(tcase,
            what_the_user_gives_is_not_trusted_either_unless_he_says_so);
    PROMISE(tcase, a_graph_may_trust_no_image);
    PROMISE(tcase, what_a_file_must_be_beneath_stays_as_it_is);
    PROMISE(tcase, drivers_ask_before_they_open_what_an_image_names);
    PROMISE(tcase, files_that_images_name_are_beneath_the_image_root);
    PROMISE(tcase, no_link_leads_from_an_image_to_what_is_no_image);
    PROMISE(tcase, what_an_image_names_stays_so_over_a_reopen);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
