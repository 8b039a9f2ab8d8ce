/* A worker that searched, found nothing and was about to sleep saw at its last look what had been announced meanwhile,
 * and stayed; but it did not count as searching any more, so it did not wake the next one when it took the first
 * fiber. Those who had announced the others relied on that search: all fibers ran on this worker, the others slept. */
#include "harness.h"
#include "internal.h"

#define OTHERS UINT64_C(14) /* workers 1 to 3 */

static _Atomic(int) ran;

static int runs(void *arg) {
  (void)arg;
  atomic_fetch_add(&ran, 1);
  return 0;
}

/* No worker runs: this thread plays worker 0, and the others are taken to be asleep. */
static void who_stays_awake_searches_on(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){.workers = 4});
  struct coir__worker *w = rt->workers[0];
  atm_or_sc(&rt->idle_mask, OTHERS);
  CHECK(coir__idle_search_begin(w));
  for (int i = 0; i < 3; i++) CHECK_EQ(coir_runtime_spawn(rt, runs, NULL, NULL, NULL), 0);
  CHECK_EQ(atm_load_sc(&rt->idle_mask), OTHERS); /* somebody searches, so nobody is woken */

  coir__idle_sleep(w); /* does not, because of the three */
  CHECK_EQ(atm_load_sc(&rt->idle_mask), OTHERS);
  CHECK_EQ(atm_load_sc(&rt->searching), 1);

  struct coir_fiber *f = coir__lane_get(w, 1);
  CHECK(f != NULL);
  coir__idle_end(w);
  CHECK_EQ(__builtin_popcountll(atm_load_sc(&rt->idle_mask)), 2); /* one of them is woken for the next */
  CHECK_EQ(atm_load_sc(&rt->searching), 1);                       /* and counts in our stead */
  CHECK(!w->searching);

  coir__lane_put(rt, f);
  atm_store_sc(&rt->idle_mask, 0);
  atm_store_sc(&rt->searching, 0);
  CHECK_EQ(coir_runtime_run(rt, NULL, NULL, NULL), 0);
  CHECK_EQ(atomic_load(&ran), 3);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(who_stays_awake_searches_on)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
