/* Switching between stacks with ucontext, where no assembly exists or none is wanted.
 *
 * A context is a struct stopped in the frame of the function that stopped. The argument of a switch is left in the
 * record of the stack that is continued, so nothing is shared between threads. Each switch makes a system call, for the
 * signal mask, which here belongs to the stack and not to the thread. */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* names of registers */
#endif
#include <ucontext.h>

#include "ctx.h"

/* makecontext wants to know a size, and only uses where the stack ends. */
#define NOMINAL_BYTES 4096

struct stopped {
  ucontext_t context;
  void *arg; /* what the switch back brings */
};

void *coir__ctx_switch(void **save, void *to, void *arg) {
  struct stopped self, *other = to;
  *save = &self;
  other->arg = arg;
  swapcontext(&self.context, &other->context);
  return self.arg;
}

/* As the assembly has it: a fresh stack begins with the C environment's default rounding and exceptions. fesetenv would
 * need the mathematical library. */
static void control_default(void) {
#if defined(__x86_64__)
  static const uint32_t mxcsr = 0x1f80;
  static const uint16_t x87 = 0x037f;
  __asm__ volatile("ldmxcsr %0\n\tfldcw %1" : : "m"(mxcsr), "m"(x87));
#elif defined(__aarch64__)
  __asm__ volatile("msr fpcr, xzr");
#elif defined(__riscv)
  __asm__ volatile("fscsr zero");
#endif
}

/* The outermost function of every fresh stack. makecontext hands on ints only, so the pointers come in halves. They
 * come in registers: coir__ctx_restart may build a stack over the very frames that it is called from. */
static void bottom(unsigned entry_low, unsigned entry_high, unsigned arg_low, unsigned arg_high) {
  uint64_t entry = (uint64_t)entry_high << 32 | entry_low, arg = (uint64_t)arg_high << 32 | arg_low;
  control_default();
  ((void (*)(void *))(uintptr_t)entry)((void *)(uintptr_t)arg);
  __builtin_trap();
}

static void prepare(ucontext_t *context, void *top, void (*entry)(void *arg), void *arg) {
  uint64_t e = (uintptr_t)entry, a = (uintptr_t)arg;
  getcontext(context);
  context->uc_stack.ss_sp = (char *)top - NOMINAL_BYTES;
  context->uc_stack.ss_size = NOMINAL_BYTES;
  context->uc_link = NULL;
  makecontext(context, (void (*)(void))bottom, 4, (unsigned)e, (unsigned)(e >> 32), (unsigned)a, (unsigned)(a >> 32));
}

void *coir__ctx_start(void **save, void *top, void (*entry)(void *arg), void *arg) {
  struct stopped self;
  ucontext_t fresh;
  *save = &self;
  prepare(&fresh, top, entry, arg);
  swapcontext(&self.context, &fresh);
  return self.arg;
}

void coir__ctx_restart(void *top, void (*entry)(void *arg), void *arg) {
  ucontext_t fresh;
  prepare(&fresh, top, entry, arg);
  setcontext(&fresh);
  __builtin_trap();
}

/* swapcontext stores what its caller had, as if it returned there. */
bool coir__ctx_peek(const void *copy, size_t bytes, uintptr_t sp, struct coir__ctx_registers *out) {
  const struct stopped *other = copy;
  const mcontext_t *registers = &other->context.uc_mcontext;
  (void)sp, (void)registers, (void)out;
  if (bytes < sizeof *other) return false;
#if defined(__x86_64__)
  static const uint8_t kept[][2] = {{3, REG_RBX},  {6, REG_RBP},  {7, REG_RSP}, {12, REG_R12},
                                    {13, REG_R13}, {14, REG_R14}, {15, REG_R15}};
  for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) out->r[kept[i][0]] = (uintptr_t)registers->gregs[kept[i][1]];
  out->pc = (uintptr_t)registers->gregs[REG_RIP];
  return true;
#elif defined(__aarch64__)
  for (size_t i = 19; i <= 29; i++) out->r[i] = registers->regs[i];
  out->r[31] = registers->sp;
  /* Where swapcontext returns to. In the C library of GNU, from 2.32 on, it continues within itself first, and what it
   * returns to then is in x1. */
  bool is_within = registers->regs[30] - (uintptr_t)swapcontext < 1024;
  out->pc = registers->regs[is_within ? 1 : 30];
  return true;
#else
  return false;
#endif
}
