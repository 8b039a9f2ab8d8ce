/* A fiber that was abandoned in the midst of a wait left the address of that wait in its descriptor. When the next
 * fiber with this descriptor was abandoned too, but while it was merely ready, the runtime looked into a frame that
 * was gone, and crashed or hung. */
#include "harness.h"

static _Atomic(int) started;

static int sleeps(void *arg) {
  (void)arg;
  atomic_fetch_add(&started, 1);
  coir_set_name("sleeper");
  coir_set_value(&arg);
  return coir_sleep(COIR_SEC(100));
}

static int yields(void *arg) {
  (void)arg;
  CHECK(!coir_name(NULL)[0]);
  volatile char frame[4096]; /* over what the former fiber left on this stack */
  for (size_t i = 0; i < sizeof frame; i++) frame[i] = (char)0x5a;
  atomic_fetch_add(&started, 1);
  for (;;) coir_yield();
  return frame[0];
}

static int ends(void *arg) {
  (void)arg;
  return 4;
}

static void start_and_abandon(struct coir_runtime *rt, coir_fn fn) {
  atomic_store(&started, 0);
  CHECK_EQ(coir_runtime_start(rt), 0);
  for (int i = 0; i < 20; i++) CHECK_EQ(coir_runtime_spawn(rt, fn, NULL, NULL, NULL), 0);
  WAIT_FOR(atomic_load(&started) == 20);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_ABANDON, 0), 0);
}

static void descriptors_are_dropped_twice(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){0});
  for (int i = 0; i < 5; i++) {
    start_and_abandon(rt, sleeps);
    start_and_abandon(rt, yields);
  }
  CHECK_EQ(coir_runtime_start(rt), 0);
  for (int i = 0; i < 20; i++) {
    struct coir_fiber *f;
    struct coir_result r;
    CHECK_EQ(coir_runtime_spawn(rt, ends, NULL, NULL, &f), 0);
    CHECK_EQ(coir_join(f, &r, COIR_NEVER), 0);
    CHECK_EQ(r.status, 4);
    CHECK(r.value == NULL); /* not the former fiber's */
  }
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(descriptors_are_dropped_twice)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
