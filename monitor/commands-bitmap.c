/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Commands about dirty bitmaps: each is a transaction of one action.
 */
#include "monitor/qmp-server.h"

#include <blockgraph/dirty-bitmap.h>
#include <blockgraph/transaction.h>
#include <errno.h>

#include "monitor/job-types.h"

static const QmpField bitmap_fields[] = {
    QMP_NEED("node", qmp_str, "that the bitmap belongs to"),
    QMP_NEED("name", qmp_str, "of the bitmap"),
    { .name = NULL },
};
const QmpType qmp_bitmap_args = { .kind = QMP_OBJECT,
                                  .name = "BlockDirtyBitmap",
                                  .fields = bitmap_fields };

static const QmpField bitmap_add_fields[] = {
    QMP_NEED("node", qmp_str, "that the bitmap shall belong to"),
    QMP_NEED("name", qmp_str, "of the bitmap"),
    QMP_MAY("granularity", qmp_uint32, "bytes a bit, a power of two"),
    QMP_MAY("persistent", qmp_bool, "is stored in the image"),
    QMP_MAY("disabled", qmp_bool, "does not track changes yet"),
    { .name = NULL },
};
const QmpType qmp_bitmap_add_args = { .kind = QMP_OBJECT,
                                      .name = "BlockDirtyBitmapAdd",
                                      .fields = bitmap_add_fields };

static const QmpType *const source_choices[] = { &qmp_str, &qmp_bitmap_args,
                                                 NULL };
static const QmpType bitmap_source = { .kind = QMP_ALTERNATE,
                                       .name = "BlockDirtyBitmapOrStr",
                                       .choices = source_choices };
QMP_ARRAY_TYPE(bitmap_sources, bitmap_source);

static const QmpField bitmap_merge_fields[] = {
    QMP_NEED("node", qmp_str, "that the bitmap belongs to"),
    QMP_NEED("target", qmp_str, "bitmap that gets what the others have"),
    QMP_NEED("bitmaps", bitmap_sources, "the others; of that node or any"),
    { .name = NULL },
};
const QmpType qmp_bitmap_merge_args = { .kind = QMP_OBJECT,
                                        .name = "BlockDirtyBitmapMerge",
                                        .fields = bitmap_merge_fields };

static json_t *coroutine_fn act(const QmpCall *call, BlockActionType type,
                                const json_t *args, GError **errp)
{
    BlockAction action = { .type = type };

    if (!qmp_find_node(call, qmp_arg_str(args, "node"), errp)) {
        return NULL;
    }
    action.options = qmp_arg_options(args, errp);
    return action.options ? qmp_done(block_co_transaction(call->graph, &action,
                                                          1, false, errp))
                          : NULL;
}

#define BITMAP_COMMAND(name, action)                                       \
    static json_t *coroutine_fn bitmap_##name(const QmpCall *call,         \
                                              json_t *args, GError **errp) \
    {                                                                      \
        return act(call, BLOCK_ACTION_BITMAP_##action, args, errp);        \
    }

BITMAP_COMMAND(add, ADD)
BITMAP_COMMAND(remove, REMOVE)
BITMAP_COMMAND(clear, CLEAR)
BITMAP_COMMAND(enable, ENABLE)
BITMAP_COMMAND(disable, DISABLE)
BITMAP_COMMAND(merge, MERGE)

QMP_OBJECT_TYPE(sha256_info, "BlockDirtyBitmapSha256",
                QMP_NEED("sha256", qmp_str, NULL));

static json_t *bitmap_sha256(const QmpCall *call, json_t *args, GError **errp)
{
    BlockDriverState *bs = qmp_find_node(call, qmp_arg_str(args, "node"),
                                         errp);
    const char *name = qmp_arg_str(args, "name");
    BdrvDirtyBitmap *bitmap;
    g_autofree char *sum = NULL;

    if (!bs) {
        return NULL;
    }
    bitmap = bdrv_find_dirty_bitmap(bs, name);
    if (!bitmap) {
        block_error(errp, ENOENT, "Dirty bitmap '%s' not found", name);
        return NULL;
    }
    if (bdrv_dirty_bitmap_check(bitmap, BDRV_BITMAP_INCONSISTENT, errp) < 0) {
        return NULL;
    }
    sum = bdrv_dirty_bitmap_sha256(bitmap);
    return json_pack("{s:s}", "sha256", sum);
}

const QmpCommand qmp_commands_bitmap[] = {
    { "block-dirty-bitmap-add", &qmp_bitmap_add_args, NULL, bitmap_add,
      "Begin to track which parts of a node change" },
    { "block-dirty-bitmap-remove", &qmp_bitmap_args, NULL, bitmap_remove,
      "Remove a bitmap, from its image too" },
    { "block-dirty-bitmap-clear", &qmp_bitmap_args, NULL, bitmap_clear,
      "Make all of a bitmap clean" },
    { "block-dirty-bitmap-enable", &qmp_bitmap_args, NULL, bitmap_enable,
      "Track changes" },
    { "block-dirty-bitmap-disable", &qmp_bitmap_args, NULL, bitmap_disable,
      "Track changes no more, keep what there is" },
    { "block-dirty-bitmap-merge", &qmp_bitmap_merge_args, NULL, bitmap_merge,
      "Make dirty in one bitmap what is in others" },
    { "x-debug-block-dirty-bitmap-sha256", &qmp_bitmap_args, &sha256_info,
      bitmap_sha256, "A checksum of the bits, for tests" },
    { .name = NULL },
};
