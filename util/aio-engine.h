/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The seam between an AioContext and the machinery that carries its I/O.
 *
 * Everything in which a context meets the outside world goes through this
 * table: the clock, waiting, waking, disk requests, descriptors and worker
 * threads.  What is above (bottom halves, timers, scheduling of coroutines) is
 * the same for all engines.  A deterministic engine with a virtual clock fills
 * the same table.
 */
#ifndef UTIL_AIO_ENGINE_H
#define UTIL_AIO_ENGINE_H

#include "util/work-pool.h"

#include <blockgraph/aio.h>

struct msghdr;

/** What a request does. */
typedef enum AioOp {
    AIO_OP_READV,
    AIO_OP_WRITEV,
    AIO_OP_FDATASYNC,
    AIO_OP_FALLOCATE,
    AIO_OP_RECV,                /* sockets: only engines that can cancel() */
    AIO_OP_SEND,
} AioOp;

/**
 * One request.  It lives on the stack of the coroutine that waits for it, so
 * nothing is allocated for a request.
 */
typedef struct AioRequest {
    /* Set by the coroutine before submit, never changed until it ends. */
    AioOp op;
    int fd;
    const struct iovec *iov;    /* of what has one; the kernel reads it late */
    struct msghdr *msg;         /* RECV, SEND: of @iov, @niov */
    int niov;                   /* 1 to IOV_MAX */
    int flags;                  /* WRITEV: RWF_ flags; FALLOCATE: mode */
    int64_t offset;
    int64_t bytes;              /* READV, WRITEV: of the vector, at least */
    bool in_memory;             /* the file is: see aio_request_run_inline() */
    _Atomic unsigned *long_writes; /* of a file in memory: how many go on */
    Coroutine *co;

    /*
     * Written by whoever completes the request, in any thread, before it
     * wakes @co; read by @co after.
     */
    int64_t result;             /* bytes moved, or a negative errno */

    /* Belongs to the engine while it carries the request. */
    bool counted;               /* in @long_writes, until it has ended */
    WorkItem work;
    struct AioRequest *next;
} AioRequest;

/** A watched descriptor. */
typedef struct AioFdHandler {
    /* Touched only by the home thread of the context. */
    int fd;
    unsigned wanted;            /* POLLIN | POLLOUT; 0 once @removed */
    bool removed;               /* no callback runs any more */
    bool dispatching;           /* one of the callbacks is on our stack */
    AioCallback *readable;
    AioCallback *writable;
    void *opaque;

    /* Belongs to the engine. */
    unsigned armed;             /* events the kernel watches for; 0 none */
    bool cancelling;            /* a cancellation of it is under way */
    bool always_ready;          /* a file that cannot be watched */
    struct AioFdHandler *next;  /* engine's list */
} AioFdHandler;

/** The table of an engine.  Thread: home, unless it says any. */
typedef struct AioEngineOps {
    const char *name;
    AioEngine kind;

    /**
     * Make the engine's state for @ctx; it is put into @ret_state.
     * Returns 0 or a negative errno with @errp set.  Thread: any.
     */
    int (*create)(AioContext *ctx, void **ret_state, GError **errp);

    /** The calling thread becomes the home. */
    void (*bind)(AioContext *ctx, void *state);

    /** The home thread gives @ctx up, for good. */
    void (*unbind)(AioContext *ctx, void *state);

    /** Free @state; nothing is in flight.  Thread: any. */
    void (*destroy)(AioContext *ctx, void *state);

    /** Nanoseconds of the clock that timers use.  Thread: any. */
    int64_t (*clock_ns)(const AioContext *ctx);

    /**
     * Start @req.
     *
     * Returns true when it is under way: req->result is set later and
     * req->co is woken once, after it has yielded.  Returns false when it is
     * complete already; nobody is woken then.
     */
    bool (*submit)(AioContext *ctx, void *state, AioRequest *req);

    /**
     * Try to end @req, a RECV or SEND that is under way, with -ECANCELED.  It
     * may end in another way.  NULL: the engine carries no such requests.
     */
    void (*cancel)(AioContext *ctx, void *state, AioRequest *req);

    /**
     * Submit what was prepared; wait up to @timeout_ns (0: do not, -1: without
     * limit) until something completes or wake() is called; run the
     * completions.  May return early for no reason.
     *
     * Returns whether any callback or coroutine ran.
     */
    bool (*turn)(AioContext *ctx, void *state, int64_t timeout_ns);

    /** Submit what was prepared.  Returns whether turn() has work now. */
    bool (*flush)(AioContext *ctx, void *state);

    /**
     * flush() sees all that would end a wait, and with nothing prepared it
     * takes no system call: then the loop may look before it sleeps, and
     * turn() calls aio_polling_woken() after each wait.
     */
    bool flush_sees_all;

    /** End a wait of turn(), and make get_fd() readable.  Thread: any. */
    void (*wake)(AioContext *ctx, void *state);

    /** A descriptor that polls readable when turn() has work, or -1. */
    int (*get_fd)(AioContext *ctx, void *state);

    /**
     * handler->wanted has changed.  When handler->removed is set the engine
     * frees @handler as soon as nothing of its own points there any more, and
     * lets go of the descriptor before it returns.
     */
    void (*update_fd)(AioContext *ctx, void *state, AioFdHandler *handler);

    /** Run @item in a worker thread. */
    void (*work)(AioContext *ctx, void *state, WorkItem *item);

    /**
     * aio_poll() as a whole, or NULL: an engine that decides itself what runs
     * next.  Then turn() and flush() are never called, and all that is woken
     * waits in the queues of @ctx until the engine takes it out.
     */
    bool (*poll)(AioContext *ctx, void *state, bool blocking);
} AioEngineOps;

/** One io_uring. */
extern const AioEngineOps aio_uring_ops;

/**
 * The ring of an engine that is aio_uring_ops, for tests of what the kernel
 * lets it do.  Thread: home.
 */
struct io_uring *uring_ring(void *state);

/** epoll, and worker threads for disk I/O. */
extern const AioEngineOps aio_threads_ops;

/**
 * aio_context_new() with a table of the caller's.  @ops must outlive the
 * context.  Thread: any.
 */
AioContext *aio_context_new_with_ops(const AioEngineOps *ops, GError **errp);

/** A number, not 0, that grows with each turn of the loop of @ctx.  Thread:
 * home. */
uint64_t aio_context_turn(const AioContext *ctx);

/** The state of the engine of @ctx.  Thread: any. */
void *aio_context_engine_state(AioContext *ctx);

/**
 * For engines: run the callbacks of @handler for @revents (POLL*).  Either may
 * remove the handler, which then is freed by the engine, after this returns.
 */
void aio_fd_dispatch(AioFdHandler *handler, unsigned revents);

/**
 * For engines: run @req with blocking system calls, set req->result.  Must not
 * be called in a thread that runs a loop.
 */
void aio_request_run_blocking(AioRequest *req);

/** For engines: whether @req is short and on a file that lives in memory. */
bool aio_request_is_copy(const AioRequest *req);

/** For engines: whether @req is a long read of a file that lives in memory. */
bool aio_request_is_long_copy(const AioRequest *req);

/**
 * For engines: if @req is a short read of a file that lives in memory, and the
 * first in this turn, run it: submit() then returns false.  Returns false if
 * nothing was done.
 */
bool aio_request_run_at_once(AioContext *ctx, AioRequest *req);

/**
 * For engines: if @req is short and on a file that lives in memory, run it
 * now and have its coroutine go on in the next turn.  Returns false if
 * nothing was done.
 */
bool aio_request_run_inline(AioContext *ctx, AioRequest *req);

/**
 * Have @req run in a worker thread of @ctx.  Returns true, as submit() does.
 */
bool aio_request_submit_to_workers(AioContext *ctx, AioRequest *req);

/**
 * Start @req of the running coroutine on the engine of the current context
 * (@in_workers: in a worker thread in any case), and wait for it.  Returns its
 * result.
 */
int64_t coroutine_fn aio_request_co_run(AioRequest *req, bool in_workers);

#endif /* UTIL_AIO_ENGINE_H */
