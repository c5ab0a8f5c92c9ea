/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Power cuts.
 */
#include "sim/sim-int.h"

void sim_crash_run_plans(BgSim *sim)
{
}
