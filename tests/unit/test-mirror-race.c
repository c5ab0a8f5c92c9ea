/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The mirror job: guests, verbs, drains and errors at each step of it.
 */
#include "mirror-fixture.h"

#include "faulty-fixture.h"

#include "block/graph/graph-int.h"

static const char *const modes[] = { ",copy-mode=background",
                                     ",copy-mode=write-blocking" };

/* How a ready mirror is brought to its end. */
typedef enum Ending {
    WITH_SWITCH,
    WITH_COPY,
    BY_FORCE,
    ENDINGS,
} Ending;

static void ask_for(BlockJob *job, Ending ending)
{
    int ret = ending == WITH_SWITCH
                  ? block_job_complete(job, NULL)
                  : block_job_cancel(job, ending == BY_FORCE, NULL);

    ck_assert_int_eq(ret, 0);
}

/* The end that was asked for, with the reference dropped. */
static void expect_end(BlockJob *job, Ending ending)
{
    ck_assert_int_eq(block_job_wait(job, NULL),
                     ending == BY_FORCE ? -ECANCELED : 0);
    block_job_unref(job);
    ck_assert_ptr_eq(bdrv_skip_filters(blk_bs(guest)),
                     ending == WITH_SWITCH ? target : source);
}

static bool is_over(BlockJob *job)
{
    BlockJobInfo info;

    block_job_query(job, &info);
    return info.status >= BLOCK_JOB_CONCLUDED;
}

/* R93, R96: one more after the filter has gone, too. */
START_TEST(what_guests_write_at_any_turn_of_the_end_is_where_they_are_then)
{
    bool over = false;

    for (int turns = 0; !over; turns++) {
        Flying before, then;
        BlockJob *job;

        disks();
        job = ready_mirror(modes[_i % 2]);
        fly(&before, CLUSTER, 'b');
        ask_for(job, _i / 2);
        turn(turns);
        over = is_over(job);
        fly(&then, CLUSTER + 512 * (turns % 64), 't');
        expect_end(job, _i / 2);
        job_settle();
        ck_assert(before.ended && before.ret == 0);
        ck_assert(then.ended && then.ret == 0);
        job_expect(blk_bs(guest), CLUSTER + 512 * (turns % 64), CLUSTER, 't');
        job_expect(blk_bs(guest), CLUSTER, 512 * (turns % 64), 'b');
        job_expect(blk_bs(guest), 4 * CLUSTER, 4 * CLUSTER, 'a');
        expect_gone();
        no_disks();
        ck_assert_int_lt(turns, 2000);
    }
}
END_TEST

typedef struct StartCall {
    BlockJob *job;
    const char *more;
    bool over;
} StartCall;

static void coroutine_fn start_entry(void *opaque)
{
    StartCall *c = opaque;
    g_autofree char *text = g_strdup_printf(MIRROR "%s", c->more);

    c->job = block_co_job_start(graph, BLOCK_JOB_MIRROR,
                                block_options_parse_keyval(text, NULL, NULL),
                                NULL);
    c->over = true;
}

/* R96 */
START_TEST(what_guests_write_at_any_turn_of_the_start_is_copied)
{
    bool over = false;

    for (int turns = 0; !over; turns++) {
        StartCall c = { .more = modes[_i] };
        Flying before, then;

        disks();
        fly(&before, CLUSTER, 'b');
        aio_co_schedule(block_graph_aio_context(graph),
                        coroutine_create(start_entry, &c));
        turn(turns);
        over = c.over && turns > 20;
        fly(&then, 3 * CLUSTER, 't');
        while (!c.over) {
            turn(1);
        }
        job_reach(c.job, BLOCK_JOB_READY);
        end_with_copy(c.job);
        ck_assert(before.ended && then.ended);
        job_expect(target, CLUSTER, CLUSTER, 'b');
        job_expect(target, 3 * CLUSTER, CLUSTER, 't');
        expect_same();
        no_disks();
        ck_assert_int_lt(turns, 2000);
    }
}
END_TEST

/* R100 */
START_TEST(a_write_in_flight_when_a_ready_mirror_is_cancelled_is_in_the_copy)
{
    BlockJob *job;
    Flying f;

    disks();
    job = ready_mirror(modes[_i]);
    hold(source, MEM_WRITE, true);
    fly(&f, 2 * CLUSTER, 'f');
    job_settle();
    ck_assert_int_eq(block_job_cancel(job, false, NULL), 0);
    job_settle();
    ck_assert(!f.ended && !is_over(job));
    hold(source, MEM_WRITE, false);
    job_end_ok(job);
    ck_assert(f.ended && f.ret == 0);
    job_expect(target, 2 * CLUSTER, CLUSTER, 'f');
    expect_same();
    no_disks();
}
END_TEST

static void discard_ended(void *opaque, int ret)
{
    *(bool *)opaque = true;
}

/* R99 */
START_TEST(what_a_discard_does_after_a_copy_is_copied_again)
{
    bool ended = false;
    BlockJob *job;

    disks();
    job = ready_mirror(modes[_i]);
    hold(source, MEM_DISCARD, true);
    blk_aio_pdiscard(guest, CLUSTER, 2 * CLUSTER, discard_ended, &ended);
    job_settle();
    job_expect(target, CLUSTER, 2 * CLUSTER, 'a');
    hold(source, MEM_DISCARD, false);
    while (!ended) {
        turn(1);
    }
    end_with_copy(job);
    expect_same();
    no_disks();
}
END_TEST

/* R95 */
START_TEST(overlapping_writes_on_both_sides_end_and_leave_no_difference)
{
    Flying f[12];
    BlockJob *job;

    disks();
    job = ready_mirror(",copy-mode=write-blocking,max-workers=1,buf-size=64k,"
                       "granularity=32k");
    hold(target, MEM_WRITE, true);
    for (int i = 0; i < 12; i++) {
        fly(&f[i], i * 1000 * (1 + i % 3), 'b' + i);
        turn(i % 3);
    }
    job_settle();
    hold(target, MEM_WRITE, false);
    end_with_copy(job);
    for (int i = 0; i < 12; i++) {
        ck_assert(f[i].ended && f[i].ret == 0);
    }
    expect_same();
    no_disks();
}
END_TEST

START_TEST(a_copy_does_not_undo_what_a_guest_writes_meanwhile)
{
    BlockJob *job;
    Flying f;

    disks();
    hold(target, MEM_WRITE, true);
    job = job_ok(BLOCK_JOB_MIRROR, MIRROR ",max-workers=2,granularity=64k,"
                 "copy-mode=write-blocking,buf-size=128k");
    job_settle(); /* copies have read, and wait */
    for (int i = 0; i < 8; i++) {
        fly(&f, i * CLUSTER, 'w');
        job_settle();
        hold(target, MEM_WRITE, false);
        while (!f.ended) {
            turn(1);
        }
        hold(target, MEM_WRITE, true);
    }
    hold(target, MEM_WRITE, false);
    job_reach(job, BLOCK_JOB_READY);
    complete_ok(job);
    job_expect(target, 0, DISK, 'w');
    no_disks();
}
END_TEST

/* --- verbs ---------------------------------------------------------------- */

START_TEST(a_mirror_can_be_cancelled_at_any_turn_of_the_loop)
{
    bool ready = false;

    disks();
    for (int turns = 0; !ready; turns++) {
        BlockJob *job = job_ok(BLOCK_JOB_MIRROR, MIRROR ",granularity=64k,"
                               "buf-size=64k");
        BlockJobInfo info;

        turn(turns);
        block_job_query(job, &info);
        ready = info.status == BLOCK_JOB_READY;
        ck_assert_int_eq(block_job_cancel(job, _i, NULL), 0);
        block_job_wait(job, NULL);
        block_job_unref(job);
        expect_gone();
        job_fill(guest, 0, 512, 'a');
    }
    no_disks();
}
END_TEST

/* R101 */
START_TEST(a_drained_section_waits_for_copies_and_holds_the_next)
{
    BlockJob *job;
    unsigned count;

    disks();
    job = job_ok(BLOCK_JOB_MIRROR, MIRROR ",granularity=64k,buf-size=64k");
    turn(_i);
    bdrv_drained_begin(_i % 2 ? source : target);
    count = mem_total(mem_disk(target));
    job_settle();
    ck_assert_uint_eq(mem_total(mem_disk(target)), count);
    bdrv_drained_end(_i % 2 ? source : target);
    job_reach(job, BLOCK_JOB_READY);
    complete_ok(job);
    job_expect(target, 0, DISK, 'a');
    no_disks();
}
END_TEST

START_TEST(a_drained_section_at_any_turn_of_the_end_holds_it)
{
    bool over = false;

    for (int turns = 0; !over; turns++) {
        BlockJob *job;

        disks();
        job = ready_mirror("");
        job_fill(guest, 0, CLUSTER, 'b');
        ask_for(job, _i);
        turn(turns);
        over = is_over(job);
        bdrv_drained_begin(source);
        job_settle();
        bdrv_drained_end(source);
        expect_end(job, _i);
        job_expect(blk_bs(guest), 0, CLUSTER, 'b');
        expect_gone();
        no_disks();
    }
}
END_TEST

START_TEST(a_paused_mirror_copies_nothing)
{
    BlockJob *job;
    unsigned count;

    disks();
    job = ready_mirror("");
    ck_assert_int_eq(block_job_pause(job, NULL), 0);
    job_reach(job, BLOCK_JOB_STANDBY);
    job_fill(guest, 0, CLUSTER, 'b');
    count = mem_total(mem_disk(target));
    job_settle();
    ck_assert_uint_eq(mem_total(mem_disk(target)), count);
    ck_assert_int_eq(block_job_complete(job, NULL), -EPERM);
    ck_assert_int_eq(block_job_resume(job, NULL), 0);
    job_reach(job, BLOCK_JOB_READY);
    complete_ok(job);
    job_expect(target, 0, CLUSTER, 'b');
    no_disks();
}
END_TEST

START_TEST(a_mirror_that_is_completed_may_be_cancelled_until_it_has_ended)
{
    BlockJob *job;

    disks();
    job = ready_mirror("");
    hold(target, MEM_FLUSH, true);
    ask_for(job, WITH_SWITCH);
    ck_assert_int_eq(block_job_cancel(job, false, NULL), 0);
    ck_assert_int_eq(block_job_complete(job, NULL), -EBUSY);
    hold(target, MEM_FLUSH, false);
    expect_end(job, WITH_COPY);
    expect_same();
    no_disks();
}
END_TEST

START_TEST(a_pending_mirror_follows_guests_until_it_is_finalized)
{
    BlockJob *job;

    disks();
    job = ready_mirror(",auto-finalize=off");
    ask_for(job, _i == BY_FORCE ? WITH_SWITCH : _i);
    job_reach(job, BLOCK_JOB_PENDING);
    job_fill(guest, 0, CLUSTER, 'p');
    ck_assert_ptr_eq(bdrv_skip_filters(blk_bs(guest)), source);
    if (_i == BY_FORCE) {
        ck_assert_int_eq(block_job_cancel(job, true, NULL), 0);
    } else {
        ck_assert_int_eq(block_job_finalize(job, NULL), 0);
    }
    expect_end(job, _i);
    job_expect(blk_bs(guest), 0, CLUSTER, 'p');
    job_expect(target, 0, CLUSTER, 'p');
    expect_gone();
    no_disks();
}
END_TEST

START_TEST(a_target_that_hangs_does_not_keep_a_mirror_from_ending)
{
    BlockJob *job;
    Flying f;

    disks();
    hold(target, MEM_WRITE, true);
    job = job_ok(BLOCK_JOB_MIRROR, MIRROR);
    job_settle();
    ck_assert_int_eq(block_job_cancel(job, true, NULL), 0);
    job_end_fails(job, ECANCELED, "cancelled");
    ck_assert_uint_eq(block_graph_nr_nodes(graph), 3);
    fly(&f, 0, 'f');
    job_settle();
    ck_assert(f.ended && f.ret == 0);
    hold(target, MEM_WRITE, false);
    expect_gone();
    no_disks();
}
END_TEST

START_TEST(a_target_that_hangs_at_the_end_does_not_keep_a_mirror_from_ending)
{
    BlockJob *job;
    Flying f;

    disks();
    job = ready_mirror(_i ? ",auto-finalize=off" : "");
    if (_i) {
        /* In the last step: what could not be written is copied again. */
        ask_for(job, WITH_SWITCH);
        job_reach(job, BLOCK_JOB_PENDING);
        fail_writes(target, EIO);
        job_fill(guest, 0, CLUSTER, 'b');
        fail_writes(target, 0);
        hold(target, MEM_WRITE, true);
        ck_assert_int_eq(block_job_finalize(job, NULL), 0);
    } else {
        hold(target, MEM_FLUSH, true);
        ask_for(job, WITH_SWITCH);
    }
    job_settle();
    ck_assert(!is_over(job));
    ck_assert_int_eq(block_job_cancel(job, true, NULL), 0);
    fly(&f, 2 * CLUSTER, 'f');
    ck_assert_int_eq(block_job_wait(job, NULL), -ECANCELED);
    block_job_unref(job);
    ck_assert(f.ended && f.ret == 0);
    hold(target, MEM_WRITE, false);
    hold(target, MEM_FLUSH, false);
    expect_gone();
    ck_assert_ptr_eq(blk_bs(guest), source);
    no_disks();
}
END_TEST

/* A guest's write hangs at the target, or a reader's at what hangs there, when
 * the job takes effect.  Others need not wait for it any more when the job is
 * given up. */
START_TEST(guests_do_not_wait_for_a_target_that_was_given_up_at_the_end)
{
    BlockBackend *reader;
    BlockIOVec1 iov;
    uint8_t byte[512];
    Flying f[2], r = { .ended = false };
    BlockJob *job;

    disks();
    reader = backend_ok("reader", target, BLK_PERM_CONSISTENT_READ,
                        BLK_PERM_ALL);
    job = ready_mirror(",auto-finalize=off");
    ask_for(job, WITH_SWITCH);
    job_reach(job, BLOCK_JOB_PENDING);
    hold(target, _i ? MEM_READ : MEM_WRITE, true);
    if (_i) {
        blk_aio_preadv(reader, 0, block_iov_buf(&iov, byte, sizeof(byte)), 0,
                       flying_ended, &r);
    } else {
        fly(&f[0], 0, 'f');
    }
    job_settle();
    ck_assert_int_eq(block_job_finalize(job, NULL), 0);
    job_settle();
    fly(&f[1], CLUSTER, 'g');
    job_settle();
    ck_assert(!f[1].ended);
    ck_assert_int_eq(block_job_cancel(job, true, NULL), 0);
    ck_assert_int_eq(block_job_wait(job, NULL), -ECANCELED);
    block_job_unref(job);
    job_settle();
    ck_assert(f[1].ended && f[1].ret == 0);
    ck_assert(_i ? !r.ended : !f[0].ended);
    hold(target, _i ? MEM_READ : MEM_WRITE, false);
    while (_i ? !r.ended : !f[0].ended) {
        aio_poll(block_graph_aio_context(graph), true);
    }
    ck_assert_int_eq(_i ? r.ret : f[0].ret, 0);
    expect_gone();
    ck_assert_ptr_eq(blk_bs(guest), source);
    blk_unref(reader);
    no_disks();
}
END_TEST

START_TEST(a_reader_of_the_copy_that_hangs_holds_up_nobody)
{
    BlockBackend *reader;
    BlockIOVec1 iov;
    uint8_t byte[512];
    Flying r = { .ended = false };
    BlockJob *job;

    disks();
    reader = backend_ok("reader", target, BLK_PERM_CONSISTENT_READ,
                        BLK_PERM_ALL);
    job = ready_mirror("");
    hold(target, MEM_READ, true);
    blk_aio_preadv(reader, 0, block_iov_buf(&iov, byte, sizeof(byte)), 0,
                   flying_ended, &r);
    end_with_copy(job);
    ck_assert(!r.ended);
    hold(target, MEM_READ, false);
    while (!r.ended) {
        aio_poll(block_graph_aio_context(graph), true);
    }
    blk_unref(reader);
    expect_gone();
    no_disks();
}
END_TEST

/* A backup above holds its edge to the mirror's filter: any end waits for that,
 * and can be cancelled meanwhile. */
START_TEST(an_end_waits_for_who_holds_the_edge_above)
{
    bool cancelled = _i % 2;
    Ending ending = _i / 2;
    BlockDriverState *other;
    BlockJob *job, *backup;

    disks();
    other = open_ok("mem,node-name=other,size=512k");
    job = ready_mirror(",filter-node-name=mirror");
    backup = job_ok(BLOCK_JOB_BACKUP, "job-id=b,device=mirror,target=other,"
                    "sync=none");
    ask_for(job, ending);
    ck_assert(!job_turns(job, 50));
    job_fill(guest, 0, CLUSTER, 'b');
    if (cancelled) {
        ask_for(job, BY_FORCE);
        ck_assert_int_eq(block_job_wait(job, NULL), -ECANCELED);
    }
    ck_assert_int_eq(block_job_cancel(backup, true, NULL), 0);
    job_end_fails(backup, ECANCELED, "cancelled");
    if (cancelled) {
        job_settle();
    } else {
        ck_assert_int_eq(block_job_wait(job, NULL), 0);
        expect_same();
    }
    block_job_unref(job);
    while (block_graph_nr_nodes(graph) > 3) {
        aio_poll(block_graph_aio_context(graph), true);
    }
    ck_assert_ptr_eq(blk_bs(guest), cancelled || ending == WITH_COPY ? source
                                                                     : target);
    bdrv_unref(other);
    expect_gone();
    no_disks();
}
END_TEST

START_TEST(a_switch_that_is_put_off_leaves_the_job_what_it_may)
{
    const BlockPerm none = { .shared = BLK_PERM_ALL };
    bool ends = false;
    BlockBackend *idle;
    BlockJob *job;
    BdrvChild *edge;

    disks();
    blk_unref(g_steal_pointer(&guest));
    job = ready_mirror(",filter-node-name=mirror");
    aio_co_enter(block_graph_aio_context(graph),
                 coroutine_create(changer_entry, &ends));
    ask_for(job, WITH_SWITCH);
    job_settle();
    /* While the switch waits, somebody comes who holds it off. */
    idle = blk_new(graph, "idle", &none);
    ck_assert_int_eq(blk_insert_bs(idle, bdrv_find_node(graph, "mirror"),
                                   NULL), 0);
    edge = LIST_ENTRY(blk_bs(idle)->parents.prev, BdrvChild, node_link);
    bdrv_freeze_child(edge);
    ends = true;
    job_settle();
    ck_assert(!is_over(job));
    ck_assert_uint_eq(bdrv_get_perm(target).used,
                      BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE);
    bdrv_unfreeze_child(edge);
    job_end_ok(job);
    ck_assert_ptr_eq(blk_bs(idle), target);
    blk_unref(idle);
    expect_gone();
    no_disks();
}
END_TEST

/* --- errors --------------------------------------------------------------- */

/* Complete the job when it is ready, and resume it when an error has stopped
 * it, until it is over. */
static void bring_to_its_end(BlockJob *job)
{
    BlockJobInfo info;

    for (int i = 0; i < 100000 && !is_over(job); i++) {
        block_job_query(job, &info);
        if (info.status == BLOCK_JOB_READY) {
            block_job_complete(job, NULL);
        } else if (info.status == BLOCK_JOB_PAUSED ||
                   info.status == BLOCK_JOB_STANDBY) {
            ck_assert_int_eq(info.io_status, BLOCK_JOB_IO_FAILED);
            block_job_resume(job, NULL);
        }
        aio_poll(block_graph_aio_context(graph), true);
    }
    ck_assert(is_over(job));
}

static const char *const policies[] = { "report", "ignore", "stop" };

/* The n-th request of a side fails, once. */
static void fail_nth(unsigned kinds, unsigned n, const char *policy,
                     const char *mode)
{
    bool read = kinds == FAULTY_READS;
    g_autofree char *text = g_strdup_printf(
        "job-id=j,device=%s,target=%s,sync=full,on-%s-error=%s,"
        "granularity=64k,buf-size=128k%s", read ? "fsource" : "source",
        read ? "target" : "ftarget", read ? "source" : "target", policy, mode);
    BlockJob *job;
    int ret;

    faulty_set(kinds, n, 1);
    job = job_ok(BLOCK_JOB_MIRROR, text);
    bring_to_its_end(job);
    ret = block_job_wait(job, NULL);
    if (g_str_equal(policy, "report")) {
        ck_assert_int_eq(ret, faulty_has_failed() ? -EIO : 0);
    }
    if (ret == 0) {
        job_expect(target, 0, DISK, 'a');
    }
    job_expect(source, 0, DISK, 'a');
    block_job_unref(job);
}

START_TEST(an_error_at_any_request_is_treated_as_the_policy_says)
{
    static const unsigned kinds[] = { FAULTY_READS, FAULTY_WRITES,
                                      FAULTY_FLUSHES };
    bool failed = true;

    for (unsigned n = 1; failed; n++) {
        BlockDriverState *fsource, *ftarget;

        disks();
        ck_assert_int_eq(bdrv_insert_node(source,
                                          opts("faulty,node-name=fsource"),
                                          &fsource, NULL), 0);
        ftarget = open_ok("faulty,node-name=ftarget,file=target");
        fail_nth(kinds[_i / 6], n, policies[_i / 2 % 3], modes[_i % 2]);
        failed = faulty_has_failed();
        faulty_clear();
        ck_assert_uint_eq(block_graph_nr_nodes(graph), 4);
        bdrv_unref(ftarget);
        bdrv_unref(fsource);
        no_disks();
        ck_assert_uint_lt(n, 40);
    }
}
END_TEST

START_TEST(a_full_target_stops_the_mirror_if_asked)
{
    BlockJobInfo info;
    BlockJob *job;

    disks();
    fail_writes(target, ENOSPC);
    job = job_ok(BLOCK_JOB_MIRROR, MIRROR ",on-target-error=enospc");
    job_reach(job, BLOCK_JOB_PAUSED);
    block_job_query(job, &info);
    ck_assert_int_eq(info.io_status, BLOCK_JOB_IO_NOSPACE);
    ck_assert_ptr_nonnull(strstr(job_events->str, "ERROR"));
    fail_writes(target, 0);
    ck_assert_int_eq(block_job_resume(job, NULL), 0);
    job_reach(job, BLOCK_JOB_READY);
    complete_ok(job);
    job_expect(target, 0, DISK, 'a');
    no_disks();
}
END_TEST

START_TEST(a_guests_write_does_not_fail_because_of_the_target)
{
    BlockJob *job;

    disks();
    job = ready_mirror(",copy-mode=write-blocking,on-target-error=stop");
    fail_writes(target, EIO);
    job_fill(guest, 0, CLUSTER, 'b');
    job_reach(job, BLOCK_JOB_STANDBY);
    fail_writes(target, 0);
    ck_assert_int_eq(block_job_resume(job, NULL), 0);
    job_reach(job, BLOCK_JOB_READY);
    complete_ok(job);
    job_expect(target, 0, CLUSTER, 'b');
    no_disks();
}
END_TEST

START_TEST(a_guests_write_that_fails_is_copied_all_the_same)
{
    uint8_t buf[512] = { 1 };
    BlockJob *job;

    disks();
    job = ready_mirror(modes[_i]);
    fail_writes(source, EIO);
    ck_assert_int_eq(blk_pwrite(guest, CLUSTER, 512, buf, 0), -EIO);
    fail_writes(source, 0);
    mem_disk(source)->data[CLUSTER] = 'h'; /* half of it had happened */
    end_with_copy(job);
    expect_same();
    no_disks();
}
END_TEST

START_TEST(a_target_that_fails_at_the_last_moment_leaves_all_as_it_was)
{
    BlockJob *job;

    disks();
    job = ready_mirror(",auto-finalize=off,on-target-error=ignore");
    ask_for(job, WITH_SWITCH);
    job_reach(job, BLOCK_JOB_PENDING);
    fail_writes(target, EIO);
    job_fill(guest, 0, CLUSTER, 'b');
    ck_assert_int_eq(block_job_finalize(job, NULL), 0);
    job_end_fails(job, EIO, "could not write to node 'target'");
    fail_writes(target, 0);
    ck_assert_ptr_eq(blk_bs(guest), source);
    job_expect(source, 0, CLUSTER, 'b');
    expect_gone();
    no_disks();
}
END_TEST

static void add_tests(TCase *tcase)
{
    tcase_add_loop_test(
        tcase, what_guests_write_at_any_turn_of_the_end_is_where_they_are_then,
        0, 2 * ENDINGS);
    tcase_add_loop_test(
        tcase, what_guests_write_at_any_turn_of_the_start_is_copied, 0, 2);
    tcase_add_loop_test(
        tcase,
        a_write_in_flight_when_a_ready_mirror_is_cancelled_is_in_the_copy, 0,
        2);
    tcase_add_loop_test(
        tcase, what_a_discard_does_after_a_copy_is_copied_again, 0, 2);
    PROMISE(tcase,
            overlapping_writes_on_both_sides_end_and_leave_no_difference);
    PROMISE(tcase, a_copy_does_not_undo_what_a_guest_writes_meanwhile);
    tcase_add_loop_test(
        tcase, a_mirror_can_be_cancelled_at_any_turn_of_the_loop, 0, 2);
    tcase_add_loop_test(
        tcase, a_drained_section_waits_for_copies_and_holds_the_next, 0, 30);
    tcase_add_loop_test(
        tcase, a_drained_section_at_any_turn_of_the_end_holds_it, 0, 2);
    PROMISE(tcase, a_paused_mirror_copies_nothing);
    PROMISE(tcase,
            a_mirror_that_is_completed_may_be_cancelled_until_it_has_ended);
    tcase_add_loop_test(
        tcase, a_pending_mirror_follows_guests_until_it_is_finalized, 0,
        ENDINGS);
    PROMISE(tcase, a_target_that_hangs_does_not_keep_a_mirror_from_ending);
    tcase_add_loop_test(
        tcase, guests_do_not_wait_for_a_target_that_was_given_up_at_the_end, 0,
        2);
    PROMISE(tcase, a_reader_of_the_copy_that_hangs_holds_up_nobody);
    tcase_add_loop_test(tcase, an_end_waits_for_who_holds_the_edge_above, 0, 4);
    PROMISE(tcase, a_switch_that_is_put_off_leaves_the_job_what_it_may);
    tcase_add_loop_test(
        tcase,
        a_target_that_hangs_at_the_end_does_not_keep_a_mirror_from_ending, 0,
        2);
    tcase_add_loop_test(
        tcase, an_error_at_any_request_is_treated_as_the_policy_says, 0, 18);
    PROMISE(tcase, a_full_target_stops_the_mirror_if_asked);
    PROMISE(tcase, a_guests_write_does_not_fail_because_of_the_target);
    tcase_add_loop_test(
        tcase, a_guests_write_that_fails_is_copied_all_the_same, 0, 2);
    PROMISE(tcase, a_target_that_fails_at_the_last_moment_leaves_all_as_it_was);
}

int main(void)
{
    register_faulty_driver();
    return job_main("mirror-race", add_tests);
}
