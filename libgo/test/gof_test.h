/* What the tests of go_fiber share.
 *
 * There is one runtime in a process, and it is made once. So each case is a process of its own: a child of the program
 * that has not used the runtime yet. A case is a void (*)(void) that returns, or aborts by a CHECK. With the name of a
 * case as argument the program runs that one in its own process, for a debugger. */
#ifndef GOF_TEST_H
#define GOF_TEST_H

#include "harness.h"

#include <dirent.h>
#include <signal.h>
#include <sys/prctl.h>

#include "libgo/fiber.h"
#include "libgo/fiber_chan.h"

#if defined(__SANITIZE_THREAD__)
#define IS_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define IS_TSAN 1
#endif
#endif
#ifndef IS_TSAN
#define IS_TSAN 0
#endif

#define CASE_SECONDS 100 /* then a case counts as hanging */

/* What cmocka's handlers are in place of: a child gets them back. */
static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGSYS};
enum { FAULTS = sizeof faults / sizeof *faults };
static struct sigaction fault_actions[FAULTS];

static inline void in_own_process(void **state) {
  const struct CMUnitTest *test = *state;
  int status = 0;
  fflush(NULL);
  pid_t parent = getpid(), pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    for (int i = 0; i < FAULTS; i++) sigaction(faults[i], &fault_actions[i], NULL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    alarm(CASE_SECONDS);
    ((void (*)(void))test->initial_state)();
    exit(0);
  }
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM) fail_msg("hangs");
  if (WIFSIGNALED(status)) fail_msg("ended by signal %d", WTERMSIG(status));
  if (WEXITSTATUS(status)) fail_msg("exited with %d", WEXITSTATUS(status));
}

#define CASES_MAX 64
#define CASE(fn) \
  { #fn, NULL, NULL, NULL, (void *)(void (*)(void))(fn) }

/* main(): all cases, or the one that is named. */
static inline int run_cases(const struct CMUnitTest *cases, size_t count, int argc, char **argv) {
  struct CMUnitTest tests[CASES_MAX] = {0};
  CHECK(count <= CASES_MAX);
  for (size_t i = 0; argc > 1 && i < count; i++)
    if (!strcmp(cases[i].name, argv[1])) return ((void (*)(void))cases[i].initial_state)(), 0;
  if (argc > 1) return fprintf(stderr, "there is no case %s\n", argv[1]), 2;
  for (int i = 0; i < FAULTS; i++) sigaction(faults[i], NULL, &fault_actions[i]);
  for (size_t i = 0; i < count; i++)
    tests[i] = (struct CMUnitTest){cases[i].name, in_own_process, NULL, NULL, (void *)&cases[i]};
  return _cmocka_run_group_tests(argv[0], tests, count, NULL, NULL);
}

#define RUN_CASES(argc, argv, cases) run_cases(cases, sizeof(cases) / sizeof *(cases), argc, argv)

/* ---- The environment, before the runtime is made ---------------------------------------------------------------- */

static inline void set_env(const char *name, const char *value) { CHECK_EQ(setenv(name, value, 1), 0); }

static inline void set_env_number(const char *name, int value) {
  char text[16];
  snprintf(text, sizeof text, "%d", value);
  set_env(name, text);
}

static inline void set_workers(int n) { set_env_number("GOF_NWORKERS", n); }

/* At least so many workers, where the environment says fewer or nothing. */
static inline void need_workers(int n) {
  const char *text = getenv("GOF_NWORKERS");
  if (!text || atoi(text) < n) set_workers(n);
}

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
