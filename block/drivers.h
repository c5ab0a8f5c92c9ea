/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The drivers that come with the library: one line each in the list below.
 */
#ifndef BLOCK_DRIVERS_H
#define BLOCK_DRIVERS_H

#include <blockgraph/driver.h>

/** Calls @X with the C name of each driver's table, block_driver_NAME. */
#define BLOCK_DRIVERS(X)                                                      \
    X(blkdebug)                                                               \
    X(blklogwrites)                                                           \
    X(commit_top)                                                             \
    X(copy_before_write)                                                      \
    X(copy_on_read)                                                           \
    X(file)                                                                   \
    X(mirror_top)                                                             \
    X(nbd)                                                                    \
    X(null_co)                                                                \
    X(qcow2)                                                                  \
    X(raw)                                                                    \
    X(snapshot_access)                                                        \
    X(throttle)

#define BLOCK_DRIVER_DECLARE(name) extern const BlockDriver block_driver_##name;
BLOCK_DRIVERS(BLOCK_DRIVER_DECLARE)

#endif /* BLOCK_DRIVERS_H */
