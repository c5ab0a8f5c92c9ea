/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory of the metadata cache of qcow2: taken slice by slice, given back.
 *
 * The file is numbers: each slice is filled with its own.
 */
#include "co-fixture.h"

#include <errno.h>

#include "block/formats/qcow2/cache-int.h"

#define SLICE 4096
#define SLICES 64

static Qcow2Cache *cache;
static TableAccount account;
static int64_t cost; /* of a slice */
static int fail_read;
static int fail_write;
static bool hold_reads, hold_writes;
static CoQueue held;
static unsigned rooms;
static unsigned come; /* slices: while room is made there is memory for them */
static uint64_t disk[SLICES];

static int coroutine_fn read_slice(void *opaque, int64_t offset, void *buf,
                                   int64_t bytes)
{
    uint64_t *words = buf;

    if (hold_reads) {
        co_queue_wait(&held, NULL);
    }
    for (size_t i = 0; i < SLICE / 8; i++) {
        words[i] = disk[offset / SLICE];
    }
    return fail_read;
}

static int coroutine_fn write_slice(void *opaque, int64_t offset,
                                    const void *buf, int64_t bytes)
{
    if (hold_writes) {
        co_queue_wait(&held, NULL);
    }
    if (fail_write == 0) {
        disk[offset / SLICE] = *(const uint64_t *)buf;
    }
    return fail_write;
}

static void set_memory(int64_t slices);

static int coroutine_fn make_room(void *opaque)
{
    rooms++;
    if (come > 0) {
        set_memory(come);
        qcow2_cache_has_room(cache, come - qcow2_cache_nr_dirty(cache) - 1);
    }
    qcow2_cache_freeze(cache);
    return qcow2_cache_write_frozen(cache);
}

/* Caches may have @slices together; a third as much on top is for tables. */
static void set_memory(int64_t slices)
{
    int64_t max = (slices * cost + 2) / 3 * 4;

    table_memory_set_max(max, max);
}

static void new_cache(bool ordered)
{
    Qcow2CacheConfig config = {
        .slice_bytes = SLICE, .nr_slices = SLICES, .ordered = ordered,
        .account = &account, .read = read_slice, .write = write_slice,
        .make_room = make_room,
    };

    qcow2_cache_free(cache);
    cost = qcow2_cache_full_bytes(&config) / SLICES;
    cache = qcow2_cache_new(&config);
    ck_assert_ptr_nonnull(cache);
}

static void setup(void)
{
    co_fixture_setup();
    co_queue_init(&held);
    for (unsigned i = 0; i < SLICES; i++) {
        disk[i] = i;
    }
    new_cache(true);
}

static void teardown(void)
{
    g_clear_pointer(&cache, qcow2_cache_free);
    co_fixture_teardown();
    table_memory_set_max(0, 0);
    ck_assert_int_eq(table_memory_of_node(&account), 0);
    ck_assert_int_eq(table_memory_of_process(), 0);
}

static void expect_held(size_t nr)
{
    ck_assert_uint_eq(cache->nr_held, nr);
    ck_assert_int_eq(table_memory_of_node(&account), nr * cost);
}

/* --- steps, run in coroutines --------------------------------------------- */

static void run_now(CoroutineEntry *entry, void *opaque)
{
    co_start(entry, opaque);
    co_settle();
}

/* Slices [@from, @end) are what they should be. */
typedef struct Range {
    unsigned from, end;
    int result;
    bool done;
} Range;

static void coroutine_fn read_range(void *opaque)
{
    Range *range = opaque;

    for (unsigned i = range->from; i < range->end; i++) {
        Qcow2Slice *s;

        range->result = qcow2_cache_get(cache, i * SLICE, &s);
        if (range->result < 0) {
            break;
        }
        ck_assert_uint_eq(*(const uint64_t *)qcow2_slice_data(s), disk[i]);
        qcow2_cache_put(cache, s);
    }
    range->done = true;
}

static void expect_range(unsigned from, unsigned end)
{
    Range range = { from, end, 0, false };

    run_now(read_range, &range);
    ck_assert(range.done);
    ck_assert_int_eq(range.result, 0);
}

static void coroutine_fn dirty_range(void *opaque)
{
    Range *range = opaque;

    for (unsigned i = range->from; i < range->end; i++) {
        uint64_t word = i + 1000;
        Qcow2Slice *s;

        ck_assert_int_eq(qcow2_cache_get(cache, i * SLICE, &s), 0);
        qcow2_cache_change(cache, s, 0, &word, sizeof(word));
        qcow2_cache_put(cache, s);
    }
}

/* --- tests ---------------------------------------------------------------- */

START_TEST(a_cache_grows_as_it_is_used)
{
    expect_held(QCOW2_CACHE_MIN_SLICES);
    expect_range(1, 5);
    expect_held(QCOW2_CACHE_MIN_SLICES);
    expect_range(1, 21);
    expect_held(20);
    expect_range(1, SLICES);
    expect_held(SLICES - 1);
}
END_TEST

START_TEST(a_cache_without_memory_makes_do_with_what_it_has)
{
    set_memory(12);
    for (int i = 0; i < 3; i++) {
        expect_range(1, SLICES);
        expect_held(12);
    }
    ck_assert(qcow2_cache_has_room(cache, 11));
    ck_assert(!qcow2_cache_has_room(cache, 12));
    set_memory(20);
    ck_assert(qcow2_cache_has_room(cache, 12));
    expect_held(13);
    expect_range(1, SLICES);
    expect_held(20);
}
END_TEST

START_TEST(a_few_slices_are_there_in_any_case)
{
    g_clear_pointer(&cache, qcow2_cache_free);
    table_memory_set_max(1, 1);
    new_cache(true);
    expect_range(1, SLICES);
    expect_held(QCOW2_CACHE_MIN_SLICES);
    ck_assert(qcow2_cache_has_room(cache, QCOW2_CACHE_MIN_SLICES - 1));
    new_cache(false);
    expect_range(1, SLICES);
    expect_held(QCOW2_CACHE_MIN_SLICES);
}
END_TEST

/* Tables came: with each slice that is loaded one is given up. */
START_TEST(a_cache_shrinks_when_memory_becomes_short)
{
    set_memory(40);
    expect_range(1, SLICES);
    expect_held(40);
    ck_assert(table_memory_take(&account, 13 * cost));
    ck_assert(table_memory_is_short(&account));
    expect_range(1, 11); /* were evicted */
    ck_assert_uint_eq(cache->nr_held, 30);
    expect_range(1, SLICES);
    expect_range(1, SLICES);
    ck_assert_uint_eq(cache->nr_held, 27);
    ck_assert(!table_memory_is_short(&account));
    table_memory_give(&account, 13 * cost);
    expect_range(1, SLICES);
    expect_held(40);
}
END_TEST

/* Dirty slices stay, and room for those that may become dirty. */
START_TEST(a_cache_does_not_give_what_changes_need)
{
    Range range = { 1, 17, 0, false };

    ck_assert(qcow2_cache_has_room(cache, 16));
    run_now(dirty_range, &range);
    cache->reserved = 0;
    ck_assert(qcow2_cache_has_room(cache, 4));
    expect_range(20, 60);
    expect_held(56);
    qcow2_cache_shrink(cache, INT64_MAX);
    expect_held(16 + 5);
    ck_assert(qcow2_cache_has_room(cache, 4));
    set_memory(1);
    ck_assert(qcow2_cache_has_room(cache, 4)); /* it is there */
    ck_assert(!qcow2_cache_has_room(cache, 5));
    expect_range(20, SLICES);
    ck_assert_uint_eq(qcow2_cache_nr_dirty(cache), 16);
    set_memory(SLICES);
    expect_range(20, SLICES);
}
END_TEST

/* All are dirty, and no memory for one more: they are written. */
START_TEST(a_reader_has_dirty_slices_written_when_nothing_else_is_left)
{
    Range range = { 1, QCOW2_CACHE_MIN_SLICES + 1, 0, false };

    set_memory(1);
    run_now(dirty_range, &range);
    ck_assert_uint_eq(qcow2_cache_nr_dirty(cache), QCOW2_CACHE_MIN_SLICES);
    expect_range(20, 30);
    ck_assert_uint_gt(rooms, 0);
    expect_range(1, SLICES);
    ck_assert_uint_eq(disk[1], 1001);
    expect_held(QCOW2_CACHE_MIN_SLICES);
}
END_TEST

/* ... and cannot be, but others found memory while that was tried. */
START_TEST(a_reader_uses_slices_that_came_while_no_room_could_be_made)
{
    Range range = { 1, QCOW2_CACHE_MIN_SLICES + 1, 0, false };

    set_memory(1);
    run_now(dirty_range, &range);
    fail_write = -EIO;
    come = 2 * QCOW2_CACHE_MIN_SLICES;
    expect_range(20, 30);
    ck_assert_uint_gt(rooms, 0);
    expect_held(come);
}
END_TEST

static void coroutine_fn write_frozen(void *opaque)
{
    ((Range *)opaque)->result = qcow2_cache_write_frozen(cache);
}

/* What is being written is dirty again if that fails: readers still have a
 * slice then. */
START_TEST(there_is_no_room_where_a_write_may_fail)
{
    Range first = { 1, 5, 0, false }, next = { 5, 8, 0, false };

    set_memory(1);
    ck_assert(qcow2_cache_has_room(cache, 4));
    run_now(dirty_range, &first);
    qcow2_cache_freeze(cache);
    hold_writes = true;
    run_now(write_frozen, &first);
    ck_assert(!qcow2_cache_has_room(cache, 4));
    ck_assert(qcow2_cache_has_room(cache, 3));
    run_now(dirty_range, &next);
    fail_write = -EIO;
    hold_writes = false;
    co_queue_restart_all(&held);
    co_settle();
    ck_assert_int_eq(first.result, -EIO);
    ck_assert_uint_eq(qcow2_cache_nr_dirty(cache), 7);
    expect_range(20, 30);
    expect_held(QCOW2_CACHE_MIN_SLICES);
}
END_TEST

/* More readers than slices: who comes late waits for a pin, not for memory. */
START_TEST(many_readers_share_few_slices)
{
    Range ranges[2 * QCOW2_CACHE_MIN_SLICES];

    set_memory(1);
    hold_reads = true;
    for (unsigned i = 0; i < G_N_ELEMENTS(ranges); i++) {
        ranges[i] = (Range){ i + 1, i + 2, 0, false };
        co_start(read_range, &ranges[i]);
    }
    co_settle();
    ck_assert(!ranges[0].done);
    hold_reads = false;
    co_queue_restart_all(&held);
    co_settle();
    for (unsigned i = 0; i < G_N_ELEMENTS(ranges); i++) {
        ck_assert(ranges[i].done);
        ck_assert_int_eq(ranges[i].result, 0);
    }
    expect_held(QCOW2_CACHE_MIN_SLICES);
}
END_TEST

START_TEST(a_failed_load_leaves_an_empty_slice)
{
    Range range = { 1, 2, 0, false };

    fail_read = -EIO;
    run_now(read_range, &range);
    ck_assert_int_eq(range.result, -EIO);
    fail_read = 0;
    expect_held(QCOW2_CACHE_MIN_SLICES);
    expect_range(1, 1 + QCOW2_CACHE_MIN_SLICES);
    expect_held(QCOW2_CACHE_MIN_SLICES);
}
END_TEST

START_TEST(what_is_forgotten_is_used_again_before_there_is_more)
{
    expect_range(1, 31);
    expect_held(30);
    qcow2_cache_reset(cache);
    expect_range(20, 50);
    expect_held(30);
    qcow2_cache_clean_unused(cache);
    qcow2_cache_clean_unused(cache);
    qcow2_cache_clean_unused(cache);
    expect_held(QCOW2_CACHE_MIN_SLICES);
    expect_range(1, SLICES);
    expect_held(SLICES - 1);
}
END_TEST

/* A slice that changes while it is written has its old bytes beside it. */
START_TEST(copies_of_frozen_slices_are_counted)
{
    Range range = { 1, 4, 0, false };

    ck_assert(qcow2_cache_has_room(cache, 4));
    run_now(dirty_range, &range);
    qcow2_cache_freeze(cache);
    run_now(dirty_range, &range);
    ck_assert_int_eq(table_memory_of_node(&account),
                     QCOW2_CACHE_MIN_SLICES * cost + 3 * SLICE);
    qcow2_cache_thaw(cache);
    expect_held(QCOW2_CACHE_MIN_SLICES);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("table-cache");
    TCase *tcase = tcase_create("table-cache");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    PROMISE(tcase, a_cache_grows_as_it_is_used);
    PROMISE(tcase, a_cache_without_memory_makes_do_with_what_it_has);
    PROMISE(tcase, a_few_slices_are_there_in_any_case);
    PROMISE(tcase, a_cache_shrinks_when_memory_becomes_short);
    PROMISE(tcase, a_cache_does_not_give_what_changes_need);
    PROMISE(tcase,
            a_reader_has_dirty_slices_written_when_nothing_else_is_left);
    PROMISE(tcase, a_reader_uses_slices_that_came_while_no_room_could_be_made);
    PROMISE(tcase, there_is_no_room_where_a_write_may_fail);
    PROMISE(tcase, many_readers_share_few_slices);
    PROMISE(tcase, a_failed_load_leaves_an_empty_slice);
    PROMISE(tcase, what_is_forgotten_is_used_again_before_there_is_more);
    PROMISE(tcase, copies_of_frozen_slices_are_counted);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
