/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * copy-before-write, the side of the readers: where each part of the point in
 * time is, and how it is read, held and given up.
 */
#include "block/filters/copy-before-write.h"

#include <blockgraph/aio.h>
#include <errno.h>

#include "util/sim-point.h"

/* Where the beginning of a range is. */
typedef enum Place {
    PLACE_NOWHERE,  /* it cannot be read */
    PLACE_STAGED,
    PLACE_TARGET,
    PLACE_SOURCE,   /* and we are entered as a reader */
} Place;

typedef struct Part {
    Place place;
    int64_t offset;
    int64_t bytes;
    BlockCopyStaged *staged; /* with a reference */
    CbwReader reader;
    unsigned discards;       /* begun before we looked */
} Part;

/* --- finding -------------------------------------------------------------- */

/* Lock held.  @bytes of @part become as many as are @done, or as are not. */
static void place_by_clusters(CbwNode *s, Part *part, bool done)
{
    int64_t i = part->offset >> s->cluster_bits;
    int64_t last = (part->offset + part->bytes - 1) >> s->cluster_bits;

    while (i < last && cbw_is_done(s, i + 1) == done) {
        i++;
    }
    part->bytes = MIN(part->bytes,
                      ((i + 1) << s->cluster_bits) - part->offset);
    part->place = done ? PLACE_TARGET : PLACE_SOURCE;
    if (!done) {
        cbw_reader_enter(s, &part->reader, part->offset, part->bytes);
    }
}

/* Lock held. */
static bool may_access(CbwNode *s, int64_t offset, int64_t bytes,
                       int64_t *ret_bytes)
{
    const HBitmap *may = s->access ? s->access : s->scope;

    *ret_bytes = bytes;
    return !may || hbitmap_status(may, offset, bytes, ret_bytes);
}

static bool is_done_at(CbwNode *s, int64_t offset)
{
    return cbw_is_done(s, offset >> s->cluster_bits);
}

/* What W2 forbids, and slowly: for a planted bug. */
static bool coroutine_fn look_early(CbwNode *s, int64_t offset)
{
    bool done = is_done_at(s, offset);

    co_sleep_ns(100 * 1000);
    return done;
}

/* Where [@offset, +@bytes) begins, and how far that is so.  W2 */
static void coroutine_fn find(CbwNode *s, int64_t offset, int64_t bytes,
                              Part *part)
{
    /* Not the reader: that is most of it. */
    part->place = PLACE_NOWHERE;
    part->offset = offset;
    part->bytes = bytes;
    part->staged = NULL;
    part->discards = atomic_load(&s->discards);
    bool early = SIM_PLANTED(31) && look_early(s, offset);
    LOCK_GUARD(&s->lock);

    if (!may_access(s, offset, bytes, &part->bytes) ||
        atomic_load(&s->snapshot_error) || !bdrv_filter_child(s->bs)) {
        return; /* or we were taken out: nobody asks us before a change */
    }
    part->staged = block_copy_staged_find(s->copy, offset, part->bytes,
                                          &part->bytes);
    if (part->staged) {
        int64_t end = part->staged->offset + part->staged->bytes;

        part->place = PLACE_STAGED;
        part->bytes = MIN(part->bytes, end - offset);
        return;
    }
    place_by_clusters(s, part, SIM_PLANTED(31) ? early : is_done_at(s, offset));
}

/* @part is not used any more.  Returns whether it was right all the time. */
static bool leave(CbwNode *s, Part *part)
{
    block_copy_staged_unref(part->staged);
    if (part->place == PLACE_SOURCE) {
        cbw_reader_leave(s, &part->reader);
    }
    if (atomic_load(&s->snapshot_error) && !SIM_PLANTED(33)) {
        return false;                                           /* W3 */
    }
    if (part->place != PLACE_SOURCE &&
        atomic_load(&s->discards) != part->discards) {
        int64_t n;
        LOCK_GUARD(&s->lock);

        /* A discard may have hit the target before we read it. */
        return may_access(s, part->offset, part->bytes, &n) &&
               n == part->bytes;
    }
    return true;
}

/* --- reading -------------------------------------------------------------- */

static void read_staged(const Part *part, BlockIOVec *iov, size_t at)
{
    const BlockCopyStaged *staged = part->staged;

    if (staged->data) {
        block_iov_from_buf(iov, at,
                           staged->data + (part->offset - staged->offset),
                           part->bytes);
    } else {
        block_iov_memset(iov, at, 0, part->bytes);
    }
}

static int coroutine_fn read_child(BdrvChild *child, const Part *part,
                                   const BlockIO *io, unsigned flags)
{
    BlockIOVecSlice slice;
    int ret;

    if (part->bytes == io->bytes) {
        return bdrv_co_preadv(child, part->offset, part->bytes, io->iov,
                              flags);
    }
    block_iov_slice(&slice, io->iov, part->offset - io->offset, part->bytes);
    ret = bdrv_co_preadv(child, part->offset, part->bytes, &slice.vec, flags);
    block_iov_slice_clear(&slice);
    return ret;
}

static int coroutine_fn read_part(CbwNode *s, Part *part, const BlockIO *io)
{
    int ret = -EACCES;

    SIM_POINT("cbw.read", bdrv_node_name(s->bs));
    switch (part->place) {
    case PLACE_NOWHERE:
        break;
    case PLACE_STAGED:
        read_staged(part, io->iov, part->offset - io->offset);
        ret = 0;
        break;
    case PLACE_TARGET:
        ret = read_child(s->target, part, io, 0);
        break;
    case PLACE_SOURCE:
        ret = read_child(bdrv_filter_child(s->bs), part, io, 0);
        break;
    }
    return leave(s, part) ? ret : -EACCES;
}

static int coroutine_fn snapshot_preadv(BlockDriverState *bs,
                                        const BlockIO *io)
{
    CbwNode *s = cbw_node(bs);
    int64_t end = io->offset + io->bytes;
    int64_t at = io->offset;
    int ret = 0;

    while (ret == 0 && at < end) {
        Part part;

        find(s, at, end - at, &part);
        ret = read_part(s, &part, io);
        at += part.bytes;
    }
    return ret;
}

/* --- looking -------------------------------------------------------------- */

static int coroutine_fn ask_child(BdrvChild *child, Part *part,
                                  BlockExtent *ret)
{
    int code = bdrv_co_block_status_above(bdrv_child_bs(child), NULL,
                                          part->offset, part->bytes, ret);

    /* Where it lies is nobody's business: it moves. */
    ret->status &= BDRV_BLOCK_DATA | BDRV_BLOCK_ZERO;
    if (code == 0 && ret->bytes == 0) {
        *ret = (BlockExtent){ .bytes = part->bytes,
                              .status = BDRV_BLOCK_ZERO }; /* beyond its end */
    }
    ret->status |= BDRV_BLOCK_ALLOCATED; /* there is nothing below */
    return code;
}

static int coroutine_fn snapshot_block_status(BlockDriverState *bs,
                                              const BlockIO *io,
                                              BlockExtent *ret)
{
    CbwNode *s = cbw_node(bs);
    Part part;
    int code = 0;

    find(s, io->offset, io->bytes, &part);
    *ret = (BlockExtent){ .bytes = part.bytes,
                          .status = BDRV_BLOCK_ALLOCATED };
    switch (part.place) {
    case PLACE_NOWHERE:
        return 0;
    case PLACE_STAGED:
        ret->status |= part.staged->data ? BDRV_BLOCK_DATA : BDRV_BLOCK_ZERO;
        break;
    case PLACE_TARGET:
        code = ask_child(s->target, &part, ret);
        break;
    case PLACE_SOURCE:
        code = ask_child(bdrv_filter_child(bs), &part, ret);
        break;
    }
    if (!leave(s, &part)) {
        *ret = (BlockExtent){ .bytes = part.bytes,
                              .status = BDRV_BLOCK_ALLOCATED };
        return 0;
    }
    return code;
}

/* --- giving up ------------------------------------------------------------ */

/* Lock held. */
static int forbid(CbwNode *s, int64_t offset, int64_t bytes)
{
    if (!s->access) {
        s->access = hbitmap_new(s->length, s->cluster_bits);
        if (!s->access) {
            return -ENOMEM;
        }
        if (s->scope) {
            hbitmap_merge(s->access, s->scope);
        } else {
            hbitmap_set(s->access, 0, s->length);
        }
    }
    atomic_fetch_add(&s->discards, 1);
    hbitmap_reset(s->access, offset, bytes);
    return 0;
}

static bool is_dirty(BlockCopyState *copy, int64_t offset, int64_t end)
{
    int64_t dirty = block_copy_next_dirty(copy, offset);

    return dirty >= 0 && dirty < end;
}

static int coroutine_fn snapshot_pdiscard(BlockDriverState *bs,
                                          const BlockIO *io)
{
    CbwNode *s = cbw_node(bs);
    int64_t mask = (INT64_C(1) << s->cluster_bits) - 1;
    int64_t offset = (io->offset + mask) & ~mask;
    int64_t end = io->offset + io->bytes;
    int ret;

    if (end < s->length) {
        end &= ~mask;
    }
    if (offset >= end) {
        return 0;
    }
    WITH_LOCK(&s->lock) {
        ret = forbid(s, offset, end - offset);
    }
    if (ret < 0) {
        return ret;
    }
    /* What is under way would bring it back; if it fails, it is to be copied
     * again (C2). */
    do {
        block_copy_reset(s->copy, offset, end - offset);
        block_copy_wait_tasks(s->copy, offset, end - offset);
    } while (is_dirty(s->copy, offset, end));
    return bdrv_co_pdiscard(s->target, offset, end - offset);
}

static int64_t snapshot_length(BlockDriverState *bs)
{
    return cbw_node(bs)->length;
}

const BlockSnapshotMethods cbw_snapshot_methods = {
    .length = snapshot_length,
    .preadv = snapshot_preadv,
    .block_status = snapshot_block_status,
    .pdiscard = snapshot_pdiscard,
};

/* --- freezing ranges ------------------------------------------------------ */

struct BdrvFrozenRange {
    CbwNode *s;
    CbwReader reader;
};

BdrvFrozenRange *coroutine_fn
bdrv_co_cbw_freeze_range(BlockDriverState *cbw, int64_t offset, int64_t bytes,
                         GError **errp)
{
    CbwNode *s = cbw_node(cbw);
    BdrvFrozenRange *range;

    if (!s) {
        block_error(errp, EINVAL, "Node '%s' is no copy-before-write node",
                    bdrv_node_name(cbw));
        return NULL;
    }
    if (offset < 0 || bytes <= 0 || offset > s->length ||
        bytes > s->length - offset) {
        block_error(errp, EINVAL, "Node '%s': %" G_GINT64_FORMAT " bytes at %"
                    G_GINT64_FORMAT " are not inside its %" G_GINT64_FORMAT
                    " bytes", bdrv_node_name(cbw), bytes, offset, s->length);
        return NULL;
    }
    range = g_new0(BdrvFrozenRange, 1);
    range->s = s;
    WITH_LOCK(&s->lock) {
        cbw_reader_enter(s, &range->reader, offset, bytes);
    }
    /* A guest that has copied waits for us, not we for it. */
    block_copy_wait_tasks(s->copy, offset, bytes);
    return range;
}

void bdrv_cbw_thaw_range(BdrvFrozenRange *range)
{
    cbw_reader_leave(range->s, &range->reader);
    g_free(range);
}

/* --- another point in time ------------------------------------------------ */

typedef struct CheckpointCall {
    BlockDriverState *cbw;
    GError **errp;
} CheckpointCall;

static int check_checkpoint(BlockDriverState *cbw, GError **errp)
{
    CbwNode *s = cbw_node(cbw);

    if (!s) {
        return block_error(errp, EINVAL, "Node '%s' is no copy-before-write "
                           "node", bdrv_node_name(cbw));
    }
    if (bdrv_length(cbw) != s->length) {
        return block_error(errp, EINVAL, "Node '%s': the source has %"
                           G_GINT64_FORMAT " bytes, and had %" G_GINT64_FORMAT
                           " when the filter was put in; put in another one",
                           bdrv_node_name(cbw), bdrv_length(cbw), s->length);
    }
    return 0;
}

/* Nothing is in flight. */
static void begin_anew(CbwNode *s)
{
    int64_t words = (s->length >> s->cluster_bits) / 64 + 1;

    LOCK_GUARD(&s->lock);
    g_assert(atomic_load(&s->nr_readers) == 0);
    for (int64_t i = 0; i < words; i++) {
        atomic_store(&s->done[i], 0);
    }
    atomic_store(&s->snapshot_error, 0);
    g_clear_pointer(&s->access, hbitmap_free);
    block_copy_set_bitmap(s->copy, s->scope);
}

int coroutine_fn bdrv_co_cbw_checkpoint(BlockDriverState *cbw, GError **errp)
{
    int ret = check_checkpoint(cbw, errp);

    if (ret < 0) {
        return ret;
    }
    bdrv_co_drained_begin(cbw);
    ret = check_checkpoint(cbw, errp); /* guests could resize it meanwhile */
    if (ret == 0) {
        begin_anew(cbw_node(cbw));
    }
    bdrv_drained_end(cbw);
    return ret;
}

static int coroutine_fn checkpoint_entry(void *opaque)
{
    CheckpointCall *call = opaque;

    return bdrv_co_cbw_checkpoint(call->cbw, call->errp);
}

int bdrv_cbw_checkpoint(BlockDriverState *cbw, GError **errp)
{
    CheckpointCall call = { .cbw = cbw, .errp = errp };

    return aio_co_run(block_graph_aio_context(bdrv_graph(cbw)),
                      checkpoint_entry, &call);
}

int bdrv_cbw_snapshot_error(BlockDriverState *cbw)
{
    return cbw_node(cbw) ? cbw_snapshot_error(cbw) : -EINVAL;
}
