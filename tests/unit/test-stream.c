/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The stream job: the top gets what the layers below it have, and then does
 * without them.
 */
#include "chain-fixture.h"

static BlockJob *stream(const char *text)
{
    return job_ok(BLOCK_JOB_STREAM, text);
}

static void stream_whole(const char *text)
{
    job_whole(BLOCK_JOB_STREAM, text);
}

static void stream_fails(const char *text, int err, const char *message)
{
    job_fails(BLOCK_JOB_STREAM, text, err, message);
}

/* --- what comes out ------------------------------------------------------- */

START_TEST(without_a_base_the_top_has_all_and_stands_alone)
{
    given("AAAAA-", "-BB---", "--C0--");
    stream_whole("device=n2");
    expect_picture(guest, "ABC-A-");
    expect_layer(layer[2], "ABC0A-");
    expect_backing(layer[2], NULL, NULL);
    ck_assert_str_eq(job_events->str, "created running waiting pending "
                     "COMPLETED concluded null ");
    expect_images("ABC-A-");
}
END_TEST

START_TEST(what_the_base_has_is_not_copied)
{
    given("AAAAA-", "-BB---", "--C0--");
    stream_whole("device=n2,base=n0");
    expect_layer(layer[2], "-BC0--");
    expect_backing(layer[2], layer[0], "n0.qcow2");
    expect_images("ABC-A-");
}
END_TEST

START_TEST(base_node_and_bottom_say_the_same_as_base)
{
    given("AAA", "-B-", "--C", "---");
    stream_whole("device=n3,base-node=n2");
    expect_backing(layer[3], layer[2], "n2.qcow2");
    stream_whole("device=n3,bottom=n1");
    expect_backing(layer[3], layer[0], "n0.qcow2");
    expect_layer(layer[3], "-BC");
    stream_whole("device=n3,bottom=n3"); /* nothing goes */
    expect_backing(layer[3], layer[0], "n0.qcow2");
    expect_images("ABC");
}
END_TEST

START_TEST(a_layer_without_backing_is_left_as_it_is)
{
    given("A-");
    stream_whole("device=n0");
    expect_layer(layer[0], "A-");
    expect_images("A-");
}
END_TEST

START_TEST(the_image_records_the_text_that_was_given)
{
    given("AA", "-B", "--");
    stream_whole("device=n2,base=n0,backing-file=./n0.qcow2");
    expect_backing(layer[2], layer[0], "./n0.qcow2");
    expect_images("AB");
}
END_TEST

START_TEST(an_absolute_name_is_recorded_where_the_old_one_was_no_neighbour)
{
    g_autofree char *old = path_of("n1.qcow2");
    g_autofree char *expected = path_of("n0.qcow2");

    given("AA", "-B", "--");
    ck_assert_int_eq(bdrv_change_backing_file(layer[2], old, "qcow2", NULL),
                     0);
    stream_whole("device=n2,base=n0");
    expect_backing(layer[2], layer[0], expected);
    expect_images("AB");
}
END_TEST

START_TEST(a_base_that_is_a_protocol_can_be_recorded_as_raw)
{
    g_autofree char *file = NULL;
    g_autofree char *format = NULL;
    BlockDriverState *bs[3];
    g_autofree char *text = options_text("file,node-name=raw,"
                                         "filename=%s/raw,read-only=on");

    make_file("raw", CHAIN_CLUSTER);
    make_image_ok("a", "qcow2,size=64k");
    make_image_ok("b", "qcow2,size=64k");
    bs[0] = open_ok(text);
    bs[1] = image_open("a", "qcow2,node-name=a,backing=raw,read-only=on");
    bs[2] = image_open("b", "qcow2,node-name=b,backing=a");
    stream_whole("device=b,base=raw,backing-mask-protocol=on");
    ck_assert_int_eq(bdrv_get_backing_name(bs[2], &file, &format), 0);
    ck_assert_str_eq(format, "raw");
    for (int i = 0; i < 3; i++) {
        bdrv_unref(bs[i]);
    }
}
END_TEST

START_TEST(a_layer_between_can_be_the_device_and_is_read_only_again_after_it)
{
    given("AAAA", "-BB-", "----", "---D");
    stream_whole("device=n2,base=n0");
    ck_assert(bdrv_is_read_only(layer[2]));
    ck_assert_ptr_eq(bdrv_child_bs(bdrv_cow_child(layer[3])), layer[2]);
    expect_layer(layer[2], "-BB-");
    expect_layer(layer[3], "---D");
    expect_backing(layer[2], layer[0], "n0.qcow2");
    expect_backing(layer[3], layer[2], "n2.qcow2");
    expect_images("ABBD");
}
END_TEST

/* After a stream to n2, the highest of three, it has this of its own, and shows
 * that. */
static void top_gets(const char *options, const char *own, const char *shown)
{
    stream_whole(options);
    expect_layer(layer[2], own);
    expect_images(shown);
}

START_TEST(zeroes_take_no_room_where_nothing_is_below_them)
{
    given("0A0", "-0-", "---");
    top_gets("device=n2", "---", "---");
}
END_TEST

START_TEST(zeroes_hide_what_a_base_has)
{
    given("AAA", "-0-", "---");
    top_gets("device=n2,base=n0", "-0-", "A-A");
}
END_TEST

START_TEST(a_short_layer_between_shows_zeroes_and_not_the_base_R103)
{
    given("AAAAAA", "-B", "----");
    stream_whole("device=n2,base=n0");
    expect_picture(guest, "AB--");
    expect_layer(layer[2], "-B00");
    expect_images("AB--");
}
END_TEST

START_TEST(a_part_of_a_cluster_at_the_end_is_copied_too_R103)
{
    int64_t bytes = 2 * CHAIN_CLUSTER + 512;

    add_image("--", bytes);
    add_image("--", bytes);
    for (int i = 0; i < 2; i++) {
        set_read_only(layer[0], i);
    }
    set_read_only(layer[0], false);
    guest = backend_ok("tail", layer[0], BLK_PERM_WRITE, BLK_PERM_ALL);
    job_fill(guest, bytes - 512, 512, 'T');
    blk_unref(guest);
    set_read_only(layer[0], true);
    add_guest();
    stream_whole("device=n1");
    job_expect(layer[1], bytes - 512, 512, 'T');
    expect_backing(layer[1], NULL, NULL);
    chain_stop();
}
END_TEST

START_TEST(filters_between_go_with_the_layers)
{
    BlockDriverState *pass;

    given("AA", "-B", "--");
    ck_assert_int_eq(bdrv_insert_node(layer[1], opts("pass,node-name=f"),
                                      &pass, NULL), 0);
    stream_whole("device=n2,base=n0");
    expect_backing(layer[2], layer[0], "n0.qcow2");
    bdrv_unref(pass);
    expect_images("AB");
}
END_TEST

START_TEST(filters_above_a_base_go_but_stay_above_a_bottom)
{
    BlockDriverState *pass;

    given("AA", "-B", "--");
    ck_assert_int_eq(bdrv_insert_node(layer[0], opts("pass,node-name=f"),
                                      &pass, NULL), 0);
    stream_whole("device=n2,bottom=n1");
    expect_backing(layer[2], pass, "n0.qcow2");
    stream_whole("device=n2,base=n0");
    expect_backing(layer[2], layer[0], "n0.qcow2");
    bdrv_unref(pass);
    expect_images("AB");
}
END_TEST

START_TEST(a_filter_can_be_the_device)
{
    BlockDriverState *pass;

    given("AA", "-B", "--");
    ck_assert_int_eq(bdrv_insert_node(layer[2], opts("pass,node-name=f"),
                                      &pass, NULL), 0);
    stream_whole("device=f");
    ck_assert_ptr_eq(blk_bs(guest), pass);
    expect_layer(layer[2], "AB");
    ck_assert_int_eq(bdrv_drop_filter(pass, NULL), 0);
    bdrv_unref(pass);
    expect_images("AB");
}
END_TEST

/* --- others at the same time ---------------------------------------------- */

START_TEST(what_a_guest_writes_meanwhile_stays)
{
    BlockJob *job;

    given("AAAA", "BBBB", "----");
    job = stream("device=n2,speed=1");
    job_fill(guest, CHAIN_CLUSTER, CHAIN_CLUSTER, 'G');
    ck_assert_int_eq(block_job_set_speed(job, 0, NULL), 0);
    job_fill(guest, 3 * CHAIN_CLUSTER, 1, 'H');
    job_end_ok(job);
    job_expect(layer[2], CHAIN_CLUSTER, CHAIN_CLUSTER, 'G');
    job_expect(layer[2], 3 * CHAIN_CLUSTER, 1, 'H');
    job_expect(layer[2], 3 * CHAIN_CLUSTER + 1, CHAIN_CLUSTER - 1, 'B');
    chain_stop();
}
END_TEST

START_TEST(the_disk_may_become_shorter_and_longer_meanwhile)
{
    BlockTruncate cut = { .offset = CHAIN_CLUSTER, .exact = true };
    BlockTruncate grow = { .offset = 4 * CHAIN_CLUSTER, .exact = true };
    BlockJob *job;

    given("AAAA", "BBBB", "----");
    job = stream("device=n2");
    block_job_hold(job);
    ck_assert_int_eq(blk_truncate(guest, &cut, NULL), 0);
    block_job_release(job);
    job_end_ok(job);
    expect_picture(guest, "B");
    expect_backing(layer[2], NULL, NULL);
    ck_assert_int_eq(blk_truncate(guest, &grow, NULL), 0);
    expect_images("B---");
}
END_TEST

/* Two streams, the one that begins and the one that ends first. */
static void two_streams(bool lower_begins, bool lower_ends)
{
    const char *lower = "device=n2,base=n0", *upper = "device=n4,base=n2";
    BlockJob *job[2];

    given("AAAAA", "-B---", "-----", "---D-", "-----");
    job[0] = stream(lower_begins ? lower : upper);
    block_job_hold(job[0]);
    job[1] = stream(lower_begins ? upper : lower);
    block_job_hold(job[1]);
    job_settle();
    for (int i = 0; i < 2; i++) {
        BlockJob *first = job[lower_ends == lower_begins ? i : 1 - i];

        block_job_release(first);
        job_end_ok(first);
        expect_picture(guest, "ABADA");
    }
    expect_backing(layer[2], layer[0], "n0.qcow2");
    expect_backing(layer[4], layer[2], "n2.qcow2");
    expect_layer(layer[2], "-B---");
    expect_layer(layer[4], "---D-");
    expect_images("ABADA");
}

START_TEST(streams_on_parts_of_one_chain_end_in_any_order_R102)
{
    for (int i = 0; i < 4; i++) {
        two_streams(i & 1, i & 2);
    }
}
END_TEST

START_TEST(a_part_of_the_chain_that_a_stream_works_on_is_refused)
{
    GError *error = NULL;
    BlockJob *job;

    given("A", "B", "-", "-");
    job = stream("device=n2,base=n0,job-id=j");
    block_job_hold(job);
    is_refused(BLOCK_JOB_STREAM, "device=n3,base=n0");
    is_refused(BLOCK_JOB_STREAM, "device=n2,base=n1");
    is_refused(BLOCK_JOB_STREAM, "device=n3");
    ck_assert_int_eq(bdrv_set_backing(layer[2], NULL, &error), -EBUSY);
    expect_error(&error, EBUSY, "frozen by a job");
    block_job_release(job);
    job_end_ok(job);
    chain_stop();
}
END_TEST

START_TEST(a_base_that_has_come_meanwhile_ends_the_job)
{
    BlockDriverState *late;
    BlockJob *job;

    given("0A", "--");
    late = open_ok("mem,node-name=late,size=128k");
    job = stream("device=n1");
    block_job_hold(job);
    ck_assert_int_eq(bdrv_set_backing(layer[0], late, NULL), 0);
    block_job_release(job);
    job_end_fails(job, EBUSY, "has got a backing node meanwhile");
    expect_backing(layer[1], layer[0], "n0.qcow2");
    bdrv_unref(late);
    chain_stop();
}
END_TEST

/* Another job holds the link while it takes effect. */
START_TEST(a_stream_waits_for_who_holds_its_link)
{
    BdrvChild *edge;
    BlockJob *job;

    given("A", "B", "-");
    job = stream("device=n2,base=n0");
    edge = bdrv_cow_child(layer[2]);
    bdrv_freeze_child(edge);
    ck_assert(!job_turns(job, 50));
    if (_i) {
        ck_assert_int_eq(block_job_cancel(job, true, NULL), 0);
        job_end_fails(job, ECANCELED, "cancelled");
        expect_backing(layer[2], layer[1], "n1.qcow2");
        bdrv_unfreeze_child(edge);
    } else {
        bdrv_unfreeze_child(edge);
        job_end_ok(job);
        expect_backing(layer[2], layer[0], "n0.qcow2");
    }
    chain_stop();
}
END_TEST

/* The text that was given names the base that was there then. */
START_TEST(a_text_that_was_given_is_recorded_with_the_format_of_its_base)
{
    g_autofree char *name = NULL;
    g_autofree char *format = NULL;
    BlockDriverState *late;
    BlockJob *job;

    given("A", "-", "-");
    late = open_ok("mem,node-name=late,size=64k");
    job = stream("device=n2,base=n0,backing-file=n0.qcow2");
    block_job_hold(job);
    ck_assert_int_eq(bdrv_set_backing(layer[1], late, NULL), 0);
    block_job_release(job);
    job_end_ok(job);
    ck_assert_int_eq(bdrv_get_backing_name(layer[2], &name, &format), 0);
    ck_assert_str_eq(name, "n0.qcow2");
    ck_assert_str_eq(format, "qcow2");
    bdrv_unref(late);
    chain_stop();
}
END_TEST

/* --- verbs ---------------------------------------------------------------- */

START_TEST(a_cancelled_stream_leaves_the_graph_as_it_was)
{
    g_autofree char *before = NULL;

    given("AAAA", "-B--", "----");
    before = chain_dump();
    for (int turns = 0; turns < 40; turns++) {
        BlockJob *job = stream("device=n2,max-workers=1");

        for (int i = 0; i < turns; i++) {
            aio_poll(block_graph_aio_context(graph), false);
        }
        if (!job_cancel_in_time(job)) {
            ck_assert_int_gt(turns, 0);
            break;
        }
        expect_graph(before);
        expect_backing(layer[2], layer[1], "n1.qcow2");
        expect_picture(guest, "ABAA");
    }
    block_job_cancel_all(graph);
    expect_images("ABAA");
}
END_TEST

static void has_ended(void *opaque, int ret)
{
    ck_assert_int_eq(ret, 0);
    ++*(int *)opaque;
}

/* Have the next read of the top wait there; let one go that does. */
static void catch_next(void)
{
    mem_disk(layer[2])->catch_next[MEM_READ] = true;
    mem_disk(layer[2])->caught = false;
}

/* The last step drains thrice; each time a guest's read is in flight that has
 * waited for the end of the time before.  In the third one somebody comes to
 * hold the link: a job above, for hours. */
START_TEST(a_stream_that_waits_in_its_last_step_can_be_cancelled)
{
    BlockIOVec1 iov[3];
    uint8_t byte[3][512];
    int ended = 0;
    BdrvChild *edge;
    BlockJob *job;

    given_in_memory("A", "-", "-");
    job = stream("device=n2,base=n0");
    for (int i = 0; i < 3; i++) {
        catch_next();
        blk_aio_preadv(guest, 0, block_iov_buf(&iov[i], byte[i], 512), 0,
                       has_ended, &ended);
        job_settle();
        ck_assert_int_eq(ended, i);
        ck_assert(mem_disk(layer[2])->caught);
    }
    ck_assert_uint_eq(block_graph_nr_nodes(graph), 3); /* the filter is out */
    edge = bdrv_cow_child(layer[2]);
    bdrv_freeze_child(edge);
    mem_disk(layer[2])->caught = false;
    ck_assert(!job_turns(job, 50));
    if (_i) {
        ck_assert_int_eq(block_job_cancel(job, true, NULL), 0);
        job_end_fails(job, ECANCELED, "cancelled");
        bdrv_unfreeze_child(edge);
        job_settle();
        expect_backing(layer[2], layer[1], NULL);
    } else {
        bdrv_unfreeze_child(edge);
        job_end_ok(job);
        expect_backing(layer[2], layer[0], NULL);
    }
    expect_picture(guest, "A");
    chain_stop();
}
END_TEST

START_TEST(a_stream_whose_read_hangs_can_be_cancelled)
{
    BlockJob *job;

    given_in_memory("AAAA", "----");
    atomic_store(&mem_disk(layer[0])->hold[MEM_READ], true);
    job = stream("device=n1");
    job_settle();
    ck_assert_int_eq(block_job_cancel(job, true, NULL), 0);
    job_end_fails(job, ECANCELED, "cancelled");
    atomic_store(&mem_disk(layer[0])->hold[MEM_READ], false);
    for (int i = 0; i < 100000 && block_graph_nr_nodes(graph) > 2; i++) {
        aio_poll(block_graph_aio_context(graph), i % 100 == 99);
    }
    expect_backing(layer[1], layer[0], NULL);
    chain_stop();
}
END_TEST

START_TEST(nothing_changes_before_it_is_finalized)
{
    g_autofree char *before = NULL;
    BlockJob *job;

    given("AA", "--");
    before = chain_dump();
    job = stream("device=n1,auto-finalize=off,filter-node-name=cor");
    job_reach(job, BLOCK_JOB_PENDING);
    ck_assert_ptr_eq(blk_bs(guest), bdrv_find_node(graph, "cor"));
    expect_backing(layer[1], layer[0], "n0.qcow2");
    ck_assert_int_eq(block_job_cancel(job, false, NULL), 0);
    job_end_fails(job, ECANCELED, "cancelled");
    expect_graph(before);
    job = stream("device=n1,auto-finalize=off");
    job_reach(job, BLOCK_JOB_PENDING);
    ck_assert_int_eq(block_job_finalize(job, NULL), 0);
    job_end_ok(job);
    expect_backing(layer[1], NULL, NULL);
    expect_images("AA");
}
END_TEST

START_TEST(a_paused_stream_sends_no_requests)
{
    unsigned reads;
    BlockJob *job;

    given_in_memory("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
                    "--------------------------------");
    job = stream("device=n1,max-workers=1");
    ck_assert_int_eq(block_job_pause(job, NULL), 0);
    job_reach(job, BLOCK_JOB_PAUSED);
    reads = mem_disk(layer[0])->count[MEM_READ];
    job_settle();
    ck_assert_uint_eq(mem_disk(layer[0])->count[MEM_READ], reads);
    ck_assert_int_eq(block_job_resume(job, NULL), 0);
    job_end_ok(job);
    expect_backing(layer[1], NULL, NULL);
    chain_stop();
}
END_TEST

START_TEST(progress_ends_at_the_length_of_the_disk)
{
    BlockJobInfo info;
    BlockJob *job;

    given("AA--", "-B--");
    job = stream("device=n1,auto-dismiss=off");
    info = info_of(job);
    ck_assert_int_eq(info.total_progress, 4 * CHAIN_CLUSTER);
    ck_assert_int_eq(info.current_progress, 0);
    ck_assert_int_eq(block_job_wait(job, NULL), 0);
    info = info_of(job);
    ck_assert_int_eq(info.total_progress, 4 * CHAIN_CLUSTER);
    ck_assert_int_eq(info.current_progress, 4 * CHAIN_CLUSTER);
    ck_assert_int_eq(block_job_dismiss(job, NULL), 0);
    block_job_unref(job);
    chain_stop();
}
END_TEST

/* --- errors --------------------------------------------------------------- */

/* One try, with the n-th request failing.  Returns whether none was left to
 * fail. */
static bool try_with_failure(unsigned kinds, unsigned n)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *before = NULL;
    BlockJob *job;
    bool good, failed;

    given("AAA-", "-B0-", "---D");
    before = chain_dump();
    faulty_set(kinds, n, 1);
    job = block_job_start(graph, BLOCK_JOB_STREAM,
                          block_options_parse_keyval("device=n2,base=n0",
                                                     NULL, NULL), &error);
    good = job && block_job_wait(job, &error) == 0;
    failed = faulty_has_failed();
    faulty_clear();
    block_job_unref(job);
    ck_assert(good == !error);
    if (!good) {
        expect_graph(before);
        expect_backing(layer[2], layer[1], "n1.qcow2");
    } else {
        expect_backing(layer[2], layer[0], "n0.qcow2");
    }
    expect_picture(guest, "AB-D");
    expect_images("AB-D");
    return !failed;
}

START_TEST(whichever_request_fails_the_content_stays_and_so_does_the_graph)
{
    static const unsigned kinds[] = { FAULTY_READS, FAULTY_WRITES,
                                      FAULTY_FLUSHES, FAULTY_TRUNCATES };

    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
        unsigned n = 1;

        while (!try_with_failure(kinds[i], n)) {
            n++;
        }
        ck_assert(n > 1 || kinds[i] == FAULTY_TRUNCATES);
    }
}
END_TEST

START_TEST(with_ignore_the_rest_is_copied_and_the_job_fails_in_the_end)
{
    given_in_memory("AA", "--");
    mem_disk(layer[0])->fail[MEM_READ] = EIO;
    job_end_fails(stream("device=n1,on-error=ignore,max-workers=1"), EIO,
                  "could not copy to node 'n1'");
    ck_assert_ptr_nonnull(strstr(job_events->str, "ERROR"));
    expect_backing(layer[1], layer[0], NULL);
    expect_picture(guest, "AA");
    chain_stop();
}
END_TEST

/* The next @op of layer @i fails with @err: the job stops, and goes on. */
static void stops(int i, MemOp op, int err, const char *policy)
{
    g_autofree char *text = g_strdup_printf("device=n1,on-error=%s", policy);
    BlockJob *job;

    given_in_memory("AAAA", "----");
    mem_disk(layer[i])->fail[op] = err;
    job = stream(text);
    job_reach(job, BLOCK_JOB_PAUSED);
    ck_assert_int_eq(info_of(job).io_status, err == ENOSPC
                                                 ? BLOCK_JOB_IO_NOSPACE
                                                 : BLOCK_JOB_IO_FAILED);
    ck_assert_int_eq(block_job_resume(job, NULL), 0);
    ck_assert_int_eq(info_of(job).io_status, BLOCK_JOB_IO_OK);
    job_end_ok(job);
    expect_layer(layer[1], "AAAA");
    expect_backing(layer[1], NULL, NULL);
    chain_stop();
}

START_TEST(with_stop_it_waits_until_it_is_resumed_and_tries_again)
{
    stops(0, MEM_READ, EIO, "stop");
    stops(1, MEM_WRITE, EIO, "stop");
    stops(1, MEM_WRITE, ENOSPC, "stop");
}
END_TEST

START_TEST(with_enospc_it_waits_for_room_and_reports_all_else)
{
    stops(1, MEM_WRITE, ENOSPC, "enospc");
    given_in_memory("A", "-");
    mem_disk(layer[0])->fail[MEM_READ] = EIO;
    job_end_fails(stream("device=n1,on-error=enospc"), EIO, "could not copy");
    chain_stop();
}
END_TEST

/* --- bad input ------------------------------------------------------------ */

START_TEST(a_name_that_the_image_cannot_record_is_refused)
{
    g_autofree char *long_name = g_strnfill(1024, 'x');
    g_autofree char *long_text = g_strdup_printf("%s,backing-file=%s", "device=n2,base=n0",
                                                 long_name);

    given("A", "-", "-");
    stream_fails(long_text, EINVAL, "it is longer than");
    stream_fails("device=n2,base=n0" ",backing-file=nbd:x", EINVAL, "refused because");
    stream_fails("device=n2,base=n0" ",backing-file=/dev/null", EINVAL, "refused because");
    chain_stop();
}
END_TEST

/* Nor what its header has no room for. */
START_TEST(a_format_that_the_image_cannot_record_is_refused)
{
    BlockDriverState *bs[3];
    g_autofree char *name = g_strnfill(600, 'x');
    g_autofree char *masked = g_strdup_printf(
        "device=b,base=raw,backing-mask-protocol=on,backing-file=%s", name);
    g_autofree char *text = options_text("file,node-name=raw,"
                                         "filename=%s/raw,read-only=on");

    make_file("raw", CHAIN_CLUSTER);
    make_image_ok("a", "qcow2,size=64k");
    make_image_ok("b", "qcow2,size=64k,cluster_size=512");
    bs[0] = open_ok(text);
    bs[1] = image_open("a", "qcow2,node-name=a,backing=raw,read-only=on");
    bs[2] = image_open("b", "qcow2,node-name=b,backing=a");
    stream_fails("device=b,base=raw", EINVAL, "format 'file'");
    stream_fails(masked, ENOSPC, "does not fit");
    for (int i = 0; i < 3; i++) {
        bdrv_unref(bs[i]);
    }
}
END_TEST

START_TEST(nodes_and_options_that_make_no_sense_are_refused)
{
    BlockDriverState *other = open_ok("mem,node-name=other,size=64k");
    BlockDriverState *null = open_ok("null-co,node-name=null,size=64k");
    BlockDriverState *pass;

    given("A", "-", "-");
    ck_assert_int_eq(bdrv_insert_node(layer[1], opts("pass,node-name=f"),
                                      &pass, NULL), 0);
    stream_fails("job-id=j", EINVAL, "device");
    stream_fails("device=none", ENOENT, "no node 'none'");
    stream_fails("device=n2,base=none", ENOENT, "no node 'none'");
    stream_fails("device=n2,base=other", EINVAL, "not in the chain");
    stream_fails("device=n2,bottom=other", EINVAL, "not in the chain");
    stream_fails("device=n1,base=n2", EINVAL, "not in the chain");
    stream_fails("device=n2,base=n2", EINVAL, "not in the chain");
    stream_fails("device=n2,bottom=f", EINVAL, "is a filter");
    stream_fails("device=n2,base=n0,bottom=n1", EINVAL, "only one of");
    stream_fails("device=n2,base=n0,base-node=n0", EINVAL, "only one of");
    stream_fails("device=n2,max-workers=0", EINVAL, "max-workers");
    stream_fails("device=n2,max-workers=65", EINVAL, "max-workers");
    stream_fails("device=n2,on-error=perhaps", EINVAL, "on-error");
    stream_fails("device=n2,speed=-1", EINVAL, "speed");
    stream_fails("device=n2,nonsense=1", EINVAL, "nonsense");
    stream_fails("device=n2,filter-node-name=n0", EEXIST, "n0");
    stream_fails("device=n2,backing-file=x", EINVAL, "backing-file");
    stream_fails("device=null", ENOTSUP, "no layer of its own");
    bdrv_unref(pass);
    bdrv_unref(null);
    bdrv_unref(other);
    chain_stop();
}
END_TEST

START_TEST(a_base_without_a_file_name_needs_a_text)
{
    BlockDriverState *other;

    given("A", "-", "-");
    other = open_ok("mem,node-name=other,size=64k");
    ck_assert_int_eq(bdrv_set_backing(layer[1], other, NULL), 0);
    stream_fails("device=n2,base=other", EINVAL, "has no file name");
    stream_whole("device=n2,base=other,backing-file=n0.qcow2");
    expect_backing(layer[2], other, "n0.qcow2");
    bdrv_unref(other);
    chain_stop();
}
END_TEST

/* The name of an image is that of a file and nothing else. */
START_TEST(a_base_that_is_no_file_needs_a_text)
{
    BlockDriverState *other;

    given("A", "-", "-");
    other = open_ok("null-co,node-name=other,size=64k,read-zeroes=on");
    ck_assert_int_eq(bdrv_set_backing(layer[1], other, NULL), 0);
    stream_fails("device=n2,base=other", EINVAL, "has no file name");
    bdrv_unref(other);
    chain_stop();
}
END_TEST

START_TEST(a_base_without_a_file_name_that_has_come_meanwhile_ends_the_job)
{
    BlockDriverState *late;
    BlockJob *job;

    given("A", "-", "-");
    late = open_ok("mem,node-name=late,size=64k");
    job = stream("device=n2,base=n0");
    block_job_hold(job);
    ck_assert_int_eq(bdrv_set_backing(layer[1], late, NULL), 0);
    block_job_release(job);
    job_end_fails(job, EINVAL, "has no file name");
    expect_backing(layer[2], layer[1], "n1.qcow2");
    bdrv_unref(late);
    chain_stop();
}
END_TEST

START_TEST(a_disk_in_memory_records_no_name)
{
    given_in_memory("A", "-", "-");
    stream_fails("device=n2,base=n0,backing-file=x", ENOTSUP,
                 "records no backing file");
    stream_whole("device=n2,base=n0");
    expect_backing(layer[2], layer[0], NULL);
    chain_stop();
}
END_TEST

START_TEST(a_device_that_cannot_be_written_is_refused)
{
    BlockDriverState *bs[2];
    g_autofree char *text = options_text("file,node-name=f,read-only=on,"
                                         "filename=%s/a");

    make_image_ok("a", "qcow2,size=64k");
    bs[0] = open_ok(text);
    bs[1] = open_ok("qcow2,node-name=n,file=f,read-only=on");
    stream_fails("device=n", EACCES, "read-only");
    bdrv_unref(bs[1]);
    bdrv_unref(bs[0]);
}
END_TEST

START_TEST(a_length_that_is_no_multiple_of_the_alignment_is_refused)
{
    BlockDriverState *bs = open_ok("mem,node-name=odd,size=1000,align=512");

    stream_fails("device=odd", EINVAL, "no multiple of 512");
    bdrv_unref(bs);
}
END_TEST

static void add_tests(TCase *tcase)
{
    PROMISE(tcase, without_a_base_the_top_has_all_and_stands_alone);
    PROMISE(tcase, what_the_base_has_is_not_copied);
    PROMISE(tcase, base_node_and_bottom_say_the_same_as_base);
    PROMISE(tcase, a_layer_without_backing_is_left_as_it_is);
    PROMISE(tcase, the_image_records_the_text_that_was_given);
    PROMISE(tcase,
            an_absolute_name_is_recorded_where_the_old_one_was_no_neighbour);
    PROMISE(tcase, a_base_that_is_a_protocol_can_be_recorded_as_raw);
    PROMISE(tcase,
            a_layer_between_can_be_the_device_and_is_read_only_again_after_it);
    PROMISE(tcase, zeroes_take_no_room_where_nothing_is_below_them);
    PROMISE(tcase, zeroes_hide_what_a_base_has);
    PROMISE(tcase, a_short_layer_between_shows_zeroes_and_not_the_base_R103);
    PROMISE(tcase, a_part_of_a_cluster_at_the_end_is_copied_too_R103);
    PROMISE(tcase, filters_between_go_with_the_layers);
    PROMISE(tcase, filters_above_a_base_go_but_stay_above_a_bottom);
    PROMISE(tcase, a_filter_can_be_the_device);
    PROMISE(tcase, what_a_guest_writes_meanwhile_stays);
    PROMISE(tcase, the_disk_may_become_shorter_and_longer_meanwhile);
    PROMISE(tcase, streams_on_parts_of_one_chain_end_in_any_order_R102);
    PROMISE(tcase, a_part_of_the_chain_that_a_stream_works_on_is_refused);
    tcase_add_loop_test(tcase, a_stream_waits_for_who_holds_its_link, 0, 2);
    PROMISE(tcase, a_base_that_has_come_meanwhile_ends_the_job);
    PROMISE(tcase,
            a_text_that_was_given_is_recorded_with_the_format_of_its_base);
    PROMISE(tcase, a_cancelled_stream_leaves_the_graph_as_it_was);
    tcase_add_loop_test(tcase,
                        a_stream_that_waits_in_its_last_step_can_be_cancelled,
                        0, 2);
    PROMISE(tcase, a_stream_whose_read_hangs_can_be_cancelled);
    PROMISE(tcase, nothing_changes_before_it_is_finalized);
    PROMISE(tcase, a_paused_stream_sends_no_requests);
    PROMISE(tcase, progress_ends_at_the_length_of_the_disk);
    PROMISE(tcase,
            whichever_request_fails_the_content_stays_and_so_does_the_graph);
    PROMISE(tcase,
            with_ignore_the_rest_is_copied_and_the_job_fails_in_the_end);
    PROMISE(tcase, with_stop_it_waits_until_it_is_resumed_and_tries_again);
    PROMISE(tcase, with_enospc_it_waits_for_room_and_reports_all_else);
    PROMISE(tcase, a_name_that_the_image_cannot_record_is_refused);
    PROMISE(tcase, a_format_that_the_image_cannot_record_is_refused);
    PROMISE(tcase, nodes_and_options_that_make_no_sense_are_refused);
    PROMISE(tcase, a_base_without_a_file_name_needs_a_text);
    PROMISE(tcase, a_base_that_is_no_file_needs_a_text);
    PROMISE(tcase,
            a_base_without_a_file_name_that_has_come_meanwhile_ends_the_job);
    PROMISE(tcase, a_disk_in_memory_records_no_name);
    PROMISE(tcase, a_device_that_cannot_be_written_is_refused);
    PROMISE(tcase, a_length_that_is_no_multiple_of_the_alignment_is_refused);
}

int main(void)
{
    return chain_main("stream", add_tests);
}
