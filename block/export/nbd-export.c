/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Exports of type "nbd": what clients see of a node, and under which name.
 */
#include "block/export/nbd-int.h"

#include <errno.h>
#include <string.h>

#define PREFERRED_BLOCK 4096

typedef struct NbdExportOptions {
    char *name, *description, *bitmap;
    BlockOptions *bitmaps, *tls_clients;
    bool allocation_depth;
} NbdExportOptions;

static const BlockOption nbd_export_options[] = {
    { "name", BLOCK_OPTION_STRING, .offset = offsetof(NbdExportOptions, name),
      .help = "name for clients (default: the node's)" },
    { "description", BLOCK_OPTION_STRING,
      .offset = offsetof(NbdExportOptions, description),
      .help = "text for clients that list exports" },
    { "bitmap", BLOCK_OPTION_STRING,
      .offset = offsetof(NbdExportOptions, bitmap),
      .help = "a bitmap that clients can read" },
    { "bitmaps", BLOCK_OPTION_TREE,
      .offset = offsetof(NbdExportOptions, bitmaps),
      .help = "bitmaps: a list of names, or of objects: node, name" },
    { "tls-clients", BLOCK_OPTION_TREE,
      .offset = offsetof(NbdExportOptions, tls_clients),
      .help = "who may use it: a list of names of keys, or of distinguished "
              "names in certificates" },
    { "allocation-depth", BLOCK_OPTION_BOOL, .def = "off",
      .offset = offsetof(NbdExportOptions, allocation_depth),
      .help = "whether clients can read which layer has what" },
    { NULL },
};

static NbdExport *nbd_of(BlockExport *exp)
{
    return (NbdExport *)exp;
}

/* --- looking ------------------------------------------------------------- */

NbdExport *nbd_export_next(BlockGraph *graph, NbdExport *e)
{
    BlockExport *exp = e ? &e->exp : NULL;

    do {
        exp = blk_exp_next(graph, exp);
    } while (exp && (exp->drv != &nbd_export_driver || exp->shutting_down));
    return exp ? nbd_of(exp) : NULL;
}

bool nbd_export_allows(const NbdExport *e, const NbdClient *client)
{
    const char *identity = client->channel->identity;

    return !e->tls_clients ||
           (identity && g_strv_contains((const char *const *)e->tls_clients,
                                        identity));
}

NbdExport *nbd_export_find(BlockGraph *graph, const NbdClient *client,
                           const char *name, size_t len)
{
    NbdExport *e = NULL;

    while ((e = nbd_export_next(graph, e))) {
        if (strlen(e->name) == len && memcmp(e->name, name, len) == 0) {
            return !client || nbd_export_allows(e, client) ? e : NULL;
        }
    }
    return NULL;
}

unsigned nbd_export_nr_contexts(const NbdExport *e)
{
    return NBD_CONTEXT_BITMAPS + e->nr_bitmaps;
}

char *nbd_export_context_name(const NbdExport *e, unsigned id)
{
    switch (id) {
    case NBD_CONTEXT_BASE:
        return g_strdup("base:allocation");
    case NBD_CONTEXT_DEPTH:
        return e->allocation_depth ? g_strdup("qemu:allocation-depth") : NULL;
    default:
        return g_strconcat("qemu:dirty-bitmap:",
                           e->bitmap_names[id - NBD_CONTEXT_BITMAPS], NULL);
    }
}

/* --- bitmaps ------------------------------------------------------------- */

/* A bitmap of the node that is exported, or of one it gets its content from. */
static BdrvDirtyBitmap *find_bitmap(NbdExport *e, const char *node,
                                    const char *name, GError **errp)
{
    BlockDriverState *bs = node ? bdrv_find_node(e->exp.graph, node)
                                : blk_bs(e->exp.blk);
    BdrvDirtyBitmap *bitmap = NULL;

    if (!bs) {
        block_error(errp, ENOENT, "Cannot find node '%s'", node);
        return NULL;
    }
    while (bs && !(bitmap = bdrv_find_dirty_bitmap(bs, name)) && !node) {
        BdrvChild *child = bdrv_find_child(bs, "file");

        if (!child || !(bdrv_child_role(child) & BDRV_CHILD_FILTERED)) {
            child = bdrv_find_child(bs, "backing");
        }
        bs = child ? bdrv_child_bs(child) : NULL;
    }
    if (!bitmap) {
        block_error(errp, ENOENT, "Bitmap '%s' is not found", name);
    }
    return bitmap;
}

static int add_bitmap(NbdExport *e, const char *node, const char *name,
                      GError **errp)
{
    BdrvDirtyBitmap *bitmap = find_bitmap(e, node, name, errp);
    int ret;

    if (!bitmap) {
        return -ENOENT;
    }
    ret = bdrv_dirty_bitmap_check(bitmap, BDRV_BITMAP_ALLOW_RO, errp);
    if (ret < 0) {
        return ret;
    }
    if (e->nr_bitmaps == NBD_BITMAPS_MAX) {
        return block_error(errp, EINVAL, "More than %d bitmaps",
                           NBD_BITMAPS_MAX);
    }
    if (bdrv_dirty_bitmap_enabled(bitmap) && !e->exp.writable &&
        !bdrv_is_read_only(bdrv_dirty_bitmap_bs(bitmap)) &&
        bdrv_dirty_bitmap_bs(bitmap) == blk_bs(e->exp.blk)) {
        return block_error(errp, EINVAL, "Enabled bitmap '%s' incompatible "
                           "with readonly export", name);
    }
    bdrv_dirty_bitmap_set_busy(bitmap, true);
    bdrv_ref(bdrv_dirty_bitmap_bs(bitmap));
    e->bitmaps = g_renew(BdrvDirtyBitmap *, e->bitmaps, e->nr_bitmaps + 1);
    e->bitmap_names = g_renew(char *, e->bitmap_names, e->nr_bitmaps + 1);
    e->bitmaps[e->nr_bitmaps] = bitmap;
    e->bitmap_names[e->nr_bitmaps] = g_strdup(name);
    e->nr_bitmaps++;
    return 0;
}

/* An element of the list: a name, or an object with a node and a name. */
static int add_element(NbdExport *e, const BlockOptions *list, const char *key,
                       GError **errp)
{
    g_autofree char *node_key = g_strconcat(key, ".node", NULL);
    g_autofree char *name_key = g_strconcat(key, ".name", NULL);
    const char *name = block_options_peek_str(list, key);

    if (name) {
        return add_bitmap(e, NULL, name, errp);
    }
    name = block_options_peek_str(list, name_key);
    if (!name) {
        return block_error(errp, EINVAL, "An element of 'bitmaps' is neither "
                           "a name nor an object with node and name");
    }
    return add_bitmap(e, block_options_peek_str(list, node_key), name, errp);
}

static int add_bitmaps(NbdExport *e, const NbdExportOptions *o, GError **errp)
{
    g_auto(GStrv) keys = o->bitmaps ? block_options_keys(o->bitmaps) : NULL;
    int ret = 0;

    if (o->bitmaps && !block_options_is_list(o->bitmaps)) {
        return block_error(errp, EINVAL, "'bitmaps' must be a list");
    }
    if (o->bitmap) {
        ret = add_bitmap(e, NULL, o->bitmap, errp);
    }
    for (size_t i = 0; keys && keys[i] && ret == 0; i++) {
        ret = add_element(e, o->bitmaps, keys[i], errp);
    }
    return ret;
}

/* --- who may use it ------------------------------------------------------ */

static int set_tls_clients(NbdExport *e, const NbdExportOptions *o,
                           const NbdServer *server, GError **errp)
{
    g_auto(GStrv) keys = NULL;

    if (!o->tls_clients) {
        return 0;
    }
    if (!block_options_is_list(o->tls_clients)) {
        return block_error(errp, EINVAL, "'tls-clients' must be a list");
    }
    if (!server->creds) {
        return block_error(errp, EINVAL, "'tls-clients' needs a server with "
                           "TLS: without it nobody proves who he is");
    }
    keys = block_options_keys(o->tls_clients);
    e->tls_clients = g_new0(char *, g_strv_length(keys) + 1);
    for (size_t i = 0; keys[i]; i++) {
        const char *name = block_options_peek_str(o->tls_clients, keys[i]);

        if (!name) {
            return block_error(errp, EINVAL, "An element of 'tls-clients' is "
                               "no name");
        }
        e->tls_clients[i] = g_strdup(name);
    }
    return 0;
}

/* --- coming and going ---------------------------------------------------- */

static int check_names(BlockGraph *graph, const char *name,
                       const char *description, GError **errp)
{
    if (strlen(name) > NBD_NAME_MAX) {
        return block_error(errp, EINVAL, "export name '%.64s...' too long",
                           name);
    }
    if (description && strlen(description) > NBD_NAME_MAX) {
        return block_error(errp, EINVAL, "description '%.64s...' too long",
                           description);
    }
    if (nbd_export_find(graph, NULL, name, strlen(name))) {
        return block_error(errp, EEXIST, "NBD server already has export named "
                           "'%s'", name);
    }
    return 0;
}

static void set_facts(NbdExport *e, const NbdServer *server)
{
    BlockDriverState *bs = blk_bs(e->exp.blk);
    uint32_t align = bdrv_request_alignment(bs);
    BlockDriverInfo info = { 0 };

    e->size = bdrv_length(bs);
    e->min_block = align <= 65536 && e->size % align == 0 ? align : 1;
    e->preferred_block = MAX(PREFERRED_BLOCK, e->min_block);
    if (bdrv_get_info(bs, &info) == 0 && info.cluster_bytes <= 2097152) {
        e->preferred_block = MAX(e->preferred_block, info.cluster_bytes);
    }
    e->flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
               NBD_FLAG_SEND_CACHE;
    /*
     * A flush on one connection brings to storage what was written on any, and
     * each reads what was written on any: there is one node below, without
     * caches of ours in between.  But a client that is told so waits for its
     * other connections, so there must be room for them.
     */
    if (server->max_connections != 1) {
        e->flags |= NBD_FLAG_CAN_MULTI_CONN;
    }
    if (e->exp.writable) {
        e->flags |= NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES |
                    NBD_FLAG_SEND_FAST_ZERO;
    } else {
        e->flags |= NBD_FLAG_READ_ONLY;
    }
}

static int nbd_export_create(BlockExport *exp, BlockOptions *options,
                             GError **errp)
{
    static const BlockOption *const known[] = { nbd_export_options, NULL };
    g_autofree char *what = g_strdup_printf("NBD export '%s'", exp->id);
    NbdServer *server = *export_nbd_server(exp->graph);
    NbdExport *e = nbd_of(exp);
    NbdExportOptions o = { 0 };
    int ret = block_options_absorb(options, nbd_export_options, &o, what,
                                   errp);

    if (ret < 0) {
        return ret;
    }
    e->name = g_strdup(o.name ? o.name : exp->node_name);
    e->description = g_strdup(o.description);
    e->allocation_depth = o.allocation_depth;
    nbd_turns_init(&e->turns);
    ret = block_options_check_empty(options, known, what, errp);
    if (ret == 0 && (!server || server->stopping)) {
        ret = block_error(errp, EINVAL, "NBD server not running");
    }
    if (ret == 0) {
        set_facts(e, server);
    }
    if (ret == 0) {
        ret = check_names(exp->graph, e->name, e->description, errp);
    }
    if (ret == 0) {
        ret = set_tls_clients(e, &o, server, errp);
    }
    if (ret == 0) {
        ret = add_bitmaps(e, &o, errp);
    }
    block_options_clear(nbd_export_options, &o);
    return ret;
}

static void nbd_export_cut_off(BlockExport *exp)
{
    NbdServer *server = *export_nbd_server(exp->graph);

    if (!server) {
        return;                 /* then there are no clients */
    }
    LIST_FOREACH(link, &server->clients) {
        NbdClient *client = LIST_ENTRY(link, NbdClient, link);

        if (client->e == nbd_of(exp)) {
            nbd_client_cut_off(client);
        }
    }
}

static void coroutine_fn nbd_export_free(BlockExport *exp)
{
    NbdExport *e = nbd_of(exp);

    g_assert(e->nr_clients == 0);
    for (unsigned i = 0; i < e->nr_bitmaps; i++) {
        BlockDriverState *bs = bdrv_dirty_bitmap_bs(e->bitmaps[i]);

        bdrv_dirty_bitmap_set_busy(e->bitmaps[i], false);
        g_free(e->bitmap_names[i]);
        bdrv_co_unref(bs);
    }
    g_free(e->bitmaps);
    g_free(e->bitmap_names);
    g_strfreev(e->tls_clients);
    g_free(e->name);
    g_free(e->description);
}

static unsigned nbd_export_nr_clients(BlockExport *exp)
{
    return nbd_of(exp)->nr_clients;
}

static const char *nbd_export_client_name(BlockExport *exp)
{
    return nbd_of(exp)->name;
}

const BlockExportDriver nbd_export_driver = {
    .type = "nbd",
    .instance_size = sizeof(NbdExport),
    .options = nbd_export_options,
    .exp_create = nbd_export_create,
    .cut_off = nbd_export_cut_off,
    .exp_free = nbd_export_free,
    .nr_clients = nbd_export_nr_clients,
    .client_name = nbd_export_client_name,
};
