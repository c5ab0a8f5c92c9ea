/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the commands share.
 */
#include "monitor/qmp-command.h"

#include <errno.h>

#include "monitor/qmp-json.h"

G_DEFINE_QUARK(blockgraph-qmp-error-quark, qmp_error)

const char *qmp_arg_str(const json_t *args, const char *name)
{
    return json_string_value(json_object_get(args, name));
}

int64_t qmp_arg_int(const json_t *args, const char *name, int64_t def)
{
    const json_t *value = json_object_get(args, name);

    return value ? json_integer_value(value) : def;
}

bool qmp_arg_bool(const json_t *args, const char *name, bool def)
{
    const json_t *value = json_object_get(args, name);

    return value ? json_is_true(value) : def;
}

BlockOptions *qmp_arg_options(const json_t *args, GError **errp)
{
    g_autofree char *text = qmp_json_text(args);

    return block_options_parse_json(text, errp);
}

json_t *qmp_json_from_options(BlockOptions *options)
{
    g_autofree char *text = block_options_to_json(options);

    block_options_free(options);
    return json_loads(text, 0, NULL);
}

BlockDriverState *qmp_find_node(const QmpCall *call, const char *name,
                                GError **errp)
{
    BlockDriverState *bs = bdrv_find_node(call->graph, name);

    if (!bs) {
        block_error(errp, ENOENT, "Cannot find device='%s' nor node-name='%s'",
                    name, name);
    }
    return bs;
}

json_t *qmp_done(int ret)
{
    return ret < 0 ? NULL : json_object();
}

json_t *qmp_snapshot_json(const BdrvSnapshotInfo *s)
{
    json_t *json = json_pack(
        "{s:o, s:o, s:I, s:I, s:I, s:I, s:I}",
        "id", qmp_json_string(s->id), "name", qmp_json_string(s->name),
        "vm-state-size", (json_int_t)s->vm_state_bytes,
        "date-sec", (json_int_t)s->date_sec,
        "date-nsec", (json_int_t)s->date_nsec,
        "vm-clock-sec", (json_int_t)(s->vm_clock_ns / 1000000000),
        "vm-clock-nsec", (json_int_t)(s->vm_clock_ns % 1000000000));

    if (s->icount != UINT64_MAX) {
        json_object_set_new(json, "icount", json_integer(s->icount));
    }
    return json;
}
