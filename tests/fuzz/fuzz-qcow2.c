/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A qcow2 image of arbitrary bytes, in memory: it opens or gives an error; it
 * is read, walked, asked, checked, and stays as it is.  Then it is written to,
 * if it can be.
 *
 * A seed corpus comes from tests/hostile/make-images.py --expand.
 */
#include <blockgraph/backend.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/mem-driver.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

enum {
    IMAGE_BYTES_MAX = 1 << 20,
    ROOM_BYTES = 4 << 20, /* to write in */
    STEPS = 64,
    READ_BYTES = 128 << 10,
};

static uint8_t buf[READ_BYTES];

static BlockDriverState *open_text(BlockGraph *graph, const char *text)
{
    GError *error = NULL;
    BlockOptions *options = block_options_parse_keyval(text, "driver", NULL);
    BlockDriverState *bs = bdrv_open(graph, options, &error);

    g_assert((bs == NULL) == (error != NULL));
    g_assert(!error || error->message[0]);
    g_clear_error(&error);
    return bs;
}

/* A disk in memory that begins with @data; it does not grow, as an image may
 * name any place in it. */
static BlockDriverState *open_disk(BlockGraph *graph, const uint8_t *data,
                                   size_t size, size_t room)
{
    g_autofree char *text = g_strdup_printf(
        "mem,node-name=disk,grow=off,size=%zu", MAX(size, 512) + room);
    BlockDriverState *disk = open_text(graph, text);

    memcpy(mem_disk(disk)->data, data, size);
    return disk;
}

static void walk(BlockBackend *blk)
{
    int64_t length = blk_getlength(blk), at = 0;

    for (int i = 0; i < STEPS && at < length; i++) {
        int64_t bytes = MIN(length - at, READ_BYTES);
        BlockExtent extent;

        if (blk_block_status(blk, at, length - at, &extent) < 0) {
            at += MIN(65536, length - at);
            continue;
        }
        g_assert(extent.bytes > 0 && extent.bytes <= length - at);
        if (extent.status & BDRV_BLOCK_DATA) {
            blk_pread(blk, at, MIN(bytes, extent.bytes), buf, 0);
        }
        at += extent.bytes;
    }
}

static void ask(BlockDriverState *bs)
{
    BdrvCheck how = { 0 };
    BdrvCheckResult result = { 0 };
    BlockOptions *specific = NULL;
    GPtrArray *list = NULL;

    if (bdrv_snapshot_list(bs, &list, NULL) == 0) {
        g_ptr_array_unref(list);
    }
    if (bdrv_stored_bitmap_list(bs, &list, NULL) == 0) {
        g_ptr_array_unref(list);
    }
    if (bdrv_get_specific_info(bs, &specific, NULL) == 0) {
        block_options_free(specific);
    }
    bdrv_check(bs, &how, &result, NULL);
}

static void change(BlockBackend *blk)
{
    int64_t length = blk_getlength(blk);

    for (int64_t at = 0; at < length && at < 4 * 65536; at += 65536) {
        blk_pwrite(blk, at, MIN(4096, length - at), buf, 0);
    }
    blk_pwrite_zeroes(blk, 0, MIN(length, 65536), BDRV_REQ_MAY_UNMAP);
    blk_pdiscard(blk, 0, MIN(length, 1 << 20));
    blk_flush(blk);
    bdrv_stored_bitmap_add(blk_bs(blk), "fuzz", 65536, NULL);
}

/* Use the image on @disk; "backing" is nothing, since no file may be opened. */
static void use(BlockGraph *graph, bool write)
{
    BlockOptions *options = block_options_parse_json(
        "{\"driver\": \"qcow2\", \"file\": \"disk\", \"backing\": null}",
        NULL);
    BlockBackend *blk;
    GError *error = NULL;

    block_options_set_bool(options, "read-only", !write);
    blk = blk_open(graph, options, &error);
    g_assert((blk == NULL) == (error != NULL));
    g_clear_error(&error);
    if (!blk) {
        return;
    }
    if (write) {
        change(blk);
    } else {
        walk(blk);
        ask(blk_bs(blk));
    }
    blk_unref(blk);
}

static GLogWriterOutput silent(GLogLevelFlags level, const GLogField *fields,
                               gsize nr, gpointer opaque)
{
    return level & (G_LOG_FLAG_FATAL | G_LOG_LEVEL_ERROR)
               ? g_log_writer_default(level, fields, nr, opaque)
               : G_LOG_WRITER_HANDLED;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    g_log_set_writer_func(silent, NULL, NULL);
    mem_register();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    BlockGraph *graph;
    BlockDriverState *disk;

    if (size > IMAGE_BYTES_MAX) {
        return 0;
    }
    graph = block_graph_new(NULL, NULL);
    disk = open_disk(graph, data, size, 0);
    use(graph, false);
    g_assert(memcmp(mem_disk(disk)->data, data, size) == 0);
    bdrv_unref(disk);
    disk = open_disk(graph, data, size, ROOM_BYTES);
    use(graph, true);
    bdrv_unref(disk);
    block_graph_free(graph);
    return 0;
}
