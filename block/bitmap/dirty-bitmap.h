/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inside of a dirty bitmap, for the files of block/bitmap and for drivers
 * that store bitmaps.
 */
#ifndef BLOCK_BITMAP_DIRTY_BITMAP_H
#define BLOCK_BITMAP_DIRTY_BITMAP_H

#include <blockgraph/dirty-bitmap.h>

#include "block/graph/graph-int.h"

struct BdrvDirtyBitmap {
    /* Set when it is made. */
    BlockDriverState *bs;
    int64_t granularity; /* bytes */

    /* Changed by the main context under bs->dirty.lock. */
    ListHead link;
    char *name;                 /* NULL: anonymous */
    int64_t counted;            /* table_memory_take_apart(); till its end */
    BdrvDirtyBitmap *successor; /* tracks in its place */
    bool busy;
    bool readonly;
    bool sealed;                /* busy, as its node becomes read-only */
    bool persistent;
    bool stored;                /* the image has one of this name */

    /* Guarded by bs->dirty.lock. */
    HBitmap *bits;              /* NULL: inconsistent */
    bool enabled;
    bool changed;               /* since it was stored or loaded */
};

/** A bitmap without bits, which is inconsistent.  @name is free.  Main. */
BdrvDirtyBitmap *dirty_bitmap_new_inconsistent(BlockDriverState *bs,
                                               int64_t granularity,
                                               const char *name);

/** A bitmap that takes @bits over, as loaded from the image: persistent and
 * stored.  @name is free.  Main context.  Who has counted them for the process
 * enters that in the bitmap. */
BdrvDirtyBitmap *dirty_bitmap_new_loaded(BlockDriverState *bs,
                                         const char *name, HBitmap *bits,
                                         bool enabled);

/** -EEXIST, -EINVAL with @errp if no new bitmap can have this name. */
int dirty_bitmap_check_name(BlockDriverState *bs, const char *name,
                            GError **errp);

/** -EINVAL with @errp if no bitmap can have this granularity. */
int dirty_bitmap_check_granularity(BlockDriverState *bs, int64_t granularity,
                                   GError **errp);

/** Make dirty in @to what is in @from, of the same node; both have bits. */
void dirty_bitmap_merge_locked(BdrvDirtyBitmap *to,
                               const BdrvDirtyBitmap *from);

/**
 * The bits of @bitmap and its successor as they are now, for storing; marks it
 * as not changed.  NULL: no memory.  Free with hbitmap_free().  Main context.
 */
HBitmap *dirty_bitmap_take_changes(BdrvDirtyBitmap *bitmap);

/** Storing has failed: @bitmap is not what the image has. */
void dirty_bitmap_note_changed(BdrvDirtyBitmap *bitmap);

/** Whether @bitmap is persistent and has changed since it was stored. */
bool dirty_bitmap_must_be_stored(BdrvDirtyBitmap *bitmap);

/** All of the image are there: requests mark them from now on. */
void dirty_bitmaps_loaded(BlockDriverState *bs);

/** Whether @name is a persistent bitmap of @bs that can be used; any thread. */
bool dirty_bitmaps_track(BlockDriverState *bs, const char *name);

/** Whether that is, and is as it was stored or loaded.  Any thread. */
bool dirty_bitmaps_as_stored(BlockDriverState *bs, const char *name);

/** Whether some persistent bitmap of @bs has changed since it was stored. */
bool dirty_bitmaps_changed(BlockDriverState *bs);

/** The smallest granularity of the persistent bitmaps that can be used; 0:
 * there are none.  Any thread. */
int64_t dirty_bitmaps_finest(BlockDriverState *bs);

/* --- persistent.c --------------------------------------------------------- */

/** Load what the image of @bs stores; at open, when the length is known. */
int coroutine_fn dirty_bitmaps_load(BlockDriverState *bs, GError **errp);

/** Store what the image of @bs has to keep; before close.  Drained. */
int coroutine_fn dirty_bitmaps_store(BlockDriverState *bs, GError **errp);

/**
 * @bs is to become read-only: store its bitmaps, which are busy and read-only
 * until dirty_bitmaps_follow_mode(), to be called also after a failure.
 * -EBUSY: some operation uses one.  Drained, main context.
 */
int coroutine_fn dirty_bitmaps_seal(BlockDriverState *bs, GError **errp);

/**
 * Remove @bitmap, which is not busy, from the image, if it is there; a
 * persistent one is stored again at close, unless it is released.
 */
int coroutine_fn dirty_bitmap_co_unstore(BdrvDirtyBitmap *bitmap,
                                         GError **errp);

/** The node has become read-only, or writable, or stays as it was.  Main. */
void dirty_bitmaps_follow_mode(BlockDriverState *bs);

#endif /* BLOCK_BITMAP_DIRTY_BITMAP_H */
