/* Scheduling: orders, priorities, binding, stealing, the watcher, the rebalancer, affinity, the end, idleness. */
#include "harness.h"

#include <dirent.h>

static int order[4096];
static _Atomic(int) order_count;

static int note(void *arg) {
  order[atomic_fetch_add(&order_count, 1)] = (int)(intptr_t)arg;
  return 0;
}

static struct coir_stats stats_now(void) {
  struct coir_stats s;
  coir_runtime_get_stats(coir_runtime_current(), &s);
  return s;
}

static void spin_for(int64_t ns) {
  int64_t until = coir_now() + ns;
  while (coir_now() < until) {}
}

/* ---- Order ------------------------------------------------------------------------------------------------------- */

static int notes_thrice(void *arg) {
  for (int i = 0; i < 3; i++) {
    note(arg);
    coir_yield();
  }
  return 0;
}

static int fifo(void *arg) {
  (void)arg;
  order_count = 0;
  struct coir_fiber *f[10];
  for (int i = 0; i < 10; i++) f[i] = spawn(notes_thrice, (void *)(intptr_t)i);
  for (int i = 0; i < 10; i++) join(f[i]);
  CHECK_EQ(order_count, 30);
  for (int i = 0; i < 30; i++) CHECK_EQ(order[i], i % 10);
  return 0;
}

static void yields_go_round(void **state) {
  (void)state;
  run_with((struct coir_config){.workers = 1, .monitor = STRICT_MONITOR}, fifo, NULL);
}

static int lifo(void *arg) {
  (void)arg;
  order_count = 0;
  struct coir_fiber *f[10];
  for (int i = 0; i < 10; i++)
    f[i] = spawn_with((struct coir_attr){.order = COIR_ORDER_LIFO}, note, (void *)(intptr_t)i);
  for (int i = 0; i < 10; i++) join(f[i]);
  for (int i = 0; i < 10; i++) CHECK_EQ(order[i], 9 - i);
  return 0;
}

static void lifo_runs_the_newest_first(void **state) {
  (void)state;
  run_with((struct coir_config){.workers = 1, .monitor = STRICT_MONITOR}, lifo, NULL);
}

/* Two that yield alternate strictly, also with many workers, when stealing is kept away from so few. */
static int alternates(void *arg) {
  (void)arg;
  order_count = 0;
  struct coir_attr here = {.worker = COIR_WORKER(0)};
  struct coir_fiber *a = spawn_with(here, notes_thrice, (void *)0), *b = spawn_with(here, notes_thrice, (void *)1);
  join(a);
  join(b);
  for (int i = 0; i < 6; i++) CHECK_EQ(order[i], i % 2);
  return 0;
}

static void two_yielders_alternate(void **state) {
  (void)state;
  for (int i = 0; i < 50; i++)
    run_with((struct coir_config){.steal_min_live = 4, .monitor = STRICT_MONITOR}, alternates, NULL);
}

/* ---- Priorities -------------------------------------------------------------------------------------------------- */

static int by_priority(void *arg) {
  (void)arg;
  order_count = 0;
  struct coir_fiber *f[30];
  for (int i = 0; i < 30; i++)
    f[i] =
        spawn_with((struct coir_attr){.priority = (enum coir_priority)(i / 10 - 1)}, note, (void *)(intptr_t)(i / 10));
  for (int i = 0; i < 30; i++) join(f[i]);
  int inversions = 0;
  for (int i = 0; i < 30; i++)
    for (int j = i + 1; j < 30; j++) inversions += order[i] < order[j];
  CHECK(inversions <= 40); /* of 300 pairs of different priority; ageing lets a few through */
  return 0;
}

static void high_before_normal_before_low(void **state) {
  (void)state;
  run_with((struct coir_config){.workers = 1, .monitor = STRICT_MONITOR}, by_priority, NULL);
}

static _Atomic(int) stop;
static int64_t patience; /* when those that press give up */

static int presses(void *slice) {
  while (!atomic_load(&stop) && coir_now() < patience) {
    if (slice) spin_for((intptr_t)slice);
    coir_yield();
  }
  return 0;
}

static int stops(void *arg) {
  (void)arg;
  atomic_store(&stop, 1);
  return 0;
}

static int sleeps_and_stops(void *arg) {
  CHECK_EQ(coir_sleep(COIR_MS(1)), 0);
  return stops(arg);
}

/* `pressed` must get its turn although those that press are always ready. */
struct starvation {
  struct coir_attr pressing[2], pressed;
  int64_t slice;
};

static int starve(void *arg) {
  struct starvation *s = arg;
  atomic_store(&stop, 0);
  patience = coir_after(COIR_SEC(2));
  struct coir_fiber *f[4];
  for (int i = 0; i < 4; i++) f[i] = spawn_with(s->pressing[i % 2], presses, (void *)(intptr_t)s->slice);
  for (int i = 0; i < 4; i++) coir_yield();
  struct coir_fiber *last = spawn_with(s->pressed, stops, NULL);
  for (int i = 0; i < 4; i++) join(f[i]);
  int was_starved = coir_now() >= patience;
  join(last);
  return was_starved;
}

static void nobody_starves(void **state) {
  (void)state;
  static const int64_t slices[] = {0, COIR_US(30), COIR_US(60), COIR_US(200)};
  struct coir_attr kinds[] = {
      {.priority = COIR_PRIORITY_LOW}, {0}, {.priority = COIR_PRIORITY_HIGH}, {.pinned = true},
      {.order = COIR_ORDER_LIFO},
  };
  enum { KINDS = sizeof kinds / sizeof *kinds, SLICES = sizeof slices / sizeof *slices };
  int starved = 0;
  for (int n = 0; n < KINDS * KINDS * KINDS * SLICES; n++) {
    int a = n % KINDS, b = n / KINDS % KINDS, c = n / KINDS / KINDS % KINDS, i = n / KINDS / KINDS / KINDS;
    if (a > b) continue;
    struct starvation s = {{kinds[a], kinds[b]}, kinds[c], slices[i]};
    if (!run_with((struct coir_config){.workers = 1}, starve, &s)) continue;
    fprintf(stderr, "kinds %d and %d, with slices of %lld ns, starve kind %d\n", a, b, (long long)slices[i], c);
    starved++;
  }
  CHECK_EQ(starved, 0);
}

static int yields_while_one_sleeps(void *arg) {
  (void)arg;
  int64_t until = coir_after(COIR_MS(1)), now = 0;
  struct coir_fiber *sleeper;
  atomic_store(&stop, 0);
  CHECK_EQ(coir_spawn(sleeps_and_stops, NULL, NULL, &sleeper), 0);
  while (!atomic_load(&stop) && (now = coir_now()) < until + COIR_SEC(2)) coir_yield();
  join(sleeper);
  return now < until + COIR_SEC(2) ? 0 : -ETIMEDOUT;
}

static void a_lone_yielder_lets_timers_fire(void **state) {
  (void)state;
  CHECK_EQ(run_with((struct coir_config){.workers = 1, .monitor = STRICT_MONITOR}, yields_while_one_sleeps, NULL), 0);
  CHECK_EQ(run_with((struct coir_config){.workers = 4, .steal = COIR_OFF}, yields_while_one_sleeps, NULL), 0);
}

/* Fibers that wake each other through the next slot must not keep others from running. */
static int pong(void *arg) {
  struct coir_fiber *_Atomic *other = arg;
  WAIT_FOR(atomic_load(other));
  while (!atomic_load(&stop)) {
    coir_cancel(atomic_load(other));
    (void)coir_sleep(COIR_US(50));
  }
  return 0;
}

static int ping_pong(void *arg) {
  (void)arg;
  struct coir_fiber *_Atomic f[2] = {NULL, NULL};
  atomic_store(&stop, 0);
  struct coir_fiber *a = spawn(pong, &f[1]), *b = spawn(pong, &f[0]);
  atomic_store(&f[0], a);
  atomic_store(&f[1], b);
  int64_t t = coir_now();
  for (int i = 0; i < 1000; i++) coir_yield();
  CHECK(coir_now() - t < COIR_SEC(1));
  atomic_store(&stop, 1);
  join(a);
  join(b);
  return 0;
}

static void the_next_slot_is_bounded(void **state) {
  (void)state;
  run_with((struct coir_config){.workers = 1, .monitor = STRICT_MONITOR}, ping_pong, NULL);
}

/* ---- Binding ----------------------------------------------------------------------------------------------------- */

static int stays(void *arg) {
  int home = coir_worker_index();
  if (arg) CHECK_EQ(home, (int)(intptr_t)arg - 1);
  for (int i = 0; i < 50; i++) {
    if (i % 4) coir_yield();
    else CHECK_EQ(coir_sleep(COIR_US(20)), 0);
    CHECK_EQ(coir_worker_index(), home);
  }
  return 0;
}

static int starts_at(void *arg) {
  CHECK_EQ(coir_worker_index(), (int)(intptr_t)arg - 1);
  return 0;
}

static int binds(void *arg) {
  (void)arg;
  int workers = stats_now().workers;
  struct coir_fiber *f[96];
  for (int i = 0; i < 96; i++) {
    struct coir_attr attr = {0};
    uint32_t target = COIR_WORKER(i % workers);
    attr.pinned = i % 3 != 2;
    attr.worker = i % 3 ? target : 0;
    attr.priority = (enum coir_priority)(i % 5 == 0);
    f[i] = spawn_with(attr, attr.pinned ? stays : starts_at, (void *)(intptr_t)(attr.worker));
  }
  for (int i = 0; i < 96; i++) join(f[i]);
  return 0;
}

static void bound_fibers_stay(void **state) {
  (void)state;
  run(binds, NULL);
  run_with((struct coir_config){.migrate = COIR_ON}, binds, NULL);
  run_with((struct coir_config){.affinity = COIR_ON}, binds, NULL);
  run_with((struct coir_config){.rebalance = COIR_ON, .rebalance_threshold = 1, .rebalance_interval_ms = 1}, binds,
           NULL);
  run_with((struct coir_config){.guard = COIR_GUARD_CANARY}, binds, NULL);
}

static int last_of[8];

static int in_turn(void *arg) {
  int sender = (int)(intptr_t)arg / 1000, i = (int)(intptr_t)arg % 1000;
  CHECK_EQ(last_of[sender], i); /* all run on one worker: no lock */
  last_of[sender] = i + 1;
  return 0;
}

static int sends(void *arg) {
  struct coir_attr there = {.worker = COIR_WORKER(0)};
  for (int i = 0; i < 500; i++) {
    CHECK_EQ(coir_spawn(in_turn, (void *)((intptr_t)arg * 1000 + i), &there, NULL), 0);
    if (i % 50 == 0) coir_yield();
  }
  return 0;
}

static struct coir_runtime *the_runtime;

static void *thread_sends(void *arg) {
  struct coir_attr there = {.worker = COIR_WORKER(0)};
  for (int i = 0; i < 500; i++)
    CHECK_EQ(coir_runtime_spawn(the_runtime, in_turn, (void *)((intptr_t)arg * 1000 + i), &there, NULL), 0);
  return NULL;
}

static void the_inbox_keeps_the_order_of_each_sender(void **state) {
  (void)state;
  memset(last_of, 0, sizeof last_of);
  the_runtime = make_runtime((struct coir_config){0});
  CHECK_EQ(coir_runtime_start(the_runtime), 0);
  pthread_t t[2];
  for (int i = 0; i < 4; i++) {
    struct coir_stats s;
    coir_runtime_get_stats(the_runtime, &s);
    struct coir_attr spread = {.worker = COIR_WORKER(i % s.workers), .pinned = true}; /* one sender, one worker */
    CHECK_EQ(coir_runtime_spawn(the_runtime, sends, (void *)(intptr_t)i, &spread, NULL), 0);
  }
  for (int i = 0; i < 2; i++) CHECK_EQ(pthread_create(&t[i], NULL, thread_sends, (void *)(intptr_t)(4 + i)), 0);
  for (int i = 0; i < 2; i++) pthread_join(t[i], NULL);
  CHECK_EQ(coir_runtime_stop(the_runtime, COIR_STOP_DRAIN, COIR_NEVER), 0);
  for (int i = 0; i < 6; i++) CHECK_EQ(last_of[i], 500);
  CHECK_EQ(coir_runtime_destroy(the_runtime), 0);
}

/* ---- Stealing ---------------------------------------------------------------------------------------------------- */

static _Atomic(uint64_t) ran_on; /* a bit for each worker */
static _Atomic(int) done;

static int marks_worker(void *arg) {
  (void)arg;
  atomic_fetch_or(&ran_on, UINT64_C(1) << coir_worker_index());
  atomic_fetch_add(&done, 1);
  return 0;
}

/* What is queued behind a fiber that computes is run by others. */
static int hog(void *arg) {
  int n = (int)(intptr_t)arg;
  atomic_store(&ran_on, 0);
  atomic_store(&done, 0);
  for (int i = 0; i < n; i++)
    CHECK_EQ(coir_spawn(marks_worker, NULL, &(struct coir_attr){.order = (enum coir_order)(i % 2)}, NULL), 0);
  SPIN_UNTIL(atomic_load(&done) == n);
  CHECK(!(atomic_load(&ran_on) & UINT64_C(1) << coir_worker_index()));
#ifndef COIR_HARD /* there most do not fit into the ring, and nobody has to steal them */
  CHECK(stats_now().steals >= (uint64_t)n - 1);
#endif
  return 0;
}

static void others_steal_from_a_hog(void **state) {
  (void)state;
  run_with((struct coir_config){.workers = 2, .monitor = COIR_OFF}, hog, (void *)100);
  run_with((struct coir_config){.workers = 4, .monitor = COIR_OFF}, hog, (void *)1000);
  run_with((struct coir_config){.workers = 4, .monitor = COIR_OFF, .guard = COIR_GUARD_CANARY}, hog, (void *)1000);
}

static int64_t best_rescue;

/* One alone behind a hog is left to the watcher. */
static int lone(void *how) {
  atomic_store(&done, 0);
  int64_t t = coir_now();
  CHECK_EQ(coir_spawn(marks_worker, NULL, &(struct coir_attr){.order = (enum coir_order)(intptr_t)how}, NULL), 0);
  SPIN_UNTIL(atomic_load(&done));
  int64_t took = coir_now() - t;
  if (took < best_rescue) best_rescue = took;
  return 0;
}

/* The same for a fiber in the next slot: woken by the hog itself. */
static int sleeps_and_marks(void *arg) {
  (void)coir_sleep(COIR_NEVER);
  return marks_worker(arg);
}

static int lone_in_the_slot(void *arg) {
  (void)arg;
  atomic_store(&done, 0);
  struct coir_fiber *f = spawn(sleeps_and_marks, NULL);
  coir_sleep(COIR_MS(3));
  int64_t t = coir_now();
  CHECK_EQ(coir_cancel(f), 0);
  SPIN_UNTIL(atomic_load(&done));
  int64_t took = coir_now() - t;
  if (took < best_rescue) best_rescue = took;
  join(f);
  return 0;
}

static void a_lone_fiber_behind_a_hog_is_rescued(void **state) {
  (void)state;
  static const int workers[] = {2, 4, 8};
  for (int w = 0; w < 3; w++)
    for (int how = 0; how < 3; how++) {
      best_rescue = COIR_NEVER;
      for (int i = 0; i < 10 && best_rescue > COIR_MS(20); i++)
        run_with((struct coir_config){.workers = workers[w]}, how < 2 ? lone : lone_in_the_slot, (void *)(intptr_t)how);
      CHECK(best_rescue <= COIR_MS(20));
    }
}

static int hog_alone(void *arg) {
  (void)arg;
  atomic_store(&done, 0);
  for (int i = 0; i < 20; i++) CHECK_EQ(coir_go(marks_worker, NULL), 0);
  spin_for(COIR_MS(30));
  CHECK_EQ(atomic_load(&done), 0); /* nobody took any */
  CHECK_EQ(stats_now().steals, 0);
  struct coir_tuning t;
  coir_runtime_get_tuning(coir_runtime_current(), &t);
  if (t.steal_min_live > 0 || t.steal_min_victim > 1) CHECK_EQ(t.steal, 1);
  return 0;
}

static void the_switch_and_the_thresholds_hold_thieves_off(void **state) {
  (void)state;
  run_with((struct coir_config){.workers = 4, .monitor = COIR_OFF, .steal = COIR_OFF}, hog_alone, NULL);
  run_with((struct coir_config){.workers = 4, .monitor = COIR_OFF, .steal_min_live = 22}, hog_alone, NULL);
  run_with((struct coir_config){.workers = 4, .monitor = COIR_OFF, .steal_min_victim = 21}, hog_alone, NULL);
}

static int switches_stealing_on(void *arg) {
  (void)arg;
  atomic_store(&done, 0);
  for (int i = 0; i < 20; i++) CHECK_EQ(coir_go(marks_worker, NULL), 0);
  spin_for(COIR_MS(5));
  CHECK_EQ(atomic_load(&done), 0);
  struct coir_tuning t;
  coir_runtime_get_tuning(coir_runtime_current(), &t);
  t.steal = 1;
  coir_runtime_set_tuning(coir_runtime_current(), &t);
  CHECK_EQ(coir_go(marks_worker, NULL), 0); /* announces itself */
  SPIN_UNTIL(atomic_load(&done) == 21);
  return 0;
}

static void stealing_can_be_switched_on(void **state) {
  (void)state;
  run_with((struct coir_config){.workers = 3, .monitor = COIR_OFF, .steal = COIR_OFF}, switches_stealing_on, NULL);
}

/* ---- Rebalancing ------------------------------------------------------------------------------------------------- */

static int yields_and_marks(void *arg) {
  int64_t until = *(int64_t *)arg;
  do {
    atomic_fetch_or(&ran_on, UINT64_C(1) << coir_worker_index());
    coir_yield();
  } while (__builtin_popcountll(atomic_load(&ran_on)) < 2 && coir_now() < until);
  return 0;
}

static int crowd(void *arg) {
  (void)arg;
  int64_t until = coir_after(COIR_SEC(20)); /* it takes some milliseconds */
  struct coir_fiber *f[100];
  atomic_store(&ran_on, 0);
  for (int i = 0; i < 100; i++) f[i] = spawn(yields_and_marks, &until);
  for (int i = 0; i < 100; i++) join(f[i]);
  struct coir_stats s = stats_now();
  CHECK(s.rebalances_attempted > 0 && s.rebalanced > 0 && s.steals == 0);
  CHECK(__builtin_popcountll(atomic_load(&ran_on)) > 1);
  return 0;
}

static void the_rebalancer_spreads_a_crowd(void **state) {
  (void)state;
  run_with((struct coir_config){.workers = 4, .steal = COIR_OFF, .rebalance = COIR_ON, .rebalance_interval_ms = 2},
           crowd, NULL);
}

/* ---- Affinity ---------------------------------------------------------------------------------------------------- */

static int wanders(void *moves) {
  int was = coir_worker_index();
  for (int i = 0; i < 40; i++) {
    CHECK_EQ(coir_sleep(COIR_US(500)), 0);
    if (coir_worker_index() != was) atomic_fetch_add((_Atomic(int) *)moves, 1);
    was = coir_worker_index();
  }
  return 0;
}

static int few_wander(void *moves) {
  int workers = stats_now().workers;
  struct coir_fiber *f[8];
  for (int i = 0; i < 8; i++) f[i] = spawn_with((struct coir_attr){.worker = COIR_WORKER(i % workers)}, wanders, moves);
  for (int i = 0; i < 8; i++) join(f[i]);
  return 0;
}

static void a_woken_fiber_goes_back(void **state) {
  (void)state;
  int best = INT32_MAX;
  for (int i = 0; i < 5 && best >= 32; i++) {
    _Atomic(int) moves = 0;
    run_with((struct coir_config){.affinity = COIR_ON}, few_wander, &moves);
    if (moves < best) best = moves;
  }
  CHECK(best < 32); /* of 320 wakes */
}

static int is_cancelled_at_home(void *arg) {
  (void)arg;
  int home = coir_worker_index(), stayed = 0;
  for (int i = 0; i < 20; i++) {
    CHECK_EQ(coir_sleep(COIR_NEVER), -ECANCELED);
    stayed += coir_worker_index() == home;
  }
  return stayed;
}

static int wakes_from_elsewhere(void *arg) {
  (void)arg;
  struct coir_fiber *f = spawn_with((struct coir_attr){.worker = COIR_WORKER(1)}, is_cancelled_at_home, NULL);
  int woken = 0;
  while (coir_cancel(f) != -ESRCH && woken < 1000) {
    woken++;
    coir_sleep(COIR_MS(1));
  }
  return join(f);
}

static void affinity_holds_across_workers(void **state) {
  (void)state;
  struct coir_config config = {.workers = 3, .affinity = COIR_ON, .steal_min_victim = 2};
  int best = 0;
  /* A worker that the system does not let run for a millisecond is not waited for: hence several tries. */
  for (int i = 0; i < 5 && best < 18; i++) {
    int stayed = run_with(config, wakes_from_elsewhere, NULL);
    if (stayed > best) best = stayed;
  }
  CHECK(best >= 18); /* of 20; without affinity about a third */
}

/* ---- The end, and idleness --------------------------------------------------------------------------------------- */

static int ends_on(void *arg) {
  (void)arg;
  spin_for(COIR_US(50));
  return 0;
}

static int spreads(void *arg) {
  int workers = stats_now().workers;
  for (int i = 0; i < workers; i++)
    CHECK_EQ(coir_spawn(ends_on, NULL, &(struct coir_attr){.worker = COIR_WORKER(i)}, NULL), 0);
  if (arg) coir_sleep(COIR_MS(1));
  return 0;
}

static void the_last_fiber_ends_the_run_wherever_it_ends(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){0});
  int64_t t = coir_now();
  for (int i = 0; i < rounds(300); i++) CHECK_EQ(coir_runtime_run(rt, spreads, (void *)(intptr_t)(i % 2), NULL), 0);
  CHECK(coir_now() - t < COIR_SEC(10)); /* an end noticed late, by a timeout, would show */
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

/* How often the other threads of this process were woken so far. */
static long wake_ups(void) {
  long sum = 0;
  DIR *dir = opendir("/proc/self/task");
  CHECK(dir);
  for (struct dirent *e; (e = readdir(dir));) {
    char path[300], line[128];
    if (e->d_name[0] == '.' || atoi(e->d_name) == getpid()) continue;
    snprintf(path, sizeof path, "/proc/self/task/%s/status", e->d_name);
    FILE *f = fopen(path, "r");
    if (!f) continue;
    for (long n; fgets(line, sizeof line, f);)
      if (sscanf(line, "voluntary_ctxt_switches: %ld", &n) == 1) sum += n;
    fclose(f);
  }
  closedir(dir);
  return sum;
}

static int parks(void *arg) {
  (void)arg;
  CHECK_EQ(coir_sleep(COIR_SEC(1000)), -ECANCELED);
  return 0;
}

static void an_idle_runtime_does_not_wake(void **state) {
  (void)state;
  for (int pollers = 0; pollers <= 1; pollers++) {
    struct coir_runtime *rt = make_runtime((struct coir_config){.pollers = pollers});
    CHECK_EQ(coir_runtime_start(rt), 0);
    for (int i = 0; i < 1000; i++) CHECK_EQ(coir_runtime_spawn(rt, parks, NULL, NULL, NULL), 0);
    struct coir_stats s;
    WAIT_FOR((coir_runtime_get_stats(rt, &s), s.parks == 1000 && s.workers_idle == s.workers));
    coir_sleep(COIR_MS(50)); /* the watcher's last look */
    long before = wake_ups();
    coir_sleep(COIR_MS(300));
    long woken = wake_ups() - before;
    if (!IS_SANITIZED) CHECK(woken <= 2);
    CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_CANCEL, COIR_NEVER), 0);
    CHECK_EQ(coir_runtime_destroy(rt), 0);
  }
}

/* A lone computing fiber is watched, at growing intervals: not by a storm. */
static int computes(void *arg) {
  (void)arg;
  spin_for(COIR_MS(20));
  uint64_t before = stats_now().sleeps;
  spin_for(COIR_MS(100));
  CHECK(stats_now().sleeps - before < 100);
  return 0;
}

static void watching_a_hog_is_cheap(void **state) {
  (void)state;
  run_with((struct coir_config){.workers = 4}, computes, NULL);
}

int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(yields_go_round),
      cmocka_unit_test(lifo_runs_the_newest_first),
      cmocka_unit_test(two_yielders_alternate),
      cmocka_unit_test(high_before_normal_before_low),
      cmocka_unit_test(nobody_starves),
      cmocka_unit_test(a_lone_yielder_lets_timers_fire),
      cmocka_unit_test(the_next_slot_is_bounded),
      cmocka_unit_test(bound_fibers_stay),
      cmocka_unit_test(the_inbox_keeps_the_order_of_each_sender),
      cmocka_unit_test(others_steal_from_a_hog),
      cmocka_unit_test(a_lone_fiber_behind_a_hog_is_rescued),
      cmocka_unit_test(the_switch_and_the_thresholds_hold_thieves_off),
      cmocka_unit_test(stealing_can_be_switched_on),
      cmocka_unit_test(the_rebalancer_spreads_a_crowd),
      cmocka_unit_test(a_woken_fiber_goes_back),
      cmocka_unit_test(affinity_holds_across_workers),
      cmocka_unit_test(the_last_fiber_ends_the_run_wherever_it_ends),
      cmocka_unit_test(an_idle_runtime_does_not_wake),
      cmocka_unit_test(watching_a_hog_is_cheap),
  };
  if (argc > 1) cmocka_set_test_filter(argv[1]);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
