/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The drivers that come with the library.
 */
#ifndef BLOCK_GRAPH_DRIVER_LIST_H
#define BLOCK_GRAPH_DRIVER_LIST_H

#include <blockgraph/common.h>

/** All drivers of the library, closed by NULL; see block/drivers.h. */
extern const BlockDriver *const block_driver_list[];

#endif /* BLOCK_GRAPH_DRIVER_LIST_H */
