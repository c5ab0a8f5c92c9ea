/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The graph oracle: a good graph passes, and each thing that is falsified in
 * it is found.
 */
#include "check-main.h"

#include <blockgraph/image.h>
#include <blockgraph/sim-oracle.h>
#include <errno.h>
#include <string.h>

#include "block/backend/backend-int.h"
#include "mem-driver.h"
#include "sim/sim-int.h"

static BgSim *sim;
static BlockDriverState *disk;    /* below */
static BlockDriverState *overlay; /* reads below it, with a filter on top */
static BlockBackend *blk;
static BlockBackend *reader;

static BlockDriverState *open_ok(const char *text)
{
    g_autoptr(GError) error = NULL;
    BlockDriverState *bs = bdrv_open(
        bgsim_graph(sim), block_options_parse_keyval(text, "driver", NULL),
        &error);

    ck_assert_msg(bs != NULL, "%s", error ? error->message : "no error");
    return bs;
}

static BlockBackend *backend(const char *name, BlockDriverState *bs,
                             uint64_t used)
{
    BlockPerm perm = { used, BLK_PERM_ALL };
    BlockBackend *result = blk_new(bgsim_graph(sim), name, &perm);

    ck_assert_int_eq(blk_insert_bs(result, bs, NULL), 0);
    return result;
}

/* guest -> raw -> mem "overlay" -> mem "disk" <- reader */
static void setup(void)
{
    BlockDriverState *top;

    sim = bgsim_new(1, NULL);
    disk = open_ok("mem,node-name=disk,size=64k");
    overlay = open_ok("mem,node-name=overlay,size=64k,backing=disk");
    top = open_ok("raw,node-name=top,file=overlay");
    blk = backend("guest", top, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE);
    reader = backend("reader", disk, BLK_PERM_CONSISTENT_READ);
    bdrv_unref(top);
}

static void teardown(void)
{
    g_autoptr(GError) error = NULL;
    bool empty;

    blk_unref(blk);
    blk_unref(reader);
    bdrv_unref(overlay);
    bdrv_unref(disk);
    empty = bgsim_check_empty(sim, &error);
    ck_assert_msg(empty, "%s", error ? error->message : "");
    bgsim_free(sim);
}

static void good(void)
{
    g_autoptr(GError) error = NULL;
    bool is_good = bgsim_check_graph(sim, &error);

    ck_assert_msg(is_good, "%s", error ? error->message : "");
}

static void bad(const char *text)
{
    g_autoptr(GError) error = NULL;

    ck_assert_msg(!bgsim_check_graph(sim, &error), "nothing of '%s'", text);
    ck_assert_msg(strstr(error->message, text) != NULL, "'%s' is not in: %s",
                  text, error->message);
}

/* While @field is @value, the oracle says @text. */
#define FALSE_WHILE(field, value, text)                                       \
    do {                                                                      \
        __typeof__(field) saved_ = (field);                                   \
                                                                              \
        (field) = (value);                                                    \
        bad(text);                                                            \
        (field) = saved_;                                                     \
        good();                                                               \
    } while (0)

static BdrvChild *cow_edge(void)
{
    return overlay->cow;
}

START_TEST(a_good_graph_passes_and_ends_empty)
{
    good();
}
END_TEST

START_TEST(references_below_the_number_of_edges_are_found)
{
    FALSE_WHILE(disk->refs, 1, "Node 'disk' has 1 references for 2 edges");
}
END_TEST

START_TEST(a_name_that_leads_elsewhere_is_found)
{
    g_hash_table_insert(disk->graph->by_name, disk->node_name, overlay);
    bad("Node 'disk' is not found by its name");
    g_hash_table_insert(disk->graph->by_name, disk->node_name, disk);
    good();
    FALSE_WHILE(disk->graph->nr_nodes, 4, "The graph has 4 nodes");
}
END_TEST

START_TEST(a_node_that_is_not_open_is_found)
{
    FALSE_WHILE(disk->state, BDRV_STATE_CLOSING,
                "Node 'disk' is neither open nor gone");
}
END_TEST

START_TEST(edges_that_one_side_does_not_know_are_found)
{
    BdrvChild *edge = cow_edge();

    FALSE_WHILE(edge->parent, disk, "is unknown at its upper end");
    FALSE_WHILE(edge->bs, overlay, "that leads elsewhere");
    FALSE_WHILE(overlay->cow, NULL, "remembers another child for a role");
    FALSE_WHILE(overlay->primary, edge, "remembers another child for a role");
    FALSE_WHILE(overlay->length_from, edge, "takes its length from the wrong");
    FALSE_WHILE(reader->root.child, NULL, "is unknown at its upper end");
    FALSE_WHILE(reader->root.child->root, &blk->root,
                "is unknown at its upper end");
    list_remove(&edge->node_link);
    bad("Node 'disk' does not know its parent 'overlay'");
    list_append(&disk->parents, &edge->node_link);
    good();
    list_remove(&edge->parent_link);
    bad("Edge 'backing' to node 'disk' is unknown at its upper end");
    list_append(&overlay->children, &edge->parent_link);
    good();
}
END_TEST

START_TEST(permissions_that_do_not_follow_from_the_rules_are_found)
{
    BdrvChild *edge = cow_edge();

    FALSE_WHILE(edge->perm.used, edge->perm.used | BLK_PERM_WRITE_UNCHANGED,
                "differ in {write unchanged}");
    FALSE_WHILE(edge->perm.shared, BLK_PERM_CONSISTENT_READ, "permissions of");
    FALSE_WHILE(disk->perm.used, 0,
                "The permissions of node 'disk' are not what they should be");
    FALSE_WHILE(disk->perm.shared, 0, "permissions of node 'disk'");
    FALSE_WHILE(reader->perm.used, BLK_PERM_WRITE,
                "against other permissions");
}
END_TEST

START_TEST(users_that_do_not_get_along_are_found)
{
    BdrvChild *root = reader->root.child;
    BlockPerm edge = root->perm;
    BlockPerm node = disk->perm;

    root->perm.shared = 0;
    disk->perm.shared = 0;
    bad("uses 'consistent read', which edge 'root' does not share");
    root->perm = edge;
    disk->perm = node;
    good();
}
END_TEST

START_TEST(a_read_only_node_that_may_be_written_is_found)
{
    FALSE_WHILE(overlay->open_flags, overlay->open_flags & ~BDRV_O_RDWR,
                "Node 'overlay' is read-only and may be written");
}
END_TEST

START_TEST(what_is_not_at_rest_is_found)
{
    TrackedRequest req;

    FALSE_WHILE(disk->drain_count, 1, "is inside a drained section");
    FALSE_WHILE(disk->own_work, (BdrvWork *)blk, "opening or closing");
    FALSE_WHILE(disk->flushed_writes, 100, "has flushed more writes");
    FALSE_WHILE(blk->root.shards[0].word, 1,
                "block backend 'guest' has 1 requests in flight");
    FALSE_WHILE(blk->root.closed, true, "The gate of block backend 'guest'");
    FALSE_WHILE(blk->root.nr_sections, 1, "The gate of block backend");
    FALSE_WHILE(disk->tracked.nr_serialising, 1, "requests in flight");
    FALSE_WHILE(blk->nr_stopped, 1, "wait for blk_resume()");
    list_append(&disk->tracked.shards[1].plain, &req.link);
    bad("Node 'disk' has requests in flight");
    list_remove(&req.link);
    good();
}
END_TEST

START_TEST(an_open_section_is_found)
{
    bdrv_drained_begin(disk);
    bad("Node 'disk' is inside a drained section");
    bdrv_drained_end(disk);
    good();
}
END_TEST

static void coroutine_fn hold_entry(BgSim *world, void *opaque)
{
    co_mutex_lock(opaque);
    co_sleep_ns(1000);
    co_mutex_unlock(opaque);
}

START_TEST(a_lock_that_is_held_is_found)
{
    bgsim_spawn(sim, "holder", NULL, hold_entry, &disk->flush_lock);
    ck_assert(bgsim_run(sim, 500, NULL));
    bad("Node 'disk' is inside a flush");
    ck_assert(bgsim_run(sim, -1, NULL));
    bgsim_spawn(sim, "holder", NULL, hold_entry,
                &bgsim_graph(sim)->control_lock);
    ck_assert(bgsim_run(sim, bgsim_now_ns(sim) + 500, NULL));
    bad("A change of the graph is under way");
    ck_assert(bgsim_run(sim, -1, NULL));
    good();
}
END_TEST

/* --- dumps ---------------------------------------------------------------- */

START_TEST(an_operation_that_fails_leaves_the_same_dump)
{
    g_autofree char *before = bgsim_graph_dump(sim);
    g_autofree char *after = NULL;
    BlockPerm alone = { BLK_PERM_WRITE, 0 };

    ck_assert_int_eq(blk_set_perm(reader, &alone, NULL), -EPERM);
    ck_assert_ptr_null(bdrv_open(
        bgsim_graph(sim),
        block_options_parse_keyval("raw,file=missing", "driver", NULL),
        NULL));
    after = bgsim_graph_dump(sim);
    ck_assert_str_eq(before, after);
    good();
}
END_TEST

START_TEST(each_change_shows_in_the_dump)
{
    g_autofree char *before = bgsim_graph_dump(sim);
    g_autofree char *node = NULL;
    g_autofree char *perm = NULL;
    BlockPerm none = { 0, BLK_PERM_ALL };

    bdrv_ref(disk);
    node = bgsim_graph_dump(sim);
    ck_assert_str_ne(before, node);
    bdrv_unref(disk);
    ck_assert_int_eq(blk_set_perm(reader, &none, NULL), 0);
    perm = bgsim_graph_dump(sim);
    ck_assert_str_ne(before, perm);
    ck_assert_ptr_nonnull(strstr(before, "node overlay: mem"));
    ck_assert_ptr_nonnull(strstr(before, "backing -> disk"));
    ck_assert_ptr_nonnull(strstr(before, "block backend 'guest': node top"));
}
END_TEST

static void note_opening(BgSim *world, void *opaque)
{
    g_autofree char *dump = bgsim_graph_dump(world);
    unsigned *seen = opaque;

    *seen += strstr(dump, "node opened: qcow2") && strstr(dump, "options {}");
}

START_TEST(a_node_that_is_being_opened_is_in_the_dump)
{
    static const char image[] = "qcow2,node-name=opened,file.driver=sim-disk,"
                                "file.disk=slow";
    BgSimDiskConfig config = { .grows = true, .empty = true };
    BlockDriverState *bs;
    unsigned seen = 0;

    bgsim_disk_new(sim, "slow", &config);
    bgsim_add_oracle(sim, &(BgSimOracle){ .name = "dump", .step = note_opening,
                                          .opaque = &seen });
    ck_assert_int_eq(bdrv_create(bgsim_graph(sim), block_options_parse_keyval(
        "qcow2,size=64k,file.driver=sim-disk,file.disk=slow", "driver", NULL),
        NULL), 0);
    bs = open_ok(image);
    bdrv_unref(bs);
    ck_assert_uint_gt(seen, 0);
}
END_TEST

START_TEST(the_order_of_lists_does_not_show_in_the_dump)
{
    g_autofree char *before = bgsim_graph_dump(sim);
    g_autofree char *after = NULL;

    list_remove(&disk->graph_link);
    list_append(&disk->graph->nodes, &disk->graph_link);
    after = bgsim_graph_dump(sim);
    ck_assert_str_eq(before, after);
}
END_TEST

/* --- nothing is left ------------------------------------------------------ */

static void not_empty(const char *text)
{
    g_autoptr(GError) error = NULL;

    ck_assert(!bgsim_check_empty(sim, &error));
    ck_assert_msg(strstr(error->message, text) != NULL, "'%s' is not in: %s",
                  text, error->message);
}

static void timer_cb(void *opaque)
{
}

START_TEST(what_is_left_at_the_end_is_found)
{
    BgSim *full = sim;
    BlockPerm perm = { 0, BLK_PERM_ALL };
    BlockBackend *left;
    BlockDriverState *bs;
    AioTimer *timer;

    not_empty("3 nodes are left; the first is 'disk'");
    teardown();
    sim = bgsim_new(2, NULL);
    ck_assert(full != NULL && bgsim_check_empty(sim, NULL));
    left = blk_new(bgsim_graph(sim), "left", &perm);
    not_empty("block backend 'left' is left");
    blk_unref(left);
    bs = open_ok("null-co,node-name=left");
    not_empty("1 nodes are left; the first is 'left'");
    bdrv_unref(bs);
    timer = aio_timer_new(bgsim_main_context(sim), timer_cb, NULL);
    aio_timer_set(timer, 1000);
    not_empty("A timer of thread 'main' is left");
    aio_timer_free(timer);
    bgsim_op_begin(sim, BGSIM_OP_DRAIN);
    not_empty("An operation has not ended: drain");
    bgsim_op_end(sim, BGSIM_OP_DRAIN);
    ck_assert(bgsim_check_empty(sim, NULL));
    bgsim_free(sim);
    setup();
}
END_TEST

START_TEST(a_coroutine_that_is_left_is_found_with_what_it_waits_for)
{
    CoMutex mutex;

    co_mutex_init(&mutex);
    teardown();
    sim = bgsim_new(2, NULL);
    bgsim_spawn(sim, "sleeper", bgsim_thread(sim, "io"), hold_entry, &mutex);
    ck_assert(bgsim_run(sim, 500, NULL));
    not_empty("1 coroutines are left");
    not_empty("sleeper");
    ck_assert(bgsim_run(sim, -1, NULL));
    ck_assert(bgsim_check_empty(sim, NULL));
    bgsim_free(sim);
    setup();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sim-graph");
    TCase *tcase = tcase_create("graph");

    mem_register();
    tcase_set_timeout(tcase, 120);
    tcase_add_checked_fixture(tcase, setup, teardown);
    PROMISE(tcase, a_good_graph_passes_and_ends_empty);
    PROMISE(tcase, references_below_the_number_of_edges_are_found);
    PROMISE(tcase, a_name_that_leads_elsewhere_is_found);
    PROMISE(tcase, a_node_that_is_not_open_is_found);
    PROMISE(tcase, edges_that_one_side_does_not_know_are_found);
    PROMISE(tcase, permissions_that_do_not_follow_from_the_rules_are_found);
    PROMISE(tcase, users_that_do_not_get_along_are_found);
    PROMISE(tcase, a_read_only_node_that_may_be_written_is_found);
    PROMISE(tcase, what_is_not_at_rest_is_found);
    PROMISE(tcase, an_open_section_is_found);
    PROMISE(tcase, a_lock_that_is_held_is_found);
    PROMISE(tcase, an_operation_that_fails_leaves_the_same_dump);
    PROMISE(tcase, each_change_shows_in_the_dump);
    PROMISE(tcase, a_node_that_is_being_opened_is_in_the_dump);
    PROMISE(tcase, the_order_of_lists_does_not_show_in_the_dump);
    PROMISE(tcase, what_is_left_at_the_end_is_found);
    PROMISE(tcase, a_coroutine_that_is_left_is_found_with_what_it_waits_for);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
