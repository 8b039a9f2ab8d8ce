/* A fiber that ended with a shield up, or was dropped behind one, left it in its descriptor. The next fiber that got
 * the descriptor could not be cancelled. The tests see to it that the next one gets that very descriptor. */
#include "parked.h"

#define SPAWNS_MAX 200

static struct coir_event never;
static struct coir_fiber *last;

static int ends_shielded(void *arg) {
  (void)arg;
  coir_shield_begin();
  coir_shield_begin();
  return 0;
}

static int waits_shielded(void *arg) {
  (void)arg;
  coir_shield_begin();
  return coir_event_wait(&never, COIR_NEVER);
}

static int sleeps(void *arg) {
  (void)arg;
  return coir_sleep(COIR_SEC(2));
}

/* Spawns until the descriptor comes again, and cancels the fiber that has it. */
static int cancels_the_next(void *arg) {
  (void)arg;
  struct coir_fiber *fibers[SPAWNS_MAX];
  int n = 0;
  do {
    CHECK(n < SPAWNS_MAX);
    fibers[n] = spawn(sleeps, NULL);
  } while (fibers[n++] != last);
  CHECK_EQ(coir_sleep(COIR_MS(1)), 0);
  for (int i = 0; i < n; i++) CHECK_EQ(coir_cancel(fibers[i]), 0);
  for (int i = 0; i < n; i++) CHECK_EQ(join(fibers[i]), -ECANCELED);
  return 0;
}

static int ends_one_first(void *arg) {
  last = spawn(ends_shielded, NULL);
  join(last);
  return cancels_the_next(arg);
}

static void after_one_that_ended(void **state) {
  (void)state;
  CHECK_EQ(run_with((struct coir_config){.workers = 1}, ends_one_first, NULL), 0);
}

static void after_one_that_was_dropped(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){.workers = 1});
  CHECK_EQ(coir_runtime_start(rt), 0);
  struct coir_fiber *f[3]; /* some more, for the first fiber of the next run gets one of them */
  for (int i = 0; i < 3; i++) CHECK_EQ(coir_runtime_spawn(rt, waits_shielded, NULL, NULL, &f[i]), 0);
  last = f[0];
  until_parked_in(rt, 3);
  for (int i = 0; i < 3; i++) coir_detach(f[i]);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_ABANDON, COIR_NEVER), 0);
  int status = -1;
  CHECK_EQ(coir_runtime_run(rt, cancels_the_next, NULL, &status), 0);
  CHECK_EQ(status, 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(after_one_that_ended),
      cmocka_unit_test(after_one_that_was_dropped),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
