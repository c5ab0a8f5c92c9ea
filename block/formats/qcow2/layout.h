/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a qcow2 image looks like on the disk: numbers and pure arithmetic.
 *
 * Source: the format's public specification (docs/interop/qcow2 of QEMU).  All
 * integers of an image are big-endian; those in these structs are the host's,
 * and have been compared with their limits unless they are Untrusted.
 * Nothing here does I/O, waits or locks.
 */
#ifndef BLOCK_FORMATS_QCOW2_LAYOUT_H
#define BLOCK_FORMATS_QCOW2_LAYOUT_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "util/big-endian.h"
#include "util/untrusted.h"

/* --- header --------------------------------------------------------------- */

#define QCOW2_MAGIC 0x514649fbu /* "QFI\xfb" */

#define QCOW2_MIN_CLUSTER_BITS 9
#define QCOW2_MAX_CLUSTER_BITS 21
#define QCOW2_MAX_REFCOUNT_ORDER 6

/** Offsets of the header's fields in the file, in bytes. */
enum {
    QCOW2_H_MAGIC = 0,
    QCOW2_H_VERSION = 4,
    QCOW2_H_BACKING_OFFSET = 8,
    QCOW2_H_BACKING_SIZE = 16,
    QCOW2_H_CLUSTER_BITS = 20,
    QCOW2_H_SIZE = 24,
    QCOW2_H_CRYPT_METHOD = 32,
    QCOW2_H_L1_SIZE = 36,
    QCOW2_H_L1_OFFSET = 40,
    QCOW2_H_REFTABLE_OFFSET = 48,
    QCOW2_H_REFTABLE_CLUSTERS = 56,
    QCOW2_H_NB_SNAPSHOTS = 60,
    QCOW2_H_SNAPSHOTS_OFFSET = 64,
    QCOW2_H_V2_BYTES = 72,
    QCOW2_H_INCOMPATIBLE = 72,
    QCOW2_H_COMPATIBLE = 80,
    QCOW2_H_AUTOCLEAR = 88,
    QCOW2_H_REFCOUNT_ORDER = 96,
    QCOW2_H_HEADER_LENGTH = 100,
    QCOW2_H_V3_BYTES = 104,
    QCOW2_H_COMPRESSION = 104, /* one byte, then 7 of padding */
    QCOW2_H_BYTES = 112,       /* what we write for version 3 */
};

/** Incompatible features. */
#define QCOW2_INCOMPAT_DIRTY (UINT64_C(1) << 0)
#define QCOW2_INCOMPAT_CORRUPT (UINT64_C(1) << 1)
#define QCOW2_INCOMPAT_DATA_FILE (UINT64_C(1) << 2)
#define QCOW2_INCOMPAT_COMPRESSION (UINT64_C(1) << 3)
#define QCOW2_INCOMPAT_EXTL2 (UINT64_C(1) << 4)
#define QCOW2_INCOMPAT_MASK UINT64_C(0x1f)
/** Compatible features. */
#define QCOW2_COMPAT_LAZY_REFCOUNTS (UINT64_C(1) << 0)
/** Autoclear features. */
#define QCOW2_AUTOCLEAR_BITMAPS (UINT64_C(1) << 0)
#define QCOW2_AUTOCLEAR_RAW_DATA (UINT64_C(1) << 1)
#define QCOW2_AUTOCLEAR_MASK UINT64_C(3)

/** Magics of header extensions. */
#define QCOW2_EXT_END 0x00000000u
#define QCOW2_EXT_BACKING_FORMAT 0xe2792acau
#define QCOW2_EXT_FEATURE_TABLE 0x6803f857u
#define QCOW2_EXT_BITMAPS 0x23852875u
#define QCOW2_EXT_CRYPTO 0x0537be77u
#define QCOW2_EXT_DATA_FILE 0x44415441u

typedef enum Qcow2Compression {
    QCOW2_COMPRESSION_ZLIB = 0,
    QCOW2_COMPRESSION_ZSTD = 1,
} Qcow2Compression;

/* Limits: what an image may make us allocate (QEMU's, so that images pass
 * between the two). */
#define QCOW2_MAX_L1_BYTES (INT64_C(32) << 20)
#define QCOW2_MAX_REFTABLE_BYTES (INT64_C(8) << 20)
#define QCOW2_MAX_SNAPSHOTS 65536
#define QCOW2_MAX_SNAPSHOTS_BYTES (INT64_C(1024) * QCOW2_MAX_SNAPSHOTS)
#define QCOW2_MAX_SNAPSHOT_EXTRA 1024
#define QCOW2_MAX_BACKING_NAME 1023
#define QCOW2_MAX_FORMAT_NAME 15
#define QCOW2_MAX_BITMAPS 65535
#define QCOW2_MAX_BITMAP_DIR_BYTES (INT64_C(1024) * QCOW2_MAX_BITMAPS)
#define QCOW2_MAX_BITMAP_NAME 1023

/** The largest host offset that an L1 or L2 entry can hold. */
#define QCOW2_MAX_HOST_OFFSET ((INT64_C(1) << 56) - 1)

/** A disk's size is a multiple of it; what a header has more does not count. */
#define QCOW2_SIZE_UNIT 512

/** Sizes that follow from the header; set at open, never changed after. */
typedef struct Qcow2Geometry {
    unsigned cluster_bits;
    int64_t cluster_bytes;
    bool extended_l2;
    bool external_data;        /* set by open: host offset 0 may be named */
    unsigned subclusters;      /* of a cluster: 32, or 1 */
    unsigned subcluster_bits;
    int64_t subcluster_bytes;
    unsigned l2_entry_bytes;   /* 16 with extended L2 entries, else 8 */
    unsigned l2_bits;          /* log2 of the entries of an L2 table */
    unsigned refcount_order;   /* a refcount has 1 << order bits */
    uint64_t refcount_max;
    unsigned refblock_bits;    /* log2 of the refcounts of a block */
    unsigned csize_shift;      /* of the sector count in a descriptor */
    uint64_t csize_mask;       /* of that count, once shifted down */
    uint64_t coffset_mask;     /* of the host offset of compressed data */
} Qcow2Geometry;

/** Compute the geometry of a valid cluster size and refcount width. */
void qcow2_geometry_init(Qcow2Geometry *geo, unsigned cluster_bits,
                         unsigned refcount_order, bool extended_l2);

/* --- entries of L1 and L2 tables ------------------------------------------ */

#define QCOW2_OFLAG_COPIED (UINT64_C(1) << 63) /* refcount is exactly 1 */
#define QCOW2_OFLAG_COMPRESSED (UINT64_C(1) << 62) /* L2 only */
#define QCOW2_OFLAG_ZERO (UINT64_C(1) << 0)        /* L2, standard entries */
#define QCOW2_OFFSET_MASK UINT64_C(0x00fffffffffffe00)
#define QCOW2_L1_RESERVED UINT64_C(0x7f000000000001ff)
#define QCOW2_L2_RESERVED UINT64_C(0x3f000000000001fe)
#define QCOW2_REFTABLE_RESERVED UINT64_C(0x1ff)

/** An L2 entry; @bitmap is 0 unless entries are extended.  Both are words of
 * bits: masks take them apart, and nothing calculates with a whole one. */
typedef struct Qcow2L2Entry {
    uint64_t word;
    uint64_t bitmap; /* bits 0-31: allocated, 32-63: reads as zero */
} Qcow2L2Entry;

/** The entry at @p of an L2 table as the disk has it. */
static inline Qcow2L2Entry qcow2_l2_from_disk(const Qcow2Geometry *geo,
                                              const void *p)
{
    const uint8_t *at = p;

    return (Qcow2L2Entry){
        .word = untrusted_word(untrusted_be64(at)),
        .bitmap = geo->extended_l2 ? untrusted_word(untrusted_be64(at + 8))
                                   : 0,
    };
}

/** What a cluster, or a subcluster of one, is. */
typedef enum Qcow2Kind {
    QCOW2_UNALLOCATED, /* shows the backing file; no host cluster */
    QCOW2_UNALLOCATED_ALLOC, /* the same, but the cluster has a host cluster */
    QCOW2_NORMAL,
    QCOW2_ZERO_PLAIN,  /* reads as zero; no host cluster */
    QCOW2_ZERO_ALLOC,  /* reads as zero; has a host cluster */
    QCOW2_COMPRESSED,
    QCOW2_INVALID,     /* the image lies */
} Qcow2Kind;

/** The kind of subcluster @sc (0 without subclusters) of @entry. */
Qcow2Kind qcow2_l2_kind(const Qcow2Geometry *geo, Qcow2L2Entry entry,
                        unsigned sc);

/** The host offset in a standard entry; 0: none. */
static inline int64_t qcow2_l2_host(Qcow2L2Entry entry)
{
    return entry.word & QCOW2_OFFSET_MASK;
}

/** Where the data of a compressed cluster lies. */
typedef struct Qcow2Compressed {
    int64_t host_offset; /* bytes, any alignment */
    int64_t bytes;       /* up to the end of its last 512-byte sector */
} Qcow2Compressed;

/** The descriptor in a compressed entry. */
Qcow2Compressed qcow2_compressed_decode(const Qcow2Geometry *geo,
                                        uint64_t word);

/** The entry of @bytes of compressed data at @host_offset, which must fit. */
uint64_t qcow2_compressed_encode(const Qcow2Geometry *geo,
                                 int64_t host_offset, int64_t bytes);

/* --- refcounts ------------------------------------------------------------ */

/** The refcount number @index of a table at @block.  The bits of widths below
 * a byte are packed from the least significant end. */
Untrusted qcow2_refcount_at(const void *block, unsigned order, uint64_t index);

/** Set it; @value must fit the width. */
void qcow2_refcount_put(void *block, unsigned order, uint64_t index,
                        uint64_t value);

/* --- sizes ---------------------------------------------------------------- */

static inline int64_t qcow2_cluster_down(const Qcow2Geometry *geo,
                                         int64_t offset)
{
    return offset & ~(geo->cluster_bytes - 1);
}

/** @offset must be at most INT64_MAX - cluster_bytes. */
static inline int64_t qcow2_cluster_up(const Qcow2Geometry *geo,
                                       int64_t offset)
{
    return (offset + geo->cluster_bytes - 1) & ~(geo->cluster_bytes - 1);
}

static inline int64_t qcow2_into_cluster(const Qcow2Geometry *geo,
                                         int64_t offset)
{
    return offset & (geo->cluster_bytes - 1);
}

/** Entries that an L1 table for @size bytes needs. */
int64_t qcow2_l1_entries(const Qcow2Geometry *geo, int64_t size);

/** The largest virtual size that the limit of the L1 table allows. */
int64_t qcow2_max_size(const Qcow2Geometry *geo);

#endif /* BLOCK_FORMATS_QCOW2_LAYOUT_H */
