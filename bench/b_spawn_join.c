/* spawn_join: spawn one fiber, wait until it has ended; again and again.
 *
 * One fiber does so, whatever the number of workers: with two, the question is what an idle worker that may steal adds.
 *
 * Per operation: wall time / pairs of spawn and join. */
#include "bench.h"

#define PAIRS 2000000L

static int nothing(void *arg) {
  (void)arg;
  return 0;
}

static void run(const struct bench *b, double *values) {
  long pairs = bench_count(b, PAIRS);
  int64_t start_ns = coir_now();
  for (long i = 0; i < pairs; i++) bench_join(bench_spawn(nothing, NULL, NULL));
  values[0] = (double)(coir_now() - start_ns) / (double)pairs;
}

int main(int argc, char **argv) {
  struct bench b = {.question = "spawn_join", .metrics = {{NULL, "ns", "lower"}}, .run = run};
  return bench_main(argc, argv, &b);
}
