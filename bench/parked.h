/* A crowd of fibers that wait for nothing but cancellation, with as little on their stacks as can be. */
#ifndef BENCH_PARKED_H
#define BENCH_PARKED_H

#include <stdatomic.h>
#include <stdlib.h>

#include "bench.h"

struct crowd {
  struct coir_fiber **fibers;
  long count;
  _Atomic(long) parked;
};

static int park(void *arg) {
  struct crowd *crowd = arg;
  atomic_fetch_add_explicit(&crowd->parked, 1, memory_order_relaxed);
  coir_sleep_until(COIR_NEVER);
  return 0;
}

/* Makes room for the handles: before what is to be measured. */
static inline void crowd_init(struct crowd *crowd, long count) {
  *crowd = (struct crowd){.fibers = bench_alloc(count * sizeof(struct coir_fiber *)), .count = count};
}

/* Spawns the fibers and returns when all are parked. */
static inline void crowd_park(struct crowd *crowd) {
  for (long i = 0; i < crowd->count; i++) crowd->fibers[i] = bench_spawn(park, crowd, NULL);
  while (atomic_load_explicit(&crowd->parked, memory_order_relaxed) < crowd->count) coir_yield();
}

/* Cancels them all and waits for their ends. */
static inline void crowd_fini(struct crowd *crowd) {
  for (long i = 0; i < crowd->count; i++) coir_cancel(crowd->fibers[i]);
  for (long i = 0; i < crowd->count; i++) bench_join(crowd->fibers[i]);
  free(crowd->fibers);
}

#endif
