/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A graph and a directory of its own for each test of the driver "file".
 *
 * In options "%s" stands for the directory.
 */
#ifndef TESTS_UNIT_FILE_FIXTURE_H
#define TESTS_UNIT_FILE_FIXTURE_H

#include "graph-fixture.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* Where the running test has its files. */
static char *file_dir;

static inline void file_setup(void)
{
    file_dir = g_dir_make_tmp("blockgraph-file-XXXXXX", NULL);
    ck_assert_ptr_nonnull(file_dir);
    graph_setup();
}

static inline void file_teardown(void)
{
    GDir *dir = g_dir_open(file_dir, 0, NULL);
    const char *name;

    graph_teardown();
    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(file_dir, name, NULL);

        unlink(path);
    }
    if (dir) {
        g_dir_close(dir);
    }
    rmdir(file_dir);
    g_free(file_dir);
}

/** The path of @name in the directory of the test.  g_free() it. */
static inline char *path_of(const char *name)
{
    return g_build_filename(file_dir, name, NULL);
}

/** Make a file of @bytes zero bytes, a hole; an old one is replaced. */
static inline void make_file(const char *name, int64_t bytes)
{
    g_autofree char *path = path_of(name);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, bytes), 0);
    close(fd);
}

static inline struct stat file_stat(const char *name)
{
    g_autofree char *path = path_of(name);
    struct stat st;

    ck_assert_int_eq(stat(path, &st), 0);
    return st;
}

/** The length of a file as the system says. */
static inline int64_t file_length(const char *name)
{
    return file_stat(name).st_size;
}

/** The bytes that a file occupies. */
static inline int64_t file_blocks(const char *name)
{
    return (int64_t)file_stat(name).st_blocks * 512;
}

/** Check that the file begins with the @bytes bytes at @expected. */
static inline void expect_content(const char *name, const void *expected,
                                  size_t bytes)
{
    g_autofree char *path = path_of(name);
    g_autofree char *content = NULL;
    gsize length;

    ck_assert(g_file_get_contents(path, &content, &length, NULL));
    ck_assert_uint_ge(length, bytes);
    ck_assert_mem_eq(content, expected, bytes);
}

/** Check that @bytes bytes of a file from @offset on are @byte. */
static inline void expect_bytes(const char *name, int64_t offset,
                                int64_t bytes, int byte)
{
    g_autofree char *path = path_of(name);
    g_autofree char *content = NULL;
    gsize length;

    ck_assert(g_file_get_contents(path, &content, &length, NULL));
    ck_assert_int_ge((int64_t)length, offset + bytes);
    for (int64_t i = offset; i < offset + bytes; i++) {
        if (content[i] != byte) {
            ck_abort_msg("byte %ld of '%s' is %d", (long)i, name, content[i]);
        }
    }
}

/* @format with the directory for its first %s; others come from @args. */
static inline char *options_text_v(const char *format, va_list args)
{
    const char *at = strstr(format, "%s");
    g_autofree char *rest = NULL;

    if (!at) {
        return g_strdup(format);
    }
    rest = g_strdup_vprintf(at + 2, args);
    return g_strdup_printf("%.*s%s%s", (int)(at - format), format, file_dir,
                           rest);
}

static inline char *options_text(const char *format, ...)
{
    va_list args;
    char *text;

    va_start(args, format);
    text = options_text_v(format, args);
    va_end(args);
    return text;
}

/** Open a node that must open. */
static inline BlockDriverState *file_open_ok(const char *format, ...)
{
    g_autofree char *text = NULL;
    va_list args;

    va_start(args, format);
    text = options_text_v(format, args);
    va_end(args);
    return open_ok(text);
}

/** Try to open a node that must not open. */
static inline void file_fails(const char *format, int err, const char *message)
{
    g_autofree char *text = options_text(format);

    open_fails(text, err, message);
}

/**
 * Open a node with a backend that writes and shares nothing that it does.
 * NULL when the file system has no direct I/O.
 */
static inline BlockBackend *file_backend(const char *format, ...)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *text = NULL;
    BlockBackend *blk;
    va_list args;

    va_start(args, format);
    text = options_text_v(format, args);
    va_end(args);
    blk = blk_open(graph, opts(text), &error);
    if (!blk && error && strstr(error->message, "O_DIRECT")) {
        return NULL;
    }
    ck_assert_msg(blk != NULL, "%s: %s", text,
                  error ? error->message : "no error set");
    return blk;
}

/** Drop a backend of file_backend() and its node. */
static inline void close_backend(BlockBackend *blk)
{
    blk_unref(blk);
}

/** Whether the file system of the test has direct I/O. */
static inline bool has_direct_io(const char *name)
{
    g_autofree char *path = path_of(name);
    int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);

    if (fd >= 0) {
        close(fd);
    }
    return fd >= 0;
}

/** Whether the file system of the test has fallocate. */
static inline bool has_fallocate(void)
{
    g_autofree char *path = path_of("fallocate");
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    bool works;

    ck_assert_int_ge(fd, 0);
    works = fallocate(fd, 0, 0, 4096) == 0;
    close(fd);
    unlink(path);
    return works;
}

static inline int try_reopen(BlockDriverState *bs, const char *text,
                             GError **errp)
{
    return bdrv_reopen(bs, block_options_parse_keyval(text, NULL, NULL), errp);
}

/** Reopen with other options; must work. */
static inline void reopen_ok(BlockDriverState *bs, const char *text)
{
    g_autoptr(GError) error = NULL;

    ck_assert_msg(try_reopen(bs, text, &error) == 0, "%s: %s", text,
                  error ? error->message : "no error set");
}

/** Reopen with other options; must be refused. */
static inline void reopen_fails(BlockDriverState *bs, const char *text,
                                int err, const char *message)
{
    GError *error = NULL;

    ck_assert_int_eq(try_reopen(bs, text, &error), -err);
    expect_error(&error, err, message);
}

typedef struct CreateCall {
    BlockOptions *options;
    GError *error;
} CreateCall;

static inline int coroutine_fn create_entry(void *opaque)
{
    CreateCall *call = opaque;

    return bdrv_find_driver("file")->create(graph, call->options,
                                            &call->error);
}

static inline int try_create(const char *format, GError **error)
{
    g_autofree char *text = options_text(format);
    CreateCall call = {
        .options = block_options_parse_keyval(text, NULL, NULL),
    };
    int ret;

    ck_assert_ptr_nonnull(call.options);
    ret = aio_co_run(block_graph_aio_context(graph), create_entry, &call);
    block_options_free(call.options);
    *error = call.error;
    return ret;
}

/** Make an image; must work. */
static inline void create_ok(const char *format)
{
    g_autoptr(GError) error = NULL;

    ck_assert_msg(try_create(format, &error) == 0, "%s: %s", format,
                  error ? error->message : "no error set");
}

/** Try to make an image; must fail. */
static inline void create_fails(const char *format, int err,
                                const char *message)
{
    GError *error = NULL;

    ck_assert_int_lt(try_create(format, &error), 0);
    expect_error(&error, err, message);
}

static inline bool set_immutable(const char *path, bool on)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int flags = 0;
    bool done;

    done = fd >= 0 && ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0;
    flags = on ? flags | FS_IMMUTABLE_FL : flags & ~FS_IMMUTABLE_FL;
    done = done && ioctl(fd, FS_IOC_SETFLAGS, &flags) == 0;
    if (fd >= 0) {
        close(fd);
    }
    return done;
}

/** Make opening for writing fail, for root too; false: cannot do it. */
static inline bool forbid_writing(const char *path)
{
    return set_immutable(path, true);
}

/** Undo forbid_writing(). */
static inline void allow_writing(const char *path)
{
    set_immutable(path, false);
}

/** Make a loop device of a file; NULL where that is not allowed. */
static inline char *loop_attach(const char *name)
{
    g_autofree char *path = path_of(name);
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    int backing = open(path, O_RDWR | O_CLOEXEC);
    char *device = NULL;

    /* Another process may take the free number before us: try again. */
    for (int i = 0; control >= 0 && !device && i < 20; i++) {
        int number = ioctl(control, LOOP_CTL_GET_FREE);
        g_autofree char *candidate = g_strdup_printf("/dev/loop%d", number);
        int fd = number >= 0 ? open(candidate, O_RDWR | O_CLOEXEC) : -1;

        if (fd >= 0 && ioctl(fd, LOOP_SET_FD, backing) == 0) {
            device = g_steal_pointer(&candidate);
        }
        if (fd >= 0) {
            close(fd);
        }
    }
    if (control >= 0) {
        close(control);
    }
    close(backing);
    return device;
}

/** Undo loop_attach(). */
static inline void loop_detach(const char *device)
{
    int fd = open(device, O_RDWR | O_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ioctl(fd, LOOP_CLR_FD), 0);
    close(fd);
}

#endif /* TESTS_UNIT_FILE_FIXTURE_H */
