/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Commands that start jobs: from QEMU's arguments to the options of
 * docs/jobs.md.
 */
#include "monitor/qmp-server.h"

#include <blockgraph/driver.h>
#include <errno.h>
#include <string.h>

#include "monitor/job-types.h"

static const char *const sync_names[] = { "top", "full", "none", "incremental",
                                          "bitmap", NULL };
static const char *const bitmap_mode_names[] = { "on-success", "never",
                                                 "always", NULL };
static const char *const copy_mode_names[] = { "background", "write-blocking",
                                               NULL };
static const char *const on_error_names[] = { "report", "ignore", "enospc",
                                              "stop", "auto", NULL };
static const char *const cbw_error_names[] = { "break-guest-write",
                                               "break-snapshot", NULL };
QMP_ENUM_TYPE(sync_mode, "MirrorSyncMode", sync_names);
QMP_ENUM_TYPE(bitmap_mode, "BitmapSyncMode", bitmap_mode_names);
QMP_ENUM_TYPE(copy_mode, "MirrorCopyMode", copy_mode_names);
QMP_ENUM_TYPE(on_error, "BlockdevOnError", on_error_names);
QMP_ENUM_TYPE(on_cbw_error, "OnCbwError", cbw_error_names);

/* What all of them have. */
#define JOB_FIELDS                                                          \
    QMP_MAY("job-id", qmp_str, "name of the job; default: that of the node"), \
    QMP_MAY("speed", qmp_size, "bytes a second, 0: no limit"),              \
    QMP_MAY("filter-node-name", qmp_str, "name of the filter of the job"),  \
    QMP_MAY("auto-finalize", qmp_bool, "take effect without being told"),   \
    QMP_MAY("auto-dismiss", qmp_bool, "be forgotten when over")

/* What copies from node to node have. */
#define COPY_FIELDS                                                         \
    QMP_NEED("device", qmp_str, "node that is copied"),                     \
    QMP_NEED("target", qmp_str, "node that it is copied to"),               \
    QMP_NEED("sync", sync_mode, "what is copied"),                          \
    JOB_FIELDS

/* What jobs that change a chain have. */
#define CHAIN_FIELDS                                                        \
    QMP_MAY("backing-mask-protocol", qmp_bool,                              \
            "record the format raw for a protocol"),                        \
    QMP_MAY("on-error", on_error, "when a copy fails")

#define PERF_FIELDS                                                         \
    QMP_MAY("use-copy-range", qmp_bool, "have the kernel copy"),            \
    QMP_MAY("max-workers", qmp_int, "copies at once"),                      \
    QMP_MAY("max-chunk", qmp_size, "bytes of one copy"),                    \
    QMP_MAY("min-cluster-size", qmp_size, "bytes copied at least")

QMP_OBJECT_TYPE(backup_perf, "BackupPerf", PERF_FIELDS);

static const QmpField backup_fields[] = {
    COPY_FIELDS,
    QMP_MAY("bitmap", qmp_str, "dirty bitmap of the node"),
    QMP_MAY("bitmap-mode", bitmap_mode, "when the bitmap begins anew"),
    QMP_MAY("resume-bitmap", qmp_str, "what an interruption leaves undone"),
    QMP_MAY("compress", qmp_bool, "write compressed"),
    QMP_MAY("on-source-error", on_error, "when reading fails"),
    QMP_MAY("on-target-error", on_error, "when writing fails"),
    QMP_MAY("on-cbw-error", on_cbw_error, "when copying for a guest fails"),
    QMP_MAY("cbw-timeout", qmp_uint32, "seconds a guest waits at most"),
    QMP_MAY("discard-source", qmp_bool, "free what was copied"),
    QMP_MAY("staging-size", qmp_size, "memory for what guests overwrite"),
    PERF_FIELDS,
    QMP_MAY("x-perf", backup_perf,
            "the four above, where they are not given themselves"),
    { .name = NULL },
};

const QmpType qmp_backup_args = { .kind = QMP_OBJECT, .name = "BlockdevBackup",
                                  .fields = backup_fields };

QMP_OBJECT_TYPE(mirror_args, "q_obj_blockdev-mirror-arg",
                COPY_FIELDS,
                QMP_MAY("replaces", qmp_str,
                        "node whose place the target takes"),
                QMP_MAY("granularity", qmp_uint32, "of what is dirty"),
                QMP_MAY("buf-size", qmp_size, "memory of the job"),
                QMP_MAY("on-source-error", on_error, "when reading fails"),
                QMP_MAY("on-target-error", on_error, "when writing fails"),
                QMP_MAY("copy-mode", copy_mode, "whether guests wait"),
                QMP_MAY("target-is-zero", qmp_bool,
                        "the target reads as zero"),
                QMP_MAY("use-copy-range", qmp_bool, "have the kernel copy"));

QMP_OBJECT_TYPE(stream_args, "q_obj_block-stream-arg",
                QMP_NEED("device", qmp_str, "node that data is brought to"),
                JOB_FIELDS,
                QMP_MAY("base", qmp_str, "file name of the layer that stays"),
                QMP_MAY("base-node", qmp_str, "node of the layer that stays"),
                QMP_MAY("backing-file", qmp_str, "what the image records"),
                QMP_MAY("bottom", qmp_str, "node of the last layer that goes"),
                CHAIN_FIELDS);

QMP_OBJECT_TYPE(commit_args, "q_obj_block-commit-arg",
                QMP_NEED("device", qmp_str, "node at the top of the chain"),
                JOB_FIELDS,
                QMP_MAY("base-node", qmp_str, "layer that is written to"),
                QMP_MAY("base", qmp_str, "its file name"),
                QMP_MAY("top-node", qmp_str, "highest layer that goes"),
                QMP_MAY("top", qmp_str, "its file name"),
                QMP_MAY("backing-file", qmp_str, "what images above record"),
                CHAIN_FIELDS);

/* --- arguments to options ------------------------------------------------- */

/* "auto" is what a job without a device makes of it. */
static void resolve_auto(json_t *args, const char *key)
{
    const char *value = qmp_arg_str(args, key);

    if (value && g_str_equal(value, "auto")) {
        json_object_set_new(args, key, json_string("enospc"));
    }
}

void qmp_backup_options(json_t *args)
{
    json_t *perf = json_object_get(args, "x-perf");

    if (perf) {
        json_object_update_missing(args, perf);
        json_object_del(args, "x-perf");
    }
    resolve_auto(args, "on-source-error");
    resolve_auto(args, "on-target-error");
}

static BlockDriverState *below(BlockDriverState *bs)
{
    BdrvChild *child = bdrv_cow_child(bs);

    child = child ? child : bdrv_filter_child(bs);
    return child ? bdrv_child_bs(child) : NULL;
}

/* The layer under @device whose file is called @filename. */
static BlockDriverState *find_layer(BlockDriverState *device,
                                    const char *filename)
{
    for (BlockDriverState *bs = device; bs; bs = below(bs)) {
        if (g_str_equal(bdrv_filename(bs), filename)) {
            return bs;
        }
    }
    return NULL;
}

/*
 * A layer is named by its node (@node_key) or its file (@file_key), and the
 * job wants the node under @option.
 */
static int layer_option(const QmpCall *call, json_t *args,
                        const char *const keys[3], GError **errp)
{
    const char *node_key = keys[0], *file_key = keys[1], *option = keys[2];
    const char *filename = qmp_arg_str(args, file_key);
    json_t *node = json_object_get(args, node_key);
    BlockDriverState *device, *bs;

    if (node && filename) {
        return block_error(errp, EINVAL, "'%s' and '%s' cannot be specified "
                           "at the same time", node_key, file_key);
    }
    if (!filename) {
        if (node) {
            json_object_set(args, option, node);
            json_object_del(args, node_key);
        }
        return 0;
    }
    device = qmp_find_node(call, qmp_arg_str(args, "device"), errp);
    if (!device) {
        return -ENOENT;
    }
    bs = find_layer(device, filename);
    if (!bs) {
        return block_error(errp, ENOENT, "Can't find '%s' in the backing "
                           "chain", filename);
    }
    json_object_del(args, file_key);
    json_object_set_new(args, option, json_string(bdrv_node_name(bs)));
    return 0;
}

/* --- commands ------------------------------------------------------------- */

static json_t *coroutine_fn start(const QmpCall *call, BlockJobType type,
                                  const json_t *args, GError **errp)
{
    BlockOptions *options = qmp_arg_options(args, errp);
    BlockJob *job;

    if (!options) {
        return NULL;
    }
    job = block_co_job_start(call->graph, type, options, errp);
    block_job_unref(job);
    return job ? json_object() : NULL;
}

/* The nodes are looked up first, for the error that QEMU has. */
static bool nodes_exist(const QmpCall *call, const json_t *args, GError **errp)
{
    const char *target = qmp_arg_str(args, "target");

    return qmp_find_node(call, qmp_arg_str(args, "device"), errp) &&
           (!target || qmp_find_node(call, target, errp));
}

static json_t *coroutine_fn backup(const QmpCall *call, json_t *args,
                                   GError **errp)
{
    if (!nodes_exist(call, args, errp)) {
        return NULL;
    }
    qmp_backup_options(args);
    return start(call, BLOCK_JOB_BACKUP, args, errp);
}

static json_t *coroutine_fn mirror(const QmpCall *call, json_t *args,
                                   GError **errp)
{
    if (!nodes_exist(call, args, errp)) {
        return NULL;
    }
    resolve_auto(args, "on-source-error");
    resolve_auto(args, "on-target-error");
    return start(call, BLOCK_JOB_MIRROR, args, errp);
}

static json_t *coroutine_fn stream(const QmpCall *call, json_t *args,
                                   GError **errp)
{
    static const char *const base[] = { "base-node", "base", "base" };

    resolve_auto(args, "on-error");
    if (!nodes_exist(call, args, errp) ||
        layer_option(call, args, base, errp) < 0) {
        return NULL;
    }
    return start(call, BLOCK_JOB_STREAM, args, errp);
}

static json_t *coroutine_fn commit(const QmpCall *call, json_t *args,
                                   GError **errp)
{
    static const char *const base[] = { "base-node", "base", "base" };
    static const char *const top[] = { "top-node", "top", "top" };

    resolve_auto(args, "on-error");
    if (!nodes_exist(call, args, NULL)) {
        g_autofree char *safe = g_strescape(qmp_arg_str(args, "device"),
                                            "\"\\");

        /* Of all commands this one has another class, for ages. */
        g_set_error(errp, QMP_ERROR, QMP_ERROR_DEVICE_NOT_FOUND,
                    "Device '%s' not found", safe);
        return NULL;
    }
    if (layer_option(call, args, base, errp) < 0 ||
        layer_option(call, args, top, errp) < 0) {
        return NULL;
    }
    return start(call, BLOCK_JOB_COMMIT, args, errp);
}

const QmpCommand qmp_commands_job_start[] = {
    { "blockdev-backup", &qmp_backup_args, NULL, backup,
      "Start a job that copies the content of this moment" },
    { "blockdev-mirror", &mirror_args, NULL, mirror,
      "Start a job that makes two nodes the same and keeps them so" },
    { "block-stream", &stream_args, NULL, stream,
      "Start a job that brings data of lower layers to a layer" },
    { "block-commit", &commit_args, NULL, commit,
      "Start a job that brings data of layers to a lower one" },
    { .name = NULL },
};
