/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The locks that wait in coroutines: CoMutex, CoQueue, CoRwlock.
 *
 * In the main thread the order of all steps is known, and the tests compare
 * it.  With several threads they compare sums.
 */
#include "co-fixture.h"

#include "util/co-queue.h"

#define THREADS 4
#define EACH 8
#ifdef __SANITIZE_THREAD__
#define ROUNDS 200
#else
#define ROUNDS 1000
#endif

/* One actor of a play in the main thread. */
typedef struct Actor {
    char name;                 /* lower case: has it; upper case: gives it up */
    Coroutine *co;
} Actor;

static CoMutex mutex;
static CoQueue queue;
static CoRwlock rwlock;

static void setup(void)
{
    co_fixture_setup();
    co_mutex_init(&mutex);
    co_queue_init(&queue);
    co_rwlock_init(&rwlock);
}

static void note_upper(const Actor *actor)
{
    co_note((char)g_ascii_toupper(actor->name));
}

static void start(Actor *actor, char name, CoroutineEntry *entry)
{
    actor->name = name;
    actor->co = coroutine_create(entry, actor);
    aio_co_enter(co_ctx, actor->co);
}

/* --- CoMutex -------------------------------------------------------- */

/* Holds the mutex until somebody enters it. */
static void coroutine_fn hold_mutex(void *opaque)
{
    Actor *actor = opaque;

    co_mutex_lock(&mutex);
    ck_assert(co_mutex_is_mine(&mutex));
    co_note(actor->name);
    coroutine_yield();
    ck_assert(co_mutex_is_mine(&mutex));
    note_upper(actor);
    co_mutex_unlock(&mutex);
    ck_assert(!co_mutex_is_mine(&mutex));
}

START_TEST(a_mutex_goes_to_the_longest_waiter)
{
    Actor a, b, c;

    start(&a, 'a', hold_mutex);
    start(&b, 'b', hold_mutex);
    start(&c, 'c', hold_mutex);
    ck_assert_str_eq(co_trace, "a");
    aio_co_wake(a.co);
    ck_assert_str_eq(co_trace, "aAb");
    aio_co_wake(b.co);
    ck_assert_str_eq(co_trace, "aAbBc");
    aio_co_wake(c.co);
    ck_assert_str_eq(co_trace, "aAbBcC");
}
END_TEST

static void coroutine_fn unlock_and_want_again(void *opaque)
{
    co_mutex_lock(&mutex);
    co_note('x');
    coroutine_yield();
    co_mutex_unlock(&mutex);
    /* Still running, so quicker than any waiter could be. */
    ck_assert(!co_mutex_trylock(&mutex));
    co_mutex_lock(&mutex);
    co_note('y');
    co_mutex_unlock(&mutex);
}

START_TEST(nobody_overtakes_a_waiter)
{
    Actor a, b;

    start(&a, 'a', unlock_and_want_again);
    start(&b, 'b', hold_mutex);
    aio_co_wake(a.co);
    ck_assert_str_eq(co_trace, "xb");
    aio_co_wake(b.co);
    ck_assert_str_eq(co_trace, "xbBy");
}
END_TEST

static void coroutine_fn try_mutex(void *opaque)
{
    if (co_mutex_trylock(&mutex)) {
        co_note('+');
        co_mutex_unlock(&mutex);
    } else {
        co_note('-');
    }
}

START_TEST(trylock_takes_a_free_mutex_and_does_not_wait_for_a_held_one)
{
    Actor a;

    co_start(try_mutex, NULL);
    start(&a, 'a', hold_mutex);
    co_start(try_mutex, NULL);
    aio_co_wake(a.co);
    co_start(try_mutex, NULL);
    ck_assert_str_eq(co_trace, "+a-A+");
}
END_TEST

START_TEST(a_zeroed_mutex_is_unlocked)
{
    memset(&mutex, 0, sizeof(mutex));
    co_start(try_mutex, NULL);
    ck_assert_str_eq(co_trace, "+");
}
END_TEST

static int64_t counter;
static int nr_inside;

static void coroutine_fn count_under_mutex(void *opaque)
{
    for (int i = 0; i < ROUNDS; i++) {
        if (i % 8 == 7) {
            if (!co_mutex_trylock(&mutex)) {
                co_mutex_lock(&mutex);
            }
        } else {
            co_mutex_lock(&mutex);
        }
        nr_inside++;
        ck_assert_int_eq(nr_inside, 1);
        counter++;
        if (i % 16 == 3) {
            co_step_aside();
            ck_assert(co_mutex_is_mine(&mutex));
        }
        nr_inside--;
        co_mutex_unlock(&mutex);
        if (i % 4 == 1) {
            co_step_aside();
        }
    }
}

START_TEST(a_mutex_excludes_coroutines_of_several_threads)
{
    counter = 0;
    co_crowd_run(_i, EACH, count_under_mutex, NULL);
    ck_assert_int_eq(counter, (int64_t)_i * EACH * ROUNDS);
    co_start(try_mutex, NULL);
    ck_assert_str_eq(co_trace, "+");
}
END_TEST

/* --- CoQueue -------------------------------------------------------- */

static void coroutine_fn wait_in_queue(void *opaque)
{
    Actor *actor = opaque;

    co_note(actor->name);
    co_queue_wait(&queue, NULL);
    note_upper(actor);
}

START_TEST(a_queue_wakes_the_longest_waiter_first_and_later)
{
    Actor a, b, c;

    ck_assert(co_queue_empty(&queue));
    ck_assert(!co_queue_next(&queue));
    start(&a, 'a', wait_in_queue);
    start(&b, 'b', wait_in_queue);
    start(&c, 'c', wait_in_queue);
    ck_assert(!co_queue_empty(&queue));
    ck_assert(co_queue_next(&queue));
    ck_assert_str_eq(co_trace, "abc");
    co_settle();
    ck_assert_str_eq(co_trace, "abcA");
    co_queue_restart_all(&queue);
    ck_assert(co_queue_empty(&queue));
    co_settle();
    ck_assert_str_eq(co_trace, "abcABC");
}
END_TEST

static void coroutine_fn wait_twice(void *opaque)
{
    wait_in_queue(opaque);
    wait_in_queue(opaque);
}

static void coroutine_fn restart_all(void *opaque)
{
    co_queue_restart_all(&queue);
    co_note('!');
}

START_TEST(restart_all_wakes_those_who_wait_now_only)
{
    Actor a, b;

    start(&a, 'a', wait_twice);
    start(&b, 'b', wait_twice);
    co_start(restart_all, NULL);
    co_settle();
    ck_assert_str_eq(co_trace, "ab!AaBb");
    co_queue_restart_all(&queue);
    co_settle();
    ck_assert_str_eq(co_trace, "ab!AaBbAB");
}
END_TEST

static void coroutine_fn wait_with_mutex(void *opaque)
{
    Actor *actor = opaque;

    co_mutex_lock(&mutex);
    co_note(actor->name);
    co_queue_wait(&queue, &mutex);
    ck_assert(co_mutex_is_mine(&mutex));
    note_upper(actor);
    co_mutex_unlock(&mutex);
}

static void coroutine_fn wake_with_mutex(void *opaque)
{
    co_mutex_lock(&mutex);
    co_queue_restart_all(&queue);
    co_step_aside();
    co_note('!');
    co_mutex_unlock(&mutex);
}

START_TEST(waiting_gives_the_mutex_up_and_takes_it_again)
{
    Actor a, b;

    start(&a, 'a', wait_with_mutex);
    start(&b, 'b', wait_with_mutex);
    co_start(wake_with_mutex, NULL);
    co_settle();
    ck_assert_str_eq(co_trace, "ab!AB");
}
END_TEST

/*
 * A bounded buffer between threads: every put waits for room, every take for
 * something to take.
 */
typedef struct Buffer {
    Lock lock;
    CoQueue room;
    CoQueue filled;
    int nr;
    int64_t nr_taken;
    _Atomic int next_role;
} Buffer;

#define BUFFER_MAX 3

static void coroutine_fn put_or_take(void *opaque)
{
    Buffer *b = opaque;
    bool putter = atomic_fetch_add(&b->next_role, 1) % 2 == 0;

    for (int i = 0; i < ROUNDS; i++) {
        WITH_LOCK(&b->lock) {
            while (putter ? b->nr == BUFFER_MAX : b->nr == 0) {
                co_queue_wait_locked(putter ? &b->room : &b->filled, &b->lock);
            }
            b->nr += putter ? 1 : -1;
            ck_assert_int_ge(b->nr, 0);
            ck_assert_int_le(b->nr, BUFFER_MAX);
            b->nr_taken += !putter;
            co_queue_next(putter ? &b->filled : &b->room);
        }
    }
}

START_TEST(queues_under_a_short_lock_lose_no_wake_up_between_threads)
{
    Buffer b = { .nr = 0 };

    lock_init(&b.lock, LOCK_RANK_DRIVER);
    co_crowd_run(THREADS, EACH, put_or_take, &b);
    ck_assert_int_eq(b.nr, 0);
    ck_assert_int_eq(b.nr_taken, (int64_t)THREADS * EACH / 2 * ROUNDS);
    ck_assert(co_queue_empty(&b.room) && co_queue_empty(&b.filled));
}
END_TEST

/* --- CoRwlock ------------------------------------------------------- */

static void coroutine_fn hold_read(void *opaque)
{
    Actor *actor = opaque;

    co_rwlock_rdlock(&rwlock);
    co_note(actor->name);
    coroutine_yield();
    note_upper(actor);
    co_rwlock_unlock(&rwlock);
}

static void coroutine_fn hold_write(void *opaque)
{
    Actor *actor = opaque;

    co_rwlock_wrlock(&rwlock);
    co_note(actor->name);
    coroutine_yield();
    note_upper(actor);
    co_rwlock_unlock(&rwlock);
}

START_TEST(readers_share_and_a_writer_waits_for_all_of_them)
{
    Actor r, s, w;

    start(&r, 'r', hold_read);
    start(&s, 's', hold_read);
    start(&w, 'w', hold_write);
    ck_assert_str_eq(co_trace, "rs");
    aio_co_wake(r.co);
    ck_assert_str_eq(co_trace, "rsR");
    aio_co_wake(s.co);
    ck_assert_str_eq(co_trace, "rsRSw");
    aio_co_wake(w.co);
    ck_assert_str_eq(co_trace, "rsRSwW");
}
END_TEST

START_TEST(readers_behind_a_writer_wait_so_no_writer_starves)
{
    Actor r, w, s, t, x;

    start(&r, 'r', hold_read);
    start(&w, 'w', hold_write);
    start(&s, 's', hold_read);
    start(&t, 't', hold_read);
    start(&x, 'x', hold_write);
    ck_assert_str_eq(co_trace, "r");
    aio_co_wake(r.co);
    ck_assert_str_eq(co_trace, "rRw");
    aio_co_wake(w.co);
    ck_assert_str_eq(co_trace, "rRwWst");
    aio_co_wake(t.co);
    aio_co_wake(s.co);
    ck_assert_str_eq(co_trace, "rRwWstTSx");
    aio_co_wake(x.co);
    ck_assert_str_eq(co_trace, "rRwWstTSxX");
}
END_TEST

/* Reads, upgrades when entered, writes, ends when entered again. */
static void coroutine_fn read_then_upgrade(void *opaque)
{
    Actor *actor = opaque;

    co_rwlock_rdlock(&rwlock);
    co_note(actor->name);
    coroutine_yield();
    co_rwlock_upgrade(&rwlock);
    co_note('^');
    coroutine_yield();
    note_upper(actor);
    co_rwlock_unlock(&rwlock);
}

START_TEST(the_only_reader_upgrades_at_once)
{
    Actor a, r;

    start(&a, 'a', read_then_upgrade);
    aio_co_wake(a.co);
    start(&r, 'r', hold_read);
    ck_assert_str_eq(co_trace, "a^");
    aio_co_wake(a.co);
    ck_assert_str_eq(co_trace, "a^Ar");
    aio_co_wake(r.co);
}
END_TEST

START_TEST(two_readers_who_upgrade_do_not_wait_for_each_other)
{
    Actor a, b;

    start(&a, 'a', read_then_upgrade);
    start(&b, 'b', read_then_upgrade);
    aio_co_wake(a.co);
    ck_assert_str_eq(co_trace, "ab");
    aio_co_wake(b.co);
    ck_assert_str_eq(co_trace, "ab^");
    aio_co_wake(a.co);
    ck_assert_str_eq(co_trace, "ab^A^");
    aio_co_wake(b.co);
    ck_assert_str_eq(co_trace, "ab^A^B");
}
END_TEST

START_TEST(an_upgrade_queues_behind_a_writer_that_waits)
{
    Actor a, w;

    start(&a, 'a', read_then_upgrade);
    start(&w, 'w', hold_write);
    aio_co_wake(a.co);
    ck_assert_str_eq(co_trace, "aw");
    aio_co_wake(w.co);
    ck_assert_str_eq(co_trace, "awW^");
    aio_co_wake(a.co);
    ck_assert_str_eq(co_trace, "awW^A");
}
END_TEST

/* Writes, downgrades when entered, reads, ends when entered again. */
static void coroutine_fn write_then_downgrade(void *opaque)
{
    Actor *actor = opaque;

    co_rwlock_wrlock(&rwlock);
    co_note(actor->name);
    coroutine_yield();
    co_rwlock_downgrade(&rwlock);
    co_note('v');
    coroutine_yield();
    note_upper(actor);
    co_rwlock_unlock(&rwlock);
}

START_TEST(a_downgrade_lets_waiting_readers_in_but_no_writer)
{
    Actor a, r, w;

    start(&a, 'a', write_then_downgrade);
    start(&r, 'r', hold_read);
    start(&w, 'w', hold_write);
    aio_co_wake(a.co);
    ck_assert_str_eq(co_trace, "avr");
    aio_co_wake(a.co);
    ck_assert_str_eq(co_trace, "avrA");
    aio_co_wake(r.co);
    ck_assert_str_eq(co_trace, "avrARw");
    aio_co_wake(w.co);
}
END_TEST

/* Both halves are equal outside a write lock. */
typedef struct Pair {
    CoRwlock lock;
    int64_t left;
    int64_t right;
} Pair;

static coroutine_fn void write_pair(Pair *pair, bool pause)
{
    pair->left++;
    if (pause) {
        co_step_aside();
    }
    pair->right++;
    ck_assert_int_eq(pair->left, pair->right);
}

static void coroutine_fn read_and_write_pair(void *opaque)
{
    Pair *pair = opaque;

    for (int i = 0; i < ROUNDS; i++) {
        bool pause = i % 16 == 5;

        if (i % 4 == 0) {
            co_rwlock_wrlock(&pair->lock);
            write_pair(pair, pause);
            co_rwlock_downgrade(&pair->lock);
        } else {
            co_rwlock_rdlock(&pair->lock);
        }
        ck_assert_int_eq(pair->left, pair->right);
        if (pause) {
            co_step_aside();
            ck_assert_int_eq(pair->left, pair->right);
        }
        if (i % 4 == 1) {
            co_rwlock_upgrade(&pair->lock);
            write_pair(pair, pause);
        }
        co_rwlock_unlock(&pair->lock);
    }
}

START_TEST(a_rwlock_keeps_pairs_whole_between_threads)
{
    Pair pair = { .left = 0 };

    co_crowd_run(_i, EACH, read_and_write_pair, &pair);
    ck_assert_int_eq(pair.left, (int64_t)_i * EACH * (ROUNDS / 2));
    ck_assert_int_eq(pair.right, pair.left);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("co-lock");
    TCase *tcase = tcase_create("co-lock");

    tcase_add_checked_fixture(tcase, setup, co_fixture_teardown);
    tcase_set_timeout(tcase, 100);
    PROMISE(tcase, a_mutex_goes_to_the_longest_waiter);
    PROMISE(tcase, nobody_overtakes_a_waiter);
    PROMISE(tcase, trylock_takes_a_free_mutex_and_does_not_wait_for_a_held_one);
    PROMISE(tcase, a_zeroed_mutex_is_unlocked);
    PROMISE(tcase, a_queue_wakes_the_longest_waiter_first_and_later);
    PROMISE(tcase, restart_all_wakes_those_who_wait_now_only);
    PROMISE(tcase, waiting_gives_the_mutex_up_and_takes_it_again);
    PROMISE(tcase, queues_under_a_short_lock_lose_no_wake_up_between_threads);
    PROMISE(tcase, readers_share_and_a_writer_waits_for_all_of_them);
    PROMISE(tcase, readers_behind_a_writer_wait_so_no_writer_starves);
    PROMISE(tcase, the_only_reader_upgrades_at_once);
    PROMISE(tcase, two_readers_who_upgrade_do_not_wait_for_each_other);
    PROMISE(tcase, an_upgrade_queues_behind_a_writer_that_waits);
    PROMISE(tcase, a_downgrade_lets_waiting_readers_in_but_no_writer);
    tcase_add_loop_test(tcase, a_mutex_excludes_coroutines_of_several_threads,
                        1, THREADS + 1);
    tcase_add_loop_test(tcase, a_rwlock_keeps_pairs_whole_between_threads, 1,
                        THREADS + 1);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
