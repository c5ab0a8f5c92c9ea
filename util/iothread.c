/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A thread that runs one event loop.
 */
#include <blockgraph/aio.h>

#include "util/aio-context.h"

#include <pthread.h>
#include <signal.h>

/* Thread names of the kernel are this long, with the NUL. */
#define THREAD_NAME_BYTES 16

struct IOThread {
    /* Set by iothread_new(), never changed after. */
    AioContext *ctx;            /* our reference */
    pthread_t thread;

    /* Touched only by the thread. */
    bool stopping;
};

static void *iothread_main(void *opaque)
{
    IOThread *iothread = opaque;

    aio_context_bind(iothread->ctx);
    while (!iothread->stopping) {
        aio_poll(iothread->ctx, true);
    }
    /* What the last callbacks scheduled, and what that scheduled in turn. */
    while (aio_poll(iothread->ctx, false)) {
        continue;
    }
    aio_context_unbind(iothread->ctx);
    return NULL;
}

IOThread *iothread_new(const char *name, AioEngine engine, GError **errp)
{
    IOThread *iothread;
    AioContext *ctx = aio_context_new(engine, errp);
    char short_name[THREAD_NAME_BYTES];
    sigset_t all, old;
    int err;

    if (!ctx) {
        return NULL;
    }
    iothread = g_new0(IOThread, 1);
    iothread->ctx = ctx;
    /* Signals are the business of the program's own threads. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    err = pthread_create(&iothread->thread, NULL, iothread_main, iothread);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (err) {
        block_error_errno(errp, err, "Could not start I/O thread '%s'", name);
        aio_context_unref(ctx);
        g_free(iothread);
        return NULL;
    }
    g_strlcpy(short_name, name, sizeof(short_name));
    pthread_setname_np(iothread->thread, short_name);
    return iothread;
}

AioContext *iothread_get_aio_context(IOThread *iothread)
{
    return iothread->ctx;
}

static void stop_cb(void *opaque)
{
    IOThread *iothread = opaque;

    iothread->stopping = true;
}

void iothread_free(IOThread *iothread)
{
    if (!iothread) {
        return;
    }
    g_assert(!aio_context_in_home(iothread->ctx));
    aio_bh_schedule_oneshot(iothread->ctx, stop_cb, iothread);
    pthread_join(iothread->thread, NULL);
    aio_context_unref(iothread->ctx);
    g_free(iothread);
}
