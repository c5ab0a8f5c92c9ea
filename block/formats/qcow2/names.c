/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Files that an image names: its backing file, its data file.
 *
 * Whoever wrote the image chose the name, so it is a name of a file and no
 * more: no protocol, no options, no JSON, nothing of /proc, /dev or /sys.
 * What is refused here can still be had by whoever opens the node, who gives
 * "backing" or "data-file" explicitly.
 */
#include "block/formats/qcow2/image.h"

#include <errno.h>

/* Why @name is no plain file name; NULL if it is one. */
static const char *why_not_plain(const char *name)
{
    size_t first = strcspn(name, ":/");

    if (!name[0]) {
        return "it is empty";
    }
    if (strlen(name) > QCOW2_MAX_BACKING_NAME) {
        return "it is longer than 1023 bytes";
    }
    for (const char *c = name; *c; c++) {
        if (g_ascii_iscntrl(*c)) {
            return "it has a control character in it";
        }
    }
    /* Behind a slash a colon has no meaning. */
    if (name[first] == ':') {
        return "it looks like a protocol or options, not like the name of a "
               "file";
    }
    return NULL;
}

static bool is_below(const char *path, const char *directory)
{
    size_t length = strlen(directory);

    return strncmp(path, directory, length) == 0 &&
           (path[length] == '/' || path[length] == '\0');
}

/* The kernel's own file systems hold no images. */
static bool is_special(const char *path)
{
    g_autofree char *canonical = g_canonicalize_filename(path, NULL);
    const char *full = canonical;

    while (full[0] == '/' && full[1] == '/') {
        full++; /* POSIX gives two slashes a meaning, Linux does not */
    }
    return is_below(full, "/proc") || is_below(full, "/dev") ||
           is_below(full, "/sys");
}

int qcow2_name_check(const char *name, const char *what, GError **errp)
{
    const char *why = why_not_plain(name);

    if (!why && name[0] == '/' && is_special(name)) {
        why = "it is no file of its own";
    }
    return why ? block_error(errp, EINVAL, "The name '%s' cannot be that of a "
                             "%s: %s", name, what, why)
               : 0;
}

/* The file that holds the image, if one does; filters are looked through. */
static const char *image_filename(BlockDriverState *bs)
{
    BdrvChild *below;

    while ((below = bdrv_primary_child(bs)) != NULL) {
        bs = bdrv_child_bs(below);
    }
    return strcmp(bdrv_driver_name(bs), "file") == 0 ? bdrv_filename(bs)
                                                     : NULL;
}

static char *resolve(BlockDriverState *file, const char *name)
{
    g_autofree char *directory = NULL;
    const char *base;

    if (name[0] == '/') {
        return g_strdup(name);
    }
    base = image_filename(file);
    if (!base) {
        return NULL;
    }
    if (!strchr(base, '/')) {
        return g_strdup(name); /* without a "./" that nobody wrote */
    }
    directory = g_path_get_dirname(base);
    return g_build_filename(directory, name, NULL);
}

/* The path of the file that the image calls @name; "backing" or "data-file"
 * as @option.  g_free(); NULL with @errp. */
static char *file_path(BlockDriverState *file, const char *node_name,
                       const char *name, const char *option, GError **errp)
{
    const char *image = bdrv_filename(file);
    const char *why = why_not_plain(name);
    g_autofree char *path = why ? NULL : resolve(file, name);

    if (!why && !path) {
        why = "it is relative, and the image is not in a directory";
    }
    if (!why && is_special(path)) {
        why = "it is no file of its own";
    }
    if (why) {
        block_error(errp, EINVAL, "Node '%s': image '%s' names '%s' as its %s, "
                    "which is refused because %s; give \"%s\" explicitly",
                    node_name, image, name,
                    strcmp(option, "backing") == 0 ? "backing file"
                                                   : "data file",
                    why, option);
        return NULL;
    }
    return g_steal_pointer(&path);
}

static BlockOptions *file_options(const char *path)
{
    BlockOptions *options = block_options_new();

    block_options_set_str(options, "driver", "file");
    block_options_set_str(options, "filename", path);
    return options;
}

BlockOptions *qcow2_data_file_options(BlockDriverState *file,
                                      const char *node_name,
                                      const char *name, GError **errp)
{
    g_autofree char *path = NULL;

    if (!name) {
        block_error(errp, EINVAL, "Node '%s': image '%s' has its data in "
                    "another file, but does not name it; give \"data-file\"",
                    node_name, bdrv_filename(file));
        return NULL;
    }
    path = file_path(file, node_name, name, "data-file", errp);
    return path ? file_options(path) : NULL;
}

/* The format to open a backing file with, or NULL with @errp. */
static const char *choose_format(BlockDriverState *file,
                                 const char *node_name,
                                 const Qcow2BackingName *name, GError **errp)
{
    const char *image = bdrv_filename(file);
    const char *format = name->given_format ? name->given_format
                                            : name->format;
    const BlockDriver *drv;

    if (!format) {
        block_error(errp, EINVAL, "Node '%s': image '%s' does not record the "
                    "format of its backing file '%s', and to guess it is not "
                    "safe; give \"backing-format\", or \"backing\"", node_name,
                    image, name->file);
        return NULL;
    }
    drv = bdrv_find_driver(format);
    if (!drv || drv->kind != BLOCK_DRIVER_FORMAT) {
        block_error(errp, EINVAL, "Node '%s': image '%s' records the format "
                    "'%s' for its backing file, which is not supported; give "
                    "\"backing-format\", or \"backing\"", node_name, image,
                    format);
        return NULL;
    }
    return format;
}

BlockOptions *qcow2_backing_options(BlockDriverState *file,
                                    const char *node_name,
                                    const Qcow2BackingName *name,
                                    GError **errp)
{
    g_autofree char *path = file_path(file, node_name, name->file, "backing",
                                      errp);
    const char *format = path ? choose_format(file, node_name, name, errp)
                              : NULL;
    BlockOptions *options;

    if (!format) {
        return NULL;
    }
    options = block_options_new();
    block_options_set_str(options, "driver", format);
    block_options_set_tree(options, "file", file_options(path));
    return options;
}
