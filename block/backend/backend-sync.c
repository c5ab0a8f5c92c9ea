/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Calls of a BlockBackend for callers outside coroutines: each runs its
 * coroutine to the end in the main context.
 */
#include "block/backend/backend-int.h"

#include <errno.h>

static int coroutine_fn request_entry(void *opaque)
{
    return blk_request(opaque);
}

static int run_request(const BlkRequest *req)
{
    return aio_co_run(req->blk->graph->ctx, request_entry, (void *)req);
}

int blk_preadv(BlockBackend *blk, int64_t offset, int64_t bytes,
               BlockIOVec *iov, unsigned flags)
{
    BlkRequest req = { blk, BLOCK_ACCT_READ, offset, bytes, iov, flags };

    return run_request(&req);
}

int blk_pwritev(BlockBackend *blk, int64_t offset, int64_t bytes,
                BlockIOVec *iov, unsigned flags)
{
    BlkRequest req = { blk, BLOCK_ACCT_WRITE, offset, bytes, iov, flags };

    return run_request(&req);
}

int blk_pread(BlockBackend *blk, int64_t offset, int64_t bytes, void *buf,
              unsigned flags)
{
    BlockIOVec1 iov;

    return blk_preadv(blk, offset, bytes,
                      block_iov_buf(&iov, buf, MAX(bytes, 0)), flags);
}

int blk_pwrite(BlockBackend *blk, int64_t offset, int64_t bytes,
               const void *buf, unsigned flags)
{
    BlockIOVec1 iov;

    return blk_pwritev(blk, offset, bytes,
                       block_iov_buf(&iov, buf, MAX(bytes, 0)), flags);
}

int blk_pwrite_zeroes(BlockBackend *blk, int64_t offset, int64_t bytes,
                      unsigned flags)
{
    BlkRequest req = { blk, BLOCK_ACCT_ZERO, offset, bytes, NULL, flags };

    return run_request(&req);
}

int blk_pdiscard(BlockBackend *blk, int64_t offset, int64_t bytes)
{
    BlkRequest req = { blk, BLOCK_ACCT_UNMAP, offset, bytes, NULL, 0 };

    return run_request(&req);
}

int blk_flush(BlockBackend *blk)
{
    BlkRequest req = { blk, BLOCK_ACCT_FLUSH, 0, 0, NULL, 0 };

    return run_request(&req);
}

/* --- others --------------------------------------------------------------- */

typedef struct TruncateCall {
    BlockBackend *blk;
    const BlockTruncate *how;
    GError **errp;
} TruncateCall;

static int coroutine_fn truncate_entry(void *opaque)
{
    TruncateCall *call = opaque;

    return blk_co_truncate(call->blk, call->how, call->errp);
}

int blk_truncate(BlockBackend *blk, const BlockTruncate *how, GError **errp)
{
    TruncateCall call = { .blk = blk, .how = how, .errp = errp };

    return aio_co_run(blk->graph->ctx, truncate_entry, &call);
}

typedef struct StatusCall {
    BlockBackend *blk;
    int64_t offset;
    int64_t bytes;
    BlockExtent *ret_extent;
    int64_t *ret_bytes;
} StatusCall;

static int coroutine_fn status_entry(void *opaque)
{
    StatusCall *call = opaque;

    return blk_co_block_status(call->blk, call->offset, call->bytes,
                               call->ret_extent);
}

int blk_block_status(BlockBackend *blk, int64_t offset, int64_t bytes,
                     BlockExtent *ret)
{
    StatusCall call = { .blk = blk, .offset = offset, .bytes = bytes,
                        .ret_extent = ret };

    return aio_co_run(blk->graph->ctx, status_entry, &call);
}

static int coroutine_fn is_allocated_entry(void *opaque)
{
    StatusCall *call = opaque;

    return blk_co_is_allocated(call->blk, call->offset, call->bytes,
                               call->ret_bytes);
}

int blk_is_allocated(BlockBackend *blk, int64_t offset, int64_t bytes,
                     int64_t *ret_bytes)
{
    StatusCall call = { .blk = blk, .offset = offset, .bytes = bytes,
                        .ret_bytes = ret_bytes };

    return aio_co_run(blk->graph->ctx, is_allocated_entry, &call);
}

/* --- life ----------------------------------------------------------------- */

static int coroutine_fn unref_entry(void *opaque)
{
    blk_co_unref(opaque);
    return 0;
}

void blk_unref(BlockBackend *blk)
{
    if (blk) {
        aio_co_run(blk->graph->ctx, unref_entry, blk);
    }
}

typedef struct ControlCall {
    BlockBackend *blk;
    BlockDriverState *bs;
    const BlockPerm *perm;
    GError **errp;
} ControlCall;

static int coroutine_fn insert_bs_entry(void *opaque)
{
    ControlCall *call = opaque;

    return blk_co_insert_bs(call->blk, call->bs, call->errp);
}

int blk_insert_bs(BlockBackend *blk, BlockDriverState *bs, GError **errp)
{
    ControlCall call = { .blk = blk, .bs = bs, .errp = errp };

    return aio_co_run(blk->graph->ctx, insert_bs_entry, &call);
}

static int coroutine_fn set_perm_entry(void *opaque)
{
    ControlCall *call = opaque;

    return blk_co_set_perm(call->blk, call->perm, call->errp);
}

int blk_set_perm(BlockBackend *blk, const BlockPerm *perm, GError **errp)
{
    ControlCall call = { .blk = blk, .perm = perm, .errp = errp };

    return aio_co_run(blk->graph->ctx, set_perm_entry, &call);
}

static int coroutine_fn remove_bs_entry(void *opaque)
{
    blk_co_remove_bs(opaque);
    return 0;
}

void blk_remove_bs(BlockBackend *blk)
{
    aio_co_run(blk->graph->ctx, remove_bs_entry, blk);
}

static int coroutine_fn drain_entry(void *opaque)
{
    BlockBackend *blk = opaque;

    if (blk_bs(blk)) {
        blk_co_drained_begin(blk);
        blk_drained_end(blk);
    }
    return 0;
}

void blk_drain(BlockBackend *blk)
{
    aio_co_run(blk->graph->ctx, drain_entry, blk);
}

BlockBackend *blk_open(BlockGraph *graph, BlockOptions *options, GError **errp)
{
    BlockPerm perm = { .used = BLK_PERM_CONSISTENT_READ,
                       .shared = BLK_PERM_ALL };
    BlockDriverState *bs = bdrv_open(graph, options, errp);
    BlockBackend *blk = NULL;

    if (!bs) {
        return NULL;
    }
    if (!bdrv_is_read_only(bs)) {
        perm.used |= BLK_PERM_WRITE | BLK_PERM_RESIZE;
        perm.shared &= ~perm.used;
        perm.shared |= BLK_PERM_CONSISTENT_READ;
    }
    blk = blk_new(graph, bdrv_node_name(bs), &perm);
    if (blk_insert_bs(blk, bs, errp) < 0) {
        blk_unref(blk);
        blk = NULL;
    }
    bdrv_unref(bs);
    return blk;
}
