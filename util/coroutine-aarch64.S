/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Switch of stacks for aarch64, AAPCS64 calling convention.
 *
 * A handle is the stack pointer; from it upwards a suspended stack holds
 *
 *      sp +   0  x19 x20 x21 x22 x23 x24 x25 x26 x27 x28
 *      sp +  80  x29 x30 (where to go on)
 *      sp +  96  d8 d9 d10 d11 d12 d13 d14 d15
 *
 * Only the low halves of v8 to v15 are callee-saved.  FPCR is not switched, for
 * the reason given for MXCSR in coroutine-x86_64.S.
 *
 * Branch protection: the entry points carry "bti c" and we go on with "ret",
 * which needs no landing mark.  x30 lies on the stack unsigned, so the note
 * claims BTI alone.
 */

#define FRAME_BYTES 160
#define BTI_C hint #34

        .text

/* void co_switch(void **save (x0), void *to (x1)) */
        .globl  co_switch
        .hidden co_switch
        .type   co_switch, %function
        .p2align 4
co_switch:
        .cfi_startproc
        BTI_C
        sub     sp, sp, #FRAME_BYTES
        .cfi_def_cfa_offset FRAME_BYTES
        stp     x19, x20, [sp, #0]
        .cfi_rel_offset x19, 0
        .cfi_rel_offset x20, 8
        stp     x21, x22, [sp, #16]
        .cfi_rel_offset x21, 16
        .cfi_rel_offset x22, 24
        stp     x23, x24, [sp, #32]
        .cfi_rel_offset x23, 32
        .cfi_rel_offset x24, 40
        stp     x25, x26, [sp, #48]
        .cfi_rel_offset x25, 48
        .cfi_rel_offset x26, 56
        stp     x27, x28, [sp, #64]
        .cfi_rel_offset x27, 64
        .cfi_rel_offset x28, 72
        stp     x29, x30, [sp, #80]
        .cfi_rel_offset x29, 80
        .cfi_rel_offset x30, 88
        stp     d8, d9, [sp, #96]
        stp     d10, d11, [sp, #112]
        stp     d12, d13, [sp, #128]
        stp     d14, d15, [sp, #144]
        mov     x9, sp
        str     x9, [x0]
        /* The frame above has the same layout on either stack. */
        mov     sp, x1
        ldp     x19, x20, [sp, #0]
        ldp     x21, x22, [sp, #16]
        ldp     x23, x24, [sp, #32]
        ldp     x25, x26, [sp, #48]
        ldp     x27, x28, [sp, #64]
        ldp     x29, x30, [sp, #80]
        ldp     d8, d9, [sp, #96]
        ldp     d10, d11, [sp, #112]
        ldp     d12, d13, [sp, #128]
        ldp     d14, d15, [sp, #144]
        add     sp, sp, #FRAME_BYTES
        .cfi_def_cfa_offset 0
        .cfi_restore x19
        .cfi_restore x20
        .cfi_restore x21
        .cfi_restore x22
        .cfi_restore x23
        .cfi_restore x24
        .cfi_restore x25
        .cfi_restore x26
        .cfi_restore x27
        .cfi_restore x28
        .cfi_restore x29
        .cfi_restore x30
        ret
        .cfi_endproc
        .size   co_switch, . - co_switch

/*
 * The first thing to run on a new stack: entry in x19, its argument in x20.
 * Here a backtrace ends.
 */
        .type   co_switch_start, %function
        .p2align 4
co_switch_start:
        .cfi_startproc
        .cfi_undefined x30
        BTI_C
        mov     x0, x20
        mov     x29, xzr
        mov     x30, xzr
        blr     x19
        brk     #0
        .cfi_endproc
        .size   co_switch_start, . - co_switch_start

/*
 * void *co_switch_prepare(void *low (x0), size_t bytes (x1),
 *                         CoSwitchEntry *entry (x2), void *arg (x3))
 */
        .globl  co_switch_prepare
        .hidden co_switch_prepare
        .type   co_switch_prepare, %function
        .p2align 4
co_switch_prepare:
        .cfi_startproc
        BTI_C
        add     x0, x0, x1
        and     x0, x0, #~15
        sub     x0, x0, #FRAME_BYTES
        adr     x9, co_switch_start
        stp     x2, x3, [x0, #0]
        stp     xzr, xzr, [x0, #16]
        stp     xzr, xzr, [x0, #32]
        stp     xzr, xzr, [x0, #48]
        stp     xzr, xzr, [x0, #64]
        stp     xzr, x9, [x0, #80]
        stp     xzr, xzr, [x0, #96]
        stp     xzr, xzr, [x0, #112]
        stp     xzr, xzr, [x0, #128]
        stp     xzr, xzr, [x0, #144]
        ret
        .cfi_endproc
        .size   co_switch_prepare, . - co_switch_prepare

        .section .note.GNU-stack, "", %progbits

/* GNU_PROPERTY_AARCH64_FEATURE_1_AND = BTI */
        .section .note.gnu.property, "a"
        .p2align 3
        .long   4
        .long   16
        .long   5
        .asciz  "GNU"
        .long   0xc0000000
        .long   4
        .long   1
        .long   0
