/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * block_set_io_throttle: the limits of those who use a node.
 *
 * There are no devices whose limits they could be, so a filter goes in above
 * the node, under all who use it then, and goes again with the last limit.
 */
#include "monitor/qmp-server.h"

#include <blockgraph/driver.h>
#include <blockgraph/throttle.h>
#include <errno.h>

/* What QEMU calls a limit, its burst, and the length of that. */
static const char *const limit_names[THROTTLE_LIMITS][3] = {
    [THROTTLE_BPS_TOTAL] = { "bps", "bps_max", "bps_max_length" },
    [THROTTLE_BPS_READ] = { "bps_rd", "bps_rd_max", "bps_rd_max_length" },
    [THROTTLE_BPS_WRITE] = { "bps_wr", "bps_wr_max", "bps_wr_max_length" },
    [THROTTLE_IOPS_TOTAL] = { "iops", "iops_max", "iops_max_length" },
    [THROTTLE_IOPS_READ] = { "iops_rd", "iops_rd_max", "iops_rd_max_length" },
    [THROTTLE_IOPS_WRITE] = { "iops_wr", "iops_wr_max",
                              "iops_wr_max_length" },
};

#define LIMIT(name) \
    QMP_NEED(name, qmp_int, "a second; 0: no limit"), \
    QMP_MAY(name "_max", qmp_int, "a second, in a burst"), \
    QMP_MAY(name "_max_length", qmp_int, "seconds of a burst")

QMP_OBJECT_TYPE(throttle_args, "BlockIOThrottle",
                QMP_MAY("device", qmp_str, "node that is used"),
                QMP_MAY("id", qmp_str, "the same"),
                LIMIT("bps"), LIMIT("bps_rd"), LIMIT("bps_wr"),
                LIMIT("iops"), LIMIT("iops_rd"), LIMIT("iops_wr"),
                QMP_MAY("iops_size", qmp_int,
                        "a larger request counts as several"),
                QMP_MAY("group", qmp_str, "whose limits they are; default: "
                        "the name of the node"));

/* Returns whether there is any limit. */
static bool get_config(const json_t *args, ThrottleConfig *config)
{
    bool any = false;

    *config = (ThrottleConfig){
        .iops_size = qmp_arg_int(args, "iops_size", 0),
    };
    for (int i = 0; i < THROTTLE_LIMITS; i++) {
        config->limits[i] = (ThrottleLimit){
            .avg = qmp_arg_int(args, limit_names[i][0], 0),
            .max = qmp_arg_int(args, limit_names[i][1], 0),
            .max_length = qmp_arg_int(args, limit_names[i][2], 0),
        };
        any = any || config->limits[i].avg != 0 || config->limits[i].max != 0;
    }
    return any;
}

/* The group that the throttle node @bs is a member of. */
static ThrottleGroup *group_of(BlockDriverState *bs)
{
    BlockOptions *options = bdrv_get_options(bs);
    const char *name = block_options_peek_str(options, "throttle-group");
    ThrottleGroup *group = name ? throttle_group_find(bdrv_graph(bs), name)
                                : NULL;

    block_options_free(options);
    return group;
}

static int coroutine_fn insert(QmpServer *server, BlockDriverState *bs,
                               const char *name, const ThrottleConfig *config,
                               GError **errp)
{
    ThrottleGroup *group = throttle_group_find(server->graph, name);
    BlockOptions *options = block_options_new();
    BlockDriverState *filter;
    int ret;

    if (group) {
        ret = throttle_group_set_config(group, config, errp);
        throttle_group_ref(group);
    } else {
        group = throttle_group_new(server->graph, name, config, errp);
        ret = group ? 0 : -EINVAL;
    }
    block_options_set_str(options, "driver", "throttle");
    block_options_set_str(options, "throttle-group", name);
    if (ret < 0) {
        block_options_free(options);
    } else {
        ret = bdrv_co_insert_node(bs, options, &filter, errp);
    }
    if (ret == 0) {
        g_hash_table_insert(server->throttles,
                            g_strdup(bdrv_node_name(bs)), filter);
    }
    throttle_group_unref(group);
    return ret;
}

static int coroutine_fn take_out(QmpServer *server, const char *name,
                                 BlockDriverState *filter, GError **errp)
{
    int ret = bdrv_co_drop_filter(filter, errp);

    if (ret == 0) {
        g_hash_table_remove(server->throttles, name);
        bdrv_co_unref(filter);
    }
    return ret;
}

/* Alone: whether there is a filter must not change while it comes or goes. */
static json_t *coroutine_fn set_alone(const QmpCall *call, json_t *args,
                                      GError **errp)
{
    const char *name = qmp_arg_str(args, "id");
    const char *group = qmp_arg_str(args, "group");
    BlockDriverState *bs, *filter;
    ThrottleConfig config;
    bool any = get_config(args, &config);

    name = name ? name : qmp_arg_str(args, "device");
    bs = name ? bdrv_find_node(call->graph, name) : NULL;
    if (!bs) {
        g_autofree char *safe = g_strescape(name ? name : "", "\"\\");

        g_set_error(errp, QMP_ERROR, QMP_ERROR_DEVICE_NOT_FOUND,
                    "Device '%s' not found", safe);
        return NULL;
    }
    filter = g_hash_table_lookup(call->server->throttles, name);
    if (!filter && g_str_equal(bdrv_driver_name(bs), "throttle")) {
        return qmp_done(throttle_group_set_config(group_of(bs), &config,
                                                  errp));
    }
    if (filter && !any) {
        return qmp_done(take_out(call->server, name, filter, errp));
    }
    if (filter) {
        return qmp_done(throttle_group_set_config(group_of(filter), &config,
                                                  errp));
    }
    return any ? qmp_done(insert(call->server, bs, group ? group : name,
                                 &config, errp))
               : json_object();
}

static json_t *coroutine_fn set_io_throttle(const QmpCall *call, json_t *args,
                                            GError **errp)
{
    CoMutex *lock = &call->server->throttles_lock;
    json_t *ret;

    co_mutex_lock(lock);
    ret = set_alone(call, args, errp);
    co_mutex_unlock(lock);
    return ret;
}

const QmpCommand qmp_commands_throttle[] = {
    { "block_set_io_throttle", &throttle_args, NULL, set_io_throttle,
      "Limit those who use a node now, by a filter above it; without any limit, "
      "take it out" },
    { .name = NULL },
};
