/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Every sequence of one to three operations on a tiny qcow2 image, with power
 * cuts.  The seed is the number of the sequence:
 *
 *   bg-sim run qcow2-ops --seed 0 --seeds 1884
 *
 * goes through all of them; from there on they come again with other choices.
 * For sequences of one and two operations the power is cut before every step
 * of the scheduler, for longer ones at a few.
 */
#include "sim/scenarios/qcow2-image.h"

#include <blockgraph/image.h>
#include <errno.h>
#include <string.h>

#define GUEST_BYTES (32 * 1024)   /* what the model covers */
#define DISK_BYTES (48 * 1024)
#define LARGE_BYTES (96 * 1024)
#define STEPS_MAX 260             /* cuts at every step up to here */
#define CUTS_OF_LONG 5

typedef struct Ops Ops;

/* One kind of operation; errors that are its own fault are no violation. */
typedef int coroutine_fn Op(Ops *s);

struct Ops {
    BgSimDisk *disk;
    BlockDriverState *bs;
    BlockBackend *blk;
    BgSimModel *model;
    BgSimModel *frozen;    /* at the snapshot */
    bool exists;           /* the snapshot does */
    bool restoring;        /* goto has begun: either content is legal */
    bool restored;         /* goto has ended */
    char options[512];
    unsigned op[3];
    unsigned nr_ops;
};

static const BgSimCrashConfig crash_config = {
    .all_below = 16, .sample = 6, .second_every = 16,
};

/* --- operations ----------------------------------------------------------- */

static int coroutine_fn op_write_part(Ops *s)
{
    return bgsim_model_pwrite(s->model, 512, 1024, 0);
}

static int coroutine_fn op_write_clusters(Ops *s)
{
    return bgsim_model_pwrite(s->model, 4096, 8192, 0);
}

static int coroutine_fn op_zero(Ops *s)
{
    return bgsim_model_zero(s->model, 1024, 4096, BDRV_REQ_MAY_UNMAP);
}

static int coroutine_fn op_discard(Ops *s)
{
    return bgsim_model_discard(s->model, 4096, 8192);
}

static int coroutine_fn op_flush(Ops *s)
{
    return bgsim_model_flush(s->model);
}

static int coroutine_fn op_compressed(Ops *s)
{
    int ret = bgsim_model_pwrite(s->model, 16384, 4096,
                                 BDRV_REQ_WRITE_COMPRESSED);

    return ret == -ENOTSUP || ret == -EINVAL ? 0 : ret;
}

static int coroutine_fn op_snapshot(Ops *s)
{
    BdrvSnapshotInfo info = { .name = (char *)"one" };
    BgSimModel *now = bgsim_model_freeze(s->model);
    g_autoptr(GError) error = NULL;
    int ret = s->restored ? -ENOTSUP
                          : bdrv_co_snapshot_create(s->bs, &info, &error);

    if (ret == 0 && !s->exists && !s->restored) {
        s->frozen = now;
        s->exists = true;
    }
    return ret == -ENOTSUP || ret == -ERANGE || ret == -EOVERFLOW ? 0 : ret;
}

static int coroutine_fn op_goto(Ops *s)
{
    g_autoptr(GError) error = NULL;
    int ret;

    if (!s->exists) {
        return 0;
    }
    s->restoring = true;
    ret = bdrv_co_snapshot_goto(s->bs, "1", &error);
    s->restored = ret == 0;
    if (ret == -EBUSY) {
        s->restoring = false; /* a stored bitmap is of another length */
        ret = 0;
    }
    return ret;
}

static int coroutine_fn op_delete(Ops *s)
{
    g_autoptr(GError) error = NULL;
    int ret = bdrv_co_snapshot_delete(s->bs, "1", NULL, &error);

    s->exists = false;
    return ret == -ENOENT ? 0 : ret;
}

static int coroutine_fn op_resize(Ops *s, int64_t length)
{
    BlockTruncate how = { .offset = length, .exact = true };
    g_autoptr(GError) error = NULL;
    int ret = blk_co_truncate(s->blk, &how, &error);

    return ret == -ENOTSUP ? 0 : ret;
}

static int coroutine_fn op_grow(Ops *s)
{
    return op_resize(s, LARGE_BYTES);
}

static int coroutine_fn op_shrink(Ops *s)
{
    return op_resize(s, GUEST_BYTES);
}

static int coroutine_fn op_bitmap(Ops *s)
{
    g_autoptr(GError) error = NULL;
    int ret = bdrv_co_stored_bitmap_remove(s->bs, "b", &error);

    if (ret == -ENOENT) {
        g_clear_error(&error);
        ret = bdrv_co_stored_bitmap_add(s->bs, "b", 4096, &error);
    }
    return ret == -ENOTSUP ? 0 : ret;
}

static const struct {
    const char *name;
    Op *run;
} ops[] = {
    { "write part of a cluster", op_write_part },
    { "write clusters", op_write_clusters },
    { "zero write", op_zero },
    { "discard", op_discard },
    { "flush", op_flush },
    { "compressed write", op_compressed },
    { "snapshot", op_snapshot },
    { "goto", op_goto },
    { "delete snapshot", op_delete },
    { "grow", op_grow },
    { "shrink", op_shrink },
    { "add or remove bitmap", op_bitmap },
};

/* Sequence number @n: first those of one, then of two, then of three. */
static void choose_ops(Ops *s, uint64_t n)
{
    uint64_t kinds = G_N_ELEMENTS(ops), of_length = kinds;

    n %= kinds + kinds * kinds + kinds * kinds * kinds;
    for (s->nr_ops = 1; n >= of_length; s->nr_ops++) {
        n -= of_length;
        of_length *= kinds;
    }
    for (unsigned i = 0; i < s->nr_ops; i++) {
        s->op[i] = n % kinds;
        n /= kinds;
    }
}

/* --- power cuts ----------------------------------------------------------- */

/* What the guest may see: what it wrote, or what the snapshot has. */
static bool check_content(Ops *s, BlockBackend *blk, GError **errp)
{
    g_autoptr(GError) error = NULL;

    if (!s->restored && bgsim_check_durable(blk, s->model, &error)) {
        return true;
    }
    if (s->restoring && bgsim_check_durable(blk, s->frozen, NULL)) {
        return true;
    }
    block_error(errp, EILSEQ, "%s", error ? error->message
                                          : "not what the snapshot has");
    return false;
}

static bool use_image(BlockBackend *blk, void *opaque, GError **errp)
{
    uint8_t data[1024] = { 1 };

    if (!check_content(opaque, blk, errp)) {
        return false;
    }
    if (blk_pread(blk, 8192, sizeof(data), data, 0) < 0 ||
        blk_pwrite(blk, 8192, sizeof(data), data, 0) < 0 ||
        blk_flush(blk) < 0) {
        block_error(errp, EIO, "a request of the recovery failed");
        return false;
    }
    return true;
}

static bool check_state(BgSim *sim, const BgSimCrashState *cut, void *opaque,
                        GError **errp)
{
    Ops *s = opaque;

    return sim_qcow2_recovers(&(SimQcow2Recovery){
        .sim = sim, .disk = s->disk, .options = s->options, .use = use_image,
        .opaque = s }, errp);
}

/* --- the run -------------------------------------------------------------- */

static void coroutine_fn ops_entry(BgSim *sim, void *opaque)
{
    Ops *s = opaque;

    for (unsigned i = 0; i < s->nr_ops; i++) {
        int ret = s->restored && s->op[i] < 6 ? 0 : ops[s->op[i]].run(s);

        bgsim_trace(sim, ops[s->op[i]].name, i, ret);
        bgsim_progress(sim);
        if (ret < 0) {
            bgsim_violation(sim, "operation", "'%s', number %u, failed: %s",
                            ops[s->op[i]].name, i, g_strerror(-ret));
        }
    }
}

static void make_image(BgSim *sim, Ops *s)
{
    static const unsigned cluster_bits[] = { 9, 12, 10 };
    SimQcow2 image = {
        .version = 3 - bgsim_draw(sim, "image.version", 2), .size = DISK_BYTES,
        .cluster_bits = cluster_bits[bgsim_draw(sim, "image.cluster", 3)],
        .refcount_order = 4,
        .lazy_refcounts = bgsim_chance(sim, "image.lazy", 150),
    };
    BgSimDiskConfig config = { .grows = true, .empty = true,
                               .discard = bgsim_draw(sim, "disk.discard", 3) };

    image.lazy_refcounts &= image.version > 2;
    s->disk = bgsim_disk_new(sim, "disk0", &config);
    sim_qcow2_make(s->disk, &image);
    g_snprintf(s->options, sizeof(s->options),
               "qcow2,discard=unmap,l2-cache-entry-size=512,"
               "l2-cache-size=4096,refcount-cache-size=4096,"
               "file.driver=sim-disk,file.disk=disk0");
}

static void ops_setup(BgSim *sim, void *state)
{
    Ops *s = state;
    uint64_t base;

    choose_ops(s, bgsim_seed(sim));
    make_image(sim, s);
    s->bs = scenario_open(sim, "%s,node-name=top", s->options);
    if (!s->bs) {
        return;
    }
    s->blk = scenario_backend(sim, "guest", s->bs);
    s->model = bgsim_model_new(sim, s->blk, "guest", GUEST_BYTES);
    bgsim_spawn(sim, "operations", NULL, ops_entry, s);
    base = bgsim_steps(sim);
    for (unsigned i = 1; s->nr_ops < 3 && i <= STEPS_MAX; i++) {
        bgsim_crash_at(sim, base + i, check_state, s, &crash_config);
    }
    for (unsigned i = 0; s->nr_ops == 3 && i < CUTS_OF_LONG; i++) {
        bgsim_crash_at(sim, base + 1 + bgsim_draw(sim, "cut.step", STEPS_MAX),
                       check_state, s, &crash_config);
    }
}

static void ops_verify(BgSim *sim, void *state)
{
    Ops *s = state;
    g_autoptr(GError) error = NULL;
    SimQcow2Report report;

    if (!s->bs) {
        return;
    }
    if (!bgsim_crash_each(sim, check_state, s, &crash_config, &error)) {
        bgsim_violation(sim, "durability", "%s", error->message);
        return;
    }
    scenario_check_content(sim, s->blk, s->restored ? s->frozen : s->model);
    blk_unref(s->blk);
    bdrv_unref(s->bs);
    if (!sim_qcow2_check(s->disk, &report, &error)) {
        bgsim_violation(sim, "metadata", "after close: %s", error->message);
    } else if (report.leaks > 0 || report.dirty) {
        bgsim_violation(sim, "leak", "after close %" G_GUINT64_FORMAT
                        " clusters are leaked, dirty is %d", report.leaks,
                        report.dirty);
    }
    scenario_check_empty(sim);
}

const BgSimScenario scenario_qcow2_ops = {
    .name = "qcow2-ops",
    .help = "all sequences of up to three operations; power cuts",
    .state_size = sizeof(Ops),
    .setup = ops_setup,
    .verify = ops_verify,
};
