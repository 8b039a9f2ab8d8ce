/* Background mode: starting, stopping with fibers in all states, joining, starting again. */
#include "gof_test.h"

#include <sys/resource.h>

static _Atomic(int) count;

static void counts(void *arg) {
  (void)arg;
  atomic_fetch_add(&count, 1);
}

static void counts_slowly(void *arg) {
  gof_yield();
  gof_sleep_ms(5);
  counts(arg);
}

static void yields_for_ever(void *arg) {
  for (;;) {
    atomic_fetch_add(&count, 1);
    gof_yield();
  }
  (void)arg;
}

static void sleeps_for_ever(void *arg) {
  (void)arg;
  gof_sleep_ms(UINT64_MAX);
  abort();
}

#define REFUSES(call, code) \
  do {                      \
    errno = 0;              \
    CHECK_EQ(call, -1);     \
    CHECK_EQ(errno, code);  \
  } while (0)

static void start(void) { CHECK_EQ(gof_start_background(0), 0); }
static void join_it(void) { CHECK_EQ(gof_join_background(), 0); }

static void stop_it(void) {
  gof_request_stop();
  join_it();
}

/* ---- Starting and joining ---------------------------------------------------------------------------------------- */

static void the_life_of_it(void) {
  REFUSES(gof_join_background(), EINVAL);
  start();
  REFUSES(gof_start_background(0), EBUSY);
  go(counts_slowly, NULL);
  join_it();
  CHECK_EQ(count, 1);
  REFUSES(gof_join_background(), EINVAL);
  REFUSES(gof_join_background(), EINVAL);
  start();
  go(counts_slowly, NULL);
  join_it();
  CHECK_EQ(count, 2);
}

static void workers_stay_while_idle(void) {
  start();
  for (int i = 0; i < 5; i++) {
    (void)coir_sleep(COIR_MS(i * 8));
    go(counts_slowly, NULL);
    WAIT_FOR(atomic_load(&count) == i + 1);
  }
  CHECK(!gof_in_fiber());
  join_it();
}

static void a_join_without_fibers_returns(void) {
  for (int i = 0; i < 20; i++) {
    start();
    join_it();
  }
  for (int i = 0; i < 20; i++) {
    start();
    stop_it();
  }
}

static void a_join_waits_for_all_fibers(void) {
  start();
  for (int i = 0; i < 100; i++) go(counts_slowly, NULL);
  join_it();
  CHECK_EQ(count, 100);
  CHECK_EQ(stats_now().live_fibers, 0);
}

static void begets(void *generations) {
  if (generations) go(begets, number((intptr_t)generations - 1));
  else counts(NULL);
  gof_sleep_ms(1);
}

static void a_join_waits_for_their_children(void) {
  start();
  go(begets, number(20));
  join_it();
  CHECK_EQ(count, 1);
}

static void what_was_spawned_before_runs(void) {
  for (int i = 0; i < 50; i++) go(counts, NULL);
  start();
  WAIT_FOR(atomic_load(&count) == 50);
  join_it();
}

static void it_sets_the_default_stack(void) {
  gof_info info;
  CHECK_EQ(gof_start_background(64 << 10), 0);
  go(sleeps_for_ever, NULL);
  WAIT_FOR(blocked_count() == 1);
  CHECK_EQ(gof_list(&info, 1), 1);
  CHECK_EQ(info.stack_size, 64 << 10);
  stop_it();
  CHECK_EQ(gof_start_background(1 << 20), 0); /* the first one counts */
  go(sleeps_for_ever, NULL);
  WAIT_FOR(blocked_count() == 1);
  CHECK_EQ(gof_list(&info, 1), 1);
  CHECK_EQ(info.stack_size, 64 << 10);
  stop_it();
}

static void a_run_meanwhile_does_nothing(void) {
  start();
  go(sleeps_for_ever, NULL);
  gof_run();
  go(counts_slowly, NULL);
  gof_run();
  CHECK_EQ(stats_now().live_fibers, 2 - count);
  WAIT_FOR(atomic_load(&count) == 1);
  gof_request_stop();
  gof_run(); /* not joined yet */
  join_it();
  gof_run(); /* nothing is left */
  go(counts, NULL);
  gof_run();
  CHECK_EQ(count, 2);
}

static void starts_within(void *arg) {
  REFUSES(gof_start_background(0), EBUSY);
  REFUSES(gof_join_background(), EDEADLK);
  counts(arg);
}

static void it_does_not_start_within_a_run(void) {
  go(starts_within, NULL);
  gof_run();
  CHECK_EQ(count, 1);
  start();
  join_it();
}

static void joins_itself(void *arg) {
  REFUSES(gof_join_background(), EDEADLK);
  REFUSES(gof_start_background(0), EBUSY);
  counts(arg);
}

static void a_fiber_cannot_join(void) {
  start();
  go(joins_itself, NULL);
  join_it();
  CHECK_EQ(count, 1);
}

static void *joins(void *arg) {
  (void)arg;
  errno = 0;
  int rc = gof_join_background();
  CHECK(rc == 0 || (rc == -1 && errno == EINVAL));
  return number(rc);
}

/* At least one of them does it. */
static void several_threads_join(void) {
  for (int round = 0; round < 10; round++) {
    pthread_t t[3];
    int done = 0;
    start();
    go(counts_slowly, NULL);
    for (int i = 0; i < 3; i++) CHECK_EQ(pthread_create(&t[i], NULL, joins, NULL), 0);
    for (int i = 0; i < 3; i++) {
      void *rc;
      pthread_join(t[i], &rc);
      done += rc == number(0);
    }
    CHECK(done >= 1);
    CHECK_EQ(count, round + 1);
  }
}

/* ---- Stopping ---------------------------------------------------------------------------------------------------- */

/* Waits a moment: nobody counts any more. */
static void nobody_counts(void) {
  int before = atomic_load(&count);
  (void)coir_sleep(COIR_MS(10));
  CHECK_EQ(count, before);
}

static void stop_with_runnable_fibers(void) {
  for (int i = 0; i < 5; i++) {
    start();
    for (int n = 0; n < 20; n++) go(yields_for_ever, NULL);
    int before = atomic_load(&count);
    WAIT_FOR(atomic_load(&count) > before + 100);
    stop_it();
    nobody_counts();
    CHECK_EQ(stats_now().live_fibers, 0);
    CHECK_EQ(gof_list(NULL, 0), 0);
  }
  start();
  nobody_counts(); /* those of before are gone */
  go(counts, NULL);
  join_it();
  go(counts, NULL);
  gof_run();
}

static gof_chan_t *chan;

static void receives_for_ever(void *arg) {
  gof_chan_recv(chan, NULL);
  abort();
  (void)arg;
}

static void sends_for_ever(void *other) {
  gof_chan_send(other, NULL);
  abort();
}

static void stop_with_parked_fibers(void) {
  for (int i = 0; i < 5; i++) {
    chan = gof_chan_make(0);
    gof_chan_t *other = gof_chan_make(0);
    start();
    for (int n = 0; n < 20; n++) {
      go(sleeps_for_ever, NULL);
      go(receives_for_ever, NULL);
      go(sends_for_ever, other);
    }
    WAIT_FOR(blocked_count() == 60);
    stop_it();
    CHECK_EQ(stats_now().live_fibers, 0);
    CHECK_EQ(gof_chan_try_send(chan, NULL), 0); /* nobody waits there any more */
    CHECK_EQ(gof_chan_try_recv(other, NULL), 0);
    gof_chan_free(chan);
    gof_chan_free(other);
  }
}

static void abandons_seven(void) {
  start();
  for (int i = 0; i < 4; i++) go(sleeps_for_ever, NULL);
  for (int i = 0; i < 3; i++) go(yields_for_ever, NULL);
  for (int i = 0; i < 9; i++) go(counts_slowly, NULL);
  WAIT_FOR(stats_now().live_fibers == 7);
  stop_it();
}

static void abandons_nobody(void) {
  start();
  go(counts_slowly, NULL);
  WAIT_FOR(stats_now().live_fibers == 0);
  stop_it();
}

/* A line says how many were abandoned. */
static void it_tells_who_was_left(void) {
  static char text[1 << 20]; /* GOF_DEBUG has much to say */
  CHECK_EQ(in_child_process(abandons_seven, text, sizeof text), 0);
  CHECK(strstr(text, "7 fibers") && strstr(text, "abandoned"));
  CHECK_EQ(in_child_process(abandons_nobody, text, sizeof text), 0);
  CHECK(!strstr(text, "abandoned"));
}

static _Atomic(int) went_on;

static void stops_it(void *arg) {
  (void)arg;
  gof_request_stop();
  spin_for(COIR_MS(2));
  atomic_fetch_add(&went_on, 1); /* to the next suspension */
  gof_yield();
  gof_sleep_ms(1);
  atomic_fetch_add(&went_on, 100);
}

static void a_fiber_may_ask_to_stop(void) {
  for (int i = 0; i < 10; i++) {
    start();
    go(sleeps_for_ever, NULL);
    go(yields_for_ever, NULL);
    go(stops_it, NULL);
    join_it();
    CHECK_EQ(went_on, i + 1);
    CHECK_EQ(stats_now().live_fibers, 0);
  }
}

/* A stop ends a join that waits already. */
static void *stops_soon(void *arg) {
  (void)coir_sleep(COIR_MS(10));
  gof_request_stop();
  return arg;
}

static void a_stop_ends_a_join(void) {
  pthread_t t;
  start();
  go(sleeps_for_ever, NULL);
  CHECK_EQ(pthread_create(&t, NULL, stops_soon, NULL), 0);
  join_it();
  pthread_join(t, NULL);
  CHECK_EQ(stats_now().live_fibers, 0);
}

/* Asking twice, or late, or when nothing runs in the background, is nothing. */
static void asks_to_stop_a_run(void *arg) {
  gof_request_stop();
  gof_yield();
  gof_sleep_ms(1);
  counts(arg);
}

static void other_requests_to_stop_do_nothing(void) {
  gof_request_stop();
  go(asks_to_stop_a_run, NULL);
  gof_run();
  CHECK_EQ(count, 1);
  gof_request_stop();
  start();
  go(counts_slowly, NULL);
  join_it();
  CHECK_EQ(count, 2);
  start();
  gof_request_stop();
  gof_request_stop();
  stop_it();
  gof_request_stop();
  start();
  go(counts_slowly, NULL);
  join_it();
  CHECK_EQ(count, 3);
}

/* A request does not wait: workers that compute finish what they do, which here they do after it alone. */
static _Atomic(int) computing, requested;

static void computes(void *arg) {
  (void)arg;
  atomic_store(&computing, 1);
  SPIN_UNTIL(atomic_load(&requested));
  counts(NULL);
}

static void a_request_does_not_wait(void) {
  start();
  go(computes, NULL);
  WAIT_FOR(atomic_load(&computing));
  gof_request_stop();
  CHECK_EQ(count, 0);
  atomic_store(&requested, 1);
  join_it();
  CHECK_EQ(count, 1);
}

/* ---- Again and again --------------------------------------------------------------------------------------------- */

static void uses_stack_and_sleeps(void *arg) {
  char block[40000];
  (void)arg;
  memset(block, 1, sizeof block);
  __asm__ volatile("" : : "r"(block) : "memory");
  sleeps_for_ever(block);
}

static void one_round(int round) {
  start();
  for (int n = 0; n < 100; n++) go(n % 3 ? uses_stack_and_sleeps : yields_for_ever, NULL);
  for (int n = 0; n < 100; n++) go(counts_slowly, NULL);
  (void)coir_sleep(COIR_US(round * 397 % 5000));
  stop_it();
}

/* What was abandoned is reclaimed. */
static void rounds_leave_nothing_behind(void) {
  for (int i = 0; i < 8; i++) one_round(i);
  long kib = resident_kib(), threads = threads_now();
  int descriptors = descriptors_now();
  for (int i = 0; i < rounds(60); i++) one_round(i);
  WAIT_FOR(threads_now() <= threads);
  CHECK_EQ(descriptors_now(), descriptors);
  if (!IS_SANITIZED) CHECK(resident_kib() - kib < 16 << 10); /* of 60 * 67 * 40 kB */
}

static void runs_and_rounds_alternate(void) {
  for (int i = 0; i < 20; i++) {
    atomic_store(&count, 0);
    for (int n = 0; n < 10; n++) go(counts_slowly, NULL);
    gof_run();
    CHECK_EQ(count, 10);
    start();
    for (int n = 0; n < 10; n++) go(counts_slowly, NULL);
    join_it();
    CHECK_EQ(count, 20);
    one_round(i);
  }
}

/* Threads that spawn at any time, also as it stops and when it is off: nothing breaks, and in the end all that are
 * left run. */
static _Atomic(int) over;

static void *spawns_all_the_time(void *arg) {
  int n = 0;
  while (!atomic_load(&over)) {
    CHECK(gof_spawn(n++ % 2 ? counts : counts_slowly, NULL, 0) != NULL);
    if (n % 8 == 0) (void)coir_sleep(COIR_US(100));
  }
  return arg;
}

static void spawns_meet_stops(void) {
  pthread_t t[2];
  for (int i = 0; i < 2; i++) CHECK_EQ(pthread_create(&t[i], NULL, spawns_all_the_time, NULL), 0);
  for (int i = 0; i < rounds(40); i++) {
    start();
    (void)coir_sleep(COIR_US(i * 397 % 3000));
    stop_it();
  }
  atomic_store(&over, 1);
  for (int i = 0; i < 2; i++) pthread_join(t[i], NULL);
  start();
  join_it();
  CHECK_EQ(stats_now().live_fibers, 0);
  CHECK_EQ(stats_now().inject_enqueues, stats_now().inject_drains);
}

/* ---- Without threads --------------------------------------------------------------------------------------------- */

/* No room for the stack of a thread. */
static struct rlimit no_room(void) {
  struct rlimit before, after;
  CHECK_EQ(getrlimit(RLIMIT_AS, &before), 0);
  after = before;
  after.rlim_cur = (rlim_t)proc_number("/proc/self/status", "VmSize:") * 1024 + (256 << 10);
  CHECK_EQ(setrlimit(RLIMIT_AS, &after), 0);
  return before;
}

static void a_start_without_memory_leaves_nothing(void) {
  if (IS_SANITIZED) return; /* they need room themselves */
  set_workers(4);
  gof_init(0);
  go(counts, NULL);
  long threads = threads_now();
  struct rlimit before = no_room();
  errno = 0;
  int rc = gof_start_background(0), code = errno;
  CHECK_EQ(setrlimit(RLIMIT_AS, &before), 0);
  CHECK_EQ(rc, -1);
  CHECK(code == EAGAIN || code == ENOMEM);
  WAIT_FOR(threads_now() <= threads);
  CHECK_EQ(count, 0);
  REFUSES(gof_join_background(), EINVAL);
  start();
  join_it();
  CHECK_EQ(count, 1);
}

static void runs_without_memory(void) {
  set_workers(4);
  gof_init(0);
  go(counts, NULL);
  struct rlimit before = no_room();
  gof_run();
  CHECK_EQ(setrlimit(RLIMIT_AS, &before), 0);
  CHECK_EQ(count, 0);
  gof_run();
  CHECK_EQ(count, 1);
}

static void a_run_without_memory_says_so(void) {
  char text[4096];
  if (IS_SANITIZED) return;
  CHECK_EQ(in_child_process(runs_without_memory, text, sizeof text), 0);
  CHECK(text[0] != 0);
}

/* ---- Idle -------------------------------------------------------------------------------------------------------- */

static void idle_workers_do_not_compute(void) {
  start();
  go(counts_slowly, NULL);
  WAIT_FOR(atomic_load(&count) == 1);
  (void)coir_sleep(COIR_MS(100)); /* who watches retires */
  int64_t cpu = cpu_now();
  (void)coir_sleep(COIR_MS(300));
  CHECK(cpu_now() - cpu < COIR_MS(30));
  join_it();
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(the_life_of_it),
      CASE(workers_stay_while_idle),
      CASE(a_join_without_fibers_returns),
      CASE(a_join_waits_for_all_fibers),
      CASE(a_join_waits_for_their_children),
      CASE(what_was_spawned_before_runs),
      CASE(it_sets_the_default_stack),
      CASE(a_run_meanwhile_does_nothing),
      CASE(it_does_not_start_within_a_run),
      CASE(a_fiber_cannot_join),
      CASE(several_threads_join),
      CASE(stop_with_runnable_fibers),
      CASE(stop_with_parked_fibers),
      CASE(it_tells_who_was_left),
      CASE(a_fiber_may_ask_to_stop),
      CASE(a_stop_ends_a_join),
      CASE(other_requests_to_stop_do_nothing),
      CASE(a_request_does_not_wait),
      CASE(rounds_leave_nothing_behind),
      CASE(runs_and_rounds_alternate),
      CASE(spawns_meet_stops),
      CASE(a_start_without_memory_leaves_nothing),
      CASE(a_run_without_memory_says_so),
      CASE(idle_workers_do_not_compute),
  };
  return RUN_CASES(argc, argv, cases);
}
