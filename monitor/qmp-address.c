/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Addresses of control sockets.
 */
#include "monitor/qmp-address.h"

#include "util/socket-listen.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define LISTEN_BACKLOG 16

/* The system's look-up takes a number, with a sign or blanks before it, too,
 * modulo 65536.  Names of services have a letter. */
static bool is_port(const char *port)
{
    for (const char *p = port; *p; p++) {
        if (g_ascii_isalpha(*p)) {
            return true;
        }
    }
    return *port && !port[strspn(port, "0123456789")] && strlen(port) <= 5 &&
           atoi(port) <= UINT16_MAX;
}

int qmp_address_check(const QmpAddress *address, GError **errp)
{
    const struct sockaddr_un *un = NULL;

    if (!address->path == !address->host ||
        !address->host != !address->port) {
        return block_error(errp, EINVAL, "A control socket has either a path, "
                           "or a host and a port");
    }
    if (address->path && (!*address->path ||
                          strlen(address->path) >= sizeof(un->sun_path))) {
        return block_error(errp, EINVAL, "'%s' is no path of a socket: 1 to "
                           "%zu bytes", address->path,
                           sizeof(un->sun_path) - 1);
    }
    if (address->path &&
        (address->ipv4 || address->ipv6 || address->plain_text)) {
        return block_error(errp, EINVAL, "A path goes without the options of "
                           "TCP");
    }
    if (address->port && !is_port(address->port)) {
        return block_error(errp, EINVAL, "'%s' is no port: 0 to 65535",
                           address->port);
    }
    if (address->ipv4 == QMP_OFF && address->ipv6 == QMP_OFF) {
        return block_error(errp, EINVAL, "Cannot disable IPv4 and IPv6 at the "
                           "same time");
    }
    return 0;
}

char *qmp_address_text(const QmpAddress *address)
{
    if (address->path) {
        return g_strdup(address->path);
    }
    return g_strdup_printf(strchr(address->host, ':') ? "[%s]:%s" : "%s:%s",
                           address->host, address->port);
}

/* --- unix ----------------------------------------------------------------- */

/* Who listens may have no room for us. */
static int connect_unix(const QmpAddress *address, int patience_s)
{
    const struct timeval patience = { .tv_sec = patience_s };
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int err;

    g_strlcpy(un.sun_path, address->path, sizeof(un.sun_path));
    if (fd >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    }
    if (fd >= 0 && connect(fd, (struct sockaddr *)&un, sizeof(un)) == 0) {
        return fd;
    }
    err = errno == EAGAIN ? ETIMEDOUT : errno;
    if (fd >= 0) {
        close(fd);
    }
    return -err;
}

/* --- TCP ------------------------------------------------------------------ */

static int family_of(const QmpAddress *address)
{
    bool want4 = address->ipv4 == QMP_ON || address->ipv6 == QMP_OFF;
    bool want6 = address->ipv6 == QMP_ON || address->ipv4 == QMP_OFF;

    return want4 == want6 ? AF_UNSPEC : want4 ? AF_INET : AF_INET6;
}

/* What the name stands for: freeaddrinfo(). */
static struct addrinfo *look_up(const QmpAddress *address, int flags,
                                GError **errp)
{
    struct addrinfo hints = { .ai_family = family_of(address),
                              .ai_socktype = SOCK_STREAM, .ai_flags = flags };
    struct addrinfo *found = NULL;
    int ret = getaddrinfo(*address->host ? address->host : NULL,
                          address->port, &hints, &found);

    if (ret != 0) {
        block_error(errp, EINVAL, "Could not find host '%s', port '%s': %s",
                    address->host, address->port, gai_strerror(ret));
        return NULL;
    }
    return found;
}

static int listen_tcp(const QmpAddress *address, int fds[QMP_LISTEN_MAX],
                      GError **errp)
{
    struct addrinfo *found = look_up(address, AI_PASSIVE, errp);
    int nr;

    if (!found) {
        return -EINVAL;
    }
    for (struct addrinfo *ai = found; ai; ai = ai->ai_next) {
        if (!address->plain_text && !socket_is_loopback(ai->ai_addr)) {
            freeaddrinfo(found);
            return block_error(errp, EACCES, "whoever can connect has all "
                               "rights of the daemon, and nobody is asked who "
                               "he is: only loopback addresses are allowed "
                               "without plain-text=on");
        }
    }
    nr = socket_listen_inet(found, LISTEN_BACKLOG, fds, QMP_LISTEN_MAX);
    freeaddrinfo(found);
    return nr > 0 ? nr : block_error(errp, -nr, "%s", g_strerror(-nr));
}

/* To the first that answers. */
static int connect_tcp(const QmpAddress *address, int patience_s,
                       GError **errp)
{
    struct addrinfo *found = look_up(address, 0, errp);
    const struct timeval patience = { .tv_sec = patience_s };
    int fd = -1, err = EADDRNOTAVAIL;

    if (!found) {
        return -EINVAL;
    }
    for (struct addrinfo *ai = found; ai && fd < 0; ai = ai->ai_next) {
        fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0) {
            setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience,
                       sizeof(patience));
        }
        if (fd >= 0 && connect(fd, ai->ai_addr, ai->ai_addrlen) < 0) {
            err = errno == EINPROGRESS ? ETIMEDOUT : errno;
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(found);
    return fd >= 0 ? fd : block_error(errp, err, "%s", g_strerror(err));
}

/* --- either --------------------------------------------------------------- */

int qmp_address_listen(const QmpAddress *address, int fds[QMP_LISTEN_MAX],
                       GError **errp)
{
    g_autofree char *text = qmp_address_text(address);
    int ret;

    if (address->host) {
        ret = listen_tcp(address, fds, errp);
        if (ret < 0) {
            g_prefix_error(errp, "Could not listen at '%s': ", text);
        }
        return ret;
    }
    ret = socket_listen_unix(address->path, LISTEN_BACKLOG);
    if (ret < 0) {
        return block_error_errno(errp, -ret, "Could not listen at '%s'", text);
    }
    fds[0] = ret;
    return 1;
}

int qmp_address_connect(const QmpAddress *address, int patience_s,
                        GError **errp)
{
    g_autofree char *text = qmp_address_text(address);
    int ret;

    if (address->host) {
        ret = connect_tcp(address, patience_s, errp);
        if (ret < 0) {
            g_prefix_error(errp, "Could not connect to '%s': ", text);
        }
        return ret;
    }
    ret = connect_unix(address, patience_s);
    return ret < 0 ? block_error_errno(errp, -ret, "Could not connect to '%s'",
                                       text)
                   : ret;
}
