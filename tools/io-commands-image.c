/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * length, info, alloc, map, truncate: the image as a whole.
 */
#include "tools/io-command.h"

#include <blockgraph/image.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>

#include "tools/tool-print.h"
#include "tools/tool-specific.h"

/* How much "alloc" looks at when nothing is said. */
#define ALLOC_DEFAULT_BYTES 512

static int length_run(IoSession *io, int argc, char **argv)
{
    int64_t bytes = blk_getlength(io->blk);
    char text[TOOL_TEXT_MAX];

    if (bytes < 0) {
        printf("getlength: %s\n", g_strerror((int)-bytes));
        return (int)bytes;
    }
    printf("%s\n", tool_format_bytes((double)bytes, text));
    return 0;
}

/* What only the driver knows, if it tells. */
static int print_specific(BlockDriverState *bs)
{
    BlockOptions *specific = NULL;
    g_autofree char *text = NULL;
    GError *error = NULL;
    json_t *json;
    int ret = bdrv_get_specific_info(bs, &specific, &error);

    if (ret == -ENOTSUP) {
        g_clear_error(&error);
        return 0;
    }
    if (ret < 0) {
        tool_report(error, NULL);
        return ret;
    }
    text = block_options_to_json(specific);
    json = json_loads(text, 0, NULL);
    tool_print_specific(json);
    json_decref(json);
    block_options_free(specific);
    return 0;
}

static int info_run(IoSession *io, int argc, char **argv)
{
    BlockDriverState *bs = blk_bs(io->blk);
    BlockDriverInfo info = { 0 };
    char text[TOOL_TEXT_MAX];
    int ret;

    printf("format name: %s\n", bdrv_driver_name(bs));
    ret = bdrv_get_info(bs, &info);
    if (ret < 0) {
        return ret;
    }
    printf("cluster size: %s\n",
           tool_format_bytes((double)info.cluster_bytes, text));
    printf("vm state offset: %s\n",
           tool_format_bytes((double)info.vm_state_offset, text));
    return print_specific(bs);
}

/*
 * Whether the top image has the start of the range: 1 or 0, or a negative
 * errno.  What it shows of its backing file is not its own.
 */
static int is_allocated(IoSession *io, int64_t offset, int64_t bytes,
                        int64_t *ret_bytes)
{
    int ret = blk_is_allocated(io->blk, offset, bytes, ret_bytes);

    return ret < 0 ? ret : ret == 1;
}

static int alloc_run(IoSession *io, int argc, char **argv)
{
    int64_t offset = tool_parse_size(argv[1]);
    int64_t bytes = ALLOC_DEFAULT_BYTES;
    int64_t length = blk_getlength(io->blk);
    int64_t allocated = 0;
    int64_t done = 0;
    char text[TOOL_TEXT_MAX];

    if (offset < 0) {
        return (int)offset;
    }
    if (argc > 2) {
        bytes = tool_parse_size(argv[2]);
        if (bytes < 0) {
            return (int)bytes;
        }
    }
    if (length < 0) {
        printf("getlength: %s\n", g_strerror((int)-length));
        return (int)length;
    }
    bytes = offset < length ? MIN(bytes, length - offset) : 0;
    while (done < bytes) {
        int64_t step = 0;
        int ret = is_allocated(io, offset + done, bytes - done, &step);

        if (ret < 0) {
            printf("is_allocated failed: %s\n", g_strerror(-ret));
            return ret;
        }
        if (step == 0) {
            break;
        }
        done += step;
        allocated += ret ? step : 0;
    }
    printf("%" PRId64 "/%" PRId64 " bytes allocated at offset %s\n", allocated,
           done, tool_format_bytes((double)offset, text));
    return 0;
}

/*
 * The longest run from @offset to @end that is or is not allocated as a whole.
 * Returns which (1 or 0), or a negative errno.
 */
static int find_run(IoSession *io, int64_t offset, int64_t end,
                    int64_t *ret_bytes)
{
    int64_t step = 0;
    int first = is_allocated(io, offset, end - offset, &step);
    int ret;

    if (first < 0) {
        return first;
    }
    *ret_bytes = step;
    while (step > 0 && offset + *ret_bytes < end) {
        ret = is_allocated(io, offset + *ret_bytes, end - offset - *ret_bytes,
                           &step);
        if (ret != first) {
            break;      /* an error shows when its own run is looked for */
        }
        *ret_bytes += step;
    }
    return first;
}

static int map_run(IoSession *io, int argc, char **argv)
{
    int64_t end = blk_getlength(io->blk);
    char bytes_text[TOOL_TEXT_MAX];
    char offset_text[TOOL_TEXT_MAX];
    int64_t offset;
    int64_t bytes;

    if (end < 0) {
        printf("Failed to query image length: %s\n", g_strerror((int)-end));
        return (int)end;
    }
    for (offset = 0; offset < end; offset += bytes) {
        int ret = find_run(io, offset, end, &bytes);

        if (ret < 0) {
            printf("Failed to get allocation status: %s\n", g_strerror(-ret));
            return ret;
        }
        if (bytes == 0) {
            printf("Unexpected end of image\n");
            return -EIO;
        }
        printf("%s (0x%" PRIx64 ") bytes %s allocated at offset %s (0x%" PRIx64
               ")\n", tool_format_bytes((double)bytes, bytes_text), bytes,
               ret ? "   " : "not",
               tool_format_bytes((double)offset, offset_text), offset);
    }
    return 0;
}

static int parse_prealloc(const char *name)
{
    for (int i = 0; prealloc_mode_names[i]; i++) {
        if (g_str_equal(name, prealloc_mode_names[i])) {
            return i;
        }
    }
    tool_error("Invalid preallocation mode '%s'", name);
    return -EINVAL;
}

static int truncate_run(IoSession *io, int argc, char **argv)
{
    BlockTruncate how = { .prealloc = PREALLOC_MODE_OFF };
    GError *error = NULL;
    int letter;
    int ret;

    io_getopt_start();
    while ((letter = getopt(argc, argv, "m:")) != -1) {
        if (letter != 'm') {
            return io_command_usage(argv[0]);
        }
        ret = parse_prealloc(optarg);
        if (ret < 0) {
            return ret;
        }
        how.prealloc = (PreallocMode)ret;
    }
    if (optind != argc - 1) {
        return io_command_usage(argv[0]);
    }
    how.offset = tool_parse_size(argv[optind]);
    if (how.offset < 0) {
        return (int)how.offset;
    }
    ret = blk_truncate(io->blk, &how, &error);
    if (ret < 0) {
        tool_report(error, NULL);
    }
    return ret;
}

const IoCommand io_commands_image[] = {
    { .name = "length", .alt_name = "l", .run = length_run,
      .oneline = "gets the length of the current file" },
    { .name = "info", .alt_name = "i", .run = info_run,
      .oneline = "prints information about the current file" },
    { .name = "alloc", .run = alloc_run, .args_min = 1, .args_max = 2,
      .args = "offset [count]",
      .oneline = "checks if offset is allocated in the file" },
    { .name = "map", .run = map_run, .args = "",
      .oneline = "prints the allocated areas of a file" },
    { .name = "truncate", .alt_name = "t", .run = truncate_run,
      .args_min = 1, .args_max = 3,
      .perm = BLK_PERM_WRITE | BLK_PERM_RESIZE,
      .args = "[-m prealloc_mode] off",
      .oneline = "truncates the current file at the given offset" },
    { 0 },
};
