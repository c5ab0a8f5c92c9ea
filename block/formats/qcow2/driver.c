/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: guest clusters anywhere in a file, those never written not at all.
 *
 * This part has the life of a node: open, close, reopen, limits, the table of
 * methods.  open() builds the state step by step; whatever step fails,
 * free_state() takes down what is there.
 */
#include "block/drivers.h"
#include "block/formats/qcow2/image.h"

#include <errno.h>

/* Requests below a sector would be padded by the layers below anyway. */
#define REQUEST_ALIGNMENT QCOW2_SIZE_UNIT

/* What a reopen has prepared. */
typedef struct Qcow2Reopen {
    Qcow2Options options;
    Qcow2Cache *l2_cache;
    Qcow2Cache *refcount_cache;
    bool read_only;
} Qcow2Reopen;

/* --- the cleaner of caches ------------------------------------------------ */

static void set_cleaner(Qcow2 *q)
{
    AioContext *ctx = block_graph_aio_context(bdrv_graph(q->bs));
    int64_t interval_ns = q->options.cache_clean_interval_s *
                          INT64_C(1000000000);

    aio_timer_set(q->cleaner, aio_clock_ns(ctx) + interval_ns);
}

static void clean(void *opaque)
{
    Qcow2 *q = opaque;

    /* Both have locks of their own; requests may run. */
    qcow2_cache_clean_unused(q->l2_cache);
    qcow2_cache_clean_unused(q->refcount_cache);
    set_cleaner(q);
}

static void start_cleaner(Qcow2 *q)
{
    AioContext *ctx = block_graph_aio_context(bdrv_graph(q->bs));

    g_clear_pointer(&q->cleaner, aio_timer_free);
    if (q->options.cache_clean_interval_s > 0) {
        q->cleaner = aio_timer_new(ctx, clean, q);
        set_cleaner(q);
    }
}

/* --- open: steps ---------------------------------------------------------- */

static void init_state(Qcow2 *q, BlockDriverState *bs)
{
    q->bs = bs;
    co_mutex_init(&q->writeback_lock);
    co_mutex_init(&q->meta_lock);
    lock_init(&q->grace_lock, LOCK_RANK_DRIVER);
    co_queue_init(&q->grace_queue);
    list_init(&q->pending_new);
    list_init(&q->pending_durable);
    q->zeroed_epoch = atomic_load(&q->epoch) - 2; /* over */
    q->dirty_l1 = g_array_new(false, false, sizeof(Qcow2DirtyEntry));
    q->dirty_reftable = g_array_new(false, false, sizeof(Qcow2DirtyEntry));
    q->snapshots = g_ptr_array_new();
}

static void free_l1(Qcow2 *q)
{
    Qcow2L1 *l1 = atomic_load(&q->l1);

    while (l1) {
        Qcow2L1 *older = l1->older;

        qcow2_l1_free(q, l1);
        l1 = older;
    }
    atomic_store(&q->l1, NULL);
}

/* Everything but children; also of a state that is half built. */
static void free_state(Qcow2 *q)
{
    g_assert(interval_tree_is_empty(&q->allocs));
    g_clear_pointer(&q->cleaner, aio_timer_free);
    g_clear_pointer(&q->l2_cache, qcow2_cache_free);
    g_clear_pointer(&q->refcount_cache, qcow2_cache_free);
    g_clear_pointer(&q->codecs, qcow2_codecs_free);
    g_clear_pointer(&q->metamap, qcow2_metamap_free);
    if (q->snapshots) {
        qcow2_snapshots_free(q);
    }
    g_clear_pointer(&q->snapshots, g_ptr_array_unref);
    qcow2_refcount_close(q);
    free_l1(q);
    qcow2_pending_drop(q);
    g_clear_pointer(&q->dirty_l1, g_array_unref);
    g_clear_pointer(&q->dirty_reftable, g_array_unref);
    qcow2_header_clear(&q->header);
#ifdef BLOCK_DEBUG
    /* Of the caches as well; bitmaps of the node count apart. */
    g_assert(table_memory_of_node(bdrv_table_account(q->bs)) == 0);
#endif
}

static int coroutine_fn open_header(Qcow2 *q, GError **errp)
{
    const char *name = bdrv_node_name(q->bs);
    Qcow2Header *h = &q->header;
    int ret = qcow2_header_read(qcow2_file(q), name, h, errp);

    if (ret < 0) {
        return ret;
    }
    qcow2_geometry_init(&q->geo, h->cluster_bits, h->refcount_order,
                        h->incompatible & QCOW2_INCOMPAT_EXTL2);
    q->has_data_file = h->incompatible & QCOW2_INCOMPAT_DATA_FILE;
    q->geo.external_data = q->has_data_file;
    q->data_file_raw = q->has_data_file &&
                       (h->autoclear & QCOW2_AUTOCLEAR_RAW_DATA);
    q->data_file = qcow2_file(q);
    q->read_only = bdrv_is_read_only(q->bs);
    atomic_store(&q->size, h->size & ~(uint64_t)(QCOW2_SIZE_UNIT - 1));
    return 0;
}

static int check_corrupt(Qcow2 *q, const Qcow2Options *o, bool read_only,
                         GError **errp)
{
    if (!(q->header.incompatible & QCOW2_INCOMPAT_CORRUPT) || read_only) {
        return 0;
    }
    if (!o->for_repair) {
        return block_error(errp, EACCES, "Node '%s': image '%s' is marked as "
                           "corrupt and can only be opened read-only, or with "
                           "for-repair=on to be repaired",
                           bdrv_node_name(q->bs), bdrv_filename(q->bs));
    }
    /* Until the repair says otherwise. */
    atomic_store(&q->corrupt, true);
    return 0;
}

/* --- open: children ------------------------------------------------------- */

/* data-file=null: nothing can be read, so show zeroes to nobody who writes. */
static int no_data_options(Qcow2 *q, BlockOptions *options, GError **errp)
{
    BlockOptions *nothing;

    if (!q->read_only) {
        return block_error(errp, EINVAL, "Node '%s': data-file=null needs "
                           "read-only=on", bdrv_node_name(q->bs));
    }
    nothing = block_options_new();
    block_options_set_str(nothing, "driver", "null-co");
    block_options_set_int(nothing, "size", q->header.size);
    block_options_set_bool(nothing, "read-zeroes", true);
    block_options_set_tree(options, "data-file", nothing);
    return 0;
}

/* What the user says about a child that images name themselves. */
typedef enum ChildGiven {
    CHILD_NOT_GIVEN,
    CHILD_GIVEN,
    CHILD_NULL,
} ChildGiven;

/* Look without taking: only null is taken, as it is nothing to open. */
static int child_given(BlockOptions *options, const char *name,
                       ChildGiven *ret, GError **errp)
{
    BlockOptions *copy = block_options_clone(options);
    g_autofree char *reference = NULL;
    BlockOptions *tree = NULL;
    BlockOptionsChild kind = BLOCK_OPTIONS_CHILD_NONE;
    int result = block_options_take_child(copy, name, &kind, &reference, &tree,
                                          errp);

    block_options_free(copy);
    block_options_free(tree);
    if (result < 0) {
        return result;
    }
    *ret = kind == BLOCK_OPTIONS_CHILD_NONE   ? CHILD_NOT_GIVEN
           : kind == BLOCK_OPTIONS_CHILD_NULL ? CHILD_NULL
                                              : CHILD_GIVEN;
    if (kind == BLOCK_OPTIONS_CHILD_NULL) {
        block_options_remove(options, name);
    }
    return 0;
}

/* Have @tree, options of a file that the image calls @name, opened only where
 * the user lets images choose files; what is said to driver "file" goes below
 * @prefix. */
static int confine(Qcow2 *q, BlockOptions *tree, const char *name,
                   const char *option, const char *prefix, GError **errp)
{
    g_autofree char *from_image = g_strconcat(prefix, "from-image", NULL);
    g_autofree char *beneath = g_strconcat(prefix, "beneath", NULL);
    const char *root;
    int ret = bdrv_check_named_file(q->bs, name, option, &root, errp);

    if (ret < 0) {
        block_options_free(tree);
        return ret;
    }
    block_options_set_bool(tree, from_image, true);
    if (root) {
        block_options_set_str(tree, beneath, root);
    }
    return 0;
}

static int coroutine_fn open_data_file(Qcow2 *q, BlockOptions *options,
                                       GError **errp)
{
    const char *name = bdrv_node_name(q->bs);
    GError *error = NULL;
    ChildGiven given;
    int ret = child_given(options, "data-file", &given, errp);

    if (ret == 0 && !q->has_data_file && given == CHILD_GIVEN) {
        ret = block_error(errp, EINVAL, "Node '%s': image '%s' has its data in "
                          "itself, \"data-file\" cannot be given", name,
                          bdrv_filename(q->bs));
    }
    if (ret < 0 || !q->has_data_file) {
        return ret;
    }
    if (given == CHILD_NULL) {
        ret = no_data_options(q, options, errp);
    } else if (given == CHILD_NOT_GIVEN) {
        BlockOptions *tree = qcow2_data_file_options(
            bdrv_child_bs(qcow2_file(q)), name, q->header.data_file, errp);

        ret = tree ? confine(q, tree, q->header.data_file, "data-file",
                             "", errp)
                   : -EINVAL;
        if (ret == 0) {
            block_options_set_tree(options, "data-file", tree);
        }
    }
    if (ret < 0) {
        return ret;
    }
    q->data_file = bdrv_co_open_child(q->bs, options, "data-file",
                                      BDRV_CHILD_DATA, true, &error);
    if (!q->data_file) {
        return qcow2_pass_error(errp, error);
    }
    bdrv_reduce_child_role(qcow2_file(q),
                           BDRV_CHILD_METADATA | BDRV_CHILD_PRIMARY);
    return 0;
}

static int coroutine_fn open_backing(Qcow2 *q, BlockOptions *options,
                                     const char *given_format, GError **errp)
{
    Qcow2BackingName backing = { .file = q->header.backing_file,
                                 .format = q->header.backing_format,
                                 .given_format = given_format };
    ChildGiven given;
    GError *error = NULL;
    int ret = child_given(options, "backing", &given, errp);

    if (ret == 0 && given == CHILD_GIVEN && q->data_file_raw) {
        ret = block_error(errp, EINVAL, "Node '%s': image '%s' promises that "
                          "its data file is a raw image, so it cannot have a "
                          "backing file", bdrv_node_name(q->bs),
                          bdrv_filename(q->bs));
    }
    if (ret < 0 || given == CHILD_NULL) {
        return ret;
    }
    if (given == CHILD_NOT_GIVEN) {
        BlockOptions *tree;

        if (!backing.file) {
            return 0;
        }
        tree = qcow2_backing_options(bdrv_child_bs(qcow2_file(q)),
                                     bdrv_node_name(q->bs), &backing, errp);
        ret = tree ? confine(q, tree, backing.file, "backing",
                             "file.", errp)
                   : -EINVAL;
        if (ret < 0) {
            return ret;
        }
        block_options_set_tree(options, "backing", tree);
    }
    if (!bdrv_co_open_child(q->bs, options, "backing", BDRV_CHILD_COW, false,
                            &error)) {
        ret = qcow2_pass_error(errp, error);
    }
    return ret;
}

/* --- open: tables --------------------------------------------------------- */

static bool wants_snapshot(const Qcow2GivenOptions *given)
{
    return given->snapshot || given->snapshot_id || given->snapshot_name;
}

static const Qcow2Snapshot *find_snapshot(Qcow2 *q,
                                          const Qcow2GivenOptions *given,
                                          GError **errp)
{
    const char *id = given->snapshot_id, *name = given->snapshot_name;
    const Qcow2Snapshot *s;

    if (given->snapshot && (id || name)) {
        block_error(errp, EINVAL, "Node '%s': option 'snapshot' does not go "
                    "with 'snapshot-id' and 'snapshot-name'",
                    bdrv_node_name(q->bs));
        return NULL;
    }
    s = given->snapshot ? qcow2_snapshot_find(q, given->snapshot)
                        : qcow2_snapshot_find_both(q, id, name);
    if (!s) {
        block_error(errp, ENOENT, "Node '%s': image '%s' has no snapshot "
                    "'%s'%s%s", bdrv_node_name(q->bs), bdrv_filename(q->bs),
                    given->snapshot ? given->snapshot : id ? id : name,
                    id && name ? " of the name " : "", id && name ? name : "");
    }
    return s;
}

/* Show the snapshot that options name, instead of the disk. */
static int choose_snapshot(Qcow2 *q, const Qcow2GivenOptions *given,
                           const Qcow2Snapshot **ret, GError **errp)
{
    GError *error = NULL;
    int64_t size;

    *ret = NULL;
    if (!wants_snapshot(given)) {
        return 0;
    }
    if (!q->read_only) {
        return block_error(errp, EINVAL, "Node '%s': an internal snapshot can "
                           "only be opened with read-only=on",
                           bdrv_node_name(q->bs));
    }
    *ret = find_snapshot(q, given, &error);
    if (!*ret) {
        return qcow2_pass_error(errp, error);
    }
    if (!untrusted_at_most((*ret)->disk_bytes,
                           MIN(qcow2_max_size(&q->geo), BDRV_MAX_LENGTH),
                           &size)) {
        return block_error(errp, EFBIG, "Node '%s': snapshot '%s' of image "
                           "'%s' is of a disk of %" G_GUINT64_FORMAT " bytes, "
                           "above the limit", bdrv_node_name(q->bs),
                           (*ret)->name, bdrv_filename(q->bs),
                           untrusted_verbatim((*ret)->disk_bytes));
    }
    q->snapshot_view = true;
    atomic_store(&q->size, size & ~(int64_t)(QCOW2_SIZE_UNIT - 1));
    return 0;
}

static int coroutine_fn open_tables(Qcow2 *q, const Qcow2GivenOptions *given,
                                    GError **errp)
{
    const Qcow2Snapshot *view = NULL;
    Untrusted l1_offset = untrusted(q->header.l1_offset);
    Untrusted l1_size = untrusted(q->header.l1_size);
    Qcow2L1 *l1 = NULL;
    int ret = qcow2_refcount_open(q, errp);

    if (ret == 0) {
        ret = bdrv_image_step(q->bs, errp);
    }
    if (ret == 0) {
        ret = qcow2_snapshots_read(q, errp);
    }
    if (ret == 0) {
        ret = choose_snapshot(q, given, &view, errp);
    }
    if (ret < 0) {
        return ret;
    }
    if (view) {
        l1_offset = view->l1_offset;
        l1_size = view->l1_size;
    }
    ret = qcow2_l1_load(q, l1_offset, l1_size, &l1, errp);
    if (ret == 0) {
        atomic_store(&q->l1, l1);
        ret = qcow2_metamap_build(q, errp);
    }
    if (ret == 0) {
        ret = qcow2_bitmaps_open(q, errp);
    }
    return ret;
}

/* What the nodes below ask of our memory. */
static void choose_buffer_align(Qcow2 *q)
{
    BlockDriverState *file = bdrv_child_bs(qcow2_file(q));
    const BlockLimits *data = bdrv_limits(bdrv_child_bs(q->data_file));

    q->buffer_align = MAX(REQUEST_ALIGNMENT, bdrv_request_alignment(file));
    q->buffer_align = MAX(q->buffer_align, data->request_alignment);
    q->buffer_align = MAX(q->buffer_align, data->min_mem_alignment);
}

static int coroutine_fn open_image(Qcow2 *q, BlockOptions *options,
                                   const Qcow2GivenOptions *given,
                                   unsigned flags, GError **errp)
{
    int ret = open_header(q, errp);

    if (ret == 0) {
        ret = qcow2_options_compute(q, given, flags, &q->options, errp);
    }
    if (ret == 0) {
        ret = check_corrupt(q, &q->options, q->read_only, errp);
    }
    if (ret == 0) {
        ret = open_data_file(q, options, errp);
    }
    if (ret < 0) {
        return ret;
    }
    choose_buffer_align(q);
    qcow2_caches_state(q);
    ret = qcow2_caches_init(q, errp);
    if (ret == 0) {
        q->codecs = qcow2_codecs_new(q->header.compression,
                                     q->geo.cluster_bytes);
        ret = open_tables(q, given, errp);
    }
    if (ret == 0) {
        ret = open_backing(q, options, given->backing_format, errp);
    }
    if (ret == 0 && !q->read_only && !q->options.for_repair &&
        (q->header.incompatible & QCOW2_INCOMPAT_DIRTY)) {
        ret = qcow2_repair_dirty(q, errp);
    }
    return ret;
}

static int coroutine_fn qcow2_open(BlockDriverState *bs, BlockOptions *options,
                                   unsigned flags, GError **errp)
{
    Qcow2 *q = qcow2_of(bs);
    Qcow2GivenOptions given;
    GError *error = NULL;
    BdrvChild *file;
    int ret = qcow2_options_take(bs, options, &given, errp);

    if (ret < 0) {
        return ret;
    }
    init_state(q, bs);
    file = bdrv_co_open_child(bs, options, "file", BDRV_CHILD_IMAGE, true,
                              &error);
    ret = file ? 0 : -block_error_code(error);
    if (file) {
        bdrv_set_filename(bs, bdrv_filename(bdrv_child_bs(file)));
        ret = open_image(q, options, &given, flags, &error);
    }
    qcow2_options_clear(&given);
    if (ret < 0) {
        g_assert(error);
        g_propagate_error(errp, error);
        free_state(q);
        return ret;
    }
    start_cleaner(q);
    q->is_open = true;
    return 0;
}

/* --- close ---------------------------------------------------------------- */

int coroutine_fn qcow2_settle(Qcow2 *q, GError **errp)
{
    int ret;

    if (q->read_only || atomic_load(&q->corrupt) ||
        (!atomic_load(&q->may_write) && !q->unsettled)) {
        return 0;
    }
    ret = qcow2_writeback_full(q);
    if (ret == 0) {
        ret = qcow2_snapshots_settle(q);
    }
    if (ret == 0) {
        co_mutex_lock(&q->meta_lock);
        ret = qcow2_set_dirty(q, false);
        co_mutex_unlock(&q->meta_lock);
    }
    if (ret < 0) {
        return qcow2_writeback_failed(q, ret, errp);
    }
    atomic_store(&q->may_write, false);
    q->unsettled = false;
    return 0;
}

static void coroutine_fn qcow2_close(BlockDriverState *bs)
{
    g_autoptr(GError) error = NULL;
    Qcow2 *q = qcow2_of(bs);

    if (qcow2_settle(q, &error) < 0) {
        g_warning("%s", error->message);
        bdrv_note_loss(bs);
    }
    free_state(q);
}

/* --- reopen --------------------------------------------------------------- */

/* New caches, empty: what the old ones had is on the disk. */
static int prepare_caches(Qcow2 *q, Qcow2Reopen *next, GError **errp)
{
    Qcow2Options old_options = q->options;
    Qcow2Cache *old_l2 = q->l2_cache;
    Qcow2Cache *old_refcount = q->refcount_cache;
    int ret;

    q->options = next->options;
    ret = qcow2_caches_init(q, errp);
    next->l2_cache = ret == 0 ? q->l2_cache : NULL;
    next->refcount_cache = ret == 0 ? q->refcount_cache : NULL;
    q->options = old_options;
    q->l2_cache = old_l2;
    q->refcount_cache = old_refcount;
    return ret;
}

static bool caches_differ(const Qcow2Options *a, const Qcow2Options *b)
{
    return a->l2_cache_bytes != b->l2_cache_bytes ||
           a->l2_slice_bytes != b->l2_slice_bytes ||
           a->refcount_cache_bytes != b->refcount_cache_bytes;
}

/* Whether the image can be as @given and the new flags say. */
static int check_reopen(Qcow2 *q, const Qcow2GivenOptions *given,
                        const Qcow2Reopen *next, GError **errp)
{
    const char *name = bdrv_node_name(q->bs);

    if (wants_snapshot(given) != q->snapshot_view) {
        return block_error(errp, EINVAL, "Node '%s': which snapshot it shows "
                           "cannot be changed while the node is open", name);
    }
    if (next->read_only || !q->read_only) {
        return 0;
    }
    if (q->snapshot_view) {
        return block_error(errp, EINVAL, "Node '%s' shows an internal "
                           "snapshot and can only be read", name);
    }
    if (q->bitmaps_without_room) {
        return block_error(errp, EFBIG, "Node '%s': image '%s' has bitmaps "
                           "that there was no memory for, and a write would "
                           "make an end of them; open it anew for writing",
                           name, bdrv_filename(q->bs));
    }
    if ((q->header.incompatible & QCOW2_INCOMPAT_DIRTY) &&
        !next->options.for_repair) {
        return block_error(errp, EACCES, "Node '%s': image '%s' was not closed "
                           "properly; open it anew for writing, that repairs "
                           "it", name, bdrv_filename(q->bs));
    }
    return check_corrupt(q, &next->options, false, errp);
}

/* The map has L2 tables of snapshots only while they are guarded, or if they
 * were about to be. */
static int coroutine_fn prepare_metamap(Qcow2 *q, const Qcow2Options *next,
                                        GError **errp)
{
    unsigned more = next->overlap_check & ~q->options.overlap_check;
    int ret = 0;

    if (more & QCOW2_OL_INACTIVE_L2) {
        co_mutex_lock(&q->meta_lock);
        ret = qcow2_metamap_add_inactive_l2(q, errp);
        co_mutex_unlock(&q->meta_lock);
    }
    return ret;
}

static int coroutine_fn prepare_reopen(Qcow2 *q,
                                       const Qcow2GivenOptions *given,
                                       unsigned flags, GError **errp)
{
    g_autofree Qcow2Reopen *next = g_new0(Qcow2Reopen, 1);
    int ret = qcow2_options_compute(q, given, flags, &next->options, errp);

    if (ret == 0) {
        next->read_only = !(flags & BDRV_O_RDWR);
        ret = check_reopen(q, given, next, errp);
    }
    /* If the reopen is aborted, the next write prepares the image again. */
    if (ret == 0) {
        ret = qcow2_settle(q, errp);
    }
    if (ret == 0) {
        ret = prepare_metamap(q, &next->options, errp);
    }
    /* What an image that takes no more writes has in its caches it has nowhere
     * else: they stay. */
    if (ret == 0 && caches_differ(&q->options, &next->options) &&
        !atomic_load(&q->corrupt)) {
        ret = prepare_caches(q, next, errp);
    }
    if (ret == 0) {
        q->next = g_steal_pointer(&next);
    }
    return ret;
}

static int coroutine_fn qcow2_reopen_prepare(BdrvReopenState *state,
                                             GError **errp)
{
    Qcow2 *q = qcow2_of(state->bs);
    Qcow2GivenOptions given;
    int ret = qcow2_options_take(state->bs, state->options, &given, errp);

    if (ret < 0) {
        return ret;
    }
    g_assert(!q->next);
    ret = prepare_reopen(q, &given, state->flags, errp);
    qcow2_options_clear(&given);
    return ret;
}

static void qcow2_reopen_commit(BdrvReopenState *state)
{
    Qcow2 *q = qcow2_of(state->bs);
    Qcow2Reopen *next = g_steal_pointer(&q->next);

    if (next->l2_cache) {
        qcow2_cache_free(q->l2_cache);
        qcow2_cache_free(q->refcount_cache);
        q->l2_cache = next->l2_cache;
        q->refcount_cache = next->refcount_cache;
    }
    q->options = next->options;
    qcow2_caches_state(q);
    q->read_only = next->read_only;
    start_cleaner(q);
    g_free(next);
}

static void qcow2_reopen_abort(BdrvReopenState *state)
{
    Qcow2 *q = qcow2_of(state->bs);
    Qcow2Reopen *next = g_steal_pointer(&q->next);

    qcow2_cache_free(next->l2_cache);
    qcow2_cache_free(next->refcount_cache);
    g_free(next);
}

/* --- facts ---------------------------------------------------------------- */

static void qcow2_refresh_limits(BlockDriverState *bs, BlockLimits *limits)
{
    const Qcow2 *q = qcow2_of(bs);

    limits->request_alignment = REQUEST_ALIGNMENT;
    limits->pwrite_zeroes_alignment = q->geo.subcluster_bytes;
    limits->pdiscard_alignment = q->geo.cluster_bytes;
    limits->write_flags = BDRV_REQ_WRITE_COMPRESSED;
    limits->truncate_flags = BDRV_REQ_ZERO_WRITE; /* always */
    limits->zero_flags = BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK;
}

static int64_t coroutine_fn qcow2_getlength(BlockDriverState *bs)
{
    return atomic_load(&qcow2_of(bs)->size);
}

static int qcow2_get_info(BlockDriverState *bs, BlockDriverInfo *info)
{
    Qcow2 *q = qcow2_of(bs);
    int64_t tables = qcow2_l1_entries(&q->geo, atomic_load(&q->size));
    unsigned shift = q->geo.l2_bits + q->geo.cluster_bits;

    info->cluster_bytes = q->geo.cluster_bytes;
    info->vm_state_offset = tables <= INT64_MAX >> shift ? tables << shift : 0;
    info->is_dirty = qcow2_incompatible(q) & QCOW2_INCOMPAT_DIRTY;
    return 0;
}

static int qcow2_probe(const uint8_t *head, size_t bytes, const char *filename)
{
    if (bytes < QCOW2_H_V2_BYTES ||
        !untrusted_is(untrusted_be32(head), QCOW2_MAGIC)) {
        return 0;
    }
    return untrusted_above(untrusted_be32(head + QCOW2_H_VERSION), 1) ? 100
                                                                      : 0;
}

const BlockDriver block_driver_qcow2 = {
    .struct_size = sizeof(BlockDriver),
    .name = "qcow2",
    .kind = BLOCK_DRIVER_FORMAT,
    .state_size = sizeof(Qcow2),
    .options = qcow2_options,
    .open = qcow2_open,
    .close = qcow2_close,
    .reopen_prepare = qcow2_reopen_prepare,
    .reopen_commit = qcow2_reopen_commit,
    .reopen_abort = qcow2_reopen_abort,
    .refresh_limits = qcow2_refresh_limits,
    .preadv = qcow2_preadv,
    .expect_read = qcow2_expect_read,
    .pwritev = qcow2_pwritev,
    .pwrite_zeroes = qcow2_pwrite_zeroes,
    .pdiscard = qcow2_pdiscard,
    .flush = qcow2_flush,
    .truncate = qcow2_truncate,
    .getlength = qcow2_getlength,
    .block_status = qcow2_block_status,
    .copy_range_from = qcow2_copy_range_from,
    .copy_range_to = qcow2_copy_range_to,
    .get_info = qcow2_get_info,
    .create_options = qcow2_create_options,
    .create = qcow2_create,
    .probe = qcow2_probe,
    .measure = qcow2_measure,
    .get_specific_info = qcow2_get_specific_info,
    .get_backing_name = qcow2_get_backing_name,
    .amend_options = qcow2_amend_options,
    .amend = qcow2_amend,
    .change_backing_file = qcow2_change_backing_file,
    .check_backing_file = qcow2_check_backing_file,
    .make_empty = qcow2_make_empty,
    .check_image = qcow2_check,
    .snapshot_list = qcow2_snapshot_list,
    .snapshot_create = qcow2_snapshot_create,
    .snapshot_goto = qcow2_snapshot_goto,
    .snapshot_delete = qcow2_snapshot_delete,
    .stored_bitmap_list = qcow2_stored_bitmap_list,
    .stored_bitmap_add = qcow2_stored_bitmap_add,
    .stored_bitmap_remove = qcow2_stored_bitmap_remove,
    .load_bitmaps = qcow2_load_bitmaps,
    .store_bitmaps = qcow2_store_bitmaps,
    .can_store_bitmap = qcow2_can_store_bitmap,
};
