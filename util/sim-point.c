/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What named points need of the library; nothing outside simulations.
 */
#include "util/sim-point.h"

#include "util/coroutine-int.h"
#include "util/sim-mutant.h"

#ifdef BLOCK_PLANTED
unsigned sim_planted;
#endif

#ifdef BLOCK_SIM

const SimHooks *sim_hooks;

void sim_note_wait(const char *what, const void *object)
{
    Coroutine *self = coroutine_self();

    if (self) {
        self->wait_what = what;
        self->wait_object = object;
    }
}

#endif /* BLOCK_SIM */
