/* One job spawns 10^6 jobs, each of which adds to a byte of its own and to one counter. */
#ifndef BENCH_JOB_MILLION_H
#define BENCH_JOB_MILLION_H

#include <stdlib.h>

#include "jobs.h"

#define MILLION 1000000L

struct million {
  unsigned char *slots;
  struct coir_counter counter;
};

static void million_add(struct coir_job *job, void *slot) {
  (void)job;
  ++*(unsigned char *)slot;
}

static void million_root(struct coir_job *job, void *arg) {
  struct million *million = arg;
  for (long i = 0; i < MILLION; i++) {
    int rc = coir_job_spawn_with(job, &million->counter, million_add, &million->slots[i]);
    if (rc < 0) bench_die("coir_job_spawn_with: %s", strerror(-rc));
  }
}

/* Returns the wall time for each job, in nanoseconds, from outside until all have ended. */
static double million_measure(struct coir_job_system *jobs) {
  struct million million = {.slots = bench_alloc(MILLION)};
  long sum = 0;
  coir_counter_init(&million.counter, 0);
  memset(million.slots, 1, MILLION);
  int64_t start_ns = coir_now();
  bench_job(jobs, million_root, &million);
  bench_equal("coir_counter_wait", coir_counter_wait(&million.counter, COIR_NEVER), 0);
  double value = bench_each(start_ns, MILLION);
  for (long i = 0; i < MILLION; i++) sum += million.slots[i];
  bench_equal("sum", sum, 2 * MILLION);
  free(million.slots);
  return value;
}

#endif
