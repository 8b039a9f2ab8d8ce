/* While the program receives the signal of preemption itself, nothing pauses, and fibers that compute are handed off.
 * The monitor forgot them at its first look meanwhile. So when the program had given the signal back they were never
 * paused again: they ran beside the workers, all at once, until each waited for something by itself. */
#include "hogs.h"

#include "coir_io.h"

#define HOGS 4

static _Atomic(bool) stop;
static struct hog hogs[HOGS];

static int runnable_hogs(void) {
  int n = 0;
  for (int i = 0; i < HOGS; i++) n += hog_is_runnable(atomic_load(&hogs[i].tid));
  return n;
}

static int hogs_while_open(void *unused) {
  (void)unused;
  struct coir_fiber *fibers[HOGS];
  struct coir_signals *signals;
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGURG);
  CHECK_EQ(coir_signals_open(&signals, &set), 0);
  hogs_spawn(hogs, fibers, HOGS, &stop);
  uint64_t before = stats_here().handoffs;
  WAIT_FOR(stats_here().handoffs >= before + HOGS); /* so all of them are beside the worker */
  CHECK_EQ(coir_sleep(COIR_MS(20)), 0);             /* the monitor has looked */
  coir_signals_close(signals);
  WAIT_FOR(runnable_hogs() <= 1);
  hogs_join(fibers, HOGS, &stop);
  return 0;
}

static void they_are_paused_again(void **state) {
  (void)state;
  if (!PAUSES_ARE_SURE) skip();
  struct coir_config config = PREEMPTIVE(1, 2000);
  config.busy_us = 5000;
  CHECK_EQ(run_with(config, hogs_while_open, NULL), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(they_are_paused_again)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
