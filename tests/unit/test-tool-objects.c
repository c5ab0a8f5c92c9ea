/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The graph of a tool, and how it ends.
 */
#include "tools/tool-objects.h"

#include <blockgraph/aio.h>
#include <blockgraph/driver.h>
#include <blockgraph/job.h>
#include <errno.h>

#include "tests/unit/check-main.h"
#include "tools/tool-image.h"

static BlockGraph *graph;

static BlockDriverState *open_node(const char *text)
{
    BlockDriverState *bs = bdrv_open(
        graph, block_options_parse_keyval(text, "driver", NULL), NULL);

    ck_assert_ptr_nonnull(bs);
    return bs;
}

/*
 * A backup that was cancelled and is over, but whose read of the node "source"
 * is still held, by the break point "late".
 */
static void leave_a_job_behind(void)
{
    BlockDriverState *source, *target;
    BlockJob *job;

    source = open_node("blkdebug,node-name=source,image.driver=null-co,"
                       "image.size=64k");
    target = open_node("null-co,node-name=target,size=64k");
    ck_assert_int_eq(bdrv_debug_breakpoint(source, "read_aio", "late"), 0);
    job = block_job_start(graph, BLOCK_JOB_BACKUP, block_options_parse_keyval(
        "job-id=j,device=source,target=target,sync=full", NULL, NULL), NULL);
    ck_assert_ptr_nonnull(job);
    bdrv_unref(source);
    bdrv_unref(target);
    while (!bdrv_debug_is_suspended(source, "late")) {
        aio_poll(block_graph_aio_context(graph), true);
    }
    ck_assert_int_eq(block_job_cancel(job, true, NULL), 0);
    ck_assert_int_eq(block_job_wait(job, NULL), -ECANCELED);
    block_job_unref(job);
    ck_assert_ptr_null(block_job_next(graph, NULL));
    ck_assert_ptr_nonnull(bdrv_find_node(graph, "source"));
}

static void let_it_end(void *opaque)
{
    BlockDriverState *source = bdrv_find_node(graph, "source");

    ck_assert_ptr_nonnull(source);
    ck_assert_int_eq(bdrv_debug_resume(source, "late"), 0);
}

/* The read ends in the next turn of the loop, and who does not wait for that
 * frees a graph with nodes. */
START_TEST(what_a_job_that_is_over_still_holds_is_waited_for)
{
    graph = tool_graph_new(0);
    leave_a_job_behind();
    aio_bh_schedule_oneshot(block_graph_aio_context(graph), let_it_end, NULL);
    if (_i == 0) {
        tool_graph_free(graph); /* which aborts if there is a node */
    } else {
        ck_assert(tool_wait_for_jobs(graph));
        ck_assert_uint_eq(block_graph_nr_nodes(graph), 0);
        tool_graph_free(graph);
    }
}
END_TEST

START_TEST(a_graph_without_nodes_is_not_waited_for)
{
    graph = tool_graph_new(0);
    ck_assert(tool_wait_for_jobs(graph));
    tool_graph_free(graph);
    tool_graph_free(NULL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tool-objects");
    TCase *tcase = tcase_create("all");

    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(
        tcase, what_a_job_that_is_over_still_holds_is_waited_for, 0, 2);
    PROMISE(tcase, a_graph_without_nodes_is_not_waited_for);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
