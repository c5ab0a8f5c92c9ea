/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the files of block-copy share.
 *
 *   block-copy.c   the state: cluster size, copy bitmap, progress, limits
 *   copy-task.c    one task: claim clusters, copy them, end
 *   copy-call.c    a call: look for clusters, hand them to workers, wait
 *   copy-stage.c   staging
 *   mem-budget.c   memory that many share
 */
#ifndef BLOCK_COPY_COPY_INT_H
#define BLOCK_COPY_COPY_INT_H

#include "block/copy/block-copy.h"
#include "block/copy/mem-budget.h"
#include "block/copy/reqlist.h"
#include "util/list.h"
#include "util/sim-point.h"
#include "util/throttle.h"

/** How the clusters of a task get to the target. */
typedef enum CopyMethod {
    COPY_METHOD_READ_WRITE,
    COPY_METHOD_RANGE,
    COPY_METHOD_ZERO,
    COPY_METHOD_SKIP,     /* they do not */
} CopyMethod;

/** Bytes of one copy through memory, of one by copy_range, of one zero write:
 * who wants one of its clusters waits for all of it. */
#define COPY_BUFFER_BYTES (INT64_C(1) << 20)
#define COPY_RANGE_BYTES (INT64_C(16) << 20)
#define COPY_ZERO_BYTES (INT64_C(1) << 30)

/** Memory that all copies of a state have together. */
#define COPY_MEMORY_BYTES (INT64_C(128) << 20)

struct BlockCopyState {
    /* Constant while the state is in use. */
    BlockCopyConfig config;
    int64_t cluster;           /* bytes */
    int64_t length;
    unsigned write_flags;

    /* Any thread. */
    _Atomic bool skip_unallocated;
    _Atomic bool use_copy_range; /* it has not failed yet */
    _Atomic unsigned nr_staged;  /* tasks; 0: no need to look */
    _Atomic int broken;          /* an error: content was lost, see C5 */
    MemBudget memory;            /* of copies; has its own lock */
    MemBudget staging;

    Lock lock;
    /* Guarded by @lock. */
    HBitmap *dirty;            /* the copy bitmap, in bytes */
    BlockReqList tasks;        /* CopyTask.req */
    int64_t in_flight;         /* bytes in tasks */
    int64_t done;
    Throttle limit;
    ListHead calls;            /* BlockCopyCall.link */
    ListHead staged_queue;     /* CopyTask.link: to be written, by age */
    unsigned nr_writers;       /* coroutines that do it */
};

/** One copy under way. */
typedef struct CopyTask {
    /* Guarded by the state's lock. */
    BlockReq req;
    BlockCopyStaged *staged;   /* set when the content is in memory */
    ListHead link;             /* in staged_queue */

    /* The owner's. */
    BlockCopyState *s;
    BlockCopyCall *call;       /* NULL: staged */
    CopyMethod method;
} CopyTask;

/** What is to be done at some place: found out without claiming it. */
typedef struct CopyArea {
    int64_t offset;
    int64_t bytes;
    CopyMethod method;
} CopyArea;

struct BlockCopyCall {
    BlockCopyState *s;
    BlockCopyHow how;
    void (*cb)(void *opaque);
    void *opaque;
    bool counted;              /* in config->work, with @ticket */
    unsigned ticket;
    CopyArea known;            /* what the source has said last, of a range */

    /* Any thread. */
    _Atomic unsigned refs;     /* the caller, the coroutine */
    _Atomic bool cancelled;
    CoSleep sleep;             /* until the rate limit lets go */

    /* Guarded by s->lock. */
    ListHead link;             /* in s->calls */
    bool finished;
    bool timed_out;
    bool read_failed;
    int ret;
    CoQueue waiters;           /* for the end, or the time */
};

/* --- copy-task.c ---------------------------------------------------------- */

/**
 * The first clusters of the range of @call, from @offset on, that are to be
 * copied, alike in what is to be done with them.
 *
 * Returns whether there are any.
 */
bool coroutine_fn copy_find_area(BlockCopyCall *call, int64_t offset,
                                 CopyArea *ret);

/**
 * Claim what is still to be copied of @area, from its first such cluster on
 * (C1).  Returns a task, or NULL if nothing is left.
 */
CopyTask *copy_task_claim(BlockCopyState *s, const CopyArea *area);

/** Copy.  Returns 0 or the error; @ret_read: the source gave it. */
int coroutine_fn copy_task_run(CopyTask *task, bool *ret_read);

/** The task is over; frees it.  @ret: of the copy (C2). */
void copy_task_end(CopyTask *task, int ret);

/** Whether the range has neither a dirty cluster nor a task that is not staged;
 * waits for one such task if there is one.  For the end of calls (C3). */
bool coroutine_fn copy_range_settled(BlockCopyState *s, int64_t offset,
                                     int64_t bytes, bool staged_will_do);

/** A call that is content with the memory.  Returns 0 or the first error. */
int coroutine_fn copy_stage_run(BlockCopyCall *call);

/** A buffer that suits both sides, or NULL. */
void *copy_alloc(const BlockCopyState *s, int64_t bytes);

/** Write zeroes to the target. */
int coroutine_fn copy_write_zeroes(BlockCopyState *s, int64_t offset,
                                   int64_t bytes);

/** Read the content of [@offset, +@bytes) into @buf, and zeroes beyond the end
 * of the source. */
int coroutine_fn copy_read(BlockCopyState *s, int64_t offset, int64_t bytes,
                           void *buf);

/** Write it, or zeroes if it is. */
int coroutine_fn copy_write(BlockCopyState *s, int64_t offset, int64_t bytes,
                            const void *buf);

#endif /* BLOCK_COPY_COPY_INT_H */
