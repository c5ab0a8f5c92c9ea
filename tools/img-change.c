/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * amend and resize: change an image that is there.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/img-command.h"
#include "tools/tool-print.h"

/* --- amend ---------------------------------------------------------------- */

static int print_amend_options(const char *format)
{
    const BlockDriver *driver = bdrv_find_driver(format);
    g_autofree char *help = NULL;

    if (!driver || !driver->amend_options) {
        tool_error("Format driver '%s' does not support option amendment",
                   format);
        return EXIT_FAILURE;
    }
    help = block_options_help(driver->amend_options);
    printf("Amend options for '%s':\n%s", format, help);
    return EXIT_SUCCESS;
}

static int amend(ImgArgs *args, const char *filename)
{
    /* The library is a user of its own when it changes the length, and where
     * the image becomes longer its backing file must not be seen. */
    const BlockPerm shared = { .shared = BLK_PERM_ALL };
    bool resize = block_options_has(args->options, "size");
    BlockGraph *graph = img_graph();
    BlockBackend *blk = img_open(graph, args, filename, IMG_OPEN_WRITE |
                                 (resize ? 0 : IMG_OPEN_NO_BACKING), NULL);
    GError *error = NULL;
    int ret = EXIT_FAILURE;

    if (blk) {
        ret = resize ? blk_set_perm(blk, &shared, &error) : 0;
        ret = ret < 0 || bdrv_amend(blk_bs(blk),
                                    g_steal_pointer(&args->options),
                                    &error) < 0
                  ? img_fail(error, "Error while amending options of '%s'",
                             filename)
                  : EXIT_SUCCESS;
        ret = img_close(blk, filename, ret);
    }
    tool_graph_free(graph);
    return ret;
}

int img_amend(int argc, char **argv)
{
    ImgArgs args = { 0 };
    int letter, ret = EXIT_FAILURE;

    while ((letter = img_getopt(&args, argc, argv,
                                "f:o:pqt:" IMG_OPENS " force")) != -1) {
        /* Force is for what could lock the user out; nothing here can. */
        if (letter != IMG_OPTION_FORCE) {
            img_args_clear(&args);
            return EXIT_FAILURE;
        }
    }
    if (args.help_options) {
        ret = print_amend_options(args.image.format ? args.image.format
                                                    : "qcow2");
    } else if (!args.options) {
        tool_error("Must specify options (-o)");
    } else if (img_operands(argc, argv, 1, 1)) {
        ret = amend(&args, argv[optind]);
    }
    img_args_clear(&args);
    return ret;
}

/* --- resize --------------------------------------------------------------- */

typedef struct Resize {
    ImgArgs args;
    bool shrink;
    PreallocMode prealloc;
} Resize;

static int parse_prealloc(const char *text, PreallocMode *ret)
{
    for (int i = 0; prealloc_mode_names[i]; i++) {
        if (g_str_equal(prealloc_mode_names[i], text)) {
            *ret = i;
            return 0;
        }
    }
    tool_error("Invalid preallocation mode '%s'", text);
    return -EINVAL;
}

/* The new length that "+N", "-N" or "N" means; -1, printed. */
static int64_t new_length(const char *text, int64_t now)
{
    bool more = text[0] == '+', less = text[0] == '-';
    int64_t bytes = img_parse_size("image size", text + (more || less));

    if (bytes < 0) {
        return -1;
    }
    if ((more && bytes > BDRV_MAX_LENGTH - now) || (less && bytes >= now) ||
        (!more && !less && bytes == 0)) {
        tool_error("New image size must be positive");
        return -1;
    }
    return more ? now + bytes : less ? now - bytes : bytes;
}

static int resize(const Resize *r, BlockBackend *blk, const char *text)
{
    int64_t now = blk_getlength(blk);
    BlockTruncate how = { .exact = true, .prealloc = r->prealloc };
    GError *error = NULL;

    how.offset = new_length(text, now);
    if (how.offset < 0) {
        return EXIT_FAILURE;
    }
    if (how.offset < now && !r->shrink) {
        tool_error("Use the --shrink option to perform a shrink operation.");
        tool_warning("Shrinking an image will delete all data beyond the "
                     "shrunken image's end.");
        return EXIT_FAILURE;
    }
    if (how.offset < now && r->prealloc != PREALLOC_MODE_OFF) {
        tool_error("Preallocation can only be used for growing images");
        return EXIT_FAILURE;
    }
    if (blk_truncate(blk, &how, &error) < 0) {
        return img_fail(error, "Could not resize '%s'",
                        bdrv_filename(blk_bs(blk)));
    }
    return EXIT_SUCCESS;
}

/* "-5M" is a length, not an option. */
static char *take_length(int *argc, char **argv)
{
    char *text = *argc > 2 ? argv[*argc - 1] : NULL;

    if (text) {
        argv[--*argc] = NULL;
    }
    return text;
}

int img_resize(int argc, char **argv)
{
    Resize r = { 0 };
    char *text = take_length(&argc, argv);
    BlockGraph *graph;
    BlockBackend *blk;
    int letter, ret = EXIT_FAILURE;

    while ((letter = img_getopt(&r.args, argc, argv, "f:q" IMG_OPENS
                                " preallocation shrink")) != -1) {
        if (letter == IMG_OPTION_SHRINK) {
            r.shrink = true;
        } else if (letter != IMG_OPTION_PREALLOCATION ||
                   parse_prealloc(optarg, &r.prealloc) < 0) {
            return EXIT_FAILURE;
        }
    }
    if (!text || !img_operands(argc, argv, 1, 1)) {
        if (!text) {
            tool_error("Expecting image file name and size");
        }
        return EXIT_FAILURE;
    }
    graph = img_graph();
    blk = img_open(graph, &r.args, argv[optind], IMG_OPEN_RESIZE, NULL);
    if (blk) {
        ret = img_close(blk, argv[optind], resize(&r, blk, text));
    }
    if (ret == EXIT_SUCCESS && !r.args.quiet) {
        printf("Image resized.\n");
    }
    tool_graph_free(graph);
    return ret;
}
