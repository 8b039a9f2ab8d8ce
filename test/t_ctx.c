/* Switching between stacks: order, arguments, registers, control words, alignment, and that unwinders find the end. */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* names of registers */
#endif
#include <execinfo.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <cmocka.h>

#include "ctx.h"

#define STACK_BYTES 131072

/* AddressSanitizer wants to be told of every switch, ThreadSanitizer too; the runtime does that, these tests do not. */
#ifdef COIR_SANITIZED
#define SKIP_IF_SANITIZED() skip()
#else
#define SKIP_IF_SANITIZED() ((void)0)
#endif

static _Alignas(64) char memory[2][STACK_BYTES];
static void *home, *away[2]; /* where the test stopped, where its two stacks stopped */

static char *top_of(int i) { return memory[i] + STACK_BYTES; }
static void *number(uintptr_t n) { return (void *)n; }

/* Goes to stack `i` and back. */
static uintptr_t visit(int i, uintptr_t n) { return (uintptr_t)coir__ctx_switch(&home, away[i], number(n)); }
static uintptr_t leave(int i, uintptr_t n) { return (uintptr_t)coir__ctx_switch(&away[i], home, number(n)); }

/* ---- Order ----------------------------------------------------------------------------------------------------- */

static char journal[64];
static void note(char c) { journal[strlen(journal)] = c; }

static void order_entry(void *arg) {
  char c = *(char *)arg;
  note(c);
  for (uintptr_t n = 10;; n++) {
    assert_int_equal(leave(c - 'a', n), n * 2);
    note(c);
  }
}

static void switches_in_order(void **state) {
  (void)state;
  memset(journal, 0, sizeof journal);
  assert_int_equal((uintptr_t)coir__ctx_start(&home, top_of(0), order_entry, "a"), 10);
  note('-');
  assert_int_equal((uintptr_t)coir__ctx_start(&home, top_of(1), order_entry, "b"), 10);
  assert_int_equal(visit(0, 20), 11);
  assert_int_equal(visit(1, 20), 11);
  assert_int_equal(visit(1, 22), 12);
  note('-');
  assert_int_equal(visit(0, 22), 12);
  assert_string_equal(journal, "a-babb-a");
}

/* From stack 0 straight to stack 1. */
static void second_entry(void *arg) {
  assert_int_equal((uintptr_t)arg, 7);
  coir__ctx_switch(&away[1], away[0], number(8));
  fail();
}

static void first_entry(void *arg) {
  (void)arg;
  uintptr_t got = (uintptr_t)coir__ctx_start(&away[0], top_of(1), second_entry, number(7));
  leave(0, got + 1);
}

static void stacks_start_stacks(void **state) {
  (void)state;
  assert_int_equal((uintptr_t)coir__ctx_start(&home, top_of(0), first_entry, NULL), 9);
}

/* ---- Restart --------------------------------------------------------------------------------------------------- */

static uintptr_t restarts;
static char *restart_low;

static void restart_entry(void *arg) {
  char here;
  assert_int_equal((uintptr_t)arg, restarts);
  if (!restart_low) restart_low = __builtin_frame_address(0);
  assert_ptr_equal(restart_low, __builtin_frame_address(0));
  memset(&here, 1, 1);
  if (++restarts == 1000) leave(0, restarts);
  coir__ctx_restart(top_of(0), restart_entry, number(restarts));
}

static void restarts_on_its_own_stack(void **state) {
  (void)state;
  restarts = 0;
  restart_low = NULL;
  assert_int_equal((uintptr_t)coir__ctx_start(&home, top_of(0), restart_entry, number(0)), 1000);
}

/* ---- Registers ------------------------------------------------------------------------------------------------- */

static void __attribute__((noinline)) spoil_registers(void) {
#if defined(__x86_64__)
  __asm__ volatile(
      "movq $-1, %%rbx\n\tmovq $-1, %%r12\n\tmovq $-1, %%r13\n\tmovq $-1, %%r14\n\tmovq $-1, %%r15" ::
          : "rbx", "r12", "r13", "r14", "r15");
#elif defined(__aarch64__)
  __asm__ volatile(
      "mov x19, #-1\n\tmov x20, #-1\n\tmov x21, #-1\n\tmov x22, #-1\n\tmov x23, #-1\n\tmov x24, #-1\n\tmov x25, #-1\n\t"
      "mov x26, #-1\n\tmov x27, #-1\n\tmov x28, #-1\n\tfmov d8, #1.0\n\tfmov d9, #1.0\n\tfmov d14, #1.0\n\t"
      "fmov d15, #1.0" ::
          : "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28", "d8", "d9", "d14", "d15");
#endif
}

/* Values that live across switches: more than there are registers to keep them in. */
static uintptr_t __attribute__((noinline)) mix(int i, uintptr_t seed, uintptr_t (*away_and_back)(int, uintptr_t)) {
  uintptr_t a = seed, b = seed * 3, c = seed * 5, d = seed * 7, e = seed * 11, f = seed * 13, g = seed * 17;
  double x = (double)seed, y = x * 2, z = x * 3;
  for (int k = 0; k < 100; k++) {
    away_and_back(i, (uintptr_t)k);
    a += b, b ^= c, c += d, d ^= e, e += f, f ^= g, g += a;
    x += 1, y += x, z -= y;
    spoil_registers();
  }
  return a ^ b ^ c ^ d ^ e ^ f ^ g ^ (uintptr_t)(int64_t)(x + y + z);
}

static uintptr_t stay(int i, uintptr_t n) {
  (void)i;
  return n;
}

static void register_entry(void *arg) {
  int i = (int)(uintptr_t)arg;
  uintptr_t mixed = mix(i, 1000 + (uintptr_t)i, leave);
  leave(i, mixed);
  leave(i, mixed);
}

static void keeps_registers(void **state) {
  (void)state;
  coir__ctx_start(&home, top_of(0), register_entry, number(0));
  coir__ctx_start(&home, top_of(1), register_entry, number(1));
  assert_int_equal(mix(0, 3, visit), mix(0, 3, stay));
  assert_int_equal(mix(1, 5, visit), mix(1, 5, stay));
  /* Each entry has gone there and back 100 times by now, and tells what it worked out. */
  assert_int_equal(visit(0, 0), mix(0, 1000, stay));
  assert_int_equal(visit(1, 0), mix(1, 1001, stay));
}

/* ---- Control words --------------------------------------------------------------------------------------------- */

struct control {
  uint32_t sse;
  uint32_t x87;
};

#if defined(__x86_64__)
static const struct control usual = {0x1f80, 0x037f}, upward = {0x5f80, 0x0b7f}, only_x87 = {0x1f80, 0x027f};
static struct control control_get(void) {
  struct control now = {0, 0};
  uint16_t x87;
  __asm__ volatile("stmxcsr %0\n\tfnstcw %1" : "=m"(now.sse), "=m"(x87));
  now.sse &= ~0x3fu;
  now.x87 = x87;
  return now;
}
static void control_set(struct control to) {
  uint16_t x87 = (uint16_t)to.x87;
  __asm__ volatile("ldmxcsr %0\n\tfldcw %1" : : "m"(to.sse), "m"(x87));
}
#elif defined(__aarch64__)
static const struct control usual = {0, 0}, upward = {1u << 22, 0}, only_x87 = {3u << 22, 0};
static struct control control_get(void) {
  uint64_t now;
  __asm__ volatile("mrs %0, fpcr" : "=r"(now));
  return (struct control){(uint32_t)now, 0};
}
static void control_set(struct control to) { __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)to.sse)); }
#else
static const struct control usual, upward, only_x87;
static struct control control_get(void) { return usual; }
static void control_set(struct control to) { (void)to; }
#endif

static bool control_is(struct control expected) {
  struct control now = control_get();
  return now.sse == expected.sse && now.x87 == expected.x87;
}

static void control_entry(void *arg) {
  int i = (int)(uintptr_t)arg;
  bool fine = control_is(usual);
  struct control mine = i ? only_x87 : upward;
  control_set(mine);
  for (int k = 0; k < 3; k++) {
    leave(i, fine);
    fine = fine && control_is(mine);
  }
  control_set(upward);
  coir__ctx_restart(top_of(i), control_entry, arg);
}

static void keeps_control_words(void **state) {
  (void)state;
  control_set(upward); /* does not get into a fresh stack */
  bool fine = coir__ctx_start(&home, top_of(0), control_entry, number(0)) && control_is(upward);
  control_set(usual);
  fine = coir__ctx_start(&home, top_of(1), control_entry, number(1)) && control_is(usual) && fine;
  for (int k = 0; k < 20; k++) {
    fine = visit(0, 0) && control_is(usual) && fine;
    fine = visit(1, 0) && control_is(usual) && fine;
  }
  assert_true(fine);
}

/* ---- Alignment ------------------------------------------------------------------------------------------------- */

static void __attribute__((noinline)) spill_aligned(void) {
  _Alignas(16) char spilled[16];
#if defined(__x86_64__)
  __asm__ volatile("movaps %%xmm0, %0" : "=m"(spilled));
#else
  __asm__ volatile("" : "=m"(spilled));
#endif
  assert_int_equal((uintptr_t)spilled % 16, 0);
}

#if defined(__x86_64__)
static void __attribute__((noinline, target("avx512f"))) spill_avx512(void) {
  _Alignas(64) char spilled[64];
  __asm__ volatile("vmovaps %%zmm0, %0" : "=m"(spilled));
}
#endif

static void aligned_entry(void *arg) {
  assert_int_equal((uintptr_t)__builtin_frame_address(0) % 16, 0);
  spill_aligned();
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) spill_avx512();
#endif
  leave(0, (uintptr_t)arg);
}

static void enters_aligned(void **state) {
  (void)state;
  /* Every colour that stack.c gives out, and every alignment that the contract allows. */
  for (uintptr_t less = 0; less < 1024; less += 16) {
    assert_int_equal((uintptr_t)coir__ctx_start(&home, top_of(0) - less, aligned_entry, number(less)), less);
  }
}

/* ---- Unwinding ------------------------------------------------------------------------------------------------- */

#define FRAMES 64

static bool is_inside(const void *p, int i) { return (const char *)p >= memory[i] && (const char *)p <= top_of(i); }

#ifndef COIR_CONTEXT_UCONTEXT
extern char coir__ctx_bottom[] __attribute__((visibility("hidden")));
static bool is_bottom(const void *pc) {
  return (const char *)pc > coir__ctx_bottom && (const char *)pc < coir__ctx_bottom + 64;
}
#endif

static void __attribute__((noinline)) unwind(int depth) {
  void *frames[FRAMES];
  if (depth > 0) {
    unwind(depth - 1);
    __asm__ volatile("" : : : "memory"); /* no tail call */
    return;
  }
  int n = backtrace(frames, FRAMES);
  assert_in_range(n, 3, FRAMES - 1);
#ifndef COIR_CONTEXT_UCONTEXT
  assert_true(is_bottom(frames[n - 1]));
#endif
}

static void unwind_entry(void *arg) {
#ifndef COIR_CONTEXT_UCONTEXT
  assert_null(*(void **)__builtin_frame_address(0));
#endif
  unwind(0);
  unwind(5);
  leave(0, (uintptr_t)arg);
  unwind(5); /* still, after it was stopped */
  leave(0, (uintptr_t)arg);
}

static void unwinding_ends_at_the_entry(void **state) {
  (void)state;
  SKIP_IF_SANITIZED();
  assert_int_equal((uintptr_t)coir__ctx_start(&home, top_of(0), unwind_entry, number(1)), 1);
  assert_int_equal(visit(0, 0), 1);
}

static void peeks_at_stopped_stacks(void **state) {
  (void)state;
  struct coir__ctx_registers r = {0};
  coir__ctx_start(&home, top_of(0), order_entry, "a");
  assert_true(is_inside(away[0], 0));
  uintptr_t sp = (uintptr_t)away[0], bytes = (uintptr_t)top_of(0) - sp;
  assert_true(coir__ctx_peek(away[0], bytes, sp, &r));
  uintptr_t near = r.pc - (uintptr_t)order_entry + 65536; /* the switch is inlined somewhere around it */
#ifdef COIR_CONTEXT_UCONTEXT
  near = 0;
#endif
  assert_true(near < 131072);
  assert_true(r.pc != 0);
  assert_true(is_inside((void *)r.r[COIR__CTX_SP], 0));
  r.pc = 1;
  assert_false(coir__ctx_peek(away[0], 32, sp, &r)); /* cut short */
  assert_int_equal(r.pc, 1);
}

/* Steps through switches one instruction at a time, and unwinds at each. */
#if defined(__x86_64__) && !defined(COIR_CONTEXT_UCONTEXT) && !defined(COIR_SANITIZED)
#define TRAP_FLAG 0x100
extern char coir__ctx_swap[] __attribute__((visibility("hidden"))); /* the first of the file, coir__ctx_peek the last */
static void *outermost;
static int steps, lost;

static void step_handler(int signal, siginfo_t *info, void *context) {
  void *frames[FRAMES];
  (void)signal, (void)info;
  const greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
  uintptr_t pc = (uintptr_t)registers[REG_RIP], sp = (uintptr_t)registers[REG_RSP];
  if (pc < (uintptr_t)coir__ctx_swap || pc >= (uintptr_t)coir__ctx_peek) return;
  int n = backtrace(frames, FRAMES);
  steps++;
  /* At the end of a fresh stack the entry has not begun yet, and there is nothing above. */
  bool is_start = sp == (uintptr_t)top_of(0) && n == 3;
  if (n >= FRAMES || (!is_start && frames[n - 1] != outermost && !is_bottom(frames[n - 1]))) lost++;
}

static inline __attribute__((always_inline)) void stepping(bool on) {
  uint64_t flags;
  __asm__ volatile("leaq -128(%%rsp), %%rsp\n\tpushfq\n\tpopq %0\n\tleaq 128(%%rsp), %%rsp" : "=r"(flags));
  flags = on ? flags | TRAP_FLAG : flags & ~(uint64_t)TRAP_FLAG;
  __asm__ volatile("leaq -128(%%rsp), %%rsp\n\tpushq %0\n\tpopfq\n\tleaq 128(%%rsp), %%rsp" : : "r"(flags) : "cc");
}

static void step_entry(void *arg) {
  leave(0, (uintptr_t)arg);
  control_set(upward);
  leave(0, (uintptr_t)arg);
  control_set(usual);
  coir__ctx_restart(top_of(0), step_entry, arg);
}

static void unwinds_at_every_instruction(void **state) {
  (void)state;
  void *frames[FRAMES];
  struct sigaction action = {.sa_sigaction = step_handler, .sa_flags = SA_SIGINFO}, before;
  int n = backtrace(frames, FRAMES);
  assert_in_range(n, 1, FRAMES - 1);
  outermost = frames[n - 1];
  steps = lost = 0;
  sigaction(SIGTRAP, &action, &before);
  stepping(true);
  coir__ctx_start(&home, top_of(0), step_entry, NULL);
  visit(0, 0); /* loads the control words */
  visit(0, 0); /* restarts, and does not */
  visit(0, 0);
  stepping(false);
  sigaction(SIGTRAP, &before, NULL);
  assert_true(steps > 100);
  assert_int_equal(lost, 0);
}
#else
static void unwinds_at_every_instruction(void **state) {
  (void)state;
  skip();
}
#endif

/* ---- Threads --------------------------------------------------------------------------------------------------- */

static void wander_entry(void *arg) {
  uintptr_t sum = (uintptr_t)arg;
  for (;;) sum += (uintptr_t)coir__ctx_switch(&away[0], home, number(sum));
}

static void *wander_thread(void *arg) {
  (void)arg;
  return number(visit(0, 5));
}

static void goes_on_on_another_thread(void **state) {
  (void)state;
  SKIP_IF_SANITIZED();
  assert_int_equal((uintptr_t)coir__ctx_start(&home, top_of(0), wander_entry, number(1)), 1);
  for (uintptr_t k = 0; k < 10; k++) {
    pthread_t thread;
    void *sum;
    assert_int_equal(pthread_create(&thread, NULL, wander_thread, NULL), 0);
    assert_int_equal(pthread_join(thread, &sum), 0);
    assert_int_equal((uintptr_t)sum, 6 + k * 10);
    assert_int_equal(visit(0, 5), 11 + k * 10);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(switches_in_order),
      cmocka_unit_test(stacks_start_stacks),
      cmocka_unit_test(restarts_on_its_own_stack),
      cmocka_unit_test(keeps_registers),
      cmocka_unit_test(keeps_control_words),
      cmocka_unit_test(enters_aligned),
      cmocka_unit_test(unwinding_ends_at_the_entry),
      cmocka_unit_test(peeks_at_stopped_stacks),
      cmocka_unit_test(unwinds_at_every_instruction),
      cmocka_unit_test(goes_on_on_another_thread),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
