/* jobs_1m: one job spawns 10^6 jobs that do next to nothing; then it and their counter are waited for from outside.
 * --quick does not make it fewer.
 *
 * Per operation: wall time / jobs. */
#include "job_million.h"

static void run(const struct bench *b, double *values) {
  static struct coir_job_system *jobs;
  if (!jobs) jobs = bench_jobs(b, NULL);
  values[0] = million_measure(jobs);
}

int main(int argc, char **argv) {
  struct bench b = {.question = "jobs_1m", .metrics = {{NULL, "ns", "lower"}}, .run = run};
  return bench_main(argc, argv, &b);
}
