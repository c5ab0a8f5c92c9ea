/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image-fixture.h"

#include <sys/stat.h>

static int try_resize(BlockBackend *blk, int64_t bytes, PreallocMode mode,
                      GError **error)
{
    BlockTruncate how = { .offset = bytes, .exact = true, .prealloc = mode };

    return blk_truncate(blk, &how, error);
}

static void resize_ok(BlockBackend *blk, int64_t bytes, PreallocMode mode)
{
    g_autoptr(GError) error = NULL;

    ck_assert_msg(try_resize(blk, bytes, mode, &error) == 0, "%s",
                  error ? error->message : "no error set");
    ck_assert_int_eq(blk_getlength(blk), bytes);
}

static void resize_fails(BlockBackend *blk, int64_t bytes, PreallocMode mode,
                         int err, const char *message)
{
    int64_t before = blk_getlength(blk);
    GError *error = NULL;

    ck_assert_int_lt(try_resize(blk, bytes, mode, &error), 0);
    expect_error(&error, err, message);
    ck_assert_int_eq(blk_getlength(blk), before);
}

#define MIB (INT64_C(1) << 20)

START_TEST(a_disk_grows_by_zeroes)
{
    BlockBackend *blk;

    make_image_ok("a", "size=1M");
    blk = image_backend("a", NULL);
    fill(blk, 0, MIB, 1);
    resize_ok(blk, 3 * MIB + 512, PREALLOC_MODE_OFF);
    expect_fill(blk, 0, MIB, 1);
    expect_fill(blk, MIB, 2 * MIB + 512, 0);
    fill(blk, 3 * MIB, 512, 2);
    resize_ok(blk, INT64_C(1) << 42, PREALLOC_MODE_OFF); /* a larger L1 */
    fill(blk, (INT64_C(1) << 42) - MIB, MIB, 3);
    close_backend(blk);
    ck_assert(qemu_img_ok("check -q", "a"));
    blk = image_backend("a", NULL);
    expect_fill(blk, 0, MIB, 1);
    expect_fill(blk, 3 * MIB, 512, 2);
    expect_fill(blk, 3 * MIB + 512, MIB, 0);
    expect_fill(blk, (INT64_C(1) << 42) - MIB, MIB, 3);
    close_backend(blk);
}
END_TEST

START_TEST(what_was_cut_off_never_comes_back)
{
    static const char *const cases[] = {
        "size=4M", "size=4M,cluster_size=512", "size=4M,extended_l2=on",
        "size=4M,compat=0.10", "size=4M,data_file=d",
        "size=4M,data_file=d,data_file_raw=on",
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        BlockBackend *blk;

        make_image_ok("a", cases[i]);
        blk = image_backend("a", NULL);
        fill(blk, 0, 4 * MIB, 7);
        resize_ok(blk, MIB + 512, PREALLOC_MODE_OFF);
        resize_ok(blk, 4 * MIB, PREALLOC_MODE_OFF);
        expect_fill(blk, 0, MIB + 512, 7);
        expect_fill(blk, MIB + 512, 3 * MIB - 512, 0);
        resize_ok(blk, 0, PREALLOC_MODE_OFF);
        resize_ok(blk, 2 * MIB, PREALLOC_MODE_OFF);
        expect_fill(blk, 0, 2 * MIB, 0);
        close_backend(blk);
        ck_assert(qemu_img_ok("check -q", "a"));
    }
}
END_TEST

START_TEST(a_shrunk_image_gives_its_clusters_back)
{
    BlockBackend *blk;
    int64_t before;

    make_image_ok("a", "size=8M");
    blk = image_backend("a", NULL);
    fill(blk, 0, 8 * MIB, 7);
    ck_assert_int_eq(blk_flush(blk), 0);
    before = file_length("a");
    resize_ok(blk, MIB, PREALLOC_MODE_OFF);
    ck_assert_int_eq(blk_flush(blk), 0);
    ck_assert_int_eq(blk_flush(blk), 0);
    resize_ok(blk, 8 * MIB, PREALLOC_MODE_OFF);
    fill(blk, MIB, 7 * MIB, 8);
    close_backend(blk);
    ck_assert_int_le(file_length("a"), before + MIB);
    ck_assert(qemu_img_ok("check -q", "a"));
}
END_TEST

START_TEST(growth_over_a_longer_backing_file_reads_as_zero)
{
    BlockBackend *blk;

    make_image_ok("base", "size=4M");
    blk = image_backend("base", NULL);
    fill(blk, 0, 4 * MIB, 5);
    close_backend(blk);
    make_image_ok("a", "size=512k,backing_file=base,backing_fmt=qcow2");
    blk = image_backend("a", NULL);
    resize_ok(blk, 2 * MIB + 512, PREALLOC_MODE_OFF);
    expect_fill(blk, 0, MIB / 2, 5);
    expect_fill(blk, MIB / 2, 3 * MIB / 2 + 512, 0);
    resize_ok(blk, MIB / 4 + 512, PREALLOC_MODE_OFF);
    resize_ok(blk, 4 * MIB, PREALLOC_MODE_OFF);
    expect_fill(blk, 0, MIB / 4 + 512, 5);
    expect_fill(blk, MIB / 4 + 512, 3 * MIB, 0);
    close_backend(blk);
    ck_assert(qemu_img_ok("check -q", "a"));
}
END_TEST

/* As above, at the moment when the header has the new size. */
START_TEST(growth_never_shows_a_longer_backing_file)
{
    static const char *const cases[] = {
        "size=512k", "size=528k,extended_l2=on", "size=528k",
        "size=528k,compat=0.10",
    };

    make_image_ok("base", "size=4M");
    {
        BlockBackend *blk = image_backend("base", NULL);

        fill(blk, 0, 4 * MIB, 5);
        close_backend(blk);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *options = g_strdup_printf(
            "%s,backing_file=base,backing_fmt=qcow2", cases[i]);

        /* What comes after the growth is never done. */
        for (unsigned n = 1;; n++) {
            g_autoptr(GError) error = NULL;
            BlockBackend *blk;
            int64_t length;
            bool done;

            make_image_ok("a", options);
            blk = backend_of(bdrv_open(graph, faulty_options("a", NULL),
                                       &error));
            length = blk_getlength(blk);
            faulty_set(FAULTY_CHANGES, n, UINT_MAX);
            try_resize(blk, 2 * MIB + 512, PREALLOC_MODE_OFF, NULL);
            done = !faulty_has_failed();
            close_backend(blk);
            faulty_clear();
            blk = image_backend("a", "qcow2,read-only=on");
            expect_fill(blk, 0, length, 5);
            if (blk_getlength(blk) > length) {
                ck_assert_int_eq(blk_getlength(blk), 2 * MIB + 512);
                expect_fill(blk, length, 2 * MIB + 512 - length, 0);
            }
            close_backend(blk);
            if (done) {
                break;
            }
        }
    }
}
END_TEST

START_TEST(growth_can_be_preallocated)
{
    static const PreallocMode modes[] = {
        PREALLOC_MODE_METADATA, PREALLOC_MODE_FALLOC, PREALLOC_MODE_FULL,
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(modes); i++) {
        BlockBackend *blk;
        int64_t length;

        make_image_ok("a", "size=1M");
        blk = image_backend("a", NULL);
        resize_ok(blk, 3 * MIB, modes[i]);
        length = file_length("a");
        ck_assert_int_ge(length, 2 * MIB);
        expect_fill(blk, 0, 3 * MIB, 0);
        fill(blk, MIB, 2 * MIB, 4);
        ck_assert_int_eq(blk_flush(blk), 0);
        ck_assert_int_eq(file_length("a"), length);
        close_backend(blk);
        ck_assert(qemu_img_ok("check -q", "a"));
    }
}
END_TEST

START_TEST(sizes_that_cannot_be_are_refused)
{
    BlockBackend *blk;

    make_image_ok("a", "size=1M,cluster_size=512");
    blk = image_backend("a", NULL);
    resize_fails(blk, MIB + 1, PREALLOC_MODE_OFF, EINVAL, "multiple of 512");
    resize_fails(blk, (INT64_C(1) << 37) + 512, PREALLOC_MODE_OFF, EFBIG,
                 "limit");
    resize_fails(blk, MIB / 2, PREALLOC_MODE_FULL, EINVAL,
                 "for what is added");
    resize_ok(blk, INT64_C(1) << 37, PREALLOC_MODE_OFF);
    close_backend(blk);
    ck_assert(qemu_img_ok("check -q", "a"));
}
END_TEST

/* Sizes of snapshots are their own from version 3 on. */
START_TEST(snapshots_keep_their_size_over_a_resize_R69)
{
    const BdrvSnapshotInfo info = { .name = (char *)"s" };
    g_autoptr(GError) error = NULL;
    BlockBackend *blk;

    make_image_ok("a", "size=1M");
    blk = image_backend("a", NULL);
    fill(blk, 0, MIB, 1);
    ck_assert_int_eq(bdrv_snapshot_create(blk_bs(blk), &info, &error), 0);
    resize_ok(blk, 3 * MIB, PREALLOC_MODE_OFF);
    fill(blk, 0, 3 * MIB, 2);
    resize_ok(blk, MIB / 2, PREALLOC_MODE_OFF);
    resize_ok(blk, 2 * MIB, PREALLOC_MODE_OFF);
    expect_fill(blk, 0, MIB / 2, 2);
    expect_fill(blk, MIB / 2, 3 * MIB / 2, 0);
    ck_assert_int_eq(bdrv_snapshot_goto(blk_bs(blk), "s", &error), 0);
    ck_assert_int_eq(blk_getlength(blk), MIB);
    expect_fill(blk, 0, MIB, 1);
    resize_ok(blk, 4 * MIB, PREALLOC_MODE_OFF);
    expect_fill(blk, MIB, 3 * MIB, 0);
    ck_assert_int_eq(bdrv_snapshot_delete(blk_bs(blk), NULL, "s", &error), 0);
    expect_fill(blk, 0, MIB, 1);
    close_backend(blk);
    ck_assert(qemu_img_ok("check -q", "a"));
}
END_TEST

START_TEST(a_version_2_image_with_snapshots_is_not_resized_R69)
{
    const BdrvSnapshotInfo info = { .name = (char *)"s" };
    g_autoptr(GError) error = NULL;
    BlockBackend *blk;

    make_image_ok("a", "size=1M,compat=0.10");
    blk = image_backend("a", NULL);
    ck_assert_int_eq(bdrv_snapshot_create(blk_bs(blk), &info, &error), 0);
    resize_fails(blk, 2 * MIB, PREALLOC_MODE_OFF, ENOTSUP,
                 "does not record a size");
    close_backend(blk);
}
END_TEST

/* Whatever write fails: the old size or the new one, and a sound image. */
START_TEST(a_resize_that_fails_leaves_a_sound_image)
{
    static const int64_t sizes[] = { 64 * MIB, MIB };

    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        for (int n = 1;; n++) {
            g_autoptr(GError) error = NULL;
            BlockDriverState *bs;
            BlockBackend *blk;
            int ret;

            make_image_ok("a", "size=2M,cluster_size=4k");
            blk = image_backend("a", NULL);
            fill(blk, 0, 2 * MIB, 6);
            close_backend(blk);
            bs = bdrv_open(graph, faulty_options("a", NULL), &error);
            ck_assert_ptr_nonnull(bs);
            blk = backend_of(bs);
            faulty_set(FAULTY_CHANGES, n, 1);
            ret = try_resize(blk, sizes[i], PREALLOC_MODE_OFF, &error);
            ck_assert((ret < 0) == (error != NULL));
            if (!faulty_has_failed()) {
                ck_assert_int_eq(ret, 0);
                faulty_clear();
                close_backend(blk);
                break;
            }
            faulty_clear();
            ck_assert_int_eq(blk_getlength(blk), ret < 0 ? 2 * MIB : sizes[i]);
            expect_fill(blk, 0, MIB, 6);
            close_backend(blk);
            blk = image_backend("a", NULL);
            expect_fill(blk, 0, MIB, 6);
            close_backend(blk);
        }
    }
}
END_TEST

/* Space that could not be had is not promised by the tables either. */
START_TEST(a_preallocation_that_fails_leaves_a_sound_image)
{
    for (PreallocMode mode = PREALLOC_MODE_METADATA;
         mode <= PREALLOC_MODE_FULL; mode++) {
        for (int n = 1;; n++) {
            g_autoptr(GError) error = NULL;
            BlockDriverState *bs;
            BlockBackend *blk;
            bool failed;
            int ret;

            make_image_ok("a", "size=64k,cluster_size=4k");
            bs = bdrv_open(graph, faulty_options("a", NULL), &error);
            ck_assert_ptr_nonnull(bs);
            blk = backend_of(bs);
            faulty_set(FAULTY_CHANGES, n, 1);
            ret = try_resize(blk, 4 * MIB, mode, &error);
            failed = faulty_has_failed();
            faulty_clear();
            ck_assert(failed || ret == 0);
            ck_assert_int_eq(blk_getlength(blk), ret < 0 ? 65536 : 4 * MIB);
            close_backend(blk);
            blk = image_backend("a", NULL);
            check_sound(blk);
            close_backend(blk);
            if (!failed) {
                break;
            }
        }
    }
}
END_TEST

static int64_t file_bytes(const char *name)
{
    g_autofree char *path = path_of(name);
    struct stat st;

    ck_assert_int_eq(stat(path, &st), 0);
    return st.st_size;
}

/* One that runs in the background, and what it came to. */
typedef struct Later {
    bool done;
    int ret;
} Later;

static void came_to(void *opaque, int ret)
{
    *(Later *)opaque = (Later){ .done = true, .ret = ret };
}

/*
 * Nothing of the space stays, but tables.  What a guest has written meanwhile,
 * behind the end that the file had, stays, too.
 */
START_TEST(a_preallocation_that_fails_gives_its_space_back)
{
    bool write_too = _i & 1;
    PreallocMode mode = _i & 2 ? PREALLOC_MODE_FULL : PREALLOC_MODE_FALLOC;

    for (int n = 1;; n++) {
        g_autoptr(GError) error = NULL;
        g_autofree uint8_t *data = g_malloc(MIB);
        BlockIOVec1 iov;
        Later later = { .done = !write_too };
        BlockBackend *blk;
        int64_t before;
        bool failed;
        int ret;

        make_image_ok("a", "size=1M,cluster_size=4k");
        before = file_bytes("a");
        blk = backend_of(bdrv_open(graph, faulty_options("a", NULL), &error));
        memset(data, 7, MIB);
        faulty_set(FAULTY_CHANGES, n, 1);
        if (write_too) {
            blk_aio_pwritev(blk, 0, block_iov_buf(&iov, data, MIB), 0, came_to,
                            &later);
        }
        ret = try_resize(blk, 6 * MIB, mode, &error);
        while (!later.done) {
            aio_poll(block_graph_aio_context(graph), true);
        }
        failed = faulty_has_failed();
        faulty_clear();
        if (write_too && later.ret == 0) {
            expect_fill(blk, 0, MIB, 7);
        }
        close_backend(blk);
        if (ret < 0 && !strstr(error->message, "header")) {
            ck_assert_int_le(file_bytes("a"),
                             before + 65536 + (write_too ? MIB : 0));
        }
        blk = image_backend("a", NULL);
        check_sound(blk);
        if (write_too && later.ret == 0) {
            expect_fill(blk, 0, MIB, 7);
        }
        close_backend(blk);
        if (!failed) {
            break;
        }
    }
}
END_TEST

START_TEST(a_growth_that_fails_leaves_the_data_file_as_it_was)
{
    g_autofree char *path = path_of("a.raw");

    for (int raw = 0; raw < 2; raw++) {
        for (int n = 1;; n++) {
            g_autofree char *options = g_strdup_printf(
                "size=1M,data_file=%s,data_file_raw=%s", path,
                raw ? "on" : "off");
            g_autoptr(GError) error = NULL;
            BlockBackend *blk;
            bool failed;
            int ret;

            make_image_ok("a", options);
            blk = backend_of(bdrv_open(graph, faulty_options("a", NULL),
                                       &error));
            fill(blk, 0, MIB, 7);
            faulty_set(FAULTY_CHANGES, n, 1);
            ret = try_resize(blk, 64 * MIB, PREALLOC_MODE_OFF, &error);
            failed = faulty_has_failed();
            faulty_clear();
            close_backend(blk);
            if (ret < 0 && !strstr(error->message, "header")) {
                ck_assert_int_eq(file_bytes("a.raw"), MIB);
            }
            blk = image_backend("a", NULL);
            expect_fill(blk, 0, MIB, 7);
            close_backend(blk);
            if (!failed) {
                break;
            }
        }
    }
}
END_TEST

/* Memory and disk agree on the size and on the table: what comes later is
 * there after a close. */
START_TEST(writes_after_a_resize_that_failed_are_not_lost)
{
    static const int64_t sizes[] = { 4096 * MIB, MIB };

    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        for (int n = 1;; n++) {
            g_autoptr(GError) error = NULL;
            BlockBackend *blk;
            bool failed;
            int ret;

            make_image_ok("a", "size=64M,cluster_size=4k");
            blk = backend_of(bdrv_open(graph, faulty_options("a", NULL),
                                       &error));
            fill(blk, 0, MIB, 6);
            faulty_set(FAULTY_CHANGES, n, 1);
            ret = try_resize(blk, sizes[i], PREALLOC_MODE_OFF, &error);
            failed = faulty_has_failed();
            faulty_clear();
            if (!failed) {
                close_backend(blk);
                break;
            }
            if (ret == 0) { /* only space was not given back */
                close_backend(blk);
                continue;
            }
            fill(blk, 32 * MIB, MIB, 7);
            close_backend(blk);
            blk = image_backend("a", NULL);
            ck_assert_int_eq(blk_getlength(blk), 64 * MIB);
            expect_fill(blk, 0, MIB, 6);
            expect_fill(blk, 32 * MIB, MIB, 7);
            close_backend(blk);
        }
    }
}
END_TEST

/* The file as a power cut would leave it once the header has the new size: what
 * was written behind a flush that came before it, and no more. */
START_TEST(growth_shows_nothing_old_even_after_a_power_cut)
{
    static const char *const cases[] = {
        "size=4M", "size=4M,extended_l2=on", "size=4M,compat=0.10",
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *image = NULL;
        gsize bytes;
        BlockBackend *blk;

        make_image_ok("a", cases[i]);
        blk = image_backend("a", NULL);
        fill(blk, 0, 4 * MIB, 7);
        close_backend(blk);
        /* A shrink that did not get further than the header. */
        patch64("a", QCOW2_H_SIZE, MIB + 512);
        blk = image_backend("a", NULL);
        resize_ok(blk, 4 * MIB, PREALLOC_MODE_OFF);
        image = slurp("a", &bytes);
        close_backend(blk);
        unslurp("b", image, bytes);
        blk = image_backend("b", "qcow2,read-only=on");
        ck_assert_int_eq(blk_getlength(blk), 4 * MIB);
        expect_fill(blk, 0, MIB + 512, 7);
        expect_fill(blk, MIB + 512, 3 * MIB - 512, 0);
        close_backend(blk);
    }
}
END_TEST

/* All tables that it ever had stay in memory until it is closed. */
START_TEST(many_small_growths_make_few_tables)
{
    BlockBackend *blk;
    size_t tables = 0, entries = 0;
    Qcow2L1 *l1;
    Qcow2 *q;

    make_image_ok("a", "size=1M,cluster_size=512");
    blk = image_backend("a", NULL);
    q = bdrv_opaque(blk_bs(blk));
    for (int i = 2; i <= 256; i++) {
        resize_ok(blk, i * MIB, PREALLOC_MODE_OFF);
    }
    for (l1 = atomic_load(&q->l1); l1; l1 = l1->older) {
        tables++;
        entries += l1->nr;
    }
    ck_assert_uint_le(tables, 40);
    ck_assert_uint_le(entries, 8 * atomic_load(&q->l1)->nr);
    fill(blk, 255 * MIB, MIB, 3);
    close_backend(blk);
    ck_assert(qemu_img_ok("check -q", "a"));
    blk = image_backend("a", NULL);
    expect_fill(blk, 255 * MIB, MIB, 3);
    close_backend(blk);
}
END_TEST

START_TEST(growth_of_a_raw_data_file_writes_no_zeroes)
{
    g_autofree char *path = path_of("a.raw");
    g_autofree char *options = g_strdup_printf(
        "size=1M,data_file=%s,data_file_raw=on", path);
    BlockBackend *blk;
    struct stat st;

    make_image_ok("a", options);
    blk = image_backend("a", NULL);
    resize_ok(blk, 64 * MIB, PREALLOC_MODE_OFF);
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_int_eq(st.st_size, 64 * MIB);
    ck_assert_int_lt(st.st_blocks * 512, 32 * MIB);
    expect_fill(blk, 0, 64 * MIB, 0);
    close_backend(blk);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("qcow2-truncate");
    TCase *tcase = tcase_create("qcow2-truncate");

    register_faulty_driver();
    tcase_add_checked_fixture(tcase, file_setup, file_teardown);
    tcase_set_timeout(tcase, 60);
    PROMISE(tcase, a_disk_grows_by_zeroes);
    PROMISE(tcase, what_was_cut_off_never_comes_back);
    PROMISE(tcase, a_shrunk_image_gives_its_clusters_back);
    PROMISE(tcase, growth_over_a_longer_backing_file_reads_as_zero);
    PROMISE(tcase, growth_never_shows_a_longer_backing_file);
    PROMISE(tcase, growth_can_be_preallocated);
    PROMISE(tcase, sizes_that_cannot_be_are_refused);
    PROMISE(tcase, snapshots_keep_their_size_over_a_resize_R69);
    PROMISE(tcase, a_version_2_image_with_snapshots_is_not_resized_R69);
    PROMISE(tcase, a_resize_that_fails_leaves_a_sound_image);
    PROMISE(tcase, a_preallocation_that_fails_leaves_a_sound_image);
    tcase_add_loop_test(
        tcase, a_preallocation_that_fails_gives_its_space_back, 0, 4);
    PROMISE(tcase, a_growth_that_fails_leaves_the_data_file_as_it_was);
    PROMISE(tcase, writes_after_a_resize_that_failed_are_not_lost);
    PROMISE(tcase, growth_shows_nothing_old_even_after_a_power_cut);
    PROMISE(tcase, many_small_growths_make_few_tables);
    PROMISE(tcase, growth_of_a_raw_data_file_writes_no_zeroes);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
