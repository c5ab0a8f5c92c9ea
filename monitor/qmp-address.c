/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Addresses of control sockets.
 */
#include "monitor/qmp-address.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define LISTEN_BACKLOG 16

/* The daemon does nothing else while it connects. */
#define CONNECT_PATIENCE_S 10

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

static int new_unix_socket(const QmpAddress *address, struct sockaddr_un *ret)
{
    *ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
    g_strlcpy(ret->sun_path, address->path, sizeof(ret->sun_path));
    return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

/* Whether nobody listens at @un any more, though it is there. */
static bool is_stale(const struct sockaddr_un *un)
{
    struct stat st;
    bool stale;
    int fd;

    if (lstat(un->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode) ||
        st.st_uid != geteuid()) {
        return false;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return false;
    }
    stale = connect(fd, (const struct sockaddr *)un, sizeof(*un)) < 0 &&
            errno == ECONNREFUSED;
    close(fd);
    return stale;
}

/* The mode of the descriptor becomes that of the file: no moment in which
 * others could connect. */
static int bind_unix(int fd, const struct sockaddr_un *un)
{
    const struct sockaddr *any = (const struct sockaddr *)un;

    if (fchmod(fd, 0600) < 0) {
        return -errno;
    }
    if (bind(fd, any, sizeof(*un)) < 0) {
        if (errno != EADDRINUSE || !is_stale(un)) {
            return -errno;
        }
        if (unlink(un->sun_path) < 0 || bind(fd, any, sizeof(*un)) < 0) {
            return -errno;
        }
    }
    return chmod(un->sun_path, 0600) < 0 ? -errno : 0;
}

/* Returns a descriptor or a negative errno. */
static int listen_unix(const QmpAddress *address)
{
    struct sockaddr_un un;
    int fd = new_unix_socket(address, &un);
    int ret = fd < 0 ? -errno : bind_unix(fd, &un);

    if (ret == 0 && listen(fd, LISTEN_BACKLOG) < 0) {
        ret = -errno;
    }
    if (ret < 0 && fd >= 0) {
        close(fd);
    }
    return ret < 0 ? ret : fd;
}

static int connect_unix(const QmpAddress *address)
{
    struct sockaddr_un un;
    int fd = new_unix_socket(address, &un);
    int err;

    if (fd >= 0 && connect(fd, (struct sockaddr *)&un, sizeof(un)) == 0) {
        return fd;
    }
    err = errno;
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

static bool is_loopback(const struct sockaddr *to)
{
    const struct sockaddr_in *in = (const void *)to;
    const struct sockaddr_in6 *in6 = (const void *)to;

    return to->sa_family == AF_INET
               ? ntohl(in->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET
               : to->sa_family == AF_INET6 &&
                     IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr);
}

/* Returns a descriptor or a negative errno. */
static int listen_at(const struct addrinfo *ai)
{
    int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int on = 1;
    int err;

    if (fd < 0) {
        return -errno;
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (ai->ai_family == AF_INET6) {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
    }
    if (bind(fd, ai->ai_addr, ai->ai_addrlen) == 0 &&
        listen(fd, LISTEN_BACKLOG) == 0) {
        return fd;
    }
    err = errno;
    close(fd);
    return -err;
}

/* Files of hosts may give the same address twice. */
static bool is_repeated(const struct addrinfo *found, const struct addrinfo *ai)
{
    while (found != ai && (found->ai_addrlen != ai->ai_addrlen ||
                           memcmp(found->ai_addr, ai->ai_addr,
                                  ai->ai_addrlen) != 0)) {
        found = found->ai_next;
    }
    return found != ai;
}

/*
 * At all that this machine has of @found.  Where one address is taken, clients
 * of the name would reach somebody else.  Returns how many, or a negative
 * errno.
 */
static int listen_at_all(const struct addrinfo *found,
                         int fds[QMP_LISTEN_MAX])
{
    int nr = 0, err = 0;

    for (const struct addrinfo *ai = found; ai && nr < QMP_LISTEN_MAX;
         ai = ai->ai_next) {
        int fd = is_repeated(found, ai) ? -EADDRNOTAVAIL : listen_at(ai);

        if (fd >= 0) {
            fds[nr++] = fd;
        } else if (fd != -EAFNOSUPPORT && fd != -EADDRNOTAVAIL) {
            err = fd;
            break;
        }
    }
    while (err < 0 && nr > 0) {
        close(fds[--nr]);
    }
    return nr > 0 ? nr : err < 0 ? err : -EADDRNOTAVAIL;
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
        if (!address->plain_text && !is_loopback(ai->ai_addr)) {
            freeaddrinfo(found);
            return block_error(errp, EACCES, "whoever can connect has all "
                               "rights of the daemon, and nobody is asked who "
                               "he is: only loopback addresses are allowed "
                               "without plain-text=on");
        }
    }
    nr = listen_at_all(found, fds);
    freeaddrinfo(found);
    return nr > 0 ? nr : block_error(errp, -nr, "%s", g_strerror(-nr));
}

/* To the first that answers. */
static int connect_tcp(const QmpAddress *address, GError **errp)
{
    struct addrinfo *found = look_up(address, 0, errp);
    const struct timeval patience = { .tv_sec = CONNECT_PATIENCE_S };
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
    ret = listen_unix(address);
    if (ret < 0) {
        return block_error_errno(errp, -ret, "Could not listen at '%s'", text);
    }
    fds[0] = ret;
    return 1;
}

int qmp_address_connect(const QmpAddress *address, GError **errp)
{
    g_autofree char *text = qmp_address_text(address);
    int ret;

    if (address->host) {
        ret = connect_tcp(address, errp);
        if (ret < 0) {
            g_prefix_error(errp, "Could not connect to '%s': ", text);
        }
        return ret;
    }
    ret = connect_unix(address);
    return ret < 0 ? block_error_errno(errp, -ret, "Could not connect to '%s'",
                                       text)
                   : ret;
}
