/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Things that happen at a time on their own: a heap by time, then by order of
 * setting.  With real threads an event is a timer of the caller's context.
 */
#include "sim/sim-int.h"

static bool before(const SimEvent *a, const SimEvent *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->seq < b->seq;
}

static SimEvent *get(BgSim *sim, guint i)
{
    return g_ptr_array_index(sim->events, i);
}

static void rise(BgSim *sim, guint i)
{
    while (i > 0 && before(get(sim, i), get(sim, (i - 1) / 2))) {
        SimEvent *ev = get(sim, i);

        g_ptr_array_index(sim->events, i) = get(sim, (i - 1) / 2);
        g_ptr_array_index(sim->events, (i - 1) / 2) = ev;
        i = (i - 1) / 2;
    }
}

static void sink(BgSim *sim, guint i)
{
    for (;;) {
        guint child = 2 * i + 1;
        SimEvent *ev = get(sim, i);

        if (child + 1 < sim->events->len &&
            before(get(sim, child + 1), get(sim, child))) {
            child++;
        }
        if (child >= sim->events->len || !before(get(sim, child), ev)) {
            return;
        }
        g_ptr_array_index(sim->events, i) = get(sim, child);
        g_ptr_array_index(sim->events, child) = ev;
        i = child;
    }
}

SimEvent *sim_events_first(BgSim *sim)
{
    return sim->events->len > 0 ? get(sim, 0) : NULL;
}

void sim_event_remove(BgSim *sim, SimEvent *ev)
{
    guint i = 0;

    while (get(sim, i) != ev) {
        i++;
    }
    /* The last one takes the place, and goes where it belongs. */
    g_ptr_array_remove_index_fast(sim->events, i);
    if (i < sim->events->len) {
        rise(sim, i);
        sink(sim, i);
    }
    ev->pending = false;
}

/* --- real threads --------------------------------------------------------- */

typedef struct RealEvent {
    SimEvent *ev;
    AioTimer *timer;
} RealEvent;

static void real_event_cb(void *opaque)
{
    RealEvent *real = opaque;
    SimEvent *ev = real->ev;

    aio_timer_free(real->timer);
    g_free(real);
    ev->pending = false;
    ev->cb(ev->opaque);
}

/* Virtual latencies are long for a test that really waits. */
static int64_t real_delay(int64_t delay_ns)
{
    return MIN(delay_ns / 16, 200 * 1000);
}

static void real_event_add(SimEvent *ev, int64_t delay_ns)
{
    AioContext *ctx = aio_get_current();
    RealEvent *real = g_new(RealEvent, 1);

    real->ev = ev;
    real->timer = aio_timer_new(ctx, real_event_cb, real);
    aio_timer_set(real->timer, aio_clock_ns(ctx) + real_delay(delay_ns));
}

/* --- both ----------------------------------------------------------------- */

void sim_event_add(BgSim *sim, SimEvent *ev, int64_t delay_ns)
{
    g_assert(!ev->pending && delay_ns >= 0);
    ev->pending = true;
    if (sim->threads_mode) {
        real_event_add(ev, delay_ns);
        return;
    }
    ev->at_ns = sim->now_ns + delay_ns;
    ev->seq = sim->next_seq++;
    g_ptr_array_add(sim->events, ev);
    rise(sim, sim->events->len - 1);
}

static void wake_cb(void *opaque)
{
    aio_co_wake(opaque);
}

void coroutine_fn sim_delay(BgSim *sim, uint32_t actor, const char *what,
                            int64_t delay_ns)
{
    SimEvent ev = { .actor = actor, .what = what, .cb = wake_cb,
                    .opaque = coroutine_self() };

    sim_event_add(sim, &ev, delay_ns);
    SIM_WAITS(what, NULL);
    coroutine_yield();
}
