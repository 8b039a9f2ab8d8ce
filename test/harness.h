/* What the tests of the core share.
 *
 * Checks abort: a test's body often runs on a fiber, whose stack cmocka's assertions must not jump away from. */
#ifndef COIR_TEST_HARNESS_H
#define COIR_TEST_HARNESS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "coir.h"
#include "sanitizers.h"

#define CHECK(x)                                                        \
  do {                                                                  \
    if (!(x)) {                                                         \
      fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #x); \
      abort();                                                          \
    }                                                                   \
  } while (0)

#define CHECK_EQ(a, b)                                                                                     \
  do {                                                                                                     \
    long long check_a = (long long)(a), check_b = (long long)(b);                                          \
    if (check_a != check_b) {                                                                              \
      fprintf(stderr, "%s:%d: %s is %lld, not %s = %lld\n", __FILE__, __LINE__, #a, check_a, #b, check_b); \
      abort();                                                                                             \
    }                                                                                                      \
  } while (0)

/* Waits, on a fiber or a thread, until the condition holds; gives up, and aborts, after 20 s. */
#define WAIT_FOR(condition)                                                         \
  do {                                                                              \
    int64_t wait_end = coir_after(COIR_SEC(20));                                    \
    while (!(condition)) {                                                          \
      if (coir_now() > wait_end) {                                                  \
        fprintf(stderr, "%s:%d: never true: %s\n", __FILE__, __LINE__, #condition); \
        abort();                                                                    \
      }                                                                             \
      (void)coir_sleep(COIR_US(100));                                               \
    }                                                                               \
  } while (0)

/* Computes, without giving way, until the condition holds. */
#define SPIN_UNTIL(condition)                                                       \
  do {                                                                              \
    int64_t spin_end = coir_now() + COIR_SEC(20);                                   \
    while (!(condition)) {                                                          \
      if (coir_now() > spin_end) {                                                  \
        fprintf(stderr, "%s:%d: never true: %s\n", __FILE__, __LINE__, #condition); \
        abort();                                                                    \
      }                                                                             \
    }                                                                               \
  } while (0)

/* How the system has a thread of this process: 'R' has a CPU or wants one, 'S' sleeps; 0: it is not there. */
static inline char thread_state(int tid) {
  char path[64], text[512] = "";
  snprintf(path, sizeof path, "/proc/self/task/%d/stat", tid);
  FILE *file = fopen(path, "re");
  if (!file) return 0;
  bool is_read = fgets(text, sizeof text, file) != NULL;
  fclose(file);
  const char *name_end = strrchr(text, ')');
  return is_read && name_end && name_end[1] == ' ' ? name_end[2] : 0;
}

static inline uint64_t rng_next(uint64_t *state) {
  uint64_t x = *state;
  x ^= x << 13, x ^= x >> 7, x ^= x << 17;
  return *state = x;
}

static inline uint64_t rng_seed(uint64_t seed) { return seed * UINT64_C(0x9e3779b97f4a7c15) | 1; }

/* A number of rounds, fewer where a sanitizer makes each one slow. */
static inline int rounds(int n) { return IS_SANITIZED ? (n + 9) / 10 : n; }

/* How many descriptors are open: to be compared with what it was before. */
static inline int fd_count(void) {
  int n = 0;
  DIR *dir = opendir("/proc/self/fd");
  CHECK(dir);
  while (readdir(dir)) n++;
  closedir(dir);
  return n;
}

static inline struct coir_runtime *make_runtime(struct coir_config config) {
  struct coir_runtime *rt = NULL;
  config.size = sizeof config;
  CHECK_EQ(coir_runtime_create(&rt, &config), 0);
  CHECK(rt != NULL);
  return rt;
}

/* Runs fn(arg) on a runtime of its own, which takes from the environment what `config` leaves open. */
/* Of runtimes on which fibers run in a strict order, or so many steps. In hard mode fibers lose their worker, or yield,
 * at any call; but not where there is no monitor. */
#ifdef COIR_HARD
#define STRICT_MONITOR COIR_OFF
#else
#define STRICT_MONITOR COIR_DEFAULT
#endif

static inline int run_with(struct coir_config config, coir_fn fn, void *arg) {
  struct coir_runtime *rt = make_runtime(config);
  int status = -1;
  CHECK_EQ(coir_runtime_run(rt, fn, arg, &status), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
  return status;
}

static inline int run(coir_fn fn, void *arg) { return run_with((struct coir_config){0}, fn, arg); }

/* Joins and returns the status. */
static inline int join(struct coir_fiber *f) {
  struct coir_result result = {.status = -1};
  CHECK_EQ(coir_join(f, &result, COIR_NEVER), 0);
  return result.status;
}

static inline struct coir_fiber *spawn(coir_fn fn, void *arg) {
  struct coir_fiber *f = NULL;
  CHECK_EQ(coir_spawn(fn, arg, NULL, &f), 0);
  CHECK(f != NULL);
  return f;
}

static inline struct coir_fiber *spawn_with(struct coir_attr attr, coir_fn fn, void *arg) {
  struct coir_fiber *f = NULL;
  CHECK_EQ(coir_spawn(fn, arg, &attr, &f), 0);
  return f;
}

/* Runs fn() in a child process. Returns its wait status; what it writes to stderr goes to `text`. */
static inline int in_child_process(void (*fn)(void), char *text, size_t bytes) {
  int fds[2], status = 0;
  CHECK_EQ(pipe(fds), 0);
  fflush(NULL);
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    dup2(fds[1], 2);
    close(fds[0]);
    close(fds[1]);
    alarm(20);
    fn();
    _exit(0);
  }
  close(fds[1]);
  size_t n = 0;
  for (char c; read(fds[0], &c, 1) == 1;)
    if (n + 1 < bytes) text[n++] = c;
  if (bytes) text[n] = 0;
  close(fds[0]);
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  return status;
}

#endif
