/* sleepers.c: ten thousand fibers sleep for one second each, and the program takes one second.
 *
 * Ten thousand threads would do the same with far more memory and a busy kernel. usage: sleepers [FIBERS] */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "coir.h"

static int count = 10000;

static int sleeper(void *arg) {
  int64_t *overslept = arg;
  int64_t until = coir_after(COIR_SEC(1));
  int rc = coir_sleep_until(until);
  *overslept = coir_now() - until; /* never negative: a deadline is never early */
  return rc;
}

static int first(void *arg) {
  struct coir_fiber **fibers = calloc((size_t)count, sizeof(struct coir_fiber *));
  int64_t *overslept = calloc((size_t)count, sizeof(int64_t));
  int64_t start = coir_now(), worst = 0;
  /* A sleeper needs little stack. Memory goes by what it touches, a page or so; the rest is address space. */
  struct coir_attr attr = {.name = "sleeper", .stack_bytes = 16 << 10};
  int failed = 0;
  (void)arg;
  if (!fibers || !overslept) return 1;
  for (int i = 0; i < count; i++) {
    if (coir_spawn(sleeper, &overslept[i], &attr, &fibers[i]) != 0) failed++;
  }
  for (int i = 0; i < count; i++) {
    struct coir_result result;
    if (!fibers[i]) continue; /* coir_spawn failed and stored NULL */
    coir_join(fibers[i], &result, COIR_NEVER);
    if (result.status != 0 || overslept[i] < 0) failed++;
    if (overslept[i] > worst) worst = overslept[i];
  }
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  printf("%d fibers slept 1 s each\n", count);
  printf("elapsed: %.3f s, worst oversleep: %.1f ms\n", (double)(coir_now() - start) / 1e9, (double)worst / 1e6);
  printf("peak memory: %.1f MiB, %.1f KiB per fiber\n", (double)usage.ru_maxrss / 1024,
         (double)usage.ru_maxrss / count);
  printf("failed: %d\n", failed);
  free(overslept);
  free(fibers);
  return failed != 0;
}

int main(int argc, char **argv) {
  if (argc > 1) count = atoi(argv[1]);
  if (count < 1) {
    fprintf(stderr, "usage: sleepers [FIBERS]\n");
    return 2;
  }
  return coir_run(first, NULL) != 0;
}
