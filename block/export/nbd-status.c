/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Block status: what the chosen metadata contexts say about a range.
 *
 * The answer is one chunk for each context: extents from the offset on, each
 * longer than nothing, which together cover the range or a first part of it.
 * Extents that say the same are joined.
 *
 * What it costs to find an answer is not what the answer is long: a node may
 * tell of a terabyte sector by sector.  So looks are counted, too: after some
 * of them others have their turn, and after many a first part is all there is.
 */
#include "block/export/nbd-int.h"

#include <errno.h>
#include <stdatomic.h>

/* Extents in the answer of one context. */
#define EXTENTS_MAX 2048

/* Looks at the node between two turns of others, and for one context. */
#define LOOKS_A_TURN 64
#define LOOKS_MAX (8 * EXTENTS_MAX)

/* An extent of a request with 32-bit lengths ends on a multiple of this. */
#define LENGTH_32_ALIGN INT64_C(65536)

typedef struct StatusExtent {
    uint64_t bytes;
    uint64_t flags;
} StatusExtent;

typedef struct Status {
    StatusExtent *extents;
    unsigned nr;
    unsigned max;
    int64_t longest;            /* that the reply can express */
    unsigned looks;             /* for the whole request */
} Status;

/* Returns whether there was room. */
static bool add(Status *status, int64_t bytes, uint64_t flags)
{
    StatusExtent *last = &status->extents[status->nr];

    g_assert(bytes > 0);
    if (status->nr > 0 && last[-1].flags == flags &&
        (int64_t)last[-1].bytes <= status->longest - bytes) {
        last[-1].bytes += bytes;
        return true;
    }
    if (status->nr == status->max) {
        return false;
    }
    last->bytes = bytes;
    last->flags = flags;
    status->nr++;
    return true;
}

/* --- contexts ------------------------------------------------------------ */
/*
 * Each finds out what its context says from @offset on, for at least one byte
 * and at most @bytes (ret_bytes).  Returns the flags, or a negative errno.
 */

static int64_t coroutine_fn base_at(NbdExport *e, int64_t offset,
                                    int64_t bytes, int64_t *ret_bytes)
{
    BlockExtent extent;
    int ret = blk_co_block_status(e->exp.blk, offset, bytes, &extent);

    if (ret < 0) {
        return ret;
    }
    *ret_bytes = extent.bytes;
    return (extent.status & BDRV_BLOCK_DATA ? 0 : NBD_STATE_HOLE) |
           (extent.status & BDRV_BLOCK_ZERO ? NBD_STATE_ZERO : 0);
}

static int64_t bitmap_at(NbdExport *e, unsigned id, int64_t offset,
                         int64_t bytes, int64_t *ret_bytes)
{
    BdrvDirtyBitmap *bitmap = e->bitmaps[id - NBD_CONTEXT_BITMAPS];

    if (offset >= bdrv_dirty_bitmap_size(bitmap)) {
        *ret_bytes = bytes;
        return 0;
    }
    return bdrv_dirty_bitmap_status(bitmap, offset, bytes, ret_bytes)
               ? NBD_STATE_DIRTY : 0;
}

static int64_t coroutine_fn look(NbdExport *e, unsigned id, int64_t offset,
                                 int64_t bytes, int64_t *ret_bytes)
{
    switch (id) {
    case NBD_CONTEXT_BASE:
        return base_at(e, offset, bytes, ret_bytes);
    case NBD_CONTEXT_DEPTH:
        return blk_co_is_allocated(e->exp.blk, offset, bytes, ret_bytes);
    default:
        return bitmap_at(e, id, offset, bytes, ret_bytes);
    }
}

/* A look is over.  Returns 0, or a negative errno: nobody wants to know. */
static int coroutine_fn take_turns(const NbdClient *client, Status *status)
{
    if (++status->looks % LOOKS_A_TURN == 0) {
        co_sleep_ns(0);
        if (client->broken || atomic_load(&client->cut_off)) {
            return -ESHUTDOWN;
        }
    }
    return 0;
}

/* Returns 0 or a negative errno. */
static int coroutine_fn collect(NbdRequest *req, unsigned id, Status *status)
{
    int64_t offset = req->offset;
    int64_t left = req->bytes;
    bool one = req->flags & NBD_CMD_FLAG_REQ_ONE;

    for (int looks = 0; left > 0 && looks < LOOKS_MAX; looks++) {
        int64_t bytes = 0;
        int64_t flags = look(req->client->e, id, offset,
                             MIN(left, status->longest), &bytes);

        if (flags < 0) {
            /* What is known already is an answer. */
            return status->nr > 0 ? 0 : flags;
        }
        if (bytes <= 0 || bytes > left) {
            return -EIO;        /* the node has shrunk, or is mistaken */
        }
        if (!add(status, bytes, flags) || (one && status->nr > 1)) {
            break;
        }
        offset += bytes;
        left -= bytes;
        if (take_turns(req->client, status) < 0) {
            return -ESHUTDOWN;
        }
    }
    if (one) {
        status->nr = 1;
    }
    return 0;
}

/* --- the reply ----------------------------------------------------------- */

static void put_chunk(NbdRequest *req, unsigned id, const Status *status,
                      bool last)
{
    bool extended = req->client->extended;
    uint64_t bytes = extended ? 8 + 16 * (uint64_t)status->nr
                              : 4 + 8 * (uint64_t)status->nr;

    nbd_put_chunk_header(req, req->chunks, last ? NBD_REPLY_FLAG_DONE : 0,
                         extended ? NBD_REPLY_BLOCK_STATUS_EXT
                                  : NBD_REPLY_BLOCK_STATUS, bytes);
    be_append32(req->chunks, id);
    if (extended) {
        be_append32(req->chunks, status->nr);
    }
    for (unsigned i = 0; i < status->nr; i++) {
        if (extended) {
            be_append64(req->chunks, status->extents[i].bytes);
            be_append64(req->chunks, status->extents[i].flags);
        } else {
            be_append32(req->chunks, status->extents[i].bytes);
            be_append32(req->chunks, status->extents[i].flags);
        }
    }
}

int64_t nbd_block_status_memory(const NbdClient *client)
{
    int64_t one = NBD_EXTENDED_REPLY_BYTES + 8 +
                  EXTENTS_MAX * (client->extended ? 16 : 8);

    return EXTENTS_MAX * sizeof(StatusExtent) +
           one * __builtin_popcountll(client->contexts);
}

int coroutine_fn nbd_block_status(NbdRequest *req)
{
    NbdClient *client = req->client;
    uint64_t left = client->contexts;
    Status status = {
        .extents = g_new(StatusExtent, EXTENTS_MAX),
        .max = EXTENTS_MAX,
        .longest = client->extended ? BDRV_MAX_LENGTH
                                    : UINT32_MAX / LENGTH_32_ALIGN *
                                          LENGTH_32_ALIGN,
    };
    int ret = 0;

    g_assert(left != 0);
    req->chunks = g_byte_array_new();
    for (unsigned id = 0; left != 0 && ret == 0; id++) {
        if (!(left & UINT64_C(1) << id)) {
            continue;
        }
        left &= ~(UINT64_C(1) << id);
        status.nr = 0;
        ret = collect(req, id, &status);
        if (ret == 0) {
            put_chunk(req, id, &status, left == 0);
        }
    }
    g_free(status.extents);
    return ret;
}
