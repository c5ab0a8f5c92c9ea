/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What scenarios of jobs share: a user who asks verbs at random, and what must
 * be true of a job in the end.
 */
#ifndef SIM_SCENARIOS_ATTEND_H
#define SIM_SCENARIOS_ATTEND_H

#include "sim/scenarios/scenarios.h"

#include <blockgraph/job.h>

/** The user of a job. */
typedef struct ScenarioUser {
    BgSim *sim;
    /** One verb; whether it is allowed is the job's business. */
    void (*verb)(void *opaque, BlockJob *job);
    /** Drain some node for a moment. */
    void coroutine_fn (*drain)(void *opaque);
    /** Look at what goes on, between two verbs; or NULL. */
    void (*look)(void *opaque);
    void *opaque;
} ScenarioUser;

/** Ask verbs until @job is over; in the end, let it go on. */
void coroutine_fn scenario_attend(const ScenarioUser *user, BlockJob *job);

/** No more jobs have one user. */
#define SCENARIO_JOBS 4

/** The same for @nr jobs at once, which may depend on each other. */
void coroutine_fn scenario_attend_all(const ScenarioUser *user,
                                      BlockJob *const *jobs, int nr);

/** One to three guests on @model, in drawn threads, that write more than they
 * read; depth, length and pace are drawn. */
void scenario_guests(BgSim *sim, BgSimModel *model,
                     const BgSimGuestConfig *config);

/** One of the verbs that all jobs are asked: @which is 0 to cancel, 1 or 2 to
 * pause, 3 to change the speed, any other to go on. */
void scenario_verb(BgSim *sim, BlockJob *job, int which);

/** What to do with errors, drawn; a constant. */
const char *scenario_policy(BgSim *sim);

/** A drained section of @bs, for at most 100 us. */
void coroutine_fn scenario_drain(BgSim *sim, BlockDriverState *bs);

/** @job is over: its progress is right, and it has not failed unless it was
 * cancelled, or there are @faults. */
void scenario_check_job(BgSim *sim, BlockJob *job, bool faults);

/** Cancel all jobs, wait until at most @nodes are left: what remains of jobs
 * that were given up goes when their requests return. */
void scenario_end_jobs(BgSim *sim, unsigned nodes);

#endif /* SIM_SCENARIOS_ATTEND_H */
