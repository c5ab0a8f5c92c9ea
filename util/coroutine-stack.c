/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory for coroutines.
 *
 *      low                                                      high
 *      | guard page | stack, grows down <------- | Coroutine | colour |
 *
 * A stack that is given back goes to the pool of the thread that gives it.
 * Requests are often made in one thread and ended in another, so one pool
 * would grow and the other starve: a pool that holds two batches moves one to
 * a list shared by all threads, and an empty pool takes one from there.  All
 * is bounded; what does not fit is unmapped.
 *
 * S1  A pool holds at most 2 * BATCH - 1 stacks between calls.
 * S2  The shared list holds at most SHARED_BATCHES_MAX batches, each of
 *     exactly BATCH stacks.
 * S3  The lock is taken once per BATCH calls at most, and never over a
 *     system call.
 *
 * Thread-local variables are only touched in functions that do not yield and
 * are not inlined, so no address of one survives a change of thread.
 */
#include "util/coroutine-stack.h"

#include "util/lock.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

/*
 * A request recurses through as many as 64 nodes (a chain of backing files),
 * and so does the opening of such a chain.  Only pages that are touched cost
 * memory.  Sanitizers put red zones around every variable, and counting the
 * lines that run keeps more of them alive: frames get larger.
 */
#if CO_ASAN || CO_TSAN
#define STACK_BYTES (1024 << 10)
#elif defined(BLOCK_COVERAGE)
#define STACK_BYTES (512 << 10)
#else
#define STACK_BYTES (256 << 10)
#endif

#define BATCH 64
#define SHARED_BATCHES_MAX 16

/*
 * All stacks start at the same offset in a page, so the hot ends of many
 * would fall into the same few sets of the first-level cache.  They are
 * spread over COLOURS offsets that differ by COLOUR_BYTES.
 */
#define COLOURS 8
#define COLOUR_BYTES 448

/* Not in the headers of older systems; Linux 6.13. */
#define ADVICE_GUARD_INSTALL 102
#define ADVICE_POPULATE_READ 22

/*
 * Debug builds fill a new stack with the pattern.  A variable that is never
 * written may leave a hole in what was used.
 */
#define HOLE_BYTES 8192
#define STACK_PATTERN UINT64_C(0x5afe57ac5afe57ac)

_Static_assert(COLOURS * COLOUR_BYTES + sizeof(Coroutine) < 8192,
               "colours and Coroutine leave nearly all to the stack");
_Static_assert(COLOUR_BYTES % 64 == 0, "a Coroutine starts a cache line");

/* Touched only by its thread. */
typedef struct StackPool {
    Coroutine *head;           /* linked by wake_next */
    unsigned nr;
    bool has_destructor;
} StackPool;

static __thread StackPool pool __attribute__((tls_model("initial-exec")));

/* Batches linked by the wait_next of their first coroutine. */
static struct {
    /* Guarded by @lock, but read without it as a hint. */
    Lock lock;
    _Atomic unsigned nr_batches;
    Coroutine *head;
} shared = { .lock = LOCK_INITIALIZER(LOCK_RANK_LEAF) };

/* Set once to the deepest use seen so far; any thread. */
static _Atomic size_t high_water;

static void pool_drain(gpointer unused);

static GPrivate pool_destructor = G_PRIVATE_INIT(pool_drain);

/* --- one stack ----------------------------------------------------------- */

static size_t page_bytes(void)
{
    static _Atomic size_t cached;
    size_t bytes = atomic_load_explicit(&cached, memory_order_relaxed);

    if (!bytes) {
        bytes = (size_t)sysconf(_SC_PAGESIZE);
        atomic_store_explicit(&cached, bytes, memory_order_relaxed);
    }
    return bytes;
}

/*
 * Make the page at @map unusable.  A guard region of Linux 6.13 does not split
 * the mapping, so neighbouring stacks stay one mapping and their number is
 * not limited by vm.max_map_count.  Some emulators take any advice without
 * following it; asking for the page to be populated shows whether it is
 * guarded.
 */
static void guard_install(void *map, size_t bytes)
{
    if (madvise(map, bytes, ADVICE_GUARD_INSTALL) == 0 &&
        madvise(map, bytes, ADVICE_POPULATE_READ) < 0 && errno == EFAULT) {
        return;
    }
    if (mprotect(map, bytes, PROT_NONE) < 0) {
        g_error("Could not protect the guard page of a coroutine stack: %s",
                g_strerror(errno));
    }
}

static CO_NO_SANITIZER void stack_fill(Coroutine *co)
{
#ifdef BLOCK_DEBUG
    uint64_t *word = (uint64_t *)co->stack_low;

    for (size_t i = 0; i < co->stack_bytes / sizeof(*word); i++) {
        word[i] = STACK_PATTERN;
    }
#endif
    (void)co;
}

/*
 * Look for words below the known maximum that have lost the pattern, until
 * there are none for HOLE_BYTES.  What was ever written stays so, hence the
 * stack need not be filled again for a maximum over all its users.
 */
static CO_NO_SANITIZER void stack_measure(Coroutine *co)
{
#ifdef BLOCK_DEBUG
    const uint64_t *word = (const uint64_t *)co->stack_low;
    size_t nr = co->stack_bytes / sizeof(*word);
    size_t seen = atomic_load_explicit(&high_water, memory_order_relaxed);
    size_t deepest = seen / sizeof(*word);

    for (size_t depth = deepest + 1;
         depth <= nr && depth <= deepest + HOLE_BYTES / sizeof(*word);
         depth++) {
        if (word[nr - depth] != STACK_PATTERN) {
            deepest = depth;
        }
    }
    while (deepest * sizeof(*word) > seen &&
           !atomic_compare_exchange_weak_explicit(
               &high_water, &seen, deepest * sizeof(*word),
               memory_order_relaxed, memory_order_relaxed)) {
    }
#endif
    (void)co;
}

size_t coroutine_stack_high_water(void)
{
    return atomic_load_explicit(&high_water, memory_order_relaxed);
}

/*
 * MAP_STACK also keeps huge pages away (Linux 6.7; before that each stack is
 * a mapping of its own, too small for one).
 */
static Coroutine *stack_map(void)
{
    int saved_errno = errno;
    size_t guard = page_bytes();
    size_t bytes = guard + STACK_BYTES;
    char *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK,
                     -1, 0);
    size_t colour;
    Coroutine *co;

    if (map == MAP_FAILED) {
        g_error("Could not map %zu bytes for a coroutine stack: %s", bytes,
                g_strerror(errno));
    }
    guard_install(map, guard);
    colour = (uintptr_t)map / guard % COLOURS * COLOUR_BYTES;
    co = (Coroutine *)((uintptr_t)(map + bytes - colour - sizeof(*co)) &
                       ~(uintptr_t)63);
    co->map = map;
    co->stack_low = map + guard;
    co->stack_bytes = (size_t)((char *)co - co->stack_low);
    co_sanitizer_new(&co->sanitizer, co->stack_low, co->stack_bytes);
    stack_fill(co);
    errno = saved_errno;
    return co;
}

static void stack_unmap(Coroutine *co)
{
    int saved_errno = errno;

    co_sanitizer_free(&co->sanitizer);
    munmap(co->map, page_bytes() + STACK_BYTES);
    errno = saved_errno;
}

static void stack_unmap_list(Coroutine *co)
{
    while (co) {
        Coroutine *next = co->wake_next;

        stack_unmap(co);
        co = next;
    }
}

/* --- pools --------------------------------------------------------------- */

static Coroutine *shared_take_batch(void)
{
    LOCK_GUARD(&shared.lock);
    Coroutine *batch = shared.head;

    if (batch) {
        shared.head = batch->wait_next;
        batch->wait_next = NULL;
        atomic_fetch_sub_explicit(&shared.nr_batches, 1,
                                  memory_order_relaxed);
    }
    return batch;
}

static bool shared_put_batch(Coroutine *batch)
{
    LOCK_GUARD(&shared.lock);

    if (atomic_load_explicit(&shared.nr_batches, memory_order_relaxed) ==
        SHARED_BATCHES_MAX) {
        return false;                                           /* S2 */
    }
    batch->wait_next = shared.head;
    shared.head = batch;
    atomic_fetch_add_explicit(&shared.nr_batches, 1, memory_order_relaxed);
    return true;
}

/* A pool that may hold stacks must be emptied when its thread ends. */
static void pool_want_destructor(void)
{
    if (G_UNLIKELY(!pool.has_destructor)) {
        pool.has_destructor = true;
        g_private_set(&pool_destructor, &pool);
    }
}

/* The pool is empty.  Take a batch if there is one, else map one stack. */
static __attribute__((noinline)) Coroutine *pool_refill(void)
{
    Coroutine *batch = NULL;

    if (atomic_load_explicit(&shared.nr_batches, memory_order_relaxed) > 0) {
        batch = shared_take_batch();
    }
    if (!batch) {
        return stack_map();
    }
    pool_want_destructor();
    pool.head = batch->wake_next;
    pool.nr = BATCH - 1;
    return batch;
}

/* The pool holds two batches: move the one used longest ago. */
static __attribute__((noinline)) void pool_spill(void)
{
    Coroutine *last_kept = pool.head;
    Coroutine *batch;

    for (int i = 1; i < BATCH; i++) {
        last_kept = last_kept->wake_next;
    }
    batch = last_kept->wake_next;
    last_kept->wake_next = NULL;
    pool.nr = BATCH;
    if (!shared_put_batch(batch)) {
        stack_unmap_list(batch);
    }
}

/* At thread exit; again if a later destructor still used coroutines. */
static void pool_drain(gpointer unused)
{
    stack_unmap_list(pool.head);
    pool = (StackPool) { 0 };
}

__attribute__((noinline)) Coroutine *coroutine_stack_get(void)
{
    Coroutine *co = pool.head;

    if (G_UNLIKELY(!co)) {
        co = pool_refill();
    } else {
        pool.head = co->wake_next;
        pool.nr--;
    }
    co->wake_next = NULL;
    return co;
}

__attribute__((noinline)) void coroutine_stack_put(Coroutine *co)
{
    stack_measure(co);
    pool_want_destructor();
    co->wake_next = pool.head;
    pool.head = co;
    if (G_UNLIKELY(++pool.nr == 2 * BATCH)) {
        pool_spill();                                           /* S1 */
    }
}

__attribute__((noinline)) unsigned coroutine_stack_nr_pooled(void)
{
    return pool.nr;
}

unsigned coroutine_stack_nr_shared(void)
{
    return BATCH * atomic_load_explicit(&shared.nr_batches,
                                        memory_order_relaxed);
}
