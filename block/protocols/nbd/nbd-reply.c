/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What an NBD server answers: simple replies, and structured ones in chunks
 * with 32-bit or 64-bit headers.
 *
 * Every error here (negative errno) means that the stream makes no sense any
 * more, so the connection is given up; what the server reports of a request is
 * that request's result.
 */
#include "block/protocols/nbd/nbd.h"

#include <errno.h>
#include <string.h>

G_STATIC_ASSERT((NBD_IN_FLIGHT_MAX & (NBD_IN_FLIGHT_MAX - 1)) == 0);

/* The head of a reply or of a chunk. */
typedef struct Chunk {
    uint16_t flags;
    uint16_t type;      /* NBD_REPLY_*; a simple reply is turned into one */
    Untrusted cookie;
    Untrusted bytes;    /* of payload */
    bool simple;
    uint32_t error;     /* of a simple reply */
} Chunk;

/* A negative errno for an error of the protocol. */
static int errno_of(uint32_t error)
{
    switch (error) {
    case NBD_EPERM:
        return -EPERM;
    case NBD_ENOMEM:
        return -ENOMEM;
    case NBD_EINVAL:
        return -EINVAL;
    case NBD_ENOSPC:
        return -ENOSPC;
    case NBD_EOVERFLOW:
        return -EOVERFLOW;
    case NBD_ENOTSUP:
        return -ENOTSUP;
    case NBD_ESHUTDOWN:
        return -ESHUTDOWN;
    default:
        return -EIO;
    }
}

/* --- the table of requests ------------------------------------------------ */

NbdRequest *nbd_find_request(NbdConnection *c, Untrusted cookie)
{
    NbdRequest *req = c->requests[untrusted_bits(cookie,
                                                 NBD_IN_FLIGHT_MAX - 1)];

    return req && untrusted_is(cookie, req->cookie) ? req : NULL;
}

void nbd_finish_request(NbdConnection *c, NbdRequest *req, int ret)
{
    c->requests[req->cookie % NBD_IN_FLIGHT_MAX] = NULL;
    c->in_flight--;
    req->ret = ret;
    req->done = true;
    if (req->co) {
        aio_co_wake(req->co);
    }
    co_queue_next(&c->client->waiting);
}

/* --- chunks --------------------------------------------------------------- */

static int coroutine_fn read_head(NbdConnection *c, Chunk *chunk)
{
    uint8_t p[NBD_EXTENDED_REPLY_BYTES];
    Untrusted magic;
    int ret = nbd_read(c, p, NBD_SIMPLE_REPLY_BYTES);

    if (ret < 0) {
        return ret;
    }
    magic = untrusted_be32(p);
    if (untrusted_is(magic, NBD_SIMPLE_REPLY_MAGIC) && !c->info.extended) {
        *chunk = (Chunk){ .flags = NBD_REPLY_FLAG_DONE, .simple = true,
                          .cookie = untrusted_raw64(p + 8),
                          .error = untrusted_verbatim(untrusted_be32(p + 4)) };
        return 0;
    }
    if (!untrusted_is(magic, c->info.extended ? NBD_EXTENDED_REPLY_MAGIC
                                              : NBD_STRUCTURED_REPLY_MAGIC) ||
        !c->info.structured) {
        return -EPROTO;
    }
    *chunk = (Chunk){
        .flags = untrusted_bits(untrusted_be16(p + 4), UINT16_MAX),
        .type = untrusted_bits(untrusted_be16(p + 6), UINT16_MAX),
        .cookie = untrusted_raw64(p + 8),
    };
    if (c->info.extended) {
        ret = nbd_read(c, p + 16, 16);
        chunk->bytes = untrusted_be64(p + 24);
    } else {
        ret = nbd_read(c, p + 16, 4);
        chunk->bytes = untrusted_be32(p + 16);
    }
    return ret;
}

/* Whether a part of a reply lies in the request, and the parts are not longer;
 * then where in the request it is, and its length. */
static bool fits(const NbdRequest *req, Untrusted offset, Untrusted bytes,
                 int64_t *ret_into, int64_t *ret_bytes)
{
    Untrusted into;

    return req->type == NBD_CMD_READ && !untrusted_is(bytes, 0) &&
           untrusted_at_most(bytes, req->bytes - req->got, ret_bytes) &&
           untrusted_subtract(offset, untrusted(req->offset), &into) &&
           untrusted_at_most(into, req->bytes - *ret_bytes, ret_into);
}

/* A reply in parts may leave something out, and repeat another: nothing of
 * what was in the buffer before is ever shown. */
static void begin_part(NbdRequest *req, int64_t bytes)
{
    if (bytes < req->bytes && !req->zeroed) {
        block_iov_memset(req->iov, 0, 0, req->bytes);
        req->zeroed = true;
    }
    req->got += bytes;
}

static int coroutine_fn take_data(NbdConnection *c, NbdRequest *req,
                                  const Chunk *chunk)
{
    uint8_t p[8];
    int64_t into, bytes;
    Untrusted rest;
    int ret;

    if (!untrusted_subtract(chunk->bytes, untrusted(sizeof(p)), &rest) ||
        untrusted_is(rest, 0)) {
        return -EPROTO;
    }
    ret = nbd_read(c, p, sizeof(p));
    if (ret < 0 || !fits(req, untrusted_be64(p), rest, &into, &bytes)) {
        return ret < 0 ? ret : -EPROTO;
    }
    begin_part(req, bytes);
    return nbd_read_iov(c, req->iov, into, bytes);
}

static int coroutine_fn take_hole(NbdConnection *c, NbdRequest *req,
                                  const Chunk *chunk)
{
    uint8_t p[12];
    int64_t into, bytes;
    int ret;

    if (!untrusted_is(chunk->bytes, sizeof(p))) {
        return -EPROTO;
    }
    ret = nbd_read(c, p, sizeof(p));
    if (ret < 0 || !fits(req, untrusted_be64(p), untrusted_be32(p + 8), &into,
                         &bytes)) {
        return ret < 0 ? ret : -EPROTO;
    }
    begin_part(req, bytes);
    block_iov_memset(req->iov, into, 0, bytes);
    return 0;
}

/* The first extent is all that was asked for. */
static int coroutine_fn take_status(NbdConnection *c, NbdRequest *req,
                                    const Chunk *chunk)
{
    bool wide = chunk->type == NBD_REPLY_BLOCK_STATUS_EXT;
    size_t head = wide ? 8 : 4, each = wide ? 16 : 8, all;
    uint8_t p[24];
    int ret;

    if (req->type != NBD_CMD_BLOCK_STATUS || wide != c->info.extended ||
        !untrusted_at_most(chunk->bytes, NBD_DATA_MAX, &all) ||
        all < head + each || (all - head) % each) {
        return -EPROTO;
    }
    ret = nbd_read(c, p, head + each);
    if (ret < 0) {
        return ret;
    }
    if (untrusted_is(untrusted_be32(p), c->info.context) &&
        req->extent_bytes == 0) {
        Untrusted bytes = wide ? untrusted_be64(p + head)
                               : untrusted_be32(p + head);

        if (untrusted_is(bytes, 0)) {
            return -EPROTO;
        }
        if (!untrusted_at_most(bytes, req->bytes, &req->extent_bytes)) {
            req->extent_bytes = req->bytes;
        }
        req->extent_flags =
            untrusted_word(wide ? untrusted_be64(p + head + 8)
                                : untrusted_be32(p + head + 4));
    }
    return nbd_skip(c, all - head - each);
}

static int coroutine_fn take_error(NbdConnection *c, NbdRequest *req,
                                   const Chunk *chunk)
{
    uint8_t p[6];
    size_t all;
    int ret;

    if (!untrusted_at_most(chunk->bytes, NBD_TEXT_MAX + 14, &all) ||
        all < sizeof(p)) {
        return -EPROTO;
    }
    ret = nbd_read(c, p, sizeof(p));
    if (ret < 0 || untrusted_above(untrusted_be16(p + 4), all - sizeof(p)) ||
        untrusted_is(untrusted_be32(p), 0)) {
        return ret < 0 ? ret : -EPROTO;
    }
    if (req->ret == 0) {
        req->ret = errno_of(untrusted_verbatim(untrusted_be32(p)));
    }
    return nbd_skip(c, all - sizeof(p));
}

static int coroutine_fn take_simple(NbdConnection *c, NbdRequest *req,
                                    const Chunk *chunk)
{
    if (chunk->error) {
        req->ret = errno_of(chunk->error);
        return 0;
    }
    if (req->type == NBD_CMD_READ) {
        if (c->info.structured) {
            return -EPROTO; /* it was agreed that reads get chunks */
        }
        req->got = req->bytes;
        return nbd_read_iov(c, req->iov, 0, req->bytes);
    }
    return 0;
}

static int coroutine_fn take_payload(NbdConnection *c, NbdRequest *req,
                                     const Chunk *chunk)
{
    if (chunk->simple) {
        return take_simple(c, req, chunk);
    }
    switch (chunk->type) {
    case NBD_REPLY_NONE:
        return untrusted_is(chunk->bytes, 0) &&
                       (chunk->flags & NBD_REPLY_FLAG_DONE)
                   ? 0 : -EPROTO;
    case NBD_REPLY_OFFSET_DATA:
        return take_data(c, req, chunk);
    case NBD_REPLY_OFFSET_HOLE:
        return take_hole(c, req, chunk);
    case NBD_REPLY_BLOCK_STATUS:
    case NBD_REPLY_BLOCK_STATUS_EXT:
        return take_status(c, req, chunk);
    default:
        return chunk->type & (1 << 15) ? take_error(c, req, chunk) : -EPROTO;
    }
}

/* What a request has come to that the server calls done. */
static int result_of(const NbdRequest *req)
{
    if (req->ret < 0) {
        return req->ret;
    }
    if ((req->type == NBD_CMD_READ && req->got != req->bytes) ||
        (req->type == NBD_CMD_BLOCK_STATUS && req->extent_bytes == 0)) {
        return -EIO; /* it has said less than it was asked */
    }
    return 0;
}

int coroutine_fn nbd_read_replies(NbdConnection *c)
{
    for (;;) {
        NbdRequest *req;
        Chunk chunk;
        int ret = read_head(c, &chunk);

        if (ret < 0) {
            return ret;
        }
        req = nbd_find_request(c, chunk.cookie);
        ret = req ? take_payload(c, req, &chunk) : -EPROTO;
        if (ret < 0) {
            return ret;
        }
        c->of_use = true;
        if (chunk.flags & NBD_REPLY_FLAG_DONE) {
            nbd_finish_request(c, req, result_of(req));
        }
    }
}
