/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * BlockBackend: the only way in for users of a node.
 *
 * Requests may be sent from any thread that runs an AioContext, from several
 * at once; each completes in the thread it was sent from.  Control functions
 * (new, insert, remove, unref, set_*) belong to the main context's thread.
 *
 * Every range is checked here once: a negative offset or length, or an end
 * beyond the node's length or 2^63, gives -EIO (-EINVAL when the vector does
 * not fit); no node gives -ENOMEDIUM, no permission -EPERM, read-only -EACCES.
 */
#ifndef BLOCKGRAPH_BACKEND_H
#define BLOCKGRAPH_BACKEND_H

#include <blockgraph/block.h>
#include <blockgraph/iov.h>

G_BEGIN_DECLS

/**
 * A backend without a node.
 *
 * @name    for error texts and lists; not empty
 * @perm    what its user will do, and lets others do, with the node
 *
 * Returns it with one reference.
 */
BLOCK_API BlockBackend *blk_new(BlockGraph *graph, const char *name,
                                const BlockPerm *perm);

/** Take one more reference.  Returns @blk.  Thread: any. */
BLOCK_API BlockBackend *blk_ref(BlockBackend *blk);

/**
 * Drop a reference; the last one waits for the requests in flight, then
 * detaches the node.  NULL is ignored.
 */
BLOCK_API void coroutine_fn blk_co_unref(BlockBackend *blk);

/** blk_co_unref() for callers outside coroutines. */
BLOCK_API void blk_unref(BlockBackend *blk);

/**
 * Attach @bs, which gets one more reference.  Returns 0, or a negative errno
 * with @errp when the permissions conflict; -EBUSY when there is a node.
 * Drains @blk: requests sent before fail with -ENOMEDIUM, those sent meanwhile
 * wait.  Main context.
 */
BLOCK_API int coroutine_fn blk_co_insert_bs(BlockBackend *blk,
                                            BlockDriverState *bs,
                                            GError **errp);

/** blk_co_insert_bs() for callers outside coroutines. */
BLOCK_API int blk_insert_bs(BlockBackend *blk, BlockDriverState *bs,
                            GError **errp);

/** Drain and detach the node, if any. */
BLOCK_API void coroutine_fn blk_co_remove_bs(BlockBackend *blk);

/** blk_co_remove_bs() for callers outside coroutines. */
BLOCK_API void blk_remove_bs(BlockBackend *blk);

/**
 * Open a node from @options (taken over) and attach it to a new backend that
 * reads, and writes and resizes if the node is writable; then others may read,
 * but neither write nor resize.
 *
 * Returns the backend, or NULL with @errp set.  Outside coroutines.
 */
BLOCK_API BlockBackend *blk_open(BlockGraph *graph, BlockOptions *options,
                                 GError **errp);

/** The node of @blk, or NULL.  Thread: main context, or inside a request. */
BLOCK_API BlockDriverState *blk_bs(BlockBackend *blk);

/** The name of @blk.  Thread: any. */
BLOCK_API const char *blk_name(const BlockBackend *blk);

/**
 * Change what the user does and shares.  Returns 0, or a negative errno with
 * @errp when that conflicts with others; then nothing has changed.  Where the
 * user gives up something, its requests in flight are waited for first.  Main
 * context.
 */
BLOCK_API int coroutine_fn blk_co_set_perm(BlockBackend *blk,
                                           const BlockPerm *perm,
                                           GError **errp);

/** blk_co_set_perm() for callers outside coroutines. */
BLOCK_API int blk_set_perm(BlockBackend *blk, const BlockPerm *perm,
                           GError **errp);

/**
 * Length of the node in bytes, or -ENOMEDIUM.  Thread: any; outside the main
 * context's, -EAGAIN while the node is drained.
 */
BLOCK_API int64_t blk_getlength(BlockBackend *blk);

/** Begin a drained section over the node of @blk and of @blk itself. */
BLOCK_API void coroutine_fn blk_co_drained_begin(BlockBackend *blk);

/** End a section of blk_co_drained_begin(). */
BLOCK_API void blk_drained_end(BlockBackend *blk);

/** Wait until no request of @blk is in flight.  Outside coroutines. */
BLOCK_API void blk_drain(BlockBackend *blk);

/**
 * How many requests of @blk are in flight.  A look, not a lock: other threads
 * go on meanwhile, and one that finds the gate closed counts for a moment.
 */
BLOCK_API int64_t blk_in_flight(BlockBackend *blk);

/**
 * Whether every write is followed by a flush (no write cache: qemu-io's
 * writethrough).  Off at first.  Thread: main context.
 */
BLOCK_API void blk_set_write_through(BlockBackend *blk, bool on);

/* --- coroutine calls ------------------------------------------------------ */

/** Read @bytes at @offset into @iov.  Returns 0 or a negative errno. */
BLOCK_API int coroutine_fn blk_co_preadv(BlockBackend *blk, int64_t offset,
                                         int64_t bytes, BlockIOVec *iov,
                                         unsigned flags);
/** Write @iov.  In storage only after blk_co_flush(), or with FUA. */
BLOCK_API int coroutine_fn blk_co_pwritev(BlockBackend *blk, int64_t offset,
                                          int64_t bytes, BlockIOVec *iov,
                                          unsigned flags);
/** Read into a buffer. */
BLOCK_API int coroutine_fn blk_co_pread(BlockBackend *blk, int64_t offset,
                                        int64_t bytes, void *buf,
                                        unsigned flags);
/** Write from a buffer. */
BLOCK_API int coroutine_fn blk_co_pwrite(BlockBackend *blk, int64_t offset,
                                         int64_t bytes, const void *buf,
                                         unsigned flags);
/** Make the range read as zero.  @flags: FUA, MAY_UNMAP, NO_FALLBACK. */
BLOCK_API int coroutine_fn blk_co_pwrite_zeroes(BlockBackend *blk,
                                                int64_t offset, int64_t bytes,
                                                unsigned flags);
/** The content of the range is not needed any more. */
BLOCK_API int coroutine_fn blk_co_pdiscard(BlockBackend *blk, int64_t offset,
                                           int64_t bytes);
/** Bring all writes that have ended to stable storage. */
BLOCK_API int coroutine_fn blk_co_flush(BlockBackend *blk);
/** Change the length of the node. */
BLOCK_API int coroutine_fn blk_co_truncate(BlockBackend *blk,
                                           const BlockTruncate *how,
                                           GError **errp);
/** Copy between two backends; -ENOTSUP where read and write are needed. */
BLOCK_API int coroutine_fn blk_co_copy_range(BlockBackend *src,
                                             int64_t src_offset,
                                             BlockBackend *dst,
                                             int64_t dst_offset, int64_t bytes,
                                             unsigned write_flags);
/** bdrv_co_block_status_above() on the node of @blk, base NULL. */
BLOCK_API int coroutine_fn blk_co_block_status(BlockBackend *blk,
                                               int64_t offset, int64_t bytes,
                                               BlockExtent *ret);
/** bdrv_co_is_allocated_above() on the node of @blk, base NULL. */
BLOCK_API int coroutine_fn blk_co_is_allocated(BlockBackend *blk,
                                               int64_t offset, int64_t bytes,
                                               int64_t *ret_bytes);

/* --- callback calls ------------------------------------------------------- */

/** Called when a request has ended: @ret is 0 or a negative errno. */
typedef void BlockCompletion(void *opaque, int ret);

/*
 * Each sends a request in the current AioContext of the calling thread, and
 * calls @cb(@opaque, ret) in that thread, never before the call returns.  @iov
 * and its memory must live until then.  Outside or inside coroutines.
 */

/** Read @iov->size bytes. */
BLOCK_API void blk_aio_preadv(BlockBackend *blk, int64_t offset,
                              BlockIOVec *iov, unsigned flags,
                              BlockCompletion *cb, void *opaque);
/** Write @iov->size bytes. */
BLOCK_API void blk_aio_pwritev(BlockBackend *blk, int64_t offset,
                               BlockIOVec *iov, unsigned flags,
                               BlockCompletion *cb, void *opaque);
/** Make the range read as zero. */
BLOCK_API void blk_aio_pwrite_zeroes(BlockBackend *blk, int64_t offset,
                                     int64_t bytes, unsigned flags,
                                     BlockCompletion *cb, void *opaque);
/** Discard the range. */
BLOCK_API void blk_aio_pdiscard(BlockBackend *blk, int64_t offset,
                                int64_t bytes, BlockCompletion *cb,
                                void *opaque);
/** Flush. */
BLOCK_API void blk_aio_flush(BlockBackend *blk, BlockCompletion *cb,
                             void *opaque);

/* --- synchronous calls ---------------------------------------------------- */
/*
 * In the thread of the main context, outside coroutines: they run its loop
 * until the request has ended.  Return 0 or a negative errno.
 */

/** Read into a buffer. */
BLOCK_API int blk_pread(BlockBackend *blk, int64_t offset, int64_t bytes,
                        void *buf, unsigned flags);
/** Write from a buffer. */
BLOCK_API int blk_pwrite(BlockBackend *blk, int64_t offset, int64_t bytes,
                         const void *buf, unsigned flags);
/** Read into a vector. */
BLOCK_API int blk_preadv(BlockBackend *blk, int64_t offset, int64_t bytes,
                         BlockIOVec *iov, unsigned flags);
/** Write from a vector. */
BLOCK_API int blk_pwritev(BlockBackend *blk, int64_t offset, int64_t bytes,
                          BlockIOVec *iov, unsigned flags);
/** Make the range read as zero. */
BLOCK_API int blk_pwrite_zeroes(BlockBackend *blk, int64_t offset,
                                int64_t bytes, unsigned flags);
/** Discard the range. */
BLOCK_API int blk_pdiscard(BlockBackend *blk, int64_t offset, int64_t bytes);
/** Flush. */
BLOCK_API int blk_flush(BlockBackend *blk);
/** Change the length. */
BLOCK_API int blk_truncate(BlockBackend *blk, const BlockTruncate *how,
                           GError **errp);
/** Block status; as blk_co_block_status(). */
BLOCK_API int blk_block_status(BlockBackend *blk, int64_t offset,
                               int64_t bytes, BlockExtent *ret);
/** Allocation; as blk_co_is_allocated(). */
BLOCK_API int blk_is_allocated(BlockBackend *blk, int64_t offset,
                               int64_t bytes, int64_t *ret_bytes);

/* --- accounting ----------------------------------------------------------- */

/** What is counted apart. */
typedef enum BlockAcctType {
    BLOCK_ACCT_READ,
    BLOCK_ACCT_WRITE,
    BLOCK_ACCT_ZERO,
    BLOCK_ACCT_UNMAP,
    BLOCK_ACCT_FLUSH,
    BLOCK_ACCT_TYPES,
} BlockAcctType;

/** Buckets of the latency histogram: bucket i counts [2^i, 2^(i+1)) ns. */
#define BLOCK_ACCT_BUCKETS 40

/** Counts of one type of operation. */
typedef struct BlockAcctStats {
    uint64_t operations; /* that succeeded */
    uint64_t bytes;      /* of those */
    uint64_t failed;
    uint64_t invalid;    /* refused at the door */
    uint64_t total_ns;   /* time of all, when latency is measured */
    uint64_t latency[BLOCK_ACCT_BUCKETS];
} BlockAcctStats;

/** Copy the counts of @type; they may be a moment old.  Thread: any. */
BLOCK_API void blk_get_stats(BlockBackend *blk, BlockAcctType type,
                             BlockAcctStats *stats);

/**
 * Whether latencies are measured (two clock reads a request).  Off at first.
 * Thread: any; requests that are in flight may be counted or not.
 */
BLOCK_API void blk_set_latency_accounting(BlockBackend *blk, bool on);

/* --- errors --------------------------------------------------------------- */

/** What to do when a request fails. */
typedef enum BlockOnError {
    BLOCK_ON_ERROR_REPORT, /* give the error to the caller */
    BLOCK_ON_ERROR_IGNORE, /* tell the listener, report success */
    BLOCK_ON_ERROR_STOP,   /* hold the request, retry on blk_resume() */
    BLOCK_ON_ERROR_ENOSPC, /* STOP on ENOSPC, else REPORT */
} BlockOnError;

/** A failed request, told to the listener. */
typedef struct BlockErrorEvent {
    BlockBackend *blk;
    BlockAcctType type;
    int64_t offset;
    int64_t bytes;
    int error;           /* positive errno */
    BlockOnError action; /* what is done: REPORT, IGNORE or STOP */
} BlockErrorEvent;

typedef void BlockErrorListener(const BlockErrorEvent *event, void *opaque);

/**
 * Set the policy.  A request held by STOP is not in flight for drain; it ends
 * with its error when the node is removed.  @listener (may be NULL) is called
 * in the thread of the request.  A synchronous call that is held returns only
 * after a resume, from the listener or another thread.
 * Main context, no request in flight.
 */
BLOCK_API void blk_set_on_error(BlockBackend *blk, BlockOnError on_read_error,
                                BlockOnError on_write_error,
                                BlockErrorListener *listener, void *opaque);

/** How many requests are held by STOP.  Thread: any. */
BLOCK_API unsigned blk_nr_stopped(BlockBackend *blk);

/** Retry all requests that are held.  Thread: any. */
BLOCK_API void blk_resume(BlockBackend *blk);

G_END_DECLS

#endif /* BLOCKGRAPH_BACKEND_H */
