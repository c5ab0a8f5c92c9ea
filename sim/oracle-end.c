/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Before and after: a graph as text, and a world in which nothing is left.
 */
#include "block/backend/backend-int.h"
#include "sim/sim-int.h"

#include <errno.h>
#include <string.h>

/* --- the dump ------------------------------------------------------------- */

/* A change that is taken back may change the order of lists. */
static int by_text(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static char *join_sorted(GPtrArray *lines)
{
    GString *text = g_string_new(NULL);

    g_ptr_array_sort(lines, by_text);
    for (guint i = 0; i < lines->len; i++) {
        g_string_append(text, g_ptr_array_index(lines, i));
    }
    return g_string_free(text, FALSE);
}

static char *perm_text(const BlockPerm *perm)
{
    g_autofree char *used = bdrv_perm_names(perm->used);
    g_autofree char *shared = bdrv_perm_names(perm->shared);

    return g_strdup_printf("uses {%s} shares {%s}", used, shared);
}

static char *dump_child(const BdrvChild *child)
{
    g_autofree char *perm = perm_text(&child->perm);

    return g_strdup_printf("  %s -> %s, role %#x, %s, frozen %u%s\n",
                           child->name, child->bs->node_name, child->role,
                           perm, child->frozen,
                           child->nested ? ", nested" : "");
}

static char *dump_node(BlockDriverState *bs)
{
    g_autoptr(GPtrArray) lines = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *perm = perm_text(&bs->perm);
    /* A node that is being opened has none yet. */
    g_autofree char *options =
        bs->options ? block_options_to_json(bs->options) : g_strdup("{}");
    g_autofree char *children = NULL;

    LIST_FOREACH(link, &bs->children) {
        g_ptr_array_add(lines, dump_child(LIST_ENTRY(link, BdrvChild,
                                                     parent_link)));
    }
    children = join_sorted(lines);
    return g_strdup_printf("node %s: %s, file '%s', length %" G_GINT64_FORMAT
                           ", flags %#x, detect-zeroes %d, alignment %u, "
                           "references %u%s, %s\n  options %s\n%s",
                           bs->node_name, bs->drv->name, bdrv_filename(bs),
                           bdrv_length(bs), bs->open_flags, bs->detect_zeroes,
                           bs->limits.request_alignment, bs->refs,
                           bs->user_owned ? " (the user's)" : "", perm,
                           options, children);
}

static char *dump_root(const BlockRoot *root)
{
    g_autofree char *perm = NULL;

    if (!root->child) {
        return g_strdup_printf("%s: no node\n", root->what);
    }
    perm = perm_text(&root->child->perm);
    return g_strdup_printf("%s: node %s, %s\n", root->what,
                           root->child->bs->node_name, perm);
}

char *bgsim_graph_dump(BgSim *sim)
{
    g_autoptr(GPtrArray) lines = g_ptr_array_new_with_free_func(g_free);
    BlockGraph *graph = bgsim_graph(sim);

    LIST_FOREACH(link, &graph->nodes) {
        g_ptr_array_add(lines, dump_node(LIST_ENTRY(link, BlockDriverState,
                                                    graph_link)));
    }
    LIST_FOREACH(link, &graph->roots) {
        g_ptr_array_add(lines, dump_root(LIST_ENTRY(link, BlockRoot,
                                                    graph_link)));
    }
    return join_sorted(lines);
}

/* --- nothing is left ------------------------------------------------------ */

static bool check_graph_empty(const BlockGraph *graph, GError **errp)
{
    if (!list_empty(&graph->nodes)) {
        BlockDriverState *bs = LIST_ENTRY(graph->nodes.next, BlockDriverState,
                                          graph_link);

        block_error(errp, EILSEQ, "%zu nodes are left; the first is '%s' with "
                    "%u references", graph->nr_nodes, bs->node_name, bs->refs);
        return false;
    }
    if (!list_empty(&graph->roots)) {
        BlockRoot *root = LIST_ENTRY(graph->roots.next, BlockRoot, graph_link);

        block_error(errp, EILSEQ, "%s is left", root->what);
        return false;
    }
    if (!list_empty(&graph->sections) ||
        !list_empty(&graph->throttle_groups)) {
        block_error(errp, EILSEQ, "The graph is empty, but a %s is left",
                    list_empty(&graph->sections) ? "throttle group"
                                                 : "drained section");
        return false;
    }
    return true;
}

static bool check_coroutines(BgSim *sim, GError **errp)
{
    g_autofree char *waits = NULL;
    unsigned left = atomic_load(&sim->coroutines);

    if (left == 0) {
        return true;
    }
    waits = sim->threads_mode ? g_strdup("") : bgsim_describe_waits(sim);
    block_error(errp, EILSEQ, "%u coroutines are left:\n%s", left, waits);
    return false;
}

static bool check_thread(const SimThread *thread, GError **errp)
{
    const char *what = aio_timers_deadline_ns(&thread->ctx->timers) >= 0
                           ? "timer"
                       : aio_bhs_peek(thread->ctx) ? "bottom half"
                                                   : NULL;

    if (what) {
        block_error(errp, EILSEQ, "A %s of thread '%s' is left", what,
                    thread->name);
    }
    return !what;
}

static bool check_operations(BgSim *sim, GError **errp)
{
    for (unsigned kind = 0; kind < BGSIM_OPS; kind++) {
        if (atomic_load(&sim->ops_active[kind]) > 0) {
            block_error(errp, EILSEQ, "An operation has not ended: %s",
                        bgsim_op_name(kind));
            return false;
        }
    }
    return true;
}

/* So many steps must do for what only has to run out. */
#define LAST_STEPS 10000

/* Taking things down leaves bottom halves that find nothing to do. */
static void run_out(BgSim *sim)
{
    for (unsigned i = 0; i < LAST_STEPS; i++) {
        if (!sim_step(sim, sim->now_ns)) {
            return;
        }
    }
}

bool bgsim_check_empty(BgSim *sim, GError **errp)
{
    if (!sim->threads_mode && !sim->crash_graph) {
        run_out(sim);
    }
    if (!check_graph_empty(bgsim_graph(sim), errp)) {
        return false;
    }
    if (sim->crash_graph) {
        return true;            /* the rest of the world goes on */
    }
    if (!check_coroutines(sim, errp) || !check_operations(sim, errp)) {
        return false;
    }
    if (sim->threads_mode) {
        return true;            /* the loops belong to their threads */
    }
    for (guint i = 0; i < sim->threads->len; i++) {
        if (!check_thread(g_ptr_array_index(sim->threads, i), errp)) {
            return false;
        }
    }
    if (sim->events->len > 0) {
        block_error(errp, EILSEQ, "%u events are to come; the first is '%s'",
                    sim->events->len, sim_events_first(sim)->what);
        return false;
    }
    return true;
}
