/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The switch of stacks: all that a processor has to provide for coroutines.
 *
 * Implemented by one of coroutine-x86_64.S, coroutine-aarch64.S and, for all
 * other machines, coroutine-ucontext.c.
 *
 * A handle stands for a suspended stack.  It is good for one switch to it, and
 * what it points to lies on that stack itself.
 */
#ifndef UTIL_COROUTINE_SWITCH_H
#define UTIL_COROUTINE_SWITCH_H

#include <stddef.h>

/** The first function on a new stack.  It must not return. */
typedef void CoSwitchEntry(void *arg);

/**
 * Make a handle for a new stack; the first switch to it calls @entry(@arg).
 *
 * @low    lowest byte of the stack, which grows down from @low + @bytes
 *
 * Thread: any.  The memory stays the caller's.
 */
void *co_switch_prepare(void *low, size_t bytes, CoSwitchEntry *entry,
                        void *arg);

/**
 * Suspend the running stack, store its handle in *@save, and go on with @to.
 * Returns when somebody switches to the stored handle, perhaps in another
 * thread: the caller must not keep the address of a thread-local variable in
 * a register or on its stack over the call.
 *
 * Callee-saved registers are kept.  The floating-point control words and the
 * signal mask are not switched: they belong to the thread.
 */
void co_switch(void **save, void *to);

#endif /* UTIL_COROUTINE_SWITCH_H */
