/* A job that a worker has alone in its deque is mostly run by it in no time, so it was not announced while some worker
 * looked around by the clock. But where the one that spawned it goes on to compute, it may be half of all that there is
 * to do, and idle workers came for it up to 10 ms late. */
#include "harness.h"
#include "internal.h"
#include "runq.h"

#define OTHERS UINT64_C(14) /* workers 1 to 3 */

static int asleep(struct coir_runtime *rt) { return __builtin_popcountll(atm_load_sc(&rt->idle_mask)); }

/* No worker runs: this thread plays worker 0. The others are taken to be asleep, one of them by the clock. */
static void a_job_alone_is_announced(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){.workers = 4});
  struct coir__worker *w = rt->workers[0];
  struct coir__lean lean = {0};
  struct coir_fiber *entry = (struct coir_fiber *)((uintptr_t)&lean | COIR__LEAN_JOB);
  w->announced_at = coir_now() - COIR_SEC(1);
  atm_store_sc(&rt->idle_mask, OTHERS);
  atm_store_sc(&rt->watching, 1);
  CHECK(coir__runq_push_lean(w, entry));
  coir__idle_notify(w, true);
  CHECK_EQ(asleep(rt), 2); /* one has been woken */
  CHECK_EQ(atm_load_sc(&rt->searching), 1);

  /* Not at each one: whoever makes such jobs all the time runs most of them. */
  atm_store_sc(&rt->searching, 0);
  w->announced_at = coir_now() + COIR_SEC(1);
  coir__idle_notify(w, true);
  CHECK_EQ(asleep(rt), 2);
  w->announced_at = coir_now() - COIR_SEC(1);
  coir__idle_notify(w, true);
  CHECK_EQ(asleep(rt), 1);

  CHECK(coir__runq_take_lean(w, entry));
  atm_store_sc(&rt->idle_mask, 0);
  atm_store_sc(&rt->watching, 0);
  atm_store_sc(&rt->searching, 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(a_job_alone_is_announced)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
