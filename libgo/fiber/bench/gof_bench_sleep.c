/* gof_bench_sleep: what a timed sleep costs beyond its time.
 *
 *     gof_bench_sleep [fibers=1] [iters=10000] [sleep_ns=1000000]
 *
 * `fibers` fibers sleep `iters` times each, `sleep_ns` long: whole milliseconds, and one at least. The output shows
 * what remains of it. Figure: sleeps of all fibers per second; one fiber can reach 1000 at most with 1 ms. */
#include "gof_bench.h"

#define FIBERS_MAX 10000000u
#define ITERS_MAX 1000000000000u
#define SLEEP_NS_MAX 1000000000000000u
#define NS_PER_MS 1000000u

struct dorm {
  struct bench_watch watch;
  uint64_t iters, sleep_ms;
};

static void sleeper(void *arg) {
  struct dorm *dorm = arg;
  bench_begin(&dorm->watch);
  for (uint64_t i = dorm->iters; i > 0; i--) gof_sleep_ms(dorm->sleep_ms);
  bench_end(&dorm->watch);
}

int main(int argc, char **argv) {
  uint64_t fibers = 1, iters = 10000, sleep_ns = NS_PER_MS;
  if (argc > 4 || (argc > 1 && !bench_number(argv[1], 1, FIBERS_MAX, &fibers)) ||
      (argc > 2 && !bench_number(argv[2], 1, ITERS_MAX, &iters)) ||
      (argc > 3 && !bench_number(argv[3], 0, SLEEP_NS_MAX, &sleep_ns))) {
    bench_usage(argv[0], "[fibers=1] [iters=10000] [sleep_ns=1000000]");
  }
  struct dorm dorm = {.watch.left = fibers, .iters = iters, .sleep_ms = sleep_ns / NS_PER_MS};
  if (dorm.sleep_ms == 0) dorm.sleep_ms = 1;
  gof_init(0);
  for (uint64_t i = 0; i < fibers; i++) bench_spawn(sleeper, &dorm);
  gof_run();
  double seconds = bench_seconds(&dorm.watch);
  printf("gof_bench_sleep: fibers=%llu iters=%llu sleep_ns=%llu time=%.3fs ops/s=%.2f\n", (unsigned long long)fibers,
         (unsigned long long)iters, (unsigned long long)(dorm.sleep_ms * NS_PER_MS), seconds,
         (double)fibers * (double)iters / seconds);
  return 0;
}
