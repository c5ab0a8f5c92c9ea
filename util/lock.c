/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Short locks: the slow paths, and the check of the lock order.
 */
#include "util/lock.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

/* How often to look again before sleeping: about a microsecond. */
#define LOCK_SPINS 60

static void cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
void lock_assert_none_held(void)
{
    g_assert(nr_held == 0);
}

#endif
}

void lock_acquire_slow(Lock *lock)
{
    int saved_errno = errno;

    for (int i = 0; i < LOCK_SPINS; i++) {
        uint32_t expected = 0;

        if (atomic_load_explicit(&lock->word, memory_order_relaxed) == 0 &&
            atomic_compare_exchange_weak_explicit(&lock->word, &expected, 1,
                                                  memory_order_acquire,
                                                  memory_order_relaxed)) {
            return;
        }
        cpu_relax();
    }
    /*
     * From here on the word is 2 while we hold it: we cannot know whether
     * others sleep, so the release must look.
     */
    while (atomic_exchange_explicit(&lock->word, 2, memory_order_acquire)) {
        syscall(SYS_futex, &lock->word, FUTEX_WAIT_PRIVATE, 2, NULL, NULL, 0);
    }
    errno = saved_errno;
}

void lock_release_slow(Lock *lock)
{
    int saved_errno = errno;

    syscall(SYS_futex, &lock->word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    errno = saved_errno;
}

#ifdef BLOCK_DEBUG

#define LOCKS_HELD_MAX 16

static __thread uint32_t held_ranks[LOCKS_HELD_MAX];
static __thread int nr_held;

void lock_rank_push(uint32_t rank)
{
    g_assert(nr_held < LOCKS_HELD_MAX);
    g_assert(nr_held == 0 || held_ranks[nr_held - 1] < rank ||
             /* the shards of one node are taken in order of their index */
             (rank == LOCK_RANK_NODE_SHARD &&
              held_ranks[nr_held - 1] == rank));
    held_ranks[nr_held++] = rank;
}

void lock_rank_pop(uint32_t rank)
{
    int i = nr_held - 1;

    /* Locks need not be released in the reverse order. */
    while (i >= 0 && held_ranks[i] != rank) {
        i--;
    }
    g_assert(i >= 0);
    for (nr_held--; i < nr_held; i++) {
        held_ranks[i] = held_ranks[i + 1];
    }
}

void lock_assert_none_held(void)
{
    g_assert(nr_held == 0);
}

#endif
