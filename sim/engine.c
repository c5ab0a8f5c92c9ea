/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The third engine of AioContext: what would meet the outside world meets the
 * simulated one.
 *
 * Requests on real files (the file driver on a file that nobody else touches)
 * are done at once and answered later, in a drawn order; the ring's manners
 * are drawn too: short transfers, -EINTR, -EAGAIN.
 */
#include "sim/sim-int.h"

#include <errno.h>

#define SECTOR 512

static int engine_create(AioContext *ctx, void **ret_state, GError **errp)
{
    *ret_state = NULL;
    return 0;
}

static void engine_bind(AioContext *ctx, void *state)
{
}

static void engine_unbind(AioContext *ctx, void *state)
{
}

static void engine_destroy(AioContext *ctx, void *state)
{
}

static int64_t engine_clock_ns(const AioContext *ctx)
{
    return sim_world->now_ns;
}

/* --- requests on real files ----------------------------------------------- */

typedef struct FileRequest {
    SimEvent ev;
    AioRequest *req;
} FileRequest;

static void file_request_done(void *opaque)
{
    FileRequest *r = opaque;
    Coroutine *co = r->req->co;

    g_free(r);
    aio_co_wake(co);
}

/* What a ring may answer instead of doing anything. */
static int drawn_refusal(BgSim *sim)
{
    static const int refusals[] = { 0, EINTR, EAGAIN };

    return atomic_load(&sim->settling) ||
                   !bgsim_chance(sim, "ring.refuse", 20)
               ? 0
               : refusals[bgsim_draw(sim, "ring.errno", 3)];
}

/*
 * How many ends of sectors the first piece of @req has; 0 if it does not end
 * with one: the rest of the piece is a request of its own, and a sector of a
 * guest that has two requests is torn.
 */
static int64_t whole_sectors(const AioRequest *req)
{
    int64_t end = req->offset + (int64_t)req->iov[0].iov_len;

    return end % SECTOR ? 0 : end / SECTOR - req->offset / SECTOR;
}

/* Run @req, of which the ring does only the first part. */
static void run_part(BgSim *sim, AioRequest *req)
{
    AioRequest part = *req;
    struct iovec first = req->iov[0];

    /* It ends between two sectors, which are not torn. */
    first.iov_len = SECTOR * (req->offset / SECTOR + 1 +
                              bgsim_draw(sim, "ring.short",
                                         whole_sectors(req))) -
                    req->offset;
    part.iov = &first;
    part.niov = 1;
    part.bytes = first.iov_len;
    aio_request_run_blocking(&part);
    req->result = part.result;
}

static bool engine_submit(AioContext *ctx, void *state, AioRequest *req)
{
    BgSim *sim = sim_world;
    FileRequest *r = g_new0(FileRequest, 1);
    bool transfer = req->op == AIO_OP_READV || req->op == AIO_OP_WRITEV;
    /* A sync is never refused: whether it may be repeated nobody knows. */
    int refusal = req->op == AIO_OP_FDATASYNC ? 0 : drawn_refusal(sim);

    if (refusal) {
        req->result = -refusal;
    } else if (transfer && whole_sectors(req) > 0 &&
               !atomic_load(&sim->settling) &&
               bgsim_chance(sim, "ring.is-short", 30)) {
        run_part(sim, req);
    } else {
        aio_request_run_blocking(req);
    }
    r->req = req;
    r->ev = (SimEvent){ .what = "ring", .cb = file_request_done,
                        .opaque = r };
    sim_event_add(sim, &r->ev,
                  1000 + bgsim_range(sim, "ring.latency", 0, 200 * 1000));
    return true;
}

/* --- worker threads ------------------------------------------------------- */

typedef struct Work {
    SimEvent ev;
    WorkItem *item;
} Work;

static void work_done(void *opaque)
{
    Work *work = opaque;
    WorkItem *item = work->item;

    g_free(work);
    item->func(item);
}

static void engine_work(AioContext *ctx, void *state, WorkItem *item)
{
    Work *work = g_new0(Work, 1);

    work->item = item;
    work->ev = (SimEvent){ .what = "worker", .cb = work_done,
                           .opaque = work };
    sim_event_add(sim_world, &work->ev, 1000);
}

/* --- the rest ------------------------------------------------------------- */

static bool engine_turn(AioContext *ctx, void *state, int64_t timeout_ns)
{
    g_assert_not_reached();
}

static bool engine_flush(AioContext *ctx, void *state)
{
    return true;
}

static void engine_wake(AioContext *ctx, void *state)
{
}

static int engine_get_fd(AioContext *ctx, void *state)
{
    return -1;
}

static void engine_update_fd(AioContext *ctx, void *state,
                             AioFdHandler *handler)
{
    g_error("A simulated loop watches no descriptors; see sim-pipe.h");
}

static SimThread *thread_of(BgSim *sim, const AioContext *ctx)
{
    for (guint i = 0; i < sim->threads->len; i++) {
        SimThread *thread = g_ptr_array_index(sim->threads, i);

        if (thread->ctx == ctx) {
            return thread;
        }
    }
    g_assert_not_reached();
}

/*
 * aio_poll() of the main context: the whole world goes on, until something has
 * run there.
 */
static bool engine_poll(AioContext *ctx, void *state, bool blocking)
{
    BgSim *sim = sim_world;
    SimThread *main_thread = thread_of(sim, ctx);
    uint64_t before = main_thread->runs;

    g_assert(main_thread->index == 0);
    do {
        if (!sim_step(sim, -1)) {
            if (blocking) {
                sim_report_hang(sim);
            }
            break;
        }
        if (atomic_load(&sim->violated)) {
            sim_give_up(sim);
        }
    } while (blocking && main_thread->runs == before);
    return main_thread->runs != before;
}

const AioEngineOps sim_engine_ops = {
    .name = "sim",
    .kind = AIO_ENGINE_THREADS,
    .create = engine_create,
    .bind = engine_bind,
    .unbind = engine_unbind,
    .destroy = engine_destroy,
    .clock_ns = engine_clock_ns,
    .submit = engine_submit,
    .turn = engine_turn,
    .flush = engine_flush,
    .wake = engine_wake,
    .get_fd = engine_get_fd,
    .update_fd = engine_update_fd,
    .work = engine_work,
    .poll = engine_poll,
};
