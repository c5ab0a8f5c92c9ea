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
#include "sim/scenarios/scenarios.h"

#include <blockgraph/dirty-bitmap.h>
#include <blockgraph/job.h>
#include <errno.h>

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

static const char *draw_policy(BgSim *sim)
{
    static const char *const policies[] = { "report", "ignore", "stop",
                                            "enospc" };

    return policies[bgsim_draw(sim, "job.policy", 4)];
}

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
        draw_policy(sim), draw_policy(sim),
        1 + (int)bgsim_draw(sim, "job.workers", 4),
        CLUSTER_BYTES << bgsim_draw(sim, "job.chunk", 3),
        breaks ? "break-snapshot" : "break-guest-write",
        breaks && bgsim_chance(sim, "cbw.staged", 500) ? "128k" : "0",
        bgsim_chance(sim, "job.slow", 200) ? "4M" : "0");
}

/* --- a job and its verbs -------------------------------------------------- */

/* One verb, or a hold; whether it is allowed is the job's business. */
static void some_verb(Backup *s, BlockJob *job)
{
    BgSim *sim = s->sim;

    switch (bgsim_draw(sim, "verb", 12)) {
    case 0:
        block_job_cancel(job, bgsim_chance(sim, "verb.force", 500), NULL);
        break;
    case 1:
    case 2:
        block_job_pause(job, NULL);
        break;
    case 3:
        block_job_set_speed(job, bgsim_chance(sim, "verb.slow", 300)
                                     ? 16 << 20 : 0, NULL);
        break;
    case 4:
        block_job_complete(job, NULL);
        break;
    default:
        block_job_resume(job, NULL);
        block_job_finalize(job, NULL);
        break;
    }
}

static void coroutine_fn drain_a_moment(Backup *s)
{
    bgsim_op_begin(s->sim, BGSIM_OP_DRAIN);
    bdrv_co_drained_begin(s->source);
    co_sleep_ns(bgsim_draw(s->sim, "drain.time", 100 * 1000));
    bdrv_drained_end(s->source);
    bgsim_op_end(s->sim, BGSIM_OP_DRAIN);
}

/* Ask verbs until the job is over; in the end, let it go on. */
static void coroutine_fn ask_verbs(Backup *s, BlockJob *job)
{
    BlockJobInfo info;

    for (int i = 0;; i++) {
        bool last = i > 200;

        block_job_query(job, &info);
        if (info.status >= BLOCK_JOB_CONCLUDED) {
            return;
        }
        if (last || bgsim_chance(s->sim, "verb.calm", 700)) {
            /* Who waits for somebody goes on. */
            block_job_resume(job, NULL);
            block_job_finalize(job, NULL);
            if (last && i % 100 == 0) {
                block_job_cancel(job, true, NULL);
            }
        } else if (bgsim_chance(s->sim, "verb.drain", 100)) {
            drain_a_moment(s);
        } else {
            some_verb(s, job);
        }
        co_sleep_ns(1 + bgsim_draw(s->sim, "verb.pause", 200 * 1000));
        bgsim_progress(s->sim);
    }
}

/* --- the oracle ----------------------------------------------------------- */

static void check_info(Backup *s, BlockJob *job)
{
    BlockJobInfo info;

    block_job_query(job, &info);
    if (info.current_progress > info.total_progress) {
        bgsim_violation(s->sim, "job", "progress %" G_GINT64_FORMAT " of %"
                        G_GINT64_FORMAT, info.current_progress,
                        info.total_progress);
    }
    if (info.ret == 0 && info.current_progress != info.total_progress) {
        bgsim_violation(s->sim, "job", "well done at %" G_GINT64_FORMAT " of %"
                        G_GINT64_FORMAT, info.current_progress,
                        info.total_progress);
    }
    if (info.ret < 0 && !s->faults && !info.cancelled) {
        bgsim_violation(s->sim, "job", "failed: %s",
                        info.error ? info.error : "no text");
    }
}

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
    BlockJobInfo info;

    if (!job) {
        return false;
    }
    ask_verbs(s, job);
    check_info(s, job);
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
    scenario_disk(sim, "source", DISK_BYTES);
    scenario_disk(sim, "target", DISK_BYTES);
    s->source = scenario_open(sim, "raw,node-name=source,discard=unmap,"
                              "file.driver=sim-disk,file.disk=source");
    s->target = scenario_open(sim, "raw,node-name=target,discard=unmap,"
                              "file.driver=sim-disk,file.disk=target");
    if (!s->source || !s->target) {
        return false;
    }
    s->guest = scenario_backend(sim, "guest", s->source);
    s->model = bgsim_model_new(sim, s->guest, "guest", DISK_BYTES);
    bdrv_create_dirty_bitmap(s->source, CLUSTER_BYTES, "b", NULL);
    return true;
}

static void start_guests(BgSim *sim, Backup *s)
{
    for (unsigned i = 0; i < 1 + bgsim_draw(sim, "guests", 3); i++) {
        BgSimGuestConfig config = {
            .requests = 80,
            .depth = 1 + bgsim_draw(sim, "guest.depth", 6),
            .max_bytes = 4096 << bgsim_draw(sim, "guest.bytes", 6),
            .weight_read = 2, .weight_write = 6, .weight_zero = 2,
            .weight_discard = 2, .weight_flush = 1, .weight_status = 1,
            .think_ns = bgsim_draw(sim, "guest.think", 3) * 50000,
            .errors_expected = s->faults,
        };
        g_autofree char *name = g_strdup_printf("guest%u", i);

        bgsim_guest_start(s->model, name, scenario_thread(sim, 3), &config);
    }
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
    start_guests(sim, s);
    bgsim_spawn(sim, "jobs", NULL, jobs_entry, s);
}

/* What is left of jobs that were given up goes when their requests return. */
static int coroutine_fn settle_entry(void *opaque)
{
    Backup *s = opaque;

    while (block_graph_nr_nodes(bgsim_graph(s->sim)) > NODES) {
        co_sleep_ns(1000 * 1000);
    }
    bdrv_co_drain_all_begin(bgsim_graph(s->sim));
    bdrv_drain_all_end(bgsim_graph(s->sim));
    return 0;
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
        block_job_cancel_all(bgsim_graph(sim));
        aio_co_run(block_graph_aio_context(bgsim_graph(sim)), settle_entry, s);
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
