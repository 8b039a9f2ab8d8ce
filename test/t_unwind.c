/* Unwinding from wherever code runs that Coir has called: it finds every frame, and stops at the first one.
 *
 * usage: t_unwind backtrace | libunwind     at each place, by backtrace(3), or by libunwind (77: built without it)
 *        t_unwind at PLACE                  only goes there, and calls stop_here(): for a debugger
 *        t_unwind spin                      computes at the end of the calls, for a while: for a profiler
 * check_unwind.py has gdb and perf do what the first two do. */
#include "processes.h"

#include <execinfo.h>

#include "coir_job.h"

#if defined(HAS_LIBUNWIND)
#define UNW_LOCAL_ONLY
#include <libunwind.h>
#endif

#define DEPTH 40
#define FRAMES_MAX 200
#define BOTTOM_MAX 5 /* frames of Coir's below the first function of the program; of a plain thread the system's */
#define IN(name) __attribute__((noinline, section(#name)))
#define KEEP() __asm__ volatile("" : : : "memory") /* behind a call: it is not the last thing to do */

extern const char __start_code_deep[], __stop_code_deep[], __start_code_first[], __stop_code_first[];

/* ---- Looking ----------------------------------------------------------------------------------------------------- */

static int (*unwind)(void **frames);
static _Atomic(int) looks;

static int by_backtrace(void **frames) { return backtrace(frames, FRAMES_MAX); }

#if defined(HAS_LIBUNWIND)
static int by_libunwind(void **frames) {
  unw_context_t context;
  unw_cursor_t cursor;
  unw_word_t pc;
  int n = 0, rc = 1;
  CHECK_EQ(unw_getcontext(&context), 0);
  CHECK_EQ(unw_init_local(&cursor, &context), 0);
  for (; n < FRAMES_MAX && rc > 0; rc = unw_step(&cursor)) {
    CHECK_EQ(unw_get_reg(&cursor, UNW_REG_IP, &pc), 0);
    frames[n++] = (void *)(uintptr_t)pc;
  }
  CHECK_EQ(rc, 0); /* the end, and no failure */
  return n;
}
#endif

static bool is_within(const void *pc, const char *low, const char *high) {
  return (const char *)pc > low && (const char *)pc <= high;
}

static void look(void) {
  void *frames[FRAMES_MAX];
  int n = unwind(frames), deep = 0, first = 0, below = 0;
  for (int i = 0; i < n; i++) {
    bool is_deep = is_within(frames[i], __start_code_deep, __stop_code_deep);
    if (is_deep) CHECK_EQ(first, 0);
    deep += is_deep;
    below += first;
    first += is_within(frames[i], __start_code_first, __stop_code_first);
  }
  CHECK_EQ(deep, DEPTH);
  CHECK_EQ(first, 1);
  CHECK(below >= 1 && below <= BOTTOM_MAX);
  looks++;
}

void stop_here(void); /* where a debugger does */
__attribute__((noinline)) void stop_here(void) { KEEP(); }

static void spin(void) {
  for (int64_t end = coir_now() + COIR_MS(300); coir_now() < end;) KEEP();
}

/* ---- Places ------------------------------------------------------------------------------------------------------ */

static void (*at_end)(void);
static bool by_signal;

static void handler(int signo) {
  (void)signo;
  at_end();
  KEEP();
}

/* Coir's threads block what is the program's. */
static void raise_it(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR2);
  CHECK_EQ(pthread_sigmask(SIG_UNBLOCK, &set, NULL), 0);
  CHECK_EQ(raise(SIGUSR2), 0);
}

IN(code_deep) void deep(int depth);
IN(code_deep) void deep(int depth) {
  if (depth > 1) deep(depth - 1);
  else if (by_signal) raise_it();
  else at_end();
  KEEP();
}

/* The first function of the program on each stack. */
IN(code_first) void calls_deep(void *arg);
IN(code_first) void calls_deep(void *arg) {
  (void)arg;
  deep(DEPTH);
  KEEP();
}

IN(code_first) int begins(void *arg);
IN(code_first) int begins(void *arg) {
  (void)arg;
  deep(DEPTH);
  KEEP();
  return 0;
}

IN(code_first) int begins_and_moves(void *arg);
IN(code_first) int begins_and_moves(void *arg) {
  (void)arg;
  for (int i = 0; i < 5; i++) {
    coir_yield();
    (void)coir_sleep(COIR_US(50));
    deep(DEPTH);
  }
  KEEP();
  return 0;
}

IN(code_first) void begins_job(struct coir_job *job, void *arg);
IN(code_first) void begins_job(struct coir_job *job, void *arg) {
  (void)job, (void)arg;
  deep(DEPTH);
  KEEP();
}

IN(code_first) int begins_and_blocks(void *arg);
IN(code_first) int begins_and_blocks(void *arg) {
  (void)arg;
  CHECK_EQ(coir_block_enter(), 0);
  deep(DEPTH);
  coir_block_leave();
  usleep(10000); /* its worker is taken away */
  deep(DEPTH);
  return 0;
}

IN(code_first) void *begins_thread(void *arg);
IN(code_first) void *begins_thread(void *arg) {
  deep(DEPTH);
  KEEP();
  return arg;
}

/* Several, one after the other: stacks are begun anew in place. */
static int fibers(void *arg) {
  coir_fn fn = *(coir_fn *)arg;
  struct coir_fiber *f[4];
  for (int i = 0; i < 4; i++) f[i] = spawn(fn, NULL);
  for (int i = 0; i < 4; i++) CHECK_EQ(join(f[i]), 0);
  return 0;
}

static void at_fiber(void) { CHECK_EQ(run(fibers, &(coir_fn){begins}), 0); }
static void at_moved(void) {
  CHECK_EQ(run_with((struct coir_config){.migrate = COIR_ON}, fibers, &(coir_fn){begins_and_moves}), 0);
}
static void at_away(void) { CHECK_EQ(run(fibers, &(coir_fn){begins_and_blocks}), 0); }

static void at_handler(void) {
  by_signal = true;
  CHECK_EQ(run(fibers, &(coir_fn){begins}), 0);
  by_signal = false;
}

static int resumes(void *arg) {
  struct coir_gen *gen;
  (void)arg;
  CHECK_EQ(coir_gen_create(&gen, begins, NULL, NULL), 0);
  CHECK_EQ(coir_gen_resume(gen, NULL, NULL), 1);
  return coir_gen_destroy(gen);
}
static void at_generator(void) { CHECK_EQ(run(resumes, NULL), 0); }

static int resumes_raw(void *arg) {
  struct coir_raw_fiber *raw;
  (void)arg;
  CHECK_EQ(coir_raw_fiber_create(&raw, 0), 0);
  for (int i = 0; i < 2; i++) CHECK_EQ(coir_raw_fiber_resume(raw, calls_deep, NULL), COIR_RAW_COMPLETE);
  coir_raw_fiber_destroy(raw);
  return 0;
}
static void at_raw(void) { CHECK_EQ(run(resumes_raw, NULL), 0); }

static void at_job(void) {
  struct coir_job_system *jobs;
  CHECK_EQ(coir_job_system_create(&jobs, NULL), 0);
  struct coir_counter *done = coir_job_run(jobs, begins_job, NULL);
  CHECK(done);
  CHECK_EQ(coir_counter_wait(done, COIR_NEVER), 0);
  coir_counter_unref(done);
  coir_job_system_destroy(jobs);
}

/* What Coir has nothing to do with: the test's own measure. */
static void at_thread(void) {
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, begins_thread, NULL), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
}

static const struct place {
  const char *name;
  void (*go)(void);
  int looks;
} places[] = {
    {"thread", at_thread, 1},   {"fiber", at_fiber, 4},         {"moved", at_moved, 20}, {"away", at_away, 8},
    {"handler", at_handler, 4}, {"generator", at_generator, 1}, {"raw", at_raw, 2},      {"job", at_job, 1},
};
#define PLACES (sizeof places / sizeof *places)

static void look_everywhere(void) {
  at_end = look;
  for (size_t i = 0; i < PLACES; i++) {
    if (IS_TSAN && places[i].go == at_handler) continue; /* it holds signals back */
    looks = 0;
    places[i].go();
    CHECK_EQ(looks, places[i].looks);
  }
}

int main(int argc, char **argv) {
  const char *how = argc > 1 ? argv[1] : "";
  void *frames[FRAMES_MAX];
  signal(SIGUSR2, handler);
  (void)by_backtrace(frames); /* it loads a library, which is not for handlers */
  alarm(100);
  if (!strcmp(how, "backtrace")) {
    unwind = by_backtrace;
#if defined(HAS_LIBUNWIND)
  } else if (!strcmp(how, "libunwind")) {
    unwind = by_libunwind;
#endif
  } else if (!strcmp(how, "spin")) {
    at_end = spin;
    at_fiber();
    return 0;
  }
  if (unwind) return look_everywhere(), 0;
  at_end = stop_here;
  for (size_t i = 0; argc > 2 && i < PLACES; i++)
    if (!strcmp(argv[2], places[i].name)) return places[i].go(), 0;
  fputs("skipped: built without libunwind\n", stderr);
  return strcmp(how, "libunwind") ? 2 : 77;
}
