/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Tracked requests: serialising ones have their range for themselves, in the
 * order they came; plain ones never wait for each other.
 */
#include "check-main.h"

#include <blockgraph/aio.h>
#include <blockgraph/iov.h>
#include <errno.h>

#include "block/io/tracked.h"

static AioContext *ctx;
static TrackedRequests *tracked;

static void setup(void)
{
    ctx = aio_context_new(AIO_ENGINE_AUTO, NULL);
    aio_context_bind(ctx);
    tracked = block_aligned_alloc(_Alignof(TrackedRequests),
                                  sizeof(*tracked));
    tracked_init(tracked);
}

static void teardown(void)
{
    tracked_destroy(tracked);
    block_aligned_free(tracked);
    aio_context_unref(ctx);
}

/* A request that stays until it is told to end. */
typedef struct Actor {
    TrackedRequest req;
    int64_t offset, bytes;
    bool serialising, no_wait;
    int ret;
    bool entered;
    bool ended;
    Coroutine *co;
} Actor;

static void coroutine_fn actor_entry(void *opaque)
{
    Actor *a = opaque;

    a->ret = 0;
    if (a->serialising) {
        a->ret = tracked_begin_serialising(tracked, &a->req, a->offset,
                                           a->bytes, 16, a->no_wait);
    } else {
        tracked_begin(tracked, &a->req, a->offset, a->bytes);
    }
    a->entered = true;
    if (a->ret == 0) {
        a->co = coroutine_self();
        coroutine_yield();
        tracked_end(tracked, &a->req, true);
    }
    a->ended = true;
}

static void settle(void)
{
    while (aio_poll(ctx, false)) {
    }
}

static void come(Actor *a, int64_t offset, int64_t bytes, bool serialising)
{
    *a = (Actor){ .offset = offset, .bytes = bytes,
                  .serialising = serialising, .no_wait = a->no_wait };
    aio_co_enter(ctx, coroutine_create(actor_entry, a));
    settle();
}

static void go(Actor *a)
{
    ck_assert(a->entered && a->co);
    aio_co_enter(ctx, a->co);
    settle();
    ck_assert(a->ended);
}

START_TEST(plain_requests_pass_side_by_side)
{
    Actor a = { 0 }, b = { 0 };

    come(&a, 0, 100, false);
    come(&b, 50, 100, false);
    ck_assert(a.entered && b.entered);
    go(&a);
    go(&b);
    ck_assert_uint_eq(tracked_writes(tracked), 2);
}
END_TEST

START_TEST(a_serialising_request_waits_for_older_ones_and_holds_younger_off)
{
    Actor old = { 0 }, ser = { 0 }, young = { 0 }, far = { 0 };

    come(&old, 0, 16, false);
    come(&ser, 8, 40, true);
    ck_assert(!ser.entered);
    come(&young, 20, 4, false);
    come(&far, 1000, 4, false);
    ck_assert(!young.entered);
    ck_assert(far.entered);
    go(&old);
    ck_assert(ser.entered);
    ck_assert(!young.entered);
    go(&ser);
    ck_assert(young.entered);
    go(&young);
    go(&far);
}
END_TEST

/*
 * All 13 relations of two ranges (R83): b begins and ends at each place
 * relative to a = [64, 128); they conflict exactly when they share a block.
 */
START_TEST(a_range_conflicts_exactly_when_it_overlaps)
{
    for (int64_t start = 0; start <= 192; start += 16) {
        for (int64_t end = start + 16; end <= 208; end += 16) {
            bool overlap = start < 128 && end > 64;
            Actor a = { 0 }, b = { 0 }, c = { 0 };

            come(&a, 64, 64, true);
            come(&b, start, end - start, false);
            come(&c, start, end - start, true);
            ck_assert(b.entered == !overlap);
            ck_assert(!c.entered);
            go(&a);
            ck_assert(b.entered && !c.entered);
            go(&b);
            go(&c);
        }
    }
}
END_TEST

START_TEST(a_serialising_range_covers_whole_blocks)
{
    Actor a = { 0 }, b = { 0 };

    come(&a, 17, 1, true); /* block [16, 32) */
    come(&b, 31, 1, false);
    ck_assert(!b.entered);
    go(&a);
    go(&b);
}
END_TEST

START_TEST(who_may_not_wait_is_told_so_and_leaves_no_trace)
{
    Actor plain = { 0 }, ser = { .no_wait = true }, again = { .no_wait = true };

    come(&plain, 0, 16, false);
    come(&ser, 0, 16, true);
    ck_assert_int_eq(ser.ret, -EBUSY);
    go(&plain);
    come(&again, 0, 16, true);
    ck_assert_int_eq(again.ret, 0);
    go(&again);
}
END_TEST

START_TEST(requests_that_began_before_the_first_serialising_one_are_seen)
{
    Actor plain[20] = { 0 };
    Actor ser = { 0 };

    for (int i = 0; i < 20; i++) {
        come(&plain[i], i * 16, 16, false);
    }
    come(&ser, 5 * 16, 3 * 16, true);
    for (int i = 0; i < 20; i++) {
        ck_assert(ser.entered == (i > 7));
        go(&plain[i]);
    }
    go(&ser);
}
END_TEST

/* --- several threads ------------------------------------------------------ */

enum { THREADS = 3, LANES = 6, STEPS = 1500, BLOCKS = 32 };

/* Per block: how many plain and serialising requests are inside now. */
static _Atomic int plain_inside[BLOCKS];
static _Atomic int serialising_inside[BLOCKS];

typedef struct Lane {
    uint64_t random;
    _Atomic bool done;
} Lane;

static unsigned lane_random(Lane *l, unsigned below)
{
    l->random = l->random * 6364136223846793005ull + 1442695040888963407ull;
    return (l->random >> 33) % below;
}

static void check_alone(int first, int last, bool serialising)
{
    for (int b = first; b <= last; b++) {
        if (serialising) {
            g_assert(atomic_fetch_add(&serialising_inside[b], 1) == 0);
            g_assert(atomic_load(&plain_inside[b]) == 0);
        } else {
            atomic_fetch_add(&plain_inside[b], 1);
            g_assert(atomic_load(&serialising_inside[b]) == 0);
        }
    }
}

static void uncheck(int first, int last, bool serialising)
{
    for (int b = first; b <= last; b++) {
        atomic_fetch_sub(serialising ? &serialising_inside[b]
                                     : &plain_inside[b], 1);
    }
}

static void coroutine_fn lane_entry(void *opaque)
{
    Lane *l = opaque;

    for (int i = 0; i < STEPS; i++) {
        int first = lane_random(l, BLOCKS);
        int more = lane_random(l, 4);
        int last = MIN(BLOCKS - 1, first + more);
        bool serialising = lane_random(l, 3) == 0;
        bool no_wait = serialising && lane_random(l, 5) == 0;
        int64_t bytes = (last - first + 1) * 16;
        TrackedRequest req;
        int ret = 0;

        if (serialising) {
            ret = tracked_begin_serialising(tracked, &req, first * 16, bytes,
                                            16, no_wait);
        } else {
            tracked_begin(tracked, &req, first * 16, bytes);
        }
        if (ret < 0) {
            continue;
        }
        check_alone(first, last, serialising);
        if (lane_random(l, 2)) {
            co_sleep_ns(0);
        }
        uncheck(first, last, serialising);
        tracked_end(tracked, &req, true);
    }
    atomic_store(&l->done, true);
}

START_TEST(threads_never_meet_in_a_serialised_range)
{
    IOThread *threads[THREADS];
    Lane lanes[THREADS * LANES] = { 0 };

    for (int i = 0; i < THREADS; i++) {
        threads[i] = iothread_new("lane", AIO_ENGINE_AUTO, NULL);
        for (int j = 0; j < LANES; j++) {
            Lane *l = &lanes[i * LANES + j];

            l->random = i * 100 + j + 1;
            aio_co_schedule(iothread_get_aio_context(threads[i]),
                            coroutine_create(lane_entry, l));
        }
    }
    for (int i = 0; i < THREADS * LANES; i++) {
        while (!atomic_load(&lanes[i].done)) {
            g_thread_yield();
        }
    }
    for (int i = 0; i < THREADS; i++) {
        iothread_free(threads[i]);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tracked");
    TCase *tcase = tcase_create("tracked");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    PROMISE(tcase, plain_requests_pass_side_by_side);
    PROMISE(tcase,
            a_serialising_request_waits_for_older_ones_and_holds_younger_off);
    PROMISE(tcase, a_range_conflicts_exactly_when_it_overlaps);
    PROMISE(tcase, a_serialising_range_covers_whole_blocks);
    PROMISE(tcase, who_may_not_wait_is_told_so_and_leaves_no_trace);
    PROMISE(tcase,
            requests_that_began_before_the_first_serialising_one_are_seen);
    PROMISE(tcase, threads_never_meet_in_a_serialised_range);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
