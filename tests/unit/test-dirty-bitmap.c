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
    g_autofree char *buf = g_malloc0(bytes + 1);

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

/* Nobody knows what a block holds whose write has failed. */
START_TEST(a_failed_padded_write_may_have_changed_its_blocks_as_a_whole)
{
    BlockDriverState *base = open_ok("mem,node-name=base,size=64k");
    BdrvDirtyBitmap *bitmap;

    given("size=10k,align=4k,zero=off,backing=base");
    bitmap = create_at("b", K);
    mem_disk(bs)->fail[MEM_WRITE] = EIO;
    ck_assert_int_eq(put(K, 512), -EIO);
    expect_bits(bitmap, "xxxx------");
    /* The part that is added is zeroed, its first block by a padded write. */
    mem_disk(bs)->fail_forever[MEM_WRITE] = EIO;
    ck_assert_int_eq(resize(32 * K), -EIO);
    expect_bits(bitmap, "xxxx----xx");
    done();
    bdrv_unref(base);
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

START_TEST(a_shrink_that_fails_may_have_changed_what_it_was_to_cut)
{
    BdrvDirtyBitmap *bitmap;

    given("size=16k");
    bitmap = create("b");
    mem_disk(bs)->fail[MEM_TRUNCATE] = EIO;
    ck_assert_int_eq(resize(9 * K), -EIO);
    expect_bits(bitmap, "--xx");
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

/* --- states --------------------------------------------------------------- */

START_TEST(bitmaps_are_found_listed_and_released)
{
    BdrvDirtyBitmap *a, *anonymous, *b;

    given("size=16k");
    a = create("a");
    anonymous = create(NULL);
    b = create("b");
    ck_assert_ptr_eq(bdrv_find_dirty_bitmap(bs, "a"), a);
    ck_assert_ptr_null(bdrv_find_dirty_bitmap(bs, "c"));
    ck_assert_ptr_eq(bdrv_dirty_bitmap_next(bs, NULL), a);
    ck_assert_ptr_eq(bdrv_dirty_bitmap_next(bs, a), anonymous);
    ck_assert_ptr_null(bdrv_dirty_bitmap_next(bs, b));
    ck_assert_ptr_null(bdrv_dirty_bitmap_name(anonymous));
    ck_assert_str_eq(bdrv_dirty_bitmap_name(b), "b");
    ck_assert_ptr_eq(bdrv_dirty_bitmap_bs(b), bs);
    bdrv_release_dirty_bitmap(a);
    bdrv_release_dirty_bitmap(NULL);
    ck_assert_ptr_null(bdrv_find_dirty_bitmap(bs, "a"));
    ck_assert_int_eq(put(0, 512), 0);
    expect_bits(b, "x---");
    expect_bits(anonymous, "x---");
    bdrv_release_dirty_bitmap(anonymous);
    done();
}
END_TEST

START_TEST(the_default_granularity_is_the_cluster_size_of_at_least_4k)
{
    given("size=16k");
    ck_assert_int_eq(bdrv_default_bitmap_granularity(bs), 64 * K);
    ck_assert_int_eq(
        bdrv_dirty_bitmap_granularity(create_at("b", 0)), 64 * K);
    done();
}
END_TEST

START_TEST(a_disabled_bitmap_keeps_its_bits_and_gets_no_new_ones)
{
    BdrvDirtyBitmap *bitmap;

    given("size=16k");
    bitmap = create("b");
    ck_assert_int_eq(put(0, 512), 0);
    ck_assert_int_eq(bdrv_disable_dirty_bitmap(bitmap, NULL), 0);
    ck_assert(!bdrv_dirty_bitmap_enabled(bitmap));
    ck_assert_int_eq(put(4 * K, 512), 0);
    expect_bits(bitmap, "x---");
    ck_assert_int_eq(bdrv_enable_dirty_bitmap(bitmap, NULL), 0);
    ck_assert(bdrv_dirty_bitmap_enabled(bitmap));
    ck_assert_int_eq(put(8 * K, 512), 0);
    expect_bits(bitmap, "x-x-");
    ck_assert_int_eq(bdrv_clear_dirty_bitmap(bitmap, NULL), 0);
    expect_bits(bitmap, "----");
    done();
}
END_TEST

START_TEST(a_check_names_bitmap_node_and_what_is_the_matter)
{
    BdrvDirtyBitmap *bitmap;
    GError *error = NULL;

    given("size=16k");
    bitmap = create("b");
    ck_assert_int_eq(bdrv_dirty_bitmap_check(bitmap, BDRV_BITMAP_DEFAULT,
                                             &error), 0);
    bdrv_dirty_bitmap_set_busy(bitmap, true);
    ck_assert(bdrv_dirty_bitmap_busy(bitmap));
    ck_assert_int_eq(bdrv_dirty_bitmap_check(bitmap, BDRV_BITMAP_BUSY,
                                             &error), -EBUSY);
    expect_error(&error, EBUSY, "Bitmap 'b' of node 'n' is in use");
    ck_assert_int_eq(bdrv_dirty_bitmap_check(
                         bitmap, BDRV_BITMAP_RO | BDRV_BITMAP_INCONSISTENT,
                         &error), 0);
    bdrv_dirty_bitmap_set_busy(bitmap, false);
    bdrv_dirty_bitmap_set_readonly(bitmap, true);
    ck_assert(bdrv_dirty_bitmap_readonly(bitmap));
    ck_assert_int_eq(bdrv_dirty_bitmap_check(bitmap, BDRV_BITMAP_ALLOW_RO,
                                             &error), 0);
    ck_assert_int_eq(bdrv_dirty_bitmap_check(bitmap, BDRV_BITMAP_DEFAULT,
                                             &error), -EACCES);
    expect_error(&error, EACCES, "Bitmap 'b' of node 'n' is read-only");
    ck_assert_int_eq(bdrv_disable_dirty_bitmap(bitmap, &error), -EACCES);
    expect_error(&error, EACCES, "'b'");
    bdrv_dirty_bitmap_set_readonly(bitmap, false);
    bdrv_dirty_bitmap_set_inconsistent(bitmap);
    ck_assert(bdrv_dirty_bitmap_inconsistent(bitmap));
    ck_assert_int_eq(bdrv_dirty_bitmap_check(bitmap, BDRV_BITMAP_ALLOW_RO,
                                             &error), -EINVAL);
    expect_error(&error, EINVAL, "Bitmap 'b' of node 'n' is inconsistent");
    /* It is of no use, but harms nobody. */
    ck_assert_int_eq(put(0, 512), 0);
    ck_assert_int_eq(bdrv_get_dirty_count(bitmap), 0);
    ck_assert_int_eq(bdrv_dirty_bitmap_size(bitmap), 0);
    ck_assert_int_eq(resize(32 * K), 0);
    done();
}
END_TEST

/* --- bits ----------------------------------------------------------------- */

START_TEST(r94_set_rounds_outwards_and_reset_inwards)
{
    BdrvDirtyBitmap *bitmap;

    given("size=17k");
    bitmap = create("b");
    bdrv_set_dirty_bitmap(bitmap, 4 * K - 1, 2);
    expect_bits(bitmap, "xx---");
    bdrv_reset_dirty_bitmap(bitmap, 1, 8 * K - 1);
    expect_bits(bitmap, "x----");
    bdrv_reset_dirty_bitmap(bitmap, 0, 4 * K - 1);
    expect_bits(bitmap, "x----");
    bdrv_reset_dirty_bitmap(bitmap, 0, 4 * K);
    expect_bits(bitmap, "-----");
    /* The end of the disk ends the last granule; what is beyond is cut. */
    bdrv_set_dirty_bitmap(bitmap, 17 * K - 1, INT64_MAX);
    expect_bits(bitmap, "----x");
    ck_assert_int_eq(bdrv_get_dirty_count(bitmap), K);
    bdrv_reset_dirty_bitmap(bitmap, 16 * K, K - 1);
    expect_bits(bitmap, "----x");
    bdrv_reset_dirty_bitmap(bitmap, 16 * K, K);
    expect_bits(bitmap, "-----");
    bdrv_set_dirty_bitmap(bitmap, 17 * K, 1);
    bdrv_reset_dirty_bitmap(bitmap, INT64_MAX, INT64_MAX);
    ck_assert_int_eq(bdrv_get_dirty_count(bitmap), 0);
    done();
}
END_TEST

START_TEST(r98_ranges_shorter_than_a_granule_are_no_trouble)
{
    BdrvDirtyBitmap *bitmap;

    given("size=16k");
    bitmap = create("b");
    bdrv_set_dirty_bitmap(bitmap, 0, 16 * K);
    for (int64_t bytes = 0; bytes < 4 * K; bytes += 511) {
        for (int64_t offset = 1; offset < 4 * K; offset += 1023) {
            bdrv_reset_dirty_bitmap(bitmap, offset, bytes);
            ck_assert_int_eq(blk_pwrite_zeroes(blk, offset, bytes, 0), 0);
        }
    }
    expect_bits(bitmap, "xxxx");
    bdrv_set_dirty_bitmap(bitmap, 0, 0);
    done();
}
END_TEST

START_TEST(searches_see_the_bits)
{
    BdrvDirtyBitmap *bitmap;
    int64_t start, bytes;

    given("size=32k");
    bitmap = create("b");
    bdrv_set_dirty_bitmap(bitmap, 8 * K, 8 * K);
    ck_assert_int_eq(bdrv_dirty_bitmap_next_dirty(bitmap, 0, INT64_MAX),
                     8 * K);
    ck_assert_int_eq(bdrv_dirty_bitmap_next_dirty(bitmap, 0, 8 * K), -1);
    ck_assert_int_eq(bdrv_dirty_bitmap_next_zero(bitmap, 9 * K, INT64_MAX),
                     16 * K);
    ck_assert(bdrv_dirty_bitmap_next_dirty_area(bitmap, K, 32 * K, 5 * K,
                                                &start, &bytes));
    ck_assert_int_eq(start, 8 * K);
    ck_assert_int_eq(bytes, 5 * K);
    ck_assert(!bdrv_dirty_bitmap_next_dirty_area(bitmap, 16 * K, 32 * K, K,
                                                 &start, &bytes));
    ck_assert(!bdrv_dirty_bitmap_status(bitmap, K, 20 * K, &bytes));
    ck_assert_int_eq(bytes, 7 * K);
    ck_assert(bdrv_dirty_bitmap_status(bitmap, 9 * K, 2 * K, &bytes));
    ck_assert_int_eq(bytes, 2 * K);
    done();
}
END_TEST

START_TEST(a_bitmap_goes_to_bytes_and_back)
{
    BdrvDirtyBitmap *from, *to;
    int64_t align;
    g_autofree char *sum = NULL, *sum_to = NULL;

    given("size=1000k");
    from = create_at("from", 512);
    to = create_at("to", 512);
    for (int64_t at = 0; at < 1000 * K; at += 3517) {
        bdrv_set_dirty_bitmap(from, at, 1000);
    }
    align = bdrv_dirty_bitmap_serialization_align(from);
    ck_assert_int_eq(align, 32 * K);
    for (int64_t at = 0; at < 1000 * K; at += 2 * align) {
        int64_t bytes = MIN(2 * align, 1000 * K - at);
        size_t n = bdrv_dirty_bitmap_serialization_size(from, at, bytes);
        g_autofree char *buf = g_malloc(n);

        ck_assert_int_eq(bdrv_dirty_bitmap_serialize_part(from, buf, at,
                                                          bytes), 0);
        ck_assert_int_eq(bdrv_dirty_bitmap_deserialize_part(to, buf, at,
                                                            bytes), 0);
    }
    sum = bdrv_dirty_bitmap_sha256(from);
    sum_to = bdrv_dirty_bitmap_sha256(to);
    ck_assert_str_eq(sum, sum_to);
    ck_assert_int_eq(bdrv_get_dirty_count(from), bdrv_get_dirty_count(to));
    /* No such parts. */
    ck_assert_int_eq(bdrv_dirty_bitmap_serialize_part(from, NULL, 1, align),
                     -EINVAL);
    ck_assert_int_eq(bdrv_dirty_bitmap_deserialize_part(to, NULL, 0, 512),
                     -EINVAL);
    ck_assert_int_eq(bdrv_dirty_bitmap_deserialize_part(to, NULL, align,
                                                        INT64_MAX), -EINVAL);
    ck_assert_int_eq(bdrv_dirty_bitmap_deserialize_part(to, NULL, 0,
                                                        1000 * K), 0);
    ck_assert_int_eq(bdrv_get_dirty_count(to), 1000 * K);
    done();
}
END_TEST

/* --- merges --------------------------------------------------------------- */

START_TEST(r107_a_merge_counts_and_rounds_outwards_between_granularities)
{
    BdrvDirtyBitmap *fine, *coarse, *third;

    given("size=32k");
    fine = create_at("fine", 512);
    coarse = create_at("coarse", 8 * K);
    third = create("third");
    bdrv_set_dirty_bitmap(fine, 9 * K, 1);
    ck_assert_int_eq(bdrv_merge_dirty_bitmap(coarse, fine, NULL), 0);
    expect_bits(coarse, "-x--");
    ck_assert_int_eq(bdrv_get_dirty_count(coarse), 8 * K);
    ck_assert_int_eq(bdrv_merge_dirty_bitmap(third, coarse, NULL), 0);
    expect_bits(third, "--xx----");
    ck_assert_int_eq(bdrv_get_dirty_count(third), 8 * K);
    ck_assert_int_eq(bdrv_merge_dirty_bitmap(third, third, NULL), 0);
    ck_assert_int_eq(bdrv_merge_dirty_bitmap(fine, third, NULL), 0);
    ck_assert_int_eq(bdrv_get_dirty_count(fine), 8 * K);
    done();
}
END_TEST

START_TEST(a_merge_between_nodes_is_all_or_nothing)
{
    BlockDriverState *other, *longer;
    BdrvDirtyBitmap *dest, *good, *bad, *busy, *sources[2];
    GError *error = NULL;

    given("size=16k");
    other = open_ok("mem,node-name=o,size=16k");
    longer = open_ok("mem,node-name=l,size=20k");
    dest = create("dest");
    good = bdrv_create_dirty_bitmap(other, 8 * K, "good", NULL);
    bad = bdrv_create_dirty_bitmap(longer, 4 * K, "bad", NULL);
    busy = bdrv_create_dirty_bitmap(other, 4 * K, "busy", NULL);
    bdrv_set_dirty_bitmap(good, 0, 1);
    bdrv_set_dirty_bitmap(busy, 12 * K, 1);
    sources[0] = good;
    sources[1] = bad;
    ck_assert_int_eq(bdrv_merge_dirty_bitmaps(dest, sources, 2, &error),
                     -EINVAL);
    expect_error(&error, EINVAL, "'bad' of node 'l' (20480 bytes)");
    expect_bits(dest, "----");
    sources[1] = busy;
    bdrv_dirty_bitmap_set_busy(busy, true);
    ck_assert_int_eq(bdrv_merge_dirty_bitmaps(dest, sources, 2, &error),
                     -EBUSY);
    expect_error(&error, EBUSY, "'busy' of node 'o'");
    expect_bits(dest, "----");
    bdrv_dirty_bitmap_set_busy(busy, false);
    ck_assert_int_eq(bdrv_merge_dirty_bitmaps(dest, sources, 2, &error), 0);
    expect_bits(dest, "xx-x");
    expect_bits(good, "x-");
    bdrv_unref(other);
    bdrv_unref(longer);
    done();
}
END_TEST

/* --- successors ----------------------------------------------------------- */

START_TEST(a_frozen_bitmap_does_not_change_and_gets_all_back)
{
    BdrvDirtyBitmap *bitmap;
    GError *error = NULL;

    given("size=16k");
    bitmap = create("b");
    ck_assert_ptr_null(bdrv_reclaim_dirty_bitmap(bitmap, &error));
    expect_error(&error, EINVAL, "no successor");
    ck_assert_int_eq(put(0, 512), 0);
    ck_assert_int_eq(bdrv_dirty_bitmap_create_successor(bitmap, NULL), 0);
    ck_assert(bdrv_dirty_bitmap_has_successor(bitmap));
    ck_assert(bdrv_dirty_bitmap_busy(bitmap));
    ck_assert(bdrv_dirty_bitmap_enabled(bitmap));
    ck_assert_int_eq(bdrv_dirty_bitmap_create_successor(bitmap, &error),
                     -EBUSY);
    expect_error(&error, EBUSY, "in use");
    ck_assert_int_eq(put(4 * K, 512), 0);
    expect_bits(bitmap, "x---");
    ck_assert_ptr_eq(bdrv_reclaim_dirty_bitmap(bitmap, &error), bitmap);
    expect_bits(bitmap, "xx--");
    ck_assert(!bdrv_dirty_bitmap_busy(bitmap));
    ck_assert_int_eq(put(8 * K, 512), 0);
    expect_bits(bitmap, "xxx-");
    done();
}
END_TEST

START_TEST(an_abdicated_bitmap_leaves_its_name_to_what_came_since)
{
    BdrvDirtyBitmap *bitmap, *next;
    GError *error = NULL;

    given("size=16k");
    bitmap = create("b");
    ck_assert_ptr_null(bdrv_dirty_bitmap_abdicate(bitmap, &error));
    expect_error(&error, EINVAL, "no successor");
    ck_assert_int_eq(put(0, 512), 0);
    ck_assert_int_eq(bdrv_dirty_bitmap_create_successor(bitmap, NULL), 0);
    ck_assert_int_eq(put(4 * K, 512), 0);
    next = bdrv_dirty_bitmap_abdicate(bitmap, &error);
    ck_assert_ptr_eq(bdrv_find_dirty_bitmap(bs, "b"), next);
    ck_assert_ptr_null(bdrv_dirty_bitmap_next(bs, next));
    expect_bits(next, "-x--");
    ck_assert(!bdrv_dirty_bitmap_busy(next));
    ck_assert_int_eq(put(8 * K, 512), 0);
    expect_bits(next, "-xx-");
    /* One that does not track leaves one that does not. */
    ck_assert_int_eq(bdrv_disable_dirty_bitmap(next, NULL), 0);
    ck_assert_int_eq(bdrv_dirty_bitmap_create_successor(next, NULL), 0);
    ck_assert_int_eq(put(12 * K, 512), 0);
    ck_assert_ptr_eq(bdrv_reclaim_dirty_bitmap(next, NULL), next);
    ck_assert(!bdrv_dirty_bitmap_enabled(next));
    expect_bits(next, "-xx-");
    done();
}
END_TEST

START_TEST(a_successor_that_would_be_too_large_is_refused_as_such)
{
    BlockDriverState *below = open_ok("null-co,node-name=below,size=1M");
    GError *error = NULL;
    BdrvDirtyBitmap *bitmap;

    bs = open_ok("pass,file=below");
    bitmap = create_at("b", 512);
    ck_assert_int_eq(bdrv_reopen(below, opts("null-co,size=64T"), NULL), 0);
    ck_assert_int_eq(bdrv_dirty_bitmap_create_successor(bitmap, &error),
                     -EFBIG);
    expect_error(&error, EFBIG, "too large");
    ck_assert_int_eq(bdrv_dirty_bitmap_create_successor(bitmap, NULL),
                     -EFBIG);
    ck_assert(!bdrv_dirty_bitmap_busy(bitmap));
    bdrv_unref(bs);
    bdrv_unref(below);
}
END_TEST

START_TEST(r109_who_cleans_one_bitmap_changes_no_other)
{
    BdrvDirtyBitmap *mine, *others, *coarse;

    given("size=16k");
    mine = create(NULL);
    others = create("others");
    coarse = create_at("coarse", 8 * K);
    ck_assert_int_eq(put(0, 16 * K), 0);
    bdrv_reset_dirty_bitmap(mine, 0, 8 * K);
    ck_assert_int_eq(bdrv_clear_dirty_bitmap(mine, NULL), 0);
    expect_bits(others, "xxxx");
    expect_bits(coarse, "xx");
    done();
}
END_TEST

/* --- other nodes ---------------------------------------------------------- */

START_TEST(each_node_of_a_chain_has_its_own_bitmaps)
{
    BlockDriverState *filter;
    BdrvDirtyBitmap *above, *below;
    BlockBackend *top;

    given("size=16k");
    filter = open_ok("pass,node-name=f,file=n");
    top = backend_ok("top", filter, BLK_PERM_WRITE, BLK_PERM_ALL);
    above = bdrv_create_dirty_bitmap(filter, 4 * K, "b", NULL);
    below = create("b");
    ck_assert_int_eq(blk_pwrite(top, 0, 3, "xyz", 0), 0);
    ck_assert_int_eq(blk_pwrite_zeroes(top, 4 * K, 512, 0), 0);
    expect_bits(above, "xx--");
    expect_bits(below, "xx--");
    ck_assert_int_eq(put(8 * K, 512), 0);
    expect_bits(above, "xx--");
    expect_bits(below, "xxx-");
    bdrv_unref(filter);
    blk_unref(top);
    done();
}
END_TEST

/* --- against an array ----------------------------------------------------- */

#define MODEL_GRANULES 64

typedef struct Model {
    BdrvDirtyBitmap *bitmap;
    int64_t step;
    bool enabled;
    bool dirty[MODEL_GRANULES * 8];
} Model;

static void model_touch(Model *m, int64_t offset, int64_t bytes, int64_t size)
{
    int64_t end = MIN(offset + bytes, size);

    if (!m->enabled) {
        return;
    }
    for (int64_t at = offset / m->step; at * m->step < end && bytes; at++) {
        m->dirty[at] = true;
    }
}

static void model_check(const Model *m, int64_t size, guint32 seed, int step)
{
    int64_t count = 0;

    ck_assert_int_eq(bdrv_dirty_bitmap_size(m->bitmap), size);
    for (int64_t at = 0; at < size; at += m->step) {
        bool dirty = bdrv_dirty_bitmap_get(m->bitmap, at);

        if (dirty != m->dirty[at / m->step]) {
            ck_abort_msg("seed %u, step %d: granule at %ld", seed, step,
                         (long)at);
        }
        count += dirty ? MIN(m->step, size - at) : 0;
    }
    ck_assert_int_eq(bdrv_get_dirty_count(m->bitmap), count);
}

static void model_resize(Model *m, int64_t old, int64_t size)
{
    /* What is beyond the last granule is new when it comes back. */
    for (int64_t i = (size + m->step - 1) / m->step;
         i < (int64_t)G_N_ELEMENTS(m->dirty); i++) {
        m->dirty[i] = false;
    }
    if (size > old) {
        model_touch(m, old, size - old, size);
    }
}

static void model_toggle(Model *m, GRand *rand)
{
    switch (g_rand_int_range(rand, 0, 4)) {
    case 0:
        m->enabled = !m->enabled;
        ck_assert_int_eq(m->enabled
                             ? bdrv_enable_dirty_bitmap(m->bitmap, NULL)
                             : bdrv_disable_dirty_bitmap(m->bitmap, NULL), 0);
        break;
    case 1:
        bdrv_clear_dirty_bitmap(m->bitmap, NULL);
        memset(m->dirty, 0, sizeof(m->dirty));
        break;
    case 2:
        ck_assert_int_eq(
            bdrv_dirty_bitmap_create_successor(m->bitmap, NULL), 0);
        m->bitmap = bdrv_reclaim_dirty_bitmap(m->bitmap, NULL);
        break;
    case 3:
        ck_assert_int_eq(
            bdrv_dirty_bitmap_create_successor(m->bitmap, NULL), 0);
        m->bitmap = bdrv_dirty_bitmap_abdicate(m->bitmap, NULL);
        memset(m->dirty, 0, sizeof(m->dirty));
        break;
    }
}

static void model_request(Model *models, int nr, GRand *rand, int64_t size)
{
    int64_t offset = g_rand_int_range(rand, 0, size);
    int64_t bytes = g_rand_int_range(rand, 0, MIN(size - offset, 20 * K) + 1);
    bool fails = g_rand_int_range(rand, 0, 8) == 0;
    int kind = g_rand_int_range(rand, 0, 3);
    int ret;

    mem_disk(bs)->fail[kind == 0 ? MEM_WRITE : MEM_ZERO] = fails ? EIO : 0;
    if (kind == 2) {
        ret = blk_pdiscard(blk, offset, bytes);
    } else {
        ret = kind ? blk_pwrite_zeroes(blk, offset, bytes, 0)
                   : put(offset, bytes);
    }
    ck_assert(ret == 0 || ret == -EIO);
    mem_disk(bs)->fail[MEM_WRITE] = mem_disk(bs)->fail[MEM_ZERO] = 0;
    for (int i = 0; i < nr; i++) {
        model_touch(&models[i], offset, bytes, size);
    }
}

START_TEST(random_requests_and_changes_agree_with_an_array)
{
    const char *given_seed = g_getenv("BITMAP_SEED");
    guint32 seed = given_seed ? (guint32)g_ascii_strtoull(given_seed, NULL, 10)
                              : g_random_int();
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    Model models[3] = { { .step = 512 }, { .step = 4 * K },
                        { .step = 64 * K } };
    int64_t size = 64 * K;

    given("size=64k,discard=unmap");
    for (int i = 0; i < 3; i++) {
        g_autofree char *name = g_strdup_printf("m%d", i);

        models[i].bitmap = create_at(name, models[i].step);
        models[i].enabled = true;
    }
    for (int step = 0; step < 3000; step++) {
        int what = g_rand_int_range(rand, 0, 20);

        if (what == 0) {
            int64_t old = size;

            size = g_rand_int_range(rand, 1, 200 * K);
            ck_assert_int_eq(resize(size), 0);
            for (int i = 0; i < 3; i++) {
                model_resize(&models[i], old, size);
            }
        } else if (what == 1) {
            model_toggle(&models[g_rand_int_range(rand, 0, 3)], rand);
        } else {
            model_request(models, 3, rand, size);
        }
        for (int i = 0; i < 3; i++) {
            model_check(&models[i], size, seed, step);
        }
    }
    done();
}
END_TEST

static void add_requests(Suite *suite)
{
    TCase *tcase = tcase_create("requests");

    tcase_add_checked_fixture(tcase, graph_setup, graph_teardown);
    tcase_set_timeout(tcase, 60);
    PROMISE(tcase, writes_zero_writes_and_discards_make_dirty_what_they_touch);
    PROMISE(tcase, reads_and_flushes_make_nothing_dirty);
    PROMISE(tcase, a_failed_write_leaves_the_bit_set);
    PROMISE(tcase,
            a_failed_padded_write_may_have_changed_its_blocks_as_a_whole);
    PROMISE(tcase, growth_is_dirty_and_what_was_cut_is_forgotten);
    PROMISE(tcase, a_resize_that_fails_leaves_the_bitmap_as_it_was);
    PROMISE(tcase, a_shrink_that_fails_may_have_changed_what_it_was_to_cut);
    PROMISE(tcase, a_write_that_grows_the_node_makes_the_gap_dirty_too);
    PROMISE(tcase, each_node_of_a_chain_has_its_own_bitmaps);
    tcase_add_loop_test(tcase, random_requests_and_changes_agree_with_an_array,
                        0, 10);
    suite_add_tcase(suite, tcase);
}

static void add_states(Suite *suite)
{
    TCase *tcase = tcase_create("states");

    tcase_add_checked_fixture(tcase, graph_setup, graph_teardown);
    PROMISE(tcase, names_and_granularities_out_of_range_are_refused);
    PROMISE(tcase, bitmaps_are_found_listed_and_released);
    PROMISE(tcase, the_default_granularity_is_the_cluster_size_of_at_least_4k);
    PROMISE(tcase, a_disabled_bitmap_keeps_its_bits_and_gets_no_new_ones);
    PROMISE(tcase, a_check_names_bitmap_node_and_what_is_the_matter);
    PROMISE(tcase, r94_set_rounds_outwards_and_reset_inwards);
    PROMISE(tcase, r98_ranges_shorter_than_a_granule_are_no_trouble);
    PROMISE(tcase, searches_see_the_bits);
    PROMISE(tcase, a_bitmap_goes_to_bytes_and_back);
    PROMISE(tcase,
            r107_a_merge_counts_and_rounds_outwards_between_granularities);
    PROMISE(tcase, a_merge_between_nodes_is_all_or_nothing);
    PROMISE(tcase, a_frozen_bitmap_does_not_change_and_gets_all_back);
    PROMISE(tcase, an_abdicated_bitmap_leaves_its_name_to_what_came_since);
    PROMISE(tcase, a_successor_that_would_be_too_large_is_refused_as_such);
    PROMISE(tcase, r109_who_cleans_one_bitmap_changes_no_other);
    suite_add_tcase(suite, tcase);
}

int main(void)
{
    Suite *suite = suite_create("dirty-bitmap");

    mem_register();
    register_pass_driver();
    add_requests(suite);
    add_states(suite);
    return check_main(suite);
}
