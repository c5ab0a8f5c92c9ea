/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A job that does what the test says.
 */
#ifndef TESTS_UNIT_PUPPET_FIXTURE_H
#define TESTS_UNIT_PUPPET_FIXTURE_H

#include "job-fixture.h"

#include "block/jobs/job.h"

/* --- a puppet ------------------------------------------------------------- */

typedef struct PuppetOptions {
    char *device;
} PuppetOptions;

static const BlockOption puppet_options[] = {
    { .name = "device", .type = BLOCK_OPTION_STRING,
      .offset = offsetof(PuppetOptions, device), .help = "no node" },
    { .type = BLOCK_OPTION_END },
};

/* What all puppets do at each step; "" means nothing. */
static GString *steps;      /* of all, in order: "run:a abort:b " */
static const char *hangs;   /* the step that does not return */
static const char *fails;   /* the step that fails */
static CoSleep hanging;

typedef struct Puppet {
    BlockJob job;
    char order; /* what run() is to do next: 'r'eady, 'd'one, 'f'ail */
    int changes, completions;
} Puppet;

/* Note a step, hang or fail there if the test says so. */
static inline int coroutine_fn puppet_step(BlockJob *job, const char *name,
                                           GError **errp)
{
    g_autofree char *text = g_strdup_printf("%s:%s", name, job->id);

    g_string_append_printf(steps, "%s ", text);
    while (hangs && g_str_equal(hangs, text)) {
        co_sleep_ns_wakeable(&hanging, INT64_MAX);
    }
    return fails && g_str_equal(fails, text)
               ? block_error(errp, ENOSPC, "%s fails", text)
               : 0;
}

static inline int coroutine_fn puppet_start(BlockJob *job,
                                            BlockOptions *options,
                                            GError **errp)
{
    PuppetOptions o;
    int ret = block_options_absorb(options, puppet_options, &o, "Puppet",
                                   errp);

    if (ret == 0) {
        block_options_clear(puppet_options, &o);
        ret = puppet_step(job, "start", errp);
    }
    return ret;
}

static inline int coroutine_fn puppet_run(BlockJob *job, GError **errp)
{
    Puppet *p = (Puppet *)job;
    int ret = puppet_step(job, "run", errp);

    while (ret == 0 && !job_is_cancelled(job)) {
        char order = p->order;

        p->order = 0;
        if (order == 'r') {
            job_ready(job);
        } else if (order == 'd') {
            return 0;
        } else if (order == 'f') {
            return block_error(errp, EIO, "the puppet fails");
        }
        job_pause_point(job);
        if (!p->order && !job_should_stop(job)) {
            job_wait_kick(job);
        }
    }
    return ret;
}

static inline int coroutine_fn puppet_prepare(BlockJob *job, GError **errp)
{
    return puppet_step(job, "prepare", errp);
}

static inline void coroutine_fn puppet_commit(BlockJob *job)
{
    puppet_step(job, "commit", NULL);
}

static inline void coroutine_fn puppet_abort(BlockJob *job)
{
    puppet_step(job, "abort", NULL);
}

static inline void coroutine_fn puppet_clean(BlockJob *job)
{
    puppet_step(job, "clean", NULL);
}

static inline int puppet_complete(BlockJob *job, GError **errp)
{
    ((Puppet *)job)->completions++;
    ((Puppet *)job)->order = 'd';
    return 0;
}

static inline bool puppet_soft_cancel(BlockJob *job)
{
    ((Puppet *)job)->order = 'd';
    return true;
}

static inline int puppet_change(BlockJob *job, BlockOptions *options,
                                GError **errp)
{
    block_options_free(options);
    ((Puppet *)job)->changes++;
    return 0;
}

static const JobDriver puppet_driver = {
    .instance_size = sizeof(Puppet),
    .type = BLOCK_JOB_MIRROR,
    .options = puppet_options,
    .start = puppet_start,
    .run = puppet_run,
    .prepare = puppet_prepare,
    .commit = puppet_commit,
    .abort = puppet_abort,
    .clean = puppet_clean,
    .complete = puppet_complete,
    .soft_cancel = puppet_soft_cancel,
    .change = puppet_change,
};

static inline void puppet_setup(void)
{
    job_setup();
    steps = g_string_new(NULL);
    hangs = fails = NULL;
}

static inline void puppet_teardown(void)
{
    g_string_free(steps, true);
    job_teardown();
}

/* --- in coroutines -------------------------------------------------------- */

typedef struct NewCall {
    const char *text;
    JobTxn *txn;
    BlockJob *job;
    GError **errp;
} NewCall;

static inline int coroutine_fn new_entry(void *opaque)
{
    NewCall *c = opaque;

    c->job = job_co_new(graph, &puppet_driver,
                        block_options_parse_keyval(c->text, NULL, NULL),
                        c->txn, c->errp);
    return 0;
}

/* A job that does not run yet; with a reference. */
static inline BlockJob *try_new(const char *text, JobTxn *txn, GError **errp)
{
    NewCall c = { .text = text, .txn = txn, .errp = errp };

    aio_co_run(block_graph_aio_context(graph), new_entry, &c);
    return c.job;
}

static inline BlockJob *puppet_in(const char *text, JobTxn *txn)
{
    BlockJob *job = try_new(text, txn, NULL);

    ck_assert_ptr_nonnull(job);
    return job;
}

/* One that runs, alone in its transaction. */
static inline BlockJob *puppet(const char *text)
{
    JobTxn *txn = job_txn_new(graph);
    BlockJob *job = puppet_in(text, txn);

    job_launch(job);
    job_txn_unref(txn);
    job_settle();
    return job;
}

static inline int coroutine_fn discard_entry(void *opaque)
{
    job_co_discard(opaque);
    return 0;
}

static inline void discard(BlockJob *job)
{
    aio_co_run(block_graph_aio_context(graph), discard_entry, job);
    block_job_unref(job);
}

static inline void order(BlockJob *job, char what)
{
    ((Puppet *)job)->order = what;
    job_kick(job);
    job_settle();
}

static inline void go_on(void)
{
    hangs = NULL;
    co_sleep_wake(&hanging);
    job_settle();
}

static inline BlockJobInfo look(BlockJob *job)
{
    BlockJobInfo info;

    block_job_query(job, &info);
    return info;
}

static inline int puppet_main(const char *name,
                              void (*add_tests)(TCase *tcase))
{
    return job_main_with(name, add_tests, puppet_setup, puppet_teardown);
}

#endif /* TESTS_UNIT_PUPPET_FIXTURE_H */
