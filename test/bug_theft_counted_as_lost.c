/* A thief that got nothing out of a deque, and then something out of the ring, counted as one that got nothing: there
 * were more lost thefts than failed ones (coir_job_metrics). */
#include "harness.h"
#include "internal.h"
#include "runq.h"

#define FIBERS 3
#define JOBS 4

static bool is_short;

static void *alloc_hook(size_t bytes, void *arg) {
  (void)arg;
  return is_short ? NULL : malloc(bytes);
}

static void free_hook(void *memory, size_t bytes, void *arg) {
  (void)bytes, (void)arg;
  free(memory);
}

/* No worker runs: this thread plays both. The thief's deque is full, so it cannot take jobs. */
static void who_gets_something_has_not_lost(void **state) {
  static struct coir__lean jobs[JOBS], mine;
  static struct coir_fiber fibers[FIBERS];
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){.workers = 2, .alloc = alloc_hook, .free = free_hook});
  struct coir__worker *victim = rt->workers[0], *thief = rt->workers[1];
  for (int i = 0; i < JOBS; i++) CHECK(coir__runq_push_lean(victim, (void *)((uintptr_t)&jobs[i] | COIR__LEAN_JOB)));
  for (int i = 0; i < FIBERS; i++) coir__runq_push(victim, &fibers[i]);
  is_short = true;
  while (coir__runq_push_lean(thief, (void *)((uintptr_t)&mine | COIR__LEAN_JOB))) {}
  CHECK(coir__runq_steal(thief, victim, false) == &fibers[1]); /* the oldest stays */
  CHECK_EQ(thief->counts.steals_lost, 0);
  while (coir__runq_pop_fifo(victim)) {}
  CHECK(!coir__runq_steal(thief, victim, false));
  CHECK_EQ(thief->counts.steals_lost, 1);
  is_short = false;
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(who_gets_something_has_not_lost)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
