/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From a guest offset to what is there: L1 entry, L2 entries, a run.
 *
 * If the slice of the L2 table is cached, nothing here waits or takes a lock.
 * What comes back was true at one moment after the call began.  The host
 * clusters in it stay what they are while the caller is inside
 * qcow2_access_begin/end, though they may not belong to the guest cluster any
 * more: then somebody else's write, zero write or discard of the same range
 * runs at the same time, and the order of the two is open.
 */
#include "block/formats/qcow2/qcow2.h"

#include <errno.h>

/* Entries that are looked at in one go. */
#define LOOK_ENTRIES 32

/* Some entries of an L2 table, and where the search stands. */
typedef struct Look {
    Qcow2 *q;
    int64_t offset;     /* of the guest, where the search began */
    int64_t bytes;
    bool for_write;
    unsigned nr;
    uint64_t raw[LOOK_ENTRIES * 2]; /* as on the disk */
} Look;

Qcow2Kind qcow2_entry_kind(const Qcow2 *q, Qcow2L2Entry entry, unsigned sc)
{
    if (q->has_data_file && (entry.word & QCOW2_OFLAG_COPIED) &&
        !(entry.word & QCOW2_OFFSET_MASK)) {
        /* Host offset 0 is a cluster like any other there. */
        entry.word |= q->geo.cluster_bytes;
    }
    return qcow2_l2_kind(&q->geo, entry, sc);
}

static Qcow2L2Entry look_entry(const Look *look, unsigned i)
{
    const Qcow2Geometry *geo = &look->q->geo;

    return qcow2_l2_from_disk(geo, geo->extended_l2 ? &look->raw[2 * i]
                                                    : &look->raw[i]);
}

/* --- fetching entries ----------------------------------------------------- */

/* Copy from the slice at @slice_offset, which may have to be loaded. */
static int coroutine_fn fetch(Look *look, int64_t slice_offset, size_t pos,
                              size_t bytes)
{
    Qcow2Cache *cache = look->q->l2_cache;
    Qcow2Slice *slice;
    int ret;

    if (G_LIKELY(qcow2_cache_peek(cache, slice_offset, pos, bytes,
                                  look->raw))) {
        return 0;
    }
    ret = qcow2_cache_get(cache, slice_offset, &slice);
    if (ret < 0) {
        return ret;
    }
    /* To look again would not do: an image can have tables that make chains
     * of the cache longer than a look goes. */
    qcow2_cache_read(cache, slice, pos, bytes, look->raw);
    qcow2_cache_put(cache, slice);
    return 0;
}

/* Fill look->raw; look->nr is 0 when there is no table. */
static int coroutine_fn look_up(Look *look)
{
    Qcow2 *q = look->q;
    const Qcow2Geometry *geo = &q->geo;
    size_t l1_index = qcow2_l1_index(q, look->offset);
    uint64_t l1_entry = qcow2_l1_entry(q, l1_index);
    int64_t table = l1_entry & QCOW2_OFFSET_MASK;
    unsigned index = (look->offset >> geo->cluster_bits) &
                     ((1u << geo->l2_bits) - 1);
    unsigned per_slice = qcow2_cache_slice_bytes(q->l2_cache) /
                         geo->l2_entry_bytes;
    unsigned in_slice = index % per_slice;
    int64_t clusters = (qcow2_into_cluster(geo, look->offset) + look->bytes +
                        geo->cluster_bytes - 1) >> geo->cluster_bits;

    look->nr = 0;
    if (!table) {
        return 0;
    }
    if ((l1_entry & QCOW2_L1_RESERVED) || qcow2_into_cluster(geo, table)) {
        qcow2_signal_corruption(q, true, table, geo->cluster_bytes,
                                "L1 entry %zu is not valid: 0x%"
                                G_GINT64_MODIFIER "x", l1_index, l1_entry);
        return -EIO;
    }
    look->nr = MIN(clusters, MIN(per_slice - in_slice, LOOK_ENTRIES));
    return fetch(look,
                 table + (int64_t)(index - in_slice) * geo->l2_entry_bytes,
                 (size_t)in_slice * geo->l2_entry_bytes,
                 (size_t)look->nr * geo->l2_entry_bytes);
}

/* --- the common case ------------------------------------------------------ */

/* Where the entry of @offset is; false if there is no table, or a wrong one. */
static bool find_entry(Qcow2 *q, int64_t offset, int64_t *ret_slice,
                       size_t *ret_pos)
{
    const Qcow2Geometry *geo = &q->geo;
    uint64_t l1_entry = qcow2_l1_entry(q, qcow2_l1_index(q, offset));
    int64_t table = l1_entry & QCOW2_OFFSET_MASK;
    int64_t index = offset >> geo->cluster_bits;
    /* A table is a cluster, and slices divide it. */
    int64_t in_table = (index * geo->l2_entry_bytes) &
                       (geo->cluster_bytes - 1);
    int64_t slice_bytes = qcow2_cache_slice_bytes(q->l2_cache);

    *ret_pos = in_table & (slice_bytes - 1);
    *ret_slice = table + in_table - *ret_pos;
    return table && !(l1_entry & QCOW2_L1_RESERVED) &&
           !qcow2_into_cluster(geo, table);
}

bool qcow2_map_data(Qcow2 *q, int64_t offset, int64_t bytes, int64_t *ret_host)
{
    const Qcow2Geometry *geo = &q->geo;
    int64_t into = qcow2_into_cluster(geo, offset);
    int64_t slice, host;
    uint64_t raw, word;
    size_t pos;

    if (into + bytes > geo->cluster_bytes || geo->extended_l2 ||
        !find_entry(q, offset, &slice, &pos) ||
        !qcow2_cache_peek(q->l2_cache, slice, pos, sizeof(raw), &raw)) {
        return false;
    }
    word = untrusted_word(untrusted_be64(&raw));
    host = word & QCOW2_OFFSET_MASK;
    *ret_host = host + into;
    return host && !qcow2_into_cluster(geo, host) &&
           !(word & (QCOW2_OFLAG_COMPRESSED | QCOW2_OFLAG_ZERO |
                     QCOW2_L2_RESERVED));
}

bool qcow2_expect_read(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    Qcow2 *q = qcow2_of(bs);
    int64_t slice;
    size_t pos;

    return find_entry(q, offset, &slice, &pos) &&
           qcow2_cache_prefetch(q->l2_cache, slice, pos);
}

/* --- runs ----------------------------------------------------------------- */

static bool has_host(Qcow2Kind kind)
{
    return kind == QCOW2_NORMAL || kind == QCOW2_ZERO_ALLOC ||
           kind == QCOW2_UNALLOCATED_ALLOC;
}

/* How many subclusters from @sc on are of @kind. */
static unsigned same_subclusters(const Qcow2 *q, Qcow2L2Entry entry,
                                 unsigned sc, Qcow2Kind kind)
{
    unsigned n = 1;

    while (sc + n < q->geo.subclusters &&
           qcow2_entry_kind(q, entry, sc + n) == kind) {
        n++;
    }
    return n;
}

/* Whether cluster @i goes on where the run, which began in cluster 0, is. */
static bool joins(const Look *look, const Qcow2Mapping *run, unsigned i)
{
    const Qcow2 *q = look->q;
    Qcow2L2Entry entry = look_entry(look, i);

    if (qcow2_entry_kind(q, entry, 0) != run->kind) {
        return false;
    }
    if (has_host(run->kind) && !SIM_PLANTED(28) &&
        qcow2_l2_host(entry) != run->host_offset + run->bytes) {
        return false;
    }
    return !look->for_write ||
           !((entry.word ^ run->word) & QCOW2_OFLAG_COPIED);
}

static int coroutine_fn invalid_entry(Qcow2 *q, int64_t offset,
                                      Qcow2L2Entry entry)
{
    qcow2_signal_corruption(q, true, qcow2_l2_host(entry),
                            q->geo.cluster_bytes, "the L2 entry of guest "
                            "offset 0x%" G_GINT64_MODIFIER "x is not valid: "
                            "0x%" G_GINT64_MODIFIER "x, 0x%"
                            G_GINT64_MODIFIER "x", (uint64_t)offset,
                            entry.word, entry.bitmap);
    return -EIO;
}

/* The run that begins in the first entry of @look. */
static int coroutine_fn make_run(Look *look, Qcow2Mapping *run)
{
    const Qcow2 *q = look->q;
    const Qcow2Geometry *geo = &q->geo;
    int64_t into = qcow2_into_cluster(geo, look->offset);
    unsigned sc = geo->subclusters > 1 ? into >> geo->subcluster_bits : 0;
    Qcow2L2Entry entry = look_entry(look, 0);
    unsigned n;

    run->word = entry.word;
    run->kind = qcow2_entry_kind(q, entry, sc);
    if (run->kind == QCOW2_INVALID ||
        (has_host(run->kind) && qcow2_into_cluster(geo,
                                                   qcow2_l2_host(entry)))) {
        return invalid_entry(look->q, look->offset, entry);
    }
    if (run->kind == QCOW2_COMPRESSED) {
        run->bytes = MIN(look->bytes, geo->cluster_bytes - into);
        return 0;
    }
    run->host_offset = has_host(run->kind) ? qcow2_l2_host(entry) + into : 0;
    n = same_subclusters(q, entry, sc, run->kind);
    run->bytes = ((int64_t)(sc + n) << geo->subcluster_bits) - into;
    for (unsigned i = 1; i < look->nr && sc + n == geo->subclusters &&
                         joins(look, run, i); i++) {
        sc = 0;
        n = same_subclusters(q, look_entry(look, i), 0, run->kind);
        run->bytes += (int64_t)n << geo->subcluster_bits;
    }
    run->bytes = MIN(run->bytes, look->bytes);
    return 0;
}

int coroutine_fn qcow2_map(Qcow2 *q, int64_t offset, int64_t bytes,
                           bool for_write, Qcow2Mapping *ret)
{
    int64_t table_bytes = (int64_t)1 << (q->geo.l2_bits + q->geo.cluster_bits);
    Look look; /* not cleared: the words are more than all else here */
    int code;

    g_assert(offset >= 0 && bytes > 0);
    look.q = q;
    look.offset = offset;
    look.bytes = bytes;
    look.for_write = for_write;
    code = look_up(&look);
    if (code < 0) {
        return code;
    }
    *ret = (Qcow2Mapping){ .kind = QCOW2_UNALLOCATED };
    if (look.nr == 0) {
        ret->bytes = MIN(bytes, table_bytes - (offset & (table_bytes - 1)));
        return 0;
    }
    return make_run(&look, ret);
}
