/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * compare: do two images show the same content?
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/img-command.h"
#include "tools/tool-print.h"

#define COMPARE_BYTES (2 << 20)

enum {
    COMPARE_SAME = 0,
    COMPARE_DIFFER = 1,
    COMPARE_OPEN_FAILED = 2,
    COMPARE_STATUS_FAILED = 3,
    COMPARE_READ_FAILED = 4,
};

typedef struct Compare {
    const ImgArgs *args;
    bool strict;
    BlockBackend *blk[2];
    const char *name[2];
    int64_t length[2];
    uint8_t *buf[2];
} Compare;

static int differ(const Compare *c, const char *fmt, int64_t at)
{
    if (!c->args->quiet) {
        printf(fmt, at);
    }
    return COMPARE_DIFFER;
}

/* What image @i is at @at, for at most @bytes. */
static int status(const Compare *c, int i, int64_t at, int64_t bytes,
                  BlockExtent *ret)
{
    int err;

    if (at >= c->length[i]) {
        *ret = (BlockExtent){ .bytes = bytes, .status = BDRV_BLOCK_ZERO };
        return 0;
    }
    err = blk_block_status(c->blk[i], at, MIN(bytes, c->length[i] - at), ret);
    if (err < 0) {
        tool_error("Sector allocation test failed for %s: %s", c->name[i],
                   g_strerror(-err));
    }
    return err;
}

static int read_one(const Compare *c, int i, int64_t at, int64_t bytes)
{
    int ret = blk_pread(c->blk[i], at, bytes, c->buf[i], 0);

    if (ret < 0) {
        tool_error("Error while reading offset %" G_GINT64_FORMAT " of %s: "
                   "%s", at, c->name[i], g_strerror(-ret));
    }
    return ret;
}

static int64_t first_difference(const uint8_t *a, const uint8_t *b,
                                int64_t bytes)
{
    int64_t i = 0;

    if (memcmp(a, b, bytes) == 0) {
        return -1;
    }
    while (a[i] == b[i]) {
        i++;
    }
    return i;
}

/* Compare @bytes at @at, of which at least one image has data. */
static int compare_data(const Compare *c, int64_t at, int64_t bytes,
                        const bool zero[2])
{
    int64_t i;

    for (int k = 0; k < 2; k++) {
        if (zero[k]) {
            memset(c->buf[k], 0, bytes);
        } else if (read_one(c, k, at, bytes) < 0) {
            return COMPARE_READ_FAILED;
        }
    }
    i = first_difference(c->buf[0], c->buf[1], bytes);
    return i < 0 ? COMPARE_SAME
                 : differ(c, "Content mismatch at offset %" G_GINT64_FORMAT
                          "!\n", at + i);
}

static int compare_step(const Compare *c, int64_t at, int64_t end,
                        int64_t *ret_bytes)
{
    BlockExtent extent[2];
    int64_t bytes = end - at;
    bool zero[2];

    for (int k = 0; k < 2; k++) {
        if (status(c, k, at, bytes, &extent[k]) < 0) {
            return COMPARE_STATUS_FAILED;
        }
        bytes = MIN(bytes, extent[k].bytes);
        zero[k] = extent[k].status & BDRV_BLOCK_ZERO;
    }
    if (c->strict && at < MIN(c->length[0], c->length[1]) &&
        ((extent[0].status ^ extent[1].status) & BDRV_BLOCK_ALLOCATED)) {
        return differ(c, "Strict mode: Offset %" G_GINT64_FORMAT " block "
                      "status mismatch!\n", at);
    }
    if (!zero[0] || !zero[1]) {
        bytes = MIN(bytes, COMPARE_BYTES);
    }
    *ret_bytes = bytes;
    return zero[0] && zero[1] ? COMPARE_SAME
                              : compare_data(c, at, bytes, zero);
}

static int compare_part(const Compare *c, int64_t at, int64_t end)
{
    int64_t all = MAX(c->length[0], c->length[1]), bytes = 0;
    int ret = COMPARE_SAME;

    while (ret == COMPARE_SAME && at < end) {
        ret = compare_step(c, at, end, &bytes);
        at += bytes;
        img_progress(c->args->progress, at, all);
    }
    return ret;
}

static int compare(Compare *c)
{
    int64_t both, end;
    int ret;

    for (int k = 0; k < 2; k++) {
        c->length[k] = img_length(c->blk[k], c->name[k]);
        if (c->length[k] < 0) {
            return COMPARE_STATUS_FAILED;
        }
    }
    both = MIN(c->length[0], c->length[1]);
    end = MAX(c->length[0], c->length[1]);
    if (both < end && c->strict) {
        return differ(c, "Strict mode: Image size mismatch!\n", 0);
    }
    ret = compare_part(c, 0, both);
    if (ret == COMPARE_SAME && both < end && !c->args->quiet) {
        printf("Warning: Image size mismatch!\n");
    }
    if (ret == COMPARE_SAME) {
        ret = compare_part(c, both, end);
    }
    if (ret == COMPARE_SAME && !c->args->quiet) {
        printf("Images are identical.\n");
    }
    return ret;
}

static int open_both(Compare *c, const char *format2, char **names)
{
    BlockGraph *graph = img_graph();
    ImgArgs args = *c->args;
    int ret = COMPARE_OPEN_FAILED;

    c->name[0] = names[0];
    c->name[1] = names[1];
    c->blk[0] = img_open(graph, &args, names[0], 0, NULL);
    args.image.format = format2;
    c->blk[1] = c->blk[0] ? img_open(graph, &args, names[1], 0, NULL) : NULL;
    if (c->blk[1]) {
        c->buf[0] = block_aligned_alloc(4096, COMPARE_BYTES);
        c->buf[1] = block_aligned_alloc(4096, COMPARE_BYTES);
        ret = compare(c);
        block_aligned_free(c->buf[0]);
        block_aligned_free(c->buf[1]);
    }
    blk_unref(c->blk[0]);
    blk_unref(c->blk[1]);
    tool_graph_free(graph);
    return ret;
}

int img_compare(int argc, char **argv)
{
    ImgArgs args = { 0 };
    Compare c = { .args = &args };
    const char *format2 = NULL;
    int letter;

    while ((letter = img_getopt(&args, argc, argv,
                                "f:F:T:pqsU" IMG_OPENS)) != -1) {
        if (letter == 'F') {
            format2 = optarg;
        } else if (letter == 's') {
            c.strict = true;
        } else if (letter != 'T' ||
                   img_set_cache(&args.image, optarg) < 0) {
            return COMPARE_OPEN_FAILED;
        }
    }
    if (!img_operands(argc, argv, 2, 2)) {
        return EXIT_FAILURE;
    }
    return open_both(&c, format2, argv + optind);
}
