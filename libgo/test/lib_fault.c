/* The broader library when memory or threads are short: each call fails as its header says, and nothing is leaked. */
#include "lib_test.h"
#include "scarce.h"

static void *returns(void *arg) { return arg; }
static void does_nothing(void *arg) { (void)arg; }

/* First: the clock has no thread yet. */
static void no_thread_for_the_clock(void **state) {
  (void)state;
  threads = 0;
  errno = 0;
  CHECK(create_ticker(1) == NULL);
  CHECK_EQ(errno, EAGAIN);
  errno = 0;
  CHECK(go_with_deadline(NULL, real_time_after(COIR_SEC(1))) == NULL);
  CHECK_EQ(errno, EAGAIN);
  threads = INT_MAX;
  Ticker *t = create_ticker(1);
  CHECK(t);
  CHECK_EQ(go_channel_receive(t->c, NULL), 0);
  stop_ticker(t);
}

static void no_threads(void **state) {
  (void)state;
  for (int n = 0; n < 3; n++) {
    threads = n;
    if (n == 0) FAILS(go_blocking_executor_init(4), EAGAIN);
    else CHECK_EQ(go_blocking_executor_init(4), 0);
    threads = INT_MAX;
    CHECK(go_blocking_submit(returns, number(1)) == number(1));
    go_blocking_executor_shutdown();
  }
  threads = 0;
  FAILS(go(returns, NULL), EAGAIN);
  threads = INT_MAX;
  CHECK_EQ(go_get_active_count(), 0);
}

static void no_memory_for_objects(void **state) {
  GoChannel *c = NULL;
  GoSelectWaiter *w = NULL;
  LongAdder *a = NULL;
  Error *e = NULL;
  Ticker *t = NULL;
  GoContext *d = NULL;
  CancelContextResult r;
  (void)state;
  UNTIL_IT_HAS_ENOUGH(2, (c = go_channel_create(3)) != NULL);
  UNTIL_IT_HAS_ENOUGH(1, (w = go_select_waiter_create()) != NULL);
  UNTIL_IT_HAS_ENOUGH(1, go_channel_register_select_waiter(c, w) == 0);
  UNTIL_IT_HAS_ENOUGH(1, (a = go_long_adder_create()) != NULL);
  UNTIL_IT_HAS_ENOUGH(1, (e = new_error(1, "%d", 2)) != NULL);
  UNTIL_IT_HAS_ENOUGH(3, (t = create_ticker(1000)) != NULL);
  UNTIL_IT_HAS_ENOUGH(3, (r = go_context_with_cancel(NULL)).context != NULL && r.cancel != NULL);
  UNTIL_IT_HAS_ENOUGH(3, (d = go_with_deadline(r.context, real_time_after(COIR_SEC(100)))) != NULL);
  CHECK(!go_context_is_canceled(d));
  r.cancel(r.context);
  CHECK(go_context_is_canceled(d));
  GoSelectCase cases[100] = {{GO_SELECT_SEND, c, number(1), NULL}};
  UNTIL_IT_HAS_ENOUGH(1, go_select(cases, 100) == 0);
  CHECK_EQ(go_channel_get_depth(c), 1);
  go_context_free(d);
  go_context_free(r.context);
  stop_ticker(t);
  free_error(e);
  go_long_adder_destroy(a);
  go_select_waiter_unref(w);
  go_channel_free(c);
}

static void no_memory_to_start(void **state) {
  (void)state;
  gof_init(0);
  UNTIL_IT_HAS_ENOUGH(1, go(returns, NULL) == 0);
  UNTIL_IT_HAS_ENOUGH(1, go_fiber_default(does_nothing, NULL) == 0);
  gof_run();
  until_idle();
}

/* Within the call then, on the fiber. */
static void submits(void *unused) {
  (void)unused;
  threads = allocations = 0;
  CHECK(go_blocking_submit(returns, number(7)) == number(7));
  threads = allocations = INT_MAX;
  CHECK_EQ(go_blocking_executor_init(1), 0);
  allocations = 0;
  CHECK(go_blocking_submit(returns, number(8)) == number(8));
  allocations = INT_MAX;
  go_blocking_executor_shutdown();
}

static void no_memory_to_submit(void **state) {
  (void)state;
  CHECK_EQ(go_fiber_default(submits, NULL), 0);
  gof_run();
}

static void *asks_who_it_is(void *unused) {
  UNTIL_IT_HAS_ENOUGH(1, go_fiber_current() != NULL);
  FAILS(go_fiber_block_until(0), ETIMEDOUT);
  return unused;
}

/* Each in a thread of its own. */
static void no_memory_for_numbers(void **state) {
  (void)state;
  gof_init(0);
  for (int i = 0; i < 3; i++) {
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, asks_who_it_is, NULL), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
  }
}

int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(no_thread_for_the_clock), cmocka_unit_test(no_memory_for_numbers),
      cmocka_unit_test(no_memory_to_submit),     cmocka_unit_test(no_threads),
      cmocka_unit_test(no_memory_for_objects),   cmocka_unit_test(no_memory_to_start),
  };
  return RUN_TESTS(argc, argv, tests);
}
