/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A connection to an NBD server, and how it is made again.
 */
#include "block/protocols/nbd/nbd.h"

#include <errno.h>
#include <string.h>

#include "block/graph/image-step.h"
#include "util/sim-point.h"
#include "util/tcp-peer.h"

/* A server that accepts and then says nothing. */
#define GREETING_NS (INT64_C(10) * 1000 * 1000 * 1000)
/* For the last word. */
#define FAREWELL_NS (INT64_C(1000) * 1000 * 1000)
/* Between attempts: doubles from the first to the second. */
#define PAUSE_MIN_NS (INT64_C(50) * 1000 * 1000)
#define PAUSE_MAX_NS (INT64_C(5) * 1000 * 1000 * 1000)

/* --- bytes ---------------------------------------------------------------- */

int coroutine_fn nbd_read(NbdConnection *c, void *buf, size_t bytes)
{
    uint8_t *to = buf;

    while (bytes > 0) {
        size_t there = MIN(bytes, c->buf_end - c->buf_pos);
        bool direct;
        int64_t got;

        memcpy(to, c->buf + c->buf_pos, there);
        c->buf_pos += there;
        to += there;
        bytes -= there;
        if (bytes == 0) {
            break;
        }
        direct = bytes >= NBD_READ_BUFFER / 2;
        got = direct ? io_channel_read(c->channel, to, bytes)
                     : io_channel_read(c->channel, c->buf, NBD_READ_BUFFER);
        if (got <= 0) {
            return got < 0 ? (int)got : -ECONNRESET;
        }
        c->buf_pos = 0;
        c->buf_end = direct ? 0 : got;
        to += direct ? got : 0;
        bytes -= direct ? got : 0;
    }
    return 0;
}

int coroutine_fn nbd_read_iov(NbdConnection *c, BlockIOVec *iov,
                              int64_t iov_offset, int64_t bytes)
{
    int ret = 0;

    for (int i = 0; ret == 0 && i < iov->niov && bytes > 0; i++) {
        int64_t length = iov->iov[i].iov_len;

        if (iov_offset < length) {
            int64_t n = MIN(length - iov_offset, bytes);

            ret = nbd_read(c, (uint8_t *)iov->iov[i].iov_base + iov_offset, n);
            bytes -= n;
            iov_offset = length;
        }
        iov_offset -= length;
    }
    return ret;
}

int coroutine_fn nbd_skip(NbdConnection *c, uint64_t bytes)
{
    uint8_t scrap[512];
    int ret = 0;

    while (ret == 0 && bytes > 0) {
        size_t n = MIN(bytes, sizeof(scrap));

        ret = nbd_read(c, scrap, n);
        bytes -= n;
    }
    return ret;
}

size_t nbd_encode(const NbdExportInfo *info, const NbdRequest *req,
                  uint8_t out[NBD_EXTENDED_REQUEST_BYTES])
{
    be_put32(out, info->extended ? NBD_EXTENDED_REQUEST_MAGIC
                                 : NBD_REQUEST_MAGIC);
    be_put16(out + 4, req->flags);
    be_put16(out + 6, req->type);
    memcpy(out + 8, &req->cookie, 8); /* only we read it */
    be_put64(out + 16, req->offset);
    if (info->extended) {
        be_put64(out + 24, req->bytes);
        return NBD_EXTENDED_REQUEST_BYTES;
    }
    be_put32(out + 24, req->bytes);
    return NBD_REQUEST_BYTES;
}

/* --- connecting ----------------------------------------------------------- */

static void drop_channel(NbdConnection *c)
{
    c->ready = false;
    c->buf_pos = c->buf_end = 0;
    if (c->channel) {
        io_channel_shutdown(c->channel); /* somebody may be writing still */
    }
    g_clear_pointer(&c->channel, io_channel_unref);
}

int coroutine_fn nbd_connect(NbdConnection *c, int64_t deadline_ns,
                             GError **errp)
{
    NbdClient *s = c->client;
    int64_t end = MIN(deadline_ns, aio_clock_ns(s->ctx) + GREETING_NS);
    NbdExportInfo info = { 0 };
    int fd, ret;

    ret = socket_co_connect(s->address, end, &c->attempt, &fd, errp);
    if (ret < 0) {
        return ret;
    }
    c->channel = io_channel_new_socket(fd);
    io_channel_watch_peer(c->channel, s->peer_timeout_s);
    c->channel->read_deadline_ns = end;
    c->channel->write_patience_ns = GREETING_NS;
    ret = s->closing ? -ECANCELED : nbd_greet(c, &info, errp);
    if (ret == 0 && s->closing) {
        ret = -ECANCELED;
    }
    if (ret < 0) {
        if (errp && !*errp) {
            block_error_errno(errp, -ret, "The NBD server does not answer as "
                              "it should");
        }
        drop_channel(c);
        return ret;
    }
    c->channel->read_deadline_ns = AIO_NO_DEADLINE;
    c->channel->write_patience_ns = 0;
    c->info = info;
    c->born = ++s->nr_made;
    c->silent = false;
    c->ready = true;
    return 0;
}

/* --- the life of a connection --------------------------------------------- */

static bool any_ready(const NbdClient *s)
{
    for (unsigned i = 0; i < s->nr_conns; i++) {
        if (s->conns[i].ready) {
            return true;
        }
    }
    return false;
}

/* Until then requests wait for a connection; but those of an image no longer
 * than it may take. */
static int64_t patient_until_ns(const NbdClient *s)
{
    return MIN(s->lost_ns + s->reconnect_ns,
               image_request_deadline_ns(s->bs));
}

/* Those who wait in vain go on; the timer. */
static void patience_over(void *opaque)
{
    NbdClient *s = opaque;
    int64_t end_ns = s->lost_ns + s->reconnect_ns;

    if (aio_clock_ns(s->ctx) < end_ns) {
        aio_timer_set(s->patience, end_ns); /* that was for an image */
    }
    co_queue_restart_all(&s->waiting);
}

/* Requests that were sent get -ENOTCONN: they are tried again elsewhere. */
static void lose(NbdConnection *c)
{
    NbdClient *s = c->client;

    if (c->in_flight > 0) {
        tcp_abandon(aio_socket_fd(c->channel->socket)); /* S2 */
    }
    drop_channel(c);
    for (int i = 0; i < NBD_IN_FLIGHT_MAX; i++) {
        NbdRequest *req = c->requests[i];

        if (req) {
            if (c->silent && req->silent_ns == 0) {
                req->silent_ns = aio_clock_ns(s->ctx);
            }
            nbd_finish_request(c, req, -ENOTCONN);
        }
    }
    /* A server that drops us again and again has not been back. */
    if (!any_ready(s) && (c->of_use || s->lost_ns == 0)) {
        s->lost_ns = aio_clock_ns(s->ctx);
        if (s->reconnect_ns > 0) {
            aio_timer_set(s->patience, s->lost_ns + s->reconnect_ns);
        }
    }
    co_queue_restart_all(&s->waiting);
}

void nbd_warn(NbdClient *s, const char *what)
{
    uint64_t left_out;

    if (log_limit_allows(&s->log_limit, aio_clock_ns(s->ctx), &left_out)) {
        g_warning("Node '%s': the NBD server %s%s", bdrv_node_name(s->bs),
                  what, left_out ? ", again and again" : "");
    }
}

/* Whether the server still exports what was opened. */
static int check_same(const NbdConnection *c)
{
    const NbdExportInfo *then = &c->client->info, *now = &c->info;

    if (now->bytes != then->bytes || now->min_block > then->min_block ||
        now->max_block < then->max_block ||
        (then->extended && !now->extended) ||
        (then->has_context && !now->has_context) ||
        (then->flags & ~now->flags &
         ~(unsigned)(NBD_FLAG_READ_ONLY | NBD_FLAG_ROTATIONAL)) ||
        (now->flags & ~then->flags & NBD_FLAG_READ_ONLY)) {
        nbd_warn(c->client, "offers another export than before");
        return -EINVAL;
    }
    return 0;
}

static int coroutine_fn connect_again(NbdConnection *c)
{
    int ret = nbd_connect(c, AIO_NO_DEADLINE, NULL);

    if (ret == 0) {
        ret = check_same(c);
        if (ret < 0) {
            drop_channel(c);
        }
    }
    return ret;
}

static void coroutine_fn life_entry(void *opaque)
{
    NbdConnection *c = opaque;
    NbdClient *s = c->client;
    int64_t pause_ns = PAUSE_MIN_NS;

    while (!s->closing) {
        if (c->ready || connect_again(c) == 0) {
            co_queue_restart_all(&s->waiting);
            c->ready_ns = aio_clock_ns(s->ctx);
            c->of_use = false;
            nbd_read_replies(c);
            c->of_use |= aio_clock_ns(s->ctx) - c->ready_ns > PAUSE_MAX_NS;
            lose(c);
            if (c->of_use) {
                pause_ns = PAUSE_MIN_NS;
                continue;
            }
        }
        if (!s->closing) {
            SIM_WAITS("the next attempt to connect", s);
            co_sleep_ns_wakeable(&c->pause, pause_ns);
            pause_ns = MIN(2 * pause_ns, PAUSE_MAX_NS);
        }
    }
    c->ended = true;
    co_queue_restart_all(&s->waiting);
}

void nbd_keep_connected(NbdConnection *c)
{
    c->ended = false;
    c->co = coroutine_create(life_entry, c);
    aio_co_schedule(c->client->ctx, c->co);
}

void coroutine_fn nbd_disconnect(NbdConnection *c)
{
    const NbdRequest farewell = { .type = NBD_CMD_DISC };
    NbdClient *s = c->client;

    s->closing = true;
    if (c->ready) {
        uint8_t head[NBD_EXTENDED_REQUEST_BYTES];
        size_t bytes = nbd_encode(&c->info, &farewell, head);

        IoChannel *channel = io_channel_ref(c->channel);

        /* No request is in flight, so nobody else writes; but the connection
         * may be lost meanwhile. */
        channel->write_patience_ns = FAREWELL_NS;
        io_channel_write_all(channel, head, bytes);
        io_channel_unref(channel);
    }
    socket_attempt_end(&c->attempt);
    if (c->channel) {
        io_channel_shutdown(c->channel);
    }
    co_sleep_wake(&c->pause);
    while (c->co && !c->ended) {
        SIM_WAITS("the end of a connection", s);
        co_queue_wait(&s->waiting, NULL);
    }
    drop_channel(c);
    g_clear_pointer(&c->buf, g_free);
}

/* --- choosing ------------------------------------------------------------- */

static NbdConnection *least_busy(NbdClient *s)
{
    NbdConnection *best = NULL;

    for (unsigned i = 0; i < s->nr_conns; i++) {
        NbdConnection *c = &s->conns[i];

        if (c->ready && (!best || c->in_flight < best->in_flight)) {
            best = c;
        }
    }
    return best;
}

/* Whether requests wait for a connection that is not there. */
static bool patient(const NbdClient *s)
{
    return s->reconnect_ns > 0 && !s->drained &&
           aio_clock_ns(s->ctx) < patient_until_ns(s);
}

bool nbd_is_hopeless(const NbdClient *s)
{
    return s->drained && s->silent_ns > 0 &&
           aio_clock_ns(s->ctx) < s->silent_ns + s->request_timeout_ns;
}

NbdConnection *coroutine_fn nbd_pick_connection(NbdClient *s)
{
    for (;;) {
        NbdConnection *c = least_busy(s);

        if (nbd_is_hopeless(s) || (!c && !patient(s))) {
            return NULL;
        }
        if (c && c->in_flight < NBD_IN_FLIGHT_MAX) {
            return c;
        }
        if (!c) {
            aio_timer_set(s->patience, patient_until_ns(s));
        }
        SIM_WAITS("a connection to a server", s);
        co_queue_wait(&s->waiting, NULL);
    }
}

static NbdConnection *oldest(NbdClient *s)
{
    NbdConnection *best = NULL;

    for (unsigned i = 0; i < s->nr_conns; i++) {
        NbdConnection *c = &s->conns[i];

        if (c->ready && (!best || c->born < best->born)) {
            best = c;
        }
    }
    return best;
}

NbdConnection *coroutine_fn nbd_pick_old_connection(NbdClient *s, uint64_t era)
{
    for (;;) {
        NbdConnection *c = oldest(s);

        if (!c || c->born > era || nbd_is_hopeless(s)) {
            return NULL;
        }
        if (c->in_flight < NBD_IN_FLIGHT_MAX) {
            return c;
        }
        /* We may have been woken for a place in another connection.  There is
         * one flush at a time, so this does not go round. */
        co_queue_next(&s->waiting);
        SIM_WAITS("a connection to a server", s);
        co_queue_wait(&s->waiting, NULL);
    }
}

/* --- timers --------------------------------------------------------------- */

/* When the first request of @c has had its time. */
static int64_t first_end_ns(const NbdConnection *c)
{
    int64_t end_ns = AIO_NO_DEADLINE;

    for (int i = 0; i < NBD_IN_FLIGHT_MAX; i++) {
        if (c->requests[i]) {
            end_ns = MIN(end_ns, c->requests[i]->end_ns);
        }
    }
    return end_ns;
}

/* The reader notices, and all that is in flight ends. */
static void silence_over(void *opaque)
{
    NbdConnection *c = opaque;
    NbdClient *s = c->client;
    int64_t end_ns = first_end_ns(c);

    if (!c->ready || end_ns == AIO_NO_DEADLINE) {
        return;
    }
    if (aio_clock_ns(s->ctx) < end_ns) {
        aio_timer_set(c->silence, end_ns);
        return;
    }
    nbd_warn(s, "does not answer: the connection is given up");
    c->silent = true;
    s->silent_ns = aio_clock_ns(s->ctx);
    io_channel_shutdown(c->channel);
}

void nbd_limit_time(NbdConnection *c, NbdRequest *req)
{
    NbdClient *s = c->client;

    req->end_ns = image_request_deadline_ns(s->bs);
    if (s->request_timeout_ns > 0) {
        req->end_ns = MIN(req->end_ns,
                          aio_clock_ns(s->ctx) + s->request_timeout_ns);
    }
    if (req->end_ns != AIO_NO_DEADLINE && first_end_ns(c) == req->end_ns) {
        aio_timer_set(c->silence, req->end_ns);
    }
}

void nbd_client_init_timers(NbdClient *s)
{
    s->patience = aio_timer_new(s->ctx, patience_over, s);
    for (unsigned i = 0; i < s->nr_conns; i++) {
        s->conns[i].silence = aio_timer_new(s->ctx, silence_over,
                                            &s->conns[i]);
    }
}

void nbd_client_free_timers(NbdClient *s)
{
    aio_timer_free(s->patience);
    for (unsigned i = 0; i < NBD_CONNECTIONS_MAX; i++) {
        if (s->conns[i].silence) {
            aio_timer_free(s->conns[i].silence);
        }
    }
}
