/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the driver "file" remembers of data and holes, and when it forgets.
 */
#include "file-fixture.h"

#include "block/protocols/file/data-extent.h"

#define MIB (1024 * 1024)

static void status_setup(void)
{
    if (g_file_test("/dev/shm", G_FILE_TEST_IS_DIR)) {
        g_setenv("TMPDIR", "/dev/shm", true);
    }
    file_setup();
}

/* --- one extent ----------------------------------------------------------- */

START_TEST(what_is_data_is_known_from_its_start_to_its_end)
{
    DataExtent extent;

    data_extent_init(&extent);
    ck_assert_int_eq(data_extent_end(&extent, 0), 0);
    data_extent_note(&extent, data_extent_changes(&extent), 10, 20);
    ck_assert_int_eq(data_extent_end(&extent, 9), 9);
    ck_assert_int_eq(data_extent_end(&extent, 10), 20);
    ck_assert_int_eq(data_extent_end(&extent, 19), 20);
    ck_assert_int_eq(data_extent_end(&extent, 20), 20);
}
END_TEST

START_TEST(extents_that_touch_are_one_and_others_take_its_place)
{
    DataExtent extent;

    data_extent_init(&extent);
    data_extent_note(&extent, 0, 10, 20);
    data_extent_note(&extent, 0, 5, 10);
    ck_assert_int_eq(data_extent_end(&extent, 5), 20);
    data_extent_note(&extent, 0, 15, 18);   /* told by one who asked before */
    ck_assert_int_eq(data_extent_end(&extent, 5), 20);
    data_extent_note(&extent, 0, 20, 30);
    ck_assert_int_eq(data_extent_end(&extent, 5), 30);
    data_extent_note(&extent, 0, 40, 50);
    ck_assert_int_eq(data_extent_end(&extent, 5), 5);
    ck_assert_int_eq(data_extent_end(&extent, 40), 50);
}
END_TEST

START_TEST(an_answer_from_before_a_change_is_not_taken)
{
    DataExtent extent;
    uint64_t before;

    data_extent_init(&extent);
    before = data_extent_changes(&extent);
    data_extent_note(&extent, before, 10, 20);
    data_extent_forget(&extent);
    ck_assert_int_eq(data_extent_end(&extent, 10), 10);
    data_extent_note(&extent, before, 10, 20);
    ck_assert_int_eq(data_extent_end(&extent, 10), 10);
    data_extent_note(&extent, data_extent_changes(&extent), 10, 20);
    ck_assert_int_eq(data_extent_end(&extent, 10), 20);
}
END_TEST

/* --- the driver ----------------------------------------------------------- */

static BlockBackend *full_file(void)
{
    g_autofree char *buf = g_malloc(4 * MIB);
    BlockBackend *blk;

    make_file("disk", 4 * MIB);
    blk = file_backend("file,filename=%s/disk,discard=unmap");
    memset(buf, 'd', 4 * MIB);
    ck_assert_int_eq(blk_pwrite(blk, 0, 4 * MIB, buf, 0), 0);
    return blk;
}

static bool is_hole(BlockBackend *blk, int64_t offset)
{
    BlockExtent extent;

    ck_assert_int_eq(blk_block_status(blk, offset, 4096, &extent), 0);
    return extent.status & BDRV_BLOCK_ZERO;
}

/* Ask, so that all is known to be data. */
static void learn(BlockBackend *blk, int64_t bytes)
{
    BlockExtent extent;

    ck_assert_int_eq(blk_block_status(blk, 0, bytes, &extent), 0);
    ck_assert(!(extent.status & BDRV_BLOCK_ZERO));
    ck_assert_int_eq(extent.bytes, bytes);
}

/* Make a hole behind the back of the node.  Returns whether it can be seen. */
static bool punch_outside(int64_t offset, int64_t bytes)
{
    g_autofree char *path = path_of("disk");
    int fd = open(path, O_RDWR | O_CLOEXEC);
    bool ret = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset,
                         bytes) == 0 &&
               lseek(fd, offset, SEEK_DATA) != offset;

    close(fd);
    return ret;
}

START_TEST(the_file_system_is_asked_once_about_data)
{
    BlockBackend *blk = full_file();

    learn(blk, 4 * MIB);
    if (punch_outside(MIB, MIB)) {
        ck_assert(!is_hole(blk, MIB));
        learn(blk, 4 * MIB);
        ck_assert_int_eq(blk_pdiscard(blk, 0, 4096), 0);
        ck_assert(is_hole(blk, MIB));
        ck_assert(!is_hole(blk, 2 * MIB));
    }
    close_backend(blk);
}
END_TEST

START_TEST(holes_that_the_node_makes_are_seen_at_once)
{
    BlockBackend *blk = full_file();

    if (!punch_outside(3 * MIB, MIB)) {
        close_backend(blk);
        return; /* no holes on this file system */
    }
    learn(blk, 3 * MIB);
    ck_assert_int_eq(blk_pdiscard(blk, 2 * MIB, MIB), 0);
    ck_assert(is_hole(blk, 2 * MIB));
    learn(blk, 2 * MIB);
    ck_assert_int_eq(blk_pwrite_zeroes(blk, MIB, MIB, BDRV_REQ_MAY_UNMAP), 0);
    ck_assert(is_hole(blk, MIB));
    ck_assert_int_eq(blk_pwrite(blk, MIB, 4, "back", 0), 0);
    ck_assert(!is_hole(blk, MIB));
    close_backend(blk);
}
END_TEST

START_TEST(a_file_cut_and_made_longer_again_has_a_hole)
{
    BlockBackend *blk = full_file();
    BlockTruncate how = { .offset = MIB, .exact = true };

    learn(blk, 4 * MIB);
    ck_assert_int_eq(blk_truncate(blk, &how, NULL), 0);
    how.offset = 4 * MIB;
    ck_assert_int_eq(blk_truncate(blk, &how, NULL), 0);
    learn(blk, MIB);
    ck_assert(is_hole(blk, MIB));
    ck_assert(is_hole(blk, 3 * MIB));
    close_backend(blk);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("file-status");
    TCase *extent = tcase_create("extent");
    TCase *driver = tcase_create("driver");

    suite_add_tcase(suite, extent);
    suite_add_tcase(suite, driver);
    tcase_add_checked_fixture(driver, status_setup, file_teardown);
    PROMISE(extent, what_is_data_is_known_from_its_start_to_its_end);
    PROMISE(extent, extents_that_touch_are_one_and_others_take_its_place);
    PROMISE(extent, an_answer_from_before_a_change_is_not_taken);
    PROMISE(driver, the_file_system_is_asked_once_about_data);
    PROMISE(driver, holes_that_the_node_makes_are_seen_at_once);
    PROMISE(driver, a_file_cut_and_made_longer_again_has_a_hole);
    return check_main(suite);
}
