/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What has happened: a hash of all of it, and the last part in words.
 */
#include "sim/sim-int.h"

/* How much is kept when nobody asked for all. */
#define TRACE_KEPT 512

static uint64_t mix(uint64_t hash, uint64_t x)
{
    hash = (hash << 5 | hash >> 59) ^ x;
    return hash * UINT64_C(0x9E3779B97F4A7C15);
}

/* Texts are hashed by content: addresses differ from build to build. */
static uint64_t mix_text(uint64_t hash, const char *text)
{
    for (; *text; text++) {
        hash = (hash ^ (unsigned char)*text) * UINT64_C(0x100000001B3);
    }
    return mix(hash, 0);
}

void sim_trace_keep(BgSim *sim, const SimTraceEntry *entry)
{
    if (sim->config.record || sim->trace->len < TRACE_KEPT) {
        g_array_append_val(sim->trace, *entry);
        return;
    }
    g_array_index(sim->trace, SimTraceEntry, sim->trace_next) = *entry;
    sim->trace_next = (sim->trace_next + 1) % TRACE_KEPT;
}

void bgsim_trace(BgSim *sim, const char *what, uint64_t a, uint64_t b)
{
    SimTraceEntry entry = { sim->steps, sim->now_ns, sim->running, what, a,
                            b };

    if (sim->threads_mode) {
        return;
    }
    sim->trace_hash = mix_text(sim->trace_hash, what);
    sim->trace_hash = mix(sim->trace_hash, a);
    sim->trace_hash = mix(sim->trace_hash, b);
    sim->trace_hash = mix(sim->trace_hash, sim->now_ns);
    sim->trace_hash = mix(sim->trace_hash, sim->running);
    sim_trace_keep(sim, &entry);
}

uint64_t bgsim_trace_hash(BgSim *sim)
{
    return sim->trace_hash;
}

char *sim_trace_text(BgSim *sim, unsigned n)
{
    GString *text = g_string_new(NULL);
    guint len = sim->trace->len;
    guint skip = !sim->config.record && len > n ? len - n : 0;

    for (guint i = skip; i < len; i++) {
        const SimTraceEntry *e = &g_array_index(sim->trace, SimTraceEntry,
                                                (sim->trace_next + i) % len);
        g_autofree char *actor = sim_actor_name(sim, e->actor);

        g_string_append_printf(text, "%8" G_GUINT64_FORMAT " %12.3f us  %-24s "
                               "%s %" G_GUINT64_FORMAT " %" G_GUINT64_FORMAT
                               "\n", e->step, e->at_ns / 1000.0, actor,
                               e->what, e->a, e->b);
    }
    return g_string_free(text, FALSE);
}
