/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * All jobs on a chain: what others do to their nodes, and to them, at any
 * moment.
 */
#include "chain-fixture.h"

#define LAYERS 3

/* Each leaves the picture. */
static const struct {
    BlockJobType type;
    const char *options;
    bool resizable; /* the disk, meanwhile */
} kinds[] = {
    { BLOCK_JOB_STREAM, "job-id=j,device=n2,max-workers=1", true },
    { BLOCK_JOB_STREAM, "job-id=j,device=n2,base=n0,max-workers=1", true },
    { BLOCK_JOB_COMMIT, "job-id=j,device=n2,top=n1,base=n0,max-workers=1",
      true },
    { BLOCK_JOB_COMMIT, "job-id=j,device=n2,base=n0,max-workers=1", false },
    { BLOCK_JOB_COMMIT, "job-id=j,device=n2,base=n1,max-workers=1", false },
    { BLOCK_JOB_MIRROR, "job-id=j,device=n2,target=copy,sync=full,"
      "max-workers=1", false },
    { BLOCK_JOB_BACKUP, "job-id=j,device=n2,target=copy,sync=full,"
      "max-workers=1", true },
};
#define KINDS ((int)G_N_ELEMENTS(kinds))

static BlockDriverState *copy;

static void begin(void)
{
    given_in_memory("AAA-", "-B--", "--C-");
    copy = open_ok("mem,node-name=copy,size=256k");
}

static void end(void)
{
    bdrv_unref(copy);
    chain_stop();
}

static BlockJob *start(int kind, const char *more)
{
    g_autofree char *text = g_strdup_printf("%s,auto-dismiss=off%s",
                                            kinds[kind].options, more);

    return job_ok(kinds[kind].type, text);
}

/* One turn, in which a job that is ready is completed. */
static void turn(BlockJob *job)
{
    block_job_complete(job, NULL);
    aio_poll(block_graph_aio_context(graph), false);
}

static void end_job(BlockJob *job)
{
    while (info_of(job).status < BLOCK_JOB_CONCLUDED) {
        block_job_complete(job, NULL);
        aio_poll(block_graph_aio_context(graph), true);
    }
    ck_assert_int_eq(block_job_wait(job, NULL), 0);
    ck_assert_int_eq(block_job_dismiss(job, NULL), 0);
    block_job_unref(job);
}

START_TEST(the_end_of_the_process_may_come_at_any_turn_of_a_job)
{
    bool ended = false;

    for (int turns = 0; !ended; turns++) {
        BlockJob *job;

        begin();
        job = start(_i, "");
        for (int i = 0; i < turns; i++) {
            turn(job);
        }
        block_job_cancel_all(graph);
        ck_assert_ptr_null(block_job_next(graph, NULL));
        ended = block_job_wait(job, NULL) == 0;
        block_job_unref(job);
        ck_assert_uint_eq(block_graph_nr_nodes(graph), LAYERS + 1);
        expect_picture(guest, "ABC-");
        end();
        ck_assert_int_lt(turns, 5000);
    }
}
END_TEST

START_TEST(a_job_can_be_cancelled_at_any_turn)
{
    bool ended = false;

    for (int turns = 0; !ended; turns++) {
        g_autofree char *before = NULL;
        BlockJob *job;

        begin();
        before = chain_dump();
        job = start(_i, "");
        for (int i = 0; i < turns; i++) {
            turn(job);
        }
        block_job_cancel(job, true, NULL);
        ended = block_job_wait(job, NULL) == 0;
        block_job_dismiss(job, NULL);
        block_job_unref(job);
        if (!ended) {
            expect_graph(before);
        }
        expect_picture(guest, "ABC-");
        end();
        ck_assert_int_lt(turns, 5000);
    }
}
END_TEST

START_TEST(a_job_can_be_paused_and_slowed_down_at_any_turn)
{
    bool over = false;

    for (int turns = 0; !over; turns++) {
        BlockJob *job;

        begin();
        job = start(_i, "");
        for (int i = 0; i < turns; i++) {
            turn(job);
        }
        over = block_job_pause(job, NULL) < 0 &&
               info_of(job).status >= BLOCK_JOB_WAITING;
        block_job_set_speed(job, 64 << 20, NULL);
        for (int i = 0; i < 5; i++) {
            turn(job);
        }
        block_job_resume(job, NULL);
        block_job_set_speed(job, 0, NULL);
        end_job(job);
        expect_picture(guest, "ABC-");
        end();
        ck_assert_int_lt(turns, 5000);
    }
}
END_TEST

START_TEST(nodes_of_a_job_cannot_be_deleted)
{
    static const char *const names[] = { "n0", "n1", "n2", "copy", "filter" };
    g_autofree char *during = NULL;
    BlockJob *job;

    begin();
    job = start(_i, ",filter-node-name=filter");
    block_job_hold(job);
    job_settle();
    during = chain_dump();
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        BlockDriverState *bs = bdrv_find_node(graph, names[i]);
        GError *error = NULL;

        if (bs == copy && kinds[_i].type != BLOCK_JOB_MIRROR &&
            kinds[_i].type != BLOCK_JOB_BACKUP) {
            continue; /* not one of its nodes */
        }
        ck_assert_int_lt(bdrv_delete(bs, &error), 0);
        expect_error(&error, EBUSY, names[i]);
    }
    expect_graph(during);
    block_job_release(job);
    end_job(job);
    expect_picture(guest, "ABC-");
    end();
}
END_TEST

START_TEST(a_disk_is_resized_during_a_job_or_is_not)
{
    BlockTruncate cut = { .offset = CHAIN_CLUSTER, .exact = true };
    BlockTruncate grow = { .offset = 2 * CHAIN_CLUSTER, .exact = true };
    BlockJob *job;
    int ret;

    begin();
    job = start(_i, "");
    block_job_hold(job);
    job_settle();
    ret = blk_truncate(guest, &cut, NULL);
    ck_assert_int_eq(ret == 0, kinds[_i].resizable);
    if (ret == 0) {
        ck_assert_int_eq(blk_truncate(guest, &grow, NULL), 0);
    }
    block_job_release(job);
    end_job(job);
    expect_picture(guest, ret == 0 ? "A-" : "ABC-");
    end();
}
END_TEST

static void add_tests(TCase *tcase)
{
    tcase_add_loop_test(
        tcase, the_end_of_the_process_may_come_at_any_turn_of_a_job, 0, KINDS);
    tcase_add_loop_test(tcase, a_job_can_be_cancelled_at_any_turn, 0, KINDS);
    tcase_add_loop_test(
        tcase, a_job_can_be_paused_and_slowed_down_at_any_turn, 0, KINDS);
    tcase_add_loop_test(tcase, nodes_of_a_job_cannot_be_deleted, 0, KINDS);
    tcase_add_loop_test(tcase, a_disk_is_resized_during_a_job_or_is_not, 0,
                        KINDS);
}

int main(void)
{
    return chain_main("chain-jobs", add_tests);
}
