/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One copy: claim clusters that are alike, bring them over, end.
 *
 * What is to be done is found out before clusters are claimed, so that nobody
 * waits for a look at tables; C4 says why that is right.
 */
#include "block/copy/copy-int.h"

#include <errno.h>
#include <string.h>

/* What takes less to copy through memory than to hand to a worker. */
#define RANGE_BYTES_MIN (INT64_C(512) << 10)

/* --- what is to be done --------------------------------------------------- */

/* At least a cluster, whole clusters but for the end; cut a cluster that is
 * alike only in part off, unless it is the first. */
static int64_t whole_clusters(const BlockCopyState *s, int64_t offset,
                              int64_t bytes)
{
    if (offset + bytes < s->length) {
        bytes &= ~(s->cluster - 1);
    }
    return bytes;
}

/* The layer that is not the source's own any more, or NULL: look at all. */
static BlockDriverState *coroutine_fn status_base(BlockCopyState *s)
{
    BlockDriverState *bs;
    BdrvChild *cow;

    if (!atomic_load(&s->skip_unallocated)) {
        return NULL;
    }
    bs = bdrv_skip_filters(bdrv_child_bs(s->config.source));
    cow = bdrv_cow_child(bs);
    return cow ? bdrv_child_bs(cow) : NULL;
}

static CopyMethod method_of(BlockCopyState *s, unsigned status)
{
    if (atomic_load(&s->skip_unallocated) &&
        !(status & BDRV_BLOCK_ALLOCATED)) {
        return COPY_METHOD_SKIP;
    }
    if (status & BDRV_BLOCK_ZERO) {
        return COPY_METHOD_ZERO;
    }
    return atomic_load(&s->use_copy_range) && !atomic_load(&s->compare)
               ? COPY_METHOD_RANGE
               : COPY_METHOD_READ_WRITE;
}

static int64_t buffer_bytes(const BlockCopyState *s)
{
    int64_t until = atomic_load(&s->short_until);

    return until > 0 && aio_clock_ns(aio_get_current()) < until
               ? COPY_SHORT_BYTES
               : COPY_BUFFER_BYTES;
}

static int64_t method_bytes(const BlockCopyState *s, CopyMethod method,
                            int64_t max_chunk)
{
    int64_t bytes = method == COPY_METHOD_READ_WRITE ? buffer_bytes(s)
                    : method == COPY_METHOD_RANGE    ? COPY_RANGE_BYTES
                    : method == COPY_METHOD_ZERO     ? COPY_ZERO_BYTES
                                                     : INT64_MAX;

    if (s->config.compress && method == COPY_METHOD_READ_WRITE) {
        bytes = s->cluster; /* what formats compress is one cluster */
    }
    if (max_chunk > 0 && method < COPY_METHOD_ZERO) {
        bytes = MIN(bytes, max_chunk);
    }
    return MAX(bytes & ~(s->cluster - 1), s->cluster);
}

static bool find_dirty(BlockCopyState *s, int64_t offset, int64_t end,
                       CopyArea *ret)
{
    LOCK_GUARD(&s->lock);
    /* No task is larger; to look for the end of all would take long. */
    return hbitmap_next_dirty_area(s->dirty, offset, end, COPY_ZERO_BYTES,
                                   &ret->offset, &ret->bytes);
}

/* Whether the target has zeroes there, by itself: what it shows of others may
 * change.  If it takes a look to know, no. */
static bool coroutine_fn is_zero_there(BlockCopyState *s, int64_t offset,
                                       int64_t bytes)
{
    BlockDriverState *bs = bdrv_child_bs(s->config.target);

    return !bdrv_cow_child(bdrv_skip_filters(bs)) &&
           bdrv_co_is_zero_fast(bs, offset, bytes) == 1;
}

/*
 * What the source says of [@offset, +@bytes), whole clusters, at least one.  An
 * answer is kept for the rest of its range, as a source may have to look far
 * for the end of it (C4).
 */
static void coroutine_fn ask_source(BlockCopyCall *call, int64_t offset,
                                    int64_t bytes)
{
    BlockCopyState *s = call->s;
    BlockDriverState *bs = bdrv_child_bs(s->config.source);
    BlockExtent extent;

    if (bdrv_co_block_status_above(bs, status_base(s), offset, bytes,
                                   &extent) < 0) {
        extent.bytes = 0; /* copying will tell */
    }
    call->known.offset = offset;
    call->known.bytes = whole_clusters(s, offset, MIN(extent.bytes, bytes));
    if (call->known.bytes == 0) {
        /* Not all of the first cluster is like its beginning. */
        extent.status = BDRV_BLOCK_DATA | BDRV_BLOCK_ALLOCATED;
        call->known.bytes = MIN(s->cluster, bytes);
    }
    call->known.method = method_of(s, extent.status);
    if (call->known.method == COPY_METHOD_ZERO &&
        is_zero_there(s, offset, call->known.bytes)) {
        call->known.method = COPY_METHOD_SKIP;
    }
}

static bool is_known(const BlockCopyCall *call, int64_t offset)
{
    return offset >= call->known.offset &&
           offset < call->known.offset + call->known.bytes;
}

bool coroutine_fn copy_find_area(BlockCopyCall *call, int64_t offset,
                                 CopyArea *ret)
{
    BlockCopyState *s = call->s;
    int64_t end = call->how.offset + call->how.bytes;
    int64_t bytes;

    if (!find_dirty(s, offset, end, ret)) {
        return false;
    }
    SIM_POINT("copy.find", NULL);
    bytes = ret->bytes;
    /* A few clusters for a guest go through memory, not behind large copies in
     * the queue of some worker. */
    ret->method = COPY_METHOD_READ_WRITE;
    if (call->how.look || atomic_load(&s->skip_unallocated)) {
        if (!is_known(call, ret->offset)) {
            ask_source(call, ret->offset,
                       bytes < COPY_ZERO_BYTES ? bytes : end - ret->offset);
        }
        bytes = call->known.offset + call->known.bytes - ret->offset;
        ret->method = call->known.method;
    }
    if (ret->method == COPY_METHOD_RANGE && !atomic_load(&s->use_copy_range)) {
        ret->method = COPY_METHOD_READ_WRITE;   /* it was known before */
    }
    bytes = MIN(bytes, method_bytes(s, ret->method, call->how.max_chunk));
    ret->bytes = MIN(bytes, ret->bytes);
    if (ret->method == COPY_METHOD_RANGE && ret->bytes < RANGE_BYTES_MIN) {
        ret->method = COPY_METHOD_READ_WRITE;
    }
    return true;
}

/* --- claim and end -------------------------------------------------------- */

CopyTask *copy_task_claim(BlockCopyState *s, const CopyArea *area)
{
    CopyTask *task = g_new0(CopyTask, 1);
    int64_t offset, bytes;
    bool any = false;

    task->s = s;
    task->method = area->method;
    list_init(&task->link);
    WITH_LOCK(&s->lock) {
        any = !atomic_load(&s->broken) &&
              hbitmap_next_dirty_area(s->dirty, area->offset,
                                      area->offset + area->bytes, INT64_MAX,
                                      &offset, &bytes);
        if (any) {
            hbitmap_reset(s->dirty, offset, bytes);
            reqlist_init_req(&s->tasks, &task->req, offset, bytes);
            s->in_flight += bytes;
        }
    }
    if (!any) {
        g_free(task);
        return NULL;
    }
    return task;
}

void copy_task_end(CopyTask *task, int ret)
{
    BlockCopyState *s = task->s;

    WITH_LOCK(&s->lock) {
        int64_t bytes = reqlist_bytes(&task->req);

        s->in_flight -= bytes;
        if (ret < 0 && !SIM_PLANTED(32)) {
            hbitmap_set(s->dirty, reqlist_offset(&task->req), bytes); /* C2 */
        } else {
            s->done += bytes;
        }
        reqlist_remove_req(&s->tasks, &task->req);
    }
    g_free(task);
}

/* --- copying -------------------------------------------------------------- */

int coroutine_fn copy_read(BlockCopyState *s, int64_t offset, int64_t bytes,
                           void *buf)
{
    int ret = SIM_FAULT("copy.read", NULL);

    return ret < 0 ? ret
                   : bdrv_co_pread(s->config.source, offset, bytes, buf, 0);
}

int coroutine_fn copy_write_zeroes(BlockCopyState *s, int64_t offset,
                                   int64_t bytes)
{
    unsigned flags = s->write_flags & ~BDRV_REQ_WRITE_COMPRESSED;

    /* A hole stays one, also where zero writes take room. */
    return is_zero_there(s, offset, bytes)
               ? 0
               : bdrv_co_pwrite_zeroes(s->config.target, offset, bytes,
                                       flags | BDRV_REQ_MAY_UNMAP);
}

static int coroutine_fn write_all(BlockCopyState *s, int64_t offset,
                                  int64_t bytes, const void *buf)
{
    unsigned flags = s->write_flags;

    if (bytes & (s->cluster - 1)) {
        /* The end of the source need not be that of the target. */
        flags &= ~BDRV_REQ_WRITE_COMPRESSED;
    }
    return block_buffer_is_zero(buf, bytes)
               ? copy_write_zeroes(s, offset, bytes)
               : bdrv_co_pwrite(s->config.target, offset, bytes, buf, flags);
}

/* Where, from *@at on, clusters of @a and @b differ; *@at is the end of that.
 * Returns the beginning, or @bytes: nowhere. */
static int64_t next_difference(const BlockCopyState *s, const char *a,
                               const char *b, int64_t bytes, int64_t *at)
{
    int64_t start = bytes;

    for (; *at < bytes; *at += s->cluster) {
        int64_t n = MIN(s->cluster, bytes - *at);
        bool same = memcmp(a + *at, b + *at, n) == 0;

        if (same && start < bytes) {
            return start;
        }
        start = same ? start : MIN(start, *at);
    }
    *at = bytes;
    return start;
}

/* Write the clusters that differ from what the target has, which is in @old. */
static int coroutine_fn write_differences(BlockCopyState *s, int64_t offset,
                                          int64_t bytes, const char *buf,
                                          const char *old)
{
    int64_t end = 0, start;
    int ret = 0;

    while (ret == 0 && end < bytes) {
        start = next_difference(s, buf, old, bytes, &end);
        if (start < bytes) {
            ret = write_all(s, offset + start, end - start, buf + start);
        }
    }
    return ret;
}

/* Of buffers that suit both sides; another after a change of the graph. */
static size_t mem_alignment(const BlockCopyState *s)
{
    const BlockLimits *a = bdrv_limits(bdrv_child_bs(s->config.source));
    const BlockLimits *b = bdrv_limits(bdrv_child_bs(s->config.target));

    return MAX(a->opt_mem_alignment, b->opt_mem_alignment);
}

void *copy_alloc(const BlockCopyState *s, int64_t bytes)
{
    return block_aligned_try_alloc(mem_alignment(s), bytes);
}

int coroutine_fn copy_write(BlockCopyState *s, int64_t offset, int64_t bytes,
                            const void *buf)
{
    size_t align = mem_alignment(s);
    void *old = NULL;
    int ret = SIM_FAULT("copy.write", NULL);

    if (ret < 0) {
        return ret;
    }
    /* A target that is empty there need not be read, and one that cannot be,
     * is written. */
    if (atomic_load(&s->compare) && !is_zero_there(s, offset, bytes)) {
        old = spare_buffers_alloc(&s->buffers, align, bytes);
    }
    if (old && bdrv_co_pread(s->config.target, offset, bytes, old, 0) == 0) {
        ret = write_differences(s, offset, bytes, buf, old);
    } else {
        ret = write_all(s, offset, bytes, buf);
    }
    spare_buffers_free(&s->buffers, old, align, bytes);
    return ret;
}

static int coroutine_fn copy_through_memory(BlockCopyState *s, int64_t offset,
                                            int64_t bytes, bool *ret_read)
{
    size_t align = mem_alignment(s);
    void *buf;
    int ret;

    mem_budget_take(&s->memory, bytes);
    buf = spare_buffers_alloc(&s->buffers, align, bytes);
    if (buf) {
        ret = copy_read(s, offset, bytes, buf);
        *ret_read = ret < 0;
        SIM_POINT("copy.between", NULL);
        ret = ret < 0 ? ret : copy_write(s, offset, bytes, buf);
    } else {
        ret = -ENOMEM;
    }
    spare_buffers_free(&s->buffers, buf, align, bytes);
    mem_budget_give(&s->memory, bytes);
    return ret;
}

/* Piece by piece: what a task by copy_range claimed is too much for memory. */
static int coroutine_fn copy_pieces(BlockCopyState *s, int64_t offset,
                                    int64_t bytes, bool *ret_read)
{
    int64_t max = MAX(buffer_bytes(s), s->cluster);
    int ret = 0;

    while (ret == 0 && bytes > 0) {
        int64_t n = MIN(bytes, max);

        ret = copy_through_memory(s, offset, n, ret_read);
        offset += n;
        bytes -= n;
    }
    return ret;
}

static int coroutine_fn copy_by_range(BlockCopyState *s, int64_t offset,
                                      int64_t bytes, bool *ret_read)
{
    BlockCopyRange copy = {
        .src = s->config.source, .src_offset = offset,
        .dst = s->config.target, .dst_offset = offset,
        .bytes = bytes, .write_flags = s->write_flags,
    };

    if (atomic_load(&s->use_copy_range)) {
        if (bdrv_co_copy_range(&copy) == 0) {
            return 0;
        }
        /* Whatever the reason: memory will tell whether it was a real one.
         * The end of the disk may just not be aligned. */
        if (!(bytes & (s->cluster - 1))) {
            atomic_store(&s->use_copy_range, false);
        }
    }
    return copy_pieces(s, offset, bytes, ret_read);
}

int coroutine_fn copy_task_run(CopyTask *task, bool *ret_read)
{
    BlockCopyState *s = task->s;
    int64_t offset = reqlist_offset(&task->req);
    int64_t bytes = reqlist_bytes(&task->req);
    int ret;

    *ret_read = false;
    switch (task->method) {
    case COPY_METHOD_SKIP:
        return 0;
    case COPY_METHOD_ZERO:
        ret = copy_write_zeroes(s, offset, bytes);
        break;
    case COPY_METHOD_RANGE:
        ret = copy_by_range(s, offset, bytes, ret_read);
        break;
    default:
        ret = copy_pieces(s, offset, bytes, ret_read);
        break;
    }
    if (ret == 0 && s->config.discard_source) {
        /* What is not taken stays: no harm. */
        bdrv_co_pdiscard(s->config.source, offset, bytes);
    }
    return ret;
}
