/* For tests in which it matters who waits, and in which order. */
#ifndef COIR_TEST_PARKED_H
#define COIR_TEST_PARKED_H

#include "harness.h"

/* A test whose body runs on a fiber of a runtime of its own; with ON_BOTH once more on a plain thread. */
#define ON_FIBER(name)               \
  static void name##_body(void);     \
  static int name##_fiber(void *_) { \
    (void)_;                         \
    name##_body();                   \
    return 0;                        \
  }                                  \
  static void name(void **state) {   \
    (void)state;                     \
    run(name##_fiber, NULL);         \
  }                                  \
  static void name##_body(void)
#define ON_BOTH(name)                \
  static void name##_body(void);     \
  static int name##_fiber(void *_) { \
    (void)_;                         \
    name##_body();                   \
    return 0;                        \
  }                                  \
  static void name(void **state) {   \
    (void)state;                     \
    run(name##_fiber, NULL);         \
    name##_body();                   \
  }                                  \
  static void name##_body(void)

/* How many fibers of `rt` wait for something that is neither time nor a fiber. */
static inline int parked_count(struct coir_runtime *rt) {
  size_t live = coir_runtime_list(rt, NULL, 0) + 16;
  struct coir_fiber_info *list = calloc(live, sizeof *list);
  CHECK(list);
  size_t n = coir_runtime_list(rt, list, live);
  int count = 0;
  for (size_t i = 0; i < n && i < live; i++)
    count += list[i].state == COIR_FIBER_WAITING && strcmp(list[i].waits_for, "sleep") != 0 &&
             strcmp(list[i].waits_for, "join") != 0;
  free(list);
  return count;
}

/* Waits until exactly `n` do. */
static inline void until_parked_in(struct coir_runtime *rt, int n) {
  for (int i = 0; i < 20; i++) {
    if (parked_count(rt) == n) return;
    coir_yield();
  }
  WAIT_FOR(parked_count(rt) == n);
}

/* The same among the caller's own siblings. */
static inline void until_parked(int n) { until_parked_in(coir_runtime_current(), n); }

/* Overwrites what lies below the caller's frame, where the frames of calls that have returned were. */
static void __attribute__((noinline, unused)) poison_stack(void) {
  volatile char frame[2048];
  for (size_t i = 0; i < sizeof frame; i++) frame[i] = (char)0xa5;
  CHECK_EQ((unsigned char)frame[sizeof frame / 2], 0xa5);
}

#endif
