/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2 images to test on: made by qemu-img, looked at by qemu-img check.
 *
 * In commands "%s" stands for the directory of the test, always first.
 */
#ifndef TESTS_UNIT_QCOW2_FIXTURE_H
#define TESTS_UNIT_QCOW2_FIXTURE_H

#include "file-fixture.h"

#include <blockgraph/image.h>
#include <sys/wait.h>

#include "block/formats/qcow2/refcount.h"

/** Run a shell command; returns its exit status. */
static inline int run(const char *format, ...)
{
    g_autofree char *command = NULL;
    va_list args;
    int status;

    va_start(args, format);
    command = options_text_v(format, args);
    va_end(args);
    status = system(command);
    ck_assert_msg(WIFEXITED(status), "%s", command);
    return WEXITSTATUS(status);
}

/** Whether qemu-img is there; tests that need it do nothing without. */
static inline bool have_qemu(void)
{
    return system("qemu-img --version >/dev/null 2>&1 && "
                  "qemu-io --version >/dev/null 2>&1") == 0;
}

/** Make "t.qcow2" with qemu-img; @options as for -o; @size with unit. */
static inline void make_image(const char *options, const char *size)
{
    ck_assert_int_eq(run("cd %s && qemu-img create -q -f qcow2 -o '%s' "
                         "t.qcow2 %s", *options ? options : "compat=1.1",
                         size), 0);
}

/** Commands of qemu-io, each an argument of -c. */
static inline void qemu_io(const char *commands)
{
    ck_assert_int_eq(run("cd %s && qemu-io -f qcow2 %s t.qcow2 >/dev/null",
                         commands), 0);
}

/** "t.qcow2" has no errors and no leaks, says qemu-img. */
static inline void expect_clean(void)
{
    ck_assert_int_eq(run("cd %s && qemu-img check -f qcow2 t.qcow2 "
                         ">check.log 2>&1 || { cat check.log; false; }"), 0);
}

/** "t.qcow2" has no errors, but perhaps leaks, says qemu-img. */
static inline void expect_consistent(void)
{
    int status = run("cd %s && qemu-img check -f qcow2 t.qcow2 "
                     ">check.log 2>&1");

    if (status != 0 && status != 3) {
        run("cat %s/check.log");
    }
    ck_assert(status == 0 || status == 3);
}

/** Open "t.qcow2" for writing. */
static inline BlockBackend *open_image(void)
{
    return file_backend("qcow2,node-name=q,file.driver=file,"
                        "file.filename=%s/t.qcow2");
}

/** The driver's state of the node of @blk. */
static inline Qcow2 *state_of(BlockBackend *blk)
{
    return bdrv_opaque(blk_bs(blk));
}

/** Overwrite bytes of "t.qcow2". */
static inline void poke(int64_t offset, const void *bytes, size_t n)
{
    g_autofree char *path = path_of("t.qcow2");
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(pwrite(fd, bytes, n, offset), (ssize_t)n);
    close(fd);
}

static inline void poke64(int64_t offset, uint64_t value)
{
    uint8_t bytes[8];

    qcow2_put64(bytes, value);
    poke(offset, bytes, sizeof(bytes));
}

/** Bytes of "t.qcow2". */
static inline void peek(int64_t offset, void *bytes, size_t n)
{
    g_autofree char *path = path_of("t.qcow2");
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    memset(bytes, 0, n);
    ck_assert_int_ge(pread(fd, bytes, n, offset), 0);
    close(fd);
}

static inline uint64_t peek64(int64_t offset)
{
    uint8_t bytes[8];

    peek(offset, bytes, sizeof(bytes));
    return qcow2_get64(bytes);
}

/** Fill the range of the guest with @byte. */
static inline void fill(BlockBackend *blk, int64_t offset, int64_t bytes,
                        int byte)
{
    g_autofree char *buf = g_malloc(bytes);

    memset(buf, byte, bytes);
    ck_assert_int_eq(blk_pwrite(blk, offset, bytes, buf, 0), 0);
}

/** The range of the guest is all @byte. */
static inline void expect_guest(BlockBackend *blk, int64_t offset,
                                int64_t bytes, int byte)
{
    g_autofree char *buf = g_malloc(bytes);

    ck_assert_int_eq(blk_pread(blk, offset, bytes, buf, 0), 0);
    for (int64_t i = 0; i < bytes; i++) {
        if (buf[i] != (char)byte) {
            ck_abort_msg("byte %ld is %d, not %d", (long)(offset + i), buf[i],
                         byte);
        }
    }
}

/** Run @entry(@opaque) in a coroutine of the main context. */
static inline int in_co(int coroutine_fn (*entry)(void *), void *opaque)
{
    return aio_co_run(block_graph_aio_context(graph), entry, opaque);
}

#endif /* TESTS_UNIT_QCOW2_FIXTURE_H */
