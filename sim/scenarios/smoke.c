/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * smoke: requests of several threads on a node that holds nothing, and drains
 * between them.  The smallest scenario that makes the core work.
 */
#include "sim/scenarios/scenarios.h"

#define GUESTS_MAX 4
#define REQUESTS_MAX 24
#define DISK_BYTES (64 << 10)

typedef struct Smoke {
    BlockDriverState *bs;
    unsigned nr_guests;
    BlockBackend *blks[GUESTS_MAX];
    unsigned left[GUESTS_MAX];   /* requests that were not begun */
} Smoke;

/* The kinds of its requests; the first is the dullest. */
static const BgSimOpKind kinds[] = { BGSIM_OP_READ, BGSIM_OP_WRITE,
                                     BGSIM_OP_FLUSH, BGSIM_OP_ZERO,
                                     BGSIM_OP_DISCARD };

static int coroutine_fn do_request(BlockBackend *blk, BgSimOpKind kind,
                                   int64_t offset, int64_t bytes)
{
    char buf[4096] = { 0 };

    switch (kind) {
    case BGSIM_OP_READ:
        return blk_co_pread(blk, offset, bytes, buf, 0);
    case BGSIM_OP_WRITE:
        return blk_co_pwrite(blk, offset, bytes, buf, 0);
    case BGSIM_OP_FLUSH:
        return blk_co_flush(blk);
    case BGSIM_OP_ZERO:
        return blk_co_pwrite_zeroes(blk, offset, bytes, 0);
    default:
        return blk_co_pdiscard(blk, offset, bytes);
    }
}

typedef struct Guest {
    Smoke *smoke;
    unsigned index;
} Guest;

static void coroutine_fn guest_request(BgSim *sim, Smoke *s, unsigned index)
{
    static const uint64_t bounds[] = { G_N_ELEMENTS(kinds), DISK_BYTES, 4096,
                                       4 };
    uint64_t op[4];
    BgSimOpKind kind;
    int64_t bytes;
    int ret;

    bgsim_draw_group(sim, "op", bounds, op, G_N_ELEMENTS(op));
    kind = kinds[op[0]];
    bytes = MIN(1 + op[2], DISK_BYTES - op[1]);
    bgsim_op_begin(sim, kind);
    ret = do_request(s->blks[index], kind, op[1], bytes);
    bgsim_op_end(sim, kind);
    bgsim_trace(sim, bgsim_op_name(kind), op[1], -ret);
    if (ret < 0) {
        bgsim_violation(sim, "guest", "guest %u: a %s of %d bytes at %d has "
                        "failed: %d", index, bgsim_op_name(kind), (int)bytes,
                        (int)op[1], ret);
    }
    bgsim_progress(sim);
    if (op[3] == 3) {
        bgsim_yield(sim);
    }
}

static void coroutine_fn guest_entry(BgSim *sim, void *opaque)
{
    Guest *guest = opaque;
    Smoke *s = guest->smoke;
    unsigned index = guest->index;

    g_free(guest);
    while (s->left[index]-- > 0) {
        guest_request(sim, s, index);
    }
}

static void smoke_setup(BgSim *sim, void *state)
{
    Smoke *s = state;

    s->bs = scenario_open(sim, "null-co,size=%d,read-zeroes=on,latency-ns=%d",
                          DISK_BYTES, (int)bgsim_range(sim, "latency", 0,
                                                       20000));
    s->nr_guests = bgsim_range(sim, "guests", 1, GUESTS_MAX);
    for (unsigned i = 0; i < s->nr_guests; i++) {
        g_autofree char *name = g_strdup_printf("guest%u", i);
        Guest *guest = g_new(Guest, 1);

        *guest = (Guest){ s, i };
        s->blks[i] = scenario_backend(sim, name, s->bs);
        s->left[i] = bgsim_range(sim, "requests", 1, REQUESTS_MAX);
        bgsim_spawn(sim, name, bgsim_thread(sim, name), guest_entry, guest);
    }
}

/* Drain in the middle: nobody is under way afterwards, and all go on. */
static void smoke_body(BgSim *sim, void *state)
{
    Smoke *s = state;
    unsigned drains = bgsim_range(sim, "drains", 0, 3);

    for (unsigned i = 0; i < drains && bgsim_tasks(sim) > 0; i++) {
        bgsim_run(sim, bgsim_now_ns(sim) + bgsim_range(sim, "drain.at", 0,
                                                       50000), NULL);
        bgsim_op_begin(sim, BGSIM_OP_DRAIN);
        bdrv_drained_begin(s->bs);
        bgsim_trace(sim, "drained", i, bgsim_tasks(sim));
        bdrv_drained_end(s->bs);
        bgsim_op_end(sim, BGSIM_OP_DRAIN);
    }
    bgsim_run(sim, -1, NULL);
}

static void smoke_verify(BgSim *sim, void *state)
{
    Smoke *s = state;

    for (unsigned i = 0; i < s->nr_guests; i++) {
        blk_unref(s->blks[i]);
    }
    bdrv_unref(s->bs);
}

const BgSimScenario scenario_smoke = {
    .name = "smoke",
    .help = "several threads on a node that holds nothing, and drains",
    .state_size = sizeof(Smoke),
    .setup = smoke_setup,
    .body = smoke_body,
    .verify = smoke_verify,
    .threads_too = true,
};
