/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The framework of jobs: states, verbs, events.
 */
#include "puppet-fixture.h"

/* --- the state machine ---------------------------------------------------- */

/* What the control protocol says, a column a state in the order of the enum. */
static const char *const verb_table[BLOCK_JOB_VERBS] = {
    /*                          C R P Y S W D X E N */
    [BLOCK_JOB_CANCEL] =       "1 1 1 1 1 1 1 0 0 0",
    [BLOCK_JOB_PAUSE] =        "1 1 1 1 1 0 0 0 0 0",
    [BLOCK_JOB_RESUME] =       "1 1 1 1 1 0 0 0 0 0",
    [BLOCK_JOB_SET_SPEED] =    "1 1 1 1 1 0 0 0 0 0",
    [BLOCK_JOB_COMPLETE] =     "0 0 0 1 0 0 0 0 0 0",
    [BLOCK_JOB_FINALIZE] =     "0 0 0 0 0 0 1 0 0 0",
    [BLOCK_JOB_DISMISS] =      "0 0 0 0 0 0 0 0 1 0",
    [BLOCK_JOB_CHANGE] =       "1 1 1 1 1 0 0 0 0 0",
};

/* Jobs in one state, and the way out. */
typedef struct Posed {
    JobTxn *txn;
    BlockJob *job;
    BlockJob *other; /* of the transaction, or NULL */
} Posed;

static void pose_waiting(Posed *p)
{
    p->other = puppet_in("job-id=other,device=n", p->txn);
    job_launch(p->other);
    order(p->job, 'd');
}

static Posed pose(BlockJobStatus status)
{
    Posed p = { .txn = job_txn_new(graph) };

    p.job = puppet_in("job-id=a,device=n,auto-finalize=off,auto-dismiss=off",
                      p.txn);
    if (status != BLOCK_JOB_CREATED) {
        job_launch(p.job);
        job_settle();
    }
    if (status == BLOCK_JOB_READY || status == BLOCK_JOB_STANDBY) {
        order(p.job, 'r');
    }
    if (status == BLOCK_JOB_PAUSED || status == BLOCK_JOB_STANDBY) {
        ck_assert_int_eq(block_job_pause(p.job, NULL), 0);
    } else if (status == BLOCK_JOB_WAITING) {
        pose_waiting(&p);
    } else if (status == BLOCK_JOB_PENDING) {
        order(p.job, 'd');
    } else if (status == BLOCK_JOB_ABORTING) {
        hangs = "abort:a";
        order(p.job, 'f');
    } else if (status >= BLOCK_JOB_CONCLUDED) {
        order(p.job, 'f');
    }
    if (status == BLOCK_JOB_NULL) {
        ck_assert_int_eq(block_job_dismiss(p.job, NULL), 0);
    }
    job_settle();
    ck_assert_int_eq(look(p.job).status, status);
    return p;
}

/* Whatever has become of the jobs, they end. */
static void unpose(Posed *p)
{
    bool launched = p->job->launched;

    go_on();
    if (!launched) {
        discard(p->job);
    }
    block_job_cancel_all(graph);
    if (launched) {
        ck_assert_int_eq(look(p->job).status, BLOCK_JOB_NULL);
        block_job_unref(p->job);
    }
    block_job_unref(p->other);
    job_txn_unref(p->txn);
    ck_assert_ptr_null(block_job_next(graph, NULL));
}

static int ask(BlockJob *job, BlockJobVerb verb, GError **errp)
{
    switch (verb) {
    case BLOCK_JOB_CANCEL:
        return block_job_cancel(job, true, errp);
    case BLOCK_JOB_PAUSE:
        return block_job_pause(job, errp);
    case BLOCK_JOB_RESUME:
        return block_job_resume(job, errp);
    case BLOCK_JOB_SET_SPEED:
        return block_job_set_speed(job, 1 << 20, errp);
    case BLOCK_JOB_COMPLETE:
        return block_job_complete(job, errp);
    case BLOCK_JOB_FINALIZE:
        return block_job_finalize(job, errp);
    case BLOCK_JOB_DISMISS:
        return block_job_dismiss(job, errp);
    default:
        return block_job_change(job, block_options_new(), errp);
    }
}

/* Whether @verb can do something, though it is allowed. */
static bool has_sense(BlockJobVerb verb, BlockJobStatus status)
{
    bool paused = status == BLOCK_JOB_PAUSED || status == BLOCK_JOB_STANDBY;

    return verb == BLOCK_JOB_RESUME  ? paused
           : verb == BLOCK_JOB_PAUSE ? !paused
                                     : true;
}

START_TEST(each_verb_in_each_state_is_allowed_as_the_protocol_says)
{
    BlockJobStatus status = _i / BLOCK_JOB_VERBS;
    BlockJobVerb verb = _i % BLOCK_JOB_VERBS;
    bool allowed = verb_table[verb][2 * status] == '1';
    g_autoptr(GError) error = NULL;
    Posed p = pose(status);
    int ret;

    ck_assert_int_eq(block_job_verb_allowed(verb, status), allowed);
    ret = ask(p.job, verb, &error);
    if (!allowed) {
        ck_assert_int_eq(ret, -EPERM);
        ck_assert_ptr_nonnull(strstr(error->message, "cannot accept"));
        ck_assert_ptr_nonnull(strstr(error->message,
                                     block_job_status_names[status]));
        job_settle();
        ck_assert_int_eq(look(p.job).status, status);
    } else {
        ck_assert_int_eq(ret, has_sense(verb, status) ? 0 : -EPERM);
    }
    unpose(&p);
}
END_TEST

/* A row a state: which may follow. */
static const char *const status_table[BLOCK_JOB_STATUSES] = {
    /*                         C R P Y S W D X E N */
    [BLOCK_JOB_CREATED] =     "0 1 0 0 0 0 0 1 0 1",
    [BLOCK_JOB_RUNNING] =     "0 0 1 1 0 1 0 1 0 0",
    [BLOCK_JOB_PAUSED] =      "0 1 0 0 0 0 0 1 0 0",
    [BLOCK_JOB_READY] =       "0 0 0 0 1 1 0 1 0 0",
    [BLOCK_JOB_STANDBY] =     "0 0 0 1 0 0 0 1 0 0",
    [BLOCK_JOB_WAITING] =     "0 0 0 0 0 0 1 1 0 0",
    [BLOCK_JOB_PENDING] =     "0 0 0 0 0 0 0 1 1 0",
    [BLOCK_JOB_ABORTING] =    "0 0 0 0 0 0 0 0 1 0",
    [BLOCK_JOB_CONCLUDED] =   "0 0 0 0 0 0 0 0 0 1",
    [BLOCK_JOB_NULL] =        "0 0 0 0 0 0 0 0 0 0",
};

START_TEST(states_follow_each_other_as_the_table_says)
{
    for (int from = 0; from < BLOCK_JOB_STATUSES; from++) {
        for (int to = 0; to < BLOCK_JOB_STATUSES; to++) {
            ck_assert_int_eq(block_job_status_may_follow(from, to),
                             status_table[from][2 * to] == '1');
        }
    }
}
END_TEST

/* --- what verbs do -------------------------------------------------------- */

START_TEST(a_job_tells_each_of_its_states)
{
    BlockJob *job = puppet("job-id=a,device=n");

    order(job, 'r');
    ck_assert_int_eq(block_job_pause(job, NULL), 0);
    job_settle();
    ck_assert_int_eq(block_job_resume(job, NULL), 0);
    job_settle();
    ck_assert_int_eq(block_job_complete(job, NULL), 0);
    job_end_ok(job);
    ck_assert_str_eq(job_events->str, "created running ready READY standby "
                     "ready waiting pending COMPLETED concluded null ");
    ck_assert_str_eq(steps->str, "start:a run:a prepare:a commit:a clean:a ");
}
END_TEST

static int second_heard;

static void hears_second(const BlockJobEvent *event, void *opaque)
{
    second_heard++;
}

static void removes_second(const BlockJobEvent *event, void *opaque)
{
    block_job_remove_listener(graph, hears_second, NULL);
}

START_TEST(a_listener_may_remove_others)
{
    BlockJob *job;

    block_job_add_listener(graph, removes_second, NULL);
    block_job_add_listener(graph, hears_second, NULL);
    job = puppet("job-id=a,device=n");
    ck_assert_int_eq(second_heard, 0);
    order(job, 'd');
    job_end_ok(job);
    block_job_remove_listener(graph, removes_second, NULL);
}
END_TEST

START_TEST(a_cancelled_job_is_undone)
{
    BlockJob *job = puppet("job-id=a,device=n");

    ck_assert_int_eq(block_job_cancel(job, false, NULL), 0);
    ck_assert(look(job).cancelled);
    job_end_fails(job, ECANCELED, "cancelled");
    ck_assert_str_eq(job_events->str, "created running aborting CANCELLED "
                     "concluded null ");
    ck_assert_str_eq(steps->str, "start:a run:a abort:a clean:a ");
}
END_TEST

START_TEST(a_ready_job_may_end_a_soft_cancel_with_a_result)
{
    BlockJob *job = puppet("job-id=a,device=n");

    order(job, 'r');
    ck_assert_int_eq(block_job_pause(job, NULL), 0);
    job_settle();
    ck_assert_int_eq(block_job_cancel(job, false, NULL), 0);
    job_end_ok(job);
    ck_assert_ptr_nonnull(strstr(job_events->str, "COMPLETED"));
    ck_assert_ptr_nonnull(strstr(steps->str, "commit:a"));
}
END_TEST

START_TEST(a_ready_job_cancelled_by_force_has_no_result)
{
    BlockJob *job = puppet("job-id=a,device=n");

    order(job, 'r');
    ck_assert_int_eq(block_job_cancel(job, true, NULL), 0);
    job_end_fails(job, ECANCELED, "cancelled");
    ck_assert_ptr_nonnull(strstr(job_events->str, "CANCELLED"));
}
END_TEST

START_TEST(holds_of_others_are_kept_apart_from_the_users)
{
    BlockJob *job = puppet("job-id=a,device=n");
    GError *error = NULL;

    block_job_hold(job);
    block_job_hold(job);
    job_settle();
    ck_assert_int_eq(look(job).status, BLOCK_JOB_PAUSED);
    ck_assert(!look(job).user_paused);
    ck_assert_int_eq(block_job_resume(job, &error), -EPERM);
    expect_error(&error, EPERM, "was not paused");
    ck_assert_int_eq(block_job_pause(job, NULL), 0);
    ck_assert_int_eq(block_job_pause(job, &error), -EPERM);
    expect_error(&error, EPERM, "paused already");
    block_job_release(job);
    ck_assert_int_eq(block_job_resume(job, NULL), 0);
    job_settle();
    ck_assert_int_eq(look(job).status, BLOCK_JOB_PAUSED);
    block_job_release(job);
    job_settle();
    ck_assert_int_eq(look(job).status, BLOCK_JOB_RUNNING);
    order(job, 'd');
    job_end_ok(job);
}
END_TEST

START_TEST(a_held_job_can_be_cancelled)
{
    BlockJob *job = puppet("job-id=a,device=n");

    block_job_hold(job);
    job_settle();
    ck_assert_int_eq(block_job_cancel(job, false, NULL), 0);
    job_end_fails(job, ECANCELED, "cancelled");
}
END_TEST

START_TEST(a_job_that_was_paused_before_it_began_waits)
{
    JobTxn *txn = job_txn_new(graph);
    BlockJob *job = puppet_in("job-id=a,device=n", txn);

    ck_assert_int_eq(block_job_pause(job, NULL), 0);
    job_launch(job);
    job_settle();
    ck_assert_int_eq(look(job).status, BLOCK_JOB_PAUSED);
    ck_assert_str_eq(steps->str, "start:a ");
    ck_assert_int_eq(block_job_resume(job, NULL), 0);
    job_settle();
    order(job, 'd');
    job_end_ok(job);
    job_txn_unref(txn);
}
END_TEST

START_TEST(a_job_that_was_cancelled_before_it_began_does_nothing)
{
    JobTxn *txn = job_txn_new(graph);
    BlockJob *job = puppet_in("job-id=a,device=n", txn);

    ck_assert_int_eq(block_job_cancel(job, true, NULL), 0);
    job_launch(job);
    job_end_fails(job, ECANCELED, "cancelled");
    ck_assert_str_eq(steps->str, "start:a abort:a clean:a ");
    job_txn_unref(txn);
}
END_TEST

START_TEST(finalize_and_dismiss_wait_for_the_user_if_he_wants)
{
    BlockJob *job = puppet("job-id=a,device=n,auto-finalize=off,"
                           "auto-dismiss=off");

    order(job, 'd');
    ck_assert_int_eq(look(job).status, BLOCK_JOB_PENDING);
    ck_assert_str_eq(steps->str, "start:a run:a ");
    ck_assert_int_eq(block_job_finalize(job, NULL), 0);
    job_settle();
    ck_assert_int_eq(look(job).status, BLOCK_JOB_CONCLUDED);
    ck_assert_ptr_eq(block_job_find(graph, "a"), job);
    ck_assert_int_eq(block_job_dismiss(job, NULL), 0);
    ck_assert_ptr_null(block_job_find(graph, "a"));
    ck_assert_str_eq(job_events->str, "created running waiting pending PENDING "
                     "COMPLETED concluded null ");
    block_job_unref(job);
}
END_TEST

START_TEST(a_change_reaches_the_job)
{
    BlockJob *job = puppet("job-id=a,device=n");

    ck_assert_int_eq(block_job_change(job, block_options_new(), NULL), 0);
    ck_assert_int_eq(((Puppet *)job)->changes, 1);
    order(job, 'd');
    job_end_ok(job);
}
END_TEST

START_TEST(a_speed_out_of_range_is_refused)
{
    BlockJob *job = puppet("job-id=a,device=n,speed=1M");
    GError *error = NULL;

    ck_assert_int_eq(look(job).speed, 1 << 20);
    ck_assert_int_eq(block_job_set_speed(job, -1, &error), -EINVAL);
    expect_error(&error, EINVAL, "speed");
    ck_assert_int_eq(block_job_set_speed(job, INT64_MAX, &error), -EINVAL);
    expect_error(&error, EINVAL, "speed");
    ck_assert_int_eq(look(job).speed, 1 << 20);
    ck_assert_int_eq(block_job_set_speed(job, 0, NULL), 0);
    order(job, 'd');
    job_end_ok(job);
}
END_TEST

static void new_fails(const char *text, int err, const char *message)
{
    JobTxn *txn = job_txn_new(graph);
    GError *error = NULL;

    ck_assert_ptr_null(try_new(text, txn, &error));
    expect_error(&error, err, message);
    job_txn_unref(txn);
}

START_TEST(bad_options_of_all_jobs_are_refused)
{
    BlockJob *job = puppet("device=n");

    ck_assert_str_eq(look(job).id, "n");
    new_fails("device=n", EEXIST, "'n' exists");
    new_fails("job-id=1a,device=n", EINVAL, "'1a' is no job-id");
    new_fails("job-id=a b,device=n", EINVAL, "'a b' is no job-id");
    new_fails("job-id=,device=n", EINVAL, "is no job-id");
    new_fails("job-id=a123456789b123456789c123456789d123456789e123456789"
              "f123456789g123,device=n", EINVAL, "is no job-id");
    new_fails("speed=1", EINVAL, "'device'");
    new_fails("job-id=a,device=n,speed=-1", EINVAL, "speed");
    new_fails("job-id=a,device=n,auto-finalize=perhaps", EINVAL,
              "auto-finalize");
    fails = "start:a";
    new_fails("job-id=a,device=n", ENOSPC, "start:a fails");
    ck_assert_ptr_null(block_job_find(graph, "a"));
    order(job, 'd');
    job_end_ok(job);
}
END_TEST

START_TEST(progress_only_grows)
{
    BlockJob *job = puppet("job-id=a,device=n");

    job_progress_grow(job, 100);
    job_progress_done(job, 30);
    job_progress_remaining(job, 50);
    ck_assert_int_eq(look(job).current_progress, 50);
    ck_assert_int_eq(look(job).total_progress, 100);
    job_progress_remaining(job, 80);
    ck_assert_int_eq(look(job).current_progress, 50);
    ck_assert_int_eq(look(job).total_progress, 130);
    job_progress_done(job, 90);
    ck_assert_int_eq(look(job).current_progress, 140);
    ck_assert_int_eq(look(job).total_progress, 140);
    order(job, 'd');
    job_end_ok(job);
}
END_TEST

/* --- errors --------------------------------------------------------------- */

START_TEST(an_error_policy_says_what_a_job_does)
{
    BlockJob *job = puppet("job-id=a,device=n");

    ck_assert_int_eq(job_error_action(job, BLOCK_ON_ERROR_REPORT, true, EIO),
                     BLOCK_JOB_ACTION_REPORT);
    ck_assert_int_eq(job_error_action(job, BLOCK_ON_ERROR_IGNORE, true, EIO),
                     BLOCK_JOB_ACTION_IGNORE);
    ck_assert_int_eq(job_error_action(job, BLOCK_ON_ERROR_ENOSPC, true, EIO),
                     BLOCK_JOB_ACTION_REPORT);
    ck_assert_int_eq(look(job).io_status, BLOCK_JOB_IO_OK);
    ck_assert_int_eq(job_error_action(job, BLOCK_ON_ERROR_ENOSPC, false,
                                      ENOSPC), BLOCK_JOB_ACTION_STOP);
    ck_assert_int_eq(look(job).io_status, BLOCK_JOB_IO_NOSPACE);
    ck_assert(look(job).user_paused);
    ck_assert_int_eq(job_error_action(job, BLOCK_ON_ERROR_STOP, false, EIO),
                     BLOCK_JOB_ACTION_STOP);
    ck_assert_int_eq(look(job).io_status, BLOCK_JOB_IO_FAILED);
    ck_assert_int_eq(block_job_resume(job, NULL), 0);
    ck_assert_int_eq(look(job).io_status, BLOCK_JOB_IO_OK);
    ck_assert(!look(job).user_paused);
    job_settle();
    order(job, 'd');
    job_end_ok(job);
}
END_TEST

START_TEST(a_job_that_fails_says_why)
{
    BlockJob *job = puppet("job-id=a,device=n,auto-dismiss=off");

    order(job, 'f');
    ck_assert_int_eq(look(job).ret, -EIO);
    ck_assert_str_eq(look(job).error, "the puppet fails");
    ck_assert_str_eq(job_events->str, "created running aborting COMPLETED "
                     "concluded ");
    ck_assert_int_eq(block_job_dismiss(job, NULL), 0);
    job_end_fails(job, EIO, "the puppet fails");
}
END_TEST

static void add_tests(TCase *tcase)
{
    tcase_add_loop_test(
        tcase, each_verb_in_each_state_is_allowed_as_the_protocol_says, 0,
        BLOCK_JOB_STATUSES * BLOCK_JOB_VERBS);
    PROMISE(tcase, states_follow_each_other_as_the_table_says);
    PROMISE(tcase, a_job_tells_each_of_its_states);
    PROMISE(tcase, a_listener_may_remove_others);
    PROMISE(tcase, a_cancelled_job_is_undone);
    PROMISE(tcase, a_ready_job_may_end_a_soft_cancel_with_a_result);
    PROMISE(tcase, a_ready_job_cancelled_by_force_has_no_result);
    PROMISE(tcase, holds_of_others_are_kept_apart_from_the_users);
    PROMISE(tcase, a_held_job_can_be_cancelled);
    PROMISE(tcase, a_job_that_was_paused_before_it_began_waits);
    PROMISE(tcase, a_job_that_was_cancelled_before_it_began_does_nothing);
    PROMISE(tcase, finalize_and_dismiss_wait_for_the_user_if_he_wants);
    PROMISE(tcase, a_change_reaches_the_job);
    PROMISE(tcase, a_speed_out_of_range_is_refused);
    PROMISE(tcase, bad_options_of_all_jobs_are_refused);
    PROMISE(tcase, progress_only_grows);
    PROMISE(tcase, an_error_policy_says_what_a_job_does);
    PROMISE(tcase, a_job_that_fails_says_why);
}

int main(void)
{
    return puppet_main("job", add_tests);
}
