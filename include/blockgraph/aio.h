/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * AioContext: the event loop of one thread.
 *
 * A context is made anywhere and then belongs to one thread, its home: the
 * first that calls aio_context_bind() (aio_poll(), the GSource and an
 * IOThread do it by themselves).  Callbacks, timers and coroutines of the
 * context run only there.
 */
#ifndef BLOCKGRAPH_AIO_H
#define BLOCKGRAPH_AIO_H

#include <blockgraph/coroutine.h>
#include <blockgraph/error.h>

G_BEGIN_DECLS

/** Which machinery carries the I/O of a context. */
typedef enum AioEngine {
    AIO_ENGINE_AUTO,     /* io_uring where it works, else threads */
    AIO_ENGINE_IO_URING, /* one ring for disk, sockets, timers, wake-ups */
    AIO_ENGINE_THREADS,  /* epoll, and a thread pool for disk I/O */
} AioEngine;

/**
 * Make an event loop.
 *
 * @engine  AIO_ENGINE_AUTO, or one that is forced: then it is an error if it
 *          does not work on this system
 *
 * Returns the context with one reference, or NULL with @errp set.
 *
 * Thread: any.  The caller owns the reference.
 */
BLOCK_API AioContext *aio_context_new(AioEngine engine, GError **errp);

/** Take one more reference.  Returns @ctx.  Thread: any. */
BLOCK_API AioContext *aio_context_ref(AioContext *ctx);

/**
 * Drop a reference; the last one frees @ctx, which must be idle: no request,
 * timer, handler or scheduled coroutine.
 *
 * Thread: any, but the last reference to a context that has a home is dropped
 * there, or after that thread has ended.
 */
BLOCK_API void aio_context_unref(AioContext *ctx);

/**
 * Make the calling thread the home of @ctx and, if the thread has none yet,
 * @ctx its current context.  Nothing happens when it is the home already; it
 * must not be another thread's.
 */
BLOCK_API void aio_context_bind(AioContext *ctx);

/** Which engine @ctx runs on (never AUTO).  Thread: any. */
BLOCK_API AioEngine aio_context_engine(const AioContext *ctx);

/** Whether the calling thread is the home of @ctx.  Thread: any. */
BLOCK_API bool aio_context_in_home(const AioContext *ctx);

/**
 * A small number that differs between live contexts as far as possible (0 to
 * 63); used to spread counters over cache lines.  Thread: any.
 */
BLOCK_API unsigned aio_context_index(const AioContext *ctx);

/**
 * The context whose callbacks run in this thread now, else the first one that
 * was bound to this thread, else NULL.  Thread: any.
 */
BLOCK_API AioContext *aio_get_current(void);

/**
 * One turn of the loop: submit what was prepared, take completions, run what
 * became ready.
 *
 * @blocking  wait until something happens; false: only look
 *
 * Returns whether anything ran.
 *
 * Thread: the home.  Not from inside a coroutine, not from inside a callback
 * of a loop of this thread: loops do not nest.
 */
BLOCK_API bool aio_poll(AioContext *ctx, bool blocking);

/**
 * A descriptor that polls readable when the loop has work: a completion, a
 * descriptor, a timer, a wake-up of another thread.  Then call
 * aio_poll(@ctx, false) until it returns false.  Call aio_context_prepare()
 * before each wait.  It stays the context's.
 *
 * Thread: home.  The process is aborted when no descriptor can be had.
 */
BLOCK_API int aio_context_get_fd(AioContext *ctx);

/**
 * Submit what was prepared, before the caller waits in a loop of its own.
 *
 * Returns 0 when there is work now (do not wait), else the nanoseconds until
 * the next timer, or -1 for none.  Thread: home.
 */
BLOCK_API int64_t aio_context_prepare(AioContext *ctx);

/**
 * A GSource that runs the loop inside a GMainContext of the home thread.  The
 * caller owns the reference; it holds a reference to @ctx.  Thread: home.
 */
BLOCK_API GSource *aio_context_get_gsource(AioContext *ctx);

/**
 * A good @max_ns for a loop that serves others: longer than it takes to wake
 * two processors, so that a dialogue of requests and replies falls under it.
 */
#define AIO_POLL_MAX_NS 100000

/**
 * Have aio_poll() of @ctx look for work, for a time that follows the last
 * waits, before the thread sleeps.  Waits get shorter by what it takes to wake
 * a processor, for processor time: up to all of it while they are short.  A
 * loop that waits longer than @max_ns sleeps at once, and so does one whose
 * processor other threads want.
 *
 * @max_ns  the longest look, a second at most; 0, as in a new context: never
 * @grow    by what the time is multiplied when a longer one would have been
 *          enough; 0: by 2
 * @shrink  by what it is divided when not even @max_ns would; 0: it is
 *          nothing then
 *
 * Has no effect on the engine AIO_ENGINE_THREADS and where another loop polls
 * the descriptor.  Thread: any.
 */
BLOCK_API void aio_context_set_polling(AioContext *ctx, int64_t max_ns,
                                       int64_t grow, int64_t shrink);

/** Nanoseconds of a monotonic clock of @ctx.  Thread: any. */
BLOCK_API int64_t aio_clock_ns(const AioContext *ctx);

/* --- bottom halves ------------------------------------------------------- */

/** A callback that the loop runs soon, at most once per scheduling. */
typedef struct AioBH AioBH;
typedef void AioCallback(void *opaque);

/** Make a bottom half.  The caller owns it.  Thread: any. */
BLOCK_API AioBH *aio_bh_new(AioContext *ctx, AioCallback *cb, void *opaque);

/**
 * Run @bh in the next turn of its loop.  What was written before the call is
 * seen by the callback.  Thread: any.
 */
BLOCK_API void aio_bh_schedule(AioBH *bh);

/** Free @bh; a scheduled run does not happen any more.  Thread: home. */
BLOCK_API void aio_bh_delete(AioBH *bh);

/** Run @cb(@opaque) once in the next turn of @ctx.  Thread: any. */
BLOCK_API void aio_bh_schedule_oneshot(AioContext *ctx, AioCallback *cb,
                                       void *opaque);

/* --- timers -------------------------------------------------------------- */

/** A callback at a point in time. */
typedef struct AioTimer AioTimer;

/** Make a timer that is not set.  The caller owns it.  Thread: home. */
BLOCK_API AioTimer *aio_timer_new(AioContext *ctx, AioCallback *cb,
                                  void *opaque);

/** Fire at @expire_ns of aio_clock_ns(), instead of before.  Thread: home. */
BLOCK_API void aio_timer_set(AioTimer *timer, int64_t expire_ns);

/** Do not fire.  Thread: home. */
BLOCK_API void aio_timer_cancel(AioTimer *timer);

/** Whether @timer is set.  Thread: home. */
BLOCK_API bool aio_timer_pending(const AioTimer *timer);

/** Free @timer, set or not; NULL is ignored.  Thread: home. */
BLOCK_API void aio_timer_free(AioTimer *timer);

/* --- file descriptors ---------------------------------------------------- */

/**
 * Call @readable when @fd can be read (or has hung up) and @writable when it
 * can be written (or has hung up), as long as it is so (level-triggered).  A
 * call may come although another callback has used up what was there, so @fd
 * is best non-blocking.  NULL for both removes the handlers: neither runs after
 * the call, which may come from inside any callback.
 *
 * Thread: home.  @fd stays the caller's, and must be removed before close.
 */
BLOCK_API void aio_set_fd_handler(AioContext *ctx, int fd,
                                  AioCallback *readable, AioCallback *writable,
                                  void *opaque);

/* --- coroutines ---------------------------------------------------------- */

/**
 * Enter @co in @ctx.  In the home thread: at once when outside a coroutine,
 * else when the running coroutine yields or ends.  From another thread, from
 * another context of the thread, or for the running coroutine itself: in the
 * next turn of @ctx.  Thread: any.
 */
BLOCK_API void aio_co_enter(AioContext *ctx, Coroutine *co);

/** Enter @co, later, in the next turn of @ctx.  Thread: any. */
BLOCK_API void aio_co_schedule(AioContext *ctx, Coroutine *co);

/**
 * Go on with @co, which has yielded or is about to yield, in the context it
 * last ran in.  Everybody who wakes a coroutine uses this; at most one wake-up
 * may be pending.  In the coroutine's own thread and outside any coroutine it
 * is entered at once; in that thread inside another coroutine, when that one
 * yields or ends; from other threads in the next turn of its loop.
 *
 * Thread: any.
 */
BLOCK_API void aio_co_wake(Coroutine *co);

/** Go on in the thread of @ctx from here. */
BLOCK_API void coroutine_fn aio_co_reschedule_self(AioContext *ctx);

/**
 * Run @entry(@opaque) as a coroutine of @ctx to its end, turning the loop
 * meanwhile.
 *
 * Returns what @entry returned.
 *
 * Thread: home of @ctx, outside a coroutine and outside any loop's callback.
 */
BLOCK_API int aio_co_run(AioContext *ctx, int (*entry)(void *opaque),
                         void *opaque);

/* --- blocking work ------------------------------------------------------- */

/**
 * Run @func(@opaque) in a worker thread, for calls that have no asynchronous
 * form, and wait for it.  @func must not touch coroutines or contexts.
 *
 * Returns what @func returned.
 *
 * Thread: any that runs an AioContext.  Yields.
 */
BLOCK_API int coroutine_fn aio_co_work(int (*func)(void *opaque),
                                       void *opaque);

/* --- disk I/O ------------------------------------------------------------ */

/** An open file that any context may do I/O on. */
typedef struct AioFile AioFile;

/** How the I/O of a file is done. */
typedef enum AioFileMode {
    AIO_FILE_ENGINE,  /* by the engine of the context that calls */
    AIO_FILE_THREADS, /* by worker threads, whatever the engine */
} AioFileMode;

/** Wrap @fd, which stays the caller's.  Thread: any. */
BLOCK_API AioFile *aio_file_new(int fd, AioFileMode mode);

/** Free @file; no I/O may be in flight.  Thread: any.  NULL is ignored. */
BLOCK_API void aio_file_free(AioFile *file);

/** The descriptor of @file.  Thread: any. */
BLOCK_API int aio_file_fd(const AioFile *file);

/**
 * Read into the @niov pieces at @iov from byte @offset of @file.  Short
 * transfers are continued, -EINTR and -EAGAIN retried.
 *
 * @bytes  total size of the pieces
 *
 * Returns the number of bytes read, less than @bytes only at the end of the
 * file, or a negative errno.
 *
 * Thread: any that runs an AioContext.  Yields.  @iov is not changed and must
 * live until the call returns.
 */
BLOCK_API int64_t coroutine_fn aio_file_preadv(AioFile *file,
                                               const struct iovec *iov,
                                               int niov, int64_t offset,
                                               int64_t bytes);

/**
 * Write the @niov pieces at @iov to byte @offset of @file; as
 * aio_file_preadv() otherwise.
 *
 * @fua  on stable storage (data, and what is needed to read it back) when
 *       the call returns
 *
 * Returns 0 or a negative errno; a write that makes no progress is -EIO (or
 * -ENOSPC where the system says so).
 */
BLOCK_API int coroutine_fn aio_file_pwritev(AioFile *file,
                                            const struct iovec *iov, int niov,
                                            int64_t offset, int64_t bytes,
                                            bool fua);

/**
 * Bring what was written to @file before the call to stable storage.
 * Not retried on error: after a failed flush the data may be gone.
 *
 * Returns 0 or a negative errno.  Thread: any with an AioContext.  Yields.
 */
BLOCK_API int coroutine_fn aio_file_fdatasync(AioFile *file);

/**
 * fallocate(2) with @mode on a range of @file.  -EINTR and -EAGAIN retried.
 *
 * Returns 0 or a negative errno.  Thread: any with an AioContext.  Yields.
 */
BLOCK_API int coroutine_fn aio_file_fallocate(AioFile *file, int mode,
                                              int64_t offset, int64_t bytes);

/* --- threads ------------------------------------------------------------- */

/** A thread that runs one AioContext. */
typedef struct IOThread IOThread;

/**
 * Start a thread named @name that runs a context on @engine.
 *
 * Returns the thread, or NULL with @errp set.  The caller owns it.
 * Thread: any.
 */
BLOCK_API IOThread *iothread_new(const char *name, AioEngine engine,
                                 GError **errp);

/** The context of @iothread, which holds the reference.  Thread: any. */
BLOCK_API AioContext *iothread_get_aio_context(IOThread *iothread);

/**
 * Stop the thread after the work that is ready now, join it, free it.
 * Thread: any but its own.  NULL is ignored.
 */
BLOCK_API void iothread_free(IOThread *iothread);

G_END_DECLS

#endif /* BLOCKGRAPH_AIO_H */
