/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Jobs on disks in memory, and what they have told.
 */
#ifndef TESTS_UNIT_JOB_FIXTURE_H
#define TESTS_UNIT_JOB_FIXTURE_H

#include "graph-fixture.h"
#include "mem-driver.h"

#include <blockgraph/job.h>

#include "block/graph/graph-int.h"

/* The events so far, a word each: "created running ... ". */
static GString *job_events;

static inline void job_heard(const BlockJobEvent *event, void *opaque)
{
    static const char *const names[] = { NULL, "READY", "PENDING", "COMPLETED",
                                         "CANCELLED", "ERROR" };
    BlockJobInfo info;

    block_job_query(event->job, &info);
    g_string_append_printf(job_events, "%s ",
                           event->type == BLOCK_JOB_EVENT_STATUS_CHANGE
                               ? block_job_status_names[info.status]
                               : names[event->type]);
}

/** Hear of jobs from now on. */
static inline void job_listen(void)
{
    job_events = g_string_new(NULL);
    block_job_add_listener(graph, job_heard, NULL);
}

/** Until now. */
static inline void job_listen_end(void)
{
    block_job_remove_listener(graph, job_heard, NULL);
    g_string_free(job_events, true);
}

static inline void job_setup(void)
{
    graph_setup();
    job_listen();
}

static inline void job_teardown(void)
{
    job_listen_end();
    graph_teardown();
}

/** Start a job from "key=value,..."; must work.  The caller's reference. */
static inline BlockJob *job_ok(BlockJobType type, const char *text)
{
    g_autoptr(GError) error = NULL;
    BlockOptions *options = block_options_parse_keyval(text, NULL, &error);
    BlockJob *job = options ? block_job_start(graph, type, options, &error)
                            : NULL;

    ck_assert_msg(job != NULL, "%s: %s", text,
                  error ? error->message : "no error set");
    return job;
}

/** Try to start a job that must not start; the graph stays as it was. */
static inline void job_fails(BlockJobType type, const char *text, int err,
                             const char *message)
{
    g_autofree char *before = block_graph_dump(graph);
    g_autofree char *after = NULL;
    GError *error = NULL;
    BlockJob *job = block_job_start(
        graph, type, block_options_parse_keyval(text, NULL, NULL), &error);

    ck_assert_ptr_null(job);
    expect_error(&error, err, message);
    after = block_graph_dump(graph);
    ck_assert_str_eq(before, after);
    ck_assert_ptr_null(block_job_next(graph, NULL));
}

/** Turn the loop until @job is in @status, or for long. */
static inline void job_reach(BlockJob *job, BlockJobStatus status)
{
    BlockJobInfo info = { .status = BLOCK_JOB_STATUSES };

    for (int i = 0; i < 100000 && info.status != status; i++) {
        aio_poll(block_graph_aio_context(graph), i % 100 == 99);
        block_job_query(job, &info);
    }
    ck_assert_msg(info.status == status, "job is %s, not %s; %s",
                  block_job_status_names[info.status],
                  block_job_status_names[status], job_events->str);
}

/** Turn the loop @turns times, or until @job is forgotten; returns whether it
 * is. */
static inline bool job_turns(BlockJob *job, int turns)
{
    BlockJobInfo info;

    block_job_query(job, &info);
    while (turns-- > 0 && info.status != BLOCK_JOB_NULL) {
        aio_poll(block_graph_aio_context(graph), true);
        block_job_query(job, &info);
    }
    return info.status == BLOCK_JOB_NULL;
}

/** Wait for the end, which must be good; drops the reference. */
static inline void job_end_ok(BlockJob *job)
{
    g_autoptr(GError) error = NULL;
    int ret = block_job_wait(job, &error);

    ck_assert_msg(ret == 0, "%s", error ? error->message : "no error set");
    block_job_unref(job);
}

/** Wait for the end, which must be that error; drops the reference. */
static inline void job_end_fails(BlockJob *job, int err, const char *message)
{
    GError *error = NULL;

    ck_assert_int_eq(block_job_wait(job, &error), -err);
    expect_error(&error, err, message);
    block_job_unref(job);
}

/**
 * Cancel, and wait for the end; drops the reference.  False: it was too late,
 * for the job is over, or took effect already and has ended well.
 */
static inline bool job_cancel_in_time(BlockJob *job)
{
    g_autoptr(GError) error = NULL;
    int ret = 0;

    if (block_job_cancel(job, false, NULL) == 0) {
        ret = block_job_wait(job, &error);
        ck_assert(ret == 0 || ret == -ECANCELED);
    }
    block_job_unref(job);
    return ret < 0;
}

/** Let all go on that can. */
static inline void job_settle(void)
{
    for (int i = 0; i < 50; i++) {
        aio_poll(block_graph_aio_context(graph), false);
    }
}

/** Fill [@offset, +@bytes) of @blk with @byte. */
static inline void job_fill(BlockBackend *blk, int64_t offset, int64_t bytes,
                            uint8_t byte)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    memset(buf, byte, bytes);
    ck_assert_int_eq(blk_pwrite(blk, offset, bytes, buf, 0), 0);
}

/** Check that all of [@offset, +@bytes) of @bs is @byte. */
static inline void job_expect(BlockDriverState *bs, int64_t offset,
                              int64_t bytes, uint8_t byte)
{
    BlockBackend *blk = backend_ok("look", bs, BLK_PERM_CONSISTENT_READ,
                                   BLK_PERM_ALL);
    g_autofree uint8_t *buf = g_malloc(bytes);
    int64_t i = 0;

    ck_assert_int_eq(blk_pread(blk, offset, bytes, buf, 0), 0);
    while (i < bytes && buf[i] == byte) {
        i++;
    }
    ck_assert_msg(i == bytes, "node '%s' at %" G_GINT64_FORMAT " is %d, not "
                  "%d", bdrv_node_name(bs), offset + i, buf[i], byte);
    blk_unref(blk);
}

/** A job does not start while somebody writes to @bs. */
static inline void job_finds_writer(BlockJobType type, const char *text,
                                    BlockDriverState *bs)
{
    BlockBackend *blk = backend_ok("writer", bs, BLK_PERM_WRITE, BLK_PERM_ALL);

    job_fails(type, text, 0, "writer");
    blk_unref(blk);
}

/* A job that is being started, or a disk that is being resized. */
typedef struct JobStep {
    BlockJobType type;
    const char *text;
    BlockBackend *blk;
    BlockJob *job;
    GError *error;
    bool over;
} JobStep;

static inline void coroutine_fn job_start_entry(void *opaque)
{
    JobStep *step = opaque;

    step->job = block_co_job_start(
        graph, step->type, block_options_parse_keyval(step->text, NULL, NULL),
        &step->error);
    step->over = true;
}

static inline void coroutine_fn job_resize_entry(void *opaque)
{
    BlockTruncate how = { .offset = 4096, .exact = true };
    JobStep *step = opaque;

    ck_assert_int_eq(blk_co_truncate(step->blk, &how, NULL), 0);
    step->over = true;
}

/** A job does not start when @bs is resized while it waits for a request of
 * "source", a mem node: for the resize, if that is @bs. */
static inline void job_finds_length(BlockJobType type, const char *text,
                                    BlockDriverState *bs)
{
    AioContext *ctx = block_graph_aio_context(graph);
    BlockDriverState *source = bdrv_find_node(graph, "source");
    JobStep step = { .type = type, .text = text };
    JobStep resize = { .blk = backend_ok("resize", source, BLK_PERM_RESIZE,
                                         BLK_PERM_ALL) };
    unsigned nodes = block_graph_nr_nodes(graph);

    mem_disk(source)->hold[MEM_TRUNCATE] = true;
    aio_co_enter(ctx, coroutine_create(job_resize_entry, &resize));
    aio_co_enter(ctx, coroutine_create(job_start_entry, &step));
    job_settle();
    ck_assert(!resize.over && !step.over);
    if (bs != source) {
        BlockBackend *blk = backend_ok("other", bs, BLK_PERM_RESIZE,
                                       BLK_PERM_ALL);
        BlockTruncate how = { .offset = 8192, .exact = true };

        ck_assert_int_eq(blk_truncate(blk, &how, NULL), 0);
        blk_unref(blk);
    }
    mem_disk(source)->hold[MEM_TRUNCATE] = false;
    while (!resize.over || !step.over) {
        aio_poll(ctx, true);
    }
    ck_assert_ptr_null(step.job);
    expect_error(&step.error, EINVAL, "must be the same");
    ck_assert_uint_eq(block_graph_nr_nodes(graph), nodes);
    blk_unref(resize.blk);
}

/** Coroutine: somebody who changes the graph, until the bool @opaque is set. */
static inline void coroutine_fn changer_entry(void *opaque)
{
    bool *ends = opaque;

    co_mutex_lock(&graph->control_lock);
    while (!*ends) {
        co_sleep_ns(0);
    }
    co_mutex_unlock(&graph->control_lock);
}

/** The main() of a test of jobs, with fixtures of its own. */
static inline int job_main_with(const char *name,
                                void (*add_tests)(TCase *tcase),
                                SFun setup, SFun teardown)
{
    Suite *suite = suite_create(name);
    TCase *tcase = tcase_create("all");

    mem_register();
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    add_tests(tcase);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}

/** The main() of a test of jobs. */
static inline int job_main(const char *name, void (*add_tests)(TCase *tcase))
{
    return job_main_with(name, add_tests, job_setup, job_teardown);
}

#endif /* TESTS_UNIT_JOB_FIXTURE_H */
