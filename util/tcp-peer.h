/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Peers that vanish, those of TCP above all.
 */
#ifndef UTIL_TCP_PEER_H
#define UTIL_TCP_PEER_H

/**
 * Have a TCP peer that has vanished noticed, whether anything is in flight or
 * not: @timeout_s seconds after its system has last answered, or taken data; 0:
 * when the system says so.  Nothing to other sockets than those of TCP.
 * Thread: any.
 */
void tcp_watch_peer(int fd, unsigned timeout_s);

/**
 * When @fd is closed what its peer has not got is taken back, and the peer is
 * told that the connection broke.  Nothing to other sockets than those of TCP.
 * Thread: any.
 */
void tcp_abandon(int fd);

/** Whether somebody is there to take what is sent. */
typedef enum PeerState {
    PEER_THERE,                 /* for all that is known */
    PEER_UNSURE,                /* it says no more; whether it listens is told
                                   by how it takes what was sent last */
    PEER_GONE,
} PeerState;

/**
 * What is known of the peer of @fd.  A stream that has ended does not say that:
 * its peer may have ended its own side alone.  Thread: any.
 */
PeerState socket_peer_state(int fd);

#endif /* UTIL_TCP_PEER_H */
