/* The keeper: a thread with a wheel of alarms that belong to no worker, such as the deadlines of scopes that plain
 * threads open. Those must come even if no runtime runs. Made when it is first needed, it stays.
 *
 * Beside it has one chore, the check of descriptors (poll.c). That is no alarm, because the search for deadlocks must
 * not take it for something that might end one. */
#include "internal.h"

#define FIRE_MAX 64

static pthread_mutex_t keeper_setup = PTHREAD_MUTEX_INITIALIZER; /* never held across a wait */
static bool keeper_runs;                                         /* (l) keeper_setup */
static _Atomic(uint32_t) keeper_forks;                           /* coir__os_at_fork */
static struct coir__timers keeper_timers = {.next = COIR_NEVER}; /* made before anybody looks */
static _Atomic(uint32_t) keeper_bell;          /* (a) changes when there is an earlier alarm than before */
static _Atomic(uint32_t) keeper_busy;          /* (a) it is about to run alarms, or does */
static _Atomic(coir__chore) chore_run;         /* (a) */
static _Atomic(int64_t) chore_at = COIR_NEVER; /* (a) when it is due */

static void run_alarms(void) {
  int fired;
  atm_store_rlx(&keeper_busy, 1); /* ordered by the lock of the wheel, as in coir__keeper_is_idle */
  do {
    int64_t now = coir__os_now();
    coir__timers_fire(&keeper_timers, now, NULL, FIRE_MAX, &fired); /* alarms alone: nobody to wake */
    if (fired > 0) coir__alarms_run(&keeper_timers, NULL, now);
  } while (fired == FIRE_MAX);
  atm_store_rel(&keeper_busy, 0); /* what the alarms did; pairs with the acquire in coir__keeper_is_idle */
}

/* When it is over, and says so, somebody else may ask for it at once: so the time is cleared before. */
static void run_chore(int64_t now) {
  atm_store_rlx(&chore_at, COIR_NEVER);
  int64_t again = atm_load_rlx(&chore_run)(now);
  if (again != COIR_NEVER) atm_store_rlx(&chore_at, again);
}

static void *keeper_main(void *unused) {
  for (;;) {
    uint32_t seen = atm_load_acq(&keeper_bell); /* before the looks; pairs with the additions that ring it */
    int64_t now = coir__os_now();
    if (atm_load_rlx(&keeper_timers.next) <= now) run_alarms();
    if (atm_load_acq(&chore_at) <= now) run_chore(now);
    int64_t next = atm_load_rlx(&keeper_timers.next), at = atm_load_rlx(&chore_at);
    coir__os_futex_wait(&keeper_bell, seen, next < at ? next : at);
  }
  return unused;
}

/* In the child of a fork, which has no keeper. */
void coir__keeper_fork_child(void) {
  static const pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
  keeper_setup = fresh; /* whoever held it is not in this process */
  keeper_runs = false;
  coir__timers_init(&keeper_timers, 0);
  coir__alarms_fork_child(); /* what was armed there is the parent's */
  atm_store_rlx(&keeper_busy, 0);
  atm_store_rlx(&chore_at, COIR_NEVER);
}

int coir__keeper_start(void) {
  int rc = coir__os_at_fork(&keeper_forks, coir__keeper_fork_child);
  if (rc) return rc;
  pthread_t thread;
  pthread_mutex_lock(&keeper_setup);
  if (!keeper_runs) {
    rc = coir__os_thread_start(&thread, "coir-keeper", keeper_main, NULL);
    if (rc == 0) pthread_detach(thread);
    keeper_runs = rc == 0;
  }
  pthread_mutex_unlock(&keeper_setup);
  return rc;
}

static void ring(void) {
  atm_add_sc(&keeper_bell, 1);
  coir__os_futex_wake(&keeper_bell, 1);
}

void coir__keeper_arm(struct coir__alarm *alarm, int64_t deadline) {
  coir__alarm_arm_in(&keeper_timers, alarm, deadline);
  int64_t next = atm_load_rlx(&keeper_timers.next); /* relaxed: the arming has written it under the lock */
  if (next < deadline && next != 0) return;         /* 0: it has asked for a look */
  ring();
}

void coir__keeper_chore(coir__chore run, int64_t at) {
  atm_store_rlx(&chore_run, run);
  atm_store_rel(&chore_at, at); /* pairs with the acquire in keeper_main() */
  ring();
}

bool coir__keeper_is_idle(void) {
  struct coir__worker *w = coir__carried();
  coir__bias_lock(w, &keeper_timers.lock);
  bool is_idle = !keeper_timers.count && !keeper_timers.alarms && !atm_load_acq(&keeper_busy);
  coir__bias_unlock(w, &keeper_timers.lock);
  return is_idle;
}
