/* The one way to wait (src/wait.c): who waits is woken once, by its winner, and goes on off its stack. */
#include "stand.h"

#define FIBER (&stand_fibers[0])

static struct coir__waitq queue;
static struct ex_event left; /* the fiber has left its stack */
static uint32_t code;
static int value, wakes;
static bool has_waited;

/* Thread 0 is the fiber, and thread 1 what runs next in its place, and commits. */
static void setup(void) {
  stand_setup(4);
  for (int i = 0; i < 4; i++) stand_carry(i, i, i ? NULL : FIBER);
  stand_left[0] = &left;
}

/* Of a wait that was over before it came to that there is nothing to commit. */
static void commit(void) {
  static int commits;
  ex_await(&left);
  if (stand_parks[0] == commits) return;
  commits++;
  coir__wait_commit(&stand_workers[0], FIBER);
}

static struct coir__worker *mine(void) { return atm_load_rlx(&stand_threads[ex_me()].worker); }

static void wait_for_it(int64_t deadline) {
  struct coir__worker *w = mine();
  struct coir__wait wait;
  struct coir__clause clause;
  int before = stand_parks[0];
  coir__bias_lock(w, &queue.lock);
  coir__wait_begin_on(w, &wait, COIR__REASON_EVENT, 0, deadline);
  coir__wait_add(&wait, &clause, &queue);
  coir__bias_unlock(w, &queue.lock);
  code = coir__wait(&wait);
  EX_CHECK(!clause.linked && (!w || !(wait.has & COIR__WAIT_TIMER) || !wait.timer.link)); /* I4 */
  if (code == COIR__CODE_CLAUSE) EX_CHECK(value == 7);
  has_waited = true;
  if (stand_parks[0] == before) ex_post(&left);
}

static bool wake_it(void) {
  struct coir__worker *w = mine();
  coir__bias_lock(w, &queue.lock);
  struct coir__clause *c = coir__waitlist_take(&queue.list);
  if (c) value = 7;
  struct coir__waiter *waiter = c ? c->waiter : NULL;
  coir__bias_unlock(w, &queue.lock);
  if (waiter) coir__wake_on(w, waiter);
  return waiter;
}

static void wake_surely(void) {
  while (!wake_it()) ex_spin();
  wakes++;
}

static void check_woken(void) {
  EX_CHECK(has_waited && code == COIR__CODE_CLAUSE);
  EX_CHECK(stand_ready[0].posts == 0);
}

static void one_wake(int me) {
  if (me == 0) wait_for_it(COIR_NEVER);
  else if (me == 1) commit();
  else wake_surely();
}

/* ---- Cancelled meanwhile --------------------------------------------------------------------------------------- */

static void wake_and_cancel(int me) {
  if (me == 0) wait_for_it(COIR_NEVER);
  else if (me == 1) commit();
  else if (me == 2) (void)wake_it();
  else coir__cancel(&FIBER->waiter, COIR__CANCEL_ONCE);
}

/* Delivered to this wait, or still there for the next one. */
static void check_canceled(void) {
  EX_CHECK(has_waited);
  bool pending = atm_load_rlx(&FIBER->waiter.cancel) != 0;
  EX_CHECK(code == COIR__CODE_CANCELED ? !pending : pending);
  EX_CHECK(stand_ready[0].posts == 0);
}

static void only_cancel(int me) {
  if (me == 0) wait_for_it(COIR_NEVER);
  else if (me == 1) commit();
  else coir__cancel(&FIBER->waiter, COIR__CANCEL_ONCE);
}
static void check_only_canceled(void) {
  EX_CHECK(has_waited && code == COIR__CODE_CANCELED);
  EX_CHECK(atm_load_rlx(&FIBER->waiter.cancel) == 0);
  EX_CHECK(stand_ready[0].posts == 0);
}

/* ---- A deadline ------------------------------------------------------------------------------------------------ */

/* The worker's loop, which is thread 1, fires it as well. */
static void wake_and_deadline(int me) {
  if (me == 0) {
    wait_for_it(ex_now() + 1000);
  } else if (me == 1) {
    struct coir__waiter *wake[2];
    int fired;
    commit();
    if (coir__timers_fire(&stand_workers[0].timers, ex_now() + COIR_MS(1), wake, 2, &fired) == 1)
      coir__wake_on(&stand_workers[0], wake[0]);
  } else {
    (void)wake_it();
  }
}
static void check_deadline(void) {
  EX_CHECK(has_waited && (code == COIR__CODE_CLAUSE || code == COIR__CODE_TIMEOUT));
  EX_CHECK(stand_ready[0].posts == 0 && stand_workers[0].timers.count == 0);
}

/* ---- Twice ----------------------------------------------------------------------------------------------------- */

/* What belongs to the first wait does nothing to the second. */
static void waits_twice(int me) {
  if (me == 0) {
    wait_for_it(COIR_NEVER);
    value = 0;
    has_waited = false;
    wait_for_it(COIR_NEVER);
  } else if (me == 1) {
    commit();
    commit();
  } else {
    wake_surely();
    wake_surely();
  }
}

/* A cancellation ends one of the two, whichever it is, and the other one is woken. */
static uint32_t ends[2];
static struct ex_event seen; /* thread 1 has looked whether there was anything to commit */

static void twice_and_cancel(int me) {
  if (me == 0) {
    wait_for_it(COIR_NEVER);
    ends[0] = code;
    ex_await(&seen);
    value = 0;
    has_waited = false;
    wait_for_it(COIR_NEVER);
    ends[1] = code;
  } else if (me == 1) {
    commit();
    ex_post(&seen);
    commit();
  } else if (me == 2) {
    wake_surely();
  } else {
    coir__cancel(&FIBER->waiter, COIR__CANCEL_ONCE);
  }
}
static void check_one_of_each(void) {
  EX_CHECK(has_waited && ends[0] != ends[1]);
  EX_CHECK(ends[0] == COIR__CODE_CANCELED || ends[1] == COIR__CODE_CANCELED);
  EX_CHECK(atm_load_rlx(&FIBER->waiter.cancel) == 0);
  EX_CHECK(stand_ready[0].posts == 0);
}

/* ---- A plain thread -------------------------------------------------------------------------------------------- */

static void no_worker(void) {
  stand_setup(1);
  for (int i = 0; i < EX_THREADS_MAX; i++) atm_store_rlx(&stand_threads[i].in, 1);
}
static void thread_waits(int me) {
  if (me == 0) wait_for_it(ex_now() + 1000);
  else (void)wake_it();
}
static void check_thread(void) {
  EX_CHECK(has_waited && (code == COIR__CODE_CLAUSE || code == COIR__CODE_TIMEOUT));
}

int main(int argc, char **argv) {
  static const struct ex_case cases[] = {
      {"one_wake", 3, setup, one_wake, check_woken, 2, 2},
      {"only_cancel", 3, setup, only_cancel, check_only_canceled, 3, 3},
      {"wake_and_cancel", 4, setup, wake_and_cancel, check_canceled, 2, 1},
      {"wake_and_deadline", 3, setup, wake_and_deadline, check_deadline, 2, 2},
      {"waits_twice", 3, setup, waits_twice, check_woken, 2, 1},
      {"twice_and_cancel", 4, setup, twice_and_cancel, check_one_of_each, 1, 1},
      {"thread_waits", 2, no_worker, thread_waits, check_thread, 4, 3},
  };
  return ex_main(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
