/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Control sockets: stream sockets on which clients find a monitor each.
 *
 * Whoever may connect has all the rights of the process, so a unix socket is
 * made in mode 0600, and a peer of another user is turned away.  With TCP
 * nobody is asked who he is.  Everything here runs in the main context.
 */
#ifndef MONITOR_QMP_SOCKET_H
#define MONITOR_QMP_SOCKET_H

#include "monitor/qmp-address.h"
#include "monitor/qmp-server.h"

G_BEGIN_DECLS

/** Clients of one socket at once. */
#define QMP_CLIENTS_MAX 16

/** Bytes that may wait for a client; one that reads no more is cut off. */
#define QMP_OUTPUT_MAX (16 << 20)

typedef struct QmpSocket QmpSocket;

/**
 * Listen at @address.
 *
 * @pretty  clients get their lines indented, for people
 *
 * Returns the socket, which the caller owns, or NULL with @errp set.
 */
QmpSocket *qmp_socket_listen(QmpServer *server, const QmpAddress *address,
                             bool pretty, GError **errp);

/** Connect to @address: the one client is there.  As above otherwise. */
QmpSocket *qmp_socket_connect(QmpServer *server, const QmpAddress *address,
                              bool pretty, GError **errp);

/** Whether a client is there. */
bool qmp_socket_has_client(const QmpSocket *socket);

/** Whether something is not sent yet. */
bool qmp_socket_has_output(const QmpSocket *socket);

/** Take no more input: the end is near. */
void qmp_socket_shutdown(QmpSocket *socket);

/** Close all connections, remove the socket.  NULL is ignored. */
void qmp_socket_free(QmpSocket *socket);

G_END_DECLS

#endif /* MONITOR_QMP_SOCKET_H */
