/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory that many share.  Tickets keep the order: a large request is not
 * overtaken for ever by small ones.
 */
#include "block/copy/mem-budget.h"

#include "util/sim-point.h"

void mem_budget_init(MemBudget *budget, int64_t bytes)
{
    *budget = (MemBudget){ .bytes = bytes };
    lock_init(&budget->lock, LOCK_RANK_UTIL);
    co_queue_init(&budget->waiters);
}

/* Lock held. */
static bool may_have(const MemBudget *budget, int64_t bytes, uint64_t ticket)
{
    return budget->serving == ticket &&
           (budget->used == 0 || bytes <= budget->bytes - budget->used);
}

void coroutine_fn mem_budget_take(MemBudget *budget, int64_t bytes)
{
    WITH_LOCK(&budget->lock) {
        uint64_t ticket = budget->next++;

        while (!may_have(budget, bytes, ticket)) {
            SIM_WAITS("memory for a copy", budget);
            co_queue_wait_locked(&budget->waiters, &budget->lock);
        }
        budget->used += bytes;
        budget->serving++;
        co_queue_restart_all(&budget->waiters);
    }
}

void mem_budget_give(MemBudget *budget, int64_t bytes)
{
    WITH_LOCK(&budget->lock) {
        budget->used -= bytes;
        g_assert(budget->used >= 0);
        co_queue_restart_all(&budget->waiters);
    }
}
