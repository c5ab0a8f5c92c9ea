/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the files share that have to do with the image as a whole: names,
 * options, creation, resizing, amending.
 */
#ifndef BLOCK_FORMATS_QCOW2_IMAGE_H
#define BLOCK_FORMATS_QCOW2_IMAGE_H

#include "block/formats/qcow2/qcow2.h"

/* --- names.c -------------------------------------------------------------- */

/** A backing file as an image names it. */
typedef struct Qcow2BackingName {
    const char *file;
    const char *format;       /* recorded in the image; may be NULL */
    const char *given_format; /* from the user, goes before; may be NULL */
} Qcow2BackingName;

/**
 * Whether @name may be written into an image as its @what ("backing file"):
 * the same rule that open follows, as far as the name alone can tell.
 */
int qcow2_name_check(const char *name, const char *what, GError **errp);

/** Options to open the backing file with; NULL with @errp.  @file holds the
 * image.  The caller frees them. */
BlockOptions *qcow2_backing_options(BlockDriverState *file,
                                    const char *node_name,
                                    const Qcow2BackingName *name,
                                    GError **errp);

/** The same for a data file; @name may be NULL: an error. */
BlockOptions *qcow2_data_file_options(BlockDriverState *file,
                                      const char *node_name,
                                      const char *name, GError **errp);

/* --- options.c ------------------------------------------------------------ */

/** The options of a node as given. */
typedef struct Qcow2GivenOptions {
    bool lazy_refcounts;
    bool pass_discard_request;
    bool pass_discard_snapshot;
    bool pass_discard_other;
    bool discard_no_unref;
    bool for_repair;
    bool has_lazy_refcounts, has_pass_discard_request;
    bool has_cache, has_l2_cache, has_refcount_cache;
    int64_t cache_bytes;
    int64_t l2_cache_bytes;
    int64_t l2_slice_bytes;        /* 0: default */
    int64_t refcount_cache_bytes;
    int64_t cache_clean_interval_s;
    BlockOptions *overlap_tree;    /* only while parsing */
    unsigned overlap_check;        /* Qcow2Overlap bits */
    char *backing_format;
    char *snapshot;                /* ID or name */
    char *snapshot_id;
    char *snapshot_name;
} Qcow2GivenOptions;

extern const BlockOption qcow2_options[];

/** Take the driver's options, children left out, out of @options. */
int qcow2_options_take(BlockDriverState *bs, BlockOptions *options,
                       Qcow2GivenOptions *ret, GError **errp);

/** Free what it holds. */
void qcow2_options_clear(Qcow2GivenOptions *given);

/** What @given means for the image of @q: its header and geometry are known.
 * @flags: BDRV_O_* of the node. */
int qcow2_options_compute(Qcow2 *q, const Qcow2GivenOptions *given,
                          unsigned flags, Qcow2Options *ret, GError **errp);

/* --- create.c, amend.c, truncate.c, info.c, measure.c --------------------- */

/** Options of creation, checked against each other. */
typedef struct Qcow2CreateOptions {
    int64_t size;
    bool has_size;
    char *backing_file;
    char *backing_format;
    int compat;            /* index of a name; "0.10", "v2", "1.1", "v3" */
    int64_t cluster_bytes;
    int prealloc;          /* PreallocMode */
    bool lazy_refcounts;
    int64_t refcount_bits;
    char *data_file;
    bool data_file_raw;
    int compression;       /* Qcow2Compression */
    bool extended_l2;
} Qcow2CreateOptions;

extern const BlockOption qcow2_create_options[];

/** Take them, children left out, out of @options; as creation and measuring
 * both understand them. */
int qcow2_create_options_take(BlockOptions *options, Qcow2CreateOptions *ret,
                              GError **errp);

/** Free what it holds. */
void qcow2_create_options_clear(Qcow2CreateOptions *o);

/** The geometry of an image with these options. */
void qcow2_create_geometry(const Qcow2CreateOptions *o, Qcow2Geometry *geo);

/** Clusters of a refcount table and its blocks. */
typedef struct Qcow2RefcountSize {
    int64_t table_clusters;
    int64_t blocks;
} Qcow2RefcountSize;

/** How many it takes to count @clusters and themselves. */
Qcow2RefcountSize qcow2_refcount_size(const Qcow2Geometry *geo,
                                      int64_t clusters);

extern const BlockOption qcow2_amend_options[];

int coroutine_fn qcow2_create(BlockGraph *graph, BlockOptions *options,
                              GError **errp);
int coroutine_fn qcow2_truncate(BlockDriverState *bs,
                                const BlockTruncate *how, GError **errp);
int coroutine_fn qcow2_amend(BlockDriverState *bs, BlockOptions *options,
                             GError **errp);
int coroutine_fn qcow2_change_backing_file(BlockDriverState *bs,
                                           const char *file,
                                           const char *format,
                                           GError **errp);
int qcow2_check_backing_file(BlockDriverState *bs, const char *file,
                             const char *format, GError **errp);
int coroutine_fn qcow2_get_specific_info(BlockDriverState *bs,
                                         BlockOptions **ret, GError **errp);
int qcow2_get_backing_name(BlockDriverState *bs, char **ret_file,
                           char **ret_format);
int coroutine_fn qcow2_measure(BlockOptions *options, BlockDriverState *source,
                               BdrvMeasure *ret, GError **errp);

/** amend-refcount.c: refcounts of 1 << @order bits.  Drained; takes both locks
 * itself.  Durable when it returns. */
int coroutine_fn qcow2_change_refcount_order(Qcow2 *q, unsigned order,
                                             GError **errp);

#endif /* BLOCK_FORMATS_QCOW2_IMAGE_H */
