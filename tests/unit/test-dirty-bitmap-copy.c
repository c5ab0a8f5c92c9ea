/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Dirty bitmaps of the targets of copies that a driver makes.
 */
#include "graph-fixture.h"

#include <blockgraph/dirty-bitmap.h>

#define K INT64_C(1024)

static int coroutine_fn copy_to(BlockDriverState *node,
                                const BlockCopyRange *copy)
{
    switch (copy->bytes) {
    case 512:
        return -EIO;
    case 1024:
        return -ENOTSUP; /* the first half was copied */
    default:
        return 0;
    }
}

static int coroutine_fn copy_from(BlockDriverState *node,
                                  const BlockCopyRange *copy)
{
    return bdrv_co_copy_range_to(copy);
}

static int coroutine_fn copier_open(BlockDriverState *node,
                                    BlockOptions *options, unsigned flags,
                                    GError **errp)
{
    return 0;
}

static int64_t coroutine_fn copier_getlength(BlockDriverState *node)
{
    return 16 * K;
}

static void register_copier(void)
{
    static const BlockDriver driver = {
        .struct_size = sizeof(BlockDriver),
        .name = "copier",
        .kind = BLOCK_DRIVER_PROTOCOL,
        .open = copier_open,
        .getlength = copier_getlength,
        .copy_range_from = copy_from,
        .copy_range_to = copy_to,
    };

    if (!bdrv_find_driver("copier") && bdrv_register(&driver, NULL) < 0) {
        abort();
    }
}

static BlockBackend *blk;

static int coroutine_fn copy_entry(void *opaque)
{
    return blk_co_copy_range(blk, 0, blk, 4 * K, *(int64_t *)opaque, 0);
}

/* Let a guest copy on a node with @options; the granules, 4 KiB each, are then
 * @expected. */
static void copy(const char *options, int64_t bytes, int ret,
                 const char *expected)
{
    AioContext *ctx = block_graph_aio_context(graph);
    BlockDriverState *bs = open_ok(options);
    BdrvDirtyBitmap *bitmap = bdrv_create_dirty_bitmap(bs, 4 * K, "b", NULL);

    ck_assert_ptr_nonnull(bitmap);
    blk = backend_ok("guest", bs, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                     BLK_PERM_ALL);
    bdrv_unref(bs);
    ck_assert_int_eq(aio_co_run(ctx, copy_entry, &bytes), ret);
    for (int i = 0; expected[i]; i++) {
        ck_assert_msg(bdrv_dirty_bitmap_get(bitmap, i * 4 * K) ==
                          (expected[i] == 'x'), "granule %d", i);
    }
    blk_unref(blk);
}

START_TEST(a_copy_makes_its_target_dirty_also_when_it_fails)
{
    copy("copier", 5 * K, 0, "-xx-");
    copy("copier", 512, -EIO, "-x--");
    copy("copier", 1024, -ENOTSUP, "-x--");
}
END_TEST

START_TEST(a_copy_makes_filters_above_its_target_dirty_also_when_it_fails)
{
    copy("pass,file.driver=copier", 5 * K, 0, "-xx-");
    copy("pass,file.driver=copier", 512, -EIO, "-x--");
    copy("pass,file.driver=copier", 1024, -ENOTSUP, "-x--");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("dirty-bitmap-copy");
    TCase *tcase = tcase_create("copy");

    register_pass_driver();
    register_copier();
    tcase_add_checked_fixture(tcase, graph_setup, graph_teardown);
    PROMISE(tcase, a_copy_makes_its_target_dirty_also_when_it_fails);
    PROMISE(tcase,
            a_copy_makes_filters_above_its_target_dirty_also_when_it_fails);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
