/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Stored bitmaps of a node that becomes read-only, and back.
 */
#include "stored-bitmap-fixture.h"

#include "block/graph/table-memory.h"

START_TEST(r110_reopen_read_only_stores_and_back_tracks_again)
{
    make();
    open_it();
    close_it();
    blk = NULL;
    bs = file_open_ok("qcow2,node-name=q,file.driver=file,"
                      "file.filename=%s/t.qcow2");
    blk = backend_ok("g", bs, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                     BLK_PERM_ALL);
    create("b", 64 * K);
    fill(blk, 0, 512, 1);
    blk_unref(blk);
    reopen_ok(bs, "read-only=on");
    expect_states("b:EPR");
    expect_stored("b:A");
    if (have_qemu()) {
        ck_assert_int_eq(run("qemu-img info -U %s/t.qcow2 | "
                             "grep -q 'name: b'"), 0);
    }
    reopen_ok(bs, "read-only=off");
    expect_states("b:EP");
    blk = backend_ok("g", bs, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                     BLK_PERM_ALL);
    fill(blk, 64 * K, 512, 1);
    expect_stored("b:IA");
    expect_bits("b", "xx--------------");
    bdrv_unref(bs);
    cycle();
    expect_bits("b", "xx--------------");
    close_it();
}
END_TEST

START_TEST(a_reopen_that_cannot_store_is_refused)
{
    g_autoptr(GError) error = NULL;
    BlockDriverState *node;

    make();
    open_it();
    create("b", 64 * K);
    fill(blk, 0, 512, 1);
    node = bdrv_ref(bs);
    blk_unref(blk);
    faulty_set(FAULTY_CHANGES, 1, G_MAXUINT);
    bs = node;
    ck_assert_int_lt(try_reopen(bs, "read-only=on", &error), 0);
    ck_assert_ptr_nonnull(error);
    faulty_clear();
    ck_assert(!bdrv_is_read_only(bs));
    expect_states("b:EP");
    expect_bits("b", "x---------------");
    bdrv_unref(bs);
    open_it();
    expect_bits("b", "x---------------");
    close_it();
}
END_TEST

/* A node whose reopen does something to the bitmap "b" of @bs; then it fails,
 * if it is to. */
static void (*at_reopen)(void);
static int reopen_result;

static int coroutine_fn hook_reopen_prepare(BdrvReopenState *state,
                                            GError **errp)
{
    at_reopen();
    return reopen_result < 0 ? block_error(errp, EIO, "made to fail") : 0;
}

static void register_hook_driver(void)
{
    static const BlockDriver driver = {
        .struct_size = sizeof(BlockDriver),
        .name = "hook",
        .kind = BLOCK_DRIVER_FILTER,
        .options = filter_options,
        .open = pass_open,
        .reopen_prepare = hook_reopen_prepare,
    };

    register_test_driver(&driver);
}

/* Reopen @bs read-only, and a node "hook" after it. */
static int reopen_with_hook(void (*action)(void), int result)
{
    BlockDriverState *hook = open_ok("hook,file.driver=null-co,file.size=1M");
    BdrvReopenQueue *queue = bdrv_reopen_queue_new(graph);
    int ret;

    at_reopen = action;
    reopen_result = result;
    bdrv_reopen_queue_add(queue, bs, opts("qcow2,read-only=on"), true);
    bdrv_reopen_queue_add(queue, hook, opts("hook"), true);
    ret = bdrv_reopen_multiple(queue, NULL);
    bdrv_unref(hook);
    return ret;
}

/* What nobody may do while the bitmap is being stored. */
static void try_all_changes(void)
{
    BdrvDirtyBitmap *other = bdrv_find_dirty_bitmap(bs, "other");
    GError *error = NULL;

    ck_assert_int_eq(bdrv_merge_dirty_bitmap(find("b"), other, &error),
                     -EBUSY);
    expect_error(&error, EBUSY, "in use");
    ck_assert_int_eq(bdrv_clear_dirty_bitmap(find("b"), NULL), -EACCES);
    ck_assert_int_eq(bdrv_disable_dirty_bitmap(find("b"), NULL), -EACCES);
    ck_assert(bdrv_dirty_bitmap_busy(find("b"))); /* so it is not removed */
    ck_assert_int_eq(bdrv_dirty_bitmap_set_persistence(other, true, &error),
                     -EACCES);
    expect_error(&error, EACCES, "becomes read-only");
}

static BlockDriverState *open_with_other(void)
{
    BlockDriverState *node;

    make();
    open_it();
    create("b", 64 * K);
    bdrv_set_dirty_bitmap(bdrv_create_dirty_bitmap(bs, 64 * K, "other", NULL),
                          512 * K, 1);
    node = bdrv_ref(bs);
    blk_unref(blk);
    blk = NULL;
    return node;
}

START_TEST(no_change_of_a_bitmap_gets_lost_while_its_node_becomes_read_only)
{
    BlockDriverState *node = open_with_other();

    ck_assert_int_eq(reopen_with_hook(try_all_changes, 0), 0);
    expect_states("b:EPR other:E");
    ck_assert(!bdrv_dirty_bitmap_busy(find("b")));
    reopen_ok(node, "read-only=off");
    ck_assert_int_eq(bdrv_merge_dirty_bitmap(find("b"), find("other"), NULL),
                     0);
    bdrv_unref(node);
    open_it();
    expect_bits("b", "--------x-------");
    close_it();
}
END_TEST

START_TEST(a_reopen_that_fails_gives_bitmaps_back)
{
    BlockDriverState *node = open_with_other();

    ck_assert_int_eq(reopen_with_hook(try_all_changes, -EIO), -EIO);
    expect_states("b:EP other:E");
    ck_assert(!bdrv_dirty_bitmap_busy(find("b")));
    ck_assert_int_eq(bdrv_merge_dirty_bitmap(find("b"), find("other"), NULL),
                     0);
    bdrv_unref(node);
    open_it();
    expect_bits("b", "--------x-------");
    close_it();
}
END_TEST

START_TEST(a_node_whose_bitmap_is_busy_does_not_become_read_only)
{
    BlockDriverState *node = open_with_other();
    GError *error = NULL;

    bdrv_dirty_bitmap_set_busy(find("b"), true);
    ck_assert_int_eq(try_reopen(node, "read-only=on", &error), -EBUSY);
    expect_error(&error, EBUSY, "bitmap 'b' is in use");
    bdrv_set_dirty_bitmap(find("b"), 0, 1); /* its owner may */
    bdrv_dirty_bitmap_set_busy(find("b"), false);
    reopen_ok(node, "read-only=on");
    bdrv_unref(node);
    open_it();
    expect_bits("b", "x---------------");
    close_it();
}
END_TEST

/* Not loaded for want of memory, of all images together; good on the disk. */
START_TEST(a_bitmap_that_had_no_room_is_not_spoilt_by_a_reopen)
{
    g_autoptr(GError) error = NULL;
    int64_t memory;

    make();
    open_it();
    create("b", 64 * K);
    fill(blk, 0, 512, 1);
    cycle();
    memory = table_memory_of_process();
    close_it();
    table_memory_set_max(0, memory - 1000);
    bs = file_open_ok("qcow2,node-name=q,read-only=on,file.driver=file,"
                      "file.filename=%s/t.qcow2");
    table_memory_set_max(0, 0);
    ck_assert(bdrv_dirty_bitmap_inconsistent(find("b")));
    expect_stored("b:A");
    ck_assert_int_eq(try_reopen(bs, "read-only=off", &error), -EFBIG);
    expect_stored("b:A");
    bdrv_unref(bs);
    open_it();
    expect_bits("b", "x---------------");
    close_it();
}
END_TEST

static void add_tests(TCase *tcase)
{
    PROMISE(tcase, r110_reopen_read_only_stores_and_back_tracks_again);
    PROMISE(tcase, a_reopen_that_cannot_store_is_refused);
    PROMISE(tcase,
            no_change_of_a_bitmap_gets_lost_while_its_node_becomes_read_only);
    PROMISE(tcase, a_bitmap_that_had_no_room_is_not_spoilt_by_a_reopen);
    PROMISE(tcase, a_reopen_that_fails_gives_bitmaps_back);
    PROMISE(tcase, a_node_whose_bitmap_is_busy_does_not_become_read_only);
}

int main(void)
{
    register_hook_driver();
    return qcow2_suite("dirty-bitmap-reopen", 60, add_tests);
}
