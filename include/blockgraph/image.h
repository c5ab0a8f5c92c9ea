/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Images as a whole: make, check, amend, measure; internal snapshots; bitmaps
 * that are stored in an image.
 *
 * All functions here run in the thread of the graph's main context unless they
 * say otherwise.  Those named *_co_* are coroutines; the ones without "co" that
 * do the same run the event loop and are called outside coroutines.  Those
 * that change an image drain its node first, and fail with -EACCES when it is
 * read-only.  All return -ENOTSUP where the driver of the node cannot do it,
 * and set @errp whenever they return a negative errno.
 */
#ifndef BLOCKGRAPH_IMAGE_H
#define BLOCKGRAPH_IMAGE_H

#include <blockgraph/block.h>

G_BEGIN_DECLS

/* --- making images -------------------------------------------------------- */

/**
 * Make an image.  "driver" in @options says which, the others are what the
 * create_options of that driver say; formats take the node that they fill as
 * "file": a node name, or options to open it.  After a failure the content of
 * the file is undefined, but no image that could be opened.
 *
 * @options  taken over
 *
 * Returns 0; -ENOENT (no such driver), -ENOTSUP (it cannot make images),
 * -EINVAL (options) or what the system says.
 */
BLOCK_API int coroutine_fn bdrv_co_create(BlockGraph *graph,
                                          BlockOptions *options,
                                          GError **errp);

/** bdrv_co_create() for callers outside coroutines. */
BLOCK_API int bdrv_create(BlockGraph *graph, BlockOptions *options,
                          GError **errp);

/** How much room an image takes, in bytes. */
typedef struct BdrvMeasure {
    int64_t required;        /* for the data that the source has now */
    int64_t fully_allocated; /* once every byte was written */
    int64_t bitmaps;         /* for stored bitmaps of the source; -1: none can
                              * be stored */
} BdrvMeasure;

/**
 * Compute how large a new image of the driver named in @options ("driver")
 * would be, made with the other options, which are those of bdrv_co_create()
 * without "file".
 *
 * @options  taken over
 * @source   whose content it is to have; its length is the default of "size".
 *           NULL: nothing
 */
BLOCK_API int coroutine_fn bdrv_co_measure(BlockOptions *options,
                                           BlockDriverState *source,
                                           BdrvMeasure *ret, GError **errp);

/** bdrv_co_measure() for callers outside coroutines. */
BLOCK_API int bdrv_measure(BlockGraph *graph, BlockOptions *options,
                           BlockDriverState *source, BdrvMeasure *ret,
                           GError **errp);

/**
 * The format that the @bytes bytes at @head look like most, which are the
 * beginning of a file; "raw" when none.  A guess: the content of a raw disk
 * is its guest's, who can make it look like anything.  For people, not for
 * programs.
 *
 * @filename  a hint, or NULL
 *
 * Thread: any.
 */
BLOCK_API const BlockDriver *bdrv_probe_format(const uint8_t *head,
                                               size_t bytes,
                                               const char *filename);

/** Bytes of the beginning of a file that every driver can judge it by. */
#define BDRV_PROBE_BYTES 2048

/* --- what an image says of itself ----------------------------------------- */

/**
 * What is special to the format, as "qemu-img info --output=json" has it
 * in "format-specific": {"type": ..., "data": {...}}.  The caller frees @ret.
 */
BLOCK_API int coroutine_fn bdrv_co_get_specific_info(BlockDriverState *bs,
                                                     BlockOptions **ret,
                                                     GError **errp);

/** bdrv_co_get_specific_info() for callers outside coroutines. */
BLOCK_API int bdrv_get_specific_info(BlockDriverState *bs, BlockOptions **ret,
                                     GError **errp);

/**
 * The backing file that the image of @bs names, whatever is its backing node.
 * As it stands in the image: may be relative to it.  NULL where there is
 * none.  Both are the caller's (g_free()).
 *
 * Returns 0 or -ENOTSUP.
 */
BLOCK_API int bdrv_get_backing_name(BlockDriverState *bs, char **ret_file,
                                    char **ret_format);

/* --- changing an image ---------------------------------------------------- */

/**
 * Give the image other properties: @options (taken over) as the amend_options
 * of its driver say; what is not named stays.
 */
BLOCK_API int coroutine_fn bdrv_co_amend(BlockDriverState *bs,
                                         BlockOptions *options,
                                         GError **errp);

/** bdrv_co_amend() for callers outside coroutines. */
BLOCK_API int bdrv_amend(BlockDriverState *bs, BlockOptions *options,
                         GError **errp);

/**
 * Record another backing file in the image; its backing node and its content
 * stay.  Stable when the call returns.
 *
 * @file    as it shall stand there; NULL: none
 * @format  its driver; NULL only without @file
 */
BLOCK_API int coroutine_fn bdrv_co_change_backing_file(BlockDriverState *bs,
                                                       const char *file,
                                                       const char *format,
                                                       GError **errp);

/** bdrv_co_change_backing_file() for callers outside coroutines. */
BLOCK_API int bdrv_change_backing_file(BlockDriverState *bs, const char *file,
                                       const char *format, GError **errp);

/**
 * Have the image of @bs forget all content of its own: what its backing file
 * has is seen, or zeroes.  Its length, snapshots and stored bitmaps stay.  What
 * was forgotten when the call fails is forgotten.  -EBUSY as for
 * bdrv_co_snapshot_goto().
 */
BLOCK_API int coroutine_fn bdrv_co_make_empty(BlockDriverState *bs,
                                              GError **errp);

/** bdrv_co_make_empty() for callers outside coroutines. */
BLOCK_API int bdrv_make_empty(BlockDriverState *bs, GError **errp);

/* --- checking ------------------------------------------------------------- */

/** What bdrv_co_check() may repair; bits. */
typedef enum BdrvCheckFlags {
    BDRV_CHECK_FIX_LEAKS = 1 << 0,  /* space that nothing uses */
    BDRV_CHECK_FIX_ERRORS = 1 << 1, /* metadata that are wrong */
} BdrvCheckFlags;

/** How to check. */
typedef struct BdrvCheck {
    unsigned flags; /* BdrvCheckFlags; with any, the image is changed */
    /** Gets each message, a line without its end; NULL: nobody wants them. */
    void (*message)(const char *line, void *opaque);
    void *opaque;
} BdrvCheck;

/** What was found, and what was done. */
typedef struct BdrvCheckResult {
    int64_t corruptions;       /* that are left */
    int64_t leaks;             /* clusters */
    int64_t check_errors;      /* what could not be looked at */
    int64_t corruptions_fixed;
    int64_t leaks_fixed;
    int64_t image_end_offset;  /* bytes; 0: not known */
    int64_t total_clusters;    /* 0: no statistics */
    int64_t allocated_clusters;
    int64_t fragmented_clusters;
    int64_t compressed_clusters;
} BdrvCheckResult;

/**
 * Check the metadata of the image, and repair as how->flags say.  Drains the
 * node in any case.
 *
 * Returns 0 when the check came to its end, whatever it found.
 */
BLOCK_API int coroutine_fn bdrv_co_check(BlockDriverState *bs,
                                         const BdrvCheck *how,
                                         BdrvCheckResult *ret, GError **errp);

/** bdrv_co_check() for callers outside coroutines. */
BLOCK_API int bdrv_check(BlockDriverState *bs, const BdrvCheck *how,
                         BdrvCheckResult *ret, GError **errp);

/* --- internal snapshots --------------------------------------------------- */

/** An internal snapshot; listed ones have whatever numbers the image says. */
typedef struct BdrvSnapshotInfo {
    char *id;                /* unique in the image; NULL to create: chosen */
    char *name;
    uint64_t vm_state_bytes; /* of saved machine state */
    uint32_t date_sec;       /* since 1970, UTC */
    uint32_t date_nsec;
    uint64_t vm_clock_ns;    /* of the guest */
    uint64_t icount;         /* instructions executed; UINT64_MAX: not known */
    uint64_t disk_bytes;     /* length of the disk; set by the driver */
} BdrvSnapshotInfo;

/** Free @info and what it holds; NULL is ignored.  Thread: any. */
BLOCK_API void bdrv_snapshot_info_free(BdrvSnapshotInfo *info);

/** List the snapshots, oldest first: BdrvSnapshotInfo in @ret, to be freed with
 * g_ptr_array_unref(). */
BLOCK_API int coroutine_fn bdrv_co_snapshot_list(BlockDriverState *bs,
                                                 GPtrArray **ret,
                                                 GError **errp);

/** bdrv_co_snapshot_list() for callers outside coroutines. */
BLOCK_API int bdrv_snapshot_list(BlockDriverState *bs, GPtrArray **ret,
                                 GError **errp);

/*
 * An error of the three below says that nothing was done.  When what was asked
 * for is on the disk and only then something fails, that is a warning: clusters
 * may have leaked, which a check finds.
 */

/** Make a snapshot of the present content, described by @info. */
BLOCK_API int coroutine_fn
bdrv_co_snapshot_create(BlockDriverState *bs, const BdrvSnapshotInfo *info,
                        GError **errp);

/** bdrv_co_snapshot_create() for callers outside coroutines. */
BLOCK_API int bdrv_snapshot_create(BlockDriverState *bs,
                                   const BdrvSnapshotInfo *info,
                                   GError **errp);

/**
 * Make content and length what they were at the snapshot of that ID or, if
 * there is none of that ID, of that name.  What is not in a snapshot is lost.
 * -EBUSY while a job copies the content, or a filter keeps a point in time.
 */
BLOCK_API int coroutine_fn bdrv_co_snapshot_goto(BlockDriverState *bs,
                                                 const char *id_or_name,
                                                 GError **errp);

/** bdrv_co_snapshot_goto() for callers outside coroutines. */
BLOCK_API int bdrv_snapshot_goto(BlockDriverState *bs, const char *id_or_name,
                                 GError **errp);

/** Delete the snapshot with this @id and this @name; one may be NULL. */
BLOCK_API int coroutine_fn bdrv_co_snapshot_delete(BlockDriverState *bs,
                                                   const char *id,
                                                   const char *name,
                                                   GError **errp);

/** bdrv_co_snapshot_delete() for callers outside coroutines. */
BLOCK_API int bdrv_snapshot_delete(BlockDriverState *bs, const char *id,
                                   const char *name, GError **errp);

/* --- bitmaps stored in an image ------------------------------------------- */

/** A dirty bitmap that is stored in an image. */
typedef struct BdrvStoredBitmap {
    char *name;
    int64_t granularity;  /* bytes that a bit stands for */
    bool in_use;          /* was not saved: what is stored is out of date */
    bool autoload;        /* tracks from the moment the image is opened */
    bool inconsistent;    /* cannot be used, only removed */
} BdrvStoredBitmap;

/** Free @bitmap and what it holds; NULL is ignored.  Thread: any. */
BLOCK_API void bdrv_stored_bitmap_free(BdrvStoredBitmap *bitmap);

/** List them: BdrvStoredBitmap in @ret, to be freed with
 * g_ptr_array_unref(). */
BLOCK_API int coroutine_fn bdrv_co_stored_bitmap_list(BlockDriverState *bs,
                                                      GPtrArray **ret,
                                                      GError **errp);

/** bdrv_co_stored_bitmap_list() for callers outside coroutines. */
BLOCK_API int bdrv_stored_bitmap_list(BlockDriverState *bs, GPtrArray **ret,
                                      GError **errp);

/** Store an empty bitmap. @granularity: a power of two, 512 bytes to 2 GiB. */
BLOCK_API int coroutine_fn bdrv_co_stored_bitmap_add(BlockDriverState *bs,
                                                     const char *name,
                                                     int64_t granularity,
                                                     GError **errp);

/** bdrv_co_stored_bitmap_add() for callers outside coroutines. */
BLOCK_API int bdrv_stored_bitmap_add(BlockDriverState *bs, const char *name,
                                     int64_t granularity, GError **errp);

/** Remove one, also an inconsistent one; -ENOENT: there is none. */
BLOCK_API int coroutine_fn bdrv_co_stored_bitmap_remove(BlockDriverState *bs,
                                                        const char *name,
                                                        GError **errp);

/** bdrv_co_stored_bitmap_remove() for callers outside coroutines. */
BLOCK_API int bdrv_stored_bitmap_remove(BlockDriverState *bs, const char *name,
                                        GError **errp);

G_END_DECLS

#endif /* BLOCKGRAPH_IMAGE_H */
