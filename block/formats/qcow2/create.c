/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * New images.
 *
 *   cluster 0        header
 *   then             refcount table, refcount blocks, L1 table
 *
 * Everything behind the header is written and flushed first, so a file that
 * was not finished is not of this format.  Preallocation is a growth of the
 * finished image from size 0.
 */
#include "block/formats/qcow2/image.h"

#include <blockgraph/backend.h>
#include <errno.h>

static const char *const compat_names[] = { "0.10", "v2", "1.1", "v3", NULL };
static const unsigned compat_versions[] = { 2, 2, 3, 3 };
static const char *const prealloc_names[] = { "off", "metadata", "falloc",
                                              "full", NULL };
static const char *const compression_names[] = { "zlib", "zstd", NULL };

#define CREATE(field) offsetof(Qcow2CreateOptions, field)
#define CLUSTER_MAX (INT64_C(1) << QCOW2_MAX_CLUSTER_BITS)

const BlockOption qcow2_create_options[] = {
    { .name = "file", .type = BLOCK_OPTION_CHILD,
      .help = "node that will hold the image" },
    { .name = "data-file", .type = BLOCK_OPTION_CHILD,
      .help = "node for the guest's data; default: the file of the name in "
              "data_file is made" },
    { .name = "size", .type = BLOCK_OPTION_SIZE, .min = 0,
      .max = BDRV_MAX_LENGTH, .offset = CREATE(size),
      .help = "of the disk; default: that of the backing file" },
    { .name = "backing_file", .type = BLOCK_OPTION_STRING,
      .offset = CREATE(backing_file), .help = "file name of a base image" },
    { .name = "backing_fmt", .type = BLOCK_OPTION_STRING,
      .offset = CREATE(backing_format), .help = "format of the base image" },
    { .name = "compat", .type = BLOCK_OPTION_ENUM, .def = "1.1",
      .values = compat_names, .offset = CREATE(compat),
      .help = "version of the format" },
    { .name = "cluster_size", .type = BLOCK_OPTION_SIZE, .def = "64k",
      .min = 1 << QCOW2_MIN_CLUSTER_BITS, .max = CLUSTER_MAX,
      .offset = CREATE(cluster_bytes), .help = "a power of two" },
    { .name = "preallocation", .type = BLOCK_OPTION_ENUM, .def = "off",
      .values = prealloc_names, .offset = CREATE(prealloc),
      .help = "how space is provided" },
    { .name = "lazy_refcounts", .type = BLOCK_OPTION_BOOL, .def = "off",
      .offset = CREATE(lazy_refcounts), .help = "postpone refcount updates" },
    { .name = "refcount_bits", .type = BLOCK_OPTION_NUMBER, .def = "16",
      .min = 1, .max = 64, .offset = CREATE(refcount_bits),
      .help = "width of a refcount: a power of two" },
    { .name = "data_file", .type = BLOCK_OPTION_STRING,
      .offset = CREATE(data_file),
      .help = "file name of an external data file" },
    { .name = "data_file_raw", .type = BLOCK_OPTION_BOOL, .def = "off",
      .offset = CREATE(data_file_raw),
      .help = "the external data file is valid as a raw image" },
    { .name = "compression_type", .type = BLOCK_OPTION_ENUM, .def = "zlib",
      .values = compression_names, .offset = CREATE(compression),
      .help = "how clusters are compressed" },
    { .name = "extended_l2", .type = BLOCK_OPTION_BOOL, .def = "off",
      .offset = CREATE(extended_l2), .help = "subclusters" },
    { .type = BLOCK_OPTION_END },
};

_Static_assert(PREALLOC_MODE_OFF == 0 && PREALLOC_MODE_METADATA == 1 &&
                   PREALLOC_MODE_FALLOC == 2 && PREALLOC_MODE_FULL == 3,
               "values are indices of their names");

/* --- options -------------------------------------------------------------- */

static bool is_power_of_2(int64_t x)
{
    return x > 0 && (x & (x - 1)) == 0;
}

/* What needs version 3, if it is wanted in version 2; NULL: nothing. */
static const char *why_not_version2(const Qcow2CreateOptions *o)
{
    return o->lazy_refcounts        ? "lazy_refcounts"
           : o->refcount_bits != 16 ? "a width of refcounts other than 16 bits"
           : o->data_file           ? "data_file"
           : o->compression         ? "compression_type=zstd"
           : o->extended_l2         ? "extended_l2"
                                    : NULL;
}

static int check_features(const Qcow2CreateOptions *o, GError **errp)
{
    const char *why = compat_versions[o->compat] == 2 ? why_not_version2(o)
                                                      : NULL;

    if (why) {
        return block_error(errp, EINVAL, "Image of format qcow2: %s needs "
                           "version 3 (compat=1.1)", why);
    }
    if (!is_power_of_2(o->cluster_bytes)) {
        return block_error(errp, EINVAL, "Image of format qcow2: cluster_size "
                           "must be a power of two between %d and %"
                           G_GINT64_FORMAT "k", 1 << QCOW2_MIN_CLUSTER_BITS,
                           CLUSTER_MAX / 1024);
    }
    if (!is_power_of_2(o->refcount_bits)) {
        return block_error(errp, EINVAL, "Image of format qcow2: refcount_bits "
                           "must be a power of two of at most 64");
    }
    if (o->extended_l2 && o->cluster_bytes < 16384) {
        return block_error(errp, EINVAL, "Image of format qcow2: extended_l2 "
                           "needs clusters of at least 16k");
    }
    return 0;
}

static int check_files(const Qcow2CreateOptions *o, GError **errp)
{
    if (o->data_file_raw && !o->data_file) {
        return block_error(errp, EINVAL, "Image of format qcow2: "
                           "data_file_raw needs data_file");
    }
    if (o->data_file_raw && o->backing_file) {
        return block_error(errp, EINVAL, "Image of format qcow2: a backing "
                           "file and data_file_raw cannot be used at the same "
                           "time");
    }
    if (o->backing_format && !o->backing_file) {
        return block_error(errp, EINVAL, "Image of format qcow2: backing_fmt "
                           "needs backing_file");
    }
    if (o->backing_file && o->prealloc != PREALLOC_MODE_OFF &&
        !o->extended_l2) {
        return block_error(errp, EINVAL, "Image of format qcow2: a backing "
                           "file and preallocation can only be used at the "
                           "same time with extended_l2");
    }
    return o->data_file ? qcow2_name_check(o->data_file, "data file", errp)
                        : 0;
}

int qcow2_create_options_take(BlockOptions *options, Qcow2CreateOptions *ret,
                              GError **errp)
{
    Qcow2CreateOptions o = { .has_size = block_options_has(options, "size") };
    int result = block_options_absorb(options, qcow2_create_options, &o,
                                      "Image of format qcow2", errp);

    if (result < 0) {
        return result;
    }
    result = check_features(&o, errp);
    if (result == 0) {
        result = check_files(&o, errp);
    }
    if (result < 0) {
        qcow2_create_options_clear(&o);
        return result;
    }
    if (o.data_file_raw && o.prealloc == PREALLOC_MODE_OFF) {
        o.prealloc = PREALLOC_MODE_METADATA; /* data lie where they are */
    }
    *ret = o;
    return 0;
}

void qcow2_create_options_clear(Qcow2CreateOptions *o)
{
    block_options_clear(qcow2_create_options, o);
}

/* --- layout --------------------------------------------------------------- */

static unsigned log2_of(int64_t x)
{
    unsigned bits = 0;

    while (x >> (bits + 1)) {
        bits++;
    }
    return bits;
}

void qcow2_create_geometry(const Qcow2CreateOptions *o, Qcow2Geometry *geo)
{
    qcow2_geometry_init(geo, log2_of(o->cluster_bytes),
                        log2_of(o->refcount_bits), o->extended_l2);
}

static int64_t div_up(int64_t a, int64_t b)
{
    return a / b + (a % b != 0);
}

Qcow2RefcountSize qcow2_refcount_size(const Qcow2Geometry *geo,
                                      int64_t clusters)
{
    int64_t per_block = INT64_C(1) << geo->refblock_bits;
    int64_t per_table = geo->cluster_bytes / 8;
    Qcow2RefcountSize size = { .table_clusters = 1, .blocks = 1 };

    /* They count themselves; both only grow, by less and less. */
    for (;;) {
        int64_t all = clusters + size.table_clusters + size.blocks;
        Qcow2RefcountSize next = { .blocks = div_up(all, per_block) };

        next.table_clusters = div_up(next.blocks, per_table);
        if (next.blocks == size.blocks &&
            next.table_clusters == size.table_clusters) {
            return size;
        }
        size = next;
    }
}

/* The new image. */
typedef struct NewImage {
    const Qcow2CreateOptions *o;
    Qcow2Geometry geo;
    Qcow2Header header;
    Qcow2RefcountSize refcounts;
    int64_t l1_clusters;
    int64_t nr_clusters; /* in all */
    BlockBackend *blk;   /* over the file */
    BlockDriverState *data_bs;
    GError **errp;
} NewImage;

static int plan_layout(NewImage *n, int64_t size)
{
    int64_t max = MIN(qcow2_max_size(&n->geo), BDRV_MAX_LENGTH);
    int64_t cluster = n->geo.cluster_bytes;
    int64_t entries;

    size = size <= max ? (size + QCOW2_SIZE_UNIT - 1) &
                             ~(int64_t)(QCOW2_SIZE_UNIT - 1)
                       : size;
    if (size > max) {
        return block_error(n->errp, EFBIG, "Image of format qcow2: a size of "
                           "%" G_GINT64_FORMAT " bytes is above the limit of %"
                           G_GINT64_FORMAT " with clusters of %"
                           G_GINT64_FORMAT, size, max, cluster);
    }
    entries = qcow2_l1_entries(&n->geo, size);
    n->l1_clusters = div_up(entries * 8, cluster);
    n->refcounts = qcow2_refcount_size(&n->geo, 1 + n->l1_clusters);
    n->nr_clusters = 1 + n->refcounts.table_clusters + n->refcounts.blocks +
                     n->l1_clusters;
    n->header.size = size;
    n->header.l1_size = entries;
    n->header.l1_offset = entries > 0
                              ? (n->nr_clusters - n->l1_clusters) * cluster
                              : 0;
    n->header.reftable_offset = cluster;
    n->header.reftable_clusters = n->refcounts.table_clusters;
    return 0;
}

static void plan_header(NewImage *n)
{
    const Qcow2CreateOptions *o = n->o;
    Qcow2Header *h = &n->header;

    h->version = compat_versions[o->compat];
    h->cluster_bits = n->geo.cluster_bits;
    h->refcount_order = n->geo.refcount_order;
    h->compression = o->compression;
    h->compatible = o->lazy_refcounts ? QCOW2_COMPAT_LAZY_REFCOUNTS : 0;
    h->incompatible = (o->extended_l2 ? QCOW2_INCOMPAT_EXTL2 : 0) |
                      (o->data_file ? QCOW2_INCOMPAT_DATA_FILE : 0) |
                      (o->compression ? QCOW2_INCOMPAT_COMPRESSION : 0);
    h->autoclear = o->data_file_raw ? QCOW2_AUTOCLEAR_RAW_DATA : 0;
    h->backing_file = g_strdup(o->backing_file);
    h->backing_format = g_strdup(o->backing_format);
    h->data_file = g_strdup(o->data_file);
}

/* --- writing -------------------------------------------------------------- */

static int failed(const NewImage *n, int ret, const char *what)
{
    return ret < 0 ? block_error_errno(n->errp, -ret, "Could not write the %s "
                                       "of a new image to '%s'", what,
                                       bdrv_filename(blk_bs(n->blk)))
                   : 0;
}

/* The refcount table and its blocks lie side by side. */
static int coroutine_fn write_refcounts(NewImage *n)
{
    int64_t cluster = n->geo.cluster_bytes;
    int64_t blocks_at = cluster * (1 + n->refcounts.table_clusters);
    int64_t table_bytes = cluster * n->refcounts.table_clusters;
    int64_t bytes = table_bytes + cluster * n->refcounts.blocks;
    g_autofree uint8_t *buf = g_try_malloc0(bytes);

    if (!buf) {
        return -ENOMEM;
    }
    for (int64_t i = 0; i < n->refcounts.blocks; i++) {
        be_put64(buf + i * 8, blocks_at + i * cluster);
    }
    for (int64_t i = 0; i < n->nr_clusters; i++) {
        qcow2_refcount_put(buf + table_bytes, n->geo.refcount_order, i, 1);
    }
    return blk_co_pwrite(n->blk, cluster, bytes, buf, 0);
}

static int coroutine_fn write_header(NewImage *n)
{
    g_autofree uint8_t *buf = g_try_malloc(n->geo.cluster_bytes);
    int64_t bytes = buf ? qcow2_header_encode(&n->header, 0, buf) : -ENOMEM;
    int ret;

    if (bytes == -ENOSPC) {
        return block_error(n->errp, ENOSPC, "Image of format qcow2: a header "
                           "with these names does not fit in a cluster of %"
                           G_GINT64_FORMAT " bytes", n->geo.cluster_bytes);
    }
    ret = bytes < 0 ? (int)bytes
                    : blk_co_pwrite(n->blk, 0, n->geo.cluster_bytes, buf, 0);
    if (ret == 0) {
        ret = blk_co_flush(n->blk);
    }
    return failed(n, ret, "header");
}

/* Forget what the file has, and make room; a device keeps its length. */
static int coroutine_fn resize_file(NewImage *n)
{
    BlockTruncate how = { .offset = 0, .exact = false };
    int64_t bytes = n->nr_clusters * n->geo.cluster_bytes;
    int64_t length;
    int ret = blk_co_truncate(n->blk, &how, n->errp);

    if (ret < 0) {
        return ret;
    }
    length = bdrv_co_getlength(blk_bs(n->blk));
    if (length < 0) {
        return failed(n, length, "tables");
    }
    how.offset = bytes;
    return length < bytes ? blk_co_truncate(n->blk, &how, n->errp) : 0;
}

/* All clusters but the first, which is made unreadable before. */
static int coroutine_fn write_tables(NewImage *n)
{
    int64_t cluster = n->geo.cluster_bytes;
    int ret = resize_file(n);

    if (ret < 0) {
        return ret;
    }
    ret = blk_co_pwrite_zeroes(n->blk, 0, cluster, 0);
    if (ret == 0) {
        ret = write_refcounts(n);
    }
    if (ret == 0 && n->l1_clusters > 0) {
        ret = blk_co_pwrite_zeroes(n->blk, n->header.l1_offset,
                                   n->l1_clusters * cluster, 0);
    }
    if (ret == 0) {
        ret = blk_co_flush(n->blk);
    }
    return failed(n, ret, "tables");
}

/* --- nodes ---------------------------------------------------------------- */

/* The node that @options name or describe as @name; with a reference. */
static BlockDriverState *coroutine_fn
take_node(BlockGraph *graph, BlockOptions *options, const char *name,
          bool required, GError **errp)
{
    BlockOptionsChild kind;
    g_autofree char *reference = NULL;
    BlockOptions *tree = NULL;
    BlockDriverState *bs;

    if (block_options_take_child(options, name, &kind, &reference, &tree,
                                 errp) < 0) {
        return NULL;
    }
    if (kind == BLOCK_OPTIONS_CHILD_TREE) {
        return bdrv_co_open(graph, tree, errp);
    }
    if (kind == BLOCK_OPTIONS_CHILD_REFERENCE) {
        bs = bdrv_find_node(graph, reference);
        if (!bs) {
            block_error(errp, ENOENT, "Node '%s' (as '%s' of a new image) not "
                        "found", reference, name);
        }
        return bs ? bdrv_ref(bs) : NULL;
    }
    if (required) {
        block_error(errp, EINVAL, "Image of format qcow2: a node for '%s' must "
                    "be given", name);
    }
    return NULL;
}

/* Make the data file that the image will name, and open it. */
static BlockDriverState *coroutine_fn
make_data_file(BlockGraph *graph, BlockDriverState *file, const char *name,
               GError **errp)
{
    BlockOptions *options = qcow2_data_file_options(
        file, bdrv_node_name(file), name, errp);
    BlockOptions *create;

    if (!options) {
        return NULL;
    }
    create = block_options_clone(options);
    block_options_set_int(create, "size", 0);
    if (bdrv_co_create(graph, create, errp) < 0) {
        block_options_free(options);
        return NULL;
    }
    return bdrv_co_open(graph, options, errp);
}

static int coroutine_fn open_data_file(NewImage *n, BlockGraph *graph,
                                       BlockOptions *options)
{
    BlockDriverState *file = blk_bs(n->blk);
    GError *error = NULL;

    if (!n->o->data_file) {
        return 0; /* one that is given is left over, and told as unknown */
    }
    n->data_bs = take_node(graph, options, "data-file", false, &error);
    if (!n->data_bs && !error) {
        n->data_bs = make_data_file(graph, file, n->o->data_file, &error);
    }
    return error ? qcow2_pass_error(n->errp, error) : 0;
}

/*
 * The backing file must be one that open takes; where no size is given, look
 * how long it is.
 */
static int coroutine_fn look_at_backing(NewImage *n, BlockGraph *graph,
                                        int64_t *size)
{
    BlockDriverState *file = blk_bs(n->blk);
    Qcow2BackingName name = { .file = n->o->backing_file,
                              .format = n->o->backing_format };
    BlockOptions *options;
    GError *error = NULL;
    BlockDriverState *bs;
    int64_t length;
    int ret;

    options = qcow2_backing_options(file, bdrv_node_name(file), &name,
                                    n->errp);
    if (!options) {
        return -EINVAL;
    }
    ret = bdrv_check_new_backing(file, block_options_peek_str(
        options, "file.filename"), n->errp);
    if (ret < 0 || n->o->has_size) {
        block_options_free(options);
        return ret;
    }
    block_options_set_bool(options, "read-only", true);
    block_options_set_bool(options, "file.read-only", true);
    bs = bdrv_co_open(graph, options, &error);
    if (!bs) {
        return qcow2_pass_error(n->errp, error);
    }
    length = bdrv_co_getlength(bs);
    bdrv_co_unref(bs);
    if (length < 0) {
        return block_error_errno(n->errp, -length, "Could not get the length "
                                 "of backing file '%s'", name.file);
    }
    *size = length;
    return 0;
}

/* --- preallocation -------------------------------------------------------- */

/* Grow the image, which is empty, to @size.  Its file has no other user. */
static int coroutine_fn grow_image(BlockGraph *graph, BlockDriverState *file,
                                   NewImage *n, int64_t size)
{
    const BlockPerm perm = { .used = BLK_PERM_WRITE | BLK_PERM_RESIZE,
                             .shared = BLK_PERM_ALL };
    BlockTruncate how = { .offset = size, .exact = true,
                          .prealloc = (PreallocMode)n->o->prealloc };
    BlockOptions *options = block_options_parse_json("{\"backing\": null}",
                                                     NULL);
    GError *error = NULL;
    BlockDriverState *bs;
    BlockBackend *blk;
    int ret;

    block_options_set_str(options, "driver", "qcow2");
    block_options_set_str(options, "file", bdrv_node_name(file));
    if (n->data_bs) {
        block_options_set_str(options, "data-file",
                              bdrv_node_name(n->data_bs));
    }
    bs = bdrv_co_open(graph, options, &error);
    if (!bs) {
        return qcow2_pass_error(n->errp, error);
    }
    blk = blk_new(graph, "creation of an image", &perm);
    ret = blk_co_insert_bs(blk, bs, n->errp);
    if (ret == 0) {
        ret = blk_co_truncate(blk, &how, n->errp);
    }
    if (ret == 0) {
        ret = blk_co_flush(blk);
        if (ret < 0) {
            block_error_errno(n->errp, -ret, "Could not flush a new image in "
                              "'%s'", bdrv_filename(file));
        }
    }
    blk_co_unref(blk);
    bdrv_co_unref(bs);
    return ret;
}

/* --- all of it ------------------------------------------------------------ */

static int coroutine_fn write_image(NewImage *n, int64_t size)
{
    bool grows = n->o->prealloc != PREALLOC_MODE_OFF && size > 0;
    int ret = plan_layout(n, size);

    if (ret == 0) {
        plan_header(n);
        size = n->header.size;
        n->header.size = grows ? 0 : size;
        ret = write_tables(n);
        if (ret == 0) {
            ret = write_header(n);
        }
        n->header.size = size;
    }
    return ret;
}

static int coroutine_fn fill_file(NewImage *n, BlockGraph *graph,
                                  BlockDriverState *file,
                                  BlockOptions *options)
{
    static const BlockOption *const known[] = { qcow2_create_options, NULL };
    int64_t size = n->o->size;
    int ret = open_data_file(n, graph, options);

    if (ret == 0) {
        ret = block_options_check_empty(options, known,
                                        "Image of format qcow2", n->errp);
    }
    if (ret == 0 && n->o->backing_file) {
        ret = look_at_backing(n, graph, &size);
    }
    if (ret == 0 && !n->o->has_size && !n->o->backing_file) {
        ret = block_error(n->errp, EINVAL, "Image of format qcow2: option "
                          "'size' is missing");
    }
    if (ret == 0) {
        ret = write_image(n, size);
    }
    if (ret == 0 && n->header.size > 0 &&
        n->o->prealloc != PREALLOC_MODE_OFF) {
        blk_co_remove_bs(n->blk);
        ret = grow_image(graph, file, n, n->header.size);
    }
    return ret;
}

/* No half of an image is left that could be opened. */
static void coroutine_fn spoil_header(NewImage *n, BlockDriverState *file)
{
    if (!blk_bs(n->blk) && blk_co_insert_bs(n->blk, file, NULL) < 0) {
        return;
    }
    if (n->header.version) {
        blk_co_pwrite_zeroes(n->blk, 0, QCOW2_SIZE_UNIT, 0);
    }
}

static int coroutine_fn create_in(BlockGraph *graph, BlockDriverState *file,
                                  const Qcow2CreateOptions *o,
                                  BlockOptions *options, GError **errp)
{
    const BlockPerm perm = {
        .used = BLK_PERM_WRITE | BLK_PERM_RESIZE,
        .shared = BLK_PERM_ALL & ~(BLK_PERM_WRITE | BLK_PERM_RESIZE),
    };
    NewImage n = { .o = o, .errp = errp };
    int ret;

    qcow2_create_geometry(o, &n.geo);
    n.blk = blk_new(graph, "creation of an image", &perm);
    ret = blk_co_insert_bs(n.blk, file, errp);
    if (ret == 0) {
        ret = fill_file(&n, graph, file, options);
        if (ret < 0) {
            spoil_header(&n, file);
        }
    }
    blk_co_unref(n.blk);
    bdrv_co_unref(n.data_bs);
    qcow2_header_clear(&n.header);
    return ret;
}

int coroutine_fn qcow2_create(BlockGraph *graph, BlockOptions *options,
                              GError **errp)
{
    Qcow2CreateOptions o;
    GError *error = NULL;
    BlockDriverState *file;
    int ret = qcow2_create_options_take(options, &o, errp);

    if (ret < 0) {
        return ret;
    }
    file = take_node(graph, options, "file", true, &error);
    ret = file ? create_in(graph, file, &o, options, errp)
               : qcow2_pass_error(errp, error);
    bdrv_co_unref(file);
    qcow2_create_options_clear(&o);
    return ret;
}
