/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The backup job: a point in time of a node is copied to another one.
 */
#include "block/jobs/backup.h"

#include <errno.h>

#include "block/filters/copy-before-write.h"
#include "block/graph/graph-int.h"
#include "block/graph/transaction.h"
#include "block/jobs/chain.h"

#define RETRY_NS (INT64_C(100) * 1000 * 1000)

static const char *const sync_names[] = {
    [BACKUP_SYNC_FULL] = "full",
    [BACKUP_SYNC_TOP] = "top",
    [BACKUP_SYNC_NONE] = "none",
    [BACKUP_SYNC_INCREMENTAL] = "incremental",
    [BACKUP_SYNC_BITMAP] = "bitmap",
    NULL,
};

static const char *const bitmap_mode_names[] = {
    [BACKUP_BITMAP_ON_SUCCESS] = "on-success",
    [BACKUP_BITMAP_NEVER] = "never",
    [BACKUP_BITMAP_ALWAYS] = "always",
    [BACKUP_BITMAP_UNSET] = "unset",
    NULL,
};

#define OPT(field) offsetof(BackupOptions, field)

static const BlockOption backup_options[] = {
    { .name = "device", .type = BLOCK_OPTION_STRING, .required = true,
      .offset = OPT(device), .help = "node that is copied" },
    { .name = "target", .type = BLOCK_OPTION_STRING, .required = true,
      .offset = OPT(target), .help = "node that it is copied to" },
    { .name = "sync", .type = BLOCK_OPTION_ENUM, .required = true,
      .values = sync_names, .offset = OPT(sync), .help = "what is copied" },
    { .name = "bitmap", .type = BLOCK_OPTION_STRING, .offset = OPT(bitmap),
      .help = "dirty bitmap of the node that says what to copy" },
    { .name = "bitmap-mode", .type = BLOCK_OPTION_ENUM, .def = "unset",
      .values = bitmap_mode_names, .offset = OPT(bitmap_mode),
      .help = "when the bitmap begins anew" },
    { .name = "resume-bitmap", .type = BLOCK_OPTION_STRING,
      .offset = OPT(resume_bitmap),
      .help = "bitmap that keeps what is missing after an interruption" },
    { .name = "on-source-error", .type = BLOCK_OPTION_ENUM, .def = "report",
      .values = job_on_error_names, .offset = OPT(on_source_error),
      .help = "what to do when the node cannot be read" },
    { .name = "on-target-error", .type = BLOCK_OPTION_ENUM, .def = "report",
      .values = job_on_error_names, .offset = OPT(on_target_error),
      .help = "what to do when the target cannot be written" },
    { .name = "max-workers", .type = BLOCK_OPTION_NUMBER, .def = "16",
      .min = 1, .max = BLOCK_COPY_WORKERS_MAX, .offset = OPT(max_workers),
      .help = "most copies at once" },
    { .name = "max-chunk", .type = BLOCK_OPTION_SIZE, .def = "0",
      .max = INT64_C(1) << 40, .offset = OPT(max_chunk),
      .help = "bytes of one copy, at least a cluster; 0: the job's choice" },
    { .name = "filter-node-name", .type = BLOCK_OPTION_STRING,
      .offset = OPT(filter_node_name),
      .help = "name of the copy-before-write node" },
    { .type = BLOCK_OPTION_END },
};

/* What goes on to the filter, and is checked there. */
static const char *const filter_keys[] = {
    "compress", "discard-source", "use-copy-range", "min-cluster-size",
    "staging-size", "on-cbw-error", "cbw-timeout",
};

static BackupJob *backup_of(BlockJob *job)
{
    return (BackupJob *)job;
}

/* --- start ---------------------------------------------------------------- */

/* Take the options of the filter out of @options. */
static BlockOptions *take_filter_options(BlockOptions *options)
{
    g_autoptr(BlockOptions) rest = block_options_clone(options);
    BlockOptions *filter = block_options_clone(options);
    g_auto(GStrv) keys = block_options_keys(rest);

    for (char **key = keys; *key; key++) {
        bool of_filter = false;

        for (size_t i = 0; i < G_N_ELEMENTS(filter_keys); i++) {
            of_filter = of_filter || g_str_equal(*key, filter_keys[i]);
        }
        block_options_remove(of_filter ? options : filter, *key);
    }
    return filter;
}

static int take_options(BackupJob *b, BlockOptions *options, GError **errp)
{
    g_autoptr(BlockOptions) filter = take_filter_options(options);
    int ret = job_take_options(&b->job, options, backup_options, &b->o, errp);

    if (ret < 0) {
        return ret;
    }
    block_options_set_str(filter, "driver", "copy-before-write");
    block_options_set_str(filter, "file", b->o.device);
    block_options_set_str(filter, "target", b->o.target);
    if (b->o.filter_node_name) {
        block_options_set_str(filter, "node-name", b->o.filter_node_name);
    }
    b->o.filter = g_steal_pointer(&filter);
    return 0;
}

static void clear_options(BackupJob *b)
{
    block_options_free(b->o.filter);
    block_options_clear(backup_options, &b->o);
}

static int check_chunk(BackupJob *b, GError **errp)
{
    int64_t cluster = block_copy_cluster_bytes(b->copy);

    if (b->o.max_chunk > 0 && b->o.max_chunk < cluster) {
        return block_error(errp, EINVAL, "Job '%s': max-chunk (%"
                           G_GINT64_FORMAT ") must be at least the size of a "
                           "cluster (%" G_GINT64_FORMAT ")", b->job.id,
                           b->o.max_chunk, cluster);
    }
    return 0;
}

/* Users that the disk gets later come to the filter, or not at all. */
static int keep_writers_out(BackupJob *b, GError **errp)
{
    Transaction *txn = transaction_new();

    cbw_guard_source(b->cbw, true);
    return transaction_end(txn, perm_refresh_one(b->cbw, txn, errp));
}

/* The filter comes in; drained, so nothing has changed before the bitmaps. */
static int coroutine_fn insert_filter(BackupJob *b, GError **errp)
{
    int ret;

    ret = bdrv_co_insert_node(b->source, g_steal_pointer(&b->o.filter),
                              &b->cbw, errp);
    if (ret < 0) {
        return ret;
    }
    /* At once: nobody is to come between, or move it to another node. */
    bdrv_freeze_child(bdrv_filter_child(b->cbw));
    b->copy = cbw_block_copy(b->cbw);
    b->work = cbw_node(b->cbw)->work;
    /* It may have become another while we waited for requests. */
    ret = job_check_lengths(&b->job, b->source, b->target, errp);
    if (ret == 0) {
        ret = keep_writers_out(b, errp);
    }
    if (ret == 0) {
        ret = check_chunk(b, errp);
    }
    if (ret == 0) {
        ret = backup_begin_bitmaps(b, errp);
    }
    if (ret < 0) {
        bdrv_unfreeze_child(bdrv_filter_child(b->cbw));
        cbw_guard_source(b->cbw, false);
        cbw_give_up(b->cbw);
        chain_drop_failed_filter(&b->job, b->cbw);
    }
    return ret;
}

static int coroutine_fn begin(BackupJob *b, GError **errp)
{
    int ret;

    bdrv_ref(b->source);
    bdrv_ref(b->target);
    bdrv_co_drained_begin(b->source);
    ret = backup_check_bitmaps(b, errp);
    if (ret == 0) {
        ret = insert_filter(b, errp);
    }
    bdrv_drained_end(b->source);
    if (ret < 0) {
        bdrv_co_unref(b->target);
        bdrv_co_unref(b->source);
        return ret;
    }
    block_copy_set_skip_unallocated(b->copy, b->o.sync == BACKUP_SYNC_TOP);
    block_copy_set_speed(b->copy, b->job.speed);
    copy_window_init(&b->window, b->o.max_workers);
    job_progress_grow(&b->job, block_copy_progress(b->copy).remaining_bytes);
    return 0;
}

static int coroutine_fn backup_start(BlockJob *job, BlockOptions *options,
                                     GError **errp)
{
    BackupJob *b = backup_of(job);
    int ret = take_options(b, options, errp);

    if (ret < 0) {
        return ret;
    }
    ret = job_find_pair(job, b->o.device, b->o.target, &b->source, &b->target,
                        errp);
    if (ret == 0) {
        ret = begin(b, errp);
    }
    if (ret < 0) {
        clear_options(b);
    }
    return ret;
}

/* --- the work ------------------------------------------------------------- */

static void call_is_over(void *opaque)
{
    job_kick(opaque);
}

/*
 * Copy until all is, or something stops it: a hold, a cancellation, a drained
 * section.  Returns 0, 1 if there is more to do, or the error.
 */
static int coroutine_fn copy_round(BackupJob *b, bool *read_failed)
{
    BlockCopyHow how = {
        .bytes = block_copy_length(b->copy),
        .window = &b->window,
        .max_chunk = b->o.max_chunk,
        .look = true,
    };
    unsigned ticket = bdrv_co_work_begin(b->work);
    int ret;

    b->call = block_copy_async(b->copy, &how, call_is_over, &b->job);
    bdrv_work_end(b->work, ticket);
    if (job_should_stop(&b->job)) {
        block_copy_call_cancel(b->call); /* asked for while the gate was shut */
    }
    while (!block_copy_call_finished(b->call)) {
        job_wait_kick(&b->job);
    }
    ret = block_copy_call_status(b->call, read_failed);
    if (ret == -ECANCELED && block_copy_call_cancelled(b->call)) {
        ret = 1;
    }
    block_copy_call_free(g_steal_pointer(&b->call));
    return ret;
}

/* What is in the target is to stay there. */
static int coroutine_fn flush_target(BackupJob *b)
{
    unsigned ticket = bdrv_co_work_begin(b->work);
    int ret;

    /* What is staged fails for good, or ends. */
    block_copy_wait_tasks(b->copy, 0, block_copy_length(b->copy));
    ret = cbw_snapshot_error(b->cbw);
    if (ret == 0) {
        ret = bdrv_co_flush(b->target);
        b->flush_failed = b->flush_failed || ret < 0;
    }
    bdrv_work_end(b->work, ticket);
    return ret;
}

/* One attempt.  Returns 0: done; 1: there is more to do; or the error. */
static int coroutine_fn attempt(BackupJob *b, bool *read_failed)
{
    int ret = copy_round(b, read_failed);

    if (ret == 0) {
        *read_failed = false;
        ret = flush_target(b);
    }
    return ret;
}

static int failed(BackupJob *b, bool read, int err, GError **errp)
{
    if (cbw_snapshot_error(b->cbw)) {
        return block_error_errno(errp, err, "Job '%s': old content of node "
                                 "'%s' was lost before it was copied",
                                 b->job.id, b->o.device);
    }
    return block_error_errno(errp, err, "Job '%s': could not %s node '%s'",
                             b->job.id, read ? "read" : "write to",
                             read ? b->o.device : b->o.target);
}

static int coroutine_fn copy_all(BackupJob *b, GError **errp)
{
    for (;;) {
        bool read = false;
        int ret;

        job_pause_point(&b->job);
        if (job_is_cancelled(&b->job)) {
            return block_error(errp, ECANCELED, "Job '%s' was cancelled",
                               b->job.id);
        }
        ret = attempt(b, &read);
        if (ret == 0) {
            return 0;
        }
        if (ret > 0) {
            continue;
        }
        if (cbw_snapshot_error(b->cbw) ||
            job_error_action(&b->job, read ? b->o.on_source_error
                                           : b->o.on_target_error,
                             read, -ret) == BLOCK_JOB_ACTION_REPORT) {
            return failed(b, read, -ret, errp);
        }
        /* What has failed is in the copy bitmap again. */
        job_sleep(&b->job, RETRY_NS);
    }
}

/* Guests copy what they change, until somebody has had enough. */
static int coroutine_fn hold_point_in_time(BackupJob *b, GError **errp)
{
    while (!job_is_cancelled(&b->job)) {
        int ret = cbw_snapshot_error(b->cbw);

        if (ret < 0) {
            return failed(b, false, -ret, errp);
        }
        job_pause_point(&b->job);
        job_sleep(&b->job, RETRY_NS);
    }
    return block_error(errp, ECANCELED, "Job '%s' was cancelled", b->job.id);
}

static int coroutine_fn backup_run(BlockJob *job, GError **errp)
{
    BackupJob *b = backup_of(job);

    return b->o.sync == BACKUP_SYNC_NONE ? hold_point_in_time(b, errp)
                                         : copy_all(b, errp);
}

static void backup_kick(BlockJob *job)
{
    BackupJob *b = backup_of(job);

    block_copy_set_speed(b->copy, job->speed);
    if (b->call && job_should_stop(job)) {
        block_copy_call_cancel(b->call);
    } else if (b->call) {
        block_copy_call_kick(b->call);
    }
}

static void backup_look(BlockJob *job)
{
    BackupJob *b = backup_of(job);

    job_progress_remaining(job, block_copy_progress(b->copy).remaining_bytes);
}

/* --- the end -------------------------------------------------------------- */

static bool is_filter_of(BlockJob *job, const void *bs)
{
    return job->drv == &job_driver_backup && backup_of(job)->cbw == bs;
}

/* Not by a job that is newer and ends together with @job: it lets go first. */
static bool is_held_above(BlockJob *job)
{
    LIST_FOREACH(link, &backup_of(job)->cbw->parents) {
        BdrvChild *child = LIST_ENTRY(link, BdrvChild, node_link);

        if (edge_check_thawed(child, NULL) < 0 &&
            !job_txn_any(job, is_filter_of, child->parent)) {
            return true;
        }
    }
    return false;
}

/* The filter cannot go as long as somebody above holds it.  To wait for him
 * after this would be too late to be cancelled. */
static int coroutine_fn backup_prepare(BlockJob *job, GError **errp)
{
    while (is_held_above(job) && !job_is_cancelled(job)) {
        SIM_WAITS("who holds the edge above a filter", job->id);
        co_sleep_ns(RETRY_NS);
    }
    return !job_is_cancelled(job)
               ? 0
               : block_error(errp, ECANCELED, "Job '%s' was cancelled",
                             job->id);
}

static void coroutine_fn backup_commit(BlockJob *job)
{
    backup_look(job);
    backup_commit_bitmaps(backup_of(job));
}

/*
 * What was copied is to stay in the target, if a bitmap says that it need not
 * be copied again.  Nothing is copied any more, so what guests were copying is
 * there or in the copy bitmap when they have ended.
 */
static bool coroutine_fn make_safe(BackupJob *b)
{
    unsigned ticket = bdrv_co_work_begin(b->work);
    int ret;

    block_copy_wait_tasks(b->copy, 0, block_copy_length(b->copy));
    ret = b->flush_failed ? -EIO : bdrv_co_flush(b->target);
    bdrv_work_end(b->work, ticket);
    return ret == 0;
}

static void coroutine_fn backup_abort(BlockJob *job)
{
    BackupJob *b = backup_of(job);
    bool is_safe = false;

    cbw_give_up(b->cbw);
    if (!job->launched) {
        backup_undo_bitmaps(b);
        return;
    }
    if (backup_notes_missing(b)) {
        is_safe = make_safe(b);
    }
    backup_abort_bitmaps(b, is_safe);
}

static void coroutine_fn backup_clean(BlockJob *job)
{
    BackupJob *b = backup_of(job);

    backup_remove_resume(b);
    /* Not inside a change of the graph: a target that hangs would hold all. */
    block_copy_wait_tasks(b->copy, 0, block_copy_length(b->copy));
    bdrv_unfreeze_child(bdrv_filter_child(b->cbw));
    cbw_guard_source(b->cbw, false);
    chain_drop_filter(&b->job, b->cbw);
    bdrv_co_unref(b->cbw);
    bdrv_co_unref(b->target);
    bdrv_co_unref(b->source);
    clear_options(b);
}

const JobDriver job_driver_backup = {
    .instance_size = sizeof(BackupJob),
    .type = BLOCK_JOB_BACKUP,
    .options = backup_options,
    .start = backup_start,
    .run = backup_run,
    .prepare = backup_prepare,
    .commit = backup_commit,
    .abort = backup_abort,
    .clean = backup_clean,
    .kick = backup_kick,
    .look = backup_look,
};
