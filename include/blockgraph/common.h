/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What every installed header needs: export marks, context marks, limits.
 */
#ifndef BLOCKGRAPH_COMMON_H
#define BLOCKGRAPH_COMMON_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

/** Marks what the shared library exports; everything else is hidden. */
#define BLOCK_API __attribute__((visibility("default")))

/**
 * Marks a function that may yield: call it only from inside a coroutine, that
 * is from another function with this mark.  Checked by scripts/tidy.py.
 */
#define coroutine_fn

/** Largest length of a node and largest end of a request, in bytes. */
#define BDRV_MAX_LENGTH (INT64_MAX & ~(int64_t)(BDRV_MAX_ALIGNMENT - 1))

/** Largest request alignment that a node may ask for, in bytes. */
#define BDRV_MAX_ALIGNMENT (1 << 30)

/** Largest length of one data-carrying request, in bytes. */
#define BDRV_REQUEST_MAX_BYTES ((int64_t)0x7ffffe00)

/** Longest node name, in bytes without the closing NUL. */
#define BDRV_NODE_NAME_MAX 63

typedef struct AioContext AioContext;
typedef struct BdrvChild BdrvChild;
typedef struct BlockBackend BlockBackend;
typedef struct BlockDriver BlockDriver;
typedef struct BlockDriverState BlockDriverState;
typedef struct BlockGraph BlockGraph;
typedef struct BlockOptions BlockOptions;
typedef struct Coroutine Coroutine;

/**
 * How a request is to be done.  One meaning in all drivers; a flag that a
 * driver does not take is emulated (FUA) or refused with -ENOTSUP, never
 * dropped.
 */
typedef enum BdrvRequestFlags {
    /** Write: on stable storage when the call returns. */
    BDRV_REQ_FUA = 1 << 0,
    /** Zero write: the range may be deallocated if it then reads as zero. */
    BDRV_REQ_MAY_UNMAP = 1 << 1,
    /** Write: the data is all zero (set by the core on zero writes). */
    BDRV_REQ_ZERO_WRITE = 1 << 2,
    /** Zero write: fail with -ENOTSUP rather than write a buffer of zeroes. */
    BDRV_REQ_NO_FALLBACK = 1 << 3,
    /** Read: fill caches on the way, do not return the data (an iovec stays as
     * it is).  Where the read copies, too, it brings the data to the node. */
    BDRV_REQ_PREFETCH = 1 << 4,
    /** Wait for overlapping requests, hold later ones off until done. */
    BDRV_REQ_SERIALISING = 1 << 5,
    /** With SERIALISING: return -EBUSY rather than wait. */
    BDRV_REQ_NO_WAIT = 1 << 6,
    /** Write: the visible content does not change (stream, rebase). */
    BDRV_REQ_WRITE_UNCHANGED = 1 << 7,
    /** Write: store compressed; -ENOTSUP where the format cannot. */
    BDRV_REQ_WRITE_COMPRESSED = 1 << 8,
    /** Read: what comes from a backing file is written to the node as well, if
     * some user of it may write what is there.  With PREFETCH that is all, and
     * its failure is that of the read; -EPERM: nobody may. */
    BDRV_REQ_COPY_ON_READ = 1 << 9,
} BdrvRequestFlags;

#define BDRV_REQ_MASK 0x3ff

#endif /* BLOCKGRAPH_COMMON_H */
