/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Short locks.
 */
#include "check-main.h"

#include "util/lock.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>

#define THREADS 4
#define ROUNDS 50000

static Lock lock = LOCK_INITIALIZER(LOCK_RANK_UTIL);
static Lock inner_lock = LOCK_INITIALIZER(LOCK_RANK_LEAF);

static int return_from_within(void)
{
    WITH_LOCK(&lock) {
        return lock_is_held(&lock) ? 1 : -1;
    }
    return 0;
}

START_TEST(a_return_inside_the_block_releases_once)
{
    ck_assert_int_eq(return_from_within(), 1);
    ck_assert(!lock_is_held(&lock));
    lock_assert_none_held();
}
END_TEST

START_TEST(a_break_inside_the_block_releases_once)
{
    WITH_LOCK(&lock) {
        ck_assert(lock_is_held(&lock));
        break;
    }
    ck_assert(!lock_is_held(&lock));
    lock_assert_none_held();
}
END_TEST

START_TEST(the_block_runs_once_and_blocks_nest)
{
    int runs = 0;

    WITH_LOCK(&lock) {
        WITH_LOCK(&inner_lock) {
            ck_assert(lock_is_held(&lock) && lock_is_held(&inner_lock));
            runs++;
        }
        ck_assert(lock_is_held(&lock) && !lock_is_held(&inner_lock));
    }
    ck_assert_int_eq(runs, 1);
    ck_assert(!lock_is_held(&lock));
}
END_TEST

START_TEST(a_guard_holds_to_the_end_of_its_scope)
{
    {
        LOCK_GUARD(&lock);

        ck_assert(lock_is_held(&lock));
    }
    ck_assert(!lock_is_held(&lock));
}
END_TEST

static int64_t counter;

static void *count_under_lock(void *opaque)
{
    for (int i = 0; i < ROUNDS; i++) {
        errno = ERANGE;
        WITH_LOCK(&lock) {
            counter++;
        }
        ck_assert_int_eq(errno, ERANGE);
    }
    return NULL;
}

START_TEST(threads_exclude_each_other_and_keep_their_errno)
{
    pthread_t thread[THREADS];

    for (int i = 0; i < THREADS; i++) {
        ck_assert_int_eq(pthread_create(&thread[i], NULL, count_under_lock,
                                        NULL), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        ck_assert_int_eq(pthread_join(thread[i], NULL), 0);
    }
    ck_assert_int_eq(counter, (int64_t)THREADS * ROUNDS);
}
END_TEST

#ifdef BLOCK_DEBUG
START_TEST(taking_locks_against_the_order_aborts)
{
    struct rlimit none = { 0, 0 };

    setrlimit(RLIMIT_CORE, &none);
    lock_acquire(&inner_lock);
    lock_acquire(&lock);
    lock_release(&lock);
    lock_release(&inner_lock);
}
END_TEST
#endif

int main(void)
{
    Suite *suite = suite_create("lock");
    TCase *tcase = tcase_create("lock");

    tcase_set_timeout(tcase, 60);
    PROMISE(tcase, a_return_inside_the_block_releases_once);
    PROMISE(tcase, a_break_inside_the_block_releases_once);
    PROMISE(tcase, the_block_runs_once_and_blocks_nest);
    PROMISE(tcase, a_guard_holds_to_the_end_of_its_scope);
    PROMISE(tcase, threads_exclude_each_other_and_keep_their_errno);
#ifdef BLOCK_DEBUG
    tcase_add_test_raise_signal(tcase, taking_locks_against_the_order_aborts,
                                SIGABRT);
#endif
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
