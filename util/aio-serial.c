/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A queue of calls, whose head is run by one worker.
 *
 * The worker takes a call off the queue, and sees whether there is a next one,
 * before it wakes the coroutine of the first: if there is none, all coroutines
 * may be gone with the queue as soon as that one goes on.
 */
#include "util/aio-serial.h"

#include "util/aio-context.h"
#include "util/sim-point.h"

struct AioSerialCall {
    /* Set before it is queued, never changed after. */
    AioSerial *serial;
    int (*func)(void *opaque);
    void *opaque;
    Coroutine *co;

    WorkItem item;              /* of the call that finds no worker */
    int ret;                    /* written before @co is woken */
    AioSerialCall *next;        /* guarded by the queue's lock */
};

void aio_serial_init(AioSerial *serial)
{
    *serial = (AioSerial) { .lock = LOCK_INITIALIZER(LOCK_RANK_UTIL) };
}

/* Returns whether @call is the only one: it needs a worker. */
static bool enqueue(AioSerial *serial, AioSerialCall *call)
{
    LOCK_GUARD(&serial->lock);

    if (serial->head) {
        serial->tail->next = call;
    } else {
        serial->head = call;
    }
    serial->tail = call;
    return serial->head == call;
}

/* Take the first call off.  Returns the next one, or NULL. */
static AioSerialCall *dequeue(AioSerial *serial)
{
    LOCK_GUARD(&serial->lock);

    serial->head = serial->head->next;
    return serial->head;
}

static void run_calls(WorkItem *item)
{
    AioSerialCall *call =
        (AioSerialCall *)((char *)item - offsetof(AioSerialCall, item));

    while (call) {
        Coroutine *co = call->co;
        AioSerialCall *next;

        call->ret = call->func(call->opaque);
        next = dequeue(call->serial);
        aio_co_wake(co);        /* @call is gone from here on */
        call = next;
    }
}

int coroutine_fn aio_serial_work(AioSerial *serial, int (*func)(void *opaque),
                                 void *opaque)
{
    AioContext *ctx = aio_get_current();
    AioSerialCall call = {
        .serial = serial,
        .func = func,
        .opaque = opaque,
        .co = coroutine_self(),
        .item.func = run_calls,
    };

    g_assert(ctx && call.co);
    if (enqueue(serial, &call)) {
        ctx->ops->work(ctx, ctx->state, &call.item);
    }
    SIM_WAITS("a worker thread", opaque);
    coroutine_yield();
    return call.ret;
}
