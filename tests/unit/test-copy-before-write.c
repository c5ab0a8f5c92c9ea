/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * copy-before-write and snapshot-access: the point in time stays what it was.
 */
#include "cbw-fixture.h"

START_TEST(the_snapshot_stays_what_it_was)
{
    cbw_start("");
    guest_write(3 * CLUSTER + 512, 4096, 'X');
    ck_assert_int_eq(blk_pwrite_zeroes(guest, 0, CLUSTER / 2, 0), 0);
    ck_assert_int_eq(blk_pdiscard(guest, 5 * CLUSTER, CLUSTER), 0);
    expect_snapshot(0, DISK);
    guest_write(3 * CLUSTER, 2 * CLUSTER, 'Y');
    expect_snapshot(0, DISK);
    expect_byte(guest, 3 * CLUSTER, CLUSTER, 'Y');
    cbw_stop();
}
END_TEST

START_TEST(what_was_cut_off_is_in_the_snapshot)
{
    BlockTruncate how = { .offset = 2 * CLUSTER + 512, .exact = true };

    cbw_start("");
    ck_assert_int_eq(blk_truncate(guest, &how, NULL), 0);
    expect_snapshot(0, DISK);
    how.offset = DISK;
    ck_assert_int_eq(blk_truncate(guest, &how, NULL), 0);
    expect_snapshot(0, DISK);
    expect_byte(guest, 3 * CLUSTER, CLUSTER, 0);
    cbw_stop();
}
END_TEST

START_TEST(with_write_behind_too)
{
    cbw_start(",on-cbw-error=break-snapshot,staging-size=128k");
    mem_disk(target)->hold[MEM_WRITE] = true;
    guest_write(0, 4096, 'X');
    guest_write(CLUSTER, 4096, 'Y');
    expect_snapshot(0, DISK); /* from memory: the target has nothing */
    mem_disk(target)->hold[MEM_WRITE] = false;
    expect_snapshot(0, DISK);
    cbw_stop();
}
END_TEST

static void add_tests(TCase *tcase)
{
    PROMISE(tcase, the_snapshot_stays_what_it_was);
    PROMISE(tcase, what_was_cut_off_is_in_the_snapshot);
    PROMISE(tcase, with_write_behind_too);
}

int main(void)
{
    Suite *suite = suite_create("copy-before-write");
    TCase *tcase = tcase_create("all");

    mem_register();
    tcase_add_checked_fixture(tcase, graph_setup, graph_teardown);
    tcase_set_timeout(tcase, 60);
    add_tests(tcase);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
