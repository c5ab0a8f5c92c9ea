/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which planted bug this process has.
 */
#include <blockgraph/sim-gen.h>

#include "util/sim-mutant.h"

#ifdef BLOCK_PLANTED

bool bgsim_plant(unsigned n)
{
    sim_planted = n;
    return true;
}

#else

bool bgsim_plant(unsigned n)
{
    return n == 0;
}

#endif /* BLOCK_PLANTED */
