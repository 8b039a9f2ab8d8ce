/* When the program has taken the signal away, nothing pauses: fibers that were handed off queued all the same when they
 * had computed for a quantum, and got the worker again, each for as long as it takes to be found out. What was woken
 * came seconds late. They go on beside the workers now, and each is handed off once. */
#include "hogs.h"

#define HOGS 8

static _Atomic(bool) stop;
static struct hog hogs[HOGS];

static void on_signal(int signo) { (void)signo; }

static int hogs_beside(void *unused) {
  (void)unused;
  struct coir_fiber *fibers[HOGS];
  struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
  CHECK_EQ(sigaction(SIGURG, &action, NULL), 0);
  uint64_t before = stats_here().handoffs;
  hogs_spawn(hogs, fibers, HOGS, &stop);
  for (int i = 0; i < HOGS; i++) WAIT_FOR(atomic_load(&hogs[i].turns));
  CHECK_EQ(coir_sleep(COIR_MS(500)), 0);
  int handoffs = (int)(stats_here().handoffs - before);
  hogs_join(fibers, HOGS, &stop);
  return handoffs;
}

static void they_are_handed_off_once(void) {
  struct coir_config config = PREEMPTIVE(1, 500);
  config.busy_us = 5000;
  int handoffs = run_with(config, hogs_beside, NULL);
  CHECK(handoffs >= 1);
  CHECK(handoffs <= 2 * HOGS);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {CASE(they_are_handed_off_once)};
  return RUN_CASES(argc, argv, cases);
}
