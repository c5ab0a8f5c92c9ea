/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Streams of bytes: what is the same for all kinds, and the plain socket.
 */
#include "util/io-channel.h"

#include "util/tcp-peer.h"
#include "util/untrusted.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/un.h>

/* A peer that takes less than this in the time it has does not read. */
#define WRITE_PROGRESS_BYTES (64 * 1024)

/* What is sent to a unix socket without waiting; the system may allow less. */
#define SEND_BUFFER_BYTES (2 * 1024 * 1024)

void io_channel_init(IoChannel *c, const IoChannelOps *ops, AioSocket *socket)
{
    c->ops = ops;
    c->socket = socket;
    c->identity = NULL;
    c->refs = 1;
    c->read_deadline_ns = AIO_NO_DEADLINE;
    c->write_patience_ns = 0;
}

IoChannel *io_channel_ref(IoChannel *c)
{
    g_assert(c->refs > 0);
    c->refs++;
    return c;
}

void io_channel_unref(IoChannel *c)
{
    if (c && --c->refs == 0) {
        c->ops->destroy(c);
        g_free(c->identity);
        g_free(c);
    }
}

int64_t coroutine_fn io_channel_readv(IoChannel *c, const struct iovec *iov,
                                      int niov)
{
    return c->ops->channel_readv(c, iov, niov, c->read_deadline_ns);
}

int64_t coroutine_fn io_channel_read(IoChannel *c, void *buf, size_t bytes)
{
    struct iovec iov = { .iov_base = buf, .iov_len = bytes };

    return io_channel_readv(c, &iov, 1);
}

int coroutine_fn io_channel_read_all(IoChannel *c, void *buf, size_t bytes)
{
    size_t done = 0;

    while (done < bytes) {
        int64_t ret = io_channel_read(c, (char *)buf + done, bytes - done);

        if (ret < 0) {
            return ret;
        }
        if (ret == 0) {
            return done == 0 ? -ENODATA : -ECONNRESET;
        }
        done += ret;
    }
    return 0;
}

/* Take @done bytes off the front of the vector. */
static void consume(struct iovec **iov, int *niov, size_t done)
{
    while (*niov > 0 && done >= (*iov)->iov_len) {
        done -= (*iov)->iov_len;
        (*iov)++;
        (*niov)--;
    }
    if (done > 0) {
        g_assert(*niov > 0);
        (*iov)->iov_base = (char *)(*iov)->iov_base + done;
        (*iov)->iov_len -= done;
    }
}

int coroutine_fn io_channel_writev_all(IoChannel *c, struct iovec *iov,
                                       int niov)
{
    AioContext *ctx = aio_get_current();
    int64_t deadline_ns = AIO_NO_DEADLINE;
    size_t progress = WRITE_PROGRESS_BYTES;

    consume(&iov, &niov, 0);    /* empty pieces */
    while (niov > 0) {
        int64_t ret;

        if (c->write_patience_ns && progress >= WRITE_PROGRESS_BYTES) {
            deadline_ns = aio_clock_ns(ctx) + c->write_patience_ns;
            progress = 0;
        }
        ret = c->ops->channel_writev(c, iov, niov, deadline_ns);
        if (ret <= 0) {
            return ret < 0 ? ret : -EPIPE;
        }
        progress += ret;
        consume(&iov, &niov, ret);
    }
    return 0;
}

int coroutine_fn io_channel_write_all(IoChannel *c, const void *buf,
                                      size_t bytes)
{
    struct iovec iov = { .iov_base = (void *)buf, .iov_len = bytes };

    return io_channel_writev_all(c, &iov, 1);
}

void io_channel_shutdown(IoChannel *c)
{
    c->ops->shut(c);
}

/* --- the peer ------------------------------------------------------------ */

static bool in_is_loopback(const struct in_addr *in)
{
    return untrusted_is(untrusted_byte(&in->s_addr), IN_LOOPBACKNET);
}

static void name_inet_peer(const struct sockaddr_storage *from,
                           IoChannelPeer *ret)
{
    const struct sockaddr_in *in = (const void *)from;
    const struct sockaddr_in6 *in6 = (const void *)from;

    if (from->ss_family == AF_INET) {
        ret->is_loopback = in_is_loopback(&in->sin_addr);
        inet_ntop(AF_INET, &in->sin_addr, ret->name, sizeof(ret->name));
    } else if (from->ss_family == AF_INET6) {
        ret->is_loopback = IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr);
        inet_ntop(AF_INET6, &in6->sin6_addr, ret->name, sizeof(ret->name));
    }
}

void io_channel_get_peer(const IoChannel *c, IoChannelPeer *ret)
{
    struct sockaddr_storage from = { 0 };
    socklen_t bytes = sizeof(from);
    struct ucred cred;
    socklen_t cred_bytes = sizeof(cred);
    int fd = aio_socket_fd(c->socket);

    *ret = (IoChannelPeer) { .name = "unknown" };
    if (getpeername(fd, (struct sockaddr *)&from, &bytes) < 0) {
        return;                 /* it has gone already */
    }
    if (from.ss_family != AF_UNIX) {
        name_inet_peer(&from, ret);
        return;
    }
    ret->is_loopback = true;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &cred_bytes) == 0) {
        ret->has_uid = true;
        ret->uid = cred.uid;
        ret->pid = cred.pid;
        snprintf(ret->name, sizeof(ret->name), "uid %u", (unsigned)cred.uid);
    }
}

void io_channel_watch_peer(IoChannel *c, unsigned timeout_s)
{
    tcp_watch_peer(aio_socket_fd(c->socket), timeout_s);
}

/* --- sockets ------------------------------------------------------------- */

static int64_t coroutine_fn socket_readv(IoChannel *c, const struct iovec *iov,
                                         int niov, int64_t deadline_ns)
{
    return aio_socket_recv(c->socket, iov, niov, deadline_ns);
}

static int64_t coroutine_fn socket_writev(IoChannel *c,
                                          const struct iovec *iov, int niov,
                                          int64_t deadline_ns)
{
    return aio_socket_send(c->socket, iov, niov, deadline_ns);
}

static void socket_shut(IoChannel *c)
{
    aio_socket_shutdown(c->socket);
}

static void socket_destroy(IoChannel *c)
{
    aio_socket_free(c->socket);
}

static const IoChannelOps socket_ops = {
    .channel_readv = socket_readv,
    .channel_writev = socket_writev,
    .shut = socket_shut,
    .destroy = socket_destroy,
};

static bool is_unix(int fd)
{
    int domain = 0;
    socklen_t bytes = sizeof(domain);

    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &bytes) == 0 &&
           domain == AF_UNIX;
}

IoChannel *io_channel_new_socket(int fd)
{
    IoChannel *c = g_new(IoChannel, 1);
    int on = 1;
    int bytes = SEND_BUFFER_BYTES;

    io_channel_init(c, &socket_ops, aio_socket_new(fd));
    /* We send whole messages.  No matter if it is no TCP socket. */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    /* TCP sizes its buffers itself; a unix socket has what it is given. */
    if (is_unix(fd)) {
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    }
    return c;
}
