/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * snapshot: earlier states that an image holds beside its content.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tools/img-command.h"
#include "tools/tool-print.h"

static int list_snapshots(BlockDriverState *bs)
{
    GPtrArray *list = NULL;
    GError *error = NULL;

    int ret = bdrv_snapshot_list(bs, &list, &error);

    if (ret == -ENOTSUP) {
        g_error_free(error); /* such an image has none */
        return EXIT_SUCCESS;
    }
    if (ret < 0) {
        return img_fail(error, "Could not list snapshots of '%s'",
                        bdrv_filename(bs));
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
               ? img_fail(error, "Could not create snapshot '%s' of '%s'", name,
                          bdrv_filename(bs))
               : EXIT_SUCCESS;
}

/* By name alone, as qemu-img has it: a name may look like another one's ID. */
static int delete_snapshot(BlockDriverState *bs, const char *name)
{
    GError *error = NULL;

    return bdrv_snapshot_delete(bs, NULL, name, &error) < 0
               ? img_fail(error, "Could not delete snapshot '%s' of '%s'",
                          name, bdrv_filename(bs))
               : EXIT_SUCCESS;
}

static int goto_snapshot(BlockDriverState *bs, const char *name)
{
    GError *error = NULL;

    return bdrv_snapshot_goto(bs, name, &error) < 0
               ? img_fail(error, "Could not apply snapshot '%s' of '%s'", name,
                          bdrv_filename(bs))
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

    while ((letter = img_getopt(&args, argc, argv,
                                "f:la:c:d:qU" IMG_OPENS)) != -1) {
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
    if (!img_operands(argc, argv, 1, 1)) {
        return EXIT_FAILURE;
    }
    graph = img_graph();
    blk = img_open(graph, &args, argv[optind],
                   action == 0 || action == 'l'
                       ? IMG_OPEN_ALONE
                       : IMG_OPEN_WRITE | IMG_OPEN_NO_BACKING, NULL);
    if (blk) {
        ret = img_close(blk, argv[optind],
                        run_action(blk_bs(blk), action, name));
    }
    tool_graph_free(graph);
    return ret;
}
