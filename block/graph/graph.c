/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * BlockGraph: the set of nodes, their names, and simple questions about them.
 */
#include "block/graph/graph-int.h"
#include "block/graph/tls.h"

#include <errno.h>
#include <string.h>

#include "config.h"

const char *block_version(void)
{
    return BLOCKGRAPH_VERSION;
}

/* --- graphs --------------------------------------------------------------- */

BlockGraph *block_graph_new(AioContext *ctx, GError **errp)
{
    BlockGraph *graph;

    ctx = ctx ? aio_context_ref(ctx) : aio_context_new(AIO_ENGINE_AUTO, errp);
    if (!ctx) {
        return NULL;
    }
    aio_context_bind(ctx);
    graph = g_new0(BlockGraph, 1);
    graph->ctx = ctx;
    graph->by_name = g_hash_table_new(g_str_hash, g_str_equal);
    list_init(&graph->nodes);
    list_init(&graph->roots);
    list_init(&graph->sections);
    list_init(&graph->throttle_groups);
    list_init(&graph->jobs);
    list_init(&graph->job_listeners);
    co_queue_init(&graph->drain_waiters);
    co_mutex_init(&graph->control_lock);
    graph->notifier = drain_notifier_new(graph);
    graph_corruption_init(graph);
    return graph;
}

void block_graph_free(BlockGraph *graph)
{
    if (!graph) {
        return;
    }
    g_assert(list_empty(&graph->nodes));
    g_assert(list_empty(&graph->roots));
    g_assert(list_empty(&graph->sections));
    g_assert(list_empty(&graph->throttle_groups));
    g_assert(list_empty(&graph->jobs));
    g_assert(list_empty(&graph->job_listeners));
    if (graph->exports) {
        graph->free_exports(graph->exports);
    }
    graph_tls_clear(graph);
    if (graph->threshold_bh) {
        aio_bh_delete(graph->threshold_bh);
    }
    graph_corruption_clear(graph);
    drain_notifier_retire(graph->notifier);
    g_free(graph->image_root);
    g_hash_table_destroy(graph->by_name);
    aio_context_unref(graph->ctx);
    g_free(graph);
}

AioContext *block_graph_aio_context(BlockGraph *graph)
{
    return graph->ctx;
}

size_t block_graph_nr_nodes(const BlockGraph *graph)
{
    return graph->nr_nodes;
}

unsigned block_graph_nr_losses(const BlockGraph *graph)
{
    return graph->nr_losses;
}

/* --- names ---------------------------------------------------------------- */

static bool node_name_is_valid(const char *name)
{
    if (!g_ascii_isalpha(name[0]) || strlen(name) > BDRV_NODE_NAME_MAX) {
        return false;
    }
    for (const char *p = name; *p; p++) {
        if (!g_ascii_isalnum(*p) && !strchr("-._", *p)) {
            return false;
        }
    }
    return true;
}

int graph_add_node(BlockDriverState *bs, GError **errp)
{
    BlockGraph *graph = bs->graph;

    if (!bs->node_name) {
        /* '#' is no letter: a made name can never meet a given one. */
        bs->node_name = g_strdup_printf("#block%03" G_GUINT64_FORMAT,
                                        graph->next_auto_name++);
    } else if (!node_name_is_valid(bs->node_name)) {
        return block_error(errp, EINVAL, "Invalid node name '%s': 1 to %d "
                           "letters, digits, '-', '.', '_', a letter first",
                           bs->node_name, BDRV_NODE_NAME_MAX);
    }
    if (g_hash_table_contains(graph->by_name, bs->node_name)) {
        return block_error(errp, EEXIST, "Node name '%s' is already in use",
                           bs->node_name);
    }
    g_hash_table_insert(graph->by_name, bs->node_name, bs);
    list_append(&graph->nodes, &bs->graph_link);
    graph->nr_nodes++;
    drain_graph_changed(graph);
    return 0;
}

void graph_remove_node(BlockDriverState *bs)
{
    g_hash_table_remove(bs->graph->by_name, bs->node_name);
    list_remove(&bs->graph_link);
    bs->graph->nr_nodes--;
    drain_graph_changed(bs->graph);
}

BlockDriverState *bdrv_find_node(BlockGraph *graph, const char *node_name)
{
    BlockDriverState *bs = g_hash_table_lookup(graph->by_name, node_name);

    return bs && bs->state == BDRV_STATE_OPEN ? bs : NULL;
}

BlockDriverState *bdrv_next_node(BlockGraph *graph, BlockDriverState *bs)
{
    ListHead *link = bs ? bs->graph_link.next : graph->nodes.next;

    for (; link != &graph->nodes; link = link->next) {
        bs = LIST_ENTRY(link, BlockDriverState, graph_link);
        if (bs->state == BDRV_STATE_OPEN) {
            return bs;
        }
    }
    return NULL;
}

/* --- questions about nodes ------------------------------------------------ */

BlockGraph *bdrv_graph(const BlockDriverState *bs)
{
    return bs->graph;
}

const char *bdrv_node_name(const BlockDriverState *bs)
{
    return bs->node_name;
}

const char *bdrv_driver_name(const BlockDriverState *bs)
{
    return bs->drv->name;
}

const char *bdrv_filename(const BlockDriverState *bs)
{
    while (bs && !bs->filename) {
        bs = bs->primary ? bs->primary->bs : NULL;
    }
    return bs ? bs->filename : "";
}

unsigned bdrv_open_flags(const BlockDriverState *bs)
{
    return bs->open_flags;
}

BlockOptions *bdrv_get_options(const BlockDriverState *bs)
{
    return block_options_clone(bs->options);
}

bool bdrv_is_read_only(const BlockDriverState *bs)
{
    return !(bs->open_flags & BDRV_O_RDWR);
}

/*
 * Who takes its length from below asks there each time: whoever changes a node
 * may be any thread and another user, so could not tell the nodes above.  What
 * was kept counts while there is no child, in opening and closing.
 */
int64_t bdrv_length(const BlockDriverState *bs)
{
    int64_t skipped = 0;

    while (bs->length_from) {
        skipped += bs->length_skip;
        bs = bs->length_from->bs;
    }
    return MAX(atomic_load_explicit(&bs->length, memory_order_relaxed) -
               skipped, 0);
}

void bdrv_set_length_from_child(BlockDriverState *bs, bool from_child,
                                int64_t skip)
{
    bs->length_is_childs = from_child;
    bs->length_skip = skip;
    graph_choose_length(bs);
}

uint32_t bdrv_request_alignment(const BlockDriverState *bs)
{
    return bs->limits.request_alignment;
}

BlockPerm bdrv_get_perm(const BlockDriverState *bs)
{
    return bs->perm;
}

void *bdrv_opaque(BlockDriverState *bs)
{
    return bs->opaque;
}

const BlockSnapshotMethods *bdrv_snapshot_methods(const BlockDriverState *bs)
{
    return bs->drv->snapshot;
}

BdrvChild *bdrv_primary_child(BlockDriverState *bs)
{
    return bs->primary;
}

BdrvChild *bdrv_filter_child(BlockDriverState *bs)
{
    return bs->filtered;
}

BdrvChild *bdrv_cow_child(BlockDriverState *bs)
{
    return bs->cow;
}

void bdrv_set_filename(BlockDriverState *bs, const char *filename)
{
    g_free(bs->filename);
    bs->filename = g_strdup(filename);
}

void bdrv_set_read_only(BlockDriverState *bs, bool read_only)
{
    if (read_only) {
        bs->open_flags &= ~BDRV_O_RDWR;
    } else {
        bs->open_flags |= BDRV_O_RDWR;
    }
}

int bdrv_get_info(BlockDriverState *bs, BlockDriverInfo *info)
{
    memset(info, 0, sizeof(*info));
    bs = bdrv_skip_filters(bs);
    return bs->drv->get_info ? bs->drv->get_info(bs, info) : -ENOTSUP;
}

BlockDriverState *bdrv_skip_filters(BlockDriverState *bs)
{
    while (bs->filtered) {
        bs = bs->filtered->bs;
    }
    return bs;
}

/* --- questions about edges ------------------------------------------------ */

void bdrv_foreach_child(BlockDriverState *bs, BdrvChildVisitor *visit,
                        void *opaque)
{
    LIST_FOREACH(link, &bs->children) {
        if (!visit(LIST_ENTRY(link, BdrvChild, parent_link), opaque)) {
            return;
        }
    }
}

BdrvChild *bdrv_find_child(BlockDriverState *bs, const char *name)
{
    LIST_FOREACH(link, &bs->children) {
        BdrvChild *child = LIST_ENTRY(link, BdrvChild, parent_link);

        if (strcmp(child->name, name) == 0) {
            return child;
        }
    }
    return NULL;
}

const char *bdrv_child_name(const BdrvChild *child)
{
    return child->name;
}

BdrvChildRole bdrv_child_role(const BdrvChild *child)
{
    return child->role;
}

BlockPerm bdrv_child_perm(const BdrvChild *child)
{
    return child->perm;
}

BlockDriverState *bdrv_child_bs(const BdrvChild *child)
{
    return child->bs;
}

char *bdrv_child_user(const BdrvChild *child)
{
    if (child->root) {
        return g_strdup(child->root->what);
    }
    return g_strdup_printf("node '%s' (as '%s')", child->parent->node_name,
                           child->name);
}
