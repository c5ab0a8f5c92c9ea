/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Control sockets.
 *
 * A connection reads only while its monitor wants input and little waits to be
 * sent; so what a client can make us hold is bounded: one read of input, the
 * message being parsed, QMP_OUTPUT_MAX of output.
 */
#include "monitor/qmp-socket.h"

#include <errno.h>
#include <glib-unix.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "monitor/qmp-monitor.h"
#include "util/log-limit.h"
#include "util/tcp-peer.h"

/* The daemon does nothing else while it connects. */
#define CONNECT_PATIENCE_S 10

#define READ_BYTES 4096

/* A TCP client that has vanished keeps its place for that long. */
#define PEER_TIMEOUT_S 60

/* Above it no command is begun. */
#define OUTPUT_HIGH (64 << 10)

typedef struct Client {
    QmpSocket *socket;
    int fd;
    QmpMonitor *monitor;
    GByteArray *output;
    AioBH *closer;      /* a send inside the monitor must not close it */
    bool heard;         /* something has come */
    bool broken;        /* is about to be closed */
    bool at_end;        /* the peer sends no more; close when all is sent */
} Client;

/* A name may stand for more than one address. */
typedef struct Listener {
    QmpSocket *socket;
    int fd;
} Listener;

struct QmpSocket {
    /* Constant. */
    QmpServer *server;
    AioContext *ctx;
    Listener listeners[QMP_LISTEN_MAX];
    int nr_listeners;   /* 0: connected, does not listen */
    char *name;         /* for messages */
    char *path;         /* to be removed, or NULL */
    ino_t inode;        /* of @path, as we made it */
    bool tcp;
    bool pretty;

    /* Main context. */
    bool shut_down;
    GPtrArray *clients;
    LogLimit log_limit; /* clients make us log */
};

/* Say what a client has done. */
static void warn_of_client(QmpSocket *socket, const char *what)
{
    uint64_t left_out;

    if (log_limit_allows(&socket->log_limit, g_get_monotonic_time() * 1000,
                         &left_out)) {
        g_warning("Control socket '%s': a client %s%s", socket->name, what,
                  left_out ? ", as others before" : "");
    }
}

static void update_handlers(Client *c);

/* --- clients -------------------------------------------------------------- */

static void client_free(Client *c)
{
    aio_set_fd_handler(c->socket->ctx, c->fd, NULL, NULL, NULL);
    aio_bh_delete(c->closer);
    qmp_monitor_close(c->monitor);
    g_byte_array_unref(c->output);
    close(c->fd);
    g_free(c);
}

static void accept_again(QmpSocket *socket);

static void close_client(void *opaque)
{
    Client *c = opaque;
    QmpSocket *socket = c->socket;

    g_ptr_array_remove(socket->clients, c);
    client_free(c);
    accept_again(socket);
}

static void give_up(Client *c)
{
    c->broken = true;
    g_byte_array_set_size(c->output, 0);
    aio_set_fd_handler(c->socket->ctx, c->fd, NULL, NULL, NULL);
    aio_bh_schedule(c->closer);
}

static void flush_output(Client *c)
{
    while (c->output->len > 0) {
        ssize_t sent = send(c->fd, c->output->data, c->output->len,
                            MSG_NOSIGNAL | MSG_DONTWAIT);

        if (sent < 0 && errno == EINTR) {
            continue;
        }
        if (sent < 0) {
            if (errno != EAGAIN) {
                give_up(c);
            }
            return;
        }
        g_byte_array_remove_range(c->output, 0, sent);
    }
}

static void client_send(const char *text, size_t bytes, void *opaque)
{
    Client *c = opaque;

    if (c->broken) {
        return;
    }
    g_byte_array_append(c->output, (const guint8 *)text, bytes);
    flush_output(c);
    if (c->output->len > QMP_OUTPUT_MAX) {
        warn_of_client(c->socket, "does not read: it is cut off");
        give_up(c);
    }
    update_handlers(c);
}

static bool client_is_full(void *opaque)
{
    Client *c = opaque;

    return c->broken || c->output->len > OUTPUT_HIGH;
}

static void client_idle(void *opaque)
{
    update_handlers(opaque);
}

static const QmpMonitorOps client_ops = { client_send, client_is_full,
                                          client_idle };
static const QmpMonitorOps pretty_ops = { client_send, client_is_full,
                                          client_idle, .pretty = true };

/*
 * Whether a client of TCP, which a browser might be, too, begins with anything
 * but an object.  Text of another protocol must not be looked through for
 * commands.
 */
static bool is_stranger(Client *c, const char *buf, ssize_t nr)
{
    for (ssize_t i = 0; i < nr && c->socket->tcp && !c->heard; i++) {
        if (!g_ascii_isspace(buf[i])) {
            c->heard = true;
            return buf[i] != '{';
        }
    }
    return false;
}

static void client_readable(void *opaque)
{
    Client *c = opaque;
    char buf[READ_BYTES];
    ssize_t nr = recv(c->fd, buf, sizeof(buf), MSG_DONTWAIT);

    if (nr < 0) {
        if (errno != EAGAIN && errno != EINTR) {
            give_up(c);
        }
        return;
    }
    if (nr == 0) {
        c->at_end = true;
        qmp_monitor_end(c->monitor);
    } else if (is_stranger(c, buf, nr)) {
        give_up(c);
    } else {
        qmp_monitor_feed(c->monitor, buf, nr);
    }
    update_handlers(c);
}

static void client_writable(void *opaque)
{
    Client *c = opaque;

    flush_output(c);
    if (!client_is_full(c)) {
        qmp_monitor_resume(c->monitor);
    }
    update_handlers(c);
}

static void update_handlers(Client *c)
{
    bool reads, writes;

    if (c->broken || !c->monitor) {
        return;
    }
    reads = !c->at_end && !c->socket->shut_down && !client_is_full(c) &&
            qmp_monitor_wants_input(c->monitor);
    /* Commands may be held for want of room that an event has made meanwhile:
     * to be writable is a reason to go on with them, too. */
    writes = c->output->len > 0 ||
             (!c->socket->shut_down && qmp_monitor_is_held(c->monitor));
    aio_set_fd_handler(c->socket->ctx, c->fd, reads ? client_readable : NULL,
                       writes ? client_writable : NULL, c);
    if (c->at_end && c->output->len == 0 &&
        qmp_monitor_is_over(c->monitor)) {
        give_up(c);
    }
}

static void add_client(QmpSocket *socket, int fd)
{
    Client *c = g_new0(Client, 1);
    int on = 1;

    if (socket->tcp) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        tcp_watch_peer(fd, PEER_TIMEOUT_S);
    }
    c->socket = socket;
    c->fd = fd;
    c->output = g_byte_array_new();
    c->closer = aio_bh_new(socket->ctx, close_client, c);
    g_ptr_array_add(socket->clients, c);
    c->monitor = qmp_monitor_new(socket->server,
                                 socket->pretty ? &pretty_ops : &client_ops, c);
    update_handlers(c);
}

/* --- listening ------------------------------------------------------------ */

/* Whether the peer is of our user, or may do everything anyway. */
static bool peer_is_allowed(int fd)
{
    struct ucred peer;
    socklen_t length = sizeof(peer);

    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 &&
           (peer.uid == geteuid() || peer.uid == 0);
}

static void accept_client(void *opaque)
{
    const Listener *listener = opaque;
    QmpSocket *socket = listener->socket;
    int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0) {
        return;     /* it went away, or there is no descriptor: later */
    }
    if (!socket->tcp && !peer_is_allowed(fd)) {
        warn_of_client(socket, "of another user was turned away");
        close(fd);
        return;
    }
    add_client(socket, fd);
    accept_again(socket);
}

/* While all places are taken, clients wait in the queue of the kernel. */
static void accept_again(QmpSocket *socket)
{
    bool room = socket->clients->len < QMP_CLIENTS_MAX && !socket->shut_down;

    for (int i = 0; i < socket->nr_listeners; i++) {
        Listener *listener = &socket->listeners[i];

        aio_set_fd_handler(socket->ctx, listener->fd,
                           room ? accept_client : NULL, NULL, listener);
    }
}

static QmpSocket *socket_new(QmpServer *server, const QmpAddress *address,
                             bool pretty)
{
    QmpSocket *s = g_new0(QmpSocket, 1);

    s->server = server;
    s->ctx = block_graph_aio_context(server->graph);
    s->clients = g_ptr_array_new();
    s->name = qmp_address_text(address);
    s->tcp = address->host != NULL;
    s->pretty = pretty;
    return s;
}

QmpSocket *qmp_socket_listen(QmpServer *server, const QmpAddress *address,
                             bool pretty, GError **errp)
{
    int fds[QMP_LISTEN_MAX];
    struct stat st = { 0 };
    QmpSocket *s;
    int nr;

    nr = qmp_address_check(address, errp);
    if (nr == 0) {
        nr = qmp_address_listen(address, fds, errp);
    }
    if (nr < 0) {
        return NULL;
    }
    s = socket_new(server, address, pretty);
    for (int i = 0; i < nr; i++) {
        g_unix_set_fd_nonblocking(fds[i], true, NULL);
        s->listeners[i] = (Listener){ s, fds[i] };
    }
    s->nr_listeners = nr;
    if (address->path) {
        lstat(address->path, &st);
        s->path = g_strdup(address->path);
        s->inode = st.st_ino;
    }
    accept_again(s);
    return s;
}

QmpSocket *qmp_socket_connect(QmpServer *server, const QmpAddress *address,
                              bool pretty, GError **errp)
{
    int fd = qmp_address_check(address, errp);
    QmpSocket *s;

    if (fd == 0) {
        fd = qmp_address_connect(address, CONNECT_PATIENCE_S, errp);
    }
    if (fd < 0) {
        return NULL;
    }
    s = socket_new(server, address, pretty);
    add_client(s, fd);
    return s;
}

bool qmp_socket_has_client(const QmpSocket *s)
{
    return s->clients->len > 0;
}

bool qmp_socket_has_output(const QmpSocket *s)
{
    for (guint i = 0; i < s->clients->len; i++) {
        const Client *c = g_ptr_array_index(s->clients, i);

        if (c->output->len > 0) {
            return true;
        }
    }
    return false;
}

void qmp_socket_shutdown(QmpSocket *s)
{
    s->shut_down = true;
    accept_again(s);
    for (guint i = 0; i < s->clients->len; i++) {
        update_handlers(g_ptr_array_index(s->clients, i));
    }
}

void qmp_socket_free(QmpSocket *s)
{
    struct stat st;

    if (!s) {
        return;
    }
    while (s->clients->len > 0) {
        client_free(g_ptr_array_steal_index(s->clients, s->clients->len - 1));
    }
    for (int i = 0; i < s->nr_listeners; i++) {
        aio_set_fd_handler(s->ctx, s->listeners[i].fd, NULL, NULL, NULL);
        close(s->listeners[i].fd);
    }
    if (s->path && lstat(s->path, &st) == 0 && st.st_ino == s->inode) {
        unlink(s->path);
    }
    g_ptr_array_unref(s->clients);
    g_free(s->name);
    g_free(s->path);
    g_free(s);
}
