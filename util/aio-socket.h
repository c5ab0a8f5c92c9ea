/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Stream sockets in coroutines.
 *
 * A socket has two sides: in (receive, accept) and out (send, connect).  At
 * most one coroutine waits at each side, both in the same thread.  While nobody
 * waits a socket can be used in another thread's context.
 *
 * Deadlines are times of aio_clock_ns(); AIO_NO_DEADLINE waits without limit.
 */
#ifndef UTIL_AIO_SOCKET_H
#define UTIL_AIO_SOCKET_H

#include <blockgraph/aio.h>

#include <sys/socket.h>

#define AIO_NO_DEADLINE INT64_MAX

typedef struct AioSocket AioSocket;

/** Take the socket @fd over.  Thread: any. */
AioSocket *aio_socket_new(int fd);

/** Close and free @s; nobody waits.  NULL is ignored.  Thread: any. */
void aio_socket_free(AioSocket *s);

/** The descriptor, which stays the socket's.  Thread: any. */
int aio_socket_fd(const AioSocket *s);

/**
 * Receive what is there into the @niov pieces at @iov, at least one byte; wait
 * for it until @deadline_ns.
 *
 * Returns the number of bytes, 0 at the end of the stream, or a negative
 * errno: -ETIMEDOUT, -ESHUTDOWN (aio_socket_shutdown()), or the system's.
 */
int64_t coroutine_fn aio_socket_recv(AioSocket *s, const struct iovec *iov,
                                     int niov, int64_t deadline_ns);

/**
 * Send some of the bytes in the @niov pieces at @iov, at least one; otherwise
 * as aio_socket_recv().  Never raises SIGPIPE.
 */
int64_t coroutine_fn aio_socket_send(AioSocket *s, const struct iovec *iov,
                                     int niov, int64_t deadline_ns);

/**
 * Take a connection from the listening socket @s.
 *
 * Returns 0 with the new descriptor (close-on-exec) in @ret_fd, or a negative
 * errno as above; -EMFILE and the like may pass.
 */
int coroutine_fn aio_socket_accept(AioSocket *s, int *ret_fd,
                                   int64_t deadline_ns);

/** Connect @s to the address @to.  Returns 0 or a negative errno. */
int coroutine_fn aio_socket_connect(AioSocket *s, const struct sockaddr *to,
                                    socklen_t to_bytes, int64_t deadline_ns);

/**
 * End what the peer and we say: who waits, and every later call, gets
 * -ESHUTDOWN.  Thread: the one that uses @s.
 */
void aio_socket_shutdown(AioSocket *s);

/**
 * End the stream of @s from any thread: who waits sees its end.  The caller
 * keeps @s from being freed meanwhile.
 */
void aio_socket_hang_up(AioSocket *s);

/** Whether aio_socket_shutdown() was called. */
bool aio_socket_is_shut(const AioSocket *s);

#endif /* UTIL_AIO_SOCKET_H */
