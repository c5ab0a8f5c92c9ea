/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the commands of bg-img share: options, opening, numbers.
 *
 * This is the one place where the format of an image is guessed, for a person
 * who did not say it.  What a guessed raw disk holds is its guest's: it could
 * look like anything the next time, so that it was taken as raw is told.
 */
#include "tools/img-command.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tools/tool-name.h"
#include "tools/tool-print.h"

/* Of all commands. */
static const struct option long_options[] = {
    { "add", no_argument, NULL, IMG_OPTION_ADD },
    { "backing-chain", no_argument, NULL, IMG_OPTION_BACKING_CHAIN },
    { "bitmaps", no_argument, NULL, IMG_OPTION_BITMAPS },
    { "clear", no_argument, NULL, IMG_OPTION_CLEAR },
    { "disable", no_argument, NULL, IMG_OPTION_DISABLE },
    { "enable", no_argument, NULL, IMG_OPTION_ENABLE },
    { "flush-interval", required_argument, NULL, IMG_OPTION_FLUSH_INTERVAL },
    { "force", no_argument, NULL, IMG_OPTION_FORCE },
    { "force-share", no_argument, NULL, 'U' },
    { "format", required_argument, NULL, 'f' },
    { "granularity", required_argument, NULL, 'g' },
    { "image-opts", no_argument, NULL, IMG_OPTION_IMAGE_OPTS },
    { "image-timeout", required_argument, NULL, IMG_OPTION_IMAGE_TIMEOUT },
    { "max-length", required_argument, NULL, IMG_OPTION_MAX_LENGTH },
    { "merge", required_argument, NULL, IMG_OPTION_MERGE },
    { "no-drain", no_argument, NULL, IMG_OPTION_NO_DRAIN },
    { "object", required_argument, NULL, IMG_OPTION_OBJECT },
    { "output", required_argument, NULL, IMG_OPTION_OUTPUT },
    { "pattern", required_argument, NULL, IMG_OPTION_PATTERN },
    { "preallocation", required_argument, NULL, IMG_OPTION_PREALLOCATION },
    { "remove", no_argument, NULL, IMG_OPTION_REMOVE },
    { "repair", required_argument, NULL, 'r' },
    { "salvage", no_argument, NULL, IMG_OPTION_SALVAGE },
    { "shrink", no_argument, NULL, IMG_OPTION_SHRINK },
    { "size", required_argument, NULL, IMG_OPTION_SIZE },
    { "skip-broken-bitmaps", no_argument, NULL, IMG_OPTION_SKIP_BROKEN_BITMAPS },
    { "source-file", required_argument, NULL, 'b' },
    { "source-format", required_argument, NULL, 'F' },
    { "start-offset", required_argument, NULL, IMG_OPTION_START_OFFSET },
    { "target-image-opts", no_argument, NULL, IMG_OPTION_TARGET_IMAGE_OPTS },
    { "target-is-zero", no_argument, NULL, IMG_OPTION_TARGET_IS_ZERO },
    { NULL, 0, NULL, 0 },
};

int img_add_options(ImgArgs *args, const char *text)
{
    BlockOptions *more;
    GError *error = NULL;

    if (g_str_equal(text, "help") || g_str_equal(text, "?")) {
        args->help_options = true;
        return 0;
    }
    if (!*text) {
        tool_error("Invalid option list: %s", text);
        return -EINVAL;
    }
    more = block_options_parse_keyval(text, NULL, &error);
    if (!more) {
        tool_report(error, "Invalid option list");
        return -EINVAL;
    }
    if (args->options) {
        block_options_merge(more, args->options);
        block_options_free(args->options);
    }
    args->options = more;
    return 0;
}

int img_set_cache(ToolImage *image, const char *mode)
{
    int ret = tool_image_set_cache(image, mode);

    if (ret < 0) {
        tool_error("Invalid cache option: %s", mode);
    }
    return ret;
}

/* The options that most commands have.  0; -1: printed; 1: not one of them. */
static int common_option(ImgArgs *args, int letter)
{
    switch (letter) {
    case 'f':
        args->image.format = optarg;
        return 0;
    case 'o':
        if (args->own_o) {
            return 1;
        }
        return img_add_options(args, optarg) < 0 ? -1 : 0;
    case 'p':
        args->progress = true;
        return 0;
    case 'q':
        args->quiet = true;
        return 0;
    case 't':
        if (args->two_caches) {
            return 1;
        }
        return img_set_cache(&args->image, optarg) < 0 ? -1 : 0;
    case 'U':
        args->image.force_share = true;
        return 0;
    case IMG_OPTION_IMAGE_OPTS:
        args->image.image_opts = true;
        return 0;
    case IMG_OPTION_IMAGE_TIMEOUT:
        return tool_graph_set_image_timeout(optarg) < 0 ? -1 : 0;
    case IMG_OPTION_OBJECT:
        tool_objects_take(optarg);
        return 0;
    case IMG_OPTION_OUTPUT:
        args->json = g_str_equal(optarg, "json");
        if (!args->json && !g_str_equal(optarg, "human")) {
            tool_error("--output must be used with human or json as "
                       "argument.");
            return -1;
        }
        return 0;
    default:
        return 1;
    }
}

/* Whether @name is one of the words behind the letters in @known. */
static bool is_known(const char *known, const char *name)
{
    g_auto(GStrv) words = g_strsplit(known, " ", -1);

    return words[0] && g_strv_contains((const char *const *)words + 1, name);
}

/* Those long options that are in @known.  A letter for what is opened even
 * while others write has the long name as well. */
static void find_long_options(const char *known,
                              struct option ret[G_N_ELEMENTS(long_options)])
{
    size_t letters = strcspn(known, " ");
    bool share = memchr(known, 'U', letters) != NULL;
    int nr = 0;

    for (const struct option *o = long_options; o->name; o++) {
        if (is_known(known, o->name) || (o->val == 'U' && share)) {
            ret[nr++] = *o;
        }
    }
    ret[nr] = (struct option) { 0 };
}

/* getopt_long() with messages of our own, as its begin with the command, not
 * with the name of the program. */
static int next_option(int argc, char **argv, const char *known)
{
    g_autofree char *letters = g_strndup(known, strcspn(known, " "));
    g_autofree char *quiet = g_strconcat(":", letters, NULL);
    struct option longs[G_N_ELEMENTS(long_options)];
    g_autofree char *name = NULL;
    int before = optind, letter;

    find_long_options(known, longs);
    letter = getopt_long(argc, argv, quiet, longs, NULL);
    if (letter != '?' && letter != ':') {
        return letter;
    }
    /* Inside of letters that are given together it stays where it is. */
    name = g_strdup(argv[optind > before ? optind - 1 : optind]);
    if (!g_str_has_prefix(name, "--")) {
        g_free(name);
        name = g_strdup_printf("-%c", optopt);
    }
    tool_usage_error(letter == ':' ? "missing argument for option '%s'"
                                   : "unrecognized option '%s'", name);
    return '?';
}

int img_getopt(ImgArgs *args, int argc, char **argv, const char *known)
{
    int letter;

    while ((letter = next_option(argc, argv, known)) != -1) {
        int ret = letter == '?' ? -1 : common_option(args, letter);

        if (ret != 0) {
            return ret < 0 ? '?' : letter; /* that was printed */
        }
    }
    if (args->image.format && args->image.image_opts) {
        tool_error("--image-opts and --format are mutually exclusive");
        return '?';
    }
    args->progress &= !args->quiet;
    return -1;
}

void img_args_clear(ImgArgs *args)
{
    block_options_free(args->options);
    args->options = NULL;
}

bool img_operands(int argc, char **argv, int nr_min, int nr_max)
{
    int nr = argc - optind;

    if (nr < nr_min) {
        tool_usage_error("Expecting %s", nr_min == 1 ? "one image file name"
                                                     : "more arguments");
    } else if (nr > nr_max) {
        tool_usage_error("Unexpected argument: %s", argv[optind + nr_max]);
    }
    return nr >= nr_min && nr <= nr_max;
}

BlockGraph *img_graph(void)
{
    BlockGraph *graph = tool_graph_new(0);

    if (!graph) {
        exit(EXIT_FAILURE);
    }
    return graph;
}

int img_fail(GError *error, const char *fmt, ...)
{
    g_autofree char *prefix = NULL, *safe = NULL;
    va_list args;

    va_start(args, fmt);
    prefix = g_strdup_vprintf(fmt, args);
    va_end(args);
    safe = tool_safe_text(prefix);
    tool_report(error, safe);
    return EXIT_FAILURE;
}

/* --- opening -------------------------------------------------------------- */

/* Whether nodes of driver @format have an option @name. */
static bool has_option(const char *format, const char *name)
{
    const BlockDriver *driver = format ? bdrv_find_driver(format) : NULL;

    for (const BlockOption *o = driver ? driver->options : NULL;
         o && o->type != BLOCK_OPTION_END; o++) {
        if (g_str_equal(o->name, name)) {
            return true;
        }
    }
    return false;
}

/* The image of @options without what it names as @child, unless they say what
 * that is. */
static void leave_out(BlockOptions *options, const char *child)
{
    const char *driver = block_options_peek_str(options, "driver");

    if (has_option(driver, child) && !block_options_has(options, child)) {
        g_autofree char *json = g_strdup_printf("{\"%s\": null}", child);
        g_autoptr(BlockOptions) none = block_options_parse_json(json, NULL);

        block_options_merge(options, none);
    }
}

/*
 * Guess the format that was not given.  A guess that a disk is raw is good for
 * as long as nobody writes to it: what is written could make it look like
 * another format, with a backing file, to whoever guesses next.  To change its
 * length writes nothing but zeroes.
 */
static void guess_format(ToolImage *image, const char *name, unsigned flags)
{
    if (image->format || image->image_opts ||
        (!image->plain_name && g_str_has_prefix(name, "json:"))) {
        return;
    }
    image->format = tool_guess_format(name, image->plain_name);
    if (!image->read_only && !(flags & IMG_OPEN_RESIZE) &&
        !g_strcmp0(image->format, "raw") &&
        (image->plain_name || !tool_has_no_content(name))) {
        tool_warning("'%s' is opened read-only; with -f raw it can be written.",
                     name);
        image->read_only = true;
    }
}

BlockBackend *img_open(BlockGraph *graph, const ImgArgs *args,
                       const char *name, unsigned flags, BlockOptions *extra)
{
    ToolImage image = args->image;
    g_autoptr(BlockOptions) more = extra ? extra : block_options_new();
    BlockOptions *options;
    BlockBackend *blk = NULL;
    GError *error = NULL;
    bool guess;

    image.read_only = !(flags & (IMG_OPEN_WRITE | IMG_OPEN_RESIZE));
    image.plain_name |= (flags & IMG_OPEN_PLAIN_NAME) != 0;
    guess_format(&image, name, flags);
    options = tool_image_options(&image, name, more, &guess, &error);
    if (options && (flags & IMG_OPEN_NO_BACKING)) {
        leave_out(options, "backing");
    }
    if (options && (flags & IMG_OPEN_NO_DATA)) {
        leave_out(options, "data-file");
    }
    if (options) {
        blk = blk_open(graph, options, &error);
    }
    if (!blk) {
        img_fail(error, "Could not open '%s'", name);
        return NULL;
    }
    blk_set_write_through(blk, image.write_through);
    return blk;
}

int img_keep_writers_out(BlockBackend *src, const ImgArgs *args,
                         const char *name)
{
    const BlockPerm perm = {
        .used = BLK_PERM_CONSISTENT_READ,
        .shared = BLK_PERM_ALL & ~(BLK_PERM_WRITE | BLK_PERM_RESIZE),
    };
    GError *error = NULL;
    int ret = args->image.force_share ? 0 : blk_set_perm(src, &perm, &error);

    if (ret < 0) {
        img_fail(error, "Could not open '%s'", name);
    }
    return ret;
}

int img_settle(BlockDriverState *bs, const char *name)
{
    BlockOptions *options;
    GError *error = NULL;

    if (bdrv_is_read_only(bs)) {
        return EXIT_SUCCESS;
    }
    options = block_options_new();
    block_options_set_bool(options, "read-only", true);
    return bdrv_reopen(bs, options, &error) < 0
               ? img_fail(error, "Could not complete '%s'", name)
               : EXIT_SUCCESS;
}

int img_close(BlockBackend *blk, const char *name, int status)
{
    BlockDriverState *bs = blk ? bdrv_ref(blk_bs(blk)) : NULL;

    blk_unref(blk);
    if (bs && status == EXIT_SUCCESS) {
        status = img_settle(bs, name);
    }
    bdrv_unref(bs);
    return status;
}

int64_t img_length(BlockBackend *blk, const char *name)
{
    int64_t length = blk_getlength(blk);

    if (length < 0) {
        tool_error("Could not get the length of '%s': %s", name,
                   g_strerror(-length));
        return -1;
    }
    return length;
}

BlockOptions *img_file_tree(const char *driver, const char *filename)
{
    BlockOptions *options = block_options_new();

    block_options_set_str(options, "driver", driver);
    block_options_set_str(options, "file.driver", "file");
    block_options_set_str(options, "file.filename", filename);
    return options;
}

/* --- numbers -------------------------------------------------------------- */

int64_t img_parse_size(const char *what, const char *text)
{
    int64_t bytes;
    int ret = block_parse_size(text, &bytes);

    if (ret == 0) {
        return bytes;
    }
    if (ret == -ERANGE && !strchr(text, '-')) {
        tool_error("Invalid %s specified. Must be between 0 and %"
                   G_GINT64_FORMAT ".", what, G_MAXINT64);
    } else {
        tool_error("Invalid %s specified. You may use k, M, G, T, P or E "
                   "suffixes for\n"
                   "%s: kilobytes, megabytes, gigabytes, terabytes, "
                   "petabytes and exabytes.", what, g_get_prgname());
    }
    return -1;
}

char *img_size_text(int64_t bytes)
{
    static const char *const units[] = { "", "Ki", "Mi", "Gi", "Ti", "Pi",
                                         "Ei" };
    double value = bytes;
    int unit;

    /* From 1000 on the next unit is used, so three digits do. */
    frexp(value / (1000.0 / 1024.0), &unit);
    unit = (unit - 1) / 10;
    unit = CLAMP(unit, 0, (int)G_N_ELEMENTS(units) - 1);
    return g_strdup_printf("%.3g %sB", ldexp(value, -10 * unit), units[unit]);
}

static void print_snapshot(const BdrvSnapshotInfo *info)
{
    g_autofree char *vm_size = img_size_text(info->vm_state_bytes);
    g_autofree char *id = tool_safe_text(info->id);
    g_autofree char *name = tool_safe_text(info->name);
    char date[32], clock[40], icount[24] = "";
    time_t when = info->date_sec;
    uint64_t ms = info->vm_clock_ns / 1000000;
    struct tm tm;

    localtime_r(&when, &tm);
    strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &tm);
    snprintf(clock, sizeof(clock), "%02" G_GUINT64_FORMAT ":%02u:%02u.%03u",
             ms / 3600000, (unsigned)(ms / 60000 % 60),
             (unsigned)(ms / 1000 % 60), (unsigned)(ms % 1000));
    if (info->icount != UINT64_MAX) {
        snprintf(icount, sizeof(icount), "%" G_GUINT64_FORMAT, info->icount);
    }
    printf("%-9s %-16s %8s%20s%13s%11s\n", id, name, vm_size, date, clock, icount);
}

void img_print_snapshots(const GPtrArray *list)
{
    printf("Snapshot list:\n");
    printf("%-9s %-16s %8s%20s%13s%11s\n", "ID", "TAG", "VM SIZE", "DATE",
           "VM CLOCK", "ICOUNT");
    for (guint i = 0; i < list->len; i++) {
        print_snapshot(g_ptr_array_index(list, i));
    }
}
