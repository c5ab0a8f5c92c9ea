/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nbd: a disk that an NBD server exports.
 */
#include "block/protocols/nbd/nbd.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "block/drivers.h"
#include "block/graph/image-step.h"
#include "block/graph/tls.h"

#define NS_PER_S (INT64_C(1000) * 1000 * 1000)
#define OPEN_RETRY_NS (INT64_C(100) * 1000 * 1000)
#define CONTEXT_MAX 4096

/* --- options -------------------------------------------------------------- */

typedef struct NbdOptions {
    BlockOptions *server;
    char *host;
    char *port;
    char *path;
    char *export;
    char *tls_creds;
    char *tls_hostname;
    char *context;
    int64_t reconnect_s;
    int64_t open_timeout_s;
    int64_t connections;
    int64_t peer_timeout_s;
    int64_t request_timeout_s;
} NbdOptions;

static const BlockOption nbd_options[] = {
    { .name = "server", .type = BLOCK_OPTION_TREE,
      .offset = offsetof(NbdOptions, server),
      .help = "address: type=unix,path=..., or type=inet,host=...,port=..." },
    { .name = "host", .type = BLOCK_OPTION_STRING,
      .offset = offsetof(NbdOptions, host),
      .help = "short for server.type=inet,server.host" },
    { .name = "port", .type = BLOCK_OPTION_STRING,
      .offset = offsetof(NbdOptions, port),
      .help = "with host (default 10809)" },
    { .name = "path", .type = BLOCK_OPTION_STRING,
      .offset = offsetof(NbdOptions, path),
      .help = "short for server.type=unix,server.path" },
    { .name = "export", .type = BLOCK_OPTION_STRING, .def = "",
      .offset = offsetof(NbdOptions, export), .help = "name of the export" },
    { .name = "tls-creds", .type = BLOCK_OPTION_STRING,
      .offset = offsetof(NbdOptions, tls_creds),
      .help = "id of credentials; without them all is plain text" },
    { .name = "tls-hostname", .type = BLOCK_OPTION_STRING,
      .offset = offsetof(NbdOptions, tls_hostname),
      .help = "name in the server's certificate (default: server.host)" },
    { .name = "x-dirty-bitmap", .type = BLOCK_OPTION_STRING,
      .offset = offsetof(NbdOptions, context),
      .help = "context that block status shows in place of base:allocation; "
              "what is dirty is no data" },
    { .name = "reconnect-delay", .type = BLOCK_OPTION_NUMBER, .def = "0",
      .min = 0, .max = UINT32_MAX, .offset = offsetof(NbdOptions, reconnect_s),
      .help = "seconds that requests wait when the connection is lost" },
    { .name = "open-timeout", .type = BLOCK_OPTION_NUMBER, .def = "0",
      .min = 0, .max = UINT32_MAX,
      .offset = offsetof(NbdOptions, open_timeout_s),
      .help = "seconds to try to connect for, at first; 0: once" },
    { .name = "multi-conn", .type = BLOCK_OPTION_NUMBER, .def = "1",
      .min = 1, .max = NBD_CONNECTIONS_MAX,
      .offset = offsetof(NbdOptions, connections),
      .help = "connections to use, if the server allows for several" },
    { .name = "peer-timeout", .type = BLOCK_OPTION_NUMBER, .def = "60",
      .min = 0, .max = NBD_PEER_TIMEOUT_MAX_S,
      .offset = offsetof(NbdOptions, peer_timeout_s),
      .help = "TCP: seconds without any answer after which the server is "
              "taken for gone; 0: when the system says so" },
    { .name = "request-timeout", .type = BLOCK_OPTION_NUMBER, .def = "0",
      .min = 0, .max = UINT32_MAX,
      .offset = offsetof(NbdOptions, request_timeout_s),
      .help = "seconds that the server may take for one request before the "
              "connection is given up; 0: as long as it likes" },
    { .type = BLOCK_OPTION_END },
};

/* What host, port and path are short for. */
static int parse_address(const NbdOptions *o, SocketAddress **ret,
                         GError **errp)
{
    if (!!o->server + !!o->host + !!o->path != 1) {
        return block_error(errp, EINVAL, "One of 'server', 'host' and 'path' "
                           "must be given");
    }
    if (o->server) {
        return socket_address_parse(o->server, ret, errp);
    }
    if (o->port && !o->host) {
        return block_error(errp, EINVAL, "'port' goes with 'host'");
    }
    *ret = o->path ? socket_address_new_unix(o->path)
                   : socket_address_new_inet(o->host,
                                             o->port ? o->port : "10809");
    return 0;
}

static int take_options(NbdClient *s, BlockOptions *options,
                        int64_t *ret_open_ns, GError **errp)
{
    g_autofree char *what = g_strdup_printf("Node '%s' (driver 'nbd')",
                                            bdrv_node_name(s->bs));
    NbdOptions o;
    int ret = block_options_absorb(options, nbd_options, &o, what, errp);

    if (ret < 0) {
        return ret;
    }
    ret = parse_address(&o, &s->address, errp);
    if (ret == 0 && (strlen(o.export) > NBD_NAME_MAX ||
                     (o.context && strlen(o.context) > CONTEXT_MAX))) {
        ret = block_error(errp, EINVAL, "%s: a name is longer than %d bytes",
                          what, NBD_NAME_MAX);
    }
    if (ret == 0 && o.tls_creds) {
        s->creds = graph_tls_creds(bdrv_graph(s->bs), o.tls_creds, false,
                                   errp);
        ret = s->creds ? 0 : -EINVAL;
    }
    if (ret == 0) {
        s->tls_hostname = g_steal_pointer(&o.tls_hostname);
        s->export = g_steal_pointer(&o.export);
        s->context = g_steal_pointer(&o.context);
        s->reconnect_ns = o.reconnect_s * NS_PER_S;
        s->nr_conns = o.connections;
        s->peer_timeout_s = o.peer_timeout_s;
        s->request_timeout_ns = o.request_timeout_s * NS_PER_S;
        *ret_open_ns = o.open_timeout_s * NS_PER_S;
    }
    block_options_clear(nbd_options, &o);
    return ret;
}

/* --- open and close ------------------------------------------------------- */

static void init_connections(NbdClient *s)
{
    for (unsigned i = 0; i < s->nr_conns; i++) {
        NbdConnection *c = &s->conns[i];

        c->client = s;
        c->next_cookie = i;
        c->buf = g_malloc(NBD_READ_BUFFER);
        co_mutex_init(&c->send_lock);
    }
    co_queue_init(&s->waiting);
    s->unflushed = NBD_NOTHING;
    nbd_client_init_timers(s);
}

/* The first connection, tried for @open_ns, and no longer than an image may
 * take to open: a server that says nothing is no better than a long image. */
static int coroutine_fn connect_first(NbdClient *s, int64_t open_ns,
                                      GError **errp)
{
    int64_t end = aio_clock_ns(s->ctx) + open_ns;
    int64_t deadline = MIN(open_ns ? end : AIO_NO_DEADLINE,
                           image_step_deadline_ns(s->bs));
    g_autofree char *address = socket_address_text(s->address);
    GError *error = NULL;
    int ret;

    for (;;) {
        ret = nbd_connect(&s->conns[0], deadline, &error);
        if (ret == 0 || aio_clock_ns(s->ctx) + OPEN_RETRY_NS >= end ||
            bdrv_image_step(s->bs, NULL) < 0) {
            break;
        }
        g_clear_error(&error);
        co_sleep_ns(OPEN_RETRY_NS);
    }
    if (ret < 0) {
        block_error(errp, -ret, "Node '%s': NBD server at %s: %s",
                    bdrv_node_name(s->bs), address,
                    error ? error->message : g_strerror(-ret));
        g_clear_error(&error);
    }
    return ret;
}

static int check_access(NbdClient *s, unsigned flags, GError **errp)
{
    if (!(s->info.flags & NBD_FLAG_READ_ONLY) || !(flags & BDRV_O_RDWR)) {
        return 0;
    }
    if (flags & BDRV_O_AUTO_RDONLY) {
        bdrv_set_read_only(s->bs, true);
        return 0;
    }
    return block_error(errp, EACCES, "Node '%s': the NBD server exports '%s' "
                       "read-only", bdrv_node_name(s->bs), s->export);
}

static void free_client(NbdClient *s)
{
    for (unsigned i = 0; i < s->nr_conns; i++) {
        g_clear_pointer(&s->conns[i].buf, g_free);
    }
    nbd_client_free_timers(s);
    socket_address_free(s->address);
    tls_creds_unref(s->creds);
    g_free(s->tls_hostname);
    g_free(s->export);
    g_free(s->context);
}

static void coroutine_fn nbd_close(BlockDriverState *bs)
{
    NbdClient *s = bdrv_opaque(bs);

    for (unsigned i = 0; i < s->nr_conns; i++) {
        nbd_disconnect(&s->conns[i]);
    }
    free_client(s);
}

static int coroutine_fn nbd_open(BlockDriverState *bs, BlockOptions *options,
                                 unsigned flags, GError **errp)
{
    NbdClient *s = bdrv_opaque(bs);
    g_autofree char *address = NULL, *name = NULL;
    int64_t open_ns = 0;
    int ret;

    s->bs = bs;
    s->ctx = block_graph_aio_context(bdrv_graph(bs));
    ret = take_options(s, options, &open_ns, errp);
    if (ret < 0) {
        socket_address_free(s->address);
        return ret;
    }
    address = socket_address_text(s->address);
    name = g_strdup_printf("nbd:%s:%s", address, s->export);
    bdrv_set_filename(bs, name);
    init_connections(s);
    ret = connect_first(s, open_ns, errp);
    if (ret == 0) {
        s->info = s->conns[0].info;
        ret = check_access(s, flags, errp);
    }
    if (ret < 0) {
        nbd_close(bs);
        return ret;
    }
    if (!(s->info.flags & NBD_FLAG_CAN_MULTI_CONN)) {
        for (unsigned i = 1; i < s->nr_conns; i++) {
            g_clear_pointer(&s->conns[i].buf, g_free);
        }
        s->nr_conns = 1;
    }
    for (unsigned i = 0; i < s->nr_conns; i++) {
        nbd_keep_connected(&s->conns[i]);
    }
    return 0;
}

static void nbd_refresh_limits(BlockDriverState *bs, BlockLimits *limits)
{
    const NbdClient *s = bdrv_opaque(bs);
    unsigned flags = s->info.flags;
    unsigned fua = flags & NBD_FLAG_SEND_FUA ? BDRV_REQ_FUA : 0;
    int64_t largest = s->info.extended ? 0 : UINT32_MAX -
                                             UINT32_MAX % s->info.min_block;

    limits->request_alignment = s->info.min_block;
    limits->max_transfer = s->info.max_block;
    limits->opt_transfer = MIN(s->info.opt_block, s->info.max_block);
    limits->max_pwrite_zeroes = limits->max_pdiscard = largest;
    limits->max_iov = IOV_MAX - 1;
    limits->write_flags = fua;
    if (flags & NBD_FLAG_SEND_WRITE_ZEROES) {
        limits->zero_flags = fua | BDRV_REQ_MAY_UNMAP;
        if (flags & NBD_FLAG_SEND_FAST_ZERO) {
            limits->zero_flags |= BDRV_REQ_NO_FALLBACK;
        }
    }
}

/* Nobody who drains waits for a server that is not there: who waits for it
 * fails. */
static void nbd_drain_begin(BlockDriverState *bs)
{
    NbdClient *s = bdrv_opaque(bs);

    s->drained = true;
    s->silent_ns = 0;
    co_queue_restart_all(&s->waiting);
}

static void nbd_drain_end(BlockDriverState *bs)
{
    ((NbdClient *)bdrv_opaque(bs))->drained = false;
}

/* --- requests ------------------------------------------------------------- */

static int coroutine_fn nbd_preadv(BlockDriverState *bs, const BlockIO *io)
{
    NbdClient *s = bdrv_opaque(bs);
    NbdRequest req = { .type = NBD_CMD_READ, .offset = io->offset,
                       .bytes = io->bytes, .iov = io->iov };

    return nbd_request(s, &req);
}

static unsigned write_flags(const BlockIO *io)
{
    return io->flags & BDRV_REQ_FUA ? NBD_CMD_FLAG_FUA : 0;
}

static int coroutine_fn nbd_pwritev(BlockDriverState *bs, const BlockIO *io)
{
    NbdClient *s = bdrv_opaque(bs);
    NbdRequest req = { .type = NBD_CMD_WRITE, .flags = write_flags(io),
                       .offset = io->offset, .bytes = io->bytes,
                       .iov = io->iov };

    return nbd_request(s, &req);
}

static int coroutine_fn nbd_pwrite_zeroes(BlockDriverState *bs,
                                          const BlockIO *io)
{
    NbdClient *s = bdrv_opaque(bs);
    NbdRequest req = { .type = NBD_CMD_WRITE_ZEROES, .flags = write_flags(io),
                       .offset = io->offset, .bytes = io->bytes };

    if (!(s->info.flags & NBD_FLAG_SEND_WRITE_ZEROES)) {
        return -ENOTSUP;
    }
    if (!(io->flags & BDRV_REQ_MAY_UNMAP)) {
        req.flags |= NBD_CMD_FLAG_NO_HOLE;
    }
    if (io->flags & BDRV_REQ_NO_FALLBACK) {
        req.flags |= NBD_CMD_FLAG_FAST_ZERO;
    }
    return nbd_request(s, &req);
}

static int coroutine_fn nbd_pdiscard(BlockDriverState *bs, const BlockIO *io)
{
    NbdClient *s = bdrv_opaque(bs);
    NbdRequest req = { .type = NBD_CMD_TRIM, .offset = io->offset,
                       .bytes = io->bytes };

    return s->info.flags & NBD_FLAG_SEND_TRIM ? nbd_request(s, &req) : -ENOTSUP;
}

static int coroutine_fn nbd_flush(BlockDriverState *bs)
{
    NbdClient *s = bdrv_opaque(bs);
    NbdRequest req = { .type = NBD_CMD_FLUSH };

    return s->info.flags & NBD_FLAG_SEND_FLUSH ? nbd_request(s, &req) : 0;
}

static int64_t coroutine_fn nbd_getlength(BlockDriverState *bs)
{
    return ((NbdClient *)bdrv_opaque(bs))->info.bytes;
}

/* --- block status --------------------------------------------------------- */

static int coroutine_fn nbd_block_status(BlockDriverState *bs,
                                         const BlockIO *io, BlockExtent *ret)
{
    NbdClient *s = bdrv_opaque(bs);
    int64_t most = s->info.extended ? INT64_MAX
                                    : UINT32_MAX -
                                      UINT32_MAX % s->info.min_block;
    NbdRequest req = { .type = NBD_CMD_BLOCK_STATUS,
                       .flags = NBD_CMD_FLAG_REQ_ONE, .offset = io->offset,
                       .bytes = MIN(io->bytes, most) };
    int status;

    *ret = (BlockExtent){ .bytes = io->bytes, .map = io->offset, .file = bs,
                          .status = BDRV_BLOCK_OFFSET_VALID |
                                    BDRV_BLOCK_DATA };
    if (!s->info.has_context) {
        return 0;
    }
    status = nbd_request(s, &req);
    if (status < 0) {
        return status;
    }
    ret->bytes = req.extent_bytes - req.extent_bytes % s->info.min_block;
    if (ret->bytes == 0) {
        ret->bytes = s->info.min_block; /* in part data */
        return 0;
    }
    ret->status = BDRV_BLOCK_OFFSET_VALID;
    if (!(req.extent_flags & NBD_STATE_HOLE)) {
        ret->status |= BDRV_BLOCK_DATA;
    }
    if ((req.extent_flags & NBD_STATE_ZERO) && !s->context) {
        ret->status |= BDRV_BLOCK_ZERO;
    }
    return 0;
}

const BlockDriver block_driver_nbd = {
    .struct_size = sizeof(BlockDriver),
    .name = "nbd",
    .kind = BLOCK_DRIVER_PROTOCOL,
    .state_size = sizeof(NbdClient),
    .options = nbd_options,
    .open = nbd_open,
    .close = nbd_close,
    .refresh_limits = nbd_refresh_limits,
    .drain_begin = nbd_drain_begin,
    .drain_end = nbd_drain_end,
    .preadv = nbd_preadv,
    .pwritev = nbd_pwritev,
    .pwrite_zeroes = nbd_pwrite_zeroes,
    .pdiscard = nbd_pdiscard,
    .flush = nbd_flush,
    .getlength = nbd_getlength,
    .block_status = nbd_block_status,
};
