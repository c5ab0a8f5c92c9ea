/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Walks over the graph.
 *
 * None recurses: coroutine stacks are small and chains may be long.  None
 * yields, so one visit mark per graph is enough.
 */
#include "block/graph/graph-int.h"

#include <errno.h>

typedef struct WalkFrame {
    BlockDriverState *bs;
    ListHead *next; /* the next edge of @bs to follow */
} WalkFrame;

static void push(GArray *stack, BlockDriverState *bs, uint64_t mark)
{
    WalkFrame frame = { .bs = bs, .next = bs->children.next };

    bs->visit_mark = mark;
    g_array_append_val(stack, frame);
}

/* Append @start and what is below to @post: children before parents. */
static void walk_below(BlockDriverState *start, uint64_t mark, GArray *stack,
                       GPtrArray *post)
{
    push(stack, start, mark);
    while (stack->len > 0) {
        WalkFrame *top = &g_array_index(stack, WalkFrame, stack->len - 1);
        BlockDriverState *below;

        if (top->next == &top->bs->children) {
            g_ptr_array_add(post, top->bs);
            g_array_set_size(stack, stack->len - 1);
            continue;
        }
        below = LIST_ENTRY(top->next, BdrvChild, parent_link)->bs;
        top->next = top->next->next;
        if (below->visit_mark != mark) {
            push(stack, below, mark);
        }
    }
}

GPtrArray *graph_below(GPtrArray *nodes)
{
    GPtrArray *post = g_ptr_array_new();
    GArray *stack = g_array_new(false, false, sizeof(WalkFrame));
    uint64_t mark = 0;

    for (guint i = 0; i < nodes->len; i++) {
        BlockDriverState *bs = g_ptr_array_index(nodes, i);

        mark = mark ? mark : ++bs->graph->visit_mark;
        if (bs->visit_mark != mark) {
            walk_below(bs, mark, stack, post);
        }
    }
    g_array_free(stack, true);
    for (guint i = 0; i < post->len / 2; i++) {
        gpointer *a = &post->pdata[i];
        gpointer *b = &post->pdata[post->len - 1 - i];
        gpointer other = *a;

        *a = *b;
        *b = other;
    }
    return post;
}

static void add_unvisited(GPtrArray *found, BlockDriverState *bs,
                          uint64_t mark)
{
    if (bs->visit_mark != mark) {
        bs->visit_mark = mark;
        g_ptr_array_add(found, bs);
    }
}

GPtrArray *graph_above(GPtrArray *nodes)
{
    GPtrArray *found = g_ptr_array_new();
    uint64_t mark = 0;

    for (guint i = 0; i < nodes->len; i++) {
        BlockDriverState *bs = g_ptr_array_index(nodes, i);

        mark = mark ? mark : ++bs->graph->visit_mark;
        add_unvisited(found, bs, mark);
    }
    for (guint i = 0; i < found->len; i++) {
        BlockDriverState *bs = g_ptr_array_index(found, i);

        LIST_FOREACH(link, &bs->parents) {
            BdrvChild *child = LIST_ENTRY(link, BdrvChild, node_link);

            if (child->parent) {
                add_unvisited(found, child->parent, mark);
            }
        }
    }
    return found;
}

static bool reaches(BlockDriverState *bs, BlockDriverState *below,
                    bool reads_only)
{
    g_autoptr(GPtrArray) todo = g_ptr_array_new();
    uint64_t mark = ++bs->graph->visit_mark;

    add_unvisited(todo, bs, mark);
    for (guint i = 0; i < todo->len; i++) {
        BlockDriverState *node = g_ptr_array_index(todo, i);

        if (node == below) {
            return true;
        }
        LIST_FOREACH(link, &node->children) {
            BdrvChild *child = LIST_ENTRY(link, BdrvChild, parent_link);

            if (child->role || !reads_only) {
                add_unvisited(todo, child->bs, mark);
            }
        }
    }
    return false;
}

bool graph_reaches(BlockDriverState *bs, BlockDriverState *below)
{
    return reaches(bs, below, false);
}

bool graph_reads_from(BlockDriverState *bs, BlockDriverState *below)
{
    return reaches(bs, below, true);
}

int graph_check_height(BlockDriverState *bs, GError **errp)
{
    g_autoptr(GPtrArray) start = g_ptr_array_new();
    g_autoptr(GPtrArray) above = NULL;
    g_autoptr(GPtrArray) order = NULL;

    g_ptr_array_add(start, bs);
    above = graph_above(start);
    order = graph_below(above);
    for (guint i = 0; i < order->len; i++) {
        ((BlockDriverState *)g_ptr_array_index(order, i))->level = 1;
    }
    /* Parents come first, so a level is final when its node is reached. */
    for (guint i = 0; i < order->len; i++) {
        BlockDriverState *node = g_ptr_array_index(order, i);

        if (node->level > BDRV_HEIGHT_MAX) {
            return block_error(errp, ELOOP, "Node '%s': more than %d nodes on "
                               "top of each other", node->node_name,
                               BDRV_HEIGHT_MAX);
        }
        LIST_FOREACH(link, &node->children) {
            BdrvChild *child = LIST_ENTRY(link, BdrvChild, parent_link);

            child->bs->level = MAX(child->bs->level, node->level + 1);
        }
    }
    return 0;
}
