/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: compressed clusters, as bytes; hostile ones give an error and use no
 * more memory or time than a cluster is worth.
 */
#include "check-main.h"

#include <blockgraph/aio.h>
#include <errno.h>
#include <zlib.h>
#include <zstd.h>

#include "block/formats/qcow2/qcow2.h"

static AioContext *ctx;

static void setup(void)
{
    ctx = aio_context_new(AIO_ENGINE_AUTO, NULL);
    ck_assert_ptr_nonnull(ctx);
    aio_context_bind(ctx);
}

static void teardown(void)
{
    aio_context_unref(ctx);
}

/* --- calls ---------------------------------------------------------------- */

typedef struct Call {
    Qcow2CodecPool *pool;
    bool compress;
    const void *in;
    size_t in_bytes;
    void *out;
    size_t out_bytes;
} Call;

static int coroutine_fn call_entry(void *opaque)
{
    Call *call = opaque;

    if (call->compress) {
        return qcow2_compress(call->pool, call->in, call->out,
                              &call->out_bytes);
    }
    return qcow2_decompress(call->pool, call->in, call->in_bytes, call->out,
                            call->out_bytes);
}

static int run(Call *call)
{
    return aio_co_run(ctx, call_entry, call);
}

static int unpack(Qcow2CodecPool *pool, const void *in, size_t in_bytes,
                  void *out, size_t out_bytes)
{
    return run(&(Call){ pool, false, in, in_bytes, out, out_bytes });
}

static int pack(Qcow2CodecPool *pool, const void *in, void *out,
                size_t *ret_bytes)
{
    Call call = { .pool = pool, .compress = true, .in = in, .out = out };
    int ret = run(&call);

    *ret_bytes = call.out_bytes;
    return ret;
}

/* Text of a few different words. */
static void fill_text(uint8_t *buf, size_t bytes)
{
    uint32_t seed = 4711;

    for (size_t i = 0; i < bytes; i++) {
        if (i % 7 == 0) {
            seed = seed * 1103515245 + 12345;
        }
        buf[i] = "cluster block image write"[(i + (seed >> 16) % 5) % 25];
    }
}

static void fill_noise(uint8_t *buf, size_t bytes)
{
    uint64_t seed = 0x9e3779b97f4a7c15;

    for (size_t i = 0; i < bytes; i++) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        buf[i] = seed >> 32;
    }
}

/* --- both ways ------------------------------------------------------------ */

START_TEST(what_was_compressed_comes_back_at_all_cluster_sizes)
{
    for (int bits = QCOW2_MIN_CLUSTER_BITS; bits <= QCOW2_MAX_CLUSTER_BITS;
         bits++) {
        size_t cluster = (size_t)1 << bits, bytes;
        Qcow2CodecPool *pool = qcow2_codecs_new(_i, cluster);
        g_autofree uint8_t *plain = g_malloc(cluster);
        g_autofree uint8_t *packed = g_malloc(cluster);
        g_autofree uint8_t *back = g_malloc0(cluster);

        fill_text(plain, cluster);
        ck_assert_int_eq(pack(pool, plain, packed, &bytes), 0);
        ck_assert_uint_lt(bytes, cluster);
        ck_assert_int_eq(unpack(pool, packed, bytes, back, cluster), 0);
        ck_assert_mem_eq(plain, back, cluster);
        qcow2_codecs_free(pool);
    }
}
END_TEST

START_TEST(what_does_not_get_smaller_is_refused)
{
    enum { CLUSTER = 65536 };
    Qcow2CodecPool *pool = qcow2_codecs_new(_i, CLUSTER);
    g_autofree uint8_t *plain = g_malloc(CLUSTER);
    g_autofree uint8_t *packed = g_malloc(CLUSTER);
    size_t bytes;

    fill_noise(plain, CLUSTER);
    ck_assert_int_eq(pack(pool, plain, packed, &bytes), -ENOSPC);
    /* The codec that gave up is good for the next cluster. */
    fill_text(plain, CLUSTER);
    ck_assert_int_eq(pack(pool, plain, packed, &bytes), 0);
    qcow2_codecs_free(pool);
}
END_TEST

START_TEST(what_follows_the_stream_is_ignored)
{
    enum { CLUSTER = 4096 };
    Qcow2CodecPool *pool = qcow2_codecs_new(_i, CLUSTER);
    uint8_t plain[CLUSTER], packed[2 * CLUSTER], back[CLUSTER];
    size_t bytes;

    fill_text(plain, CLUSTER);
    ck_assert_int_eq(pack(pool, plain, packed, &bytes), 0);
    fill_noise(packed + bytes, sizeof(packed) - bytes);
    ck_assert_int_eq(unpack(pool, packed, sizeof(packed), back, CLUSTER), 0);
    ck_assert_mem_eq(plain, back, CLUSTER);
    qcow2_codecs_free(pool);
}
END_TEST

START_TEST(a_stream_cut_at_any_byte_is_an_error)
{
    enum { CLUSTER = 1024 };
    Qcow2CodecPool *pool = qcow2_codecs_new(_i, CLUSTER);
    uint8_t plain[CLUSTER], packed[CLUSTER], back[CLUSTER];
    size_t bytes;

    fill_text(plain, CLUSTER);
    ck_assert_int_eq(pack(pool, plain, packed, &bytes), 0);
    for (size_t cut = 0; cut < bytes; cut++) {
        int ret = unpack(pool, packed, cut, back, CLUSTER);

        /* The end mark of deflate may be missing, no byte of the data. */
        if (ret == 0) {
            ck_assert_int_eq(_i, QCOW2_COMPRESSION_ZLIB);
            ck_assert_uint_ge(cut + 2, bytes);
            ck_assert_mem_eq(plain, back, CLUSTER);
        } else {
            ck_assert_int_eq(ret, -EIO);
        }
    }
    ck_assert_int_eq(unpack(pool, packed, bytes, back, CLUSTER), 0);
    qcow2_codecs_free(pool);
}
END_TEST

START_TEST(noise_is_an_error_or_a_cluster_but_never_more)
{
    enum { CLUSTER = 4096 };
    Qcow2CodecPool *pool = qcow2_codecs_new(_i, CLUSTER);
    uint8_t packed[CLUSTER], back[CLUSTER + 16];

    memset(back + CLUSTER, 0xa5, 16);
    for (int round = 0; round < 200; round++) {
        size_t bytes;

        fill_text(back, CLUSTER);
        ck_assert_int_eq(pack(pool, back, packed, &bytes), 0);
        packed[round * 7919 % bytes] ^= 1 << round % 8;
        unpack(pool, packed, bytes, back, CLUSTER);
        for (int i = 0; i < 16; i++) {
            ck_assert_int_eq(back[CLUSTER + i], 0xa5);
        }
    }
    qcow2_codecs_free(pool);
}
END_TEST

/* --- many at once --------------------------------------------------------- */

typedef struct Crowd {
    Qcow2CodecPool *pool;
    int ret;
    int nr_left;
} Crowd;

static int coroutine_fn crowd_task(void *opaque)
{
    Crowd *crowd = opaque;
    g_autofree uint8_t *plain = g_malloc(65536);
    g_autofree uint8_t *packed = g_malloc(65536);
    size_t bytes;
    int ret;

    fill_text(plain, 65536);
    plain[7] = crowd->nr_left--;
    ret = qcow2_compress(crowd->pool, plain, packed, &bytes);
    if (ret == 0) {
        g_autofree uint8_t *back = g_malloc(65536);

        ret = qcow2_decompress(crowd->pool, packed, bytes, back, 65536);
        ck_assert_mem_eq(plain, back, 65536);
    }
    return ret;
}

static int coroutine_fn crowd_entry(void *opaque)
{
    Crowd *crowd = opaque;
    CoTaskPool *tasks = co_task_pool_new(40);
    int ret;

    for (int i = 0; i < 200; i++) {
        co_task_pool_start(tasks, crowd_task, crowd);
    }
    ret = co_task_pool_wait_all(tasks);
    co_task_pool_free(tasks);
    return ret;
}

START_TEST(many_clusters_at_once_do_not_mix)
{
    Crowd crowd = { .nr_left = 200 };

    crowd.pool = qcow2_codecs_new(_i, 65536);
    ck_assert_int_eq(aio_co_run(ctx, crowd_entry, &crowd), 0);
    qcow2_codecs_free(crowd.pool);
}
END_TEST

/* --- bombs ---------------------------------------------------------------- */

/* A frame of @bytes zeroes whose decoder must keep 1 << @window_log bytes. */
static size_t zstd_frame(int window_log, bool with_size, size_t bytes,
                         uint8_t *out, size_t room)
{
    ZSTD_CCtx *c = ZSTD_createCCtx();
    g_autofree uint8_t *zeroes = g_malloc0(bytes);
    ZSTD_inBuffer in = { zeroes, bytes, 0 };
    ZSTD_outBuffer o = { out, room, 0 };

    ZSTD_CCtx_setParameter(c, ZSTD_c_windowLog, window_log);
    ZSTD_CCtx_setParameter(c, ZSTD_c_contentSizeFlag, with_size);
    while (in.pos < in.size) {
        ck_assert(!ZSTD_isError(ZSTD_compressStream2(c, &o, &in,
                                                     ZSTD_e_continue)));
    }
    ck_assert_uint_eq(ZSTD_compressStream2(c, &o, &in, ZSTD_e_end), 0);
    ZSTD_freeCCtx(c);
    return o.pos;
}

START_TEST(r19_a_zstd_window_above_a_cluster_is_refused)
{
    enum { CLUSTER = 65536 };
    Qcow2CodecPool *pool = qcow2_codecs_new(QCOW2_COMPRESSION_ZSTD, CLUSTER);
    g_autofree uint8_t *back = g_malloc(CLUSTER);
    uint8_t packed[4096];

    for (int window_log = 10; window_log <= 27; window_log++) {
        size_t bytes = zstd_frame(window_log, false, CLUSTER, packed,
                                  sizeof(packed));

        ck_assert_int_eq(unpack(pool, packed, bytes, back, CLUSTER),
                         window_log <= 16 ? 0 : -EIO);
    }
    qcow2_codecs_free(pool);
}
END_TEST

START_TEST(r19_a_zstd_frame_without_content_size_is_read)
{
    enum { CLUSTER = 4096 };
    Qcow2CodecPool *pool = qcow2_codecs_new(QCOW2_COMPRESSION_ZSTD, CLUSTER);
    uint8_t packed[4096], back[CLUSTER];
    size_t bytes = zstd_frame(12, false, CLUSTER, packed, sizeof(packed));

    memset(back, 1, CLUSTER);
    ck_assert_int_eq(unpack(pool, packed, bytes, back, CLUSTER), 0);
    ck_assert(block_buffer_is_zero(back, CLUSTER));
    qcow2_codecs_free(pool);
}
END_TEST

START_TEST(r19_a_zstd_frame_of_another_length_is_refused)
{
    enum { CLUSTER = 4096 };
    Qcow2CodecPool *pool = qcow2_codecs_new(QCOW2_COMPRESSION_ZSTD, CLUSTER);
    uint8_t packed[65536], back[CLUSTER];
    size_t more = zstd_frame(12, false, CLUSTER + 1, packed, sizeof(packed));

    ck_assert_int_eq(unpack(pool, packed, more, back, CLUSTER), -EIO);
    more = zstd_frame(12, false, 1 << 20, packed, sizeof(packed));
    ck_assert_int_eq(unpack(pool, packed, more, back, CLUSTER), -EIO);
    more = zstd_frame(12, false, CLUSTER - 1, packed, sizeof(packed));
    ck_assert_int_eq(unpack(pool, packed, more, back, CLUSTER), -EIO);
    qcow2_codecs_free(pool);
}
END_TEST

START_TEST(r19_a_cluster_of_several_zstd_frames_is_read)
{
    enum { CLUSTER = 4096 };
    Qcow2CodecPool *pool = qcow2_codecs_new(QCOW2_COMPRESSION_ZSTD, CLUSTER);
    uint8_t packed[4096], back[CLUSTER];
    size_t bytes = 0;

    for (int i = 0; i < 4; i++) {
        bytes += zstd_frame(10, false, CLUSTER / 4, packed + bytes,
                            sizeof(packed) - bytes);
    }
    ck_assert_int_eq(unpack(pool, packed, bytes, back, CLUSTER), 0);
    /* A fifth one behind them is not looked at. */
    bytes += zstd_frame(10, false, CLUSTER / 4, packed + bytes,
                        sizeof(packed) - bytes);
    ck_assert_int_eq(unpack(pool, packed, bytes, back, CLUSTER), 0);
    qcow2_codecs_free(pool);
}
END_TEST

START_TEST(r19_a_million_empty_zstd_blocks_take_no_time)
{
    enum { CLUSTER = 2 << 20, BLOCKS = 1000000 };
    static const uint8_t head[] = { 0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58 };
    Qcow2CodecPool *pool = qcow2_codecs_new(QCOW2_COMPRESSION_ZSTD, CLUSTER);
    g_autofree uint8_t *packed = g_malloc0(sizeof(head) + 3 * BLOCKS);
    g_autofree uint8_t *back = g_malloc(CLUSTER);
    int64_t before = g_get_monotonic_time();

    memcpy(packed, head, sizeof(head)); /* then raw blocks of 0 bytes */
    ck_assert_int_eq(unpack(pool, packed, sizeof(head) + 3 * BLOCKS, back,
                            CLUSTER), -EIO);
    ck_assert_int_lt(g_get_monotonic_time() - before, 2 * G_USEC_PER_SEC);
    qcow2_codecs_free(pool);
}
END_TEST

START_TEST(r19_a_deflate_bomb_fills_a_cluster_and_no_more)
{
    enum { CLUSTER = 4096 };
    Qcow2CodecPool *pool = qcow2_codecs_new(QCOW2_COMPRESSION_ZLIB, CLUSTER);
    g_autofree uint8_t *packed = g_malloc(200000);
    g_autofree uint8_t *zeroes = g_malloc0(100 << 20);
    uint8_t back[CLUSTER + 16];
    z_stream z = { .next_in = zeroes, .avail_in = 100 << 20,
                   .next_out = packed, .avail_out = 200000 };

    ck_assert_int_eq(deflateInit2(&z, 9, Z_DEFLATED, -15, 9, 0), Z_OK);
    ck_assert_int_eq(deflate(&z, Z_FINISH), Z_STREAM_END);
    memset(back, 0xa5, sizeof(back));
    ck_assert_int_eq(unpack(pool, packed, 200000 - z.avail_out, back, CLUSTER),
                     0);
    ck_assert(block_buffer_is_zero(back, CLUSTER));
    ck_assert_int_eq(back[CLUSTER], 0xa5);
    deflateEnd(&z);
    qcow2_codecs_free(pool);
}
END_TEST

START_TEST(deflate_of_any_window_is_read)
{
    enum { CLUSTER = 65536 };
    Qcow2CodecPool *pool = qcow2_codecs_new(QCOW2_COMPRESSION_ZLIB, CLUSTER);
    g_autofree uint8_t *plain = g_malloc(CLUSTER);
    g_autofree uint8_t *packed = g_malloc(CLUSTER);
    g_autofree uint8_t *back = g_malloc(CLUSTER);

    fill_noise(plain, CLUSTER / 4);
    memcpy(plain + CLUSTER / 2, plain, CLUSTER / 4); /* a match far back */
    memset(plain + CLUSTER / 4, 'x', CLUSTER / 4);
    memset(plain + CLUSTER / 4 * 3, 'y', CLUSTER / 4);
    for (int bits = 9; bits <= 15; bits++) {
        z_stream z = { .next_in = plain, .avail_in = CLUSTER,
                       .next_out = packed, .avail_out = CLUSTER };

        ck_assert_int_eq(deflateInit2(&z, 9, Z_DEFLATED, -bits, 9, 0), Z_OK);
        ck_assert_int_eq(deflate(&z, Z_FINISH), Z_STREAM_END);
        ck_assert_int_eq(unpack(pool, packed, CLUSTER - z.avail_out, back,
                                CLUSTER), 0);
        ck_assert_mem_eq(plain, back, CLUSTER);
        deflateEnd(&z);
    }
    qcow2_codecs_free(pool);
}
END_TEST

START_TEST(what_is_written_needs_a_window_of_4096_only)
{
    enum { CLUSTER = 65536 };
    Qcow2CodecPool *pool = qcow2_codecs_new(QCOW2_COMPRESSION_ZLIB, CLUSTER);
    g_autofree uint8_t *plain = g_malloc(CLUSTER);
    g_autofree uint8_t *packed = g_malloc(CLUSTER);
    g_autofree uint8_t *back = g_malloc(CLUSTER);
    z_stream z = { .next_in = packed, .next_out = back, .avail_out = CLUSTER };
    size_t bytes;

    /* Noise that comes again 8 KiB later, and gaps to make it smaller. */
    fill_text(plain, CLUSTER);
    fill_noise(plain, 4096);
    memcpy(plain + 8192, plain, 4096);
    ck_assert_int_eq(pack(pool, plain, packed, &bytes), 0);
    z.avail_in = bytes;
    ck_assert_int_eq(inflateInit2(&z, -12), Z_OK);
    ck_assert_int_eq(inflate(&z, Z_FINISH), Z_STREAM_END);
    ck_assert_mem_eq(plain, back, CLUSTER);
    inflateEnd(&z);
    qcow2_codecs_free(pool);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("qcow2-codec");
    TCase *both = tcase_create("both ways");
    TCase *bombs = tcase_create("bombs");

    tcase_add_checked_fixture(both, setup, teardown);
    tcase_add_checked_fixture(bombs, setup, teardown);
    tcase_set_timeout(both, 60);
    tcase_set_timeout(bombs, 60);
    tcase_add_loop_test(
        both, what_was_compressed_comes_back_at_all_cluster_sizes, 0, 2);
    tcase_add_loop_test(both, what_does_not_get_smaller_is_refused, 0, 2);
    tcase_add_loop_test(both, what_follows_the_stream_is_ignored, 0, 2);
    tcase_add_loop_test(both, a_stream_cut_at_any_byte_is_an_error, 0, 2);
    tcase_add_loop_test(both, noise_is_an_error_or_a_cluster_but_never_more,
                        0, 2);
    tcase_add_loop_test(both, many_clusters_at_once_do_not_mix, 0, 2);
    PROMISE(bombs, r19_a_zstd_window_above_a_cluster_is_refused);
    PROMISE(bombs, r19_a_zstd_frame_without_content_size_is_read);
    PROMISE(bombs, r19_a_zstd_frame_of_another_length_is_refused);
    PROMISE(bombs, r19_a_cluster_of_several_zstd_frames_is_read);
    PROMISE(bombs, r19_a_million_empty_zstd_blocks_take_no_time);
    PROMISE(bombs, r19_a_deflate_bomb_fills_a_cluster_and_no_more);
    PROMISE(bombs, deflate_of_any_window_is_read);
    PROMISE(bombs, what_is_written_needs_a_window_of_4096_only);
    suite_add_tcase(suite, both);
    suite_add_tcase(suite, bombs);
    return check_main(suite);
}
