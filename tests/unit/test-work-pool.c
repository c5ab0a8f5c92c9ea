/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Worker threads: everything runs once, nobody is left behind.
 */
#include "check-main.h"

#include "util/work-pool.h"

#include <glib.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>

typedef struct Job {
    WorkItem item;
    sem_t *started;
    sem_t *go_on;
    sem_t *done;
    int runs;
    pthread_t thread;
} Job;

static Job *job_of(WorkItem *item)
{
    return (Job *)((char *)item - offsetof(Job, item));
}

static void job_run(WorkItem *item)
{
    Job *job = job_of(item);
    sem_t *done = job->done;

    job->runs++;
    job->thread = pthread_self();
    if (job->started) {
        sem_post(job->started);
        while (sem_wait(job->go_on)) {
            continue;
        }
    }
    sem_post(done);
}

static void wait_for(sem_t *sem, int nr)
{
    while (nr > 0) {
        nr -= sem_wait(sem) == 0;
    }
}

START_TEST(every_item_runs_once_in_a_worker)
{
    enum { N = 2000 };
    WorkPool *pool = work_pool_new(8, 1000);
    Job *jobs = g_new0(Job, N);
    sem_t done;

    sem_init(&done, 0, 0);
    for (int i = 0; i < N; i++) {
        jobs[i].item.func = job_run;
        jobs[i].done = &done;
        work_pool_submit(pool, &jobs[i].item);
    }
    wait_for(&done, N);
    ck_assert_int_le(work_pool_threads(pool), 8);
    work_pool_unref(pool);
    for (int i = 0; i < N; i++) {
        ck_assert_int_eq(jobs[i].runs, 1);
        ck_assert(!pthread_equal(jobs[i].thread, pthread_self()));
    }
    g_free(jobs);
    sem_destroy(&done);
}
END_TEST

START_TEST(items_block_up_to_the_limit_at_the_same_time)
{
    enum { LIMIT = 4, N = 6 };
    WorkPool *pool = work_pool_new(LIMIT, 1000);
    sem_t started, go_on, done;
    Job jobs[N] = { 0 };
    int nr_started;

    sem_init(&started, 0, 0);
    sem_init(&go_on, 0, 0);
    sem_init(&done, 0, 0);
    for (int i = 0; i < N; i++) {
        jobs[i] = (Job) {
            .item.func = job_run, .started = &started, .go_on = &go_on,
            .done = &done,
        };
        work_pool_submit(pool, &jobs[i].item);
    }
    wait_for(&started, LIMIT);      /* hangs if fewer run at once */
    sem_getvalue(&started, &nr_started);
    ck_assert_int_eq(nr_started, 0);
    ck_assert_int_eq(work_pool_threads(pool), LIMIT);
    for (int i = 0; i < N; i++) {
        sem_post(&go_on);
    }
    wait_for(&done, N);
    work_pool_unref(pool);
    sem_destroy(&started);
    sem_destroy(&go_on);
    sem_destroy(&done);
}
END_TEST

START_TEST(an_unused_pool_has_no_threads)
{
    WorkPool *pool = work_pool_new(4, 1000);

    ck_assert_int_eq(work_pool_threads(pool), 0);
    work_pool_unref(pool);
}
END_TEST

START_TEST(idle_threads_exit_and_come_back)
{
    WorkPool *pool = work_pool_new(4, 1);
    sem_t done;

    sem_init(&done, 0, 0);
    for (int round = 0; round < 5; round++) {
        Job jobs[4] = { 0 };

        for (int i = 0; i < 4; i++) {
            jobs[i] = (Job) { .item.func = job_run, .done = &done };
            work_pool_submit(pool, &jobs[i].item);
        }
        wait_for(&done, 4);
        while (work_pool_threads(pool) > 0) {
            sched_yield();          /* hangs if they stay */
        }
    }
    work_pool_unref(pool);
    sem_destroy(&done);
}
END_TEST

/*
 * The pool goes while a worker is idle, another is just done with its item and
 * a third has barely started.
 */
START_TEST(a_pool_can_be_freed_in_any_state_of_its_threads)
{
    for (int round = 0; round < 200; round++) {
        WorkPool *pool = work_pool_new(3, round % 2 ? 1000 : 0);
        Job jobs[3] = { 0 };
        sem_t done;

        sem_init(&done, 0, 0);
        for (int i = 0; i < 3; i++) {
            jobs[i] = (Job) { .item.func = job_run, .done = &done };
            work_pool_submit(pool, &jobs[i].item);
            if (i == 0) {
                wait_for(&done, 1);
            }
        }
        wait_for(&done, 2);
        work_pool_unref(pool);
        sem_destroy(&done);
    }
}
END_TEST

START_TEST(the_shared_pool_goes_with_its_last_user)
{
    WorkPool *pool = work_pool_get_shared();
    sem_t done;
    Job job = { .item.func = job_run, .done = &done };

    sem_init(&done, 0, 0);
    ck_assert(work_pool_get_shared() == pool);
    work_pool_submit(pool, &job.item);
    wait_for(&done, 1);
    work_pool_unref(pool);
    ck_assert_int_eq(work_pool_threads(pool), 1);
    work_pool_unref(pool);
    pool = work_pool_get_shared();
    ck_assert_int_eq(work_pool_threads(pool), 0);
    work_pool_unref(pool);
    sem_destroy(&done);
}
END_TEST

typedef struct Masked {
    WorkItem item;
    sigset_t mask;
    sem_t *done;
} Masked;

static void read_mask(WorkItem *item)
{
    Masked *m = (Masked *)((char *)item - offsetof(Masked, item));

    pthread_sigmask(SIG_BLOCK, NULL, &m->mask);
    sem_post(m->done);
}

START_TEST(workers_take_no_signals_of_the_program)
{
    WorkPool *pool = work_pool_new(1, 1000);
    sem_t done;
    Masked m = { .item.func = read_mask, .done = &done };
    sigset_t mine;

    sem_init(&done, 0, 0);
    work_pool_submit(pool, &m.item);
    wait_for(&done, 1);
    ck_assert_int_eq(sigismember(&m.mask, SIGTERM), 1);
    ck_assert_int_eq(sigismember(&m.mask, SIGCHLD), 1);
    pthread_sigmask(SIG_BLOCK, NULL, &mine);
    ck_assert_int_eq(sigismember(&mine, SIGTERM), 0);
    work_pool_unref(pool);
    sem_destroy(&done);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("work-pool");
    TCase *tcase = tcase_create("work-pool");

    tcase_set_timeout(tcase, 60);
    PROMISE(tcase, every_item_runs_once_in_a_worker);
    PROMISE(tcase, items_block_up_to_the_limit_at_the_same_time);
    PROMISE(tcase, an_unused_pool_has_no_threads);
    PROMISE(tcase, idle_threads_exit_and_come_back);
    PROMISE(tcase, a_pool_can_be_freed_in_any_state_of_its_threads);
    PROMISE(tcase, the_shared_pool_goes_with_its_last_user);
    PROMISE(tcase, workers_take_no_signals_of_the_program);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
