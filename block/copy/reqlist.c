/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Ranges that are being worked on.
 *
 * Who waits stands in the queue of one request.  A request that goes away has
 * woken all of its queue under the lock, and nobody looks at the queue again
 * after having been woken, so its memory may go with it.
 */
#include "block/copy/reqlist.h"

#include "util/sim-point.h"

#define req_of(node_) \
    ((BlockReq *)((char *)(node_) - offsetof(BlockReq, node)))

static BlockReq *req_or_null(IntervalNode *node)
{
    return node ? req_of(node) : NULL;
}

void reqlist_init_req(BlockReqList *list, BlockReq *req, int64_t offset,
                      int64_t bytes)
{
    interval_node_init(&req->node, offset, bytes);
    co_queue_init(&req->waiters);
    interval_tree_insert(&list->tree, &req->node);
}

BlockReq *reqlist_find_conflict(const BlockReqList *list, int64_t offset,
                                int64_t bytes)
{
    return req_or_null(interval_tree_first_overlap(&list->tree, offset,
                                                   offset + bytes - 1));
}

BlockReq *reqlist_next_conflict(const BlockReq *req, int64_t offset,
                                int64_t bytes)
{
    return req_or_null(interval_tree_next_overlap(&req->node, offset,
                                                  offset + bytes - 1));
}

bool coroutine_fn reqlist_wait_one(BlockReqList *list, int64_t offset,
                                   int64_t bytes, Lock *lock)
{
    BlockReq *req = reqlist_find_conflict(list, offset, bytes);

    if (!req) {
        return false;
    }
    SIM_WAITS("a request of a list", req);
    co_queue_wait_locked(&req->waiters, lock);
    return true;
}

void coroutine_fn reqlist_wait_all(BlockReqList *list, int64_t offset,
                                   int64_t bytes, Lock *lock)
{
    while (reqlist_wait_one(list, offset, bytes, lock)) {
    }
}

void reqlist_shrink_req(BlockReqList *list, BlockReq *req, int64_t new_bytes)
{
    int64_t offset = reqlist_offset(req);

    g_assert(new_bytes > 0 && new_bytes <= reqlist_bytes(req));
    if (new_bytes == reqlist_bytes(req)) {
        return;
    }
    interval_tree_remove(&list->tree, &req->node);
    interval_node_init(&req->node, offset, new_bytes);
    interval_tree_insert(&list->tree, &req->node);
    co_queue_restart_all(&req->waiters);
}

void reqlist_remove_req(BlockReqList *list, BlockReq *req)
{
    interval_tree_remove(&list->tree, &req->node);
    co_queue_restart_all(&req->waiters);
}
