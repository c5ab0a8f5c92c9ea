/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A name server that answers when the test wants it: in place of that of the
 * system.  All names are this machine, but "nowhere"; "twice" has a second
 * address, 127.0.0.2.
 */
#ifndef TESTS_UNIT_SLOW_NAMES_H
#define TESTS_UNIT_SLOW_NAMES_H

#include "check-main.h"

#include <arpa/inet.h>
#include <glib.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <unistd.h>

/** While set nobody gets an answer; any thread, as all here. */
static _Atomic bool names_held;

/** How many have asked; how many answers were given back. */
static _Atomic unsigned names_asked, names_freed;

typedef struct SlowName {
    struct addrinfo info[2];    /* the first: that is what others see */
    struct sockaddr_in at[2];
} SlowName;

int getaddrinfo(const char *host, const char *port,
                const struct addrinfo *hints, struct addrinfo **ret)
{
    SlowName *name;

    atomic_fetch_add(&names_asked, 1);
    while (atomic_load(&names_held)) {
        sched_yield();
    }
    if (g_strcmp0(host, "nowhere") == 0) {
        return EAI_NONAME;
    }
    name = g_new0(SlowName, 1);
    for (int i = 0; i < 2; i++) {
        name->at[i].sin_family = AF_INET;
        name->at[i].sin_addr.s_addr = htonl(INADDR_LOOPBACK + i);
        name->at[i].sin_port = htons(atoi(port));
        name->info[i].ai_family = AF_INET;
        name->info[i].ai_socktype = hints->ai_socktype;
        name->info[i].ai_addr = (struct sockaddr *)&name->at[i];
        name->info[i].ai_addrlen = sizeof(name->at[i]);
    }
    if (g_strcmp0(host, "twice") == 0) {
        name->info[0].ai_next = &name->info[1];
    }
    *ret = name->info;
    return 0;
}

void freeaddrinfo(struct addrinfo *info)
{
    g_free(info);
    atomic_fetch_add(&names_freed, 1);
}

/** Let all have their answers, and wait until @nr of them were given back. */
static inline void names_release(unsigned nr)
{
    atomic_store(&names_held, false);
    while (atomic_load(&names_freed) < nr) {
        sched_yield();
    }
}

/** A socket of this machine that listens at @port, and whose queue is full:
 * who connects waits.  *@ret_in is what stands in the queue. */
static inline int full_listener(unsigned port, int *ret_in)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    struct pollfd pfd = { .fd = fd, .events = POLLIN };
    socklen_t bytes = sizeof(at);

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    ck_assert_int_eq(listen(fd, 0), 0);
    ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&at, &bytes), 0);
    *ret_in = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(connect(*ret_in, (struct sockaddr *)&at, sizeof(at)), 0);
    ck_assert_int_eq(poll(&pfd, 1, -1), 1);
    return fd;
}

/** The port at which @fd listens. */
static inline unsigned port_of(int fd)
{
    struct sockaddr_in at;
    socklen_t bytes = sizeof(at);

    ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&at, &bytes), 0);
    return ntohs(at.sin_port);
}

#endif /* TESTS_UNIT_SLOW_NAMES_H */
