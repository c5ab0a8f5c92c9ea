/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The list of the scenarios that come with the harness.
 */
#include "sim/scenarios/scenarios.h"

const BgSimScenario *const bgsim_builtin_scenarios[] = {
    &scenario_smoke,
    &scenario_raw,
    &scenario_graph,
    &scenario_crash,
    &scenario_stop,
    &scenario_file,
    &scenario_qcow2,
    &scenario_qcow2_ops,
    &scenario_fleecing,
    &scenario_backup,
    &scenario_mirror,
    &scenario_chain_jobs,
    &scenario_copy_cuts,
    &scenario_job_grid,
    &scenario_transactions,
    &scenario_copy_on_read,
    &scenario_bitmaps,
    &scenario_speed,
    &scenario_canary,
    NULL,
};
