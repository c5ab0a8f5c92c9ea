/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The types of what queries tell of nodes.
 */
#ifndef MONITOR_NODE_TYPES_H
#define MONITOR_NODE_TYPES_H

#include "monitor/qmp-type.h"

G_BEGIN_DECLS

/** Lists of BlockDeviceInfo, BlockInfo and BlockStats; and the graph. */
extern const QmpType qmp_node_info_list, qmp_device_info_list;
extern const QmpType qmp_stats_list, qmp_graph_info;

/** SnapshotInfo. */
extern const QmpType qmp_snapshot_info;

G_END_DECLS

#endif /* MONITOR_NODE_TYPES_H */
