/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Coroutines: who runs when, and what becomes of their stacks.
 */
#include "check-main.h"

#include "util/coroutine-int.h"
#include "util/coroutine-stack.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>

/* What happened, in order. */
static char trace[256];

static void note(char c)
{
    size_t len = strlen(trace);

    ck_assert_uint_lt(len + 1, sizeof(trace));
    trace[len] = c;
    trace[len + 1] = '\0';
}

static void reset(void)
{
    trace[0] = '\0';
}

/* --- order --------------------------------------------------------------- */

static void coroutine_fn two_steps(void *opaque)
{
    note('1');
    coroutine_yield();
    note('2');
    *(bool *)opaque = true;
}

START_TEST(enter_runs_until_the_yield_and_goes_on_behind_it)
{
    bool done = false;
    Coroutine *co = coroutine_create(two_steps, &done);

    note('a');
    coroutine_enter(co);
    note('b');
    ck_assert(!done);
    coroutine_enter(co);
    note('c');
    ck_assert(done);
    ck_assert_str_eq(trace, "a1b2c");
}
END_TEST

static void coroutine_fn see_self(void *opaque)
{
    Coroutine **seen = opaque;

    ck_assert(in_coroutine());
    *seen = coroutine_self();
    coroutine_yield();
    ck_assert_ptr_eq(*seen, coroutine_self());
}

START_TEST(self_is_the_running_coroutine_and_null_outside)
{
    Coroutine *seen = NULL;
    Coroutine *co = coroutine_create(see_self, &seen);

    ck_assert_ptr_null(coroutine_self());
    ck_assert(!in_coroutine());
    coroutine_enter(co);
    ck_assert_ptr_eq(seen, co);
    ck_assert_ptr_null(coroutine_self());
    coroutine_enter(co);
    ck_assert(!in_coroutine());
}
END_TEST

#define NEST_MAX 100

static void coroutine_fn nest(void *opaque)
{
    int *depth = opaque;
    Coroutine *self = coroutine_self();
    Coroutine *inner;

    if (++*depth == NEST_MAX) {
        return;
    }
    inner = coroutine_create(nest, depth);
    coroutine_enter(inner);
    ck_assert_ptr_eq(coroutine_self(), self);
}

START_TEST(coroutines_nest_and_return_to_whoever_entered_them)
{
    int depth = 0;

    coroutine_enter(coroutine_create(nest, &depth));
    ck_assert_int_eq(depth, NEST_MAX);
}
END_TEST

/* --- wake list ----------------------------------------------------------- */

typedef struct Waker {
    char name;
    Coroutine *wakes[3];
} Waker;

static void coroutine_fn note_and_wake(void *opaque)
{
    Waker *waker = opaque;

    note(waker->name);
    for (int i = 0; i < 3 && waker->wakes[i]; i++) {
        coroutine_enter_after_yield(waker->wakes[i]);
    }
    note((char)g_ascii_toupper(waker->name));
}

START_TEST(woken_coroutines_run_after_the_waker_in_order_of_waking)
{
    Waker e = { 'e', { NULL } }, d = { 'd', { NULL } }, c = { 'c', { NULL } };
    Waker b = { 'b', { coroutine_create(note_and_wake, &d),
                       coroutine_create(note_and_wake, &e) } };
    Waker a = { 'a', { coroutine_create(note_and_wake, &b),
                       coroutine_create(note_and_wake, &c) } };

    coroutine_enter(coroutine_create(note_and_wake, &a));
    ck_assert_str_eq(trace, "aAbBcCdDeE");
}
END_TEST

static void coroutine_fn wake_then_yield(void *opaque)
{
    Coroutine *other = opaque;

    note('x');
    coroutine_enter_after_yield(other);
    note('y');
    coroutine_yield();
    note('z');
}

START_TEST(woken_coroutines_run_when_the_waker_yields)
{
    Waker w = { 'w', { NULL } };
    Coroutine *other = coroutine_create(note_and_wake, &w);
    Coroutine *co = coroutine_create(wake_then_yield, other);

    coroutine_enter(co);
    ck_assert_str_eq(trace, "xywW");
    coroutine_enter(co);
    ck_assert_str_eq(trace, "xywWz");
}
END_TEST

#define CHAIN_LENGTH 50000

static int chain_left;

static void coroutine_fn chain(void *opaque)
{
    if (--chain_left > 0) {
        coroutine_enter_after_yield(coroutine_create(chain, NULL));
    }
}

START_TEST(a_long_chain_of_wake_ups_does_not_nest)
{
    chain_left = CHAIN_LENGTH;
    coroutine_enter(coroutine_create(chain, NULL));
    ck_assert_int_eq(chain_left, 0);
}
END_TEST

/* --- misuse -------------------------------------------------------------- */

static void no_core_file(void)
{
    struct rlimit none = { 0, 0 };

    setrlimit(RLIMIT_CORE, &none);
}

static void coroutine_fn enter_me(void *opaque)
{
    coroutine_enter(coroutine_self());
}

START_TEST(entering_a_running_coroutine_aborts)
{
    no_core_file();
    coroutine_enter(coroutine_create(enter_me, NULL));
}
END_TEST

static void coroutine_fn just_yield(void *opaque)
{
    coroutine_yield();
}

static void coroutine_fn wake_twice(void *opaque)
{
    coroutine_enter_after_yield(opaque);
    coroutine_enter_after_yield(opaque);
}

START_TEST(waking_a_coroutine_twice_aborts)
{
    no_core_file();
    coroutine_enter(coroutine_create(wake_twice,
                                     coroutine_create(just_yield, NULL)));
}
END_TEST

START_TEST(yielding_outside_a_coroutine_aborts)
{
    no_core_file();
    coroutine_yield();
}
END_TEST

/* --- many ---------------------------------------------------------------- */

static void coroutine_fn count(void *opaque)
{
    ++*(int *)opaque;
}

START_TEST(a_hundred_thousand_coroutines_run_one_after_another)
{
    int done = 0;

    for (int i = 0; i < 100000; i++) {
        coroutine_enter(coroutine_create(count, &done));
    }
    ck_assert_int_eq(done, 100000);
    ck_assert_uint_eq(coroutine_stack_nr_pooled(), 1);
}
END_TEST

#if CO_TSAN
#define ALIVE_MAX 2000          /* TSan counts each as a thread */
#elif CO_ASAN
#define ALIVE_MAX 5000
#else
#define ALIVE_MAX 20000
#endif

static void coroutine_fn keep_a_pattern(void *opaque)
{
    int *id = opaque;
    volatile int mine[16];

    for (int i = 0; i < 16; i++) {
        mine[i] = *id + i;
    }
    coroutine_yield();
    for (int i = 0; i < 16; i++) {
        ck_assert_int_eq(mine[i], *id + i);
    }
    *id = -1;
}

START_TEST(thousands_live_at_once_and_keep_their_own_stacks)
{
    g_autofree Coroutine **co = g_new(Coroutine *, ALIVE_MAX);
    g_autofree int *id = g_new(int, ALIVE_MAX);

    for (int i = 0; i < ALIVE_MAX; i++) {
        id[i] = i;
        co[i] = coroutine_create(keep_a_pattern, &id[i]);
        coroutine_enter(co[i]);
    }
    for (int i = ALIVE_MAX - 1; i >= 0; i--) {
        coroutine_enter(co[i]);
    }
    for (int i = 0; i < ALIVE_MAX; i++) {
        ck_assert_int_eq(id[i], -1);
    }
}
END_TEST

/* --- pools --------------------------------------------------------------- */

#define POOL_BOUND 128
#define SHARED_BOUND 1024

START_TEST(pools_are_bounded_and_ended_coroutines_refill_them)
{
    static Coroutine *co[POOL_BOUND + SHARED_BOUND + 500];

    for (size_t i = 0; i < G_N_ELEMENTS(co); i++) {
        co[i] = coroutine_create(just_yield, NULL);
        coroutine_enter(co[i]);
    }
    ck_assert_uint_eq(coroutine_stack_nr_pooled(), 0);
    for (size_t i = 0; i < G_N_ELEMENTS(co); i++) {
        coroutine_enter(co[i]);
        ck_assert_uint_lt(coroutine_stack_nr_pooled(), POOL_BOUND);
    }
    ck_assert_uint_eq(coroutine_stack_nr_shared(), SHARED_BOUND);
}
END_TEST

static void *finish_all(void *opaque)
{
    Coroutine **co = opaque;

    for (; *co; co++) {
        coroutine_enter(*co);
    }
    return NULL;
}

static void run_in_thread(void *(*func)(void *), void *opaque)
{
    pthread_t thread;

    ck_assert_int_eq(pthread_create(&thread, NULL, func, opaque), 0);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
}

START_TEST(stacks_ended_in_another_thread_come_back_to_the_maker)
{
    Coroutine *co[501] = { NULL };

    for (int i = 0; i < 500; i++) {
        co[i] = coroutine_create(just_yield, NULL);
        coroutine_enter(co[i]);
    }
    run_in_thread(finish_all, co);
    ck_assert_uint_ge(coroutine_stack_nr_shared(), 384);
    for (int i = 0; i < 64; i++) {
        co[i] = coroutine_create(just_yield, NULL);
    }
    ck_assert_uint_ge(coroutine_stack_nr_shared(), 320);
    ck_assert_uint_eq(coroutine_stack_nr_pooled(), 0);
    for (int i = 0; i < 64; i++) {
        coroutine_enter(co[i]);
        coroutine_enter(co[i]);
    }
    ck_assert_uint_eq(coroutine_stack_nr_pooled(), 64);
}
END_TEST

/* --- threads ------------------------------------------------------------- */

static __thread int thread_number;

static __attribute__((noinline)) int get_thread_number(void)
{
    __asm__ volatile("");
    return thread_number;
}

typedef struct Traveller {
    Coroutine *co;
    int seen[2];
    bool self_ok;
} Traveller;

static void coroutine_fn travel(void *opaque)
{
    Traveller *t = opaque;

    t->seen[0] = get_thread_number();
    coroutine_yield();
    t->seen[1] = get_thread_number();
    t->self_ok = coroutine_self() == t->co;
}

static void *continue_travel(void *opaque)
{
    Traveller *t = opaque;

    thread_number = 2;
    coroutine_enter(t->co);
    ck_assert_ptr_null(coroutine_self());
    return NULL;
}

START_TEST(a_coroutine_goes_on_in_the_thread_that_enters_it)
{
    Traveller t = { NULL };

    thread_number = 1;
    t.co = coroutine_create(travel, &t);
    coroutine_enter(t.co);
    run_in_thread(continue_travel, &t);
    ck_assert_int_eq(t.seen[0], 1);
    ck_assert_int_eq(t.seen[1], 2);
    ck_assert(t.self_ok);
    ck_assert_ptr_null(coroutine_self());
}
END_TEST

/* --- stacks -------------------------------------------------------------- */

/* The empty statements keep the frame in memory over the inner call. */
static __attribute__((noinline)) int recurse(int depth)
{
    char frame[512];
    int sum = 0;

    memset(frame, depth, sizeof(frame));
    __asm__ volatile("" : : "r"(frame) : "memory");
    if (depth > 0) {
        sum = recurse(depth - 1);
    }
    __asm__ volatile("" : : "r"(frame) : "memory");
    return sum + frame[depth % 512];
}

static void coroutine_fn recurse_much(void *opaque)
{
    *(int *)opaque = recurse(*(int *)opaque);
}

START_TEST(overrunning_the_stack_hits_the_guard_page)
{
    int depth = 1 << 20;

    no_core_file();
    coroutine_enter(coroutine_create(recurse_much, &depth));
}
END_TEST

static void coroutine_fn one_large_frame(void *opaque)
{
    char frame[1100 << 10];

    /* Its lowest byte lies far below the mapping of this stack. */
    frame[0] = 1;
    __asm__ volatile("" : : "r"(frame) : "memory");
    *(volatile char *)opaque = frame[0];
}

START_TEST(a_frame_larger_than_the_guard_page_does_not_jump_over_it)
{
    char byte;

    no_core_file();
    coroutine_enter(coroutine_create(one_large_frame, &byte));
}
END_TEST

START_TEST(a_stack_carries_forty_kilobytes_of_frames)
{
    int depth = 70;

    coroutine_enter(coroutine_create(recurse_much, &depth));
}
END_TEST

START_TEST(debug_builds_know_the_deepest_stack)
{
    int shallow = 1, deep = 50;
    size_t after_shallow;

    coroutine_enter(coroutine_create(recurse_much, &shallow));
    after_shallow = coroutine_stack_high_water();
    coroutine_enter(coroutine_create(recurse_much, &deep));
#ifdef BLOCK_DEBUG
    ck_assert_uint_gt(after_shallow, 0);
    ck_assert_uint_gt(coroutine_stack_high_water(), 50 * 512);
    ck_assert_uint_gt(coroutine_stack_high_water(), after_shallow);
    ck_assert_uint_lt(coroutine_stack_high_water(), 1 << 20);
#else
    ck_assert_uint_eq(after_shallow, 0);
    ck_assert_uint_eq(coroutine_stack_high_water(), 0);
#endif
}
END_TEST

static void add_misuse(Suite *suite)
{
    TCase *tcase = tcase_create("misuse");

    tcase_add_test_raise_signal(tcase, entering_a_running_coroutine_aborts,
                                SIGABRT);
    tcase_add_test_raise_signal(tcase, waking_a_coroutine_twice_aborts,
                                SIGABRT);
    tcase_add_test_raise_signal(tcase, yielding_outside_a_coroutine_aborts,
                                SIGABRT);
    if (!CO_ASAN && !CO_TSAN) {
        /* The sanitizers report a fault themselves, and exit. */
        tcase_add_test_raise_signal(tcase,
                                    overrunning_the_stack_hits_the_guard_page,
                                    SIGSEGV);
        tcase_add_test_raise_signal(
            tcase, a_frame_larger_than_the_guard_page_does_not_jump_over_it,
            SIGSEGV);
    }
    suite_add_tcase(suite, tcase);
}

int main(void)
{
    Suite *suite = suite_create("coroutine");
    TCase *tcase = tcase_create("coroutine");

    tcase_add_checked_fixture(tcase, reset, NULL);
    tcase_set_timeout(tcase, 60);
    PROMISE(tcase, enter_runs_until_the_yield_and_goes_on_behind_it);
    PROMISE(tcase, self_is_the_running_coroutine_and_null_outside);
    PROMISE(tcase, coroutines_nest_and_return_to_whoever_entered_them);
    PROMISE(tcase, woken_coroutines_run_after_the_waker_in_order_of_waking);
    PROMISE(tcase, woken_coroutines_run_when_the_waker_yields);
    PROMISE(tcase, a_long_chain_of_wake_ups_does_not_nest);
    PROMISE(tcase, a_hundred_thousand_coroutines_run_one_after_another);
    PROMISE(tcase, thousands_live_at_once_and_keep_their_own_stacks);
    PROMISE(tcase, pools_are_bounded_and_ended_coroutines_refill_them);
    PROMISE(tcase, stacks_ended_in_another_thread_come_back_to_the_maker);
    PROMISE(tcase, a_coroutine_goes_on_in_the_thread_that_enters_it);
    PROMISE(tcase, a_stack_carries_forty_kilobytes_of_frames);
    PROMISE(tcase, debug_builds_know_the_deepest_stack);
    suite_add_tcase(suite, tcase);
    add_misuse(suite);
    return check_main(suite);
}
