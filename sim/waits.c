/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who waits for what, in words; and the order in which CoMutexes are taken.
 */
#include "sim/sim-int.h"

#include <string.h>

/* --- words ---------------------------------------------------------------- */

/* What is waited for under these words is told by its name. */
static const char *const named_waits[] = { "the gate of", "blk_resume() of" };

static bool is_named(const char *what)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(named_waits); i++) {
        if (strcmp(what, named_waits[i]) == 0) {
            return true;
        }
    }
    return false;
}

static void describe_holder(BgSim *sim, GString *text, const Coroutine *holder)
{
    g_autofree char *name = NULL;

    if (!holder) {
        g_string_append(text, ", which nobody holds");
        return;
    }
    name = sim_actor_name(sim, holder->actor ? holder->actor->id : 0);
    g_string_append_printf(text, ", held by %s", name);
}

void sim_describe_object(BgSim *sim, GString *text, const Coroutine *co)
{
    if (!co->wait_what || !co->wait_object) {
        return;
    }
    if (is_named(co->wait_what)) {
        g_string_append_printf(text, " %s", (const char *)co->wait_object);
    } else if (strcmp(co->wait_what, "CoMutex") == 0) {
        describe_holder(sim, text, co_mutex_holder(co->wait_object));
    }
}

char *bgsim_describe_waits(BgSim *sim)
{
    GString *text = g_string_new(NULL);

    LIST_FOREACH(link, &sim->actors) {
        SimActor *actor = LIST_ENTRY(link, SimActor, link);
        g_autofree char *name = sim_actor_name(sim, actor->id);
        g_autofree char *parent = sim_actor_name(sim, actor->parent);
        const char *what = actor->co->wait_what;

        g_string_append_printf(text, "  %s (begun by %s) waits for %s", name,
                               parent, what ? what : "something unnamed");
        sim_describe_object(sim, text, actor->co);
        g_string_append_c(text, '\n');
    }
    return g_string_free(text, FALSE);
}

/* --- lock order ----------------------------------------------------------- */

/*
 * An edge says that somebody wanted the second while holding the first.  A
 * circle of edges is a deadlock that only waits for its schedule.  Locks are
 * told apart by address; a lock that is made anew in the memory of an old one
 * has no edges (sim_order_made(), from co_mutex_init()).
 */
typedef struct OrderEdge {
    const void *held;
    const void *wanted;
} OrderEdge;

static GArray *edges_of(BgSim *sim)
{
    if (!sim->order_edges) {
        sim->order_edges = g_array_new(FALSE, FALSE, sizeof(OrderEdge));
    }
    return sim->order_edges;
}

static bool reaches(GArray *edges, const void *from, const void *to,
                    unsigned depth)
{
    if (from == to) {
        return true;
    }
    if (depth == 0) {
        return false;
    }
    for (guint i = 0; i < edges->len; i++) {
        const OrderEdge *edge = &g_array_index(edges, OrderEdge, i);

        if (edge->held == from && reaches(edges, edge->wanted, to,
                                          depth - 1)) {
            return true;
        }
    }
    return false;
}

static void add_edge(BgSim *sim, const void *held, const void *wanted)
{
    GArray *edges = edges_of(sim);
    OrderEdge edge = { held, wanted };

    for (guint i = 0; i < edges->len; i++) {
        const OrderEdge *old = &g_array_index(edges, OrderEdge, i);

        if (old->held == held && old->wanted == wanted) {
            return;
        }
    }
    if (reaches(edges, wanted, held, edges->len)) {
        bgsim_violation(sim, "lock-order", "a CoMutex is wanted by one who "
                        "holds another, while elsewhere it is the other way "
                        "round");
    }
    g_array_append_val(edges, edge);
}

static SimActor *self_actor(void)
{
    Coroutine *self = coroutine_self();

    return self ? self->actor : NULL;
}

void sim_order_made(BgSim *sim, const void *mutex)
{
    GArray *edges = sim->order_edges;

    for (guint i = edges ? edges->len : 0; i > 0; i--) {
        const OrderEdge *edge = &g_array_index(edges, OrderEdge, i - 1);

        if (edge->held == mutex || edge->wanted == mutex) {
            g_array_remove_index_fast(edges, i - 1);
        }
    }
}

void sim_order_wanted(BgSim *sim, const void *mutex)
{
    SimActor *actor = self_actor();

    if (!actor || !actor->mutexes) {
        return;
    }
    for (guint i = 0; i < actor->mutexes->len; i++) {
        add_edge(sim, g_array_index(actor->mutexes, const void *, i), mutex);
    }
}

void sim_order_taken(BgSim *sim, const void *mutex)
{
    SimActor *actor = self_actor();

    if (!actor) {
        return;
    }
    if (!actor->mutexes) {
        actor->mutexes = g_array_new(FALSE, FALSE, sizeof(mutex));
    }
    g_array_append_val(actor->mutexes, mutex);
}

void sim_order_dropped(BgSim *sim, const void *mutex)
{
    SimActor *actor = self_actor();

    if (!actor || !actor->mutexes) {
        return;
    }
    for (guint i = actor->mutexes->len; i > 0; i--) {
        if (g_array_index(actor->mutexes, const void *, i - 1) == mutex) {
            g_array_remove_index(actor->mutexes, i - 1);
            return;
        }
    }
}
