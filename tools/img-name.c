/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From an open image to a name of it, as qemu-img says it.
 *
 * A plain name stands for a format above a protocol, with nothing set that
 * would make it show another content; what decides that is listed by driver.
 */
#include "tools/img-name.h"

#include <blockgraph/driver.h>
#include <jansson.h>
#include <stdlib.h>

/* The options that decide what a node shows. */
typedef struct Deciding {
    const char *driver;
    const char *child;          /* what its child is called; NULL: "file" */
    const char *options[12];
} Deciding;

static const Deciding deciding[] = {
    { "raw", .options = { "offset", "size" } },
    { "null-co", .options = { "size" } },
    { "file", .options = { "filename" } },
    { "nbd", .options = { "server", "host", "port", "path", "export",
                          "tls-creds", "tls-hostname", "x-dirty-bitmap" } },
    { "blkdebug", "image", { "config", "inject-error", "set-state", "align",
                             "max-transfer", "opt-write-zero",
                             "max-write-zero", "opt-discard", "max-discard" } },
};

static const Deciding *find_deciding(BlockDriverState *bs)
{
    for (size_t i = 0; i < G_N_ELEMENTS(deciding); i++) {
        if (g_str_equal(deciding[i].driver, bdrv_driver_name(bs))) {
            return &deciding[i];
        }
    }
    return NULL;
}

static BlockDriverState *child_of(BlockDriverState *bs)
{
    BdrvChild *child = bdrv_primary_child(bs);

    return child ? bdrv_child_bs(child) : NULL;
}

static BlockDriverKind kind_of(BlockDriverState *bs)
{
    return bdrv_find_driver(bdrv_driver_name(bs))->kind;
}

/* --- as a tree ------------------------------------------------------------ */

static json_t *tree_of(BlockDriverState *bs)
{
    const Deciding *of = find_deciding(bs);
    g_autoptr(BlockOptions) options = bdrv_get_options(bs);
    g_autofree char *text = block_options_to_json(options);
    json_t *all = json_loads(text, 0, NULL), *tree = json_object();
    BlockDriverState *child = child_of(bs);

    json_object_set_new(tree, "driver", json_string(bdrv_driver_name(bs)));
    for (int i = 0; of && of->options[i]; i++) {
        /* Without effect if there is none. */
        json_object_set(tree, of->options[i],
                        json_object_get(all, of->options[i]));
    }
    if (child) {
        json_object_set_new(tree, of && of->child ? of->child : "file",
                            tree_of(child));
    }
    json_decref(all);
    return tree;
}

static char *json_name(BlockDriverState *bs)
{
    json_t *tree = tree_of(bs);
    char *text = json_dumps(tree, JSON_ENCODE_ANY);
    char *name = g_strconcat("json:", text, NULL);

    free(text);
    json_decref(tree);
    return name;
}

/* --- plainly -------------------------------------------------------------- */

/* The URI of an export, or NULL where it would not say all. */
static char *export_uri(const BlockOptions *options)
{
    const char *export = block_options_peek_str(options, "export");
    const char *path = block_options_peek_str(options, "path");
    const char *host = block_options_peek_str(options, "host");
    const char *port = block_options_peek_str(options, "port");

    if (block_options_has(options, "tls-creds") ||
        block_options_has(options, "x-dirty-bitmap")) {
        return NULL;
    }
    path = path ? path : block_options_peek_str(options, "server.path");
    host = host ? host : block_options_peek_str(options, "server.host");
    port = port ? port : block_options_peek_str(options, "server.port");
    if (path) {
        return g_strdup_printf("nbd+unix://%s%s?socket=%s", export ? "/" : "",
                               export ? export : "", path);
    }
    return host ? g_strdup_printf("nbd://%s:%s%s%s", host,
                                  port ? port : "10809", export ? "/" : "",
                                  export ? export : "")
                : NULL;
}

static char *plain_name(BlockDriverState *bs);

static char *debug_name(BlockDriverState *bs, const BlockOptions *options)
{
    g_autofree char *below = plain_name(child_of(bs));
    const char *config = block_options_peek_str(options, "config");
    const Deciding *of = find_deciding(bs);

    for (int i = 1; of->options[i]; i++) {
        if (block_options_has(options, of->options[i])) {
            return NULL;
        }
    }
    return below ? g_strdup_printf("blkdebug:%s:%s", config ? config : "",
                                   below)
                 : NULL;
}

/* NULL: there is none. */
static char *plain_name(BlockDriverState *bs)
{
    g_autoptr(BlockOptions) options = bdrv_get_options(bs);
    const char *driver = bdrv_driver_name(bs);
    BlockDriverState *child = child_of(bs);

    if (g_str_equal(driver, "nbd")) {
        return export_uri(options);
    }
    if (g_str_equal(driver, "blkdebug")) {
        return debug_name(bs, options);
    }
    if ((g_str_equal(driver, "null-co") || g_str_equal(driver, "raw")) &&
        (block_options_has(options, "size") ||
         block_options_has(options, "offset"))) {
        return NULL;
    }
    if (!child) {
        return g_strdup(bdrv_filename(bs));
    }
    return kind_of(bs) == BLOCK_DRIVER_FORMAT &&
                   kind_of(child) != BLOCK_DRIVER_FORMAT
               ? plain_name(child)
               : NULL;
}

char *img_name_of(BlockDriverState *bs)
{
    char *name = plain_name(bs);

    return name ? name : json_name(bs);
}
