/* Thieves leave the oldest fiber of a queue to its worker. Once, when that one computed and its queue was fed all the
 * time, all later fibers ran before the oldest. */
#include "harness.h"

#define LATER 2000

static _Atomic(int) later_done, seen;
static _Atomic(bool) is_done;

static int oldest(void *arg) {
  (void)arg;
  atomic_store(&seen, atomic_load(&later_done));
  atomic_store(&is_done, true);
  return 0;
}

static int later(void *arg) {
  (void)arg;
  atomic_fetch_add(&later_done, 1);
  return 0;
}

static int feeds_and_computes(void *arg) {
  (void)arg;
  CHECK_EQ(coir_go(oldest, NULL), 0);
  for (int i = 0; i < LATER; i++) {
    int64_t end = coir_now() + COIR_US(50);
    CHECK_EQ(coir_go(later, NULL), 0);
    while (coir_now() < end) {}
  }
  SPIN_UNTIL(atomic_load(&later_done) == LATER);
  CHECK(atomic_load(&is_done));
  return 0;
}

static void it_is_not_the_last(void **state) {
  (void)state;
  CHECK_EQ(run_with((struct coir_config){.workers = 2}, feeds_and_computes, NULL), 0);
  CHECK(atomic_load(&seen) < LATER / 2);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(it_is_not_the_last)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
