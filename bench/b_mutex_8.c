/* mutex_8: 8 fibers lock one mutex, count, and unlock it, again and again.
 *
 * They start spread over the workers. With one worker nobody ever finds the mutex locked, as no fiber waits while it
 * has it; with two, those of both workers meet there. The clock starts when all of them run and stops when the last one
 * is through.
 *
 * Per operation: wall time / pairs of lock and unlock of all fibers. */
#include <stdatomic.h>

#include "bench.h"

#define FIBERS 8
#define PAIRS_PER_FIBER 1000000L

struct race {
  _Atomic(long) arrived, left;
  _Atomic(bool) is_open;
  long pairs; /* of each fiber */
  int64_t end_ns;
  struct coir_mutex mutex;
  long counter; /* under mutex */
};

static int racer(void *arg) {
  struct race *race = arg;
  atomic_fetch_add(&race->arrived, 1);
  while (!atomic_load(&race->is_open)) coir_yield();
  for (long i = race->pairs; i > 0; i--) {
    bench_check("coir_mutex_lock", coir_mutex_lock(&race->mutex, COIR_NEVER));
    race->counter++;
    coir_mutex_unlock(&race->mutex);
  }
  if (atomic_fetch_sub(&race->left, 1) == 1) race->end_ns = coir_now();
  return 0;
}

static void run(const struct bench *b, double *values) {
  struct race race = {.left = FIBERS, .pairs = bench_count(b, PAIRS_PER_FIBER)};
  struct coir_fiber *fibers[FIBERS];
  for (int i = 0; i < FIBERS; i++) {
    struct coir_attr attr = {.worker = COIR_WORKER(i % b->workers)};
    fibers[i] = bench_spawn(racer, &race, &attr);
  }
  while (atomic_load(&race.arrived) < FIBERS) coir_yield();
  int64_t start_ns = coir_now();
  atomic_store(&race.is_open, true);
  for (int i = 0; i < FIBERS; i++) bench_join(fibers[i]);
  bench_equal("counter", race.counter, race.pairs * FIBERS);
  values[0] = (double)(race.end_ns - start_ns) / (double)race.counter;
}

int main(int argc, char **argv) {
  struct bench b = {.question = "mutex_8", .metrics = {{NULL, "ns", "lower"}}, .run = run};
  return bench_main(argc, argv, &b);
}
