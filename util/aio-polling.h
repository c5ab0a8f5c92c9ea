/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Looking for work for a while before the thread sleeps: the policy.
 *
 * To put a processor to sleep and wake it takes longer than many a wait.  So a
 * loop whose last waits were short looks at its queues instead, up to a window
 * that follows the waits; one whose waits are long sleeps at once, and costs
 * nothing.
 */
#ifndef UTIL_AIO_POLLING_H
#define UTIL_AIO_POLLING_H

#include <blockgraph/aio.h>
#include <stdatomic.h>

typedef struct AioPolling {
    /* Atomic: any thread.  See aio_context_set_polling(). */
    _Atomic int64_t max_ns;
    _Atomic int64_t grow;
    _Atomic int64_t shrink;

    /* Touched only by the home thread. */
    int64_t window_ns;          /* how long the next look may take */
    int64_t began_ns;           /* when this wait began; -1: none is timed */
    int64_t rest_until_ns;      /* no look before */
    int64_t rest_ns;            /* how long the last rest was */
} AioPolling;

/**
 * A wait took @waited_ns until there was work: the window follows.
 *
 * It stays when the work came within it.  It grows when a longer one, of at
 * most max_ns, would have been enough; it shrinks when not even that would.
 */
void aio_polling_adjust(AioPolling *polling, int64_t waited_ns);

/**
 * A wait of @ctx begins: look for work.  Returns whether there is some now;
 * else the loop is to sleep.  Thread: home.
 */
bool aio_polling_look(AioContext *ctx);

/**
 * For engines: a wait has ended, and nothing of what ended it has run yet.
 * Thread: home.
 */
void aio_polling_woken(AioContext *ctx);

#endif /* UTIL_AIO_POLLING_H */
