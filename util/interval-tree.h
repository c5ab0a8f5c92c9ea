/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A set of byte ranges that answers "who overlaps this one?" in O(log n).
 *
 * The nodes live in the structs of their owner: nothing is allocated, nothing
 * can fail.  Ranges may be equal and may overlap; they are ordered by start,
 * then by end, then by age.  Not thread-safe: the owner's lock guards the tree
 * and every node in it.
 */
#ifndef UTIL_INTERVAL_TREE_H
#define UTIL_INTERVAL_TREE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct IntervalNode IntervalNode;

struct IntervalNode {
    /* Set by interval_node_init(), constant while the node is in a tree. */
    int64_t start;          /* first byte */
    int64_t last;           /* last byte, inclusive: INT64_MAX is a byte too */

    /* The tree's own; guarded by the lock of the tree's owner. */
    IntervalNode *parent;
    IntervalNode *left;
    IntervalNode *right;
    int64_t subtree_last;   /* largest @last in the subtree of this node */
    int height;             /* of the subtree; 0 while in no tree */
};

typedef struct IntervalTree {
    /* Guarded by the owner's lock; all zero is an empty tree. */
    IntervalNode *root;
    size_t count;
} IntervalTree;

/**
 * Make @node the range of @bytes > 0 bytes from @offset >= 0 on, in no tree.
 * Its last byte must not pass INT64_MAX.
 */
static inline void interval_node_init(IntervalNode *node, int64_t offset,
                                      int64_t bytes)
{
    g_assert(offset >= 0 && bytes > 0 && bytes - 1 <= INT64_MAX - offset);
    *node = (IntervalNode) { .start = offset, .last = offset + (bytes - 1) };
}

/** Whether @node is in a tree. */
static inline bool interval_node_is_linked(const IntervalNode *node)
{
    return node->height > 0;
}

/** Whether @tree has no ranges. */
static inline bool interval_tree_is_empty(const IntervalTree *tree)
{
    return !tree->root;
}

/** How many ranges @tree has. */
static inline size_t interval_tree_count(const IntervalTree *tree)
{
    return tree->count;
}

/** Add @node, which is initialised and in no tree, to @tree. */
void interval_tree_insert(IntervalTree *tree, IntervalNode *node);

/** Remove @node, which is in @tree; it may be inserted again. */
void interval_tree_remove(IntervalTree *tree, IntervalNode *node);

/**
 * The first range in order that shares a byte with @start..@last (inclusive),
 * or NULL.
 */
IntervalNode *interval_tree_first_overlap(const IntervalTree *tree,
                                          int64_t start, int64_t last);

/**
 * The next range behind @node, which is in a tree, that shares a byte with
 * @start..@last, or NULL.
 */
IntervalNode *interval_tree_next_overlap(const IntervalNode *node,
                                         int64_t start, int64_t last);

/** The first range in order, or NULL. */
IntervalNode *interval_tree_first(const IntervalTree *tree);

/** The range behind @node, which is in a tree, or NULL. */
IntervalNode *interval_tree_next(const IntervalNode *node);

#endif /* UTIL_INTERVAL_TREE_H */
