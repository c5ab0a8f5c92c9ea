/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Power cuts while a disk is copied: backups that can be resumed, with bitmaps
 * that the image keeps, and mirrors, from one qcow2 image to another.
 *
 * The oracle: after a cut both images are sound, what was flushed is there, and
 * the same call as before makes the copy what the disk is, whatever a bitmap
 * says then of what need not be copied.  The last cut comes after all was
 * closed in order, with a job left half-way.
 */
#include "sim/scenarios/attend.h"
#include "sim/scenarios/qcow2-image.h"

#include <blockgraph/dirty-bitmap.h>
#include <blockgraph/driver.h>
#include <errno.h>
#include <string.h>

#define BYTES (384 * 1024) /* some clusters of backups, which are of 64 KiB */
#define ATTEMPTS 3

static const BgSimCrashConfig crash_config = {
    .all_below = 8, .sample = 4, .second_every = 12,
};

typedef struct CopyCuts {
    BgSim *sim;
    BgSimDisk *disks[2];
    BlockDriverState *images[2]; /* "i0", "i1" */
    BlockBackend *guest;
    BgSimModel *model;
    bool mirrors;
    bool faults;
    bool copied;    /* a full backup has succeeded */
    bool given_up;  /* a cancelled job may still wait for a slow disk */
    int last;       /* the image that guests had, when all is closed */
} CopyCuts;

/* --- images --------------------------------------------------------------- */

static void make_image(CopyCuts *s, int i)
{
    static const unsigned cluster_bits[] = { 12, 9, 16 };
    BgSim *sim = s->sim;
    BgSimDiskConfig config = {
        .grows = true, .empty = true,
        .no_zero_write = bgsim_chance(sim, "disk.no-zero", 300),
        .no_fua = bgsim_chance(sim, "disk.no-fua", 300),
        .discard = bgsim_draw(sim, "disk.discard", 4),
        .flush_mode = BGSIM_FLUSH_KEEP,
    };
    SimQcow2 how = {
        .version = 3, .refcount_order = 4, .size = BYTES,
        .cluster_bits = cluster_bits[bgsim_draw(sim, "image.cluster", 3)],
    };

    s->disks[i] = bgsim_disk_new(sim, i == 0 ? "d0" : "d1", &config);
    sim_qcow2_make(s->disks[i], &how);
}

static BlockDriverState *open_image(const CopyCuts *s, int i, GError **errp)
{
    return bdrv_open(bgsim_graph(s->sim), scenario_options(
        "qcow2,node-name=i%d,discard=unmap,file.driver=sim-disk,file.disk=d%d",
        i, i), errp);
}

/* The image that guests write. */
static int active(const CopyCuts *s)
{
    return s->guest ? bdrv_skip_filters(blk_bs(s->guest)) == s->images[1]
                    : s->last;
}

static bool check_images(const CopyCuts *s, const char *when, GError **errp)
{
    return sim_qcow2_check_both(s->disks[0], when, errp) &&
           sim_qcow2_check_both(s->disks[1], when, errp);
}

/* --- jobs ----------------------------------------------------------------- */

/* What the call needs beside its nodes; @incremental: if that makes sense. */
static const char *kind_options(const CopyCuts *s, BlockDriverState *source,
                                bool incremental)
{
    if (s->mirrors) {
        return "sync=full";
    }
    if (!bdrv_find_dirty_bitmap(source, "b")) {
        return "sync=full,resume-bitmap=r"; /* lost before it was stored */
    }
    return incremental && s->copied
               ? "sync=incremental,bitmap=b,resume-bitmap=r"
               : "sync=full,bitmap=b,bitmap-mode=on-success,resume-bitmap=r";
}

static BlockOptions *job_options(const CopyCuts *s, int from, bool incremental)
{
    BlockDriverState *source =
        bdrv_find_node(bgsim_graph(s->sim), from == 0 ? "i0" : "i1");
    BlockOptions *options = scenario_options(
        "x,job-id=j,device=i%d,target=i%d,max-workers=%d,auto-dismiss=off,"
        "speed=%s,%s", from, 1 - from,
        1 + (int)bgsim_draw(s->sim, "job.workers", 4),
        bgsim_chance(s->sim, "job.slow", 300) ? "4M" : "0",
        kind_options(s, source, incremental));

    block_options_remove(options, "driver");
    return options;
}

static BlockJobType job_type(const CopyCuts *s)
{
    return s->mirrors ? BLOCK_JOB_MIRROR : BLOCK_JOB_BACKUP;
}

static void some_verb(void *opaque, BlockJob *job)
{
    const CopyCuts *s = opaque;

    switch (bgsim_draw(s->sim, "verb", 8)) {
    case 0:
        block_job_cancel(job, bgsim_chance(s->sim, "verb.force", 500), NULL);
        break;
    case 1:
        block_job_pause(job, NULL);
        break;
    case 2:
    case 3:
    case 4:
        block_job_complete(job, NULL);
        break;
    default:
        block_job_resume(job, NULL);
        break;
    }
}

static void coroutine_fn drain_a_moment(void *opaque)
{
    const CopyCuts *s = opaque;

    scenario_drain(s->sim, s->images[active(s)]);
}

static void coroutine_fn attempt(CopyCuts *s)
{
    const ScenarioUser user = { .sim = s->sim, .verb = some_verb,
                                .drain = drain_a_moment, .opaque = s };
    g_autoptr(GError) error = NULL;
    BlockJob *job = block_co_job_start(
        bgsim_graph(s->sim), job_type(s),
        job_options(s, active(s), bgsim_draw(s->sim, "job.incremental", 2)),
        &error);
    BlockJobInfo info;

    if (!job) {
        if (!s->faults && !s->given_up) {
            bgsim_violation(s->sim, "job", "%s", error->message);
        }
        return;
    }
    scenario_attend(&user, job);
    scenario_check_job(s->sim, job, s->faults);
    block_job_query(job, &info);
    s->copied = s->copied || info.ret == 0;
    s->given_up = s->given_up || info.cancelled;
    block_job_dismiss(job, NULL);
    block_job_unref(job);
}

static void coroutine_fn jobs_entry(BgSim *sim, void *opaque)
{
    CopyCuts *s = opaque;

    for (int i = 0; i < ATTEMPTS; i++) {
        co_sleep_ns(1 + bgsim_range(sim, "job.at", 0, 300 * 1000));
        attempt(s);
    }
}

/* --- after a cut ---------------------------------------------------------- */

/* The same call as before; somebody asks for its end. */
typedef struct Again {
    CopyCuts *s;
    BlockDriverState *source;
    GError **errp;
} Again;

static int coroutine_fn again_entry(void *opaque)
{
    const Again *again = opaque;
    CopyCuts *s = again->s;
    BlockJob *job = block_co_job_start(
        bgsim_graph(s->sim), job_type(s),
        job_options(s, active(s), bgsim_draw(s->sim, "again", 2)),
        again->errp);
    BlockJobInfo info;
    int ret;

    if (!job) {
        return -EINVAL;
    }
    do {
        co_sleep_ns(100 * 1000);
        bgsim_progress(s->sim);
        block_job_complete(job, NULL);
        block_job_query(job, &info);
    } while (info.status < BLOCK_JOB_CONCLUDED);
    ret = block_co_job_wait(job, again->errp);
    block_job_dismiss(job, NULL);
    block_job_unref(job);
    return ret;
}

static bool read_all(CopyCuts *s, BlockDriverState *bs, uint8_t *buf,
                     GError **errp)
{
    BlockBackend *blk = scenario_backend(s->sim, "compare", bs);
    bool ok = blk_pread(blk, 0, BYTES, buf, 0) == 0;

    blk_unref(blk);
    if (!ok) {
        block_error(errp, EIO, "node '%s' cannot be read", bdrv_node_name(bs));
    }
    return ok;
}

static bool check_same(CopyCuts *s, BlockDriverState **images, GError **errp)
{
    g_autofree uint8_t *a = g_malloc(BYTES);
    g_autofree uint8_t *b = g_malloc(BYTES);

    if (!read_all(s, images[0], a, errp) || !read_all(s, images[1], b, errp)) {
        return false;
    }
    for (int64_t i = 0; i < BYTES; i++) {
        /* Of what failed the copy may have what it saw, and the disk not. */
        if (a[i] != b[i] && bgsim_model_is_settled(s->model, i)) {
            block_error(errp, EILSEQ, "the copy differs at %" G_GINT64_FORMAT,
                        i);
            return false;
        }
    }
    return true;
}

static bool use_images(CopyCuts *s, BlockDriverState **images, GError **errp)
{
    BlockDriverState *source = images[active(s)];
    BlockBackend *blk = scenario_backend(s->sim, "recovery", source);
    Again again = { .s = s, .source = source, .errp = errp };
    AioContext *ctx = bgsim_main_context(s->sim);
    bool ok;

    ok = bgsim_check_durable(blk, s->model, errp) &&
         scenario_rewrite(blk, BYTES / 2 - 512, 1024, errp) &&
         aio_co_run(ctx, again_entry, &again) == 0 &&
         bgsim_check_durable(blk, s->model, errp);
    blk_unref(blk);
    return ok && check_same(s, images, errp);
}

static bool check_state(BgSim *sim, const BgSimCrashState *cut, void *opaque,
                        GError **errp)
{
    CopyCuts *s = opaque;
    BlockDriverState *images[2] = { NULL, NULL };
    bool ok = check_images(s, "after the cut", errp);

    for (int i = 0; ok && i < 2; i++) {
        images[i] = open_image(s, i, errp);
        ok = images[i] != NULL;
    }
    ok = ok && use_images(s, images, errp);
    bdrv_unref(images[1]);
    bdrv_unref(images[0]);
    return ok && check_images(s, "after recovery", errp);
}

/* --- the run -------------------------------------------------------------- */

static bool open_images(CopyCuts *s)
{
    for (int i = 0; i < 2; i++) {
        g_autoptr(GError) error = NULL;

        make_image(s, i);
        s->images[i] = open_image(s, i, &error);
        if (!s->images[i]) {
            bgsim_violation(s->sim, "open", "%s", error->message);
            return false;
        }
    }
    s->guest = scenario_backend(s->sim, "guest", s->images[0]);
    s->model = bgsim_model_new(s->sim, s->guest, "guest", BYTES);
    if (!s->mirrors) {
        BdrvDirtyBitmap *bitmap = bdrv_create_dirty_bitmap(
            s->images[0], 4096 << bgsim_draw(s->sim, "job.granularity", 4),
            "b", NULL);

        bdrv_dirty_bitmap_set_persistence(bitmap, true, NULL);
    }
    return true;
}

static void cuts_setup(BgSim *sim, void *state)
{
    CopyCuts *s = state;

    s->sim = sim;
    s->mirrors = bgsim_chance(sim, "job.mirror", 350);
    if (!open_images(s)) {
        return;
    }
    s->faults = scenario_faults(sim);
    scenario_guests(sim, s->model, &(BgSimGuestConfig){
        .requests = 50, .weight_read = 2, .weight_write = 6, .weight_zero = 2,
        .weight_discard = 2, .weight_flush = 2, .weight_status = 1,
        .errors_expected = s->faults });
    bgsim_spawn(sim, "jobs", NULL, jobs_entry, s);
    for (unsigned i = bgsim_draw(sim, "cuts", 3); i > 0; i--) {
        bgsim_crash_at(sim, bgsim_steps(sim) + 1 +
                                bgsim_draw(sim, "cut.step", 2500),
                       check_state, s, &crash_config);
    }
}

static int coroutine_fn half_entry(void *opaque)
{
    CopyCuts *s = opaque;
    BlockJob *job = block_co_job_start(bgsim_graph(s->sim), job_type(s),
                                       job_options(s, active(s), true), NULL);

    if (job) {
        block_job_set_speed(job, 4 << 20, NULL);
        co_sleep_ns(bgsim_draw(s->sim, "job.half", 150 * 1000 * 1000));
        block_job_cancel(job, true, NULL);
        block_co_job_wait(job, NULL);
        block_job_dismiss(job, NULL);
        block_job_unref(job);
    }
    return 0;
}

static void close_all(CopyCuts *s)
{
    s->last = active(s);
    blk_unref(g_steal_pointer(&s->guest));
    bdrv_unref(s->images[1]);
    bdrv_unref(s->images[0]);
}

static void cuts_verify(BgSim *sim, void *state)
{
    CopyCuts *s = state;
    g_autoptr(GError) error = NULL;

    if (s->guest) {
        scenario_end_jobs(sim, 4);
        scenario_check_content(sim, s->guest, s->model);
        scenario_check_rest(sim);
        aio_co_run(bgsim_main_context(sim), half_entry, s);
        scenario_end_jobs(sim, 4);
        close_all(s);
        if (!check_images(s, "after close", &error) ||
            !bgsim_crash_each(sim, check_state, s, &crash_config, &error)) {
            bgsim_violation(sim, "durability", "%s", error->message);
        }
    }
    scenario_check_empty(sim);
}

const BgSimScenario scenario_copy_cuts = {
    .name = "copy-cuts",
    .help = "power cuts under backups that can be resumed, and mirrors",
    .state_size = sizeof(CopyCuts),
    .setup = cuts_setup,
    .verify = cuts_verify,
};
