/* stack_reuse: what a fiber costs that uses 1, 4 or 16 pages of its stack and ends, by where its stack comes from.
 *
 *   (no name), 4 pages, 16 pages   one fiber after the other: each gets the stack that the last one has left
 *   fresh 1, fresh 4, fresh 16     many that live at the same time, in a process that has had none before
 *   again 1, again 4, again 16     as many once more, when the former have ended: what has been kept of their stacks
 *   faults, fresh faults, again faults
 *                                  page faults per fiber, of the cases with 16 pages
 *
 * A fiber touches one byte of each page. Those that live at the same time wait with all of it in use until the last one
 * has touched its own, and are not pinned. Time: wall time / fibers, from the first spawn to the last join.
 * Each figure has a process of its own. */
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "bench.h"

#define FIBERS_HOT 200000L
#define FIBERS_AT_ONCE 5000L
#define PAGE 4096

static _Atomic(long) touched;
static struct coir_event gate;

/* Uses `pages` of the stack, the one that it is called on among them, and waits there if there is somebody to wait
 * for. */
static __attribute__((noinline)) long touch(long pages, bool waits) {
  volatile char page[PAGE];
  page[0] = 1;
  if (pages > 2) return touch(pages - 1, waits) + page[0];
  atomic_fetch_add_explicit(&touched, 1, memory_order_relaxed);
  if (waits) bench_check("coir_event_wait", coir_event_wait(&gate, COIR_NEVER));
  return page[0];
}

static int end_at_once(void *arg) {
  long pages = (long)(intptr_t)arg;
  if (pages > 1) return (int)touch(pages, false);
  atomic_fetch_add_explicit(&touched, 1, memory_order_relaxed);
  return 0;
}

static int wait_for_others(void *arg) {
  long pages = (long)(intptr_t)arg;
  if (pages > 1) return (int)touch(pages, true);
  atomic_fetch_add_explicit(&touched, 1, memory_order_relaxed);
  bench_check("coir_event_wait", coir_event_wait(&gate, COIR_NEVER));
  return 0;
}

static double faults(void) {
  struct rusage used;
  getrusage(RUSAGE_SELF, &used);
  return (double)used.ru_minflt;
}

enum origin { HOT, FRESH, AGAIN };

struct cost {
  double ns, faults; /* per fiber */
};

static struct cost one_by_one(long count, long pages) {
  double faults_before = faults();
  int64_t start_ns = coir_now();
  for (long i = 0; i < count; i++) bench_join(bench_spawn(end_at_once, (void *)pages, NULL));
  double ns = (double)(coir_now() - start_ns);
  return (struct cost){ns / (double)count, (faults() - faults_before) / (double)count};
}

static struct cost at_once(struct coir_fiber **fibers, long pages) {
  coir_event_reset(&gate);
  atomic_store(&touched, 0);
  double faults_before = faults();
  int64_t start_ns = coir_now();
  for (long i = 0; i < FIBERS_AT_ONCE; i++) fibers[i] = bench_spawn(wait_for_others, (void *)pages, NULL);
  while (atomic_load_explicit(&touched, memory_order_relaxed) < FIBERS_AT_ONCE) coir_yield();
  coir_event_set(&gate);
  for (long i = 0; i < FIBERS_AT_ONCE; i++) bench_join(fibers[i]);
  double ns = (double)(coir_now() - start_ns);
  return (struct cost){ns / FIBERS_AT_ONCE, (faults() - faults_before) / FIBERS_AT_ONCE};
}

static double measure(enum origin origin, long pages, long count_hot, bool is_faults) {
  struct coir_fiber **fibers = bench_alloc(FIBERS_AT_ONCE * sizeof(struct coir_fiber *));
  struct cost cost;
  if (origin == HOT) {
    one_by_one(count_hot / 100, pages);
    atomic_store(&touched, 0);
    cost = one_by_one(count_hot, pages);
    bench_equal("fibers that have run", atomic_load(&touched), count_hot);
  } else {
    cost = at_once(fibers, pages);
    if (origin == AGAIN) cost = at_once(fibers, pages);
  }
  free(fibers);
  return is_faults ? cost.faults : cost.ns;
}

static void run(const struct bench *b, double *values) {
  static const long sizes[] = {1, 4, 16};
  long count_hot = bench_count(b, FIBERS_HOT);
  if (b->figure < 9) values[b->figure] = measure(b->figure / 3, sizes[b->figure % 3], count_hot, false);
  else values[b->figure] = measure(b->figure - 9, 16, count_hot, true);
}

int main(int argc, char **argv) {
  struct bench b = {.question = "stack_reuse",
                    .metrics = {{NULL, "ns", "lower"},
                                {"4 pages", "ns", "lower"},
                                {"16 pages", "ns", "lower"},
                                {"fresh 1", "ns", "lower"},
                                {"fresh 4", "ns", "lower"},
                                {"fresh 16", "ns", "lower"},
                                {"again 1", "ns", "lower"},
                                {"again 4", "ns", "lower"},
                                {"again 16", "ns", "lower"},
                                {"faults", "faults", "lower"},
                                {"fresh faults", "faults", "lower"},
                                {"again faults", "faults", "lower"}},
                    .run = run,
                    .is_fresh = true,
                    .is_apart = true};
  return bench_main(argc, argv, &b);
}
