/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the files of the actions share.
 *
 *   action.c         a list of actions, done or undone; jobs, snapshots
 *   action-bitmap.c  those on dirty bitmaps
 *   action-internal.c  snapshots inside images
 */
#ifndef BLOCK_JOBS_ACTION_H
#define BLOCK_JOBS_ACTION_H

#include "block/bitmap/dirty-bitmap.h"
#include "block/jobs/job.h"

#include <blockgraph/transaction.h>

/** The arguments of any action but a job. */
typedef struct ActionOptions {
    char *node;
    char *name;
    char *target;
    char *overlay;
    int64_t granularity;
    bool persistent;
    bool disabled;
    BlockOptions *bitmaps;
    int64_t date_sec, date_nsec;
} ActionOptions;

struct ActionDriver;

/** An action under way.  Main context. */
typedef struct ActionState {
    const struct ActionDriver *drv;
    BlockGraph *graph;
    JobTxn *txn;             /* for a job */
    BlockOptions *options;   /* as given; taken by prepare() */
    ActionOptions o;
    bool parsed;
    bool prepared;
    BlockDriverState *bs;    /* drained, with a reference; or NULL */

    /* Of the kind. */
    BlockJob *job;
    BlockDriverState *overlay;
    BdrvDirtyBitmap *bitmap;
    HBitmap *saved;          /* its bits as they were */
    bool was_enabled;
    char *snapshot;          /* its id, or NULL: the name will do */
} ActionState;

/** A kind of action. */
typedef struct ActionDriver {
    const BlockOption *options;
    /** The option that names the node; NULL: "node". */
    const char *node_key;
    /** Do it, in a way that can be undone. */
    int coroutine_fn (*prepare)(ActionState *a, GError **errp);
    /** It stays.  Or NULL. */
    void (*commit)(ActionState *a);
    /** Undo it; only if prepare() has gone well.  Or NULL. */
    void coroutine_fn (*abort)(ActionState *a);
} ActionDriver;

extern const ActionDriver action_bitmap_add;
extern const ActionDriver action_bitmap_clear;
extern const ActionDriver action_bitmap_disable;
extern const ActionDriver action_bitmap_enable;
extern const ActionDriver action_bitmap_merge;
extern const ActionDriver action_bitmap_remove;
extern const ActionDriver action_snapshot_internal;

/** Read the arguments into a->o.  Returns 0 or -EINVAL with @errp set. */
int action_parse(ActionState *a, GError **errp);

#endif /* BLOCK_JOBS_ACTION_H */
