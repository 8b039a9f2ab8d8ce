/* A first fiber that ended by coir_exit: coir_run and coir_runtime_run said that it had returned 0. */
#include "harness.h"

static int exits(void *arg) {
  coir_exit(7, arg);
}

static void the_status_is_told(void **state) {
  (void)state;
  CHECK_EQ(run(exits, NULL), 7);
  CHECK_EQ(coir_run(exits, NULL), 7);
}

static int never_ends(void *arg) {
  struct coir_event event = {{0}};
  (void)arg;
  coir_shield_begin();
  return coir_event_wait(&event, COIR_NEVER);
}

/* It has ended by neither, and was dropped. */
static void so_is_a_deadlock(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){.workers = 1});
  int status = 0;
  CHECK_EQ(coir_runtime_run(rt, never_ends, NULL, &status), -EDEADLK);
  CHECK_EQ(status, -ECANCELED);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_status_is_told),
      cmocka_unit_test(so_is_a_deadlock),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
