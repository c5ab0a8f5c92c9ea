/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory that many share: who wants more than is left waits, in the order of
 * coming.
 */
#ifndef BLOCK_COPY_MEM_BUDGET_H
#define BLOCK_COPY_MEM_BUDGET_H

#include "util/co-queue.h"
#include "util/list.h"

typedef struct MemBudget {
    Lock lock;
    /* Guarded by @lock. */
    int64_t bytes;      /* in all */
    int64_t used;
    ListHead waiters;   /* in the order of coming */
} MemBudget;

/** @bytes of memory, none used. */
void mem_budget_init(MemBudget *budget, int64_t bytes);

/**
 * Take @bytes; waits until they are there.  Who wants more than there is in
 * all gets it when nobody else has any.  Any thread.
 */
void coroutine_fn mem_budget_take(MemBudget *budget, int64_t bytes);

/** Give @bytes back.  Any thread. */
void mem_budget_give(MemBudget *budget, int64_t bytes);

/** How many bytes are taken; a moment old.  Any thread. */
int64_t mem_budget_used(MemBudget *budget);

#endif /* BLOCK_COPY_MEM_BUDGET_H */
