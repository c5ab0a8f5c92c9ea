/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A set of byte ranges: an AVL tree ordered by start, in which each node also
 * knows the largest end in its subtree.
 *
 * A guest chooses the ranges, so the balance must not depend on luck: AVL
 * bounds the height by 1.44 log2(n) whatever the order of insertion.
 *
 * I1  A node is not before any node of its left subtree and not behind any of
 *     its right subtree.
 * I2  height and subtree_last of a node fit its children and itself.
 * I3  The heights of two siblings differ by at most 1.
 */
#include "util/interval-tree.h"

static int height_of(const IntervalNode *node)
{
    return node ? node->height : 0;
}

static bool is_before(const IntervalNode *a, const IntervalNode *b)
{
    return a->start < b->start || (a->start == b->start && a->last < b->last);
}

/* Make I2 true for @node, given that it is for its children. */
static void update(IntervalNode *node)
{
    int64_t subtree_last = node->last;

    if (node->left) {
        subtree_last = MAX(subtree_last, node->left->subtree_last);
    }
    if (node->right) {
        subtree_last = MAX(subtree_last, node->right->subtree_last);
    }
    node->subtree_last = subtree_last;
    node->height = MAX(height_of(node->left), height_of(node->right)) + 1;
}

/* Let @new, which may be NULL, hang where @old hangs. */
static void replace(IntervalTree *tree, const IntervalNode *old,
                    IntervalNode *new)
{
    IntervalNode *parent = old->parent;

    if (!parent) {
        tree->root = new;
    } else if (parent->left == old) {
        parent->left = new;
    } else {
        parent->right = new;
    }
    if (new) {
        new->parent = parent;
    }
}

static void set_left(IntervalNode *node, IntervalNode *child)
{
    node->left = child;
    if (child) {
        child->parent = node;
    }
}

static void set_right(IntervalNode *node, IntervalNode *child)
{
    node->right = child;
    if (child) {
        child->parent = node;
    }
}

/* Lift the right child of @node above it; returns that child. */
static IntervalNode *rotate_left(IntervalTree *tree, IntervalNode *node)
{
    IntervalNode *top = node->right;

    replace(tree, node, top);
    set_right(node, top->left);
    set_left(top, node);
    update(node);
    update(top);
    return top;
}

/* Lift the left child of @node above it; returns that child. */
static IntervalNode *rotate_right(IntervalTree *tree, IntervalNode *node)
{
    IntervalNode *top = node->left;

    replace(tree, node, top);
    set_left(node, top->right);
    set_right(top, node);
    update(node);
    update(top);
    return top;
}

/* Make I2 and I3 true for @node; returns the top of what was its subtree. */
static IntervalNode *rebalance(IntervalTree *tree, IntervalNode *node)
{
    int balance = height_of(node->left) - height_of(node->right);

    g_assert(balance >= -2 && balance <= 2);
    if (balance == 2) {
        if (height_of(node->left->left) < height_of(node->left->right)) {
            rotate_left(tree, node->left);
        }
        return rotate_right(tree, node);
    }
    if (balance == -2) {
        if (height_of(node->right->right) < height_of(node->right->left)) {
            rotate_right(tree, node->right);
        }
        return rotate_left(tree, node);
    }
    update(node);
    return node;
}

/*
 * Repair from @node up to the root.  Above a subtree whose height and
 * subtree_last stayed the same nothing has changed; but @stale, if not NULL,
 * stands on the way with values of another node and must be passed first.
 */
static void repair(IntervalTree *tree, IntervalNode *node,
                   const IntervalNode *stale)
{
    while (node) {
        int height = node->height;
        int64_t subtree_last = node->subtree_last;
        IntervalNode *top;

        if (node == stale) {
            stale = NULL;
        }
        top = rebalance(tree, node);
        if (!stale && top->height == height &&
            top->subtree_last == subtree_last) {
            return;
        }
        node = top->parent;
    }
}

void interval_tree_insert(IntervalTree *tree, IntervalNode *node)
{
    IntervalNode *parent = NULL;
    IntervalNode **link = &tree->root;

    g_assert(!interval_node_is_linked(node));
    g_assert(node->start >= 0 && node->start <= node->last);
    while (*link) {
        parent = *link;
        link = is_before(node, parent) ? &parent->left : &parent->right;
    }
    *link = node;
    node->parent = parent;
    node->left = NULL;
    node->right = NULL;
    update(node);
    repair(tree, parent, NULL);
    tree->count++;
}

/*
 * Put the successor of @node, which has two children, in its place.  Returns
 * the lowest node whose children have changed.
 */
static IntervalNode *replace_by_successor(IntervalTree *tree,
                                          IntervalNode *node,
                                          IntervalNode *next)
{
    IntervalNode *lowest = next->parent;

    if (lowest == node) {
        lowest = next;
    } else {
        set_left(lowest, next->right);
        set_right(next, node->right);
    }
    set_left(next, node->left);
    replace(tree, node, next);
    /* What the parent has seen so far; repair() compares with it. */
    next->height = node->height;
    next->subtree_last = node->subtree_last;
    return lowest;
}

void interval_tree_remove(IntervalTree *tree, IntervalNode *node)
{
    g_assert(interval_node_is_linked(node) && tree->count > 0);
    if (node->left && node->right) {
        IntervalNode *next = interval_tree_next(node);

        repair(tree, replace_by_successor(tree, node, next), next);
    } else {
        replace(tree, node, node->left ? node->left : node->right);
        repair(tree, node->parent, NULL);
    }
    tree->count--;
    node->parent = NULL;
    node->left = NULL;
    node->right = NULL;
    node->height = 0;
}

/*
 * The first overlap in the subtree of @node, some range of which ends at or
 * behind @start.
 *
 * The search never turns back: if the left subtree has a range that ends at
 * or behind @start, then the first such range is the answer or, if it starts
 * behind @last, so does everything to the right of it.
 */
static IntervalNode *first_in_subtree(const IntervalNode *node, int64_t start,
                                      int64_t last)
{
    for (;;) {
        if (node->left && node->left->subtree_last >= start) {
            node = node->left;
        } else if (node->start > last) {
            return NULL;
        } else if (node->last >= start) {
            return (IntervalNode *)node;
        } else {
            node = node->right;
            g_assert(node && node->subtree_last >= start);      /* I2 */
        }
    }
}

IntervalNode *interval_tree_first_overlap(const IntervalTree *tree,
                                          int64_t start, int64_t last)
{
    g_assert(start <= last);
    if (!tree->root || tree->root->subtree_last < start) {
        return NULL;
    }
    return first_in_subtree(tree->root, start, last);
}

/* The nearest ancestor of @node of which it is in the left subtree. */
static IntervalNode *ancestor_to_the_right(const IntervalNode *node)
{
    while (node->parent && node->parent->right == node) {
        node = node->parent;
    }
    return node->parent;
}

IntervalNode *interval_tree_next_overlap(const IntervalNode *node,
                                         int64_t start, int64_t last)
{
    g_assert(start <= last && interval_node_is_linked(node));
    for (;;) {
        if (node->right && node->right->subtree_last >= start) {
            return first_in_subtree(node->right, start, last);
        }
        node = ancestor_to_the_right(node);
        if (!node || node->start > last) {
            return NULL;
        }
        if (node->last >= start) {
            return (IntervalNode *)node;
        }
    }
}

static IntervalNode *leftmost(const IntervalNode *node)
{
    while (node && node->left) {
        node = node->left;
    }
    return (IntervalNode *)node;
}

IntervalNode *interval_tree_first(const IntervalTree *tree)
{
    return leftmost(tree->root);
}

IntervalNode *interval_tree_next(const IntervalNode *node)
{
    return node->right ? leftmost(node->right) : ancestor_to_the_right(node);
}
