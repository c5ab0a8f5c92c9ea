/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Copies on read where things are unusual: in layers with very large blocks or
 * with a length that changes behind the back of a copy, for prefetches that
 * bring a vector, and for users that may not write.
 */
#include "cor-fixture.h"

#define MIB (INT64_C(1) << 20)

/* "over" in memory, with @options, on the backing disk of @bytes. */
static BlockBackend *given_over(int64_t bytes, const char *options)
{
    g_autofree char *text = g_strdup_printf(
        "mem,node-name=over,size=%" G_GINT64_FORMAT ",backing=base%s", bytes, options);
    BlockBackend *blk;

    cor_base(bytes);
    top = open_ok(text);
    blk = any_backend("over", top);
    return blk;
}

static void stop_over(BlockBackend *blk)
{
    blk_unref(blk);
    bdrv_unref(top);
    bdrv_unref(base);
}

START_TEST(blocks_larger_than_the_memory_of_a_copy_are_copied_whole)
{
    BlockBackend *blk = given_over(12 * MIB, ",copy-on-read=on,align=4M");

    expect_old(blk, 5 * MIB, 512);
    ck_assert(!is_there(blk, 0, 4 * MIB));
    ck_assert(is_there(blk, 4 * MIB, 4 * MIB));
    ck_assert_int_eq(prefetch(blk, 0, 12 * MIB), 0);
    ck_assert(is_there(blk, 0, 12 * MIB));
    expect_old(blk, 0, 12 * MIB);
    stop_over(blk);
}
END_TEST

static int coroutine_fn length_entry(void *opaque)
{
    return bdrv_co_getlength(opaque) < 0 ? -EIO : 0;
}

static void read_done(void *opaque, int ret)
{
    *(int *)opaque = ret;
}

START_TEST(a_copy_ends_when_its_layer_has_become_shorter)
{
    AioContext *ctx = block_graph_aio_context(graph);
    BlockBackend *blk = given_over(64 << 10, ",copy-on-read=on");
    g_autofree uint8_t *buf = g_malloc(64 << 10);
    BlockIOVec1 iov;
    int result = 1;

    /* The first copy is of the first block alone. */
    ck_assert_int_eq(blk_pwrite(blk, 4096, 4096, buf, 0), 0);
    atomic_store(&mem_disk(base)->catch_next[MEM_READ], true);
    blk_aio_preadv(blk, 0, block_iov_buf(&iov, buf, 64 << 10), 0, read_done,
                   &result);
    while (!atomic_load(&mem_disk(base)->caught)) {
        aio_poll(ctx, true);
    }
    mem_disk(top)->length = 8192;
    ck_assert_int_eq(aio_co_run(ctx, length_entry, top), 0);
    atomic_store(&mem_disk(base)->caught, false);
    while (result == 1) {
        aio_poll(ctx, true);
    }
    ck_assert_int_eq(result, 0);
    ck_assert_int_eq(buf[0], old_byte(0));
    ck_assert_int_eq(buf[8192], 0);
    stop_over(blk);
}
END_TEST

/* It is for data that is to be brought, not given. */
START_TEST(a_prefetch_leaves_the_vector_that_it_is_given_as_it_is)
{
    static const char *const filters[] = {
        "copy-on-read,node-name=cor,file=over",
        "copy-on-read,node-name=cor,file=over,bottom=base",
    };

    for (size_t i = 0; i < G_N_ELEMENTS(filters); i++) {
        BlockBackend *over = given_over(64 << 10, "");
        BlockDriverState *cor = open_ok(filters[i]);
        BlockBackend *blk = any_backend("guest", cor);
        uint8_t buf[512] = { 0 };
        BlockIOVec1 iov;

        block_iov_buf(&iov, buf, sizeof(buf));
        for (int round = 0; round < 2; round++) {
            ck_assert_int_eq(blk_preadv(blk, 0, sizeof(buf), &iov.vec,
                                        BDRV_REQ_PREFETCH), 0);
            ck_assert(is_there(over, 0, MEM_CLUSTER));
            ck_assert(block_buffer_is_zero(buf, sizeof(buf)));
        }
        ck_assert_int_eq(blk_preadv(over, 0, sizeof(buf), &iov.vec,
                                    BDRV_REQ_PREFETCH), -ENOTSUP);
        blk_unref(blk);
        bdrv_unref(cor);
        stop_over(over);
    }
}
END_TEST

/* Else who prefetches takes out a layer whose data are nowhere else. */
START_TEST(a_prefetch_fails_if_the_layers_to_the_bottom_cannot_be_looked_at)
{
    BlockBackend *over = given_over(64 << 10, "");
    BlockDriverState *cor, *sick;
    BlockBackend *blk;

    sick = open_ok("blkdebug,node-name=sick,image=base,"
                   "inject-error.0.event=none,"
                   "inject-error.0.iotype=block-status,"
                   "inject-error.0.errno=5,inject-error.0.once=on");
    ck_assert_int_eq(bdrv_set_backing(blk_bs(over), sick, NULL), 0);
    cor = open_ok("copy-on-read,node-name=cor,file=over,bottom=base");
    blk = any_backend("guest", cor);
    ck_assert_int_eq(blk_preadv(blk, 0, 512, NULL, BDRV_REQ_PREFETCH), -EIO);
    ck_assert(!is_there(over, 0, MEM_CLUSTER));
    ck_assert_int_eq(blk_preadv(blk, 0, 512, NULL, BDRV_REQ_PREFETCH), 0);
    ck_assert(is_there(over, 0, MEM_CLUSTER));
    blk_unref(blk);
    bdrv_unref(cor);
    bdrv_unref(sick);
    stop_over(over);
}
END_TEST

/* A user that asks for no permission makes the filter have none. */
START_TEST(what_nobody_may_write_is_not_copied)
{
    BlockBackend *over = given_over(64 << 10, "");
    BlockDriverState *cor;
    BlockBackend *lone, *blk;

    blk_unref(over);
    lone = backend_ok("lone", top, BLK_PERM_CONSISTENT_READ,
                      BLK_PERM_CONSISTENT_READ);
    cor = open_ok("copy-on-read,node-name=cor,file=over");
    blk = backend_ok("none", cor, 0, BLK_PERM_ALL);
    expect_old(blk, 0, 64 << 10);
    ck_assert(!is_there(lone, 0, 64 << 10));
    ck_assert_int_eq(blk_preadv(blk, 0, 512, NULL, BDRV_REQ_PREFETCH),
                     -EPERM);
    /* As soon as somebody may, it is. */
    blk_unref(lone);
    lone = backend_ok("other", cor, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL);
    expect_old(blk, 0, 512);
    ck_assert(is_there(lone, 0, MEM_CLUSTER));
    blk_unref(blk);
    bdrv_unref(cor);
    stop_over(lone);
}
END_TEST

static void add_tests(TCase *tcase)
{
    PROMISE(tcase, blocks_larger_than_the_memory_of_a_copy_are_copied_whole);
    PROMISE(tcase, a_copy_ends_when_its_layer_has_become_shorter);
    PROMISE(tcase, a_prefetch_leaves_the_vector_that_it_is_given_as_it_is);
    PROMISE(tcase,
            a_prefetch_fails_if_the_layers_to_the_bottom_cannot_be_looked_at);
    PROMISE(tcase, what_nobody_may_write_is_not_copied);
}

int main(void)
{
    mem_register();
    return graph_suite("copy-on-read-limits", add_tests);
}
