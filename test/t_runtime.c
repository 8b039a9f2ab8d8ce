/* Runtimes: running, starting, stopping, destroying; configuration; statistics; the list of fibers; fork. */
#include "harness.h"

#include <signal.h>

static _Atomic(int) counter;

static int count(void *arg) {
  (void)arg;
  atomic_fetch_add(&counter, 1);
  return 0;
}

static int status_of(void *arg) { return (int)(intptr_t)arg; }

static int sleep_for_ever(void *arg) {
  (void)arg;
  return coir_sleep(COIR_NEVER);
}

static int nap(void *arg) {
  (void)arg;
  CHECK_EQ(coir_sleep(COIR_MS(50)), 0);
  atomic_fetch_add(&counter, 1);
  return 0;
}

static struct coir_stats stats_of(struct coir_runtime *rt) {
  struct coir_stats s;
  coir_runtime_get_stats(rt, &s);
  return s;
}

/* A number from a file of /proc, behind `name`. */
static long proc_number(const char *path, const char *name) {
  char line[256];
  long n = -1;
  FILE *f = fopen(path, "r");
  if (!f) return -1;
  while (n < 0 && fgets(line, sizeof line, f))
    if (!strncmp(line, name, strlen(name))) n = strtol(line + strlen(name), NULL, 10);
  fclose(f);
  return n;
}

static long threads_now(void) { return proc_number("/proc/self/status", "Threads:"); }
static long resident_kib(void) { return proc_number("/proc/self/status", "VmRSS:"); }

/* ---- Running --------------------------------------------------------------------------------------------------- */

static void run_returns_what_the_first_fiber_returned(void **state) {
  (void)state;
  CHECK_EQ(coir_run(status_of, (void *)17), 17);
  CHECK_EQ(coir_run(status_of, (void *)-5), -5);
  CHECK_EQ(run(status_of, (void *)18), 18);
}

static void run_without_anything_returns_at_once(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){0});
  int status = 7;
  for (int i = 0; i < 20; i++) CHECK_EQ(coir_runtime_run(rt, NULL, NULL, &status), 0);
  CHECK_EQ(status, 0);
  CHECK_EQ(coir_runtime_run(NULL, count, NULL, NULL), -EINVAL);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
  CHECK_EQ(coir_runtime_destroy(NULL), 0);
  CHECK_EQ(coir_runtime_create(NULL, NULL), -EINVAL);
}

static void spawn_before_run(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){0});
  counter = 0;
  struct coir_fiber *f[100];
  for (int i = 0; i < 100; i++) CHECK_EQ(coir_runtime_spawn(rt, status_of, (void *)(intptr_t)i, NULL, &f[i]), 0);
  for (int i = 0; i < 100; i++) CHECK_EQ(coir_runtime_spawn(rt, count, NULL, NULL, NULL), 0);
  CHECK_EQ(stats_of(rt).fibers_live, 200);
  CHECK_EQ(coir_runtime_run(rt, NULL, NULL, NULL), 0);
  CHECK_EQ(counter, 100);
  for (int i = 0; i < 100; i++) CHECK_EQ(join(f[i]), i); /* a plain thread, after the run */
  CHECK_EQ(coir_runtime_spawn(rt, count, NULL, NULL, NULL), 0);
  CHECK_EQ(coir_runtime_run(rt, nap, NULL, NULL), 0);
  CHECK_EQ(counter, 102);
  CHECK_EQ(stats_of(rt).fibers_live, 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static void run_waits_for_a_sleeper_alone(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){0});
  counter = 0;
  CHECK_EQ(coir_runtime_spawn(rt, nap, NULL, NULL, NULL), 0);
  int64_t t = coir_now();
  CHECK_EQ(coir_runtime_run(rt, NULL, NULL, NULL), 0);
  CHECK(coir_now() - t >= COIR_MS(50) - COIR_US(100));
  CHECK_EQ(counter, 1);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static int busy_inside(void *rt) {
  CHECK(coir_runtime_current() == rt);
  CHECK_EQ(coir_runtime_run(rt, count, NULL, NULL), -EBUSY);
  CHECK_EQ(coir_run(count, NULL), -EBUSY);
  CHECK_EQ(coir_runtime_start(rt), -EBUSY);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, 0), -EDEADLK);
  CHECK_EQ(coir_runtime_destroy(rt), -EBUSY);
  return 0;
}

static void a_running_runtime_is_busy(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){0});
  CHECK_EQ(coir_runtime_run(rt, busy_inside, rt, NULL), 0);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, 0), -EINVAL);
  CHECK_EQ(coir_runtime_start(rt), 0);
  CHECK_EQ(coir_runtime_run(rt, count, NULL, NULL), -EBUSY);
  CHECK_EQ(coir_runtime_destroy(rt), -EBUSY);
  struct coir_fiber *f;
  CHECK_EQ(coir_runtime_spawn(rt, busy_inside, rt, NULL, &f), 0);
  CHECK_EQ(join(f), 0);
  CHECK_EQ(coir_runtime_stop(rt, (enum coir_stop)3, 0), -EINVAL);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), -EINVAL);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
  CHECK_EQ(coir_runtime_destroy(coir_runtime_default()), -EINVAL);
}

/* ---- Several runtimes ------------------------------------------------------------------------------------------ */

static int joins_across(void *other) {
  for (int i = 0; i < rounds(300); i++) {
    struct coir_fiber *f;
    CHECK_EQ(coir_runtime_spawn(other, i % 3 ? status_of : sleep_for_ever, (void *)(intptr_t)i, NULL, &f), 0);
    CHECK(coir_runtime_current() != other);
    if (i % 3 == 0) {
      CHECK_EQ(coir_cancel(f), 0);
      CHECK_EQ(join(f), -ECANCELED);
    } else {
      CHECK_EQ(join(f), i);
    }
  }
  return 0;
}

static void *run_on_thread(void *arg) {
  struct coir_runtime **pair = arg;
  int status = -1;
  CHECK_EQ(coir_runtime_run(pair[0], joins_across, pair[1], &status), 0);
  CHECK_EQ(status, 0);
  return NULL;
}

static void runtimes_use_each_other(void **state) {
  (void)state;
  struct coir_runtime *served = make_runtime((struct coir_config){0});
  struct coir_runtime *a[2] = {make_runtime((struct coir_config){0}), served};
  struct coir_runtime *b[2] = {make_runtime((struct coir_config){.workers = 2}), served};
  CHECK_EQ(coir_runtime_start(served), 0);
  pthread_t t[2];
  CHECK_EQ(pthread_create(&t[0], NULL, run_on_thread, a), 0);
  CHECK_EQ(pthread_create(&t[1], NULL, run_on_thread, b), 0);
  for (int i = 0; i < 2; i++) pthread_join(t[i], NULL);
  CHECK_EQ(coir_runtime_stop(served, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(a[0]), 0);
  CHECK_EQ(coir_runtime_destroy(b[0]), 0);
  CHECK_EQ(coir_runtime_destroy(served), 0);
}

static int starts_and_stops_another(void *arg) {
  (void)arg;
  struct coir_runtime *inner = make_runtime((struct coir_config){.workers = 2});
  CHECK_EQ(coir_runtime_run(inner, count, NULL, NULL), -EBUSY); /* a fiber's thread is not its own to lend */
  CHECK_EQ(coir_runtime_start(inner), 0);
  struct coir_fiber *f;
  CHECK_EQ(coir_runtime_spawn(inner, status_of, (void *)4, NULL, &f), 0);
  CHECK_EQ(join(f), 4);
  CHECK_EQ(coir_runtime_stop(inner, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(inner), 0);
  return 0;
}

static void a_fiber_may_keep_a_runtime_of_its_own(void **state) {
  (void)state;
  for (int i = 0; i < 10; i++) run(starts_and_stops_another, NULL);
}

/* The waker is a worker of a runtime that goes on, the woken one's runtime is destroyed at once. */
static int joins_one(void *other) {
  struct coir_fiber *f;
  CHECK_EQ(coir_runtime_spawn(other, status_of, (void *)6, NULL, &f), 0);
  return join(f);
}

static void a_runtime_may_go_as_soon_as_its_last_fiber_was_woken(void **state) {
  (void)state;
  struct coir_runtime *served = make_runtime((struct coir_config){.workers = 2});
  CHECK_EQ(coir_runtime_start(served), 0);
  for (int i = 0; i < rounds(300); i++) CHECK_EQ(run_with((struct coir_config){.workers = 1}, joins_one, served), 6);
  CHECK_EQ(coir_runtime_stop(served, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(served), 0);
}

/* ---- Start and stop -------------------------------------------------------------------------------------------- */

static void stop_drains(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){0});
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(coir_runtime_start(rt), 0);
    counter = 0;
    for (int j = 0; j < 50; j++) CHECK_EQ(coir_runtime_spawn(rt, j % 10 ? count : nap, NULL, NULL, NULL), 0);
    CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
    CHECK_EQ(counter, 50);
    CHECK_EQ(stats_of(rt).fibers_live, 0);
  }
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static int cancelled_at_every_wait(void *arg) {
  (void)arg;
  CHECK_EQ(coir_sleep(COIR_NEVER), -ECANCELED);
  for (int i = 0; i < 3; i++) CHECK_EQ(coir_sleep(COIR_SEC(100)), -ECANCELED);
  CHECK_EQ(coir_sleep(0), -ECANCELED);
  CHECK_EQ(coir_yield(), 0);
  /* What it spawns now is cancelled as well. */
  struct coir_fiber *f;
  CHECK_EQ(coir_spawn(sleep_for_ever, NULL, NULL, &f), 0);
  int rc;
  while ((rc = coir_join(f, NULL, COIR_NEVER)) == -ECANCELED) coir_yield();
  CHECK_EQ(rc, 0);
  atomic_fetch_add(&counter, 1);
  return 0;
}

static void stop_cancels(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){0});
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(coir_runtime_start(rt), 0);
    counter = 0;
    for (int j = 0; j < 50; j++) CHECK_EQ(coir_runtime_spawn(rt, cancelled_at_every_wait, NULL, NULL, NULL), 0);
    if (i) coir_sleep(COIR_MS(1));
    CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_CANCEL, COIR_NEVER), 0);
    CHECK_EQ(counter, 50);
    CHECK_EQ(stats_of(rt).fibers_live, 0);
  }
  /* The next start knows nothing of it. */
  CHECK_EQ(coir_runtime_spawn(rt, nap, NULL, NULL, NULL), 0);
  CHECK_EQ(coir_runtime_run(rt, NULL, NULL, NULL), 0);
  CHECK_EQ(counter, 51);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static int yields_for_ever(void *arg) {
  (void)arg;
  for (;;) coir_yield();
  return 0;
}

static int joins_for_ever(void *f) { return coir_join(f, NULL, COIR_NEVER); }

static void stop_abandons(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){0});
  for (int i = 0; i < 5; i++) {
    CHECK_EQ(coir_runtime_start(rt), 0);
    struct coir_fiber *sleeper;
    CHECK_EQ(coir_runtime_spawn(rt, sleep_for_ever, NULL, NULL, &sleeper), 0);
    CHECK_EQ(coir_runtime_spawn(rt, joins_for_ever, sleeper, NULL, NULL), 0);
    for (int j = 0; j < 20; j++) {
      struct coir_attr attr = {.pinned = j % 3 == 0, .priority = (enum coir_priority)(j % 3 - 1)};
      CHECK_EQ(coir_runtime_spawn(rt, j % 2 ? yields_for_ever : nap, NULL, &attr, NULL), 0);
    }
    if (i) coir_sleep(COIR_MS(2));
    CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_ABANDON, 0), 0);
    CHECK_EQ(stats_of(rt).fibers_live, 0);
    CHECK_EQ(coir_runtime_list(rt, NULL, 0), 0);
  }
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static void *joins_what_is_dropped(void *f) {
  CHECK_EQ(join(f), -ECANCELED);
  return NULL;
}

static void who_joins_an_abandoned_fiber_is_told(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){0});
  CHECK_EQ(coir_runtime_start(rt), 0);
  struct coir_fiber *f;
  CHECK_EQ(coir_runtime_spawn(rt, sleep_for_ever, NULL, NULL, &f), 0);
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, joins_what_is_dropped, f), 0);
  coir_sleep(COIR_MS(2));
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_ABANDON, 0), 0);
  pthread_join(thread, NULL);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static void stop_times_out_and_the_runtime_runs_on(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){0});
  CHECK_EQ(coir_runtime_start(rt), 0);
  struct coir_fiber *f;
  CHECK_EQ(coir_runtime_spawn(rt, sleep_for_ever, NULL, NULL, &f), 0);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, 0), -ETIMEDOUT);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, -1), -ETIMEDOUT);
  int64_t until = coir_after(COIR_MS(5));
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, until), -ETIMEDOUT);
  CHECK(coir_now() >= until);
  struct coir_fiber *g;
  CHECK_EQ(coir_runtime_spawn(rt, status_of, (void *)3, NULL, &g), 0);
  CHECK_EQ(join(g), 3);
  CHECK_EQ(coir_cancel(f), 0);
  CHECK_EQ(join(f), -ECANCELED);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static void a_hundred_starts_leave_nothing(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){0});
  long threads = threads_now(), kib = 0;
  for (int i = 0; i < 100; i++) {
    CHECK_EQ(coir_runtime_start(rt), 0);
    counter = 0;
    for (int j = 0; j < 20; j++) CHECK_EQ(coir_runtime_spawn(rt, count, NULL, NULL, NULL), 0);
    CHECK_EQ(coir_runtime_stop(rt, (enum coir_stop)(i % 2), COIR_NEVER), 0);
    CHECK_EQ(counter, 20);
    WAIT_FOR(threads_now() == threads); /* the kernel forgets a joined thread a moment later */
    if (i == 20) kib = resident_kib();
  }
  if (!IS_SANITIZED) CHECK(resident_kib() - kib < 1024);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static void a_hundred_runtimes_leave_nothing(void **state) {
  (void)state;
  long threads = threads_now(), kib = 0;
  for (int i = 0; i < 100; i++) {
    CHECK_EQ(run(status_of, (void *)(intptr_t)i), i);
    WAIT_FOR(threads_now() == threads); /* the kernel forgets a joined thread a moment later */
    if (i == 20) kib = resident_kib();
  }
  if (!IS_SANITIZED) CHECK(resident_kib() - kib < 1024);
}

static void destroy_drops_what_never_ran(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){0});
  counter = 0;
  for (int i = 0; i < 100; i++) {
    struct coir_attr attr = {.worker = i % 2 ? COIR_WORKER(0) : 0, .priority = (enum coir_priority)(i % 3 - 1)};
    CHECK_EQ(coir_runtime_spawn(rt, count, NULL, &attr, NULL), 0);
  }
  CHECK_EQ(coir_runtime_destroy(rt), 0);
  CHECK_EQ(counter, 0);
}

/* ---- Plain threads that spawn ---------------------------------------------------------------------------------- */

static int note_time(void *at) {
  atomic_store((_Atomic(int64_t) *)at, coir_now());
  return 0;
}

static void a_sleeping_runtime_starts_a_foreign_fiber_at_once(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){0});
  CHECK_EQ(coir_runtime_start(rt), 0);
  struct coir_stats before = stats_of(rt);
  int64_t best = COIR_NEVER, sum = 0;
  for (int i = 0; i < 20; i++) {
    WAIT_FOR(stats_of(rt).workers_idle == before.workers);
    _Atomic(int64_t) at = 0;
    int64_t t = coir_now();
    CHECK_EQ(coir_runtime_spawn(rt, note_time, &at, NULL, NULL), 0);
    SPIN_UNTIL(atomic_load(&at));
    int64_t took = at - t;
    sum += took;
    if (took < best) best = took;
  }
  CHECK(best < COIR_MS(5));
  CHECK(sum / 20 < COIR_MS(50));
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  struct coir_stats after = stats_of(rt);
  CHECK_EQ(after.injected - before.injected, 20);
  CHECK_EQ(after.injected_taken, after.injected);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static void *spawns_many(void *rt) {
  for (int i = 0; i < rounds(2000); i++) CHECK_EQ(coir_runtime_spawn(rt, count, NULL, NULL, NULL), 0);
  return NULL;
}

static void many_threads_spawn(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){0});
  CHECK_EQ(coir_runtime_start(rt), 0);
  counter = 0;
  pthread_t t[4];
  for (int i = 0; i < 4; i++) CHECK_EQ(pthread_create(&t[i], NULL, spawns_many, rt), 0);
  for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(counter, 4 * rounds(2000));
  struct coir_stats s = stats_of(rt);
  uint64_t spawned = 4 * (uint64_t)rounds(2000);
  CHECK(s.injected >= spawned && s.injected - spawned <= s.handoffs + s.preemptions); /* those without a worker */
  CHECK_EQ(s.injected_taken, s.injected);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

/* ---- Configuration --------------------------------------------------------------------------------------------- */

static struct coir_tuning tuning_of(struct coir_config config) {
  struct coir_runtime *rt = make_runtime(config);
  struct coir_tuning t;
  coir_runtime_get_tuning(rt, &t);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
  return t;
}

static int workers_of(struct coir_config config) {
  struct coir_runtime *rt = make_runtime(config);
  int n = stats_of(rt).workers;
  CHECK_EQ(coir_runtime_destroy(rt), 0);
  return n;
}

static void bad_configurations(void **state) {
  (void)state;
  struct coir_runtime *rt = (void *)&counter;
  struct coir_config bad[] = {
      {.size = sizeof(struct coir_config) + 1},
      {.size = 1},
      {.workers = -1},
      {.guard = (enum coir_guard)99},
      {.guard = (enum coir_guard) - 1},
      {.alloc = (void *(*)(size_t, void *))(uintptr_t)count},
      {.free = (void (*)(void *, size_t, void *))(uintptr_t)count},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    rt = (void *)&counter;
    CHECK_EQ(coir_runtime_create(&rt, &bad[i]), -EINVAL);
    CHECK(rt == NULL);
  }
  CHECK_EQ(coir_configure(NULL), -EINVAL);
  CHECK_EQ(coir_configure(&bad[0]), -EINVAL);
  CHECK(coir_runtime_default() != NULL);
  CHECK_EQ(coir_configure(&(struct coir_config){0}), -EBUSY);
}

static void values_are_brought_into_range(void **state) {
  (void)state;
  CHECK_EQ(workers_of((struct coir_config){.workers = 1000}), 64);
  CHECK_EQ(workers_of((struct coir_config){.workers = 3}), 3);
  struct coir_tuning t =
      tuning_of((struct coir_config){.steal = COIR_OFF, .affinity = COIR_ON, .rebalance_threshold = 7});
  CHECK(!t.steal && t.affinity == 1 && t.rebalance_threshold == 7 && !t.rebalance);
  t = tuning_of((struct coir_config){0});
  CHECK(t.steal == 1 && t.steal_min_live == 0 && t.steal_min_victim == 1 && t.affinity == 0);
  CHECK(t.rebalance == 0 && t.rebalance_threshold == 4 && t.rebalance_interval_ms == 10);
}

static void tuning_is_brought_into_range(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){.workers = 1});
  struct coir_tuning t = {5, -3, 0, 9, -1, 0, -7};
  coir_runtime_set_tuning(rt, &t);
  coir_runtime_get_tuning(rt, &t);
  CHECK(t.steal == 1 && t.steal_min_live == 0 && t.steal_min_victim == 1 && t.affinity == 1);
  CHECK(t.rebalance == 0 && t.rebalance_threshold == 1 && t.rebalance_interval_ms == 1);
  t = (struct coir_tuning){0, 5, 6, 0, 0, 7, 8};
  coir_runtime_set_tuning(rt, &t);
  coir_runtime_set_tuning(rt, NULL);
  coir_runtime_set_tuning(NULL, &t);
  memset(&t, 0x55, sizeof t);
  coir_runtime_get_tuning(rt, &t);
  CHECK(t.steal == 0 && t.steal_min_live == 5 && t.steal_min_victim == 6 && t.affinity == 0);
  CHECK(t.rebalance == 0 && t.rebalance_threshold == 7 && t.rebalance_interval_ms == 8);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static void environment_child(void) {
  setenv("COIR_WORKERS", "5", 1);
  CHECK_EQ(workers_of((struct coir_config){0}), 5);
  CHECK_EQ(workers_of((struct coir_config){.workers = 2}), 2); /* the field counts first */
  setenv("COIR_WORKERS", "100", 1);
  CHECK_EQ(workers_of((struct coir_config){0}), 64);
  setenv("COIR_WORKERS", "0", 1);
  CHECK(workers_of((struct coir_config){0}) >= 1);
  setenv("COIR_WORKERS", "-7", 1);
  CHECK_EQ(workers_of((struct coir_config){0}), 1);
  setenv("COIR_WORKERS", "", 1);
  CHECK(workers_of((struct coir_config){0}) >= 1);
  unsetenv("COIR_WORKERS");
  setenv("COIR_STEAL", "0", 1);
  setenv("COIR_AFFINITY", "1", 1);
  setenv("COIR_REBALANCE", "1", 1);
  setenv("COIR_REBALANCE_THRESHOLD", "9", 1);
  setenv("COIR_REBALANCE_INTERVAL_MS", "99999999999999999999", 1);
  setenv("COIR_STEAL_MIN_LIVE", "11", 1);
  setenv("COIR_STEAL_MIN_VICTIM", "12", 1);
  struct coir_tuning t = tuning_of((struct coir_config){0});
  CHECK(t.steal == 0 && t.affinity == 1 && t.rebalance == 1 && t.rebalance_threshold == 9);
  CHECK(t.rebalance_interval_ms > 1000000 && t.steal_min_live == 11 && t.steal_min_victim == 12);
  t = tuning_of((struct coir_config){.steal = COIR_ON, .affinity = COIR_OFF});
  CHECK(t.steal == 1 && t.affinity == 0);
  setenv("COIR_GUARD", "canary", 1);
  struct coir_runtime *rt = make_runtime((struct coir_config){0});
  CHECK_EQ(stats_of(rt).guard, COIR_GUARD_CANARY);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static void the_environment_fills_in(void **state) {
  (void)state;
  char text[4096];
  int status = in_child_process(environment_child, text, sizeof text);
  if (status) fprintf(stderr, "%s", text);
  CHECK_EQ(status, 0);
  CHECK(!strcmp(text, "")); /* clamping is silent */
}

static void bad_environment_child(void) {
  setenv("COIR_WORKERS", "three", 1);
  CHECK(workers_of((struct coir_config){0}) >= 1);
  setenv("COIR_WORKERS", "3", 1);
  setenv("COIR_STEAL", "1x", 1);
  setenv("COIR_GUARD", "Canary", 1);
  CHECK_EQ(tuning_of((struct coir_config){0}).steal, 1);
  CHECK_EQ(workers_of((struct coir_config){.steal = COIR_ON, .guard = COIR_GUARD_CANARY}), 3);
}

static void a_bad_variable_is_reported_and_ignored(void **state) {
  (void)state;
  char text[4096];
  CHECK_EQ(in_child_process(bad_environment_child, text, sizeof text), 0);
  CHECK(strstr(text, "COIR_WORKERS") && strstr(text, "three"));
  CHECK(strstr(text, "COIR_STEAL") && strstr(text, "1x"));
  CHECK(strstr(text, "COIR_GUARD") && strstr(text, "Canary"));
}

/* In a fresh process (see main): the default runtime is made once. */
static void configure_child(void) {
  struct coir_config c = {.workers = 3, .steal = COIR_OFF, .poll_partition = COIR_OFF, .steal_min_live = 5};
  setenv("COIR_STEAL", "1", 1);
  CHECK_EQ(coir_configure(&(struct coir_config){.workers = 2}), 0);
  CHECK_EQ(coir_configure(&c), 0); /* the last one counts */
  c.workers = 9;                   /* it was copied */
  CHECK_EQ(coir_run(status_of, (void *)1), 1);
  struct coir_tuning t;
  coir_runtime_get_tuning(coir_runtime_default(), &t);
  CHECK_EQ(stats_of(coir_runtime_default()).workers, 3);
  CHECK_EQ(t.steal, 0);
  CHECK_EQ(t.steal_min_live, 5);
  CHECK_EQ(coir_configure(&c), -EBUSY);
}

static void configure_sets_the_default_runtime(void **state) {
  (void)state;
  char text[4096];
  int status = in_child_process(configure_child, text, sizeof text); /* a forked child has no default runtime yet */
  if (status) fprintf(stderr, "%s", text);
  CHECK_EQ(status, 0);
}

/* ---- Statistics ------------------------------------------------------------------------------------------------ */

static int yields(void *n) {
  for (int i = 0; i < (int)(intptr_t)n; i++) coir_yield();
  return 0;
}

static int naps(void *n) {
  for (int i = 0; i < (int)(intptr_t)n; i++) CHECK_EQ(coir_sleep(COIR_US(10)), 0);
  return 0;
}

static int pair(void *fn) {
  struct coir_fiber *a = spawn(*(coir_fn *)fn, (void *)5000), *b = spawn(*(coir_fn *)fn, (void *)5000);
  join(a);
  join(b);
  return 0;
}

static void statistics_tell_the_truth(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){.workers = 1, .monitor = STRICT_MONITOR});
  struct coir_stats s = stats_of(rt);
  const char *pollers = getenv("COIR_POLLERS"); /* they are no more than the workers */
  CHECK_EQ(s.pollers, pollers && atoi(pollers) > 0);
  CHECK(s.workers == 1 && s.fibers_live == 0 && s.fibers_spawned == 0 && s.switches == 0);
  coir_fn fn = yields;
  CHECK_EQ(coir_runtime_run(rt, pair, &fn, NULL), 0);
  s = stats_of(rt);
  CHECK_EQ(s.fibers_spawned, 3);
  CHECK_EQ(s.fibers_live, 0);
  CHECK(s.switches >= 10000 && s.switches <= 10100); /* a yield to nobody else is none */
  CHECK(s.parks >= 1 && s.parks <= 2);
  CHECK_EQ(s.wakes, s.parks);
  fn = naps;
  CHECK_EQ(coir_runtime_run(rt, pair, &fn, NULL), 0);
  struct coir_stats t = stats_of(rt);
  CHECK(t.timers_fired - s.timers_fired <= 10000);
  CHECK(t.timers_fired > s.timers_fired);
  CHECK_EQ(t.wakes, t.parks);
  CHECK_EQ(t.steals, 0);
  CHECK_EQ(t.fibers_spawned, 6);
  CHECK_EQ(t.stacks_live, 0);
  CHECK(t.stack_bytes_reserved > 0 && t.guard != COIR_GUARD_AUTO);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static int wakes_from_everywhere(void *other) {
  for (int i = 0; i < 200; i++) {
    struct coir_fiber *f;
    CHECK_EQ(coir_runtime_spawn(other, naps, (void *)1, NULL, &f), 0);
    join(f);
  }
  return 0;
}

static void every_park_has_its_wake(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){0}), *other = make_runtime((struct coir_config){0});
  CHECK_EQ(coir_runtime_start(other), 0);
  CHECK_EQ(coir_runtime_run(rt, wakes_from_everywhere, other, NULL), 0);
  CHECK_EQ(coir_runtime_stop(other, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(stats_of(rt).wakes, stats_of(rt).parks);
  CHECK_EQ(stats_of(other).wakes, stats_of(other).parks);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
  CHECK_EQ(coir_runtime_destroy(other), 0);
}

static int of_every_priority(void *arg) {
  (void)arg;
  struct coir_fiber *f[60];
  for (int i = 0; i < 60; i++)
    f[i] =
        spawn_with((struct coir_attr){.priority = (enum coir_priority)(i % 3 - 1)}, i % 2 ? yields : naps, (void *)5);
  for (int i = 0; i < 60; i++) join(f[i]);
  return 0;
}

static void what_was_injected_was_taken(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){0});
  CHECK_EQ(coir_runtime_run(rt, of_every_priority, NULL, NULL), 0);
  struct coir_stats s = stats_of(rt);
  CHECK_EQ(s.injected, s.injected_taken);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

/* ---- The list of fibers ---------------------------------------------------------------------------------------- */

static int lists(void *arg) {
  (void)arg;
  struct coir_fiber_info info[8];
  struct coir_fiber *s = spawn_with((struct coir_attr){.name = "sleeper"}, sleep_for_ever, NULL);
  struct coir_fiber *j = spawn_with((struct coir_attr){.name = "joiner"}, joins_for_ever, s);
  bool seen = false;
  while (!seen) {
    size_t n = coir_runtime_list(coir_runtime_current(), info, 8);
    CHECK_EQ(n, 3);
    int good = 0;
    for (size_t i = 0; i < n; i++) {
      if (info[i].id == coir_fiber_id(NULL)) {
        good += info[i].state == COIR_FIBER_RUNNING && info[i].worker == coir_worker_index() && !info[i].waits_for[0];
      } else if (info[i].id == coir_fiber_id(s)) {
        CHECK(!strcmp(info[i].name, "sleeper") && info[i].entry == sleep_for_ever);
        good += info[i].state == COIR_FIBER_WAITING && !strcmp(info[i].waits_for, "sleep") && info[i].stack_used > 0 &&
                info[i].stack_used < info[i].stack_bytes && info[i].worker >= 0;
      } else {
        CHECK_EQ(info[i].id, coir_fiber_id(j));
        CHECK(!strcmp(info[i].name, "joiner"));
        good += info[i].state == COIR_FIBER_WAITING && !strcmp(info[i].waits_for, "join") &&
                info[i].waits_on == coir_fiber_id(s);
      }
    }
    seen = good == 3;
    coir_sleep(COIR_US(50));
  }
  CHECK_EQ(coir_runtime_list(coir_runtime_current(), info, 1), 3);
  CHECK_EQ(coir_runtime_list(coir_runtime_current(), NULL, 0), 3);
  CHECK_EQ(coir_cancel(s), 0);
  CHECK_EQ(join(j), 0);
  return 0;
}

static void the_list_shows_what_they_wait_for(void **state) {
  (void)state;
  run(lists, NULL);
  CHECK_EQ(coir_runtime_list(NULL, NULL, 0), 0);
}

static int churn(void *stop) {
  while (!atomic_load((_Atomic(int) *)stop)) {
    struct coir_fiber *f[16];
    for (int i = 0; i < 16; i++)
      f[i] = spawn_with((struct coir_attr){.name = "child"}, i % 2 ? yields : naps, (void *)3);
    coir_set_name("churning");
    for (int i = 0; i < 16; i++) join(f[i]);
    coir_set_name(NULL);
  }
  return 0;
}

static void the_list_while_four_workers_churn(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){.workers = 4});
  _Atomic(int) stop = 0;
  CHECK_EQ(coir_runtime_start(rt), 0);
  for (int i = 0; i < 8; i++) CHECK_EQ(coir_runtime_spawn(rt, churn, &stop, NULL, NULL), 0);
  static struct coir_fiber_info info[256];
  int64_t until = coir_after(COIR_MS(200));
  while (coir_now() < until) {
    size_t n = coir_runtime_list(rt, info, 256);
    CHECK(n <= 8 * 17);
    for (size_t i = 0; i < n; i++) {
      CHECK(info[i].state >= COIR_FIBER_READY && info[i].state <= COIR_FIBER_ENDED);
      CHECK(memchr(info[i].name, 0, sizeof info[i].name));
      CHECK(info[i].waits_for && info[i].worker >= -1 && info[i].worker < 4);
      CHECK(info[i].stack_used <= info[i].stack_bytes);
    }
    struct coir_stats s = stats_of(rt);
    CHECK(s.workers_idle <= 4); /* fibers_live may count what came while it was added up */
  }
  atomic_store(&stop, 1);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

/* ---- The allocator hook ---------------------------------------------------------------------------------------- */

static _Atomic(long) blocks, bytes_out;

static void *hook_alloc(size_t bytes, void *arg) {
  CHECK(arg == &blocks);
  atomic_fetch_add(&blocks, 1);
  atomic_fetch_add(&bytes_out, (long)bytes);
  void *p = malloc(bytes);
  if (p) memset(p, 0xa5, bytes); /* the runtime must not rely on zeroes */
  return p;
}

static void hook_free(void *memory, size_t bytes, void *arg) {
  CHECK(memory && arg == &blocks);
  atomic_fetch_sub(&blocks, 1);
  atomic_fetch_sub(&bytes_out, (long)bytes);
  memset(memory, 0x5a, bytes);
  free(memory);
}

static int uses_memory(void *key) {
  struct coir_fiber *f[600];
  for (int i = 0; i < 600; i++)
    f[i] = spawn_with((struct coir_attr){.order = (enum coir_order)(i % 2)}, yields, (void *)3);
  for (int i = 0; i < 600; i++) join(f[i]);
  CHECK_EQ(coir_local_set(*(int *)key, key), 0);
  for (int i = 0; i < 10; i++) CHECK_EQ(coir_go(sleep_for_ever, NULL), 0);
  return 0;
}

static void the_allocator_hook_balances(void **state) {
  (void)state;
  for (int pollers = 0; pollers < 2; pollers++) {
    struct coir_runtime *rt = make_runtime(
        (struct coir_config){.pollers = pollers, .alloc = hook_alloc, .free = hook_free, .alloc_arg = &blocks});
    CHECK(atomic_load(&blocks) > 0);
    int key = coir_key_create(NULL);
    CHECK_EQ(coir_runtime_start(rt), 0);
    struct coir_fiber *f;
    CHECK_EQ(coir_runtime_spawn(rt, uses_memory, &key, NULL, &f), 0);
    CHECK_EQ(join(f), 0);
    CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_ABANDON, 0), 0);
    CHECK_EQ(coir_runtime_destroy(rt), 0);
    CHECK_EQ(coir_key_delete(key), 0);
    CHECK_EQ(atomic_load(&blocks), 0);
    CHECK_EQ(atomic_load(&bytes_out), 0);
  }
}

/* ---- fork ------------------------------------------------------------------------------------------------------ */

static struct coir_runtime *inherited;

static void fork_child(void) {
  CHECK_EQ(coir_runtime_run(inherited, count, NULL, NULL), -ENOTSUP);
  CHECK_EQ(coir_runtime_start(inherited), -ENOTSUP);
  CHECK_EQ(coir_runtime_stop(inherited, COIR_STOP_DRAIN, 0), -ENOTSUP);
  CHECK_EQ(coir_runtime_spawn(inherited, count, NULL, NULL, NULL), -ENOTSUP);
  CHECK_EQ(coir_runtime_destroy(inherited), -ENOTSUP);
  CHECK(coir_current() == NULL);
  CHECK_EQ(coir_sleep(COIR_US(100)), 0); /* a plain thread */
  int key = coir_key_create(NULL);
  CHECK(key >= 0 && coir_local_set(key, &key) == 0 && coir_local_get(key) == &key);
  CHECK_EQ(coir_run(status_of, (void *)12), 12); /* a fresh default runtime */
  counter = 0;
  CHECK_EQ(run(nap, NULL), 0);
  CHECK_EQ(counter, 1);
}

static int forks(void *arg) {
  (void)arg;
  char text[2048];
  int status = in_child_process(fork_child, text, sizeof text);
  if (status) fprintf(stderr, "%s", text);
  return status;
}

static void a_forked_child_begins_anew(void **state) {
  (void)state;
  if (IS_SANITIZED) return; /* the sanitizers' own threads and stacks do not survive it */
  inherited = make_runtime((struct coir_config){0});
  CHECK_EQ(coir_runtime_start(inherited), 0);
  CHECK_EQ(coir_runtime_spawn(inherited, sleep_for_ever, NULL, NULL, NULL), 0);
  CHECK(coir_runtime_default() != NULL);
  CHECK_EQ(forks(NULL), 0); /* from a plain thread */
  struct coir_fiber *f;
  CHECK_EQ(coir_runtime_spawn(inherited, forks, NULL, NULL, &f), 0);
  CHECK_EQ(join(f), 0);                                            /* from a fiber */
  CHECK_EQ(coir_runtime_stop(inherited, COIR_STOP_ABANDON, 0), 0); /* the parent goes on */
  CHECK_EQ(coir_runtime_destroy(inherited), 0);
}

int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(configure_sets_the_default_runtime), /* first: it wants no default runtime */
      cmocka_unit_test(run_returns_what_the_first_fiber_returned),
      cmocka_unit_test(run_without_anything_returns_at_once),
      cmocka_unit_test(spawn_before_run),
      cmocka_unit_test(run_waits_for_a_sleeper_alone),
      cmocka_unit_test(a_running_runtime_is_busy),
      cmocka_unit_test(runtimes_use_each_other),
      cmocka_unit_test(a_fiber_may_keep_a_runtime_of_its_own),
      cmocka_unit_test(a_runtime_may_go_as_soon_as_its_last_fiber_was_woken),
      cmocka_unit_test(stop_drains),
      cmocka_unit_test(stop_cancels),
      cmocka_unit_test(stop_abandons),
      cmocka_unit_test(who_joins_an_abandoned_fiber_is_told),
      cmocka_unit_test(stop_times_out_and_the_runtime_runs_on),
      cmocka_unit_test(a_hundred_starts_leave_nothing),
      cmocka_unit_test(a_hundred_runtimes_leave_nothing),
      cmocka_unit_test(destroy_drops_what_never_ran),
      cmocka_unit_test(a_sleeping_runtime_starts_a_foreign_fiber_at_once),
      cmocka_unit_test(many_threads_spawn),
      cmocka_unit_test(bad_configurations),
      cmocka_unit_test(values_are_brought_into_range),
      cmocka_unit_test(tuning_is_brought_into_range),
      cmocka_unit_test(the_environment_fills_in),
      cmocka_unit_test(a_bad_variable_is_reported_and_ignored),
      cmocka_unit_test(statistics_tell_the_truth),
      cmocka_unit_test(every_park_has_its_wake),
      cmocka_unit_test(what_was_injected_was_taken),
      cmocka_unit_test(the_list_shows_what_they_wait_for),
      cmocka_unit_test(the_list_while_four_workers_churn),
      cmocka_unit_test(the_allocator_hook_balances),
      cmocka_unit_test(a_forked_child_begins_anew),
  };
  if (argc > 1) cmocka_set_test_filter(argv[1]);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
