/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * TCP peers that vanish: what the system shall do to notice, and what it has
 * noticed.
 */
#include "util/tcp-peer.h"

#include <glib.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

/* Between questions to a silent peer, and how many of them. */
#define KEEPALIVE_S 10
#define KEEPALIVE_COUNT 3

/*
 * While nothing is in flight, questions notice it; else, as there are none
 * then, it is noticed by what stays without acknowledgement.  The same limit
 * holds for a peer whose system answers, but has no room for what waits to be
 * sent: who reads nothing at all for that long is dropped, too.
 */
void tcp_watch_peer(int fd, unsigned timeout_s)
{
    const int on = 1, count = KEEPALIVE_COUNT;
    const int idle = timeout_s ? CLAMP(timeout_s / count, 1, KEEPALIVE_S)
                               : KEEPALIVE_S;
    const unsigned timeout_ms = timeout_s * 1000;

    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &idle, sizeof(idle));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms,
               sizeof(timeout_ms));
}

void tcp_abandon(int fd)
{
    const struct linger now = { .l_onoff = 1, .l_linger = 0 };

    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
}

/*
 * A peer on this machine that closes its socket hangs up both sides at once.
 * One of TCP ends its own side only, whichever it means, and denies what it
 * gets after that if it means both; if it takes that, it listens.
 */
PeerState socket_peer_state(int fd)
{
    struct pollfd pfd = { .fd = fd, .events = POLLRDHUP };
    int protocol = 0, unacknowledged = 0;
    socklen_t bytes = sizeof(protocol);

    if (poll(&pfd, 1, 0) <= 0) {
        return PEER_THERE;
    }
    if (pfd.revents & (POLLHUP | POLLERR)) {
        return PEER_GONE;
    }
    if (getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &bytes) < 0 ||
        protocol != IPPROTO_TCP || ioctl(fd, SIOCOUTQ, &unacknowledged) < 0) {
        return PEER_THERE;
    }
    return unacknowledged > 0 ? PEER_UNSURE : PEER_THERE;
}
