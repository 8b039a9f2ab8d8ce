/* What belongs to a fiber stays with it: its stack, its registers, errno, how it rounds; also when it goes on on
 * another thread. And a stack that is too small is told of. */
#include "gof_test.h"

#include <fenv.h>
#include <math.h>

static void waits(int i) {
  if (i % 7 == 3) gof_sleep_ms(1);
  else gof_yield();
}

/* Runs `n` fibers with their numbers from 1. */
static void run_many(gof_fn fn, int n) {
  for (intptr_t i = 1; i <= n; i++) go(fn, number(i));
  gof_run();
}

static int rounds_each(void) { return IS_SANITIZED ? 40 : 150; }

/* ---- Rounding ---------------------------------------------------------------------------------------------------- */

static volatile double one = 1, three = 3;
static volatile long double long_one = 1, long_three = 3;
static const int modes[] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};

static void child_rounds_to_nearest(void *arg) {
  (void)arg;
  CHECK_EQ(fegetround(), FE_TONEAREST);
}

static void keeps_rounding(void *arg) {
  int mode = modes[(intptr_t)arg % 4];
  CHECK_EQ(fegetround(), FE_TONEAREST);
  CHECK_EQ(fesetround(mode), 0);
  double third = one / three;
  long double long_third = long_one / long_three;
  for (int i = 0; i < rounds_each(); i++) {
    if (i % 16 == 0) go(child_rounds_to_nearest, NULL);
    waits(i);
    CHECK_EQ(fegetround(), mode);
    CHECK(one / three == third && long_one / long_three == long_third);
  }
}

static void check_rounding(void) {
  run_many(keeps_rounding, 16);
  CHECK_EQ(fegetround(), FE_TONEAREST);
  CHECK_EQ(fesetround(FE_DOWNWARD), 0);
  run_many(child_rounds_to_nearest, 4);
  CHECK_EQ(fegetround(), FE_DOWNWARD);
}

static void rounding_is_per_fiber(void) { check_rounding(); }

static void rounding_is_so_on_any_thread(void) {
  migrate();
  check_rounding();
}

/* ---- errno ------------------------------------------------------------------------------------------------------- */

static void keeps_errno(void *arg) {
  int mine = 1000 + (int)(intptr_t)arg;
  CHECK_EQ(errno, 0);
  errno = mine;
  for (int i = 0; i < rounds_each(); i++) {
    waits(i);
    CHECK_EQ(errno, mine);
  }
}

/* In one function, as programs have it: compilers keep what errno's address was as long as they may. */
static void fails_in_a_loop(void *arg) {
  bool odd = (intptr_t)arg % 2;
  for (int i = 0; i < rounds_each(); i++) {
    errno = 0;
    int rc = odd ? close(-1) : kill(1, 12345);
    CHECK_EQ(rc, -1);
    CHECK_EQ(errno, odd ? EBADF : EINVAL);
    waits(i);
    CHECK_EQ(errno, odd ? EBADF : EINVAL);
  }
}

/* The same with calls of this interface, of which some wait before they fail. */
static void fails_by_our_calls(void *arg) {
  gof_chan_t *closed = arg;
  char byte;
  for (int i = 0; i < rounds_each(); i++) {
    errno = 0;
    CHECK(gof_spawn(NULL, NULL, 0) == NULL);
    CHECK_EQ(errno, EINVAL);
    waits(i);
    errno = 0;
    CHECK_EQ(gof_chan_send(closed, NULL), -1);
    CHECK_EQ(errno, EPIPE);
    errno = 0;
    CHECK_EQ(gof_read(-1, &byte, 1), -1);
    CHECK_EQ(errno, EBADF);
    waits(i + 1);
    errno = 0;
    CHECK_EQ(gof_join_background(), -1);
    CHECK_EQ(errno, EDEADLK);
  }
}

static void fails_after_waiting(void *arg) {
  gof_chan_t *c = arg;
  errno = 0;
  CHECK_EQ(gof_chan_recv(c, NULL), -1);
  CHECK_EQ(errno, EPIPE);
  CHECK_EQ(gof_chan_recv(c, NULL), -1);
  CHECK_EQ(errno, EPIPE);
}

static void closes(void *chan) {
  gof_sleep_ms(2);
  gof_chan_close(chan);
}

static void check_errno(void) {
  errno = 77;
  run_many(keeps_errno, 12);
  run_many(fails_in_a_loop, 12);
  gof_chan_t *c = gof_chan_make(0);
  for (int i = 0; i < 12; i++) go(fails_after_waiting, c);
  go(closes, c);
  gof_run();
  for (int i = 0; i < 12; i++) go(fails_by_our_calls, c);
  gof_run();
  gof_chan_free(c);
}

static void errno_is_per_fiber(void) { check_errno(); }

static void errno_is_so_on_any_thread(void) {
  migrate();
  check_errno();
}

static void plain_threads_have_their_own(void) {
  errno = 5;
  CHECK_EQ(gof_chan_send(NULL, NULL), -1);
  CHECK_EQ(errno, EINVAL);
  CHECK(gof_errno_location() == __errno_location());
  errno = 6;
  CHECK_EQ(*__errno_location(), 6);
}

/* ---- Migration is real ------------------------------------------------------------------------------------------- */

static _Atomic(int) moves;

static void counts_moves(void *arg) {
  (void)arg;
  int was = coir_worker_index();
  for (int i = 0; i < 50; i++) {
    waits(i);
    int is = coir_worker_index();
    moves += is != was;
    was = is;
  }
}

static void fibers_do_move(void) {
  migrate();
  run_many(counts_moves, 8);
  CHECK(moves > 8 * 50 / 2);
}

/* ---- Stacks and registers ---------------------------------------------------------------------------------------- */

/* A frame with contents at each level; suspended at the bottom and on the way back. */
static int __attribute__((noinline)) dive(int depth, unsigned seed) {
  volatile unsigned char frame[512];
  for (size_t i = 0; i < sizeof frame; i++) frame[i] = (unsigned char)(seed * 31 + i + (unsigned)depth);
  if (depth % 32 == 0) gof_yield();
  int sum = depth ? dive(depth - 1, seed) : 0;
  if (depth % 32 == 16) gof_yield();
  for (size_t i = 0; i < sizeof frame; i++) CHECK_EQ(frame[i], (unsigned char)(seed * 31 + i + (unsigned)depth));
  return sum + 1;
}

static void dives(void *arg) {
  int depth = IS_SANITIZED ? 60 : 300; /* with its frame some 180 of 256 KiB */
  CHECK_EQ(dive(depth, (unsigned)(intptr_t)arg), depth + 1);
}

static void deep_stacks_keep_what_they_hold(void) { run_many(dives, 40); }

static void they_keep_it_on_any_thread(void) {
  migrate();
  run_many(dives, 40);
}

/* More values at a time than a machine has registers, integers and doubles, all changed and used in each round. */
static void juggles(void *arg) {
  uint64_t a = (uintptr_t)arg, b = a + 1, c = a + 2, d = a + 3, e = a + 4, f = a + 5, g = a + 6, h = a + 7;
  double p = (double)a, q = p + 1, r = p + 2, s = p + 3, t = p + 4, u = p + 5;
  const uint64_t base = a;
  int n = rounds_each();
  for (int i = 0; i < n; i++) {
    a += 1, b += 2, c += 3, d += 4, e += 5, f += 6, g += 7, h += 8;
    waits(i);
    p += 1, q += 2, r += 3, s += 4, t += 5, u += 6;
  }
  uint64_t k = (uint64_t)n;
  CHECK(a == base + k && b == base + 1 + 2 * k && c == base + 2 + 3 * k && d == base + 3 + 4 * k);
  CHECK(e == base + 4 + 5 * k && f == base + 5 + 6 * k && g == base + 6 + 7 * k && h == base + 7 + 8 * k);
  CHECK(p + q + r == 3 * (double)base + 3 + 6 * n && s + t + u == 3 * (double)base + 12 + 15 * n);
}

static void registers_are_kept(void) {
  migrate();
  run_many(juggles, 16);
}

static void is_aligned(void *arg) {
  _Alignas(64) char block[64];
  char text[64];
  CHECK_EQ((uintptr_t)__builtin_frame_address(0) % 16, 0);
  memset(block, (int)(intptr_t)arg, sizeof block);
  CHECK_EQ((uintptr_t)block % 64, 0);
  snprintf(text, sizeof text, "%.3f %s %Lg", 1.5, "text", (long double)0.25);
  CHECK(!strcmp(text, "1.500 text 0.25"));
  CHECK(sqrt((double)(intptr_t)arg * (double)(intptr_t)arg) == (double)(intptr_t)arg);
}

static void the_stack_is_aligned(void) { run_many(is_aligned, 50); }

static void jumps(void *arg) {
  jmp_buf back;
  volatile int n = 0;
  if (setjmp(back) < 20) {
    n++;
    gof_yield();
    longjmp(back, n);
  }
  CHECK_EQ(n, 20);
  (void)arg;
}

/* Jumps within one fiber; each has its own. */
static void jumps_stay_on_their_fiber(void) { run_many(jumps, 10); }

/* ---- Overflow ---------------------------------------------------------------------------------------------------- */

static int __attribute__((noinline)) recurse(int n) {
  volatile char frame[512];
  frame[0] = (char)n;
  return n == 0 ? 0 : recurse(n - 1) + frame[0];
}

static uint64_t own_id(void) { return coir_fiber_id(NULL); }

static void overflows_by_name(void *arg) {
  gof_set_name("greedy one");
  gof_yield();
  recurse(1 << 30);
  (void)arg;
}

static void overflows_without_name(void *arg) {
  CHECK_EQ(own_id(), 3);
  recurse(1 << 30);
  (void)arg;
}

static void idles(void *arg) {
  (void)arg;
  gof_sleep_ms(2000);
}

static void a_named_one_overflows(void) {
  go(idles, NULL);
  go(overflows_by_name, NULL);
  go(idles, NULL);
  gof_run();
}

static void a_nameless_one_overflows(void) {
  go(idles, NULL);
  go(idles, NULL);
  CHECK(gof_spawn(overflows_without_name, NULL, 1) != NULL);
  gof_run();
}

static void expect_overflow(void (*fn)(void), const char *name, const char *id) {
  static char report[1 << 16];
  int status = in_child_process(fn, report, sizeof report);
  CHECK(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGSEGV || WTERMSIG(status) == SIGABRT);
  char *line = strstr(report, "overflow");
  CHECK(line != NULL);
  while (line > report && line[-1] != '\n') line--;
  *strchr(line, '\n') = 0;
  CHECK(strstr(line, name) && strstr(line, id));
}

static void overflow_of_a_named_fiber(void) { expect_overflow(a_named_one_overflows, "greedy one", " 2 "); }

static void overflow_of_a_small_stack(void) { expect_overflow(a_nameless_one_overflows, "", " 3 "); }

static void overflow_on_another_thread(void) {
  migrate();
  expect_overflow(a_named_one_overflows, "greedy one", " 2 ");
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(rounding_is_per_fiber),
      CASE(rounding_is_so_on_any_thread),
      CASE(errno_is_per_fiber),
      CASE(errno_is_so_on_any_thread),
      CASE(plain_threads_have_their_own),
      CASE(fibers_do_move),
      CASE(deep_stacks_keep_what_they_hold),
      CASE(they_keep_it_on_any_thread),
      CASE(registers_are_kept),
      CASE(the_stack_is_aligned),
      CASE(jumps_stay_on_their_fiber),
      CASE(overflow_of_a_named_fiber),
      CASE(overflow_of_a_small_stack),
      CASE(overflow_on_another_thread),
  };
  return RUN_CASES(argc, argv, cases);
}
