/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The events.
 */
#include "monitor/qmp-server.h"

#include "monitor/job-types.h"

static const char *const operation_names[] = { "read", "write", NULL };
static const char *const action_names[] = { "ignore", "report", "stop", NULL };
static const char *const cause_names[] = {
    "none", "host-error", "host-qmp-quit", "host-qmp-system-reset",
    "host-signal", "host-ui", "guest-shutdown", "guest-reset", "guest-panic",
    "subsystem-reset", "snapshot-load", NULL,
};
QMP_ENUM_TYPE(operation, "IoOperationType", operation_names);
QMP_ENUM_TYPE(action, "BlockErrorAction", action_names);
QMP_ENUM_TYPE(cause, "ShutdownCause", cause_names);

QMP_OBJECT_TYPE(status_data, "q_obj_JOB_STATUS_CHANGE-arg",
                QMP_NEED("id", qmp_str, NULL),
                QMP_NEED("status", qmp_job_status, NULL));
QMP_OBJECT_TYPE(progress_data, "q_obj_BLOCK_JOB_READY-arg",
                QMP_NEED("type", qmp_job_type, NULL),
                QMP_NEED("device", qmp_str, "id of the job"),
                QMP_NEED("len", qmp_int, NULL),
                QMP_NEED("offset", qmp_int, NULL),
                QMP_NEED("speed", qmp_int, NULL));
QMP_OBJECT_TYPE(completed_data, "q_obj_BLOCK_JOB_COMPLETED-arg",
                QMP_NEED("type", qmp_job_type, NULL),
                QMP_NEED("device", qmp_str, "id of the job"),
                QMP_NEED("len", qmp_int, NULL),
                QMP_NEED("offset", qmp_int, NULL),
                QMP_NEED("speed", qmp_int, NULL),
                QMP_MAY("error", qmp_str, "only if it has failed"));
QMP_OBJECT_TYPE(error_data, "q_obj_BLOCK_JOB_ERROR-arg",
                QMP_NEED("device", qmp_str, "id of the job"),
                QMP_NEED("operation", operation, NULL),
                QMP_NEED("action", action, NULL));
QMP_OBJECT_TYPE(pending_data, "q_obj_BLOCK_JOB_PENDING-arg",
                QMP_NEED("type", qmp_job_type, NULL),
                QMP_NEED("id", qmp_str, NULL));
QMP_OBJECT_TYPE(io_error_data, "q_obj_BLOCK_IO_ERROR-arg",
                QMP_NEED("device", qmp_str, NULL),
                QMP_MAY("node-name", qmp_str, NULL),
                QMP_NEED("operation", operation, NULL),
                QMP_NEED("action", action, NULL),
                QMP_MAY("nospace", qmp_bool, NULL),
                QMP_NEED("reason", qmp_str, "for people"));
QMP_OBJECT_TYPE(corrupted_data, "q_obj_BLOCK_IMAGE_CORRUPTED-arg",
                QMP_NEED("device", qmp_str, NULL),
                QMP_MAY("node-name", qmp_str, NULL),
                QMP_NEED("msg", qmp_str, "for people"),
                QMP_MAY("offset", qmp_int, "in the file of the image"),
                QMP_MAY("size", qmp_int, NULL),
                QMP_NEED("fatal", qmp_bool,
                         "the image is not written any more"));
QMP_OBJECT_TYPE(export_data, "q_obj_BLOCK_EXPORT_DELETED-arg",
                QMP_NEED("id", qmp_str, NULL));
QMP_OBJECT_TYPE(threshold_data, "q_obj_BLOCK_WRITE_THRESHOLD-arg",
                QMP_NEED("node-name", qmp_str, NULL),
                QMP_NEED("amount-exceeded", qmp_int, NULL),
                QMP_NEED("write-threshold", qmp_int, NULL));
QMP_OBJECT_TYPE(shutdown_data, "q_obj_SHUTDOWN-arg",
                QMP_NEED("guest", qmp_bool, NULL),
                QMP_NEED("reason", cause, NULL));

const QmpEvent qmp_events[] = {
    { "JOB_STATUS_CHANGE", &status_data, 0, NULL,
      "A job is in another state" },
    { "BLOCK_JOB_READY", &progress_data, 0, NULL, "A job can be completed" },
    { "BLOCK_JOB_PENDING", &pending_data, 0, NULL,
      "A job waits for job-finalize" },
    { "BLOCK_JOB_COMPLETED", &completed_data, 0, NULL,
      "A job is over, well or with an error" },
    { "BLOCK_JOB_CANCELLED", &progress_data, 0, NULL,
      "A job is over, as it was cancelled" },
    { "BLOCK_JOB_ERROR", &error_data, 0, NULL,
      "A request of a job has failed" },
    { "BLOCK_IO_ERROR", &io_error_data, G_GINT64_CONSTANT(1000000000),
      "node-name", "A request of a client has failed" },
    { "BLOCK_IMAGE_CORRUPTED", &corrupted_data, 0, NULL,
      "The metadata of an image cannot be right" },
    { "BLOCK_EXPORT_DELETED", &export_data, 0, NULL,
      "An export is gone, and its id is free" },
    { "BLOCK_WRITE_THRESHOLD", &threshold_data, 0, NULL,
      "A write went beyond the threshold of a node, which is off now" },
    { "SHUTDOWN", &shutdown_data, 0, NULL, "The daemon is about to end" },
    { .name = NULL },
};
