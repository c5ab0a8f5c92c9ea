/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Switch of stacks for x86-64, System V calling convention.
 *
 * A handle is the stack pointer; below it a suspended stack holds
 *
 *      sp +  0   r15
 *      sp +  8   r14
 *      sp + 16   r13
 *      sp + 24   r12
 *      sp + 32   rbx
 *      sp + 40   rbp
 *      sp + 48   where to go on
 *
 * Not switched: the control bits of MXCSR and the x87 control word.  The
 * convention calls them callee-saved, so a function that changes them puts
 * them back before it returns, and the library never yields inside such a
 * function.  Loading both would double the cost of a switch.  The signal mask
 * belongs to the thread in the same way.
 *
 * We go on by a jump, not by a return: the processor predicts a return from
 * the calls it has seen, which were made on the other stack, and would always
 * be wrong; a jump it learns (8 ns a switch on an AMD EPYC).
 *
 * CET: an indirect jump may only land on endbr64, and the place to go on after
 * a call has none, hence "notrack", as in the jump tables of compilers.  A
 * shadow stack would have to be switched too and is not, so the property note
 * claims IBT alone: the linker then leaves SHSTK off the whole library, and
 * the loader does not switch the shadow stack on.
 */

#define FRAME_BYTES 56

        .text

/* void co_switch(void **save (rdi), void *to (rsi)) */
        .globl  co_switch
        .hidden co_switch
        .type   co_switch, @function
        .p2align 4
co_switch:
        .cfi_startproc
        endbr64
        pushq   %rbp
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rbp, 0
        pushq   %rbx
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rbx, 0
        pushq   %r12
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r12, 0
        pushq   %r13
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r13, 0
        pushq   %r14
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r14, 0
        pushq   %r15
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r15, 0
        movq    %rsp, (%rdi)
        /* The frame below has the same layout on either stack. */
        movq    %rsi, %rsp
        popq    %r15
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r15
        popq    %r14
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r14
        popq    %r13
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r13
        popq    %r12
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r12
        popq    %rbx
        .cfi_adjust_cfa_offset -8
        .cfi_restore %rbx
        popq    %rbp
        .cfi_adjust_cfa_offset -8
        .cfi_restore %rbp
        popq    %rcx
        .cfi_adjust_cfa_offset -8
        .cfi_register %rip, %rcx
        notrack jmp *%rcx
        .cfi_endproc
        .size   co_switch, . - co_switch

/*
 * The first thing to run on a new stack: entry in r12, its argument in r13,
 * the stack pointer aligned to 16.  Here a backtrace ends.
 */
        .type   co_switch_start, @function
        .p2align 4
co_switch_start:
        .cfi_startproc
        .cfi_undefined %rip
        endbr64
        movq    %r13, %rdi
        xorl    %ebp, %ebp
        call    *%r12
        ud2
        .cfi_endproc
        .size   co_switch_start, . - co_switch_start

/*
 * void *co_switch_prepare(void *low (rdi), size_t bytes (rsi),
 *                         CoSwitchEntry *entry (rdx), void *arg (rcx))
 */
        .globl  co_switch_prepare
        .hidden co_switch_prepare
        .type   co_switch_prepare, @function
        .p2align 4
co_switch_prepare:
        .cfi_startproc
        endbr64
        leaq    (%rdi,%rsi), %rax
        andq    $-16, %rax
        subq    $FRAME_BYTES, %rax
        leaq    co_switch_start(%rip), %r8
        xorl    %r9d, %r9d
        movq    %r9, (%rax)
        movq    %r9, 8(%rax)
        movq    %rcx, 16(%rax)
        movq    %rdx, 24(%rax)
        movq    %r9, 32(%rax)
        movq    %r9, 40(%rax)
        movq    %r8, 48(%rax)
        ret
        .cfi_endproc
        .size   co_switch_prepare, . - co_switch_prepare

        .section .note.GNU-stack, "", @progbits

/* GNU_PROPERTY_X86_FEATURE_1_AND = IBT */
        .section .note.gnu.property, "a", @note
        .p2align 3
        .long   4
        .long   16
        .long   5
        .asciz  "GNU"
        .long   0xc0000002
        .long   4
        .long   1
        .long   0
