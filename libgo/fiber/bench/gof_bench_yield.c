/* gof_bench_yield: what a cooperative yield costs.
 *
 *     gof_bench_yield [fibers=2] [iters=100000]
 *
 * `fibers` fibers yield `iters` times each. The time runs from when the first one begins to when the last one ends, so
 * the stacks of all fibers are in it: many iterations make that small. Figure: yields of all fibers per second. */
#include "gof_bench.h"

#define FIBERS_MAX 10000000u
#define ITERS_MAX 1000000000000u

struct race {
  struct bench_watch watch;
  uint64_t iters;
};

static void racer(void *arg) {
  struct race *race = arg;
  bench_begin(&race->watch);
  for (uint64_t i = race->iters; i > 0; i--) gof_yield();
  bench_end(&race->watch);
}

int main(int argc, char **argv) {
  uint64_t fibers = 2, iters = 100000;
  if (argc > 3 || (argc > 1 && !bench_number(argv[1], 1, FIBERS_MAX, &fibers)) ||
      (argc > 2 && !bench_number(argv[2], 1, ITERS_MAX, &iters))) {
    bench_usage(argv[0], "[fibers=2] [iters=100000]");
  }
  struct race race = {.watch.left = fibers, .iters = iters};
  gof_init(0);
  for (uint64_t i = 0; i < fibers; i++) bench_spawn(racer, &race);
  gof_run();
  double seconds = bench_seconds(&race.watch);
  uint64_t switches = fibers * iters;
  printf("gof_bench_yield: fibers=%lld iters=%llu time=%.3fs switches=%llu (%.2f M/s)\n", (long long)fibers,
         (unsigned long long)iters, seconds, (unsigned long long)switches, (double)switches / seconds / 1e6);
  return 0;
}
