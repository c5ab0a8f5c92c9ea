/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A new header in place of the old one, so that a power cut leaves one of them.
 *
 * Only a sector is written as a whole.  If more than the first one changes, the
 * old header is cut first: its list of extensions ends where it would leave
 * sector 0, so that nothing behind is looked at, but for the name of the
 * backing file, which stays or gets another place.
 *
 *   1  sector 0 of the old header, cut         -- flush --
 *   2  the sectors behind it of the new one    -- flush --
 *   3  sector 0 of the new one                 -- flush --
 *
 * What is cut off are the table of names, which nobody needs, and bitmaps,
 * which are disowned.  If other extensions lie there (an image of another
 * program with very long names), the header is written in one piece, and may
 * be torn.
 */
#include "block/formats/qcow2/qcow2.h"

#include <errno.h>

#define SECTOR 512

/* The old header in memory, and the new one; whole sectors of both. */
typedef struct Replace {
    Qcow2 *q;
    uint8_t *old;
    uint8_t *new;
    int64_t bytes;
    bool touched;      /* something was written */
} Replace;

/* --- cutting the old header ----------------------------------------------- */

static bool may_miss(uint32_t magic)
{
    return magic == QCOW2_EXT_FEATURE_TABLE || magic == QCOW2_EXT_BITMAPS;
}

static bool is_version3(const Replace *r)
{
    return untrusted_above(untrusted_be32(r->old + QCOW2_H_VERSION), 2);
}

/* Where the list begins; at the end of the header if it has none. */
static int64_t first_extension(const Replace *r)
{
    int64_t at = QCOW2_H_V2_BYTES;

    if (is_version3(r) &&
        !untrusted_at_most(untrusted_be32(r->old + QCOW2_H_HEADER_LENGTH),
                           r->bytes, &at)) {
        return r->bytes;
    }
    return at;
}

/* Where the extension at @at ends; behind the header, if it says so, but not
 * how far. */
static int64_t extension_end(const Replace *r, int64_t at)
{
    int64_t bytes;

    if (!untrusted_at_most(untrusted_be32(r->old + at + 4), r->bytes,
                           &bytes)) {
        bytes = r->bytes;
    }
    return at + 8 + ((bytes + 7) & ~INT64_C(7));
}

/*
 * Where the list must end so that it stays in sector 0; 0 if it does, -1 if it
 * cannot be cut.
 */
static int64_t find_cut(const Replace *r)
{
    int64_t at = first_extension(r);
    int64_t cut = 0;

    while (at + 8 <= r->bytes) {
        uint32_t magic = untrusted_verbatim(untrusted_be32(r->old + at));
        int64_t end = extension_end(r, at);

        if (magic == QCOW2_EXT_END) {
            return cut;
        }
        if (cut == 0 && end + 8 > SECTOR) {
            cut = at;
        }
        if (cut > 0 && (!may_miss(magic) || cut + 8 > SECTOR)) {
            return -1;
        }
        at = end;
    }
    return cut;
}

/* Where the old name of the backing file is, behind sector 0; returns how many
 * bytes that are. */
static size_t find_old_name(const Replace *r, uint64_t *from)
{
    uint64_t offset, bytes, to;

    *from = 0;
    if (!untrusted_at_most(untrusted_be64(r->old + QCOW2_H_BACKING_OFFSET),
                           r->bytes, &offset) || offset == 0) {
        return 0;
    }
    if (!untrusted_at_most(untrusted_be32(r->old + QCOW2_H_BACKING_SIZE),
                           r->bytes, &bytes)) {
        bytes = r->bytes;
    }
    to = MIN(offset + bytes, (uint64_t)r->bytes);
    *from = MIN(MAX(offset, SECTOR), to);
    return to - *from;
}

/* Whether the name of the backing file is where the new header leaves it. */
static bool keeps_name(const Replace *r)
{
    uint64_t from;
    size_t bytes = find_old_name(r, &from);

    return memcmp(r->old + from, r->new + from, bytes) == 0;
}

/* The old name stays where the new header has nothing: while its last two steps
 * are done, the first sector of the old header still points there. */
static void leave_name(Replace *r)
{
    uint64_t from;
    size_t bytes = find_old_name(r, &from);

    if (block_buffer_is_zero(r->new + from, bytes)) {
        memcpy(r->new + from, r->old + from, bytes);
    }
}

/* --- writing -------------------------------------------------------------- */

static int coroutine_fn write_part(Replace *r, const uint8_t *from,
                                   int64_t offset, int64_t bytes)
{
    int ret = qcow2_check_overlap(r->q, QCOW2_OL_MAIN_HEADER, offset, bytes,
                                  false);

    if (ret == 0) {
        r->touched = true;
        SIM_POINT("qcow2.header", bdrv_node_name(r->q->bs));
        ret = bdrv_co_pwrite(qcow2_file(r->q), offset, bytes, from + offset,
                             0);
    }
    return ret;
}

static int coroutine_fn flush(const Replace *r)
{
    return bdrv_co_flush(bdrv_child_bs(qcow2_file(r->q)));
}

/* Sector 0 of the old header with a list that ends at @cut. */
static int coroutine_fn write_cut(Replace *r, int64_t cut)
{
    if (cut > 0) {
        memset(r->old + cut, 0, 8);
    }
    if (cut > 0 && is_version3(r)) {
        uint64_t autoclear =
            untrusted_word(untrusted_be64(r->old + QCOW2_H_AUTOCLEAR));

        be_put64(r->old + QCOW2_H_AUTOCLEAR,
                 autoclear & ~QCOW2_AUTOCLEAR_BITMAPS);
    }
    return write_part(r, r->old, 0, SECTOR);
}

static int coroutine_fn replace(Replace *r)
{
    int64_t cut;
    int ret;

    if (r->bytes <= SECTOR ||
        memcmp(r->old + SECTOR, r->new + SECTOR, r->bytes - SECTOR) == 0) {
        return write_part(r, r->new, 0, MIN(r->bytes, SECTOR));
    }
    cut = find_cut(r);
    if (cut < 0 || !keeps_name(r)) {
        return write_part(r, r->new, 0, r->bytes);
    }
    ret = write_cut(r, cut);
    ret = ret < 0 ? ret : flush(r);
    ret = ret < 0 ? ret : write_part(r, r->new, SECTOR, r->bytes - SECTOR);
    ret = ret < 0 ? ret : flush(r);
    return ret < 0 ? ret : write_part(r, r->new, 0, SECTOR);
}

/* Put the new header together, its name where the old one does not have it. */
static int64_t encode(Replace *r)
{
    int64_t bytes = qcow2_header_encode(&r->q->header, 0, r->new);

    leave_name(r);
    if (bytes > 0 && !keeps_name(r)) {
        bytes = qcow2_header_encode(&r->q->header, 1, r->new);
        leave_name(r);
    }
    return bytes;
}

static int coroutine_fn read_and_replace(Replace *r)
{
    int64_t cluster = r->q->geo.cluster_bytes;
    int64_t bytes;
    int ret;

    r->old = g_try_malloc(cluster);
    r->new = g_try_malloc(cluster);
    if (!r->old || !r->new) {
        return -ENOMEM;
    }
    ret = bdrv_co_pread(qcow2_file(r->q), 0, cluster, r->old, 0);
    if (ret < 0) {
        return ret;
    }
    r->bytes = cluster; /* the old one may be longer */
    bytes = encode(r);
    if (bytes < 0) {
        return bytes;
    }
    /* What stands behind the end of the extensions has no meaning. */
    bytes += -bytes & (SECTOR - 1);
    r->bytes = MIN(bytes, cluster);
    ret = replace(r);
    return ret < 0 ? ret : flush(r);
}

/* @ret_touched: whether the disk may have something else than before. */
static int coroutine_fn write_header(Qcow2 *q, bool *ret_touched, GError **errp)
{
    BlockDriverState *bs = q->bs;
    Replace r = { .q = q };
    int ret = read_and_replace(&r);

    g_free(r.old);
    g_free(r.new);
    *ret_touched = r.touched;
    if (ret == -ENOSPC) {
        return block_error(errp, ENOSPC, "Node '%s': the header of image '%s' "
                           "does not fit in its first cluster of %"
                           G_GINT64_FORMAT " bytes (name of the backing file "
                           "too long?), or there is no space left",
                           bdrv_node_name(bs), bdrv_filename(bs),
                           q->geo.cluster_bytes);
    }
    if (ret < 0) {
        return block_error_errno(errp, -ret, "Node '%s': could not write the "
                                 "header of image '%s'", bdrv_node_name(bs),
                                 bdrv_filename(bs));
    }
    return 0;
}

int coroutine_fn qcow2_header_write(Qcow2 *q, GError **errp)
{
    bool touched;

    return write_header(q, &touched, errp);
}

int coroutine_fn qcow2_header_replace(Qcow2 *q, const Qcow2Header *next,
                                      GError **errp)
{
    Qcow2Header old = q->header;
    bool touched;
    int ret;

    g_assert(co_mutex_is_mine(&q->meta_lock));
    q->header = *next;
    ret = write_header(q, &touched, errp);
    if (ret < 0) {
        q->header = old;
        if (touched && write_header(q, &touched, NULL) < 0) {
            qcow2_stop_writes(q, "could not change the header, nor leave it "
                              "as it was");
        }
    }
    return ret;
}
