/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory that many share.  The order is kept: a large request is not overtaken
 * for ever by small ones.  Who gives some back hands it to those who wait, so
 * that only they wake up, however many there are.
 */
#include "block/copy/mem-budget.h"

#include "util/sim-point.h"

/* Who waits; guarded by the budget's lock. */
typedef struct MemWaiter {
    ListHead link;
    int64_t bytes;
    bool served;
    CoQueue queue;      /* nobody else */
} MemWaiter;

void mem_budget_init(MemBudget *budget, int64_t bytes)
{
    *budget = (MemBudget){ .bytes = bytes };
    lock_init(&budget->lock, LOCK_RANK_UTIL);
    list_init(&budget->waiters);
}

/* Lock held. */
static bool try_take(MemBudget *budget, int64_t bytes)
{
    if (budget->used > 0 && bytes > budget->bytes - budget->used) {
        return false;
    }
    budget->used += bytes;
    return true;
}

void coroutine_fn mem_budget_take(MemBudget *budget, int64_t bytes)
{
    MemWaiter *waiter;
    LOCK_GUARD(&budget->lock);

    if (list_empty(&budget->waiters) && try_take(budget, bytes)) {
        return;
    }
    waiter = g_new0(MemWaiter, 1);
    waiter->bytes = bytes;
    list_append(&budget->waiters, &waiter->link);
    while (!waiter->served) {
        SIM_WAITS("memory for a copy", budget);
        co_queue_wait_locked(&waiter->queue, &budget->lock);
    }
    g_free(waiter);
}

void mem_budget_give(MemBudget *budget, int64_t bytes)
{
    LOCK_GUARD(&budget->lock);
    budget->used -= bytes;
    g_assert(budget->used >= 0);
    while (!list_empty(&budget->waiters)) {
        MemWaiter *waiter =
            LIST_ENTRY(budget->waiters.next, MemWaiter, link);

        if (!try_take(budget, waiter->bytes)) {
            break;
        }
        list_remove(&waiter->link);
        waiter->served = true;
        co_queue_next(&waiter->queue);
    }
}

int64_t mem_budget_used(MemBudget *budget)
{
    LOCK_GUARD(&budget->lock);

    return budget->used;
}
