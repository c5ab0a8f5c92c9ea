/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Stream sockets in coroutines.
 *
 * A transfer first tries the plain system call, which neither waits nor needs a
 * turn of the loop.  If that would block, the ring gets the transfer itself,
 * so that the data is there when the coroutine goes on; other engines watch
 * the descriptor and try again.  A receive that has found less than it had room
 * for has emptied the socket: the next one goes to the ring at once.  A peer
 * that is always quicker than we are would keep all others, and its deadline,
 * from their turn; so that ends after some receives.
 *
 * To accept and to connect is rare, so both engines watch the descriptor for
 * that.  Thus the ring needs no right to connect, and no connection is lost
 * between a completion and its cancellation.
 *
 * S1  side->co is set while a coroutine waits; whoever clears it wakes it.
 * S2  A request in the ring ends only by its completion, never by leaving: a
 *     shutdown or a deadline asks for its cancellation, and the coroutine goes
 *     on waiting.  Its result counts even then, if it is one.
 */
#include "util/aio-socket.h"

#include "util/aio-context.h"
#include "util/sim-point.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <unistd.h>

/* Receives without waiting; then others have their turn. */
#define RECV_STREAK_MAX 16

/* A unix socket whose queue is full cannot be watched: try again so often. */
#define CONNECT_RETRY_NS (10 * 1000 * 1000)

typedef enum Direction { SIDE_IN, SIDE_OUT, SIDES } Direction;

/* A coroutine that waits at one side; on its stack but for the pointer. */
typedef struct Waiter {
    AioSocket *socket;
    Direction direction;
    AioContext *ctx;
    Coroutine *co;              /* who waits for readiness (S1) */
    AioRequest *req;            /* or for this, in the ring (S2) */
    bool timed_out;
} Waiter;

struct AioSocket {
    /* Set by aio_socket_new(), never changed after. */
    int fd;

    /* Touched by the thread that uses the socket. */
    bool shut;
    bool nonblocking;
    bool drained;               /* the last receive found all there was */
    unsigned streak;            /* receives since one has waited */
    Waiter *waiters[SIDES];
};

AioSocket *aio_socket_new(int fd)
{
    AioSocket *s = g_new0(AioSocket, 1);
    int flags = fcntl(fd, F_GETFL);

    g_assert(fd >= 0);
    s->fd = fd;
    /* The ring does not wait for a socket that says it must not block. */
    if (flags >= 0 && (flags & O_NONBLOCK)) {
        fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
    }
    return s;
}

void aio_socket_free(AioSocket *s)
{
    if (!s) {
        return;
    }
    g_assert(!s->waiters[SIDE_IN] && !s->waiters[SIDE_OUT]);
    close(s->fd);
    g_free(s);
}

int aio_socket_fd(const AioSocket *s)
{
    return s->fd;
}

bool aio_socket_is_shut(const AioSocket *s)
{
    return s->shut;
}

static void set_nonblocking(AioSocket *s, bool on)
{
    int flags = fcntl(s->fd, F_GETFL);

    if (flags >= 0 && s->nonblocking != on) {
        fcntl(s->fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK);
        s->nonblocking = on;
    }
}

/* --- waiting ------------------------------------------------------------- */

static void watch(AioSocket *s, AioContext *ctx);

/* S1 */
static void waiter_wake(Waiter *w)
{
    Coroutine *co = w->co;

    if (co) {
        w->co = NULL;
        watch(w->socket, w->ctx);
        aio_co_wake(co);
    }
}

static void readable(void *opaque)
{
    AioSocket *s = opaque;

    if (s->waiters[SIDE_IN]) {
        waiter_wake(s->waiters[SIDE_IN]);
    }
}

static void writable(void *opaque)
{
    AioSocket *s = opaque;

    if (s->waiters[SIDE_OUT]) {
        waiter_wake(s->waiters[SIDE_OUT]);
    }
}

static bool wants_watch(const Waiter *w)
{
    return w && w->co;
}

/* Watch the descriptor for those who wait for it. */
static void watch(AioSocket *s, AioContext *ctx)
{
    aio_set_fd_handler(ctx, s->fd,
                       wants_watch(s->waiters[SIDE_IN]) ? readable : NULL,
                       wants_watch(s->waiters[SIDE_OUT]) ? writable : NULL, s);
}

/* End the wait at @w, or ask for it (S2). */
static void waiter_cancel(Waiter *w)
{
    if (w->req) {
        w->ctx->ops->cancel(w->ctx, w->ctx->state, w->req);
    } else {
        waiter_wake(w);
    }
}

static void deadline_passed(void *opaque)
{
    Waiter *w = opaque;

    w->timed_out = true;
    waiter_cancel(w);
}

static AioTimer *waiter_begin(Waiter *w, int64_t deadline_ns)
{
    AioTimer *timer = NULL;

    g_assert(w->ctx && in_coroutine());
    g_assert(!w->socket->waiters[w->direction]);
    w->socket->waiters[w->direction] = w;
    if (deadline_ns != AIO_NO_DEADLINE) {
        timer = aio_timer_new(w->ctx, deadline_passed, w);
        aio_timer_set(timer, deadline_ns);
    }
    return timer;
}

static int waiter_end(Waiter *w, AioTimer *timer)
{
    w->socket->waiters[w->direction] = NULL;
    aio_timer_free(timer);
    return w->socket->shut ? -ESHUTDOWN : w->timed_out ? -ETIMEDOUT : 0;
}

/* Wait until the descriptor is ready.  Returns 0 or a negative errno. */
static int coroutine_fn wait_ready(AioSocket *s, Direction direction,
                                   int64_t deadline_ns)
{
    Waiter w = {
        .socket = s,
        .direction = direction,
        .ctx = aio_get_current(),
    };
    AioTimer *timer = waiter_begin(&w, deadline_ns);

    w.co = coroutine_self();
    watch(s, w.ctx);
    SIM_WAITS("a socket", s);
    coroutine_yield();
    g_assert(!w.co);
    return waiter_end(&w, timer);
}

/* The transfer in the ring.  Returns bytes or a negative errno. */
static int64_t coroutine_fn run_in_ring(AioSocket *s, AioRequest *req,
                                        int64_t deadline_ns)
{
    Waiter w = {
        .socket = s,
        .direction = req->op == AIO_OP_RECV ? SIDE_IN : SIDE_OUT,
        .ctx = aio_get_current(),
        .req = req,
    };
    AioTimer *timer = waiter_begin(&w, deadline_ns);
    int64_t result = aio_request_co_run(req, false);
    int ret = waiter_end(&w, timer);

    return result >= 0 && !s->shut ? result : ret ? ret : result;
}

void aio_socket_shutdown(AioSocket *s)
{
    if (s->shut) {
        return;
    }
    s->shut = true;
    shutdown(s->fd, SHUT_RDWR);
    for (Direction d = 0; d < SIDES; d++) {
        if (s->waiters[d]) {
            waiter_cancel(s->waiters[d]);
        }
    }
}

void aio_socket_hang_up(AioSocket *s)
{
    shutdown(s->fd, SHUT_RDWR);
}

/* --- transfers ----------------------------------------------------------- */

static int64_t try_transfer(AioSocket *s, AioRequest *req)
{
    ssize_t ret;

    do {
        if (req->op == AIO_OP_SEND) {
            ret = sendmsg(s->fd, req->msg, MSG_DONTWAIT | MSG_NOSIGNAL);
        } else if (req->niov == 1) {
            ret = recv(s->fd, req->iov->iov_base, req->iov->iov_len,
                       MSG_DONTWAIT);
        } else {
            ret = recvmsg(s->fd, req->msg, MSG_DONTWAIT);
        }
    } while (ret < 0 && errno == EINTR);
    return ret < 0 ? -errno : ret;
}

static int64_t coroutine_fn transfer(AioSocket *s, AioRequest *req,
                                     bool try_first, int64_t deadline_ns)
{
    AioContext *ctx = aio_get_current();
    bool has_ring = ctx->ops->cancel != NULL;
    int64_t ret = -EAGAIN;

    while (!s->shut) {
        if (try_first || !has_ring) {
            ret = try_transfer(s, req);
        }
        if (ret != -EAGAIN) {
            return ret;
        }
        if (has_ring) {
            ret = run_in_ring(s, req, deadline_ns);
            if (ret != -EINTR && ret != -EAGAIN) {
                return ret;
            }
            ret = -EAGAIN;
            continue;
        }
        ret = wait_ready(s, req->op == AIO_OP_RECV ? SIDE_IN : SIDE_OUT,
                         deadline_ns);
        if (ret < 0) {
            return ret;
        }
    }
    return -ESHUTDOWN;
}

/* Returns 0, or -ETIMEDOUT. */
static int coroutine_fn give_others_a_turn(AioSocket *s, int64_t deadline_ns)
{
    s->streak = 0;
    if (aio_clock_ns(aio_get_current()) >= deadline_ns) {
        return -ETIMEDOUT;
    }
    co_sleep_ns(0);
    return 0;
}

int64_t coroutine_fn aio_socket_recv(AioSocket *s, const struct iovec *iov,
                                     int niov, int64_t deadline_ns)
{
    struct msghdr msg = {
        .msg_iov = (struct iovec *)iov,
        .msg_iovlen = MIN(niov, IOV_MAX),
    };
    AioRequest req = {
        .op = AIO_OP_RECV, .fd = s->fd, .iov = iov, .niov = msg.msg_iovlen,
        .msg = &msg,
    };
    int64_t ret = 0;
    size_t room = 0;

    if (s->drained) {
        s->streak = 0;          /* this one waits */
    } else if (++s->streak > RECV_STREAK_MAX) {
        ret = give_others_a_turn(s, deadline_ns);
    }
    if (ret == 0) {
        ret = transfer(s, &req, !s->drained, deadline_ns);
    }
    for (int i = 0; i < req.niov; i++) {
        room += iov[i].iov_len;
    }
    s->drained = ret > 0 && (size_t)ret < room;
    return ret;
}

int64_t coroutine_fn aio_socket_send(AioSocket *s, const struct iovec *iov,
                                     int niov, int64_t deadline_ns)
{
    struct msghdr msg = {
        .msg_iov = (struct iovec *)iov,
        .msg_iovlen = MIN(niov, IOV_MAX),
    };
    AioRequest req = {
        .op = AIO_OP_SEND, .fd = s->fd, .iov = iov, .niov = msg.msg_iovlen,
        .msg = &msg,
    };

    return transfer(s, &req, true, deadline_ns);
}

/* --- connections --------------------------------------------------------- */

int coroutine_fn aio_socket_accept(AioSocket *s, int *ret_fd,
                                   int64_t deadline_ns)
{
    /* Another process may share the queue and be quicker. */
    set_nonblocking(s, true);
    while (!s->shut) {
        int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC);
        int ret;

        if (fd >= 0) {
            *ret_fd = fd;
            return 0;
        }
        if (errno == EINTR || errno == ECONNABORTED) {
            continue;
        }
        if (errno != EAGAIN) {
            return s->shut ? -ESHUTDOWN : -errno;
        }
        ret = wait_ready(s, SIDE_IN, deadline_ns);
        if (ret < 0) {
            return ret;
        }
    }
    return -ESHUTDOWN;
}

/* The result of a connect() that went on by itself. */
static int coroutine_fn connect_finish(AioSocket *s, int64_t deadline_ns)
{
    int ret = wait_ready(s, SIDE_OUT, deadline_ns);
    socklen_t bytes = sizeof(int);
    int err = 0;

    if (ret < 0) {
        return ret;
    }
    if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &err, &bytes) < 0) {
        return -errno;
    }
    return -err;
}

int coroutine_fn aio_socket_connect(AioSocket *s, const struct sockaddr *to,
                                    socklen_t to_bytes, int64_t deadline_ns)
{
    int ret;

    set_nonblocking(s, true);
    for (;;) {
        ret = s->shut ? -ESHUTDOWN
                      : connect(s->fd, to, to_bytes) < 0 ? -errno : 0;
        if (ret == -EINPROGRESS || ret == -EINTR) {
            ret = connect_finish(s, deadline_ns);
        } else if (ret == -EAGAIN) {
            if (aio_clock_ns(aio_get_current()) >= deadline_ns) {
                ret = -ETIMEDOUT;
                break;
            }
            co_sleep_ns(CONNECT_RETRY_NS);
            continue;
        }
        break;
    }
    set_nonblocking(s, false);
    return ret;
}
