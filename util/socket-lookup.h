/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From names of hosts to addresses, for as long as somebody wants to know.
 */
#ifndef UTIL_SOCKET_LOOKUP_H
#define UTIL_SOCKET_LOOKUP_H

#include <blockgraph/aio.h>

#include <netdb.h>

/** What is looked for. */
typedef struct SocketName {
    const char *host;           /* "" is any */
    const char *port;           /* a number or a service */
    bool passive;               /* to listen there */
} SocketName;

/**
 * Find the addresses of @name.
 *
 * @deadline_ns  give up then (aio_clock_ns())
 * @wait         who wakes it ends the call: -ECANCELED
 *
 * Returns 0 with @ret set (freeaddrinfo()), or a negative errno with @errp.
 * A name server that does not answer keeps a thread that nobody waits for.
 */
int coroutine_fn socket_co_lookup(const SocketName *name, int64_t deadline_ns,
                                  CoSleep *wait, struct addrinfo **ret,
                                  GError **errp);

#endif /* UTIL_SOCKET_LOOKUP_H */
