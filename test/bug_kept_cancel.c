/* A cancellation that came in the midst of a call which had something to return first was put back as one of the fiber
 * itself, whatever it had been. Where a scope had asked for it, it outlived that scope: a wait after coir_scope_close
 * was cancelled. On a plain thread it was lost, and the next wait in the scope lasted for ever. Now who may have to
 * leave it to the next wait does not take it (coir__cancel_keep). */
#include "parked.h"

#include <sys/socket.h>

#include "coir_io.h"
#include "internal.h"

static void make_pair(int fds[2]) { CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0); }

static void close_pair(const int fds[2]) {
  CHECK_EQ(coir_close(fds[0]), 0);
  CHECK_EQ(coir_close(fds[1]), 0);
}

/* Opens a scope that is over soon, and reads more in it than there is. */
static struct coir_scope *read_a_part(const int fds[2]) {
  struct coir_scope *scope;
  char text[10];
  CHECK_EQ(coir_write(fds[1], "abc", 3, COIR_NEVER), 3);
  CHECK_EQ(coir_scope_open(&scope, 0, coir_after(COIR_MS(20))), 0);
  CHECK_EQ(coir_read_full(fds[0], text, sizeof text, COIR_NEVER), 3);
  return scope;
}

ON_BOTH(it_is_over_with_the_scope) {
  int fds[2];
  make_pair(fds);
  CHECK_EQ(coir_scope_close(read_a_part(fds)), -ETIMEDOUT);
  CHECK_EQ(coir_sleep(COIR_MS(1)), 0);
  close_pair(fds);
}

ON_BOTH(the_next_call_meets_it) {
  int fds[2];
  char text[10];
  make_pair(fds);
  struct coir_scope *scope = read_a_part(fds);
  CHECK_EQ(coir_read_full(fds[0], text, sizeof text, coir_after(COIR_SEC(10))), -ECANCELED);
  CHECK_EQ(coir_scope_close(scope), -ETIMEDOUT);
  close_pair(fds);
}

ON_BOTH(writes_are_no_different) {
  static char much[4 << 20];
  int fds[2];
  struct coir_scope *scope;
  make_pair(fds);
  CHECK_EQ(coir_scope_open(&scope, 0, coir_after(COIR_MS(20))), 0);
  ssize_t n = coir_write_full(fds[1], much, sizeof much, COIR_NEVER);
  CHECK(n > 0 && n < (ssize_t)sizeof much);
  CHECK_EQ(coir_write_full(fds[1], much, sizeof much, coir_after(COIR_SEC(10))), -ECANCELED);
  CHECK_EQ(coir_write_full(fds[1], much, 1, coir_after(COIR_MS(5))), -ETIMEDOUT); /* it came once */
  CHECK_EQ(coir_scope_close(scope), -ETIMEDOUT);
  CHECK_EQ(coir_sleep(COIR_MS(1)), 0);
  close_pair(fds);
}

/* ---- A scope that is closed ------------------------------------------------------------------------------------- */

static struct coir_event event;
static struct coir_scope *inner;

static int fails_at_event(void *arg) {
  (void)arg;
  CHECK_EQ(coir_event_wait(&event, COIR_NEVER), 0);
  return -5;
}

static int closes_two(void *arg) {
  struct coir_scope *outer;
  CHECK_EQ(coir_scope_open(&outer, 0, COIR_NEVER), 0);
  CHECK_EQ(coir_scope_open(&inner, 0, COIR_NEVER), 0);
  CHECK_EQ(coir_scope_spawn(inner, fails_at_event, arg, NULL, NULL), 0);
  CHECK_EQ(coir_scope_close(inner), -5);
  CHECK_EQ(coir_scope_close(outer), 0);
  CHECK_EQ(coir_sleep(COIR_MS(1)), 0);
  return 0;
}

/* The outer scope asks, and claims the wait; before the opener is back the inner one has failed. */
ON_FIBER(what_the_outer_scope_asked_for_is_over_with_it) {
  COIR_INSIDE;
  coir_event_reset(&event);
  struct coir_fiber *f = spawn(closes_two, NULL);
  until_parked(2);
  coir__cancel_ask(&f->waiter, COIR__CANCEL_BODY(1));
  CHECK(coir__cancel_claim(&f->waiter, COIR__CANCEL_BODY(1)));
  coir_event_set(&event);
  WAIT_FOR(coir_scope_reason(inner) == -5);
  coir__wake(&f->waiter);
  CHECK_EQ(join(f), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(it_is_over_with_the_scope),
      cmocka_unit_test(the_next_call_meets_it),
      cmocka_unit_test(writes_are_no_different),
      cmocka_unit_test(what_the_outer_scope_asked_for_is_over_with_it),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
