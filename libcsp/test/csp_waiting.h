/* Goroutines and threads that are started, counted, and looked at while they wait. */
#ifndef CSP_WAITING_H
#define CSP_WAITING_H

#include "csp_process.h"

#define LATE COIR_SEC(10) /* so late is nothing, however busy the machine is */

static _Atomic(int) active; /* of those that start() has started */

struct started {
  void (*fn)(void *arg);
  void *arg;
};

static inline void run_started(void *started) {
  struct started s = *(struct started *)started;
  free(started);
  s.fn(s.arg);
  atomic_fetch_sub(&active, 1);
}

static inline void *run_started_on_thread(void *started) { return run_started(started), NULL; }

/* Runs fn(arg) in a goroutine, or on a plain thread. */
static inline void start(bool on_thread, void (*fn)(void *arg), void *arg) {
  struct started *s = malloc(sizeof *s);
  pthread_t thread;
  CHECK(s);
  *s = (struct started){fn, arg};
  atomic_fetch_add(&active, 1);
  if (!on_thread) {
    go(run_started, s);
    return;
  }
  CHECK_EQ(pthread_create(&thread, NULL, run_started_on_thread, s), 0);
  CHECK_EQ(pthread_detach(thread), 0);
}

/* Waits until all that start() has started are through with what they do. */
static inline void until_idle(void) { WAIT_FOR(atomic_load(&active) == 0); }

/* How many goroutines wait for something of this kind ("semaphore", "receive", ...; coir_fiber_info). */
static inline int waiting_for(const char *what) {
  size_t max = coir_runtime_list(csp_runtime(), NULL, 0) + 16;
  struct coir_fiber_info *list = calloc(max, sizeof *list);
  int count = 0;
  CHECK(list);
  size_t n = coir_runtime_list(csp_runtime(), list, max);
  for (size_t i = 0; i < n && i < max; i++)
    count += list[i].state == COIR_FIBER_WAITING && !strcmp(list[i].waits_for, what);
  free(list);
  return count;
}

static inline void pause_ns(int64_t ns) { csp_hangup((uint64_t)ns); }

/* Lets other goroutines run; a thread goes on, since on a busy machine it might not come back for long. */
static inline void give_way(void) {
  if (coir_current()) csp_yield();
}

/* Lets time pass without waiting. */
static inline void stroll(int64_t ns) {
  for (int64_t end = csp_timer_now() + ns; csp_timer_now() < end;) give_way();
}

/* fn() in a process of its own: aborts, and says so. To be called before there are workers. */
static inline void aborts_saying(void (*fn)(void), const char *message) {
  char text[4096];
  int status = in_child_process(fn, text, sizeof text);
  if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT || !strstr(text, message)) fprintf(stderr, "%s\n", text);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
  CHECK(strstr(text, message));
}

/* fn() in a process of its own, which ends without looking for what is not freed. */
static inline void in_child(void (*fn)(void)) {
  char text[16384];
  int status = in_child_process(fn, text, sizeof text);
  if (status) fprintf(stderr, "%s", text);
  CHECK_EQ(status, 0);
}

#endif
