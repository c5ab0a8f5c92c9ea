/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Error policy: report, ignore, stop, enospc.
 *
 * A request that is stopped gives its count back: drain does not wait for
 * somebody to free disk space.  Who wakes it counts it again; it passes the
 * gate like a new one, and looks up again everything it knew about the node.
 */
#include "block/backend/backend-int.h"

#include <errno.h>

/* A request that waits for blk_resume(); on the stack of its coroutine. */
typedef struct BlkStopped {
    Coroutine *co;
    unsigned ticket;
    bool aborted; /* written before the wake-up */
    struct BlkStopped *next;
} BlkStopped;

void blk_set_on_error(BlockBackend *blk, BlockOnError on_read_error,
                      BlockOnError on_write_error,
                      BlockErrorListener *listener, void *opaque)
{
    blk->on_read_error = on_read_error;
    blk->on_write_error = on_write_error;
    blk->listener = listener;
    blk->listener_opaque = opaque;
}

unsigned blk_nr_stopped(BlockBackend *blk)
{
    LOCK_GUARD(&blk->stop_lock);

    return blk->nr_stopped;
}

static void wake_stopped(BlockBackend *blk, bool abort)
{
    BlkStopped *list;

    WITH_LOCK(&blk->stop_lock) {
        list = blk->stopped;
        blk->stopped = NULL;
        blk->nr_stopped = 0;
        blk->resume_count++;
    }
    while (list) {
        BlkStopped *next = list->next; /* gone when its thread runs it */

        list->aborted = abort;
        root_count_woken(&blk->root, list->ticket);
        aio_co_wake(list->co);
        list = next;
    }
}

void blk_resume(BlockBackend *blk)
{
    wake_stopped(blk, false);
}

void blk_abort_stopped(BlockBackend *blk)
{
    wake_stopped(blk, true);
}

static BlockOnError action_for(const BlkRequest *req, int error)
{
    BlockOnError policy = req->type == BLOCK_ACCT_READ
                              ? req->blk->on_read_error
                              : req->blk->on_write_error;

    if (policy == BLOCK_ON_ERROR_ENOSPC) {
        return error == ENOSPC ? BLOCK_ON_ERROR_STOP : BLOCK_ON_ERROR_REPORT;
    }
    return policy;
}

int coroutine_fn blk_request_failed(const BlkRequest *req, int ret,
                                    unsigned *ticket)
{
    BlockBackend *blk = req->blk;
    BlockErrorEvent event = { blk, req->type, req->offset, req->bytes, -ret,
                              action_for(req, -ret) };
    BlkStopped stopped = { .co = coroutine_self() };
    uint64_t resumed;

    /* A resume that comes between the event and our stop counts for us. */
    WITH_LOCK(&blk->stop_lock) {
        resumed = blk->resume_count;
    }
    if (blk->listener) {
        blk->listener(&event, blk->listener_opaque);
    }
    if (event.action != BLOCK_ON_ERROR_STOP) {
        return event.action == BLOCK_ON_ERROR_IGNORE ? 0 : ret;
    }
    lock_acquire(&blk->stop_lock);
    if (blk->resume_count != resumed) {
        lock_release(&blk->stop_lock);
        return 1;
    }
    stopped.ticket = *ticket;
    stopped.next = blk->stopped;
    blk->stopped = &stopped;
    blk->nr_stopped++;
    lock_release(&blk->stop_lock);
    if (!SIM_PLANTED(16)) {
        root_leave(&blk->root, *ticket);
    }
    SIM_WAITS("blk_resume() of", blk->name);
    coroutine_yield();
    if (stopped.aborted) {
        return ret;
    }
    root_pass(&blk->root, ticket);
    return 1;
}
