/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The dirty bitmap: nanoseconds an operation, on a 64 GiB and a 1 TiB disk
 * with a bit for 64 KiB.
 *
 * "sparse" has one granule in 1000 dirty, "half" every other run of random
 * length up to 128 granules.
 *
 * The four figures that were promised come first, of 16 TiB.
 */
#include "util/hbitmap-int.h"

#include <glib.h>
#include <inttypes.h>
#include <stdio.h>

#define GRANULARITY 16
#define OPERATIONS 1000000

typedef struct Bench {
    HBitmap *hb;
    int64_t size;           /* bytes of the disk */
    int64_t *offsets;       /* OPERATIONS random granules */
    int64_t sum;            /* of the results, so that they are computed */
} Bench;

typedef void BenchFn(Bench *b);

/* Run @fn, which does @operations operations, and print what one takes. */
static void measure(Bench *b, const char *name, BenchFn *fn, double operations)
{
    int64_t start_us = g_get_monotonic_time();

    fn(b);
    printf("  %-34s %12.1f\n", name,
           (g_get_monotonic_time() - start_us) * 1e3 / operations);
}

static void set_one(Bench *b)
{
    for (int i = 0; i < OPERATIONS; i++) {
        hbitmap_set(b->hb, b->offsets[i], 65536);
    }
}

static void reset_one(Bench *b)
{
    for (int i = 0; i < OPERATIONS; i++) {
        hbitmap_reset(b->hb, b->offsets[i], 65536);
    }
}

/* 1 MiB, aligned, as a large write or a job does. */
static void set_range(Bench *b)
{
    for (int i = 0; i < OPERATIONS; i++) {
        hbitmap_set(b->hb, b->offsets[i] & ~((INT64_C(1) << 20) - 1), 1 << 20);
    }
}

static void get(Bench *b)
{
    for (int i = 0; i < OPERATIONS; i++) {
        b->sum += hbitmap_get(b->hb, b->offsets[i]);
    }
}

static void next_dirty(Bench *b)
{
    for (int i = 0; i < OPERATIONS; i++) {
        b->sum += hbitmap_next_dirty(b->hb, b->offsets[i], INT64_MAX);
    }
}

static void next_zero(Bench *b)
{
    for (int i = 0; i < OPERATIONS; i++) {
        b->sum += hbitmap_next_zero(b->hb, b->offsets[i], INT64_MAX);
    }
}

static void next_area(Bench *b)
{
    int64_t start, count;

    for (int i = 0; i < OPERATIONS; i++) {
        if (hbitmap_next_dirty_area(b->hb, b->offsets[i], b->size, b->size,
                                    &start, &count)) {
            b->sum += count;
        }
    }
}

static void count_all(Bench *b)
{
    for (int i = 0; i < OPERATIONS; i++) {
        b->sum += hbitmap_count(b->hb);
    }
}

static void set_all(Bench *b)
{
    hbitmap_set(b->hb, 0, b->size);
}

static void reset_all(Bench *b)
{
    hbitmap_reset(b->hb, 0, b->size);
}

/* The longest search there is: nothing is clean but the last granule. */
static void next_zero_far(Bench *b)
{
    b->sum += hbitmap_next_zero(b->hb, 0, INT64_MAX);
}

static void walk(Bench *b)
{
    HBitmapIter iter;
    int64_t item;

    hbitmap_iter_init(&iter, b->hb, 0);
    while ((item = hbitmap_iter_next(&iter)) >= 0) {
        b->sum += item;
    }
}

static void merge_same(Bench *b)
{
    HBitmap *to = hbitmap_new(b->size, GRANULARITY);

    hbitmap_merge(to, b->hb);
    b->sum += hbitmap_count(to);
    hbitmap_free(to);
}

static void merge_coarser(Bench *b)
{
    HBitmap *to = hbitmap_new(b->size, GRANULARITY + 3);

    hbitmap_merge(to, b->hb);
    b->sum += hbitmap_count(to);
    hbitmap_free(to);
}

static void fill_half(Bench *b, GRand *rand)
{
    int64_t at = 0;

    while (at < b->size) {
        int64_t run = (int64_t)g_rand_int_range(rand, 1, 129) << GRANULARITY;

        hbitmap_set(b->hb, at, MIN(run, b->size - at));
        at += run;
        at += (int64_t)g_rand_int_range(rand, 1, 129) << GRANULARITY;
    }
}

static void bench_searches(Bench *b, const char *fill)
{
    double dirty = hbitmap_count(b->hb) >> GRANULARITY;

    printf(" %s: %.0f of %" PRId64 " bits\n", fill, dirty,
           b->size >> GRANULARITY);
    measure(b, "get", get, OPERATIONS);
    measure(b, "next_dirty", next_dirty, OPERATIONS);
    measure(b, "next_zero", next_zero, OPERATIONS);
    measure(b, "next_dirty_area", next_area, OPERATIONS);
    measure(b, "count", count_all, OPERATIONS);
    measure(b, "walk, a dirty bit", walk, dirty);
    measure(b, "merge, whole", merge_same, 1);
    measure(b, "merge into 512 KiB, whole", merge_coarser, 1);
}

static void bench_disk(int64_t size, GRand *rand)
{
    Bench b = { .hb = hbitmap_new(size, GRANULARITY), .size = size };
    int64_t bits = size >> GRANULARITY;

    b.offsets = g_new(int64_t, OPERATIONS);
    for (int i = 0; i < OPERATIONS; i++) {
        b.offsets[i] = (int64_t)(g_rand_double(rand) * bits) << GRANULARITY;
    }
    printf("%" PRId64 " GiB, %" PRId64 " KiB of bits; ns an operation\n",
           size >> 30, bits >> 13);
    measure(&b, "set, whole", set_all, 1);
    hbitmap_reset(b.hb, size - 65536, 65536);
    measure(&b, "next_zero, at the far end", next_zero_far, 1);
    measure(&b, "reset, whole", reset_all, 1);
    measure(&b, "set 64 KiB at random", set_one, OPERATIONS);
    measure(&b, "reset 64 KiB at random", reset_one, OPERATIONS);
    measure(&b, "set 1 MiB at random", set_range, OPERATIONS);
    hbitmap_reset_all(b.hb);
    for (int i = 0; i < bits / 1000; i++) {
        hbitmap_set(b.hb, b.offsets[i], 65536);
    }
    bench_searches(&b, "sparse");
    hbitmap_reset_all(b.hb);
    fill_half(&b, rand);
    bench_searches(&b, "half");
    g_assert(b.sum != 0);
    g_free(b.offsets);
    hbitmap_free(b.hb);
}

/* --- what was promised ---------------------------------------------------- */

/* Best of a few; @from_clean: on a clean bitmap each time. */
static double ns_of(Bench *b, BenchFn *fn, bool from_clean)
{
    int64_t best_us = INT64_MAX;

    for (int i = 0; i < 5; i++) {
        int64_t start_us;

        if (from_clean) {
            hbitmap_reset_all(b->hb);
        }
        start_us = g_get_monotonic_time();
        fn(b);
        best_us = MIN(best_us, g_get_monotonic_time() - start_us);
    }
    return best_us * 1e3 / OPERATIONS;
}

static double memory_mib(const HBitmap *hb)
{
    int64_t words = 0;

    for (int k = 0; k < HBITMAP_LEVELS_MAX; k++) {
        words += hb->levels[k].capacity;
    }
    return words * 8.0 / (1 << 20);
}

/* GiB of bitmap a second, of @from into one that is clean; best of a few. */
static double merge_rate(const HBitmap *from)
{
    double best = 0;

    for (int i = 0; i < 5; i++) {
        HBitmap *to = hbitmap_new(hbitmap_size(from), GRANULARITY);
        int64_t start_us;

        hbitmap_set(to, 0, hbitmap_size(from)); /* its memory is there */
        hbitmap_reset_all(to);
        start_us = g_get_monotonic_time();
        hbitmap_merge(to, from);
        best = MAX(best, memory_mib(from) / 1024 * 1e6 /
                             (g_get_monotonic_time() - start_us));
        hbitmap_free(to);
    }
    return best;
}

/* A random range of 1 to 16 granules, that begins anywhere. */
static void set_random(Bench *b)
{
    for (int i = 0; i < OPERATIONS; i++) {
        int64_t bytes = 1 + (b->offsets[i] >> GRANULARITY) % (1 << 20);

        hbitmap_set(b->hb, b->offsets[i], MIN(bytes, b->size - b->offsets[i]));
    }
}

static void bench_promises(GRand *rand)
{
    Bench b = { .size = INT64_C(16) << 40 };
    int64_t bits = b.size >> GRANULARITY;

    b.hb = hbitmap_new(b.size, GRANULARITY);
    b.offsets = g_new(int64_t, OPERATIONS);
    for (int i = 0; i < OPERATIONS; i++) {
        b.offsets[i] = (int64_t)(g_rand_double(rand) * bits) << GRANULARITY;
    }
    hbitmap_set(b.hb, 0, b.size); /* its memory is there */
    hbitmap_reset_all(b.hb);
    printf("16 TiB at 64 KiB a bit\n");
    printf("  %-34s %12.1f MiB (at most 40)\n", "memory", memory_mib(b.hb));
    printf("  %-34s %12.1f ns (at most 100)\n", "set a random range",
           ns_of(&b, set_random, true));
    hbitmap_reset_all(b.hb);
    for (int i = 0; i < 100; i++) {
        hbitmap_set(b.hb, b.offsets[i], 65536);
    }
    printf("  %-34s %12.1f ns (at most 1000)\n",
           "next dirty area, nearly clean", ns_of(&b, next_area, false));
    printf("  %-34s %12.1f GiB/s (at least 2)\n", "merge, nearly clean",
           merge_rate(b.hb));
    hbitmap_reset_all(b.hb);
    for (int64_t at = 0; at < b.size; at += INT64_C(3) << GRANULARITY) {
        hbitmap_set(b.hb, at, 65536);
    }
    printf("  %-34s %12.1f GiB/s (at least 2)\n", "merge, each third dirty",
           merge_rate(b.hb));
    hbitmap_set(b.hb, 0, b.size);
    printf("  %-34s %12.1f GiB/s (at least 2)\n", "merge, all dirty",
           merge_rate(b.hb));
    g_free(b.offsets);
    hbitmap_free(b.hb);
}

int main(void)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(1);

    bench_promises(rand);

    bench_disk(INT64_C(64) << 30, rand);
    bench_disk(INT64_C(1) << 40, rand);
    return 0;
}
