/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The end of jobs: those of a transaction, and those that hang.
 */
#include "puppet-fixture.h"

#include "util/aio-context.h"

/* --- jobs that hang ------------------------------------------------------- */

START_TEST(a_job_that_hangs_is_concluded_within_a_second)
{
    AioContext *ctx = block_graph_aio_context(graph);
    BlockJob *job;
    int64_t begin;

    hangs = _i == 0 ? "run:a" : "abort:a";
    job = puppet("job-id=a,device=n");
    begin = aio_clock_ns(ctx);
    ck_assert_int_eq(block_job_cancel(job, true, NULL), 0);
    block_job_ref(job);
    job_end_fails(job, ECANCELED, "cancelled");
    /* By its own timers; how long they are does not depend on the machine. */
    ck_assert_int_lt(2 * JOB_GRACE_NS, 1000 * 1000 * 1000);
    ck_assert_int_ge(aio_clock_ns(ctx) - begin, JOB_GRACE_NS);
    ck_assert_ptr_null(strstr(steps->str, "clean:a"));
    ck_assert_int_eq(look(job).status, BLOCK_JOB_NULL);
    go_on();
    ck_assert_str_eq(steps->str, "start:a run:a abort:a clean:a ");
    ck_assert_int_eq(look(job).status, BLOCK_JOB_NULL);
    block_job_unref(job);
}
END_TEST

/* The machine stood still: the time of the job is over as soon as it begins. */
static void coroutine_fn launch_too_late(void *opaque)
{
    BlockJob *job = opaque;

    job_launch(job);
    ck_assert_int_eq(block_job_cancel(job, true, NULL), 0);
    aio_timer_set(job->grace, 0);
}

START_TEST(a_job_that_was_given_up_before_it_began_does_not_begin)
{
    JobTxn *txn = job_txn_new(graph);
    BlockJob *job = puppet_in("job-id=a,device=n", txn);

    job_txn_unref(txn);
    aio_co_schedule(block_graph_aio_context(graph),
                    coroutine_create(launch_too_late, job));
    job_settle();
    job_end_fails(job, ECANCELED, "cancelled");
    ck_assert_str_eq(steps->str, "start:a abort:a clean:a ");
    ck_assert_str_eq(job_events->str,
                     "created aborting CANCELLED concluded null ");
}
END_TEST

/* --- transactions --------------------------------------------------------- */

/* Three jobs that run, of one transaction. */
static void three(BlockJob *jobs[3], const char *more)
{
    JobTxn *txn = job_txn_new(graph);

    for (int i = 0; i < 3; i++) {
        g_autofree char *text = g_strdup_printf("job-id=%c,device=n%s",
                                                'a' + i, more);

        jobs[i] = puppet_in(text, txn);
    }
    for (int i = 0; i < 3; i++) {
        job_launch(jobs[i]);
    }
    job_txn_unref(txn);
    job_settle();
}

static void unref_three(BlockJob *jobs[3])
{
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(look(jobs[i]).status, BLOCK_JOB_NULL);
        block_job_unref(jobs[i]);
    }
}

#define STARTED "start:a start:b start:c run:a run:b run:c "
#define UNDONE "abort:c clean:c abort:b clean:b abort:a clean:a "

START_TEST(jobs_of_a_transaction_take_effect_together)
{
    BlockJob *jobs[3];

    three(jobs, "");
    order(jobs[1], 'd');
    order(jobs[0], 'd');
    ck_assert_int_eq(look(jobs[0]).status, BLOCK_JOB_WAITING);
    ck_assert_str_eq(steps->str, STARTED);
    order(jobs[2], 'd');
    ck_assert_str_eq(steps->str, STARTED "prepare:a prepare:b prepare:c "
                     "commit:a commit:b commit:c clean:c clean:b clean:a ");
    unref_three(jobs);
}
END_TEST

START_TEST(one_that_fails_or_is_cancelled_undoes_all)
{
    BlockJob *jobs[3];

    three(jobs, "");
    order(jobs[_i % 3], 'd');
    if (_i / 3 == 0) {
        order(jobs[(_i + 1) % 3], 'f');
    } else if (_i / 3 == 1) {
        ck_assert_int_eq(block_job_cancel(jobs[(_i + 1) % 3], false, NULL), 0);
    } else {
        ck_assert_int_eq(block_job_cancel(jobs[_i % 3], false, NULL), 0);
    }
    job_settle();
    ck_assert_str_eq(steps->str, STARTED UNDONE);
    ck_assert_int_eq(look(jobs[(_i + 1) % 3]).ret,
                     _i / 3 == 0 ? -EIO : -ECANCELED);
    ck_assert_int_eq(look(jobs[(_i + 2) % 3]).ret, -ECANCELED);
    unref_three(jobs);
}
END_TEST

/* R104 */
START_TEST(a_prepare_that_fails_undoes_all_once)
{
    static const char *const which[] = { "prepare:a", "prepare:b",
                                         "prepare:c" };
    static const char *const before[] = { "prepare:a ",
                                          "prepare:a prepare:b ",
                                          "prepare:a prepare:b prepare:c " };
    g_autofree char *expected = g_strconcat(STARTED, before[_i], UNDONE, NULL);
    BlockJob *jobs[3];

    fails = which[_i];
    three(jobs, "");
    for (int i = 0; i < 3; i++) {
        order(jobs[i], 'd');
    }
    ck_assert_str_eq(steps->str, expected);
    ck_assert_int_eq(look(jobs[_i]).ret, -ENOSPC);
    unref_three(jobs);
}
END_TEST

START_TEST(one_finalize_is_for_all_of_a_transaction)
{
    BlockJob *jobs[3];

    three(jobs, ",auto-finalize=off");
    for (int i = 0; i < 3; i++) {
        order(jobs[i], 'd');
    }
    ck_assert_str_eq(steps->str, STARTED);
    ck_assert_int_eq(look(jobs[0]).status, BLOCK_JOB_PENDING);
    if (_i == 0) {
        ck_assert_int_eq(block_job_finalize(jobs[1], NULL), 0);
    } else {
        ck_assert_int_eq(block_job_cancel(jobs[1], false, NULL), 0);
    }
    job_settle();
    ck_assert((strstr(steps->str, "commit:a") != NULL) == (_i == 0));
    ck_assert((strstr(steps->str, UNDONE) != NULL) == (_i == 1));
    unref_three(jobs);
}
END_TEST

START_TEST(a_cancel_while_others_are_prepared_undoes_all)
{
    BlockJob *jobs[3];

    three(jobs, "");
    hangs = "prepare:b";
    for (int i = 0; i < 3; i++) {
        order(jobs[i], 'd');
    }
    ck_assert_int_eq(block_job_cancel(jobs[0], false, NULL), 0);
    go_on();
    ck_assert_str_eq(steps->str, STARTED "prepare:a prepare:b " UNDONE);
    unref_three(jobs);
}
END_TEST

START_TEST(a_last_step_that_hangs_can_be_cancelled_within_a_second)
{
    BlockJob *jobs[3];

    three(jobs, "");
    hangs = "prepare:b";
    for (int i = 0; i < 3; i++) {
        order(jobs[i], 'd');
    }
    ck_assert_int_eq(block_job_cancel(jobs[_i], true, NULL), 0);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(block_job_wait(jobs[i], NULL), -ECANCELED);
    }
    job_settle();
    ck_assert_str_eq(steps->str, STARTED "prepare:a prepare:b abort:c clean:c "
                     "abort:a clean:a ");
    go_on();
    ck_assert_str_eq(steps->str, STARTED "prepare:a prepare:b abort:c clean:c "
                     "abort:a clean:a abort:b clean:b ");
    unref_three(jobs);
}
END_TEST

START_TEST(it_is_too_late_to_cancel_what_takes_effect)
{
    GError *error = NULL;
    BlockJob *jobs[3];

    three(jobs, "");
    hangs = "commit:a";
    for (int i = 0; i < 3; i++) {
        order(jobs[i], 'd');
    }
    ck_assert_int_eq(block_job_cancel(jobs[2], true, &error), -EPERM);
    expect_error(&error, EPERM, "too late");
    go_on();
    ck_assert_ptr_nonnull(strstr(steps->str, "commit:c clean:c"));
    unref_three(jobs);
}
END_TEST

/* What it was for is done.  Who has had enough of waiting gets that. */
START_TEST(a_job_that_cannot_let_go_is_concluded_well_when_cancelled)
{
    BlockJob *jobs[3];

    three(jobs, "");
    hangs = "clean:b";
    for (int i = 0; i < 3; i++) {
        order(jobs[i], 'd');
    }
    ck_assert_ptr_nonnull(strstr(steps->str, "clean:c clean:b "));
    ck_assert_int_eq(look(jobs[1]).status, BLOCK_JOB_PENDING);
    ck_assert_int_eq(block_job_cancel(jobs[_i], true, NULL), 0);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(block_job_wait(jobs[i], NULL), 0);
    }
    ck_assert_ptr_nonnull(strstr(job_events->str, "COMPLETED"));
    ck_assert_ptr_null(strstr(job_events->str, "CANCELLED"));
    go_on();
    ck_assert_ptr_nonnull(strstr(steps->str, "clean:a "));
    unref_three(jobs);
}
END_TEST

/* Told of the first job that has taken effect, cancel the last one. */
static void cancel_the_last(const BlockJobEvent *event, void *opaque)
{
    BlockJob **jobs = opaque;

    if (event->type == BLOCK_JOB_EVENT_COMPLETED && event->job == jobs[0]) {
        block_job_cancel(jobs[2], true, NULL);
    }
}

START_TEST(a_listener_may_cancel_another_job_of_those_that_took_effect)
{
    AioContext *ctx = block_graph_aio_context(graph);
    BlockJob *jobs[3];

    three(jobs, "");
    block_job_add_listener(graph, cancel_the_last, jobs);
    for (int i = 0; i < 3; i++) {
        order(jobs[i], 'd');
    }
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(block_job_wait(jobs[i], NULL), 0);
    }
    job_settle();
    block_job_remove_listener(graph, cancel_the_last, jobs);
    ck_assert_ptr_null(strstr(job_events->str, "CANCELLED"));
    /* All of it is over, and nothing is left that could come later. */
    ck_assert(!aio_timers_any(&ctx->timers));
    unref_three(jobs);
}
END_TEST

START_TEST(one_that_hangs_does_not_keep_the_others_from_being_undone)
{
    BlockJob *jobs[3];

    hangs = "run:b";
    three(jobs, "");
    order(jobs[0], 'f');
    for (int i = 0; i < 3; i++) {
        block_job_wait(jobs[i], NULL);
    }
    job_settle();
    ck_assert_ptr_nonnull(strstr(steps->str, "abort:c clean:c abort:a "
                                 "clean:a"));
    go_on();
    ck_assert_ptr_nonnull(strstr(steps->str, "clean:a abort:b clean:b"));
    unref_three(jobs);
}
END_TEST

START_TEST(all_jobs_can_be_cancelled_at_once)
{
    BlockJob *jobs[3];
    BlockJob *alone;

    three(jobs, ",auto-finalize=off,auto-dismiss=off");
    alone = puppet("job-id=alone,device=n,auto-dismiss=off");
    order(jobs[0], 'd');
    order(alone, 'f');
    block_job_cancel_all(graph);
    ck_assert_ptr_null(block_job_next(graph, NULL));
    unref_three(jobs);
    block_job_unref(alone);
}
END_TEST

static void add_tests(TCase *tcase)
{
    tcase_add_loop_test(tcase, a_job_that_hangs_is_concluded_within_a_second,
                        0, 2);
    PROMISE(tcase, a_job_that_was_given_up_before_it_began_does_not_begin);
    PROMISE(tcase, jobs_of_a_transaction_take_effect_together);
    tcase_add_loop_test(tcase, one_that_fails_or_is_cancelled_undoes_all, 0,
                        9);
    tcase_add_loop_test(tcase, a_prepare_that_fails_undoes_all_once, 0, 3);
    tcase_add_loop_test(tcase, one_finalize_is_for_all_of_a_transaction, 0, 2);
    PROMISE(tcase, a_cancel_while_others_are_prepared_undoes_all);
    tcase_add_loop_test(
        tcase, a_last_step_that_hangs_can_be_cancelled_within_a_second, 0, 3);
    PROMISE(tcase, it_is_too_late_to_cancel_what_takes_effect);
    tcase_add_loop_test(
        tcase, a_job_that_cannot_let_go_is_concluded_well_when_cancelled, 0,
        3);
    PROMISE(tcase,
            a_listener_may_cancel_another_job_of_those_that_took_effect);
    PROMISE(tcase, one_that_hangs_does_not_keep_the_others_from_being_undone);
    PROMISE(tcase, all_jobs_can_be_cancelled_at_once);
}

int main(void)
{
    return puppet_main("job-txn", add_tests);
}
