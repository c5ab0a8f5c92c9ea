/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Epochs: a host cluster that is given up waits for the requests that may have
 * seen it.
 */
#include "co-fixture.h"

#include <blockgraph/iov.h>

#include "block/formats/qcow2/qcow2.h"

static Qcow2 *q;

static void setup(void)
{
    co_fixture_setup();
    q = block_aligned_alloc(_Alignof(Qcow2), sizeof(*q));
    memset(q, 0, sizeof(*q));
    lock_init(&q->grace_lock, LOCK_RANK_DRIVER);
    co_queue_init(&q->grace_queue);
}

static void teardown(void)
{
    block_aligned_free(q);
    co_fixture_teardown();
}

START_TEST(an_epoch_is_not_over_while_it_is_the_present_one)
{
    ck_assert(!qcow2_epoch_over(q, atomic_load(&q->epoch)));
}
END_TEST

START_TEST(an_epoch_is_over_when_its_requests_have_ended)
{
    unsigned epoch = atomic_load(&q->epoch);
    unsigned a = qcow2_access_begin(q), b = qcow2_access_begin(q);

    qcow2_epoch_advance(q);
    ck_assert(!qcow2_epoch_over(q, epoch));
    qcow2_access_end(q, b);
    ck_assert(!qcow2_epoch_over(q, epoch));
    qcow2_access_end(q, a);
    ck_assert(qcow2_epoch_over(q, epoch));
}
END_TEST

START_TEST(later_requests_do_not_keep_an_epoch_from_ending)
{
    unsigned epoch = atomic_load(&q->epoch);
    unsigned old = qcow2_access_begin(q), new;

    qcow2_epoch_advance(q);
    new = qcow2_access_begin(q);
    qcow2_access_end(q, old);
    ck_assert(qcow2_epoch_over(q, epoch));
    qcow2_access_end(q, new);
}
END_TEST

START_TEST(a_request_holds_the_epoch_after_next)
{
    unsigned epoch = atomic_load(&q->epoch);
    unsigned ticket = qcow2_access_begin(q);

    qcow2_epoch_advance(q);
    qcow2_epoch_advance(q);
    qcow2_epoch_advance(q);
    ck_assert_uint_eq(atomic_load(&q->epoch), epoch + 1);
    ck_assert(!qcow2_epoch_over(q, epoch));
    qcow2_access_end(q, ticket);
    qcow2_epoch_advance(q);
    qcow2_epoch_advance(q);
    ck_assert(qcow2_epoch_over(q, epoch));
    ck_assert(qcow2_epoch_over(q, epoch + 1));
}
END_TEST

/* A resource that requests use and one owner retires: a generation number is
 * what they use, and it is poisoned when it is free. */
#define GENERATIONS 4096
#define USES 3000

static _Atomic unsigned current;
static _Atomic bool poisoned[GENERATIONS];

static void coroutine_fn use_body(void *opaque)
{
    for (unsigned i = 0; i < USES; i++) {
        unsigned ticket = qcow2_access_begin(q);
        unsigned seen = atomic_load(&current);

        for (unsigned j = 0; j < 4; j++) {
            g_assert(!atomic_load(&poisoned[seen]));
            if (j == 1 && i % 64 == 0) {
                co_step_aside();
            }
        }
        qcow2_access_end(q, ticket);
    }
}

static void *retire_thread(void *opaque)
{
    unsigned epochs[GENERATIONS], freed = 0;

    for (unsigned i = 0; i + 1 < GENERATIONS; i++) {
        atomic_store(&current, i + 1);
        epochs[i] = atomic_load(&q->epoch);
        qcow2_epoch_advance(q);
        while (freed <= i && qcow2_epoch_over(q, epochs[freed])) {
            atomic_store(&poisoned[freed++], true);
        }
        if (i % 16 == 0) {
            g_thread_yield();
        }
    }
    return (void *)(uintptr_t)freed;
}

START_TEST(what_a_request_saw_is_not_freed_before_it_ends)
{
    GThread *thread = g_thread_new("retire", retire_thread, NULL);

    co_crowd_run(3, 2, use_body, NULL);
    ck_assert_uint_gt((uintptr_t)g_thread_join(thread), 0);
}
END_TEST

/* All use and wait; nobody comes after the last round, so a wake-up that is
 * lost stays lost. */
static void coroutine_fn wait_body(void *opaque)
{
    for (unsigned i = 0; i < USES; i++) {
        unsigned ticket = qcow2_access_begin(q);
        unsigned epoch = atomic_load(&q->epoch);

        if (i % 64 == 0) {
            co_step_aside();
        }
        qcow2_access_end(q, ticket);
        if (i % 4 == 3) {
            qcow2_epoch_wait(q, epoch);
            g_assert(atomic_load(&q->epoch) != epoch);
        }
    }
}

START_TEST(who_waits_for_the_end_of_an_epoch_is_told)
{
    co_crowd_run(3, 2, wait_body, NULL);
    ck_assert_uint_eq(atomic_load(&q->grace_waiters), 0);
    for (unsigned i = 0; i < QCOW2_ACCESS_SHARDS; i++) {
        ck_assert_uint_eq(atomic_load(&q->access[i].active[0]), 0);
        ck_assert_uint_eq(atomic_load(&q->access[i].active[1]), 0);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("qcow2-grace");
    TCase *tc = tcase_create("grace");

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    PROMISE(tc, an_epoch_is_not_over_while_it_is_the_present_one);
    PROMISE(tc, an_epoch_is_over_when_its_requests_have_ended);
    PROMISE(tc, later_requests_do_not_keep_an_epoch_from_ending);
    PROMISE(tc, a_request_holds_the_epoch_after_next);
    PROMISE(tc, what_a_request_saw_is_not_freed_before_it_ends);
    PROMISE(tc, who_waits_for_the_end_of_an_epoch_is_told);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
