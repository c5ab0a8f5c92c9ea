/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Each kind of job, each verb or mishap, at each step: the seed is the number
 * of the case,
 *
 *   bg-sim run job-grid --seed 0 --seeds N
 *
 * kind by kind within a verb, and verb by verb within a step; so the first
 * seeds are all kinds and verbs at the first step.  New kinds come last: the
 * seeds of runs that are kept are those of the first step.
 *
 * A guest writes the top of a chain of three meanwhile.  Whatever happens, it
 * sees what it has written; a job that was done well has kept its promise; and
 * afterwards no job and no filter is left.
 */
#include "sim/scenarios/attend.h"
#include "sim/scenarios/qcow2-image.h"

#include <blockgraph/dirty-bitmap.h>
#include <blockgraph/driver.h>
#include <errno.h>
#include <string.h>

#define SIZE (256 * 1024)
#define GRANULE 16384 /* of the bitmap */
#define GRANULES (SIZE / GRANULE)
#define LOOKS 6       /* at a point in time that is held */
#define STEPS_BETWEEN 7 /* of the run between two steps of the grid */

/* What a kind promises. */
typedef enum Promise {
    PROMISE_COPY,   /* the target is what the disk was at the start */
    PROMISE_PART,   /* that is so where bitmap "b" was dirty */
    PROMISE_HOLD,   /* it is so as long as the job runs */
    PROMISE_CHAIN,  /* the guest sees no difference */
    PROMISE_SWITCH, /* the guest is on another node */
} Promise;

typedef struct JobKind {
    BlockJobType type;
    const char *options;
    const char *node; /* of PROMISE_CHAIN: not in the chain afterwards; of
                       * PROMISE_SWITCH: that the guest is on */
    Promise promise;
    const char *backing; /* of the target, which is qcow2 then; or NULL */
} JobKind;

static const JobKind kinds[] = {
    { BLOCK_JOB_BACKUP, "device=top,target=target,sync=full,max-chunk=64k,"
      "max-workers=2", NULL, PROMISE_COPY },
    { BLOCK_JOB_BACKUP, "device=top,target=target,sync=full,max-chunk=64k,"
      "on-cbw-error=break-snapshot,staging-size=64k,on-target-error=stop",
      NULL, PROMISE_COPY },
    { BLOCK_JOB_STREAM, "device=top", "mid", PROMISE_CHAIN },
    { BLOCK_JOB_STREAM, "device=top,base=base,on-error=stop", "mid",
      PROMISE_CHAIN },
    { BLOCK_JOB_STREAM, "device=mid,on-error=ignore", NULL, PROMISE_CHAIN },
    { BLOCK_JOB_COMMIT, "device=top,top=mid,base=base", "mid",
      PROMISE_CHAIN },
    { BLOCK_JOB_COMMIT, "device=top,top=mid,base=base,on-error=stop", "mid",
      PROMISE_CHAIN },
    { BLOCK_JOB_COMMIT, "device=top,base=mid", "mid", PROMISE_SWITCH },
    { BLOCK_JOB_COMMIT, "device=top,base=base,on-error=ignore", "base",
      PROMISE_SWITCH },
    { BLOCK_JOB_MIRROR, "device=top,target=target,sync=full", "target",
      PROMISE_SWITCH },
    { BLOCK_JOB_MIRROR, "device=top,target=target,sync=full,"
      "copy-mode=write-blocking,on-target-error=stop,on-source-error=ignore",
      "target", PROMISE_SWITCH },
    { BLOCK_JOB_BACKUP, "device=top,target=target,sync=top,max-chunk=64k,"
      "max-workers=2", NULL, PROMISE_COPY, "mid" },
    { BLOCK_JOB_BACKUP, "device=top,target=target,sync=none", NULL,
      PROMISE_HOLD, "top" },
    { BLOCK_JOB_BACKUP, "device=top,target=target,sync=incremental,bitmap=b,"
      "on-target-error=ignore", NULL, PROMISE_PART },
    { BLOCK_JOB_BACKUP, "device=top,target=target,sync=bitmap,bitmap=b,"
      "bitmap-mode=always,max-workers=2", NULL, PROMISE_PART },
    { BLOCK_JOB_BACKUP, "device=top,target=target,sync=bitmap,bitmap=b,"
      "bitmap-mode=never,on-source-error=stop", NULL, PROMISE_PART },
    { BLOCK_JOB_MIRROR, "device=top,target=target,sync=top", "target",
      PROMISE_SWITCH, "mid" },
    { BLOCK_JOB_MIRROR, "device=top,target=target,sync=top,"
      "copy-mode=write-blocking,on-source-error=ignore", "target",
      PROMISE_SWITCH, "mid" },
    { BLOCK_JOB_MIRROR, "device=top,target=target,sync=none", "target",
      PROMISE_SWITCH, "top" },
    { BLOCK_JOB_MIRROR, "device=top,target=target,sync=none,"
      "copy-mode=write-blocking,on-target-error=stop", "target",
      PROMISE_SWITCH, "top" },
};

typedef enum GridVerb {
    GRID_NOTHING,
    GRID_PAUSE,
    GRID_CANCEL,
    GRID_CANCEL_FORCE,
    GRID_COMPLETE,
    GRID_FINALIZE,
    GRID_DISMISS,
    GRID_SLOW,
    GRID_HOLD,
    GRID_DRAIN,
    GRID_EIO_READ,
    GRID_EIO_WRITE,
    GRID_ENOSPC,
    GRID_HANG,
    GRID_KILL,
    GRID_DETACH,
    GRID_VERBS,
} GridVerb;

typedef struct JobGrid {
    BgSim *sim;
    const JobKind *kind;
    GridVerb verb;
    uint64_t at;       /* the step of the run at which it comes */
    BlockDriverState *top, *target;
    BlockBackend *guest, *reader;
    BgSimModel *model, *frozen;
    BlockJob *job;     /* while it runs */
    bool done;         /* the verb was asked */
    bool over;         /* the job */
    bool held;         /* a disk hangs */
    BgSimRule *dead;   /* a disk fails, until this is off; or NULL */
    bool soft;         /* it was cancelled; perhaps with a result */
    bool harmful;      /* errors may come */
    bool dirty[GRANULES]; /* bitmap "b", when the job started */
    int looks;         /* at the point in time that the job holds */
} JobGrid;

/* --- the verb ------------------------------------------------------------- */

static void coroutine_fn drain_entry(BgSim *sim, void *opaque)
{
    JobGrid *s = opaque;

    bdrv_co_drained_begin(s->top);
    co_sleep_ns(50 * 1000);
    bdrv_drained_end(s->top);
}

static void coroutine_fn release_entry(BgSim *sim, void *opaque)
{
    JobGrid *s = opaque;

    co_sleep_ns(INT64_C(1500) * 1000 * 1000);
    s->held = false;
    bgsim_release(sim, "hang");
}

static void coroutine_fn revive_entry(BgSim *sim, void *opaque)
{
    JobGrid *s = opaque;

    co_sleep_ns(INT64_C(1500) * 1000 * 1000);
    bgsim_rule_off(s->dead);
}

/* Somebody wants to have what the job needs. */
static void coroutine_fn detach_entry(BgSim *sim, void *opaque)
{
    static const char *const names[] = { "mid", "base" };
    JobGrid *s = opaque;
    BlockDriverState *bs = bdrv_ref(blk_bs(s->guest));

    if (!s->over && bdrv_filter_child(bs)) {
        bdrv_co_drop_filter(bs, NULL);
    }
    bdrv_co_unref(bs);
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        bs = bdrv_find_node(bgsim_graph(sim), names[i]);
        if (bs && !s->over && bdrv_co_delete(bs, NULL) == 0) {
            bgsim_violation(sim, "job", "node '%s' was deleted", names[i]);
        }
    }
}

/* The disk that the job writes to. */
static const char *written_disk(const JobGrid *s)
{
    if (s->kind->type == BLOCK_JOB_COMMIT) {
        return s->kind->node && g_str_equal(s->kind->node, "mid") &&
                       s->kind->promise == PROMISE_SWITCH
                   ? "middle" : "base";
    }
    return s->kind->promise == PROMISE_CHAIN ? "disk0" : "target";
}

static void fail_once(JobGrid *s, const char *disk, const char *what, int err)
{
    g_autofree char *where = g_strdup_printf("%s:%s", disk, what);
    BgSimRule *rule = bgsim_fail(s->sim, where, err);

    s->harmful = true;
    bgsim_rule_nth(rule, 0, 1);
}

/* All requests of the disk fail, for longer than a job has to end. */
static void kill_disk(JobGrid *s)
{
    g_autofree char *where = g_strdup_printf("%s:any", written_disk(s));

    s->harmful = true;
    s->dead = bgsim_fail(s->sim, where, EIO);
    bgsim_spawn(s->sim, "revive", NULL, revive_entry, s);
}

/* All that is there at this moment; what is not allowed is refused. */
static void ask(JobGrid *s)
{
    g_autofree char *where = g_strdup_printf("%s:write", written_disk(s));

    switch (s->verb) {
    case GRID_PAUSE:
        block_job_pause(s->job, NULL);
        break;
    case GRID_CANCEL:
    case GRID_CANCEL_FORCE:
        s->soft = block_job_cancel(s->job, s->verb == GRID_CANCEL_FORCE,
                                   NULL) == 0;
        break;
    case GRID_COMPLETE:
        block_job_complete(s->job, NULL);
        break;
    case GRID_FINALIZE:
        block_job_finalize(s->job, NULL);
        break;
    case GRID_DISMISS:
        block_job_dismiss(s->job, NULL);
        break;
    case GRID_SLOW:
        block_job_set_speed(s->job, 256 * 1024, NULL);
        break;
    case GRID_HOLD:
        block_job_hold(s->job);
        break;
    case GRID_DRAIN:
        bgsim_spawn(s->sim, "drain", NULL, drain_entry, s);
        break;
    case GRID_EIO_READ:
        fail_once(s, "disk0", "read", EIO);
        break;
    case GRID_EIO_WRITE:
        fail_once(s, written_disk(s), "write", EIO);
        break;
    case GRID_ENOSPC:
        fail_once(s, written_disk(s), "write", ENOSPC);
        break;
    case GRID_HANG:
        s->held = true;
        bgsim_hold(s->sim, where, "hang");
        bgsim_spawn(s->sim, "release", NULL, release_entry, s);
        break;
    case GRID_KILL:
        kill_disk(s);
        break;
    case GRID_DETACH:
        bgsim_spawn(s->sim, "detach", NULL, detach_entry, s);
        break;
    default:
        break;
    }
}

/* --- what was promised ---------------------------------------------------- */

/* The target holds the point in time, whatever guests do meanwhile. */
static void coroutine_fn look_at_target(JobGrid *s)
{
    int64_t at = bgsim_draw(s->sim, "look.at", SIZE / 4096) * 4096;

    if (s->looks++ == LOOKS) {
        block_job_cancel(s->job, false, NULL);
    }
    /* Errors, and a verb that ends it, come at any step of a read. */
    if (s->looks > LOOKS || s->harmful || s->verb == GRID_CANCEL ||
        s->verb == GRID_CANCEL_FORCE) {
        return;
    }
    if (blk_co_insert_bs(s->reader, s->target, NULL) < 0) {
        bgsim_violation(s->sim, "graph", "the target cannot be read");
        return;
    }
    bgsim_model_set_backend(s->frozen, s->reader);
    bgsim_model_pread(s->frozen, at, MIN(65536, SIZE - at));
    blk_co_remove_bs(s->reader);
}

/* Whether what the bitmap had there was copied, by what it has now. */
static bool is_copied(BdrvDirtyBitmap *bitmap, bool always, int64_t at)
{
    return always && !bdrv_dirty_bitmap_get(bitmap, at);
}

/* The job failed: all that it had to copy, and has not, is dirty still.  It is
 * as if nothing had been copied, unless the bitmap keeps count. */
static void coroutine_fn check_kept(JobGrid *s)
{
    bool always = strstr(s->kind->options, "always");
    BdrvDirtyBitmap *bitmap = bdrv_find_dirty_bitmap(s->top, "b");

    if (!bitmap || bdrv_dirty_bitmap_has_successor(bitmap)) {
        return; /* it was given up, and is not over */
    }
    for (int i = 0; i < GRANULES; i++) {
        if (s->dirty[i] && is_copied(bitmap, always, i * GRANULE)) {
            bgsim_model_pread(s->frozen, i * GRANULE, GRANULE);
        } else if (s->dirty[i] &&
                   !bdrv_dirty_bitmap_get(bitmap, i * GRANULE)) {
            bgsim_violation(s->sim, "bitmap", "granule %d is clean", i);
        }
    }
}

/* --- the job -------------------------------------------------------------- */

/* Bring the job on: who waits for the user goes on. */
static void coroutine_fn attend(JobGrid *s)
{
    BlockJobInfo info;

    for (;;) {
        block_job_query(s->job, &info);
        if (info.status >= BLOCK_JOB_CONCLUDED) {
            return;
        }
        co_sleep_ns(100 * 1000);
        bgsim_progress(s->sim);
        if (s->done && s->verb == GRID_HOLD) {
            s->verb = GRID_NOTHING;
            block_job_release(s->job);
        }
        if (s->done && s->verb == GRID_SLOW) {
            block_job_set_speed(s->job, 0, NULL);
        }
        if (bgsim_chance(s->sim, "attend", 300)) {
            block_job_resume(s->job, NULL);
            block_job_complete(s->job, NULL);
            block_job_finalize(s->job, NULL);
            if (s->kind->promise == PROMISE_HOLD) {
                look_at_target(s);
            }
        }
    }
}

static void check_result(JobGrid *s)
{
    BlockJobInfo info;

    block_job_query(s->job, &info);
    if (info.ret < 0 && !info.cancelled && !s->harmful) {
        bgsim_violation(s->sim, "job", "failed: %s",
                        info.error ? info.error : "no text");
    }
    if (info.ret == 0 && s->kind->promise == PROMISE_SWITCH &&
        !s->soft && !g_str_equal(bdrv_node_name(blk_bs(s->guest)),
                                 s->kind->node)) {
        bgsim_violation(s->sim, "job", "the guest is on node '%s'",
                        bdrv_node_name(blk_bs(s->guest)));
    }
    if (info.ret == 0 && s->kind->promise == PROMISE_CHAIN &&
        s->kind->node) {
        BlockDriverState *below = bdrv_skip_filters(s->top);
        BdrvChild *backing = bdrv_find_child(below, "backing");
        const char *name = backing ? bdrv_node_name(bdrv_child_bs(backing))
                                   : "";

        if (g_str_equal(name, s->kind->node)) {
            bgsim_violation(s->sim, "job", "node '%s' is in the chain still",
                            name);
        }
    }
}

/* The target is what the disk was, where that was copied. */
static void coroutine_fn check_copied(JobGrid *s)
{
    for (int i = 0; i < GRANULES; i++) {
        if (s->kind->promise == PROMISE_COPY || s->dirty[i]) {
            bgsim_model_pread(s->frozen, i * GRANULE, GRANULE);
        }
    }
}

static void coroutine_fn check_copy(JobGrid *s)
{
    BlockJobInfo info;

    block_job_query(s->job, &info);
    if (s->kind->promise > PROMISE_PART ||
        (info.ret < 0 && s->kind->promise != PROMISE_PART)) {
        return;
    }
    if (blk_co_insert_bs(s->reader, s->target, NULL) < 0) {
        if (info.ret == 0) {
            bgsim_violation(s->sim, "graph", "the target is still in use");
        }
        return;
    }
    bgsim_model_set_backend(s->frozen, s->reader);
    if (info.ret == 0) {
        check_copied(s);
    }
    if (s->kind->promise == PROMISE_PART &&
        (info.ret < 0 || strstr(s->kind->options, "never"))) {
        check_kept(s);
    }
    blk_co_remove_bs(s->reader);
}

static void note_dirty(JobGrid *s)
{
    BdrvDirtyBitmap *bitmap = bdrv_find_dirty_bitmap(s->top, "b");

    for (int i = 0; bitmap && i < GRANULES; i++) {
        s->dirty[i] = bdrv_dirty_bitmap_get(bitmap, i * GRANULE);
    }
}

static void coroutine_fn job_entry(BgSim *sim, void *opaque)
{
    JobGrid *s = opaque;
    g_autoptr(GError) error = NULL;
    BlockOptions *options = scenario_options(
        "x,job-id=j,auto-dismiss=off,auto-finalize=off,%s", s->kind->options);

    block_options_remove(options, "driver");
    bdrv_co_drained_begin(s->top);
    note_dirty(s);
    s->job = block_co_job_start(bgsim_graph(sim), s->kind->type, options,
                                &error);
    if (s->job) {
        s->frozen = bgsim_model_freeze(s->model);
    }
    bdrv_drained_end(s->top);
    if (!s->job) {
        if (!s->harmful) {
            bgsim_violation(sim, "job", "%s", error->message);
        }
        return;
    }
    attend(s);
    s->over = true;
    check_result(s);
    check_copy(s);
    block_job_dismiss(s->job, NULL);
    block_job_unref(s->job);
}

static void each_step(BgSim *sim, void *opaque)
{
    JobGrid *s = opaque;

    if (!s->done && s->job && !s->over && bgsim_steps(sim) >= s->at) {
        s->done = true;
        ask(s);
    }
}

/* --- the run -------------------------------------------------------------- */

static void make_disks(BgSim *sim, bool target_is_image)
{
    BgSimDiskConfig image = { .grows = true, .empty = true,
                              .discard = bgsim_draw(sim, "disk.discard", 4),
                              .flush_mode = BGSIM_FLUSH_KEEP };
    BgSimDiskConfig raw = { .size = SIZE };
    SimQcow2 how = { .version = 3, .size = SIZE, .refcount_order = 4,
                     .cluster_bits = 12 };

    bgsim_disk_new(sim, "base", &raw);
    if (target_is_image) {
        sim_qcow2_make(bgsim_disk_new(sim, "target", &image), &how);
    } else {
        bgsim_disk_new(sim, "target", &raw);
    }
    sim_qcow2_make(bgsim_disk_new(sim, "middle", &image), &how);
    sim_qcow2_make(bgsim_disk_new(sim, "disk0", &image), &how);
}

/* Data and zeroes here and there. */
static void coroutine_fn fill_entry(BgSim *sim, void *opaque)
{
    JobGrid *s = opaque;

    for (int64_t at = 0; at < SIZE; at += 16384) {
        switch (bgsim_draw(sim, "fill", 5)) {
        case 0:
        case 1:
            bgsim_model_pwrite(s->model, at, 16384, 0);
            break;
        case 2:
            bgsim_model_zero(s->model, at, 16384, 0);
            break;
        default:
            break;
        }
        bgsim_progress(sim);
    }
    bgsim_model_flush(s->model);
}

#define RAW "raw,node-name=base,file.driver=sim-disk,file.disk=base"
#define MID "qcow2,node-name=mid,file.driver=sim-disk,file.disk=middle"
#define TOP "qcow2,node-name=top,file.driver=sim-disk,file.disk=disk0"

static bool fill_layer(BgSim *sim, JobGrid *s, const char *options)
{
    BlockDriverState *bs = scenario_open(sim, "%s", options);

    if (bs) {
        scenario_fill(sim, bs, &s->model, SIZE, fill_entry, s);
    }
    return bs != NULL;
}

static BlockDriverState *open_target(BgSim *sim, const JobKind *kind)
{
    return scenario_open(sim, "%s,node-name=target,file.driver=sim-disk,"
                         "file.disk=target%s%s",
                         kind->backing ? "qcow2" : "raw",
                         kind->backing ? ",backing=" : "",
                         kind->backing ? kind->backing : "");
}

/* With a good half of the disk. */
static void make_bitmap(BgSim *sim, JobGrid *s)
{
    BdrvDirtyBitmap *bitmap = bdrv_create_dirty_bitmap(s->top, GRANULE, "b",
                                                       NULL);

    for (int i = 0; i < GRANULES; i++) {
        if (bgsim_chance(sim, "bitmap.bit", 600)) {
            bdrv_set_dirty_bitmap(bitmap, i * GRANULE, 1);
        }
    }
}

static bool open_chain(BgSim *sim, JobGrid *s)
{
    BlockDriverState *base, *mid;

    if (!fill_layer(sim, s, RAW)) {
        return false;
    }
    base = scenario_open(sim, RAW);
    if (!base || !fill_layer(sim, s, MID ",backing=base")) {
        return false;
    }
    mid = scenario_open(sim, MID ",backing=base");
    s->top = mid ? scenario_open(sim, TOP ",backing=mid") : NULL;
    s->target = s->top ? open_target(sim, s->kind) : NULL;
    bdrv_unref(mid);
    bdrv_unref(base);
    return s->top && s->target;
}

static void grid_setup(BgSim *sim, void *state)
{
    uint64_t seed = bgsim_seed(sim);
    JobGrid *s = state;
    BgSimGuestConfig guest = {
        .requests = 60, .depth = 3, .max_bytes = 16384,
        .weight_read = 4, .weight_write = 6, .weight_zero = 1,
        .weight_discard = 1, .weight_flush = 1,
    };
    BlockPerm perm = { .used = BLK_PERM_CONSISTENT_READ,
                       .shared = BLK_PERM_ALL };

    s->sim = sim;
    s->kind = &kinds[seed % G_N_ELEMENTS(kinds)];
    s->verb = seed / G_N_ELEMENTS(kinds) % GRID_VERBS;
    make_disks(sim, s->kind->backing != NULL);
    if (!open_chain(sim, s)) {
        return;
    }
    if (s->kind->promise == PROMISE_PART) {
        make_bitmap(sim, s);
    }
    s->guest = scenario_backend(sim, "guest", s->top);
    bgsim_model_set_backend(s->model, s->guest);
    s->reader = blk_new(bgsim_graph(sim), "reader", &perm);
    s->at = bgsim_steps(sim) +
            seed / G_N_ELEMENTS(kinds) / GRID_VERBS * STEPS_BETWEEN;
    guest.errors_expected = s->verb >= GRID_EIO_READ &&
                            s->verb <= GRID_KILL;
    bgsim_guest_start(s->model, "guest", scenario_thread(sim, 2), &guest);
    bgsim_add_oracle(sim, &(BgSimOracle){ .name = "grid", .step = each_step,
                                          .opaque = s });
    bgsim_spawn(sim, "job", NULL, job_entry, s);
}

#define NODES 8 /* base, mid, top, target and their disks, at most */

static void grid_verify(BgSim *sim, void *state)
{
    JobGrid *s = state;

    if (s->guest) {
        bgsim_release(sim, "hang");
        scenario_end_jobs(sim, NODES);
        scenario_check_content(sim, s->guest, s->model);
        scenario_check_rest(sim);
        blk_unref(s->reader);
        blk_unref(s->guest);
    }
    if (s->top) {
        bdrv_release_dirty_bitmap(bdrv_find_dirty_bitmap(s->top, "b"));
    }
    bdrv_unref(s->target);
    bdrv_unref(s->top);
    scenario_check_empty(sim);
}

const BgSimScenario scenario_job_grid = {
    .name = "job-grid",
    .help = "each kind of job, each verb, at each step: --seed 0 --seeds N",
    .state_size = sizeof(JobGrid),
    .setup = grid_setup,
    .verify = grid_verify,
};
