/* A fiber that had called a loop on the workers of a job system waited for it in a way that its own runtime could end.
 * But the loop lies in the fiber's frame: when that runtime was abandoned, the stack went while the system was still
 * working on it. */
#include "jobs.h"

#define BODIES 4

static struct coir_job_system *jobs;
static tally begun, ended;
static _Atomic(bool) is_open;

static void waits_for_the_gate(size_t i, void *arg) {
  (void)i, (void)arg;
  atomic_fetch_add(&begun, 1);
  WAIT_FOR(atomic_load(&is_open));
  atomic_fetch_add(&ended, 1);
}

static int calls_the_loop(void *arg) {
  (void)arg;
  return coir_parallel_for(jobs, 0, BODIES, waits_for_the_gate, NULL);
}

static int calls_behind_a_shield(void *arg) {
  (void)arg;
  coir_shield_begin();
  int rc = calls_the_loop(NULL);
  coir_shield_end();
  return rc;
}

static void *opens_late(void *arg) {
  const struct timespec moment = {.tv_nsec = 50000000};
  nanosleep(&moment, NULL);
  atomic_store(&is_open, true);
  return arg;
}

static void abandon(coir_fn fn) {
  pthread_t opener;
  jobs = make_jobs((struct coir_job_config){0});
  struct coir_runtime *rt = make_runtime((struct coir_config){.workers = 1});
  CHECK_EQ(coir_runtime_start(rt), 0);
  CHECK_EQ(coir_runtime_spawn(rt, fn, NULL, NULL, NULL), 0);
  WAIT_FOR(atomic_load(&begun));
  CHECK_EQ(pthread_create(&opener, NULL, opens_late, NULL), 0);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_ABANDON, COIR_NEVER), 0);
  CHECK_EQ(atomic_load(&ended), BODIES); /* all of them, before the frame goes */
  CHECK_EQ(pthread_join(opener, NULL), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
  end_jobs(jobs, 0);
}

static void a_loop_elsewhere_is_waited_for(void) { abandon(calls_the_loop); }
static void so_is_one_behind_a_shield(void) { abandon(calls_behind_a_shield); }

/* Cancellation comes through only when it is over, too. */
static void cancelling_does_not_end_it(void) {
  pthread_t opener;
  jobs = make_jobs((struct coir_job_config){0});
  struct coir_runtime *rt = make_runtime((struct coir_config){.workers = 1});
  CHECK_EQ(coir_runtime_start(rt), 0);
  CHECK_EQ(coir_runtime_spawn(rt, calls_the_loop, NULL, NULL, NULL), 0);
  WAIT_FOR(atomic_load(&begun));
  CHECK_EQ(pthread_create(&opener, NULL, opens_late, NULL), 0);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_CANCEL, COIR_NEVER), 0);
  CHECK_EQ(atomic_load(&ended), BODIES);
  CHECK_EQ(pthread_join(opener, NULL), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
  end_jobs(jobs, 0);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {CASE(a_loop_elsewhere_is_waited_for), CASE(so_is_one_behind_a_shield),
                                     CASE(cancelling_does_not_end_it)};
  return RUN_CASES(argc, argv, cases);
}
