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

/* The head of a reply or of a chunk. */
typedef struct Chunk {
    uint16_t flags;
    uint16_t type;      /* NBD_REPLY_*; a simple reply is turned into one */
    uint64_t cookie;
    uint64_t bytes;     /* of payload */
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

NbdRequest *nbd_find_request(NbdConnection *c, uint64_t cookie)
{
    NbdRequest *req = c->requests[cookie % NBD_IN_FLIGHT_MAX];

    return req && req->cookie == cookie ? req : NULL;
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
    uint32_t magic;
    int ret = nbd_read(c, p, NBD_SIMPLE_REPLY_BYTES);

    if (ret < 0) {
        return ret;
    }
    magic = be_get32(p);
    if (magic == NBD_SIMPLE_REPLY_MAGIC && !c->info.extended) {
        *chunk = (Chunk){ .flags = NBD_REPLY_FLAG_DONE, .simple = true,
                          .error = be_get32(p + 4) };
        memcpy(&chunk->cookie, p + 8, 8);
        return 0;
    }
    if (magic != (c->info.extended ? NBD_EXTENDED_REPLY_MAGIC
                                   : NBD_STRUCTURED_REPLY_MAGIC) ||
        !c->info.structured) {
        return -EPROTO;
    }
    *chunk = (Chunk){ .flags = be_get16(p + 4), .type = be_get16(p + 6) };
    memcpy(&chunk->cookie, p + 8, 8);
    if (c->info.extended) {
        ret = nbd_read(c, p + 16, 16);
        chunk->bytes = be_get64(p + 24);
    } else {
        ret = nbd_read(c, p + 16, 4);
        chunk->bytes = be_get32(p + 16);
    }
    return ret;
}

/* A part of a reply lies in the request, and the parts are not longer. */
static bool fits(const NbdRequest *req, uint64_t offset, uint64_t bytes)
{
    return req->type == NBD_CMD_READ && bytes > 0 &&
           bytes <= (uint64_t)(req->bytes - req->got) &&
           offset >= (uint64_t)req->offset &&
           offset - req->offset <= (uint64_t)req->bytes - bytes;
}

/* A reply in parts may leave something out, and repeat another: nothing of
 * what was in the buffer before is ever shown. */
static void begin_part(NbdRequest *req, uint64_t bytes)
{
    if (bytes < (uint64_t)req->bytes && !req->zeroed) {
        block_iov_memset(req->iov, 0, 0, req->bytes);
        req->zeroed = true;
    }
    req->got += bytes;
}

static int coroutine_fn take_data(NbdConnection *c, NbdRequest *req,
                                  const Chunk *chunk)
{
    uint8_t p[8];
    uint64_t offset, bytes = chunk->bytes - 8;
    int ret;

    if (chunk->bytes <= 8) {
        return -EPROTO;
    }
    ret = nbd_read(c, p, sizeof(p));
    offset = be_get64(p);
    if (ret < 0 || !fits(req, offset, bytes)) {
        return ret < 0 ? ret : -EPROTO;
    }
    begin_part(req, bytes);
    return nbd_read_iov(c, req->iov, offset - req->offset, bytes);
}

static int coroutine_fn take_hole(NbdConnection *c, NbdRequest *req,
                                  const Chunk *chunk)
{
    uint8_t p[12];
    uint64_t offset, bytes;
    int ret;

    if (chunk->bytes != sizeof(p)) {
        return -EPROTO;
    }
    ret = nbd_read(c, p, sizeof(p));
    offset = be_get64(p);
    bytes = be_get32(p + 8);
    if (ret < 0 || !fits(req, offset, bytes)) {
        return ret < 0 ? ret : -EPROTO;
    }
    begin_part(req, bytes);
    block_iov_memset(req->iov, offset - req->offset, 0, bytes);
    return 0;
}

/* The first extent is all that was asked for. */
static int coroutine_fn take_status(NbdConnection *c, NbdRequest *req,
                                    const Chunk *chunk)
{
    bool wide = chunk->type == NBD_REPLY_BLOCK_STATUS_EXT;
    size_t head = wide ? 8 : 4, each = wide ? 16 : 8;
    uint8_t p[24];
    int ret;

    if (req->type != NBD_CMD_BLOCK_STATUS || wide != c->info.extended ||
        chunk->bytes < head + each || chunk->bytes > NBD_DATA_MAX ||
        (chunk->bytes - head) % each) {
        return -EPROTO;
    }
    ret = nbd_read(c, p, head + each);
    if (ret < 0) {
        return ret;
    }
    if (be_get32(p) == c->info.context && req->extent_bytes == 0) {
        uint64_t bytes = wide ? be_get64(p + head) : be_get32(p + head);

        if (bytes == 0) {
            return -EPROTO;
        }
        req->extent_bytes = MIN(bytes, (uint64_t)req->bytes);
        req->extent_flags = wide ? be_get64(p + head + 8)
                                 : be_get32(p + head + 4);
    }
    return nbd_skip(c, chunk->bytes - head - each);
}

static int coroutine_fn take_error(NbdConnection *c, NbdRequest *req,
                                   const Chunk *chunk)
{
    uint8_t p[6];
    int ret;

    if (chunk->bytes < sizeof(p) || chunk->bytes > NBD_TEXT_MAX + 14) {
        return -EPROTO;
    }
    ret = nbd_read(c, p, sizeof(p));
    if (ret < 0 || be_get16(p + 4) > chunk->bytes - sizeof(p) || !be_get32(p)) {
        return ret < 0 ? ret : -EPROTO;
    }
    if (req->ret == 0) {
        req->ret = errno_of(be_get32(p));
    }
    return nbd_skip(c, chunk->bytes - sizeof(p));
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
        return chunk->bytes == 0 && (chunk->flags & NBD_REPLY_FLAG_DONE)
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
