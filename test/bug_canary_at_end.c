/* The canary of a stack without a guard page was checked when its fiber was suspended, but not when it ended. An
 * overflow by a fiber that never waited went unnoticed, and the next fiber on the stack was blamed for it. */
#include "harness.h"
#include "internal.h"

/* What an overflow does, without what it does to the neighbours. */
static int overflows(void *arg) {
  (void)arg;
  memset(coir_current()->stack->low, 0x5a, 8);
  return 0;
}

static int exits(void *arg) {
  overflows(arg);
  coir_exit(0, NULL);
}

static int starts(void *fn) {
  struct coir_attr attr = {.name = "greedy"};
  join(spawn_with(attr, *(coir_fn *)fn, NULL));
  return 0;
}

static void child(coir_fn fn) { run_with((struct coir_config){.workers = 1, .guard = COIR_GUARD_CANARY}, starts, &fn); }
static void child_returns(void) { child(overflows); }
static void child_exits(void) { child(exits); }

static void expect_report(void (*fn)(void)) {
  char report[4096];
  int status = in_child_process(fn, report, sizeof report);
  CHECK(WIFSIGNALED(status) || WEXITSTATUS(status));
  CHECK(strstr(report, "stack overflow in fiber ") && strstr(report, "\"greedy\""));
}

static void the_end_of_a_fiber_is_checked(void **state) {
  (void)state;
  expect_report(child_returns);
  expect_report(child_exits);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(the_end_of_a_fiber_is_checked)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
