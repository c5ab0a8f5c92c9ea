/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Verbs and queries of jobs, and their events.
 */
#include "monitor/qmp-server.h"

#include <errno.h>

#include "monitor/job-types.h"
#include "monitor/qmp-json.h"

const QmpType qmp_job_type = { .kind = QMP_ENUM, .name = "JobType",
                               .values = block_job_type_names };
const QmpType qmp_job_status = { .kind = QMP_ENUM, .name = "JobStatus",
                                 .values = block_job_status_names };
const QmpType qmp_job_io_status = { .kind = QMP_ENUM,
                                    .name = "BlockDeviceIoStatus",
                                    .values = block_job_io_status_names };

/* --- verbs ---------------------------------------------------------------- */

QMP_OBJECT_TYPE(id_args, "q_obj_job-arg",
                QMP_NEED("id", qmp_str, "of the job"));
QMP_OBJECT_TYPE(device_args, "q_obj_block-job-arg",
                QMP_NEED("device", qmp_str, "id of the job"));
QMP_OBJECT_TYPE(cancel_args, "q_obj_block-job-cancel-arg",
                QMP_NEED("device", qmp_str, "id of the job"),
                QMP_MAY("force", qmp_bool, "also without a consistent copy"));
QMP_OBJECT_TYPE(speed_args, "q_obj_block-job-set-speed-arg",
                QMP_NEED("device", qmp_str, "id of the job"),
                QMP_NEED("speed", qmp_int, "bytes a second, 0: no limit"));
static const char *const copy_mode_names[] = { "background", "write-blocking",
                                               NULL };
static const char *const change_names[] = { "mirror", NULL };
QMP_ENUM_TYPE(copy_mode, "MirrorCopyMode", copy_mode_names);
QMP_ENUM_TYPE(change_type, "BlockJobChangeType", change_names);
QMP_OBJECT_TYPE(change_args, "BlockJobChangeOptions",
                QMP_NEED("id", qmp_str, "of the job"),
                QMP_NEED("type", change_type, "of the job"),
                QMP_NEED("copy-mode", copy_mode, "of a mirror"));

static BlockJob *find_job(const QmpCall *call, const json_t *args,
                          GError **errp)
{
    BlockJob *job = block_job_find(call->graph, qmp_arg_str(args, "id"));

    if (!job) {
        block_error(errp, ENOENT, "Job not found");
    }
    return job;
}

/* Whether it works on nodes. */
static bool is_block_job(const BlockJobInfo *info)
{
    return info->type != BLOCK_JOB_CREATE;
}

static BlockJob *find_block_job(const QmpCall *call, const char *id,
                                GError **errp)
{
    BlockJob *job = block_job_find(call->graph, id);
    BlockJobInfo info;

    if (job) {
        block_job_query(job, &info);
    }
    if (!job || !is_block_job(&info)) {
        g_autofree char *safe = g_strescape(id, "\"\\");

        g_set_error(errp, QMP_ERROR, QMP_ERROR_DEVICE_NOT_ACTIVE,
                    "Block job '%s' not found", safe);
        return NULL;
    }
    return job;
}

static json_t *job_cancel(const QmpCall *call, json_t *args, GError **errp)
{
    BlockJob *job = find_job(call, args, errp);

    return job ? qmp_done(block_job_cancel(job, true, errp)) : NULL;
}

/* A verb on the job that @args name by "id" or by "device". */
#define JOB_VERB(verb)                                                       \
    static json_t *job_##verb(const QmpCall *call, json_t *args,             \
                              GError **errp)                                 \
    {                                                                        \
        BlockJob *job = find_job(call, args, errp);                          \
                                                                             \
        return job ? qmp_done(block_job_##verb(job, errp)) : NULL;           \
    }
#define BLOCK_JOB_VERB(verb, key)                                            \
    static json_t *old_##verb(const QmpCall *call, json_t *args,             \
                              GError **errp)                                 \
    {                                                                        \
        BlockJob *job = find_block_job(call, qmp_arg_str(args, key), errp);  \
                                                                             \
        return job ? qmp_done(block_job_##verb(job, errp)) : NULL;           \
    }

JOB_VERB(pause)
JOB_VERB(resume)
JOB_VERB(complete)
JOB_VERB(finalize)
JOB_VERB(dismiss)
BLOCK_JOB_VERB(pause, "device")
BLOCK_JOB_VERB(resume, "device")
BLOCK_JOB_VERB(complete, "device")
BLOCK_JOB_VERB(finalize, "id")
BLOCK_JOB_VERB(dismiss, "id")

static json_t *old_cancel(const QmpCall *call, json_t *args, GError **errp)
{
    bool force = qmp_arg_bool(args, "force", false);
    BlockJob *job = find_block_job(call, qmp_arg_str(args, "device"), errp);
    BlockJobInfo info;

    if (!job) {
        return NULL;
    }
    block_job_query(job, &info);
    if (info.user_paused && !force) {
        block_error(errp, EBUSY, "The block job for device '%s' is currently "
                    "paused", info.id);
        return NULL;
    }
    return qmp_done(block_job_cancel(job, force, errp));
}

static json_t *old_set_speed(const QmpCall *call, json_t *args, GError **errp)
{
    BlockJob *job = find_block_job(call, qmp_arg_str(args, "device"), errp);
    int64_t speed = qmp_arg_int(args, "speed", 0);

    if (!job) {
        return NULL;
    }
    if (speed < 0) {
        block_error(errp, EINVAL, "Parameter 'speed' expects a non-negative "
                    "value");
        return NULL;
    }
    return qmp_done(block_job_set_speed(job, speed, errp));
}

static json_t *old_change(const QmpCall *call, json_t *args, GError **errp)
{
    BlockJob *job = find_block_job(call, qmp_arg_str(args, "id"), errp);
    BlockOptions *options;

    if (!job) {
        return NULL;
    }
    options = block_options_new();
    block_options_set_str(options, "copy-mode",
                          qmp_arg_str(args, "copy-mode"));
    return qmp_done(block_job_change(job, options, errp));
}

/* --- queries -------------------------------------------------------------- */

QMP_OBJECT_TYPE(job_info, "JobInfo",
                QMP_NEED("id", qmp_str, NULL),
                QMP_NEED("type", qmp_job_type, NULL),
                QMP_NEED("status", qmp_job_status, NULL),
                QMP_NEED("current-progress", qmp_int, NULL),
                QMP_NEED("total-progress", qmp_int, NULL),
                QMP_MAY("error", qmp_str, NULL));
QMP_ARRAY_TYPE(job_info_list, job_info);

QMP_OBJECT_TYPE(block_job_info, "BlockJobInfo",
                QMP_NEED("type", qmp_job_type, NULL),
                QMP_NEED("device", qmp_str, "id of the job"),
                QMP_NEED("len", qmp_int, NULL),
                QMP_NEED("offset", qmp_int, NULL),
                QMP_NEED("busy", qmp_bool, NULL),
                QMP_NEED("paused", qmp_bool, NULL),
                QMP_NEED("speed", qmp_int, NULL),
                QMP_NEED("io-status", qmp_job_io_status, NULL),
                QMP_NEED("ready", qmp_bool, NULL),
                QMP_NEED("status", qmp_job_status, NULL),
                QMP_NEED("auto-finalize", qmp_bool, NULL),
                QMP_NEED("auto-dismiss", qmp_bool, NULL),
                QMP_MAY("error", qmp_str, NULL));
QMP_ARRAY_TYPE(block_job_info_list, block_job_info);

static void add_error(json_t *json, const BlockJobInfo *info)
{
    if (info->error) {
        json_object_set_new(json, "error", qmp_json_string(info->error));
    } else if (info->ret < 0) {
        json_object_set_new(json, "error", json_string(g_strerror(-info->ret)));
    }
}

static json_t *query_jobs(const QmpCall *call, json_t *args, GError **errp)
{
    json_t *list = json_array();

    for (BlockJob *job = NULL; (job = block_job_next(call->graph, job));) {
        BlockJobInfo info;
        json_t *json;

        block_job_query(job, &info);
        json = json_pack("{s:s, s:s, s:s, s:I, s:I}", "id", info.id, "type",
                         block_job_type_names[info.type], "status",
                         block_job_status_names[info.status],
                         "current-progress", (json_int_t)info.current_progress,
                         "total-progress", (json_int_t)info.total_progress);
        add_error(json, &info);
        json_array_append_new(list, json);
    }
    return list;
}

static json_t *block_job_json(const BlockJobInfo *info)
{
    BlockJobStatus status = info->status;
    bool held = status == BLOCK_JOB_PAUSED || status == BLOCK_JOB_STANDBY;
    bool busy = status == BLOCK_JOB_RUNNING;
    json_t *json = json_pack(
        "{s:s, s:s, s:I, s:I, s:b, s:b, s:I, s:s, s:b, s:s, s:b, s:b}",
        "type", block_job_type_names[info->type], "device", info->id,
        "len", (json_int_t)info->total_progress,
        "offset", (json_int_t)info->current_progress,
        "busy", busy, "paused", info->user_paused || held,
        "speed", (json_int_t)info->speed,
        "io-status", block_job_io_status_names[info->io_status],
        "ready", status == BLOCK_JOB_READY || status == BLOCK_JOB_STANDBY,
        "status", block_job_status_names[status],
        "auto-finalize", info->auto_finalize,
        "auto-dismiss", info->auto_dismiss);

    add_error(json, info);
    return json;
}

static json_t *query_block_jobs(const QmpCall *call, json_t *args,
                                GError **errp)
{
    json_t *list = json_array();

    for (BlockJob *job = NULL; (job = block_job_next(call->graph, job));) {
        BlockJobInfo info;

        block_job_query(job, &info);
        if (is_block_job(&info)) {
            json_array_append_new(list, block_job_json(&info));
        }
    }
    return list;
}

/* --- events --------------------------------------------------------------- */

/* What BLOCK_JOB_READY, _COMPLETED and _CANCELLED have in common. */
static json_t *progress_json(const BlockJobInfo *info)
{
    return json_pack("{s:s, s:s, s:I, s:I, s:I}", "type",
                     block_job_type_names[info->type], "device", info->id,
                     "len", (json_int_t)info->total_progress, "offset",
                     (json_int_t)info->current_progress, "speed",
                     (json_int_t)info->speed);
}

static json_t *error_json(const BlockJobEvent *event, const char *id)
{
    static const char *const actions[] = {
        [BLOCK_JOB_ACTION_REPORT] = "report",
        [BLOCK_JOB_ACTION_IGNORE] = "ignore",
        [BLOCK_JOB_ACTION_STOP] = "stop",
    };

    return json_pack("{s:s, s:s, s:s}", "device", id, "operation",
                     event->read ? "read" : "write", "action",
                     actions[event->action]);
}

static void block_job_event(QmpServer *server, const BlockJobEvent *event,
                            const BlockJobInfo *info)
{
    json_t *data;

    switch (event->type) {
    case BLOCK_JOB_EVENT_STATUS_CHANGE:
        break;
    case BLOCK_JOB_EVENT_READY:
        qmp_server_event(server, "BLOCK_JOB_READY", progress_json(info));
        break;
    case BLOCK_JOB_EVENT_PENDING:
        qmp_server_event(server, "BLOCK_JOB_PENDING",
                         json_pack("{s:s, s:s}", "type",
                                   block_job_type_names[info->type], "id",
                                   info->id));
        break;
    case BLOCK_JOB_EVENT_COMPLETED:
        data = progress_json(info);
        add_error(data, info);
        qmp_server_event(server, "BLOCK_JOB_COMPLETED", data);
        break;
    case BLOCK_JOB_EVENT_CANCELLED:
        qmp_server_event(server, "BLOCK_JOB_CANCELLED", progress_json(info));
        break;
    case BLOCK_JOB_EVENT_ERROR:
        qmp_server_event(server, "BLOCK_JOB_ERROR",
                         error_json(event, info->id));
        break;
    }
}

void qmp_job_listener(const BlockJobEvent *event, void *opaque)
{
    QmpServer *server = opaque;
    BlockJobInfo info;

    block_job_query(event->job, &info);
    if (event->type == BLOCK_JOB_EVENT_STATUS_CHANGE) {
        qmp_server_event(server, "JOB_STATUS_CHANGE",
                         json_pack("{s:s, s:s}", "id", info.id, "status",
                                   block_job_status_names[info.status]));
    } else if (is_block_job(&info)) {
        block_job_event(server, event, &info);
    }
}

const QmpCommand qmp_commands_job[] = {
    { "block-job-set-speed", &speed_args, NULL, old_set_speed,
      "Limit the speed of a job" },
    { "block-job-cancel", &cancel_args, NULL, old_cancel,
      "End a job; a ready mirror ends with a consistent copy" },
    { "block-job-pause", &device_args, NULL, old_pause, "Hold a job" },
    { "block-job-resume", &device_args, NULL, old_resume,
      "Let a job go on that is held, or waits after an error" },
    { "block-job-complete", &device_args, NULL, old_complete,
      "Have a ready job do its last step" },
    { "block-job-finalize", &id_args, NULL, old_finalize,
      "Let a pending job and its transaction take effect" },
    { "block-job-dismiss", &id_args, NULL, old_dismiss,
      "Forget a concluded job" },
    { "block-job-change", &change_args, NULL, old_change,
      "Change a job while it runs" },
    { "job-cancel", &id_args, NULL, job_cancel,
      "End a job without its result" },
    { "job-pause", &id_args, NULL, job_pause, "Hold a job" },
    { "job-resume", &id_args, NULL, job_resume,
      "Let a job go on that is held, or waits after an error" },
    { "job-complete", &id_args, NULL, job_complete,
      "Have a ready job do its last step" },
    { "job-finalize", &id_args, NULL, job_finalize,
      "Let a pending job and its transaction take effect" },
    { "job-dismiss", &id_args, NULL, job_dismiss,
      "Forget a concluded job" },
    { "query-jobs", NULL, &job_info_list, query_jobs, "All jobs" },
    { "query-block-jobs", NULL, &block_job_info_list, query_block_jobs,
      "Jobs that work on nodes, with more about each" },
    { .name = NULL },
};
