/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory for what is staged.
 */
#include "block/copy/stage-pool.h"

#include <sys/mman.h>

#define SLOT_BYTES_MAX (INT64_C(1) << 20)
#define HUGE_BYTES (INT64_C(2) << 20)

/* What stays when no slot is in use. */
#define KEEP_BYTES HUGE_BYTES

/* In the memory of a slot that is free. */
typedef struct StageSlot {
    struct StageSlot *next;
} StageSlot;

/* Aligned to huge pages if there is one of them in it. */
void stage_pool_init(StagePool *pool, int64_t slot_bytes, int64_t bytes)
{
    int64_t slots = slot_bytes > SLOT_BYTES_MAX ? 0 : bytes / slot_bytes;
    bool huge = slots * slot_bytes >= HUGE_BYTES;
    int64_t map_bytes = slots * slot_bytes + (huge ? HUGE_BYTES : 0);
    void *map;

    *pool = (StagePool){ .slot_bytes = slot_bytes };
    lock_init(&pool->lock, LOCK_RANK_LEAF);
    if (slots == 0) {
        return;
    }
    map = mmap(NULL, map_bytes, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) {
        return;
    }
    pool->map = map;
    pool->map_bytes = map_bytes;
    pool->nr_slots = slots;
    pool->base = map;
    if (huge) {
        pool->base += -(uintptr_t)map & (HUGE_BYTES - 1);
        /* Without them it is only slower. */
        (void)madvise(pool->base, slots * slot_bytes, MADV_HUGEPAGE);
    }
}

void stage_pool_destroy(StagePool *pool)
{
    g_assert(pool->nr_used == 0);
    if (pool->map) {
        munmap(pool->map, pool->map_bytes);
    }
}

void *stage_pool_get(StagePool *pool)
{
    StageSlot *slot;
    LOCK_GUARD(&pool->lock);

    slot = pool->free;
    if (slot) {
        pool->free = slot->next;
    } else if (pool->nr_begun < pool->nr_slots) {
        slot = (void *)(pool->base + pool->nr_begun++ * pool->slot_bytes);
    } else {
        return NULL;
    }
    pool->nr_used++;
    return slot;
}

/* Lock held, no slot is in use: all are as they were at first. */
static void give_back(StagePool *pool)
{
    int64_t begun = pool->nr_begun * pool->slot_bytes;

    if (begun > KEEP_BYTES) {
        (void)madvise(pool->base + KEEP_BYTES, begun - KEEP_BYTES,
                      MADV_DONTNEED);
        pool->free = NULL;
        pool->nr_begun = 0;
    }
}

bool stage_pool_put(StagePool *pool, void *memory)
{
    StageSlot *slot = memory;
    uint8_t *at = memory;

    if (!pool->map || at < pool->base ||
        at >= pool->base + pool->nr_slots * pool->slot_bytes) {
        return false;
    }
    WITH_LOCK(&pool->lock) {
        slot->next = pool->free;
        pool->free = slot;
        if (--pool->nr_used == 0) {
            give_back(pool);
        }
    }
    return true;
}
