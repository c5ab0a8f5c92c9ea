/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a request at a node must tell the dirty bitmaps of the node.
 *
 * See marks.c for the proof that no change is lost.
 */
#ifndef BLOCK_BITMAP_MARKS_H
#define BLOCK_BITMAP_MARKS_H

#include <blockgraph/common.h>
#include <stdatomic.h>

#include "util/hbitmap.h"
#include "util/list.h"
#include "util/lock.h"

/**
 * All bitmaps of a node, as a request looks at them without their lock.  Never
 * changed: a new one takes its place.
 */
typedef struct DirtyMarks {
    unsigned nr;
    HBitmapPeek bits[]; /* words NULL: only the size counts (disabled) */
} DirtyMarks;

/** The dirty bitmaps of a node. */
typedef struct DirtyBitmaps {
    /* Any thread.  Changed under @lock; read inside the lock of any of the
     * node's shards of tracked requests.  NULL: no bitmaps. */
    _Atomic(const DirtyMarks *) marks;

    Lock lock;
    /* Changed by the main context under @lock, so read under either. */
    ListHead list; /* BdrvDirtyBitmap.link, by age */
    bool sealed;   /* the node becomes read-only: no new stored ones */
} DirtyBitmaps;

/** Make @dirty empty. */
void dirty_bitmaps_init(DirtyBitmaps *dirty);

/**
 * Whether each bitmap of the node knows of a change of @bytes at @offset, as
 * far as can be seen at once.  Inside the lock of a shard.
 */
static inline bool dirty_marks_have(const DirtyBitmaps *dirty, int64_t offset,
                                    int64_t bytes)
{
    const DirtyMarks *marks =
        atomic_load_explicit(&dirty->marks, memory_order_acquire);

    if (G_LIKELY(!marks)) {
        return true;
    }
    for (unsigned i = 0; i < marks->nr; i++) {
        const HBitmapPeek *peek = &marks->bits[i];

        if (peek->words ? !hbitmap_peek_is_dirty(peek, offset, bytes)
                        : offset > peek->size - bytes) {
            return false;
        }
    }
    return true;
}

/**
 * The content of [@offset, +@bytes) of @bs may have changed: tell all enabled
 * bitmaps.  Any thread, inside the request, after its data is there.
 */
void dirty_bitmaps_mark(BlockDriverState *bs, int64_t offset, int64_t bytes);

/** All of @bs may have changed.  Main context. */
void dirty_bitmaps_mark_all(BlockDriverState *bs);

/**
 * Provide memory for a length of @size, so that following it cannot fail.
 * Returns 0, or a negative errno with @errp.  Any thread.
 */
int dirty_bitmaps_reserve(BlockDriverState *bs, int64_t size, GError **errp);

/**
 * Follow the length of @bs: what is added is dirty in enabled bitmaps.  A
 * bitmap that cannot follow becomes inconsistent.  Any thread.
 */
void dirty_bitmaps_resize(BlockDriverState *bs);

/**
 * Between these two nobody looks at the memory of bitmaps of @bs without the
 * lock, which is held.  The second one shows them as they are then.
 */
void dirty_marks_close(BlockDriverState *bs);
void dirty_marks_open(BlockDriverState *bs);

/** What was made dirty or clean before is seen by all requests that have not
 * ended; what these have written is seen after.  Any thread. */
void dirty_marks_order(BlockDriverState *bs);

/** Free all bitmaps of @bs, which goes. */
void dirty_bitmaps_destroy(BlockDriverState *bs);

#endif /* BLOCK_BITMAP_MARKS_H */
