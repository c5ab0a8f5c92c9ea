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

#include "block/graph/graph-int.h"

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

static int coroutine_fn internal_prepare(ActionState *a, GError **errp)
{
    BdrvSnapshotInfo info = { .icount = UINT64_MAX };
    int ret = action_parse(a, errp);

    if (ret < 0) {
        return ret;
    }
    if (!*a->o.name) {
        return block_error(errp, EINVAL, "Name is empty");
    }
    info.name = a->o.name;
    info.date_sec = a->o.date_sec;
    info.date_nsec = a->o.date_nsec;
    return graph_snapshot_create_new(a->bs, &info, &a->snapshot, errp);
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
