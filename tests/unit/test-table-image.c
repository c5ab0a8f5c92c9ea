/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory for what else images state the size of: stored bitmaps and their
 * directory, the map of metadata, what a check knows.
 */
#include "image-fixture.h"

#include <blockgraph/dirty-bitmap.h>

#include "block/graph/table-memory.h"

#define KIB INT64_C(1024)
#define MIB (INT64_C(1) << 20)

static void setup(void)
{
    file_setup();
    ck_assert_int_eq(table_memory_of_process(), 0);
}

/* Whatever a test did, all is given back when its nodes are closed. */
static void teardown(void)
{
    file_teardown();
    table_memory_set_max(0, 0);
    ck_assert_int_eq(table_memory_of_process(), 0);
}

static int64_t memory_of(BlockDriverState *bs)
{
    return table_memory_of_node(bdrv_table_account(bs));
}

/* --- bitmaps -------------------------------------------------------------- */

/* An image of 1 TiB with bitmaps "b0" and "b1" of 2 MiB each. */
static void make_with_bitmaps(const char *name)
{
    BlockDriverState *bs;

    make_image_ok(name, "size=1T");
    bs = image_open(name, NULL);
    for (int i = 0; i < 2; i++) {
        g_autofree char *bitmap = g_strdup_printf("b%d", i);

        ck_assert_int_eq(bdrv_stored_bitmap_add(bs, bitmap, 65536, NULL), 0);
    }
    bdrv_unref(bs);
}

static BdrvDirtyBitmap *find(BlockDriverState *bs, const char *name)
{
    BdrvDirtyBitmap *bitmap = bdrv_find_dirty_bitmap(bs, name);

    ck_assert_ptr_nonnull(bitmap);
    return bitmap;
}

static void expect_apart(BlockDriverState *bs, int64_t least, int64_t most)
{
    int64_t apart = table_memory_of_process() - memory_of(bs);

    ck_assert_int_ge(apart, least);
    ck_assert_int_le(apart, most);
}

START_TEST(bitmaps_of_an_image_count_for_the_process)
{
    BlockDriverState *bs;
    BdrvDirtyBitmap *bitmap;

    make_with_bitmaps("i");
    bs = image_open("i", NULL);
    expect_apart(bs, 4 * MIB, 5 * MIB);
    /* It stays one while a successor takes its place. */
    bitmap = find(bs, "b0");
    ck_assert_int_eq(bdrv_dirty_bitmap_create_successor(bitmap, NULL), 0);
    bitmap = bdrv_dirty_bitmap_abdicate(bitmap, NULL);
    ck_assert_ptr_nonnull(bitmap);
    expect_apart(bs, 4 * MIB, 5 * MIB);
    ck_assert_int_eq(bdrv_dirty_bitmap_create_successor(bitmap, NULL), 0);
    ck_assert_ptr_eq(bdrv_reclaim_dirty_bitmap(bitmap, NULL), bitmap);
    expect_apart(bs, 4 * MIB, 5 * MIB);
    ck_assert_int_eq(bdrv_remove_dirty_bitmap(bitmap, NULL), 0);
    expect_apart(bs, 2 * MIB, 3 * MIB);
    bdrv_dirty_bitmap_set_inconsistent(find(bs, "b1"));
    /* What an operator makes is his affair. */
    ck_assert_ptr_nonnull(bdrv_create_dirty_bitmap(bs, 65536, "mine", NULL));
    expect_apart(bs, 2 * MIB, 3 * MIB);
    bdrv_unref(bs);
    ck_assert_int_eq(table_memory_of_process(), 0);
}
END_TEST

/* The first write would make an end of good bitmaps. */
START_TEST(without_room_for_bitmaps_an_image_is_only_read)
{
    BlockDriverState *bs;

    make_with_bitmaps("i");
    table_memory_set_max(0, 3 * MIB);
    image_fails("i", NULL, EFBIG, "those of all images need more than");
    ck_assert_int_eq(table_memory_of_process(), 0);
    bs = image_open("i", "qcow2,read-only=on");
    ck_assert(!bdrv_dirty_bitmap_inconsistent(find(bs, "b0")));
    ck_assert(bdrv_dirty_bitmap_inconsistent(find(bs, "b1")));
    bdrv_unref(bs);
    table_memory_set_max(0, 0);
    bs = image_open("i", NULL); /* nothing was lost */
    ck_assert(!bdrv_dirty_bitmap_inconsistent(find(bs, "b0")));
    ck_assert(!bdrv_dirty_bitmap_inconsistent(find(bs, "b1")));
    bdrv_unref(bs);
}
END_TEST

/* A directory that an open has room for is not refused later on. */
START_TEST(the_directory_of_bitmaps_counts_when_it_is_read)
{
    char sectors[512] = { 1 };
    BlockDriverState *bs;
    BlockBackend *blk;
    int64_t before;

    make_image_ok("i", "size=1M");
    bs = image_open("i", NULL);
    for (int i = 0; i < 50; i++) {
        g_autofree char *name = g_strdup_printf("%0*d", 1000, i);

        ck_assert_int_eq(bdrv_stored_bitmap_add(bs, name, 65536, NULL), 0);
    }
    before = memory_of(bs);
    bdrv_unref(bs);
    /* 50 KiB as it is, and 60 of names. */
    table_memory_set_max(before + 80 * KIB, 0);
    image_fails("i", NULL, EFBIG, "need more than");
    table_memory_set_max(before + 150 * KIB, 0);
    blk = image_backend("i", NULL);
    ck_assert_int_le(memory_of(blk_bs(blk)), before + 10 * KIB);
    table_memory_set_max(1, 0);
    ck_assert_int_eq(blk_pwrite(blk, 0, 512, sectors, 0), 0);
    blk_unref(blk);
    table_memory_set_max(0, 0);
    bs = image_open("i", NULL);
    ck_assert_ptr_nonnull(bdrv_dirty_bitmap_next(bs, NULL));
    ck_assert(!bdrv_dirty_bitmap_inconsistent(bdrv_dirty_bitmap_next(bs,
                                                                     NULL)));
    bdrv_unref(bs);
}
END_TEST

/* --- the map of metadata -------------------------------------------------- */

/* An L1 table of 32768 entries, each of which names another cluster of a file
 * that is a hole: a map of 1 MiB. */
static void make_many_tables(const char *name)
{
    const unsigned nr = 32768;
    g_autofree uint8_t *table = g_malloc(nr * 8);
    g_autofree char *path = path_of(name);
    uint64_t l1;

    make_image_ok(name, "size=1G,cluster_size=512");
    l1 = peek64(name, 40);
    ck_assert_int_eq(truncate(path, 64 * MIB), 0);
    for (unsigned i = 0; i < nr; i++) {
        be_put64(table + i * 8, 32 * MIB + i * INT64_C(512));
    }
    patch_file(name, l1, table, nr * 8);
}

START_TEST(an_image_whose_map_of_tables_is_too_large_is_refused)
{
    BlockDriverState *bs;

    make_many_tables("i");
    /* The L1 table is 256 KiB. */
    table_memory_set_max(600 * KIB, 0);
    image_fails("i", NULL, EFBIG, "need more than");
    table_memory_set_max(0, 600 * KIB);
    image_fails("i", NULL, EFBIG, "those of all images need more than");
    table_memory_set_max(0, 0);
    bs = image_open("i", NULL);
    ck_assert_int_ge(memory_of(bs), 700 * KIB);
    ck_assert_int_le(memory_of(bs), 2 * MIB);
    bdrv_unref(bs);
}
END_TEST

/* Tables of snapshots come into the map when they are to be guarded. */
START_TEST(a_reopen_that_makes_the_map_too_large_is_refused)
{
    BlockBackend *blk;
    BlockDriverState *bs;
    int64_t before;

    make_image_ok("i", "size=64M,cluster_size=512");
    blk = image_backend("i", NULL);
    for (int64_t at = 0; at < 64 * MIB; at += 32 * KIB) {
        fill(blk, at, 512, 0x11); /* a table each */
    }
    snapshot_ok(blk_bs(blk), "s");
    for (int64_t at = 0; at < 64 * MIB; at += 32 * KIB) {
        fill(blk, at, 512, 0x22); /* and another one */
    }
    blk_unref(blk);
    bs = image_open("i", NULL);
    before = memory_of(bs);
    table_memory_set_max(before + 32 * KIB, 0);
    reopen_fails(bs, "overlap-check=all", EFBIG, "need more than");
    ck_assert_int_eq(memory_of(bs), before);
    table_memory_set_max(0, 0);
    reopen_ok(bs, "overlap-check=all");
    ck_assert_int_gt(memory_of(bs), before + 32 * KIB);
    blk = backend_of(bs);
    fill(blk, 0, MIB, 0x33);
    check_sound(blk);
    blk_unref(blk);
}
END_TEST

/* Later on a map that grows is no reason to fail a write. */
START_TEST(the_map_grows_with_what_a_guest_writes)
{
    BlockBackend *blk;
    int64_t before;

    make_image_ok("i", "size=64M,cluster_size=512");
    blk = image_backend("i", NULL);
    before = memory_of(blk_bs(blk));
    table_memory_set_max(before + 16 * KIB, 0);
    for (int64_t at = 0; at < 64 * MIB; at += 32 * KIB) {
        fill(blk, at, 512, 0x11); /* a table each */
    }
    ck_assert_int_le(memory_of(blk_bs(blk)), before + 256 * KIB);
    table_memory_set_max(0, 0);
    check_sound(blk);
    blk_unref(blk);
}
END_TEST

/* --- checks --------------------------------------------------------------- */

START_TEST(a_check_is_refused_what_the_sums_do_not_allow)
{
    BdrvCheck how = { 0 };
    BdrvCheckResult result;
    GError *error = NULL;
    BlockDriverState *bs;
    int64_t before;

    make_many_tables("i");
    bs = image_open("i", NULL);
    before = memory_of(bs);
    table_memory_set_max(before + 300 * KIB, 0);
    /* The L1 table once more is 256 KiB, the list of tables 1 MiB. */
    ck_assert_int_eq(bdrv_check(bs, &how, &result, &error), -EFBIG);
    expect_error(&error, EFBIG, "need more than");
    ck_assert_int_eq(memory_of(bs), before);
    how.flags = BDRV_CHECK_FIX_LEAKS | BDRV_CHECK_FIX_ERRORS;
    table_memory_set_max(0, before + 300 * KIB);
    ck_assert_int_eq(bdrv_check(bs, &how, &result, &error), -EFBIG);
    expect_error(&error, EFBIG, "those of all images need more than");
    table_memory_set_max(0, 0);
    ck_assert_int_eq(bdrv_check(bs, &how, &result, NULL), 0);
    ck_assert_int_eq(result.check_errors, 0);
    ck_assert_int_eq(result.corruptions, 0);
    ck_assert_int_gt(result.corruptions_fixed, 0); /* holes got refcounts */
    bdrv_unref(bs);
}
END_TEST

/* What is refused leaves the image as it was, and open to its users. */
START_TEST(a_repair_without_memory_is_no_harm)
{
    BdrvCheck how = { .flags = BDRV_CHECK_FIX_LEAKS | BDRV_CHECK_FIX_ERRORS };
    BdrvCheckResult result;
    BlockBackend *blk;
    int64_t before;

    make_image_ok("i", "size=64M,cluster_size=512");
    blk = image_backend("i", NULL);
    fill(blk, 0, MIB, 0x11);
    snapshot_ok(blk_bs(blk), "s");
    before = memory_of(blk_bs(blk));
    for (int64_t spare = 0; spare < 64 * KIB; spare += KIB) {
        table_memory_set_max(before + spare, 0);
        bdrv_check(blk_bs(blk), &how, &result, NULL);
        fill(blk, 0, 512, 0x22);
        ck_assert_int_eq(blk_flush(blk), 0);
    }
    table_memory_set_max(0, 0);
    expect_fill(blk, 512, MIB - 512, 0x11);
    check_sound(blk);
    blk_unref(blk);
}
END_TEST

START_TEST(refcounts_are_built_anew_only_with_room_for_them)
{
    BdrvCheck how = { .flags = BDRV_CHECK_FIX_LEAKS | BDRV_CHECK_FIX_ERRORS };
    BdrvCheckResult result;
    BlockBackend *blk;
    BlockDriverState *bs;
    int refused = 0;

    make_image_ok("i", "size=64M,cluster_size=512");
    blk = image_backend("i", NULL);
    fill(blk, 0, 16 * MIB, 0x11);
    blk_unref(blk);
    /* The refcount table is somewhere it cannot be. */
    patch64("i", 48, INT64_C(1) << 40);
    for (int64_t spare = 4 * KIB;; spare += 4 * KIB) {
        g_autoptr(GError) error = NULL;
        bool sound;

        table_memory_set_max(0, 0);
        bs = image_open("i", "qcow2,for-repair=on");
        table_memory_set_max(memory_of(bs) + spare, 0);
        sound = bdrv_check(bs, &how, &result, &error) == 0 &&
                result.corruptions == 0 && result.check_errors == 0;
        if (error) {
            ck_assert_int_eq(block_error_code(error), EFBIG);
        }
        bdrv_unref(bs);
        if (sound) {
            break;
        }
        refused++;
        ck_assert_int_lt(spare, 4 * MIB);
    }
    ck_assert_int_gt(refused, 2);
    table_memory_set_max(0, 0);
    blk = image_backend("i", NULL);
    expect_fill(blk, 0, 16 * MIB, 0x11);
    check_sound(blk);
    blk_unref(blk);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("table-image");
    TCase *tcase = tcase_create("table-image");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    PROMISE(tcase, bitmaps_of_an_image_count_for_the_process);
    PROMISE(tcase, without_room_for_bitmaps_an_image_is_only_read);
    PROMISE(tcase, the_directory_of_bitmaps_counts_when_it_is_read);
    PROMISE(tcase, an_image_whose_map_of_tables_is_too_large_is_refused);
    PROMISE(tcase, a_reopen_that_makes_the_map_too_large_is_refused);
    PROMISE(tcase, the_map_grows_with_what_a_guest_writes);
    PROMISE(tcase, a_check_is_refused_what_the_sums_do_not_allow);
    PROMISE(tcase, a_repair_without_memory_is_no_harm);
    PROMISE(tcase, refcounts_are_built_anew_only_with_room_for_them);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
