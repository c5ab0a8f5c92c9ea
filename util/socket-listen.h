/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sockets that listen, and who may reach them.  Nothing here waits.
 */
#ifndef UTIL_SOCKET_LISTEN_H
#define UTIL_SOCKET_LISTEN_H

#include <netdb.h>
#include <stdbool.h>
#include <sys/socket.h>

/** Whether only this machine can reach @to. */
bool socket_is_loopback(const struct sockaddr *to);

/**
 * Listen at all addresses of @found that this machine has, @max at most, with
 * room for @backlog clients that wait at each.  Where one address is taken
 * clients of the name would reach somebody else: then at none.
 *
 * Returns how many descriptors are in @fds, or a negative errno.
 */
int socket_listen_inet(const struct addrinfo *found, int backlog, int *fds,
                       int max);

/**
 * Listen at the unix socket @path, which fits into an address, with mode 0600.
 * What is there is replaced only if it is a socket of this user at which nobody
 * listens.
 *
 * Returns the descriptor or a negative errno.
 */
int socket_listen_unix(const char *path, int backlog);

#endif /* UTIL_SOCKET_LISTEN_H */
