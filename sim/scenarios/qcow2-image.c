/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An empty qcow2 image, byte by byte.
 *
 *   cluster 0      header
 *   cluster 1      refcount table
 *   cluster 2      refcount block
 *   from 3 on      L1 table
 */
#include "sim/scenarios/qcow2-image.h"

#include <string.h>

#define BACKING_FORMAT 0xe2792aca /* a header extension */

static void put(uint8_t *at, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++) {
        at[i] = value >> (8 * (bytes - 1 - i));
    }
}

/* The refcounts of the first @n clusters are 1. */
static void put_refcounts(uint8_t *block, unsigned order, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (order < 3) {
            unsigned bit = i << order;

            block[bit / 8] |= 1u << (bit % 8);
        } else {
            unsigned bytes = 1u << (order - 3);

            put(block + (size_t)i * bytes, 1, bytes);
        }
    }
}

static void put_header(uint8_t *h, const SimQcow2 *how, int64_t l1_entries)
{
    int64_t cluster = INT64_C(1) << how->cluster_bits;
    size_t backing = how->backing ? strlen(how->backing) : 0;
    unsigned end = how->version == 3 ? 112 : 72;

    memcpy(h, "QFI\xfb", 4);
    put(h + 4, how->version, 4);
    put(h + 20, how->cluster_bits, 4);
    put(h + 24, how->size, 8);
    put(h + 36, l1_entries, 4);
    put(h + 40, 3 * cluster, 8);
    put(h + 48, cluster, 8);
    put(h + 56, 1, 4);
    if (how->version == 3) {
        put(h + 72, how->extended_l2 ? 1u << 4 : 0, 8);
        put(h + 80, how->lazy_refcounts ? 1 : 0, 8);
        put(h + 96, how->refcount_order, 4);
        put(h + 100, end, 4);
    }
    if (backing > 0) {
        const char *format = how->backing_format ? how->backing_format : "raw";

        g_assert(strlen(format) <= 8);
        put(h + end, BACKING_FORMAT, 4);
        put(h + end + 4, strlen(format), 4);
        memcpy(h + end + 8, format, strlen(format));
        end += 24;                   /* and the extension that ends the list */
        put(h + 8, end, 8);
        put(h + 16, backing, 4);
        memcpy(h + end, how->backing, backing);
    }
}

void sim_qcow2_make(BgSimDisk *disk, const SimQcow2 *how)
{
    int64_t cluster = INT64_C(1) << how->cluster_bits;
    int64_t l2_covers = cluster * (cluster / (how->extended_l2 ? 16 : 8));
    int64_t l1_entries = (how->size + l2_covers - 1) / l2_covers;
    int64_t l1_clusters = (l1_entries * 8 + cluster - 1) / cluster;
    int64_t bytes = (3 + l1_clusters) * cluster;
    g_autofree uint8_t *image = g_malloc0(bytes);

    g_assert(how->version == 3 || how->refcount_order == 4);
    put_header(image, how, l1_entries);
    put(image + cluster, 2 * cluster, 8);
    put_refcounts(image + 2 * cluster, how->refcount_order, 3 + l1_clusters);
    bgsim_disk_poke(disk, 0, bytes, image);
}

static uint64_t get(const uint8_t *at, unsigned bytes)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < bytes; i++) {
        value = value << 8 | at[i];
    }
    return value;
}

void sim_qcow2_backing(BgSimDisk *disk, char **ret_file, char **ret_format)
{
    uint8_t h[4096] = { 0 };
    uint64_t name, bytes, at;

    *ret_file = *ret_format = NULL;
    bgsim_disk_peek(disk, 0, MIN(bgsim_disk_length(disk),
                                 (int64_t)sizeof(h)), h);
    name = get(h + 8, 8);
    bytes = get(h + 16, 4);
    if (name == 0 || name + bytes > sizeof(h)) {
        return;
    }
    *ret_file = g_strndup((char *)h + name, bytes);
    at = get(h + 4, 4) == 3 ? get(h + 100, 4) : 72;
    while (at + 8 < sizeof(h) && get(h + at, 4) != 0) {
        bytes = get(h + at + 4, 4);
        if (get(h + at, 4) == BACKING_FORMAT && at + 8 + bytes < sizeof(h)) {
            *ret_format = g_strndup((char *)h + at + 8, bytes);
        }
        at += 8 + ((bytes + 7) & ~UINT64_C(7));
    }
}
