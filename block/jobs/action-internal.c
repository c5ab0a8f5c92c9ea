/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The action that makes a snapshot inside an image.
 *
 * Nothing runs at the node until the transaction ends, so to delete the
 * snapshot again leaves the disk as it was.
 */
#include "block/jobs/action.h"

#include <blockgraph/image.h>
#include <errno.h>

#define OPT(field) offsetof(ActionOptions, field)

static const BlockOption internal_options[] = {
    { .name = "device", .type = BLOCK_OPTION_STRING, .required = true,
      .offset = OPT(node), .help = "node of the image" },
    { .name = "name", .type = BLOCK_OPTION_STRING, .required = true,
      .offset = OPT(name), .help = "of the snapshot" },
    { .name = "date-sec", .type = BLOCK_OPTION_NUMBER, .def = "0",
      .max = UINT32_MAX, .offset = OPT(date_sec),
      .help = "when it is made, in seconds since 1970" },
    { .name = "date-nsec", .type = BLOCK_OPTION_NUMBER, .def = "0",
      .max = 999999999, .offset = OPT(date_nsec),
      .help = "and nanoseconds" },
    { .type = BLOCK_OPTION_END },
};

/* The id of the newest snapshot of that name in @ret, g_free(); NULL: there is
 * none. */
static int coroutine_fn find_id(ActionState *a, char **ret, GError **errp)
{
    GPtrArray *list = NULL;
    int code = bdrv_co_snapshot_list(a->bs, &list, errp);

    *ret = NULL;
    if (code < 0) {
        return code;
    }
    for (guint i = 0; i < list->len; i++) {
        const BdrvSnapshotInfo *info = g_ptr_array_index(list, i);

        if (g_str_equal(info->name, a->o.name)) {
            g_free(*ret);
            *ret = g_strdup(info->id);
        }
    }
    g_ptr_array_unref(list);
    return 0;
}

static int coroutine_fn check_name(ActionState *a, GError **errp)
{
    g_autofree char *id = NULL;
    int ret;

    if (!*a->o.name) {
        return block_error(errp, EINVAL, "Name is empty");
    }
    ret = find_id(a, &id, errp);
    if (ret == 0 && id) {
        ret = block_error(errp, EEXIST, "Snapshot with name '%s' already "
                          "exists on device '%s'", a->o.name, a->o.node);
    }
    return ret;
}

static int coroutine_fn internal_prepare(ActionState *a, GError **errp)
{
    BdrvSnapshotInfo info = { .icount = UINT64_MAX };
    int ret = action_parse(a, errp);

    ret = ret < 0 ? ret : check_name(a, errp);
    if (ret < 0) {
        return ret;
    }
    info.name = a->o.name;
    info.date_sec = a->o.date_sec;
    info.date_nsec = a->o.date_nsec;
    ret = bdrv_co_snapshot_create(a->bs, &info, errp);
    if (ret == 0) {
        find_id(a, &a->snapshot, NULL); /* else the name will do */
    }
    return ret;
}

static void coroutine_fn internal_abort(ActionState *a)
{
    g_autoptr(GError) error = NULL;

    if (bdrv_co_snapshot_delete(a->bs, a->snapshot, a->o.name, &error) < 0) {
        g_warning("Node '%s' keeps the snapshot '%s' of a transaction that "
                  "has failed: %s", a->o.node, a->o.name, error->message);
    }
}

const ActionDriver action_snapshot_internal = {
    .options = internal_options,
    .node_key = "device",
    .prepare = internal_prepare,
    .abort = internal_abort,
};
