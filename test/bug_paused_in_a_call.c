/* A thread that is paused sleeps in the handler of the signal; or, when the signal is late, in the next call into the
 * library that it makes. When no further thread was to be had, those that slept in the handler were let go on, since
 * one of them might hold what the workers are blocked for. Those that slept in a call were not: where one of them held
 * the lock all stood still for ever. */
#include "hogs.h"

#include <signal.h>

#define BLOCKERS 6
#define THREADS 2

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic(int) at_lock;

static int want_lock(void *unused) {
  (void)unused;
  atomic_fetch_add(&at_lock, 1);
  CHECK_EQ(pthread_mutex_lock(&lock), 0);
  CHECK_EQ(pthread_mutex_unlock(&lock), 0);
  return 0;
}

static int hold_lock_into_a_call(void *event) {
  struct coir_fiber *blockers[BLOCKERS];
  sigset_t set, old;
  sigemptyset(&set);
  sigaddset(&set, SIGURG);
  for (int i = 0; i < BLOCKERS; i++) blockers[i] = spawn(want_lock, NULL);
  CHECK_EQ(pthread_sigmask(SIG_BLOCK, &set, &old), 0);
  CHECK_EQ(pthread_mutex_lock(&lock), 0);
  SPIN_UNTIL(atomic_load(&at_lock)); /* on the one worker: so this one is paused now, and does not know it */
  coir_event_set(event);
  CHECK_EQ(pthread_mutex_unlock(&lock), 0);
  CHECK_EQ(pthread_sigmask(SIG_SETMASK, &old, NULL), 0);
  for (int i = 0; i < BLOCKERS; i++) join(blockers[i]);
  return 0;
}

/* A long quantum: what is ready runs first, and blocks, before the turn of the one that is paused comes. */
static void the_holder_goes_on(void) {
  struct coir_event event = {0};
  struct coir_config config = {.workers = 1, .preempt = COIR_ON, .quantum_us = 100000, .blocked_us = 100};
  config.spares_max = THREADS;
  CHECK_EQ(run_with(config, hold_lock_into_a_call, &event), 0);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {CASE(the_holder_goes_on)};
  return RUN_CASES(argc, argv, cases);
}
