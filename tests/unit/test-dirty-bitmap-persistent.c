/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Dirty bitmaps that outlive the node: stored in qcow2 images.
 *
 * Where qemu-img is there, it looks at the images, too.
 */
#include "stored-bitmap-fixture.h"

static int resize(int64_t length)
{
    BlockTruncate how = { .offset = length, .exact = true };

    return blk_truncate(blk, &how, NULL);
}

/* --- close and open ------------------------------------------------------- */

START_TEST(a_persistent_bitmap_survives_close_with_bits_and_state)
{
    make();
    open_it();
    create("on", 64 * K);
    ck_assert_int_eq(bdrv_disable_dirty_bitmap(create("off", 128 * K), NULL),
                     0);
    bdrv_set_dirty_bitmap(find("off"), 0, 1);
    ck_assert_ptr_nonnull(bdrv_create_dirty_bitmap(bs, 0, "lost", NULL));
    fill(blk, 64 * K, 65 * K, 1);
    expect_bits("on", "-xx-------------");
    cycle();
    expect_states("on:EP off:P");
    expect_bits("on", "-xx-------------");
    expect_bits("off", "x-------");
    expect_stored("on:A off:");
    /* It tracks again, and only what is enabled does. */
    fill(blk, 1023 * K, K, 1);
    cycle();
    expect_bits("on", "-xx------------x");
    expect_bits("off", "x-------");
    close_it();
}
END_TEST

START_TEST(r111_in_use_is_on_disk_before_the_first_change_and_gone_at_close)
{
    make();
    open_it();
    create("b", 64 * K);
    create("off", 64 * K);
    ck_assert_int_eq(bdrv_disable_dirty_bitmap(find("off"), NULL), 0);
    cycle();
    expect_stored("b:A off:");
    fill(blk, 0, 512, 1);
    expect_stored("b:IA off:I");
    cycle();
    expect_stored("b:A off:");
    expect_states("b:EP off:P");
    close_it();
}
END_TEST

START_TEST(r105_after_a_crash_a_bitmap_is_inconsistent_and_can_be_removed)
{
    GError *error = NULL;

    make();
    open_it();
    create("b", 64 * K);
    cycle();
    fill(blk, 0, 512, 1);
    crash();
    expect_states("b:PX");
    expect_stored("b:IAX");
    ck_assert_int_eq(bdrv_dirty_bitmap_check(find("b"), BDRV_BITMAP_DEFAULT,
                                             &error), -EINVAL);
    expect_error(&error, EINVAL, "inconsistent");
    ck_assert_int_eq(bdrv_enable_dirty_bitmap(find("b"), NULL), -EINVAL);
    ck_assert_int_eq(bdrv_clear_dirty_bitmap(find("b"), NULL), -EINVAL);
    ck_assert_ptr_null(bdrv_create_dirty_bitmap(bs, 0, "b", &error));
    expect_error(&error, EEXIST, "has a bitmap");
    /* It stays as it is over a close, and writes go on. */
    fill(blk, 0, 512, 2);
    cycle();
    expect_states("b:PX");
    ck_assert_int_eq(bdrv_remove_dirty_bitmap(find("b"), &error), 0);
    expect_states("");
    expect_stored("");
    create("b", 64 * K);
    cycle();
    expect_states("b:EP");
    close_it();
}
END_TEST

START_TEST(r111_a_crash_before_the_first_write_leaves_bitmaps_good)
{
    make();
    open_it();
    create("b", 64 * K);
    fill(blk, 0, 512, 1);
    cycle();
    expect_fill(blk, 0, 512, 1);
    crash();
    expect_states("b:EP");
    expect_bits("b", "x---------------");
    close_it();
}
END_TEST

START_TEST(r111_whenever_the_file_fails_a_good_bitmap_knows_all_changes)
{
    for (unsigned from = 1; from < 40; from++) {
        BdrvDirtyBitmap *b;

        make();
        open_it();
        create("b", 64 * K);
        cycle();
        faulty_set(FAULTY_CHANGES, from, G_MAXUINT);
        {
            g_autofree char *buf = g_malloc0(64 * K);

            memset(buf, 1, 64 * K);
            blk_pwrite(blk, 128 * K, 64 * K, buf, 0);
            blk_pwrite(blk, 512 * K, 64 * K, buf, 0);
            blk_flush(blk);
        }
        close_it();
        open_it();
        b = find("b");
        if (!bdrv_dirty_bitmap_inconsistent(b)) {
            /* What the disk may have, the bitmap has. */
            for (int64_t at = 0; at < MIB; at += 64 * K) {
                g_autofree char *buf = g_malloc(64 * K);

                ck_assert_int_eq(blk_pread(blk, at, 64 * K, buf, 0), 0);
                ck_assert(block_buffer_is_zero(buf, 64 * K) ||
                          bdrv_dirty_bitmap_get(b, at));
            }
        }
        close_it();
    }
}
END_TEST

START_TEST(r111_a_raw_data_file_is_not_zeroed_before_bitmaps_are_in_use)
{
    make_with("size=1M,data_file=d,data_file_raw=on");
    for (int discard = 0; discard < 2; discard++) {
        open_with(",discard=unmap");
        if (!discard) {
            create("b", 64 * K);
        }
        fill(blk, 0, 64 * K, 1);
        cycle();
        close_it();
        open_with(",discard=unmap");
        expect_stored("b:A");
        faulty_set(FAULTY_CHANGES, 1, G_MAXUINT);
        ck_assert_int_eq(discard ? blk_pdiscard(blk, 0, 64 * K)
                                 : blk_pwrite_zeroes(blk, 0, 64 * K, 0),
                         -EIO);
        faulty_clear();
        expect_stored("b:A");
        expect_fill(blk, 0, 64 * K, 1);
        close_it();
    }
}
END_TEST

START_TEST(r111_a_crash_after_a_repair_leaves_no_bitmap_that_misses_it)
{
    BdrvCheck how = { .flags = BDRV_CHECK_FIX_LEAKS |
                               BDRV_CHECK_FIX_ERRORS };
    BdrvCheckResult res;

    make();
    open_it();
    fill(blk, 0, 64 * K, 1);
    create("b", 64 * K);
    close_it();
    poke64(read64(read64(QCOW2_H_L1_OFFSET)) & QCOW2_OFFSET_MASK,
           QCOW2_OFLAG_COPIED | INT64_C(1) << 55);
    open_it();
    expect_states("b:EP");
    ck_assert_int_eq(bdrv_check(bs, &how, &res, NULL), 0);
    ck_assert_int_gt(res.corruptions_fixed, 0);
    expect_bits("b", "xxxxxxxxxxxxxxxx");
    crash();
    expect_states("b:PX");
    ck_assert_int_eq(bdrv_remove_dirty_bitmap(find("b"), NULL), 0);
    create("c", 64 * K);
    cycle();
    ck_assert_int_eq(bdrv_check(bs, &how, &res, NULL), 0);
    cycle();
    expect_states("c:EP");
    expect_stored("c:A");
    expect_bits("c", "----------------");
    close_it();
}
END_TEST

/* --- read-only ------------------------------------------------------------ */

START_TEST(a_read_only_node_has_read_only_bitmaps)
{
    GError *error = NULL;

    make();
    open_it();
    create("b", 64 * K);
    fill(blk, 0, 512, 1);
    close_it();
    open_with(",read-only=on");
    expect_states("b:EPR");
    expect_bits("b", "x---------------");
    ck_assert_int_eq(bdrv_clear_dirty_bitmap(find("b"), &error), -EACCES);
    expect_error(&error, EACCES, "read-only");
    ck_assert_int_eq(bdrv_remove_dirty_bitmap(find("b"), &error), -EACCES);
    expect_error(&error, EACCES, "read-only");
    ck_assert_int_eq(bdrv_can_store_new_dirty_bitmap(bs, "c", 64 * K, &error),
                     -EACCES);
    expect_error(&error, EACCES, "read-only");
    ck_assert(!bdrv_dirty_bitmap_busy(find("b")));
    close_it();
}
END_TEST

/* --- removal, refusal ----------------------------------------------------- */

static int coroutine_fn remove_entry(void *opaque)
{
    return bdrv_co_remove_dirty_bitmap(opaque, NULL);
}

START_TEST(removal_removes_it_from_the_image_whether_stored_or_not)
{
    make();
    open_it();
    create("stored", 64 * K);
    cycle();
    create("new", 64 * K);
    ck_assert_int_eq(in_co(remove_entry, find("new")), 0);
    ck_assert_int_eq(bdrv_stored_bitmap_remove(bs, "stored", NULL), 0);
    expect_states("");
    cycle();
    expect_states("");
    expect_stored("");
    close_it();
}
END_TEST

START_TEST(r110_a_busy_bitmap_is_not_removed_and_a_failed_removal_keeps_it)
{
    GError *error = NULL;

    make();
    open_it();
    create("b", 64 * K);
    fill(blk, 0, 512, 1);
    cycle();
    bdrv_dirty_bitmap_set_busy(find("b"), true);
    ck_assert_int_eq(bdrv_remove_dirty_bitmap(find("b"), &error), -EBUSY);
    expect_error(&error, EBUSY, "in use by another operation");
    bdrv_dirty_bitmap_set_busy(find("b"), false);
    faulty_set(FAULTY_CHANGES, 1, 1);
    ck_assert_int_lt(bdrv_remove_dirty_bitmap(find("b"), &error), 0);
    g_clear_error(&error);
    expect_bits("b", "x---------------");
    cycle();
    expect_bits("b", "x---------------");
    close_it();
}
END_TEST

START_TEST(formats_that_cannot_store_refuse_clearly)
{
    GError *error = NULL;
    BdrvDirtyBitmap *bitmap;

    make_with("size=1M,compat=0.10");
    open_it();
    ck_assert_int_eq(bdrv_can_store_new_dirty_bitmap(bs, "b", 64 * K, &error),
                     -ENOTSUP);
    expect_error(&error, ENOTSUP, "version 2");
    close_it();
    blk = file_backend("null-co,size=1M");
    bs = blk_bs(blk);
    ck_assert_int_eq(bdrv_can_store_new_dirty_bitmap(bs, "b", 64 * K, &error),
                     -ENOTSUP);
    expect_error(&error, ENOTSUP, "'null-co' cannot store");
    bitmap = bdrv_create_dirty_bitmap(bs, 0, "b", NULL);
    ck_assert_int_eq(bdrv_dirty_bitmap_set_persistence(bitmap, true, &error),
                     -ENOTSUP);
    expect_error(&error, ENOTSUP, "'null-co' cannot store");
    ck_assert(!bdrv_dirty_bitmap_persistent(bitmap));
    close_it();
}
END_TEST

START_TEST(r110_planned_bitmaps_count_like_stored_ones)
{
    GError *error = NULL;

    /* 256 MiB of bits each: two are the limit. */
    make_with("size=1T");
    open_it();
    create("one", 512);
    create("two", 512);
    ck_assert_int_eq(bdrv_can_store_new_dirty_bitmap(bs, "three", 64 * K,
                                                     &error), -EFBIG);
    expect_error(&error, EFBIG, "larger granularity");
    ck_assert_int_eq(bdrv_remove_dirty_bitmap(find("one"), NULL), 0);
    ck_assert_int_eq(bdrv_can_store_new_dirty_bitmap(bs, "three", 64 * K,
                                                     NULL), 0);
    ck_assert_int_eq(bdrv_can_store_new_dirty_bitmap(bs, "two", 64 * K,
                                                     &error), -EEXIST);
    expect_error(&error, EEXIST, "'two'");
    ck_assert_int_eq(bdrv_remove_dirty_bitmap(find("two"), NULL), 0);
    close_it();
}
END_TEST

START_TEST(a_stored_bitmap_cannot_become_transient)
{
    GError *error = NULL;

    make();
    open_it();
    ck_assert_int_eq(
        bdrv_dirty_bitmap_set_persistence(create("b", 64 * K), false, NULL),
        0);
    cycle();
    expect_states("");
    create("b", 64 * K);
    cycle();
    ck_assert_int_eq(bdrv_dirty_bitmap_set_persistence(find("b"), false,
                                                       &error), -EBUSY);
    expect_error(&error, EBUSY, "remove it");
    close_it();
}
END_TEST

/* --- the length, snapshots ------------------------------------------------ */

START_TEST(r110_an_image_with_bitmaps_is_resized_both_ways)
{
    make();
    open_it();
    create("b", 64 * K);
    create("off", 64 * K);
    ck_assert_int_eq(bdrv_disable_dirty_bitmap(find("off"), NULL), 0);
    fill(blk, 0, 512, 1);
    cycle();
    ck_assert_int_eq(resize(MIB + 128 * K), 0);
    expect_bits("b", "x---------------xx");
    cycle();
    expect_bits("b", "x---------------xx");
    expect_bits("off", "------------------");
    ck_assert_int_eq(resize(128 * K), 0);
    cycle();
    expect_bits("b", "x-");
    /* Far enough that the tables have another length. */
    ck_assert_int_eq(bdrv_remove_dirty_bitmap(find("off"), NULL), 0);
    create("fine", 512);
    cycle();
    ck_assert_int_eq(resize(600 * MIB), 0);
    cycle();
    ck_assert_int_eq(bdrv_get_dirty_count(find("fine")),
                     600 * MIB - 128 * K);
    ck_assert_int_eq(resize(MIB), 0);
    cycle();
    expect_states("b:EP fine:EP");
    close_it();
}
END_TEST

/* Where the first entry of the directory says that its table is. */
static uint64_t first_table(void)
{
    const Qcow2 *q = state_of(blk);

    return read64(q->header.bitmap_dir_offset);
}

/* qemu-img opens no such image: it has no bitmaps without a length. */
START_TEST(a_disk_of_no_length_has_bitmaps_without_a_table)
{
    make();
    open_it();
    create("b", 64 * K);
    fill(blk, 0, 512, 1);
    close_it();
    open_it();
    ck_assert_uint_ne(first_table(), 0);
    ck_assert_int_eq(resize(0), 0);
    close_it();
    open_it();
    ck_assert_uint_eq(first_table(), 0);
    expect_states("b:EP");
    expect_bits("b", "");
    ck_assert_int_eq(resize(128 * K), 0);
    cycle();
    expect_bits("b", "xx");
    close_it();
}
END_TEST

START_TEST(a_crash_after_a_resize_leaves_no_bitmap_that_seems_good)
{
    make();
    open_it();
    create("b", 64 * K);
    cycle();
    ck_assert_int_eq(resize(2 * MIB), 0);
    crash();
    expect_states("b:PX");
    ck_assert_int_eq(resize(3 * MIB), 0);
    ck_assert_int_eq(bdrv_remove_dirty_bitmap(find("b"), NULL), 0);
    cycle();
    close_it();
}
END_TEST

START_TEST(snapshots_leave_bitmaps_and_return_to_one_makes_all_dirty)
{
    BdrvSnapshotInfo info = { .name = (char *)"s" };

    make();
    open_it();
    create("b", 64 * K);
    create("off", 64 * K);
    ck_assert_int_eq(bdrv_disable_dirty_bitmap(find("off"), NULL), 0);
    fill(blk, 0, 512, 1);
    ck_assert_int_eq(bdrv_snapshot_create(bs, &info, NULL), 0);
    expect_bits("b", "x---------------");
    ck_assert_int_eq(resize(MIB + 64 * K), 0);
    ck_assert_int_eq(bdrv_clear_dirty_bitmap(find("b"), NULL), 0);
    ck_assert_int_eq(bdrv_snapshot_goto(bs, "s", NULL), 0);
    expect_bits("b", "xxxxxxxxxxxxxxxx");
    expect_bits("off", "----------------");
    cycle();
    expect_bits("b", "xxxxxxxxxxxxxxxx");
    ck_assert_int_eq(bdrv_clear_dirty_bitmap(find("b"), NULL), 0);
    ck_assert_int_eq(bdrv_snapshot_delete(bs, NULL, "s", NULL), 0);
    expect_bits("b", "----------------");
    cycle();
    expect_bits("b", "----------------");
    close_it();
}
END_TEST

START_TEST(a_view_of_a_snapshot_has_no_bitmaps)
{
    BdrvSnapshotInfo info = { .name = (char *)"s" };

    make();
    open_it();
    create("b", 64 * K);
    ck_assert_int_eq(bdrv_snapshot_create(bs, &info, NULL), 0);
    close_it();
    open_with(",read-only=on,snapshot=s");
    expect_states("");
    close_it();
    open_it();
    expect_states("b:EP");
    close_it();
}
END_TEST

/* --- changes in memory ---------------------------------------------------- */

START_TEST(a_merge_is_stored_without_a_write_and_safe_from_a_removal)
{
    make();
    open_it();
    create("a", 64 * K);
    create("b", 128 * K);
    fill(blk, 0, 512, 1);
    ck_assert_int_eq(bdrv_clear_dirty_bitmap(find("b"), NULL), 0);
    cycle();
    ck_assert_int_eq(bdrv_merge_dirty_bitmap(find("b"), find("a"), NULL), 0);
    cycle();
    expect_bits("b", "x-------");
    /* The source goes; a crash must not leave a target that seems good. */
    bdrv_set_dirty_bitmap(find("a"), 512 * K, 1);
    ck_assert_int_eq(bdrv_merge_dirty_bitmap(find("b"), find("a"), NULL), 0);
    ck_assert_int_eq(bdrv_stored_bitmap_remove(bs, "a", NULL), 0);
    crash();
    expect_states("b:PX");
    close_it();
}
END_TEST

START_TEST(a_frozen_bitmap_is_stored_with_what_its_successor_has)
{
    make();
    open_it();
    create("b", 64 * K);
    fill(blk, 0, 512, 1);
    ck_assert_int_eq(bdrv_dirty_bitmap_create_successor(find("b"), NULL), 0);
    fill(blk, 64 * K, 512, 1);
    cycle();
    expect_bits("b", "xx--------------");
    ck_assert_int_eq(bdrv_dirty_bitmap_create_successor(find("b"), NULL), 0);
    fill(blk, 128 * K, 512, 1);
    ck_assert_ptr_nonnull(bdrv_dirty_bitmap_abdicate(find("b"), NULL));
    cycle();
    expect_bits("b", "--x-------------");
    close_it();
}
END_TEST

/* --- hostile -------------------------------------------------------------- */

START_TEST(r20_bitmaps_beyond_the_memory_limit_are_listed_but_not_loaded)
{
    make_with("size=1T");
    open_it();
    ck_assert_int_eq(bdrv_stored_bitmap_add(bs, "a", 512, NULL), 0);
    ck_assert_int_eq(bdrv_stored_bitmap_add(bs, "b", 512, NULL), 0);
    ck_assert_int_eq(bdrv_stored_bitmap_add(bs, "c", 512, NULL), 0);
    cycle();
    expect_states("a:EP b:EP c:PX");
    /* Without a write it is as good as before. */
    ck_assert_int_eq(bdrv_remove_dirty_bitmap(find("a"), NULL), 0);
    cycle();
    expect_states("b:EP c:EP");
    close_it();
}
END_TEST

START_TEST(r20_a_chain_of_images_takes_no_more_than_the_process_may)
{
    BlockDriverState *nodes[5];
    unsigned lost = 0;

    make_with("size=1T");
    open_it();
    ck_assert_int_eq(bdrv_stored_bitmap_add(bs, "a", 512, NULL), 0);
    ck_assert_int_eq(bdrv_stored_bitmap_add(bs, "b", 512, NULL), 0);
    close_it();
    /* 512 MiB of bits each. */
    for (size_t i = 0; i < G_N_ELEMENTS(nodes); i++) {
        nodes[i] = file_open_ok("qcow2,read-only=on,file.driver=file,"
                                "file.filename=%s/t.qcow2");
        bs = nodes[i];
        lost += bdrv_dirty_bitmap_inconsistent(find("a"));
        lost += bdrv_dirty_bitmap_inconsistent(find("b"));
    }
    /* There are tables, too, and bits about bits. */
    ck_assert_uint_eq(lost, 7);
    for (size_t i = 0; i < G_N_ELEMENTS(nodes); i++) {
        bdrv_unref(nodes[i]);
    }
    open_it();
    expect_states("a:EP b:EP");
    close_it();
}
END_TEST

/* --- QEMU ----------------------------------------------------------------- */

START_TEST(qemu_goes_on_with_our_bitmaps_and_we_with_its)
{
    if (!have_qemu()) {
        return;
    }
    make();
    open_it();
    create("b", 64 * K);
    fill(blk, 0, 512, 1);
    close_it();
    expect_clean();
    qemu_io("-c 'write 64k 1k'");
    ck_assert_int_eq(run("cd %s && qemu-img bitmap --add -g 131072 t.qcow2 q"),
                     0);
    open_it();
    expect_states("b:EP q:EP");
    expect_bits("b", "xx--------------");
    fill(blk, 512 * K, 512, 1);
    close_it();
    expect_clean();
    /* q := q + b, by QEMU; then it is read by us. */
    ck_assert_int_eq(run("cd %s && qemu-img bitmap --merge b t.qcow2 q && "
                         "qemu-img bitmap --disable t.qcow2 b"), 0);
    open_it();
    expect_states("b:P q:EP");
    expect_bits("q", "x---x---");
    expect_bits("b", "xx------x-------");
    close_it();
}
END_TEST

START_TEST(r112_an_image_in_use_by_us_is_inconsistent_for_others)
{
    if (!have_qemu()) {
        return;
    }
    make();
    open_it();
    create("b", 64 * K);
    cycle();
    fill(blk, 0, 512, 1);
    ck_assert_int_eq(run("qemu-img info -U %s/t.qcow2 | "
                         "grep -q 'in-use'"), 0);
    close_it();
    ck_assert_int_ne(run("qemu-img info -U %s/t.qcow2 | "
                         "grep -q 'in-use'"), 0);
}
END_TEST

static void add_tests(TCase *tcase)
{
    PROMISE(tcase, a_persistent_bitmap_survives_close_with_bits_and_state);
    PROMISE(tcase,
            r111_in_use_is_on_disk_before_the_first_change_and_gone_at_close);
    PROMISE(tcase,
            r105_after_a_crash_a_bitmap_is_inconsistent_and_can_be_removed);
    PROMISE(tcase, r111_a_crash_before_the_first_write_leaves_bitmaps_good);
    PROMISE(tcase,
            r111_whenever_the_file_fails_a_good_bitmap_knows_all_changes);
    PROMISE(tcase,
            r111_a_raw_data_file_is_not_zeroed_before_bitmaps_are_in_use);
    PROMISE(tcase, r111_a_crash_after_a_repair_leaves_no_bitmap_that_misses_it);
    PROMISE(tcase, a_read_only_node_has_read_only_bitmaps);
    PROMISE(tcase, removal_removes_it_from_the_image_whether_stored_or_not);
    PROMISE(tcase,
            r110_a_busy_bitmap_is_not_removed_and_a_failed_removal_keeps_it);
    PROMISE(tcase, formats_that_cannot_store_refuse_clearly);
    PROMISE(tcase, r110_planned_bitmaps_count_like_stored_ones);
    PROMISE(tcase, a_stored_bitmap_cannot_become_transient);
    PROMISE(tcase, r110_an_image_with_bitmaps_is_resized_both_ways);
    PROMISE(tcase, a_disk_of_no_length_has_bitmaps_without_a_table);
    PROMISE(tcase, a_crash_after_a_resize_leaves_no_bitmap_that_seems_good);
    PROMISE(tcase, snapshots_leave_bitmaps_and_return_to_one_makes_all_dirty);
    PROMISE(tcase, a_view_of_a_snapshot_has_no_bitmaps);
    PROMISE(tcase, a_merge_is_stored_without_a_write_and_safe_from_a_removal);
    PROMISE(tcase, a_frozen_bitmap_is_stored_with_what_its_successor_has);
    PROMISE(tcase,
            r20_bitmaps_beyond_the_memory_limit_are_listed_but_not_loaded);
    PROMISE(tcase,
            r20_a_chain_of_images_takes_no_more_than_the_process_may);
    PROMISE(tcase, qemu_goes_on_with_our_bitmaps_and_we_with_its);
    PROMISE(tcase, r112_an_image_in_use_by_us_is_inconsistent_for_others);
}

int main(void)
{
    return qcow2_suite("dirty-bitmap-persistent", 120, add_tests);
}
