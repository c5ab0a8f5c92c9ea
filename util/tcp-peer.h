/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * TCP peers that vanish.
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

#endif /* UTIL_TCP_PEER_H */
