/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The metadata cache of qcow2, over a file that is an array.
 *
 * Each slice of the file is filled with its number.
 */
#include "co-fixture.h"

#include "block/formats/qcow2/cache.h"

#include <errno.h>

#define SLICE 512
#define FILE_SLICES 64

typedef struct Disk {
    uint64_t words[FILE_SLICES][SLICE / 8];
    CoQueue held;          /* operations that are held */
    bool hold_reads, hold_writes;
    int fail_read, fail_write; /* errno of the next one */
    unsigned reads, writes, waiting;
    unsigned rooms;        /* calls of make_room */
} Disk;

static Disk disk;
static Qcow2Cache *cache;

static int coroutine_fn disk_read(void *opaque, int64_t offset, void *buf,
                                  int64_t bytes)
{
    disk.reads++;
    disk.waiting++;
    if (disk.hold_reads) {
        co_queue_wait(&disk.held, NULL);
    }
    disk.waiting--;
    if (disk.fail_read) {
        return -disk.fail_read;
    }
    memcpy(buf, disk.words[offset / SLICE], bytes);
    return 0;
}

static int coroutine_fn disk_write(void *opaque, int64_t offset,
                                   const void *buf, int64_t bytes)
{
    disk.writes++;
    if (disk.hold_writes) {
        co_queue_wait(&disk.held, NULL);
    }
    if (disk.fail_write) {
        return -disk.fail_write;
    }
    memcpy(disk.words[offset / SLICE], buf, bytes);
    return 0;
}

static int coroutine_fn make_room(void *opaque)
{
    disk.rooms++;
    qcow2_cache_freeze(cache);
    return qcow2_cache_write_frozen(cache);
}

static void new_cache(bool ordered, size_t nr)
{
    Qcow2CacheConfig config = {
        .slice_bytes = SLICE, .nr_slices = nr, .ordered = ordered,
        .read = disk_read, .write = disk_write,
        .make_room = make_room,
    };

    qcow2_cache_free(cache);
    cache = qcow2_cache_new(&config);
    ck_assert_ptr_nonnull(cache);
}

static void setup(void)
{
    co_fixture_setup();
    memset(&disk, 0, sizeof(disk));
    for (unsigned i = 0; i < FILE_SLICES; i++) {
        for (unsigned j = 0; j < SLICE / 8; j++) {
            disk.words[i][j] = i;
        }
    }
    new_cache(true, 8);
}

static void teardown(void)
{
    g_clear_pointer(&cache, qcow2_cache_free);
    co_fixture_teardown();
}

/* --- steps, run in a coroutine -------------------------------------------- */

typedef struct Step {
    unsigned slice;
    uint64_t value;
    int result;
    bool done;
} Step;

static void coroutine_fn get_entry(void *opaque)
{
    Step *step = opaque;
    Qcow2Slice *s;

    step->result = qcow2_cache_get(cache, step->slice * SLICE, &s);
    if (step->result == 0) {
        step->value = *(const uint64_t *)qcow2_slice_data(s);
        qcow2_cache_put(cache, s);
    }
    step->done = true;
}

/* Read the slice through the cache; its first word. */
static uint64_t value_of(unsigned slice)
{
    Step step = { .slice = slice };

    co_start(get_entry, &step);
    co_settle();
    ck_assert(step.done);
    ck_assert_int_eq(step.result, 0);
    return step.value;
}

static void coroutine_fn change_entry(void *opaque)
{
    Step *step = opaque;
    Qcow2Slice *s;

    step->result = qcow2_cache_get(cache, step->slice * SLICE, &s);
    if (step->result == 0) {
        qcow2_cache_change(cache, s, 0, &step->value, 8);
        qcow2_cache_put(cache, s);
    }
    step->done = true;
}

static void change(unsigned slice, uint64_t value)
{
    Step step = { .slice = slice, .value = value };

    co_start(change_entry, &step);
    co_settle();
    ck_assert(step.done);
    ck_assert_int_eq(step.result, 0);
}

static void coroutine_fn write_entry(void *opaque)
{
    Step *step = opaque;

    step->result = qcow2_cache_write_frozen(cache);
    step->done = true;
}

static int write_frozen(void)
{
    Step step = { 0 };

    co_start(write_entry, &step);
    co_settle();
    ck_assert(step.done);
    return step.result;
}

/* --- tests ---------------------------------------------------------------- */

START_TEST(a_slice_is_read_once)
{
    ck_assert_uint_eq(value_of(5), 5);
    ck_assert_uint_eq(value_of(5), 5);
    ck_assert_uint_eq(disk.reads, 1);
}
END_TEST

START_TEST(a_look_finds_what_is_there_and_reads_nothing)
{
    uint64_t words[2] = { 0 };

    ck_assert(!qcow2_cache_peek(cache, 5 * SLICE, 8, 16, words));
    value_of(5);
    ck_assert(qcow2_cache_peek(cache, 5 * SLICE, 8, 16, words));
    ck_assert_uint_eq(words[0], 5);
    ck_assert_uint_eq(words[1], 5);
    ck_assert_uint_eq(disk.reads, 1);
}
END_TEST

START_TEST(what_is_fetched_beforehand_is_there_and_stays_as_it_is)
{
    uint64_t word = 0;

    ck_assert(!qcow2_cache_prefetch(cache, 5 * SLICE, 8));
    ck_assert_uint_eq(disk.reads, 0);
    value_of(5);
    ck_assert(qcow2_cache_prefetch(cache, 5 * SLICE, 8));
    ck_assert(qcow2_cache_peek(cache, 5 * SLICE, 8, 8, &word));
    ck_assert_uint_eq(word, 5);
    ck_assert_uint_eq(disk.reads, 1);
}
END_TEST

START_TEST(slices_load_side_by_side_and_each_once)
{
    Step steps[4] = { { .slice = 3 }, { .slice = 4 }, { .slice = 3 },
                      { .slice = 5 } };
    uint64_t word;

    disk.hold_reads = true;
    for (unsigned i = 0; i < 4; i++) {
        co_start(get_entry, &steps[i]);
    }
    ck_assert_uint_eq(disk.waiting, 3);
    ck_assert(!qcow2_cache_peek(cache, 3 * SLICE, 0, 8, &word));
    disk.hold_reads = false;
    co_queue_restart_all(&disk.held);
    co_settle();
    for (unsigned i = 0; i < 4; i++) {
        ck_assert(steps[i].done && steps[i].result == 0);
        ck_assert_uint_eq(steps[i].value, steps[i].slice);
    }
    ck_assert_uint_eq(disk.reads, 3);
}
END_TEST

START_TEST(a_failed_load_is_told_to_all_who_wait_and_tried_anew_later)
{
    Step steps[3] = { { .slice = 3 }, { .slice = 3 }, { .slice = 3 } };

    disk.hold_reads = true;
    disk.fail_read = EIO;
    for (unsigned i = 0; i < 3; i++) {
        co_start(get_entry, &steps[i]);
    }
    disk.hold_reads = false;
    co_queue_restart_all(&disk.held);
    co_settle();
    for (unsigned i = 0; i < 3; i++) {
        ck_assert(steps[i].done);
        ck_assert_int_eq(steps[i].result, -EIO);
    }
    ck_assert_uint_eq(disk.reads, 1);
    disk.fail_read = 0;
    ck_assert_uint_eq(value_of(3), 3);
}
END_TEST

START_TEST(more_slices_than_places_are_all_read_right)
{
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 1; i < FILE_SLICES; i++) {
            ck_assert_uint_eq(value_of(i), i);
        }
    }
    ck_assert_uint_ge(disk.reads, FILE_SLICES - 1);
}
END_TEST

START_TEST(an_ordered_cache_writes_nothing_on_its_own)
{
    change(1, 100);
    for (unsigned i = 2; i < FILE_SLICES; i++) {
        value_of(i);
    }
    ck_assert_uint_eq(disk.writes, 0);
    ck_assert_uint_eq(disk.words[1][0], 1);
    ck_assert_uint_eq(value_of(1), 100);
    ck_assert_uint_eq(disk.rooms, 0);
}
END_TEST

START_TEST(another_cache_writes_a_dirty_slice_when_it_needs_the_place)
{
    new_cache(false, 8);
    for (unsigned i = 1; i < FILE_SLICES; i++) {
        change(i, 100 + i);
    }
    ck_assert_uint_ge(disk.writes, FILE_SLICES - 1 - 8);
    for (unsigned i = 1; i < FILE_SLICES; i++) {
        ck_assert_uint_eq(value_of(i), 100 + i);
    }
}
END_TEST

START_TEST(what_was_frozen_is_written_as_it_was)
{
    change(1, 100);
    qcow2_cache_freeze(cache);
    change(1, 101);
    change(2, 200);
    ck_assert_int_eq(write_frozen(), 0);
    ck_assert_uint_eq(disk.words[1][0], 100);
    ck_assert_uint_eq(disk.words[2][0], 2);
    ck_assert_uint_eq(qcow2_cache_nr_dirty(cache), 2);
    ck_assert_uint_eq(value_of(1), 101);
    qcow2_cache_freeze(cache);
    ck_assert_int_eq(write_frozen(), 0);
    ck_assert_uint_eq(disk.words[1][0], 101);
    ck_assert_uint_eq(disk.words[2][0], 200);
    ck_assert_uint_eq(qcow2_cache_nr_dirty(cache), 0);
}
END_TEST

START_TEST(what_changes_while_it_is_written_is_dirty_again)
{
    Step step = { 0 };

    change(1, 100);
    qcow2_cache_freeze(cache);
    disk.hold_writes = true;
    co_start(write_entry, &step);
    ck_assert_uint_eq(disk.writes, 1);
    change(1, 101);
    disk.hold_writes = false;
    co_queue_restart_all(&disk.held);
    co_settle();
    ck_assert(step.done);
    ck_assert_uint_eq(disk.words[1][0], 100);
    ck_assert_uint_eq(qcow2_cache_nr_dirty(cache), 1);
}
END_TEST

START_TEST(what_could_not_be_written_stays_dirty)
{
    change(1, 100);
    change(2, 200);
    qcow2_cache_freeze(cache);
    change(2, 201);
    disk.fail_write = ENOSPC;
    ck_assert_int_eq(write_frozen(), -ENOSPC);
    ck_assert_uint_eq(qcow2_cache_nr_dirty(cache), 2);
    disk.fail_write = 0;
    qcow2_cache_freeze(cache);
    ck_assert_int_eq(write_frozen(), 0);
    ck_assert_uint_eq(disk.words[1][0], 100);
    ck_assert_uint_eq(disk.words[2][0], 201);
}
END_TEST

START_TEST(what_is_forgotten_is_not_written)
{
    change(1, 100);
    change(2, 200);
    qcow2_cache_forget(cache, SLICE, SLICE);
    qcow2_cache_freeze(cache);
    ck_assert_int_eq(write_frozen(), 0);
    ck_assert_uint_eq(disk.words[1][0], 1);
    ck_assert_uint_eq(disk.words[2][0], 200);
    ck_assert_uint_eq(value_of(1), 1);
}
END_TEST

START_TEST(room_is_what_can_become_dirty)
{
    ck_assert(qcow2_cache_has_room(cache, 7));
    ck_assert(!qcow2_cache_has_room(cache, 8));
    change(1, 100);
    change(1, 101);
    ck_assert(qcow2_cache_has_room(cache, 6));
    ck_assert(!qcow2_cache_has_room(cache, 7));
    qcow2_cache_freeze(cache);
    change(1, 102);
    ck_assert(qcow2_cache_has_room(cache, 6));
    ck_assert_int_eq(write_frozen(), 0);
    ck_assert(qcow2_cache_has_room(cache, 6));
}
END_TEST

START_TEST(a_reader_that_finds_no_place_has_some_made)
{
    for (unsigned i = 1; i <= 8; i++) {
        change(i, 100 + i);
    }
    ck_assert_uint_eq(value_of(20), 20);
    ck_assert_uint_eq(disk.rooms, 1);
    ck_assert_uint_eq(disk.words[8][0], 108);
}
END_TEST

START_TEST(a_reader_waits_for_readers_when_nothing_can_be_written)
{
    Step readers[5] = { { .slice = 20 }, { .slice = 21 }, { .slice = 22 },
                        { .slice = 23 }, { .slice = 24 } };

    for (unsigned i = 1; i <= 5; i++) {
        change(i, 100 + i);
    }
    disk.fail_write = ENOSPC;
    disk.hold_reads = true;
    for (unsigned i = 0; i < 5; i++) {
        co_start(get_entry, &readers[i]);
    }
    co_settle();
    disk.hold_reads = false;
    co_queue_restart_all(&disk.held);
    co_settle();
    for (unsigned i = 0; i < 5; i++) {
        ck_assert(readers[i].done);
        ck_assert_int_eq(readers[i].result, 0);
        ck_assert_uint_eq(readers[i].value, readers[i].slice);
    }
}
END_TEST

START_TEST(slices_not_used_for_two_rounds_are_given_back)
{
    value_of(1);
    change(2, 200);
    qcow2_cache_clean_unused(cache);
    ck_assert_uint_eq(value_of(1), 1);
    for (unsigned i = 0; i < 3; i++) {
        qcow2_cache_clean_unused(cache);
    }
    ck_assert_uint_eq(disk.reads, 2);
    ck_assert_uint_eq(value_of(1), 1);
    ck_assert_uint_eq(disk.reads, 3);
    ck_assert_uint_eq(value_of(2), 200);
    ck_assert_uint_eq(disk.reads, 3);
}
END_TEST

START_TEST(a_reset_forgets_all)
{
    change(1, 100);
    qcow2_cache_freeze(cache);
    change(1, 101);
    value_of(2);
    qcow2_cache_reset(cache);
    ck_assert_uint_eq(qcow2_cache_nr_dirty(cache), 0);
    ck_assert_uint_eq(value_of(1), 1);
    ck_assert_uint_eq(value_of(2), 2);
    ck_assert_uint_eq(disk.reads, 4);
    ck_assert_int_eq(qcow2_cache_slice_bytes(cache), SLICE);
}
END_TEST

/* --- looking from other threads ------------------------------------------- */

#define PEEK_ROUNDS 20000

static _Atomic bool stop;

/* All words of what is seen are equal, and belong to that slice. */
static void *peek_thread(void *opaque)
{
    uint64_t words[8], seen = 0;

    for (unsigned i = 0; !atomic_load(&stop); i++) {
        unsigned slice = 1 + i % 12;

        if (!qcow2_cache_peek(cache, slice * SLICE, 64, sizeof(words),
                              words)) {
            continue;
        }
        seen++;
        for (unsigned j = 0; j < 8; j++) {
            g_assert(words[j] == words[0]);
        }
        g_assert(words[0] % 100 == slice);
    }
    return (void *)(uintptr_t)seen;
}

static void coroutine_fn churn_entry(void *opaque)
{
    Step *step = opaque;

    for (unsigned i = 0; i < PEEK_ROUNDS; i++) {
        unsigned slice = 1 + (i * 7) % 12;
        uint64_t words[SLICE / 8];
        Qcow2Slice *s;

        g_assert(qcow2_cache_get(cache, slice * SLICE, &s) == 0);
        for (unsigned j = 0; j < SLICE / 8; j++) {
            words[j] = (i % 1000) * 100 + slice;
        }
        qcow2_cache_change(cache, s, 0, words, sizeof(words));
        qcow2_cache_put(cache, s);
    }
    step->done = true;
}

START_TEST(a_look_from_another_thread_sees_one_moment)
{
    GThread *threads[2];
    Step step = { 0 };
    uintptr_t seen = 0;

    new_cache(false, 8);
    atomic_store(&stop, false);
    for (unsigned i = 0; i < 2; i++) {
        threads[i] = g_thread_new("peek", peek_thread, NULL);
    }
    co_start(churn_entry, &step);
    co_settle();
    ck_assert(step.done);
    for (unsigned i = 0; i < 100; i++) {
        g_thread_yield();
    }
    atomic_store(&stop, true);
    for (unsigned i = 0; i < 2; i++) {
        seen += (uintptr_t)g_thread_join(threads[i]);
    }
    ck_assert_uint_gt(seen, 0);
}
END_TEST

/* --- the cleaner beside all others ---------------------------------------- */

/* Whole pages, so that the system takes back what is given back. */
#define PAGE 4096
#define PAGES (FILE_SLICES * SLICE / PAGE)

static void *clean_thread(void *opaque)
{
    while (!atomic_load(&stop)) {
        for (unsigned i = 0; i < 3; i++) {
            qcow2_cache_clean_unused(cache);
        }
        g_thread_yield();
    }
    return NULL;
}

/* Every word of page i is i, or i more than a multiple of 100.  Each page is
 * left alone while the others are looked at, so that it falls out of use. */
static void *peek_pages_thread(void *opaque)
{
    for (unsigned i = 0; !atomic_load(&stop); i++) {
        unsigned page = i / 128 % PAGES;
        uint64_t words[8];

        if (!qcow2_cache_peek(cache, page * PAGE, PAGE / 2, sizeof(words),
                              words)) {
            continue;
        }
        for (unsigned j = 0; j < 8; j++) {
            g_assert(words[j] == words[0]);
        }
        g_assert(words[0] % 100 == page);
    }
    return NULL;
}

/* What was changed last is there, in the cache or written and read anew. */
static void coroutine_fn change_pages_entry(void *opaque)
{
    static uint64_t words[PAGE / 8];
    uint64_t last[PAGES] = { 0 };
    Step *step = opaque;

    /* All pages fit: only the cleaner makes reading them again necessary. */
    for (unsigned i = 0; i < PEEK_ROUNDS / 10 || disk.reads < 4 * PAGES; i++) {
        unsigned page = 1 + i * 3 % (PAGES - 1);
        const uint64_t *data;
        Qcow2Slice *s;

        g_assert(qcow2_cache_get(cache, page * PAGE, &s) == 0);
        data = qcow2_slice_data(s);
        g_assert(i < PAGES || data[PAGE / 16] == last[page]);
        last[page] = (i % 1000) * 100 + page;
        for (unsigned j = 0; j < PAGE / 8; j++) {
            words[j] = last[page];
        }
        qcow2_cache_change(cache, s, 0, words, PAGE);
        qcow2_cache_put(cache, s);
        if (i % 3 == 0) {
            qcow2_cache_freeze(cache);
            g_assert(qcow2_cache_write_frozen(cache) == 0);
            g_thread_yield();
        }
    }
    step->done = true;
}

static void new_cache_of_pages(void)
{
    Qcow2CacheConfig config = {
        .slice_bytes = PAGE, .nr_slices = QCOW2_CACHE_MIN_SLICES,
        .ordered = true, .read = disk_read,
        .write = disk_write, .make_room = make_room,
    };

    for (unsigned i = 0; i < FILE_SLICES; i++) {
        for (unsigned j = 0; j < SLICE / 8; j++) {
            disk.words[i][j] = i * SLICE / PAGE;
        }
    }
    g_clear_pointer(&cache, qcow2_cache_free);
    cache = qcow2_cache_new(&config);
    ck_assert_ptr_nonnull(cache);
}

START_TEST(R59_the_cleaner_takes_from_nobody_what_he_uses)
{
    GThread *threads[3];
    Step step = { 0 };

    new_cache_of_pages();
    atomic_store(&stop, false);
    threads[0] = g_thread_new("clean", clean_thread, NULL);
    threads[1] = g_thread_new("peek", peek_pages_thread, NULL);
    threads[2] = g_thread_new("peek", peek_pages_thread, NULL);
    co_start(change_pages_entry, &step);
    co_settle();
    ck_assert(step.done);
    atomic_store(&stop, true);
    for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++) {
        g_thread_join(threads[i]);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("qcow2-cache");
    TCase *tc = tcase_create("cache");

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    PROMISE(tc, a_slice_is_read_once);
    PROMISE(tc, a_look_finds_what_is_there_and_reads_nothing);
    PROMISE(tc, what_is_fetched_beforehand_is_there_and_stays_as_it_is);
    PROMISE(tc, slices_load_side_by_side_and_each_once);
    PROMISE(tc, a_failed_load_is_told_to_all_who_wait_and_tried_anew_later);
    PROMISE(tc, more_slices_than_places_are_all_read_right);
    PROMISE(tc, an_ordered_cache_writes_nothing_on_its_own);
    PROMISE(tc, another_cache_writes_a_dirty_slice_when_it_needs_the_place);
    PROMISE(tc, what_was_frozen_is_written_as_it_was);
    PROMISE(tc, what_changes_while_it_is_written_is_dirty_again);
    PROMISE(tc, what_could_not_be_written_stays_dirty);
    PROMISE(tc, what_is_forgotten_is_not_written);
    PROMISE(tc, room_is_what_can_become_dirty);
    PROMISE(tc, a_reader_that_finds_no_place_has_some_made);
    PROMISE(tc, a_reader_waits_for_readers_when_nothing_can_be_written);
    PROMISE(tc, slices_not_used_for_two_rounds_are_given_back);
    PROMISE(tc, a_reset_forgets_all);
    PROMISE(tc, a_look_from_another_thread_sees_one_moment);
    PROMISE(tc, R59_the_cleaner_takes_from_nobody_what_he_uses);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
