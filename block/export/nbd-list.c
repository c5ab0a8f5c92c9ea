/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Asking an NBD server what it exports.
 *
 * L1  The server is not trusted: every length is compared with a limit before
 *     it is used, and the number of exports and replies is bounded.
 */
#include "block/export/nbd-int.h"

#include "block/graph/graph-int.h"
#include "block/graph/tls.h"
#include "util/socket-connect.h"

#include <errno.h>
#include <string.h>

#define EXPORTS_MAX 4096
#define REPLIES_MAX 128
#define REPLY_BYTES_MAX (2 * NBD_NAME_MAX + 16)
#define PATIENCE_NS (INT64_C(30) * 1000 * 1000 * 1000)

typedef struct ListOptions {
    BlockOptions *addr;
    char *tls_creds, *tls_hostname;
} ListOptions;

static const BlockOption list_options[] = {
    { "addr", BLOCK_OPTION_TREE, .required = true,
      .offset = offsetof(ListOptions, addr), .help = "where the server is" },
    { "tls-creds", BLOCK_OPTION_STRING,
      .offset = offsetof(ListOptions, tls_creds),
      .help = "id of the credentials" },
    { "tls-hostname", BLOCK_OPTION_STRING,
      .offset = offsetof(ListOptions, tls_hostname),
      .help = "name of the server in its certificate (default: addr.host)" },
    { NULL },
};

void blk_nbd_listing_free(BlockNbdListing *listing)
{
    if (listing) {
        g_free(listing->name);
        g_free(listing->description);
        g_strfreev(listing->contexts);
        g_free(listing);
    }
}

/* --- options and their replies ------------------------------------------- */

static int coroutine_fn send_option(IoChannel *c, uint32_t option,
                                    const GByteArray *data)
{
    g_autoptr(GByteArray) all = g_byte_array_new();

    be_append64(all, NBD_OPTION_MAGIC);
    be_append32(all, option);
    be_append32(all, data ? data->len : 0);
    if (data) {
        g_byte_array_append(all, data->data, data->len);
    }
    return io_channel_write_all(c, all->data, all->len);
}

/* Returns 0 with the type and the payload, which is in @data, or < 0. */
static int coroutine_fn get_reply(IoChannel *c, uint32_t option,
                                  GByteArray *data, uint32_t *ret_type,
                                  NbdOption *ret)
{
    uint8_t head[20];
    size_t bytes;
    int err = io_channel_read_all(c, head, sizeof(head));

    if (err < 0) {
        return err;
    }
    *ret_type = untrusted_word(untrusted_be32(head + 12));
    if (!untrusted_is(untrusted_be64(head), NBD_OPTION_REPLY_MAGIC) ||
        !untrusted_is(untrusted_be32(head + 8), option) ||
        !untrusted_at_most(untrusted_be32(head + 16), REPLY_BYTES_MAX,
                           &bytes)) {                               /* L1 */
        return -EPROTO;
    }
    g_byte_array_set_size(data, bytes);
    err = io_channel_read_all(c, data->data, bytes);
    *ret = (NbdOption) { .option = option, .data = data->data,
                         .bytes = bytes };
    return err;
}

/* An option without payload and reply but ACK.  1: ACK; 0: an error. */
static int coroutine_fn plain_option(IoChannel *c, uint32_t option)
{
    g_autoptr(GByteArray) data = g_byte_array_new();
    NbdOption reply;
    uint32_t type = 0;
    int ret = send_option(c, option, NULL);

    if (ret == 0) {
        ret = get_reply(c, option, data, &type, &reply);
    }
    return ret < 0 ? ret : type == NBD_REP_ACK;
}

/* --- what there is ------------------------------------------------------- */

static int coroutine_fn get_names(IoChannel *c, GPtrArray *list)
{
    g_autoptr(GByteArray) data = g_byte_array_new();
    int ret = send_option(c, NBD_OPT_LIST, NULL);

    while (ret == 0) {
        BlockNbdListing *listing;
        const char *name;
        NbdOption reply;
        uint32_t type = 0;
        size_t len;

        ret = get_reply(c, NBD_OPT_LIST, data, &type, &reply);
        if (ret < 0 || type == NBD_REP_ACK) {
            return ret;
        }
        if (type != NBD_REP_SERVER || list->len == EXPORTS_MAX ||
            !nbd_option_string(&reply, &name, &len)) {
            return type & NBD_REP_ERROR_BIT ? -EACCES : -EPROTO;
        }
        listing = g_new0(BlockNbdListing, 1);
        listing->name = g_strndup(name, len);
        listing->description = reply.bytes > 0
            ? g_strndup((const char *)reply.data, reply.bytes) : NULL;
        g_ptr_array_add(list, listing);
    }
    return ret;
}

static void put_name(GByteArray *to, const char *name)
{
    be_append32(to, strlen(name));
    g_byte_array_append(to, (const void *)name, strlen(name));
}

static void note_block(NbdOption *reply, uint32_t *to)
{
    Untrusted bytes;

    if (nbd_option_u32(reply, &bytes)) {
        *to = untrusted_verbatim(bytes);
    }
}

static void note_info(BlockNbdListing *listing, NbdOption *reply)
{
    Untrusted bytes;
    uint16_t what;

    if (!nbd_option_u16(reply, &what)) {
        return;
    }
    if (what == NBD_INFO_EXPORT && nbd_option_u64(reply, &bytes)) {
        listing->bytes = untrusted_verbatim(bytes);
        nbd_option_u16(reply, &listing->flags);
    } else if (what == NBD_INFO_BLOCK_SIZE) {
        note_block(reply, &listing->min_block);
        note_block(reply, &listing->preferred_block);
        note_block(reply, &listing->max_block);
    }
}

static int coroutine_fn get_info(IoChannel *c, BlockNbdListing *listing)
{
    g_autoptr(GByteArray) ask = g_byte_array_new();
    g_autoptr(GByteArray) data = g_byte_array_new();
    int ret;

    put_name(ask, listing->name);
    be_append16(ask, 1);
    be_append16(ask, NBD_INFO_BLOCK_SIZE);
    ret = send_option(c, NBD_OPT_INFO, ask);
    for (int i = 0; i < REPLIES_MAX && ret == 0; i++) {
        NbdOption reply;
        uint32_t type = 0;

        ret = get_reply(c, NBD_OPT_INFO, data, &type, &reply);
        if (ret < 0 || type != NBD_REP_INFO) {
            return ret;         /* an error: it has gone, or is private */
        }
        note_info(listing, &reply);
    }
    return ret < 0 ? ret : -EPROTO;
}

static int coroutine_fn get_contexts(IoChannel *c, BlockNbdListing *listing)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new();
    g_autoptr(GByteArray) ask = g_byte_array_new();
    g_autoptr(GByteArray) data = g_byte_array_new();
    int ret;

    put_name(ask, listing->name);
    be_append32(ask, 0);
    ret = send_option(c, NBD_OPT_LIST_META_CONTEXT, ask);
    for (int i = 0; ret == 0; i++) {
        uint32_t type = 0;
        NbdOption reply;
        Untrusted id;

        ret = get_reply(c, NBD_OPT_LIST_META_CONTEXT, data, &type, &reply);
        if (ret < 0 || type != NBD_REP_META_CONTEXT || i == REPLIES_MAX ||
            !nbd_option_u32(&reply, &id)) {
            break;
        }
        g_ptr_array_add(names, g_strndup((const char *)reply.data,
                                         reply.bytes));
    }
    g_ptr_array_add(names, NULL);
    listing->contexts = (char **)g_ptr_array_free(g_steal_pointer(&names),
                                                  false);
    return ret;
}

/* --- the conversation ---------------------------------------------------- */

static int coroutine_fn greet(IoChannel *c)
{
    static const uint8_t flags[4] = { 0, 0, 0, 3 };
    uint8_t hello[18];
    int ret = io_channel_read_all(c, hello, sizeof(hello));

    if (ret < 0) {
        return ret;
    }
    if (!untrusted_is(untrusted_be64(hello), NBD_MAGIC) ||
        !untrusted_is(untrusted_be64(hello + 8), NBD_OPTION_MAGIC) ||
        !(hello[17] & NBD_FLAG_FIXED_NEWSTYLE)) {
        return -EPROTO;
    }
    return io_channel_write_all(c, flags, sizeof(flags));
}

static int coroutine_fn talk(IoChannel *c, GPtrArray *list, GError **errp)
{
    int structured = plain_option(c, NBD_OPT_STRUCTURED_REPLY);
    int ret = structured < 0 ? structured : get_names(c, list);

    for (guint i = 0; i < list->len && ret == 0; i++) {
        BlockNbdListing *listing = g_ptr_array_index(list, i);

        ret = get_info(c, listing);
        if (ret == 0 && structured) {
            ret = get_contexts(c, listing);
        }
    }
    if (ret == 0) {
        send_option(c, NBD_OPT_ABORT, NULL);
        return 0;
    }
    return block_error_errno(errp, -ret, "Could not list the exports");
}

/* Take over @c, and give back what can be talked to, or NULL. */
static IoChannel *coroutine_fn secure(BlockGraph *graph, IoChannel *c,
                                      const ListOptions *o, const char *host,
                                      GError **errp)
{
    TlsCreds *creds;
    int ret;

    if (!o->tls_creds) {
        return c;
    }
    creds = graph_tls_creds(graph, o->tls_creds, false, errp);
    ret = creds ? plain_option(c, NBD_OPT_STARTTLS) : -EINVAL;
    if (ret == 1) {
        c = io_channel_co_start_tls(c, creds, host, errp);
    } else {
        if (creds && ret == 0) {
            block_error(errp, EACCES, "The server does not offer TLS");
        } else if (creds) {
            block_error_errno(errp, -ret, "Could not ask the server for TLS");
        }
        io_channel_unref(c);
        c = NULL;
    }
    tls_creds_unref(creds);
    return c;
}

static int coroutine_fn list_at(BlockGraph *graph, const SocketAddress *addr,
                                const ListOptions *o, GPtrArray *list,
                                GError **errp)
{
    int64_t deadline_ns = aio_clock_ns(graph->ctx) + PATIENCE_NS;
    IoChannel *c;
    int fd = -1;
    int ret = socket_co_connect(addr, deadline_ns, NULL, &fd, errp);

    if (ret < 0) {
        return ret;
    }
    c = io_channel_new_socket(fd);
    c->read_deadline_ns = deadline_ns;
    c->write_patience_ns = PATIENCE_NS;
    ret = greet(c);
    if (ret < 0) {
        io_channel_unref(c);
        return block_error_errno(errp, -ret, "Could not greet the server");
    }
    c = secure(graph, c, o, o->tls_hostname ? o->tls_hostname : addr->host,
               errp);
    ret = c ? talk(c, list, errp) : -EACCES;
    io_channel_unref(c);
    return ret;
}

static int coroutine_fn list_server(BlockGraph *graph, const ListOptions *o,
                                    GPtrArray *list, GError **errp)
{
    SocketAddress *addr = NULL;
    int ret = socket_address_parse(o->addr, &addr, errp);

    if (ret == 0) {
        ret = list_at(graph, addr, o, list, errp);
    }
    socket_address_free(addr);
    return ret;
}

static void free_listing(gpointer listing)
{
    blk_nbd_listing_free(listing);
}

int coroutine_fn blk_co_nbd_list(BlockGraph *graph, BlockOptions *options,
                                 GPtrArray **ret_list, GError **errp)
{
    static const BlockOption *const known[] = { list_options, NULL };
    g_autoptr(BlockOptions) taken = options;
    g_autoptr(GPtrArray) list = g_ptr_array_new_with_free_func(free_listing);
    ListOptions o = { 0 };
    int ret = block_options_absorb(taken, list_options, &o, "NBD server",
                                   errp);

    if (ret < 0) {
        return ret;
    }
    ret = block_options_check_empty(taken, known, "NBD server", errp);
    if (ret == 0) {
        ret = list_server(graph, &o, list, errp);
    }
    block_options_clear(list_options, &o);
    if (ret == 0) {
        *ret_list = g_steal_pointer(&list);
    }
    return ret;
}

typedef struct ListCall {
    BlockGraph *graph;
    BlockOptions *options;
    GPtrArray **ret;
    GError **errp;
} ListCall;

static int coroutine_fn list_entry(void *opaque)
{
    ListCall *call = opaque;

    return blk_co_nbd_list(call->graph, call->options, call->ret, call->errp);
}

int blk_nbd_list(BlockGraph *graph, BlockOptions *options,
                 GPtrArray **ret_list, GError **errp)
{
    ListCall call = { graph, options, ret_list, errp };

    return aio_co_run(graph->ctx, list_entry, &call);
}
