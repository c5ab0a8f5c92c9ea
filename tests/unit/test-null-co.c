/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * null-co: what a node that holds nothing still remembers.
 */
#include "graph-fixture.h"

#define WRITE BLK_PERM_WRITE
#define RESIZE BLK_PERM_RESIZE
#define ALL BLK_PERM_ALL

/* Reopen with what @text says and nothing else. */
static void reopen_anew(BlockDriverState *bs, const char *text)
{
    BdrvReopenQueue *queue = bdrv_reopen_queue_new(graph);

    bdrv_reopen_queue_add(queue, bs, opts(text), false);
    ck_assert_int_eq(bdrv_reopen_multiple(queue, NULL), 0);
}

START_TEST(a_reopen_that_does_not_name_the_size_keeps_the_length)
{
    BlockDriverState *bs = open_ok("null-co,node-name=n,size=3M");

    reopen_anew(bs, "null-co,latency-ns=0");
    ck_assert_int_eq(bdrv_length(bs), 3 << 20);
    ck_assert_int_eq(bdrv_reopen(bs, opts("null-co,read-zeroes=on"), NULL), 0);
    ck_assert_int_eq(bdrv_length(bs), 3 << 20);
    reopen_anew(bs, "null-co,size=2M");
    ck_assert_int_eq(bdrv_length(bs), 2 << 20);
    bdrv_unref(bs);
}
END_TEST

START_TEST(a_reopen_does_not_undo_a_truncate)
{
    BlockTruncate how = { .offset = 5 << 20 };
    BlockDriverState *bs = open_ok("null-co,node-name=n,size=3M");
    BlockBackend *blk = backend_ok("user", bs, WRITE | RESIZE, ALL);

    ck_assert_int_eq(blk_truncate(blk, &how, NULL), 0);
    ck_assert_int_eq(bdrv_reopen(bs, opts("null-co,latency-ns=0"), NULL), 0);
    ck_assert_int_eq(blk_getlength(blk), 5 << 20);
    reopen_anew(bs, "null-co");
    ck_assert_int_eq(blk_getlength(blk), 5 << 20);
    ck_assert_int_eq(bdrv_reopen(bs, opts("null-co,size=4M"), NULL), 0);
    ck_assert_int_eq(blk_getlength(blk), 4 << 20);
    blk_unref(blk);
    bdrv_unref(bs);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("null-co");
    TCase *tcase = tcase_create("null-co");

    tcase_add_checked_fixture(tcase, graph_setup, graph_teardown);
    PROMISE(tcase, a_reopen_that_does_not_name_the_size_keeps_the_length);
    PROMISE(tcase, a_reopen_does_not_undo_a_truncate);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
