/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Large buffers of one size that are used again.
 *
 * Fresh memory costs about as much as to fill it from the page cache: each page
 * is a fault.  So what was used is kept for the next one, as long as somebody
 * else has a buffer in use; with the last one all go.
 */
#ifndef UTIL_SPARE_BUFFERS_H
#define UTIL_SPARE_BUFFERS_H

#include "util/lock.h"

typedef struct SpareBuffers {
    Lock lock;
    /* Guarded by @lock. */
    void *spare;      /* each begins with the next one's address */
    unsigned in_use;
} SpareBuffers;

/** The size of each and its alignment, in bytes. */
#define SPARE_BUFFER_BYTES (INT64_C(1) << 20)
#define SPARE_BUFFER_ALIGNMENT 4096

/** No buffers. */
void spare_buffers_init(SpareBuffers *buffers);

/** A buffer with any content, or NULL.  Any thread. */
void *spare_buffers_get(SpareBuffers *buffers);

/** Give it back.  Any thread. */
void spare_buffers_put(SpareBuffers *buffers, void *buf);

/**
 * @bytes bytes, aligned to @alignment: a buffer of @buffers if one suits and is
 * not far too large, else memory of its own.  Or NULL.  Any thread.
 */
void *spare_buffers_alloc(SpareBuffers *buffers, size_t alignment,
                          int64_t bytes);

/** Give back what spare_buffers_alloc() gave for the same numbers, or NULL. */
void spare_buffers_free(SpareBuffers *buffers, void *buf, size_t alignment,
                        int64_t bytes);

#endif /* UTIL_SPARE_BUFFERS_H */
