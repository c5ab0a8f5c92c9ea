/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reopen: new options for several nodes, for all of them or for none.
 */
#include "graph-fixture.h"
#include "mem-driver.h"

#define ALL BLK_PERM_ALL
#define READ BLK_PERM_CONSISTENT_READ
#define WRITE BLK_PERM_WRITE

START_TEST(reopen_to_read_only_is_refused_while_somebody_writes)
{
    BlockDriverState *disk = open_ok("null-co,node-name=disk");
    BlockBackend *blk = backend_ok("guest", disk, READ | WRITE, ALL);
    GError *error = NULL;

    ck_assert_int_eq(bdrv_reopen(disk, opts("null-co,read-only=on"), &error),
                     -EACCES);
    expect_error(&error, EACCES, "'guest'");
    ck_assert(!bdrv_is_read_only(disk));
    blk_unref(blk);
    ck_assert_int_eq(bdrv_reopen(disk, opts("null-co,read-only=on"), &error),
                     0);
    ck_assert(bdrv_is_read_only(disk));
    ck_assert_int_eq(bdrv_reopen(disk, opts("null-co,read-only=off"), &error),
                     0);
    ck_assert(!bdrv_is_read_only(disk));
    bdrv_unref(disk);
}
END_TEST

START_TEST(nested_children_follow_their_parent_others_do_not)
{
    BlockDriverState *other = open_ok("null-co,node-name=other");
    BlockDriverState *nested = open_ok(
        "pass,node-name=top,file.driver=null-co,file.node-name=below");
    BlockDriverState *by_name = open_ok("pass,node-name=ref,file=other");
    GError *error = NULL;

    ck_assert_int_eq(bdrv_reopen(nested, opts("pass,read-only=on"), &error),
                     0);
    ck_assert(bdrv_is_read_only(bdrv_find_node(graph, "below")));
    ck_assert_int_eq(bdrv_reopen(by_name, opts("pass,read-only=on"), &error),
                     0);
    ck_assert(!bdrv_is_read_only(other));
    bdrv_unref(by_name);
    bdrv_unref(nested);
    bdrv_unref(other);
}
END_TEST

START_TEST(reopen_of_several_nodes_happens_for_all_or_none)
{
    BlockDriverState *a = open_ok("null-co,node-name=a,size=1M");
    BlockDriverState *b = open_ok("null-co,node-name=b");
    BdrvReopenQueue *queue = bdrv_reopen_queue_new(graph);
    GError *error = NULL;

    bdrv_reopen_queue_add(queue, a, opts("null-co,size=2M"), true);
    bdrv_reopen_queue_add(queue, b, opts("null-co,latency-ns=x"), true);
    ck_assert_int_eq(bdrv_reopen_multiple(queue, &error), -EINVAL);
    expect_error(&error, EINVAL, "'b'");
    ck_assert_int_eq(bdrv_length(a), 1 << 20);

    queue = bdrv_reopen_queue_new(graph);
    bdrv_reopen_queue_add(queue, a, opts("null-co,size=2M"), true);
    bdrv_reopen_queue_add(queue, b, opts("null-co,size=3M"), true);
    ck_assert_int_eq(bdrv_reopen_multiple(queue, &error), 0);
    ck_assert_int_eq(bdrv_length(a), 2 << 20);
    ck_assert_int_eq(bdrv_length(b), 3 << 20);
    bdrv_unref(a);
    bdrv_unref(b);
}
END_TEST

START_TEST(reopen_refuses_another_driver_name_or_unknown_option)
{
    BlockDriverState *a = open_ok("null-co,node-name=a");
    GError *error = NULL;

    ck_assert_int_lt(bdrv_reopen(a, opts("pass"), &error), 0);
    expect_error(&error, EINVAL, "driver");
    ck_assert_int_lt(bdrv_reopen(a, opts("null-co,node-name=b"), &error), 0);
    expect_error(&error, EINVAL, "node name");
    ck_assert_int_lt(bdrv_reopen(a, opts("null-co,siez=1"), &error), 0);
    expect_error(&error, EINVAL, "siez");
    bdrv_unref(a);
}
END_TEST

START_TEST(reopen_exchanges_a_child_by_name)
{
    BlockDriverState *a = open_ok("null-co,node-name=a");
    BlockDriverState *b = open_ok("null-co,node-name=b");
    BlockDriverState *top = open_ok("pass,node-name=top,file=a");
    BlockBackend *blk = backend_ok("guest", top, READ | WRITE, ALL);
    GError *error = NULL;

    ck_assert_int_eq(bdrv_reopen(top, opts("pass,file=b"), &error), 0);
    ck_assert_ptr_eq(bdrv_child_bs(bdrv_find_child(top, "file")), b);
    ck_assert_uint_eq(bdrv_get_perm(b).used, READ | WRITE);
    ck_assert_uint_eq(bdrv_get_perm(a).used, 0);
    ck_assert_int_eq(bdrv_delete(a, &error), 0);
    blk_unref(blk);
    bdrv_unref(top);
    bdrv_unref(b);
}
END_TEST

START_TEST(reopen_that_would_close_a_circle_is_refused)
{
    BlockDriverState *x = open_ok("null-co,node-name=x");
    BlockDriverState *a = open_ok("pass,node-name=a,file=x");
    BlockDriverState *b = open_ok("pass,node-name=b,file=x");
    BdrvReopenQueue *queue = bdrv_reopen_queue_new(graph);
    GError *error = NULL;

    /* Each alone would do. */
    bdrv_reopen_queue_add(queue, a, opts("pass,file=b"), true);
    bdrv_reopen_queue_add(queue, b, opts("pass,file=a"), true);
    ck_assert_int_eq(bdrv_reopen_multiple(queue, &error), -ELOOP);
    expect_error(&error, ELOOP, "cycle");
    ck_assert_ptr_eq(bdrv_child_bs(bdrv_find_child(a, "file")), x);
    ck_assert_ptr_eq(bdrv_child_bs(bdrv_find_child(b, "file")), x);
    bdrv_unref(b);
    bdrv_unref(a);
    bdrv_unref(x);
}
END_TEST

START_TEST(a_nested_child_keeps_what_it_inherits_in_any_order_of_reopen)
{
    BlockDriverState *top = open_ok(
        "pass,node-name=top,read-only=on,cache.direct=on,"
        "file.driver=null-co,file.node-name=below");
    BlockDriverState *below = bdrv_find_node(graph, "below");
    BdrvReopenQueue *queue;

    ck_assert_uint_eq(bdrv_open_flags(below), BDRV_O_NOCACHE);
    /* Without its parent ... */
    ck_assert_int_eq(bdrv_reopen(below, opts("null-co,size=2M"), NULL), 0);
    ck_assert_uint_eq(bdrv_open_flags(below), BDRV_O_NOCACHE);
    /* ... and before it. */
    queue = bdrv_reopen_queue_new(graph);
    bdrv_reopen_queue_add(queue, below, opts("null-co,size=3M"), true);
    bdrv_reopen_queue_add(queue, top, opts("pass,read-only=off"), true);
    ck_assert_int_eq(bdrv_reopen_multiple(queue, NULL), 0);
    ck_assert_uint_eq(bdrv_open_flags(below), BDRV_O_NOCACHE | BDRV_O_RDWR);
    ck_assert_int_eq(bdrv_length(below), 3 << 20);
    bdrv_unref(top);
}
END_TEST

START_TEST(a_queue_that_is_not_run_changes_nothing_and_keeps_no_node)
{
    BlockDriverState *a = open_ok("null-co,node-name=a,size=1M");
    BlockDriverState *b = open_ok("null-co,node-name=b");
    BdrvReopenQueue *queue = bdrv_reopen_queue_new(graph);

    bdrv_reopen_queue_add(queue, a, opts("null-co,size=2M"), true);
    bdrv_reopen_queue_add(queue, a, opts("null-co,size=3M"), false);
    bdrv_reopen_queue_add(queue, b, opts("null-co,nonsense=1"), true);
    bdrv_reopen_queue_free(queue);
    bdrv_reopen_queue_free(NULL);
    ck_assert_int_eq(bdrv_length(a), 1 << 20);
    bdrv_unref(a);
    bdrv_unref(b);
    ck_assert_uint_eq(block_graph_nr_nodes(graph), 0);
}
END_TEST

START_TEST(a_child_is_not_taken_away_or_made_anew_by_reopen)
{
    static const struct { const char *options; int err; const char *text; }
    cases[] = {
        { "pass,file=nobody", ENOENT,
          "Node 'nobody' (as 'file' of node 'top') not found" },
        { "pass,file.driver=null-co", EINVAL,
          "'file' cannot be given new nested options" },
    };
    BlockDriverState *below = open_ok("null-co,node-name=below");
    BlockDriverState *top = open_ok("pass,node-name=top,file=below");
    GError *error = NULL;

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        ck_assert_int_eq(bdrv_reopen(top, opts(cases[i].options), &error),
                         -cases[i].err);
        expect_error(&error, cases[i].err, cases[i].text);
    }
    ck_assert_int_eq(
        bdrv_reopen(top, block_options_parse_json("{\"file\": null}", NULL),
                    &error), -EINVAL);
    expect_error(&error, EINVAL, "'file' cannot be removed by reopen");
    ck_assert_ptr_eq(bdrv_child_bs(bdrv_find_child(top, "file")), below);
    bdrv_unref(top);
    bdrv_unref(below);
}
END_TEST

START_TEST(a_node_that_cannot_be_flushed_does_not_become_read_only)
{
    BlockDriverState *bs = open_ok("mem,node-name=disk");
    BlockBackend *blk = backend_ok("guest", bs, WRITE, ALL);
    GError *error = NULL;

    ck_assert_int_eq(blk_pwrite(blk, 0, 1, "x", 0), 0);
    blk_unref(blk);
    mem_disk(bs)->fail[MEM_FLUSH] = EIO;
    ck_assert_int_eq(bdrv_reopen(bs, opts("mem,read-only=on"), &error), -EIO);
    expect_error(&error, EIO, "flush before becoming read-only failed");
    ck_assert(!bdrv_is_read_only(bs));
    ck_assert_int_eq(bdrv_reopen(bs, opts("mem,read-only=on"), &error), 0);
    ck_assert(bdrv_is_read_only(bs));
    ck_assert_uint_eq(mem_disk(bs)->count[MEM_FLUSH], 2);
    bdrv_unref(bs);
}
END_TEST

START_TEST(a_driver_without_reopen_keeps_its_options)
{
    BlockDriverState *bs = open_ok("mem,node-name=disk,size=64k");
    GError *error = NULL;

    ck_assert_int_eq(bdrv_reopen(bs, opts("mem,size=32k"), &error), -EINVAL);
    expect_error(&error, EINVAL, "option 'size' cannot be changed while");
    ck_assert_int_eq(bdrv_reopen(bs, opts("mem,size=64k,read-only=on"),
                                 &error), 0);
    ck_assert(bdrv_is_read_only(bs));
    ck_assert_int_eq(bdrv_length(bs), 65536);
    bdrv_unref(bs);
}
END_TEST

/*
 *   top          top
 *    | file  ->   | file      file.* are below's options, before and after
 *   below       filter
 *                 | file
 *               below
 */
START_TEST(nested_options_reach_the_node_below_a_filter_that_was_inserted)
{
    BlockDriverState *top = open_ok(
        "pass,node-name=top,file.driver=null-co,file.node-name=below");
    BlockDriverState *below = bdrv_find_node(graph, "below");
    BlockDriverState *filter = NULL;
    GError *error = NULL;

    ck_assert_int_eq(bdrv_insert_node(below, opts("pass,node-name=filter"),
                                      &filter, NULL), 0);
    ck_assert_int_eq(bdrv_reopen(top, opts("pass,file.size=2M"), &error), 0);
    ck_assert_int_eq(bdrv_length(below), 2 << 20);
    /* What it inherits reaches it, too, and the filter is left alone. */
    ck_assert_int_eq(bdrv_reopen(top, opts("pass,cache.direct=on"), NULL), 0);
    ck_assert_uint_eq(bdrv_open_flags(below),
                      BDRV_O_RDWR | BDRV_O_NOCACHE);
    ck_assert_uint_eq(bdrv_open_flags(filter), BDRV_O_RDWR);
    ck_assert_int_eq(bdrv_drop_filter(filter, NULL), 0);
    ck_assert_int_eq(bdrv_reopen(top, opts("pass,file.size=3M"), &error), 0);
    ck_assert_int_eq(bdrv_length(below), 3 << 20);
    bdrv_unref(filter);
    bdrv_unref(top);
}
END_TEST

START_TEST(nested_options_are_never_given_to_another_node)
{
    BlockDriverState *top = open_ok(
        "pass,node-name=top,file.driver=null-co,file.node-name=below");
    BlockDriverState *below = bdrv_ref(bdrv_find_node(graph, "below"));
    BlockDriverState *other = open_ok("null-co,node-name=other");
    GError *error = NULL;

    ck_assert_int_eq(bdrv_replace_node(below, other, NULL), 0);
    ck_assert_int_eq(bdrv_reopen(top, opts("pass,file.size=2M"), &error),
                     -EINVAL);
    expect_error(&error, EINVAL, "they belong to node 'below', but 'file' "
                 "leads to node 'other' now");
    ck_assert_int_eq(bdrv_reopen(top, opts("pass,read-only=on"), NULL), 0);
    ck_assert(!bdrv_is_read_only(other));
    ck_assert(!bdrv_is_read_only(below));
    bdrv_unref(below);
    /* Now that it is gone. */
    ck_assert_int_eq(bdrv_reopen(top, opts("pass,file.size=2M"), &error),
                     -EINVAL);
    expect_error(&error, EINVAL, "'other' was not opened from such");
    bdrv_unref(top);
    bdrv_unref(other);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("reopen");
    TCase *tcase = tcase_create("reopen");

    register_pass_driver();
    mem_register();
    tcase_add_checked_fixture(tcase, graph_setup, graph_teardown);
    tcase_set_timeout(tcase, 60);
    PROMISE(tcase, reopen_to_read_only_is_refused_while_somebody_writes);
    PROMISE(tcase, nested_children_follow_their_parent_others_do_not);
    PROMISE(tcase, reopen_of_several_nodes_happens_for_all_or_none);
    PROMISE(tcase, reopen_refuses_another_driver_name_or_unknown_option);
    PROMISE(tcase, reopen_exchanges_a_child_by_name);
    PROMISE(tcase, reopen_that_would_close_a_circle_is_refused);
    PROMISE(tcase,
            a_nested_child_keeps_what_it_inherits_in_any_order_of_reopen);
    PROMISE(tcase, a_queue_that_is_not_run_changes_nothing_and_keeps_no_node);
    PROMISE(tcase, a_child_is_not_taken_away_or_made_anew_by_reopen);
    PROMISE(tcase, a_node_that_cannot_be_flushed_does_not_become_read_only);
    PROMISE(tcase, a_driver_without_reopen_keeps_its_options);
    PROMISE(tcase,
            nested_options_reach_the_node_below_a_filter_that_was_inserted);
    PROMISE(tcase, nested_options_are_never_given_to_another_node);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
