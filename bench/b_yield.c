/* yield_2, yield_1000: what one coir_yield costs among YIELD_FIBERS ready fibers.
 *
 * Each worker starts with YIELD_FIBERS fibers and stealing is on, as it is by default. Every fiber yields a fixed
 * number of times. The clock starts when all of them run and stops when the last one is through, so that neither
 * spawning nor fresh stacks are in the figure.
 *
 * Per operation: wall time * workers / yields of all fibers; with one worker that is the time of a yield, with more
 * the time that one core spends on a yield. */
#include <stdatomic.h>
#include <stdlib.h>

#include "bench.h"

#define YIELDS_PER_WORKER 10000000L
#define NAME_OF(n) "yield_" #n
#define NAME(n) NAME_OF(n)

struct race {
  _Atomic(long) arrived, left;
  _Atomic(bool) is_open;
  long yields; /* of each fiber */
  int64_t end_ns;
};

static int racer(void *arg) {
  struct race *race = arg;
  atomic_fetch_add(&race->arrived, 1);
  while (!atomic_load(&race->is_open)) coir_yield();
  for (long i = race->yields; i > 0; i--) coir_yield();
  if (atomic_fetch_sub(&race->left, 1) == 1) race->end_ns = coir_now();
  return 0;
}

static void run(const struct bench *b, double *values) {
  long count = (long)YIELD_FIBERS * b->workers;
  struct race race = {.left = count, .yields = bench_count(b, YIELDS_PER_WORKER) / YIELD_FIBERS};
  struct coir_fiber **fibers = bench_alloc(count * sizeof *fibers);
  for (long i = 0; i < count; i++) {
    struct coir_attr attr = {.worker = COIR_WORKER(i % b->workers)};
    fibers[i] = bench_spawn(racer, &race, &attr);
  }
  while (atomic_load(&race.arrived) < count) coir_yield();
  int64_t start_ns = coir_now();
  atomic_store(&race.is_open, true);
  for (long i = 0; i < count; i++) bench_join(fibers[i]);
  free(fibers);
  values[0] = (double)(race.end_ns - start_ns) * b->workers / ((double)race.yields * (double)count);
}

int main(int argc, char **argv) {
  struct bench b = {.question = NAME(YIELD_FIBERS), .metrics = {{NULL, "ns", "lower"}}, .run = run};
  return bench_main(argc, argv, &b);
}
