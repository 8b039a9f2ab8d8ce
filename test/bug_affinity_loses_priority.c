/* With affinity on, a fiber of low priority that a plain thread woke went straight into the ring of its worker, and so
 * ran before fibers of normal priority that were woken after it. */
#include "harness.h"

#define NORMAL 10
#define ROUNDS 5

static _Atomic(int) waiting;
static _Atomic(bool) computing, over;
static _Atomic(int) ran;       /* in this round */
static _Atomic(int) low_first; /* rounds in which low ran before all others */

static int waits(void *is_low) {
  for (int i = 0; i < ROUNDS; i++) {
    atomic_fetch_add(&waiting, 1);
    CHECK_EQ(coir_sleep(COIR_SEC(100)), -ECANCELED);
    if (atomic_fetch_add(&ran, 1) == 0 && is_low) atomic_fetch_add(&low_first, 1);
  }
  return 0;
}

static int computes(void *arg) {
  (void)arg;
  atomic_store(&computing, true);
  SPIN_UNTIL(atomic_load(&over));
  return 0;
}

static int waiting_fibers(struct coir_runtime *rt) {
  struct coir_fiber_info info[NORMAL + 1];
  size_t n = coir_runtime_list(rt, info, NORMAL + 1);
  int count = 0;
  for (size_t i = 0; i < n && i < NORMAL + 1; i++) count += info[i].state == COIR_FIBER_WAITING;
  return count;
}

/* Wakes all, low first, while the worker is busy. */
static void wake_all(struct coir_runtime *rt, struct coir_fiber **f) {
  struct coir_fiber *busy;
  atomic_store(&computing, false);
  atomic_store(&over, false);
  atomic_store(&waiting, 0);
  atomic_store(&ran, 0);
  CHECK_EQ(coir_runtime_spawn(rt, computes, NULL, NULL, &busy), 0);
  WAIT_FOR(atomic_load(&computing));
  for (int i = 0; i <= NORMAL; i++) CHECK_EQ(coir_cancel(f[i]), 0);
  atomic_store(&over, true);
  CHECK_EQ(join(busy), 0);
}

static void low_priority_is_kept(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){.workers = 1, .affinity = COIR_ON});
  CHECK_EQ(coir_runtime_start(rt), 0);
  struct coir_attr low = {.priority = COIR_PRIORITY_LOW};
  struct coir_fiber *f[NORMAL + 1];
  for (int i = 0; i <= NORMAL; i++) CHECK_EQ(coir_runtime_spawn(rt, waits, i ? NULL : &low, i ? NULL : &low, &f[i]), 0);
  for (int i = 0; i < ROUNDS; i++) {
    WAIT_FOR(atomic_load(&waiting) == NORMAL + 1 && waiting_fibers(rt) == NORMAL + 1);
    wake_all(rt, f);
  }
  for (int i = 0; i <= NORMAL; i++) CHECK_EQ(join(f[i]), 0);
  CHECK(atomic_load(&low_first) < ROUNDS); /* now and then low has its turn before others */
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(low_priority_is_kept)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
