/* With a fiber of high priority always ready, nothing left the normal lane any more: the rounds that pass over high
 * were even, those that look at the normal lane first were odd. Fibers spawned or woken from outside waited for ever,
 * though even those of low priority got their turns. */
#include "harness.h"

#define YIELDS_MAX 1000000 /* a fair turn comes within some thousands */

static _Atomic(int) ready, ran;
static _Atomic(bool) over;

static int yields(void *arg) {
  (void)arg;
  atomic_fetch_add(&ready, 1);
  int in_vain = 0, seen = 0;
  while (!atomic_load(&over)) {
    coir_yield();
    if (atomic_load(&ran) != seen) seen = atomic_load(&ran), in_vain = 0;
    if (atomic_load(&ready) > 1 + seen) CHECK(++in_vain <= YIELDS_MAX);
  }
  return 0;
}

static int runs(void *arg) {
  (void)arg;
  atomic_fetch_add(&ran, 1);
  return 0;
}

static int waits(void *arg) {
  (void)coir_sleep(COIR_SEC(100));
  return runs(arg);
}

static void normal_and_low_get_their_turns(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){.workers = 1});
  CHECK_EQ(coir_runtime_start(rt), 0);
  struct coir_fiber *waiter, *f;
  CHECK_EQ(coir_runtime_spawn(rt, waits, NULL, NULL, &waiter), 0);
  struct coir_fiber_info info;
  WAIT_FOR(coir_runtime_list(rt, &info, 1) == 1 && info.state == COIR_FIBER_WAITING);
  struct coir_attr high = {.priority = COIR_PRIORITY_HIGH};
  CHECK_EQ(coir_runtime_spawn(rt, yields, NULL, &high, NULL), 0);
  WAIT_FOR(atomic_load(&ready) == 1);
  for (int i = 0; i < 20; i++) {
    struct coir_attr attr = {.priority = i % 2 ? COIR_PRIORITY_LOW : COIR_PRIORITY_NORMAL};
    CHECK_EQ(coir_runtime_spawn(rt, runs, NULL, &attr, &f), 0);
    atomic_fetch_add(&ready, 1);
    CHECK_EQ(join(f), 0);
  }
  CHECK_EQ(coir_cancel(waiter), 0); /* woken from outside */
  atomic_fetch_add(&ready, 1);
  CHECK_EQ(join(waiter), 0);
  atomic_store(&over, true);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(normal_and_low_get_their_turns)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
