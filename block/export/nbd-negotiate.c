/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The handshake ("fixed newstyle").
 *
 * H1  Nothing is read ahead: after STARTTLS no byte that came before it is
 *     left, and all that was agreed on before is forgotten.
 * H2  The payload of an option is read before the option is judged, so that
 *     a refusal leaves the stream in order.  A payload that is longer than
 *     allowed is not read: the connection ends.
 * H3  One deadline for the whole of it, and a number of options.
 * H4  What the client sends is looked up, never repeated to it.
 */
#include "block/export/nbd-int.h"

#include <errno.h>
#include <string.h>

/* After an option. */
enum { NEGOTIATE_LEAVE, NEGOTIATE_SERVE, NEGOTIATE_MORE };

#define OPTION_HEADER_BYTES 16
#define CLIENT_FLAGS_KNOWN (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)

/* --- payloads ------------------------------------------------------------ */

bool nbd_option_u16(NbdOption *opt, uint16_t *ret)
{
    if (opt->bytes < sizeof(*ret)) {
        return false;
    }
    *ret = untrusted_bits(untrusted_be16(opt->data), UINT16_MAX);
    opt->data += sizeof(*ret);
    opt->bytes -= sizeof(*ret);
    return true;
}

bool nbd_option_u32(NbdOption *opt, Untrusted *ret)
{
    if (opt->bytes < 4) {
        return false;
    }
    *ret = untrusted_be32(opt->data);
    opt->data += 4;
    opt->bytes -= 4;
    return true;
}

bool nbd_option_u64(NbdOption *opt, Untrusted *ret)
{
    if (opt->bytes < 8) {
        return false;
    }
    *ret = untrusted_be64(opt->data);
    opt->data += 8;
    opt->bytes -= 8;
    return true;
}

bool nbd_option_string(NbdOption *opt, const char **ret, size_t *ret_len)
{
    Untrusted len;

    if (!nbd_option_u32(opt, &len) ||
        !untrusted_at_most(len, MIN(NBD_NAME_MAX, opt->bytes), ret_len)) {
        return false;
    }
    *ret = (const char *)opt->data;
    opt->data += *ret_len;
    opt->bytes -= *ret_len;
    return true;
}

/* --- replies ------------------------------------------------------------- */

static void put_reply(GByteArray *to, uint32_t option, uint32_t type,
                      uint32_t bytes)
{
    be_append64(to, NBD_OPTION_REPLY_MAGIC);
    be_append32(to, option);
    be_append32(to, type);
    be_append32(to, bytes);
}

static int coroutine_fn send_array(NbdClient *client, GByteArray *array)
{
    int ret = io_channel_write_all(client->channel, array->data, array->len);

    g_byte_array_unref(array);
    return ret;
}

int coroutine_fn nbd_option_reply(NbdClient *client, uint32_t option,
                                  uint32_t type, const void *data,
                                  size_t bytes)
{
    GByteArray *reply = g_byte_array_new();

    put_reply(reply, option, type, bytes);
    if (bytes > 0) {
        g_byte_array_append(reply, data, bytes);
    }
    return send_array(client, reply);
}

int coroutine_fn nbd_option_error(NbdClient *client, uint32_t option,
                                  uint32_t type, const char *text)
{
    g_assert((type & NBD_REP_ERROR_BIT) && strlen(text) < NBD_NAME_MAX);
    return nbd_option_reply(client, option, type, text, strlen(text));
}

static int coroutine_fn ack(NbdClient *client, uint32_t option)
{
    return nbd_option_reply(client, option, NBD_REP_ACK, NULL, 0);
}

/* --- choosing an export -------------------------------------------------- */

/* N2 of exports: the client has a reference from here on. */
static void choose(NbdClient *client, NbdExport *e)
{
    g_assert(!client->e);
    export_ref(&e->exp);
    e->nr_clients++;
    client->e = e;
    if (client->meta_export != e->exp.number + 1) {
        client->contexts = 0;
    }
}

static uint16_t flags_of(const NbdClient *client, const NbdExport *e)
{
    return e->flags | (client->structured ? NBD_FLAG_SEND_DF : 0);
}

static int coroutine_fn do_export_name(NbdClient *client, const NbdOption *opt)
{
    NbdExport *e = NULL;
    GByteArray *reply;
    int ret;

    if (opt->bytes <= NBD_NAME_MAX) {
        e = nbd_export_find(client->server->graph, client,
                            (const char *)opt->data, opt->bytes);
    }
    if (!e || client->extended) {
        return -EINVAL;         /* there is no way to say so */
    }
    choose(client, e);
    reply = g_byte_array_new();
    be_append64(reply, e->size);
    be_append16(reply, flags_of(client, e));
    if (!client->no_zeroes) {
        g_byte_array_set_size(reply, reply->len + 124);
        memset(reply->data + reply->len - 124, 0, 124);
    }
    ret = send_array(client, reply);
    return ret < 0 ? ret : NEGOTIATE_SERVE;
}

/* What an INFO or GO asks for. */
typedef struct InfoQuery {
    const char *name;
    size_t name_len;
    bool wants_name, wants_description, wants_block_size;
} InfoQuery;

static bool parse_info(NbdOption *opt, InfoQuery *query)
{
    uint16_t nr, what;

    if (!nbd_option_string(opt, &query->name, &query->name_len) ||
        !nbd_option_u16(opt, &nr) || opt->bytes != nr * sizeof(what)) {
        return false;
    }
    while (nbd_option_u16(opt, &what)) {
        query->wants_name |= what == NBD_INFO_NAME;
        query->wants_description |= what == NBD_INFO_DESCRIPTION;
        query->wants_block_size |= what == NBD_INFO_BLOCK_SIZE;
    }
    return true;
}

static void put_info_text(GByteArray *to, uint32_t option, uint16_t what,
                          const char *text)
{
    size_t len = strlen(text);

    put_reply(to, option, NBD_REP_INFO, 2 + len);
    be_append16(to, what);
    g_byte_array_append(to, (const void *)text, len);
}

static int coroutine_fn send_info(NbdClient *client, uint32_t option,
                                  const NbdExport *e, const InfoQuery *query)
{
    GByteArray *to = g_byte_array_new();

    if (query->wants_name) {
        put_info_text(to, option, NBD_INFO_NAME, e->name);
    }
    if (query->wants_description && e->description) {
        put_info_text(to, option, NBD_INFO_DESCRIPTION, e->description);
    }
    /* Who does not ask may send what it likes, and gets it done. */
    put_reply(to, option, NBD_REP_INFO, 14);
    be_append16(to, NBD_INFO_BLOCK_SIZE);
    be_append32(to, query->wants_block_size ? e->min_block : 1);
    be_append32(to, e->preferred_block);
    be_append32(to, NBD_PAYLOAD_MAX);
    put_reply(to, option, NBD_REP_INFO, 12);
    be_append16(to, NBD_INFO_EXPORT);
    be_append64(to, e->size);
    be_append16(to, flags_of(client, e));
    put_reply(to, option, NBD_REP_ACK, 0);
    return send_array(client, to);
}

static int coroutine_fn do_info(NbdClient *client, NbdOption *opt)
{
    InfoQuery query = { 0 };
    NbdExport *e;
    int ret;

    if (!parse_info(opt, &query)) {
        return nbd_option_error(client, opt->option, NBD_REP_ERR_INVALID,
                                "malformed option");
    }
    e = nbd_export_find(client->server->graph, client, query.name,
                        query.name_len);
    if (!e) {
        return nbd_option_error(client, opt->option, NBD_REP_ERR_UNKNOWN,
                                "export not found");
    }
    if (opt->option == NBD_OPT_GO) {
        choose(client, e);      /* before the reply: it must not go now */
    }
    ret = send_info(client, opt->option, e, &query);
    return ret < 0 ? ret
                   : opt->option == NBD_OPT_GO ? NEGOTIATE_SERVE : ret;
}

/* --- other options ------------------------------------------------------- */

static int coroutine_fn do_list(NbdClient *client, const NbdOption *opt)
{
    NbdExport *e = NULL;
    GByteArray *to;

    if (opt->bytes > 0) {
        return nbd_option_error(client, opt->option, NBD_REP_ERR_INVALID,
                                "this option has no payload");
    }
    to = g_byte_array_new();
    while ((e = nbd_export_next(client->server->graph, e))) {
        const char *text = e->description ? e->description : "";
        size_t len = strlen(e->name);

        if (!nbd_export_allows(e, client)) {
            continue;
        }
        put_reply(to, opt->option, NBD_REP_SERVER, 4 + len + strlen(text));
        be_append32(to, len);
        g_byte_array_append(to, (const void *)e->name, len);
        g_byte_array_append(to, (const void *)text, strlen(text));
    }
    put_reply(to, opt->option, NBD_REP_ACK, 0);
    return send_array(client, to);
}

/* STRUCTURED_REPLY and EXTENDED_HEADERS. */
static int coroutine_fn do_headers(NbdClient *client, const NbdOption *opt)
{
    bool extended = opt->option == NBD_OPT_EXTENDED_HEADERS;

    if (opt->bytes > 0) {
        return nbd_option_error(client, opt->option, NBD_REP_ERR_INVALID,
                                "this option has no payload");
    }
    if (client->extended && !extended) {
        return nbd_option_error(client, opt->option,
                                NBD_REP_ERR_EXT_HEADER_REQD,
                                "extended headers are agreed on already");
    }
    if (extended ? client->extended : client->structured) {
        return nbd_option_error(client, opt->option, NBD_REP_ERR_INVALID,
                                "agreed on already");
    }
    client->structured = true;
    client->extended |= extended;
    return ack(client, opt->option);
}

/* H1.  While it takes, the socket can be cut off. */
static int coroutine_fn start_tls(NbdClient *client)
{
    int ret = ack(client, NBD_OPT_STARTTLS);
    IoChannel *channel = client->channel;

    if (ret < 0) {
        return ret;
    }
    io_channel_ref(channel);    /* its socket is ours to the end */
    client->channel = io_channel_co_start_tls(channel, client->server->creds,
                                              NULL, NULL);
    if (!client->channel) {
        client->channel = channel;
        return -EPROTO;
    }
    io_channel_unref(channel);  /* the new one has it */
    client->tls = true;
    client->structured = false;
    client->extended = false;
    client->contexts = 0;
    client->meta_export = 0;
    return 0;
}

static int coroutine_fn do_starttls(NbdClient *client, const NbdOption *opt)
{
    if (opt->bytes > 0) {
        return nbd_option_error(client, opt->option, NBD_REP_ERR_INVALID,
                                "this option has no payload");
    }
    if (client->tls) {
        return nbd_option_error(client, opt->option, NBD_REP_ERR_INVALID,
                                "TLS is agreed on already");
    }
    if (!client->server->creds) {
        return nbd_option_error(client, opt->option, NBD_REP_ERR_POLICY,
                                "TLS is not configured");
    }
    return start_tls(client);
}

static int coroutine_fn do_option(NbdClient *client, NbdOption *opt)
{
    switch (opt->option) {
    case NBD_OPT_EXPORT_NAME:
        return do_export_name(client, opt);
    case NBD_OPT_ABORT:
        ack(client, opt->option); /* it may have gone already */
        return NEGOTIATE_LEAVE;
    case NBD_OPT_LIST:
        return do_list(client, opt);
    case NBD_OPT_STARTTLS:
        return do_starttls(client, opt);
    case NBD_OPT_INFO:
    case NBD_OPT_GO:
        return do_info(client, opt);
    case NBD_OPT_STRUCTURED_REPLY:
    case NBD_OPT_EXTENDED_HEADERS:
        return do_headers(client, opt);
    case NBD_OPT_LIST_META_CONTEXT:
    case NBD_OPT_SET_META_CONTEXT:
        return nbd_option_meta(client, opt);
    default:
        return nbd_option_error(client, opt->option, NBD_REP_ERR_UNSUP,
                                "unknown option");
    }
}

/* --- the handshake ------------------------------------------------------- */

static bool owes_tls(const NbdClient *client)
{
    return client->server->creds && !client->tls;
}

static int coroutine_fn judge(NbdClient *client, NbdOption *opt)
{
    int ret;

    if (owes_tls(client) && opt->option != NBD_OPT_STARTTLS &&
        opt->option != NBD_OPT_ABORT) {
        if (opt->option == NBD_OPT_EXPORT_NAME) {
            return -EPERM;      /* there is no way to say so */
        }
        return nbd_option_error(client, opt->option, NBD_REP_ERR_TLS_REQD,
                                "this server wants TLS first");
    }
    if (!client->fixed_newstyle && opt->option != NBD_OPT_EXPORT_NAME) {
        return -EINVAL;
    }
    ret = do_option(client, opt);
    return ret;
}

/* Returns NEGOTIATE_*, or a negative errno. */
static int coroutine_fn next_option(NbdClient *client)
{
    uint8_t header[OPTION_HEADER_BYTES];
    size_t bytes_max = owes_tls(client) ? NBD_OPTION_BYTES_MAX_BEFORE_TLS
                                        : NBD_OPTION_BYTES_MAX;
    g_autofree uint8_t *payload = NULL;
    NbdOption opt;
    int ret = io_channel_read_all(client->channel, header, sizeof(header));

    if (ret < 0) {
        return ret == -ENODATA ? NEGOTIATE_LEAVE : ret;
    }
    opt.option = untrusted_verbatim(untrusted_be32(header + 8));
    if (!untrusted_is(untrusted_be64(header), NBD_OPTION_MAGIC) ||
        !untrusted_at_most(untrusted_be32(header + 12), bytes_max,
                           &opt.bytes) ||
        ++client->nr_options > NBD_OPTIONS_MAX) {
        return -EINVAL;                                         /* H2, H3 */
    }
    payload = g_malloc(opt.bytes + 1);
    ret = io_channel_read_all(client->channel, payload, opt.bytes);
    if (ret < 0) {
        return ret;
    }
    opt.data = payload;
    ret = judge(client, &opt);
    if (ret == 0 && opt.option != NBD_OPT_ABORT) {
        return NEGOTIATE_MORE;
    }
    return ret;
}

static int coroutine_fn greet(NbdClient *client)
{
    GByteArray *hello = g_byte_array_new();
    uint8_t answer[4];
    uint32_t flags;
    int ret;

    be_append64(hello, NBD_MAGIC);
    be_append64(hello, NBD_OPTION_MAGIC);
    be_append16(hello, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    ret = send_array(client, hello);
    if (ret == 0) {
        ret = io_channel_read_all(client->channel, answer, sizeof(answer));
    }
    if (ret < 0) {
        return ret;
    }
    flags = untrusted_word(untrusted_be32(answer));
    client->fixed_newstyle = flags & NBD_FLAG_FIXED_NEWSTYLE;
    client->no_zeroes = flags & NBD_FLAG_NO_ZEROES;
    return flags & ~CLIENT_FLAGS_KNOWN ? -EINVAL : 0;
}

int coroutine_fn nbd_negotiate(NbdClient *client)
{
    int ret = greet(client);

    while (ret == 0) {
        ret = next_option(client);
        if (ret != NEGOTIATE_MORE) {
            return ret;
        }
        ret = 0;
    }
    return ret;
}
