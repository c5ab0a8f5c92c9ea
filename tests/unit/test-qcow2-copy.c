/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Copies into images and out of them, where the storage below copies.
 */
#include "image-fixture.h"
#include "mem-driver.h"

#define CLUSTER 4096

typedef struct CopyCall {
    BlockBackend *src, *dst;
    int64_t from, to, bytes;
} CopyCall;

static int coroutine_fn copy_entry(void *opaque)
{
    CopyCall *c = opaque;

    return blk_co_copy_range(c->src, c->from, c->dst, c->to, c->bytes, 0);
}

/* A copy that is done or refused; refused ones change nothing they need not. */
static bool copy(BlockBackend *src, int64_t from, BlockBackend *dst,
                 int64_t to, int64_t bytes)
{
    CopyCall call = { src, dst, from, to, bytes };
    int ret = aio_co_run(block_graph_aio_context(graph), copy_entry, &call);

    ck_assert(ret == 0 || ret == -ENOTSUP);
    return ret == 0;
}

/* An image in a disk that copies inside itself, and from others. */
static BlockBackend *copying_image(const char *options)
{
    BlockDriverState *file = open_ok("copymem,size=0");
    const char *name = bdrv_node_name(file);
    g_autofree char *how = g_strdup_printf("qcow2,file=%s,%s", name, options);
    g_autofree char *image = g_strdup_printf("qcow2,file=%s", name);
    g_autoptr(GError) error = NULL;
    BlockBackend *blk;

    ck_assert_msg(bdrv_create(graph, opts(how), &error) == 0, "%s",
                  error ? error->message : "no error set");
    blk = backend_of(open_ok(image));
    bdrv_unref(file);
    return blk;
}

START_TEST(copies_into_and_out_of_images_are_what_reads_and_writes_would_be)
{
    BlockBackend *a = copying_image("size=256k,cluster_size=4k");
    BlockBackend *b = copying_image("size=256k,cluster_size=64k");
    BlockBackend *raw = backend_of(open_ok("copymem,size=256k"));

    for (int i = 0; i < 64; i++) {
        fill(a, i * CLUSTER, CLUSTER, 1 + i);
    }
    ck_assert(copy(a, 0, b, 0, 256 << 10));
    for (int i = 0; i < 64; i++) {
        expect_fill(b, i * CLUSTER, CLUSTER, 1 + i);
    }
    ck_assert(copy(b, 8 * CLUSTER, raw, 0, 16 * CLUSTER));
    for (int i = 0; i < 16; i++) {
        expect_fill(raw, i * CLUSTER, CLUSTER, 9 + i);
    }
    ck_assert(copy(raw, 2 * CLUSTER, a, 0, 4 * CLUSTER));
    ck_assert(copy(raw, 512, a, 5 * CLUSTER + 512, 512));
    for (int i = 0; i < 4; i++) {
        expect_fill(a, i * CLUSTER, CLUSTER, 11 + i);
    }
    expect_fill(a, 5 * CLUSTER, 512, 6);
    expect_fill(a, 5 * CLUSTER + 512, 512, 9);
    expect_fill(a, 5 * CLUSTER + 1024, CLUSTER - 1024, 6);
    /* What is shared with a snapshot is not copied over. */
    snapshot_ok(blk_bs(a), "s");
    copy(raw, 0, a, 0, CLUSTER);
    ck_assert_int_eq(bdrv_snapshot_goto(blk_bs(a), "s", NULL), 0);
    expect_fill(a, 0, CLUSTER, 11);
    check_sound(a);
    check_sound(b);
    close_backend(a);
    close_backend(b);
    close_backend(raw);
}
END_TEST

START_TEST(compressed_data_cannot_be_copied_but_are_read)
{
    BlockBackend *a = copying_image("size=64k,cluster_size=4k");
    BlockBackend *b = copying_image("size=64k,cluster_size=4k");
    uint8_t buf[CLUSTER];

    memset(buf, 7, sizeof(buf));
    ck_assert_int_eq(blk_pwrite(a, 0, CLUSTER, buf,
                                BDRV_REQ_WRITE_COMPRESSED), 0);
    fill(b, 0, 2 * CLUSTER, 8);
    ck_assert(!copy(a, 0, b, 0, CLUSTER));
    expect_fill(b, CLUSTER, CLUSTER, 8);
    fill(a, 1000, 24, 9);
    expect_fill(a, 0, 1000, 7);
    expect_fill(a, 1000, 24, 9);
    expect_fill(a, 1024, CLUSTER - 1024, 7);
    check_sound(a);
    check_sound(b);
    close_backend(a);
    close_backend(b);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("qcow2-copy");
    TCase *tcase = tcase_create("qcow2-copy");

    mem_register_copying();
    tcase_add_checked_fixture(tcase, file_setup, file_teardown);
    suite_add_tcase(suite, tcase);
    PROMISE(tcase,
            copies_into_and_out_of_images_are_what_reads_and_writes_would_be);
    PROMISE(tcase, compressed_data_cannot_be_copied_but_are_read);
    return check_main(suite);
}
