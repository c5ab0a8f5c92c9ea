/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image-fixture.h"

#include <stdio.h>

static int try_amend(const char *name, const char *options, GError **error)
{
    BlockDriverState *bs = image_open(name, NULL);
    int ret = bdrv_amend(bs, block_options_parse_keyval(options, NULL, NULL),
                         error);

    bdrv_unref(bs);
    return ret;
}

static void amend_ok(const char *name, const char *options)
{
    g_autoptr(GError) error = NULL;

    ck_assert_msg(try_amend(name, options, &error) == 0, "%s: %s", options,
                  error ? error->message : "no error set");
    ck_assert(qemu_img_ok("check -q", name));
}

static void amend_fails(const char *name, const char *options, int err,
                        const char *message)
{
    GError *error = NULL;

    ck_assert_int_lt(try_amend(name, options, &error), 0);
    expect_error(&error, err, message);
}

static void write_some(const char *name)
{
    BlockBackend *blk = image_backend(name, NULL);

    fill(blk, 65536, 65536, 1);
    fill(blk, 10 * 65536 + 512, 512, 2);
    ck_assert_int_eq(blk_pwrite_zeroes(blk, 3 * 65536, 4 * 65536, 0), 0);
    fill(blk, 20 * 65536, 65536, 3);
    ck_assert_int_eq(blk_pwrite_zeroes(blk, 20 * 65536, 65536, 0), 0);
    close_backend(blk);
}

static void expect_some(const char *name)
{
    BlockBackend *blk = image_backend(name, "read-only=on");

    expect_fill(blk, 65536, 65536, 1);
    expect_fill(blk, 10 * 65536 + 512, 512, 2);
    expect_fill(blk, 10 * 65536, 512, 0);
    expect_fill(blk, 3 * 65536, 4 * 65536, 0);
    expect_fill(blk, 20 * 65536, 65536, 0);
    close_backend(blk);
}

START_TEST(an_image_goes_up_and_down_between_versions)
{
    make_image_ok("a", "size=4M");
    write_some("a");
    amend_ok("a", "compat=0.10");
    ck_assert_uint_eq(peek64("a", 0) & UINT32_MAX, 2);
    expect_some("a");
    amend_ok("a", "compat=1.1");
    ck_assert_uint_eq(peek64("a", 0) & UINT32_MAX, 3);
    expect_some("a");
    write_some("a");
    amend_ok("a", "compat=v2");
    expect_some("a");
}
END_TEST

START_TEST(zeroes_over_a_backing_file_stay_zero_in_version_2)
{
    BlockBackend *blk;

    make_image_ok("base", "size=4M");
    blk = image_backend("base", NULL);
    fill(blk, 0, 4 << 20, 7);
    close_backend(blk);
    make_image_ok("a", "backing_file=base,backing_fmt=qcow2");
    blk = image_backend("a", NULL);
    ck_assert_int_eq(blk_pwrite_zeroes(blk, 65536, 3 * 65536, 0), 0);
    close_backend(blk);
    amend_ok("a", "compat=0.10");
    blk = image_backend("a", "read-only=on");
    expect_fill(blk, 0, 65536, 7);
    expect_fill(blk, 65536, 3 * 65536, 0);
    expect_fill(blk, 4 * 65536, 65536, 7);
    close_backend(blk);
}
END_TEST

START_TEST(what_version_2_cannot_say_keeps_version_3)
{
    make_image_ok("a", "size=4M,extended_l2=on");
    amend_fails("a", "compat=0.10", ENOTSUP, "extended L2");
    make_image_ok("a", "size=4M,compression_type=zstd");
    amend_fails("a", "compat=0.10", ENOTSUP, "compression type");
    make_image_ok("a", "size=4M,refcount_bits=8");
    amend_fails("a", "compat=0.10", ENOTSUP, "16 bits");
    amend_ok("a", "compat=0.10,refcount_bits=16");
    make_image_ok("a", "size=4M,data_file=d");
    amend_fails("a", "compat=0.10", ENOTSUP, "external data file");
    make_image_ok("a", "size=4M");
    amend_fails("a", "compat=0.10,lazy_refcounts=on", EINVAL, "version 3");
    amend_fails("a", "colour=red", EINVAL, "colour");
    amend_fails("a", "data_file=x", EINVAL, "in another file");
}
END_TEST

START_TEST(refcounts_take_any_width_and_go_back)
{
    static const int widths[] = { 1, 64, 2, 32, 4, 8, 16, 1, 16 };
    static const char *const clusters[] = { "512", "4k", "64k" };

    for (unsigned i = 0; i < G_N_ELEMENTS(clusters); i++) {
        g_autofree char *options = g_strdup_printf("size=4M,cluster_size=%s",
                                                   clusters[i]);

        make_image_ok("a", options);
        write_some("a");
        for (unsigned j = 0; j < G_N_ELEMENTS(widths); j++) {
            g_autofree char *amend = g_strdup_printf("refcount_bits=%d",
                                                     widths[j]);

            amend_ok("a", amend);
            expect_some("a");
        }
        write_some("a");
        ck_assert(qemu_img_ok("check -q", "a"));
    }
    amend_fails("a", "refcount_bits=3", EINVAL, "power of two");
}
END_TEST

START_TEST(lazy_refcounts_are_switched_on_and_off)
{
    BlockDriverState *bs;

    make_image_ok("a", "size=4M");
    amend_ok("a", "lazy_refcounts=on");
    ck_assert_uint_eq(peek64("a", QCOW2_H_COMPATIBLE), 1);
    bs = image_open("a", NULL);
    ck_assert(qcow2_of(bs)->options.lazy_refcounts);
    bdrv_unref(bs);
    write_some("a");
    amend_ok("a", "lazy_refcounts=off");
    ck_assert_uint_eq(peek64("a", QCOW2_H_COMPATIBLE), 0);
    expect_some("a");
}
END_TEST

START_TEST(the_backing_file_is_changed_and_everything_else_kept)
{
    g_autofree char *file = NULL;
    g_autofree char *format = NULL;
    g_autoptr(GError) error = NULL;
    BlockDriverState *bs;

    make_image_ok("base", "size=4M");
    make_image_ok("other", "size=4M");
    make_image_ok("a", "size=4M,backing_file=base,backing_fmt=qcow2");
    write_some("a");
    bs = image_open("a", NULL);
    ck_assert_int_eq(bdrv_change_backing_file(bs, "other", "qcow2", &error),
                     0);
    ck_assert_int_eq(bdrv_get_backing_name(bs, &file, &format), 0);
    ck_assert_str_eq(file, "other");
    ck_assert_str_eq(format, "qcow2");
    ck_assert_int_lt(bdrv_change_backing_file(bs, "other", NULL, &error), 0);
    expect_error(&error, EINVAL, "does not record the format");
    ck_assert_int_lt(bdrv_change_backing_file(bs, "nbd:x", "raw", &error), 0);
    expect_error(&error, EINVAL, "looks like a protocol");
    bdrv_unref(bs);
    expect_some("a");
    amend_ok("a", "backing_file=,size=8M");
    bs = image_open("a", NULL);
    ck_assert_ptr_null(bdrv_find_child(bs, "backing"));
    ck_assert_int_eq(bdrv_length(bs), 8 << 20);
    bdrv_unref(bs);
    ck_assert(qemu_img_ok("check -q", "a"));
}
END_TEST

/* Nobody would open such an image. */
START_TEST(a_name_that_is_too_long_is_refused)
{
    g_autofree char *name = g_strnfill(1024, 'x');
    GError *error = NULL;
    BlockDriverState *bs;

    make_image_ok("a", "size=1M");
    bs = image_open("a", NULL);
    ck_assert_int_lt(bdrv_change_backing_file(bs, name, "qcow2", &error), 0);
    expect_error(&error, EINVAL, "longer than 1023");
    bdrv_unref(bs);
    bdrv_unref(image_open("a", NULL));
}
END_TEST

START_TEST(a_name_that_does_not_fit_in_the_header_is_refused)
{
    g_autofree char *name = g_strnfill(600, 'x');
    GError *error = NULL;
    BlockDriverState *bs;

    make_image_ok("a", "size=1M,cluster_size=512");
    bs = image_open("a", NULL);
    ck_assert_int_lt(bdrv_change_backing_file(bs, name, "qcow2", &error), 0);
    expect_error(&error, ENOSPC, "does not fit");
    bdrv_unref(bs);
    bdrv_unref(image_open("a", NULL));
}
END_TEST

/* Whatever write fails, the image is the old or the new one.  Two in a row are
 * also a header that could neither be changed nor put back. */
START_TEST(an_amend_that_fails_leaves_a_sound_image)
{
    unsigned nr = 1 + _i;
    static const char *const cases[] = { "refcount_bits=64", "compat=0.10",
                                         "lazy_refcounts=on" };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        for (int n = 1;; n++) {
            g_autoptr(GError) error = NULL;
            BlockDriverState *bs;
            int ret;

            make_image_ok("a", "size=4M,cluster_size=4k");
            write_some("a");
            bs = bdrv_open(graph, faulty_options("a", NULL), &error);
            ck_assert_ptr_nonnull(bs);
            faulty_set(FAULTY_CHANGES, n, nr);
            ret = bdrv_amend(bs, block_options_parse_keyval(cases[i], NULL,
                                                            NULL), &error);
            if (!faulty_has_failed()) {
                ck_assert_int_eq(ret, 0);
                faulty_clear();
                bdrv_unref(bs);
                break;
            }
            ck_assert_int_lt(ret, 0);
            ck_assert_ptr_nonnull(error);
            faulty_clear();
            bdrv_unref(bs);
            expect_some("a");
        }
    }
}
END_TEST

/* --- somebody else changes the file --------------------------------------- */

static int64_t count_at; /* where the count of one of its clusters is */

/* It is referred to @count times: where counts have 64 bits. */
static void set_count(uint64_t count)
{
    patch64("a", count_at, count);
}

static void make_count_large(void)
{
    set_count(300);
}

/* An image with more refcounts than are in the cache at a time, and the place
 * of one that is neither among the first nor among the last. */
static char *make_many_counts(gsize *ret_bytes)
{
    BlockBackend *blk;

    make_image_ok("a", "size=1M,cluster_size=512,refcount_bits=64");
    blk = image_backend("a", NULL);
    fill(blk, 0, 1048576, 1);
    close_backend(blk);
    count_at = peek64("a", peek64("a", 48) + 12 * 8) + 8;
    ck_assert_uint_eq(peek64("a", count_at), 1);
    return slurp("a", ret_bytes);
}

/* The same image, whose counts become 8 bits wide; one of them grows before
 * write number @n.  Returns what the amend does, with its @error. */
static int amend_meddled_with(int n, GError **error)
{
    BlockDriverState *bs = bdrv_open(
        graph, faulty_options("a", "refcount-cache-size=4k"), NULL);
    int ret;

    ck_assert_ptr_nonnull(bs);
    faulty_set(FAULTY_WRITES, n, 1);
    faulty.instead = make_count_large;
    ret = bdrv_amend(bs, opts("refcount_bits=8"), error);
    bdrv_unref(bs);
    return ret;
}

START_TEST(counts_that_grow_while_they_are_copied_fail_the_amend)
{
    gsize bytes;
    g_autofree char *image = make_many_counts(&bytes);
    unsigned copied = 0;

    for (int n = 1; n == 1 || faulty_has_failed(); n++) {
        g_autoptr(GError) error = NULL;
        BlockBackend *blk;
        int ret;

        unslurp("a", image, bytes);
        ret = amend_meddled_with(n, &error);
        if (ret < 0) {
            ck_assert_ptr_nonnull(error);
            ck_assert(ret == -ERANGE || ret == -EIO);
            copied += ret == -EIO;
            set_count(1);
        }
        blk = image_backend("a", NULL);
        expect_fill(blk, 0, 1048576, 1);
        ck_assert_int_eq(check_of(blk_bs(blk)).corruptions, 0);
        close_backend(blk);
    }
    faulty_clear();
    ck_assert_uint_gt(copied, 0);
}
END_TEST

/* --- the rest of image.h -------------------------------------------------- */

START_TEST(measuring_is_what_qemu_img_says)
{
    static const char *const cases[] = { "size=1G", "size=1G,cluster_size=4k",
                                         "size=5T,cluster_size=2M",
                                         "size=10G,refcount_bits=1" };
    g_autofree char *program = g_find_program_in_path("qemu-img");

    for (unsigned i = 0; program && i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;
        g_autofree char *command = NULL;
        g_autofree char *out = NULL;
        BlockOptions *options = block_options_parse_keyval(cases[i], NULL,
                                                           NULL);
        g_auto(GStrv) parts = g_strsplit(cases[i], ",", 2);
        BdrvMeasure measure;
        long long required, full;

        block_options_set_str(options, "driver", "qcow2");
        ck_assert_int_eq(bdrv_measure(graph, options, NULL, &measure, &error),
                         0);
        command = g_strdup_printf("qemu-img measure -O qcow2 --size %s %s%s",
                                  parts[0] + 5, parts[1] ? "-o " : "",
                                  parts[1] ? parts[1] : "");
        ck_assert(g_spawn_command_line_sync(command, &out, NULL, NULL, NULL));
        ck_assert_int_eq(sscanf(out, "required size: %lld\n"
                                "fully allocated size: %lld", &required,
                                &full), 2);
        ck_assert_int_eq(measure.fully_allocated, full);
        ck_assert_int_eq(measure.required, required);
    }
}
END_TEST

START_TEST(measuring_counts_the_data_of_a_source)
{
    g_autoptr(GError) error = NULL;
    BdrvMeasure empty, some;
    BlockDriverState *bs;

    make_image_ok("a", "size=4M");
    bs = image_open("a", NULL);
    ck_assert_int_eq(bdrv_measure(graph, opts("qcow2"), bs, &empty, &error),
                     0);
    bdrv_unref(bs);
    write_some("a");
    bs = image_open("a", NULL);
    ck_assert_int_eq(bdrv_measure(graph, opts("qcow2"), bs, &some, &error),
                     0);
    bdrv_unref(bs);
    ck_assert_int_eq(some.fully_allocated, empty.fully_allocated);
    ck_assert_int_eq(some.required - empty.required, 2 * 65536);
}
END_TEST

START_TEST(specific_information_has_the_keys_of_qemu_img)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(BlockOptions) info = NULL;
    g_autofree char *json = NULL;
    BlockDriverState *bs;

    make_image_ok("a", "size=4M,compression_type=zstd");
    bs = image_open("a", NULL);
    ck_assert_int_eq(bdrv_get_specific_info(bs, &info, &error), 0);
    json = block_options_to_json(info);
    ck_assert_ptr_nonnull(strstr(json, "\"compression-type\": \"zstd\""));
    ck_assert_ptr_nonnull(strstr(json, "\"refcount-bits\": 16"));
    ck_assert_str_eq(block_options_peek_str(info, "type"), "qcow2");
    ck_assert_str_eq(block_options_peek_str(info, "data.compat"), "1.1");
    bdrv_unref(bs);
}
END_TEST

START_TEST(a_format_is_guessed_only_from_its_head)
{
    g_autofree char *image = NULL;
    uint8_t zero[BDRV_PROBE_BYTES] = { 0 };
    gsize bytes;

    make_image_ok("a", "size=4M");
    image = slurp("a", &bytes);
    ck_assert_str_eq(bdrv_probe_format((uint8_t *)image, BDRV_PROBE_BYTES,
                                       "x.raw")->name, "qcow2");
    ck_assert_str_eq(bdrv_probe_format(zero, sizeof(zero), "a.qcow2")->name,
                     "raw");
    ck_assert_str_eq(bdrv_probe_format((uint8_t *)image, 4, NULL)->name,
                     "raw");
}
END_TEST

START_TEST(drivers_say_what_they_cannot_do)
{
    BlockDriverState *bs = open_ok("null-co,node-name=n");
    GError *error = NULL;
    GPtrArray *list = NULL;
    BlockOptions *info = NULL;
    BdrvMeasure measure;
    BdrvCheckResult result;
    const BdrvCheck how = { .flags = 0 };
    const BdrvSnapshotInfo snapshot = { .name = (char *)"s" };
    char *file, *format;

    ck_assert_int_eq(bdrv_snapshot_list(bs, &list, &error), -ENOTSUP);
    expect_error(&error, ENOTSUP, "does not support internal snapshots");
    ck_assert_int_eq(bdrv_snapshot_create(bs, &snapshot, &error), -ENOTSUP);
    expect_error(&error, ENOTSUP, "snapshots");
    ck_assert_int_eq(bdrv_snapshot_goto(bs, "s", &error), -ENOTSUP);
    expect_error(&error, ENOTSUP, "snapshots");
    ck_assert_int_eq(bdrv_snapshot_delete(bs, NULL, "s", &error), -ENOTSUP);
    expect_error(&error, ENOTSUP, "snapshots");
    ck_assert_int_eq(bdrv_make_empty(bs, &error), -ENOTSUP);
    expect_error(&error, ENOTSUP, "forgetting all content");
    ck_assert_int_eq(bdrv_stored_bitmap_list(bs, &list, &error), -ENOTSUP);
    expect_error(&error, ENOTSUP, "bitmaps");
    ck_assert_int_eq(bdrv_stored_bitmap_add(bs, "b", 65536, &error),
                     -ENOTSUP);
    expect_error(&error, ENOTSUP, "bitmaps");
    ck_assert_int_eq(bdrv_stored_bitmap_remove(bs, "b", &error), -ENOTSUP);
    expect_error(&error, ENOTSUP, "bitmaps");
    ck_assert_int_eq(bdrv_check(bs, &how, &result, &error), -ENOTSUP);
    expect_error(&error, ENOTSUP, "checking");
    ck_assert_int_eq(bdrv_amend(bs, block_options_new(), &error), -ENOTSUP);
    expect_error(&error, ENOTSUP, "properties");
    ck_assert_int_eq(bdrv_change_backing_file(bs, "x", "raw", &error),
                     -ENOTSUP);
    expect_error(&error, ENOTSUP, "backing file");
    ck_assert_int_eq(bdrv_get_specific_info(bs, &info, &error), -ENOTSUP);
    expect_error(&error, ENOTSUP, "information");
    ck_assert_int_eq(bdrv_get_backing_name(bs, &file, &format), -ENOTSUP);
    ck_assert_int_eq(bdrv_measure(graph, opts("null-co"), NULL, &measure,
                                  &error), -ENOTSUP);
    expect_error(&error, ENOTSUP, "measuring");
    ck_assert_int_eq(bdrv_create(graph, opts("null-co"), &error), -ENOTSUP);
    expect_error(&error, ENOTSUP, "creation");
    ck_assert_int_eq(bdrv_create(graph, block_options_new(), &error),
                     -EINVAL);
    expect_error(&error, EINVAL, "'driver' is missing");
    ck_assert_int_eq(bdrv_create(graph, opts("nonsense"), &error), -ENOENT);
    expect_error(&error, ENOENT, "Unknown driver");
    bdrv_snapshot_info_free(NULL);
    bdrv_stored_bitmap_free(NULL);
    bdrv_unref(bs);
}
END_TEST

/* The same calls from a coroutine, one after the other. */
static int coroutine_fn all_calls(void *opaque)
{
    BlockDriverState *bs = opaque;
    GPtrArray *list = NULL;
    BlockOptions *info = NULL;
    BdrvMeasure measure;
    BdrvCheckResult result;
    const BdrvCheck how = { .flags = 0 };
    const BdrvSnapshotInfo snapshot = { .name = (char *)"s" };
    unsigned done = 0;

    done += bdrv_co_get_specific_info(bs, &info, NULL) == 0;
    block_options_free(info);
    done += bdrv_co_measure(opts("qcow2"), bs, &measure, NULL) == 0;
    done += bdrv_co_amend(bs, opts("lazy_refcounts=on,driver=x"), NULL) < 0;
    done += bdrv_co_change_backing_file(bs, NULL, NULL, NULL) == 0;
    done += bdrv_co_create(bdrv_graph(bs), opts("qcow2"), NULL) < 0;
    done += bdrv_co_snapshot_goto(bs, "no such", NULL) < 0;
    done += bdrv_co_snapshot_delete(bs, NULL, NULL, NULL) == -EINVAL;
    done += bdrv_co_stored_bitmap_remove(bs, "no such", NULL) < 0;
    done += bdrv_co_make_empty(bs, NULL) == 0;
    if (bdrv_co_check(bs, &how, &result, NULL) == 0) {
        done += result.corruptions == 0;
    }
    if (bdrv_co_snapshot_create(bs, &snapshot, NULL) == 0 &&
        bdrv_co_snapshot_list(bs, &list, NULL) == 0) {
        done += list->len == 1;
        g_clear_pointer(&list, g_ptr_array_unref);
        bdrv_co_snapshot_delete(bs, NULL, "s", NULL);
    }
    if (bdrv_co_stored_bitmap_add(bs, "b", 65536, NULL) == 0 &&
        bdrv_co_stored_bitmap_list(bs, &list, NULL) == 0) {
        done += list->len == 1;
        g_clear_pointer(&list, g_ptr_array_unref);
    }
    return done;
}

START_TEST(every_call_can_be_made_from_a_coroutine)
{
    BlockDriverState *bs;

    make_image_ok("a", "size=4M");
    bs = image_open("a", NULL);
    ck_assert_int_ge(aio_co_run(block_graph_aio_context(graph), all_calls,
                                bs), 9);
    ck_assert(!bdrv_is_drained(bs));
    bdrv_unref(bs);
    ck_assert(qemu_img_ok("check -q", "a"));
}
END_TEST

/* a <- b <- c, all open from c on. */
START_TEST(no_image_gets_itself_or_one_above_it_as_its_backing_file)
{
    static const char *const names[] = { "a", "./a", "b", "c", "l" };
    g_autofree char *link = g_build_filename(file_dir, "l", NULL);
    g_autofree char *above = NULL;
    BlockDriverState *top, *middle, *bs;
    GError *error = NULL;

    make_image_ok("a", "size=4M");
    make_image_ok("b", "size=4M,backing_file=a,backing_fmt=qcow2");
    make_image_ok("c", "size=4M,backing_file=b,backing_fmt=qcow2");
    ck_assert_int_eq(symlink("b", link), 0);
    bs = image_open("a", NULL);
    middle = image_open("b", above = g_strdup_printf(
        "node-name=b,backing=%s", bdrv_node_name(bs)));
    top = image_open("c", "backing=b");
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *path = g_build_filename(file_dir, names[i], NULL);

        ck_assert_int_eq(bdrv_change_backing_file(bs, names[i], "qcow2",
                                                  &error), -ELOOP);
        expect_error(&error, ELOOP, "would back itself");
        ck_assert_int_eq(bdrv_check_new_backing(bs, path, &error), -ELOOP);
        expect_error(&error, ELOOP, "would back itself");
    }
    ck_assert_int_eq(bdrv_check_new_backing(bs, "/later", &error), 0);
    bdrv_unref(top);
    bdrv_unref(middle);
    ck_assert_int_eq(bdrv_change_backing_file(bs, "c", "qcow2", &error), 0);
    ck_assert_int_eq(bdrv_change_backing_file(bs, NULL, NULL, &error), 0);
    bdrv_unref(bs);
    unlink(link);
    amend_fails("b", "backing_file=b,backing_fmt=qcow2", ELOOP,
                "would back itself");
}
END_TEST

/* What is copied to it is not what the image of the source shows. */
START_TEST(a_target_of_copies_may_name_their_source_as_its_backing_file)
{
    BlockDriverState *source, *target, *cbw;
    GError *error = NULL;

    make_image_ok("a", "size=4M");
    make_image_ok("t", "size=4M");
    source = image_open("a", "node-name=a");
    target = image_open("t", "node-name=t");
    cbw = open_ok("copy-before-write,file=a,target=t");
    ck_assert_int_eq(bdrv_change_backing_file(target, "a", "qcow2", &error),
                     0);
    /* The other way about it backs itself from now on, if that is opened. */
    bdrv_unref(cbw);
    ck_assert_int_eq(bdrv_set_backing(target, source, &error), 0);
    ck_assert_int_eq(bdrv_change_backing_file(source, "t", "qcow2", &error),
                     -ELOOP);
    expect_error(&error, ELOOP, "would back itself");
    bdrv_unref(target);
    bdrv_unref(source);
}
END_TEST

START_TEST(a_read_only_image_is_not_changed)
{
    GError *error = NULL;
    BlockDriverState *bs;

    make_image_ok("a", "size=4M");
    bs = image_open("a", "read-only=on");
    ck_assert_int_eq(bdrv_amend(bs, block_options_new(), &error), -EACCES);
    expect_error(&error, EACCES, "read-only");
    ck_assert_int_eq(bdrv_change_backing_file(bs, NULL, NULL, &error),
                     -EACCES);
    expect_error(&error, EACCES, "read-only");
    bdrv_unref(bs);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("qcow2-amend");
    TCase *tcase = tcase_create("qcow2-amend");

    register_faulty_driver();
    tcase_add_checked_fixture(tcase, file_setup, file_teardown);
    tcase_set_timeout(tcase, 60);
    PROMISE(tcase, an_image_goes_up_and_down_between_versions);
    PROMISE(tcase, zeroes_over_a_backing_file_stay_zero_in_version_2);
    PROMISE(tcase, what_version_2_cannot_say_keeps_version_3);
    PROMISE(tcase, refcounts_take_any_width_and_go_back);
    PROMISE(tcase, lazy_refcounts_are_switched_on_and_off);
    PROMISE(tcase, the_backing_file_is_changed_and_everything_else_kept);
    PROMISE(tcase, a_name_that_is_too_long_is_refused);
    PROMISE(tcase, a_name_that_does_not_fit_in_the_header_is_refused);
    tcase_add_loop_test(tcase, an_amend_that_fails_leaves_a_sound_image, 0, 2);
    PROMISE(tcase, counts_that_grow_while_they_are_copied_fail_the_amend);
    PROMISE(tcase, measuring_is_what_qemu_img_says);
    PROMISE(tcase, measuring_counts_the_data_of_a_source);
    PROMISE(tcase, specific_information_has_the_keys_of_qemu_img);
    PROMISE(tcase, a_format_is_guessed_only_from_its_head);
    PROMISE(tcase, drivers_say_what_they_cannot_do);
    PROMISE(tcase, every_call_can_be_made_from_a_coroutine);
    PROMISE(tcase,
            no_image_gets_itself_or_one_above_it_as_its_backing_file);
    PROMISE(tcase,
            a_target_of_copies_may_name_their_source_as_its_backing_file);
    PROMISE(tcase, a_read_only_image_is_not_changed);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
