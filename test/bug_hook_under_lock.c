/* The allocator hook was called with the lock of the descriptors held, when a plain thread gave the first one back. A
 * hook that waited for a thread which spawned into the same runtime waited for ever. */
#include "harness.h"

static struct coir_runtime *rt;
static pthread_t giver;
static _Atomic(bool) armed, asked, spawned;
static _Atomic(int) hook_calls;

static void *alloc_hook(size_t bytes, void *arg) {
  (void)arg;
  if (atomic_load(&armed) && pthread_equal(pthread_self(), giver)) {
    atomic_fetch_add(&hook_calls, 1);
    atomic_store(&asked, true);
    WAIT_FOR(atomic_load(&spawned));
  }
  return malloc(bytes);
}

static void free_hook(void *memory, size_t bytes, void *arg) {
  (void)bytes, (void)arg;
  free(memory);
}

static int fiber(void *arg) {
  (void)arg;
  return 7;
}

static void *spawner(void *arg) {
  WAIT_FOR(atomic_load(&asked));
  struct coir_fiber *f;
  CHECK_EQ(coir_runtime_spawn(rt, fiber, NULL, NULL, &f), 0);
  atomic_store(&spawned, true);
  CHECK_EQ(join(f), 7);
  return arg;
}

static void the_hook_may_wait_for_a_spawn(void **state) {
  (void)state;
  giver = pthread_self();
  rt = make_runtime((struct coir_config){.workers = 1, .alloc = alloc_hook, .free = free_hook});
  CHECK_EQ(coir_runtime_start(rt), 0);
  struct coir_fiber *f;
  CHECK_EQ(coir_runtime_spawn(rt, fiber, NULL, NULL, &f), 0);
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, spawner, NULL), 0);
  atomic_store(&armed, true);
  CHECK_EQ(join(f), 7);
  atomic_store(&armed, false);
  atomic_store(&asked, true); /* if no memory was needed after all */
  CHECK_EQ(pthread_join(thread, NULL), 0);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(the_hook_may_wait_for_a_spawn)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
