/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * block-copy: bring the content of one child of a node to another, cluster by
 * cluster, while others may want some clusters sooner.
 *
 * A state knows which clusters still have to be copied (the copy bitmap) and
 * which are being copied (tasks).  Calls work on ranges, any number at once,
 * from any thread: a guest's write wants its clusters before it goes on, a job
 * wants the whole disk.
 *
 *   C1  A cluster is in the copy bitmap, or in one task, or neither; so it is
 *       never copied by two at once.
 *   C2  A task that fails puts its clusters back into the copy bitmap.
 *   C3  A call that succeeds returns after every cluster of its range that was
 *       in the bitmap or in a task when it began is in the target, whoever
 *       copied it; one that is staged counts as being in a task.
 *   C4  The content of a cluster in the copy bitmap does not change: who
 *       changes it copies it first.  So what is found out about a cluster
 *       (zero, not allocated) is right as long as it is in the bitmap.
 *
 *   C5  When somebody could not wait for that and the old content is lost
 *       (block_copy_break), no call succeeds any more, and no task begins: when
 *       those there are have ended, the copy bitmap does not change any more.
 *
 * Staging: the old content is read into memory, the caller goes on, and the
 * write to the target follows in the background.  The task lives until that
 * write has ended, and who wants to read the old content meanwhile takes it
 * from the memory.
 *
 *   C6  Of a cluster that its caller needs in part, only that part is read at
 *       once.  The source keeps the old content of the rest: who changes more
 *       of the cluster has that read first, by another such call, and before
 *       the target is written all of it is read.
 */
#ifndef BLOCK_COPY_BLOCK_COPY_H
#define BLOCK_COPY_BLOCK_COPY_H

#include <blockgraph/driver.h>

#include "block/copy/copy-window.h"
#include "util/hbitmap.h"

typedef struct BlockCopyState BlockCopyState;
typedef struct BlockCopyCall BlockCopyCall;

/** Most workers of a call. */
#define BLOCK_COPY_WORKERS_MAX 256

/** Workers of a call that does not say how many. */
#define BLOCK_COPY_WORKERS_DEFAULT 16

/** What a state copies, and how. */
typedef struct BlockCopyConfig {
    BdrvChild *source;
    BdrvChild *target;
    int64_t min_cluster_bytes; /* power of two, or 0 */
    bool compress;
    bool use_copy_range;
    bool discard_source;       /* what has been copied */
    BdrvWork *work;            /* counts what goes on without a request */
    void (*staged_failed)(void *opaque, int ret); /* any thread; or NULL */
    void (*staged_whole)(void *opaque, int64_t offset, int64_t bytes);
                              /* any thread; or NULL, then with @stage
                               * clusters are always read as a whole */
    void *opaque;
} BlockCopyConfig;

/** One call. */
typedef struct BlockCopyHow {
    int64_t offset;           /* multiples of the cluster size, but for the */
    int64_t bytes;            /* end of the source */
    unsigned max_workers;     /* 0: BLOCK_COPY_WORKERS_DEFAULT */
    CopyWindow *window;       /* NULL, or what says how many of them; it stays
                               * until the call has ended */
    int64_t max_chunk;        /* bytes of one copy, 0: the state's choice */
    bool urgent;              /* a guest waits: the rate limit does not count,
                               * and other copies stay short for a while */
    bool look;                /* ask first what is zero in the source: worth it
                               * for large ranges; data are looked at anyway */
    bool stage;               /* it will do when the content is in memory */
    int64_t need_offset;      /* with @stage: of this part of the range; */
    int64_t need_bytes;       /* 0: of all */
    int64_t timeout_ns;       /* block_copy() only; 0: none */
} BlockCopyHow;

/** How much is done.  current + remaining only change as work is found. */
typedef struct BlockCopyProgress {
    int64_t done_bytes;       /* by tasks that have ended well */
    int64_t remaining_bytes;  /* in the copy bitmap and in tasks */
} BlockCopyProgress;

/* --- the state: main context ---------------------------------------------- */

/**
 * A state for all of the source, every cluster in the copy bitmap.
 *
 * The cluster size is the largest of 64 KiB, the cluster size of the target
 * and config->min_cluster_bytes.  A target with a backing file must say its
 * cluster size, or what a cluster did not cover would show through.
 *
 * Returns NULL with @errp set (EINVAL, ENOTSUP, ENOMEM).
 */
BlockCopyState *block_copy_state_new(const BlockCopyConfig *config,
                                     GError **errp);

/** Free @s, which is idle.  NULL is ignored. */
void block_copy_state_free(BlockCopyState *s);

/** The size of a cluster in bytes, a power of two. */
int64_t block_copy_cluster_bytes(const BlockCopyState *s);

/** The length that is copied, that of the source when @s was made. */
int64_t block_copy_length(const BlockCopyState *s);

/** Make the copy bitmap what @bitmap says (NULL: everything), rounded outwards
 * to clusters.  @s is idle.  @bitmap is in bytes and as long as the source. */
void block_copy_set_bitmap(BlockCopyState *s, const HBitmap *bitmap);

/* --- the state: any thread ------------------------------------------------ */

/** Leave out what the source's own layer does not have (sync=top). */
void block_copy_set_skip_unallocated(BlockCopyState *s, bool skip);

/** Whether clusters that are in the target as they should be are not written:
 * each is read there first. */
void block_copy_set_compare(BlockCopyState *s, bool compare);

/** At most @bytes_per_second are copied for calls that obey the limit; 0: no
 * limit.  Calls that wait see it within 100 ms, or by a kick. */
void block_copy_set_speed(BlockCopyState *s, uint64_t bytes_per_second);

/** How much is done. */
BlockCopyProgress block_copy_progress(BlockCopyState *s);

/** Old content was lost before it was copied: all calls fail with @err (a
 * negative errno) from now on; the first one counts. */
void block_copy_break(BlockCopyState *s, int err);

/** The range needs no copy any more.  Whole clusters, as in BlockCopyHow. */
void block_copy_reset(BlockCopyState *s, int64_t offset, int64_t bytes);

/**
 * Forget clusters at @offset that the source's own layer does not have.
 *
 * Returns 1 if they were forgotten, 0 if they are allocated; with the length
 * in @ret_bytes, at least a cluster or to the end; or a negative errno.
 */
int coroutine_fn block_copy_reset_unallocated(BlockCopyState *s,
                                              int64_t offset,
                                              int64_t *ret_bytes);

/** The first dirty cluster from @offset on, or -1. */
int64_t block_copy_next_dirty(BlockCopyState *s, int64_t offset);

/** The first dirty area in [@offset, end of the source); false: none. */
bool block_copy_next_dirty_area(BlockCopyState *s, int64_t offset,
                                int64_t *ret_start, int64_t *ret_bytes);

/** Wait until no task touches the range. */
void coroutine_fn block_copy_wait_tasks(BlockCopyState *s, int64_t offset,
                                        int64_t bytes);

/* --- calls ---------------------------------------------------------------- */

/**
 * Copy what is to be copied of a range, in this coroutine.
 *
 * @ret_read_failed  whether the source gave the error; may be NULL
 *
 * Returns 0; the first error, other clusters having been copied perhaps; or
 * -ETIMEDOUT, while the copy goes on in the background.
 */
int coroutine_fn block_copy(BlockCopyState *s, const BlockCopyHow *how,
                            bool *ret_read_failed);

/**
 * The same in the background of this thread.  @cb (may be NULL) is called in
 * it when the call has finished.  Free with block_copy_call_free().
 *
 * Where config->work counts it, who drains waits for all of the call: see
 * block_copy_cancel_async().  Inside a request, or in the main context while
 * the node of the work is not drained.
 */
BlockCopyCall *block_copy_async(BlockCopyState *s, const BlockCopyHow *how,
                                void (*cb)(void *opaque), void *opaque);

/** Free a call that has finished.  NULL is ignored. */
void block_copy_call_free(BlockCopyCall *call);

/** Whether it has ended, well or not.  Any thread. */
bool block_copy_call_finished(BlockCopyCall *call);

/** Its result, -ECANCELED if it was cancelled before all was copied. */
int block_copy_call_status(BlockCopyCall *call, bool *ret_read_failed);

/** Whether somebody has cancelled it, in time or not.  Any thread. */
bool block_copy_call_cancelled(BlockCopyCall *call);

/** Begin no further copy.  It finishes when those under way have.  Any
 * thread. */
void block_copy_call_cancel(BlockCopyCall *call);

/** Cancel all calls of block_copy_async(): for drain_begin.  Main context. */
void block_copy_cancel_async(BlockCopyState *s);

/** Look at the rate limit again: it was changed.  Any thread. */
void block_copy_call_kick(BlockCopyCall *call);

/* --- staging -------------------------------------------------------------- */

/** Old content of some clusters, in memory; shared.  What is there never
 * changes (C6: more of a cluster may come). */
typedef struct BlockCopyStaged {
    _Atomic unsigned refs;
    int64_t offset;
    int64_t bytes;
    uint8_t *data;          /* NULL: zeroes */
    BlockCopyState *s;      /* whose memory it is */
} BlockCopyStaged;

/** Whether reads of the target may come from the source: then what is written
 * there waits for them, and nothing may be staged.  Any thread. */
bool block_copy_target_shows_source(const BlockCopyState *s);

/**
 * Have @bytes of memory for calls with how->stage; when it is full they wait.
 * A write in the background that fails is told by config->staged_failed, before
 * the memory goes.  When a cluster that was in memory in part is there as a
 * whole, config->staged_whole is told, before the memory goes.  Main context,
 * @s is idle.
 */
void block_copy_set_staging(BlockCopyState *s, int64_t bytes);

/**
 * What is staged at @offset, with a reference, and how many of @bytes; or NULL,
 * then @ret_bytes (at most @bytes) from there on nothing is.  Any thread.
 */
BlockCopyStaged *block_copy_staged_find(BlockCopyState *s, int64_t offset,
                                        int64_t bytes, int64_t *ret_bytes);

/**
 * The first cluster of [@offset, @end) that is in memory only in part, or @end.
 * Any thread.
 */
int64_t block_copy_next_part(BlockCopyState *s, int64_t offset, int64_t end);

/** Drop a reference; NULL is ignored.  Any thread. */
void block_copy_staged_unref(BlockCopyStaged *staged);

#endif /* BLOCK_COPY_BLOCK_COPY_H */
