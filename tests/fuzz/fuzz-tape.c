/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An input is a choice tape: whatever the choices, the smallest scenario runs
 * well, and its run is replayed by the tape that it has made.
 */
#include <string.h>

#include "sim/scenarios/scenarios.h"
#include "sim/supervise.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static Tape *made;

static void keep_tape(BgSim *sim, void *opaque)
{
    tape_free(made);
    made = tape_new_replay(sim->tape);
}

/* The choices have gone to the streams of their labels. */
static Tape *without_bytes(void)
{
    Tape *tape = tape_new_replay(made);

    g_ptr_array_remove_index(tape->streams, 0);
    memset(tape->cache_key, 0, sizeof(tape->cache_key));
    return tape;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    SimHow how = { .scenario = &scenario_smoke, .ended = keep_tape };
    BgSimResult first;
    BgSimResult second;

    how.tape = tape_new_bytes(data, size);
    sim_scenario_run(&how, &first);
    if (first.failed) {
        g_error("%s: %s", first.oracle, first.message);
    }
    how.tape = without_bytes();
    sim_scenario_run(&how, &second);
    g_assert(!second.failed && second.trace_hash == first.trace_hash);
    return 0;
}
