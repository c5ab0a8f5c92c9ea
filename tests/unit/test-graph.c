/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "graph-fixture.h"

#include "config.h"

#define ALL BLK_PERM_ALL
#define READ BLK_PERM_CONSISTENT_READ
#define WRITE BLK_PERM_WRITE

/* --- drivers -------------------------------------------------------------- */

START_TEST(a_filter_that_must_see_writes_needs_all_writing_methods)
{
    static BlockDriver driver = {
        .struct_size = sizeof(BlockDriver),
        .name = "half-blind",
        .kind = BLOCK_DRIVER_FILTER,
        .sees = BLOCK_SEES_WRITES,
        .open = pass_open,
    };
    GError *error = NULL;

    ck_assert_int_eq(bdrv_register(&driver, &error), -EINVAL);
    expect_error(&error, EINVAL, "half-blind");
    ck_assert_ptr_null(bdrv_find_driver("half-blind"));
}
END_TEST

START_TEST(a_driver_of_another_version_or_name_is_refused)
{
    static BlockDriver driver = {
        .struct_size = sizeof(BlockDriver) - 8,
        .name = "old",
        .open = pass_open,
    };
    GError *error = NULL;

    ck_assert_int_eq(bdrv_register(&driver, &error), -EINVAL);
    expect_error(&error, EINVAL, "another version");
    driver.struct_size = sizeof(BlockDriver);
    driver.name = "null-co";
    ck_assert_int_eq(bdrv_register(&driver, &error), -EEXIST);
    expect_error(&error, EEXIST, "null-co");
}
END_TEST

START_TEST(drivers_are_walked_once_each_and_all_of_them)
{
    unsigned nr = 0;
    bool null_co = false;

    for (const BlockDriver *d = NULL; (d = bdrv_next_driver(d));) {
        ck_assert_ptr_eq(bdrv_find_driver(d->name), d);
        null_co = null_co || g_str_equal(d->name, "null-co");
        nr++;
    }
    ck_assert(null_co);
    register_pass_driver();
    for (const BlockDriver *d = NULL; (d = bdrv_next_driver(d));) {
        ck_assert(nr > 0 || g_str_equal(d->name, "pass"));
        nr -= nr > 0;
    }
    ck_assert_uint_eq(nr, 0);
}
END_TEST

/* --- opening -------------------------------------------------------------- */

START_TEST(a_node_is_found_by_its_name_until_it_is_closed)
{
    BlockDriverState *bs = open_ok("null-co,node-name=disk0,size=1M");

    ck_assert_ptr_eq(bdrv_find_node(graph, "disk0"), bs);
    ck_assert_str_eq(bdrv_driver_name(bs), "null-co");
    ck_assert_int_eq(bdrv_length(bs), 1 << 20);
    bdrv_unref(bs);
    ck_assert_ptr_null(bdrv_find_node(graph, "disk0"));
    ck_assert_uint_eq(block_graph_nr_nodes(graph), 0);
}
END_TEST

START_TEST(the_options_of_a_node_are_those_that_were_given)
{
    BlockDriverState *bs = open_ok("null-co,size=1M,detect-zeroes=on");
    BlockOptions *options = bdrv_get_options(bs);

    ck_assert_str_eq(block_options_peek_str(options, "detect-zeroes"), "on");
    ck_assert_str_eq(block_options_peek_str(options, "size"), "1M");
    ck_assert(!block_options_has(options, "latency-ns"));
    block_options_free(options);
    bdrv_unref(bs);
}
END_TEST

START_TEST(nodes_without_a_name_get_one_that_nobody_can_give)
{
    BlockDriverState *a = open_ok("null-co");
    BlockDriverState *b = open_ok("null-co");

    ck_assert_str_ne(bdrv_node_name(a), bdrv_node_name(b));
    ck_assert_int_eq(bdrv_node_name(a)[0], '#');
    open_fails("null-co,node-name=#block000", EINVAL, "Invalid node name");
    bdrv_unref(a);
    bdrv_unref(b);
}
END_TEST

START_TEST(bad_options_are_named_and_leave_nothing)
{
    open_fails("no-such-driver", ENOENT, "no-such-driver");
    open_fails("null-co,node-name=1x", EINVAL, "1x");
    open_fails("null-co,node-name=a b", EINVAL, "a b");
    open_fails("null-co,siz=1M", EINVAL, "siz");
    open_fails("null-co,size=pony", EINVAL, "pony");
    open_fails("null-co,size=-1", EINVAL, "size");
    open_fails("null-co,size=9E", EINVAL, "size");
    open_fails("null-co,read-only=perhaps", EINVAL, "perhaps");
    open_fails("null-co,force-share=on", EINVAL, "force-share");
    open_fails("null-co,detect-zeroes=unmap", EINVAL, "discard=unmap");
    open_fails("pass", EINVAL, "file");
    open_fails("pass,file=nobody", ENOENT, "nobody");
    open_fails("pass,file.driver=null-co,file.siz=1", EINVAL, "siz");
    open_fails("pass,file.driver=null-co,wrong=1", EINVAL, "wrong");
}
END_TEST

START_TEST(what_a_child_inherits_does_not_hide_a_wrong_value)
{
    open_fails("pass,cache.direct=on,file.driver=null-co,file.cache=5",
               EINVAL, "'cache'");
}
END_TEST

START_TEST(a_name_is_given_once)
{
    BlockDriverState *bs = open_ok("null-co,node-name=disk0");

    open_fails("null-co,node-name=disk0", EEXIST, "disk0");
    open_fails("pass,node-name=disk0,file.driver=null-co", EEXIST, "disk0");
    open_fails("pass,file.driver=null-co,file.node-name=disk0", EEXIST,
               "disk0");
    ck_assert_ptr_eq(bdrv_find_node(graph, "disk0"), bs);
    bdrv_unref(bs);
}
END_TEST

START_TEST(nested_dotted_and_json_forms_make_the_same_nodes)
{
    g_autoptr(GError) error = NULL;
    BlockOptions *json = block_options_parse_filename(
        "json:{\"driver\": \"pass\", \"file\": {\"driver\": \"null-co\","
        " \"size\": 4096, \"node-name\": \"below\"}}", &error);
    BlockDriverState *bs;

    ck_assert_ptr_nonnull(json);
    bs = bdrv_open(graph, json, &error);
    ck_assert_ptr_nonnull(bs);
    ck_assert_int_eq(bdrv_length(bs), 4096);
    bdrv_unref(bs);

    bs = open_ok("pass,file.driver=null-co,file.size=4096,"
                 "file.node-name=below");
    ck_assert_int_eq(bdrv_length(bs), 4096);
    ck_assert_ptr_eq(bdrv_child_bs(bdrv_find_child(bs, "file")),
                     bdrv_find_node(graph, "below"));
    bdrv_unref(bs);
    ck_assert_uint_eq(block_graph_nr_nodes(graph), 0);
}
END_TEST

START_TEST(a_reference_keeps_the_node_when_its_opener_lets_go)
{
    BlockDriverState *below = open_ok("null-co,node-name=below");
    BlockDriverState *top = open_ok("pass,file=below");

    bdrv_unref(below);
    ck_assert_ptr_eq(bdrv_find_node(graph, "below"), below);
    bdrv_unref(top);
    ck_assert_uint_eq(block_graph_nr_nodes(graph), 0);
}
END_TEST

START_TEST(a_graph_deeper_than_the_limit_is_refused)
{
    BlockDriverState *top = open_ok("null-co,node-name=n0");
    int i;

    for (i = 1; i < 1000; i++) {
        g_autofree char *text =
            g_strdup_printf("pass,node-name=n%d,file=n%d", i, i - 1);
        g_autoptr(GError) error = NULL;
        BlockDriverState *next = bdrv_open(graph, opts(text), &error);

        if (!next) {
            ck_assert_int_eq(block_error_code(error), ELOOP);
            break;
        }
        bdrv_unref(top);
        top = next;
    }
    ck_assert_int_ge(i, 64);
    ck_assert_int_lt(i, 1000);
    bdrv_unref(top);
}
END_TEST

START_TEST(no_change_makes_a_graph_higher_than_the_limit)
{
    BlockDriverState *bottom = open_ok("null-co,node-name=bottom");
    BlockDriverState *nodes[64];
    GError *error = NULL;
    int n = 0;

    while (n < 64 && bdrv_insert_node(bottom, opts("pass"), &nodes[n],
                                      &error) == 0) {
        n++;
    }
    ck_assert_int_eq(n, 63);
    expect_error(&error, ELOOP, "on top of each other");
    ck_assert_uint_eq(block_graph_nr_nodes(graph), 64);
    while (n > 0) {
        bdrv_unref(nodes[--n]);
    }
    bdrv_unref(bottom);
}
END_TEST

/* As many nodes of @driver as there may be, on top of each other. */
static BlockDriverState *open_deepest(const char *driver)
{
    BlockDriverState *top = open_ok("null-co,node-name=n0,size=1M");

    for (int i = 1; i < 1000; i++) {
        g_autofree char *text = g_strdup_printf("%s,node-name=n%d,file=n%d",
                                                driver, i, i - 1);
        BlockDriverState *next = bdrv_open(graph, opts(text), NULL);

        if (!next) {
            break;
        }
        bdrv_unref(top);
        top = next;
    }
    return top;
}

START_TEST(the_deepest_graph_fits_on_the_stack_of_a_request)
{
    BlockDriverState *top = open_deepest(_i ? "raw" : "pass");
    BlockBackend *blk = backend_ok("guest", top, READ | WRITE, ALL);
    char buf[1000] = "x";
    BlockExtent extent;

    ck_assert_int_eq(blk_pwrite(blk, 3, sizeof(buf), buf, BDRV_REQ_FUA), 0);
    ck_assert_int_eq(blk_pwrite_zeroes(blk, 3, 100001, BDRV_REQ_FUA), 0);
    ck_assert_int_eq(blk_pread(blk, 3, sizeof(buf), buf, 0), 0);
    ck_assert_int_eq(blk_flush(blk), 0);
    ck_assert_int_eq(blk_block_status(blk, 0, 1 << 20, &extent), 0);
    ck_assert_int_eq(extent.bytes, 1 << 20);
    blk_unref(blk);
    bdrv_unref(top);
}
END_TEST

/* --- removing ------------------------------------------------------------- */

START_TEST(a_node_in_use_is_not_deleted_and_its_user_named)
{
    BlockDriverState *below = open_ok("null-co,node-name=below");
    BlockDriverState *top = open_ok("pass,node-name=top,file=below");
    BlockBackend *blk = backend_ok("guest", top, READ, ALL);
    GError *error = NULL;

    ck_assert_int_eq(bdrv_delete(below, &error), -EBUSY);
    expect_error(&error, EBUSY, "node 'top' (as 'file')");
    ck_assert_int_eq(bdrv_delete(top, &error), -EBUSY);
    expect_error(&error, EBUSY, "block backend 'guest'");
    blk_unref(blk);
    ck_assert_int_eq(bdrv_delete(top, &error), 0);
    ck_assert_int_eq(bdrv_delete(below, &error), 0);
    ck_assert_uint_eq(block_graph_nr_nodes(graph), 0);
}
END_TEST

START_TEST(nodes_close_in_any_order)
{
    for (int order = 0; order < 6; order++) {
        static const int orders[6][3] = { { 0, 1, 2 }, { 0, 2, 1 },
                                          { 1, 0, 2 }, { 1, 2, 0 },
                                          { 2, 0, 1 }, { 2, 1, 0 } };
        BlockDriverState *nodes[3] = {
            open_ok("null-co,node-name=a"),
            open_ok("pass,node-name=b,file=a"),
            open_ok("pass,node-name=c,file=b"),
        };

        for (int i = 0; i < 3; i++) {
            bdrv_unref(nodes[orders[order][i]]);
        }
        ck_assert_uint_eq(block_graph_nr_nodes(graph), 0);
    }
}
END_TEST

START_TEST(ten_thousand_nodes_open_and_close)
{
    enum { N = 10000 };
    BlockDriverState **nodes = g_new(BlockDriverState *, N);

    for (int i = 0; i < N; i++) {
        nodes[i] = open_ok("null-co");
    }
    ck_assert_uint_eq(block_graph_nr_nodes(graph), N);
    for (int i = 0; i < N; i++) {
        bdrv_unref(nodes[i]);
    }
    g_free(nodes);
}
END_TEST

/* --- changing ------------------------------------------------------------- */

START_TEST(a_filter_goes_in_above_a_node_and_out_again)
{
    BlockDriverState *disk = open_ok("null-co,node-name=disk,size=64k");
    BlockBackend *blk = backend_ok("guest", disk, READ | WRITE, ALL);
    BlockDriverState *filter = NULL;
    GError *error = NULL;

    ck_assert_int_eq(bdrv_insert_node(disk, opts("pass,node-name=filter"),
                                      &filter, &error), 0);
    ck_assert_ptr_eq(blk_bs(blk), filter);
    ck_assert_uint_eq(bdrv_get_perm(disk).used, READ | WRITE);
    ck_assert_int_eq(blk_pwrite(blk, 0, 4, "abcd", 0), 0);
    ck_assert_int_eq(bdrv_drop_filter(filter, &error), 0);
    ck_assert_ptr_eq(blk_bs(blk), disk);
    ck_assert_ptr_null(bdrv_find_child(filter, "file"));
    ck_assert_int_eq(blk_pwrite(blk, 0, 4, "abcd", 0), 0);
    bdrv_unref(filter);
    blk_unref(blk);
    bdrv_unref(disk);
}
END_TEST

START_TEST(inserting_something_that_is_not_above_the_node_changes_nothing)
{
    BlockDriverState *disk = open_ok("null-co,node-name=disk");
    BlockDriverState *other = open_ok("null-co,node-name=other");
    BlockBackend *blk = backend_ok("guest", disk, READ, ALL);
    BlockDriverState *filter = NULL;
    GError *error = NULL;

    ck_assert_int_lt(bdrv_insert_node(disk, opts("pass,file=other"), &filter,
                                      &error), 0);
    expect_error(&error, EINVAL, "disk");
    ck_assert_int_lt(bdrv_insert_node(disk, opts("nonsense"), &filter,
                                      &error), 0);
    expect_error(&error, ENOENT, "nonsense");
    ck_assert_ptr_null(filter);
    ck_assert_ptr_eq(blk_bs(blk), disk);
    ck_assert_uint_eq(block_graph_nr_nodes(graph), 2);
    blk_unref(blk);
    bdrv_unref(other);
    bdrv_unref(disk);
}
END_TEST

START_TEST(cycles_are_refused)
{
    BlockDriverState *a = open_ok("null-co,node-name=a");
    BlockDriverState *b = open_ok("pass,node-name=b,file=a");
    BlockDriverState *c = open_ok("pass,node-name=c,file=b");
    GError *error = NULL;

    ck_assert_int_lt(bdrv_reopen(b, opts("pass,file=c"), &error), 0);
    expect_error(&error, ELOOP, "cycle");
    ck_assert_int_lt(bdrv_reopen(b, opts("pass,file=b"), &error), 0);
    expect_error(&error, ELOOP, "cycle");
    ck_assert_ptr_eq(bdrv_child_bs(bdrv_find_child(b, "file")), a);
    bdrv_unref(c);
    bdrv_unref(b);
    bdrv_unref(a);
}
END_TEST

START_TEST(a_frozen_edge_refuses_every_change_until_thawed)
{
    BlockDriverState *a = open_ok("null-co,node-name=a");
    BlockDriverState *b = open_ok("pass,node-name=b,file=a");
    BlockDriverState *c = open_ok("pass,node-name=c,file=b");
    BlockDriverState *filter = NULL;
    GError *error = NULL;

    ck_assert_int_eq(bdrv_freeze_chain(c, a, &error), 0);
    ck_assert_int_eq(bdrv_freeze_chain(c, a, &error), -EBUSY);
    expect_error(&error, EBUSY, "frozen");
    ck_assert_int_eq(bdrv_drop_filter(b, &error), -EBUSY);
    expect_error(&error, EBUSY, "frozen");
    ck_assert_int_lt(bdrv_insert_node(b, opts("pass"), &filter, &error), 0);
    expect_error(&error, EBUSY, "node 'c' (as 'file')");
    bdrv_unfreeze_chain(c, a);
    ck_assert_int_eq(bdrv_drop_filter(b, &error), 0);
    ck_assert_ptr_eq(bdrv_child_bs(bdrv_find_child(c, "file")), a);
    bdrv_unref(c);
    bdrv_unref(b);
    bdrv_unref(a);
}
END_TEST

START_TEST(a_shorter_node_does_not_take_the_place_of_a_longer_one)
{
    BlockDriverState *a = open_ok("null-co,node-name=a,size=1M");
    BlockDriverState *b = open_ok("null-co,node-name=b,size=64k");
    BlockBackend *blk = backend_ok("guest", a, READ, ALL);
    GError *error = NULL;

    ck_assert_int_eq(bdrv_replace_node(a, b, &error), -EINVAL);
    expect_error(&error, EINVAL, "shorter");
    ck_assert_ptr_eq(blk_bs(blk), a);
    blk_unref(blk);
    blk = backend_ok("guest", b, READ, ALL);
    ck_assert_int_eq(bdrv_replace_node(b, a, &error), 0);
    ck_assert_ptr_eq(blk_bs(blk), a);
    blk_unref(blk);
    bdrv_unref(a);
    bdrv_unref(b);
}
END_TEST

START_TEST(the_dump_shows_nodes_edges_permissions_and_roots)
{
    BlockDriverState *top =
        open_ok("pass,node-name=top,file.driver=null-co,file.node-name=below");
    BlockBackend *blk = backend_ok("guest", top, READ | WRITE, ALL);
    g_autofree char *dump = block_graph_dump(graph);
    BlockOptions *tree = block_options_parse_json(dump, NULL);

    ck_assert_ptr_nonnull(tree);
    ck_assert_str_eq(block_options_peek_str(tree, "nodes.0.node-name"), "top");
    ck_assert_str_eq(
        block_options_peek_str(tree, "nodes.0.children.0.node-name"), "below");
    ck_assert_str_eq(
        block_options_peek_str(tree, "nodes.0.children.0.perm.1"), "write");
    ck_assert_str_eq(block_options_peek_str(tree, "roots.0.name"),
                     "block backend 'guest'");
    block_options_free(tree);
    blk_unref(blk);
    bdrv_unref(top);
}
END_TEST

/* --- permissions ---------------------------------------------------------- */

START_TEST(a_conflict_names_both_parties_and_the_permission)
{
    BlockDriverState *disk = open_ok("null-co,node-name=disk");
    BlockBackend *first = backend_ok("first", disk, READ | WRITE, READ);
    BlockPerm perm = { .used = WRITE, .shared = ALL };
    BlockBackend *second = blk_new(graph, "second", &perm);
    GError *error = NULL;

    ck_assert_int_eq(blk_insert_bs(second, disk, &error), -EPERM);
    ck_assert_ptr_nonnull(strstr(error->message, "'second'"));
    ck_assert_ptr_nonnull(strstr(error->message, "'first'"));
    ck_assert_ptr_nonnull(strstr(error->message, "'disk'"));
    expect_error(&error, EPERM, "'write'");
    ck_assert_ptr_null(blk_bs(second));
    ck_assert_uint_eq(bdrv_get_perm(disk).used, READ | WRITE);

    perm.shared = READ; /* now it is the newcomer who does not share */
    ck_assert_int_eq(blk_set_perm(second, &perm, &error), 0);
    perm.used = READ;
    ck_assert_int_eq(blk_set_perm(second, &perm, &error), 0);
    ck_assert_int_eq(blk_insert_bs(second, disk, &error), -EPERM);
    expect_error(&error, EPERM, "'write'");
    blk_unref(second);
    blk_unref(first);
    bdrv_unref(disk);
}
END_TEST

START_TEST(a_conflict_deep_below_undoes_the_whole_change)
{
    BlockDriverState *disk = open_ok("null-co,node-name=disk");
    BlockDriverState *x = open_ok("pass,node-name=x,file=disk");
    BlockDriverState *y = open_ok("pass,node-name=y,file=disk");
    BlockBackend *first = backend_ok("first", x, READ, READ);
    BlockPerm perm = { .used = WRITE, .shared = ALL };
    BlockBackend *second = blk_new(graph, "second", &perm);
    GError *error = NULL;

    ck_assert_int_eq(blk_insert_bs(second, y, &error), -EPERM);
    expect_error(&error, EPERM, "node 'x' (as 'file')");
    ck_assert_uint_eq(bdrv_get_perm(y).used, 0);
    ck_assert_uint_eq(bdrv_child_perm(bdrv_find_child(y, "file")).used, 0);
    blk_unref(first);
    ck_assert_int_eq(blk_insert_bs(second, y, &error), 0);
    ck_assert_uint_eq(bdrv_get_perm(disk).used, WRITE);
    blk_unref(second);
    ck_assert_uint_eq(bdrv_get_perm(disk).used, 0);
    bdrv_unref(y);
    bdrv_unref(x);
    bdrv_unref(disk);
}
END_TEST

START_TEST(a_read_only_node_gives_no_write_permission)
{
    BlockDriverState *disk = open_ok("null-co,node-name=disk,read-only=on");
    BlockPerm perm = { .used = READ | WRITE, .shared = ALL };
    BlockBackend *blk = blk_new(graph, "guest", &perm);
    GError *error = NULL;

    ck_assert_int_eq(blk_insert_bs(blk, disk, &error), -EACCES);
    expect_error(&error, EACCES, "read-only");
    blk_unref(blk);
    bdrv_unref(disk);
}
END_TEST

/* --- looking -------------------------------------------------------------- */

START_TEST(the_version_is_that_of_the_build)
{
    ck_assert_str_eq(block_version(), BLOCKGRAPH_VERSION);
    ck_assert_int_eq(strspn(block_version(), "0123456789."),
                     strlen(block_version()));
}
END_TEST

START_TEST(nodes_are_walked_in_the_order_they_were_opened_in)
{
    BlockDriverState *a, *b, *c;

    ck_assert_ptr_null(bdrv_next_node(graph, NULL));
    a = open_ok("null-co,node-name=z");
    b = open_ok("null-co,node-name=y");
    c = open_ok("null-co,node-name=x");
    ck_assert_ptr_eq(bdrv_graph(b), graph);
    ck_assert_ptr_eq(bdrv_next_node(graph, NULL), a);
    ck_assert_ptr_eq(bdrv_next_node(graph, a), b);
    ck_assert_ptr_eq(bdrv_next_node(graph, b), c);
    ck_assert_ptr_null(bdrv_next_node(graph, c));
    bdrv_unref(b);
    ck_assert_ptr_eq(bdrv_next_node(graph, a), c);
    bdrv_unref(a);
    bdrv_unref(c);
}
END_TEST

/* A filter that asks nothing of its child, and looks around while it opens. */
static BlockDriverState *seen_in_open;

static int coroutine_fn modest_open(BlockDriverState *bs,
                                    BlockOptions *options, unsigned flags,
                                    GError **errp)
{
    int ret = pass_open(bs, options, flags, errp);

    if (ret == 0 && block_options_has(options, "extra")) {
        ret = bdrv_co_open_child(bs, options, "extra", BDRV_CHILD_METADATA,
                                 true, errp)
                  ? 0
                  : -EINVAL;
    }
    seen_in_open = bdrv_next_node(bdrv_graph(bs), NULL);
    while (seen_in_open && seen_in_open != bs) {
        seen_in_open = bdrv_next_node(bdrv_graph(bs), seen_in_open);
    }
    return ret;
}

static void modest_child_perm(BlockDriverState *bs, BdrvChildRole role,
                              const BlockPerm *parent, BlockPerm *ret_child)
{
    *ret_child = (BlockPerm){ .used = 0, .shared = ALL };
}

static void register_modest_driver(void)
{
    static const BlockDriver driver = {
        .struct_size = sizeof(BlockDriver),
        .name = "modest",
        .kind = BLOCK_DRIVER_FILTER,
        .open = modest_open,
        .child_perm = modest_child_perm,
    };

    if (bdrv_register(&driver, NULL) < 0) {
        abort();
    }
}

START_TEST(a_node_is_not_seen_before_it_is_open)
{
    BlockDriverState *bs = open_ok("modest,file.driver=null-co");

    ck_assert_ptr_null(seen_in_open);
    ck_assert_ptr_eq(bdrv_next_node(graph, bs), bdrv_child_bs(
                         bdrv_find_child(bs, "file")));
    bdrv_unref(bs);
}
END_TEST

START_TEST(a_change_that_is_refused_leaves_edges_in_their_order)
{
    BlockDriverState *disk = open_ok("null-co,node-name=disk");
    BlockDriverState *filter =
        open_ok("modest,node-name=filter,file=disk,extra=disk");
    BlockBackend *a = backend_ok("a", filter, WRITE, ALL);
    BlockBackend *b = backend_ok("b", disk, READ, ALL & ~(uint64_t)WRITE);
    g_autofree char *before = block_graph_dump(graph);
    g_autofree char *after = NULL;
    g_autoptr(GError) error = NULL;

    ck_assert_int_lt(bdrv_drop_filter(filter, &error), 0);
    after = block_graph_dump(graph);
    ck_assert_str_eq(after, before);
    blk_unref(a);
    blk_unref(b);
    bdrv_unref(filter);
    bdrv_unref(disk);
}
END_TEST

static bool note_child(BdrvChild *child, void *opaque)
{
    GString *text = opaque;

    g_string_append_printf(text, "%s:%x ", bdrv_child_name(child),
                           (unsigned)bdrv_child_role(child));
    return text->len < 20;
}

START_TEST(children_are_visited_in_order_until_the_visitor_has_enough)
{
    BlockDriverState *bs =
        open_ok("blklogwrites,file.driver=null-co,file.read-zeroes=on,"
                "log.driver=null-co,log.read-zeroes=on");
    g_autofree char *both =
        g_strdup_printf("file:%x log:%x ",
                        BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY,
                        BDRV_CHILD_METADATA);
    g_autoptr(GString) seen = g_string_new(NULL);

    bdrv_foreach_child(bs, note_child, seen);
    ck_assert_str_eq(seen->str, both);
    bdrv_foreach_child(bs, note_child, seen);   /* now long enough at once */
    ck_assert_uint_eq(seen->len, strlen(both) + strlen("file:14 "));
    bdrv_unref(bs);
}
END_TEST

START_TEST(names_of_permissions_are_those_of_the_known_bits)
{
    static const struct { uint64_t perm; const char *names; } cases[] = {
        { 0, "" },
        { WRITE, "write" },
        { ALL, "consistent read, write, write unchanged, resize" },
        { READ | UINT64_C(1) << 63 | BLK_PERM_RESIZE,
          "consistent read, resize" },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *names = bdrv_perm_names(cases[i].perm);

        ck_assert_str_eq(names, cases[i].names);
    }
}
END_TEST

/* --- inside coroutines ---------------------------------------------------- */

static int coroutine_fn change_entry(void *opaque)
{
    BlockPerm perm = { .used = READ, .shared = ALL };
    GError **errp = opaque;
    BlockDriverState *below = bdrv_co_open(graph, opts("null-co"), errp);
    BlockDriverState *other = bdrv_co_open(graph, opts("null-co,size=2G"),
                                           errp);
    BlockDriverState *filter = NULL;
    BlockBackend *blk = blk_new(graph, "guest", &perm);

    ck_assert_int_eq(blk_co_insert_bs(blk, below, errp), 0);
    ck_assert_int_eq(bdrv_co_getlength(other), INT64_C(2) << 30);
    ck_assert_int_eq(bdrv_co_insert_node(below, opts("pass"), &filter, errp),
                     0);
    ck_assert_ptr_eq(blk_bs(blk), filter);
    ck_assert_int_eq(bdrv_co_replace_node(below, other, errp), 0);
    ck_assert_ptr_eq(bdrv_child_bs(bdrv_find_child(filter, "file")), other);
    ck_assert_int_eq(bdrv_co_set_backing(filter, below, NULL), -ENOTSUP);
    ck_assert_int_eq(bdrv_co_delete(other, NULL), -EBUSY);
    ck_assert_int_eq(bdrv_co_drop_filter(filter, errp), 0);
    ck_assert_int_eq(bdrv_co_drop_filter(other, errp), -EINVAL);
    blk_co_unref(blk);
    bdrv_co_unref(filter);
    bdrv_co_unref(below);
    bdrv_co_unref(other);
    return 0;
}

START_TEST(a_coroutine_opens_changes_and_closes_nodes)
{
    GError *error = NULL;

    ck_assert_int_eq(aio_co_run(block_graph_aio_context(graph), change_entry,
                                &error), 0);
    expect_error(&error, EINVAL, "is no filter");
    ck_assert_uint_eq(block_graph_nr_nodes(graph), 0);
}
END_TEST

START_TEST(each_reference_keeps_a_node_open)
{
    BlockDriverState *bs = open_ok("null-co,node-name=disk");

    ck_assert_ptr_eq(bdrv_ref(bs), bs);
    bdrv_unref(bs);
    ck_assert_ptr_eq(bdrv_find_node(graph, "disk"), bs);
    bdrv_unref(bs);
    ck_assert_ptr_null(bdrv_find_node(graph, "disk"));
}
END_TEST

/* --- changes that are refused -------------------------------------------- */

START_TEST(a_filter_that_cannot_go_stays_with_all_its_edges)
{
    BlockDriverState *disk = open_ok("null-co,node-name=disk");
    BlockDriverState *filter = open_ok("modest,node-name=filter,file=disk");
    BlockBackend *writer = backend_ok("writer", filter, READ | WRITE, ALL);
    BlockBackend *other = backend_ok("other", disk, READ, READ);
    BdrvChild *edge = bdrv_find_child(filter, "file");
    GError *error = NULL;

    /* Without the filter the writer would meet one who shares no writing. */
    ck_assert_int_eq(bdrv_drop_filter(filter, &error), -EPERM);
    expect_error(&error, EPERM, "'other'");
    ck_assert_ptr_eq(blk_bs(writer), filter);
    ck_assert_ptr_eq(bdrv_find_child(filter, "file"), edge);
    ck_assert_ptr_eq(bdrv_child_bs(edge), disk);
    ck_assert_ptr_eq(bdrv_filter_child(filter), edge);
    ck_assert_uint_eq(bdrv_get_perm(disk).used, READ);
    ck_assert_uint_eq(bdrv_get_perm(filter).used, READ | WRITE);
    ck_assert_int_eq(blk_pwrite(writer, 0, 4, "abcd", 0), 0);

    blk_unref(other);
    ck_assert_int_eq(bdrv_drop_filter(filter, &error), 0);
    ck_assert_ptr_eq(blk_bs(writer), disk);
    bdrv_unref(filter);
    blk_unref(writer);
    bdrv_unref(disk);
}
END_TEST

START_TEST(a_chain_is_frozen_only_down_to_a_node_that_is_in_it)
{
    BlockDriverState *below = open_ok("null-co,node-name=below");
    BlockDriverState *top = open_ok("pass,node-name=top,file=below");
    BlockDriverState *stray = open_ok("null-co,node-name=stray");
    GError *error = NULL;

    ck_assert_int_eq(bdrv_freeze_chain(top, stray, &error), -EINVAL);
    expect_error(&error, EINVAL, "'stray' is not in the chain below");
    ck_assert_int_eq(bdrv_drop_filter(top, &error), 0); /* nothing is frozen */
    bdrv_unref(stray);
    bdrv_unref(top);
    bdrv_unref(below);
}
END_TEST

/* --- thresholds ----------------------------------------------------------- */

static GString *passed;

static void hear_threshold(const BlockThresholdEvent *event, void *opaque)
{
    g_string_append_printf(passed, "%s %d+%d ", event->node_name,
                           (int)event->threshold, (int)event->exceeded);
}

START_TEST(a_write_beyond_the_threshold_is_told_once)
{
    BlockDriverState *bs = open_ok("null-co,node-name=n,size=1M");
    BlockBackend *guest = backend_ok("guest", bs, WRITE, ALL);
    uint8_t buf[8192] = { 0 };

    passed = g_string_new(NULL);
    block_graph_set_threshold_listener(graph, hear_threshold, NULL);
    bdrv_set_write_threshold(bs, 8192);
    ck_assert_int_eq(blk_pwrite(guest, 0, 8192, buf, 0), 0);
    ck_assert_int_eq(bdrv_write_threshold(bs), 8192);
    ck_assert_int_eq(blk_pwrite(guest, 4096, 8192, buf, 0), 0);
    ck_assert_int_eq(bdrv_write_threshold(bs), 0);
    ck_assert_int_eq(blk_pwrite(guest, 65536, 8192, buf, 0), 0);
    ck_assert_int_eq(bdrv_highest_write(bs), 65536 + 8192);
    while (passed->len == 0) {
        aio_poll(block_graph_aio_context(graph), true);
    }
    bdrv_set_write_threshold(bs, 4096);
    ck_assert_int_eq(blk_pwrite_zeroes(guest, 0, 8192, 0), 0);
    ck_assert_int_eq(bdrv_highest_write(bs), 65536 + 8192);
    while (!strchr(passed->str + 12, '+')) {
        aio_poll(block_graph_aio_context(graph), true);
    }
    ck_assert_str_eq(passed->str, "n 8192+4096 n 4096+4096 ");
    block_graph_set_threshold_listener(graph, NULL, NULL);
    blk_unref(guest);
    bdrv_unref(bs);
    g_string_free(passed, TRUE);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("graph");
    TCase *tcase = tcase_create("graph");

    register_pass_driver();
    register_modest_driver();
    tcase_add_checked_fixture(tcase, graph_setup, graph_teardown);
    tcase_set_timeout(tcase, 60);
    PROMISE(tcase, a_filter_that_must_see_writes_needs_all_writing_methods);
    PROMISE(tcase, a_driver_of_another_version_or_name_is_refused);
    PROMISE(tcase, drivers_are_walked_once_each_and_all_of_them);
    PROMISE(tcase, a_node_is_found_by_its_name_until_it_is_closed);
    PROMISE(tcase, the_options_of_a_node_are_those_that_were_given);
    PROMISE(tcase, nodes_without_a_name_get_one_that_nobody_can_give);
    PROMISE(tcase, bad_options_are_named_and_leave_nothing);
    PROMISE(tcase, what_a_child_inherits_does_not_hide_a_wrong_value);
    PROMISE(tcase, a_name_is_given_once);
    PROMISE(tcase, nested_dotted_and_json_forms_make_the_same_nodes);
    PROMISE(tcase, a_reference_keeps_the_node_when_its_opener_lets_go);
    PROMISE(tcase, a_graph_deeper_than_the_limit_is_refused);
    PROMISE(tcase, no_change_makes_a_graph_higher_than_the_limit);
    tcase_add_loop_test(
        tcase, the_deepest_graph_fits_on_the_stack_of_a_request, 0, 2);
    PROMISE(tcase, a_node_in_use_is_not_deleted_and_its_user_named);
    PROMISE(tcase, nodes_close_in_any_order);
    PROMISE(tcase, ten_thousand_nodes_open_and_close);
    PROMISE(tcase, a_filter_goes_in_above_a_node_and_out_again);
    PROMISE(tcase,
            inserting_something_that_is_not_above_the_node_changes_nothing);
    PROMISE(tcase, cycles_are_refused);
    PROMISE(tcase, a_frozen_edge_refuses_every_change_until_thawed);
    PROMISE(tcase, a_shorter_node_does_not_take_the_place_of_a_longer_one);
    PROMISE(tcase, the_dump_shows_nodes_edges_permissions_and_roots);
    PROMISE(tcase, a_conflict_names_both_parties_and_the_permission);
    PROMISE(tcase, a_conflict_deep_below_undoes_the_whole_change);
    PROMISE(tcase, a_read_only_node_gives_no_write_permission);
    PROMISE(tcase, the_version_is_that_of_the_build);
    PROMISE(tcase, nodes_are_walked_in_the_order_they_were_opened_in);
    PROMISE(tcase, a_node_is_not_seen_before_it_is_open);
    PROMISE(tcase, a_change_that_is_refused_leaves_edges_in_their_order);
    PROMISE(tcase, children_are_visited_in_order_until_the_visitor_has_enough);
    PROMISE(tcase, names_of_permissions_are_those_of_the_known_bits);
    PROMISE(tcase, a_coroutine_opens_changes_and_closes_nodes);
    PROMISE(tcase, each_reference_keeps_a_node_open);
    PROMISE(tcase, a_write_beyond_the_threshold_is_told_once);
    PROMISE(tcase, a_filter_that_cannot_go_stays_with_all_its_edges);
    PROMISE(tcase, a_chain_is_frozen_only_down_to_a_node_that_is_in_it);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
