/* csp_places.h: tests whose parts run on goroutines, on threads of their own, and on main's. */
#ifndef CSP_TEST_PLACES_H
#define CSP_TEST_PLACES_H

#include "parked.h"

#include "chan.h"
#include "scheduler.h"

enum place { ON_MAIN, ON_GOROUTINE, ON_THREAD, PLACES };

/* A function that runs somewhere. */
struct task {
  void (*fn)(void *arg);
  void *arg;
  enum place place;
  pthread_t thread;
  struct coir_event has_ended;
};

static inline void task_run(void *task) {
  struct task *t = task;
  t->fn(t->arg);
  coir_event_set(&t->has_ended);
}

static inline void *task_thread(void *task) {
  task_run(task);
  return NULL;
}

/* ON_MAIN it runs here and now. */
static inline void start(struct task *t, enum place place, void (*fn)(void *), void *arg) {
  *t = (struct task){.fn = fn, .arg = arg, .place = place};
  if (place == ON_MAIN) task_run(t);
  else if (place == ON_THREAD) CHECK_EQ(pthread_create(&t->thread, NULL, task_thread, t), 0);
  else CHECK(csp_proc_create(2, task_run, t) != NULL);
}

static inline void finish(struct task *t) {
  CHECK_EQ(coir_event_wait(&t->has_ended, COIR_NEVER), 0);
  if (t->place == ON_THREAD) CHECK_EQ(pthread_join(t->thread, NULL), 0);
}

static inline void run_at(enum place place, void (*fn)(void *), void *arg) {
  struct task t;
  start(&t, place, fn, arg);
  finish(&t);
}

static inline void call_body(void *body) { (*(void (**)(void))body)(); }

/* A test whose body runs on main's thread, on a goroutine, and on a thread of its own. */
#define EVERYWHERE(name)                                                          \
  static void name##_body(void);                                                  \
  static void name(void **state) {                                                \
    void (*body)(void) = name##_body;                                             \
    (void)state;                                                                  \
    for (int place = 0; place < PLACES; place++) run_at(place, call_body, &body); \
  }                                                                               \
  static void name##_body(void)

/* A test of two parties: the first is started on a goroutine or on a thread, the second runs in any place. */
#define FOR_ALL_PAIRS(a, b)                          \
  for (enum place a = ON_GOROUTINE; a < PLACES; a++) \
    for (enum place b = ON_MAIN; b < PLACES; b++)

/* Waits until exactly `n` goroutines wait for something but time. */
static inline void until_waiting(int n) { until_parked_in(csp_runtime(), n); }

/* Waits until the task, the only one that does, waits: of a thread that is only likely then. */
static inline void until_task_waits(const struct task *t) {
  if (t->place == ON_GOROUTINE) until_waiting(1);
  else CHECK_EQ(coir_sleep(COIR_MS(5)), 0);
}

/* A fiber in the runtime of the goroutines, with a handle: so it can be cancelled. */
static inline struct coir_fiber *spawn_beside(void (*fn)(void *), void *arg) {
  struct coir_attr attr = {.is_void = true};
  struct coir_fiber *f = NULL;
  CHECK_EQ(coir_runtime_spawn(csp_runtime(), (coir_fn)(void (*)(void))fn, arg, &attr, &f), 0);
  return f;
}

static inline void *number(uintptr_t n) { return (void *)n; }

#endif
