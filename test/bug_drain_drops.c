/* COIR_STOP_DRAIN and COIR_STOP_CANCEL waited for the last fiber, halted the workers, and then dropped whatever there
 * was: also the fibers that other threads had spawned in between, some of them in the midst of their function. Such
 * fibers wait for the next start. */
#include "harness.h"

static struct coir_runtime *rt;
static _Atomic(bool) over;
static _Atomic(int) begun, ended;

static int fiber(void *arg) {
  (void)arg;
  atomic_fetch_add(&begun, 1);
  (void)coir_sleep(COIR_US(100));
  (void)coir_sleep(COIR_US(100));
  atomic_fetch_add(&ended, 1);
  return 7;
}

/* Whatever it spawns runs to its end. */
static void *spawner(void *arg) {
  int *spawned = arg;
  while (!atomic_load(&over)) {
    struct coir_fiber *f;
    CHECK_EQ(coir_runtime_spawn(rt, fiber, NULL, NULL, &f), 0);
    ++*spawned;
    CHECK_EQ(join(f), 7);
    usleep(20);
  }
  return NULL;
}

static void stop_often(enum coir_stop how) {
  atomic_store(&over, false);
  atomic_store(&begun, 0);
  atomic_store(&ended, 0);
  rt = make_runtime((struct coir_config){.workers = 2});
  pthread_t thread;
  int spawned = 0, stops = rounds(400);
  CHECK_EQ(pthread_create(&thread, NULL, spawner, &spawned), 0);
  int64_t enough = coir_after(COIR_SEC(1));
  for (int i = 0; i < stops && coir_now() < enough; i++) {
    CHECK_EQ(coir_runtime_start(rt), 0);
    usleep(300);
    CHECK_EQ(coir_runtime_stop(rt, how, COIR_NEVER), 0);
  }
  CHECK_EQ(coir_runtime_start(rt), 0);
  atomic_store(&over, true);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  CHECK_EQ(coir_runtime_stop(rt, how, COIR_NEVER), 0);
  CHECK_EQ(atomic_load(&begun), spawned);
  CHECK_EQ(atomic_load(&ended), spawned);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static void drain_drops_nothing(void **state) {
  (void)state;
  stop_often(COIR_STOP_DRAIN);
}

static void cancel_drops_nothing(void **state) {
  (void)state;
  stop_often(COIR_STOP_CANCEL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(drain_drops_nothing),
      cmocka_unit_test(cancel_drops_nothing),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
