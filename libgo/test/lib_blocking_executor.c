/* blocking_executor.h. */
#include "lib_test.h"

#include <poll.h>
#include <signal.h>

static _Atomic(int) running, running_max, ran;

static void block_ms(int ms) { CHECK_EQ(poll(NULL, 0, ms), 0); }

/* What the executor runs: notes how many run at once. */
static void *job(void *arg) {
  int now = atomic_fetch_add(&running, 1) + 1, max = running_max;
  while (now > max && !atomic_compare_exchange_weak(&running_max, &max, now)) {}
  CHECK(coir_current() == NULL);
  if ((intptr_t)arg % 10 == 0) block_ms(1);
  atomic_fetch_sub(&running, 1);
  atomic_fetch_add(&ran, 1);
  return number((intptr_t)arg + 1);
}

static void *own_thread(void *arg) {
  (void)arg;
  return (void *)(uintptr_t)pthread_self();
}

/* fn() on a fiber, to its end. */
static void on_fiber(void (*fn)(void *)) {
  CHECK(gof_spawn(fn, NULL, 0));
  gof_run();
}

/* ---- Before the first start: these come first ------------------------------------------------------------------ */

static void submits_without_init(void *_) {
  (void)_;
  CHECK(go_blocking_submit(job, number(5)) == number(6));
  CHECK(go_blocking_submit(own_thread, NULL) != (void *)(uintptr_t)pthread_self());
}

static void it_starts_by_itself(void **state) {
  (void)state;
  CHECK_EQ(go_blocking_executor_active_count(), 0);
  CHECK_EQ(go_blocking_executor_pending_count(), 0);
  go_blocking_executor_shutdown(); /* of nothing, which is no shutdown */
  on_fiber(submits_without_init);
  go_blocking_executor_shutdown();
}

/* ---- Where it runs --------------------------------------------------------------------------------------------- */

static void inline_on_plain_threads(void **state) {
  (void)state;
  for (int is_up = 0; is_up < 2; is_up++) {
    if (is_up) CHECK_EQ(go_blocking_executor_init(2), 0);
    CHECK(go_blocking_submit(own_thread, NULL) == (void *)(uintptr_t)pthread_self());
    errno = 0;
    CHECK(go_blocking_submit(NULL, NULL) == NULL);
    CHECK_EQ(errno, EINVAL);
  }
  go_blocking_executor_shutdown();
}

static void submits_after_shutdown(void *_) {
  (void)_;
  CHECK(go_blocking_submit(own_thread, NULL) == (void *)(uintptr_t)pthread_self());
  CHECK_EQ(go_blocking_executor_init(1), 0);
  CHECK(go_blocking_submit(own_thread, NULL) != (void *)(uintptr_t)pthread_self());
  go_blocking_executor_shutdown(); /* a fiber waits for it, too */
}

static void inline_after_the_shutdown(void **state) {
  (void)state;
  for (int i = 0; i < 10; i++) on_fiber(submits_after_shutdown);
}

static _Atomic(int) steps;

static void steps_on(void *_) {
  (void)_;
  for (int i = 0; i < 10; i++) {
    atomic_fetch_add(&steps, 1);
    gof_sleep_ms(1);
  }
}

static void *waits_for_steps(void *_) {
  (void)_;
  SPIN_UNTIL(steps == 10);
  return NULL;
}

static void submits_and_others_run(void *_) {
  (void)_;
  steps = 0;
  CHECK(gof_spawn(steps_on, NULL, 0));
  go_blocking_submit(waits_for_steps, NULL); /* it ends only if the other fiber runs meanwhile */
}

static void the_fiber_parks(void **state) {
  (void)state;
  CHECK_EQ(go_blocking_executor_init(1), 0);
  on_fiber(submits_and_others_run);
  go_blocking_executor_shutdown();
}

static void *starts_again(void *arg) { return go_blocking_submit(job, arg); }

static void submits_from_within(void *_) {
  (void)_;
  CHECK(go_blocking_submit(starts_again, number(3)) == number(4)); /* inline there: it is a plain thread */
}

static void a_job_may_submit(void **state) {
  (void)state;
  CHECK_EQ(go_blocking_executor_init(1), 0);
  on_fiber(submits_from_within);
  go_blocking_executor_shutdown();
}

/* ---- How many -------------------------------------------------------------------------------------------------- */

static void submits_ten(void *arg) {
  for (int i = 0; i < 10; i++) {
    intptr_t n = (intptr_t)arg * 10 + i;
    CHECK(go_blocking_submit(job, number(n)) == number(n + 1));
  }
}

static void a_thousand_from_a_hundred(void **state) {
  (void)state;
  for (int threads = 0; threads < 8; threads += 3) {
    running_max = ran = 0;
    CHECK_EQ(go_blocking_executor_init(threads), 0);
    CHECK_EQ(go_blocking_executor_init(64), 0); /* does nothing */
    for (int i = 0; i < 100; i++) CHECK_EQ(go_fiber_default(submits_ten, number(i)), 0);
    gof_run();
    CHECK_EQ(ran, 1000);
    CHECK(running_max <= (threads ? threads : 4));
    CHECK_EQ(go_blocking_executor_active_count(), 0);
    CHECK_EQ(go_blocking_executor_pending_count(), 0);
    go_blocking_executor_shutdown();
  }
}

static _Atomic(int) gate;

static void *waits_at_gate(void *_) {
  (void)_;
  SPIN_UNTIL((block_ms(1), gate));
  atomic_fetch_add(&ran, 1);
  return NULL;
}

static void submits_to_gate(void *_) {
  (void)_;
  go_blocking_submit(waits_at_gate, NULL);
}

static void seven_at_the_gate(int threads) {
  gate = ran = 0;
  CHECK_EQ(go_blocking_executor_init(threads), 0);
  for (int i = 0; i < 7; i++) CHECK_EQ(go_fiber_default(submits_to_gate, NULL), 0);
  WAIT_FOR(go_blocking_executor_active_count() == threads && go_blocking_executor_pending_count() == 7 - threads);
}

static void active_and_pending(void **state) {
  (void)state;
  CHECK_EQ(gof_start_background(0), 0);
  seven_at_the_gate(2);
  gate = 1;
  until_idle();
  CHECK_EQ(go_blocking_executor_active_count(), 0);
  CHECK_EQ(go_blocking_executor_pending_count(), 0);
  go_blocking_executor_shutdown();
  CHECK_EQ(gof_join_background(), 0);
}

/* ---- The end --------------------------------------------------------------------------------------------------- */

static void shuts_down(void *_) {
  (void)_;
  go_blocking_executor_shutdown();
  CHECK_EQ(ran, 7);
}

static void the_shutdown_finishes_what_is_queued(void **state) {
  (void)state;
  CHECK_EQ(gof_start_background(0), 0);
  for (int turn = 0; turn < 4; turn++) {
    seven_at_the_gate(3);
    start(turn % 2, shuts_down, NULL);
    start(turn / 2, shuts_down, NULL); /* twice at once */
    block_ms(2);
    CHECK_EQ(go_get_active_count(), 9);
    gate = 1;
    until_idle();
  }
  CHECK_EQ(gof_join_background(), 0);
}

static _Atomic(int) stop_toggling;

static void *adds_one(void *arg) { return number((intptr_t)arg + 1); }

static void submits_ten_anywhere(void *arg) {
  for (int i = 0; i < 10; i++) {
    intptr_t n = (intptr_t)arg * 10 + i;
    CHECK(go_blocking_submit(adds_one, number(n)) == number(n + 1));
  }
}

static void toggles(void *_) {
  (void)_;
  while (!stop_toggling) {
    CHECK_EQ(go_blocking_executor_init(2), 0);
    coir_sleep(COIR_US(100));
    go_blocking_executor_shutdown();
  }
}

static void starts_and_ends_race_with_submits(void **state) {
  (void)state;
  CHECK_EQ(gof_start_background(0), 0);
  stop_toggling = 0;
  for (int i = 0; i < 2; i++) start(i % 2, toggles, NULL);
  for (int turn = 0; turn < rounds(20); turn++) {
    for (int i = 0; i < 20; i++) start(i % 5 == 0, submits_ten_anywhere, number(i));
    WAIT_FOR(go_get_active_count() == 2);
  }
  stop_toggling = 1;
  until_idle();
  CHECK_EQ(gof_join_background(), 0);
}

static int submits_though_canceled(void *_) {
  (void)_;
  CHECK(go_blocking_submit(job, number(10)) == number(11));
  CHECK_EQ(coir_sleep(COIR_SEC(100)), -ECANCELED); /* it is told afterwards */
  return 0;
}

static void a_cancelled_fiber_waits_to_the_end(void **state) {
  (void)state;
  struct coir_fiber *f;
  CHECK_EQ(go_blocking_executor_init(1), 0);
  CHECK_EQ(gof_start_background(0), 0);
  for (int i = 0; i < 20; i++) {
    CHECK_EQ(coir_runtime_spawn(gof_runtime(), submits_though_canceled, NULL, NULL, &f), 0);
    coir_sleep(COIR_US(100 * i));
    CHECK_EQ(coir_cancel(f), 0);
    CHECK_EQ(join(f), 0);
  }
  CHECK_EQ(gof_join_background(), 0);
  go_blocking_executor_shutdown();
}

/* The fibers go while their jobs wait and run. What they held stays allocated, so leaks are not looked for. */
static void abandons(void) {
  CHECK_EQ(gof_start_background(0), 0);
  CHECK_EQ(go_blocking_executor_init(2), 0);
  for (int i = 0; i < 7; i++) CHECK(gof_spawn(submits_to_gate, NULL, 0));
  WAIT_FOR(go_blocking_executor_active_count() == 2 && go_blocking_executor_pending_count() == 5);
  gof_request_stop();
  CHECK_EQ(gof_join_background(), 0);
  gate = 1;
  go_blocking_executor_shutdown();
  CHECK_EQ(ran, 7);
  _exit(0);
}

static void abandoned_fibers_leave_their_jobs(void **state) {
  (void)state;
  in_child(abandons);
}

static void shuts_down_only(void *_) {
  (void)_;
  go_blocking_executor_shutdown();
}

/* So many fibers wait, for whatever it is, and there are no others. */
static bool all_wait(int count) {
  struct coir_fiber_info list[8];
  size_t n = coir_runtime_list(gof_runtime(), list, 8);
  for (size_t i = 0; i < n && i < 8; i++)
    if (list[i].state != COIR_FIBER_WAITING) return false;
  return n == (size_t)count;
}

/* With a job on the only thread, a fiber that waits for its end in the shutdown goes. That kept `setup` for ever. */
static void abandons_a_shutdown(void) {
  gate = ran = 0;
  CHECK_EQ(gof_start_background(0), 0);
  CHECK_EQ(go_blocking_executor_init(1), 0);
  CHECK(gof_spawn(submits_to_gate, NULL, 0));
  WAIT_FOR(go_blocking_executor_active_count() == 1);
  for (int i = 0; i < 2; i++) CHECK(gof_spawn(shuts_down_only, NULL, 0));
  WAIT_FOR(all_wait(3));
  gof_request_stop();
  CHECK_EQ(gof_join_background(), 0);
}

static void *ends(void *_) {
  go_blocking_executor_shutdown();
  CHECK_EQ(ran, 1); /* it waits for what the abandoned one has waited for */
  return _;
}

static void *begins(void *_) {
  CHECK_EQ(go_blocking_executor_init(2), 0);
  CHECK_EQ(ran, 1);
  return _;
}

static void begins_and_submits(void *_) {
  (void)_;
  CHECK_EQ(go_blocking_executor_init(1), 0);
  CHECK(go_blocking_submit(own_thread, NULL) != (void *)(uintptr_t)pthread_self());
}

static void it_goes_on_after(void *(*fn)(void *)) {
  pthread_t thread;
  abandons_a_shutdown();
  CHECK_EQ(pthread_create(&thread, NULL, fn, NULL), 0);
  gate = 1;
  CHECK_EQ(pthread_join(thread, NULL), 0);
  on_fiber(begins_and_submits);
  go_blocking_executor_shutdown();
  _exit(0);
}

static void ends_after(void) { it_goes_on_after(ends); }
static void begins_after(void) { it_goes_on_after(begins); }

static void an_abandoned_shutdown_is_brought_to_its_end(void **state) {
  (void)state;
  in_child(ends_after);
  in_child(begins_after);
}

/* ---- Idle threads ---------------------------------------------------------------------------------------------- */

static void submits_and_waits_for_ever(void *chan) {
  CHECK(go_blocking_submit(job, number(1)) == number(2));
  go_channel_receive(chan, NULL);
}

static void deadlocks(void) {
  CHECK_EQ(setenv("GOF_DEADLOCK", "abort", 1), 0);
  CHECK(gof_spawn(submits_and_waits_for_ever, go_channel_create(0), 0));
  gof_run();
}

/* They wake nobody by themselves. */
static void idle_threads_do_not_hide_a_deadlock(void **state) {
  static char text[1 << 16];
  (void)state;
  if (IS_TSAN) skip(); /* it has a thread of its own, which might wake one */
  int status = in_child_process(deadlocks, text, sizeof text);
  if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT) fprintf(stderr, "status 0x%x: %s\n", status, text);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
  CHECK(strstr(text, "gof: deadlock") && strstr(text, "=== Total: 1 fibers ==="));
}

/* ---- In simulation --------------------------------------------------------------------------------------------- */

static void starts_and_ends(void *_) {
  (void)_;
  for (int i = 0; i < 10; i++) {
    CHECK_EQ(go_blocking_executor_init(2), 0);
    CHECK(go_blocking_submit(adds_one, number(i)) == number(i + 1));
    go_blocking_executor_shutdown();
  }
}

static void asks_and_submits(void *_) {
  (void)_;
  for (int i = 0; i < 50; i++) {
    CHECK(go_blocking_executor_active_count() >= 0 && go_blocking_executor_pending_count() >= 0);
    CHECK(go_blocking_submit(adds_one, number(i)) == number(i + 1));
  }
}

static void two_use_it(void) {
  CHECK(gof_spawn(starts_and_ends, NULL, 0));
  CHECK(gof_spawn(asks_and_submits, NULL, 0));
  gof_run();
  go_blocking_executor_shutdown(); /* who submits first starts it */
}

/* Every call is a point at which others run, on the same thread. */
static void two_in_simulation(void **state) {
  (void)state;
  in_simulations(two_use_it);
}

int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(abandoned_fibers_leave_their_jobs), /* first: forks before there are threads */
      cmocka_unit_test(an_abandoned_shutdown_is_brought_to_its_end),
      cmocka_unit_test(idle_threads_do_not_hide_a_deadlock),
      cmocka_unit_test(two_in_simulation),
      cmocka_unit_test(it_starts_by_itself),
      cmocka_unit_test(inline_on_plain_threads),
      cmocka_unit_test(inline_after_the_shutdown),
      cmocka_unit_test(the_fiber_parks),
      cmocka_unit_test(a_job_may_submit),
      cmocka_unit_test(a_thousand_from_a_hundred),
      cmocka_unit_test(active_and_pending),
      cmocka_unit_test(the_shutdown_finishes_what_is_queued),
      cmocka_unit_test(starts_and_ends_race_with_submits),
      cmocka_unit_test(a_cancelled_fiber_waits_to_the_end),
  };
  return RUN_TESTS(argc, argv, tests);
}
