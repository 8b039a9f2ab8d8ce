/* What belongs to a fiber stays with it when it goes to another thread: every wait sends it elsewhere here
 * (coir_config.migrate). */
#include "harness.h"

#include <fenv.h>

static __thread int thread_mark;

/* The pattern that docs/tls.md asks for: the address of a thread-local is made anew on each call. */
static int __attribute__((noinline)) mark_get(void) {
  __asm__ volatile("" ::: "memory");
  return thread_mark;
}

static void __attribute__((noinline)) mark_set(int mark) {
  thread_mark = mark;
  __asm__ volatile("" ::: "memory");
}

static int __attribute__((noinline)) errno_get(void) {
  __asm__ volatile("" ::: "memory");
  return errno;
}

static void __attribute__((noinline)) errno_set(int value) {
  errno = value;
  __asm__ volatile("" ::: "memory");
}

static pthread_t __attribute__((noinline)) self_get(void) {
  __asm__ volatile("" ::: "memory");
  return pthread_self();
}

static const struct coir_config migrating = {.workers = 4, .migrate = COIR_ON};

static void wait_somehow(int i) {
  if (i % 3 == 0) CHECK_EQ(coir_sleep(COIR_US(30)), 0);
  else CHECK_EQ(coir_yield(), 0);
}

static int keeps_errno(void *arg) {
  int mine = (int)(intptr_t)arg;
  errno_set(mine);
  for (int i = 0; i < 200; i++) {
    wait_somehow(i);
    CHECK_EQ(errno_get(), mine);
  }
  return 0;
}

static int many(void *fn) {
  struct coir_fiber *f[16];
  for (int i = 0; i < 16; i++) f[i] = spawn(*(coir_fn *)fn, (void *)(intptr_t)(1000 + i));
  for (int i = 0; i < 16; i++) join(f[i]);
  return 0;
}

static void errno_is_per_fiber(void **state) {
  (void)state;
  coir_fn fn = keeps_errno;
  run_with(migrating, many, &fn);
  errno_set(77);
  run_with(migrating, many, &fn);
}

static int moves(void *arg) {
  (void)arg;
  int changes = 0, was = coir_worker_index();
  for (int i = 0; i < 100; i++) {
    pthread_t before = self_get();
    wait_somehow(i);
    int is = coir_worker_index();
    CHECK(is >= 0 && is < 4);
    if (is != was) {
      changes++;
      CHECK(!pthread_equal(self_get(), before));
    } else {
      CHECK(pthread_equal(self_get(), before));
    }
    was = is;
  }
  return changes;
}

static void migration_is_real(void **state) {
  (void)state;
  CHECK(run_with(migrating, moves, NULL) >= 60);
}

static _Atomic(int) marks;

/* Each thread gives itself a number; whoever runs on it must find the number of that thread, not of a former one. */
static int finds_the_threads_mark(void *arg) {
  static struct {
    _Atomic(int) mark;
    pthread_t thread;
  } known[64];
  (void)arg;
  for (int i = 0; i < 300; i++) {
    int mark = mark_get();
    if (!mark) {
      mark = atomic_fetch_add(&marks, 1) + 1;
      CHECK(mark < 64);
      known[mark].thread = self_get();
      mark_set(mark);
      atomic_store(&known[mark].mark, 1);
    }
    CHECK(pthread_equal(known[mark].thread, self_get()));
    wait_somehow(i);
  }
  return 0;
}

static void thread_locals_by_an_accessor(void **state) {
  (void)state;
  coir_fn fn = finds_the_threads_mark;
  run_with(migrating, many, &fn);
  CHECK(atomic_load(&marks) <= 4);
  mark_set(0);
}

static int current_stays(void *arg) {
  (void)arg;
  struct coir_fiber *self = coir_current();
  struct coir_runtime *rt = coir_runtime_current();
  uint64_t id = coir_fiber_id(NULL);
  for (int i = 0; i < 200; i++) {
    wait_somehow(i);
    CHECK(coir_current() == self);
    CHECK(coir_runtime_current() == rt);
    CHECK_EQ(coir_fiber_id(NULL), id);
  }
  return 0;
}

static void the_fiber_knows_itself(void **state) {
  (void)state;
  coir_fn fn = current_stays;
  run_with(migrating, many, &fn);
}

/* ---- Floating point -------------------------------------------------------------------------------------------- */

static volatile double one = 1, three = 3;

static int keeps_rounding(void *arg) {
  static const int modes[] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
  int mode = modes[(intptr_t)arg % 4];
  CHECK_EQ(fegetround(), FE_TONEAREST); /* a fiber begins with the default */
  CHECK_EQ(fesetround(mode), 0);
  double third = one / three;
  for (int i = 0; i < 200; i++) {
    wait_somehow(i);
    CHECK_EQ(fegetround(), mode);
    CHECK(one / three == third);
  }
  return 0;
}

static int rounding_does_not_reach_others(void *fn) {
  many(fn);
  CHECK_EQ(fegetround(), FE_TONEAREST);
  return 0;
}

static void rounding_is_per_fiber(void **state) {
  (void)state;
  coir_fn fn = keeps_rounding;
  run_with(migrating, rounding_does_not_reach_others, &fn);
  CHECK_EQ(fegetround(), FE_TONEAREST);
  run_with((struct coir_config){.workers = 1}, rounding_does_not_reach_others, &fn);
  CHECK_EQ(fegetround(), FE_TONEAREST);
}

int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(errno_is_per_fiber),           cmocka_unit_test(migration_is_real),
      cmocka_unit_test(thread_locals_by_an_accessor), cmocka_unit_test(the_fiber_knows_itself),
      cmocka_unit_test(rounding_is_per_fiber),
  };
  if (argc > 1) cmocka_set_test_filter(argv[1]);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
