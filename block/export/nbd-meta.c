/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Metadata contexts: which there are, and which a client wants.
 */
#include "block/export/nbd-int.h"

#include <errno.h>
#include <string.h>

/* Of one option: each is compared with all names. */
#define QUERIES_MAX 256

/* A query names one context, or, when listing, a part of the tree of names. */
static bool matches(const char *query, size_t len, const char *name,
                    bool listing)
{
    if (strlen(name) == len && memcmp(query, name, len) == 0) {
        return true;
    }
    /* "base:", "qemu:", "qemu:dirty-bitmap:" */
    return listing && len > 0 && query[len - 1] == ':' &&
           strlen(name) > len && memcmp(query, name, len) == 0;
}

/* The contexts of @e that @query means, as bits. */
static uint64_t look_up(const NbdExport *e, const char *query, size_t len,
                        bool listing)
{
    uint64_t found = 0;

    for (unsigned id = 0; id < nbd_export_nr_contexts(e); id++) {
        g_autofree char *name = nbd_export_context_name(e, id);

        if (name && matches(query, len, name, listing)) {
            found |= UINT64_C(1) << id;
        }
    }
    return found;
}

static uint64_t all_contexts(const NbdExport *e)
{
    uint64_t all = 0;

    for (unsigned id = 0; id < nbd_export_nr_contexts(e); id++) {
        g_autofree char *name = nbd_export_context_name(e, id);

        all |= name ? UINT64_C(1) << id : 0;
    }
    return all;
}

static int coroutine_fn send_contexts(NbdClient *client, uint32_t option,
                                      const NbdExport *e, uint64_t found)
{
    bool listing = option == NBD_OPT_LIST_META_CONTEXT;

    /* The names first: to send them yields, and the export may go. */
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);

    for (unsigned id = 0; id < nbd_export_nr_contexts(e); id++) {
        if (found & UINT64_C(1) << id) {
            g_autofree char *name = nbd_export_context_name(e, id);
            GByteArray *data = g_byte_array_new();

            be_append32(data, listing ? 0 : id);
            g_byte_array_append(data, (void *)name, strlen(name) + 1);
            g_ptr_array_add(names, g_byte_array_free(data, false));
        }
    }
    for (guint i = 0; i < names->len; i++) {
        const char *data = g_ptr_array_index(names, i);
        int ret = nbd_option_reply(client, option, NBD_REP_META_CONTEXT, data,
                                   4 + strlen(data + 4));

        if (ret < 0) {
            return ret;
        }
    }
    return nbd_option_reply(client, option, NBD_REP_ACK, NULL, 0);
}

int coroutine_fn nbd_option_meta(NbdClient *client, NbdOption *opt)
{
    bool listing = opt->option == NBD_OPT_LIST_META_CONTEXT;
    const char *text;
    uint64_t found = 0;
    NbdExport *e;
    Untrusted nr;
    size_t len;

    /* Whatever becomes of it, it takes the place of what was set before. */
    if (!listing) {
        client->contexts = 0;
        client->meta_export = 0;
        if (!client->structured) {
            return nbd_option_error(client, opt->option, NBD_REP_ERR_INVALID,
                                    "structured replies are needed first");
        }
    }
    if (!nbd_option_string(opt, &text, &len)) {
        goto malformed;
    }
    e = nbd_export_find(client->server->graph, client, text, len);
    if (!nbd_option_u32(opt, &nr)) {
        goto malformed;
    }
    if (untrusted_above(nr, QUERIES_MAX) &&
        !untrusted_above(nr, opt->bytes / 4)) {
        return nbd_option_error(client, opt->option, NBD_REP_ERR_TOO_BIG,
                                "too many queries");
    }
    if (untrusted_is(nr, 0) && listing && e) {
        found = all_contexts(e);
    }
    for (uint32_t i = 0; untrusted_above(nr, i); i++) {
        if (!nbd_option_string(opt, &text, &len)) {
            goto malformed;
        }
        if (e) {
            found |= look_up(e, text, len, listing);
        }
    }
    if (opt->bytes > 0) {
        goto malformed;
    }
    if (!e) {
        return nbd_option_error(client, opt->option, NBD_REP_ERR_UNKNOWN,
                                "export not found");
    }
    if (!listing) {
        client->contexts = found;
        client->meta_export = e->exp.number + 1;
    }
    return send_contexts(client, opt->option, e, found);

malformed:
    return nbd_option_error(client, opt->option, NBD_REP_ERR_INVALID,
                            "malformed option");
}
