/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The io_uring engine: one ring for disk I/O, descriptors and wake-ups.
 *
 * I1  What callbacks prepare is submitted by the call that waits; a batch of
 *     disk requests is submitted early, so that the device does not idle while
 *     the rest of the turn runs.
 * I2  Completions are taken only in turn(), never while something is being
 *     prepared or submitted, so a request cannot complete under its own feet.
 * I3  Submission entries are read by the kernel in the order in which they
 *     were prepared.  So a cancellation can only hit what was armed before it,
 *     even if a new watch has the same address as the old one.
 * I4  What an entry points at lives until its completion has been taken: the
 *     vectors of requests stay on the stacks of coroutines that wait for them.
 * I5  The kernel refuses what is not in the list of operations.  A filter of
 *     system calls does not see what goes through a ring: without the list a
 *     process in a sandbox could still open files or connect by it.
 *
 * The ring is made disabled, in any thread, so that a failure is reported to
 * who makes the context; the home thread enables it and thereby becomes the
 * only one that may submit.
 *
 * The wake-up of other threads is a write to an eventfd that the ring watches
 * with a poll that stays armed.  It reports each write, so nobody needs to
 * read the eventfd.
 */
#include "util/aio-context.h"

#include "util/clock.h"

#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

/* Entries of the two queues.  More requests than that may be in flight. */
#define SQ_ENTRIES 256
#define CQ_ENTRIES 2048

/* The largest transfer the kernel does in one call. */
#define RW_BYTES_MAX 0x7ffff000u

/*
 * Disk requests that make a batch.  Random reads of 4 KiB from a disk, 64 deep:
 * batches of 4 to 8 give 75,000 a second, single ones 72,000, whole turns
 * 64,000 (docs/performance.md).
 */
#define SUBMIT_BATCH 8

/* See run_copies(). */
#define COPIES_ALONE 4
#define COPIES_IN_RING_MAX 58

/* Everything the ring is ever asked to do; it refuses the rest (I5). */
static const int opcodes[] = {
    IORING_OP_READ, IORING_OP_READV,
    IORING_OP_WRITE, IORING_OP_WRITEV,
    IORING_OP_FSYNC, IORING_OP_FALLOCATE,
    IORING_OP_POLL_ADD, IORING_OP_POLL_REMOVE,
    IORING_OP_RECV, IORING_OP_RECVMSG,
    IORING_OP_SEND, IORING_OP_SENDMSG,
    IORING_OP_ASYNC_CANCEL,
};

/* What is registered with it after it was enabled. */
static const int registrations[] = {
    IORING_REGISTER_RING_FDS, IORING_UNREGISTER_RING_FDS,
    IORING_REGISTER_EVENTFD,
};

/* What user_data of a completion is: a request, or one of these. */
#define DATA_TAG_MASK 3
#define DATA_TAG_REQUEST 0      /* AioRequest */
#define DATA_TAG_FD 1           /* AioFdHandler, with the tag in the low bits */
#define DATA_WAKE 2
#define DATA_IGNORE 3

typedef struct Uring {
    /* Set by uring_create(), never changed after. */
    struct io_uring ring;       /* the queues: home thread only */
    int event_fd;               /* written by any thread */

    /* Touched only by the home thread. */
    int enter_fd;               /* the ring, or its registered number */
    unsigned enter_flags;
    int notify_fd;              /* of uring_get_fd(), -1 before */
    AioFdHandler *removed;      /* whose last completion is due; by next */
    bool want_wake_poll;        /* the watch on event_fd has to be armed */
    GArray *stash;              /* struct io_uring_cqe; see make_room() */
    AioRequest *copies_head;    /* reads in memory that are not begun */
    AioRequest **copies_tail;
    unsigned nr_copies;
    unsigned nr_copies_in_ring;
} Uring;

/* --- the queues ---------------------------------------------------------- */

static unsigned nr_unsubmitted(Uring *u)
{
    return u->ring.sq.sqe_tail - io_uring_smp_load_acquire(u->ring.sq.khead);
}

static unsigned nr_completed(Uring *u)
{
    return io_uring_smp_load_acquire(u->ring.cq.ktail) - *u->ring.cq.khead;
}

/* Whether completions are held back until the next system call. */
static bool kernel_holds_completions(Uring *u)
{
    return IO_URING_READ_ONCE(*u->ring.sq.kflags) &
           (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW);
}

/*
 * Submit everything; wait as AioEngineOps.turn().  Returns 0, or a negative
 * errno that does no harm: what was not submitted is still in the queue.
 */
static int enter(Uring *u, int64_t timeout_ns)
{
    unsigned flags = IORING_ENTER_GETEVENTS | u->enter_flags;
    struct io_uring_getevents_arg arg = { 0 };
    struct __kernel_timespec ts;
    void *argp = NULL;
    size_t arg_bytes = _NSIG / 8;
    int ret;

    io_uring_smp_store_release(u->ring.sq.ktail, u->ring.sq.sqe_tail);
    if (timeout_ns > 0) {
        ts.tv_sec = timeout_ns / CLOCK_NS_PER_SEC;
        ts.tv_nsec = timeout_ns % CLOCK_NS_PER_SEC;
        arg.ts = (uintptr_t)&ts;
        argp = &arg;
        arg_bytes = sizeof(arg);
        flags |= IORING_ENTER_EXT_ARG;
    }
    ret = io_uring_enter2(u->enter_fd, nr_unsubmitted(u), timeout_ns != 0,
                          flags, argp, arg_bytes);
    switch (ret) {
    case -ETIME:
    case -EINTR:
    case -EAGAIN:
    case -EBUSY:
    case -ENOMEM:
        return ret;
    default:
        if (ret < 0) {
            g_error("io_uring_enter: %s", g_strerror(-ret));
        }
        return 0;
    }
}

/* Submit without looking for completions. */
static void submit_early(Uring *u)
{
    io_uring_smp_store_release(u->ring.sq.ktail, u->ring.sq.sqe_tail);
    /* What it does not take now is submitted at the end of the turn. */
    io_uring_enter2(u->enter_fd, nr_unsubmitted(u), 0, u->enter_flags, NULL,
                    _NSIG / 8);
}

static bool pop_cqe(Uring *u, struct io_uring_cqe *ret_cqe)
{
    struct io_uring_cq *cq = &u->ring.cq;
    unsigned head = *cq->khead;

    if (head == io_uring_smp_load_acquire(cq->ktail)) {
        return false;
    }
    *ret_cqe = cq->cqes[head & cq->ring_mask];
    io_uring_smp_store_release(cq->khead, head + 1);
    return true;
}

/*
 * The submission queue is full.  Some kernels take no more while completions
 * overflow; then these are put aside for the next turn (I2).
 */
static void make_room(Uring *u)
{
    struct io_uring_cqe cqe;

    if (enter(u, 0) == 0) {
        return;
    }
    if (!u->stash) {
        u->stash = g_array_new(false, false, sizeof(cqe));
    }
    while (pop_cqe(u, &cqe)) {
        g_array_append_val(u->stash, cqe);
    }
    sched_yield();              /* or the kernel is short of memory */
}

static struct io_uring_sqe *get_sqe(Uring *u)
{
    struct io_uring_sqe *sqe;

    while (!(sqe = io_uring_get_sqe(&u->ring))) {
        make_room(u);
    }
    return sqe;
}

static void removed_free(Uring *u, AioFdHandler *handler)
{
    AioFdHandler **link = &u->removed;

    while (*link != handler) {
        link = &(*link)->next;
    }
    *link = handler->next;
    g_free(handler);
}

/* --- life ---------------------------------------------------------------- */

/* Make the ring with as many of the good flags as the kernel knows. */
static int make_ring(struct io_uring *ring)
{
    static const unsigned wishes[] = {
        IORING_SETUP_DEFER_TASKRUN,
        IORING_SETUP_SINGLE_ISSUER,
        IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
        IORING_SETUP_SUBMIT_ALL,
    };
    unsigned flags = IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE |
                     IORING_SETUP_CLAMP;
    size_t nr_dropped = 0;

    for (size_t i = 0; i < G_N_ELEMENTS(wishes); i++) {
        flags |= wishes[i];
    }
    for (;;) {
        struct io_uring_params params = {
            .flags = flags,
            .cq_entries = CQ_ENTRIES,
        };
        int ret = io_uring_queue_init_params(SQ_ENTRIES, ring, &params);

        if (ret != -EINVAL || nr_dropped == G_N_ELEMENTS(wishes)) {
            return ret;
        }
        /* The newest flags are first in the list. */
        flags &= ~wishes[nr_dropped++];
    }
}

static int check_ring(struct io_uring *ring, GError **errp)
{
    /* The last one came together with polls that stay armed (5.13). */
    const unsigned features = IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG |
                              IORING_FEAT_RSRC_TAGS;
    struct io_uring_probe *probe;
    int ret = 0;

    if ((ring->features & features) != features) {
        return block_error(errp, ENOSYS,
                           "io_uring of this kernel is too old (5.13 needed)");
    }
    probe = io_uring_get_probe_ring(ring);
    if (!probe) {
        return block_error(errp, ENOSYS, "Could not probe io_uring");
    }
    for (size_t i = 0; i < G_N_ELEMENTS(opcodes) && ret == 0; i++) {
        if (!io_uring_opcode_supported(probe, opcodes[i])) {
            ret = block_error(errp, ENOSYS,
                              "io_uring has no operation %d here", opcodes[i]);
        }
    }
    io_uring_free_probe(probe);
    return ret;
}

/* I5.  Once, and for good, before the ring is enabled. */
static int restrict_ring(struct io_uring *ring, GError **errp)
{
    struct io_uring_restriction
        allowed[G_N_ELEMENTS(opcodes) + G_N_ELEMENTS(registrations)] = { 0 };
    struct io_uring_restriction *next = allowed;
    int ret;

    for (size_t i = 0; i < G_N_ELEMENTS(opcodes); i++, next++) {
        next->opcode = IORING_RESTRICTION_SQE_OP;
        next->sqe_op = opcodes[i];
    }
    for (size_t i = 0; i < G_N_ELEMENTS(registrations); i++, next++) {
        next->opcode = IORING_RESTRICTION_REGISTER_OP;
        next->register_op = registrations[i];
    }
    ret = io_uring_register(ring->ring_fd, IORING_REGISTER_RESTRICTIONS,
                            allowed, G_N_ELEMENTS(allowed));
    /* A kernel that lacks them (or one of the numbers) says EINVAL: the ring
     * then does what it did before there were restrictions. */
    if (ret < 0 && ret != -EINVAL) {
        return block_error_errno(errp, -ret, "Could not restrict the "
                                 "operations of the io_uring");
    }
    return 0;
}

static int uring_create(AioContext *ctx, void **ret_state, GError **errp)
{
    Uring *u = g_new0(Uring, 1);
    int ret = make_ring(&u->ring);

    if (ret < 0) {
        block_error_errno(errp, -ret, "Could not set up io_uring");
        goto fail;
    }
    ret = check_ring(&u->ring, errp);
    if (ret == 0) {
        ret = restrict_ring(&u->ring, errp);
    }
    if (ret < 0) {
        goto fail_ring;
    }
    u->event_fd = eventfd(0, EFD_CLOEXEC);
    if (u->event_fd < 0) {
        ret = block_error_errno(errp, errno, "Could not make an eventfd");
        goto fail_ring;
    }
    u->enter_fd = u->ring.ring_fd;
    u->notify_fd = -1;
    u->copies_tail = &u->copies_head;
    *ret_state = u;
    return 0;

fail_ring:
    io_uring_queue_exit(&u->ring);
fail:
    g_free(u);
    return ret;
}

static void uring_bind(AioContext *ctx, void *state)
{
    Uring *u = state;
    struct io_uring_rsrc_update up = {
        .offset = -1U,
        .data = u->ring.ring_fd,
    };
    int ret = io_uring_register(u->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS,
                                NULL, 0);

    if (ret < 0) {
        g_error("Could not enable the io_uring: %s", g_strerror(-ret));
    }
    /* Saves the look-up of the descriptor in each call; may be refused. */
    if (io_uring_register(u->ring.ring_fd, IORING_REGISTER_RING_FDS, &up,
                          1) == 1) {
        u->enter_fd = up.offset;
        u->enter_flags = IORING_ENTER_REGISTERED_RING;
    }
    u->want_wake_poll = true;
}

static void uring_unbind(AioContext *ctx, void *state)
{
    Uring *u = state;

    if (u->enter_flags & IORING_ENTER_REGISTERED_RING) {
        struct io_uring_rsrc_update up = { .offset = u->enter_fd };

        io_uring_register(u->ring.ring_fd, IORING_UNREGISTER_RING_FDS, &up, 1);
        u->enter_fd = u->ring.ring_fd;
        u->enter_flags = 0;
    }
}

static void uring_destroy(AioContext *ctx, void *state)
{
    Uring *u = state;

    io_uring_queue_exit(&u->ring);
    while (u->removed) {
        removed_free(u, u->removed);    /* nobody takes completions now */
    }
    close(u->event_fd);
    if (u->notify_fd >= 0) {
        close(u->notify_fd);
    }
    if (u->stash) {
        g_array_unref(u->stash);
    }
    g_free(u);
}

static int64_t uring_clock_ns(const AioContext *ctx)
{
    return clock_monotonic_ns();
}

/* --- requests ------------------------------------------------------------ */

static void prepare_rw(struct io_uring_sqe *sqe, const AioRequest *req)
{
    bool is_read = req->op == AIO_OP_READV;

    if (req->niov == 1) {
        io_uring_prep_rw(is_read ? IORING_OP_READ : IORING_OP_WRITE, sqe,
                         req->fd, req->iov->iov_base,
                         MIN(req->iov->iov_len, RW_BYTES_MAX), req->offset);
    } else {
        io_uring_prep_rw(is_read ? IORING_OP_READV : IORING_OP_WRITEV, sqe,
                         req->fd, req->iov, req->niov, req->offset);
    }
    sqe->rw_flags = req->flags;
}

static void prepare_socket(struct io_uring_sqe *sqe, const AioRequest *req)
{
    bool is_recv = req->op == AIO_OP_RECV;
    const struct iovec *iov = req->iov;

    if (is_recv && req->niov == 1) {
        io_uring_prep_recv(sqe, req->fd, iov->iov_base, iov->iov_len, 0);
    } else if (is_recv) {
        io_uring_prep_recvmsg(sqe, req->fd, req->msg, 0);
    } else if (req->niov == 1) {
        io_uring_prep_send(sqe, req->fd, iov->iov_base, iov->iov_len,
                           MSG_NOSIGNAL);
    } else {
        io_uring_prep_sendmsg(sqe, req->fd, req->msg, MSG_NOSIGNAL);
    }
}

static void start(Uring *u, AioRequest *req)
{
    struct io_uring_sqe *sqe = get_sqe(u);

    switch (req->op) {
    case AIO_OP_READV:
    case AIO_OP_WRITEV:
        prepare_rw(sqe, req);
        break;
    case AIO_OP_FDATASYNC:
        io_uring_prep_fsync(sqe, req->fd, IORING_FSYNC_DATASYNC);
        break;
    case AIO_OP_FALLOCATE:
        io_uring_prep_fallocate(sqe, req->fd, req->flags, req->offset,
                                req->bytes);
        break;
    case AIO_OP_RECV:
    case AIO_OP_SEND:
        prepare_socket(sqe, req);
        break;
    }
    io_uring_sqe_set_data(sqe, req);
}

static bool is_copied_read(const AioRequest *req)
{
    return req->op == AIO_OP_READV && aio_request_is_copy(req);
}

static bool uring_submit(AioContext *ctx, void *state, AioRequest *req)
{
    Uring *u = state;

    if (aio_request_run_at_once(ctx, req)) {
        return false;
    }
    if (is_copied_read(req)) {
        req->next = NULL;
        *u->copies_tail = req;
        u->copies_tail = &req->next;
        u->nr_copies++;
    } else if (aio_request_is_long_copy(req)) {
        return aio_request_submit_to_workers(ctx, req);
    } else if (!aio_request_run_inline(ctx, req)) {
        start(u, req);
        if (nr_unsubmitted(u) >= SUBMIT_BATCH) {
            submit_early(u);
        }
    }
    return true;
}

/* It comes after the request in the queue (I3), so it finds it or its end. */
static void uring_cancel(AioContext *ctx, void *state, AioRequest *req)
{
    struct io_uring_sqe *sqe = get_sqe(state);

    io_uring_prep_cancel(sqe, req, 0);
    sqe->user_data = DATA_IGNORE;
}

/*
 * Reads of files in memory.  The kernel gives each that comes through the ring
 * to a thread of its own, which costs more than the copy but uses another
 * processor.  So a few are copied here; of many, a part goes to the ring first
 * and the rest is copied here meanwhile: an eighth, for we also do all that
 * comes before and after a copy.  The bound on what is in the ring keeps us
 * busy when no other processor is free.
 *
 * Returns whether a coroutine ran.
 */
static bool run_copies(Uring *u)
{
    AioRequest *req = u->copies_head;
    unsigned n = u->nr_copies;
    unsigned free_in_ring = COPIES_IN_RING_MAX - u->nr_copies_in_ring;
    unsigned to_ring = n > COPIES_ALONE ? MIN(n - n / 8, free_in_ring) : 0;

    u->copies_head = NULL;
    u->copies_tail = &u->copies_head;
    u->nr_copies = 0;
    if (to_ring > 0) {
        for (unsigned i = 0; i < to_ring; i++) {
            AioRequest *next = req->next;

            start(u, req);
            u->nr_copies_in_ring++;
            req = next;
        }
        enter(u, 0);
    }
    for (AioRequest *r = req; r; r = r->next) {
        aio_request_run_blocking(r);
    }
    for (unsigned i = to_ring; i < n; i++) {
        AioRequest *next = req->next; /* gone when its coroutine goes on */

        coroutine_enter(req->co);
        req = next;
    }
    return to_ring < n;
}

static void uring_work(AioContext *ctx, void *state, WorkItem *item)
{
    work_pool_submit(ctx->pool, item);
}

/* --- descriptors --------------------------------------------------------- */

static uintptr_t fd_data(const AioFdHandler *handler)
{
    return (uintptr_t)handler | DATA_TAG_FD;
}

/* A watch fires once, and is armed again after the callbacks: level. */
static void arm(Uring *u, AioFdHandler *handler)
{
    struct io_uring_sqe *sqe = get_sqe(u);

    io_uring_prep_poll_add(sqe, handler->fd, handler->wanted);
    sqe->user_data = fd_data(handler);
    handler->armed = handler->wanted;
}

static void disarm(Uring *u, AioFdHandler *handler)
{
    struct io_uring_sqe *sqe;

    if (handler->cancelling) {
        return;
    }
    sqe = get_sqe(u);
    io_uring_prep_poll_remove(sqe, fd_data(handler));
    sqe->user_data = DATA_IGNORE;
    handler->cancelling = true;
}

static void uring_update_fd(AioContext *ctx, void *state, AioFdHandler *handler)
{
    Uring *u = state;

    if (handler->dispatching) {
        return;                 /* fd_completed() does what is needed */
    }
    if (!handler->armed) {
        if (handler->removed) {
            g_free(handler);
        } else {
            arm(u, handler);
        }
    } else if (handler->removed) {
        disarm(u, handler);
        handler->next = u->removed;
        u->removed = handler;
        enter(u, 0);            /* the ring lets go of the file now */
    } else if (handler->wanted & ~handler->armed) {
        disarm(u, handler);
    }
}

static bool fd_completed(Uring *u, AioFdHandler *handler, int res)
{
    bool ran = false;

    g_assert(handler->armed);
    if (handler->removed) {
        removed_free(u, handler);
        return false;
    }
    handler->armed = 0;
    handler->cancelling = false;
    if (res != -ECANCELED) {
        aio_fd_dispatch(handler, res < 0 ? POLLERR : (unsigned)res);
        ran = true;
    }
    if (handler->removed) {     /* by its own callback, not armed */
        g_free(handler);
    } else {
        arm(u, handler);
    }
    return ran;
}

/* --- the turn ------------------------------------------------------------ */

static bool complete(Uring *u, const struct io_uring_cqe *cqe)
{
    void *data = (void *)(uintptr_t)(cqe->user_data & ~(__u64)DATA_TAG_MASK);
    AioRequest *req = data;

    switch (cqe->user_data & DATA_TAG_MASK) {
    case DATA_TAG_REQUEST:
        req->result = cqe->res;
        u->nr_copies_in_ring -= is_copied_read(req);
        coroutine_enter(req->co);
        return true;
    case DATA_TAG_FD:
        return fd_completed(u, data, cqe->res);
    case DATA_WAKE:
        if (!(cqe->flags & IORING_CQE_F_MORE)) {
            u->want_wake_poll = true;
        }
        return false;
    default:
        return false;
    }
}

static bool complete_stash(Uring *u)
{
    GArray *stash = u->stash;
    bool ran = false;

    u->stash = NULL;            /* callbacks may begin a new one */
    for (guint i = 0; i < stash->len; i++) {
        ran |= complete(u, &g_array_index(stash, struct io_uring_cqe, i));
    }
    g_array_unref(stash);
    return ran;
}

/* Take what is complete now, not what callbacks make complete. */
static bool reap(Uring *u)
{
    unsigned left = nr_completed(u);
    struct io_uring_cqe cqe;
    bool ran = false;

    if (u->stash) {
        ran = complete_stash(u);
    }
    while (left-- > 0 && pop_cqe(u, &cqe)) {
        ran |= complete(u, &cqe);
    }
    return ran;
}

static void arm_wake_poll(Uring *u)
{
    struct io_uring_sqe *sqe = get_sqe(u);

    io_uring_prep_poll_multishot(sqe, u->event_fd, POLLIN);
    sqe->user_data = DATA_WAKE;
    u->want_wake_poll = false;
}

static bool uring_turn(AioContext *ctx, void *state, int64_t timeout_ns)
{
    Uring *u = state;
    bool ran = false;

    if (G_UNLIKELY(u->want_wake_poll)) {
        arm_wake_poll(u);
    }
    if (G_UNLIKELY(u->notify_fd >= 0)) {
        eventfd_t value;

        /* Before we look, so that what comes later is reported again. */
        eventfd_read(u->notify_fd, &value);
    }
    if (u->nr_copies > 0) {
        ran = run_copies(u);
    }
    if (ran || u->stash || nr_completed(u) > 0) {
        timeout_ns = 0;
    }
    if (timeout_ns != 0 || nr_unsubmitted(u) > 0 ||
        kernel_holds_completions(u)) {
        enter(u, timeout_ns);
    }
    if (timeout_ns != 0) {
        aio_polling_woken(ctx);
    }
    return reap(u) || ran;
}

static bool uring_flush(AioContext *ctx, void *state)
{
    Uring *u = state;

    if (u->want_wake_poll) {
        arm_wake_poll(u);
    }
    if (nr_unsubmitted(u) > 0) {
        enter(u, 0);
    }
    return u->nr_copies > 0 || u->stash || nr_completed(u) > 0 ||
           kernel_holds_completions(u);
}

static void uring_wake(AioContext *ctx, void *state)
{
    Uring *u = state;

    eventfd_write(u->event_fd, 1);
}

/*
 * The descriptor of the ring itself does not do: with DEFER_TASKRUN it wakes
 * its pollers only when entries are posted, which waits for us to enter.
 */
static int uring_get_fd(AioContext *ctx, void *state)
{
    Uring *u = state;
    int ret;

    if (u->notify_fd < 0) {
        u->notify_fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
        ret = u->notify_fd < 0 ? -errno
                               : io_uring_register(u->ring.ring_fd,
                                                   IORING_REGISTER_EVENTFD,
                                                   &u->notify_fd, 1);
        if (ret < 0) {
            g_error("Could not watch the io_uring: %s", g_strerror(-ret));
        }
    }
    return u->notify_fd;
}

struct io_uring *uring_ring(void *state)
{
    return &((Uring *)state)->ring;
}

const AioEngineOps aio_uring_ops = {
    .name = "io_uring",
    .kind = AIO_ENGINE_IO_URING,
    .create = uring_create,
    .bind = uring_bind,
    .unbind = uring_unbind,
    .destroy = uring_destroy,
    .clock_ns = uring_clock_ns,
    .submit = uring_submit,
    .cancel = uring_cancel,
    .turn = uring_turn,
    .flush = uring_flush,
    .flush_sees_all = true,
    .wake = uring_wake,
    .get_fd = uring_get_fd,
    .update_fd = uring_update_fd,
    .work = uring_work,
};
