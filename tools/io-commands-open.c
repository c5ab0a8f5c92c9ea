/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * open, close, reopen: which image the other commands work on, and how.
 */
#include "tools/io-command.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>

#include "tools/tool-overlay.h"
#include "tools/tool-print.h"

/* --- open, close ---------------------------------------------------------- */

/* Open the node of @options, or one above it that takes what is written, and
 * put a backend on it. */
static int attach_node(IoSession *io, BlockOptions *options, bool overlay,
                       GError **errp)
{
    BlockDriverState *bs = overlay
        ? tool_open_overlay(io->graph, options, errp)
        : bdrv_open(io->graph, options, errp);
    uint64_t used = BLK_PERM_CONSISTENT_READ;
    BlockPerm perm;
    int ret;

    if (!bs) {
        return -EINVAL;
    }
    if (!bdrv_is_read_only(bs)) {
        used |= BLK_PERM_WRITE;
    }
    perm = io_perm(used);
    io->blk = blk_new(io->graph, "bg-io", &perm);
    io->perm = perm.used;
    ret = blk_insert_bs(io->blk, bs, errp);
    bdrv_unref(bs);     /* the backend holds it now, if it is attached */
    if (ret < 0) {
        blk_unref(io->blk);
        io->blk = NULL;
    }
    return ret;
}

int io_open(IoSession *io, const ToolImage *image, const char *name,
            BlockOptions *extra)
{
    g_autoptr(BlockOptions) owned = extra;
    bool overlay = image->snapshot && !image->read_only;
    ToolImage below = *image;
    g_autofree char *prefix = NULL;
    GError *error = NULL;
    BlockOptions *options;
    bool guess;
    int ret;

    if (io->blk) {
        tool_error("file open already, try 'help close'");
        return -EBUSY;
    }
    below.read_only |= overlay;
    options = tool_image_options(&below, name, owned, &guess, &error);
    ret = options ? attach_node(io, options, overlay, &error) : -EINVAL;
    if (ret < 0) {
        prefix = name && !image->image_opts ?
                 g_strdup_printf("can't open device %s", name) :
                 g_strdup("can't open");
        tool_report(error, prefix);
        return ret;
    }
    if (guess) {
        fflush(stdout);
        fprintf(stderr, "WARNING: no format was given for '%s': it is taken "
                "as raw, whatever it holds.\n"
                "         Images are not probed; name the format with -f or "
                "driver= (raw silences this).\n", name);
    }
    blk_set_write_through(io->blk, image->write_through);
    return 0;
}

void io_close(IoSession *io)
{
    AioContext *ctx = block_graph_aio_context(io->graph);

    if (!io->blk) {
        return;
    }
    io_resume_all(io); /* else we would wait for them for ever */
    while (io->nr_aio > 0) {
        aio_poll(ctx, true);
    }
    blk_unref(io->blk);
    io->blk = NULL;
    io->perm = 0;
    g_hash_table_remove_all(io->told);
}

static int close_run(IoSession *io, int argc, char **argv)
{
    io_close(io);
    return 0;
}

/* Add the options of the text after -o. */
static int parse_extra(BlockOptions **extra, const char *text)
{
    GError *error = NULL;
    BlockOptions *more = block_options_parse_keyval(text, NULL, &error);

    if (!more) {
        tool_report(error, NULL);
        return -EINVAL;
    }
    if (*extra) {
        block_options_merge(more, *extra);
        block_options_free(*extra);
    }
    *extra = more;
    return 0;
}

static int bad_mode(const char *what)
{
    tool_error("Invalid %s option: %s", what, optarg);
    return -EINVAL;
}

int io_image_option(ToolImage *image, int letter)
{
    switch (letter) {
    case 'C':
        image->copy_on_read = true;
        return 0;
    case 'd':
        return tool_image_set_discard(image, optarg) < 0 ?
               bad_mode("discard") : 0;
    case 'i':
        return tool_image_set_aio(image, optarg) < 0 ? bad_mode("aio") : 0;
    case 'k':
        return tool_image_set_aio(image, "native");
    case 'n':
        return tool_image_set_cache(image, "none");
    case 'r':
        image->read_only = true;
        return 0;
    case 's':
        image->snapshot = true;
        return 0;
    case 't':
        return tool_image_set_cache(image, optarg) < 0 ? bad_mode("cache") : 0;
    case 'U':
        image->force_share = true;
        return 0;
    default:
        return 1;
    }
}

static int open_run(IoSession *io, int argc, char **argv)
{
    g_autoptr(BlockOptions) extra = NULL;
    ToolImage image = { .unmap = true };
    int letter;

    io_getopt_start();
    while ((letter = getopt(argc, argv, "Ci:d:kno:rst:U")) != -1) {
        int ret = letter == 'o' ? parse_extra(&extra, optarg) :
                                  io_image_option(&image, letter);

        if (ret != 0) {
            return ret < 0 ? ret : io_command_usage(argv[0]);
        }
    }
    if (optind < argc - 1 || (optind == argc && argc == 1)) {
        return io_command_usage(argv[0]);
    }
    return io_open(io, &image, optind < argc ? argv[optind] : NULL,
                   g_steal_pointer(&extra));
}

/* --- reopen --------------------------------------------------------------- */

typedef struct Reopen {
    BlockOptions *options;
    int read_only;      /* 1: -r, 0: -w, -1: nothing was said */
    bool has_cache;
    ToolImage cache;
} Reopen;

static int reopen_option(Reopen *re, int letter)
{
    switch (letter) {
    case 'c':
        if (tool_image_set_cache(&re->cache, optarg) < 0) {
            return bad_mode("cache");
        }
        re->has_cache = true;
        return 0;
    case 'o':
        return parse_extra(&re->options, optarg);
    case 'r':
    case 'w':
        if (re->read_only >= 0) {
            tool_error("Only one -r/-w option may be given");
            return -EINVAL;
        }
        re->read_only = letter == 'r';
        return 0;
    default:
        return 1;
    }
}

/* Bring -r, -w and -c into the options. */
static int reopen_complete(Reopen *re)
{
    if (!re->options) {
        re->options = block_options_new();
    }
    if (re->read_only >= 0) {
        if (block_options_has(re->options, "read-only")) {
            tool_error("Cannot set both -r/-w and 'read-only'");
            return -EINVAL;
        }
        block_options_set_bool(re->options, "read-only", re->read_only);
    }
    if (re->has_cache) {
        if (block_options_has(re->options, "cache")) {
            tool_error("Cannot set both -c and the cache options");
            return -EINVAL;
        }
        block_options_set_bool(re->options, "cache.direct",
                               re->cache.nocache);
        block_options_set_bool(re->options, "cache.no-flush",
                               re->cache.no_flush);
    }
    return 0;
}

/*
 * A node that shall become read-only must have no writer, so the permissions
 * to write go first; the next command that writes takes them again.
 */
static int reopen_node(IoSession *io, Reopen *re)
{
    uint64_t before = io->perm;
    GError *error = NULL;
    int ret = io_set_perm(io, BLK_PERM_CONSISTENT_READ, &error);

    if (ret == 0) {
        ret = bdrv_reopen(blk_bs(io->blk), g_steal_pointer(&re->options),
                          &error);
    }
    if (ret == 0 && re->has_cache) {
        blk_set_write_through(io->blk, re->cache.write_through);
    }
    if (ret < 0) {
        tool_report(error, NULL);
    }
    if (!bdrv_is_read_only(blk_bs(io->blk)) && io->perm != before) {
        io_set_perm(io, before, NULL);      /* else when it is needed */
    }
    return ret;
}

static int reopen_run(IoSession *io, int argc, char **argv)
{
    Reopen re = { .read_only = -1 };
    int letter;
    int ret = 0;

    io_getopt_start();
    while (ret == 0 && (letter = getopt(argc, argv, "c:o:rw")) != -1) {
        ret = reopen_option(&re, letter);
    }
    if (ret > 0 || (ret == 0 && optind != argc)) {
        ret = io_command_usage(argv[0]);
    }
    if (ret == 0) {
        ret = reopen_complete(&re);
    }
    if (ret == 0) {
        ret = reopen_node(io, &re);
    }
    block_options_free(re.options);
    return ret;
}

const IoCommand io_commands_open[] = {
    { .name = "open", .alt_name = "o", .run = open_run,
      .args_min = 1, .args_max = IO_ARGS_ANY, .no_file_ok = true,
      .args = "[-rsCnkU] [-t cache] [-d discard] [-o options] [path]",
      .oneline = "open the file specified by path",
      .help =
      " Opens an image for the commands that follow.\n"
      "\n"
      "   open -n -o driver=raw /srv/data   a raw image, past the page cache\n"
      "\n"
      " -r  read-only\n"
      " -n  past the page cache; the same as -t none\n"
      " -U  even while others write; needs -r\n"
      " -k  the same as -i native\n"
      " -i  how files are read: threads, native or io_uring\n"
      " -t  cache mode: none, writeback, writethrough, directsync, unsafe\n"
      " -d  what a discard does: unmap (the default) or ignore\n"
      " -o  options of the node, key=value,...\n"
      " -C  copy what is read from backing files into the image\n"
      " -s  writes go to a temporary file, which goes when the image is closed\n" },
    { .name = "close", .alt_name = "c", .run = close_run,
      .oneline = "close the current open file" },
    { .name = "reopen", .run = reopen_run, .args_max = IO_ARGS_ANY,
      .args = "[(-r|-w)] [-c cache] [-o options]",
      .oneline = "reopens an image with new options",
      .help =
      " Changes options of the open image; the others stay as they are.\n"
      "\n"
      "   reopen -o discard=unmap           let discards through\n"
      "\n"
      " -r  read-only\n"
      " -w  read-write\n"
      " -c  cache mode\n"
      " -o  options of the node, key=value,...\n" },
    { 0 },
};
