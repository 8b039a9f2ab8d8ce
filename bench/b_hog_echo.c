/* hog_echo: 1000 fibers that compute without end beside 1000 that do little, on 2 workers, with preemption.
 *
 * The 1000 are 500 pairs, each of which makes a round trip every 100 ms, by a timetable (paced.h); the hogs compute all
 * the time, and each counts what it gets done. All of them are spawned alike, but for the hogs' coir_attr.preempt. The
 * timetable begins when each hog has had its first turn. After 20 s, in which each hog has some four turns of 10 ms,
 * the hogs end, and the pairs make up for what is late.
 *
 * Figures: the round trips' 99th percentile, and the longest, in ms; "unfair", 1 - Jain's index of what the hogs got
 * done meanwhile, (sum x)^2 / (n * sum x^2): 0 when all got the same. */
#include <math.h>
#include <stdatomic.h>

#include "paced.h"

#define HOGS 1000
#define PAIRS 500
#define ROUNDS 200
#define PERIOD_NS COIR_MS(100)
#define START_NS COIR_MS(100)

/* A paused fiber keeps its thread. The default is less than one for each. */
#define SPARES "1100"

static _Atomic(long) begun;
static _Atomic(bool) is_over;

struct hog {
  _Atomic(long) laps;
  long laps_before; /* when the timetable began */
  char gap[112];    /* so that no two are in a pair of cache lines */
};

static int compute(void *arg) {
  struct hog *hog = arg;
  volatile long sum = 0;
  atomic_fetch_add(&begun, 1);
  for (long laps = 1; !atomic_load_explicit(&is_over, memory_order_relaxed); laps++) {
    for (int i = 0; i < 1000; i++) sum = sum + i;
    atomic_store_explicit(&hog->laps, laps, memory_order_relaxed);
  }
  return 0;
}

static long laps_of(const struct hog *hog) { return atomic_load_explicit(&hog->laps, memory_order_relaxed); }

static double unfairness(const struct hog *hogs) {
  double sum = 0, squares = 0;
  for (int i = 0; i < HOGS; i++) {
    double laps = (double)(laps_of(&hogs[i]) - hogs[i].laps_before);
    sum += laps;
    squares += laps * laps;
  }
  return 1 - sum * sum / (HOGS * squares);
}

static void run(const struct bench *b, double *values) {
  values[0] = values[1] = values[2] = NAN;
  if (b->workers != 2) return;
  struct hog *hogs = bench_alloc(HOGS * sizeof hogs[0]);
  struct coir_fiber *fibers[HOGS];
  struct coir_attr attr = {.name = "hog", .preempt = COIR_ON};
  for (int i = 0; i < HOGS; i++) {
    atomic_init(&hogs[i].laps, 0);
    fibers[i] = bench_spawn(compute, &hogs[i], &attr);
  }
  while (atomic_load(&begun) < HOGS) bench_check("coir_sleep", coir_sleep(COIR_MS(10)));
  for (int i = 0; i < HOGS; i++) hogs[i].laps_before = laps_of(&hogs[i]);
  struct paced others = {.pairs = PAIRS, .rounds = ROUNDS, .period_ns = PERIOD_NS, .start_ns = coir_after(START_NS)};
  paced_start(&others);
  bench_check("coir_sleep_until", coir_sleep_until(others.start_ns + ROUNDS * PERIOD_NS));
  values[2] = unfairness(hogs);
  atomic_store(&is_over, true);
  paced_join(&others);
  for (int i = 0; i < HOGS; i++) bench_join(fibers[i]);
  values[0] = paced_percentile(&others, 0, 0.99) / 1e6;
  values[1] = paced_percentile(&others, 0, 1) / 1e6;
  free(hogs);
  paced_fini(&others);
}

int main(int argc, char **argv) {
  struct bench b = {.question = "hog_echo",
                    .metrics = {{NULL, "ms", "lower"}, {"max", "ms", "lower"}, {"unfair", "1 - Jain", "lower"}},
                    .run = run,
                    .is_fresh = true};
  setenv("COIR_SPARES_MAX", SPARES, 1);
  return bench_main(argc, argv, &b);
}
