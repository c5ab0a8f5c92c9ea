/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The metadata cache: which slices have memory, and which gives way.
 *
 *              hold                 enter
 *     spare ---------> empty ---------------> clock
 *       ^                |  ^                   |
 *       +---- release ---+  +------ leave ------+
 *
 * A slice that is held is counted, whether its pages were touched or not.
 * Slices are held one by one, when one is wanted and none is empty: so a cache
 * that is full of memory chooses victims, and one that is small grows.
 *
 * M1  nr_held >= QCOW2_CACHE_MIN_SLICES.
 * M2  After qcow2_cache_has_room(count) has said yes, and until as many slices
 *     have become dirty, there are nr_held - nr_dirty > what is left of count,
 *     also if a write fails: nobody releases slices below nr_dirty, nr_writing
 *     and reserved.  So who holds the meta lock never waits for memory, only
 *     for readers' pins, as in a cache of that size; and readers wait for
 *     nothing that takes the meta lock.
 */
#include "block/formats/qcow2/cache-int.h"

#include <sys/mman.h>
#include <unistd.h>

/* The slice, what is known of it, and its part of the buckets. */
static int64_t slice_cost(const Qcow2CacheConfig *config)
{
    return config->slice_bytes + sizeof(Qcow2Slice) + 4 * sizeof(uint32_t);
}

int64_t qcow2_cache_full_bytes(const Qcow2CacheConfig *config)
{
    return (int64_t)config->nr_slices * slice_cost(config);
}

/* --- the clock ------------------------------------------------------------ */

/* The slice at the hand, which goes on; there is one. */
static Qcow2Slice *tick(Qcow2Cache *cache)
{
    ListHead *here = cache->hand == &cache->clock ? cache->clock.next
                                                  : cache->hand;

    cache->hand = here->next;
    return LIST_ENTRY(here, Qcow2Slice, home);
}

void qcow2_cache_enter(Qcow2Cache *cache, Qcow2Slice *s)
{
    list_remove(&s->home);
    list_append(cache->hand, &s->home); /* before it: the last to be seen */
}

void qcow2_cache_leave(Qcow2Cache *cache, Qcow2Slice *s)
{
    if (cache->hand == &s->home) {
        cache->hand = s->home.next;
    }
    list_remove(&s->home);
    list_append(&cache->empty, &s->home);
}

bool qcow2_cache_can_be_victim(const Qcow2Cache *cache, const Qcow2Slice *s)
{
    return s->pins == 0 && !s->frozen && !s->writing &&
           (!s->dirty || !cache->config.ordered) && s->state != SLICE_LOADING;
}

bool qcow2_cache_has_victim(Qcow2Cache *cache)
{
    LIST_FOREACH(link, &cache->clock) {
        if (qcow2_cache_can_be_victim(cache, LIST_ENTRY(link, Qcow2Slice,
                                                        home))) {
            return true;
        }
    }
    return !list_empty(&cache->empty);
}

/* The first that was not used since the hand passed it. */
static Qcow2Slice *choose_victim(Qcow2Cache *cache)
{
    for (size_t i = 0; i < 2 * cache->nr_held; i++) {
        Qcow2Slice *s;

        if (list_empty(&cache->clock)) {
            break;
        }
        s = tick(cache);
        if (qcow2_cache_can_be_victim(cache, s) &&
            !atomic_exchange_explicit(&s->used, false,
                                      memory_order_relaxed)) {
            return s;
        }
    }
    return NULL;
}

/* --- holding -------------------------------------------------------------- */

/* A slice without memory; there is one. */
static Qcow2Slice *take_spare(Qcow2Cache *cache)
{
    size_t i = cache->nr_touched;
    Qcow2Slice *s;

    if (!list_empty(&cache->spare)) {
        s = LIST_ENTRY(cache->spare.next, Qcow2Slice, home);
        list_remove(&s->home);
        return s;
    }
    s = &cache->slices[i];
    s->words = (void *)((char *)cache->memory + (i << cache->slice_shift));
    list_init(&s->link);
    list_init(&s->frozen_link);
    cache->nr_touched++;
    return s;
}

/* One slice more, EMPTY; false: there is no memory for it. */
static bool hold_one(Qcow2Cache *cache)
{
    int64_t cost = slice_cost(&cache->config);
    Qcow2Slice *s;

    if (cache->nr_held == cache->config.nr_slices) {
        return false;
    }
    if (cache->nr_held < QCOW2_CACHE_MIN_SLICES) {
        table_memory_take_always(cache->config.account, cost); /* M1 */
    } else if (!table_memory_take_soft(cache->config.account, cost)) {
        return false;
    }
    s = take_spare(cache);
    s->held = true;
    cache->nr_held++;
    list_append(&cache->empty, &s->home);
    return true;
}

bool qcow2_cache_hold(Qcow2Cache *cache, size_t nr)
{
    while (cache->nr_held < nr) {
        if (!hold_one(cache)) {
            return false;
        }
    }
    return true;
}

/* The EMPTY slice @s has no memory any more. */
static void release(Qcow2Cache *cache, Qcow2Slice *s)
{
    g_assert(s->state == SLICE_EMPTY && s->held && !s->copy);
    madvise((void *)s->words, cache->config.slice_bytes, MADV_DONTNEED);
    s->held = false;
    cache->nr_held--;
    list_remove(&s->home);
    list_append(&cache->spare, &s->home);
    table_memory_give(cache->config.account, slice_cost(&cache->config));
}

/* Whether one slice less will do, and memory comes back for it: pages of
 * several slices stay. */
static bool may_release(const Qcow2Cache *cache)
{
    size_t least = MAX((size_t)QCOW2_CACHE_MIN_SLICES,
                       qcow2_cache_changed(cache) + cache->reserved);

    return cache->nr_held > least &&
           cache->config.slice_bytes % sysconf(_SC_PAGESIZE) == 0;
}

/* Give up a slice, one in use if need be. */
static bool release_one(Qcow2Cache *cache)
{
    Qcow2Slice *s;

    if (!may_release(cache)) {
        return false;
    }
    if (list_empty(&cache->empty)) {
        s = choose_victim(cache);
        if (!s || s->dirty) {
            return false;
        }
        qcow2_cache_make_empty(cache, s);
    }
    release(cache, LIST_ENTRY(cache->empty.next, Qcow2Slice, home));
    return true;
}

Qcow2Slice *qcow2_cache_victim(Qcow2Cache *cache)
{
    if (table_memory_is_short(cache->config.account)) {
        release_one(cache);
    }
    if (list_empty(&cache->empty) && !hold_one(cache)) {
        return choose_victim(cache);
    }
    return LIST_ENTRY(cache->empty.next, Qcow2Slice, home);
}

void qcow2_cache_shrink(Qcow2Cache *cache, int64_t bytes)
{
    LOCK_GUARD(&cache->lock);

    while (bytes > 0 && release_one(cache)) {
        bytes -= slice_cost(&cache->config);
    }
}

void qcow2_cache_count_copy(Qcow2Cache *cache, int count)
{
    if (count > 0) {
        table_memory_take_always(cache->config.account,
                                 cache->config.slice_bytes);
    } else {
        table_memory_give(cache->config.account, cache->config.slice_bytes);
    }
}

/* --- life ----------------------------------------------------------------- */

void qcow2_cache_memory_init(Qcow2Cache *cache)
{
    list_init(&cache->clock);
    list_init(&cache->empty);
    list_init(&cache->spare);
    cache->hand = &cache->clock;
    qcow2_cache_hold(cache, QCOW2_CACHE_MIN_SLICES);
}

void qcow2_cache_memory_clear(Qcow2Cache *cache)
{
    g_assert(list_empty(&cache->clock));
    table_memory_give(cache->config.account,
                      cache->nr_held * slice_cost(&cache->config));
    cache->nr_held = 0;
}

void qcow2_cache_clean_unused(Qcow2Cache *cache)
{
    LOCK_GUARD(&cache->lock);

    for (size_t i = 0; i < cache->nr_touched; i++) {
        Qcow2Slice *s = &cache->slices[i];

        if (s->state != SLICE_READY || s->dirty ||
            !qcow2_cache_can_be_victim(cache, s)) {
            continue;
        }
        if (atomic_exchange_explicit(&s->used, false, memory_order_relaxed)) {
            s->idle = false;
        } else if (s->idle) {
            qcow2_cache_make_empty(cache, s);
        } else {
            s->idle = true;
        }
    }
    while (!list_empty(&cache->empty) && release_one(cache)) {
    }
}
