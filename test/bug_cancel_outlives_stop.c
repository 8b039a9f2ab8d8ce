/* Fibers that others spawned while COIR_STOP_CANCEL was under way were marked to have every wait cancelled. They stayed
 * for the next start, and kept the mark: in the new life of the runtime none of their waits succeeded. */
#include "harness.h"
#include "internal.h"

static int failed_waits;

static int waits(void *arg) {
  (void)arg;
  for (int i = 0; i < 3; i++)
    if (coir_sleep(COIR_MS(1)) != 0) failed_waits++;
  for (int i = 0; i < 3; i++)
    if (coir_sleep(0) != 0) failed_waits++;
  return 0;
}

/* This thread sets and clears the flag of the runtime as coir_runtime_stop does. */
static struct coir_fiber *spawn_during_stop(struct coir_runtime *rt) {
  struct coir_fiber *f;
  atm_store_sc(&rt->cancel_all, 1);
  CHECK_EQ(coir_runtime_spawn(rt, waits, NULL, NULL, &f), 0);
  atm_store_sc(&rt->cancel_all, 0);
  failed_waits = 0;
  return f;
}

static void a_late_fiber_waits_as_usual(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){.workers = 2});
  struct coir_fiber *f = spawn_during_stop(rt);
  CHECK_EQ(coir_runtime_run(rt, NULL, NULL, NULL), 0);
  CHECK_EQ(join(f), 0);
  CHECK_EQ(failed_waits, 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static void a_late_fiber_can_be_cancelled(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){.workers = 2});
  struct coir_fiber *f = spawn_during_stop(rt);
  CHECK_EQ(coir_cancel(f), 0);
  CHECK_EQ(coir_runtime_run(rt, NULL, NULL, NULL), 0);
  CHECK_EQ(join(f), 0);
  CHECK_EQ(failed_waits, 1);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_late_fiber_waits_as_usual),
      cmocka_unit_test(a_late_fiber_can_be_cancelled),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
