/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The atoms of a simulated disk.
 *
 * An atom has one stable value and the versions that took effect after it.  A
 * read sees the last version.  Values are references to the data of whole
 * requests, so a write of a megabyte is copied once and an atom costs some
 * words.
 *
 * V1  A version stands behind all that took effect before it; pinning one
 *     drops those before it, as nothing older may appear any more.
 * V2  Each atom that has versions is in the dirty list.
 * V3  Inside a check of a power cut (store.journal) an atom is changed only
 *     after its old state is in the journal, with its versions, which the atom
 *     then does not have any more: after a power cut all is stable.
 */
#include "sim/disk-int.h"

#include <string.h>

SimWrite sim_zeroes = { .refs = 1, .kind = SIM_WRITE_ZERO };

/* --- values --------------------------------------------------------------- */

SimValue sim_value_ref(SimValue value)
{
    if (value.write && value.write != &sim_zeroes) {
        value.write->refs++;
    }
    return value;
}

void sim_value_unref(SimValue value)
{
    if (value.write && value.write != &sim_zeroes) {
        sim_write_unref(value.write);
    }
}

bool sim_value_equal(SimValue a, SimValue b)
{
    return a.write == b.write && a.at == b.at;
}

static bool is_data(SimValue value)
{
    return value.write && value.write != &sim_zeroes;
}

static SimValue newest(const SimAtom *atom)
{
    return atom->last ? atom->last->value : atom->stable;
}

bool sim_atom_is_stored(const SimAtom *atom)
{
    return is_data(newest(atom));
}

/* --- the sparse array ----------------------------------------------------- */

void sim_store_init(SimStore *store, uint32_t atom)
{
    *store = (SimStore){
        .atom = atom,
        .chunks = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free,
                                        NULL),
        .cached_number = -1,
        .dirty = g_array_new(FALSE, FALSE, sizeof(SimDirty)),
    };
}

static void version_free(SimStore *store, SimVersion *version)
{
    sim_value_unref(version->value);
    sim_write_unref(version->write);
    version->newer = store->unused;
    store->unused = version;
}

static void drop_versions(SimStore *store, SimAtom *atom)
{
    SimVersion *next;

    for (SimVersion *v = atom->first; v; v = next) {
        next = v->newer;
        version_free(store, v);
    }
    atom->first = atom->last = NULL;
}

static void chunk_free(SimStore *store, SimChunk *chunk)
{
    for (int i = 0; i < SIM_CHUNK_ATOMS; i++) {
        drop_versions(store, &chunk->atoms[i]);
        sim_value_unref(chunk->atoms[i].stable);
    }
    g_free(chunk);
}

void sim_store_clear(SimStore *store)
{
    GHashTableIter iter;
    gpointer chunk;

    g_assert(!store->journal);
    g_hash_table_iter_init(&iter, store->chunks);
    while (g_hash_table_iter_next(&iter, NULL, &chunk)) {
        chunk_free(store, chunk);
    }
    g_hash_table_destroy(store->chunks);
    g_array_unref(store->dirty);
    while (store->unused) {
        SimVersion *version = store->unused;

        store->unused = version->newer;
        g_free(version);
    }
}

static SimChunk *find_chunk(SimStore *store, int64_t number)
{
    SimChunk *chunk;

    if (number == store->cached_number) {
        return store->cached;
    }
    chunk = g_hash_table_lookup(store->chunks, &number);
    if (chunk) {
        store->cached_number = number;
        store->cached = chunk;
    }
    return chunk;
}

static SimChunk *make_chunk(SimStore *store, int64_t number)
{
    SimChunk *chunk = g_new0(SimChunk, 1);

    g_hash_table_insert(store->chunks, g_memdup2(&number, sizeof(number)),
                        chunk);
    store->cached_number = number;
    store->cached = chunk;
    return chunk;
}

SimAtom *sim_store_atom(SimStore *store, int64_t index, bool make)
{
    SimChunk *chunk = find_chunk(store, index / SIM_CHUNK_ATOMS);

    if (!chunk && make) {
        chunk = make_chunk(store, index / SIM_CHUNK_ATOMS);
    }
    return chunk ? &chunk->atoms[index % SIM_CHUNK_ATOMS] : NULL;
}

int64_t sim_store_next(SimStore *store, int64_t index, int64_t end)
{
    if (g_hash_table_size(store->chunks) == 0) {
        return end;
    }
    while (index < end && !find_chunk(store, index / SIM_CHUNK_ATOMS)) {
        index = (index / SIM_CHUNK_ATOMS + 1) * SIM_CHUNK_ATOMS;
    }
    return MIN(index, end);
}

static int compare_numbers(gconstpointer a, gconstpointer b)
{
    int64_t x = *(const int64_t *)a;
    int64_t y = *(const int64_t *)b;

    return x < y ? -1 : x > y;
}

GArray *sim_store_chunks(SimStore *store)
{
    GArray *numbers = g_array_new(FALSE, FALSE, sizeof(int64_t));
    GHashTableIter iter;
    gpointer key;

    g_hash_table_iter_init(&iter, store->chunks);
    while (g_hash_table_iter_next(&iter, &key, NULL)) {
        g_array_append_vals(numbers, key, 1);
    }
    g_array_sort(numbers, compare_numbers);
    return numbers;
}

/* --- reading -------------------------------------------------------------- */

static bool is_noise(const SimStore *store, int64_t index)
{
    return store->noise && index < store->noise_end;
}

/* The same bytes on every machine: SplitMix64 of the key and the place. */
static void make_noise(const SimStore *store, int64_t index, uint8_t *buf)
{
    uint64_t state = store->noise_key ^
                     (uint64_t)index * UINT64_C(0xD1342543DE82EF95);

    for (uint32_t i = 0; i < store->atom; i += 8) {
        uint64_t z = state += UINT64_C(0x9E3779B97F4A7C15);

        z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
        z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
        z = GUINT64_TO_LE(z ^ z >> 31);
        memcpy(buf + i, &z, 8);
    }
}

void sim_store_read_value(SimStore *store, int64_t index,
                          const SimValue *value, uint8_t *buf)
{
    if (is_data(*value)) {
        memcpy(buf, value->write->data + value->at, store->atom);
    } else if (!value->write && is_noise(store, index)) {
        make_noise(store, index, buf);
    } else {
        memset(buf, 0, store->atom);
    }
}

static void read_atom(SimStore *store, int64_t index, uint8_t *buf)
{
    SimAtom *atom = sim_store_atom(store, index, false);
    SimValue value = atom ? newest(atom) : (SimValue){ NULL, 0 };

    sim_store_read_value(store, index, &value, buf);
}

/* A part of one atom. */
static void read_part(SimStore *store, int64_t offset, size_t bytes,
                      uint8_t *buf)
{
    g_autofree uint8_t *whole = g_malloc(store->atom);

    read_atom(store, offset / store->atom, whole);
    memcpy(buf, whole + offset % store->atom, bytes);
}

void sim_store_read(SimStore *store, int64_t offset, int64_t bytes,
                    uint8_t *buf)
{
    while (bytes > 0) {
        size_t inside = offset % store->atom;
        size_t n = MIN((uint64_t)bytes, store->atom - inside);

        if (n == store->atom) {
            read_atom(store, offset / store->atom, buf);
        } else {
            read_part(store, offset, n, buf);
        }
        offset += n;
        bytes -= n;
        buf += n;
    }
}

bool sim_store_is_zero(SimStore *store, int64_t index)
{
    SimAtom *atom = sim_store_atom(store, index, false);
    SimValue value = atom ? newest(atom) : (SimValue){ NULL, 0 };

    return !is_data(value) && (value.write || !is_noise(store, index));
}

/* --- changing ------------------------------------------------------------- */

/* The part of atom @index that @write covers: where, and how long. */
static size_t covered(const SimStore *store, int64_t index,
                      const SimWrite *write, size_t *ret_inside)
{
    int64_t start = index * store->atom;
    int64_t from = MAX(start, write->offset);
    int64_t to = MIN(start + store->atom, write->offset + write->bytes);

    g_assert(from < to);
    *ret_inside = from - start;
    return to - from;
}

SimValue sim_store_value(SimStore *store, int64_t index, SimWrite *write)
{
    bool data = write->kind == SIM_WRITE_DATA;
    size_t inside;
    size_t bytes = covered(store, index, write, &inside);
    SimWrite *merged;

    if (bytes == store->atom) {
        SimValue value = { data ? write : &sim_zeroes,
                           data ? index * store->atom - write->offset : 0 };

        return sim_value_ref(value);
    }
    merged = sim_write_new(SIM_WRITE_DATA, index * store->atom, store->atom);
    read_atom(store, index, merged->data);
    if (data) {
        memcpy(merged->data + inside,
               write->data + (index * store->atom + inside - write->offset),
               bytes);
    } else {
        memset(merged->data + inside, 0, bytes);
    }
    return (SimValue){ merged, 0 };
}

static void count_stored(SimStore *store, bool before, bool after)
{
    store->stored += after;
    store->stored -= before;
}

void sim_store_touch(SimStore *store, SimAtom *atom)
{
    SimSaved saved = { atom, *atom };

    if (!store->journal || atom->epoch == store->epoch) {
        return;
    }
    g_array_append_val(store->journal, saved);      /* V3 */
    count_stored(store, sim_atom_is_stored(atom), is_data(atom->stable));
    sim_value_ref(atom->stable);
    atom->first = atom->last = NULL;
    atom->listed = false;
    atom->epoch = store->epoch;
}

void sim_store_restore(SimStore *store, guint from)
{
    for (guint i = store->journal->len; i > from; i--) {
        SimSaved *saved = &g_array_index(store->journal, SimSaved, i - 1);

        count_stored(store, sim_atom_is_stored(saved->atom),
                     sim_atom_is_stored(&saved->old));
        drop_versions(store, saved->atom);
        sim_value_unref(saved->atom->stable);
        *saved->atom = saved->old;
    }
    g_array_set_size(store->journal, from);
}

static void add_version(SimStore *store, int64_t index, SimAtom *atom,
                        SimValue value, SimWrite *write)
{
    SimVersion *version = store->unused;

    sim_store_touch(store, atom);
    if (version) {
        store->unused = version->newer;
    } else {
        version = g_new(SimVersion, 1);
    }
    *version = (SimVersion){ .value = value, .write = sim_write_ref(write) };
    count_stored(store, sim_atom_is_stored(atom), is_data(value));
    *(atom->last ? &atom->last->newer : &atom->first) = version;
    atom->last = version;
    if (!atom->listed) {
        SimDirty dirty = { index, atom };

        g_array_append_val(store->dirty, dirty);    /* V2 */
        atom->listed = true;
    }
}

void sim_store_effect(SimStore *store, int64_t index, SimWrite *write)
{
    bool data = write->kind == SIM_WRITE_DATA;
    SimAtom *atom = sim_store_atom(store, index,
                                   data || is_noise(store, index));

    /* A zero over versions counts: pinning it takes them out of the game. */
    if (!atom || (!data && !atom->first && sim_store_is_zero(store, index))) {
        return;
    }
    add_version(store, index, atom, sim_store_value(store, index, write),
                write);
}

void sim_store_replace(SimStore *store, SimAtom *atom, SimValue value)
{
    sim_store_touch(store, atom);
    count_stored(store, sim_atom_is_stored(atom), is_data(value));
    drop_versions(store, atom);
    sim_value_unref(atom->stable);
    atom->stable = value;
}

/* --- becoming stable ------------------------------------------------------ */

/* V1.  Changes nothing that a read sees. */
static void pin_up_to(SimStore *store, SimAtom *atom, SimVersion *chosen)
{
    SimVersion *version;

    sim_value_unref(atom->stable);
    atom->stable = sim_value_ref(chosen->value);
    do {
        version = atom->first;
        atom->first = version->newer;
        version_free(store, version);
    } while (version != chosen);
    if (!atom->first) {
        atom->last = NULL;
    }
}

void sim_store_pin_atom(SimStore *store, SimAtom *atom, SimVersionTest *test,
                        uint64_t arg)
{
    SimVersion *chosen = NULL;

    for (SimVersion *v = atom->first; v; v = v->newer) {
        if (!v->forgotten && test(v, arg)) {
            chosen = v;
        }
    }
    if (chosen) {
        pin_up_to(store, atom, chosen);
    }
}

void sim_store_tidy(SimStore *store)
{
    guint kept = 0;

    for (guint i = 0; i < store->dirty->len; i++) {
        SimDirty *dirty = &g_array_index(store->dirty, SimDirty, i);

        if (dirty->atom->first) {
            g_array_index(store->dirty, SimDirty, kept++) = *dirty;
        } else {
            dirty->atom->listed = false;
        }
    }
    g_array_set_size(store->dirty, kept);
}

void sim_store_pin(SimStore *store, SimVersionTest *test, uint64_t arg)
{
    for (guint i = 0; i < store->dirty->len; i++) {
        sim_store_pin_atom(store,
                           g_array_index(store->dirty, SimDirty, i).atom,
                           test, arg);
    }
    sim_store_tidy(store);
}

static void forget_atom(SimStore *store, SimAtom *atom, SimVersionTest *test,
                        uint64_t arg, bool revert)
{
    SimVersion **link = &atom->first;
    bool before = sim_atom_is_stored(atom);

    atom->last = NULL;
    while (*link) {
        SimVersion *version = *link;

        if (!test(version, arg) || !revert) {
            version->forgotten |= test(version, arg);
            atom->last = version;
            link = &version->newer;
        } else {
            *link = version->newer;
            version_free(store, version);
        }
    }
    count_stored(store, before, sim_atom_is_stored(atom));
}

void sim_store_forget(SimStore *store, SimVersionTest *test, uint64_t arg,
                      bool revert)
{
    for (guint i = 0; i < store->dirty->len; i++) {
        forget_atom(store, g_array_index(store->dirty, SimDirty, i).atom,
                    test, arg, revert);
    }
    sim_store_tidy(store);
}
