/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Several actions at one moment.
 */
#include "monitor/qmp-server.h"

#include <blockgraph/transaction.h>
#include <errno.h>

#include "monitor/job-types.h"

/** No more actions in one transaction. */
#define ACTIONS_MAX 1024

QMP_OBJECT_TYPE(snapshot_args, "BlockdevSnapshot",
                QMP_NEED("node", qmp_str, "that gets an overlay"),
                QMP_NEED("overlay", qmp_str, "node without a backing node"));

QMP_ENUM_TYPE(action_kind, "TransactionActionKind", block_action_names);

/* Each kind has its arguments in "data". */
QMP_OBJECT_TYPE(wrap_abort, "AbortWrapper",
                QMP_NEED("data", qmp_empty, NULL));
QMP_OBJECT_TYPE(wrap_backup, "BlockdevBackupWrapper",
                QMP_NEED("data", qmp_backup_args, NULL));
QMP_OBJECT_TYPE(wrap_snapshot, "BlockdevSnapshotWrapper",
                QMP_NEED("data", snapshot_args, NULL));
QMP_OBJECT_TYPE(wrap_snapshot_internal, "BlockdevSnapshotInternalWrapper",
                QMP_NEED("data", qmp_snapshot_args, NULL));
QMP_OBJECT_TYPE(wrap_bitmap, "BlockDirtyBitmapWrapper",
                QMP_NEED("data", qmp_bitmap_args, NULL));
QMP_OBJECT_TYPE(wrap_bitmap_add, "BlockDirtyBitmapAddWrapper",
                QMP_NEED("data", qmp_bitmap_add_args, NULL));
QMP_OBJECT_TYPE(wrap_bitmap_merge, "BlockDirtyBitmapMergeWrapper",
                QMP_NEED("data", qmp_bitmap_merge_args, NULL));

static const QmpVariant action_variants[] = {
    { "abort", &wrap_abort },
    { "blockdev-backup", &wrap_backup },
    { "blockdev-snapshot", &wrap_snapshot },
    { "blockdev-snapshot-internal-sync", &wrap_snapshot_internal },
    { "block-dirty-bitmap-add", &wrap_bitmap_add },
    { "block-dirty-bitmap-clear", &wrap_bitmap },
    { "block-dirty-bitmap-disable", &wrap_bitmap },
    { "block-dirty-bitmap-enable", &wrap_bitmap },
    { "block-dirty-bitmap-merge", &wrap_bitmap_merge },
    { "block-dirty-bitmap-remove", &wrap_bitmap },
    { .value = NULL },
};
static const QmpField action_fields[] = {
    QMP_NEED("type", action_kind, NULL),
    { .name = NULL },
};
static const QmpType action_type = {
    .kind = QMP_OBJECT, .name = "TransactionAction", .fields = action_fields,
    .tag = "type", .variants = action_variants,
};
QMP_ARRAY_TYPE(action_list, action_type);

static const char *const completion_names[] = { "individual", "grouped",
                                                NULL };
QMP_ENUM_TYPE(completion_mode, "ActionCompletionMode", completion_names);
QMP_OBJECT_TYPE(properties, "TransactionProperties",
                QMP_MAY("completion-mode", completion_mode,
                        "whether jobs end all or none"));
QMP_OBJECT_TYPE(transaction_args, "q_obj_transaction-arg",
                QMP_NEED("actions", action_list, "done in this order"),
                QMP_MAY("properties", properties, NULL));

static BlockActionType type_of(const char *name)
{
    for (int i = 0; i < BLOCK_ACTION_TYPES; i++) {
        if (g_str_equal(block_action_names[i], name)) {
            return i;
        }
    }
    g_assert_not_reached(); /* the type was checked */
}

/* Returns how many there are, or -EINVAL with nothing left to free. */
static int make_actions(const json_t *list, BlockAction *actions,
                        GError **errp)
{
    const json_t *element;
    size_t i;

    json_array_foreach(list, i, element) {
        json_t *data = json_object_get(element, "data");

        actions[i].type = type_of(qmp_arg_str(element, "type"));
        if (actions[i].type == BLOCK_ACTION_BACKUP) {
            qmp_backup_options(data);
        } else if (actions[i].type == BLOCK_ACTION_SNAPSHOT_INTERNAL) {
            qmp_snapshot_options(data);
        }
        actions[i].options = qmp_arg_options(data, errp);
        if (!actions[i].options) {
            while (i-- > 0) {
                block_options_free(actions[i].options);
            }
            return -EINVAL;
        }
    }
    return i;
}

static json_t *coroutine_fn transaction(const QmpCall *call, json_t *args,
                                        GError **errp)
{
    json_t *list = json_object_get(args, "actions");
    const char *mode = qmp_arg_str(json_object_get(args, "properties"),
                                   "completion-mode");
    g_autofree BlockAction *actions = NULL;
    int nr;

    if (json_array_size(list) > ACTIONS_MAX) {
        block_error(errp, E2BIG, "A transaction of %zu actions: at most %d",
                    json_array_size(list), ACTIONS_MAX);
        return NULL;
    }
    actions = g_new0(BlockAction, json_array_size(list) + 1);
    nr = make_actions(list, actions, errp);
    if (nr < 0) {
        return NULL;
    }
    return qmp_done(block_co_transaction(call->graph, actions, nr,
                                         mode && g_str_equal(mode, "grouped"),
                                         errp));
}

static json_t *coroutine_fn snapshot(const QmpCall *call, json_t *args,
                                     GError **errp)
{
    BlockAction action = { .type = BLOCK_ACTION_SNAPSHOT };

    if (!qmp_find_node(call, qmp_arg_str(args, "node"), errp) ||
        !qmp_find_node(call, qmp_arg_str(args, "overlay"), errp)) {
        return NULL;
    }
    action.options = qmp_arg_options(args, errp);
    return action.options ? qmp_done(block_co_transaction(call->graph, &action,
                                                          1, false, errp))
                          : NULL;
}

const QmpCommand qmp_commands_transaction[] = {
    { "transaction", &transaction_args, NULL, transaction,
      "Do several actions at one moment, all or none; without any, wait until "
      "nothing is in flight" },
    { "blockdev-snapshot", &snapshot_args, NULL, snapshot,
      "Make a node the overlay of another, for all that use that one" },
    { .name = NULL },
};
