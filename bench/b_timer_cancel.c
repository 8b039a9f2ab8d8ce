/* timer_cancel: what a deadline that is not reached costs: to arm its timer, and to cancel it.
 *
 * Every wait of Coir takes a deadline, and there are no timers apart from waits. So the figure is a difference: a
 * fiber waits in coir_sleep_until and another cancels the wait, once with a deadline far ahead and once with
 * COIR_NEVER, which arms nothing. All else is the same in both: the wait, coir_cancel, the wake and two switches.
 * Reading the clock to compute a deadline is not in it.
 *
 * The deadlines lie between 1 and 65 s ahead, and 1 000 other fibers per worker keep timers armed meanwhile. Each
 * worker has one such pair of fibers, pinned to it, since a cancellation that arrives between two waits would spare
 * the second one its timer; the program checks that the waits were real.
 *
 * The difference of two large figures must not be that of two disturbances. So both are taken in many short slices
 * by turns, the shortest of each kind counts, and what is taken is the time on the CPU: a pair waits for nothing but
 * itself, so that is the wall time of its core less what other processes had of it.
 *
 * Per operation: (CPU time with deadlines - CPU time without) / waits of all pairs. */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "bench.h"

#define SLICES 50L
#define WAITS 20000L /* of each pair in a slice */
#define OTHERS_PER_WORKER 1000

struct pair {
  struct coir_fiber *sleeper, *canceler;
  int64_t base_ns; /* deadlines are spread from here on; COIR_NEVER: no deadlines */
  _Atomic(bool) is_done;
};

static int sleeper(void *arg) {
  struct pair *pair = arg;
  for (long i = 0; i < WAITS; i++) {
    /* A step that is no multiple of anything: over all slots of several levels of a wheel, in no order for a heap. */
    int64_t spread_ns = (int64_t)((uint64_t)i * 2654435761u % 65536) * 1000000;
    int rc = coir_sleep_until(pair->base_ns == COIR_NEVER ? COIR_NEVER : pair->base_ns + spread_ns);
    if (rc != -ECANCELED) bench_die("coir_sleep_until: %d, not -ECANCELED", rc);
  }
  atomic_store(&pair->is_done, true);
  return 0;
}

static int canceler(void *arg) {
  struct pair *pair = arg;
  while (!atomic_load_explicit(&pair->is_done, memory_order_relaxed)) {
    coir_cancel(pair->sleeper);
    coir_yield();
  }
  return 0;
}

static int other(void *arg) {
  (void)arg;
  coir_sleep(COIR_SEC(3600));
  return 0;
}

static double cpu_ns(void) {
  struct timespec used;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  return (double)used.tv_sec * 1e9 + (double)used.tv_nsec;
}

/* One slice: runs a pair on every worker and returns the CPU time of a wait. */
static double run_pairs(const struct bench *b, int64_t base_ns) {
  struct pair pairs[64];
  struct coir_stats before, after;
  coir_runtime_get_stats(coir_runtime_current(), &before);
  double start_ns = cpu_ns();
  for (int i = 0; i < b->workers; i++) {
    struct coir_attr attr = {.worker = COIR_WORKER(i), .pinned = true};
    pairs[i] = (struct pair){.base_ns = base_ns};
    pairs[i].sleeper = bench_spawn(sleeper, &pairs[i], &attr);
    pairs[i].canceler = bench_spawn(canceler, &pairs[i], &attr);
  }
  for (int i = 0; i < b->workers; i++) {
    bench_join(pairs[i].sleeper);
    bench_join(pairs[i].canceler);
  }
  double end_ns = cpu_ns();
  coir_runtime_get_stats(coir_runtime_current(), &after);
  uint64_t parks = after.parks - before.parks, waits = (uint64_t)WAITS * (uint64_t)b->workers;
  if (parks < waits * 99 / 100) bench_die("too few waits suspended a fiber");
  return (end_ns - start_ns) / (double)waits;
}

static double least(double a, double b) { return a < b ? a : b; }

static void run(const struct bench *b, double *values) {
  int count = OTHERS_PER_WORKER * b->workers;
  struct coir_fiber **others = bench_alloc(count * sizeof *others);
  for (int i = 0; i < count; i++) {
    struct coir_attr attr = {.worker = COIR_WORKER(i % b->workers)};
    others[i] = bench_spawn(other, NULL, &attr);
  }
  coir_sleep(COIR_MS(10)); /* until they wait */
  double without = 1e18, with = 1e18;
  for (long i = bench_count(b, SLICES); i > 0; i--) {
    without = least(without, run_pairs(b, COIR_NEVER));
    with = least(with, run_pairs(b, coir_after(COIR_SEC(1))));
  }
  if (with < without) bench_die("the machine is too busy: %g ns with a deadline, %g ns without", with, without);
  values[0] = with - without;
  for (int i = 0; i < count; i++) coir_cancel(others[i]);
  for (int i = 0; i < count; i++) bench_join(others[i]);
  free(others);
}

int main(int argc, char **argv) {
  struct bench b = {.question = "timer_cancel", .metrics = {{NULL, "ns", "lower"}}, .run = run};
  return bench_main(argc, argv, &b);
}
