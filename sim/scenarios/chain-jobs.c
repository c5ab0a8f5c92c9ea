/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Stream and commit: guests write the highest image of a chain, jobs make the
 * chain shorter, and somebody asks verbs of them at random; power cuts.
 *
 * The oracle: what guests see never changes but by their writes, whatever
 * layers are left; layers that a job has done with are not in the chain any
 * more; and what the images say of their backing files leads to the same
 * content, at the end and after a power cut, when the work can be done again.
 */
#include "sim/scenarios/attend.h"
#include "sim/scenarios/image-chain.h"

#include <blockgraph/driver.h>

#define TASKS 2
#define ATTEMPTS 3
#define NO_IMAGE 31 /* a bit: no backing file is named */

static const BgSimCrashConfig crash_config = {
    .all_below = 16, .sample = 6, .second_every = 8,
};

typedef struct ChainJobs ChainJobs;

/* One after the other, jobs on some part of the chain. */
typedef struct ChainTask {
    ChainJobs *s;
    char id[4];
    BlockJobType type;
    bool active;        /* a commit of the highest layer */
    BlockDriverState *layers[SIM_CHAIN_IMAGES]; /* highest first */
    int nr;
    int upper, lower;   /* what goes is from upper to before lower */
} ChainTask;

struct ChainJobs {
    BgSim *sim;
    SimChain chain;
    BlockBackend *guest;
    ChainTask tasks[TASKS];
    int nr_tasks, nr_running;
    bool faults;
    bool given_up;      /* a cancelled job may still wait for a slow disk */
    int last;           /* the image that guests wrote at the end */
    uint32_t named[SIM_CHAIN_IMAGES]; /* a bit: image may be named so */
};

/* --- the chain ------------------------------------------------------------ */

/* The layers that guests see, highest first. */
static int list_layers(const ChainJobs *s, BlockDriverState **ret)
{
    BlockDriverState *bs = bdrv_skip_filters(blk_bs(s->guest));
    BdrvChild *below;
    int nr = 0;

    for (; bs; bs = below ? bdrv_skip_filters(bdrv_child_bs(below)) : NULL) {
        g_assert(nr < SIM_CHAIN_IMAGES);
        ret[nr++] = bs;
        below = bdrv_cow_child(bs);
    }
    return nr;
}

/* The image that guests write. */
static int highest(const ChainJobs *s)
{
    return s->guest ? sim_chain_index(bdrv_skip_filters(blk_bs(s->guest)))
                    : s->last;
}

/* --- options -------------------------------------------------------------- */

static int draw_between(BgSim *sim, int first, int last)
{
    return first + bgsim_draw(sim, "job.layer", last - first + 1);
}

/* Which kind of job on which layers; false: the chain is too short. */
static bool draw_job(ChainTask *t)
{
    BgSim *sim = t->s->sim;
    unsigned kind = bgsim_draw(sim, "job.kind", 3);

    t->nr = list_layers(t->s, t->layers);
    if (t->nr < 2) {
        return false;
    }
    t->active = kind == 2;
    t->type = kind == 0 || (kind == 1 && t->nr < 3) ? BLOCK_JOB_STREAM
                                                    : BLOCK_JOB_COMMIT;
    if (t->type == BLOCK_JOB_STREAM) {
        t->upper = draw_between(sim, 0, t->nr - 2) + 1;
        t->lower = draw_between(sim, t->upper, t->nr);
    } else {
        t->upper = t->active ? 0 : draw_between(sim, 1, t->nr - 2);
        t->lower = draw_between(sim, t->upper + 1, t->nr - 1);
    }
    return true;
}

static const char *layer_name(const ChainTask *t, int i)
{
    return bdrv_node_name(t->layers[i]);
}

/* "base=...,backing-file=...", as far as there are these. */
static char *base_options(const ChainTask *t)
{
    int i = t->lower < t->nr ? sim_chain_index(t->layers[t->lower]) : -1;

    if (i < 0) {
        return g_strdup("");
    }
    return t->active
               ? g_strdup_printf(",base=%s", layer_name(t, t->lower))
               : g_strdup_printf(",base=%s,backing-file=%s",
                                 layer_name(t, t->lower),
                                 t->s->chain.images[i].file_name);
}

static BlockOptions *job_options(const ChainTask *t)
{
    BgSim *sim = t->s->sim;
    g_autofree char *base = base_options(t);
    g_autofree char *top = t->type == BLOCK_JOB_COMMIT && !t->active
        ? g_strdup_printf(",top=%s", layer_name(t, t->upper)) : g_strdup("");
    int device = t->type == BLOCK_JOB_STREAM ? t->upper - 1 : 0;
    BlockOptions *options = scenario_options(
        "x,job-id=%s,device=%s%s%s,auto-dismiss=off,auto-finalize=%s,"
        "on-error=%s,max-workers=%d,speed=%s", t->id, layer_name(t, device),
        base, top, bgsim_chance(sim, "job.finalize", 800) ? "on" : "off",
        scenario_policy(sim), 1 + (int)bgsim_draw(sim, "job.workers", 4),
        bgsim_chance(sim, "job.slow", 200) ? "1M" : "0");

    block_options_remove(options, "driver");
    return options;
}

/* Images that may name the base from now on: those above, also when they are no
 * part of the chain any more but are open still. */
static void note_names(const ChainTask *t)
{
    uint32_t name = t->lower == t->nr
        ? 1u << NO_IMAGE : 1u << sim_chain_index(t->layers[t->lower]);

    for (int i = sim_chain_index(t->layers[t->upper]) + 1;
         i < t->s->chain.nr; i++) {
        t->s->named[i] |= name;
    }
}

/* --- a job ---------------------------------------------------------------- */

static void some_verb(void *opaque, BlockJob *job)
{
    const ChainTask *t = opaque;
    BgSim *sim = t->s->sim;

    switch (bgsim_draw(sim, "verb", 14)) {
    case 0:
        block_job_cancel(job, bgsim_chance(sim, "verb.force", 500), NULL);
        break;
    case 1:
    case 2:
        block_job_pause(job, NULL);
        break;
    case 3:
        block_job_set_speed(job, bgsim_chance(sim, "verb.slow", 300)
                                     ? 4 << 20 : 0, NULL);
        break;
    case 4:
    case 5:
    case 6:
    case 7:
    case 8:
        block_job_complete(job, NULL);
        break;
    default:
        block_job_resume(job, NULL);
        block_job_finalize(job, NULL);
        break;
    }
}

static void coroutine_fn drain_a_moment(void *opaque)
{
    const ChainTask *t = opaque;
    BlockDriverState *layers[SIM_CHAIN_IMAGES];
    int nr = list_layers(t->s, layers);
    BlockDriverState *bs = bdrv_ref(
        layers[bgsim_draw(t->s->sim, "drain.layer", nr)]);

    scenario_drain(t->s->sim, bs);
    bdrv_co_unref(bs);
}

static BlockJob *coroutine_fn start_job(ChainTask *t)
{
    ChainJobs *s = t->s;
    bool alone = s->nr_running == 0;
    g_autoptr(GError) error = NULL;
    BlockJob *job;

    s->nr_running++;
    note_names(t);
    bgsim_op_begin(s->sim, BGSIM_OP_INSERT);
    job = block_co_job_start(bgsim_graph(s->sim), t->type, job_options(t),
                             &error);
    bgsim_op_end(s->sim, BGSIM_OP_INSERT);
    if (!job) {
        s->nr_running--;
    }
    if (!job && alone && s->nr_tasks == 1 && !s->faults && !s->given_up) {
        bgsim_violation(s->sim, "job", "%s", error->message);
    }
    return job;
}

/* The names of the layers that were to go, which may be closed by now. */
typedef struct Gone {
    int images[SIM_CHAIN_IMAGES];
    int nr;
} Gone;

static void check_gone(const ChainJobs *s, const Gone *gone)
{
    BlockDriverState *layers[SIM_CHAIN_IMAGES];
    int nr = list_layers(s, layers);

    for (int i = 0; i < gone->nr; i++) {
        for (int j = 0; j < nr; j++) {
            if (sim_chain_index(layers[j]) == gone->images[i]) {
                bgsim_violation(s->sim, "job", "node '%s' is in the chain "
                                "still", bdrv_node_name(layers[j]));
            }
        }
    }
}

static void coroutine_fn attempt(ChainTask *t)
{
    ChainJobs *s = t->s;
    const ScenarioUser user = { .sim = s->sim, .verb = some_verb,
                                .drain = drain_a_moment, .opaque = t };
    Gone gone = { .nr = 0 };
    BlockJobInfo info;
    BlockJob *job;

    if (!draw_job(t)) {
        return;
    }
    for (int i = t->upper; i < t->lower; i++) {
        gone.images[gone.nr++] = sim_chain_index(t->layers[i]);
    }
    job = start_job(t);
    if (!job) {
        return;
    }
    scenario_attend(&user, job);
    s->nr_running--;
    scenario_check_job(s->sim, job, s->faults);
    block_job_query(job, &info);
    /* A commit of the highest layer may have ended where it was, and others
     * may have left out what was between. */
    if (info.ret == 0 && s->nr_tasks == 1 &&
        (!t->active || highest(s) != gone.images[0])) {
        check_gone(s, &gone);
    }
    s->given_up = s->given_up || info.cancelled;
    block_job_dismiss(job, NULL);
    block_job_unref(job);
}

static void coroutine_fn task_entry(BgSim *sim, void *opaque)
{
    ChainTask *t = opaque;

    for (int i = 0; i < ATTEMPTS; i++) {
        co_sleep_ns(1 + bgsim_range(sim, "job.at", 0, 300 * 1000));
        attempt(t);
    }
}

/* --- power cuts ----------------------------------------------------------- */

/* Somebody who does the work again. */
typedef struct Again {
    BgSim *sim;
    BlockDriverState *bs;
    GError **errp;
} Again;

static BlockOptions *again_options(const Again *again, BlockJobType type)
{
    BlockOptions *options = scenario_options(
        "x,job-id=again,device=%s", bdrv_node_name(again->bs));

    block_options_remove(options, "driver");
    if (type == BLOCK_JOB_COMMIT) {
        block_options_set_str(options, "on-error", "report");
    }
    return options;
}

static int coroutine_fn again_entry(void *opaque)
{
    const Again *again = opaque;
    BlockJobType type = bdrv_cow_child(again->bs) &&
                                bgsim_draw(again->sim, "again", 2)
                            ? BLOCK_JOB_COMMIT : BLOCK_JOB_STREAM;
    BlockJob *job = block_co_job_start(bgsim_graph(again->sim), type,
                                       again_options(again, type),
                                       again->errp);
    BlockJobInfo info;
    int ret;

    if (!job) {
        return -1;
    }
    do {
        co_sleep_ns(100 * 1000);
        bgsim_progress(again->sim);
        block_job_complete(job, NULL);
        block_job_query(job, &info);
    } while (info.status < BLOCK_JOB_CONCLUDED);
    ret = block_co_job_wait(job, again->errp);
    block_job_unref(job);
    return ret;
}

/* The chain is whole; then it is made one image, and is so still. */
static bool use_chain(ChainJobs *s, BlockDriverState *bs, GError **errp)
{
    BlockBackend *blk = scenario_backend(s->sim, "recovery", bs);
    Again again = { .sim = s->sim, .bs = bs, .errp = errp };
    BlockGraph *graph = bgsim_graph(s->sim);
    bool ok;

    ok = bgsim_check_durable(blk, s->chain.model, errp) &&
         scenario_rewrite(blk, SIM_CHAIN_BYTES / 2 - 512, 1024, errp) &&
         aio_co_run(block_graph_aio_context(graph), again_entry,
                    &again) == 0 &&
         bgsim_check_durable(blk, s->chain.model, errp);
    blk_unref(blk);
    return ok;
}

static bool check_state(BgSim *sim, const BgSimCrashState *cut, void *opaque,
                        GError **errp)
{
    ChainJobs *s = opaque;
    BlockDriverState *bs;
    bool ok;

    if (!sim_chain_check(&s->chain, "after the cut", false, errp)) {
        return false;
    }
    bs = sim_chain_open(&s->chain, highest(s), errp);
    if (!bs) {
        return false;
    }
    ok = use_chain(s, bs, errp);
    bdrv_unref(bs);
    return ok && sim_chain_check(&s->chain, "after recovery", false, errp);
}

static void plan_cuts(ChainJobs *s)
{
    BgSim *sim = s->sim;

    if (!bgsim_chance(sim, "cuts", 120)) {
        return;
    }
    for (unsigned i = 0; i < 1 + bgsim_draw(sim, "cuts", 3); i++) {
        bgsim_crash_at(sim, bgsim_steps(sim) + 1 +
                                bgsim_draw(sim, "cut.step", 3000),
                       check_state, s, &crash_config);
    }
}

/* --- the run -------------------------------------------------------------- */

static void chain_setup(BgSim *sim, void *state)
{
    ChainJobs *s = state;
    g_autoptr(GError) error = NULL;
    BlockDriverState *bs;

    s->sim = sim;
    if (!sim_chain_make(sim, &s->chain)) {
        return;
    }
    for (int i = 0; i < s->chain.nr; i++) {
        s->named[i] = 1u << (i > 0 ? i - 1 : NO_IMAGE);
    }
    bs = sim_chain_open(&s->chain, s->chain.nr - 1, &error);
    if (!bs) {
        bgsim_violation(sim, "open", "%s", error->message);
        return;
    }
    s->guest = scenario_backend(sim, "guest", bs);
    bdrv_unref(bs);
    bgsim_model_set_backend(s->chain.model, s->guest);
    s->faults = scenario_faults(sim);
    scenario_guests(sim, s->chain.model, &(BgSimGuestConfig){
        .requests = 60, .weight_read = 4, .weight_write = 6, .weight_zero = 2,
        .weight_discard = 2, .weight_flush = 2, .weight_status = 1,
        .errors_expected = s->faults });
    s->nr_tasks = 1 + bgsim_draw(sim, "tasks", TASKS);
    for (int i = 0; i < s->nr_tasks; i++) {
        s->tasks[i].s = s;
        g_snprintf(s->tasks[i].id, sizeof(s->tasks[i].id), "j%d", i);
        bgsim_spawn(sim, s->tasks[i].id, NULL, task_entry, &s->tasks[i]);
    }
    plan_cuts(s);
}

/* The images say what the jobs have told them. */
static void check_names(const ChainJobs *s)
{
    for (int i = 0; i < s->chain.nr; i++) {
        g_autoptr(GError) error = NULL;
        int below = sim_chain_below(&s->chain, i, &error);

        if (below == -2) {
            bgsim_violation(s->sim, "name", "%s", error->message);
        } else if (!(s->named[i] & 1u << (below < 0 ? NO_IMAGE : below))) {
            bgsim_violation(s->sim, "name", "image %d names image %d", i,
                            below);
        }
    }
}

/* What guests have written; if the end could not store all and has said so,
 * then at least what they had flushed. */
static void check_stored(const ChainJobs *s, BlockBackend *blk)
{
    g_autoptr(GError) error = NULL;

    if (block_graph_nr_losses(bgsim_graph(s->sim)) == 0) {
        scenario_check_content(s->sim, blk, s->chain.model);
    } else if (!bgsim_check_durable(blk, s->chain.model, &error)) {
        bgsim_violation(s->sim, "durability", "%s", error->message);
    }
}

/* And they lead to the same content. */
static void check_images(ChainJobs *s)
{
    g_autoptr(GError) error = NULL;
    BlockDriverState *bs;
    BlockBackend *blk;

    if (!sim_chain_check(&s->chain, "after close", !s->faults, &error)) {
        bgsim_violation(s->sim, "metadata", "%s", error->message);
        return;
    }
    bs = sim_chain_open(&s->chain, s->last, &error);
    if (!bs) {
        bgsim_violation(s->sim, "open", "%s", error->message);
        return;
    }
    blk = scenario_backend(s->sim, "again", bs);
    check_stored(s, blk);
    blk_unref(blk);
    bdrv_unref(bs);
}

static void chain_verify(BgSim *sim, void *state)
{
    ChainJobs *s = state;
    BlockDriverState *layers[SIM_CHAIN_IMAGES];

    if (s->guest) {
        scenario_end_jobs(sim, 2 * list_layers(s, layers));
        scenario_check_content(sim, s->guest, s->chain.model);
        scenario_check_rest(sim);
        s->last = highest(s);
        blk_unref(g_steal_pointer(&s->guest));
        check_names(s);
        check_images(s);
    }
    scenario_check_empty(sim);
}

const BgSimScenario scenario_chain_jobs = {
    .name = "chain-jobs",
    .help = "guests on a chain of images, stream and commit, power cuts",
    .state_size = sizeof(ChainJobs),
    .setup = chain_setup,
    .verify = chain_verify,
    .threads_too = true,
};
