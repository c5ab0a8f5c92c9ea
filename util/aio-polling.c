/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "util/aio-polling.h"

#include "util/aio-context.h"

#include <sched.h>

/* The first window, from which it grows. */
#define WINDOW_MIN_NS 4000

/*
 * When giving the processor away takes so long, somebody else wanted it: it
 * would not have slept, and what we take by looking we lack when there is work.
 * Then we do not look for a while, and for twice as long if we find that again
 * soon.
 */
#define TAKEN_NS (50 * 1000)
#define REST_MIN_NS (20 * 1000 * 1000)
#define REST_MAX_NS (INT64_C(2) * 1000 * 1000 * 1000)

/* The longest look that can be asked for: the clock must not overflow. */
#define LOOK_MAX_NS (INT64_C(1000) * 1000 * 1000)

static int64_t setting(const _Atomic int64_t *value)
{
    return atomic_load_explicit(value, memory_order_relaxed);
}

void aio_context_set_polling(AioContext *ctx, int64_t max_ns, int64_t grow,
                             int64_t shrink)
{
    AioPolling *polling = &ctx->polling;

    g_assert(max_ns >= 0 && grow >= 0 && shrink >= 0);
    atomic_store_explicit(&polling->grow, grow, memory_order_relaxed);
    atomic_store_explicit(&polling->shrink, shrink, memory_order_relaxed);
    atomic_store_explicit(&polling->max_ns, MIN(max_ns, LOOK_MAX_NS),
                          memory_order_relaxed);
}

static int64_t grown(const AioPolling *polling, int64_t max_ns)
{
    int64_t factor = setting(&polling->grow);
    int64_t window_ns = polling->window_ns;

    factor = factor > 0 ? factor : 2;
    if (window_ns == 0) {
        return MIN(WINDOW_MIN_NS, max_ns);
    }
    return window_ns > max_ns / factor ? max_ns : window_ns * factor;
}

void aio_polling_adjust(AioPolling *polling, int64_t waited_ns)
{
    int64_t max_ns = setting(&polling->max_ns);
    int64_t divisor = setting(&polling->shrink);

    if (waited_ns > max_ns) {
        polling->window_ns = divisor > 0 ? polling->window_ns / divisor : 0;
    } else if (waited_ns > polling->window_ns) {
        polling->window_ns = grown(polling, max_ns);
    }
}

static bool has_work(AioContext *ctx)
{
    return aio_bhs_any(ctx) || aio_cos_any(ctx) ||
           ctx->ops->flush(ctx, ctx->state);
}

static int64_t end_of_look(AioContext *ctx, int64_t now_ns)
{
    int64_t end_ns = now_ns + ctx->polling.window_ns;
    int64_t timer_ns = aio_timers_deadline_ns(&ctx->timers);

    return timer_ns >= 0 ? MIN(end_ns, timer_ns) : end_ns;
}

static void rest(AioPolling *polling, int64_t now_ns)
{
    bool again = now_ns - polling->rest_until_ns < polling->rest_ns * 4;

    polling->rest_ns = again ? MIN(polling->rest_ns * 2, REST_MAX_NS)
                             : REST_MIN_NS;
    polling->rest_until_ns = now_ns + polling->rest_ns;
    polling->window_ns = 0;
}

/* Returns whether there is work.  *@now_ns follows the clock. */
static bool look_until(AioContext *ctx, int64_t end_ns, int64_t *now_ns)
{
    while (*now_ns < end_ns) {
        int64_t before_ns = *now_ns;

        if (has_work(ctx)) {
            return true;
        }
        sched_yield();
        *now_ns = aio_clock_ns(ctx);
        if (*now_ns - before_ns > TAKEN_NS) {
            rest(&ctx->polling, *now_ns);
            return false;
        }
    }
    return false;
}

bool aio_polling_look(AioContext *ctx)
{
    AioPolling *polling = &ctx->polling;
    int64_t now_ns;
    bool found;

    polling->began_ns = -1;
    if (setting(&polling->max_ns) == 0 || !ctx->ops->flush_sees_all) {
        return false;
    }
    now_ns = aio_clock_ns(ctx);
    if (now_ns < polling->rest_until_ns) {
        return false;
    }
    polling->began_ns = now_ns;
    found = look_until(ctx, end_of_look(ctx, now_ns), &now_ns);
    if (found) {
        aio_polling_adjust(polling, now_ns - polling->began_ns);
        polling->began_ns = -1;
    }
    return found;
}

void aio_polling_woken(AioContext *ctx)
{
    AioPolling *polling = &ctx->polling;

    if (polling->began_ns >= 0) {
        aio_polling_adjust(polling, aio_clock_ns(ctx) - polling->began_ns);
        polling->began_ns = -1;
    }
}
