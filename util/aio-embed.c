/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An AioContext inside somebody else's loop: as a descriptor, or as a GSource.
 *
 * Between aio_context_prepare() and the next aio_poll() the context counts as
 * asleep, so other threads make the descriptor readable when they wake it.
 */
#include "util/aio-context.h"

#include "util/clock.h"

#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>

/* --- a descriptor -------------------------------------------------------- */

static void add_fd(int epoll_fd, int fd)
{
    struct epoll_event event = { .events = EPOLLIN };

    if (fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
        g_error("Could not make an AioContext pollable: %s",
                g_strerror(errno));
    }
}

int aio_context_get_fd(AioContext *ctx)
{
    aio_context_bind(ctx);
    if (ctx->poll_fd < 0) {
        ctx->poll_fd = epoll_create1(EPOLL_CLOEXEC);
        ctx->timer_fd = timerfd_create(CLOCK_MONOTONIC,
                                       TFD_CLOEXEC | TFD_NONBLOCK);
        add_fd(ctx->poll_fd, ctx->ops->get_fd(ctx, ctx->state));
        add_fd(ctx->poll_fd, ctx->timer_fd);
        ctx->embedded = true;
    }
    return ctx->poll_fd;
}

/* Setting the timer also makes timer_fd unreadable if it has expired. */
static void set_timer_fd(AioContext *ctx)
{
    int64_t deadline = aio_timers_deadline_ns(&ctx->timers);
    struct itimerspec spec = { 0 };

    if (ctx->timer_fd < 0 || ctx->timer_fd_ns == deadline) {
        return;
    }
    if (deadline >= 0) {
        spec.it_value = clock_timespec(MAX(deadline, 1));   /* 0 is off */
    }
    timerfd_settime(ctx->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL);
    ctx->timer_fd_ns = deadline;
}

int64_t aio_context_prepare(AioContext *ctx)
{
    int64_t timeout;

    aio_context_bind(ctx);
    if (ctx->ops->flush(ctx, ctx->state)) {
        return 0;
    }
    timeout = aio_context_announce_sleep(ctx);
    set_timer_fd(ctx);
    return timeout;
}

/* --- a GSource ----------------------------------------------------------- */

typedef struct AioSource {
    GSource source;
    AioContext *ctx;
    gpointer tag;
} AioSource;

static gboolean source_prepare(GSource *source, gint *timeout_ms)
{
    AioSource *s = (AioSource *)source;
    int64_t timeout = aio_context_prepare(s->ctx);

    /* Rounded up: waking before the timer is due would only spin. */
    *timeout_ms = timeout < 0 ? -1
                              : MIN(timeout / 1000000 + (timeout % 1000000 > 0),
                                    INT_MAX);
    return timeout == 0;
}

static gboolean source_check(GSource *source)
{
    AioSource *s = (AioSource *)source;
    int64_t deadline = aio_timers_deadline_ns(&s->ctx->timers);

    return g_source_query_unix_fd(source, s->tag) ||
           aio_bhs_any(s->ctx) || aio_cos_any(s->ctx) ||
           (deadline >= 0 && deadline <= aio_clock_ns(s->ctx));
}

static gboolean source_dispatch(GSource *source, GSourceFunc func,
                                gpointer opaque)
{
    AioSource *s = (AioSource *)source;

    /* One turn: other sources have their turn too. */
    aio_poll(s->ctx, false);
    return G_SOURCE_CONTINUE;
}

static void source_finalize(GSource *source)
{
    AioSource *s = (AioSource *)source;

    aio_context_unref(s->ctx);
}

static GSourceFuncs source_funcs = {
    .prepare = source_prepare,
    .check = source_check,
    .dispatch = source_dispatch,
    .finalize = source_finalize,
};

GSource *aio_context_get_gsource(AioContext *ctx)
{
    GSource *source = g_source_new(&source_funcs, sizeof(AioSource));
    AioSource *s = (AioSource *)source;

    aio_context_bind(ctx);
    ctx->embedded = true;
    s->ctx = aio_context_ref(ctx);
    s->tag = g_source_add_unix_fd(source, ctx->ops->get_fd(ctx, ctx->state),
                                  G_IO_IN);
    g_source_set_name(source, "blockgraph AioContext");
    return source;
}
