/* Switching between stacks; arch/ctx_<arch>.S implements it, or arch/ctx_ucontext.c where the build defines
 * COIR_CONTEXT_UCONTEXT.
 *
 * A context is the stack pointer of a stopped stack: its callee-saved registers (and floating-point control words where
 * the ABI has them callee-saved) lie on the stack itself. The argument travels in a register, so that whoever arrives
 * needs no thread-local to know where it is. */
#ifndef COIR_SRC_CTX_H
#define COIR_SRC_CTX_H

#include "types.h"

/* The two calls below are left by a jump, not by a call, where the architecture's file offers that: arch/ctx_x86_64.S
 * says what it is worth. */
#if (defined(__x86_64__) || defined(__aarch64__)) && !defined(COIR_CONTEXT_UCONTEXT)
#define COIR__CTX_INLINE static inline
#else
#define COIR__CTX_INLINE
#endif

/* Stops the calling stack, stores its context in *save, and continues the stack `to`, where coir__ctx_switch (or start)
 * returns `arg`. Returns when somebody switches back to the caller's context, with that one's argument. */
COIR__CTX_INLINE void *coir__ctx_switch(void **save, void *to, void *arg);

/* Stops the calling stack, and calls entry(arg) on a fresh stack that ends at `top` (16-byte aligned). `entry` never
 * returns. Returns like coir__ctx_switch. Unwinders stop at the entry: its return address is undefined and its frame
 * pointer zero. `entry` begins with the C environment's default rounding and exceptions. */
COIR__CTX_INLINE void *coir__ctx_start(void **save, void *top, void (*entry)(void *arg), void *arg);

/* Calls entry(arg) on the stack that ends at `top`, dropping the calling frame, which may be on that same stack. */
void coir__ctx_restart(void *top, void (*entry)(void *arg), void *arg) __attribute__((noreturn));

/* What the function that stopped with the context `sp` had in its registers; for backtraces. `copy` are the `bytes`
 * bytes of its stack from sp on (16-byte aligned). Sets pc and those registers that are kept for it. False: it is too
 * short, or the registers of this architecture are not known. */
bool coir__ctx_peek(const void *copy, size_t bytes, uintptr_t sp, struct coir__ctx_registers *out);

/* How far below its context the frame that stopped may reach. */
#if defined(COIR_CONTEXT_UCONTEXT)
#define COIR__CTX_BELOW 8192 /* the registers of the stack that it started, and what it saved */
#else
#define COIR__CTX_BELOW 0
#endif

/* ---- The jumps ------------------------------------------------------------------------------------------------- */

/* For the compiler a jump away and back is one instruction, which changes all that a call may change. The callee-saved
 * general registers are kept by coir__ctx_swap and coir__ctx_launch. */
#if defined(__x86_64__) && !defined(COIR_CONTEXT_UCONTEXT)

#if defined(__CET__) && (__CET__ & 1)
#define COIR__CTX_LANDING_PAD "endbr64"
#else
#define COIR__CTX_LANDING_PAD ""
#endif
#define COIR__CTX_LEAVE(target) "leaq 1f(%%rip), %%rax\n\tjmp " target "\n1:\t" COIR__CTX_LANDING_PAD
#if defined(__AVX512F__)
#define COIR__CTX_CLOBBERS_AVX512 \
  , "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26", \
      "xmm27", "xmm28", "xmm29", "xmm30", "xmm31", "k1", "k2", "k3", "k4", "k5", "k6", "k7"
#else
#define COIR__CTX_CLOBBERS_AVX512
#endif
#define COIR__CTX_CLOBBERS \
  "r8", "r9", "r10", "r11", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", \
      "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", \
      "st(6)", "st(7)", "cc", "memory" COIR__CTX_CLOBBERS_AVX512

static inline void *coir__ctx_switch(void **save, void *to, void *arg) {
  void *result;
  __asm__ volatile(COIR__CTX_LEAVE("coir__ctx_swap")
                   : "=a"(result), "+D"(save), "+S"(to), "+d"(arg)
                   :
                   : "rcx", COIR__CTX_CLOBBERS);
  return result;
}

static inline void *coir__ctx_start(void **save, void *top, void (*entry)(void *arg), void *arg) {
  void *result;
  __asm__ volatile(COIR__CTX_LEAVE("coir__ctx_launch")
                   : "=a"(result), "+D"(save), "+S"(top), "+d"(entry), "+c"(arg)
                   :
                   : COIR__CTX_CLOBBERS);
  return result;
}

#elif defined(__aarch64__) && !defined(COIR_CONTEXT_UCONTEXT)

/* The landing pad is `bti j`. The halves of v8 to v15 that a call would keep are the compiler's to save, as is x30. */
#define COIR__CTX_LEAVE(target) "adr x9, 1f\n\tb " target "\n1:\thint #36"
#if defined(__ARM_FEATURE_SVE)
#define COIR__CTX_CLOBBERS_SVE \
  , "p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8", "p9", "p10", "p11", "p12", "p13", "p14", "p15"
#else
#define COIR__CTX_CLOBBERS_SVE
#endif
#define COIR__CTX_CLOBBERS \
  "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15", "x16", "x17", "x18", "x30", \
      "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15", "v16", \
      "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29", "v30", "v31", \
      "cc", "memory" COIR__CTX_CLOBBERS_SVE

static inline void *coir__ctx_switch(void **save, void *to, void *arg) {
  register void *x0 __asm__("x0") = save;
  register void *x1 __asm__("x1") = to;
  register void *x2 __asm__("x2") = arg;
  __asm__ volatile(COIR__CTX_LEAVE("coir__ctx_swap") : "+r"(x0), "+r"(x1), "+r"(x2) : : "x3", COIR__CTX_CLOBBERS);
  return x0;
}

static inline void *coir__ctx_start(void **save, void *top, void (*entry)(void *arg), void *arg) {
  register void *x0 __asm__("x0") = save;
  register void *x1 __asm__("x1") = top;
  register void *x2 __asm__("x2") = (void *)entry;
  register void *x3 __asm__("x3") = arg;
  __asm__ volatile(COIR__CTX_LEAVE("coir__ctx_launch")
                   : "+r"(x0), "+r"(x1), "+r"(x2), "+r"(x3)
                   :
                   : COIR__CTX_CLOBBERS);
  return x0;
}

#endif

#endif
