/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Images of format qcow2 in the directory of the test: made, patched, opened.
 */
#ifndef TESTS_UNIT_IMAGE_FIXTURE_H
#define TESTS_UNIT_IMAGE_FIXTURE_H

#include "faulty-fixture.h"
#include "file-fixture.h"
#include "own-bytes.h"

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

    ck_assert_int_eq(make_image(name, options, &error), -err);
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

/** What a check finds that repairs nothing; there is nothing it cannot look
 * at. */
static inline BdrvCheckResult check_of(BlockDriverState *bs)
{
    BdrvCheck how = { 0 };
    BdrvCheckResult result;
    g_autoptr(GError) error = NULL;

    ck_assert_msg(bdrv_check(bs, &how, &result, &error) == 0, "%s",
                  error ? error->message : "no error set");
    ck_assert_int_eq(result.check_errors, 0);
    return result;
}

/** No corruption; leaks neither, once all is given back. */
static inline void check_sound(BlockBackend *blk)
{
    BdrvCheckResult result;

    /* The second one for what the first one gives back. */
    ck_assert_int_eq(blk_flush(blk), 0);
    ck_assert_int_eq(blk_flush(blk), 0);
    result = check_of(blk_bs(blk));
    ck_assert_int_eq(result.corruptions, 0);
    ck_assert_int_eq(result.leaks, 0);
}

static inline void snapshot_ok(BlockDriverState *bs, const char *name)
{
    BdrvSnapshotInfo info = { .name = (char *)name, .date_sec = 1700000000,
                              .icount = UINT64_MAX };
    g_autoptr(GError) error = NULL;

    ck_assert_msg(bdrv_snapshot_create(bs, &info, &error) == 0, "%s",
                  error ? error->message : "no error set");
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

    be_put32(buf, value);
    patch_file(name, offset, buf, sizeof(buf));
}

static inline void patch64(const char *name, int64_t offset, uint64_t value)
{
    uint8_t buf[8];

    be_put64(buf, value);
    patch_file(name, offset, buf, sizeof(buf));
}

/** Bytes of a file; zero behind its end. */
static inline void peek_file(const char *name, int64_t offset, void *buf,
                             size_t bytes)
{
    g_autofree char *path = path_of(name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    memset(buf, 0, bytes);
    ck_assert_int_ge(pread(fd, buf, bytes, offset), 0);
    close(fd);
}

static inline uint64_t peek64(const char *name, int64_t offset)
{
    uint8_t buf[8];

    peek_file(name, offset, buf, sizeof(buf));
    return own_be64(buf);
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

/** Options of the image @name with the failing filter below. */
static inline BlockOptions *faulty_options(const char *name, const char *more)
{
    g_autofree char *path = path_of(name);
    BlockOptions *options = opts(more ? more : "qcow2");

    block_options_set_str(options, "driver", "qcow2");
    block_options_set_str(options, "file.driver", "faulty");
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
