/* What the cancellation of a scope asks of the scope's own opener is over when that closes the scope. But another
 * canceller of the same fiber took all that was pending there, to claim its wait with it; if it could not, it put all
 * of it back, also what had become void meanwhile, and a wait after the scope was closed was cancelled. So each takes
 * only what it has asked for. The tests do the steps of the two cancellers one by one. */
#include "parked.h"

#include "internal.h"

#define OF_SCOPE COIR__CANCEL_BODY(1)

static struct coir_event event;
static struct coir_scope *scope;
static _Atomic(int) stage;

static int waits(void *arg) {
  (void)arg;
  int rc = coir_event_wait(&event, COIR_NEVER);
  CHECK_EQ(coir_sleep(COIR_MS(1)), 0);
  return rc;
}

static struct coir_fiber *park(void) {
  coir_event_reset(&event);
  struct coir_fiber *f = spawn(waits, NULL);
  until_parked(1);
  return f;
}

/* The one who has asked for it was quicker elsewhere, or has yet to come. */
ON_FIBER(a_canceller_leaves_what_a_scope_asked_for) {
  COIR_INSIDE;
  struct coir_fiber *f = park();
  coir__cancel_ask(&f->waiter, OF_SCOPE);
  CHECK(!coir__cancel_claim(&f->waiter, COIR__CANCEL_ONCE));
  CHECK_EQ(atm_load_acq(&f->waiter.cancel), OF_SCOPE);
  coir__cancel_body_over(&f->waiter, 1);
  CHECK_EQ(atm_load_acq(&f->waiter.cancel), 0);
  coir_event_set(&event);
  CHECK_EQ(join(f), 0);
}

ON_FIBER(a_scope_leaves_what_others_asked_for) {
  COIR_INSIDE;
  struct coir_fiber *f = park();
  coir__cancel_ask(&f->waiter, COIR__CANCEL_ONCE);
  CHECK(!coir__cancel_claim(&f->waiter, OF_SCOPE));
  coir__cancel_body_over(&f->waiter, 1);
  CHECK_EQ(atm_load_acq(&f->waiter.cancel), COIR__CANCEL_ONCE);
  CHECK(coir__cancel_claim(&f->waiter, COIR__CANCEL_ONCE));
  coir__wake(&f->waiter);
  CHECK_EQ(join(f), -ECANCELED);
}

ON_FIBER(the_inner_scope_leaves_what_the_outer_asked_for) {
  COIR_INSIDE;
  struct coir_fiber *f = park();
  coir__cancel_ask(&f->waiter, COIR__CANCEL_BODY(2));
  coir__cancel_ask(&f->waiter, OF_SCOPE);
  CHECK(!coir__cancel_claim(&f->waiter, COIR__CANCEL_BODY(2)));
  coir__cancel_body_over(&f->waiter, 2);
  CHECK_EQ(atm_load_acq(&f->waiter.cancel), OF_SCOPE);
  CHECK(coir__cancel_claim(&f->waiter, OF_SCOPE));
  coir__wake(&f->waiter);
  CHECK_EQ(join(f), -ECANCELED);
}

static void *cancels(void *arg) {
  SPIN_UNTIL(atomic_load(&stage) == 1);
  coir_scope_cancel(scope, 0);
  atomic_store(&stage, 2);
  return arg;
}

/* The wait is claimed by the cancellation of the scope before it is taken back. */
ON_FIBER(a_wait_that_is_taken_back_leaves_nothing_behind) {
  COIR_INSIDE;
  pthread_t thread;
  struct coir__wait wait;
  atomic_store(&stage, 0);
  CHECK_EQ(pthread_create(&thread, NULL, cancels, NULL), 0);
  CHECK_EQ(coir_scope_open(&scope, 0, COIR_NEVER), 0);
  coir__wait_begin(&wait, COIR__REASON_JOIN, 0, COIR_NEVER);
  atomic_store(&stage, 1);
  SPIN_UNTIL(atomic_load(&stage) == 2);
  CHECK_EQ(coir__wait_retract(&wait), COIR__CODE_CANCELED);
  CHECK_EQ(coir_scope_close(scope), -ECANCELED);
  CHECK_EQ(coir_sleep(COIR_MS(1)), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_canceller_leaves_what_a_scope_asked_for),
      cmocka_unit_test(a_scope_leaves_what_others_asked_for),
      cmocka_unit_test(the_inner_scope_leaves_what_the_outer_asked_for),
      cmocka_unit_test(a_wait_that_is_taken_back_leaves_nothing_behind),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
