/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Simulated disks: what each way to behave promises.
 */
#include "check-main.h"

#include <blockgraph/sim-disk.h>
#include <blockgraph/sim-fault.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

static BgSim *sim;
static BgSimDisk *disk;
static BlockBackend *blk;

static void attach(void)
{
    BlockPerm perm = { BLK_PERM_ALL, BLK_PERM_ALL };
    GError *error = NULL;
    BlockDriverState *bs = bgsim_disk_open(disk, NULL, &error);

    ck_assert_msg(bs, "%s", error ? error->message : "");
    blk = blk_new(bgsim_graph(sim), "guest", &perm);
    ck_assert_int_eq(blk_insert_bs(blk, bs, &error), 0);
    bdrv_unref(bs);
}

static void given_seed(uint64_t seed, const BgSimDiskConfig *config)
{
    BgSimConfig world = { .strategy = BGSIM_STRATEGY_FIFO };

    sim = bgsim_new(seed, &world);
    disk = bgsim_disk_new(sim, "disk0", config);
    attach();
}

static void given(const BgSimDiskConfig *config)
{
    given_seed(1, config);
}

static void done(void)
{
    blk_unref(blk);
    bgsim_free(sim);
}

/* One letter is 512 bytes. */
static int write_at(int64_t sector, const char *letters, unsigned flags)
{
    size_t n = strlen(letters);
    g_autofree uint8_t *buf = g_malloc(n * 512);

    for (size_t i = 0; i < n; i++) {
        memset(buf + i * 512, letters[i], 512);
    }
    return blk_pwrite(blk, sector * 512, n * 512, buf, flags);
}

static char *letters_of(const uint8_t *buf, int n)
{
    char *text = g_malloc0(n + 1);

    for (int i = 0; i < n; i++) {
        text[i] = buf[i * 512] ? buf[i * 512] : '-';
        for (int k = 0; k < 512; k++) {
            if (buf[i * 512 + k] != buf[i * 512]) {
                text[i] = '?';
            }
        }
    }
    return text;
}

static void expect(int64_t sector, const char *letters)
{
    int n = strlen(letters);
    g_autofree uint8_t *buf = g_malloc(n * 512);
    g_autofree char *found = NULL;

    ck_assert_int_eq(blk_pread(blk, sector * 512, n * 512, buf, 0), 0);
    found = letters_of(buf, n);
    ck_assert_str_eq(found, letters);
}

START_TEST(what_is_written_is_read)
{
    given(NULL);
    ck_assert_int_eq(blk_getlength(blk), 256 * 1024);
    ck_assert_int_eq(write_at(3, "ABC", 0), 0);
    expect(2, "-ABC-");
    ck_assert_int_eq(blk_pwrite_zeroes(blk, 4 * 512, 512, 0), 0);
    expect(2, "-A-C-");
    done();
}
END_TEST

static BgSimDiskStats stats(void)
{
    BgSimDiskStats s;

    bgsim_disk_get_stats(disk, &s);
    return s;
}

START_TEST(a_flush_makes_ended_writes_stable)
{
    given(NULL);
    write_at(0, "ABC", 0);
    ck_assert_uint_eq(stats().volatile_atoms, 3);
    ck_assert_int_eq(blk_flush(blk), 0);
    ck_assert_uint_eq(stats().volatile_atoms, 0);
    write_at(1, "X", BDRV_REQ_FUA);
    ck_assert_uint_eq(stats().volatile_atoms, 0);
    expect(0, "AXC");
    done();
}
END_TEST

/* --- flushes -------------------------------------------------------------- */

START_TEST(a_lying_disk_says_yes_and_does_nothing)
{
    BgSimDiskConfig liar = { .lying_flush = true, .lying_fua = true,
                             .lying_zero_write = true };

    given(&liar);
    ck_assert_int_eq(write_at(0, "A", BDRV_REQ_FUA), 0);
    ck_assert_int_eq(write_at(1, "B", 0), 0);
    ck_assert_int_eq(blk_flush(blk), 0);
    ck_assert_uint_eq(stats().volatile_atoms, 2);
    /* The core writes the zeroes that the disk refuses after all. */
    ck_assert_int_eq(blk_pwrite_zeroes(blk, 0, 512, 0), 0);
    ck_assert_uint_eq(stats().zeroes, 0);
    ck_assert_uint_eq(stats().writes, 3);
    expect(0, "-B");
    done();
}
END_TEST

static void fail_a_flush(BgSimFlushMode mode)
{
    BgSimDiskConfig config = { .flush_mode = mode };
    BgSimRule *rule;

    given(&config);
    write_at(0, "OLD", 0);
    ck_assert_int_eq(blk_flush(blk), 0);
    write_at(0, "NEW", 0);
    rule = bgsim_fail(sim, "disk0:flush", EIO);
    ck_assert_int_eq(blk_flush(blk), -EIO);
    bgsim_rule_off(rule);
    ck_assert_uint_eq(stats().failed, 1);
}

START_TEST(after_a_failed_flush_data_may_be_kept)
{
    fail_a_flush(BGSIM_FLUSH_KEEP);
    expect(0, "NEW");
    ck_assert_uint_eq(stats().volatile_atoms, 3);
    ck_assert_int_eq(blk_flush(blk), 0);
    ck_assert_uint_eq(stats().volatile_atoms, 0);
    done();
}
END_TEST

START_TEST(after_a_failed_flush_data_may_look_clean)
{
    fail_a_flush(BGSIM_FLUSH_FORGET_CLEAN);
    expect(0, "NEW");
    ck_assert_int_eq(blk_flush(blk), 0);
    expect(0, "NEW");
    ck_assert_uint_eq(stats().volatile_atoms, 3);
    done();
}
END_TEST

START_TEST(after_a_failed_flush_data_may_be_the_old_ones)
{
    fail_a_flush(BGSIM_FLUSH_FORGET_REVERT);
    expect(0, "OLD");
    done();
}
END_TEST

/* --- errors --------------------------------------------------------------- */

START_TEST(an_error_comes_before_or_after_the_effect)
{
    BgSimRule *rule;

    given(NULL);
    rule = bgsim_fail(sim, "disk0:write@512+512", EIO);
    ck_assert_int_eq(write_at(0, "A", 0), 0);
    ck_assert_int_eq(write_at(1, "B", 0), -EIO);
    expect(0, "A-");
    bgsim_rule_after(rule);
    ck_assert_int_eq(write_at(1, "C", 0), -EIO);
    expect(0, "AC");
    bgsim_rule_off(rule);
    ck_assert_int_eq(blk_flush(blk), 0);
    ck_assert_uint_eq(stats().volatile_atoms, 1); /* nobody promised it */
    done();
}
END_TEST

START_TEST(a_full_disk_says_so_until_there_is_room)
{
    BgSimDiskConfig config = { .quota = 4 * 512 };

    given(&config);
    ck_assert_int_eq(write_at(0, "ABCD", 0), 0);
    ck_assert_int_eq(write_at(1, "XYZ", 0), 0); /* takes no new room */
    ck_assert_int_eq(write_at(3, "EF", 0), -ENOSPC);
    expect(0, "AXYZ-");
    ck_assert_int_eq(blk_pwrite_zeroes(blk, 0, 512, 0), 0);
    ck_assert_int_eq(write_at(3, "EF", 0), 0);
    ck_assert_int_eq(write_at(9, "G", 0), -ENOSPC);
    bgsim_disk_set_quota(disk, 512);
    ck_assert_int_eq(write_at(9, "G", 0), 0);
    ck_assert_int_eq(write_at(10, "H", 0), -ENOSPC);
    bgsim_disk_set_quota(disk, -1);
    ck_assert_int_eq(write_at(10, "H", 0), 0);
    ck_assert_uint_eq(stats().stored_atoms, 6);
    done();
}
END_TEST

static void coroutine_fn write_entry(BgSim *world, void *opaque)
{
    const char *letter = opaque;
    uint8_t buf[8 * 512];

    memset(buf, *letter, sizeof(buf));
    ck_assert_int_eq(blk_co_pwrite(blk, 0, sizeof(buf), buf, 0), 0);
}

START_TEST(a_request_that_is_held_for_ever_is_a_hang)
{
    GError *error = NULL;

    given(NULL);
    bgsim_hold(sim, "disk0:write", "stuck");
    bgsim_spawn(sim, "guest", NULL, write_entry, (void *)"A");
    ck_assert(!bgsim_run(sim, -1, &error));
    ck_assert_str_eq(bgsim_violated(sim, NULL), "hang");
    ck_assert_ptr_nonnull(strstr(error->message, "guest"));
    g_clear_error(&error);
    _exit(EXIT_SUCCESS); /* the world is good for reports only */
}
END_TEST

/* --- discard -------------------------------------------------------------- */

static char *after_discard(BgSimDiscard how, uint64_t seed, int *ret)
{
    BgSimDiskConfig config = { .discard = how };
    BgSimConfig world = { .strategy = BGSIM_STRATEGY_FIFO };
    BlockOptions *unmap = block_options_new();
    BlockPerm perm = { BLK_PERM_ALL, BLK_PERM_ALL };
    g_autofree uint8_t *buf = g_malloc(8 * 512);
    BlockDriverState *bs;

    sim = bgsim_new(seed, &world);
    disk = bgsim_disk_new(sim, "disk0", &config);
    block_options_set_str(unmap, "discard", "unmap");
    bs = bgsim_disk_open(disk, unmap, NULL);
    blk = blk_new(bgsim_graph(sim), "guest", &perm);
    ck_assert_int_eq(blk_insert_bs(blk, bs, NULL), 0);
    bdrv_unref(bs);
    ck_assert_int_eq(write_at(0, "ABCDEFGH", 0), 0);
    *ret = blk_pdiscard(blk, 0, 8 * 512);
    bgsim_disk_peek(disk, 0, 8 * 512, buf);
    return letters_of(buf, 8);
}

START_TEST(a_discard_leaves_what_the_disk_says)
{
    g_autofree char *kept = NULL;
    g_autofree char *zeroed = NULL;
    bool mixed = false;
    int ret;

    kept = after_discard(BGSIM_DISCARD_KEEPS, 1, &ret);
    ck_assert_int_eq(ret, 0);
    ck_assert_str_eq(kept, "ABCDEFGH");
    done();
    zeroed = after_discard(BGSIM_DISCARD_ZEROES, 1, &ret);
    ck_assert_str_eq(zeroed, "--------");
    done();
    for (uint64_t seed = 1; seed < 10; seed++) {
        g_autofree char *any = after_discard(BGSIM_DISCARD_ANY, seed, &ret);

        for (int i = 0; i < 8; i++) {
            ck_assert(any[i] == '-' || any[i] == "ABCDEFGH"[i]);
        }
        mixed |= strcmp(any, kept) != 0 && strcmp(any, zeroed) != 0;
        done();
    }
    ck_assert(mixed);
    g_free(after_discard(BGSIM_DISCARD_NONE, 1, &ret));
    ck_assert_uint_eq(stats().discards, 0);
    done();
}
END_TEST

/* --- content -------------------------------------------------------------- */

START_TEST(a_dirty_disk_reads_as_noise_of_its_seed)
{
    BgSimDiskConfig config = { .dirty_start = true };
    uint8_t first[1024], again[1024], other[1024];

    given_seed(1, &config);
    bgsim_disk_peek(disk, 4096, sizeof(first), first);
    ck_assert(!block_buffer_is_zero(first, 512));
    ck_assert_int_ne(memcmp(first, first + 512, 512), 0);
    ck_assert_int_eq(blk_pwrite_zeroes(blk, 4096, 512, 0), 0);
    bgsim_disk_peek(disk, 4096, sizeof(again), again);
    ck_assert(block_buffer_is_zero(again, 512));
    ck_assert_mem_eq(first + 512, again + 512, 512);
    done();
    given_seed(1, &config);
    bgsim_disk_peek(disk, 4096, sizeof(again), again);
    ck_assert_mem_eq(first, again, sizeof(first));
    done();
    given_seed(2, &config);
    bgsim_disk_peek(disk, 4096, sizeof(other), other);
    ck_assert_int_ne(memcmp(first, other, sizeof(first)), 0);
    done();
}
END_TEST

START_TEST(peek_and_poke_go_past_the_graph)
{
    uint8_t buf[3];

    given(NULL);
    write_at(0, "AA", 0);
    bgsim_disk_poke(disk, 511, 3, "xyz");
    bgsim_disk_peek(disk, 511, 3, buf);
    ck_assert_mem_eq(buf, "xyz", 3);
    ck_assert_uint_eq(stats().volatile_atoms, 0); /* for good */
    bgsim_disk_peek(disk, 509, 3, buf);
    ck_assert_mem_eq(buf, "AAx", 3);
    done();
}
END_TEST

START_TEST(corruption_flips_one_bit)
{
    uint8_t buf[1024], expected[1024];
    int bits = 0;

    given(NULL);
    write_at(0, "AB", 0);
    bgsim_disk_peek(disk, 0, sizeof(buf), expected);
    bgsim_disk_corrupt(disk, 700);
    bgsim_disk_peek(disk, 0, sizeof(buf), buf);
    for (int i = 0; i < 1024; i++) {
        bits += __builtin_popcount(buf[i] ^ expected[i]);
    }
    ck_assert_int_eq(bits, 1);
    ck_assert_uint_ne(buf[700], expected[700]);
    done();
}
END_TEST

START_TEST(atoms_may_be_larger_than_requests)
{
    BgSimDiskConfig config = { .atom = 4096, .request_alignment = 1 };
    uint8_t buf[16];

    given(&config);
    ck_assert_int_eq(blk_pwrite(blk, 4090, 12, "hello, world", 0), 0);
    ck_assert_int_eq(blk_pread(blk, 4088, 16, buf, 0), 0);
    ck_assert_mem_eq(buf, "\0\0hello, world\0\0", 16);
    ck_assert_uint_eq(stats().volatile_atoms, 2);
    ck_assert_uint_eq(stats().writes, 1);
    done();
}
END_TEST

START_TEST(long_requests_are_split)
{
    BgSimDiskConfig config = { .max_transfer = 1024 };

    given(&config);
    ck_assert_int_eq(write_at(0, "ABCDEFG", 0), 0);
    ck_assert_uint_eq(stats().writes, 4);
    expect(0, "ABCDEFG-");
    done();
}
END_TEST

START_TEST(a_large_sparse_disk_costs_nothing)
{
    BgSimDiskConfig config = { .size = INT64_C(1) << 40 };
    BlockExtent extent;

    given(&config);
    ck_assert_int_eq(write_at((INT64_C(1) << 31) - 2, "YZ", 0), 0);
    ck_assert_int_eq(write_at(0, "A", 0), 0);
    ck_assert_int_eq(blk_pwrite_zeroes(blk, 0, INT64_C(1) << 39, 0), 0);
    ck_assert_int_eq(blk_flush(blk), 0);
    expect((INT64_C(1) << 31) - 3, "-YZ");
    ck_assert_int_eq(blk_block_status(blk, 4096, INT64_C(1) << 30,
                                      &extent), 0);
    ck_assert_uint_eq(extent.status & BDRV_BLOCK_ZERO, BDRV_BLOCK_ZERO);
    ck_assert_uint_eq(stats().stored_atoms, 2);
    done();
}
END_TEST

START_TEST(block_status_tells_data_from_zeroes)
{
    BlockExtent extent;

    given(NULL);
    write_at(2, "AB", 0);
    ck_assert_int_eq(blk_block_status(blk, 0, 64 * 512, &extent), 0);
    ck_assert_int_eq(extent.bytes, 2 * 512);
    ck_assert(extent.status & BDRV_BLOCK_ZERO);
    ck_assert_int_eq(blk_block_status(blk, 1024, 64 * 512, &extent), 0);
    ck_assert_int_eq(extent.bytes, 2 * 512);
    ck_assert(extent.status & BDRV_BLOCK_DATA);
    ck_assert(!(extent.status & BDRV_BLOCK_ZERO));
    done();
}
END_TEST

/* --- files ---------------------------------------------------------------- */

START_TEST(a_disk_that_grows_forgets_what_was_cut_off)
{
    BgSimDiskConfig config = { .size = 2048, .grows = true };
    BlockTruncate to = { .offset = 700, .exact = true };

    given(&config);
    ck_assert_int_eq(write_at(0, "ABCD", 0), 0);
    ck_assert_int_eq(blk_truncate(blk, &to, NULL), 0);
    ck_assert_int_eq(bgsim_disk_length(disk), 700);
    to.offset = 4096;
    ck_assert_int_eq(blk_truncate(blk, &to, NULL), 0);
    ck_assert_int_eq(blk_getlength(blk), 4096);
    expect(0, "A?------");
    done();
}
END_TEST

START_TEST(a_device_does_not_change_its_length)
{
    BlockTruncate to = { .offset = 4096, .exact = true };

    given(NULL);
    ck_assert_int_eq(blk_truncate(blk, &to, NULL), -ENOTSUP);
    to.exact = false;
    ck_assert_int_eq(blk_truncate(blk, &to, NULL), 0);
    ck_assert_int_eq(bgsim_disk_length(disk), 256 * 1024);
    done();
}
END_TEST

static char *temp_name(void)
{
    char *name = g_strdup("/tmp/test-sim-disk-XXXXXX");
    int fd = g_mkstemp(name);

    ck_assert_int_ge(fd, 0);
    close(fd);
    return name;
}

START_TEST(content_goes_out_to_files_and_comes_in_again)
{
    g_autofree char *name = temp_name();
    g_autofree char *content = NULL;
    BgSimDiskConfig file = { .grows = true, .empty = true };
    gsize length;
    uint8_t buf[2048];

    given(NULL);
    write_at(100, "ABCD", 0);
    ck_assert_int_eq(bgsim_disk_export(disk, name, NULL), 0);
    done();
    ck_assert(g_file_get_contents(name, &content, &length, NULL));
    ck_assert_uint_eq(length, 256 * 1024);
    ck_assert_int_eq(content[102 * 512], 'C');
    given(&file);
    bgsim_disk_poke(disk, 0, 5, "stale");
    ck_assert_int_eq(bgsim_disk_import(disk, name, NULL), 0);
    ck_assert_int_eq(bgsim_disk_length(disk), 256 * 1024);
    bgsim_disk_peek(disk, 100 * 512, sizeof(buf), buf);
    ck_assert_mem_eq(buf, content + 100 * 512, sizeof(buf));
    bgsim_disk_peek(disk, 0, sizeof(buf), buf);
    ck_assert(block_buffer_is_zero(buf, sizeof(buf)));
    ck_assert_int_eq(bgsim_disk_import(disk, "/does/not/exist", NULL),
                     -ENOENT);
    done();
    unlink(name);
}
END_TEST

static uint64_t le64(const char *p)
{
    uint64_t value;

    memcpy(&value, p, sizeof(value));
    return GUINT64_FROM_LE(value);
}

/* Replay the log; what each entry says, a letter, into @story. */
static void replay(const char *log, gsize length, uint8_t *image, char *story)
{
    uint64_t entries = le64(log + 16);
    gsize at = 512;

    ck_assert_uint_eq(le64(log), UINT64_C(0x6a736677736872));
    ck_assert_uint_eq(le64(log + 8), 1);
    for (uint64_t i = 0; i < entries; i++) {
        uint64_t sector = le64(log + at);
        uint64_t bytes = le64(log + at + 8) * 512;
        uint64_t flags = le64(log + at + 16);

        ck_assert_uint_le(at + 512, length);
        at += 512;
        *story++ = flags == 0   ? 'w'
                   : flags == 1 ? 'F'
                   : flags == 2 ? 'u'
                   : flags == 4 ? 'd'
                                : '?';
        if (flags & 4) {
            memset(image + sector * 512, 0, bytes);
        } else {
            ck_assert_uint_le(at + bytes, length);
            memcpy(image + sector * 512, log + at, bytes);
            at += bytes;
        }
    }
    ck_assert_uint_eq(at, length);
}

START_TEST(the_log_of_all_requests_can_be_replayed)
{
    BgSimDiskConfig config = { .size = 8192, .keep_log = true };
    g_autofree char *name = temp_name();
    g_autofree char *log = NULL;
    uint8_t image[8192] = { 0 }, found[8192];
    char story[16] = "";
    BgSimRule *rule;
    gsize length;

    given(&config);
    write_at(0, "AB", 0);
    write_at(1, "CD", BDRV_REQ_FUA);
    blk_flush(blk);
    write_at(1, "E", 0);
    rule = bgsim_fail(sim, "disk0:any", EIO);
    write_at(5, "X", 0);
    blk_flush(blk);
    bgsim_rule_off(rule);
    blk_pwrite_zeroes(blk, 0, 512, 0);
    ck_assert_int_eq(bgsim_disk_export_log(disk, name, NULL), 0);
    bgsim_disk_peek(disk, 0, sizeof(found), found);
    done();
    ck_assert(g_file_get_contents(name, &log, &length, NULL));
    replay(log, length, image, story);
    ck_assert_str_eq(story, "wuFww");
    ck_assert_mem_eq(image, found, sizeof(image));
    unlink(name);
    given(NULL);
    ck_assert_int_eq(bgsim_disk_export_log(disk, name, NULL), -ENODATA);
    done();
}
END_TEST

/* --- time and order ------------------------------------------------------- */

START_TEST(writes_in_flight_take_effect_in_any_order)
{
    unsigned a = 0, b = 0;

    for (uint64_t seed = 1; seed <= 40; seed++) {
        uint8_t byte;

        given_seed(seed, NULL);
        bgsim_spawn(sim, "a", NULL, write_entry, (void *)"A");
        bgsim_spawn(sim, "b", bgsim_thread(sim, "b"), write_entry,
                    (void *)"B");
        ck_assert(bgsim_run(sim, -1, NULL));
        bgsim_disk_peek(disk, 0, 1, &byte);
        a += byte == 'A';
        b += byte == 'B';
        done();
    }
    ck_assert_uint_gt(a, 5);
    ck_assert_uint_gt(b, 5);
}
END_TEST

typedef struct Reads {
    bool mixed;
    bool backwards;
} Reads;

static void coroutine_fn reads_entry(BgSim *world, void *opaque)
{
    Reads *reads = opaque;
    uint8_t last[8] = { 0 };

    for (int i = 0; i < 12; i++) {
        uint8_t buf[8 * 512];
        unsigned new = 0;

        ck_assert_int_eq(blk_co_pread(blk, 0, sizeof(buf), buf, 0), 0);
        for (int k = 0; k < 8; k++) {
            new += buf[k * 512] == 'A';
            reads->backwards |= last[k] == 'A' && buf[k * 512] != 'A';
            last[k] = buf[k * 512];
        }
        reads->mixed |= new > 0 && new < 8;
    }
}

START_TEST(a_read_may_see_a_part_of_a_write_but_never_goes_back)
{
    BgSimDiskConfig config = { .torn_read_permille = 200 };
    unsigned mixed = 0;

    for (uint64_t seed = 1; seed <= 40; seed++) {
        Reads reads = { false, false };

        given_seed(seed, &config);
        bgsim_spawn(sim, "read", NULL, reads_entry, &reads);
        bgsim_spawn(sim, "write", NULL, write_entry, (void *)"A");
        ck_assert(bgsim_run(sim, -1, NULL));
        ck_assert(!reads.backwards);
        mixed += reads.mixed;
        expect(0, "AAAAAAAA");
        done();
    }
    ck_assert_uint_gt(mixed, 5);
}
END_TEST

START_TEST(requests_take_at_least_the_least_time)
{
    BgSimDiskConfig config = { .min_latency_ns = 5000, .mean_latency_ns = 1 };
    int64_t before;

    given(&config);
    before = bgsim_now_ns(sim);
    write_at(0, "A", 0);
    ck_assert_int_ge(bgsim_now_ns(sim) - before, 5000);
    ck_assert_int_le(bgsim_now_ns(sim) - before, 5100);
    done();
    config.slow_permille = 1000;
    given(&config);
    before = bgsim_now_ns(sim);
    write_at(0, "A", 0);
    ck_assert_int_ge(bgsim_now_ns(sim) - before, 5000 * 1000);
    done();
}
END_TEST

START_TEST(latencies_have_the_mean_that_was_asked_for)
{
    BgSimDiskConfig config = { .min_latency_ns = 1,
                               .mean_latency_ns = 1000000 };
    uint8_t buf[512];
    int64_t mean;

    given(&config);
    for (int i = 0; i < 4000; i++) {
        blk_pread(blk, 0, sizeof(buf), buf, 0);
    }
    mean = bgsim_now_ns(sim) / 4000;
    ck_assert_int_gt(mean, 900000);
    ck_assert_int_lt(mean, 1150000);
    done();
}
END_TEST

static uint64_t run_strategy(uint64_t seed, BgSimStrategy strategy)
{
    BgSimConfig world = { .strategy = strategy };
    BgSimDiskConfig config = { .torn_read_permille = 100, .slow_permille = 50,
                               .dirty_start = true };
    Reads reads[3] = { { false, false } };
    uint64_t hash;

    sim = bgsim_new(seed, &world);
    disk = bgsim_disk_new(sim, "disk0", &config);
    attach();
    bgsim_fail_randomly(sim, 0, 0);
    for (int i = 0; i < 3; i++) {
        g_autofree char *name = g_strdup_printf("t%d", i);
        AioContext *ctx = bgsim_thread(sim, name);

        bgsim_spawn(sim, "read", ctx, reads_entry, &reads[i]);
        bgsim_spawn(sim, "write", ctx, write_entry, (void *)"AAB");
    }
    ck_assert(bgsim_run(sim, -1, NULL));
    hash = bgsim_trace_hash(sim);
    done();
    return hash;
}

START_TEST(one_seed_makes_one_run_under_each_strategy)
{
    for (int s = BGSIM_STRATEGY_ANY; s <= BGSIM_STRATEGY_EXHAUSTIVE; s++) {
        for (uint64_t seed = 1; seed <= 5; seed++) {
            ck_assert_uint_eq(run_strategy(seed, s), run_strategy(seed, s));
        }
        ck_assert_uint_ne(run_strategy(1, s), run_strategy(2, s));
    }
}
END_TEST

START_TEST(the_same_disk_serves_real_threads)
{
    BgSimConfig world = { .threads = true };
    BgSimDiskConfig config = { .torn_read_permille = 100, .keep_log = true };
    Reads reads[3] = { { false, false } };

    sim = bgsim_new(7, &world);
    disk = bgsim_disk_new(sim, "disk0", &config);
    attach();
    for (int i = 0; i < 3; i++) {
        g_autofree char *name = g_strdup_printf("t%d", i);
        AioContext *ctx = bgsim_thread(sim, name);

        bgsim_spawn(sim, "read", ctx, reads_entry, &reads[i]);
        bgsim_spawn(sim, "write", ctx, write_entry, (void *)"A");
    }
    ck_assert(bgsim_run(sim, -1, NULL));
    ck_assert_int_eq(blk_flush(blk), 0);
    ck_assert_uint_eq(stats().volatile_atoms, 0);
    expect(0, "AAAAAAAA-");
    ck_assert(!reads[0].backwards && !reads[1].backwards);
    done();
}
END_TEST

/* --- names ---------------------------------------------------------------- */

START_TEST(a_disk_is_found_by_its_name)
{
    GError *error = NULL;

    given(NULL);
    ck_assert_ptr_eq(bgsim_disk_find(sim, "disk0"), disk);
    ck_assert_ptr_null(bgsim_disk_find(sim, "disk1"));
    ck_assert_str_eq(bgsim_disk_name(disk), "disk0");
    ck_assert_ptr_null(bdrv_open(bgsim_graph(sim),
                                 block_options_parse_keyval(
                                     "sim-disk,disk=disk1", "driver", NULL),
                                 &error));
    ck_assert_ptr_nonnull(strstr(error->message, "'disk1'"));
    g_clear_error(&error);
    done();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sim-disk");
    TCase *tcase = tcase_create("sim-disk");

    tcase_set_timeout(tcase, 120);
    PROMISE(tcase, what_is_written_is_read);
    PROMISE(tcase, a_flush_makes_ended_writes_stable);
    PROMISE(tcase, a_lying_disk_says_yes_and_does_nothing);
    PROMISE(tcase, after_a_failed_flush_data_may_be_kept);
    PROMISE(tcase, after_a_failed_flush_data_may_look_clean);
    PROMISE(tcase, after_a_failed_flush_data_may_be_the_old_ones);
    PROMISE(tcase, an_error_comes_before_or_after_the_effect);
    PROMISE(tcase, a_full_disk_says_so_until_there_is_room);
    PROMISE(tcase, a_request_that_is_held_for_ever_is_a_hang);
    PROMISE(tcase, a_discard_leaves_what_the_disk_says);
    PROMISE(tcase, a_dirty_disk_reads_as_noise_of_its_seed);
    PROMISE(tcase, peek_and_poke_go_past_the_graph);
    PROMISE(tcase, corruption_flips_one_bit);
    PROMISE(tcase, atoms_may_be_larger_than_requests);
    PROMISE(tcase, long_requests_are_split);
    PROMISE(tcase, a_large_sparse_disk_costs_nothing);
    PROMISE(tcase, block_status_tells_data_from_zeroes);
    PROMISE(tcase, a_disk_that_grows_forgets_what_was_cut_off);
    PROMISE(tcase, a_device_does_not_change_its_length);
    PROMISE(tcase, content_goes_out_to_files_and_comes_in_again);
    PROMISE(tcase, the_log_of_all_requests_can_be_replayed);
    PROMISE(tcase, writes_in_flight_take_effect_in_any_order);
    PROMISE(tcase, a_read_may_see_a_part_of_a_write_but_never_goes_back);
    PROMISE(tcase, requests_take_at_least_the_least_time);
    PROMISE(tcase, latencies_have_the_mean_that_was_asked_for);
    PROMISE(tcase, one_seed_makes_one_run_under_each_strategy);
    PROMISE(tcase, the_same_disk_serves_real_threads);
    PROMISE(tcase, a_disk_is_found_by_its_name);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
