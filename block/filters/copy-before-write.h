/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inside of the filter "copy-before-write", for its files and for jobs that
 * copy over it.
 *
 * A cluster is in one of these states:
 *
 *   untouched   the source still has the old content
 *   done        a guest has been let through: only the target, or the staging
 *               memory until it is in the target, has it; a bit in @done
 *   no access   readers get EACCES: it is outside the bitmap, or was discarded
 *
 *   W1  A guest changes a cluster after it is done (or staged, what it changes:
 *       W4), and after the readers that read what it changes from the source
 *       have ended.  Those of the rest do not matter, and of a cluster that is
 *       staged in part there may always be some.
 *   W2  A reader looks for a cluster in the staging memory, then at @done, then
 *       enters itself as a reader of the source, all in one hold of @lock.  A
 *       guest stages, or copies, before it sets @done under @lock.  So either
 *       the reader finds the copy, or the guest finds the reader.
 *   W3  When the old content of a cluster is lost (break-snapshot), the error
 *       is set before the guest changes the cluster, and before a staged copy
 *       that has failed ends.  A reader looks at it after having read, wherever
 *       that was: what it found before may be what a copy has left that read
 *       the source, or failed, meanwhile.
 *
 *   W4  With write-behind a cluster may be staged in part: what guests have
 *       changed of it is in memory, the source has the rest.  It is not done
 *       then, so guests that change more of it ask for that; it is done before
 *       it leaves the memory, so that a reader finds it there or sees the bit.
 *
 * A guest's write to clusters that are all done, with no reader anywhere, takes
 * no lock.  It sees the bits that another guest has set under @lock, so it sees
 * all readers that entered before; and who enters later finds the bits set.
 */
#ifndef BLOCK_FILTERS_COPY_BEFORE_WRITE_H
#define BLOCK_FILTERS_COPY_BEFORE_WRITE_H

#include <blockgraph/copy-before-write.h>

#include "block/copy/block-copy.h"
#include "block/filters/cbw-readers.h"

typedef enum OnCbwError {
    ON_CBW_ERROR_BREAK_GUEST_WRITE,
    ON_CBW_ERROR_BREAK_SNAPSHOT,
} OnCbwError;

typedef struct CbwNode {
    /* Constant. */
    BlockDriverState *bs;
    BdrvChild *target;
    BlockCopyState *copy;
    BdrvWork *work;
    OnCbwError on_error;
    int64_t timeout_ns;           /* 0: none */
    int64_t staging_bytes;        /* 0: no write-behind */
    bool discard_source;
    int64_t length;               /* of the snapshot */
    unsigned cluster_bits;
    HBitmap *scope;               /* what is in the snapshot; NULL: all */

    /* Main context. */
    bool used;                    /* by somebody, at some time */
    bool guards;                  /* cbw_guard_source() */

    /* Any thread. */
    _Atomic uint64_t *done;       /* a bit a cluster; set under @lock */
    _Atomic unsigned nr_readers;  /* in @readers */
    _Atomic unsigned discards;    /* by readers, begun */
    _Atomic int snapshot_error;   /* negative errno: there is no snapshot */

    Lock lock;
    /* Guarded by @lock. */
    HBitmap *access;              /* what readers may read; NULL: @scope */
    CbwReaders readers;           /* of the source, and frozen ranges */
} CbwNode;

/** The state of @bs, or NULL if that is no copy-before-write node. */
CbwNode *cbw_node(BlockDriverState *bs);

/** The block-copy state of @bs, for the job that copies the rest. */
BlockCopyState *cbw_block_copy(BlockDriverState *bs);

/** The error that has broken the snapshot, or 0.  Any thread. */
int cbw_snapshot_error(BlockDriverState *bs);

/**
 * Whether the source is kept from who would write it past the filter @bs, also
 * while nobody uses the filter.  The permissions follow with the next refresh.
 */
void cbw_guard_source(BlockDriverState *bs, bool on);

/** The snapshot is not wanted any more: guests do not copy from now on. */
void cbw_give_up(BlockDriverState *bs);

/* --- cbw-snapshot.c: what snapshot-access asks ---------------------------- */

extern const BlockSnapshotMethods cbw_snapshot_methods;

/** Take the range for a reader of the source, under @lock. */
static inline void cbw_reader_enter(CbwNode *s, CbwReader *range,
                                    int64_t offset, int64_t bytes)
{
    cbw_readers_add(&s->readers, range, offset, bytes);
    atomic_fetch_add(&s->nr_readers, 1);
}

/** It has been read. */
static inline void cbw_reader_leave(CbwNode *s, CbwReader *range)
{
    WITH_LOCK(&s->lock) {
        cbw_readers_remove(&s->readers, range);
        atomic_fetch_sub(&s->nr_readers, 1);
    }
}

/** Whether cluster number @i is done. */
static inline bool cbw_is_done(CbwNode *s, int64_t i)
{
    return atomic_load_explicit(&s->done[i / 64], memory_order_acquire) >>
               (i % 64) & 1;
}

#endif /* BLOCK_FILTERS_COPY_BEFORE_WRITE_H */
