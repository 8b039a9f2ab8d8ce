/* Switching between stacks: x86-64, System V ABI.
 *
 * Both ways to leave a stack are jumped to, not called, with the address to continue at in rax (ctx.h has the jumps).
 * That keeps the processor's own stack of return addresses as deep as it was, so that after a switch among fibers which
 * wait in the same way every return is predicted. A call here, and a jump back, leave one entry too many, and all
 * returns up to the fiber's own code go wrong: 34 ns instead of 6 for a switch three calls deep. A call and a `ret` do
 * well there, but guess wrong between two fibers that wait in different places: 13 ns instead of 3 (Sapphire Rapids,
 * gcc 12).
 *
 * A stopped stack, from its stack pointer upwards:
 *
 *     0   mxcsr (4 bytes), x87 control word (2), unused (2)
 *     8   r15    16   r14    24   r13    32   r12    40   rbx
 *    48   rbp                      next to the address that follows, as in any frame
 *    56   where it continues
 *    64   red zone of the function that stopped (128 bytes): for the compiler it made no call
 *
 * Control words. The ABI has the control bits of mxcsr and the x87 control word callee-saved, the status bits of mxcsr
 * not. Loading either one drains the pipeline of floating-point work, and nearly all fibers have the same ones: so both
 * are compared, without the status bits, and loaded only where they differ. A fresh stack starts with the defaults of
 * the C environment, not with what the fiber before it left.
 *
 * Unwinding. Registers change from one stack's to the other's while the old frame still holds the old ones; the stack
 * pointer changes last. So the description is right at every instruction. The bottom of a fresh stack says that it has
 * no caller, and zeroes the frame pointer.
 *
 * Control-flow enforcement. What is jumped to through a register begins with a landing pad: the functions that run on
 * fresh stacks, and the places to continue at (ctx.h). Shadow stacks are not switched; the note at the end leaves that
 * feature out, and the linker drops it from the whole program. */

#define MXCSR_CONTROL 0xffffffc0 /* all but the sticky exception flags */
#define RED_ZONE 128
#define FRAME (64 + RED_ZONE)

  .text

/* Begins a function that other files of the library know. */
.macro FUNCTION name:req
  .p2align 4
  .globl \name
  .hidden \name
  .type \name, @function
\name:
  .cfi_startproc
.endm

.macro END_FUNCTION name:req
  .cfi_endproc
  .size \name, . - \name
.endm

.macro KEEP register:req, at:req
  movq \register, \at(%rsp)
  .cfi_rel_offset \register, \at
.endm

/* Builds the frame of a stopped stack and stores its address in *rdi. */
.macro STOP
  .cfi_def_cfa %rsp, 0
  .cfi_register 16, %rax
  leaq -FRAME(%rsp), %rsp
  .cfi_adjust_cfa_offset FRAME
  stmxcsr (%rsp)
  fnstcw 4(%rsp)
  KEEP %r15, 8
  KEEP %r14, 16
  KEEP %r13, 24
  KEEP %r12, 32
  KEEP %rbx, 40
  KEEP %rbp, 48
  movq %rax, 56(%rsp)
  .cfi_rel_offset 16, 56
  movq %rsp, (%rdi)
.endm

/* Jumps to `differs` when the control words at 0(%rsp) are not those of the two operands. Uses eax. Each is read back
 * as it was stored: one load of both would have to wait until the two stores have reached the cache. */
.macro COMPARE_CONTROL mxcsr:req, x87:req, differs:req
  movl (%rsp), %eax
  xorl \mxcsr, %eax
  testl $MXCSR_CONTROL, %eax
  jnz \differs
  movzwl 4(%rsp), %eax
  cmpw \x87, %ax
  jne \differs
.endm

/* Here the stack pointer is the end of a fresh stack. */
.macro NO_CALLER
  .cfi_def_cfa %rsp, 0
  .cfi_undefined 16
  .cfi_undefined %rbp
.endm

/* Stops with *rdi (save) and rax (where to continue); continues the stack rsi, with rdx in rax. */
FUNCTION coir__ctx_swap
  STOP
  COMPARE_CONTROL (%rsi), 4(%rsi), .Lload_control
.Lcontinue:
  movq 8(%rsi), %r15
  movq 16(%rsi), %r14
  movq 24(%rsi), %r13
  movq 32(%rsi), %r12
  movq 40(%rsi), %rbx
  movq 48(%rsi), %rbp
  movq 56(%rsi), %rcx
  movq %rdx, %rax
  .cfi_remember_state
  leaq FRAME(%rsi), %rsp
  .cfi_def_cfa_offset 0
  .cfi_register 16, %rcx
  .cfi_same_value %r15
  .cfi_same_value %r14
  .cfi_same_value %r13
  .cfi_same_value %r12
  .cfi_same_value %rbx
  .cfi_same_value %rbp
  jmp *%rcx
.Lload_control:
  .cfi_restore_state
  ldmxcsr (%rsi)
  fldcw 4(%rsi)
  jmp .Lcontinue
END_FUNCTION coir__ctx_swap

/* Stops like coir__ctx_swap; calls rdx (entry) with rcx on a fresh stack that ends at rsi. */
FUNCTION coir__ctx_launch
  STOP
  COMPARE_CONTROL .Ldefault_mxcsr(%rip), .Ldefault_x87(%rip), .Llaunch_load_control
.Llaunch:
  movq %rcx, %rdi
  .cfi_remember_state
  movq %rsi, %rsp
  NO_CALLER
  jmp coir__ctx_bottom
.Llaunch_load_control:
  .cfi_restore_state
  ldmxcsr .Ldefault_mxcsr(%rip)
  fldcw .Ldefault_x87(%rip)
  jmp .Llaunch
END_FUNCTION coir__ctx_launch

/* void coir__ctx_restart(void *top rdi, void (*entry)(void *arg) rsi, void *arg rdx) */
FUNCTION coir__ctx_restart
  subq $8, %rsp
  .cfi_adjust_cfa_offset 8
  stmxcsr (%rsp)
  fnstcw 4(%rsp)
  COMPARE_CONTROL .Ldefault_mxcsr(%rip), .Ldefault_x87(%rip), .Lrestart_load_control
.Lrestart:
  movq %rdi, %rax
  movq %rdx, %rdi
  movq %rsi, %rdx
  .cfi_remember_state
  movq %rax, %rsp
  NO_CALLER
  jmp coir__ctx_bottom
.Lrestart_load_control:
  .cfi_restore_state
  ldmxcsr .Ldefault_mxcsr(%rip)
  fldcw .Ldefault_x87(%rip)
  jmp .Lrestart
END_FUNCTION coir__ctx_restart

/* The outermost frame of every fresh stack: rdx(rdi). Not a call, since entry does not return; the address that a
 * return would go to shows unwinders this frame. They look up the instruction before it, so that has to be ours. */
  .p2align 4
  .globl coir__ctx_bottom
  .hidden coir__ctx_bottom
  .type coir__ctx_bottom, @function
coir__ctx_bottom:
  .cfi_startproc
  NO_CALLER
  xorl %ebp, %ebp
  leaq .Lreturned(%rip), %rax
  pushq %rax
  .cfi_adjust_cfa_offset 8
  jmp *%rdx
  .cfi_adjust_cfa_offset -8
.Lreturned:
  ud2
END_FUNCTION coir__ctx_bottom

/* Copies from the frame at rdi to what lies in coir__ctx_registers for a register of that number. */
.macro TELL at:req, number:req
  movq \at(%rdi), %r8
  movq %r8, 8 + 8 * \number(%rcx)
.endm

/* bool coir__ctx_peek(const void *copy rdi, size_t bytes rsi, uintptr_t sp rdx, struct coir__ctx_registers *out rcx) */
FUNCTION coir__ctx_peek
  xorl %eax, %eax
  cmpq $FRAME, %rsi
  jb .Ltoo_short
  TELL 8, 15
  TELL 16, 14
  TELL 24, 13
  TELL 32, 12
  TELL 40, 3  /* rbx */
  TELL 48, 6  /* rbp */
  TELL 56, -1 /* pc */
  addq $FRAME, %rdx
  movq %rdx, 8 + 8 * 7(%rcx) /* rsp */
  incl %eax
.Ltoo_short:
  ret
END_FUNCTION coir__ctx_peek

  .section .rodata.coir__ctx, "a", @progbits
  .p2align 3
.Ldefault_mxcsr:
  .long 0x1f80 /* all exceptions masked, round to nearest, denormals kept */
.Ldefault_x87:
  .short 0x037f /* all exceptions masked, round to nearest, 64 bits of precision */

#if defined(__CET__) && (__CET__ & 1)
  .section .note.gnu.property, "a", @note
  .p2align 3
  .long 4, 16, 5 /* size of the name, size of the rest, NT_GNU_PROPERTY_TYPE_0 */
  .asciz "GNU"
  .long 0xc0000002, 4, 1, 0 /* X86_FEATURE_1_AND, its size, IBT without SHSTK, padding */
#endif

  .section .note.GNU-stack, "", @progbits
