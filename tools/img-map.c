/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * map: where the data of an image lies, layer by layer.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/img-command.h"
#include "tools/tool-print.h"

/* A stretch of the image of which the same is true. */
typedef struct MapEntry {
    int64_t start;
    int64_t length;
    int depth;          /* of the layer that decides; 0 = the image */
    bool present;       /* a layer decides, not the absence of data */
    bool zero;
    bool data;
    bool compressed;
    bool has_offset;
    int64_t offset;
    char *filename;     /* with has_offset */
} MapEntry;

typedef struct MapCall {
    BlockDriverState *bs;
    bool json;
    int64_t start;
    int64_t end;
    MapEntry last;      /* not printed yet; length 0: none */
    bool first;         /* nothing was printed */
} MapCall;

static void print_json(const MapEntry *e, bool first)
{
    printf("%s{ \"start\": %" G_GINT64_FORMAT ", \"length\": %"
           G_GINT64_FORMAT ", \"depth\": %d, \"present\": %s, \"zero\": %s, "
           "\"data\": %s, \"compressed\": %s", first ? "[" : ",\n", e->start,
           e->length, e->depth, e->present ? "true" : "false",
           e->zero ? "true" : "false", e->data ? "true" : "false",
           e->compressed ? "true" : "false");
    if (e->has_offset) {
        printf(", \"offset\": %" G_GINT64_FORMAT, e->offset);
    }
    printf("}");
}

/* 0, or -EINVAL, printed. */
static int print_human(const MapEntry *e)
{
    if (e->data && !e->has_offset) {
        tool_error("File contains external, encrypted or compressed "
                   "clusters.");
        return -EINVAL;
    }
    if (e->data && !e->zero) {
        g_autofree char *name = tool_safe_text(e->filename);

        printf("%#-16" G_GINT64_MODIFIER "x%#-16" G_GINT64_MODIFIER "x%#-16"
               G_GINT64_MODIFIER "x%s\n", (uint64_t)e->start,
               (uint64_t)e->length, (uint64_t)e->offset, name);
    }
    return 0;
}

static int put_last(MapCall *call)
{
    int ret = 0;

    if (call->last.length == 0) {
        return 0;
    }
    if (call->json) {
        print_json(&call->last, call->first);
    } else {
        ret = print_human(&call->last);
    }
    call->first = false;
    g_clear_pointer(&call->last.filename, g_free);
    call->last.length = 0;
    return ret;
}

/* Whether @b goes on where @a ends. */
static bool joins(const MapEntry *a, const MapEntry *b)
{
    return a->length > 0 && a->depth == b->depth && a->present == b->present &&
           a->zero == b->zero && a->data == b->data &&
           a->compressed == b->compressed && a->has_offset == b->has_offset &&
           (!a->has_offset || (a->offset + a->length == b->offset &&
                               g_str_equal(a->filename, b->filename)));
}

static int put(MapCall *call, MapEntry *e)
{
    int ret;

    if (joins(&call->last, e)) {
        call->last.length += e->length;
        g_free(e->filename);
        return 0;
    }
    ret = put_last(call);
    call->last = *e;
    return ret;
}

static BlockDriverState *backing_of(BlockDriverState *bs)
{
    BdrvChild *child = bdrv_cow_child(bdrv_skip_filters(bs));

    return child ? bdrv_child_bs(child) : NULL;
}

/* What the image is at @at. */
static int coroutine_fn look(MapCall *call, int64_t at, MapEntry *e)
{
    BlockDriverState *bs = call->bs;
    int64_t bytes = call->end - at;
    BlockExtent extent;

    *e = (MapEntry){ .start = at };
    for (;;) {
        int64_t length = bdrv_length(bs);
        BlockDriverState *below;
        int ret;

        if (at >= length) {
            /* A short layer below shows zeroes behind its end. */
            extent = (BlockExtent){ .bytes = bytes,
                                    .status = BDRV_BLOCK_ZERO };
            break;
        }
        ret = bdrv_co_block_status(bs, at, MIN(bytes, length - at), &extent);
        if (ret < 0) {
            return ret;
        }
        bytes = MIN(bytes, extent.bytes);
        below = backing_of(bs);
        if ((extent.status & (BDRV_BLOCK_ZERO | BDRV_BLOCK_DATA)) || !below) {
            break;
        }
        bs = below;
        e->depth++;
    }
    e->length = bytes;
    e->present = extent.status & BDRV_BLOCK_ALLOCATED;
    e->zero = extent.status & BDRV_BLOCK_ZERO;
    e->data = extent.status & BDRV_BLOCK_DATA;
    e->compressed = extent.status & BDRV_BLOCK_COMPRESSED;
    e->has_offset = extent.status & BDRV_BLOCK_OFFSET_VALID;
    if (e->has_offset) {
        e->offset = extent.map;
        e->filename = g_strdup(bdrv_filename(extent.file));
    }
    return 0;
}

static int coroutine_fn map_entry(void *opaque)
{
    MapCall *call = opaque;
    int64_t at = call->start;
    int ret = 0;

    while (ret == 0 && at < call->end) {
        MapEntry e;

        ret = look(call, at, &e);
        if (ret < 0) {
            tool_error("Failed to read image metadata: %s",
                       g_strerror(-ret));
            break;
        }
        at += e.length;
        ret = put(call, &e);
    }
    return ret < 0 ? ret : put_last(call);
}

static int run_map(BlockGraph *graph, BlockDriverState *bs, MapCall *call)
{
    int ret;

    call->bs = bs;
    call->first = true;
    if (!call->json) {
        printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to",
               "File");
    }
    ret = aio_co_run(block_graph_aio_context(graph), map_entry, call);
    g_clear_pointer(&call->last.filename, g_free);
    if (call->json && ret == 0) {
        printf("%s]\n", call->first ? "[" : "");
    }
    return ret < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

int img_map(int argc, char **argv)
{
    ImgArgs args = { 0 };
    int64_t start = 0, length = -1, end;
    BlockGraph *graph;
    BlockBackend *blk;
    int letter, ret = EXIT_FAILURE;

    while ((letter = img_getopt(&args, argc, argv, "f:s:l:U" IMG_OPENS
                                " format max-length output "
                                "start-offset")) != -1) {
        if (letter == '?') {
            return EXIT_FAILURE;
        }
        if (letter == IMG_OPTION_START_OFFSET || letter == 's') {
            start = img_parse_size("start offset", optarg);
        } else if (letter == IMG_OPTION_MAX_LENGTH || letter == 'l') {
            length = img_parse_size("max length", optarg);
        } else {
            return EXIT_FAILURE;
        }
        if (start < 0 || (length < 0 && (letter == IMG_OPTION_MAX_LENGTH ||
                                         letter == 'l'))) {
            return EXIT_FAILURE;
        }
    }
    if (!img_operands(argc, argv, 1, 1)) {
        return EXIT_FAILURE;
    }
    graph = img_graph();
    blk = img_open(graph, &args, argv[optind], 0, NULL);
    end = blk ? img_length(blk, argv[optind]) : -1;
    if (end >= 0) {
        MapCall call = { .json = args.json, .start = MIN(start, end) };

        call.end = length < 0 ? end : call.start + MIN(length,
                                                       end - call.start);
        ret = run_map(graph, blk_bs(blk), &call);
    }
    blk_unref(blk);
    tool_graph_free(graph);
    return ret;
}
