/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From the name of an image to the options of its node.
 *
 * Only the prefixes below mean anything: a file may have any other name with a
 * colon, and "./" or "file:" in front makes a path of whatever follows.
 */
#include "tools/tool-name.h"

#include <errno.h>
#include <string.h>

#include "tools/tool-nbd-uri.h"

#define FILE_PREFIX "file:"
#define JSON_PREFIX "json:"
#define DEBUG_PREFIX "blkdebug:"
#define NULL_NAME "null-co://"

/* The library refuses deeper trees anyway. */
#define TOOL_NAME_DEPTH_MAX 64

/* What "blkdebug:CONFIG:" is on, or NULL without a second colon. */
static const char *below_debug(const char *name)
{
    const char *colon = strchr(name + strlen(DEBUG_PREFIX), ':');

    return colon ? colon + 1 : NULL;
}

const char *tool_file_path(const char *name)
{
    const char *below = name;

    while (below && g_str_has_prefix(below, DEBUG_PREFIX)) {
        below = below_debug(below);
    }
    if (!below || tool_is_no_file(below)) {
        return name;
    }
    return g_str_has_prefix(below, FILE_PREFIX) ? below + strlen(FILE_PREFIX)
                                                : below;
}

bool tool_has_no_content(const char *name)
{
    return g_str_equal(name, NULL_NAME) || tool_is_nbd_name(name);
}

bool tool_is_no_file(const char *name)
{
    return g_str_has_prefix(name, JSON_PREFIX) ||
           g_str_has_prefix(name, DEBUG_PREFIX) ||
           g_str_equal(name, NULL_NAME) || tool_is_nbd_name(name);
}

/* How many filters @name begins with. */
static unsigned count_debug(const char *name)
{
    unsigned n = 0;

    while (name && g_str_has_prefix(name, DEBUG_PREFIX)) {
        name = below_debug(name);
        n++;
    }
    return n;
}

static BlockOptions *debug_options(const char *name, GError **errp)
{
    const char *config = name + strlen(DEBUG_PREFIX);
    const char *below = below_debug(name);
    BlockOptions *options;
    BlockOptions *image;

    if (!below) {
        block_error(errp, EINVAL, "'%s' is not blkdebug:CONFIG:NAME", name);
        return NULL;
    }
    if (count_debug(name) > TOOL_NAME_DEPTH_MAX) {
        block_error(errp, E2BIG, "Too many filters in one name: there may be "
                    "%d", TOOL_NAME_DEPTH_MAX);
        return NULL;
    }
    image = tool_name_options(below, errp);
    if (!image) {
        return NULL;
    }
    options = block_options_new();
    block_options_set_str(options, "driver", "blkdebug");
    if (below - config > 1) {
        g_autofree char *path = g_strndup(config, below - 1 - config);

        block_options_set_str(options, "config", path);
    }
    block_options_set_tree(options, "image", image);
    return options;
}

BlockOptions *tool_name_options(const char *name, GError **errp)
{
    BlockOptions *options;

    if (tool_is_nbd_name(name)) {
        return tool_nbd_options(name, errp);
    }
    if (g_str_has_prefix(name, DEBUG_PREFIX)) {
        return debug_options(name, errp);
    }
    if (g_str_equal(name, NULL_NAME)) {
        options = block_options_new();
        block_options_set_str(options, "driver", "null-co");
        return options;
    }
    if (g_str_has_prefix(name, FILE_PREFIX)) {
        /* As it stands: what follows is no name of another kind. */
        options = block_options_new();
        block_options_set_str(options, "driver", "file");
        block_options_set_str(options, "filename", tool_file_path(name));
        return options;
    }
    return block_options_parse_filename(name, errp);
}
