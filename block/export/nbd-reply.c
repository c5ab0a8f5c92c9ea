/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Replies.
 *
 * A reply that is ready waits for others: until the end of the turn of the
 * loop, or until the replies of all requests in flight are there.  Then one
 * send carries them all.  The coroutine that sends goes on while there are
 * more, and ends then; so an idle connection has none.
 */
#include "block/export/nbd-int.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

/* Pieces of one send; a reply has at most two. */
#define SEND_PIECES 256

/* A reply of this size gains nothing by company, but is in the cache now. */
#define SEND_AT_ONCE (64 * 1024)

int nbd_error_of(int err)
{
    switch (err) {
    case 0:
        return NBD_SUCCESS;
    case EPERM:
    case EACCES:
    case EROFS:
        return NBD_EPERM;
    case ENOMEM:
        return NBD_ENOMEM;
    case EINVAL:
        return NBD_EINVAL;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return NBD_ENOSPC;
    case EOVERFLOW:
        return NBD_EOVERFLOW;
    case EOPNOTSUPP:
        return NBD_ENOTSUP;
    case ESHUTDOWN:
        return NBD_ESHUTDOWN;
    default:
        return NBD_EIO;
    }
}

/* --- making -------------------------------------------------------------- */

/* Returns where the chunk goes on. */
static uint8_t *store_chunk(const NbdRequest *req, uint8_t *at, uint16_t flags,
                            uint16_t type, uint64_t bytes)
{
    bool extended = req->client->extended;

    be_put32(at, extended ? NBD_EXTENDED_REPLY_MAGIC
                          : NBD_STRUCTURED_REPLY_MAGIC);
    be_put16(at + 4, flags);
    be_put16(at + 6, type);
    be_put64(at + 8, req->cookie);
    if (extended) {
        be_put64(at + 16, req->offset_said);
        be_put64(at + 24, bytes);
        return at + NBD_EXTENDED_REPLY_BYTES;
    }
    be_put32(at + 16, bytes);
    return at + NBD_STRUCTURED_REPLY_BYTES;
}

void nbd_put_chunk_header(const NbdRequest *req, GByteArray *to,
                          uint16_t flags, uint16_t type, uint64_t bytes)
{
    uint8_t head[NBD_EXTENDED_REPLY_BYTES];
    uint8_t *end = store_chunk(req, head, flags, type, bytes);

    g_byte_array_append(to, head, end - head);
}

static void make_simple(NbdRequest *req)
{
    uint8_t *at = req->head;

    be_put32(at, NBD_SIMPLE_REPLY_MAGIC);
    be_put32(at + 4, req->error);
    be_put64(at + 8, req->cookie);
    req->head_bytes = NBD_SIMPLE_REPLY_BYTES;
    if (!req->error && req->type == NBD_CMD_READ) {
        req->body = req->buf;
        req->body_bytes = req->bytes;
    }
}

static void make_chunk(NbdRequest *req)
{
    uint8_t *at = req->head;

    if (req->error) {
        at = store_chunk(req, at, NBD_REPLY_FLAG_DONE, NBD_REPLY_ERROR, 6);
        be_put32(at, req->error);
        be_put16(at + 4, 0);    /* no text */
        at += 6;
    } else if (req->type == NBD_CMD_READ && req->bytes > 0) {
        at = store_chunk(req, at, NBD_REPLY_FLAG_DONE, NBD_REPLY_OFFSET_DATA,
                         8 + req->bytes);
        be_put64(at, req->offset);
        at += 8;
        req->body = req->buf;
        req->body_bytes = req->bytes;
    } else {
        at = store_chunk(req, at, NBD_REPLY_FLAG_DONE, NBD_REPLY_NONE, 0);
    }
    req->head_bytes = at - req->head;
    g_assert(req->head_bytes <= sizeof(req->head));
}

static void make_reply(NbdRequest *req)
{
    if (!req->error && req->chunks) {
        req->body = req->chunks->data;
        req->body_bytes = req->chunks->len;
    } else if (req->client->structured) {
        make_chunk(req);
    } else {
        make_simple(req);
    }
}

/* --- sending ------------------------------------------------------------- */

/* Take requests off the queue that fit into @iov.  Returns the last one. */
static NbdRequest *gather(NbdClient *client, struct iovec *iov, int *ret_niov)
{
    NbdRequest *last = NULL;
    int niov = 0;

    while (client->queue && niov + 2 <= SEND_PIECES) {
        last = client->queue;
        client->queue = last->next;
        client->nr_queued--;
        if (last->head_bytes > 0) {
            iov[niov++] = (struct iovec) { last->head, last->head_bytes };
        }
        if (last->body_bytes > 0) {
            iov[niov++] = (struct iovec) { (void *)last->body,
                                           last->body_bytes };
        }
    }
    if (!client->queue) {
        client->queue_tail = &client->queue;
    }
    last->next = NULL;
    *ret_niov = niov;
    return last;
}

/* Not on the stack of the coroutine: that keeps the stacks small. */
typedef struct Batch {
    struct iovec iov[SEND_PIECES];
} Batch;

static void coroutine_fn send_entry(void *opaque)
{
    NbdClient *client = opaque;
    Batch *batch = g_new(Batch, 1);

    while (client->queue) {
        NbdRequest *first = client->queue;
        int niov;

        gather(client, batch->iov, &niov);
        if (!client->broken &&
            io_channel_writev_all(client->channel, batch->iov, niov) < 0) {
            client->broken = true;
            io_channel_shutdown(client->channel);
        }
        while (first) {
            NbdRequest *next = first->next;

            nbd_request_done(first);
            first = next;
        }
    }
    g_free(batch);
    client->sending = false;
    co_queue_restart_all(&client->room);
}

static void start_sending(NbdClient *client)
{
    Coroutine *co;

    if (client->sending || !client->queue) {
        return;
    }
    client->sending = true;
    co = coroutine_create(send_entry, client);
    if (in_coroutine()) {
        coroutine_enter(co);
    } else {
        aio_co_enter(aio_get_current(), co);
    }
}

static void flush_bh(void *opaque)
{
    NbdClient *client = opaque;

    client->flush_scheduled = false;
    start_sending(client);
    /* The end of the connection waits for us. */
    co_queue_restart_all(&client->room);
}

void nbd_reply_flush(NbdClient *client)
{
    if (client->nr_queued == client->nr_in_flight) {
        start_sending(client);
    }
}

void nbd_reply(NbdRequest *req)
{
    NbdClient *client = req->client;

    make_reply(req);
    req->next = NULL;
    *client->queue_tail = req;
    client->queue_tail = &req->next;
    client->nr_queued++;
    if (client->sending) {
        return;                 /* it finds this one, too */
    }
    if (req->body_bytes >= SEND_AT_ONCE ||
        (!client->parsing && client->nr_queued == client->nr_in_flight)) {
        start_sending(client);
    } else if (!client->flush_scheduled) {
        client->flush_scheduled = true;
        aio_bh_schedule_oneshot(aio_get_current(), flush_bh, client);
    }
}
