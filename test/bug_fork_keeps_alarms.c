/* A child of fork inherited the deadlines that the parent's plain threads had with the keeper. Its own keeper began
 * with an empty wheel, while the inherited alarms still thought that they lay in it: closing such a scope unlinked
 * from lists that were gone, and the wheel's count fell below zero, so that later deadlines never came. */
#include "processes.h"

static int in_child(struct coir_scope *inherited) {
  struct coir_scope *own;
  if (coir_scope_open(&own, 0, coir_after(COIR_MS(5)))) return 1; /* starts the child's keeper */
  if (coir_sleep(COIR_SEC(20)) != -ECANCELED) return 2;
  if (coir_scope_close(own) != -ETIMEDOUT) return 3;
  if (coir_scope_close(inherited) != 0) return 4;
  if (coir_scope_open(&own, 0, coir_after(COIR_MS(5)))) return 5;
  if (coir_sleep(COIR_SEC(20)) != -ECANCELED) return 6;
  return coir_scope_close(own) == -ETIMEDOUT ? 0 : 7;
}

static void the_child_may_close_what_it_inherited(void **state) {
  (void)state;
  struct coir_scope *scope;
  int status = -1;
  CHECK_EQ(coir_scope_open(&scope, 0, coir_after(COIR_SEC(100))), 0);
  wait_for_others();
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    alarm(30);
    _exit(in_child(scope));
  }
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  CHECK_EQ(status, 0);
  CHECK_EQ(coir_scope_close(scope), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(the_child_may_close_what_it_inherited)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
