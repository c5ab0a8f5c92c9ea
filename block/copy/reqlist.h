/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Ranges that are being worked on, and who waits for the end of that.
 *
 * The list does not keep ranges from overlapping: whoever wants that looks for
 * a conflict first, under the same hold of the lock.  Searching costs the
 * logarithm of the number of ranges.
 *
 * Not thread-safe: the owner's Lock guards a list and all requests in it.
 */
#ifndef BLOCK_COPY_REQLIST_H
#define BLOCK_COPY_REQLIST_H

#include "util/co-queue.h"
#include "util/interval-tree.h"

/** A range; lives in a struct of its owner while it is in a list. */
typedef struct BlockReq {
    IntervalNode node;
    CoQueue waiters;    /* for the end of it, or of the part they overlap */
} BlockReq;

/** All zero is an empty list. */
typedef struct BlockReqList {
    IntervalTree tree;
} BlockReqList;

static inline int64_t reqlist_offset(const BlockReq *req)
{
    return req->node.start;
}

static inline int64_t reqlist_bytes(const BlockReq *req)
{
    return req->node.last - req->node.start + 1;
}

static inline bool reqlist_is_empty(const BlockReqList *list)
{
    return interval_tree_is_empty(&list->tree);
}

/** Enter @req for @bytes > 0 at @offset; it is in no list. */
void reqlist_init_req(BlockReqList *list, BlockReq *req, int64_t offset,
                      int64_t bytes);

/** The first request that overlaps @bytes > 0 at @offset, or NULL. */
BlockReq *reqlist_find_conflict(const BlockReqList *list, int64_t offset,
                                int64_t bytes);

/** The next one that overlaps, behind @req. */
BlockReq *reqlist_next_conflict(const BlockReq *req, int64_t offset,
                                int64_t bytes);

/**
 * Wait until one request that overlaps the range has ended or was shrunk; does
 * nothing if there is none.  @lock is free meanwhile: all may have changed,
 * and there may be others.
 *
 * Returns whether it has waited.
 */
bool coroutine_fn reqlist_wait_one(BlockReqList *list, int64_t offset,
                                   int64_t bytes, Lock *lock)
    LOCK_REQUIRES(lock);

/** Wait until no request overlaps the range, those included that come. */
void coroutine_fn reqlist_wait_all(BlockReqList *list, int64_t offset,
                                   int64_t bytes, Lock *lock)
    LOCK_REQUIRES(lock);

/** Make @req shorter, 0 < @new_bytes; who waits for it looks again. */
void reqlist_shrink_req(BlockReqList *list, BlockReq *req, int64_t new_bytes);

/** Take @req out, and wake who waits for it.  It may be freed at once. */
void reqlist_remove_req(BlockReqList *list, BlockReq *req);

#endif /* BLOCK_COPY_REQLIST_H */
