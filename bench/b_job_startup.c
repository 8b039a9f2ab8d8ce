/* job_startup: make a system, run one job, shut it down.
 *
 * Figures, in ms: with 16 stacks per worker from the start; "pool 4", "pool 64"; "pool 0", the default. */
#include "jobs.h"

static void count(struct coir_job *job, void *arg) {
  (void)job;
  ++*(long *)arg;
}

static double measure(const struct bench *b, size_t pool) {
  struct coir_job_config config = {.size = sizeof config, .initial_pool_size = pool};
  long times = bench_count(b, 100), ran = 0;
  int64_t start_ns = coir_now();
  for (long i = 0; i < times; i++) {
    struct coir_job_system *jobs = bench_jobs(b, &config);
    bench_job(jobs, count, &ran);
    bench_jobs_end(jobs);
  }
  double value = bench_each(start_ns, times) / 1e6;
  bench_equal("jobs", ran, times);
  return value;
}

static void run(const struct bench *b, double *values) {
  static const size_t pools[] = {16, 4, 64, 0};
  for (int i = 0; i < 4; i++) values[i] = measure(b, pools[i]);
}

int main(int argc, char **argv) {
  struct bench b = {.question = "job_startup",
                    .metrics = {{NULL, "ms", "lower"},
                                {"pool 4", "ms", "lower"},
                                {"pool 64", "ms", "lower"},
                                {"pool 0", "ms", "lower"}},
                    .run = run};
  return bench_main(argc, argv, &b);
}
