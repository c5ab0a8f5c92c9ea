/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image-fixture.h"

START_TEST(a_new_image_is_empty_and_takes_writes)
{
    BlockBackend *blk;

    make_image_ok("a", "size=100M");
    blk = image_backend("a", NULL);
    ck_assert_int_eq(blk_getlength(blk), 100 << 20);
    expect_fill(blk, 0, 1 << 20, 0);
    fill(blk, 123 * 512, 70000 / 512 * 512, 7);
    expect_fill(blk, 123 * 512, 70000 / 512 * 512, 7);
    close_backend(blk);
    ck_assert(qemu_img_ok("check -q", "a"));
    blk = image_backend("a", "read-only=on");
    expect_fill(blk, 123 * 512, 70000 / 512 * 512, 7);
    expect_fill(blk, 99 << 20, 1 << 20, 0);
    close_backend(blk);
}
END_TEST

START_TEST(every_combination_of_sizes_makes_a_sound_image)
{
    static const char *const clusters[] = { "512", "4k", "64k", "2M" };

    for (unsigned i = 0; i < G_N_ELEMENTS(clusters); i++) {
        for (unsigned bits = 1; bits <= 64; bits *= 2) {
            g_autofree char *options = g_strdup_printf(
                "size=30M,cluster_size=%s,refcount_bits=%u", clusters[i],
                bits);
            BlockBackend *blk;

            make_image_ok("a", options);
            ck_assert(qemu_img_ok("check -q", "a"));
            blk = image_backend("a", NULL);
            fill(blk, 5 << 20, 1 << 20, 9);
            expect_fill(blk, 5 << 20, 1 << 20, 9);
            close_backend(blk);
            ck_assert(qemu_img_ok("check -q", "a"));
        }
    }
}
END_TEST

START_TEST(features_are_recorded_as_they_were_asked_for)
{
    static const char *const cases[] = {
        "size=64M,compat=0.10", "size=64M,compat=v3,lazy_refcounts=on",
        "size=64M,extended_l2=on", "size=64M,compression_type=zstd",
        "size=64M,extended_l2=on,cluster_size=16k,compression_type=zstd",
        "size=0", "size=1000", "size=16T",
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        BlockDriverState *bs;

        make_image_ok("a", cases[i]);
        ck_assert(qemu_img_ok("check -q", "a"));
        bs = image_open("a", NULL);
        ck_assert_int_eq(qcow2_of(bs)->geo.extended_l2,
                         strstr(cases[i], "extended") != NULL);
        ck_assert_int_eq(qcow2_of(bs)->header.compression,
                         strstr(cases[i], "zstd") ? 1 : 0);
        ck_assert_int_eq(qcow2_of(bs)->options.lazy_refcounts,
                         strstr(cases[i], "lazy") != NULL);
        ck_assert_int_eq(qcow2_of(bs)->header.version,
                         strstr(cases[i], "0.10") ? 2 : 3);
        bdrv_unref(bs);
    }
}
END_TEST

START_TEST(what_does_not_go_together_is_refused)
{
    static const struct {
        const char *options, *message;
    } cases[] = {
        { "qcow2", "'size' is missing" },
        { "size=1M,compat=v2,lazy_refcounts=on",
          "lazy_refcounts needs version 3" },
        { "size=1M,compat=v2,refcount_bits=8", "needs version 3" },
        { "size=1M,compat=v2,extended_l2=on", "extended_l2 needs version 3" },
        { "size=1M,compat=v2,compression_type=zstd",
          "compression_type=zstd needs version 3" },
        { "size=1M,cluster_size=96k", "power of two" },
        { "size=1M,cluster_size=256", "cluster_size" },
        { "size=1M,cluster_size=4M", "cluster_size" },
        { "size=1M,refcount_bits=24", "power of two" },
        { "size=1M,extended_l2=on,cluster_size=8k", "at least 16k" },
        { "size=1M,data_file_raw=on", "needs data_file" },
        { "size=1M,backing_fmt=raw", "needs backing_file" },
        { "size=1M,colour=red", "colour" },
        { "size=1M,data-file=x", "data-file" },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        make_image_fails("a", cases[i].options, EINVAL, cases[i].message);
    }
}
END_TEST

START_TEST(creation_and_open_have_the_same_limits_R13)
{
    make_image_ok("a", "size=128G,cluster_size=512");
    bdrv_unref(image_open("a", "read-only=on"));
    make_image_fails("a", "size=137438953984,cluster_size=512", EFBIG,
                     "above the limit");
}
END_TEST

START_TEST(a_node_that_is_missing_says_so)
{
    g_autoptr(GError) error = NULL;

    make_image_fails("a", "backing_file=none,backing_fmt=qcow2", ENOENT,
                     "none");
    make_image_fails("a", "size=1M,data_file=d,data-file=none", ENOENT,
                     "not found");
    ck_assert_int_eq(bdrv_create(graph, opts("qcow2,size=1M,file=none"),
                                 &error), -ENOENT);
    ck_assert_int_eq(block_error_code(error), ENOENT);
}
END_TEST

START_TEST(a_backing_file_needs_a_format_R32)
{
    make_image_ok("base", "size=3M");
    make_image_fails("a", "backing_file=base", EINVAL,
                     "does not record the format");
    make_image_fails("a", "backing_file=base,backing_fmt=nonsense", EINVAL,
                     "'nonsense'");
    make_image_fails("a", "backing_file=base,backing_fmt=null-co", EINVAL,
                     "not supported");
    make_image_ok("a", "backing_file=base,backing_fmt=qcow2");
}
END_TEST

START_TEST(the_size_defaults_to_that_of_the_backing_file)
{
    BlockBackend *blk;

    make_image_ok("base", "size=3M");
    blk = image_backend("base", NULL);
    fill(blk, 0, 65536, 5);
    close_backend(blk);
    make_image_ok("a", "backing_file=base,backing_fmt=qcow2");
    blk = image_backend("a", NULL);
    ck_assert_int_eq(blk_getlength(blk), 3 << 20);
    expect_fill(blk, 0, 65536, 5);
    fill(blk, 4096, 4096, 6);
    expect_fill(blk, 0, 4096, 5);
    expect_fill(blk, 4096, 4096, 6);
    close_backend(blk);
    ck_assert(qemu_img_ok("check -q", "a"));
}
END_TEST

/* Whatever creation accepts, open accepts; and never an empty name. */
START_TEST(names_that_creation_takes_can_be_opened_R28)
{
    static const char *const good[] = { "base", "./base", "./b:c", "b c",
                                        "b\xc3\xa4" };
    static const char *const bad[] = {
        "", "json:{}", "nbd:host:1", "file:base", "fd:3", "a:b",
        "b\nc", "/proc/self/fd/3", "/dev/null", "/dev/stdin", "/sys/x",
        "../../../../../../../../../proc/self/mem",
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(good); i++) {
        const char *file = g_str_has_prefix(good[i], "./") ? good[i] + 2
                                                           : good[i];
        BlockOptions *options;
        g_autoptr(GError) error = NULL;

        make_image_ok(file, "size=1M");
        make_file("a", 0);
        options = image_options("a", "backing_fmt=qcow2");
        block_options_set_str(options, "backing_file", good[i]);
        ck_assert_msg(bdrv_create(graph, options, &error) == 0, "%s: %s",
                      good[i], error ? error->message : "");
        bdrv_unref(image_open("a", NULL));
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        BlockOptions *options;
        GError *error = NULL;

        make_file("a", 0);
        options = image_options("a", "backing_fmt=qcow2,size=1M");
        block_options_set_str(options, "backing_file", bad[i]);
        ck_assert_int_lt(bdrv_create(graph, options, &error), 0);
        expect_error(&error, EINVAL, "refused because");
        ck_assert_int_eq(file_length("a"), 0);
    }
}
END_TEST

START_TEST(preallocated_images_have_their_space)
{
    static const char *const modes[] = { "metadata", "falloc", "full" };

    for (unsigned i = 0; i < G_N_ELEMENTS(modes); i++) {
        for (int extended = 0; extended < 2; extended++) {
            g_autofree char *options = g_strdup_printf(
                "size=5M,preallocation=%s,extended_l2=%s", modes[i],
                extended ? "on" : "off");
            int64_t before;
            BlockBackend *blk;

            make_image_ok("a", options);
            before = file_length("a");
            ck_assert_int_ge(before, 5 << 20);
            if (i > 0 && has_fallocate()) {
                ck_assert_int_ge(file_blocks("a"), 5 << 20);
            }
            ck_assert(qemu_img_ok("check -q", "a"));
            blk = image_backend("a", NULL);
            expect_fill(blk, 0, 5 << 20, 0);
            fill(blk, 1 << 20, 1 << 20, 3);
            expect_fill(blk, 1 << 20, 1 << 20, 3);
            close_backend(blk);
            ck_assert_int_eq(file_length("a"), before);
            ck_assert(qemu_img_ok("check -q", "a"));
        }
    }
}
END_TEST

START_TEST(a_data_file_is_made_and_holds_the_data)
{
    BlockBackend *blk;

    make_image_ok("a", "size=5M,data_file=d");
    blk = image_backend("a", NULL);
    fill(blk, 1 << 20, 65536, 3);
    expect_fill(blk, 1 << 20, 65536, 3);
    close_backend(blk);
    expect_bytes("d", 1 << 20, 65536, 3);
    ck_assert_int_lt(file_length("a"), 1 << 20);
    ck_assert(qemu_img_ok("check -q", "a"));
}
END_TEST

START_TEST(a_raw_data_file_is_the_disk_byte_for_byte)
{
    BlockBackend *blk;

    make_image_ok("a", "size=5M,data_file=d,data_file_raw=on");
    ck_assert_int_eq(file_length("d"), 5 << 20);
    blk = image_backend("a", NULL);
    fill(blk, 65536 * 3, 1 << 20, 8);
    ck_assert_int_eq(blk_pwrite_zeroes(blk, 65536 * 4, 65536, 0), 0);
    close_backend(blk);
    expect_bytes("d", 65536 * 3, 65536, 8);
    expect_bytes("d", 65536 * 4, 65536, 0);
    ck_assert(qemu_img_ok("check -q", "a"));
}
END_TEST

START_TEST(images_are_made_on_files_of_any_alignment_R26)
{
    static const int aligns[] = { 512, 4096, 65536 };

    for (unsigned i = 0; i < G_N_ELEMENTS(aligns); i++) {
        g_autofree char *path = path_of("a");
        g_autofree char *text = g_strdup_printf(
            "qcow2,file.driver=blkdebug,file.align=%d,"
            "file.image.driver=file,file.image.filename=%s", aligns[i], path);
        g_autofree char *create = g_strdup_printf(
            "%s,size=3M,cluster_size=512", text);
        g_autoptr(GError) error = NULL;
        BlockBackend *blk;

        make_file("a", 0);
        ck_assert_msg(bdrv_create(graph, opts(create), &error) == 0, "%s",
                      error ? error->message : "");
        blk = backend_of(open_ok(text));
        fill(blk, 512, 1536, 3);
        expect_fill(blk, 512, 1536, 3);
        expect_fill(blk, 2048, 4096, 0);
        close_backend(blk);
        ck_assert(qemu_img_ok("check -q", "a"));
    }
}
END_TEST

/* Whichever request fails, nothing is left that opens. */
START_TEST(a_failed_creation_leaves_no_image)
{
    static const char *const cases[] = {
        "size=1M,cluster_size=4k",
        "size=1M,cluster_size=4k,preallocation=metadata",
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        for (int n = 1;; n++) {
            g_autoptr(GError) error = NULL;
            int ret;

            make_file("a", 0);
            faulty_set(FAULTY_CHANGES, n, 1);
            ret = bdrv_create(graph, faulty_options("a", cases[i]), &error);
            if (!faulty_has_failed()) {
                ck_assert_int_eq(ret, 0);
                ck_assert_int_gt(n, 5);
                break;
            }
            ck_assert_int_lt(ret, 0);
            ck_assert_ptr_nonnull(error);
            g_clear_error(&error);
            ck_assert_ptr_null(bdrv_open(graph, image_options("a", NULL),
                                         &error));
        }
    }
}
END_TEST

START_TEST(no_image_is_made_over_its_own_backing_file)
{
    make_image_fails("a", "size=1M,backing_file=a,backing_fmt=qcow2", ELOOP,
                     "would back itself");
    make_image_fails("a", "backing_file=./a,backing_fmt=raw", ELOOP,
                     "would back itself");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("qcow2-create");
    TCase *tcase = tcase_create("qcow2-create");

    register_faulty_driver();
    tcase_add_checked_fixture(tcase, file_setup, file_teardown);
    tcase_set_timeout(tcase, 60);
    PROMISE(tcase, a_new_image_is_empty_and_takes_writes);
    PROMISE(tcase, every_combination_of_sizes_makes_a_sound_image);
    PROMISE(tcase, features_are_recorded_as_they_were_asked_for);
    PROMISE(tcase, what_does_not_go_together_is_refused);
    PROMISE(tcase, creation_and_open_have_the_same_limits_R13);
    PROMISE(tcase, a_node_that_is_missing_says_so);
    PROMISE(tcase, a_backing_file_needs_a_format_R32);
    PROMISE(tcase, the_size_defaults_to_that_of_the_backing_file);
    PROMISE(tcase, names_that_creation_takes_can_be_opened_R28);
    PROMISE(tcase, preallocated_images_have_their_space);
    PROMISE(tcase, a_data_file_is_made_and_holds_the_data);
    PROMISE(tcase, a_raw_data_file_is_the_disk_byte_for_byte);
    PROMISE(tcase, images_are_made_on_files_of_any_alignment_R26);
    PROMISE(tcase, a_failed_creation_leaves_no_image);
    PROMISE(tcase, no_image_is_made_over_its_own_backing_file);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
