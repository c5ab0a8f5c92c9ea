/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests to an NBD server: sending them, and sending them again when their
 * connection is lost.
 *
 * What was sent over a connection that is lost may have been done, or not, or
 * may be done later still.
 *
 * S1  No two writes that overlap are with the server at a time: the second is
 *     sent when the first has its result.  So what is sent again never comes
 *     behind a write of the same bytes that was answered.
 * S2  Without a reconnect-delay a write that was sent over a lost connection
 *     fails: the server, which may be alive, could do what it has got after
 *     what comes later over another.  Who sets a delay takes that into the
 *     bargain, as no word of the protocol would rule it out.  The system is
 *     told to take back what it has not sent yet.
 * S3  The result of a flush over a connection that may lead to another server
 *     than the one that was written to proves nothing (N4).
 */
#include "block/protocols/nbd/nbd.h"

#include <errno.h>
#include <string.h>

#include "block/graph/image-step.h"
#include "util/sim-point.h"

/* --- once ----------------------------------------------------------------- */

static int coroutine_fn send_request(NbdConnection *c, NbdRequest *req)
{
    uint8_t head[NBD_EXTENDED_REQUEST_BYTES];
    bool has_data = req->type == NBD_CMD_WRITE;
    int niov = has_data ? req->iov->niov : 0;
    g_autofree struct iovec *iov = g_new(struct iovec, niov + 1);
    int ret = -ENOTCONN;

    iov[0] = (struct iovec){ head, nbd_encode(&c->info, req, head) };
    if (has_data) {
        memcpy(iov + 1, req->iov->iov, niov * sizeof(*iov));
    }
    co_mutex_lock(&c->send_lock);
    /* It may have been lost meanwhile, and be another one now. */
    if (!req->done) {
        IoChannel *channel = io_channel_ref(c->channel);

        req->era = c->client->nr_made;
        req->sent++;
        ret = io_channel_writev_all(channel, iov, niov + 1);
        if (ret < 0) {
            io_channel_shutdown(channel); /* the reader notices, and all end */
        }
        io_channel_unref(channel);
    }
    co_mutex_unlock(&c->send_lock);
    return ret;
}

/* Send @req over @c and wait for its result. */
static int coroutine_fn run_request(NbdConnection *c, NbdRequest *req)
{
    while (c->requests[c->next_cookie % NBD_IN_FLIGHT_MAX]) {
        c->next_cookie++;
    }
    req->cookie = c->next_cookie++;
    req->done = false;
    req->ret = 0;
    req->got = req->extent_bytes = 0;
    req->zeroed = false;
    req->co = NULL;
    c->requests[req->cookie % NBD_IN_FLIGHT_MAX] = req;
    c->in_flight++;
    nbd_limit_time(c, req);
    if (c->info.extended && req->type == NBD_CMD_WRITE) {
        req->flags |= NBD_CMD_FLAG_PAYLOAD_LEN;
    } else {
        req->flags &= ~NBD_CMD_FLAG_PAYLOAD_LEN;
    }
    send_request(c, req);
    while (!req->done) {
        req->co = coroutine_self();
        SIM_WAITS("a reply of a server", c->client);
        coroutine_yield();
        req->co = NULL;
    }
    return req->ret;
}

/* --- again ---------------------------------------------------------------- */

static bool is_write(const NbdRequest *req)
{
    return req->type == NBD_CMD_WRITE || req->type == NBD_CMD_TRIM ||
           req->type == NBD_CMD_WRITE_ZEROES;
}

/* Whether @req, whose connection was lost, may be sent over another (S2).  What
 * all servers die of must end, too, and what they are silent about. */
static bool may_try_again(const NbdClient *s, const NbdRequest *req)
{
    if (aio_clock_ns(s->ctx) >= image_request_deadline_ns(s->bs)) {
        return false;
    }
    if (s->reconnect_ns > 0) {
        return req->silent_ns == 0 ||
               aio_clock_ns(s->ctx) < req->silent_ns + s->reconnect_ns;
    }
    return req->sent == 0 || (!is_write(req) && req->sent < s->nr_conns);
}

/* Again and again while connections get lost. */
static int coroutine_fn try_request(NbdClient *s, NbdRequest *req)
{
    int ret;

    do {
        NbdConnection *c = nbd_pick_connection(s);

        if (!c) {
            return -EIO;
        }
        ret = run_request(c, req);
    } while (ret == -ENOTCONN && may_try_again(s, req));
    return ret == -ENOTCONN ? -EIO : ret;
}

/* --- writes --------------------------------------------------------------- */

/* S1.  Who is woken looks again: it may be another's turn. */
static void coroutine_fn wait_for_overlapping(NbdClient *s,
                                              const NbdRequest *req)
{
    IntervalNode *node;

    while ((node = interval_tree_first_overlap(
                &s->writes, req->offset, req->offset + req->bytes - 1))) {
        NbdRequest *other = (NbdRequest *)((char *)node -
                                           offsetof(NbdRequest, range));

        SIM_WAITS("a write that overlaps", s);
        co_queue_wait(&other->followers, NULL);
    }
}

static int coroutine_fn run_write(NbdClient *s, NbdRequest *req)
{
    int ret;

    wait_for_overlapping(s, req);
    interval_node_init(&req->range, req->offset, req->bytes);
    co_queue_init(&req->followers);
    interval_tree_insert(&s->writes, &req->range);
    ret = try_request(s, req);
    interval_tree_remove(&s->writes, &req->range);
    co_queue_restart_all(&req->followers);
    if (ret == 0 && !(req->flags & NBD_CMD_FLAG_FUA)) {
        s->unflushed = MIN(s->unflushed, req->era);
    }
    return ret;
}

/* --- flushes -------------------------------------------------------------- */

/* S3.  Flushes of a node come one by one. */
static int coroutine_fn run_flush(NbdClient *s, NbdRequest *req)
{
    uint64_t unflushed = s->unflushed;
    int ret = -ENOTCONN;

    if (unflushed == NBD_NOTHING && !s->lost_writes) {
        return try_request(s, req);
    }
    s->unflushed = NBD_NOTHING; /* from now on: what comes later */
    while (ret == -ENOTCONN && !s->lost_writes) {
        NbdConnection *c = nbd_pick_old_connection(s, unflushed);

        if (c) {
            ret = run_request(c, req);
        } else if (nbd_is_hopeless(s)) {
            break;              /* the writes may be there still */
        } else {
            s->lost_writes = true;
            nbd_warn(s, "may have lost what was written and not flushed, as "
                     "the connection was lost: no flush succeeds any more");
        }
    }
    s->unflushed = ret < 0 ? MIN(s->unflushed, unflushed) : s->unflushed;
    return ret == -ENOTCONN ? -EIO : ret;
}

/* --- from any thread ------------------------------------------------------ */

static int coroutine_fn do_request(NbdClient *s, NbdRequest *req)
{
    if (req->type == NBD_CMD_FLUSH) {
        return run_flush(s, req);
    }
    return is_write(req) ? run_write(s, req) : try_request(s, req);
}

int coroutine_fn nbd_request(NbdClient *s, NbdRequest *req)
{
    AioContext *home = aio_get_current();
    int ret;

    if (home == s->ctx) {
        return do_request(s, req);
    }
    aio_co_reschedule_self(s->ctx);
    ret = do_request(s, req);
    aio_co_reschedule_self(home);
    return ret;
}
