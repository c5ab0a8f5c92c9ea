/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Connecting to an address, until somebody says that it is enough.
 */
#ifndef UTIL_SOCKET_CONNECT_H
#define UTIL_SOCKET_CONNECT_H

#include "util/socket-address.h"

/** An attempt to connect, which others can end.  All zero at first.  One
 * thread. */
typedef struct SocketAttempt {
    bool ended;
    CoSleep lookup;             /* who waits for a name */
    AioSocket *socket;          /* that is being connected, or NULL */
} SocketAttempt;

/**
 * Connect to @addr; of several addresses to the first that answers.
 *
 * @attempt  socket_attempt_end() ends the call; NULL: nothing but the deadline
 *
 * Returns 0 with the descriptor in @ret_fd, or a negative errno with @errp:
 * -ETIMEDOUT, -ECANCELED (socket_attempt_end()), or what the system says.
 */
int coroutine_fn socket_co_connect(const SocketAddress *addr,
                                   int64_t deadline_ns, SocketAttempt *attempt,
                                   int *ret_fd, GError **errp);

/** End what runs with @attempt, and all that is begun with it later. */
void socket_attempt_end(SocketAttempt *attempt);

#endif /* UTIL_SOCKET_CONNECT_H */
