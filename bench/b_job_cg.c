/* job_cg: for each of 10^3 to 10^5 elements the sum of five, added to one number that all share, one by one; in a loop
 * from outside.
 *
 * Per operation: wall time / elements. "coir": as jobs, eight for each worker; "coir adaptive": coir_parallel_range. */
#include "job_work.h"
#include "jobs.h"

#define ELEMENTS_MAX 100000

static double v[ELEMENTS_MAX];

struct vector {
  size_t n;
  long total;
};

static void add_range(size_t lo, size_t hi, void *arg) {
  struct vector *vector = arg;
  cg_range(v, vector->n, lo, hi, &vector->total);
}

static double measure(const struct bench *b, struct coir_job_system *jobs, bench_loop loop, long n) {
  long times = bench_times(b, 5000000, n);
  int64_t start_ns = coir_now();
  for (long i = 0; i < times; i++) {
    struct vector vector = {.n = n};
    loop(jobs, n, add_range, &vector);
    bench_equal("total", vector.total, 5 * n - 10); /* the last four have fewer than five */
  }
  return bench_each(start_ns, times * n);
}

static void run(const struct bench *b, double *values) {
  static const long sizes[] = {ELEMENTS_MAX, ELEMENTS_MAX / 10, ELEMENTS_MAX / 100};
  static struct coir_job_system *jobs;
  if (!jobs) jobs = bench_jobs(b, NULL);
  for (long i = 0; i < ELEMENTS_MAX; i++) v[i] = 1;
  for (int i = 0; i < 3; i++) {
    values[i] = measure(b, jobs, bench_loop_chunked, sizes[i]);
    values[3 + i] = measure(b, jobs, bench_loop_adaptive, sizes[i]);
  }
}

int main(int argc, char **argv) {
  struct bench b = {.question = "job_cg",
                    .metrics = {{NULL, "ns", "lower"},
                                {"10k", "ns", "lower"},
                                {"1k", "ns", "lower"},
                                {NULL, "ns", "lower"},
                                {"10k", "ns", "lower"},
                                {"1k", "ns", "lower"}},
                    .impls = {NULL, NULL, NULL, "coir adaptive", "coir adaptive", "coir adaptive"},
                    .run = run};
  return bench_main(argc, argv, &b);
}
