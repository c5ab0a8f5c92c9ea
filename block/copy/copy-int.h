/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the files of block-copy share.
 *
 *   block-copy.c   the state: cluster size, copy bitmap, progress, limits
 *   copy-task.c    one task: claim clusters, copy them, end
 *   copy-call.c    a call: look for clusters, hand them to workers, wait
 *   copy-stage.c   staging
 *   copy-part.c    clusters that are in memory in part
 *   mem-budget.c   memory that many share
 *   stage-pool.c   memory for what is staged
 */
#ifndef BLOCK_COPY_COPY_INT_H
#define BLOCK_COPY_COPY_INT_H

#include "block/copy/block-copy.h"
#include "block/copy/mem-budget.h"
#include "block/copy/reqlist.h"
#include "block/copy/stage-pool.h"
#include "util/list.h"
#include "util/sim-point.h"
#include "util/spare-buffers.h"
#include "util/throttle.h"

/** How the clusters of a task get to the target. */
typedef enum CopyMethod {
    COPY_METHOD_READ_WRITE,
    COPY_METHOD_RANGE,
    COPY_METHOD_ZERO,
    COPY_METHOD_SKIP,     /* they do not */
} CopyMethod;

/** Bytes of one copy through memory, and while others are urgent; of one by
 * copy_range; of one zero write: who wants one of its clusters waits for all
 * of it, and who wants others for the file system's lock on the target. */
#define COPY_BUFFER_BYTES (INT64_C(1) << 20)
#define COPY_SHORT_BYTES (INT64_C(128) << 10)
#define COPY_RANGE_BYTES (INT64_C(1) << 20)
#define COPY_ZERO_BYTES (INT64_C(1) << 30)

/** Memory that all copies of a state have together. */
#define COPY_MEMORY_BYTES (INT64_C(128) << 20)

struct BlockCopyState {
    /* Constant while the state is in use. */
    BlockCopyConfig config;
    int64_t cluster;           /* bytes */
    int64_t length;
    unsigned write_flags;
    int64_t part_bytes;        /* unit of C6; a cluster: none is read in part */

    /* Any thread. */
    _Atomic bool skip_unallocated;
    _Atomic bool use_copy_range; /* it has not failed yet */
    _Atomic bool compare;        /* before writing */
    _Atomic unsigned nr_staged;  /* tasks; 0: no need to look */
    _Atomic int broken;          /* an error: content was lost, see C5 */
    _Atomic int64_t short_until; /* by the clock: there was an urgent call */
    MemBudget memory;            /* of copies; has its own lock */
    MemBudget staging;
    StagePool slots;             /* of it; has its own lock */
    SpareBuffers buffers;        /* of copies; has its own lock */

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
    BlockCopyStaged *staged;   /* set when the content is in memory, */
    uint64_t missing;          /* but for these units of s->part_bytes (C6), */
    bool loading;              /* some of which somebody reads now */
    ListHead link;             /* in staged_queue */

    /* The owner's. */
    BlockCopyState *s;
    BlockCopyCall *call;       /* NULL: staged */
    CopyMethod method;
    bool in_part;              /* when it was staged */
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
    bool async;                /* of block_copy_async() */
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
 * (C1).  Returns a task, or NULL if nothing is left, or all is broken (C5).
 */
CopyTask *copy_task_claim(BlockCopyState *s, const CopyArea *area);

/** Copy.  Returns 0 or the error; @ret_read: the source gave it. */
int coroutine_fn copy_task_run(CopyTask *task, bool *ret_read);

/** The task is over; frees it.  @ret: of the copy (C2). */
void copy_task_end(CopyTask *task, int ret);

/** A call that is content with the memory.  Returns 0 or the first error. */
int coroutine_fn copy_stage_run(BlockCopyCall *call);

/** Choose the unit of C6. */
void copy_part_init(BlockCopyState *s);

/** Cut @area so that all of it is needed by @call, or it is one cluster. */
void copy_part_cut(const BlockCopyCall *call, CopyArea *area);

/** What @call does not need of its new task: CopyTask.missing. */
uint64_t copy_part_unneeded(const BlockCopyCall *call, const CopyTask *task);

/** Read units of @task into the memory of @staged. */
int coroutine_fn copy_part_read(CopyTask *task, const BlockCopyStaged *staged,
                                uint64_t units);

/** Have in memory what @call needs of clusters that are there in part. */
int coroutine_fn copy_part_load(BlockCopyCall *call);

/** Have all of @task in memory; for who writes it. */
int coroutine_fn copy_part_complete(CopyTask *task);

/** Lock held.  Whether @task is staged as far as @call needs it. */
bool copy_part_suffices(const BlockCopyCall *call, const CopyTask *task);

/** Lock held.  Whether [@offset, +..) of @task, which is staged, is there; and
 * how many bytes of the task from there on are, or are not. */
bool copy_part_status(const CopyTask *task, int64_t offset,
                      int64_t *ret_bytes);

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
