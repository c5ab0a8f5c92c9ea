/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The driver "file" on a system that fails.
 *
 * This program defines the system calls that the driver makes on its control
 * path: each passes to the C library, unless it is the one that is to fail.
 * For failures of the data path see test-file-sync.c.
 */
#include "file-fixture.h"

#include <dirent.h>
#include <dlfcn.h>
#include <stdatomic.h>

/* --- the system calls ----------------------------------------------------- */

static struct Faults {
    _Atomic bool armed;
    _Atomic int countdown;    /* calls until the one that fails */
    _Atomic int nr_calls;     /* made while armed */
    int err;                  /* what the call fails with */
    const char *failed;       /* the name of the call that has failed */
    void (*after)(void);      /* called after each call while armed */
} faults;

/* Whether the call that is made now is to fail. */
static bool must_fail(const char *call)
{
    if (!atomic_load(&faults.armed)) {
        return false;
    }
    atomic_fetch_add(&faults.nr_calls, 1);
    if (atomic_fetch_sub(&faults.countdown, 1) == 1) {
        faults.failed = call;
        errno = faults.err;
        return true;
    }
    return false;
}

static void call_made(void)
{
    if (atomic_load(&faults.armed) && faults.after) {
        int err = errno;

        atomic_store(&faults.armed, false); /* it makes calls of its own */
        faults.after();
        atomic_store(&faults.armed, true);
        errno = err;
    }
}

/* The next definition of the symbol that the C headers give to @name. */
#define REAL(name, symbol) ((__typeof__(&name))dlsym(RTLD_NEXT, symbol))

int open(const char *path, int flags, ...)
{
    va_list args;
    int mode, ret;

    va_start(args, flags);
    mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(args, int) : 0;
    va_end(args);
    if (must_fail(__func__)) {
        return -1;
    }
    ret = REAL(open, "open64")(path, flags, mode);
    call_made();
    return ret;
}

int fstat(int fd, struct stat *st)
{
    return must_fail(__func__) ? -1 : REAL(fstat, "fstat64")(fd, st);
}

int statx(int dir, const char *restrict path, int flags, unsigned mask,
          struct statx *restrict stx)
{
    return must_fail(__func__) ? -1
                       : REAL(statx, "statx")(dir, path, flags, mask, stx);
}

int fcntl(int fd, int cmd, ...)
{
    va_list args;
    void *arg;
    int ret;

    va_start(args, cmd);
    arg = va_arg(args, void *);
    va_end(args);
    if (must_fail(__func__)) {
        return -1;
    }
    ret = REAL(fcntl, "fcntl64")(fd, cmd, arg);
    call_made();
    return ret;
}

int ioctl(int fd, unsigned long request, ...)
{
    va_list args;
    void *arg;

    va_start(args, request);
    arg = va_arg(args, void *);
    va_end(args);
    return must_fail(__func__) ? -1 : REAL(ioctl, "ioctl")(fd, request, arg);
}

off_t lseek(int fd, off_t offset, int whence)
{
    return must_fail(__func__) ? -1
                               : REAL(lseek, "lseek64")(fd, offset, whence);
}

ssize_t pread(int fd, void *buf, size_t bytes, off_t offset)
{
    return must_fail(__func__) ? -1
                       : REAL(pread, "pread64")(fd, buf, bytes, offset);
}

ssize_t pwrite(int fd, const void *buf, size_t bytes, off_t offset)
{
    return must_fail(__func__) ? -1
                       : REAL(pwrite, "pwrite64")(fd, buf, bytes, offset);
}

int ftruncate(int fd, off_t length)
{
    return must_fail(__func__) ? -1
                               : REAL(ftruncate, "ftruncate64")(fd, length);
}

int fallocate(int fd, int mode, off_t offset, off_t bytes)
{
    return must_fail(__func__) ? -1
                       : REAL(fallocate, "fallocate64")(fd, mode, offset,
                                                        bytes);
}

ssize_t copy_file_range(int in, off64_t *in_offset, int out,
                        off64_t *out_offset, size_t bytes, unsigned flags)
{
    return must_fail(__func__) ? -1
                       : REAL(copy_file_range, "copy_file_range")(
                             in, in_offset, out, out_offset, bytes, flags);
}

int close(int fd)
{
    int ret = REAL(close, "close")(fd);

    call_made();
    return ret;
}

static void arm(int countdown, int err)
{
    faults.err = err;
    atomic_store(&faults.countdown, countdown);
    atomic_store(&faults.nr_calls, 0);
    atomic_store(&faults.armed, true);
}

/* Returns whether the failure has happened. */
static bool disarm(void)
{
    atomic_store(&faults.armed, false);
    return atomic_load(&faults.countdown) <= 0;
}

static int open_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int count = 0;

    ck_assert_ptr_nonnull(dir);
    while (readdir(dir)) {
        count++;
    }
    closedir(dir);
    return count;
}

/* --- the control path ----------------------------------------------------- */

/* Let a call fail, each in turn; returns how many failed the opening. */
static int fail_each_call_of_open(const char *text, int err)
{
    int nr_failed = 0;
    bool happened = true;

    for (int n = 1; happened; n++) {
        GError *error = NULL;
        int before = open_descriptors();
        BlockDriverState *bs;

        arm(n, err);
        bs = bdrv_open(graph, opts(text), &error);
        happened = disarm();
        ck_assert((bs == NULL) == (error != NULL));
        if (bs) {
            bdrv_unref(bs);
        } else {
            ck_assert(happened);
            ck_assert_msg(strstr(error->message, file_dir) ||
                              strstr(error->message, "/dev/loop"),
                          "no file in: %s", error->message);
            ck_assert_int_eq(block_error_code(error), err);
            g_error_free(error);
            nr_failed++;
        }
        ck_assert_uint_eq(block_graph_nr_nodes(graph), 0);
        ck_assert_int_eq(open_descriptors(), before);
    }
    return nr_failed;
}

START_TEST(each_call_of_open_may_fail)
{
    static const struct { const char *format; int at_least; } cases[] = {
        { "file,filename=%s/disk", 5 },
        { "file,filename=%s/disk,locking=on", 5 },
        { "file,filename=%s/disk,locking=off", 4 },
        { "file,filename=%s/disk,read-only=on", 5 },
        { "file,filename=%s/disk,auto-read-only=on", 5 },
        { "file,filename=%s/disk,cache.direct=on", 5 },
        { "file,filename=%s/disk,aio=threads,cache.direct=on", 5 },
    };
    static const int errors[] = { EIO, ENOMEM };

    make_file("disk", 4096);
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *text = options_text(cases[i].format);

        for (unsigned j = 0; j < G_N_ELEMENTS(errors); j++) {
            ck_assert_int_ge(fail_each_call_of_open(text, errors[j]),
                             cases[i].at_least);
        }
    }
}
END_TEST

/* How many ways there are to open the file while an fcntl(2) fails. */
static int opens_without_fcntl(const char *format)
{
    g_autofree char *text = options_text(format);
    bool happened = true;
    int count = 0;

    for (int n = 1; happened; n++) {
        g_autoptr(GError) error = NULL;
        BlockDriverState *bs;

        arm(n, EINVAL); /* what a system without such locks says */
        bs = bdrv_open(graph, opts(text), &error);
        happened = disarm();
        if (bs && happened && strcmp(faults.failed, "fcntl") == 0) {
            BlockBackend *blk = backend_ok("user", bs, BLK_PERM_ALL, 0);
            BlockBackend *other = file_backend("file,filename=%s/disk");

            close_backend(other); /* nothing was locked against it */
            blk_unref(blk);
            count++;
        }
        bdrv_unref(bs);
    }
    return count;
}

START_TEST(a_file_system_without_locks_is_used_only_without_locking_on)
{
    make_file("disk", 4096);
    ck_assert_int_eq(opens_without_fcntl("file,filename=%s/disk"), 1);
    ck_assert_int_eq(opens_without_fcntl("file,filename=%s/disk,locking=on"),
                     0);
}
END_TEST

START_TEST(each_call_of_open_on_a_device_may_fail)
{
    g_autofree char *loop = NULL;
    g_autofree char *text = NULL;

    make_file("disk", 1024 * 1024);
    loop = loop_attach("disk");
    if (!loop) {
        return; /* not allowed here */
    }
    text = g_strdup_printf("file,filename=%s,cache.direct=on", loop);
    ck_assert_int_ge(fail_each_call_of_open(text, EIO), 8);
    loop_detach(loop);
}
END_TEST

START_TEST(each_call_of_reopen_may_fail)
{
    static const char *const ways[] = { "read-only=on", "cache.direct=on",
                                        "aio=threads", "locking=off" };
    char byte = 'r';

    for (unsigned i = 0; i < G_N_ELEMENTS(ways); i++) {
        bool happened = true;

        for (int n = 1; happened; n++) {
            GError *error = NULL;
            BlockDriverState *bs;
            BlockBackend *blk;
            int before, ret;

            make_file("disk", 4096);
            bs = file_open_ok("file,filename=%s/disk");
            blk = backend_ok("user", bs, BLK_PERM_CONSISTENT_READ, 0);
            before = open_descriptors();
            arm(n, EIO);
            ret = try_reopen(bs, ways[i], &error);
            happened = disarm();
            ck_assert((ret < 0) == (error != NULL));
            ck_assert_int_eq(open_descriptors(), before);
            g_clear_error(&error);
            ck_assert_int_eq(blk_pread(blk, 0, 1, &byte, 0), 0);
            if (ret < 0) {
                ck_assert(!bdrv_is_read_only(bs));
            }
            blk_unref(blk);
            bdrv_unref(bs);
        }
    }
}
END_TEST

START_TEST(each_call_of_a_change_of_permissions_may_fail)
{
    BlockPerm more = { .used = BLK_PERM_ALL, .shared = 0 };
    bool happened = true;

    make_file("disk", 4096);
    for (int n = 1; happened; n++) {
        GError *error = NULL;
        BlockDriverState *bs = file_open_ok("file,filename=%s/disk");
        BlockBackend *blk = backend_ok("user", bs, BLK_PERM_CONSISTENT_READ,
                                       BLK_PERM_ALL);
        int ret;

        arm(n, ENOLCK);
        ret = blk_set_perm(blk, &more, &error);
        happened = disarm();
        ck_assert_int_eq(ret, happened ? -ENOLCK : 0);
        if (happened) {
            expect_error(&error, ENOLCK, "/disk'");
            ck_assert_int_eq(blk_pwrite(blk, 0, 1, "x", 0), -EPERM);
        }
        ck_assert_int_eq(blk_set_perm(blk, &more, NULL), 0);
        blk_unref(blk);
        bdrv_unref(bs);
    }
}
END_TEST

START_TEST(each_call_of_a_change_of_length_may_fail)
{
    const PreallocMode modes[] = { PREALLOC_MODE_OFF, PREALLOC_MODE_FALLOC,
                                   PREALLOC_MODE_FULL };
    BlockBackend *blk;

    make_file("disk", 1000);
    blk = file_backend("file,filename=%s/disk");
    for (unsigned i = 0; i < G_N_ELEMENTS(modes); i++) {
        BlockTruncate how = { .offset = 3 * 1024 * 1024, .exact = true,
                              .prealloc = modes[i] };
        bool happened = true;

        for (int n = 1; happened; n++) {
            BlockTruncate back = { .offset = 1000, .exact = true };
            GError *error = NULL;
            int ret;

            arm(n, ENOSPC);
            ret = blk_truncate(blk, &how, &error);
            happened = disarm();
            if (ret < 0) {
                ck_assert(happened);
                expect_error(&error, ENOSPC, "Node '");
            }
            /* The old length, unless only the question for the new one
             * failed, after all was done. */
            if (ret == 0 || strcmp(faults.failed, "fstat") != 0) {
                ck_assert_int_eq(file_length("disk"),
                                 ret < 0 ? 1000 : how.offset);
            }
            ck_assert_int_eq(blk_truncate(blk, &back, NULL), 0);
            ck_assert_int_eq(file_length("disk"), 1000);
        }
    }
    close_backend(blk);
}
END_TEST

START_TEST(each_call_of_a_new_image_may_fail)
{
    g_autofree char *path = path_of("new");
    bool happened = true;
    int nr_failed = 0;

    for (int n = 1; happened; n++) {
        int before = open_descriptors();
        GError *error = NULL;
        int ret;

        arm(n, EIO);
        ret = try_create("filename=%s/new,size=2M,preallocation=full",
                         &error);
        happened = disarm();
        if (ret < 0) {
            ck_assert(happened);
            expect_error(&error, EIO, "/new'");
            ck_assert_int_ne(access(path, F_OK), 0);
            nr_failed++;
        } else {
            /* Only a failure to unlock before closing does no harm. */
            ck_assert_int_eq(file_length("new"), 2 * 1024 * 1024);
            unlink(path);
        }
        ck_assert_int_eq(open_descriptors(), before);
    }
    ck_assert_int_ge(nr_failed, 12);
}
END_TEST

START_TEST(extents_that_cannot_be_asked_for_are_data)
{
    BlockBackend *blk;
    bool happened = true;

    make_file("disk", 65536);
    blk = file_backend("file,filename=%s/disk");
    ck_assert_int_eq(blk_pwrite(blk, 0, 1, "x", 0), 0);
    for (int n = 1; happened; n++) {
        BlockExtent extent;

        arm(n, EINVAL);
        ck_assert_int_eq(blk_block_status(blk, 0, 65536, &extent), 0);
        happened = disarm();
        ck_assert_uint_eq(extent.status & (BDRV_BLOCK_DATA | BDRV_BLOCK_ZERO),
                          BDRV_BLOCK_DATA);
        if (happened) {
            ck_assert_int_eq(extent.bytes, 65536);
        }
    }
    close_backend(blk);
}
END_TEST

/* --- locks during a reopen ------------------------------------------------ */

static int watch_fd = -1;
static int nr_looks;

/* At no moment may another process find the write permission unused. */
static void look_at_locks(void)
{
    struct flock used = { .l_type = F_WRLCK, .l_whence = SEEK_SET,
                          .l_start = 101, .l_len = 1 };
    struct flock unshared = used;

    unshared.l_start = 203;
    if (REAL(fcntl, "fcntl64")(watch_fd, F_OFD_GETLK, &used) < 0 ||
        REAL(fcntl, "fcntl64")(watch_fd, F_OFD_GETLK, &unshared) < 0 ||
        used.l_type == F_UNLCK || unshared.l_type == F_UNLCK) {
        abort();
    }
    nr_looks++;
}

START_TEST(a_reopen_leaves_no_moment_without_locks)
{
    static const char *const ways[] = { "aio=threads", "cache.direct=on",
                                        "cache.direct=off", "aio=io_uring" };
    g_autofree char *path = path_of("disk");
    BlockDriverState *bs;
    BlockBackend *blk;

    make_file("disk", 4096);
    watch_fd = open(path, O_RDONLY | O_CLOEXEC);
    ck_assert_int_ge(watch_fd, 0);
    bs = file_open_ok("file,filename=%s/disk");
    blk = backend_ok("user", bs, BLK_PERM_WRITE,
                     BLK_PERM_ALL & ~BLK_PERM_RESIZE);
    faults.after = look_at_locks;
    for (unsigned i = 0; i < G_N_ELEMENTS(ways); i++) {
        if (strstr(ways[i], "direct") && !has_direct_io("disk")) {
            continue;
        }
        nr_looks = 0;
        arm(INT_MAX, 0);
        reopen_ok(bs, ways[i]);
        disarm();
        ck_assert_int_ge(nr_looks, 6);
    }
    blk_unref(blk);
    bdrv_unref(bs);
    close(watch_fd);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("file-faults");
    TCase *tc = tcase_create("file-faults");

    tcase_add_checked_fixture(tc, file_setup, file_teardown);
    tcase_set_timeout(tc, 100);
    suite_add_tcase(suite, tc);
    PROMISE(tc, each_call_of_open_may_fail);
    PROMISE(tc, a_file_system_without_locks_is_used_only_without_locking_on);
    PROMISE(tc, each_call_of_open_on_a_device_may_fail);
    PROMISE(tc, each_call_of_reopen_may_fail);
    PROMISE(tc, each_call_of_a_change_of_permissions_may_fail);
    PROMISE(tc, each_call_of_a_change_of_length_may_fail);
    PROMISE(tc, each_call_of_a_new_image_may_fail);
    PROMISE(tc, extents_that_cannot_be_asked_for_are_data);
    PROMISE(tc, a_reopen_leaves_no_moment_without_locks);
    return check_main(suite);
}
