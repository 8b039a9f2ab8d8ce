/* What the fuzz programs share.
 *
 * Each is one function, LLVMFuzzerTestOneInput, that takes bytes as a sequence of operations, does them, and aborts
 * where Coir does not do what a simple sequential model says. It runs under libFuzzer, and under fuzz_main.c, which
 * makes inputs of seeds and reads them from files.
 *
 * Time stands still in these programs (fuzz_clock.c): it moves when the input says so. With one worker, no monitor and
 * a fiber that always has something to do, every run of an input is the same. */
#ifndef COIR_TEST_FUZZ_H
#define COIR_TEST_FUZZ_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coir.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

#define CHECK(x)                                                        \
  do {                                                                  \
    if (!(x)) {                                                         \
      fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #x); \
      abort();                                                          \
    }                                                                   \
  } while (0)

#define CHECK_EQ(a, b)                                                                                     \
  do {                                                                                                     \
    long long check_a = (long long)(a), check_b = (long long)(b);                                          \
    if (check_a != check_b) {                                                                              \
      fprintf(stderr, "%s:%d: %s is %lld, not %s = %lld\n", __FILE__, __LINE__, #a, check_a, #b, check_b); \
      abort();                                                                                             \
    }                                                                                                      \
  } while (0)

/* ---- The input ------------------------------------------------------------------------------------------------- */

struct input {
  const uint8_t *at, *end;
};

static inline bool is_over(const struct input *in) { return in->at == in->end; }

/* The next byte; 0 behind the end. */
static inline uint32_t take(struct input *in) { return is_over(in) ? 0 : *in->at++; }

static inline uint32_t below(struct input *in, uint32_t n) { return take(in) % n; }

static inline bool one_in(struct input *in, uint32_t n) { return below(in, n) == n - 1; }

/* ---- The clock ------------------------------------------------------------------------------------------------- */

extern int64_t fuzz_now; /* what coir_now() says */

/* A deadline: mostly a while ahead, or 0, or none. */
static inline int64_t take_deadline(struct input *in) {
  uint32_t b = take(in);
  if (b % 4 == 0) return COIR_NEVER;
  if (b % 4 == 1) return b & 4 ? 0 : fuzz_now - b;
  return fuzz_now + (b & 4 ? COIR_US(b) : COIR_MS(b));
}

static inline int64_t sooner_of(int64_t a, int64_t b) { return a < b ? a : b; }

/* ---- The runtime ----------------------------------------------------------------------------------------------- */

enum { FUZZ_BEGINS = 1000000000 }; /* the clock at the beginning of each input */

/* Runs fn(arg) on a runtime of its own, the calling thread being its only one. */
static inline void run_alone(coir_fn fn, void *arg) {
  fuzz_now = FUZZ_BEGINS;
  struct coir_config config = {.size = sizeof config, .workers = 1, .monitor = COIR_OFF, .preempt = COIR_OFF};
  struct coir_runtime *rt;
  int status = -1;
  CHECK_EQ(coir_runtime_create(&rt, &config), 0);
  CHECK_EQ(coir_runtime_run(rt, fn, arg, &status), 0);
  CHECK_EQ(status, 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

#endif
