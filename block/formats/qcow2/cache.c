/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The metadata cache: slices of tables, found by their offset in the file.
 *
 *            get: not there            read
 *    EMPTY ---------------> LOADING ---------> READY
 *      ^                       | error           |
 *      +------ last unpin -- FAILED              |
 *      +---------------- victim, forget ---------+
 *
 * A READY slice is clean, or *dirty*, or *frozen* (write-back has to write it
 * as it was at one moment: in @copy if it has changed since), or both.
 *
 * C1  Identity (offset, state, links) changes under the lock only; the bytes
 *     of a READY slice under the lock and the image's meta lock.
 * C2  Both change only while @seq is odd; it is odd as long as it is LOADING.
 * C3  The memory of slices is mapped as long as the cache lives, so a stale
 *     pointer into it can be read, though not believed.
 *
 * Looking without a lock (qcow2_cache_peek).  A looker reads @seq (even), the
 * offset, the words, then @seq again, each with an acquiring load; a changer
 * makes @seq odd, stores offset and words with releasing stores, makes @seq
 * even with one.  If any word that the looker read comes from a change, the
 * load synchronises with its store, so that the looker's last load of @seq,
 * which comes after, sees the odd value that was stored before it, or a later
 * one: it differs from the even value of before, as @seq only grows (a wrap
 * needs 2^31 changes within one look).  So what passes the check is what the
 * slice held at one moment.  The chain of a bucket may be followed into another
 * one while it changes: the walk is bounded, and may miss what is there, never
 * find what is not.
 */
#include "block/formats/qcow2/cache-int.h"

#include <blockgraph/iov.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "util/sim-point.h"

/* How far a looker follows a chain that may be changing. */
#define PEEK_STEPS_MAX 32

/* --- waiting -------------------------------------------------------------- */

/* Release the lock, wait to be woken once, without the lock on return. */
static void coroutine_fn wait_unlocked(Qcow2Cache *cache, CacheWaiter **queue)
{
    CacheWaiter self = { .co = coroutine_self(), .next = *queue };

    *queue = &self;
    lock_release(&cache->lock);
    SIM_WAITS("a slice of metadata", cache);
    coroutine_yield();
}

/* Wake all of @queue, which was taken off under the lock. */
static void wake(CacheWaiter *queue)
{
    while (queue) {
        CacheWaiter *waiter = queue;

        queue = waiter->next; /* it is gone once its coroutine runs */
        aio_co_wake(waiter->co);
    }
}

static CacheWaiter *take_waiters(CacheWaiter **queue)
{
    CacheWaiter *all = *queue;

    *queue = NULL;
    return all;
}

/* --- chains; lock held ---------------------------------------------------- */

/*
 * Slices that follow each other in the file have buckets that do, too: those of
 * one table share a line or two of the processor's cache.
 */
static size_t bucket_of(const Qcow2Cache *cache, int64_t offset)
{
    uint64_t key = (uint64_t)offset >> cache->slice_shift;
    uint64_t hash = (key >> 4) * UINT64_C(0x9e3779b97f4a7c15);

    return ((hash >> (64 - cache->bucket_bits)) + key) &
           (((size_t)1 << cache->bucket_bits) - 1);
}

static Qcow2Slice *find(Qcow2Cache *cache, int64_t offset)
{
    uint32_t i = atomic_load_explicit(&cache->buckets[bucket_of(cache, offset)],
                                      memory_order_relaxed);

    while (i) {
        Qcow2Slice *s = &cache->slices[i - 1];

        if (atomic_load_explicit(&s->offset, memory_order_relaxed) == offset) {
            return s;
        }
        i = atomic_load_explicit(&s->next, memory_order_relaxed);
    }
    return NULL;
}

static void begin_change(Qcow2Slice *s)
{
    uint32_t seq = atomic_load_explicit(&s->seq, memory_order_relaxed);

    g_assert(!(seq & 1)); /* C2 */
    atomic_store_explicit(&s->seq, seq + 1, memory_order_relaxed);
}

static void end_change(Qcow2Slice *s)
{
    uint32_t seq = atomic_load_explicit(&s->seq, memory_order_relaxed);

    atomic_store_explicit(&s->seq, seq + 1, memory_order_release);
}

static void chain_insert(Qcow2Cache *cache, Qcow2Slice *s, int64_t offset)
{
    _Atomic uint32_t *bucket = &cache->buckets[bucket_of(cache, offset)];

    atomic_store_explicit(&s->offset, offset, memory_order_release);
    atomic_store_explicit(&s->next, atomic_load(bucket), memory_order_release);
    atomic_store_explicit(bucket, s - cache->slices + 1, memory_order_release);
}

static void chain_remove(Qcow2Cache *cache, Qcow2Slice *s)
{
    uint32_t number = s - cache->slices + 1;
    _Atomic uint32_t *at = &cache->buckets[bucket_of(cache, s->offset)];

    while (atomic_load_explicit(at, memory_order_relaxed) != number) {
        at = &cache->slices[atomic_load(at) - 1].next;
    }
    atomic_store_explicit(at, atomic_load(&s->next), memory_order_release);
    atomic_store_explicit(&s->next, 0, memory_order_release);
}

/* --- life of the cache ---------------------------------------------------- */

static bool cache_alloc(Qcow2Cache *cache)
{
    size_t nr = cache->config.nr_slices;

    cache->memory_bytes = nr * cache->config.slice_bytes;
    /* Both are touched, like the memory, as far as slices are used. */
    cache->slices = g_try_new0(Qcow2Slice, nr);
    cache->buckets = g_try_new0(_Atomic uint32_t, (size_t)1
                                                      << cache->bucket_bits);
    if (!cache->slices || !cache->buckets) {
        return false;
    }
    /* Pages come when a slice is used for the first time. */
    cache->memory = mmap(NULL, cache->memory_bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (cache->memory == MAP_FAILED) {
        cache->memory = NULL;
        return false;
    }
    return true;
}

Qcow2Cache *qcow2_cache_new(const Qcow2CacheConfig *config)
{
    Qcow2Cache *cache = g_new0(Qcow2Cache, 1);

    g_assert(config->nr_slices >= QCOW2_CACHE_MIN_SLICES);
    g_assert(config->nr_slices <= QCOW2_CACHE_MAX_SLICES);
    cache->config = *config;
    cache->slice_shift = g_bit_storage(config->slice_bytes) - 1;
    g_assert(config->slice_bytes == (int64_t)1 << cache->slice_shift);
    cache->bucket_bits = g_bit_storage(config->nr_slices);
    lock_init(&cache->lock, LOCK_RANK_DRIVER);
    list_init(&cache->dirty);
    list_init(&cache->frozen);
    if (!cache_alloc(cache)) {
        qcow2_cache_free(cache);
        return NULL;
    }
    qcow2_cache_memory_init(cache);
    return cache;
}

void qcow2_cache_free(Qcow2Cache *cache)
{
    if (!cache) {
        return;
    }
    if (cache->memory) {
        qcow2_cache_reset(cache);
        qcow2_cache_memory_clear(cache);
        munmap(cache->memory, cache->memory_bytes);
    }
    g_free(cache->slices);
    g_free((void *)cache->buckets);
    g_free(cache);
}

int64_t qcow2_cache_slice_bytes(const Qcow2Cache *cache)
{
    return cache->config.slice_bytes;
}

/* --- looking -------------------------------------------------------------- */

/* Copy words of @s; false if they are not the slice at @offset any more. */
static bool peek_slice(Qcow2Slice *s, int64_t offset, size_t word, size_t nr,
                       uint64_t *buf)
{
    uint32_t seq = atomic_load_explicit(&s->seq, memory_order_acquire);

    if ((seq & 1) ||
        atomic_load_explicit(&s->offset, memory_order_acquire) != offset) {
        return false;
    }
    for (size_t i = 0; i < nr; i++) {
        buf[i] = atomic_load_explicit(&s->words[word + i],
                                      memory_order_acquire);
    }
    return atomic_load_explicit(&s->seq, memory_order_relaxed) == seq;
}

bool qcow2_cache_peek(Qcow2Cache *cache, int64_t offset, size_t pos,
                      size_t bytes, void *buf)
{
    uint32_t i = atomic_load_explicit(&cache->buckets[bucket_of(cache, offset)],
                                      memory_order_acquire);

    for (int step = 0; i && step < PEEK_STEPS_MAX; step++) {
        Qcow2Slice *s = &cache->slices[i - 1];

        if (peek_slice(s, offset, pos / 8, bytes / 8, buf)) {
            if (!atomic_load_explicit(&s->used, memory_order_relaxed)) {
                atomic_store_explicit(&s->used, true, memory_order_relaxed);
            }
            return true;
        }
        i = atomic_load_explicit(&s->next, memory_order_acquire);
    }
    return false;
}

bool qcow2_cache_prefetch(const Qcow2Cache *cache, int64_t offset, size_t pos)
{
    uint32_t i = atomic_load_explicit(&cache->buckets[bucket_of(cache, offset)],
                                      memory_order_relaxed);

    if (i == 0) {
        return false;
    }
    /* The first of the chain, mostly the only one.  Its own fields tell where
     * its bytes are, but would have to come first. */
    __builtin_prefetch(&cache->slices[i - 1]);
    __builtin_prefetch((char *)cache->memory +
                       ((size_t)(i - 1) << cache->slice_shift) + pos);
    return true;
}

/* --- states; lock held ---------------------------------------------------- */

void qcow2_cache_make_empty(Qcow2Cache *cache, Qcow2Slice *s)
{
    if (s->state == SLICE_EMPTY) {
        return;
    }
    g_assert(!s->dirty && !s->frozen && !s->writing);
    if (s->state == SLICE_READY) {
        begin_change(s);
        chain_remove(cache, s);
        atomic_store_explicit(&s->offset, 0, memory_order_release);
        end_change(s);
    }
    s->state = SLICE_EMPTY;
    qcow2_cache_leave(cache, s);
}

static void set_dirty(Qcow2Cache *cache, Qcow2Slice *s, bool dirty)
{
    bool counted = s->dirty || s->frozen;

    if (s->dirty == dirty) {
        return;
    }
    s->dirty = dirty;
    if (dirty) {
        list_append(&cache->dirty, &s->link);
    } else {
        list_remove(&s->link);
    }
    cache->nr_dirty += (s->dirty || s->frozen) - counted;
}

static void set_frozen(Qcow2Cache *cache, Qcow2Slice *s, bool frozen)
{
    bool counted = s->dirty || s->frozen;

    if (s->frozen == frozen) {
        return;
    }
    s->frozen = frozen;
    if (frozen) {
        list_append(&cache->frozen, &s->frozen_link);
    } else {
        list_remove(&s->frozen_link);
        if (s->copy) {
            qcow2_cache_count_copy(cache, -1);
        }
        g_clear_pointer(&s->copy, block_aligned_free);
    }
    cache->nr_dirty += (s->dirty || s->frozen) - counted;
}

/* --- writing -------------------------------------------------------------- */

/*
 * Write what is to be written of @s, which is pinned; lock held on entry and
 * return, not in between.  What changes meanwhile makes it dirty again.
 */
static int coroutine_fn write_slice(Qcow2Cache *cache, Qcow2Slice *s,
                                    void *buf)
{
    bool frozen = s->frozen;
    int ret;

    g_assert(s->pins > 0 && !s->writing && s->state == SLICE_READY);
    memcpy(buf, s->copy ? s->copy : (void *)s->words,
           cache->config.slice_bytes);
    if (frozen) {
        set_frozen(cache, s, false);
    } else {
        set_dirty(cache, s, false);
    }
    s->writing = true;
    cache->nr_writing++;
    lock_release(&cache->lock);
    ret = cache->config.write(cache->config.opaque,
                              atomic_load_explicit(&s->offset,
                                                   memory_order_relaxed),
                              buf, cache->config.slice_bytes);
    lock_acquire(&cache->lock);
    s->writing = false;
    cache->nr_writing--;
    if (ret < 0) {
        set_dirty(cache, s, true);
    }
    return ret;
}

/* Unpin @s; returns who is to be woken.  Lock held. */
static CacheWaiter *unpin(Qcow2Cache *cache, Qcow2Slice *s)
{
    g_assert(s->pins > 0);
    if (--s->pins > 0) {
        return NULL;
    }
    if (s->state == SLICE_FAILED) {
        s->state = SLICE_EMPTY;
        qcow2_cache_leave(cache, s);
    }
    return take_waiters(&cache->waiters);
}

/* Write dirty victim @s of a cache that is not ordered.  Lock held on entry,
 * not on return. */
static int coroutine_fn write_victim(Qcow2Cache *cache, Qcow2Slice *s)
{
    void *buf = block_aligned_try_alloc(4096, cache->config.slice_bytes);
    CacheWaiter *woken;
    int ret = -ENOMEM;

    s->pins++;
    if (buf) {
        ret = write_slice(cache, s, buf);
    }
    woken = unpin(cache, s);
    lock_release(&cache->lock);
    wake(woken);
    block_aligned_free(buf);
    return ret;
}

/* --- getting -------------------------------------------------------------- */

/* Give the slice the bytes at @buf (NULL: zeroes).  Lock held, @seq odd. */
static void fill(Qcow2Cache *cache, Qcow2Slice *s, const uint64_t *buf)
{
    size_t nr = cache->config.slice_bytes / 8;

    for (size_t i = 0; i < nr; i++) {
        atomic_store_explicit(&s->words[i], buf ? buf[i] : 0,
                              memory_order_release);
    }
}

/* A slice that was LOADING has its bytes, or not.  Lock held; who waited is
 * returned, to be woken. */
static CacheWaiter *end_loading(Qcow2Cache *cache, Qcow2Slice *s,
                                const void *buf, int error)
{
    if (error == 0) {
        fill(cache, s, buf);
        s->state = SLICE_READY;
    } else {
        chain_remove(cache, s);
        atomic_store_explicit(&s->offset, 0, memory_order_release);
        s->state = SLICE_FAILED;
        s->error = error;
    }
    end_change(s);
    return take_waiters(&s->waiters);
}

/* Read @s, which is LOADING and pinned by us. */
static int coroutine_fn load(Qcow2Cache *cache, Qcow2Slice *s, int64_t offset)
{
    void *buf = block_aligned_try_alloc(4096, cache->config.slice_bytes);
    CacheWaiter *woken = NULL;
    int ret = buf ? 0 : -ENOMEM;

    if (buf) {
        /* Not into the slice: who looks at it without a lock may be late. */
        ret = cache->config.read(cache->config.opaque, offset, buf,
                                 cache->config.slice_bytes);
    }
    lock_acquire(&cache->lock);
    woken = end_loading(cache, s, buf, ret);
    lock_release(&cache->lock);
    wake(woken);
    block_aligned_free(buf);
    return ret;
}

/* Wait until @s, which is LOADING, is READY.  Lock held on entry only. */
static int coroutine_fn await_load(Qcow2Cache *cache, Qcow2Slice *s)
{
    int ret;

    while (s->state == SLICE_LOADING) {
        wait_unlocked(cache, &s->waiters);
        lock_acquire(&cache->lock);
    }
    ret = s->state == SLICE_FAILED ? s->error : 0;
    lock_release(&cache->lock);
    return ret;
}

/*
 * No slice is free: make one.  Lock held on entry, not on return.  0: try
 * again, with the same @room_error: why dirty slices cannot be written.  Then
 * those that others only read will do, so that reads go on.
 */
static int coroutine_fn make_free(Qcow2Cache *cache, int *room_error)
{
    if (cache->config.ordered && *room_error == 0 &&
        cache->nr_dirty * 2 >= cache->nr_held) {
        int ret;

        lock_release(&cache->lock);
        ret = cache->config.make_room(cache->config.opaque);
        if (ret == 0) {
            return 0;
        }
        *room_error = ret == -EAGAIN ? 0 : ret;
        lock_acquire(&cache->lock);
    }
    if (*room_error < 0 && cache->nr_dirty >= cache->nr_held) {
        lock_release(&cache->lock);
        return *room_error;
    }
    if (qcow2_cache_has_victim(cache)) {
        lock_release(&cache->lock);
        return 0; /* one has become free */
    }
    wait_unlocked(cache, &cache->waiters);
    return 0;
}

/*
 * Pin the slice at @offset; a new one is LOADING, and @ret_new says so.  What
 * others load is waited for.
 */
static int coroutine_fn pin(Qcow2Cache *cache, int64_t offset,
                            Qcow2Slice **ret, bool *ret_new)
{
    int room_error = 0;

    for (;;) {
        Qcow2Slice *s;
        int code;

        lock_acquire(&cache->lock);
        s = find(cache, offset);
        if (s) {
            s->pins++;
            atomic_store_explicit(&s->used, true, memory_order_relaxed);
            *ret = s;
            *ret_new = false;
            return await_load(cache, s);
        }
        s = qcow2_cache_victim(cache);
        if (s && !s->dirty) {
            qcow2_cache_make_empty(cache, s);
            qcow2_cache_enter(cache, s);
            s->state = SLICE_LOADING;
            s->pins = 1;
            begin_change(s); /* until end_loading(): nobody believes it */
            chain_insert(cache, s, offset);
            lock_release(&cache->lock);
            *ret = s;
            *ret_new = true;
            return 0;
        }
        code = s ? write_victim(cache, s)
                 : make_free(cache, &room_error);
        if (code < 0) {
            *ret = NULL;
            return code;
        }
    }
}

int coroutine_fn qcow2_cache_get(Qcow2Cache *cache, int64_t offset,
                                 Qcow2Slice **ret)
{
    bool is_new;
    int code;

    g_assert(offset > 0 && (offset & (cache->config.slice_bytes - 1)) == 0);
    code = pin(cache, offset, ret, &is_new);
    if (code == 0 && is_new) {
        code = load(cache, *ret, offset);
    }
    if (code < 0) {
        qcow2_cache_put(cache, *ret);
        *ret = NULL;
    }
    return code;
}

void qcow2_cache_put(Qcow2Cache *cache, Qcow2Slice *slice)
{
    CacheWaiter *woken;

    if (!slice) {
        return;
    }
    lock_acquire(&cache->lock);
    woken = unpin(cache, slice);
    lock_release(&cache->lock);
    wake(woken);
}

void qcow2_cache_read(Qcow2Cache *cache, const Qcow2Slice *slice, size_t pos,
                      size_t bytes, void *buf)
{
    LOCK_GUARD(&cache->lock);

    g_assert(slice->pins > 0 && slice->state == SLICE_READY);
    memcpy(buf, (const char *)slice->words + pos, bytes); /* C1 */
}

const void *qcow2_slice_data(const Qcow2Slice *slice)
{
    return (const void *)slice->words;
}

/* Keep the bytes that write-back has to write.  Lock held. */
static void save_frozen(Qcow2Cache *cache, Qcow2Slice *s)
{
    if (s->frozen && !s->copy && !SIM_PLANTED(21)) {
        qcow2_cache_count_copy(cache, 1);
        s->copy = block_aligned_alloc(4096, cache->config.slice_bytes);
        memcpy(s->copy, (void *)s->words, cache->config.slice_bytes);
    }
}

void qcow2_cache_change(Qcow2Cache *cache, Qcow2Slice *slice, size_t pos,
                        const void *buf, size_t bytes)
{
    const uint64_t *words = buf;

    g_assert(pos % 8 == 0 && bytes % 8 == 0);
    g_assert(pos + bytes <= (size_t)cache->config.slice_bytes);
    WITH_LOCK(&cache->lock) {
        g_assert(slice->pins > 0 && slice->state == SLICE_READY);
        save_frozen(cache, slice);
        begin_change(slice);
        for (size_t i = 0; i < bytes / 8; i++) {
            atomic_store_explicit(&slice->words[pos / 8 + i], words[i],
                                  memory_order_release);
        }
        end_change(slice);
        set_dirty(cache, slice, true);
    }
}

void qcow2_cache_forget(Qcow2Cache *cache, int64_t offset, int64_t bytes)
{
    LOCK_GUARD(&cache->lock);

    for (int64_t at = offset; at < offset + bytes;
         at += cache->config.slice_bytes) {
        Qcow2Slice *s = find(cache, at);

        if (!s || s->state != SLICE_READY) {
            continue;
        }
        set_dirty(cache, s, false);
        if (s->pins == 0 && !s->frozen && !s->writing) {
            qcow2_cache_make_empty(cache, s);
        }
    }
}

bool qcow2_cache_has_room(Qcow2Cache *cache, size_t count)
{
    LOCK_GUARD(&cache->lock);

    /* One is left for those who only read.  What is held for this is not given
     * back while slices become dirty: each of them is one of @count less. */
    cache->reserved = MAX(cache->reserved, count + 1);
    return qcow2_cache_hold(cache, qcow2_cache_changed(cache) + count + 1);
}

size_t qcow2_cache_nr_dirty(Qcow2Cache *cache)
{
    LOCK_GUARD(&cache->lock);

    return cache->nr_dirty;
}

/* --- write-back ----------------------------------------------------------- */

void qcow2_cache_freeze(Qcow2Cache *cache)
{
    LOCK_GUARD(&cache->lock);

    g_assert(list_empty(&cache->frozen));
    while (!list_empty(&cache->dirty)) {
        Qcow2Slice *s = LIST_ENTRY(cache->dirty.next, Qcow2Slice, link);

        set_frozen(cache, s, true);
        set_dirty(cache, s, false);
    }
}

/* What is still frozen is merely dirty.  Lock held. */
static void thaw(Qcow2Cache *cache)
{
    while (!list_empty(&cache->frozen)) {
        Qcow2Slice *s = LIST_ENTRY(cache->frozen.next, Qcow2Slice,
                                   frozen_link);

        set_dirty(cache, s, true);
        set_frozen(cache, s, false);
    }
}

void qcow2_cache_thaw(Qcow2Cache *cache)
{
    LOCK_GUARD(&cache->lock);

    thaw(cache);
}

int coroutine_fn qcow2_cache_write_frozen(Qcow2Cache *cache)
{
    void *buf = block_aligned_try_alloc(4096, cache->config.slice_bytes);
    CacheWaiter *woken;
    int ret = buf ? 0 : -ENOMEM;

    lock_acquire(&cache->lock);
    while (ret == 0 && !list_empty(&cache->frozen)) {
        Qcow2Slice *s = LIST_ENTRY(cache->frozen.next, Qcow2Slice,
                                   frozen_link);

        s->pins++;
        ret = write_slice(cache, s, buf);
        woken = unpin(cache, s);
        lock_release(&cache->lock);
        wake(woken);
        lock_acquire(&cache->lock);
    }
    thaw(cache);
    /* Victims on their way to the disk were dirty before we froze, perhaps. */
    while (cache->nr_writing > 0) {
        wait_unlocked(cache, &cache->waiters);
        lock_acquire(&cache->lock);
    }
    woken = take_waiters(&cache->waiters);
    lock_release(&cache->lock);
    wake(woken);
    block_aligned_free(buf);
    return ret;
}

void qcow2_cache_reset(Qcow2Cache *cache)
{
    LOCK_GUARD(&cache->lock);

    for (size_t i = 0; i < cache->nr_touched; i++) {
        Qcow2Slice *s = &cache->slices[i];

        g_assert(s->pins == 0 && !s->writing);
        set_dirty(cache, s, false);
        set_frozen(cache, s, false);
        qcow2_cache_make_empty(cache, s);
    }
}
