/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The commit job for the layer that guests write to.
 *
 *     guests                   guests                        guests
 *        |                        |                             |
 *       top                  mirror-top ---target---+           |
 *        |                        |                 |           |
 *      layers       ==>          top                |    ==>    |
 *        |                        |                 |           |
 *        |                      layers              |           |
 *        |                        |                 |           |
 *       base                     base <-------------+          base
 *
 * It is a mirror from the top to the base of what the layers hold (sync=top),
 * ready when the base shows what the top does; "complete" makes the guests go
 * on there.
 *
 * A1  The layers hide what we write to the base: it is what they hold there.
 *     So the layer above it, which does not want that to be written, is
 *     unguarded (edge_set_unguarded()) for our time, but not in the step in
 *     which guests come to the base.
 * A2  Nobody else writes the base, and the chain down to it is frozen.
 */
#include "block/jobs/commit.h"

#include <errno.h>

#include "block/graph/graph-int.h"
#include "block/jobs/mirror.h"

static MirrorJob *mirror_of(BlockJob *job)
{
    return (MirrorJob *)job;
}

/* --- start ---------------------------------------------------------------- */

/* What the options of a commit mean for a mirror; takes the strings over. */
static int take_options(MirrorJob *m, BlockOptions *options, GError **errp)
{
    CommitOptions o;
    int ret = job_take_options(&m->job, options, commit_options, &o, errp);

    if (ret < 0) {
        return ret;
    }
    if (o.backing_file) {
        ret = block_error(errp, EINVAL, "Job '%s': node '%s' is the active "
                          "layer: no image above it could record "
                          "'backing-file'", m->job.id, o.device);
    }
    if (ret == 0) {
        m->o = (MirrorOptions){
            .device = g_strdup(o.top ? o.top : o.device),
            .target = g_strdup(o.base),
            .sync = MIRROR_SYNC_TOP,
            .max_workers = o.max_workers,
            .unmap = true,
            .use_copy_range = true,
            .on_source_error = o.on_error,
            .on_target_error = o.on_error,
            .filter_node_name = g_strdup(o.filter_node_name),
        };
    }
    block_options_clear(commit_options, &o);
    return ret;
}

static void clear_options(MirrorJob *m)
{
    g_free(m->o.device);
    g_free(m->o.target);
    g_free(m->o.filter_node_name);
}

/* A filter that has to see all writes must not be passed by. */
static int check_filters(MirrorJob *m, GError **errp)
{
    for (BlockDriverState *bs = m->above_target; bs->filtered;
         bs = chain_above(m->source, bs)) {
        if (bs->drv->sees & BLOCK_SEES_WRITES) {
            return block_error(errp, EINVAL, "Job '%s': filter '%s' (driver "
                               "'%s') would not see what is written to node "
                               "'%s' below it", m->job.id, bs->node_name,
                               bs->drv->name, m->target->node_name);
        }
        if (bs == m->source) {
            break;
        }
    }
    return 0;
}

/* Takes no references: to be done again after each yield. */
static int find_nodes(MirrorJob *m, GError **errp)
{
    m->source = job_find_node(&m->job, "device", m->o.device, errp);
    m->target = !m->source  ? NULL
                : m->o.target ? job_find_node(&m->job, "base", m->o.target,
                                              errp)
                              : chain_end(m->source);
    if (!m->target) {
        return -ENOENT;
    }
    if (bdrv_skip_filters(m->source) == bdrv_skip_filters(m->target)) {
        return block_error(errp, EINVAL, "Job '%s': node '%s' cannot be "
                           "committed to itself", m->job.id,
                           bdrv_node_name(m->source));
    }
    m->above_target = chain_above(m->source, m->target);
    if (!m->above_target) {
        return block_error(errp, EINVAL, "Job '%s': node '%s' is not in the "
                           "chain below node '%s'", m->job.id,
                           bdrv_node_name(m->target), m->o.device);
    }
    return check_filters(m, errp);
}

/* The nodes are referenced, but may not be what they were any more. */
static int look_again(MirrorJob *m, GError **errp)
{
    const MirrorJob held = *m;
    int ret = find_nodes(m, errp);

    if (ret == 0 && (held.source != m->source || held.target != m->target ||
                     held.above_target != m->above_target)) {
        ret = block_error(errp, EBUSY, "Job '%s': the chain below node '%s' "
                          "has changed", m->job.id, m->o.device);
    }
    m->source = held.source;
    m->target = held.target;
    m->above_target = held.above_target;
    return ret;
}

/* A2.  Who holds a part of the chain already is about to change it. */
static int hold_chain(MirrorJob *m, GError **errp)
{
    g_autoptr(GError) why = NULL;
    int ret = bdrv_freeze_chain(m->source, m->target, &why);

    return ret < 0 ? block_error(errp, -ret, "Job '%s': %s", m->job.id,
                                 why->message)
                   : 0;
}

/* The layers are held, the base can be written. */
static int coroutine_fn begin(MirrorJob *m, GError **errp)
{
    int ret = chain_make_writable(m->target, &m->made_writable, errp);

    drain_revert_wait(m->source); /* what we hold cannot be undone */
    ret = ret < 0 ? ret : look_again(m, errp);
    ret = ret < 0 ? ret : hold_chain(m, errp);
    if (ret < 0) {
        return ret;
    }
    mirror_guard(m, false);                                     /* A1 */
    ret = mirror_choose_sizes(m, errp);
    if (ret == 0) {
        ret = mirror_begin(m, errp);
    }
    if (ret < 0) {
        mirror_guard(m, true);
        bdrv_unfreeze_chain(m->source, m->target);
    }
    return ret;
}

static void coroutine_fn unref_nodes(MirrorJob *m)
{
    bdrv_co_unref(m->above_target);
    bdrv_co_unref(m->target);
    bdrv_co_unref(m->source);
}

static int coroutine_fn active_commit_start(BlockJob *job,
                                            BlockOptions *options,
                                            GError **errp)
{
    MirrorJob *m = mirror_of(job);
    int ret = take_options(m, options, errp);

    if (ret < 0) {
        return ret;
    }
    ret = find_nodes(m, errp);
    if (ret < 0) {
        clear_options(m);
        return ret;
    }
    if (!m->o.target) {
        m->o.target = g_strdup(bdrv_node_name(m->target));
    }
    m->grown_from = -1;
    bdrv_ref(m->source);
    bdrv_ref(m->target);
    bdrv_ref(m->above_target);
    ret = begin(m, errp);
    if (ret < 0) {
        if (m->made_writable) {
            chain_make_read_only(m->target);
        }
        unref_nodes(m);
        clear_options(m);
    }
    return ret;
}

/* --- the work, and the end ------------------------------------------------ */

/* The base has room for all of the layers; what is new there is zero. */
static int coroutine_fn grow_base(MirrorJob *m, GError **errp)
{
    int64_t length = bdrv_length(m->target);
    int ret;

    if (bdrv_length(m->source) <= length) {
        return 0;
    }
    m->grown_from = length;
    ret = mirror_top_resize_target(m->top, bdrv_length(m->source), errp);
    if (ret < 0) {
        g_prefix_error(errp, "Job '%s': node '%s' could not be made as long "
                       "as node '%s': ", m->job.id, m->o.target, m->o.device);
    }
    return ret;
}

static int coroutine_fn active_commit_run(BlockJob *job, GError **errp)
{
    MirrorJob *m = mirror_of(job);
    int ret = grow_base(m, errp);

    return ret < 0 ? ret : mirror_work(m, errp);
}

/* The layers still have all that the base was grown for. */
static void coroutine_fn active_commit_abort(BlockJob *job)
{
    MirrorJob *m = mirror_of(job);
    g_autoptr(GError) error = NULL;

    mirror_abort(job);
    mirror_top_settle(m->top);
    if (m->grown_from >= 0 && bdrv_length(m->target) > m->grown_from &&
        mirror_top_resize_target(m->top, m->grown_from, &error) < 0) {
        g_warning("Node '%s' stays longer than it was: %s", m->o.target,
                  error->message);
    }
}

static void coroutine_fn active_commit_clean(BlockJob *job)
{
    MirrorJob *m = mirror_of(job);
    BlockDriverState *source = m->source;
    BlockDriverState *target = m->target;
    BlockDriverState *above = m->above_target;
    bool back = m->made_writable && !m->switched;

    mirror_clean(job);
    bdrv_unfreeze_chain(source, target);
    if (back) {
        chain_make_read_only(target);
    }
    bdrv_co_unref(above);
    bdrv_co_unref(target);
    bdrv_co_unref(source);
}

const JobDriver job_driver_active_commit = {
    .instance_size = sizeof(MirrorJob),
    .type = BLOCK_JOB_COMMIT,
    .options = commit_options,
    .start = active_commit_start,
    .run = active_commit_run,
    .prepare = mirror_prepare,
    .commit = mirror_commit,
    .abort = active_commit_abort,
    .clean = active_commit_clean,
    .kick = mirror_kick,
    .look = mirror_look_progress,
    .complete = mirror_complete,
    .soft_cancel = mirror_soft_cancel,
};
