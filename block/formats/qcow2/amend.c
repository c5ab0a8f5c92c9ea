/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Other properties for an image that exists.
 *
 * The node is drained, so nothing else changes the image.  Each step leaves an
 * image that is valid; the header is written, and flushed, when all that it
 * promises is there.  An upgrade comes before what needs it, a downgrade when
 * nothing needs the higher version any more.
 */
#include "block/formats/qcow2/image.h"

#include <errno.h>

static const char *const compat_names[] = { "0.10", "v2", "1.1", "v3", NULL };
static const unsigned compat_versions[] = { 2, 2, 3, 3 };

/* The snapshot's size and 64-bit size of machine state: a must in version 3. */
#define SNAPSHOT_EXTRA_MIN 16

typedef struct AmendOptions {
    char *backing_file;
    char *backing_format;
    int compat;
    char *data_file;
    bool data_file_raw;
    bool lazy_refcounts;
    int64_t refcount_bits;
    int64_t size;
} AmendOptions;

#define AMEND(field) offsetof(AmendOptions, field)

const BlockOption qcow2_amend_options[] = {
    { .name = "backing_file", .type = BLOCK_OPTION_STRING,
      .offset = AMEND(backing_file),
      .help = "file name of a base image; empty: none" },
    { .name = "backing_fmt", .type = BLOCK_OPTION_STRING,
      .offset = AMEND(backing_format), .help = "format of the base image" },
    { .name = "compat", .type = BLOCK_OPTION_ENUM, .def = "1.1",
      .values = compat_names, .offset = AMEND(compat),
      .help = "version of the format" },
    { .name = "data_file", .type = BLOCK_OPTION_STRING,
      .offset = AMEND(data_file),
      .help = "file name of the external data file" },
    { .name = "data_file_raw", .type = BLOCK_OPTION_BOOL, .def = "off",
      .offset = AMEND(data_file_raw),
      .help = "the external data file is valid as a raw image" },
    { .name = "lazy_refcounts", .type = BLOCK_OPTION_BOOL, .def = "off",
      .offset = AMEND(lazy_refcounts), .help = "postpone refcount updates" },
    { .name = "refcount_bits", .type = BLOCK_OPTION_NUMBER, .def = "16",
      .min = 1, .max = 64, .offset = AMEND(refcount_bits),
      .help = "width of a refcount: a power of two" },
    { .name = "size", .type = BLOCK_OPTION_SIZE, .min = 0,
      .max = BDRV_MAX_LENGTH, .offset = AMEND(size), .help = "of the disk" },
    { .type = BLOCK_OPTION_END },
};

/* What is to be done. */
typedef struct Amend {
    Qcow2 *q;
    AmendOptions o;
    bool has_backing, has_compat, has_raw, has_lazy, has_refcount_bits;
    GError **errp;
} Amend;

static int G_GNUC_PRINTF(3, 4)
refuse(const Amend *a, int err, const char *format, ...)
{
    BlockDriverState *bs = a->q->bs;
    g_autofree char *text = NULL;
    va_list args;

    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    return block_error(a->errp, err, "Node '%s': image '%s' cannot be "
                       "amended: %s", bdrv_node_name(bs), bdrv_filename(bs),
                       text);
}

static int failed(const Amend *a, int ret, const char *what)
{
    return ret < 0 ? refuse(a, -ret, "%s: %s", what, g_strerror(-ret)) : 0;
}

/* --- the header ----------------------------------------------------------- */

/* The numbers of @next become those of the header, or nothing changes. */
static int coroutine_fn change_header(Qcow2 *q, const Qcow2Header *next,
                                      GError **errp)
{
    int ret;

    co_mutex_lock(&q->meta_lock);
    ret = qcow2_header_replace(q, next, errp);
    co_mutex_unlock(&q->meta_lock);
    return ret;
}

/* --- files ---------------------------------------------------------------- */

static int check_backing(Qcow2 *q, const char *file, const char *format,
                         GError **errp)
{
    const char *name = bdrv_node_name(q->bs);
    Qcow2BackingName backing = { .file = file, .format = format };
    g_autoptr(BlockOptions) options = NULL;

    if (!file) {
        return 0;
    }
    if (q->data_file_raw) {
        return block_error(errp, EINVAL, "Node '%s': image '%s' promises that "
                           "its data file is a raw image, so it cannot have a "
                           "backing file", name, bdrv_filename(q->bs));
    }
    options = qcow2_backing_options(bdrv_child_bs(qcow2_file(q)), name,
                                    &backing, errp);
    return options ? bdrv_check_new_backing(
                         q->bs, block_options_peek_str(options,
                                                       "file.filename"), errp)
                   : -EINVAL;
}

static int coroutine_fn change_backing(Qcow2 *q, const char *file,
                                       const char *format, GError **errp)
{
    BlockDriverState *bs = q->bs;
    Qcow2Header next;
    char *old_file, *old_format;
    int ret = check_backing(q, file, format, errp);

    if (ret < 0) {
        return ret;
    }
    ret = qcow2_prepare_write(q);
    if (ret < 0) {
        return block_error_errno(errp, -ret, "Node '%s': image '%s' cannot be "
                                 "written", bdrv_node_name(bs),
                                 bdrv_filename(bs));
    }
    next = q->header;
    old_file = next.backing_file;
    old_format = next.backing_format;
    next.backing_file = g_strdup(file);
    next.backing_format = g_strdup(file ? format : NULL);
    ret = change_header(q, &next, errp);
    g_free(ret == 0 ? old_file : next.backing_file);
    g_free(ret == 0 ? old_format : next.backing_format);
    return ret;
}

/* Whether the header has room for @next. */
static int check_room(Qcow2 *q, const Qcow2Header *next, GError **errp)
{
    g_autofree uint8_t *buf = g_try_malloc(q->geo.cluster_bytes);

    if (buf && qcow2_header_encode(next, 0, buf) >= 0) {
        return 0;
    }
    return block_error(errp, buf ? ENOSPC : ENOMEM, "Node '%s': the name of "
                       "the backing file does not fit in the header of image "
                       "'%s'", bdrv_node_name(q->bs), bdrv_filename(q->bs));
}

int qcow2_check_backing_file(BlockDriverState *bs, const char *file,
                             const char *format, GError **errp)
{
    Qcow2 *q = qcow2_of(bs);
    Qcow2Header next = q->header;
    g_autofree char *own_file = g_strdup(file);
    g_autofree char *own_format = g_strdup(file ? format : NULL);
    int ret = check_backing(q, file, format, errp);

    next.backing_file = own_file;
    next.backing_format = own_format;
    return ret < 0 ? ret : check_room(q, &next, errp);
}

/* The guest has written nothing: stored bitmaps stay as good as they were. */
int coroutine_fn qcow2_change_backing_file(BlockDriverState *bs,
                                           const char *file,
                                           const char *format, GError **errp)
{
    Qcow2 *q = qcow2_of(bs);
    int ret;

    qcow2_bitmaps_hold(q);
    ret = change_backing(q, file, format, errp);
    qcow2_bitmaps_unhold(q);
    return ret;
}

static int coroutine_fn amend_backing(Amend *a)
{
    Qcow2 *q = a->q;
    const char *file = a->o.backing_file ? a->o.backing_file
                                         : q->header.backing_file;
    const char *format = a->o.backing_format ? a->o.backing_format
                                             : q->header.backing_format;
    g_autofree char *own_file = g_strdup(file && file[0] ? file : NULL);
    g_autofree char *own_format = g_strdup(own_file ? format : NULL);

    return change_backing(q, own_file, own_format, a->errp);
}

static int coroutine_fn amend_data_file(Amend *a)
{
    Qcow2 *q = a->q;
    Qcow2Header next = q->header;
    int ret;

    if (!q->has_data_file) {
        return refuse(a, EINVAL, "data_file and data_file_raw are for images "
                      "that have their data in another file");
    }
    if (a->has_raw && a->o.data_file_raw && !q->data_file_raw) {
        return refuse(a, EINVAL, "data_file_raw can only be set when an image "
                      "is made");
    }
    if (a->o.data_file) {
        ret = qcow2_name_check(a->o.data_file, "data file", a->errp);
        if (ret < 0) {
            return ret;
        }
        next.data_file = g_strdup(a->o.data_file);
    }
    if (a->has_raw && !a->o.data_file_raw) {
        next.autoclear &= ~QCOW2_AUTOCLEAR_RAW_DATA;
    }
    {
        char *old = q->header.data_file;

        ret = change_header(q, &next, a->errp);
        if (a->o.data_file) {
            g_free(ret == 0 ? old : next.data_file);
        }
    }
    if (ret == 0) {
        q->data_file_raw = next.autoclear & QCOW2_AUTOCLEAR_RAW_DATA;
    }
    return ret;
}

/* --- lazy refcounts ------------------------------------------------------- */

static int coroutine_fn amend_lazy(Amend *a)
{
    Qcow2 *q = a->q;
    Qcow2Header next = q->header;
    int ret = 0;

    if (a->o.lazy_refcounts && q->header.version < 3) {
        return refuse(a, EINVAL, "lazy_refcounts needs version 3");
    }
    if (!a->o.lazy_refcounts) {
        ret = qcow2_writeback_full(q);
        if (ret == 0) {
            co_mutex_lock(&q->meta_lock);
            ret = qcow2_set_dirty(q, false);
            co_mutex_unlock(&q->meta_lock);
        }
        next = q->header;
    }
    if (ret < 0) {
        return failed(a, ret, "refcounts could not be written");
    }
    next.compatible &= ~QCOW2_COMPAT_LAZY_REFCOUNTS;
    next.compatible |= a->o.lazy_refcounts ? QCOW2_COMPAT_LAZY_REFCOUNTS : 0;
    ret = change_header(q, &next, a->errp);
    if (ret == 0 && !q->options.has_lazy_refcounts) {
        q->options.lazy_refcounts = a->o.lazy_refcounts;
        atomic_store(&q->may_write, false); /* to be marked dirty, or not */
    }
    return ret;
}

/* --- versions ------------------------------------------------------------- */

static int coroutine_fn upgrade(Amend *a)
{
    Qcow2 *q = a->q;
    Qcow2Header next = q->header;

    for (guint i = 0; i < q->snapshots->len; i++) {
        const Qcow2Snapshot *s = g_ptr_array_index(q->snapshots, i);

        if (s->extra_bytes < SNAPSHOT_EXTRA_MIN) {
            return refuse(a, ENOTSUP, "snapshot '%s' does not record what "
                          "version 3 needs; delete it first", s->name);
        }
    }
    next.version = 3;
    next.header_length = QCOW2_H_BYTES;
    return change_header(q, &next, a->errp);
}

/* What the image has that version 2 cannot say; NULL: nothing. */
static const char *why_not_version2(const Qcow2 *q)
{
    const Qcow2Header *h = &q->header;

    return q->has_data_file                  ? "it has an external data file"
           : q->geo.extended_l2              ? "it has extended L2 entries"
           : h->compression                  ? "its compression type is not "
                                               "zlib"
           : h->refcount_order != 4          ? "its refcounts are not of 16 "
                                               "bits"
           : h->has_bitmaps                  ? "it has bitmaps"
           : q->snapshots->len > 0           ? "it has snapshots, whose zero "
                                               "clusters would be lost"
           : h->incompatible & ~QCOW2_INCOMPAT_DIRTY ? "it is corrupt"
                                             : NULL;
}

/* A run of clusters that read as zero, as version 2 can say it. */
static int coroutine_fn expand_run(Qcow2 *q, int64_t offset,
                                   const Qcow2Mapping *run)
{
    int64_t cluster = q->geo.cluster_bytes;
    int64_t bytes = MIN(run->bytes, cluster - qcow2_into_cluster(&q->geo,
                                                                 offset));
    g_autofree uint8_t *zeroes = NULL;
    BlockIO io = { .offset = offset, .bytes = bytes };
    BlockIOVec1 iov;

    if (run->kind == QCOW2_ZERO_PLAIN && !q->header.backing_file &&
        !bdrv_cow_child(q->bs)) {
        return qcow2_discard_range(q, offset, bytes, QCOW2_DISCARD_NEVER,
                                   true);
    }
    zeroes = g_try_malloc0(bytes);
    if (!zeroes) {
        return -ENOMEM;
    }
    io.iov = block_iov_buf(&iov, zeroes, bytes);
    return qcow2_pwritev(q->bs, &io);
}

static int coroutine_fn expand_zeroes(Qcow2 *q)
{
    int64_t size = atomic_load(&q->size);
    int ret = 0;

    for (int64_t at = 0; ret == 0 && at < size;) {
        unsigned ticket = qcow2_access_begin(q);
        Qcow2Mapping run;

        ret = qcow2_map(q, at, size - at, false, &run);
        qcow2_access_end(q, ticket);
        if (ret == 0 && (run.kind == QCOW2_ZERO_PLAIN ||
                         run.kind == QCOW2_ZERO_ALLOC)) {
            ret = expand_run(q, at, &run);
            /* The rest of the run is looked at again. */
            run.bytes = MIN(run.bytes, qcow2_cluster_down(&q->geo, at) +
                                           q->geo.cluster_bytes - at);
        }
        at += run.bytes;
    }
    return ret < 0 ? ret : qcow2_writeback_full(q);
}

static int coroutine_fn downgrade(Amend *a)
{
    Qcow2 *q = a->q;
    const char *why = why_not_version2(q);
    Qcow2Header next;
    uint8_t *unknown;
    int ret;

    if (why) {
        return refuse(a, ENOTSUP, "version 2 is not possible, because %s",
                      why);
    }
    q->options.lazy_refcounts = false;
    ret = expand_zeroes(q);
    if (ret == 0) {
        co_mutex_lock(&q->meta_lock);
        ret = qcow2_set_dirty(q, false);
        co_mutex_unlock(&q->meta_lock);
    }
    if (ret < 0) {
        return failed(a, ret, "clusters that read as zero could not be "
                      "expanded");
    }
    next = q->header;
    unknown = next.unknown_fields;
    next.version = 2;
    next.header_length = QCOW2_H_V2_BYTES;
    next.compatible = 0;
    next.autoclear = 0;
    next.unknown_fields = NULL;
    next.unknown_fields_bytes = 0;
    ret = change_header(q, &next, a->errp);
    if (ret == 0) {
        g_free(unknown);
    }
    return ret;
}

/* --- all of it ------------------------------------------------------------ */

static int take_options(Amend *a, BlockOptions *options)
{
    static const BlockOption *const known[] = { qcow2_amend_options, NULL };
    g_autofree char *what = g_strdup_printf("Node '%s' (amend)",
                                            bdrv_node_name(a->q->bs));
    int ret;

    a->has_backing = block_options_has(options, "backing_file") ||
                     block_options_has(options, "backing_fmt");
    a->has_compat = block_options_has(options, "compat");
    a->has_raw = block_options_has(options, "data_file_raw");
    a->has_lazy = block_options_has(options, "lazy_refcounts");
    a->has_refcount_bits = block_options_has(options, "refcount_bits");
    ret = block_options_absorb(options, qcow2_amend_options, &a->o, what,
                               a->errp);
    if (ret == 0) {
        ret = block_options_check_empty(options, known, what, a->errp);
        if (ret < 0) {
            block_options_clear(qcow2_amend_options, &a->o);
        }
    }
    return ret;
}

static int coroutine_fn amend_refcounts(Amend *a)
{
    unsigned order = 0;

    while (order < QCOW2_MAX_REFCOUNT_ORDER &&
           INT64_C(1) << order < a->o.refcount_bits) {
        order++;
    }
    if (INT64_C(1) << order != a->o.refcount_bits) {
        return refuse(a, EINVAL, "refcount_bits must be a power of two of at "
                      "most 64");
    }
    if (order != 4 && a->q->header.version < 3) {
        return refuse(a, EINVAL, "refcounts of other than 16 bits need "
                      "version 3");
    }
    return order == a->q->header.refcount_order
               ? 0
               : qcow2_change_refcount_order(a->q, order, a->errp);
}

/* In the order that keeps the image valid in between. */
static int coroutine_fn amend(Amend *a, unsigned version)
{
    Qcow2 *q = a->q;
    int ret = 0;

    if (version > q->header.version) {
        ret = upgrade(a);
    }
    if (ret == 0 && a->has_refcount_bits) {
        ret = amend_refcounts(a);
    }
    if (ret == 0 && (a->o.data_file || a->has_raw)) {
        ret = amend_data_file(a);
    }
    if (ret == 0 && a->has_lazy) {
        ret = amend_lazy(a);
    }
    if (ret == 0 && a->has_backing) {
        ret = amend_backing(a);
    }
    if (ret == 0 && version < q->header.version) {
        ret = downgrade(a);
    }
    return ret;
}

int coroutine_fn qcow2_amend(BlockDriverState *bs, BlockOptions *options,
                             GError **errp)
{
    Qcow2 *q = qcow2_of(bs);
    Amend a = { .q = q, .errp = errp };
    unsigned version = q->header.version;
    int ret = take_options(&a, options);

    if (ret < 0) {
        return ret;
    }
    if (a.has_compat) {
        version = compat_versions[a.o.compat];
    }
    if (version < 3 && a.has_lazy && a.o.lazy_refcounts) {
        ret = refuse(&a, EINVAL, "lazy_refcounts needs version 3");
    }
    if (ret == 0) {
        /* What the guest sees does not change, so bitmaps stay true. */
        qcow2_bitmaps_hold(q);
        ret = failed(&a, qcow2_prepare_write(q), "it cannot be written");
        if (ret == 0) {
            ret = amend(&a, version);
        }
        qcow2_bitmaps_unhold(q);
    }
    block_options_clear(qcow2_amend_options, &a.o);
    return ret;
}
