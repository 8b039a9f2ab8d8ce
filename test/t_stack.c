/* Stacks: classes, reuse, colours, bounds, guards, what goes back to the system, and the reports of overflows. A
 * runtime and its workers are faked: only the fields that stack.c looks at are set. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "internal.h"

#define CACHE 64
#define WORKERS 4
#define MANY 20000
#ifdef COIR_HARD
#define DEPOT_WARM_MAX 512 /* for a while */
#else
#define DEPOT_WARM_MAX 8192
#endif
#define DEPOT_WARM 512 /* 2 * CACHE * WORKERS: what the depot keeps committed */

static struct coir_runtime *rt;
static struct coir__worker *workers[WORKERS];
static _Atomic(int64_t) allocated; /* bytes that the runtime holds through its allocator */
static bool alloc_fails;

static void *count_alloc(size_t bytes, void *arg) {
  (void)arg;
  if (alloc_fails) return NULL;
  atm_add_rlx(&allocated, (int64_t)bytes);
  return malloc(bytes);
}

static void count_free(void *memory, size_t bytes, void *arg) {
  (void)arg;
  atm_add_rlx(&allocated, -(int64_t)bytes);
  free(memory);
}

static void *zeroed(size_t bytes) {
  void *p = aligned_alloc(COIR__LINE, (bytes + COIR__LINE - 1) & ~(size_t)(COIR__LINE - 1));
  assert_non_null(p);
  return memset(p, 0, bytes);
}

static void start(enum coir_guard guard, int guards_max) {
  atm_store_rlx(&allocated, 0);
  rt = zeroed(sizeof *rt);
  rt->config.guard = guard;
  rt->config.guards_max = guards_max;
  rt->config.stack_cache_max = CACHE;
  rt->config.stack_keep_bytes = 65536;
  rt->config.alloc = count_alloc;
  rt->config.free = count_free;
  rt->worker_count = WORKERS;
  rt->workers = workers;
  for (int i = 0; i < WORKERS; i++) {
    workers[i] = zeroed(sizeof *workers[i]);
    workers[i]->rt = rt;
  }
  assert_int_equal(coir__depot_create(rt), 0);
}

static void stop(void) {
  coir__depot_destroy(rt);
  assert_null(rt->depot);
  coir__depot_destroy(rt); /* nothing is left to do */
  assert_int_equal(atm_load_rlx(&allocated), 0);
  for (int i = 0; i < WORKERS; i++) free(workers[i]);
  free(rt);
}

static struct coir__stack *take(int size_class) {
  struct coir__stack *s = coir__stack_take(workers[0], size_class);
  assert_non_null(s);
  return s;
}

static void give(struct coir__stack *s) { coir__stack_give(workers[0], s); }

static struct coir_stats stats(void) {
  struct coir_stats out;
  memset(&out, 0, sizeof out);
  coir__stack_stats(rt, &out);
  return out;
}

static void take_many(struct coir__stack **out, int count, int size_class) {
  for (int i = 0; i < count; i++) out[i] = take(size_class);
}

static void give_many(struct coir__stack **stacks, int count) {
  for (int i = 0; i < count; i++) give(stacks[i]);
}

/* Committed pages of a stack. */
static size_t resident(const struct coir__stack *s) {
  static unsigned char pages[65536];
  size_t count = s->bytes / coir__os_page(), n = 0;
  assert_in_range(count, 1, sizeof pages);
  assert_int_equal(mincore(s->low, s->bytes, pages), 0);
  for (size_t i = 0; i < count; i++) n += pages[i] & 1;
  return n;
}

static int mappings(void) {
  FILE *f = fopen("/proc/self/maps", "r");
  int n = 0;
  assert_non_null(f);
  for (int c; (c = fgetc(f)) != EOF;) n += c == '\n';
  fclose(f);
  return n;
}

static bool guards_by_madvise(void) {
  start(COIR_GUARD_MADVISE, 16);
  bool works = coir__stack_guard(rt) == COIR_GUARD_MADVISE;
  stop();
  return works;
}

/* ---- Classes, pools -------------------------------------------------------------------------------------------- */

static void classes(void **state) {
  (void)state;
  size_t page = coir__os_page();
  assert_int_equal(coir__stack_class(0), -EINVAL);
  assert_int_equal(coir__stack_class(COIR__STACK_MIN - 1), -EINVAL);
  assert_int_equal(coir__stack_class(COIR__STACK_MAX + 1), -EINVAL);
  assert_int_equal(coir__stack_class(SIZE_MAX), -EINVAL);
  assert_int_equal(coir__stack_class(16384), 0);
  assert_int_equal(coir__stack_class(16385), 1);
  assert_int_equal(coir__stack_class(262144), 4);
  assert_int_equal(coir__stack_class(COIR__STACK_MAX), 16);
  start(COIR_GUARD_AUTO, 16384);
  for (int i = 0; i <= 16; i++) {
    struct coir__stack *s = take(i);
    assert_true(s->bytes >= COIR__STACK_MIN << i && s->bytes % page == 0);
    assert_int_equal(s->bytes, coir__stack_class_bytes(i));
    assert_int_equal((uintptr_t)s->top % 64, 0);
    assert_in_range(s->low + s->bytes - s->top, 0, 960);
    memset(s->top - 1024, 1, 1024);
    s->low[0] = 1;
    give(s);
  }
  assert_int_equal(stats().stacks_live, 0);
  assert_int_equal(stats().stacks_cached, 17);
  stop();
}

static void reuses_the_hottest(void **state) {
  (void)state;
  start(COIR_GUARD_AUTO, 16384);
  struct coir__stack *a = take(0), *b = take(0), *c = take(0), *other = take(1);
  assert_true(a != b && b != c && a != c);
  char *top = b->top;
  give(a), give(c), give(b), give(other);
  assert_ptr_equal(take(0), b);
  assert_ptr_equal(b->top, top); /* and its lines that are in the cache */
  assert_ptr_equal(take(0), c);
  assert_ptr_equal(take(0), a);
  assert_ptr_equal(take(1), other);
  a->fiber = (struct coir_fiber *)rt; /* any pointer */
  give(a);
  assert_null(a->fiber);
  stop();
}

static void colours_differ(void **state) {
  (void)state;
  struct coir__stack *stacks[16];
  unsigned seen = 0;
  start(COIR_GUARD_AUTO, 16384);
  take_many(stacks, 16, 4);
  for (int i = 0; i < 16; i++) seen |= 1u << (stacks[i]->low + stacks[i]->bytes - stacks[i]->top) / 64;
  assert_int_equal(seen, 0xffff);
  /* One page is all that a shallow fiber touches, whatever its colour. */
  for (int i = 0; i < 16; i++) {
    memset(stacks[i]->top - 512, 1, 512);
    assert_int_equal(resident(stacks[i]), 1);
  }
  stop();
}

static void stacks_do_not_overlap(void **state) {
  (void)state;
  static struct coir__stack *stacks[300];
  start(COIR_GUARD_AUTO, 16384);
  take_many(stacks, 300, 0);
  for (int i = 0; i < 300; i++) memset(stacks[i]->low, i, stacks[i]->bytes);
  for (int i = 0; i < 300; i++) {
    for (size_t k = 0; k < stacks[i]->bytes; k += 64) assert_int_equal((unsigned char)stacks[i]->low[k], i & 255);
  }
  stop();
}

static void bounds(void **state) {
  (void)state;
  static struct coir__stack *stacks[2000];
  start(COIR_GUARD_AUTO, 16384);
  take_many(stacks, 2000, 0);
  assert_int_equal(stats().stacks_live, 2000);
  assert_int_equal(stats().stacks_cached, 0);
  uint64_t reserved = stats().stack_bytes_reserved;
  assert_true(reserved >= 2000 * 16384);
  for (int i = 0; i < 2000; i++) {
    give(stacks[i]);
    assert_in_range(atm_load_rlx(&workers[0]->stacks[0].count), 1, CACHE);
    assert_int_equal(stats().stacks_live, 1999 - i);
    assert_int_equal(stats().stacks_cached, 1 + i);
  }
  coir__stack_flush(workers[0]);
  assert_int_equal(atm_load_rlx(&workers[0]->stacks[0].count), 0);
  assert_null(workers[0]->stacks[0].hot);
  assert_int_equal(stats().stacks_cached, 2000);
  coir__stack_flush(workers[0]);
  /* Another worker gets the same ones, each once. */
  for (int i = 0; i < 2000; i++) {
    struct coir__stack *s = coir__stack_take(workers[1], 0);
    assert_null(s->fiber);
    s->fiber = (struct coir_fiber *)rt;
  }
  assert_int_equal(stats().stacks_live, 2000);
  assert_int_equal(stats().stack_bytes_reserved, reserved);
  stop();
}

/* The steady state: what a pool holds comes and goes without the depot. */
static void steady_state_stays_in_the_pool(void **state) {
  (void)state;
  struct coir__stack *stacks[CACHE];
  start(COIR_GUARD_AUTO, 16384);
  take_many(stacks, CACHE, 0);
  give_many(stacks, CACHE);
  for (int round = 0; round < 100; round++) {
    take_many(stacks, CACHE, 0);
    assert_null(workers[0]->stacks[0].hot);
    give_many(stacks, CACHE);
    assert_int_equal(atm_load_rlx(&workers[0]->stacks[0].count), CACHE);
  }
  stop();
}

static void memory_short(void **state) {
  (void)state;
  start(COIR_GUARD_AUTO, 16384);
  alloc_fails = true;
  assert_null(coir__stack_take(workers[0], 0));
  alloc_fails = false;
  give(take(0));
  /* Where address space is limited, regions become small, and then there is none. */
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    struct rlimit limit = {(rlim_t)1 << 30, (rlim_t)1 << 30};
#ifndef COIR_SANITIZED
    setrlimit(RLIMIT_AS, &limit);
#else
    (void)limit;
    _exit(0);
#endif
    int n = 0;
    while (n < 100 && coir__stack_take(workers[0], coir__stack_class((size_t)64 << 20))) n++;
    _exit(n < 4 || (n > 16 && n != 100)); /* 100: an emulator, which knows no limits */
  }
  int status;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_int_equal(status, 0);
  stop();
}

static void used(void **state) {
  (void)state;
  start(COIR_GUARD_AUTO, 16384);
  struct coir__stack *s = take(0);
  assert_int_equal(coir__stack_used(s, s->top - 1000), 1000);
  assert_int_equal(coir__stack_used(s, s->top), 0);
  assert_int_equal(coir__stack_used(s, NULL), 0);
  assert_int_equal(coir__stack_used(s, s->low - 1), 0);
  coir__stack_check(s, s->top - 1000);
  stop();
}

/* ---- Guards ---------------------------------------------------------------------------------------------------- */

static struct coir__stack *many[MANY];

static void many_in_mode(enum coir_guard asked, enum coir_guard expected, int guards_max, uint64_t unguarded) {
  start(asked, guards_max);
  assert_int_equal(coir__stack_guard(rt), expected);
  assert_int_equal(stats().guard, expected);
  int before = mappings();
  take_many(many, MANY, 0);
  assert_int_equal(stats().stacks_unguarded, unguarded);
  uint64_t counted = 0;
  for (int i = 0; i < MANY; i++) counted += !many[i]->is_guarded;
  assert_int_equal(counted, unguarded);
  assert_in_range(mappings() - before, 0, 64 + (MANY - unguarded) * (expected == COIR_GUARD_MADVISE ? 0 : 2));
  give_many(many, MANY);
  assert_int_equal(stats().stacks_unguarded, unguarded);
  stop();
  assert_in_range(mappings(), 0, before + 32);
}

static void many_guarded_by_madvise(void **state) {
  (void)state;
  if (!guards_by_madvise()) skip();
  many_in_mode(COIR_GUARD_AUTO, COIR_GUARD_MADVISE, 16384, 0);
  many_in_mode(COIR_GUARD_MADVISE, COIR_GUARD_MADVISE, 16384, 0);
}

static void many_guarded_by_mprotect(void **state) {
  (void)state;
  many_in_mode(COIR_GUARD_MPROTECT, COIR_GUARD_MPROTECT, 16384, MANY - 16384);
  /* The runtime before has given its guards back. */
  many_in_mode(COIR_GUARD_MPROTECT, COIR_GUARD_MPROTECT, 16384, MANY - 16384);
  many_in_mode(COIR_GUARD_MPROTECT, COIR_GUARD_MPROTECT, 100, MANY - 100);
}

static void many_with_canaries(void **state) {
  (void)state;
  many_in_mode(COIR_GUARD_CANARY, COIR_GUARD_CANARY, 16384, MANY);
}

/* A guard that is asked for and does not exist here is no error. */
static void guards_fall_back(void **state) {
  (void)state;
  enum coir_guard expected = guards_by_madvise() ? COIR_GUARD_MADVISE : COIR_GUARD_MPROTECT;
  start(COIR_GUARD_MADVISE, 16);
  assert_int_equal(coir__stack_guard(rt), expected);
  assert_true(take(0)->is_guarded);
  stop();
}

/* A canary survives that its stack was cut back or discarded meanwhile. */
static void canaries_are_renewed(void **state) {
  (void)state;
  start(COIR_GUARD_CANARY, 16384);
  for (int round = 0; round < 3; round++) {
    take_many(many, 2000, 4);
    for (int i = 0; i < 2000; i++) {
      coir__stack_check(many[i], many[i]->top - 64);
      memset(many[i]->top - 512, 1, 512);
    }
    give_many(many, 2000);
    coir__stack_flush(workers[0]);
  }
  stop();
}

/* ---- What goes back -------------------------------------------------------------------------------------------- */

static size_t resident_in_all(struct coir__stack **stacks, int count) {
  size_t pages = 0;
  for (int i = 0; i < count; i++) pages += resident(stacks[i]);
  return pages;
}

static void bursts_go_back(void **state) {
  (void)state;
  enum { BURST = 3000, DEEP = 32768 };
  size_t page = coir__os_page();
  int64_t now = 0;
  start(COIR_GUARD_AUTO, 16384);
  for (int round = 0; round < 3; round++) {
    take_many(many, BURST, 4);
    for (int i = 0; i < BURST; i++) memset(many[i]->top - DEEP, 1, DEEP);
    assert_true(resident_in_all(many, BURST) >= BURST * DEEP / page);
    give_many(many, BURST);
    /* All wait for the next burst, for a while. Then the depot and the pools keep some; the rest has nothing left. */
    if (BURST < DEPOT_WARM_MAX) assert_true(resident_in_all(many, BURST) >= BURST * DEEP / page);
    for (int i = 0; i < BURST; i++) coir__stack_cool(workers[0]->rt, now += COIR_MS(100));
    assert_in_range(resident_in_all(many, BURST), 1, (DEPOT_WARM + CACHE) * (DEEP / page + 1));
  }
  stop();
}

/* The bound is on what may stay, not on each stack at once: deep ones in the pool stay there, warm, until they leave
 * it. */
static void there_is_a_bound_for_what_waits(void **state) {
  (void)state;
  enum { BURST = MANY };
  start(COIR_GUARD_AUTO, 16384);
  take_many(many, BURST, 4);
  for (int i = 0; i < BURST; i++) memset(many[i]->top - 64, 1, 64);
  give_many(many, BURST);
  assert_in_range(resident_in_all(many, BURST), DEPOT_WARM_MAX / 2, DEPOT_WARM_MAX + CACHE * WORKERS);
  stop();
}

static void deep_stacks_are_cut_back(void **state) {
  (void)state;
  enum { COUNT = 200 };
  size_t keep_pages = 65536 / coir__os_page();
  start(COIR_GUARD_AUTO, 16384);
  take_many(many, COUNT, 4);
  for (int i = 0; i < COUNT; i++) memset(many[i]->low, 1, many[i]->bytes);
  give_many(many, COUNT);
  int deep = 0;
  for (int i = 0; i < COUNT; i++) deep += resident(many[i]) > keep_pages;
  assert_in_range(deep, 0, CACHE);
  coir__stack_flush(workers[0]);
  for (int i = 0; i < COUNT; i++) assert_in_range(resident(many[i]), 0, keep_pages);
  stop();
}

/* Their high ends, within the keep line, are still what they were: the next fibers find them committed. */
static void shallow_stacks_stay_warm(void **state) {
  (void)state;
  start(COIR_GUARD_AUTO, 16384);
  take_many(many, 100, 4);
  for (int i = 0; i < 100; i++) memset(many[i]->top - 1536, 7, 1536);
  give_many(many, 100);
  coir__stack_flush(workers[0]);
  for (int i = 0; i < 100; i++) {
    struct coir__stack *s = take(4);
    assert_int_equal(resident(s), 1);
#ifdef COIR_HARD
    assert_int_equal((uint8_t)s->low[s->bytes - 1024], 0xd5); /* overwritten when it was given */
#else
    assert_int_equal(s->low[s->bytes - 1024], 7);
#endif
  }
  stop();
}

/* ---- Overflows ------------------------------------------------------------------------------------------------- */

/* Runs fn in a child that has its standard error in `report`, and returns how it ended. */
static int in_child(void (*fn)(void), char *report, size_t bytes) {
  int pipes[2];
  assert_int_equal(pipe(pipes), 0);
  fflush(NULL);
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    /* cmocka's own handlers would turn the signal into a failed test. */
    const int fatal[] = {SIGSEGV, SIGBUS, SIGABRT};
    for (int i = 0; i < 3; i++) signal(fatal[i], SIG_DFL);
    dup2(pipes[1], 2);
    fn();
    _exit(0);
  }
  close(pipes[1]);
  size_t used_bytes = 0;
  for (ssize_t n; (n = read(pipes[0], report + used_bytes, bytes - 1 - used_bytes)) > 0;) used_bytes += (size_t)n;
  report[used_bytes] = '\0';
  close(pipes[0]);
  int status;
  assert_int_equal(waitpid(child, &status, 0), child);
  return status;
}

static int fiber_entry(void *arg) {
  (void)arg;
  return 0;
}

static struct coir_fiber *fake_fiber(struct coir__stack *s, uint64_t id, const char *name) {
  struct coir_fiber *f = zeroed(sizeof *f);
  f->id = id;
  f->entry = fiber_entry;
  f->stack = s;
  snprintf(f->name, sizeof f->name, "%s", name);
  f->b.flags |= COIR__FIBER_NAMED;
  s->fiber = f;
  return f;
}

static void expect_report(const char *report, const struct coir__stack *s, const char *who) {
  char expected[256];
  snprintf(expected, sizeof expected, "coir: stack overflow in fiber %s (entry %p, stack %zu bytes): ", who,
           (void *)(uintptr_t)fiber_entry, s->bytes);
  if (!strstr(report, expected) || !strstr(report, "stack_bytes\n")) {
    print_error("expected: %s...\nreported: %s\n", expected, report);
    fail();
  }
}

static struct coir__stack *victim;

static int __attribute__((noinline)) recurse(int n) {
  volatile char frame[512];
  frame[0] = (char)n;
  return n == 0 ? 0 : recurse(n - 1) + frame[0];
}

static void overflow_entry(void *arg) {
  recurse(1 << 30);
  (void)arg;
}

static void arm_or_die(void) {
  struct coir__thread *t = coir__thread_get();
  void *memory = coir__alt_stack_make();
  if (!t || !memory) _exit(9);
  coir__overflow_arm_thread(t, memory);
}

static void overflow_by_recursion(void) {
  void *home;
  arm_or_die();
  coir__ctx_start(&home, victim->top, overflow_entry, NULL);
}

static void overflow_is_reported(enum coir_guard guard) {
  char report[4096];
  start(guard, 16384);
  take_many(many, 40, 2); /* of more than one region */
  victim = many[37];
  struct coir_fiber *f = fake_fiber(victim, 7, "greedy"), *other = fake_fiber(many[38], 8, "other");
  int status = in_child(overflow_by_recursion, report, sizeof report);
  assert_true(WIFSIGNALED(status));
  assert_int_equal(WTERMSIG(status), SIGSEGV);
  expect_report(report, victim, "7 \"greedy\"");
  free(f);
  free(other);
  stop();
}

static void overflow_is_reported_by_name(void **state) {
  (void)state;
  overflow_is_reported(COIR_GUARD_AUTO);
  overflow_is_reported(COIR_GUARD_MPROTECT);
}

/* The guard is there again for every fiber that uses the stack, also after everything was discarded. */
static void guards_survive_reuse(void **state) {
  (void)state;
  char report[4096];
  start(COIR_GUARD_AUTO, 16384);
  take_many(many, 3000, 0);
  for (int i = 0; i < 3000; i++) memset(many[i]->low, 1, many[i]->bytes);
  give_many(many, 3000);
  coir__stack_flush(workers[0]);
  take_many(many, 3000, 0);
  for (int i = 0; i < 3000; i += 1499) {
    victim = many[i];
    struct coir_fiber *f = fake_fiber(victim, 99, "");
    int status = in_child(overflow_by_recursion, report, sizeof report);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    expect_report(report, victim, "99 \"\"");
    victim->fiber = NULL;
    free(f);
  }
  stop();
}

static void overflow_of_somebody_else(void) {
  arm_or_die();
  coir__thread_get()->worker = workers[0];
  workers[0]->current = many[0]->fiber; /* runs there, and hits the guard of another */
  *(volatile char *)(victim->low - 1) = 1;
}

static volatile char *volatile nowhere;

static void plain_fault(void) {
  arm_or_die();
  *nowhere = 1;
}

static void stray_faults_are_not_reported(void **state) {
  (void)state;
#ifdef COIR_SANITIZED
  skip(); /* the sanitizer's handler takes them */
#endif
  char report[4096];
  start(COIR_GUARD_AUTO, 16384);
  take_many(many, 2, 0);
  struct coir_fiber *a = fake_fiber(many[0], 1, "a"), *b = fake_fiber(many[1], 2, "b");
  victim = many[1];
  int status = in_child(overflow_of_somebody_else, report, sizeof report);
  assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
  assert_null(strstr(report, "coir:"));
  status = in_child(plain_fault, report, sizeof report);
  assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
  assert_null(strstr(report, "coir:"));
  free(a);
  free(b);
  stop();
}

static void handler_before(int signal_number) {
  static const char text[] = "handler of the program\n";
  if (write(2, text, sizeof text - 1) < 0) _exit(8);
  _exit(signal_number == SIGSEGV ? 42 : 43);
}

static void fault_with_handler(void) {
  signal(SIGSEGV, handler_before);
  plain_fault();
}

static void sent_signal(void) {
  arm_or_die();
  raise(SIGSEGV);
  _exit(5);
}

static void ignored_signal(void) {
  signal(SIGSEGV, SIG_IGN);
  arm_or_die();
  raise(SIGSEGV);
  _exit(6);
}

static void other_signals_go_to_the_handler_before(void **state) {
  (void)state;
  char report[4096];
#ifdef COIR_SANITIZED
  skip();
#endif
  start(COIR_GUARD_AUTO, 16384);
  int status = in_child(fault_with_handler, report, sizeof report);
  assert_true(WIFEXITED(status));
  assert_int_equal(WEXITSTATUS(status), 42);
  assert_string_equal(report, "handler of the program\n");
  status = in_child(sent_signal, report, sizeof report);
  assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
  status = in_child(ignored_signal, report, sizeof report);
  assert_true(WIFEXITED(status));
  assert_int_equal(WEXITSTATUS(status), 6);
  stop();
}

static void break_canary(void) {
  memset(victim->low + 8, 0, 8);
  coir__stack_check(victim, victim->top - 64);
}

static void stop_too_deep(void) { coir__stack_check(victim, victim->low + 16); }
static void stop_below(void) { coir__stack_check(victim, victim->low - 1000); }

static void checks_find_overflows(void **state) {
  (void)state;
  void (*const cases[])(void) = {break_canary, stop_too_deep, stop_below};
  char report[4096];
  start(COIR_GUARD_CANARY, 16384);
  victim = take(0);
  struct coir_fiber *f = fake_fiber(victim, 12345678901234, "twenty-three characters");
  coir__stack_check(victim, victim->top - 64);
  coir__stack_check(victim, victim->low + 1024);
  coir__stack_check(victim, victim->low + ((size_t)1 << 30)); /* a stack that the program brought */
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    int status = in_child(cases[i], report, sizeof report);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
    expect_report(report, victim, "12345678901234 \"twenty-three characters\"");
  }
  free(f);
  stop();
}

static void arms_and_disarms(void **state) {
  (void)state;
#ifdef COIR_SANITIZED
  skip(); /* the sanitizer has an alternate stack of its own */
#endif
  stack_t now, mine = {.ss_sp = malloc(65536), .ss_size = 65536}, none = {.ss_flags = SS_DISABLE};
  struct coir__thread *t = coir__thread_get();
  for (int round = 0; round < 3; round++) {
    coir__overflow_arm_thread(t, coir__alt_stack_make());
    coir__overflow_arm_thread(t, coir__alt_stack_make());
    assert_int_equal(sigaltstack(NULL, &now), 0);
    assert_ptr_equal(now.ss_sp, t->alt_stack);
    assert_true(now.ss_size >= 32768 && !(now.ss_flags & SS_DISABLE));
    coir__overflow_disarm_thread(t);
    coir__overflow_disarm_thread(t);
    assert_int_equal(sigaltstack(NULL, &now), 0);
    assert_true(now.ss_flags & SS_DISABLE);
  }
  /* A program's own is left alone. */
  assert_int_equal(sigaltstack(&mine, NULL), 0);
  coir__overflow_arm_thread(t, coir__alt_stack_make());
  assert_null(t->alt_stack);
  coir__overflow_disarm_thread(t);
  assert_int_equal(sigaltstack(NULL, &now), 0);
  assert_ptr_equal(now.ss_sp, mine.ss_sp);
  sigaltstack(&none, NULL);
  free(mine.ss_sp);
}

/* ---- Several workers ------------------------------------------------------------------------------------------- */

static void *churn(void *arg) {
  struct coir__worker *w = arg;
  struct coir__stack *held[200] = {NULL};
  uint32_t random = w->index * 2654435761u + 1;
  for (int round = 0; round < 40000; round++) {
    random ^= random << 13, random ^= random >> 17, random ^= random << 5;
    struct coir__stack **slot = &held[random % 200];
    if (!*slot) {
      *slot = coir__stack_take(w, (int)(random >> 16 & 1));
      if (!*slot) return "no stack";
      memcpy((*slot)->top - 16, &slot, sizeof slot); /* nobody else has it */
      continue;
    }
    if (memcmp((*slot)->top - 16, &slot, sizeof slot) != 0) return "shared by two";
    coir__stack_give(w, *slot);
    *slot = NULL;
    if (random % 4096 == 0) coir__stack_flush(w);
    if (random % 512 == 0) stats();
  }
  for (int i = 0; i < 200; i++) {
    if (held[i]) coir__stack_give(w, held[i]);
  }
  coir__stack_flush(w);
  return NULL;
}

static void workers_share_the_depot(void **state) {
  (void)state;
  pthread_t threads[WORKERS];
  start(COIR_GUARD_AUTO, 16384);
  for (int i = 0; i < WORKERS; i++) {
    workers[i]->index = (uint32_t)i;
    assert_int_equal(pthread_create(&threads[i], NULL, churn, workers[i]), 0);
  }
  for (int i = 0; i < WORKERS; i++) {
    void *complaint;
    pthread_join(threads[i], &complaint);
    if (complaint) fail_msg("%s", (char *)complaint);
  }
  assert_int_equal(stats().stacks_live, 0);
  assert_in_range(stats().stacks_cached, 100, 200 * WORKERS);
  stop();
}

/* Descriptions of regions are used again: many runtimes one after the other take no more memory. */
static void runtimes_come_and_go(void **state) {
  (void)state;
  int before = 0;
  for (int round = 0; round < 200; round++) {
    start(COIR_GUARD_AUTO, 16384);
    for (int i = 0; i < 12; i++) give(take(i));
    stop();
    if (round == 20) before = mappings();
  }
  assert_in_range(mappings(), 0, before + 8);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(classes),
      cmocka_unit_test(reuses_the_hottest),
      cmocka_unit_test(colours_differ),
      cmocka_unit_test(stacks_do_not_overlap),
      cmocka_unit_test(bounds),
      cmocka_unit_test(steady_state_stays_in_the_pool),
      cmocka_unit_test(memory_short),
      cmocka_unit_test(used),
      cmocka_unit_test(many_guarded_by_madvise),
      cmocka_unit_test(many_guarded_by_mprotect),
      cmocka_unit_test(many_with_canaries),
      cmocka_unit_test(guards_fall_back),
      cmocka_unit_test(canaries_are_renewed),
      cmocka_unit_test(bursts_go_back),
      cmocka_unit_test(there_is_a_bound_for_what_waits),
      cmocka_unit_test(deep_stacks_are_cut_back),
      cmocka_unit_test(shallow_stacks_stay_warm),
      cmocka_unit_test(overflow_is_reported_by_name),
      cmocka_unit_test(guards_survive_reuse),
      cmocka_unit_test(stray_faults_are_not_reported),
      cmocka_unit_test(other_signals_go_to_the_handler_before),
      cmocka_unit_test(checks_find_overflows),
      cmocka_unit_test(arms_and_disarms),
      cmocka_unit_test(workers_share_the_depot),
      cmocka_unit_test(runtimes_come_and_go),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
