/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Looking before sleeping: the window that follows the waits, and that a loop
 * with long waits never looks.
 *
 * The engine is a puppet: its clock moves on with each look and each sleep, by
 * as much as the test says, so nothing depends on real time.
 */
#include "check-main.h"

#include "util/aio-context.h"

#include <stdatomic.h>

#define MAX_NS 64000

/* --- the window ---------------------------------------------------------- */

static AioPolling polling_of(int64_t grow, int64_t shrink, int64_t window_ns)
{
    return (AioPolling) { .max_ns = MAX_NS, .grow = grow, .shrink = shrink,
                          .window_ns = window_ns };
}

static int64_t window_after(AioPolling polling, int64_t waited_ns)
{
    aio_polling_adjust(&polling, waited_ns);
    return polling.window_ns;
}

START_TEST(a_window_that_was_enough_stays)
{
    ck_assert_int_eq(window_after(polling_of(0, 0, 8000), 0), 8000);
    ck_assert_int_eq(window_after(polling_of(0, 0, 8000), 8000), 8000);
    ck_assert_int_eq(window_after(polling_of(0, 0, MAX_NS), MAX_NS), MAX_NS);
}
END_TEST

START_TEST(a_window_that_could_have_been_enough_grows)
{
    ck_assert_int_eq(window_after(polling_of(0, 0, 0), 1), 4000);
    ck_assert_int_eq(window_after(polling_of(0, 0, 4000), MAX_NS), 8000);
    ck_assert_int_eq(window_after(polling_of(3, 0, 4000), MAX_NS), 12000);
    ck_assert_int_eq(window_after(polling_of(0, 0, 40000), MAX_NS), MAX_NS);
    ck_assert_int_eq(window_after(polling_of(INT64_MAX, 0, 1), 2), MAX_NS);
}
END_TEST

START_TEST(a_window_that_can_not_be_enough_shrinks)
{
    ck_assert_int_eq(window_after(polling_of(0, 0, MAX_NS), MAX_NS + 1), 0);
    ck_assert_int_eq(window_after(polling_of(0, 4, MAX_NS), MAX_NS + 1),
                     MAX_NS / 4);
    ck_assert_int_eq(window_after(polling_of(0, INT64_MAX, 1), INT64_MAX), 0);
    ck_assert_int_eq(window_after(polling_of(0, 0, 0), INT64_MAX), 0);
}
END_TEST

START_TEST(a_small_maximum_bounds_the_first_window)
{
    AioPolling polling = { .max_ns = 10 };

    aio_polling_adjust(&polling, 10);
    ck_assert_int_eq(polling.window_ns, 10);
    polling.max_ns = 0;
    aio_polling_adjust(&polling, 10);
    ck_assert_int_eq(polling.window_ns, 0);
}
END_TEST

/* --- the loop ------------------------------------------------------------ */

typedef struct Puppet {
    int64_t now_ns;
    int64_t work_ns;            /* when there is work again */
    int64_t period_ns;          /* from one piece of work to the next */
    int nr_looks;
    int nr_sleeps;
    int nr_done;
    int64_t taken_ns;           /* others have the processor in each look */
    bool woken;                 /* by another thread */
} Puppet;

static Puppet puppet;

static int puppet_create(AioContext *ctx, void **ret_state, GError **errp)
{
    *ret_state = &puppet;
    return 0;
}

static void puppet_nothing(AioContext *ctx, void *state)
{
}

static void puppet_destroy(AioContext *ctx, void *state)
{
}

static int64_t puppet_clock_ns(const AioContext *ctx)
{
    return puppet.now_ns;
}

static bool puppet_flush(AioContext *ctx, void *state)
{
    puppet.nr_looks++;
    puppet.now_ns += 100;
    if (puppet.now_ns >= puppet.work_ns) {
        return true;
    }
    puppet.now_ns += puppet.taken_ns;
    return false;
}

static void puppet_wake(AioContext *ctx, void *state)
{
    puppet.woken = true;
}

static bool puppet_turn(AioContext *ctx, void *state, int64_t timeout_ns)
{
    if (timeout_ns != 0) {
        puppet.nr_sleeps++;
        if (!puppet.woken) {
            int64_t until = puppet.work_ns;

            if (timeout_ns > 0) {
                until = MIN(until, puppet.now_ns + timeout_ns);
            }
            puppet.now_ns = MAX(puppet.now_ns, until);
        }
        puppet.woken = false;
        aio_polling_woken(ctx);
    }
    if (puppet.now_ns < puppet.work_ns) {
        return false;
    }
    puppet.nr_done++;
    puppet.work_ns = puppet.now_ns + puppet.period_ns;
    return true;
}

static AioEngineOps puppet_ops = {
    .name = "puppet",
    .create = puppet_create,
    .bind = puppet_nothing,
    .unbind = puppet_nothing,
    .destroy = puppet_destroy,
    .clock_ns = puppet_clock_ns,
    .turn = puppet_turn,
    .flush = puppet_flush,
    .flush_sees_all = true,
    .wake = puppet_wake,
};

/* A context in whose engine work comes each @period_ns. */
static AioContext *puppet_context(int64_t period_ns)
{
    AioContext *ctx;

    puppet = (Puppet) { .period_ns = period_ns, .work_ns = period_ns };
    ctx = aio_context_new_with_ops(&puppet_ops, NULL);
    ck_assert_ptr_nonnull(ctx);
    aio_context_set_polling(ctx, MAX_NS, 0, 0);
    return ctx;
}

static void turns(AioContext *ctx, int nr)
{
    puppet.nr_looks = puppet.nr_sleeps = puppet.nr_done = 0;
    for (int i = 0; i < nr; i++) {
        ck_assert(aio_poll(ctx, true));
    }
}

START_TEST(after_short_waits_the_loop_looks_and_does_not_sleep)
{
    AioContext *ctx = puppet_context(20000);

    turns(ctx, 10);             /* 4000, 8000, 16000, 32000 */
    ck_assert_int_le(puppet.nr_sleeps, 4);
    turns(ctx, 100);
    ck_assert_int_eq(puppet.nr_sleeps, 0);
    ck_assert_int_eq(puppet.nr_done, 100);
    aio_context_unref(ctx);
}
END_TEST

START_TEST(an_idle_loop_never_looks)
{
    AioContext *ctx = puppet_context(MAX_NS + 1);

    turns(ctx, 100);
    ck_assert_int_eq(puppet.nr_looks, 0);
    ck_assert_int_eq(puppet.nr_sleeps, 100);
    aio_context_unref(ctx);
}
END_TEST

START_TEST(a_loop_that_becomes_idle_looks_once_more)
{
    AioContext *ctx = puppet_context(20000);

    turns(ctx, 10);
    puppet.period_ns = MAX_NS * 100;
    turns(ctx, 2);              /* one that was under way, a long one */
    ck_assert_int_eq(puppet.nr_sleeps, 1);
    ck_assert_int_le(puppet.nr_looks, (20000 + MAX_NS) / 100 + 1);
    turns(ctx, 10);
    ck_assert_int_eq(puppet.nr_looks, 0);
    aio_context_unref(ctx);
}
END_TEST

START_TEST(a_loop_that_may_not_or_can_not_look_sleeps)
{
    AioContext *ctx;

    puppet_ops.flush_sees_all = _i == 1;
    ctx = puppet_context(100);
    if (_i == 1) {
        aio_context_set_polling(ctx, 0, 0, 0);
    }
    turns(ctx, 20);
    ck_assert_int_eq(puppet.nr_looks, 0);
    ck_assert_int_eq(puppet.nr_sleeps, 20);
    aio_context_unref(ctx);
}
END_TEST

START_TEST(a_loop_can_be_told_to_stop_looking)
{
    AioContext *ctx = puppet_context(20000);

    puppet.now_ns = INT64_MAX / 2;
    puppet.work_ns = puppet.now_ns + puppet.period_ns;
    aio_context_set_polling(ctx, INT64_MAX, INT64_MAX, INT64_MAX);
    turns(ctx, 10);
    turns(ctx, 10);
    ck_assert_int_eq(puppet.nr_sleeps, 0);
    aio_context_set_polling(ctx, 0, 0, 0);
    turns(ctx, 10);
    ck_assert_int_eq(puppet.nr_looks, 0);
    aio_context_set_polling(ctx, MAX_NS, 0, 0);
    turns(ctx, 20);
    ck_assert_int_gt(puppet.nr_looks, 0);
    aio_context_unref(ctx);
}
END_TEST

static void note_time(void *opaque)
{
    *(int64_t *)opaque = puppet.now_ns;
}

START_TEST(a_look_ends_when_a_timer_is_due)
{
    AioContext *ctx = puppet_context(20000);
    int64_t fired_ns = -1, due_ns;
    AioTimer *timer;

    turns(ctx, 20);
    timer = aio_timer_new(ctx, note_time, &fired_ns);
    due_ns = puppet.now_ns + 1000;
    aio_timer_set(timer, due_ns);
    turns(ctx, 1);
    ck_assert_int_ge(fired_ns, due_ns);
    ck_assert_int_le(fired_ns, due_ns + 100);
    aio_timer_free(timer);
    aio_context_unref(ctx);
}
END_TEST

/* The time until the loop looks again. */
static int64_t rest_of(AioContext *ctx)
{
    int64_t began_ns = puppet.now_ns;

    puppet.nr_looks = 0;
    while (puppet.nr_looks == 0) {
        ck_assert(aio_poll(ctx, true));
    }
    return puppet.now_ns - began_ns;
}

#define MS INT64_C(1000000)

START_TEST(a_loop_whose_processor_others_want_rests_longer_each_time)
{
    AioContext *ctx = puppet_context(20000);
    int64_t ns;

    turns(ctx, 20);
    puppet.taken_ns = 3 * MS;
    turns(ctx, 1);              /* this look ends the looking */
    ck_assert_int_eq(puppet.nr_looks, 1);
    for (int64_t rest = 20 * MS; rest <= 640 * MS; rest *= 2) {
        ns = rest_of(ctx);
        ck_assert_int_ge(ns, rest);
        ck_assert_int_le(ns, rest + 10 * MS);
    }
    puppet.taken_ns = 0;        /* they are gone for long */
    puppet.now_ns += 100 * 1000 * MS;
    turns(ctx, 20);
    ck_assert_int_gt(puppet.nr_looks, 0);
    puppet.taken_ns = 3 * MS;
    turns(ctx, 1);
    ck_assert_int_le(rest_of(ctx), 30 * MS);
    aio_context_unref(ctx);
}
END_TEST

/* The clock of a look schedules; the look sees it, and nobody calls wake(). */
static AioContext *target_ctx;
static int64_t bh_ns;

static int64_t scheduling_clock_ns(const AioContext *ctx)
{
    if (target_ctx && puppet.nr_looks == 3) {
        AioContext *to = target_ctx;

        target_ctx = NULL;
        aio_bh_schedule_oneshot(to, note_time, &bh_ns);
    }
    return puppet.now_ns;
}

START_TEST(a_look_sees_what_is_scheduled)
{
    AioEngineOps ops = puppet_ops;
    AioContext *ctx;

    ops.clock_ns = scheduling_clock_ns;
    puppet = (Puppet) { .period_ns = 20000, .work_ns = 20000 };
    ctx = aio_context_new_with_ops(&ops, NULL);
    aio_context_set_polling(ctx, MAX_NS, 0, 0);
    turns(ctx, 20);
    target_ctx = ctx;
    bh_ns = -1;
    turns(ctx, 2);
    ck_assert_int_ge(bh_ns, 0);
    ck_assert_int_eq(puppet.nr_sleeps, 0);
    aio_context_unref(ctx);
}
END_TEST

/* --- the ring ------------------------------------------------------------ */

#define ROUNDS 20000

typedef struct Player {
    AioContext *ctx;
    struct Player *other;
    _Atomic int hits;
} Player;

static void hit(void *opaque)
{
    Player *me = opaque;

    if (atomic_fetch_add(&me->hits, 1) + 1 < ROUNDS) {
        aio_bh_schedule_oneshot(me->other->ctx, hit, me->other);
    }
}

/* A ball between two threads whose loops look: no wake-up is lost. */
START_TEST(threads_that_look_wake_each_other)
{
    IOThread *threads[2];
    Player players[2] = { 0 };

    for (int i = 0; i < 2; i++) {
        threads[i] = iothread_new("player", AIO_ENGINE_AUTO, NULL);
        ck_assert_ptr_nonnull(threads[i]);
        players[i].ctx = iothread_get_aio_context(threads[i]);
        players[i].other = &players[!i];
        aio_context_set_polling(players[i].ctx, i ? 1000000 : 5000, 0, 0);
    }
    aio_bh_schedule_oneshot(players[0].ctx, hit, &players[0]);
    while (atomic_load(&players[1].hits) < ROUNDS - 1) {
        g_usleep(1000);
    }
    iothread_free(threads[0]);
    iothread_free(threads[1]);
    ck_assert_int_eq(players[0].hits, ROUNDS);
    ck_assert_int_eq(players[1].hits, ROUNDS - 1);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("aio-polling");
    TCase *window = tcase_create("window");
    TCase *loop = tcase_create("loop");
    TCase *ring = tcase_create("ring");

    tcase_set_timeout(ring, 60);
    suite_add_tcase(suite, window);
    suite_add_tcase(suite, loop);
    suite_add_tcase(suite, ring);
    PROMISE(window, a_window_that_was_enough_stays);
    PROMISE(window, a_window_that_could_have_been_enough_grows);
    PROMISE(window, a_window_that_can_not_be_enough_shrinks);
    PROMISE(window, a_small_maximum_bounds_the_first_window);
    PROMISE(loop, after_short_waits_the_loop_looks_and_does_not_sleep);
    PROMISE(loop, an_idle_loop_never_looks);
    PROMISE(loop, a_loop_that_becomes_idle_looks_once_more);
    tcase_add_loop_test(loop, a_loop_that_may_not_or_can_not_look_sleeps, 0, 2);
    PROMISE(loop, a_loop_can_be_told_to_stop_looking);
    PROMISE(loop, a_look_ends_when_a_timer_is_due);
    PROMISE(loop, a_loop_whose_processor_others_want_rests_longer_each_time);
    PROMISE(loop, a_look_sees_what_is_scheduled);
    PROMISE(ring, threads_that_look_wake_each_other);
    return suite;
}

int main(void)
{
    return check_main(make_suite());
}
