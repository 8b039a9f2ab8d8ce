/* The names without prefix: every one of them is used, and does what its long form does. And the spin lock. */
#include "harness.h"

#define csp_without_prefix
#include "csp.h"

chan_declare(ss, int, ones);
chan_define(ss, int, ones);

static csp_sync_waitgroup_t group;

/* Starts fn(arg), for which join_all waits. */
static void start(void (*fn)(void *arg), void *arg) {
  csp_sync_waitgroup_add(&group, 1);
  CHECK(csp_proc_create(0, fn, arg) != NULL);
}

static void join_all(void) { csp_sync_waitgroup_wait(&group); }

/* ---- Rings ------------------------------------------------------------------------------------------------------- */

static void pops_three(void *arg) {
  chan_t(ones) *c = arg;
  int list[2] = {0, 0}, one = 0;
  chan_pop(c, &one);
  chan_popm(c, list, 2);
  CHECK(one == 1 && list[0] == 2 && list[1] == 3);
  csp_sync_waitgroup_done(&group);
}

static void rings(void **state) {
  (void)state;
  chan_t(ones) *c = chan_new(ones)(1);
  int one = 0, list[3] = {1, 2, 3};
  CHECK(chan_try_push(c, 5));
  CHECK(!chan_try_pushm(c, list, 2));
  CHECK(chan_try_pop(c, &one) && one == 5);
  CHECK_EQ(chan_try_popm(c, &one, 1), 0);
  start(pops_three, c);
  chan_push(c, 1);
  chan_pushm(c, list + 1, 2);
  join_all();
  chan_destroy(c);
}

/* ---- The spin lock ----------------------------------------------------------------------------------------------- */

#define ADDS 4000

static mutex_t lock; /* zeroed: ready */
static int locked_count;

static void adds(void) {
  for (int i = 0; i < rounds(ADDS); i++) {
    if (i % 3) mutex_lock(&lock);
    else
      while (!mutex_try_lock(&lock)) yield();
    locked_count++;
    mutex_unlock(&lock);
  }
}

static void goroutine_adds(void *arg) {
  (void)arg;
  adds();
  csp_sync_waitgroup_done(&group);
}

static void *thread_adds(void *arg) {
  adds();
  return arg;
}

static void the_spin_lock_excludes(void **state) {
  (void)state;
  pthread_t threads[2];
  for (int i = 0; i < 8; i++) start(goroutine_adds, NULL);
  for (int i = 0; i < 2; i++) CHECK_EQ(pthread_create(&threads[i], NULL, thread_adds, NULL), 0);
  for (int i = 0; i < 2; i++) CHECK_EQ(pthread_join(threads[i], NULL), 0);
  join_all();
  CHECK_EQ(locked_count, 10 * rounds(ADDS));
}

static void the_spin_lock_is_one(void **state) {
  (void)state;
  mutex_t here;
  memset(&here, 0xff, sizeof here);
  mutex_init(&here);
  CHECK(mutex_try_lock(&here));
  CHECK(!mutex_try_lock(&here));
  mutex_unlock(&here);
  mutex_lock(&here);
  CHECK(!mutex_try_lock(&here));
  mutex_unlock(&here);
  CHECK(mutex_try_lock(&here));
}

/* ---- The scheduler, timers, descriptors -------------------------------------------------------------------------- */

static _Atomic(int) steps;

static void steps_on(void *arg) {
  (void)arg;
  for (int i = 0; i < 3; i++) {
    atomic_add(&steps, 1);
    yield();
  }
  int blocked = 0, more = 0;
  block(blocked = 1; more = 2);
  CHECK_EQ(blocked + more, 3);
  timer_time_t begin = timer_now();
  hangup(2 * timer_millisecond);
  CHECK(timer_now() - begin >= 2 * timer_millisecond);
  csp_sync_waitgroup_done(&group);
}

static void the_scheduler(void **state) {
  (void)state;
  start(steps_on, NULL);
  start(steps_on, NULL);
  join_all();
  CHECK_EQ(atomic_load(&steps), 6);
}

static void never_comes(void *arg) {
  (void)arg;
  abort();
}

static void comes(void *arg) { atomic_add((_Atomic(int) *)arg, 1); }

static void timers(void **state) {
  (void)state;
  const timer_duration_t units[] = {timer_nanosecond, timer_microsecond, timer_millisecond,
                                    timer_second,     timer_minute,      timer_hour};
  const int64_t factors[] = {1, 1000, 1000, 1000, 60, 60};
  int64_t unit = 1;
  for (int i = 0; i < 6; i++) CHECK_EQ(units[i], unit *= factors[i]);

  static _Atomic(int) came;
  csp_timer_t *off = timer_call_after(timer_hour, never_comes, NULL);
  csp_timer_t *at = timer_call_at(timer_now(), comes, &came), *after = timer_call_after(0, comes, &came);
  CHECK(off && at && after);
  CHECK(timer_cancel(off));
  WAIT_FOR(atomic_load(&came) == 2);
  CHECK(!timer_cancel(at));
  timer_free(off);
  timer_free(at);
  timer_free(after);
}

static void descriptors(void **state) {
  (void)state;
  int fds[2];
  CHECK_EQ(pipe(fds), 0);
  CHECK(netpoll_register(fds[0]) && netpoll_register(fds[1]));
  CHECK_EQ(netpoll_wait_write(fds[1], timer_second), netpoll_avail);
  CHECK_EQ(netpoll_wait_read(fds[0], timer_millisecond), netpoll_timeout);
  CHECK_EQ(csp_write(fds[1], "x", 1), 1);
  CHECK_EQ(netpoll_wait_read(fds[0], 0), netpoll_avail);
  CHECK(netpoll_unregister(fds[0]) && netpoll_unregister(fds[1]));
  close(fds[0]);
  close(fds[1]);
}

/* The long names stay; the other set of short ones is not there. */
#if defined(chan_send) || defined(chan_recv) || defined(chan_close) || defined(time_after) || defined(ticker_new) || \
    defined(ticker_stop) || defined(wg_init) || defined(wg_add) || defined(wg_done) || defined(wg_wait)
#error "names of both sets"
#endif

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(rings),
      cmocka_unit_test(the_spin_lock_excludes),
      cmocka_unit_test(the_spin_lock_is_one),
      cmocka_unit_test(the_scheduler),
      cmocka_unit_test(timers),
      cmocka_unit_test(descriptors),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
