/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory of requests.
 *
 * Fresh memory is slow, so what a client has used it uses again; never another
 * client, and zeroed once, so that no reply can carry what was not the
 * client's own.  Large ones are mapped: the system gets them back at once when
 * a client is idle, whatever else lives in the heap.
 */
#include "block/export/nbd-int.h"

#include <blockgraph/iov.h>
#include <string.h>
#include <sys/mman.h>

#define CLASS_BITS_MIN 12       /* 4 KiB */

G_STATIC_ASSERT((1 << (CLASS_BITS_MIN + NBD_BUFFER_CLASSES - 1)) ==
                NBD_PAYLOAD_MAX);

/* The first class that is mapped: 32 KiB. */
#define CLASS_MAPPED 3

static void *memory_new(unsigned i)
{
    size_t bytes = (size_t)1 << (CLASS_BITS_MIN + i);
    void *buf;

    if (i < CLASS_MAPPED) {
        buf = block_aligned_try_alloc(1 << CLASS_BITS_MIN, bytes);
        if (buf) {
            memset(buf, 0, bytes);
        }
        return buf;
    }
    buf = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return buf == MAP_FAILED ? NULL : buf;
}

static void memory_free(void *buf, unsigned i)
{
    if (i < CLASS_MAPPED) {
        block_aligned_free(buf);
    } else {
        munmap(buf, (size_t)1 << (CLASS_BITS_MIN + i));
    }
}

static unsigned class_of(size_t bytes)
{
    unsigned i = 0;

    g_assert(bytes > 0 && bytes <= NBD_PAYLOAD_MAX);
    while (((size_t)1 << (CLASS_BITS_MIN + i)) < bytes) {
        i++;
    }
    return i;
}

void *nbd_buffer_get(NbdBuffers *buffers, size_t bytes)
{
    unsigned i = class_of(bytes);
    GPtrArray *spare = buffers->spare[i];

    if (spare && spare->len > 0) {
        buffers->spare_bytes -= (int64_t)1 << (CLASS_BITS_MIN + i);
        return g_ptr_array_steal_index_fast(spare, spare->len - 1);
    }
    return memory_new(i);
}

void nbd_buffer_put(NbdBuffers *buffers, void *buf, size_t bytes)
{
    unsigned i = class_of(bytes);

    if (!buffers->spare[i]) {
        buffers->spare[i] = g_ptr_array_new();
    }
    g_ptr_array_add(buffers->spare[i], buf);
    buffers->spare_bytes += (int64_t)1 << (CLASS_BITS_MIN + i);
}

void nbd_buffers_trim(NbdBuffers *buffers)
{
    for (unsigned i = 0; i < NBD_BUFFER_CLASSES; i++) {
        GPtrArray *spare = buffers->spare[i];

        for (guint k = 0; spare && k < spare->len; k++) {
            memory_free(g_ptr_array_index(spare, k), i);
        }
        g_clear_pointer(&buffers->spare[i], g_ptr_array_unref);
    }
    buffers->spare_bytes = 0;
}
