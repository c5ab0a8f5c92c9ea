/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The drivers that come with the library, as the graph finds them.
 */
#include "block/drivers.h"

#include "block/graph/driver-list.h"

#define BLOCK_DRIVER_LIST(name) &block_driver_##name,
const BlockDriver *const block_driver_list[] = {
    BLOCK_DRIVERS(BLOCK_DRIVER_LIST) NULL
};
