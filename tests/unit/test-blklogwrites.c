/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blklogwrites: from the log alone, the disk can be made again as it was at
 * each flush.
 */
#include "mem-driver.h"
#include "request-fixture.h"

#define READ BLK_PERM_CONSISTENT_READ
#define WRITE BLK_PERM_WRITE
#define RESIZE BLK_PERM_RESIZE
#define ALL BLK_PERM_ALL

#define MAGIC UINT64_C(0x6a736677736872)

enum { DISK_BYTES = 64 << 10, FLUSH = 1, FUA = 2, DISCARD = 4 };

static BlockDriverState *disk, *log_disk, *node;
static BlockBackend *blk;
static MemDisk *mem, *log_mem;

static void open_node(const char *options)
{
    g_autofree char *text = g_strdup_printf(
        "blklogwrites,node-name=logger,file=disk,log=log,discard=unmap%s",
        options);

    node = open_ok(text);
    blk = backend_ok("guest", node, READ | WRITE | RESIZE, ALL);
}

static void close_node(void)
{
    blk_unref(blk);
    bdrv_unref(node);
}

static void given_on(const char *log_options, const char *options)
{
    g_autofree char *log_text = g_strdup_printf("mem,node-name=log,size=0%s",
                                                log_options);

    disk = open_ok("mem,node-name=disk,discard=unmap");
    mem = mem_disk(disk);
    log_disk = open_ok(log_text);
    log_mem = mem_disk(log_disk);
    open_node(options);
}

static void given(const char *options)
{
    given_on("", options);
}

static void done(void)
{
    close_node();
    bdrv_unref(log_disk);
    bdrv_unref(disk);
}

/* --- reading the log ------------------------------------------------------ */

typedef struct Entry {
    uint64_t sector, nr_sectors, flags;
    const uint8_t *data;
} Entry;

static uint64_t le(const uint8_t *p, int bytes)
{
    uint64_t value = 0;

    while (bytes-- > 0) {
        value = value << 8 | p[bytes];
    }
    return value;
}

/* The entries that the super block counts; g_free() them. */
static Entry *parse_log(uint64_t sector_bytes, uint64_t *ret_count)
{
    const uint8_t *p = log_mem->data;
    uint64_t count = le(p + 16, 8);
    uint64_t at = sector_bytes;
    Entry *entries = g_new0(Entry, count + 1);

    ck_assert_uint_eq(le(p, 8), MAGIC);
    ck_assert_uint_eq(le(p + 8, 8), 1);
    ck_assert_uint_eq(le(p + 24, 4), sector_bytes);
    ck_assert(block_buffer_is_zero(p + 28, sector_bytes - 28));
    for (uint64_t i = 0; i < count; i++) {
        Entry *e = &entries[i];

        ck_assert_uint_le(at + sector_bytes, log_mem->length);
        e->sector = le(p + at, 8);
        e->nr_sectors = le(p + at + 8, 8);
        e->flags = le(p + at + 16, 8);
        ck_assert(block_buffer_is_zero(p + at + 24, sector_bytes - 24));
        at += sector_bytes;
        e->data = p + at;
        if (!(e->flags & DISCARD)) {
            at += e->nr_sectors * sector_bytes;
        }
        ck_assert_uint_le(at, log_mem->length);
    }
    *ret_count = count;
    return entries;
}

static void replay(uint8_t *image, const Entry *e, uint64_t sector_bytes)
{
    uint64_t offset = e->sector * sector_bytes;
    uint64_t bytes = e->nr_sectors * sector_bytes;

    ck_assert_uint_le(offset + bytes, DISK_BYTES);
    if (e->flags & DISCARD) {
        memset(image + offset, 0, bytes); /* as the disk of the test does */
    } else {
        memcpy(image + offset, e->data, bytes);
    }
}

/* What the log says, as text: "W0+2 F D4+1"; sectors of 512 bytes. */
static char *log_text(void)
{
    uint64_t count;
    g_autofree Entry *entries = parse_log(512, &count);
    GString *text = g_string_new(NULL);

    for (uint64_t i = 0; i < count; i++) {
        const Entry *e = &entries[i];

        if (e->flags == FLUSH && e->nr_sectors == 0) {
            g_string_append(text, "F ");
            continue;
        }
        g_string_append_printf(text, "%s%d+%d ",
                               e->flags == DISCARD ? "D"
                               : e->flags == FUA   ? "!"
                               : e->flags == 0     ? "W" : "?",
                               (int)e->sector, (int)e->nr_sectors);
    }
    return g_string_free(text, FALSE);
}

static void expect_log(const char *text)
{
    g_autofree char *is = log_text();

    ck_assert_str_eq(is, text);
}

/* --- what is logged ------------------------------------------------------- */

static char buf[8192];

START_TEST(each_kind_of_request_has_its_entry)
{
    given("");
    expect_log("");
    ck_assert_int_eq(blk_pwrite(blk, 512, 1024, buf, 0), 0);
    ck_assert_int_eq(blk_pwrite(blk, 0, 512, buf, BDRV_REQ_FUA), 0);
    ck_assert_int_eq(blk_pwrite_zeroes(blk, 4096, 2048, 0), 0);
    ck_assert_int_eq(blk_pwrite_zeroes(blk, 0, 512, BDRV_REQ_FUA), 0);
    ck_assert_int_eq(blk_pdiscard(blk, 8192, 4096), 0);
    ck_assert_int_eq(blk_pread(blk, 0, 512, buf, 0), 0);
    expect_log(""); /* nothing counts before the super block says so */
    ck_assert_int_eq(blk_flush(blk), 0);
    expect_log("W1+2 !0+1 W8+4 !0+1 D16+8 F ");
    ck_assert_int_eq(log_mem->length, (1 + 6 + 2 + 1 + 4 + 1) * 512);
    done();
}
END_TEST

START_TEST(what_is_not_whole_sectors_is_logged_with_its_surroundings)
{
    uint64_t count;
    Entry *entries;

    given("");
    memset(mem->data, 'x', 1024);
    ck_assert_int_eq(blk_pwrite(blk, 100, 3, "abc", 0), 0);
    ck_assert_int_eq(blk_flush(blk), 0);
    expect_log("W0+1 F ");
    entries = parse_log(512, &count);
    ck_assert_mem_eq(entries[0].data + 98, "xxabcxx", 7);
    g_free(entries);
    done();
}
END_TEST

static uint64_t seed = 0x2545f4914f6cdd1d;

static uint64_t next_random(uint64_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % below;
}

static void random_request(uint8_t *model)
{
    int64_t offset = next_random(DISK_BYTES);
    int64_t bytes = 1 + next_random(MIN(DISK_BYTES - offset, 5000));

    switch (next_random(3)) {
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
        offset &= ~(int64_t)4095;
        memset(model + offset, 0, 4096);
        ck_assert_int_eq(blk_pdiscard(blk, offset, 4096), 0);
        break;
    }
}

/* Replays the log and compares with @models at each flush. */
static void check_replay(uint8_t *models, unsigned flushes, int sector_bytes)
{
    g_autofree uint8_t *image = g_malloc0(DISK_BYTES);
    uint64_t count;
    g_autofree Entry *entries = parse_log(sector_bytes, &count);
    unsigned seen = 0;

    for (uint64_t i = 0; i < count; i++) {
        if (entries[i].flags == FLUSH) {
            ck_assert_uint_lt(seen, flushes);
            ck_assert(memcmp(image, models + (size_t)seen * DISK_BYTES,
                             DISK_BYTES) == 0);
            seen++;
        } else {
            replay(image, &entries[i], sector_bytes);
        }
    }
    ck_assert_uint_eq(seen, flushes);
}

START_TEST(the_disk_at_each_flush_comes_out_of_the_log)
{
    static const struct { const char *log, *options; int sector; } cases[] = {
        { "", "", 512 },
        { "", ",log-sector-size=4k,log-super-update-interval=1", 4096 },
        { ",align=512,mem-align=512,max-transfer=1k,zero=off", "", 512 },
    };
    enum { FLUSHES = 25 };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree uint8_t *models = g_malloc0(FLUSHES * DISK_BYTES);
        g_autofree uint8_t *model = g_malloc0(DISK_BYTES);

        given_on(cases[i].log, cases[i].options);
        for (int flush = 0; flush < FLUSHES; flush++) {
            for (int step = 0; step < 10; step++) {
                random_request(model);
            }
            ck_assert_int_eq(blk_flush(blk), 0);
            memcpy(models + (size_t)flush * DISK_BYTES, model, DISK_BYTES);
        }
        ck_assert(memcmp(mem->data, model, DISK_BYTES) == 0);
        check_replay(models, FLUSHES, cases[i].sector);
        done();
    }
}
END_TEST

/* --- the super block ------------------------------------------------------ */

START_TEST(the_super_block_follows_at_the_interval_and_at_close)
{
    given(",log-super-update-interval=3");
    for (int i = 0; i < 5; i++) {
        ck_assert_int_eq(blk_pwrite(blk, i * 512, 512, buf, 0), 0);
        ck_assert_uint_eq(log_mem->data[16], i < 2 ? 0 : 3);
    }
    close_node();
    expect_log("W0+1 W1+1 W2+1 W3+1 W4+1 F ");
    open_node("");
    expect_log(""); /* a new log, not the rest of the old one */
    done();
}
END_TEST

START_TEST(a_log_that_is_taken_out_from_under_its_writer_is_complete)
{
    given("");
    ck_assert_int_eq(blk_pwrite(blk, 0, 512, buf, 0), 0);
    ck_assert_int_eq(bdrv_drop_filter(node, NULL), 0);
    ck_assert_int_eq(blk_pwrite(blk, 512, 512, buf, 0), 0);
    bdrv_unref(node);
    node = NULL;
    expect_log("W0+1 ");
    done();
}
END_TEST

START_TEST(a_node_that_only_reads_leaves_the_log_alone)
{
    given("");
    ck_assert_int_eq(blk_pwrite(blk, 0, 512, buf, 0), 0);
    close_node();
    expect_log("W0+1 F ");
    node = open_ok("blklogwrites,node-name=logger,file=disk,log=log,"
                   "read-only=on");
    blk = backend_ok("reader", node, READ, ALL);
    ck_assert_int_eq(blk_pread(blk, 0, 512, buf, 0), 0);
    close_node();
    expect_log("W0+1 F ");
    open_node(",log-append=on");
    done();
}
END_TEST

START_TEST(an_old_log_is_continued)
{
    given(",log-sector-size=1k");
    ck_assert_int_eq(blk_pwrite(blk, 0, 3072, buf, 0), 0);
    ck_assert_int_eq(blk_pdiscard(blk, 4096, 4096), 0);
    ck_assert_int_eq(blk_flush(blk), 0);
    for (int i = 0; i < 3; i++) {
        uint64_t count;
        Entry *entries;

        close_node();
        open_node(",log-append=on");
        ck_assert_uint_eq(bdrv_request_alignment(node), 1024);
        ck_assert_int_eq(blk_pwrite(blk, 8192, 1024, buf, 0), 0);
        ck_assert_int_eq(blk_flush(blk), 0);
        entries = parse_log(1024, &count);
        ck_assert_uint_eq(count, 3 + 2 * (i + 1));
        ck_assert_uint_eq(entries[count - 2].sector, 8);
        ck_assert_uint_eq(entries[count - 2].nr_sectors, 1);
        ck_assert_uint_eq(entries[count - 1].flags, FLUSH);
        g_free(entries);
    }
    done();
}
END_TEST

static void append_fails(const char *message)
{
    open_fails("blklogwrites,node-name=n,file=disk,log=log,log-append=on", 0,
               message);
}

START_TEST(a_log_that_is_none_is_not_continued)
{
    static const struct { int at; uint8_t value; const char *message; }
    cases[] = {
        { 0, 0, "the log does not begin with a super block" },
        { 8, 2, "the log has version 2, not 1" },
        { 25, 3, "the log has sectors of 768 bytes" },
        { 26, 0xff, "the log has sectors of 16712192 bytes" },
        { 24, 0xff, "the log has sectors of 767 bytes" },
        { 16, 3, "the log ends before its entry 2" },
        { 23, 0xff, "the log ends before its entry 2" },
        { 512 + 16, 16, "entry 0 of the log has unknown flags 0x10" },
        { 512 + 8, 3, "the log ends before the data of its entry 0" },
        { 512 + 15, 0xff, "the log ends before the data of its entry 0" },
    };

    given("");
    ck_assert_int_eq(blk_pwrite(blk, 0, 512, buf, 0), 0);
    close_node();
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        uint8_t *p = &log_mem->data[cases[i].at];
        uint8_t good = *p;

        *p = cases[i].value;
        append_fails(cases[i].message);
        *p = good;
    }
    log_mem->fail[MEM_READ] = EIO;
    append_fails("could not read the log");
    open_node(",log-append=on");
    done();
}
END_TEST

START_TEST(a_log_of_holes_is_not_continued)
{
    const BlockTruncate longer = { .offset = 65538 * 512 };
    BlockBackend *writer;

    given("");
    close_node();
    /* It claims an entry in every sector, and there is nothing in any. */
    log_mem->data[18] = 2;
    writer = backend_ok("writer", log_disk, WRITE | RESIZE, ALL);
    ck_assert_int_eq(blk_truncate(writer, &longer, NULL), 0);
    blk_unref(writer);
    append_fails("more than 65536 entries of the log are empty");
    log_mem->data[512 + 16] = 1; /* the first one is a flush */
    append_fails("the log ends before its entry");
    log_mem->data[18] = 0;
    open_node(",log-append=on");
    done();
}
END_TEST

/* --- order ---------------------------------------------------------------- */

START_TEST(a_flush_covers_what_ended_before_it_and_nothing_else)
{
    Request before, during, after, flush = { .done = 0 };

    given(",log-super-update-interval=1");
    request_write(&before, blk, 0);
    settle();
    mem->hold[MEM_WRITE] = true;
    request_write(&during, blk, 512);   /* in flight when the flush begins */
    settle();
    mem->hold[MEM_FLUSH] = true;
    blk_aio_flush(blk, request_done, &flush);
    settle();
    mem->hold[MEM_WRITE] = false;
    settle();
    request_write(&after, blk, 1024);
    settle();
    ck_assert_int_eq(before.done + during.done + after.done, 3);
    ck_assert_int_eq(flush.done, 0);
    expect_log("W0+1 "); /* those behind do not count before the flush */
    mem->hold[MEM_FLUSH] = false;
    settle();
    ck_assert_int_eq(flush.done, 1);
    expect_log("W0+1 F W1+1 W2+1 ");
    done();
}
END_TEST

/*
 * A log below which requests can be suspended: there the entry of a write that
 * has not ended hangs, while one behind it is written and its request ends.
 */
static BlockDriverState *given_a_hanging_entry(Request *hangs, Request *ended)
{
    BlockDriverState *debug;

    given("");
    close_node();
    debug = open_ok("blkdebug,node-name=debug,image=log");
    node = open_ok("blklogwrites,node-name=logger,file=disk,log=debug");
    blk = backend_ok("guest", node, READ | WRITE | RESIZE, ALL);
    ck_assert_int_eq(bdrv_debug_breakpoint(debug, "write_aio", "E"), 0);
    request_write(hangs, blk, 0);
    settle();
    ck_assert(bdrv_debug_is_suspended(debug, "E"));
    request_write(ended, blk, 512);
    settle();
    ck_assert_int_eq(hangs->done, 0);
    ck_assert_int_eq(ended->done, 1);
    return debug;
}

START_TEST(a_flush_ends_when_the_super_block_counts_it)
{
    Request hangs, ended, flush = { .done = 0 };
    BlockDriverState *debug = given_a_hanging_entry(&hangs, &ended);

    blk_aio_flush(blk, request_done, &flush);
    settle();
    ck_assert_int_eq(flush.done, 0);
    ck_assert_int_eq(bdrv_debug_resume(debug, "E"), 0);
    settle();
    ck_assert_int_eq(flush.done, 1);
    ck_assert_int_eq(hangs.done, 1);
    expect_log("W0+1 W1+1 F ");
    close_node();
    bdrv_unref(debug);
    bdrv_unref(log_disk);
    bdrv_unref(disk);
}
END_TEST

START_TEST(a_flush_behind_an_entry_that_fails_fails)
{
    Request hangs, ended, flush = { .done = 0 };
    BlockDriverState *debug = given_a_hanging_entry(&hangs, &ended);

    blk_aio_flush(blk, request_done, &flush);
    settle();
    log_mem->fail[MEM_WRITE] = ENOSPC;
    ck_assert_int_eq(bdrv_debug_resume(debug, "E"), 0);
    settle();
    ck_assert_int_eq(hangs.done, -ENOSPC);
    ck_assert_int_eq(flush.done, -EIO);
    expect_log("");
    close_node();
    bdrv_unref(debug);
    bdrv_unref(log_disk);
    bdrv_unref(disk);
}
END_TEST

/* --- failures ------------------------------------------------------------- */

START_TEST(what_failed_in_the_file_is_not_in_the_log)
{
    given("");
    mem->fail[MEM_WRITE] = EIO;
    mem->fail[MEM_ZERO] = EIO;
    mem->fail[MEM_DISCARD] = EIO;
    mem->fail[MEM_FLUSH] = ENOSPC;
    ck_assert_int_eq(blk_pwrite(blk, 0, 512, buf, 0), -EIO);
    ck_assert_int_eq(blk_pwrite_zeroes(blk, 0, 512, 0), -EIO);
    ck_assert_int_eq(blk_pdiscard(blk, 0, 512), -EIO);
    ck_assert_int_eq(blk_pwrite(blk, 512, 512, buf, 0), 0);
    ck_assert_int_eq(blk_flush(blk), -ENOSPC);
    ck_assert_int_eq(blk_flush(blk), 0);
    expect_log("W1+1 W0+0 F "); /* an entry of no sectors does nothing */
    done();
}
END_TEST

START_TEST(after_a_hole_in_the_log_the_file_is_not_written_any_more)
{
    unsigned writes;

    given(",log-super-update-interval=1");
    ck_assert_int_eq(blk_pwrite(blk, 0, 512, buf, 0), 0);
    log_mem->fail[MEM_WRITE] = ENOSPC;
    ck_assert_int_eq(blk_pwrite(blk, 512, 512, buf, 0), -ENOSPC);
    writes = mem->count[MEM_WRITE];
    ck_assert_int_eq(blk_pwrite(blk, 1024, 512, buf, 0), -EIO);
    ck_assert_int_eq(blk_pwrite_zeroes(blk, 1024, 512, 0), -EIO);
    ck_assert_int_eq(blk_pdiscard(blk, 1024, 512), -EIO);
    ck_assert_int_eq(blk_flush(blk), -EIO);
    ck_assert_int_eq(blk_pread(blk, 0, 512, buf, 0), 0);
    ck_assert_uint_eq(mem->count[MEM_WRITE], writes);
    ck_assert_uint_eq(mem->count[MEM_ZERO] + mem->count[MEM_DISCARD], 0);
    expect_log("W0+1 ");
    done();
}
END_TEST

START_TEST(a_flush_fails_when_the_log_cannot_be_flushed)
{
    given("");
    ck_assert_int_eq(blk_pwrite(blk, 0, 512, buf, 0), 0);
    log_mem->fail[MEM_FLUSH] = EIO;
    ck_assert_int_eq(blk_flush(blk), -EIO);
    expect_log("");
    ck_assert_int_eq(blk_flush(blk), 0);
    expect_log("W0+1 F F ");
    done();
}
END_TEST

START_TEST(wrong_options_are_refused_with_name_and_value)
{
    static const struct { const char *options, *message; } cases[] = {
        { "file=disk,log=log,log-sector-size=513",
          "Node 'n' (driver 'blklogwrites'): option 'log-sector-size' (513) "
          "must be a power of 2" },
        { "file=disk,log=log,log-sector-size=256", "'log-sector-size'" },
        { "file=disk,log=log,log-sector-size=16M", "'log-sector-size'" },
        { "file=disk,log=log,log-sector-size=512,log-append=on",
          "log-append=on and log-sector-size cannot be used together" },
        { "file=disk,log=log,log-super-update-interval=0",
          "'log-super-update-interval'" },
        { "file=disk", "a node for 'log' must be given" },
        { "log=log", "a node for 'file' must be given" },
        { "file=disk,log=log,log-append=on",
          "the log does not begin with a super block" },
        { "file=disk,log=log,log-size=7", "log-size" },
    };

    disk = open_ok("mem,node-name=disk");
    log_disk = open_ok("mem,node-name=log,size=0");
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *text = g_strdup_printf("blklogwrites,node-name=n,%s",
                                                cases[i].options);

        open_fails(text, 0, cases[i].message);
    }
    mem_disk(log_disk)->fail[MEM_WRITE] = EIO;
    open_fails("blklogwrites,node-name=n,file=disk,log=log", EIO,
               "could not write the super block of the log");
    bdrv_unref(log_disk);
    bdrv_unref(disk);
}
END_TEST

START_TEST(nobody_else_writes_to_the_log)
{
    BlockPerm writer = { .used = WRITE, .shared = ALL };
    BlockBackend *other;
    GError *error = NULL;

    given("");
    other = blk_new(graph, "other", &writer);
    ck_assert_int_lt(blk_insert_bs(other, log_disk, &error), 0);
    expect_error(&error, EPERM, "uses 'write'");
    blk_unref(other);
    done();
}
END_TEST

/* --- threads -------------------------------------------------------------- */

enum { THREADS = 3, ROUNDS = 300 };

typedef struct Guest {
    IOThread *iothread;
    BlockIOVec1 iov;
    char bytes[1024];
    int64_t first;      /* its own 16 KiB of the disk */
    int left;
    uint8_t fill;
    _Atomic bool ended;
} Guest;

static void guest_send(void *opaque);

static void guest_done(void *opaque, int ret)
{
    Guest *g = opaque;

    g_assert(ret == 0);
    if (--g->left > 0) {
        guest_send(g);
    } else {
        atomic_store(&g->ended, true);
    }
}

static void guest_send(void *opaque)
{
    Guest *g = opaque;
    int64_t offset = g->first + g->left % 16 * 1024;

    switch (g->left % 5) {
    case 0:
        blk_aio_flush(blk, guest_done, g);
        break;
    case 1:
        blk_aio_pwrite_zeroes(blk, offset, 1024, 0, guest_done, g);
        break;
    default:
        memset(g->bytes, g->fill++, sizeof(g->bytes));
        blk_aio_pwritev(blk, offset, block_iov_buf(&g->iov, g->bytes, 1024), 0,
                        guest_done, g);
    }
}

START_TEST(entries_of_several_threads_do_not_mix)
{
    static Guest guests[THREADS];
    g_autofree uint8_t *image = g_malloc0(DISK_BYTES);
    g_autofree Entry *entries = NULL;
    uint64_t count;

    given(",log-super-update-interval=7");
    for (int i = 0; i < THREADS; i++) {
        guests[i].first = i * 16384;
        guests[i].left = ROUNDS;
        guests[i].fill = i * 85 + 1;
        guests[i].iothread = iothread_new("guest", AIO_ENGINE_AUTO, NULL);
        aio_bh_schedule_oneshot(iothread_get_aio_context(guests[i].iothread),
                                guest_send, &guests[i]);
    }
    for (int i = 0; i < THREADS; i++) {
        while (!atomic_load(&guests[i].ended)) {
            aio_poll(block_graph_aio_context(graph), false);
        }
        iothread_free(guests[i].iothread);
    }
    close_node();
    entries = parse_log(512, &count);
    ck_assert_uint_ge(count, THREADS * ROUNDS * 4 / 5);
    for (uint64_t i = 0; i < count; i++) {
        replay(image, &entries[i], 512);
    }
    ck_assert(memcmp(image, mem->data, DISK_BYTES) == 0);
    bdrv_unref(log_disk);
    bdrv_unref(disk);
}
END_TEST

START_TEST(a_change_of_length_goes_to_the_disk_and_not_into_the_log)
{
    BlockTruncate how = { .offset = 2 * DISK_BYTES, .exact = true };
    GError *error = NULL;
    uint64_t nr_entries;

    given("");
    ck_assert_int_eq(blk_truncate(blk, &how, &error), 0);
    ck_assert_int_eq(mem->length, 2 * DISK_BYTES);
    ck_assert_int_eq(blk_getlength(blk), 2 * DISK_BYTES);
    ck_assert_int_eq(blk_pwrite(blk, DISK_BYTES, 512, buf, 0), 0);
    mem->fail[MEM_TRUNCATE] = ENOSPC;
    ck_assert_int_eq(blk_truncate(blk, &how, &error), -ENOSPC);
    expect_error(&error, ENOSPC, "truncate");
    ck_assert_int_eq(blk_flush(blk), 0);
    g_free(parse_log(512, &nr_entries));
    ck_assert_uint_eq(nr_entries, 2); /* the write and the flush */
    done();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("blklogwrites");
    TCase *tcase = tcase_create("blklogwrites");

    mem_register();
    tcase_add_checked_fixture(tcase, graph_setup, graph_teardown);
    tcase_set_timeout(tcase, 100);
    PROMISE(tcase, each_kind_of_request_has_its_entry);
    PROMISE(tcase, what_is_not_whole_sectors_is_logged_with_its_surroundings);
    PROMISE(tcase, the_disk_at_each_flush_comes_out_of_the_log);
    PROMISE(tcase, the_super_block_follows_at_the_interval_and_at_close);
    PROMISE(tcase, a_node_that_only_reads_leaves_the_log_alone);
    PROMISE(tcase,
            a_log_that_is_taken_out_from_under_its_writer_is_complete);
    PROMISE(tcase, an_old_log_is_continued);
    PROMISE(tcase, a_log_that_is_none_is_not_continued);
    PROMISE(tcase, a_log_of_holes_is_not_continued);
    PROMISE(tcase, a_flush_covers_what_ended_before_it_and_nothing_else);
    PROMISE(tcase, a_flush_ends_when_the_super_block_counts_it);
    PROMISE(tcase, a_flush_behind_an_entry_that_fails_fails);
    PROMISE(tcase, what_failed_in_the_file_is_not_in_the_log);
    PROMISE(tcase, after_a_hole_in_the_log_the_file_is_not_written_any_more);
    PROMISE(tcase, a_flush_fails_when_the_log_cannot_be_flushed);
    PROMISE(tcase, wrong_options_are_refused_with_name_and_value);
    PROMISE(tcase, nobody_else_writes_to_the_log);
    PROMISE(tcase, entries_of_several_threads_do_not_mix);
    PROMISE(tcase, a_change_of_length_goes_to_the_disk_and_not_into_the_log);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
