/* Timers, tickers and timer channels may be stopped and destroyed after their runtime. One that had come, or had been
 * stopped, still knew the wheel of the worker that had carried it, and took its lock, in memory that was free by then.
 * Here that memory is made inaccessible instead of being given back, so whoever touches it is killed at once. */
#include "harness.h"

#include <sys/mman.h>

static void *alloc_hook(size_t bytes, void *arg) {
  (void)arg;
  void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return memory == MAP_FAILED ? NULL : memory;
}

static void free_hook(void *memory, size_t bytes, void *arg) {
  (void)arg;
  CHECK_EQ(mprotect(memory, bytes, PROT_NONE), 0);
}

static struct coir_timer *fresh, *came, *stopped, *armed, *periodic;
static struct coir_ticker *stopped_ticker, *running_ticker;
static COIR_CHAN(int64_t) chan_that_came;
static COIR_CHAN(int64_t) chan_that_did_not;
static _Atomic(int) firings;

static int fires(void *arg) {
  (void)arg;
  atomic_fetch_add(&firings, 1);
  return 0;
}

static struct coir_timer *make(int64_t deadline, int64_t period) {
  struct coir_timer *timer;
  CHECK_EQ(coir_timer_create(&timer, fires, NULL), 0);
  if (deadline) CHECK_EQ(coir_timer_start(timer, deadline, period), 0);
  return timer;
}

static int makes_all(void *arg) {
  (void)arg;
  int64_t at;
  fresh = make(0, 0);
  came = make(coir_after(COIR_MS(1)), 0);
  stopped = make(coir_after(COIR_SEC(1000)), 0);
  armed = make(coir_after(COIR_SEC(1000)), 0);
  periodic = make(coir_after(COIR_SEC(1000)), COIR_SEC(1));
  CHECK_EQ(coir_ticker_create(&stopped_ticker, COIR_MS(1)), 0);
  CHECK_EQ(coir_ticker_create(&running_ticker, COIR_MS(1)), 0);
  chan_that_came = coir_timer_chan(coir_after(COIR_MS(1)));
  chan_that_did_not = coir_timer_chan(coir_after(COIR_SEC(1000)));
  CHECK_EQ(COIR_RECV(coir_ticker_chan(stopped_ticker), &at, COIR_NEVER), 0);
  CHECK_EQ(COIR_RECV(chan_that_came, &at, COIR_NEVER), 0);
  CHECK_EQ(coir_timer_stop(stopped), 1);
  coir_ticker_stop(stopped_ticker);
  WAIT_FOR(atomic_load(&firings) == 1);
  return 0;
}

static void run_and_destroy(void) {
  struct coir_config config = {.alloc = alloc_hook, .free = free_hook};
  atomic_store(&firings, 0);
  CHECK_EQ(run_with(config, makes_all, NULL), 0);
}

static void destroy_all(void) {
  struct coir_timer *timers[] = {fresh, came, stopped, armed, periodic};
  for (size_t i = 0; i < sizeof timers / sizeof *timers; i++) coir_timer_destroy(timers[i]);
  coir_ticker_destroy(stopped_ticker);
  coir_ticker_destroy(running_ticker);
  coir_chan_unref(COIR_CHAN_RAW(chan_that_came));
  coir_chan_unref(COIR_CHAN_RAW(chan_that_did_not));
}

static void all_may_be_destroyed_after_it(void **state) {
  (void)state;
  run_and_destroy();
  destroy_all();
}

static void all_may_be_stopped_after_it(void **state) {
  (void)state;
  run_and_destroy();
  CHECK_EQ(coir_timer_stop(came), 0);
  CHECK_EQ(coir_timer_stop(stopped), 0);
  coir_timer_stop(armed);
  coir_timer_stop(periodic);
  coir_ticker_stop(stopped_ticker);
  coir_ticker_stop(running_ticker);
  destroy_all();
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(all_may_be_destroyed_after_it),
      cmocka_unit_test(all_may_be_stopped_after_it),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
