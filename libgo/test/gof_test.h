/* What the tests of go_fiber share.
 *
 * There is one runtime in a process, and it is made once. So each case is a process of its own (processes.h). */
#ifndef GOF_TEST_H
#define GOF_TEST_H

#include "processes.h"

#include "libgo/fiber.h"
#include "libgo/fiber_chan.h"

/* ---- The environment, before the runtime is made ---------------------------------------------------------------- */

static inline void set_workers(int n) { set_env_number("GOF_NWORKERS", n); }
static inline void need_workers(int n) { set_workers_at_least("GOF_NWORKERS", n); }

/* Every fiber goes on on another worker after each wait and yield. */
static inline void migrate(void) {
  set_env("COIR_MIGRATE", "1");
  need_workers(3);
}

/* ---- Looking ----------------------------------------------------------------------------------------------------- */

static inline gof_sched_stats stats_now(void) {
  gof_sched_stats s;
  gof_get_stats(&s);
  return s;
}

static inline int worker_count(void) { return stats_now().nworkers; }

static inline gof_fiber_t *go(gof_fn fn, void *arg) {
  gof_fiber_t *f = gof_spawn(fn, arg, 0);
  CHECK(f != NULL);
  return f;
}

static inline void *number(intptr_t n) { return (void *)n; }

static inline void spin_for(int64_t ns) {
  int64_t until = coir_now() + ns;
  while (coir_now() < until) {}
}

/* A number from a file of /proc, behind `name`. */
static inline long proc_number(const char *path, const char *name) {
  char line[256];
  long n = -1;
  FILE *f = fopen(path, "r");
  CHECK(f != NULL);
  while (n < 0 && fgets(line, sizeof line, f))
    if (!strncmp(line, name, strlen(name))) n = strtol(line + strlen(name), NULL, 10);
  fclose(f);
  return n;
}

static inline long threads_now(void) { return proc_number("/proc/self/status", "Threads:"); }
static inline long resident_kib(void) { return proc_number("/proc/self/status", "VmRSS:"); }

static inline int descriptors_now(void) {
  int n = 0;
  DIR *dir = opendir("/proc/self/fd");
  CHECK(dir != NULL);
  while (readdir(dir)) n++;
  closedir(dir);
  return n;
}

/* What the process has computed so far, in nanoseconds. */
static inline int64_t cpu_now(void) {
  struct timespec t;
  CHECK_EQ(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t), 0);
  return COIR_SEC(t.tv_sec) + t.tv_nsec;
}

/* Of the fiber `id`; FINISHED when it is not there. */
static inline int state_of(uint64_t id) {
  gof_info list[256];
  size_t n = gof_list(list, 256);
  for (size_t i = 0; i < n; i++)
    if (list[i].id == id) return list[i].state;
  return GOF_STATE_FINISHED;
}

static inline int blocked_count(void) {
  size_t live = gof_list(NULL, 0) + 16;
  gof_info *list = calloc(live, sizeof *list);
  CHECK(list != NULL);
  size_t n = gof_list(list, live);
  int count = 0;
  for (size_t i = 0; i < n; i++) count += list[i].state == GOF_STATE_BLOCKED;
  free(list);
  return count;
}

#endif
