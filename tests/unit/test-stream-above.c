/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Streams while others come above the filter of the job: it copies below that,
 * and takes it out at the end.
 */
#include "chain-fixture.h"

#include "block/graph/graph-int.h"
#include "block/jobs/chain.h"

/* A stream to "n1", with its filter "cor", that has not begun to copy. */
static BlockJob *held_stream(void)
{
    BlockJob *job = job_ok(BLOCK_JOB_STREAM,
                           "device=n1,filter-node-name=cor,job-id=j");

    block_job_hold(job);
    job_settle();
    return job;
}

/* It takes the place of the job's filter for all who read, the job as well. */
START_TEST(a_filter_that_comes_above_the_job_swallows_no_copy)
{
    BlockDriverState *filter;
    BlockJob *job;

    given("AAAA", "-B--", "--C-");
    set_read_only(layer[1], false);
    filter = open_ok("copy-on-read,node-name=above,file=n1,bottom=n1");
    job = held_stream();
    ck_assert_int_eq(bdrv_replace_node(bdrv_find_node(graph, "cor"), filter,
                                       NULL), 0);
    block_job_release(job);
    job_end_ok(job);
    ck_assert_int_eq(bdrv_drop_filter(filter, NULL), 0);
    bdrv_unref(filter);
    expect_backing(layer[1], NULL, NULL);
    expect_images("ABCA");
}
END_TEST

/* A snapshot, above the job's filter, takes over all who read that, too. */
START_TEST(an_overlay_that_comes_above_the_job_gets_no_copy)
{
    BlockDriverState *overlay;
    BlockJob *job;

    given("AAAA", "-B--", "--C-");
    make_image_ok("o", "size=256k");
    overlay = image_open("o", "qcow2,node-name=o");
    set_read_only(layer[1], false);
    job = held_stream();
    ck_assert_int_eq(bdrv_set_backing(overlay, bdrv_find_node(graph, "cor"),
                                      NULL), 0);
    ck_assert_int_eq(bdrv_replace_node(bdrv_find_node(graph, "cor"), overlay,
                                       NULL), 0);
    block_job_release(job);
    job_end_ok(job);
    expect_layer(overlay, "----");
    blk_unref(g_steal_pointer(&guest));
    bdrv_unref(overlay);
    expect_backing(layer[1], NULL, NULL);
    expect_images("ABCA");
}
END_TEST

/* Who read the job's filter reads the copy then, which needs none. */
START_TEST(a_mirror_that_comes_above_the_job_may_switch_meanwhile)
{
    BlockDriverState *target;
    BlockJob *job, *mirror;

    given("AAAA", "-B--");
    target = open_ok("mem,node-name=t,size=256k");
    job = held_stream();
    mirror = job_ok(BLOCK_JOB_MIRROR, "job-id=m,device=cor,target=t,"
                    "sync=none"); /* else its reads make the copies */
    job_reach(mirror, BLOCK_JOB_READY);
    ck_assert_int_eq(block_job_complete(mirror, NULL), 0);
    job_end_ok(mirror);
    ck_assert_ptr_eq(blk_bs(guest), target);
    block_job_release(job);
    job_end_ok(job);
    expect_layer(layer[1], "ABAA");
    expect_backing(layer[1], NULL, NULL);
    blk_unref(g_steal_pointer(&guest));
    bdrv_unref(target);
    expect_images("ABAA");
}
END_TEST

/* Or a job that comes above keeps the filter for all its time. */
START_TEST(the_filter_and_the_chain_are_held_until_they_go)
{
    BlockDriverState *filter;
    bool ends = false;
    BlockJob *job;

    given_in_memory("AAAA", "-B--", "--C-", "---D");
    job = job_ok(BLOCK_JOB_STREAM, "device=n3,base=n0,job-id=j,"
                 "auto-finalize=off,filter-node-name=cor");
    job_reach(job, BLOCK_JOB_PENDING);
    aio_co_enter(block_graph_aio_context(graph),
                 coroutine_create(changer_entry, &ends));
    ck_assert_int_eq(block_job_finalize(job, NULL), 0);
    ck_assert(!job_turns(job, 50)); /* it waits for its turn */
    filter = bdrv_find_node(graph, "cor");
    ck_assert_ptr_eq(blk_bs(guest), filter);
    ck_assert(chain_is_held(filter));
    ck_assert(chain_is_held(layer[3]) && chain_is_held(layer[2]));
    ends = true;
    job_end_ok(job);
    expect_backing(layer[3], layer[0], NULL);
    expect_picture(guest, "ABCD");
    chain_stop();
}
END_TEST

static void add_tests(TCase *tcase)
{
    PROMISE(tcase, the_filter_and_the_chain_are_held_until_they_go);
    PROMISE(tcase, a_filter_that_comes_above_the_job_swallows_no_copy);
    PROMISE(tcase, an_overlay_that_comes_above_the_job_gets_no_copy);
    PROMISE(tcase, a_mirror_that_comes_above_the_job_may_switch_meanwhile);
}

int main(void)
{
    return chain_main("stream-above", add_tests);
}
