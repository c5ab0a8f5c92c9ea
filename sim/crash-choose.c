/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which of the legal states after a power cut are looked at: all of them, or a
 * sample that has the ones in which bugs like to hide.
 */
#include "sim/crash-int.h"

#include <string.h>

#define ALL_BELOW_DEFAULT 4096
#define SAMPLE_DEFAULT 256

/* So many times the sample may be for the states that are always in it. */
#define ALWAYS_FACTOR 8

/* How much of a state is told in words. */
#define DESCRIBED_MAX 16

typedef enum PlanKind {
    PLAN_NOTHING,
    PLAN_EVERYTHING,
    PLAN_MISSING,    /* all but one request */
    PLAN_PRESENT,    /* one request */
    PLAN_SUBMITTED,  /* what was submitted up to one request */
    PLAN_ACKED,      /* what was acknowledged up to one request */
    PLAN_TORN,       /* what came before a request, and its first atoms */
    PLAN_RANDOM,     /* each with a chance of @arg in 10 */
} PlanKind;

typedef struct Plan {
    PlanKind kind;
    SimWrite *write;
    int64_t arg;     /* torn: the first atom that is missing */
} Plan;

/* --- one state ------------------------------------------------------------ */

static const SimChoice *choice_at(const SimCut *cut, const SimCutItem *item,
                                  guint k)
{
    return &g_array_index(cut->choices, SimChoice, item->first + k);
}

static bool is_before_tear(const SimCutItem *item, const SimWrite *write,
                           const Plan *plan)
{
    return write == plan->write ? !item->atom || item->index < plan->arg
                                : write->submitted < plan->write->submitted;
}

static bool survives(const SimCutItem *item, const SimWrite *write,
                     const Plan *plan)
{
    switch (plan->kind) {
    case PLAN_EVERYTHING:
        return true;
    case PLAN_MISSING:
        return write != plan->write;
    case PLAN_PRESENT:
        return write == plan->write;
    case PLAN_SUBMITTED:
        return write->submitted <= plan->write->submitted;
    case PLAN_ACKED:
        return write->acked && write->acked <= plan->write->acked;
    case PLAN_TORN:
        return is_before_tear(item, write, plan);
    default:
        return false;
    }
}

/* The newest choice that survives; the first one always does. */
static guint choose_by_plan(const SimCut *cut, const SimCutItem *item,
                            const Plan *plan)
{
    guint k = item->nr - 1;

    while (k > 0 && !survives(item, choice_at(cut, item, k)->write, plan)) {
        k--;
    }
    return k;
}

/* The newest one with that chance, else any older one. */
static guint choose_at_random(SimStates *states, const SimCutItem *item,
                              const Plan *plan)
{
    if (item->nr == 1 ||
        sim_random_below(&states->random, 10) < (uint64_t)plan->arg) {
        return item->nr - 1;
    }
    return sim_random_below(&states->random, item->nr - 1);
}

static void apply_plan(SimStates *states, const Plan *plan)
{
    SimCut *cut = states->cut;

    for (guint i = 0; i < cut->items->len; i++) {
        SimCutItem *item = &g_array_index(cut->items, SimCutItem, i);

        cut->chosen[i] = plan->kind == PLAN_RANDOM
                             ? choose_at_random(states, item, plan)
                             : choose_by_plan(cut, item, plan);
    }
}

/* --- the sample ----------------------------------------------------------- */

static void plan_add(SimStates *states, PlanKind kind, SimWrite *write,
                     int64_t arg)
{
    Plan plan = { kind, write, arg };

    g_array_append_val(states->plan, plan);
}

static uint32_t atom_bytes(const SimCut *cut, const SimWrite *write)
{
    /* All disks of a request have its atoms: look for one of its items. */
    for (guint i = 0; i < cut->choices->len; i++) {
        const SimCutItem *item = NULL;

        if (g_array_index(cut->choices, SimChoice, i).write != write) {
            continue;
        }
        for (guint k = 0; k < cut->items->len; k++) {
            item = &g_array_index(cut->items, SimCutItem, k);
            if (i >= item->first && i < item->first + item->nr) {
                return item->disk->store.atom;
            }
        }
    }
    g_assert_not_reached();
}

static void plan_torn(SimStates *states, SimWrite *write)
{
    uint32_t atom = atom_bytes(states->cut, write);
    int64_t first = write->offset / atom;
    int64_t end = (write->offset + write->bytes + atom - 1) / atom;

    if (write->kind == SIM_WRITE_TRUNCATE || end - first < 2) {
        return;
    }
    plan_add(states, PLAN_TORN, write, first + 1);
    if (end - first > 2) {
        plan_add(states, PLAN_TORN, write, first + (end - first) / 2);
        plan_add(states, PLAN_TORN, write, end - 1);
    }
}

/* Too many are thinned, evenly; the first two stay. */
static void thin(SimStates *states)
{
    guint limit = MAX(states->sample * ALWAYS_FACTOR, 2);
    guint len = states->plan->len;

    if (len <= limit) {
        return;
    }
    for (guint i = 2; i < limit; i++) {
        g_array_index(states->plan, Plan, i) = g_array_index(
            states->plan, Plan, 2 + (uint64_t)(i - 2) * (len - 2) /
                                        (limit - 2));
    }
    g_array_set_size(states->plan, limit);
}

static void make_plan(SimStates *states)
{
    GPtrArray *writes = states->cut->writes;

    plan_add(states, PLAN_NOTHING, NULL, 0);
    plan_add(states, PLAN_EVERYTHING, NULL, 0);
    for (guint i = 0; i < writes->len; i++) {
        SimWrite *write = g_ptr_array_index(writes, i);

        plan_add(states, PLAN_MISSING, write, 0);
        plan_add(states, PLAN_PRESENT, write, 0);
        plan_add(states, PLAN_SUBMITTED, write, 0);
        if (write->acked) {
            plan_add(states, PLAN_ACKED, write, 0);
        }
        plan_torn(states, write);
    }
    thin(states);
    /* Some of the random ones will be states that were seen already. */
    for (guint i = 0; i < 2 * states->sample; i++) {
        static const int64_t chances[] = { 1, 5, 9 };

        plan_add(states, PLAN_RANDOM, NULL,
                 chances[i % G_N_ELEMENTS(chances)]);
    }
}

static const char *plan_text(const Plan *plan)
{
    static const char *const texts[] = {
        [PLAN_NOTHING] = "nothing survives",
        [PLAN_EVERYTHING] = "everything survives",
        [PLAN_MISSING] = "alone missing",
        [PLAN_PRESENT] = "alone present",
        [PLAN_SUBMITTED] = "all submitted up to this",
        [PLAN_ACKED] = "all acknowledged up to this",
        [PLAN_TORN] = "torn, all submitted before it present",
        [PLAN_RANDOM] = "random, of 10 survive:",
    };

    return texts[plan->kind];
}

static void tell_plan(SimStates *states, const Plan *plan)
{
    if (plan->kind == PLAN_RANDOM) {
        g_snprintf(states->what, sizeof(states->what), "%s %d",
                   plan_text(plan), (int)plan->arg);
    } else if (plan->write) {
        g_snprintf(states->what, sizeof(states->what), "request %"
                   G_GUINT64_FORMAT " at %" G_GINT64_FORMAT "+%"
                   G_GINT64_FORMAT " %s", plan->write->id, plan->write->offset,
                   plan->write->bytes, plan_text(plan));
    } else {
        g_strlcpy(states->what, plan_text(plan), sizeof(states->what));
    }
}

/* Whether cut->chosen is met for the first time. */
static bool is_new(SimStates *states)
{
    uint64_t *hash = g_new(uint64_t, 1);

    *hash = UINT64_C(0xCBF29CE484222325);
    for (guint i = 0; i < states->cut->items->len; i++) {
        *hash = (*hash ^ states->cut->chosen[i]) *
                UINT64_C(0x9E3779B97F4A7C15);
        *hash ^= *hash >> 29;
    }
    return g_hash_table_add(states->seen, hash);
}

static bool next_of_sample(SimStates *states)
{
    while (states->next < states->plan->len) {
        const Plan *plan = &g_array_index(states->plan, Plan, states->next);

        if (plan->kind == PLAN_RANDOM && states->given >= states->sample) {
            return false;
        }
        states->next++;
        apply_plan(states, plan);
        if (is_new(states)) {
            tell_plan(states, plan);
            states->given++;
            return true;
        }
    }
    return false;
}

/* --- all of them ---------------------------------------------------------- */

/* The next choice of @item that differs from those before; wraps to 0. */
static guint next_distinct(const SimCut *cut, const SimCutItem *item, guint k)
{
    do {
        k++;
    } while (k < item->nr && choice_at(cut, item, k)->again);
    return k < item->nr ? k : 0;
}

/* An odometer; it starts with "nothing survives". */
static bool next_of_all(SimStates *states)
{
    SimCut *cut = states->cut;

    if (states->given > 0) {
        guint i = 0;

        for (; i < cut->items->len; i++) {
            cut->chosen[i] = next_distinct(cut,
                                           &g_array_index(cut->items,
                                                          SimCutItem, i),
                                           cut->chosen[i]);
            if (cut->chosen[i] > 0) {
                break;
            }
        }
        if (i == cut->items->len) {
            return false;
        }
    }
    g_snprintf(states->what, sizeof(states->what),
               states->given ? "number %u of all" : "nothing survives",
               states->given);
    states->given++;
    return true;
}

/* --- interface ------------------------------------------------------------ */

void sim_states_init(SimStates *states, SimCut *cut,
                     const BgSimCrashConfig *config, uint64_t seed)
{
    unsigned all_below = config && config->all_below ? config->all_below
                                                     : ALL_BELOW_DEFAULT;

    *states = (SimStates){ .cut = cut };
    states->sample = config && config->sample ? config->sample
                                              : SAMPLE_DEFAULT;
    states->exhaustive = sim_cut_count(cut, all_below) < all_below;
    if (!states->exhaustive) {
        sim_random_init(&states->random, seed);
        states->plan = g_array_new(FALSE, FALSE, sizeof(Plan));
        states->seen = g_hash_table_new_full(g_int64_hash, g_int64_equal,
                                             g_free, NULL);
        make_plan(states);
    }
}

void sim_states_clear(SimStates *states)
{
    g_clear_pointer(&states->plan, g_array_unref);
    g_clear_pointer(&states->seen, g_hash_table_destroy);
}

bool sim_states_next(SimStates *states)
{
    return states->exhaustive ? next_of_all(states) : next_of_sample(states);
}

char *sim_cut_describe(const SimCut *cut)
{
    GString *text = g_string_new(NULL);

    for (guint i = 0; i < cut->items->len && i < DESCRIBED_MAX; i++) {
        const SimCutItem *item = &g_array_index(cut->items, SimCutItem, i);
        const SimChoice *choice = choice_at(cut, item, cut->chosen[i]);

        g_string_append_printf(text, "\n  %s: ", item->disk->name);
        if (item->atom) {
            g_string_append_printf(text, "at %" G_GINT64_FORMAT,
                                   item->index * item->disk->store.atom);
        } else {
            g_string_append_printf(text, "size %" G_GINT64_FORMAT,
                                   choice->size);
        }
        if (choice->write) {
            g_string_append_printf(text, " request %" G_GUINT64_FORMAT,
                                   choice->write->id);
        } else {
            g_string_append(text, " what was stable");
        }
        g_string_append_printf(text, " (%u of %u)", cut->chosen[i] + 1,
                               item->nr);
    }
    if (cut->items->len > DESCRIBED_MAX) {
        g_string_append_printf(text, "\n  and %u more",
                               cut->items->len - DESCRIBED_MAX);
    }
    return g_string_free(text, FALSE);
}
