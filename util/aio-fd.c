/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Watched descriptors: what is the same for all engines.
 *
 * The table of a context is indexed by the descriptor.  A handler that was
 * removed leaves the table at once and is freed by the engine, when nothing
 * the kernel has still to say can name it.  A new handler for the same number
 * is a new object, so late news about the old one cannot reach it.
 */
#include "util/aio-context.h"

#include <poll.h>

void aio_fd_dispatch(AioFdHandler *handler, unsigned revents)
{
    const unsigned trouble = POLLERR | POLLHUP | POLLNVAL;

    g_assert(!handler->dispatching);
    handler->dispatching = true;
    if ((revents & (POLLIN | trouble)) && (handler->wanted & POLLIN)) {
        handler->readable(handler->opaque);
    }
    /* The first callback may have changed or removed the handler. */
    if ((revents & (POLLOUT | trouble)) && (handler->wanted & POLLOUT)) {
        handler->writable(handler->opaque);
    }
    handler->dispatching = false;
}

static AioFdHandler *lookup(AioContext *ctx, int fd)
{
    if ((guint)fd >= ctx->fd_handlers->len) {
        return NULL;
    }
    return g_ptr_array_index(ctx->fd_handlers, fd);
}

static void remove_handler(AioContext *ctx, AioFdHandler *handler)
{
    g_ptr_array_index(ctx->fd_handlers, handler->fd) = NULL;
    handler->removed = true;
    handler->wanted = 0;
    ctx->ops->update_fd(ctx, ctx->state, handler);
}

void aio_set_fd_handler(AioContext *ctx, int fd, AioCallback *readable,
                        AioCallback *writable, void *opaque)
{
    AioFdHandler *handler;

    aio_context_bind(ctx);
    g_assert(fd >= 0);
    handler = lookup(ctx, fd);
    if (!readable && !writable) {
        if (handler) {
            remove_handler(ctx, handler);
        }
        return;
    }
    if (!handler) {
        handler = g_new0(AioFdHandler, 1);
        handler->fd = fd;
        if ((guint)fd >= ctx->fd_handlers->len) {
            g_ptr_array_set_size(ctx->fd_handlers, fd + 1);
        }
        g_ptr_array_index(ctx->fd_handlers, fd) = handler;
    }
    handler->readable = readable;
    handler->writable = writable;
    handler->opaque = opaque;
    handler->wanted = (readable ? POLLIN : 0) | (writable ? POLLOUT : 0);
    ctx->ops->update_fd(ctx, ctx->state, handler);
}
