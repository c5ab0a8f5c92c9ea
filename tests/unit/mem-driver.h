/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * "mem": a disk in memory that tests can look into and make fail.
 *
 * Options: size; align (request alignment); mem-align; max-transfer; max-iov;
 * zero, discard (off: -ENOTSUP); zero-align; discard-align; fua (off: emulated
 * by the core); grow (writes may pass the end); "backing" (a child, role COW:
 * 4 KiB clusters that were never written show it).
 */
#ifndef TESTS_UNIT_MEM_DRIVER_H
#define TESTS_UNIT_MEM_DRIVER_H

#include <blockgraph/driver.h>
#include <stdatomic.h>

#include "util/lock.h"

/** Cluster of the allocation map of a mem node, in bytes. */
#define MEM_CLUSTER 4096

typedef enum MemOp {
    MEM_READ,
    MEM_WRITE,
    MEM_ZERO,
    MEM_DISCARD,
    MEM_FLUSH,
    MEM_TRUNCATE,
    MEM_OPS,
} MemOp;

/** The last request of each kind that reached the driver. */
typedef struct MemRequest {
    int64_t offset;
    int64_t bytes;
    unsigned flags;
    int niov;
} MemRequest;

typedef struct MemDisk {
    Lock lock;

    /* Guarded by @lock. */
    uint8_t *data;
    bool *allocated; /* by cluster */
    int64_t length;
    int64_t capacity;
    int fail[MEM_OPS];       /* errno for the next one; 0 = none */
    unsigned pass[MEM_OPS];  /* so many more pass before it */
    int fail_forever[MEM_OPS];
    unsigned count[MEM_OPS];
    MemRequest last[MEM_OPS];

    /* Requests of this kind wait in the driver while set; any thread. */
    _Atomic bool hold[MEM_OPS];
    _Atomic unsigned held;

    /* The next request of this kind waits, alone, while @caught; any thread. */
    _Atomic bool catch_next[MEM_OPS];
    _Atomic bool caught;

    /* Whether expect_read has anything to do, and how often it had; any
     * thread. */
    _Atomic bool expects;
    _Atomic unsigned told;

    /* Set by open. */
    int64_t align, mem_align, max_transfer, max_iov, zero_align,
        discard_align;
    bool zero, discard, fua, grow;
} MemDisk;

/** The disk of a mem node. */
MemDisk *mem_disk(BlockDriverState *bs);

/** How many requests have reached the driver so far. */
unsigned mem_total(MemDisk *disk);

/** Register the driver "mem"; before any test runs. */
void mem_register(void);

/** Register "copymem", too: the same, and copies from one to another work. */
void mem_register_copying(void);

/** Register "clustermem", too: the same, and it tells its clusters, so it can be
 * a target that has a backing file. */
void mem_register_clustered(void);

#endif /* TESTS_UNIT_MEM_DRIVER_H */
