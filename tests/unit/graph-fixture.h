/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A graph to test on, and short ways to fill it.
 */
#ifndef TESTS_UNIT_GRAPH_FIXTURE_H
#define TESTS_UNIT_GRAPH_FIXTURE_H

#include "check-main.h"

#include <blockgraph/backend.h>
#include <blockgraph/driver.h>
#include <errno.h>
#include <string.h>

/* The graph of the running test; set up and torn down around each. */
static BlockGraph *graph;

static inline void graph_setup(void)
{
    graph = block_graph_new(NULL, NULL);
    ck_assert_ptr_nonnull(graph);
}

static inline void graph_teardown(void)
{
    /* Aborts if the test has left a node behind. */
    block_graph_free(graph);
    graph = NULL;
}

/** Options from "driver,key=value,..."; the test fails if they are wrong. */
static inline BlockOptions *opts(const char *text)
{
    g_autoptr(GError) error = NULL;
    BlockOptions *options =
        block_options_parse_keyval(text, "driver", &error);

    ck_assert_msg(options != NULL, "%s: %s", text,
                  error ? error->message : "no error set");
    return options;
}

/** Open a node that must open. */
static inline BlockDriverState *open_ok(const char *text)
{
    g_autoptr(GError) error = NULL;
    BlockDriverState *bs = bdrv_open(graph, opts(text), &error);

    ck_assert_msg(bs != NULL, "%s: %s", text,
                  error ? error->message : "no error set");
    return bs;
}

/** Check that @error is set, has the errno and contains the text; free it. */
static inline void expect_error(GError **error, int err, const char *text)
{
    ck_assert_msg(*error != NULL, "no error set, expected '%s'", text);
    ck_assert_msg(strstr((*error)->message, text) != NULL,
                  "error is '%s', expected '%s' in it", (*error)->message,
                  text);
    if (err) {
        ck_assert_int_eq(block_error_code(*error), err);
    }
    g_clear_error(error);
}

/** Try to open a node that must not open; nothing may be left of it. */
static inline void open_fails(const char *text, int err, const char *message)
{
    size_t before = block_graph_nr_nodes(graph);
    GError *error = NULL;
    BlockDriverState *bs = bdrv_open(graph, opts(text), &error);

    ck_assert_ptr_null(bs);
    ck_assert_uint_eq(block_graph_nr_nodes(graph), before);
    expect_error(&error, err, message);
}

/** A backend with a node; must work. */
static inline BlockBackend *backend_ok(const char *name, BlockDriverState *bs,
                                       uint64_t used, uint64_t shared)
{
    BlockPerm perm = { .used = used, .shared = shared };
    BlockBackend *blk = blk_new(graph, name, &perm);
    g_autoptr(GError) error = NULL;

    ck_assert_msg(blk_insert_bs(blk, bs, &error) == 0, "%s",
                  error ? error->message : "no error set");
    return blk;
}

/* A filter that leaves every method out. */
static int coroutine_fn pass_open(BlockDriverState *bs, BlockOptions *options,
                                  unsigned flags, GError **errp)
{
    return bdrv_co_open_child(bs, options, "file",
                              BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY, true,
                              errp)
               ? 0
               : -EINVAL;
}

/* The options of a filter. */
static const BlockOption filter_options[] = {
    { .name = "file", .type = BLOCK_OPTION_CHILD, .help = "filtered" },
    { .type = BLOCK_OPTION_END },
};

/** Register a driver of tests, if that has not been done. */
static inline void register_test_driver(const BlockDriver *driver)
{
    /* Before any test runs, so not by an assertion of check. */
    if (!bdrv_find_driver(driver->name) && bdrv_register(driver, NULL) < 0) {
        abort();
    }
}

static inline void register_pass_driver(void)
{
    static const BlockDriver driver = {
        .struct_size = sizeof(BlockDriver),
        .name = "pass",
        .kind = BLOCK_DRIVER_FILTER,
        .options = filter_options,
        .open = pass_open,
    };

    register_test_driver(&driver);
}

/** The program of the suite @name of one case, each test in a graph of its own.
 */
static inline int graph_suite(const char *name, void (*add_tests)(TCase *))
{
    Suite *suite = suite_create(name);
    TCase *tcase = tcase_create(name);

    tcase_add_checked_fixture(tcase, graph_setup, graph_teardown);
    tcase_set_timeout(tcase, 60);
    add_tests(tcase);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}

#endif /* TESTS_UNIT_GRAPH_FIXTURE_H */
