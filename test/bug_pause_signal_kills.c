/* A program may take the signal by which fibers are paused back to what it does by default, which for most is to end
 * the process. Whether the handler was still there was asked when a worker was to be taken away, but not when a fiber
 * was to be paused that went on beside the workers after it had blocked: the runtime killed its own process. */
#include "hogs.h"

#include <semaphore.h>
#include <signal.h>

static _Atomic(bool) is_over;
static sem_t posted;

static int post(void *unused) {
  (void)unused;
  CHECK_EQ(sem_post(&posted), 0);
  return 0;
}

static int be_there(void *unused) {
  (void)unused;
  while (!atomic_load(&is_over)) CHECK_EQ(coir_sleep(COIR_MS(1)), 0);
  return 0;
}

static int compute_beside_the_workers(void *unused) {
  (void)unused;
  struct coir_fiber *other = spawn(be_there, NULL);
  coir_detach(spawn(post, NULL));
  CHECK_EQ(sem_wait(&posted), 0); /* on one worker: so it has been taken away */
  CHECK(signal(SIGALRM, SIG_DFL) != SIG_ERR);
  uint64_t pauses = stats_here().preemptions;
  int64_t begin = hog_cpu_ns(), end = begin + COIR_MS(200);
  while (stats_here().preemptions == pauses && hog_cpu_ns() < end) hog_compute(1000);
  for (end = hog_cpu_ns() + COIR_MS(20); hog_cpu_ns() < end;) hog_compute(1000); /* the signal would have come */
  atomic_store(&is_over, true);
  return join(other);
}

static void the_process_lives(void) {
  alarm(0); /* the signal of the case itself: it ends by its own limits */
  CHECK_EQ(sem_init(&posted, 0, 0), 0);
  struct coir_config config = {.workers = 1, .preempt = COIR_ON, .preempt_signal = SIGALRM, .quantum_us = 2000};
  CHECK_EQ(run_with(config, compute_beside_the_workers, NULL), 0);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {CASE(the_process_lives)};
  return RUN_CASES(argc, argv, cases);
}
