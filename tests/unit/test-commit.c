/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The commit job: the base gets what the layers above it have, and takes their
 * place.
 */
#include "chain-fixture.h"

static BlockJob *commit(const char *text)
{
    return job_ok(BLOCK_JOB_COMMIT, text);
}

static void commit_whole(const char *text)
{
    job_whole(BLOCK_JOB_COMMIT, text);
}

static void commit_fails(const char *text, int err, const char *message)
{
    job_fails(BLOCK_JOB_COMMIT, text, err, message);
}

/* --- what comes out ------------------------------------------------------- */

START_TEST(the_base_has_all_and_takes_the_place_of_the_layers)
{
    given("AAAA-", "-BB--", "--C--", "---D-");
    commit_whole("device=n3,top=n2,base=n0");
    expect_picture(guest, "ABCD-");
    expect_layer(layer[0], "ABCA-");
    expect_layer(layer[3], "---D-");
    expect_backing(layer[3], layer[0], "n0.qcow2");
    ck_assert(bdrv_is_read_only(layer[0]));
    ck_assert_str_eq(job_events->str, "created running waiting pending "
                     "COMPLETED concluded null ");
    expect_images("ABCD-");
}
END_TEST

START_TEST(layers_below_the_base_are_left_alone)
{
    given("AAAA", "-B--", "--C-", "---D", "----");
    commit_whole("device=n4,top=n3,base=n1");
    expect_layer(layer[0], "AAAA");
    expect_layer(layer[1], "-BCD");
    expect_backing(layer[4], layer[1], "n1.qcow2");
    expect_images("ABCD");
}
END_TEST

START_TEST(without_a_base_it_is_the_lowest_layer)
{
    given("AA", "-B", "--");
    commit_whole("device=n2,top=n1");
    expect_backing(layer[2], layer[0], "n0.qcow2");
    expect_images("AB");
}
END_TEST

START_TEST(the_images_above_record_the_text_that_was_given)
{
    given("AA", "-B", "--");
    commit_whole("device=n2,top=n1,backing-file=./n0.qcow2");
    expect_backing(layer[2], layer[0], "./n0.qcow2");
    expect_images("AB");
}
END_TEST

START_TEST(all_overlays_of_the_top_get_the_base_read_only_ones_too)
{
    BlockDriverState *fork;

    given("AA", "-B", "--");
    make_image_ok("fork", "qcow2,backing_file=n1.qcow2,backing_fmt=qcow2");
    fork = image_open("fork", "qcow2,node-name=fork,read-only=on,backing=n1");
    commit_whole("device=n2,top=n1");
    expect_backing(fork, layer[0], "n0.qcow2");
    ck_assert(bdrv_is_read_only(fork));
    expect_backing(layer[2], layer[0], "n0.qcow2");
    job_expect(fork, CHAIN_CLUSTER, CHAIN_CLUSTER, 'B');
    bdrv_unref(fork);
    expect_images("AB");
}
END_TEST

START_TEST(zeroes_stay_zeroes_without_data_R103)
{
    given("AA--", "-0-0", "--0-", "----");
    commit_whole("device=n3,top=n2,base=n0");
    expect_layer(layer[0], "A0--");
    expect_images("A---");
}
END_TEST

START_TEST(a_base_that_is_too_short_grows)
{
    given("AA", "-BB-", "----");
    commit_whole("device=n2,top=n1");
    expect_picture(guest, "ABB-");
    ck_assert_int_eq(bdrv_length(layer[0]), 4 * CHAIN_CLUSTER);
    expect_layer(layer[0], "ABB-");
    expect_images("ABB-");
}
END_TEST

START_TEST(what_a_longer_layer_below_the_base_has_does_not_appear)
{
    given("AAAA", "B", "--C-", "----");
    commit_whole("device=n3,top=n2,base=n1");
    expect_picture(guest, "B-C-");
    expect_layer(layer[1], "B0C0");
    expect_images("B-C-");
}
END_TEST

START_TEST(what_a_longer_base_has_does_not_appear_R103)
{
    given("AAAAA", "-B", "----");
    commit_whole("device=n2,top=n1");
    expect_picture(guest, "AB--");
    expect_layer(layer[0], "AB000");
    expect_images("AB--");
}
END_TEST

START_TEST(a_short_layer_between_shows_zeroes_and_not_the_base_R103)
{
    given("AAAA", "B", "---C", "----");
    commit_whole("device=n3,top=n2,base=n0");
    expect_picture(guest, "B--C");
    expect_images("B--C");
}
END_TEST

START_TEST(filters_between_go_with_the_layers)
{
    BlockDriverState *f[2];

    given("AA", "-B", "--", "--");
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(bdrv_insert_node(layer[i], opts("pass"), &f[i],
                                          NULL), 0);
    }
    commit_whole("device=n3,top=n2,base=n0");
    expect_backing(layer[3], layer[0], "n0.qcow2");
    bdrv_unref(f[0]);
    bdrv_unref(f[1]);
    expect_images("AB");
}
END_TEST

START_TEST(a_filter_that_must_see_all_writes_does_so_or_is_in_the_way)
{
    BlockDriverState *f;

    given("AA", "-B", "--");
    set_read_only(layer[0], false);
    ck_assert_int_eq(bdrv_insert_node(layer[0], opts("faulty,node-name=f"),
                                      &f, NULL), 0);
    commit_fails("device=n2,top=n1,base=n0", EINVAL, "would not see");
    commit_whole("device=n2,top=n1,base=f");
    expect_backing(layer[2], f, "n0.qcow2");
    ck_assert_int_eq(bdrv_drop_filter(f, NULL), 0);
    bdrv_unref(f);
    expect_images("AB");
}
END_TEST

/* --- others at the same time ---------------------------------------------- */

START_TEST(readers_see_the_same_at_every_moment_and_guests_can_write)
{
    BlockJob *job;
    BlockJobInfo info;

    given("AAAAAA", "-B0B--", "---C--", "----D-");
    job = commit("device=n3,top=n2,base=n0,max-workers=1,auto-dismiss=off");
    do {
        expect_picture(guest, "AB-CDA");
        info = info_of(job);
    } while (info.status < BLOCK_JOB_CONCLUDED);
    expect_picture(guest, "AB-CDA");
    ck_assert_int_eq(info.ret, 0);
    block_job_dismiss(job, NULL);
    block_job_unref(job);
    job_fill(guest, 0, CHAIN_CLUSTER, 'G');
    expect_images("GB-CDA");
}
END_TEST

START_TEST(nobody_can_write_to_the_layers_meanwhile)
{
    BlockPerm writes = { .used = BLK_PERM_WRITE, .shared = BLK_PERM_ALL };
    const char *nodes[] = { "n0", "n1", "n2", "top" };
    BlockJob *job;

    given_in_memory("AA", "-B", "--", "--");
    for (int i = 0; i < 3; i++) {
        set_read_only(layer[i], false);
    }
    job = commit("device=n3,top=n2,base=n0,filter-node-name=top");
    block_job_hold(job);
    for (int i = 0; i < 4; i++) {
        BlockBackend *blk = blk_new(graph, "writer", &writes);
        GError *error = NULL;

        ck_assert_int_eq(blk_insert_bs(blk, bdrv_find_node(graph, nodes[i]),
                                       &error), -EPERM);
        expect_error(&error, EPERM, i == 3 ? "is being committed"
                                           : "does not share");
        blk_unref(blk);
    }
    block_job_release(job);
    job_end_ok(job);
    expect_layer(layer[0], "AB");
    chain_stop();
}
END_TEST

START_TEST(a_writer_of_a_layer_is_named_when_the_job_begins)
{
    BlockBackend *blk;

    given_in_memory("AA", "-B", "--", "--");
    set_read_only(layer[1], false);
    blk = backend_ok("writer", layer[1], BLK_PERM_WRITE, BLK_PERM_ALL);
    commit_fails("device=n3,top=n2,base=n0", EPERM,
                 "Permission conflict on node 'n1'");
    blk_unref(blk);
    blk = backend_ok("reader", layer[0], BLK_PERM_CONSISTENT_READ,
                     BLK_PERM_CONSISTENT_READ);
    commit_fails("device=n3,top=n2,base=n0", EPERM, "reader");
    blk_unref(blk);
    chain_stop();
}
END_TEST

START_TEST(a_part_of_the_chain_that_a_job_works_on_is_refused)
{
    BlockJob *job;

    given("A", "B", "-", "-", "-");
    job = commit("device=n4,top=n2,base=n0,job-id=j");
    block_job_hold(job);
    is_refused(BLOCK_JOB_COMMIT, "device=n4,top=n1,base=n0");
    is_refused(BLOCK_JOB_COMMIT, "device=n4,top=n3,base=n1");
    is_refused(BLOCK_JOB_STREAM, "device=n4,base=n0");
    is_refused(BLOCK_JOB_STREAM, "device=n1,base=n0");
    block_job_release(job);
    job_end_ok(job);
    expect_backing(layer[3], layer[0], "n0.qcow2");
    expect_images("B");
}
END_TEST

START_TEST(a_stream_above_and_a_commit_below_end_in_any_order_R102)
{
    static const struct {
        BlockJobType type;
        const char *text;
    } kinds[2] = {
        { BLOCK_JOB_STREAM, "device=n4,base=n2,job-id=stream" },
        { BLOCK_JOB_COMMIT, "device=n4,top=n2,base=n1,job-id=commit" },
    };

    for (int i = 0; i < 4; i++) {
        BlockJob *job[2];

        given("AAAA", "-B--", "----", "---D", "----");
        for (int k = 0; k < 2; k++) {
            int which = (i & 1) ^ k;

            job[which] = job_ok(kinds[which].type, kinds[which].text);
            block_job_hold(job[which]);
        }
        job_settle();
        for (int k = 0; k < 2; k++) {
            BlockJob *next = job[(i >> 1) ^ k];

            block_job_release(next);
            job_end_ok(next);
            expect_picture(guest, "ABAD");
        }
        expect_backing(layer[4], layer[1], "n1.qcow2");
        expect_images("ABAD");
    }
}
END_TEST

/* At each turn of a commit of n2 another one of n1 is tried, which must not
 * come between n2 and its base. */
START_TEST(the_chain_is_held_until_the_base_is_in_its_place)
{
    bool over = false;

    for (int turns = 0; !over; turns++) {
        BlockJob *first, *second;

        given("AAAA", "-B--", "--C-", "----");
        first = commit("device=n3,top=n2,base=n1,job-id=first");
        over = job_turns(first, turns);
        second = block_job_start(
            graph, BLOCK_JOB_COMMIT,
            block_options_parse_keyval("device=n3,top=n1,base=n0,job-id=second",
                                       NULL, NULL), NULL);
        job_end_ok(first);
        if (second) {
            job_end_ok(second);
        }
        expect_backing(layer[3], layer[second ? 0 : 1],
                       second ? "n0.qcow2" : "n1.qcow2");
        expect_images("ABCA");
    }
}
END_TEST

typedef struct StartCall {
    const char *text;
    BlockJob *job;
    GError *error;
    bool over;
} StartCall;

static void coroutine_fn start_entry(void *opaque)
{
    StartCall *c = opaque;

    c->job = block_co_job_start(graph, BLOCK_JOB_COMMIT,
                                block_options_parse_keyval(c->text, NULL, NULL),
                                &c->error);
    c->over = true;
}

static void coroutine_fn read_entry(void *opaque)
{
    uint8_t buf[512];

    ck_assert_int_eq(blk_co_pread(guest, 0, sizeof(buf), buf, 0), 0);
    ck_assert_int_eq(buf[0], 'C');
    *(bool *)opaque = true;
}

static void run_beside(CoroutineEntry *entry, void *opaque)
{
    aio_co_schedule(block_graph_aio_context(graph),
                    coroutine_create(entry, opaque));
    job_settle();
}

/* A commit of n2 and n1 ends while another one, of n1 alone, waits for it to
 * change the graph.  What n2 hid would come back if that began then. */
START_TEST(what_left_the_chain_is_not_committed_to_its_base)
{
    StartCall second = { .text = "device=n3,top=n1,base=n0,job-id=second" };
    bool was_read = false;
    BlockJob *first;

    given_in_memory("AAAA", "BB--", "C---", "----");
    set_read_only(layer[0], false);
    first = commit("device=n3,top=n2,base=n0,job-id=first");
    atomic_store(&mem_disk(layer[3])->hold[MEM_READ], true);
    run_beside(read_entry, &was_read);
    run_beside(start_entry, &second);
    ck_assert(!second.over && !was_read);
    atomic_store(&mem_disk(layer[3])->hold[MEM_READ], false);
    job_end_ok(first);
    job_settle();
    ck_assert(second.over && was_read);
    ck_assert_ptr_null(second.job);
    expect_error(&second.error, EINVAL, "not in the chain");
    expect_picture(guest, "CBAA");
    chain_stop();
}
END_TEST

static bool names_file(BlockDriverState *bs, const char *file)
{
    g_autofree char *name = NULL;
    g_autofree char *format = NULL;

    ck_assert_int_eq(bdrv_get_backing_name(bs, &name, &format), 0);
    return g_strcmp0(name, file) == 0;
}

/* While somebody changes the image above he holds its edge. */
START_TEST(a_commit_waits_for_who_holds_the_edge_above)
{
    BdrvChild *edge;
    BlockJob *job;

    given("A", "B", "-");
    job = commit("device=n2,top=n1,job-id=j");
    edge = bdrv_cow_child(layer[2]);
    bdrv_freeze_child(edge);
    while (names_file(layer[2], "n1.qcow2")) {
        aio_poll(block_graph_aio_context(graph), true);
    }
    ck_assert(!job_turns(job, 20));
    if (_i) {
        ck_assert_int_eq(block_job_cancel(job, true, NULL), 0);
    }
    bdrv_unfreeze_child(edge);
    if (_i) {
        job_end_fails(job, ECANCELED, "cancelled");
        expect_backing(layer[2], layer[1], "n1.qcow2");
    } else {
        job_end_ok(job);
        expect_backing(layer[2], layer[0], "n0.qcow2");
    }
    chain_stop();
}
END_TEST

/* A stream above puts the highest layer over the filter while the commit waits;
 * so that one names the base in the end, too. */
START_TEST(an_image_that_comes_above_meanwhile_names_the_base)
{
    BlockJob *lower, *upper;
    BdrvChild *edge;

    given("AAAA", "-B--", "--C-", "---D");
    lower = commit("device=n3,top=n1,base=n0,job-id=lower");
    edge = bdrv_cow_child(layer[2]);
    bdrv_freeze_child(edge);
    while (names_file(layer[2], "n1.qcow2")) {
        aio_poll(block_graph_aio_context(graph), true);
    }
    upper = job_ok(BLOCK_JOB_STREAM, "device=n3,base=n1,job-id=upper");
    job_end_ok(upper);
    ck_assert(names_file(layer[3], "n1.qcow2"));
    bdrv_unfreeze_child(edge);
    job_end_ok(lower);
    expect_backing(layer[3], layer[0], "n0.qcow2");
    expect_images("ABCD");
}
END_TEST

/* A driver that says what it likes of its backing file. */
static int forgetful_get_name(BlockDriverState *bs, char **ret_file,
                              char **ret_format)
{
    *ret_file = g_strdup("another");
    *ret_format = g_strdup("raw");
    return 0;
}

static int coroutine_fn forgetful_change_name(BlockDriverState *bs,
                                              const char *file,
                                              const char *format,
                                              GError **errp)
{
    return 0;
}

START_TEST(an_image_that_does_not_keep_the_name_ends_the_job)
{
    BlockDriver driver = *bdrv_find_driver("mem");
    BlockDriverState *overlay;

    driver.name = "forgetful";
    driver.get_backing_name = forgetful_get_name;
    driver.change_backing_file = forgetful_change_name;
    ck_assert_int_eq(bdrv_register(g_memdup2(&driver, sizeof(driver)), NULL),
                     0);
    given("A", "B", "-");
    overlay = open_ok("forgetful,node-name=o,size=64k,backing=n1");
    job_end_fails(commit("device=o,top=n1"), EIO, "keeps naming");
    expect_backing(overlay, layer[1], "another");
    expect_backing(layer[2], layer[1], "n1.qcow2");
    bdrv_unref(overlay);
    chain_stop();
}
END_TEST

/* --- verbs ---------------------------------------------------------------- */

static void has_ended(void *opaque, int ret)
{
    ck_assert_int_eq(ret, 0);
    *(bool *)opaque = true;
}

START_TEST(a_cancelled_commit_leaves_the_graph_as_it_was)
{
    g_autofree char *before = NULL;

    given("AA", "-BB-", "----");
    before = chain_dump();
    for (int turns = 0; turns < 60; turns++) {
        BlockJob *job = commit("device=n2,top=n1,max-workers=1");

        for (int i = 0; i < turns; i++) {
            aio_poll(block_graph_aio_context(graph), false);
        }
        if (!job_cancel_in_time(job)) {
            ck_assert_int_gt(turns, 0);
            break;
        }
        expect_graph(before);
        ck_assert_int_eq(bdrv_length(layer[0]), 2 * CHAIN_CLUSTER);
        expect_backing(layer[2], layer[1], "n1.qcow2");
        expect_picture(guest, "ABB-");
    }
    block_job_cancel_all(graph);
    expect_images("ABB-");
}
END_TEST

/* A guest's request keeps the base from taking the place, and when it ends
 * somebody holds the edge above: a backup, for hours. */
START_TEST(a_commit_that_waits_in_its_last_step_can_be_cancelled)
{
    BlockIOVec1 iov;
    uint8_t byte[512];
    bool over = false;
    BdrvChild *edge;
    BlockJob *job;

    given_in_memory("A", "-B", "--");
    job = commit("device=n2,top=n1");
    mem_disk(layer[2])->hold[MEM_READ] = true;
    blk_aio_preadv(guest, 0, block_iov_buf(&iov, byte, sizeof(byte)), 0,
                   has_ended, &over);
    job_reach(job, BLOCK_JOB_PENDING);
    job_settle();
    edge = bdrv_cow_child(layer[2]);
    bdrv_freeze_child(edge);
    mem_disk(layer[2])->hold[MEM_READ] = false;
    ck_assert(!job_turns(job, 50));
    ck_assert(over);
    ck_assert_int_eq(bdrv_length(layer[0]), 2 * CHAIN_CLUSTER);
    if (_i) {
        ck_assert_int_eq(block_job_cancel(job, true, NULL), 0);
        job_end_fails(job, ECANCELED, "cancelled");
        bdrv_unfreeze_child(edge);
        while (block_graph_nr_nodes(graph) > 3 ||
               !bdrv_is_read_only(layer[0])) {
            aio_poll(block_graph_aio_context(graph), true);
        }
        expect_backing(layer[2], layer[1], NULL);
        ck_assert_int_eq(bdrv_length(layer[0]), CHAIN_CLUSTER);
    } else {
        bdrv_unfreeze_child(edge);
        job_end_ok(job);
        expect_backing(layer[2], layer[0], NULL);
        expect_picture(guest, "AB");
    }
    chain_stop();
}
END_TEST

START_TEST(a_commit_whose_write_hangs_can_be_cancelled)
{
    BlockJob *job;

    given_in_memory("AA", "-B", "--");
    atomic_store(&mem_disk(layer[0])->hold[MEM_WRITE], true);
    job = commit("device=n2,top=n1");
    job_settle();
    ck_assert_int_eq(block_job_cancel(job, true, NULL), 0);
    job_end_fails(job, ECANCELED, "cancelled");
    atomic_store(&mem_disk(layer[0])->hold[MEM_WRITE], false);
    for (int i = 0; i < 100000 && (block_graph_nr_nodes(graph) > 3 ||
                                   !bdrv_is_read_only(layer[0])); i++) {
        aio_poll(block_graph_aio_context(graph), i % 100 == 99);
    }
    expect_backing(layer[2], layer[1], NULL);
    expect_picture(guest, "AB");
    chain_stop();
}
END_TEST

START_TEST(nothing_changes_before_it_is_finalized)
{
    g_autofree char *before = NULL;
    BlockJob *job;

    given("AA", "-B", "--");
    before = chain_dump();
    job = commit("device=n2,top=n1,auto-finalize=off");
    job_reach(job, BLOCK_JOB_PENDING);
    expect_picture(guest, "AB");
    ck_assert_int_eq(block_job_cancel(job, false, NULL), 0);
    job_end_fails(job, ECANCELED, "cancelled");
    expect_graph(before);
    expect_backing(layer[2], layer[1], "n1.qcow2");
    job = commit("device=n2,top=n1,auto-finalize=off");
    job_reach(job, BLOCK_JOB_PENDING);
    ck_assert_int_eq(block_job_finalize(job, NULL), 0);
    job_end_ok(job);
    expect_backing(layer[2], layer[0], "n0.qcow2");
    expect_images("AB");
}
END_TEST

START_TEST(a_paused_commit_sends_no_requests)
{
    unsigned writes;
    BlockJob *job;

    given_in_memory("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
                    "BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB",
                    "--------------------------------");
    job = commit("device=n2,top=n1,max-workers=1,speed=1G");
    ck_assert_int_eq(block_job_pause(job, NULL), 0);
    job_reach(job, BLOCK_JOB_PAUSED);
    writes = mem_disk(layer[0])->count[MEM_WRITE];
    job_settle();
    ck_assert_uint_eq(mem_disk(layer[0])->count[MEM_WRITE], writes);
    ck_assert_int_eq(block_job_resume(job, NULL), 0);
    ck_assert_int_eq(block_job_set_speed(job, 0, NULL), 0);
    job_end_ok(job);
    expect_backing(layer[2], layer[0], NULL);
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

    given("AA", "-B0-", "---C", "----");
    before = chain_dump();
    faulty_set(kinds, n, 1);
    job = block_job_start(
        graph, BLOCK_JOB_COMMIT,
        block_options_parse_keyval("device=n3,top=n2,base=n0", NULL, NULL),
        &error);
    good = job && block_job_wait(job, &error) == 0;
    failed = faulty_has_failed();
    faulty_clear();
    block_job_unref(job);
    ck_assert(good == !error);
    expect_backing(layer[3], good ? layer[0] : layer[2],
                   good ? "n0.qcow2" : "n2.qcow2");
    if (!good) {
        expect_graph(before);
    }
    expect_picture(guest, "AB-C");
    expect_images("AB-C");
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

START_TEST(with_ignore_it_tries_again_until_all_is_copied)
{
    given_in_memory("AA", "BB", "--");
    mem_disk(layer[1])->fail[MEM_READ] = EIO;
    mem_disk(layer[0])->fail[MEM_WRITE] = EIO;
    commit_whole("device=n2,top=n1,on-error=ignore");
    expect_layer(layer[0], "BB");
    ck_assert_ptr_nonnull(strstr(job_events->str, "ERROR ERROR"));
    chain_stop();
}
END_TEST

static void stops(int i, MemOp op, int err, const char *policy)
{
    g_autofree char *text = g_strdup_printf("device=n2,top=n1,on-error=%s",
                                            policy);
    BlockJob *job;

    given_in_memory("AAAA", "-BB-", "----");
    mem_disk(layer[i])->fail[op] = err;
    job = commit(text);
    job_reach(job, BLOCK_JOB_PAUSED);
    ck_assert_int_eq(info_of(job).io_status, err == ENOSPC
                                                 ? BLOCK_JOB_IO_NOSPACE
                                                 : BLOCK_JOB_IO_FAILED);
    ck_assert_int_eq(block_job_resume(job, NULL), 0);
    job_end_ok(job);
    expect_layer(layer[0], "ABBA");
    chain_stop();
}

START_TEST(with_stop_and_enospc_it_waits_until_it_is_resumed)
{
    stops(1, MEM_READ, EIO, "stop");
    stops(0, MEM_WRITE, EIO, "stop");
    stops(0, MEM_WRITE, ENOSPC, "enospc");
    given_in_memory("A", "B", "-");
    mem_disk(layer[0])->fail[MEM_WRITE] = EIO;
    job_end_fails(commit("device=n2,top=n1,on-error=enospc"), EIO,
                  "could not write to node 'n0'");
    mem_disk(layer[1])->fail[MEM_READ] = EIO;
    job_end_fails(commit("device=n2,top=n1"), EIO, "could not read node 'n1'");
    mem_disk(layer[0])->fail[MEM_FLUSH] = EIO;
    job_end_fails(commit("device=n2,top=n1"), EIO, "could not flush");
    chain_stop();
}
END_TEST

START_TEST(a_base_that_cannot_grow_is_named)
{
    given_in_memory("A", "-B", "--");
    mem_disk(layer[0])->fail[MEM_TRUNCATE] = ENOSPC;
    job_end_fails(commit("device=n2,top=n1"), ENOSPC,
                  "node 'n0' could not be made as long as node 'n1'");
    expect_backing(layer[2], layer[1], NULL);
    chain_stop();
}
END_TEST

/* --- bad input ------------------------------------------------------------ */

START_TEST(a_name_that_the_image_cannot_record_is_refused)
{
    g_autofree char *long_name = g_strnfill(1024, 'x');
    g_autofree char *long_text = g_strdup_printf("%s,backing-file=%s", "device=n2,top=n1,base=n0",
                                                 long_name);

    given("A", "-", "-");
    commit_fails(long_text, EINVAL, "it is longer than");
    commit_fails("device=n2,top=n1,base=n0" ",backing-file=nbd:x", EINVAL, "refused because");
    commit_fails("device=n2,top=n1,base=n0" ",backing-file=/dev/null", EINVAL, "refused because");
    chain_stop();
}
END_TEST

/* Nor what its header has no room for. */
START_TEST(a_format_that_the_image_cannot_record_is_refused)
{
    BlockDriverState *bs[3];
    g_autofree char *name = g_strnfill(600, 'x');
    g_autofree char *masked = g_strdup_printf(
        "device=b,top=a,backing-mask-protocol=on,backing-file=%s", name);
    g_autofree char *text = options_text("file,node-name=raw,"
                                         "filename=%s/raw,read-only=on");

    make_file("raw", CHAIN_CLUSTER);
    make_image_ok("a", "qcow2,size=64k");
    make_image_ok("b", "qcow2,size=64k,cluster_size=512");
    bs[0] = open_ok(text);
    bs[1] = image_open("a", "qcow2,node-name=a,backing=raw,read-only=on");
    bs[2] = image_open("b", "qcow2,node-name=b,backing=a");
    commit_fails("device=b,top=a", EINVAL, "format 'file'");
    commit_fails(masked, ENOSPC, "does not fit");
    for (int i = 0; i < 3; i++) {
        bdrv_unref(bs[i]);
    }
}
END_TEST

START_TEST(nodes_and_options_that_make_no_sense_are_refused)
{
    BlockDriverState *other = open_ok("mem,node-name=other,size=64k");

    given("A", "-", "-");
    commit_fails("top=n1,job-id=j", EINVAL, "device");
    commit_fails("device=none", ENOENT, "no node 'none'");
    commit_fails("device=n2,top=none", ENOENT, "no node 'none'");
    commit_fails("device=n2,base=none", ENOENT, "no node 'none'");
    commit_fails("device=n2,top=other", EINVAL, "not in the chain");
    commit_fails("device=n2,top=n1,base=other", EINVAL, "not in the chain");
    commit_fails("device=n2,top=n0,base=n1", EINVAL, "not in the chain");
    commit_fails("device=n1,top=n2", EINVAL, "not in the chain");
    commit_fails("device=n2,top=n1,base=n1", EINVAL, "to itself");
    commit_fails("device=n2,top=n0", EINVAL, "to itself");
    commit_fails("device=n2,top=n1,max-workers=0", EINVAL, "max-workers");
    commit_fails("device=n2,top=n1,max-workers=65", EINVAL, "max-workers");
    commit_fails("device=n2,top=n1,on-error=no", EINVAL, "on-error");
    commit_fails("device=n2,top=n1,speed=-1", EINVAL, "speed");
    commit_fails("device=n2,top=n1,nonsense=1", EINVAL, "nonsense");
    commit_fails("device=n2,top=n1,filter-node-name=n0", EEXIST, "n0");
    bdrv_unref(other);
    chain_stop();
}
END_TEST

START_TEST(a_base_that_cannot_be_written_is_refused)
{
    BlockDriverState *bs[3];
    g_autofree char *text = options_text("file,node-name=f,read-only=on,"
                                         "filename=%s/a");

    make_image_ok("a", "qcow2,size=64k");
    make_image_ok("b", "qcow2,size=64k");
    make_image_ok("c", "qcow2,size=64k");
    bs[0] = open_ok(text);
    bs[1] = image_open("b", "qcow2,node-name=b,read-only=on,"
                       "backing.driver=qcow2,backing.node-name=a,"
                       "backing.file=f,backing.read-only=on");
    bs[2] = image_open("c", "qcow2,node-name=c,backing=b");
    commit_fails("device=c,top=b", EACCES, "read-only");
    for (int i = 2; i >= 0; i--) {
        bdrv_unref(bs[i]);
    }
}
END_TEST

START_TEST(the_filter_alone_lets_reads_through_and_no_writes)
{
    BlockDriverState *bs = open_ok("commit-top,node-name=ct,file.driver=mem,"
                                   "file.size=64k");
    BlockPerm writes = { .used = BLK_PERM_RESIZE, .shared = BLK_PERM_ALL };
    BlockBackend *blk = blk_new(graph, "writer", &writes);
    GError *error = NULL;

    job_expect(bs, 0, 64 << 10, 0);
    ck_assert_int_eq(blk_insert_bs(blk, bs, &error), -EPERM);
    expect_error(&error, EPERM, "does not allow 'resize'");
    blk_unref(blk);
    bdrv_unref(bs);
}
END_TEST

static void add_tests(TCase *tcase)
{
    PROMISE(tcase, the_base_has_all_and_takes_the_place_of_the_layers);
    PROMISE(tcase, layers_below_the_base_are_left_alone);
    PROMISE(tcase, without_a_base_it_is_the_lowest_layer);
    PROMISE(tcase, the_images_above_record_the_text_that_was_given);
    PROMISE(tcase, all_overlays_of_the_top_get_the_base_read_only_ones_too);
    PROMISE(tcase, zeroes_stay_zeroes_without_data_R103);
    PROMISE(tcase, a_base_that_is_too_short_grows);
    PROMISE(tcase, what_a_longer_layer_below_the_base_has_does_not_appear);
    PROMISE(tcase, what_a_longer_base_has_does_not_appear_R103);
    PROMISE(tcase, a_short_layer_between_shows_zeroes_and_not_the_base_R103);
    PROMISE(tcase, filters_between_go_with_the_layers);
    PROMISE(tcase, a_filter_that_must_see_all_writes_does_so_or_is_in_the_way);
    PROMISE(tcase, readers_see_the_same_at_every_moment_and_guests_can_write);
    PROMISE(tcase, nobody_can_write_to_the_layers_meanwhile);
    PROMISE(tcase, a_writer_of_a_layer_is_named_when_the_job_begins);
    PROMISE(tcase, a_part_of_the_chain_that_a_job_works_on_is_refused);
    PROMISE(tcase, a_stream_above_and_a_commit_below_end_in_any_order_R102);
    PROMISE(tcase, the_chain_is_held_until_the_base_is_in_its_place);
    PROMISE(tcase, what_left_the_chain_is_not_committed_to_its_base);
    tcase_add_loop_test(tcase, a_commit_waits_for_who_holds_the_edge_above, 0,
                        2);
    PROMISE(tcase, an_image_that_comes_above_meanwhile_names_the_base);
    PROMISE(tcase, an_image_that_does_not_keep_the_name_ends_the_job);
    PROMISE(tcase, a_cancelled_commit_leaves_the_graph_as_it_was);
    tcase_add_loop_test(tcase,
                        a_commit_that_waits_in_its_last_step_can_be_cancelled,
                        0, 2);
    PROMISE(tcase, a_commit_whose_write_hangs_can_be_cancelled);
    PROMISE(tcase, nothing_changes_before_it_is_finalized);
    PROMISE(tcase, a_paused_commit_sends_no_requests);
    PROMISE(tcase,
            whichever_request_fails_the_content_stays_and_so_does_the_graph);
    PROMISE(tcase, with_ignore_it_tries_again_until_all_is_copied);
    PROMISE(tcase, with_stop_and_enospc_it_waits_until_it_is_resumed);
    PROMISE(tcase, a_base_that_cannot_grow_is_named);
    PROMISE(tcase, a_name_that_the_image_cannot_record_is_refused);
    PROMISE(tcase, a_format_that_the_image_cannot_record_is_refused);
    PROMISE(tcase, nodes_and_options_that_make_no_sense_are_refused);
    PROMISE(tcase, a_base_that_cannot_be_written_is_refused);
    PROMISE(tcase, the_filter_alone_lets_reads_through_and_no_writes);
}

int main(void)
{
    return chain_main("commit", add_tests);
}
