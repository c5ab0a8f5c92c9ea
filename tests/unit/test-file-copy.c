/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Copies of the driver "file" from one file to another, on real file systems:
 * one that shares space (btrfs), one where the system is to copy (an overlay,
 * of which nothing else is known), and one that does neither.
 */
#include "file-fixture.h"
#include "co-fixture.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/statvfs.h>

#define MIB (1024 * 1024)

/* What is mounted over the directory of the test, for us alone. */
static char *device;
static bool mounted;

static bool mount_here(const char *what, const char *type, const char *options)
{
    mounted = unshare(CLONE_NEWNS) == 0 &&
              mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
              mount(what, file_dir, type, 0, options) == 0;
    return mounted;
}

static bool mount_btrfs(void)
{
    g_autofree char *command =
        g_strdup_printf("mkfs.btrfs -q %s/fs >/dev/null 2>&1", file_dir);

    make_file("fs", 200 * MIB);
    device = system(command) == 0 ? loop_attach("fs") : NULL;
    return device && mount_here(device, "btrfs", NULL);
}

/* An overlay over a file system in memory. */
static bool mount_overlay(void)
{
    g_autofree char *options = g_strdup_printf(
        "lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work", file_dir,
        file_dir, file_dir);
    static const char *const names[] = { "lower", "upper", "work" };

    if (!mount_here("none", "tmpfs", NULL)) {
        return false;
    }
    for (int i = 0; i < 3; i++) {
        g_autofree char *path = path_of(names[i]);

        ck_assert_int_eq(mkdir(path, 0700), 0);
    }
    return mount("none", file_dir, "overlay", 0, options) == 0;
}

/* Where copies work, one after the other; false: not on this machine. */
static bool mount_variant(int i)
{
    return i == 0 ? mount_btrfs() : mount_overlay();
}

static void teardown(void)
{
    while (mounted && umount2(file_dir, MNT_DETACH) == 0) {
    }
    if (device) {
        loop_detach(device);
        g_clear_pointer(&device, g_free);
    }
    file_teardown();
}

/* A copy on the edges that filters have to files. */
static int coroutine_fn copy_entry(void *opaque)
{
    return bdrv_co_copy_range(opaque);
}

static int run_copy(const BlockCopyRange *copy)
{
    return aio_co_run(block_graph_aio_context(graph), copy_entry,
                      (void *)copy);
}

static BdrvChild *edge_of(BlockBackend *blk)
{
    return bdrv_find_child(blk_bs(blk), "file");
}

static void fill(BlockBackend *blk, int64_t offset, int64_t bytes, char byte)
{
    g_autofree char *data = g_strnfill(bytes, byte);

    ck_assert_int_eq(blk_pwrite(blk, offset, bytes, data, 0), 0);
}

START_TEST(a_file_is_copied_to_another)
{
    BlockBackend *src, *dst;
    BlockCopyRange copy;

    if (!mount_variant(_i)) {
        return;
    }
    make_file("src", 3 * MIB);
    make_file("dst", MIB);
    src = file_backend("pass,file.driver=file,file.filename=%s/src");
    dst = file_backend("pass,file.driver=file,file.filename=%s/dst");
    fill(src, 0, 3 * MIB, 'c');
    copy = (BlockCopyRange){
        .src = edge_of(src), .src_offset = 8192, .dst = edge_of(dst),
        .dst_offset = 4096, .bytes = 2 * MIB + 12288,
    };
    ck_assert_int_eq(run_copy(&copy), 0);
    ck_assert_int_eq(file_length("dst"), 4096 + copy.bytes);
    expect_bytes("dst", 0, 4096, 0);
    expect_bytes("dst", 4096, copy.bytes, 'c');
    close_backend(src);
    close_backend(dst);
}
END_TEST

/* To read and write is as good there, and the caller can do that. */
START_TEST(where_nothing_is_shared_the_caller_is_to_copy)
{
    BlockBackend *src, *dst;
    BlockCopyRange copy;

    if (!mount_here("none", "tmpfs", NULL)) {
        return;
    }
    make_file("src", MIB);
    make_file("dst", MIB);
    src = file_backend("pass,file.driver=file,file.filename=%s/src");
    dst = file_backend("pass,file.driver=file,file.filename=%s/dst");
    fill(src, 0, MIB, 'c');
    copy = (BlockCopyRange){ .src = edge_of(src), .dst = edge_of(dst),
                             .bytes = MIB };
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(run_copy(&copy), -ENOTSUP);
        expect_bytes("dst", 0, MIB, 0);
    }
    close_backend(src);
    close_backend(dst);
}
END_TEST

/* Whoever asked reads then, and gets zeroes from the core. */
START_TEST(what_lies_beyond_the_end_of_the_source_is_not_for_a_copy)
{
    BlockBackend *src, *dst;
    BlockCopyRange copy;

    if (!mount_variant(_i)) {
        return;
    }
    make_file("src", 300000);
    make_file("dst", MIB);
    src = file_backend("pass,file.driver=file,file.filename=%s/src");
    dst = file_backend("pass,file.driver=file,file.filename=%s/dst");
    copy = (BlockCopyRange){ .src = edge_of(src), .src_offset = 200000,
                             .dst = edge_of(dst), .bytes = 100001 };
    ck_assert_int_eq(run_copy(&copy), -ENOTSUP);
    copy.src_offset = 0;
    copy.bytes = 65536;
    ck_assert_int_eq(run_copy(&copy), 0);
    close_backend(src);
    close_backend(dst);
}
END_TEST

START_TEST(a_copy_inside_one_file_must_not_overlap)
{
    BlockBackend *blk;
    BlockCopyRange copy;

    if (!mount_variant(_i)) {
        return;
    }
    make_file("disk", MIB);
    blk = file_backend("pass,file.driver=file,file.filename=%s/disk");
    fill(blk, 0, 131072, 'o');
    copy = (BlockCopyRange){ .src = edge_of(blk), .dst = edge_of(blk),
                             .dst_offset = 131071, .bytes = 131072 };
    ck_assert_int_eq(run_copy(&copy), -ENOTSUP);
    copy.dst_offset = 131072;
    ck_assert_int_eq(run_copy(&copy), 0);
    expect_bytes("disk", 0, 262144, 'o');
    expect_bytes("disk", 262144, 1000, 0);
    close_backend(blk);
}
END_TEST

/* --- many at once --------------------------------------------------------- */

#define UNIT 65536
#define UNITS 64

static struct {
    BdrvChild *src, *dst;
    _Atomic int next;
    _Atomic int errors;
} units;

/* A third of them is written, for growth has a rule for those two together. */
static void coroutine_fn unit_body(void *opaque)
{
    g_autofree char *buf = g_strnfill(UNIT, 'w');
    int unit;

    while ((unit = atomic_fetch_add(&units.next, 1)) < UNITS) {
        BlockCopyRange copy = {
            .src = units.src, .src_offset = (int64_t)unit * UNIT,
            .dst = units.dst, .dst_offset = (int64_t)unit * UNIT,
            .bytes = UNIT,
        };
        int ret = unit % 3 == 0 ? bdrv_co_pwrite(units.dst, copy.dst_offset,
                                                 UNIT, buf, 0)
                                : bdrv_co_copy_range(&copy);

        if (ret < 0) {
            atomic_fetch_add(&units.errors, 1);
        }
    }
}

START_TEST(copies_and_writes_at_once_grow_a_file_to_the_right_content)
{
    BlockBackend *src, *dst;

    if (!mount_variant(_i)) {
        return;
    }
    make_file("src", UNIT * UNITS);
    make_file("dst", 0);
    src = file_backend("pass,file.driver=file,file.filename=%s/src");
    dst = file_backend("pass,file.driver=file,file.filename=%s/dst");
    for (int i = 0; i < UNITS; i++) {
        fill(src, (int64_t)i * UNIT, UNIT, 'A' + i);
    }
    memset(&units, 0, sizeof(units));
    units.src = edge_of(src);
    units.dst = edge_of(dst);
    co_ctx = block_graph_aio_context(graph);
    co_crowd_run(2, 8, unit_body, NULL);
    ck_assert_int_eq(atomic_load(&units.errors), 0);
    ck_assert_int_eq(file_length("dst"), UNIT * UNITS);
    for (int i = 0; i < UNITS; i++) {
        expect_bytes("dst", (int64_t)i * UNIT, UNIT, i % 3 ? 'A' + i : 'w');
    }
    close_backend(src);
    close_backend(dst);
}
END_TEST

/* --- space ---------------------------------------------------------------- */

/* A source on another file system does not speak for the next one. */
START_TEST(a_source_that_is_elsewhere_does_not_end_copies_from_here)
{
    g_autofree char *elsewhere = g_strconcat(file_dir, "-elsewhere", NULL);
    g_autofree char *junk = g_strnfill(MIB, 'e');
    g_autofree char *options = g_strdup_printf(
        "pass,file.driver=file,file.filename=%s", elsewhere);
    BlockBackend *far, *near, *dst;
    BlockCopyRange copy;

    if (!mount_variant(_i)) {
        return;
    }
    ck_assert(g_file_set_contents(elsewhere, junk, MIB, NULL));
    make_file("src", MIB);
    make_file("dst", MIB);
    far = file_backend(options);
    near = file_backend("pass,file.driver=file,file.filename=%s/src");
    dst = file_backend("pass,file.driver=file,file.filename=%s/dst");
    fill(near, 0, MIB, 'n');
    copy = (BlockCopyRange){ .src = edge_of(far), .dst = edge_of(dst),
                             .bytes = MIB };
    ck_assert_int_eq(run_copy(&copy), -ENOTSUP);
    copy.src = edge_of(near);
    ck_assert_int_eq(run_copy(&copy), 0);
    expect_bytes("dst", 0, MIB, 'n');
    close_backend(far);
    close_backend(near);
    close_backend(dst);
    unlink(elsewhere);
}
END_TEST

static int64_t free_space(void)
{
    struct statvfs fs;

    sync();
    ck_assert_int_eq(statvfs(file_dir, &fs), 0);
    return (int64_t)fs.f_bfree * fs.f_frsize;
}

START_TEST(a_copy_shares_the_space_where_the_file_system_can)
{
    BlockBackend *src, *dst;
    BlockCopyRange copy;
    int64_t before;

    if (!mount_btrfs()) {
        return; /* no such file system, or not allowed */
    }
    make_file("src", 16 * MIB);
    make_file("dst", 0);
    src = file_backend("pass,file.driver=file,file.filename=%s/src");
    dst = file_backend("pass,file.driver=file,file.filename=%s/dst");
    fill(src, 0, 16 * MIB, 's');
    before = free_space();
    /* One that cannot share comes first, and does not spoil the others. */
    copy = (BlockCopyRange){ .src = edge_of(src), .dst = edge_of(dst),
                             .src_offset = 1, .bytes = 100 };
    ck_assert_int_eq(run_copy(&copy), -ENOTSUP);
    copy.src_offset = 0;
    copy.bytes = 16 * MIB;
    ck_assert_int_eq(run_copy(&copy), 0);
    expect_bytes("dst", 0, 16 * MIB, 's');
    ck_assert_int_lt(before - free_space(), MIB);
    close_backend(src);
    close_backend(dst);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("file-copy");
    TCase *tc = tcase_create("copies");

    register_pass_driver();
    tcase_add_checked_fixture(tc, file_setup, teardown);
    tcase_set_timeout(tc, 100);
    suite_add_tcase(suite, tc);
    tcase_add_loop_test(tc, a_file_is_copied_to_another, 0, 2);
    PROMISE(tc, where_nothing_is_shared_the_caller_is_to_copy);
    tcase_add_loop_test(
        tc, what_lies_beyond_the_end_of_the_source_is_not_for_a_copy, 0, 2);
    tcase_add_loop_test(tc, a_copy_inside_one_file_must_not_overlap, 0, 2);
    tcase_add_loop_test(
        tc, copies_and_writes_at_once_grow_a_file_to_the_right_content, 0, 2);
    tcase_add_loop_test(
        tc, a_source_that_is_elsewhere_does_not_end_copies_from_here, 0, 2);
    PROMISE(tc, a_copy_shares_the_space_where_the_file_system_can);
    return check_main(suite);
}
