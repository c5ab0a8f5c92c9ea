/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sleeping coroutines.  Only orders are compared, never how long it took,
 * but that a sleep is not too short.
 */
#include "co-fixture.h"

#define FOREVER_NS INT64_MAX
#define ROUNDS 500

static CoSleep shared_sleep;

static void setup(void)
{
    co_fixture_setup();
    memset(&shared_sleep, 0, sizeof(shared_sleep));
}

/* Turn the loop until the coroutine has set @done. */
static void poll_until(const bool *done)
{
    while (!*done) {
        aio_poll(co_ctx, true);
    }
}

static void coroutine_fn sleep_a_moment(void *opaque)
{
    int64_t start_ns = aio_clock_ns(co_ctx);

    co_sleep_ns(2000000);
    ck_assert_int_ge(aio_clock_ns(co_ctx) - start_ns, 2000000);
    *(bool *)opaque = true;
}

START_TEST(a_sleep_is_not_shorter_than_asked_for)
{
    bool done = false;

    co_start(sleep_a_moment, &done);
    ck_assert(!done);
    poll_until(&done);
}
END_TEST

static void coroutine_fn sleep_not_at_all(void *opaque)
{
    co_note('a');
    co_sleep_ns(0);
    co_note('b');
    co_sleep_ns(-5);
    co_note('c');
    *(bool *)opaque = true;
}

START_TEST(a_sleep_of_nothing_lets_the_loop_turn_once)
{
    bool done = false;

    co_start(sleep_not_at_all, &done);
    co_note('1');
    ck_assert(aio_poll(co_ctx, false));
    co_note('2');
    poll_until(&done);
    ck_assert_str_eq(co_trace, "a1b2c");
}
END_TEST

static void coroutine_fn sleep_long(void *opaque)
{
    co_sleep_ns_wakeable(&shared_sleep, FOREVER_NS);
    co_note('w');
    *(bool *)opaque = true;
}

START_TEST(a_wake_up_ends_the_sleep)
{
    bool done = false;

    co_start(sleep_long, &done);
    co_settle();
    ck_assert(!done);
    co_sleep_wake(&shared_sleep);
    poll_until(&done);
}
END_TEST

START_TEST(wake_ups_without_a_sleeper_are_not_remembered)
{
    bool done = false;

    co_sleep_wake(&shared_sleep);
    co_start(sleep_long, &done);
    co_settle();
    ck_assert(!done);
    co_sleep_wake(&shared_sleep);
    co_sleep_wake(&shared_sleep);
    poll_until(&done);
    co_sleep_wake(&shared_sleep);
    ck_assert_str_eq(co_trace, "w");
}
END_TEST

static _Atomic bool sleeper_done;
static _Atomic int nr_sleeps;

/* One sleeper and many wakers in other threads; timers fire in between. */
static void coroutine_fn sleep_or_wake(void *opaque)
{
    _Atomic int *next_role = opaque;

    if (atomic_fetch_add(next_role, 1) == 0) {
        for (int i = 0; i < ROUNDS; i++) {
            co_sleep_ns_wakeable(&shared_sleep,
                                 i % 4 == 0 ? 1 : (int64_t)1000000000000);
            atomic_fetch_add(&nr_sleeps, 1);
        }
        atomic_store(&sleeper_done, true);
        return;
    }
    while (!atomic_load(&sleeper_done)) {
        co_sleep_wake(&shared_sleep);
        co_sleep_ns(0);
    }
}

START_TEST(wakers_in_other_threads_and_timers_wake_once_a_sleep)
{
    _Atomic int next_role = 0;

    atomic_store(&sleeper_done, false);
    atomic_store(&nr_sleeps, 0);
    co_crowd_run(3, 2, sleep_or_wake, &next_role);
    ck_assert_int_eq(atomic_load(&nr_sleeps), ROUNDS);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("co-sleep");
    TCase *tcase = tcase_create("co-sleep");

    tcase_add_checked_fixture(tcase, setup, co_fixture_teardown);
    tcase_set_timeout(tcase, 60);
    PROMISE(tcase, a_sleep_is_not_shorter_than_asked_for);
    PROMISE(tcase, a_sleep_of_nothing_lets_the_loop_turn_once);
    PROMISE(tcase, a_wake_up_ends_the_sleep);
    PROMISE(tcase, wake_ups_without_a_sleeper_are_not_remembered);
    PROMISE(tcase, wakers_in_other_threads_and_timers_wake_once_a_sleep);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
