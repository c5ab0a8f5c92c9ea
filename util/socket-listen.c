/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sockets that listen.
 */
#include "util/socket-listen.h"

#include "util/untrusted.h"

#include <errno.h>
#include <glib.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* --- TCP ------------------------------------------------------------------ */

bool socket_is_loopback(const struct sockaddr *to)
{
    const struct sockaddr_in *in = (const void *)to;
    const struct sockaddr_in6 *in6 = (const void *)to;

    return to->sa_family == AF_INET
               ? untrusted_is(untrusted_byte(&in->sin_addr.s_addr),
                              IN_LOOPBACKNET)
               : to->sa_family == AF_INET6 &&
                     IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr);
}

/* Returns a descriptor or a negative errno. */
static int listen_at(const struct addrinfo *ai, int backlog)
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
        listen(fd, backlog) == 0) {
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

int socket_listen_inet(const struct addrinfo *found, int backlog, int *fds,
                       int max)
{
    int nr = 0, err = 0;

    for (const struct addrinfo *ai = found; ai && nr < max; ai = ai->ai_next) {
        int fd = is_repeated(found, ai) ? -EADDRNOTAVAIL
                                        : listen_at(ai, backlog);

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

/* --- unix ----------------------------------------------------------------- */

/* Remove a socket of ours at which nobody listens.  Returns whether it has. */
static bool remove_stale(const struct sockaddr_un *un)
{
    struct stat st;
    bool nobody;
    int fd;

    if (lstat(un->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode) ||
        st.st_uid != geteuid()) {
        return false;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return false;
    }
    nobody = connect(fd, (const struct sockaddr *)un, sizeof(*un)) < 0 &&
             errno == ECONNREFUSED;
    close(fd);
    return nobody && unlink(un->sun_path) == 0;
}

static int bind_unix(int fd, const struct sockaddr_un *un)
{
    const struct sockaddr *any = (const struct sockaddr *)un;
    int err;

    if (bind(fd, any, sizeof(*un)) == 0) {
        return 0;
    }
    err = errno;
    if (err == EADDRINUSE && remove_stale(un)) {
        return bind(fd, any, sizeof(*un)) == 0 ? 0 : -errno;
    }
    return -err;
}

int socket_listen_unix(const char *path, int backlog)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int ret;

    if (fd < 0) {
        return -errno;
    }
    g_strlcpy(un.sun_path, path, sizeof(un.sun_path));
    /* The file takes over the mode of the socket: it never had another one. */
    ret = fchmod(fd, 0600) < 0 ? -errno : bind_unix(fd, &un);
    if (ret == 0 && listen(fd, backlog) < 0) {
        ret = -errno;
        unlink(path);
    }
    if (ret < 0) {
        close(fd);
        return ret;
    }
    return fd;
}
