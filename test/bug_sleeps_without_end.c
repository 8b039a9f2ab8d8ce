/* Where a sandbox did not let the timer slack of a thread be read, the error was put back as if it were the slack when
 * the thread had carried a worker: it was 2^64 ns from then on, for the thread and for those that it made, and their
 * sleeps with a deadline ended when something else woke them. */
#include "harness.h"

#include <sys/prctl.h>

static _Atomic(int) left; /* calls that are refused */

/* The linker sends the library's calls here (--wrap). */
int __real_prctl(int op, ...);
int __wrap_prctl(int op, ...);

int __wrap_prctl(int op, ...) {
  va_list list;
  unsigned long a[4];
  va_start(list, op);
  for (int i = 0; i < 4; i++) a[i] = va_arg(list, unsigned long);
  va_end(list);
  if (op != PR_GET_TIMERSLACK || atomic_fetch_sub(&left, 1) <= 0) return __real_prctl(op, a[0], a[1], a[2], a[3]);
  errno = EPERM;
  return -1;
}

static int nothing(void *arg) {
  (void)arg;
  return 7;
}

static void the_slack_stays_what_it_is(void **state) {
  (void)state;
  int before = __real_prctl(PR_GET_TIMERSLACK, 0L, 0L, 0L, 0L);
  CHECK(before > 0);
  left = 1;
  CHECK_EQ(run_with((struct coir_config){.workers = 1, .monitor = COIR_OFF}, nothing, NULL), 7);
  CHECK(left <= 0);
  CHECK_EQ(__real_prctl(PR_GET_TIMERSLACK, 0L, 0L, 0L, 0L), before);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(the_slack_stays_what_it_is)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
