/* A fork while the keeper, or a worker, was in the function of an alarm left in the child that the alarm was running.
 * But there nobody ran it. Who cancelled it, because it closed an inherited scope or stopped a timer, waited for
 * ever. */
#include "harness.h"

#include "internal.h"

static struct coir__alarm alarm_of_keeper;
static _Atomic(int) is_in, may_go;

static int64_t takes_long(struct coir__alarm *a, struct coir__worker *w, int64_t now) {
  (void)a, (void)w, (void)now;
  atomic_store(&is_in, 1);
  SPIN_UNTIL(atomic_load(&may_go));
  return COIR_NEVER;
}

static void cancel_in_child(void) {
  pid_t pid = fork();
  int status = -1;
  CHECK(pid >= 0);
  if (pid == 0) {
    alarm(10);
    _exit(coir__alarm_cancel(&alarm_of_keeper) ? 1 : 0);
  }
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  CHECK_EQ(status, 0);
}

static void nobody_rings_in_the_child(void **state) {
  (void)state;
  CHECK_EQ(coir__keeper_start(), 0);
  alarm_of_keeper.run = takes_long;
  coir__keeper_arm(&alarm_of_keeper, coir_now());
  SPIN_UNTIL(atomic_load(&is_in));
  cancel_in_child();
  atomic_store(&may_go, 1);
  CHECK(!coir__alarm_cancel(&alarm_of_keeper)); /* here it has come */
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(nobody_rings_in_the_child)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
