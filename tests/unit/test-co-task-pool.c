/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Task pools: how many run, what stops them, and that all are waited for.
 */
#include "co-fixture.h"

#include <errno.h>

#define TASKS 100

typedef struct Play {
    int max_busy;
    int steps;                 /* how often each task steps aside */
    int fail_at;               /* the task with this number fails */

    int nr_started;
    int nr_busy;
    int most_busy;
    int nr_ended;
    int nr_refused;
    int ret;
    bool done;
} Play;

static int coroutine_fn task(void *opaque)
{
    Play *play = opaque;
    int number = play->nr_started++;

    play->nr_busy++;
    play->most_busy = MAX(play->most_busy, play->nr_busy);
    for (int i = 0; i < play->steps; i++) {
        co_step_aside();
    }
    play->nr_busy--;
    play->nr_ended++;
    return number == play->fail_at ? -EIO
           : number > play->fail_at ? -ENOSPC
                                    : 0;
}

static void coroutine_fn run_play(void *opaque)
{
    Play *play = opaque;
    CoTaskPool *pool = co_task_pool_new(play->max_busy);

    for (int i = 0; i < TASKS; i++) {
        int ret = co_task_pool_start(pool, task, play);

        if (ret < 0) {
            ck_assert_int_eq(ret, co_task_pool_status(pool));
            play->nr_refused++;
        }
    }
    play->ret = co_task_pool_wait_all(pool);
    ck_assert_int_eq(play->ret, co_task_pool_status(pool));
    ck_assert_int_eq(play->nr_busy, 0);
    co_task_pool_free(pool);
    play->done = true;
}

static void run(Play *play)
{
    co_start(run_play, play);
    while (!play->done) {
        aio_poll(co_ctx, true);
    }
}

START_TEST(never_more_than_the_limit_run_at_once_and_the_limit_is_used)
{
    Play play = { .max_busy = _i, .steps = 3, .fail_at = TASKS };

    run(&play);
    ck_assert_int_eq(play.most_busy, _i);
    ck_assert_int_eq(play.nr_ended, TASKS);
    ck_assert_int_eq(play.nr_refused, 0);
    ck_assert_int_eq(play.ret, 0);
}
END_TEST

static void coroutine_fn run_with_changes(void *opaque)
{
    Play *play = opaque;
    CoTaskPool *pool = co_task_pool_new(8);

    for (int i = 0; i < TASKS; i++) {
        if (i == TASKS / 2) {
            ck_assert_int_eq(play->most_busy, 8);
            co_task_pool_set_max_busy(pool, 3);
            co_task_pool_start(pool, task, play);
            ck_assert_int_eq(play->nr_busy, 3);
            play->most_busy = 0;
        }
        co_task_pool_start(pool, task, play);
    }
    ck_assert_int_eq(play->most_busy, 3);
    co_task_pool_wait_all(pool);
    co_task_pool_free(pool);
    play->done = true;
}

START_TEST(the_limit_of_a_pool_that_works_can_be_changed)
{
    Play play = { .steps = 3, .fail_at = TASKS + 1 };

    co_start(run_with_changes, &play);
    while (!play.done) {
        aio_poll(co_ctx, true);
    }
    ck_assert_int_eq(play.nr_ended, TASKS + 1);
}
END_TEST

START_TEST(tasks_that_never_yield_need_no_loop)
{
    Play play = { .max_busy = 4, .steps = 0, .fail_at = TASKS };

    co_start(run_play, &play);
    ck_assert(play.done);
    ck_assert_int_eq(play.most_busy, 1);
    ck_assert_int_eq(play.nr_ended, TASKS);
}
END_TEST

START_TEST(the_first_error_stops_the_pool_and_is_reported_for_the_rest)
{
    Play play = { .max_busy = 5, .steps = 2, .fail_at = 20 };

    run(&play);
    ck_assert_int_eq(play.ret, -EIO);
    ck_assert_int_ge(play.nr_started, 21);
    ck_assert_int_le(play.nr_started, 20 + 5);
    ck_assert_int_eq(play.nr_refused, TASKS - play.nr_started);
}
END_TEST

START_TEST(tasks_that_run_when_another_fails_are_joined)
{
    Play play = { .max_busy = 10, .steps = 5, .fail_at = 0 };

    run(&play);
    ck_assert_int_eq(play.ret, -EIO);
    ck_assert_int_eq(play.nr_ended, play.nr_started);
}
END_TEST

static void coroutine_fn use_pool_twice(void *opaque)
{
    Play *play = opaque;
    CoTaskPool *pool = co_task_pool_new(play->max_busy);

    for (int round = 1; round <= 2; round++) {
        for (int i = 0; i < 10; i++) {
            ck_assert_int_eq(co_task_pool_start(pool, task, play), 0);
        }
        ck_assert_int_eq(co_task_pool_wait_all(pool), 0);
        ck_assert_int_eq(play->nr_ended, 10 * round);
    }
    co_task_pool_free(pool);
    play->done = true;
}

START_TEST(a_pool_that_was_waited_for_can_be_used_again)
{
    Play play = { .max_busy = 3, .steps = 1, .fail_at = TASKS };

    co_start(use_pool_twice, &play);
    while (!play.done) {
        aio_poll(co_ctx, true);
    }
    ck_assert_int_eq(play.nr_ended, 20);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("co-task-pool");
    TCase *tcase = tcase_create("co-task-pool");

    tcase_add_checked_fixture(tcase, co_fixture_setup, co_fixture_teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(
        tcase, never_more_than_the_limit_run_at_once_and_the_limit_is_used, 1,
        9);
    PROMISE(tcase, the_limit_of_a_pool_that_works_can_be_changed);
    PROMISE(tcase, tasks_that_never_yield_need_no_loop);
    PROMISE(tcase, the_first_error_stops_the_pool_and_is_reported_for_the_rest);
    PROMISE(tcase, tasks_that_run_when_another_fails_are_joined);
    PROMISE(tcase, a_pool_that_was_waited_for_can_be_used_again);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
