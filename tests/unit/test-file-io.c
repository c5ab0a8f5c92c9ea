/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests of the driver "file": zero writes, discards, extents, and several
 * threads on one file, on a real file system.
 */
#include "file-fixture.h"
#include "co-fixture.h"

#include "util/lock.h"

#include <sched.h>
#include <sys/mount.h>

#define KIB 1024
#define MIB (1024 * 1024)

/* On disk, and in memory where there is such a directory. */
static void io_setup(void)
{
    if (g_file_test("/dev/shm", G_FILE_TEST_IS_DIR)) {
        g_setenv("TMPDIR", "/dev/shm", true);
    }
    file_setup();
}

static int write_bytes(BlockBackend *blk, int64_t offset, int64_t bytes,
                       int byte)
{
    g_autofree char *buf = g_malloc(bytes);

    memset(buf, byte, bytes);
    return blk_pwrite(blk, offset, bytes, buf, 0);
}

/* --- zero writes and discards --------------------------------------------- */

START_TEST(zero_writes_of_any_range_and_kind_read_as_zero)
{
    static const unsigned flags[] = {
        0, BDRV_REQ_MAY_UNMAP, BDRV_REQ_FUA,
        BDRV_REQ_MAY_UNMAP | BDRV_REQ_FUA,
    };
    static uint8_t model[256 * KIB], in[sizeof(model)];
    GRand *rand = g_rand_new_with_seed(2);
    BlockBackend *blk;

    make_file("disk", sizeof(model));
    blk = file_backend("file,filename=%s/disk,discard=unmap,aio=%s",
                       _i ? "threads" : "io_uring");
    memset(model, 'm', sizeof(model));
    ck_assert_int_eq(blk_pwrite(blk, 0, sizeof(model), model, 0), 0);
    for (int i = 0; i < 100; i++) {
        int64_t offset = g_rand_int_range(rand, 0, sizeof(model));
        int64_t bytes = g_rand_int_range(rand, 0, sizeof(model) - offset + 1);

        bytes = MIN(bytes, 20000);
        memset(model + offset, 0, bytes);
        ck_assert_int_eq(blk_pwrite_zeroes(blk, offset, bytes, flags[i % 4]),
                         0);
        ck_assert_int_eq(blk_pread(blk, 0, sizeof(in), in, 0), 0);
        ck_assert(memcmp(in, model, sizeof(in)) == 0);
    }
    ck_assert_int_eq(file_length("disk"), sizeof(model));
    close_backend(blk);
    g_rand_free(rand);
}
END_TEST

START_TEST(unmapping_gives_space_back_and_plain_zeroes_keep_it)
{
    BlockBackend *blk;

    make_file("disk", 0);
    create_ok("filename=%s/disk,size=4M,preallocation=full");
    blk = file_backend("file,filename=%s/disk,discard=unmap");
    ck_assert_int_eq(write_bytes(blk, 0, 4 * MIB, 'd'), 0);
    ck_assert_int_eq(blk_pwrite_zeroes(blk, 0, 2 * MIB, 0), 0);
    ck_assert_int_eq(blk_flush(blk), 0);
    ck_assert_int_ge(file_blocks("disk"), 4 * MIB);
    ck_assert_int_eq(blk_pwrite_zeroes(blk, 0, 2 * MIB, BDRV_REQ_MAY_UNMAP),
                     0);
    ck_assert_int_le(file_blocks("disk"), 2 * MIB + 64 * KIB);
    ck_assert_int_eq(blk_pdiscard(blk, 2 * MIB, MIB), 0);
    ck_assert_int_le(file_blocks("disk"), MIB + 64 * KIB);
    expect_bytes("disk", 0, 3 * MIB, 0);
    expect_bytes("disk", 3 * MIB, MIB, 'd');
    close_backend(blk);
}
END_TEST

START_TEST(a_discard_is_ignored_unless_asked_for)
{
    BlockBackend *blk;

    make_file("disk", MIB);
    blk = file_backend("file,filename=%s/disk");
    ck_assert_int_eq(write_bytes(blk, 0, MIB, 'd'), 0);
    ck_assert_int_eq(blk_pdiscard(blk, 0, MIB), 0);
    close_backend(blk);
    expect_bytes("disk", 0, MIB, 'd');
}
END_TEST

/* --- beyond the end ------------------------------------------------------- */

/* A call on the edge of a backend's node; formats make such calls. */
typedef struct EdgeCall {
    BdrvChild *child;
    int64_t offset;
    int64_t bytes;
    unsigned flags;
} EdgeCall;

static int coroutine_fn zero_entry(void *opaque)
{
    EdgeCall *call = opaque;

    return bdrv_co_pwrite_zeroes(call->child, call->offset, call->bytes,
                                 call->flags);
}

static int run(int coroutine_fn (*entry)(void *opaque), EdgeCall *call)
{
    return aio_co_run(block_graph_aio_context(graph), entry, call);
}

/* The edge that a filter on top of the file has to it. */
static BdrvChild *edge_of(BlockBackend *blk)
{
    return bdrv_find_child(blk_bs(blk), "file");
}

START_TEST(zero_writes_beyond_the_end_grow_the_file)
{
    static const unsigned flags[] = { 0, BDRV_REQ_MAY_UNMAP };
    int64_t length = 1000;
    BlockBackend *blk;

    make_file("disk", 0);
    blk = file_backend("pass,discard=unmap,file.driver=file,"
                       "file.filename=%s/disk");
    ck_assert_int_eq(bdrv_length(blk_bs(blk)), 0);
    for (int i = 0; i < 8; i++) {
        /* Across the end, from the end, and from behind it. */
        EdgeCall call = { .child = edge_of(blk), .flags = flags[i % 2],
                          .offset = MAX(0, length - 1000 + 500 * (i % 3)),
                          .bytes = 100000 + i };

        length = call.offset + call.bytes;
        ck_assert_int_eq(run(zero_entry, &call), 0);
        ck_assert_int_eq(file_length("disk"), length);
        expect_bytes("disk", 0, length, 0);
    }
    close_backend(blk);
}
END_TEST

START_TEST(what_another_wrote_behind_the_known_end_is_zeroed_too)
{
    g_autofree char *path = path_of("disk");
    g_autofree char *junk = g_strnfill(100000, 'j');
    BlockBackend *blk;
    EdgeCall call;

    for (int i = 0; i < 2; i++) {
        make_file("disk", 1000);
        blk = file_backend("pass,discard=unmap,file.driver=file,"
                           "file.filename=%s/disk");
        ck_assert(g_file_set_contents_full(path, junk, 100000,
                                           G_FILE_SET_CONTENTS_NONE, 0600,
                                           NULL));
        call = (EdgeCall){ .child = edge_of(blk), .offset = 1000,
                           .bytes = 150000,
                           .flags = i ? BDRV_REQ_MAY_UNMAP : 0 };
        ck_assert_int_eq(run(zero_entry, &call), 0);
        expect_bytes("disk", 0, 1000, 'j');
        expect_bytes("disk", 1000, 150000, 0);
        close_backend(blk);
    }
}
END_TEST

START_TEST(a_file_that_became_shorter_reads_as_zero)
{
    g_autofree char *path = path_of("disk");
    char in[4096];
    BlockBackend *blk;
    BlockExtent extent;

    make_file("disk", 64 * KIB);
    blk = file_backend("file,filename=%s/disk");
    ck_assert_int_eq(write_bytes(blk, 0, 64 * KIB, 's'), 0);
    ck_assert_int_eq(truncate(path, 1000), 0);
    ck_assert_int_eq(blk_pread(blk, 0, sizeof(in), in, 0), 0);
    ck_assert_int_eq(in[999], 's');
    ck_assert(block_buffer_is_zero(in + 1000, sizeof(in) - 1000));
    ck_assert_int_eq(blk_pread(blk, 32 * KIB, sizeof(in), in, 0), 0);
    ck_assert(block_buffer_is_zero(in, sizeof(in)));
    ck_assert_int_eq(blk_block_status(blk, 32 * KIB, KIB, &extent), 0);
    ck_assert_uint_eq(extent.status & BDRV_BLOCK_ZERO, BDRV_BLOCK_ZERO);
    close_backend(blk);
}
END_TEST

/* --- a full disk ---------------------------------------------------------- */

/* Mount a small file system over the test's directory, for us alone. */
static bool mount_small(const char *size)
{
    g_autofree char *options = g_strdup_printf("size=%s", size);

    return unshare(CLONE_NEWNS) == 0 &&
           mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount("none", file_dir, "tmpfs", 0, options) == 0;
}

START_TEST(a_full_disk_fails_what_does_not_fit_and_nothing_else)
{
    BlockTruncate how = { .offset = 4 * MIB, .exact = true,
                          .prealloc = _i ? PREALLOC_MODE_FULL
                                         : PREALLOC_MODE_FALLOC };
    GError *error = NULL;
    BlockBackend *blk;

    if (!mount_small("1M")) {
        return; /* not allowed here */
    }
    make_file("disk", 3 * MIB);
    blk = file_backend("file,filename=%s/disk,discard=unmap,aio=%s",
                       _i ? "threads" : "io_uring");
    ck_assert_int_eq(write_bytes(blk, 0, 512 * KIB, 'f'), 0);
    ck_assert_int_eq(write_bytes(blk, MIB, MIB, 'x'), -ENOSPC);
    ck_assert_int_eq(blk_pwrite_zeroes(blk, 2 * MIB, MIB, 0), -ENOSPC);
    ck_assert_int_lt(blk_truncate(blk, &how, &error), 0);
    expect_error(&error, ENOSPC, "disk'");
    ck_assert_int_eq(file_length("disk"), 3 * MIB);
    create_fails("filename=%s/new,size=2M,preallocation=full", ENOSPC,
                 "new'");
    ck_assert_int_eq(blk_flush(blk), 0);
    expect_bytes("disk", 0, 512 * KIB, 'f');
    ck_assert_int_eq(blk_pdiscard(blk, MIB, 2 * MIB), 0);
    ck_assert_int_eq(write_bytes(blk, MIB, 256 * KIB, 'y'), 0);
    expect_bytes("disk", MIB, 256 * KIB, 'y');
    close_backend(blk);
    umount(file_dir);
}
END_TEST

/* --- extents -------------------------------------------------------------- */

/* Check every extent against the content: what is ZERO must be zero. */
static int64_t check_extents(BlockBackend *blk, const uint8_t *model,
                             int64_t length)
{
    int64_t zero_bytes = 0;

    for (int64_t offset = 0; offset < length;) {
        BlockExtent extent;

        ck_assert_int_eq(blk_block_status(blk, offset, length - offset,
                                          &extent), 0);
        ck_assert_int_gt(extent.bytes, 0);
        ck_assert_int_le(offset + extent.bytes, length);
        ck_assert(extent.status & BDRV_BLOCK_OFFSET_VALID);
        ck_assert(extent.status & BDRV_BLOCK_ALLOCATED);
        ck_assert_int_eq(extent.map, offset);
        ck_assert(!!(extent.status & BDRV_BLOCK_EOF) ==
                  (offset + extent.bytes == length));
        if (extent.status & BDRV_BLOCK_ZERO) {
            zero_bytes += extent.bytes;
            ck_assert(block_buffer_is_zero(model + offset, extent.bytes));
        }
        offset += extent.bytes;
    }
    return zero_bytes;
}

START_TEST(R72_extents_are_right_directly_after_every_change)
{
    static uint8_t model[4 * MIB];
    GRand *rand = g_rand_new_with_seed(3);
    const char *direct = _i ? "on" : "off";
    BlockBackend *blk;

    memset(model, 0, sizeof(model));
    make_file("disk", sizeof(model));
    blk = file_backend("file,filename=%s/disk,discard=unmap,cache.direct=%s",
                       direct);
    if (!blk) {
        return; /* not on this file system */
    }
    ck_assert_int_eq(check_extents(blk, model, sizeof(model)), 4 * MIB);
    for (int i = 0; i < 150; i++) {
        int64_t offset = g_rand_int_range(rand, 0, sizeof(model) - 70000);
        int64_t bytes = g_rand_int_range(rand, 1, 70000);

        if (i % 3 == 2) {
            memset(model + offset, 0, bytes);
            ck_assert_int_eq(blk_pwrite_zeroes(blk, offset, bytes,
                                               BDRV_REQ_MAY_UNMAP), 0);
        } else {
            memset(model + offset, 'e', bytes);
            ck_assert_int_eq(blk_pwrite(blk, offset, bytes, model + offset,
                                        0), 0);
        }
        check_extents(blk, model, sizeof(model));
    }
    ck_assert_int_eq(blk_pdiscard(blk, 0, sizeof(model)), 0);
    memset(model, 0, sizeof(model));
    ck_assert_int_eq(check_extents(blk, model, sizeof(model)), 4 * MIB);
    close_backend(blk);
    g_rand_free(rand);
}
END_TEST

START_TEST(the_space_of_a_file_is_what_the_system_says)
{
    BlockDriverState *bs;
    BlockDriverInfo info;
    BlockBackend *blk;

    make_file("disk", 8 * MIB);
    blk = file_backend("file,filename=%s/disk");
    bs = blk_bs(blk);
    ck_assert_int_eq(write_bytes(blk, MIB, MIB, 'a'), 0);
    ck_assert_int_eq(blk_flush(blk), 0);
    ck_assert_int_ge(file_blocks("disk"), MIB);
    ck_assert_int_lt(file_blocks("disk"), 2 * MIB);
    ck_assert_int_eq(bdrv_get_info(bs, &info), 0);
    ck_assert_int_eq(info.cluster_bytes, 0);
    close_backend(blk);
}
END_TEST

/* --- several threads ------------------------------------------------------ */

#define CROWD_SECTORS 2048
#define CROWD_SECTOR 512
#define CROWD_OPS 300

/* A disk of sectors that each hold one number, and who works where. */
static struct Crowd {
    BlockBackend *blk;
    bool discard_zeroes; /* each sector: none is smaller than a request */
    _Atomic uint32_t next_seed;
    _Atomic int errors;
    Lock lock;

    /* Guarded by @lock. */
    bool busy[CROWD_SECTORS];

    /* Whoever made a sector busy. */
    uint8_t value[CROWD_SECTORS];
} crowd;

/* Make a range busy, if none of it is. */
static bool reserve(int first, int count)
{
    WITH_LOCK(&crowd.lock) {
        for (int i = first; i < first + count; i++) {
            if (crowd.busy[i]) {
                return false;
            }
        }
        memset(crowd.busy + first, true, count);
    }
    return true;
}

static void release(int first, int count)
{
    WITH_LOCK(&crowd.lock) {
        memset(crowd.busy + first, false, count);
    }
}

static bool sectors_match(const uint8_t *buf, int first, int count)
{
    for (int i = 0; i < count * CROWD_SECTOR; i++) {
        if (buf[i] != crowd.value[first + i / CROWD_SECTOR]) {
            return false;
        }
    }
    return true;
}

static int coroutine_fn crowd_op(GRand *rand, uint8_t *buf, int first,
                                 int count)
{
    int64_t offset = (int64_t)first * CROWD_SECTOR;
    int64_t bytes = (int64_t)count * CROWD_SECTOR;
    uint8_t value = g_rand_int_range(rand, 1, 256);

    switch (g_rand_int_range(rand, 0, 6)) {
    case 0:
    case 1:
        memset(buf, value, bytes);
        memset(crowd.value + first, value, count);
        return blk_co_pwrite(crowd.blk, offset, bytes, buf,
                             value < 16 ? BDRV_REQ_FUA : 0);
    case 2:
        memset(crowd.value + first, 0, count);
        return blk_co_pwrite_zeroes(crowd.blk, offset, bytes,
                                    value & 1 ? BDRV_REQ_MAY_UNMAP : 0);
    case 3:
        if (!crowd.discard_zeroes) {
            return 0;
        }
        memset(crowd.value + first, 0, count);
        return blk_co_pdiscard(crowd.blk, offset, bytes);
    case 4:
        return value < 32 ? blk_co_flush(crowd.blk) : 0;
    default:
        return 0;
    }
}

static void coroutine_fn crowd_body(void *opaque)
{
    GRand *rand = g_rand_new_with_seed(atomic_fetch_add(&crowd.next_seed, 1));
    g_autofree uint8_t *buf = g_malloc(64 * CROWD_SECTOR);

    for (int i = 0; i < CROWD_OPS; i++) {
        int count = g_rand_int_range(rand, 1, 65);
        int first = g_rand_int_range(rand, 0, CROWD_SECTORS - count + 1);
        int ret;

        if (!reserve(first, count)) {
            continue;
        }
        ret = crowd_op(rand, buf, first, count);
        if (ret == 0) {
            ret = blk_co_pread(crowd.blk, (int64_t)first * CROWD_SECTOR,
                               (int64_t)count * CROWD_SECTOR, buf, 0);
        }
        if (ret < 0 || !sectors_match(buf, first, count)) {
            atomic_fetch_add(&crowd.errors, 1);
        }
        release(first, count);
    }
    g_rand_free(rand);
}

START_TEST(threads_on_one_file_each_see_their_own_writes)
{
    static const char *const variants[] = {
        "cache.direct=off,aio=io_uring", "cache.direct=on,aio=io_uring",
        "cache.direct=off,aio=threads",
    };
    static uint8_t in[CROWD_SECTORS * CROWD_SECTOR];

    memset(&crowd, 0, sizeof(crowd));
    lock_init(&crowd.lock, LOCK_RANK_LEAF);
    make_file("disk", sizeof(in));
    crowd.blk = file_backend("file,filename=%s/disk,discard=unmap,%s",
                             variants[_i]);
    if (!crowd.blk) {
        return; /* not on this file system */
    }
    crowd.discard_zeroes =
        bdrv_request_alignment(blk_bs(crowd.blk)) <= CROWD_SECTOR;
    co_ctx = block_graph_aio_context(graph);
    co_crowd_run(2, 12, crowd_body, NULL);
    ck_assert_int_eq(atomic_load(&crowd.errors), 0);
    ck_assert_int_eq(blk_pread(crowd.blk, 0, sizeof(in), in, 0), 0);
    ck_assert(sectors_match(in, 0, CROWD_SECTORS));
    close_backend(crowd.blk);
}
END_TEST

/* --- growth by several at once -------------------------------------------- */

#define GROWTH_UNIT 4096
#define GROWTH_UNITS 512

static struct Growth {
    BdrvChild *child;
    _Atomic int next;
    _Atomic int errors;
} growth;

static bool unit_is_zero(int unit)
{
    return unit % 3 == 0;
}

/* Units in random order of completion: data, or zeroes, beyond the end. */
static void coroutine_fn growth_body(void *opaque)
{
    char buf[GROWTH_UNIT];
    int unit;

    memset(buf, 'g', sizeof(buf));
    while ((unit = atomic_fetch_add(&growth.next, 1)) < GROWTH_UNITS) {
        int64_t offset = (int64_t)unit * GROWTH_UNIT;
        int ret = unit_is_zero(unit)
                      ? bdrv_co_pwrite_zeroes(growth.child, offset,
                                              GROWTH_UNIT, 0)
                      : bdrv_co_pwrite(growth.child, offset, GROWTH_UNIT, buf,
                                       0);

        if (ret < 0) {
            atomic_fetch_add(&growth.errors, 1);
        }
    }
}

START_TEST(writes_and_zero_writes_that_grow_a_file_do_not_meet)
{
    BlockBackend *blk;

    make_file("disk", 0);
    blk = file_backend("pass,file.driver=file,file.filename=%s/disk");
    memset(&growth, 0, sizeof(growth));
    growth.child = edge_of(blk);
    co_ctx = block_graph_aio_context(graph);
    co_crowd_run(2, 8, growth_body, NULL);
    ck_assert_int_eq(atomic_load(&growth.errors), 0);
    ck_assert_int_eq(file_length("disk"), GROWTH_UNIT * GROWTH_UNITS);
    for (int i = 0; i < GROWTH_UNITS; i++) {
        expect_bytes("disk", (int64_t)i * GROWTH_UNIT, GROWTH_UNIT,
                     unit_is_zero(i) ? 0 : 'g');
    }
    close_backend(blk);
}
END_TEST

static void add_tests(Suite *suite, const char *name, SFun setup)
{
    TCase *tc = tcase_create(name);

    tcase_add_checked_fixture(tc, setup, file_teardown);
    tcase_set_timeout(tc, 100);
    suite_add_tcase(suite, tc);
    tcase_add_loop_test(tc, zero_writes_of_any_range_and_kind_read_as_zero, 0,
                        2);
    PROMISE(tc, unmapping_gives_space_back_and_plain_zeroes_keep_it);
    PROMISE(tc, a_discard_is_ignored_unless_asked_for);
    PROMISE(tc, zero_writes_beyond_the_end_grow_the_file);
    PROMISE(tc, what_another_wrote_behind_the_known_end_is_zeroed_too);
    PROMISE(tc, a_file_that_became_shorter_reads_as_zero);
    tcase_add_loop_test(
        tc, R72_extents_are_right_directly_after_every_change, 0, 2);
    tcase_add_loop_test(
        tc, a_full_disk_fails_what_does_not_fit_and_nothing_else, 0, 2);
    PROMISE(tc, the_space_of_a_file_is_what_the_system_says);
    tcase_add_loop_test(tc, threads_on_one_file_each_see_their_own_writes, 0,
                        3);
    PROMISE(tc, writes_and_zero_writes_that_grow_a_file_do_not_meet);
}

int main(void)
{
    Suite *suite = suite_create("file-io");

    register_pass_driver();
    add_tests(suite, "on-disk", file_setup);
    add_tests(suite, "in-memory", io_setup);
    return check_main(suite);
}
