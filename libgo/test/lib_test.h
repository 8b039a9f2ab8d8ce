/* What the tests of the broader library share. */
#ifndef GO_LIB_TEST_H
#define GO_LIB_TEST_H

#define print_error cmocka_print_error /* cmocka has one of its own */
#include "harness.h"
#undef print_error

#include "go.h"
#include "libgo/fiber.h"

/* The call returns -1 and sets errno. */
#define FAILS(call, code)    \
  do {                       \
    errno = 0;               \
    CHECK_EQ((call), -1);    \
    CHECK_EQ(errno, (code)); \
  } while (0)

/* A test whose body runs on a fiber, and then on a plain thread beside workers in the background. */
#define ON_BOTH(name)                        \
  static void name##_body(void);             \
  static void name##_fiber(void *_) {        \
    (void)_;                                 \
    name##_body();                           \
  }                                          \
  static void name(void **state) {           \
    (void)state;                             \
    CHECK(gof_spawn(name##_fiber, NULL, 0)); \
    gof_run();                               \
    until_idle();                            \
    CHECK_EQ(gof_start_background(0), 0);    \
    name##_body();                           \
    until_idle();                            \
    CHECK_EQ(gof_join_background(), 0);      \
  }                                          \
  static void name##_body(void)

/* Waits until nothing runs of what start() and the go calls have started. */
#define until_idle() WAIT_FOR(go_get_active_count() == 0)

struct started {
  void (*fn)(void *);
  void *arg;
};

static inline void *run_started(void *arg) {
  struct started s = *(struct started *)arg;
  free(arg);
  s.fn(s.arg);
  return NULL;
}

/* Runs fn(arg) on a fiber, or on a plain thread. */
static inline void start(bool on_thread, void (*fn)(void *), void *arg) {
  if (!on_thread) {
    CHECK_EQ(go_fiber_default(fn, arg), 0);
    return;
  }
  struct started *s = malloc(sizeof *s);
  CHECK(s);
  *s = (struct started){fn, arg};
  CHECK_EQ(go(run_started, s), 0);
}

/* How many fibers wait for something of this kind ("send", "event", ...; coir_fiber_info). */
static inline int waiting_for(const char *what) {
  size_t live = coir_runtime_list(gof_runtime(), NULL, 0) + 16;
  struct coir_fiber_info *list = calloc(live, sizeof *list);
  int count = 0;
  CHECK(list);
  size_t n = coir_runtime_list(gof_runtime(), list, live);
  for (size_t i = 0; i < n && i < live; i++)
    count += list[i].state == COIR_FIBER_WAITING && !strcmp(list[i].waits_for, what);
  free(list);
  return count;
}

static inline void *number(intptr_t n) { return (void *)n; }

static inline void pause_ms(int ms) { CHECK_EQ(coir_sleep(COIR_MS(ms)), 0); }

/* CLOCK_REALTIME, `ns` from now. */
static inline struct timespec real_time_after(int64_t ns) {
  struct timespec t;
  CHECK_EQ(clock_gettime(CLOCK_REALTIME, &t), 0);
  int64_t sum = t.tv_nsec + ns % COIR_SEC(1) + COIR_SEC(1);
  t.tv_sec += ns / COIR_SEC(1) + sum / COIR_SEC(1) - 1;
  t.tv_nsec = sum % COIR_SEC(1);
  return t;
}

#define LATE COIR_SEC(5) /* so late is nothing, however busy the machine is */

/* fn() in a child process, which must succeed. */
static inline void in_child(void (*fn)(void)) {
  char text[16384];
  int status = in_child_process(fn, text, sizeof text);
  if (status) fprintf(stderr, "%s", text);
  CHECK_EQ(status, 0);
}

/* The same with a runtime that is simulated, with each of some seeds. Nobody blocks the thread for ever. */
static inline void in_simulations(void (*fn)(void)) {
  for (int seed = 1; seed <= 20; seed++) {
    char text[16];
    snprintf(text, sizeof text, "%d", seed);
    CHECK_EQ(setenv("COIR_SIM_SEED", text, 1), 0);
    in_child(fn);
  }
  CHECK_EQ(unsetenv("COIR_SIM_SEED"), 0);
}

/* main(): all tests, or the one that is named. */
#define RUN_TESTS(argc, argv, tests) \
  ((argc) > 1 ? cmocka_set_test_filter((argv)[1]) : (void)0, cmocka_run_group_tests(tests, NULL, NULL))

#endif
