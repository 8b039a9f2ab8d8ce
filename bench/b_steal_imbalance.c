/* steal_imbalance: one worker is given all the work, in fibers that are over soon; the others have to fetch it.
 *
 * A fiber spawns 180 others that compute for 1 to 10 us each, 0.99 ms in all, on its own worker, and waits for their
 * end: that is a burst. The main figure is the median time of a burst, divided by what it would take if all workers
 * shared it from the beginning: the same work in a plain loop, by one fiber with nobody beside it, in the least
 * disturbed of many turns, divided by their number. So 1 is perfect, and the number of workers means that nobody has
 * helped. With one worker it is what the fibers themselves cost.
 *   p99              the same for the 99th percentile of the bursts
 *   after sleep      everybody has slept for 2 ms before each burst; otherwise they follow one another at once
 *   thefts           how often somebody took work from another one's queue, per second of bursts: each theft disturbs
 *   fibers per theft how many it brought
 *
 * The sums of all computations are compared. */
#include <math.h>
#include <stdatomic.h>

#include "bench.h"
#include "hdr.h"

#define FIBERS 180
#define BURSTS 1000L
#define BURSTS_AFTER_SLEEP 250L
#define LOOPS 200L

struct burst {
  struct coir_wait_group left;
  _Atomic(uint64_t) sum;
};

static double steps_per_us;

static uint64_t compute(long steps) {
  uint64_t x = 88172645463325252u;
  while (steps-- > 0) x ^= x << 13, x ^= x >> 7, x ^= x << 17;
  return x;
}

/* Of fiber i: each length from 1 to 10 us as often as the others. */
static uint64_t compute_part(long i) { return compute((long)((double)(1 + i * 7 % 10) * steps_per_us)); }

/* The fastest of several turns: others have disturbed the rest. */
static double calibrate(void) {
  const long steps = 100000;
  int64_t least_ns = INT64_MAX;
  for (int i = 0; i < 20; i++) {
    int64_t start_ns = coir_now();
    uint64_t x = compute(steps);
    __asm__ volatile("" : : "r"(x));
    int64_t took_ns = coir_now() - start_ns;
    if (took_ns < least_ns) least_ns = took_ns;
  }
  return (double)steps * 1e3 / (double)least_ns;
}

struct part {
  struct burst *burst;
  long index;
};

static int work(void *arg) {
  struct part *part = arg;
  atomic_fetch_add_explicit(&part->burst->sum, compute_part(part->index), memory_order_relaxed);
  coir_wait_group_done(&part->burst->left);
  return 0;
}

static uint64_t loop(struct hdr *times) {
  uint64_t sum = 0;
  int64_t start_ns = coir_now();
  for (long i = 0; i < FIBERS; i++) sum += compute_part(i);
  hdr_record(times, (uint64_t)(coir_now() - start_ns));
  return sum;
}

static uint64_t run_burst(struct hdr *times) {
  struct burst burst = {.sum = 0};
  struct part parts[FIBERS];
  int64_t start_ns = coir_now();
  coir_wait_group_add(&burst.left, FIBERS);
  for (long i = 0; i < FIBERS; i++) {
    parts[i] = (struct part){.burst = &burst, .index = i};
    bench_check("coir_go", coir_go(work, &parts[i]));
  }
  bench_check("coir_wait_group_wait", coir_wait_group_wait(&burst.left, COIR_NEVER));
  hdr_record(times, (uint64_t)(coir_now() - start_ns));
  return atomic_load(&burst.sum);
}

static void run(const struct bench *b, double *values) {
  static struct hdr loops, bursts, rested;
  struct coir_stats before, after;
  hdr_init(&loops);
  hdr_init(&bursts);
  hdr_init(&rested);
  if (steps_per_us == 0) steps_per_us = calibrate();
  uint64_t sum = 0;
  for (long i = bench_count(b, LOOPS); i > 0; i--) sum = loop(&loops);
  double ideal_ns = (double)loops.min / b->workers;
  coir_runtime_get_stats(coir_runtime_current(), &before);
  int64_t start_ns = coir_now();
  for (long i = bench_count(b, BURSTS); i > 0; i--) bench_equal("sum", (long)run_burst(&bursts), (long)sum);
  double seconds = (double)(coir_now() - start_ns) / 1e9;
  coir_runtime_get_stats(coir_runtime_current(), &after);
  for (long i = bench_count(b, BURSTS_AFTER_SLEEP); i > 0; i--) {
    coir_sleep(COIR_MS(2));
    bench_equal("sum", (long)run_burst(&rested), (long)sum);
  }
  double thefts = (double)(after.steal_hits - before.steal_hits), moved = (double)(after.steals - before.steals);
  values[0] = (double)hdr_percentile(&bursts, 50) / ideal_ns;
  values[1] = (double)hdr_percentile(&bursts, 99) / ideal_ns;
  values[2] = (double)hdr_percentile(&rested, 50) / ideal_ns;
  values[3] = b->workers > 1 ? thefts / seconds : NAN;
  values[4] = thefts > 0 ? moved / thefts : NAN;
}

int main(int argc, char **argv) {
  struct bench b = {.question = "steal_imbalance",
                    .metrics = {{NULL, "x ideal", "lower"},
                                {"p99", "x ideal", "lower"},
                                {"after sleep", "x ideal", "lower"},
                                {"thefts", "1/s", "lower"},
                                {"fibers per theft", "fibers", "higher"}},
                    .run = run};
  return bench_main(argc, argv, &b);
}
