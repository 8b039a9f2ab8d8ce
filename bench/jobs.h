/* What the benchmarks of the job system share. */
#ifndef BENCH_JOBS_H
#define BENCH_JOBS_H

#include "bench.h"
#include "coir_job.h"

/* Makes a system with b->workers threads; config may be NULL. Dies when it fails. */
static inline struct coir_job_system *bench_jobs(const struct bench *b, const struct coir_job_config *config) {
  struct coir_job_config own = config ? *config : (struct coir_job_config){.size = sizeof own};
  struct coir_job_system *jobs;
  own.threads = b->workers;
  bench_check("coir_job_system_create", coir_job_system_create(&jobs, &own));
  return jobs;
}

static inline void bench_jobs_end(struct coir_job_system *jobs) {
  bench_equal("jobs that failed", coir_job_system_shutdown(jobs, COIR_NEVER), 0);
  coir_job_system_destroy(jobs);
}

/* Waits for all that a counter counts, and gives it up. Dies when there is none, or a job of it has failed. */
static inline void bench_finish(struct coir_counter *counter) {
  if (!counter) bench_die("no counter");
  bench_equal("coir_counter_wait", coir_counter_wait(counter, COIR_NEVER), 0);
  coir_counter_unref(counter);
}

/* Runs one job, and waits for it. */
static inline void bench_job(struct coir_job_system *jobs, coir_job_fn fn, void *arg) {
  bench_finish(coir_job_run(jobs, fn, arg));
}

/* How often to do what has `size` parts, for `full` parts in all, or a fifth of them with --quick. */
static inline long bench_times(const struct bench *b, long full, long size) {
  long times = bench_count(b, full) / size;
  return times > 0 ? times : 1;
}

/* Wall time of each of `n` operations, in nanoseconds. */
static inline double bench_each(int64_t start_ns, long n) { return (double)(coir_now() - start_ns) / (double)n; }

/* A loop over 0 <= i < n, from outside of the system, in one of two ways. */
typedef void (*bench_loop)(struct coir_job_system *jobs, size_t n, coir_range_fn body, void *arg);

/* Eight jobs for each worker. */
static inline void bench_loop_chunked(struct coir_job_system *jobs, size_t n, coir_range_fn body, void *arg) {
  bench_finish(coir_job_parallel_for_chunked_auto(jobs, 0, n, body, arg));
}

/* Split when somebody is out of work. */
static inline void bench_loop_adaptive(struct coir_job_system *jobs, size_t n, coir_range_fn body, void *arg) {
  bench_check("coir_parallel_range", coir_parallel_range(jobs, 0, n, 0, body, arg));
}

#endif
