/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Changes of the disk's size.
 *
 * The core holds off every request beyond the smaller of the two sizes.  What
 * a crash leaves:
 *
 *   growth  larger L1 table, durable; what was there forgotten, and space,
 *           durable; the size in the header last.
 *           Before: the old disk, with room that nothing shows.
 *   shrink  the size in the header first, durable; then what was cut off is
 *           given up.  In between: a smaller disk whose tables have more than
 *           it shows.
 *
 * So tables may have clusters behind the end of the disk: from a shrink that
 * did not end, or saved machine state.  Growth forgets them before it shows
 * their place.
 */
#include "block/formats/qcow2/bitmap.h"
#include "block/formats/qcow2/image.h"
#include "block/formats/qcow2/refcount.h"

#include <errno.h>

#define FULL_CHUNK_BYTES (1024 * 1024)

/* One change of the size. */
typedef struct Resize {
    Qcow2 *q;
    int64_t old;
    int64_t new;
    PreallocMode prealloc;
    int64_t shown;       /* where the backing file shows through ends */
    GError **errp;
} Resize;

static int G_GNUC_PRINTF(3, 4)
refuse(const Resize *r, int err, const char *format, ...)
{
    BlockDriverState *bs = r->q->bs;
    g_autofree char *text = NULL;
    va_list args;

    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    return block_error(r->errp, err, "Node '%s': the disk of image '%s' cannot "
                       "be resized from %" G_GINT64_FORMAT " to %"
                       G_GINT64_FORMAT " bytes: %s", bdrv_node_name(bs),
                       bdrv_filename(bs), r->old, r->new, text);
}

static int failed(const Resize *r, int ret, const char *what)
{
    return ret < 0 ? refuse(r, -ret, "%s: %s", what, g_strerror(-ret)) : 0;
}

/* --- the rules ------------------------------------------------------------ */

/*
 * Each snapshot has a size of its own, so the disk's may change; but a version
 * 2 snapshot may lack it, and then takes that of the disk.
 */
static int check_snapshots(const Resize *r)
{
    const Qcow2 *q = r->q;

    for (guint i = 0; i < q->snapshots->len; i++) {
        const Qcow2Snapshot *s = g_ptr_array_index(q->snapshots, i);

        if (q->header.version < 3 || s->extra_bytes < 16) {
            return refuse(r, ENOTSUP, "its snapshot '%s' does not record a "
                          "size (upgrade the image to version 3, or delete "
                          "it)", s->name);
        }
    }
    return 0;
}

/*
 * Bitmaps in memory follow the size; the core does that.  On the disk they are
 * in use meanwhile, and get their new tables when they are stored.
 */
static int coroutine_fn check_bitmaps(const Resize *r)
{
    g_autofree char *obstacle = qcow2_bitmaps_obstacle(r->q, r->new);

    return obstacle ? refuse(r, ENOTSUP, "%s", obstacle) : 0;
}

static int check_resize(const Resize *r)
{
    const Qcow2 *q = r->q;
    int64_t max = MIN(qcow2_max_size(&q->geo), BDRV_MAX_LENGTH);

    if (r->new % QCOW2_SIZE_UNIT) {
        return refuse(r, EINVAL, "the size must be a multiple of %d",
                      QCOW2_SIZE_UNIT);
    }
    if (r->new > max) {
        return refuse(r, EFBIG, "the limit is %" G_GINT64_FORMAT " bytes with "
                      "clusters of %" G_GINT64_FORMAT, max,
                      q->geo.cluster_bytes);
    }
    if (r->new < r->old && r->prealloc != PREALLOC_MODE_OFF) {
        return refuse(r, EINVAL, "preallocation '%s' is for what is added",
                      prealloc_mode_names[r->prealloc]);
    }
    if (r->prealloc != PREALLOC_MODE_OFF && q->header.version < 3 &&
        bdrv_cow_child(q->bs)) {
        return refuse(r, ENOTSUP, "with a backing file, preallocation needs "
                      "version 3");
    }
    return check_snapshots(r);
}

/* --- the size on the disk ------------------------------------------------- */

static int coroutine_fn write_size(Qcow2 *q, int64_t size)
{
    uint8_t buf[8], before[8];
    int ret;

    co_mutex_lock(&q->meta_lock);
    be_put64(buf, size);
    be_put64(before, q->header.size);
    ret = qcow2_header_switch(q, QCOW2_H_SIZE, buf, before, sizeof(buf));
    if (ret == 0) {
        q->header.size = size;
    }
    co_mutex_unlock(&q->meta_lock);
    return ret;
}

/* --- growth --------------------------------------------------------------- */

/* What the tables have in the part that is added. */
static int coroutine_fn forget_new_part(const Resize *r)
{
    Qcow2 *q = r->q;
    unsigned shift = q->geo.l2_bits + q->geo.cluster_bits;
    int64_t at = qcow2_cluster_up(&q->geo, r->old);
    int64_t end = qcow2_cluster_up(&q->geo, r->new);
    int ret = 0;

    while (ret == 0 && at < end) {
        int64_t next = MIN(((at >> shift) + 1) << shift, end);

        if (qcow2_l1_entry(q, qcow2_l1_index(q, at))) {
            ret = qcow2_discard_range(q, at, next - at, QCOW2_DISCARD_ALWAYS,
                                      true);
        }
        at = next;
    }
    return ret;
}

/* Whether something else than zero is in the part where @mapping is. */
static bool shows_data(const Resize *r, int64_t offset,
                       const Qcow2Mapping *mapping)
{
    switch (mapping->kind) {
    case QCOW2_NORMAL:
    case QCOW2_COMPRESSED:
        return true;
    case QCOW2_UNALLOCATED:
    case QCOW2_UNALLOCATED_ALLOC:
        return offset < r->shown;
    default:
        return false;
    }
}

/* Make [@offset, +@bytes) zero, where it is not; q->size is new. */
static int coroutine_fn zero_part(const Resize *r, int64_t offset,
                                  int64_t bytes)
{
    Qcow2 *q = r->q;
    Qcow2Mapping mapping;
    BlockIOVec1 iov;
    BlockIO io;
    int ret;

    for (int64_t end = offset + bytes; offset < end; offset += io.bytes) {
        unsigned ticket = qcow2_access_begin(q);
        g_autofree uint8_t *zeroes = NULL;

        ret = qcow2_map(q, offset, end - offset, false, &mapping);
        qcow2_access_end(q, ticket);
        if (ret < 0) {
            return ret;
        }
        io = (BlockIO){ .offset = offset, .bytes = mapping.bytes };
        if (!shows_data(r, offset, &mapping)) {
            continue;
        }
        zeroes = g_try_malloc0(mapping.bytes);
        if (!zeroes) {
            return -ENOMEM;
        }
        io.iov = block_iov_buf(&iov, zeroes, mapping.bytes);
        ret = qcow2_pwritev(q->bs, &io);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

/* The cluster where the old end is, and what a longer backing file would show
 * behind it: before the header says that it is there. */
static int coroutine_fn zero_new_part(const Resize *r)
{
    Qcow2 *q = r->q;
    int64_t at = MIN(qcow2_cluster_up(&q->geo, r->old), r->new);
    int64_t end = MIN(qcow2_cluster_up(&q->geo, r->shown), r->new);
    int ret = zero_part(r, r->old, at - r->old);

    if (ret == 0 && at < end && q->header.version >= 3) {
        return qcow2_zero_range(q, at, end - at, 0);
    }
    for (; ret == 0 && at < end; at += q->geo.cluster_bytes) {
        ret = zero_part(r, at, MIN(end - at, q->geo.cluster_bytes));
    }
    return ret;
}

/* Make the file hold [@host, +@bytes) so that writing there has space. */
static int coroutine_fn reserve(const Resize *r, int64_t host, int64_t bytes)
{
    BdrvChild *file = r->q->data_file;
    g_autofree uint8_t *zeroes = NULL;
    int ret = 0;

    if (r->prealloc == PREALLOC_MODE_FALLOC) {
        return bdrv_co_pwrite_zeroes(file, host, bytes, 0);
    }
    if (r->prealloc != PREALLOC_MODE_FULL) {
        return 0;
    }
    zeroes = g_try_malloc0(FULL_CHUNK_BYTES);
    if (!zeroes) {
        return -ENOMEM;
    }
    for (int64_t done = 0; ret == 0 && done < bytes;
         done += FULL_CHUNK_BYTES) {
        ret = bdrv_co_pwrite(file, host + done,
                             MIN(bytes - done, FULL_CHUNK_BYTES), zeroes, 0);
    }
    return ret;
}

static int coroutine_fn extend_data_file(const Resize *r, int64_t length,
                                         bool exact)
{
    BdrvChild *file = r->q->data_file;
    BlockTruncate how = { .offset = length, .exact = exact };
    int64_t now = bdrv_co_getlength(bdrv_child_bs(file));

    if (now < 0 || now >= length) {
        return MIN(now, 0);
    }
    return bdrv_co_truncate(file, &how, NULL);
}

/* The L2 tables of the new part come first: they stay if the clusters cannot be
 * had, and must not keep the file long. */
static int coroutine_fn make_tables(const Resize *r)
{
    Qcow2 *q = r->q;
    int64_t end = qcow2_cluster_up(&q->geo, r->new);
    unsigned shift = q->geo.l2_bits + q->geo.cluster_bits;
    int ret = 0;

    for (int64_t at = qcow2_cluster_up(&q->geo, r->old); ret == 0 && at < end;
         at = ((at >> shift) + 1) << shift) {
        Qcow2L2Ref ref;

        ret = qcow2_meta_lock_range(q, at, 1);
        if (ret < 0) {
            break;
        }
        ret = qcow2_l2_get(q, at, true, &ref);
        if (ret == 0) {
            qcow2_l2_put(q, &ref);
        }
        qcow2_meta_unlock(q);
    }
    return ret;
}

static int coroutine_fn preallocate(const Resize *r)
{
    Qcow2 *q = r->q;
    int64_t at = qcow2_cluster_up(&q->geo, r->old);
    int64_t end = qcow2_cluster_up(&q->geo, r->new);
    int64_t file_end = 0;
    int ret = make_tables(r);

    while (ret == 0 && at < end) {
        int64_t host, bytes;

        ret = qcow2_preallocate_run(q, at, end - at, &host, &bytes);
        if (ret == 0 && host >= 0) {
            ret = reserve(r, host, bytes);
            file_end = MAX(file_end, host + bytes);
        }
        at += bytes;
    }
    if (ret < 0 || q->has_data_file) {
        return ret; /* that one is as long as the disk */
    }
    return extend_data_file(r, file_end, false);
}

/* --- growth that fails ---------------------------------------------------- */

/* Where the last cluster in [@end, @file_end) that is in use ends; @end if none
 * is.  Meta lock. */
static int coroutine_fn find_used_end(Qcow2 *q, int64_t end, int64_t file_end,
                                      int64_t *ret_end)
{
    unsigned bits = q->geo.cluster_bits, block_bits = q->geo.refblock_bits;
    int64_t at = qcow2_cluster_up(&q->geo, end) >> bits;
    int64_t last = qcow2_cluster_up(&q->geo, file_end) >> bits;
    int64_t n;

    *ret_end = end;
    for (; at < last; at += n) {
        int64_t index = qcow2_refblock_index(q, at), block;
        bool free = true;
        int ret = qcow2_refblock_find(q, index, &block);

        n = MIN((index + 1) << block_bits, last) - at;
        if (ret == 0 && block) {
            ret = qcow2_refcount_run(q, at, n, n, &free, &n);
        }
        if (ret < 0) {
            return ret;
        }
        if (!free) {
            *ret_end = (at + n) << bits;
        }
    }
    return 0;
}

/*
 * Cut off what the file has got behind @length, unless somebody uses it.  A
 * guest may have grown the file, too: his clusters count before he writes, and
 * under the meta lock nobody takes new ones.
 */
static int coroutine_fn cut_file(Qcow2 *q, int64_t length)
{
    BdrvChild *file = qcow2_file(q);
    BlockTruncate how = { .exact = true };
    int64_t now;
    int ret;

    co_mutex_lock(&q->meta_lock);
    now = bdrv_co_getlength(bdrv_child_bs(file));
    ret = now < 0 ? now : find_used_end(q, length, now, &how.offset);
    if (ret == 0 && how.offset < now) {
        ret = bdrv_co_truncate(file, &how, NULL);
    }
    co_mutex_unlock(&q->meta_lock);
    return ret;
}

/* Of a data file what is behind the disk's end is nobody's. */
static int coroutine_fn cut_data_file(const Resize *r, int64_t length)
{
    BdrvChild *file = r->q->data_file;
    BlockTruncate how = { .offset = MAX(length, r->old), .exact = true };
    int64_t now = bdrv_co_getlength(bdrv_child_bs(file));

    return now <= how.offset ? MIN(now, 0)
                             : bdrv_co_truncate(file, &how, NULL);
}

/*
 * All of the new part has space, or none: tables that name clusters behind the
 * end of the file are those of a corrupt image.  The data file, which may be
 * the image's, had @length bytes.
 */
static void coroutine_fn give_back(const Resize *r, int64_t length)
{
    Qcow2 *q = r->q;
    int ret = forget_new_part(r);

    if (ret == 0) {
        ret = qcow2_writeback(q); /* clusters are free only then */
    }
    if (ret == 0) {
        ret = q->has_data_file ? cut_data_file(r, length)
                               : cut_file(q, length);
    }
    if (ret < 0) {
        g_warning("Node '%s': image '%s' keeps space behind its end: %s",
                  bdrv_node_name(q->bs), bdrv_filename(q->bs),
                  g_strerror(-ret));
    }
}

/* --- growth, all of it ---------------------------------------------------- */

/* What the new size needs before the header may have it. */
static int coroutine_fn make_new_part(const Resize *r)
{
    Qcow2 *q = r->q;
    int ret = failed(r, zero_new_part(r), "the new part could not be zeroed");

    if (ret == 0 && q->has_data_file) {
        ret = failed(r, extend_data_file(r, r->new, q->data_file_raw),
                     "the data file could not be resized");
    }
    if (ret == 0 && (r->prealloc != PREALLOC_MODE_OFF || q->data_file_raw)) {
        ret = failed(r, preallocate(r), "no space could be preallocated");
    }
    if (ret == 0) {
        ret = failed(r, qcow2_writeback(q), "what it has to forget, or "
                     "zeroes, could not be written");
    }
    return ret;
}

static int coroutine_fn grow(const Resize *r)
{
    Qcow2 *q = r->q;
    int64_t length = bdrv_co_getlength(bdrv_child_bs(q->data_file));
    int ret = failed(r, MIN(length, 0), "its length cannot be told");

    if (ret == 0) {
        ret = qcow2_l1_grow(q, qcow2_l1_entries(&q->geo, r->new), r->errp);
    }
    if (ret < 0) {
        return ret;
    }
    ret = failed(r, forget_new_part(r), "old clusters could not be given up");
    if (ret < 0) {
        return ret;
    }
    /* From here on we may write there.  Nobody else does: the node's length,
     * which the core keeps, is the old one until we return. */
    atomic_store(&q->size, r->new);
    ret = make_new_part(r);
    if (ret < 0 && (r->prealloc != PREALLOC_MODE_OFF || q->has_data_file)) {
        give_back(r, length);
    }
    if (ret == 0) {
        ret = failed(r, write_size(q, r->new),
                     "the header could not be written");
    }
    if (ret < 0) {
        atomic_store(&q->size, r->old);
    }
    return ret;
}

/* --- shrink --------------------------------------------------------------- */

static int coroutine_fn shrink_data_file(const Resize *r)
{
    Qcow2 *q = r->q;
    BlockTruncate how = { .offset = r->new, .exact = q->data_file_raw };

    return q->has_data_file ? bdrv_co_truncate(q->data_file, &how, NULL) : 0;
}

static int coroutine_fn shrink(const Resize *r)
{
    Qcow2 *q = r->q;
    Resize cut = { .q = q, .old = r->new, .new = r->old };
    int ret = failed(r, write_size(q, r->new),
                     "the header could not be written");

    if (ret < 0) {
        return ret;
    }
    atomic_store(&q->size, r->new);
    /* The disk is shorter now, whatever becomes of the space behind it. */
    ret = forget_new_part(&cut);
    if (ret == 0) {
        ret = shrink_data_file(r);
    }
    if (ret < 0) {
        g_warning("Node '%s': image '%s' keeps space that was cut off: %s",
                  bdrv_node_name(q->bs), bdrv_filename(q->bs),
                  g_strerror(-ret));
    }
    return 0;
}

int coroutine_fn qcow2_truncate(BlockDriverState *bs,
                                const BlockTruncate *how, GError **errp)
{
    Qcow2 *q = qcow2_of(bs);
    Resize r = { .q = q, .old = atomic_load(&q->size), .new = how->offset,
                 .prealloc = how->prealloc, .errp = errp };
    BdrvChild *backing = bdrv_cow_child(bs);
    int ret;

    if (r.new == r.old) {
        return 0;
    }
    if (backing) {
        r.shown = bdrv_length(bdrv_child_bs(backing));
    }
    ret = check_resize(&r);
    if (ret == 0) {
        ret = check_bitmaps(&r);
    }
    if (ret == 0) {
        ret = failed(&r, qcow2_prepare_write(q), "it cannot be written");
    }
    if (ret < 0) {
        return ret;
    }
    return r.new > r.old ? grow(&r) : shrink(&r);
}
