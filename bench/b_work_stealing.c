/* work_stealing: a job spawns 1000 to 100 000 jobs of which each tenth is a hundred times longer than the others: it
 * computes the thousandth Fibonacci number, they the tenth.
 *
 * Per operation: wall time / jobs. */
#include <stdlib.h>

#include "job_work.h"
#include "jobs.h"

struct load {
  uint64_t *results;
  long jobs;
  struct coir_counter counter;
};

static uint64_t *results; /* of the load that is measured; a job finds its number by it */

static void compute(struct coir_job *job, void *result) {
  (void)job;
  *(uint64_t *)result = steal_job((uint64_t *)result - results);
}

static void spawn_all(struct coir_job *job, void *arg) {
  struct load *load = arg;
  for (long i = 0; i < load->jobs; i++) {
    int rc = coir_job_spawn_with(job, &load->counter, compute, &load->results[i]);
    if (rc < 0) bench_die("coir_job_spawn_with: %s", strerror(-rc));
  }
}

static double measure(const struct bench *b, struct coir_job_system *jobs, long count) {
  struct load load = {.results = results, .jobs = count};
  long times = bench_times(b, 500000, count);
  uint64_t wrong = 0;
  coir_counter_init(&load.counter, 0);
  memset(results, 0, count * sizeof results[0]);
  int64_t start_ns = coir_now();
  for (long i = 0; i < times; i++) {
    bench_job(jobs, spawn_all, &load);
    bench_equal("coir_counter_wait", coir_counter_wait(&load.counter, COIR_NEVER), 0);
  }
  double value = bench_each(start_ns, times * count);
  for (long i = 0; i < count; i++) wrong += results[i] != steal_job(i);
  bench_equal("wrong results", (long)wrong, 0);
  return value;
}

static void run(const struct bench *b, double *values) {
  static struct coir_job_system *jobs;
  if (!jobs) {
    jobs = bench_jobs(b, NULL);
    results = bench_alloc(100000 * sizeof results[0]);
  }
  values[0] = measure(b, jobs, 100000);
  values[1] = measure(b, jobs, 10000);
  values[2] = measure(b, jobs, 1000);
}

int main(int argc, char **argv) {
  struct bench b = {.question = "work_stealing",
                    .metrics = {{NULL, "ns", "lower"}, {"10k", "ns", "lower"}, {"1k", "ns", "lower"}},
                    .run = run};
  return bench_main(argc, argv, &b);
}
