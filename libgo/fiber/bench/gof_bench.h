/* What the benchmarks of go_fiber share: numbers on the command line, a stopwatch, and ends with a message.
 *
 * They use go_fiber's interface alone, so they measure what any program of its kind gets. */
#ifndef GOF_BENCH_H
#define GOF_BENCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "libgo/fiber.h"

/* Prints "<what>: <message of `code`>" and ends the process with status 1. Any thread, any fiber. */
__attribute__((noreturn)) static inline void bench_die(const char *what, int code) {
  fprintf(stderr, "%s: %s\n", what, strerror(code));
  _Exit(1); /* not exit: other workers run on */
}

__attribute__((noreturn)) static inline void bench_usage(const char *program, const char *arguments) {
  fprintf(stderr, "usage: %s %s\n", program, arguments);
  exit(1);
}

/* Reads a decimal number from `min` to `max`, at most 10^18. Returns whether `text` is one; if not `*out` stays. */
static inline bool bench_number(const char *text, uint64_t min, uint64_t max, uint64_t *out) {
  uint64_t n = 0;
  if (!*text) return false;
  for (; *text; text++) {
    if (*text < '0' || *text > '9' || n > max) return false;
    n = n * 10 + (uint64_t)(*text - '0');
  }
  if (n < min || n > max) return false;
  *out = n;
  return true;
}

static inline void bench_spawn(gof_fn fn, void *arg) {
  if (!gof_spawn(fn, arg, 0)) bench_die("gof_spawn", errno);
}

/* Runs from when the first fiber begins to when the last one ends. */
struct bench_watch {
  _Atomic(bool) is_running;
  _Atomic(uint64_t) left; /* fibers that have not ended; set before gof_run */
  uint64_t start_ns, end_ns;
};

static inline uint64_t bench_now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Every fiber calls these, first and last. Times are read after gof_run. */
static inline void bench_begin(struct bench_watch *watch) {
  if (!atomic_load(&watch->is_running) && !atomic_exchange(&watch->is_running, true)) watch->start_ns = bench_now_ns();
}
static inline void bench_end(struct bench_watch *watch) {
  if (atomic_fetch_sub(&watch->left, 1) == 1) watch->end_ns = bench_now_ns();
}

static inline double bench_seconds(const struct bench_watch *watch) {
  return (double)(watch->end_ns - watch->start_ns) / 1e9;
}

#endif
