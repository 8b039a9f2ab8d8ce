/* wake_latency: how long it takes from waking a fiber that waits on another worker until it runs.
 *
 * A fiber on one worker releases a semaphore that a fiber on the other one waits for; each of the two is pinned to its
 * worker, and the two threads to a processor each: Linux now and then has two threads share one for long although
 * another is idle. The waker takes the time before, the other one when it is through, and the waker computes until
 * then. Three cases:
 *   (no name)  everybody has slept for 2 ms. It includes what the system needs to wake a thread on another processor
 *   spinning   the waker computes for 2 to 10 us between two wakes, so the other worker has hardly stopped looking
 *   free       as the first, but nobody is pinned to anything, and the waker computes on for 1 ms at most after the
 *              wake, then yields: how soon does another worker come and take the fiber from it?
 *
 * With one worker there is no other. Figures are percentiles of single wakes. Two readings of the clock, some 40 ns,
 * are in each. One process per run. */
#define _GNU_SOURCE /* sched_setaffinity */
#include <math.h>
#include <stdatomic.h>

#include "bench.h"
#include "cpus.h"
#include "hdr.h"

#define SLEEPING_WAKES 2000L
#define SPINNING_WAKES 200000L
#define FREE_WAKES 500L
#define CALM_NS COIR_MS(2)
#define BUSY_NS COIR_MS(1)
#define PATIENCE_NS COIR_SEC(10)

enum wake_case { SLEEPING, SPINNING, FREE };

struct pair {
  enum wake_case how;
  long wakes;
  struct coir_sem gate;
  int64_t sent_ns; /* ordered by the semaphore */
  _Atomic(long) done;
  struct hdr *times;
};

static int sleeper(void *arg) {
  struct pair *pair = arg;
  if (pair->how != FREE) stay_on_cpu(1, 2);
  for (long i = 1; i <= pair->wakes; i++) {
    bench_check("coir_sem_acquire", coir_sem_acquire(&pair->gate, 1, COIR_NEVER));
    hdr_record(pair->times, (uint64_t)(coir_now() - pair->sent_ns));
    atomic_store(&pair->done, i);
  }
  return 0;
}

static void compute_until(int64_t end_ns) {
  while (coir_now() < end_ns) {}
}

static int waker(void *arg) {
  struct pair *pair = arg;
  if (pair->how != FREE) stay_on_cpu(0, 2);
  for (long i = 1; i <= pair->wakes; i++) {
    if (pair->how == SPINNING) compute_until(coir_after(COIR_US(2 + (i * 7) % 9)));
    else coir_sleep(CALM_NS);
    pair->sent_ns = coir_now();
    coir_sem_release(&pair->gate, 1);
    int64_t busy_until_ns = pair->sent_ns + BUSY_NS;
    while (atomic_load(&pair->done) < i) {
      if (coir_now() < busy_until_ns) continue;
      if (coir_now() > pair->sent_ns + PATIENCE_NS) bench_die("wake %ld has been lost", i);
      coir_yield();
    }
  }
  return 0;
}

static void measure(enum wake_case how, long wakes, struct hdr *times) {
  struct pair pair = {.how = how, .wakes = wakes, .times = times};
  struct coir_attr here = {.worker = COIR_WORKER(0), .pinned = true};
  struct coir_attr there = {.worker = COIR_WORKER(1), .pinned = true};
  hdr_init(times);
  struct coir_fiber *woken = bench_spawn(sleeper, &pair, how == FREE ? NULL : &there);
  coir_sleep(CALM_NS); /* until it waits */
  bench_join(bench_spawn(waker, &pair, how == FREE ? NULL : &here));
  bench_join(woken);
  bench_equal("wakes", (long)times->count, wakes);
}

static double percentile_us(const struct hdr *h, double percent) { return (double)hdr_percentile(h, percent) / 1e3; }

static void run(const struct bench *b, double *values) {
  static struct hdr times;
  static const double sleeping[] = {50, 90, 99, 99.9, 100}, spinning[] = {50, 90, 99, 99.9, 99.99}, freely[] = {50, 99};
  if (b->workers == 1) {
    for (int i = 0; i < BENCH_METRICS_MAX; i++) values[i] = NAN;
    return;
  }
  measure(FREE, bench_count(b, FREE_WAKES), &times); /* first: the others put threads on processors, for good */
  for (int i = 0; i < 2; i++) values[10 + i] = percentile_us(&times, freely[i]);
  measure(SLEEPING, bench_count(b, SLEEPING_WAKES), &times);
  for (int i = 0; i < 5; i++) values[i] = percentile_us(&times, sleeping[i]);
  hdr_merge(b->histogram, &times);
  measure(SPINNING, bench_count(b, SPINNING_WAKES), &times);
  for (int i = 0; i < 5; i++) values[5 + i] = percentile_us(&times, spinning[i]);
}

#define METRIC(name) \
  { name, "us", "lower" }

int main(int argc, char **argv) {
  struct bench b = {.question = "wake_latency",
                    .metrics = {METRIC(NULL), METRIC("p90"), METRIC("p99"), METRIC("p99.9"), METRIC("max"),
                                METRIC("spinning"), METRIC("spinning p90"), METRIC("spinning p99"),
                                METRIC("spinning p99.9"), METRIC("spinning p99.99"), METRIC("free"),
                                METRIC("free p99")},
                    .run = run,
                    .is_fresh = true,
                    .has_histogram = true};
  return bench_main(argc, argv, &b);
}
