/* A deadlock's hook may wake fibers. Where it did, said that it had not dealt with the deadlock, and the policy was to
 * ignore it, the worker that had called the hook went to sleep all the same, with the woken fiber in its own queue: for
 * ever, unless another one stole it. */
#include "processes.h"

static struct coir_event event;
static int calls;

static bool wakes(struct coir_runtime *rt, void *arg) {
  (void)rt, (void)arg;
  calls++;
  coir_event_set(&event);
  return false;
}

static int waits(void *arg) {
  (void)arg;
  return coir_event_wait(&event, COIR_NEVER);
}

static void run_on_workers(int workers, bool steals) {
  struct coir_runtime *rt = make_runtime((struct coir_config){
      .workers = workers, .deadlock = COIR_DEADLOCK_IGNORE, .on_deadlock = wakes});
  struct coir_tuning tuning;
  int status = -1;
  coir_runtime_get_tuning(rt, &tuning);
  tuning.steal = steals;
  coir_runtime_set_tuning(rt, &tuning);
  for (int i = 0; i < 20; i++) {
    coir_event_reset(&event);
    CHECK_EQ(coir_runtime_run(rt, waits, NULL, &status), 0);
    CHECK_EQ(status, 0);
    CHECK_EQ(calls, i + 1);
  }
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static void one_worker(void) { run_on_workers(1, true); }
static void workers_that_do_not_steal(void) { run_on_workers(4, false); }

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(one_worker),
      CASE(workers_that_do_not_steal),
  };
  return RUN_CASES(argc, argv, cases);
}
