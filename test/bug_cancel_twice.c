/* A fiber that was cancelled twice before it noticed got -ECANCELED from two waits. The first call had claimed the wait
 * already, so the second one found none to end and left the cancellation pending for the next. */
#include "harness.h"

#define WAITS 3

static int results[WAITS];

static int waits(void *arg) {
  if (*(bool *)arg) results[0] = coir_join(spawn(waits, &(bool){false}), NULL, COIR_NEVER);
  else results[0] = coir_sleep(COIR_SEC(100));
  for (int i = 1; i < WAITS; i++) results[i] = coir_sleep(COIR_MS(1));
  return 0;
}

static void check_results(int first) {
  CHECK_EQ(results[0], first);
  for (int i = 1; i < WAITS; i++) CHECK_EQ(results[i], 0);
}

/* One worker: the fiber cannot notice before the caller waits. */
static int cancels(void *arg) {
  (void)arg;
  bool no = false;
  struct coir_fiber *f = spawn(waits, &no);
  CHECK_EQ(coir_sleep(COIR_MS(1)), 0); /* it waits now */
  for (int i = 0; i < 3; i++) CHECK_EQ(coir_cancel(f), 0);
  join(f);
  check_results(-ECANCELED);
  f = spawn(waits, &no);
  for (int i = 0; i < 3; i++) CHECK_EQ(coir_cancel(f), 0); /* it has not begun */
  join(f);
  check_results(-ECANCELED);
  return 0;
}

static void twice_is_once(void **state) {
  (void)state;
  CHECK_EQ(run_with((struct coir_config){.workers = 1}, cancels, NULL), 0);
}

/* What comes after it has noticed is another cancellation. */
static int is_cancelled_again(void *arg) {
  struct coir_fiber **self = arg;
  CHECK_EQ(coir_sleep(COIR_SEC(100)), -ECANCELED);
  CHECK_EQ(coir_cancel(*self), 0);
  CHECK_EQ(coir_cancel(*self), 0);
  CHECK_EQ(coir_sleep(COIR_SEC(100)), -ECANCELED);
  CHECK_EQ(coir_sleep(COIR_MS(1)), 0);
  return 0;
}

static int cancels_again(void *arg) {
  (void)arg;
  struct coir_fiber *f = NULL;
  CHECK_EQ(coir_spawn(is_cancelled_again, &f, NULL, &f), 0);
  coir_yield();
  CHECK_EQ(coir_cancel(f), 0);
  CHECK_EQ(coir_cancel(f), 0);
  return join(f);
}

static void later_is_again(void **state) {
  (void)state;
  CHECK_EQ(run_with((struct coir_config){.workers = 1}, cancels_again, NULL), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(twice_is_once),
      cmocka_unit_test(later_is_again),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
