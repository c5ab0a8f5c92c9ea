/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The threads engine: epoll for descriptors, worker threads for disk I/O.
 *
 * For systems where io_uring does not exist or is forbidden.  A worker that
 * has done a request wakes its coroutine like any other thread would, so this
 * engine has no completion queue of its own.
 */
#include "util/aio-context.h"

#include "util/clock.h"

#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Events taken in one call. */
#define EVENTS_MAX 64

G_STATIC_ASSERT(POLLIN == EPOLLIN && POLLOUT == EPOLLOUT);
G_STATIC_ASSERT(POLLERR == EPOLLERR && POLLHUP == EPOLLHUP);

typedef struct Threads {
    /* Set by threads_create(), never changed after. */
    int epoll_fd;
    int event_fd;               /* written by any thread */

    /* Touched only by the home thread. */
    unsigned nr_watched;
    AioFdHandler *always_ready; /* linked by next */
    bool in_batch;              /* events of epoll are being worked off */
    AioFdHandler *removed;      /* freed after the batch, linked by next */
} Threads;

static int threads_create(AioContext *ctx, void **ret_state, GError **errp)
{
    struct epoll_event event = { .events = EPOLLIN, .data.ptr = NULL };
    Threads *t = g_new0(Threads, 1);
    int err;

    t->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    t->epoll_fd = t->event_fd < 0 ? -1 : epoll_create1(EPOLL_CLOEXEC);
    if (t->epoll_fd < 0 ||
        epoll_ctl(t->epoll_fd, EPOLL_CTL_ADD, t->event_fd, &event) < 0) {
        err = errno;
        if (t->epoll_fd >= 0) {
            close(t->epoll_fd);
        }
        if (t->event_fd >= 0) {
            close(t->event_fd);
        }
        g_free(t);
        return block_error_errno(errp, err, "Could not set up an event loop");
    }
    *ret_state = t;
    return 0;
}

static void threads_bind(AioContext *ctx, void *state)
{
}

static void threads_unbind(AioContext *ctx, void *state)
{
}

static void threads_destroy(AioContext *ctx, void *state)
{
    Threads *t = state;

    g_assert(t->nr_watched == 0 && !t->always_ready && !t->removed);
    close(t->epoll_fd);
    close(t->event_fd);
    g_free(t);
}

static int64_t threads_clock_ns(const AioContext *ctx)
{
    return clock_monotonic_ns();
}

static bool threads_submit(AioContext *ctx, void *state, AioRequest *req)
{
    return !aio_request_run_at_once(ctx, req) &&
           (aio_request_run_inline(ctx, req) ||
            aio_request_submit_to_workers(ctx, req));
}

static void threads_work(AioContext *ctx, void *state, WorkItem *item)
{
    work_pool_submit(ctx->pool, item);
}

/* --- descriptors --------------------------------------------------------- */

static void always_ready_remove(Threads *t, AioFdHandler *handler)
{
    AioFdHandler **link = &t->always_ready;

    while (*link != handler) {
        link = &(*link)->next;
    }
    *link = handler->next;
    handler->always_ready = false;
}

static void remove_handler(Threads *t, AioFdHandler *handler)
{
    if (handler->always_ready) {
        always_ready_remove(t, handler);
    }
    if (handler->armed) {
        /* Fails if the descriptor was closed too early; it is gone then. */
        epoll_ctl(t->epoll_fd, EPOLL_CTL_DEL, handler->fd, NULL);
        handler->armed = 0;
        t->nr_watched--;
    }
    if (t->in_batch) {
        handler->next = t->removed;
        t->removed = handler;
    } else {
        g_free(handler);
    }
}

static void free_removed(Threads *t)
{
    while (t->removed) {
        AioFdHandler *handler = t->removed;

        t->removed = handler->next;
        g_free(handler);
    }
}

static void threads_update_fd(AioContext *ctx, void *state,
                              AioFdHandler *handler)
{
    struct epoll_event event = {
        .events = handler->wanted,
        .data.ptr = handler,
    };
    Threads *t = state;
    int op = handler->armed ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

    if (handler->removed) {
        remove_handler(t, handler);
        return;
    }
    if (handler->wanted == handler->armed || handler->always_ready) {
        return;
    }
    if (epoll_ctl(t->epoll_fd, op, handler->fd, &event) == 0) {
        t->nr_watched += op == EPOLL_CTL_ADD;
        handler->armed = handler->wanted;
    } else if (errno == EPERM) {
        /* A regular file or the like: never blocks. */
        handler->always_ready = true;
        handler->next = t->always_ready;
        t->always_ready = handler;
    } else {
        g_error("Could not watch descriptor %d: %s", handler->fd,
                g_strerror(errno));
    }
}

/* --- the turn ------------------------------------------------------------ */

static int wait_events(Threads *t, struct epoll_event *events,
                       int64_t timeout_ns)
{
    struct timespec ts;

    if (timeout_ns <= 0) {
        return epoll_wait(t->epoll_fd, events, EVENTS_MAX,
                          timeout_ns == 0 ? 0 : -1);
    }
#ifdef HAVE_EPOLL_PWAIT2
    ts = clock_timespec(timeout_ns);
    int nr = epoll_pwait2(t->epoll_fd, events, EVENTS_MAX, &ts, NULL);

    if (nr >= 0 || errno != ENOSYS) {
        return nr;
    }
#endif
    /* Milliseconds, rounded up: a timer must not fire early. */
    ts = clock_timespec(MIN(timeout_ns, INT64_C(1000000000000)));
    return epoll_wait(t->epoll_fd, events, EVENTS_MAX,
                      ts.tv_sec * 1000 + (ts.tv_nsec + 999999) / 1000000);
}

static bool run_always_ready(Threads *t)
{
    AioFdHandler *handler, *next;
    GPtrArray *now = g_ptr_array_new();

    for (handler = t->always_ready; handler; handler = next) {
        next = handler->next;
        g_ptr_array_add(now, handler);
    }
    for (guint i = 0; i < now->len; i++) {
        handler = g_ptr_array_index(now, i);
        if (!handler->removed) {
            aio_fd_dispatch(handler, POLLIN | POLLOUT);
        }
    }
    g_ptr_array_unref(now);
    return true;
}

static bool threads_turn(AioContext *ctx, void *state, int64_t timeout_ns)
{
    struct epoll_event events[EVENTS_MAX];
    Threads *t = state;
    bool ran = false;
    int nr;

    if (t->always_ready) {
        timeout_ns = 0;
    }
    /*
     * While the loop is awake only watched descriptors matter here; but an
     * outer loop that polls our descriptor needs the eventfd to be read.
     */
    if (timeout_ns == 0 && t->nr_watched == 0 && !t->always_ready &&
        !ctx->embedded) {
        return false;
    }
    nr = wait_events(t, events, timeout_ns);
    t->in_batch = true;
    for (int i = 0; i < nr; i++) {
        AioFdHandler *handler = events[i].data.ptr;

        if (!handler) {
            eventfd_t value;

            eventfd_read(t->event_fd, &value);
        } else if (!handler->removed) {
            aio_fd_dispatch(handler, events[i].events);
            ran = true;
        }
    }
    if (t->always_ready) {
        ran |= run_always_ready(t);
    }
    t->in_batch = false;
    free_removed(t);
    return ran;
}

static bool threads_flush(AioContext *ctx, void *state)
{
    Threads *t = state;

    return t->always_ready != NULL;
}

static void threads_wake(AioContext *ctx, void *state)
{
    Threads *t = state;

    eventfd_write(t->event_fd, 1);
}

static int threads_get_fd(AioContext *ctx, void *state)
{
    Threads *t = state;

    return t->epoll_fd;
}

const AioEngineOps aio_threads_ops = {
    .name = "threads",
    .kind = AIO_ENGINE_THREADS,
    .create = threads_create,
    .bind = threads_bind,
    .unbind = threads_unbind,
    .destroy = threads_destroy,
    .clock_ns = threads_clock_ns,
    .submit = threads_submit,
    .turn = threads_turn,
    .flush = threads_flush,
    .wake = threads_wake,
    .get_fd = threads_get_fd,
    .update_fd = threads_update_fd,
    .work = threads_work,
};
