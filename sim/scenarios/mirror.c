/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Mirrors: guests write a disk, which is mirrored to another one again and
 * again, and somebody asks verbs at random.  After a switch the disks have
 * changed roles, so a target is always full of old data.
 *
 * The oracle: what guests see never changes but by their writes, whatever disk
 * they are on; and a target that they are not switched to is what the disk was
 * at the moment at which the mirror took effect.
 */
#include "sim/scenarios/attend.h"

#include <blockgraph/driver.h>

#define DISK_BYTES (10 * 64 * 1024 + 4096)
#define ATTEMPTS 5
#define NODES 4 /* without filters of jobs */

typedef struct Mirror {
    BgSim *sim;
    BlockDriverState *disks[2];
    BlockBackend *guest, *reader;
    BgSimModel *model;
    BgSimModel *frozen; /* of the moment of effect; or NULL */
    bool faults;
    bool copies;        /* all of the disk */
    bool given_up;      /* a cancelled job may still wait for a slow disk */
} Mirror;

/* --- options -------------------------------------------------------------- */

/* The disk that guests are on, below filters of tests. */
static BlockDriverState *active_disk(Mirror *s)
{
    return bdrv_skip_filters(blk_bs(s->guest));
}

static BlockOptions *draw_options(Mirror *s)
{
    BgSim *sim = s->sim;
    BlockDriverState *active = active_disk(s);
    BlockDriverState *other = s->disks[active == s->disks[0]];

    s->copies = bgsim_chance(sim, "job.full", 900);
    return scenario_options(
        "x,job-id=j,device=%s,target=%s,sync=%s,auto-dismiss=off,"
        "auto-finalize=%s,on-source-error=%s,on-target-error=%s,"
        "copy-mode=%s,granularity=%d,buf-size=%d,max-workers=%d,unmap=%s,"
        "speed=%s", bdrv_node_name(active), bdrv_node_name(other),
        s->copies ? "full" : "none",
        bgsim_chance(sim, "job.finalize", 800) ? "on" : "off",
        scenario_policy(sim), scenario_policy(sim),
        bgsim_chance(sim, "job.blocking", 400) ? "write-blocking"
                                               : "background",
        512 << bgsim_draw(sim, "job.granularity", 9),
        64 * 1024 << bgsim_draw(sim, "job.buffers", 4),
        1 + (int)bgsim_draw(sim, "job.workers", 4),
        bgsim_chance(sim, "job.unmap", 500) ? "on" : "off",
        bgsim_chance(sim, "job.slow", 200) ? "4M" : "0");
}

/* --- a job and its verbs -------------------------------------------------- */

static void write_blocking(BlockJob *job)
{
    BlockOptions *options = block_options_new();

    block_options_set_str(options, "copy-mode", "write-blocking");
    block_job_change(job, options, NULL);
}

/* One verb; whether it is allowed is the job's business. */
static void some_verb(void *opaque, BlockJob *job)
{
    Mirror *s = opaque;
    int which = bgsim_draw(s->sim, "verb", 14);

    switch (which) {
    case 4:
        write_blocking(job);
        break;
    case 5:
    case 6:
    case 7:
        /* To switch to a disk that was not copied is not what guests want. */
        if (s->copies) {
            block_job_complete(job, NULL);
        } else {
            block_job_cancel(job, false, NULL);
        }
        break;
    default:
        scenario_verb(s->sim, job, which);
        break;
    }
}

static void coroutine_fn drain_a_moment(void *opaque)
{
    Mirror *s = opaque;

    scenario_drain(s->sim, s->disks[bgsim_draw(s->sim, "drain.disk", 2)]);
}

/* Nobody writes while the job is held there. */
static void note_moment(void *opaque)
{
    Mirror *s = opaque;

    if (!s->frozen && bgsim_held(s->sim, "effect") > 0) {
        s->frozen = bgsim_model_freeze(s->model);
        bgsim_release(s->sim, "effect");
    }
}

/* --- the oracle ----------------------------------------------------------- */

/* The disk that guests are not on, and were not switched to, is what theirs
 * was. */
static void coroutine_fn check_target(Mirror *s, BlockDriverState *target)
{
    g_autoptr(GError) error = NULL;

    if (!s->frozen || !s->copies || active_disk(s) == target) {
        return;
    }
    if (blk_co_insert_bs(s->reader, target, &error) < 0) {
        if (!s->faults) {
            bgsim_violation(s->sim, "graph", "%s", error->message);
        }
        return;
    }
    bgsim_model_set_backend(s->frozen, s->reader);
    for (int64_t at = 0; at < DISK_BYTES; at += 64 * 1024) {
        bgsim_model_pread(s->frozen, at, MIN(64 * 1024, DISK_BYTES - at));
    }
    blk_co_remove_bs(s->reader);
}

/* --- the run -------------------------------------------------------------- */

static BlockJob *coroutine_fn start_job(Mirror *s)
{
    g_autoptr(GError) error = NULL;
    BlockOptions *options = draw_options(s);
    BlockJob *job;

    block_options_remove(options, "driver");
    s->frozen = NULL;
    bgsim_hold(s->sim, "point:mirror.effect", "effect");
    bgsim_op_begin(s->sim, BGSIM_OP_INSERT);
    job = block_co_job_start(bgsim_graph(s->sim), BLOCK_JOB_MIRROR, options,
                             &error);
    bgsim_op_end(s->sim, BGSIM_OP_INSERT);
    if (!job && !s->faults && !s->given_up) {
        bgsim_violation(s->sim, "job", "%s", error->message);
    }
    return job;
}

static void coroutine_fn attempt(Mirror *s)
{
    BlockDriverState *target = s->disks[active_disk(s) == s->disks[0]];
    BlockJob *job = start_job(s);
    const ScenarioUser user = { .sim = s->sim, .verb = some_verb,
                                .drain = drain_a_moment, .look = note_moment,
                                .opaque = s };
    BlockJobInfo info;

    if (!job) {
        bgsim_release(s->sim, "effect");
        return;
    }
    scenario_attend(&user, job);
    bgsim_release(s->sim, "effect");
    scenario_check_job(s->sim, job, s->faults);
    block_job_query(job, &info);
    if (info.ret == 0) {
        check_target(s, target);
    }
    s->given_up = s->given_up || info.cancelled;
    block_job_dismiss(job, NULL);
    block_job_unref(job);
}

static void coroutine_fn jobs_entry(BgSim *sim, void *opaque)
{
    Mirror *s = opaque;

    for (int i = 0; i < ATTEMPTS; i++) {
        co_sleep_ns(1 + bgsim_range(sim, "job.at", 0, 300 * 1000));
        attempt(s);
    }
}

static bool open_disks(BgSim *sim, Mirror *s)
{
    static const char *const names[] = { "a", "b" };

    for (int i = 0; i < 2; i++) {
        scenario_disk(sim, names[i], DISK_BYTES);
        s->disks[i] = scenario_open(sim, "raw,node-name=node-%s,discard=unmap,"
                                    "file.driver=sim-disk,file.disk=%s",
                                    names[i], names[i]);
        if (!s->disks[i]) {
            return false;
        }
    }
    s->guest = scenario_backend(sim, "guest", s->disks[0]);
    s->model = bgsim_model_new(sim, s->guest, "guest", DISK_BYTES);
    return true;
}

static void mirror_setup(BgSim *sim, void *state)
{
    Mirror *s = state;
    BlockPerm perm = { .used = BLK_PERM_CONSISTENT_READ,
                       .shared = BLK_PERM_ALL };

    s->sim = sim;
    if (!open_disks(sim, s)) {
        return;
    }
    s->reader = blk_new(bgsim_graph(sim), "reader", &perm);
    s->faults = scenario_faults(sim);
    scenario_guests(sim, s->model, &(BgSimGuestConfig){
        .requests = 120, .weight_read = 3, .weight_write = 6, .weight_zero = 2,
        .weight_discard = 2, .weight_flush = 1, .weight_status = 1,
        .errors_expected = s->faults });
    bgsim_spawn(sim, "jobs", NULL, jobs_entry, s);
}

static void mirror_verify(BgSim *sim, void *state)
{
    Mirror *s = state;

    if (s->guest) {
        bgsim_release(sim, "effect");
        scenario_end_jobs(sim, NODES);
        scenario_check_rest(sim);
        blk_unref(s->reader);
        scenario_check_content(sim, s->guest, s->model);
        blk_unref(s->guest);
        bdrv_unref(s->disks[1]);
        bdrv_unref(s->disks[0]);
    }
    scenario_check_empty(sim);
}

const BgSimScenario scenario_mirror = {
    .name = "mirror",
    .help = "guests, mirrors of their disk to and fro, verbs at random",
    .state_size = sizeof(Mirror),
    .setup = mirror_setup,
    .verify = mirror_verify,
    .threads_too = true,
};
