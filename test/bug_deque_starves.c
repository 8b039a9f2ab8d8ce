/* Two fibers that each spawn depth first and join, over and over, keep one worker busy by themselves: one is woken into
 * the next slot, its child is the newest of the deque. Once, nothing else ran as long as they did: neither what a timer
 * had put into the ring, nor the other one's child further down in the deque. */
#include "harness.h"

static _Atomic(long) rounds_done[2];
static _Atomic(bool) is_over;

static int nothing(void *arg) {
  (void)arg;
  return 0;
}

static int spawns_and_joins(void *n) {
  while (!atomic_load(&is_over)) {
    struct coir_fiber *f = spawn_with((struct coir_attr){.order = COIR_ORDER_LIFO}, nothing, NULL);
    CHECK_EQ(join(f), 0);
    atomic_fetch_add((_Atomic(long) *)n, 1);
  }
  return 0;
}

static int sleeps_beside(void *arg) {
  (void)arg;
  struct coir_fiber *f[2];
  for (int i = 0; i < 2; i++) f[i] = spawn(spawns_and_joins, &rounds_done[i]);
  for (int i = 0; i < 2; i++) {
    long before = atomic_load(&rounds_done[i]);
    for (int64_t end = coir_now() + COIR_SEC(20); atomic_load(&rounds_done[i]) < before + 10;) {
      CHECK(coir_now() < end);
      CHECK_EQ(coir_sleep(COIR_MS(20)), 0);
    }
  }
  atomic_store(&is_over, true);
  for (int i = 0; i < 2; i++) CHECK_EQ(join(f[i]), 0);
  return 0;
}

static void all_go_on(void **state) {
  (void)state;
  alarm(60); /* it stood still for ever */
  CHECK_EQ(run_with((struct coir_config){.workers = 1}, sleeps_beside, NULL), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(all_go_on)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
