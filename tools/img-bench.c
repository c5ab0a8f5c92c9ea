/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench: how fast are requests of one size, so many at a time?
 *
 * Coroutines, as many as requests may be in flight, each take the next request
 * and do it.  A flush that drains ends a round of them.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/img-command.h"
#include "tools/tool-print.h"

#define DEPTH_MAX 65536
#define BUFFERS_MAX (INT64_C(4) << 30) /* bytes of all together */

typedef struct Bench {
    ImgArgs args;
    int64_t count;          /* requests */
    int64_t depth;          /* in flight */
    int64_t bytes;          /* of each */
    int64_t step;           /* from one to the next; 0: as @bytes */
    int64_t offset;         /* of the next one */
    int64_t flush_interval; /* requests; 0: no flush */
    int64_t pattern;
    bool write;
    bool no_drain;          /* a flush does not wait for what is in flight */

    BlockBackend *blk;
    int64_t length;

    /* Changed by the workers, between yields. */
    int64_t sent;           /* requests; flushes are not counted */
    int64_t round_end;      /* so many may be */
    int ret;
} Bench;

/* --- requests ------------------------------------------------------------- */

static int64_t take_offset(Bench *b)
{
    int64_t offset = b->offset;

    b->sent++;
    b->offset += b->step;
    b->offset = b->length > b->bytes ? b->offset % (b->length - b->bytes) : 0;
    return offset;
}

static int coroutine_fn request(Bench *b, uint8_t *buf)
{
    int64_t number = b->sent, offset = take_offset(b);
    int ret = 0;

    if (b->no_drain && b->flush_interval && number > 0 &&
        number % b->flush_interval == 0) {
        ret = blk_co_flush(b->blk);
    }
    if (ret < 0) {
        return ret;
    }
    return b->write ? blk_co_pwrite(b->blk, offset, b->bytes, buf, 0)
                    : blk_co_pread(b->blk, offset, b->bytes, buf, 0);
}

static int coroutine_fn worker_entry(void *opaque)
{
    Bench *b = opaque;
    uint8_t *buf = block_aligned_alloc(4096, b->bytes);

    memset(buf, b->pattern, b->bytes);
    while (b->ret == 0 && b->sent < b->round_end) {
        int ret = request(b, buf);

        if (ret < 0 && b->ret == 0) {
            b->ret = ret;
        }
    }
    block_aligned_free(buf);
    return b->ret;
}

/* Requests until @b->round_end. */
static int coroutine_fn run_round(Bench *b)
{
    CoTaskPool *pool = co_task_pool_new(b->depth);
    int ret;

    for (int64_t i = 0; i < b->depth && b->sent < b->round_end; i++) {
        co_task_pool_start(pool, worker_entry, b);
    }
    ret = co_task_pool_wait_all(pool);
    co_task_pool_free(pool);
    return ret;
}

static int coroutine_fn bench_entry(void *opaque)
{
    Bench *b = opaque;
    int ret = 0;

    while (ret == 0 && b->sent < b->count) {
        b->round_end = b->flush_interval && !b->no_drain
                           ? MIN(b->count, b->sent + b->flush_interval)
                           : b->count;
        ret = run_round(b);
        if (ret == 0 && b->round_end < b->count) {
            ret = blk_co_flush(b->blk);
        }
    }
    if (ret < 0) {
        tool_error("Failed request: %s", g_strerror(-ret));
    }
    return ret;
}

static int bench(Bench *b, BlockGraph *graph, const char *name)
{
    int64_t start;
    int ret;

    b->length = img_length(b->blk, name);
    if (b->length < 0) {
        return EXIT_FAILURE;
    }
    if (b->length < b->bytes || b->offset > b->length - b->bytes) {
        tool_error("'%s' is too short for requests of %" G_GINT64_FORMAT
                   " bytes at %" G_GINT64_FORMAT, name, b->bytes, b->offset);
        return EXIT_FAILURE;
    }
    if (!b->args.quiet) {
        printf("Sending %" G_GINT64_FORMAT " %s requests, %" G_GINT64_FORMAT
               " bytes each, %" G_GINT64_FORMAT " in parallel (starting at "
               "offset %" G_GINT64_FORMAT ", step size %" G_GINT64_FORMAT
               ")\n", b->count, b->write ? "write" : "read", b->bytes,
               b->depth, b->offset, b->step);
        if (b->flush_interval) {
            printf("Sending flush every %" G_GINT64_FORMAT " requests\n",
                   b->flush_interval);
        }
    }
    start = tool_clock_ns();
    ret = aio_co_run(block_graph_aio_context(graph), bench_entry, b);
    if (ret == 0 && !b->args.quiet) {
        printf("Run completed in %.3f seconds.\n",
               (tool_clock_ns() - start) / 1e9);
    }
    return ret < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* --- the command line ----------------------------------------------------- */

static int parse_number(const char *what, int64_t min, int64_t max,
                        int64_t *ret)
{
    if (block_parse_size(optarg, ret) < 0 || *ret < min || *ret > max) {
        tool_error("Invalid %s specified", what);
        return -EINVAL;
    }
    return 0;
}

/* 0 or -EINVAL, printed. */
static int parse_letter(Bench *b, int letter)
{
    switch (letter) {
    case 'c':
        return parse_number("request count", 0, INT_MAX, &b->count);
    case 'd':
        return parse_number("queue depth", 1, DEPTH_MAX, &b->depth);
    case 'i':
        if (tool_image_set_aio(&b->args.image, optarg) < 0) {
            tool_error("Invalid aio option: %s", optarg);
            return -EINVAL;
        }
        return 0;
    case 'n':
        return tool_image_set_aio(&b->args.image, "native");
    case 'o':
        return parse_number("offset", 0, BDRV_MAX_LENGTH, &b->offset);
    case 's':
        return parse_number("buffer size", 1, INT_MAX, &b->bytes);
    case 'S':
        return parse_number("step size", 0, INT_MAX, &b->step);
    case 'w':
        b->write = true;
        return 0;
    case IMG_OPTION_FLUSH_INTERVAL:
        return parse_number("flush interval", 0, INT_MAX, &b->flush_interval);
    case IMG_OPTION_NO_DRAIN:
        b->no_drain = true;
        return 0;
    case IMG_OPTION_PATTERN:
        return parse_number("pattern byte", 0, 255, &b->pattern);
    default:
        return -EINVAL;
    }
}

static bool check_command(Bench *b, int argc, char **argv)
{
    if (!b->write && b->flush_interval) {
        tool_error("--flush-interval is only available in write tests");
        return false;
    }
    if (b->flush_interval && b->flush_interval < b->depth) {
        tool_error("Flush interval can't be smaller than depth");
        return false;
    }
    if (b->bytes > BUFFERS_MAX / b->depth) {
        tool_error("%" G_GINT64_FORMAT " buffers of %" G_GINT64_FORMAT
                   " bytes are too much memory", b->depth, b->bytes);
        return false;
    }
    b->step = b->step ? b->step : b->bytes;
    return img_operands(argc, argv, 1, 1);
}

int img_bench(int argc, char **argv)
{
    Bench b = { .args.own_o = true, .count = 75000, .depth = 64,
                .bytes = 4096 };
    BlockGraph *graph;
    int letter, ret = EXIT_FAILURE;

    while ((letter = img_getopt(&b.args, argc, argv,
                                "c:d:f:i:no:qs:S:t:wU" IMG_OPENS
                                " flush-interval no-drain pattern")) != -1) {
        if (parse_letter(&b, letter) < 0) {
            return EXIT_FAILURE;
        }
    }
    if (!check_command(&b, argc, argv)) {
        return EXIT_FAILURE;
    }
    graph = img_graph();
    b.blk = img_open(graph, &b.args, argv[optind],
                     b.write ? IMG_OPEN_WRITE : 0, NULL);
    if (b.blk) {
        ret = bench(&b, graph, argv[optind]);
        blk_unref(b.blk);
    }
    tool_graph_free(graph);
    return ret;
}
