/* job_throughput: jobs_1m on systems of each pinning strategy, as the job layer's other users measure it.
 *
 * Per operation: wall time / jobs. The main figure is with COIR_PIN_AVOID_SMT. */
#include "job_million.h"

static void run(const struct bench *b, double *values) {
  static const enum coir_pinning strategies[] = {COIR_PIN_AVOID_SMT, COIR_PIN_NONE, COIR_PIN_LINEAR,
                                                 COIR_PIN_TIERED_SPILLOVER};
  for (int i = 0; i < 4; i++) {
    struct coir_job_config config;
    bench_check("coir_job_config_preset", coir_job_config_preset(&config, COIR_JOBS_THROUGHPUT));
    config.pinning = strategies[i];
    struct coir_job_system *jobs = bench_jobs(b, &config);
    values[i] = million_measure(jobs);
    bench_jobs_end(jobs);
  }
}

int main(int argc, char **argv) {
  struct bench b = {
      .question = "job_throughput",
      .metrics = {{NULL, "ns", "lower"}, {"none", "ns", "lower"}, {"linear", "ns", "lower"}, {"tiered", "ns", "lower"}},
      .run = run};
  return bench_main(argc, argv, &b);
}
