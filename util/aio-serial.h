/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Calls that block, one at a time.
 *
 * A CoMutex around aio_co_work() would do that, too; but between two calls a
 * loop would have to wake, and then a worker again, while nothing is done.
 * Here a worker goes from one call to the next by itself.
 */
#ifndef UTIL_AIO_SERIAL_H
#define UTIL_AIO_SERIAL_H

#include "util/lock.h"

#include <blockgraph/aio.h>

typedef struct AioSerialCall AioSerialCall;

typedef struct AioSerial {
    /* Guarded by @lock. */
    Lock lock;
    AioSerialCall *head;        /* a worker is at it, or is to begin it */
    AioSerialCall *tail;
} AioSerial;

/** No call yet. */
void aio_serial_init(AioSerial *serial);

/**
 * Run @func(@opaque) in a worker thread, after the calls of @serial that came
 * before.  Returns what @func returned.
 *
 * Thread: any with an AioContext.  Yields.  @serial must live until all calls
 * have returned, and no longer.
 */
int coroutine_fn aio_serial_work(AioSerial *serial, int (*func)(void *opaque),
                                 void *opaque);

#endif /* UTIL_AIO_SERIAL_H */
