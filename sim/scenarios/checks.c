/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How scenarios end: the oracles at rest, as violations.
 */
#include "sim/scenarios/scenarios.h"

void scenario_check_rest(BgSim *sim)
{
    g_autoptr(GError) error = NULL;

    if (!bgsim_check_graph(sim, &error)) {
        bgsim_violation(sim, "graph", "%s", error->message);
    }
}

void scenario_check_empty(BgSim *sim)
{
    g_autoptr(GError) error = NULL;

    if (!bgsim_check_empty(sim, &error)) {
        bgsim_violation(sim, "empty", "%s", error->message);
    }
}

void scenario_check_content(BgSim *sim, BlockBackend *blk, BgSimModel *model)
{
    g_autoptr(GError) error = NULL;

    if (!bgsim_check_equal(blk, model, &error)) {
        bgsim_violation(sim, "content", "%s", error->message);
    }
}
