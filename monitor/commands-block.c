/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Commands that add, change and remove nodes.
 */
#include "monitor/qmp-server.h"

#include <blockgraph/backend.h>
#include <blockgraph/driver.h>
#include <blockgraph/image.h>
#include <errno.h>

#include "monitor/qmp-json.h"

/* --- add and remove ------------------------------------------------------- */

int coroutine_fn qmp_co_node_add(QmpServer *server, BlockOptions *options,
                                 GError **errp)
{
    const char *name = block_options_peek_str(options, "node-name");
    BlockDriverState *bs;

    if (!name) {
        block_options_free(options);
        return block_error(errp, EINVAL,
                           "'node-name' must be specified for the root node");
    }
    if (bdrv_find_node(server->graph, name)) {
        block_error(errp, EEXIST, "Duplicate nodes with node-name='%s'", name);
        block_options_free(options);
        return -EEXIST;
    }
    bs = bdrv_co_open(server->graph, options, errp);
    if (!bs) {
        return -EINVAL;
    }
    g_ptr_array_add(server->nodes, bs);
    return 0;
}

static json_t *coroutine_fn blockdev_add(const QmpCall *call, json_t *args,
                                         GError **errp)
{
    BlockOptions *options = qmp_arg_options(args, errp);

    return options ? qmp_done(qmp_co_node_add(call->server, options, errp))
                   : NULL;
}

QMP_OBJECT_TYPE(del_args, "q_obj_blockdev-del-arg",
                QMP_NEED("node-name", qmp_str, "a node of blockdev-add"));

static json_t *coroutine_fn blockdev_del(const QmpCall *call, json_t *args,
                                         GError **errp)
{
    const char *name = qmp_arg_str(args, "node-name");
    BlockDriverState *bs = bdrv_find_node(call->graph, name);
    GPtrArray *nodes = call->server->nodes;
    int ret;

    if (!bs) {
        block_error(errp, ENOENT, "Failed to find node with node-name='%s'",
                    name);
        return NULL;
    }
    if (!g_ptr_array_remove(nodes, bs)) {
        block_error(errp, EPERM, "Node %s is not owned by the monitor", name);
        return NULL;
    }
    /* Out of the list before the yield: two clients may ask at once. */
    ret = bdrv_co_delete(bs, errp);
    if (ret < 0) {
        g_ptr_array_add(nodes, bs);
    }
    return qmp_done(ret);
}

/* --- reopen --------------------------------------------------------------- */

QMP_ARRAY_TYPE(options_list, qmp_blockdev_options);
QMP_OBJECT_TYPE(reopen_args, "q_obj_blockdev-reopen-arg",
                QMP_NEED("options", options_list, "of each node; what is not "
                         "named goes back to its default"));

static int add_to_queue(const QmpCall *call, BdrvReopenQueue *queue,
                        GPtrArray *held, const json_t *args, GError **errp)
{
    const char *name = qmp_arg_str(args, "node-name");
    BlockDriverState *bs;
    BlockOptions *options;

    if (!name) {
        return block_error(errp, EINVAL, "node-name not specified");
    }
    bs = bdrv_find_node(call->graph, name);
    if (!bs) {
        return block_error(errp, ENOENT, "Failed to find node with "
                           "node-name='%s'", name);
    }
    options = qmp_arg_options(args, errp);
    if (!options) {
        return -EINVAL;
    }
    g_ptr_array_add(held, bdrv_ref(bs));
    bdrv_reopen_queue_add(queue, bs, options, false);
    return 0;
}

static json_t *coroutine_fn blockdev_reopen(const QmpCall *call, json_t *args,
                                            GError **errp)
{
    json_t *list = json_object_get(args, "options");
    BdrvReopenQueue *queue = bdrv_reopen_queue_new(call->graph);
    g_autoptr(GPtrArray) held = g_ptr_array_new();
    const json_t *options;
    int ret = 0;
    size_t i;

    json_array_foreach(list, i, options) {
        ret = add_to_queue(call, queue, held, options, errp);
        if (ret < 0) {
            break;
        }
    }
    if (ret == 0) {
        ret = bdrv_co_reopen_multiple(queue, errp);
    } else {
        bdrv_reopen_queue_free(queue);
    }
    for (guint n = 0; n < held->len; n++) {
        bdrv_co_unref(g_ptr_array_index(held, n));
    }
    return qmp_done(ret);
}

/* --- length --------------------------------------------------------------- */

QMP_OBJECT_TYPE(resize_args, "q_obj_block_resize-arg",
                QMP_MAY("device", qmp_str, "node that is resized"),
                QMP_MAY("node-name", qmp_str, "the same"),
                QMP_NEED("size", qmp_int, "new length in bytes"));

static int coroutine_fn resize(BlockDriverState *bs, int64_t size,
                               GError **errp)
{
    BlockPerm perm = { BLK_PERM_RESIZE, BLK_PERM_ALL };
    BlockTruncate how = { .offset = size };
    BlockBackend *blk = blk_new(bdrv_graph(bs), "block_resize", &perm);
    int ret = blk_co_insert_bs(blk, bs, errp);

    if (ret == 0) {
        ret = blk_co_truncate(blk, &how, errp);
    }
    blk_co_unref(blk);
    return ret;
}

static json_t *coroutine_fn block_resize(const QmpCall *call, json_t *args,
                                         GError **errp)
{
    const char *name = qmp_arg_str(args, "node-name");
    int64_t size = qmp_arg_int(args, "size", 0);
    BlockDriverState *bs;

    name = name ? name : qmp_arg_str(args, "device");
    bs = qmp_find_node(call, name ? name : "", errp);
    if (!bs) {
        return NULL;
    }
    if (size < 0) {
        block_error(errp, EINVAL, "Parameter 'size' expects a >0 size");
        return NULL;
    }
    return qmp_done(resize(bs, size, errp));
}

/* --- write thresholds ----------------------------------------------------- */

QMP_OBJECT_TYPE(threshold_args, "q_obj_block-set-write-threshold-arg",
                QMP_NEED("node-name", qmp_str, "node that is watched"),
                QMP_NEED("write-threshold", qmp_size, "bytes; 0: none"));

static json_t *set_write_threshold(const QmpCall *call, json_t *args,
                                   GError **errp)
{
    BlockDriverState *bs = qmp_find_node(call, qmp_arg_str(args, "node-name"),
                                         errp);

    if (!bs) {
        return NULL;
    }
    bdrv_set_write_threshold(bs, qmp_arg_int(args, "write-threshold", 0));
    return json_object();
}

void qmp_threshold_listener(const BlockThresholdEvent *event, void *opaque)
{
    qmp_server_event(opaque, "BLOCK_WRITE_THRESHOLD",
                     json_pack("{s:s, s:I, s:I}", "node-name",
                               event->node_name, "amount-exceeded",
                               (json_int_t)event->exceeded, "write-threshold",
                               (json_int_t)event->threshold));
}

/* --- corrupt images ------------------------------------------------------- */

void qmp_corruption_listener(const BlockCorruptionEvent *event, void *opaque)
{
    json_t *data = json_pack("{s:s, s:s, s:o, s:b}", "device", "", "node-name",
                             event->node_name, "msg",
                             qmp_json_string(event->message), "fatal",
                             event->fatal);

    if (event->offset >= 0) {
        json_object_set_new(data, "offset", json_integer(event->offset));
        json_object_set_new(data, "size", json_integer(event->bytes));
    }
    qmp_server_event(opaque, "BLOCK_IMAGE_CORRUPTED", data);
}

/* --- backing files -------------------------------------------------------- */

QMP_OBJECT_TYPE(backing_args, "q_obj_change-backing-file-arg",
                QMP_NEED("device", qmp_str, "node at the top of the chain"),
                QMP_NEED("image-node-name", qmp_str,
                         "node of the image that is changed"),
                QMP_NEED("backing-file", qmp_str, "what it shall say"));

/* Whether @bs is @top or one of its backing nodes. */
static bool in_chain(BlockDriverState *top, const BlockDriverState *bs)
{
    while (top && top != bs) {
        BdrvChild *child = bdrv_cow_child(top);

        child = child ? child : bdrv_filter_child(top);
        top = child ? bdrv_child_bs(child) : NULL;
    }
    return top;
}

static int coroutine_fn set_backing_name(BlockDriverState *bs,
                                         const char *file, GError **errp)
{
    BdrvChild *backing = bdrv_cow_child(bs);
    g_autofree char *format = NULL;
    g_autofree char *old = NULL;

    if (backing) {
        format = g_strdup(bdrv_driver_name(
            bdrv_skip_filters(bdrv_child_bs(backing))));
    } else {
        bdrv_get_backing_name(bs, &old, &format);
    }
    if (!format && *file) {
        return block_error(errp, EINVAL, "Node '%s' has no backing node, whose "
                           "format could be recorded", bdrv_node_name(bs));
    }
    return bdrv_co_change_backing_file(bs, *file ? file : NULL,
                                       *file ? format : NULL, errp);
}

static json_t *coroutine_fn change_backing_file(const QmpCall *call,
                                                json_t *args, GError **errp)
{
    const char *image = qmp_arg_str(args, "image-node-name");
    BlockDriverState *top = qmp_find_node(call, qmp_arg_str(args, "device"),
                                          errp);
    BlockDriverState *bs;
    int ret;

    if (!top) {
        return NULL;
    }
    bs = bdrv_find_node(call->graph, image);
    if (!bs) {
        block_error(errp, ENOENT, "Failed to find node with node-name='%s'",
                    image);
        return NULL;
    }
    if (!in_chain(top, bs)) {
        block_error(errp, EINVAL, "'%s' and image file are not in the same "
                    "chain", bdrv_node_name(top));
        return NULL;
    }
    bdrv_ref(bs);
    ret = set_backing_name(bs, qmp_arg_str(args, "backing-file"), errp);
    bdrv_co_unref(bs);
    return qmp_done(ret);
}

const QmpCommand qmp_commands_block[] = {
    { "blockdev-add", &qmp_blockdev_options, NULL, blockdev_add,
      "Open a node, with the nodes nested in its options" },
    { "blockdev-del", &del_args, NULL, blockdev_del,
      "Close a node that nobody uses" },
    { "blockdev-reopen", &reopen_args, NULL, blockdev_reopen,
      "Give nodes other options and other children, all or none" },
    { "block_resize", &resize_args, NULL, block_resize,
      "Change the length of a node" },
    { "block-set-write-threshold", &threshold_args, NULL, set_write_threshold,
      "Send BLOCK_WRITE_THRESHOLD, once, when a node is written beyond" },
    { "change-backing-file", &backing_args, NULL, change_backing_file,
      "Record another backing file in an image; its backing node stays" },
    { .name = NULL },
};
