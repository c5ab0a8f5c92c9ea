/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where control sockets are: a path, or a host and a port of TCP.
 *
 * Calls look names up and wait: for a program that begins, not for its loop.
 */
#ifndef MONITOR_QMP_ADDRESS_H
#define MONITOR_QMP_ADDRESS_H

#include <blockgraph/error.h>

G_BEGIN_DECLS

/** Sockets that one address may need: a name may stand for several hosts. */
#define QMP_LISTEN_MAX 4

/** Whether an IP version may be used. */
typedef enum QmpOnOff {
    QMP_AUTO,   /* yes, unless the other one is asked for */
    QMP_ON,
    QMP_OFF,
} QmpOnOff;

/** An address: either @path, or @host and @port. */
typedef struct QmpAddress {
    char *path;
    char *host;         /* "": all of this machine */
    char *port;         /* number or name */
    int ipv4, ipv6;     /* QmpOnOff */
    bool plain_text;    /* others than this machine may connect */
} QmpAddress;

/** Check that @address is one.  Returns 0, or -EINVAL with @errp set. */
int qmp_address_check(const QmpAddress *address, GError **errp);

/** @address for a person.  g_free() it. */
char *qmp_address_text(const QmpAddress *address);

/**
 * Listen at @address, which has been checked.  A unix socket gets mode 0600;
 * one there that belongs to this user and that nobody listens at is removed
 * before.  TCP is for this machine alone, unless the address says otherwise.
 *
 * Returns how many descriptors are in @fds now, or a negative errno with @errp
 * set.
 */
int qmp_address_listen(const QmpAddress *address, int fds[QMP_LISTEN_MAX],
                       GError **errp);

/**
 * Connect to @address, which has been checked.  Who listens at each address
 * that it stands for gets @patience_s seconds to answer.  Returns the
 * descriptor, or a negative errno with @errp set.
 */
int qmp_address_connect(const QmpAddress *address, int patience_s,
                        GError **errp);

G_END_DECLS

#endif /* MONITOR_QMP_ADDRESS_H */
