/* mem_queued: resident memory of one fiber that has been spawned and has not run yet.
 *
 * A fiber spawns 10^6 detached ones and does not wait meanwhile. A spinning fiber on each further worker keeps that one
 * from running any of them. All of these hold their workers, which would be taken away otherwise, and given to threads
 * that run the spawned ones; the program checks that none has begun. The first figure is the growth of the process
 * divided by the fibers, the second the time that spawning took. Then they run. One process per run. --quick does not
 * make it smaller. */
#include <stdatomic.h>
#include <string.h>

#include "bench.h"

#define FIBERS 1000000L

static _Atomic(int) spinning;
static _Atomic(bool) is_over;
static _Atomic(long) begun;

static int nothing(void *arg) {
  (void)arg;
  return 0;
}

static int begins(void *arg) {
  (void)arg;
  atomic_fetch_add_explicit(&begun, 1, memory_order_relaxed);
  return 0;
}

static int spin(void *arg) {
  (void)arg;
  coir_hold_begin();
  atomic_fetch_add(&spinning, 1);
  while (!atomic_load_explicit(&is_over, memory_order_relaxed)) {}
  coir_hold_end();
  return 0;
}

static void occupy_others(const struct bench *b) {
  for (int i = 0; i < b->workers; i++) {
    struct coir_attr attr = {.worker = COIR_WORKER(i), .pinned = true};
    if (i != coir_worker_index()) coir_detach(bench_spawn(spin, NULL, &attr));
  }
  while (atomic_load(&spinning) < b->workers - 1) {}
}

static void run(const struct bench *b, double *values) {
  bench_join(bench_spawn(nothing, NULL, NULL)); /* what the runtime makes once, it makes now */
  occupy_others(b);
  coir_hold_begin();
  double rss = bench_rss_bytes();
  int64_t start_ns = coir_now();
  for (long i = 0; i < FIBERS; i++) {
    int rc = coir_go(begins, NULL);
    if (rc < 0) bench_die("coir_go: %s", strerror(-rc));
  }
  values[1] = (double)(coir_now() - start_ns) / 1e9;
  values[0] = (bench_rss_bytes() - rss) / FIBERS;
  if (atomic_load(&begun) > 0) bench_die("%ld fibers ran before all were spawned", atomic_load(&begun));
  coir_hold_end();
  atomic_store(&is_over, true);
}

int main(int argc, char **argv) {
  struct bench b = {.question = "mem_queued",
                    .metrics = {{NULL, "B", "lower"}, {"time", "s", "lower"}},
                    .run = run,
                    .is_fresh = true};
  return bench_main(argc, argv, &b);
}
