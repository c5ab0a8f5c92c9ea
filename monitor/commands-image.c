/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Commands about images: make one, internal snapshots.
 */
#include "monitor/qmp-server.h"

#include <blockgraph/driver.h>
#include <blockgraph/image.h>
#include <blockgraph/transaction.h>
#include <errno.h>

#include "monitor/job-types.h"
#include "monitor/node-types.h"

/* --- make ----------------------------------------------------------------- */

QMP_OBJECT_TYPE(create_args, "q_obj_blockdev-create-arg",
                QMP_NEED("job-id", qmp_str, "name of the job that does it"),
                QMP_NEED("options", qmp_create_options, "of the image"));

/* What the protocol calls an option, and what the driver does. */
static const char *driver_name_of(const char *key)
{
    return g_str_equal(key, "version") ? "compat" : key;
}

static bool has_option(const BlockOption *table, const char *name)
{
    for (; table->type != BLOCK_OPTION_END; table++) {
        if (g_str_equal(table->name, name)) {
            return true;
        }
    }
    return false;
}

/* The options of the driver's table: its names have '_' where QMP has '-'. */
static json_t *driver_options(const BlockDriver *driver, const json_t *options)
{
    json_t *ret = json_object();
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)options, key, value) {
        g_autofree char *name = g_strdup(driver_name_of(key));

        if (!g_str_equal(key, "driver") &&
            !has_option(driver->create_options, name)) {
            g_strdelimit(name, "-", '_');
        }
        json_object_set(ret, name, value);
    }
    return ret;
}

static BlockOptions *job_options(const BlockDriver *driver, json_t *args,
                                 GError **errp)
{
    json_t *options = driver_options(driver, json_object_get(args, "options"));
    json_t *all = json_pack("{s:O, s:o, s:b}", "job-id",
                            json_object_get(args, "job-id"), "options",
                            options, "auto-dismiss", 0);
    BlockOptions *ret = qmp_arg_options(all, errp);

    json_decref(all);
    return ret;
}

static json_t *coroutine_fn blockdev_create(const QmpCall *call, json_t *args,
                                            GError **errp)
{
    const char *name = qmp_arg_str(json_object_get(args, "options"), "driver");
    const BlockDriver *driver = bdrv_find_driver(name);
    BlockOptions *options;
    BlockJob *job;

    if (!driver || !driver->create) {
        block_error(errp, ENOTSUP, "Driver does not support blockdev-create");
        return NULL;
    }
    options = job_options(driver, args, errp);
    if (!options) {
        return NULL;
    }
    job = block_co_job_start(call->graph, BLOCK_JOB_CREATE, options, errp);
    block_job_unref(job);
    return job ? json_object() : NULL;
}

/* --- internal snapshots --------------------------------------------------- */

static const QmpField snapshot_fields[] = {
    QMP_NEED("device", qmp_str, "node"),
    QMP_NEED("name", qmp_str, "of the snapshot"),
    { .name = NULL },
};
const QmpType qmp_snapshot_args = { .kind = QMP_OBJECT,
                                    .name = "BlockdevSnapshotInternal",
                                    .fields = snapshot_fields };
QMP_OBJECT_TYPE(snapshot_del_args,
                "q_obj_blockdev-snapshot-delete-internal-sync-arg",
                QMP_NEED("device", qmp_str, "node"),
                QMP_MAY("id", qmp_str, "of the snapshot"),
                QMP_MAY("name", qmp_str, "of the snapshot"));
/* The one of @list with this @id and this @name (NULL: any). */
static const BdrvSnapshotInfo *pick(GPtrArray *list, const char *id,
                                    const char *name)
{
    for (guint i = 0; i < list->len; i++) {
        const BdrvSnapshotInfo *info = g_ptr_array_index(list, i);

        if ((!id || g_str_equal(id, info->id)) &&
            (!name || g_str_equal(name, info->name))) {
            return info;
        }
    }
    return NULL;
}

void qmp_snapshot_options(json_t *args)
{
    gint64 now_us = g_get_real_time();

    json_object_set_new(args, "date-sec",
                        json_integer(now_us / G_USEC_PER_SEC));
    json_object_set_new(args, "date-nsec",
                        json_integer(now_us % G_USEC_PER_SEC * 1000));
}

static json_t *coroutine_fn snapshot_internal(const QmpCall *call,
                                              json_t *args, GError **errp)
{
    BlockAction action = { .type = BLOCK_ACTION_SNAPSHOT_INTERNAL };

    if (!qmp_find_node(call, qmp_arg_str(args, "device"), errp)) {
        return NULL;
    }
    qmp_snapshot_options(args);
    action.options = qmp_arg_options(args, errp);
    return action.options ? qmp_done(block_co_transaction(call->graph, &action,
                                                          1, false, errp))
                          : NULL;
}

static json_t *coroutine_fn snapshot_drop(BlockDriverState *bs, const char *id,
                                          const char *name, GError **errp)
{
    const BdrvSnapshotInfo *info;
    GPtrArray *list = NULL;
    json_t *reply = NULL;

    if (bdrv_co_snapshot_list(bs, &list, errp) < 0) {
        return NULL;
    }
    info = pick(list, id, name);
    if (!info) {
        block_error(errp, ENOENT, "Snapshot with id '%s' and name '%s' does "
                    "not exist on device '%s'", id ? id : "null",
                    name ? name : "null", bdrv_node_name(bs));
    } else if (bdrv_co_snapshot_delete(bs, info->id, info->name, errp) == 0) {
        reply = qmp_snapshot_json(info);
    }
    g_ptr_array_unref(list);
    return reply;
}

static json_t *coroutine_fn snapshot_delete(const QmpCall *call, json_t *args,
                                            GError **errp)
{
    BlockDriverState *bs = qmp_find_node(call, qmp_arg_str(args, "device"),
                                         errp);
    const char *name = qmp_arg_str(args, "name");
    const char *id = qmp_arg_str(args, "id");
    json_t *reply;

    if (!bs) {
        return NULL;
    }
    if (!id && !name) {
        block_error(errp, EINVAL, "Name or id must be provided");
        return NULL;
    }
    bdrv_ref(bs);
    reply = snapshot_drop(bs, id, name, errp);
    bdrv_co_unref(bs);
    return reply;
}

const QmpCommand qmp_commands_image[] = {
    { "blockdev-create", &create_args, NULL, blockdev_create,
      "Start a job that makes an image" },
    { "blockdev-snapshot-internal-sync", &qmp_snapshot_args, NULL,
      snapshot_internal, "Make a snapshot inside an image" },
    { "blockdev-snapshot-delete-internal-sync", &snapshot_del_args,
      &qmp_snapshot_info, snapshot_delete, "Delete a snapshot inside an image" },
    { .name = NULL },
};
