/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * TLS credentials of a graph, by their ids.
 */
#include "block/graph/tls.h"

#include "block/graph/graph-int.h"

#include <errno.h>

typedef struct CredsName {
    char *type, *id;
} CredsName;

static const BlockOption name_options[] = {
    { "qom-type", BLOCK_OPTION_STRING, .required = true,
      .offset = offsetof(CredsName, type), .help = "type of the credentials" },
    { "id", BLOCK_OPTION_STRING, .required = true,
      .offset = offsetof(CredsName, id), .help = "name of the credentials" },
    { NULL },
};

static GHashTable *table_of(BlockGraph *graph)
{
    if (!graph->tls_creds) {
        graph->tls_creds = g_hash_table_new_full(g_str_hash, g_str_equal,
            g_free, (GDestroyNotify)tls_creds_unref);
    }
    return graph->tls_creds;
}

static int add(BlockGraph *graph, const CredsName *name, BlockOptions *options,
               GError **errp)
{
    static const BlockOption *const known[] = { tls_creds_options, NULL };
    g_autofree char *what = g_strdup_printf("TLS credentials '%s'", name->id);
    TlsCreds *creds;

    if (g_hash_table_contains(table_of(graph), name->id)) {
        return block_error(errp, EEXIST, "There are TLS credentials '%s' "
                           "already", name->id);
    }
    creds = tls_creds_new(name->type, options, errp);
    if (!creds) {
        return -EINVAL;
    }
    if (block_options_check_empty(options, known, what, errp) < 0) {
        tls_creds_unref(creds);
        return -EINVAL;
    }
    g_hash_table_insert(table_of(graph), g_strdup(name->id), creds);
    return 0;
}

int blk_tls_creds_add(BlockGraph *graph, BlockOptions *options, GError **errp)
{
    g_autoptr(BlockOptions) taken = options;
    CredsName name = { 0 };
    int ret = block_options_absorb(taken, name_options, &name,
                                   "TLS credentials", errp);

    if (ret == 0) {
        ret = add(graph, &name, taken, errp);
        block_options_clear(name_options, &name);
    }
    return ret;
}

int blk_tls_creds_del(BlockGraph *graph, const char *id, GError **errp)
{
    if (!g_hash_table_remove(table_of(graph), id)) {
        return block_error(errp, ENOENT, "No TLS credentials with id '%s'",
                           id);
    }
    return 0;
}

TlsCreds *graph_tls_creds(BlockGraph *graph, const char *id, bool server,
                          GError **errp)
{
    TlsCreds *creds = g_hash_table_lookup(table_of(graph), id);

    if (!creds) {
        block_error(errp, ENOENT, "No TLS credentials with id '%s'", id);
        return NULL;
    }
    if (tls_creds_is_server(creds) != server) {
        block_error(errp, EINVAL, "Expecting TLS credentials with a %s "
                    "endpoint", server ? "server" : "client");
        return NULL;
    }
    return tls_creds_ref(creds);
}

void graph_tls_clear(BlockGraph *graph)
{
    g_clear_pointer(&graph->tls_creds, g_hash_table_unref);
}
