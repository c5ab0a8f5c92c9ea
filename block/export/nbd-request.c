/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests: reading them from the stream, and doing them.
 *
 * The reader takes as many bytes as there are, starts a coroutine for each
 * request in them, and waits for more.  It stops reading while the client has
 * all the requests or memory in flight that it may have: then the stream fills
 * up, and the client waits.
 *
 * Q1  A length is compared with its limit before anything is done with it.
 * Q2  After a header that cannot be understood the stream is of no use: it is
 *     ended.  A request that is merely wrong is answered; its payload, if it
 *     has one, has been read.
 * Q3  A client's own limits are below those of the server, so one client that
 *     keeps its memory keeps nobody else from having some.
 * Q4  A client that ends its side of the stream may listen still: the protocol
 *     wants all done that it sent before NBD_CMD_DISC, and some clients say
 *     nothing more behind that.  So an end is no reason to drop anything.  But
 *     who is known to take no answers may have come back, and have sent again,
 *     and changed, what waits here unread.
 */
#include "block/export/nbd-int.h"
#include "util/tcp-peer.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

/* What a large request without data is cut into. */
#define STEP_BYTES (INT64_C(1) << 30)

/* A client may keep so much memory while it is idle. */
#define IDLE_BYTES (16 * 1024)
#define IDLE_NS (INT64_C(1000) * 1000 * 1000)

/* Between looks at whether a client takes what it was sent. */
#define ASK_PEER_NS (INT64_C(1000) * 1000)

/* What must come of a payload within the client's patience, or the rest. */
#define PROGRESS_BYTES (64 * 1024)

G_STATIC_ASSERT(NBD_PAYLOAD_MAX <= NBD_CLIENT_BYTES_MAX);

/* --- the stream ---------------------------------------------------------- */

static bool is_idle(const NbdClient *client)
{
    return client->nr_in_flight == 0 && !client->sending &&
           !client->flush_scheduled;
}

static void trim(NbdClient *client)
{
    nbd_buffers_trim(&client->buffers);
    while (client->spare_requests) {
        NbdRequest *req = client->spare_requests;

        client->spare_requests = req->next;
        g_free(req);
    }
}

/* An idle client needs little memory: what a second has not used goes. */
static void trim_timer_fired(void *opaque)
{
    NbdClient *client = opaque;

    if (is_idle(client) && client->trim_seen == client->nr_requests) {
        trim(client);
        return;
    }
    client->trim_seen = client->nr_requests;
    aio_timer_set(client->trim_timer,
                  aio_clock_ns(aio_get_current()) + IDLE_NS);
}

/* Read some bytes to the vector. */
static int64_t coroutine_fn read_some(NbdClient *client,
                                      const struct iovec *iov, int niov)
{
    int64_t ret;

    client->parsing = false;
    nbd_reply_flush(client);
    ret = io_channel_readv(client->channel, iov, niov);
    client->parsing = true;
    return ret;
}

/*
 * The next @bytes bytes of the stream, which stay valid until the next call.
 * Returns 1; 0 at the end of the stream; or a negative errno.
 */
static int coroutine_fn take_ahead(NbdClient *client, size_t bytes,
                                   const uint8_t **ret)
{
    g_assert(bytes <= NBD_AHEAD_BYTES);
    while (client->ahead_end - client->ahead_start < bytes) {
        struct iovec iov;
        int64_t got;

        if (client->ahead_start > 0) {
            client->ahead_end -= client->ahead_start;
            memmove(client->ahead, client->ahead + client->ahead_start,
                    client->ahead_end);
            client->ahead_start = 0;
        }
        iov.iov_base = client->ahead + client->ahead_end;
        iov.iov_len = NBD_AHEAD_BYTES - client->ahead_end;
        got = read_some(client, &iov, 1);
        if (got <= 0) {
            return got < 0 || client->ahead_end == 0 ? got : -ECONNRESET;
        }
        client->ahead_end += got;
    }
    *ret = client->ahead + client->ahead_start;
    client->ahead_start += bytes;
    return 1;
}

/* A payload begins.  The time for it runs on from one read to the next: drops
 * that each come in time would keep its memory for ever. */
static void begin_payload(NbdClient *client)
{
    client->progress = PROGRESS_BYTES;
}

static void end_payload(NbdClient *client)
{
    client->channel->read_deadline_ns = AIO_NO_DEADLINE;
}

static void give_time(NbdClient *client)
{
    if (client->progress >= PROGRESS_BYTES) {
        client->channel->read_deadline_ns =
            aio_clock_ns(aio_get_current()) + client->server->patience_ns;
        client->progress = 0;
    }
}

/* Read @bytes bytes to @buf, and what follows ahead. */
static int coroutine_fn take_payload(NbdClient *client, uint8_t *buf,
                                     size_t bytes)
{
    size_t at_hand = MIN(bytes, client->ahead_end - client->ahead_start);

    memcpy(buf, client->ahead + client->ahead_start, at_hand);
    client->ahead_start += at_hand;
    buf += at_hand;
    bytes -= at_hand;
    if (bytes > 0) {
        g_assert(client->ahead_start == client->ahead_end);
        client->ahead_start = 0;
        client->ahead_end = 0;
    }
    while (bytes > 0) {
        struct iovec iov[2] = {
            { buf, bytes },
            { client->ahead, NBD_AHEAD_BYTES },
        };
        int64_t got;

        give_time(client);
        got = io_channel_readv(client->channel, iov, 2);
        if (got <= 0) {
            return got < 0 ? got : -ECONNRESET;
        }
        client->progress += got;
        if ((size_t)got > bytes) {
            client->ahead_end = got - bytes;
            got = bytes;
        }
        buf += got;
        bytes -= got;
    }
    return 0;
}

static int coroutine_fn skip_payload(NbdClient *client, uint64_t bytes)
{
    uint8_t scrap[512];
    int ret = 0;

    while (bytes > 0 && ret == 0) {
        size_t part = MIN(bytes, sizeof(scrap));

        ret = take_payload(client, scrap, part);
        bytes -= part;
    }
    return ret;
}

/* --- headers ------------------------------------------------------------- */

/* The range that a header names. */
typedef struct Range {
    Untrusted offset;
    Untrusted bytes;
} Range;

/* Returns 1, 0 at the end of the stream, or a negative errno (Q2). */
static int coroutine_fn read_header(NbdClient *client, NbdRequest *req,
                                    Range *range)
{
    bool extended = client->extended;
    const uint8_t *at = NULL;
    int ret = take_ahead(client, extended ? NBD_EXTENDED_REQUEST_BYTES
                                          : NBD_REQUEST_BYTES, &at);

    if (ret <= 0) {
        return ret;
    }
    if (!untrusted_is(untrusted_be32(at), extended
                                              ? NBD_EXTENDED_REQUEST_MAGIC
                                              : NBD_REQUEST_MAGIC)) {
        return -EINVAL;
    }
    req->flags = untrusted_bits(untrusted_be16(at + 4), UINT16_MAX);
    req->type = untrusted_bits(untrusted_be16(at + 6), UINT16_MAX);
    req->cookie = untrusted_verbatim(untrusted_be64(at + 8));
    range->offset = untrusted_be64(at + 16);
    range->bytes = extended ? untrusted_be64(at + 24)
                            : untrusted_be32(at + 24);
    req->offset_said = untrusted_verbatim(range->offset);
    return 1;
}

/* Whether bytes follow the header. */
static bool has_payload(const NbdRequest *req)
{
    return req->type == NBD_CMD_WRITE ||
           (req->client->extended && (req->flags & NBD_CMD_FLAG_PAYLOAD_LEN));
}

static bool is_write(uint16_t type)
{
    return type == NBD_CMD_WRITE || type == NBD_CMD_TRIM ||
           type == NBD_CMD_WRITE_ZEROES;
}

static uint16_t allowed_flags(const NbdRequest *req)
{
    switch (req->type) {
    case NBD_CMD_READ:
        return NBD_CMD_FLAG_FUA |
               (req->client->structured ? NBD_CMD_FLAG_DF : 0);
    case NBD_CMD_WRITE:
        return NBD_CMD_FLAG_FUA |
               (req->client->extended ? NBD_CMD_FLAG_PAYLOAD_LEN : 0);
    case NBD_CMD_WRITE_ZEROES:
        return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE |
               NBD_CMD_FLAG_FAST_ZERO;
    case NBD_CMD_BLOCK_STATUS:
        return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_REQ_ONE;
    default:
        return NBD_CMD_FLAG_FUA;
    }
}

/* Q1.  Whether the payload of @req, if it has one, may be read; then its length
 * is that of the request. */
static bool check_payload(NbdRequest *req, const Range *range)
{
    req->offset = 0;
    req->bytes = 0;
    return !has_payload(req) ||
           untrusted_at_most(range->bytes, NBD_PAYLOAD_MAX, &req->bytes);
}

/* What is wrong with @req, which gets its range if it has a good one: an error
 * of NBD, or 0 (Q1). */
static int check_request(NbdRequest *req, const Range *range)
{
    const NbdExport *e = req->client->e;

    if (req->type == NBD_CMD_DISC || req->type > NBD_CMD_BLOCK_STATUS ||
        (req->flags & ~allowed_flags(req))) {
        return NBD_EINVAL;
    }
    if (req->type == NBD_CMD_FLUSH) {
        return untrusted_is(range->offset, 0) && untrusted_is(range->bytes, 0)
                   ? 0 : NBD_EINVAL;
    }
    if (is_write(req->type) && !e->exp.writable) {
        return NBD_EPERM;
    }
    if (!untrusted_at_most(range->bytes, e->size, &req->bytes) ||
        !untrusted_at_most(range->offset, e->size - (int64_t)req->bytes,
                           &req->offset)) {
        return is_write(req->type) && req->type != NBD_CMD_TRIM ? NBD_ENOSPC
                                                                : NBD_EINVAL;
    }
    if (req->type == NBD_CMD_READ && req->bytes > NBD_PAYLOAD_MAX) {
        return req->client->extended ? NBD_EOVERFLOW : NBD_EINVAL;
    }
    if (req->type == NBD_CMD_BLOCK_STATUS &&
        (!req->client->contexts || req->bytes == 0)) {
        return NBD_EINVAL;
    }
    return 0;
}

/* --- life ---------------------------------------------------------------- */

static NbdRequest *request_new(NbdClient *client)
{
    NbdRequest *req = client->spare_requests;

    if (req) {
        client->spare_requests = req->next;
    } else {
        req = g_new(NbdRequest, 1);
    }
    req->client = client;
    req->buf = NULL;
    req->error = 0;
    req->chunks = NULL;
    req->charged = 0;
    req->next = NULL;
    req->head_bytes = 0;
    req->body = NULL;
    req->body_bytes = 0;
    return req;
}

static void request_free(NbdRequest *req)
{
    NbdClient *client = req->client;

    if (req->buf) {
        nbd_buffer_put(&client->buffers, req->buf, req->buf_bytes);
    }
    if (req->chunks) {
        g_byte_array_unref(req->chunks);
    }
    req->next = client->spare_requests;
    client->spare_requests = req;
}

void nbd_request_done(NbdRequest *req)
{
    NbdClient *client = req->client;

    if (req->charged) {
        client->bytes_in_flight -= req->charged;
        mem_budget_give(&client->server->memory, req->charged);
    }
    request_free(req);
    client->nr_in_flight--;
    if (client->buffers.spare_bytes > IDLE_BYTES &&
        !aio_timer_pending(client->trim_timer)) {
        client->trim_seen = client->nr_requests;
        aio_timer_set(client->trim_timer,
                      aio_clock_ns(aio_get_current()) + IDLE_NS);
    }
    co_queue_restart_all(&client->room);
}

static bool has_room(const NbdClient *client, int64_t bytes)
{
    return client->nr_in_flight < NBD_REQUESTS_MAX &&
           client->bytes_in_flight + bytes <= NBD_CLIENT_BYTES_MAX;
}

/* N2, Q3.  Wait until @req may be in flight, and count it.  Returns whether
 * that took time. */
static bool coroutine_fn request_count(NbdRequest *req, int64_t bytes)
{
    NbdClient *client = req->client;
    bool waited = false;

    while (!has_room(client, bytes)) {
        waited = true;
        client->parsing = false;
        nbd_reply_flush(client);
        if (!has_room(client, bytes)) {
            co_queue_wait(&client->room, NULL);
        }
        client->parsing = true;
    }
    client->nr_in_flight++;
    client->nr_requests++;
    if (bytes > 0) {
        client->bytes_in_flight += bytes;
        mem_budget_take(&client->server->memory, bytes);
        req->charged = bytes;
    }
    return waited;
}

/* --- doing --------------------------------------------------------------- */

/* Whether nobody waits for answers any more.  What was not begun by then never
 * is: the client may have sent it again, and something newer, over another
 * connection. */
static bool is_over(const NbdClient *client)
{
    return client->broken || atomic_load(&client->cut_off);
}

/* is_over(), also if nothing has told us yet. */
static bool has_gone(const NbdClient *client)
{
    int fd = aio_socket_fd(client->channel->socket);

    return is_over(client) || socket_peer_state(fd) == PEER_GONE;
}

/*
 * Q4.  There was no room for long enough that the client may have come back and
 * be gone here.  Something has just been sent to it, which settles that.
 */
static bool coroutine_fn has_gone_meanwhile(const NbdClient *client)
{
    int fd = aio_socket_fd(client->channel->socket);

    while (!is_over(client) && socket_peer_state(fd) == PEER_UNSURE) {
        co_sleep_ns(ASK_PEER_NS);
    }
    return has_gone(client);
}

static int coroutine_fn do_transfer(NbdRequest *req)
{
    BlockBackend *blk = req->client->e->exp.blk;
    BlockIOVec iov = { .iov = &req->piece, .niov = 1, .size = req->bytes };

    if (req->bytes == 0) {
        return 0;
    }
    req->piece = (struct iovec) { req->buf, req->bytes };
    if (req->type == NBD_CMD_READ) {
        return blk_co_preadv(blk, req->offset, req->bytes, &iov, 0);
    }
    return blk_co_pwritev(blk, req->offset, req->bytes, &iov,
                          req->flags & NBD_CMD_FLAG_FUA ? BDRV_REQ_FUA : 0);
}

static int coroutine_fn do_step(NbdRequest *req, int64_t offset, int64_t bytes)
{
    BlockBackend *blk = req->client->e->exp.blk;
    unsigned flags = 0;
    int ret;

    switch (req->type) {
    case NBD_CMD_TRIM:
        return blk_co_pdiscard(blk, offset, bytes);
    case NBD_CMD_CACHE:
        ret = blk_co_preadv(blk, offset, bytes, NULL, BDRV_REQ_PREFETCH);
        return ret == -ENOTSUP ? 0 : ret;   /* a hint: there is no cache */
    default:
        if (!(req->flags & NBD_CMD_FLAG_NO_HOLE)) {
            flags |= BDRV_REQ_MAY_UNMAP;
        }
        if (req->flags & NBD_CMD_FLAG_FUA) {
            flags |= BDRV_REQ_FUA;
        }
        if (req->flags & NBD_CMD_FLAG_FAST_ZERO) {
            flags |= BDRV_REQ_NO_FALLBACK;
        }
        return blk_co_pwrite_zeroes(blk, offset, bytes, flags);
    }
}

/* What carries no data may be very long: others get their turn in between. */
static int coroutine_fn do_long(NbdRequest *req)
{
    int64_t offset = req->offset;
    int64_t left = req->bytes;
    int ret = 0;

    while (left > 0 && ret == 0) {
        int64_t step = MIN(left, STEP_BYTES);

        if (req->type == NBD_CMD_CACHE) {
            step = MIN(step, NBD_PAYLOAD_MAX);
        }
        ret = do_step(req, offset, step);
        offset += step;
        left -= step;
        if (left > 0 && ret == 0) {
            co_sleep_ns(0);
            ret = (nbd_turn_pass(req) ? has_gone(req->client)
                                      : is_over(req->client))
                      ? -ESHUTDOWN : 0;
        }
    }
    if (ret == 0 && req->type == NBD_CMD_TRIM &&
        (req->flags & NBD_CMD_FLAG_FUA)) {
        ret = blk_co_flush(req->client->e->exp.blk);
    }
    return ret;
}

static int coroutine_fn do_request(NbdRequest *req)
{
    switch (req->type) {
    case NBD_CMD_READ:
    case NBD_CMD_WRITE:
        return do_transfer(req);
    case NBD_CMD_FLUSH:
        return blk_co_flush(req->client->e->exp.blk);
    case NBD_CMD_BLOCK_STATUS:
        return nbd_block_status(req);
    default:
        return do_long(req);
    }
}

static void coroutine_fn request_entry(void *opaque)
{
    NbdRequest *req = opaque;
    bool ordered = is_write(req->type) && req->bytes > 0;
    bool waited = ordered && nbd_order_begin(req);
    bool over;
    int ret;

    waited |= nbd_turn_begin(req);
    over = waited ? has_gone(req->client) : is_over(req->client);
    ret = over ? -ESHUTDOWN : do_request(req);
    nbd_turn_end(req);
    if (ordered) {
        nbd_order_end(req);
    }
    req->error = nbd_error_of(-ret);
    nbd_reply(req);
}

/* --- the reader ---------------------------------------------------------- */

/* Get memory for @req, which is in flight, and what follows its header. */
static int coroutine_fn prepare(NbdRequest *req)
{
    NbdClient *client = req->client;
    bool carries = req->type == NBD_CMD_READ || req->type == NBD_CMD_WRITE;
    int ret;

    if (carries && req->bytes > 0 && (!req->error || has_payload(req))) {
        req->buf = nbd_buffer_get(&client->buffers, req->bytes);
        req->buf_bytes = req->bytes;
        if (!req->buf) {
            req->error = req->error ? req->error : NBD_ENOMEM;
        }
    }
    if (!has_payload(req)) {
        return 0;
    }
    begin_payload(client);
    ret = req->buf ? take_payload(client, req->buf, req->bytes)
                   : skip_payload(client, req->bytes);
    end_payload(client);
    return ret;
}

/* One request.  Returns 1; 0 when the client leaves; or a negative errno. */
static int coroutine_fn serve_one(NbdClient *client)
{
    NbdRequest *req = request_new(client);
    int64_t bytes = 0;
    Range range;
    bool waited;
    int ret = read_header(client, req, &range);

    if (ret <= 0 || req->type == NBD_CMD_DISC ||
        !check_payload(req, &range)) {                          /* Q2 */
        request_free(req);
        return ret < 0 ? ret : 0;
    }
    req->error = check_request(req, &range);
    if (has_payload(req) || (req->type == NBD_CMD_READ && !req->error)) {
        bytes = req->bytes;
    } else if (req->type == NBD_CMD_BLOCK_STATUS && !req->error) {
        bytes = nbd_block_status_memory(client);
    }
    waited = request_count(req, bytes);
    ret = prepare(req);
    if (ret == 0 && (waited ? has_gone_meanwhile(client) : is_over(client))) {
        ret = -ECONNRESET;
    }
    if (ret < 0) {
        nbd_request_done(req);
        return ret;
    }
    if (req->error) {
        nbd_reply(req);
    } else {
        coroutine_enter(coroutine_create(request_entry, req));
    }
    return 1;
}

void coroutine_fn nbd_serve(NbdClient *client)
{
    int ret;

    client->ahead = g_malloc(NBD_AHEAD_BYTES);
    client->ahead_start = 0;
    client->ahead_end = 0;
    client->queue_tail = &client->queue;
    client->trim_timer = aio_timer_new(aio_get_current(), trim_timer_fired,
                                       client);
    client->parsing = true;
    nbd_turn_client_init(client);
    do {
        ret = serve_one(client);
    } while (ret > 0);
    client->parsing = false;
    if (ret < 0) {
        client->broken = true;
        io_channel_shutdown(client->channel);
    }
    nbd_reply_flush(client);
    while (!is_idle(client)) {
        co_queue_wait(&client->room, NULL);
    }
    g_clear_pointer(&client->trim_timer, aio_timer_free);
    trim(client);
    g_clear_pointer(&client->ahead, g_free);
}
