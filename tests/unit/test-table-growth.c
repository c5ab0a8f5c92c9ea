/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Tables that grow while an image is open: counted, refused, given back.
 */
#include "image-fixture.h"

#include "block/graph/table-memory.h"

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
    ck_assert_int_eq(table_memory_process_max(), 1024 * MIB);
}

static int64_t memory_of(BlockBackend *blk)
{
    return table_memory_of_node(bdrv_table_account(blk_bs(blk)));
}

/* The node may have @spare more than it has. */
static void leave(BlockBackend *blk, int64_t spare)
{
    TableAccount *account = bdrv_table_account(blk_bs(blk));
    int64_t stated;

    table_memory_set_max(1, 0);
    stated = table_memory_node_max(account) - 1;
    table_memory_set_max(MAX(memory_of(blk) + spare - stated, 1), 0);
}

static int resize(BlockBackend *blk, int64_t size, GError **errp)
{
    BlockTruncate how = { .offset = size };

    return blk_truncate(blk, &how, errp);
}

static int amend(BlockBackend *blk, const char *text, GError **errp)
{
    return bdrv_amend(blk_bs(blk), opts(text), errp);
}

START_TEST(a_disk_grows_as_far_as_its_l1_table_may)
{
    GError *error = NULL;
    BlockBackend *blk;
    int64_t before;

    make_image_ok("i", "size=1M,cluster_size=512");
    blk = image_backend("i", NULL);
    fill(blk, 0, 4096, 0x11);
    ck_assert_int_eq(blk_flush(blk), 0);
    before = memory_of(blk);
    leave(blk, MIB);
    /* 16 MiB of L1 table. */
    ck_assert_int_eq(resize(blk, INT64_C(64) << 30, &error), -EFBIG);
    expect_error(&error, EFBIG, "need more than");
    ck_assert_int_eq(blk_getlength(blk), MIB);
    ck_assert_int_eq(memory_of(blk), before);
    fill(blk, 4096, 4096, 0x22);
    table_memory_set_max(0, 0);
    ck_assert_int_eq(resize(blk, INT64_C(64) << 30, NULL), 0);
    ck_assert_int_ge(memory_of(blk), before + 16 * MIB);
    ck_assert_int_le(memory_of(blk), before + 17 * MIB);
    expect_fill(blk, 0, 4096, 0x11);
    expect_fill(blk, 4096, 4096, 0x22);
    check_sound(blk);
    blk_unref(blk);
}
END_TEST

START_TEST(snapshots_are_refused_without_room_for_their_copies)
{
    GError *error = NULL;
    BdrvSnapshotInfo info = { .name = (char *)"two", .icount = UINT64_MAX };
    BlockBackend *blk;
    int64_t before;

    /* An L1 table of 256 KiB. */
    make_image_ok("i", "size=1G,cluster_size=512");
    blk = image_backend("i", NULL);
    fill(blk, 0, 4096, 0x11);
    snapshot_ok(blk_bs(blk), "one");
    fill(blk, 0, 4096, 0x22);
    ck_assert_int_eq(blk_flush(blk), 0);
    before = memory_of(blk);
    leave(blk, 100 * 1024);
    ck_assert_int_eq(bdrv_snapshot_create(blk_bs(blk), &info, &error),
                     -EFBIG);
    expect_error(&error, EFBIG, "need more than");
    ck_assert_int_eq(bdrv_snapshot_goto(blk_bs(blk), "one", &error), -EFBIG);
    expect_error(&error, EFBIG, "need more than");
    ck_assert_int_eq(bdrv_snapshot_delete(blk_bs(blk), NULL, "one", &error),
                     -EFBIG);
    expect_error(&error, EFBIG, "need more than");
    ck_assert_int_eq(memory_of(blk), before);
    expect_fill(blk, 0, 4096, 0x22);
    table_memory_set_max(0, 0);
    check_sound(blk);
    for (int i = 0; i < 5; i++) { /* no table more each time */
        ck_assert_int_eq(bdrv_snapshot_goto(blk_bs(blk), "one", NULL), 0);
        expect_fill(blk, 0, 4096, 0x11);
        fill(blk, 0, 4096, 0x33);
        ck_assert_int_le(memory_of(blk), before + 64 * 1024);
    }
    ck_assert_int_eq(bdrv_snapshot_create(blk_bs(blk), &info, NULL), 0);
    ck_assert_int_eq(bdrv_snapshot_delete(blk_bs(blk), NULL, "one", NULL), 0);
    expect_fill(blk, 0, 4096, 0x33);
    check_sound(blk);
    blk_unref(blk);
}
END_TEST

/* The table of another size is put in the place of the present one if that has
 * the room, with what follows it empty. */
START_TEST(snapshots_of_other_sizes_are_applied_in_turn)
{
    BlockBackend *blk;

    make_image_ok("i", "size=1M,cluster_size=512");
    blk = image_backend("i", NULL);
    fill(blk, 0, MIB, 0x11);
    snapshot_ok(blk_bs(blk), "small");
    ck_assert_int_eq(resize(blk, 64 * MIB, NULL), 0);
    fill(blk, 60 * MIB, MIB, 0x22);
    snapshot_ok(blk_bs(blk), "large");
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(bdrv_snapshot_goto(blk_bs(blk), "small", NULL), 0);
        ck_assert_int_eq(blk_getlength(blk), MIB);
        expect_fill(blk, 0, MIB, 0x11);
        /* Growth within what there is memory for writes a table all the
         * same. */
        ck_assert_int_eq(resize(blk, 32 * MIB, NULL), 0);
        expect_fill(blk, MIB, 31 * MIB, 0);
        fill(blk, 31 * MIB, MIB, 0x44);
        check_sound(blk);
        ck_assert_int_eq(bdrv_snapshot_goto(blk_bs(blk), "large", NULL), 0);
        expect_fill(blk, 60 * MIB, MIB, 0x22);
        expect_fill(blk, 31 * MIB, MIB, 0);
        fill(blk, 40 * MIB, MIB, 0x55);
        check_sound(blk);
    }
    blk_unref(blk);
    blk = image_backend("i", NULL);
    expect_fill(blk, 40 * MIB, MIB, 0x55);
    check_sound(blk);
    blk_unref(blk);
    ck_assert(qemu_img_ok("check -q -f qcow2", "i"));
}
END_TEST

START_TEST(the_refcount_table_grows_as_far_as_it_may)
{
    BlockBackend *blk;
    int64_t before;
    int ret = 0;

    /* A cluster of table is for 8 MiB of file. */
    make_image_ok("i", "size=32M,cluster_size=512");
    blk = image_backend("i", NULL);
    fill(blk, 0, MIB, 0x11);
    ck_assert_int_eq(blk_flush(blk), 0);
    before = memory_of(blk);
    for (int64_t at = MIB; ret == 0 && at < 32 * MIB; at += MIB) {
        g_autofree char *buf = g_malloc0(MIB);

        leave(blk, 256);
        ret = blk_pwrite(blk, at, MIB, buf, 0);
    }
    ck_assert_int_eq(ret, -EFBIG);
    ck_assert(((Qcow2 *)bdrv_opaque(blk_bs(blk)))->refusal_told);
    ck_assert_int_le(memory_of(blk), before + 256 * 1024);
    expect_fill(blk, 0, MIB, 0x11);
    table_memory_set_max(0, 0);
    fill(blk, 0, 32 * MIB, 0x22);
    check_sound(blk);
    expect_fill(blk, 0, 32 * MIB, 0x22);
    blk_unref(blk);
}
END_TEST

START_TEST(refcounts_of_another_width_are_refused_without_room)
{
    GError *error = NULL;
    BlockBackend *blk;
    int64_t before;

    make_image_ok("i", "size=8M,cluster_size=512");
    blk = image_backend("i", NULL);
    fill(blk, 0, MIB, 0x11);
    ck_assert_int_eq(blk_flush(blk), 0);
    before = memory_of(blk);
    leave(blk, 16);
    ck_assert_int_eq(amend(blk, "refcount_bits=64", &error), -EFBIG);
    expect_error(&error, EFBIG, "need more than");
    ck_assert_int_eq(memory_of(blk), before);
    leave(blk, 512);
    ck_assert_int_eq(amend(blk, "refcount_bits=64", &error), -EFBIG);
    expect_error(&error, EFBIG, "need more than");
    ck_assert_int_eq(memory_of(blk), before);
    fill(blk, MIB, MIB, 0x22);
    table_memory_set_max(0, 0);
    check_sound(blk);
    ck_assert_int_eq(amend(blk, "refcount_bits=64", NULL), 0);
    check_sound(blk);
    expect_fill(blk, MIB, MIB, 0x22);
    blk_unref(blk);
}
END_TEST

/* What a repair loads anew takes the place of what was there. */
START_TEST(repairs_take_no_more_memory_each_time)
{
    BlockBackend *blk;
    int64_t before = 0;

    make_image_ok("i", "size=64M,cluster_size=512");
    blk = image_backend("i", NULL);
    fill(blk, 0, MIB, 0x11);
    snapshot_ok(blk_bs(blk), "one");
    for (int i = 0; i < 4; i++) {
        BdrvCheck how = { .flags = BDRV_CHECK_FIX_LEAKS |
                                   BDRV_CHECK_FIX_ERRORS };
        BdrvCheckResult result;

        ck_assert_int_eq(bdrv_check(blk_bs(blk), &how, &result, NULL), 0);
        ck_assert_int_eq(result.corruptions, 0);
        before = before ? before : memory_of(blk);
        ck_assert_int_eq(memory_of(blk), before);
        expect_fill(blk, 0, MIB, 0x11);
    }
    blk_unref(blk);
}
END_TEST

#define CHAIN 40
#define KIB 1024

/* Caches that could have a MiB each, and are to use 32 KiB or so, have less
 * together. */
START_TEST(a_long_chain_works_with_small_caches)
{
    BlockBackend *blk;

    for (int i = 0; i < CHAIN; i++) {
        g_autofree char *name = g_strdup_printf("i%d", i);
        g_autofree char *backing = g_strdup_printf(
            ",backing_file=i%d,backing_fmt=qcow2", i - 1);
        g_autofree char *options = g_strconcat(
            "size=64M,cluster_size=512", i ? backing : "", NULL);

        make_image_ok(name, options);
        blk = image_backend(name, NULL);
        fill(blk, i * MIB, MIB, i + 1);
        blk_unref(blk);
    }
    table_memory_set_max(0, 2 * MIB);
    blk = image_backend("i39", NULL);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < CHAIN; i++) {
            expect_fill(blk, i * MIB, MIB, i + 1);
        }
        ck_assert_int_ge(table_memory_of_process(), 1500 * KIB);
        ck_assert_int_le(table_memory_of_process(), 2 * MIB);
        fill(blk, 0, MIB, 1);
    }
    check_sound(blk);
    blk_unref(blk);
}
END_TEST

/* Caches give way to the tables of their node. */
START_TEST(tables_get_what_caches_have)
{
    BlockBackend *blk;
    int64_t before;

    make_image_ok("i", "size=128M,cluster_size=512");
    blk = image_backend("i", NULL);
    before = memory_of(blk);
    table_memory_set_max(2 * MIB, 0);
    fill(blk, 0, 16 * MIB, 0x11);
    ck_assert_int_eq(blk_flush(blk), 0);
    ck_assert_int_ge(memory_of(blk), before + 200 * KIB);
    expect_fill(blk, 0, 16 * MIB, 0x11);
    /* 2 times 768 KiB for a moment. */
    ck_assert_int_eq(resize(blk, INT64_C(3) << 30, NULL), 0);
    ck_assert_int_le(memory_of(blk), 2 * MIB);
    expect_fill(blk, 0, 16 * MIB, 0x11);
    fill(blk, 64 * MIB, MIB, 0x22);
    expect_fill(blk, 64 * MIB, MIB, 0x22);
    table_memory_set_max(0, 0);
    check_sound(blk);
    blk_unref(blk);
}
END_TEST

/* What the operator says a cache may have it may have; a number that is no
 * size of anything makes no harm. */
START_TEST(stated_sizes_of_caches_are_on_top)
{
    BlockDriverState *bs;
    TableAccount *account;

    make_image_ok("i", "size=8G,cluster_size=512");
    bs = image_open("i", "qcow2,l2-cache-size=64M");
    account = bdrv_table_account(bs);
    ck_assert_int_ge(table_memory_node_max(account), (256 + 64) * MIB);
    ck_assert_int_eq(table_memory_of_process(), 0);
    bdrv_unref(bs);
    bs = image_open("i", "qcow2,l2-cache-size=1M,refcount-cache-size=1M");
    account = bdrv_table_account(bs);
    ck_assert_int_ge(table_memory_node_max(account), (256 + 2) * MIB);
    ck_assert_int_le(table_memory_node_max(account), (256 + 3) * MIB);
    bdrv_unref(bs);
    ck_assert_int_eq(table_memory_process_max(), 1024 * MIB);
    /* It opens, or there is no memory for it. */
    bs = bdrv_open(graph, image_options("i", "qcow2,refcount-cache-size=4E"),
                   NULL);
    bdrv_unref(bs);
}
END_TEST

START_TEST(many_images_that_grow_give_all_back)
{
    for (int round = 0; round < 2; round++) {
        BlockBackend *blk[8];

        for (int i = 0; i < 8; i++) {
            g_autofree char *name = g_strdup_printf("i%d", i);

            make_image_ok(name, "size=1M,cluster_size=512");
            blk[i] = image_backend(name, NULL);
            fill(blk[i], 0, MIB, i);
            snapshot_ok(blk_bs(blk[i]), "one");
            ck_assert_int_eq(resize(blk[i], (i + 2) * MIB, NULL), 0);
            fill(blk[i], MIB, MIB, 0x77);
            snapshot_ok(blk_bs(blk[i]), "two");
            if (i % 2) {
                ck_assert_int_eq(bdrv_snapshot_goto(blk_bs(blk[i]), "one",
                                                    NULL), 0);
                ck_assert_int_eq(amend(blk[i], "refcount_bits=32", NULL), 0);
            }
            ck_assert_int_eq(bdrv_snapshot_delete(blk_bs(blk[i]), NULL, "two",
                                                  NULL), 0);
        }
        ck_assert_int_gt(table_memory_of_process(), 0);
        for (int i = 0; i < 8; i++) {
            blk_unref(blk[i]);
        }
        ck_assert_int_eq(table_memory_of_process(), 0);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("table-growth");
    TCase *tcase = tcase_create("table-growth");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    PROMISE(tcase, a_disk_grows_as_far_as_its_l1_table_may);
    PROMISE(tcase, snapshots_are_refused_without_room_for_their_copies);
    PROMISE(tcase, snapshots_of_other_sizes_are_applied_in_turn);
    PROMISE(tcase, the_refcount_table_grows_as_far_as_it_may);
    PROMISE(tcase, refcounts_of_another_width_are_refused_without_room);
    PROMISE(tcase, repairs_take_no_more_memory_each_time);
    PROMISE(tcase, a_long_chain_works_with_small_caches);
    PROMISE(tcase, tables_get_what_caches_have);
    PROMISE(tcase, stated_sizes_of_caches_are_on_top);
    PROMISE(tcase, many_images_that_grow_give_all_back);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
