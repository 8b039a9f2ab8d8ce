/* The end of a run set the count of searching workers to 0 while a thread outside had itself counted in, on its way to
 * wake somebody. When that thread took its count back the number wrapped: from then on "somebody searched", so the
 * restarted runtime never woke a sleeping worker, and what was spawned from outside did not run. */
#include "harness.h"
#include "internal.h"

static struct coir_runtime *rt;
static _Atomic(bool) over;

static int returns(void *arg) {
  (void)arg;
  return 7;
}

static void spawn_and_join(void) {
  struct coir_fiber *f;
  struct coir_result result;
  CHECK_EQ(coir_runtime_spawn(rt, returns, NULL, NULL, &f), 0);
  CHECK_EQ(coir_join(f, &result, coir_after(COIR_SEC(20))), 0);
  CHECK_EQ(result.status, 7);
}

static void wait_until_idle(void) { WAIT_FOR(atm_load_sc(&rt->idle_mask) == 3 && atm_load_sc(&rt->searching) == 0); }

/* This thread is the one that has counted itself in, as wake_one does (idle.c). */
static void an_announcer_keeps_its_count(void **state) {
  (void)state;
  rt = make_runtime((struct coir_config){.workers = 2});
  CHECK_EQ(coir_runtime_start(rt), 0);
  wait_until_idle();
  atm_add_sc(&rt->searching, 1);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_ABANDON, 0), 0);
  CHECK_EQ(atm_load_sc(&rt->idle_mask), 0);
  CHECK_EQ(atm_load_sc(&rt->watching), 0);
  CHECK_EQ(atm_load_sc(&rt->searching), 1);
  atm_sub_sc(&rt->searching, 1);
  CHECK_EQ(coir_runtime_start(rt), 0);
  for (int i = 0; i < 3; i++) {
    wait_until_idle();
    spawn_and_join();
  }
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static void *spawner(void *arg) {
  (void)arg;
  while (!atomic_load(&over)) spawn_and_join();
  return NULL;
}

/* Who leaves gives back what it took, whoever announces meanwhile. */
static void every_end_leaves_nothing_behind(void **state) {
  (void)state;
  atomic_store(&over, false);
  rt = make_runtime((struct coir_config){.workers = 2});
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, spawner, NULL), 0);
  int64_t enough = coir_after(COIR_SEC(1));
  for (int i = rounds(500); i > 0 && coir_now() < enough; i--) {
    CHECK_EQ(coir_runtime_start(rt), 0);
    usleep((useconds_t)(i % 5 * 50));
    CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
    CHECK_EQ(atm_load_sc(&rt->idle_mask), 0);
    CHECK_EQ(atm_load_sc(&rt->watching), 0);
    WAIT_FOR(atm_load_sc(&rt->searching) == 0); /* but for a moment of the spawner's */
  }
  CHECK_EQ(coir_runtime_start(rt), 0);
  atomic_store(&over, true);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(atm_load_sc(&rt->searching), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(an_announcer_keeps_its_count),
      cmocka_unit_test(every_end_leaves_nothing_behind),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
