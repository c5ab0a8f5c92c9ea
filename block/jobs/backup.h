/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the files of the backup job share.
 *
 * The source gets copy-before-write above it, and the job has block-copy copy
 * what is in its copy bitmap.  Bitmaps of the source that the job works on are
 * frozen at the moment of the backup; their successors have what has changed
 * since.
 *
 *   backup.c          the job
 *   backup-bitmaps.c  what is copied, and what becomes of the bitmaps
 */
#ifndef BLOCK_JOBS_BACKUP_H
#define BLOCK_JOBS_BACKUP_H

#include "block/copy/block-copy.h"
#include "block/jobs/job.h"

#include <blockgraph/dirty-bitmap.h>

/** What is copied. */
typedef enum BackupSync {
    BACKUP_SYNC_FULL,        /* everything */
    BACKUP_SYNC_TOP,         /* what the source's own layer has */
    BACKUP_SYNC_NONE,        /* only what guests change, until cancelled */
    BACKUP_SYNC_INCREMENTAL, /* what a bitmap has: BITMAP with on-success */
    BACKUP_SYNC_BITMAP,
} BackupSync;

/** When the bitmap stands for changes since this backup. */
typedef enum BackupBitmapMode {
    BACKUP_BITMAP_ON_SUCCESS,
    BACKUP_BITMAP_NEVER,
    BACKUP_BITMAP_ALWAYS,    /* and what this one has not copied */
    BACKUP_BITMAP_UNSET,
} BackupBitmapMode;

/** The options of a backup. */
typedef struct BackupOptions {
    char *device;
    char *target;
    int sync;                /* BackupSync */
    char *bitmap;            /* name, or NULL */
    int bitmap_mode;         /* BackupBitmapMode */
    char *resume_bitmap;     /* name, or NULL */
    int on_source_error;     /* BlockOnError */
    int on_target_error;
    int64_t max_workers;
    int64_t max_chunk;
    char *filter_node_name;
    BlockOptions *filter;    /* those of the filter, gathered */
} BackupOptions;

/** A backup.  Main context. */
typedef struct BackupJob {
    BlockJob job;
    BackupOptions o;
    BlockDriverState *source; /* with a reference each */
    BlockDriverState *target;
    BlockDriverState *cbw;
    BlockCopyState *copy;     /* of @cbw */
    BdrvWork *work;           /* of @cbw */
    BlockCopyCall *call;      /* that runs, or NULL */
    CopyWindow window;        /* of one call after the other */
    bool flush_failed;        /* of the target, so it may lack anything */
    BdrvDirtyBitmap *bitmap;  /* frozen, or NULL */
    BdrvDirtyBitmap *resume;  /* frozen, or NULL */
    bool resume_is_new;       /* start() has made it */
} BackupJob;

/** Check what can be known of the bitmaps before the graph is changed. */
int backup_check_bitmaps(BackupJob *b, GError **errp);

/**
 * Freeze the bitmaps, and make the copy bitmap what they say; drained.  After a
 * failure none is frozen.
 */
int coroutine_fn backup_begin_bitmaps(BackupJob *b, GError **errp);

/** All is copied.  What is to be resumed with stays, frozen. */
void backup_commit_bitmaps(BackupJob *b);

/** After that, or after a failure: it goes if it is not needed any more.  Waits
 * for the image. */
void coroutine_fn backup_remove_resume(BackupJob *b);

/** It was never begun: all bitmaps are as before. */
void backup_undo_bitmaps(BackupJob *b);

/** Whether a bitmap is to have what is missing, if not all is copied. */
bool backup_notes_missing(const BackupJob *b);

/** Not all is: what is still to be copied is in the copy bitmap.  @is_safe: all
 * else is in the target, and stays there; or nobody knows. */
void backup_abort_bitmaps(BackupJob *b, bool is_safe);

#endif /* BLOCK_JOBS_BACKUP_H */
