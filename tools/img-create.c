/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * create and measure: images that are to come.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/img-command.h"
#include "tools/tool-name.h"
#include "tools/tool-nbd-uri.h"
#include "tools/tool-print.h"

static const BlockDriver *find_format(const char *format, GError **errp)
{
    const BlockDriver *driver = bdrv_find_driver(format);

    if (!driver) {
        block_error(errp, ENOENT, "Unknown file format '%s'", format);
    } else if (!driver->create && !g_str_equal(format, "raw")) {
        block_error(errp, ENOTSUP, "Format driver '%s' does not support image "
                    "creation", format);
        driver = NULL;
    }
    return driver;
}

/* The same, and errors are printed. */
static const BlockDriver *look_up_format(const char *format)
{
    g_autoptr(GError) error = NULL;
    const BlockDriver *driver = find_format(format, &error);

    if (!driver) {
        tool_error("%s", error->message);
    }
    return driver;
}

int img_print_create_options(const char *format)
{
    const BlockDriver *driver = look_up_format(format);
    g_autofree char *help = NULL;

    if (!driver) {
        return EXIT_FAILURE;
    }
    if (!driver->create_options) {
        driver = bdrv_find_driver("file");
    }
    help = block_options_help(driver->create_options);
    printf("Supported options:\n%s", help);
    return EXIT_SUCCESS;
}

/* Options of an image of @format in @filename.  Takes @options over. */
static BlockOptions *make_tree(const char *format, const char *filename,
                               int64_t size, BlockOptions *options)
{
    if (g_str_equal(format, "raw")) {
        block_options_set_str(options, "driver", "file");
        block_options_set_str(options, "filename", filename);
    } else {
        block_options_set_str(options, "driver", format);
        block_options_set_str(options, "file.driver", "file");
        block_options_set_str(options, "file.filename", filename);
    }
    block_options_set_int(options, "size", size);
    return options;
}

static int make_file(BlockGraph *graph, const char *filename, GError **errp)
{
    BlockOptions *options = block_options_new();

    block_options_set_str(options, "driver", "file");
    block_options_set_str(options, "filename", filename);
    block_options_set_int(options, "size", 0);
    return bdrv_create(graph, options, errp);
}

/*
 * Whether there are such images, and @options make sense: asked before the file
 * is emptied.  Whoever measures an image looks at all of them.
 */
static int check_options(BlockGraph *graph, const char *format,
                         const BlockOptions *options, GError **errp)
{
    const BlockDriver *driver = find_format(format, errp);
    BlockOptions *tree;
    BdrvMeasure unused;

    if (!driver || !driver->measure) {
        return driver ? 0 : -EINVAL;
    }
    tree = block_options_clone(options);
    block_options_set_str(tree, "driver", format);
    block_options_set_int(tree, "size", 0);
    return bdrv_measure(graph, tree, NULL, &unused, errp);
}

/* The path of the backing file @backing of an image at @filename. */
static char *backing_path(const char *filename, const char *backing)
{
    g_autofree char *dir = g_path_get_dirname(tool_file_path(filename));

    return g_path_is_absolute(backing) || g_str_equal(dir, ".")
               ? g_strdup(backing)
               : g_build_filename(dir, backing, NULL);
}

/* To make an image empties its file, so this comes first. */
static int check_backing_remains(const char *filename,
                                 const BlockOptions *options, GError **errp)
{
    const char *backing = block_options_peek_str(options, "backing_file");
    g_autofree char *path = backing ? backing_path(filename, backing) : NULL;

    return path && img_same_file(filename, path)
               ? block_error(errp, ELOOP, "'%s' cannot be the backing file of "
                             "the new image '%s', which would back itself",
                             backing, filename)
               : 0;
}

/* Only files are made; of an export it is enough that it is there. */
static int make_no_file(const char *format, const char *name, GError **errp)
{
    if (!tool_is_nbd_name(name)) {
        return block_error(errp, ENOTSUP, "No image can be made in '%s', which "
                           "is not the name of a file", name);
    }
    if (g_str_equal(format, "raw")) {
        return 0;   /* opening it tells its length */
    }
    return block_error(errp, ENOTSUP, "Only raw images can be made in an NBD "
                       "export");
}

int img_make(BlockGraph *graph, const char *format, const char *name,
             int64_t size, BlockOptions *options, GError **errp)
{
    const char *filename = tool_file_path(name);

    if (check_backing_remains(filename, options, errp) < 0) {
        block_options_free(options);
        return -ELOOP;
    }
    if (tool_is_no_file(name)) {
        block_options_free(options);
        return make_no_file(format, name, errp);
    }
    if (!g_str_equal(format, "raw")) {
        int ret = check_options(graph, format, options, errp);

        if (ret == 0) {
            ret = make_file(graph, filename, errp);
        }
        if (ret < 0) {
            block_options_free(options);
            return ret;
        }
    }
    return bdrv_create(graph, make_tree(format, filename, size, options),
                       errp);
}

/* --- create --------------------------------------------------------------- */

typedef struct Create {
    ImgArgs args;
    const char *format;
    const char *backing;
    const char *backing_format;
    bool unsafe;        /* do not look at the backing file */
} Create;

/* The length of the backing file, which must open; -1, printed. */
static int64_t backing_length(BlockGraph *graph, const Create *c,
                              const char *filename)
{
    g_autofree char *path = backing_path(filename, c->backing);
    ImgArgs args = { .image = { .format = c->backing_format } };
    BlockBackend *blk = img_open(graph, &args, path, IMG_OPEN_PLAIN_NAME, NULL);
    int64_t length;

    if (!blk) {
        tool_error("%s: Could not open backing image.", filename);
        return -1;
    }
    length = img_length(blk, path);
    blk_unref(blk);
    return length;
}

/* Take what -o says of the backing file, where -b and -F did not. */
static void take_backing(Create *c, BlockOptions *options)
{
    if (!c->backing) {
        c->backing = block_options_peek_str(options, "backing_file");
    }
    if (!c->backing_format) {
        c->backing_format = block_options_peek_str(options, "backing_fmt");
    }
    c->backing = g_strdup(c->backing);
    c->backing_format = g_strdup(c->backing_format);
    if (c->backing) {
        block_options_set_str(options, "backing_file", c->backing);
    }
    if (c->backing_format) {
        block_options_set_str(options, "backing_fmt", c->backing_format);
    }
}

/* The length that was asked for, or that of the backing file; -1, printed. */
static int64_t choose_size(BlockGraph *graph, const Create *c,
                           BlockOptions *options, const char *filename,
                           const char *text)
{
    const char *option = block_options_peek_str(options, "size");
    int64_t size = -1;

    if (text && option) {
        tool_error("%s: The image size must be specified only once", filename);
        return -1;
    }
    text = text ? text : option;
    if (text) {
        size = img_parse_size("image size", text);
        if (size < 0) {
            return -1;
        }
    }
    if (c->backing && !c->backing_format) {
        tool_error("%s: Backing file specified without backing format",
                   filename);
        return -1;
    }
    if (c->backing && !c->unsafe) {
        int64_t length = backing_length(graph, c, filename);

        return length < 0 || size >= 0 ? (length < 0 ? -1 : size) : length;
    }
    if (size < 0) {
        tool_error("%s: Image creation needs a size parameter", filename);
    }
    return size;
}

static void print_formatting(const Create *c, const BlockOptions *options,
                             const char *filename, int64_t size)
{
    g_auto(GStrv) keys = block_options_keys(options);

    printf("Formatting '%s', fmt=%s size=%" G_GINT64_FORMAT, filename,
           c->format, size);
    for (char **key = keys; *key; key++) {
        const char *value = block_options_peek_str(options, *key);

        if (value && !g_str_equal(*key, "size")) {
            printf(" %s=%s", *key, value);
        }
    }
    printf("\n");
}

static int create(Create *c, const char *filename, const char *size_text)
{
    BlockOptions *options = c->args.options ? c->args.options
                                            : block_options_new();
    BlockGraph *graph = img_graph();
    GError *error = NULL;
    int64_t size;
    int ret = EXIT_FAILURE;

    c->args.options = NULL;
    take_backing(c, options);
    size = choose_size(graph, c, options, filename, size_text);
    if (size >= 0) {
        if (!c->args.quiet) {
            print_formatting(c, options, filename, size);
        }
        ret = img_make(graph, c->format, filename, size,
                       g_steal_pointer(&options), &error) < 0
                  ? img_fail(error, "%s", filename)
                  : EXIT_SUCCESS;
    }
    block_options_free(options);
    g_free((char *)c->backing);
    g_free((char *)c->backing_format);
    tool_graph_free(graph);
    return ret;
}

int img_create(int argc, char **argv)
{
    Create c = { 0 };
    int letter, ret = EXIT_FAILURE;

    while ((letter = img_getopt(&c.args, argc, argv,
                                "f:b:F:o:qu" IMG_COMMON)) != -1) {
        if (letter == 'b') {
            c.backing = optarg;
        } else if (letter == 'F') {
            c.backing_format = optarg;
        } else if (letter == 'u') {
            c.unsafe = true;
        } else {
            img_args_clear(&c.args);
            return EXIT_FAILURE;
        }
    }
    c.format = c.args.image.format ? c.args.image.format : "raw";
    if (c.args.help_options) {
        ret = img_print_create_options(c.format);
    } else if (look_up_format(c.format) && img_operands(argc, argv, 1, 2)) {
        ret = create(&c, argv[optind], argv[optind + 1]);
    }
    img_args_clear(&c.args);
    return ret;
}

/* --- measure -------------------------------------------------------------- */

static void print_measure(const BdrvMeasure *m, bool json)
{
    if (json) {
        printf("{\n");
        if (m->bitmaps >= 0) {
            printf("    \"bitmaps\": %" G_GINT64_FORMAT ",\n", m->bitmaps);
        }
        printf("    \"required\": %" G_GINT64_FORMAT ",\n"
               "    \"fully-allocated\": %" G_GINT64_FORMAT "\n}\n",
               m->required, m->fully_allocated);
        return;
    }
    printf("required size: %" G_GINT64_FORMAT "\n"
           "fully allocated size: %" G_GINT64_FORMAT "\n", m->required,
           m->fully_allocated);
    if (m->bitmaps >= 0) {
        printf("bitmaps size: %" G_GINT64_FORMAT "\n", m->bitmaps);
    }
}

/* A raw image is as long as its content. */
static void measure_raw(int64_t size, BdrvMeasure *m)
{
    size = (size + 511) & ~INT64_C(511);
    *m = (BdrvMeasure){ .required = size, .fully_allocated = size,
                        .bitmaps = -1 };
}

static int measure(ImgArgs *args, const char *format, int64_t size,
                   const char *source, const char *snapshot)
{
    BlockOptions *options = args->options ? args->options
                                          : block_options_new();
    BlockGraph *graph = img_graph();
    BlockBackend *blk = NULL;
    BlockOptions *extra = tool_snapshot_options(snapshot);
    GError *error = NULL;
    BdrvMeasure m;
    int ret = EXIT_FAILURE;

    args->options = NULL;
    block_options_set_str(options, "driver", format);
    if (size >= 0) {
        block_options_set_int(options, "size", size);
    }
    if (source) {
        blk = img_open(graph, args, source, 0, g_steal_pointer(&extra));
    }
    if (blk && g_str_equal(format, "raw")) {
        size = img_length(blk, source);
    }
    if (size >= 0 && g_str_equal(format, "raw")) {
        measure_raw(size, &m);
        print_measure(&m, args->json);
        ret = EXIT_SUCCESS;
    } else if ((blk || !source) && !g_str_equal(format, "raw")) {
        if (bdrv_measure(graph, g_steal_pointer(&options),
                         blk ? blk_bs(blk) : NULL, &m, &error) < 0) {
            img_fail(error, "Could not measure");
        } else {
            if (!blk || !img_can_keep_bitmaps(blk_bs(blk))) {
                m.bitmaps = -1; /* there is none to copy */
            }
            print_measure(&m, args->json);
            ret = EXIT_SUCCESS;
        }
    }
    blk_unref(blk);
    block_options_free(options);
    block_options_free(extra);
    tool_graph_free(graph);
    return ret;
}

int img_measure(int argc, char **argv)
{
    ImgArgs args = { 0 };
    const char *format = "raw", *snapshot = NULL;
    int64_t size = -1;
    int letter, ret = EXIT_FAILURE;

    while ((letter = img_getopt(&args, argc, argv, "f:l:o:O:U" IMG_OPENS
                                " output size")) != -1) {
        if (letter == 'O') {
            format = optarg;
        } else if (letter == 'l') {
            snapshot = optarg;
        } else if (letter != IMG_OPTION_SIZE ||
                   (size = img_parse_size("image size", optarg)) < 0) {
            img_args_clear(&args);
            return EXIT_FAILURE;
        }
    }
    if (args.help_options) {
        ret = img_print_create_options(format);
    } else if (!img_operands(argc, argv, 0, 1)) {
        /* printed */
    } else if ((size >= 0) == (optind < argc)) {
        tool_error("Either --size N or one filename must be specified.");
    } else {
        ret = measure(&args, format, size, argv[optind], snapshot);
    }
    img_args_clear(&args);
    return ret;
}
