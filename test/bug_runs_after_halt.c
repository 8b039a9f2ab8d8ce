/* A worker that looked at the phase just before it became HALT, and then took notice of the call for attention, once
 * ran a whole round of fibers more. */
#include "harness.h"

static _Atomic(int) turns;

static int turns_for_ever(void *arg) {
  (void)arg;
  while (atomic_fetch_add(&turns, 1) >= 0) coir_yield();
  return 0;
}

static void hardly_any(void **state) {
  (void)state;
  for (int i = 0; i < rounds(300); i++) {
    struct coir_runtime *rt = make_runtime((struct coir_config){.workers = 1});
    for (int k = 0; k < 3; k++) CHECK_EQ(coir_runtime_spawn(rt, turns_for_ever, NULL, NULL, NULL), 0);
    CHECK_EQ(coir_runtime_start(rt), 0);
    int64_t end = coir_now() + COIR_US(100 + i);
    while (coir_now() < end || atomic_load(&turns) == 0) {}
    CHECK_EQ(coir_runtime_halt(rt), 0);
    int before = atomic_load(&turns);
    CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_ABANDON, 0), 0);
    CHECK(atomic_load(&turns) - before <= 2); /* the one that runs, to its end, and one that was being switched to */
    CHECK_EQ(coir_runtime_destroy(rt), 0);
    atomic_store(&turns, 0);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(hardly_any)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
