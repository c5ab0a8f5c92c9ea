/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A graph is built from hostile options, one text a line, and used: every open
 * gives a node or an error, requests give a result, and all of it closes.
 */
#include <blockgraph/backend.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { NODES_MAX = 16 };

/* Files are not opened: what a file name would reach is not ours to touch. */
static bool mentions_files(const char *text)
{
    return strstr(text, "file") && strstr(text, "name=");
}

static void use(BlockGraph *graph, BlockDriverState *bs, int64_t offset)
{
    BlockPerm perm = { BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL };
    BlockBackend *blk = blk_new(graph, "fuzz", &perm);
    BlockExtent extent;
    char buf[600];

    if (!bdrv_is_read_only(bs)) {
        perm.used |= BLK_PERM_WRITE;
        blk_set_perm(blk, &perm, NULL);
    }
    if (blk_insert_bs(blk, bs, NULL) == 0) {
        blk_pread(blk, offset, sizeof(buf), buf, 0);
        blk_pwrite(blk, offset, sizeof(buf), buf, BDRV_REQ_FUA);
        blk_pwrite_zeroes(blk, offset, 5000, BDRV_REQ_MAY_UNMAP);
        blk_pdiscard(blk, offset, 5000);
        blk_block_status(blk, offset, 5000, &extent);
    }
    blk_unref(blk);
}

static BlockDriverState *open_line(BlockGraph *graph, const char *line)
{
    GError *error = NULL;
    BlockOptions *options = line[0] == '{'
        ? block_options_parse_json(line, &error)
        : block_options_parse_keyval(line, "driver", &error);
    BlockDriverState *bs = NULL;
    char *json;

    if (options) {
        json = block_options_to_json(options);
        if (strstr(json, "\"file\"") && strstr(json, "filename")) {
            block_options_free(options);
            g_free(json);
            return NULL;
        }
        /* A request may take as long as it says: keep it short. */
        if (strstr(json, "latency-ns")) {
            block_options_set_int(options, "latency-ns", 0);
        }
        g_free(json);
        bs = bdrv_open(graph, options, &error);
    }
    if (!bs) {
        g_assert(error && error->message[0]);
        g_error_free(error);
    }
    return bs;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = g_strndup((const char *)data, MIN(size, 4096));
    g_auto(GStrv) lines = g_strsplit(text, "\n", NODES_MAX);
    BlockGraph *graph = block_graph_new(NULL, NULL);
    BlockDriverState *nodes[NODES_MAX] = { NULL };

    for (int i = 0; lines[i] && i < NODES_MAX; i++) {
        if (!mentions_files(lines[i]) && !strstr(lines[i], "latency")) {
            nodes[i] = open_line(graph, lines[i]);
        }
    }
    for (int i = 0; i < NODES_MAX; i++) {
        if (nodes[i]) {
            use(graph, nodes[i], size * 7919);
            bdrv_unref(nodes[i]);
        }
    }
    block_graph_free(graph);
    return 0;
}
