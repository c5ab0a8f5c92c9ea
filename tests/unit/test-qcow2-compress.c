/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: compressed clusters in images: reading them, writing them, and lies
 * about where they are.
 */
#include "qcow2-fixture.h"

#include "block/filters/copy-before-write.h"

#define MIB (INT64_C(1) << 20)

static BlockBackend *blk;

static int write_packed(int64_t offset, int64_t bytes, int byte)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    memset(buf, byte, bytes);
    return blk_pwrite(blk, offset, bytes, buf, BDRV_REQ_WRITE_COMPRESSED);
}

/* Noise that is the same for the same @seed. */
static void noise(uint8_t *buf, int64_t bytes, uint64_t seed)
{
    seed = seed * 0x9e3779b97f4a7c15 + 1;
    for (int64_t i = 0; i < bytes; i++) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        buf[i] = seed >> 32;
    }
}

static void close_sound(void)
{
    BdrvCheckResult result = check_of(blk_bs(blk));

    ck_assert_int_eq(result.corruptions, 0);
    ck_assert_int_eq(result.leaks, 0);
    close_backend(blk);
    if (have_qemu()) {
        expect_clean();
    }
}

/* --- writing -------------------------------------------------------------- */

static const char *const kinds[] = {
    "qcow2,size=8M", "qcow2,size=8M,compression_type=zstd",
    "qcow2,size=8M,cluster_size=512", "qcow2,size=8M,cluster_size=2M",
    "qcow2,size=8M,extended_l2=on,compression_type=zstd",
    "qcow2,size=8M,compat=0.10", "qcow2,size=8M,refcount_bits=1",
};

START_TEST(requests_of_several_clusters_are_compressed_and_read_back)
{
    make_image_ok("t.qcow2", kinds[_i]);
    blk = open_image();
    ck_assert_int_eq(write_packed(0, 4 * MIB, 0x11), 0);
    ck_assert_int_eq(write_packed(6 * MIB, 2 * MIB, 0x22), 0);
    expect_fill(blk, 0, 4 * MIB, 0x11);
    expect_fill(blk, 4 * MIB, 2 * MIB, 0);
    expect_fill(blk, 6 * MIB, 2 * MIB, 0x22);
    expect_fill(blk, 1000, 5000, 0x11); /* parts of clusters */
    ck_assert_int_gt(check_of(blk_bs(blk)).compressed_clusters, 0);
    /* Over what is compressed, and over what is not. */
    fill(blk, 512, 3 * 65536, 0x33);
    ck_assert_int_eq(write_packed(2 * MIB, 2 * MIB, 0x44), 0);
    expect_fill(blk, 0, 512, 0x11);
    expect_fill(blk, 512, 3 * 65536, 0x33);
    expect_fill(blk, 2 * MIB, 2 * MIB, 0x44);
    ck_assert_int_eq(write_packed(0, 2 * MIB, 0x55), 0);
    expect_fill(blk, 0, 2 * MIB, 0x55);
    ck_assert_int_eq(blk_flush(blk), 0);
    close_sound();
    blk = open_image();
    expect_fill(blk, 0, 2 * MIB, 0x55);
    expect_fill(blk, 2 * MIB, 2 * MIB, 0x44);
    close_backend(blk);
}
END_TEST

START_TEST(what_does_not_shrink_is_written_as_it_is)
{
    g_autofree uint8_t *buf = g_malloc(MIB);
    g_autofree uint8_t *back = g_malloc(MIB);

    make_image_ok("t.qcow2", kinds[_i]);
    blk = open_image();
    noise(buf, MIB, 5);
    memset(buf, 0, MIB / 2); /* half of it shrinks */
    ck_assert_int_eq(blk_pwrite(blk, 2 * MIB, MIB, buf,
                                BDRV_REQ_WRITE_COMPRESSED),
                     _i == 3 ? -EINVAL : 0);
    if (_i != 3) {
        ck_assert_int_eq(blk_pread(blk, 2 * MIB, MIB, back, 0), 0);
        ck_assert_mem_eq(buf, back, MIB);
    }
    close_sound();
}
END_TEST

START_TEST(only_whole_clusters_are_compressed_but_for_the_last)
{
    make_image_ok("t.qcow2", "qcow2,size=200k");
    blk = open_image();
    ck_assert_int_eq(write_packed(0, 4096, 1), -EINVAL);
    ck_assert_int_eq(write_packed(4096, 65536, 1), -EINVAL);
    ck_assert_int_eq(write_packed(65536, 65536 + 512, 1), -EINVAL);
    ck_assert_int_eq(write_packed(131072, 200 * 1024 - 131072, 7), 0);
    expect_fill(blk, 131072, 200 * 1024 - 131072, 7);
    close_sound();
}
END_TEST

START_TEST(an_image_with_a_data_file_refuses_compressed_writes)
{
    make_image_ok("t.qcow2", "qcow2,size=1M,data_file=t.data");
    blk = open_image();
    ck_assert_int_eq(write_packed(0, 65536, 1), -ENOTSUP);
    close_backend(blk);
}
END_TEST

/* --- many at once --------------------------------------------------------- */

enum { WRITERS = 24 };

typedef struct Writer {
    int index;
    uint8_t *buf;
    BlockIOVec1 iov;
} Writer;

static unsigned writers_left;

static void writer_done(void *opaque, int ret)
{
    ck_assert_int_eq(ret, 0);
    writers_left--;
}

START_TEST(many_compressed_writes_at_once_do_not_mix)
{
    Writer w[WRITERS];
    AioContext *ctx = block_graph_aio_context(graph);

    make_image_ok("t.qcow2", kinds[_i]);
    blk = open_image();
    writers_left = WRITERS;
    for (int i = 0; i < WRITERS; i++) {
        w[i].buf = g_malloc(131072);
        memset(w[i].buf, i + 1, 131072);
        if (i % 5 == 0) {
            noise(w[i].buf, 65536, i);
        }
        blk_aio_pwritev(blk, i * 131072,
                        block_iov_buf(&w[i].iov, w[i].buf, 131072),
                        BDRV_REQ_WRITE_COMPRESSED, writer_done, NULL);
    }
    while (writers_left > 0) {
        aio_poll(ctx, true);
    }
    for (int i = 0; i < WRITERS; i++) {
        g_autofree uint8_t *back = g_malloc(131072);

        ck_assert_int_eq(blk_pread(blk, i * 131072, 131072, back, 0), 0);
        ck_assert_mem_eq(w[i].buf, back, 131072);
        g_free(w[i].buf);
    }
    close_sound();
}
END_TEST

/* --- all kinds together --------------------------------------------------- */

static uint64_t seed = 4711;

static uint64_t next_random(uint64_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % below;
}

START_TEST(r63_reads_over_all_kinds_of_clusters_show_each_of_them)
{
    enum { CLUSTER = 4096, NR = 64, BYTES = NR * CLUSTER };
    static uint8_t model[BYTES], buf[BYTES], base[BYTES];
    g_autofree char *path = path_of("base");

    memset(base, 0xbb, BYTES);
    ck_assert(g_file_set_contents(path, (char *)base, BYTES, NULL));
    make_image_ok("t.qcow2", "qcow2,size=256k,cluster_size=4k,backing_file=base,backing_fmt=raw");
    blk = open_image();
    memcpy(model, base, BYTES);
    for (int round = 0; round < 400; round++) {
        int64_t at = next_random(NR) * CLUSTER;
        int64_t wanted = 1 + next_random(3);
        int64_t n = MIN(wanted, NR - at / CLUSTER) * CLUSTER;
        int byte = 1 + next_random(250);
        int64_t from = next_random(BYTES - 1);
        int64_t bytes = 1 + next_random(BYTES - from);

        switch (next_random(4)) {
        case 0:
            fill(blk, at, n, byte);
            break;
        case 1:
            ck_assert_int_eq(write_packed(at, n, byte), 0);
            break;
        case 2:
            byte = 0;
            ck_assert_int_eq(blk_pwrite_zeroes(blk, at, n, 0), 0);
            break;
        default:
            byte = 0;
            ck_assert_int_eq(blk_pwrite_zeroes(blk, at, n,
                                               BDRV_REQ_MAY_UNMAP), 0);
        }
        memset(model + at, byte, n);
        ck_assert_int_eq(blk_pread(blk, from, bytes, buf, 0), 0);
        ck_assert_mem_eq(buf, model + from, bytes);
    }
    ck_assert_int_eq(blk_flush(blk), 0);
    close_sound();
}
END_TEST

/* --- lies ----------------------------------------------------------------- */

/* The host offset of the L2 entry of the first cluster. */
static int64_t find_entry(void)
{
    Qcow2 *q;
    int64_t at;

    blk = open_image();
    q = state_of(blk);
    at = qcow2_l1_entry(q, 0) & QCOW2_OFFSET_MASK;
    close_backend(blk);
    ck_assert_int_gt(at, 0);
    return at;
}

static void set_length(int64_t bytes)
{
    g_autofree char *path = path_of("t.qcow2");

    ck_assert_int_eq(truncate(path, bytes), 0);
}

START_TEST(r14_compressed_data_that_ends_behind_the_file_is_an_error)
{
    static const struct {
        int64_t delta;  /* of the start, from the end of the file */
        int64_t bytes;
        bool inside;
    } cases[] = {
        { -512, 512, true }, { -512, 513, false }, { -512, 1024, false },
        { -1024, 1024, true }, { -1, 1, true }, { 0, 1, false },
        { 1, 1, false }, { 512, 1, false }, { 1 << 30, 1, false },
        { -513, 513, true }, { -100, 512, true }, { -100, 1200, false },
    };
    Qcow2Geometry geo;
    int64_t entry, end;
    uint8_t stream[512];
    uint8_t buf[512];

    qcow2_geometry_init(&geo, 16, 4, false);
    make_image_ok("t.qcow2", "qcow2,size=1M");
    blk = open_image();
    ck_assert_int_eq(write_packed(0, 65536, 0x66), 0);
    close_backend(blk);
    entry = find_entry();
    peek(qcow2_compressed_decode(&geo, read64(entry)).host_offset, stream,
         sizeof(stream));
    end = (file_length("t.qcow2") + 65535) / 65536 * 65536;
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        int64_t start = end + cases[i].delta;

        set_length(end);
        if (start < end) {
            poke(start, stream, MIN((int64_t)sizeof(stream), end - start));
        }
        poke64(entry, qcow2_compressed_encode(&geo, start, cases[i].bytes));
        blk = file_backend("qcow2,read-only=on,file.driver=file,"
                           "file.filename=%s/t.qcow2");
        if (cases[i].inside && cases[i].delta <= -512) {
            ck_assert_int_eq(blk_pread(blk, 0, 512, buf, 0), 0);
            ck_assert_int_eq(buf[511], 0x66);
        } else {
            ck_assert_int_eq(blk_pread(blk, 0, 512, buf, 0), -EIO);
        }
        close_backend(blk);
        ck_assert_int_eq(file_length("t.qcow2"), end);
    }
}
END_TEST

/* --- copying -------------------------------------------------------------- */

typedef struct Copy {
    BlockCopyState *state;
    BlockCopyHow how;
} Copy;

static int coroutine_fn copy_entry(void *opaque)
{
    Copy *copy = opaque;

    return block_copy(copy->state, &copy->how, NULL);
}

/* Of a source that ends inside a cluster the end is not compressed: in a longer
 * image it does not fill one. */
START_TEST(copies_are_compressed_whatever_the_length_of_the_source)
{
    int64_t bytes = 2 * MIB + 512;
    BlockDriverState *filter, *target;
    BlockBackend *source;
    Copy copy = { .how = { .bytes = bytes } };
    BlockCopyConfig config = { .compress = true };

    make_file("s.raw", bytes);
    make_image_ok("t.qcow2", kinds[0]);
    target = file_open_ok("qcow2,node-name=q,file.driver=file,"
                          "file.filename=%s/t.qcow2");
    source = file_backend("raw,node-name=s,file.driver=file,"
                          "file.filename=%s/s.raw");
    fill(source, 0, bytes, 0x33);
    filter = open_ok("copy-before-write,file=s,target=q");
    config.source = bdrv_filter_child(filter);
    config.target = cbw_node(filter)->target;
    copy.state = block_copy_state_new(&config, NULL);
    ck_assert_int_eq(aio_co_run(block_graph_aio_context(graph), copy_entry,
                                &copy), 0);
    block_copy_state_free(copy.state);
    bdrv_unref(filter);
    bdrv_unref(target);
    close_backend(source);
    blk = open_image();
    expect_fill(blk, 0, bytes, 0x33);
    expect_fill(blk, bytes, MIB, 0);
    close_sound();
    ck_assert_int_lt(file_length("t.qcow2"), MIB);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("qcow2-compress");
    TCase *tcase = tcase_create("compressed clusters");
    int nr = G_N_ELEMENTS(kinds);

    tcase_add_checked_fixture(tcase, file_setup, file_teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(
        tcase, requests_of_several_clusters_are_compressed_and_read_back, 0,
        nr);
    tcase_add_loop_test(tcase, what_does_not_shrink_is_written_as_it_is, 0,
                        nr);
    tcase_add_loop_test(tcase, many_compressed_writes_at_once_do_not_mix, 0,
                        2);
    PROMISE(tcase, only_whole_clusters_are_compressed_but_for_the_last);
    PROMISE(tcase, an_image_with_a_data_file_refuses_compressed_writes);
    PROMISE(tcase, r63_reads_over_all_kinds_of_clusters_show_each_of_them);
    PROMISE(tcase, r14_compressed_data_that_ends_behind_the_file_is_an_error);
    PROMISE(tcase, copies_are_compressed_whatever_the_length_of_the_source);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
