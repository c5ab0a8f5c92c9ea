/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Options of a node: from what is given to what holds for an image.
 *
 * Names and defaults are QEMU's.  What a default depends on (the header, the
 * disk's size, "discard") is known only when the image has been read, so
 * taking and computing are two steps.
 */
#include "block/formats/qcow2/image.h"

#include <errno.h>

/* Covers 256 GiB of clusters of 64 KiB. */
#define L2_CACHE_DEFAULT (INT64_C(32) << 20)
/* Not less where the disk is small: it may grow. */
#define L2_CACHE_SMALL (INT64_C(1) << 20)
#define SLICE_DEFAULT 4096
#define SLICE_MIN 512
#define REFCOUNT_CACHE_CLUSTERS 4
#define CLEAN_INTERVAL_MAX UINT32_MAX

#define GIVEN(field) offsetof(Qcow2GivenOptions, field)

const BlockOption qcow2_options[] = {
    { .name = "file", .type = BLOCK_OPTION_CHILD,
      .help = "node that holds the image" },
    { .name = "backing", .type = BLOCK_OPTION_CHILD,
      .help = "node to read where the image holds nothing; default: what the "
              "image names; null: none" },
    { .name = "data-file", .type = BLOCK_OPTION_CHILD,
      .help = "node that holds the guest's data of an image that keeps them "
              "in another file; default: what the image names; null: none, to "
              "look at metadata only" },
    { .name = "backing-format", .type = BLOCK_OPTION_STRING,
      .offset = GIVEN(backing_format),
      .help = "format of the backing file that the image names" },
    { .name = "snapshot", .type = BLOCK_OPTION_STRING,
      .offset = GIVEN(snapshot),
      .help = "show the internal snapshot of this ID or, if there is none, of "
              "this name, read-only" },
    { .name = "snapshot-id", .type = BLOCK_OPTION_STRING,
      .offset = GIVEN(snapshot_id),
      .help = "show the internal snapshot of this ID, read-only" },
    { .name = "snapshot-name", .type = BLOCK_OPTION_STRING,
      .offset = GIVEN(snapshot_name),
      .help = "show the internal snapshot of this name, read-only" },
    { .name = "for-repair", .type = BLOCK_OPTION_BOOL, .def = "off",
      .offset = GIVEN(for_repair),
      .help = "open a corrupt image for writing, to repair it and for nothing "
              "else; a dirty one is not repaired on its own" },
    { .name = "lazy-refcounts", .type = BLOCK_OPTION_BOOL, .def = "off",
      .offset = GIVEN(lazy_refcounts),
      .help = "postpone writing of refcounts; default: as the image says" },
    { .name = "pass-discard-request", .type = BLOCK_OPTION_BOOL, .def = "off",
      .offset = GIVEN(pass_discard_request),
      .help = "discards of the guest reach the file; default: if "
              "discard=unmap" },
    { .name = "pass-discard-snapshot", .type = BLOCK_OPTION_BOOL, .def = "on",
      .offset = GIVEN(pass_discard_snapshot),
      .help = "clusters of deleted snapshots are discarded in the file" },
    { .name = "pass-discard-other", .type = BLOCK_OPTION_BOOL, .def = "off",
      .offset = GIVEN(pass_discard_other),
      .help = "clusters that are given up otherwise are discarded" },
    { .name = "discard-no-unref", .type = BLOCK_OPTION_BOOL, .def = "off",
      .offset = GIVEN(discard_no_unref),
      .help = "discarded clusters keep their place in the file" },
    { .name = "overlap-check", .type = BLOCK_OPTION_TREE,
      .offset = GIVEN(overlap_tree),
      .help = "which metadata is guarded against being overwritten: none, "
              "constant, cached (default), all; or overlap-check.template and "
              "overlap-check.KIND=on|off" },
    { .name = "cache-size", .type = BLOCK_OPTION_SIZE, .min = 0,
      .max = BDRV_MAX_LENGTH, .offset = GIVEN(cache_bytes),
      .help = "of both metadata caches, at most" },
    { .name = "l2-cache-size", .type = BLOCK_OPTION_SIZE, .min = 0,
      .max = BDRV_MAX_LENGTH, .offset = GIVEN(l2_cache_bytes),
      .help = "default: what covers the disk, at most 32M" },
    { .name = "l2-cache-entry-size", .type = BLOCK_OPTION_SIZE, .min = 0,
      .max = BDRV_MAX_LENGTH, .offset = GIVEN(l2_slice_bytes),
      .help = "piece of an L2 table that is read at once; default: a cluster, "
              "at most 4K" },
    { .name = "refcount-cache-size", .type = BLOCK_OPTION_SIZE, .min = 0,
      .max = BDRV_MAX_LENGTH, .offset = GIVEN(refcount_cache_bytes),
      .help = "default: four clusters, or what cache-size leaves" },
    { .name = "cache-clean-interval", .type = BLOCK_OPTION_NUMBER,
      .def = "600", .min = 0, .max = CLEAN_INTERVAL_MAX,
      .offset = GIVEN(cache_clean_interval_s),
      .help = "seconds after which unused cache is given back; 0: never" },
    { .type = BLOCK_OPTION_END },
};

/* --- overlap-check -------------------------------------------------------- */

static const char *const template_names[] = { "none", "constant", "cached",
                                              "all", NULL };
static const unsigned templates[] = { 0, QCOW2_OL_CONSTANT, QCOW2_OL_CACHED,
                                      QCOW2_OL_ALL };

#define OVERLAP_TEMPLATE_DEFAULT "cached"
#define OVERLAP_KINDS 9

typedef struct OverlapOptions {
    int template_index;
    bool kind[OVERLAP_KINDS];
} OverlapOptions;

#define OVERLAP_KIND(option, index)                                           \
    { .name = option, .type = BLOCK_OPTION_BOOL,                              \
      .offset = offsetof(OverlapOptions, kind[index]),                        \
      .help = "guard this kind" }

/* In the order of the bits of Qcow2Overlap, behind the template. */
static const BlockOption overlap_options[] = {
    { .name = "template", .type = BLOCK_OPTION_ENUM,
      .def = OVERLAP_TEMPLATE_DEFAULT, .values = template_names,
      .offset = offsetof(OverlapOptions, template_index),
      .help = "which kinds are guarded unless they are named" },
    OVERLAP_KIND("main-header", 0),
    OVERLAP_KIND("active-l1", 1),
    OVERLAP_KIND("active-l2", 2),
    OVERLAP_KIND("refcount-block", 3),
    OVERLAP_KIND("refcount-table", 4),
    OVERLAP_KIND("snapshot-table", 5),
    OVERLAP_KIND("inactive-l1", 6),
    OVERLAP_KIND("inactive-l2", 7),
    OVERLAP_KIND("bitmap-directory", 8),
    { .type = BLOCK_OPTION_END },
};

_Static_assert(G_N_ELEMENTS(overlap_options) == OVERLAP_KINDS + 2 &&
                   QCOW2_OL_BITMAP_DIRECTORY == 1 << (OVERLAP_KINDS - 1),
               "the table has all kinds");

static int parse_overlap(BlockOptions *tree, const char *what,
                         unsigned *ret_bits, GError **errp)
{
    static const BlockOption *const known[] = { overlap_options, NULL };
    g_autofree char *what_overlap = g_strdup_printf("%s, overlap-check", what);
    bool given[OVERLAP_KINDS];
    OverlapOptions o;
    int ret;

    for (unsigned i = 0; i < OVERLAP_KINDS; i++) {
        given[i] = block_options_has(tree, overlap_options[i + 1].name);
    }
    ret = block_options_absorb(tree, overlap_options, &o, what_overlap, errp);
    if (ret == 0) {
        ret = block_options_check_empty(tree, known, what_overlap, errp);
    }
    if (ret < 0) {
        return ret;
    }
    *ret_bits = templates[o.template_index];
    for (unsigned i = 0; i < OVERLAP_KINDS; i++) {
        if (given[i]) {
            *ret_bits &= ~(1u << i);
            *ret_bits |= o.kind[i] ? 1u << i : 0;
        }
    }
    return 0;
}

/* --- taking --------------------------------------------------------------- */

/* "overlap-check=all" is short for "overlap-check.template=all". */
static void unfold_overlap(BlockOptions *options)
{
    const char *text = block_options_peek_str(options, "overlap-check");

    if (text) {
        g_autofree char *name = g_strdup(text);

        block_options_remove(options, "overlap-check");
        block_options_set_str(options, "overlap-check.template", name);
    }
}

int qcow2_options_take(BlockDriverState *bs, BlockOptions *options,
                       Qcow2GivenOptions *ret, GError **errp)
{
    g_autofree char *what = g_strdup_printf("Node '%s' (driver 'qcow2')",
                                            bdrv_node_name(bs));
    Qcow2GivenOptions given = {
        .has_lazy_refcounts = block_options_has(options, "lazy-refcounts"),
        .has_pass_discard_request =
            block_options_has(options, "pass-discard-request"),
        .has_cache = block_options_has(options, "cache-size"),
        .has_l2_cache = block_options_has(options, "l2-cache-size"),
        .has_refcount_cache =
            block_options_has(options, "refcount-cache-size"),
        .overlap_check = QCOW2_OL_CACHED,
    };
    int result;

    if (block_options_has(options, "encrypt")) {
        return block_error(errp, ENOTSUP, "%s: encrypted images are not "
                           "supported", what);
    }
    unfold_overlap(options);
    result = block_options_absorb(options, qcow2_options, &given, what, errp);
    if (result < 0) {
        return result;
    }
    if (given.overlap_tree) {
        result = parse_overlap(given.overlap_tree, what, &given.overlap_check,
                               errp);
        g_clear_pointer(&given.overlap_tree, block_options_free);
    }
    if (result < 0) {
        qcow2_options_clear(&given);
        return result;
    }
    *ret = given;
    return 0;
}

void qcow2_options_clear(Qcow2GivenOptions *given)
{
    block_options_clear(qcow2_options, given);
}

/* --- computing ------------------------------------------------------------ */

/* Bytes of all L2 entries that the disk can have. */
static int64_t l2_bytes_of_disk(const Qcow2 *q)
{
    int64_t tables = qcow2_l1_entries(&q->geo, q->header.size);

    return tables << q->geo.cluster_bits; /* below the size of the disk */
}

static int check_cache_options(const Qcow2GivenOptions *o, const char *name,
                               GError **errp)
{
    if (!o->has_cache) {
        return 0;
    }
    if (o->has_l2_cache && o->has_refcount_cache) {
        return block_error(errp, EINVAL, "Node '%s': cache-size, l2-cache-size "
                           "and refcount-cache-size cannot be set at the same "
                           "time", name);
    }
    if (o->has_l2_cache && o->l2_cache_bytes > o->cache_bytes) {
        return block_error(errp, EINVAL, "Node '%s': l2-cache-size cannot be "
                           "above cache-size", name);
    }
    if (o->has_refcount_cache && o->refcount_cache_bytes > o->cache_bytes) {
        return block_error(errp, EINVAL, "Node '%s': refcount-cache-size "
                           "cannot be above cache-size", name);
    }
    return 0;
}

/* How what is given for both is shared out; @ret has the defaults. */
static void share_cache(const Qcow2 *q, const Qcow2GivenOptions *o,
                        Qcow2Options *ret)
{
    int64_t refcount_min = REFCOUNT_CACHE_CLUSTERS * q->geo.cluster_bytes;
    int64_t all = l2_bytes_of_disk(q);

    if (o->has_l2_cache) {
        ret->refcount_cache_bytes = o->cache_bytes - o->l2_cache_bytes;
    } else if (o->has_refcount_cache) {
        ret->l2_cache_bytes = o->cache_bytes - o->refcount_cache_bytes;
    } else if (o->cache_bytes > all && o->cache_bytes - all >= refcount_min) {
        ret->l2_cache_bytes = all;
        ret->refcount_cache_bytes = o->cache_bytes - all;
    } else {
        ret->refcount_cache_bytes = MIN(o->cache_bytes, refcount_min);
        ret->l2_cache_bytes = o->cache_bytes - ret->refcount_cache_bytes;
    }
}

static int compute_caches(const Qcow2 *q, const Qcow2GivenOptions *o,
                          Qcow2Options *ret, GError **errp)
{
    const char *name = bdrv_node_name(q->bs);
    int64_t all = l2_bytes_of_disk(q);
    int64_t slice = o->l2_slice_bytes ? o->l2_slice_bytes
                                      : MIN(q->geo.cluster_bytes,
                                            SLICE_DEFAULT);
    int64_t least = slice * QCOW2_CACHE_MIN_SLICES;

    if (slice < SLICE_MIN || slice > q->geo.cluster_bytes ||
        (slice & (slice - 1))) {
        return block_error(errp, EINVAL, "Node '%s': l2-cache-entry-size (%"
                           G_GINT64_FORMAT ") must be a power of two from %d "
                           "to the cluster size (%" G_GINT64_FORMAT ")", name,
                           slice, SLICE_MIN, q->geo.cluster_bytes);
    }
    if (check_cache_options(o, name, errp) < 0) {
        return -EINVAL;
    }
    ret->l2_slice_bytes = slice;
    ret->l2_cache_stated = o->has_cache || o->has_l2_cache;
    ret->refcount_cache_stated = o->has_cache || o->has_refcount_cache;
    ret->l2_cache_bytes = o->has_l2_cache
                              ? o->l2_cache_bytes
                              : CLAMP(all, L2_CACHE_SMALL, L2_CACHE_DEFAULT);
    ret->refcount_cache_bytes =
        o->has_refcount_cache ? o->refcount_cache_bytes
                              : REFCOUNT_CACHE_CLUSTERS * q->geo.cluster_bytes;
    if (o->has_cache) {
        share_cache(q, o, ret);
    }
    /* No more than can ever be used, no less than a cache works with. */
    ret->l2_cache_bytes = MIN(ret->l2_cache_bytes, MAX(all, L2_CACHE_SMALL));
    ret->l2_cache_bytes = MAX(ret->l2_cache_bytes & ~(slice - 1), least);
    ret->refcount_cache_bytes =
        MIN(ret->refcount_cache_bytes,
            QCOW2_MAX_REFTABLE_BYTES / 8 * q->geo.cluster_bytes);
    return 0;
}

int qcow2_options_compute(Qcow2 *q, const Qcow2GivenOptions *given,
                          unsigned flags, Qcow2Options *ret, GError **errp)
{
    bool lazy = given->has_lazy_refcounts
                    ? given->lazy_refcounts
                    : q->header.compatible & QCOW2_COMPAT_LAZY_REFCOUNTS;

    if (q->header.version < 3 && (lazy || given->discard_no_unref)) {
        return block_error(errp, EINVAL, "Node '%s': option '%s' needs an "
                           "image of version 3, '%s' is of version %u",
                           bdrv_node_name(q->bs),
                           lazy ? "lazy-refcounts" : "discard-no-unref",
                           bdrv_filename(q->bs), q->header.version);
    }
    *ret = (Qcow2Options){
        .lazy_refcounts = lazy,
        .has_lazy_refcounts = given->has_lazy_refcounts,
        .pass_discard_request = given->has_pass_discard_request
                                    ? given->pass_discard_request
                                    : (flags & BDRV_O_UNMAP) != 0,
        .has_pass_discard_request = given->has_pass_discard_request,
        .pass_discard_snapshot = given->pass_discard_snapshot,
        .pass_discard_other = given->pass_discard_other,
        .discard_no_unref = given->discard_no_unref,
        .for_repair = given->for_repair,
        .overlap_check = given->overlap_check,
        .cache_clean_interval_s = given->cache_clean_interval_s,
    };
    return compute_caches(q, given, ret, errp);
}
