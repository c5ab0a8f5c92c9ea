/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * block-copy over a copy-before-write node, and the list of ranges below it.
 */
#include "cbw-fixture.h"

#include "block/copy/block-copy.h"
#include "block/copy/copy-int.h"
#include "block/copy/mem-budget.h"
#include "block/filters/copy-before-write.h"

#define WHOLE (DISK + CLUSTER)

static BlockCopyState *copy;
static unsigned finished;

static void count_finished(void *opaque)
{
    finished++;
}

static void start(const char *more)
{
    cbw_start(more);
    copy = cbw_block_copy(cbw);
    finished = 0;
}

/* As start(), with data in all of the target. */
static void start_soiled(void)
{
    g_autofree uint8_t *buf = g_malloc(WHOLE);
    BlockBackend *blk;

    cbw_disks();
    memset(buf, 't', WHOLE);
    blk = any_backend("soil", target, true);
    ck_assert_int_eq(blk_pwrite(blk, 0, WHOLE, buf, 0), 0);
    blk_unref(blk);
    mem_disk(target)->count[MEM_WRITE] = 0;
    cbw_insert("");
    copy = cbw_block_copy(cbw);
    finished = 0;
}

static AioContext *loop(void)
{
    return block_graph_aio_context(graph);
}

static BlockCopyCall *begin(BlockCopyHow how)
{
    how.bytes = how.bytes ? how.bytes : WHOLE;
    how.look = true;
    return block_copy_async(copy, &how, count_finished, NULL);
}

static int finish(BlockCopyCall *call, bool *ret_read_failed)
{
    int ret;

    while (!block_copy_call_finished(call)) {
        aio_poll(loop(), true);
    }
    ret = block_copy_call_status(call, ret_read_failed);
    block_copy_call_free(call);
    return ret;
}

/* The target has the old content of the range. */
static void expect_target(int64_t offset, int64_t bytes)
{
    const uint8_t *data = mem_disk(target)->data + offset;
    int64_t i = 0;

    while (i < bytes && data[i] == old_byte(offset + i)) {
        i++;
    }
    ck_assert_int_eq(i, bytes);
}

typedef struct Ask {
    int64_t offset;
    int64_t bytes;
} Ask;

static int coroutine_fn ask_entry(void *opaque)
{
    Ask *ask = opaque;

    return block_copy_reset_unallocated(copy, ask->offset, &ask->bytes);
}

/* 1: what the top layer does not have was forgotten; 0. */
static int ask_unallocated(int64_t offset, int64_t *ret_bytes)
{
    Ask ask = { .offset = offset };
    int ret = aio_co_run(loop(), ask_entry, &ask);

    ck_assert_int_ge(ret, 0);
    *ret_bytes = ask.bytes;
    return ret;
}

/* --- what is copied ------------------------------------------------------- */

START_TEST(all_is_copied_as_it_was)
{
    start("");
    guest_write(0, CLUSTER, 'X');
    ck_assert_int_eq(finish(begin((BlockCopyHow){ 0 }), NULL), 0);
    ck_assert_uint_eq(finished, 1);
    expect_target(0, DISK);
    ck_assert_int_eq(block_copy_progress(copy).remaining_bytes, 0);
    ck_assert_int_eq(block_copy_progress(copy).done_bytes, WHOLE);
    ck_assert_int_eq(block_copy_next_dirty(copy, 0), -1);
    cbw_stop();
}
END_TEST

START_TEST(a_range_is_copied_and_nothing_else)
{
    start("");
    ck_assert_int_eq(finish(begin((BlockCopyHow){
        .offset = 2 * CLUSTER, .bytes = CLUSTER }), NULL), 0);
    ck_assert_uint_eq(mem_disk(target)->count[MEM_WRITE], 1);
    expect_target(2 * CLUSTER, CLUSTER);
    ck_assert_int_eq(block_copy_next_dirty(copy, 2 * CLUSTER), 3 * CLUSTER);
    cbw_stop();
}
END_TEST

START_TEST(neighbours_are_joined_up_to_the_chunk)
{
    start_soiled();
    ck_assert_int_eq(finish(begin((BlockCopyHow){
        .max_chunk = 2 * CLUSTER }), NULL), 0);
    ck_assert_uint_eq(mem_disk(target)->count[MEM_WRITE], 4);
    ck_assert_int_eq(mem_disk(target)->last[MEM_WRITE].bytes, 2 * CLUSTER);
    ck_assert_uint_eq(mem_disk(target)->count[MEM_ZERO], 1);
    cbw_stop();
}
END_TEST

/* A guest's write would wait for all of the copy that it meets, and for the
 * locks that a long one holds. */
START_TEST(copies_are_short_while_guests_wait_for_some)
{
    start_soiled();
    ck_assert_int_eq(atomic_load(&copy->short_until), 0);
    guest_write(0, CLUSTER, 'X');
    ck_assert_int_gt(atomic_load(&copy->short_until), 0);
    atomic_store(&copy->short_until, INT64_MAX);    /* it does not end yet */
    mem_disk(target)->count[MEM_WRITE] = 0;
    ck_assert_int_eq(finish(begin((BlockCopyHow){ 0 }), NULL), 0);
    ck_assert_uint_eq(mem_disk(target)->count[MEM_WRITE], 4);
    expect_target(0, DISK);
    atomic_store(&copy->short_until, 1);            /* it is over */
    block_copy_set_bitmap(copy, NULL);
    mem_disk(target)->count[MEM_WRITE] = 0;
    ck_assert_int_eq(finish(begin((BlockCopyHow){ 0 }), NULL), 0);
    ck_assert_uint_eq(mem_disk(target)->count[MEM_WRITE], 1);
    cbw_stop();
}
END_TEST

START_TEST(what_needs_no_copy_is_not_copied)
{
    start("");
    block_copy_reset(copy, 0, 6 * CLUSTER);
    ck_assert_int_eq(block_copy_progress(copy).remaining_bytes,
                     WHOLE - 6 * CLUSTER);
    ck_assert_int_eq(finish(begin((BlockCopyHow){ .max_chunk = CLUSTER }),
                            NULL), 0);
    ck_assert_uint_eq(mem_disk(target)->count[MEM_WRITE], 2);
    expect_target(6 * CLUSTER, 2 * CLUSTER);
    cbw_stop();
}
END_TEST

START_TEST(data_that_are_zero_are_written_as_zeroes)
{
    start_soiled();
    guest_write(0, CLUSTER, 0);
    cbw_stop_early();
    cbw_insert("");
    copy = cbw_block_copy(cbw);
    mem_disk(target)->count[MEM_WRITE] = 0;
    ck_assert_int_eq(finish(begin((BlockCopyHow){
        .bytes = CLUSTER, .max_chunk = CLUSTER }), NULL), 0);
    ck_assert_uint_eq(mem_disk(target)->count[MEM_WRITE], 0);
    ck_assert_uint_eq(mem_disk(target)->count[MEM_ZERO], 1);
    cbw_stop();
}
END_TEST

START_TEST(zeroes_that_are_there_already_are_not_written)
{
    cbw_disks();
    guest_write(0, CLUSTER, 0);
    cbw_insert("");
    copy = cbw_block_copy(cbw);
    ck_assert_int_eq(finish(begin((BlockCopyHow){ 0 }), NULL), 0);
    ck_assert_uint_eq(mem_disk(target)->count[MEM_ZERO], 0);
    ck_assert_int_eq(block_copy_progress(copy).remaining_bytes, 0);
    cbw_stop();
}
END_TEST

START_TEST(the_source_is_asked_only_where_that_is_worth_it)
{
    start_soiled();
    guest_write(DISK, CLUSTER, 'X'); /* was never written: the data tell */
    ck_assert_uint_eq(mem_disk(target)->count[MEM_ZERO], 1);
    ck_assert_uint_eq(mem_disk(source)->count[MEM_READ], 1);
    ck_assert_int_eq(finish(begin((BlockCopyHow){ 0 }), NULL), 0);
    ck_assert_uint_eq(mem_disk(target)->count[MEM_ZERO], 1);
    expect_target(0, DISK);
    cbw_stop();
}
END_TEST

START_TEST(only_what_the_top_layer_has_if_asked)
{
    int64_t bytes;
    unsigned reset = 0;

    cbw_disks();
    cbw_insert("");
    copy = cbw_block_copy(cbw);
    block_copy_set_skip_unallocated(copy, true);
    ck_assert_int_eq(finish(begin((BlockCopyHow){ 0 }), NULL), 0);
    ck_assert_uint_eq(mem_disk(target)->count[MEM_ZERO], 0);
    expect_target(0, DISK);
    block_copy_set_bitmap(copy, NULL);
    for (int64_t at = 0; at < WHOLE; at += bytes) {
        reset += ask_unallocated(at, &bytes);
        ck_assert_int_gt(bytes, 0);
    }
    ck_assert_uint_eq(reset, 1);
    ck_assert_int_eq(block_copy_progress(copy).remaining_bytes, DISK);
    cbw_stop();
}
END_TEST

/* --- several at once ------------------------------------------------------ */

START_TEST(as_many_workers_as_asked_for)
{
    BlockCopyCall *call;

    start("");
    mem_disk(target)->hold[MEM_WRITE] = true;
    call = begin((BlockCopyHow){ .max_chunk = CLUSTER, .max_workers = 3 });
    settle();
    ck_assert_uint_eq(mem_disk(target)->held, 3);
    mem_disk(target)->hold[MEM_WRITE] = false;
    ck_assert_int_eq(finish(call, NULL), 0);
    expect_target(0, DISK);
    cbw_stop();
}
END_TEST

START_TEST(two_calls_write_no_cluster_twice)
{
    BlockCopyCall *a, *b;

    start("");
    mem_disk(target)->hold[MEM_WRITE] = true;
    a = begin((BlockCopyHow){ .max_chunk = CLUSTER, .max_workers = 2 });
    b = begin((BlockCopyHow){ .max_chunk = CLUSTER, .max_workers = 2 });
    settle();
    mem_disk(target)->hold[MEM_WRITE] = false;
    ck_assert_int_eq(finish(a, NULL), 0);
    ck_assert_int_eq(finish(b, NULL), 0);
    ck_assert_uint_eq(mem_disk(target)->count[MEM_WRITE], DISK / CLUSTER);
    expect_target(0, DISK);
    cbw_stop();
}
END_TEST

START_TEST(a_call_succeeds_only_when_copies_of_others_have)
{
    BlockCopyCall *a, *b;

    start("");
    mem_disk(target)->hold[MEM_WRITE] = true;
    a = begin((BlockCopyHow){ .bytes = CLUSTER });
    settle();
    b = begin((BlockCopyHow){ .bytes = CLUSTER });
    settle();
    ck_assert(!block_copy_call_finished(b));
    WITH_LOCK(&mem_disk(target)->lock) {
        mem_disk(target)->fail[MEM_WRITE] = EIO;
    }
    mem_disk(target)->hold[MEM_WRITE] = false;
    ck_assert_int_eq(finish(a, NULL), -EIO);
    ck_assert_int_eq(finish(b, NULL), 0); /* it has copied again */
    expect_target(0, CLUSTER);
    cbw_stop();
}
END_TEST

START_TEST(a_guests_write_overtakes_the_job)
{
    BlockCopyCall *call;

    start("");
    block_copy_set_speed(copy, 1);
    call = begin((BlockCopyHow){ .max_chunk = CLUSTER, .max_workers = 1 });
    settle();
    guest_write(7 * CLUSTER, 512, 'X');
    expect_target(7 * CLUSTER, CLUSTER);
    ck_assert(!block_copy_call_finished(call));
    block_copy_set_speed(copy, 0);
    ck_assert_int_eq(finish(call, NULL), 0);
    expect_target(0, DISK);
    cbw_stop();
}
END_TEST

/* --- failure, cancel ------------------------------------------------------ */

START_TEST(a_failure_says_which_side_and_can_be_repeated)
{
    BlockDriverState *side;
    bool read_failed;

    start("");
    side = _i ? source : target;
    WITH_LOCK(&mem_disk(side)->lock) {
        mem_disk(side)->fail[_i ? MEM_READ : MEM_WRITE] = EIO;
    }
    ck_assert_int_eq(finish(begin((BlockCopyHow){ .max_chunk = CLUSTER }),
                            &read_failed), -EIO);
    ck_assert(read_failed == (_i == 1));
    ck_assert_int_gt(block_copy_progress(copy).remaining_bytes, 0);
    ck_assert_int_eq(finish(begin((BlockCopyHow){ 0 }), &read_failed), 0);
    expect_target(0, DISK);
    cbw_stop();
}
END_TEST

START_TEST(a_cancelled_call_ends_and_keeps_what_is_left)
{
    BlockCopyCall *call;

    start("");
    block_copy_set_speed(copy, 1);
    call = begin((BlockCopyHow){ .max_chunk = CLUSTER, .max_workers = 1 });
    settle();
    block_copy_call_kick(call); /* no harm */
    block_copy_call_cancel(call);
    ck_assert_int_eq(finish(call, NULL), -ECANCELED);
    ck_assert_int_gt(block_copy_progress(copy).remaining_bytes, 0);
    block_copy_set_speed(copy, 0);
    ck_assert_int_eq(finish(begin((BlockCopyHow){ 0 }), NULL), 0);
    expect_target(0, DISK);
    cbw_stop();
}
END_TEST

START_TEST(when_old_content_was_lost_no_call_succeeds)
{
    start(",on-cbw-error=break-snapshot");
    WITH_LOCK(&mem_disk(target)->lock) {
        mem_disk(target)->fail[MEM_WRITE] = ENOSPC;
    }
    guest_write(0, 512, 'X');
    ck_assert_int_eq(finish(begin((BlockCopyHow){ 0 }), NULL), -ENOSPC);
    cbw_stop();
}
END_TEST

/* --- a state of our own --------------------------------------------------- */

/* Over the children of a filter, instead of the filter's. */
static void start_own(BlockCopyConfig config)
{
    cbw_start("");
    config.source = bdrv_filter_child(cbw);
    config.target = cbw_node(cbw)->target;
    copy = block_copy_state_new(&config, NULL);
    ck_assert_ptr_nonnull(copy);
}

static void stop_own(void)
{
    settle();
    block_copy_state_free(copy);
    cbw_stop();
}

START_TEST(what_has_been_copied_is_discarded_if_asked)
{
    start_own((BlockCopyConfig){ .discard_source = true });
    WITH_LOCK(&mem_disk(target)->lock) {
        mem_disk(target)->fail[MEM_WRITE] = EIO;
    }
    ck_assert_int_eq(finish(begin((BlockCopyHow){
        .bytes = CLUSTER }), NULL), -EIO);
    ck_assert_uint_eq(mem_disk(source)->count[MEM_DISCARD], 0);
    expect_byte(guest, 512, 512, old_byte(512)); /* it is the only copy */
    ck_assert_int_eq(finish(begin((BlockCopyHow){
        .bytes = 2 * CLUSTER }), NULL), 0);
    expect_target(0, 2 * CLUSTER);
    expect_byte(guest, 0, 2 * CLUSTER, 0);
    expect_byte(guest, 2 * CLUSTER, 512, old_byte(2 * CLUSTER));
    stop_own();
}
END_TEST

START_TEST(min_cluster_size_is_what_is_copied_at_once)
{
    start_own((BlockCopyConfig){ .min_cluster_bytes = 4 * CLUSTER });
    ck_assert_int_eq(block_copy_cluster_bytes(copy), 4 * CLUSTER);
    ck_assert_int_eq(finish(begin((BlockCopyHow){
        .bytes = 4 * CLUSTER, .max_chunk = CLUSTER }), NULL), 0);
    ck_assert_uint_eq(mem_disk(target)->count[MEM_WRITE], 1);
    ck_assert_int_eq(mem_disk(target)->last[MEM_WRITE].bytes, 4 * CLUSTER);
    stop_own();
}
END_TEST

/* mem disks have no copy_range. */
START_TEST(without_copy_range_memory_serves)
{
    start_own((BlockCopyConfig){ .use_copy_range = true });
    ck_assert_int_eq(finish(begin((BlockCopyHow){
        .bytes = 4 * CLUSTER }), NULL), 0);
    expect_target(0, 4 * CLUSTER);
    ck_assert_int_eq(finish(begin((BlockCopyHow){ 0 }), NULL), 0);
    expect_target(0, DISK);
    ck_assert_int_eq(block_copy_progress(copy).remaining_bytes, 0);
    stop_own();
}
END_TEST

/* A filter that refuses to copy, or says so at least. */
static unsigned ranges_asked;

static int coroutine_fn refuse_copy_range(BlockDriverState *bs,
                                          const BlockCopyRange *range)
{
    ranges_asked++;
    return -EIO;
}

static void register_refuser(void)
{
    static const BlockDriver driver = {
        .struct_size = sizeof(BlockDriver),
        .name = "refuser",
        .kind = BLOCK_DRIVER_FILTER,
        .options = filter_options,
        .open = pass_open,
        .copy_range_from = refuse_copy_range,
    };

    register_test_driver(&driver);
}

START_TEST(a_copy_range_that_failed_is_not_tried_again)
{
    BlockDriverState *refuser;

    start_own((BlockCopyConfig){ .use_copy_range = true });
    ck_assert_int_eq(bdrv_insert_node(source, opts("refuser"), &refuser, NULL),
                     0);
    ranges_asked = 0;
    ck_assert(atomic_load(&copy->use_copy_range));
    /* A few clusters are copied through memory in any case. */
    ck_assert_int_eq(finish(begin((BlockCopyHow){
        .bytes = CLUSTER }), NULL), 0);
    ck_assert_uint_eq(ranges_asked, 0);
    block_copy_set_bitmap(copy, NULL);
    ck_assert_int_eq(finish(begin((BlockCopyHow){ 0 }), NULL), 0);
    ck_assert_uint_eq(ranges_asked, 1);
    ck_assert(!atomic_load(&copy->use_copy_range));
    block_copy_set_bitmap(copy, NULL);
    ck_assert_int_eq(finish(begin((BlockCopyHow){ 0 }), NULL), 0);
    ck_assert_uint_eq(ranges_asked, 1);
    expect_target(0, DISK);
    ck_assert_int_eq(bdrv_drop_filter(refuser, NULL), 0);
    bdrv_unref(refuser);
    stop_own();
}
END_TEST

START_TEST(a_limit_holds_calls_back_but_not_those_that_ignore_it)
{
    BlockCopyCall *slow;

    start_own((BlockCopyConfig){ 0 });
    block_copy_set_speed(copy, CLUSTER);
    slow = begin((BlockCopyHow){ .max_chunk = CLUSTER });
    settle();
    ck_assert_uint_lt(mem_disk(target)->count[MEM_WRITE], 4);
    ck_assert_int_eq(finish(begin((BlockCopyHow){
        .offset = 4 * CLUSTER, .bytes = 4 * CLUSTER,
        .urgent = true }), NULL), 0);
    expect_target(4 * CLUSTER, 4 * CLUSTER);
    ck_assert(!block_copy_call_finished(slow));
    block_copy_set_speed(copy, 0);
    block_copy_call_kick(slow);
    ck_assert_int_eq(finish(slow, NULL), 0);
    expect_target(0, DISK);
    stop_own();
}
END_TEST

START_TEST(a_cancelled_call_does_not_count_on_copies_of_others)
{
    BlockCopyCall *a, *b;

    start("");
    mem_disk(target)->hold[MEM_WRITE] = true;
    a = begin((BlockCopyHow){ 0 });
    settle();
    /* Nothing is left for b but to wait for a, which may fail. */
    b = begin((BlockCopyHow){ 0 });
    block_copy_call_cancel(b);
    settle();
    fail_next(target, MEM_WRITE, EIO);
    mem_disk(target)->hold[MEM_WRITE] = false;
    ck_assert_int_eq(finish(b, NULL), -ECANCELED);
    ck_assert_int_eq(finish(a, NULL), -EIO);
    cbw_stop();
}
END_TEST

START_TEST(of_calls_that_overlap_one_is_cancelled_and_the_other_copies_all)
{
    BlockCopyCall *a, *b;

    start_own((BlockCopyConfig){ 0 });
    mem_disk(target)->hold[MEM_WRITE] = true;
    a = begin((BlockCopyHow){ .bytes = 6 * CLUSTER, .max_chunk = CLUSTER,
                              .max_workers = 2 });
    b = begin((BlockCopyHow){ .offset = 2 * CLUSTER, .bytes = 6 * CLUSTER,
                              .max_chunk = CLUSTER, .max_workers = 2 });
    settle();
    block_copy_call_cancel(a);
    settle();
    ck_assert(!block_copy_call_finished(a)); /* what is under way ends */
    mem_disk(target)->hold[MEM_WRITE] = false;
    ck_assert_int_eq(finish(b, NULL), 0);
    finish(a, NULL);
    expect_target(2 * CLUSTER, 6 * CLUSTER);
    stop_own();
}
END_TEST

/* --- memory --------------------------------------------------------------- */

typedef struct Taker {
    MemBudget *budget;
    int64_t bytes;
    bool has;
} Taker;

static void coroutine_fn take_entry(void *opaque)
{
    Taker *taker = opaque;

    mem_budget_take(taker->budget, taker->bytes);
    taker->has = true;
}

START_TEST(memory_goes_to_who_waits_longest)
{
    MemBudget budget;
    Taker first = { &budget, 10 }, large = { &budget, 8 };
    Taker small = { &budget, 2 }, too_much = { &budget, 20 };
    Taker *takers[] = { &first, &large, &small, &too_much };

    mem_budget_init(&budget, 10);
    for (unsigned i = 0; i < G_N_ELEMENTS(takers); i++) {
        coroutine_enter(coroutine_create(take_entry, takers[i]));
    }
    ck_assert(first.has && !large.has && !small.has && !too_much.has);
    mem_budget_give(&budget, 2);
    settle();
    ck_assert(!large.has && !small.has); /* not past the large one */
    mem_budget_give(&budget, 8);
    settle();
    ck_assert(large.has && small.has && !too_much.has);
    mem_budget_give(&budget, 8);
    settle();
    ck_assert(!too_much.has);
    mem_budget_give(&budget, 2);
    settle();
    ck_assert(too_much.has); /* when nobody else has any */
    mem_budget_give(&budget, 20);
}
END_TEST

/* --- clusters ------------------------------------------------------------- */

START_TEST(a_target_with_a_backing_file_says_its_cluster_size)
{
    cbw_disks();
    bdrv_unref(target);
    target = open_ok("mem,node-name=target,size=576k,backing.driver=mem,"
                     "backing.size=576k");
    open_fails("copy-before-write,file=source,target=target", ENOTSUP,
               "cluster size");
    cbw_close_disks();
}
END_TEST

/* --- ranges --------------------------------------------------------------- */

typedef struct Waiter {
    BlockReqList *list;
    Lock *lock;
    int64_t offset;
    bool all;
    unsigned ended;
} Waiter;

static void coroutine_fn wait_entry(void *opaque)
{
    Waiter *w = opaque;

    WITH_LOCK(w->lock) {
        if (w->all) {
            reqlist_wait_all(w->list, w->offset, 10, w->lock);
        } else {
            reqlist_wait_one(w->list, w->offset, 10, w->lock);
        }
        w->ended++;
    }
}

START_TEST(who_waits_for_a_range_waits_for_exactly_those_that_overlap)
{
    Lock lock = LOCK_INITIALIZER(LOCK_RANK_DRIVER);
    BlockReqList list = { 0 };
    BlockReq a, b, far;
    Waiter one = { &list, &lock, 5, false }, all = { &list, &lock, 5, true };
    Waiter none = { &list, &lock, 30, true };

    reqlist_init_req(&list, &a, 0, 10);
    reqlist_init_req(&list, &b, 10, 20);
    reqlist_init_req(&list, &far, 1000, 1);
    ck_assert_ptr_eq(reqlist_find_conflict(&list, 5, 10), &a);
    ck_assert_ptr_eq(reqlist_next_conflict(&a, 5, 10), &b);
    ck_assert_ptr_null(reqlist_next_conflict(&b, 5, 10));
    ck_assert_ptr_null(reqlist_find_conflict(&list, 30, 970));
    coroutine_enter(coroutine_create(wait_entry, &one));
    coroutine_enter(coroutine_create(wait_entry, &all));
    coroutine_enter(coroutine_create(wait_entry, &none));
    ck_assert_uint_eq(none.ended, 1);
    reqlist_shrink_req(&list, &a, 2);
    settle();
    ck_assert_uint_eq(one.ended, 1);
    ck_assert_uint_eq(all.ended, 0);
    reqlist_remove_req(&list, &b);
    settle();
    ck_assert_uint_eq(all.ended, 1);
    reqlist_remove_req(&list, &a);
    reqlist_remove_req(&list, &far);
    ck_assert(reqlist_is_empty(&list));
}
END_TEST

START_TEST(ten_thousand_ranges_are_told_apart)
{
    enum { RANGES = 10000 };
    g_autofree BlockReq *reqs = g_new(BlockReq, RANGES);
    BlockReqList list = { 0 };

    for (int i = 0; i < RANGES; i++) {
        reqlist_init_req(&list, &reqs[i], (int64_t)i * 100, 50);
    }
    for (int i = 0; i < RANGES; i++) {
        ck_assert_ptr_eq(reqlist_find_conflict(&list, i * 100 + 49, 51),
                         &reqs[i]);
        ck_assert_ptr_null(reqlist_find_conflict(&list, i * 100 + 50, 50));
    }
    for (int i = 0; i < RANGES; i++) {
        reqlist_remove_req(&list, &reqs[i * 7919 % RANGES]);
    }
    ck_assert(reqlist_is_empty(&list));
}
END_TEST

static void add_tests(TCase *tcase)
{
    PROMISE(tcase, all_is_copied_as_it_was);
    PROMISE(tcase, a_range_is_copied_and_nothing_else);
    PROMISE(tcase, neighbours_are_joined_up_to_the_chunk);
    PROMISE(tcase, copies_are_short_while_guests_wait_for_some);
    PROMISE(tcase, what_needs_no_copy_is_not_copied);
    PROMISE(tcase, data_that_are_zero_are_written_as_zeroes);
    PROMISE(tcase, zeroes_that_are_there_already_are_not_written);
    PROMISE(tcase, the_source_is_asked_only_where_that_is_worth_it);
    PROMISE(tcase, only_what_the_top_layer_has_if_asked);
    PROMISE(tcase, as_many_workers_as_asked_for);
    PROMISE(tcase, two_calls_write_no_cluster_twice);
    PROMISE(tcase, a_call_succeeds_only_when_copies_of_others_have);
    PROMISE(tcase, a_guests_write_overtakes_the_job);
    tcase_add_loop_test(tcase, a_failure_says_which_side_and_can_be_repeated,
                        0, 2);
    PROMISE(tcase, a_cancelled_call_ends_and_keeps_what_is_left);
    PROMISE(tcase, a_cancelled_call_does_not_count_on_copies_of_others);
    PROMISE(tcase, when_old_content_was_lost_no_call_succeeds);
    PROMISE(tcase, what_has_been_copied_is_discarded_if_asked);
    PROMISE(tcase, min_cluster_size_is_what_is_copied_at_once);
    PROMISE(tcase, without_copy_range_memory_serves);
    PROMISE(tcase, a_copy_range_that_failed_is_not_tried_again);
    PROMISE(tcase, a_limit_holds_calls_back_but_not_those_that_ignore_it);
    PROMISE(tcase,
            of_calls_that_overlap_one_is_cancelled_and_the_other_copies_all);
    PROMISE(tcase, memory_goes_to_who_waits_longest);
    PROMISE(tcase, a_target_with_a_backing_file_says_its_cluster_size);
    PROMISE(tcase,
            who_waits_for_a_range_waits_for_exactly_those_that_overlap);
    PROMISE(tcase, ten_thousand_ranges_are_told_apart);
}

int main(void)
{
    mem_register();
    register_refuser();
    return graph_suite("block-copy", add_tests);
}
