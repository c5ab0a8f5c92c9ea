/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Short locks: never held over a yield, never held while waking user code.
 *
 * All locking between threads goes through this file, so that sanitizers, the
 * lock order check and a simulated scheduler see every lock.  A lock is one
 * word: 0 free, 1 held, 2 held and somebody may sleep on it (a futex).
 */
#ifndef UTIL_LOCK_H
#define UTIL_LOCK_H

#include <glib.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/**
 * The one lock order: take a lock only when its rank is above the rank of
 * every lock the thread holds.  Debug builds assert it.
 */
typedef enum LockRank {
    LOCK_RANK_DRIVER = 1,   /* short locks inside a driver's state */
    LOCK_RANK_COPY,         /* a block-copy state, below its driver */
    LOCK_RANK_ROOT_GATE,    /* BlockRoot: requests that wait at the gate */
    LOCK_RANK_NODE_BITMAPS, /* a node's dirty bitmaps */
    LOCK_RANK_NODE_TRACKED, /* a node's tree of serialising requests */
    LOCK_RANK_NODE_SHARD,   /* a node's list of plain requests, per thread */
    LOCK_RANK_ACCOUNTING,   /* statistics */
    LOCK_RANK_UTIL,         /* short locks of util/ above the loop */
    LOCK_RANK_CO_LOCK,      /* the queues inside CoMutex, CoRwlock, CoSleep */
    LOCK_RANK_AIO_WORK,     /* work pools */
    LOCK_RANK_AIO_CONTEXT,  /* queues into an AioContext */
    LOCK_RANK_LEAF,         /* nothing is ever taken below */
} LockRank;

/*
 * For clang's -Wthread-safety: a function marked LOCK_REQUIRES() is called only
 * where the lock has been taken.  The analysis does not follow the cleanup
 * attribute, so it would take every guard for a lock that is never released;
 * therefore taking a lock merely asserts that it is held from there on.  A lock
 * that is left held is found by lock_assert_none_held().
 */
#ifdef __clang__
#define LOCK_ANNOTATE(attribute) __attribute__((attribute))
#else
#define LOCK_ANNOTATE(attribute)
#endif
#define LOCK_REQUIRES(...) LOCK_ANNOTATE(requires_capability(__VA_ARGS__))
#define LOCK_ASSERTS(...) LOCK_ANNOTATE(assert_capability(__VA_ARGS__))
#define LOCK_UNCHECKED LOCK_ANNOTATE(no_thread_safety_analysis)

typedef struct LOCK_ANNOTATE(capability("lock")) Lock {
    _Atomic uint32_t word;
#ifdef BLOCK_DEBUG
    uint32_t rank;
#endif
} Lock;

/*
 * Debug builds: the bookkeeping of the lock order, and the check that this
 * thread holds no lock, made wherever it leaves a stack for another.
 */
#ifdef BLOCK_DEBUG
#define LOCK_INITIALIZER(rank_) { .word = 0, .rank = (rank_) }
void lock_rank_push(uint32_t rank);
void lock_rank_pop(uint32_t rank);
void lock_assert_none_held(void);
#else
#define LOCK_INITIALIZER(rank_) { .word = 0 }
static inline void lock_rank_push(uint32_t rank) { (void)rank; }
static inline void lock_rank_pop(uint32_t rank) { (void)rank; }
static inline void lock_assert_none_held(void) { }
#endif

/* The contended halves of the two functions below; errno is kept. */
void lock_acquire_slow(Lock *lock);
void lock_release_slow(Lock *lock);

/** Make @lock free, with its place in the lock order. */
static inline void lock_init(Lock *lock, LockRank rank)
{
    atomic_init(&lock->word, 0);
#ifdef BLOCK_DEBUG
    lock->rank = rank;
#else
    (void)rank;
#endif
}

#ifdef BLOCK_DEBUG
#define LOCK_RANK_OF(lock_) ((lock_)->rank)
#else
#define LOCK_RANK_OF(lock_) 0
#endif

/** Take @lock; sleeps while another thread holds it.  Not recursive. */
static inline void lock_acquire(Lock *lock) LOCK_ASSERTS(lock);

static inline LOCK_UNCHECKED void lock_acquire(Lock *lock)
{
    uint32_t expected = 0;

    lock_rank_push(LOCK_RANK_OF(lock));
    if (!atomic_compare_exchange_strong_explicit(&lock->word, &expected, 1,
                                                 memory_order_acquire,
                                                 memory_order_relaxed)) {
        lock_acquire_slow(lock);
    }
}

/**
 * Release @lock.  The word is not read after the exchange, so whoever takes
 * the lock next may free it; a late futex call then finds nobody to wake.
 */
static inline void lock_release(Lock *lock)
{
    lock_rank_pop(LOCK_RANK_OF(lock));
    if (atomic_exchange_explicit(&lock->word, 0, memory_order_release) != 1) {
        lock_release_slow(lock);
    }
}

/** Whether anybody holds @lock; for assertions. */
static inline bool lock_is_held(Lock *lock)
{
    return atomic_load_explicit(&lock->word, memory_order_relaxed) != 0;
}

/* The two ends of a guard. */
static inline Lock *lock_guard_take(Lock *lock) LOCK_ASSERTS(lock);

static inline LOCK_UNCHECKED Lock *lock_guard_take(Lock *lock)
{
    lock_acquire(lock);
    return lock;
}

static inline void lock_guard_drop(Lock **lock)
{
    if (*lock) {
        lock_release(*lock);
    }
}

#define LOCK_GLUE_(a, b) a##b
#define LOCK_GLUE(a, b) LOCK_GLUE_(a, b)

/** Hold @lock_ until the end of the enclosing block. */
#define LOCK_GUARD(lock_)                                                     \
    __attribute__((cleanup(lock_guard_drop), unused)) Lock *LOCK_GLUE(        \
        guard_, __LINE__) = lock_guard_take(lock_)

/**
 * Hold @lock_ in the block that follows; return and break release it.  The
 * attribute stands behind the first variable, as it is for that one alone.
 */
#define WITH_LOCK(lock_)                                                      \
    for (Lock *LOCK_GLUE(with_, __LINE__)                                     \
             __attribute__((cleanup(lock_guard_drop))) =                      \
                 lock_guard_take(lock_),                                      \
             *LOCK_GLUE(once_, __LINE__) = LOCK_GLUE(with_, __LINE__);        \
         LOCK_GLUE(once_, __LINE__); LOCK_GLUE(once_, __LINE__) = NULL)

#endif /* UTIL_LOCK_H */
