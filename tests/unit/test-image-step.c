/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Opening and checking an image ends when it takes too long, or when it is
 * cancelled, wherever it is.
 */
#include "qcow2-fixture.h"

#include "block/graph/graph-int.h"

/* What may still be read after that: the step that was begun. */
#define READS_A_STEP 4

/* The filter "watch": counts reads, and cancels all at one of them. */
static struct {
    unsigned reads;
    unsigned cancel_at;         /* the first being 1; 0: never */
    unsigned nr_nodes;          /* that were read */
    int64_t end_ns;             /* when the first one's time is over */
    bool one_end;               /* that of all others, too */
} watch;

static int coroutine_fn watch_preadv(BlockDriverState *bs, const BlockIO *io)
{
    watch.nr_nodes += io->offset == 0;
    if (++watch.reads == 1) {
        watch.end_ns = bs->image_end_ns;
    }
    watch.one_end &= bs->image_end_ns == watch.end_ns;
    if (watch.reads == watch.cancel_at) {
        block_graph_cancel_images(graph, true);
    }
    return bdrv_co_preadv(bdrv_filter_child(bs), io->offset, io->bytes,
                          io->iov, io->flags);
}

static void watch_set(unsigned cancel_at)
{
    block_graph_cancel_images(graph, false);
    watch.reads = 0;
    watch.nr_nodes = 0;
    watch.one_end = true;
    watch.cancel_at = cancel_at;
}

static BlockDriverState *open_watched(const char *more, GError **error)
{
    g_autofree char *text = options_text(
        "qcow2,node-name=q,file.driver=watch,file.file.driver=file,"
        "file.file.filename=%s/t.qcow2%s", more);

    return bdrv_open(graph, opts(text), error);
}

/* Something of all that takes time. */
static void make_rich_image(void)
{
    qemu_image("cluster_size=512", "4M");
    qemu_io("-c 'write -P 1 0 2M'");
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(run("qemu-img snapshot -c s%d %s/t.qcow2", i,
                             file_dir), 0);
        qemu_io("-c 'write -P 2 1M 64k'");
    }
    ck_assert_int_eq(run("qemu-img bitmap --add -g 512 %s/t.qcow2 b", file_dir),
                     0);
    qemu_io("-c 'write -P 3 0 2M'");
}

/* Whether it failed for being cancelled; else it was done. */
static bool was_cancelled(int ret, GError **error)
{
    if (ret == 0) {
        ck_assert_ptr_null(*error);
        return false;
    }
    ck_assert_int_eq(ret, -ECANCELED);
    expect_error(error, ECANCELED, "is given up");
    return true;
}

START_TEST(an_open_can_be_cancelled_at_each_step)
{
    bool any = false;

    make_rich_image();
    for (unsigned n = 1; n == 1 || watch.reads >= watch.cancel_at; n++) {
        GError *error = NULL;
        BlockDriverState *bs;

        watch_set(n);
        bs = open_watched(",overlap-check=all", &error);
        any |= was_cancelled(bs ? 0 : -block_error_code(error), &error);
        ck_assert_uint_le(watch.reads, n + READS_A_STEP);
        block_graph_cancel_images(graph, false);
        bdrv_unref(bs);
    }
    ck_assert(any);
}
END_TEST

static unsigned reads_of_a_whole_check(void)
{
    BdrvCheck how = { .flags = 0 };
    GError *error = NULL;
    BdrvCheckResult res;
    BlockDriverState *bs = open_watched(",read-only=on", &error);

    ck_assert_ptr_nonnull(bs);
    watch_set(0);
    ck_assert_int_eq(bdrv_check(bs, &how, &res, &error), 0);
    bdrv_unref(bs);
    return watch.reads;
}

START_TEST(a_check_can_be_cancelled_at_each_step)
{
    unsigned cancelled = 0, whole;

    make_rich_image();
    whole = reads_of_a_whole_check();
    for (unsigned n = 1; n == 1 || watch.reads >= watch.cancel_at; n++) {
        BdrvCheck how = { .flags = 0 };
        GError *error = NULL;
        BdrvCheckResult res;
        BlockDriverState *bs;

        watch_set(0);
        bs = open_watched(",read-only=on", &error);
        ck_assert_ptr_nonnull(bs);
        watch_set(n);
        if (was_cancelled(bdrv_check(bs, &how, &res, &error), &error)) {
            cancelled++;
        } else {
            ck_assert_uint_eq(watch.reads, whole);
        }
        ck_assert_uint_le(watch.reads, n + READS_A_STEP);
        block_graph_cancel_images(graph, false);
        bdrv_unref(bs);
    }
    ck_assert_uint_gt(cancelled, 100); /* L2 tables, twice */
    expect_clean();
}
END_TEST

START_TEST(a_repair_is_done_to_its_end)
{
    BdrvCheck how = { .flags = BDRV_CHECK_FIX_LEAKS | BDRV_CHECK_FIX_ERRORS };
    GError *error = NULL;
    BdrvCheckResult res;
    BlockDriverState *bs;

    make_rich_image();
    bs = open_watched(",for-repair=on", &error);
    ck_assert_ptr_nonnull(bs);
    block_graph_cancel_images(graph, true);
    ck_assert_int_eq(bdrv_check(bs, &how, &res, &error), 0);
    bdrv_unref(bs);
    expect_clean();
}
END_TEST

START_TEST(what_takes_too_long_is_given_up)
{
    BdrvCheck how = { .flags = 0 };
    GError *error = NULL;
    BdrvCheckResult res;
    BlockDriverState *bs;

    make_rich_image();
    bs = open_watched(",read-only=on", &error);
    ck_assert_ptr_nonnull(bs);
    block_graph_set_image_timeout(graph, 1);
    ck_assert_int_eq(bdrv_image_step(bs, &error), 0); /* neither goes on */
    ck_assert_int_eq(bdrv_check(bs, &how, &res, &error), -ETIMEDOUT);
    expect_error(&error, ETIMEDOUT, "longer to open or to check than");
    bdrv_unref(bs);
    ck_assert_ptr_null(open_watched("", &error));
    expect_error(&error, ETIMEDOUT, "longer to open or to check than");
    block_graph_set_image_timeout(graph, 0);
    bs = open_watched(",read-only=on", &error);
    ck_assert_ptr_nonnull(bs);
    ck_assert_int_eq(bdrv_check(bs, &how, &res, &error), 0);
    bdrv_unref(bs);
}
END_TEST

/* An image with 60 backing files has no more time than one without. */
START_TEST(a_chain_has_one_time_for_all_its_images)
{
    g_autofree char *text = options_text(
        "qcow2,file.driver=watch,file.file.driver=file,"
        "file.file.filename=%s/t.qcow2,"
        "backing.driver=qcow2,backing.file.driver=watch,"
        "backing.file.file.driver=file,"
        "backing.file.file.filename=%s/u.qcow2,"
        "backing.backing.driver=qcow2,backing.backing.file.driver=watch,"
        "backing.backing.file.file.driver=file,"
        "backing.backing.file.file.filename=%s/v.qcow2,read-only=on",
        file_dir, file_dir);
    GError *error = NULL;
    BlockDriverState *bs;

    qemu_image("cluster_size=512", "4M");
    for (char c = 'u'; c <= 'v'; c++) {
        ck_assert_int_eq(run("cp %s/t.qcow2 %s/%c.qcow2", file_dir, c), 0);
    }
    block_graph_set_image_timeout(graph, INT64_C(3600) * 1000000000);
    watch_set(0);
    bs = bdrv_open(graph, opts(text), &error);
    ck_assert_msg(bs != NULL, "%s", error ? error->message : "");
    ck_assert_uint_ge(watch.nr_nodes, 3);
    ck_assert_int_gt(watch.end_ns, 0);
    ck_assert(watch.one_end);
    bdrv_unref(bs);
    run("rm %s/u.qcow2 %s/v.qcow2", file_dir);
}
END_TEST

static void add_tests(TCase *tcase)
{
    static const BlockDriver driver = {
        .struct_size = sizeof(BlockDriver),
        .name = "watch",
        .kind = BLOCK_DRIVER_FILTER,
        .options = filter_options,
        .open = pass_open,
        .preadv = watch_preadv,
    };

    register_test_driver(&driver);
    PROMISE(tcase, an_open_can_be_cancelled_at_each_step);
    PROMISE(tcase, a_check_can_be_cancelled_at_each_step);
    PROMISE(tcase, a_repair_is_done_to_its_end);
    PROMISE(tcase, what_takes_too_long_is_given_up);
    PROMISE(tcase, a_chain_has_one_time_for_all_its_images);
}

int main(void)
{
    return qemu_suite("image-step", add_tests);
}
