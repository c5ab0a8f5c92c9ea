/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Backups: guests write a disk, backup jobs copy it, and somebody asks verbs of
 * them at random.
 *
 * The oracle: the disk's model, frozen in the drained section in which a job
 * starts, says what the target must be when that job has succeeded, whatever
 * was tried before.  The first success is a full backup, perhaps after some
 * that were interrupted and left a bitmap to resume with; the next ones are
 * incremental.
 */
#include "sim/scenarios/attend.h"

#include <blockgraph/dirty-bitmap.h>

#define CLUSTER_BYTES (64 * 1024)
#define CLUSTERS 12
#define DISK_BYTES (CLUSTERS * CLUSTER_BYTES)
#define ATTEMPTS 5
#define NODES 4 /* without filters of jobs */

typedef struct Backup {
    BgSim *sim;
    BlockDriverState *source, *target;
    BlockBackend *guest, *reader;
    BgSimModel *model;
    bool faults;
    bool resumes;  /* with a bitmap of what is missing */
    bool copied;   /* a full backup has succeeded */
    bool given_up; /* a cancelled job may still wait for a slow disk */
} Backup;

/* --- options -------------------------------------------------------------- */

/* What is copied: all, what was missing, or what has changed since. */
static const char *draw_sync(Backup *s)
{
    static const char *const again[] = {
        "sync=incremental,bitmap=b",
        "sync=incremental,bitmap=b,resume-bitmap=r",
        "sync=bitmap,bitmap=b,bitmap-mode=on-success",
    };

    if (!s->copied) {
        return s->resumes ? "sync=full,bitmap=b,bitmap-mode=on-success,"
                            "resume-bitmap=r"
                          : "sync=full,bitmap=b,bitmap-mode=on-success";
    }
    return again[bgsim_draw(s->sim, "job.sync", s->resumes ? 2 : 3)];
}

static BlockOptions *draw_options(Backup *s)
{
    BgSim *sim = s->sim;
    bool breaks = bgsim_chance(sim, "cbw.breaks", 300);

    return scenario_options(
        "x,job-id=j,device=source,target=target,%s,auto-dismiss=off,"
        "auto-finalize=%s,on-source-error=%s,on-target-error=%s,"
        "max-workers=%d,max-chunk=%d,on-cbw-error=%s,staging-size=%s,speed=%s",
        draw_sync(s), bgsim_chance(sim, "job.finalize", 800) ? "on" : "off",
        scenario_policy(sim), scenario_policy(sim),
        1 + (int)bgsim_draw(sim, "job.workers", 4),
        CLUSTER_BYTES << bgsim_draw(sim, "job.chunk", 3),
        breaks ? "break-snapshot" : "break-guest-write",
        breaks && bgsim_chance(sim, "cbw.staged", 500) ? "128k" : "0",
        bgsim_chance(sim, "job.slow", 200) ? "4M" : "0");
}

/* --- a job and its verbs -------------------------------------------------- */

/* One verb, or a hold; whether it is allowed is the job's business. */
static void some_verb(void *opaque, BlockJob *job)
{
    Backup *s = opaque;
    int which = bgsim_draw(s->sim, "verb", 12);

    if (which == 4) {
        block_job_complete(job, NULL);
    } else {
        scenario_verb(s->sim, job, which);
    }
}

static void coroutine_fn drain_a_moment(void *opaque)
{
    Backup *s = opaque;

    scenario_drain(s->sim, s->source);
}

/* --- the oracle ----------------------------------------------------------- */

/* The target is what the disk was. */
static void coroutine_fn check_target(Backup *s, BgSimModel *frozen)
{
    g_autoptr(GError) error = NULL;

    if (blk_co_insert_bs(s->reader, s->target, &error) < 0) {
        if (!s->faults) {
            bgsim_violation(s->sim, "graph", "%s", error->message);
        }
        return;
    }
    bgsim_model_set_backend(frozen, s->reader);
    for (int64_t i = 0; i < CLUSTERS; i++) {
        bgsim_model_pread(frozen, i * CLUSTER_BYTES, CLUSTER_BYTES);
    }
    blk_co_remove_bs(s->reader);
}

/* --- the run -------------------------------------------------------------- */

static BlockJob *coroutine_fn start_job(Backup *s, BgSimModel **frozen)
{
    g_autoptr(GError) error = NULL;
    BlockOptions *options = draw_options(s);
    BlockJob *job;

    block_options_remove(options, "driver");
    bgsim_op_begin(s->sim, BGSIM_OP_INSERT);
    bdrv_co_drained_begin(s->source);
    job = block_co_job_start(bgsim_graph(s->sim), BLOCK_JOB_BACKUP, options,
                             &error);
    if (job) {
        *frozen = bgsim_model_freeze(s->model);
    } else if (!s->faults && !s->given_up) {
        bgsim_violation(s->sim, "job", "%s", error->message);
    }
    bdrv_drained_end(s->source);
    bgsim_op_end(s->sim, BGSIM_OP_INSERT);
    return job;
}

static bool coroutine_fn attempt(Backup *s)
{
    BgSimModel *frozen = NULL;
    BlockJob *job = start_job(s, &frozen);
    const ScenarioUser user = { .sim = s->sim, .verb = some_verb,
                                .drain = drain_a_moment, .opaque = s };
    BlockJobInfo info;

    if (!job) {
        return false;
    }
    scenario_attend(&user, job);
    scenario_check_job(s->sim, job, s->faults);
    block_job_query(job, &info);
    if (info.ret == 0) {
        check_target(s, frozen);
    }
    s->given_up = s->given_up || info.cancelled;
    block_job_dismiss(job, NULL);
    block_job_unref(job);
    return info.ret == 0;
}

static void coroutine_fn jobs_entry(BgSim *sim, void *opaque)
{
    Backup *s = opaque;

    for (int i = 0; i < ATTEMPTS; i++) {
        co_sleep_ns(1 + bgsim_range(sim, "job.at", 0, 300 * 1000));
        if (attempt(s)) {
            s->copied = true;
        }
    }
}

static bool open_disks(BgSim *sim, Backup *s)
{
    s->source = scenario_open_raw(sim, "source", DISK_BYTES);
    s->target = scenario_open_raw(sim, "target", DISK_BYTES);
    if (!s->source || !s->target) {
        return false;
    }
    s->guest = scenario_backend(sim, "guest", s->source);
    s->model = bgsim_model_new(sim, s->guest, "guest", DISK_BYTES);
    bdrv_create_dirty_bitmap(s->source, CLUSTER_BYTES, "b", NULL);
    return true;
}

static void backup_setup(BgSim *sim, void *state)
{
    Backup *s = state;
    BlockPerm perm = { .used = BLK_PERM_CONSISTENT_READ,
                       .shared = BLK_PERM_ALL };

    s->sim = sim;
    if (!open_disks(sim, s)) {
        return;
    }
    s->reader = blk_new(bgsim_graph(sim), "reader", &perm);
    s->resumes = bgsim_chance(sim, "job.resumes", 500);
    s->faults = scenario_faults(sim);
    scenario_guests(sim, s->model, &(BgSimGuestConfig){
        .requests = 80, .weight_read = 2, .weight_write = 6, .weight_zero = 2,
        .weight_discard = 2, .weight_flush = 1, .weight_status = 1,
        .errors_expected = s->faults });
    bgsim_spawn(sim, "jobs", NULL, jobs_entry, s);
}

static void take_down(BgSim *sim, Backup *s)
{
    BdrvDirtyBitmap *bitmap;

    while ((bitmap = bdrv_dirty_bitmap_next(s->source, NULL))) {
        bdrv_release_dirty_bitmap(bitmap);
    }
    blk_unref(s->reader);
    scenario_check_content(sim, s->guest, s->model);
    blk_unref(s->guest);
    bdrv_unref(s->target);
    bdrv_unref(s->source);
}

static void backup_verify(BgSim *sim, void *state)
{
    Backup *s = state;

    if (s->guest) {
        scenario_end_jobs(sim, NODES);
        scenario_check_rest(sim);
        take_down(sim, s);
    }
    scenario_check_empty(sim);
}

const BgSimScenario scenario_backup = {
    .name = "backup",
    .help = "guests, backup jobs of their disk, verbs at random",
    .state_size = sizeof(Backup),
    .setup = backup_setup,
    .verify = backup_verify,
    .threads_too = true,
};
