/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which kinds of operations overlap in time: what a generator never tries at
 * once is a blind spot of it.
 */
#include "sim/sim-int.h"

static BgSimOpTable own_table;
static BgSimOpTable *table = &own_table;

static const char *const op_names[BGSIM_OPS] = {
    [BGSIM_OP_READ] = "read",         [BGSIM_OP_WRITE] = "write",
    [BGSIM_OP_ZERO] = "zero",         [BGSIM_OP_DISCARD] = "discard",
    [BGSIM_OP_FLUSH] = "flush",       [BGSIM_OP_STATUS] = "status",
    [BGSIM_OP_DRAIN] = "drain",       [BGSIM_OP_REOPEN] = "reopen",
    [BGSIM_OP_INSERT] = "insert",     [BGSIM_OP_DROP] = "drop",
    [BGSIM_OP_REPLACE] = "replace",   [BGSIM_OP_PERM] = "perm",
    [BGSIM_OP_TRUNCATE] = "truncate", [BGSIM_OP_RESIZE] = "resize",
    [BGSIM_OP_OPEN] = "open",         [BGSIM_OP_CLOSE] = "close",
};

/* The table may lie in memory that several processes share. */
static void count(uint64_t *counter)
{
    __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
}

void bgsim_op_begin(BgSim *sim, BgSimOpKind kind)
{
    g_assert(kind < BGSIM_OPS);
    count(&table->begun[kind]);
    for (unsigned other = 0; other < BGSIM_OPS; other++) {
        if (atomic_load_explicit(&sim->ops_active[other],
                                 memory_order_relaxed) > 0) {
            count(&table->pairs[other][kind]);
        }
    }
    atomic_fetch_add_explicit(&sim->ops_active[kind], 1,
                              memory_order_relaxed);
}

void bgsim_op_end(BgSim *sim, BgSimOpKind kind)
{
    uint32_t before = atomic_fetch_sub_explicit(&sim->ops_active[kind], 1,
                                                memory_order_relaxed);

    g_assert(before > 0);
}

const char *bgsim_op_name(BgSimOpKind kind)
{
    g_assert(kind < BGSIM_OPS);
    return op_names[kind];
}

void bgsim_op_table(BgSimOpTable *ret)
{
    for (unsigned a = 0; a < BGSIM_OPS; a++) {
        ret->begun[a] = __atomic_load_n(&table->begun[a], __ATOMIC_RELAXED);
        for (unsigned b = 0; b < BGSIM_OPS; b++) {
            ret->pairs[a][b] = __atomic_load_n(&table->pairs[a][b],
                                               __ATOMIC_RELAXED);
        }
    }
}

void bgsim_op_table_use(BgSimOpTable *shared)
{
    g_assert(!sim_world);
    table = shared ? shared : &own_table;
}
