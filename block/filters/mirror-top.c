/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mirror-top: the filter by which a mirror sees what guests change.
 *
 * mirror-top.h has the rules.
 */
#include "block/filters/mirror-top.h"

#include <errno.h>

#include "block/drivers.h"
#include "block/graph/transaction.h"

static const BlockOption mirror_top_options[] = {
    { .name = "file", .type = BLOCK_OPTION_CHILD,
      .help = "node that guests use" },
    { .name = "target", .type = BLOCK_OPTION_CHILD,
      .help = "node that becomes a copy of it" },
    { .type = BLOCK_OPTION_END },
};

MirrorTop *mirror_top(BlockDriverState *bs)
{
    return g_str_equal(bdrv_driver_name(bs), "mirror-top") ? bdrv_opaque(bs)
                                                           : NULL;
}

/* --- control -------------------------------------------------------------- */

static int coroutine_fn mirror_top_open(BlockDriverState *bs,
                                        BlockOptions *options, unsigned flags,
                                        GError **errp)
{
    MirrorTop *s = bdrv_opaque(bs);

    if (!bdrv_co_open_child(bs, options, "file",
                            BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY, true,
                            errp)) {
        return -EINVAL;
    }
    s->target = bdrv_co_open_child(bs, options, "target", 0, true, errp);
    if (!s->target) {
        return -EINVAL;
    }
    s->bs = bs;
    lock_init(&s->lock, LOCK_RANK_DRIVER);
    spare_buffers_init(&s->buffers);
    s->work = bdrv_work_new(bs);
    return 0;
}

static void coroutine_fn mirror_top_close(BlockDriverState *bs)
{
    MirrorTop *s = bdrv_opaque(bs);

    g_assert(reqlist_is_empty(&s->ranges));
    bdrv_work_free(s->work);
    hbitmap_free(s->dirty);
}

/*
 * While changes are noted nobody may make any past us.  When the target takes
 * our place its new users may do there what we have shared with nobody.
 */
static void mirror_top_child_perm(BlockDriverState *bs, BdrvChildRole role,
                                  const BlockPerm *parent,
                                  BlockPerm *ret_child)
{
    MirrorTop *s = bdrv_opaque(bs);

    if ((s->leaving && !parent->used) ||
        (s->given_up && !(role & BDRV_CHILD_FILTERED))) {
        *ret_child = (BlockPerm){ .used = 0, .shared = BLK_PERM_ALL };
        return;
    }
    if (!(role & BDRV_CHILD_FILTERED)) {
        ret_child->used = BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE |
                          (s->commits ? BLK_PERM_RESIZE : 0);
        ret_child->shared = BLK_PERM_CONSISTENT_READ |
                            BLK_PERM_WRITE_UNCHANGED;
        return;
    }
    *ret_child = *parent;
    if (s->guards) {
        ret_child->used |= BLK_PERM_CONSISTENT_READ;
        ret_child->shared &= ~(uint64_t)(BLK_PERM_WRITE | BLK_PERM_RESIZE);
    }
}

int mirror_top_begin(MirrorTop *s, int64_t granularity, unsigned flags,
                     GError **errp)
{
    Transaction *txn = transaction_new();
    int ret;

    s->unmap = flags & MIRROR_UNMAP;
    s->commits = flags & MIRROR_COMMITS;
    atomic_store(&s->copy_range, (flags & MIRROR_COPY_RANGE) != 0);
    s->guards = true;
    s->dirty = hbitmap_new(bdrv_length(s->bs),
                           __builtin_ctzll(granularity));
    if (!s->dirty) {
        ret = block_error(errp, ENOMEM, "Node '%s': no memory for a bitmap of "
                          "%" G_GINT64_FORMAT " bytes in units of %"
                          G_GINT64_FORMAT, bdrv_node_name(s->bs),
                          bdrv_length(s->bs), granularity);
    } else {
        ret = perm_refresh_one(s->bs, txn, errp);
    }
    transaction_end(txn, ret);
    if (ret == 0) {
        mirror_top_set_mode(s, MIRROR_BACKGROUND);
    }
    return ret;
}

int coroutine_fn mirror_top_resize_target(MirrorTop *s, int64_t length,
                                          GError **errp)
{
    const BlockTruncate how = { .offset = length, .exact = true };
    unsigned ticket = bdrv_co_work_begin(s->work);
    int ret;

    ret = bdrv_co_truncate(s->target, &how, errp);
    bdrv_work_end(s->work, ticket);
    return ret;
}

void mirror_top_give_up(MirrorTop *s)
{
    s->given_up = true;
    s->guards = false;
}

void mirror_top_set_mode(MirrorTop *s, MirrorMode mode)
{
    if (mode == MIRROR_FINISHING) {
        atomic_store(&s->unflushed, true);
    }
    atomic_store(&s->mode, mode);
}

typedef struct Leave {
    MirrorTop *s;
    GraphCheck *check;
    void *opaque;
} Leave;

/* Not while the change waits: if it is put off then, the permissions that
 * somebody has computed meanwhile must be those of a job that goes on. */
static int leave(void *opaque, GError **errp)
{
    const Leave *l = opaque;
    int ret = l->check(l->opaque, errp);

    l->s->leaving = ret == 0;
    return ret;
}

int coroutine_fn mirror_top_replace(MirrorTop *s, BlockDriverState *bs,
                                    GraphCheck *check, void *opaque,
                                    GError **errp)
{
    Leave l = { .s = s, .check = check, .opaque = opaque };
    int ret;

    ret = graph_replace_node(bs, bdrv_child_bs(s->target), leave, &l, errp);
    s->leaving = ret == 0;
    return ret;
}

void coroutine_fn mirror_top_settle(MirrorTop *s)
{
    WITH_LOCK(&s->lock) {
        reqlist_wait_all(&s->ranges, 0, INT64_MAX, &s->lock);
    }
}

/* --- what is dirty -------------------------------------------------------- */

/* Lock held.  A write may have made the node longer. */
static void follow_length_locked(MirrorTop *s, int64_t end)
{
    if (end > hbitmap_size(s->dirty) && hbitmap_truncate(s->dirty, end) < 0) {
        s->lost = true;
    }
}

/* Lock held. */
static void mark_locked(MirrorTop *s, int64_t offset, int64_t bytes)
{
    int64_t end;

    follow_length_locked(s, offset + bytes);
    end = MIN(offset + bytes, hbitmap_size(s->dirty));
    if (offset < end) {
        hbitmap_set(s->dirty, offset, end - offset);
    }
}

void mirror_top_mark(MirrorTop *s, int64_t offset, int64_t bytes)
{
    LOCK_GUARD(&s->lock);
    mark_locked(s, offset, bytes);
}

int64_t mirror_top_remaining(MirrorTop *s)
{
    LOCK_GUARD(&s->lock);
    return hbitmap_count(s->dirty) + s->copying;
}

bool mirror_top_is_lost(MirrorTop *s)
{
    LOCK_GUARD(&s->lock);
    return s->lost;
}

/* Lock held. */
static bool find_locked(MirrorTop *s, int64_t offset, int64_t end,
                        int64_t *ret_offset, int64_t *ret_bytes)
{
    end = MIN(end, hbitmap_size(s->dirty));
    return offset < end &&
           hbitmap_next_dirty_area(s->dirty, offset, end, INT64_MAX,
                                   ret_offset, ret_bytes);
}

int64_t mirror_top_find(MirrorTop *s, int64_t offset, int64_t *ret_offset)
{
    int64_t bytes;

    LOCK_GUARD(&s->lock);
    return find_locked(s, offset, INT64_MAX, ret_offset, &bytes) ? bytes : 0;
}

/* --- ranges --------------------------------------------------------------- */

static MirrorRange *range_of(BlockReq *req)
{
    return (MirrorRange *)req; /* its first member */
}

/* Lock held. */
static void enter_locked(MirrorTop *s, MirrorRange *range, int64_t offset,
                         int64_t bytes)
{
    range->seq = s->next_seq++;
    reqlist_init_req(&s->ranges, &range->req, offset, bytes);
}

/* Lock held.  An older range that overlaps, or NULL. */
static MirrorRange *older_locked(MirrorTop *s, const MirrorRange *range)
{
    int64_t offset = reqlist_offset(&range->req);
    int64_t bytes = reqlist_bytes(&range->req);
    BlockReq *req = reqlist_find_conflict(&s->ranges, offset, bytes);

    while (req && range_of(req)->seq >= range->seq) {
        req = reqlist_next_conflict(req, offset, bytes);
    }
    return req ? range_of(req) : NULL;
}

static void coroutine_fn wait_for_older(MirrorTop *s, const MirrorRange *range)
{
    WITH_LOCK(&s->lock) {
        MirrorRange *older;

        while ((older = older_locked(s, range))) {              /* T5 */
            SIM_WAITS("a range of a mirror", older);
            co_queue_wait_locked(&older->req.waiters, &s->lock);
        }
    }
}

/* Lock held.  The length from @offset, where a granule begins, that ends where
 * one ends, or the bitmap. */
static int64_t whole_granules_locked(const MirrorTop *s, int64_t offset,
                                     int64_t bytes)
{
    int64_t mask = (INT64_C(1) << hbitmap_granularity(s->dirty)) - 1;

    g_assert((offset & mask) == 0);
    return MIN((offset + bytes + mask) & ~mask, hbitmap_size(s->dirty)) -
           offset;
}

bool mirror_top_claim(MirrorTop *s, MirrorRange *range, int64_t offset,
                      int64_t bytes)
{
    LOCK_GUARD(&s->lock);
    if (!find_locked(s, offset, offset + bytes, &offset, &bytes)) {
        return false;
    }
    bytes = whole_granules_locked(s, offset, bytes);
    hbitmap_reset(s->dirty, offset, bytes);                     /* T3 */
    s->copying += bytes;
    enter_locked(s, range, offset, bytes);
    return true;
}

int coroutine_fn mirror_top_copy(MirrorTop *s, MirrorRange *range,
                                 bool *ret_read)
{
    int64_t offset = reqlist_offset(&range->req);
    int64_t bytes = reqlist_bytes(&range->req);
    int ret;

    wait_for_older(s, range);
    SIM_POINT("mirror.copy", bdrv_node_name(s->bs));
    ret = mirror_copy(s, offset, bytes, ret_read);
    atomic_store(&s->unflushed, true);
    WITH_LOCK(&s->lock) {
        if (ret < 0) {
            mark_locked(s, offset, bytes);                      /* T3 */
        }
        s->copying -= bytes;
        reqlist_remove_req(&s->ranges, &range->req);
    }
    return ret;
}

/* --- requests of guests --------------------------------------------------- */

/* A guest's change: the same for source and target. */
typedef struct Change {
    const BlockIO *io;
    int coroutine_fn (*send)(BdrvChild *child, const BlockIO *io);
    bool copies;              /* the target gets what the source has then */
} Change;

static int coroutine_fn send_write(BdrvChild *child, const BlockIO *io)
{
    return bdrv_co_pwritev(child, io->offset, io->bytes, io->iov, io->flags);
}

static int coroutine_fn send_zeroes(BdrvChild *child, const BlockIO *io)
{
    return bdrv_co_pwrite_zeroes(child, io->offset, io->bytes,
                                 io->flags & ~BDRV_REQ_ZERO_WRITE);
}

static int coroutine_fn send_discard(BdrvChild *child, const BlockIO *io)
{
    return bdrv_co_pdiscard(child, io->offset, io->bytes);
}

/* Whether a copy is to come that brings all of the range over.  It waits for
 * us, however soon it claims that (T5). */
static bool all_dirty(MirrorTop *s, int64_t offset, int64_t bytes)
{
    LOCK_GUARD(&s->lock);
    return offset + bytes <= hbitmap_size(s->dirty) &&
           hbitmap_next_zero(s->dirty, offset, bytes) < 0;
}

/* The source has been changed; the target follows. */
static int coroutine_fn change_target(MirrorTop *s, const Change *change)
{
    const BlockIO *io = change->io;
    BlockIO there = *io;
    bool read;
    int ret;

    if (change->copies) {
        ret = mirror_copy(s, io->offset, io->bytes, &read);
        return ret == 0 && (io->flags & BDRV_REQ_FUA)
                   ? bdrv_co_flush(bdrv_child_bs(s->target))
                   : ret;
    }
    there.flags &= BDRV_REQ_FUA;
    ret = SIM_FAULT("mirror.active", bdrv_node_name(s->bs));
    return ret < 0 ? ret : change->send(s->target, &there);
}

/* Both sides, under a range.  Only the source's failure is the guest's. */
static int coroutine_fn change_both(MirrorTop *s, const Change *change)
{
    const BlockIO *io = change->io;
    MirrorRange range;
    bool same = false;
    int ret;

    WITH_LOCK(&s->lock) {
        enter_locked(s, &range, io->offset, io->bytes);
    }
    wait_for_older(s, &range);
    ret = change->send(bdrv_filter_child(s->bs), io);
    SIM_POINT("mirror.between", bdrv_node_name(s->bs));
    if (ret == 0 && atomic_load(&s->mode) != MIRROR_OFF) {
        same = all_dirty(s, io->offset, io->bytes) ||
               change_target(s, change) == 0;
    }
    WITH_LOCK(&s->lock) {
        if (!same) {
            mark_locked(s, io->offset, io->bytes);              /* T2 */
        }
        reqlist_remove_req(&s->ranges, &range.req);
    }
    return ret;
}

static int coroutine_fn change_source(MirrorTop *s, const Change *change)
{
    int ret = change->send(bdrv_filter_child(s->bs), change->io);

    SIM_POINT("mirror.changed", bdrv_node_name(s->bs));
    mirror_top_mark(s, change->io->offset, change->io->bytes);  /* T2, T6 */
    return ret;
}

static int coroutine_fn make_change(BlockDriverState *bs, const Change *change)
{
    MirrorTop *s = bdrv_opaque(bs);

    switch (atomic_load(&s->mode)) {
    case MIRROR_OFF:
        return change->send(bdrv_filter_child(bs), change->io);
    case MIRROR_BACKGROUND:
        return change_source(s, change);
    default:
        return SIM_PLANTED(37) ? change_source(s, change)
                               : change_both(s, change);
    }
}

static int coroutine_fn mirror_top_preadv(BlockDriverState *bs,
                                          const BlockIO *io)
{
    return bdrv_co_preadv(bdrv_filter_child(bs), io->offset, io->bytes,
                          io->iov, io->flags);
}

/*
 * The guest's memory may change while it is being written, so each side could
 * get something else; both are given a copy.  For much data the target gets
 * what the source has then.
 */
static int coroutine_fn write_both(BlockDriverState *bs, const BlockIO *io)
{
    MirrorTop *s = bdrv_opaque(bs);
    BlockIO bounced = *io;
    Change change = { .io = io, .send = send_write, .copies = true };
    BlockIOVec1 iov;
    void *buf = NULL;
    int ret;

    if (io->bytes <= MIRROR_BUFFER_BYTES) {
        buf = mirror_alloc(s, io->bytes);
    }
    if (buf) {
        block_iov_to_buf(io->iov, 0, buf, io->bytes);
        bounced.iov = block_iov_buf(&iov, buf, io->bytes);
        change.io = &bounced;
        change.copies = false;
    }
    ret = make_change(bs, &change);
    block_aligned_free(buf);
    return ret;
}

static int coroutine_fn mirror_top_pwritev(BlockDriverState *bs,
                                           const BlockIO *io)
{
    MirrorTop *s = bdrv_opaque(bs);

    if (atomic_load(&s->mode) >= MIRROR_WRITE_BLOCKING) {
        return write_both(bs, io);
    }
    return make_change(bs, &(Change){ .io = io, .send = send_write,
                                      .copies = true });
}

static int coroutine_fn mirror_top_pwrite_zeroes(BlockDriverState *bs,
                                                 const BlockIO *io)
{
    return make_change(bs, &(Change){ .io = io, .send = send_zeroes,
                                      .copies = true });
}

/* What a discarded range reads as is the source's choice. */
static int coroutine_fn mirror_top_pdiscard(BlockDriverState *bs,
                                            const BlockIO *io)
{
    return make_change(bs, &(Change){ .io = io, .send = send_discard,
                                      .copies = true });
}

static int coroutine_fn mirror_top_truncate(BlockDriverState *bs,
                                            const BlockTruncate *how,
                                            GError **errp)
{
    MirrorTop *s = bdrv_opaque(bs);

    if (atomic_load(&s->mode) != MIRROR_OFF) {
        return block_error(errp, EBUSY, "Node '%s': the length cannot change "
                           "while a mirror to node '%s' runs",
                           bdrv_node_name(bs),
                           bdrv_node_name(bdrv_child_bs(s->target)));
    }
    return bdrv_co_truncate(bdrv_filter_child(bs), how, errp);
}

/* What a guest has flushed shall be durable in the target, too, when that takes
 * the source's place; else the job has to see to it. */
static int coroutine_fn mirror_top_flush(BlockDriverState *bs)
{
    MirrorTop *s = bdrv_opaque(bs);

    if (atomic_load(&s->mode) == MIRROR_FINISHING &&
        bdrv_co_flush(bdrv_child_bs(s->target)) < 0) {
        atomic_store(&s->unflushed, true);
    }
    return 0;
}

const BlockDriver block_driver_mirror_top = {
    .struct_size = sizeof(BlockDriver),
    .name = "mirror-top",
    .kind = BLOCK_DRIVER_FILTER,
    .sees = BLOCK_SEES_WRITES | BLOCK_SEES_CONTENT,
    .state_size = sizeof(MirrorTop),
    .options = mirror_top_options,
    .open = mirror_top_open,
    .close = mirror_top_close,
    .child_perm = mirror_top_child_perm,
    .preadv = mirror_top_preadv,
    .pwritev = mirror_top_pwritev,
    .pwrite_zeroes = mirror_top_pwrite_zeroes,
    .pdiscard = mirror_top_pdiscard,
    .truncate = mirror_top_truncate,
    .flush = mirror_top_flush,
};
