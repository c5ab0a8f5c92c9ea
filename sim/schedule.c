/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Decisions of the scheduler by name: who was chosen, and to do what.
 *
 * A decision stands at a position: the how-manieth choice among several.  In a
 * regression file only those are kept that differ from "the first in line".
 * One that names somebody who is not ready there is reported, and the first in
 * line goes on.
 */
#include "sim/supervise.h"

#include <blockgraph/error.h>
#include <errno.h>
#include <string.h>

/* The one that this process records or replays. */
static struct {
    GPtrArray *decisions;
    GString *notes;      /* NULL: recording */
    uint64_t position;
    guint next;          /* replay: the first decision not behind us */
} state;

static void decision_free(gpointer opaque)
{
    SimDecision *decision = opaque;

    g_free(decision->actor);
    g_free(decision->what);
    g_free(decision);
}

GPtrArray *sim_decisions_new(void)
{
    return g_ptr_array_new_with_free_func(decision_free);
}

static const SimReady *ready_at(BgSim *sim, unsigned i)
{
    return &g_array_index(sim->ready, SimReady, i);
}

/* How many before @index are of the same actor and do the same. */
static unsigned nth_of(BgSim *sim, unsigned index)
{
    const SimReady *it = ready_at(sim, index);
    unsigned nth = 0;

    for (unsigned i = 0; i < index; i++) {
        const SimReady *other = ready_at(sim, i);

        nth += other->actor == it->actor &&
               strcmp(sim_ready_what(other), sim_ready_what(it)) == 0;
    }
    return nth;
}

/* --- recording ------------------------------------------------------------ */

static void record(BgSim *sim, unsigned index, void *opaque)
{
    SimDecision *decision;

    if (index > 0) {
        decision = g_new0(SimDecision, 1);
        decision->position = state.position;
        decision->value = index;
        decision->bound = sim->ready->len;
        decision->actor = sim_actor_name(sim, ready_at(sim, index)->actor);
        decision->what = g_strdup(sim_ready_what(ready_at(sim, index)));
        decision->nth = nth_of(sim, index);
        g_ptr_array_add(state.decisions, decision);
    }
    state.position++;
}

void sim_decisions_record(GPtrArray *into)
{
    static const SimChooser recorder = { NULL, record, NULL };

    state.decisions = into;
    state.notes = NULL;
    state.position = 0;
    sim_chooser = &recorder;
}

/* --- replay --------------------------------------------------------------- */

static bool is_meant(BgSim *sim, const SimDecision *decision, unsigned index)
{
    const SimReady *ready = ready_at(sim, index);
    g_autofree char *actor = sim_actor_name(sim, ready->actor);

    return strcmp(actor, decision->actor) == 0 &&
           strcmp(sim_ready_what(ready), decision->what) == 0 &&
           nth_of(sim, index) == decision->nth;
}

static void note_missing(BgSim *sim, const SimDecision *decision)
{
    g_autofree char *text = sim_decision_to_text(decision);

    g_string_append_printf(state.notes, "'%s': not ready there; ready are", text);
    for (unsigned i = 0; i < sim->ready->len; i++) {
        g_autofree char *name = sim_actor_name(sim, ready_at(sim, i)->actor);

        g_string_append_printf(state.notes, "%s %s %s", i > 0 ? "," : "",
                               name, sim_ready_what(ready_at(sim, i)));
    }
    g_string_append_c(state.notes, '\n');
}

static int choose_by_name(BgSim *sim, void *opaque)
{
    uint64_t position = state.position++;
    SimDecision *decision;

    if (state.next >= state.decisions->len) {
        return 0;
    }
    decision = g_ptr_array_index(state.decisions, state.next);
    if (decision->position > position) {
        return 0;
    }
    state.next++;
    for (unsigned i = 0; i < sim->ready->len; i++) {
        if (is_meant(sim, decision, i)) {
            decision->applied = true;
            return i;
        }
    }
    note_missing(sim, decision);
    return 0;
}

void sim_decisions_replay(GPtrArray *decisions, GString *notes)
{
    static const SimChooser replayer = { choose_by_name, NULL, NULL };

    for (guint i = 0; i < decisions->len; i++) {
        ((SimDecision *)g_ptr_array_index(decisions, i))->applied = false;
    }
    state.decisions = decisions;
    state.notes = notes;
    state.position = 0;
    state.next = 0;
    sim_chooser = &replayer;
}

void sim_decisions_finish(GPtrArray *decisions, GString *notes)
{
    for (guint i = state.next; i < decisions->len; i++) {
        g_autofree char *text =
            sim_decision_to_text(g_ptr_array_index(decisions, i));

        g_string_append_printf(notes, "'%s': the run ended before it\n", text);
    }
}

void sim_decisions_stop(void)
{
    sim_chooser = NULL;
}

/* --- text ----------------------------------------------------------------- */

char *sim_decision_to_text(const SimDecision *d)
{
    g_autofree char *actor = g_uri_escape_string(d->actor, "/:@+", TRUE);
    g_autofree char *what = g_uri_escape_string(d->what, "/:@+", TRUE);
    GString *text = g_string_new(NULL);

    g_string_printf(text, "sched @%" G_GUINT64_FORMAT " %" G_GUINT64_FORMAT
                    "/%" G_GUINT64_FORMAT " %s %s", d->position, d->value,
                    d->bound, actor, what);
    if (d->nth > 0) {
        g_string_append_printf(text, " #%u", d->nth);
    }
    return g_string_free(text, FALSE);
}

static bool parse_number(const char *text, uint64_t *ret)
{
    return g_ascii_string_to_unsigned(text, 10, 0, UINT64_MAX, ret, NULL);
}

/* @words: "@41", "1/3", "guest1", "run", perhaps "#2". */
static bool parse_words(char **words, guint n, SimDecision *d)
{
    char *slash = n >= 2 ? strchr(words[1], '/') : NULL;
    uint64_t nth = 0;

    if (n < 4 || n > 5 || words[0][0] != '@' || !slash ||
        (n == 5 && (words[4][0] != '#' || !parse_number(words[4] + 1, &nth)))) {
        return false;
    }
    *slash = 0;
    d->nth = nth;
    d->actor = g_uri_unescape_string(words[2], NULL);
    d->what = g_uri_unescape_string(words[3], NULL);
    return parse_number(words[0] + 1, &d->position) &&
           parse_number(words[1], &d->value) &&
           parse_number(slash + 1, &d->bound) && d->actor && d->what &&
           d->value < d->bound;
}

SimDecision *sim_decision_parse(const char *text, GError **errp)
{
    g_auto(GStrv) words = g_strsplit(text, " ", 0);
    SimDecision *decision = g_new0(SimDecision, 1);

    if (!parse_words(words, g_strv_length(words), decision)) {
        decision_free(decision);
        block_error(errp, EINVAL, "a decision is '@POSITION VALUE/BOUND ACTOR "
                    "WHAT', perhaps with ' #NTH'");
        return NULL;
    }
    return decision;
}
