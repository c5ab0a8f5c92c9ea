/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory of tables whose size images state: the sums for a node and for all.
 */
#include "image-fixture.h"

#include <blockgraph/driver.h>
#include <pthread.h>

#include "block/graph/table-memory.h"

/* As the product has it. */
#define NODE_MAX (INT64_C(256) << 20)
#define NODES 4 /* so many may have all of that */

static BlockDriverState *users[NODES];

/* Count all that there is, but for @spare bytes. */
static void use_all_but(int64_t spare)
{
    for (int i = 0; i < NODES; i++) {
        users[i] = open_ok("null-co");
        ck_assert_int_eq(bdrv_count_table_memory(
            users[i], NODE_MAX - (i == 0 ? spare : 0), NULL), 0);
    }
}

static void end_use(void)
{
    for (int i = 0; i < NODES; i++) {
        bdrv_unref(users[i]);
    }
}

START_TEST(a_node_has_a_sum)
{
    BlockDriverState *bs = open_ok("null-co,node-name=n");
    GError *error = NULL;

    ck_assert_int_eq(bdrv_count_table_memory(bs, NODE_MAX - 10, NULL), 0);
    ck_assert_int_eq(bdrv_count_table_memory(bs, 11, &error), -EFBIG);
    expect_error(&error, EFBIG, "Node 'n': the tables of image");
    ck_assert_int_eq(bdrv_count_table_memory(bs, INT64_MAX, NULL), -EFBIG);
    ck_assert_int_eq(bdrv_count_table_memory(bs, 10, NULL), 0);
    ck_assert_int_eq(bdrv_count_table_memory(bs, 0, NULL), 0);
    ck_assert_int_eq(bdrv_count_table_memory(bs, 1, NULL), -EFBIG);
    bdrv_unref(bs);
}
END_TEST

START_TEST(all_nodes_have_a_sum_and_those_that_close_give_back)
{
    BlockDriverState *bs = open_ok("null-co,node-name=n");
    GError *error = NULL;

    use_all_but(0);
    ck_assert_int_eq(bdrv_count_table_memory(bs, 1, &error), -EFBIG);
    expect_error(&error, EFBIG, "those of all images");
    end_use();
    use_all_but(1);
    ck_assert_int_eq(bdrv_count_table_memory(bs, 2, NULL), -EFBIG);
    ck_assert_int_eq(bdrv_count_table_memory(bs, 1, NULL), 0);
    end_use();
    bdrv_unref(bs);
}
END_TEST

START_TEST(what_is_given_back_can_be_had_again)
{
    BlockDriverState *bs = open_ok("null-co,node-name=n");
    TableAccount *account = bdrv_table_account(bs);

    ck_assert_int_eq(bdrv_count_table_memory(bs, NODE_MAX, NULL), 0);
    ck_assert_int_eq(bdrv_count_table_memory(bs, 1, NULL), -EFBIG);
    bdrv_return_table_memory(bs, 100);
    ck_assert_int_eq(table_memory_of_node(account), NODE_MAX - 100);
    ck_assert_int_eq(table_memory_of_process(), NODE_MAX - 100);
    ck_assert_int_eq(bdrv_count_table_memory(bs, 101, NULL), -EFBIG);
    ck_assert_int_eq(bdrv_count_table_memory(bs, 100, NULL), 0);
    bdrv_return_table_memory(bs, 0);
    bdrv_unref(bs);
    ck_assert_int_eq(table_memory_of_process(), 0);
}
END_TEST

/* Memory is the process's, whoever made the graph. */
START_TEST(graphs_have_one_sum_together)
{
    AioContext *ctx = block_graph_aio_context(graph);
    BlockGraph *other = block_graph_new(ctx, NULL);
    BlockDriverState *bs;
    GError *error = NULL;

    use_all_but(7);
    bs = bdrv_open(other, opts("null-co"), NULL);
    ck_assert_ptr_nonnull(bs);
    ck_assert_int_eq(bdrv_count_table_memory(bs, 8, &error), -EFBIG);
    expect_error(&error, EFBIG, "those of all images");
    ck_assert_int_eq(bdrv_count_table_memory(bs, 7, NULL), 0);
    bdrv_unref(bs);
    block_graph_free(other);
    end_use();
    ck_assert_int_eq(table_memory_of_process(), 0);
}
END_TEST

/* A quarter of each sum is for tables alone. */
START_TEST(caches_leave_room_for_tables)
{
    TableAccount a = { 0 }, b = { 0 };

    table_memory_set_max(1000, 1600);
    ck_assert(table_memory_take_soft(&a, 750));
    ck_assert(!table_memory_take_soft(&a, 1));
    ck_assert(!table_memory_is_short(&a));
    ck_assert(table_memory_take(&a, 250));
    ck_assert(table_memory_is_short(&a));
    ck_assert(!table_memory_is_short(&b));
    ck_assert(!table_memory_take(&a, 1));
    ck_assert(table_memory_take_soft(&b, 200)); /* 1200 of 1600 */
    ck_assert(!table_memory_take_soft(&b, 1));
    ck_assert(table_memory_take(&b, 400));
    ck_assert(!table_memory_take(&b, 1));
    table_memory_take_always(&b, 5);
    ck_assert_int_eq(table_memory_of_process(), 1605);
    ck_assert(table_memory_take(&b, 0)); /* nothing is never too much */
    ck_assert(!table_memory_take(&b, INT64_MAX));
    table_memory_give(&a, 1000);
    table_memory_give(&b, 605);
    ck_assert_int_eq(table_memory_of_process(), 0);
    table_memory_set_max(0, 0);
}
END_TEST

/* What the operator states comes on top of both sums. */
START_TEST(what_is_stated_makes_the_sums_larger)
{
    TableAccount a = { 0 }, b = { 0 };

    table_memory_set_max(1000, 1000);
    table_memory_state(&a, 300);
    ck_assert_int_eq(table_memory_node_max(&a), 1300);
    ck_assert_int_eq(table_memory_node_max(&b), 1000);
    ck_assert(table_memory_take_soft(&a, 1050));
    ck_assert(!table_memory_take_soft(&a, 1));
    ck_assert_int_eq(table_memory_of_process(), 750);
    table_memory_give(&a, 1000);
    ck_assert_int_eq(table_memory_of_process(), 0);
    ck_assert(table_memory_take(&a, 450));
    ck_assert_int_eq(table_memory_of_process(), 200);
    table_memory_state(&a, 0); /* it has 500 */
    ck_assert_int_eq(table_memory_of_process(), 500);
    table_memory_state(&a, 600);
    ck_assert_int_eq(table_memory_of_process(), 0);
    table_memory_give(&a, 500);
    table_memory_state(&a, INT64_MAX);
    table_memory_state(&b, INT64_MAX);
    ck_assert_int_gt(table_memory_node_max(&a), 0);
    ck_assert(table_memory_take(&a, INT64_C(1) << 60));
    ck_assert_int_eq(table_memory_of_process(), 0);
    table_memory_give(&a, INT64_C(1) << 60);
    table_memory_state(&a, 0);
    table_memory_state(&b, 0);
    table_memory_set_max(0, 0);
}
END_TEST

/* Others cannot use it up, neither their caches nor their tables. */
START_TEST(what_is_stated_for_a_node_is_its_own)
{
    TableAccount a = { 0 }, b = { 0 }, c = { 0 };

    table_memory_set_max(1000, 1000);
    table_memory_state(&a, 300);
    ck_assert(table_memory_take_soft(&b, 750));
    ck_assert(!table_memory_take_soft(&c, 1));
    ck_assert(table_memory_take(&c, 250));
    ck_assert(!table_memory_take(&c, 1));
    ck_assert(table_memory_take_soft(&a, 300));
    ck_assert(!table_memory_is_short(&a));
    ck_assert(table_memory_is_short(&b));
    ck_assert(!table_memory_take_soft(&a, 1));
    ck_assert(!table_memory_take(&a, 1));
    ck_assert_int_eq(table_memory_of_node(&a), 300);
    table_memory_take_always(&a, 1);
    ck_assert(table_memory_is_short(&a));
    ck_assert_int_eq(table_memory_of_process(), 1001);
    table_memory_give(&a, 301);
    table_memory_give(&b, 750);
    table_memory_give(&c, 250);
    ck_assert_int_eq(table_memory_of_process(), 0);
    table_memory_state(&a, 0);
    table_memory_set_max(0, 0);
}
END_TEST

#define THREADS 4
#define ROUNDS 20000

static TableAccount shared;
static atomic_bool passed; /* a sum was */

/* Takes 3 of 10 at a time: three threads can, one of four cannot. */
static void *take_and_give(void *opaque)
{
    TableAccount *own = opaque;
    unsigned taken = 0;

    for (int i = 0; i < ROUNDS; i++) {
        bool took = i % 2 ? table_memory_take(&shared, 3)
                          : table_memory_take_soft(own, 3);

        if (table_memory_of_process() > 10 ||
            table_memory_of_node(&shared) > 10) {
            atomic_store(&passed, true);
        }
        if (took) {
            taken++;
            table_memory_give(i % 2 ? &shared : own, 3);
        }
    }
    return GUINT_TO_POINTER(taken);
}

START_TEST(threads_do_not_pass_the_sum_together)
{
    TableAccount own[THREADS] = { 0 };
    pthread_t threads[THREADS];
    guint taken = 0;

    table_memory_set_max(10, 10);
    for (int i = 0; i < THREADS; i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, take_and_give,
                                        &own[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        void *ret;

        ck_assert_int_eq(pthread_join(threads[i], &ret), 0);
        taken += GPOINTER_TO_UINT(ret);
    }
    ck_assert(!atomic_load(&passed));
    ck_assert_uint_gt(taken, 0);
    ck_assert_int_eq(table_memory_of_node(&shared), 0);
    ck_assert_int_eq(table_memory_of_process(), 0);
    table_memory_set_max(0, 0);
}
END_TEST

/* S8.  An image of 128 TiB has an L1 table of 2 MiB. */
START_TEST(an_image_whose_tables_are_too_much_is_refused)
{
    make_image_ok("small", "size=1M");
    make_image_ok("large", "size=128T");
    make_image_ok("over", "size=1M,backing_file=large,backing_fmt=qcow2");
    use_all_but(2 << 20);
    bdrv_unref(image_open("small", NULL));
    image_fails("large", NULL, EFBIG, "those of all images need more than");
    image_fails("over", NULL, EFBIG, "those of all images need more than");
    bdrv_unref(image_open("small", NULL)); /* what failed has none */
    end_use();
    bdrv_unref(image_open("over", NULL));
    use_all_but(3 << 20);
    for (int i = 0; i < 3; i++) {
        bdrv_unref(image_open("large", NULL));
    }
    end_use();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("table-memory");
    TCase *tcase = tcase_create("table-memory");

    tcase_add_checked_fixture(tcase, file_setup, file_teardown);
    tcase_set_timeout(tcase, 60);
    PROMISE(tcase, a_node_has_a_sum);
    PROMISE(tcase, all_nodes_have_a_sum_and_those_that_close_give_back);
    PROMISE(tcase, what_is_given_back_can_be_had_again);
    PROMISE(tcase, graphs_have_one_sum_together);
    PROMISE(tcase, caches_leave_room_for_tables);
    PROMISE(tcase, what_is_stated_makes_the_sums_larger);
    PROMISE(tcase, what_is_stated_for_a_node_is_its_own);
    PROMISE(tcase, threads_do_not_pass_the_sum_together);
    PROMISE(tcase, an_image_whose_tables_are_too_much_is_refused);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
