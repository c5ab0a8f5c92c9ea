/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Timers: a binary heap ordered by time, then by the order of setting.
 *
 * The second key makes the order of callbacks a function of the calls alone,
 * which a simulated loop needs.  A timer knows its place in the heap, so that
 * it can be cancelled in logarithmic time.
 *
 *            set                 aio_timers_run: due
 *   IDLE -----------> IN_HEAP ----------------------> DUE
 *    ^                   |                             |
 *    +------- cancel ----+---------- cancel, run ------+
 */
#include "util/aio-context.h"

typedef enum TimerState {
    TIMER_IDLE,
    TIMER_IN_HEAP,
    TIMER_DUE,
} TimerState;

struct AioTimer {
    /* Set by aio_timer_new(), never changed after. */
    AioContext *ctx;
    AioCallback *cb;
    void *opaque;

    /* Touched only by the home thread. */
    TimerState state;
    int64_t expire_ns;
    uint64_t seq;
    guint index;            /* in the heap */
    AioTimer *prev;         /* in the list of due timers */
    AioTimer *next;
};

static bool timer_before(const AioTimer *a, const AioTimer *b)
{
    if (a->expire_ns != b->expire_ns) {
        return a->expire_ns < b->expire_ns;
    }
    return a->seq < b->seq;
}

static AioTimer *heap_get(const AioTimerHeap *timers, guint index)
{
    return g_ptr_array_index(timers->heap, index);
}

static void heap_put(AioTimerHeap *timers, guint index, AioTimer *timer)
{
    g_ptr_array_index(timers->heap, index) = timer;
    timer->index = index;
}

/* Let @timer, for which @index is free, rise to its place. */
static void heap_rise(AioTimerHeap *timers, guint index, AioTimer *timer)
{
    while (index > 0) {
        guint parent = (index - 1) / 2;

        if (!timer_before(timer, heap_get(timers, parent))) {
            break;
        }
        heap_put(timers, index, heap_get(timers, parent));
        index = parent;
    }
    heap_put(timers, index, timer);
}

/* Let @timer, for which @index is free, sink to its place. */
static void heap_sink(AioTimerHeap *timers, guint index, AioTimer *timer)
{
    guint len = timers->heap->len;

    for (;;) {
        guint child = 2 * index + 1;

        if (child >= len) {
            break;
        }
        if (child + 1 < len && timer_before(heap_get(timers, child + 1),
                                            heap_get(timers, child))) {
            child++;
        }
        if (!timer_before(heap_get(timers, child), timer)) {
            break;
        }
        heap_put(timers, index, heap_get(timers, child));
        index = child;
    }
    heap_put(timers, index, timer);
}

static void heap_remove(AioTimerHeap *timers, AioTimer *timer)
{
    guint index = timer->index;
    AioTimer *last = heap_get(timers, timers->heap->len - 1);

    g_assert(heap_get(timers, index) == timer);
    g_ptr_array_set_size(timers->heap, timers->heap->len - 1);
    if (last != timer) {
        if (index > 0 &&
            timer_before(last, heap_get(timers, (index - 1) / 2))) {
            heap_rise(timers, index, last);
        } else {
            heap_sink(timers, index, last);
        }
    }
}

static void due_append(AioTimerHeap *timers, AioTimer *timer)
{
    timer->state = TIMER_DUE;
    timer->next = NULL;
    timer->prev = timers->due_tail;
    if (timers->due_tail) {
        timers->due_tail->next = timer;
    } else {
        timers->due_head = timer;
    }
    timers->due_tail = timer;
}

static void due_remove(AioTimerHeap *timers, AioTimer *timer)
{
    if (timer->prev) {
        timer->prev->next = timer->next;
    } else {
        timers->due_head = timer->next;
    }
    if (timer->next) {
        timer->next->prev = timer->prev;
    } else {
        timers->due_tail = timer->prev;
    }
}

void aio_timers_clear(AioTimerHeap *timers)
{
    g_assert(!timers->due_head && !aio_timers_any(timers));
    g_clear_pointer(&timers->heap, g_ptr_array_unref);
}

int64_t aio_timers_deadline_ns(const AioTimerHeap *timers)
{
    return aio_timers_any(timers) ? heap_get(timers, 0)->expire_ns : -1;
}

bool aio_timers_run(AioTimerHeap *timers, int64_t now_ns)
{
    bool ran = false;

    while (aio_timers_any(timers) && heap_get(timers, 0)->expire_ns <= now_ns) {
        AioTimer *timer = heap_get(timers, 0);

        heap_remove(timers, timer);
        due_append(timers, timer);
    }
    while (timers->due_head) {
        AioTimer *timer = timers->due_head;

        due_remove(timers, timer);
        timer->state = TIMER_IDLE;
        ran = true;
        timer->cb(timer->opaque);       /* may free the timer */
    }
    return ran;
}

void aio_timers_run_first(AioTimerHeap *timers)
{
    AioTimer *timer = heap_get(timers, 0);

    heap_remove(timers, timer);
    timer->state = TIMER_IDLE;
    timer->cb(timer->opaque);
}

AioTimer *aio_timer_new(AioContext *ctx, AioCallback *cb, void *opaque)
{
    AioTimer *timer = g_new0(AioTimer, 1);

    timer->ctx = ctx;
    timer->cb = cb;
    timer->opaque = opaque;
    return timer;
}

void aio_timer_set(AioTimer *timer, int64_t expire_ns)
{
    AioTimerHeap *timers = &timer->ctx->timers;

    aio_context_bind(timer->ctx);
    aio_timer_cancel(timer);
    if (!timers->heap) {
        timers->heap = g_ptr_array_new();
    }
    timer->expire_ns = MAX(expire_ns, 0);
    timer->seq = timers->next_seq++;
    timer->state = TIMER_IN_HEAP;
    g_ptr_array_add(timers->heap, timer);
    heap_rise(timers, timers->heap->len - 1, timer);
}

void aio_timer_cancel(AioTimer *timer)
{
    AioTimerHeap *timers = &timer->ctx->timers;

    if (timer->state == TIMER_IN_HEAP) {
        heap_remove(timers, timer);
    } else if (timer->state == TIMER_DUE) {
        due_remove(timers, timer);
    }
    timer->state = TIMER_IDLE;
}

bool aio_timer_pending(const AioTimer *timer)
{
    return timer->state != TIMER_IDLE;
}

void aio_timer_free(AioTimer *timer)
{
    if (timer) {
        aio_timer_cancel(timer);
        g_free(timer);
    }
}
