/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Large buffers of one size that are used again.
 */
#include "util/spare-buffers.h"

#include <blockgraph/iov.h>

void spare_buffers_init(SpareBuffers *buffers)
{
    *buffers = (SpareBuffers){ 0 };
    lock_init(&buffers->lock, LOCK_RANK_LEAF);
}

void *spare_buffers_get(SpareBuffers *buffers)
{
    void *buf = NULL;

    WITH_LOCK(&buffers->lock) {
        buf = buffers->spare;
        if (buf) {
            buffers->spare = *(void **)buf;
        }
        buffers->in_use++;
    }
    if (!buf) {
        buf = block_aligned_try_alloc(SPARE_BUFFER_ALIGNMENT,
                                      SPARE_BUFFER_BYTES);
    }
    if (!buf) {
        spare_buffers_put(buffers, NULL);
    }
    return buf;
}

void spare_buffers_put(SpareBuffers *buffers, void *buf)
{
    void *unused = NULL;

    WITH_LOCK(&buffers->lock) {
        if (buf) {
            *(void **)buf = buffers->spare;
            buffers->spare = buf;
        }
        g_assert(buffers->in_use > 0);
        if (--buffers->in_use == 0) {
            unused = buffers->spare;
            buffers->spare = NULL;
        }
    }
    while (unused) {
        void *next = *(void **)unused;

        block_aligned_free(unused);
        unused = next;
    }
}

static bool suits(size_t alignment, int64_t bytes)
{
    return alignment <= SPARE_BUFFER_ALIGNMENT &&
           bytes <= SPARE_BUFFER_BYTES && bytes > SPARE_BUFFER_BYTES / 4;
}

void *spare_buffers_alloc(SpareBuffers *buffers, size_t alignment,
                          int64_t bytes)
{
    return suits(alignment, bytes) ? spare_buffers_get(buffers)
                                   : block_aligned_try_alloc(alignment, bytes);
}

void spare_buffers_free(SpareBuffers *buffers, void *buf, size_t alignment,
                        int64_t bytes)
{
    if (buf && suits(alignment, bytes)) {
        spare_buffers_put(buffers, buf);
    } else {
        block_aligned_free(buf);
    }
}
