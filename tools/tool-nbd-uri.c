/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From the name of an NBD export to the options of its node.
 *
 * Two kinds of names are in use: QEMU's own, parts with colons between them,
 * and URIs.  Both name the same things, and nothing else can be said in them.
 */
#include "tools/tool-nbd-uri.h"

#include <errno.h>
#include <string.h>

#define EXPORT_MARK ":exportname="

/* Below which options a scheme of a URI leads. */
static const struct {
    const char *scheme;
    bool is_unix;
    bool tls;
} schemes[] = {
    { "nbd", false, false },
    { "nbd+tcp", false, false },
    { "nbd+unix", true, false },
    { "nbds", false, true },
    { "nbds+tcp", false, true },
    { "nbds+unix", true, true },
};

bool tool_is_nbd_name(const char *name)
{
    if (g_str_has_prefix(name, "nbd:")) {
        return true;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(schemes); i++) {
        size_t length = strlen(schemes[i].scheme);

        if (strncmp(name, schemes[i].scheme, length) == 0 &&
            g_str_has_prefix(name + length, "://")) {
            return true;
        }
    }
    return false;
}

static BlockOptions *new_tree(const char *export)
{
    BlockOptions *options = block_options_new();

    block_options_set_str(options, "driver", "nbd");
    if (export && *export) {
        block_options_set_str(options, "export", export);
    }
    return options;
}

/* --- names with colons ---------------------------------------------------- */

/* "HOST:PORT", where the host may be an IPv6 address in brackets. */
static int set_host_and_port(BlockOptions *options, const char *text,
                             GError **errp)
{
    const char *colon = strrchr(text, ':');
    g_autofree char *host = NULL;
    size_t length;

    if (!colon || colon == text || !colon[1]) {
        return block_error(errp, EINVAL, "'%s' is not HOST:PORT", text);
    }
    length = colon - text;
    if (text[0] == '[') {
        if (length < 3 || text[length - 1] != ']') {
            return block_error(errp, EINVAL, "'%s' is not [ADDRESS]:PORT",
                               text);
        }
        text++;
        length -= 2;
    }
    host = g_strndup(text, length);
    block_options_set_str(options, "host", host);
    block_options_set_str(options, "port", colon + 1);
    return 0;
}

/* @name is what follows "nbd:". */
static BlockOptions *parse_colons(const char *name, GError **errp)
{
    const char *mark = strstr(name, EXPORT_MARK);
    g_autofree char *address = mark ? g_strndup(name, mark - name)
                                    : g_strdup(name);
    BlockOptions *options = new_tree(mark ? mark + strlen(EXPORT_MARK) : NULL);
    int ret = 0;

    if (!g_str_has_prefix(address, "unix:")) {
        ret = set_host_and_port(options, address, errp);
    } else if (address[strlen("unix:")]) {
        block_options_set_str(options, "path", address + strlen("unix:"));
    } else {
        ret = block_error(errp, EINVAL, "'nbd:%s' names no socket", name);
    }
    if (ret < 0) {
        block_options_free(options);
        return NULL;
    }
    return options;
}

/* --- URIs ----------------------------------------------------------------- */

/* Take @key out of @params, so that what nobody knows is left in the end. */
static char *take_param(GHashTable *params, const char *key)
{
    char *value = params ? g_strdup(g_hash_table_lookup(params, key)) : NULL;

    if (value) {
        g_hash_table_remove(params, key);
    }
    return value;
}

static int set_unix(BlockOptions *options, GUri *uri, GHashTable *params,
                    GError **errp)
{
    const char *host = g_uri_get_host(uri);
    g_autofree char *path = take_param(params, "socket");

    if ((host && *host) || g_uri_get_port(uri) >= 0) {
        return block_error(errp, EINVAL, "A unix socket is not on a host: "
                           "write %s:///", g_uri_get_scheme(uri));
    }
    if (!path || !*path) {
        return block_error(errp, EINVAL, "'?socket=PATH' is missing");
    }
    block_options_set_str(options, "path", path);
    return 0;
}

static int set_inet(BlockOptions *options, GUri *uri, GError **errp)
{
    const char *host = g_uri_get_host(uri);
    int port = g_uri_get_port(uri);

    if (!host || !*host) {
        return block_error(errp, EINVAL, "The host is missing");
    }
    block_options_set_str(options, "host", host);
    if (port >= 0) {
        g_autofree char *text = g_strdup_printf("%d", port);

        block_options_set_str(options, "port", text);
    }
    return 0;
}

static int set_tls(BlockOptions *options, GHashTable *params, GError **errp)
{
    g_autofree char *id = take_param(params, "tls-creds");

    if (!id) {
        return block_error(errp, EINVAL, "TLS needs credentials: "
                           "'?tls-creds=ID'");
    }
    block_options_set_str(options, "tls-creds", id);
    return 0;
}

static int set_from_uri(BlockOptions *options, GUri *uri, GHashTable *params,
                        GError **errp)
{
    const char *scheme = g_uri_get_scheme(uri);
    int ret = -EINVAL;

    for (size_t i = 0; i < G_N_ELEMENTS(schemes); i++) {
        if (!g_str_equal(scheme, schemes[i].scheme)) {
            continue;
        }
        ret = schemes[i].is_unix ? set_unix(options, uri, params, errp)
                                 : set_inet(options, uri, errp);
        if (ret == 0 && schemes[i].tls) {
            ret = set_tls(options, params, errp);
        }
    }
    if (ret == 0 && (g_uri_get_userinfo(uri) || g_uri_get_fragment(uri) ||
                     (params && g_hash_table_size(params) > 0))) {
        ret = block_error(errp, EINVAL, "There is more in the URI than is "
                          "known");
    }
    return ret;
}

static BlockOptions *parse_uri(const char *name, GError **errp)
{
    g_autoptr(GUri) uri = g_uri_parse(name, G_URI_FLAGS_ENCODED_QUERY, errp);
    g_autoptr(GHashTable) params = NULL;
    BlockOptions *options;
    const char *path, *query;

    if (!uri) {
        return NULL;
    }
    query = g_uri_get_query(uri);
    if (query) {
        params = g_uri_parse_params(query, -1, "&", G_URI_PARAMS_NONE, errp);
        if (!params) {
            return NULL;
        }
    }
    /* One slash parts the name from the host; a second one is in the name. */
    path = g_uri_get_path(uri);
    options = new_tree(path[0] == '/' ? path + 1 : path);
    if (set_from_uri(options, uri, params, errp) < 0) {
        block_options_free(options);
        return NULL;
    }
    return options;
}

BlockOptions *tool_nbd_options(const char *name, GError **errp)
{
    const char *rest = strchr(name, ':') + 1;
    BlockOptions *options = g_str_has_prefix(rest, "//")
                                ? parse_uri(name, errp)
                                : parse_colons(rest, errp);

    if (!options) {
        g_prefix_error(errp, "'%s' names no NBD export: ", name);
    }
    return options;
}
