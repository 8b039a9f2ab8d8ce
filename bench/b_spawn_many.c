/* spawn_many: spawn 500 000 fibers that do nothing, then wait for all of them.
 *
 * One fiber spawns and joins, the last one first: a wait group wakes its waiter once, and joining in the order of
 * spawning would wake it 500 000 times. (There is no wait group yet.) With more workers the others help to run them.
 * The rounds share one process, and the first is a warm-up: the figure is that of a program that has spawned as many
 * before. --quick does not make it smaller.
 *
 * Per operation: wall time / fibers. */
#include <stdlib.h>

#include "bench.h"

#define FIBERS 500000L

static int nothing(void *arg) {
  (void)arg;
  return 0;
}

static void run(const struct bench *b, double *values) {
  (void)b;
  struct coir_fiber **fibers = bench_alloc(FIBERS * sizeof *fibers);
  int64_t start_ns = coir_now();
  for (long i = 0; i < FIBERS; i++) fibers[i] = bench_spawn(nothing, NULL, NULL);
  for (long i = FIBERS; i-- > 0;) bench_join(fibers[i]);
  values[0] = (double)(coir_now() - start_ns) / FIBERS;
  free(fibers);
}

int main(int argc, char **argv) {
  struct bench b = {.question = "spawn_many", .metrics = {{NULL, "ns", "lower"}}, .run = run};
  return bench_main(argc, argv, &b);
}
