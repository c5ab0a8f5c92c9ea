/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A server in a thread that says what no server should.
 */
#ifndef TESTS_UNIT_NBD_LIAR_H
#define TESTS_UNIT_NBD_LIAR_H

#include "nbd-fixture.h"

#include <pthread.h>

/** A server in a thread: some connections, then it has gone. */
typedef struct Liar {
    int listener;
    void (*play)(int fd, int n);
    int n;
    int nr_connections;
    pthread_t thread;
} Liar;

static inline bool say(int fd, const void *data, size_t bytes)
{
    return send(fd, data, bytes, MSG_NOSIGNAL) == (ssize_t)bytes;
}

static inline bool hear(int fd, void *data, size_t bytes)
{
    return bytes == 0 ||
           recv(fd, data, bytes, MSG_WAITALL) == (ssize_t)bytes;
}

static inline void *liar_thread(void *opaque)
{
    Liar *liar = opaque;
    for (int i = 0; i < liar->nr_connections; i++) {
        int fd = accept(liar->listener, NULL, NULL);

        if (fd < 0) {
            break;              /* the test has shut it */
        }
        liar->play(fd, liar->n + i);
        close(fd);
    }
    return NULL;
}

/** @play each of @nr_connections: with @n, @n + 1, ... */
static inline void liar_start_many(Liar *liar, void (*play)(int fd, int n),
                                   int n, int nr_connections)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };

    g_strlcpy(un.sun_path, nbd_path, sizeof(un.sun_path));
    liar->play = play;
    liar->n = n;
    liar->nr_connections = nr_connections;
    liar->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(liar->listener, (struct sockaddr *)&un,
                          sizeof(un)), 0);
    ck_assert_int_eq(listen(liar->listener, 1), 0);
    ck_assert_int_eq(pthread_create(&liar->thread, NULL, liar_thread, liar),
                     0);
}

static inline void liar_start(Liar *liar, void (*play)(int fd, int n), int n)
{
    liar_start_many(liar, play, n, 1);
}

static inline void liar_end(Liar *liar)
{
    pthread_join(liar->thread, NULL);
    close(liar->listener);
    unlink(nbd_path);
}

static inline void greet(int fd)
{
    uint8_t hello[18], flags[4];

    be(be(be(hello, NBD_MAGIC, 8), NBD_OPTION_MAGIC, 8), 3, 2);
    say(fd, hello, sizeof(hello));
    hear(fd, flags, sizeof(flags));
}

static inline uint32_t hear_option(int fd)
{
    uint8_t head[16], data[8192];
    uint32_t bytes;

    if (!hear(fd, head, sizeof(head))) {
        return 0;
    }
    bytes = from_be(head + 12, 4);
    hear(fd, data, MIN(bytes, sizeof(data)));
    return from_be(head + 8, 4);
}

static inline void answer(int fd, uint32_t option, uint32_t type,
                          const void *data, uint32_t bytes)
{
    uint8_t head[20];

    be(be(be(be(head, NBD_OPTION_REPLY_MAGIC, 8), option, 4), type, 4), bytes,
       4);
    say(fd, head, sizeof(head));
    say(fd, data, bytes);
}

/** What an export of @size is; @flags beside NBD_FLAG_HAS_FLAGS. */
static inline void answer_export(int fd, uint64_t size, unsigned flags)
{
    uint8_t info[12];

    be(be(be(info, NBD_INFO_EXPORT, 2), size, 8),
       NBD_FLAG_HAS_FLAGS | flags, 2);
    answer(fd, NBD_OPT_GO, NBD_REP_INFO, info, sizeof(info));
}

/** An honest handshake, up to the reply to GO. */
static inline void honest_greeting(int fd, uint64_t size, unsigned flags,
                                   bool extended)
{
    uint32_t option;

    greet(fd);
    while ((option = hear_option(fd))) {
        if (option == NBD_OPT_EXTENDED_HEADERS && !extended) {
            answer(fd, option, NBD_REP_ERR_UNSUP, "", 0);
            continue;
        }
        if (option == NBD_OPT_SET_META_CONTEXT) {
            answer(fd, option, NBD_REP_META_CONTEXT,
                   "\0\0\0\7base:allocation", 19);
        } else if (option == NBD_OPT_GO) {
            answer_export(fd, size, flags);
        }
        answer(fd, option, NBD_REP_ACK, "", 0);
        if (option == NBD_OPT_GO) {
            break;
        }
    }
}

/** That for structured replies, then the first request; its cookie to
 * @cookie. */
static inline uint16_t honest(int fd, uint8_t cookie[8])
{
    uint8_t request[28];

    honest_greeting(fd, MIB, NBD_FLAG_SEND_FLUSH, false);
    if (!hear(fd, request, sizeof(request))) {
        return UINT16_MAX;
    }
    memcpy(cookie, request + 8, 8);
    return from_be(request + 6, 2);
}

#endif /* TESTS_UNIT_NBD_LIAR_H */
