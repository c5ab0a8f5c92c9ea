/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The user of a job in scenarios.
 */
#include "sim/scenarios/attend.h"

#include <blockgraph/driver.h>

const char *scenario_policy(BgSim *sim)
{
    static const char *const policies[] = { "report", "ignore", "stop",
                                            "enospc" };

    return policies[bgsim_draw(sim, "job.policy", G_N_ELEMENTS(policies))];
}

void scenario_verb(BgSim *sim, BlockJob *job, int which)
{
    switch (which) {
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
    default:
        block_job_resume(job, NULL);
        block_job_finalize(job, NULL);
        break;
    }
}

void scenario_guests(BgSim *sim, BgSimModel *model,
                     const BgSimGuestConfig *config)
{
    for (unsigned i = 0; i < 1 + bgsim_draw(sim, "guests", 3); i++) {
        g_autofree char *name = g_strdup_printf("guest%u", i);
        BgSimGuestConfig drawn = *config;

        drawn.depth = 1 + bgsim_draw(sim, "guest.depth", 6);
        drawn.max_bytes = 4096 << bgsim_draw(sim, "guest.bytes", 6);
        drawn.think_ns = bgsim_draw(sim, "guest.think", 3) * 50000;
        bgsim_guest_start(model, name, scenario_thread(sim, 3), &drawn);
    }
}

void coroutine_fn scenario_drain(BgSim *sim, BlockDriverState *bs)
{
    bgsim_op_begin(sim, BGSIM_OP_DRAIN);
    bdrv_co_drained_begin(bs);
    co_sleep_ns(bgsim_draw(sim, "drain.time", 100 * 1000));
    bdrv_drained_end(bs);
    bgsim_op_end(sim, BGSIM_OP_DRAIN);
}

static void look(const ScenarioUser *user)
{
    if (user->look) {
        user->look(user->opaque);
    }
}

/* One of @jobs that is not over, drawn; or NULL. */
static BlockJob *pick_job(BgSim *sim, BlockJob *const *jobs, int nr)
{
    BlockJob *left[SCENARIO_JOBS];
    int nr_left = 0;

    g_assert(nr <= SCENARIO_JOBS);
    for (int i = 0; i < nr; i++) {
        BlockJobInfo info;

        block_job_query(jobs[i], &info);
        if (info.status < BLOCK_JOB_CONCLUDED) {
            left[nr_left++] = jobs[i];
        }
    }
    return nr_left == 0 ? NULL
           : left[nr_left > 1 ? bgsim_draw(sim, "verb.job", nr_left) : 0];
}

void coroutine_fn scenario_attend_all(const ScenarioUser *user,
                                      BlockJob *const *jobs, int nr)
{
    BgSim *sim = user->sim;
    BlockJob *job;

    for (int i = 0; (job = pick_job(sim, jobs, nr)); i++) {
        bool last = i > 200;

        if (last || bgsim_chance(sim, "verb.calm", 700)) {
            /* Who waits for somebody goes on. */
            block_job_resume(job, NULL);
            block_job_finalize(job, NULL);
            if (last && i % 100 == 0) {
                block_job_cancel(job, true, NULL);
            }
        } else if (bgsim_chance(sim, "verb.drain", 100)) {
            user->drain(user->opaque);
        } else {
            user->verb(user->opaque, job);
        }
        look(user);
        /* A dull tape must not make a job's own waits endless. */
        co_sleep_ns((last ? 1000 * 1000 : 1) +
                    bgsim_draw(sim, "verb.pause", 200 * 1000));
        look(user);
        bgsim_progress(sim);
    }
}

void coroutine_fn scenario_attend(const ScenarioUser *user, BlockJob *job)
{
    scenario_attend_all(user, &job, 1);
}

void scenario_check_job(BgSim *sim, BlockJob *job, bool faults)
{
    BlockJobInfo info;

    block_job_query(job, &info);
    if (info.current_progress > info.total_progress ||
        (info.ret == 0 && info.current_progress != info.total_progress)) {
        bgsim_violation(sim, "job", "progress %" G_GINT64_FORMAT " of %"
                        G_GINT64_FORMAT ", result %d", info.current_progress,
                        info.total_progress, info.ret);
    }
    if (info.ret < 0 && !faults && !info.cancelled) {
        bgsim_violation(sim, "job", "failed: %s",
                        info.error ? info.error : "no text");
    }
}

typedef struct Rest {
    BgSim *sim;
    unsigned nodes;
} Rest;

static int coroutine_fn settle_entry(void *opaque)
{
    const Rest *rest = opaque;
    BlockGraph *graph = bgsim_graph(rest->sim);

    while (block_graph_nr_nodes(graph) > rest->nodes) {
        co_sleep_ns(1000 * 1000);
    }
    bdrv_co_drain_all_begin(graph);
    bdrv_drain_all_end(graph);
    return 0;
}

void scenario_end_jobs(BgSim *sim, unsigned nodes)
{
    Rest rest = { .sim = sim, .nodes = nodes };
    BlockGraph *graph = bgsim_graph(sim);

    block_job_cancel_all(graph);
    aio_co_run(block_graph_aio_context(graph), settle_entry, &rest);
}
