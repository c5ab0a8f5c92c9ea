/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mirror-top: what the filter of a mirror and its job share.
 *
 *     guests                       Requests pass to "file".  What they have
 *       |                          changed is dirty; the job copies what is
 *     mirror-top ---target---+     dirty from "file" to "target".  When the
 *       | file               |     filter is write-blocking, guests write the
 *     source              target   target themselves.
 *
 *   mirror-top.c   the filter: what is dirty, who works where
 *   mirror-copy.c  bring a range over
 *
 * T1  A range that may differ from the target is dirty, or in the range of a
 *     copy, or of a guest's request that has not been reported done.
 * T2  Bits are set after the change is there, also when it has failed, and
 *     before it is reported done.
 * T3  Bits are cleaned when a copy claims its range, before it reads, and only
 *     whole granules are claimed.  A copy that fails sets them again.
 * T4  Who writes the target holds the range meanwhile, and so did a guest from
 *     before its write to the source on: for each byte the last one to write
 *     the target has written, or read, what the source has.
 * T5  Ranges are numbered as they come, and each waits for older ones only, so
 *     the oldest waits for nobody and there is no circle.  Who holds a range
 *     is counted at its root already, and waits for nothing but requests to
 *     the nodes below: no gate, no limit, no memory of others.
 * T6  A request that was let in before the filter was write-blocking marks
 *     what it has changed, whatever the filter is when it ends.
 */
#ifndef BLOCK_FILTERS_MIRROR_TOP_H
#define BLOCK_FILTERS_MIRROR_TOP_H

#include <blockgraph/driver.h>

#include "block/copy/reqlist.h"
#include "block/graph/graph-int.h"
#include "util/hbitmap.h"
#include "util/spare-buffers.h"

/** Limits of the unit that is dirty or not; a power of two. */
#define MIRROR_GRANULARITY_MIN INT64_C(512)
#define MIRROR_GRANULARITY_MAX (INT64_C(64) << 20)

/** Bytes of one copy through memory. */
#define MIRROR_BUFFER_BYTES SPARE_BUFFER_BYTES

/** How a mirror is made; bits. */
typedef enum MirrorFlags {
    MIRROR_UNMAP = 1 << 0,    /* zeroes in the target may be holes */
    MIRROR_COMMITS = 1 << 1,  /* the target is a layer of the source: it may
                               * get another length, and has what the layers
                               * above it lack */
    MIRROR_COPY_RANGE = 1 << 2, /* copy inside the storage where it can */
} MirrorFlags;

/** What guests do beside their own writes. */
typedef enum MirrorMode {
    MIRROR_OFF,
    MIRROR_BACKGROUND,     /* note what they change */
    MIRROR_WRITE_BLOCKING, /* change it in the target, too */
    MIRROR_FINISHING,      /* and flush that, too */
} MirrorMode;

typedef struct MirrorTop {
    /* Set by open. */
    BlockDriverState *bs;
    BdrvChild *target;
    BdrvWork *work;           /* counts copies of the job */

    /* Set by mirror_top_begin(), drained. */
    bool unmap;
    bool commits;             /* the target is below the source */

    /* Main context. */
    bool guards;              /* nobody else may write "file" */
    bool leaving;             /* without users nothing is needed any more */
    bool given_up;            /* it was never begun, and is to go: a filter */

    /* Any thread. */
    SpareBuffers buffers;     /* of copies; has its own lock */
    _Atomic int mode;         /* MirrorMode */
    _Atomic bool unflushed;   /* the target has to be flushed before its end */
    _Atomic bool copy_range;  /* and it has not failed */

    Lock lock;
    /* Guarded by @lock. */
    HBitmap *dirty;           /* in bytes; NULL before begin */
    bool lost;                /* there was no memory to note a change */
    BlockReqList ranges;      /* MirrorRange.req */
    uint64_t next_seq;
    int64_t copying;          /* bytes claimed by copies */
} MirrorTop;

/** A range that somebody works on (T4). */
typedef struct MirrorRange {
    BlockReq req;
    uint64_t seq;
} MirrorRange;

/** The state of @bs, or NULL if that is no mirror-top node. */
MirrorTop *mirror_top(BlockDriverState *bs);

/* --- main context --------------------------------------------------------- */

/**
 * From now on changes are noted; nothing is dirty yet.  Drained.
 *
 * @granularity  from MIRROR_GRANULARITY_MIN to _MAX
 * @flags        MirrorFlags
 *
 * Returns 0 or a negative errno with @errp set.
 */
int mirror_top_begin(MirrorTop *s, int64_t granularity, unsigned flags,
                     GError **errp);

/** Change the length of the target, with MIRROR_COMMITS. */
int coroutine_fn mirror_top_resize_target(MirrorTop *s, int64_t length,
                                          GError **errp);

/**
 * mirror_top_begin() was not called, or has failed: let the node need nothing
 * of its target from the next change on, which is to take it out.  Until then
 * it is a filter without effect.
 */
void mirror_top_give_up(MirrorTop *s);

/** Requests that come from now on do as @mode says. */
void mirror_top_set_mode(MirrorTop *s, MirrorMode mode);

/**
 * Put the target in the place of @bs, the filter or one above it, if @check
 * says 0 then, too.  Drained, and nothing is dirty.  Returns 0, or a negative
 * errno with @errp set and the graph as it was.
 */
int coroutine_fn mirror_top_replace(MirrorTop *s, BlockDriverState *bs,
                                    GraphCheck *check, void *opaque,
                                    GError **errp);

/** Wait until nobody writes the target any more; the mode is MIRROR_OFF. */
void coroutine_fn mirror_top_settle(MirrorTop *s);

/* --- any thread ----------------------------------------------------------- */

/** Make dirty what the range touches. */
void mirror_top_mark(MirrorTop *s, int64_t offset, int64_t bytes);

/** How many bytes are dirty, and in the ranges of copies. */
int64_t mirror_top_remaining(MirrorTop *s);

/** Whether a change could not be noted: the copy is never complete. */
bool mirror_top_is_lost(MirrorTop *s);

/**
 * The first dirty area from @offset on.  Nothing is claimed.  Returns its
 * length, 0: there is none.
 */
int64_t mirror_top_find(MirrorTop *s, int64_t offset, int64_t *ret_offset);

/**
 * Claim the first dirty area of [@offset, +@bytes) for a copy (T3), which the
 * caller has counted in s->work.  @offset is where a granule begins.  Returns
 * whether there is any.
 */
bool mirror_top_claim(MirrorTop *s, MirrorRange *range, int64_t offset,
                      int64_t bytes);

/** Copy a range that was claimed, and release it.  Returns 0 or the error of
 * the source (*@ret_read) or the target. */
int coroutine_fn mirror_top_copy(MirrorTop *s, MirrorRange *range,
                                 bool *ret_read);

/* --- mirror-copy.c -------------------------------------------------------- */

/** What the beginning of a range needs. */
typedef enum MirrorKind {
    MIRROR_NOTHING, /* both sides read as zero, or it comes from the target */
    MIRROR_ZERO,    /* the target is to read as zero */
    MIRROR_DATA,    /* so far as anybody knows */
} MirrorKind;

/**
 * Look at [@offset, +@bytes) without reading, counted in s->work or in a
 * request.  Returns the kind of its beginning, and how much is alike; unless
 * the range is held, it may be another at once.
 */
MirrorKind coroutine_fn mirror_look(MirrorTop *s, int64_t offset,
                                    int64_t bytes, int64_t *ret_bytes);

/** Bring [@offset, +@bytes), which the caller holds, to the target.  Returns 0
 * or the error; @ret_read: the source gave it. */
int coroutine_fn mirror_copy(MirrorTop *s, int64_t offset, int64_t bytes,
                             bool *ret_read);

/** A buffer that suits both sides, or NULL. */
void *mirror_alloc(const MirrorTop *s, int64_t bytes);

#endif /* BLOCK_FILTERS_MIRROR_TOP_H */
