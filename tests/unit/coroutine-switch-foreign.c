/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The switch of stacks alone, as a static program without any library: it is
 * built for a foreign processor and run in an emulator.
 *
 * Prints the name of the failed promise and exits with 1, or exits with 0.
 */
#include "util/coroutine-switch.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STACK_BYTES (64 << 10)
#define MANY 500
#define ROUNDS 20
#define DEEP 300

#define PROMISE(condition)                                                    \
    do {                                                                      \
        if (!(condition)) {                                                   \
            printf("%s:%d: broken: %s\n", __FILE__, __LINE__, #condition);    \
            exit(1);                                                          \
        }                                                                     \
    } while (0)

typedef struct Fiber {
    void *handle;
    void *caller;              /* handle of who runs us */
    void (*body)(struct Fiber *self);
    int value;
    int done;
    struct Fiber *inner;
    char stack[STACK_BYTES] __attribute__((aligned(16)));
} Fiber;

static void fiber_main(void *arg)
{
    Fiber *fiber = arg;

    PROMISE(((uintptr_t)__builtin_frame_address(0) & 15) == 0);
    fiber->body(fiber);
    fiber->done = 1;
    co_switch(&fiber->handle, fiber->caller);
    abort();
}

static Fiber *fiber_new(void (*body)(Fiber *self), int value)
{
    Fiber *fiber = calloc(1, sizeof(*fiber));

    fiber->body = body;
    fiber->value = value;
    fiber->handle = co_switch_prepare(fiber->stack, sizeof(fiber->stack),
                                      fiber_main, fiber);
    return fiber;
}

static void fiber_enter(Fiber *fiber)
{
    co_switch(&fiber->caller, fiber->handle);
}

static void fiber_yield(Fiber *fiber)
{
    co_switch(&fiber->handle, fiber->caller);
}

/* --- many ---------------------------------------------------------------- */

static void count_rounds(Fiber *self)
{
    int mine = self->value;

    for (int i = 0; i < ROUNDS; i++) {
        PROMISE(self->value == mine + i);
        self->value++;
        fiber_yield(self);
    }
}

static void many_fibers_keep_their_own_variables(void)
{
    static Fiber *fiber[MANY];

    for (int i = 0; i < MANY; i++) {
        fiber[i] = fiber_new(count_rounds, i * 1000);
    }
    for (int round = 0; round <= ROUNDS; round++) {
        for (int i = 0; i < MANY; i++) {
            fiber_enter(fiber[i]);
        }
    }
    for (int i = 0; i < MANY; i++) {
        PROMISE(fiber[i]->done && fiber[i]->value == i * 1000 + ROUNDS);
        free(fiber[i]);
    }
}

/* --- nested -------------------------------------------------------------- */

static void enter_inner(Fiber *self)
{
    if (self->value > 0) {
        self->inner = fiber_new(enter_inner, self->value - 1);
        fiber_enter(self->inner);
        PROMISE(!self->inner->done);
        fiber_yield(self);
        fiber_enter(self->inner);
        PROMISE(self->inner->done);
        free(self->inner);
    } else {
        fiber_yield(self);
    }
}

static void nested_fibers_return_to_whoever_entered_them(void)
{
    Fiber *fiber = fiber_new(enter_inner, 50);

    fiber_enter(fiber);
    PROMISE(!fiber->done);
    fiber_enter(fiber);
    PROMISE(fiber->done);
    free(fiber);
}

/* --- deep ---------------------------------------------------------------- */

static int recurse(Fiber *self, int depth)
{
    char frame[64];
    int sum = 0;

    memset(frame, depth, sizeof(frame));
    __asm__ volatile("" : : "r"(frame) : "memory");
    if (depth > 0) {
        sum = recurse(self, depth - 1);
    } else {
        fiber_yield(self);
    }
    __asm__ volatile("" : : "r"(frame) : "memory");
    PROMISE(frame[63] == (char)depth);
    return sum + 1;
}

static void recurse_deep(Fiber *self)
{
    self->value = recurse(self, DEEP);
}

static void deep_frames_survive_a_yield(void)
{
    Fiber *a = fiber_new(recurse_deep, 0);
    Fiber *b = fiber_new(recurse_deep, 0);

    fiber_enter(a);
    fiber_enter(b);
    fiber_enter(a);
    fiber_enter(b);
    PROMISE(a->done && a->value == DEEP + 1);
    PROMISE(b->done && b->value == DEEP + 1);
    free(a);
    free(b);
}

/* --- registers ----------------------------------------------------------- */

/*
 * Fill the callee-saved registers with numbers from @base, yield, and look.
 * The compiler is told of each register, so that it saves its own.
 */
#if defined(__aarch64__)

#define GENERAL 10
#define FLOATING 8

static void registers_across(void **save, void *to, uint64_t base)
{
    uint64_t seen[GENERAL + FLOATING];
    register void **arg0 __asm__("x0") = save;
    register void *arg1 __asm__("x1") = to;
    register uint64_t first __asm__("x2") = base;
    register uint64_t *out __asm__("x3") = seen;

    __asm__ volatile(
        "str x3, [sp, #-32]!\n"
        "str x29, [sp, #8]\n"
        "mov x19, x2\n add x20, x2, #1\n add x21, x2, #2\n"
        "add x22, x2, #3\n add x23, x2, #4\n add x24, x2, #5\n"
        "add x25, x2, #6\n add x26, x2, #7\n add x27, x2, #8\n"
        "add x28, x2, #9\n"
        "add x9, x2, #10\n fmov d8, x9\n add x9, x2, #11\n fmov d9, x9\n"
        "add x9, x2, #12\n fmov d10, x9\n add x9, x2, #13\n fmov d11, x9\n"
        "add x9, x2, #14\n fmov d12, x9\n add x9, x2, #15\n fmov d13, x9\n"
        "add x9, x2, #16\n fmov d14, x9\n add x9, x2, #17\n fmov d15, x9\n"
        "bl co_switch\n"
        "ldr x9, [sp, #8]\n"
        "cmp x9, x29\n"
        "b.eq 1f\n brk #1\n 1:\n"
        "ldr x3, [sp], #32\n"
        "stp x19, x20, [x3, #0]\n stp x21, x22, [x3, #16]\n"
        "stp x23, x24, [x3, #32]\n stp x25, x26, [x3, #48]\n"
        "stp x27, x28, [x3, #64]\n"
        "stp d8, d9, [x3, #80]\n stp d10, d11, [x3, #96]\n"
        "stp d12, d13, [x3, #112]\n stp d14, d15, [x3, #128]\n"
        : "+r"(arg0), "+r"(arg1), "+r"(first), "+r"(out)
        :
        : "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13",
          "x14", "x15", "x16", "x17", "x18", "x19", "x20", "x21", "x22", "x23",
          "x24", "x25", "x26", "x27", "x28", "x30", "v0", "v1", "v2", "v3",
          "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13",
          "v14", "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22",
          "v23", "v24", "v25", "v26", "v27", "v28", "v29", "v30", "v31", "cc",
          "memory");
    for (uint64_t i = 0; i < GENERAL + FLOATING; i++) {
        PROMISE(seen[i] == base + i);
    }
}

#elif defined(__x86_64__)

static void registers_across(void **save, void *to, uint64_t base)
{
    const uint64_t numbered = base;
    uint64_t seen[5];
    register uint64_t *out __asm__("r8") = seen;

    /* Past the red zone, where the compiler may keep variables of ours. */
    __asm__ volatile(
        "subq $144, %%rsp\n"
        "movq %%r8, (%%rsp)\n"
        "movq %%rbp, 8(%%rsp)\n"
        "movq %%rdx, %%rbx\n leaq 1(%%rdx), %%r12\n leaq 2(%%rdx), %%r13\n"
        "leaq 3(%%rdx), %%r14\n leaq 4(%%rdx), %%r15\n"
        "call co_switch\n"
        "cmpq 8(%%rsp), %%rbp\n"
        "je 1f\n ud2\n 1:\n"
        "movq (%%rsp), %%r8\n"
        "addq $144, %%rsp\n"
        "movq %%rbx, (%%r8)\n movq %%r12, 8(%%r8)\n movq %%r13, 16(%%r8)\n"
        "movq %%r14, 24(%%r8)\n movq %%r15, 32(%%r8)\n"
        : "+D"(save), "+S"(to), "+d"(base), "+r"(out)
        :
        : "rax", "rcx", "r9", "r10", "r11", "rbx", "r12", "r13", "r14", "r15",
          "cc", "memory");
    for (uint64_t i = 0; i < 5; i++) {
        PROMISE(seen[i] == numbered + i);
    }
}

#endif

static void yield_with_registers(Fiber *self)
{
    registers_across(&self->handle, self->caller, 1000);
    registers_across(&self->handle, self->caller, 2000);
}

static void registers_survive_a_switch_on_both_sides(void)
{
    Fiber *fiber = fiber_new(yield_with_registers, 0);

    for (uint64_t i = 1; i <= 3; i++) {
        registers_across(&fiber->caller, fiber->handle, 100000 * i);
    }
    PROMISE(fiber->done);
    free(fiber);
}

int main(void)
{
    many_fibers_keep_their_own_variables();
    nested_fibers_return_to_whoever_entered_them();
    deep_frames_survive_a_yield();
    registers_survive_a_switch_on_both_sides();
    return 0;
}
