/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How often each cluster is referred to.
 *
 * Clusters come in chunks; a chunk that nothing refers to is not there.  Most
 * clusters are referred to once or not at all, so a chunk begins with a bit a
 * cluster and gets wider when it must: a byte, then 16 bits; the few larger
 * counts are in a hash table.  What an image can make us allocate has a limit.
 */
#include "block/formats/qcow2/check.h"

#include <errno.h>

#define CHUNK_BITS 10
#define CHUNK_CLUSTERS (INT64_C(1) << CHUNK_BITS)

/* In 16 bits: the count is in the hash table. */
#define BIG UINT16_MAX

/* Of a hash table, for each of its entries. */
#define HASH_BYTES 48

typedef enum Width {
    WIDTH_1,
    WIDTH_8,
    WIDTH_16,
} Width;

typedef struct Chunk {
    int64_t number;
    Width width;
    uint8_t *data;
} Chunk;

struct Qcow2Refmap {
    GHashTable *chunks;  /* number to Chunk */
    GHashTable *big;     /* cluster to count */
    Chunk *last;         /* the one used last, or NULL */
    GArray *order;       /* numbers of all chunks, sorted; NULL: not known */
    guint order_pos;     /* where the last search ended */
    Qcow2 *q;            /* where memory is counted */
    GError **why;        /* what it says if it refuses */
    int64_t max;         /* bytes that may be allocated */
    int64_t room;        /* bytes that still may */
};

static const size_t width_bytes[] = {
    [WIDTH_1] = CHUNK_CLUSTERS / 8,
    [WIDTH_8] = CHUNK_CLUSTERS,
    [WIDTH_16] = CHUNK_CLUSTERS * 2,
};

static void chunk_free(gpointer data)
{
    Chunk *chunk = data;

    g_free(chunk->data);
    g_free(chunk);
}

Qcow2Refmap *qcow2_refmap_new(Qcow2 *q, int64_t max_bytes, GError **why)
{
    Qcow2Refmap *map = g_new0(Qcow2Refmap, 1);

    map->chunks = g_hash_table_new_full(g_int64_hash, g_int64_equal, NULL,
                                        chunk_free);
    map->big = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free,
                                     g_free);
    map->q = q;
    map->why = why;
    map->max = max_bytes;
    map->room = max_bytes;
    return map;
}

void qcow2_refmap_free(Qcow2Refmap *map)
{
    if (map) {
        qcow2_memory_give(map->q, map->max - map->room);
        g_hash_table_unref(map->chunks);
        g_hash_table_unref(map->big);
        g_clear_pointer(&map->order, g_array_unref);
        g_free(map);
    }
}

static Chunk *find_chunk(Qcow2Refmap *map, int64_t cluster)
{
    int64_t number = cluster >> CHUNK_BITS;

    if (!map->last || map->last->number != number) {
        Chunk *chunk = g_hash_table_lookup(map->chunks, &number);

        if (!chunk) {
            return NULL;
        }
        map->last = chunk;
    }
    return map->last;
}

static uint16_t chunk_get(const Chunk *chunk, unsigned i)
{
    switch (chunk->width) {
    case WIDTH_1:
        return chunk->data[i / 8] >> (i % 8) & 1;
    case WIDTH_8:
        return chunk->data[i];
    case WIDTH_16:
    default:
        return ((const uint16_t *)(const void *)chunk->data)[i];
    }
}

static void chunk_set(Chunk *chunk, unsigned i, uint16_t value)
{
    switch (chunk->width) {
    case WIDTH_1:
        chunk->data[i / 8] &= ~(1u << (i % 8));
        chunk->data[i / 8] |= value << (i % 8);
        return;
    case WIDTH_8:
        chunk->data[i] = value;
        return;
    case WIDTH_16:
    default:
        ((uint16_t *)(void *)chunk->data)[i] = value;
    }
}

uint64_t qcow2_refmap_get(Qcow2Refmap *map, int64_t cluster)
{
    Chunk *chunk = find_chunk(map, cluster);
    uint16_t value = chunk ? chunk_get(chunk, cluster & (CHUNK_CLUSTERS - 1))
                           : 0;

    if (G_UNLIKELY(value == BIG)) {
        const uint64_t *big = g_hash_table_lookup(map->big, &cluster);

        return *big;
    }
    return value;
}

/* Whether @bytes more may be taken: then they are. */
static int take_room(Qcow2Refmap *map, int64_t bytes)
{
    int ret = bytes > map->room ? -ENOMEM : 0;

    if (ret == 0) {
        ret = qcow2_memory_take(map->q, bytes, *map->why ? NULL : map->why);
    }
    if (ret == 0) {
        map->room -= bytes;
    }
    return ret;
}

static int add_chunk(Qcow2Refmap *map, int64_t cluster, Chunk **ret)
{
    Chunk *chunk;
    int code = take_room(map, width_bytes[WIDTH_1] + sizeof(*chunk) +
                                  HASH_BYTES);

    if (code < 0) {
        return code;
    }
    chunk = g_new(Chunk, 1);
    *chunk = (Chunk){ .number = cluster >> CHUNK_BITS,
                      .data = g_malloc0(width_bytes[WIDTH_1]) };
    g_hash_table_insert(map->chunks, &chunk->number, chunk);
    g_clear_pointer(&map->order, g_array_unref);
    map->last = chunk;
    *ret = chunk;
    return 0;
}

static int widen(Qcow2Refmap *map, Chunk *chunk, Width width)
{
    Chunk wide = { .number = chunk->number, .width = width };
    int ret = take_room(map, width_bytes[width]);

    if (ret < 0) {
        return ret;
    }
    wide.data = g_malloc0(width_bytes[width]);
    for (unsigned i = 0; i < CHUNK_CLUSTERS; i++) {
        chunk_set(&wide, i, chunk_get(chunk, i));
    }
    g_free(chunk->data);
    map->room += width_bytes[chunk->width];
    qcow2_memory_give(map->q, width_bytes[chunk->width]);
    chunk->data = wide.data;
    chunk->width = width;
    return 0;
}

int qcow2_refmap_set(Qcow2Refmap *map, int64_t cluster, uint64_t count)
{
    Width width = count <= 1 ? WIDTH_1 : count <= 0xff ? WIDTH_8 : WIDTH_16;
    Chunk *chunk = find_chunk(map, cluster);
    unsigned i = cluster & (CHUNK_CLUSTERS - 1);
    int ret = 0;

    if (!chunk) {
        if (count == 0) {
            return 0;
        }
        ret = add_chunk(map, cluster, &chunk);
    }
    if (ret == 0 && chunk->width < width) {
        ret = widen(map, chunk, width);
    }
    if (ret == 0 && G_UNLIKELY(count >= BIG) && chunk_get(chunk, i) != BIG) {
        ret = take_room(map, HASH_BYTES);
    }
    if (ret < 0) {
        return ret;
    }
    if (G_UNLIKELY(count >= BIG)) {
        g_hash_table_insert(map->big, g_memdup2(&cluster, sizeof(cluster)),
                            g_memdup2(&count, sizeof(count)));
        count = BIG;
    }
    chunk_set(chunk, i, count);
    return 0;
}

/* --- in order ------------------------------------------------------------- */

static int compare_numbers(const void *a, const void *b)
{
    const int64_t *x = a;
    const int64_t *y = b;

    return (*x > *y) - (*x < *y);
}

static void sort(Qcow2Refmap *map)
{
    GHashTableIter iter;
    gpointer key;

    map->order = g_array_new(false, false, sizeof(int64_t));
    map->order_pos = 0;
    g_hash_table_iter_init(&iter, map->chunks);
    while (g_hash_table_iter_next(&iter, &key, NULL)) {
        g_array_append_vals(map->order, key, 1);
    }
    g_array_sort(map->order, compare_numbers);
}

int64_t qcow2_refmap_next(Qcow2Refmap *map, int64_t cluster)
{
    int64_t number = cluster >> CHUNK_BITS;

    if (!map->order) {
        sort(map);
    }
    if (map->order_pos > 0 &&
        g_array_index(map->order, int64_t, map->order_pos - 1) >= number) {
        map->order_pos = 0; /* somebody has begun again */
    }
    while (map->order_pos < map->order->len) {
        int64_t here = g_array_index(map->order, int64_t, map->order_pos);

        if (here >= number) {
            return MAX(cluster, here << CHUNK_BITS);
        }
        map->order_pos++;
    }
    return -1;
}
