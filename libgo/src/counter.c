/* Adders: each thread adds to one of a few cells. */
#include "counter.h"

#include <stdalign.h>

#include "internal.h"

#define CELLS 16 /* a power of two */
#define LINE 64  /* bytes that caches move between CPUs as one */

struct cell {
  alignas(LINE) _Atomic(int64_t) value;
};

struct LongAdder {
  struct cell cells[CELLS];
};

/* The thread's own cell, given out in turn. Not inlined, so that no caller that waits keeps the thread-local's
 * address. */
static __attribute__((noinline)) struct cell *own_cell(LongAdder *adder) {
  static _Atomic(unsigned) threads;
  static _Thread_local unsigned number; /* from 1 */
  if (!number) number = atomic_fetch_add_explicit(&threads, 1, memory_order_relaxed) % CELLS + 1;
  return &adder->cells[number - 1];
}

LongAdder *go_long_adder_create(void) {
  LongAdder *adder = aligned_alloc(LINE, sizeof *adder);
  if (adder) go_long_adder_reset(adder);
  else errno = ENOMEM;
  return adder;
}

/* Relaxed, here and below: whoever wants to see an addition learns of it by other means, which order it. */
void go_long_adder_add(LongAdder *adder, int64_t n) {
  atomic_fetch_add_explicit(&own_cell(adder)->value, n, memory_order_relaxed);
}

void go_long_adder_increment(LongAdder *adder) { go_long_adder_add(adder, 1); }

int64_t go_long_adder_sum(const LongAdder *adder) {
  uint64_t sum = 0; /* wraps around */
  for (int i = 0; i < CELLS; i++) sum += (uint64_t)atomic_load_explicit(&adder->cells[i].value, memory_order_relaxed);
  return (int64_t)sum;
}

void go_long_adder_reset(LongAdder *adder) {
  for (int i = 0; i < CELLS; i++) atomic_store_explicit(&adder->cells[i].value, 0, memory_order_relaxed);
}

void go_long_adder_destroy(LongAdder *adder) { free(adder); }
