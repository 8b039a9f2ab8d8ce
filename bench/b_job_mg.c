/* job_mg: each element of an array with its two neighbours, 64^3 to 256^3 of them, which no cache holds; in a loop from
 * outside.
 *
 * Per operation: wall time / elements. "coir": as jobs, eight for each worker; "coir adaptive": coir_parallel_range. */
#include <stdatomic.h>

#include "job_work.h"
#include "jobs.h"

#define SIDE_MAX 256

struct grid {
  const double *v;
  size_t n;
  _Atomic(uint64_t) sum;
};

static void add_range(size_t lo, size_t hi, void *arg) {
  struct grid *grid = arg;
  atomic_fetch_add_explicit(&grid->sum, mg_range(grid->v, grid->n, lo, hi), memory_order_relaxed);
}

static double measure(const struct bench *b, struct coir_job_system *jobs, bench_loop loop, const double *v, long n) {
  long times = bench_times(b, 80000000, n);
  uint64_t expected = mg_range(v, n, 0, n);
  int64_t start_ns = coir_now();
  for (long i = 0; i < times; i++) {
    struct grid grid = {.v = v, .n = n};
    loop(jobs, n, add_range, &grid);
    bench_equal("sum", (long)grid.sum, (long)expected);
  }
  return bench_each(start_ns, times * n);
}

static void run(const struct bench *b, double *values) {
  static const long sides[] = {SIDE_MAX, SIDE_MAX / 2, SIDE_MAX / 4};
  static struct coir_job_system *jobs;
  static double *v;
  if (!jobs) {
    jobs = bench_jobs(b, NULL);
    v = bench_alloc((size_t)SIDE_MAX * SIDE_MAX * SIDE_MAX * sizeof *v);
    mg_fill(v, (size_t)SIDE_MAX * SIDE_MAX * SIDE_MAX);
  }
  for (int i = 0; i < 3; i++) {
    long n = sides[i] * sides[i] * sides[i];
    values[i] = measure(b, jobs, bench_loop_chunked, v, n);
    values[3 + i] = measure(b, jobs, bench_loop_adaptive, v, n);
  }
}

int main(int argc, char **argv) {
  struct bench b = {.question = "job_mg",
                    .metrics = {{NULL, "ns", "lower"},
                                {"128", "ns", "lower"},
                                {"64", "ns", "lower"},
                                {NULL, "ns", "lower"},
                                {"128", "ns", "lower"},
                                {"64", "ns", "lower"}},
                    .impls = {NULL, NULL, NULL, "coir adaptive", "coir adaptive", "coir adaptive"},
                    .run = run};
  return bench_main(argc, argv, &b);
}
