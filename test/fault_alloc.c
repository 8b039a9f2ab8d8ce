/* The n-th allocation fails, for n = 1, 2, ... until a whole life of a runtime passes untouched. Each failure is
 * told by a clear code or survived; nothing leaks, nothing hangs. */
#include "harness.h"

static _Atomic(long) blocks, bytes_out;
static _Atomic(int) countdown, failed;
static int width; /* allocations that fail in a row */

static void *hook_alloc(size_t bytes, void *arg) {
  (void)arg;
  int n = atomic_fetch_sub(&countdown, 1);
  if (n <= 1 && n > 1 - width) {
    atomic_fetch_add(&failed, 1);
    return NULL;
  }
  void *p = malloc(bytes);
  CHECK(p);
  memset(p, 0xa5, bytes);
  atomic_fetch_add(&blocks, 1);
  atomic_fetch_add(&bytes_out, (long)bytes);
  return p;
}

static void hook_free(void *memory, size_t bytes, void *arg) {
  (void)arg;
  atomic_fetch_sub(&blocks, 1);
  atomic_fetch_sub(&bytes_out, (long)bytes);
  memset(memory, 0x5a, bytes);
  free(memory);
}

static int key;
static _Atomic(int) ran;

static int child(void *arg) {
  int home = coir_worker_index();
  int rc = coir_local_set(key, arg);
  CHECK(rc == 0 || rc == -ENOMEM);
  CHECK(coir_local_get(key) == (rc ? NULL : arg));
  coir_yield();
  CHECK_EQ(coir_sleep(COIR_US(10)), 0);
  if (arg) CHECK_EQ(coir_worker_index(), home); /* pinned, also when its stack came late */
  atomic_fetch_add(&ran, 1);
  return 5;
}

/* Enough at once that rings grow, of several stack sizes. */
static int burst(void *arg) {
  (void)arg;
  enum { MAX = 700 };
  int n = IS_SANITIZED ? 300 : MAX; /* more than a ring begins with */
  struct coir_fiber *f[MAX];
  int spawned = 0;
  for (int i = 0; i < n; i++) {
    struct coir_attr attr = {.order = (enum coir_order)(i % 2), .pinned = i % 64 == 0};
    if (i % 100 == 1) attr.stack_bytes = (size_t)32 << 10 << (i / 100 % 3);
    int rc = coir_spawn(child, attr.pinned ? &key : NULL, &attr, &f[i]);
    CHECK(rc == 0 || (rc == -ENOMEM && !f[i]));
    spawned += rc == 0;
  }
  for (int i = 0; i < n; i++)
    if (f[i]) CHECK_EQ(join(f[i]), 5);
  CHECK_EQ(ran, spawned);
  return 9;
}

/* Returns true when it was left in peace. */
static bool one_life(int n, int pollers) {
  struct coir_config config = {
      .size = sizeof config, .workers = 2, .pollers = pollers, .alloc = hook_alloc, .free = hook_free};
  struct coir_runtime *rt = NULL;
  ran = failed = 0;
  countdown = n;
  int rc = coir_runtime_create(&rt, &config);
  if (rc) {
    CHECK_EQ(rc, -ENOMEM);
    CHECK(rt == NULL && failed > 0);
  } else {
    int status = -1;
    while ((rc = coir_runtime_run(rt, burst, NULL, &status)) != 0) CHECK_EQ(rc, -ENOMEM);
    CHECK_EQ(status, 9);
    while ((rc = coir_runtime_start(rt)) != 0) CHECK_EQ(rc, -ENOMEM);
    struct coir_fiber *f;
    ran = 0;
    while ((rc = coir_runtime_spawn(rt, child, NULL, NULL, &f)) != 0) CHECK_EQ(rc, -ENOMEM);
    CHECK_EQ(join(f), 5);
    CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
    CHECK_EQ(coir_runtime_destroy(rt), 0);
  }
  CHECK_EQ(blocks, 0);
  CHECK_EQ(bytes_out, 0);
  return failed == 0;
}

static void every_allocation_may_fail(void **state) {
  (void)state;
  key = coir_key_create(NULL);
  for (int pollers = 0; pollers <= 1; pollers++)
    for (width = 1; width <= 3; width += 2) {
      int n = 1;
      while (!one_life(n, pollers)) n += 1 + n / (IS_SANITIZED ? 8 : 60); /* beyond the first ones they are all alike */
      CHECK(n > 8);
    }
  CHECK_EQ(coir_key_delete(key), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(every_allocation_may_fail)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
