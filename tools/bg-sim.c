/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bg-sim: the scenarios that come with the harness, on as many seeds as you
 * like.
 */
#include "sim/scenarios/scenarios.h"

int main(int argc, char **argv)
{
    return bgsim_main(argc, argv, bgsim_builtin_scenarios);
}
