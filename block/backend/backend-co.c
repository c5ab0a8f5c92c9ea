/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests of a BlockBackend, as coroutines.
 *
 * B1  A request is counted at the root from before it looks at the node until
 *     after its caller has been told (callback calls) or is about to be.
 * B2  A range is checked against the length here, and nowhere below.
 */
#include "block/backend/backend-int.h"

#include <errno.h>

/* --- the door ------------------------------------------------------------- */

static uint64_t perm_needed(const BlkRequest *req)
{
    switch (req->type) {
    case BLOCK_ACCT_WRITE:
    case BLOCK_ACCT_ZERO:
        return req->flags & BDRV_REQ_WRITE_UNCHANGED
                   ? BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED
                   : BLK_PERM_WRITE;
    case BLOCK_ACCT_UNMAP:
        return BLK_PERM_WRITE;
    case BLOCK_ACCT_READ:
        return req->flags & BDRV_REQ_COPY_ON_READ
                   ? BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED
                   : 0;
    default:
        return 0;
    }
}

/* B2 */
static int check_range(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    int64_t length = bdrv_length(bs);

    if (offset < 0 || bytes < 0 || offset > length ||
        bytes > length - offset) {
        return -EIO;
    }
    return 0;
}

static int check_request(const BlkRequest *req)
{
    BdrvChild *child = req->blk->root.child;
    uint64_t perm = perm_needed(req);

    if (!child) {
        return -ENOMEDIUM;
    }
    if (req->offset < 0 || req->bytes < 0) {
        return -EIO;
    }
    if (perm && bdrv_is_read_only(child->bs)) {
        return -EACCES;
    }
    if (perm && !(atomic_load_explicit(&req->blk->perm_used,
                                       memory_order_relaxed) & perm)) {
        return -EPERM;
    }
    if ((req->flags & ~BDRV_REQ_MASK) ||
        ((req->flags & BDRV_REQ_ZERO_WRITE) && req->type != BLOCK_ACCT_ZERO)) {
        return -EINVAL;
    }
    if (req->type == BLOCK_ACCT_READ || req->type == BLOCK_ACCT_WRITE) {
        bool no_data = req->type == BLOCK_ACCT_READ &&
                       (req->flags & BDRV_REQ_PREFETCH);

        if (req->flags & BDRV_REQ_ZERO_WRITE) {
            return -EINVAL; /* blk_co_pwrite_zeroes() is for that */
        }
        if (req->bytes > BDRV_REQUEST_MAX_BYTES) {
            return -EIO;
        }
        if (req->iov ? req->iov->size != (uint64_t)req->bytes : !no_data) {
            return -EINVAL;
        }
    }
    return check_range(child->bs, req->offset, req->bytes);
}

/* --- dispatch ------------------------------------------------------------- */

static int coroutine_fn dispatch(const BlkRequest *req)
{
    BdrvChild *child = req->blk->root.child;
    unsigned flags = req->flags;

    if (atomic_load_explicit(&req->blk->write_through, memory_order_relaxed) &&
        (req->type == BLOCK_ACCT_WRITE || req->type == BLOCK_ACCT_ZERO)) {
        flags |= BDRV_REQ_FUA;
    }
    switch (req->type) {
    case BLOCK_ACCT_READ:
        return bdrv_co_preadv(child, req->offset, req->bytes, req->iov, flags);
    case BLOCK_ACCT_WRITE:
        return bdrv_co_pwritev(child, req->offset, req->bytes, req->iov,
                               flags);
    case BLOCK_ACCT_ZERO:
        return bdrv_co_pwrite_zeroes(child, req->offset, req->bytes, flags);
    case BLOCK_ACCT_UNMAP:
        return bdrv_co_pdiscard(child, req->offset, req->bytes);
    case BLOCK_ACCT_FLUSH:
        return bdrv_co_flush(child->bs);
    default:
        g_assert_not_reached();
    }
}

int coroutine_fn blk_request_run(const BlkRequest *req, unsigned *ticket)
{
    int64_t start_ns;
    int ret;

    SIM_POINT("blk.request", req->blk->name);
    do {
        /* Again after a stop: the node may have gone meanwhile. */
        ret = check_request(req);
        if (ret < 0) {
            blk_acct_invalid(req);
            return ret;
        }
        start_ns = blk_acct_start(req->blk);
        ret = dispatch(req);
        blk_acct_done(req, ret, start_ns);
        if (G_UNLIKELY(ret < 0)) {
            ret = blk_request_failed(req, ret, ticket);
        }
    } while (ret > 0);
    return ret;
}

int coroutine_fn blk_request(const BlkRequest *req)
{
    unsigned ticket = root_enter(&req->blk->root);              /* B1 */
    int ret = blk_request_run(req, &ticket);

    if (!SIM_PLANTED(4) || ret == 0) {
        root_leave(&req->blk->root, ticket);
    }
    return ret;
}

/* --- data ----------------------------------------------------------------- */

int coroutine_fn blk_co_preadv(BlockBackend *blk, int64_t offset,
                               int64_t bytes, BlockIOVec *iov, unsigned flags)
{
    BlkRequest req = { blk, BLOCK_ACCT_READ, offset, bytes, iov, flags };

    return blk_request(&req);
}

int coroutine_fn blk_co_pwritev(BlockBackend *blk, int64_t offset,
                                int64_t bytes, BlockIOVec *iov, unsigned flags)
{
    BlkRequest req = { blk, BLOCK_ACCT_WRITE, offset, bytes, iov, flags };

    return blk_request(&req);
}

int coroutine_fn blk_co_pread(BlockBackend *blk, int64_t offset, int64_t bytes,
                              void *buf, unsigned flags)
{
    BlockIOVec1 iov;

    return blk_co_preadv(blk, offset, bytes,
                         block_iov_buf(&iov, buf, MAX(bytes, 0)), flags);
}

int coroutine_fn blk_co_pwrite(BlockBackend *blk, int64_t offset,
                               int64_t bytes, const void *buf, unsigned flags)
{
    BlockIOVec1 iov;

    return blk_co_pwritev(blk, offset, bytes,
                          block_iov_buf(&iov, buf, MAX(bytes, 0)), flags);
}

int coroutine_fn blk_co_pwrite_zeroes(BlockBackend *blk, int64_t offset,
                                      int64_t bytes, unsigned flags)
{
    BlkRequest req = { blk, BLOCK_ACCT_ZERO, offset, bytes, NULL, flags };

    return blk_request(&req);
}

int coroutine_fn blk_co_pdiscard(BlockBackend *blk, int64_t offset,
                                 int64_t bytes)
{
    BlkRequest req = { blk, BLOCK_ACCT_UNMAP, offset, bytes, NULL, 0 };

    return blk_request(&req);
}

int coroutine_fn blk_co_flush(BlockBackend *blk)
{
    BlkRequest req = { blk, BLOCK_ACCT_FLUSH, 0, 0, NULL, 0 };

    return blk_request(&req);
}

/* --- the rest: counted, not accounted ------------------------------------- */

int coroutine_fn blk_co_truncate(BlockBackend *blk, const BlockTruncate *how,
                                 GError **errp)
{
    unsigned ticket = root_enter(&blk->root);
    BdrvChild *child = blk->root.child;
    int ret;

    if (!child) {
        ret = block_error(errp, ENOMEDIUM, "Block backend '%s' has no node",
                          blk->name);
    } else if (bdrv_is_read_only(child->bs)) {
        ret = block_error(errp, EACCES, "Node '%s' is read-only",
                          child->bs->node_name);
    } else if (!(atomic_load(&blk->perm_used) & BLK_PERM_RESIZE)) {
        ret = block_error(errp, EPERM, "Block backend '%s' has no permission "
                          "to resize node '%s'", blk->name,
                          child->bs->node_name);
    } else {
        ret = bdrv_co_truncate(child, how, errp);
    }
    root_leave(&blk->root, ticket);
    return ret;
}

static int check_copy_side(BlockBackend *blk, int64_t offset, int64_t bytes)
{
    return blk->root.child ? check_range(blk->root.child->bs, offset, bytes)
                           : -ENOMEDIUM;
}

static int coroutine_fn copy_range_entered(BlockBackend *src,
                                           BlockBackend *dst,
                                           BlockCopyRange *copy)
{
    int ret = check_copy_side(src, copy->src_offset, copy->bytes);

    if (ret == 0) {
        ret = check_copy_side(dst, copy->dst_offset, copy->bytes);
    }
    if (ret < 0) {
        return ret;
    }
    if (bdrv_is_read_only(dst->root.child->bs)) {
        return -EACCES;
    }
    if (!(atomic_load(&dst->perm_used) & BLK_PERM_WRITE)) {
        return -EPERM;
    }
    copy->src = src->root.child;
    copy->dst = dst->root.child;
    return bdrv_co_copy_range(copy);
}

int coroutine_fn blk_co_copy_range(BlockBackend *src, int64_t src_offset,
                                   BlockBackend *dst, int64_t dst_offset,
                                   int64_t bytes, unsigned write_flags)
{
    BlockCopyRange copy = { .src_offset = src_offset,
                            .dst_offset = dst_offset, .bytes = bytes,
                            .write_flags = write_flags };
    unsigned src_ticket;
    unsigned dst_ticket;
    int ret;

    if (write_flags & ~BDRV_REQ_MASK) {
        return -EINVAL;
    }
    /*
     * Nothing is held while waiting at a gate: with both gates closed by two
     * sections that each wait for the other root, we would be the circle.
     */
    dst_ticket = root_enter(&dst->root);
    while (src != dst && !root_count(&src->root, &src_ticket)) {
        root_leave(&dst->root, dst_ticket);
        root_pass(&src->root, &src_ticket);
        root_leave(&src->root, src_ticket);
        dst_ticket = root_enter(&dst->root);
    }
    ret = copy_range_entered(src, dst, &copy);
    if (src != dst) {
        root_leave(&src->root, src_ticket);
    }
    root_leave(&dst->root, dst_ticket);
    return ret;
}

int coroutine_fn blk_co_block_status(BlockBackend *blk, int64_t offset,
                                     int64_t bytes, BlockExtent *ret_extent)
{
    unsigned ticket = root_enter(&blk->root);
    int ret = -ENOMEDIUM;

    if (blk->root.child) {
        ret = bdrv_co_block_status_above(blk->root.child->bs, NULL, offset,
                                         bytes, ret_extent);
    }
    root_leave(&blk->root, ticket);
    return ret;
}

int coroutine_fn blk_co_is_allocated(BlockBackend *blk, int64_t offset,
                                     int64_t bytes, int64_t *ret_bytes)
{
    unsigned ticket = root_enter(&blk->root);
    int ret = -ENOMEDIUM;

    if (blk->root.child) {
        ret = bdrv_co_is_allocated_above(blk->root.child->bs, NULL, false,
                                         offset, bytes, ret_bytes);
    }
    root_leave(&blk->root, ticket);
    return ret;
}
