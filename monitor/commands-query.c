/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Commands that describe nodes and the graph.
 */
#include "monitor/qmp-server.h"

#include <blockgraph/dirty-bitmap.h>
#include <blockgraph/driver.h>
#include <blockgraph/export.h>

#include "monitor/node-types.h"
#include "monitor/qmp-json.h"

/* A chain is no longer than a graph is high. */
#define CHAIN_MAX 64

static BlockDriverState *backing_of(BlockDriverState *bs)
{
    BdrvChild *child = bdrv_cow_child(bdrv_skip_filters(bs));

    return child ? bdrv_child_bs(child) : NULL;
}

/* --- ImageInfo ------------------------------------------------------------ */

static char *full_name(const char *image, const char *name)
{
    g_autofree char *dir = NULL;

    if (g_path_is_absolute(name)) {
        return g_strdup(name);
    }
    dir = g_path_get_dirname(image);
    return g_str_equal(dir, ".") && !g_str_has_prefix(image, "./")
               ? g_strdup(name)
               : g_build_filename(dir, name, NULL);
}

static void add_backing_name(json_t *json, BlockDriverState *bs)
{
    g_autofree char *file = NULL;
    g_autofree char *format = NULL;
    g_autofree char *full = NULL;

    if (bdrv_get_backing_name(bs, &file, &format) < 0 || !file) {
        return;
    }
    full = full_name(bdrv_filename(bs), file);
    json_object_set_new(json, "backing-filename", qmp_json_string(file));
    json_object_set_new(json, "full-backing-filename", qmp_json_string(full));
    if (format) {
        json_object_set_new(json, "backing-filename-format",
                            qmp_json_string(format));
    }
}

static void coroutine_fn add_snapshots(json_t *json, BlockDriverState *bs)
{
    GPtrArray *list = NULL;
    json_t *snapshots;

    if (bdrv_co_snapshot_list(bs, &list, NULL) < 0) {
        return;
    }
    snapshots = json_array();
    for (guint i = 0; i < list->len; i++) {
        json_array_append_new(snapshots,
                              qmp_snapshot_json(g_ptr_array_index(list, i)));
    }
    if (list->len > 0) {
        json_object_set(json, "snapshots", snapshots);
    }
    json_decref(snapshots);
    g_ptr_array_unref(list);
}

static json_t *coroutine_fn image_json(BlockDriverState *bs)
{
    BlockDriverInfo info = { 0 };
    BlockOptions *specific = NULL;
    int64_t allocated = bdrv_co_get_allocated_size(bs);
    json_t *json = json_pack("{s:I, s:o, s:s}", "virtual-size",
                             (json_int_t)bdrv_length(bs), "filename",
                             qmp_json_string(bdrv_filename(bs)), "format",
                             bdrv_driver_name(bs));

    if (allocated >= 0) {
        json_object_set_new(json, "actual-size", json_integer(allocated));
    }
    if (bdrv_get_info(bs, &info) == 0) {
        json_object_set_new(json, "dirty-flag", json_boolean(info.is_dirty));
    }
    if (info.cluster_bytes) {
        json_object_set_new(json, "cluster-size",
                            json_integer(info.cluster_bytes));
    }
    add_backing_name(json, bs);
    add_snapshots(json, bs);
    if (bdrv_co_get_specific_info(bs, &specific, NULL) == 0) {
        json_object_set_new(json, "format-specific",
                            qmp_json_from_options(specific));
    }
    return json;
}

/* The image of @bs, with those below it in "backing-image" if @deep. */
static json_t *coroutine_fn image_chain_json(BlockDriverState *bs, bool deep)
{
    json_t *top = image_json(bs);
    json_t *last = top;
    int depth = 0;

    bdrv_ref(bs);
    while (deep && depth++ < CHAIN_MAX) {
        BlockDriverState *next = backing_of(bs);
        json_t *json;

        if (!next) {
            break;
        }
        bdrv_ref(next);
        bdrv_co_unref(bs);
        bs = next;
        json = image_json(bs);
        json_object_set_new(last, "backing-image", json);
        last = json;
    }
    bdrv_co_unref(bs);
    return top;
}

/* --- BlockDeviceInfo ------------------------------------------------------ */

static json_t *bitmap_json(BdrvDirtyBitmap *bitmap)
{
    bool inconsistent = bdrv_dirty_bitmap_inconsistent(bitmap);
    const char *name = bdrv_dirty_bitmap_name(bitmap);
    json_t *json = json_pack(
        "{s:I, s:I, s:b, s:b, s:b}", "count",
        (json_int_t)(inconsistent ? 0 : bdrv_get_dirty_count(bitmap)),
        "granularity", (json_int_t)bdrv_dirty_bitmap_granularity(bitmap),
        "recording", !inconsistent && bdrv_dirty_bitmap_enabled(bitmap),
        "busy", bdrv_dirty_bitmap_busy(bitmap), "persistent",
        bdrv_dirty_bitmap_persistent(bitmap));

    if (name) {
        json_object_set_new(json, "name", qmp_json_string(name));
    }
    if (inconsistent) {
        json_object_set_new(json, "inconsistent", json_true());
    }
    return json;
}

static void add_bitmaps(json_t *json, BlockDriverState *bs)
{
    json_t *list = json_array();

    for (BdrvDirtyBitmap *b = NULL; (b = bdrv_dirty_bitmap_next(bs, b));) {
        json_array_append_new(list, bitmap_json(b));
    }
    if (json_array_size(list) > 0) {
        json_object_set(json, "dirty-bitmaps", list);
    }
    json_decref(list);
}

static int backing_depth(BlockDriverState *bs)
{
    int depth = 0;

    while (depth < CHAIN_MAX && (bs = backing_of(bs))) {
        depth++;
    }
    return depth;
}

static bool add_child(BdrvChild *child, void *opaque)
{
    json_array_append_new(
        opaque, json_pack("{s:s, s:s}", "child", bdrv_child_name(child),
                          "node-name", bdrv_node_name(bdrv_child_bs(child))));
    return true;
}

static void add_facts(json_t *json, BlockDriverState *bs)
{
    unsigned flags = bdrv_open_flags(bs);
    BlockOptions *options = bdrv_get_options(bs);
    const char *detect = block_options_peek_str(options, "detect-zeroes");
    json_t *children = json_array();

    json_object_set_new(json, "detect_zeroes",
                        json_string(detect ? detect : "off"));
    block_options_free(options);
    bdrv_foreach_child(bs, add_child, children);
    json_object_set_new(json, "children", children);
    json_object_set_new(json, "cache",
                        json_pack("{s:b, s:b, s:b}", "writeback", 1, "direct",
                                  (flags & BDRV_O_NOCACHE) != 0, "no-flush",
                                  (flags & BDRV_O_NO_FLUSH) != 0));
    add_bitmaps(json, bs);
}

static json_t *coroutine_fn node_json(BlockDriverState *bs, bool flat)
{
    g_autofree char *backing = NULL;
    g_autofree char *format = NULL;
    json_t *json = json_pack(
        "{s:o, s:s, s:b, s:s, s:i, s:b, s:i, s:i, s:i, s:i, s:i, s:i, s:I}",
        "file", qmp_json_string(bdrv_filename(bs)), "node-name",
        bdrv_node_name(bs), "ro", bdrv_is_read_only(bs), "drv",
        bdrv_driver_name(bs), "backing_file_depth", backing_depth(bs),
        "encrypted", 0, "bps", 0, "bps_rd", 0, "bps_wr", 0, "iops", 0,
        "iops_rd", 0, "iops_wr", 0, "write_threshold",
        (json_int_t)bdrv_write_threshold(bs));

    bdrv_get_backing_name(bs, &backing, &format);
    if (!backing && bdrv_cow_child(bs)) {
        backing = g_strdup(bdrv_filename(bdrv_child_bs(bdrv_cow_child(bs))));
    }
    if (backing) {
        json_object_set_new(json, "backing_file", qmp_json_string(backing));
    }
    add_facts(json, bs);
    json_object_set_new(json, "image", image_chain_json(bs, !flat));
    return json;
}

QMP_OBJECT_TYPE(nodes_args, "q_obj_query-named-block-nodes-arg",
                QMP_MAY("flat", qmp_bool, "leave the images below out"));

/* All nodes, each with a reference: describing one yields. */
static GPtrArray *all_nodes(BlockGraph *graph)
{
    GPtrArray *nodes = g_ptr_array_new();

    for (BlockDriverState *bs = NULL; (bs = bdrv_next_node(graph, bs));) {
        g_ptr_array_add(nodes, bdrv_ref(bs));
    }
    return nodes;
}

static json_t *coroutine_fn query_nodes(const QmpCall *call, json_t *args,
                                        GError **errp)
{
    bool flat = qmp_arg_bool(args, "flat", false);
    g_autoptr(GPtrArray) nodes = all_nodes(call->graph);
    json_t *list = json_array();

    /* The newest first, as QEMU has them. */
    for (guint i = nodes->len; i > 0; i--) {
        BlockDriverState *bs = g_ptr_array_index(nodes, i - 1);

        json_array_append_new(list, node_json(bs, flat));
        bdrv_co_unref(bs);
    }
    return list;
}

/* --- devices: there are none ---------------------------------------------- */

static json_t *query_block(const QmpCall *call, json_t *args, GError **errp)
{
    return json_array();
}

/* --- statistics ----------------------------------------------------------- */

QMP_OBJECT_TYPE(stats_args, "q_obj_query-blockstats-arg",
                QMP_MAY("query-nodes", qmp_bool,
                        "of all nodes, without those they are backed by; else "
                        "of exports"));

static void set_int(json_t *json, const char *prefix, const char *name,
                    uint64_t value)
{
    g_autofree char *key = g_strconcat(prefix, name, NULL);

    json_object_set_new(json, key, json_integer(value));
}

static void add_operation(json_t *json, const char *name,
                          const BlockAcctStats *stats)
{
    g_autofree char *operations = g_strconcat(name, "_operations", NULL);

    set_int(json, "", operations, stats->operations);
    set_int(json, "failed_", operations, stats->failed);
    set_int(json, "invalid_", operations, stats->invalid);
    set_int(json, name, "_total_time_ns", stats->total_ns);
    if (!g_str_equal(name, "flush")) {
        set_int(json, name, "_bytes", stats->bytes);
        set_int(json, name, "_merged", 0); /* no request is ever merged */
    }
}

/* Zero writes are writes here, for QEMU counts them so. */
static void add_writes(json_t *json, BlockBackend *blk)
{
    BlockAcctStats writes = { 0 }, zeroes = { 0 };

    if (blk) {
        blk_get_stats(blk, BLOCK_ACCT_WRITE, &writes);
        blk_get_stats(blk, BLOCK_ACCT_ZERO, &zeroes);
    }
    writes.operations += zeroes.operations;
    writes.bytes += zeroes.bytes;
    writes.failed += zeroes.failed;
    writes.invalid += zeroes.invalid;
    writes.total_ns += zeroes.total_ns;
    add_operation(json, "wr", &writes);
}

/* Of the requests of @blk; NULL: none are counted. */
static json_t *counts_json(BlockBackend *blk, BlockDriverState *bs)
{
    static const struct {
        const char *name;
        BlockAcctType type;
    } kinds[] = {
        { "rd", BLOCK_ACCT_READ },
        { "unmap", BLOCK_ACCT_UNMAP },
        { "flush", BLOCK_ACCT_FLUSH },
    };
    /* The times of failed requests are in the sums, those of invalid ones are
     * not. */
    json_t *json = json_pack("{s:b, s:b, s:[], s:I}", "account_invalid", 0,
                             "account_failed", blk != NULL, "timed_stats",
                             "wr_highest_offset",
                             (json_int_t)bdrv_highest_write(bs));

    add_writes(json, blk);
    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
        BlockAcctStats stats = { 0 };

        if (blk) {
            blk_get_stats(blk, kinds[i].type, &stats);
        }
        add_operation(json, kinds[i].name, &stats);
    }
    return json;
}

/*
 * Of @bs, with the node under it that holds its data, and (@backing) the one
 * that it is backed by.  Nodes know how far they were written; requests are
 * counted by who sends them, @blk.
 */
static json_t *stats_json(BlockBackend *blk, BlockDriverState *bs,
                          bool backing)
{
    json_t *json = json_pack("{s:s, s:o}", "node-name", bdrv_node_name(bs),
                             "stats", counts_json(blk, bs));
    BdrvChild *primary = bdrv_primary_child(bs);
    BdrvChild *below = backing ? bdrv_cow_child(bs) : NULL;

    if (primary) {
        json_object_set_new(json, "parent",
                            stats_json(NULL, bdrv_child_bs(primary), backing));
    }
    if (below) {
        json_object_set_new(json, "backing",
                            stats_json(NULL, bdrv_child_bs(below), backing));
    }
    return json;
}

static json_t *export_stats_json(BlockExport *export)
{
    BlockBackend *blk = blk_exp_backend(export);
    json_t *json = stats_json(blk, blk_bs(blk), true);
    BlockExportInfo info;

    blk_exp_query(export, &info);
    json_object_set_new(json, "device", json_string(""));
    json_object_set_new(json, "qdev", qmp_json_string(info.id));
    return json;
}

static json_t *query_blockstats(const QmpCall *call, json_t *args,
                                GError **errp)
{
    json_t *list = json_array();

    if (qmp_arg_bool(args, "query-nodes", false)) {
        BlockDriverState *bs = NULL;

        while ((bs = bdrv_next_node(call->graph, bs))) {
            json_array_append_new(list, stats_json(NULL, bs, false));
        }
    } else {
        BlockExport *export = NULL;

        while ((export = blk_exp_next(call->graph, export))) {
            if (blk_bs(blk_exp_backend(export))) {
                json_array_append_new(list, export_stats_json(export));
            }
        }
    }
    return list;
}

/* --- the graph ------------------------------------------------------------ */

/* The number of the node called @name. */
static int node_id(const json_t *nodes, const char *name)
{
    const json_t *node;
    size_t i;

    json_array_foreach(nodes, i, node) {
        if (g_str_equal(qmp_arg_str(node, "node-name"), name)) {
            return i + 1;
        }
    }
    return 0;
}

static void add_edge(json_t *edges, int parent, int child, const char *name,
                     const json_t *perms)
{
    json_array_append_new(
        edges, json_pack("{s:i, s:i, s:s, s:O, s:O}", "parent", parent,
                         "child", child, "name", name, "perm",
                         json_object_get(perms, "perm"), "shared-perm",
                         json_object_get(perms, "shared-perm")));
}

static void add_node(json_t *graph, const json_t *dump, size_t index)
{
    const json_t *all = json_object_get(dump, "nodes");
    const json_t *node = json_array_get(all, index);
    const json_t *child;
    size_t i;

    json_array_append_new(json_object_get(graph, "nodes"),
                          json_pack("{s:i, s:s, s:O}", "id", (int)index + 1,
                                    "type", "block-driver", "name",
                                    json_object_get(node, "node-name")));
    json_array_foreach(json_object_get(node, "children"), i, child) {
        add_edge(json_object_get(graph, "edges"), index + 1,
                 node_id(all, qmp_arg_str(child, "node-name")),
                 qmp_arg_str(child, "name"), child);
    }
}

static void add_root(json_t *graph, const json_t *dump, size_t index)
{
    const json_t *all = json_object_get(dump, "nodes");
    const json_t *root = json_array_get(json_object_get(dump, "roots"), index);
    int id = json_array_size(all) + index + 1;
    const char *node = qmp_arg_str(root, "node-name");

    json_array_append_new(json_object_get(graph, "nodes"),
                          json_pack("{s:i, s:s, s:O}", "id", id, "type",
                                    "block-backend", "name",
                                    json_object_get(root, "name")));
    if (node) {
        add_edge(json_object_get(graph, "edges"), id, node_id(all, node),
                 "root", root);
    }
}

static json_t *query_graph(const QmpCall *call, json_t *args, GError **errp)
{
    g_autofree char *text = block_graph_dump(call->graph);
    json_t *dump = json_loads(text, 0, NULL);
    json_t *graph = json_pack("{s:[], s:[]}", "nodes", "edges");

    for (size_t i = 0; i < json_array_size(json_object_get(dump, "nodes"));
         i++) {
        add_node(graph, dump, i);
    }
    for (size_t i = 0; i < json_array_size(json_object_get(dump, "roots"));
         i++) {
        add_root(graph, dump, i);
    }
    json_decref(dump);
    return graph;
}

const QmpCommand qmp_commands_query[] = {
    { "query-named-block-nodes", &nodes_args, &qmp_node_info_list, query_nodes,
      "All nodes" },
    { "query-block", NULL, &qmp_device_info_list, query_block,
      "All devices: there are none" },
    { "query-blockstats", &stats_args, &qmp_stats_list, query_blockstats,
      "Statistics of exports or of nodes" },
    { "x-debug-query-block-graph", NULL, &qmp_graph_info, query_graph,
      "Nodes, edges and permissions" },
    { .name = NULL },
};
