/* Two workers that went to sleep at the same moment both looked for a deadlock, both found it, and both called the hook.
 *
 * To force it, stat(2), which the look asks for the number of threads, is wrapped (--wrap): the first that comes there
 * has all workers look around once more, and waits until another one has come too, or has gone to sleep again. */
#include "harness.h"

#include <sys/stat.h>

#include "internal.h"

#define WORKERS 4

int __real_stat(const char *path, struct stat *out);
int __wrap_stat(const char *path, struct stat *out);

static struct coir_runtime *rt;
static struct coir_event dealt_with;
static _Atomic(int) looks, calls;
static int looks_in_all;

static void wait_for_another(void) {
  int64_t end = coir_after(COIR_MS(50));
  coir__idle_attention(rt);
  while (atm_load_sc(&rt->deep) == WORKERS && atomic_load(&looks) == 1 && coir_now() < end) {}
  while (atm_load_sc(&rt->deep) != WORKERS && atomic_load(&looks) == 1 && coir_now() < end) {}
  end = coir_after(COIR_MS(1));
  while (atomic_load(&looks) == 1 && coir_now() < end) {}
}

int __wrap_stat(const char *path, struct stat *out) {
  int rc = __real_stat(path, out);
  if (rt && strcmp(path, "/proc/self/task") == 0 && atomic_fetch_add(&looks, 1) == 0) wait_for_another();
  return rc;
}

static bool hook(struct coir_runtime *runtime, void *arg) {
  (void)arg;
  CHECK(runtime == rt);
  atomic_fetch_add(&calls, 1);
  int64_t end = coir_after(COIR_US(100));
  while (coir_now() < end) {} /* the fiber is not woken before the other worker has seen it wait, too */
  coir_event_set(&dealt_with);
  return true;
}

static int waits(void *arg) {
  (void)arg;
  return coir_event_wait(&dealt_with, COIR_NEVER);
}

static void the_hook_is_called_once(void **state) {
  (void)state;
  rt = make_runtime((struct coir_config){.workers = WORKERS, .on_deadlock = hook});
  struct coir_tuning tuning;
  coir_runtime_get_tuning(rt, &tuning);
  tuning.steal = 0; /* nobody watches: all sleep alike */
  coir_runtime_set_tuning(rt, &tuning);
  for (int i = rounds(30); i > 0; i--) {
    int status = -1;
    coir_event_reset(&dealt_with);
    atomic_store(&looks, 0);
    atomic_store(&calls, 0);
    CHECK_EQ(coir_runtime_run(rt, waits, NULL, &status), 0);
    CHECK_EQ(status, 0);
    CHECK_EQ(atomic_load(&calls), 1);
    looks_in_all += atomic_load(&looks);
  }
  CHECK_EQ(coir_runtime_destroy(rt), 0);
  rt = NULL;
  if (!looks_in_all) skip(); /* a C library that has another name for stat */
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(the_hook_is_called_once)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
