/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Transactions of actions.
 *
 * Each action is done when its turn comes, so a later one sees what an earlier
 * one has done; what it has done can be undone until all are.  The nodes are
 * drained meanwhile, so requests see all of it or nothing.  Control operations
 * of others may come in between when an action yields: undoing restores what an
 * action itself has found.  Where that is the graph they wait (drain.c, D7).
 */
#include "block/jobs/action.h"

#include <errno.h>

#include "block/graph/graph-int.h"

const char *const block_action_names[] = {
    [BLOCK_ACTION_ABORT] = "abort",
    [BLOCK_ACTION_BACKUP] = "blockdev-backup",
    [BLOCK_ACTION_SNAPSHOT] = "blockdev-snapshot",
    [BLOCK_ACTION_BITMAP_ADD] = "block-dirty-bitmap-add",
    [BLOCK_ACTION_BITMAP_CLEAR] = "block-dirty-bitmap-clear",
    [BLOCK_ACTION_BITMAP_DISABLE] = "block-dirty-bitmap-disable",
    [BLOCK_ACTION_BITMAP_ENABLE] = "block-dirty-bitmap-enable",
    [BLOCK_ACTION_BITMAP_MERGE] = "block-dirty-bitmap-merge",
    [BLOCK_ACTION_BITMAP_REMOVE] = "block-dirty-bitmap-remove",
    [BLOCK_ACTION_SNAPSHOT_INTERNAL] = "blockdev-snapshot-internal-sync",
    NULL,
};

/* --- abort ---------------------------------------------------------------- */

static const BlockOption no_options[] = {
    { .type = BLOCK_OPTION_END },
};

static int coroutine_fn abort_prepare(ActionState *a, GError **errp)
{
    int ret = action_parse(a, errp);

    return ret < 0 ? ret
                   : block_error(errp, ECANCELED, "The transaction was aborted "
                                 "by its action 'abort'");
}

static const ActionDriver action_abort = {
    .options = no_options,
    .prepare = abort_prepare,
};

/* --- blockdev-backup ------------------------------------------------------ */

static int coroutine_fn backup_prepare(ActionState *a, GError **errp)
{
    a->job = job_co_new(a->graph, job_drivers[BLOCK_JOB_BACKUP],
                        g_steal_pointer(&a->options), a->txn, errp);
    return a->job ? 0 : -EINVAL;
}

static void backup_commit(ActionState *a)
{
    job_launch(a->job);
    block_job_unref(a->job);
}

static void coroutine_fn backup_abort(ActionState *a)
{
    job_co_discard(a->job);
    block_job_unref(a->job);
}

/* Its options are those of the job. */
static const ActionDriver action_backup = {
    .node_key = "device",
    .prepare = backup_prepare,
    .commit = backup_commit,
    .abort = backup_abort,
};

/* --- blockdev-snapshot ---------------------------------------------------- */

#define OPT(field) offsetof(ActionOptions, field)

static const BlockOption snapshot_options[] = {
    { .name = "node", .type = BLOCK_OPTION_STRING, .required = true,
      .offset = OPT(node), .help = "node that writes go to no more" },
    { .name = "overlay", .type = BLOCK_OPTION_STRING, .required = true,
      .offset = OPT(overlay), .help = "unused node, that they go to" },
    { .type = BLOCK_OPTION_END },
};

/* That nobody else has anything to do with it, or undoing would move him. */
static int check_overlay(void *opaque, GError **errp)
{
    ActionState *a = opaque;

    if (!list_empty(&a->overlay->parents)) {
        return block_error(errp, EBUSY, "Node '%s' is in use already, so it "
                           "cannot be the overlay of node '%s'", a->o.overlay,
                           a->o.node);
    }
    if (a->overlay->cow) {
        return block_error(errp, EINVAL, "Node '%s' has a backing file "
                           "already, so it cannot be the overlay of node "
                           "'%s'", a->o.overlay, a->o.node);
    }
    return 0;
}

static int coroutine_fn snapshot_prepare(ActionState *a, GError **errp)
{
    BlockDriverState *overlay;
    int ret = action_parse(a, errp);

    if (ret < 0) {
        return ret;
    }
    overlay = bdrv_find_node(a->graph, a->o.overlay);
    if (!overlay) {
        return block_error(errp, ENOENT, "There is no node '%s' to be the "
                           "overlay", a->o.overlay);
    }
    a->overlay = bdrv_ref(overlay);
    ret = graph_set_backing(overlay, a->bs, check_overlay, a, errp);
    if (ret < 0) {
        return ret;
    }
    ret = bdrv_co_replace_node(a->bs, overlay, errp);
    if (ret < 0) {
        bdrv_co_set_backing(overlay, NULL, NULL);
    }
    return ret;
}

static void coroutine_fn snapshot_abort(ActionState *a)
{
    /* What was may be again: nobody has frozen an edge, or has a permission
     * that he had not (D7). */
    if (graph_put_back(a->overlay, a->bs, NULL) < 0 ||
        bdrv_co_set_backing(a->overlay, NULL, NULL) < 0) {
        g_warning("Node '%s' stays the overlay of node '%s'", a->o.overlay,
                  a->o.node);
    }
}

static const ActionDriver action_snapshot = {
    .options = snapshot_options,
    .prepare = snapshot_prepare,
    .abort = snapshot_abort,
};

/* --- one action ----------------------------------------------------------- */

static const ActionDriver *const drivers[BLOCK_ACTION_TYPES] = {
    [BLOCK_ACTION_ABORT] = &action_abort,
    [BLOCK_ACTION_BACKUP] = &action_backup,
    [BLOCK_ACTION_SNAPSHOT] = &action_snapshot,
    [BLOCK_ACTION_BITMAP_ADD] = &action_bitmap_add,
    [BLOCK_ACTION_BITMAP_CLEAR] = &action_bitmap_clear,
    [BLOCK_ACTION_BITMAP_DISABLE] = &action_bitmap_disable,
    [BLOCK_ACTION_BITMAP_ENABLE] = &action_bitmap_enable,
    [BLOCK_ACTION_BITMAP_MERGE] = &action_bitmap_merge,
    [BLOCK_ACTION_BITMAP_REMOVE] = &action_bitmap_remove,
    [BLOCK_ACTION_SNAPSHOT_INTERNAL] = &action_snapshot_internal,
};

const BlockOption *block_action_options(BlockActionType type)
{
    return type == BLOCK_ACTION_BACKUP ? block_job_options(BLOCK_JOB_BACKUP)
                                       : drivers[type]->options;
}

static const char *action_name(const ActionState *a)
{
    for (int i = 0; i < BLOCK_ACTION_TYPES; i++) {
        if (drivers[i] == a->drv) {
            return block_action_names[i];
        }
    }
    g_assert_not_reached();
}

int action_parse(ActionState *a, GError **errp)
{
    const BlockOption *known[] = { a->drv->options, NULL };
    g_autofree char *what = g_strdup_printf("Action '%s'", action_name(a));

    if (block_options_absorb(a->options, a->drv->options, &a->o, what,
                             errp) < 0) {
        return -EINVAL;
    }
    a->parsed = true;
    return block_options_check_empty(a->options, known, what, errp);
}

/* The name of the node whose requests have to wait, or NULL. */
static const char *node_name(const ActionState *a)
{
    return block_options_peek_str(a->options, a->drv->node_key
                                                  ? a->drv->node_key : "node");
}

/* They wait, if it is there. */
static void coroutine_fn drain_node(ActionState *a)
{
    const char *name = node_name(a);

    if (name && !(SIM_PLANTED(43) && a->drv == &action_backup)) {
        a->bs = bdrv_find_node(a->graph, name);
    }
    if (a->bs) {
        bdrv_ref(a->bs);
        bdrv_co_drained_begin(a->bs);
    }
}

/* A job says itself who is missing. */
static int coroutine_fn prepare(ActionState *a, GError **errp)
{
    const char *name = node_name(a);

    if (name && !a->bs && a->drv != &action_backup) {
        return block_error(errp, ENOENT, "Action '%s': there is no node '%s'",
                           action_name(a), name);
    }
    return a->drv->prepare(a, errp);
}

static void coroutine_fn finish(ActionState *a)
{
    if (a->bs) {
        bdrv_drained_end(a->bs);
        bdrv_co_unref(a->bs);
    }
    bdrv_co_unref(a->overlay);
    if (a->parsed) {
        block_options_clear(a->drv->options, &a->o);
    }
    hbitmap_free(a->saved);
    g_free(a->snapshot);
    block_options_free(a->options);
}

/* --- all of them ---------------------------------------------------------- */

static int coroutine_fn prepare_all(ActionState *states, size_t nr,
                                    GError **errp)
{
    for (size_t i = 0; i < nr; i++) {
        int ret = prepare(&states[i], errp);

        if (ret < 0) {
            return ret;
        }
        states[i].prepared = true;
    }
    return 0;
}

static void commit_all(ActionState *states, size_t nr)
{
    for (size_t i = 0; i < nr; i++) {
        if (states[i].drv->commit) {
            states[i].drv->commit(&states[i]);
        }
    }
}

static void coroutine_fn abort_all(ActionState *states, size_t nr)
{
    for (size_t i = nr; i > 0; i--) {
        if (states[i - 1].prepared && states[i - 1].drv->abort) {
            states[i - 1].drv->abort(&states[i - 1]);
        }
    }
}

static void set_up(BlockGraph *graph, const BlockAction *action, JobTxn *txn,
                   ActionState *ret)
{
    *ret = (ActionState){
        .drv = drivers[action->type],
        .graph = graph,
        .txn = txn,
        .options = action->options,
    };
}

static int coroutine_fn run(ActionState *states, size_t nr, GError **errp)
{
    bool changes_graph = false;
    int ret;

    for (size_t i = 0; i < nr; i++) {
        drain_node(&states[i]);
        changes_graph = changes_graph || states[i].drv == &action_snapshot ||
                        states[i].drv == &action_backup;
    }
    if (changes_graph) {
        drain_revert_begin(states[0].graph);
    }
    ret = prepare_all(states, nr, errp);
    if (ret == 0) {
        commit_all(states, nr);
    } else {
        abort_all(states, nr);
    }
    for (size_t i = 0; i < nr; i++) {
        finish(&states[i]);
    }
    return ret;
}

int coroutine_fn block_co_transaction(BlockGraph *graph,
                                      const BlockAction *actions, size_t nr,
                                      bool grouped, GError **errp)
{
    ActionState *states = g_new0(ActionState, nr);
    JobTxn *group = grouped ? job_txn_new(graph) : NULL;
    int ret;

    for (size_t i = 0; i < nr; i++) {
        set_up(graph, &actions[i], grouped ? group : job_txn_new(graph),
               &states[i]);
    }
    if (nr == 0) {
        bdrv_co_drain_all_begin(graph);
        bdrv_drain_all_end(graph);
    }
    ret = run(states, nr, errp);
    for (size_t i = 0; i < nr && !grouped; i++) {
        job_txn_unref(states[i].txn);
    }
    if (grouped) {
        job_txn_unref(group);
    }
    g_free(states);
    return ret;
}
