/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Dirty bitmaps of a node: what requests make dirty, states, merges,
 * successors.
 */
#include "graph-fixture.h"
#include "mem-driver.h"

#include <blockgraph/dirty-bitmap.h>
#include <blockgraph/image.h>

#define K INT64_C(1024)
#define MIB (INT64_C(1) << 20)

static BlockBackend *blk;
static BlockDriverState *bs;

/* A node on which "mem" disk @options are; one granule is 4 KiB below. */
static void given(const char *options)
{
    g_autofree char *text = g_strdup_printf("mem,node-name=n,%s", options);

    bs = open_ok(text);
    blk = backend_ok("guest", bs,
                     BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE |
                         BLK_PERM_RESIZE,
                     BLK_PERM_ALL);
    bdrv_unref(bs);
}

static void done(void)
{
    blk_unref(blk);
    blk = NULL;
    bs = NULL;
}

static BdrvDirtyBitmap *create_at(const char *name, int64_t granularity)
{
    g_autoptr(GError) error = NULL;
    BdrvDirtyBitmap *bitmap =
        bdrv_create_dirty_bitmap(bs, granularity, name, &error);

    ck_assert_msg(bitmap != NULL, "%s", error ? error->message : "no error");
    return bitmap;
}

static BdrvDirtyBitmap *create(const char *name)
{
    return create_at(name, 4 * K);
}

static void create_fails(int64_t granularity, const char *name, int err,
                         const char *text)
{
    GError *error = NULL;

    ck_assert_ptr_null(bdrv_create_dirty_bitmap(bs, granularity, name,
                                                &error));
    expect_error(&error, err, text);
}

/* The granules as a picture: 'x' dirty, '-' clean. */
static void expect_bits(BdrvDirtyBitmap *bitmap, const char *expected)
{
    int64_t size = bdrv_dirty_bitmap_size(bitmap);
    int64_t step = bdrv_dirty_bitmap_granularity(bitmap);
    g_autoptr(GString) text = g_string_new(NULL);

    for (int64_t at = 0; at < size; at += step) {
        g_string_append_c(text, bdrv_dirty_bitmap_get(bitmap, at) ? 'x' : '-');
    }
    ck_assert_str_eq(text->str, expected);
}

static int put(int64_t offset, int64_t bytes)
{
    g_autofree char *buf = g_malloc0(bytes);

    memset(buf, 7, bytes);
    return blk_pwrite(blk, offset, bytes, buf, 0);
}

static int resize(int64_t length)
{
    BlockTruncate how = { .offset = length, .exact = true };

    return blk_truncate(blk, &how, NULL);
}

/* --- what makes dirty ----------------------------------------------------- */

START_TEST(writes_zero_writes_and_discards_make_dirty_what_they_touch)
{
    BdrvDirtyBitmap *bitmap;

    given("size=32k,align=512,discard=unmap");
    bitmap = create("b");
    expect_bits(bitmap, "--------");
    ck_assert_int_eq(put(0, 512), 0);
    expect_bits(bitmap, "x-------");
    ck_assert_int_eq(put(8 * K - 512, 1024), 0);
    expect_bits(bitmap, "xxx-----");
    ck_assert_int_eq(blk_pwrite_zeroes(blk, 16 * K, 512, 0), 0);
    expect_bits(bitmap, "xxx-x---");
    ck_assert_int_eq(blk_pdiscard(blk, 24 * K, 8 * K), 0);
    expect_bits(bitmap, "xxx-x-xx");
    /* A write that is padded, inside of one sector. */
    ck_assert_int_eq(put(20 * K + 3, 5), 0);
    expect_bits(bitmap, "xxx-xxxx");
    ck_assert_int_eq(bdrv_get_dirty_count(bitmap), 28 * K);
    done();
}
END_TEST

START_TEST(reads_and_flushes_make_nothing_dirty)
{
    char buf[8192];
    BdrvDirtyBitmap *bitmap;

    given("size=32k");
    bitmap = create("b");
    ck_assert_int_eq(blk_pread(blk, 0, sizeof(buf), buf, 0), 0);
    ck_assert_int_eq(blk_flush(blk), 0);
    ck_assert_int_eq(blk_pwrite(blk, 0, 0, buf, 0), 0);
    ck_assert_int_eq(bdrv_get_dirty_count(bitmap), 0);
    done();
}
END_TEST

START_TEST(a_failed_write_leaves_the_bit_set)
{
    BdrvDirtyBitmap *bitmap;

    given("size=32k,zero=on");
    bitmap = create("b");
    mem_disk(bs)->fail[MEM_WRITE] = EIO;
    ck_assert_int_eq(put(4 * K, 512), -EIO);
    expect_bits(bitmap, "-x------");
    mem_disk(bs)->fail[MEM_ZERO] = ENOSPC;
    ck_assert_int_eq(blk_pwrite_zeroes(blk, 12 * K, 4 * K, 0), -ENOSPC);
    expect_bits(bitmap, "-x-x----");
    done();
}
END_TEST

START_TEST(growth_is_dirty_and_what_was_cut_is_forgotten)
{
    BdrvDirtyBitmap *bitmap, *disabled;

    given("size=16k");
    bitmap = create("b");
    disabled = create("d");
    ck_assert_int_eq(bdrv_disable_dirty_bitmap(disabled, NULL), 0);
    ck_assert_int_eq(resize(24 * K), 0);
    expect_bits(bitmap, "----xx");
    expect_bits(disabled, "------");
    ck_assert_int_eq(resize(17 * K), 0);
    expect_bits(bitmap, "----x");
    ck_assert_int_eq(bdrv_get_dirty_count(bitmap), K);
    ck_assert_int_eq(resize(0), 0);
    expect_bits(bitmap, "");
    ck_assert_int_eq(resize(8 * K), 0);
    expect_bits(bitmap, "xx");
    ck_assert_int_eq(bdrv_dirty_bitmap_size(disabled), 8 * K);
    done();
}
END_TEST

START_TEST(a_resize_that_fails_leaves_the_bitmap_as_it_was)
{
    BdrvDirtyBitmap *bitmap;

    given("size=16k");
    bitmap = create("b");
    ck_assert_int_eq(put(0, 512), 0);
    mem_disk(bs)->fail[MEM_TRUNCATE] = EIO;
    ck_assert_int_eq(resize(24 * K), -EIO);
    expect_bits(bitmap, "x---");
    done();
}
END_TEST

/* A write as a driver above sends it: it may pass the end. */
typedef struct Below {
    BlockDriverState *above;
    int64_t offset, bytes;
} Below;

static int coroutine_fn put_below_entry(void *opaque)
{
    Below *below = opaque;
    g_autofree char *buf = g_malloc0(below->bytes);

    return bdrv_co_pwrite(bdrv_primary_child(below->above), below->offset,
                          below->bytes, buf, 0);
}

static int put_below(BlockDriverState *above, int64_t offset, int64_t bytes)
{
    Below below = { above, offset, bytes };

    return aio_co_run(block_graph_aio_context(graph), put_below_entry, &below);
}

START_TEST(a_write_that_grows_the_node_makes_the_gap_dirty_too)
{
    BdrvDirtyBitmap *bitmap, *disabled;
    BlockDriverState *raw;

    given("size=8k,grow=on");
    raw = open_ok("raw,file=n");
    bitmap = create("b");
    disabled = create("d");
    ck_assert_int_eq(bdrv_disable_dirty_bitmap(disabled, NULL), 0);
    ck_assert_int_eq(put_below(raw, 20 * K, 4 * K), 0);
    expect_bits(bitmap, "--xxxx");
    expect_bits(disabled, "------");
    /* Growth inside of the last granule, which is dirty already. */
    ck_assert_int_eq(put_below(raw, 24 * K, 512), 0);
    ck_assert_int_eq(put_below(raw, 24 * K + 512, 512), 0);
    ck_assert_int_eq(bdrv_dirty_bitmap_size(bitmap), 25 * K);
    ck_assert_int_eq(bdrv_get_dirty_count(bitmap), 17 * K);
    bdrv_unref(raw);
    done();
}
END_TEST

/* --- life ----------------------------------------------------------------- */

START_TEST(names_and_granularities_out_of_range_are_refused)
{
    g_autofree char *longest = g_strnfill(1023, 'x');
    g_autofree char *longer = g_strnfill(1024, 'x');

    given("size=16k");
    create_fails(256, "b", EINVAL, "power of two");
    create_fails(4097, "b", EINVAL, "power of two");
    create_fails(-4096, "b", EINVAL, "power of two");
    create_fails(INT64_C(1) << 32, "b", EINVAL, "2 GiB");
    create_fails(INT64_MIN, "b", EINVAL, "2 GiB");
    create_fails(4096, "", EINVAL, "1 to 1023");
    create_fails(4096, longer, EINVAL, "1 to 1023");
    create(longest);
    create_fails(4096, longest, EEXIST, "has a bitmap");
    create_at("small", 512);
    create_at("large", INT64_C(1) << 31);
    done();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("dirty-bitmap");
    TCase *tcase = tcase_create("requests");

    mem_register();
    register_pass_driver();
    tcase_add_checked_fixture(tcase, graph_setup, graph_teardown);
    PROMISE(tcase, writes_zero_writes_and_discards_make_dirty_what_they_touch);
    PROMISE(tcase, reads_and_flushes_make_nothing_dirty);
    PROMISE(tcase, a_failed_write_leaves_the_bit_set);
    PROMISE(tcase, growth_is_dirty_and_what_was_cut_is_forgotten);
    PROMISE(tcase, a_resize_that_fails_leaves_the_bitmap_as_it_was);
    PROMISE(tcase, a_write_that_grows_the_node_makes_the_gap_dirty_too);
    PROMISE(tcase, names_and_granularities_out_of_range_are_refused);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
