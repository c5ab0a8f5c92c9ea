/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What jobs do with chains of backing files: go along, hold, make writable, and
 * record in an image which file is below it.
 */
#ifndef BLOCK_JOBS_CHAIN_H
#define BLOCK_JOBS_CHAIN_H

#include <blockgraph/driver.h>

#include "block/jobs/job.h"

/** The edge by which a chain goes on below @bs: to what it filters, or to its
 * backing node.  NULL: it ends here. */
BdrvChild *chain_edge(BlockDriverState *bs);

/** The node that @bs's chain goes on with, or NULL. */
BlockDriverState *chain_next(BlockDriverState *bs);

/** The node of the chain from @bs down whose next one is @below; NULL: there is
 * none. */
BlockDriverState *chain_above(BlockDriverState *bs, BlockDriverState *below);

/** The lowest node of the chain from @bs down. */
BlockDriverState *chain_end(BlockDriverState *bs);

/** Whether somebody has frozen the edge by which the chain goes on below @bs:
 * where that is a filter, the filter is a job's. */
bool chain_is_held(BlockDriverState *bs);

/**
 * Freeze the edges from @bs down to @base, which is in its chain, whoever has
 * frozen some already.  bdrv_unfreeze_chain() undoes it.
 */
void chain_freeze(BlockDriverState *bs, BlockDriverState *base);

/**
 * Reopen @bs for writing, if it is read-only.
 *
 * @ret_changed  whether it was; then chain_make_read_only() makes it that again
 */
int coroutine_fn chain_make_writable(BlockDriverState *bs, bool *ret_changed,
                                     GError **errp);

/** Reopen @bs read-only; a failure is a warning. */
void coroutine_fn chain_make_read_only(BlockDriverState *bs);

/** Wait until nobody but the caller, who has done it once, has frozen the edge
 * by which the chain goes on below @bs.  Returns false if @job is cancelled
 * before. */
bool coroutine_fn chain_wait_below(BlockJob *job, BlockDriverState *bs);

/** Whether somebody has frozen an edge that leads to @bs. */
bool chain_is_held_above(BlockDriverState *bs);

/** Wait until nobody has: a job above that takes effect.  Returns false if @job
 * is cancelled before. */
bool coroutine_fn chain_wait_above(BlockJob *job, BlockDriverState *bs);

/** A filter of a job goes, in clean().  While somebody else holds an edge above
 * it, wait; the job is concluded before, if that takes over JOB_GRACE_NS.  The
 * user may take it out himself. */
void coroutine_fn chain_drop_filter(BlockJob *job, BlockDriverState *filter);

/** The same, but the caller has frozen the filter's own edge, and waits only
 * until the job is cancelled.  Returns whether it is out. */
bool coroutine_fn chain_drop_held_filter(BlockJob *job,
                                         BlockDriverState *filter);

/** The same in a drained section, for a job whose start has failed: what cannot
 * go at once goes later.  Drops the reference. */
void coroutine_fn chain_drop_failed_filter(BlockJob *job,
                                           BlockDriverState *filter);

/** Which backing file a job is to record. */
typedef struct ChainNaming {
    const char *backing_file; /* the user's text, or NULL */
    const char *format;       /* of what that names, or NULL: of the base */
    bool mask_protocol;       /* "raw" in place of the name of a protocol */
} ChainNaming;

/** What an image says of its backing file; see bdrv_get_backing_name(). */
typedef struct ChainName {
    BlockDriverState *bs;     /* of the image, with a reference; or NULL */
    char *file;
    char *format;
    char *new_file;           /* what has been written in its place */
    char *new_format;
} ChainName;

/** The format that is recorded for @base; a constant. */
const char *chain_format_for(BlockDriverState *base, const ChainNaming *how);

/** Free what @name holds, and make it empty. */
void coroutine_fn chain_name_clear(ChainName *name);

/**
 * Whether what @how says can be recorded in the image of @bs, over @base (NULL:
 * nothing).  0 or a negative errno with @errp.
 */
int chain_check_naming(BlockJob *job, BlockDriverState *bs,
                       BlockDriverState *base, const ChainNaming *how,
                       GError **errp);

/** Whether the image of @bs says what chain_record_name() would write there, or
 * keeps no such name.  Does not yield. */
bool chain_is_named(BlockDriverState *bs, BlockDriverState *base,
                    const ChainNaming *how);

/**
 * Record @base (NULL: none) in the image of @bs as its backing file, if it
 * keeps such a name; it may be read-only.
 *
 * @ret_old  what stood there before, for chain_restore_name(); empty, if
 *           nothing has changed
 */
int coroutine_fn chain_record_name(BlockDriverState *bs,
                                   BlockDriverState *base,
                                   const ChainNaming *how, ChainName *ret_old,
                                   GError **errp);

/** Put back what chain_record_name() has changed, unless somebody else has
 * changed it since; a failure is a warning, as the data are right with either
 * name.  @old becomes empty. */
void coroutine_fn chain_restore_name(ChainName *old);

#endif /* BLOCK_JOBS_CHAIN_H */
