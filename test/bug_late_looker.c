/* Whether a fiber that stands still is blocked, or only waits for a processor, tells /proc, and a thread that reads it.
 * Where that one did not answer in time the fiber counted as one that computes; so it was paused, by a signal, and what
 * it was blocked in, poll(2) or nanosleep(2), ended with EINTR.
 *
 * Here that thread shares its processor with one that computes, and has nearly nothing of it. */
#include "hogs.h"

#include <sched.h>

static _Atomic(bool) is_over;

/* 0: not there (yet). */
static int tid_of(const char *name) {
  DIR *dir = opendir("/proc/self/task");
  int found = 0;
  CHECK(dir);
  for (struct dirent *entry; !found && (entry = readdir(dir)) != NULL;) {
    char path[300], text[32] = "";
    snprintf(path, sizeof path, "/proc/self/task/%s/comm", entry->d_name);
    FILE *file = fopen(path, "r");
    if (!file) continue;
    if (fgets(text, sizeof text, file) && strncmp(text, name, strlen(name)) == 0) found = atoi(entry->d_name);
    fclose(file);
  }
  closedir(dir);
  return found;
}

static void keep_to_first_processor(int tid) {
  cpu_set_t all, first;
  int cpu = 0;
  CHECK_EQ(sched_getaffinity(0, sizeof all, &all), 0);
  while (!CPU_ISSET(cpu, &all)) cpu++;
  CPU_ZERO(&first);
  CPU_SET(cpu, &first);
  CHECK_EQ(sched_setaffinity(tid, sizeof first, &first), 0);
}

static void *compute_beside(void *unused) {
  keep_to_first_processor(0);
  while (!atomic_load_explicit(&is_over, memory_order_relaxed)) hog_compute(1000);
  return unused;
}

static int sleep_in_the_kernel(void *unused) {
  int rc = nanosleep(&(struct timespec){.tv_nsec = 30000000}, NULL);
  return unused || rc != 0;
}

static int yield_beside(void *unused) {
  (void)unused;
  while (!atomic_load_explicit(&is_over, memory_order_relaxed)) CHECK_EQ(coir_sleep(COIR_US(200)), 0);
  return 0;
}

/* Returns an error's number where the system refuses the policy, as some sandboxes do. */
static int sleep_beside(void *interrupted) {
  pthread_t thread;
  int look = 0;
  WAIT_FOR((look = tid_of("coir-look")) != 0);
  if (sched_setscheduler(look, SCHED_IDLE, &(struct sched_param){0}) != 0) return errno;
  CHECK_EQ(pthread_create(&thread, NULL, compute_beside, NULL), 0);
  keep_to_first_processor(look);
  struct coir_fiber *other = spawn(yield_beside, NULL);
  for (int i = 0; i < 20; i++) *(int *)interrupted += join(spawn(sleep_in_the_kernel, NULL));
  atomic_store(&is_over, true);
  CHECK_EQ(join(other), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  return 0;
}

static void the_blocked_are_not_interrupted(void **state) {
  (void)state;
  int interrupted = 0;
  struct coir_config config = PREEMPTIVE(1, 3000);
  config.blocked_us = 1000;
  int refused = run_with(config, sleep_beside, &interrupted);
  if (refused) {
    print_message("skipped: sched_setscheduler: %s\n", strerror(refused));
    skip();
  }
  if (interrupted) fail_msg("%d of 20 were interrupted", interrupted);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(the_blocked_are_not_interrupted)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
