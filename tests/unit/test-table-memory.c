/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory of tables whose size images state: the sums for a node and for all.
 */
#include "image-fixture.h"

#include <blockgraph/driver.h>

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
    PROMISE(tcase, an_image_whose_tables_are_too_much_is_refused);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
