/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Tell ASan, TSan and valgrind about stacks and the switches between them.
 *
 * In a plain build every function here is empty.  ASan must know the bounds of
 * the stack that is switched to; TSan thinks of each stack as a thread of its
 * own, and takes a switch for an ordering between the two.
 */
#ifndef UTIL_COROUTINE_SANITIZER_H
#define UTIL_COROUTINE_SANITIZER_H

#include <stdbool.h>
#include <stddef.h>

#if defined(__has_feature)
#define CO_HAS_FEATURE(feature) __has_feature(feature)
#else
#define CO_HAS_FEATURE(feature) 0
#endif

#if defined(__SANITIZE_ADDRESS__) || CO_HAS_FEATURE(address_sanitizer)
#define CO_ASAN 1
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else
#define CO_ASAN 0
#endif

#if defined(__SANITIZE_THREAD__) || CO_HAS_FEATURE(thread_sanitizer)
#define CO_TSAN 1
#include <sanitizer/tsan_interface.h>
#else
#define CO_TSAN 0
#endif

#ifdef CO_VALGRIND
#include <valgrind/valgrind.h>
#endif

/** For a function that reads or frames memory in ways ASan cannot follow. */
#define CO_NO_ASAN __attribute__((no_sanitize_address))

/** For a function that goes through whole stacks. */
#define CO_NO_SANITIZER                                                       \
    __attribute__((no_sanitize_address, no_sanitize_thread))

/** What the tools want to remember for each stack. */
typedef struct CoSanitizer {
#if CO_ASAN
    void *fake_stack;          /* ASan's frames, while switched away */
    const void *stack_low;     /* of a thread: learnt at the first switch */
    size_t stack_bytes;
#endif
#if CO_TSAN
    void *fiber;
#endif
#ifdef CO_VALGRIND
    unsigned valgrind_id;
#endif
} CoSanitizer;

/** A new stack of @bytes from @low, which is not running. */
static inline void co_sanitizer_new(CoSanitizer *co, void *low, size_t bytes)
{
#if CO_ASAN
    /* The addresses may have belonged to another mapping. */
    ASAN_UNPOISON_MEMORY_REGION(low, bytes);
    co->fake_stack = NULL;
    co->stack_low = low;
    co->stack_bytes = bytes;
#endif
#if CO_TSAN
    co->fiber = __tsan_create_fiber(0);
#endif
#ifdef CO_VALGRIND
    co->valgrind_id = VALGRIND_STACK_REGISTER(low, (char *)low + bytes);
#endif
    (void)co;
    (void)low;
    (void)bytes;
}

/** The stack of @co, which is not running, will be unmapped. */
static inline void co_sanitizer_free(CoSanitizer *co)
{
#if CO_ASAN
    ASAN_UNPOISON_MEMORY_REGION(co->stack_low, co->stack_bytes);
#endif
#if CO_TSAN
    __tsan_destroy_fiber(co->fiber);
#endif
#ifdef CO_VALGRIND
    VALGRIND_STACK_DEREGISTER(co->valgrind_id);
#endif
    (void)co;
}

/** @self is the stack that the thread came with; before each switch from it. */
static inline void co_sanitizer_thread(CoSanitizer *self)
{
#if CO_TSAN
    self->fiber = __tsan_get_current_fiber();
#endif
    (void)self;
}

/**
 * Immediately before the switch.
 *
 * @last  the frames on @from are not needed again
 */
static inline void co_sanitizer_leave(CoSanitizer *from, CoSanitizer *to,
                                      bool last)
{
#if CO_ASAN
    __sanitizer_start_switch_fiber(last ? NULL : &from->fake_stack,
                                   to->stack_low, to->stack_bytes);
    if (last) {
        from->fake_stack = NULL;
    }
#endif
#if CO_TSAN
    __tsan_switch_to_fiber(to->fiber, 0);
#endif
    (void)from;
    (void)to;
    (void)last;
}

/** Immediately after the switch: now on @self, coming from @from. */
static inline void co_sanitizer_arrive(CoSanitizer *self, CoSanitizer *from)
{
#if CO_ASAN
    const void *low;
    size_t bytes;

    __sanitizer_finish_switch_fiber(self->fake_stack, &low, &bytes);
    if (from) {
        from->stack_low = low;
        from->stack_bytes = bytes;
    }
#endif
    (void)self;
    (void)from;
}

#endif /* UTIL_COROUTINE_SANITIZER_H */
