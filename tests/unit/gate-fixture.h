/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * "gate": a filter that parks every request that comes to it while it is shut;
 * a test lets them through one by one.
 */
#ifndef TESTS_UNIT_GATE_FIXTURE_H
#define TESTS_UNIT_GATE_FIXTURE_H

#include "graph-fixture.h"

/* A request at the gate; on the stack of its coroutine. */
typedef struct Parked {
    Coroutine *co;
    char op; /* r, w, z, d, f */
    int64_t offset;
    bool go;
} Parked;

/* One at a time is open; main context. */
static bool gate_shut;
static GPtrArray *gate_parked;
static unsigned gate_discards;

static inline void coroutine_fn gate_pass(char op, int64_t offset)
{
    Parked parked = { .co = coroutine_self(), .op = op, .offset = offset };

    gate_discards += op == 'd';
    if (gate_shut) {
        g_ptr_array_add(gate_parked, &parked);
        while (!parked.go) {
            coroutine_yield();
        }
    }
}

static inline void gate_let_go(unsigned i)
{
    Parked *parked = g_ptr_array_steal_index(gate_parked, i);

    parked->go = true;
    aio_co_wake(parked->co);
}

static int coroutine_fn gate_preadv(BlockDriverState *bs, const BlockIO *io)
{
    gate_pass('r', io->offset);
    return bdrv_co_preadv(bdrv_filter_child(bs), io->offset, io->bytes,
                          io->iov, io->flags);
}

static int coroutine_fn gate_pwritev(BlockDriverState *bs, const BlockIO *io)
{
    gate_pass('w', io->offset);
    return bdrv_co_pwritev(bdrv_filter_child(bs), io->offset, io->bytes,
                           io->iov, io->flags);
}

static int coroutine_fn gate_pwrite_zeroes(BlockDriverState *bs,
                                           const BlockIO *io)
{
    gate_pass('z', io->offset);
    return bdrv_co_pwrite_zeroes(bdrv_filter_child(bs), io->offset, io->bytes,
                                 io->flags & ~BDRV_REQ_ZERO_WRITE);
}

static int coroutine_fn gate_pdiscard(BlockDriverState *bs, const BlockIO *io)
{
    gate_pass('d', io->offset);
    return bdrv_co_pdiscard(bdrv_filter_child(bs), io->offset, io->bytes);
}

static int coroutine_fn gate_flush(BlockDriverState *bs)
{
    gate_pass('f', 0);
    return 0;
}

static inline void register_gate_driver(void)
{
    static const BlockDriver driver = {
        .struct_size = sizeof(BlockDriver),
        .name = "gate",
        .kind = BLOCK_DRIVER_FILTER,
        .options = filter_options,
        .open = pass_open,
        .preadv = gate_preadv,
        .pwritev = gate_pwritev,
        .pwrite_zeroes = gate_pwrite_zeroes,
        .pdiscard = gate_pdiscard,
        .flush = gate_flush,
    };

    register_test_driver(&driver);
}

static inline void settle(void)
{
    while (aio_poll(block_graph_aio_context(graph), false)) {
    }
}

#endif /* TESTS_UNIT_GATE_FIXTURE_H */
