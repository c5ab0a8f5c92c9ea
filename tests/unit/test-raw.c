/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * raw: a window of the file below; what lies outside is never touched.
 */
#include "graph-fixture.h"
#include "mem-driver.h"

#define READ BLK_PERM_CONSISTENT_READ
#define WRITE BLK_PERM_WRITE
#define RESIZE BLK_PERM_RESIZE
#define ALL BLK_PERM_ALL

enum { DISK_BYTES = 64 << 10 };

static BlockDriverState *file;
static BlockDriverState *raw;
static BlockBackend *blk;
static MemDisk *mem;

/* A disk of the options @below with the raw node of the options @window. */
static void given(const char *below, const char *window)
{
    g_autofree char *text = g_strdup_printf("raw,node-name=raw,file=disk%s",
                                            window);

    file = open_ok(below);
    mem = mem_disk(file);
    raw = open_ok(text);
    blk = backend_ok("guest", raw, READ | WRITE | RESIZE, ALL);
}

static void done(void)
{
    blk_unref(blk);
    bdrv_unref(raw);
    bdrv_unref(file);
}

/* --- content -------------------------------------------------------------- */

static uint64_t seed = 0x9e3779b97f4a7c15;

static uint64_t next_random(uint64_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % below;
}

static void one_step(uint8_t *model, int64_t length)
{
    static uint8_t buf[DISK_BYTES];
    int64_t offset = next_random(length);
    int64_t bytes = 1 + next_random(MIN(length - offset, 6000));

    switch (next_random(4)) {
    case 0:
        memset(buf, next_random(256), bytes);
        memcpy(model + offset, buf, bytes);
        ck_assert_int_eq(blk_pwrite(blk, offset, bytes, buf, 0), 0);
        break;
    case 1:
        memset(model + offset, 0, bytes);
        ck_assert_int_eq(blk_pwrite_zeroes(blk, offset, bytes, 0), 0);
        break;
    default:
        ck_assert_int_eq(blk_pread(blk, offset, bytes, buf, 0), 0);
        ck_assert_mem_eq(buf, model + offset, bytes);
    }
}

START_TEST(a_window_of_any_alignment_is_a_disk_of_its_own)
{
    static const struct {
        const char *below, *window;
        int64_t offset, length;
    } cases[] = {
        { "mem,node-name=disk", "", 0, DISK_BYTES },
        { "mem,node-name=disk", ",offset=1000,size=5001", 1000, 5001 },
        { "mem,node-name=disk,align=512,fua=off", ",offset=7", 7,
          DISK_BYTES - 7 },
        { "mem,node-name=disk,align=512,max-transfer=4k,mem-align=64",
          ",offset=1k,size=20001", 1024, 20001 },
        { "mem,node-name=disk,align=4k,zero-align=8k", ",offset=8k,size=16k",
          8192, 16384 },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        static uint8_t model[DISK_BYTES];

        given(cases[i].below, cases[i].window);
        ck_assert_int_eq(blk_getlength(blk), cases[i].length);
        memset(mem->data, 0xee, DISK_BYTES);
        memset(model, 0xee, DISK_BYTES);
        for (int step = 0; step < 2000; step++) {
            one_step(model + cases[i].offset, cases[i].length);
        }
        ck_assert_mem_eq(mem->data, model, DISK_BYTES);
        ck_assert_int_eq(mem->length, DISK_BYTES);
        done();
    }
}
END_TEST

START_TEST(a_write_past_a_fixed_window_has_no_space)
{
    char buf[100] = { 1 };
    BlockDriverState *top;
    BlockBackend *upper;

    /* A backend checks the end itself; a format above may write past it. */
    given("mem,node-name=disk,discard=unmap",
          ",offset=1k,size=1k,discard=unmap");
    blk_unref(blk);
    blk = backend_ok("reader", raw, READ, ALL);
    top = open_ok("grow,file=raw,discard=unmap");
    upper = backend_ok("upper", top, READ | WRITE, ALL);
    memset(mem->data, 0xee, DISK_BYTES);
    ck_assert_int_eq(blk_pwrite(upper, 1000, 100, buf, 0), -ENOSPC);
    ck_assert_int_eq(blk_pwrite(upper, 1000, 25, buf, 0), -ENOSPC);
    ck_assert_int_eq(blk_pwrite_zeroes(upper, 1000, 25, 0), -ENOSPC);
    ck_assert_uint_eq(mem->count[MEM_WRITE] + mem->count[MEM_ZERO], 0);
    ck_assert_int_eq(blk_pdiscard(upper, 1000, 100), 0);
    ck_assert_int_eq(mem->last[MEM_DISCARD].offset, 2024);
    ck_assert_int_eq(mem->last[MEM_DISCARD].bytes, 24);
    ck_assert_int_eq(blk_pread(upper, 1000, 100, buf, 0), 0);
    ck_assert(block_buffer_is_zero(buf + 24, 76));
    ck_assert_int_eq(blk_pwrite(upper, 1000, 24, buf, 0), 0);
    ck_assert_uint_eq(mem->data[2048], 0xee);
    blk_unref(upper);
    bdrv_unref(top);
    done();
}
END_TEST

START_TEST(flags_reach_the_file_and_what_it_lacks_is_emulated)
{
    char buf[512] = { 0 };

    given("mem,node-name=disk", ",offset=512");
    ck_assert_int_eq(blk_pwrite(blk, 0, 512, buf, BDRV_REQ_FUA), 0);
    ck_assert_uint_eq(mem->last[MEM_WRITE].flags, BDRV_REQ_FUA);
    ck_assert_int_eq(mem->last[MEM_WRITE].offset, 512);
    ck_assert_uint_eq(mem->count[MEM_FLUSH], 0);
    done();

    given("mem,node-name=disk,fua=off", ",offset=512");
    ck_assert_int_eq(blk_pwrite(blk, 0, 512, buf, BDRV_REQ_FUA), 0);
    ck_assert_uint_eq(mem->count[MEM_FLUSH], 1);
    ck_assert_int_eq(blk_pwrite(blk, 0, 512, buf, 0), 0);
    ck_assert_int_eq(blk_flush(blk), 0);
    ck_assert_uint_eq(mem->count[MEM_FLUSH], 2);
    done();
}
END_TEST

START_TEST(errors_of_the_file_come_through)
{
    char buf[512] = { 0 };

    given("mem,node-name=disk", "");
    mem->fail[MEM_READ] = EIO;
    mem->fail[MEM_WRITE] = ENOSPC;
    mem->fail[MEM_FLUSH] = EIO;
    ck_assert_int_eq(blk_pread(blk, 0, 512, buf, 0), -EIO);
    ck_assert_int_eq(blk_pwrite(blk, 0, 512, buf, 0), -ENOSPC);
    ck_assert_int_eq(blk_pwrite(blk, 0, 512, buf, 0), 0);
    ck_assert_int_eq(blk_flush(blk), -EIO);
    done();
}
END_TEST

START_TEST(block_status_is_that_of_the_file_behind_the_offset)
{
    BlockExtent extent;

    given("mem,node-name=disk", ",offset=4k");
    memset(mem->allocated, 0, DISK_BYTES / MEM_CLUSTER);
    mem->allocated[2] = true;
    ck_assert_int_eq(blk_block_status(blk, 0, 61440, &extent), 0);
    ck_assert_int_eq(extent.bytes, 4096);
    ck_assert_uint_eq(extent.status, BDRV_BLOCK_ZERO);
    ck_assert_int_eq(blk_block_status(blk, 4096, 57344, &extent), 0);
    ck_assert_int_eq(extent.bytes, 4096);
    ck_assert_uint_eq(extent.status, BDRV_BLOCK_DATA | BDRV_BLOCK_ALLOCATED |
                                     BDRV_BLOCK_OFFSET_VALID);
    ck_assert_int_eq(extent.map, 8192);
    ck_assert_ptr_eq(extent.file, file);
    done();
}
END_TEST

/* --- copies --------------------------------------------------------------- */

/* A protocol that only counts what it is asked to copy. */
static BlockCopyRange last_copy;

static int coroutine_fn sink_open(BlockDriverState *bs, BlockOptions *options,
                                  unsigned flags, GError **errp)
{
    return 0;
}

static int64_t coroutine_fn sink_getlength(BlockDriverState *bs)
{
    return DISK_BYTES;
}

static int coroutine_fn sink_from(BlockDriverState *bs,
                                  const BlockCopyRange *copy)
{
    return bdrv_co_copy_range_to(copy);
}

static int coroutine_fn sink_to(BlockDriverState *bs,
                                const BlockCopyRange *copy)
{
    last_copy = *copy;
    return 0;
}

/* A format whose writes may pass the end of its file. */
static int coroutine_fn grow_open(BlockDriverState *bs, BlockOptions *options,
                                  unsigned flags, GError **errp)
{
    return bdrv_co_open_child(bs, options, "file",
                              BDRV_CHILD_DATA | BDRV_CHILD_PRIMARY, true, errp)
               ? 0
               : -EINVAL;
}

static int64_t coroutine_fn grow_getlength(BlockDriverState *bs)
{
    return DISK_BYTES;
}

static int coroutine_fn grow_preadv(BlockDriverState *bs, const BlockIO *io)
{
    return bdrv_co_preadv(bdrv_primary_child(bs), io->offset, io->bytes,
                          io->iov, 0);
}

static int coroutine_fn grow_pwritev(BlockDriverState *bs, const BlockIO *io)
{
    return bdrv_co_pwritev(bdrv_primary_child(bs), io->offset, io->bytes,
                           io->iov, 0);
}

static int coroutine_fn grow_zeroes(BlockDriverState *bs, const BlockIO *io)
{
    return bdrv_co_pwrite_zeroes(bdrv_primary_child(bs), io->offset, io->bytes,
                                 0);
}

static int coroutine_fn grow_discard(BlockDriverState *bs, const BlockIO *io)
{
    return bdrv_co_pdiscard(bdrv_primary_child(bs), io->offset, io->bytes);
}

static void register_helpers(void)
{
    static const BlockDriver sink = {
        .struct_size = sizeof(BlockDriver),
        .name = "sink",
        .kind = BLOCK_DRIVER_PROTOCOL,
        .open = sink_open,
        .getlength = sink_getlength,
        .copy_range_from = sink_from,
        .copy_range_to = sink_to,
    };
    static const BlockDriver grow = {
        .struct_size = sizeof(BlockDriver),
        .name = "grow",
        .kind = BLOCK_DRIVER_FORMAT,
        .open = grow_open,
        .preadv = grow_preadv,
        .pwritev = grow_pwritev,
        .pwrite_zeroes = grow_zeroes,
        .pdiscard = grow_discard,
        .getlength = grow_getlength,
    };

    if (bdrv_register(&sink, NULL) < 0 || bdrv_register(&grow, NULL) < 0) {
        abort();
    }
}

static int copy_entry(void *opaque)
{
    const int64_t *args = opaque;

    return blk_co_copy_range(blk, args[0], blk, args[1], args[2], 0);
}

static int copy(int64_t from, int64_t to, int64_t bytes)
{
    int64_t args[] = { from, to, bytes };

    return aio_co_run(block_graph_aio_context(graph), copy_entry, args);
}

START_TEST(copies_are_shifted_at_both_ends_and_stay_inside)
{
    given("mem,node-name=disk", "");
    ck_assert_int_eq(copy(0, 4096, 4096), -ENOTSUP);
    done();

    file = open_ok("sink,node-name=disk");
    raw = open_ok("raw,file=disk,offset=1k,size=8k");
    blk = backend_ok("guest", raw, READ | WRITE, ALL);
    ck_assert_int_eq(copy(512, 4096, 2048), 0);
    ck_assert_int_eq(last_copy.src_offset, 1536);
    ck_assert_int_eq(last_copy.dst_offset, 5120);
    ck_assert_int_eq(last_copy.bytes, 2048);
    ck_assert_int_lt(copy(0, 8000, 500), 0);
    ck_assert_int_lt(copy(8000, 0, 500), 0);
    ck_assert_int_eq(last_copy.bytes, 2048);
    done();
}
END_TEST

/* --- length --------------------------------------------------------------- */

START_TEST(an_open_window_is_resized_with_its_file)
{
    BlockTruncate how = { .offset = 100000, .exact = true };
    g_autoptr(GError) error = NULL;

    given("mem,node-name=disk", ",offset=1000");
    ck_assert_int_eq(blk_truncate(blk, &how, &error), 0);
    ck_assert_int_eq(mem->length, 101000);
    ck_assert_int_eq(blk_getlength(blk), 100000);
    how.offset = BDRV_MAX_LENGTH - 999;
    ck_assert_int_lt(blk_truncate(blk, &how, &error), 0);
    expect_error(&error, EINVAL, "is too large");
    done();
}
END_TEST

START_TEST(a_fixed_window_is_not_resized)
{
    BlockTruncate how = { .offset = 100, .exact = true };
    GError *error = NULL;

    given("mem,node-name=disk", ",size=1000");
    ck_assert_int_eq(blk_truncate(blk, &how, &error), -ENOTSUP);
    expect_error(&error, ENOTSUP, "Node 'raw': the length of a window with a "
                 "fixed size cannot be changed");
    ck_assert_int_eq(mem->length, DISK_BYTES);
    ck_assert_int_eq(blk_getlength(blk), 1000);
    done();
}
END_TEST

START_TEST(windows_that_do_not_fit_are_refused)
{
    file = open_ok("mem,node-name=disk,size=64k");
    open_fails("raw,node-name=r,file=disk,offset=65537", EINVAL,
               "Node 'r' (driver 'raw'): offset (65537) plus size (0) is "
               "larger than the length (65536) of node 'disk'");
    open_fails("raw,node-name=r,file=disk,offset=1,size=64k", EINVAL,
               "offset (1) plus size (65536) is larger");
    open_fails("raw,node-name=r,file=disk,offset=7E,size=7E", EINVAL,
               "passes the largest length of a node");
    open_fails("raw,node-name=r,file=disk,offset=-1", EINVAL, "offset");
    open_fails("raw,node-name=r,file=disk,size=much", EINVAL,
               "option 'size' expects");
    open_fails("raw,node-name=r,file=disk,length=1", EINVAL, "length");
    open_fails("raw,node-name=r", EINVAL, "a node for 'file' must be given");
    bdrv_unref(file);
}
END_TEST

START_TEST(empty_windows_can_be_opened)
{
    char byte;

    given("mem,node-name=disk", ",offset=64k");
    ck_assert_int_eq(blk_getlength(blk), 0);
    ck_assert_int_eq(blk_pread(blk, 0, 1, &byte, 0), -EIO);
    done();
    given("mem,node-name=disk", ",size=0");
    ck_assert_int_eq(blk_getlength(blk), 0);
    ck_assert_int_eq(blk_pwrite(blk, 0, 1, "x", 0), -EIO);
    done();
}
END_TEST

START_TEST(reopen_moves_the_window_or_leaves_it_as_it_was)
{
    GError *error = NULL;
    char buf[4];

    given("mem,node-name=disk", ",size=1000");
    memcpy(mem->data + 2000, "abcd", 4);
    ck_assert_int_eq(bdrv_reopen(raw, opts("raw,offset=2000,size=4"), &error),
                     0);
    ck_assert_int_eq(blk_getlength(blk), 4);
    ck_assert_int_eq(blk_pread(blk, 0, 4, buf, 0), 0);
    ck_assert_mem_eq(buf, "abcd", 4);
    ck_assert_int_lt(bdrv_reopen(raw, opts("raw,offset=64k,size=4"), &error),
                     0);
    expect_error(&error, EINVAL, "is larger than the length");
    ck_assert_int_eq(blk_getlength(blk), 4);
    ck_assert_int_eq(blk_pread(blk, 0, 4, buf, 0), 0);
    ck_assert_mem_eq(buf, "abcd", 4);
    done();
}
END_TEST

/* --- permissions ---------------------------------------------------------- */

START_TEST(a_fixed_window_neither_resizes_its_file_nor_lets_others_do_it)
{
    BlockPerm perm;
    BlockPerm resize = { .used = RESIZE, .shared = ALL };
    BlockBackend *other;
    GError *error = NULL;

    given("mem,node-name=disk", ",size=1000");
    perm = bdrv_child_perm(bdrv_find_child(raw, "file"));
    ck_assert_uint_eq(perm.used, READ | WRITE);
    ck_assert_uint_eq(perm.shared, ALL & ~RESIZE);
    other = blk_new(graph, "other", &resize);
    ck_assert_int_lt(blk_insert_bs(other, file, &error), 0);
    expect_error(&error, EPERM, "uses 'resize'");

    /* Reopened to show the whole file, it is as open as its users are. */
    bdrv_unref(raw);
    blk_unref(blk);
    raw = open_ok("raw,node-name=raw,file=disk");
    blk = backend_ok("guest", raw, READ | WRITE | RESIZE, ALL);
    perm = bdrv_child_perm(bdrv_find_child(raw, "file"));
    ck_assert_uint_eq(perm.used, READ | WRITE | RESIZE);
    ck_assert_uint_eq(perm.shared, ALL);
    ck_assert_int_eq(blk_insert_bs(other, file, &error), 0);

    /* A reopen that needs RESIZE for itself conflicts, and changes nothing. */
    ck_assert_int_lt(bdrv_reopen(raw, opts("raw,size=1000"), &error), 0);
    expect_error(&error, EPERM, "resize");
    ck_assert_int_eq(blk_getlength(blk), DISK_BYTES);
    perm = bdrv_child_perm(bdrv_find_child(raw, "file"));
    ck_assert_uint_eq(perm.shared, ALL);
    blk_unref(other);
    ck_assert_int_eq(bdrv_reopen(raw, opts("raw,size=1000"), &error), 0);
    ck_assert_int_eq(blk_getlength(blk), 1000);
    done();
}
END_TEST

START_TEST(readers_do_not_write_to_the_file)
{
    given("mem,node-name=disk", "");
    blk_unref(blk);
    blk = backend_ok("reader", raw, READ, READ);
    ck_assert_uint_eq(bdrv_child_perm(bdrv_find_child(raw, "file")).used,
                      READ);
    ck_assert_uint_eq(bdrv_child_perm(bdrv_find_child(raw, "file")).shared,
                      READ);
    done();
}
END_TEST

START_TEST(alignment_passes_up_only_where_the_units_match)
{
    static const struct { const char *window; uint32_t align; } cases[] = {
        { "", 512 },           { ",offset=512", 512 },
        { ",offset=100", 1 },  { ",size=1000", 1 },
        { ",size=1k", 512 },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        given("mem,node-name=disk,align=512", cases[i].window);
        ck_assert_uint_eq(bdrv_request_alignment(raw), cases[i].align);
        done();
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("raw");
    TCase *tcase = tcase_create("raw");

    mem_register();
    register_helpers();
    tcase_add_checked_fixture(tcase, graph_setup, graph_teardown);
    tcase_set_timeout(tcase, 60);
    PROMISE(tcase, a_window_of_any_alignment_is_a_disk_of_its_own);
    PROMISE(tcase, a_write_past_a_fixed_window_has_no_space);
    PROMISE(tcase, flags_reach_the_file_and_what_it_lacks_is_emulated);
    PROMISE(tcase, errors_of_the_file_come_through);
    PROMISE(tcase, block_status_is_that_of_the_file_behind_the_offset);
    PROMISE(tcase, copies_are_shifted_at_both_ends_and_stay_inside);
    PROMISE(tcase, an_open_window_is_resized_with_its_file);
    PROMISE(tcase, a_fixed_window_is_not_resized);
    PROMISE(tcase, windows_that_do_not_fit_are_refused);
    PROMISE(tcase, empty_windows_can_be_opened);
    PROMISE(tcase, reopen_moves_the_window_or_leaves_it_as_it_was);
    PROMISE(tcase,
            a_fixed_window_neither_resizes_its_file_nor_lets_others_do_it);
    PROMISE(tcase, readers_do_not_write_to_the_file);
    PROMISE(tcase, alignment_passes_up_only_where_the_units_match);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
