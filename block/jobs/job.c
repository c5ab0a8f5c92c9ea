/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Jobs: life, verbs, listeners.
 */
#include "block/jobs/job.h"

#include <errno.h>
#include <string.h>

#include "block/graph/graph-int.h"

/* Somebody who wants to know. */
typedef struct JobListener {
    ListHead link; /* in graph->job_listeners */
    BlockJobListener *func; /* NULL: removed while somebody is told */
    void *opaque;
} JobListener;

typedef struct JobOptions {
    char *id;
    int64_t speed;
    bool auto_finalize;
    bool auto_dismiss;
} JobOptions;

#define OPT(field) offsetof(JobOptions, field)

const BlockOption block_job_common_options[] = {
    { .name = "job-id", .type = BLOCK_OPTION_STRING, .offset = OPT(id),
      .help = "name of the job; default: that of its node" },
    { .name = "speed", .type = BLOCK_OPTION_SIZE, .def = "0",
      .max = THROTTLE_VALUE_MAX, .offset = OPT(speed),
      .help = "bytes a second; 0: no limit" },
    { .name = "auto-finalize", .type = BLOCK_OPTION_BOOL, .def = "on",
      .offset = OPT(auto_finalize),
      .help = "take effect without being told" },
    { .name = "auto-dismiss", .type = BLOCK_OPTION_BOOL, .def = "on",
      .offset = OPT(auto_dismiss), .help = "be forgotten when over" },
    { .type = BLOCK_OPTION_END },
};

/* --- listeners and states ------------------------------------------------- */

void block_job_add_listener(BlockGraph *graph, BlockJobListener *listener,
                            void *opaque)
{
    JobListener *entry = g_new0(JobListener, 1);

    entry->func = listener;
    entry->opaque = opaque;
    list_append(&graph->job_listeners, &entry->link);
}

/* Not while somebody goes through the list. */
static void free_dead_listeners(BlockGraph *graph)
{
    if (graph->job_tellers > 0) {
        return;
    }
    LIST_FOREACH_SAFE(link, &graph->job_listeners) {
        JobListener *entry = LIST_ENTRY(link, JobListener, link);

        if (!entry->func) {
            list_remove(link);
            g_free(entry);
        }
    }
}

void block_job_remove_listener(BlockGraph *graph, BlockJobListener *listener,
                               void *opaque)
{
    LIST_FOREACH_SAFE(link, &graph->job_listeners) {
        JobListener *entry = LIST_ENTRY(link, JobListener, link);

        if (entry->func == listener && entry->opaque == opaque) {
            entry->func = NULL;
            free_dead_listeners(graph);
            return;
        }
    }
}

void job_tell(const BlockJobEvent *event)
{
    BlockGraph *graph = event->job->graph;

    graph->job_tellers++;
    LIST_FOREACH(link, &graph->job_listeners) {
        JobListener *entry = LIST_ENTRY(link, JobListener, link);

        if (entry->func) {
            entry->func(event, entry->opaque);
        }
    }
    graph->job_tellers--;
    free_dead_listeners(graph);
}

void job_set_status(BlockJob *job, BlockJobStatus status)
{
    BlockJobEvent event = { .type = BLOCK_JOB_EVENT_STATUS_CHANGE,
                            .job = job };

    g_assert(block_job_status_may_follow(job->status, status));     /* J1 */
    job->status = status;
    job_tell(&event);
}

/* --- looking -------------------------------------------------------------- */

BlockJob *block_job_next(BlockGraph *graph, BlockJob *job)
{
    ListHead *link = job ? job->link.next : graph->jobs.next;

    return link == &graph->jobs ? NULL : LIST_ENTRY(link, BlockJob, link);
}

BlockJob *block_job_find(BlockGraph *graph, const char *id)
{
    BlockJob *job = NULL;

    while ((job = block_job_next(graph, job)) && !g_str_equal(job->id, id)) {
        continue;
    }
    return job;
}

BlockJob *block_job_ref(BlockJob *job)
{
    job->refs++;
    return job;
}

void block_job_unref(BlockJob *job)
{
    if (!job || --job->refs > 0) {
        return;
    }
    g_assert(!job->txn && !job->grace);
    g_clear_error(&job->error);
    g_free(job->id);
    g_free(job);
}

void block_job_query(BlockJob *job, BlockJobInfo *info)
{
    if (job->started && !job->run_over && job->drv->look) {
        job->drv->look(job);
    }
    *info = (BlockJobInfo){
        .id = job->id,
        .type = job->drv->type,
        .status = job->status,
        .io_status = job->io_status,
        .current_progress = job->current_progress,
        .total_progress = job->total_progress,
        .speed = job->speed,
        .user_paused = job->user_paused,
        .cancelled = job->cancelled,
        .auto_finalize = job->auto_finalize,
        .auto_dismiss = job->auto_dismiss,
        .ret = job->ret,
        .error = job->error ? job->error->message : NULL,
    };
}

/* --- begin ---------------------------------------------------------------- */

static bool id_is_wellformed(const char *id)
{
    size_t length = strlen(id);

    return length >= 1 && length <= BDRV_NODE_NAME_MAX &&
           g_ascii_isalpha(id[0]) &&
           strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                      "0123456789-._") == length;
}

/* The id that @o and @options name; NULL with @errp: none that will do. */
static char *choose_id(BlockGraph *graph, const JobOptions *o,
                       const BlockOptions *options, GError **errp)
{
    const char *id = o->id ? o->id : block_options_peek_str(options, "device");

    if (!id) {
        block_error(errp, EINVAL, "A job needs the option 'device'");
        return NULL;
    }
    if (!id_is_wellformed(id)) {
        block_error(errp, EINVAL, "'%s' is no job-id: 1 to %d letters, digits, "
                    "'-', '.' and '_', first a letter", id,
                    BDRV_NODE_NAME_MAX);
        return NULL;
    }
    if (block_job_find(graph, id)) {
        block_error(errp, EEXIST, "Job '%s' exists already", id);
        return NULL;
    }
    return g_strdup(id);
}

static void set_limit(BlockJob *job, int64_t speed)
{
    ThrottleConfig config = { 0 };

    job->speed = speed;
    config.limits[THROTTLE_BPS_TOTAL].avg = speed;
    throttle_configure(&job->limit, &config, aio_clock_ns(job->graph->ctx));
}

static BlockJob *job_new(BlockGraph *graph, const JobDriver *drv,
                         BlockOptions *options, GError **errp)
{
    g_autofree char *what = g_strdup_printf("Job (type '%s')",
                                            block_job_type_names[drv->type]);
    BlockJob *job = NULL;
    JobOptions o;
    char *id;

    if (block_options_absorb(options, block_job_common_options, &o, what,
                             errp) < 0) {
        return NULL;
    }
    id = choose_id(graph, &o, options, errp);
    if (id) {
        job = g_malloc0(drv->instance_size);
        job->drv = drv;
        job->graph = graph;
        job->id = id;
        job->auto_finalize = o.auto_finalize;
        job->auto_dismiss = o.auto_dismiss;
        job->refs = 2; /* the list's, the caller's */
        co_queue_init(&job->kicked);
        co_queue_init(&job->changed);
        set_limit(job, o.speed);
        list_append(&graph->jobs, &job->link);
    }
    block_options_clear(block_job_common_options, &o);
    return job;
}

/* Nobody finds the job any more. */
static void forget(BlockJob *job)
{
    job_set_status(job, BLOCK_JOB_NULL);
    list_remove(&job->link);
    block_job_unref(job);
}

BlockJob *coroutine_fn job_co_new(BlockGraph *graph, const JobDriver *kind,
                                  BlockOptions *options, JobTxn *txn,
                                  GError **errp)
{
    const JobDriver *drv = kind->choose ? kind->choose(graph, options) : kind;
    BlockJob *job = job_new(graph, drv, options, errp);
    BlockJobEvent event = { .type = BLOCK_JOB_EVENT_STATUS_CHANGE,
                            .job = job };
    int ret;

    if (!job) {
        block_options_free(options);
        return NULL;
    }
    job_tell(&event);
    job_txn_add(txn, job);
    ret = drv->start(job, options, errp);
    block_options_free(options);
    if (ret < 0) {
        job_txn_remove(txn, job);
        forget(job);
        block_job_unref(job);
        return NULL;
    }
    job->started = true;
    return job;
}

void coroutine_fn job_co_discard(BlockJob *job)
{
    job->run_over = true;
    if (job->drv->abort) {
        job->drv->abort(job);
    }
    job->drv->clean(job);
    job_txn_remove(job->txn, job);
    forget(job);
}

/* run() has returned @ret. */
static void run_is_over(BlockJob *job, int ret, GError *error)
{
    aio_timer_free(job->grace);
    job->grace = NULL;
    if (job->started && job->drv->look) {
        job->drv->look(job); /* the last time */
    }
    job->run_over = true;
    co_queue_restart_all(&job->changed);
    if (job->ended) { /* J4: nobody waits for the result */
        g_clear_error(&error);
        return;
    }
    if (job->cancelled) {
        g_clear_error(&error);
        ret = -ECANCELED;
    }
    job->error = error;
    job_txn_ended(job, ret);
}

static void coroutine_fn job_entry(void *opaque)
{
    BlockJob *job = opaque;
    GError *error = NULL;
    int ret = 0;

    /* Its time may be over already, if nothing has run for long (J4). */
    if (!job->ended) {
        job_set_status(job, BLOCK_JOB_RUNNING);
        job_pause_point(job);
    }
    if (!job_is_cancelled(job)) {
        ret = job->drv->run(job, &error);
    }
    run_is_over(job, ret, error);
    block_job_unref(job);
}

void job_launch(BlockJob *job)
{
    job->launched = true;
    block_job_ref(job);
    aio_co_schedule(job->graph->ctx, coroutine_create(job_entry, job));
}

BlockJob *coroutine_fn block_co_job_start(BlockGraph *graph,
                                          BlockJobType type,
                                          BlockOptions *options,
                                          GError **errp)
{
    JobTxn *txn = job_txn_new(graph);
    BlockJob *job = job_co_new(graph, job_drivers[type], options, txn, errp);

    if (job) {
        job_launch(job);
    }
    job_txn_unref(txn);
    return job;
}

/* --- end ------------------------------------------------------------------ */

void job_conclude(BlockJob *job)
{
    BlockJobEvent event = {
        .type = job->ret == -ECANCELED ? BLOCK_JOB_EVENT_CANCELLED
                                       : BLOCK_JOB_EVENT_COMPLETED,
        .job = job,
    };

    job_tell(&event);
    job_set_status(job, BLOCK_JOB_CONCLUDED);
    co_queue_restart_all(&job->changed);
    if (job->auto_dismiss) {
        forget(job);
    }
}

/* J4: run() or prepare() had its time. */
static void give_up(void *opaque)
{
    BlockJob *job = opaque;

    aio_timer_free(job->grace);
    job->grace = NULL;
    if (job->preparing) {
        job->prepare_given_up = true;
        co_queue_restart_all(&job->changed);
    } else {
        job_txn_ended(job, -ECANCELED);
    }
}

static void start_grace(BlockJob *job)
{
    job->grace = aio_timer_new(job->graph->ctx, give_up, job);
    aio_timer_set(job->grace, aio_clock_ns(job->graph->ctx) + JOB_GRACE_NS);
    job_kick(job);
}

static void end_user_pause(BlockJob *job)
{
    if (job->user_paused) {
        job->user_paused = false;
        job->holds--;
    }
    job->io_status = BLOCK_JOB_IO_OK;
}

void job_cancel_hard(BlockJob *job)
{
    if (job->cancelled) {
        return;
    }
    job->cancelled = true;
    end_user_pause(job);
    if (job->ended) {
        job_txn_cancelled(job);
        if (job->preparing) {
            start_grace(job);
        }
    } else if (job->launched) { /* else it will not begin */
        start_grace(job);
    }
}

void job_kick(BlockJob *job)
{
    co_sleep_wake(&job->sleep);
    co_queue_restart_all(&job->kicked);
    if (job->started && (!job->run_over || job->preparing) && job->drv->kick) {
        job->drv->kick(job);
    }
}

/* --- verbs ---------------------------------------------------------------- */

static int check_verb(const BlockJob *job, BlockJobVerb verb, GError **errp)
{
    if (block_job_verb_allowed(verb, job->status)) {
        return 0;
    }
    return block_error(errp, EPERM, "Job '%s' in state '%s' cannot accept "
                       "command verb '%s'", job->id,
                       block_job_status_names[job->status],
                       block_job_verb_names[verb]);
}

int block_job_cancel(BlockJob *job, bool force, GError **errp)
{
    bool ready = job->status == BLOCK_JOB_READY ||
                 job->status == BLOCK_JOB_STANDBY;
    int ret = check_verb(job, BLOCK_JOB_CANCEL, errp);

    if (ret < 0) {
        return ret;
    }
    if (job_txn_is_final(job->txn)) {
        return job_txn_hurry(job->txn)
                   ? 0
                   : block_error(errp, EPERM, "Job '%s' takes effect already: "
                                 "it is too late to cancel it", job->id);
    }
    if (!force && ready && !job->cancelled && job->drv->soft_cancel &&
        job->drv->soft_cancel(job)) {
        end_user_pause(job);
        job_kick(job);
        return 0;
    }
    job_cancel_hard(job);
    return 0;
}

int block_job_pause(BlockJob *job, GError **errp)
{
    int ret = check_verb(job, BLOCK_JOB_PAUSE, errp);

    if (ret < 0) {
        return ret;
    }
    if (job->user_paused) {
        return block_error(errp, EPERM, "Job '%s' is paused already", job->id);
    }
    job->user_paused = true;
    block_job_hold(job);
    return 0;
}

int block_job_resume(BlockJob *job, GError **errp)
{
    int ret = check_verb(job, BLOCK_JOB_RESUME, errp);

    if (ret < 0) {
        return ret;
    }
    if (!job->user_paused) {
        return block_error(errp, EPERM, "Job '%s' was not paused", job->id);
    }
    end_user_pause(job);
    job_kick(job);
    return 0;
}

int block_job_set_speed(BlockJob *job, int64_t speed, GError **errp)
{
    int ret = check_verb(job, BLOCK_JOB_SET_SPEED, errp);

    if (ret < 0) {
        return ret;
    }
    if (speed < 0 || speed > THROTTLE_VALUE_MAX) {
        return block_error(errp, EINVAL, "Job '%s': speed must be from 0 to %"
                           G_GINT64_FORMAT " bytes a second, not %"
                           G_GINT64_FORMAT, job->id, THROTTLE_VALUE_MAX,
                           speed);
    }
    set_limit(job, speed);
    job_kick(job);
    return 0;
}

int block_job_complete(BlockJob *job, GError **errp)
{
    int ret = check_verb(job, BLOCK_JOB_COMPLETE, errp);

    if (ret < 0) {
        return ret;
    }
    if (!job->drv->complete || job->cancelled || job->holds > 0) {
        return block_error(errp, EBUSY, "Job '%s' cannot be completed now",
                           job->id);
    }
    ret = job->drv->complete(job, errp);
    if (ret == 0) {
        job_kick(job);
    }
    return ret;
}

int block_job_finalize(BlockJob *job, GError **errp)
{
    int ret = check_verb(job, BLOCK_JOB_FINALIZE, errp);

    if (ret == 0) {
        job_txn_finalize(job->txn);
    }
    return ret;
}

int block_job_dismiss(BlockJob *job, GError **errp)
{
    int ret = check_verb(job, BLOCK_JOB_DISMISS, errp);

    if (ret == 0) {
        forget(job);
    }
    return ret;
}

int block_job_change(BlockJob *job, BlockOptions *options, GError **errp)
{
    int ret = check_verb(job, BLOCK_JOB_CHANGE, errp);

    if (ret == 0 && !job->drv->change) {
        ret = block_error(errp, ENOTSUP, "Job '%s' (type '%s') has nothing "
                          "that can be changed", job->id,
                          block_job_type_names[job->drv->type]);
    }
    if (ret < 0) {
        block_options_free(options);
        return ret;
    }
    return job->drv->change(job, options, errp);
}

void block_job_hold(BlockJob *job)
{
    job->holds++;
    job_kick(job);
}

void block_job_release(BlockJob *job)
{
    g_assert(job->holds > job->user_paused);
    job->holds--;
    job_kick(job);
}

int coroutine_fn block_co_job_wait(BlockJob *job, GError **errp)
{
    while (job->status < BLOCK_JOB_CONCLUDED) {
        SIM_WAITS("the end of job", job->id);
        co_queue_wait(&job->changed, NULL);
    }
    if (job->ret < 0 && job->error) {
        g_propagate_error(errp, g_error_copy(job->error));
    } else if (job->ret < 0) {
        block_error(errp, -job->ret, "Job '%s' was cancelled", job->id);
    }
    return job->ret;
}
