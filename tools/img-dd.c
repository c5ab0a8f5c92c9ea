/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dd: copy part of an image, with the operands of dd(1).
 *
 * As with qemu-img, "count" counts from the beginning of the input, not from
 * where "skip" leads to.
 */
#include <errno.h>
#include <limits.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tools/img-command.h"
#include "tools/tool-print.h"

#define PIECE_BYTES (2 << 20)

typedef struct Dd {
    ImgArgs args;
    const char *format;     /* of the output */
    const char *in;
    const char *out;
    int64_t block_bytes;
    int64_t count;          /* blocks; -1: all */
    int64_t skip;           /* blocks */
} Dd;

static int take_operand(Dd *dd, const char *text)
{
    static const struct {
        const char *name;
        size_t offset;
        int64_t min, max;
    } numbers[] = {
        { "bs=", offsetof(Dd, block_bytes), 1, INT_MAX },
        { "count=", offsetof(Dd, count), 0, INT64_MAX },
        { "skip=", offsetof(Dd, skip), 0, INT64_MAX },
    };

    if (g_str_has_prefix(text, "if=")) {
        dd->in = text + 3;
        return 0;
    }
    if (g_str_has_prefix(text, "of=")) {
        dd->out = text + 3;
        return 0;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(numbers); i++) {
        const char *name = numbers[i].name;
        g_autofree char *what = g_strndup(name, strlen(name) - 1);
        int64_t value;

        if (!g_str_has_prefix(text, name)) {
            continue;
        }
        value = img_parse_size(what, text + strlen(name));
        if (value >= 0 &&
            (value < numbers[i].min || value > numbers[i].max)) {
            tool_error("Invalid %s specified. Must be between %"
                       G_GINT64_FORMAT " and %" G_GINT64_FORMAT ".", what,
                       numbers[i].min, numbers[i].max);
            value = -1;
        }
        if (value < 0) {
            return -EINVAL;
        }
        *(int64_t *)((char *)dd + numbers[i].offset) = value;
        return 0;
    }
    tool_error("unrecognized operand '%s'", text);
    return -EINVAL;
}

/* @blocks of @dd->block_bytes, or the largest number. */
static int64_t in_bytes(const Dd *dd, int64_t blocks)
{
    int64_t bytes;

    return __builtin_mul_overflow(blocks, dd->block_bytes, &bytes) ? INT64_MAX
                                                                   : bytes;
}

/* Copy [@from, @end) of @in to the beginning of @out. */
static int copy(const Dd *dd, BlockBackend *in, BlockBackend *out,
                int64_t from, int64_t end)
{
    uint8_t *buf = block_aligned_alloc(4096, PIECE_BYTES);
    int ret = 0;

    for (int64_t at = from; ret == 0 && at < end; at += PIECE_BYTES) {
        int64_t bytes = MIN(PIECE_BYTES, end - at);

        ret = blk_pread(in, at, bytes, buf, 0);
        if (ret < 0) {
            tool_error("error while reading from input image file '%s': %s",
                       dd->in, g_strerror(-ret));
            break;
        }
        ret = blk_pwrite(out, at - from, bytes, buf, 0);
        if (ret < 0) {
            tool_error("error while writing to output image file '%s': %s",
                       dd->out, g_strerror(-ret));
        }
    }
    if (ret == 0) {
        ret = blk_flush(out);
        if (ret < 0) {
            tool_error("error while flushing output image file '%s': %s",
                       dd->out, g_strerror(-ret));
        }
    }
    block_aligned_free(buf);
    return ret;
}

static int dd_to(Dd *dd, BlockGraph *graph, BlockBackend *in)
{
    int64_t end = img_length(in, dd->in);
    int64_t from = in_bytes(dd, dd->skip);
    ImgArgs out_args = { .image.format = dd->format };
    BlockBackend *out;
    GError *error = NULL;
    int ret;

    if (end < 0) {
        return EXIT_FAILURE;
    }
    if (dd->count >= 0) {
        end = MIN(end, in_bytes(dd, dd->count));
    }
    if (from > end) {
        tool_error("%s: cannot skip to specified offset", dd->in);
        from = end;
    }
    if (img_make(graph, dd->format, dd->out,
                 g_str_equal(dd->format, "raw")
                     ? end - from
                     : (end - from + 511) & ~INT64_C(511),
                 block_options_new(), &error) < 0) {
        return img_fail(error, "%s: error while creating output image",
                        dd->out);
    }
    out = img_open(graph, &out_args, dd->out, IMG_OPEN_WRITE, NULL);
    if (!out) {
        return EXIT_FAILURE;
    }
    ret = copy(dd, in, out, from, end);
    return img_close(out, dd->out, ret < 0 ? EXIT_FAILURE : EXIT_SUCCESS);
}

static bool is_same_file(const char *a, const char *b)
{
    struct stat of_a, of_b;

    return stat(a, &of_a) == 0 && stat(b, &of_b) == 0 &&
           of_a.st_dev == of_b.st_dev && of_a.st_ino == of_b.st_ino;
}

int img_dd(int argc, char **argv)
{
    Dd dd = { .format = "raw", .block_bytes = 512, .count = -1 };
    BlockGraph *graph;
    BlockBackend *in;
    int letter, ret = EXIT_FAILURE;

    while ((letter = img_getopt(&dd.args, argc, argv,
                                "f:O:U" IMG_OPENS)) != -1) {
        if (letter != 'O') {
            return EXIT_FAILURE;
        }
        dd.format = optarg;
    }
    for (int i = optind; i < argc; i++) {
        if (take_operand(&dd, argv[i]) < 0) {
            return EXIT_FAILURE;
        }
    }
    if (!dd.in || !dd.out) {
        tool_error("Must specify both input and output file names");
        return EXIT_FAILURE;
    }
    if (is_same_file(dd.in, dd.out)) {
        tool_error("'%s' and '%s' are the same file", dd.in, dd.out);
        return EXIT_FAILURE;
    }
    graph = img_graph();
    in = img_open(graph, &dd.args, dd.in, 0, NULL);
    if (in) {
        /* A raw disk may be read while others write it, as by dd(1). */
        if (g_str_equal(bdrv_driver_name(blk_bs(in)), "raw") ||
            img_keep_writers_out(in, &dd.args, dd.in) == 0) {
            ret = dd_to(&dd, graph, in);
        }
        blk_unref(in);
    }
    tool_graph_free(graph);
    return ret;
}
