/* Several workers that went to sleep at the same moment looked for a deadlock at the same time. One that came when
 * another was about to cancel the fibers took it that they had been cancelled and still stood still, and ended the run:
 * none of their clean-up ran. Two could also call the hook at once.
 *
 * To force it, syscall(2) is wrapped (--wrap): the worker that has found the deadlock is held up in the fence before it
 * cancels, while all others look around once more, until one of them looks for a deadlock, or all sleep again. The look
 * is noticed by its stat(2), which tells the number of threads. */
#include "harness.h"

#include <sys/stat.h>
#include <sys/syscall.h>

#include "internal.h"

#define WORKERS 4

int __real_stat(const char *path, struct stat *out);
int __wrap_stat(const char *path, struct stat *out);
long __real_syscall(long number, ...);
long __wrap_syscall(long number, long a, long b, long c, long d, long e, long f);

static struct coir_runtime *rt;
static struct coir_event event;
static _Atomic(int) looks, calls;
static _Atomic(bool) is_armed, was_held_up;
static int cleaned_up;

int __wrap_stat(const char *path, struct stat *out) {
  if (strcmp(path, "/proc/self/task") == 0) atomic_fetch_add(&looks, 1);
  return __real_stat(path, out);
}

static void hold_up(void) {
  int before = atomic_load(&looks);
  int64_t end = coir_after(COIR_MS(100));
  atomic_store(&was_held_up, true);
  coir__idle_attention(rt);
  while (atm_load_sc(&rt->deep) == WORKERS && coir_now() < end) {}
  while (atm_load_sc(&rt->deep) != WORKERS && coir_now() < end) {}
  end = coir_after(COIR_MS(2));
  while (atomic_load(&looks) == before && coir_now() < end) {}
  end = coir_after(COIR_MS(2)); /* if one looks: until it has seen what it sees */
  while (atomic_load(&looks) != before && coir_now() < end) {}
}

/* Who passes fewer has something there, too. */
long __wrap_syscall(long number, long a, long b, long c, long d, long e, long f) {
  if (number == SYS_membarrier && atomic_load(&is_armed) && atm_load_acq(&rt->cancel_all)) {
    atomic_store(&is_armed, false);
    hold_up();
  }
  return __real_syscall(number, a, b, c, d, e, f);
}

static bool hook(struct coir_runtime *runtime, void *arg) {
  (void)arg;
  CHECK(runtime == rt);
  atomic_fetch_add(&calls, 1);
  return false;
}

static int waits(void *arg) {
  (void)arg;
  int rc = coir_event_wait(&event, COIR_NEVER);
  cleaned_up++;
  return rc;
}

static void the_fibers_clean_up(void **state) {
  (void)state;
  rt = make_runtime((struct coir_config){.workers = WORKERS, .on_deadlock = hook});
  struct coir_tuning tuning;
  coir_runtime_get_tuning(rt, &tuning);
  tuning.steal = 0; /* nobody watches: all sleep alike */
  coir_runtime_set_tuning(rt, &tuning);
  for (int i = 1; i <= 3; i++) {
    int status = 0;
    atomic_store(&is_armed, true);
    CHECK_EQ(coir_runtime_run(rt, waits, NULL, &status), -EDEADLK);
    CHECK_EQ(cleaned_up, i);
    CHECK_EQ(status, -ECANCELED);
    CHECK_EQ(atomic_load(&calls), i);
  }
  CHECK_EQ(coir_runtime_destroy(rt), 0);
  if (!atomic_load(&was_held_up)) skip(); /* there is no membarrier(2) */
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(the_fibers_clean_up)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
