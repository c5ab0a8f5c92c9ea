/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The handshake of a client, as the NBD protocol's public document has it
 * ("newstyle", fixed or not).
 *
 * Whatever the server does not know is done without: extended headers, then
 * structured replies, then the list of contexts, then NBD_OPT_GO.
 */
#include "block/protocols/nbd/nbd.h"

#include <errno.h>
#include <string.h>

#define REPLY_MAX (64 << 10) /* payload of one reply that is kept */
#define REPLIES_MAX 64       /* to one option */

static void put_text(GByteArray *to, const char *text)
{
    be_append32(to, strlen(text));
    g_byte_array_append(to, (const uint8_t *)text, strlen(text));
}

/* --- options -------------------------------------------------------------- */

/* One reply of the server to an option. */
typedef struct Reply {
    uint32_t type;
    uint32_t bytes;
    uint8_t *data; /* and a 0 behind it */
} Reply;

static void reply_clear(Reply *r)
{
    g_clear_pointer(&r->data, g_free);
}

static int coroutine_fn send_option(NbdConnection *c, uint32_t option,
                                    const GByteArray *data)
{
    g_autoptr(GByteArray) out = g_byte_array_new();

    be_append64(out, NBD_OPTION_MAGIC);
    be_append32(out, option);
    be_append32(out, data ? data->len : 0);
    if (data) {
        g_byte_array_append(out, data->data, data->len);
    }
    return io_channel_write_all(c->channel, out->data, out->len);
}

static int coroutine_fn read_reply(NbdConnection *c, uint32_t option,
                                   Reply *r, GError **errp)
{
    uint8_t head[20];
    int ret = nbd_read(c, head, sizeof(head));

    if (ret < 0) {
        return ret;
    }
    *r = (Reply){ .type = untrusted_word(untrusted_be32(head + 12)) };
    if (!untrusted_is(untrusted_be64(head), NBD_OPTION_REPLY_MAGIC) ||
        !untrusted_is(untrusted_be32(head + 8), option) ||
        !untrusted_at_most(untrusted_be32(head + 16), REPLY_MAX, &r->bytes)) {
        return block_error(errp, EPROTO, "The server's reply to option %u is "
                           "none", option);
    }
    r->data = g_malloc0(r->bytes + 1);
    ret = nbd_read(c, r->data, r->bytes);
    if (ret < 0) {
        reply_clear(r);
    }
    return ret;
}

/* The text of an error reply, as much as the protocol allows; it is escaped
 * where it becomes part of an error. */
static char *text_of(const Reply *r)
{
    const char *text = (const char *)r->data;
    size_t len = strnlen(text, r->bytes);

    if (len <= NBD_TEXT_MAX) {
        return g_strdup(text);
    }
    for (len = NBD_TEXT_MAX; (text[len] & 0xc0) == 0x80 && len > 0; len--) {
        continue;               /* not within a character */
    }
    return g_strdup_printf("%.*s...", (int)len, text);
}

/* What an error reply says.  Returns a negative errno, with the reason. */
static int refused(const Reply *r, const char *what, GError **errp)
{
    g_autofree char *text = text_of(r);
    int err = r->type == NBD_REP_ERR_UNKNOWN    ? ENOENT
              : r->type == NBD_REP_ERR_SHUTDOWN ? ESHUTDOWN
              : r->type == NBD_REP_ERR_TLS_REQD ? EACCES
              : r->type == NBD_REP_ERR_POLICY   ? EACCES
              : r->type == NBD_REP_ERR_UNSUP    ? ENOTSUP
                                                : EINVAL;

    return block_error(errp, err, "The NBD server refuses %s%s%s%s", what,
                       r->type == NBD_REP_ERR_TLS_REQD ? " without TLS" : "",
                       text[0] ? ": " : "", text);
}

/* Ask for something that needs no data.  1: granted; 0: not known there. */
static int coroutine_fn ask(NbdConnection *c, uint32_t option,
                            const char *what, GError **errp)
{
    Reply r = { 0 };
    int ret = send_option(c, option, NULL);

    ret = ret < 0 ? ret : read_reply(c, option, &r, errp);
    if (ret < 0) {
        return ret;
    }
    if (r.type == NBD_REP_ACK) {
        ret = 1;
    } else if (r.type == NBD_REP_ERR_TLS_REQD ||
               r.type == NBD_REP_ERR_SHUTDOWN ||
               (option == NBD_OPT_STARTTLS && (r.type & NBD_REP_ERROR_BIT) &&
                r.type != NBD_REP_ERR_UNSUP)) {
        ret = refused(&r, what, errp);
    } else if (!(r.type & NBD_REP_ERROR_BIT)) {
        ret = block_error(errp, EPROTO, "The server's reply to %s is none",
                          what);
    }
    reply_clear(&r);
    return ret;
}

/* Choose the context that block status is asked about. */
static int coroutine_fn ask_context(NbdConnection *c, NbdExportInfo *info,
                                    GError **errp)
{
    const NbdClient *s = c->client;
    g_autoptr(GByteArray) out = g_byte_array_new();
    const char *name = s->context ? s->context : "base:allocation";
    int ret;

    put_text(out, s->export);
    be_append32(out, 1);
    put_text(out, name);
    ret = send_option(c, NBD_OPT_SET_META_CONTEXT, out);
    for (int i = 0; ret == 0 && i < REPLIES_MAX; i++) {
        Reply r = { 0 };

        ret = read_reply(c, NBD_OPT_SET_META_CONTEXT, &r, errp);
        if (ret < 0) {
            return ret;
        }
        if (r.type == NBD_REP_META_CONTEXT &&
            r.bytes == 4 + strlen(name) &&
            memcmp(r.data + 4, name, strlen(name)) == 0) {
            info->has_context = true;
            info->context = untrusted_verbatim(untrusted_be32(r.data));
        } else if (r.type != NBD_REP_META_CONTEXT) {
            /* The end, or an error: then it is done without. */
            ret = 1;
        }
        reply_clear(&r);
    }
    if (ret == 0) {
        return block_error(errp, EPROTO, "The server does not stop to name "
                           "contexts");
    }
    if (ret > 0 && s->context && !info->has_context) {
        return block_error(errp, ENOENT, "The export has no context '%s'",
                           s->context);
    }
    return MIN(ret, 0);
}

/* --- the export ----------------------------------------------------------- */

static unsigned be16(const uint8_t *p)
{
    return untrusted_bits(untrusted_be16(p), UINT16_MAX);
}

static int take_size(NbdExportInfo *info, Untrusted bytes, GError **errp)
{
    if (!untrusted_at_most(bytes, BDRV_MAX_LENGTH, &info->bytes)) {
        return block_error(errp, EFBIG, "The export says that it is too long: "
                           "%" G_GUINT64_FORMAT " bytes",
                           untrusted_verbatim(bytes));
    }
    return 0;
}

static bool power_of_two(uint32_t n)
{
    return n && !(n & (n - 1));
}

/* The sizes of blocks at @p.  What is above the most that we send makes no
 * difference. */
static int take_blocks(NbdExportInfo *info, const uint8_t *p, GError **errp)
{
    Untrusted min = untrusted_be32(p);
    Untrusted opt = untrusted_be32(p + 4);
    Untrusted max = untrusted_be32(p + 8);

    if (!untrusted_at_most(min, 65536, &info->min_block) ||
        !power_of_two(info->min_block) ||
        !untrusted_above(opt, info->min_block - 1) ||
        !untrusted_above(max, info->min_block - 1)) {
        return block_error(errp, EPROTO, "The block sizes of the export "
                           "make no sense: %u, %u, %u",
                           (unsigned)untrusted_verbatim(min),
                           (unsigned)untrusted_verbatim(opt),
                           (unsigned)untrusted_verbatim(max));
    }
    if (!untrusted_at_most(opt, NBD_DATA_MAX, &info->opt_block)) {
        info->opt_block = NBD_DATA_MAX;
    }
    if (!untrusted_at_most(max, NBD_DATA_MAX, &info->max_block)) {
        info->max_block = NBD_DATA_MAX;
    }
    return 0;
}

static int take_info(NbdExportInfo *info, const Reply *r, GError **errp)
{
    const uint8_t *p = r->data;
    unsigned type = r->bytes >= 2 ? be16(p) : UINT16_MAX;

    if (type == NBD_INFO_EXPORT && r->bytes == 12) {
        info->flags = be16(p + 10);
        return take_size(info, untrusted_be64(p + 2), errp);
    }
    if (type == NBD_INFO_BLOCK_SIZE && r->bytes == 14) {
        return take_blocks(info, p + 2, errp);
    }
    return type == NBD_INFO_EXPORT || type == NBD_INFO_BLOCK_SIZE
               ? block_error(errp, EPROTO, "What the server says of the "
                             "export has the wrong length")
               : 0;
}

/* 1: chosen; 0: the server does not know the option. */
static int coroutine_fn go(NbdConnection *c, NbdExportInfo *info,
                           GError **errp)
{
    g_autoptr(GByteArray) out = g_byte_array_new();
    static const uint8_t wanted[] = { 0, 1, 0, NBD_INFO_BLOCK_SIZE };
    bool has_export = false;
    int ret;

    put_text(out, c->client->export);
    g_byte_array_append(out, wanted, sizeof(wanted));
    ret = send_option(c, NBD_OPT_GO, out);
    for (int i = 0; ret == 0 && i < REPLIES_MAX; i++) {
        Reply r = { 0 };

        ret = read_reply(c, NBD_OPT_GO, &r, errp);
        if (ret < 0) {
            return ret;
        }
        if (r.type == NBD_REP_INFO) {
            ret = take_info(info, &r, errp);
            has_export |= r.bytes >= 2 && be16(r.data) == NBD_INFO_EXPORT;
        } else if (r.type == NBD_REP_ACK) {
            ret = has_export ? 1 : -EPROTO;
        } else if (r.type == NBD_REP_ERR_UNSUP) {
            reply_clear(&r);
            return 0;
        } else {
            ret = r.type & NBD_REP_ERROR_BIT
                      ? refused(&r, "the export", errp) : -EPROTO;
        }
        reply_clear(&r);
    }
    return ret == 0 ? -EPROTO : ret;
}

/* The old way: the server answers with the export, or hangs up. */
static int coroutine_fn choose_by_name(NbdConnection *c, NbdExportInfo *info,
                                       bool no_zeroes, GError **errp)
{
    g_autoptr(GByteArray) out = g_byte_array_new();
    uint8_t answer[10];
    int ret;

    g_byte_array_append(out, (const uint8_t *)c->client->export,
                        strlen(c->client->export));
    ret = send_option(c, NBD_OPT_EXPORT_NAME, out);
    ret = ret < 0 ? ret : nbd_read(c, answer, sizeof(answer));
    if (ret == 0 && !no_zeroes) {
        ret = nbd_skip(c, 124);
    }
    if (ret < 0) {
        return block_error_errno(errp, -ret, "The server has no export '%s'",
                                 c->client->export);
    }
    info->flags = be16(answer + 8);
    return take_size(info, untrusted_be64(answer), errp);
}

/* All that follows is under TLS, and nothing was agreed on before. */
static int coroutine_fn start_tls(NbdConnection *c, GError **errp)
{
    const NbdClient *s = c->client;
    IoChannel *plain = c->channel, *tls;
    int ret = ask(c, NBD_OPT_STARTTLS, "TLS", errp);

    if (ret <= 0) {
        return ret < 0 ? ret
                       : block_error(errp, ENOTSUP, "The NBD server has no "
                                     "TLS");
    }
    if (c->buf_pos != c->buf_end) {
        return block_error(errp, EPROTO, "The NBD server says something in "
                           "plain text before TLS begins");
    }
    /* The plain one stays in its place: close must find what to shut. */
    tls = io_channel_co_start_tls(
        io_channel_ref(plain), s->creds,
        s->tls_hostname ? s->tls_hostname : s->address->host, errp);
    if (!tls) {
        return -EACCES;
    }
    c->channel = tls;
    io_channel_unref(plain);    /* the new one has it */
    return 0;
}

static int coroutine_fn haggle(NbdConnection *c, NbdExportInfo *info,
                               bool no_zeroes, GError **errp)
{
    int ret = c->client->creds ? start_tls(c, errp) : 0;

    if (ret == 0) {
        ret = ask(c, NBD_OPT_EXTENDED_HEADERS, "extended headers", errp);
    }
    if (ret < 0) {
        return ret;
    }
    info->extended = info->structured = ret;
    if (!info->structured) {
        ret = ask(c, NBD_OPT_STRUCTURED_REPLY, "structured replies", errp);
        if (ret < 0) {
            return ret;
        }
        info->structured = ret;
    }
    if (info->structured) {
        ret = ask_context(c, info, errp);
    } else if (c->client->context) {
        ret = block_error(errp, ENOTSUP, "The server has no contexts");
    }
    if (ret < 0) {
        return ret;
    }
    ret = go(c, info, errp);
    return ret == 0 ? choose_by_name(c, info, no_zeroes, errp)
                    : MIN(ret, 0);
}

int coroutine_fn nbd_greet(NbdConnection *c, NbdExportInfo *info,
                           GError **errp)
{
    uint8_t hello[18], answer[4];
    bool no_zeroes, fixed;
    unsigned flags;
    int ret = nbd_read(c, hello, sizeof(hello));

    if (ret < 0) {
        return ret;
    }
    if (!untrusted_is(untrusted_be64(hello), NBD_MAGIC) ||
        !untrusted_is(untrusted_be64(hello + 8), NBD_OPTION_MAGIC)) {
        return block_error(errp, EPROTO, "This is no NBD server (or one from "
                           "before \"newstyle\")");
    }
    flags = be16(hello + 16) & (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    no_zeroes = flags & NBD_FLAG_NO_ZEROES;
    fixed = flags & NBD_FLAG_FIXED_NEWSTYLE;
    be_put32(answer, flags);
    ret = io_channel_write_all(c->channel, answer, sizeof(answer));
    if (ret < 0) {
        return ret;
    }
    info->min_block = 1;
    info->max_block = NBD_DATA_MAX;
    if (c->client->creds && !fixed) {
        return block_error(errp, ENOTSUP, "The NBD server has no TLS");
    }
    ret = fixed ? haggle(c, info, no_zeroes, errp)
                : choose_by_name(c, info, no_zeroes, errp);
    info->max_block = MIN(info->max_block, NBD_DATA_MAX);
    info->max_block -= info->max_block % info->min_block;
    info->bytes -= info->bytes % info->min_block; /* what can be asked for */
    return ret;
}
