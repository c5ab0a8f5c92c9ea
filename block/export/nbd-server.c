/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The NBD server of a graph: listening, limits, the end.
 *
 * The server outlives its clients and acceptors, all of which end by
 * themselves once their sockets are cut off; those who stop it wait for that,
 * and the last of them frees it.
 */
#include "block/export/nbd-int.h"

#include "block/graph/graph-int.h"
#include "block/graph/tls.h"

#include <errno.h>
#include <unistd.h>

#define MAX_CONNECTIONS "100"
#define MAX_PER_PEER "10"

/* When there are no descriptors left: look again after so long. */
#define ACCEPT_RETRY_NS (100 * 1000 * 1000)

typedef struct ServerOptions {
    BlockOptions *addr;
    char *tls_creds;
    int64_t max_connections, max_per_peer, handshake_ms;
    bool plain_text, any_uid;
} ServerOptions;

static const BlockOption server_options[] = {
    { "addr", BLOCK_OPTION_TREE, .required = true,
      .offset = offsetof(ServerOptions, addr), .help = "where to listen" },
    { "tls-creds", BLOCK_OPTION_STRING,
      .offset = offsetof(ServerOptions, tls_creds),
      .help = "id of the credentials; then TLS is required" },
    { "max-connections", BLOCK_OPTION_NUMBER, .def = MAX_CONNECTIONS,
      .max = 1 << 20, .offset = offsetof(ServerOptions, max_connections),
      .help = "connections at a time; 0: no limit" },
    { "max-connections-per-peer", BLOCK_OPTION_NUMBER, .def = MAX_PER_PEER,
      .max = 1 << 20, .offset = offsetof(ServerOptions, max_per_peer),
      .help = "of these, for one user or address; 0: no limit" },
    { "handshake-max-ms", BLOCK_OPTION_NUMBER, .def = "10000",
      .min = 1, .max = 3600 * 1000,
      .offset = offsetof(ServerOptions, handshake_ms),
      .help = "how long a handshake may take" },
    { "plain-text", BLOCK_OPTION_BOOL, .def = "off",
      .offset = offsetof(ServerOptions, plain_text),
      .help = "listen for other machines without TLS" },
    { "any-uid", BLOCK_OPTION_BOOL, .def = "off",
      .offset = offsetof(ServerOptions, any_uid),
      .help = "let in other users of this machine whom the mode of the "
              "socket lets connect" },
    { NULL },
};

/* --- accepting ----------------------------------------------------------- */

struct Acceptor {
    NbdServer *server;
    AioSocket *socket;
};

/* Served clients are never dropped; who comes waits until one leaves. */
static bool is_full(const NbdServer *server)
{
    return server->max_connections &&
           server->nr_clients >= server->max_connections &&
           server->nr_handshakes == 0;
}

static void coroutine_fn accept_entry(void *opaque)
{
    Acceptor *a = opaque;
    NbdServer *server = a->server;

    while (!server->stopping) {
        int fd;
        int ret;

        ret = aio_socket_accept(a->socket, &fd, AIO_NO_DEADLINE);
        while (ret == 0 && is_full(server) && !server->stopping) {
            co_queue_wait(&server->changed, NULL);
        }
        if (ret == 0 && server->stopping) {
            close(fd);
        } else if (ret == 0) {
            nbd_client_start(server, fd);
        } else if (!server->stopping) {
            co_sleep_ns(ACCEPT_RETRY_NS);
        }
    }
    server->nr_acceptors--;
    co_queue_restart_all(&server->changed);
}

/* --- start --------------------------------------------------------------- */

static int coroutine_fn start_listening(NbdServer *server,
                                        const ServerOptions *o, GError **errp)
{
    SocketAddress *addr = NULL;
    int ret = socket_address_parse(o->addr, &addr, errp);

    if (ret == 0) {
        ret = block_options_check_empty(o->addr, NULL, "NBD server address",
                                        errp);
    }
    if (ret == 0) {
        server->listener = socket_co_listen(addr, o->plain_text ||
                                            o->tls_creds, errp);
        ret = server->listener ? 0 : -EADDRNOTAVAIL;
    }
    socket_address_free(addr);
    return ret;
}

static void server_free(NbdServer *server)
{
    socket_listener_free(server->listener);
    tls_creds_unref(server->creds);
    g_free(server->acceptors);
    g_free(server);
}

static NbdServer *server_new(BlockGraph *graph, const ServerOptions *o)
{
    NbdServer *server = g_new0(NbdServer, 1);

    server->graph = graph;
    server->max_connections = o->max_connections;
    server->max_per_peer = o->max_per_peer;
    server->handshake_ns = o->handshake_ms * 1000 * 1000;
    server->patience_ns = NBD_PATIENCE_NS;
    server->any_uid = o->any_uid;
    list_init(&server->clients);
    co_queue_init(&server->changed);
    mem_budget_init(&server->memory, NBD_SERVER_BYTES_MAX);
    return server;
}

static int coroutine_fn start_server(BlockGraph *graph, const ServerOptions *o,
                                     GError **errp)
{
    TlsCreds *creds = NULL;
    NbdServer *server;
    int ret;

    if (*export_nbd_server(graph)) {
        return block_error(errp, EBUSY, "NBD server already running");
    }
    if (o->tls_creds) {
        creds = graph_tls_creds(graph, o->tls_creds, true, errp);
        if (!creds) {
            return -ENOENT;
        }
    }
    server = server_new(graph, o);
    server->creds = creds;
    ret = start_listening(server, o, errp);
    if (ret == 0 && *export_nbd_server(graph)) { /* while we waited */
        ret = block_error(errp, EBUSY, "NBD server already running");
    }
    if (ret < 0) {
        server_free(server);
        return ret;
    }
    *export_nbd_server(graph) = server;
    server->acceptors = g_new0(Acceptor, server->listener->nr_sockets);
    for (int i = 0; i < server->listener->nr_sockets; i++) {
        Acceptor *a = &server->acceptors[i];

        a->server = server;
        a->socket = server->listener->sockets[i];
        server->nr_acceptors++;
        aio_co_enter(graph->ctx, coroutine_create(accept_entry, a));
    }
    return 0;
}

int coroutine_fn blk_co_nbd_server_start(BlockGraph *graph,
                                         BlockOptions *options, GError **errp)
{
    static const BlockOption *const known[] = { server_options, NULL };
    g_autoptr(BlockOptions) taken = options;
    ServerOptions o = { 0 };
    int ret = block_options_absorb(taken, server_options, &o, "NBD server",
                                   errp);

    if (ret < 0) {
        return ret;
    }
    ret = block_options_check_empty(taken, known, "NBD server", errp);
    if (ret == 0) {
        ret = start_server(graph, &o, errp);
    }
    block_options_clear(server_options, &o);
    return ret;
}

/* --- stop ---------------------------------------------------------------- */

static bool is_quiet(const NbdServer *server)
{
    return server->nr_acceptors == 0 && list_empty(&server->clients);
}

/* Once only.  From its end on another server may start. */
static void coroutine_fn stop_server(NbdServer *server)
{
    BlockGraph *graph = server->graph;

    server->stopping = true;
    for (int i = 0; i < server->listener->nr_sockets; i++) {
        aio_socket_shutdown(server->listener->sockets[i]);
    }
    LIST_FOREACH(link, &server->clients) {
        nbd_client_cut_off(LIST_ENTRY(link, NbdClient, link));
    }
    co_queue_restart_all(&server->changed);
    export_co_close_type(graph, "nbd");
    while (!is_quiet(server)) {
        co_queue_wait(&server->changed, NULL);
    }
    *export_nbd_server(graph) = NULL;
    server->stopped = true;
    co_queue_restart_all(&server->changed);
}

void coroutine_fn blk_co_nbd_server_stop(BlockGraph *graph)
{
    NbdServer *server = *export_nbd_server(graph);

    if (!server) {
        return;
    }
    server->nr_stoppers++;
    if (!server->stopping) {
        stop_server(server);
    }
    while (!server->stopped) {
        co_queue_wait(&server->changed, NULL);
    }
    if (--server->nr_stoppers == 0) {
        server_free(server);
    }
}

bool blk_nbd_server_query(BlockGraph *graph, BlockNbdServerInfo *info)
{
    NbdServer *server = *export_nbd_server(graph);

    if (!server) {
        return false;
    }
    *info = (BlockNbdServerInfo) {
        .port = socket_listener_port(server->listener),
        .nr_clients = server->nr_clients,
        .nr_handshakes = server->nr_handshakes,
        .nr_served = server->nr_served,
        .bytes_in_flight = mem_budget_used(&server->memory),
    };
    return true;
}

/* --- outside coroutines -------------------------------------------------- */

typedef struct ServerCall {
    BlockGraph *graph;
    BlockOptions *options;
    GError **errp;
} ServerCall;

static int coroutine_fn start_entry(void *opaque)
{
    ServerCall *call = opaque;

    return blk_co_nbd_server_start(call->graph, call->options, call->errp);
}

int blk_nbd_server_start(BlockGraph *graph, BlockOptions *options,
                         GError **errp)
{
    ServerCall call = { .graph = graph, .options = options, .errp = errp };

    return aio_co_run(graph->ctx, start_entry, &call);
}

static int coroutine_fn stop_entry(void *opaque)
{
    blk_co_nbd_server_stop(opaque);
    return 0;
}

void blk_nbd_server_stop(BlockGraph *graph)
{
    aio_co_run(graph->ctx, stop_entry, graph);
}
