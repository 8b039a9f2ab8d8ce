/* Many fibers, for long, and without leaving anything behind. */
#include "gof_test.h"

#include <sys/resource.h>

static _Atomic(int) count;

static void counts(void *arg) {
  (void)arg;
  atomic_fetch_add(&count, 1);
}

/* ---- A million --------------------------------------------------------------------------------------------------- */

#define MILLION (IS_SANITIZED ? 100000 : 1000000)
#define BATCH 1000

static void spawns_batches(void *n) {
  int before = atomic_load(&count);
  for (int done = 0; done < (int)(intptr_t)n; done += BATCH) {
    for (int i = 0; i < BATCH; i++) go(counts, NULL);
    while (atomic_load(&count) < before + done + BATCH) gof_yield();
  }
}

static void a_million_come_and_go(void) {
  go(spawns_batches, number(MILLION / 10));
  gof_run();
  long kib = resident_kib(), threads = threads_now();
  int descriptors = descriptors_now();
  go(spawns_batches, number(MILLION - MILLION / 10));
  gof_run();
  CHECK_EQ(count, MILLION);
  if (!IS_SANITIZED) CHECK(resident_kib() - kib < 4096);
  CHECK_EQ(descriptors_now(), descriptors);
  WAIT_FOR(threads_now() <= threads);
}

/* Each in a run, and with a stack of its own size. */
static void uses_stack(void *bytes) {
  size_t n = (size_t)(uintptr_t)bytes / 2;
  char *block = __builtin_alloca(n);
  memset(block, 1, n);
  __asm__ volatile("" : : "r"(block) : "memory");
  counts(NULL);
}

static void stacks_are_used_again(void) {
  static const size_t sizes[] = {16384, 65536, 262144, 1 << 20, 0};
  long kib = 0;
  for (int i = 0; i < rounds(400); i++) {
    for (int n = 0; n < 20; n++) {
      size_t bytes = sizes[(i + n) % 5];
      CHECK(gof_spawn(uses_stack, number((intptr_t)(bytes ? bytes : 65536)), bytes) != NULL);
    }
    gof_run();
    if (i == rounds(400) / 4) kib = resident_kib();
  }
  if (!IS_SANITIZED) CHECK(resident_kib() - kib < 8192);
}

/* ---- Mixtures ---------------------------------------------------------------------------------------------------- */

static gof_chan_t *chan;
static _Atomic(int) balance;

static void mixes(void *seed) {
  uint64_t rng = rng_seed((uint64_t)(uintptr_t)seed + 1);
  for (int i = 0; i < 20; i++) {
    switch (rng_next(&rng) % 7) {
    case 0: gof_sleep_ms(rng_next(&rng) % 3); break;
    case 1:
      if (gof_chan_try_send(chan, NULL) == 1) atomic_fetch_add(&balance, 1);
      break;
    case 2:
      if (gof_chan_try_recv(chan, NULL) == 1) atomic_fetch_sub(&balance, 1);
      break;
    case 3: go(counts, NULL); break;
    case 4: gof_set_name(i % 2 ? "mixer" : NULL); break;
    default: gof_yield(); break;
    }
  }
  atomic_fetch_add(&count, 1000000);
}

static void *spawns_mixers(void *arg) {
  for (intptr_t i = 0; i < rounds(200); i++) go(mixes, number(i + 5000));
  return arg;
}

static void mix(void) {
  pthread_t t[2];
  chan = gof_chan_make(3);
  for (intptr_t i = 0; i < rounds(1000); i++) go(mixes, number(i));
  for (int i = 0; i < 2; i++) CHECK_EQ(pthread_create(&t[i], NULL, spawns_mixers, NULL), 0);
  gof_run();
  for (int i = 0; i < 2; i++) pthread_join(t[i], NULL);
  gof_run();
  CHECK_EQ(count / 1000000, rounds(1000) + 2 * rounds(200));
  while (gof_chan_try_recv(chan, NULL) == 1) atomic_fetch_sub(&balance, 1);
  CHECK_EQ(balance, 0);
  CHECK_EQ(stats_now().live_fibers, 0);
  CHECK_EQ(stats_now().inject_enqueues, stats_now().inject_drains);
  gof_chan_free(chan);
}

static void all_kinds_mixed(void) { mix(); }

static void mixed_on_any_thread(void) {
  migrate();
  mix();
}

static void mixed_with_a_rebalancer(void) {
  need_workers(4);
  set_env("GOF_REBALANCE", "1");
  set_env("GOF_REBALANCE_THRESHOLD", "1");
  set_env("GOF_REBALANCE_INTERVAL_MS", "1");
  set_env("GOF_STEAL_MIN_LIVE", "0");
  set_env("GOF_STEAL_MIN_VICTIM", "2");
  mix();
}

/* Parameters change all the time. */
static _Atomic(int) stop;

static void *turns_knobs(void *arg) {
  uint64_t rng = rng_seed(7);
  gof_sched_stats s;
  while (!atomic_load(&stop)) {
    gof_set_steal_params(&(gof_steal_params){rng_next(&rng) % 2, (int)(rng_next(&rng) % 8), (int)(rng_next(&rng) % 5)});
    gof_set_rebalance_params(&(gof_rebalance_params){rng_next(&rng) % 2, (int)(rng_next(&rng) % 4), 1});
    gof_set_affinity_enabled(rng_next(&rng) % 2);
    gof_get_stats(&s);
    CHECK(s.steal_min_victim >= 2 && s.rebalance_threshold >= 1);
    spin_for(COIR_US(50));
  }
  return arg;
}

static void mixed_while_parameters_change(void) {
  pthread_t t;
  need_workers(4);
  CHECK_EQ(pthread_create(&t, NULL, turns_knobs, NULL), 0);
  mix();
  atomic_store(&stop, 1);
  pthread_join(t, NULL);
}

/* ---- Many at a time ---------------------------------------------------------------------------------------------- */

#define MANY rounds(20000)

static void waits_for_close(void *arg) {
  (void)arg;
  CHECK_EQ(gof_chan_recv(chan, NULL), -1);
  counts(NULL);
}

static void closes_when_all_wait(void *arg) {
  gof_counters c;
  do {
    gof_yield();
    gof_get_counters(&c);
  } while (c.parks < (uint64_t)MANY);
  gof_chan_close(chan);
  (void)arg;
}

static void many_wait_for_one(void) {
  chan = gof_chan_make(0);
  for (int i = 0; i < MANY; i++) CHECK(gof_spawn(waits_for_close, NULL, 1) != NULL);
  go(closes_when_all_wait, NULL);
  gof_run();
  CHECK_EQ(count, MANY);
  gof_chan_free(chan);
}

static void *spawns_many(void *arg) {
  for (int i = 0; i < MANY / 4; i++) go(counts, NULL);
  return arg;
}

static void threads_spawn_many(void) {
  pthread_t t[4];
  CHECK_EQ(gof_start_background(0), 0);
  for (int i = 0; i < 4; i++) CHECK_EQ(pthread_create(&t[i], NULL, spawns_many, NULL), 0);
  for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
  CHECK_EQ(gof_join_background(), 0);
  CHECK_EQ(count, MANY / 4 * 4);
  gof_sched_stats s = stats_now();
  CHECK_EQ(s.inject_enqueues, MANY / 4 * 4);
  CHECK_EQ(s.inject_drains, s.inject_enqueues);
}

/* A thousand short runs. */
static void many_runs(void) {
  long threads = 0;
  int descriptors = 0;
  for (int i = 0; i < rounds(1000); i++) {
    go(counts, NULL);
    go(counts, NULL);
    gof_run();
    CHECK_EQ(count, 2 * (i + 1));
    if (i == 10) {
      threads = threads_now();
      descriptors = descriptors_now();
    }
  }
  WAIT_FOR(threads_now() <= threads);
  CHECK_EQ(descriptors_now(), descriptors);
}

/* ---- No memory --------------------------------------------------------------------------------------------------- */

/* A spawn that finds no memory says so; what had been spawned runs. */
static void spawns_without_memory(void) {
  struct rlimit before, after;
  int n = 0;
  if (IS_SANITIZED) return; /* they need room themselves */
  gof_init(0);
  go(counts, NULL);
  CHECK_EQ(getrlimit(RLIMIT_AS, &before), 0);
  after = before;
  after.rlim_cur = (rlim_t)proc_number("/proc/self/status", "VmSize:") * 1024 + (8 << 20);
  CHECK_EQ(setrlimit(RLIMIT_AS, &after), 0);
  errno = 0;
  while (n < 10000000 && gof_spawn(counts, NULL, 0)) n++;
  int code = errno;
  CHECK_EQ(setrlimit(RLIMIT_AS, &before), 0);
  CHECK(n < 10000000);
  CHECK_EQ(code, ENOMEM);
  CHECK_EQ(stats_now().live_fibers, n + 1);
  gof_run();
  CHECK_EQ(count, n + 1);
  go(counts, NULL);
  gof_run();
  CHECK_EQ(count, n + 2);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(a_million_come_and_go), CASE(stacks_are_used_again),   CASE(all_kinds_mixed),
      CASE(mixed_on_any_thread),   CASE(mixed_with_a_rebalancer), CASE(mixed_while_parameters_change),
      CASE(many_wait_for_one),     CASE(threads_spawn_many),      CASE(many_runs),
      CASE(spawns_without_memory),
  };
  return RUN_CASES(argc, argv, cases);
}
