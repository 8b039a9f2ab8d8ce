/* Time: nobody wakes early, those whose time comes first wake first, and who waits does not compute. */
#include "gof_test.h"

#define SLEEPERS 1000

static struct sleeper {
  int ms;
  int64_t due, woke;
  int turn;
} sleepers[SLEEPERS];
static _Atomic(int) turns;

static void sleeps(void *arg) {
  struct sleeper *s = arg;
  s->due = coir_now() + COIR_MS(s->ms);
  gof_sleep_ms((uint64_t)s->ms);
  s->woke = coir_now();
  s->turn = atomic_fetch_add(&turns, 1);
}

static int compare(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

static int by_turn(const void *a, const void *b) {
  return ((const struct sleeper *)a)->turn - ((const struct sleeper *)b)->turn;
}

static void sleep_all(uint64_t seed) {
  uint64_t rng = rng_seed(seed);
  atomic_store(&turns, 0);
  for (int i = 0; i < SLEEPERS; i++) {
    sleepers[i] = (struct sleeper){.ms = 1 + (int)(rng_next(&rng) % 50)};
    go(sleeps, &sleepers[i]);
  }
  gof_run();
  CHECK_EQ(turns, SLEEPERS);
}

/* A plain thread, to tell how late anybody is who sleeps on this machine just now. */
static _Atomic(int) over;
static int64_t worst; /* of its naps */

static void *naps_plainly(void *arg) {
  while (!atomic_load(&over)) {
    int64_t due = coir_now() + COIR_MS(1);
    struct timespec ms = {.tv_nsec = 1000000};
    nanosleep(&ms, NULL);
    if (coir_now() - due > worst) worst = coir_now() - due;
  }
  return arg;
}

/* Nobody wakes early. How late they are is told; the limits are for machines that others use, too. Returns whether
 * these were kept. */
static bool check_lateness(void) {
  int64_t late[SLEEPERS];
  for (int i = 0; i < SLEEPERS; i++) {
    late[i] = sleepers[i].woke - sleepers[i].due;
    CHECK(late[i] >= 0);
  }
  qsort(late, SLEEPERS, sizeof *late, compare);
  print_message("lateness: p50 %lld us, p99 %lld us, most %lld us\n", (long long)late[SLEEPERS / 2] / 1000,
                (long long)late[SLEEPERS * 99 / 100] / 1000, (long long)late[SLEEPERS - 1] / 1000);
  if (IS_SANITIZED) return true; /* those who have woken wait until all have begun, and that takes long */
  return late[SLEEPERS / 2] < COIR_MS(20) + worst && late[SLEEPERS * 99 / 100] < COIR_MS(50) + 3 * worst;
}

static void nobody_wakes_early(void) {
  pthread_t t;
  int kept = 0;
  for (uint64_t i = 1; i <= 5; i++) {
    worst = 0;
    atomic_store(&over, 0);
    CHECK_EQ(pthread_create(&t, NULL, naps_plainly, NULL), 0);
    sleep_all(i);
    atomic_store(&over, 1);
    pthread_join(t, NULL);
    kept += check_lateness();
  }
  CHECK(kept > 0);
}

/* On one worker, so that nothing else than the deadlines decides. A thread that loses the CPU between its look at the
 * clock and the sleep looks as if it had woken too late: a few may. */
static void they_wake_by_deadline(void) {
  set_workers(1);
  int misplaced = 0;
  for (uint64_t i = 1; i <= 3; i++) {
    sleep_all(i);
    qsort(sleepers, SLEEPERS, sizeof *sleepers, by_turn);
    int64_t latest = 0;
    for (int n = 0; n < SLEEPERS; n++) {
      misplaced += sleepers[n].due < latest - COIR_MS(2);
      if (sleepers[n].due > latest) latest = sleepers[n].due;
    }
  }
  CHECK(misplaced <= 10);
}

static void repeats(void *arg) {
  for (int i = 0; i < 10; i++) {
    int64_t begin = coir_now();
    gof_sleep_ms((uint64_t)(uintptr_t)arg);
    CHECK(coir_now() - begin >= COIR_MS((int64_t)(intptr_t)arg));
  }
}

static void they_sleep_again_and_again(void) {
  for (intptr_t ms = 1; ms <= 10; ms++)
    for (int i = 0; i < 5; i++) go(repeats, number(ms));
  gof_run();
}

static void also_on_any_thread(void) {
  migrate();
  they_sleep_again_and_again();
}

static void *thread_repeats(void *arg) {
  repeats(arg);
  return NULL;
}

static void plain_threads_too(void) {
  pthread_t t[4];
  for (intptr_t i = 0; i < 4; i++) CHECK_EQ(pthread_create(&t[i], NULL, thread_repeats, number(i + 1)), 0);
  for (int i = 0; i < 20; i++) go(repeats, number(2));
  gof_run();
  for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
}

static void naps(void *ms) { gof_sleep_ms((uint64_t)(uintptr_t)ms); }

static void a_single_sleeper_does_not_compute(void) {
  go(naps, number(10));
  gof_run(); /* what is made at first is made */
  int64_t cpu = cpu_now();
  go(naps, number(400));
  gof_run();
  CHECK(cpu_now() - cpu < COIR_MS(100));
}

static void nor_do_a_thousand(void) {
  CHECK_EQ(gof_start_background(0), 0);
  for (int i = 0; i < 1000; i++) go(naps, number(1000000));
  WAIT_FOR(blocked_count() == 1000);
  (void)coir_sleep(COIR_MS(100)); /* who looks for work gives up */
  int64_t cpu = cpu_now();
  (void)coir_sleep(COIR_MS(300));
  CHECK(cpu_now() - cpu < COIR_MS(30));
  gof_request_stop();
  CHECK_EQ(gof_join_background(), 0);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(nobody_wakes_early), CASE(they_wake_by_deadline), CASE(they_sleep_again_and_again),
      CASE(also_on_any_thread), CASE(plain_threads_too),     CASE(a_single_sleeper_does_not_compute),
      CASE(nor_do_a_thousand),
  };
  return RUN_CASES(argc, argv, cases);
}
