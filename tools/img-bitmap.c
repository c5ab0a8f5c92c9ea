/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bitmap: change the dirty bitmaps that an image stores.
 *
 * The actions are done in memory, in the order given.  What they leave is
 * stored at the end, each bitmap beside the one that it replaces; only a
 * removal is done at once.  So none is lost by a failure.
 */
#include <blockgraph/dirty-bitmap.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "tools/img-command.h"
#include "tools/tool-print.h"

typedef struct Action {
    int option;          /* IMG_OPTION_ADD ... */
    const char *source;  /* IMG_OPTION_MERGE: name of a bitmap */
} Action;

typedef struct Bitmap {
    ImgArgs args;
    GArray *actions;     /* Action */
    int64_t granularity; /* 0: the default */
    const char *source_file;
    const char *source_format;
    const char *name;
    BlockDriverState *bs;
    BlockDriverState *source_bs;
} Bitmap;

static BdrvDirtyBitmap *find(BlockDriverState *bs, const char *name,
                             GError **errp)
{
    BdrvDirtyBitmap *bitmap = bdrv_find_dirty_bitmap(bs, name);

    if (!bitmap) {
        block_error(errp, ENOENT, "Dirty bitmap '%s' not found", name);
    }
    return bitmap;
}

static int add(const Bitmap *b, GError **errp)
{
    int64_t granularity = b->granularity
                              ? b->granularity
                              : bdrv_default_bitmap_granularity(b->bs);
    BdrvDirtyBitmap *bitmap = bdrv_create_dirty_bitmap(b->bs, granularity,
                                                       b->name, errp);
    int ret;

    if (!bitmap) {
        return -EINVAL;
    }
    ret = bdrv_dirty_bitmap_set_persistence(bitmap, true, errp);
    if (ret < 0) {
        bdrv_release_dirty_bitmap(bitmap);
    }
    return ret;
}

static int merge(const Bitmap *b, BdrvDirtyBitmap *bitmap, const char *name,
                 GError **errp)
{
    BdrvDirtyBitmap *source = find(b->source_bs ? b->source_bs : b->bs, name,
                                   errp);

    return source ? bdrv_merge_dirty_bitmap(bitmap, source, errp) : -ENOENT;
}

static int run_action(const Bitmap *b, const Action *action, GError **errp)
{
    BdrvDirtyBitmap *bitmap;

    if (action->option == IMG_OPTION_ADD) {
        return add(b, errp);
    }
    bitmap = find(b->bs, b->name, errp);
    if (!bitmap) {
        return -ENOENT;
    }
    switch (action->option) {
    case IMG_OPTION_REMOVE:
        return bdrv_remove_dirty_bitmap(bitmap, errp);
    case IMG_OPTION_CLEAR:
        return bdrv_clear_dirty_bitmap(bitmap, errp);
    case IMG_OPTION_ENABLE:
        return bdrv_enable_dirty_bitmap(bitmap, errp);
    case IMG_OPTION_DISABLE:
        return bdrv_disable_dirty_bitmap(bitmap, errp);
    default:
        return merge(b, bitmap, action->source, errp);
    }
}

static const char *action_name(int option)
{
    static const char *const names[] = {
        [IMG_OPTION_ADD - IMG_OPTION_ADD] = "add",
        [IMG_OPTION_REMOVE - IMG_OPTION_ADD] = "remove",
        [IMG_OPTION_CLEAR - IMG_OPTION_ADD] = "clear",
        [IMG_OPTION_ENABLE - IMG_OPTION_ADD] = "enable",
        [IMG_OPTION_DISABLE - IMG_OPTION_ADD] = "disable",
        [IMG_OPTION_MERGE - IMG_OPTION_ADD] = "merge",
    };

    return names[option - IMG_OPTION_ADD];
}

static int run_actions(const Bitmap *b)
{
    for (guint i = 0; i < b->actions->len; i++) {
        const Action *action = &g_array_index(b->actions, Action, i);
        GError *error = NULL;

        if (run_action(b, action, &error) < 0) {
            return img_fail(error, "Operation %s on bitmap %s of '%s' "
                            "failed", action_name(action->option), b->name,
                            bdrv_filename(b->bs));
        }
    }
    return EXIT_SUCCESS;
}

/* --- copies --------------------------------------------------------------- */

bool img_can_keep_bitmaps(BlockDriverState *bs)
{
    const BlockDriver *driver = bdrv_find_driver(bdrv_driver_name(bs));
    g_autoptr(BlockOptions) info = NULL;

    if (!driver->store_bitmaps || bdrv_get_specific_info(bs, &info, NULL) < 0) {
        return false;
    }
    return g_strcmp0(block_options_peek_str(info, "data.compat"), "0.10") != 0;
}

int img_check_bitmaps(BlockDriverState *bs, bool skip_broken)
{
    for (BdrvDirtyBitmap *b = bdrv_dirty_bitmap_next(bs, NULL);
         b && !skip_broken; b = bdrv_dirty_bitmap_next(bs, b)) {
        if (bdrv_dirty_bitmap_inconsistent(b)) {
            g_autofree char *name = tool_safe_text(bdrv_dirty_bitmap_name(b));
            g_autofree char *file = tool_safe_text(bdrv_filename(bs));

            tool_error("Cannot copy inconsistent bitmap '%s' of '%s'\n"
                       "Try --skip-broken-bitmaps, or use '%s bitmap "
                       "--remove' to delete it", name, file, g_get_prgname());
            return -EINVAL;
        }
    }
    return 0;
}

static int copy_bitmap(BdrvDirtyBitmap *from, BlockDriverState *to,
                       GError **errp)
{
    BdrvDirtyBitmap *made = bdrv_create_dirty_bitmap(
        to, bdrv_dirty_bitmap_granularity(from), bdrv_dirty_bitmap_name(from),
        errp);
    int ret;

    if (!made) {
        return -EINVAL;
    }
    ret = bdrv_disable_dirty_bitmap(made, errp);
    if (ret == 0) {
        ret = bdrv_clear_dirty_bitmap(made, errp);
    }
    if (ret == 0) {
        ret = bdrv_merge_dirty_bitmap(made, from, errp);
    }
    if (ret == 0 && bdrv_dirty_bitmap_enabled(from)) {
        ret = bdrv_enable_dirty_bitmap(made, errp);
    }
    if (ret == 0) {
        ret = bdrv_dirty_bitmap_set_persistence(made, true, errp);
    }
    if (ret < 0) {
        bdrv_release_dirty_bitmap(made);
    }
    return ret;
}

int img_copy_bitmaps(BlockDriverState *from, BlockDriverState *to)
{
    for (BdrvDirtyBitmap *b = bdrv_dirty_bitmap_next(from, NULL); b;
         b = bdrv_dirty_bitmap_next(from, b)) {
        GError *error = NULL;

        if (!bdrv_dirty_bitmap_persistent(b)) {
            continue;
        }
        if (bdrv_dirty_bitmap_inconsistent(b)) {
            g_autofree char *name = tool_safe_text(bdrv_dirty_bitmap_name(b));

            tool_warning("Skipping inconsistent bitmap '%s'", name);
        } else if (copy_bitmap(b, to, &error) < 0) {
            img_fail(error, "Failed to create bitmap %s",
                     bdrv_dirty_bitmap_name(b));
            return -EINVAL;
        }
    }
    return 0;
}

/* --- the command ---------------------------------------------------------- */

static int change_bitmap(BlockGraph *graph, Bitmap *b, const char *filename)
{
    BlockBackend *blk = img_open(graph, &b->args, filename,
                                 IMG_OPEN_WRITE | IMG_OPEN_NO_BACKING, NULL);
    const ImgArgs source_args = { .image.format = b->source_format };
    BlockBackend *source = NULL;
    int ret = EXIT_FAILURE;

    if (!blk) {
        return EXIT_FAILURE;
    }
    if (b->source_file) {
        source = img_open(graph, &source_args, b->source_file,
                          IMG_OPEN_ALONE, NULL);
        b->source_bs = source ? blk_bs(source) : NULL;
    }
    b->bs = bdrv_ref(blk_bs(blk));
    if (source || !b->source_file) {
        ret = run_actions(b);
    }
    bdrv_unref(b->bs);
    blk_unref(source);
    return img_close(blk, filename, ret);
}

static bool has_action(const Bitmap *b, int option)
{
    for (guint i = 0; i < b->actions->len; i++) {
        if (g_array_index(b->actions, Action, i).option == option) {
            return true;
        }
    }
    return false;
}

static bool check_command(const Bitmap *b, int argc, char **argv)
{
    if (!img_operands(argc, argv, 2, 2)) {
        return false;
    }
    if (b->actions->len == 0) {
        tool_error("Need at least one of --add, --remove, --clear, --enable, "
                   "--disable, or --merge");
    } else if (b->granularity && !has_action(b, IMG_OPTION_ADD)) {
        tool_error("granularity only supported with --add");
    } else if (b->source_file && !has_action(b, IMG_OPTION_MERGE)) {
        tool_error("Merge bitmap source file only supported with --merge");
    } else if (b->source_format && !b->source_file) {
        tool_error("-F only supported with -b");
    } else {
        return true;
    }
    return false;
}

/* 0 or -EINVAL, printed. */
static int parse_option(Bitmap *b, int letter)
{
    Action action = { .option = letter };

    switch (letter) {
    case 'b':
        b->source_file = optarg;
        return 0;
    case 'F':
        b->source_format = optarg;
        return 0;
    case 'g':
        b->granularity = img_parse_size("granularity", optarg);
        return b->granularity < 0 ? -EINVAL : 0;
    case IMG_OPTION_MERGE:
        action.source = optarg;
        break;
    case IMG_OPTION_ADD:
    case IMG_OPTION_REMOVE:
    case IMG_OPTION_CLEAR:
    case IMG_OPTION_ENABLE:
    case IMG_OPTION_DISABLE:
        break;
    default:
        return -EINVAL;
    }
    g_array_append_val(b->actions, action);
    return 0;
}

int img_bitmap(int argc, char **argv)
{
    g_autoptr(GArray) actions = g_array_new(FALSE, FALSE, sizeof(Action));
    Bitmap b = { .actions = actions };
    BlockGraph *graph;
    int letter, ret;

    while ((letter = img_getopt(&b.args, argc, argv,
                                "f:g:b:F:" IMG_OPENS " add clear disable "
                                "enable granularity merge remove source-file "
                                "source-format")) != -1) {
        if (parse_option(&b, letter) < 0) {
            return EXIT_FAILURE;
        }
    }
    if (!check_command(&b, argc, argv)) {
        return EXIT_FAILURE;
    }
    b.name = argv[optind + 1];
    graph = img_graph();
    ret = change_bitmap(graph, &b, argv[optind]);
    tool_graph_free(graph);
    return ret;
}
