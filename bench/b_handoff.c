/* handoff: how soon others go on when a fiber blocks its thread, on one worker.
 *
 * A fiber spawns another one, which is ready then, takes the time, and blocks its thread in nanosleep(2) for 10 ms. The
 * other fiber takes the time when it begins to run, and that is when the worker has been taken from the blocked thread.
 * Before each time there is a pause of random length, so that the first fiber blocks at any moment between two looks of
 * the monitor. In the pause, 10 to 12 ms, the worker runs, because a fiber yields; for "idle" it sleeps for at most 2
 * ms, and the monitor may have lost interest.
 *
 * Figures, in ms: the median, and the 99th percentile, "p99"; "idle" and "idle p99". 10 ms means that nobody took the
 * worker away. */
#include <math.h>
#include <stdlib.h>
#include <time.h>

#include "bench.h"

#define ROUNDS 100
#define BLOCKED_NS COIR_MS(10)
#define BUSY_NS COIR_MS(10)
#define PAUSE_MAX_US 2000

static int take_time(void *arg) {
  *(int64_t *)arg = coir_now();
  return 0;
}

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void yield_until(int64_t end_ns) {
  while (coir_now() < end_ns) coir_yield();
}

static double block_once(void) {
  int64_t went_on_ns = 0;
  struct coir_fiber *other = bench_spawn(take_time, &went_on_ns, NULL);
  int64_t blocked_ns = coir_now();
  nanosleep(&(struct timespec){.tv_nsec = BLOCKED_NS}, NULL);
  bench_join(other);
  return (double)(went_on_ns - blocked_ns) / 1e6;
}

/* `values`: the median and the 99th percentile. */
static void measure(long rounds, bool is_idle, double *values) {
  double ms[ROUNDS];
  unsigned seed = 1;
  for (long i = 0; i < rounds; i++) {
    int64_t end_ns = coir_after(COIR_US(rand_r(&seed) % PAUSE_MAX_US));
    if (is_idle) bench_check("coir_sleep_until", coir_sleep_until(end_ns));
    else yield_until(end_ns + BUSY_NS);
    ms[i] = block_once();
  }
  qsort(ms, rounds, sizeof ms[0], compare);
  values[0] = ms[rounds / 2];
  values[1] = ms[rounds * 99 / 100];
}

static void run(const struct bench *b, double *values) {
  long rounds = bench_count(b, ROUNDS);
  for (int i = 0; i < 4; i++) values[i] = NAN;
  if (b->workers > 1) return; /* the others would steal */
  measure(rounds, false, values);
  measure(rounds, true, values + 2);
}

int main(int argc, char **argv) {
  struct bench b = {
      .question = "handoff",
      .metrics = {{NULL, "ms", "lower"}, {"p99", "ms", "lower"}, {"idle", "ms", "lower"}, {"idle p99", "ms", "lower"}},
      .run = run};
  return bench_main(argc, argv, &b);
}
