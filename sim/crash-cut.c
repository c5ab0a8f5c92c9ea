/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a power cut leaves open: for each atom its newest pinned value or one of
 * those that came later, whether they had taken effect or were on their way;
 * for each disk that grows its size.
 *
 * The disks of the world show one state after the other.  An atom that is
 * changed meanwhile has its old state in the journal of its store: first those
 * of the cut, once for all states, then those that a check touches.
 */
#include "sim/crash-int.h"

#include <string.h>

/* --- what is open --------------------------------------------------------- */

static SimCutItem *item_at(const SimCut *cut, guint i)
{
    return &g_array_index(cut->items, SimCutItem, i);
}

static void add_item(SimCut *cut, BgSimDisk *disk, int64_t index,
                     SimAtom *atom)
{
    SimCutItem item = { .disk = disk, .atom = atom, .index = index };

    if (atom && atom->item) {
        return;
    }
    g_array_append_val(cut->items, item);
    if (atom) {
        atom->item = cut->items->len;
    }
}

/* Whether @write, in flight, may still change atoms. */
static bool may_change(const BgSimDisk *disk, const SimWrite *write)
{
    return write->effective && !write->took_effect &&
           (write->kind == SIM_WRITE_DATA || write->kind == SIM_WRITE_ZERO ||
            (write->kind == SIM_WRITE_DISCARD &&
             disk->config.discard != BGSIM_DISCARD_KEEPS));
}

static void add_items_in_flight(SimCut *cut, BgSimDisk *disk)
{
    SimStore *store = &disk->store;

    LIST_FOREACH(link, &disk->state.in_flight) {
        SimWrite *write = LIST_ENTRY(link, SimWrite, link);
        int64_t end = sim_atom_end(store, write->offset, write->bytes);
        bool make = write->kind == SIM_WRITE_DATA || store->noise;

        if (!may_change(disk, write)) {
            continue;
        }
        for (int64_t i = sim_atom_first(store, write->offset); i < end; i++) {
            i = make ? i : sim_store_next(store, i, end);
            if (i < end) {
                add_item(cut, disk, i, sim_store_atom(store, i, true));
            }
        }
    }
}

static void add_items(SimCut *cut, BgSimDisk *disk)
{
    SimStore *store = &disk->store;

    sim_store_tidy(store);
    for (guint i = 0; i < store->dirty->len; i++) {
        SimDirty *dirty = &g_array_index(store->dirty, SimDirty, i);

        add_item(cut, disk, dirty->index, dirty->atom);
    }
    add_items_in_flight(cut, disk);
    if (disk->config.grows) {
        add_item(cut, disk, 0, NULL);
    }
}

/* --- the choices ---------------------------------------------------------- */

/* What never was written and what is zero read the same on a clean disk. */
static bool same_content(const SimCutItem *item, const SimChoice *a,
                         const SimChoice *b)
{
    SimStore *store = &item->disk->store;
    bool noise = store->noise && item->index < store->noise_end;

    if (!item->atom) {
        return a->size == b->size;
    }
    if (!noise && (!a->value.write || a->value.write == &sim_zeroes)) {
        return !b->value.write || b->value.write == &sim_zeroes;
    }
    return sim_value_equal(a->value, b->value);
}

static void add_choice(SimCut *cut, SimCutItem *item, SimChoice choice)
{
    for (guint i = item->first; i < cut->choices->len; i++) {
        choice.again |= same_content(item, &choice,
                                     &g_array_index(cut->choices, SimChoice,
                                                    i));
    }
    if (choice.write) {
        sim_write_ref(choice.write);
    }
    g_array_append_val(cut->choices, choice);
    item->nr++;
    item->distinct += !choice.again;
}

static void add_atom_choices(SimCut *cut, SimCutItem *item)
{
    SimStore *store = &item->disk->store;
    int64_t from = item->index * store->atom;
    SimAtom *atom = item->atom;

    add_choice(cut, item, (SimChoice){ .value = sim_value_ref(atom->stable) });
    for (SimVersion *v = atom->first; v; v = v->newer) {
        if (!v->forgotten) {
            add_choice(cut, item, (SimChoice){ .write = v->write,
                                               .value = sim_value_ref(
                                                   v->value) });
        }
    }
    LIST_FOREACH(link, &item->disk->state.in_flight) {
        SimWrite *write = LIST_ENTRY(link, SimWrite, link);
        int64_t place = item->index - sim_atom_first(store, write->offset);

        if (may_change(item->disk, write) &&
            write->offset < from + store->atom &&
            from < write->offset + write->bytes &&
            !(write->early && write->early[place])) {
            add_choice(cut, item, (SimChoice){ .write = write,
                                               .value = sim_store_value(
                                                   store, item->index,
                                                   write) });
        }
    }
}

/* The size that @write, in flight, would leave; -1: it leaves it alone. */
static int64_t size_after(const BgSimDisk *disk, const SimWrite *write)
{
    int64_t end = write->offset + write->bytes;

    if (!write->effective || write->took_effect) {
        return -1;
    }
    switch (write->kind) {
    case SIM_WRITE_TRUNCATE:
        return write->offset;
    case SIM_WRITE_DATA:
    case SIM_WRITE_ZERO:
        return end > disk->state.stable_size ? MAX(disk->state.size, end) : -1;
    default:
        return -1;
    }
}

static void add_size_choices(SimCut *cut, SimCutItem *item)
{
    const SimDiskState *s = &item->disk->state;

    add_choice(cut, item, (SimChoice){ .size = s->stable_size });
    for (guint i = 0; s->sizes && i < s->sizes->len; i++) {
        const SimSize *size = &g_array_index(s->sizes, SimSize, i);

        add_choice(cut, item, (SimChoice){ .size = size->size,
                                           .write = size->write });
    }
    LIST_FOREACH(link, &s->in_flight) {
        SimWrite *write = LIST_ENTRY(link, SimWrite, link);
        int64_t size = size_after(item->disk, write);

        if (size >= 0) {
            add_choice(cut, item, (SimChoice){ .size = size,
                                               .write = write });
        }
    }
}

/* --- the cut -------------------------------------------------------------- */

static int by_submission(gconstpointer a, gconstpointer b)
{
    const SimWrite *x = *(SimWrite *const *)a;
    const SimWrite *y = *(SimWrite *const *)b;

    return x->submitted < y->submitted ? -1 : x->submitted > y->submitted;
}

/* Times are of the whole world, so no two requests have the same. */
static void gather_writes(SimCut *cut)
{
    GPtrArray *all = g_ptr_array_new();

    cut->writes = g_ptr_array_new();
    for (guint i = 0; i < cut->choices->len; i++) {
        SimChoice *choice = &g_array_index(cut->choices, SimChoice, i);

        if (choice->write) {
            g_ptr_array_add(all, choice->write);
        }
    }
    g_ptr_array_sort(all, by_submission);
    for (guint i = 0; i < all->len; i++) {
        if (i == 0 || all->pdata[i] != all->pdata[i - 1]) {
            g_ptr_array_add(cut->writes, all->pdata[i]);
        }
    }
    g_ptr_array_unref(all);
}

static void add_disk(SimCut *cut, BgSimDisk *disk)
{
    SimDiskCut d = { .disk = disk, .max_size = disk->state.size };

    g_array_append_val(cut->disks, d);
    add_items(cut, disk);
}

SimCut *sim_cut_new(BgSim *sim)
{
    SimCut *cut = g_new0(SimCut, 1);

    cut->sim = sim;
    cut->disks = g_array_new(FALSE, FALSE, sizeof(SimDiskCut));
    cut->items = g_array_new(FALSE, FALSE, sizeof(SimCutItem));
    cut->choices = g_array_new(FALSE, FALSE, sizeof(SimChoice));
    for (guint i = 0; i < sim->disks->len; i++) {
        add_disk(cut, g_ptr_array_index(sim->disks, i));
    }
    for (guint i = 0; i < cut->items->len; i++) {
        SimCutItem *item = item_at(cut, i);

        item->first = cut->choices->len;
        if (item->atom) {
            item->atom->item = 0;
            add_atom_choices(cut, item);
        } else {
            add_size_choices(cut, item);
        }
    }
    gather_writes(cut);
    cut->chosen = g_new0(guint, cut->items->len);
    return cut;
}

void sim_cut_free(SimCut *cut)
{
    for (guint i = 0; i < cut->choices->len; i++) {
        SimChoice *choice = &g_array_index(cut->choices, SimChoice, i);

        sim_value_unref(choice->value);
        if (choice->write) {
            sim_write_unref(choice->write);
        }
    }
    g_array_unref(cut->disks);
    g_array_unref(cut->items);
    g_array_unref(cut->choices);
    g_ptr_array_unref(cut->writes);
    g_free(cut->chosen);
    g_free(cut);
}

uint64_t sim_cut_count(const SimCut *cut, uint64_t limit)
{
    uint64_t n = 1;

    for (guint i = 0; i < cut->items->len && n < limit; i++) {
        n *= item_at(cut, i)->distinct;
    }
    return MIN(n, limit);
}

/* --- showing states ------------------------------------------------------- */

static void enter_disk(SimDiskCut *d)
{
    SimStore *store = &d->disk->store;

    d->state = d->disk->state;
    d->dirty = store->dirty;
    d->journal = store->journal;
    d->epoch = store->epoch;
    d->stored = store->stored;
    d->noise_end = store->noise_end;
    store->dirty = g_array_new(FALSE, FALSE, sizeof(SimDirty));
    store->journal = g_array_new(FALSE, FALSE, sizeof(SimSaved));
    store->epoch = ++store->next_epoch;
}

static SimDiskCut *disk_cut(const SimCut *cut, const BgSimDisk *disk)
{
    for (guint i = 0;; i++) {
        SimDiskCut *d = &g_array_index(cut->disks, SimDiskCut, i);

        if (d->disk == disk) {
            return d;
        }
    }
}

void sim_cut_enter(SimCut *cut)
{
    for (guint i = 0; i < cut->disks->len; i++) {
        enter_disk(&g_array_index(cut->disks, SimDiskCut, i));
    }
    for (guint i = 0; i < cut->items->len; i++) {
        SimCutItem *item = item_at(cut, i);
        SimDiskCut *d = disk_cut(cut, item->disk);

        if (item->atom) {
            sim_store_touch(&item->disk->store, item->atom);
            continue;
        }
        for (guint k = 0; k < item->nr; k++) {
            d->max_size = MAX(d->max_size,
                              g_array_index(cut->choices, SimChoice,
                                            item->first + k).size);
        }
    }
    for (guint i = 0; i < cut->disks->len; i++) {
        SimDiskCut *d = &g_array_index(cut->disks, SimDiskCut, i);

        d->items_touched = d->disk->store.journal->len;
    }
}

void sim_cut_leave(SimCut *cut)
{
    for (guint i = 0; i < cut->disks->len; i++) {
        SimDiskCut *d = &g_array_index(cut->disks, SimDiskCut, i);
        SimStore *store = &d->disk->store;

        sim_store_restore(store, 0);
        g_assert(store->stored == d->stored);
        g_array_unref(store->journal);
        g_array_unref(store->dirty);
        store->journal = d->journal;
        store->dirty = d->dirty;
        store->epoch = d->epoch;
        store->noise_end = d->noise_end;
        d->disk->state = d->state;
    }
}

/*
 * All is stable, nothing in flight.  Counters go on from where they were, and
 * are put back in the end.
 */
static void fresh_state(SimDiskCut *d)
{
    SimDiskState *s = &d->disk->state;

    *s = (SimDiskState){ .size = d->state.stable_size,
                         .stable_size = d->state.stable_size,
                         .quota_atoms = d->state.quota_atoms,
                         .next_id = d->state.next_id,
                         .stats = d->state.stats };
    list_init(&s->in_flight);
    d->disk->store.noise_end = d->noise_end;
}

/* Nothing is left beyond the size, and if the disk grows again: zeroes. */
static void cut_tail(SimDiskCut *d)
{
    SimStore *store = &d->disk->store;
    int64_t size = d->disk->state.size;
    SimWrite zero = { .refs = 1, .kind = SIM_WRITE_ZERO, .offset = size,
                      .bytes = d->max_size - size };
    int64_t end = sim_atom_end(store, d->max_size, 0);

    if (zero.bytes == 0) {
        return;
    }
    for (int64_t i = sim_store_next(store, sim_atom_first(store, size), end);
         i < end; i = sim_store_next(store, i + 1, end)) {
        if (!sim_store_is_zero(store, i)) {
            sim_store_replace(store, sim_store_atom(store, i, true),
                              sim_store_value(store, i, &zero));
        }
    }
    store->noise_end = MIN(store->noise_end, sim_atom_end(store, size, 0));
}

void sim_cut_apply(SimCut *cut)
{
    for (guint i = 0; i < cut->disks->len; i++) {
        fresh_state(&g_array_index(cut->disks, SimDiskCut, i));
    }
    for (guint i = 0; i < cut->items->len; i++) {
        SimCutItem *item = item_at(cut, i);
        SimChoice *choice = &g_array_index(cut->choices, SimChoice,
                                           item->first + cut->chosen[i]);

        if (item->atom) {
            sim_store_replace(&item->disk->store, item->atom,
                              sim_value_ref(choice->value));
        } else {
            item->disk->state.size = choice->size;
            item->disk->state.stable_size = choice->size;
        }
    }
    for (guint i = 0; i < cut->disks->len; i++) {
        cut_tail(&g_array_index(cut->disks, SimDiskCut, i));
    }
}

void sim_cut_undo(SimCut *cut)
{
    for (guint i = 0; i < cut->disks->len; i++) {
        SimDiskCut *d = &g_array_index(cut->disks, SimDiskCut, i);
        SimStore *store = &d->disk->store;
        GArray *sizes = d->disk->state.sizes;

        for (guint k = 0; k < store->dirty->len; k++) {
            g_array_index(store->dirty, SimDirty, k).atom->listed = false;
        }
        g_array_set_size(store->dirty, 0);
        sim_store_restore(store, d->items_touched);
        for (guint k = 0; sizes && k < sizes->len; k++) {
            sim_write_unref(g_array_index(sizes, SimSize, k).write);
        }
        g_clear_pointer(&d->disk->state.sizes, g_array_unref);
    }
}
