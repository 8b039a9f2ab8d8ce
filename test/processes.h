/* Cases that are processes of their own, for what is there once in a process, such as a runtime or the environment.
 *
 * A case is a void (*)(void) that returns, or aborts by a CHECK. It runs in a child of the program, which itself uses
 * nothing of what is tested. With the name of a case as argument the program runs that one in its own process, for a
 * debugger. */
#ifndef COIR_TEST_PROCESSES_H
#define COIR_TEST_PROCESSES_H

#include "harness.h"

#include <dirent.h>
#include <signal.h>
#include <sys/prctl.h>

#if IS_TSAN
/* It would wait for a second at each exit while there are threads. */
const char *__tsan_default_options(void);
__attribute__((weak)) const char *__tsan_default_options(void) { return "atexit_sleep_ms=0"; }

static inline void *come_and_go(void *arg) { return arg; }
#endif

/* ThreadSanitizer's own thread comes with the first: so that it is there before others are counted. A child that is
 * forked before that would have two of them. */
static inline void settle_threads(void) {
#if IS_TSAN
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, come_and_go, NULL), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
#endif
}

static inline bool others_sleep(void) {
  DIR *dir = opendir("/proc/self/task");
  bool do_sleep = true;
  CHECK(dir);
  for (const struct dirent *entry; (entry = readdir(dir));) {
    int tid = atoi(entry->d_name);
    char state = tid > 0 && tid != getpid() ? thread_state(tid) : 0;
    if (state && state != 'S') do_sleep = false;
  }
  closedir(dir);
  return do_sleep;
}

/* For the main thread, before a fork whose child allocates or starts threads: the locks of a sanitizer's allocator do
 * not survive one, and a thread that is just starting, or done with something, takes them. */
static inline void wait_for_others(void) { WAIT_FOR(others_sleep()); }

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
  settle_threads();
  for (size_t i = 0; argc > 1 && i < count; i++)
    if (!strcmp(cases[i].name, argv[1])) return ((void (*)(void))cases[i].initial_state)(), 0;
  if (argc > 1) return fprintf(stderr, "there is no case %s\n", argv[1]), 2;
  for (int i = 0; i < FAULTS; i++) sigaction(faults[i], NULL, &fault_actions[i]);
  for (size_t i = 0; i < count; i++)
    tests[i] = (struct CMUnitTest){cases[i].name, in_own_process, NULL, NULL, (void *)&cases[i]};
  return _cmocka_run_group_tests(argv[0], tests, count, NULL, NULL);
}

#define RUN_CASES(argc, argv, cases) run_cases(cases, sizeof(cases) / sizeof *(cases), argc, argv)

static inline void set_env(const char *name, const char *value) { CHECK_EQ(setenv(name, value, 1), 0); }

static inline void set_env_number(const char *name, int value) {
  char text[16];
  snprintf(text, sizeof text, "%d", value);
  set_env(name, text);
}

/* At least so many workers, where the environment says fewer or nothing. `name`: of the variable. */
static inline void set_workers_at_least(const char *name, int n) {
  const char *text = getenv(name);
  if (!text || atoi(text) < n) set_env_number(name, n);
}

/* ---- What is there once, by fibers of a simulated runtime -------------------------------------------------------- */

static coir_fn simulated_use;
static int simulated_seed;

static inline int use_by_several(void *unused) {
  struct coir_fiber *fibers[4];
  (void)unused;
  for (int i = 0; i < 4; i++) fibers[i] = spawn(simulated_use, NULL);
  for (int i = 0; i < 4; i++) CHECK_EQ(join(fibers[i]), 0);
  return 0;
}

static inline void use_in_simulation(void) {
  CHECK_EQ(run_with((struct coir_config){.sim_seed = simulated_seed}, use_by_several, NULL), 0);
}

/* A first use that gives way in the midst of what it makes, with a mutex held, blocks the thread for the next fiber. */
static inline void in_simulations(coir_fn use) {
  char text[4096];
  simulated_use = use;
  for (simulated_seed = 1; simulated_seed <= 10; simulated_seed++) {
    int status = in_child_process(use_in_simulation, text, sizeof text);
    if (status) fprintf(stderr, "seed %d: %s", simulated_seed, text);
    CHECK_EQ(status, 0);
  }
}

#endif
