/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Switch of stacks for machines without an assembly one.
 *
 * makecontext() builds the first frame, since only the C library knows how.
 * After that sigsetjmp() and siglongjmp() do the same as swapcontext(), but
 * leave the signal mask alone and so need no system call.  They jump to
 * another stack, which fortified builds would take for an error.
 *
 * TSan wraps them and looks for the frame jumped to on the stack it believes
 * to be in; under TSan swapcontext() is used for all.
 */
#undef _FORTIFY_SOURCE

#include "util/coroutine-switch.h"
#include "util/coroutine-sanitizer.h"

#include <glib.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <ucontext.h>

/* What a handle points to, on the suspended stack. */
typedef struct Suspended {
    bool by_context;           /* which of the two below is valid */
    ucontext_t context;
    sigjmp_buf registers;
} Suspended;

/* makecontext() passes ints; two of them hold a pointer. */
static void start(unsigned entry_low, unsigned entry_high, unsigned arg_low,
                  unsigned arg_high)
{
    uintptr_t entry = (uintptr_t)(entry_low | (uint64_t)entry_high << 32);
    uintptr_t arg = (uintptr_t)(arg_low | (uint64_t)arg_high << 32);

    ((CoSwitchEntry *)entry)((void *)arg);
    g_assert_not_reached();
}

void *co_switch_prepare(void *low, size_t bytes, CoSwitchEntry *entry,
                        void *arg)
{
    uintptr_t top = (uintptr_t)low + bytes - sizeof(Suspended);
    Suspended *first = (Suspended *)(top & ~(uintptr_t)63);
    uint64_t entry_bits = (uintptr_t)entry;
    uint64_t arg_bits = (uintptr_t)arg;

    first->by_context = true;
    g_assert(getcontext(&first->context) == 0);
    first->context.uc_link = NULL;
    first->context.uc_stack.ss_sp = low;
    first->context.uc_stack.ss_size = (size_t)((char *)first - (char *)low);
    makecontext(&first->context, (void (*)(void))start, 4,
                (unsigned)entry_bits, (unsigned)(entry_bits >> 32),
                (unsigned)arg_bits, (unsigned)(arg_bits >> 32));
    return first;
}

/* setcontext() loads a signal mask: let it be the one of this thread. */
static void keep_signal_mask(ucontext_t *context)
{
    pthread_sigmask(SIG_BLOCK, NULL, &context->uc_sigmask);
}

#if CO_TSAN

void co_switch(void **save, void *to)
{
    Suspended here = { .by_context = true };
    Suspended *there = to;

    *save = &here;
    keep_signal_mask(&there->context);
    swapcontext(&here.context, &there->context);
}

#else

void co_switch(void **save, void *to)
{
    Suspended here;
    Suspended *there = to;

    here.by_context = false;
    *save = &here;
    if (sigsetjmp(here.registers, 0) == 0) {
        if (there->by_context) {
            keep_signal_mask(&there->context);
            setcontext(&there->context);
        }
        siglongjmp(there->registers, 1);
    }
}

#endif
