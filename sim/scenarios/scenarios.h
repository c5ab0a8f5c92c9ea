/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The scenarios that come with the harness, and what they share.
 */
#ifndef SIM_SCENARIOS_H
#define SIM_SCENARIOS_H

#include <blockgraph/sim-disk.h>
#include <blockgraph/sim-fault.h>
#include <blockgraph/sim-gen.h>
#include <blockgraph/sim-oracle.h>

/** All of them; ends with NULL. */
extern const BgSimScenario *const bgsim_builtin_scenarios[];

extern const BgSimScenario scenario_smoke;  /* smoke.c: the smallest */
extern const BgSimScenario scenario_canary; /* canary.c: fails on purpose */
extern const BgSimScenario scenario_raw;   /* raw.c: guests on a raw node */
extern const BgSimScenario scenario_speed; /* raw.c: how fast that is */
extern const BgSimScenario scenario_crash; /* crash.c: power cuts */
extern const BgSimScenario scenario_graph; /* graph.c: a graph that changes */
extern const BgSimScenario scenario_stop;  /* stop.c: on-error=stop, resume */
extern const BgSimScenario scenario_file;  /* file.c: the file driver */
extern const BgSimScenario scenario_qcow2; /* qcow2.c: tiny images */
extern const BgSimScenario scenario_qcow2_ops; /* qcow2-ops.c: all of them */

extern const BgSimScenario scenario_fleecing; /* fleecing.c: points in time */
/* copy-on-read.c: an image that keeps what it reads from backing files */
extern const BgSimScenario scenario_copy_on_read;
extern const BgSimScenario scenario_bitmaps; /* bitmaps.c: dirty bitmaps */

extern const BgSimScenario scenario_backup; /* backup.c: jobs of that kind */
extern const BgSimScenario scenario_mirror; /* mirror.c: and of that one */
/* chain-jobs.c: stream and commit */
extern const BgSimScenario scenario_chain_jobs;
extern const BgSimScenario scenario_copy_cuts; /* copy-cuts.c: and power cuts */
extern const BgSimScenario scenario_job_grid; /* job-grid.c: step by step */
/* transactions.c: several actions at one moment */
extern const BgSimScenario scenario_transactions;

/** Options of "driver,key=value,..."; printf-like.  Must parse. */
BlockOptions *scenario_options(const char *format, ...) G_GNUC_PRINTF(1, 2);

/** Open a node that must open: else a violation "open", and NULL. */
BlockDriverState *scenario_open(BgSim *sim, const char *format, ...)
    G_GNUC_PRINTF(2, 3);

/** A disk @name, and an opened raw node of this name on it; else NULL. */
BlockDriverState *scenario_open_raw(BgSim *sim, const char *name,
                                    int64_t bytes);

/** A backend on @bs that reads and writes, and shares everything. */
BlockBackend *scenario_backend(BgSim *sim, const char *name,
                               BlockDriverState *bs);

/**
 * Run @entry(@opaque) in the main context to its end; it fills the node @bs,
 * which is closed then, by *@model, which is made if it is NULL, of @length
 * bytes.
 */
void scenario_fill(BgSim *sim, BlockDriverState *bs, BgSimModel **model,
                   int64_t length, BgSimEntry *entry, void *opaque);

/** A context: the main one, or one of up to @n virtual threads; drawn. */
AioContext *scenario_thread(BgSim *sim, unsigned n);

/** A disk of @size bytes with drawn manners; its node is opened by name. */
BgSimDisk *scenario_disk(BgSim *sim, const char *name, int64_t size);

/** Turn faults by chance on, with drawn dials.  Returns whether there are. */
bool scenario_faults(BgSim *sim);

/** The end of every scenario: the graph oracle at rest, then emptiness. */
void scenario_check_rest(BgSim *sim);
void scenario_check_empty(BgSim *sim);

/**
 * Write what is there at [@offset, +@bytes) (at most 4096) once more, flush:
 * a recovery that changes the disk and leaves the same content, so the power
 * may be cut again at any step.  False with @errp.
 */
bool scenario_rewrite(BlockBackend *blk, int64_t offset, int64_t bytes,
                      GError **errp);

/** bgsim_check_equal() as a violation. */
void scenario_check_content(BgSim *sim, BlockBackend *blk, BgSimModel *model);

#endif /* SIM_SCENARIOS_H */
