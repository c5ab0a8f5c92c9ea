/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * snapshot and bitmap: what an image holds beside its content.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tools/img-command.h"
#include "tools/tool-print.h"

/* --- snapshot ------------------------------------------------------------- */

static int list_snapshots(BlockDriverState *bs)
{
    GPtrArray *list = NULL;
    GError *error = NULL;

    if (bdrv_snapshot_list(bs, &list, &error) < 0) {
        return img_fail(error, "Could not list snapshots");
    }
    if (list->len > 0) {
        img_print_snapshots(list);
    }
    g_ptr_array_unref(list);
    return EXIT_SUCCESS;
}

static int create_snapshot(BlockDriverState *bs, const char *name)
{
    BdrvSnapshotInfo info = { .name = (char *)name, .icount = UINT64_MAX };
    struct timespec now;
    GError *error = NULL;

    clock_gettime(CLOCK_REALTIME, &now);
    info.date_sec = now.tv_sec;
    info.date_nsec = now.tv_nsec;
    info.icount = 0;
    return bdrv_snapshot_create(bs, &info, &error) < 0
               ? img_fail(error, "Could not create snapshot '%s'", name)
               : EXIT_SUCCESS;
}

/* Delete the snapshot of that ID or, if there is none, of that name. */
static int delete_snapshot(BlockDriverState *bs, const char *name)
{
    GPtrArray *list = NULL;
    GError *error = NULL;
    bool is_id = false;
    int ret = bdrv_snapshot_list(bs, &list, &error);

    for (guint i = 0; ret == 0 && i < list->len; i++) {
        const BdrvSnapshotInfo *info = g_ptr_array_index(list, i);

        is_id = is_id || g_str_equal(info->id, name);
    }
    if (ret == 0) {
        g_ptr_array_unref(list);
        ret = bdrv_snapshot_delete(bs, is_id ? name : NULL,
                                   is_id ? NULL : name, &error);
    }
    return ret < 0 ? img_fail(error, "Could not delete snapshot '%s'", name)
                   : EXIT_SUCCESS;
}

static int goto_snapshot(BlockDriverState *bs, const char *name)
{
    GError *error = NULL;

    return bdrv_snapshot_goto(bs, name, &error) < 0
               ? img_fail(error, "Could not apply snapshot '%s'", name)
               : EXIT_SUCCESS;
}

static int run_action(BlockDriverState *bs, int action, const char *name)
{
    switch (action) {
    case 'a':
        return goto_snapshot(bs, name);
    case 'c':
        return create_snapshot(bs, name);
    case 'd':
        return delete_snapshot(bs, name);
    default:
        return list_snapshots(bs);
    }
}

int img_snapshot(int argc, char **argv)
{
    ImgArgs args = { 0 };
    const char *name = NULL;
    BlockGraph *graph;
    BlockBackend *blk;
    int letter, action = 0, ret = EXIT_FAILURE;

    while ((letter = img_getopt(&args, argc, argv, "f:la:c:d:qU")) != -1) {
        if (letter != 'l' && letter != 'a' && letter != 'c' && letter != 'd') {
            return EXIT_FAILURE;
        }
        if (action) {
            tool_error("Cannot mix '-l', '-a', '-c', '-d'");
            return EXIT_FAILURE;
        }
        action = letter;
        name = optarg;
    }
    if (!img_operands(argc, 1, 1)) {
        return EXIT_FAILURE;
    }
    graph = img_graph();
    blk = img_open(graph, &args, argv[optind],
                   IMG_OPEN_NO_BACKING |
                       (action == 0 || action == 'l' ? 0 : IMG_OPEN_WRITE),
                   NULL);
    if (blk) {
        ret = run_action(blk_bs(blk), action, name);
        blk_unref(blk);
    }
    block_graph_free(graph);
    return ret;
}

/* --- bitmap --------------------------------------------------------------- */

/* The bitmap @name in @bs; NULL, @errp set, if there is none. */
static BdrvStoredBitmap *find_bitmap(BlockDriverState *bs, const char *name,
                                     GError **errp)
{
    GPtrArray *list = NULL;
    BdrvStoredBitmap *found = NULL;

    if (bdrv_stored_bitmap_list(bs, &list, errp) < 0) {
        return NULL;
    }
    for (guint i = 0; i < list->len && !found; i++) {
        BdrvStoredBitmap *bitmap = g_ptr_array_index(list, i);

        if (g_str_equal(bitmap->name, name)) {
            found = g_new(BdrvStoredBitmap, 1);
            *found = *bitmap;
            found->name = g_strdup(name);
        }
    }
    if (!found) {
        block_error(errp, ENOENT, "Dirty bitmap '%s' not found", name);
    }
    g_ptr_array_unref(list);
    return found;
}

/* Clear by storing an empty one anew. */
static int clear_bitmap(BlockDriverState *bs, const char *name, GError **errp)
{
    BdrvStoredBitmap *bitmap = find_bitmap(bs, name, errp);
    int ret;

    if (!bitmap) {
        return -ENOENT;
    }
    if (bitmap->inconsistent) {
        ret = block_error(errp, EINVAL, "Bitmap '%s' is inconsistent and "
                          "cannot be used; try to remove it", name);
    } else if (!bitmap->autoload) {
        ret = block_error(errp, ENOTSUP, "Bitmap '%s' is disabled: this "
                          "version clears only enabled ones", name);
    } else {
        ret = bdrv_stored_bitmap_remove(bs, name, errp);
        if (ret == 0) {
            ret = bdrv_stored_bitmap_add(bs, name, bitmap->granularity, errp);
        }
    }
    bdrv_stored_bitmap_free(bitmap);
    return ret;
}

typedef struct Bitmap {
    GArray *actions;     /* int: IMG_OPTION_ADD ... */
    int64_t granularity; /* 0: the default */
} Bitmap;

static int64_t default_granularity(BlockDriverState *bs)
{
    BlockDriverInfo info;

    if (bdrv_get_info(bs, &info) == 0 && info.cluster_bytes > 0) {
        return CLAMP(info.cluster_bytes, 4096, 65536);
    }
    return 65536;
}

static int run_bitmap(BlockDriverState *bs, const Bitmap *b, const char *name)
{
    GError *error = NULL;
    int ret = 0;

    for (guint i = 0; ret == 0 && i < b->actions->len; i++) {
        const char *what;

        switch (g_array_index(b->actions, int, i)) {
        case IMG_OPTION_ADD:
            what = "add";
            ret = bdrv_stored_bitmap_add(bs, name, b->granularity
                                         ? b->granularity
                                         : default_granularity(bs), &error);
            break;
        case IMG_OPTION_REMOVE:
            what = "remove";
            ret = bdrv_stored_bitmap_remove(bs, name, &error);
            break;
        case IMG_OPTION_CLEAR:
            what = "clear";
            ret = clear_bitmap(bs, name, &error);
            break;
        default:
            what = "enable, disable or merge";
            ret = block_error(&error, ENOTSUP, "This version cannot do it");
            break;
        }
        if (ret < 0) {
            img_fail(error, "Operation %s on bitmap %s failed", what, name);
        }
    }
    return ret < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int open_bitmap(const ImgArgs *args, const Bitmap *b, char **operands)
{
    BlockGraph *graph = img_graph();
    BlockBackend *blk = img_open(graph, args, operands[0],
                                 IMG_OPEN_WRITE | IMG_OPEN_NO_BACKING, NULL);
    int ret = EXIT_FAILURE;

    if (blk) {
        ret = run_bitmap(blk_bs(blk), b, operands[1]);
        blk_unref(blk);
    }
    block_graph_free(graph);
    return ret;
}

int img_bitmap(int argc, char **argv)
{
    ImgArgs args = { 0 };
    g_autoptr(GArray) actions = g_array_new(FALSE, FALSE, sizeof(int));
    Bitmap b = { .actions = actions };
    int letter;

    while ((letter = img_getopt(&args, argc, argv, "f:g:b:F:")) != -1) {
        if (letter == 'g') {
            b.granularity = img_parse_size(optarg);
            if (b.granularity < 0) {
                return EXIT_FAILURE;
            }
        } else if (letter >= IMG_OPTION_ADD && letter <= IMG_OPTION_MERGE) {
            g_array_append_val(actions, letter);
        } else {
            return EXIT_FAILURE;
        }
    }
    if (!img_operands(argc, 2, 2)) {
        return EXIT_FAILURE;
    }
    if (actions->len == 0) {
        tool_error("Need at least one of --add, --remove, --clear, --enable, "
                   "--disable, or --merge");
        return EXIT_FAILURE;
    }
    return open_bitmap(&args, &b, argv + optind);
}
