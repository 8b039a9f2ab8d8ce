/* When there is no memory for stacks, those that have one go on at full speed. Once, a worker slept for each new fiber
 * that it found without a stack, and what was woken queued behind all of these. */
#include "harness.h"

#include <sys/resource.h>

#define FIBERS 10000

static _Atomic(int) ended;

static int sleeps_shortly(void *arg) {
  (void)arg;
  CHECK_EQ(coir_sleep(COIR_MS(1)), 0);
  atomic_fetch_add(&ended, 1);
  return 0;
}

static int spawns_many(void *arg) {
  (void)arg;
  for (int i = 0, rc; i < FIBERS; i += rc == 0) {
    rc = coir_go(sleeps_shortly, NULL);
    CHECK(rc == 0 || rc == -ENOMEM); /* for a descriptor, when others have taken it all for stacks */
    if (rc) coir_yield();
  }
  return 0;
}

static void with_workers(int workers) {
  rlim_t bytes = ((rlim_t)128 + (rlim_t)workers * 16) << 20; /* its threads need some */
  struct rlimit limit = {bytes, bytes};
  struct coir_runtime *rt = make_runtime((struct coir_config){.workers = workers, .monitor = COIR_OFF});
  CHECK_EQ(setrlimit(RLIMIT_AS, &limit), 0);
  alarm(30);
  CHECK_EQ(coir_runtime_run(rt, spawns_many, NULL, NULL), 0);
  CHECK_EQ(atomic_load(&ended), FIBERS);
}

static void with_one(void) { with_workers(1); }
static void with_four(void) { with_workers(4); }

static void they_all_end(void **state) {
  (void)state;
  char text[1024];
  if (IS_SANITIZED) skip(); /* they take address space for themselves */
  CHECK_EQ(in_child_process(with_one, text, sizeof text), 0);
  int status = in_child_process(with_four, text, sizeof text);
  if (status) fprintf(stderr, "%s", text);
  CHECK_EQ(status, 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(they_all_end)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
