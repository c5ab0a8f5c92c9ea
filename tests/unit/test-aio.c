/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The event loop: bottom halves, timers, coroutines, wake-ups.
 * Each promise holds on each engine.
 */
#include "aio-fixture.h"

#include "util/aio-engine.h"

#include <errno.h>
#include <liburing.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

static void count_up(void *opaque)
{
    ++*(int *)opaque;
}

/* --- bottom halves ------------------------------------------------------- */

START_TEST(a_bottom_half_runs_once_for_many_schedulings)
{
    AIO_TEST(ctx);
    int count = 0;
    AioBH *bh = aio_bh_new(ctx, count_up, &count);

    aio_bh_schedule(bh);
    aio_bh_schedule(bh);
    ck_assert(aio_poll(ctx, false));
    ck_assert_int_eq(count, 1);
    ck_assert(!aio_poll(ctx, false));
    aio_bh_schedule(bh);
    ck_assert(aio_poll(ctx, true));
    ck_assert_int_eq(count, 2);
    aio_bh_delete(bh);
    aio_context_unref(ctx);
}
END_TEST

START_TEST(bottom_halves_run_in_the_order_of_scheduling)
{
    AIO_TEST(ctx);
    AioBH *b = aio_bh_new(ctx, append, "b");

    aio_bh_schedule_oneshot(ctx, append, "a");
    aio_bh_schedule(b);
    aio_bh_schedule_oneshot(ctx, append, "c");
    ck_assert(aio_poll(ctx, false));
    ck_assert_str_eq(trace->str, "abc");
    aio_bh_delete(b);
    aio_context_unref(ctx);
}
END_TEST

typedef struct Again {
    AioBH *bh;
    int count;
} Again;

static void schedule_again(void *opaque)
{
    Again *again = opaque;

    again->count++;
    aio_bh_schedule(again->bh);
}

START_TEST(a_bottom_half_that_schedules_itself_runs_once_a_turn)
{
    AIO_TEST(ctx);
    Again again = { 0 };

    again.bh = aio_bh_new(ctx, schedule_again, &again);
    aio_bh_schedule(again.bh);
    for (int turn = 1; turn <= 3; turn++) {
        ck_assert(aio_poll(ctx, true));
        ck_assert_int_eq(again.count, turn);
    }
    aio_bh_delete(again.bh);
    ck_assert(!aio_poll(ctx, false));
    ck_assert_int_eq(again.count, 3);
    aio_context_unref(ctx);
}
END_TEST

static void delete_bh(void *opaque)
{
    AioBH **bh = opaque;

    aio_bh_delete(*bh);
}

START_TEST(a_deleted_bottom_half_does_not_run)
{
    AIO_TEST(ctx);
    int count = 0;
    AioBH *self = NULL;
    AioBH *other = aio_bh_new(ctx, count_up, &count);

    self = aio_bh_new(ctx, delete_bh, &self);
    aio_bh_schedule(self);                      /* deletes itself */
    aio_bh_schedule_oneshot(ctx, delete_bh, &other);
    aio_bh_schedule(other);
    run_all(ctx);
    ck_assert_int_eq(count, 0);

    /* Deleted while scheduled, with no turn in between or after. */
    other = aio_bh_new(ctx, count_up, &count);
    aio_bh_schedule(other);
    aio_bh_delete(other);
    aio_context_unref(ctx);
    ck_assert_int_eq(count, 0);
}
END_TEST

/* --- wake-ups from other threads ----------------------------------------- */

#define NR_THREADS 4
#define NR_WAKEUPS 25000

typedef struct Storm {
    AioContext *ctx;
    AioBH *bh;
    int oneshots;               /* home thread only */
    int bhs;
    _Atomic int pending;        /* wake-ups of @bh not yet answered */
} Storm;

static void *storm_oneshots(void *opaque)
{
    Storm *storm = opaque;

    for (int i = 0; i < NR_WAKEUPS; i++) {
        aio_bh_schedule_oneshot(storm->ctx, count_up, &storm->oneshots);
    }
    return NULL;
}

START_TEST(no_wake_up_of_four_threads_is_lost)
{
    AIO_TEST(ctx);
    Storm storm = { .ctx = ctx };
    pthread_t threads[NR_THREADS];

    aio_context_bind(ctx);
    for (int i = 0; i < NR_THREADS; i++) {
        pthread_create(&threads[i], NULL, storm_oneshots, &storm);
    }
    while (storm.oneshots < NR_THREADS * NR_WAKEUPS) {
        aio_poll(ctx, true);    /* hangs if one is lost */
    }
    for (int i = 0; i < NR_THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    ck_assert(!aio_poll(ctx, false));
    ck_assert_int_eq(storm.oneshots, NR_THREADS * NR_WAKEUPS);
    aio_context_unref(ctx);
}
END_TEST

static void answer(void *opaque)
{
    Storm *storm = opaque;

    storm->bhs++;
    atomic_store(&storm->pending, 0);
}

static void *storm_ping_pong(void *opaque)
{
    Storm *storm = opaque;

    for (int i = 0; i < NR_WAKEUPS; i++) {
        atomic_store(&storm->pending, 1);
        aio_bh_schedule(storm->bh);
        while (atomic_load(&storm->pending)) {
            sched_yield();
        }
    }
    return NULL;
}

/* The loop goes to sleep after each answer: the race of sleep and wake-up. */
START_TEST(a_loop_about_to_sleep_hears_each_wake_up)
{
    AIO_TEST(ctx);
    Storm storm = { .ctx = ctx };
    pthread_t thread;

    aio_context_bind(ctx);
    storm.bh = aio_bh_new(ctx, answer, &storm);
    pthread_create(&thread, NULL, storm_ping_pong, &storm);
    while (storm.bhs < NR_WAKEUPS) {
        aio_poll(ctx, true);
    }
    pthread_join(thread, NULL);
    aio_bh_delete(storm.bh);
    aio_context_unref(ctx);
}
END_TEST

typedef struct OneOrder {
    int from;
    int next[NR_THREADS];
    int seen;
} OneOrder;

typedef struct OrderItem {
    OneOrder *order;
    int thread;
    int number;
} OrderItem;

typedef struct OrderThread {
    AioContext *ctx;
    OneOrder *order;
    int thread;
} OrderThread;

static void check_order(void *opaque)
{
    OrderItem *item = opaque;

    ck_assert_int_eq(item->order->next[item->thread]++, item->number);
    item->order->seen++;
    g_free(item);
}

static void *order_thread(void *opaque)
{
    OrderThread *t = opaque;

    for (int i = 0; i < 1000; i++) {
        OrderItem *item = g_new0(OrderItem, 1);

        *item = (OrderItem) { t->order, t->thread, i };
        aio_bh_schedule_oneshot(t->ctx, check_order, item);
    }
    return NULL;
}

START_TEST(the_order_of_one_thread_is_kept)
{
    AIO_TEST(ctx);
    OneOrder order = { 0 };
    OrderThread t[NR_THREADS];
    pthread_t threads[NR_THREADS];

    aio_context_bind(ctx);
    for (int i = 0; i < NR_THREADS; i++) {
        t[i] = (OrderThread) { ctx, &order, i };
        pthread_create(&threads[i], NULL, order_thread, &t[i]);
    }
    while (order.seen < NR_THREADS * 1000) {
        aio_poll(ctx, true);
    }
    for (int i = 0; i < NR_THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    aio_context_unref(ctx);
}
END_TEST

/* --- timers -------------------------------------------------------------- */

START_TEST(timers_fire_by_time_and_then_by_order_of_setting)
{
    AIO_TEST(ctx);
    AioTimer *t[5];

    aio_context_bind(ctx);
    t[0] = timer_at(ctx, 30, "d");
    t[1] = timer_at(ctx, 10, "a");
    t[2] = timer_at(ctx, 30, "e");
    t[3] = timer_at(ctx, 20, "c");
    t[4] = timer_at(ctx, 10, "b");
    ck_assert(aio_poll(ctx, true));
    ck_assert_str_eq(trace->str, "abcde");
    for (int i = 0; i < 5; i++) {
        ck_assert(!aio_timer_pending(t[i]));
        aio_timer_free(t[i]);
    }
    aio_context_unref(ctx);
}
END_TEST

/* A clock that goes on with every look at it. */
static _Atomic int64_t nervous_ns;

static int64_t nervous_clock_ns(const AioContext *ctx)
{
    return atomic_fetch_add(&nervous_ns, 10);
}

START_TEST(a_deadline_that_passes_during_a_look_at_the_clock_is_not_missed)
{
    const AioEngineOps *real = _i ? &aio_threads_ops : &aio_uring_ops;
    AioEngineOps ops = *real;
    AioContext *ctx;
    AioTimer *timer;
    int count = 0;

    ops.clock_ns = nervous_clock_ns;
    ctx = aio_context_new_with_ops(&ops, NULL);
    if (!ctx) {
        return;
    }
    aio_context_bind(ctx);
    timer = aio_timer_new(ctx, count_up, &count);
    for (int left = 1; left < 100; left++) {
        aio_timer_set(timer, atomic_load(&nervous_ns) + left);
        ck_assert(aio_poll(ctx, true));
        ck_assert_int_eq(count, left);
    }
    aio_timer_free(timer);
    aio_context_unref(ctx);
}
END_TEST

START_TEST(a_loop_sleeps_until_its_timer)
{
    AIO_TEST(ctx);
    int64_t when = aio_clock_ns(ctx) + 3 * 1000 * 1000;
    AioTimer *timer;

    aio_context_bind(ctx);
    timer = timer_at(ctx, when, "x");
    ck_assert(aio_timer_pending(timer));
    ck_assert(!aio_poll(ctx, false) || trace->len);
    if (!trace->len) {
        ck_assert(aio_poll(ctx, true));
    }
    ck_assert_str_eq(trace->str, "x");
    ck_assert_int_ge(aio_clock_ns(ctx), when);
    aio_timer_free(timer);
    aio_context_unref(ctx);
}
END_TEST

static void on_signal(int number)
{
    (void)number;
}

START_TEST(signals_do_not_end_a_wait_early)
{
    AIO_TEST(ctx);
    struct sigaction action = { .sa_handler = on_signal };
    struct itimerval often = { { 0, 500 }, { 0, 500 } }, never = { 0 };
    AioTimer *timer;

    aio_context_bind(ctx);
    sigaction(SIGALRM, &action, NULL);
    timer = timer_at(ctx, aio_clock_ns(ctx) + 10 * 1000 * 1000, "x");
    setitimer(ITIMER_REAL, &often, NULL);
    ck_assert(aio_poll(ctx, true));
    setitimer(ITIMER_REAL, &never, NULL);
    ck_assert_str_eq(trace->str, "x");
    aio_timer_free(timer);
    aio_context_unref(ctx);
}
END_TEST

START_TEST(a_cancelled_or_moved_timer_does_not_fire_at_the_old_time)
{
    AIO_TEST(ctx);
    AioTimer *cancelled, *later, *earlier;

    aio_context_bind(ctx);
    cancelled = timer_at(ctx, 1, "x");
    later = timer_at(ctx, 2, "l");
    earlier = timer_at(ctx, INT64_MAX, "e");
    aio_timer_cancel(cancelled);
    ck_assert(!aio_timer_pending(cancelled));
    aio_timer_set(later, INT64_MAX);
    aio_timer_set(earlier, 3);
    ck_assert(aio_poll(ctx, true));
    ck_assert_str_eq(trace->str, "e");
    aio_timer_free(cancelled);
    aio_timer_free(later);
    aio_timer_free(earlier);
    aio_timer_free(NULL);
    aio_context_unref(ctx);
}
END_TEST

typedef struct Chain {
    AioTimer *self;
    AioTimer *victim;
    int count;
} Chain;

static void fire_and_set_again(void *opaque)
{
    Chain *chain = opaque;

    chain->count++;
    ck_assert(!aio_timer_pending(chain->self));
    aio_timer_set(chain->self, 0);
}

START_TEST(a_timer_set_again_by_its_callback_waits_for_the_next_turn)
{
    AIO_TEST(ctx);
    Chain chain = { 0 };

    aio_context_bind(ctx);
    chain.self = aio_timer_new(ctx, fire_and_set_again, &chain);
    aio_timer_set(chain.self, 0);
    for (int turn = 1; turn <= 3; turn++) {
        ck_assert(aio_poll(ctx, true));
        ck_assert_int_eq(chain.count, turn);
    }
    aio_timer_free(chain.self);
    aio_context_unref(ctx);
}
END_TEST

static void free_both(void *opaque)
{
    Chain *chain = opaque;

    chain->count++;
    aio_timer_free(chain->victim);
    aio_timer_free(chain->self);
}

START_TEST(a_callback_may_free_its_own_timer_and_one_that_is_due)
{
    AIO_TEST(ctx);
    Chain chain = { 0 };

    aio_context_bind(ctx);
    chain.self = aio_timer_new(ctx, free_both, &chain);
    chain.victim = timer_at(ctx, 2, "x");
    aio_timer_set(chain.self, 1);
    ck_assert(aio_poll(ctx, true));
    ck_assert_int_eq(chain.count, 1);
    ck_assert_str_eq(trace->str, "");
    ck_assert(!aio_poll(ctx, false));
    aio_context_unref(ctx);
}
END_TEST

typedef struct Model {
    AioTimer *timer;
    int64_t when;
    bool fired;
    int64_t *last;
} Model;

static void model_fire(void *opaque)
{
    Model *m = opaque;

    ck_assert(!m->fired);
    ck_assert_int_ge(m->when, *m->last);
    *m->last = m->when;
    m->fired = true;
}

START_TEST(five_hundred_timers_set_moved_and_cancelled_fire_in_order)
{
    AIO_TEST(ctx);
    enum { N = 500 };
    Model *m = g_new0(Model, N);
    uint32_t random = 12345;
    int64_t last = 0;
    int expected = 0, fired = 0;

    aio_context_bind(ctx);
    for (int i = 0; i < 4 * N; i++) {
        Model *x = &m[(random = random * 1664525 + 1013904223) % N];

        if (!x->timer) {
            x->timer = aio_timer_new(ctx, model_fire, x);
            x->last = &last;
        }
        if ((random >> 16) % 5 == 0) {
            aio_timer_cancel(x->timer);
        } else {
            x->when = (random >> 8) % 1000;
            aio_timer_set(x->timer, x->when);
        }
    }
    for (int i = 0; i < N; i++) {
        expected += m[i].timer && aio_timer_pending(m[i].timer);
    }
    ck_assert(aio_poll(ctx, true));
    for (int i = 0; i < N; i++) {
        fired += m[i].fired;
        aio_timer_free(m[i].timer);
    }
    ck_assert_int_eq(fired, expected);
    g_free(m);
    aio_context_unref(ctx);
}
END_TEST

/* --- coroutines ---------------------------------------------------------- */

static void coroutine_fn letters(void *opaque)
{
    const char *text = opaque;

    for (; *text; text++) {
        g_string_append_c(trace, *text);
        if (text[1]) {
            coroutine_yield();
        }
    }
}

START_TEST(a_scheduled_coroutine_runs_in_the_next_turn)
{
    AIO_TEST(ctx);
    Coroutine *a = coroutine_create(letters, "ax");
    Coroutine *b = coroutine_create(letters, "by");

    aio_context_bind(ctx);
    aio_co_schedule(ctx, a);
    aio_co_schedule(ctx, b);
    ck_assert_str_eq(trace->str, "");
    ck_assert(aio_poll(ctx, true));
    ck_assert_str_eq(trace->str, "ab");
    aio_co_wake(a);                         /* outside a coroutine: at once */
    ck_assert_str_eq(trace->str, "abx");
    aio_co_enter(ctx, b);
    ck_assert_str_eq(trace->str, "abxy");
    aio_context_unref(ctx);
}
END_TEST

typedef struct Waker {
    AioContext *ctx;
    Coroutine *other;
} Waker;

static void coroutine_fn wake_and_go_on(void *opaque)
{
    Waker *w = opaque;

    aio_co_wake(w->other);
    g_string_append(trace, "1");
    aio_co_enter(w->ctx, coroutine_create(letters, "3"));
    g_string_append(trace, "2");
    aio_co_wake(coroutine_self());          /* about to yield */
    coroutine_yield();
    g_string_append(trace, "4");
}

START_TEST(who_is_woken_inside_a_coroutine_waits_until_it_yields)
{
    AIO_TEST(ctx);
    Waker w = { .ctx = ctx, .other = coroutine_create(letters, "ab") };

    aio_context_bind(ctx);
    aio_co_enter(ctx, w.other);
    aio_co_enter(ctx, coroutine_create(wake_and_go_on, &w));
    run_all(ctx);
    ck_assert_str_eq(trace->str, "a12b34");
    aio_context_unref(ctx);
}
END_TEST

static int coroutine_fn sleep_a_turn(void *opaque)
{
    aio_co_schedule(opaque, coroutine_self());
    coroutine_yield();
    ck_assert(aio_get_current() == opaque);
    return -42;
}

START_TEST(aio_co_run_returns_what_the_function_returned)
{
    AIO_TEST(ctx);

    ck_assert_int_eq(aio_co_run(ctx, sleep_a_turn, ctx), -42);
    ck_assert(aio_get_current() == ctx);
    ck_assert(aio_context_in_home(ctx));
    aio_context_unref(ctx);
    ck_assert(aio_get_current() == NULL);
}
END_TEST

START_TEST(two_contexts_of_one_thread_have_their_own_coroutines)
{
    AIO_TEST(ctx);
    AioContext *second = aio_fixture_context(_i);

    aio_context_bind(ctx);
    ck_assert_int_eq(aio_co_run(second, sleep_a_turn, second), -42);
    ck_assert_int_eq(aio_co_run(ctx, sleep_a_turn, ctx), -42);
    ck_assert_uint_ne(aio_context_index(ctx), aio_context_index(second));
    aio_context_unref(second);
    aio_context_unref(ctx);
}
END_TEST

static int negative(void *opaque)
{
    int *value = opaque;

    *value += 1;
    return -7;
}

static int coroutine_fn work_three_times(void *opaque)
{
    int value = 0;

    for (int i = 1; i <= 3; i++) {
        ck_assert_int_eq(aio_co_work(negative, &value), -7);
        ck_assert_int_eq(value, i);
    }
    return 0;
}

START_TEST(blocking_work_hands_its_result_back)
{
    AIO_TEST(ctx);

    ck_assert_int_eq(aio_co_run(ctx, work_three_times, NULL), 0);
    aio_context_unref(ctx);
}
END_TEST

static void nest(void *opaque)
{
    aio_poll(opaque, false);
}

START_TEST(a_nested_loop_aborts)
{
    AIO_TEST(ctx);

    aio_bh_schedule_oneshot(ctx, nest, ctx);
    aio_poll(ctx, true);
}
END_TEST

START_TEST(automatic_choice_always_works)
{
    g_autoptr(GError) error = NULL;
    AioContext *ctx = aio_context_new(AIO_ENGINE_AUTO, &error);

    ck_assert_ptr_nonnull(ctx);
    ck_assert_int_ne(aio_context_engine(ctx), AIO_ENGINE_AUTO);
    ck_assert_int_eq(aio_co_run(ctx, work_three_times, NULL), 0);
    aio_context_unref(ctx);
}
END_TEST

/* From now on io_uring_setup() fails in this process. */
static void forbid_io_uring(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { G_N_ELEMENTS(code), code };

    ck_assert_int_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    ck_assert_int_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

START_TEST(where_io_uring_is_forbidden_threads_do_the_work)
{
    g_autoptr(GError) error = NULL;
    AioContext *ctx;

    forbid_io_uring();
    ck_assert_ptr_null(aio_context_new(AIO_ENGINE_IO_URING, &error));
    ck_assert_int_eq(block_error_code(error), EPERM);
    ck_assert_ptr_null(aio_context_new(AIO_ENGINE_IO_URING, NULL));
    ctx = aio_context_new(AIO_ENGINE_AUTO, NULL);
    ck_assert_ptr_nonnull(ctx);
    ck_assert_int_eq(aio_context_engine(ctx), AIO_ENGINE_THREADS);
    ck_assert_int_eq(aio_co_run(ctx, work_three_times, NULL), 0);
    aio_context_unref(ctx);
}
END_TEST

/* What the kernel says to a bare entry of operation @op. */
static int result_of_operation(struct io_uring *ring, int op)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
    struct io_uring_cqe *cqe;
    int ret;

    io_uring_prep_rw(op, sqe, -1, NULL, 0, 0);
    sqe->user_data = 0;
    ck_assert_int_eq(io_uring_submit_and_wait(ring, 1), 1);
    ck_assert_int_eq(io_uring_peek_cqe(ring, &cqe), 0);
    ret = cqe->res;
    io_uring_cqe_seen(ring, cqe);
    return ret;
}

START_TEST(the_ring_refuses_every_operation_that_we_do_not_use)
{
    static const int used[] = {
        IORING_OP_READ, IORING_OP_READV, IORING_OP_WRITE, IORING_OP_WRITEV,
        IORING_OP_FSYNC, IORING_OP_FALLOCATE, IORING_OP_POLL_ADD,
        IORING_OP_POLL_REMOVE, IORING_OP_RECV, IORING_OP_RECVMSG,
        IORING_OP_SEND, IORING_OP_SENDMSG, IORING_OP_ASYNC_CANCEL,
    };
    AioContext *ctx = aio_context_new(AIO_ENGINE_IO_URING, NULL);
    struct io_uring *ring;
    int event = eventfd(0, EFD_CLOEXEC);

    if (ctx) {
        aio_poll(ctx, false); /* enables the ring */
        ring = uring_ring(aio_context_engine_state(ctx));
        for (int op = 0; op < IORING_OP_LAST; op++) {
            bool allowed = false;

            for (size_t i = 0; i < G_N_ELEMENTS(used); i++) {
                allowed |= op == used[i];
            }
            if (!allowed) {
                ck_assert_int_eq(result_of_operation(ring, op), -EACCES);
            }
        }
        ck_assert_int_eq(result_of_operation(ring, IORING_OP_READ), -EBADF);
        ck_assert_int_eq(io_uring_register_files(ring, &event, 1), -EACCES);
        /* Nor may anybody lift what was laid on it. */
        ck_assert_int_lt(io_uring_register(ring->ring_fd,
                                           IORING_REGISTER_RESTRICTIONS, NULL,
                                           0), 0);
        aio_context_unref(ctx);
    }
    close(event);
}
END_TEST

static void add_bh_tests(TCase *tcase)
{
    PROMISE_ENGINES(tcase, a_bottom_half_runs_once_for_many_schedulings);
    PROMISE_ENGINES(tcase, bottom_halves_run_in_the_order_of_scheduling);
    PROMISE_ENGINES(tcase,
                    a_bottom_half_that_schedules_itself_runs_once_a_turn);
    PROMISE_ENGINES(tcase, a_deleted_bottom_half_does_not_run);
    PROMISE_ENGINES(tcase, no_wake_up_of_four_threads_is_lost);
    PROMISE_ENGINES(tcase, a_loop_about_to_sleep_hears_each_wake_up);
    PROMISE_ENGINES(tcase, the_order_of_one_thread_is_kept);
}

static void add_timer_tests(TCase *tcase)
{
    PROMISE_ENGINES(tcase, timers_fire_by_time_and_then_by_order_of_setting);
    PROMISE_ENGINES(tcase, a_loop_sleeps_until_its_timer);
    PROMISE_ENGINES(
        tcase,
        a_deadline_that_passes_during_a_look_at_the_clock_is_not_missed);
    PROMISE_ENGINES(tcase, signals_do_not_end_a_wait_early);
    PROMISE_ENGINES(tcase,
                    a_cancelled_or_moved_timer_does_not_fire_at_the_old_time);
    PROMISE_ENGINES(tcase,
                    a_timer_set_again_by_its_callback_waits_for_the_next_turn);
    PROMISE_ENGINES(tcase,
                    a_callback_may_free_its_own_timer_and_one_that_is_due);
    PROMISE_ENGINES(tcase,
                    five_hundred_timers_set_moved_and_cancelled_fire_in_order);
}

static void add_coroutine_tests(TCase *tcase)
{
    PROMISE_ENGINES(tcase, a_scheduled_coroutine_runs_in_the_next_turn);
    PROMISE_ENGINES(tcase,
                    who_is_woken_inside_a_coroutine_waits_until_it_yields);
    PROMISE_ENGINES(tcase, aio_co_run_returns_what_the_function_returned);
    PROMISE_ENGINES(tcase,
                    two_contexts_of_one_thread_have_their_own_coroutines);
    PROMISE_ENGINES(tcase, blocking_work_hands_its_result_back);
    PROMISE(tcase, automatic_choice_always_works);
    PROMISE(tcase, the_ring_refuses_every_operation_that_we_do_not_use);
}

int main(void)
{
    Suite *suite = suite_create("aio");
    const char *fork = g_getenv("CK_FORK");

    add_bh_tests(new_tcase(suite, "bottom halves"));
    add_timer_tests(new_tcase(suite, "timers"));
    add_coroutine_tests(new_tcase(suite, "coroutines"));
    if (!fork || strcmp(fork, "no")) {
        /* Number 1 is the threads engine, which every system has. */
        TCase *tcase = new_tcase(suite, "own process");

        tcase_add_loop_test_raise_signal(tcase, a_nested_loop_aborts, SIGABRT,
                                         1, 2);
        PROMISE(tcase, where_io_uring_is_forbidden_threads_do_the_work);
    }
    return check_main(suite);
}
