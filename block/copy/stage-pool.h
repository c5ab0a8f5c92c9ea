/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory for what is staged, in slots of one size.
 *
 * A guest waits for its old content to be copied to memory, and fresh memory
 * costs more than the copy: a page fault takes longer than to copy the page.
 * So slots are cut from one mapping, with huge pages where it is large enough,
 * and are used again, the last one first.  The mapping is never larger than
 * what the user allows; when no slot is in use most of it goes back.
 */
#ifndef BLOCK_COPY_STAGE_POOL_H
#define BLOCK_COPY_STAGE_POOL_H

#include "util/lock.h"

/** All zero is a pool without slots. */
typedef struct StagePool {
    /* Set by stage_pool_init(). */
    void *map;
    int64_t map_bytes;
    uint8_t *base;             /* of the first slot */
    int64_t slot_bytes;
    int64_t nr_slots;

    Lock lock;
    /* Guarded by @lock. */
    struct StageSlot *free;    /* used before, the last one first */
    int64_t nr_begun;          /* slots from @base on that were ever used */
    int64_t nr_used;
} StagePool;

/** A pool of slots that together have at most @bytes; if there is no memory,
 * or a slot is too large to be worth it, one without slots. */
void stage_pool_init(StagePool *pool, int64_t slot_bytes, int64_t bytes);

/** No slot is in use. */
void stage_pool_destroy(StagePool *pool);

/** A slot, with any content, or NULL.  Any thread. */
void *stage_pool_get(StagePool *pool);

/** Give back what stage_pool_get() gave; false: that was not the pool.  Any
 * thread. */
bool stage_pool_put(StagePool *pool, void *memory);

#endif /* BLOCK_COPY_STAGE_POOL_H */
