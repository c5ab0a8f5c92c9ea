/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The types of what queries tell of nodes.
 */
#include "monitor/node-types.h"

#define INT(name) QMP_NEED(name, qmp_int, NULL)

/* --- images --------------------------------------------------------------- */

static const QmpField snapshot_fields[] = {
    QMP_NEED("id", qmp_str, NULL), QMP_NEED("name", qmp_str, NULL),
    INT("vm-state-size"), INT("date-sec"), INT("date-nsec"),
    INT("vm-clock-sec"), INT("vm-clock-nsec"), QMP_MAY("icount", qmp_int, NULL),
    { .name = NULL },
};
const QmpType qmp_snapshot_info = { .kind = QMP_OBJECT, .name = "SnapshotInfo",
                                    .fields = snapshot_fields };
QMP_ARRAY_TYPE(snapshot_list, qmp_snapshot_info);

static const QmpType image_info;
QMP_OBJECT_TYPE(specific_info, "ImageInfoSpecific",
                QMP_NEED("type", qmp_str, NULL),
                QMP_NEED("data", qmp_any, NULL));

static const QmpField image_fields[] = {
    QMP_NEED("filename", qmp_str, NULL),
    QMP_NEED("format", qmp_str, NULL),
    QMP_MAY("dirty-flag", qmp_bool, NULL),
    QMP_MAY("actual-size", qmp_int, NULL),
    INT("virtual-size"),
    QMP_MAY("cluster-size", qmp_int, NULL),
    QMP_MAY("encrypted", qmp_bool, NULL),
    QMP_MAY("compressed", qmp_bool, NULL),
    QMP_MAY("backing-filename", qmp_str, NULL),
    QMP_MAY("full-backing-filename", qmp_str, NULL),
    QMP_MAY("backing-filename-format", qmp_str, NULL),
    QMP_MAY("snapshots", snapshot_list, NULL),
    QMP_MAY("backing-image", image_info, NULL),
    QMP_MAY("format-specific", specific_info, NULL),
    { .name = NULL },
};
static const QmpType image_info = { .kind = QMP_OBJECT, .name = "ImageInfo",
                                    .fields = image_fields };

/* --- nodes ---------------------------------------------------------------- */

static const char *const detect_names[] = { "off", "on", "unmap", NULL };
QMP_ENUM_TYPE(detect_zeroes, "BlockdevDetectZeroesOptions", detect_names);
QMP_OBJECT_TYPE(cache_info, "BlockdevCacheInfo",
                QMP_NEED("writeback", qmp_bool, NULL),
                QMP_NEED("direct", qmp_bool, NULL),
                QMP_NEED("no-flush", qmp_bool, NULL));
QMP_OBJECT_TYPE(bitmap_info, "BlockDirtyInfo",
                QMP_MAY("name", qmp_str, NULL),
                INT("count"), INT("granularity"),
                QMP_NEED("recording", qmp_bool, NULL),
                QMP_NEED("busy", qmp_bool, NULL),
                QMP_NEED("persistent", qmp_bool, NULL),
                QMP_MAY("inconsistent", qmp_bool, NULL));
QMP_ARRAY_TYPE(bitmap_list, bitmap_info);
QMP_OBJECT_TYPE(child_info, "BlockdevChild",
                QMP_NEED("child", qmp_str, NULL),
                QMP_NEED("node-name", qmp_str, NULL));
QMP_ARRAY_TYPE(child_list, child_info);

QMP_OBJECT_TYPE(node_info, "BlockDeviceInfo",
                QMP_NEED("file", qmp_str, NULL),
                QMP_MAY("node-name", qmp_str, NULL),
                QMP_NEED("ro", qmp_bool, NULL),
                QMP_NEED("drv", qmp_str, NULL),
                QMP_MAY("backing_file", qmp_str, NULL),
                INT("backing_file_depth"),
                QMP_NEED("children", child_list, NULL),
                QMP_NEED("encrypted", qmp_bool, NULL),
                QMP_NEED("detect_zeroes", detect_zeroes, NULL),
                INT("bps"), INT("bps_rd"), INT("bps_wr"),
                INT("iops"), INT("iops_rd"), INT("iops_wr"),
                QMP_NEED("image", image_info, NULL),
                QMP_NEED("cache", cache_info, NULL),
                INT("write_threshold"),
                QMP_MAY("dirty-bitmaps", bitmap_list, NULL));
const QmpType qmp_node_info_list = { .kind = QMP_ARRAY,
                                     .element = &node_info };

QMP_OBJECT_TYPE(device_info, "BlockInfo",
                QMP_NEED("device", qmp_str, NULL),
                QMP_NEED("type", qmp_str, NULL),
                QMP_NEED("removable", qmp_bool, NULL),
                QMP_NEED("locked", qmp_bool, NULL),
                QMP_MAY("inserted", node_info, NULL));
const QmpType qmp_device_info_list = { .kind = QMP_ARRAY,
                                       .element = &device_info };

/* --- statistics ----------------------------------------------------------- */

QMP_ARRAY_TYPE(any_list, qmp_any);
QMP_OBJECT_TYPE(device_stats, "BlockDeviceStats",
                INT("rd_bytes"), INT("wr_bytes"), INT("unmap_bytes"),
                INT("rd_operations"), INT("wr_operations"),
                INT("flush_operations"), INT("unmap_operations"),
                INT("rd_total_time_ns"), INT("wr_total_time_ns"),
                INT("flush_total_time_ns"), INT("unmap_total_time_ns"),
                INT("wr_highest_offset"), INT("rd_merged"), INT("wr_merged"),
                INT("unmap_merged"), INT("failed_rd_operations"),
                INT("failed_wr_operations"), INT("failed_flush_operations"),
                INT("failed_unmap_operations"), INT("invalid_rd_operations"),
                INT("invalid_wr_operations"), INT("invalid_flush_operations"),
                INT("invalid_unmap_operations"),
                QMP_NEED("account_invalid", qmp_bool, NULL),
                QMP_NEED("account_failed", qmp_bool, NULL),
                QMP_NEED("timed_stats", any_list, NULL));

static const QmpType stats;
static const QmpField stats_fields[] = {
    QMP_MAY("device", qmp_str, "empty"),
    QMP_MAY("qdev", qmp_str, "id of the export"),
    QMP_MAY("node-name", qmp_str, NULL),
    QMP_NEED("stats", device_stats, NULL),
    QMP_MAY("parent", stats, NULL),
    QMP_MAY("backing", stats, NULL),
    { .name = NULL },
};
static const QmpType stats = { .kind = QMP_OBJECT, .name = "BlockStats",
                               .fields = stats_fields };
const QmpType qmp_stats_list = { .kind = QMP_ARRAY, .element = &stats };

/* --- the graph ------------------------------------------------------------ */

static const char *const node_kind_names[] = { "block-backend", "block-job",
                                               "block-driver", NULL };
static const char *const perm_names[] = { "consistent-read", "write",
                                          "write-unchanged", "resize", NULL };
QMP_ENUM_TYPE(node_kind, "XDbgBlockGraphNodeType", node_kind_names);
QMP_ENUM_TYPE(perm, "BlockPermission", perm_names);
QMP_ARRAY_TYPE(perm_list, perm);
QMP_OBJECT_TYPE(graph_node, "XDbgBlockGraphNode",
                INT("id"), QMP_NEED("type", node_kind, NULL),
                QMP_NEED("name", qmp_str, NULL));
QMP_ARRAY_TYPE(graph_nodes, graph_node);
QMP_OBJECT_TYPE(graph_edge, "XDbgBlockGraphEdge",
                INT("parent"), INT("child"), QMP_NEED("name", qmp_str, NULL),
                QMP_NEED("perm", perm_list, NULL),
                QMP_NEED("shared-perm", perm_list, NULL));
QMP_ARRAY_TYPE(graph_edges, graph_edge);

static const QmpField graph_fields[] = {
    QMP_NEED("nodes", graph_nodes, NULL),
    QMP_NEED("edges", graph_edges, NULL),
    { .name = NULL },
};
const QmpType qmp_graph_info = { .kind = QMP_OBJECT,
                                 .name = "XDbgBlockGraph",
                                 .fields = graph_fields };
