/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Images that take what is written, and go when they are closed.
 *
 * The file has no name any more when it is in use, so it goes with the program
 * however that ends.
 */
#include "tools/tool-overlay.h"

#include <blockgraph/image.h>
#include <errno.h>
#include <glib/gstdio.h>
#include <stdlib.h>
#include <unistd.h>

/* A new file.  Returns its name, to be freed, or NULL with @errp. */
static char *make_file(GError **errp)
{
    const char *dir = getenv("TMPDIR");
    g_autofree char *path = g_strdup_printf("%s/%s-XXXXXX",
                                            dir ? dir : "/var/tmp",
                                            g_get_prgname());
    int fd = g_mkstemp(path);

    if (fd < 0) {
        block_error_errno(errp, errno, "Could not make '%s'", path);
        return NULL;
    }
    close(fd);
    return g_steal_pointer(&path);
}

static BlockOptions *image_at(const char *path)
{
    BlockOptions *options = block_options_new();

    block_options_set_str(options, "driver", "qcow2");
    block_options_set_str(options, "file.driver", "file");
    block_options_set_str(options, "file.filename", path);
    return options;
}

/* The length of the image of @options, or a negative errno. */
static int64_t length_of(BlockGraph *graph, const BlockOptions *options,
                         GError **errp)
{
    BlockDriverState *base = bdrv_open(graph, block_options_clone(options),
                                       errp);
    int64_t length;

    if (!base) {
        return -EINVAL;
    }
    length = bdrv_length(base);
    bdrv_unref(base);
    return length;
}

BlockDriverState *tool_open_overlay(BlockGraph *graph, BlockOptions *options,
                                    GError **errp)
{
    g_autoptr(BlockOptions) below = options;
    int64_t length = length_of(graph, below, errp);
    g_autofree char *path = length < 0 ? NULL : make_file(errp);
    BlockDriverState *bs = NULL;
    BlockOptions *top;

    if (!path) {
        return NULL;
    }
    top = image_at(path);
    block_options_set_int(top, "size", length);
    if (bdrv_create(graph, top, errp) == 0) {
        top = image_at(path);
        block_options_set_str(top, "discard", "unmap");
        block_options_set_tree(top, "backing", g_steal_pointer(&below));
        bs = bdrv_open(graph, top, errp);
    }
    unlink(path);
    return bs;
}
