/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory for coroutines: a guarded stack with the Coroutine at its top.
 */
#ifndef UTIL_COROUTINE_STACK_H
#define UTIL_COROUTINE_STACK_H

#include "util/coroutine-int.h"

/**
 * A coroutine that is idle: from the pool of this thread, from the overflow
 * that all threads share, or new (then its @sp is NULL).  All fields below
 * @sanitizer are zero when it is new, and as the last user left them else.
 *
 * Thread: any.  Never fails: aborts the process when there is no memory.
 */
Coroutine *coroutine_stack_get(void);

/**
 * Give @co back.  The caller runs on another stack already.  Thread: any, not
 * only the one that got it.
 */
void coroutine_stack_put(Coroutine *co);

/** How many stacks lie unused in the pool of this thread; for tests. */
unsigned coroutine_stack_nr_pooled(void);

/** How many stacks lie unused in the shared overflow; for tests. */
unsigned coroutine_stack_nr_shared(void);

#endif /* UTIL_COROUTINE_STACK_H */
