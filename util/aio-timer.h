/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The timers of one context: a binary heap.
 */
#ifndef UTIL_AIO_TIMER_H
#define UTIL_AIO_TIMER_H

#include <blockgraph/aio.h>

/** The timers of a context.  Touched only by its home thread. */
typedef struct AioTimerHeap {
    GPtrArray *heap;        /* AioTimer, earliest first; NULL until needed */
    AioTimer *due_head;     /* taken off the heap, to be run in this order */
    AioTimer *due_tail;
    uint64_t next_seq;
} AioTimerHeap;

/** Free what @timers holds; no timer is set. */
void aio_timers_clear(AioTimerHeap *timers);

/** Whether a timer is set. */
static inline bool aio_timers_any(const AioTimerHeap *timers)
{
    return timers->heap && timers->heap->len > 0;
}

/** When the first timer fires, or -1 if none is set. */
int64_t aio_timers_deadline_ns(const AioTimerHeap *timers);

/**
 * Run the timers that are due at @now_ns, ordered by time and then by the order
 * in which they were set.  A timer that is set by a callback waits for the
 * next call.  Returns whether one ran.
 */
bool aio_timers_run(AioTimerHeap *timers, int64_t now_ns);

/** Run the first timer, which is due.  Nothing taken off waits to be run. */
void aio_timers_run_first(AioTimerHeap *timers);

#endif /* UTIL_AIO_TIMER_H */
