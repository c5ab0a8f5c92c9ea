/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Images of format qcow2 in the directory of the test: made, patched, opened.
 */
#ifndef TESTS_UNIT_IMAGE_FIXTURE_H
#define TESTS_UNIT_IMAGE_FIXTURE_H

#include "file-fixture.h"

#include <blockgraph/image.h>

#include "block/formats/qcow2/qcow2.h"

/** Options of a node over the file @name in the directory of the test. */
static inline BlockOptions *image_options(const char *name, const char *more)
{
    g_autofree char *path = path_of(name);
    BlockOptions *options = opts(more ? more : "qcow2");

    block_options_set_str(options, "driver", "qcow2");
    block_options_set_str(options, "file.driver", "file");
    block_options_set_str(options, "file.filename", path);
    return options;
}

/** Make the image @name (an empty file is made first) with "key=value,..." */
static inline int make_image(const char *name, const char *options,
                             GError **errp)
{
    make_file(name, 0);
    return bdrv_create(graph, image_options(name, options), errp);
}

static inline void make_image_ok(const char *name, const char *options)
{
    g_autoptr(GError) error = NULL;

    ck_assert_msg(make_image(name, options, &error) == 0, "%s: %s", options,
                  error ? error->message : "no error set");
}

static inline void make_image_fails(const char *name, const char *options,
                                    int err, const char *message)
{
    size_t before = block_graph_nr_nodes(graph);
    GError *error = NULL;

    ck_assert_int_lt(make_image(name, options, &error), 0);
    expect_error(&error, err, message);
    ck_assert_uint_eq(block_graph_nr_nodes(graph), before);
}

/** Open the image @name; @more: further options, or NULL. */
static inline BlockDriverState *image_open(const char *name, const char *more)
{
    g_autoptr(GError) error = NULL;
    BlockDriverState *bs = bdrv_open(graph, image_options(name, more),
                                     &error);

    ck_assert_msg(bs != NULL, "%s (%s): %s", name, more ? more : "",
                  error ? error->message : "no error set");
    return bs;
}

static inline void image_fails(const char *name, const char *more, int err,
                               const char *message)
{
    size_t before = block_graph_nr_nodes(graph);
    GError *error = NULL;

    ck_assert_ptr_null(bdrv_open(graph, image_options(name, more), &error));
    expect_error(&error, err, message);
    ck_assert_uint_eq(block_graph_nr_nodes(graph), before);
}

/** A backend over an open node that writes and resizes; drops @bs. */
static inline BlockBackend *backend_of(BlockDriverState *bs)
{
    bool ro = bdrv_is_read_only(bs);
    BlockBackend *blk = backend_ok(
        "guest", bs,
        BLK_PERM_CONSISTENT_READ |
            (ro ? 0 : BLK_PERM_WRITE | BLK_PERM_RESIZE),
        BLK_PERM_ALL);

    bdrv_unref(bs);
    return blk;
}

static inline BlockBackend *image_backend(const char *name, const char *more)
{
    return backend_of(image_open(name, more));
}

static inline void fill(BlockBackend *blk, int64_t offset, int64_t bytes,
                        int byte)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    memset(buf, byte, bytes);
    ck_assert_int_eq(blk_pwrite(blk, offset, bytes, buf, 0), 0);
}

static inline void expect_fill(BlockBackend *blk, int64_t offset,
                               int64_t bytes, int byte)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    ck_assert_int_eq(blk_pread(blk, offset, bytes, buf, 0), 0);
    for (int64_t i = 0; i < bytes; i++) {
        if (buf[i] != byte) {
            ck_abort_msg("byte %ld is %d, expected %d", (long)(offset + i),
                         buf[i], byte);
        }
    }
}

/** Overwrite bytes of a file. */
static inline void patch_file(const char *name, int64_t offset,
                              const void *buf, size_t bytes)
{
    g_autofree char *path = path_of(name);
    int fd = open(path, O_RDWR | O_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(pwrite(fd, buf, bytes, offset), (ssize_t)bytes);
    close(fd);
}

static inline void patch32(const char *name, int64_t offset, uint32_t value)
{
    uint8_t buf[4];

    qcow2_put32(buf, value);
    patch_file(name, offset, buf, sizeof(buf));
}

static inline void patch64(const char *name, int64_t offset, uint64_t value)
{
    uint8_t buf[8];

    qcow2_put64(buf, value);
    patch_file(name, offset, buf, sizeof(buf));
}

static inline uint64_t peek64(const char *name, int64_t offset)
{
    g_autofree char *path = path_of(name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    uint8_t buf[8];

    ck_assert_int_eq(pread(fd, buf, sizeof(buf), offset), sizeof(buf));
    close(fd);
    return qcow2_get64(buf);
}

/** The content of a file.  g_free(). */
static inline char *slurp(const char *name, gsize *bytes)
{
    g_autofree char *path = path_of(name);
    char *content = NULL;

    ck_assert(g_file_get_contents(path, &content, bytes, NULL));
    return content;
}

/** Put back what slurp() gave. */
static inline void unslurp(const char *name, const char *content, gsize bytes)
{
    make_file(name, 0);
    patch_file(name, 0, content, bytes);
}

/* --- a filter that makes the N-th request fail ---------------------------- */

static int fail_at;       /* counts down to 0 at the one that fails */
static bool fail_reads;   /* whether reads count */
static bool fail_writes;  /* whether all that changes the file counts */
static bool fail_all;     /* every one fails, as long as they count */

static inline int count_down(bool counts)
{
    return counts && fail_all ? -EIO
           : counts && fail_at > 0 && --fail_at == 0 ? -EIO : 0;
}

static int coroutine_fn nth_preadv(BlockDriverState *bs, const BlockIO *io)
{
    int ret = count_down(fail_reads);

    return ret ? ret
               : bdrv_co_preadv(bdrv_filter_child(bs), io->offset, io->bytes,
                                io->iov, io->flags);
}

static int coroutine_fn nth_pwritev(BlockDriverState *bs, const BlockIO *io)
{
    int ret = count_down(fail_writes);

    return ret ? ret
               : bdrv_co_pwritev(bdrv_filter_child(bs), io->offset, io->bytes,
                                 io->iov, io->flags);
}

static int coroutine_fn nth_pwrite_zeroes(BlockDriverState *bs,
                                          const BlockIO *io)
{
    int ret = count_down(fail_writes);

    return ret ? ret
               : bdrv_co_pwrite_zeroes(bdrv_filter_child(bs), io->offset,
                                       io->bytes,
                                       io->flags & ~BDRV_REQ_ZERO_WRITE);
}

static int coroutine_fn nth_flush(BlockDriverState *bs)
{
    return count_down(fail_writes);
}

static int coroutine_fn nth_truncate(BlockDriverState *bs,
                                     const BlockTruncate *how, GError **errp)
{
    int ret = count_down(fail_writes);

    return ret ? block_error_errno(errp, -ret, "made to fail")
               : bdrv_co_truncate(bdrv_filter_child(bs), how, errp);
}

static inline void register_nth_driver(void)
{
    static const BlockOption options[] = {
        { .name = "file", .type = BLOCK_OPTION_CHILD, .help = "filtered" },
        { .type = BLOCK_OPTION_END },
    };
    static const BlockDriver driver = {
        .struct_size = sizeof(BlockDriver),
        .name = "nth",
        .kind = BLOCK_DRIVER_FILTER,
        .options = options,
        .open = pass_open,
        .preadv = nth_preadv,
        .pwritev = nth_pwritev,
        .pwrite_zeroes = nth_pwrite_zeroes,
        .flush = nth_flush,
        .truncate = nth_truncate,
    };

    if (!bdrv_find_driver("nth") && bdrv_register(&driver, NULL) < 0) {
        abort();
    }
}

/** Options of the image @name with the failing filter below. */
static inline BlockOptions *nth_options(const char *name, const char *more)
{
    g_autofree char *path = path_of(name);
    BlockOptions *options = opts(more ? more : "qcow2");

    block_options_set_str(options, "driver", "qcow2");
    block_options_set_str(options, "file.driver", "nth");
    block_options_set_str(options, "file.file.driver", "file");
    block_options_set_str(options, "file.file.filename", path);
    return options;
}

/** Whether qemu-img is content; true where there is none.  Run in the directory
 * of the test: it takes the name of a data file relative to where it is. */
static inline bool qemu_img_ok(const char *arguments, const char *name)
{
    g_autofree char *path = path_of(name);
    g_autofree char *program = g_find_program_in_path("qemu-img");
    g_autofree char *command = g_strdup_printf("qemu-img %s %s", arguments,
                                               path);
    g_auto(GStrv) argv = g_strsplit(command, " ", -1);
    g_autofree char *out = NULL;
    g_autofree char *err = NULL;
    int status = 0;

    if (!program) {
        return true;
    }
    ck_assert(g_spawn_sync(file_dir, argv, NULL, G_SPAWN_SEARCH_PATH, NULL,
                           NULL, &out, &err, &status, NULL));
    if (status != 0) {
        g_printerr("%s: %s%s", command, out, err);
    }
    return status == 0;
}

#endif /* TESTS_UNIT_IMAGE_FIXTURE_H */
