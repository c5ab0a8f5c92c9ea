/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inside of the driver "qcow2": its state, and what its files share.
 *
 *   layout.c       numbers of the format, pure arithmetic
 *   cache*.c       slices of L2 tables and refcount blocks
 *   header.c       the header and its extensions, to and from bytes
 *   header-write.c a new header in place of the old one
 *   mark.c         its state bits: dirty, corrupt, autoclear
 *   names.c        backing and data files that an image names
 *   driver.c       the driver's table: open, close, reopen, limits
 *   options.c      run-time options
 *   mapping.c      guest offset -> L1 -> L2 -> host offset
 *   link.c         changes of L1 and L2 tables
 *   read.c write.c cow.c zero.c status.c compress.c    requests
 *   preallocate.c  host clusters without data
 *   grace.c        when no request can use a host cluster any more
 *   writeback.c    metadata to the disk, in an order that survives a crash
 *   memory.c       memory whose size the image states
 *   refcount.c     reference counts
 *   alloc.c        free clusters
 *   pending.c      clusters that are given up, until they may be used again
 *   overlap.c      no write may hit metadata that it is not meant for
 *   snapshot-table.c snapshot.c    internal snapshots
 *   bitmap-directory.c bitmap.c bitmap-runtime.c   persistent dirty bitmaps
 *   check*.c repair*.c             qemu-img check
 *   create.c truncate.c amend.c info.c measure.c      images as a whole
 *
 * Invariants.  "On the disk" is: if the machine stops now.
 *
 *   I1  The refcount of a cluster on the disk is at least the number of
 *       references to it on the disk.
 *   I2  An L2 entry on the disk names a cluster only when what was written to
 *       that cluster before the entry was made is on the disk.
 *   I3  An L1 (or refcount table) entry on the disk names a table only when the
 *       table is on the disk.
 *   I4  A cluster whose refcount is 0 is named by no table, on the disk or in
 *       memory, used by no request, and no discard for it is under way.
 *   I5  A guest cluster has at most one allocation under way (Qcow2Alloc), and
 *       only it changes the entries of the range.
 *   I6  A table entry that has COPIED set names a cluster with refcount 1.
 *
 * I1 to I4 by write-back (writeback.c): a reference is added on the disk after
 * the refcount has grown there, and a refcount falls, even in memory, only
 * after the reference has gone from the disk.
 *
 * Locks, in this order:
 *
 *   writeback_lock   CoMutex; one write-back at a time
 *   meta_lock        CoMutex; all changes of metadata in memory.  Taken by
 *                    qcow2_meta_lock(), which makes sure that the L2 cache has
 *                    room; write-back is never waited for under it
 *   (Lock)           short ones, inside cache.c and overlap.c
 *
 * Requests whose mapping is cached take neither CoMutex: they peek into the
 * cache, inside qcow2_access_begin/end, which keeps host clusters that they
 * have seen from being used for something else.
 */
#ifndef BLOCK_FORMATS_QCOW2_QCOW2_H
#define BLOCK_FORMATS_QCOW2_QCOW2_H

#include <blockgraph/driver.h>
#include <stdatomic.h>

#include "block/formats/qcow2/cache.h"
#include "block/formats/qcow2/layout.h"
#include "util/interval-tree.h"
#include "util/list.h"
#include "util/lock.h"
#include "util/sim-point.h"

/** L2 slices that may become dirty under one qcow2_meta_lock(). */
#define QCOW2_META_SLICES 4

/** A header extension that we do not know, kept as it is. */
typedef struct Qcow2Extension {
    uint32_t magic;
    uint32_t bytes;
    uint8_t *data;
} Qcow2Extension;

/** The header and its extensions, host-endian; checked against all limits that
 * the header alone is enough for. */
typedef struct Qcow2Header {
    unsigned version; /* 2 or 3 */
    unsigned cluster_bits;
    unsigned refcount_order;
    uint64_t size;
    uint32_t crypt_method;
    uint32_t l1_size; /* entries */
    uint64_t l1_offset;
    uint64_t reftable_offset;
    uint32_t reftable_clusters;
    uint32_t nb_snapshots;
    uint64_t snapshots_offset;
    uint64_t incompatible;     /* of an open node: qcow2_incompatible() */
    uint64_t compatible;
    uint64_t autoclear;
    uint32_t header_length;
    Qcow2Compression compression;
    uint8_t *unknown_fields;   /* of the header, behind those we know */
    size_t unknown_fields_bytes;
    char *backing_file;        /* NULL: none */
    char *backing_format;      /* NULL: not recorded */
    char *data_file;           /* name of the extension; NULL: none */
    /* The bitmaps extension; has_bitmaps false: not there. */
    bool has_bitmaps;
    uint32_t nb_bitmaps;
    uint64_t bitmap_dir_bytes;
    uint64_t bitmap_dir_offset;
    GArray *unknown;           /* Qcow2Extension */
} Qcow2Header;

/** An internal snapshot, as its table has it: a wrong one does not keep the
 * image from being opened, so whoever uses one looks first. */
typedef struct Qcow2Snapshot {
    Untrusted l1_offset;
    Untrusted l1_size;       /* entries */
    Untrusted disk_bytes;    /* virtual size; that of the image if not there */
    /* Told as they are, and nothing follows from them. */
    uint32_t date_sec, date_nsec;
    uint64_t vm_clock_ns;
    uint64_t vm_state_bytes; /* 64-bit field of the extra data if there */
    uint64_t icount;         /* UINT64_MAX if not there */
    uint32_t extra_bytes;    /* of the extra data on the disk */
    uint8_t *unknown_extra;  /* what follows the 24 bytes we know, or NULL */
    size_t unknown_extra_bytes;
    int64_t memory;          /* counted for it */
    char *id;
    char *name;
} Qcow2Snapshot;

/** L1 table in memory, host-endian.  Grows by a new one; see Qcow2.l1. */
typedef struct Qcow2L1 {
    _Atomic size_t nr;
    size_t room;               /* entries there is memory for */
    struct Qcow2L1 *older;     /* kept until close: readers take no lock */
    _Atomic uint64_t entry[];
} Qcow2L1;

/** Refcount table in memory, host-endian.  Meta lock. */
typedef struct Qcow2Reftable {
    int64_t offset;            /* in the file */
    size_t nr;                 /* entries, a whole number of clusters */
    uint64_t *entry;           /* see qcow2_reftable_entry_valid() */
    uint8_t *full;             /* by entry: 1 if no count of the block is 0 */
} Qcow2Reftable;

/** An entry of L1 or refcount table that the disk does not have yet. */
typedef struct Qcow2DirtyEntry {
    size_t index;
    uint64_t value;
    uint64_t before;           /* what the disk has, or an older such entry */
} Qcow2DirtyEntry;

/** What clusters are given up for: which discards reach the file. */
typedef enum Qcow2DiscardType {
    QCOW2_DISCARD_NEVER,     /* only metadata were wrong */
    QCOW2_DISCARD_ALWAYS,
    QCOW2_DISCARD_REQUEST,   /* a discard of the guest */
    QCOW2_DISCARD_SNAPSHOT,  /* a snapshot was deleted */
    QCOW2_DISCARD_OTHER,
} Qcow2DiscardType;

/** Clusters that are given up; see pending.c. */
typedef struct Qcow2Pending {
    ListHead link;
    int64_t offset;
    int64_t bytes;
    Qcow2DiscardType type;
    unsigned epoch;          /* set when they became durable */
} Qcow2Pending;

/** Kinds of metadata for the overlap check; bits. */
typedef enum Qcow2Overlap {
    QCOW2_OL_MAIN_HEADER = 1 << 0,
    QCOW2_OL_ACTIVE_L1 = 1 << 1,
    QCOW2_OL_ACTIVE_L2 = 1 << 2,
    QCOW2_OL_REFCOUNT_BLOCK = 1 << 3,
    QCOW2_OL_REFCOUNT_TABLE = 1 << 4,
    QCOW2_OL_SNAPSHOT_TABLE = 1 << 5,
    QCOW2_OL_INACTIVE_L1 = 1 << 6,
    QCOW2_OL_INACTIVE_L2 = 1 << 7,
    QCOW2_OL_BITMAP_DIRECTORY = 1 << 8,
    QCOW2_OL_CONSTANT = QCOW2_OL_MAIN_HEADER | QCOW2_OL_ACTIVE_L1 |
                        QCOW2_OL_REFCOUNT_TABLE | QCOW2_OL_SNAPSHOT_TABLE |
                        QCOW2_OL_BITMAP_DIRECTORY,
    QCOW2_OL_CACHED = QCOW2_OL_CONSTANT | QCOW2_OL_ACTIVE_L2 |
                      QCOW2_OL_REFCOUNT_BLOCK | QCOW2_OL_INACTIVE_L1,
    QCOW2_OL_ALL = QCOW2_OL_CACHED | QCOW2_OL_INACTIVE_L2,
} Qcow2Overlap;

/** Run-time options, parsed; options.c. */
typedef struct Qcow2Options {
    bool lazy_refcounts, has_lazy_refcounts;
    bool pass_discard_request, has_pass_discard_request;
    bool pass_discard_snapshot;
    bool pass_discard_other;
    bool discard_no_unref;
    unsigned overlap_check;         /* Qcow2Overlap bits */
    int64_t l2_cache_bytes;         /* effective sizes */
    int64_t l2_slice_bytes;
    int64_t refcount_cache_bytes;
    bool l2_cache_stated;           /* its size is given, not a default */
    bool refcount_cache_stated;
    int64_t cache_clean_interval_s; /* 0: never */
    bool for_repair;                /* a corrupt image may be open for writing,
                                     * and nothing but a repair changes it */
} Qcow2Options;

#define QCOW2_ACCESS_SHARDS 8

/** How many requests of some threads use host clusters; grace.c. */
typedef struct Qcow2AccessShard {
    _Alignas(64) _Atomic unsigned active[2];
} Qcow2AccessShard;

typedef struct Qcow2Metamap Qcow2Metamap;         /* overlap.c */
typedef struct Qcow2CodecPool Qcow2CodecPool;     /* codec.c */

/** The state of a node. */
typedef struct Qcow2 {
    /* Set by open, changed under drain only. */
    BlockDriverState *bs;
    Qcow2Geometry geo;
    Qcow2Options options;
    Qcow2Cache *l2_cache;
    Qcow2Cache *refcount_cache;
    BdrvChild *data_file;     /* where guest data goes; bs->file mostly */
    bool has_data_file;       /* it is another node */
    bool data_file_raw;
    bool read_only;
    bool is_open;             /* its open has succeeded */
    bool reloads;             /* its tables: without them it is of no use, so
                               * they are counted, not refused */
    bool snapshot_view;       /* shows an internal snapshot, read-only */
    unsigned buffer_align;    /* of buffers for requests to the file */

    /* Any thread. */
    _Atomic(Qcow2L1 *) l1;    /* entries written under the meta lock */
    _Atomic int64_t size;     /* virtual size in bytes */
    _Atomic bool corrupt;     /* no more writes; reason was told */
    _Atomic bool corruption_told; /* one that does not stop writes */
    _Atomic bool may_write;   /* qcow2_prepare_write() was here */
    Qcow2Metamap *metamap;    /* has its own lock */
    _Atomic unsigned epoch;
    _Atomic unsigned grace_waiters;
    Qcow2AccessShard access[QCOW2_ACCESS_SHARDS];
    Lock grace_lock;
    CoQueue grace_queue;      /* wait for old readers; @grace_lock */

    CoMutex writeback_lock;
    CoMutex meta_lock;

    /* Guarded by @meta_lock. */
    Qcow2Header header;
    Qcow2Reftable reftable;
    GArray *dirty_l1;         /* Qcow2DirtyEntry, by age */
    GArray *dirty_reftable;
    IntervalTree allocs;      /* Qcow2Alloc.node: guest ranges, I5 */
    int64_t free_hint;        /* no free cluster below this one (number) */
    int64_t compressed_next;  /* host offset where compressed data may go on;
                               * 0: none */
    int64_t fresh_from;       /* bytes of the file from here on were never
                               * written, and the file ends at or before */
    unsigned zeroed_epoch;    /* when something was last made zero that keeps
                               * its place in the file */
    ListHead pending_new;     /* Qcow2Pending: named on the disk still */
    ListHead pending_durable; /* not named any more, perhaps still used */
    int64_t pending_bytes;    /* in both */
    GPtrArray *snapshots;     /* Qcow2Snapshot */
    bool bitmaps_in_use;      /* auto bitmaps are marked so on the disk */
    bool unsettled;           /* it could not be settled when it should be:
                               * whatever may_write says, it is to be */
    bool refusal_told;        /* of a larger refcount table */
    bool bitmaps_without_room; /* good ones were not loaded; main context */
    bool copied_stale;        /* some entries that could have COPIED do not */
    bool dirty_unsure;        /* a change of the bit "dirty" has failed: the
                               * disk may have it or not */

    /* Has its own lock. */
    Qcow2CodecPool *codecs;

    /* Main context. */
    AioTimer *cleaner;        /* of the caches; NULL: not wanted */
    struct Qcow2Reopen *next; /* during a reopen */
} Qcow2;

static inline Qcow2 *qcow2_of(BlockDriverState *bs)
{
    return bdrv_opaque(bs);
}

/** Hand @error, which is set, over to @errp.  Returns its code, negative. */
static inline int qcow2_pass_error(GError **errp, GError *error)
{
    int ret = -block_error_code(error);

    g_propagate_error(errp, error);
    return ret;
}

/** The child with the metadata. */
static inline BdrvChild *qcow2_file(const Qcow2 *q)
{
    return bdrv_primary_child(q->bs);
}

/* --- memory.c ------------------------------------------------------------- */

/**
 * Count @bytes of memory whose size the image states, before they are taken.
 * Returns 0, or -EFBIG with @errp: they would be too many.  Thread: any; with
 * @errp main context.
 */
int qcow2_memory_take(Qcow2 *q, int64_t bytes, GError **errp);

/** The same without asking caches to give way: with a lock held. */
bool qcow2_memory_try(Qcow2 *q, int64_t bytes);

/** The same where there is no way back, and the size has a limit of its own. */
void qcow2_memory_take_always(Qcow2 *q, int64_t bytes);

/** They are freed.  Thread: any. */
void qcow2_memory_give(Qcow2 *q, int64_t bytes);

/** Zeroed memory that is counted; NULL with @errp.  Give it back with
 * qcow2_memory_free(), which ignores NULL. */
void *qcow2_memory_new(Qcow2 *q, int64_t bytes, GError **errp);
void qcow2_memory_free(Qcow2 *q, void *memory, int64_t bytes);

/** An L1 table of zeroes; NULL with @errp. */
Qcow2L1 *qcow2_l1_new(Qcow2 *q, size_t entries, GError **errp);
void qcow2_l1_free(Qcow2 *q, Qcow2L1 *l1);

/** A table for qcow2_l1_set(): the present one if it is large enough, or a new
 * one, which is to be freed if it is not set; NULL with @errp. */
Qcow2L1 *qcow2_l1_reserve(Qcow2 *q, size_t entries, GError **errp);

/** Make @l1, from qcow2_l1_reserve(), hold @entry, and be the table from now
 * on.  The node is drained: who looks at it nevertheless wants a hint. */
void qcow2_l1_set(Qcow2 *q, Qcow2L1 *l1, const uint64_t *entry, size_t nr);

/** A refcount table of zeroes for the place @offset.  Negative errno with
 * @errp; then @table is empty. */
int qcow2_reftable_init(Qcow2 *q, Qcow2Reftable *table, int64_t offset,
                        size_t entries, GError **errp);

/** Free what it holds; also of an empty one. */
void qcow2_reftable_clear(Qcow2 *q, Qcow2Reftable *table);

/* --- meta lock: writeback.c ----------------------------------------------- */

/**
 * Take the meta lock, with room for QCOW2_META_SLICES more dirty L2 slices;
 * if there is none, write-back comes first.  The image can be written.
 *
 * Returns 0; or a negative errno (write-back failed), then it is not held.
 */
int coroutine_fn qcow2_meta_lock(Qcow2 *q);

/** The same, at a moment when no allocation of [@offset, +@bytes) of the guest
 * is under way (I5): for all who change entries; link.c. */
int coroutine_fn qcow2_meta_lock_range(Qcow2 *q, int64_t offset,
                                       int64_t bytes);

/** Release it. */
void coroutine_fn qcow2_meta_unlock(Qcow2 *q);

/** Bring all refcounts to the disk, the refcount table included, and flush the
 * file.  Both locks held: for who makes the header name a new table. */
int coroutine_fn qcow2_secure_refcounts(Qcow2 *q);

/** What the operator has stated for caches is on top of what the node may have:
 * as q->options say.  Main context. */
void qcow2_caches_state(Qcow2 *q);

/** Make the caches that q->options ask for.  Negative errno with @errp. */
int qcow2_caches_init(Qcow2 *q, GError **errp);

/**
 * Bring all metadata and data to stable storage in the order that I1 to I3
 * ask for; then clusters given up before may be used again (pending.c).
 * Without the meta lock.
 */
int coroutine_fn qcow2_writeback(Qcow2 *q);

/** The same with lazy refcounts, too, and with what becomes dirty when
 * clusters are released: for close, and for who goes on without the caches. */
int coroutine_fn qcow2_writeback_full(Qcow2 *q);

/** The error of who needed it and got @ret < 0; returns that. */
int qcow2_writeback_failed(Qcow2 *q, int ret, GError **errp);

/* --- header.c ------------------------------------------------------------- */

/**
 * Read and check the header and its extensions of the image in @file.  Checks
 * every field and its limits, not whether tables make sense.  @header is empty
 * on failure.
 */
int coroutine_fn qcow2_header_read(BdrvChild *file, const char *node_name,
                                   Qcow2Header *header, GError **errp);

/** Free what @header holds, and zero it. */
void qcow2_header_clear(Qcow2Header *header);

/**
 * Write q->header with its extensions, the feature name table included, to
 * cluster 0, durable.  After a failure nobody knows what the disk has.  Meta
 * lock.
 *
 * Returns 0, -ENOSPC with @errp (NULL allowed) when they do not fit in the
 * cluster, which nothing was written to then, or a negative errno.
 */
int coroutine_fn qcow2_header_write(Qcow2 *q, GError **errp);

/**
 * Make @next the header, durable; q->header is it then, and owns what it holds.
 * After a failure the old one stays, here and on the disk, or the image takes
 * no more writes (qcow2_stop_writes).  Meta lock.
 */
int coroutine_fn qcow2_header_replace(Qcow2 *q, const Qcow2Header *next,
                                      GError **errp);

/**
 * @header as its cluster will hold it; @buf has a whole cluster.  Returns the
 * bytes that mean something, or -ENOSPC.
 */
int64_t qcow2_header_encode(const Qcow2Header *header, unsigned name_slot,
                            uint8_t *buf);

/** Write @bytes at @field of the header (QCOW2_H_...), without a flush, from
 * @buf.  Meta lock. */
int coroutine_fn qcow2_header_patch(Qcow2 *q, unsigned field, const void *buf,
                                    size_t bytes);

/**
 * The same, durable.  After a failure nobody knows what the disk has, and a
 * later flush may bring either: the field is made @old again, durable, or the
 * image takes no more writes (qcow2_stop_writes).  Meta lock.
 */
int coroutine_fn qcow2_header_switch(Qcow2 *q, unsigned field, const void *buf,
                                     const void *old, size_t bytes);

/* --- mark.c --------------------------------------------------------------- */

/** Slow half of qcow2_prepare_write(). */
int coroutine_fn qcow2_prepare_write_slow(Qcow2 *q);

/**
 * Before anything of the image is changed: clear unknown autoclear bits, mark
 * it dirty if refcounts are lazy, mark bitmaps in use.  Without locks.
 * Returns 0, -EIO on a corrupt image, or another negative errno.
 */
static inline int coroutine_fn qcow2_prepare_write(Qcow2 *q)
{
    if (G_UNLIKELY(atomic_load_explicit(&q->corrupt, memory_order_relaxed))) {
        return -EIO;
    }
    if (G_LIKELY(atomic_load_explicit(&q->may_write, memory_order_acquire))) {
        return 0;
    }
    return qcow2_prepare_write_slow(q);
}

/** The incompatible features of an open image, of which mark.c changes "dirty"
 * and "corrupt" while others look.  Any thread. */
static inline uint64_t qcow2_incompatible(const Qcow2 *q)
{
    return __atomic_load_n(&q->header.incompatible, __ATOMIC_ACQUIRE);
}

/** Set (and flush), or clear the bit "dirty" on the disk.  Meta lock. */
int coroutine_fn qcow2_set_dirty(Qcow2 *q, bool dirty);

/** Whether the disk has the bit "dirty" for sure, so that a power cut makes who
 * opens the image count anew.  Meta lock. */
static inline bool qcow2_is_dirty(const Qcow2 *q)
{
    return (qcow2_incompatible(q) & QCOW2_INCOMPAT_DIRTY) && !q->dirty_unsure;
}

/**
 * The image is corrupt: say so once, mark it on the disk if it can be written
 * (@fatal) and refuse all further writes.  May be called with or without the
 * meta lock; does not take it.
 *
 * @host_offset, @bytes  where, or -1 and 0
 */
void coroutine_fn qcow2_signal_corruption(Qcow2 *q, bool fatal,
                                          int64_t host_offset, int64_t bytes,
                                          const char *format, ...)
    G_GNUC_PRINTF(5, 6);

/**
 * Everything on the disk, and nothing in the header that says otherwise: as if
 * the image had never been open.  The next write prepares it anew.  driver.c;
 * main context, drained.
 */
int coroutine_fn qcow2_settle(Qcow2 *q, GError **errp);

/**
 * What the disk has is not known any more, though it is right: refuse writes
 * from now on, and leave the image as it is.  Requests under way may go on:
 * they get no more clusters (alloc.c), and no table in memory, which callers
 * may put back, reaches the disk (writeback.c).  @why: for the log.  Any
 * thread.
 */
void qcow2_stop_writes(Qcow2 *q, const char *why);

/* --- mapping.c ------------------------------------------------------------ */

/** A run of one kind, and of contiguous host bytes where it has any. */
typedef struct Qcow2Mapping {
    Qcow2Kind kind;
    int64_t bytes;       /* length of the run from the offset asked for */
    int64_t host_offset; /* of the first byte, if the kind has a host cluster */
    uint64_t word;       /* the L2 entry of the first cluster */
} Qcow2Mapping;

/**
 * What the range begins with.  The run ends at a slice of the L2 table at the
 * latest.  Inside qcow2_access_begin/end, or with the meta lock held: L2 tables
 * are clusters, too.
 *
 * @for_write  only clusters that may be overwritten in place are joined into
 *             a NORMAL run; a NORMAL cluster that is shared (not COPIED) comes
 *             back with kind NORMAL and @ret->word without COPIED
 *
 * Returns 0; -EIO if the image lies (it was signalled), or another errno.
 *
 * Thread: any.  Takes no lock and does not yield if the slice is cached.
 */
int coroutine_fn qcow2_map(Qcow2 *q, int64_t offset, int64_t bytes,
                           bool for_write, Qcow2Mapping *ret);

/**
 * The common case of qcow2_map(): where the range is in the data file, if it
 * lies in one plain data cluster whose entry is cached.  False: look with
 * qcow2_map().  As that one otherwise; does not yield.
 */
bool qcow2_map_data(Qcow2 *q, int64_t offset, int64_t bytes,
                    int64_t *ret_host);

/** BlockDriver.expect_read: has the L2 entry of @offset fetched. */
bool qcow2_expect_read(BlockDriverState *bs, int64_t offset, int64_t bytes);

/** qcow2_l2_kind() where an external data file may hold host offset 0. */
Qcow2Kind qcow2_entry_kind(const Qcow2 *q, Qcow2L2Entry entry, unsigned sc);

/** The L1 index of a guest offset. */
static inline size_t qcow2_l1_index(const Qcow2 *q, int64_t offset)
{
    return offset >> (q->geo.l2_bits + q->geo.cluster_bits);
}

/** The L1 entry, 0 beyond the table.  Any thread. */
static inline uint64_t qcow2_l1_entry(Qcow2 *q, size_t index)
{
    Qcow2L1 *l1 = atomic_load_explicit(&q->l1, memory_order_acquire);

    return index < l1->nr ? atomic_load_explicit(&l1->entry[index],
                                                 memory_order_acquire)
                          : 0;
}

/* --- link.c: changes of L1 and L2; meta lock ------------------------------ */

/** A pinned slice of an L2 table, and where a cluster's entry is in it. */
typedef struct Qcow2L2Ref {
    Qcow2Slice *slice;
    unsigned index;      /* of the entry in the slice */
    unsigned nr;         /* entries of the slice */
} Qcow2L2Ref;

/**
 * Pin the slice with the entry of the guest cluster at @offset for a change.
 * The L2 table is made, or copied if it is shared, when need be.
 *
 * @make  false: if there is no table, ret->slice is NULL and the result 0
 */
int coroutine_fn qcow2_l2_get(Qcow2 *q, int64_t offset, bool make,
                              Qcow2L2Ref *ret);

/** Unpin. */
void qcow2_l2_put(Qcow2 *q, Qcow2L2Ref *ref);

/** Entry number @index of the slice. */
Qcow2L2Entry qcow2_l2_read(Qcow2 *q, const Qcow2L2Ref *ref, unsigned index);

/** Overwrite it. */
void qcow2_l2_write(Qcow2 *q, const Qcow2L2Ref *ref, unsigned index,
                    Qcow2L2Entry entry);

/** Give up the clusters that @entry names (any kind). */
int coroutine_fn qcow2_free_entry(Qcow2 *q, Qcow2L2Entry entry,
                                  Qcow2DiscardType type);

/** Make the L1 table hold at least @entries: writes a larger one, durable.
 * Takes both locks itself. */
int coroutine_fn qcow2_l1_grow(Qcow2 *q, int64_t entries, GError **errp);

/** Load an L1 table of the file if it is in it, of any place and size that the
 * image says; for open, snapshots. */
int coroutine_fn qcow2_l1_load(Qcow2 *q, Untrusted offset, Untrusted entries,
                               Qcow2L1 **ret, GError **errp);

/** An allocation under way; on the stack of its coroutine. */
typedef struct Qcow2Alloc {
    IntervalNode node;   /* guest range, whole clusters */
    CoQueue waiters;     /* with the meta lock */
} Qcow2Alloc;

/** Enter @alloc for whole clusters that no other one covers.  Meta lock. */
void qcow2_alloc_begin(Qcow2 *q, Qcow2Alloc *alloc, int64_t offset,
                       int64_t bytes);

/** It is done, or given up: who waits goes on.  Meta lock. */
void qcow2_alloc_end(Qcow2 *q, Qcow2Alloc *alloc);

/* --- requests: read.c, write.c, zero.c, status.c, compress.c -------------- */

int coroutine_fn qcow2_preadv(BlockDriverState *bs, const BlockIO *io);

/** read.c: what the guest sees of the range goes to @iov from @iov_offset on.
 * Inside qcow2_access_begin/end. */
int coroutine_fn qcow2_read_range(Qcow2 *q, int64_t offset, int64_t bytes,
                                  BlockIOVec *iov, size_t iov_offset);
int coroutine_fn qcow2_pwritev(BlockDriverState *bs, const BlockIO *io);
int coroutine_fn qcow2_pwrite_zeroes(BlockDriverState *bs, const BlockIO *io);
int coroutine_fn qcow2_pdiscard(BlockDriverState *bs, const BlockIO *io);
int coroutine_fn qcow2_block_status(BlockDriverState *bs, const BlockIO *io,
                                    BlockExtent *ret);
int coroutine_fn qcow2_copy_range_from(BlockDriverState *bs,
                                       const BlockCopyRange *copy);
int coroutine_fn qcow2_copy_range_to(BlockDriverState *bs,
                                     const BlockCopyRange *copy);
int coroutine_fn qcow2_flush(BlockDriverState *bs);

/** zero.c: forget whole clusters of the range; @full: nothing may show below
 * either (truncate), else what had data reads as zero or as the spec allows. */
int coroutine_fn qcow2_discard_range(Qcow2 *q, int64_t offset, int64_t bytes,
                                     Qcow2DiscardType type, bool full);
int coroutine_fn qcow2_make_empty(BlockDriverState *bs, GError **errp);

/** zero.c: make whole units (the last may end at the image's end) zero. */
int coroutine_fn qcow2_zero_range(Qcow2 *q, int64_t offset, int64_t bytes,
                                  unsigned flags);

/** preallocate.c: give unallocated clusters of the range a host cluster, linked
 * that reads as zero: preallocation.  Does the first run: @ret_bytes of it, and
 * where it lies, or @ret_host -1 if it had host clusters before. */
int coroutine_fn qcow2_preallocate_run(Qcow2 *q, int64_t offset, int64_t bytes,
                                       int64_t *ret_host, int64_t *ret_bytes);

/** compress.c: read @bytes at @into of the compressed cluster @word. */
int coroutine_fn qcow2_read_compressed(Qcow2 *q, uint64_t word, int64_t into,
                                       int64_t bytes, BlockIOVec *iov,
                                       size_t iov_offset);

/** compress.c: a write with BDRV_REQ_WRITE_COMPRESSED. */
int coroutine_fn qcow2_pwritev_compressed(Qcow2 *q, const BlockIO *io);

/** link.c: make the entry of the cluster at @offset the compressed one @word,
 * giving up what it named.  Without the meta lock. */
int coroutine_fn qcow2_link_compressed(Qcow2 *q, int64_t offset,
                                       uint64_t word);

/* --- grace.c -------------------------------------------------------------- */

/** A request begins to use host offsets.  Returns a ticket.  Any thread. */
unsigned qcow2_access_begin(Qcow2 *q);

/** It has ended.  Any thread, in a coroutine. */
void coroutine_fn qcow2_access_end(Qcow2 *q, unsigned ticket);

/** Begin a new epoch if the one before the present has ended.  Any thread. */
void qcow2_epoch_advance(Qcow2 *q);

/** Whether all requests that began in @epoch or before have ended. */
bool qcow2_epoch_over(Qcow2 *q, unsigned epoch);

/** Wait until it is so.  Not inside qcow2_access_begin/end, no lock held. */
void coroutine_fn qcow2_epoch_wait(Qcow2 *q, unsigned epoch);

/* --- reftable.c, refcount.c, alloc.c: meta lock --------------------------- */

/** Make the header name the refcount table of @clusters clusters at @offset, as
 * qcow2_header_switch() does. */
int coroutine_fn qcow2_reftable_switch(Qcow2 *q, int64_t offset,
                                       uint32_t clusters);

/** Load q->reftable as q->header says, and see where the file ends: sets what
 * the allocator starts from.  In open and after repairs, without the lock. */
int coroutine_fn qcow2_refcount_open(Qcow2 *q, GError **errp);

/** Free what it holds. */
void qcow2_refcount_close(Qcow2 *q);

/** Read the refcount of cluster number @cluster (0 beyond the table). */
int coroutine_fn qcow2_refcount_get(Qcow2 *q, int64_t cluster, uint64_t *ret);

/**
 * Add @delta to the refcounts of all clusters that [@offset, +@bytes) touches.
 * They are in use, so they have refcount blocks; -EIO (signalled) if not.  A
 * failure undoes what was done.
 * -EINVAL (signalled) below 0, -ERANGE above what the width holds.
 */
int coroutine_fn qcow2_refcount_change(Qcow2 *q, int64_t offset, int64_t bytes,
                                       int64_t delta);

/** A run of clusters that were free and have refcount 1 now. */
typedef struct Qcow2Run {
    int64_t offset;
    int64_t bytes;
    bool fresh; /* beyond the end of the file: reads as zero */
} Qcow2Run;

/**
 * Allocate 1 to @max clusters in a row (@exact: all of them).  Never cluster 0
 * nor one that metadata uses.
 * -ENOSPC, -EFBIG (beyond what entries can name), -EIO (signalled) ...
 */
int coroutine_fn qcow2_alloc_clusters(Qcow2 *q, int64_t max, bool exact,
                                      Qcow2Run *ret);

/** Allocate up to @max clusters from host @offset on, as far as they are free;
 * ret->bytes is 0 if the first is not. */
int coroutine_fn qcow2_alloc_clusters_at(Qcow2 *q, int64_t offset, int64_t max,
                                         Qcow2Run *ret);

/** Room for @bytes (at most a cluster) of compressed data. */
int coroutine_fn qcow2_alloc_bytes(Qcow2 *q, int64_t bytes,
                                   int64_t *ret_offset);

/** Give back clusters that nothing ever named (a failed allocation). */
void coroutine_fn qcow2_unalloc(Qcow2 *q, int64_t offset, int64_t bytes);

/* --- pending.c ------------------------------------------------------------ */

/**
 * The reference to every cluster that [@offset, +@bytes) touches has gone from
 * memory: their refcounts fall once it has gone from the disk, too, and no
 * request uses them any more.  Meta lock.  Does not fail, does not yield.
 *
 * Not for guest clusters in an external data file: they have no refcounts, and
 * the same cluster of the guest gets the same place again, so a discard that
 * comes later would hit new data.
 */
void qcow2_free_later(Qcow2 *q, int64_t offset, int64_t bytes,
                      Qcow2DiscardType type);

/** The guest does not use [@offset, +@bytes) of the external data file any
 * more: discard it if @type is passed on.  Its entries in memory have changed;
 * at once, because the next write of that guest cluster goes there again. */
void coroutine_fn qcow2_discard_data(Qcow2 *q, int64_t offset, int64_t bytes,
                                     Qcow2DiscardType type);

/** Whether so much waits that write-back should come before the file grows.
 * Meta lock. */
bool qcow2_pending_wants_writeback(Qcow2 *q);

/** Write-back: move what was given up before it began to @taken.  Meta lock. */
void qcow2_pending_take(Qcow2 *q, ListHead *taken);

/** It ended: they are durable (@ok), or stay as they were.  Meta lock. */
void qcow2_pending_put(Qcow2 *q, ListHead *taken, bool ok);

/**
 * Discard what is durable and used by no request, then lower its refcounts.
 * Without the meta lock; takes it.  Keeps what it could not do for the next
 * time; errors leak clusters at worst and are told.
 */
void coroutine_fn qcow2_pending_release(Qcow2 *q);

/** What nothing on the disk refers to any more: discard and lower the refcount
 * at once.  Meta lock, kept; the node is drained. */
int coroutine_fn qcow2_drop_now(Qcow2 *q, int64_t offset, int64_t bytes,
                                Qcow2DiscardType type);

/** Forget all of it: close.  No lock, nothing runs. */
void qcow2_pending_drop(Qcow2 *q);

/* --- overlap.c ------------------------------------------------------------ */

/**
 * Build the map of metadata clusters from header, L1, refcount table,
 * snapshots.  Main context, in open, where memory for it may be refused, and
 * after repairs and such.  Then it is also replaced if this fails: it may lack
 * L2 tables of snapshots, but what is in it is there.
 */
int coroutine_fn qcow2_metamap_build(Qcow2 *q, GError **errp);

/** Have the L2 tables of snapshots in the map, too, before they are guarded.
 * Meta lock.  After a failure they are not in the map. */
int coroutine_fn qcow2_metamap_add_inactive_l2(Qcow2 *q, GError **errp);
void qcow2_metamap_free(Qcow2Metamap *map);

/** The clusters of [@offset, +@bytes) are metadata of @kind from now on, or
 * are not any more.  Meta lock; takes the map's lock. */
void qcow2_metamap_add(Qcow2 *q, Qcow2Overlap kind, int64_t offset,
                       int64_t bytes);
void qcow2_metamap_remove(Qcow2 *q, Qcow2Overlap kind, int64_t offset,
                          int64_t bytes);

/**
 * Before a write of [@offset, +@bytes) of the metadata file: 0, or -EIO when
 * it would hit metadata other than @ign (bits); the image is then marked
 * corrupt.  Any thread, any lock.
 *
 * @data  the write is guest data (for the text)
 */
int coroutine_fn qcow2_check_overlap(Qcow2 *q, unsigned ign, int64_t offset,
                                     int64_t bytes, bool data);

/* --- snapshot-table.c, snapshot.c ----------------------------------------- */

int coroutine_fn qcow2_snapshots_read(Qcow2 *q, GError **errp);

/** COPIED where it belongs, if a failure has left entries without: nothing else
 * is dirty, the node is drained.  Returns 0 or a negative errno. */
int coroutine_fn qcow2_snapshots_settle(Qcow2 *q);

/** Free all snapshots; the array stays, empty. */
void qcow2_snapshots_free(Qcow2 *q);

/** The size of the snapshot table, with all its entries, in bytes. */
int64_t qcow2_snapshots_bytes(Qcow2 *q);

/** The snapshot of that ID, else the oldest of that name; NULL.  Meta lock. */
Qcow2Snapshot *qcow2_snapshot_find(Qcow2 *q, const char *id_or_name);

/** The oldest snapshot of that ID and of that name, of which one may be NULL;
 * NULL.  Meta lock. */
Qcow2Snapshot *qcow2_snapshot_find_both(Qcow2 *q, const char *id,
                                        const char *name);

/* The driver's methods.  Drained. */
int coroutine_fn qcow2_snapshot_list(BlockDriverState *bs, GPtrArray *list,
                                     GError **errp);
int coroutine_fn qcow2_snapshot_create(BlockDriverState *bs,
                                       const BdrvSnapshotInfo *info,
                                       GError **errp);
int coroutine_fn qcow2_snapshot_goto(BlockDriverState *bs,
                                     const char *id_or_name, GError **errp);
int coroutine_fn qcow2_snapshot_delete(BlockDriverState *bs, const char *id,
                                       const char *name, GError **errp);

/* --- bitmap-directory.c --------------------------------------------------- */

/** Before the first write: bitmaps that are kept in memory, and those that
 * should be, are marked in use on the disk.  Meta lock. */
int coroutine_fn qcow2_bitmaps_begin_write(Qcow2 *q);

/** Check the directory at open; sets q->bitmaps_in_use.  Never fails an open
 * because of a bitmap that is inconsistent. */
int coroutine_fn qcow2_bitmaps_open(Qcow2 *q, GError **errp);

/**
 * Around a change that the guest does not see (metadata only): bitmaps that
 * track stay valid.  The end settles the image.  Main context, drained.
 */
void qcow2_bitmaps_hold(Qcow2 *q);
void coroutine_fn qcow2_bitmaps_unhold(Qcow2 *q);

/* The driver's methods.  Drained. */
int coroutine_fn qcow2_load_bitmaps(BlockDriverState *bs, GError **errp);
int coroutine_fn qcow2_store_bitmaps(BlockDriverState *bs, GError **errp);
int qcow2_can_store_bitmap(BlockDriverState *bs, const char *name,
                           int64_t granularity, GError **errp);
int coroutine_fn qcow2_stored_bitmap_list(BlockDriverState *bs,
                                          GPtrArray *list, GError **errp);
int coroutine_fn qcow2_stored_bitmap_add(BlockDriverState *bs,
                                         const char *name,
                                         int64_t granularity, GError **errp);
int coroutine_fn qcow2_stored_bitmap_remove(BlockDriverState *bs,
                                            const char *name, GError **errp);

/* --- check.c, repair.c ---------------------------------------------------- */

/** The driver's method.  Drained. */
int coroutine_fn qcow2_check(BlockDriverState *bs, const BdrvCheck *how,
                             BdrvCheckResult *ret, GError **errp);

/** At the end of an open for writing: the image was not closed properly and
 * its refcounts are not trusted.  Repairs them, durable; clears the bit. */
int coroutine_fn qcow2_repair_dirty(Qcow2 *q, GError **errp);

/* --- codec.c -------------------------------------------------------------- */

Qcow2CodecPool *qcow2_codecs_new(Qcow2Compression type, int64_t cluster_bytes);
void qcow2_codecs_free(Qcow2CodecPool *codecs);

/**
 * Decompress @in_bytes at @in to exactly @out_bytes at @out; what follows the
 * stream in @in is ignored.  In a worker thread; any thread; yields.
 * Returns 0, -EIO (not a stream of that many bytes, or it asks for more memory
 * than a cluster), -ENOMEM.
 */
int coroutine_fn qcow2_decompress(Qcow2CodecPool *codecs, const void *in,
                                  size_t in_bytes, void *out,
                                  size_t out_bytes);

/** Compress a cluster to less than its size.  Returns the bytes in
 * @ret_bytes; -ENOSPC when it does not get smaller; -EIO, -ENOMEM. */
int coroutine_fn qcow2_compress(Qcow2CodecPool *codecs, const void *in,
                                void *out, size_t *ret_bytes);

#endif /* BLOCK_FORMATS_QCOW2_QCOW2_H */
