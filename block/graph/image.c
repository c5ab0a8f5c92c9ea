/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Images as a whole: what their drivers do for control operations.
 *
 * An operation that changes the image runs like a reopen: under the control
 * lock, with the node drained and its own requests to the nodes below counted
 * as those of its background work.  One that only looks is counted the same
 * way, so that nobody takes the graph below away, but drains nothing.
 */
#include "block/bitmap/dirty-bitmap.h"

#include <errno.h>

#include "block/graph/transaction.h"

/* --- operations ----------------------------------------------------------- */

typedef struct ImageOp {
    BlockDriverState *bs; /* counted */
    GPtrArray *works;     /* the one BdrvWork of the operation */
    bool drained;
} ImageOp;

/* The operation does not wait for a section that its own coroutine has. */
static void coroutine_fn op_begin(ImageOp *op, BlockDriverState *bs,
                                  bool drain)
{
    g_assert(aio_context_in_home(bs->graph->ctx));
    op->bs = bdrv_ref(bs);
    op->works = g_ptr_array_new();
    op->drained = drain;
    g_ptr_array_add(op->works, bdrv_work_new(bs));
    drain_control_begin(bs->graph, op->works, drain);
    if (drain) {
        bdrv_co_drained_begin(bs);
    }
}

static void coroutine_fn op_end(ImageOp *op)
{
    BdrvWork *work = g_ptr_array_index(op->works, 0);

    if (op->drained) {
        bdrv_drained_end(op->bs);
    }
    drain_own_end(work);
    if (op->drained) {
        co_mutex_unlock(&op->bs->graph->control_lock);
    }
    bdrv_work_free(work);
    g_ptr_array_unref(op->works);
    bdrv_co_unref(op->bs);
}

static int unsupported(BlockDriverState *bs, const char *what, GError **errp)
{
    return block_error(errp, ENOTSUP, "Node '%s': driver '%s' does not support "
                       "%s", bs->node_name, bs->drv->name, what);
}

static int check_writable(BlockDriverState *bs, const char *what,
                          GError **errp)
{
    if (!bdrv_is_read_only(bs)) {
        return 0;
    }
    return block_error(errp, EACCES, "Node '%s' is read-only: no %s",
                       bs->node_name, what);
}

/* Begin an operation with this method that changes the image.  Whether it can
 * is asked last: it may be reopened while we wait. */
static int coroutine_fn begin_change(ImageOp *op, BlockDriverState *bs,
                                     bool has_method, const char *what,
                                     GError **errp)
{
    int ret;

    if (!has_method) {
        return unsupported(bs, what, errp);
    }
    op_begin(op, bs, true);
    ret = check_writable(bs, what, errp);
    if (ret < 0) {
        op_end(op);
    }
    return ret;
}

/* The driver may have changed length and limits. */
static int coroutine_fn refresh_node(BlockDriverState *bs, int ret,
                                     GError **errp)
{
    int length_ret = bdrv_co_refresh_length(bs);

    bdrv_refresh_limits_above(bs);
    if (ret < 0 || length_ret >= 0) {
        return ret;
    }
    return block_error_errno(errp, -length_ret, "Node '%s': could not get the "
                             "new length", bs->node_name);
}

/* --- making images -------------------------------------------------------- */

/* The driver that @options name, which is taken out of them; or NULL. */
static const BlockDriver *take_driver(BlockOptions *options, const char *what,
                                      GError **errp)
{
    const char *name = block_options_peek_str(options, "driver");
    const BlockDriver *drv;

    if (!name) {
        block_error(errp, EINVAL, "%s: option 'driver' is missing", what);
        return NULL;
    }
    drv = bdrv_find_driver(name);
    if (!drv) {
        block_error(errp, ENOENT, "Unknown driver '%s'", name);
        return NULL;
    }
    block_options_remove(options, "driver");
    return drv;
}

int coroutine_fn bdrv_co_create(BlockGraph *graph, BlockOptions *options,
                                GError **errp)
{
    g_autoptr(BlockOptions) own = options;
    const BlockDriver *drv = take_driver(own, "Creation of an image", errp);

    if (!drv) {
        return block_options_has(own, "driver") ? -ENOENT : -EINVAL;
    }
    if (!drv->create) {
        return block_error(errp, ENOTSUP, "Driver '%s' does not support "
                           "creation of images", drv->name);
    }
    return drv->create(graph, own, errp);
}

int coroutine_fn bdrv_co_measure(BlockOptions *options,
                                 BlockDriverState *source, BdrvMeasure *ret,
                                 GError **errp)
{
    g_autoptr(BlockOptions) own = options;
    const BlockDriver *drv = take_driver(own, "Measuring", errp);
    ImageOp op;
    int status;

    if (!drv) {
        return block_options_has(own, "driver") ? -ENOENT : -EINVAL;
    }
    if (!drv->measure) {
        return block_error(errp, ENOTSUP, "Driver '%s' does not support "
                           "measuring", drv->name);
    }
    if (!source) {
        return drv->measure(own, NULL, ret, errp);
    }
    op_begin(&op, source, false);
    status = drv->measure(own, source, ret, errp);
    op_end(&op);
    return status;
}

/* --- what an image says of itself ----------------------------------------- */

int coroutine_fn bdrv_co_get_specific_info(BlockDriverState *bs,
                                           BlockOptions **ret, GError **errp)
{
    ImageOp op;
    int status;

    if (!bs->drv->get_specific_info) {
        return unsupported(bs, "specific information", errp);
    }
    op_begin(&op, bs, false);
    status = bs->drv->get_specific_info(bs, ret, errp);
    op_end(&op);
    return status;
}

/* Of @bs, which an operation holds with all that is below it. */
static int64_t coroutine_fn allocated_size(BlockDriverState *bs)
{
    int64_t sum = 0;

    if (bs->drv->get_allocated_size) {
        return bs->drv->get_allocated_size(bs);
    }
    if (bs->drv->kind == BLOCK_DRIVER_PROTOCOL) {
        return -ENOTSUP;
    }
    LIST_FOREACH(link, &bs->children) {
        BdrvChild *child = LIST_ENTRY(link, BdrvChild, parent_link);
        int64_t size;

        if (child->role & BDRV_CHILD_COW) {
            continue; /* a layer of its own */
        }
        size = allocated_size(child->bs);
        if (size < 0) {
            return size;
        }
        sum += size;
    }
    return sum;
}

int64_t coroutine_fn bdrv_co_get_allocated_size(BlockDriverState *bs)
{
    ImageOp op;
    int64_t size;

    op_begin(&op, bs, false);
    size = allocated_size(bs);
    op_end(&op);
    return size;
}

int bdrv_get_backing_name(BlockDriverState *bs, char **ret_file,
                          char **ret_format)
{
    return bs->drv->get_backing_name
               ? bs->drv->get_backing_name(bs, ret_file, ret_format)
               : -ENOTSUP;
}

/* --- changing an image ---------------------------------------------------- */

/* Nobody has to find @bs with the users that it has now: one more comes, of
 * @root. */
static int coroutine_fn attach_root(BlockRoot *root, BlockDriverState *bs,
                                    GError **errp)
{
    Transaction *txn;
    BdrvChild *child;
    int ret;

    drain_root_begin(root);
    drain_revert_wait(bs);
    txn = transaction_new();
    child = edge_attach(NULL, root, bs, "root",
                        BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY, txn);
    child->perm = (BlockPerm){ .used = BLK_PERM_RESIZE | BLK_PERM_WRITE,
                               .shared = BLK_PERM_ALL };
    ret = transaction_end(txn, perm_refresh_one(bs, txn, errp));
    drain_root_end(root);
    return ret;
}

static void coroutine_fn detach_root(BlockRoot *root)
{
    BlockDriverState *bs;
    Transaction *txn;

    drain_root_begin(root);
    bs = bdrv_ref(root->child->bs);
    txn = transaction_new();
    edge_detach(root->child, txn);
    perm_release(bs, txn);
    transaction_commit(txn);
    drain_root_end(root);
    bdrv_co_unref(bs);
}

/* Truncate @bs by a request of @root.  Returns 1 if that leads to another node
 * by now, one that has taken the place of @bs. */
static int coroutine_fn truncate_by(BlockRoot *root, BlockDriverState *bs,
                                    int64_t size, GError **errp)
{
    const BlockTruncate how = { .offset = size, .exact = true };
    unsigned ticket;
    int ret = attach_root(root, bs, errp);

    if (ret < 0) {
        return ret;
    }
    ticket = root_enter(root);
    ret = root->child->bs == bs ? bdrv_co_truncate(root->child, &how, errp)
                                : 1;
    root_leave(root, ticket);
    detach_root(root);
    return ret;
}

/*
 * The length, as a user of the node would change it: with the permission, and
 * with zeroes where a backing file would show.
 */
static int coroutine_fn amend_size(BlockDriverState *bs, int64_t size,
                                   GError **errp)
{
    BlockRoot *root = block_aligned_alloc(_Alignof(BlockRoot), sizeof(*root));
    int ret;

    root_init(root, bs->graph, "amend");
    do {
        ret = truncate_by(root, bs, size, errp);
    } while (ret > 0);
    root_destroy(root);
    block_aligned_free(root);
    return ret;
}

/* Take "size" out of @options; -1: it is not there. */
static int take_size(BlockDriverState *bs, BlockOptions *options,
                     int64_t *ret_size, GError **errp)
{
    static const BlockOption table[] = {
        { .name = "size", .type = BLOCK_OPTION_SIZE, .def = "0", .min = 0,
          .max = BDRV_MAX_LENGTH, .help = "length" },
        { .type = BLOCK_OPTION_END },
    };
    g_autofree char *what = NULL;

    *ret_size = -1;
    if (!block_options_has(options, "size")) {
        return 0;
    }
    what = g_strdup_printf("Node '%s'", bs->node_name);
    return block_options_absorb(options, table, ret_size, what, errp);
}

int coroutine_fn bdrv_co_amend(BlockDriverState *bs, BlockOptions *options,
                               GError **errp)
{
    g_autoptr(BlockOptions) own = options;
    int64_t size;
    ImageOp op;
    int ret = take_size(bs, own, &size, errp);

    if (ret == 0) {
        ret = begin_change(&op, bs, bs->drv->amend, "change of properties",
                           errp);
    }
    if (ret < 0) {
        return ret;
    }
    bdrv_ref(bs);
    if (block_options_count(own) > 0) {
        ret = refresh_node(bs, bs->drv->amend(bs, own, errp), errp);
    }
    op_end(&op);
    if (ret == 0 && size >= 0 && size != bdrv_length(bs)) {
        ret = amend_size(bs, size, errp);
    }
    bdrv_co_unref(bs);
    return ret;
}

int coroutine_fn bdrv_co_change_backing_file(BlockDriverState *bs,
                                             const char *file,
                                             const char *format,
                                             GError **errp)
{
    ImageOp op;
    int ret = begin_change(&op, bs, bs->drv->change_backing_file,
                           "change of the backing file", errp);

    if (ret < 0) {
        return ret;
    }
    ret = bs->drv->change_backing_file(bs, file, format, errp);
    op_end(&op);
    return ret;
}

/* --- content that changes without a request ------------------------------- */

/* @bs and all above it.  g_ptr_array_unref(). */
static GPtrArray *nodes_from(BlockDriverState *bs)
{
    g_autoptr(GPtrArray) start = g_ptr_array_new();

    g_ptr_array_add(start, bs);
    return graph_above(start);
}

/* A job that brings content up from what is below, or down to it, would lose
 * what it has done so far. */
static int check_no_job(BlockDriverState *bs, const char *what, GError **errp)
{
    if (bs->cow && edge_check_thawed(bs->cow, NULL) < 0) {
        return block_error(errp, EBUSY, "Node '%s': no %s while a job holds "
                           "its link to node '%s'", bs->node_name, what,
                           bs->cow->bs->node_name);
    }
    LIST_FOREACH(link, &bs->parents) {
        if (edge_check_thawed(LIST_ENTRY(link, BdrvChild, node_link),
                              NULL) < 0) {
            return block_error(errp, EBUSY, "Node '%s': no %s while a job "
                               "holds a link to it", bs->node_name, what);
        }
    }
    return 0;
}

/* A filter that saves or notes what requests change would know nothing of it.
 * Drained, so it stays so. */
static int check_only_requests(BlockDriverState *bs, const char *what,
                               GError **errp)
{
    g_autoptr(GPtrArray) nodes = nodes_from(bs);

    for (guint i = 0; i < nodes->len; i++) {
        BlockDriverState *above = g_ptr_array_index(nodes, i);
        const char *why = above->drv->snapshot ? "keeps a point in time"
                          : above->drv->sees & BLOCK_SEES_CONTENT ? "is copied"
                                                                  : NULL;

        if (why) {
            return block_error(errp, EBUSY, "Node '%s': no %s while node '%s' "
                               "above %s", bs->node_name, what,
                               above->node_name, why);
        }
    }
    return check_no_job(bs, what, errp);
}

/* All that @bs, and who shows it, has may read otherwise. */
static void content_changed(BlockDriverState *bs)
{
    g_autoptr(GPtrArray) nodes = nodes_from(bs);

    for (guint i = 0; i < nodes->len; i++) {
        dirty_bitmaps_mark_all(g_ptr_array_index(nodes, i));
    }
}

/* --- checking ------------------------------------------------------------- */

int coroutine_fn bdrv_co_check(BlockDriverState *bs, const BdrvCheck *how,
                               BdrvCheckResult *ret, GError **errp)
{
    BdrvCheckResult result = { 0 };
    ImageOp op;
    int status = 0;

    if (!bs->drv->check_image) {
        return unsupported(bs, "checking", errp);
    }
    if (how->flags) {
        status = begin_change(&op, bs, true, "repair", errp);
    } else {
        op_begin(&op, bs, true);
    }
    if (status < 0) {
        return status;
    }
    if (how->flags & BDRV_CHECK_FIX_ERRORS) {
        status = check_only_requests(bs, "repair", errp);
        if (status < 0) {
            op_end(&op);
            return status;
        }
    }
    if (!how->flags) {
        image_steps_begin(bs, NULL);
    }
    status = bs->drv->check_image(bs, how, &result, errp);
    if (!how->flags) {
        status = image_steps_end(bs, status, errp);
    }
    if (how->flags) {
        status = refresh_node(bs, status, errp);
        if (status < 0 || result.corruptions_fixed > 0) {
            content_changed(bs);
        }
    }
    op_end(&op);
    if (status == 0) {
        *ret = result;
    }
    return status;
}

/* --- internal snapshots --------------------------------------------------- */

void bdrv_snapshot_info_free(BdrvSnapshotInfo *info)
{
    if (info) {
        g_free(info->id);
        g_free(info->name);
        g_free(info);
    }
}

static void free_snapshot_info(void *info)
{
    bdrv_snapshot_info_free(info);
}

int coroutine_fn bdrv_co_snapshot_list(BlockDriverState *bs, GPtrArray **ret,
                                       GError **errp)
{
    g_autoptr(GPtrArray) list = NULL;
    ImageOp op;
    int status;

    if (!bs->drv->snapshot_list) {
        return unsupported(bs, "internal snapshots", errp);
    }
    list = g_ptr_array_new_with_free_func(free_snapshot_info);
    op_begin(&op, bs, false);
    status = bs->drv->snapshot_list(bs, list, errp);
    op_end(&op);
    if (status == 0) {
        *ret = g_steal_pointer(&list);
    }
    return status;
}

int coroutine_fn bdrv_co_snapshot_create(BlockDriverState *bs,
                                         const BdrvSnapshotInfo *info,
                                         GError **errp)
{
    ImageOp op;
    int ret = begin_change(&op, bs, bs->drv->snapshot_create,
                           "creation of internal snapshots", errp);

    if (ret < 0) {
        return ret;
    }
    ret = bs->drv->snapshot_create(bs, info, errp);
    op_end(&op);
    return ret;
}

/* The ID of the snapshot of that name in @ret, g_free(); or NULL. */
static int coroutine_fn find_snapshot(BlockDriverState *bs, const char *name,
                                      char **ret, GError **errp)
{
    g_autoptr(GPtrArray) list =
        g_ptr_array_new_with_free_func(free_snapshot_info);
    int code = bs->drv->snapshot_list(bs, list, errp);

    *ret = NULL;
    for (guint i = 0; code == 0 && !*ret && i < list->len; i++) {
        const BdrvSnapshotInfo *info = g_ptr_array_index(list, i);

        *ret = g_str_equal(info->name, name) ? g_strdup(info->id) : NULL;
    }
    return code;
}

int coroutine_fn graph_snapshot_create_new(BlockDriverState *bs,
                                           const BdrvSnapshotInfo *info,
                                           char **ret_id, GError **errp)
{
    g_autofree char *other = NULL;
    bool can = bs->drv->snapshot_create && bs->drv->snapshot_list;
    ImageOp op;
    int ret = begin_change(&op, bs, can, "internal snapshots", errp);

    if (ret < 0) {
        return ret;
    }
    ret = find_snapshot(bs, info->name, &other, errp);
    if (ret == 0 && other) {
        ret = block_error(errp, EEXIST, "Snapshot with name '%s' already "
                          "exists on device '%s'", info->name, bs->node_name);
    }
    ret = ret < 0 ? ret : bs->drv->snapshot_create(bs, info, errp);
    if (ret == 0) {
        find_snapshot(bs, info->name, ret_id, NULL);
    }
    op_end(&op);
    return ret;
}

int coroutine_fn bdrv_co_snapshot_goto(BlockDriverState *bs,
                                       const char *id_or_name, GError **errp)
{
    ImageOp op;
    int ret = begin_change(&op, bs, bs->drv->snapshot_goto,
                           "return to internal snapshots", errp);

    if (ret < 0) {
        return ret;
    }
    ret = check_only_requests(bs, "return to internal snapshots", errp);
    if (ret == 0) {
        ret = bs->drv->snapshot_goto(bs, id_or_name, errp);
        ret = refresh_node(bs, ret, errp);
        content_changed(bs); /* also if it has failed half-way */
    }
    op_end(&op);
    return ret;
}

int coroutine_fn bdrv_co_make_empty(BlockDriverState *bs, GError **errp)
{
    ImageOp op;
    int ret = begin_change(&op, bs, bs->drv->make_empty,
                           "forgetting all content", errp);

    if (ret < 0) {
        return ret;
    }
    ret = check_only_requests(bs, "forgetting all content", errp);
    if (ret == 0) {
        ret = bs->drv->make_empty(bs, errp);
        content_changed(bs); /* also if it has failed half-way */
    }
    op_end(&op);
    return ret;
}

int coroutine_fn bdrv_co_snapshot_delete(BlockDriverState *bs, const char *id,
                                         const char *name, GError **errp)
{
    ImageOp op;
    int ret = begin_change(&op, bs, bs->drv->snapshot_delete,
                           "deletion of internal snapshots", errp);

    if (ret < 0) {
        return ret;
    }
    ret = id || name
              ? 0
              : block_error(errp, EINVAL, "Node '%s': a snapshot to delete "
                            "must be given by ID or name", bs->node_name);
    if (ret == 0) {
        ret = bs->drv->snapshot_delete(bs, id, name, errp);
    }
    op_end(&op);
    return ret;
}

/* --- bitmaps stored in an image ------------------------------------------- */

void bdrv_stored_bitmap_free(BdrvStoredBitmap *bitmap)
{
    if (bitmap) {
        g_free(bitmap->name);
        g_free(bitmap);
    }
}

static void free_stored_bitmap(void *bitmap)
{
    bdrv_stored_bitmap_free(bitmap);
}

int coroutine_fn bdrv_co_stored_bitmap_list(BlockDriverState *bs,
                                            GPtrArray **ret, GError **errp)
{
    g_autoptr(GPtrArray) list = NULL;
    ImageOp op;
    int status;

    if (!bs->drv->stored_bitmap_list) {
        return unsupported(bs, "bitmaps", errp);
    }
    list = g_ptr_array_new_with_free_func(free_stored_bitmap);
    op_begin(&op, bs, false);
    status = bs->drv->stored_bitmap_list(bs, list, errp);
    op_end(&op);
    if (status == 0) {
        *ret = g_steal_pointer(&list);
    }
    return status;
}

/* It is there, empty and enabled: keep it from now on. */
static int keep_added(BlockDriverState *bs, const char *name,
                      int64_t granularity, GError **errp)
{
    HBitmap *bits = hbitmap_new(bdrv_length(bs),
                                __builtin_ctzll(granularity));

    if (!bits) {
        dirty_bitmap_new_inconsistent(bs, granularity, name);
        return block_error(errp, ENOMEM, "Node '%s': no memory for bitmap "
                           "'%s', which was added to the image",
                           bs->node_name, name);
    }
    dirty_bitmap_new_loaded(bs, name, bits, true);
    dirty_bitmaps_loaded(bs);
    return 0;
}

int coroutine_fn bdrv_co_stored_bitmap_add(BlockDriverState *bs,
                                           const char *name,
                                           int64_t granularity,
                                           GError **errp)
{
    ImageOp op;
    int ret = begin_change(&op, bs, bs->drv->stored_bitmap_add,
                           "storing of bitmaps", errp);

    if (ret < 0) {
        return ret;
    }
    ret = dirty_bitmap_check_name(bs, name, errp);
    if (ret == 0) {
        ret = bs->drv->stored_bitmap_add(bs, name, granularity, errp);
    }
    if (ret == 0) {
        ret = keep_added(bs, name, granularity, errp);
    }
    op_end(&op);
    return ret;
}

/* Remove what the image has of that name. */
static int coroutine_fn remove_stored(BlockDriverState *bs, const char *name,
                                      GError **errp)
{
    ImageOp op;
    int ret = begin_change(&op, bs, bs->drv->stored_bitmap_remove,
                           "removal of bitmaps", errp);

    if (ret < 0) {
        return ret;
    }
    ret = bs->drv->stored_bitmap_remove(bs, name, errp);
    op_end(&op);
    return ret;
}

int coroutine_fn dirty_bitmap_co_unstore(BdrvDirtyBitmap *bitmap,
                                         GError **errp)
{
    int ret = 0;

    if (bitmap->stored) {
        bdrv_dirty_bitmap_set_busy(bitmap, true); /* so it stays */
        ret = remove_stored(bitmap->bs, bitmap->name, errp);
        bdrv_dirty_bitmap_set_busy(bitmap, false);
    }
    if (ret == 0) {
        LOCK_GUARD(&bitmap->bs->dirty.lock);
        bitmap->stored = false;
        bitmap->changed = true;
    }
    return ret;
}

int coroutine_fn bdrv_co_remove_dirty_bitmap(BdrvDirtyBitmap *bitmap,
                                             GError **errp)
{
    int ret = bdrv_dirty_bitmap_check(bitmap, BDRV_BITMAP_BUSY, errp);

    if (ret == 0) {
        ret = dirty_bitmap_co_unstore(bitmap, errp);
    }
    if (ret == 0) {
        bdrv_release_dirty_bitmap(bitmap);
    }
    return ret;
}

int coroutine_fn bdrv_co_stored_bitmap_remove(BlockDriverState *bs,
                                              const char *name, GError **errp)
{
    BdrvDirtyBitmap *bitmap = bdrv_find_dirty_bitmap(bs, name);

    return bitmap && bitmap->persistent
               ? bdrv_co_remove_dirty_bitmap(bitmap, errp)
               : remove_stored(bs, name, errp);
}
