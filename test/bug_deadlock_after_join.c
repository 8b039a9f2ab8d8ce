/* The system counts a thread that has been joined for a while yet, on a busy machine for longer than the 10 ms after
 * which a deadlock was looked for. Who looked then took it for a thread that might still do something, and nobody
 * looked again: the program stood still for ever.
 *
 * To force it, stat(2), which tells the number of threads, is wrapped (--wrap), and counts one too many at first. */
#include "processes.h"

#include <sys/stat.h>

int __real_stat(const char *path, struct stat *out);
int __wrap_stat(const char *path, struct stat *out);

static _Atomic(int64_t) one_more_until;
static _Atomic(int) looks;

int __wrap_stat(const char *path, struct stat *out) {
  int rc = __real_stat(path, out);
  if (strcmp(path, "/proc/self/task") == 0) {
    atomic_fetch_add(&looks, 1);
    if (rc == 0 && coir_now() < one_more_until) out->st_nlink++;
  }
  return rc;
}

static struct coir_event never, told;

static int waits(void *arg) {
  (void)arg;
  return coir_event_wait(&never, COIR_NEVER);
}

static void a_run_ends(void **state) {
  (void)state;
  struct coir_config config = {.size = sizeof config, .workers = 2};
  struct coir_runtime *rt = make_runtime(config);
  int status = 0;
  one_more_until = coir_after(COIR_MS(250));
  CHECK_EQ(coir_runtime_run(rt, waits, NULL, &status), -EDEADLK);
  CHECK_EQ(status, -ECANCELED);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static bool tells(struct coir_runtime *rt, void *arg) {
  (void)rt, (void)arg;
  coir_event_set(&told);
  coir_event_set(&never);
  return true;
}

/* The last step is that this thread sleeps. */
static void a_thread_is_told(void **state) {
  (void)state;
  struct coir_config config = {.size = sizeof config, .workers = 2, .on_deadlock = tells};
  struct coir_runtime *rt = make_runtime(config);
  CHECK_EQ(coir_runtime_start(rt), 0);
  CHECK_EQ(coir_runtime_spawn(rt, waits, NULL, NULL, NULL), 0);
  coir_sleep(COIR_MS(100)); /* until all of them rest */
  one_more_until = coir_after(COIR_MS(250));
  CHECK_EQ(coir_event_wait(&told, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

/* A thread that does not end does not keep the runtime awake: the looks become seldom, and then end. */
static void it_is_left_alone(void **state) {
  (void)state;
  struct coir_config config = {.size = sizeof config, .workers = 2, .on_deadlock = tells};
  struct coir_runtime *rt = make_runtime(config);
  coir_event_reset(&never);
  looks = 0;
  one_more_until = coir_after(COIR_MS(700));
  CHECK_EQ(coir_runtime_run(rt, waits, NULL, NULL), 0);
  CHECK(looks > 4 && looks < 30);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

/* In this process: ThreadSanitizer has threads of its own in one that was forked, which count as foreign. */
int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(a_run_ends), cmocka_unit_test(a_thread_is_told),
                                     cmocka_unit_test(it_is_left_alone)};
  settle_threads();
  return cmocka_run_group_tests(tests, NULL, NULL);
}
