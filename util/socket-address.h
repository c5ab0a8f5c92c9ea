/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where a server listens and a client connects: addresses from options.  (How
 * it connects: socket-connect.h.)
 *
 *     type=unix,path=PATH
 *     type=inet,host=HOST,port=PORT
 *     type=fd,str=NUMBER          a socket that was passed in
 *
 * An object "data" around all but the type is accepted, as old control
 * commands have it.
 */
#ifndef UTIL_SOCKET_ADDRESS_H
#define UTIL_SOCKET_ADDRESS_H

#include "util/aio-socket.h"

#include <blockgraph/options.h>

typedef enum SocketAddressType {
    SOCKET_ADDRESS_INET,
    SOCKET_ADDRESS_UNIX,
    SOCKET_ADDRESS_FD,
} SocketAddressType;

/** An address.  Set when it is made, never changed after. */
typedef struct SocketAddress {
    SocketAddressType type;
    char *path;                 /* UNIX */
    char *host;                 /* INET */
    char *port;                 /* INET: a number or a service */
    int fd;                     /* FD */
} SocketAddress;

/**
 * Take the keys of an address out of @options; the rest stays there.
 *
 * Returns 0 with @ret set (socket_address_free()), or -EINVAL with @errp.
 */
int socket_address_parse(BlockOptions *options, SocketAddress **ret,
                         GError **errp);

/** The address of the unix socket @path. */
SocketAddress *socket_address_new_unix(const char *path);

/** The address @host and @port of TCP. */
SocketAddress *socket_address_new_inet(const char *host, const char *port);

/** A copy. */
SocketAddress *socket_address_clone(const SocketAddress *addr);

/** Free @addr; NULL is ignored. */
void socket_address_free(SocketAddress *addr);

/** Name it for a person.  Free with g_free(). */
char *socket_address_text(const SocketAddress *addr);

/** The most sockets that one address stands for. */
#define SOCKET_LISTEN_MAX 8

/** What listens at an address. */
typedef struct SocketListener {
    /* Set by socket_co_listen(), never changed after. */
    AioSocket *sockets[SOCKET_LISTEN_MAX];
    int nr_sockets;
    char *path;                 /* to be removed at the end, or NULL */
    dev_t path_dev;             /* if it is still this file */
    ino_t path_ino;
} SocketListener;

/**
 * Listen at @addr.
 *
 * A unix socket gets mode 0600.  What stands at its path is removed only if it
 * is a socket of ours at which nobody listens.
 *
 * @open_to_all  TCP on other addresses than those of this machine alone is
 *               wanted; else it is refused
 *
 * Returns the listener, or NULL with @errp set.  Yields: names are looked up.
 */
SocketListener *coroutine_fn socket_co_listen(const SocketAddress *addr,
                                              bool open_to_all, GError **errp);

/** The TCP port of the first socket, or 0. */
unsigned socket_listener_port(const SocketListener *listener);

/** Close the sockets, at which nobody waits; remove the path.  NULL ignored. */
void socket_listener_free(SocketListener *listener);

#endif /* UTIL_SOCKET_ADDRESS_H */
