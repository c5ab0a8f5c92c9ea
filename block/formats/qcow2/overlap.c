/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The map of metadata: no write may hit metadata that it is not meant for.
 *
 * Tables of one cluster (L2 tables, refcount blocks), of which there may be
 * many, are in a hash set; the few others are ranges in a tree.  One lock
 * guards both, for the time of a look-up.
 *
 * A word of the hash set is a cluster number and the kinds of metadata in that
 * cluster; 0 is an empty place (cluster 0 is the header, a range).  A word
 * whose kinds are all gone keeps its place until the set is built anew, so
 * that chains of places stay whole.
 *
 * The map helps against images that lie and against our own mistakes.  It does
 * not know what the check (check.c) knows: whether one cluster serves twice.
 */
#include "block/formats/qcow2/refcount.h"

#include <errno.h>

/* Kinds whose tables are one cluster each. */
#define SINGLE_KINDS                                                           \
    (QCOW2_OL_ACTIVE_L2 | QCOW2_OL_REFCOUNT_BLOCK | QCOW2_OL_INACTIVE_L2)

#define KIND_BITS 9
#define KIND_MASK ((UINT64_C(1) << KIND_BITS) - 1)

#define MIN_PLACES 64

static const char *const kind_names[] = {
    "header",
    "active L1 table",
    "active L2 table",
    "refcount block",
    "refcount table",
    "snapshot table",
    "inactive L1 table",
    "inactive L2 table",
    "bitmap directory",
};

_Static_assert(G_N_ELEMENTS(kind_names) == KIND_BITS &&
                   QCOW2_OL_ALL == (1 << KIND_BITS) - 1,
               "every kind has a bit and a name");

/* Metadata of any length. */
typedef struct MetaRange {
    IntervalNode node;
    unsigned kind;
} MetaRange;

struct Qcow2Metamap {
    Qcow2 *q;
    Lock lock;
    /* Guarded by @lock. */
    uint64_t *places;
    uint64_t mix;         /* odd and not to be guessed: an image must not be
                           * able to choose clusters that all collide */
    size_t nr_places;     /* a power of two */
    size_t used;          /* not 0 */
    size_t live;          /* with kinds */
    IntervalTree ranges;  /* MetaRange */
    bool over;            /* a sum would have refused the memory of @places */
};

const char *qcow2_overlap_name(unsigned kinds)
{
    g_assert(kinds != 0 && kinds <= QCOW2_OL_ALL);
    return kind_names[__builtin_ctz(kinds)];
}

/* --- the hash set; under the lock ----------------------------------------- */

/* The place of @cluster, or the empty one where it belongs. */
static inline uint64_t *find_place(Qcow2Metamap *map, uint64_t cluster)
{
    size_t mask = map->nr_places - 1;
    size_t i = (cluster * map->mix >> 32) & mask;

    while (map->places[i] && map->places[i] >> KIND_BITS != cluster) {
        i = (i + 1) & mask;
    }
    return &map->places[i];
}

static int64_t places_bytes(const Qcow2Metamap *map)
{
    return (int64_t)map->nr_places * sizeof(*map->places);
}

/* An open looks afterwards whether it was too much.  Later on no write fails
 * for this: there are 64 bytes at most for each table that the guest fills. */
static void new_places(Qcow2Metamap *map, size_t nr)
{
    map->nr_places = nr;
    if (!qcow2_memory_try(map->q, places_bytes(map))) {
        qcow2_memory_take_always(map->q, places_bytes(map));
        map->over = true;
    }
    map->places = g_new0(uint64_t, nr);
}

/* Half of the places stay empty, so that look-ups are short. */
static void rebuild(Qcow2Metamap *map)
{
    uint64_t *old = map->places;
    size_t nr_old = map->nr_places;
    size_t nr = MIN_PLACES;

    while (nr < map->live * 4) {
        nr *= 2;
    }
    new_places(map, nr);
    for (size_t i = 0; i < nr_old; i++) {
        if (old[i] & KIND_MASK) {
            *find_place(map, old[i] >> KIND_BITS) = old[i];
        }
    }
    g_free(old);
    qcow2_memory_give(map->q, (int64_t)nr_old * sizeof(*old));
    map->used = map->live;
}

static void add_cluster(Qcow2Metamap *map, uint64_t cluster, unsigned kind)
{
    uint64_t *place;

    if (map->used >= map->nr_places / 2) {
        rebuild(map);
    }
    place = find_place(map, cluster);
    if (!*place) {
        *place = cluster << KIND_BITS;
        map->used++;
    }
    map->live += !(*place & KIND_MASK);
    *place |= kind;
}

static void remove_cluster(Qcow2Metamap *map, uint64_t cluster, unsigned kind)
{
    uint64_t *place = find_place(map, cluster);

    if (*place & kind) {
        *place &= ~(uint64_t)kind;
        map->live -= !(*place & KIND_MASK);
    }
}

/* The first of [@first, @end) with one of @kinds; @end: none. */
static uint64_t find_cluster(Qcow2Metamap *map, uint64_t first, uint64_t end,
                             unsigned kinds)
{
    if (end - first <= map->nr_places) {
        for (; first < end; first++) {
            if (*find_place(map, first) & kinds) {
                break;
            }
        }
        return first;
    }
    for (size_t i = 0; i < map->nr_places; i++) {
        uint64_t cluster = map->places[i] >> KIND_BITS;

        if ((map->places[i] & kinds) && cluster >= first && cluster < end) {
            end = cluster;
        }
    }
    return end;
}

/* --- ranges; under the lock ----------------------------------------------- */

static void add_range(Qcow2Metamap *map, unsigned kind, int64_t offset,
                      int64_t bytes)
{
    MetaRange *range = g_new0(MetaRange, 1);

    interval_node_init(&range->node, offset, bytes);
    range->kind = kind;
    interval_tree_insert(&map->ranges, &range->node);
}

static void remove_range(Qcow2Metamap *map, unsigned kind, int64_t offset,
                         int64_t bytes)
{
    int64_t last = offset + bytes - 1;
    IntervalNode *node =
        interval_tree_first_overlap(&map->ranges, offset, last);

    while (node) {
        MetaRange *range = LIST_ENTRY(node, MetaRange, node);

        if (range->kind == kind && node->start == offset &&
            node->last == last) {
            interval_tree_remove(&map->ranges, node);
            g_free(range);
            return;
        }
        node = interval_tree_next_overlap(node, offset, last);
    }
}

static unsigned find_range(Qcow2Metamap *map, unsigned kinds, int64_t offset,
                           int64_t bytes, int64_t *ret_at)
{
    int64_t last = offset + bytes - 1;
    IntervalNode *node =
        interval_tree_first_overlap(&map->ranges, offset, last);

    while (node) {
        MetaRange *range = LIST_ENTRY(node, MetaRange, node);

        if (range->kind & kinds) {
            *ret_at = MAX(node->start, offset);
            return range->kind;
        }
        node = interval_tree_next_overlap(node, offset, last);
    }
    return 0;
}

/* --- the map -------------------------------------------------------------- */

static Qcow2Metamap *metamap_new(Qcow2 *q)
{
    Qcow2Metamap *map = g_new0(Qcow2Metamap, 1);

    lock_init(&map->lock, LOCK_RANK_DRIVER);
    map->mix = (uint64_t)g_random_int() << 32 | g_random_int() | 1;
    map->q = q;
    new_places(map, MIN_PLACES);
    return map;
}

void qcow2_metamap_free(Qcow2Metamap *map)
{
    IntervalNode *node;

    if (!map) {
        return;
    }
    while ((node = interval_tree_first(&map->ranges))) {
        interval_tree_remove(&map->ranges, node);
        g_free(LIST_ENTRY(node, MetaRange, node));
    }
    g_free(map->places);
    qcow2_memory_give(map->q, places_bytes(map));
    g_free(map);
}

static void map_add(Qcow2Metamap *map, const Qcow2Geometry *geo, unsigned kind,
                    int64_t offset, int64_t bytes)
{
    LOCK_GUARD(&map->lock);

    if (!(kind & SINGLE_KINDS)) {
        /* Nothing else shares a cluster with them. */
        add_range(map, kind, offset,
                  qcow2_cluster_up(geo, offset + bytes) - offset);
        return;
    }
    for (int64_t at = offset; at < offset + bytes; at += geo->cluster_bytes) {
        add_cluster(map, at >> geo->cluster_bits, kind);
    }
}

void qcow2_metamap_add(Qcow2 *q, Qcow2Overlap kind, int64_t offset,
                       int64_t bytes)
{
    g_assert(offset >= 0 && !qcow2_into_cluster(&q->geo, offset));
    if (q->metamap && bytes > 0) {
        map_add(q->metamap, &q->geo, kind, offset, bytes);
    }
}

void qcow2_metamap_remove(Qcow2 *q, Qcow2Overlap kind, int64_t offset,
                          int64_t bytes)
{
    Qcow2Metamap *map = q->metamap;

    g_assert(offset >= 0 && !qcow2_into_cluster(&q->geo, offset));
    if (!map || bytes <= 0) {
        return;
    }
    LOCK_GUARD(&map->lock);
    if (!(kind & SINGLE_KINDS)) {
        remove_range(map, kind, offset,
                     qcow2_cluster_up(&q->geo, offset + bytes) - offset);
        return;
    }
    for (int64_t at = offset; at < offset + bytes;
         at += q->geo.cluster_bytes) {
        remove_cluster(map, at >> q->geo.cluster_bits, kind);
    }
}

unsigned qcow2_metamap_find(Qcow2 *q, unsigned kinds, int64_t offset,
                            int64_t bytes, int64_t *ret_at)
{
    Qcow2Metamap *map = q->metamap;
    unsigned bits = q->geo.cluster_bits;
    uint64_t first = offset >> bits;
    uint64_t end = ((uint64_t)(offset + bytes - 1) >> bits) + 1;
    uint64_t cluster;
    unsigned found;

    g_assert(offset >= 0 && bytes > 0);
    if (!map) {
        return 0;
    }
    LOCK_GUARD(&map->lock);
    found = find_range(map, kinds, offset, bytes, ret_at);
    if (found || !(kinds & SINGLE_KINDS)) {
        return found;
    }
    cluster = find_cluster(map, first, end, kinds & SINGLE_KINDS);
    if (cluster == end) {
        return 0;
    }
    *ret_at = cluster << bits;
    return *find_place(map, cluster) & kinds &
           KIND_MASK;
}

int coroutine_fn qcow2_check_overlap(Qcow2 *q, unsigned ign, int64_t offset,
                                     int64_t bytes, bool data)
{
    int64_t at;
    unsigned found;

    if (bytes <= 0) {
        return 0;
    }
    found = qcow2_metamap_find(q, q->options.overlap_check & ~ign, offset,
                               bytes, &at);
    if (G_LIKELY(!found)) {
        return 0;
    }
    qcow2_signal_corruption(q, true, at, bytes, "a write of %s would hit the "
                            "%s", data ? "data" : "metadata",
                            qcow2_overlap_name(found));
    return -EIO;
}

/* --- building it ---------------------------------------------------------- */

/* Where the file ends, as far as tables may lie in it. */
static bool in_file(const Qcow2 *q, uint64_t offset)
{
    return offset > 0 && offset < (uint64_t)q->fresh_from &&
           !qcow2_into_cluster(&q->geo, offset);
}

static void add_l2_tables(Qcow2 *q, Qcow2Metamap *map, Qcow2L1 *l1,
                          unsigned kind)
{
    LOCK_GUARD(&map->lock);

    for (size_t i = 0; l1 && i < l1->nr; i++) {
        uint64_t entry = atomic_load_explicit(&l1->entry[i],
                                              memory_order_relaxed);

        if (in_file(q, entry & QCOW2_OFFSET_MASK)) {
            add_cluster(map, (entry & QCOW2_OFFSET_MASK) >>
                                 q->geo.cluster_bits, kind);
        }
    }
}

/* Returns whether one block serves twice. */
static bool add_refblocks(Qcow2 *q, Qcow2Metamap *map)
{
    bool twice = false;

    for (size_t i = 0; i < q->reftable.nr; i++) {
        uint64_t entry = q->reftable.entry[i];
        uint64_t cluster = entry >> q->geo.cluster_bits;

        if (!in_file(q, entry)) {
            continue;
        }
        twice |= (*find_place(map, cluster) &
                  QCOW2_OL_REFCOUNT_BLOCK) != 0;
        add_cluster(map, cluster, QCOW2_OL_REFCOUNT_BLOCK);
    }
    return twice;
}

/* A range of the header or a snapshot; nonsense is told by who reads it. */
static void add_table(Qcow2 *q, Qcow2Metamap *map, unsigned kind,
                      uint64_t offset, uint64_t bytes)
{
    if (in_file(q, offset) && bytes > 0 && bytes <= INT32_MAX) {
        map_add(map, &q->geo, kind, offset, bytes);
    }
}

static void add_snapshots(Qcow2 *q, Qcow2Metamap *map)
{
    for (guint i = 0; q->snapshots && i < q->snapshots->len; i++) {
        const Qcow2Snapshot *s = g_ptr_array_index(q->snapshots, i);

        uint64_t offset, nr;

        if (untrusted_at_most(s->l1_offset, QCOW2_MAX_HOST_OFFSET, &offset) &&
            untrusted_at_most(s->l1_size, QCOW2_MAX_L1_BYTES / 8, &nr)) {
            add_table(q, map, QCOW2_OL_INACTIVE_L1, offset, nr * 8);
        }
    }
}

/* Whether an image may have so large a map when it is opened, or reopened. */
static int check_memory(Qcow2 *q, Qcow2Metamap *map, GError **errp)
{
    int ret;

    if (!map->over) {
        return 0;
    }
    /* Once more, as caches may give way. */
    qcow2_memory_give(q, places_bytes(map));
    ret = qcow2_memory_take(q, places_bytes(map), errp);
    if (ret < 0) {
        qcow2_memory_take_always(q, places_bytes(map)); /* till it is freed */
    }
    map->over = ret < 0;
    return ret;
}

/* They have to be read: only if they are to be guarded.  @must: there is no way
 * back, so there may be as many as there are. */
static int coroutine_fn add_inactive_l2(Qcow2 *q, Qcow2Metamap *map,
                                        bool must, GError **errp)
{
    for (guint i = 0; q->snapshots && i < q->snapshots->len; i++) {
        const Qcow2Snapshot *s = g_ptr_array_index(q->snapshots, i);
        Qcow2L1 *l1;
        int ret;

        if (untrusted_is(s->l1_size, 0)) {
            continue;
        }
        ret = qcow2_l1_load(q, s->l1_offset, s->l1_size, &l1, errp);
        if (ret < 0) {
            return ret;
        }
        add_l2_tables(q, map, l1, QCOW2_OL_INACTIVE_L2);
        qcow2_l1_free(q, l1);
        ret = must ? 0 : check_memory(q, map, errp);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

int coroutine_fn qcow2_metamap_build(Qcow2 *q, GError **errp)
{
    Qcow2Metamap *map = metamap_new(q);
    const Qcow2Header *h = &q->header;
    bool twice;
    int ret = 0;

    map_add(map, &q->geo, QCOW2_OL_MAIN_HEADER, 0, q->geo.cluster_bytes);
    add_table(q, map, QCOW2_OL_ACTIVE_L1, h->l1_offset,
              (uint64_t)h->l1_size * 8);
    add_table(q, map, QCOW2_OL_REFCOUNT_TABLE, h->reftable_offset,
              (uint64_t)h->reftable_clusters << q->geo.cluster_bits);
    add_table(q, map, QCOW2_OL_SNAPSHOT_TABLE, h->snapshots_offset,
              qcow2_snapshots_bytes(q));
    if (h->has_bitmaps) {
        add_table(q, map, QCOW2_OL_BITMAP_DIRECTORY, h->bitmap_dir_offset,
                  h->bitmap_dir_bytes);
    }
    add_l2_tables(q, map, atomic_load(&q->l1), QCOW2_OL_ACTIVE_L2);
    twice = add_refblocks(q, map);
    add_snapshots(q, map);
    ret = q->is_open ? 0 : check_memory(q, map, errp);
    if (ret == 0 && (q->options.overlap_check & QCOW2_OL_INACTIVE_L2)) {
        ret = add_inactive_l2(q, map, q->is_open, errp);
    }
    if (ret < 0 && !q->is_open) {
        qcow2_metamap_free(map);
        return ret;
    }
    /* Of a map that lacks what could not be read no write is a victim. */
    qcow2_metamap_free(q->metamap);
    q->metamap = map;
    if (twice) {
        bool look = q->read_only || q->options.for_repair;

        qcow2_signal_corruption(q, !look, h->reftable_offset, 0,
                                "the refcount table names a block twice");
        atomic_store(&q->corrupt, true); /* till it is repaired */
    }
    return ret;
}

int coroutine_fn qcow2_metamap_add_inactive_l2(Qcow2 *q, GError **errp)
{
    int ret;

    g_assert(q->metamap);
    ret = add_inactive_l2(q, q->metamap, false, errp);
    if (ret < 0) {
        qcow2_metamap_build(q, NULL); /* without them */
    }
    return ret;
}
