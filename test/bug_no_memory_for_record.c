/* A thread that the library starts needs a record. It made that itself, as the first thing; without memory for it the
 * process ended, though the call that had the thread started could have told it. */
#include "harness.h"

#include "coir_io.h"

static _Atomic(int) left = INT32_MAX; /* allocations of records that succeed */

/* The linker sends the library's calls here (--wrap): nothing but records is allocated so. */
void *__real_aligned_alloc(size_t align, size_t bytes);
void *__wrap_aligned_alloc(size_t align, size_t bytes);

void *__wrap_aligned_alloc(size_t align, size_t bytes) {
  return atomic_fetch_sub(&left, 1) > 0 ? __real_aligned_alloc(align, bytes) : NULL;
}

static int nothing(void *arg) {
  (void)arg;
  return 7;
}

/* In a process of its own, which has no records to be used again. */
static void start_with_few(int records) {
  struct coir_config config = {.size = sizeof config, .workers = 3, .pollers = 1};
  struct coir_runtime *rt;
  int status = 0;
  CHECK_EQ(coir_runtime_create(&rt, &config), 0);
  left = records;
  int rc = coir_runtime_run(rt, nothing, NULL, &status);
  left = INT32_MAX;
  CHECK_EQ(rc, -ENOMEM);
  CHECK_EQ(coir_runtime_run(rt, nothing, NULL, &status), 0);
  CHECK_EQ(status, 7);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static void with_none(void) { start_with_few(0); }
static void with_one(void) { start_with_few(1); }
static void with_four(void) {
  start_with_few(4);
} /* the last but one: the looker, helper, monitor, poller, 2 workers */

static void a_run_says_so(void **state) {
  (void)state;
  char text[1024] = "";
  CHECK_EQ(in_child_process(with_none, text, sizeof text), 0);
  CHECK_EQ(in_child_process(with_one, text, sizeof text), 0);
  CHECK_EQ(in_child_process(with_four, text, sizeof text), 0);
}

/* The thread that looks after descriptors for plain threads. */
static void read_on_thread(void) {
  int fds[2];
  char c;
  CHECK_EQ(pipe(fds), 0);
  CHECK_EQ(coir_sleep(COIR_US(1)), 0); /* this thread has its record */
  left = 0;
  CHECK_EQ(coir_read(fds[0], &c, 1, coir_after(COIR_SEC(5))), -ENOMEM);
  left = INT32_MAX;
  CHECK_EQ(coir_read(fds[0], &c, 1, coir_after(COIR_MS(5))), -ETIMEDOUT);
}

static void a_read_says_so(void **state) {
  (void)state;
  char text[1024] = "";
  CHECK_EQ(in_child_process(read_on_thread, text, sizeof text), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(a_run_says_so), cmocka_unit_test(a_read_says_so)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
