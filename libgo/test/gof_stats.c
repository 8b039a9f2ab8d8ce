/* Statistics: what each number means. Parameters: their ranges, and that to change them changes what happens. */
#include "gof_test.h"

#include <limits.h>

/* ---- Numbers ----------------------------------------------------------------------------------------------------- */

static void a_fresh_runtime_has_counted_nothing(void) {
  gof_sched_stats s;
  memset(&s, 0x5a, sizeof s);
  gof_get_stats(NULL);
  gof_get_stats(&s);
  CHECK(s.nworkers >= 1 && s.nworkers <= 64);
  CHECK(s.enable_steal == 1 && s.steal_min_live == 4 && s.steal_min_victim == 3);
  CHECK_EQ(s.affinity_enable, 1);
  CHECK(s.rebalance_enable == 0 && s.rebalance_threshold == 4 && s.rebalance_interval_ms == 10);
  CHECK_EQ(s.live_fibers, 0);
  CHECK(s.steals_attempted == 0 && s.steals_success == 0);
  CHECK(s.inject_enqueues == 0 && s.inject_drains == 0);
  CHECK(s.rebalances_attempted == 0 && s.rebalances_migrated == 0);
  gof_counters c;
  gof_get_counters(&c);
  CHECK(c.switches == 0 && c.parks == 0 && c.unparks == 0);
}

/* The order of the fields, as programs were compiled with it. */
static void the_structures_are_as_declared(void) {
  struct gof_sched_stats tag = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  CHECK(tag.nworkers == 1 && tag.enable_steal == 2 && tag.affinity_enable == 3 && tag.steal_min_live == 4);
  CHECK(tag.steal_min_victim == 5 && tag.live_fibers == 6 && tag.steals_attempted == 7 && tag.steals_success == 8);
  CHECK(tag.inject_enqueues == 9 && tag.inject_drains == 10 && tag.rebalance_enable == 11);
  CHECK(tag.rebalance_threshold == 12 && tag.rebalance_interval_ms == 13 && tag.rebalances_attempted == 14);
  CHECK_EQ(tag.rebalances_migrated, 15);
  struct gof_info info = {1, "name", 3, 4, 5, 6};
  CHECK(info.id == 1 && info.stack_size == 3 && info.stack_used == 4 && info.state == 5 && info.last_run_ns == 6);
  gof_steal_params s = {1, 2, 3};
  CHECK(s.enable_steal == 1 && s.steal_min_live == 2 && s.steal_min_victim == 3);
  gof_rebalance_params r = {1, 2, 3};
  CHECK(r.enable == 1 && r.threshold == 2 && r.interval_ms == 3);
}

static _Atomic(int) unfinished;

static void sees_itself_live(void *arg) {
  uint64_t live = stats_now().live_fibers;
  CHECK(live >= 1 && live <= 30);
  gof_yield();
  gof_sleep_ms(1);
  if (arg) go(sees_itself_live, NULL);
  CHECK(stats_now().live_fibers >= 1);
  atomic_fetch_sub(&unfinished, 1);
}

static void live_is_spawned_and_not_finished(void) {
  for (int i = 1; i <= 15; i++) {
    go(sees_itself_live, number(i));
    CHECK_EQ(stats_now().live_fibers, i);
  }
  gof_run();
  CHECK_EQ(unfinished, -30);
  CHECK_EQ(stats_now().live_fibers, 0);
}

#define EACH 20

static void yields_and_sleeps(void *arg) {
  (void)arg;
  for (int i = 0; i < EACH; i++) {
    gof_yield();
    gof_sleep_ms(1);
  }
}

static void switches_parks_and_unparks(void) {
  gof_counters c;
  for (int i = 0; i < 10; i++) go(yields_and_sleeps, NULL);
  gof_run();
  gof_get_counters(&c);
  CHECK_EQ(c.parks, 10 * EACH);
  CHECK_EQ(c.unparks, 10 * EACH);
  CHECK(c.switches >= 10 + 10 * EACH);
  CHECK(c.switches <= 10 + 2 * 10 * EACH + 1000); /* what yields to nobody need not count */
}

static void goes_at_once(void *arg) { (void)arg; }

static void spawns_a_thousand(void *arg) {
  for (int i = 0; i < 1000; i++) go(goes_at_once, arg);
}

/* Only threads that are not workers put into the shared queue. */
static void a_fibers_spawns_are_not_injected(void) {
  go(spawns_a_thousand, NULL);
  gof_sched_stats before = stats_now();
  gof_run();
  gof_sched_stats after = stats_now();
  CHECK_EQ(after.inject_enqueues, before.inject_enqueues);
  CHECK_EQ(after.inject_enqueues, after.inject_drains);
}

static _Atomic(int) stop;

static void naps_until_stop(void *arg) {
  (void)arg;
  while (!atomic_load(&stop)) gof_sleep_ms(1);
}

static void *injects(void *arg) {
  (void)arg;
  WAIT_FOR(blocked_count() > 0);
  for (int i = 0; i < 1000; i++) go(goes_at_once, NULL);
  atomic_store(&stop, 1);
  return NULL;
}

static void a_threads_spawns_are_injected_and_drained(void) {
  pthread_t t;
  go(naps_until_stop, NULL);
  gof_sched_stats before = stats_now();
  CHECK_EQ(pthread_create(&t, NULL, injects, NULL), 0);
  gof_run();
  pthread_join(t, NULL);
  gof_sched_stats after = stats_now();
  CHECK_EQ(after.inject_enqueues - before.inject_enqueues, 1000);
  CHECK_EQ(after.inject_enqueues, after.inject_drains);
}

static void before_a_run_too(void) {
  for (int i = 0; i < 100; i++) go(goes_at_once, NULL);
  gof_sched_stats before = stats_now();
  CHECK(before.inject_enqueues <= 100 && before.inject_drains <= before.inject_enqueues);
  gof_run();
  CHECK_EQ(stats_now().inject_enqueues, stats_now().inject_drains);
}

/* ---- Ranges ------------------------------------------------------------------------------------------------------ */

static void check_steal(gof_steal_params set, int steal, int live, int victim) {
  gof_steal_params got = {9, 9, 9};
  gof_set_steal_params(&set);
  gof_set_steal_params(NULL);
  gof_get_steal_params(NULL);
  gof_get_steal_params(&got);
  CHECK_EQ(got.enable_steal, steal);
  CHECK_EQ(got.steal_min_live, live);
  CHECK_EQ(got.steal_min_victim, victim);
  gof_sched_stats s = stats_now();
  CHECK(s.enable_steal == steal && s.steal_min_live == live && s.steal_min_victim == victim);
}

static void check_rebalance(gof_rebalance_params set, int enable, int threshold, int interval) {
  gof_rebalance_params got = {9, 9, 9};
  gof_set_rebalance_params(&set);
  gof_set_rebalance_params(NULL);
  gof_get_rebalance_params(NULL);
  gof_get_rebalance_params(&got);
  CHECK_EQ(got.enable, enable);
  CHECK_EQ(got.threshold, threshold);
  CHECK_EQ(got.interval_ms, interval);
  gof_sched_stats s = stats_now();
  CHECK(s.rebalance_enable == enable && s.rebalance_threshold == threshold && s.rebalance_interval_ms == interval);
}

static void check_affinity(int set, int want) {
  gof_set_affinity_enabled(set);
  CHECK_EQ(gof_get_affinity_enabled(), want);
  CHECK_EQ(stats_now().affinity_enable, want);
}

static void sets_parameters(void *arg) {
  (void)arg;
  check_steal((gof_steal_params){5, -3, 0}, 1, 0, 2);
  check_steal((gof_steal_params){0, 7, 9}, 0, 7, 9);
  check_steal((gof_steal_params){1, INT_MIN, INT_MIN}, 1, 0, 2);
  check_steal((gof_steal_params){INT_MAX, INT_MAX, INT_MAX}, 1, INT_MAX, INT_MAX);
  check_steal((gof_steal_params){0, 0, 1}, 0, 0, 2);
  check_steal((gof_steal_params){1, 4, 3}, 1, 4, 3);
  check_rebalance((gof_rebalance_params){7, 0, 0}, 1, 1, 1);
  check_rebalance((gof_rebalance_params){0, 5, 6}, 0, 5, 6);
  check_rebalance((gof_rebalance_params){1, INT_MIN, INT_MIN}, 1, 1, 1);
  check_rebalance((gof_rebalance_params){1, INT_MAX, INT_MAX}, 1, INT_MAX, INT_MAX);
  check_rebalance((gof_rebalance_params){0, 4, 10}, 0, 4, 10);
  check_affinity(0, 0);
  check_affinity(7, 1);
  check_affinity(0, 0);
  check_affinity(1, 1);
}

static void values_are_brought_into_range(void) {
  sets_parameters(NULL);
  go(sets_parameters, NULL);
  gof_run();
  sets_parameters(NULL);
}

/* One does not undo what another sets at the same time. */
static void *sets_steal(void *arg) {
  for (int i = 0; i < 1000; i++) gof_set_steal_params(&(gof_steal_params){1, i, 5});
  return arg;
}

static void *sets_rebalance(void *arg) {
  for (int i = 0; i < 1000; i++) gof_set_rebalance_params(&(gof_rebalance_params){0, i + 1, 7});
  return arg;
}

static void *sets_affinity(void *arg) {
  for (int i = 0; i <= 1000; i++) gof_set_affinity_enabled(i % 2);
  return arg;
}

static void they_do_not_undo_each_other(void) {
  pthread_t t[3];
  CHECK_EQ(pthread_create(&t[0], NULL, sets_steal, NULL), 0);
  CHECK_EQ(pthread_create(&t[1], NULL, sets_rebalance, NULL), 0);
  CHECK_EQ(pthread_create(&t[2], NULL, sets_affinity, NULL), 0);
  for (int i = 0; i < 3; i++) pthread_join(t[i], NULL);
  gof_sched_stats s = stats_now();
  CHECK(s.steal_min_live == 999 && s.steal_min_victim == 5);
  CHECK(s.rebalance_threshold == 1000 && s.rebalance_interval_ms == 7);
  CHECK_EQ(s.affinity_enable, 0);
}

/* ---- Stealing ---------------------------------------------------------------------------------------------------- */

static _Atomic(uint64_t) ran_on; /* a bit for each worker */

static void yields_and_marks(void *arg) {
  (void)arg;
  while (!atomic_load(&stop)) {
    atomic_fetch_or(&ran_on, UINT64_C(1) << coir_worker_index());
    gof_yield();
  }
}

/* Fibers that yield all the time, all on worker 0 as a run begins, and one plain thread that looks on. */
static void imbalance(int yielders, void *(*looks_on)(void *), void *arg) {
  pthread_t t;
  atomic_store(&stop, 0);
  atomic_store(&ran_on, 0);
  for (int i = 0; i < yielders; i++) go(yields_and_marks, NULL);
  CHECK_EQ(pthread_create(&t, NULL, looks_on, arg), 0);
  gof_run();
  pthread_join(t, NULL);
}

static void nothing_moves_for(int ms) {
  gof_sched_stats before = stats_now();
  atomic_store(&ran_on, 0);
  WAIT_FOR(atomic_load(&ran_on) != 0);
  (void)coir_sleep(COIR_MS(ms));
  gof_sched_stats after = stats_now();
  CHECK_EQ(after.steals_success, before.steals_success);
  CHECK_EQ(after.steals_attempted, before.steals_attempted);
  CHECK_EQ(after.rebalances_attempted, before.rebalances_attempted);
  CHECK_EQ(after.rebalances_migrated, before.rebalances_migrated);
}

/* Waits until who has begun to move something, and lost its CPU, has done so. */
static void settle(void) {
  gof_sched_stats before, after = stats_now();
  int64_t patience = coir_after(COIR_SEC(20));
  do {
    before = after;
    (void)coir_sleep(COIR_MS(100));
    after = stats_now();
    CHECK(coir_now() < patience);
  } while (before.steals_attempted != after.steals_attempted ||
           before.rebalances_attempted != after.rebalances_attempted);
}

static void set_and_see_steals(gof_steal_params p) {
  uint64_t before = stats_now().steals_success;
  gof_set_steal_params(&p);
  WAIT_FOR(stats_now().steals_success > before);
  WAIT_FOR(atomic_load(&ran_on) & ~UINT64_C(1));
}

static void *switches_stealing_on(void *arg) {
  nothing_moves_for(30);
  CHECK_EQ(atomic_load(&ran_on), 1);
  CHECK_EQ(stats_now().steals_attempted, 0);
  set_and_see_steals((gof_steal_params){1, 0, 2});
  gof_set_steal_params(&(gof_steal_params){0, 0, 2});
  settle();
  nothing_moves_for(30);
  atomic_store(&stop, 1);
  return arg;
}

static void stealing_can_be_switched_on(void) {
  need_workers(2);
  set_env("GOF_WORKSTEAL", "0");
  imbalance(100, switches_stealing_on, NULL);
  gof_sched_stats s = stats_now();
  CHECK(s.steals_success > 0 && s.steals_success <= s.steals_attempted);
  CHECK_EQ(s.rebalances_attempted, 0);
}

/* `live` counts those that are alive, also those that wait; attempts count from there on. */
static void *lowers_min_live(void *arg) {
  nothing_moves_for(20);
  CHECK_EQ(stats_now().steals_attempted, 0);
  CHECK_EQ(atomic_load(&ran_on), 1);
  set_and_see_steals((gof_steal_params){1, 50, 2});
  atomic_store(&stop, 1);
  return arg;
}

static void nothing_is_stolen_while_few_live(void) {
  need_workers(2);
  set_env("GOF_STEAL_MIN_LIVE", "51");
  for (int i = 0; i < 30; i++) go(naps_until_stop, NULL);
  imbalance(20, lowers_min_live, NULL);
}

static void *lowers_min_victim(void *arg) {
  nothing_moves_for(20);
  CHECK_EQ(atomic_load(&ran_on), 1);
  set_and_see_steals((gof_steal_params){1, 0, 10});
  atomic_store(&stop, 1);
  return arg;
}

static void nothing_is_stolen_from_short_queues(void) {
  need_workers(2);
  set_env("GOF_STEAL_MIN_VICTIM", "41");
  set_env("GOF_STEAL_MIN_LIVE", "0");
  imbalance(40, lowers_min_victim, NULL);
}

/* ---- Rebalancing ------------------------------------------------------------------------------------------------- */

static void *switches_rebalancing_on(void *arg) {
  nothing_moves_for(20);
  CHECK_EQ(atomic_load(&ran_on), 1);
  gof_set_rebalance_params(&(gof_rebalance_params){1, 1000, 1});
  nothing_moves_for(20); /* the difference is less than that */
  gof_set_rebalance_params(&(gof_rebalance_params){1, 4, 1});
  WAIT_FOR(stats_now().rebalances_migrated > 0);
  WAIT_FOR(atomic_load(&ran_on) & ~UINT64_C(1));
  gof_set_rebalance_params(&(gof_rebalance_params){0, 4, 1});
  settle();
  nothing_moves_for(20);
  atomic_store(&stop, 1);
  return arg;
}

static void rebalancing_can_be_switched_on(void) {
  need_workers(2);
  set_env("GOF_WORKSTEAL", "0");
  imbalance(100, switches_rebalancing_on, NULL);
  gof_sched_stats s = stats_now();
  CHECK(s.rebalances_migrated > 0 && s.rebalances_migrated <= s.rebalances_attempted);
  CHECK(s.steals_attempted == 0 && s.steals_success == 0);
}

static void *looks_for_migrations(void *arg) {
  WAIT_FOR(stats_now().rebalances_migrated > 0);
  WAIT_FOR(atomic_load(&ran_on) & ~UINT64_C(1));
  atomic_store(&stop, 1);
  return arg;
}

static void the_environment_switches_it_on(void) {
  need_workers(2);
  set_env("GOF_WORKSTEAL", "0");
  set_env("GOF_REBALANCE", "1");
  imbalance(100, looks_for_migrations, NULL);
}

/* A move now, and the next in a quarter of an hour. */
static void *looks_for_the_only_migration(void *arg) {
  WAIT_FOR(stats_now().rebalances_migrated > 0);
  settle();
  nothing_moves_for(30);
  atomic_store(&stop, 1);
  return arg;
}

static void at_most_one_move_in_an_interval(void) {
  need_workers(4);
  set_env("GOF_WORKSTEAL", "0");
  set_env("GOF_REBALANCE", "1");
  set_env("GOF_REBALANCE_THRESHOLD", "1");
  set_env("GOF_REBALANCE_INTERVAL_MS", "900000");
  imbalance(100, looks_for_the_only_migration, NULL);
}

/* ---- Affinity ---------------------------------------------------------------------------------------------------- */

/* Two fibers that start on workers 0 and 1 hand each other a value; the second counts where it wakes up. */
static gof_chan_t *there, *back;
static int at_home, moved;

static int wakes(void *arg) {
  (void)arg;
  int was = coir_worker_index();
  while (gof_chan_recv(there, NULL) == 0) {
    int is = coir_worker_index();
    if (is == was) at_home++;
    else moved++;
    was = is;
    CHECK_EQ(gof_chan_send(back, NULL), 0);
  }
  return 0;
}

static int wakes_it(void *rounds) {
  for (intptr_t i = 0; i < (intptr_t)rounds; i++) {
    CHECK_EQ(gof_chan_send(there, NULL), 0);
    CHECK_EQ(gof_chan_recv(back, NULL), 0);
    if (i % 8 == 0) gof_sleep_ms(1);
  }
  gof_chan_close(there);
  return 0;
}

static void wake_across_workers(int rounds) {
  at_home = moved = 0;
  there = gof_chan_make(0);
  back = gof_chan_make(0);
  struct coir_attr second = {.worker = COIR_WORKER(1)}, first = {.worker = COIR_WORKER(0), .pinned = true};
  CHECK_EQ(coir_runtime_spawn(gof_runtime(), wakes, NULL, &second, NULL), 0);
  CHECK_EQ(coir_runtime_spawn(gof_runtime(), wakes_it, number(rounds), &first, NULL), 0);
  gof_run();
  CHECK_EQ(at_home + moved, rounds);
  gof_chan_free(there);
  gof_chan_free(back);
}

static void affinity_decides_where_a_fiber_wakes(void) {
  need_workers(2);
  set_env("GOF_WORKSTEAL", "0");
  wake_across_workers(200);
  CHECK(at_home > 180);
  gof_set_affinity_enabled(0);
  wake_across_workers(200);
  CHECK(moved > 0); /* it goes to the worker that wakes it, which does not change */
  gof_set_affinity_enabled(1);
  wake_across_workers(200);
  CHECK(at_home > 180);
}

static void the_environment_switches_affinity_off(void) {
  need_workers(2);
  set_env("GOF_WORKSTEAL", "0");
  set_env("GOF_AFFINITY", "0");
  CHECK_EQ(gof_get_affinity_enabled(), 0);
  wake_across_workers(200);
  CHECK(moved > 0);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(a_fresh_runtime_has_counted_nothing),
      CASE(the_structures_are_as_declared),
      CASE(live_is_spawned_and_not_finished),
      CASE(switches_parks_and_unparks),
      CASE(a_fibers_spawns_are_not_injected),
      CASE(a_threads_spawns_are_injected_and_drained),
      CASE(before_a_run_too),
      CASE(values_are_brought_into_range),
      CASE(they_do_not_undo_each_other),
      CASE(stealing_can_be_switched_on),
      CASE(nothing_is_stolen_while_few_live),
      CASE(nothing_is_stolen_from_short_queues),
      CASE(rebalancing_can_be_switched_on),
      CASE(the_environment_switches_it_on),
      CASE(at_most_one_move_in_an_interval),
      CASE(affinity_decides_where_a_fiber_wakes),
      CASE(the_environment_switches_affinity_off),
  };
  return RUN_CASES(argc, argv, cases);
}
