/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Numbers of the format: geometry, entries, descriptors, refcounts.
 *
 * Pure functions of their arguments.  Words come from an image and may hold
 * anything; what makes no sense is told as QCOW2_INVALID, never asserted.
 */
#include "block/formats/qcow2/layout.h"

/* Compressed data are counted in sectors, whatever the clusters are. */
#define SECTOR_BITS 9

#define LOW32 UINT64_C(0xffffffff)

void qcow2_geometry_init(Qcow2Geometry *geo, unsigned cluster_bits,
                         unsigned refcount_order, bool extended_l2)
{
    g_assert(cluster_bits >= QCOW2_MIN_CLUSTER_BITS &&
             cluster_bits <= QCOW2_MAX_CLUSTER_BITS);
    g_assert(refcount_order <= QCOW2_MAX_REFCOUNT_ORDER);

    *geo = (Qcow2Geometry){
        .cluster_bits = cluster_bits,
        .cluster_bytes = INT64_C(1) << cluster_bits,
        .extended_l2 = extended_l2,
        .subclusters = extended_l2 ? 32 : 1,
        .subcluster_bits = cluster_bits - (extended_l2 ? 5 : 0),
        .l2_entry_bytes = extended_l2 ? 16 : 8,
        .l2_bits = cluster_bits - (extended_l2 ? 4 : 3),
        .refcount_order = refcount_order,
        .refcount_max = refcount_order == 6
                            ? UINT64_MAX
                            : (UINT64_C(1) << (1u << refcount_order)) - 1,
        .refblock_bits = cluster_bits + 3 - refcount_order,
        .csize_shift = 62 - (cluster_bits - 8),
        .csize_mask = (UINT64_C(1) << (cluster_bits - 8)) - 1,
    };
    geo->subcluster_bytes = INT64_C(1) << geo->subcluster_bits;
    geo->coffset_mask = (UINT64_C(1) << geo->csize_shift) - 1;
}

/* --- kinds ---------------------------------------------------------------- */

static Qcow2Kind compressed_kind(const Qcow2Geometry *geo, Qcow2L2Entry entry)
{
    Qcow2Compressed where = qcow2_compressed_decode(geo, entry.word);

    /* Fields of more than 56 bits must not use them. */
    if (entry.bitmap || where.host_offset > QCOW2_MAX_HOST_OFFSET) {
        return QCOW2_INVALID;
    }
    return QCOW2_COMPRESSED;
}

static Qcow2Kind extended_kind(Qcow2L2Entry entry, unsigned sc, bool has_host)
{
    uint64_t allocated = entry.bitmap & LOW32;
    uint64_t zero = entry.bitmap >> 32;

    if ((allocated & zero) || (allocated && !has_host)) {
        return QCOW2_INVALID;
    }
    if (zero >> sc & 1) {
        return has_host ? QCOW2_ZERO_ALLOC : QCOW2_ZERO_PLAIN;
    }
    if (allocated >> sc & 1) {
        return QCOW2_NORMAL;
    }
    return has_host ? QCOW2_UNALLOCATED_ALLOC : QCOW2_UNALLOCATED;
}

Qcow2Kind qcow2_l2_kind(const Qcow2Geometry *geo, Qcow2L2Entry entry,
                        unsigned sc)
{
    int64_t host = qcow2_l2_host(entry);
    bool has_host;

    g_assert(sc < geo->subclusters);
    if (entry.word & QCOW2_OFLAG_COMPRESSED) {
        return compressed_kind(geo, entry);
    }
    if ((entry.word & QCOW2_L2_RESERVED) || qcow2_into_cluster(geo, host)) {
        return QCOW2_INVALID;
    }
    /* The first cluster of a data file can hold data; that of an image has
     * the header. */
    has_host = host || (geo->external_data &&
                        (entry.word & QCOW2_OFLAG_COPIED));
    if (geo->extended_l2) {
        return entry.word & QCOW2_OFLAG_ZERO
                   ? QCOW2_INVALID
                   : extended_kind(entry, sc, has_host);
    }
    if (entry.word & QCOW2_OFLAG_ZERO) {
        return has_host ? QCOW2_ZERO_ALLOC : QCOW2_ZERO_PLAIN;
    }
    return has_host ? QCOW2_NORMAL : QCOW2_UNALLOCATED;
}

/* --- compressed clusters -------------------------------------------------- */

Qcow2Compressed qcow2_compressed_decode(const Qcow2Geometry *geo,
                                        uint64_t word)
{
    int64_t host = word & geo->coffset_mask;
    int64_t more = word >> geo->csize_shift & geo->csize_mask;
    int64_t into_sector = host & ((1 << SECTOR_BITS) - 1);

    return (Qcow2Compressed){
        .host_offset = host,
        .bytes = ((more + 1) << SECTOR_BITS) - into_sector,
    };
}

uint64_t qcow2_compressed_encode(const Qcow2Geometry *geo,
                                 int64_t host_offset, int64_t bytes)
{
    uint64_t more;

    g_assert(bytes > 0 && bytes <= geo->cluster_bytes);
    g_assert(host_offset >= 0 && host_offset <= QCOW2_MAX_HOST_OFFSET &&
             (uint64_t)host_offset <= geo->coffset_mask);
    more = ((host_offset + bytes - 1) >> SECTOR_BITS) -
           (host_offset >> SECTOR_BITS);
    g_assert(more <= geo->csize_mask);
    return QCOW2_OFLAG_COMPRESSED | more << geo->csize_shift |
           (uint64_t)host_offset;
}

/* --- refcounts ------------------------------------------------------------ */

Untrusted qcow2_refcount_at(const void *block, unsigned order, uint64_t index)
{
    const uint8_t *bytes = block;
    uint64_t bit = index << order;

    switch (order) {
    case 0:
    case 1:
    case 2:
        return untrusted(bytes[bit / 8] >> (bit % 8) &
                         ((1u << (1u << order)) - 1));
    case 3:
        return untrusted_byte(bytes + index);
    case 4:
        return untrusted_be16(bytes + index * 2);
    case 5:
        return untrusted_be32(bytes + index * 4);
    case 6:
        return untrusted_be64(bytes + index * 8);
    default:
        g_assert_not_reached();
    }
}

static void put_bits(uint8_t *bytes, unsigned order, uint64_t index,
                     uint64_t value)
{
    uint64_t bit = index << order;
    unsigned mask = (1u << (1u << order)) - 1;
    uint8_t *at = bytes + bit / 8;

    *at = (*at & ~(mask << (bit % 8))) | (unsigned)value << (bit % 8);
}

void qcow2_refcount_put(void *block, unsigned order, uint64_t index,
                        uint64_t value)
{
    uint8_t *bytes = block;

    g_assert(order == 6 || value >> (1u << order) == 0);
    switch (order) {
    case 0:
    case 1:
    case 2:
        put_bits(bytes, order, index, value);
        return;
    case 3:
        bytes[index] = value;
        return;
    case 4:
        be_put16(bytes + index * 2, value);
        return;
    case 5:
        be_put32(bytes + index * 4, value);
        return;
    case 6:
        be_put64(bytes + index * 8, value);
        return;
    default:
        g_assert_not_reached();
    }
}

/* --- sizes ---------------------------------------------------------------- */

int64_t qcow2_l1_entries(const Qcow2Geometry *geo, int64_t size)
{
    unsigned shift = geo->cluster_bits + geo->l2_bits;
    int64_t whole = size >> shift;

    g_assert(size >= 0);
    return whole + ((whole << shift) < size);
}

int64_t qcow2_max_size(const Qcow2Geometry *geo)
{
    int64_t entries = QCOW2_MAX_L1_BYTES / sizeof(uint64_t);
    unsigned shift = geo->cluster_bits + geo->l2_bits;

    return entries > INT64_MAX >> shift ? INT64_MAX : entries << shift;
}
