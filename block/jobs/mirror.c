/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The mirror job: a node becomes a copy of another one that is in use, is kept
 * up to date, and can take its place.
 */
#include "block/jobs/mirror.h"

#include <errno.h>

#include <blockgraph/dirty-bitmap.h>

#include "block/jobs/chain.h"

#define BUF_SIZE_DEFAULT (INT64_C(16) << 20)
#define WORKERS_MAX 256

static const char *const sync_names[] = {
    [MIRROR_SYNC_FULL] = "full",
    [MIRROR_SYNC_TOP] = "top",
    [MIRROR_SYNC_NONE] = "none",
    NULL,
};

static const char *const copy_mode_names[] = {
    [MIRROR_BACKGROUND - MIRROR_BACKGROUND] = "background",
    [MIRROR_WRITE_BLOCKING - MIRROR_BACKGROUND] = "write-blocking",
    NULL,
};

#define OPT(field) offsetof(MirrorOptions, field)

static const BlockOption mirror_options[] = {
    { .name = "device", .type = BLOCK_OPTION_STRING, .required = true,
      .offset = OPT(device), .help = "node that is copied" },
    { .name = "target", .type = BLOCK_OPTION_STRING, .required = true,
      .offset = OPT(target), .help = "node that it is copied to" },
    { .name = "sync", .type = BLOCK_OPTION_ENUM, .required = true,
      .values = sync_names, .offset = OPT(sync),
      .help = "what is copied beside what guests change" },
    { .name = "copy-mode", .type = BLOCK_OPTION_ENUM, .def = "background",
      .values = copy_mode_names, .offset = OPT(copy_mode),
      .help = "when guests' changes reach the target" },
    { .name = "granularity", .type = BLOCK_OPTION_SIZE, .def = "0",
      .max = MIRROR_GRANULARITY_MAX, .offset = OPT(granularity),
      .help = "unit of what is dirty, a power of two; 0: a cluster" },
    { .name = "buf-size", .type = BLOCK_OPTION_SIZE, .def = "0",
      .max = INT64_C(1) << 40, .offset = OPT(buf_size),
      .help = "bytes that are copied at once; 0: 16 MiB" },
    { .name = "max-workers", .type = BLOCK_OPTION_NUMBER, .def = "16",
      .min = 1, .max = WORKERS_MAX, .offset = OPT(max_workers),
      .help = "most copies at once" },
    { .name = "unmap", .type = BLOCK_OPTION_BOOL, .def = "on",
      .offset = OPT(unmap), .help = "zeroes in the target may be holes" },
    { .name = "target-is-zero", .type = BLOCK_OPTION_BOOL, .def = "off",
      .offset = OPT(target_is_zero), .help = "the target reads as zero" },
    { .name = "use-copy-range", .type = BLOCK_OPTION_BOOL, .def = "on",
      .offset = OPT(use_copy_range),
      .help = "copy inside the storage where it can" },
    { .name = "replaces", .type = BLOCK_OPTION_STRING, .offset = OPT(replaces),
      .help = "filter above the node that is replaced in its stead" },
    { .name = "on-source-error", .type = BLOCK_OPTION_ENUM, .def = "report",
      .values = job_on_error_names, .offset = OPT(on_source_error),
      .help = "what to do when the node cannot be read" },
    { .name = "on-target-error", .type = BLOCK_OPTION_ENUM, .def = "report",
      .values = job_on_error_names, .offset = OPT(on_target_error),
      .help = "what to do when the target cannot be written" },
    { .name = "filter-node-name", .type = BLOCK_OPTION_STRING,
      .offset = OPT(filter_node_name), .help = "name of the mirror-top node" },
    { .type = BLOCK_OPTION_END },
};

/* What can be changed while it runs. */
typedef struct MirrorChange {
    int copy_mode;
} MirrorChange;

static const BlockOption change_options[] = {
    { .name = "copy-mode", .type = BLOCK_OPTION_ENUM, .required = true,
      .values = copy_mode_names, .offset = offsetof(MirrorChange, copy_mode),
      .help = "when guests' changes reach the target" },
    { .type = BLOCK_OPTION_END },
};

static MirrorJob *mirror_of(BlockJob *job)
{
    return (MirrorJob *)job;
}

/* --- start: options and nodes --------------------------------------------- */

int mirror_choose_sizes(MirrorJob *m, GError **errp)
{
    int64_t g = m->o.granularity;
    int64_t buf = m->o.buf_size > 0 ? m->o.buf_size : BUF_SIZE_DEFAULT;

    if (g != 0 && (g < MIRROR_GRANULARITY_MIN || (g & (g - 1)))) {
        return block_error(errp, EINVAL, "Job '%s': granularity must be a "
                           "power of two from %" G_GINT64_FORMAT " to %"
                           G_GINT64_FORMAT ", not %" G_GINT64_FORMAT,
                           m->job.id, MIRROR_GRANULARITY_MIN,
                           MIRROR_GRANULARITY_MAX, g);
    }
    if (g == 0) {
        g = MIN(bdrv_default_bitmap_granularity(m->target),
                MIRROR_GRANULARITY_MAX);
    }
    m->granularity = g;
    m->chunk = MAX(MIN(buf, MIRROR_BUFFER_BYTES) & ~(g - 1), g);
    copy_window_init(&m->window, CLAMP(buf / m->chunk, 1, m->o.max_workers));
    return 0;
}

/* Whether only filters lead from @bs down to @source. */
static bool filters_reach(BlockDriverState *bs, const BlockDriverState *source)
{
    while (bs != source && bdrv_filter_child(bs)) {
        bs = bdrv_child_bs(bdrv_filter_child(bs));
    }
    return bs == source;
}

static int find_replaces(MirrorJob *m, GError **errp)
{
    BlockDriverState *bs;

    if (!m->o.replaces) {
        return 0;
    }
    bs = job_find_node(&m->job, "replaces", m->o.replaces, errp);
    if (!bs) {
        return -ENOENT;
    }
    if (!filters_reach(bs, m->source)) {
        return block_error(errp, EINVAL, "Job '%s': node '%s' cannot be "
                           "replaced: it is no filter above node '%s'",
                           m->job.id, m->o.replaces, m->o.device);
    }
    m->replaces = bs == m->source ? NULL : bs;
    return 0;
}

static int find_nodes(MirrorJob *m, GError **errp)
{
    int ret = job_find_pair(&m->job, m->o.device, m->o.target, &m->source,
                            &m->target, errp);

    return ret < 0 ? ret : find_replaces(m, errp);
}

/* --- start: the graph ----------------------------------------------------- */

static int coroutine_fn insert_filter(MirrorJob *m, GError **errp)
{
    BlockOptions *options = block_options_new();

    block_options_set_str(options, "driver", "mirror-top");
    block_options_set_str(options, "file", m->o.device);
    block_options_set_str(options, "target", m->o.target);
    if (m->o.filter_node_name) {
        block_options_set_str(options, "node-name", m->o.filter_node_name);
    }
    return bdrv_co_insert_node(m->source, options, &m->filter, errp);
}

void mirror_guard(MirrorJob *m, bool on)
{
    if (m->above_target && m->unguarded == on) {
        edge_set_unguarded(chain_edge(m->above_target), !on);
        m->unguarded = !on;
    }
}

/* What was found may have become another while we waited for requests.  That of
 * a commit will be made fit. */
static int check_again(MirrorJob *m, GError **errp)
{
    return m->above_target ? 0 : job_check_lengths(&m->job, m->source,
                                                   m->target, errp);
}

/* Drained: no guest writes before its writes are noted. */
static int coroutine_fn begin_drained(MirrorJob *m, GError **errp)
{
    unsigned flags = (m->o.unmap ? MIRROR_UNMAP : 0) |
                     (m->above_target ? MIRROR_COMMITS : 0) |
                     (m->o.use_copy_range ? MIRROR_COPY_RANGE : 0);
    int ret = insert_filter(m, errp);

    if (ret < 0) {
        return ret;
    }
    m->top = mirror_top(m->filter);
    ret = check_again(m, errp);
    if (ret == 0) {
        ret = mirror_top_begin(m->top, m->granularity, flags, errp);
    }
    if (ret < 0) {
        mirror_top_give_up(m->top);
        chain_drop_failed_filter(&m->job, m->filter);
        return ret;
    }
    if (m->o.copy_mode + MIRROR_BACKGROUND == MIRROR_WRITE_BLOCKING) {
        mirror_top_set_mode(m->top, MIRROR_WRITE_BLOCKING);
    }
    bdrv_freeze_child(bdrv_filter_child(m->filter));
    bdrv_freeze_child(m->top->target);
    return 0;
}

static void coroutine_fn unref_nodes(MirrorJob *m)
{
    bdrv_co_unref(m->replaces);
    bdrv_co_unref(m->target);
    bdrv_co_unref(m->source);
}

int coroutine_fn mirror_begin(MirrorJob *m, GError **errp)
{
    int ret;

    bdrv_ref(m->source);
    bdrv_ref(m->target);
    if (m->replaces) {
        bdrv_ref(m->replaces);
    }
    bdrv_co_drained_begin(m->source);
    ret = begin_drained(m, errp);
    bdrv_drained_end(m->source);
    if (ret < 0) {
        unref_nodes(m);
    }
    return ret;
}

static int coroutine_fn mirror_start(BlockJob *job, BlockOptions *options,
                                     GError **errp)
{
    MirrorJob *m = mirror_of(job);
    int ret = job_take_options(job, options, mirror_options, &m->o, errp);

    if (ret < 0) {
        return ret;
    }
    ret = find_nodes(m, errp);
    if (ret == 0) {
        ret = mirror_choose_sizes(m, errp);
    }
    if (ret == 0) {
        ret = mirror_begin(m, errp);
    }
    if (ret < 0) {
        block_options_clear(mirror_options, &m->o);
    }
    return ret;
}

/* --- the work, and verbs -------------------------------------------------- */

static int coroutine_fn mirror_run(BlockJob *job, GError **errp)
{
    return mirror_work(mirror_of(job), errp);
}

void mirror_look_progress(BlockJob *job)
{
    job_progress_remaining(job, mirror_top_remaining(mirror_of(job)->top));
}

/* A target that is given up is not to be waited for by guests. */
void mirror_kick(BlockJob *job)
{
    if (job_is_cancelled(job)) {
        mirror_top_set_mode(mirror_of(job)->top, MIRROR_OFF);
        drain_kick(job->graph); /* take_effect() may wait for the target */
    }
}

static void end_with(MirrorJob *m, MirrorEnd end)
{
    m->end = end;
    mirror_top_set_mode(m->top, MIRROR_FINISHING);
}

int mirror_complete(BlockJob *job, GError **errp)
{
    MirrorJob *m = mirror_of(job);

    if (m->end == MIRROR_END_COPY) {
        return block_error(errp, EBUSY, "Job '%s' is being cancelled", job->id);
    }
    end_with(m, MIRROR_END_PIVOT);
    return 0;
}

/* As long as run() has not ended, one may change one's mind. */
bool mirror_soft_cancel(BlockJob *job)
{
    end_with(mirror_of(job), MIRROR_END_COPY);
    return true;
}

static int mirror_change(BlockJob *job, BlockOptions *options, GError **errp)
{
    MirrorJob *m = mirror_of(job);
    MirrorChange change;
    int ret = job_take_options(job, options, change_options, &change, errp);
    int mode;

    block_options_free(options);
    if (ret < 0) {
        return ret;
    }
    if (job_is_cancelled(job)) {
        return block_error(errp, EBUSY, "Job '%s' is being cancelled", job->id);
    }
    mode = change.copy_mode + MIRROR_BACKGROUND;
    if (mode == MIRROR_BACKGROUND &&
        atomic_load(&m->top->mode) != MIRROR_BACKGROUND) {
        return block_error(errp, EINVAL, "Job '%s': copy-mode cannot be "
                           "changed from 'write-blocking' to 'background'",
                           job->id);
    }
    if (mode > atomic_load(&m->top->mode)) {
        mirror_top_set_mode(m->top, mode);
    }
    return 0;
}

/* --- the end -------------------------------------------------------------- */

/* The node that goes when the target comes. */
static BlockDriverState *replaced(const MirrorJob *m)
{
    return m->replaces ? m->replaces : m->filter;
}

static int was_cancelled(MirrorJob *m, GError **errp)
{
    return block_error(errp, ECANCELED, "Job '%s' was cancelled", m->job.id);
}

/* Drained, the target is about to come: it is too late to cancel from here on,
 * and not before.  What was looked at before may be another, if the change had
 * to wait.  -EAGAIN: it has to be put off. */
static int may_switch(void *opaque, GError **errp)
{
    MirrorJob *m = opaque;

    if ((!SIM_PLANTED(37) && !mirror_work_is_over(m)) ||
        chain_is_held_above(replaced(m))) {
        return block_error(errp, EAGAIN, "Job '%s': node '%s' cannot go yet",
                           m->job.id, bdrv_node_name(replaced(m)));
    }
    if (!filters_reach(replaced(m), m->source)) {
        return block_error(errp, EBUSY, "Job '%s': node '%s' is not above node "
                           "'%s' any more", m->job.id, m->o.replaces,
                           m->o.device);
    }
    if (!job_txn_close(&m->job)) {
        return was_cancelled(m, errp);
    }
    mirror_guard(m, true);
    return 0;
}

/* Above the target of a commit are the layers that hid what we wrote to it.
 * They do not hide what its new users do: whoever looks at them objects.  Not
 * before the change: others may have to undo one, and would find our writes
 * forbidden. */
static int coroutine_fn switch_drained(MirrorJob *m, GError **errp)
{
    GError *why = NULL;
    int ret;

    ret = mirror_top_replace(m->top, replaced(m), may_switch, m, &why);
    m->switched = ret == 0;
    if (ret < 0) {
        mirror_guard(m, false);
    }
    if (ret == -EAGAIN) {
        g_error_free(why);
        return 1;
    }
    if (ret < 0) {
        g_propagate_error(errp, why);
    }
    return ret;
}

/* E1.  Nobody writes any more. */
static int coroutine_fn take_effect_drained(MirrorJob *m, GError **errp)
{
    int ret = 0;

    SIM_POINT("mirror.effect", m->job.id);
    if (m->end == MIRROR_END_PIVOT) {
        ret = switch_drained(m, errp);
    } else if (chain_is_held_above(m->filter)) {
        ret = 1;
    } else if (!job_txn_close(&m->job)) {
        ret = was_cancelled(m, errp);
    }
    if (ret == 0) {
        mirror_top_set_mode(m->top, MIRROR_OFF);
    }
    return ret;
}

/* What is drained: a switch waits for readers of the target, too. */
static BlockDriverState *drained(const MirrorJob *m)
{
    return m->end == MIRROR_END_PIVOT ? m->target : m->filter;
}

/* Returns 0, 1 if there is something left to be copied or to be waited for, or
 * the error. */
static int coroutine_fn take_effect(MirrorJob *m, GError **errp)
{
    bool over = SIM_PLANTED(37) && mirror_work_is_over(m);
    int ret;

    /* Whoever hangs at the target holds up guests no longer than the job. */
    if (!drain_begin_unless(drained(m), &m->job.cancelled)) {
        return was_cancelled(m, errp);
    }
    over = over || mirror_work_is_over(m);
    ret = over ? take_effect_drained(m, errp) : 1;
    bdrv_drained_end(drained(m));
    return ret;
}

int coroutine_fn mirror_prepare(BlockJob *job, GError **errp)
{
    MirrorJob *m = mirror_of(job);
    BlockDriverState *goes = m->end == MIRROR_END_PIVOT ? replaced(m)
                                                        : m->filter;
    int ret;

    do {
        if (!chain_wait_above(job, goes)) {
            return was_cancelled(m, errp);
        }
        ret = mirror_work_rest(m, errp);                        /* E2 */
        ret = ret < 0 ? ret : take_effect(m, errp);
    } while (ret > 0);
    return ret;
}

void coroutine_fn mirror_commit(BlockJob *job)
{
    mirror_look_progress(job);
}

void coroutine_fn mirror_abort(BlockJob *job)
{
    mirror_top_set_mode(mirror_of(job)->top, MIRROR_OFF);
}

void coroutine_fn mirror_clean(BlockJob *job)
{
    MirrorJob *m = mirror_of(job);

    /* Not inside a change of the graph: a target that hangs would hold all. */
    mirror_top_settle(m->top);
    bdrv_unfreeze_child(m->top->target);
    bdrv_unfreeze_child(bdrv_filter_child(m->filter));
    chain_drop_filter(&m->job, m->filter);
    bdrv_co_unref(m->filter);
    mirror_guard(m, true);
    unref_nodes(m);
    block_options_clear(mirror_options, &m->o);
}

const JobDriver job_driver_mirror = {
    .instance_size = sizeof(MirrorJob),
    .type = BLOCK_JOB_MIRROR,
    .options = mirror_options,
    .start = mirror_start,
    .run = mirror_run,
    .prepare = mirror_prepare,
    .commit = mirror_commit,
    .abort = mirror_abort,
    .clean = mirror_clean,
    .kick = mirror_kick,
    .look = mirror_look_progress,
    .complete = mirror_complete,
    .soft_cancel = mirror_soft_cancel,
    .change = mirror_change,
};
