/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Lists of waiting coroutines, for the locks that wait in coroutines.
 *
 * Linked by wait_next, which belongs to the lock of the list: a coroutine
 * waits for one thing at a time.
 */
#ifndef UTIL_CO_WAITERS_H
#define UTIL_CO_WAITERS_H

#include "util/coroutine-int.h"

#include <blockgraph/aio.h>

/** A first-in-first-out list; zeroed, it is empty. */
typedef struct CoWaiters {
    Coroutine *head;
    Coroutine *tail;
} CoWaiters;

/** Append @co.  Thread: holds the lock of the list. */
static inline void co_waiters_push(CoWaiters *list, Coroutine *co)
{
    co->wait_next = NULL;
    if (list->tail) {
        list->tail->wait_next = co;
    } else {
        list->head = co;
    }
    list->tail = co;
}

/** Take the longest waiter off, or NULL.  Thread: holds the list's lock. */
static inline Coroutine *co_waiters_pop(CoWaiters *list)
{
    Coroutine *co = list->head;

    if (co) {
        list->head = co->wait_next;
        if (!list->head) {
            list->tail = NULL;
        }
        co->wait_next = NULL;
    }
    return co;
}

/**
 * Let @co go on, but not before the caller has left its own code: in the home
 * thread of @co after the running coroutine yields, or in the next turn of
 * its loop.  So the caller may hold a short lock.
 */
static inline void co_wake_later(Coroutine *co)
{
    if (in_coroutine()) {
        aio_co_wake(co);
    } else {
        aio_co_schedule(atomic_load_explicit(&co->ctx, memory_order_relaxed),
                        co);
    }
}

#endif /* UTIL_CO_WAITERS_H */
