/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Calls that block, one at a time: their order, that they never overlap, and
 * that the queue may go with its last call.
 */
#include "aio-fixture.h"

#include "util/aio-serial.h"

#include <stdatomic.h>

#define NR_CALLS 50
#define NR_THREADS 3

typedef struct Fixture {
    AioSerial serial;
    _Atomic int nr_inside;
    _Atomic int nr_done;
    int order[NR_CALLS * NR_THREADS];   /* written by who is inside */
    int nr_ordered;
    _Atomic bool gate_open;
} Fixture;

typedef struct Call {
    Fixture *f;
    int number;
    int ret;
} Call;

static int note_call(void *opaque)
{
    Call *call = opaque;
    Fixture *f = call->f;

    ck_assert_int_eq(atomic_fetch_add(&f->nr_inside, 1), 0);
    while (!atomic_load(&f->gate_open)) {
        g_usleep(100);
    }
    f->order[f->nr_ordered++] = call->number;
    atomic_fetch_sub(&f->nr_inside, 1);
    return -call->number;
}

static void coroutine_fn call_entry(void *opaque)
{
    Call *call = opaque;

    call->ret = aio_serial_work(&call->f->serial, note_call, call);
    atomic_fetch_add(&call->f->nr_done, 1);
}

static Fixture *fixture_new(bool gate_open)
{
    Fixture *f = g_new0(Fixture, 1);

    aio_serial_init(&f->serial);
    f->gate_open = gate_open;
    return f;
}

START_TEST(calls_run_in_their_order_and_each_gets_its_result)
{
    AIO_TEST(ctx);
    Fixture *f = fixture_new(false);
    Call calls[NR_CALLS];

    aio_context_bind(ctx);
    for (int i = 0; i < NR_CALLS; i++) {
        calls[i] = (Call) { .f = f, .number = i + 1 };
        aio_co_enter(ctx, coroutine_create(call_entry, &calls[i]));
    }
    atomic_store(&f->gate_open, true);
    while (f->nr_done < NR_CALLS) {
        aio_poll(ctx, true);
    }
    for (int i = 0; i < NR_CALLS; i++) {
        ck_assert_int_eq(f->order[i], i + 1);
        ck_assert_int_eq(calls[i].ret, -(i + 1));
    }
    g_free(f);
    aio_context_unref(ctx);
}
END_TEST

/* The queue is freed by the coroutine of its last call. */
static void coroutine_fn lone_entry(void *opaque)
{
    Fixture *f = opaque;
    Call call = { .f = f, .number = 1 };

    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(aio_serial_work(&f->serial, note_call, &call), -1);
    }
    g_free(f);
    g_string_append(trace, "x");
}

START_TEST(a_queue_may_go_as_soon_as_its_last_call_has_returned)
{
    AIO_TEST(ctx);

    aio_context_bind(ctx);
    for (int i = 0; i < 200; i++) {
        aio_co_enter(ctx, coroutine_create(lone_entry, fixture_new(true)));
        while (trace->len <= (gsize)i) {
            aio_poll(ctx, true);
        }
    }
    aio_context_unref(ctx);
}
END_TEST

START_TEST(calls_of_several_threads_never_overlap)
{
    AIO_TEST(ctx);
    Fixture *f = fixture_new(true);
    IOThread *threads[NR_THREADS];
    Call calls[NR_THREADS][NR_CALLS];
    bool seen[NR_THREADS * NR_CALLS] = { 0 };

    for (int t = 0; t < NR_THREADS; t++) {
        threads[t] = iothread_new("caller", aio_engines[_i], NULL);
        for (int i = 0; i < NR_CALLS; i++) {
            calls[t][i] = (Call) { .f = f, .number = t * NR_CALLS + i };
            aio_co_enter(iothread_get_aio_context(threads[t]),
                         coroutine_create(call_entry, &calls[t][i]));
        }
    }
    while (atomic_load(&f->nr_done) < NR_THREADS * NR_CALLS) {
        g_usleep(100);
    }
    for (int t = 0; t < NR_THREADS; t++) {
        iothread_free(threads[t]);
    }
    ck_assert_int_eq(f->nr_ordered, NR_THREADS * NR_CALLS);
    for (int i = 0; i < f->nr_ordered; i++) {
        ck_assert(!seen[f->order[i]]);
        seen[f->order[i]] = true;
    }
    g_free(f);
    aio_context_unref(ctx);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("aio-serial");
    TCase *tcase = new_tcase(suite, "calls");

    PROMISE_ENGINES(tcase, calls_run_in_their_order_and_each_gets_its_result);
    PROMISE_ENGINES(tcase,
                    a_queue_may_go_as_soon_as_its_last_call_has_returned);
    PROMISE_ENGINES(tcase, calls_of_several_threads_never_overlap);
    return check_main(suite);
}
