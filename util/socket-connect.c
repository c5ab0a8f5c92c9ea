/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Connecting sockets.
 */
#include "util/socket-connect.h"

#include "util/socket-lookup.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/un.h>

void socket_attempt_end(SocketAttempt *attempt)
{
    attempt->ended = true;
    co_sleep_wake(&attempt->lookup);
    if (attempt->socket) {
        aio_socket_shutdown(attempt->socket);
    }
}

static int coroutine_fn connect_one(const struct sockaddr *to, socklen_t bytes,
                                    int64_t deadline_ns,
                                    SocketAttempt *attempt, int *ret_fd)
{
    int fd = socket(to->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int ret;

    if (fd < 0) {
        return -errno;
    }
    attempt->socket = aio_socket_new(fd);
    ret = aio_socket_connect(attempt->socket, to, bytes, deadline_ns);
    if (attempt->ended) {
        ret = -ECANCELED;
    }
    if (ret == 0) {
        *ret_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        ret = *ret_fd < 0 ? -errno : 0;
    }
    g_clear_pointer(&attempt->socket, aio_socket_free);
    return ret;
}

/* When the attempt at @ai, one of those that are left, has had its time: one
 * that does not answer leaves some to the others. */
static int64_t share_of_time(const struct addrinfo *ai, int64_t deadline_ns)
{
    int64_t now_ns = aio_clock_ns(aio_get_current());
    int nr = 0;

    for (; ai; ai = ai->ai_next) {
        nr++;
    }
    return deadline_ns == AIO_NO_DEADLINE || deadline_ns <= now_ns
               ? deadline_ns : now_ns + (deadline_ns - now_ns) / nr;
}

/* Returns 0 or a negative errno, without @errp when it is that of an address
 * that was found. */
static int coroutine_fn connect_inet(const SocketAddress *addr,
                                     int64_t deadline_ns,
                                     SocketAttempt *attempt, int *ret_fd,
                                     GError **errp)
{
    const SocketName name = { .host = addr->host, .port = addr->port };
    struct addrinfo *found = NULL;
    int ret = socket_co_lookup(&name, deadline_ns, &attempt->lookup, &found,
                               errp);

    if (ret < 0) {
        return ret;
    }
    ret = attempt->ended ? -ECANCELED : -EADDRNOTAVAIL;
    for (struct addrinfo *ai = found; ai && ret != 0 && !attempt->ended;
         ai = ai->ai_next) {
        ret = connect_one(ai->ai_addr, ai->ai_addrlen,
                          share_of_time(ai, deadline_ns), attempt, ret_fd);
    }
    freeaddrinfo(found);
    return ret;
}

static int coroutine_fn connect_unix(const SocketAddress *addr,
                                     int64_t deadline_ns,
                                     SocketAttempt *attempt, int *ret_fd)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };

    if (strlen(addr->path) >= sizeof(un.sun_path)) {
        return -ENAMETOOLONG;
    }
    g_strlcpy(un.sun_path, addr->path, sizeof(un.sun_path));
    return connect_one((struct sockaddr *)&un, sizeof(un), deadline_ns,
                       attempt, ret_fd);
}

int coroutine_fn socket_co_connect(const SocketAddress *addr,
                                   int64_t deadline_ns, SocketAttempt *attempt,
                                   int *ret_fd, GError **errp)
{
    SocketAttempt nobody = { 0 };
    GError *error = NULL;
    int ret;

    attempt = attempt ? attempt : &nobody;
    if (attempt->ended) {
        ret = -ECANCELED;
    } else if (addr->type == SOCKET_ADDRESS_INET) {
        ret = connect_inet(addr, deadline_ns, attempt, ret_fd, &error);
    } else if (addr->type == SOCKET_ADDRESS_UNIX) {
        ret = connect_unix(addr, deadline_ns, attempt, ret_fd);
    } else {
        *ret_fd = fcntl(addr->fd, F_DUPFD_CLOEXEC, 0);
        ret = *ret_fd < 0 ? -errno : 0;
    }
    if (ret < 0 && !error) {
        g_autofree char *text = socket_address_text(addr);

        block_error_errno(&error, -ret, "Could not connect to '%s'", text);
    }
    if (error) {
        g_propagate_error(errp, error);
    }
    return ret;
}
