/* Switching between stacks: aarch64, AAPCS64.
 *
 * Both ways to leave a stack are jumped to, not called, with the address to continue at in x9; arch/ctx_x86_64.S says
 * why.
 *
 * A stopped stack, from its stack pointer upwards:
 *
 *     0   x19 x20    16   x21 x22    32   x23 x24    48   x25 x26    64   x27 x28
 *    80   x29, and where it continues
 *    96   fpcr, unused (8)
 *
 * The low halves of v8 to v15 and x30 are saved by the function that is left, if it needs them: the jump is declared to
 * change them (ctx.h). x18 is left alone: some platforms own it, and where none does, the jump counts as changing it.
 *
 * Control word. Writing fpcr waits for all floating-point work; nearly all fibers have the same, so it is written only
 * where it differs. A fresh stack starts with the default, 0.
 *
 * Unwinding. Registers change from one stack's to the other's while the old frame still holds the old ones; the stack
 * pointer changes last. So the description is right at every instruction. The bottom of a fresh stack says that it has
 * no caller, and zeroes the frame pointer.
 *
 * Branch protection. Every function begins with a landing pad, as a hint, which older processors ignore: the linker may
 * reach a far one through a register. So do the places to continue at (ctx.h). */

#define FRAME 112
#define BTI_C hint #34

  .text

/* Begins a function that other files of the library know. */
.macro FUNCTION name:req
  .p2align 4
  .globl \name
  .hidden \name
  .type \name, %function
\name:
  .cfi_startproc
.endm

.macro END_FUNCTION name:req
  .cfi_endproc
  .size \name, . - \name
.endm

.macro KEEP first:req, second:req, at:req
  stp \first, \second, [sp, #\at]
  .cfi_rel_offset \first, \at
  .cfi_rel_offset \second, \at + 8
.endm

/* Builds the frame of a stopped stack and stores its address in [x0]. Leaves fpcr in x10. */
.macro STOP
  .cfi_def_cfa sp, 0
  .cfi_register x30, x9
  BTI_C
  sub sp, sp, #FRAME
  .cfi_adjust_cfa_offset FRAME
  mrs x10, fpcr
  KEEP x19, x20, 0
  KEEP x21, x22, 16
  KEEP x23, x24, 32
  KEEP x25, x26, 48
  KEEP x27, x28, 64
  stp x29, x9, [sp, #80]
  .cfi_rel_offset x29, 80
  .cfi_rel_offset x30, 88
  str x10, [sp, #96]
  mov x11, sp
  str x11, [x0]
.endm

/* Here the stack pointer is the end of a fresh stack. */
.macro NO_CALLER
  .cfi_def_cfa sp, 0
  .cfi_undefined x30
  .cfi_undefined x29
.endm

/* Stops with [x0] (save) and x9 (where to continue); continues the stack x1, with x2 in x0. */
FUNCTION coir__ctx_swap
  STOP
  ldr x11, [x1, #96]
  cmp x10, x11
  b.ne .Lload_control
.Lcontinue:
  ldp x19, x20, [x1]
  ldp x21, x22, [x1, #16]
  ldp x23, x24, [x1, #32]
  ldp x25, x26, [x1, #48]
  ldp x27, x28, [x1, #64]
  ldp x29, x9, [x1, #80]
  mov x0, x2
  .cfi_remember_state
  add sp, x1, #FRAME
  .cfi_def_cfa_offset 0
  .cfi_register x30, x9
  .cfi_same_value x19
  .cfi_same_value x20
  .cfi_same_value x21
  .cfi_same_value x22
  .cfi_same_value x23
  .cfi_same_value x24
  .cfi_same_value x25
  .cfi_same_value x26
  .cfi_same_value x27
  .cfi_same_value x28
  .cfi_same_value x29
  br x9
.Lload_control:
  .cfi_restore_state
  msr fpcr, x11
  b .Lcontinue
END_FUNCTION coir__ctx_swap

/* Stops like coir__ctx_swap; calls x2 (entry) with x3 on a fresh stack that ends at x1. */
FUNCTION coir__ctx_launch
  STOP
  cbnz x10, .Llaunch_clear_control
.Llaunch:
  mov x0, x3
  mov x16, x2
  .cfi_remember_state
  mov sp, x1
  NO_CALLER
  b coir__ctx_bottom
.Llaunch_clear_control:
  .cfi_restore_state
  msr fpcr, xzr
  b .Llaunch
END_FUNCTION coir__ctx_launch

/* void coir__ctx_restart(void *top x0, void (*entry)(void *arg) x1, void *arg x2) */
FUNCTION coir__ctx_restart
  BTI_C
  mrs x10, fpcr
  cbnz x10, .Lrestart_clear_control
.Lrestart:
  mov x11, x0
  mov x0, x2
  mov x16, x1
  .cfi_remember_state
  mov sp, x11
  NO_CALLER
  b coir__ctx_bottom
.Lrestart_clear_control:
  .cfi_restore_state
  msr fpcr, xzr
  b .Lrestart
END_FUNCTION coir__ctx_restart

/* The outermost frame of every fresh stack: x16(x0). Not a call, since entry does not return; the address that a return
 * would go to shows unwinders this frame. They look up the instruction before it, so that has to be ours. The branch is
 * through x16 because a function's landing pad admits that register. */
  .p2align 4
  .globl coir__ctx_bottom
  .hidden coir__ctx_bottom
  .type coir__ctx_bottom, %function
coir__ctx_bottom:
  .cfi_startproc
  NO_CALLER
  mov x29, xzr
  adr x30, .Lreturned
  br x16
.Lreturned:
  udf #0
END_FUNCTION coir__ctx_bottom

/* Copies a pair from the frame at x0 to what lies in coir__ctx_registers for registers from that number on. */
.macro TELL at:req, number:req
  ldp x9, x10, [x0, #\at]
  stp x9, x10, [x3, #8 + 8 * \number]
.endm

/* bool coir__ctx_peek(const void *copy x0, size_t bytes x1, uintptr_t sp x2, struct coir__ctx_registers *out x3) */
FUNCTION coir__ctx_peek
  BTI_C
  cmp x1, #FRAME
  b.lo .Ltoo_short
  TELL 0, 19
  TELL 16, 21
  TELL 32, 23
  TELL 48, 25
  TELL 64, 27
  ldp x9, x10, [x0, #80]
  str x9, [x3, #8 + 8 * 29]
  str x10, [x3] /* pc */
  add x2, x2, #FRAME
  str x2, [x3, #8 + 8 * 31] /* sp */
  mov w0, #1
  ret
.Ltoo_short:
  mov w0, #0
  ret
END_FUNCTION coir__ctx_peek

#if defined(__ARM_FEATURE_BTI_DEFAULT)
  .section .note.gnu.property, "a", %note
  .p2align 3
  .long 4, 16, 5 /* size of the name, size of the rest, NT_GNU_PROPERTY_TYPE_0 */
  .asciz "GNU"
  .long 0xc0000000, 4, 1, 0 /* AARCH64_FEATURE_1_AND, its size, BTI, padding */
#endif

  .section .note.GNU-stack, "", %progbits
