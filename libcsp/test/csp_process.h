/* What the tests of libcsp share. Each case is a process of its own (processes.h). */
#ifndef CSP_PROCESS_H
#define CSP_PROCESS_H

#include "processes.h"

#include "csp.h"

enum { DUMP_LINES = 8 }; /* of runtime_dump, before the list of goroutines */

static inline void set_workers(int n) { set_env_number("COIR_WORKERS", n); }
static inline void need_workers(int n) { set_workers_at_least("COIR_WORKERS", n); }

static inline void *number(intptr_t n) { return (void *)n; }

static inline void go(void (*fn)(void *arg), void *arg) { CHECK(csp_proc_create(0, fn, arg) != NULL); }

static inline int entries_in(const char *path) {
  int n = -2; /* . and .. */
  DIR *dir = opendir(path);
  CHECK(dir != NULL);
  while (readdir(dir)) n++;
  closedir(dir);
  return n;
}

static inline int threads_now(void) { return entries_in("/proc/self/task"); }

/* How often. */
static inline int count_in(const char *text, const char *part) {
  int n = 0;
  for (const char *at = text; (at = strstr(at, part)); at += strlen(part)) n++;
  return n;
}

static inline void until_no_goroutine(void) { WAIT_FOR(runtime_num_goroutines() == 0); }

/* Runs the body on the main thread, and then in a goroutine. */
#define ON_BOTH(name)                                        \
  static void name##_body(void);                             \
  static void name##_goroutine(void *wg) {                   \
    name##_body();                                           \
    csp_sync_waitgroup_done(wg);                             \
  }                                                          \
  static void name(void) {                                   \
    csp_sync_waitgroup_t name##_wg = {{0}};                  \
    name##_body();                                           \
    csp_sync_waitgroup_add(&name##_wg, 1);                   \
    CHECK(csp_proc_create(3, name##_goroutine, &name##_wg)); \
    csp_sync_waitgroup_wait(&name##_wg);                     \
  }                                                          \
  static void name##_body(void)

#endif
