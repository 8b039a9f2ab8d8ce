/* job_ep: a sine and a cosine for each of 10^4 to 10^6 elements, "embarrassingly parallel", in a loop from outside.
 *
 * Per operation: wall time / elements. "coir": as jobs, eight for each worker; "coir adaptive": coir_parallel_range. */
#include <stdatomic.h>

#include "job_work.h"
#include "jobs.h"

static void add_range(size_t lo, size_t hi, void *sum) {
  atomic_fetch_add_explicit((_Atomic(uint64_t) *)sum, ep_range(lo, hi), memory_order_relaxed);
}

static double measure(const struct bench *b, struct coir_job_system *jobs, bench_loop loop, long n) {
  long times = bench_times(b, 3000000, n);
  uint64_t expected = ep_range(0, n);
  int64_t start_ns = coir_now();
  for (long i = 0; i < times; i++) {
    _Atomic(uint64_t) sum = 0;
    loop(jobs, n, add_range, &sum);
    bench_equal("sum", (long)sum, (long)expected);
  }
  return bench_each(start_ns, times * n);
}

static void run(const struct bench *b, double *values) {
  static const long sizes[] = {1000000, 100000, 10000};
  static struct coir_job_system *jobs;
  if (!jobs) jobs = bench_jobs(b, NULL);
  for (int i = 0; i < 3; i++) {
    values[i] = measure(b, jobs, bench_loop_chunked, sizes[i]);
    values[3 + i] = measure(b, jobs, bench_loop_adaptive, sizes[i]);
  }
}

int main(int argc, char **argv) {
  struct bench b = {.question = "job_ep",
                    .metrics = {{NULL, "ns", "lower"},
                                {"100k", "ns", "lower"},
                                {"10k", "ns", "lower"},
                                {NULL, "ns", "lower"},
                                {"100k", "ns", "lower"},
                                {"10k", "ns", "lower"}},
                    .impls = {NULL, NULL, NULL, "coir adaptive", "coir adaptive", "coir adaptive"},
                    .run = run};
  return bench_main(argc, argv, &b);
}
