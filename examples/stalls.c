/* stalls.c: is told of fibers that hold their worker up, and shows that the others go on meanwhile.
 *
 * One fiber computes and never yields, another one calls something that blocks its thread. Both do so until they have
 * been told of. There is one worker, on which a third fiber beats as a heart does. */
#include <execinfo.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "coir.h"

struct told {
  atomic_bool kinds[2]; /* by enum coir_stall_kind */
};

/* Runs on a thread of its own, so it may print and take its time. */
static void report(const struct coir_stall *stall, void *arg) {
  struct told *told = arg;
  printf("fiber %llu \"%s\" %s for %.1f ms; worker %d %s\n", (unsigned long long)stall->id, stall->name,
         stall->kind == COIR_STALL_BUSY ? "computes" : "has been blocked", (double)stall->ns / 1e6, stall->worker,
         stall->is_handed_off ? "goes on without it" : "has to wait");
  fflush(stdout);
  backtrace_symbols_fd((void **)stall->frames, (int)stall->frame_count, STDOUT_FILENO);
  atomic_store(&told->kinds[stall->kind], true);
}

static int compute(void *arg) {
  struct told *told = arg;
  while (!atomic_load(&told->kinds[COIR_STALL_BUSY])) continue;
  return 0;
}

static int block(void *arg) {
  struct told *told = arg;
  while (!atomic_load(&told->kinds[COIR_STALL_BLOCKED])) usleep(50000); /* where coir_sleep belongs */
  return 0;
}

static int beat(void *arg) {
  (void)arg;
  int beats = 0;
  while (coir_sleep(COIR_MS(1)) == 0) beats++;
  return beats;
}

static int first(void *arg) {
  struct coir_fiber *heart, *cruncher, *sleeper;
  struct coir_result result;
  if (coir_spawn(beat, NULL, &(struct coir_attr){.name = "heart"}, &heart) ||
      coir_spawn(compute, arg, &(struct coir_attr){.name = "cruncher"}, &cruncher) ||
      coir_spawn(block, arg, &(struct coir_attr){.name = "sleeper"}, &sleeper))
    return 1;
  coir_join(cruncher, NULL, COIR_NEVER);
  coir_join(sleeper, NULL, COIR_NEVER);
  coir_cancel(heart);
  coir_join(heart, &result, COIR_NEVER);
  printf("%d beats of the heart meanwhile\n", result.status);
  return 0;
}

int main(void) {
  struct told told = {0};
  struct coir_config config = {.workers = 1, .on_stall = report, .on_stall_arg = &told};
  return coir_configure(&config) < 0 || coir_run(first, &told) != 0;
}
