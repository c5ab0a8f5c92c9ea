/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests at nodes: whatever the alignment, limits and flags, the disk holds
 * what a plain array of bytes would hold.
 */
#include "graph-fixture.h"
#include "mem-driver.h"
#include "request-fixture.h"

#include <inttypes.h>

#define READ BLK_PERM_CONSISTENT_READ
#define WRITE BLK_PERM_WRITE
#define RESIZE BLK_PERM_RESIZE
#define ALL BLK_PERM_ALL

static BlockDriverState *disk;
static BlockBackend *blk;
static MemDisk *mem;

static void open_disk(const char *text)
{
    disk = open_ok(text);
    blk = backend_ok("guest", disk, READ | WRITE | RESIZE, ALL);
    mem = mem_disk(disk);
}

static void close_disk(void)
{
    blk_unref(blk);
    bdrv_unref(disk);
}

/* --- the door ------------------------------------------------------------- */

START_TEST(ranges_outside_the_disk_are_refused)
{
    static const struct { int64_t offset, bytes; int ret; } cases[] = {
        { 0, 0, 0 },           { 4096, 0, 0 },
        { 4097, 0, -EIO },     { 4096, 1, -EIO },
        { 4095, 1, 0 },        { -1, 1, -EIO },
        { 0, -1, -EIO },       { INT64_MAX, 1, -EIO },
        { INT64_MAX, INT64_MAX, -EIO },
        { 1, INT64_MAX, -EIO },
        { INT64_C(1) << 32, 1, -EIO },
        { (INT64_C(1) << 32) - 1, INT64_C(1) << 31, -EIO },
    };

    open_disk("mem,size=4k,discard=unmap");
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        char buf[1] = { 0 };
        int64_t o = cases[i].offset;
        int64_t n = cases[i].bytes;

        if (n <= 1) {
            ck_assert_int_eq(blk_pread(blk, o, n, buf, 0), cases[i].ret);
            ck_assert_int_eq(blk_pwrite(blk, o, n, buf, 0), cases[i].ret);
        }
        ck_assert_int_eq(blk_pwrite_zeroes(blk, o, n, 0), cases[i].ret);
        ck_assert_int_eq(blk_pdiscard(blk, o, n), cases[i].ret);
    }
    ck_assert_int_eq(mem->length, 4096);
    close_disk();
}
END_TEST

START_TEST(zero_length_requests_at_any_offset_never_reach_the_driver)
{
    open_disk("mem,size=4k,align=512");
    for (int64_t offset = 0; offset <= 4096; offset++) {
        ck_assert_int_eq(blk_pread(blk, offset, 0, NULL, 0), 0);
        ck_assert_int_eq(blk_pwrite(blk, offset, 0, NULL, 0), 0);
        ck_assert_int_eq(blk_pwrite_zeroes(blk, offset, 0, 0), 0);
    }
    ck_assert_uint_eq(mem->count[MEM_READ] + mem->count[MEM_WRITE] +
                      mem->count[MEM_ZERO], 0);
    close_disk();
}
END_TEST

START_TEST(a_backend_may_do_only_what_it_asked_for)
{
    BlockBackend *reader;
    char byte = 0;

    open_disk("mem,size=4k");
    reader = backend_ok("reader", disk, READ, ALL);
    ck_assert_int_eq(blk_pread(reader, 0, 1, &byte, 0), 0);
    ck_assert_int_eq(blk_pwrite(reader, 0, 1, &byte, 0), -EPERM);
    ck_assert_int_eq(blk_pwrite_zeroes(reader, 0, 1, 0), -EPERM);
    ck_assert_int_eq(blk_pdiscard(reader, 0, 1), -EPERM);
    blk_remove_bs(reader);
    ck_assert_int_eq(blk_pread(reader, 0, 1, &byte, 0), -ENOMEDIUM);
    blk_unref(reader);
    close_disk();
}
END_TEST

START_TEST(unknown_flags_and_wrong_vectors_are_refused)
{
    char buf[8];
    BlockIOVec1 iov;

    open_disk("mem,size=4k");
    block_iov_buf(&iov, buf, 8);
    ck_assert_int_eq(blk_preadv(blk, 0, 8, &iov.vec, 1u << 30), -EINVAL);
    ck_assert_int_eq(blk_preadv(blk, 0, 7, &iov.vec, 0), -EINVAL);
    ck_assert_int_eq(blk_pwritev(blk, 0, 8, &iov.vec, BDRV_REQ_ZERO_WRITE),
                     -EINVAL);
    ck_assert_int_eq(blk_pwritev(blk, 0, 9, &iov.vec, 0), -EINVAL);
    ck_assert_int_eq(blk_pwritev(blk, 0, 8, &iov.vec,
                                 BDRV_REQ_WRITE_COMPRESSED), -ENOTSUP);
    ck_assert_int_eq(blk_preadv(blk, 0, 8, NULL, BDRV_REQ_PREFETCH),
                     -ENOTSUP);
    ck_assert_int_eq(blk_pwritev(blk, 0, 8, NULL, BDRV_REQ_PREFETCH), -EINVAL);
    ck_assert_int_eq(blk_pwritev(blk, 0, 8, &iov.vec, BDRV_REQ_ZERO_WRITE),
                     -EINVAL);
    ck_assert_uint_eq(mem->count[MEM_WRITE], 0);
    close_disk();
}
END_TEST

/* --- content -------------------------------------------------------------- */

static uint64_t seed_state;

static uint64_t rnd(uint64_t below)
{
    seed_state = seed_state * 6364136223846793005ull + 1442695040888963407ull;
    return (seed_state >> 33) % below;
}

/* @buf in up to 20 pieces with guard bytes, gathered at random. */
typedef struct Pieces {
    struct iovec iov[20];
    BlockIOVec vec;
    uint8_t *memory;
} Pieces;

static void pieces_make(Pieces *p, int64_t bytes)
{
    int niov = 1 + rnd(19);
    int64_t left = bytes;

    p->memory = g_malloc(bytes + 20 * 16 + 16);
    memset(p->memory, 0xee, bytes + 20 * 16 + 16);
    uint8_t *at = p->memory + 16;
    for (int i = 0; i < niov; i++) {
        int64_t len = i == niov - 1 ? left : (int64_t)rnd(left + 1);

        p->iov[i].iov_base = at;
        p->iov[i].iov_len = len;
        at += len + 16;
        left -= len;
    }
    block_iov_init_external(&p->vec, p->iov, niov);
}

static void pieces_free(Pieces *p)
{
    uint8_t *guard = p->memory;

    for (int i = 0; i < p->vec.niov; i++) {
        for (; guard < (uint8_t *)p->iov[i].iov_base; guard++) {
            ck_assert_uint_eq(*guard, 0xee);
        }
        guard += p->iov[i].iov_len;
    }
    g_free(p->memory);
}

static void random_step(uint8_t *model, int64_t length)
{
    int64_t offset = rnd(length);
    int64_t bytes = rnd(MIN(length - offset, 20000)) + 1;
    unsigned flags = rnd(4) == 0 ? BDRV_REQ_FUA : 0;
    Pieces p;
    g_autofree uint8_t *flat = g_malloc(bytes);

    pieces_make(&p, bytes);
    switch (rnd(4)) {
    case 0:
        for (int64_t i = 0; i < bytes; i++) {
            flat[i] = rnd(256);
        }
        block_iov_from_buf(&p.vec, 0, flat, bytes);
        ck_assert_int_eq(blk_pwritev(blk, offset, bytes, &p.vec, flags), 0);
        memcpy(model + offset, flat, bytes);
        break;
    case 1:
        flags |= rnd(2) ? BDRV_REQ_MAY_UNMAP : 0;
        ck_assert_int_eq(blk_pwrite_zeroes(blk, offset, bytes, flags), 0);
        memset(model + offset, 0, bytes);
        break;
    default:
        ck_assert_int_eq(blk_preadv(blk, offset, bytes, &p.vec, 0), 0);
        block_iov_to_buf(&p.vec, 0, flat, bytes);
        ck_assert_int_eq(memcmp(flat, model + offset, bytes), 0);
    }
    pieces_free(&p);
}

START_TEST(random_requests_behave_like_an_array_of_bytes)
{
    static const char *const disks[] = {
        "mem,size=100k,fua=off",
        "mem,size=100k,align=512",
        "mem,size=100k,align=4096,zero=off",
        "mem,size=100k,align=512,mem-align=512,max-transfer=1k,fua=off",
        "mem,size=100k,align=4096,max-transfer=4k,zero-align=16k",
        "mem,size=100k,align=512,max-iov=1,zero-align=1k",
        "mem,size=100k,align=64k,mem-align=4k,detect-zeroes=on",
        "mem,size=102399,align=512",
        "pass,file.driver=mem,file.size=100k,file.align=512",
        ("mem,size=100k,backing.driver=mem,backing.size=50k,"
         "backing.align=512"),
    };
    int64_t length;
    g_autofree uint8_t *model = g_malloc0(100 * 1024);

    open_disk(disks[_i]);
    mem = NULL;
    length = bdrv_length(disk);
    seed_state = 4711 + _i;
    for (int step = 0; step < 1000; step++) {
        random_step(model, length);
    }
    ck_assert_int_eq(blk_flush(blk), 0);
    ck_assert_int_eq(blk_in_flight(blk), 0);
    close_disk();
}
END_TEST

START_TEST(a_vector_of_more_pieces_than_the_system_takes_is_gathered)
{
    enum { N = 3000 };
    struct iovec *iov = g_new(struct iovec, N);
    g_autofree uint8_t *memory = g_malloc(N);
    g_autofree uint8_t *back = g_malloc(N);
    BlockIOVec vec;

    open_disk("mem,size=64k,align=512");
    for (int i = 0; i < N; i++) {
        memory[i] = i * 7;
        iov[i] = (struct iovec){ memory + i, 1 };
    }
    block_iov_init_external(&vec, iov, N);
    ck_assert_int_eq(blk_pwritev(blk, 1, N, &vec, 0), 0);
    ck_assert_int_eq(blk_pread(blk, 1, N, back, 0), 0);
    ck_assert_int_eq(memcmp(memory, back, N), 0);
    g_free(iov);
    close_disk();
}
END_TEST

/* --- padding, splitting, flags -------------------------------------------- */

START_TEST(an_unaligned_write_is_one_write_of_whole_blocks)
{
    char data[1000] = { 1 };

    open_disk("mem,size=64k,align=512");
    ck_assert_int_eq(blk_pwrite(blk, 700, sizeof(data), data, 0), 0);
    ck_assert_uint_eq(mem->count[MEM_READ], 2);
    ck_assert_uint_eq(mem->count[MEM_WRITE], 1);
    ck_assert_int_eq(mem->last[MEM_WRITE].offset, 512);
    ck_assert_int_eq(mem->last[MEM_WRITE].bytes, 1536);

    ck_assert_int_eq(blk_pwrite(blk, 513, 10, data, 0), 0);
    ck_assert_uint_eq(mem->count[MEM_READ], 3); /* one block, read once */
    close_disk();
}
END_TEST

START_TEST(a_long_request_is_cut_to_the_limit)
{
    g_autofree char *data = g_malloc0(64 * 1024);

    open_disk("mem,size=64k,max-transfer=10000,align=4096");
    ck_assert_int_eq(blk_pwrite(blk, 0, 64 * 1024, data, 0), 0);
    ck_assert_uint_eq(mem->count[MEM_WRITE], 8); /* 8 KiB each */
    close_disk();
}
END_TEST

START_TEST(fua_is_emulated_by_a_flush_that_sees_the_write)
{
    open_disk("mem,size=64k,fua=off,align=512");
    ck_assert_int_eq(blk_pwrite(blk, 0, 512, (char[512]){ 1 }, BDRV_REQ_FUA),
                     0);
    ck_assert_uint_eq(mem->count[MEM_FLUSH], 1);
    ck_assert_uint_eq(mem->last[MEM_WRITE].flags, 0);
    ck_assert_int_eq(blk_pwrite(blk, 5, 7, "abcdefg", BDRV_REQ_FUA), 0);
    ck_assert_uint_eq(mem->count[MEM_FLUSH], 2);
    ck_assert_int_eq(blk_pwrite_zeroes(blk, 5, 2000, BDRV_REQ_FUA), 0);
    ck_assert_uint_ge(mem->count[MEM_FLUSH], 3);
    mem->fail[MEM_FLUSH] = EIO;
    ck_assert_int_eq(blk_pwrite(blk, 0, 512, (char[512]){ 1 }, BDRV_REQ_FUA),
                     -EIO);
    close_disk();
}
END_TEST

START_TEST(fua_goes_through_where_the_driver_takes_it)
{
    open_disk("mem,size=64k");
    ck_assert_int_eq(blk_pwrite(blk, 0, 4, "abcd", BDRV_REQ_FUA), 0);
    ck_assert_uint_eq(mem->last[MEM_WRITE].flags, BDRV_REQ_FUA);
    ck_assert_uint_eq(mem->count[MEM_FLUSH], 0);
    blk_set_write_through(blk, true);
    ck_assert_int_eq(blk_pwrite(blk, 0, 4, "abcd", 0), 0);
    ck_assert_uint_eq(mem->last[MEM_WRITE].flags, BDRV_REQ_FUA);
    close_disk();
}
END_TEST

START_TEST(detect_zeroes_turns_zeroes_into_zero_writes)
{
    char zeroes[4096] = { 0 };

    open_disk("mem,size=64k,detect-zeroes=unmap,discard=unmap");
    ck_assert_int_eq(blk_pwrite(blk, 0, 4096, zeroes, BDRV_REQ_FUA), 0);
    ck_assert_uint_eq(mem->count[MEM_WRITE], 0);
    ck_assert_uint_eq(mem->count[MEM_ZERO], 1);
    ck_assert_uint_eq(mem->last[MEM_ZERO].flags,
                      BDRV_REQ_ZERO_WRITE | BDRV_REQ_MAY_UNMAP |
                      BDRV_REQ_FUA);
    zeroes[4095] = 1;
    ck_assert_int_eq(blk_pwrite(blk, 0, 4096, zeroes, 0), 0);
    ck_assert_uint_eq(mem->count[MEM_WRITE], 1);
    close_disk();
}
END_TEST

/* --- zero writes and discards --------------------------------------------- */

START_TEST(no_fallback_fails_where_data_would_be_written)
{
    open_disk("mem,size=64k,zero=off");
    ck_assert_int_eq(blk_pwrite_zeroes(blk, 0, 4096, BDRV_REQ_NO_FALLBACK),
                     -ENOTSUP);
    ck_assert_uint_eq(mem->count[MEM_WRITE], 0);
    ck_assert_int_eq(blk_pwrite_zeroes(blk, 0, 4096, 0), 0);
    ck_assert_uint_eq(mem->count[MEM_WRITE], 1);
    close_disk();
}
END_TEST

START_TEST(the_aligned_middle_of_a_zero_write_is_zeroed_by_the_driver)
{
    open_disk("mem,size=64k,align=512,zero-align=4k");
    ck_assert_int_eq(blk_pwrite_zeroes(blk, 512, 16 * 1024, 0), 0);
    ck_assert_int_eq(mem->last[MEM_ZERO].offset, 4096);
    ck_assert_int_eq(mem->last[MEM_ZERO].bytes, 12 * 1024);
    ck_assert_uint_eq(mem->count[MEM_WRITE], 2); /* head and tail as data */
    close_disk();
}
END_TEST

START_TEST(zeroes_written_as_data_keep_the_mark_of_an_unchanged_write)
{
    open_disk("mem,size=64k,align=512,zero=off");
    for (int64_t offset = 0; offset < 3; offset++) {
        mem->last[MEM_WRITE].flags = 0;
        ck_assert_int_eq(blk_pwrite_zeroes(blk, offset, offset ? 9 : 2048,
                                           BDRV_REQ_WRITE_UNCHANGED), 0);
        ck_assert_uint_eq(mem->last[MEM_WRITE].flags,
                          BDRV_REQ_WRITE_UNCHANGED);
    }
    close_disk();
}
END_TEST

START_TEST(discard_keeps_to_whole_blocks_and_forgives_a_driver_without_it)
{
    open_disk("mem,size=64k,align=512,discard-align=4k,discard=unmap");
    ck_assert_int_eq(blk_pdiscard(blk, 100, 20000), 0);
    ck_assert_int_eq(mem->last[MEM_DISCARD].offset, 4096);
    ck_assert_int_eq(mem->last[MEM_DISCARD].bytes, 12288);
    ck_assert_int_eq(blk_pdiscard(blk, 1, 100), 0);
    ck_assert_uint_eq(mem->count[MEM_DISCARD], 1);
    mem->fail[MEM_DISCARD] = EIO;
    ck_assert_int_eq(blk_pdiscard(blk, 0, 4096), -EIO);
    close_disk();

    open_disk("mem,size=64k,can-discard=off,discard=unmap");
    ck_assert_int_eq(blk_pdiscard(blk, 0, 4096), 0);
    close_disk();

    open_disk("mem,size=64k,discard=ignore");
    ck_assert_int_eq(blk_pdiscard(blk, 0, 4096), 0);
    ck_assert_uint_eq(mem->count[MEM_DISCARD], 0);
    close_disk();
}
END_TEST

/* --- flush ---------------------------------------------------------------- */

START_TEST(a_flush_without_a_write_since_the_last_one_costs_nothing)
{
    open_disk("mem,size=64k");
    ck_assert_int_eq(blk_flush(blk), 0);
    ck_assert_uint_eq(mem->count[MEM_FLUSH], 0);
    ck_assert_int_eq(blk_pwrite(blk, 0, 1, "x", 0), 0);
    ck_assert_int_eq(blk_flush(blk), 0);
    ck_assert_int_eq(blk_flush(blk), 0);
    ck_assert_uint_eq(mem->count[MEM_FLUSH], 1);
    close_disk();
}
END_TEST

START_TEST(a_flush_that_failed_is_asked_again)
{
    open_disk("mem,size=64k");
    ck_assert_int_eq(blk_pwrite(blk, 0, 1, "x", 0), 0);
    mem->fail[MEM_FLUSH] = EIO;
    ck_assert_int_eq(blk_flush(blk), -EIO);
    ck_assert_int_eq(blk_flush(blk), 0);
    ck_assert_uint_eq(mem->count[MEM_FLUSH], 2);
    close_disk();
}
END_TEST

START_TEST(a_failed_write_counts_for_the_next_flush)
{
    open_disk("mem,size=64k");
    mem->fail[MEM_WRITE] = EIO;
    ck_assert_int_eq(blk_pwrite(blk, 0, 1, "x", 0), -EIO);
    ck_assert_int_eq(blk_flush(blk), 0);
    ck_assert_uint_eq(mem->count[MEM_FLUSH], 1);
    close_disk();
}
END_TEST

/* --- truncate ------------------------------------------------------------- */

START_TEST(truncate_changes_the_length_both_ways)
{
    BlockTruncate how = { .offset = 100000, .exact = true };
    GError *error = NULL;
    char byte = 'x';

    open_disk("mem,size=64k");
    ck_assert_int_eq(blk_pwrite(blk, 65535, 1, "y", 0), 0);
    ck_assert_int_eq(blk_truncate(blk, &how, &error), 0);
    ck_assert_int_eq(blk_getlength(blk), 100000);
    ck_assert_int_eq(blk_pread(blk, 99999, 1, &byte, 0), 0);
    ck_assert_int_eq(byte, 0);
    how.offset = 100;
    ck_assert_int_eq(blk_truncate(blk, &how, &error), 0);
    ck_assert_int_eq(blk_pread(blk, 100, 1, &byte, 0), -EIO);
    how.offset = -1;
    ck_assert_int_eq(blk_truncate(blk, &how, &error), -EINVAL);
    expect_error(&error, EINVAL, "-1");
    mem->fail[MEM_TRUNCATE] = ENOSPC;
    how.offset = 200;
    ck_assert_int_eq(blk_truncate(blk, &how, &error), -ENOSPC);
    expect_error(&error, ENOSPC, "truncate");
    ck_assert_int_eq(blk_getlength(blk), 100);
    close_disk();
}
END_TEST

START_TEST(truncate_at_the_largest_length_is_safe)
{
    BlockTruncate how = { .offset = BDRV_MAX_LENGTH };
    BlockDriverState *null = open_ok("null-co,size=0");
    BlockBackend *user = backend_ok("user", null, WRITE | RESIZE, ALL);
    GError *error = NULL;

    ck_assert_int_eq(blk_truncate(user, &how, NULL), 0);
    ck_assert_int_eq(blk_truncate(user, &how, NULL), 0);
    ck_assert_int_eq(blk_getlength(user), BDRV_MAX_LENGTH);
    how.offset = BDRV_MAX_LENGTH + 1;
    ck_assert_int_eq(blk_truncate(user, &how, &error), -EINVAL);
    expect_error(&error, EINVAL, "invalid length");
    blk_unref(user);
    bdrv_unref(null);
}
END_TEST

static void coroutine_fn truncate_entry(void *opaque)
{
    BlockTruncate how = { .offset = *(int64_t *)opaque, .exact = true };

    g_assert(blk_co_truncate(blk, &how, NULL) == 0);
}

START_TEST(growing_after_another_truncate_does_not_zero_a_later_write)
{
    BlockDriverState *base = open_ok("mem,node-name=base,size=64k");
    AioContext *ctx = block_graph_aio_context(graph);
    int64_t small = 8 << 10, large = 48 << 10;
    Request write;

    memset(mem_disk(base)->allocated, 1, 16);
    open_disk("mem,size=64k,backing=base");
    atomic_store(&mem->hold[MEM_TRUNCATE], true);
    atomic_store(&mem->hold[MEM_ZERO], true);
    /* The second asks while the node is long, and runs when it is short. */
    aio_co_enter(ctx, coroutine_create(truncate_entry, &small));
    aio_co_enter(ctx, coroutine_create(truncate_entry, &large));
    settle();
    atomic_store(&mem->hold[MEM_TRUNCATE], false);
    do {
        settle();
    } while (blk_getlength(blk) != large);
    request_write(&write, blk, 16 << 10);
    settle();
    ck_assert_int_eq(atomic_load(&write.done), 0);
    atomic_store(&mem->hold[MEM_ZERO], false);
    while (atomic_load(&write.done) == 0) {
        settle();
    }
    ck_assert_int_eq(atomic_load(&write.done), 1);
    close_disk();
    bdrv_unref(base);
}
END_TEST

START_TEST(growing_over_a_longer_backing_file_shows_zeroes_not_its_data)
{
    BlockTruncate how = { .offset = 64 << 10, .exact = true };
    BlockDriverState *base = open_ok("mem,node-name=base,size=64k");
    char buf[4096];

    memset(mem_disk(base)->data, 0x55, 64 << 10);
    memset(mem_disk(base)->allocated, 1, 16);
    open_disk("mem,size=8k,backing=base");
    ck_assert_int_eq(blk_pread(blk, 4096, 4096, buf, 0), 0);
    ck_assert_int_eq(buf[0], 0x55);
    ck_assert_int_eq(blk_truncate(blk, &how, NULL), 0);
    for (int64_t offset = 8192; offset < (64 << 10); offset += 4096) {
        ck_assert_int_eq(blk_pread(blk, offset, 4096, buf, 0), 0);
        ck_assert(block_buffer_is_zero(buf, sizeof(buf)));
    }
    close_disk();
    bdrv_unref(base);
}
END_TEST

/* --- block status --------------------------------------------------------- */

/* A picture of [0, length): per cluster, D data, Z zero, - unallocated zero. */
static void expect_status(const char *picture)
{
    int64_t length = bdrv_length(disk);
    int64_t offset = 0;

    while (offset < length) {
        BlockExtent e;

        ck_assert_int_eq(blk_block_status(blk, offset, length - offset, &e),
                         0);
        ck_assert_int_gt(e.bytes, 0);
        for (int64_t o = offset; o < offset + e.bytes; o += MEM_CLUSTER) {
            char c = e.status & BDRV_BLOCK_DATA ? 'D'
                     : e.status & BDRV_BLOCK_ALLOCATED ? 'Z' : '-';

            ck_assert_msg(picture[o / MEM_CLUSTER] == c,
                          "at %" PRId64 ": '%c', expected '%c'", o, c,
                          picture[o / MEM_CLUSTER]);
        }
        ck_assert(!(e.status & BDRV_BLOCK_EOF) == (offset + e.bytes < length));
        offset += e.bytes;
    }
}

START_TEST(block_status_walks_filters_and_backing_files)
{
    BlockDriverState *base = open_ok("mem,node-name=base,size=16k");
    int64_t n;

    open_disk("pass,file.driver=mem,file.node-name=mid,file.size=32k,"
              "file.backing=base");
    expect_status("----ZZZZ");
    memset(mem_disk(base)->allocated, 1, 2);
    expect_status("DD--ZZZZ");
    ck_assert_int_eq(blk_pwrite(blk, 3 * 4096, 1, "x", 0), 0);
    ck_assert_int_eq(blk_pwrite(blk, 5 * 4096, 1, "x", 0), 0);
    expect_status("DD-DZDZZ");
    ck_assert_int_eq(blk_is_allocated(blk, 0, 32768, &n), 2);
    ck_assert_int_eq(n, 2 * 4096);
    ck_assert_int_eq(blk_is_allocated(blk, 3 * 4096, 32768, &n), 1);
    ck_assert_int_eq(n, 4096);
    mem = NULL;
    close_disk();
    bdrv_unref(base);
}
END_TEST

typedef struct AboveCall {
    BlockDriverState *base;
    bool include;
    int64_t offset;
    int64_t bytes;
    BlockExtent extent;
} AboveCall;

static int coroutine_fn allocated_above_entry(void *opaque)
{
    AboveCall *call = opaque;

    return bdrv_co_is_allocated_above(disk, call->base, call->include,
                                      call->offset, 65536, &call->bytes);
}

static int coroutine_fn status_above_entry(void *opaque)
{
    AboveCall *call = opaque;

    return bdrv_co_block_status_above(disk, call->base, call->offset, 65536,
                                      &call->extent);
}

START_TEST(block_status_above_a_base_does_not_look_at_it)
{
    AioContext *ctx = block_graph_aio_context(graph);
    BlockDriverState *base = open_ok("mem,node-name=base,size=16k");
    BlockDriverState *mid =
        open_ok("mem,node-name=mid,size=16k,backing=base");
    AboveCall call = { .base = base };

    open_disk("mem,size=16k,backing=mid");
    memset(mem_disk(base)->allocated, 1, 4);    /* base: DDDD */
    mem_disk(mid)->allocated[1] = true;         /* mid:  -D-- */
    mem->allocated[2] = true;                   /* top:  --D- */

    ck_assert_int_eq(aio_co_run(ctx, allocated_above_entry, &call), 0);
    ck_assert_int_eq(call.bytes, 4096);
    call.include = true;
    ck_assert_int_eq(aio_co_run(ctx, allocated_above_entry, &call), 3);
    call = (AboveCall){ .base = base, .offset = 4096 };
    ck_assert_int_eq(aio_co_run(ctx, allocated_above_entry, &call), 2);
    call = (AboveCall){ .base = mid, .offset = 4096 };
    ck_assert_int_eq(aio_co_run(ctx, allocated_above_entry, &call), 0);
    call = (AboveCall){ .base = mid, .offset = 8192 };
    ck_assert_int_eq(aio_co_run(ctx, allocated_above_entry, &call), 1);

    call = (AboveCall){ .base = mid, .offset = 0 };
    ck_assert_int_eq(aio_co_run(ctx, status_above_entry, &call), 0);
    ck_assert_uint_eq(call.extent.status & BDRV_BLOCK_ALLOCATED, 0);
    ck_assert_int_eq(call.extent.bytes, 8192);
    call = (AboveCall){ .base = NULL, .offset = 0 };
    ck_assert_int_eq(aio_co_run(ctx, status_above_entry, &call), 0);
    ck_assert_ptr_eq(call.extent.file, base);
    close_disk();
    bdrv_unref(mid);
    bdrv_unref(base);
}
END_TEST

START_TEST(where_no_layer_is_above_the_base_the_answer_has_a_length)
{
    AioContext *ctx = block_graph_aio_context(graph);
    BlockDriverState *base = open_ok("mem,node-name=base,size=16k");
    AboveCall call = { .base = base, .offset = 4096 };

    open_disk("pass,file=base");
    ck_assert_int_eq(aio_co_run(ctx, allocated_above_entry, &call), 0);
    ck_assert_int_eq(call.bytes, 3 * 4096);
    call.base = disk;
    ck_assert_int_eq(aio_co_run(ctx, allocated_above_entry, &call), 0);
    ck_assert_int_eq(call.bytes, 3 * 4096);
    ck_assert_int_eq(aio_co_run(ctx, status_above_entry, &call), 0);
    ck_assert_int_eq(call.extent.bytes, 3 * 4096);
    ck_assert_uint_eq(call.extent.status, BDRV_BLOCK_EOF);
    mem = NULL;
    close_disk();
    bdrv_unref(base);
}
END_TEST

START_TEST(a_raw_node_has_what_its_file_and_backing_files_hold)
{
    BlockDriverState *base = open_ok("mem,node-name=base,size=16k");
    int64_t n;

    open_disk("raw,file.driver=mem,file.size=32k,file.backing=base");
    memset(mem_disk(base)->allocated, 1, 2);
    expect_status("DD--ZZZZ");
    ck_assert_int_eq(blk_is_allocated(blk, 0, 32768, &n), 1);
    mem = NULL;
    close_disk();
    bdrv_unref(base);
}
END_TEST

static int coroutine_fn one_layer_entry(void *opaque)
{
    AboveCall *call = opaque;
    int ret = bdrv_co_block_status(disk, call->offset, 65536, &call->extent);

    ck_assert_int_eq(ret, 0);
    call->include = bdrv_co_is_zero_fast(disk, call->offset, 4096);
    return bdrv_co_is_allocated(disk, call->offset, 65536, &call->bytes);
}

START_TEST(one_layer_tells_data_from_zeroes)
{
    AioContext *ctx = block_graph_aio_context(graph);
    AboveCall call = { .offset = 4096 };

    open_disk("mem,size=16k");
    ck_assert_int_eq(blk_pwrite(blk, 4096, 1, "x", 0), 0);
    ck_assert_int_eq(aio_co_run(ctx, one_layer_entry, &call), 1);
    ck_assert_int_eq(call.bytes, 4096);
    ck_assert(call.extent.status & BDRV_BLOCK_DATA);
    ck_assert(!call.include);
    call.offset = 8192;
    ck_assert_int_eq(aio_co_run(ctx, one_layer_entry, &call), 0);
    ck_assert(call.extent.status & BDRV_BLOCK_ZERO);
    ck_assert(call.include);
    close_disk();
}
END_TEST

START_TEST(a_backing_node_is_attached_exchanged_and_detached)
{
    BlockDriverState *red = open_ok("mem,node-name=red,size=8k");
    BlockDriverState *blue = open_ok("mem,node-name=blue,size=8k");
    BlockDriverState *filter = open_ok("pass,node-name=filter,file=red");
    GError *error = NULL;
    char byte;

    memset(mem_disk(red)->data, 'r', 8192);
    memset(mem_disk(blue)->data, 'b', 8192);
    open_disk("mem,size=8k,node-name=top");
    ck_assert_int_eq(bdrv_set_backing(disk, red, &error), 0);
    ck_assert_int_eq(blk_pread(blk, 0, 1, &byte, 0), 0);
    ck_assert_int_eq(byte, 'r');
    ck_assert_int_eq(bdrv_set_backing(disk, blue, &error), 0);
    ck_assert_int_eq(blk_pread(blk, 0, 1, &byte, 0), 0);
    ck_assert_int_eq(byte, 'b');
    ck_assert_int_eq(bdrv_delete(blue, &error), -EBUSY);
    expect_error(&error, EBUSY, "'top' (as 'backing')");
    ck_assert_int_eq(bdrv_set_backing(disk, disk, &error), -ELOOP);
    expect_error(&error, ELOOP, "cycle");
    ck_assert_int_eq(bdrv_set_backing(filter, blue, &error), -ENOTSUP);
    expect_error(&error, ENOTSUP, "filter");
    ck_assert_int_eq(bdrv_set_backing(disk, NULL, &error), 0);
    ck_assert_int_eq(blk_pread(blk, 0, 1, &byte, 0), 0);
    ck_assert_int_eq(byte, 0);
    close_disk();
    bdrv_unref(filter);
    bdrv_unref(blue);
    bdrv_unref(red);
}
END_TEST

START_TEST(block_status_at_and_beyond_the_end_is_empty)
{
    BlockExtent e;

    open_disk("mem,size=5000");
    ck_assert_int_eq(blk_block_status(blk, 5000, 10, &e), 0);
    ck_assert_int_eq(e.bytes, 0);
    ck_assert_uint_eq(e.status & BDRV_BLOCK_EOF, BDRV_BLOCK_EOF);
    ck_assert_int_eq(blk_block_status(blk, INT64_MAX, 10, &e), -EIO);
    ck_assert_int_eq(blk_block_status(blk, -1, 10, &e), -EIO);
    close_disk();
}
END_TEST

/* --- errors --------------------------------------------------------------- */

START_TEST(errors_reach_the_caller_and_leave_nothing_in_flight)
{
    open_disk("mem,size=64k,align=512");
    for (int op = 0; op < 3; op++) {
        for (int i = 0; i < 6; i++) {
            char buf[3000] = { 0 };
            int64_t offset = i * 100;

            mem->fail_forever[MEM_READ] = EIO;
            mem->fail_forever[MEM_WRITE] = ENOSPC;
            ck_assert_int_lt(op == 0 ? blk_pread(blk, offset, 3000, buf, 0)
                             : op == 1
                                 ? blk_pwrite(blk, offset, 3000, buf, 0)
                                 : blk_pwrite_zeroes(blk, offset + 1, 3000, 0),
                             0);
            ck_assert_int_eq(blk_in_flight(blk), 0);
            mem->fail_forever[MEM_READ] = 0;
            mem->fail_forever[MEM_WRITE] = 0;
        }
    }
    blk_drain(blk);
    close_disk();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("request");
    TCase *tcase = tcase_create("request");

    register_pass_driver();
    mem_register();
    tcase_add_checked_fixture(tcase, graph_setup, graph_teardown);
    tcase_set_timeout(tcase, 60);
    PROMISE(tcase, ranges_outside_the_disk_are_refused);
    PROMISE(tcase, zero_length_requests_at_any_offset_never_reach_the_driver);
    PROMISE(tcase, a_backend_may_do_only_what_it_asked_for);
    PROMISE(tcase, unknown_flags_and_wrong_vectors_are_refused);
    tcase_add_loop_test(tcase, random_requests_behave_like_an_array_of_bytes,
                        0, 10);
    PROMISE(tcase, a_vector_of_more_pieces_than_the_system_takes_is_gathered);
    PROMISE(tcase, an_unaligned_write_is_one_write_of_whole_blocks);
    PROMISE(tcase, a_long_request_is_cut_to_the_limit);
    PROMISE(tcase, fua_is_emulated_by_a_flush_that_sees_the_write);
    PROMISE(tcase, fua_goes_through_where_the_driver_takes_it);
    PROMISE(tcase, detect_zeroes_turns_zeroes_into_zero_writes);
    PROMISE(tcase,
            zeroes_written_as_data_keep_the_mark_of_an_unchanged_write);
    PROMISE(tcase, no_fallback_fails_where_data_would_be_written);
    PROMISE(tcase, the_aligned_middle_of_a_zero_write_is_zeroed_by_the_driver);
    PROMISE(tcase,
            discard_keeps_to_whole_blocks_and_forgives_a_driver_without_it);
    PROMISE(tcase, a_flush_without_a_write_since_the_last_one_costs_nothing);
    PROMISE(tcase, a_flush_that_failed_is_asked_again);
    PROMISE(tcase, a_failed_write_counts_for_the_next_flush);
    PROMISE(tcase,
            growing_after_another_truncate_does_not_zero_a_later_write);
    PROMISE(tcase, truncate_at_the_largest_length_is_safe);
    PROMISE(tcase, truncate_changes_the_length_both_ways);
    PROMISE(tcase,
            growing_over_a_longer_backing_file_shows_zeroes_not_its_data);
    PROMISE(tcase, block_status_walks_filters_and_backing_files);
    PROMISE(tcase, block_status_above_a_base_does_not_look_at_it);
    PROMISE(tcase, where_no_layer_is_above_the_base_the_answer_has_a_length);
    PROMISE(tcase, a_raw_node_has_what_its_file_and_backing_files_hold);
    PROMISE(tcase, one_layer_tells_data_from_zeroes);
    PROMISE(tcase, a_backing_node_is_attached_exchanged_and_detached);
    PROMISE(tcase, block_status_at_and_beyond_the_end_is_empty);
    PROMISE(tcase, errors_reach_the_caller_and_leave_nothing_in_flight);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
