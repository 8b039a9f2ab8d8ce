/* While COIR_STOP_CANCEL is under way every wait ends at once, and it did so without letting anybody else run. A fiber
 * that insists, by a loop around coir_join, kept its worker for ever: the one that it waited for never ran. */
#include "harness.h"

#define TRIES_MAX 1000000

static _Atomic(bool) waiting;

static int child(void *arg) {
  (void)arg;
  for (int i = 0; i < 20; i++) coir_yield();
  return 7;
}

/* Has its first wait cancelled by the stop. */
static int insists(void *arg) {
  (void)arg;
  atomic_store(&waiting, true);
  CHECK_EQ(coir_sleep(COIR_SEC(100)), -ECANCELED);
  struct coir_fiber *f = spawn(child, NULL);
  struct coir_result result;
  int rc, tries = 0;
  while ((rc = coir_join(f, &result, COIR_NEVER)) == -ECANCELED) CHECK(++tries <= TRIES_MAX);
  CHECK_EQ(rc, 0);
  CHECK_EQ(result.status, 7);
  return 0;
}

static _Atomic(bool) done;

static int sets_done(void *arg) {
  child(arg);
  atomic_store(&done, true);
  return 0;
}

/* The same with a sleep of no time. */
static int insists_on_sleeping(void *arg) {
  (void)arg;
  atomic_store(&waiting, true);
  CHECK_EQ(coir_sleep(COIR_SEC(100)), -ECANCELED);
  CHECK_EQ(coir_go(sets_done, NULL), 0);
  for (int tries = 0; !atomic_load(&done); tries++) {
    CHECK_EQ(coir_sleep(0), -ECANCELED);
    CHECK(tries <= TRIES_MAX);
  }
  return 0;
}

static void stop_while(coir_fn fn) {
  atomic_store(&waiting, false);
  struct coir_runtime *rt = make_runtime((struct coir_config){.workers = 1});
  CHECK_EQ(coir_runtime_start(rt), 0);
  CHECK_EQ(coir_runtime_spawn(rt, fn, NULL, NULL, NULL), 0);
  WAIT_FOR(atomic_load(&waiting));
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_CANCEL, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static void a_loop_around_a_wait_lets_others_run(void **state) {
  (void)state;
  stop_while(insists);
}

static void a_loop_around_a_short_sleep_lets_others_run(void **state) {
  (void)state;
  stop_while(insists_on_sleeping);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(a_loop_around_a_wait_lets_others_run),
                                     cmocka_unit_test(a_loop_around_a_short_sleep_lets_others_run)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
