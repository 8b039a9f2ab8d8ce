/* A run ends when no fiber is left; generators that have yielded do not count. Whoever destroyed one from outside at
 * the moment at which the runtime had counted and was not yet marked as off, took it that the runtime would run the
 * generator's clean-up, and waited for ever. The destroyer of this test comes some time after the runtime was told to
 * halt: later, if it was not off by then the last time, else sooner. So it soon hits that moment. */
#include "harness.h"

#include <sched.h>

#include "internal.h"

static struct coir_runtime *rt;
static _Atomic(struct coir_gen *) gen;
static _Atomic(int) destroyed;
static _Atomic(bool) is_over;

static int yields(void *arg) {
  (void)arg;
  while (coir_gen_yield(NULL, NULL) == 0) {}
  return 0;
}

static int makes_one(void *arg) {
  (void)arg;
  struct coir_gen *made;
  void *value;
  CHECK_EQ(coir_gen_create(&made, yields, NULL, NULL), 0);
  CHECK_EQ(coir_gen_resume(made, NULL, &value), 0);
  atomic_store(&gen, made);
  return 0;
}

static void *destroyer(void *arg) {
  uint64_t seed = rng_seed(1);
  int delay = 0;
  while (!atomic_load(&is_over)) {
    struct coir_gen *mine = atomic_exchange(&gen, NULL);
    if (!mine) continue;
    while (atm_load_acq(&rt->phase) == COIR__PHASE_RUN) {}
    for (volatile int i = delay + (int)(rng_next(&seed) % 64); i > 0; i--) {}
    delay += atm_load_acq(&rt->phase) == COIR__PHASE_OFF ? -8 : 8;
    CHECK_EQ(coir_gen_destroy(mine), 0);
    atomic_fetch_add(&destroyed, 1);
  }
  return arg;
}

static void destroying_at_the_end_of_a_run_returns(void **state) {
  (void)state;
  pthread_t thread;
  rt = make_runtime((struct coir_config){.workers = 1});
  CHECK_EQ(pthread_create(&thread, NULL, destroyer, NULL), 0);
  int64_t limit = coir_after(COIR_SEC(1));
  for (int i = 1; i <= 3000 && coir_now() < limit; i++) {
    CHECK_EQ(coir_runtime_run(rt, makes_one, NULL, NULL), 0);
    int64_t end = coir_after(COIR_SEC(2));
    while (atomic_load(&destroyed) < i && coir_now() < end) sched_yield();
    CHECK_EQ(atomic_load(&destroyed), i);
  }
  atomic_store(&is_over, true);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(destroying_at_the_end_of_a_run_returns)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
