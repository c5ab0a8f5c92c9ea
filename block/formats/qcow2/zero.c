/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Zero writes and discards: changes of L2 entries, a slice at a time.
 */
#include "block/formats/qcow2/qcow2.h"

#include <errno.h>

/* What a change makes of entries. */
typedef struct ClearHow {
    Qcow2DiscardType type;
    bool zero;   /* the range must read as zero */
    bool keep;   /* clusters keep their host cluster, if it is theirs alone */
    bool full;   /* forget all: not even zeroes are wanted */
} ClearHow;

/* Some clusters with entries in one slice. */
typedef struct ClearPiece {
    int64_t offset;
    int64_t bytes;
    Qcow2L2Ref ref;
} ClearPiece;

/* Whether something would be seen through, now or when the image is opened with
 * the backing file that it names. */
static bool has_backing(const Qcow2 *q)
{
    return bdrv_cow_child(q->bs) || q->header.backing_file;
}

/* --- one entry ------------------------------------------------------------ */

/* Whether @entry names a host cluster that is its own. */
static bool owns_cluster(const Qcow2 *q, Qcow2L2Entry entry)
{
    return (entry.word & QCOW2_OFLAG_COPIED) &&
           !(entry.word & QCOW2_OFLAG_COMPRESSED) &&
           (q->has_data_file || qcow2_l2_host(entry) != 0);
}

/* An entry that reads as zero, on the host cluster of @entry or on none. */
static Qcow2L2Entry zero_entry(const Qcow2 *q, Qcow2L2Entry entry, bool keep)
{
    Qcow2L2Entry zero = { 0 };

    if (keep && owns_cluster(q, entry)) {
        zero.word = entry.word & (QCOW2_OFFSET_MASK | QCOW2_OFLAG_COPIED);
    }
    if (q->geo.extended_l2) {
        zero.bitmap = UINT64_C(0xffffffff) << 32;
    } else {
        zero.word |= QCOW2_OFLAG_ZERO;
    }
    return zero;
}

/* What becomes of @old when its whole cluster is cleared. */
static Qcow2L2Entry cleared_entry(const Qcow2 *q, const ClearHow *how,
                                  Qcow2L2Entry old)
{
    bool nothing = !old.word && !old.bitmap;

    if (how->full || SIM_PLANTED(26)) {
        return (Qcow2L2Entry){ 0 };
    }
    if (nothing && !has_backing(q)) {
        return old;
    }
    if (q->header.version < 3) {
        /* There is no other way to say zero, and nothing below that it could
         * show: the callers have looked. */
        return (Qcow2L2Entry){ 0 };
    }
    return zero_entry(q, old, how->keep);
}

/* Subclusters @first to @end of an entry that are to read as zero. */
static Qcow2L2Entry cleared_subclusters(const Qcow2 *q, Qcow2L2Entry old,
                                        unsigned first, unsigned end)
{
    uint64_t mask = ((UINT64_C(1) << end) - 1) & ~((UINT64_C(1) << first) - 1);
    Qcow2L2Entry entry = old;

    entry.bitmap &= ~mask;
    entry.bitmap |= mask << 32;
    return entry;
}

static bool same_entry(Qcow2L2Entry a, Qcow2L2Entry b)
{
    return a.word == b.word && a.bitmap == b.bitmap;
}

/* Replace entry @index by @entry, which names the same host cluster or none. */
static int coroutine_fn replace_entry(Qcow2 *q, const ClearPiece *piece,
                                      unsigned index, Qcow2L2Entry entry,
                                      Qcow2DiscardType type)
{
    Qcow2L2Entry old = qcow2_l2_read(q, &piece->ref, index);

    if (same_entry(old, entry)) {
        return 0;
    }
    qcow2_l2_write(q, &piece->ref, index, entry);
    if (owns_cluster(q, entry) || q->has_data_file) {
        q->zeroed_epoch = atomic_load(&q->epoch);
    }
    if (owns_cluster(q, entry)) {
        return 0; /* kept */
    }
    return qcow2_free_entry(q, old, type);
}

static int coroutine_fn check_whole(Qcow2 *q, Qcow2L2Entry entry,
                                    int64_t offset)
{
    for (unsigned sc = 0; sc < q->geo.subclusters; sc++) {
        if (qcow2_entry_kind(q, entry, sc) == QCOW2_INVALID) {
            qcow2_signal_corruption(q, true, qcow2_l2_host(entry),
                                    q->geo.cluster_bytes, "the L2 entry of "
                                    "guest offset 0x%" G_GINT64_MODIFIER
                                    "x is not valid", (uint64_t)offset);
            return -EIO;
        }
    }
    return 0;
}

/* --- pieces --------------------------------------------------------------- */

/* The clusters of [@offset, +@bytes) whose entries are in one slice. */
static int64_t piece_bytes(const Qcow2 *q, int64_t offset, int64_t bytes)
{
    int64_t per_slice = (qcow2_cache_slice_bytes(q->l2_cache) /
                         q->geo.l2_entry_bytes) << q->geo.cluster_bits;

    return MIN(bytes, per_slice - offset % per_slice);
}

static int coroutine_fn clear_entries(Qcow2 *q, const ClearHow *how,
                                      ClearPiece *piece)
{
    unsigned n = (piece->bytes + q->geo.cluster_bytes - 1) >>
                 q->geo.cluster_bits;
    int ret = 0;

    for (unsigned i = 0; ret == 0 && i < n; i++) {
        unsigned index = piece->ref.index + i;
        Qcow2L2Entry old = qcow2_l2_read(q, &piece->ref, index);

        ret = check_whole(q, old, piece->offset +
                                      ((int64_t)i << q->geo.cluster_bits));
        if (ret == 0) {
            ret = replace_entry(q, piece, index, cleared_entry(q, how, old),
                                how->type);
        }
    }
    return ret;
}

/* Whole clusters whose entries are in one slice. */
static int coroutine_fn clear_piece(Qcow2 *q, const ClearHow *how,
                                    ClearPiece *piece)
{
    /* Without a table all is unallocated: nothing to do unless a backing file
     * must be hidden. */
    bool make = how->zero && has_backing(q);
    int ret = qcow2_meta_lock_range(q, piece->offset, piece->bytes);

    if (ret < 0) {
        return ret;
    }
    ret = SIM_FAULT("qcow2.clear", bdrv_node_name(q->bs));
    if (ret == 0) {
        ret = qcow2_l2_get(q, piece->offset, make, &piece->ref);
    }
    if (ret == 0 && piece->ref.slice) {
        ret = clear_entries(q, how, piece);
        qcow2_l2_put(q, &piece->ref);
    }
    qcow2_meta_unlock(q);
    return ret;
}

/* @offset and @bytes: whole clusters, or to the end of the image. */
static int coroutine_fn clear_range(Qcow2 *q, const ClearHow *how,
                                    int64_t offset, int64_t bytes)
{
    int64_t end = offset + bytes;
    int ret = 0;

    while (ret == 0 && offset < end) {
        ClearPiece piece = { .offset = offset,
                             .bytes = piece_bytes(q, offset, end - offset) };

        ret = clear_piece(q, how, &piece);
        offset += piece.bytes;
    }
    return ret;
}

/* --- parts of a cluster --------------------------------------------------- */

static int coroutine_fn zero_subclusters_locked(Qcow2 *q, int64_t offset,
                                                int64_t bytes)
{
    unsigned bits = q->geo.subcluster_bits;
    int64_t into = qcow2_into_cluster(&q->geo, offset);
    ClearPiece piece = { .offset = offset, .bytes = bytes };
    Qcow2L2Entry old;
    int ret = qcow2_l2_get(q, offset, true, &piece.ref);

    if (ret < 0) {
        return ret;
    }
    old = qcow2_l2_read(q, &piece.ref, piece.ref.index);
    ret = check_whole(q, old, offset);
    if (ret == 0 && (old.word & QCOW2_OFLAG_COMPRESSED)) {
        ret = -ENOTSUP; /* it has no subclusters: written as data */
    }
    if (ret == 0) {
        qcow2_l2_write(q, &piece.ref, piece.ref.index,
                       cleared_subclusters(q, old, into >> bits,
                                           (into + bytes + (1 << bits) - 1)
                                               >> bits));
        q->zeroed_epoch = atomic_load(&q->epoch);
    }
    qcow2_l2_put(q, &piece.ref);
    return ret;
}

/* Part of one cluster, in whole subclusters. */
static int coroutine_fn zero_subclusters(Qcow2 *q, int64_t offset,
                                         int64_t bytes)
{
    int ret = qcow2_meta_lock_range(q, offset, bytes);

    if (ret == 0) {
        ret = zero_subclusters_locked(q, offset, bytes);
        qcow2_meta_unlock(q);
    }
    return ret;
}

/* Whether nothing but zeroes is seen in the range, whatever happens to it. */
static bool coroutine_fn is_zero_already(Qcow2 *q, int64_t offset,
                                         int64_t bytes)
{
    while (bytes > 0) {
        Qcow2Mapping map;

        if (qcow2_map(q, offset, bytes, false, &map) < 0) {
            return false;
        }
        if (map.kind != QCOW2_ZERO_PLAIN && map.kind != QCOW2_ZERO_ALLOC &&
            !(map.kind == QCOW2_UNALLOCATED && !has_backing(q))) {
            return false;
        }
        offset += map.bytes;
        bytes -= map.bytes;
    }
    return true;
}

/* --- zero writes ---------------------------------------------------------- */

static bool whole_units(int64_t unit, int64_t offset, int64_t bytes,
                        int64_t size)
{
    return offset % unit == 0 &&
           (bytes % unit == 0 || offset + bytes == size);
}

/* Clusters from @offset on, whole or cut by the end of the image. */
static int coroutine_fn zero_clusters(Qcow2 *q, int64_t offset, int64_t bytes,
                                      unsigned flags)
{
    ClearHow how = { .type = QCOW2_DISCARD_REQUEST, .zero = true };

    how.keep = !(flags & BDRV_REQ_MAY_UNMAP) || q->options.discard_no_unref ||
               q->data_file_raw;
    return clear_range(q, &how, offset, bytes);
}

int coroutine_fn qcow2_zero_range(Qcow2 *q, int64_t offset, int64_t bytes,
                                  unsigned flags)
{
    int64_t cluster = q->geo.cluster_bytes;
    int64_t end = offset + bytes;
    int64_t size = atomic_load(&q->size);
    int64_t first = MIN(end, qcow2_cluster_up(&q->geo, offset));
    int64_t last = end == size ? end : qcow2_cluster_down(&q->geo, end);
    int ret = 0;

    if (!whole_units(q->geo.subcluster_bytes, offset, bytes, size)) {
        return -ENOTSUP;
    }
    if (q->header.version < 3 && has_backing(q)) {
        return -ENOTSUP;
    }
    if (q->data_file_raw) {
        ret = qcow2_prepare_write(q);
        if (ret == 0) {
            ret = bdrv_co_pwrite_zeroes(q->data_file, offset, bytes,
                                        flags & BDRV_REQ_MAY_UNMAP);
        }
    }
    if (ret == 0 && offset < first && offset % cluster) {
        ret = zero_subclusters(q, offset, first - offset);
        offset = first;
    }
    if (ret == 0 && offset < last) {
        ret = zero_clusters(q, offset, last - offset, flags);
        offset = last;
    }
    if (ret == 0 && offset < end) {
        ret = zero_subclusters(q, offset, end - offset);
    }
    return ret;
}

int coroutine_fn qcow2_pwrite_zeroes(BlockDriverState *bs, const BlockIO *io)
{
    Qcow2 *q = qcow2_of(bs);
    unsigned ticket;
    bool zero;

    if (io->offset + io->bytes > atomic_load(&q->size)) {
        return -ENOSPC;
    }
    ticket = qcow2_access_begin(q);
    zero = !q->data_file_raw && is_zero_already(q, io->offset, io->bytes);
    qcow2_access_end(q, ticket);
    if (zero && (!(io->flags & BDRV_REQ_MAY_UNMAP) ||
                 !whole_units(q->geo.cluster_bytes, io->offset, io->bytes,
                              atomic_load(&q->size)))) {
        return 0; /* and no host cluster would be given up */
    }
    return qcow2_zero_range(q, io->offset, io->bytes, io->flags);
}

/* --- discards ------------------------------------------------------------- */

int coroutine_fn qcow2_discard_range(Qcow2 *q, int64_t offset, int64_t bytes,
                                     Qcow2DiscardType type, bool full)
{
    ClearHow how = { .type = type, .full = full,
                     .zero = !full, /* do not show what lies below */
                     .keep = q->options.discard_no_unref && !full };

    if (q->data_file_raw && !full) {
        return qcow2_zero_range(q, offset, bytes, BDRV_REQ_MAY_UNMAP);
    }
    return clear_range(q, &how, offset, bytes);
}

int coroutine_fn qcow2_pdiscard(BlockDriverState *bs, const BlockIO *io)
{
    Qcow2 *q = qcow2_of(bs);

    if (!whole_units(q->geo.cluster_bytes, io->offset, io->bytes,
                     atomic_load(&q->size))) {
        return -ENOTSUP;
    }
    if (q->header.version < 3 && has_backing(q)) {
        return -ENOTSUP; /* it would show the backing file */
    }
    return qcow2_discard_range(q, io->offset, io->bytes,
                               QCOW2_DISCARD_REQUEST, false);
}

int coroutine_fn qcow2_make_empty(BlockDriverState *bs, GError **errp)
{
    Qcow2 *q = qcow2_of(bs);
    int ret;

    if (q->data_file_raw) {
        return block_error(errp, ENOTSUP, "Node '%s': the raw data file is the "
                           "content", bdrv_node_name(bs));
    }
    ret = qcow2_prepare_write(q);
    if (ret == 0) {
        bdrv_co_debug_event(q->bs, "empty_image_prepare");
        ret = qcow2_discard_range(q, 0, atomic_load(&q->size),
                                  QCOW2_DISCARD_SNAPSHOT, true);
    }
    if (ret == 0) {
        ret = bdrv_co_flush(bs);
    }
    return ret == 0 ? 0
                    : block_error_errno(errp, -ret, "Node '%s': could not "
                                        "forget all content",
                                        bdrv_node_name(bs));
}
