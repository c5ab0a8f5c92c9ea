/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A random guest: some workers that send requests, one after the other each.
 *
 * All that is drawn for one request is one group, so that a shrinker drops the
 * request as one.  The kind 0 is no request at all: what a tape that has come
 * to its end gives.
 */
#include "sim/sim-int.h"

#include <errno.h>

#define REQUESTS_DEFAULT 40
#define DEPTH_DEFAULT 4
#define MAX_BYTES_DEFAULT (8 * 1024)
#define ALIGN_DEFAULT 512

/* Three of four requests go to one part of the disk, so that they meet. */
#define HOT_PARTS 8
#define HOT_REQUESTS_MIN 4

/* What is drawn for a request, in this order. */
enum {
    DRAW_KIND,
    DRAW_HOT,
    DRAW_SLOT,
    DRAW_LENGTH,
    DRAW_FUA,
    DRAW_THINK,
    DRAWS,
};

typedef struct Guest {
    /* Set by bgsim_guest_start(). */
    BgSim *sim;
    BgSimModel *model;
    char *name;
    BgSimGuestConfig config;
    unsigned weights[BGSIM_OP_STATUS + 1];
    uint64_t bounds[DRAWS];
    int64_t nr_slots;
    int64_t first_hot;
    int64_t nr_hot;

    /* Thread of the guest. */
    unsigned left;
} Guest;

/* Most draws are requests: one in sixteen weights' worth is none. */
#define NONE_SHARE 16

static BgSimOpKind kind_of(const Guest *guest, uint64_t drawn)
{
    uint64_t weight = (drawn - 1) / NONE_SHARE;
    BgSimOpKind kind = BGSIM_OP_READ;

    while (weight >= guest->weights[kind]) {
        weight -= guest->weights[kind++];
    }
    return kind;
}

static int64_t offset_of(const Guest *guest, const uint64_t *values)
{
    int64_t slot = values[DRAW_SLOT];

    if (values[DRAW_HOT] > 0) {
        slot = guest->first_hot + slot % guest->nr_hot;
    }
    return slot * guest->config.align;
}

static int coroutine_fn send(Guest *guest, BgSimOpKind kind,
                             const uint64_t *values)
{
    BgSimModel *model = guest->model;
    int64_t offset = offset_of(guest, values);
    int64_t end = guest->nr_slots * guest->config.align;
    int64_t bytes = MIN((int64_t)(values[DRAW_LENGTH] + 1) *
                            guest->config.align, end - offset);
    bool fua = values[DRAW_FUA] >= 1000 - guest->config.fua_permille;
    unsigned flags = fua ? BDRV_REQ_FUA : 0;

    switch (kind) {
    case BGSIM_OP_READ:
        return bgsim_model_pread(model, offset, bytes);
    case BGSIM_OP_WRITE:
        return bgsim_model_pwrite(model, offset, bytes, flags);
    case BGSIM_OP_ZERO:
        return bgsim_model_zero(model, offset, bytes,
                                flags | (values[DRAW_SLOT] % 2
                                             ? BDRV_REQ_MAY_UNMAP : 0));
    case BGSIM_OP_DISCARD:
        return bgsim_model_discard(model, offset, bytes);
    case BGSIM_OP_FLUSH:
        return bgsim_model_flush(model);
    default:
        return bgsim_model_status(model, offset, bytes);
    }
}

static void coroutine_fn worker_entry(BgSim *sim, void *opaque)
{
    Guest *guest = opaque;

    while (guest->left > 0 && !bgsim_violated(sim, NULL)) {
        uint64_t values[DRAWS];
        BgSimOpKind kind;
        int ret;

        guest->left--;
        bgsim_draw_group(sim, "guest", guest->bounds, values, DRAWS);
        if (values[DRAW_KIND] == 0) {
            continue;
        }
        kind = kind_of(guest, values[DRAW_KIND]);
        ret = send(guest, kind, values);
        if (ret < 0 && !guest->config.errors_expected) {
            bgsim_violation(sim, "guest", "%s: a %s at %" G_GINT64_FORMAT
                            " failed: %s", guest->name, bgsim_op_name(kind),
                            offset_of(guest, values), g_strerror(-ret));
        }
        if (values[DRAW_THINK] > 0) {
            co_sleep_ns(values[DRAW_THINK]);
        }
    }
}

static void guest_free(void *opaque)
{
    Guest *guest = opaque;

    g_free(guest->name);
    g_free(guest);
}

static void set_defaults(Guest *guest)
{
    static const unsigned weights[] = { 4, 4, 1, 1, 1, 1 };
    BgSimGuestConfig *c = &guest->config;
    unsigned given[] = { c->weight_read, c->weight_write, c->weight_zero,
                         c->weight_discard, c->weight_flush,
                         c->weight_status };
    unsigned total = 0;

    c->requests = c->requests ? c->requests : REQUESTS_DEFAULT;
    c->depth = c->depth ? c->depth : DEPTH_DEFAULT;
    c->max_bytes = c->max_bytes ? c->max_bytes : MAX_BYTES_DEFAULT;
    c->align = c->align ? c->align : ALIGN_DEFAULT;
    g_assert(c->align % 512 == 0 && c->max_bytes >= c->align &&
             c->fua_permille <= 1000 && c->think_ns >= 0);
    for (unsigned i = 0; i < G_N_ELEMENTS(given); i++) {
        total += given[i];
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(given); i++) {
        guest->weights[i] = total ? given[i] : weights[i];
        guest->bounds[DRAW_KIND] += guest->weights[i] * NONE_SHARE;
    }
    guest->bounds[DRAW_KIND] += 1;
    guest->left = c->requests;
}

static void set_places(Guest *guest, int64_t length)
{
    const BgSimGuestConfig *c = &guest->config;
    int64_t per_request = c->max_bytes / c->align;

    guest->nr_slots = length / c->align;
    g_assert(guest->nr_slots > 0);
    guest->nr_hot = MAX(guest->nr_slots / HOT_PARTS,
                        HOT_REQUESTS_MIN * per_request);
    guest->nr_hot = MIN(guest->nr_hot, guest->nr_slots);
    guest->first_hot = (guest->nr_slots - guest->nr_hot) / 2;
    guest->bounds[DRAW_HOT] = 4;
    guest->bounds[DRAW_SLOT] = guest->nr_slots;
    guest->bounds[DRAW_LENGTH] = per_request;
    guest->bounds[DRAW_FUA] = 1000;
    guest->bounds[DRAW_THINK] = c->think_ns + 1;
}

void bgsim_guest_start(BgSimModel *model, const char *name, AioContext *ctx,
                       const BgSimGuestConfig *config)
{
    BgSim *sim = sim_model_world(model);
    Guest *guest = g_new0(Guest, 1);

    guest->sim = sim;
    guest->model = model;
    guest->name = g_strdup(name);
    guest->config = config ? *config : (BgSimGuestConfig){ .requests = 0 };
    sim_own(sim, guest_free, guest);
    set_defaults(guest);
    set_places(guest, sim_model_length(model));
    for (unsigned i = 0; i < guest->config.depth; i++) {
        g_autofree char *worker = g_strdup_printf("%s/%u", name, i);

        bgsim_spawn(sim, worker, ctx, worker_entry, guest);
    }
}
