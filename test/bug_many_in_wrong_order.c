/* Many jobs that one call from outside queues are put into a worker's deque from the last to the first, so that the
 * first runs first. Where the worker had something else to do in between, it began with the deque: with the last. */
#include "jobs.h"

#define MANY (IS_SANITIZED ? 4000 : 20000)
#define NAP (IS_SANITIZED ? COIR_MS(2) : COIR_US(50)) /* ThreadSanitizer makes a fiber in about that time */
#define TIMES (IS_SANITIZED ? 4 : 20)

static tally first, is_over;

static void notes_the_first(struct coir_job *job, void *me) {
  int nobody = 0;
  (void)job;
  atomic_compare_exchange_strong(&first, &nobody, (int)(intptr_t)me);
}

static void naps(struct coir_job *job, void *arg) {
  (void)job, (void)arg;
  while (!atomic_load(&is_over)) CHECK_EQ(coir_sleep(NAP), 0);
}

static void the_first_runs_first(void) {
  static struct coir_job_desc list[20000];
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){.threads = 1, .monitor = COIR_OFF});
  struct coir_counter *napper = coir_job_run(jobs, naps, NULL);
  int right = 0;
  for (intptr_t i = 0; i < MANY; i++) list[i] = (struct coir_job_desc){.fn = notes_the_first, .arg = (void *)(i + 1)};
  for (int i = 0; i < TIMES; i++) {
    atomic_store(&first, 0);
    finish(coir_job_run_many(jobs, list, MANY));
    right += first == 1;
  }
  CHECK(right >= TIMES / 2); /* the other end of the deque has a turn every 10 ms, too */
  atomic_store(&is_over, 1);
  finish(napper);
  end_jobs(jobs, 0);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {CASE(the_first_runs_first)};
  return RUN_CASES(argc, argv, cases);
}
