/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * copy-before-write: before a guest changes a cluster, its old content goes to
 * the target; the guest's reads pass straight through.
 *
 * copy-before-write.h has the states and the rules; cbw-snapshot.c is the side
 * of the readers; block-copy does the copying.
 */
#include "block/filters/copy-before-write.h"

#include <blockgraph/dirty-bitmap.h>
#include <errno.h>

#include "block/drivers.h"
#include "util/sim-point.h"

#define NS_PER_SEC INT64_C(1000000000)
#define TIMEOUT_MAX_SEC UINT32_MAX
#define STAGING_MAX_BYTES (INT64_C(1) << 40)

typedef struct CbwOptions {
    char *bitmap_node;
    char *bitmap_name;
    int on_error;
    int64_t timeout;
    int64_t min_cluster;
    int64_t staging;
    bool compress;
    bool use_copy_range;
    bool discard_source;
} CbwOptions;

static const char *const on_error_names[] = {
    [ON_CBW_ERROR_BREAK_GUEST_WRITE] = "break-guest-write",
    [ON_CBW_ERROR_BREAK_SNAPSHOT] = "break-snapshot",
    NULL,
};

#define OPT(field) offsetof(CbwOptions, field)

static const BlockOption cbw_options[] = {
    { .name = "file", .type = BLOCK_OPTION_CHILD,
      .help = "node whose content is saved before it changes" },
    { .name = "target", .type = BLOCK_OPTION_CHILD,
      .help = "node that old content is copied to" },
    { .name = "bitmap.node", .type = BLOCK_OPTION_STRING,
      .offset = OPT(bitmap_node), .help = "node of the bitmap" },
    { .name = "bitmap.name", .type = BLOCK_OPTION_STRING,
      .offset = OPT(bitmap_name),
      .help = "save only what this dirty bitmap has when the node is opened" },
    { .name = "on-cbw-error", .type = BLOCK_OPTION_ENUM,
      .def = "break-guest-write", .values = on_error_names,
      .offset = OPT(on_error),
      .help = "what fails when old content cannot be saved" },
    { .name = "cbw-timeout", .type = BLOCK_OPTION_NUMBER, .def = "0",
      .min = 0, .max = TIMEOUT_MAX_SEC, .offset = OPT(timeout),
      .help = "seconds after which saving has failed; 0: never" },
    { .name = "min-cluster-size", .type = BLOCK_OPTION_SIZE, .def = "0",
      .min = 0, .max = INT64_C(2) << 30, .offset = OPT(min_cluster),
      .help = "smallest unit that is copied; a power of two" },
    { .name = "staging-size", .type = BLOCK_OPTION_SIZE, .def = "0",
      .min = 0, .max = STAGING_MAX_BYTES, .offset = OPT(staging),
      .help = "memory for old content on its way to the target" },
    { .name = "compress", .type = BLOCK_OPTION_BOOL, .def = "off",
      .offset = OPT(compress), .help = "store copies compressed" },
    { .name = "use-copy-range", .type = BLOCK_OPTION_BOOL, .def = "on",
      .offset = OPT(use_copy_range),
      .help = "copy inside the storage where it can" },
    { .name = "discard-source", .type = BLOCK_OPTION_BOOL, .def = "off",
      .offset = OPT(discard_source),
      .help = "discard in \"file\" what has been copied" },
    { .type = BLOCK_OPTION_END },
};

CbwNode *cbw_node(BlockDriverState *bs)
{
    return g_str_equal(bdrv_driver_name(bs), "copy-before-write")
               ? bdrv_opaque(bs)
               : NULL;
}

BlockCopyState *cbw_block_copy(BlockDriverState *bs)
{
    return cbw_node(bs)->copy;
}

int cbw_snapshot_error(BlockDriverState *bs)
{
    return atomic_load(&cbw_node(bs)->snapshot_error);
}

/* --- open and close ------------------------------------------------------- */

static int check_options(BlockDriverState *bs, const CbwOptions *o,
                         GError **errp)
{
    if (o->min_cluster & (o->min_cluster - 1)) {
        return block_error(errp, EINVAL, "Node '%s': min-cluster-size must be "
                           "a power of two, not %" G_GINT64_FORMAT,
                           bdrv_node_name(bs), o->min_cluster);
    }
    if (o->staging > 0 && o->on_error != ON_CBW_ERROR_BREAK_SNAPSHOT) {
        return block_error(errp, EINVAL, "Node '%s': staging-size needs "
                           "on-cbw-error=break-snapshot: a guest's write "
                           "cannot fail after it has been let through",
                           bdrv_node_name(bs));
    }
    return 0;
}

static int check_target(CbwNode *s, bool compress, GError **errp)
{
    BlockDriverState *target = bdrv_child_bs(s->target);

    if (bdrv_length(target) < s->length) {
        return block_error(errp, EINVAL, "Node '%s': target '%s' has %"
                           G_GINT64_FORMAT " bytes, less than the %"
                           G_GINT64_FORMAT " of the source",
                           bdrv_node_name(s->bs), bdrv_node_name(target),
                           bdrv_length(target), s->length);
    }
    if (compress &&
        !(bdrv_limits(target)->write_flags & BDRV_REQ_WRITE_COMPRESSED)) {
        return block_error(errp, ENOTSUP, "Node '%s': target '%s' (driver "
                           "'%s') does not store anything compressed",
                           bdrv_node_name(s->bs), bdrv_node_name(target),
                           bdrv_driver_name(target));
    }
    return 0;
}

/*
 * Nobody has what a guest is going to change, from now on.  Guests that see the
 * error do not copy: no call may succeed any more by then (C5).
 */
static void break_snapshot(CbwNode *s, int ret)
{
    int none = 0;

    block_copy_break(s->copy, ret);
    if (atomic_compare_exchange_strong(&s->snapshot_error, &none, ret)) {
        g_warning("Node '%s': the snapshot is broken: %s",
                  bdrv_node_name(s->bs), g_strerror(-ret));
    }
}

static void staged_failed(void *opaque, int ret)
{
    break_snapshot(opaque, ret);
}

static void staged_whole(void *opaque, int64_t offset, int64_t bytes);

/* The bitmap that @o name, fit for use; NULL without @errp: none is named. */
static BdrvDirtyBitmap *find_bitmap(CbwNode *s, const CbwOptions *o,
                                    GError **errp)
{
    const char *me = bdrv_node_name(s->bs);
    BlockDriverState *bs;
    BdrvDirtyBitmap *bitmap;

    if (!o->bitmap_node || !o->bitmap_name) {
        if (o->bitmap_node || o->bitmap_name) {
            block_error(errp, EINVAL, "Node '%s': bitmap.node and bitmap.name "
                        "need each other", me);
        }
        return NULL;
    }
    bs = bdrv_find_node(bdrv_graph(s->bs), o->bitmap_node);
    bitmap = bs ? bdrv_find_dirty_bitmap(bs, o->bitmap_name) : NULL;
    if (!bitmap) {
        block_error(errp, ENOENT, "Node '%s': node '%s' %s '%s'", me,
                    o->bitmap_node, bs ? "has no bitmap"
                                       : "not found, to have bitmap",
                    o->bitmap_name);
        return NULL;
    }
    if (bdrv_dirty_bitmap_check(bitmap, BDRV_BITMAP_BUSY |
                                BDRV_BITMAP_INCONSISTENT, errp) < 0) {
        return NULL;
    }
    if (bdrv_dirty_bitmap_size(bitmap) != s->length) {
        block_error(errp, EINVAL, "Node '%s': bitmap '%s' is of %"
                    G_GINT64_FORMAT " bytes, the source has %" G_GINT64_FORMAT,
                    me, o->bitmap_name, bdrv_dirty_bitmap_size(bitmap),
                    s->length);
        return NULL;
    }
    return bitmap;
}

/* Only what a bitmap has is in the snapshot, rounded outwards to clusters. */
static int limit_scope(CbwNode *s, const CbwOptions *o, GError **errp)
{
    g_autoptr(GError) error = NULL;
    BdrvDirtyBitmap *bitmap = find_bitmap(s, o, &error);
    int64_t at = 0, start, bytes;

    if (!bitmap) {
        int ret = error ? -block_error_code(error) : 0;

        if (error) {
            g_propagate_error(errp, g_steal_pointer(&error));
        }
        return ret;
    }
    s->scope = hbitmap_new(s->length, s->cluster_bits);
    if (!s->scope) {
        return block_error(errp, ENOMEM, "Node '%s': no memory for a bitmap",
                           bdrv_node_name(s->bs));
    }
    while (bdrv_dirty_bitmap_next_dirty_area(bitmap, at, s->length, INT64_MAX,
                                             &start, &bytes)) {
        hbitmap_set(s->scope, start, bytes);
        at = start + bytes;
    }
    block_copy_set_bitmap(s->copy, s->scope);
    return 0;
}

static int make_state(CbwNode *s, const CbwOptions *o, GError **errp)
{
    BlockCopyConfig config = {
        .source = bdrv_filter_child(s->bs),
        .target = s->target,
        .min_cluster_bytes = o->min_cluster,
        .compress = o->compress,
        .use_copy_range = o->use_copy_range,
        .discard_source = o->discard_source,
        .work = s->work,
        .staged_failed = staged_failed,
        .staged_whole = staged_whole,
        .opaque = s,
    };
    int64_t words;

    s->copy = block_copy_state_new(&config, errp);
    if (!s->copy) {
        return -EINVAL;
    }
    if (o->staging > 0 && block_copy_target_shows_source(s->copy)) {
        return block_error(errp, EINVAL, "Node '%s': no staging-size is "
                           "possible, as target '%s' shows the source: who "
                           "reads it does not find what is in memory",
                           bdrv_node_name(s->bs),
                           bdrv_node_name(bdrv_child_bs(s->target)));
    }
    block_copy_set_staging(s->copy, o->staging);
    s->cluster_bits = __builtin_ctzll(block_copy_cluster_bytes(s->copy));
    cbw_readers_init(&s->readers, s->cluster_bits);
    words = (s->length >> s->cluster_bits) / 64 + 1;
    s->done = g_try_new0(_Atomic uint64_t, words);
    if (!s->done) {
        return block_error(errp, ENOMEM, "Node '%s': no memory for a bitmap "
                           "of %" G_GINT64_FORMAT " bytes",
                           bdrv_node_name(s->bs), words * 8);
    }
    return limit_scope(s, o, errp);
}

static void free_state(CbwNode *s)
{
    block_copy_state_free(s->copy);
    bdrv_work_free(s->work);
    hbitmap_free(s->access);
    hbitmap_free(s->scope);
    g_free((void *)s->done);
}

static int coroutine_fn open_children(CbwNode *s, BlockOptions *options,
                                      bool compress, GError **errp)
{
    BdrvChild *file = bdrv_co_open_child(
        s->bs, options, "file", BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY,
        true, errp);

    if (!file) {
        return -EINVAL;
    }
    s->target = bdrv_co_open_child(s->bs, options, "target", 0, true, errp);
    if (!s->target) {
        return -EINVAL;
    }
    s->length = bdrv_length(bdrv_child_bs(file));
    return check_target(s, compress, errp);
}

static int coroutine_fn open_with(CbwNode *s, BlockDriverState *bs,
                                  const CbwOptions *o, BlockOptions *options,
                                  GError **errp)
{
    int ret = check_options(bs, o, errp);

    if (ret < 0) {
        return ret;
    }
    s->bs = bs;
    s->on_error = o->on_error;
    s->timeout_ns = o->timeout * NS_PER_SEC;
    s->staging_bytes = o->staging;
    s->discard_source = o->discard_source;
    lock_init(&s->lock, LOCK_RANK_DRIVER);
    s->work = bdrv_work_new(bs);
    ret = open_children(s, options, o->compress, errp);
    if (ret == 0) {
        ret = make_state(s, o, errp);
    }
    if (ret < 0) {
        free_state(s);
    }
    return ret;
}

static int coroutine_fn cbw_open(BlockDriverState *bs, BlockOptions *options,
                                 unsigned flags, GError **errp)
{
    g_autofree char *what = g_strdup_printf(
        "Node '%s' (driver 'copy-before-write')", bdrv_node_name(bs));
    CbwNode *s = bdrv_opaque(bs);
    CbwOptions o;
    int ret;

    if (block_options_absorb(options, cbw_options, &o, what, errp) < 0) {
        return -EINVAL;
    }
    ret = open_with(s, bs, &o, options, errp);
    block_options_clear(cbw_options, &o);
    return ret;
}
static void coroutine_fn cbw_close(BlockDriverState *bs)
{
    CbwNode *s = bdrv_opaque(bs);

    g_assert(atomic_load(&s->nr_readers) == 0);
    free_state(s);
}

/*
 * The source is read and, on behalf of our parents, written; nobody else may
 * write it behind our back.  But while we have no parent and no job, nothing is
 * promised to anybody, and the source keeps its users: they become ours when we
 * are inserted above it.
 */
static void cbw_child_perm(BlockDriverState *bs, BdrvChildRole role,
                           const BlockPerm *parent, BlockPerm *ret_child)
{
    const uint64_t changes = BLK_PERM_WRITE | BLK_PERM_RESIZE;
    CbwNode *s = bdrv_opaque(bs);

    if (!(role & BDRV_CHILD_FILTERED)) {
        ret_child->used = BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE;
        ret_child->shared = BLK_PERM_CONSISTENT_READ |
                            BLK_PERM_WRITE_UNCHANGED;
        return;
    }
    *ret_child = *parent;
    if (parent->used || s->guards) {
        ret_child->used |= BLK_PERM_CONSISTENT_READ;
        ret_child->shared &= ~changes;
    }
    if (s->discard_source) {
        ret_child->used |= BLK_PERM_WRITE;
    }
}

/* Until somebody uses us the source may change, and be resized, below us. */
static int cbw_perm_prepare(BlockDriverState *bs, const BlockPerm *perm,
                            GError **errp)
{
    CbwNode *s = bdrv_opaque(bs);
    BdrvChild *file = bdrv_filter_child(bs);
    int64_t length = file ? bdrv_length(bdrv_child_bs(file)) : s->length;

    if (perm->used && !s->used && length != s->length) {
        return block_error(errp, EINVAL, "Node '%s': the source has %"
                           G_GINT64_FORMAT " bytes, and had %" G_GINT64_FORMAT
                           " when the filter was opened", bdrv_node_name(bs),
                           length, s->length);
    }
    return 0;
}

static void cbw_perm_commit(BlockDriverState *bs, const BlockPerm *perm)
{
    CbwNode *s = bdrv_opaque(bs);

    s->used = s->used || perm->used;
}

/* --- what goes on in the background --------------------------------------- */

/* Long copies begin again when the section is over: whoever runs them. */
static void cbw_drain_begin(BlockDriverState *bs)
{
    CbwNode *s = bdrv_opaque(bs);

    block_copy_cancel_async(s->copy);
}

void cbw_guard_source(BlockDriverState *bs, bool on)
{
    cbw_node(bs)->guards = on;
}

void cbw_give_up(BlockDriverState *bs)
{
    CbwNode *s = cbw_node(bs);
    int none = 0;

    /* In this order a guest whose copy is given up knows why.  A copy may still
     * end well, but there is nobody who would take it for a backup. */
    atomic_compare_exchange_strong(&s->snapshot_error, &none, -ECANCELED);
    block_copy_break(s->copy, -ECANCELED);
}

/* --- before a guest's change ---------------------------------------------- */

/* The bits of [@first, @end) in the word of @first. */
static uint64_t word_mask(int64_t first, int64_t end)
{
    int64_t n = MIN(end - first, 64 - first % 64);

    return (n == 64 ? ~UINT64_C(0) : (UINT64_C(1) << n) - 1) << (first % 64);
}

static int64_t next_word(int64_t first)
{
    return (first / 64 + 1) * 64;
}

static bool all_done(CbwNode *s, int64_t first, int64_t end)
{
    for (int64_t i = first; i < end; i = next_word(i)) {
        uint64_t mask = word_mask(i, end);
        uint64_t word = atomic_load_explicit(&s->done[i / 64],
                                             memory_order_acquire);

        if ((word & mask) != mask) {
            return false;
        }
    }
    return true;
}

/* Lock held. */
static void set_done(CbwNode *s, int64_t first, int64_t end)
{
    for (int64_t i = first; i < end; i = next_word(i)) {
        atomic_fetch_or(&s->done[i / 64], word_mask(i, end));
    }
}

static void staged_whole(void *opaque, int64_t offset, int64_t bytes)
{
    CbwNode *s = opaque;

    WITH_LOCK(&s->lock) {
        set_done(s, offset >> s->cluster_bits,
                 ((offset + bytes - 1) >> s->cluster_bits) + 1);  /* W4 */
    }
}

/* Lock held.  But what is staged only in part is not done.  W4 */
static void set_done_whole(CbwNode *s, int64_t offset, int64_t end)
{
    int64_t cluster = INT64_C(1) << s->cluster_bits;

    while (offset < end) {
        int64_t part = block_copy_next_part(s->copy, offset, end);

        set_done(s, offset >> s->cluster_bits,
                 (part + cluster - 1) >> s->cluster_bits);
        offset = part + cluster;
    }
}

/* Save [@from, @to), and the rest of its clusters now or later. */
static int coroutine_fn save(CbwNode *s, int64_t from, int64_t to)
{
    int64_t mask = (INT64_C(1) << s->cluster_bits) - 1;
    int64_t start = from & ~mask;
    BlockCopyHow how = { .offset = start,
                         .bytes = MIN((to + mask) & ~mask, s->length) - start,
                         .urgent = true,
                         .stage = s->staging_bytes > 0,
                         .need_offset = from, .need_bytes = to - from,
                         .timeout_ns = s->timeout_ns };
    int ret = SIM_FAULT("cbw.copy", bdrv_node_name(s->bs));

    return ret < 0 ? ret : block_copy(s->copy, &how, NULL);
}

/* The guest is going to change [@offset, +@bytes).  W1 */
static int coroutine_fn before_change(BlockDriverState *bs, int64_t offset,
                                      int64_t bytes, unsigned flags)
{
    CbwNode *s = bdrv_opaque(bs);
    int64_t cluster = INT64_C(1) << s->cluster_bits;
    int64_t end = MIN(offset + bytes, s->length);
    int64_t first, last;
    bool done;
    int ret;

    if ((flags & BDRV_REQ_WRITE_UNCHANGED) || offset >= end ||
        atomic_load(&s->snapshot_error)) {
        return 0;
    }
    first = offset >> s->cluster_bits;
    last = (end + cluster - 1) >> s->cluster_bits;
    done = all_done(s, first, last);
    if (done && atomic_load(&s->nr_readers) == 0) {
        return 0;
    }
    if (SIM_PLANTED(30)) {
        set_done(s, first, last);
    }
    ret = done ? 0 : save(s, offset, end);
    if (ret < 0 && atomic_load(&s->snapshot_error)) {
        return 0; /* it was lost, or given up, meanwhile */
    }
    if (ret < 0 && s->on_error == ON_CBW_ERROR_BREAK_GUEST_WRITE) {
        return ret;
    }
    if (ret < 0) {
        break_snapshot(s, ret); /* W3 */
        return 0;
    }
    SIM_POINT("cbw.copied", bdrv_node_name(bs));
    WITH_LOCK(&s->lock) {
        set_done_whole(s, first << s->cluster_bits,
                       MIN(last << s->cluster_bits, s->length)); /* W2 */
        if (!SIM_PLANTED(29)) {
            cbw_readers_wait(&s->readers, offset, end - offset, &s->lock);
        }
    }
    return 0;
}

/* --- requests of guests --------------------------------------------------- */

static int coroutine_fn cbw_preadv(BlockDriverState *bs, const BlockIO *io)
{
    return bdrv_co_preadv(bdrv_filter_child(bs), io->offset, io->bytes,
                          io->iov, io->flags);
}

static int coroutine_fn cbw_pwritev(BlockDriverState *bs, const BlockIO *io)
{
    int ret = before_change(bs, io->offset, io->bytes, io->flags);

    return ret < 0 ? ret
                   : bdrv_co_pwritev(bdrv_filter_child(bs), io->offset,
                                     io->bytes, io->iov, io->flags);
}

static int coroutine_fn cbw_pwrite_zeroes(BlockDriverState *bs,
                                          const BlockIO *io)
{
    int ret = before_change(bs, io->offset, io->bytes, io->flags);

    return ret < 0 ? ret
                   : bdrv_co_pwrite_zeroes(bdrv_filter_child(bs), io->offset,
                                           io->bytes,
                                           io->flags & ~BDRV_REQ_ZERO_WRITE);
}

static int coroutine_fn cbw_pdiscard(BlockDriverState *bs, const BlockIO *io)
{
    int ret = before_change(bs, io->offset, io->bytes, 0);

    return ret < 0 ? ret
                   : bdrv_co_pdiscard(bdrv_filter_child(bs), io->offset,
                                      io->bytes);
}

static int coroutine_fn cbw_truncate(BlockDriverState *bs,
                                     const BlockTruncate *how, GError **errp)
{
    int64_t length = bdrv_length(bs);
    int ret = 0;

    if (how->offset < length) {
        ret = before_change(bs, how->offset, length - how->offset, 0);
    }
    if (ret < 0) {
        return block_error_errno(errp, -ret, "Node '%s': could not save what "
                                 "would be cut off", bdrv_node_name(bs));
    }
    return bdrv_co_truncate(bdrv_filter_child(bs), how, errp);
}

const BlockDriver block_driver_copy_before_write = {
    .struct_size = sizeof(BlockDriver),
    .name = "copy-before-write",
    .kind = BLOCK_DRIVER_FILTER,
    .sees = BLOCK_SEES_WRITES,
    .state_size = sizeof(CbwNode),
    .options = cbw_options,
    .open = cbw_open,
    .close = cbw_close,
    .child_perm = cbw_child_perm,
    .perm_prepare = cbw_perm_prepare,
    .perm_commit = cbw_perm_commit,
    .drain_begin = cbw_drain_begin,
    .preadv = cbw_preadv,
    .pwritev = cbw_pwritev,
    .pwrite_zeroes = cbw_pwrite_zeroes,
    .pdiscard = cbw_pdiscard,
    .truncate = cbw_truncate,
    .snapshot = &cbw_snapshot_methods,
};
