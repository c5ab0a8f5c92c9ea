/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Allocations whose size an image has a say in may fail: each of them is made
 * to, one after the other.  The linker hands us the calls (--wrap).
 */
#include "image-fixture.h"

#define MIB (INT64_C(1) << 20)

/* --- allocations ---------------------------------------------------------- */

static _Atomic int left; /* allocations until one fails; 0: none does */

static bool fails(void)
{
    return atomic_load(&left) > 0 && atomic_fetch_sub(&left, 1) == 1;
}

/* Names that the linker asks for. */
void *__wrap_g_try_malloc(gsize bytes);
void *__wrap_g_try_malloc0(gsize bytes);
void *__wrap_g_try_malloc_n(gsize n, gsize bytes);
void *__wrap_g_try_malloc0_n(gsize n, gsize bytes);
void *__wrap_block_aligned_try_alloc(size_t alignment, size_t bytes);
void *__real_g_try_malloc(gsize bytes);
void *__real_g_try_malloc0(gsize bytes);
void *__real_g_try_malloc_n(gsize n, gsize bytes);
void *__real_g_try_malloc0_n(gsize n, gsize bytes);
void *__real_block_aligned_try_alloc(size_t alignment, size_t bytes);

void *__wrap_g_try_malloc(gsize bytes)
{
    return fails() ? NULL : __real_g_try_malloc(bytes);
}

void *__wrap_g_try_malloc0(gsize bytes)
{
    return fails() ? NULL : __real_g_try_malloc0(bytes);
}

void *__wrap_g_try_malloc_n(gsize n, gsize bytes)
{
    return fails() ? NULL : __real_g_try_malloc_n(n, bytes);
}

void *__wrap_g_try_malloc0_n(gsize n, gsize bytes)
{
    return fails() ? NULL : __real_g_try_malloc0_n(n, bytes);
}

void *__wrap_block_aligned_try_alloc(size_t alignment, size_t bytes)
{
    return fails() ? NULL : __real_block_aligned_try_alloc(alignment, bytes);
}

/* --- images --------------------------------------------------------------- */

/* Data, a snapshot that shares some of it, compressed data, perhaps a bitmap;
 * kept to begin with it anew. */
static char *make_rich(const char *options, bool bitmap, gsize *ret_bytes)
{
    const BdrvSnapshotInfo info = { .name = (char *)"s" };
    g_autofree uint8_t *buf = g_malloc0(65536);
    BlockBackend *blk;

    make_image_ok("a", options);
    blk = image_backend("a", NULL);
    fill(blk, 0, 2 * MIB, 1);
    ck_assert_int_eq(bdrv_snapshot_create(blk_bs(blk), &info, NULL), 0);
    fill(blk, MIB, MIB, 2);
    memset(buf, 3, 65536);
    ck_assert_int_eq(blk_pwrite(blk, 4 * MIB, 65536, buf,
                                BDRV_REQ_WRITE_COMPRESSED), 0);
    if (bitmap) {
        ck_assert_int_eq(bdrv_stored_bitmap_add(blk_bs(blk), "b", 65536,
                                                NULL), 0);
    }
    close_backend(blk);
    return slurp("a", ret_bytes);
}

static bool went_back; /* to the snapshot, or perhaps */

static void expect_rich(BlockBackend *blk)
{
    expect_fill(blk, 0, MIB, 1);
    if (went_back) {
        return;
    }
    expect_fill(blk, MIB, MIB, 2);
    expect_fill(blk, 4 * MIB, 65536, 3);
}

/* No errors; leaks perhaps. */
static void expect_consistent(void)
{
    BdrvCheck how = { 0 };
    BdrvCheckResult result = { 0 };
    BlockBackend *blk = image_backend("a", NULL);

    ck_assert_int_eq(bdrv_check(blk_bs(blk), &how, &result, NULL), 0);
    ck_assert_int_eq(result.corruptions + result.check_errors, 0);
    expect_rich(blk);
    close_backend(blk);
}

/* --- operations ----------------------------------------------------------- */

static int op_snapshot(BlockBackend *blk, GError **errp)
{
    const BdrvSnapshotInfo info = { .name = (char *)"t" };

    return bdrv_snapshot_create(blk_bs(blk), &info, errp);
}

static int op_delete(BlockBackend *blk, GError **errp)
{
    return bdrv_snapshot_delete(blk_bs(blk), NULL, "s", errp);
}

static int op_goto(BlockBackend *blk, GError **errp)
{
    return bdrv_snapshot_goto(blk_bs(blk), "s", errp);
}

static int op_check(BlockBackend *blk, GError **errp)
{
    BdrvCheck how = { .flags = BDRV_CHECK_FIX_LEAKS | BDRV_CHECK_FIX_ERRORS };
    BdrvCheckResult result = { 0 };
    int ret = bdrv_check(blk_bs(blk), &how, &result, errp);

    ck_assert_int_eq(result.corruptions, 0);
    ck_assert_int_eq(result.corruptions_fixed, 0);
    ck_assert_int_eq(result.leaks_fixed, 0);
    return ret;
}

static int op_bitmap_add(BlockBackend *blk, GError **errp)
{
    return bdrv_stored_bitmap_add(blk_bs(blk), "c", 65536, errp);
}

static int op_bitmap_remove(BlockBackend *blk, GError **errp)
{
    return bdrv_stored_bitmap_remove(blk_bs(blk), "b", errp);
}

static int op_grow(BlockBackend *blk, GError **errp)
{
    BlockTruncate how = { .offset = 4096 * MIB + 512, .exact = true,
                          .prealloc = PREALLOC_MODE_OFF };

    return blk_truncate(blk, &how, errp);
}

static int op_refcount_bits(BlockBackend *blk, GError **errp)
{
    return bdrv_amend(blk_bs(blk), opts("refcount_bits=64"), errp);
}

static int op_backing(BlockBackend *blk, GError **errp)
{
    return bdrv_amend(blk_bs(blk), opts("backing_file=x,backing_fmt=raw"),
                      errp);
}

static int op_info(BlockBackend *blk, GError **errp)
{
    BlockOptions *info = NULL;
    int ret = bdrv_get_specific_info(blk_bs(blk), &info, errp);

    block_options_free(info);
    return ret;
}

static int op_compress(BlockBackend *blk, GError **errp)
{
    g_autofree uint8_t *buf = g_malloc0(MIB);
    int ret = blk_pwrite(blk, 8 * MIB, MIB, buf, BDRV_REQ_WRITE_COMPRESSED);

    return ret < 0 ? block_error_errno(errp, -ret, "compress") : 0;
}

static int op_write(BlockBackend *blk, GError **errp)
{
    g_autofree uint8_t *buf = g_malloc0(1000);
    int ret = blk_pwrite(blk, 9 * MIB + 7, 1000, buf, 0);

    return ret < 0 ? block_error_errno(errp, -ret, "write") : 0;
}

static int op_read(BlockBackend *blk, GError **errp)
{
    g_autofree uint8_t *buf = g_malloc0(8 * MIB);
    int ret = blk_pread(blk, 7, 8 * MIB - 100, buf, 0);

    return ret < 0 ? block_error_errno(errp, -ret, "read") : 0;
}

typedef struct Op {
    const char *name;
    int (*run)(BlockBackend *blk, GError **errp);
    bool bitmap; /* on an image with one */
} Op;

static const Op ops[] = {
    { "snapshot", op_snapshot, true },
    { "delete", op_delete, true },
    { "goto", op_goto, false },
    { "check", op_check, true },
    { "bitmap add", op_bitmap_add, true },
    { "bitmap remove", op_bitmap_remove, true },
    { "grow", op_grow, false },
    { "refcount bits", op_refcount_bits, true },
    { "backing", op_backing, true },
    { "info", op_info, true },
    { "compress", op_compress, true },
    { "write", op_write, true },
    { "read", op_read, true },
};

/* --- tests ---------------------------------------------------------------- */

static const char *const images[] = {
    "size=64M", "size=64M,cluster_size=4k,compression_type=zstd",
    "size=64M,cluster_size=64k,extended_l2=on,lazy_refcounts=on",
};

START_TEST(each_allocation_of_open_may_fail_R4)
{
    gsize bytes;

    g_free(make_rich(images[_i], true, &bytes));
    for (int n = 1;; n++) {
        size_t before = block_graph_nr_nodes(graph);
        g_autoptr(GError) error = NULL;
        BlockDriverState *bs;
        BlockBackend *blk;
        bool done;

        atomic_store(&left, n);
        bs = bdrv_open(graph, image_options("a", NULL), &error);
        if (!bs) {
            ck_assert_int_eq(atomic_load(&left), 0);
            ck_assert_ptr_nonnull(error);
            ck_assert_int_eq(block_error_code(error), ENOMEM);
            ck_assert_uint_eq(block_graph_nr_nodes(graph), before);
            continue;
        }
        /* A bitmap may be left out; the disk is worth more. */
        done = atomic_exchange(&left, 0) > 0;
        ck_assert_int_gt(n, 3);
        blk = backend_of(bs);
        expect_rich(blk);
        close_backend(blk);
        if (done) {
            break;
        }
    }
}
END_TEST

/* The error says so, and the image is what it was, or at most has leaks. */
START_TEST(each_allocation_of_an_operation_may_fail)
{
    const Op *op = &ops[_i];

    make_file("x", MIB);
    for (unsigned i = 0; i < G_N_ELEMENTS(images); i++) {
        gsize bytes;
        g_autofree char *image = make_rich(images[i], op->bitmap, &bytes);

        for (int n = 1;; n++) {
            g_autoptr(GError) error = NULL;
            BlockBackend *blk;
            int ret;
            bool done;

            unslurp("a", image, bytes);
            blk = image_backend("a", NULL);
            went_back = op->run == op_goto;
            atomic_store(&left, n);
            ret = op->run(blk, &error);
            done = atomic_exchange(&left, 0) > 0;
            ck_assert_msg((ret < 0) == (error != NULL), "%s", op->name);
            ck_assert_msg(!done || ret == 0, "%s: %s", op->name,
                          error ? error->message : "");
            ck_assert_msg(ret == 0 || ret == -ENOMEM, "%s, %d: %d %s",
                          op->name, n, ret, error ? error->message : "");
            ck_assert(!error || block_error_code(error) == ENOMEM);
            expect_rich(blk);
            close_backend(blk);
            ck_assert_uint_eq(peek64("a", QCOW2_H_INCOMPATIBLE) &
                                  (QCOW2_INCOMPAT_CORRUPT |
                                   QCOW2_INCOMPAT_DIRTY), 0);
            /* Bitmaps that cannot be looked at now are not given up. */
            ck_assert(!op->bitmap || op->run == op_bitmap_remove ||
                      (peek64("a", QCOW2_H_AUTOCLEAR) &
                       QCOW2_AUTOCLEAR_BITMAPS));
            expect_consistent();
            if (done) {
                ck_assert(qemu_img_ok("check -q", "a"));
                break;
            }
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("qcow2-memory");
    TCase *tcase = tcase_create("qcow2-memory");

    tcase_add_checked_fixture(tcase, file_setup, file_teardown);
    tcase_set_timeout(tcase, 300);
    tcase_add_loop_test(tcase, each_allocation_of_open_may_fail_R4, 0,
                        G_N_ELEMENTS(images));
    tcase_add_loop_test(tcase, each_allocation_of_an_operation_may_fail, 0,
                        G_N_ELEMENTS(ops));
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
