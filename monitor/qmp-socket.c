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
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "monitor/qmp-monitor.h"

#define READ_BYTES 4096

/* Above it no command is begun. */
#define OUTPUT_HIGH (64 << 10)

typedef struct Client {
    QmpSocket *socket;
    int fd;
    QmpMonitor *monitor;
    GByteArray *output;
    AioBH *closer;      /* a send inside the monitor must not close it */
    bool broken;        /* is about to be closed */
    bool at_end;        /* the peer sends no more; close when all is sent */
} Client;

struct QmpSocket {
    QmpServer *server;
    AioContext *ctx;
    int fd;             /* -1: does not listen */
    char *path;
    ino_t inode;        /* of @path, as we made it */
    bool shut_down;
    GPtrArray *clients;
};

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
        g_warning("A control client does not read: it is cut off");
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
    bool reads;

    if (c->broken || !c->monitor) {
        return;
    }
    reads = !c->at_end && !c->socket->shut_down && !client_is_full(c) &&
            qmp_monitor_wants_input(c->monitor);
    aio_set_fd_handler(c->socket->ctx, c->fd, reads ? client_readable : NULL,
                       c->output->len > 0 ? client_writable : NULL, c);
    if (c->at_end && c->output->len == 0 &&
        qmp_monitor_is_over(c->monitor)) {
        give_up(c);
    }
}

static void add_client(QmpSocket *socket, int fd)
{
    Client *c = g_new0(Client, 1);

    c->socket = socket;
    c->fd = fd;
    c->output = g_byte_array_new();
    c->closer = aio_bh_new(socket->ctx, close_client, c);
    g_ptr_array_add(socket->clients, c);
    c->monitor = qmp_monitor_new(socket->server, &client_ops, c);
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
    QmpSocket *socket = opaque;
    int fd = accept4(socket->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0) {
        return;     /* it went away, or there is no descriptor: later */
    }
    if (!peer_is_allowed(fd)) {
        g_warning("Control socket '%s': a client of another user was turned "
                  "away", socket->path);
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

    if (socket->fd >= 0) {
        aio_set_fd_handler(socket->ctx, socket->fd,
                           room ? accept_client : NULL, NULL, socket);
    }
}

/* Whether nobody listens at @address any more, though it is there. */
static bool is_stale(const struct sockaddr_un *address)
{
    struct stat st;
    bool stale;
    int fd;

    if (lstat(address->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode) ||
        st.st_uid != geteuid()) {
        return false;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return false;
    }
    stale = connect(fd, (const struct sockaddr *)address,
                    sizeof(*address)) < 0 && errno == ECONNREFUSED;
    close(fd);
    return stale;
}

/* The mode of the descriptor becomes that of the file: no moment in which
 * others could connect. */
static int bind_and_listen(int fd, const struct sockaddr_un *address)
{
    const struct sockaddr *any = (const struct sockaddr *)address;

    if (fchmod(fd, 0600) < 0) {
        return -errno;
    }
    if (bind(fd, any, sizeof(*address)) < 0) {
        if (errno != EADDRINUSE || !is_stale(address)) {
            return -errno;
        }
        if (unlink(address->sun_path) < 0 ||
            bind(fd, any, sizeof(*address)) < 0) {
            return -errno;
        }
    }
    if (chmod(address->sun_path, 0600) < 0 || listen(fd, 16) < 0) {
        return -errno;
    }
    return 0;
}

static QmpSocket *socket_new(QmpServer *server)
{
    QmpSocket *s = g_new0(QmpSocket, 1);

    s->server = server;
    s->ctx = block_graph_aio_context(server->graph);
    s->clients = g_ptr_array_new();
    s->fd = -1;
    return s;
}

QmpSocket *qmp_socket_listen(QmpServer *server, const char *path,
                             GError **errp)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    struct stat st = { 0 };
    QmpSocket *s;
    int ret;
    int fd;

    if (!*path || strlen(path) >= sizeof(address.sun_path)) {
        block_error(errp, EINVAL, "'%s' is no path of a socket: 1 to %zu bytes",
                    path, sizeof(address.sun_path) - 1);
        return NULL;
    }
    strcpy(address.sun_path, path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    ret = fd < 0 ? -errno : bind_and_listen(fd, &address);
    if (ret < 0) {
        block_error_errno(errp, -ret, "Could not listen at '%s'", path);
        if (fd >= 0) {
            close(fd);
        }
        return NULL;
    }
    lstat(path, &st);
    s = socket_new(server);
    s->fd = fd;
    s->path = g_strdup(path);
    s->inode = st.st_ino;
    accept_again(s);
    return s;
}

QmpSocket *qmp_socket_connected(QmpServer *server, int fd)
{
    QmpSocket *s = socket_new(server);

    add_client(s, fd);
    return s;
}

bool qmp_socket_has_client(const QmpSocket *s)
{
    return s->clients->len > 0;
}

bool qmp_socket_is_busy(const QmpSocket *s)
{
    for (guint i = 0; i < s->clients->len; i++) {
        const Client *c = g_ptr_array_index(s->clients, i);

        if (qmp_monitor_is_busy(c->monitor)) {
            return true;
        }
    }
    return false;
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
    if (s->fd >= 0) {
        aio_set_fd_handler(s->ctx, s->fd, NULL, NULL, NULL);
        close(s->fd);
    }
    if (s->path && lstat(s->path, &st) == 0 && st.st_ino == s->inode) {
        unlink(s->path);
    }
    g_ptr_array_unref(s->clients);
    g_free(s->path);
    g_free(s);
}
