/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Addresses of sockets: parsing, listening.
 */
#include "util/socket-address.h"

#include "util/socket-listen.h"
#include "util/socket-lookup.h"
#include "util/untrusted.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define LISTEN_BACKLOG 128

/* --- addresses ----------------------------------------------------------- */

static const char *const type_names[] = { "inet", "unix", "fd", NULL };

typedef struct AddressOptions {
    int type;
    char *path, *host, *port, *str;
} AddressOptions;

static const BlockOption address_options[] = {
    { "type", BLOCK_OPTION_ENUM, .values = type_names, .required = true,
      .offset = offsetof(AddressOptions, type), .help = "kind of socket" },
    { "path", BLOCK_OPTION_STRING, .offset = offsetof(AddressOptions, path),
      .help = "unix: path of the socket" },
    { "host", BLOCK_OPTION_STRING, .offset = offsetof(AddressOptions, host),
      .help = "inet: name or number of the host" },
    { "port", BLOCK_OPTION_STRING, .offset = offsetof(AddressOptions, port),
      .help = "inet: number or name of the port" },
    { "str", BLOCK_OPTION_STRING, .offset = offsetof(AddressOptions, str),
      .help = "fd: number of the descriptor" },
    { NULL },
};

static int parse_fd(const char *text, int *ret_fd, GError **errp)
{
    char *end;
    long fd = strtol(text, &end, 10);
    struct stat st;

    if (!*text || *end || fd < 0 || fd > INT_MAX || fstat(fd, &st) < 0 ||
        !S_ISSOCK(st.st_mode)) {
        return block_error(errp, EINVAL, "'%s' is no descriptor of a socket",
                           text);
    }
    *ret_fd = fd;
    return 0;
}

static int check_unix_path(const char *path, GError **errp)
{
    struct sockaddr_un un;

    if (strlen(path) >= sizeof(un.sun_path)) {
        return block_error(errp, EINVAL, "Path of unix socket '%s' is longer "
                           "than %zu bytes", path, sizeof(un.sun_path) - 1);
    }
    return 0;
}

static int fill_address(SocketAddress *addr, const AddressOptions *o,
                        GError **errp)
{
    bool is_unix = o->type == SOCKET_ADDRESS_UNIX;
    bool is_inet = o->type == SOCKET_ADDRESS_INET;
    bool is_fd = o->type == SOCKET_ADDRESS_FD;

    if (!o->path == is_unix || !o->host == is_inet || !o->port == is_inet ||
        !o->str == is_fd || (is_unix && !*o->path)) {
        return block_error(errp, EINVAL, "A socket address of type '%s' needs "
                           "%s and no other option", type_names[o->type],
                           is_unix ? "'path'"
                                   : is_inet ? "'host' and 'port'" : "'str'");
    }
    addr->type = o->type;
    addr->path = g_strdup(o->path);
    addr->host = g_strdup(o->host);
    addr->port = g_strdup(o->port);
    addr->fd = -1;
    return is_unix ? check_unix_path(o->path, errp)
                   : is_fd ? parse_fd(o->str, &addr->fd, errp) : 0;
}

/* Lift what stands in the object "data". */
static int lift_data(BlockOptions *options, GError **errp)
{
    BlockOptionsChild kind = BLOCK_OPTIONS_CHILD_NONE;
    g_autofree char *reference = NULL;
    g_autoptr(BlockOptions) data = NULL;
    int ret = block_options_take_child(options, "data", &kind, &reference,
                                       &data, errp);

    if (ret == 0 && data) {
        block_options_merge(options, data);
    } else if (ret == 0 && kind != BLOCK_OPTIONS_CHILD_NONE) {
        ret = block_error(errp, EINVAL, "'data' of a socket address must be "
                          "an object");
    }
    return ret;
}

int socket_address_parse(BlockOptions *options, SocketAddress **ret_addr,
                         GError **errp)
{
    AddressOptions o = { 0 };
    SocketAddress *addr;
    int ret = lift_data(options, errp);

    if (ret == 0) {
        ret = block_options_absorb(options, address_options, &o,
                                   "Socket address", errp);
    }
    if (ret < 0) {
        return ret;
    }
    addr = g_new0(SocketAddress, 1);
    ret = fill_address(addr, &o, errp);
    block_options_clear(address_options, &o);
    if (ret < 0) {
        socket_address_free(addr);
        return ret;
    }
    *ret_addr = addr;
    return 0;
}

SocketAddress *socket_address_new_unix(const char *path)
{
    SocketAddress *addr = g_new0(SocketAddress, 1);

    addr->type = SOCKET_ADDRESS_UNIX;
    addr->path = g_strdup(path);
    addr->fd = -1;
    return addr;
}

SocketAddress *socket_address_new_inet(const char *host, const char *port)
{
    SocketAddress *addr = g_new0(SocketAddress, 1);

    addr->type = SOCKET_ADDRESS_INET;
    addr->host = g_strdup(host);
    addr->port = g_strdup(port);
    addr->fd = -1;
    return addr;
}

SocketAddress *socket_address_clone(const SocketAddress *addr)
{
    SocketAddress *copy = g_new0(SocketAddress, 1);

    copy->type = addr->type;
    copy->path = g_strdup(addr->path);
    copy->host = g_strdup(addr->host);
    copy->port = g_strdup(addr->port);
    copy->fd = addr->fd;
    return copy;
}

void socket_address_free(SocketAddress *addr)
{
    if (addr) {
        g_free(addr->path);
        g_free(addr->host);
        g_free(addr->port);
        g_free(addr);
    }
}

char *socket_address_text(const SocketAddress *addr)
{
    switch (addr->type) {
    case SOCKET_ADDRESS_UNIX:
        return g_strdup_printf("unix:%s", addr->path);
    case SOCKET_ADDRESS_INET:
        return g_strdup_printf(strchr(addr->host, ':') ? "[%s]:%s" : "%s:%s",
                               addr->host, addr->port);
    default:
        return g_strdup_printf("fd:%d", addr->fd);
    }
}

/* --- TCP ----------------------------------------------------------------- */

static int coroutine_fn listen_inet(SocketListener *listener,
                                    const SocketAddress *addr,
                                    bool open_to_all, GError **errp)
{
    const SocketName name = { addr->host, addr->port, .passive = true };
    g_autofree char *text = socket_address_text(addr);
    struct addrinfo *found = NULL;
    int fds[SOCKET_LISTEN_MAX];
    CoSleep wait = { 0 };
    int ret = socket_co_lookup(&name, AIO_NO_DEADLINE, &wait, &found, errp);

    if (ret < 0) {
        return ret;
    }
    for (struct addrinfo *ai = found; ai; ai = ai->ai_next) {
        if (!open_to_all && !socket_is_loopback(ai->ai_addr)) {
            freeaddrinfo(found);
            return block_error(errp, EACCES, "Refused to listen on '%s' "
                               "without TLS: others than this machine could "
                               "read and change what is sent; 'plain-text' "
                               "allows it", text);
        }
    }
    ret = socket_listen_inet(found, LISTEN_BACKLOG, fds, SOCKET_LISTEN_MAX);
    freeaddrinfo(found);
    if (ret < 0) {
        return block_error_errno(errp, -ret, "Could not listen on '%s'", text);
    }
    for (int i = 0; i < ret; i++) {
        listener->sockets[listener->nr_sockets++] = aio_socket_new(fds[i]);
    }
    return 0;
}

static unsigned port_of(const in_port_t *port)
{
    return untrusted_bits(untrusted_be16(port), UINT16_MAX);
}

unsigned socket_listener_port(const SocketListener *listener)
{
    struct sockaddr_storage at = { 0 };
    socklen_t bytes = sizeof(at);

    if (getsockname(aio_socket_fd(listener->sockets[0]),
                    (struct sockaddr *)&at, &bytes) < 0) {
        return 0;
    }
    return at.ss_family == AF_INET
               ? port_of(&((struct sockaddr_in *)&at)->sin_port)
           : at.ss_family == AF_INET6
               ? port_of(&((struct sockaddr_in6 *)&at)->sin6_port) : 0;
}

/* --- unix ---------------------------------------------------------------- */

static int listen_unix(SocketListener *listener, const char *path,
                       GError **errp)
{
    int fd = socket_listen_unix(path, LISTEN_BACKLOG);
    struct stat st;

    if (fd < 0) {
        return block_error_errno(errp, -fd, "Could not listen on unix socket "
                                 "'%s'", path);
    }
    listener->sockets[listener->nr_sockets++] = aio_socket_new(fd);
    if (lstat(path, &st) == 0) {
        listener->path = g_strdup(path);
        listener->path_dev = st.st_dev;
        listener->path_ino = st.st_ino;
    }
    return 0;
}

/* --- listening ----------------------------------------------------------- */

static int listen_fd(SocketListener *listener, int fd, GError **errp)
{
    int accepts = 0;
    socklen_t bytes = sizeof(accepts);

    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &accepts, &bytes) < 0 ||
        !accepts) {
        return block_error(errp, EINVAL, "Descriptor %d does not listen", fd);
    }
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    listener->sockets[listener->nr_sockets++] = aio_socket_new(fd);
    return 0;
}

SocketListener *coroutine_fn socket_co_listen(const SocketAddress *addr,
                                              bool open_to_all, GError **errp)
{
    SocketListener *listener = g_new0(SocketListener, 1);
    int ret;

    switch (addr->type) {
    case SOCKET_ADDRESS_UNIX:
        ret = listen_unix(listener, addr->path, errp);
        break;
    case SOCKET_ADDRESS_INET:
        ret = listen_inet(listener, addr, open_to_all, errp);
        break;
    default:
        ret = listen_fd(listener, addr->fd, errp);
        break;
    }
    if (ret < 0) {
        socket_listener_free(listener);
        return NULL;
    }
    return listener;
}

void socket_listener_free(SocketListener *listener)
{
    struct stat st;

    if (!listener) {
        return;
    }
    for (int i = 0; i < listener->nr_sockets; i++) {
        aio_socket_free(listener->sockets[i]);
    }
    /* Somebody may have put something else there meanwhile. */
    if (listener->path && lstat(listener->path, &st) == 0 &&
        st.st_dev == listener->path_dev && st.st_ino == listener->path_ino) {
        unlink(listener->path);
    }
    g_free(listener->path);
    g_free(listener);
}
