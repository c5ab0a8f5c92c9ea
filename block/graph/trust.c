/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Files that images name.
 *
 * Who wrote an image chose the names in it, and may be a stranger.  What he
 * names is opened with our rights, and guests or clients read it as if it was
 * theirs.  The user can do without such names, or keep them in one directory.
 */
#include "block/graph/graph-int.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

void block_graph_set_untrusted(BlockGraph *graph, bool untrusted)
{
    graph->untrusted = untrusted;
}

int block_graph_set_image_root(BlockGraph *graph, const char *directory,
                               GError **errp)
{
    int fd;

    if (directory) {
        fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0) {
            return block_error_errno(errp, errno, "Could not open directory "
                                     "'%s'", directory);
        }
        close(fd);
    }
    g_free(graph->image_root);
    graph->image_root = directory ? g_canonicalize_filename(directory, NULL)
                                  : NULL;
    return 0;
}

int bdrv_check_named_file(const BlockDriverState *bs, const char *name,
                          const char *option, const char **ret_root,
                          GError **errp)
{
    if (bs->graph->untrusted || (bs->open_flags & BDRV_O_UNTRUSTED)) {
        return block_error(errp, EPERM, "Node '%s': its image is not trusted, "
                           "so that '%s', which it names as its %s, is not "
                           "opened; give \"%s\" explicitly", bs->node_name,
                           name, strcmp(option, "backing") == 0
                                     ? "backing file" : "data file", option);
    }
    *ret_root = bs->graph->image_root;
    return 0;
}
