/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The length of nodes: who may change it, and who learns of that.
 */
#include "graph-fixture.h"
#include "mem-driver.h"

#define READ BLK_PERM_CONSISTENT_READ
#define WRITE BLK_PERM_WRITE
#define RESIZE BLK_PERM_RESIZE
#define ALL BLK_PERM_ALL

/* --- growth that fails half-way ------------------------------------------- */

START_TEST(a_growth_whose_zeroing_fails_is_taken_back)
{
    BlockTruncate how = { .offset = 64 << 10, .exact = true };
    BlockDriverState *base = open_ok("mem,node-name=base,size=64k");
    GError *error = NULL;
    BlockDriverState *disk;
    BlockBackend *blk;
    MemDisk *mem;

    disk = open_ok("mem,node-name=disk,size=8k,backing=base");
    blk = backend_ok("user", disk, WRITE | RESIZE, ALL);
    mem = mem_disk(disk);
    mem->fail_forever[MEM_ZERO] = EIO;
    ck_assert_int_eq(blk_truncate(blk, &how, &error), -EIO);
    expect_error(&error, EIO, "'disk': could not zero the part that was "
                 "added: Input/output error; the length is 8192 bytes as "
                 "before");
    ck_assert_int_eq(blk_getlength(blk), 8192);
    ck_assert_int_eq(mem->length, 8192);
    mem->fail_forever[MEM_ZERO] = 0;
    ck_assert_int_eq(blk_truncate(blk, &how, NULL), 0);
    ck_assert_int_eq(blk_getlength(blk), 64 << 10);
    blk_unref(blk);
    bdrv_unref(disk);
    bdrv_unref(base);
}
END_TEST

/* Once grown, a mem node that can neither be written nor cut. */
static int coroutine_fn stuck_truncate(BlockDriverState *bs,
                                       const BlockTruncate *how, GError **errp)
{
    int ret = bdrv_co_truncate(bdrv_filter_child(bs), how, errp);
    MemDisk *d = mem_disk(bdrv_child_bs(bdrv_filter_child(bs)));

    d->fail_forever[MEM_TRUNCATE] = EPERM;
    d->fail_forever[MEM_ZERO] = ENOSPC;
    return ret;
}

static void stuck_refresh_limits(BlockDriverState *bs, BlockLimits *limits)
{
    limits->truncate_flags = 0;
}

static void register_stuck(void)
{
    static const BlockOption options[] = {
        { .name = "file", .type = BLOCK_OPTION_CHILD, .help = "filtered" },
        { .type = BLOCK_OPTION_END },
    };
    static const BlockDriver driver = {
        .struct_size = sizeof(BlockDriver),
        .name = "stuck",
        .kind = BLOCK_DRIVER_FILTER,
        .options = options,
        .open = pass_open,
        .refresh_limits = stuck_refresh_limits,
        .truncate = stuck_truncate,
    };

    if (bdrv_register(&driver, NULL) < 0) {
        abort();
    }
}

START_TEST(a_growth_that_can_not_be_taken_back_says_what_is_left)
{
    BlockTruncate how = { .offset = 16384, .flags = BDRV_REQ_ZERO_WRITE };
    BlockDriverState *stuck = open_ok(
        "stuck,node-name=stuck,file.driver=mem,file.size=8k");
    BlockBackend *user = backend_ok("user", stuck, WRITE | RESIZE, ALL);
    GError *error = NULL;

    ck_assert_int_eq(blk_truncate(user, &how, &error), -ENOSPC);
    expect_error(&error, ENOSPC, "could not be taken back either: mem: "
                 "truncate: Operation not permitted: the length is 16384 "
                 "bytes now, and what lies from 8192 on is undefined");
    ck_assert_int_eq(blk_getlength(user), 16384);
    blk_unref(user);
    bdrv_unref(stuck);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("length");
    TCase *tcase = tcase_create("length");

    register_pass_driver();
    register_stuck();
    mem_register();
    tcase_add_checked_fixture(tcase, graph_setup, graph_teardown);
    tcase_set_timeout(tcase, 60);
    PROMISE(tcase, a_growth_whose_zeroing_fails_is_taken_back);
    PROMISE(tcase, a_growth_that_can_not_be_taken_back_says_what_is_left);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
