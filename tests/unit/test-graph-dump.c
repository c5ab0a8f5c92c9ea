/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The graph as text, at every moment in the life of its nodes.
 */
#include "image-fixture.h"
#include "mem-driver.h"

#include <jansson.h>

typedef struct Life {
    BlockBackend *blk;
    bool over;
} Life;

/* A node of each kind comes, is used, and goes. */
static void coroutine_fn life_entry(void *opaque)
{
    Life *life = opaque;
    BlockDriverState *bs = bdrv_co_open(
        graph, opts("copy-before-write,node-name=cbw,"
                    "file.driver=copy-on-read,file.file.driver=qcow2,"
                    "file.file.file=m,target.driver=mem,target.size=256k"),
        NULL);

    ck_assert_ptr_nonnull(bs);
    ck_assert_int_eq(blk_co_insert_bs(life->blk, bs, NULL), 0);
    bdrv_co_unref(bs);
    blk_co_remove_bs(life->blk);
    life->over = true;
}

/* It is JSON, and each edge leads to a node that is there. */
static void expect_dump(void)
{
    g_autofree char *text = block_graph_dump(graph);
    json_t *dump = json_loads(text, 0, NULL);
    const json_t *nodes = json_object_get(dump, "nodes");
    const json_t *item;
    size_t i;

    ck_assert_ptr_nonnull(dump);
    ck_assert_uint_eq(json_array_size(nodes), block_graph_nr_nodes(graph));
    json_array_foreach(nodes, i, item) {
        ck_assert_ptr_nonnull(json_object_get(item, "node-name"));
        ck_assert_ptr_nonnull(json_object_get(item, "children"));
    }
    json_array_foreach(json_object_get(dump, "roots"), i, item) {
        ck_assert_ptr_nonnull(json_object_get(item, "name"));
        ck_assert_ptr_nonnull(json_object_get(item, "in-flight"));
    }
    json_decref(dump);
}

/* One request at a time goes on. */
START_TEST(a_graph_can_be_looked_at_while_nodes_come_and_go)
{
    AioContext *ctx = block_graph_aio_context(graph);
    BlockDriverState *memory = open_ok("mem,node-name=m,size=64k,grow=on");
    BlockPerm perm = { .used = BLK_PERM_CONSISTENT_READ,
                       .shared = BLK_PERM_ALL };
    Life life = { .blk = blk_new(graph, "user", &perm) };

    ck_assert_int_eq(bdrv_create(graph, opts("qcow2,file=m,size=256k"), NULL),
                     0);
    mem_disk(memory)->hold[MEM_READ] = true;
    aio_co_enter(ctx, coroutine_create(life_entry, &life));
    expect_dump();
    mem_disk(memory)->hold[MEM_READ] = false;
    while (!life.over) {
        aio_poll(ctx, true);
        expect_dump();
    }
    blk_unref(life.blk);
    expect_dump();
    bdrv_unref(memory);
}
END_TEST

static void add_tests(TCase *tcase)
{
    PROMISE(tcase, a_graph_can_be_looked_at_while_nodes_come_and_go);
}

int main(void)
{
    Suite *suite = suite_create("graph-dump");
    TCase *tcase = tcase_create("graph-dump");

    mem_register();
    tcase_add_checked_fixture(tcase, file_setup, file_teardown);
    add_tests(tcase);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
