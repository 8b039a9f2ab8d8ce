/* A fiber in the next slot of a worker that computes is not announced: the idle worker that watches finds it. But once
 * all workers had been idle nobody watched any more, and a worker that was woken alone did not see to it; nor did
 * anybody take over from a watcher that had found work, or from a search that was over. The fiber was stuck for as long
 * as the other one computed. */
#include "harness.h"
#include "internal.h"

#define CHAIN_MAX 4

static struct coir_fiber *chain[CHAIN_MAX];
static int chain_length;
static _Atomic(int) begun;

/* Wakes the next of the chain, and computes until all of them run at the same time. */
static void go_on(int me) {
  atomic_fetch_add(&begun, 1);
  if (me + 1 < chain_length) CHECK_EQ(coir_cancel(chain[me + 1]), 0);
  SPIN_UNTIL(atomic_load(&begun) == chain_length);
}

static int waits(void *arg) {
  CHECK_EQ(coir_sleep(COIR_SEC(100)), -ECANCELED);
  go_on((int)(intptr_t)arg);
  return 0;
}

static int sleeps(void *arg) {
  CHECK_EQ(coir_sleep(COIR_MS(200)), 0);
  go_on((int)(intptr_t)arg);
  return 0;
}

static int begins(void *arg) {
  go_on((int)(intptr_t)arg);
  return 0;
}

/* `first` begins the chain when all workers have been idle for long enough that nobody watches. */
static void run_chain(int length, coir_fn first) {
  struct coir_runtime *rt = make_runtime((struct coir_config){.workers = CHAIN_MAX});
  CHECK_EQ(coir_runtime_start(rt), 0);
  chain_length = length;
  atomic_store(&begun, 0);
  for (intptr_t i = 1; i < length; i++) CHECK_EQ(coir_runtime_spawn(rt, waits, (void *)i, NULL, &chain[i]), 0);
  if (first == begins) CHECK_EQ(coir_sleep(COIR_MS(200)), 0);
  CHECK_EQ(coir_runtime_spawn(rt, first, NULL, NULL, &chain[0]), 0);
  CHECK_EQ(join(chain[0]), 0);
  for (int i = 1; i < length; i++) CHECK_EQ(join(chain[i]), 0);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static void who_is_spawned_from_outside_is_watched(void **state) {
  (void)state;
  run_chain(2, begins);
}

static void who_is_woken_by_time_is_watched(void **state) {
  (void)state;
  run_chain(2, sleeps);
}

static void a_watcher_that_works_is_replaced(void **state) {
  (void)state;
  run_chain(CHAIN_MAX, begins);
  run_chain(CHAIN_MAX, sleeps);
}

/* Others may have relied on a search while it went on. This thread plays the worker that searched. */
static void the_last_searcher_leaves_a_watcher(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){.workers = 3});
  atm_or_sc(&rt->idle_mask, 4); /* worker 2 sleeps without limit, worker 1 computes */
  atm_store_sc(&rt->deep, 1);
  CHECK(coir__idle_search_begin(rt->workers[0]));
  coir__idle_end(rt->workers[0]);
  CHECK_EQ(atm_load_sc(&rt->idle_mask), 0); /* worker 2 was woken: it finds nothing, and watches */
  CHECK_EQ(atm_load_sc(&rt->searching), 1);
  atm_store_sc(&rt->searching, 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

/* Somebody may begin to run at the moment in which the watcher retires, and rely on it. This thread plays the
 * watcher. */
static void who_retires_too_early_does_not_sleep(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){.workers = 2});
  struct coir__worker *w = rt->workers[0];
  w->retired = w->was_brief = true; /* it is about to sleep without limit; worker 1 computes */
  coir__idle_sleep(w);              /* slept for ever */
  CHECK(!w->retired);
  CHECK_EQ(atm_load_sc(&rt->deep), 0);
  coir__idle_quit(w);
  CHECK_EQ(atm_load_sc(&rt->searching), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(who_is_spawned_from_outside_is_watched), cmocka_unit_test(who_is_woken_by_time_is_watched),
      cmocka_unit_test(a_watcher_that_works_is_replaced),       cmocka_unit_test(the_last_searcher_leaves_a_watcher),
      cmocka_unit_test(who_retires_too_early_does_not_sleep),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
