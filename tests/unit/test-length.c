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

/* --- growth below --------------------------------------------------------- */

/* A format: as long as its file was when it was opened. */
static int64_t coroutine_fn image_getlength(BlockDriverState *bs)
{
    return *(int64_t *)bdrv_opaque(bs);
}

static int coroutine_fn image_open(BlockDriverState *bs, BlockOptions *options,
                                   unsigned flags, GError **errp)
{
    BdrvChild *file = bdrv_co_open_child(bs, options, "file",
                                         BDRV_CHILD_DATA |
                                             BDRV_CHILD_PRIMARY, true, errp);

    if (!file) {
        return -EINVAL;
    }
    *(int64_t *)bdrv_opaque(bs) = bdrv_length(bdrv_child_bs(file));
    return 0;
}

static void register_image(void)
{
    static const BlockDriver driver = {
        .struct_size = sizeof(BlockDriver),
        .name = "image",
        .kind = BLOCK_DRIVER_FORMAT,
        .state_size = sizeof(int64_t),
        .open = image_open,
        .getlength = image_getlength,
    };

    if (bdrv_register(&driver, NULL) < 0) {
        abort();
    }
}

/*
 *   above, a filter
 *     |
 *   filter
 *     |
 *    raw
 *     |
 *    disk  <- grown and cut by a user of its own
 */
static BlockDriverState *disk, *raw, *filter, *above;
static BlockBackend *other;

static void given_nodes_above_a_disk(void)
{
    disk = open_ok("mem,node-name=disk,size=64k");
    raw = open_ok("raw,node-name=raw,file=disk");
    filter = open_ok("pass,node-name=filter,file=raw");
    above = open_ok("pass,node-name=above,file=filter");
    other = backend_ok("other", disk, WRITE | RESIZE, ALL);
}

static void done(void)
{
    blk_unref(other);
    bdrv_unref(above);
    bdrv_unref(filter);
    bdrv_unref(raw);
    bdrv_unref(disk);
}

static void lengths_are(int64_t bytes)
{
    ck_assert_int_eq(bdrv_length(disk), bytes);
    ck_assert_int_eq(bdrv_length(raw), bytes);
    ck_assert_int_eq(bdrv_length(above), bytes);
}

START_TEST(nodes_above_follow_a_truncate_of_another_user)
{
    BlockTruncate how = { .offset = 128 << 10 };
    BlockBackend *blk;
    char buf[512];

    given_nodes_above_a_disk();
    blk = backend_ok("guest", above, READ | WRITE, ALL);
    lengths_are(64 << 10);
    ck_assert_int_eq(blk_truncate(other, &how, NULL), 0);
    lengths_are(128 << 10);
    /* What is new is theirs, too. */
    memset(buf, 7, sizeof(buf));
    ck_assert_int_eq(blk_pwrite(blk, 100 << 10, sizeof(buf), buf, 0), 0);
    how.offset = 32 << 10;
    ck_assert_int_eq(blk_truncate(other, &how, NULL), 0);
    lengths_are(32 << 10);
    ck_assert_int_eq(blk_pread(blk, 32 << 10, sizeof(buf), buf, 0), -EIO);
    blk_unref(blk);
    done();
}
END_TEST

static int coroutine_fn write_behind_the_end(void *opaque)
{
    /* Formats may, guests may not. */
    return bdrv_co_pwrite(opaque, 96 << 10, 512, (char[512]){ 0 }, 0);
}

START_TEST(filters_follow_a_write_that_grows_the_file_and_formats_do_not)
{
    BlockDriverState *file =
        open_ok("pass,node-name=file,file.driver=raw,file.file.driver=mem");
    BlockDriverState *image = open_ok("image,node-name=image,file=file");
    BlockDriverState *top = open_ok("pass,node-name=top,file=image");
    BlockBackend *blk = backend_ok("guest", top, WRITE, ALL);

    ck_assert_int_eq(bdrv_length(file), 64 << 10);
    ck_assert_int_eq(aio_co_run(block_graph_aio_context(graph),
                                write_behind_the_end,
                                bdrv_find_child(image, "file")), 0);
    ck_assert_int_eq(bdrv_length(file), (96 << 10) + 512);
    ck_assert_int_eq(bdrv_length(image), 64 << 10);
    ck_assert_int_eq(blk_getlength(blk), 64 << 10);
    blk_unref(blk);
    bdrv_unref(top);
    bdrv_unref(image);
    bdrv_unref(file);
}
END_TEST

/* --- growth while the driver is asked ------------------------------------- */

/* What "slow" tells comes late: after others have written. */
static Coroutine *asker;
static bool ask_slowly;

static int64_t coroutine_fn slow_getlength(BlockDriverState *bs)
{
    int64_t length = bdrv_length(bdrv_child_bs(bdrv_find_child(bs, "file")));

    if (ask_slowly) {
        ask_slowly = false;
        asker = coroutine_self();
        coroutine_yield();
    }
    return length;
}

static int coroutine_fn slow_pwritev(BlockDriverState *bs, const BlockIO *io)
{
    return bdrv_co_pwritev(bdrv_find_child(bs, "file"), io->offset, io->bytes,
                           io->iov, io->flags);
}

static void register_slow(void)
{
    static const BlockDriver driver = {
        .struct_size = sizeof(BlockDriver),
        .name = "slow",
        .kind = BLOCK_DRIVER_FORMAT,
        .state_size = sizeof(int64_t),
        .open = image_open,
        .getlength = slow_getlength,
        .pwritev = slow_pwritev,
    };

    if (bdrv_register(&driver, NULL) < 0) {
        abort();
    }
}

static void coroutine_fn ask_entry(void *opaque)
{
    ck_assert_int_eq(bdrv_co_getlength(opaque), (96 << 10) + 512);
}

START_TEST(a_write_that_grows_a_node_while_its_length_is_asked_for_counts)
{
    AioContext *ctx = block_graph_aio_context(graph);
    BlockDriverState *file = open_ok("mem,node-name=file,size=64k");
    BlockDriverState *slow = open_ok("slow,node-name=slow,file=file");
    BlockDriverState *image = open_ok("image,node-name=image,file=slow");

    ask_slowly = true;
    asker = NULL;
    aio_co_enter(ctx, coroutine_create(ask_entry, slow));
    ck_assert_ptr_nonnull(asker);
    ck_assert_int_eq(aio_co_run(ctx, write_behind_the_end,
                                bdrv_find_child(image, "file")), 0);
    ck_assert_int_eq(bdrv_length(slow), (96 << 10) + 512);
    aio_co_wake(asker);
    while (aio_poll(ctx, false)) {
    }
    ck_assert_int_eq(bdrv_length(slow), (96 << 10) + 512);
    bdrv_unref(image);
    bdrv_unref(slow);
    bdrv_unref(file);
}
END_TEST

START_TEST(a_window_follows_only_where_its_end_is_open)
{
    BlockTruncate how = { .offset = 128 << 10 };
    BlockDriverState *mem = open_ok("mem,node-name=mem,size=64k");
    BlockDriverState *open = open_ok("raw,offset=4k,file=mem");
    BlockBackend *blk = backend_ok("user", open, WRITE | RESIZE, ALL);

    ck_assert_int_eq(blk_truncate(blk, &how, NULL), 0);
    ck_assert_int_eq(bdrv_length(mem), (128 << 10) + 4096);
    ck_assert_int_eq(bdrv_length(open), 128 << 10);
    blk_unref(blk);
    bdrv_unref(open);
    open = open_ok("raw,offset=4k,size=8k,file=mem");
    ck_assert_int_eq(bdrv_length(open), 8192);
    bdrv_unref(open);
    bdrv_unref(mem);
}
END_TEST

START_TEST(nodes_above_follow_an_exchange_of_what_they_filter)
{
    BlockDriverState *small = open_ok("mem,node-name=small,size=4k");
    BlockDriverState *large = open_ok("mem,node-name=large,size=8k");
    BlockDriverState *pass = open_ok("pass,node-name=f,file=small");
    BlockDriverState *top = open_ok("raw,node-name=t,file=f");

    ck_assert_int_eq(bdrv_replace_node(small, large, NULL), 0);
    ck_assert_int_eq(bdrv_length(pass), 8192);
    ck_assert_int_eq(bdrv_length(top), 8192);
    bdrv_unref(top);
    bdrv_unref(pass);
    bdrv_unref(large);
    bdrv_unref(small);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("length");
    TCase *tcase = tcase_create("length");

    register_pass_driver();
    register_stuck();
    register_image();
    register_slow();
    mem_register();
    tcase_add_checked_fixture(tcase, graph_setup, graph_teardown);
    tcase_set_timeout(tcase, 60);
    PROMISE(tcase, a_growth_whose_zeroing_fails_is_taken_back);
    PROMISE(tcase, a_growth_that_can_not_be_taken_back_says_what_is_left);
    PROMISE(tcase, nodes_above_follow_a_truncate_of_another_user);
    PROMISE(tcase,
            filters_follow_a_write_that_grows_the_file_and_formats_do_not);
    PROMISE(tcase,
            a_write_that_grows_a_node_while_its_length_is_asked_for_counts);
    PROMISE(tcase, a_window_follows_only_where_its_end_is_open);
    PROMISE(tcase, nodes_above_follow_an_exchange_of_what_they_filter);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
