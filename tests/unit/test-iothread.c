/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Threads that run a loop, and coroutines that move between them.
 */
#include "aio-fixture.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#define NR_IOTHREADS 3

static IOThread *start_thread(int i)
{
    g_autoptr(GError) error = NULL;
    IOThread *thread = iothread_new("a name that is too long for the kernel",
                                    aio_engines[i], &error);

    ck_assert_ptr_nonnull(thread);
    return thread;
}

static void nothing(void *opaque)
{
}

START_TEST(a_thread_can_be_stopped_before_it_has_done_anything)
{
    AIO_TEST(ctx);

    for (int round = 0; round < 20; round++) {
        iothread_free(start_thread(_i));
    }
    iothread_free(NULL);
    aio_context_unref(ctx);
}
END_TEST

static void count_up(void *opaque)
{
    atomic_fetch_add((_Atomic int *)opaque, 1);
}

START_TEST(what_is_ready_runs_before_the_thread_ends)
{
    AIO_TEST(ctx);

    for (int round = 0; round < 20; round++) {
        IOThread *thread = start_thread(_i);
        _Atomic int count = 0;

        for (int i = 0; i < 100; i++) {
            aio_bh_schedule_oneshot(iothread_get_aio_context(thread), count_up,
                                    &count);
        }
        iothread_free(thread);
        ck_assert_int_eq(count, 100);
    }
    aio_context_unref(ctx);
}
END_TEST

typedef struct Tour {
    AioContext *stops[NR_IOTHREADS];
    AioContext *home;
    int rounds;
} Tour;

static int coroutine_fn travel(void *opaque)
{
    Tour *tour = opaque;

    for (int i = 0; i < tour->rounds; i++) {
        AioContext *to = tour->stops[i % NR_IOTHREADS];

        aio_co_reschedule_self(to);
        ck_assert(aio_get_current() == to);
        ck_assert(aio_context_in_home(to));
        ck_assert(!aio_context_in_home(tour->home));
        aio_co_reschedule_self(to);         /* there already */
        ck_assert(aio_get_current() == to);
    }
    aio_co_reschedule_self(tour->home);
    ck_assert(aio_context_in_home(tour->home));
    return tour->rounds;
}

/* Links of a chain that are still to come; touched by one thread. */
typedef struct BHChain {
    AioContext *ctx;
    int left;
} BHChain;

static void next_link(void *opaque)
{
    BHChain *chain = opaque;

    if (--chain->left > 0) {
        aio_bh_schedule_oneshot(chain->ctx, next_link, chain);
    }
}

START_TEST(a_chain_of_bottom_halves_ends_before_the_thread)
{
    AIO_TEST(ctx);

    for (int round = 0; round < 20; round++) {
        IOThread *thread = start_thread(_i);
        BHChain chain = { .ctx = iothread_get_aio_context(thread),
                          .left = 50 };

        aio_bh_schedule_oneshot(chain.ctx, next_link, &chain);
        iothread_free(thread);
        ck_assert_int_eq(chain.left, 0);
    }
    aio_context_unref(ctx);
}
END_TEST

START_TEST(a_coroutine_travels_from_thread_to_thread)
{
    AIO_TEST(ctx);
    IOThread *threads[NR_IOTHREADS];
    Tour tour = { .home = ctx, .rounds = 3000 };

    for (int i = 0; i < NR_IOTHREADS; i++) {
        threads[i] = start_thread(_i);
        tour.stops[i] = iothread_get_aio_context(threads[i]);
    }
    ck_assert_int_eq(aio_co_run(ctx, travel, &tour), 3000);
    for (int i = 0; i < NR_IOTHREADS; i++) {
        iothread_free(threads[i]);
    }
    aio_context_unref(ctx);
}
END_TEST

/* Two coroutines in two threads that wake each other in turns. */
typedef struct PingPong {
    AioContext *main_ctx;
    AioContext *ctx[2];
    Coroutine *co[2];
    _Atomic int nr_left;
    int count[2];
} PingPong;

#define NR_STROKES 20000

static void play_ended(PingPong *game)
{
    atomic_fetch_sub(&game->nr_left, 1);
    aio_bh_schedule_oneshot(game->main_ctx, nothing, NULL);
}

static void coroutine_fn serve(void *opaque)
{
    PingPong *game = opaque;

    while (game->count[0]++ < NR_STROKES) {
        aio_co_wake(game->co[1]);           /* it has yielded or will soon */
        coroutine_yield();
    }
    play_ended(game);
}

static void coroutine_fn answer(void *opaque)
{
    PingPong *game = opaque;

    aio_co_schedule(game->ctx[0], game->co[0]);
    while (game->count[1]++ < NR_STROKES) {
        coroutine_yield();
        aio_co_wake(game->co[0]);
    }
    play_ended(game);
}

START_TEST(coroutines_of_two_threads_wake_each_other)
{
    AIO_TEST(ctx);
    PingPong game = { .main_ctx = ctx, .nr_left = 2 };
    IOThread *threads[2];

    aio_context_bind(ctx);
    for (int i = 0; i < 2; i++) {
        threads[i] = start_thread(_i);
        game.ctx[i] = iothread_get_aio_context(threads[i]);
        game.co[i] = coroutine_create(i ? answer : serve, &game);
    }
    aio_co_enter(game.ctx[1], game.co[1]);
    while (atomic_load(&game.nr_left) > 0) {
        aio_poll(ctx, true);                /* hangs if a wake-up is lost */
    }
    for (int i = 0; i < 2; i++) {
        iothread_free(threads[i]);
        ck_assert_int_eq(game.count[i], NR_STROKES + 1);
    }
    while (aio_poll(ctx, false)) {
        continue;
    }
    aio_context_unref(ctx);
}
END_TEST

typedef struct Crowd {
    AioContext *home;
    AioContext *away;
    _Atomic int in_away;
    int nr_back;
} Crowd;

static int value_of(void *opaque)
{
    return *(int *)opaque;
}

static void coroutine_fn work_away(void *opaque)
{
    Crowd *crowd = opaque;
    int value = 4711;

    aio_co_reschedule_self(crowd->away);
    ck_assert_int_eq(aio_co_work(value_of, &value), 4711);
    ck_assert(aio_context_in_home(crowd->away));
    atomic_fetch_add(&crowd->in_away, 1);
    aio_co_reschedule_self(crowd->home);
    crowd->nr_back++;
}

START_TEST(many_coroutines_work_in_another_thread_and_come_back)
{
    AIO_TEST(ctx);
    IOThread *thread = start_thread(_i);
    Crowd crowd = { .home = ctx, .away = iothread_get_aio_context(thread) };

    aio_context_bind(ctx);
    for (int i = 0; i < 500; i++) {
        aio_co_enter(ctx, coroutine_create(work_away, &crowd));
    }
    while (crowd.nr_back < 500) {
        aio_poll(ctx, true);
    }
    ck_assert_int_eq(crowd.in_away, 500);
    iothread_free(thread);
    aio_context_unref(ctx);
}
END_TEST

START_TEST(the_last_reference_may_go_after_the_thread_or_elsewhere)
{
    AIO_TEST(ctx);
    IOThread *thread = start_thread(_i);
    AioContext *kept = aio_context_ref(iothread_get_aio_context(thread));

    iothread_free(thread);
    ck_assert(!aio_context_in_home(kept));
    aio_context_unref(kept);
    aio_context_unref(ctx);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("iothread");
    TCase *tcase = tcase_create("iothread");

    tcase_set_timeout(tcase, 60);
    PROMISE_ENGINES(tcase, a_thread_can_be_stopped_before_it_has_done_anything);
    PROMISE_ENGINES(tcase, what_is_ready_runs_before_the_thread_ends);
    PROMISE_ENGINES(tcase, a_chain_of_bottom_halves_ends_before_the_thread);
    PROMISE_ENGINES(tcase, a_coroutine_travels_from_thread_to_thread);
    PROMISE_ENGINES(tcase, coroutines_of_two_threads_wake_each_other);
    PROMISE_ENGINES(tcase,
                    many_coroutines_work_in_another_thread_and_come_back);
    PROMISE_ENGINES(tcase,
                    the_last_reference_may_go_after_the_thread_or_elsewhere);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
