/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The commit job for the layer that guests write to.
 */
#include "chain-fixture.h"

static BlockJob *ready_commit(const char *text)
{
    BlockJob *job = job_ok(BLOCK_JOB_COMMIT, text);

    job_reach(job, BLOCK_JOB_READY);
    return job;
}

static void complete_ok(BlockJob *job)
{
    ck_assert_int_eq(block_job_complete(job, NULL), 0);
    job_end_ok(job);
}

static void write_cluster(int64_t i, char c)
{
    job_fill(guest, i * CHAIN_CLUSTER, CHAIN_CLUSTER, c);
}

START_TEST(guests_go_on_at_the_base_that_has_all)
{
    BlockJobInfo info;
    BlockJob *job;

    given("AAAA-", "-BB--", "--C--", "---D-");
    job = ready_commit("device=n3,base=n0");
    block_job_query(job, &info);
    ck_assert_int_eq(info.type, BLOCK_JOB_COMMIT);
    write_cluster(4, 'E');
    complete_ok(job);
    ck_assert_ptr_eq(blk_bs(guest), layer[0]);
    expect_picture(guest, "ABCDE");
    expect_layer(layer[0], "ABCDE");
    ck_assert(!bdrv_is_read_only(layer[0]));
    write_cluster(0, 'W');
    expect_picture(guest, "WBCDE");
    chain_stop();
}
END_TEST

START_TEST(layers_below_the_base_are_left_alone)
{
    given("AAAA", "-B--", "--C-", "---D");
    complete_ok(ready_commit("device=n3,top=n3,base=n1"));
    expect_layer(layer[0], "AAAA");
    expect_layer(layer[1], "-BCD");
    ck_assert_ptr_eq(blk_bs(guest), layer[1]);
    expect_picture(guest, "ABCD");
    chain_stop();
}
END_TEST

START_TEST(without_a_base_it_is_the_lowest_layer)
{
    given_in_memory("AA", "-B");
    complete_ok(ready_commit("device=n1"));
    ck_assert_ptr_eq(blk_bs(guest), layer[0]);
    expect_picture(guest, "AB");
    chain_stop();
}
END_TEST

START_TEST(a_ready_commit_that_is_cancelled_leaves_the_chain)
{
    g_autofree char *before = NULL;
    BlockJob *job;

    given("AAA", "-B-");
    before = chain_dump();
    job = ready_commit("device=n1");
    write_cluster(2, 'C');
    ck_assert_int_eq(block_job_cancel(job, _i, NULL), 0);
    ck_assert_int_eq(block_job_wait(job, NULL), _i ? -ECANCELED : 0);
    block_job_unref(job);
    job_settle();
    expect_graph(before);
    expect_picture(guest, "ABC");
    if (!_i) {
        expect_layer(layer[0], "ABC");
    }
    ck_assert(bdrv_is_read_only(layer[0]));
    expect_images("ABC");
}
END_TEST

START_TEST(zeroes_stay_zeroes_without_data_R103)
{
    given("AA--", "-0-0");
    complete_ok(ready_commit("device=n1"));
    expect_layer(layer[0], "A0--");
    expect_picture(guest, "A---");
    chain_stop();
}
END_TEST

START_TEST(a_base_that_is_too_short_grows)
{
    BlockJob *job;

    given("AA", "-BB-");
    job = ready_commit("device=n1");
    ck_assert_int_eq(bdrv_length(layer[0]), 4 * CHAIN_CLUSTER);
    expect_picture(guest, "ABB-");
    if (_i) {
        ck_assert_int_eq(block_job_cancel(job, true, NULL), 0);
        job_end_fails(job, ECANCELED, "cancelled");
        ck_assert_int_eq(bdrv_length(layer[0]), 2 * CHAIN_CLUSTER);
        expect_images("ABB-");
        return;
    }
    complete_ok(job);
    expect_picture(guest, "ABB-");
    chain_stop();
}
END_TEST

START_TEST(what_a_longer_layer_below_the_base_has_does_not_appear)
{
    given("AAAA", "B", "--C-");
    complete_ok(ready_commit("device=n2,base=n1"));
    expect_picture(guest, "B-C-");
    expect_layer(layer[1], "B0C0");
    chain_stop();
}
END_TEST

START_TEST(guests_may_write_at_any_turn_of_the_end)
{
    bool over = false;

    for (int turns = 0; !over; turns++) {
        BlockJobInfo info;
        BlockJob *job;

        nr_layers = 0;
        given_in_memory("AAA", "-B-");
        job = ready_commit("device=n1");
        ck_assert_int_eq(block_job_complete(job, NULL), 0);
        for (int i = 0; i < turns; i++) {
            aio_poll(block_graph_aio_context(graph), false);
        }
        block_job_query(job, &info);
        over = info.status >= BLOCK_JOB_CONCLUDED;
        write_cluster(2, 'W');
        job_end_ok(job);
        ck_assert_ptr_eq(blk_bs(guest), layer[0]);
        expect_picture(guest, "ABW");
        chain_stop();
    }
}
END_TEST

START_TEST(readers_of_a_layer_keep_guests_from_the_base)
{
    BlockBackend *reader;
    BlockJob *job;

    given("AAA", "-B-", "---");
    reader = backend_ok("reader", layer[1], BLK_PERM_CONSISTENT_READ,
                        BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE_UNCHANGED);
    job = ready_commit("device=n2,base=n0");
    ck_assert_int_eq(block_job_complete(job, NULL), 0);
    job_end_fails(job, EPERM, "n0");
    expect_picture(reader, "ABA");
    expect_picture(guest, "ABA");
    ck_assert_ptr_eq(blk_bs(guest), layer[2]);
    blk_unref(reader);
    expect_images("ABA");
}
END_TEST

START_TEST(an_error_at_any_write_is_treated_as_the_policy_says)
{
    bool failed = true;

    for (unsigned n = 1; failed; n++) {
        BlockJobInfo info;
        BlockJob *job;

        nr_layers = 0;
        given("AAAA", "-BCD");
        job = job_ok(BLOCK_JOB_COMMIT, _i ? "device=n1,on-error=ignore"
                                          : "device=n1");
        faulty_set(FAULTY_CHANGES, n, 1);
        do {
            aio_poll(block_graph_aio_context(graph), true);
            block_job_query(job, &info);
            if (info.status == BLOCK_JOB_READY) {
                block_job_complete(job, NULL);
            }
        } while (info.status < BLOCK_JOB_CONCLUDED);
        failed = faulty_has_failed();
        faulty_clear();
        ck_assert_ptr_eq(blk_bs(guest), layer[info.ret < 0]);
        expect_picture(guest, "ABCD");
        block_job_unref(job);
        job_settle();
        chain_stop();
        ck_assert_uint_lt(n, 60);
    }
}
END_TEST

START_TEST(bad_options_are_refused_and_change_nothing)
{
    BlockDriverState *other;

    given("A", "-", "-");
    other = open_ok("mem,node-name=other,size=64k");
    job_fails(BLOCK_JOB_COMMIT, "device=n2,base=other", EINVAL,
              "not in the chain");
    job_fails(BLOCK_JOB_COMMIT, "device=n2,base=n2", EINVAL, "to itself");
    job_fails(BLOCK_JOB_COMMIT, "device=n2,base=none", ENOENT, "'none'");
    job_fails(BLOCK_JOB_COMMIT, "device=n2,backing-file=x", EINVAL,
              "backing-file");
    job_fails(BLOCK_JOB_COMMIT, "device=n2,nonsense=1", EINVAL, "nonsense");
    job_fails(BLOCK_JOB_COMMIT, "device=n2,max-workers=0", EINVAL,
              "max-workers");
    job_fails(BLOCK_JOB_COMMIT, "device=n2,max-workers=65", EINVAL,
              "max-workers");
    job_fails(BLOCK_JOB_COMMIT, "device=n2,on-error=no", EINVAL, "on-error");
    job_fails(BLOCK_JOB_COMMIT, "device=n2,speed=-1", EINVAL, "speed");
    job_fails(BLOCK_JOB_COMMIT, "device=n2,filter-node-name=n0", EEXIST,
              "n0");
    ck_assert(bdrv_is_read_only(layer[0]));
    bdrv_unref(other);
    expect_images("A");
}
END_TEST

/* The filter is in the graph when it turns out that the base must not grow. */
START_TEST(a_commit_that_is_refused_by_a_user_of_the_base_leaves_no_filter)
{
    g_autofree char *before = NULL;
    GError *error = NULL;
    BlockBackend *user;

    given_in_memory("AA", "-B");
    user = backend_ok("user", layer[0], BLK_PERM_CONSISTENT_READ,
                      BLK_PERM_ALL & ~BLK_PERM_RESIZE);
    before = chain_dump();
    ck_assert_ptr_null(block_job_start(
        graph, BLOCK_JOB_COMMIT, opts("device=n1,base=n0"), &error));
    expect_error(&error, EPERM, "resize");
    expect_graph(before);
    blk_unref(user);
    complete_ok(ready_commit("device=n1,base=n0"));
    expect_picture(guest, "AB");
    chain_stop();
}
END_TEST

START_TEST(a_part_of_the_chain_that_a_job_works_on_is_refused)
{
    BlockJob *job;

    given("A", "B", "-", "-");
    job = job_ok(BLOCK_JOB_STREAM, "device=n2,base=n0,job-id=j");
    block_job_hold(job);
    is_refused(BLOCK_JOB_COMMIT, "device=n3,base=n0");
    is_refused(BLOCK_JOB_COMMIT, "device=n3,base=n1");
    ck_assert(bdrv_is_read_only(layer[0]));
    block_job_release(job);
    job_end_ok(job);
    job = ready_commit("device=n3,base=n2,job-id=j");
    is_refused(BLOCK_JOB_COMMIT, "device=n3,base=n0");
    is_refused(BLOCK_JOB_STREAM, "device=n3,base=n0");
    complete_ok(job);
    expect_backing(layer[2], layer[0], "n0.qcow2");
    ck_assert_ptr_eq(blk_bs(guest), layer[2]);
    chain_stop();
}
END_TEST

/* Not a commit, but a mirror that needs images, too. */
START_TEST(a_file_that_grows_under_its_mirror_is_followed)
{
    g_autofree char *from = options_text("file,node-name=source,"
                                         "filename=%s/a");
    g_autofree char *to = options_text("file,node-name=target,"
                                       "filename=%s/b");
    BlockDriverState *source, *target, *image;
    BlockJob *job;

    make_image_ok("a", "qcow2,size=4M");
    make_image_ok("b", "qcow2,size=4M");
    source = open_ok(from);
    target = open_ok(to);
    image = open_ok("qcow2,node-name=image,file=source");
    guest = backend_ok("guest", image, BLK_PERM_CONSISTENT_READ |
                       BLK_PERM_WRITE, BLK_PERM_ALL);
    job = job_ok(BLOCK_JOB_MIRROR, _i ? "job-id=j,device=source,target=target,"
                                        "sync=full,copy-mode=write-blocking"
                                      : "job-id=j,device=source,target=target,"
                                        "sync=full");
    job_reach(job, BLOCK_JOB_READY);
    for (int i = 0; i < 16; i++) {
        write_cluster(3 * i % 64, 'a' + i);
    }
    complete_ok(job);
    ck_assert_ptr_eq(bdrv_child_bs(bdrv_find_child(image, "file")), target);
    write_cluster(63, 'z');
    blk_unref(guest);
    bdrv_unref(image);
    bdrv_unref(target);
    bdrv_unref(source);
    guest = image_backend("b", "qcow2");
    for (int i = 0; i < 16; i++) {
        job_expect(blk_bs(guest), 3 * i % 64 * CHAIN_CLUSTER, CHAIN_CLUSTER,
                   'a' + i);
    }
    job_expect(blk_bs(guest), 63 * CHAIN_CLUSTER, CHAIN_CLUSTER, 'z');
    check_sound(guest);
    blk_unref(guest);
}
END_TEST

/* A disk in memory that writes make longer, as long as the file "a". */
static BlockDriverState *growing_disk(const char *name, int64_t bytes)
{
    g_autofree char *text = g_strdup_printf(
        "mem,node-name=%s,grow=on,size=%" G_GINT64_FORMAT, name, bytes);

    return open_ok(text);
}

/* An image whose file ends in the middle of a granule, and grows there while
 * the only copy at a time is that of its end. */
START_TEST(a_file_that_grows_inside_a_granule_is_followed)
{
    g_autofree char *path = path_of("a");
    g_autofree char *bytes = NULL;
    BlockDriverState *source, *target, *image;
    BlockBackend *blk;
    size_t length;
    BlockJob *job;

    make_image_ok("a", "qcow2,size=1M,cluster_size=512");
    ck_assert(g_file_get_contents(path, &bytes, &length, NULL));
    source = growing_disk("source", length);
    target = growing_disk("target", length);
    blk = backend_ok("fill", source, BLK_PERM_WRITE, BLK_PERM_ALL);
    ck_assert_int_eq(blk_pwrite(blk, 0, length, bytes, 0), 0);
    blk_unref(blk);
    image = open_ok("qcow2,node-name=image,file=source");
    guest = backend_ok("guest", image, BLK_PERM_CONSISTENT_READ |
                       BLK_PERM_WRITE, BLK_PERM_ALL);
    job = job_ok(BLOCK_JOB_MIRROR, "job-id=j,device=source,target=target,"
                 "sync=full,granularity=64k,max-workers=1");
    job_reach(job, BLOCK_JOB_READY);
    mem_disk(target)->hold[MEM_WRITE] = true;
    job_fill(guest, 0, 4096, 'a');
    while (mem_disk(target)->held == 0) {
        aio_poll(block_graph_aio_context(graph), true);
    }
    job_fill(guest, 4096, 4096, 'b');
    mem_disk(target)->hold[MEM_WRITE] = false;
    complete_ok(job);
    ck_assert_ptr_eq(bdrv_child_bs(bdrv_find_child(image, "file")), target);
    blk_unref(guest);
    bdrv_unref(image);
    image = open_ok("qcow2,node-name=image,file=target");
    job_expect(image, 0, 4096, 'a');
    job_expect(image, 4096, 4096, 'b');
    bdrv_unref(image);
    bdrv_unref(target);
    bdrv_unref(source);
}
END_TEST

/* --- copies inside the storage -------------------------------------------- */

static BlockDriverState *copied_from;
static unsigned ranges_copied;

static int coroutine_fn storage_copy_from(BlockDriverState *bs,
                                          const BlockCopyRange *copy)
{
    BlockCopyRange below = *copy;

    if (!mem_disk(bs)->allocated[copy->src_offset / MEM_CLUSTER]) {
        below.src = bdrv_cow_child(bs);
        return bdrv_co_copy_range_from(&below);
    }
    copied_from = bs;
    return bdrv_co_copy_range_to(copy);
}

/* Not to the same place. */
static int coroutine_fn storage_copy_to(BlockDriverState *bs,
                                        const BlockCopyRange *copy)
{
    if (copied_from == bs) {
        return -EINVAL;
    }
    memcpy(mem_disk(bs)->data + copy->dst_offset,
           mem_disk(copied_from)->data + copy->src_offset, copy->bytes);
    ranges_copied++;
    return 0;
}

START_TEST(what_the_base_has_already_is_not_copied_to_it)
{
    static BlockDriver driver;
    unsigned writes;

    driver = *bdrv_find_driver("mem");
    driver.name = "storage";
    driver.copy_range_from = storage_copy_from;
    driver.copy_range_to = storage_copy_to;
    ck_assert_int_eq(bdrv_register(&driver, NULL), 0);
    layer[0] = open_ok("storage,node-name=n0,size=256k");
    layer[1] = open_ok("storage,node-name=n1,size=256k,backing=n0");
    nr_layers = 2;
    paint(layer[0], "AAAA");
    add_guest();
    /* Parts of one unit of the job, and one as a whole. */
    job_fill(guest, MEM_CLUSTER, MEM_CLUSTER, 'B');
    job_fill(guest, 3 * MEM_CLUSTER, MEM_CLUSTER, 'C');
    job_fill(guest, 2 * CHAIN_CLUSTER, CHAIN_CLUSTER, 'D');
    writes = mem_disk(layer[0])->count[MEM_WRITE];
    complete_ok(ready_commit("device=n1,base=n0,max-workers=1"));
    ck_assert_uint_eq(mem_disk(layer[0])->count[MEM_WRITE], writes);
    ck_assert_uint_eq(ranges_copied, 3);
    job_expect(layer[0], 0, MEM_CLUSTER, 'A');
    job_expect(layer[0], MEM_CLUSTER, MEM_CLUSTER, 'B');
    job_expect(layer[0], 2 * MEM_CLUSTER, MEM_CLUSTER, 'A');
    job_expect(layer[0], 3 * MEM_CLUSTER, MEM_CLUSTER, 'C');
    job_expect(layer[0], 2 * CHAIN_CLUSTER, CHAIN_CLUSTER, 'D');
    chain_stop();
}
END_TEST

static void add_tests(TCase *tcase)
{
    PROMISE(tcase, a_file_that_grows_inside_a_granule_is_followed);
    tcase_add_loop_test(tcase, a_file_that_grows_under_its_mirror_is_followed,
                        0, 2);
    PROMISE(tcase, guests_go_on_at_the_base_that_has_all);
    PROMISE(tcase, layers_below_the_base_are_left_alone);
    PROMISE(tcase, without_a_base_it_is_the_lowest_layer);
    tcase_add_loop_test(
        tcase, a_ready_commit_that_is_cancelled_leaves_the_chain, 0, 2);
    PROMISE(tcase, zeroes_stay_zeroes_without_data_R103);
    tcase_add_loop_test(tcase, a_base_that_is_too_short_grows, 0, 2);
    PROMISE(tcase, what_a_longer_layer_below_the_base_has_does_not_appear);
    PROMISE(tcase, guests_may_write_at_any_turn_of_the_end);
    PROMISE(tcase, readers_of_a_layer_keep_guests_from_the_base);
    tcase_add_loop_test(
        tcase, an_error_at_any_write_is_treated_as_the_policy_says, 0, 2);
    PROMISE(tcase, bad_options_are_refused_and_change_nothing);
    PROMISE(tcase,
            a_commit_that_is_refused_by_a_user_of_the_base_leaves_no_filter);
    PROMISE(tcase, a_part_of_the_chain_that_a_job_works_on_is_refused);
    PROMISE(tcase, what_the_base_has_already_is_not_copied_to_it);
}

int main(void)
{
    return chain_main("active-commit", add_tests);
}
