/* What the tests of the job system share. Systems are as large as COIR_WORKERS says. */
#ifndef COIR_TEST_JOBS_H
#define COIR_TEST_JOBS_H

#include "processes.h"

#include "coir_job.h"

static inline int thread_count(void) {
  const char *text = getenv("COIR_WORKERS");
  return text ? atoi(text) : 4;
}

static inline struct coir_job_system *make_jobs(struct coir_job_config config) {
  struct coir_job_system *jobs = NULL;
  if (!config.threads) config.threads = thread_count();
  CHECK_EQ(coir_job_system_create(&jobs, &config), 0);
  CHECK(jobs);
  return jobs;
}

/* Lets it end, and gives it up. `failed`: so many of its jobs have failed. */
static inline void end_jobs(struct coir_job_system *jobs, int failed) {
  CHECK_EQ(coir_job_system_shutdown(jobs, COIR_NEVER), failed);
  coir_job_system_destroy(jobs);
}

/* Waits for the jobs of a counter, none of which fails, and gives it up. */
static inline void finish(struct coir_counter *counter) {
  CHECK(counter);
  CHECK_EQ(coir_counter_wait(counter, COIR_NEVER), 0);
  CHECK(coir_counter_is_complete(counter));
  coir_counter_unref(counter);
}

/* The same where `failed` of them do. */
static inline void finish_failed(struct coir_counter *counter, int failed) {
  CHECK(counter);
  CHECK_EQ(coir_counter_wait(counter, COIR_NEVER), failed);
  CHECK_EQ(coir_counter_failures(counter), failed);
  CHECK_EQ(coir_counter_value(counter), 0);
  coir_counter_unref(counter);
}

/* A case with a system, `jobs`; and one whose body is a job, `job`, of such a system. WITH_JOBS(name, .threads = 1) */
#define WITH_JOBS(name, ...)                                                                    \
  static void name##_body(struct coir_job_system *jobs);                                        \
  static void name(void) {                                                                      \
    struct coir_job_system *jobs = make_jobs((struct coir_job_config){.size = 0, __VA_ARGS__}); \
    name##_body(jobs);                                                                          \
    end_jobs(jobs, 0);                                                                          \
  }                                                                                             \
  static void name##_body(struct coir_job_system *jobs)
#define IN_JOB(name, ...)                                                        \
  static void name##_in(struct coir_job *job);                                   \
  static void name##_job(struct coir_job *job, void *arg) {                      \
    (void)arg;                                                                   \
    name##_in(job);                                                              \
  }                                                                              \
  WITH_JOBS(name, __VA_ARGS__) { finish(coir_job_run(jobs, name##_job, NULL)); } \
  static void name##_in(struct coir_job *job)

typedef _Atomic(int) tally;

static inline void counts(struct coir_job *job, void *n) {
  (void)job;
  atomic_fetch_add((tally *)n, 1);
}

static inline void takes_10_ms(struct coir_job *job, void *n) {
  (void)coir_sleep(COIR_MS(10));
  counts(job, n);
}

/* One of a chain of jobs that nobody waits for. */
static inline void goes_on(struct coir_job *job, void *arg) {
  tally *left = arg;
  if (atomic_fetch_sub(left, 1) <= 0) return;
  if (*left % 3 == 0) (void)coir_sleep(COIR_US(100));
  CHECK_EQ(coir_job_spawn_detached(job, goes_on, arg), 0);
}

/* What holds a worker until it is told to let go; for systems without a monitor, which would take the worker away. */
struct gate {
  tally is_held, is_open;
};

static inline void holds(struct coir_job *job, void *arg) {
  struct gate *gate = arg;
  (void)job;
  atomic_store(&gate->is_held, 1);
  SPIN_UNTIL(atomic_load(&gate->is_open));
}

/* Has one worker of `jobs` held. */
static inline struct coir_counter *hold(struct coir_job_system *jobs, struct gate *gate) {
  struct coir_counter *held = coir_job_run(jobs, holds, gate);
  CHECK(held);
  WAIT_FOR(atomic_load(&gate->is_held));
  return held;
}

static inline void let_go(struct gate *gate, struct coir_counter *held) {
  atomic_store(&gate->is_open, 1);
  finish(held);
}

static inline void spin_for(int64_t ns) {
  int64_t until = coir_now() + ns;
  while (coir_now() < until) {}
}

#endif
