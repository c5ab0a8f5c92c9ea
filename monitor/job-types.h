/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What commands about jobs and transactions share.
 */
#ifndef MONITOR_JOB_TYPES_H
#define MONITOR_JOB_TYPES_H

#include "monitor/qmp-type.h"

G_BEGIN_DECLS

/** The arguments of blockdev-backup. */
extern const QmpType qmp_backup_args;

/** Change @args, those of blockdev-backup, to options of the job. */
void qmp_backup_options(json_t *args);

/** The arguments of the commands about dirty bitmaps. */
extern const QmpType qmp_bitmap_args, qmp_bitmap_add_args;
extern const QmpType qmp_bitmap_merge_args;

/** The arguments of blockdev-snapshot-internal-sync. */
extern const QmpType qmp_snapshot_args;

/** Change @args, those, to options of the action: of this moment. */
void qmp_snapshot_options(json_t *args);

/** Types of jobs, their states, and whether one has failed. */
extern const QmpType qmp_job_type, qmp_job_status, qmp_job_io_status;

G_END_DECLS

#endif /* MONITOR_JOB_TYPES_H */
