/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * CoQueue, for those inside the library who guard one with a short lock.
 */
#ifndef UTIL_CO_QUEUE_H
#define UTIL_CO_QUEUE_H

#include "util/lock.h"

#include <blockgraph/coroutine.h>

/**
 * Wait in @queue, which @lock guards, until woken.  @lock is held on entry and
 * again on return, and free meanwhile.  What the caller knew before may have
 * changed.  Calling it inside LOCK_GUARD() or WITH_LOCK() is right.
 */
void coroutine_fn co_queue_wait_locked(CoQueue *queue, Lock *lock)
    LOCK_REQUIRES(lock);

#endif /* UTIL_CO_QUEUE_H */
