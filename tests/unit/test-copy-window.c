/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How many copies at once: against models of what copies take, by a clock of
 * the test's own.
 */
#include "check-main.h"

#include "block/copy/copy-window.h"

#include <glib.h>

#define PIECE (1 << 20)
#define MS (INT64_C(1000) * 1000)
#define WORKERS_MAX 64

/* What a copy takes while @busy of them are under way, in ns. */
typedef int64_t Cost(unsigned busy);

/* A network: all at once take as long as one. */
static int64_t latency(unsigned busy)
{
    return 20 * MS;
}

/* The same, of which no more than eight go at once. */
static int64_t eight_at_once(unsigned busy)
{
    return 20 * MS * MAX(busy, 8) / 8;
}

/* One processor: they share it. */
static int64_t shared(unsigned busy)
{
    return MS / 2 * busy;
}

/* And from five on push each other's data out of its cache. */
static int64_t cache(unsigned busy)
{
    return (busy > 4 ? MS : MS / 2) * busy;
}

/* Copies of the model: the ends of those that are under way. */
typedef struct Model {
    CopyWindow window;
    int64_t now_ns;
    int64_t ends[WORKERS_MAX];
    unsigned busy;
    unsigned most;         /* that ever were */
    int64_t copied;
    GRand *chance;         /* NULL: each takes what it should */
} Model;

static unsigned first_to_end(const Model *m)
{
    unsigned first = 0;

    for (unsigned i = 1; i < m->busy; i++) {
        first = m->ends[i] < m->ends[first] ? i : first;
    }
    return first;
}

static void begin_copies(Model *m, Cost *cost)
{
    while (m->busy < m->window.workers) {
        /* What it takes as long as as many are under way. */
        int64_t ns = cost(m->window.workers);

        if (m->chance) {
            ns = ns * g_rand_double_range(m->chance, 0.5, 1.5);
        }
        ck_assert_uint_lt(m->busy, WORKERS_MAX);
        m->ends[m->busy++] = m->now_ns + ns;
    }
    m->most = MAX(m->most, m->busy);
}

static void copy(Model *m, Cost *cost, int copies)
{
    for (int i = 0; i < copies; i++) {
        unsigned first;

        begin_copies(m, cost);
        first = first_to_end(m);
        m->now_ns = m->ends[first];
        m->ends[first] = m->ends[--m->busy];
        m->copied += PIECE;
        copy_window_done(&m->window, PIECE, m->now_ns);
    }
}

/* Workers on the average of many copies. */
static double mean_workers(Model *m, Cost *cost)
{
    double sum = 0;

    for (int i = 0; i < 5000; i++) {
        copy(m, cost, 1);
        sum += m->window.workers;
    }
    return sum / 5000;
}

static void model_init(Model *m, unsigned max)
{
    *m = (Model){ .now_ns = 12345 };
    copy_window_init(&m->window, max);
}

START_TEST(what_has_a_latency_gets_all_workers)
{
    Model m;

    model_init(&m, 16);
    ck_assert_uint_eq(m.window.workers, 16);
    ck_assert(mean_workers(&m, latency) > 14);
    ck_assert_uint_eq(m.most, 16);
}
END_TEST

START_TEST(what_shares_a_processor_gets_few)
{
    Model m;

    model_init(&m, 16);
    copy(&m, shared, 500);
    ck_assert(mean_workers(&m, shared) < 3);
    model_init(&m, 16);
    copy(&m, cache, 500);
    ck_assert(mean_workers(&m, cache) < 5);
}
END_TEST

START_TEST(as_many_as_there_are_places_when_there_are_fewer_than_workers)
{
    Model m;

    model_init(&m, 64);
    copy(&m, eight_at_once, 1000);
    ck_assert(mean_workers(&m, eight_at_once) > 7);
    ck_assert(mean_workers(&m, eight_at_once) < 12);
}
END_TEST

START_TEST(a_target_that_becomes_another_is_noticed)
{
    Model m;

    model_init(&m, 16);
    copy(&m, shared, 3000);
    copy(&m, latency, 3000);
    ck_assert(mean_workers(&m, latency) > 12);
    copy(&m, shared, 3000);
    ck_assert(mean_workers(&m, shared) < 3);
}
END_TEST

/* Each copy takes half to one and a half times what it should. */
START_TEST(chance_does_not_take_the_workers_of_a_latency)
{
    Model m;

    model_init(&m, 16);
    m.chance = g_rand_new_with_seed(_i);
    copy(&m, latency, 500);
    ck_assert(mean_workers(&m, latency) > 11);
    g_rand_free(m.chance);
}
END_TEST

START_TEST(there_are_never_more_than_allowed_nor_fewer_than_two)
{
    GRand *chance = g_rand_new_with_seed(_i);
    int max = _i + 1;
    Model m;

    model_init(&m, max);
    m.chance = chance;
    for (int i = 0; i < 5000; i++) {
        copy(&m, i / 1000 % 2 ? cache : latency, 1);
        ck_assert_uint_le(m.window.workers, max);
        ck_assert_uint_ge(m.window.workers,
                          MIN(max, COPY_WINDOW_WORKERS_MIN));
    }
    g_rand_free(chance);
}
END_TEST

/* A clock that stands still, and copies that all end at once. */
START_TEST(no_time_at_all_changes_nothing)
{
    CopyWindow w;

    copy_window_init(&w, 16);
    for (int i = 0; i < 10000; i++) {
        copy_window_done(&w, PIECE, 7);
    }
    ck_assert_uint_eq(w.workers, 16);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("copy-window");
    TCase *tcase = tcase_create("copy-window");

    suite_add_tcase(suite, tcase);
    PROMISE(tcase, what_has_a_latency_gets_all_workers);
    PROMISE(tcase, what_shares_a_processor_gets_few);
    PROMISE(tcase,
            as_many_as_there_are_places_when_there_are_fewer_than_workers);
    PROMISE(tcase, a_target_that_becomes_another_is_noticed);
    tcase_add_loop_test(tcase, chance_does_not_take_the_workers_of_a_latency, 1,
                        20);
    tcase_add_loop_test(
        tcase, there_are_never_more_than_allowed_nor_fewer_than_two, 0, 33);
    PROMISE(tcase, no_time_at_all_changes_nothing);
    return check_main(suite);
}
