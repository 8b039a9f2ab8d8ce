/* With stealing off idle workers sleep without limit. coir_runtime_set_tuning switched it on and told nobody: what was
 * queued behind a fiber that computes stayed there, beside a worker that slept. */
#include "harness.h"

static _Atomic(bool) queued, ran;

static int runs(void *arg) {
  (void)arg;
  atomic_store(&ran, true);
  return 0;
}

static int computes(void *arg) {
  (void)arg;
  for (int i = 0; i < 10; i++) CHECK_EQ(coir_go(runs, NULL), 0);
  atomic_store(&queued, true);
  SPIN_UNTIL(atomic_load(&ran));
  return 0;
}

static int idle_workers(struct coir_runtime *rt) {
  struct coir_stats s;
  coir_runtime_get_stats(rt, &s);
  return s.workers_idle;
}

/* `off` is the tuning that keeps thieves away; it is lifted while there is something to steal. */
static void lift(void (*off)(struct coir_tuning *)) {
  atomic_store(&queued, false);
  atomic_store(&ran, false);
  struct coir_runtime *rt = make_runtime((struct coir_config){.workers = 2, .monitor = COIR_OFF});
  struct coir_tuning usual, tuning;
  coir_runtime_get_tuning(rt, &usual);
  tuning = usual;
  off(&tuning);
  coir_runtime_set_tuning(rt, &tuning);
  CHECK_EQ(coir_runtime_start(rt), 0);
  WAIT_FOR(idle_workers(rt) == 2);
  CHECK_EQ(coir_runtime_spawn(rt, computes, NULL, NULL, NULL), 0);
  WAIT_FOR(atomic_load(&queued) && idle_workers(rt) == 1);
  CHECK_EQ(coir_sleep(COIR_MS(50)), 0);
  CHECK(!atomic_load(&ran));
  coir_runtime_set_tuning(rt, &usual);
  WAIT_FOR(atomic_load(&ran));
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static void no_steal(struct coir_tuning *t) { t->steal = 0; }
static void many_live(struct coir_tuning *t) { t->steal_min_live = 1000; }
static void long_victims(struct coir_tuning *t) { t->steal_min_victim = 1000; }

static void stealing_begins_at_once(void **state) {
  (void)state;
  lift(no_steal);
}

static void lower_thresholds_count_at_once(void **state) {
  (void)state;
  lift(many_live);
  lift(long_victims);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(stealing_begins_at_once),
      cmocka_unit_test(lower_thresholds_count_at_once),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
