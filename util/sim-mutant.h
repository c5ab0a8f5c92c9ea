/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Planted bugs: proof that the oracles of the simulation see.
 *
 * Only a build with the meson option planted_bugs has them, and only the one
 * whose number was selected is active.  tests/scenario/planted.txt lists them
 * with the scenario that has to find each.
 */
#ifndef UTIL_SIM_MUTANT_H
#define UTIL_SIM_MUTANT_H

#ifdef BLOCK_PLANTED

/** The active planted bug; 0: none.  Set before a world is made. */
extern unsigned sim_planted;

/** Whether planted bug @n is active. */
#define SIM_PLANTED(n) (__builtin_expect(sim_planted == (n), 0))

#else

#define SIM_PLANTED(n) 0

#endif /* BLOCK_PLANTED */

#endif /* UTIL_SIM_MUTANT_H */
