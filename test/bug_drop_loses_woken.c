/* While COIR_STOP_ABANDON waited for a fiber that somebody outside had claimed and not queued yet, it emptied the
 * queues again and again. What was spawned meanwhile came out of them, but the walk over the descriptors had passed
 * it: it was in no queue any more and was never ended. Joining it, and every later stop, hung. */
#include "harness.h"
#include "internal.h"

#define EARLY 20

static struct coir_runtime *rt;
static _Atomic(bool) over;

static int sleeps(void *arg) {
  (void)arg;
  (void)coir_sleep(COIR_SEC(100));
  return 7;
}

static int naps(void *arg) {
  (void)arg;
  (void)coir_sleep(COIR_MS(1));
  return 7;
}

static struct coir_fiber *spawn_from_outside(coir_fn fn) {
  struct coir_fiber *f;
  CHECK_EQ(coir_runtime_spawn(rt, fn, NULL, NULL, &f), 0);
  return f;
}

static void join_soon(struct coir_fiber *f) {
  struct coir_result result;
  CHECK_EQ(coir_join(f, &result, coir_after(COIR_SEC(20))), 0);
  CHECK(result.status == 7 || result.status == -ECANCELED);
}

static void *stops(void *arg) {
  (void)arg;
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_ABANDON, 0), 0);
  return NULL;
}

/* Is it suspended in a wait that nobody has claimed? Then `*word` is that wait's. */
static bool waits(struct coir_fiber *f, uint64_t *word) {
  *word = atm_load_acq(&f->waiter.word);
  return (*word & COIR__CODE_MASK) == COIR__CODE_OPEN &&
         atm_load_acq(&f->waiter.parked) == (*word & ~(uint64_t)COIR__CODE_MASK);
}

/* This thread is the one that claims: as coir_cancel does, but it takes its time before it wakes. */
static void what_is_spawned_during_the_walk_ends(void **state) {
  (void)state;
  rt = make_runtime((struct coir_config){.workers = 2});
  CHECK_EQ(coir_runtime_start(rt), 0);
  struct coir_fiber *early[EARLY]; /* their descriptors lie before the victim's, and are used again below */
  for (int i = 0; i < EARLY; i++) early[i] = spawn_from_outside(naps);
  struct coir_fiber *victim = spawn_from_outside(sleeps);
  for (int i = 0; i < EARLY; i++) join_soon(early[i]);
  uint64_t word;
  WAIT_FOR(waits(victim, &word));
  CHECK(atm_cas_ar(&victim->waiter.word, &word, (word & ~(uint64_t)COIR__CODE_MASK) | COIR__CODE_CANCELED));
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, stops, NULL), 0);
  WAIT_FOR(atm_load_acq(&rt->phase) == COIR__PHASE_HALT);
  for (int i = 0; i < EARLY; i++) {
    CHECK_EQ(coir_sleep(COIR_MS(5)), 0);
    early[i] = spawn_from_outside(naps);
  }
  coir__wake(&victim->waiter);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  CHECK_EQ(coir_runtime_start(rt), 0);
  for (int i = 0; i < EARLY; i++) join_soon(early[i]);
  join_soon(victim);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, coir_after(COIR_SEC(20))), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

/* ---- The same by chance ------------------------------------------------------------------------------------------ */

static void *spawns(void *arg) {
  (void)arg;
  struct coir_fiber *f[16];
  while (!atomic_load(&over)) {
    for (int i = 0; i < 16; i++) f[i] = spawn_from_outside(naps);
    for (int i = 0; i < 16; i++) join_soon(f[i]);
  }
  return NULL;
}

static void *cancels(void *arg) {
  (void)arg;
  struct coir_fiber *f[4];
  while (!atomic_load(&over)) {
    for (int i = 0; i < 4; i++) f[i] = spawn_from_outside(sleeps);
    usleep(300);
    for (int i = 0; i < 4; i++) (void)coir_cancel(f[i]);
    for (int i = 0; i < 4; i++) join_soon(f[i]);
  }
  return NULL;
}

static void what_others_spawn_and_cancel_ends(void **state) {
  (void)state;
  atomic_store(&over, false);
  rt = make_runtime((struct coir_config){.workers = 2});
  pthread_t threads[3];
  for (int i = 0; i < 3; i++) CHECK_EQ(pthread_create(&threads[i], NULL, i ? spawns : cancels, NULL), 0);
  int64_t enough = coir_after(COIR_SEC(1));
  for (int i = rounds(300); i > 0 && coir_now() < enough; i--) {
    CHECK_EQ(coir_runtime_start(rt), 0);
    usleep(1000);
    CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_ABANDON, 0), 0);
  }
  CHECK_EQ(coir_runtime_start(rt), 0);
  atomic_store(&over, true);
  for (int i = 0; i < 3; i++) CHECK_EQ(pthread_join(threads[i], NULL), 0);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, coir_after(COIR_SEC(20))), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(what_is_spawned_during_the_walk_ends),
      cmocka_unit_test(what_others_spawn_and_cancel_ends),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
