/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The interval tree against a plain list that is searched from end to end.
 */
#include "check-main.h"

#include "util/interval-tree.h"
#include <string.h>

#define NODES 300
#define ROUNDS 1200

/* ck_assert() reports each success to the parent: too slow for inner loops. */
#define CHECK(condition)                                                      \
    do {                                                                      \
        if (!(condition)) {                                                   \
            ck_abort_msg("failed: " #condition);                              \
        }                                                                     \
    } while (0)

typedef struct Range {
    IntervalNode node;
    int64_t age;            /* -1 while not in the tree */
} Range;

static Range ranges[NODES];
static IntervalTree tree;
static int64_t clock_age;

static bool overlaps(const IntervalNode *node, int64_t start, int64_t last)
{
    return node->start <= last && start <= node->last;
}

/* Order of the tree: start, end, age. */
static int compare(const Range *a, const Range *b)
{
    if (a->node.start != b->node.start) {
        return a->node.start < b->node.start ? -1 : 1;
    }
    if (a->node.last != b->node.last) {
        return a->node.last < b->node.last ? -1 : 1;
    }
    return a->age < b->age ? -1 : a->age > b->age;
}

/* The first range behind @after (NULL: of all) that overlaps. */
static IntervalNode *model_next(const Range *after, int64_t start,
                                int64_t last)
{
    Range *best = NULL;

    for (int i = 0; i < NODES; i++) {
        Range *range = &ranges[i];

        if (range->age >= 0 && overlaps(&range->node, start, last) &&
            (!after || compare(range, after) > 0) &&
            (!best || compare(range, best) < 0)) {
            best = range;
        }
    }
    return best ? &best->node : NULL;
}

/* Invariants I1 to I3 of the tree; returns how many nodes there are. */
static size_t check_subtree(const IntervalNode *node)
{
    int left, right;
    int64_t last;

    if (!node) {
        return 0;
    }
    left = node->left ? node->left->height : 0;
    right = node->right ? node->right->height : 0;
    CHECK(node->height == MAX(left, right) + 1);
    CHECK(ABS(left - right) <= 1);
    last = node->last;
    if (node->left) {
        CHECK(node->left->parent == node);
        last = MAX(last, node->left->subtree_last);
    }
    if (node->right) {
        CHECK(node->right->parent == node);
        last = MAX(last, node->right->subtree_last);
    }
    CHECK(node->subtree_last == last);
    return 1 + check_subtree(node->left) + check_subtree(node->right);
}

static void check_tree(void)
{
    const IntervalNode *previous = NULL;
    size_t count = 0;

    CHECK(!tree.root || !tree.root->parent);
    CHECK(check_subtree(tree.root) == interval_tree_count(&tree));
    for (IntervalNode *node = interval_tree_first(&tree); node;
         node = interval_tree_next(node)) {
        CHECK(!previous || compare((const Range *)previous,
                                   (const Range *)node) < 0);
        previous = node;
        count++;
    }
    CHECK(count == interval_tree_count(&tree));
    CHECK((count == 0) == interval_tree_is_empty(&tree));
}

static void check_query(int64_t start, int64_t last)
{
    IntervalNode *node = interval_tree_first_overlap(&tree, start, last);
    const Range *after = NULL;

    for (;;) {
        CHECK(node == model_next(after, start, last));
        if (!node) {
            break;
        }
        after = (const Range *)node;
        node = interval_tree_next_overlap(node, start, last);
    }
}

static void reset(void)
{
    memset(&tree, 0, sizeof(tree));
    for (int i = 0; i < NODES; i++) {
        ranges[i].age = -1;
    }
}

static void insert(Range *range, int64_t offset, int64_t bytes)
{
    interval_node_init(&range->node, offset, bytes);
    range->age = clock_age++;
    interval_tree_insert(&tree, &range->node);
}

static const int64_t bases[] = {
    0, (INT64_C(1) << 31) - 50, (INT64_C(1) << 32) - 50,
    (INT64_C(1) << 62) - 50, INT64_MAX - 99,
};

/* A range within the 100 bytes from @base on, long or short. */
static void random_range(GRand *rand, int64_t base, int64_t *offset,
                         int64_t *bytes)
{
    int max = g_rand_boolean(rand) ? 8 : 100;
    int at = g_rand_int_range(rand, 0, 100);
    int length = g_rand_int_range(rand, 1, max + 1);

    *offset = base + at;
    *bytes = MIN(length, 100 - at);
}

START_TEST(random_operations_agree_with_a_list)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(_i);
    int64_t base = bases[_i % G_N_ELEMENTS(bases)];
    int fill = 1 + (_i * 97) % NODES;       /* how many are in use */

    reset();
    for (int round = 0; round < ROUNDS; round++) {
        Range *range = &ranges[g_rand_int_range(rand, 0, fill)];
        int64_t offset, bytes;

        random_range(rand, base, &offset, &bytes);
        if (range->age < 0) {
            insert(range, offset, bytes);
        } else {
            interval_tree_remove(&tree, &range->node);
            range->age = -1;
            CHECK(!interval_node_is_linked(&range->node));
        }
        check_tree();
        random_range(rand, base, &offset, &bytes);
        check_query(offset, offset + (bytes - 1));
    }
    check_query(0, INT64_MAX);
}
END_TEST

/*
 * The thirteen relations of Allen, as half-open ranges to be compared with
 * [40, 60).
 */
static const struct {
    const char *name;
    int start, end;
    bool overlap;
} relations[] = {
    { "before", 20, 30, false },    { "after", 70, 80, false },
    { "meets", 20, 40, false },     { "met by", 60, 80, false },
    { "overlaps", 20, 41, true },   { "overlapped by", 59, 80, true },
    { "starts", 40, 50, true },     { "started by", 40, 70, true },
    { "during", 45, 55, true },     { "contains", 20, 80, true },
    { "finishes", 50, 60, true },   { "finished by", 20, 60, true },
    { "equals", 40, 60, true },
};

START_TEST(all_relations_of_two_ranges_are_told_apart)
{
    for (size_t b = 0; b < G_N_ELEMENTS(bases); b++) {
        int64_t start = bases[b] + relations[_i].start;
        int64_t end = bases[b] + relations[_i].end;
        int64_t mid = bases[b] + 40;
        IntervalNode *found;

        reset();
        insert(&ranges[0], mid, 20);
        found = interval_tree_first_overlap(&tree, start, end - 1);
        ck_assert_msg((found != NULL) == relations[_i].overlap, "%s",
                      relations[_i].name);
        reset();
        insert(&ranges[0], start, end - start);
        found = interval_tree_first_overlap(&tree, mid, mid + 19);
        ck_assert_msg((found != NULL) == relations[_i].overlap,
                      "%s, the other way round", relations[_i].name);
    }
}
END_TEST

START_TEST(the_last_byte_of_all_is_a_byte)
{
    reset();
    insert(&ranges[0], INT64_MAX, 1);
    insert(&ranges[1], 0, INT64_MAX);
    ck_assert_ptr_eq(interval_tree_first_overlap(&tree, INT64_MAX, INT64_MAX),
                     &ranges[0].node);
    ck_assert_ptr_eq(interval_tree_first_overlap(&tree, 0, INT64_MAX),
                     &ranges[1].node);
    ck_assert_ptr_eq(interval_tree_next_overlap(&ranges[1].node, 0, INT64_MAX),
                     &ranges[0].node);
    ck_assert_ptr_null(interval_tree_next_overlap(&ranges[0].node, 0,
                                                  INT64_MAX));
}
END_TEST

START_TEST(equal_ranges_come_in_the_order_of_their_insertion)
{
    IntervalNode *node;

    reset();
    for (int i = 0; i < NODES; i++) {
        insert(&ranges[i], 4096, 512);
    }
    node = interval_tree_first_overlap(&tree, 4096, 4096);
    for (int i = 0; i < NODES; i++) {
        CHECK(node == &ranges[i].node);
        node = interval_tree_next_overlap(node, 4096, 4096);
    }
    ck_assert_ptr_null(node);
}
END_TEST

START_TEST(the_height_is_logarithmic_in_the_worst_order)
{
    enum { COUNT = 10000 };
    IntervalNode *nodes = g_new(IntervalNode, COUNT);
    IntervalTree big = { 0 };

    for (int i = 0; i < COUNT; i++) {
        interval_node_init(&nodes[i], (int64_t)i * 4096, 4096);
        interval_tree_insert(&big, &nodes[i]);
    }
    ck_assert_uint_eq(interval_tree_count(&big), COUNT);
    ck_assert_int_le(big.root->height, 19);     /* 1.44 log2(10,000) */
    for (int i = 0; i < COUNT - 1; i++) {
        interval_tree_remove(&big, &nodes[i]);
    }
    ck_assert_int_eq(big.root->height, 1);
    ck_assert_ptr_eq(interval_tree_first(&big), &nodes[COUNT - 1]);
    interval_tree_remove(&big, &nodes[COUNT - 1]);
    ck_assert(interval_tree_is_empty(&big));
    g_free(nodes);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("interval-tree");
    TCase *tcase = tcase_create("interval-tree");

    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(tcase, random_operations_agree_with_a_list, 0, 20);
    tcase_add_loop_test(tcase, all_relations_of_two_ranges_are_told_apart, 0,
                        G_N_ELEMENTS(relations));
    PROMISE(tcase, the_last_byte_of_all_is_a_byte);
    PROMISE(tcase, equal_ranges_come_in_the_order_of_their_insertion);
    PROMISE(tcase, the_height_is_logarithmic_in_the_worst_order);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
