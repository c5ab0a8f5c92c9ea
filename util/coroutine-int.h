/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inside of a coroutine, shared by the coroutine core, the locks that wait
 * in coroutines, and the event loop that wakes them.
 */
#ifndef UTIL_COROUTINE_INT_H
#define UTIL_COROUTINE_INT_H

#include "util/coroutine-sanitizer.h"

#include <blockgraph/coroutine.h>
#include <stdatomic.h>

/*
 * It lies at the top of the mapping whose lower part is its stack, so that the
 * struct and the first frames share a page.
 */
struct Coroutine {
    /* Set by coroutine_stack_get(), never changed while the memory lives. */
    void *map;                 /* start of the mapping: the guard page */
    char *stack_low;           /* lowest usable byte of the stack */
    size_t stack_bytes;

    /*
     * Touched only by the thread that runs, enters or recycles the coroutine.
     * @sp stays valid from one life of the memory to the next, because the
     * body of a coroutine is a loop (coroutine_main()).
     */
    void *sp;                  /* for co_switch(); NULL: never ran */
    CoSanitizer sanitizer;

    /* Set by coroutine_create(), never changed while the coroutine lives. */
    CoroutineEntry *entry;
    void *opaque;
    uint64_t life;             /* which coroutine of this memory it is */

    /* Touched only by the thread that runs the coroutine. */
    bool for_caller;           /* aio_co_run() waits for us */
    Coroutine *caller;         /* who entered us; NULL while not running */
    Coroutine *wakeups_head;   /* woken by us, entered when we yield */
    Coroutine *wakeups_tail;

    /*
     * Where the coroutine ran last.  Written by coroutine_enter() in the
     * thread that enters, and by aio_co_reschedule_self() before it yields;
     * read by wakers in any thread.
     */
    _Atomic(AioContext *) ctx;

    /*
     * Owned by whoever has the one pending wake-up: the list @wakeups_head of
     * the waker, or the queue of scheduled coroutines of an AioContext.
     */
    Coroutine *wake_next;

    /* Guarded by the lock of the CoMutex, CoQueue or CoRwlock waited for. */
    Coroutine *wait_next;
    int wait_ticket;           /* for the waiter's own use (rwlock: mode) */

#ifdef BLOCK_SIM
    /* Touched only by the simulation, and by the coroutine when it waits. */
    struct SimActor *actor;    /* who it is there */
    const char *wait_what;     /* what it waits for, NULL: it does not */
    const void *wait_object;
#endif
};

/** Who does something that is undone later, perhaps by another coroutine. */
typedef struct CoOwner {
    const Coroutine *co; /* compared, never followed; NULL: no coroutine */
    uint64_t life;       /* tells coroutines apart that had the same memory */
} CoOwner;

/**
 * The running coroutine; outside coroutines, and inside one that aio_co_run()
 * runs for such a caller, the caller: co is NULL.
 */
CoOwner coroutine_owner(void);

/**
 * Enter @co when the running coroutine yields or ends, after those that were
 * queued before.  Inside a coroutine only.
 */
void coroutine_enter_after_yield(Coroutine *co);

#endif /* UTIL_COROUTINE_INT_H */
